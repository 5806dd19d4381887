"""A request's limits in nanoseconds, as the compiled floors use them; -1 is none."""
from libc.stdint cimport int64_t


cdef class Limits:
    cdef readonly int64_t total
    cdef readonly int64_t pool
    cdef readonly int64_t connect
    cdef readonly int64_t tls
    cdef readonly int64_t header
    cdef readonly int64_t read
    cdef readonly int64_t write
