"""HTTP/1.1 over a stream (RFC 9112): one exchange at a time.

`fill` is the heart: it receives, and sends whatever of the request is still unsent while it waits, so that a server that answers
while we send never deadlocks us. Everything resumes: a status that interrupts (a signal, a wanted piece, a wake-up) loses nothing.
"""
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy, memmove

from pooledhttp._conn.connection cimport (
    BR_CHUNKED_CUT, BR_HEAD_CUT, BR_INTERIM_FLOOD, BR_LENGTH_CUT, FLAG_CLOSE, FLAG_EXPECT, FLAG_SAID_CLOSE, FLAG_STREAM,
    FR_CHUNKED, FR_CLOSE, FR_FALLBACK, FR_LENGTH, FR_NONE, TELL_FIRST, TELL_INTERIM, TELL_SEEN, TELL_SENT, WHAT_IS_THERE, XS_BODY, XS_DONE, XS_HEAD, Span,
    late, provisional, see_coding,
)
from pooledhttp._core.compat cimport c_shutdown, ph_gil_releases, ph_now
from pooledhttp._core.runtime cimport BUFFER_SIZE, LOOK, buffer_take, on_main, unsettled
from pooledhttp._core.status cimport (
    LIM_HEADER, LIM_READ, LIM_TOTAL, LIM_WRITE, PH_BODY, PH_HEADERS, PH_SEND, RE_ERROR, RE_FORKED, RE_NOT_REUSABLE, RE_REUSE, ST_AGAIN, ST_EOF, ST_FILE,
    ST_INTR, ST_IO, ST_MORE, ST_NEED_GIL, ST_NOMEM, ST_OK, ST_PROTO, ST_REFUSED, ST_TELL, ST_TIMEOUT, ST_TOO_LARGE, ST_UNSURE, ST_WOKEN,
)
from pooledhttp._net.stream cimport WAIT_READ, WAIT_WRITE, Stream
from pooledhttp._proto.chunked cimport chunked_feed, chunked_init
from pooledhttp._proto.head cimport parse_head


cdef extern from "Python.h" nogil:
    char* PyBytes_AS_STRING(object)
    Py_ssize_t PyBytes_GET_SIZE(object)

cdef enum:
    JOIN = 8192              # a whole body up to this size travels with the head in one send
    MAX_INTERIM = 32
    TURN = 1048576           # bytes sent before the other direction is looked at
    BULK = 131072            # room worth a wait for more than has arrived
    SLACK = 4096             # room that is worth another read into the buffer


cdef int reuse_verdict(bint done, bint send_broke, bint leftover, bint asked_close, int minor, bint conn_close, bint conn_keep_alive, bint until_close,
                       int64_t keep_alive_timeout) noexcept nogil:
    # RFC 9112 section 9.3 decides persistence; the rest is whether the stream stands exactly at a message's end.
    if not done:
        return RE_ERROR
    if send_broke or leftover or until_close or asked_close or conn_close:
        return RE_NOT_REUSABLE
    if minor == 0 and not conn_keep_alive:
        return RE_NOT_REUSABLE
    if keep_alive_timeout == 0:
        return RE_NOT_REUSABLE
    return RE_REUSE


cdef inline char* _put(char* at, const char* p, size_t n) noexcept nogil:
    memcpy(at, p, n)
    return at + n


cdef class H1Connection(Connection):
    """An HTTP/1.1 connection over `stream`, which it owns. `info` is (remote_addr, local_addr, tls_version, cipher, alpn)."""

    def __cinit__(self, Stream stream, object info):
        self.stream = stream
        self.info = info

    # --- Poolable ------------------------------------------------------------------------------------------------------

    cdef int fileno(self) noexcept nogil:
        return self.stream.fd

    cdef int probe(self) noexcept nogil:
        return self.stream.probe()

    cdef int on_readable(self) noexcept nogil:
        return self.stream.probe()

    cdef void interrupt(self) noexcept nogil:
        if self.stream.fd >= 0 and not unsettled():       # else the parent's
            c_shutdown(self.stream.fd, 2)

    cdef void close(self, int reason) noexcept nogil:
        self.stream.close(reason != RE_FORKED and reason != RE_ERROR)

    # --- the request's bytes -------------------------------------------------------------------------------------------

    cdef int begin(self, Exchange ex) noexcept nogil:
        cdef size_t total, body = 0, cap = BUFFER_SIZE
        cdef char* at
        cdef size_t n_method = PyBytes_GET_SIZE(ex.method), n_target = PyBytes_GET_SIZE(ex.target)
        cdef size_t n_auth = PyBytes_GET_SIZE(ex.authority), n_fields = PyBytes_GET_SIZE(ex.fields)
        ex.reset()
        if ex.made_head is not None and not ex.flags & FLAG_CLOSE:
            return self.begin_made(ex)
        total = n_method + 1 + n_target + 17 + n_auth + 2 + n_fields + 2
        if ex.chunked_upload:
            total += 28
        if ex.flags & FLAG_CLOSE and not ex.flags & FLAG_SAID_CLOSE:
            total += 19
        if ex.body is not None:
            body = PyBytes_GET_SIZE(ex.body)
            if ex.flags & FLAG_EXPECT:
                body = 0
            elif body <= JOIN:
                total += body
        if ex.buf != NULL and (ex.own_buf or total > BUFFER_SIZE // 2):
            ex.drop_buffer()
        if ex.buf == NULL:
            if total > BUFFER_SIZE // 2:
                cap = BUFFER_SIZE + total
                ex.buf = <char*>malloc(cap)
                ex.own_buf = True
            else:
                ex.buf = buffer_take()
            if ex.buf == NULL:
                return ST_NOMEM
            ex.cap = cap
        # At the buffer's far end: the answer is received from its start, also while this is unsent.
        ex.out_at = ex.cap - total
        at = ex.buf + ex.out_at
        ex.spans[0].p = at
        ex.spans[0].n = total
        ex.n_spans = 1
        at = _put(at, PyBytes_AS_STRING(ex.method), n_method)
        at[0] = 32
        at = _put(at + 1, PyBytes_AS_STRING(ex.target), n_target)
        at = _put(at, b" HTTP/1.1\r\nHost: ", 17)
        at = _put(at, PyBytes_AS_STRING(ex.authority), n_auth)
        at = _put(at, b"\r\n", 2)
        at = _put(at, PyBytes_AS_STRING(ex.fields), n_fields)
        if ex.chunked_upload:
            at = _put(at, b"Transfer-Encoding: chunked\r\n", 28)
        if ex.flags & FLAG_CLOSE and not ex.flags & FLAG_SAID_CLOSE:
            at = _put(at, b"Connection: close\r\n", 19)
        at = _put(at, b"\r\n", 2)
        if body > JOIN:
            ex.spans[1].p = PyBytes_AS_STRING(ex.body)
            ex.spans[1].n = body
            ex.n_spans = 2
        elif body > 0:
            _put(at, PyBytes_AS_STRING(ex.body), body)
        ex.sending = True
        if ex.flags & FLAG_EXPECT:
            ex.expecting = True
            ex.expect_until = 0
        ex.t_begin = ex.last_write = ex.asked = ph_now()
        return ST_TIMEOUT if late(ex) else ST_OK

    cdef int begin_made(self, Exchange ex) noexcept nogil:
        # Sent from where it is: the buffer is the answer's alone.
        if ex.own_buf:
            ex.drop_buffer()
        if ex.buf == NULL:
            ex.buf = buffer_take()
            if ex.buf == NULL:
                return ST_NOMEM
            ex.cap = BUFFER_SIZE
        ex.out_at = ex.cap
        ex.spans[0].p = PyBytes_AS_STRING(ex.made_head)
        ex.spans[0].n = PyBytes_GET_SIZE(ex.made_head)
        ex.n_spans = 1
        ex.sending = True
        ex.t_begin = ex.last_write = ex.asked = ph_now()
        return ST_TIMEOUT if late(ex) else ST_OK

    cdef void go_on(self, Exchange ex) noexcept nogil:
        ex.expecting = False
        if ex.body is not None:
            ex.spans[1].p = PyBytes_AS_STRING(ex.body)
            ex.spans[1].n = PyBytes_GET_SIZE(ex.body)
            ex.n_spans = 2
        ex.last_write = ph_now()

    cdef ssize_t hold(self, Exchange ex, char* dst, size_t room) noexcept nogil:
        # The head is sent, and the server asked whether it wants the body (RFC 9110 section 10.1.1). ST_AGAIN: it did not say in time.
        cdef int64_t now = ph_now(), until = ex.deadline
        cdef ssize_t r
        if ex.expect_until == 0:
            ex.expect_until = now + ex.expect
        if now >= ex.expect_until:
            return ST_AGAIN
        ex.phase = PH_HEADERS
        ex.limit = LIM_TOTAL
        if until < 0 or ex.expect_until < until:
            until = ex.expect_until
        r = self.stream.recv_into(dst, room, until, ex.wake)
        return ST_AGAIN if r == ST_TIMEOUT and until == ex.expect_until else self.ended(r)

    cdef int push(self, Exchange ex) noexcept nogil:
        # Send what the kernel takes now, up to about a mebibyte. ST_OK: all of the spans is on its way.
        cdef Span* s
        cdef ssize_t r
        cdef bint moved = False
        cdef size_t sent = 0
        while ex.at_span < ex.n_spans:
            s = &ex.spans[ex.at_span]
            r = self.stream.try_send(s.p, s.n)
            if r < 0:
                break
            ex.any_sent = moved = True
            s.p += r
            s.n -= r
            if s.n == 0:
                ex.at_span += 1
            sent += r
            if sent >= TURN and ex.at_span < ex.n_spans:
                # A peer that takes all we have must not keep us from its answer, nor from the deadline.
                r = ST_AGAIN
                break
        else:
            r = ST_OK
            while ex.file_left > 0:
                r = self.stream.try_send_file(ex.file_fd, ex.file_at, ex.file_left if ex.file_left < TURN else TURN)
                if r < 0:
                    break
                ex.any_sent = moved = True
                ex.file_at += r
                ex.file_left -= r
                sent += r
                if sent >= TURN and ex.file_left > 0:
                    r = ST_AGAIN
                    break
            else:
                r = self.stream.try_flush()
        if r == ST_AGAIN:
            # The silence that Limits.write bounds begins with the last byte that the kernel took.
            if moved:
                ex.last_write = ph_now()
            elif self.stream.moved > ex.last_write:
                ex.last_write = self.stream.moved
        return <int>r

    cdef ssize_t ended(self, ssize_t r) noexcept nogil:
        # An end that `interrupt` made is not the peer's: a body that ends with the connection would pass for whole.
        return ST_IO if r == ST_EOF and self.slot.interrupted else r

    cdef int wait_to_send(self, Exchange ex, int events) noexcept nogil:
        cdef int64_t until = ex.deadline
        ex.phase = PH_SEND
        if self.deaf(ex):
            return ST_INTR
        ex.limit = LIM_TOTAL
        if ex.limits.write >= 0 and (until < 0 or ex.last_write + ex.limits.write < until):
            until = ex.last_write + ex.limits.write
            ex.limit = LIM_WRITE
        return self.stream.wait(events, until, ex.wake)

    # --- both directions -----------------------------------------------------------------------------------------------

    cdef ssize_t fill(self, Exchange ex, char* dst, size_t room) noexcept nogil:
        cdef ssize_t r
        cdef int st
        cdef int64_t since = 0, until
        cdef bint just_sent = ex.sending
        if self.too_late(ex):
            return ST_TIMEOUT
        if self.deaf(ex):
            return ST_INTR
        while ex.sending:
            st = self.push(ex)
            if st == ST_OK:
                if ex.expecting:
                    r = self.hold(ex, dst, room)
                    if r != ST_AGAIN:
                        return r
                    self.go_on(ex)
                    continue
                if ex.has_pieces:
                    # Early answers are looked for between pieces too.
                    r = self.stream.try_recv(dst, room)
                    return ST_NEED_GIL if r == ST_AGAIN else self.ended(r)
                ex.sending = False
                ex.t_sent = ph_now()
                ex.out_at = ex.cap
                if ex.telling & TELL_SENT:
                    return ST_TELL
                break
            if st == ST_FILE:
                return ST_NEED_GIL
            r = self.stream.try_recv(dst, room) if room > 0 else ST_AGAIN
            if st != ST_AGAIN:
                # The upload broke; what the server said before that still counts.
                ex.sending = False
                ex.send_broke = True
                ex.has_pieces = False
                ex.out_at = ex.cap
                ex.t_sent = ph_now()
                if r > 0:
                    return r
                if ex.stage == XS_HEAD:
                    ex.phase = PH_SEND
                return st if r == ST_AGAIN or r == ST_EOF else r
            if r != ST_AGAIN:
                return self.ended(r)
            st = self.wait_to_send(ex, WAIT_READ | WAIT_WRITE if room > 0 else WAIT_WRITE)
            if st < 0:
                return st
        ex.phase = PH_HEADERS if ex.stage == XS_HEAD else PH_BODY
        if ex.bulk and room >= BULK and not ex.silent_since:
            r = self.stream.recv_batch(dst, room)
            if r != ST_AGAIN:
                return self.ended(r)
        while True:
            until = ex.deadline
            ex.limit = LIM_TOTAL
            if ex.limits.read >= 0:
                # Silence is counted on where a signal broke the wait, and anew where a part of a TLS record came.
                since = ex.silent_since if ex.silent_since else ex.t_sent if just_sent else ph_now()
                just_sent = False
                if self.stream.heard > since:
                    since = self.stream.heard
                if until < 0 or since + ex.limits.read < until:
                    until = since + ex.limits.read
                    ex.limit = LIM_READ
            if ex.stage == XS_HEAD and ex.limits.header >= 0 and (until < 0 or ex.t_sent + ex.limits.header < until):
                until = ex.t_sent + ex.limits.header
                ex.limit = LIM_HEADER
            r = self.stream.recv_into(dst, room, until, ex.wake)
            if r != ST_TIMEOUT or ex.limit != LIM_READ or self.stream.heard <= since:
                break
        ex.silent_since = since if r == ST_INTR or r == ST_WOKEN else 0
        return self.ended(r)

    cdef bint too_late(self, Exchange ex) noexcept nogil:
        # Where bytes always flow no wait ever ends by the deadline: it is looked at before each receive and each piece sent.
        if ex.deadline <= WHAT_IS_THERE or ph_now() < ex.deadline:
            return False
        ex.phase = PH_SEND if ex.sending else PH_HEADERS if ex.stage == XS_HEAD else PH_BODY
        ex.limit = LIM_TOTAL
        return True

    cdef bint deaf(self, Exchange ex) noexcept nogil:
        # Where bytes always flow no wait is ever broken by a signal either.
        cdef int64_t now
        if ex.deadline == WHAT_IS_THERE or not on_main():
            return False
        now = ph_now()
        if now - ex.asked < LOOK:
            return False
        ex.asked = now
        return True

    # --- the head ------------------------------------------------------------------------------------------------------

    cdef int exchange(self, Exchange ex) noexcept nogil:
        cdef ssize_t r
        cdef int st
        cdef size_t end, cap
        cdef char* grown
        while ex.stage == XS_HEAD:
            if ex.framing == FR_FALLBACK:
                return ST_UNSURE
            if ex.hi > ex.lo:
                st = parse_head(ex.buf + ex.lo, ex.hi - ex.lo, ex.max_head, &ex.facts)
                if st == ST_OK:
                    if ex.facts.status < 200:
                        ex.lo += ex.facts.size
                        ex.facts.scanned = 0
                        ex.interim += 1
                        if ex.expecting:
                            self.go_on(ex)
                        if ex.interim > MAX_INTERIM or ex.lo > ex.max_head:
                            ex.err = BR_INTERIM_FLOOD
                            return ST_PROTO
                        if ex.telling & TELL_INTERIM:
                            ex.head_at = ex.lo - ex.facts.size
                            ex.telling |= TELL_SEEN
                            return ST_TELL
                        continue
                    st = self.head_done(ex)
                    if st != ST_OK:
                        return st
                    break
                if st != ST_MORE:
                    return st
            end = ex.out_at if ex.sending else ex.cap
            if ex.hi == end:
                # A head larger than the buffer; parse_head bounds it.
                if ex.sending:
                    return ST_UNSURE
                cap = ex.cap * 2
                grown = <char*>malloc(cap)
                if grown == NULL:
                    return ST_NOMEM
                memcpy(grown, ex.buf, ex.hi)
                ex.drop_buffer()
                ex.buf = grown
                ex.own_buf = True
                ex.cap = ex.out_at = cap
                end = cap
            r = self.fill(ex, ex.buf + ex.hi, end - ex.hi)
            if r < 0:
                if r == ST_EOF and ex.hi > ex.lo:
                    ex.err = BR_HEAD_CUT
                    return ST_PROTO
                return <int>r
            if not ex.any_received:
                ex.any_received = True
                ex.t_first = ph_now()
                if ex.telling & TELL_FIRST:
                    ex.hi += r
                    return ST_TELL
            ex.hi += r
        # A stream of nothing holds no connection.
        if ex.stage == XS_BODY and (not ex.flags & FLAG_STREAM or (not ex.sending and (
                ex.framing == FR_NONE or (ex.framing == FR_LENGTH and ex.left == 0)))):
            return self.small_body(ex)
        return ST_OK

    cdef int head_done(self, Exchange ex) noexcept nogil:
        # RFC 9112 section 6.3: how long the body is.
        cdef int status = ex.facts.status
        ex.t_head = ph_now()
        ex.head_at = ex.lo
        ex.lo += ex.facts.size
        ex.stage = XS_BODY
        see_coding(ex)
        if ex.no_body_method or status == 204 or status == 304:
            ex.framing = FR_NONE
        elif ex.facts.chunked:
            ex.framing = FR_CHUNKED
            chunked_init(&ex.chunks)
        elif ex.facts.content_length >= 0:
            ex.framing = FR_LENGTH
            ex.left = <uint64_t>ex.facts.content_length
        else:
            ex.framing = FR_CLOSE
        ex.body_off = ex.lo
        if ex.sending and (status >= 400 or ex.facts.conn_close or (ex.facts.minor == 0 and not ex.facts.conn_keep_alive) or ex.expecting):
            # The server will not want the rest.
            ex.sending = False
            ex.send_broke = True
            ex.has_pieces = False
            ex.t_sent = ex.t_head
        if ex.framing == FR_LENGTH and ex.max_body >= 0 and ex.facts.content_length > ex.max_body and not provisional(ex):
            return ST_TOO_LARGE
        if ex.framing == FR_NONE or (ex.framing == FR_LENGTH and ex.left == 0):
            ex.framing = FR_NONE
            if not ex.sending:
                ex.stage = XS_DONE
                ex.t_done = ex.t_head
        return ST_REFUSED if ex.flags & FLAG_EXPECT and status == 417 else ST_OK

    # --- the body ------------------------------------------------------------------------------------------------------

    cdef int small_body(self, Exchange ex) noexcept nogil:
        # Whole into the buffer, where it fits; else ST_OK with the stage left at XS_BODY.
        cdef size_t end, consumed, produced
        cdef ssize_t r
        cdef int st
        if ex.sending and provisional(ex):
            return ST_OK                    # whether the rest of the request is sent is not said yet
        while True:
            end = ex.out_at if ex.sending else ex.cap
            if ex.framing == FR_NONE:
                return self.end_of_body(ex)
            if ex.framing == FR_LENGTH:
                if ex.left > end - ex.lo:
                    return ST_OK
                if ex.hi - ex.lo >= ex.left:
                    ex.body_len = ex.left
                    ex.lo += ex.left
                    ex.left = 0
                    return self.end_of_body(ex)
            elif ex.framing == FR_CHUNKED:
                consumed = produced = 0
                st = chunked_feed(&ex.chunks, ex.buf + ex.lo, ex.hi - ex.lo, &consumed, ex.buf + ex.body_off + ex.body_len,
                                  ex.hi - ex.body_off - ex.body_len, &produced)
                ex.lo += consumed
                ex.body_len += produced
                if ex.max_body >= 0 and <int64_t>ex.body_len > ex.max_body and not provisional(ex):
                    return ST_TOO_LARGE
                if st == ST_OK:
                    return self.end_of_body(ex)
                if st != ST_MORE:
                    return st
                if end - ex.hi < SLACK:
                    memmove(ex.buf + ex.body_off + ex.body_len, ex.buf + ex.lo, ex.hi - ex.lo)
                    ex.hi = ex.body_off + ex.body_len + (ex.hi - ex.lo)
                    ex.lo = ex.body_off + ex.body_len
            else:
                ex.body_len = ex.hi - ex.body_off
                ex.lo = ex.hi
                if ex.max_body >= 0 and <int64_t>ex.body_len > ex.max_body and not provisional(ex):
                    return ST_TOO_LARGE
            if end - ex.hi < (1 if ex.framing == FR_LENGTH else SLACK) or provisional(ex):
                return ST_OK
            r = self.fill(ex, ex.buf + ex.hi, end - ex.hi)
            if r == ST_EOF:
                if ex.framing == FR_CLOSE:
                    return self.end_of_body(ex)
                ex.err = BR_LENGTH_CUT if ex.framing == FR_LENGTH else BR_CHUNKED_CUT
                return ST_PROTO
            if r < 0:
                return <int>r
            ex.hi += r

    cdef int end_of_body(self, Exchange ex) noexcept nogil:
        cdef int st
        ex.framing = FR_NONE if ex.framing != FR_CLOSE else FR_CLOSE
        if ex.sending:
            st = self.finish_sending(ex)
            if st != ST_OK:
                return st
        ex.stage = XS_DONE
        ex.t_done = ph_now()
        return ST_OK

    cdef int finish_sending(self, Exchange ex) noexcept nogil:
        # The answer is complete; the request goes on to its end (RFC 9112 section 9.5 lets neither side cut the other short).
        cdef int st
        cdef char spill
        if self.too_late(ex):
            return ST_TIMEOUT
        while ex.sending:
            st = self.push(ex)
            if st == ST_OK:
                if ex.has_pieces:
                    return ST_NEED_GIL
                ex.sending = False
                ex.t_sent = ph_now()
            elif st == ST_FILE:
                return ST_NEED_GIL
            elif st != ST_AGAIN or self.stream.try_recv(&spill, 1) != ST_AGAIN:
                # The server hung up, or says more than its answer: the answer stands, the connection does not.
                ex.sending = False
                ex.send_broke = True
                ex.has_pieces = False
            else:
                st = self.wait_to_send(ex, WAIT_READ | WAIT_WRITE)
                if st < 0:
                    return st
        return ST_OK

    cdef ssize_t read_body(self, Exchange ex, char* dst, size_t n) noexcept nogil:
        cdef size_t take
        cdef ssize_t r
        cdef int st
        if ex.stage == XS_DONE:
            return ST_EOF
        if ex.body_len > 0:
            take = n if n < ex.body_len else ex.body_len
            memcpy(dst, ex.buf + ex.body_off, take)
            ex.body_off += take
            ex.body_len -= take
            return take
        if ex.framing == FR_CHUNKED:
            return self.read_chunked(ex, dst, n)
        if ex.framing == FR_LENGTH and ex.left > 0:
            if n > ex.left:
                n = ex.left
        elif ex.framing != FR_CLOSE:
            st = self.end_of_body(ex)
            return ST_EOF if st == ST_OK else st
        if ex.hi > ex.lo:
            take = ex.hi - ex.lo
            if take > n:
                take = n
            memcpy(dst, ex.buf + ex.lo, take)
            ex.lo += take
            r = take
        else:
            r = self.fill(ex, dst, n)
            if r == ST_EOF:
                if ex.framing == FR_LENGTH:
                    ex.err = BR_LENGTH_CUT
                    return ST_PROTO
                st = self.end_of_body(ex)
                return ST_EOF if st == ST_OK else st
        if r > 0 and ex.framing == FR_LENGTH:
            ex.left -= r
        return r

    cdef ssize_t read_chunked(self, Exchange ex, char* dst, size_t n) noexcept nogil:
        cdef size_t consumed, produced, end
        cdef ssize_t r
        cdef int st
        while True:
            consumed = produced = 0
            st = chunked_feed(&ex.chunks, ex.buf + ex.lo, ex.hi - ex.lo, &consumed, dst, n, &produced)
            ex.lo += consumed
            if st == ST_OK:
                ex.framing = FR_NONE
            if produced > 0:
                return produced
            if st == ST_OK:
                st = self.end_of_body(ex)
                return ST_EOF if st == ST_OK else st
            if st != ST_MORE:
                return st
            memmove(ex.buf, ex.buf + ex.lo, ex.hi - ex.lo)
            ex.hi -= ex.lo
            ex.lo = 0
            ex.body_off = 0
            end = ex.out_at if ex.sending else ex.cap
            r = self.fill(ex, ex.buf + ex.hi, end - ex.hi)
            if r == ST_EOF:
                ex.err = BR_CHUNKED_CUT
                return ST_PROTO
            if r < 0:
                return r
            ex.hi += r

    # --- afterwards ----------------------------------------------------------------------------------------------------

    cdef int verdict(self, Exchange ex, int64_t* idle_limit) noexcept nogil:
        cdef int64_t seconds = ex.facts.keep_alive_timeout
        # A second before the server's own limit, so that a request is not already on its way when the server closes.
        if seconds < 0:
            idle_limit[0] = -1
        elif seconds > 1:
            idle_limit[0] = (seconds - 1 if seconds < 1000000 else 1000000) * 1000000000
        else:
            idle_limit[0] = 500000000
        return reuse_verdict(ex.stage == XS_DONE, ex.send_broke, ex.hi > ex.lo, (ex.flags & (FLAG_CLOSE | FLAG_SAID_CLOSE)) != 0, ex.facts.minor,
                             ex.facts.conn_close != 0, ex.facts.conn_keep_alive != 0, ex.framing == FR_CLOSE, seconds)


def verdict_of(*, bint done=True, bint send_broke=False, bint leftover=False, bint asked_close=False, int minor=1, bint conn_close=False,
               bint conn_keep_alive=False, bint until_close=False, int64_t keep_alive_timeout=-1) -> int:
    """The reuse verdict as a function of its facts: -1 to reuse, or an index into CLOSE_REASONS (for the table test)."""
    return reuse_verdict(done, send_broke, leftover, asked_close, minor, conn_close, conn_keep_alive, until_close, keep_alive_timeout)


def gil_releases() -> int:
    return ph_gil_releases()
