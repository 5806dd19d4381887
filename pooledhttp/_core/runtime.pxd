"""What a process has one of: the free list of exchange buffers, and each thread's wake descriptor."""
from libc.stdint cimport int64_t

cdef enum:
    BUFFER_SIZE = 81920       # 64 KiB of body, and a head beside it


cdef struct Wake:
    # A thread's wake descriptor. Counted: whoever wakes holds a reference until its write is done, so the
    # descriptor cannot be closed, and its number used again, between the decision and the write.
    int rd
    int wr
    int refs


cdef char* buffer_take() noexcept nogil        # BUFFER_SIZE bytes; NULL where memory is out
cdef void buffer_give(char* buf) noexcept nogil

cdef Wake* thread_wake() except NULL           # this thread's, made on first use, closed when the thread ends
cdef void wake_hold(Wake* w) noexcept nogil
cdef void wake_drop(Wake* w) noexcept nogil
cdef void wake_signal(Wake* w) noexcept nogil
cdef void wake_clear(Wake* w) noexcept nogil


cdef class WakeHandle:
    cdef Wake* w
    cdef int depth                             # requests of this thread that wait by it, one inside another

    cdef void enter(self) noexcept
    cdef void leave(self) noexcept
