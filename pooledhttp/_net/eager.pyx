"""Asking again before sleeping: what a thread does between its request and the kernel's blocking `recv`.

To sleep, and to be woken, costs both sides more than all else of a small exchange. Where several threads wait for a server that answers
within what the other threads take for a turn, the answer is there when a thread that gave its processor away gets it back: it finds its
bytes with no sleep on its side and no wake-up on the server's. So a receive that would sleep first yields a few times, where that pays:

- several threads wait at once (one that waits alone has nobody to yield to);
- on this connection it has found bytes lately (`credit`): an answer that takes milliseconds is slept for, and tried again once in a while;
- no yield took long lately: a process that computes gets its whole slice from a yield, and would make us late by that. One such yield
  turns it off for the process, for a quarter of a second first, and for twice as long each time, up to a minute.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint64_t

from pooledhttp._core.compat cimport EAGAIN, EINTR, MSG_DONTWAIT, c_recv, errno, ph_add_int, ph_now
from pooledhttp._core.status cimport ST_AGAIN, ST_EOF, ST_IO

import os

cdef extern from "sched.h" nogil:
    int sched_yield()

cdef enum:
    THREADS = 4                # that wait at once
    TRIES = 4                  # yields a receive
    CREDIT_MAX = 8
    COST = 2                   # of a receive that slept in spite of its yields
    PAUSE = 64                 # receives until a connection without credit tries again
    OFF_MIN = 250_000_000      # ns
    OFF_STEPS = 8              # 64 s

cdef int64_t _long = 1_000_000         # ns: a yield that took longer went to somebody's computation
cdef int _waiting = 0
# Written by any thread without a lock: a lost update costs one yield more, or one less.
cdef int64_t _off_until = 0
cdef int _off_steps = 0
cdef uint64_t _tries = 0
cdef uint64_t _hits = 0
cdef uint64_t _offs = 0


cdef int eager_begin() noexcept nogil:
    return ph_add_int(&_waiting, 1)


cdef void eager_end() noexcept nogil:
    ph_add_int(&_waiting, -1)


cdef ssize_t eager_recv(int fd, char* p, size_t n, int threads, int* credit, int* err) noexcept nogil:
    global _off_until, _off_steps, _tries, _hits, _offs
    cdef int64_t before, now
    cdef ssize_t r = -1
    cdef bint late = False
    cdef int steps = _off_steps     # looked at once: two threads that both count down must not come below 0
    if threads < THREADS:
        return ST_AGAIN
    if credit[0] < 0:
        credit[0] += 1
        return ST_AGAIN
    before = now = ph_now()
    if before < _off_until:
        return ST_AGAIN
    _tries += 1
    for _ in range(TRIES):
        sched_yield()
        now = ph_now()
        late = now - before > _long
        before = now
        r = c_recv(fd, p, n, MSG_DONTWAIT)
        if late or r >= 0 or (errno != EAGAIN and errno != EINTR):
            break
    if r < 0 and errno != EAGAIN and errno != EINTR:
        err[0] = errno
        return ST_IO
    if late:
        _offs += 1
        _off_until = now + (<int64_t>OFF_MIN << steps)
        _off_steps = min(steps + 1, OFF_STEPS)
    elif r >= 0:
        _hits += 1
        credit[0] = min(credit[0] + 1, CREDIT_MAX)
        if steps > 0 and now > _off_until + (<int64_t>OFF_MIN << steps):
            _off_steps = steps - 1
    else:
        credit[0] = credit[0] - COST if credit[0] >= COST else -PAUSE
    return r if r > 0 else ST_EOF if r == 0 else ST_AGAIN


def counts() -> dict:
    """Since the start or `reset()`: receives that yielded, those of them that found bytes or the end, yields that turned it off; and who waits."""
    return {"tries": _tries, "hits": _hits, "offs": _offs, "waiting": _waiting}


def reset() -> None:
    """As at the start of the process; in a forked child too, where the other threads that waited are gone."""
    global _waiting, _off_until, _off_steps, _tries, _hits, _offs
    _waiting = _tries = _hits = _offs = _off_steps = 0
    _off_until = 0


def call_long(ns: int) -> int:
    """Say from how many nanoseconds a yield counts as long; returns what it was."""
    global _long
    before = _long
    _long = ns
    return before


def receive(int fd, Py_ssize_t n, int threads, int credit) -> tuple:
    """`eager_recv` as Python calls it: (bytes, or None to sleep; the credit afterwards). Raises OSError."""
    cdef bytes room = PyBytes_FromStringAndSize(NULL, n)
    cdef char* p = PyBytes_AS_STRING(room)
    cdef int err = 0
    cdef ssize_t r
    r = eager_recv(fd, p, n, threads, &credit, &err)
    if r == ST_IO:
        raise OSError(err, os.strerror(err))
    return None if r == ST_AGAIN else room[:0 if r == ST_EOF else r], credit
