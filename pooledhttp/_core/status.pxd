"""Status codes: what `noexcept nogil` functions return. Negative means that nothing more can be had without a decision above."""

cdef enum Status:
    ST_OK = 0
    ST_AGAIN = -1         # a try_ call would block
    ST_TIMEOUT = -2       # the deadline given has passed
    ST_INTR = -3          # a signal broke the wait: take the GIL, run handlers, come back with what remains
    ST_WOKEN = -4         # the thread's wake descriptor became readable
    ST_IO = -5            # a system call failed; its errno is kept beside
    ST_TLS = -6           # the TLS layer failed; its exception is kept beside
    ST_EOF = -7           # orderly end of the peer's bytes
    ST_MORE = -8          # the parser needs more bytes
    ST_UNSURE = -9        # the fast path is not sure: h11 decides
    ST_PROTO = -10        # the peer broke the protocol; a reason is kept beside
    ST_TOO_LARGE = -11    # the body is over the caller's limit
    ST_NEED_GIL = -12     # the next step needs Python (an upload's next piece, a large body's memory)
    ST_STALE = -13        # a reused connection died before the first byte of the answer
    ST_NOMEM = -14
    ST_CLOSED = -15       # the pool is closed
    ST_FILE = -16         # a file that is sent could not be read, errno kept beside; 0: it ended early
    ST_REFUSED = -17      # 417 to a request with `Expect: 100-continue`
    ST_TELL = -18         # somebody follows this exchange, and is to hear how far it is; call again to go on

    ST_UNDONE = -19       # the peer said that it did not process the request: it may be sent again, whatever it is
    ST_H1 = -20           # the peer wants HTTP/1.1 for this
    ST_BROKE = -21        # the peer broke the protocol of a connection that others share; a reason is kept beside

# Phases, as errors name them. PHASES in errors.py is in this order.
cdef enum Phase:
    PH_POOL = 0
    PH_DNS = 1
    PH_CONNECT = 2
    PH_PROXY = 3
    PH_TLS = 4
    PH_SEND = 5
    PH_HEADERS = 6
    PH_BODY = 7

# Why a connection was closed. CLOSE_REASONS in _core/reasons.py is in this order.
cdef enum Reason:
    RE_REUSE = -1         # not closed: it may serve again
    RE_IDLE_TIMEOUT = 0
    RE_LIFETIME = 1
    RE_EVICTED = 2
    RE_SERVER_CLOSED = 3
    RE_NOT_REUSABLE = 4
    RE_TIMEOUT = 5
    RE_CANCELLED = 6
    RE_ERROR = 7
    RE_DRAIN_LIMIT = 8
    RE_SHUTDOWN = 9
    RE_FORKED = 10
    RE_COUNT = 11

# Which limit a wait ended at.
cdef enum Limit:
    LIM_NONE = 0
    LIM_POOL = 1
    LIM_CONNECT = 2
    LIM_TLS = 3
    LIM_HEADER = 4
    LIM_READ = 5
    LIM_WRITE = 6
    LIM_TOTAL = 7

cdef enum:
    FOREVER = -1          # the absolute deadline that never comes
