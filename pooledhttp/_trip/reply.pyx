# cython: infer_types=False
"""The response side of a round trip: its connection held and given back, its body read, statuses turned into errors."""
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

from pooledhttp._conn.connection cimport (
    FLAG_CLOSE, FLAG_REPLAY, FLAG_SAID_CLOSE, FLAG_STREAM, FR_CLOSE, FR_FALLBACK, FR_LENGTH, TELL_CONN, TELL_FIRST, TELL_INTERIM, TELL_SEEN, TELL_SENT,
    WHAT_IS_THERE, XS_BODY, XS_DONE, XS_HEAD, Connection, FilePiece, provisional, see_coding,
)
from pooledhttp._core.compat cimport ph_add_int, ph_gil_releases, ph_now
from pooledhttp._core.runtime cimport unsettled, wake_clear
from pooledhttp._core.status cimport (
    LIM_TOTAL, PH_BODY, PH_HEADERS, RE_CANCELLED, RE_DRAIN_LIMIT, RE_ERROR, RE_REUSE, RE_SERVER_CLOSED, RE_TIMEOUT, ST_AGAIN, ST_BROKE, ST_EOF, ST_H1, ST_INTR,
    ST_IO, ST_NEED_GIL, ST_NOMEM, ST_OK, ST_PROTO, ST_STALE, ST_TELL, ST_TIMEOUT, ST_TLS, ST_TOO_LARGE, ST_UNDONE, ST_UNSURE, ST_WOKEN,
)
from pooledhttp._net.tls cimport TlsStream
from pooledhttp._pool.core cimport bury, pool_count, pool_give, pool_interrupt, reap, slot_release

from functools import partial

from pooledhttp import errors
from pooledhttp._core import runtime
from pooledhttp._core.runtime import current_wake
from pooledhttp._pool import stats
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
    DRAIN = 262144           # bytes of a body that nobody wants are read, for the connection's sake
    SCRATCH = 65536

cdef tuple PHASES = errors.PHASES
cdef str HTTP11 = "HTTP/1.1"
cdef str HTTP10 = "HTTP/1.0"
cdef str HTTP2 = "HTTP/2"
cdef dict REASONS = {b"Not Found": "Not Found", b"No Content": "No Content", b"": ""}


@cython.no_gc_clear
cdef class Reply(Exchange):
    """A response as the transport gives it: the head, and the body whole (`content`) or unread.

    `head` is the validated field lines (`Name: value` CRLF each, unfolded) as bytes; header values are latin-1.
    """

    def __dealloc__(self):
        if self.slot != NULL:
            # Collected with its body unread: the connection cannot serve again.
            with nogil:
                self.give((<Connection>self.slot.owner).part(self, RE_ERROR), -1, True)
                slot_release(self.slot)
            self.slot = NULL
        if self.dead != NULL:
            reap(self.dead, self.tale, True)
            self.dead = NULL

    @property
    def holds(self) -> bool:
        """True until the connection is given back, or somebody else sees to it."""
        return self.slot != NULL and not self.draining

    @property
    def reason(self) -> str | None:
        """None: HTTP/2 says none (RFC 9113 section 8.3.2)."""
        return None if self.facts.minor == 2 else self._reason

    @property
    def version(self) -> str:
        return HTTP11 if self.facts.minor == 1 else HTTP2 if self.facts.minor == 2 else HTTP10

    @property
    def notes(self) -> int:
        """Bits: 1, the head has a Set-Cookie field; 2, a Content-Encoding field. 0 for a plain response."""
        return self.facts.notes

    @property
    def trailers(self) -> list:
        """The trailer fields, (name, value) each, once the body has ended."""
        if self.tail != NULL and self.stage == XS_DONE:
            return header_pairs(PyBytes_FromStringAndSize(self.tail, self.n_tail))
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
        self._enter()
        try:
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
        finally:
            self._leave()

    def readinto(self, buffer) -> int:
        """Fill `buffer` (writable, contiguous) with bytes of the body as they arrive: how many, 0 at its end."""
        cdef unsigned char[::1] view
        cdef memoryview m = memoryview(buffer).cast("B")
        cdef bytes data
        if m.nbytes == 0:
            return 0
        view = m
        self._enter()
        try:
            if self.framing == FR_FALLBACK and self.stage != XS_DONE:
                data = self._fallback_read(m.nbytes)
                m[:len(data)] = data
                return len(data)
            return self._read(<char*>&view[0], m.nbytes)
        finally:
            self._leave()

    def read_all(self, int64_t limit=-1) -> bytes:
        """The rest of the body; over `limit` bytes (-1: none) it is a `ResponseTooLarge`."""
        self._enter()
        try:
            self._check()
            if self.cancel is None:
                return self.read_rest(limit)
            with Obeying(self):
                return self.read_rest(limit)
        finally:
            self._leave()

    cdef object _enter(self):
        if unsettled():
            runtime.settle()
        # One thread at a time: there is one buffer and one connection, and the first to see the end gives both back.
        if ph_add_int(&self.busy, 1) != 1:
            ph_add_int(&self.busy, -1)
            raise errors.StreamError("another thread reads this response")
        self.asked = ph_now()                  # by Python's own loop, a moment ago

    cdef object _leave(self):
        ph_add_int(&self.busy, -1)
        if self.closed and self.slot != NULL:
            self.close()                   # asked for meanwhile

    cdef object _check(self):
        if self.stage == XS_DONE and not self.draining:        # what is drained is the janitor's, and its end is not the reader's
            return
        if self.failed is not None:
            raise self.failed
        if self.closed or self.draining or self.slot == NULL:
            raise errors.StreamClosed("the response is closed")

    cdef Py_ssize_t _read(self, char* at, Py_ssize_t n) except -1:
        self._check()
        if self.cancel is None:
            return self._read_on(at, n)
        # Obeyed on whatever thread reads.
        with Obeying(self):
            return self._read_on(at, n)

    cdef Py_ssize_t _read_on(self, char* at, Py_ssize_t n) except -1:
        cdef ssize_t r
        while True:
            with nogil:
                r = (<Connection>self.slot.owner).read_body(self, at, n) if self.slot != NULL else ST_EOF
            if r > 0:
                return r
            if r == ST_EOF:
                self.finish()
                return 0
            if r == ST_UNSURE:
                self.fallback_body()
                data = self._fallback_read(n)
                memcpy(at, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
                return PyBytes_GET_SIZE(data)
            self.resolve(<int>r)

    cdef bytes _fallback_read(self, Py_ssize_t n):
        cdef bytes data
        self._check()
        if self.cancel is not None and self.wake == NULL:
            with Obeying(self):
                return self._fallback_read(n)
        data = self.rest if self.rest is not None else self.fallback_data()
        self.rest = data[n:] if len(data) > n else None
        if not data:
            self.finish()
        return data[:n] if len(data) > n else data

    def close(self) -> None:
        """Give the connection back where the rest of the body is there soon (up to 256 KiB, 50 ms: in the background), else close it. Never waits.

        Where another thread is just reading, its read ends with StreamClosed, or with what had arrived.
        """
        self.closed = True
        if unsettled():
            runtime.settle()
        if ph_add_int(&self.busy, 1) == 1:
            try:
                self._close()
            finally:
                ph_add_int(&self.busy, -1)
            return
        ph_add_int(&self.busy, -1)
        cdef Slot* s = self.slot
        cdef Slot* dead = NULL
        if s == NULL or (<Connection>s.owner).disturb(self):
            return
        ph_add_int(&s.refs, 1)             # the reader may give its own back at any time
        with nogil:
            pool_interrupt(self.pool, s, &self.holder, &dead)
            slot_release(s)
        reap(dead, self.tale)

    cdef object _close(self):
        if self.slot == NULL or self.draining:
            return
        if self.may_drain():
            self.hand_over(RE_DRAIN_LIMIT)
        else:
            self.abort(RE_DRAIN_LIMIT)

    # --- the body, unwanted --------------------------------------------------------------------------------------------

    cdef bint may_drain(self) noexcept nogil:
        # Whether the connection could serve again once the answer is read to its end.
        if (<Connection>self.slot.owner).shared():
            return False                   # its stream is given up, the connection is not
        if self.stage != XS_HEAD and (self.facts.conn_close or (self.facts.minor == 0 and not self.facts.conn_keep_alive)):
            return False
        return not (self.sending or self.t_sent == 0 or self.send_broke or self.framing == FR_FALLBACK or self.framing == FR_CLOSE
                    or self.flags & (FLAG_CLOSE | FLAG_SAID_CLOSE) or self.slot.interrupted or (self.framing == FR_LENGTH and self.left > DRAIN))

    cdef object hand_over(self, int reason):
        """What has arrived is read now, and what comes within `DRAIN_NS` by the janitor; then the connection is pooled, or closed for `reason`."""
        self.draining = True
        self.drain_reason = reason
        self.deadline = WHAT_IS_THERE
        self.flags |= FLAG_STREAM
        self.bulk = False
        self.telling &= ~(TELL_FIRST | TELL_INTERIM)
        self.wake = NULL
        self.wake_handle = None
        if not self.drain_step():
            janitor.drain(self)

    cdef int skim(self) noexcept nogil:
        # ST_OK: the answer is at its end; ST_AGAIN: more is to come; else it is not worth it.
        cdef char* scratch
        cdef ssize_t r = ST_OK
        if self.slot.interrupted:
            return ST_IO
        if self.stage == XS_HEAD:
            r = (<Connection>self.slot.owner).exchange(self)
            if r != ST_OK:
                return ST_AGAIN if r == ST_TIMEOUT else <int>r
        if self.stage == XS_DONE:
            return ST_OK
        if self.framing == FR_CLOSE:
            return ST_TOO_LARGE
        scratch = <char*>malloc(SCRATCH)
        if scratch == NULL:
            return ST_NOMEM
        while self.framing != FR_LENGTH or self.left + self.drained <= DRAIN:
            r = (<Connection>self.slot.owner).read_body(self, scratch, SCRATCH)
            if r <= 0:
                break
            self.drained += r
            if self.drained > DRAIN:
                break
        free(scratch)
        if r == ST_EOF:
            return ST_OK
        return ST_TOO_LARGE if r >= 0 else ST_AGAIN if r == ST_TIMEOUT else <int>r

    def drain_step(self) -> bool:
        """Throw away what has arrived. True: that was all, or enough, and the connection is pooled or closed."""
        cdef int st
        with nogil:
            st = self.skim()
        if st == ST_AGAIN:
            return False
        if st == ST_OK:
            self.finish()
        else:
            self.abort(self.drain_reason)
        return True

    def drain_end(self) -> None:
        """The time is over."""
        if self.slot != NULL:
            self.abort(self.drain_reason)

    def fileno(self) -> int:
        """The connection's descriptor while it is held, else -1."""
        return (<Connection>self.slot.owner).fileno() if self.slot != NULL else -1

    def drain(self, int64_t until) -> None:
        """Take the rest of the body so that its connection can serve again, until `until` (monotonic ns) at the latest; else close it.

        At most 256 KiB are taken, and nothing where the connection could not serve again anyway. Raises Cancelled.
        """
        self._enter()
        try:
            if self.slot == NULL or self.draining:
                return
            if (<Connection>self.slot.owner).shared() or self.framing == FR_CLOSE or self.facts.conn_close or self.flags & (FLAG_CLOSE | FLAG_SAID_CLOSE):
                self._close()
            elif self.cancel is None:
                self._drain(until)
            else:
                with Obeying(self):
                    self._drain(until)
        finally:
            self.closed = True
            self._leave()

    cdef object _drain(self, int64_t until):
        cdef char* scratch
        cdef ssize_t r = 0
        cdef size_t seen = 0
        if self.deadline < 0 or until < self.deadline:
            self.deadline = until
        block = PyBytes_FromStringAndSize(NULL, 65536)
        scratch = PyBytes_AS_STRING(block)
        if self.sending and self.has_pieces and self.at_span == self.n_spans and self.file_left == 0:
            # All may be sent, and nobody asked for another piece yet.
            self.next_piece()
            if not self.has_pieces:
                with nogil:
                    r = (<Connection>self.slot.owner).finish_sending(self)
        while not (self.framing == FR_FALLBACK or self.failed is not None or self.sending or seen > DRAIN
                   or (self.framing == FR_LENGTH and self.left > DRAIN)):
            with nogil:
                r = (<Connection>self.slot.owner).read_body(self, scratch, 65536)
            if r == ST_EOF:
                self.finish()
                return
            if r > 0:
                seen += r
            elif r == ST_INTR or r == ST_WOKEN or r == ST_TELL:
                self.resolve(<int>r)
            else:
                break
        self.abort(RE_DRAIN_LIMIT)

    def leak(self) -> None:
        """Closed because its last reference went: counts in `stats().leaked`."""
        if self.slot != NULL:
            with nogil:
                pool_count(self.pool, &self.host.h, &self.host.h.leaked, 1)
        self.collected = True
        self.close()

    # --- from statuses to results --------------------------------------------------------------------------------------

    cdef void give(self, int verdict, int64_t idle_limit, bint used) noexcept nogil:
        if self.gave:
            return
        self.gave = True
        self.offered = verdict == RE_REUSE
        self.given = pool_give(self.pool, self.slot, verdict, idle_limit, used, ph_now(), &self.dead)
        if self.dead != NULL:
            bury(self.dead)

    cdef object settle(self):
        # All is in the buffer, and the connection is given back.
        self.take_head()
        if not self.flags & FLAG_STREAM:
            self.content = PyBytes_FromStringAndSize(self.buf + self.body_off, self.body_len)
        self.finish()
        return self

    cdef object take_head(self):
        cdef char* at = self.buf + self.head_at
        cdef bytes phrase
        cdef size_t n = self.facts.reason_len
        self.status = self.facts.status
        self.head = PyBytes_FromStringAndSize(at + self.facts.fields_off, self.facts.fields_len)
        if n == 2 and memcmp(at + self.facts.reason_off, b"OK", 2) == 0:
            self._reason = "OK"                # nearly always
            return
        phrase = PyBytes_FromStringAndSize(at + self.facts.reason_off, n)
        self._reason = REASONS.get(phrase)
        if self._reason is None:
            self._reason = phrase.decode("latin-1")

    cdef object finish(self):
        # The exchange is over in both directions, or aborted: the connection goes back, the buffer too.
        cdef int64_t idle_limit = -1
        cdef int verdict
        if self.slot != NULL:
            if not self.gave:
                with nogil:
                    verdict = (<Connection>self.slot.owner).verdict(self, &idle_limit)
                    self.give(verdict, idle_limit, True)
            self.wire = <Connection>self.slot.owner
            slot_release(self.slot)
            self.slot = NULL
        self.drop_buffer()
        if self.h2 != NULL:
            self.drop_h2()
        self.pieces = self.piece = self.source_body = None
        self.body = None
        self.wake = NULL
        self.wake_handle = None
        if self.pool.n_idle and not self.pool.watched:
            janitor.watch(self.pool)
        if self.telling:
            self.tell_end()
        elif self.dead != NULL:
            self.tell_lost()

    cdef object abort(self, int reason):
        # Whatever went wrong: this connection is closed, and nothing of x is left in the pool.
        if self.slot != NULL:
            with nogil:
                if not self.gave:
                    reason = (<Connection>self.slot.owner).part(self, reason)
                self.give(reason, -1, True)
        self.finish()

    cdef int resolve(self, int st) except 0:
        # Do what the exchange waits for, so that it can be called again; or raise, the connection closed.
        try:
            if st == ST_NEED_GIL:
                self.next_piece()
                # A request that the iterator made on this thread may have taken the wake-up that was meant for us.
                self.obey()
                return 1
            if st == ST_INTR:
                PyErr_CheckSignals()
                return 1
            if st == ST_TELL:
                self.tell_wire()
                self.obey()                    # as above
                return 1
            if st == ST_WOKEN:
                # Cleared first, looked at second: a cancel in between signals again.
                with nogil:
                    wake_clear(self.wake)
                self.obey()
                return 1
            raise self.failure(st)
        except BaseException as e:
            # `ssl` and an upload's iterator run the handlers of signals too.
            broken_off = not isinstance(e, Exception) or (st == ST_TLS and self.wire.stream.foreign and not isinstance(e, MemoryError))
            if isinstance(e, errors.Error):
                self.failed = e
            else:
                # A signal's handler, or the upload's iterator: what is read next must not look like the body's end.
                self.failed = errors.StreamClosed(f"the response is closed: {type(e).__name__} broke off its reading")
                if self.telling:
                    self.failed.__cause__ = e
            if self.slot != NULL and self.by_context(st, e) and self.may_drain():
                self.hand_over(RE_TIMEOUT if st == ST_TIMEOUT else RE_CANCELLED)
                raise
            self.abort(RE_TIMEOUT if st == ST_TIMEOUT else RE_SERVER_CLOSED if st == ST_STALE else
                       RE_CANCELLED if st == ST_INTR or st == ST_WOKEN or broken_off or isinstance(e, errors.Cancelled) else RE_ERROR)
            raise

    cdef bint by_context(self, int st, object e) except -1:
        # Its end says nothing of the connection, unlike the request's or the client's deadline.
        if st == ST_TIMEOUT:
            return self.limit == LIM_TOTAL and self.source == "context"
        return (st == ST_WOKEN or st == ST_TELL) and self.cancel is not None and self.cancel.drains and isinstance(e, errors.Cancelled)

    cdef object obey(self):
        if self.cancel is not None and self.cancel.is_cancelled():
            raise gate.cancelled(PHASES[self.phase], self.cancel.reason, self.conn)

    cdef object failure(self, int st):
        phase = PHASES[self.phase]
        conn = self.conn
        if self.closed:
            return errors.StreamClosed("the response was closed while it was read")
        if self.slot != NULL and self.slot.interrupted:
            return gate.cancelled(phase, "the transport was closed", conn)
        if st == ST_TIMEOUT:
            if self.limit == LIM_TOTAL:
                return gate.deadline_passed(self.source, phase, conn, self.limits.total / 1e9)
            limits = (0, self.limits.pool, self.limits.connect, self.limits.tls, self.limits.header, self.limits.read, self.limits.write)
            return gate.timed_out(self.limit, phase, limits[self.limit] / 1e9, conn)
        if st == ST_UNDONE or st == ST_H1:
            return gate.undone(st == ST_H1, conn)
        if st == ST_STALE:
            if not self.may_retry:
                why = "retry_stale is off"
            elif self.any_sent and not self.flags & FLAG_REPLAY:
                why = "its method is not idempotent"
            else:
                why = "its body cannot be sent twice"
            return gate.stale(self.err, conn, why)
        if st == ST_EOF:
            return gate.no_answer(conn)
        if st == ST_PROTO or st == ST_BROKE:
            return gate.broken(self.err, phase, self.left - (self.hi - self.lo) if self.framing == FR_LENGTH else 0, conn)
        if st == ST_TOO_LARGE:
            return gate.too_large(self.max_body, conn)
        if st == ST_IO:
            return gate.io_failed(self.wire.stream.err, phase, conn, not self.any_received)
        if st == ST_TLS:
            if (<TlsStream>self.wire.stream).truncated:
                return gate.tls_cut(phase, conn)
            if self.wire.stream.foreign:
                return self.wire.stream.exc              # not ours to word
            return gate.tls_failed(self.wire.stream.exc, phase, conn, self.host.key)
        if st == ST_NOMEM:
            return MemoryError()
        return errors.TransportError(f"unexpected status {st}", phase=phase, conn=conn)

    # --- to those who follow -------------------------------------------------------------------------------------------

    cdef object tell_conn(self):
        # It has a connection, and nothing is sent yet.
        self.wire = <Connection>self.slot.owner
        self.tell_lost()
        self.telling = <int>self.tale.bits | TELL_CONN
        self.tale.tell("got_conn", self.conn)
        self.obey()                            # a request made by the hook may have taken the wake-up that was meant for us

    cdef object tell_wire(self):
        # What happened on the wire since it was last told.
        if self.telling & TELL_SENT and self.t_sent and not self.sending:
            self.telling &= ~TELL_SENT
            self.tale.tell("wrote_request", gate.answered_early(self.conn) if self.send_broke else None)
        if self.telling & TELL_FIRST and self.any_received:
            self.telling &= ~TELL_FIRST
            self.tale.tell("first_byte")
        if self.telling & TELL_SEEN:
            self.telling &= ~TELL_SEEN
            block = PyBytes_FromStringAndSize(self.buf + self.head_at + self.facts.fields_off, self.facts.fields_len)
            self.tale.tell("got_1xx", self.facts.status, header_pairs(block))

    cdef object tell_lost(self):
        # Connections were closed on the way, the last of them perhaps this exchange's.
        cdef Slot* dead = self.dead
        self.dead = NULL
        reap(dead, self.tale, self.collected)

    cdef object tell_end(self):
        # The connection is given back, and nothing more is to be done.
        error = self.failed
        if isinstance(error, errors.StreamClosed) and error.__cause__ is not None:
            error = error.__cause__
        try:
            if self.collected:
                if self.telling & TELL_CONN and self.offered:
                    janitor.tell(partial(self.tale.tell, "put_idle", None if self.given == RE_REUSE else stats.CLOSE_REASONS[self.given]))
                return
            if self.telling & TELL_CONN:
                if self.telling & TELL_SENT and (self.sending or self.send_broke) and error is not None:
                    self.telling &= ~TELL_SENT
                    self.tale.tell("wrote_request", error)
                self.tell_wire()
                if self.offered:
                    self.tale.tell("put_idle", None if self.given == RE_REUSE else stats.CLOSE_REASONS[self.given])
        finally:
            self.telling = 0
            self.tell_lost()

    # --- uploads -------------------------------------------------------------------------------------------------------

    cdef int next_piece(self) except 0:
        # The upload's next piece becomes what is to be sent.
        cdef bytes piece
        cdef Py_ssize_t n
        if self.pieces is None:
            sendable = getattr(self.source_body, "sendable", None)
            self.pieces = iter(self.source_body) if sendable is None else sendable()
            self.to_come = -1 if self.source_body.length is None else self.source_body.length
        self.n_spans = self.at_span = 0
        self.last_write = ph_now()
        if self.file_left > 0:
            raise gate.file_failed((<Connection>self.slot.owner).stream.err, self.file_left, self.source_body.length, self.conn)
        for got in self.pieces:
            self.last_write = ph_now()
            if type(got) is FilePiece:
                if self.chunked_upload:
                    raise TypeError("a part of a file is sent only where the body's length is known")
                self.piece = got
                self.file_fd = (<FilePiece>got).fd
                self.file_at = (<FilePiece>got).at
                self.file_left = (<FilePiece>got).size
                self.took_piece(self.file_left)
                return 1
            piece = got if type(got) is bytes else bytes(memoryview(got))
            n = PyBytes_GET_SIZE(piece)
            if n == 0:
                continue
            if self.chunked_upload and self.framed:
                line = b"%x\r\n" % n
                memcpy(self.frame, PyBytes_AS_STRING(line), PyBytes_GET_SIZE(line))
                self.spans[0].p = self.frame
                self.spans[0].n = PyBytes_GET_SIZE(line)
                self.spans[1].p = PyBytes_AS_STRING(piece)
                self.spans[1].n = n
                self.spans[2].p = b"\r\n"
                self.spans[2].n = 2
                self.n_spans = 3
            else:
                self.spans[0].p = PyBytes_AS_STRING(piece)
                self.spans[0].n = n
                self.n_spans = 1
            self.piece = piece
            self.took_piece(n)
            return 1
        self.has_pieces = False
        if self.chunked_upload:
            tail = getattr(self.source_body, "trailer_section", None)
            if not self.framed:
                if tail is not None:
                    piece = tail()
                    self.n_tail = PyBytes_GET_SIZE(piece)
                    self.tail = <char*>malloc(self.n_tail or 1)
                    if self.tail == NULL:
                        raise MemoryError()
                    memcpy(self.tail, PyBytes_AS_STRING(piece), self.n_tail)
                return 1
            piece = b"0\r\n\r\n" if tail is None else b"0\r\n%b\r\n" % tail()
            self.spans[0].p = PyBytes_AS_STRING(piece)
            self.spans[0].n = PyBytes_GET_SIZE(piece)
            self.n_spans = 1
            self.piece = piece
        return 1

    cdef object took_piece(self, int64_t n):
        # An answer to the last byte may be here before anybody asks whether it was the last: so that is known with the last piece.
        if self.to_come < 0:
            return
        self.to_come -= n
        if self.to_come == 0:
            for _ in self.pieces:
                raise errors.LocalProtocolError(f"the request's body is longer than its Content-Length of {self.source_body.length}", phase="send")
            self.has_pieces = False
            self.last_write = ph_now()

    # --- bodies --------------------------------------------------------------------------------------------------------

    cdef bytes raw(self):
        # Raw bytes for h11: what the buffer holds, else what arrives next; b"" at the end of the connection's bytes.
        cdef ssize_t r
        cdef size_t room
        cdef bytes data
        if self.hi == self.lo:
            self.lo = self.hi = 0
            self.asked = ph_now()
            while True:
                with nogil:
                    room = self.out_at if self.sending else self.cap
                    r = (<Connection>self.slot.owner).fill(self, self.buf, room)
                    if r > 0 and not self.any_received:
                        self.any_received = True
                        self.t_first = ph_now()
                if r > 0:
                    self.hi = r
                    if self.telling:
                        self.tell_wire()
                    break
                if r == ST_EOF:
                    return b""
                self.resolve(<int>r)
        data = PyBytes_FromStringAndSize(self.buf + self.lo, self.hi - self.lo)
        self.lo = self.hi = 0
        return data

    cdef int fallback_head(self) except 0:
        # h11 decides this response from its first byte on.
        from pooledhttp._proto.fallback import Fallback

        told = 0
        self.framing = FR_FALLBACK
        self.phase = PH_HEADERS
        try:
            fb = Fallback(self.method, self.max_head)
            while True:
                fb.feed(self.raw())
                head = fb.head()
                if self.telling & TELL_INTERIM:
                    for status, block in fb.interim[told:]:
                        told += 1
                        self.tale.tell("got_1xx", status, header_pairs(block))
                if head is not None:
                    break
                if self.expecting and any([status == 100 for status, _ in fb.interim]):
                    (<Connection>self.slot.owner).go_on(self)
        except errors.Error as e:
            e.conn = self.conn
            raise
        self.fallback = fb
        self.t_head = ph_now()
        self.stage = XS_BODY
        self.phase = PH_BODY
        self.status = head.status
        self.head = head.fields
        self._reason = head.reason.decode("latin-1")
        self.facts.status = head.status
        self.facts.minor = head.minor
        self.facts.conn_close = head.conn_close or head.until_close
        self.facts.conn_keep_alive = head.conn_keep_alive
        self.facts.keep_alive_timeout = head.keep_alive_timeout
        self.facts.notes = head.notes
        see_coding(self)
        if self.sending and (head.status >= 400 or self.facts.conn_close or (head.minor == 0 and not head.conn_keep_alive) or self.expecting):
            self.sending = False
            self.send_broke = True
            self.has_pieces = False
        if (self.max_body >= 0 and head.content_length > self.max_body and not self.no_body_method and head.status not in (204, 304)
                and not provisional(self)):
            raise self.failure(ST_TOO_LARGE)
        return 1

    cdef int fallback_body(self) except 0:
        # h11 goes on in the middle of a chunked body.
        from pooledhttp._proto.fallback import Fallback

        fb = Fallback.resume_chunked(self.chunks.state, self.max_head)
        if self.hi > self.lo:
            fb.feed(PyBytes_FromStringAndSize(self.buf + self.lo, self.hi - self.lo))
        self.lo = self.hi = 0
        if self.body_len:
            self.rest = PyBytes_FromStringAndSize(self.buf + self.body_off, self.body_len)
            self.body_len = 0
        self.fallback = fb
        self.framing = FR_FALLBACK
        return 1

    cdef bytes fallback_data(self):
        # Some of the body, b"" at its end.
        cdef int st
        try:
            while True:
                data = self.fallback.data()
                if data is None:
                    self.fallback.feed(self.raw())
                    continue
                if not data and self.stage != XS_DONE:
                    while self.sending:
                        with nogil:
                            st = (<Connection>self.slot.owner).finish_sending(self)
                        if st != ST_OK:
                            self.resolve(st)
                    self.stage = XS_DONE
                    self.t_done = ph_now()
                    if self.fallback.leftover:
                        self.facts.conn_close = 1
                return data
        except errors.Error as e:
            if e.conn is None:
                e.conn = self.conn
            self.failed = e
            self.abort(RE_ERROR)
            raise
        except BaseException as e:
            # A signal's handler, in the midst of h11: what it had in hand is lost.
            if self.failed is None:
                self.failed = errors.StreamClosed(f"the response is closed: {type(e).__name__} broke off its reading")
            self.abort(RE_CANCELLED)
            raise

    cdef bytes read_rest(self, int64_t limit):
        # The rest of the body into one bytes object, whose memory grows as bytes arrive.
        cdef PyObject* b
        cdef Py_ssize_t cap, off = 0, want
        cdef ssize_t r = 0
        cdef int64_t known = -1
        if self.framing == FR_FALLBACK or self.rest is not None:
            return self.fallback_rest(limit)
        if self.slot == NULL:
            return b""
        if self.framing == FR_LENGTH:
            known = <int64_t>self.left
            if limit >= 0 and known > limit:
                self.abort(RE_ERROR)
                raise gate.too_large(limit, self.conn)
        self.bulk = known > 0
        cap = <Py_ssize_t>min(known, STEP) if known >= 0 else 131072 + <Py_ssize_t>self.body_len
        b = c_bytes_new(NULL, cap)
        try:
            while True:
                with nogil:
                    while off < cap:
                        r = (<Connection>self.slot.owner).read_body(self, c_bytes_at(b) + off, cap - off)
                        if r <= 0:
                            break
                        off += r
                        if limit >= 0 and off > limit:
                            r = ST_TOO_LARGE
                            break
                    if off == cap and off == known:
                        r = (<Connection>self.slot.owner).read_body(self, c_bytes_at(b) + off, 0)
                if r == ST_EOF:
                    break
                if r == ST_TOO_LARGE:
                    self.abort(RE_ERROR)
                    raise gate.too_large(limit, self.conn)
                if r > 0:
                    want = cap + (cap if cap < STEP else STEP)
                    if known >= 0 and want > known:
                        want = <Py_ssize_t>known
                    _PyBytes_Resize(&b, want)
                    cap = want
                    continue
                if r == ST_UNSURE:
                    self.fallback_body()
                    self.rest = c_slice(b, off)
                    return self.fallback_rest(limit)
                self.resolve(<int>r)
            self.finish()
            if off < cap:
                _PyBytes_Resize(&b, off)
            return <object>b
        finally:
            Py_XDECREF(b)

    cdef bytes fallback_rest(self, int64_t limit):
        parts = []
        size = 0
        if self.rest is not None:
            parts.append(self.rest)
            size = len(self.rest)
            self.rest = None
        while True:
            if limit >= 0 and size > limit:
                self.abort(RE_ERROR)
                raise gate.too_large(limit, self.conn)
            data = self.fallback_data()
            if not data:
                break
            parts.append(data)
            size += len(data)
        self.finish()
        return b"".join(parts)


cdef WakeHandle wake_of_thread():
    """This thread's wake handle; where the process has no descriptor left, that is an error of the request's."""
    try:
        return current_wake()
    except OSError as e:
        raise errors.TransportError(e.strerror or str(e), phase="pool", errno=e.errno) from e


cdef list header_pairs(bytes block):
    # Validated field lines, as (name, value) each.
    parts = [line.partition(b":") for line in block.split(b"\r\n") if line]
    return [(name.decode("latin-1"), value.strip(b" \t").decode("latin-1")) for name, _, value in parts]


cdef class Obeying:
    """While this thread works on a reply, the reply's canceller can wake it."""

    def __cinit__(self, Reply reply):
        self.reply = reply
        self.handle = wake_of_thread()

    def __enter__(self):
        cdef Reply x = self.reply
        self.handle.enter()
        x.cancel.enter(self.handle)
        x.wake = self.handle.w
        if x.cancel.is_cancelled():
            self.handle.signal()

    def __exit__(self, *exc):
        self.reply.wake = NULL
        self.reply.cancel.leave(self.handle)
        self.handle.leave()


cdef bytes c_slice(PyObject* b, Py_ssize_t n):
    return PyBytes_FromStringAndSize(c_bytes_at(b), n)


def gil_releases() -> int:
    return ph_gil_releases()
