"""Who may use which connection.

One native lock a pool guards everything in it: the hosts' lists, the list of idle connections over all hosts, the queues, the
counts. It is held for a few dozen instructions, never across a system call, a wait, the GIL or a destructor; whoever needs it
with the GIL held gives the GIL up first. See docs/concurrency.md.
"""
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from pooledhttp._core.compat cimport (
    ph_add_int, ph_assert_locked, ph_assert_unlocked, ph_gil_releases, ph_load_int, ph_note_lock, ph_now, pthread_mutex_destroy, pthread_mutex_init,
    pthread_mutex_lock, pthread_mutex_unlock,
)
from pooledhttp._core.poolable cimport SL_ACTIVE, SL_CLAIMED, SL_DEAD, SL_IDLE
from pooledhttp._core.runtime cimport wake_drop, wake_hold, wake_signal
from pooledhttp._core.status cimport (
    RE_CANCELLED, RE_EVICTED, RE_FORKED, RE_IDLE_TIMEOUT, RE_LIFETIME, RE_REUSE, RE_SHUTDOWN, ST_AGAIN, ST_CLOSED, ST_MORE, ST_NEED_GIL, ST_OK,
)
from pooledhttp._pool.lists cimport _lru_push, _lru_remove, _offer, _queue, _unoffer, _unqueue
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject

from pooledhttp._core.runtime import logger

cdef enum:
    DEBUG = 10               # logging's

cdef int _next_id = 0
cdef int _open = 0           # open connections of the process, for the tests' teardown


cdef void pool_lock(PoolCore p) noexcept nogil:
    pthread_mutex_lock(&p.lock)
    ph_note_lock(1)


cdef void pool_unlock(PoolCore p) noexcept nogil:
    ph_note_lock(-1)
    pthread_mutex_unlock(&p.lock)

cdef void must_hold() noexcept nogil:
    ph_assert_locked()


cdef void must_not_hold() noexcept nogil:
    ph_assert_unlocked()


def check_unlocked() -> None:
    """In debug builds: abort where this thread holds a pool's lock."""
    must_not_hold()


cdef void count_open(int n) noexcept nogil:
    ph_add_int(&_open, n)


# --- moves, under the lock -------------------------------------------------------------------------------------------------

cdef void _tell(Wakes* out, Wake* wake) noexcept nogil:
    wake_hold(wake)
    out.w[out.n] = wake
    out.n += 1


cdef bint _expired_locked(PoolCore p, Slot* s, int64_t now, int* reason) noexcept nogil:
    if s.die_at >= 0 and now >= s.die_at:
        reason[0] = RE_LIFETIME if s.die_at > 0 else s.reason
        return True
    if s.in_use == 0 and ((p.idle_timeout >= 0 and now - s.idle_since >= p.idle_timeout)
                          or (s.idle_limit >= 0 and now - s.idle_since >= s.idle_limit)):
        reason[0] = RE_IDLE_TIMEOUT
        return True
    return False


cdef void _condemn_locked(Slot* s, int reason) noexcept nogil:
    # Not closed yet, for somebody still uses it or looks at it; but it serves nobody else.
    if s.die_at != 0:
        s.die_at = 0
        s.reason = reason


cdef inline void _take_locked(PoolCore p, HostSlots* h, Slot* s, Holder* holder) noexcept nogil:
    # One more user. SL_ACTIVE means: counted in n_active.
    ph_assert_locked()
    if s.state == SL_IDLE:
        _lru_remove(p, s)
        h.n_idle -= 1
        p.n_idle -= 1
        h.n_active += 1
        s.state = SL_ACTIVE
    s.in_use += 1
    ph_add_int(&s.refs, 1)
    s.holder = holder
    if s.in_use >= s.capacity:
        _unoffer(h, s)


cdef inline bint _full_locked(PoolCore p, HostSlots* h, int closing) noexcept nogil:
    # No further connection may be made now. Where they are shared, one at a time: it may serve all who wait.
    cdef int n = h.n_open + h.n_dialing
    if h.shared and (h.n_dialing + h.n_fresh > 0 or (p.max_shared > 0 and n >= p.max_shared)):
        return True
    return p.max_per_host > 0 and n + closing >= p.max_per_host


cdef inline void _grant_dial_locked(PoolCore p, HostSlots* h, Wakes* out) noexcept nogil:
    # Room for one more connection: the first request that waits for it may dial.
    ph_assert_locked()
    cdef Waiter* w
    if h.n_waiting == 0 or out.n >= BATCH or _full_locked(p, h, h.n_closing):
        return
    w = h.wait_head
    while w.dialing:
        w = w.next
    _unqueue(h, w)
    w.state = W_DIAL
    h.n_dialing += 1
    h.dials += 1
    _tell(out, w.wake)


cdef void _retire_locked(PoolCore p, Slot* s, int reason, Slot** dead, Wakes* out) noexcept nogil:
    # The connection is over: off every list, counted, on the dead chain.
    ph_assert_locked()
    cdef HostSlots* h = <HostSlots*>s.host
    _unoffer(h, s)
    if s.state == SL_IDLE:
        _lru_remove(p, s)
        h.n_idle -= 1
        p.n_idle -= 1
    else:
        h.n_active -= 1
    if s.all_prev != NULL:
        s.all_prev.all_next = s.all_next
    else:
        h.all_head = s.all_next
    if s.all_next != NULL:
        s.all_next.all_prev = s.all_prev
    s.all_prev = s.all_next = NULL
    s.state = SL_DEAD
    s.holder = NULL
    if s.fresh:
        s.fresh = 0
        h.n_fresh -= 1
    if s.interrupted:
        reason = RE_CANCELLED
    s.reason = reason
    h.n_open -= 1
    if p.max_per_host > 0:
        h.n_closing += 1            # its room is another's when it is closed
    h.closed[reason] += 1
    ph_add_int(&_open, -1)
    if s.pins == 0:
        s.dead_next = dead[0]
        dead[0] = s
    _grant_dial_locked(p, h, out)


cdef void _serve_locked(PoolCore p, HostSlots* h, Wakes* out) noexcept nogil:
    # Hand what is on offer to the queue, first come, first served.
    ph_assert_locked()
    cdef Waiter* w
    cdef Slot* s
    while h.wait_head != NULL and out.n < BATCH:
        s = h.free_head
        if s == NULL:
            return
        if s.state == SL_CLAIMED:
            _unoffer(h, s)
            continue
        w = h.wait_head
        _unqueue(h, w)
        w.state = W_CONN
        w.slot = s
        _take_locked(p, h, s, w.holder)
        h.reuses += 1
        _tell(out, w.wake)


cdef void _settle_locked(PoolCore p, HostSlots* h, Slot* s, int64_t now, Slot** dead, Wakes* out) noexcept nogil:
    # A live connection has room: to the queue, else it stays on offer; idle where nobody uses it, within the limits.
    ph_assert_locked()
    _offer(h, s)
    _serve_locked(p, h, out)
    if s.in_use > 0:
        return
    h.n_active -= 1
    s.state = SL_IDLE
    s.idle_since = now
    _lru_push(p, s)
    h.n_idle += 1
    p.n_idle += 1
    if s != h.free_head:            # a shared one was on offer all along, at the place of its dial
        _unoffer(h, s)
        _offer(h, s)
    _trim_locked(p, h, dead, out)


cdef void _trim_locked(PoolCore p, HostSlots* h, Slot** dead, Wakes* out) noexcept nogil:
    # One more is idle: over a limit, the oldest goes.
    ph_assert_locked()
    cdef Slot* old
    if p.max_idle_per_host > 0 and h.n_idle > p.max_idle_per_host:
        old = h.free_tail
        while old != NULL and old.state != SL_IDLE:
            old = old.free_prev
        if old != NULL:
            _retire_locked(p, old, RE_EVICTED, dead, out)
    if p.max_idle > 0 and p.n_idle > p.max_idle:
        old = p.lru_tail
        while old != NULL and old.state != SL_IDLE:
            old = old.lru_prev
        if old != NULL:
            _retire_locked(p, old, RE_EVICTED, dead, out)


cdef void _notify(PoolCore p, HostSlots* h, Wakes* out) noexcept nogil:
    # After the lock: wake who was served. A batch that was full may have left more to hand out.
    cdef int i, n
    ph_assert_unlocked()
    while out.n > 0:
        n = out.n
        out.n = 0
        for i in range(n):
            wake_signal(out.w[i])
            wake_drop(out.w[i])
        if n < BATCH:
            return
        pool_lock(p)
        _serve_locked(p, h, out)
        while out.n < BATCH:
            i = out.n
            _grant_dial_locked(p, h, out)
            if out.n == i:
                break
        pool_unlock(p)


# --- what F4 calls ---------------------------------------------------------------------------------------------------------

cdef Slot* _pick_locked(PoolCore p, HostSlots* h, int64_t now, Slot** dead, Wakes* out) noexcept nogil:
    cdef Slot* s
    cdef int reason = 0
    while True:
        s = h.free_tail if p.fifo else h.free_head
        if s == NULL:
            return s
        if s.state == SL_CLAIMED:
            _unoffer(h, s)          # the janitor looks at it just now, and puts it back
        elif not _expired_locked(p, s, now, &reason):
            return s
        elif s.in_use > 0:
            _unoffer(h, s)          # shared and past its life: no new request; its last one closes it
        else:
            _retire_locked(p, s, reason, dead, out)


cdef int pool_checkout(PoolCore p, HostSlots* h, Holder* holder, Waiter* w, bint first, int64_t now, Slot** out, Slot** dead) noexcept nogil:
    cdef Slot* s
    cdef int st, closing
    cdef Wakes wakes
    wakes.n = 0
    pool_lock(p)
    closing = h.n_closing           # what this call retires its caller closes before it dials
    if p.closed and first:
        st = ST_CLOSED
    elif p.ended:
        st = ST_MORE
        if w != NULL:
            w.state = W_CLOSED
            _tell(&wakes, w.wake)
    elif h.folded:
        st = ST_AGAIN
    else:
        if first and p.keep_none and not p.closed:
            p.keep_none = 0
        h.last_used = now
        # Nothing passes the queue: what is on offer while somebody waits is about to be handed over by `_notify`.
        s = _pick_locked(p, h, now, dead, &wakes) if h.wait_head == NULL or not first else NULL
        if s != NULL:
            _take_locked(p, h, s, holder)
            if p.fifo and s.on_offer:
                _unoffer(h, s)
                _offer(h, s)
            h.reuses += 1
            out[0] = s
            st = ST_OK
        elif _full_locked(p, h, closing):
            st = ST_MORE
            if w != NULL:
                w.dialing = 0
                w.holder = holder
                h.waits += 1
                _queue(h, w, first)
        else:
            h.n_dialing += 1
            h.dials += 1
            st = ST_NEED_GIL
        if first and (st != ST_MORE or w != NULL):
            h.requests += 1
    pool_unlock(p)
    _notify(p, h, &wakes)
    return st


cdef int pool_race(PoolCore p, HostSlots* h, Waiter* w, int64_t now, Slot** out, Slot** dead) noexcept nogil:
    cdef Slot* s
    cdef int st = ST_MORE
    cdef Wakes wakes
    wakes.n = 0
    pool_lock(p)
    if p.ended:
        w.state = W_CLOSED
        _tell(&wakes, w.wake)
    else:
        s = _pick_locked(p, h, now, dead, &wakes) if h.wait_head == NULL else NULL
        if s != NULL:
            _take_locked(p, h, s, w.holder)
            h.reuses += 1
            out[0] = s
            st = ST_OK
        else:
            w.dialing = 1
            _queue(h, w, True)
    pool_unlock(p)
    _notify(p, h, &wakes)
    return st


cdef int pool_leave(PoolCore p, HostSlots* h, Waiter* w) noexcept nogil:
    cdef int state
    pool_lock(p)
    state = w.state
    if state == W_QUEUED:
        _unqueue(h, w)
    w.state = W_OUT
    pool_unlock(p)
    return state


cdef int pool_waiter_state(PoolCore p, Waiter* w) noexcept nogil:
    cdef int state
    pool_lock(p)
    state = w.state
    pool_unlock(p)
    return state


cdef void pool_dialed(PoolCore p, Host host, Poolable c, Holder* holder, int64_t now, Slot** dead):
    cdef HostSlots* h = &host.h
    cdef Slot* s = &c.slot
    cdef Wakes wakes
    cdef int broken, n
    cdef bint surplus = False
    wakes.n = 0
    c.home = host
    s.host = <void*>h
    s.fd = c.fileno()
    s.id = <uint64_t>ph_add_int(&_next_id, 1)
    s.born = now
    s.idle_since = now
    if p.lifetime >= 0:
        # Up to a tenth earlier, so that connections opened together do not end together.
        s.die_at = now + p.lifetime - <int64_t>((s.id * <uint64_t>2654435761) % 1000) * (p.lifetime // 10000)
    Py_INCREF(c)
    s.refs = 1 if holder == NULL else 2
    with nogil:
        pool_lock(p)
        if h.n_dialing > 0:             # 0: begun before a fork, ended in the child
            h.n_dialing -= 1
        h.opened += 1
        h.n_open += 1
        h.shared = s.shares
        if s.shares:
            # Of the dials of a host that nobody knew, one is enough: this serves the request that made it, and no other.
            surplus = h.free_head != NULL or h.n_fresh > 0 or (p.max_shared > 0 and h.n_open > p.max_shared)
            if not surplus:
                s.fresh = 1
                h.n_fresh += 1
        h.n_active += 1
        ph_add_int(&_open, 1)
        s.all_next = h.all_head
        if h.all_head != NULL:
            h.all_head.all_prev = s
        h.all_head = s
        s.state = SL_ACTIVE
        if holder != NULL:
            s.in_use = 1
            s.holder = holder
            s.interrupted = p.ended
            if surplus:
                _condemn_locked(s, RE_EVICTED)
            elif s.in_use < s.capacity and not p.ended:
                _settle_locked(p, h, s, now, dead, &wakes)
        elif p.closed or p.keep_none:
            _retire_locked(p, s, RE_SHUTDOWN, dead, &wakes)
        elif surplus:
            _retire_locked(p, s, RE_EVICTED, dead, &wakes)
        else:
            _settle_locked(p, h, s, now, dead, &wakes)
        broken = s.interrupted
        while h.n_waiting > 0 and wakes.n < BATCH:      # those who waited for it to be shared, where it is not
            n = wakes.n
            _grant_dial_locked(p, h, &wakes)
            if wakes.n == n:
                break
        pool_unlock(p)
        if broken:                      # close(cancel=True) came while it was dialed; only this caller has it
            c.interrupt()
        _notify(p, h, &wakes)


cdef void pool_capacity(Slot* s, int n) noexcept nogil:
    cdef HostSlots* h = <HostSlots*>s.host
    cdef Wakes wakes
    wakes.n = 0
    if h == NULL:                   # not registered yet
        s.capacity = n
        return
    pool_lock(<PoolCore>h.pool)
    s.capacity = n
    if s.fresh:
        s.fresh = 0
        h.n_fresh -= 1
    if s.state == SL_ACTIVE or s.state == SL_IDLE:
        if s.in_use >= n:
            _unoffer(h, s)
        elif not s.on_offer and s.die_at != 0:
            _offer(h, s)
            _serve_locked(<PoolCore>h.pool, h, &wakes)
    _grant_dial_locked(<PoolCore>h.pool, h, &wakes)
    pool_unlock(<PoolCore>h.pool)
    _notify(<PoolCore>h.pool, h, &wakes)


cdef void pool_dial_failed(PoolCore p, HostSlots* h) noexcept nogil:
    cdef Wakes wakes
    wakes.n = 0
    pool_lock(p)
    if h.n_dialing > 0:                 # as above
        h.n_dialing -= 1
    _grant_dial_locked(p, h, &wakes)
    pool_unlock(p)
    _notify(p, h, &wakes)


cdef int pool_give(PoolCore p, Slot* s, int verdict, int64_t idle_limit, bint used, int64_t now, Slot** dead) noexcept nogil:
    cdef HostSlots* h = <HostSlots*>s.host
    cdef Wakes wakes
    cdef int reason = 0
    wakes.n = 0
    pool_lock(p)
    if s.state == SL_DEAD:          # abandoned by a fork
        pool_unlock(p)
        return s.reason
    s.holder = NULL
    s.in_use -= 1
    if used:
        s.uses += 1
        s.idle_limit = idle_limit
    else:
        h.reuses -= 1
    if verdict == RE_REUSE:
        if s.interrupted:
            verdict = RE_CANCELLED
        elif p.closed or p.keep_none:
            verdict = RE_SHUTDOWN
        else:
            s.idle_since = now
            if _expired_locked(p, s, now, &reason):
                verdict = reason
    if verdict == RE_REUSE:
        _settle_locked(p, h, s, now, dead, &wakes)
    elif s.in_use == 0:
        _retire_locked(p, s, s.reason if s.die_at == 0 else verdict, dead, &wakes)
        verdict = s.reason
    else:
        _unoffer(h, s)
        _condemn_locked(s, verdict)     # the others on it finish; no new one comes
    pool_unlock(p)
    _notify(p, h, &wakes)
    return verdict


cdef bint pool_keep_place(PoolCore p, Slot* s) noexcept nogil:
    cdef HostSlots* h = <HostSlots*>s.host
    cdef bint kept
    pool_lock(p)
    kept = h.n_waiting > 0 and s.state == SL_ACTIVE and s.in_use == 1 and not p.ended
    if kept:
        h.n_dialing += 1
        h.dials += 1
    pool_unlock(p)
    return kept


cdef void pool_interrupt(PoolCore p, Slot* s, Holder* holder, Slot** dead) noexcept nogil:
    pool_lock(p)
    if s.state != SL_ACTIVE or s.interrupted or s.holder != <void*>holder:
        pool_unlock(p)
        return
    s.interrupted = 1
    s.pins += 1
    pool_unlock(p)
    (<Poolable>s.owner).interrupt()
    pool_lock(p)
    s.pins -= 1
    if s.pins == 0 and s.state == SL_DEAD:
        s.dead_next = NULL
        dead[0] = s
    pool_unlock(p)
    bury(dead[0])


cdef void pool_count(PoolCore p, HostSlots* h, uint64_t* counter, uint64_t n) noexcept nogil:
    pool_lock(p)
    if h.folded:
        counter = <uint64_t*>(<char*>&p.folded + (<char*>counter - <char*>h))
    counter[0] += n
    pool_unlock(p)


cdef void pool_mark_unread(PoolCore p, Holder* holder) noexcept nogil:
    pool_lock(p)
    holder.unread = 1
    pool_unlock(p)


# --- the dead --------------------------------------------------------------------------------------------------------------

cdef void bury(Slot* dead) noexcept nogil:
    cdef HostSlots* h
    ph_assert_unlocked()
    while dead != NULL:
        (<Poolable>dead.owner).close(dead.reason)
        h = <HostSlots*>dead.host
        if (<PoolCore>h.pool).max_per_host > 0:
            _closed(<PoolCore>h.pool, h)
        dead = dead.dead_next


cdef void _closed(PoolCore p, HostSlots* h) noexcept nogil:
    cdef Wakes wakes
    wakes.n = 0
    pool_lock(p)
    if h.n_closing > 0:             # 0: retired before a fork, closed in the child
        h.n_closing -= 1
    _grant_dial_locked(p, h, &wakes)
    pool_unlock(p)
    _notify(p, h, &wakes)


cdef object _observer = None


def install_observer(observer) -> None:
    """Say who hears of closed connections: called as observer(follower, gone, by, later) where their pool has a follower, or the logger wants lines.

    `gone` is a list of (connection, reason, key, id, requests served, age in seconds).
    """
    global _observer
    _observer = observer


cdef void reap(Slot* dead, object by=None, bint later=False):
    cdef Slot* after
    cdef object follower = None, gone = None
    # What a fork left to the child is the parent's, and here others may hold locks for ever.
    try:
        if dead != NULL and dead.reason != RE_FORKED and _observer is not None:
            follower = (<PoolCore>(<HostSlots*>dead.host).pool).follower
            if follower is not None or logger(DEBUG) is not None:
                gone = _gone(dead)
    finally:
        while dead != NULL:
            after = dead.dead_next
            dead.dead_next = NULL
            slot_release(dead)
            dead = after
    if gone is not None:
        _observer(follower, gone, by, later)


cdef list _gone(Slot* s):
    cdef list gone = []
    cdef int64_t now = ph_now()
    cdef Poolable c
    while s != NULL:
        c = <Poolable>s.owner
        gone.append((c, s.reason, (<Host>c.home).key, s.id, s.uses, (now - s.born) / 1e9))
        s = s.dead_next
    gone.reverse()                  # the chain has the last one first
    return gone


cdef void slot_release(Slot* s) noexcept nogil:
    if ph_add_int(&s.refs, -1) == 0:
        with gil:
            Py_DECREF(<object><PyObject*>s.owner)

cdef void wake_all(Wakes* out) noexcept nogil:
    cdef int i
    for i in range(out.n):
        wake_signal(out.w[i])
        wake_drop(out.w[i])
    out.n = 0


# --- objects ---------------------------------------------------------------------------------------------------------------

cdef class Host:
    """One pool key's home: its connections, its queue, its counts."""

    def __cinit__(self, str key):
        memset(&self.h, 0, sizeof(HostSlots))
        self.key = key


cdef class PoolCore:
    """What the lock guards. `Pool` is the whole."""

    def __cinit__(self):
        pthread_mutex_init(&self.lock, NULL)

    def __dealloc__(self):
        pthread_mutex_destroy(&self.lock)


def live() -> dict:
    """Live objects, for the tests' teardown."""
    return {"connections": ph_load_int(&_open)}


def gil_releases() -> int:
    return ph_gil_releases()
