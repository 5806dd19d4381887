"""Contexts under what a program does to them at the wrong moment: signals, forks, finalizers, long chains of children."""
from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from pooledhttp import Client, Context, DeadlineExceeded
from pooledhttp.context import in_force
from tests.support.peer import Peer, answering, respond

MakePeer = Callable[..., Peer]
LONG = 5 * sys.getrecursionlimit()


class Raised(BaseException):
    """A signal's handler's own."""


@pytest.fixture
def alarm() -> Iterator[Callable[[Callable[[], object], float], None]]:
    """`alarm(handler, seconds)`: soon, in the midst of what the main thread does."""
    before = signal.getsignal(signal.SIGALRM)

    def ring(handle: Callable[[], object], seconds: float) -> None:
        def handler(number: int, frame: FrameType | None) -> None:
            handle()

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    yield ring
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_long_chain_of_children() -> None:
    first = last = Context()
    for _ in range(LONG):
        last = last.child()
    with first:
        assert in_force(last) is last               # it ends with the ambient one already
    with last:
        assert in_force(first) is last
    first.cancel("all")
    assert last.cancelled and last.reason == "all"


def test_contexts_with_many_ancestors_in_common() -> None:
    ctx = top = Context()
    for _ in range(40):                             # two ways up at each
        with ctx.child():
            both = in_force(ctx.child())
        assert both is not None
        ctx = both
    assert in_force(ctx) is ctx
    with Context():
        other = in_force(ctx)
    top.cancel()
    assert other is not None and other.cancelled


def test_a_handler_that_makes_a_child_in_the_midst_of_a_cancel(alarm: Callable[[Callable[[], object], float], None]) -> None:
    made: list[Context] = []
    for i in range(10):
        ctx = Context()
        children = [ctx.child() for _ in range(5000)]
        alarm(lambda: made.append(ctx.child()), 0.0002 * (i + 1))       # noqa: B023  # of this very round
        ctx.cancel("enough")
        while len(made) <= i:
            signal.sigtimedwait([], 0.01)
        assert all(child.cancelled for child in (*children, made[i]))


def test_a_block_that_a_signal_breaks_off_is_left(alarm: Callable[[Callable[[], object], float], None]) -> None:
    def boom() -> None:
        raise Raised

    outer, inner = Context(), Context()
    broken = 0
    for i in range(3000):
        try:
            alarm(boom, 1e-6 * (1 + i % 60))
            for _ in range(200):
                with outer, inner, Context.scope():
                    pass
        except Raised:
            broken += 1
        assert in_force(None) is None
    assert broken > 1000


def test_a_fork_in_the_midst_of_ties() -> None:
    ctx = Context()
    over = threading.Event()

    def tie() -> None:
        kept = []
        while not over.is_set():
            kept.append(ctx.child())
            kept[-1].cancel()
            if len(kept) > 500:
                kept.clear()

    threads = [threading.Thread(target=tie) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for _ in range(15):
            pid = os.fork()
            if pid == 0:
                signal.alarm(5)                     # ends a child that hangs
                child = ctx.child()
                ctx.cancel("in the child")
                os._exit(0 if child.cancelled else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert not ctx.cancelled
    finally:
        sys.setswitchinterval(interval)
        over.set()
        for thread in threads:
            thread.join()
    gc.collect()
    assert not ctx._children


def test_a_deadline_at_the_clocks_beginning_is_one_that_passed(peer: MakePeer, client: Client) -> None:
    server = peer(answering(respond(b"first"), respond(b"second")))
    client.get(server.url())                        # there is a connection: only the deadline keeps the request from being sent
    for deadline in (0.0, -1.0):
        with pytest.raises(DeadlineExceeded) as caught:
            client.get(server.url(), context=Context(deadline=deadline))
        assert caught.value.source == "context"
    assert server.conns[0].received.count(b"GET / ") == 1
