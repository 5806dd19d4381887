"""The abstract connection that the pool and the janitor know."""
from libc.string cimport memset

from pooledhttp._core.status cimport ST_EOF, ST_OK


cdef class Poolable:
    """Something a pool may hold. Subclasses override the four calls; none of them blocks."""

    def __cinit__(self):
        memset(&self.slot, 0, sizeof(Slot))
        self.slot.owner = <void*>self
        self.slot.capacity = 1
        self.slot.idle_limit = -1
        self.slot.die_at = -1
        self.slot.fd = -1

    cdef int fileno(self) noexcept nogil:
        return -1

    cdef int probe(self) noexcept nogil:
        return ST_OK

    cdef int on_readable(self) noexcept nogil:
        return self.probe()

    cdef int drain_step(self) noexcept nogil:
        return ST_EOF               # what cannot drain is closed

    cdef void interrupt(self) noexcept nogil:
        pass

    cdef void close(self, int reason) noexcept nogil:
        pass
