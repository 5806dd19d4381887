"""HTTP/2 over a stream (RFC 9113): many exchanges at once, each on its own thread, which leads (see `h2role`) or sleeps until there is news of its stream."""
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from pooledhttp._conn.connection cimport (
    BR_INTERIM_FLOOD, FLAG_EXPECT, FLAG_STREAM, FR_CHUNKED, FR_LENGTH, FR_NONE, TELL_FIRST, TELL_INTERIM, TELL_SEEN, TELL_SENT, XS_BODY, XS_DONE,
    XS_HEAD, late, provisional, see_coding,
)
from pooledhttp._conn.h2role cimport LEAD, H2Role
from pooledhttp._core.compat cimport (
    ph_add_int, ph_and_int, ph_cas_int, ph_gil_releases, ph_load_int, ph_now, ph_or_int, ph_store_int, pthread_mutex_lock, pthread_mutex_unlock,
)
from pooledhttp._core.runtime cimport BUFFER_SIZE, buffer_take
from pooledhttp._core.status cimport (
    LIM_HEADER, LIM_READ, LIM_TOTAL, LIM_WRITE, PH_BODY, PH_HEADERS, PH_SEND, RE_FORKED, RE_REUSE, ST_EOF, ST_IO, ST_NEED_GIL, ST_NOMEM, ST_OK,
    ST_PROTO, ST_REFUSED, ST_TELL, ST_TIMEOUT, ST_TOO_LARGE,
)
from pooledhttp._proto.h2 cimport (
    BR_H2_CUT, BR_H2_MESSAGE, NEWS, OP_CANCEL, OP_REFUND, OP_RESUME, OP_SUBMIT, STREAM_WINDOW, Block, Part, h2_drop, h2_hold, h2_request, h2_ring,
    h2_stream, text_add,
)
from pooledhttp._proto.head cimport parse_head

cdef extern from "Python.h" nogil:
    char* PyBytes_AS_STRING(object)
    Py_ssize_t PyBytes_GET_SIZE(object)

cdef enum:
    MAX_INTERIM = 32


cdef void _free(void* s) noexcept nogil:
    h2_drop(<H2Stream*>s)                # in a child the session keeps its own reference: nothing is freed


cdef class H2Connection(H2Role):
    """An HTTP/2 connection over `stream`, which it owns. `info` as for HTTP/1; `secure` says the requests' scheme; the rest is in bytes and ns."""

    # --- waiting -----------------------------------------------------------------------------------------------------------

    cdef int64_t until(self, Exchange ex, H2Stream* s) noexcept nogil:
        # When to give up, and by which limit.
        cdef int64_t until = ex.deadline, since, sent
        cdef bint sending
        ex.limit = LIM_TOTAL
        ex.phase = PH_HEADERS if ex.stage == XS_HEAD else PH_BODY
        if ex.expecting:
            if until < 0 or ex.expect_until < until:
                until = ex.expect_until
            return until
        pthread_mutex_lock(&s.m)
        sending = ex.sending and s.has_body and not s.sent
        sent = s.t_sent if s.sent else ex.t_begin
        since = ex.silent_since
        if s.heard > since:
            since = s.heard
        if sending:
            ex.phase = PH_SEND
            if s.moved > since:
                since = s.moved
            if ex.limits.write >= 0 and (until < 0 or since + ex.limits.write < until):
                until = since + ex.limits.write
                ex.limit = LIM_WRITE
        else:
            if ex.limits.read >= 0 and (until < 0 or since + ex.limits.read < until):
                until = since + ex.limits.read
                ex.limit = LIM_READ
            if ex.stage == XS_HEAD and ex.limits.header >= 0 and (until < 0 or sent + ex.limits.header < until):
                until = sent + ex.limits.header
                ex.limit = LIM_HEADER
        pthread_mutex_unlock(&s.m)
        return until

    cdef int await_(self, Exchange ex, H2Stream* s) noexcept nogil:
        # Until there is news. ST_OK, ST_TIMEOUT, ST_INTR, ST_WOKEN.
        cdef int st
        cdef int64_t until, now = ph_now()
        if not ex.silent_since:
            ex.silent_since = now
        while True:
            if ph_load_int(&s.bell) & NEWS:
                st = ST_OK
                break
            until = self.until(ex, s)
            if 0 <= until <= now:
                st = ST_TIMEOUT
                break
            st = LEAD if ph_cas_int(&self.role, 0, 1) else self.park(ex, s, until)
            if st == LEAD:
                st = self.lead(ex, s, until)
                self.hand_on()
            if st != ST_TIMEOUT:
                break
            now = ph_now()                   # heard of meanwhile? then it is not over
        if st == ST_OK:
            ex.silent_since = 0
        return st

    # --- an exchange -----------------------------------------------------------------------------------------------------

    cdef int begin(self, Exchange ex) noexcept nogil:
        cdef H2Stream* s
        cdef Part method, target, authority, fields
        ex.reset()
        ex.framed = False
        if ex.own_buf:
            ex.drop_buffer()
        if ex.buf == NULL:
            ex.buf = buffer_take()
            if ex.buf == NULL:
                return ST_NOMEM
            ex.cap = BUFFER_SIZE
        ex.out_at = ex.cap
        s = h2_stream()
        if s == NULL:
            return ST_NOMEM
        ex.h2 = <void*>s
        ex.h2_free = _free
        method.p = PyBytes_AS_STRING(ex.method)
        method.n = PyBytes_GET_SIZE(ex.method)
        target.p = PyBytes_AS_STRING(ex.target)
        target.n = PyBytes_GET_SIZE(ex.target)
        authority.p = PyBytes_AS_STRING(ex.authority)
        authority.n = PyBytes_GET_SIZE(ex.authority)
        fields.p = PyBytes_AS_STRING(ex.fields)
        fields.n = PyBytes_GET_SIZE(ex.fields)
        if h2_request(s, method, target, authority, fields, self.secure) < 0:
            return ST_NOMEM
        if ex.body is not None and PyBytes_GET_SIZE(ex.body) > 0:
            s.has_body = 1
            s.parts[0].p = PyBytes_AS_STRING(ex.body)
            s.parts[0].n = PyBytes_GET_SIZE(ex.body)
            s.n_parts = 1
        elif ex.in_pieces:
            s.has_body = s.more = s.wanted = 1
        ex.sending = True
        ex.t_begin = ex.last_write = ex.asked = ph_now()
        if ex.flags & FLAG_EXPECT:
            ex.expecting = True
            s.held = 1
            ex.expect_until = ex.t_begin + ex.expect
        s.moved = ex.t_begin
        if late(ex):
            return ST_TIMEOUT
        self.push(s, OP_SUBMIT)
        return ST_OK

    cdef void go_on(self, Exchange ex) noexcept nogil:
        cdef H2Stream* s = <H2Stream*>ex.h2
        ex.expecting = False
        pthread_mutex_lock(&s.m)
        s.held = 0
        s.moved = ph_now()
        pthread_mutex_unlock(&s.m)
        self.push(s, OP_RESUME)

    cdef void sync(self, Exchange ex, H2Stream* s) noexcept nogil:
        # Under m.
        if s.begun:
            ex.any_sent = True
        if s.sent and ex.sending:
            ex.sending = False
            ex.t_sent = s.t_sent
        elif s.closed and ex.sending:
            ex.sending = False
            ex.send_broke = True
            ex.has_pieces = False
            ex.t_sent = ph_now()
        if s.head.n > 0 and not ex.any_received:
            ex.any_received = True
            ex.t_first = s.heard

    cdef int failed(self, Exchange ex, H2Stream* s) noexcept nogil:
        # Under m; s.fail is set.
        ex.err = s.err
        ex.phase = PH_SEND if ex.sending else PH_HEADERS if ex.stage == XS_HEAD else PH_BODY
        if s.fail == ST_EOF and ex.stage != XS_HEAD:
            ex.err = BR_H2_CUT
            return ST_PROTO
        return s.fail

    cdef int feed_upload(self, Exchange ex, H2Stream* s) noexcept nogil:
        # ST_NEED_GIL: the next piece is wanted. ST_OK: none is, or it is under way.
        cdef int i, st = ST_OK
        cdef bint resume = False
        pthread_mutex_lock(&s.m)
        if s.file_err:
            self.stream.err = s.file_err - 1
            ex.file_left = s.file_left
            st = ST_NEED_GIL                 # which says what is wrong with the file
        elif s.more and s.wanted and not s.closed and ex.sending:
            if ex.n_spans > 0 or ex.file_left > 0 or not ex.has_pieces:
                for i in range(ex.n_spans):
                    s.parts[i].p = ex.spans[i].p
                    s.parts[i].n = ex.spans[i].n
                s.n_parts = ex.n_spans
                s.at_part = 0
                s.file_fd = ex.file_fd
                s.file_at = ex.file_at
                s.file_left = ex.file_left
                ex.n_spans = 0
                ex.file_left = 0
                s.more = ex.has_pieces
                s.wanted = 0
                s.moved = ph_now()
                if not s.more and ex.tail != NULL:
                    text_add(&s.tail, ex.tail, ex.n_tail)
                resume = True
            elif not s.held:
                st = ST_NEED_GIL
        pthread_mutex_unlock(&s.m)
        if resume:
            self.push(s, OP_RESUME)
        elif st == ST_NEED_GIL:
            self.turn()                      # the head goes out before anybody's iterator is asked
        return st

    cdef int take_heads(self, Exchange ex, H2Stream* s) noexcept nogil:
        # Whole heads that came, into ex.buf.
        cdef size_t n, cap
        cdef char* grown
        n = s.head_ready - ex.h2_seen
        if n == 0:
            return ST_OK
        if ex.hi + n > ex.cap:
            cap = ex.hi + n + BUFFER_SIZE
            grown = <char*>malloc(cap)
            if grown == NULL:
                return ST_NOMEM
            memcpy(grown, ex.buf, ex.hi)
            ex.drop_buffer()
            ex.buf = grown
            ex.own_buf = True
            ex.cap = ex.out_at = cap
        memcpy(ex.buf + ex.hi, s.head.p + ex.h2_seen, n)
        ex.hi += n
        ex.h2_seen = s.head_ready
        return ST_OK

    cdef int exchange(self, Exchange ex) noexcept nogil:
        cdef H2Stream* s = <H2Stream*>ex.h2
        cdef int st, fail
        cdef char* phrase
        if not self.ours():
            return ST_IO
        while ex.stage == XS_HEAD:
            ph_and_int(&s.bell, ~NEWS)
            pthread_mutex_lock(&s.m)
            self.sync(ex, s)
            st = self.take_heads(ex, s)
            fail = self.failed(ex, s) if s.fail else 0
            pthread_mutex_unlock(&s.m)
            if st != ST_OK:
                return st
            if ex.telling & TELL_SENT and not ex.sending or ex.telling & TELL_FIRST and ex.any_received:
                return ST_TELL
            if ex.hi > ex.lo:
                ex.facts.scanned = 0
                if parse_head(ex.buf + ex.lo, ex.hi - ex.lo, ex.max_head + 32, &ex.facts) != ST_OK:
                    return self.spoiled(ex, BR_H2_MESSAGE)
                if ex.facts.status < 200:
                    # The phrase is the status: the parser knows 100 alone.
                    phrase = ex.buf + ex.lo + ex.facts.reason_off
                    ex.facts.status = (phrase[0] - 48) * 100 + (phrase[1] - 48) * 10 + (phrase[2] - 48) if ex.facts.reason_len == 3 else 101
                    if ex.facts.status == 101:
                        return self.spoiled(ex, BR_H2_MESSAGE)
                    ex.lo += ex.facts.size
                    ex.interim += 1
                    if ex.expecting and ex.facts.status == 100:
                        self.go_on(ex)
                    if ex.interim > MAX_INTERIM:
                        return self.spoiled(ex, BR_INTERIM_FLOOD)
                    if ex.telling & TELL_INTERIM:
                        ex.head_at = ex.lo - ex.facts.size
                        ex.telling |= TELL_SEEN
                        return ST_TELL
                    continue
                st = self.head_done(ex, s)
                if st != ST_OK:
                    return st
                break
            if fail:
                return fail
            if not ex.expecting:
                st = self.feed_upload(ex, s)
                if st != ST_OK:
                    return st
            st = self.await_(ex, s)
            if st == ST_TIMEOUT and ex.expecting and ex.limit == LIM_TOTAL and ph_now() >= ex.expect_until and (
                    ex.deadline < 0 or ph_now() < ex.deadline):
                self.go_on(ex)
                continue
            if st != ST_OK:
                return st
        if ex.stage == XS_BODY and (not ex.flags & FLAG_STREAM or (not ex.sending and ex.framing == FR_NONE)):
            return self.small_body(ex, s)
        return ST_OK

    cdef int spoiled(self, Exchange ex, int err) noexcept nogil:
        # Its owner finds that the peer broke the protocol: nothing more of it.
        ex.err = err
        ph_store_int(&self.h.goaway, 1)
        return ST_PROTO

    cdef int head_done(self, Exchange ex, H2Stream* s) noexcept nogil:
        cdef int status = ex.facts.status
        cdef bint ended
        ex.t_head = ph_now()
        ex.head_at = ex.lo
        ex.lo += ex.facts.size
        ex.facts.minor = 2                   # for Reply.version
        ex.facts.conn_close = 0
        ex.facts.keep_alive_timeout = -1
        ex.stage = XS_BODY
        see_coding(ex)
        pthread_mutex_lock(&s.m)
        ended = s.ended and s.first == NULL
        pthread_mutex_unlock(&s.m)
        if ended or ex.no_body_method or status == 204 or status == 304:
            ex.framing = FR_NONE
        elif ex.facts.content_length >= 0:
            ex.framing = FR_LENGTH
            ex.left = ex.facts.content_length
        else:
            ex.framing = FR_CHUNKED
        ex.body_off = ex.lo
        if ex.sending and (status >= 400 or ex.expecting):
            # The server will not want the rest.
            ex.sending = ex.expecting = False
            ex.send_broke = True
            ex.has_pieces = False
            ex.t_sent = ex.t_head
        if ex.framing == FR_LENGTH and ex.max_body >= 0 and ex.facts.content_length > ex.max_body and not provisional(ex):
            return ST_TOO_LARGE
        return ST_REFUSED if ex.flags & FLAG_EXPECT and status == 417 else ST_OK

    cdef int small_body(self, Exchange ex, H2Stream* s) noexcept nogil:
        # Whole into the buffer, where it fits; else ST_OK with the stage left at XS_BODY.
        cdef ssize_t r
        cdef bint all_there
        if ex.sending and provisional(ex):
            return ST_OK
        while True:
            if provisional(ex) and ex.framing != FR_NONE:
                pthread_mutex_lock(&s.m)
                all_there = s.ended
                pthread_mutex_unlock(&s.m)
                if not all_there:
                    return ST_OK
            if ex.framing == FR_LENGTH and ex.left > ex.cap - ex.lo:
                return ST_OK
            if ex.hi == ex.cap and ex.framing != FR_LENGTH:
                return ST_OK
            r = self.pull(ex, s, ex.buf + ex.hi, ex.cap - ex.hi)
            if r == ST_EOF:
                ex.body_len = ex.hi - ex.body_off
                ex.lo = ex.hi
                ex.left = 0
                return self.end_of_body(ex, s)
            if r < 0:
                return <int>r
            ex.hi += r
            if ex.max_body >= 0 and ex.framing != FR_LENGTH and <int64_t>(ex.hi - ex.body_off) > ex.max_body and not provisional(ex):
                return ST_TOO_LARGE

    cdef ssize_t pull(self, Exchange ex, H2Stream* s, char* dst, size_t n) noexcept nogil:
        # Bytes of the body: >= 1, ST_EOF at its end, or a status.
        cdef Block* b
        cdef size_t r, take
        cdef bint refund, ended
        cdef int st, fail
        while True:
            ph_and_int(&s.bell, ~NEWS)
            r = 0
            pthread_mutex_lock(&s.m)
            self.sync(ex, s)
            while r < n and s.first != NULL:
                b = s.first
                take = n - r if n - r < b.n else b.n
                memcpy(dst + r, <char*>b + sizeof(Block) + b.at, take)
                b.at += take
                b.n -= take
                r += take
                if b.n == 0:
                    s.first = b.next
                    if s.first == NULL:
                        s.last = NULL
                    free(b)
            s.took += r
            refund = s.took >= STREAM_WINDOW // 4 and not s.ended
            ended = s.ended and s.first == NULL
            fail = self.failed(ex, s) if s.fail and s.first == NULL else 0
            if r == 0 and not ended and not fail:
                s.want_p = dst
                s.want_n = n
                s.got = 0
                s.bulk = ex.bulk
            pthread_mutex_unlock(&s.m)
            if refund:
                self.push(s, OP_REFUND)
                self.turn()
            if r > 0:
                return r
            if ended:
                return ST_EOF
            if fail:
                return fail
            st = self.feed_upload(ex, s)
            if st == ST_OK:
                st = self.await_(ex, s)
            pthread_mutex_lock(&s.m)
            r = s.got
            s.want_p = NULL
            s.want_n = s.got = 0
            pthread_mutex_unlock(&s.m)
            if r > 0:
                if st == ST_NEED_GIL:
                    ph_or_int(&s.bell, NEWS)
                return r
            if st != ST_OK:
                return st

    cdef int end_of_body(self, Exchange ex, H2Stream* s) noexcept nogil:
        cdef int st
        ex.framing = FR_NONE
        if ex.sending:
            st = self.finish_sending(ex)
            if st != ST_OK:
                return st
        pthread_mutex_lock(&s.m)
        free(ex.tail)
        ex.tail = NULL
        ex.n_tail = s.trailers.n
        if s.trailers.n:
            ex.tail = s.trailers.p
            s.trailers.p = NULL
            s.trailers.n = s.trailers.cap = 0
        pthread_mutex_unlock(&s.m)
        ex.stage = XS_DONE
        ex.t_done = ph_now()
        return ST_OK

    cdef int finish_sending(self, Exchange ex) noexcept nogil:
        cdef H2Stream* s = <H2Stream*>ex.h2
        cdef int st
        if not self.ours():
            return ST_IO
        while True:
            ph_and_int(&s.bell, ~NEWS)
            pthread_mutex_lock(&s.m)
            self.sync(ex, s)
            pthread_mutex_unlock(&s.m)
            if not ex.sending:
                return ST_OK
            st = self.feed_upload(ex, s)
            if st == ST_OK:
                st = self.await_(ex, s)
            if st != ST_OK:
                return st

    cdef ssize_t read_body(self, Exchange ex, char* dst, size_t n) noexcept nogil:
        cdef H2Stream* s = <H2Stream*>ex.h2
        cdef size_t take
        cdef ssize_t r
        cdef int st
        if not self.ours():
            return ST_IO
        if ex.stage == XS_DONE:
            return ST_EOF
        if ex.hi > ex.lo and n > 0:
            take = ex.hi - ex.lo if ex.hi - ex.lo < n else n
            memcpy(dst, ex.buf + ex.lo, take)
            ex.lo += take
            r = take
        else:
            r = self.pull(ex, s, dst, n)
            if r == ST_EOF:
                st = self.end_of_body(ex, s)
                return ST_EOF if st == ST_OK else st
        if r > 0 and ex.framing == FR_LENGTH:
            ex.left -= r if <uint64_t>r < ex.left else ex.left
        return r

    # --- afterwards ------------------------------------------------------------------------------------------------------

    cdef void let_go(self, Exchange ex) noexcept nogil:
        # The owner leaves its stream: whole, or not.
        cdef H2Stream* s = <H2Stream*>ex.h2
        cdef Block* b
        cdef bint whole
        if s == NULL or s.detached or not self.ours():
            return
        pthread_mutex_lock(&s.m)
        s.detached = 1
        s.want_p = NULL
        s.want_n = s.got = 0
        s.n_parts = s.at_part = 0
        s.file_left = 0
        s.wake = NULL
        while s.first != NULL:
            b = s.first
            s.first = b.next
            s.took += b.n
            free(b)
        s.last = NULL
        whole = s.closed or (s.ended and s.sent)
        pthread_mutex_unlock(&s.m)
        if not whole and not self.dead:
            self.push(s, OP_CANCEL)
            self.turn()

    cdef int part(self, Exchange ex, int reason) noexcept nogil:
        self.let_go(ex)
        return reason if reason == RE_FORKED else self.health(reason)

    cdef bint disturb(self, Exchange ex):
        cdef H2Stream* s = <H2Stream*>ex.h2
        if s == NULL or not self.ours():
            return True
        h2_hold(s)                           # the reader may be done with it at any time, and its connection closed
        ph_add_int(&self.guests, 1)
        with nogil:
            pthread_mutex_lock(&s.m)
            if not s.fail:
                s.fail = ST_EOF
            pthread_mutex_unlock(&s.m)
            h2_ring(s)
            self.kick()
            h2_drop(s)
            ph_add_int(&self.guests, -1)
        return True

    cdef int verdict(self, Exchange ex, int64_t* idle_limit) noexcept nogil:
        idle_limit[0] = -1
        self.let_go(ex)
        return self.health(RE_REUSE)


def gil_releases() -> int:
    return ph_gil_releases()
