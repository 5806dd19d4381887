"""HTTP/2 (RFC 9113) sans I/O, by libnghttp2: bytes in, what they say to each stream out.

Two kinds of threads meet at a stream: its owner, who made the request, and the leader, who alone may call the functions here (whoever has the
connection's role). What both touch is guarded by the stream's mutex, which is never held across a wait.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from pooledhttp._core.compat cimport pthread_mutex_t
from pooledhttp._core.runtime cimport Wake
from pooledhttp._proto.nghttp2 cimport nghttp2_nv, nghttp2_session

cdef enum Op:                   # what a stream asks of the leader, in `ops`
    OP_SUBMIT = 1
    OP_RESUME = 2               # there is more of the upload
    OP_REFUND = 4               # its reader took bytes: the window opens
    OP_CANCEL = 8               # nobody wants it any more

cdef enum Bell:                 # bits of `bell`
    NEWS = 1
    PROMOTED = 2                # the role is this stream's owner's now


cdef enum:                      # Broken, beside ST_PROTO and ST_BROKE
    BR_H2_HEAD = 20             # a head, or a trailer section, over max_head
    BR_H2_MESSAGE = 21          # no well-formed message (RFC 9113 section 8.1.1)
    BR_H2_CONNECTION = 22       # a connection error (section 5.4.1)
    BR_H2_PING = 23             # no answer to a PING
    BR_H2_CUT = 24              # the connection ended in the middle of a body
    BR_H2_FLOOD = 25            # too many frames that say nothing of any stream
    H2_RESET = 100              # RST_STREAM, and its error code beside this; 14: one that the RFC has not

cdef enum:
    STREAM_WINDOW = 1048576     # a body that nobody reads takes this much memory at most


cdef struct Text:               # bytes that grow
    char* p
    size_t n
    size_t cap


cdef struct Block:              # of a body; its bytes follow
    Block* next
    size_t at
    size_t n


cdef struct Part:               # of what is sent
    const char* p
    size_t n


cdef struct H2Stream:
    int refs                    # atomic: the owner's, the session's, and the inbox's
    int32_t id                  # 0: not submitted
    pthread_mutex_t m
    # --- set by the owner, before the leader hears of it
    Text text                   # what `nv` points into
    nghttp2_nv* nv
    size_t n_nv
    int has_body
    # --- the upload, under m
    Part parts[4]
    int n_parts
    int at_part
    int file_fd
    int64_t file_at
    uint64_t file_left
    int file_err                # errno + 1 of a read that failed; 1: it ended early
    int more                    # pieces are to come
    int held                    # until 100 (Continue)
    int wanted                  # all that was given is taken
    Text tail                   # the request's trailer section, as field lines
    # --- the answer, under m
    Text head                   # heads, as HTTP/1.1 would have them
    size_t head_ready           # bytes of it that are whole heads
    size_t head_total           # counted as RFC 9113 section 6.5.2 does
    Text trailers
    int final                   # a head that is not interim is there
    int ended                   # END_STREAM came
    int closed                  # the stream is over in both directions
    int begun                   # the request's head is on its way
    int sent                    # and its end
    int64_t t_sent
    int fail                    # a Status; 0: none
    int err                     # Broken, beside ST_PROTO
    Block* first
    Block* last
    char* want_p                # the reader's own memory
    size_t want_n
    size_t got
    size_t took                 # bytes that the window may open for
    int reset                   # by the peer
    int detached                # its owner has gone
    int bulk                    # rung for only where all is there
    int64_t heard
    int64_t moved               # when a part of the upload was last taken
    Wake* wake                  # where the owner waits; NULL: at the bell
    # --- atomic
    int bell
    int waits                   # 1: its owner sleeps; 2: it was woken to lead
    int ops
    int in_box
    H2Stream* box_next
    # --- the leader's
    H2Stream* prev
    H2Stream* next
    int live


cdef struct H2:
    nghttp2_session* ng
    H2Stream* live              # the newest first
    size_t max_head
    int room                    # streams that the peer allows at once
    int settled                 # its SETTINGS came
    int goaway                  # no new streams
    int gone                    # the peer's GOAWAY came
    int no_h2                   # HTTP_1_1_REQUIRED
    int pinged                  # a PING of ours is not answered yet
    int64_t now                 # when the bytes at hand came
    int64_t quiet_since         # such frames are counted from then
    int quiet
    int broke                   # the session ends by our own GOAWAY, sent or not
    int err                     # why, where libnghttp2 does not know


cdef H2Stream* h2_stream() noexcept nogil                       # with the owner's reference; NULL where memory is out
cdef void h2_hold(H2Stream* s) noexcept nogil
cdef void h2_drop(H2Stream* s) noexcept nogil
cdef void h2_ring(H2Stream* s) noexcept nogil                   # under m
cdef int text_add(Text* t, const char* p, size_t n) noexcept nogil
# `fields` are validated field lines; what belongs to a connection (RFC 9113 section 8.2.2), and Host, is left out. 0, or -1: no memory.
cdef int h2_request(H2Stream* s, Part method, Part target, Part authority, Part fields, bint secure) noexcept nogil

cdef int h2_open(H2* h, size_t max_head) noexcept nogil         # 0, or -1: no memory
cdef void h2_close(H2* h) noexcept nogil
cdef int h2_submit(H2* h, H2Stream* s) noexcept nogil
cdef void h2_cancel(H2* h, H2Stream* s) noexcept nogil
cdef void h2_refund(H2* h, H2Stream* s) noexcept nogil
cdef void h2_resume(H2* h, H2Stream* s) noexcept nogil
cdef int h2_feed(H2* h, const char* p, size_t n) noexcept nogil         # 0, or -1: the peer broke the protocol
cdef ssize_t h2_frames(H2* h, const uint8_t** p) noexcept nogil         # bytes to send, 0 for none, -1: the connection is over
cdef bint h2_owes(H2* h) noexcept nogil                         # there are frames to send
cdef int h2_ping(H2* h) noexcept nogil
cdef void h2_goodbye(H2* h) noexcept nogil
cdef void h2_fail(H2* h, int status, int err) noexcept nogil    # all of them: the connection is over
