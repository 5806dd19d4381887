from libc.stdint cimport int64_t

from pooledhttp._conn.connection cimport Exchange
from pooledhttp._conn.h2role cimport H2Role
from pooledhttp._proto.h2 cimport H2Stream


cdef class H2Connection(H2Role):
    cdef int64_t until(self, Exchange ex, H2Stream* s) noexcept nogil
    cdef int await_(self, Exchange ex, H2Stream* s) noexcept nogil
    cdef void sync(self, Exchange ex, H2Stream* s) noexcept nogil
    cdef int failed(self, Exchange ex, H2Stream* s) noexcept nogil
    cdef int feed_upload(self, Exchange ex, H2Stream* s) noexcept nogil
    cdef int take_heads(self, Exchange ex, H2Stream* s) noexcept nogil
    cdef int spoiled(self, Exchange ex, int err) noexcept nogil
    cdef int head_done(self, Exchange ex, H2Stream* s) noexcept nogil
    cdef int small_body(self, Exchange ex, H2Stream* s) noexcept nogil
    cdef ssize_t pull(self, Exchange ex, H2Stream* s, char* dst, size_t n) noexcept nogil
    cdef int end_of_body(self, Exchange ex, H2Stream* s) noexcept nogil
    cdef void let_go(self, Exchange ex) noexcept nogil
