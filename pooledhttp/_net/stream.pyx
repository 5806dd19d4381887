"""The abstract stream."""
from pooledhttp._core.status cimport ST_IO


cdef class Stream:
    """Bytes over one socket. Every call is made by one thread at a time, without the GIL."""

    def __cinit__(self):
        self.fd = -1

    cdef ssize_t recv_into(self, char* p, size_t n, int64_t deadline, Wake* wake) noexcept nogil:
        return ST_IO

    cdef ssize_t try_recv(self, char* p, size_t n) noexcept nogil:
        return ST_IO

    cdef ssize_t try_send(self, const char* p, size_t n) noexcept nogil:
        return ST_IO

    cdef int try_flush(self) noexcept nogil:
        return 0

    cdef int wait(self, int events, int64_t deadline, Wake* wake) noexcept nogil:
        return ST_IO

    cdef int probe(self) noexcept nogil:
        return ST_IO

    cdef void close(self, bint graceful) noexcept nogil:
        pass
