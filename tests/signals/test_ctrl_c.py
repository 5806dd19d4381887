"""Ctrl-C, and any handler that raises: in each phase the exception is the caller's within 100 ms, and nothing is left of the request."""
from __future__ import annotations

import itertools
import os
import signal
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

import pooledhttp
from pooledhttp import Client
from tests.deadlines.runs import Case, Stage, stage
from tests.exchange.support import adds_up, closed, until
from tests.signals.phases import STALLS, Bell, new_run, shown, troubles
from tests.support.ca import Authority
from tests.support.peer import PATIENCE, Conn, Peer, respond

TIMES = 3             # meetings, of which the median counts
SOON = 0.1
ROUNDS = 3            # of TIMES meetings: something else may have the processors
BOUND = 3.0           # seconds for each of them, however busy the machine


def interrupt() -> None:
    """As Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)


def interrupt_elsewhere() -> None:
    """As Ctrl-C does where the kernel gives it to another thread."""
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)


@pytest.fixture
def place(ca: Authority) -> Iterator[Stage]:
    with stage(ca) as it:
        yield it


def strike(call: Callable[[], object], met: Callable[[], object], ring: Callable[[], object], error: type[BaseException] = KeyboardInterrupt,
           still: bool = True) -> float:
    """Seconds from the signal, which comes when `met()`, to the exception."""
    with Bell(met, ring, still=still) as bell:
        try:
            call()
        except error:
            caught = time.monotonic()
        else:
            pytest.fail("nothing was raised")
    assert bell.rung, "the bell did not ring"
    return caught - bell.rung


def timely(meet: Callable[[], float]) -> None:
    """The median of a few meetings is within 100 ms, and each within a bound."""
    for _ in range(ROUNDS):
        took = [meet() for _ in range(TIMES)]
        assert max(took) < BOUND, shown(took)
        if statistics.median(took) < SOON:
            return
    pytest.fail(f"late in {ROUNDS} rounds, the last: {shown(took)}")


def check(place: Stage, case: Case, ring: Callable[[], None]) -> None:
    def meet() -> float:
        run = new_run(place, case)
        took = strike(run.call, run.met, ring)
        assert troubles(run) == []
        return took

    timely(meet)


@pytest.mark.parametrize("case", STALLS, ids=str)
def test_ctrl_c(place: Stage, case: Case) -> None:
    check(place, case, interrupt)


@pytest.mark.parametrize("case", STALLS, ids=str)
def test_ctrl_c_that_another_thread_is_given(place: Stage, case: Case) -> None:
    """Nothing breaks the main thread's wait: as where a signal arrives just before the wait begins."""
    check(place, case, interrupt_elsewhere)


@pytest.mark.parametrize("case", [case for case in STALLS if case.how != "map"], ids=str)
def test_an_alarm_whose_handler_raises(place: Stage, case: Case) -> None:
    """As some bound a block of code: SIGALRM, and a builtin TimeoutError, which is an OSError and no failure of the connection."""

    class Expired(TimeoutError):
        pass

    def expire(*_: object) -> None:
        raise Expired

    before = signal.signal(signal.SIGALRM, expire)
    try:
        run = new_run(place, case)
        assert strike(run.call, run.met, lambda: signal.setitimer(signal.ITIMER_REAL, 0.001), Expired) < BOUND
        run.reasons = ("cancelled", "error", "drain_limit")        # raised in the upload's iterator, or in the block, it is as any exception there
        run.look()
        assert run.outcome.trouble == []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_main_thread_that_blocks_the_signal(place: Stage) -> None:
    """Another thread takes it; the handler runs in the main one all the same."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for case in STALLS:
        if str(case) in ("head-whole-total", "tls-body-iter_bytes-total", "pool-whole-total", "dns-whole-total"):
            run = new_run(place, case)
            with Bell(run.met, interrupt) as bell:      # started before: it blocks nothing
                try:
                    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                    with pytest.raises(KeyboardInterrupt):
                        run.call()
                    assert time.monotonic() - bell.rung < BOUND
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            assert troubles(run) == []


# --- bytes that never stop coming, so that no wait ever lasts -------------------------------------------------------------------------

RINGS = pytest.mark.parametrize("ring", [interrupt, interrupt_elsewhere])


Begun = Callable[[], None]


def flooding(conn: Conn, begun: Begun) -> None:
    conn.send(respond(headers={"Content-Length": str(1 << 40)}, length=False))
    while True:
        conn.send(bytes(65536))
        begun()


def swallowing(conn: Conn, begun: Begun) -> None:
    while conn.sock.recv(1 << 20):
        begun()


def dribbling_record(conn: Conn, begun: Begun) -> None:
    """A TLS record in the answer's place, a byte at a time."""
    with socket.fromfd(conn.sock.fileno(), socket.AF_INET, socket.SOCK_STREAM) as below:
        below.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError):
            below.send(b"\x17\x03\x03\x40\x00xxxxx")
            while not conn.closed.wait(0.01):
                below.send(b"x")
                begun()


FLOWS: dict[str, tuple[Callable[[Conn, Begun], None], Callable[[Client, str], object]]] = {
    "download": (flooding, lambda client, url: client.get(url)),
    "upload": (swallowing, lambda client, url: client.put(url, content=bytes(1 << 30))),
    "pieces": (swallowing, lambda client, url: client.put(url, content=itertools.repeat(bytes(65536)))),
    "record": (dribbling_record, lambda client, url: client.get(url)),
}


@pytest.mark.parametrize("ring", [interrupt, interrupt_elsewhere])
@pytest.mark.parametrize(("how", "secure"), [(how, secure) for how in FLOWS for secure in (False, True) if secure or how != "record"])
def test_while_bytes_flow(peer: Callable[..., Peer], new_client: Callable[..., Client], ca: Authority, ring: Callable[[], None], how: str,
                          secure: bool) -> None:
    flow, send = FLOWS[how]
    begun: set[int] = set()

    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        flow(conn, lambda: begun.add(i))

    server = peer(script, tls=ca.server() if secure else None)
    client = new_client(verify=str(ca.pem))
    meetings = itertools.count(1)

    def meet() -> float:
        n = next(meetings)
        took = strike(lambda: send(client, server.url()), lambda: n - 1 in begun, ring, still=False)
        assert closed(client.transport.stats()) == {"cancelled": n}
        server.wait_closed(n - 1)
        return took

    timely(meet)


# --- other doors ------------------------------------------------------------------------------------------------------------------


def get(url: str) -> object:
    return pooledhttp.get(url, timeout=PATIENCE)


def with_stream(url: str) -> None:
    with pooledhttp.stream("GET", url, timeout=PATIENCE) as r:
        for _ in r.iter_bytes():
            pass


def unclosed(url: str) -> None:
    pooledhttp.get(url, stream=True, timeout=PATIENCE).read()


def completed(url: str) -> None:
    list(pooledhttp.default_client().as_completed([url] * 20, workers=4, timeout=PATIENCE))


def executed(url: str) -> None:
    with ThreadPoolExecutor(4) as executor:
        list(pooledhttp.default_client().map([url] * 20, executor=executor, timeout=PATIENCE))


@pytest.mark.parametrize("ring", [interrupt, interrupt_elsewhere])
@pytest.mark.parametrize("call", [get, with_stream, unclosed, completed, executed])
def test_the_process_wide_client(place: Stage, call: Callable[[str], object], ring: Callable[[], None]) -> None:
    several = call in (completed, executed)
    transport = pooledhttp.default_transport()
    names = (f"here{n}" for n in itertools.count())          # a slow server may meet requests of the round before, long given up, only now

    def meet() -> float:
        before = transport.stats()
        name = next(names)
        stall = place.plain.new(name)
        took = strike(lambda: call(place.plain.url(f"/body/{name}")), lambda: stall.began, ring)
        # Of the threads, one may have been cancelled before it dialed.
        until(lambda: transport.stats().active + transport.stats().dialing == 0, "the end of all requests", 0.0 if not several else BOUND)
        after = transport.stats()
        assert after.closed["cancelled"] + after.closed["drain_limit"] > before.closed["cancelled"] + before.closed["drain_limit"]
        assert after.leaked == before.leaked
        return took

    timely(meet)
    adds_up(transport.stats())
    assert pooledhttp.get(place.plain.url("/ok")).content == b"ok"
