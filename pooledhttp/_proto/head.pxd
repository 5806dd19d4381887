"""The head of an HTTP/1.1 response: RFC 9112 status line and field lines, decided only where they are plain."""
from libc.stdint cimport int64_t


cdef enum Note:
    NOTE_COOKIE = 1        # a Set-Cookie field
    NOTE_CODED = 2         # a Content-Encoding field


cdef struct HeadFacts:
    # All offsets are from the start of the buffer given to parse_head.
    int status
    int minor                   # HTTP/1.minor: 0 or 1
    size_t reason_off           # the reason phrase
    size_t reason_len
    size_t fields_off           # first byte of the field lines; they end with the CRLF of the last one
    size_t fields_len           # 0 where there are none
    size_t size                 # bytes of the whole head, blank line included
    int n_fields
    int64_t content_length      # -1: none
    int chunked                 # 1: Transfer-Encoding: chunked, exactly and once
    int conn_close              # 1: a `close` token in Connection
    int conn_keep_alive         # 1: a `keep-alive` token in Connection
    int64_t keep_alive_timeout  # `Keep-Alive: timeout=N`, seconds; -1: none
    int notes                   # bits of Note: what keeps a response from the plain way
    size_t scanned              # resume offset: bytes already searched for the end of the head


cdef int parse_head(const char* buf, size_t n, size_t max_head, HeadFacts* f) noexcept nogil
# ST_OK: `f` is filled; `status` may be 100, an interim head that the caller skips (all other 1xx are ST_UNSURE).
# ST_MORE: not all there yet: call again with the same f, the same bytes and more. Set f.scanned = 0 at first, nothing else.
# ST_UNSURE: h11 decides (also what is plainly wrong: the strict check and h11 say what). Never reads past buf + n.
# A head longer than max_head (bytes, blank line included, or so many without an end) is ST_UNSURE.
