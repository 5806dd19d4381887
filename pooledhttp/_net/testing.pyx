"""Any Stream, for Python callers: tests and tools. Seconds are floats, None for ever; failures are plain OSErrors."""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uintptr_t
from libc.string cimport memset

from pooledhttp._core.compat cimport ph_now
from pooledhttp._core.runtime cimport Wake, thread_wake, wake_clear
from pooledhttp._core.status cimport ST_AGAIN, ST_EOF, ST_INTR, ST_IO, ST_NOMEM, ST_OK, ST_PROTO, ST_TIMEOUT, ST_TLS, ST_WOKEN
from pooledhttp._net.records cimport Records, records_follow
from pooledhttp._net.stream cimport Stream, WAIT_READ, WAIT_WRITE

import os


class Woken(OSError):
    """The thread's wake handle was signalled."""


cdef int64_t _deadline(object timeout) except? -2:
    return -1 if timeout is None else ph_now() + <int64_t>(<double>float(timeout) * 1e9)


cdef int _check(Stream s, ssize_t status, Wake* wake) except -1:
    """Raise for every negative status but ST_AGAIN, ST_EOF and ST_INTR; for the last the signals' handlers run."""
    if status >= 0 or status == ST_AGAIN or status == ST_EOF:
        return 0
    if status == ST_INTR:
        PyErr_CheckSignals()
        return 0
    if status == ST_TIMEOUT:
        raise TimeoutError("the deadline passed")
    if status == ST_WOKEN:
        wake_clear(wake)
        raise Woken("woken")
    if status == ST_TLS:
        raise s.exc
    if status == ST_IO:
        if s.exc is not None:
            raise s.exc
        raise OSError(s.err, os.strerror(s.err))
    if status == ST_NOMEM:
        raise MemoryError()
    raise OSError(f"unexpected status {status}")


def fileno(Stream s not None) -> int:
    """The descriptor; -1 once closed."""
    return s.fd


def recv(Stream s not None, Py_ssize_t n, timeout: float | None = None, *, bint wake=False) -> bytes:
    """1 to `n` bytes, b"" at the end. With `wake` this thread's wake handle breaks the wait: `Woken`."""
    cdef int64_t deadline = _deadline(timeout)
    cdef Wake* w = thread_wake() if wake else NULL
    cdef bytes room = PyBytes_FromStringAndSize(NULL, n)
    cdef char* p = PyBytes_AS_STRING(room)
    cdef ssize_t r = ST_INTR
    while r == ST_INTR:
        with nogil:
            r = s.recv_into(p, n, deadline, w)
        _check(s, r, w)
    return b"" if r == ST_EOF else room[:r]


def try_recv(Stream s not None, Py_ssize_t n) -> bytes | None:
    """What is there, b"" at the end, None where a receive would wait."""
    cdef bytes room = PyBytes_FromStringAndSize(NULL, n)
    cdef char* p = PyBytes_AS_STRING(room)
    cdef ssize_t r
    with nogil:
        r = s.try_recv(p, n)
    _check(s, r, NULL)
    return None if r == ST_AGAIN else b"" if r == ST_EOF else room[:r]


def try_send(Stream s not None, const unsigned char[::1] data not None) -> int | None:
    """How many bytes were accepted; None where a send would wait."""
    cdef ssize_t r
    cdef const char* p = <const char*>&data[0]
    cdef size_t n = data.shape[0]
    with nogil:
        r = s.try_send(p, n)
    _check(s, r, NULL)
    return None if r == ST_AGAIN else r


def try_flush(Stream s not None) -> bool:
    """True once nothing is unsent."""
    cdef int r
    with nogil:
        r = s.try_flush()
    _check(s, r, NULL)
    return r == ST_OK


def wait(Stream s not None, str events, timeout: float | None = None, *, bint wake=False) -> str:
    """Wait for `events` ("r", "w" or "rw"); those that may now succeed."""
    cdef int64_t deadline = _deadline(timeout)
    cdef Wake* w = thread_wake() if wake else NULL
    cdef int mask = (WAIT_READ if "r" in events else 0) | (WAIT_WRITE if "w" in events else 0), r = ST_INTR
    while r == ST_INTR:
        with nogil:
            r = s.wait(mask, deadline, w)
        _check(s, r, w)
    return ("r" if r & WAIT_READ else "") + ("w" if r & WAIT_WRITE else "")


def send(Stream s not None, data: bytes | bytearray | memoryview, timeout: float | None = None, *, bint wake=False) -> None:
    """Send all of `data` to the kernel."""
    cdef int64_t deadline = _deadline(timeout)
    cdef Wake* w = thread_wake() if wake else NULL
    cdef const unsigned char[::1] view = data
    cdef size_t at = 0, n = view.shape[0]
    cdef const char* p = <const char*>&view[0] if n else NULL
    cdef ssize_t r
    cdef int f
    while True:
        with nogil:
            r = s.try_send(p + at, n - at) if at < n else 0
        _check(s, r, w)
        if r > 0:
            at += r
        if at == n:
            with nogil:
                f = s.try_flush()
            _check(s, f, w)
            if f == ST_OK:
                return
        if r == ST_AGAIN or at == n:
            with nogil:
                r = s.wait(WAIT_WRITE, deadline, w)
            _check(s, r, w)


def probe(Stream s not None) -> str:
    """Of an idle stream: "ok", "eof" or "proto"."""
    cdef int r
    with nogil:
        r = s.probe()
    if r == ST_OK:
        return "ok"
    return "eof" if r == ST_EOF else "proto" if r == ST_PROTO else str(r)


@cython.final
cdef class RecordFramer:
    """`records_follow` with its state."""

    cdef Records r

    def __cinit__(self):
        memset(&self.r, 0, sizeof(Records))

    def follow_at(self, address, length) -> int:
        """How many records ended in the `length` bytes at `address`."""
        cdef uintptr_t at = address
        return records_follow(&self.r, <const char*>at, length)

    @property
    def partial(self) -> int:
        """Bytes of the unfinished record seen so far."""
        return self.r.partial


def close(Stream s not None, bint graceful=True) -> None:
    """Close the descriptor."""
    with nogil:
        s.close(graceful)
