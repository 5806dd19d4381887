from libc.stdint cimport int64_t

from pooledhttp._conn.connection cimport Connection, Exchange


cdef class H1Connection(Connection):
    cdef int begin_made(self, Exchange ex) noexcept nogil
    cdef int push(self, Exchange ex) noexcept nogil
    cdef ssize_t ended(self, ssize_t r) noexcept nogil
    cdef int wait_to_send(self, Exchange ex, int events) noexcept nogil
    cdef ssize_t hold(self, Exchange ex, char* dst, size_t room) noexcept nogil
    cdef bint too_late(self, Exchange ex) noexcept nogil
    cdef bint deaf(self, Exchange ex) noexcept nogil
    cdef int head_done(self, Exchange ex) noexcept nogil
    cdef int small_body(self, Exchange ex) noexcept nogil
    cdef ssize_t read_chunked(self, Exchange ex, char* dst, size_t n) noexcept nogil
    cdef int end_of_body(self, Exchange ex) noexcept nogil


cdef int reuse_verdict(bint done, bint send_broke, bint leftover, bint asked_close, int minor, bint conn_close, bint conn_keep_alive, bint until_close,
                       int64_t keep_alive_timeout) noexcept nogil
