"""The head of an HTTP/1.1 response, decided only where it is plain: sure or silent.

Two steps. `find_end` looks for the blank line and remembers how far it came, so a head that arrives byte by byte is searched
once. When the end is there the whole head is read in one pass: RFC 9112 sections 4 and 5 (status line, field lines), section 6
(Content-Length, Transfer-Encoding), RFC 9110 section 7.6.1 (Connection). docs/parser.md says what is handed over.
"""
from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcmp, memcpy

from pooledhttp._core.status cimport ST_MORE, ST_OK, ST_UNSURE

cdef enum:
    TOKEN = 1               # tchar, RFC 9110 section 5.6.2
    VALUE = 2               # VCHAR, obs-text, SP, HTAB

cdef unsigned char KIND[256]


cdef void fill_kinds() noexcept nogil:
    cdef const char* marks = "!#$%&'*+-.^_`|~"
    cdef int c
    for c in range(256):
        KIND[c] = VALUE if c == 9 or (c >= 32 and c != 127) else 0
        if (48 <= c <= 57) or (65 <= c <= 90) or (97 <= c <= 122):
            KIND[c] |= TOKEN
    while marks[0]:
        KIND[<unsigned char> marks[0]] |= TOKEN
        marks += 1


fill_kinds()


cdef inline bint same(const char* p, const char* lower, size_t n) noexcept nogil:
    # Without regard to case. `lower` holds lower-case letters and hyphens only; nothing else that may stand in a field
    # becomes one of them by `| 0x20`.
    cdef size_t i
    for i in range(n):
        if (p[i] | 0x20) != lower[i]:
            return False
    return True


cdef inline bint blank(char c) noexcept nogil:
    return c == c' ' or c == c'\t'


cdef inline const char* skip_value(const char* p, const char* end) noexcept nogil:
    # The first byte that may not stand in a field value. Eight bytes at a time while none of them is below SP or DEL: the
    # usual tests on all bytes of a word for "less than n" and "is zero".
    cdef uint64_t x, y
    while end - p >= 8:
        memcpy(&x, p, 8)
        y = x ^ <uint64_t> 0x7f7f7f7f7f7f7f7f
        if ((x - <uint64_t> 0x2020202020202020) & ~x | (y - <uint64_t> 0x0101010101010101) & ~y) & <uint64_t> 0x8080808080808080:
            break
        p += 8
    while KIND[<unsigned char> p[0]] & VALUE:
        p += 1
    return p


cdef inline size_t find_end(const char* buf, size_t n, size_t* scanned, bint* bare) noexcept nogil:
    # The offset behind the blank line, or 0. Stops (bare) at an LF without its CR: h11 may end the head there.
    cdef size_t at = scanned[0]
    cdef const char* hit
    while at < n:
        hit = <const char*> memchr(buf + at, c'\n', n - at)
        if hit == NULL:
            break
        at = hit - buf
        if at == 0 or buf[at - 1] != c'\r':
            bare[0] = True
            return 0
        if at >= 3 and buf[at - 2] == c'\n' and buf[at - 3] == c'\r':
            scanned[0] = at + 1
            return at + 1
        at += 1
    scanned[0] = n
    return 0


cdef inline int64_t read_digits(const char* p, const char* end) noexcept nogil:
    # 1*DIGIT up to the largest int64; -1 for anything else, and for more digits than that has: h11 counts leading zeros too.
    cdef int64_t v = 0
    cdef int d
    if p == end or end - p > 19:
        return -1
    while p < end:
        d = p[0] - c'0'
        if d < 0 or d > 9 or v > (<int64_t> 0x7fffffffffffffff - d) // 10:
            return -1
        v = v * 10 + d
        p += 1
    return v


cdef void read_connection(const char* p, const char* end, HeadFacts* f) noexcept nogil:
    cdef const char* a
    cdef const char* z
    while p < end:
        while p < end and (blank(p[0]) or p[0] == c','):
            p += 1
        a = p
        while p < end and p[0] != c',':
            p += 1
        z = p
        while z > a and blank((z - 1)[0]):
            z -= 1
        if z - a == 5 and same(a, "close", 5):
            f.conn_close = 1
        elif z - a == 10 and same(a, "keep-alive", 10):
            f.conn_keep_alive = 1


cdef void read_keep_alive(const char* p, const char* end, HeadFacts* f) noexcept nogil:
    # `timeout=5, max=100` in any order (RFC 2068 section 19.7.1.1). The last readable timeout counts; Fallback reads the same.
    cdef const char* a
    cdef const char* z
    cdef int64_t v
    while p < end:
        while p < end and (blank(p[0]) or p[0] == c','):
            p += 1
        a = p
        while p < end and p[0] != c',':
            p += 1
        z = p
        while z > a and blank((z - 1)[0]):
            z -= 1
        if z - a < 9 or not same(a, "timeout", 7):
            continue
        a += 7
        while a < z and blank(a[0]):
            a += 1
        if a == z or a[0] != c'=':
            continue
        a += 1
        while a < z and a[0] == c'"':
            a += 1
        while z > a and (z - 1)[0] == c'"':
            z -= 1
        v = read_digits(a, z) if z - a <= 9 else -1
        if v >= 0:
            f.keep_alive_timeout = v


cdef int parse_head(const char* buf, size_t n, size_t max_head, HeadFacts* f) noexcept nogil:
    cdef bint bare = False
    cdef size_t size, name_len
    cdef const char* p
    cdef const char* name
    cdef const char* value
    cdef const char* z
    cdef const char* last                 # the blank line
    # What does not begin like HTTP/1 may never end like it.
    if memcmp(buf, "HTTP/1.", n if n < 7 else 7) != 0:
        return ST_UNSURE
    size = find_end(buf, n, &f.scanned, &bare)
    if size == 0:
        return ST_UNSURE if bare or n >= max_head else ST_MORE
    # From here on CRLF CRLF stands at the end: no scan below that stops at a CR leaves the head.
    if size > max_head or size < 16 or buf[8] != c' ':
        return ST_UNSURE
    if buf[7] != c'1' and buf[7] != c'0':
        return ST_UNSURE
    f.minor = buf[7] - c'0'
    if not (c'0' <= buf[9] <= c'9' and c'0' <= buf[10] <= c'9' and c'0' <= buf[11] <= c'9'):
        return ST_UNSURE
    f.status = (buf[9] - c'0') * 100 + (buf[10] - c'0') * 10 + (buf[11] - c'0')
    if f.status != 100 and not 200 <= f.status <= 599:
        return ST_UNSURE
    last = buf + size - 2
    p = buf + 12
    if p[0] == c' ':
        p += 1
    elif p[0] != c'\r':
        return ST_UNSURE
    f.reason_off = p - buf
    p = skip_value(p, last)
    if p[0] != c'\r' or p[1] != c'\n':
        return ST_UNSURE
    f.reason_len = p - buf - f.reason_off
    p += 2

    f.fields_off = p - buf
    f.fields_len = last - p
    f.size = size
    f.n_fields = 0
    f.content_length = -1
    f.chunked = 0
    f.conn_close = 0
    f.conn_keep_alive = 0
    f.keep_alive_timeout = -1
    while p < last:
        name = p
        while KIND[<unsigned char> p[0]] & TOKEN:
            p += 1
        name_len = p - name
        if name_len == 0 or p[0] != c':':
            return ST_UNSURE                      # folding and a space before the colon end here as well
        p += 1
        while blank(p[0]):
            p += 1
        value = p
        p = skip_value(p, last)
        if p[0] != c'\r' or p[1] != c'\n':
            return ST_UNSURE
        z = p
        p += 2
        f.n_fields += 1
        if name_len == 14:
            if same(name, "content-length", 14):
                while z > value and blank((z - 1)[0]):
                    z -= 1
                if f.content_length >= 0:
                    return ST_UNSURE
                f.content_length = read_digits(value, z)
                if f.content_length < 0:
                    return ST_UNSURE
        elif name_len == 10:
            if same(name, "connection", 10):
                read_connection(value, z, f)
            elif same(name, "keep-alive", 10):
                read_keep_alive(value, z, f)
        elif name_len == 17:
            if same(name, "transfer-encoding", 17):
                while z > value and blank((z - 1)[0]):
                    z -= 1
                if f.chunked or z - value != 7 or not same(value, "chunked", 7):
                    return ST_UNSURE
                f.chunked = 1
    if f.chunked and (f.minor == 0 or f.content_length >= 0):
        return ST_UNSURE
    if f.status == 100 and (f.chunked or f.content_length >= 0):
        return ST_UNSURE                          # an interim answer has no body (RFC 9110 section 15.2)
    return ST_OK
