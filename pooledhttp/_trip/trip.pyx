"""Acquire, exchange, release: the round trip.

`run` is the whole of a small exchange on a warm connection, and runs with the GIL released once. Whatever it cannot do alone
(dial, wait for a turn, an upload in pieces, a large body, h11, a signal, an error) it leaves to `slow`, which goes on from exactly there.
"""
import sys

from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint64_t

from pooledhttp._conn.connection cimport (
    FLAG_AS_IS, FLAG_CLOSE, FLAG_EXPECT, FLAG_REPLAY, FLAG_STREAM, TELL, TELL_CONN, TELL_SENT, XS_DONE, XS_HEAD, Connection, provisional,
)
from pooledhttp._conn.h1 cimport H1Connection
from pooledhttp._core.cancel cimport Canceller
from pooledhttp._core.compat cimport ph_gil_releases, ph_now
from pooledhttp._core.limits cimport Limits
from pooledhttp._core.runtime cimport WakeHandle, unsettled, wake_clear
from pooledhttp._core.status cimport (
    LIM_POOL, LIM_TOTAL, PH_POOL, RE_CANCELLED, RE_ERROR, RE_NOT_REUSABLE, RE_REUSE, RE_SERVER_CLOSED, RE_TIMEOUT, ST_AGAIN, ST_BROKE, ST_CLOSED, ST_EOF,
    ST_H1, ST_IO, ST_MORE, ST_NEED_GIL, ST_OK, ST_REFUSED, ST_STALE, ST_TELL, ST_TIMEOUT, ST_TLS, ST_UNDONE, ST_UNSURE,
)
from pooledhttp._net.stream cimport WAIT_READ, Stream
from pooledhttp._net.tcp cimport sock_wait
from pooledhttp._pool.core cimport (
    W_CLOSED, W_CONN, W_DIAL, W_QUEUED, Host, bury, pool_checkout, pool_count, pool_dial_failed, pool_dialed, pool_keep_place, pool_leave,
    pool_mark_unread, pool_race, pool_waiter_state, reap, slot_release,
)
from pooledhttp._pool.pool cimport Pool
from pooledhttp._trip.reply cimport Obeying, Reply, wake_of_thread

from types import MemberDescriptorType

from pooledhttp import errors
from pooledhttp._core.runtime import logger, settle
from pooledhttp._pool.core import install_observer
from pooledhttp._pool.janitor import janitor
from pooledhttp._trip import gate

cdef enum:
    DEBUG = 10                 # logging's
    UNDONE_MAX = 4             # times that a request is sent again because the server did not begin with it


def observe(follower, list gone, by, later) -> None:
    """Of closed connections; see `tales.observe`. A pool that the interpreter's end finds open has nobody to tell, and nothing can be imported any more."""
    if sys is None or sys.is_finalizing():
        return
    from pooledhttp._trip import tales

    tales.observe(follower, gone, by, later)


install_observer(observe)

cdef extern from "Python.h":
    char* PyBytes_AS_STRING(object b)
    Py_ssize_t PyBytes_GET_SIZE(object b)
    ctypedef object (*allocfunc)(type, Py_ssize_t)
    ctypedef struct PyTypeObject:
        allocfunc tp_alloc
    ctypedef struct PyMemberDef:
        Py_ssize_t offset
    ctypedef struct PyMemberDescrObject:
        PyMemberDef* d_member


cdef type Response = None
cdef Py_ssize_t places[5]


def install_response(type cls) -> None:
    """Makes `cls`, which has slots for status_code, content, default_encoding, _reply and _made, the class of plain responses."""
    global Response
    for i, name in enumerate(("status_code", "content", "default_encoding", "_reply", "_made")):
        slot = cls.__dict__[name]
        if type(slot) is not MemberDescriptorType:
            raise TypeError(f"{name} is no slot")
        places[i] = (<PyMemberDescrObject*>slot).d_member.offset
    Response = cls


cdef object plain_response(object status, object content, object encoding, object reply, object made):
    # What `Response.__new__` and five assignments would do, for a tenth of their instructions.
    cdef object r = (<PyTypeObject*>Response).tp_alloc(Response, 0)
    put(r, places[0], status)
    put(r, places[1], content)
    put(r, places[2], encoding)
    put(r, places[3], reply)
    put(r, places[4], made)
    return r


cdef inline void put(object r, Py_ssize_t place, object value) noexcept:
    # Into a slot that holds nothing yet.
    Py_INCREF(value)
    (<PyObject**>(<char*><void*>r + place))[0] = <PyObject*>value


cdef class Prepared:
    """A request without a body, made once by `Tripper.prepare` and sent many times. `wire` is what it was made from."""


cdef class Tripper:
    """The compiled part of a transport: its pool, and the round trip.

    A subclass gives `new_dial(key, host, limits)` (a `Dial`) and `adopt(dial, home)` (somebody
    finishes a dial that lost its race, where `dial.ticket.taken` says so afterwards).
    """

    def __init__(self, Pool pool, *, size_t max_head=1 << 20, bint retry_stale=True, bint close_each=False, bint as_is=False,
                 int64_t expect=1000000000, bint h2_known=False, int64_t h2_ping_interval=0, int64_t h2_ping_timeout=0):
        self.pool = pool
        self.h2_known = h2_known
        self.h1_only = set()
        self.h2_ping[0] = h2_ping_interval
        self.h2_ping[1] = h2_ping_timeout
        self.max_head = max_head
        self.retry_stale = retry_stale
        self.flags = (FLAG_CLOSE if close_each else 0) | (FLAG_AS_IS if as_is else 0)
        self.expect = expect

    def exchange(self, str key, str host, int port, bytes method, bytes target, bytes authority, bytes fields, object body, Limits limits not None,
                 int64_t deadline, str source, int flags, int64_t max_body, Canceller cancel) -> Reply:
        """One request and its response over one connection.

        `key` is the pool key `scheme://host:port`; `body` is None, bytes, or an iterable of bytes-like pieces with `length` (None: sent chunked)
        and `rewind() -> bool`; `deadline` is absolute monotonic nanoseconds or -1, `source` whose it is; `max_body` bounds the body
        in bytes (-1: none; of a coded one it bounds what comes of it: one that is not small is left unread). Raises what `errors` has.
        """
        cdef Reply x = Reply.__new__(Reply)
        if self.pool is None:
            raise RuntimeError(f"{type(self).__name__}.__init__ did not call Transport.__init__")
        if unsettled():
            settle()
        x.t_start = x.holder.since = ph_now()
        x.host = self.pool.host(key)
        x.host_name = host
        x.port = port
        x.method = method
        x.target = target
        x.authority = authority
        x.fields = fields
        x.no_body_method = method == b"HEAD"
        x.limits = limits
        x.deadline = deadline
        x.source = source
        x.flags = flags
        x.max_body = max_body
        if body is not None:
            if type(body) is bytes:
                x.body = <bytes>body
            else:
                x.source_body = body
                x.chunked_upload = body.length is None
                x.in_pieces = True
        return self.go(x, cancel)

    def prepare(self, tuple wire, int64_t max_body, str encoding) -> Prepared:
        """For `exchange_prepared`, from (key, host, port, method, target, authority, fields, None, flags, ...) as `exchange` takes them, and
        `max_body`. `encoding` is the answers' `default_encoding`."""
        cdef Prepared p = Prepared.__new__(Prepared)
        if self.pool is None:
            raise RuntimeError(f"{type(self).__name__}.__init__ did not call Transport.__init__")
        p.wire = wire
        p.key, p.host_name, p.port, p.method, p.target, p.authority, p.fields = wire[:7]
        p.flags = wire[8]
        p.max_body = max_body
        p.encoding = encoding
        p.no_body_method = p.method == b"HEAD"
        p.made_head = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (p.method, p.target, p.authority, p.fields)
        p.host = self.pool.host(p.key)
        return p

    def exchange_prepared(self, Prepared p not None, Limits limits not None, int64_t deadline, str source, Canceller cancel):
        """`exchange` of what this transport prepared. A plain answer is the response itself; where more must be done about it (3xx, notes) it is the
        `Reply`."""
        cdef Reply x = Reply.__new__(Reply)
        if p.host.h.pool != <void*>self.pool:
            raise ValueError("another transport prepared it")
        if unsettled():
            settle()
        x.t_start = x.holder.since = ph_now()
        x.limits = limits
        x.deadline = deadline
        x.source = source
        x.host = p.host if not p.host.h.folded else self.pool.host(p.key)
        x.host_name = p.host_name
        x.port = p.port
        x.method = p.method
        x.target = p.target
        x.authority = p.authority
        x.fields = p.fields
        x.made_head = p.made_head
        x.no_body_method = p.no_body_method
        x.flags = p.flags
        x.max_body = p.max_body
        self.go(x, cancel)
        if x.facts.notes or 300 <= x.status < 400:
            return x
        return plain_response(x.status, x.content, p.encoding, x, p)

    cdef object go(self, Reply x, Canceller cancel):
        cdef int st
        x.pool = self.pool
        x.holder.label = PyBytes_AS_STRING(x.method)
        x.holder.label_len = PyBytes_GET_SIZE(x.method)
        x.holder.detail = PyBytes_AS_STRING(x.target)
        x.holder.detail_len = PyBytes_GET_SIZE(x.target)
        x.flags |= self.flags
        x.max_head = self.max_head
        x.expect = self.expect
        x.first = True
        x.may_retry = self.retry_stale
        if self.pool.follower is not None:
            self.follow(x)
        if cancel is None:
            with nogil:
                st = self.run(x)
            if st == ST_OK and x.stage == XS_DONE:
                return x.settle()
            return self.guarded(x, st)
        x.cancel = cancel
        with Obeying(x):
            if cancel.is_cancelled():
                raise gate.cancelled("pool", cancel.reason, None)
            with nogil:
                st = self.run(x)
            if st == ST_OK and x.stage == XS_DONE:
                return x.settle()
            return self.guarded(x, st)

    # --- without the GIL -----------------------------------------------------------------------------------------------

    cdef int run(self, Reply x) noexcept nogil:
        cdef Slot* s = NULL
        cdef int st
        cdef int64_t now
        while True:
            now = x.t_start if x.first else ph_now()
            st = pool_checkout(self.pool, &x.host.h, &x.holder, NULL, x.first, now, &s, &x.dead)
            if st == ST_OK or st == ST_NEED_GIL:
                x.first = False
            if x.dead != NULL:
                bury(x.dead)
            if st != ST_OK:
                return st
            x.slot = s
            x.reused = True
            x.idle_for = now - s.idle_since
            x.t_pool = now - x.t_start
            st = self.attempt(x, True)
            if st != ST_AGAIN or x.again:
                return st

    cdef int attempt(self, Reply x, bint probe) noexcept nogil:
        # On x.slot, from the start. ST_AGAIN: that connection was dead; find another.
        cdef int st
        x.gave = False
        x.conn_uses = x.slot.uses
        if probe:
            st = (<Connection>x.slot.owner).probe()
            if st != ST_OK:
                if (<Connection>x.slot.owner).stream.foreign:
                    return ST_TLS
                return self.replace(x, False, RE_SERVER_CLOSED)
        if x.telling:
            x.telling = TELL
            return ST_TELL
        return self.start(x)

    cdef int start(self, Reply x) noexcept nogil:
        cdef int st = (<Connection>x.slot.owner).begin(x)
        if st != ST_OK:
            return st
        return self.resume(x)

    cdef int resume(self, Reply x) noexcept nogil:
        cdef int64_t idle_limit
        cdef int verdict
        cdef int st = (<Connection>x.slot.owner).exchange(x)
        if st == ST_OK:
            if x.stage == XS_DONE:
                verdict = (<Connection>x.slot.owner).verdict(x, &idle_limit)
                x.give(verdict, idle_limit, True)
            return st
        return self.judge(x, st)

    cdef int judge(self, Reply x, int st) noexcept nogil:
        # A reused connection that dies before the first byte of the answer was stale. Tried again where nothing was written, or the
        # request is idempotent (RFC 9112 section 9.3.1), and its body is at hand.
        if st == ST_H1:
            return st                       # which is to be remembered first
        if st == ST_UNDONE:
            return self.undone(x, st)
        if x.any_received or not x.reused or x.slot.interrupted or (st != ST_EOF and st != ST_IO and st != ST_TLS and st != ST_BROKE):
            return st
        if st == ST_TLS and (<Connection>x.slot.owner).stream.foreign:
            return st                       # a signal's handler raised, in this very thread: nothing is stale
        x.err = (<Connection>x.slot.owner).stream.err if st == ST_IO else 0
        if not x.may_retry or (x.any_sent and not x.flags & FLAG_REPLAY):
            return ST_STALE
        if x.pieces is not None:
            return ST_STALE
        return self.replace(x, True, RE_SERVER_CLOSED)

    cdef int undone(self, Reply x, int st) noexcept nogil:
        # The server says that it did not begin with it (RFC 9113 sections 6.8 and 8.7), so it may be sent again, whatever it is.
        if not x.may_retry or x.slot.interrupted or x.undone >= UNDONE_MAX:
            return st
        x.undone += 1
        if x.pieces is not None:
            return ST_STALE
        return self.replace(x, True, RE_NOT_REUSABLE)

    cdef int replace(self, Reply x, bint retried, int reason) noexcept nogil:
        # x's connection is of no use. ST_AGAIN: find another; ST_NEED_GIL: dial, its place is kept.
        cdef int st
        reason = (<Connection>x.slot.owner).part(x, reason)
        st = ST_NEED_GIL if reason != RE_REUSE and pool_keep_place(self.pool, x.slot) else ST_AGAIN
        x.give(reason, -1, retried)
        if retried:
            x.again = True
            pool_count(self.pool, &x.host.h, &x.host.h.retries, 1)
        slot_release(x.slot)
        x.slot = NULL
        return st

    # --- with the GIL --------------------------------------------------------------------------------------------------

    cdef object guarded(self, Reply x, int st):
        """`slow`, and whatever ends it leaves no connection behind."""
        try:
            return self.slow(x, st)
        except BaseException as e:
            if x.telling and x.failed is None:
                x.failed = e
            if x.draining:
                pass                            # the janitor's by now
            elif x.slot != NULL:
                if isinstance(e, errors.TimeoutException):
                    x.abort(RE_TIMEOUT)
                elif isinstance(e, errors.Cancelled) or not isinstance(e, Exception):
                    x.abort(RE_CANCELLED)
                else:
                    x.abort(RE_ERROR)
            else:
                x.finish()
            raise

    cdef object slow(self, Reply x, int st):
        cdef WakeHandle handle
        while True:
            if st == ST_OK:
                x.wire = <Connection>x.slot.owner
                if x.stage == XS_DONE:
                    return x.settle()
                x.take_head()
                break
            if x.slot == NULL:
                # A connection is wanted.
                if x.again or x.dead != NULL:
                    try:
                        self.begun_again(x)
                    except BaseException:
                        if st == ST_NEED_GIL:
                            with nogil:
                                pool_dial_failed(self.pool, &x.host.h)
                        raise
                if st == ST_AGAIN:
                    x.host = self.pool.host(x.host.key) if x.host.h.folded else x.host
                    with nogil:
                        st = self.run(x)
                    continue
                if st == ST_MORE or st == ST_NEED_GIL:
                    if x.wake_handle is None:
                        try:
                            x.wake_handle = wake_of_thread()
                        except BaseException:           # no descriptor to be had
                            if st == ST_NEED_GIL:
                                with nogil:
                                    pool_dial_failed(self.pool, &x.host.h)
                            raise
                    handle = x.wake_handle
                    handle.enter()
                    try:
                        st = self.wait_turn(x) if st == ST_MORE else self.dial(x)
                    finally:
                        handle.leave()
                elif st == ST_CLOSED:
                    raise RuntimeError("the transport is closed")
                else:
                    raise x.failure(st)
                continue
            if st == ST_TELL and not x.telling & TELL_CONN:
                x.tell_conn()
                with nogil:
                    st = self.start(x)
                continue
            x.wire = <Connection>x.slot.owner
            if st == ST_UNSURE:
                if x.stage == XS_HEAD:
                    x.fallback_head()
                    if x.status == 417 and x.flags & FLAG_EXPECT and self.may_go_unasked(x):
                        with nogil:
                            st = self.replace(x, True, RE_NOT_REUSABLE)
                        continue
                else:
                    x.take_head()
                    x.fallback_body()
                break
            if st == ST_H1:
                self.only_h1(x)
                with nogil:
                    st = self.undone(x, st)
                if st == ST_AGAIN or st == ST_NEED_GIL:
                    continue
            if st == ST_STALE and (self.may_begin_again(x) if not x.undone else self.may_send_again(x)):
                with nogil:
                    st = self.replace(x, True, RE_SERVER_CLOSED)
                continue
            if st == ST_REFUSED:
                again = self.may_go_unasked(x)
                with nogil:
                    st = self.replace(x, True, RE_NOT_REUSABLE) if again else self.resume(x)
                continue
            x.resolve(st)
            with nogil:
                st = self.resume(x)
        # The head is there, the body not yet.
        if x.flags & FLAG_STREAM or (x.stage != XS_DONE and (x.decoded_body or provisional(x))):
            if x.stage == XS_DONE:
                x.content = None
                x.finish()
            else:
                with nogil:
                    pool_mark_unread(self.pool, &x.holder)
            return x
        x.content = x.read_rest(x.max_body)
        return x

    cdef object only_h1(self, Reply x):
        # From now on: the server said HTTP_1_1_REQUIRED (RFC 9113 section 7).
        self.h1_only.add(x.host.key)
        x.host.dial_spec = None

    cdef bint may_begin_again(self, Reply x) except -1:
        if not x.may_retry or (x.any_sent and not x.flags & FLAG_REPLAY):
            return False
        return self.may_send_again(x)

    cdef bint may_send_again(self, Reply x) except -1:
        if not x.source_body.rewind():
            return False
        x.pieces = x.piece = None
        return True

    cdef bint may_go_unasked(self, Reply x) except -1:
        # 417 says that somebody on the way knows no Expect: without it, once (RFC 9110 section 10.1.1).
        x.flags &= ~FLAG_EXPECT
        if x.pieces is not None and not x.source_body.rewind():
            return False
        x.pieces = x.piece = x.fallback = None
        x.fields = b"".join([line for line in x.fields.splitlines(True) if line[:7].lower() != b"expect:"])
        return True

    # --- for those who follow ------------------------------------------------------------------------------------------

    cdef object follow(self, Reply x):
        method, target = x.method.decode("latin-1"), x.target.decode("latin-1")
        x.tale = self.pool.follower.begin(x.host.key, method, target)
        x.telling = TELL
        x.tale.tell("get_conn", x.host.key, method, target)

    cdef object begun_again(self, Reply x):
        # Connections were closed on the way here; where the request was on the last of them, it goes on another.
        if x.telling & TELL_CONN:
            if x.telling & TELL_SENT:
                x.tale.tell("wrote_request", gate.lost(x.err, x.conn))
            x.telling = TELL
        x.tell_lost()
        if not x.again:
            return
        x.again = False
        log = logger(DEBUG)
        if log is not None:
            from pooledhttp._trip import tales

            tales.say_again(log, x.host.key, x.method, x.target)
        if x.telling:
            x.tale.tell("get_conn", x.host.key, x.method.decode("latin-1"), x.target.decode("latin-1"))

    # --- a connection --------------------------------------------------------------------------------------------------

    cdef int wait_turn(self, Reply x) except? -99:
        # At max_conns_per_host: in the queue, first come, first served.
        cdef Slot* s = NULL
        cdef int st, state
        cdef int64_t now = ph_now(), until, began = now
        cdef bint passed = False
        cdef int err = 0
        x.waiter.wake = x.wake_handle.w
        if x.pool_until == 0:
            x.pool_until = -1 if x.limits.pool < 0 else now + x.limits.pool
        until = x.pool_until
        x.limit = LIM_POOL
        if x.deadline >= 0 and (until < 0 or x.deadline < until):
            until = x.deadline
            x.limit = LIM_TOTAL
        x.phase = PH_POOL
        with nogil:
            wake_clear(x.waiter.wake)
            st = pool_checkout(self.pool, &x.host.h, &x.holder, &x.waiter, x.first, now, &s, &x.dead)
            if st == ST_OK or st == ST_NEED_GIL or st == ST_MORE:
                x.first = False
            if x.dead != NULL:
                bury(x.dead)
        if st == ST_OK:
            return self.took(x, s)
        if st != ST_MORE:
            return st
        try:
            # Looked at first: a cancel before the clearing above has signalled in vain.
            while x.cancel is None or not x.cancel.is_cancelled():
                with nogil:
                    while True:
                        st = sock_wait(x.waiter.wake.rd, WAIT_READ, until, NULL, &err)
                        state = pool_waiter_state(self.pool, &x.waiter)
                        if state != W_QUEUED or st < 0:
                            break
                        wake_clear(x.waiter.wake)
                        state = pool_waiter_state(self.pool, &x.waiter)
                        if state != W_QUEUED:
                            break
                        if x.cancel is not None and x.cancel.is_cancelled():
                            break
                if state != W_QUEUED:
                    break
                if st == ST_TIMEOUT:
                    passed = True
                    break
                PyErr_CheckSignals()
                if st == ST_IO:
                    raise OSError(err, "waiting for a connection failed")
        except BaseException:
            self.forgo(x)
            raise
        finally:
            with nogil:
                pool_count(self.pool, &x.host.h, &x.host.h.wait_ns, <uint64_t>(ph_now() - began))
        with nogil:
            state = pool_leave(self.pool, &x.host.h, &x.waiter)
        if x.cancel is not None and x.cancel.is_cancelled():
            self.refuse(x, state)
            raise gate.cancelled("pool", x.cancel.reason, None)
        if state == W_CONN:
            return self.took(x, x.waiter.slot)
        if state == W_DIAL:
            return ST_NEED_GIL
        if state == W_CLOSED:
            raise gate.cancelled("pool", "the transport was closed", None)
        assert passed
        detail = gate.pool_full((ph_now() - began) / 1e9, x.host.key, self.pool.max_per_host, self.pool.holders(x.host))
        if x.limit == LIM_TOTAL:
            raise gate.deadline_passed(x.source, "pool", None, x.limits.total / 1e9, detail)
        raise gate.timed_out(LIM_POOL, "pool", x.limits.pool / 1e9, None, detail)

    cdef object forgo(self, Reply x):
        """Leave the queue; what was granted in the last moment goes to the next."""
        cdef int state
        with nogil:
            state = pool_leave(self.pool, &x.host.h, &x.waiter)
        self.refuse(x, state)

    cdef object refuse(self, Reply x, int state):
        # What the queue granted, and nobody wants.
        with nogil:
            if state == W_CONN:
                x.slot = x.waiter.slot
                x.gave = False
                x.give(RE_REUSE, x.slot.idle_limit, False)
                slot_release(x.slot)
                x.slot = NULL
            elif state == W_DIAL:
                pool_dial_failed(self.pool, &x.host.h)

    cdef int took(self, Reply x, Slot* s) except? -99:
        cdef int64_t now = ph_now()
        cdef int st
        x.slot = s
        x.reused = True
        x.idle_for = max(0, now - s.idle_since)
        x.t_pool = now - x.t_start
        with nogil:
            st = self.attempt(x, True)
        return st

    cdef int dial(self, Reply x) except? -99:
        # On this thread; a connection that is given back meanwhile wins, and the dial left behind is finished by a helper.
        cdef Slot* s = NULL
        cdef int st, state
        cdef int64_t now = ph_now()
        cdef Connection c
        x.t_pool = now - x.t_start
        try:
            x.waiter.wake = x.wake_handle.w
            x.waiter.holder = &x.holder
            x.waiter.state = 0
            if x.host.dial_spec is None:
                x.host.dial_spec = self.dial_spec(x.host.key, x.host_name, x.port)
            dial = self.new_dial(x.host.dial_spec, x.limits)
            dial.tale = x.tale
            with nogil:
                st = pool_race(self.pool, &x.host.h, &x.waiter, now, &s, &x.dead)
                if x.dead != NULL:
                    bury(x.dead)
        except BaseException:
            with nogil:
                pool_dial_failed(self.pool, &x.host.h)
            raise
        if st == ST_OK:
            with nogil:
                pool_dial_failed(self.pool, &x.host.h)
            return self.took(x, s)
        try:
            stream = dial.run(x.deadline, lambda: self.woken(x))
        except BaseException as e:
            with nogil:
                state = pool_leave(self.pool, &x.host.h, &x.waiter)
                pool_dial_failed(self.pool, &x.host.h)
            if state == W_CONN:
                if isinstance(e, errors.ConnectError):
                    try:
                        self.say_failed(x, now, e)
                    except BaseException:
                        self.refuse(x, state)
                        raise
                    return self.took(x, x.waiter.slot)       # the dial failed, but a connection came free
                self.refuse(x, state)
            self.say_failed(x, now, e)
            if not isinstance(e, Exception) or isinstance(e, errors.Error):
                raise
            from pooledhttp._net.dial import DeadlinePassed        # not at the top: importing is to be cheap
            if not isinstance(e, DeadlinePassed):
                raise
            raise gate.deadline_passed(x.source, e.phase, None, x.limits.total / 1e9) from None
        with nogil:
            state = pool_leave(self.pool, &x.host.h, &x.waiter)
        if stream is None:
            phase = dial.phase
            if state == W_CONN and x.host.h.shared:
                try:
                    self.drop_dial(dial, x)          # one connection is enough
                except BaseException:
                    self.refuse(x, state)
                    raise
                return self.took(x, x.waiter.slot)
            if state == W_CONN:
                try:
                    try:
                        self.adopt(dial, x.host)
                    finally:
                        # Asked here, where no handler of a signal runs: it may have raised at any step of `adopt`.
                        ticket = dial.ticket
                        if ticket is None or not ticket.taken:
                            self.drop_dial(dial, x)
                except BaseException:
                    self.refuse(x, state)
                    raise
                if x.cancel is not None and x.cancel.is_cancelled():
                    self.refuse(x, state)
                    raise gate.cancelled(phase, x.cancel.reason, None)
                return self.took(x, x.waiter.slot)
            self.drop_dial(dial, x)
            if state == W_CLOSED:
                raise gate.cancelled(phase, "the transport was closed", None)
            raise gate.cancelled(phase, x.cancel.reason, None)
        timings = dial.timings
        x.t_dns = timings.get("dns", 0)
        x.t_connect = timings.get("connect", 0)
        x.t_tls = timings.get("tls", 0)
        if state == W_CONN:
            # Both at once: ours serves this request, the other goes to the next.
            self.refuse(x, state)
        try:
            c = self.connection(x.host, stream, dial.info)
        except BaseException:
            with nogil:
                pool_dial_failed(self.pool, &x.host.h)
            raise
        pool_dialed(self.pool, x.host, c, &x.holder, ph_now(), &x.dead)
        x.slot = &c.slot
        x.gave = False
        x.reused = False
        x.idle_for = 0
        with nogil:
            if x.dead != NULL:
                bury(x.dead)
        log = logger(DEBUG)
        if log is not None:
            from pooledhttp._trip import tales

            tales.say_dialed(log, x.host.key, c.slot.id, dial)
        with nogil:
            st = self.attempt(x, False)
        return st

    cdef Connection connection(self, Host home, Stream stream, object info):
        # What ALPN picked, or the transport knows of the origin: a proxy that forwards is not it.
        if info.alpn != "h2" and not (self.h2_known and home.key.startswith("http:") and " via http" not in home.key and home.key not in self.h1_only):
            return H1Connection(stream, info)
        try:
            from pooledhttp._conn.h2 import H2Connection

            return H2Connection(stream, info, home.key.startswith("https:"), self.max_head, self.h2_ping[0], self.h2_ping[1])
        except BaseException:
            with nogil:
                stream.close(False)
            raise

    cdef object drop_dial(self, dial, Reply x):
        # Closed first: to the host it is a connection still.
        try:
            dial.abandon()
        finally:
            with nogil:
                pool_dial_failed(self.pool, &x.host.h)
        self.say_failed(x, x.t_start + x.t_pool, None)

    cdef object say_failed(self, Reply x, int64_t began, object error):
        log = logger(DEBUG)
        if log is not None:
            from pooledhttp._trip import tales

            tales.say_failed(log, x.host.key, error, (ph_now() - began) / 1e9)

    cdef bint woken(self, Reply x):
        """While dialing: was something granted, or cancelled?"""
        cdef int state
        with nogil:
            state = pool_waiter_state(self.pool, &x.waiter)
        return state == W_CONN or state == W_CLOSED or (x.cancel is not None and x.cancel.is_cancelled())

    def count_retry(self, str key) -> None:
        """A request to the host `key` is sent again by somebody above."""
        cdef Host home = self.pool.host(key)
        with nogil:
            pool_count(self.pool, &home.h, &home.h.retries, 1)

    def adopted(self, Host home, Stream stream, object dial) -> None:
        """`dial` lost its race and was finished: pooled (`stream`), or counted as failed (None)."""
        cdef Slot* dead = NULL
        cdef Connection c
        if stream is None:
            with nogil:
                pool_dial_failed(self.pool, &home.h)
            return
        try:
            c = self.connection(home, stream, dial.info)
        except BaseException:
            with nogil:
                pool_dial_failed(self.pool, &home.h)
            raise
        pool_dialed(self.pool, home, c, NULL, ph_now(), &dead)
        with nogil:
            bury(dead)
        if self.pool.n_idle and not self.pool.watched:
            janitor.watch(self.pool)
        log = logger(DEBUG)
        if log is not None:
            from pooledhttp._trip import tales

            tales.say_dialed(log, home.key, c.slot.id, dial)
        if dial.tale is not None:
            dial.tale.tell("put_idle", None)
        reap(dead, dial.tale)


def gil_releases() -> int:
    return ph_gil_releases()
