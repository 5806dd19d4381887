"""The chunked transfer coding, RFC 9112 section 7.1, decided only where it is plain.

    chunked-body = *( size-in-hex [chunk-ext] CRLF data CRLF ) 1*"0" [chunk-ext] CRLF trailer-section CRLF

A line that has not ended is not consumed and is read again from its start: lines are short (at most LINE_MAX), and so no state is
kept within one.
"""
from libc.string cimport memmove

from pooledhttp._core.status cimport ST_MORE, ST_OK, ST_UNSURE

cdef enum:
    LINE_MAX = 4096
    SIZE_DIGITS = 16

    TOKEN = 1               # tchar, RFC 9110 section 5.6.2
    QUOTED = 2              # VCHAR but for the quote and the backslash

cdef unsigned char KIND[256]
cdef signed char HEX[256]


cdef void fill_kinds() noexcept nogil:
    cdef const char* marks = "!#$%&'*+-.^_`|~"
    cdef int c
    for c in range(256):
        HEX[c] = -1
        KIND[c] = QUOTED if 33 <= c <= 126 and c != 34 and c != 92 else 0
        if 48 <= c <= 57:
            HEX[c] = c - 48
            KIND[c] |= TOKEN
        elif (65 <= c <= 90) or (97 <= c <= 122):
            KIND[c] |= TOKEN
            if (c | 32) <= 102:
                HEX[c] = (c | 32) - 87
    while marks[0]:
        KIND[<unsigned char> marks[0]] |= TOKEN
        marks += 1


fill_kinds()


cdef inline int crlf(const char* p, const char* end) noexcept nogil:
    if p < end and p[0] != c'\r':
        return ST_UNSURE
    if end - p < 2:
        return ST_MORE
    return ST_OK if p[1] == c'\n' else ST_UNSURE


cdef int read_extensions(const char* p, const char* end, const char** rest) noexcept nogil:
    # *( ";" token [ "=" ( token / quoted ) ] ), no blanks. ST_OK: `rest` is what follows them; ST_MORE: `end` came first.
    cdef const char* a
    while p < end and p[0] == c';':
        p += 1
        a = p
        while p < end and KIND[<unsigned char> p[0]] & TOKEN:
            p += 1
        if p == end:
            return ST_MORE
        if p == a:
            return ST_UNSURE
        if p[0] != c'=':
            continue
        p += 1
        if p < end and p[0] == c'"':
            p += 1
            while p < end and KIND[<unsigned char> p[0]] & QUOTED:
                p += 1
            if p == end:
                return ST_MORE
            if p[0] != c'"':
                return ST_UNSURE
            p += 1
            continue
        a = p
        while p < end and KIND[<unsigned char> p[0]] & TOKEN:
            p += 1
        if p == end:
            return ST_MORE
        if p == a:
            return ST_UNSURE
    rest[0] = p
    return ST_OK


cdef int read_header(const char* p, const char* end, uint64_t* size, const char** rest) noexcept nogil:
    # One chunk header line. ST_OK: `size`, and `rest` behind its CRLF.
    cdef uint64_t v = 0
    cdef const char* a = p
    cdef int d, st
    while p < end:
        d = HEX[<unsigned char> p[0]]
        if d < 0:
            break
        if p - a == SIZE_DIGITS:
            return ST_UNSURE
        v = (v << 4) | <uint64_t> d
        p += 1
    if v >> 63:
        return ST_UNSURE
    if p == end:
        return ST_MORE
    if p == a:
        return ST_UNSURE
    if p[0] == c';':
        st = read_extensions(p, end, &p)
        if st != ST_OK:
            return st
    st = crlf(p, end)
    if st == ST_OK:
        size[0] = v
        rest[0] = p + 2
    return st


cdef void chunked_init(Chunked* d) noexcept nogil:
    d.state = CK_HEADER
    d.left = 0


cdef int chunked_feed(Chunked* d, const char* src, size_t n, size_t* consumed,
                      char* dst, size_t cap, size_t* produced) noexcept nogil:
    cdef const char* p = src
    cdef const char* end = src + n
    cdef char* out = dst
    cdef char* full = dst + cap
    cdef size_t take
    cdef int st = ST_OK
    while True:
        if d.state == CK_DATA:
            take = end - p
            if take > d.left:
                take = d.left
            if take > <size_t> (full - out):
                take = full - out
            if take:
                if out != p:
                    memmove(out, p, take)
                p += take
                out += take
                d.left -= take
            if d.left:
                st = ST_MORE
                break
            d.state = CK_CRLF
        elif d.state == CK_CRLF:
            st = crlf(p, end)
            if st != ST_OK:
                break
            p += 2
            d.state = CK_HEADER
        elif d.state == CK_HEADER:
            st = read_header(p, end if end - p < LINE_MAX else p + LINE_MAX, &d.left, &p)
            if st != ST_OK:
                if st == ST_MORE and end - p >= LINE_MAX:
                    st = ST_UNSURE
                break
            d.state = CK_DATA if d.left else CK_TRAILER
        elif d.state == CK_TRAILER:
            st = crlf(p, end)
            if st != ST_OK:
                break
            p += 2
            d.state = CK_DONE
        else:
            break
    consumed[0] = p - src
    produced[0] = out - dst
    return st
