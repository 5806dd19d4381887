"""The abstract stream."""
from pooledhttp._core.compat cimport EINTR, c_pread, errno
from pooledhttp._core.runtime cimport BUFFER_SIZE, buffer_give, buffer_take
from pooledhttp._core.status cimport ST_AGAIN, ST_FILE, ST_IO, ST_NOMEM, ST_OK


cdef class Stream:
    """Bytes over one socket. Every call is made by one thread at a time, without the GIL."""

    def __cinit__(self):
        self.fd = -1

    cdef ssize_t recv_into(self, char* p, size_t n, int64_t deadline, Wake* wake) noexcept nogil:
        return ST_IO

    cdef ssize_t recv_batch(self, char* p, size_t n) noexcept nogil:
        return ST_AGAIN

    cdef ssize_t try_recv(self, char* p, size_t n) noexcept nogil:
        return ST_IO

    cdef ssize_t try_send(self, const char* p, size_t n) noexcept nogil:
        return ST_IO

    cdef int try_flush(self) noexcept nogil:
        return 0

    cdef ssize_t try_send_file(self, int file, int64_t at, size_t n) noexcept nogil:
        # By way of a buffer.
        cdef ssize_t r = self.try_flush()
        cdef char* buf
        if r != ST_OK:
            return r                     # nothing is read that could not be sent
        buf = buffer_take()
        if buf == NULL:
            return ST_NOMEM
        while True:
            r = c_pread(file, buf, n if n < BUFFER_SIZE else BUFFER_SIZE, at)
            if r >= 0 or errno != EINTR:
                break
        if r > 0:
            r = self.try_send(buf, r)
        else:
            self.err = errno if r < 0 else 0
            r = ST_FILE
        buffer_give(buf)
        return r

    cdef int wait(self, int events, int64_t deadline, Wake* wake) noexcept nogil:
        return ST_IO

    cdef int probe(self) noexcept nogil:
        return ST_IO

    cdef void close(self, bint graceful) noexcept nogil:
        pass
