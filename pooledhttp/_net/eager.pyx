"""Asking again before sleeping: what a thread does between its request and the kernel's blocking `recv`.

To sleep, and to be woken, costs both sides more than all else of a small exchange. Where several threads wait for a server that answers
within what the other threads take for a turn, the answer is there when a thread that gave its processor away gets it back: it finds its
bytes with no sleep on its side and no wake-up on the server's. So a receive that would sleep first yields a few times, where that pays:

- several threads wait at once (one that waits alone has nobody to yield to);
- on this connection it has found bytes lately (`credit`): an answer that takes milliseconds is slept for, and tried again once in a while;
- it is not slower than sleeping. A process that computes gets its whole slice from a yield, and makes us late by that. So the process
  measures: for a moment all sleep (the reference), for another all yield (the trial); where waits became much longer by it, none yields for
  a while, doubled each time; otherwise all yield for a second, and then it is measured again.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint64_t

from pooledhttp._core.compat cimport EAGAIN, EINTR, MSG_DONTWAIT, c_recv, errno, ph_add_int, ph_add_long, ph_now
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
    # What the process does, one after the other.
    REFERENCE = 0              # all sleep, and are timed
    TRIAL = 1                  # all yield, and are timed
    ON = 2                     # the same for longer
    OFF = 3                    # all sleep, and are not timed
    SAMPLES = 8                # receives without which nothing is judged
    MEASURE = 10_000_000       # ns of a reference or a trial
    STAY = 1_000_000_000       # ns of ON
    OFF_MIN = 250_000_000      # ns of OFF
    OFF_STEPS = 6              # 16 s
    WORSE = 2                  # times as long as asleep, and GRACE
    GRACE = 20_000             # ns

cdef int _waiting = 0
cdef int _phase = REFERENCE
cdef int _steps = 0
cdef int _judging = 0
cdef int64_t _until = 0
cdef int64_t _slept_ns = 0, _slept_n = 0          # of the last reference
cdef int64_t _asked_ns = 0, _asked_n = 0          # of this trial, or this ON
cdef uint64_t _tries = 0
cdef uint64_t _hits = 0
cdef uint64_t _offs = 0


cdef int eager_begin(int* credit, int64_t* began) noexcept nogil:
    if ph_add_int(&_waiting, 1) < THREADS:
        return EAGER_NO
    if credit[0] < 0:
        credit[0] += 1
        return EAGER_NO
    began[0] = ph_now()
    return _mode(credit, began[0])


cdef int _mode(int* credit, int64_t now) noexcept nogil:
    if now >= _until:
        if ph_add_int(&_judging, 1) == 1:
            _judge(now)
        ph_add_int(&_judging, -1)
    if _phase == REFERENCE:
        if credit[0] < COST:
            credit[0] = -PAUSE                     # counted as rarely as it would yield
        return EAGER_REFERENCE
    return EAGER_NO if _phase == OFF else EAGER_ASK


cdef void _judge(int64_t now) noexcept nogil:
    global _phase, _steps, _until, _slept_ns, _slept_n, _asked_ns, _asked_n, _offs
    if _until == 0 or (_phase == REFERENCE and _slept_n < SAMPLES) or (_phase == TRIAL and _asked_n < SAMPLES):
        if _until == 0:
            _slept_ns = _slept_n = 0
        _until = now + MEASURE                     # too few to tell
    elif _phase == REFERENCE:
        _phase = TRIAL
        _asked_ns = _asked_n = 0
        _until = now + MEASURE
    elif _phase == OFF:
        _phase = REFERENCE
        _slept_ns = _slept_n = 0
        _until = now + MEASURE
    elif _asked_n >= SAMPLES and _slept_n > 0 and _asked_ns // _asked_n > WORSE * (_slept_ns // _slept_n) + GRACE:
        _phase = OFF
        _offs += 1
        _until = now + (<int64_t>OFF_MIN << _steps)
        _steps = min(_steps + 1, OFF_STEPS)
    elif _phase == TRIAL:
        _phase = ON
        _until = now + STAY
    else:
        _phase = REFERENCE
        _steps = 0
        _slept_ns = _slept_n = 0
        _until = now + MEASURE


cdef void eager_end(int mode, int64_t began) noexcept nogil:
    ph_add_int(&_waiting, -1)
    if mode != EAGER_NO:
        _note(mode, ph_now() - began)


cdef void _note(int mode, int64_t took) noexcept nogil:
    if mode == EAGER_ASK:
        ph_add_long(&_asked_ns, took)
        ph_add_long(&_asked_n, 1)
    elif _phase == REFERENCE:
        ph_add_long(&_slept_ns, took)
        ph_add_long(&_slept_n, 1)


cdef ssize_t eager_recv(int fd, char* p, size_t n, int* credit, int* err) noexcept nogil:
    global _tries, _hits
    cdef ssize_t r = -1
    _tries += 1                                    # for tests and tools: a lost one does not matter
    for _ in range(TRIES):
        sched_yield()
        r = c_recv(fd, p, n, MSG_DONTWAIT)
        if r >= 0 or (errno != EAGAIN and errno != EINTR):
            break
    if r >= 0:
        _hits += 1
        credit[0] = min(credit[0] + 1, CREDIT_MAX)
        return r if r > 0 else ST_EOF
    if errno != EAGAIN and errno != EINTR:
        err[0] = errno
        return ST_IO
    credit[0] = credit[0] - COST if credit[0] >= COST else -PAUSE
    return ST_AGAIN


def counts() -> dict:
    """Since the start or `reset()`: receives that yielded, those of them that found bytes or the end, how often it was turned off; who waits now."""
    return {"tries": _tries, "hits": _hits, "offs": _offs, "waiting": _waiting}


def reset() -> None:
    """As at the start of the process; in a forked child too, where the other threads that waited are gone."""
    global _waiting, _phase, _steps, _judging, _until, _tries, _hits, _offs
    _waiting = _judging = _tries = _hits = _offs = _steps = 0
    _phase = REFERENCE
    _until = 0


def begin(int credit, int64_t now) -> tuple:
    """What a fourth waiting thread does at `now` (ns): (mode, credit afterwards). Nobody is counted as waiting."""
    if credit < 0:
        return EAGER_NO, credit + 1
    return _mode(&credit, now), credit


def end(int mode, int64_t took) -> None:
    """A receive in that mode took so many ns."""
    _note(mode, took)


def receive(int fd, Py_ssize_t n, int credit) -> tuple:
    """Yield and ask: (bytes, or None to sleep; the credit afterwards). Raises OSError."""
    cdef bytes room = PyBytes_FromStringAndSize(NULL, n)
    cdef char* p = PyBytes_AS_STRING(room)
    cdef int err = 0
    cdef ssize_t r = eager_recv(fd, p, n, &credit, &err)
    if r == ST_IO:
        raise OSError(err, os.strerror(err))
    return None if r == ST_AGAIN else room[:0 if r == ST_EOF else r], credit
