"""One request and its response (Exchange), over one connection (Connection). No one above asks whether it is HTTP/1 or HTTP/2."""
from libc.stdint cimport int64_t, uint64_t

from pooledhttp._core.limits cimport Limits
from pooledhttp._core.poolable cimport Holder, Poolable
from pooledhttp._core.runtime cimport Wake
from pooledhttp._core.status cimport LIM_TOTAL, PH_SEND
from pooledhttp._net.stream cimport Stream
from pooledhttp._proto.chunked cimport Chunked
from pooledhttp._proto.head cimport NOTE_CODED, HeadFacts

cdef enum Stage:
    XS_HEAD = 0          # the request is on its way, or the head awaited
    XS_BODY = 1          # the head is there; the body is being read
    XS_DONE = 2          # both directions are finished

cdef enum Framing:
    FR_NONE = 0          # no body
    FR_LENGTH = 1
    FR_CHUNKED = 2
    FR_CLOSE = 3         # until the connection closes
    FR_FALLBACK = 4      # h11 decides

cdef enum:
    FLAG_STREAM = 1      # return with the body unread
    FLAG_REPLAY = 2      # may be sent again where a reused connection dies (RFC 9110 section 9.2.2, or Idempotency-Key)
    FLAG_CLOSE = 4       # Connection: close
    FLAG_SAID_CLOSE = 8  # the same, in the caller's own fields
    FLAG_MAY_GO_ON = 16  # a 3xx may be followed by another request: its body is left unread, where it did not come with the head
    FLAG_MAY_REPEAT = 32  # the same for every status of 300 and more
    FLAG_AS_IS = 64      # the caller decodes no body
    FLAG_EXPECT = 128    # Expect: 100-continue, in the caller's own fields, before a body


cdef enum Telling:
    TELL = 1             # somebody follows this exchange
    TELL_CONN = 2        # and heard which connection it has
    TELL_SENT = 4        # is to hear when the request is sent
    TELL_FIRST = 8       # is to hear of the answer's first byte
    TELL_INTERIM = 16    # is to hear of 1xx heads
    TELL_SEEN = 32       # one was just read: its head begins at head_at


cdef enum:
    WHAT_IS_THERE = 0    # as Exchange.deadline: take what has arrived, and wait for nothing


cdef struct Span:
    const char* p
    size_t n


cdef class FilePiece:
    cdef int fd                  # its own, -1 where it could not be had
    cdef int64_t at
    cdef readonly int64_t size


cdef class Exchange:
    # --- the request
    cdef bytes method
    cdef bytes target
    cdef bytes authority
    cdef bytes fields
    cdef bytes made_head         # all of these as they are sent, where that was made before; else None
    cdef bytes body              # a whole body, or None
    cdef object pieces           # an iterator over an upload's pieces, once begun
    cdef object piece            # keeps the memory of the piece that is being sent
    cdef int flags
    # --- limits, absolute in ns; -1: none
    cdef Limits limits
    cdef int64_t deadline
    cdef int64_t max_body        # bytes, -1: none
    cdef size_t max_head
    cdef Wake* wake              # this thread's, where the exchange can be cancelled
    # --- sending
    cdef Span spans[4]
    cdef int n_spans
    cdef int at_span
    cdef int64_t expect          # ns that it waits for that
    cdef int64_t expect_until    # 0: the head is not sent yet
    cdef char frame[32]          # a chunk's header line
    cdef int file_fd             # behind the spans, this much of a file
    cdef int64_t file_at
    cdef uint64_t file_left
    cdef int64_t last_write
    cdef int64_t asked           # when the handlers of signals last had their turn
    cdef int64_t silent_since    # when the wait began that a signal or a wake-up broke; 0: none did
    # --- receiving: [lo, hi) is raw; [body_off, body_off + body_len) is body already decoded in place
    cdef char* buf
    cdef size_t cap
    cdef size_t lo
    cdef size_t hi
    cdef size_t out_at           # where the request's bytes begin in buf; receiving stays below while they are unsent
    cdef size_t body_off
    cdef size_t body_len
    cdef HeadFacts facts
    cdef int interim             # 1xx heads skipped
    cdef int framing
    cdef uint64_t left           # FR_LENGTH: bytes to come
    cdef Chunked chunks
    cdef object fallback         # h11, where it decides
    cdef size_t head_at          # where the answer's head begins in buf
    # --- over HTTP/2
    cdef void* h2                # its H2Stream, until the exchange is over: freed with the GIL, so that who has that may look
    cdef void (*h2_free)(void*) noexcept nogil
    cdef size_t h2_seen               # bytes of that one's heads that were copied to buf
    cdef char* tail                   # field lines, malloc'ed; NULL: none
    cdef size_t n_tail
    # --- where it stands
    cdef int telling             # Telling bits; 0: nobody follows
    cdef int stage
    cdef int phase
    cdef int limit               # which limit an ST_TIMEOUT ended at
    cdef int err
    # --- the connection
    cdef Connection wire
    cdef Holder holder
    cdef bint reused
    cdef uint64_t conn_uses
    cdef int64_t idle_for
    # --- what holds, or not: a byte each, for an object of more than 1,032 bytes is beyond what malloc has at hand for a thread
    cdef unsigned char in_pieces        # the body is an upload in pieces
    cdef unsigned char has_pieces       # and is not exhausted
    cdef unsigned char chunked_upload
    cdef unsigned char no_body_method   # HEAD
    cdef unsigned char decoded_body     # that limit is for the decoded body: whoever decodes it holds it
    cdef unsigned char sending
    cdef unsigned char any_sent         # a byte of this attempt was accepted
    cdef unsigned char send_broke       # the upload stopped short
    cdef unsigned char expecting        # the body is held back until 100 (Continue) comes, or `expect_until`
    cdef unsigned char own_buf          # malloc'ed by itself (a head larger than a pooled buffer)
    cdef unsigned char any_received     # a byte of this attempt's answer arrived
    cdef unsigned char bulk             # the caller wants the body whole
    cdef unsigned char framed           # an upload of unknown length is framed by the exchange, as chunks; else by the connection
    # --- times, ns
    cdef int64_t t_start
    cdef int64_t t_pool
    cdef int64_t t_dns
    cdef int64_t t_connect
    cdef int64_t t_tls
    cdef int64_t t_begin         # the exchange on the wire began
    cdef int64_t t_sent
    cdef int64_t t_first
    cdef int64_t t_head
    cdef int64_t t_done

    cdef void reset(self) noexcept nogil            # a new attempt
    cdef void drop_buffer(self) noexcept nogil
    cdef void drop_h2(self) noexcept nogil


cdef inline bint late(Exchange ex) noexcept nogil:
    # Begun after its deadline: nothing of it is sent.
    if ex.deadline < 0 or ex.t_begin < ex.deadline:
        return False
    ex.limit = LIM_TOTAL
    ex.phase = PH_SEND
    return True


cdef inline bint provisional(Exchange ex) noexcept nogil:
    # The head is there, and another request may follow on it: nobody waits for this body.
    return ex.facts.status >= 300 and ((ex.flags & FLAG_MAY_GO_ON and ex.facts.status < 400) or ex.flags & FLAG_MAY_REPEAT)


cdef inline void see_coding(Exchange ex) noexcept nogil:
    # The head is there. What max_body bounds is decoded above; where the body is not small it is left unread for that.
    if ex.facts.notes & NOTE_CODED:
        if ex.flags & FLAG_AS_IS:
            ex.facts.notes &= ~NOTE_CODED
        elif ex.max_body >= 0:
            ex.decoded_body = True
            ex.max_body = -2 - ex.max_body         # none; undone where another attempt follows


cdef class Connection(Poolable):
    cdef Stream stream
    cdef readonly object info        # (remote_addr, local_addr, tls_version, cipher, alpn)
    # A new attempt: takes a buffer and writes the request's head into it. ST_OK or ST_NOMEM.
    cdef int begin(self, Exchange ex) noexcept nogil
    # Runs as far as it can. ST_OK: the head is there; stage says whether the body is too. ST_NEED_GIL: the upload's next
    # piece is wanted, then call again. ST_INTR, ST_WOKEN, ST_TELL: call again to go on. ST_UNSURE: h11 decides. ST_REFUSED: a 417 that a request
    # without Expect may not meet; call again to have it all the same.
    cdef int exchange(self, Exchange ex) noexcept nogil
    # One read of raw bytes into dst while sending what is left. >= 1, or a status as above; ST_EOF at the end.
    cdef ssize_t fill(self, Exchange ex, char* dst, size_t room) noexcept nogil
    # Up to n decoded bytes of the body: >= 1, ST_EOF at its end (stage is XS_DONE then), or a status as above.
    cdef ssize_t read_body(self, Exchange ex, char* dst, size_t n) noexcept nogil
    # The body is held back no longer.
    cdef void go_on(self, Exchange ex) noexcept nogil
    # After the answer: finish the upload. ST_OK, or a status as above.
    cdef int finish_sending(self, Exchange ex) noexcept nogil
    # RE_REUSE, or the reason against it.
    cdef int verdict(self, Exchange ex, int64_t* idle_limit) noexcept nogil
    # The exchange is broken off, for `reason`. What becomes of the connection: as above.
    cdef int part(self, Exchange ex, int reason) noexcept nogil
    # From another thread: end what `ex` waits on, where others share the connection. False: nobody does, see Poolable.interrupt.
    cdef bint disturb(self, Exchange ex)
    cdef bint shared(self) noexcept nogil          # among exchanges


# What an ST_PROTO is, in Exchange.err.
cdef enum Broken:
    BR_HEAD_CUT = 1
    BR_LENGTH_CUT = 2
    BR_CHUNKED_CUT = 3
    BR_INTERIM_FLOOD = 4
