"""Who leads a connection that requests share: input and output for everybody, and no thread beside theirs.

The role: one atomic word says whether somebody leads. Who leads does all input and output for everybody, until its own answer is there; then it hands
the role on to the newest who waits. What others want of the leader they put into a box without a lock, and write to it where it sleeps.
"""
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy, memset
from pooledhttp._core.compat cimport (
    EINTR, POLLERR, POLLHUP, POLLIN, POLLOUT, c_close, c_shutdown, errno, ph_add_int, ph_and_int, ph_cas_int, ph_cas_ptr, ph_doze, ph_gil_releases,
    ph_load_int, ph_load_ptr, ph_now, ph_or_int, ph_poll, ph_rouse, ph_store_int, ph_swap_int, ph_swap_ptr, ph_wake_drain, ph_wake_open,
    ph_wake_write, pollfd, pthread_mutex_lock, pthread_mutex_unlock,
)
from pooledhttp._core.runtime cimport BUFFER_SIZE, LOOK, SLICE, buffer_give, buffer_take, Wake, on_main, unsettled, wake_drop, wake_hold, wake_signal
from pooledhttp._core.status cimport (
    RE_ERROR, RE_FORKED, RE_NOT_REUSABLE, RE_REUSE, RE_SERVER_CLOSED, ST_AGAIN, ST_BROKE, ST_EOF, ST_INTR, ST_IO, ST_MORE, ST_NOMEM, ST_OK,
    ST_TIMEOUT, ST_UNDONE, ST_WOKEN,
)
from pooledhttp._net.stream cimport Stream
from pooledhttp._pool.core cimport pool_capacity
from pooledhttp._proto.h2 cimport (
    BR_H2_CONNECTION, BR_H2_PING, NEWS, OP_CANCEL, OP_REFUND, OP_RESUME, OP_SUBMIT, PROMOTED, h2_cancel, h2_close, h2_drop, h2_fail, h2_feed,
    h2_frames, h2_goodbye, h2_hold, h2_open, h2_owes, h2_ping, h2_refund, h2_resume, h2_ring, h2_submit,
)

cdef extern from "sched.h" nogil:
    int sched_yield()

cdef enum:
    GATHER = 15360           # bytes of frames sent together, about
    TURN = 1048576           # bytes sent before the other direction is looked at
    BREAK = -1000            # see `dead`


cdef class H2Role(Connection):
    """The connection below its exchanges: `stream`, which it owns, the session, and the role."""

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
        if self.ours():                      # else its streams stay as they are, and so does what it has of them
            self.hang_up()

    cdef void hang_up(self) noexcept nogil:
        # Nothing of it is left but what is known of it.
        if not self.dead:
            self.dead = ST_EOF
        self.drain()
        h2_fail(&self.h, self.dead, self.dead_err)
        h2_close(&self.h)
        if self.out != NULL:
            buffer_give(self.out)
            self.out = NULL
        if self.inbuf != NULL:
            buffer_give(self.inbuf)
            self.inbuf = NULL
        self.unplug()

    cdef void unplug(self) noexcept nogil:
        if self.rd >= 0:
            c_close(self.rd)
            if self.wr != self.rd:
                c_close(self.wr)
            self.rd = self.wr = -1

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
        if self.ours() and not self.dead and not self.h.goaway and ph_cas_int(&self.role, 0, 1):
            self.drain()
            if self.receive() == ST_OK:
                now = ph_now()
                if self.ping_interval > 0 and now - self.last_read >= self.ping_interval and not self.h.pinged:
                    h2_ping(&self.h)
                    self.ping_sent = now
                self.send_out()
            self.hand_on()
        return ST_EOF if self.dead or self.h.goaway else ST_OK

    cdef bint ours(self) noexcept nogil:
        return not self.forked and not unsettled()

    cdef void interrupt(self) noexcept nogil:
        if not self.ours():
            return
        ph_store_int(&self.broken, 1)
        if self.stream.fd >= 0:
            c_shutdown(self.stream.fd, 2)
        ph_wake_write(self.wr)

    cdef void close(self, int reason) noexcept nogil:
        # Nobody uses it any more; after a fork, nobody who is here.
        cdef bint alone
        if reason == RE_FORKED or not self.ours():
            self.forked = self.forked or reason == RE_FORKED
            if not self.dead:
                self.dead = ST_EOF
            self.unplug()
        else:
            while ph_load_int(&self.guests):
                sched_yield()                # who disturbs a read is no user, and may be about to write to us
            alone = ph_cas_int(&self.role, 0, 1)
            if alone and reason != RE_ERROR and not self.dead:
                h2_goodbye(&self.h)
                self.send_out()
            if alone:
                self.hang_up()               # answers that are kept keep us
            elif not self.dead:
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
        cdef bint over = False
        self.stuck = False
        self.h.now = ph_now()
        while True:
            while self.out_at < self.out_n:
                r = self.stream.try_send(self.out + self.out_at, self.out_n - self.out_at)
                if r == ST_AGAIN and not over and not self.h.broke:
                    self.stuck = True
                    return ST_AGAIN
                if r == ST_AGAIN:            # what cannot be said is not said: the connection is over all the same
                    over = True
                    break
                if r < 0:
                    # What the server said before it hung up still counts.
                    self.receive()
                    self.die(<int>r, 0)
                    return BREAK
                self.out_at += r
                sent += r
            self.out_at = self.out_n = 0
            if over:
                self.die(ST_EOF if self.h.gone else ST_BROKE, BR_H2_CONNECTION)
                return BREAK
            if sent >= TURN:
                return ST_MORE
            while self.out_n < GATHER:
                n = h2_frames(&self.h, &p)
                if n == 0:
                    break
                if n < 0:                    # all streams are done after a GOAWAY, or we said one, which goes out yet
                    over = True
                    break
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
            if self.out_n == 0 and not over:
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
                self.die(ST_BROKE, self.h.err if self.h.err else BR_H2_CONNECTION)
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

    cdef bint check_ping(self, int64_t now) noexcept nogil:
        # True: something is to be done about it.
        if self.ping_interval <= 0 or now < self.next_ping():
            return False
        if self.h.pinged and self.last_read < self.ping_sent:
            self.die(ST_BROKE, BR_H2_PING)
        elif h2_ping(&self.h) == 0:
            self.ping_sent = now
        else:
            self.die(ST_NOMEM, 0)
        return True

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
            if self.check_ping(now):
                continue                     # it is to go out
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

    cdef int health(self, int reason) noexcept nogil:
        if self.dead:
            return RE_SERVER_CLOSED if self.dead == ST_EOF else reason if reason != RE_REUSE else RE_ERROR
        if self.h.no_h2:
            return RE_NOT_REUSABLE
        return RE_SERVER_CLOSED if self.h.goaway else RE_REUSE


def gil_releases() -> int:
    return ph_gil_releases()
