"""One thread a process that closes what idled too long or died while idle. Started when something becomes idle, gone when nothing is."""
from __future__ import annotations

import sys
import threading
import time
import weakref

from pooledhttp._typing import Protocol

TICK = 0.5      # seconds: a connection that the server closed is noticed within a second


class Sweepable(Protocol):
    """What the janitor knows of a pool."""

    watched: bool

    @property
    def idle(self) -> int: ...
    def sweep(self, now: int) -> int: ...


class Janitor:
    """Sweeps the pools that it was told of until nothing idles in them."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        # Re-entrant: a collected response may give its connection back, and call `watch`, while this very thread holds it. So whatever
        # is done under it stays right where `watch` runs between any two steps.
        self._lock = threading.RLock()
        self._pools: weakref.WeakSet[Sweepable] = weakref.WeakSet()
        self._nudged = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, pool: Sweepable) -> None:
        """Something idles in `pool`."""
        thread = None
        if sys.is_finalizing():
            return                             # before Python 3.12 the start would wait for ever for a thread that never runs
        try:
            with self._lock:
                if pool.watched:
                    return
                pool.watched = True
                self._pools.add(pool)
                if self._thread is not None:
                    return
                thread = threading.Thread(target=self._run, name="pooledhttp-janitor", daemon=True)
                self._thread = thread
            # Not under the lock: starting waits for threading's own lock, and whoever has that may be collecting a response, which comes here.
            thread.start()
        except BaseException as e:
            # The interpreter is ending and takes no new threads (it closes every descriptor itself), or there are too many threads. Or a
            # signal's handler raised, at any step: a thread that did start finds itself replaced. The next request tries again, also one
            # of a pool that came meanwhile.
            with self._lock:
                if thread is not None and self._thread is thread:
                    self._thread = None
                pool.watched = False
                for one in list(self._pools):
                    one.watched = False
            if not isinstance(e, RuntimeError):
                raise

    def nudge(self) -> None:
        """Something was closed: look now whether anything still idles."""
        self._nudged.set()

    def _run(self) -> None:
        me = threading.current_thread()
        while self._thread is me:
            self._nudged.wait(TICK)
            self._nudged.clear()
            with self._lock:
                pools = list(self._pools)
            while pools:
                # One that nobody else holds must not live on in a variable here.
                self._sweep(pools.pop())
            with self._lock:
                # First off, then a look, so that what came in between has started another thread, or is seen here.
                self._thread = None
                if self._pools:
                    self._thread = me

    def _sweep(self, pool: Sweepable) -> None:
        if pool.sweep(time.monotonic_ns()):
            return
        with self._lock:
            # A request gives back without this lock, then looks at `watched`: cleared first, looked at second.
            self._pools.discard(pool)
            pool.watched = False
            if pool.idle:
                self.watch(pool)

    def reset_after_fork(self) -> None:
        """In the child: the thread is not here."""
        pools = list(self._pools)
        self._reset()
        for pool in pools:
            pool.watched = False


janitor = Janitor()
