"""The batch job that is cancelled half-way: by a cancel, by a deadline, by Ctrl-C. All ends at once, and what was done is kept."""
from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from examples.batch.job import Outcome, run
from pooledhttp import Client, Context
from tests.exchange.support import until
from tests.support.peer import PATIENCE, Conn, Peer, respond
from tests.support.processes import ROOT

MakePeer = Callable[..., Peer]
WORKERS, DONE, ALL = 8, 40, 80
SOON = 0.05
ROUNDS = 8          # something else may have the processors


class Backend:
    """Answers the first `DONE` of the job's URLs, and then no more. `stalled` counts who waits."""

    def __init__(self, peer: MakePeer) -> None:
        self._count = threading.Condition()
        self.stalled = 0
        self.peer = peer(self.answer)

    def answer(self, conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            if int(head.split()[1].rpartition(b"/")[2]) >= DONE:
                with self._count:
                    self.stalled += 1
                    self._count.notify_all()
                conn.recv_until_closed()
                return
            conn.send(respond(b"seven b"))

    def urls(self) -> list[str]:
        return [self.peer.url(f"/{n}") for n in range(ALL)]

    def all_stalled(self) -> None:
        with self._count:
            assert self._count.wait_for(lambda: self.stalled == WORKERS, PATIENCE)


def half_done(outcome: Outcome, backend: Backend) -> None:
    urls = backend.urls()
    assert outcome.sizes == dict.fromkeys(urls[:DONE], 7)
    assert outcome.errors == {}
    assert sorted(outcome.left) == sorted(urls[DONE:])
    assert sum(bytes(c.received).count(b"GET ") for c in backend.peer.conns) == DONE + WORKERS          # nothing was sent after the end


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_it_ends_half_way(peer: MakePeer, how: str) -> None:
    def meet() -> float:
        backend = Backend(peer)
        with Client(max_idle_conns_per_host=WORKERS, timeout=PATIENCE) as client:
            context = Context(timeout=1.0 if how == "deadline" else None)
            ends: list[float] = [] if context.deadline is None else [context.deadline]

            def cancel() -> None:
                backend.all_stalled()
                ends.append(time.monotonic())
                context.cancel("enough")

            canceller = threading.Thread(target=cancel)
            if how == "cancel":
                canceller.start()
            outcome = run(client, backend.urls(), context, WORKERS)
            took = time.monotonic() - ends[0]
            if how == "cancel":
                canceller.join()
            assert [t.name for t in threading.enumerate() if t.name.startswith("batch")] == []
            half_done(outcome, backend)
            until(lambda: not client.transport.stats().active, "the end of the drains", 1.0)          # they have 50 ms
            stats = client.transport.stats()
            assert (stats.active, stats.waiting, stats.dialing) == (0, 0, 0), str(stats)
            assert stats.opened == stats.open + sum(stats.closed.values())
        return took

    took = []
    for _ in range(ROUNDS):
        took.append(meet())
        if took[-1] < SOON:
            return
    pytest.fail(f"late in each round: {[f'{seconds * 1e3:.1f} ms' for seconds in took]}")


def test_nothing_ends_it(peer: MakePeer) -> None:
    backend = Backend(peer)
    with Client(max_idle_conns_per_host=WORKERS, timeout=PATIENCE) as client:
        urls = [*backend.urls()[:DONE], "http://127.0.0.1:1/"]
        outcome = run(client, urls, Context(), WORKERS)
        assert (len(outcome.sizes), list(outcome.errors), outcome.left) == (DONE, urls[DONE:], [])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(peer: MakePeer, number: signal.Signals) -> None:
    backend = Backend(peer)
    with subprocess.Popen([sys.executable, "-X", "dev", "-m", "examples.batch", "--workers", str(WORKERS), *backend.urls()], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, start_new_session=True) as child:
        backend.all_stalled()
        began = time.monotonic()
        child.send_signal(number)
        out, err = child.communicate(timeout=PATIENCE)
        took = time.monotonic() - began
    assert (child.returncode, err) == (128 + number, "")
    lines = out.splitlines()
    assert lines[-1] == f"{DONE} done, 0 failed, {ALL - DONE} left"
    assert len(lines) == DONE + 1
    assert took < 2.0, "it waits for nobody"
