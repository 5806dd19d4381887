"""Who may use which connection.

One native lock a pool guards everything in it: the hosts' lists, the list of idle connections over all hosts, the queues, the
counts. It is held for a few dozen instructions, never across a system call, a wait, the GIL or a destructor; whoever needs it
with the GIL held gives the GIL up first. See docs/concurrency.md.
"""
from libc.string cimport memset

from pooledhttp._core.compat cimport (
    POLLIN, ph_add_int, ph_assert_locked, ph_assert_unlocked, ph_gil_releases, ph_load_int, ph_note_lock, ph_now, ph_poll, pollfd,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)
from pooledhttp._core.poolable cimport SL_ACTIVE, SL_CLAIMED, SL_CURSOR, SL_DEAD, SL_IDLE
from pooledhttp._core.runtime cimport wake_drop, wake_hold, wake_signal
from pooledhttp._core.status cimport (
    RE_COUNT, RE_CANCELLED, RE_EVICTED, RE_FORKED, RE_IDLE_TIMEOUT, RE_LIFETIME, RE_REUSE, RE_SERVER_CLOSED, RE_SHUTDOWN, ST_AGAIN, ST_CLOSED,
    ST_MORE, ST_NEED_GIL, ST_OK,
)
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject

import threading

from pooledhttp._pool.stats import CLOSE_REASONS, HostStats, PoolStats

assert len(CLOSE_REASONS) == RE_COUNT

cdef enum:
    SLICE = 256              # idle connections looked at under one hold of the lock

    BATCH = 16               # waiters woken after one hold of the lock


cdef struct Wakes:
    Wake* w[16]
    int n


cdef int _next_id = 0
cdef int _open = 0           # open connections of the process, for the tests' teardown


cdef inline void _lock(Pool p) noexcept nogil:
    pthread_mutex_lock(&p.lock)
    ph_note_lock(1)


cdef inline void _unlock(Pool p) noexcept nogil:
    ph_note_lock(-1)
    pthread_mutex_unlock(&p.lock)


# --- lists, under the lock -------------------------------------------------------------------------------------------------

cdef inline void _offer(HostSlots* h, Slot* s) noexcept nogil:
    if s.on_offer:
        return
    s.on_offer = 1
    s.free_prev = NULL
    s.free_next = h.free_head
    if h.free_head != NULL:
        h.free_head.free_prev = s
    else:
        h.free_tail = s
    h.free_head = s


cdef inline void _unoffer(HostSlots* h, Slot* s) noexcept nogil:
    if not s.on_offer:
        return
    s.on_offer = 0
    if s.free_prev != NULL:
        s.free_prev.free_next = s.free_next
    else:
        h.free_head = s.free_next
    if s.free_next != NULL:
        s.free_next.free_prev = s.free_prev
    else:
        h.free_tail = s.free_prev
    s.free_prev = s.free_next = NULL


cdef inline void _reoffer(HostSlots* h, Slot* s, bint fifo) noexcept nogil:
    # At the place of its age: looked for from the end where somebody passed over it, so it is near.
    cdef Slot* newer = h.free_tail
    if s.on_offer:
        return
    if fifo:
        while newer != NULL and newer.idle_since < s.idle_since:
            newer = newer.free_prev
    elif h.free_head != NULL and h.free_head.idle_since > s.idle_since:
        newer = h.free_head
        while newer.free_next != NULL and newer.free_next.idle_since > s.idle_since:
            newer = newer.free_next
    else:
        newer = NULL
    if newer == NULL:
        _offer(h, s)
        return
    s.on_offer = 1
    s.free_prev = newer
    s.free_next = newer.free_next
    if newer.free_next != NULL:
        newer.free_next.free_prev = s
    else:
        h.free_tail = s
    newer.free_next = s


cdef inline void _lru_push(Pool p, Slot* s) noexcept nogil:
    s.lru_prev = NULL
    s.lru_next = p.lru_head
    if p.lru_head != NULL:
        p.lru_head.lru_prev = s
    else:
        p.lru_tail = s
    p.lru_head = s


cdef inline void _lru_remove(Pool p, Slot* s) noexcept nogil:
    if s.lru_prev != NULL:
        s.lru_prev.lru_next = s.lru_next
    else:
        p.lru_head = s.lru_next
    if s.lru_next != NULL:
        s.lru_next.lru_prev = s.lru_prev
    else:
        p.lru_tail = s.lru_prev
    s.lru_prev = s.lru_next = NULL


cdef inline void _lru_before(Pool p, Slot* cursor, Slot* s) noexcept nogil:
    # Put a cursor on the older side of s (its lru_next).
    cursor.lru_prev = s
    cursor.lru_next = s.lru_next
    if s.lru_next != NULL:
        s.lru_next.lru_prev = cursor
    else:
        p.lru_tail = cursor
    s.lru_next = cursor


cdef inline void _queue(HostSlots* h, Waiter* w, bint first) noexcept nogil:
    # At the end; at the front where it had its turn already, and what it got was dead.
    w.state = W_QUEUED
    w.slot = NULL
    w.next = w.prev = NULL
    if h.wait_head == NULL:
        h.wait_head = h.wait_tail = w
    elif first:
        w.prev = h.wait_tail
        h.wait_tail.next = w
        h.wait_tail = w
    else:
        w.next = h.wait_head
        h.wait_head.prev = w
        h.wait_head = w
    if not w.dialing:
        h.n_waiting += 1


cdef inline void _unqueue(HostSlots* h, Waiter* w) noexcept nogil:
    if w.prev != NULL:
        w.prev.next = w.next
    else:
        h.wait_head = w.next
    if w.next != NULL:
        w.next.prev = w.prev
    else:
        h.wait_tail = w.prev
    w.prev = w.next = NULL
    if not w.dialing:
        h.n_waiting -= 1


# --- moves, under the lock -------------------------------------------------------------------------------------------------

cdef inline void _tell(Wakes* out, Wake* wake) noexcept nogil:
    wake_hold(wake)
    out.w[out.n] = wake
    out.n += 1


cdef inline bint _expired_locked(Pool p, Slot* s, int64_t now, int* reason) noexcept nogil:
    if s.die_at >= 0 and now >= s.die_at:
        reason[0] = RE_LIFETIME if s.die_at > 0 else s.reason
        return True
    if s.in_use == 0 and ((p.idle_timeout >= 0 and now - s.idle_since >= p.idle_timeout)
                          or (s.idle_limit >= 0 and now - s.idle_since >= s.idle_limit)):
        reason[0] = RE_IDLE_TIMEOUT
        return True
    return False


cdef inline void _condemn_locked(Slot* s, int reason) noexcept nogil:
    # Not closed yet, for somebody still uses it or looks at it; but it serves nobody else.
    if s.die_at != 0:
        s.die_at = 0
        s.reason = reason


cdef inline void _take_locked(Pool p, HostSlots* h, Slot* s, Holder* holder) noexcept nogil:
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


cdef inline void _grant_dial_locked(Pool p, HostSlots* h, Wakes* out) noexcept nogil:
    # Room for one more connection: the first request that waits for it may dial.
    ph_assert_locked()
    cdef Waiter* w
    if h.n_waiting == 0 or out.n >= BATCH or (p.max_per_host > 0 and h.n_open + h.n_dialing >= p.max_per_host):
        return
    w = h.wait_head
    while w.dialing:
        w = w.next
    _unqueue(h, w)
    w.state = W_DIAL
    h.n_dialing += 1
    h.dials += 1
    _tell(out, w.wake)


cdef void _retire_locked(Pool p, Slot* s, int reason, Slot** dead, Wakes* out) noexcept nogil:
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
    if s.interrupted:
        reason = RE_CANCELLED
    s.reason = reason
    h.n_open -= 1
    h.closed[reason] += 1
    ph_add_int(&_open, -1)
    if s.pins == 0:
        s.dead_next = dead[0]
        dead[0] = s
    _grant_dial_locked(p, h, out)


cdef void _serve_locked(Pool p, HostSlots* h, Wakes* out) noexcept nogil:
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


cdef void _settle_locked(Pool p, HostSlots* h, Slot* s, int64_t now, Slot** dead, Wakes* out) noexcept nogil:
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


cdef void _trim_locked(Pool p, HostSlots* h, Slot** dead, Wakes* out) noexcept nogil:
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


cdef void _notify(Pool p, HostSlots* h, Wakes* out) noexcept nogil:
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
        _lock(p)
        _serve_locked(p, h, out)
        while out.n < BATCH:
            i = out.n
            _grant_dial_locked(p, h, out)
            if out.n == i:
                break
        _unlock(p)


# --- what F4 calls ---------------------------------------------------------------------------------------------------------

cdef Slot* _pick_locked(Pool p, HostSlots* h, int64_t now, Slot** dead, Wakes* out) noexcept nogil:
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


cdef int pool_checkout(Pool p, HostSlots* h, Holder* holder, Waiter* w, bint first, int64_t now, Slot** out, Slot** dead) noexcept nogil:
    cdef Slot* s
    cdef int st
    cdef Wakes wakes
    wakes.n = 0
    _lock(p)
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
        elif p.max_per_host > 0 and h.n_open + h.n_dialing >= p.max_per_host:
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
    _unlock(p)
    _notify(p, h, &wakes)
    return st


cdef int pool_race(Pool p, HostSlots* h, Waiter* w, int64_t now, Slot** out, Slot** dead) noexcept nogil:
    cdef Slot* s
    cdef int st = ST_MORE
    cdef Wakes wakes
    wakes.n = 0
    _lock(p)
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
    _unlock(p)
    _notify(p, h, &wakes)
    return st


cdef int pool_leave(Pool p, HostSlots* h, Waiter* w) noexcept nogil:
    cdef int state
    _lock(p)
    state = w.state
    if state == W_QUEUED:
        _unqueue(h, w)
    w.state = W_OUT
    _unlock(p)
    return state


cdef int pool_waiter_state(Pool p, Waiter* w) noexcept nogil:
    cdef int state
    _lock(p)
    state = w.state
    _unlock(p)
    return state


cdef void pool_dialed(Pool p, Host host, Poolable c, Holder* holder, int64_t now, Slot** dead):
    cdef HostSlots* h = &host.h
    cdef Slot* s = &c.slot
    cdef Wakes wakes
    cdef int broken
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
        _lock(p)
        if h.n_dialing > 0:             # 0: begun before a fork, ended in the child
            h.n_dialing -= 1
        h.opened += 1
        h.n_open += 1
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
            if s.in_use < s.capacity and not p.ended:
                _settle_locked(p, h, s, now, dead, &wakes)
        elif p.closed or p.keep_none:
            _retire_locked(p, s, RE_SHUTDOWN, dead, &wakes)
        else:
            _settle_locked(p, h, s, now, dead, &wakes)
        broken = s.interrupted
        _unlock(p)
        if broken:                      # close(cancel=True) came while it was dialed; only this caller has it
            c.interrupt()
        _notify(p, h, &wakes)


cdef void pool_dial_failed(Pool p, HostSlots* h) noexcept nogil:
    cdef Wakes wakes
    wakes.n = 0
    _lock(p)
    if h.n_dialing > 0:                 # as above
        h.n_dialing -= 1
    _grant_dial_locked(p, h, &wakes)
    _unlock(p)
    _notify(p, h, &wakes)


cdef int pool_give(Pool p, Slot* s, int verdict, int64_t idle_limit, bint used, int64_t now, Slot** dead) noexcept nogil:
    cdef HostSlots* h = <HostSlots*>s.host
    cdef Wakes wakes
    cdef int reason = 0
    wakes.n = 0
    _lock(p)
    if s.state == SL_DEAD:          # abandoned by a fork
        _unlock(p)
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
    _unlock(p)
    _notify(p, h, &wakes)
    return verdict


cdef void pool_count(Pool p, HostSlots* h, uint64_t* counter, uint64_t n) noexcept nogil:
    _lock(p)
    if h.folded:
        counter = <uint64_t*>(<char*>&p.folded + (<char*>counter - <char*>h))
    counter[0] += n
    _unlock(p)


cdef void pool_mark_unread(Pool p, Holder* holder) noexcept nogil:
    _lock(p)
    holder.unread = 1
    _unlock(p)


# --- the dead --------------------------------------------------------------------------------------------------------------

cdef void bury(Slot* dead) noexcept nogil:
    ph_assert_unlocked()
    while dead != NULL:
        (<Poolable>dead.owner).close(dead.reason)
        dead = dead.dead_next


cdef void reap(Slot* dead):
    cdef Slot* after
    while dead != NULL:
        after = dead.dead_next
        dead.dead_next = NULL
        slot_release(dead)
        dead = after


cdef void slot_release(Slot* s) noexcept nogil:
    if ph_add_int(&s.refs, -1) == 0:
        with gil:
            Py_DECREF(<object><PyObject*>s.owner)


# --- the janitor's step ----------------------------------------------------------------------------------------------------

cdef int _slice_locked(Pool p, int64_t now, pollfd* fds, bint* last, Slot** dead, Wakes* out) noexcept nogil:
    # From cursor_a on to older ones: retire the expired, note the others' descriptors; cursor_b marks the end.
    ph_assert_locked()
    cdef Slot* s = p.cursor_a.lru_next
    cdef Slot* after
    cdef Slot* at = &p.cursor_a
    cdef int n = 0, seen = 0, reason = 0
    while s != NULL and seen < SLICE:
        after = s.lru_next
        seen += 1
        if _expired_locked(p, s, now, &reason):
            _retire_locked(p, s, reason, dead, out)
        else:
            if s.fd >= 0:
                fds[n].fd = s.fd
                fds[n].events = POLLIN
                fds[n].revents = 0
                n += 1
            at = s
        s = after
    last[0] = s == NULL
    _lru_before(p, &p.cursor_b, at)
    return n


cdef Slot* _claim_locked(Pool p, pollfd* fds, int n) noexcept nogil:
    # Between the cursors: whoever is still there was idle all the while, so its descriptor is the one polled. A claimed one keeps
    # its places in the lists, so that it is as old afterwards as it was; nobody takes or closes it meanwhile, and it counts as active.
    ph_assert_locked()
    cdef Slot* s = p.cursor_a.lru_next
    cdef Slot* claimed = NULL
    cdef HostSlots* h
    cdef int i = 0
    while s != &p.cursor_b:
        if s.fd >= 0:
            # Same order as noted; those gone meanwhile leave gaps.
            while i < n and fds[i].fd != s.fd:
                i += 1
            if i < n and fds[i].revents:
                h = <HostSlots*>s.host
                h.n_idle -= 1
                p.n_idle -= 1
                h.n_active += 1
                s.state = SL_CLAIMED
                s.dead_next = claimed
                claimed = s
        s = s.lru_next
    return claimed


cdef void _judge(Pool p, Slot* claimed, int64_t now, Slot** dead) noexcept nogil:
    # Idle and readable: a TLS ticket, or the end.
    cdef Slot* s
    cdef HostSlots* h
    cdef Wakes wakes
    cdef int st, reason = 0
    while claimed != NULL:
        s = claimed
        claimed = s.dead_next
        s.dead_next = NULL
        ph_assert_unlocked()
        st = (<Poolable>s.owner).on_readable()
        wakes.n = 0
        h = <HostSlots*>s.host
        _lock(p)
        s.state = SL_IDLE
        h.n_idle += 1
        p.n_idle += 1
        h.n_active -= 1
        if st != ST_OK:
            _retire_locked(p, s, RE_SERVER_CLOSED, dead, &wakes)
        elif p.closed or p.keep_none:
            _retire_locked(p, s, RE_SHUTDOWN, dead, &wakes)
        elif _expired_locked(p, s, now, &reason):
            _retire_locked(p, s, reason, dead, &wakes)
        else:
            _reoffer(h, s, p.fifo)      # a request may have passed over it
            _serve_locked(p, h, &wakes)
            _trim_locked(p, h, dead, &wakes)
        _unlock(p)
        _notify(p, h, &wakes)


cdef int pool_sweep(Pool p, int64_t now, Slot** dead) noexcept nogil:
    cdef pollfd fds[SLICE]
    cdef Slot* claimed
    cdef Wakes wakes
    cdef int n, left
    cdef bint last = False
    _lock(p)
    if p.sweeping:
        left = p.n_idle
        _unlock(p)
        return left
    p.sweeping = 1
    _lru_push(p, &p.cursor_a)
    while True:
        wakes.n = 0
        n = _slice_locked(p, now, fds, &last, dead, &wakes)
        _unlock(p)
        _wake_all(&wakes)
        if n > 0 and ph_poll(fds, n, 0) > 0:
            _lock(p)
            claimed = _claim_locked(p, fds, n)
            _unlock(p)
            _judge(p, claimed, now, dead)
        _lock(p)
        _lru_remove(p, &p.cursor_a)
        if last:
            _lru_remove(p, &p.cursor_b)
            break
        # Go on where this slice ended.
        _lru_before(p, &p.cursor_a, &p.cursor_b)
        _lru_remove(p, &p.cursor_b)
    p.sweeping = 0
    left = p.n_idle
    _unlock(p)
    return left


cdef void _wake_all(Wakes* out) noexcept nogil:
    cdef int i
    for i in range(out.n):
        wake_signal(out.w[i])
        wake_drop(out.w[i])
    out.n = 0


cdef void _disown_locked(HostSlots* h, Slot** dead) noexcept nogil:
    # After a fork. The thread that forked may have done so between any two stores of another thread that held the lock: so the lists
    # are only walked forward, never mended, and the counts are made anew.
    cdef Waiter* w = h.wait_head
    cdef Waiter* behind
    cdef Slot* s = h.all_head
    cdef Slot* older
    cdef uint64_t known = 0
    cdef int i
    while w != NULL:
        behind = w.next
        w.prev = w.next = NULL
        w.state = W_OUT if w.dialing else W_CLOSED      # the forking thread's own dial goes on
        w = behind
    while s != NULL:
        older = s.all_next
        s.all_prev = s.all_next = s.free_prev = s.free_next = s.lru_prev = s.lru_next = NULL
        s.on_offer = s.pins = s.interrupted = 0
        s.holder = NULL
        s.state = SL_DEAD
        s.reason = RE_FORKED
        s.dead_next = dead[0]
        dead[0] = s
        ph_add_int(&_open, -1)
        s = older
    h.wait_head = h.wait_tail = NULL
    h.free_head = h.free_tail = h.all_head = NULL
    h.n_idle = h.n_active = h.n_dialing = h.n_waiting = h.n_open = 0
    for i in range(RE_COUNT):
        known += h.closed[i]
    h.closed[<int>RE_FORKED] += h.opened - known


# --- the whole pool --------------------------------------------------------------------------------------------------------

cdef struct HolderText:
    char label[24]
    char detail[160]
    int64_t since
    int unread


cdef size_t _copy(char* dst, size_t cap, const char* src, size_t n) noexcept nogil:
    # Up to the query, and no more than there is room for.
    cdef size_t i = 0
    while i < n and i < cap - 1 and src[i] != 63:
        dst[i] = src[i]
        i += 1
    dst[i] = 0
    return i


cdef object _as_stats(HostSlots* h, object stats):
    stats.idle = h.n_idle
    stats.active = h.n_active
    stats.dialing = h.n_dialing
    stats.waiting = h.n_waiting
    stats.open = h.n_open
    stats.dials = h.dials
    stats.opened = h.opened
    stats.reuses = h.reuses
    stats.waits = h.waits
    stats.wait_seconds = h.wait_ns / 1e9
    stats.retries = h.retries
    stats.requests = h.requests
    stats.leaked = h.leaked
    stats.closed = {reason: h.closed[i] for i, reason in enumerate(CLOSE_REASONS)}
    return stats


cdef int64_t _ns(object seconds):
    # None and 0 are never, and so are centuries: they would not fit.
    return <int64_t>(<double>seconds * 1e9) if seconds and seconds < 3e9 else -1


cdef class Host:
    """One pool key's home: its connections, its queue, its counts."""

    def __cinit__(self, str key):
        memset(&self.h, 0, sizeof(HostSlots))
        self.key = key


cdef class Pool:
    """Connections of many hosts, bounded. 0 is no limit; times are in seconds, None or 0 is never.

    `max_idle`, `max_idle_per_host`, `max_per_host` (dialing, active and idle), `idle_timeout`, `lifetime`, `fifo` are `Transport`'s
    options; over `max_hosts` pool keys, the least recently used ones that hold nothing fold into one row of the statistics.
    """

    def __cinit__(self, *, int max_idle=200, int max_idle_per_host=100, int max_per_host=0, idle_timeout=90.0, lifetime=None,
                  bint fifo=False, int max_hosts=1024):
        pthread_mutex_init(&self.lock, NULL)
        memset(&self.folded, 0, sizeof(HostSlots))
        memset(&self.cursor_a, 0, sizeof(Slot))
        memset(&self.cursor_b, 0, sizeof(Slot))
        self.cursor_a.state = self.cursor_b.state = SL_CURSOR
        self.hosts = {}
        # Re-entrant: a signal handler, or a finalizer run by the collector, may ask for stats or make a request right here.
        self.hosts_lock = threading.RLock()
        self.max_idle = max_idle
        self.max_idle_per_host = max_idle_per_host
        self.max_per_host = max_per_host
        self.idle_timeout = _ns(idle_timeout)
        self.lifetime = _ns(lifetime)
        self.fifo = fifo
        self.max_hosts = self.fold_at = max_hosts

    def __dealloc__(self):
        # Dropped without close(): nobody is left who could use what idles here. Active ones keep the pool alive.
        cdef Slot* dead = NULL
        with nogil:
            _lock(self)
            self._retire_idle(&dead)
            _unlock(self)
            bury(dead)
        reap(dead)
        pthread_mutex_destroy(&self.lock)

    cpdef Host host(self, str key):
        """The key's home, made on first use."""
        cdef Host host = self.hosts.get(key)
        if host is not None and not host.h.folded:
            return host
        with self.hosts_lock:
            if len(self.hosts) >= self.fold_at:
                self._fold()
            host = self.hosts.get(key)
            if host is None or host.h.folded:
                host = Host(key)
                host.h.last_used = ph_now()
                self.hosts[key] = host
        return host

    cdef object _fold(self):
        # Down to seven eighths, so that the scan is paid for by many new hosts; the same where most are busy and cannot go.
        cdef Host host
        cdef HostSlots* h
        cdef HostSlots* f = &self.folded
        cdef int i
        cdef bint quiet
        by_age = []
        for host in list(self.hosts.values()):
            by_age.append((host.h.last_used, host.key))
        by_age.sort()
        for _, key in by_age:
            if len(self.hosts) <= self.max_hosts - (self.max_hosts + 7) // 8:
                break
            host = self.hosts.get(key)
            if host is None:
                continue
            h = &host.h
            with nogil:
                _lock(self)
                quiet = h.n_open == 0 and h.n_dialing == 0 and h.wait_head == NULL
                if quiet:
                    h.folded = 1
                    f.dials += h.dials
                    f.opened += h.opened
                    f.reuses += h.reuses
                    f.waits += h.waits
                    f.wait_ns += h.wait_ns
                    f.retries += h.retries
                    f.requests += h.requests
                    f.leaked += h.leaked
                    for i in range(RE_COUNT):
                        f.closed[i] += h.closed[i]
                _unlock(self)
            if quiet:
                self.hosts.pop(key, None)
        self.fold_at = max(self.max_hosts, len(self.hosts) + len(self.hosts) // 8)

    cdef void _retire_idle(self, Slot** dead) noexcept nogil:
        cdef Slot* s
        cdef Slot* older
        cdef Wakes wakes
        wakes.n = 0
        s = self.lru_head
        while s != NULL:
            older = s.lru_next
            if s.state == SL_IDLE:
                _retire_locked(self, s, RE_SHUTDOWN, dead, &wakes)
            elif s.state == SL_CLAIMED:
                _condemn_locked(s, RE_SHUTDOWN)
            s = older
        # Nobody waits for a connection of a host that has an idle one, so wakes is empty.

    def close_idle(self) -> None:
        """Close what is idle now, and what is given back until the next request."""
        cdef Slot* dead = NULL
        with nogil:
            _lock(self)
            self.keep_none = 1
            self._retire_idle(&dead)
            _unlock(self)
            bury(dead)
        reap(dead)

    def close(self, bint cancel=False) -> None:
        """No further request. What is in flight may finish; with `cancel`, it is ended, and what waits is told."""
        cdef Slot* dead = NULL
        cdef Host host
        with nogil:
            _lock(self)
            self.closed = 1
            self.keep_none = 1
            self.ended |= cancel
            self._retire_idle(&dead)
            _unlock(self)
            bury(dead)
        reap(dead)
        if cancel:
            with self.hosts_lock:
                hosts = list(self.hosts.values())
            for host in hosts:
                self._interrupt(host)

    cdef object _interrupt(self, Host host):
        cdef HostSlots* h = &host.h
        cdef Slot* pinned[64]
        cdef Slot* s
        cdef Slot* dead
        cdef Waiter* w
        cdef Wakes wakes
        cdef int n, i
        cdef bint more = True
        while more:
            dead = NULL
            wakes.n = 0
            with nogil:
                n = 0
                _lock(self)
                s = h.all_head
                while s != NULL and n < 64:
                    if s.state == SL_ACTIVE and not s.interrupted:
                        s.interrupted = 1
                        s.pins += 1
                        pinned[n] = s
                        n += 1
                    s = s.all_next
                while h.wait_head != NULL and wakes.n < BATCH:
                    w = h.wait_head
                    _unqueue(h, w)
                    w.state = W_CLOSED
                    _tell(&wakes, w.wake)
                more = s != NULL or h.wait_head != NULL
                _unlock(self)
                _wake_all(&wakes)
                ph_assert_unlocked()
                for i in range(n):
                    (<Poolable>pinned[i].owner).interrupt()
                _lock(self)
                for i in range(n):
                    s = pinned[i]
                    s.pins -= 1
                    if s.pins == 0 and s.state == SL_DEAD:
                        s.dead_next = dead
                        dead = s
                _unlock(self)
                bury(dead)
            reap(dead)

    def abandon(self) -> None:
        """In a forked child: the parent's connections are not ours. Closes our copies of their descriptors, without a word on the wire."""
        cdef Host host
        cdef Slot* dead = NULL
        pthread_mutex_init(&self.lock, NULL)        # a thread that is not here may have held it
        self.hosts_lock = threading.RLock()
        self.sweeping = 0
        self.n_idle = 0
        self.lru_head = self.lru_tail = NULL
        for host in list(self.hosts.values()):
            with nogil:
                _lock(self)
                _disown_locked(&host.h, &dead)
                _unlock(self)
        with nogil:
            bury(dead)
        reap(dead)

    def sweep(self, int64_t now) -> int:
        """The janitor's step: closes the expired and the dead among the idle. `now` in monotonic nanoseconds. Returns how many idle on."""
        cdef Slot* dead = NULL
        cdef int left
        with nogil:
            left = pool_sweep(self, now, &dead)
            bury(dead)
        reap(dead)
        return left

    def holders(self, Host host, int most=8, now=None) -> list:
        """Who holds the host's connections: (label, detail without its query, seconds, body left unread), at most `most`.

        `now`: monotonic nanoseconds, if not the clock's.
        """
        cdef HolderText text[8]
        cdef Slot* s
        cdef Holder* who
        cdef int n = 0, i
        cdef int64_t at = ph_now() if now is None else now
        if most > 8:
            most = 8
        with nogil:
            _lock(self)
            s = host.h.all_head
            while s != NULL and n < most:
                who = <Holder*>s.holder
                if who != NULL:
                    _copy(text[n].label, 24, who.label, who.label_len)
                    _copy(text[n].detail, 160, who.detail, who.detail_len)
                    text[n].since = who.since
                    text[n].unread = who.unread
                    n += 1
                s = s.all_next
            _unlock(self)
        return [(text[i].label.decode("latin-1"), text[i].detail.decode("latin-1"), (at - text[i].since) / 1e9, bool(text[i].unread))
                for i in range(n)]

    @property
    def is_closed(self) -> bool:
        return bool(self.closed)

    @property
    def idle(self) -> int:
        cdef int n
        with nogil:
            _lock(self)
            n = self.n_idle
            _unlock(self)
        return n

    def stats(self) -> PoolStats:
        """Counts now; each host's row is one moment's."""
        cdef Host host
        cdef HostSlots copy
        total = PoolStats()
        with self.hosts_lock:
            for host in list(self.hosts.values()):
                with nogil:
                    _lock(self)
                    copy = host.h
                    _unlock(self)
                row = _as_stats(&copy, HostStats())
                total.hosts[host.key] = row
                total._add(row)
            if self.folded.requests or self.folded.dials:
                row = _as_stats(&self.folded, HostStats())
                total.hosts["(others)"] = row
                total._add(row)
        return total


def live() -> dict:
    """Live objects, for the tests' teardown."""
    return {"connections": ph_load_int(&_open)}


def gil_releases() -> int:
    return ph_gil_releases()
