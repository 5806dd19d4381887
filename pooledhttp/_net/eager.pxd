"""Asking again before sleeping. See eager.pyx."""
from libc.stdint cimport int64_t


cdef enum:
    EAGER_NO = 0               # sleep, and do not count it
    EAGER_ASK = 1              # yield and ask, then sleep
    EAGER_REFERENCE = 2        # sleep, and count how long


# Around each receive that may sleep. `credit` is the connection's own, 0 to begin with; `began` is set unless EAGER_NO is returned.
cdef int eager_begin(int* credit, int64_t* began) noexcept nogil
cdef void eager_end(int mode, int64_t began) noexcept nogil
# After EAGER_ASK: >= 1 bytes, ST_EOF, ST_IO, or ST_AGAIN: sleep.
cdef ssize_t eager_recv(int fd, char* p, size_t n, int* credit, int* err) noexcept nogil
