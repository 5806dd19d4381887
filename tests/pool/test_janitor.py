"""The one background thread: there when something idles, gone when nothing does."""
from __future__ import annotations

import _thread
import os
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from pooledhttp._pool.janitor import Janitor
from pooledhttp._pool.pool import Pool
from pooledhttp._pool.testing import FakeConn, User

PATIENCE = 10.0


@pytest.fixture
def janitor() -> Iterator[Janitor]:
    janitor = Janitor()
    yield janitor
    thread = janitor._thread
    janitor.nudge()
    if thread is not None:
        thread.join(PATIENCE)
        assert not thread.is_alive()


class Pipe:
    """A connection's descriptor, and the server's end of it."""

    def __init__(self) -> None:
        self.reads, self.writes = os.pipe()

    def hang_up(self) -> None:
        os.close(self.writes)
        self.writes = -1

    def close(self) -> None:
        os.close(self.reads)
        if self.writes >= 0:
            os.close(self.writes)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def rest(pool: Pool, conn: FakeConn, key: str = "a") -> threading.Event:
    """Puts `conn` into the pool, idle from now; the event is set when it is closed."""
    closed = threading.Event()
    conn.when_closed = closed.set
    user = User(pool, key)
    assert user.checkout(time.monotonic_ns()) == "dial"
    user.dialed(conn, time.monotonic_ns())
    assert user.give(time.monotonic_ns()) is None
    return closed


def test_it_is_not_there_before_something_idles(janitor: Janitor) -> None:
    before = threading.active_count()
    pool = Pool()
    assert User(pool, "a").checkout(time.monotonic_ns()) == "dial"
    assert janitor._thread is None and threading.active_count() == before


def test_it_starts_when_something_idles_and_ends_when_nothing_does(janitor: Janitor) -> None:
    pool = Pool()
    rest(pool, FakeConn())
    janitor.watch(pool)
    thread = janitor._thread
    assert thread is not None and thread.is_alive() and thread.daemon and pool.watched
    pool.close_idle()
    janitor.nudge()
    thread.join(PATIENCE)
    assert not thread.is_alive() and janitor._thread is None and not pool.watched


def test_it_ends_by_itself_when_the_last_one_is_taken(janitor: Janitor) -> None:
    pool = Pool()
    rest(pool, FakeConn())
    janitor.watch(pool)
    thread = janitor._thread
    assert thread is not None
    user = User(pool, "a")
    assert user.checkout(time.monotonic_ns()) == "conn"
    thread.join(PATIENCE)                                     # without a nudge: at its next round
    assert not thread.is_alive() and not pool.watched
    user.give(time.monotonic_ns())
    janitor.watch(pool)                                       # and comes back
    assert pool.watched and janitor._thread is not None
    pool.close()


def test_it_notices_within_a_second_what_the_server_closed(janitor: Janitor, pipe: Pipe) -> None:
    pool = Pool()
    closed = rest(pool, FakeConn(fd=pipe.reads))
    janitor.watch(pool)
    began = time.monotonic()
    pipe.hang_up()
    assert closed.wait(PATIENCE)
    assert time.monotonic() - began < 1.0
    assert pool.stats().closed["server_closed"] == 1


def test_it_closes_what_idled_too_long_and_not_before(janitor: Janitor) -> None:
    pool = Pool(idle_timeout=0.7)
    began = time.monotonic()
    closed = rest(pool, FakeConn())
    janitor.watch(pool)
    assert closed.wait(PATIENCE)
    assert 0.7 <= time.monotonic() - began < 1.7
    assert pool.stats().closed["idle_timeout"] == 1


def test_one_thread_serves_all_pools(janitor: Janitor) -> None:
    pools = [Pool(idle_timeout=0.01 * i + 0.01) for i in range(5)]
    closed = [rest(pool, FakeConn()) for pool in pools]
    before = threading.active_count()
    for pool in pools:
        janitor.watch(pool)
        janitor.watch(pool)
    assert threading.active_count() == before + 1
    assert all(event.wait(PATIENCE) for event in closed)


def test_a_pool_that_nobody_holds_is_collected_and_the_others_are_served_on(janitor: Janitor, pipe: Pipe) -> None:
    dropped, kept = Pool(), Pool()
    gone, ref = rest(dropped, FakeConn()), weakref.ref(dropped)
    closed = rest(kept, FakeConn(fd=pipe.reads))
    janitor.watch(dropped)
    janitor.watch(kept)
    del dropped
    assert gone.wait(PATIENCE)                                # at once, or when the janitor lets go of it
    assert ref() is None
    pipe.hang_up()
    assert closed.wait(PATIENCE)
    thread = janitor._thread
    if thread is not None:
        janitor.nudge()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_it_ends_when_its_only_pool_is_collected(janitor: Janitor) -> None:
    pool = Pool()
    rest(pool, FakeConn())
    janitor.watch(pool)
    thread = janitor._thread
    assert thread is not None
    del pool
    janitor.nudge()
    thread.join(PATIENCE)
    assert not thread.is_alive() and janitor._thread is None


def test_a_thread_that_is_refused_does_not_show_and_is_asked_for_again(janitor: Janitor, monkeypatch: pytest.MonkeyPatch, pipe: Pipe) -> None:
    pool = Pool()
    closed = rest(pool, FakeConn(fd=pipe.reads))

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    def watch_the_other_and_refuse(self: threading.Thread) -> None:
        janitor.watch(other)                                  # relies on the thread that is being started
        refuse(self)

    other = Pool()
    rest(other, FakeConn())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        janitor.watch(pool)
        assert not pool.watched and janitor._thread is None
        patch.setattr(threading.Thread, "start", watch_the_other_and_refuse)
        janitor.watch(pool)
        assert not pool.watched and not other.watched and janitor._thread is None
    janitor.watch(pool)
    assert pool.watched
    other.close()
    pipe.hang_up()
    assert closed.wait(PATIENCE)


def test_the_thread_is_not_started_under_the_lock(janitor: Janitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting waits for threading's own lock; its holder may be collecting a response, which comes here."""
    pool = Pool()
    rest(pool, FakeConn())
    start = threading.Thread.start
    free: list[bool] = []

    def look(done: threading.Event) -> None:
        free.append(janitor._lock.acquire(blocking=False))
        if free[-1]:
            janitor._lock.release()
        done.set()

    def start_and_look(self: threading.Thread) -> None:
        done = threading.Event()
        _thread.start_new_thread(look, (done,))
        assert done.wait(PATIENCE)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", start_and_look)
    janitor.watch(pool)
    pool.close()
    assert free == [True]


AT_EXIT = """
import atexit, time
from pooledhttp._pool.janitor import janitor
from pooledhttp._pool.pool import Pool
from pooledhttp._pool.testing import FakeConn, User

pools = [Pool(), Pool()]

def rest(pool):
    user = User(pool, "a")
    user.checkout(time.monotonic_ns())
    user.dialed(FakeConn(), time.monotonic_ns())
    user.give(time.monotonic_ns())
    janitor.watch(pool)

class Late:
    def __del__(self, rest=rest, pool=pools[1]):
        rest(pool)

{before}
atexit.register(rest, pools[0])
keep = Late()
"""


@pytest.mark.parametrize("running", [False, True])
def test_the_interpreter_ends_in_peace(running: bool) -> None:
    code = AT_EXIT.format(before="rest(pools[0])" if running else "")
    done = subprocess.run([sys.executable, "-c", code], cwd=os.getcwd(), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- what comes back in the midst of it ------------------------------------------------------------------------------------

class Nosy:
    """A pool whose looks have consequences: a collected response gives back in this very moment, and says so."""

    def __init__(self, janitor: Janitor) -> None:
        self.janitor = janitor
        self.watched = False
        self.sweeps = threading.Semaphore(0)
        self.idling = 1
        self.comes_back = True

    def sweep(self, now: int) -> int:
        self.idling = 0
        self.sweeps.release()
        return 0

    @property
    def idle(self) -> int:
        n = self.idling
        if self.comes_back:
            self.comes_back = False
            self.idling = 1
            if not self.watched:
                self.janitor.watch(self)
        return n


def test_what_comes_back_while_it_says_goodbye_to_a_pool_is_not_forgotten(janitor: Janitor) -> None:
    pool = Nosy(janitor)
    janitor.watch(pool)
    assert pool.sweeps.acquire(timeout=PATIENCE)
    assert pool.sweeps.acquire(timeout=3), "the pool idles, and nobody sweeps it"


def test_what_comes_back_while_the_thread_ends_is_not_forgotten(janitor: Janitor) -> None:
    first, second = Nosy(janitor), Nosy(janitor)
    first.comes_back = second.comes_back = False

    class Pools(weakref.WeakSet[Any]):
        told = False

        def __len__(self) -> int:
            n = super().__len__()
            if n == 0 and not self.told:
                self.told = True
                janitor.watch(second)
            return n

    janitor._pools = Pools()
    janitor.watch(first)
    assert first.sweeps.acquire(timeout=PATIENCE)
    assert second.sweeps.acquire(timeout=3), "the pool idles, and nobody sweeps it"


def test_two_threads_at_most_become_one(janitor: Janitor) -> None:
    first, second = Nosy(janitor), Nosy(janitor)
    first.comes_back = second.comes_back = False

    class Pools(weakref.WeakSet[Any]):
        told = False

        def __len__(self) -> int:
            if super().__len__() == 0 and not self.told:
                self.told = True
                janitor.watch(second)              # starts another thread; and it is seen here as well
            return super().__len__()

    janitor._pools = Pools()
    janitor.watch(first)
    ended = janitor._thread
    assert ended is not None
    assert second.sweeps.acquire(timeout=PATIENCE)
    ended.join(PATIENCE)
    until = time.monotonic() + PATIENCE
    while [t for t in threading.enumerate() if t.name == "pooledhttp-janitor"]:
        assert time.monotonic() < until
        janitor.nudge()
        time.sleep(0.01)                           # nothing says when a thread is gone that nobody has a name for
    assert janitor._thread is None and not second.watched


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_starts_its_own(janitor: Janitor, pipe: Pipe) -> None:
    pool = Pool()
    rest(pool, FakeConn())
    janitor.watch(pool)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            janitor.reset_after_fork()
            pool.abandon()
            assert janitor._thread is None and not pool.watched
            closed = rest(pool, FakeConn(fd=pipe.reads))
            janitor.watch(pool)
            os.write(pipe.writes, b"unasked")
            code = 0 if closed.wait(PATIENCE) else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    pool.close()
    assert os.waitpid(pid, 0)[1] == 0
