"""Cancelling from another thread: a flag, and the wake descriptors of the threads that obey it. Never touches a socket."""
from pooledhttp._core.compat cimport ph_load_int, ph_store_int
from pooledhttp._core.runtime cimport WakeHandle

import threading


cdef class Canceller:
    """Ends the exchanges that were given it, from any thread, within 50 ms; they raise `Cancelled`."""

    def __cinit__(self):
        self.lock = threading.RLock()          # a finalizer may come in the midst
        self.waiting = []

    def cancel(self, reason=None) -> None:
        """End what was given this canceller, now and later. Only the first reason counts."""
        with self.lock:
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
        with self.lock:
            self.waiting.append(wake)

    cdef object leave(self, WakeHandle wake):
        with self.lock:
            self.waiting.remove(wake)
