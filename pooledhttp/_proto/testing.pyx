"""The compiled parsers for tests and fuzzers: bytes in, facts out. Nothing of the client uses this.

A status is named by a string: "ok", "more" or "unsure".
"""
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from pooledhttp._core.compat cimport ph_now
from pooledhttp._core.status cimport ST_MORE, ST_OK, ST_UNSURE
from pooledhttp._proto.chunked cimport (
    CK_CRLF, CK_DATA, CK_DONE, CK_HEADER, CK_TRAILER, Chunked, chunked_feed, chunked_init,
)
from pooledhttp._proto.head cimport HeadFacts, parse_head

NAMES = {ST_OK: "ok", ST_MORE: "more", ST_UNSURE: "unsure"}
STATES = {CK_HEADER: "header", CK_DATA: "data", CK_CRLF: "crlf", CK_TRAILER: "trailer", CK_DONE: "done"}


cdef dict facts_of(HeadFacts* f):
    return {
        "status": f.status, "minor": f.minor, "reason_off": f.reason_off, "reason_len": f.reason_len,
        "fields_off": f.fields_off, "fields_len": f.fields_len, "size": f.size, "n_fields": f.n_fields,
        "content_length": f.content_length, "chunked": f.chunked, "conn_close": f.conn_close,
        "conn_keep_alive": f.conn_keep_alive, "keep_alive_timeout": f.keep_alive_timeout,
    }


def head_at(uintptr_t address, size_t length, size_t max_head=1 << 20, size_t scanned=0):
    """`parse_head` on raw memory: (status, facts or None, scanned)."""
    cdef HeadFacts f
    cdef int st
    memset(&f, 0xa5, sizeof(f))           # nothing may be left unset
    f.scanned = scanned
    st = parse_head(<const char*> address, length, max_head, &f)
    return NAMES[st], facts_of(&f) if st == ST_OK else None, f.scanned


def head(const unsigned char[::1] data not None, size_t max_head=1 << 20, size_t scanned=0):
    """`parse_head` on a copy of `data` that ends where its memory ends: (status, facts or None, scanned)."""
    cdef size_t n = data.shape[0]
    cdef char* copy = <char*> malloc(n or 1)
    if copy == NULL:
        raise MemoryError
    try:
        if n:
            memcpy(copy, &data[0], n)
        return head_at(<uintptr_t> copy, n, max_head, scanned)
    finally:
        free(copy)


def head_in_pieces(const unsigned char[::1] data not None, splits, size_t max_head=1 << 20):
    """`parse_head` with more and more of `data`, as it arrives: ends at `splits` (ascending), then all of it.

    (status, facts or None, bytes there at the decision).
    """
    cdef size_t n = data.shape[0], end = 0, scanned = 0
    for end in [*splits, n]:
        status, facts, scanned = head(data[:end], max_head, scanned)
        if status != "more":
            return status, facts, end
    return "more", None, n


def head_ns(const unsigned char[::1] data not None, size_t rounds):
    """Nanoseconds that one `parse_head` of `data` takes, as the mean of `rounds`."""
    cdef HeadFacts f
    cdef size_t _, n = data.shape[0]
    cdef const char* p = <const char*> &data[0]
    cdef long seen = 0
    cdef int64_t t0
    with nogil:
        t0 = ph_now()
        for _ in range(rounds):
            f.scanned = 0
            seen += parse_head(p, n, 1 << 20, &f)
        t0 = ph_now() - t0
    if seen != <long> rounds * ST_OK:
        raise ValueError("not a plain head")
    return t0 / <double> rounds


cdef class Decoder:
    """One chunked body. `state` and `left` as in `Chunked`."""
    cdef Chunked d

    def __cinit__(self, str state="header", uint64_t left=0):
        chunked_init(&self.d)
        self.d.state = {name: value for value, name in STATES.items()}[state]
        self.d.left = left

    @property
    def state(self):
        return STATES[self.d.state]

    @property
    def left(self):
        return self.d.left

    def feed(self, const unsigned char[::1] data not None, size_t cap, bint in_place=False, size_t before=0):
        """`chunked_feed` once: (status, consumed, decoded bytes, what of `data` is left in memory behind `consumed`).

        cap: bytes of room. in_place: decode to `before` bytes before the source, in the same memory.
        """
        cdef size_t n = data.shape[0], consumed = 0, produced = 0
        cdef char* room = <char*> malloc(n + before + 1)
        cdef char* out = room if in_place else <char*> malloc(cap or 1)
        cdef int st
        if room == NULL or out == NULL:
            free(room)
            if not in_place:
                free(out)
            raise MemoryError
        try:
            if n:
                memcpy(room + before, &data[0], n)
            st = chunked_feed(&self.d, room + before, n, &consumed, out, cap, &produced)
            return NAMES[st], consumed, out[:produced], room[before + consumed:before + n]
        finally:
            if not in_place:
                free(out)
            free(room)


def feed_at(uintptr_t address, size_t length, size_t cap):
    """`chunked_feed` from the start of a body in raw memory: (status, consumed, decoded bytes)."""
    cdef Chunked d
    cdef size_t consumed = 0, produced = 0
    cdef char* out = <char*> malloc(cap or 1)
    cdef int st
    if out == NULL:
        raise MemoryError
    chunked_init(&d)
    try:
        st = chunked_feed(&d, <const char*> address, length, &consumed, out, cap, &produced)
        return NAMES[st], consumed, out[:produced]
    finally:
        free(out)


def decode(const unsigned char[::1] data not None, splits=(), size_t cap=1 << 16, bint in_place=False, size_t before=0):
    """Decodes a body that arrives in pieces ending at `splits` (ascending), with `cap` bytes of room each time.

    (status, body, offset reached, state, left). "more": `data` ended first.
    """
    d = Decoder()
    cdef size_t at = 0, end, fed = 0
    body = bytearray()
    kept = b""
    for end in [*splits, data.shape[0]]:
        kept += bytes(data[fed:end])
        fed = end
        while True:
            status, used, out, kept = d.feed(kept, cap, in_place, before)
            at += used
            body += out
            if status != "more":
                return status, bytes(body), at, d.state, d.left
            if not used:
                break
    return status, bytes(body), at, d.state, d.left
