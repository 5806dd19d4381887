"""A context ends a request in whatever phase it is: by a cancel within 50 ms, by its deadline on time, and the pool is whole afterwards."""
from __future__ import annotations

import gc
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pooledhttp import Cancelled, Client, Context, DeadlineExceeded, Response, Retry
from tests.deadlines.runs import CASES, STAGGER, TIMES, Case, Run, Stage, lateness, stage
from tests.exchange.support import adds_up, closed, until
from tests.support.ca import Authority
from tests.support.peer import PATIENCE, Conn, Peer, answering, respond

MakePeer = Callable[..., Peer]
SOON = 0.05
ROUNDS = 3            # of TIMES meetings: something else may have the processors
# The stalls of the deadlines' tests, each once: which limit would end it does not matter here.
STALLS = [case for case in CASES if case.limit == "total"]


@pytest.fixture
def place(ca: Authority) -> Iterator[Stage]:
    with stage(ca) as it:
        yield it


class Runs:
    count = 0


def set_up(place: Stage, case: Case, seconds: float) -> Run:
    Runs.count += 1
    run = Run(case, seconds, f"c{os.getpid()}-{Runs.count}")
    place.set_up(run)
    return run


def settle(run: Run) -> list[str]:
    """What is wrong once the connection is drained or closed: nothing is left of the request, and the client works."""
    held = 1 if run.case.where == "pool" else 0
    until(lambda: run.client.transport.stats().active == held)
    run.reasons = ("cancelled", "timeout", "drain_limit")
    run.look()
    return run.outcome.trouble


@pytest.mark.parametrize("case", STALLS, ids=str)
def test_a_cancel(place: Stage, case: Case) -> None:
    def meet() -> float:
        run = set_up(place, case, PATIENCE)
        ctx = Context()
        rung = []

        def ring() -> None:
            until(run.met)
            rung.append(time.monotonic())
            ctx.cancel("enough")

        bell = threading.Thread(target=ring)
        bell.start()
        with pytest.raises(Cancelled) as caught, ctx:
            run.call()
        took = time.monotonic() - rung[0]
        bell.join()
        # The server's word for it: the head that it has sent may still be on its way.
        assert caught.value.phase == case.phase or (caught.value.phase, case.phase) == ("headers", "body")
        assert caught.value.reason == "enough"
        assert settle(run) == []
        return took

    for _ in range(ROUNDS):
        took = [meet() for _ in range(TIMES)]
        if statistics.median(took) < SOON:
            return
    pytest.fail(f"late in {ROUNDS} rounds, the last: {[f'{seconds * 1e3:.1f} ms' for seconds in took]}")


@pytest.mark.slow
def test_a_deadline(ca: Authority) -> None:
    """All stalls, each TIMES times, all at once: never early, and not late; the error says whose it was."""
    with stage(ca) as place:
        runs = [set_up(place, case, 0.8) for _ in range(TIMES) for case in STALLS]

        def meet(run: Run) -> None:
            run.began = None
            try:
                with Context(timeout=run.seconds):
                    began = time.monotonic()
                    try:
                        run.call()
                    finally:
                        run.outcome.late = time.monotonic() - began - run.seconds
            except BaseException as e:  # noqa: B036 - looked at below
                run.outcome.error = e.with_traceback(None)
                e.__cause__ = e.__context__ = None

        threads = []
        for run in runs:
            run.timeout = type(run.timeout)(PATIENCE)
            threads.append(threading.Thread(target=meet, args=(run,)))
            threads[-1].start()
            time.sleep(STAGGER)
        for thread in threads:
            thread.join()
        wrong = []
        for case in STALLS:
            these = [run for run in runs if run.case is case]
            for run in these:
                error = run.outcome.error
                if not isinstance(error, DeadlineExceeded) or error.source != "context" or error.phase != case.phase:
                    wrong.append(f"{case}: {error!r}")
                elif run.outcome.late < 0:
                    wrong.append(f"{case}: early by {-run.outcome.late * 1e3:.1f} ms")
                wrong += [f"{case}: {trouble}" for trouble in settle(run)]
            if lateness([run.outcome for run in these]) > 0.1:
                wrong.append(f"{case}: late by {lateness([run.outcome for run in these]) * 1e3:.1f} ms")
        assert wrong == []


@pytest.mark.parametrize(("client_total", "request_total", "context", "source"), [
    (0.1, None, 5, "client"), (5, 0.1, 5, "request"), (5, None, 0.1, "context"), (5, 5, 0.1, "context"), (None, None, 0.1, "context"), (0.1, 5, 0.3, "context"),
])
def test_the_earliest_deadline_wins(peer: MakePeer, client_total: float | None, request_total: float | None, context: float, source: str) -> None:
    stop = threading.Event()

    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        stop.wait(PATIENCE)

    server = peer(script)
    with Client(max_idle_conns=5, timeout=client_total) as client:
        for ambient in (False, True):
            options: dict[str, float] = {} if request_total is None else {"timeout": request_total}
            ctx = Context(timeout=context)
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded) as caught:
                if ambient:
                    with ctx:
                        client.get(server.url(), **options)  # type: ignore[arg-type]
                else:
                    client.get(server.url(), context=ctx, **options)  # type: ignore[arg-type]
            earliest = min(t for t in (client_total if request_total is None else request_total, context) if t is not None)
            assert earliest <= time.monotonic() - began < earliest + 0.5
            assert (caught.value.source, source in str(caught.value)) == (source, True)
    stop.set()


def test_what_ended_before_begins_nothing(peer: MakePeer) -> None:
    server = peer(answering(respond(b"ok")))
    cancelled, over = Context(), Context(timeout=0)
    cancelled.cancel("no")
    with Client(max_idle_conns=5) as client:
        with pytest.raises(Cancelled, match="no"):
            client.get(server.url(), context=cancelled)
        with pytest.raises(DeadlineExceeded):
            client.get(server.url(), context=over)
        with pytest.raises(Cancelled), cancelled:
            client.post(server.url(), json={})
        assert client.transport.stats().opened <= 1
        assert all(b"HTTP/1.1" not in conn.received for conn in server.conns)


def test_a_cancel_that_comes_late_is_harmless(peer: MakePeer) -> None:
    server = peer(answering(respond(b"ok")))
    with Client(max_idle_conns=5) as client:
        for i in range(50):
            ctx = Context(timeout=5)
            with ctx:
                r = client.get(server.url())
            ctx.cancel()
            assert (r.content, r.conn.requests if r.conn else 0) == (b"ok", i + 1)
        assert closed(client.transport.stats()) == {}


def test_thousands_of_racing_cancels(peer: MakePeer) -> None:
    """Each ends its own request or none: no other fails, no answer is another's, and descriptors do not grow, though they are used again meanwhile."""

    def script(conn: Conn, i: int) -> None:
        while True:
            head = conn.recv_head()
            conn.send(respond(head.split(b" ")[1]))

    server = peer(script)
    wrong: list[BaseException | str] = []
    counts = {"answered": 0, "cancelled": 0}
    lock = threading.Lock()
    contexts: list[tuple[float, Context]] = []
    more = threading.Condition()
    over = threading.Event()

    def cancel() -> None:
        while not over.is_set():
            with more:
                while not contexts and not over.is_set():
                    more.wait(1)
                due = contexts.pop() if contexts else None
            if due is not None:
                while time.monotonic() < due[0]:
                    pass
                due[1].cancel()

    def work(seed: int, client: Client) -> None:
        rng = random.Random(seed)
        for n in range(250):
            ctx = Context()
            path = f"/{seed}-{n}"
            if n % 2:
                with more:
                    contexts.append((time.monotonic() + rng.uniform(0, 0.0015), ctx))
                    more.notify()
            try:
                r: Response = client.get(server.url(path), context=ctx)
                if r.content != path.encode():
                    wrong.append(f"{path} was answered {r.content!r}")
                kind = "answered"
            except Cancelled as e:
                kind = "cancelled"
                if not ctx.cancelled:
                    wrong.append(e)
            except BaseException as e:  # noqa: B036 - looked at below
                wrong.append(e)
                return
            with lock:
                counts[kind] += 1

    with Client(max_idle_conns_per_host=8, max_conns_per_host=12) as client:
        cancellers = [threading.Thread(target=cancel) for _ in range(2)]
        threads = [threading.Thread(target=work, args=(seed, client)) for seed in range(16)]
        for t in (*cancellers, *threads):
            t.start()
        for t in threads:
            t.join(60)
        over.set()
        with more:
            more.notify_all()
        for t in cancellers:
            t.join()
        assert wrong == []
        assert sum(counts.values()) == 16 * 250 and counts["cancelled"] > 20, counts
        until(lambda: client.transport.stats().active == 0)
        adds_up(client.transport.stats())


def test_no_descriptor_for_a_request(peer: MakePeer) -> None:
    """One wake descriptor a thread, however many contexts it uses."""
    server = peer(answering(respond(b"ok")))
    with Client(max_idle_conns=5) as client:
        client.get(server.url(), context=Context(timeout=5))
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        kept = []
        for _ in range(200):
            ctx = Context(timeout=5)
            kept.append(ctx)
            client.get(server.url(), context=ctx.child())
        assert len(os.listdir("/proc/self/fd")) == before


def test_ambient_travels_into_map(peer: MakePeer) -> None:
    stop = threading.Event()

    def script(conn: Conn, i: int) -> None:
        while True:
            head = conn.recv_head()
            if b"/stall" in head:
                stop.wait(PATIENCE)
                return
            conn.send(respond(b"ok"))

    server = peer(script)
    with Client(max_idle_conns=20) as client:
        ctx = Context()
        with ctx:
            results = client.map([server.url("/"), server.url("/stall"), server.url("/stall")], workers=3, return_exceptions=True)
            assert next(results).content == b"ok"  # type: ignore[union-attr]
            threading.Timer(0.05, ctx.cancel, ("enough",)).start()
            began = time.monotonic()
            rest = list(results)
        assert time.monotonic() - began < 1.0
        assert [type(e) for e in rest] == [Cancelled, Cancelled] and all(e.reason == "enough" for e in rest)  # type: ignore[union-attr]
        with pytest.raises(DeadlineExceeded) as caught:
            list(client.map([server.url("/stall")], context=Context(timeout=0.1)))
        assert caught.value.source == "context"
    stop.set()


def test_a_pause_between_tries(peer: MakePeer) -> None:
    """A cancel ends it within 50 ms; a deadline that it would pass ends the trying at once, with the answer that there is."""
    server = peer(answering(*[respond(b"busy", 503)] * 20))
    took = []
    with Client(max_idle_conns=5, retries=Retry(5, backoff=20.0, max_backoff=20.0, jitter=False)) as client:
        for _ in range(TIMES):
            ctx = Context()
            answered = client.transport.stats().requests
            rung = []

            def ring(ctx: Context = ctx, answered: int = answered, rung: list[float] = rung) -> None:
                until(lambda: client.transport.stats().requests > answered and client.transport.stats().active == 0)
                rung.append(time.monotonic())
                ctx.cancel("enough")

            bell = threading.Thread(target=ring)
            bell.start()
            with pytest.raises(Cancelled) as caught:
                client.get(server.url(), context=ctx)
            took.append(time.monotonic() - rung[0])
            bell.join()
            assert caught.value.reason == "enough"
        assert statistics.median(took) < SOON, took
        began = time.monotonic()
        assert client.get(server.url(), context=Context(timeout=1)).status_code == 503
        assert time.monotonic() - began < 0.5
