"""Cancelling from another thread: a flag, and the wake descriptors of the threads that obey it. Never touches a socket."""
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t

from pooledhttp._core.compat cimport EINTR, POLLIN, errno, ph_gil_releases, ph_load_int, ph_now, ph_poll, ph_store_int, pollfd
from pooledhttp._core.runtime cimport SLICE, WakeHandle, forks, on_main, wake_clear

import os
import threading
from contextvars import ContextVar

from pooledhttp._core.runtime import current_wake


cdef class Canceller:
    """Ends the exchanges that were given it, from any thread, within 50 ms; they raise `Cancelled`."""

    def __cinit__(self):
        self.lock = threading.RLock()          # a finalizer may come in the midst
        self.waiting = []
        self.generation = forks()

    cpdef object guard(self):
        """Its lock. In a forked child a new one: a thread that is not here may have held the parent's; and whoever waited is the parent's to wake."""
        if self.generation != forks():
            lock, waiting = threading.RLock(), []
            if self.generation != forks():         # from here to the end no other thread can come between
                before = self.lock, self.waiting
                self.lock, self.waiting = lock, waiting
                self.generation = forks()
                del before
        return self.lock

    def cancel(self, reason=None) -> None:
        """End what was given this canceller, now and later. Only the first reason counts."""
        with self.guard():
            if not ph_load_int(&self.flag):
                self.reason = reason
            ph_store_int(&self.flag, 1)
            wakes = list(self.waiting)
        for wake in wakes:
            wake.signal()

    @property
    def cancelled(self) -> bool:
        return bool(ph_load_int(&self.flag))

    cdef bint is_cancelled(self) noexcept nogil:
        return ph_load_int(&self.flag)

    cdef object enter(self, WakeHandle wake):
        # A list: one thread may be inside twice (a request made by an upload's generator).
        with self.guard():
            self.waiting.append(wake)

    cdef object leave(self, WakeHandle wake):
        with self.guard():
            if wake in self.waiting:           # not where this thread forked meanwhile
                self.waiting.remove(wake)


# What is ambient: None, or the context entered last, what holds inside its block, and what was ambient outside.
ambient = ContextVar("pooledhttp.context", default=None)


cdef class Ambient(Canceller):
    """A context, ambient inside its `with` block. Compiled, for so no handler of a signal may raise between the steps of entering and leaving."""

    def __enter__(self):
        cdef object outer = ambient.get()
        cdef object effective = self if outer is None else self._and(outer[1])
        self._use.ambient = True
        ambient.set((self, effective, outer))
        return self

    def __exit__(self, *exc):
        cdef object entered = ambient.get()
        if entered is None or entered[0] is not self:
            raise RuntimeError("a context is left in another order than the contexts were entered")
        ambient.set(entered[2])


cdef class Leaving:
    """A `with` block of a context, cancelled when that is left."""

    cdef object context

    def __init__(self, context):
        self.context = context

    def __enter__(self):
        return self.context.__enter__()

    def __exit__(self, *exc):
        try:
            self.context.__exit__(*exc)
        finally:
            self.context.cancel("its scope was left")


def pause(int64_t until, Canceller cancel=None) -> bool:
    """Wait until `until` (monotonic ns): True. False as soon as `cancel` was cancelled. What a signal's handler raises ends it too."""
    cdef WakeHandle handle = None
    cdef pollfd p
    cdef int64_t left
    cdef int r, failed = 0
    cdef unsigned n = 0
    if cancel is not None:
        handle = current_wake()
        p.fd = handle.w.rd
        p.events = POLLIN
        n = 1
        handle.enter()
        cancel.enter(handle)
    try:
        while cancel is None or not cancel.is_cancelled():
            left = until - ph_now()
            if left <= 0:
                return True
            if left > SLICE and on_main():
                left = SLICE
            with nogil:
                r = ph_poll(&p, n, left)
                failed = errno
                if r > 0:
                    wake_clear(handle.w)       # cleared first, looked at second
            if r < 0 and failed != EINTR:
                raise OSError(failed, os.strerror(failed))
            PyErr_CheckSignals()
        return False
    finally:
        if cancel is not None:
            cancel.leave(handle)
            handle.leave()


def gil_releases() -> int:
    return ph_gil_releases()
