"""The head of an HTTP/1.1 response, decided only where it is plain (RFC 9112 sections 2 to 6).

One pass over the bytes does it where the whole head has arrived, which is nearly always. Where it has not, the calls that
follow only look for its end, from where the last one stopped, and the head is parsed once more when the end is there: the work
is linear in the bytes, in however many pieces they come.
"""
from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from libc.string cimport memchr, memcpy

from pooledhttp._core.status cimport ST_MORE, ST_OK, ST_UNSURE

cdef enum:
    TAB = 9
    LF = 10
    CR = 13
    SPACE = 32
    COMMA = 44
    DIGIT_0 = 48
    DIGIT_9 = 57
    COLON = 58
    EQUALS = 61
    MAX_TIMEOUT_DIGITS = 9         # 30 years, and still nanoseconds in an int64; what is longer is no limit
    START = 13                     # len("HTTP/1.1 200 ")

cdef unsigned char _token[256]     # RFC 9110 section 5.6.2: tchar
cdef unsigned char _text[256]      # HTAB, SP, VCHAR, obs-text

cdef int _c
for _c in range(256):
    _token[_c] = chr(_c) in "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    _text[_c] = _c == 9 or (_c >= 32 and _c != 127)


cdef extern from * nogil:
    """
    /* The offset of the first of eight bytes whose high bit is set in a mask that borrows may have smeared upwards,
     * towards later bytes on a little-endian machine; elsewhere 0, and the bytes are looked at one by one. */
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    #define ph_first_byte(mask) (__builtin_ctzll(mask) >> 3)
    #else
    #define ph_first_byte(mask) 0
    #endif
    """
    int ph_first_byte(uint64_t mask)


cdef inline const char* text_end(const char* p, const char* end) noexcept nogil:
    """The first byte from `p` that is not field text, or `end`."""
    cdef uint64_t ones = 0x0101010101010101
    cdef uint64_t w, x, odd
    while end - p >= 8:
        # Eight bytes at once: below 0x20, or 0x7f, is odd; of those only HTAB is text.
        memcpy(&w, p, 8)
        x = w ^ (ones * 0x7f)
        odd = (((w - ones * 0x20) & ~w) | ((x - ones) & ~x)) & (ones * 0x80)
        if odd == 0:
            p += 8
            continue
        p += ph_first_byte(odd)
        if not _text[<unsigned char>p[0]]:
            return p
        p += 1
    while p < end and _text[<unsigned char>p[0]]:
        p += 1
    return p


cdef inline bint is_word(const char* p, const char* lower, size_t n) noexcept nogil:
    """Whether the n bytes at `p`, which are field text, are `lower` (letters and '-') in any case."""
    cdef size_t i
    for i in range(n):
        if (p[i] | 0x20) != lower[i]:
            return False
    return True


cdef inline bint is_ows(char c) noexcept nogil:
    return c == SPACE or c == TAB


cdef inline bint is_digit(char c) noexcept nogil:
    return DIGIT_0 <= c <= DIGIT_9


cdef int64_t decimal(const char* p, const char* end) noexcept nogil:
    """1*DIGIT up to 2**63 - 1; -1 where it is anything else. At most 19 digits, leading zeros counted."""
    cdef int64_t v = 0
    cdef int d
    if p == end or end - p > 19:
        return -1
    while p < end:
        if not is_digit(p[0]):
            return -1
        d = p[0] - DIGIT_0
        if v > (INT64_MAX - d) // 10:
            return -1
        v = v * 10 + d
        p += 1
    return v


cdef void keep_alive_item(const char* p, const char* end, HeadFacts* f) noexcept nogil:
    """`timeout=N` sets the timeout, the least where there are several; any other parameter means nothing to us."""
    cdef int64_t v
    if end - p < 9 or not is_word(p, b"timeout", 7):
        return
    p += 7
    while p < end and is_ows(p[0]):
        p += 1
    if p == end or p[0] != EQUALS:
        return
    p += 1
    while p < end and is_ows(p[0]):
        p += 1
    if end - p > MAX_TIMEOUT_DIGITS:
        return
    v = decimal(p, end)
    if v >= 0 and (f.keep_alive_timeout < 0 or v < f.keep_alive_timeout):
        f.keep_alive_timeout = v


cdef void comma_list(const char* p, const char* end, bint connection, HeadFacts* f) noexcept nogil:
    """Notes what concerns us in a Connection or a Keep-Alive field's list."""
    cdef const char* comma
    cdef const char* q
    while p < end:
        comma = <const char*>memchr(p, COMMA, end - p)
        if comma == NULL:
            comma = end
        q = comma
        while p < q and is_ows(p[0]):
            p += 1
        while p < q and is_ows((q - 1)[0]):
            q -= 1
        if not connection:
            keep_alive_item(p, q, f)
        elif q - p == 5:
            if is_word(p, b"close", 5):
                f.conn_close = 1
        elif q - p == 10 and is_word(p, b"keep-alive", 10):
            f.conn_keep_alive = 1
        p = comma + 1


cdef int framing(const char* name, size_t size, const char* p, const char* end, HeadFacts* f) noexcept nogil:
    """Notes a field that frames the message, concerns the connection or is a Note; `size` is that of one of their names."""
    if size == 10:
        if is_word(name, b"connection", 10):
            comma_list(p, end, True, f)
        elif is_word(name, b"keep-alive", 10):
            comma_list(p, end, False, f)
        elif is_word(name, b"set-cookie", 10):
            f.notes |= NOTE_COOKIE
        return ST_OK
    if size == 16:
        if is_word(name, b"content-encoding", 16):
            f.notes |= NOTE_CODED
        return ST_OK
    if size == 14:
        if not is_word(name, b"content-length", 14):
            return ST_OK
    elif not is_word(name, b"transfer-encoding", 17):
        return ST_OK
    # Twice, or one beside the other, is what request smuggling is made of.
    if f.content_length >= 0 or f.chunked:
        return ST_UNSURE
    while p < end and is_ows(p[0]):
        p += 1
    while p < end and is_ows((end - 1)[0]):
        end -= 1
    if size == 14:
        f.content_length = decimal(p, end)
        return ST_OK if f.content_length >= 0 else ST_UNSURE
    if f.minor == 0 or end - p != 7 or not is_word(p, b"chunked", 7):
        return ST_UNSURE
    f.chunked = 1
    return ST_OK


cdef inline int crlf(const char* p, const char* end) noexcept nogil:
    """Whether the line ends at `p`."""
    if p == end:
        return ST_MORE
    if p[0] != CR:
        return ST_UNSURE
    if p + 1 == end:
        return ST_MORE
    return ST_OK if p[1] == LF else ST_UNSURE


cdef int status_start(const char* p, size_t n, HeadFacts* f) noexcept nogil:
    """`HTTP/1.1 200 `, as much of it as has arrived."""
    cdef const char* version = b"HTTP/1."
    cdef size_t i
    for i in range(n if n < 7 else 7):
        if p[i] != version[i]:
            return ST_UNSURE
    if n > 7 and p[7] != DIGIT_0 and p[7] != DIGIT_0 + 1:
        return ST_UNSURE
    if n > 8 and p[8] != SPACE:
        return ST_UNSURE
    for i in range(9, n if n < 12 else 12):
        if not is_digit(p[i]):
            return ST_UNSURE
    if n < START:
        return ST_MORE
    if p[12] != SPACE:
        return ST_UNSURE
    f.minor = p[7] - DIGIT_0
    f.status = (p[9] - DIGIT_0) * 100 + (p[10] - DIGIT_0) * 10 + (p[11] - DIGIT_0)
    if 200 <= f.status <= 599 or (f.status == 100 and f.minor == 1):
        return ST_OK
    return ST_UNSURE


cdef int parse(const char* buf, size_t n, HeadFacts* f) noexcept nogil:
    """Parses from the beginning. ST_MORE: not one byte of the n was odd, and the head does not end in them."""
    cdef const char* p = buf + START
    cdef const char* end = buf + n
    cdef const char* name
    cdef const char* value
    cdef size_t size
    cdef int r
    f.n_fields = 0
    f.content_length = -1
    f.chunked = 0
    f.conn_close = 0
    f.conn_keep_alive = 0
    f.keep_alive_timeout = -1
    f.notes = 0
    r = status_start(buf, n, f)
    if r != ST_OK:
        return r
    p = text_end(p, end)
    f.reason_off = START
    f.reason_len = p - buf - START
    r = crlf(p, end)
    if r != ST_OK:
        return r
    p += 2
    f.fields_off = p - buf
    while True:
        name = p
        while end - p >= 4 and _token[<unsigned char>p[0]] & _token[<unsigned char>p[1]] & _token[<unsigned char>p[2]] & _token[<unsigned char>p[3]]:
            p += 4
        while p < end and _token[<unsigned char>p[0]]:
            p += 1
        if p == end:
            return ST_MORE
        if p[0] != COLON or p == name:
            break
        size = p - name
        value = p + 1
        p = text_end(value, end)
        r = crlf(p, end)
        if r != ST_OK:
            return r
        f.n_fields += 1
        if size == 10 or size == 14 or size == 16 or size == 17:
            r = framing(name, size, value, p, f)
            if r != ST_OK:
                return r
        p += 2
    if p != name:
        return ST_UNSURE
    r = crlf(p, end)
    if r != ST_OK:
        return r
    f.fields_len = p - buf - f.fields_off
    f.size = p + 2 - buf
    return ST_OK


cdef int find_end(const char* buf, size_t n, size_t scanned) noexcept nogil:
    """Whether a blank line has arrived. Every LF before `scanned` is known to be a line's end, and none to end the head."""
    cdef const char* p = buf + scanned
    cdef const char* end = buf + n
    while True:
        p = <const char*>memchr(p, LF, end - p)
        if p == NULL:
            return ST_MORE
        if p == buf or (p - 1)[0] != CR:
            return ST_UNSURE
        if p - buf >= 3 and (p - 2)[0] == LF:
            return ST_OK
        p += 1


cdef int parse_head(const char* buf, size_t n, size_t max_head, HeadFacts* f) noexcept nogil:
    cdef size_t limit = n if n < max_head else max_head
    cdef int r = ST_OK
    if f.scanned > limit:
        return ST_UNSURE
    if f.scanned > 0:
        r = find_end(buf, limit, f.scanned)
    if r == ST_OK:
        r = parse(buf, limit, f)
    if r == ST_MORE:
        if n >= max_head:
            return ST_UNSURE
        f.scanned = limit
    return r
