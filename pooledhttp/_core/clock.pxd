"""Absolute monotonic deadlines, in nanoseconds; FOREVER (-1) never comes."""
from libc.stdint cimport int64_t
from pooledhttp._core.compat cimport ph_now


cdef inline int64_t remaining(int64_t deadline) noexcept nogil:
    """Nanoseconds until `deadline`: -1 for ever, 0 where it has passed."""
    cdef int64_t left
    if deadline < 0:
        return -1
    left = deadline - ph_now()
    return left if left > 0 else 0
