"""HTTP/2 over a stream (RFC 9113): many exchanges at once, each on its own thread, and no thread beside them.

The role: one atomic word says whether somebody leads. Who leads does all input and output for everybody, until its own answer is there; then it hands
the role on to the newest who waits. What others want of the leader they put into a box without a lock, and write to it where it sleeps.
"""
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from pooledhttp._conn.connection cimport (
    BR_INTERIM_FLOOD, FLAG_EXPECT, FLAG_STREAM, FR_CHUNKED, FR_LENGTH, FR_NONE, TELL_FIRST, TELL_INTERIM, TELL_SEEN, TELL_SENT, XS_BODY, XS_DONE,
    XS_HEAD, provisional, see_coding,
)
from pooledhttp._core.compat cimport (
    EINTR, POLLERR, POLLHUP, POLLIN, POLLOUT, c_close, c_shutdown, errno, ph_add_int, ph_and_int, ph_cas_int, ph_cas_ptr, ph_doze, ph_gil_releases,
    ph_load_int, ph_load_ptr, ph_now, ph_or_int, ph_poll, ph_rouse, ph_store_int, ph_swap_int, ph_swap_ptr, ph_wake_drain, ph_wake_open, ph_wake_write,
    pollfd, pthread_mutex_lock, pthread_mutex_unlock,
)
from pooledhttp._core.runtime cimport BUFFER_SIZE, LOOK, SLICE, buffer_give, buffer_take, Wake, on_main, unsettled, wake_drop, wake_hold, wake_signal
from pooledhttp._core.status cimport (
    LIM_HEADER, LIM_READ, LIM_TOTAL, LIM_WRITE, PH_BODY, PH_HEADERS, PH_SEND, RE_ERROR, RE_FORKED, RE_NOT_REUSABLE, RE_REUSE, RE_SERVER_CLOSED, ST_AGAIN,
    ST_BROKE, ST_EOF, ST_INTR, ST_IO, ST_MORE, ST_NEED_GIL, ST_NOMEM, ST_OK, ST_PROTO, ST_REFUSED, ST_TELL, ST_TIMEOUT, ST_TOO_LARGE, ST_UNDONE,
    ST_WOKEN,
)
from pooledhttp._net.stream cimport Stream
from pooledhttp._pool.core cimport pool_capacity
from pooledhttp._proto.h2 cimport (
    BR_H2_CONNECTION, BR_H2_CUT, BR_H2_MESSAGE, BR_H2_PING, NEWS, OP_CANCEL, OP_REFUND, OP_RESUME, OP_SUBMIT, PROMOTED, STREAM_WINDOW,
    Block, Part, h2_cancel, h2_close, h2_drop, h2_fail, h2_feed, h2_frames, h2_hold, h2_open, h2_owes, h2_ping, h2_refund, h2_request, h2_resume,
    h2_ring, h2_stream, h2_submit, text_add,
)
from pooledhttp._proto.head cimport parse_head

cdef extern from "Python.h" nogil:
    char* PyBytes_AS_STRING(object)
    Py_ssize_t PyBytes_GET_SIZE(object)

cdef enum:
    GATHER = 15360           # bytes of frames sent together, about
    TURN = 1048576           # bytes sent before the other direction is looked at
    MAX_INTERIM = 32
    LEAD = 1                 # of `park`: the role is this thread's
    BREAK = -1000            # of `receive`: see `dead`


cdef void _free(void* s) noexcept nogil:
    h2_drop(<H2Stream*>s)


cdef class H2Connection(Connection):
    """An HTTP/2 connection over `stream`, which it owns. `info` as for HTTP/1; `secure` says the requests' scheme; the rest is in bytes and ns."""

    def __cinit__(self, Stream stream, object info, bint secure, size_t max_head, int64_t ping_interval, int64_t ping_timeout):
        self.rd = self.wr = -1
        memset(&self.h, 0, sizeof(self.h))
        self.stream = stream
        self.info = info
        self.secure = secure
        self.ping_interval = ping_interval
        self.ping_timeout = ping_timeout
        if h2_open(&self.h, max_head) < 0:
            raise MemoryError()
        if ph_wake_open(&self.rd, &self.wr) < 0:
            raise OSError(errno, "no descriptor for an HTTP/2 connection")
        self.slot.shares = 1                 # among how many the server's SETTINGS say
        self.last_read = ph_now()

    def __dealloc__(self):
        if not self.dead:
            self.dead = ST_EOF
        self.drain()
        h2_fail(&self.h, ST_EOF, 0)
        h2_close(&self.h)
        if self.out != NULL:
            buffer_give(self.out)
        if self.rd >= 0:
            c_close(self.rd)
            if self.wr != self.rd:
                c_close(self.wr)

    # --- Poolable ------------------------------------------------------------------------------------------------------

    cdef int fileno(self) noexcept nogil:
        return self.stream.fd

    cdef bint shared(self) noexcept nogil:
        return True

    cdef int probe(self) noexcept nogil:
        return self.look_in()

    cdef int on_readable(self) noexcept nogil:
        return self.look_in()

    cdef int look_in(self) noexcept nogil:
        # PING, SETTINGS and GOAWAY of an idle connection; where somebody leads they are seen anyway.
        cdef int64_t now
        if not self.dead and not self.h.goaway and ph_cas_int(&self.role, 0, 1):
            self.drain()
            if self.receive() == ST_OK:
                now = ph_now()
                if self.ping_interval > 0 and now - self.last_read >= self.ping_interval and not self.h.pinged:
                    h2_ping(&self.h)
                    self.ping_sent = now
                self.send_out()
            self.hand_on()
        return ST_EOF if self.dead or self.h.goaway else ST_OK

    cdef void interrupt(self) noexcept nogil:
        ph_store_int(&self.broken, 1)
        if self.stream.fd >= 0 and not unsettled():
            c_shutdown(self.stream.fd, 2)
        ph_wake_write(self.wr)

    cdef void close(self, int reason) noexcept nogil:
        # Nobody uses it any more; after a fork, nobody who is here.
        if not self.dead:
            self.dead = ST_EOF
        self.stream.close(reason != RE_FORKED and reason != RE_ERROR)

    # --- asking who leads ------------------------------------------------------------------------------------------------

    cdef void push(self, H2Stream* s, int op) noexcept nogil:
        cdef void* head
        ph_or_int(&s.ops, op)
        if ph_swap_int(&s.in_box, 1) == 0:
            h2_hold(s)
            while True:
                head = ph_load_ptr(&self.box)
                s.box_next = <H2Stream*>head
                if ph_cas_ptr(&self.box, head, <void*>s):
                    break
        self.kick()

    cdef void kick(self) noexcept nogil:
        if ph_load_int(&self.sleeping) and ph_swap_int(&self.sleeping, 0):
            ph_wake_write(self.wr)

    cdef void turn(self) noexcept nogil:
        # Have what was pushed done, now, where nobody leads.
        if ph_cas_int(&self.role, 0, 1):
            self.drain()
            if not self.dead:
                self.send_out()
            self.hand_on()

    # --- who leads -------------------------------------------------------------------------------------------------------

    cdef void drain(self) noexcept nogil:
        cdef H2Stream* s
        cdef H2Stream* after
        cdef H2Stream* first = NULL
        cdef int ops
        if ph_load_ptr(&self.box) == NULL:
            return
        s = <H2Stream*>ph_swap_ptr(&self.box, NULL)
        while s != NULL:                     # the last came first
            after = s.box_next
            s.box_next = first
            first = s
            s = after
        while first != NULL:
            s = first
            first = s.box_next
            ph_swap_int(&s.in_box, 0)
            ops = ph_swap_int(&s.ops, 0)
            if ops & OP_SUBMIT:
                self.h.now = ph_now()
                if self.dead or h2_submit(&self.h, s) < 0:
                    pthread_mutex_lock(&s.m)
                    s.fail = ST_UNDONE
                    s.closed = 1
                    pthread_mutex_unlock(&s.m)
                    h2_ring(s)
            if not self.dead:
                if ops & OP_RESUME:
                    h2_resume(&self.h, s)
                if ops & OP_REFUND:
                    h2_refund(&self.h, s)
                if ops & OP_CANCEL:
                    h2_cancel(&self.h, s)
            h2_drop(s)

    cdef void die(self, int status, int err) noexcept nogil:
        if not self.dead:
            self.dead_err = err
            self.dead = status
        h2_fail(&self.h, self.dead, self.dead_err)

    cdef int send_out(self) noexcept nogil:
        # ST_OK: all is on its way; ST_AGAIN: the kernel takes no more now; ST_MORE: enough for once; BREAK.
        cdef const uint8_t* p = NULL
        cdef ssize_t n, r
        cdef size_t sent = 0
        self.stuck = False
        self.h.now = ph_now()
        while True:
            while self.out_at < self.out_n:
                r = self.stream.try_send(self.out + self.out_at, self.out_n - self.out_at)
                if r == ST_AGAIN:
                    self.stuck = True
                    return ST_AGAIN
                if r < 0:
                    # What the server said before it hung up still counts.
                    self.receive()
                    self.die(<int>r, 0)
                    return BREAK
                self.out_at += r
                sent += r
            self.out_at = self.out_n = 0
            if sent >= TURN:
                return ST_MORE
            while self.out_n < GATHER:
                n = h2_frames(&self.h, &p)
                if n == 0:
                    break
                if n < 0:                    # all streams are done after a GOAWAY, or we said one
                    self.die(ST_EOF if self.h.gone else ST_BROKE, BR_H2_CONNECTION)
                    return BREAK
                if self.out == NULL:
                    self.out = buffer_take()
                    if self.out == NULL:
                        self.die(ST_NOMEM, 0)
                        return BREAK
                if <size_t>n > BUFFER_SIZE - self.out_n:
                    self.die(ST_BROKE, BR_H2_CONNECTION)
                    return BREAK
                memcpy(self.out + self.out_n, p, n)
                self.out_n += n
            if self.out_n == 0:
                break
        if self.out != NULL:
            buffer_give(self.out)
            self.out = NULL
        r = self.stream.try_flush()
        if r == ST_AGAIN:
            self.stuck = True
        elif r < 0:
            self.die(<int>r, 0)
            return BREAK
        return <int>r

    cdef int receive(self) noexcept nogil:
        # What is there: ST_OK, or BREAK.
        cdef ssize_t r
        cdef size_t got = 0
        if self.dead:
            return BREAK
        if self.inbuf == NULL:
            self.inbuf = buffer_take()
            if self.inbuf == NULL:
                self.die(ST_NOMEM, 0)
                return BREAK
        while True:
            r = self.stream.try_recv(self.inbuf, BUFFER_SIZE)
            if r == ST_AGAIN:
                return ST_OK
            if r < 0:
                self.die(<int>r, 0)
                return BREAK
            if h2_feed(&self.h, self.inbuf, r) < 0:
                self.die(ST_BROKE, BR_H2_CONNECTION)
                return BREAK
            self.last_read = self.h.now
            if self.h.room != self.room and self.h.settled:
                self.room = self.h.room
                pool_capacity(&self.slot, self.room)
            got += r
            if got >= 262144 or (r < 16384 and not self.stream.ready):
                return ST_OK

    cdef int64_t next_ping(self) noexcept nogil:
        if self.ping_interval <= 0:
            return -1
        if self.h.pinged and self.last_read < self.ping_sent:
            return self.ping_sent + self.ping_timeout
        return self.last_read + self.ping_interval

    cdef void check_ping(self, int64_t now) noexcept nogil:
        if self.ping_interval <= 0 or now < self.next_ping():
            return
        if self.h.pinged and self.last_read < self.ping_sent:
            self.die(ST_BROKE, BR_H2_PING)
        elif h2_ping(&self.h) == 0:
            self.ping_sent = now

    cdef int lead(self, Exchange ex, H2Stream* s, int64_t until) noexcept nogil:
        # Until the bell of `s` rings: ST_OK; else ST_TIMEOUT, ST_INTR, ST_WOKEN.
        cdef pollfd fds[3]
        cdef int n, r, st
        cdef int64_t now, end, ping
        cdef bint main = on_main()
        cdef int64_t began = ph_now()
        while True:
            self.drain()
            if ph_load_int(&self.broken):
                self.die(ST_EOF, 0)
            if self.dead:
                self.die(self.dead, self.dead_err)
                if ph_load_int(&s.bell) & NEWS:
                    return ST_OK
                # Neither alive nor in the box: it was failed before, and said so.
                ph_or_int(&s.bell, NEWS)
                return ST_OK
            st = self.send_out()
            if st == BREAK:
                continue
            if self.stream.ready and self.receive() != ST_OK:
                continue
            if ph_load_int(&s.bell) & NEWS:
                return ST_OK
            now = ph_now()
            if 0 <= until <= now:
                return ST_TIMEOUT
            if main and now - began >= LOOK:
                return ST_INTR
            self.check_ping(now)
            end = until
            ping = self.next_ping()
            if ping >= 0 and (end < 0 or ping < end):
                end = ping
            if main and (end < 0 or now + SLICE < end):
                end = now + SLICE
            if self.stream.ready or st == ST_MORE or self.dead:
                end = now
            ph_swap_int(&self.sleeping, 1)
            if ph_load_ptr(&self.box) != NULL:
                ph_swap_int(&self.sleeping, 0)
                continue
            fds[0].fd = self.stream.fd
            fds[0].events = POLLIN | POLLOUT if self.stuck else POLLIN
            fds[1].fd = self.rd
            fds[1].events = POLLIN
            fds[0].revents = fds[1].revents = fds[2].revents = 0
            n = 2
            if ex.wake != NULL:
                fds[2].fd = ex.wake.rd
                fds[2].events = POLLIN
                n = 3
            r = ph_poll(fds, n, -1 if end < 0 else end - now if end > now else 0)
            ph_swap_int(&self.sleeping, 0)
            if r < 0:
                if errno == EINTR:
                    return ST_INTR
                self.die(ST_IO, 0)
                continue
            if fds[1].revents:
                ph_wake_drain(self.rd)
            if fds[0].revents & (POLLIN | POLLERR | POLLHUP):
                if self.receive() != ST_OK:
                    continue
            if n == 3 and fds[2].revents and not ph_load_int(&s.bell) & NEWS:
                return ST_WOKEN

    cdef void hand_on(self) noexcept nogil:
        cdef H2Stream* s
        cdef Wake* wake
        cdef int parks
        cdef bint owes = True
        while True:
            if self.inbuf != NULL:
                buffer_give(self.inbuf)
                self.inbuf = NULL
            parks = ph_load_int(&self.parks)
            if ph_load_ptr(&self.box) != NULL:
                self.drain()
                if not self.dead:
                    self.send_out()
                continue
            s = self.h.live
            while s != NULL:
                if not ph_load_int(&s.bell) & NEWS and ph_cas_int(&s.waits, 1, 2):
                    # Held: once it knows, its owner may end it.
                    h2_hold(s)
                    pthread_mutex_lock(&s.m)
                    wake = s.wake
                    if wake != NULL:
                        wake_hold(wake)
                    pthread_mutex_unlock(&s.m)
                    ph_or_int(&s.bell, PROMOTED)
                    if wake != NULL:
                        wake_signal(wake)
                        wake_drop(wake)
                    else:
                        ph_rouse(&s.bell)
                    h2_drop(s)
                    return
                s = s.next
            if not self.dead:
                # Nobody comes after us for now: what the peer is owed goes out, and nothing waits where no poll sees it.
                if self.stream.ready:
                    self.receive()
                    continue
                if owes and h2_owes(&self.h) and not self.stuck:
                    owes = False
                    self.send_out()
                    continue
            ph_swap_int(&self.role, 0)
            # Who came in between has found the role taken.
            if ph_load_int(&self.parks) == parks and ph_load_ptr(&self.box) == NULL:
                return
            if not ph_cas_int(&self.role, 0, 1):
                return

    # --- who waits -------------------------------------------------------------------------------------------------------

    cdef int park(self, Exchange ex, H2Stream* s, int64_t until) noexcept nogil:
        # LEAD: the role is ours. Else ST_OK (news), ST_TIMEOUT, ST_INTR, ST_WOKEN.
        cdef pollfd fd
        cdef int r, st = ST_OK
        cdef int64_t now, end
        cdef bint main = on_main()
        pthread_mutex_lock(&s.m)
        s.wake = ex.wake
        pthread_mutex_unlock(&s.m)
        ph_swap_int(&s.waits, 1)
        ph_add_int(&self.parks, 1)
        if ph_cas_int(&self.role, 0, 1):
            ph_swap_int(&s.waits, 0)
            return LEAD
        while not ph_load_int(&s.bell):
            now = ph_now()
            if 0 <= until <= now:
                st = ST_TIMEOUT
                break
            end = until
            if main and (end < 0 or now + SLICE < end):
                end = now + SLICE
            if ex.wake == NULL:
                r = ph_doze(&s.bell, -1 if end < 0 else end - now)
            else:
                fd.fd = ex.wake.rd
                fd.events = POLLIN
                fd.revents = 0
                r = ph_poll(&fd, 1, -1 if end < 0 else end - now)
                if r > 0 and not ph_load_int(&s.bell):
                    st = ST_WOKEN
                    break
            if (r < 0 and errno == EINTR) or (main and end != until and not ph_load_int(&s.bell)):
                st = ST_INTR
                break
        pthread_mutex_lock(&s.m)
        s.wake = NULL
        pthread_mutex_unlock(&s.m)
        if not ph_cas_int(&s.waits, 1, 0):
            ph_swap_int(&s.waits, 0)
            ph_and_int(&s.bell, ~PROMOTED)
            if st == ST_OK:
                return LEAD
            self.hand_on()
        return st

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
        if s == NULL or s.detached:
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

    cdef int health(self, int reason) noexcept nogil:
        if self.dead:
            return RE_SERVER_CLOSED if self.dead == ST_EOF else reason if reason != RE_REUSE else RE_ERROR
        if self.h.no_h2:
            return RE_NOT_REUSABLE
        return RE_SERVER_CLOSED if self.h.goaway else RE_REUSE

    cdef int part(self, Exchange ex, int reason) noexcept nogil:
        self.let_go(ex)
        return reason if reason == RE_FORKED else self.health(reason)

    cdef bint disturb(self, Exchange ex):
        cdef H2Stream* s = <H2Stream*>ex.h2
        if s == NULL:
            return True
        h2_hold(s)                           # the reader may be done with it at any time
        with nogil:
            pthread_mutex_lock(&s.m)
            if not s.fail:
                s.fail = ST_EOF
            pthread_mutex_unlock(&s.m)
            h2_ring(s)
            self.kick()
            h2_drop(s)
        return True

    cdef int verdict(self, Exchange ex, int64_t* idle_limit) noexcept nogil:
        idle_limit[0] = -1
        self.let_go(ex)
        return self.health(RE_REUSE)


def gil_releases() -> int:
    return ph_gil_releases()
