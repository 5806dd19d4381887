"""Daemon threads for what may hang in libc or in a user's callable, so that no caller is held past its deadline.

A thread is started by the first job and is gone when there is none. Each key (a host) may have only so many at once: a name that
hangs cannot take the threads of the others. In all there may be as many as Go's net package allows its lookups in libc
(`concurrentThreadsLimit`): where many names hang, others still resolve.
"""
from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Hashable

TOTAL = 500
PER_KEY = 4


class Ticket:
    """A job's place. `taken`: it runs, or is sure to."""

    __slots__ = ("counted", "recalled", "taken")

    def __init__(self) -> None:
        self.counted = self.recalled = self.taken = False


class Helpers:
    """At most `total` threads, at most `per_key` of them for one key; further jobs queue."""

    def __init__(self, total: int = TOTAL, per_key: int = PER_KEY) -> None:
        self._total = total
        self._per_key = per_key
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Forget the parent's threads and jobs: they do not exist here."""
        # Re-entrant: a signal's handler that makes a request may come while its own thread is in here.
        self._lock = threading.RLock()
        self._busy: dict[Hashable, int] = {}
        self._threads = 0
        self._queue: deque[tuple[Hashable, Callable[[], None], Ticket]] = deque()

    @property
    def threads(self) -> int:
        """Threads at work now."""
        return self._threads

    def has_room(self, key: Hashable) -> bool:
        """Whether a job for `key` would start now."""
        with self._lock:
            return self._threads < self._total and self._busy.get(key, 0) < self._per_key

    def submit(self, key: Hashable, job: Callable[[], None], ticket: Ticket | None = None) -> None:
        """Run `job` in a thread. What it raises goes to `threading.excepthook`; it should not.

        Raises RuntimeError where no thread can be started (the interpreter is exiting, or the system has none left). A signal's
        handler may raise anything at any step: `ticket.taken` then says whether the job runs all the same.
        """
        if ticket is None:
            ticket = Ticket()
        if sys.is_finalizing():
            # Before 3.12 the start would wait for ever for a thread that never runs.
            raise RuntimeError("the interpreter is exiting")
        try:
            self._start(key, job, ticket)
        except BaseException as exc:
            # Either the thread has begun, and the counts are its own; or it is called off, and they are put right here.
            with self._lock:
                if ticket.taken:
                    raise
                ticket.recalled = True
                if ticket.counted:
                    self._threads -= 1
                    self._done(key)
            if not isinstance(exc, RuntimeError):
                again = Ticket()
                self.submit(key, job, again)          # others may wait for it
                ticket.taken = again.taken
            raise

    def _start(self, key: Hashable, job: Callable[[], None], ticket: Ticket) -> None:
        with self._lock:
            if not self.has_room(key):
                self._queue.append((key, job, ticket))
                ticket.taken = True
                return
            self._busy[key] = self._busy.get(key, 0) + 1
            self._threads += 1
            ticket.counted = True
        threading.Thread(target=self._work, args=(self._lock, key, job, ticket), name="pooledhttp-helper", daemon=True).start()
        ticket.taken = True

    def _done(self, key: Hashable) -> None:
        left = self._busy[key] - 1
        if left:
            self._busy[key] = left
        else:
            del self._busy[key]

    def _next(self, key: Hashable) -> tuple[Hashable, Callable[[], None]] | None:
        with self._lock:
            self._done(key)
            while self._queue and self._queue[0][2].recalled:
                self._queue.popleft()
            for i, (other, job, ticket) in enumerate(self._queue):
                if not ticket.recalled and self._busy.get(other, 0) < self._per_key:
                    del self._queue[i]
                    self._busy[other] = self._busy.get(other, 0) + 1
                    return other, job
            self._threads -= 1
            return None

    def _work(self, lock: threading.RLock, key: Hashable, job: Callable[[], None], ticket: Ticket) -> None:
        with lock:
            if ticket.recalled:
                return
            ticket.taken = True
        more: tuple[Hashable, Callable[[], None]] | None = (key, job)
        while more is not None:
            key, job = more
            try:
                job()
            except BaseException:             # the thread's place is counted, and others may queue for it
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
            if lock is not self._lock:
                return                    # forked inside `job`, by a user's callable: the counts are not of this process
            del job
            more = self._next(key)


shared = Helpers()
