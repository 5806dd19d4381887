"""Chunked transfer coding (RFC 9112 section 7.1), decoded incrementally, in place if wanted."""
from libc.stdint cimport uint64_t, int64_t

cdef enum ChunkState:
    CK_HEADER = 0       # at the start of a chunk header line
    CK_DATA = 1         # inside chunk data, `left` bytes to come
    CK_CRLF = 2         # at the CRLF behind chunk data
    CK_TRAILER = 3      # behind the last chunk's line, at the start of the trailer section
    CK_DONE = 4


cdef struct Chunked:
    int state
    uint64_t left


cdef void chunked_init(Chunked* d) noexcept nogil
cdef int chunked_feed(Chunked* d, const char* src, size_t n, size_t* consumed,
                      char* dst, size_t cap, size_t* produced) noexcept nogil
# Decodes from src to dst (dst may be src or before it in the same memory: moves, never overtakes).
# ST_MORE: all usable bytes were consumed (an unfinished line or CRLF is *not* consumed: keep it and append), or dst is full
#          (produced == cap with bytes left over).
# ST_OK:   the body ended and the trailer section was plain and empty (just CRLF): consumed includes it; state CK_DONE.
# ST_UNSURE: something not plain (odd size, odd extension, bare LF, a header line over 4 KiB, any trailer field, bad CRLF):
#          consumed stops at the start of that element and state says which element it is (CK_HEADER, CK_CRLF, CK_TRAILER),
#          so that h11 can go on from there (see fallback.resume_chunked).
