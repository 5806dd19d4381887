"""What a process has one of: the free list of exchange buffers, and each thread's wake descriptor."""
from libc.stdint cimport int64_t

cdef enum:
    BUFFER_SIZE = 81920       # 64 KiB of body, and a head beside it
    # ns. Only the main thread runs Python's handlers, while the kernel may give a signal to any thread, or just before a wait begins: then
    # nothing breaks the wait. So the main thread waits for at most SLICE at a time, and where bytes keep coming it asks for signals once LOOK
    # has passed: together 75 ms. (A kernel's timer of up to 63 ticks is exact to a tick.)
    SLICE = 50000000
    LOOK = 25000000


cdef struct Wake:
    # A thread's wake descriptor. Counted: whoever wakes holds a reference until its write is done, so the
    # descriptor cannot be closed, and its number used again, between the decision and the write.
    int rd
    int wr
    int refs


cdef int unsettled_flag

cdef inline bint unsettled() noexcept nogil:  # in a forked child that has not called settle()
    return unsettled_flag

cdef int forks() noexcept nogil               # see generation()
cdef bint on_main() noexcept nogil            # this thread runs the handlers of signals
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
