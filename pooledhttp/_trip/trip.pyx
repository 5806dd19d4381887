# cython: infer_types=False
"""Acquire, exchange, release: the round trip.

`run` is the whole of a small exchange on a warm connection, and runs with the GIL released once. Whatever it cannot do alone
(dial, wait for a turn, an upload in pieces, a large body, h11, a signal, an error) it leaves to `slow`, which goes on from exactly there.
"""
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from pooledhttp._conn.connection cimport (
    FLAG_CLOSE, FLAG_REPLAY, FLAG_STREAM, FR_FALLBACK, FR_LENGTH, FR_NONE, XS_BODY, XS_DONE, XS_HEAD, Connection,
)
from pooledhttp._conn.h1 cimport H1Connection
from pooledhttp._core.clock cimport sooner
from pooledhttp._core.compat cimport ph_gil_releases, ph_now
from pooledhttp._core.limits cimport Limits
from pooledhttp._core.runtime cimport thread_wake, wake_clear, wake_drop, wake_hold
from pooledhttp._core.status cimport (
    LIM_POOL, LIM_TOTAL, PH_BODY, PH_HEADERS, PH_POOL, RE_CANCELLED, RE_DRAIN_LIMIT, RE_ERROR, RE_REUSE, RE_SERVER_CLOSED, RE_TIMEOUT, ST_AGAIN,
    ST_CANCELLED, ST_CLOSED, ST_EOF, ST_INTR, ST_IO, ST_MORE, ST_NEED_GIL, ST_NOMEM, ST_OK, ST_PROTO, ST_STALE, ST_TIMEOUT, ST_TLS, ST_TOO_LARGE,
    ST_UNSURE, ST_WOKEN,
)
from pooledhttp._net.stream cimport WAIT_READ, Stream
from pooledhttp._net.tcp cimport sock_wait
from pooledhttp._pool.pool cimport (
    W_CLOSED, W_CONN, W_DIAL, W_QUEUED, bury, pool_checkout, pool_count, pool_dial_failed, pool_dialed, pool_give, pool_leave, pool_mark_unread,
    pool_race, pool_waiter_state, reap, slot_release,
)

from pooledhttp import errors
from pooledhttp._core.runtime import current_wake
from pooledhttp._pool.janitor import janitor
from pooledhttp._trip import gate
from pooledhttp.conninfo import ConnInfo


cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject** b, Py_ssize_t n) except -1
    PyObject* c_bytes_new "PyBytes_FromStringAndSize"(const char* v, Py_ssize_t n) except NULL
    char* c_bytes_at "PyBytes_AS_STRING"(PyObject* b) nogil
    char* PyBytes_AS_STRING(object b)
    Py_ssize_t PyBytes_GET_SIZE(object b)

cdef enum:
    STEP = 16777216          # a body's memory grows at most by this, as its bytes arrive
    DRAIN = 262144           # bytes looked through when a body is closed early

cdef tuple PHASES = errors.PHASES
cdef str HTTP11 = "HTTP/1.1"
cdef str HTTP10 = "HTTP/1.0"
cdef dict REASONS = {b"OK": "OK", b"Not Found": "Not Found", b"No Content": "No Content", b"": ""}


@cython.no_gc_clear
cdef class Reply(Exchange):
    """A response as the transport gives it: the head, and the body whole (`content`) or unread.

    `head` is the validated field lines (`Name: value` CRLF each, unfolded) as bytes; header values are latin-1.
    """

    def __dealloc__(self):
        if self.slot != NULL:
            # Collected with its body unread: the connection cannot serve again.
            with nogil:
                self.trip.give(self, RE_ERROR, -1, True)
                slot_release(self.slot)
            self.slot = NULL
        if self.dead != NULL:
            reap(self.dead)
            self.dead = NULL

    @property
    def reason(self) -> str:
        return self._reason

    @property
    def version(self) -> str:
        return HTTP11 if self.facts.minor == 1 else HTTP10

    @property
    def trailers(self) -> list:
        """The trailer fields, (name, value) each, once the body has ended."""
        if self.fallback is None:
            return []
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.fallback.trailers]

    @property
    def conn(self) -> ConnInfo:
        """The connection, as it was for this request."""
        cdef Connection c = self.wire
        if c is None:
            return None
        remote, local, version, cipher, alpn = c.info
        return ConnInfo(c.slot.id, self.reused, self.conn_uses + 1, self.idle_for / 1e9, remote, local, version, cipher, alpn)

    @property
    def timings(self) -> dict:
        """Seconds per phase: pool, dns, connect, tls, send, wait (to the first byte), body."""
        cdef int64_t sent = self.t_sent if self.t_sent else self.t_begin
        cdef int64_t first = self.t_first if self.t_first else sent
        return {
            "pool": self.t_pool / 1e9, "dns": self.t_dns / 1e9, "connect": self.t_connect / 1e9, "tls": self.t_tls / 1e9,
            "send": (sent - self.t_begin) / 1e9, "wait": max(0, first - sent) / 1e9, "body": max(0, self.t_done - first) / 1e9 if self.t_done else 0.0,
        }

    @property
    def elapsed(self) -> float:
        """Seconds from the request's start to the end of the response's head."""
        return (self.t_head - self.t_start) / 1e9

    # --- the body, unread ----------------------------------------------------------------------------------------------

    def read(self, Py_ssize_t n=65536) -> bytes:
        """Up to `n` bytes of the body as they arrive; b"" at its end."""
        cdef PyObject* b
        cdef Py_ssize_t got
        if n < 1:
            raise ValueError("n must be at least 1")
        if self.framing == FR_FALLBACK and self.stage != XS_DONE:
            return self._fallback_read(n)
        b = c_bytes_new(NULL, n)
        try:
            got = self._read(c_bytes_at(b), n)
            if got < n:
                _PyBytes_Resize(&b, got)
            return <object>b
        finally:
            Py_XDECREF(b)

    def readinto(self, buffer) -> int:
        """Fill `buffer` (writable, contiguous) with bytes of the body as they arrive: how many, 0 at its end."""
        cdef unsigned char[::1] view
        cdef memoryview m = memoryview(buffer).cast("B")
        cdef bytes data
        if m.nbytes == 0:
            return 0
        if self.framing == FR_FALLBACK and self.stage != XS_DONE:
            data = self._fallback_read(m.nbytes)
            m[:len(data)] = data
            return len(data)
        view = m
        return self._read(<char*>&view[0], m.nbytes)

    def read_all(self, int64_t limit=-1) -> bytes:
        """The rest of the body; over `limit` bytes (-1: none) it is a `ResponseTooLarge`."""
        self._check()
        return self.trip.read_rest(self, limit)

    cdef object _check(self):
        if self.failed is not None:
            raise self.failed
        if self.closed and self.stage != XS_DONE:
            raise errors.StreamClosed("the response is closed")

    cdef Py_ssize_t _read(self, char* at, Py_ssize_t n) except -1:
        cdef ssize_t r
        self._check()
        while True:
            with nogil:
                r = (<Connection>self.slot.owner).read_body(self, at, n) if self.slot != NULL else ST_EOF
            if r > 0:
                return r
            if r == ST_EOF:
                self.trip.finish(self)
                return 0
            if r == ST_UNSURE:
                self.trip.fallback_body(self)
                data = self._fallback_read(n)
                memcpy(at, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
                return PyBytes_GET_SIZE(data)
            self._resolve(<int>r)

    cdef object _resolve(self, int st):
        try:
            self.trip.resolve(self, st)
        except BaseException as e:
            if isinstance(e, errors.Error):
                self.failed = e
            raise

    cdef bytes _fallback_read(self, Py_ssize_t n):
        cdef bytes data
        self._check()
        try:
            data = self.rest if self.rest is not None else self.trip.fallback_data(self)
        except errors.Error as e:
            self.failed = e
            raise
        self.rest = data[n:] if len(data) > n else None
        if not data:
            self.trip.finish(self)
        return data[:n] if len(data) > n else data

    def close(self) -> None:
        """Give the connection back where the rest of the body has already arrived (up to 256 KiB), else close it. Never waits."""
        cdef char* scratch
        cdef ssize_t r
        cdef size_t seen = 0
        self.closed = True
        if self.slot == NULL:
            return
        if self.framing == FR_FALLBACK or self.failed is not None or self.sending:
            self.trip.abort(self, RE_DRAIN_LIMIT)
            return
        # A deadline that has passed: reads give what is there, and no more.
        self.deadline = 1
        self.wake = NULL
        block = PyBytes_FromStringAndSize(NULL, 65536)
        scratch = PyBytes_AS_STRING(block)
        with nogil:
            while True:
                r = (<Connection>self.slot.owner).read_body(self, scratch, 65536)
                if r <= 0:
                    break
                seen += r
                if seen > DRAIN:
                    break
        if r == ST_EOF:
            self.trip.finish(self)
        else:
            self.trip.abort(self, RE_DRAIN_LIMIT)

    def leak(self) -> None:
        """Closed because its last reference went: counts in `stats().leaked`."""
        if self.slot != NULL:
            with nogil:
                pool_count(self.trip.pool, &self.host.h, &self.host.h.leaked, 1)
        self.close()


cdef class Tripper:
    """The compiled part of a transport: its pool, and the round trip.

    A subclass gives `new_dial(key, host, limits)` (a `Dial`) and `adopt(dial, home)` (somebody finishes a dial that lost its race).
    """

    def __init__(self, Pool pool, *, size_t max_head=1 << 20, bint retry_stale=True, bint close_each=False):
        self.pool = pool
        self.max_head = max_head
        self.retry_stale = retry_stale
        self.close_each = close_each

    def exchange(self, str key, str host, int port, bytes method, bytes target, bytes authority, bytes fields, object body, Limits limits not None,
                 int64_t deadline, str source, int flags, int64_t max_body, Canceller cancel) -> Reply:
        """One request and its response over one connection.

        `key` is the pool key `scheme://host:port`; `body` is None, bytes, or an iterable of bytes-like pieces with `length` (None: sent chunked)
        and `rewind() -> bool`; `deadline` is absolute monotonic nanoseconds or -1, `source` whose it is; `max_body` bounds the body
        in bytes (-1: none). Raises what `errors` has.
        """
        cdef Reply x = Reply.__new__(Reply)
        cdef int st
        x.t_start = x.holder.since = ph_now()
        x.trip = self
        x.host = self.pool.host(key)
        x.method = method
        x.target = target
        x.authority = authority
        x.fields = fields
        x.no_body_method = method == b"HEAD"
        x.holder.label = PyBytes_AS_STRING(method)
        x.holder.label_len = PyBytes_GET_SIZE(method)
        x.holder.detail = PyBytes_AS_STRING(target)
        x.holder.detail_len = PyBytes_GET_SIZE(target)
        x.limits = limits
        x.deadline = deadline
        x.source = source
        x.flags = flags | FLAG_CLOSE if self.close_each else flags
        x.max_body = max_body
        x.max_head = self.max_head
        x.first = True
        if body is not None:
            if type(body) is bytes:
                x.body = <bytes>body
            else:
                x.source_body = body
                x.chunked_upload = body.length is None
                x.in_pieces = True
        if cancel is None:
            with nogil:
                st = self.run(x)
            if st == ST_OK and x.stage == XS_DONE:
                return self.settle(x)
            return self.guarded(x, st, host, port)
        x.cancel = cancel
        x.wake_handle = current_wake()
        x.wake = x.wake_handle.w
        cancel.enter(x.wake_handle)
        try:
            if cancel.is_cancelled():
                raise gate.cancelled("pool", cancel.reason, None)
            with nogil:
                st = self.run(x)
            if st == ST_OK and x.stage == XS_DONE:
                return self.settle(x)
            return self.guarded(x, st, host, port)
        finally:
            if x.slot == NULL:
                x.wake = NULL
            cancel.leave(x.wake_handle)

    # --- without the GIL -----------------------------------------------------------------------------------------------

    cdef int run(self, Reply x) noexcept nogil:
        cdef Slot* s = NULL
        cdef int st
        cdef int64_t now
        while True:
            now = ph_now()
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
            if st != ST_AGAIN:
                return st

    cdef int attempt(self, Reply x, bint probe) noexcept nogil:
        # On x.slot, from the start. ST_AGAIN: that connection was dead; find another.
        cdef int st
        x.gave = False
        x.conn_uses = x.slot.uses
        if probe:
            st = (<Connection>x.slot.owner).probe()
            if st != ST_OK:
                self.give(x, RE_SERVER_CLOSED, -1, False)
                slot_release(x.slot)
                x.slot = NULL
                return ST_AGAIN
        st = (<Connection>x.slot.owner).begin(x)
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
                self.give(x, verdict, idle_limit, True)
            return st
        return self.judge(x, st)

    cdef int judge(self, Reply x, int st) noexcept nogil:
        # A reused connection that dies before the first byte of the answer was stale. Tried again where nothing was written, or the
        # request is idempotent (RFC 9112 section 9.3.1), and its body is at hand.
        if x.any_received or not x.reused or not self.retry_stale or (st != ST_EOF and st != ST_IO and st != ST_TLS):
            return st
        if x.any_sent and not x.flags & FLAG_REPLAY:
            return ST_STALE
        if x.slot.interrupted:
            return st
        x.err = st
        if x.pieces is not None:
            return ST_STALE
        self.give(x, RE_SERVER_CLOSED, -1, True)
        pool_count(self.pool, &x.host.h, &x.host.h.retries, 1)
        slot_release(x.slot)
        x.slot = NULL
        return ST_AGAIN

    cdef void give(self, Reply x, int verdict, int64_t idle_limit, bint used) noexcept nogil:
        if x.gave:
            return
        x.gave = True
        pool_give(self.pool, x.slot, verdict, idle_limit, used, ph_now(), &x.dead)
        if x.dead != NULL:
            bury(x.dead)

    # --- with the GIL --------------------------------------------------------------------------------------------------

    cdef object settle(self, Reply x):
        # All is in the buffer, and the connection is given back.
        self.take_head(x)
        x.content = PyBytes_FromStringAndSize(x.buf + x.body_off, x.body_len)
        self.finish(x)
        return x

    cdef object take_head(self, Reply x):
        cdef char* at = x.buf + x.head_at
        cdef bytes phrase
        x.status = x.facts.status
        x.head = PyBytes_FromStringAndSize(at + x.facts.fields_off, x.facts.fields_len)
        phrase = PyBytes_FromStringAndSize(at + x.facts.reason_off, x.facts.reason_len)
        x._reason = REASONS.get(phrase)
        if x._reason is None:
            x._reason = phrase.decode("latin-1")

    cdef object finish(self, Reply x):
        # The exchange is over in both directions, or aborted: the connection goes back, the buffer too.
        cdef int64_t idle_limit = -1
        cdef int verdict
        if x.slot != NULL:
            if not x.gave:
                with nogil:
                    verdict = (<Connection>x.slot.owner).verdict(x, &idle_limit)
                    self.give(x, verdict, idle_limit, True)
            x.wire = <Connection>x.slot.owner
            slot_release(x.slot)
            x.slot = NULL
        x.drop_buffer()
        x.pieces = x.piece = x.source_body = None
        x.body = None
        x.wake = NULL
        if x.dead != NULL:
            reap(x.dead)
            x.dead = NULL
        if self.pool.n_idle and not self.pool.watched:
            janitor.watch(self.pool)

    cdef object abort(self, Reply x, int reason):
        # Whatever went wrong: this connection is closed, and nothing of x is left in the pool.
        if x.slot != NULL:
            with nogil:
                self.give(x, reason, -1, True)
        self.finish(x)

    def guarded(self, Reply x, int st, str host, int port):
        """`slow`, and whatever ends it leaves no connection behind."""
        try:
            if x.host.dial_spec is None:
                x.host.dial_spec = self.dial_spec(x.host.key, host, port)
            return self.slow(x, st)
        except BaseException as e:
            if x.slot != NULL:
                self.abort(x, RE_TIMEOUT if isinstance(e, errors.TimeoutException) else
                           RE_CANCELLED if isinstance(e, errors.Cancelled) or not isinstance(e, Exception) else
                           RE_SERVER_CLOSED if isinstance(e, errors.StaleConnectionError) else RE_ERROR)
            else:
                self.finish(x)
            raise

    cdef object slow(self, Reply x, int st):
        while True:
            if st == ST_OK:
                x.wire = <Connection>x.slot.owner
                if x.stage == XS_DONE:
                    return self.settle(x)
                self.take_head(x)
                break
            if x.slot == NULL:
                # A connection is wanted.
                if st == ST_AGAIN:
                    x.host = self.pool.host(x.host.key) if x.host.h.folded else x.host
                    with nogil:
                        st = self.run(x)
                    continue
                if st == ST_MORE:
                    st = self.wait_turn(x)
                elif st == ST_NEED_GIL:
                    st = self.dial(x)
                elif st == ST_CLOSED:
                    raise RuntimeError("the transport is closed")
                else:
                    raise self.failure(x, st)
                continue
            x.wire = <Connection>x.slot.owner
            if st == ST_UNSURE:
                if x.stage == XS_HEAD:
                    self.fallback_head(x)
                else:
                    self.take_head(x)
                    self.fallback_body(x)
                break
            if st == ST_STALE and self.may_begin_again(x):
                with nogil:
                    self.give(x, RE_SERVER_CLOSED, -1, True)
                    pool_count(self.pool, &x.host.h, &x.host.h.retries, 1)
                    slot_release(x.slot)
                x.slot = NULL
                st = ST_AGAIN
                continue
            self.resolve(x, st)
            with nogil:
                st = self.resume(x)
        # The head is there, the body not yet.
        if x.flags & FLAG_STREAM:
            if x.stage == XS_DONE:
                x.content = None
                self.finish(x)
            else:
                with nogil:
                    pool_mark_unread(self.pool, &x.holder)
            return x
        x.content = self.read_rest(x, x.max_body)
        return x

    def may_begin_again(self, Reply x) -> bool:
        if x.any_sent and not x.flags & FLAG_REPLAY:
            return False
        if x.pieces is None:
            return True
        if not x.source_body.rewind():
            return False
        x.pieces = x.piece = None
        return True

    # --- a connection --------------------------------------------------------------------------------------------------

    cdef int wait_turn(self, Reply x) except? -99:
        # At max_conns_per_host: in the queue, first come, first served.
        cdef Slot* s = NULL
        cdef int st, state
        cdef int64_t now = ph_now(), until, began = now
        cdef bint passed = False
        cdef int err = 0
        if x.wake_handle is None:
            x.wake_handle = current_wake()
        x.waiter.wake = x.wake_handle.w
        until = x.limits.pool if x.limits.pool < 0 else now + x.limits.pool
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
        if st == ST_OK:
            return self.took(x, s)
        if st != ST_MORE:
            return st
        try:
            while True:
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
                if x.cancel is not None and x.cancel.is_cancelled():
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
        if state == W_CONN:
            return self.took(x, x.waiter.slot)
        if state == W_DIAL:
            return ST_NEED_GIL
        if state == W_CLOSED:
            raise gate.cancelled("pool", "the transport was closed", None)
        if passed:
            detail = gate.pool_full((ph_now() - began) / 1e9, x.host.key, self.pool.max_per_host, self.pool.holders(x.host))
            if x.limit == LIM_TOTAL:
                raise gate.deadline_passed(x.source, "pool", None, detail)
            raise gate.timed_out(LIM_POOL, "pool", x.limits.pool / 1e9, None, detail)
        raise gate.cancelled("pool", x.cancel.reason, None)

    def forgo(self, Reply x) -> None:
        """Leave the queue; what was granted in the last moment goes to the next."""
        cdef int state
        with nogil:
            state = pool_leave(self.pool, &x.host.h, &x.waiter)
            if state == W_CONN:
                x.slot = x.waiter.slot
                x.gave = False
                self.give(x, RE_REUSE, x.slot.idle_limit, False)
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
        cdef H1Connection c
        cdef bint racing = not self.close_each
        x.t_pool = now - x.t_start
        try:
            if x.wake_handle is None:
                x.wake_handle = current_wake()
            x.waiter.wake = x.wake_handle.w
            x.waiter.holder = &x.holder
            x.waiter.state = 0
            dial = self.new_dial(x.host.dial_spec, x.limits)
            if racing:
                with nogil:
                    st = pool_race(self.pool, &x.host.h, &x.waiter, now, &s, &x.dead)
                if st == ST_OK:
                    with nogil:
                        pool_dial_failed(self.pool, &x.host.h)
                    return self.took(x, s)
        except BaseException:
            with nogil:
                pool_dial_failed(self.pool, &x.host.h)
            raise
        try:
            stream = dial.run(x.deadline, lambda: self.woken(x))
        except BaseException as e:
            with nogil:
                state = pool_leave(self.pool, &x.host.h, &x.waiter)
                pool_dial_failed(self.pool, &x.host.h)
            if state == W_CONN:
                if isinstance(e, errors.ConnectError):
                    return self.took(x, x.waiter.slot)       # the dial failed, but a connection came free
                x.waiter.state = W_CONN
                self.forgo(x)
            if not isinstance(e, Exception) or isinstance(e, errors.Error):
                raise
            phase = getattr(e, "phase", None)
            if phase is None:
                raise
            raise gate.deadline_passed(x.source, phase, None) from None
        with nogil:
            state = pool_leave(self.pool, &x.host.h, &x.waiter)
        if stream is None:
            if state == W_CONN:
                self.adopt(dial, x.host)
                return self.took(x, x.waiter.slot)
            dial.abandon()
            with nogil:
                pool_dial_failed(self.pool, &x.host.h)
            if state == W_CLOSED:
                raise gate.cancelled("connect", "the transport was closed", None)
            raise gate.cancelled("connect", x.cancel.reason, None)
        timings = dial.timings
        x.t_dns = timings.get("dns", 0)
        x.t_connect = timings.get("connect", 0)
        x.t_tls = timings.get("tls", 0)
        if state == W_CONN:
            # Both at once: ours serves this request, the other goes to the next.
            x.waiter.state = W_CONN
            self.forgo(x)
        c = H1Connection(stream, dial.info)
        pool_dialed(self.pool, x.host, c, &x.holder, ph_now(), &x.dead)
        x.slot = &c.slot
        x.reused = False
        x.idle_for = 0
        with nogil:
            if x.dead != NULL:
                bury(x.dead)
            st = self.attempt(x, False)
        return st

    def woken(self, Reply x) -> bool:
        """While dialing: was something granted, or cancelled?"""
        cdef int state
        with nogil:
            state = pool_waiter_state(self.pool, &x.waiter)
        return state == W_CONN or state == W_CLOSED or (x.cancel is not None and x.cancel.is_cancelled())

    def adopted(self, Host home, Stream stream, tuple info) -> None:
        """A dial that lost its race was finished: pooled (`stream`), or counted as failed (None)."""
        cdef Slot* dead = NULL
        if stream is None:
            with nogil:
                pool_dial_failed(self.pool, &home.h)
            return
        pool_dialed(self.pool, home, H1Connection(stream, info), NULL, ph_now(), &dead)
        with nogil:
            bury(dead)
        reap(dead)
        if self.pool.n_idle and not self.pool.watched:
            janitor.watch(self.pool)

    # --- interruptions and failures ------------------------------------------------------------------------------------

    cdef int resolve(self, Reply x, int st) except 0:
        # Do what the exchange waits for, so that it can be called again; or raise, the connection closed.
        try:
            if st == ST_NEED_GIL:
                return self.next_piece(x)
            if st == ST_INTR:
                PyErr_CheckSignals()
                return 1
            if st == ST_WOKEN:
                if x.cancel is not None and x.cancel.is_cancelled():
                    raise gate.cancelled(PHASES[x.phase], x.cancel.reason, x.conn)
                with nogil:
                    wake_clear(x.wake)
                return 1
            raise self.failure(x, st)
        except BaseException as e:
            self.abort(x, RE_TIMEOUT if st == ST_TIMEOUT else RE_SERVER_CLOSED if st == ST_STALE else
                       RE_CANCELLED if st == ST_INTR or st == ST_WOKEN else RE_ERROR)
            raise

    cdef object failure(self, Reply x, int st):
        phase = PHASES[x.phase]
        conn = x.conn
        if x.slot != NULL and x.slot.interrupted:
            return gate.cancelled(phase, "the transport was closed", conn)
        if st == ST_TIMEOUT:
            if x.limit == LIM_TOTAL:
                return gate.deadline_passed(x.source, phase, conn)
            limits = (0, x.limits.pool, x.limits.connect, x.limits.tls, x.limits.header, x.limits.read, x.limits.write)
            return gate.timed_out(x.limit, phase, limits[x.limit] / 1e9, conn)
        if st == ST_STALE:
            why = "its method is not idempotent" if not x.flags & FLAG_REPLAY else "its body cannot be sent twice"
            return gate.stale("closed by the server", conn, why)
        if st == ST_EOF:
            return gate.no_answer(conn)
        if st == ST_PROTO:
            return gate.broken(x.err, phase, x.left - (x.hi - x.lo) if x.framing == FR_LENGTH else 0, conn)
        if st == ST_TOO_LARGE:
            return gate.too_large(x.max_body, conn)
        if st == ST_IO:
            return gate.io_failed(x.wire.stream.err, phase, conn)
        if st == ST_TLS:
            return gate.tls_failed(x.wire.stream.exc, phase, conn)
        if st == ST_NOMEM:
            return MemoryError()
        return errors.TransportError(f"unexpected status {st}", phase=phase, conn=conn)

    # --- bodies --------------------------------------------------------------------------------------------------------

    cdef int next_piece(self, Reply x) except 0:
        # The upload's next piece becomes what is to be sent.
        cdef bytes piece
        cdef Py_ssize_t n
        if x.pieces is None:
            x.pieces = iter(x.source_body)
        x.n_spans = x.at_span = 0
        x.last_write = ph_now()
        for got in x.pieces:
            piece = got if type(got) is bytes else bytes(memoryview(got))
            n = PyBytes_GET_SIZE(piece)
            if n == 0:
                continue
            x.last_write = ph_now()
            if x.chunked_upload:
                line = b"%x\r\n" % n
                memcpy(x.frame, PyBytes_AS_STRING(line), PyBytes_GET_SIZE(line))
                x.spans[0].p = x.frame
                x.spans[0].n = PyBytes_GET_SIZE(line)
                x.spans[1].p = PyBytes_AS_STRING(piece)
                x.spans[1].n = n
                x.spans[2].p = b"\r\n"
                x.spans[2].n = 2
                x.n_spans = 3
            else:
                x.spans[0].p = PyBytes_AS_STRING(piece)
                x.spans[0].n = n
                x.n_spans = 1
            x.piece = piece
            return 1
        x.has_pieces = False
        if x.chunked_upload:
            x.spans[0].p = b"0\r\n\r\n"
            x.spans[0].n = 5
            x.n_spans = 1
        return 1

    cdef bytes raw(self, Reply x):
        # Raw bytes for h11: what the buffer holds, else what arrives next; b"" at the end of the connection's bytes.
        cdef ssize_t r
        cdef size_t room
        cdef bytes data
        if x.hi == x.lo:
            x.lo = x.hi = 0
            while True:
                with nogil:
                    room = x.out_at if x.sending else x.cap
                    r = (<Connection>x.slot.owner).fill(x, x.buf, room)
                    if r > 0 and not x.any_received:
                        x.any_received = True
                        x.t_first = ph_now()
                if r > 0:
                    x.hi = r
                    break
                if r == ST_EOF:
                    return b""
                self.resolve(x, <int>r)
        data = PyBytes_FromStringAndSize(x.buf + x.lo, x.hi - x.lo)
        x.lo = x.hi = 0
        return data

    cdef int fallback_head(self, Reply x) except 0:
        # h11 decides this response from its first byte on.
        from pooledhttp._proto.fallback import Fallback

        x.framing = FR_FALLBACK
        x.phase = PH_HEADERS
        try:
            fb = Fallback(x.method, self.max_head)
            while True:
                fb.feed(self.raw(x))
                head = fb.head()
                if head is not None:
                    break
        except errors.Error as e:
            e.conn = x.conn
            raise
        x.fallback = fb
        x.t_head = ph_now()
        x.stage = XS_BODY
        x.phase = PH_BODY
        x.status = head.status
        x.head = head.fields
        x._reason = head.reason.decode("latin-1")
        x.facts.status = head.status
        x.facts.minor = head.minor
        x.facts.conn_close = head.conn_close or head.until_close
        x.facts.conn_keep_alive = head.conn_keep_alive
        x.facts.keep_alive_timeout = head.keep_alive_timeout
        if x.sending and (head.status >= 400 or x.facts.conn_close or (head.minor == 0 and not head.conn_keep_alive)):
            x.sending = False
            x.send_broke = True
            x.has_pieces = False
        if x.max_body >= 0 and head.content_length > x.max_body and not x.no_body_method:
            raise self.failure(x, ST_TOO_LARGE)
        return 1

    cdef int fallback_body(self, Reply x) except 0:
        # h11 goes on in the middle of a chunked body.
        from pooledhttp._proto.fallback import Fallback

        fb = Fallback.resume_chunked(x.chunks.state, self.max_head)
        if x.hi > x.lo:
            fb.feed(PyBytes_FromStringAndSize(x.buf + x.lo, x.hi - x.lo))
        x.lo = x.hi = 0
        if x.body_len:
            x.rest = PyBytes_FromStringAndSize(x.buf + x.body_off, x.body_len)
            x.body_len = 0
        x.fallback = fb
        x.framing = FR_FALLBACK
        return 1

    cdef bytes fallback_data(self, Reply x):
        # Some of the body, b"" at its end.
        cdef int st
        try:
            while True:
                data = x.fallback.data()
                if data is None:
                    x.fallback.feed(self.raw(x))
                    continue
                if not data and x.stage != XS_DONE:
                    while x.sending:
                        with nogil:
                            st = (<Connection>x.slot.owner).finish_sending(x)
                        if st != ST_OK:
                            self.resolve(x, st)
                    x.stage = XS_DONE
                    x.t_done = ph_now()
                    if x.fallback.leftover:
                        x.facts.conn_close = 1
                return data
        except errors.Error as e:
            if e.conn is None:
                e.conn = x.conn
            if x.slot != NULL:
                self.abort(x, RE_ERROR)
            raise

    cdef bytes read_rest(self, Reply x, int64_t limit):
        # The rest of the body into one bytes object, whose memory grows as bytes arrive.
        cdef PyObject* b
        cdef Py_ssize_t cap, off = 0, want
        cdef ssize_t r = 0
        cdef int64_t known = -1
        if x.framing == FR_FALLBACK or x.rest is not None:
            return self.fallback_rest(x, limit)
        if x.slot == NULL:
            return b""
        if x.framing == FR_LENGTH:
            known = <int64_t>x.left
            if limit >= 0 and known > limit:
                self.abort(x, RE_ERROR)
                raise gate.too_large(limit, x.conn)
        cap = <Py_ssize_t>min(known, STEP) if known >= 0 else 131072 + <Py_ssize_t>x.body_len
        b = c_bytes_new(NULL, cap)
        try:
            while True:
                with nogil:
                    while off < cap:
                        r = (<Connection>x.slot.owner).read_body(x, c_bytes_at(b) + off, cap - off)
                        if r <= 0:
                            break
                        off += r
                        if limit >= 0 and off > limit:
                            r = ST_TOO_LARGE
                            break
                    if off == cap and off == known:
                        r = (<Connection>x.slot.owner).read_body(x, c_bytes_at(b) + off, 0)
                if r == ST_EOF:
                    break
                if r == ST_TOO_LARGE:
                    self.abort(x, RE_ERROR)
                    raise gate.too_large(limit, x.conn)
                if r > 0:
                    want = cap + (cap if cap < STEP else STEP)
                    if known >= 0 and want > known:
                        want = <Py_ssize_t>known
                    _PyBytes_Resize(&b, want)
                    cap = want
                    continue
                if r == ST_UNSURE:
                    self.fallback_body(x)
                    x.rest = c_slice(b, off)
                    return self.fallback_rest(x, limit)
                self.resolve(x, <int>r)
            self.finish(x)
            if off < cap:
                _PyBytes_Resize(&b, off)
            return <object>b
        finally:
            Py_XDECREF(b)

    def fallback_rest(self, Reply x, int64_t limit) -> bytes:
        parts = []
        size = 0
        if x.rest is not None:
            parts.append(x.rest)
            size = len(x.rest)
            x.rest = None
        while True:
            if limit >= 0 and size > limit:
                self.abort(x, RE_ERROR)
                raise gate.too_large(limit, x.conn)
            data = self.fallback_data(x)
            if not data:
                break
            parts.append(data)
            size += len(data)
        self.finish(x)
        return b"".join(parts)


cdef bytes c_slice(PyObject* b, Py_ssize_t n):
    return PyBytes_FromStringAndSize(c_bytes_at(b), n)


def gil_releases() -> int:
    return ph_gil_releases()
