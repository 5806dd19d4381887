"""Chunked transfer coding (RFC 9112 section 7.1), decoded only where it is plain.

An element (a chunk's header line, the CRLF behind its data, the trailer section) is taken whole or not at all, so that where
it turns out odd, h11 can begin at its first byte. A header line that comes in pieces is looked at again from its start;
it is at most 4 KiB long, which bounds the work.
"""
from libc.stdint cimport INT64_MAX, uint64_t
from libc.string cimport memmove

from pooledhttp._core.status cimport ST_MORE, ST_OK, ST_UNSURE

cdef enum:
    LF = 10
    CR = 13
    SPACE = 32
    QUOTE = 34
    SEMICOLON = 59
    EQUALS = 61
    BACKSLASH = 92
    MAX_LINE = 4096                # bytes of a chunk's header line, CRLF included

cdef signed char _hex[256]         # a hex digit's value, -1: none
cdef unsigned char _token[256]     # RFC 9110 section 5.6.2: tchar

cdef int _c
for _c in range(256):
    _hex[_c] = "0123456789abcdef".find(chr(_c).lower())
    _token[_c] = chr(_c) in "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


cdef void chunked_init(Chunked* d) noexcept nogil:
    d.state = CK_HEADER
    d.left = 0


cdef int extensions(const char** at, const char* end) noexcept nogil:
    """Steps over `;name`, `;name=token` and `;name="text"`. ST_OK: `at` is at the first byte that belongs to none of them."""
    cdef const char* p = at[0]
    cdef const char* start
    while p < end and p[0] == SEMICOLON:
        p += 1
        start = p
        while p < end and _token[<unsigned char>p[0]]:
            p += 1
        if p == end:
            return ST_MORE
        if p == start:
            return ST_UNSURE
        if p[0] != EQUALS:
            continue
        p += 1
        if p == end:
            return ST_MORE
        start = p
        if p[0] == QUOTE:
            p += 1
            while p < end and SPACE <= p[0] < 127 and p[0] != QUOTE and p[0] != BACKSLASH:
                p += 1
            if p == end:
                return ST_MORE
            if p[0] != QUOTE:
                return ST_UNSURE
            p += 1
        else:
            while p < end and _token[<unsigned char>p[0]]:
                p += 1
            if p == start:
                return ST_UNSURE
    at[0] = p
    return ST_MORE if p == end else ST_OK


cdef int header_line(const char* src, size_t n, uint64_t* size, size_t* length) noexcept nogil:
    """A chunk's header line at `src`: its size and the line's length. ST_MORE: its end has not arrived."""
    cdef const char* p = src
    cdef const char* end = src + (n if n < MAX_LINE else MAX_LINE)
    cdef uint64_t v = 0
    cdef int d, r
    while p < end:
        d = _hex[<unsigned char>p[0]]
        if d < 0:
            break
        if v > <uint64_t>INT64_MAX >> 4 or p - src == 16:
            return ST_UNSURE
        v = v << 4 | <uint64_t>d
        p += 1
    r = ST_MORE
    if p < end:
        if p == src:
            return ST_UNSURE
        r = extensions(&p, end)
        if r == ST_UNSURE:
            return r
    if r == ST_OK:
        if p[0] != CR:
            return ST_UNSURE
        if p + 1 < end:
            if p[1] != LF:
                return ST_UNSURE
            size[0] = v
            length[0] = p + 2 - src
            return ST_OK
    return ST_MORE if n < MAX_LINE else ST_UNSURE


cdef int chunked_feed(Chunked* d, const char* src, size_t n, size_t* consumed,
                      char* dst, size_t cap, size_t* produced) noexcept nogil:
    cdef size_t i = 0, o = 0, k, length = 0
    cdef uint64_t size = 0
    cdef int r = ST_OK
    while d.state != CK_DONE:
        if d.state == CK_DATA:
            k = n - i
            if k > cap - o:
                k = cap - o
            if k > d.left:
                k = <size_t>d.left
            if k == 0:
                r = ST_MORE
                break
            if dst + o != src + i:
                memmove(dst + o, src + i, k)
            i += k
            o += k
            d.left -= k
            if d.left == 0:
                d.state = CK_CRLF
        elif d.state == CK_HEADER:
            r = header_line(src + i, n - i, &size, &length)
            if r != ST_OK:
                break
            i += length
            d.left = size
            d.state = CK_DATA if size > 0 else CK_TRAILER
        else:
            # The CRLF behind data, or the blank line of an empty trailer section.
            if i < n and src[i] != CR:
                r = ST_UNSURE
                break
            if n - i < 2:
                r = ST_MORE
                break
            if src[i + 1] != LF:
                r = ST_UNSURE
                break
            i += 2
            d.state = CK_HEADER if d.state == CK_CRLF else CK_DONE
    consumed[0] = i
    produced[0] = o
    return r
