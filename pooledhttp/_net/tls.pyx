"""TLS over a socket as a Stream: the standard `ssl` module over two memory BIOs, on our own socket loop.

Sockets, deadlines and wake-ups stay ours; TLS only turns bytes into bytes. Once the handshake is done that is OpenSSL's own work, called without
the GIL (openssl.pyx, the `..._direct` methods). Where that is not to be had, it is `ssl`'s (`..._by_ssl`), and the GIL is taken for its short calls
and for nothing else: one write and one `outgoing.read` to send, one `incoming.write` and one read to receive a small answer, with no exception raised.
A receive waits until a whole record is there before either is called.

The peer's end counts as clean only by its close_notify (RFC 8446 section 6.1). `incoming` is never told of the socket's end, since
CPython's contexts make OpenSSL take a bare end for a close_notify (SSL_OP_IGNORE_UNEXPECTED_EOF).

Below may be another TLS stream in place of the socket (`under`): TLS with an origin through a proxy that is spoken to by TLS. The `net_...` methods are where
the two differ.
"""
from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_SetInterrupt
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.string cimport memcpy

from pooledhttp._core.clock cimport remaining
from pooledhttp._core.compat cimport EBADF, EPIPE, c_close, ph_gil_releases, ph_now
from pooledhttp._core.runtime cimport BUFFER_SIZE, LOOK, buffer_give, buffer_take, on_main, unsettled
from pooledhttp._core.status cimport ST_AGAIN, ST_EOF, ST_INTR, ST_IO, ST_NOMEM, ST_OK, ST_PROTO, ST_TIMEOUT, ST_TLS
from pooledhttp._net.openssl cimport (
    direct_drop, direct_enter, direct_error, direct_fed, direct_feed, direct_leave, direct_made, direct_more, direct_open, direct_peek, direct_read,
    direct_write, shake_enter, shake_leave,
)
from pooledhttp._net.records cimport records_follow
from pooledhttp._net.stream cimport WAIT_READ, WAIT_WRITE
from pooledhttp._net.tcp cimport sock_probe, sock_recv, sock_try_recv, sock_try_send, sock_wait

import os
import sys
from time import time

from pooledhttp._net.openssl import guarded

cdef enum:
    SEND_MAX = 65536          # plaintext accepted a call
    OUT_MAX = 1048576         # ciphertext unsent, upload included (a SEND_MAX of it); more is only what the peer has TLS say
    HELPINGS = 4              # buffers that an idle connection may have sent
    FEED = 20480              # ciphertext fed to the BIO at once: it keeps what it grew to for as long as the connection lives

# Of the `ssl` module, which is imported with the first TlsStream.
cdef object SSLError = None
cdef object WantRead = None
cdef object ZeroReturn = None
cdef object EndError = None
cdef object MemoryBIO = None

# `SSLObject.session` leaks a copy of the session, several KiB (https://github.com/python/cpython/issues/116810): there one is kept while
# it serves, for as long as this, in seconds, where else each connection's replaces the one before.
cdef bint COPIES_LEAK = sys.version_info < (3, 12, 8) or (3, 13) <= sys.version_info < (3, 13, 1)
cdef enum:
    KEEP = 60


cdef int _load_ssl() except -1:
    global SSLError, WantRead, ZeroReturn, EndError, MemoryBIO
    import ssl
    SSLError = ssl.SSLError
    WantRead = ssl.SSLWantReadError
    ZeroReturn = ssl.SSLZeroReturnError
    EndError = ssl.SSLEOFError
    MemoryBIO = ssl.MemoryBIO
    return 0


cdef class TlsStream(Stream):
    """TLS over a connected socket, whose descriptor it owns from here on (the socket object is detached), or over another TlsStream.

    `sock` is in blocking mode; a TlsStream is established, and nobody else uses or closes it from here on. `early` is what the peer
    has said already. `server_hostname` goes to SNI and to the host name check of `context`. `session` is an
    `ssl.SSLSession` to resume, of this very context. Into `sessions[0]` goes (context, session) for the next connection, once the first
    bytes were received: with TLS 1.3 the tickets come with them. Nothing may be sent or received before `handshake_step` said "done".

    Raises what `SSLContext.wrap_bio` raises (ValueError, UnicodeError); the socket is then still the caller's.
    """

    def __cinit__(self, object sock, object context, object server_hostname=None, object session=None, list sessions=None, bytes early=b""):
        if WantRead is None:
            _load_ssl()
        self.incoming = MemoryBIO()
        self.outgoing = MemoryBIO()
        self.obj = guarded(context.wrap_bio, self.incoming, self.outgoing, False, server_hostname, session)
        self.below = getattr(self.obj, "_sslobj", self.obj)
        self.ssl_read = self.below.read
        self.ssl_write = self.below.write
        self.context = context
        self.sessions = sessions
        if early:
            self.incoming.write(early)
            records_follow(&self.records, early, len(early))
            self.n_first = <int>min(<size_t>len(early), sizeof(self.first))
            memcpy(self.first, <char*>early, self.n_first)
        if isinstance(sock, TlsStream):
            self.under = sock
            self.fd = self.under.fd
        else:
            # Last, in one step no signal can part: from here on the descriptor is ours.
            self.fd = sock.detach()

    def __dealloc__(self):
        if self.fd >= 0 and self.under is None:
            c_close(self.fd)

    # -- the handshake, for the dial --

    def handshake_step(self) -> str:
        """Go on with the handshake, without waiting: "done", or "read" or "write", what the socket must be ready for next.

        Raises `ssl.SSLError` and its like, or OSError where the socket broke.
        """
        cdef int r
        cdef ssize_t got
        cdef char* buf
        cdef bint done = self.established
        while True:
            if not done:
                with nogil:
                    shake_enter()
                try:
                    try:
                        self.obj.do_handshake()
                    finally:
                        shake_leave()
                    done = True
                except WantRead:
                    pass
                except BaseException:
                    self.gather()
                    with nogil:
                        self.flush()        # the alert, as far as the kernel takes it at once
                    raise
                self.gather()
            with nogil:
                r = self.flush()
            if r == ST_AGAIN:
                return "write"
            if r != ST_OK and done:
                raise OSError(self.err, os.strerror(self.err))
            # Where sending failed in mid-handshake, what the peer said before it closed tells why.
            if done:
                self.established = True
                direct_open(self.obj, &self.direct)
                self.ready = self.incoming.pending > self.records.partial
                return "done"
            buf = buffer_take()
            if buf == NULL:
                raise MemoryError()
            try:
                with nogil:
                    got = self.net_try_recv(buf, BUFFER_SIZE)
                if got == ST_AGAIN:
                    return "read"
                if got == ST_EOF:
                    raise EndError(8, "the peer closed the connection during the TLS handshake")
                if got == ST_TLS:
                    raise self.exc
                if got < 0:
                    raise OSError(self.err, os.strerror(self.err))
                if self.n_first < <int>sizeof(self.first):
                    r = <int>min(got, <ssize_t>sizeof(self.first) - self.n_first)
                    memcpy(&self.first[self.n_first], buf, r)
                    self.n_first += r
                self.incoming.write(PyMemoryView_FromMemory(buf, got, PyBUF_READ))
                records_follow(&self.records, buf, got)
            finally:
                buffer_give(buf)

    def take(self, Py_ssize_t n) -> bytes | None:
        """What the peer sent, up to `n` bytes, without waiting: b"" at its end, None where nothing is there yet. Raises OSError (`ssl.SSLError` is one)."""
        cdef bytes room = PyBytes_FromStringAndSize(NULL, n)
        cdef char* p = PyBytes_AS_STRING(room)
        cdef ssize_t r
        with nogil:
            r = self.receive(p, n, False, 0, NULL)
        if r >= 0:
            return room[:r]
        if r == ST_AGAIN:
            return None
        if r == ST_EOF:
            return b""
        raise self.failure(r)

    def offer(self, bytes data not None) -> int:
        """Send what can be sent without waiting: so many bytes were accepted, and go out as far as `drained` says. Raises as `take`."""
        cdef const char* p = PyBytes_AS_STRING(data)
        cdef size_t n = <size_t>len(data)
        cdef ssize_t r
        with nogil:
            r = self.try_send(p, n)
        if r >= 0 or r == ST_AGAIN:
            return r if r >= 0 else 0
        raise self.failure(r)

    def drained(self) -> bool:
        """Send what was accepted and not yet sent, without waiting: True once nothing is left."""
        cdef int r
        with nogil:
            r = self.flush()
        if r != ST_OK and r != ST_AGAIN:
            raise self.failure(r)
        return r == ST_OK

    cdef object failure(self, ssize_t status):
        if status == ST_NOMEM:
            return MemoryError()
        return self.exc if self.exc is not None and status != ST_IO else OSError(self.err, os.strerror(self.err))

    def fileno(self) -> int:
        """The descriptor; -1 once closed."""
        return self.fd

    @property
    def first_bytes(self) -> bytes:
        """The first bytes that the peer sent, at most 16."""
        return self.first[:self.n_first]

    @property
    def tls_version(self) -> str | None:
        """Such as "TLSv1.3"."""
        return self.obj.version()

    @property
    def cipher_name(self) -> str | None:
        """OpenSSL's name of the cipher suite."""
        cipher = self.obj.cipher()
        return None if cipher is None else cipher[0]

    @property
    def alpn(self) -> str | None:
        """The protocol agreed on (RFC 7301); None where the server chose none."""
        return self.obj.selected_alpn_protocol()

    @property
    def peer_certificate(self) -> bytes | None:
        """The server's own certificate in DER, verified or not, also where a session was resumed."""
        return self.obj.getpeercert(True)

    @property
    def session_reused(self) -> bool:
        """True where a session was resumed."""
        return bool(self.obj.session_reused)

    @property
    def clean(self) -> bool:
        """True once the peer has said close_notify."""
        return self.clean_eof

    @property
    def cut(self) -> bool:
        """True once the connection ended or broke without close_notify."""
        return self.truncated

    def abandon(self) -> None:
        """Close the descriptor without a goodbye."""
        self.close(False)

    # -- what is below: a socket, or another TLS stream --

    cdef ssize_t learn(self, ssize_t status) noexcept nogil:
        # What the stream below says of itself is ours to say.
        if status == ST_IO:
            self.err = self.under.err
        elif status == ST_TLS:
            with gil:
                self.exc = self.under.exc
                self.foreign = self.under.foreign
        self.heard = max(self.heard, self.under.heard)
        self.moved = max(self.moved, self.under.moved)
        return status

    cdef ssize_t net_recv(self, char* p, size_t n, int64_t deadline, Wake* wake) noexcept nogil:
        if self.under is not None:
            return self.learn(self.under.recv_into(p, n, deadline, wake))
        return sock_recv(self.fd, p, n, deadline, wake, &self.rcvtimeo, &self.credit, &self.err)

    cdef ssize_t net_try_recv(self, char* p, size_t n) noexcept nogil:
        if self.under is not None:
            return self.learn(self.under.try_recv(p, n))
        return sock_try_recv(self.fd, p, n, &self.err)

    cdef ssize_t net_try_send(self, const char* p, size_t n) noexcept nogil:
        cdef ssize_t r
        if self.under is not None:
            r = self.learn(self.under.try_send(p, n))
            if r < 0 and r != ST_AGAIN and r != ST_IO:
                self.err = EPIPE         # what was wrong, the next receive says
            return r
        return sock_try_send(self.fd, p, n, &self.err)

    cdef int net_wait(self, int events, int64_t deadline, Wake* wake) noexcept nogil:
        if self.under is not None:
            return <int>self.learn(self.under.wait(events, deadline, wake))
        return sock_wait(self.fd, events, deadline, wake, &self.err)

    # -- receiving --

    cdef ssize_t recv_into(self, char* p, size_t n, int64_t deadline, Wake* wake) noexcept nogil:
        return self.receive(p, n, True, deadline, wake)

    cdef ssize_t try_recv(self, char* p, size_t n) noexcept nogil:
        cdef ssize_t r = self.receive(p, n, False, 0, NULL)
        if self.under is not None and self.under.ready:
            self.ready = True                # who polls the socket for more would wait for what was received
        return r

    cdef ssize_t receive(self, char* p, size_t n, bint block, int64_t deadline, Wake* wake) noexcept nogil:
        cdef ssize_t r
        cdef char* buf
        if self.fd < 0:
            self.err = EBADF
            return ST_IO
        if self.ready:
            if self.ended:
                return self.ended
            r = self.pull(p, n)
            if r != ST_AGAIN:
                return r
        buf = buffer_take()
        if buf == NULL:
            return ST_NOMEM
        r = self.receive_with(buf, p, n, block, deadline, wake)
        buffer_give(buf)
        return r

    cdef ssize_t receive_with(self, char* buf, char* p, size_t n, bint block, int64_t deadline, Wake* wake) noexcept nogil:
        # `buf` collects ciphertext until a record has ended: an unfinished record is at most RECORD_MAX + RECORD_HEAD bytes long.
        cdef Records ahead = self.records
        cdef size_t fill = 0
        cdef ssize_t got, r
        cdef int w
        cdef int64_t began = ph_now() if block else 0
        while True:
            if self.out_n > 0:
                self.flush()
            if not block:
                got = self.net_try_recv(buf + fill, BUFFER_SIZE - fill)
            elif self.out_n > 0:
                # TLS's own answer is unsent, and the peer may wait for it: poll for both.
                w = self.net_wait(WAIT_READ | WAIT_WRITE, deadline, wake)
                if w >= 0 and not w & WAIT_READ:
                    continue
                got = w if w < 0 else self.net_try_recv(buf + fill, BUFFER_SIZE - fill)
                if w >= 0 and got == ST_AGAIN:
                    continue
            else:
                got = self.net_recv(buf + fill, BUFFER_SIZE - fill, deadline, wake)
            if got < 0:
                if fill > 0:
                    self.feed(buf, fill, NULL, 0)
                if got == ST_EOF or got == ST_IO or got == ST_TLS:
                    with gil:
                        got = self.net_failed(got)
                return got
            r = <ssize_t>records_follow(&ahead, buf + fill, got)
            fill += got
            if r == 0:
                self.heard = ph_now()
                if block and self.heard - began >= LOOK and on_main():
                    # A record that comes in drops is no reason to be deaf to signals.
                    self.feed(buf, fill, NULL, 0)
                    return ST_INTR
                continue
            r = self.feed(buf, fill, p, n)
            if self.out_n > 0:
                self.flush()
            if r == ST_AGAIN and self.out_n > OUT_MAX:
                with gil:
                    r = self.fail(SSLError(1, "the peer has TLS answer it without end, and reads no answer"))
            # Tickets and the like without end must hold nobody: not past the deadline, nor where none is given.
            if r != ST_AGAIN or not block:
                return r
            fill = 0
            if remaining(deadline) == 0:
                return ST_TIMEOUT

    cdef int net_failed(self, ssize_t status) noexcept:
        # What is below ended or broke: with the TLS below as its `exc` says, else without close_notify.
        if status != ST_TLS:
            return self.cut_off(<int>status)
        self.truncated = self.under.truncated
        self.ended = ST_TLS
        self.ready = True
        return ST_TLS

    cdef int cut_off(self, int status) noexcept:
        # The socket ended without close_notify: whatever was read until its end may lack the rest.
        self.truncated = True
        if status == ST_EOF:
            self.exc = EndError(8, "the TLS connection was truncated: the peer ended it without close_notify")
            status = ST_TLS
        else:
            self.exc = OSError(self.err, f"the TLS connection was truncated: {os.strerror(self.err)}")
        self.ended = status
        self.ready = True
        return status

    cdef int fail(self, object exc) noexcept:
        self.exc = exc
        self.foreign = not isinstance(exc, SSLError)
        self.ended = ST_TLS
        self.ready = True
        try:
            self.gather()                # the alert
        except MemoryError as second:
            self.exc = second
        return ST_TLS

    cdef ssize_t feed(self, char* buf, size_t fill, char* p, size_t n) noexcept nogil:
        """All of `buf` to the BIO, and what can be decrypted to `p`: its length, ST_AGAIN, ST_EOF or ST_TLS."""
        cdef ssize_t r
        if self.direct.ssl != NULL and direct_enter(&self.direct):
            r = self.feed_direct(buf, fill, p, n)
            direct_leave(&self.direct)
            return r
        with gil:
            r = self.feed_direct(buf, fill, p, n) if self.direct.ssl != NULL else self.feed_by_ssl(buf, fill, p, n)
        return r

    cdef ssize_t feed_direct(self, char* buf, size_t fill, char* p, size_t n) noexcept nogil:
        cdef size_t at = 0, k, have = 0
        cdef ssize_t r = ST_AGAIN
        while at < fill:
            k = min(<size_t>FEED, fill - at)
            if not direct_feed(&self.direct, buf + at, k):
                with gil:
                    r = self.fail(MemoryError())
                break
            records_follow(&self.records, buf + at, k)
            at += k
            self.ready = self.ready or direct_fed(&self.direct) > self.records.partial
            if have < n and not self.ended:
                r = self.pull_direct(p + have, n - have)
                if r > 0:
                    have += <size_t>r
        return <ssize_t>have if have > 0 else r

    cdef ssize_t feed_by_ssl(self, char* buf, size_t fill, char* p, size_t n) noexcept:
        cdef size_t at = 0, k, have = 0
        cdef ssize_t r = ST_AGAIN
        try:
            while at < fill:
                k = min(<size_t>FEED, fill - at)
                self.incoming.write(PyMemoryView_FromMemory(buf + at, k, PyBUF_READ))
                records_follow(&self.records, buf + at, k)
                at += k
                self.ready = self.ready or self.incoming.pending > self.records.partial
                if have < n and not self.ended:
                    r = self.pull_by_ssl(p + have, n - have)
                    if r > 0:
                        have += r
        except BaseException as exc:
            r = self.fail(exc)
        return have if have > 0 else r

    cdef ssize_t pull(self, char* p, size_t n) noexcept nogil:
        """What can be decrypted without the socket, up to `n` bytes. Sets `ready` to what is left."""
        cdef ssize_t r
        if self.direct.ssl != NULL and direct_enter(&self.direct):
            r = self.pull_direct(p, n)
            direct_leave(&self.direct)
            return r
        with gil:
            r = self.pull_direct(p, n) if self.direct.ssl != NULL else self.pull_by_ssl(p, n)
        return r

    cdef ssize_t pull_direct(self, char* p, size_t n) noexcept nogil:
        cdef size_t have = 0
        cdef ssize_t r
        while have < n and self.ready and not self.ended:
            r = direct_read(&self.direct, p + have, n - have)
            if r == ST_AGAIN:
                self.ready = False           # tickets and the like only
            elif r == ST_EOF:
                self.clean_eof = True
                self.ended = ST_EOF
            elif r < 0:
                with gil:
                    self.fail_direct()
            else:
                have += <size_t>r
                # A read takes from one record only, so where it left room the record is used up.
                self.ready = direct_fed(&self.direct) > self.records.partial or (have == n and direct_more(&self.direct))
        if have > 0 and self.sessions is not None:
            with gil:
                self.keep_session()
        self.out_n = direct_made(&self.direct)
        if self.ended:
            self.ready = True
            return <ssize_t>have if have > 0 else self.ended
        return <ssize_t>have if have > 0 else ST_AGAIN

    cdef int fail_direct(self) noexcept:
        return self.fail(direct_error(&self.direct))

    cdef ssize_t pull_by_ssl(self, char* p, size_t n) noexcept:
        cdef size_t have = 0
        cdef Py_ssize_t k
        try:
            while have < n and self.ready:
                try:
                    k = self.ssl_read(n - have, PyMemoryView_FromMemory(p + have, n - have, PyBUF_WRITE))
                except WantRead:
                    self.ready = False       # tickets and the like only
                    break
                except ZeroReturn:
                    k = 0
                if k == 0:
                    self.clean_eof = True
                    self.ended = ST_EOF
                    break
                have += k
                # A read takes from one record only, so where it left room the record is used up. `pending` lets go of the GIL
                # for a moment, which a busy thread can make long: it is asked only where it must be.
                self.ready = self.incoming.pending > self.records.partial or (have == n and self.obj.pending() > 0)
            if have > 0 and self.sessions is not None:
                self.keep_session()
            self.gather()
        except BaseException as exc:
            self.fail(exc)
        if self.ended:
            self.ready = True
            return have if have > 0 else self.ended
        return have if have > 0 else ST_AGAIN

    cdef int keep_session(self) except -1:
        """Once a connection: it costs a copy of the session. Runs C alone, so no signal's handler comes in between."""
        sessions, self.sessions = self.sessions, None
        if COPIES_LEAK and self.below.session_reused and sessions[0] is not None and 0 <= time() - sessions[0][1].time < KEEP:
            return 0
        session = getattr(self.below, "session", None)
        # TLS 1.3 resumes by tickets only (RFC 8446 section 2.2), and gives every session an id.
        if session is not None and (session.has_ticket or (session.id and self.below.version() != "TLSv1.3")):
            sessions[0] = (self.context, session)
        return 0

    # -- sending --

    cdef int flush(self) noexcept nogil:
        cdef int r = self.flush_own()
        if r == ST_OK and self.under is not None:
            r = <int>self.learn(self.under.flush())
        return r

    cdef int flush_own(self) noexcept nogil:
        cdef ssize_t r
        cdef size_t before = self.out_n
        if self.direct.ssl != NULL and self.out_n > 0:
            if direct_enter(&self.direct):
                r = self.flush_direct()
                direct_leave(&self.direct)
            else:
                with gil:
                    r = self.flush_direct()
            return <int>r
        while self.out_n > 0:
            r = self.net_try_send(self.out_p, self.out_n)
            if r == ST_AGAIN:
                if self.out_n < before:
                    self.moved = ph_now()
                return ST_AGAIN
            if r < 0:
                self.out_n = 0
                self.send_err = self.err
                return ST_IO
            self.out_p += r
            self.out_n -= r
        if self.send_err:
            self.err = self.send_err
            return ST_IO
        return ST_OK

    cdef int flush_direct(self) noexcept nogil:
        cdef ssize_t r
        cdef char* data = NULL
        cdef size_t n, sent = 0
        while True:
            n = self.out_n = direct_peek(&self.direct, &data)
            if n == 0:
                break
            r = ST_IO if self.send_err else self.net_try_send(data, n)
            if r == ST_AGAIN:
                if sent > 0:
                    self.moved = ph_now()
                return ST_AGAIN
            if r < 0:
                # Nothing may be sent behind a gap.
                if not self.send_err:
                    self.send_err = self.err
                direct_drop(&self.direct, n)
                continue
            direct_drop(&self.direct, <size_t>r)
            sent += <size_t>r
        if self.send_err:
            self.err = self.send_err
            return ST_IO
        return ST_OK

    cdef int try_flush(self) noexcept nogil:
        return self.flush()

    cdef ssize_t try_send(self, const char* p, size_t n) noexcept nogil:
        cdef ssize_t r
        cdef char* buf
        if self.fd < 0:
            self.err = EBADF
            return ST_IO
        r = self.flush()
        if r != ST_OK:
            return r
        if self.ended == ST_TLS and not self.truncated:
            return ST_TLS                # as `exc` says; OpenSSL would only say that it failed before
        if n == 0:
            return 0
        if self.write_reads:
            buf = buffer_take()
            if buf == NULL:
                return ST_NOMEM
            r = self.net_try_recv(buf, BUFFER_SIZE)
            if r > 0:
                r = self.feed(buf, r, NULL, 0)
            elif r == ST_EOF or r == ST_IO or r == ST_TLS:
                with gil:
                    r = self.net_failed(r)
            buffer_give(buf)
            if r == ST_TLS or r == ST_IO:
                return r
        r = self.encrypt(p, min(n, <size_t>SEND_MAX))
        if self.flush() == ST_IO:
            return ST_IO
        return r

    cdef ssize_t encrypt(self, const char* p, size_t n) noexcept nogil:
        cdef ssize_t r
        if self.direct.ssl != NULL and direct_enter(&self.direct):
            r = self.encrypt_direct(p, n)
            direct_leave(&self.direct)
            return r
        with gil:
            r = self.encrypt_direct(p, n) if self.direct.ssl != NULL else self.encrypt_by_ssl(p, n)
        return r

    cdef ssize_t encrypt_direct(self, const char* p, size_t n) noexcept nogil:
        cdef size_t done = 0
        cdef ssize_t r
        self.write_reads = False
        while done < n:
            r = direct_write(&self.direct, p + done, n - done)
            if r == ST_AGAIN:
                self.write_reads = True
                break
            if r < 0:
                with gil:
                    self.fail_direct()
                return ST_TLS
            done += <size_t>r
        self.out_n = direct_made(&self.direct)
        return <ssize_t>done if done > 0 else ST_AGAIN

    cdef ssize_t encrypt_by_ssl(self, const char* p, size_t n) noexcept:
        cdef size_t done = 0
        self.write_reads = False
        try:
            while done < n:
                try:
                    done += <size_t>self.ssl_write(PyMemoryView_FromMemory(<char*>p + done, n - done, PyBUF_READ))
                except WantRead:
                    self.write_reads = True
                    break
            self.gather()
        except BaseException as exc:
            return self.fail(exc)
        return done if done > 0 else ST_AGAIN

    cdef int gather(self) except -1:
        """Take what TLS has to send; let go of what is sent."""
        if self.direct.ssl != NULL:
            self.out_n = direct_made(&self.direct)
            return 0
        if self.outgoing.pending:
            if self.send_err:
                self.outgoing.read()
                return 0
            more = self.outgoing.read()
            self.out = more if self.out_n == 0 else self.out_p[:self.out_n] + more
            self.out_p = <const char*>self.out
            self.out_n = len(self.out)
        elif self.out_n == 0:
            self.out = None
        return 0

    # -- waiting, and the idle --

    cdef int wait(self, int events, int64_t deadline, Wake* wake) noexcept nogil:
        cdef int ask, got
        while True:
            if self.ready and events & WAIT_READ:
                return events
            ask = events
            if self.out_n > 0:
                ask |= WAIT_WRITE
            if self.write_reads and events & WAIT_WRITE:
                ask |= WAIT_READ
                if self.out_n == 0:
                    ask &= ~WAIT_WRITE
            got = self.net_wait(ask, deadline, wake)
            if got < 0:
                return got
            if got & WAIT_WRITE and not events & WAIT_WRITE:
                self.flush()             # TLS's own; where it fails, the receive that follows says so
            if got & WAIT_READ and self.write_reads:
                got |= WAIT_WRITE
            got &= events
            if got:
                return got

    cdef int probe(self) noexcept nogil:
        cdef char plain[64]
        cdef ssize_t r
        if self.ended or self.send_err:
            return ST_EOF
        if self.ready:
            r = self.pull(plain, sizeof(plain))
            if r != ST_AGAIN:
                return ST_PROTO if r > 0 else ST_EOF
        for _ in range(HELPINGS):
            r = sock_probe(self.fd)
            if self.under is not None and self.under.ready:
                r = ST_PROTO
            if r == ST_OK:
                # The start of a record may be that of an answer to nothing: it is not worth the risk.
                return ST_OK if self.records.partial == 0 and (self.under is None or self.under.records.partial == 0) else ST_PROTO
            if r != ST_PROTO:
                return <int>r
            r = self.receive(plain, sizeof(plain), False, 0, NULL)
            if r > 0:
                return ST_PROTO
            if r != ST_AGAIN:
                return ST_EOF
        return ST_PROTO                  # it does not stop talking

    cdef void close(self, bint graceful) noexcept nogil:
        cdef int fd = self.fd
        if fd < 0:
            return
        if graceful and not unsettled() and self.established and self.out_n == 0 and not self.send_err and (not self.ended or self.ended == ST_EOF):
            with gil:
                self.say_goodbye()
            self.flush()
        self.fd = -1
        if self.under is None:
            c_close(fd)
        else:
            self.under.close(graceful)

    cdef void say_goodbye(self) noexcept:
        try:
            # Not SSLObject.unwrap, which is a Python function: a signal's handler may run in it, and raise where nobody can hear it.
            below = getattr(self.obj, "_sslobj", None)
            if below is not None:
                below.shutdown()
            else:
                self.obj.unwrap()
        except KeyboardInterrupt:
            PyErr_SetInterrupt()         # raised by the handler of a signal that came just now: not ours to keep
        except OSError:
            pass                         # ssl.SSLError: the peer's goodbye is not here, and is not waited for
        self.gather()


def gil_releases() -> int:
    """Explicit releases of the GIL by this module so far."""
    return ph_gil_releases()
