# cython: auto_pickle=False
"""Thin wrappers over the compiled parser, for tests, fuzzers and memory checkers. No part of the client uses them."""
cimport cython
from libc.stdint cimport int64_t, uintptr_t
from libc.string cimport memset

from pooledhttp._core.compat cimport ph_now
from pooledhttp._core.status cimport ST_MORE as _MORE
from pooledhttp._core.status cimport ST_OK as _OK
from pooledhttp._core.status cimport ST_UNSURE as _UNSURE
from pooledhttp._proto.chunked cimport CK_CRLF as _CK_CRLF
from pooledhttp._proto.chunked cimport CK_DATA as _CK_DATA
from pooledhttp._proto.chunked cimport CK_DONE as _CK_DONE
from pooledhttp._proto.chunked cimport CK_HEADER as _CK_HEADER
from pooledhttp._proto.chunked cimport CK_TRAILER as _CK_TRAILER
from pooledhttp._proto.chunked cimport Chunked, chunked_feed, chunked_init
from pooledhttp._proto.head cimport HeadFacts, parse_head

OK = _OK
MORE = _MORE
UNSURE = _UNSURE
CK_HEADER = _CK_HEADER
CK_DATA = _CK_DATA
CK_CRLF = _CK_CRLF
CK_TRAILER = _CK_TRAILER
CK_DONE = _CK_DONE


@cython.final
cdef class HeadParser:
    """`parse_head` with its facts kept from call to call: give it the same bytes and more each time."""

    cdef HeadFacts f
    cdef size_t max_head

    def __cinit__(self, max_head=1 << 20):
        # Facts that a caller would not have cleared: only `scanned` is promised to be 0.
        memset(&self.f, 0x55, sizeof(HeadFacts))
        self.f.scanned = 0
        self.max_head = max_head

    def parse(self, const unsigned char[::1] data not None) -> int:
        """A status over the whole of `data`."""
        cdef const char* p = b""
        if data.shape[0]:
            p = <const char*>&data[0]
        return parse_head(p, data.shape[0], self.max_head, &self.f)

    def parse_at(self, address, length) -> int:
        """A status over `length` bytes at `address`, which must be readable."""
        cdef uintptr_t at = address
        cdef size_t n = length
        cdef int r
        with nogil:
            r = parse_head(<const char*>at, n, self.max_head, &self.f)
        return r

    @property
    def scanned(self) -> int:
        return self.f.scanned

    def facts(self) -> dict:
        """What `HeadFacts` holds, `scanned` left out. Meaningful after OK."""
        return {
            "status": self.f.status, "minor": self.f.minor, "reason_off": self.f.reason_off, "reason_len": self.f.reason_len,
            "fields_off": self.f.fields_off, "fields_len": self.f.fields_len, "size": self.f.size, "n_fields": self.f.n_fields,
            "content_length": self.f.content_length, "chunked": self.f.chunked, "conn_close": self.f.conn_close,
            "conn_keep_alive": self.f.conn_keep_alive, "keep_alive_timeout": self.f.keep_alive_timeout, "notes": self.f.notes,
        }


@cython.final
cdef class ChunkedDecoder:
    """`chunked_feed` with its state. `cap` below 0: room for all."""

    cdef Chunked d

    def __cinit__(self):
        memset(&self.d, 0x55, sizeof(Chunked))
        chunked_init(&self.d)

    def feed(self, data, cap=-1) -> tuple:
        """(status, bytes consumed, decoded bytes), from one memory to another."""
        cdef bytes src = bytes(data)
        cdef size_t n = len(src), used = 0, made = 0
        cdef size_t room = n if cap < 0 else cap
        cdef bytearray out = bytearray(room)
        cdef const char* s = src
        cdef char* o = out
        cdef int r
        with nogil:
            r = chunked_feed(&self.d, s, n, &used, o, room, &made)
        return r, used, bytes(out[:made])

    def feed_in_place(self, bytearray buffer not None, dst, src, cap=-1) -> tuple:
        """(status, consumed, produced): decodes buffer[src:] to buffer[dst:] in the same memory, where dst <= src."""
        cdef size_t at = src, to = dst, n, room, used = 0, made = 0
        if not to <= at <= <size_t>len(buffer):
            raise ValueError("want dst <= src <= len(buffer)")
        n = len(buffer) - at
        room = len(buffer) - to if cap < 0 else cap
        if room > len(buffer) - to:
            raise ValueError("cap is over the buffer's end")
        cdef char* b = buffer
        cdef int r
        with nogil:
            r = chunked_feed(&self.d, b + at, n, &used, b + to, room, &made)
        return r, used, made

    def feed_at(self, address, length, out=None, room=None) -> tuple:
        """(status, consumed, produced): decodes `length` bytes at `address` to `room` bytes at `out`; without these in place."""
        cdef uintptr_t at = address, to = address if out is None else out
        cdef size_t n = length, cap = length if room is None else room, used = 0, made = 0
        cdef int r
        with nogil:
            r = chunked_feed(&self.d, <const char*>at, n, &used, <char*>to, cap, &made)
        return r, used, made

    @property
    def state(self) -> int:
        return self.d.state

    @property
    def left(self) -> int:
        return self.d.left


def head_nanoseconds(bytes data not None, int rounds=100000) -> float:
    """Mean nanoseconds of one `parse_head` over `data`, a whole plain head."""
    cdef HeadFacts f
    cdef const char* p = data
    cdef size_t n = len(data)
    cdef int bad = 0
    cdef int64_t t
    with nogil:
        t = ph_now()
        for _ in range(rounds):
            f.scanned = 0
            if parse_head(p, n, 1 << 20, &f) != _OK:
                bad += 1
        t = ph_now() - t
    if bad:
        raise ValueError("not a plain head")
    return <double>t / rounds
