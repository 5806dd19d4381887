"""Where TLS records end (RFC 8446 section 5.1; the framing is that of RFC 5246 too).

`SSLObject.read` raises where no whole record is there. An exception costs more than the read, and a call into `ssl` may have to
wait for the GIL, so the framing is followed here and `read` is called only where a record has ended.
"""

cdef enum:
    RECORD_HEAD = 5
    RECORD_MAX = 18432        # 2^14 + 2048, RFC 5246 section 6.2.3; TLS 1.3 allows less


cdef struct Records:
    unsigned char head[RECORD_HEAD]
    int n_head
    size_t left               # bytes of the unfinished record still to come, once its header is whole
    size_t partial            # bytes of the unfinished record seen so far, header included; 0 between records


cdef inline size_t records_follow(Records* r, const char* p, size_t n) noexcept nogil:
    """Follow `n` more bytes; the number of records that ended in them. What is no record counts as one: OpenSSL says why."""
    cdef size_t ended = 0, take, size
    cdef const unsigned char* u = <const unsigned char*>p
    while n > 0:
        if r.left > 0:
            take = r.left if r.left < n else n
            r.left -= take
            r.partial += take
            u += take
            n -= take
            if r.left == 0:
                r.partial = 0
                ended += 1
            continue
        r.head[r.n_head] = u[0]
        r.n_head += 1
        r.partial += 1
        u += 1
        n -= 1
        if r.n_head < RECORD_HEAD:
            continue
        r.n_head = 0
        size = (<size_t>r.head[3] << 8) | r.head[4]
        if r.head[0] < 20 or r.head[0] > 24 or size > RECORD_MAX or size == 0:
            r.partial = 0
            ended += 1
        else:
            r.left = size
    return ended
