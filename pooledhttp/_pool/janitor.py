"""One thread a process that closes what idled too long or died while idle, and reads answers that nobody waits for any more to their end.

Started when something becomes idle, is to be drained or told, gone when nothing is.
"""
from __future__ import annotations

import select
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable

from pooledhttp._core.runtime import WakeHandle, current_wake
from pooledhttp._typing import Protocol

TICK = 0.5      # seconds: a connection that the server closed is noticed within a second
DRAIN_NS = 50_000_000        # how long an answer that nobody waits for may take to its end
BLIND = 0.01    # seconds between two looks at what is being drained, where no descriptor is left to be woken by


class Sweepable(Protocol):
    """What the janitor knows of a pool."""

    watched: bool

    @property
    def idle(self) -> int: ...
    def sweep(self, now: int) -> int: ...


class Drainable(Protocol):
    """What the janitor knows of an answer that nobody waits for."""

    def fileno(self) -> int: ...
    def drain_step(self) -> bool: ...
    def drain_end(self) -> None: ...


class Bell:
    """What the janitor's thread waits by. Where an `Event` has a lock of Python's, which a finalizer that comes in its midst cannot have twice, this is one
    step: a collected response may ring in the very thread that waits."""

    def __init__(self) -> None:
        self._silent = threading.Lock()
        self._silent.acquire()

    def ring(self) -> None:
        try:
            self._silent.release()
        except RuntimeError:                   # it rings already
            return

    def wait(self, seconds: float) -> bool:
        """Until it rings, which it then has not done any more; False where it did not in time."""
        return self._silent.acquire(timeout=seconds)


class Janitor:
    """Sweeps the pools that it was told of until nothing idles in them, and drains what it was given."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        # Re-entrant: a collected response may give its connection back, and call `watch`, while this very thread holds it. So whatever
        # is done under it stays right where `watch` runs between any two steps.
        self._lock = threading.RLock()
        self._pools: weakref.WeakSet[Sweepable] = weakref.WeakSet()
        self._drains: list[tuple[int, Drainable]] = []       # until when, and what: not looked at yet
        self._held: list[tuple[int, Drainable]] = []         # the thread's own
        self._news: deque[Callable[[], None]] = deque()
        self._nudged = Bell()
        self._wake: WakeHandle | None = None                  # the thread's, while it waits for what is drained
        self._thread: threading.Thread | None = None
        self._runs: threading.Thread | None = None            # that same one, once it took up its work: nobody else ends it from then on

    def watch(self, pool: Sweepable) -> None:
        """Something idles in `pool`."""
        if sys.is_finalizing():
            return                             # before Python 3.12 the start would wait for ever for a thread that never runs
        try:
            with self._lock:
                if pool.watched:
                    return
                pool.watched = True
                self._pools.add(pool)
            self._start()
        except BaseException as e:
            # The interpreter is ending and takes no new threads (it closes every descriptor itself), or there are too many threads. Or a
            # signal's handler raised, at any step. The next request tries again, also one of a pool that came meanwhile.
            with self._lock:
                pool.watched = False
                for one in list(self._pools):
                    one.watched = False
            if not isinstance(e, RuntimeError):
                raise

    def drain(self, answer: Drainable) -> None:
        """`answer` is read to its end as it comes, for `DRAIN_NS` at most. Where no thread can be had, that is over at once."""
        given = False
        try:
            if not sys.is_finalizing():
                with self._lock:
                    self._drains.append((time.monotonic_ns() + DRAIN_NS, answer))
                self._start()
                given = True
                self.nudge()
        except RuntimeError:
            pass                               # no thread: see `watch`
        finally:
            if not given:
                # A signal's handler may have raised at any step: where the thread took it, it is the thread's.
                with self._lock:
                    ours = len(self._drains)
                    self._drains = [entry for entry in self._drains if entry[1] is not answer]
                    ours -= len(self._drains)
                if ours or sys.is_finalizing():
                    answer.drain_end()

    def tell(self, news: Callable[[], None]) -> None:
        """Have the thread call `news`, which raises nothing: it may not be called here, in a destructor. At the interpreter's end it never is."""
        self._news.append(news)
        if not sys.is_finalizing():
            try:
                self._start()
            except RuntimeError:
                return                         # no thread: see `watch`. The next one tells it
            self.nudge()

    def _start(self) -> None:
        """Have a thread. RuntimeError where none can be had; what a signal's handler raises comes through, at any step."""
        with self._lock:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name="pooledhttp-janitor", daemon=True)
            self._thread = thread
        try:
            # Not under the lock: starting waits for threading's own lock, and whoever has that may be collecting a response, which comes here.
            thread.start()
        except BaseException:
            stranded = []
            with self._lock:
                if self._thread is thread and self._runs is not thread:
                    self._thread = None        # one that did start finds itself replaced
                    stranded, self._drains = self._drains, stranded        # others may have counted on it meanwhile
            for _, answer in stranded:
                answer.drain_end()
            raise

    def nudge(self) -> None:
        """Something was closed, or is to be drained: look now."""
        self._nudged.ring()
        wake = self._wake
        if wake is not None:
            wake.signal()

    def _run(self) -> None:
        me = threading.current_thread()
        swept = time.monotonic()
        with self._lock:
            if self._thread is not me:
                return
            self._runs = me
        while self._thread is me:
            while self._news:
                self._news.popleft()()
            if self._drains or self._held:
                self._drain(swept + TICK)
                if time.monotonic() < swept + TICK and (self._drains or self._held):
                    continue
            else:
                self._nudged.wait(TICK)
            swept = time.monotonic()
            with self._lock:
                pools = list(self._pools)
            while pools:
                # One that nobody else holds must not live on in a variable here.
                self._sweep(pools.pop())
            with self._lock:
                # First off, then a look, so that what came in between has started another thread, or is seen here.
                self._thread = None
                if self._pools or self._drains or self._held or self._news:
                    self._thread = me

    def _drain(self, until: float) -> None:
        """Wait for what is to be drained, at most until then, and read what came."""
        try:
            self._wake = wake = current_wake()
        except OSError:                        # no descriptor to be had
            wake = None
        try:
            poll = select.poll()
            if wake is not None:
                wake.clear()                   # first: who comes from now on is heard
                poll.register(wake.fileno(), select.POLLIN)
            with self._lock:
                self._held += self._drains
                self._drains = []
            for _, answer in self._held:
                if answer.fileno() >= 0:
                    poll.register(answer.fileno(), select.POLLIN)
            end = min([until, *(ends / 1e9 for ends, _ in self._held)])
            wait = max(0.0, end - time.monotonic())
            ready = {fd for fd, _ in poll.poll(1000 * (wait if wake is not None else min(wait, BLIND)) + 0.5)}
        finally:
            self._wake = None
        now = time.monotonic_ns()
        left = []
        for ends, answer in self._held:
            if answer.fileno() < 0 or (answer.fileno() in ready and answer.drain_step()):
                continue
            if now >= ends:
                answer.drain_end()
            else:
                left.append((ends, answer))
        self._held = left

    def _sweep(self, pool: Sweepable) -> None:
        if pool.sweep(time.monotonic_ns()):
            return
        with self._lock:
            # A request gives back without this lock, then looks at `watched`: cleared first, looked at second.
            self._pools.discard(pool)
            pool.watched = False
            if pool.idle:
                self.watch(pool)

    def reset_after_fork(self) -> list[tuple[int, Drainable]]:
        """In the child: the thread is not here. What it drained is the parent's, and to be kept until the pools are made anew."""
        pools, drains = list(self._pools), self._drains + self._held
        self._reset()
        for pool in pools:
            pool.watched = False
        return drains


janitor = Janitor()
