"""The pool's calls for Python, and a connection that is none: so that the pool can be tested without a socket and on a made-up clock."""
cimport cython
from libc.stdint cimport int64_t
from libc.string cimport memset

from pooledhttp._core.poolable cimport Holder, Poolable, Slot
from pooledhttp._core.runtime cimport WakeHandle, wake_clear
from pooledhttp._core.status cimport RE_ERROR, ST_AGAIN, ST_CLOSED, ST_EOF, ST_MORE, ST_NEED_GIL, ST_OK
from pooledhttp._pool.core cimport (
    W_CLOSED, W_CONN, W_DIAL, W_OUT, W_QUEUED, Host, Waiter, bury, pool_checkout, pool_count, pool_dial_failed, pool_dialed, pool_give, pool_leave,
    pool_interrupt, pool_mark_unread, pool_race, pool_waiter_state, reap, slot_release,
)
from pooledhttp._pool.pool cimport Pool
from pooledhttp._pool.stats import CLOSE_REASONS

cdef dict OUTCOMES = {ST_OK: "conn", ST_NEED_GIL: "dial", ST_MORE: "wait", ST_CLOSED: "closed", ST_AGAIN: "folded"}
cdef dict STATES = {W_OUT: "out", W_QUEUED: "queued", W_CONN: "conn", W_DIAL: "dial", W_CLOSED: "closed"}


cdef class FakeConn(Poolable):
    """A Poolable without a socket. `alive` is what its probe says; `fd` may be a pipe's, for the janitor.

    What the pool calls is counted. Where they are given, `when_readable` (returns whether it is still good), `when_interrupted` and
    `when_closed` are called in its midst: no lock is held there, so whatever they do with the pool must work.
    """

    cdef public bint alive
    cdef public bint good_when_readable
    cdef public object when_readable
    cdef public object when_interrupted
    cdef public object when_closed
    cdef readonly int closes
    cdef readonly int interrupts
    cdef int _fd
    cdef int _reason

    def __init__(self, int capacity=1, *, int fd=-1):
        self.slot.capacity = capacity
        self.alive = True
        self._fd = fd

    cdef int fileno(self) noexcept nogil:
        return self._fd

    cdef int probe(self) noexcept nogil:
        return ST_OK if self.alive else ST_EOF

    cdef int on_readable(self) noexcept nogil:
        with gil:
            if self.when_readable is not None:
                self.good_when_readable = self.when_readable()
        return ST_OK if self.good_when_readable else ST_EOF

    cdef void interrupt(self) noexcept nogil:
        self.interrupts += 1
        with gil:
            if self.when_interrupted is not None:
                self.when_interrupted()

    cdef void close(self, int reason) noexcept nogil:
        self.closes += 1
        self._reason = reason
        with gil:
            if self.when_closed is not None:
                self.when_closed()
            self.when_readable = self.when_interrupted = self.when_closed = None

    @property
    def reason(self) -> str | None:
        return CLOSE_REASONS[self._reason] if self.closes else None

    @property
    def uses(self) -> int:
        return self.slot.uses

    @property
    def die_at(self) -> int:
        return self.slot.die_at

    @property
    def id(self) -> int:
        return self.slot.id


@cython.no_gc_clear
cdef class User:
    """A request that takes, waits for, or gives back connections. `now` is in nanoseconds, everywhere.

    Its thread waits for `wake`; without one given, it has its own.
    """

    cdef Pool pool
    cdef readonly Host host
    cdef Waiter waiter
    cdef Holder holder
    cdef Slot* slot
    cdef readonly WakeHandle wake
    cdef bytes label
    cdef bytes detail

    def __init__(self, Pool pool, str key, *, bytes label=b"GET", bytes detail=b"/", WakeHandle wake=None):
        memset(&self.waiter, 0, sizeof(Waiter))
        memset(&self.holder, 0, sizeof(Holder))
        self.pool = pool
        self.host = pool.host(key)
        self.wake = wake if wake is not None else WakeHandle()
        self.waiter.wake = self.wake.w
        self.waiter.holder = &self.holder
        self.label = label
        self.detail = detail
        self.holder.label = label
        self.holder.label_len = len(label)
        self.holder.detail = detail
        self.holder.detail_len = len(detail)

    @property
    def conn(self) -> FakeConn:
        if self.slot == NULL:
            raise ValueError("has no connection")
        return <FakeConn>self.slot.owner

    def __dealloc__(self):
        # A request that ends leaves the queue, and gives back what it has.
        cdef Slot* dead = NULL
        cdef int state
        if self.pool is None:
            return
        with nogil:
            state = pool_leave(self.pool, &self.host.h, &self.waiter)
            if state == W_DIAL:
                pool_dial_failed(self.pool, &self.host.h)
        if state == W_CONN:
            self.slot = self.waiter.slot
        if self.slot != NULL:
            with nogil:
                pool_give(self.pool, self.slot, RE_ERROR, -1, True, 0, &dead)
                bury(dead)
                slot_release(self.slot)
            reap(dead)

    def checkout(self, int64_t now, *, bint wait=False, bint first=True) -> str:
        """A connection ("conn"), the right to dial ("dial"), or "wait" (at the limit; with `wait`, queued), "closed", "folded"."""
        cdef Slot* s = NULL
        cdef Slot* dead = NULL
        cdef int st
        self.holder.since = now
        with nogil:
            wake_clear(self.waiter.wake)
            st = pool_checkout(self.pool, &self.host.h, &self.holder, &self.waiter if wait else NULL, first, now, &s, &dead)
            bury(dead)
        reap(dead)
        if st == ST_OK:
            self.slot = s
        return OUTCOMES[st]

    def race(self, int64_t now) -> str:
        """While dialing: "conn", where one was on offer, else "wait": in the queue for whatever is given back first."""
        cdef Slot* s = NULL
        cdef Slot* dead = NULL
        cdef int st
        with nogil:
            wake_clear(self.waiter.wake)
            st = pool_race(self.pool, &self.host.h, &self.waiter, now, &s, &dead)
            bury(dead)
        reap(dead)
        if st == ST_OK:
            self.slot = s
        return OUTCOMES[st]

    @property
    def state(self) -> str:
        cdef int state
        with nogil:
            state = pool_waiter_state(self.pool, &self.waiter)
        return STATES[state]

    def leave(self) -> str:
        """Leave the queue. Says what was granted; "conn": it is `conn` now."""
        cdef int state
        with nogil:
            state = pool_leave(self.pool, &self.host.h, &self.waiter)
        if state == W_CONN:
            self.slot = self.waiter.slot
        return STATES[state]

    def dialed(self, FakeConn conn, int64_t now, *, bint keep=True) -> None:
        """The dial ended well; with `keep` the connection is this user's, else it is pooled."""
        cdef Slot* dead = NULL
        pool_dialed(self.pool, self.host, conn, &self.holder if keep else NULL, now, &dead)
        with nogil:
            bury(dead)
        reap(dead)
        if keep:
            self.slot = &conn.slot

    def dial_failed(self) -> None:
        with nogil:
            pool_dial_failed(self.pool, &self.host.h)

    def give(self, int64_t now, str reason=None, *, int64_t idle_limit=-1, bint used=True) -> str | None:
        """Give back; returns why it was closed, or None. `reason` None: it may be used again."""
        cdef Slot* dead = NULL
        cdef int verdict = -1 if reason is None else CLOSE_REASONS.index(reason)
        cdef Slot* s = self.slot
        if s == NULL:
            raise ValueError("nothing to give back")
        self.slot = NULL
        with nogil:
            verdict = pool_give(self.pool, s, verdict, idle_limit, used, now, &dead)
            bury(dead)
        slot_release(s)
        reap(dead)
        return None if verdict < 0 else CLOSE_REASONS[verdict]

    def interrupt(self, FakeConn conn) -> None:
        """Break what this user waits on over `conn`, which it has, or had a moment ago."""
        cdef Slot* dead = NULL
        with nogil:
            pool_interrupt(self.pool, &conn.slot, &self.holder, &dead)
        reap(dead)

    def mark_unread(self) -> None:
        with nogil:
            pool_mark_unread(self.pool, &self.holder)

    def leaked(self) -> None:
        with nogil:
            pool_count(self.pool, &self.host.h, &self.host.h.leaked, 1)
