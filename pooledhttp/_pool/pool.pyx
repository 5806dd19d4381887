"""A whole pool: its hosts by key, its closing, its statistics, and the janitor's step. Under the same lock as core.pyx, by the same rules."""
from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from pooledhttp._core.compat cimport POLLIN, ph_add_int, ph_gil_releases, ph_now, ph_poll, pollfd, pthread_mutex_init
from pooledhttp._core.poolable cimport SL_ACTIVE, SL_CLAIMED, SL_CURSOR, SL_DEAD, SL_IDLE, Holder, Poolable, Slot
from pooledhttp._core.runtime cimport unsettled
from pooledhttp._core.status cimport RE_COUNT, RE_FORKED, RE_SERVER_CLOSED, RE_SHUTDOWN, ST_OK
from pooledhttp._pool.core cimport (
    BATCH, W_CLOSED, W_OUT, Host, HostSlots, PoolCore, Waiter, Wakes, _condemn_locked, _expired_locked, _notify, _retire_locked, _serve_locked, _tell,
    _trim_locked, bury, count_open, must_hold, must_not_hold, pool_lock, pool_unlock, reap, slot_release,
    wake_all,
)
from pooledhttp._pool.lists cimport _lru_before, _lru_push, _lru_remove, _reoffer, _unqueue

import threading

from pooledhttp._core.runtime import settle
from pooledhttp._pool.core import live
from pooledhttp._pool.stats import CLOSE_REASONS, HostStats, PoolStats

__all__ = ["Host", "Pool", "gil_releases", "live"]

assert len(CLOSE_REASONS) == RE_COUNT

cdef enum:
    SLICE = 256              # idle connections looked at under one hold of the lock


# --- the janitor's step ----------------------------------------------------------------------------------------------------

cdef int _slice_locked(PoolCore p, int64_t now, pollfd* fds, bint* last, Slot** dead, Wakes* out) noexcept nogil:
    # From cursor_a on to older ones: retire the expired, note the others' descriptors; cursor_b marks the end.
    must_hold()
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


cdef Slot* _claim_locked(PoolCore p, pollfd* fds, int n) noexcept nogil:
    # Between the cursors: whoever is still there was idle all the while, so its descriptor is the one polled. A claimed one keeps
    # its places in the lists, so that it is as old afterwards as it was; nobody takes or closes it meanwhile, and it counts as active.
    must_hold()
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
                ph_add_int(&s.refs, 1)      # a child forked meanwhile must not free what is half-way through something
                s.dead_next = claimed
                claimed = s
        s = s.lru_next
    return claimed


cdef void _judge(PoolCore p, Slot* claimed, int64_t now, Slot** dead) noexcept nogil:
    # Idle and readable: a TLS ticket, or the end.
    cdef Slot* s
    cdef HostSlots* h
    cdef Wakes wakes
    cdef int st, reason = 0
    while claimed != NULL:
        s = claimed
        claimed = s.dead_next
        s.dead_next = NULL
        must_not_hold()
        st = (<Poolable>s.owner).on_readable()
        wakes.n = 0
        h = <HostSlots*>s.host
        pool_lock(p)
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
        pool_unlock(p)
        _notify(p, h, &wakes)
        slot_release(s)


cdef int pool_sweep(PoolCore p, int64_t now, Slot** dead) noexcept nogil:
    cdef pollfd fds[SLICE]
    cdef Slot* claimed
    cdef Wakes wakes
    cdef int n, left
    cdef bint last = False
    pool_lock(p)
    if p.sweeping:
        left = p.n_idle
        pool_unlock(p)
        return left
    p.sweeping = 1
    _lru_push(p, &p.cursor_a)
    while True:
        wakes.n = 0
        n = _slice_locked(p, now, fds, &last, dead, &wakes)
        pool_unlock(p)
        wake_all(&wakes)
        if n > 0 and ph_poll(fds, n, 0) > 0:
            pool_lock(p)
            claimed = _claim_locked(p, fds, n)
            pool_unlock(p)
            _judge(p, claimed, now, dead)
        pool_lock(p)
        _lru_remove(p, &p.cursor_a)
        if last:
            _lru_remove(p, &p.cursor_b)
            break
        # Go on where this slice ended.
        _lru_before(p, &p.cursor_a, &p.cursor_b)
        _lru_remove(p, &p.cursor_b)
    p.sweeping = 0
    left = p.n_idle
    pool_unlock(p)
    return left

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
        count_open(-1)
        s = older
    h.wait_head = h.wait_tail = NULL
    h.free_head = h.free_tail = h.all_head = NULL
    h.n_idle = h.n_active = h.n_dialing = h.n_waiting = h.n_open = h.n_closing = h.n_fresh = 0
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


cdef class Pool(PoolCore):
    """Connections of many hosts, bounded. 0 is no limit; times are in seconds, None or 0 is never.

    `max_idle`, `max_idle_per_host`, `max_per_host` (dialing, active and idle), `idle_timeout`, `lifetime`, `fifo` are `Transport`'s
    options; `max_shared` bounds a host's
    connections where requests share them; over `max_hosts` pool keys, the least recently used ones that hold nothing fold into one row of the statistics.
    """

    def __cinit__(self, *, int max_idle=200, int max_idle_per_host=100, int max_per_host=0, idle_timeout=90.0, lifetime=None,
                  bint fifo=False, int max_hosts=1024, int max_shared=0):
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
        self.max_shared = max_shared
        self.idle_timeout = _ns(idle_timeout)
        self.lifetime = _ns(lifetime)
        self.fifo = fifo
        self.max_hosts = self.fold_at = max_hosts

    def __dealloc__(self):
        # Dropped without close(): nobody is left who could use what idles here. Active ones keep the pool alive.
        cdef Slot* dead = NULL
        with nogil:
            pool_lock(self)
            self._retire_idle(&dead)
            pool_unlock(self)
            bury(dead)
        reap(dead, None, True)

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
                host.h.pool = <void*>self
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
                pool_lock(self)
                quiet = h.n_open == 0 and h.n_closing == 0 and h.n_dialing == 0 and h.wait_head == NULL
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
                pool_unlock(self)
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
        if unsettled():
            settle()
        with nogil:
            pool_lock(self)
            self.keep_none = 1
            self._retire_idle(&dead)
            pool_unlock(self)
            bury(dead)
        reap(dead)

    def close(self, bint cancel=False) -> None:
        """No further request. What is in flight may finish; with `cancel`, it is ended, and what waits is told."""
        cdef Slot* dead = NULL
        cdef Host host
        if unsettled():
            settle()
        with nogil:
            pool_lock(self)
            self.closed = 1
            self.keep_none = 1
            self.ended |= cancel
            self._retire_idle(&dead)
            pool_unlock(self)
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
                pool_lock(self)
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
                pool_unlock(self)
                wake_all(&wakes)
                must_not_hold()
                for i in range(n):
                    (<Poolable>pinned[i].owner).interrupt()
                pool_lock(self)
                for i in range(n):
                    s = pinned[i]
                    s.pins -= 1
                    if s.pins == 0 and s.state == SL_DEAD:
                        s.dead_next = dead
                        dead = s
                pool_unlock(self)
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
                pool_lock(self)
                _disown_locked(&host.h, &dead)
                pool_unlock(self)
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
            pool_lock(self)
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
            pool_unlock(self)
        return [(text[i].label.decode("latin-1"), text[i].detail.decode("latin-1"), (at - text[i].since) / 1e9, bool(text[i].unread))
                for i in range(n)]

    @property
    def is_closed(self) -> bool:
        return bool(self.closed)

    @property
    def idle(self) -> int:
        cdef int n
        with nogil:
            pool_lock(self)
            n = self.n_idle
            pool_unlock(self)
        return n

    def stats(self) -> PoolStats:
        """Counts now, all of one moment: a connection that goes from host to host is never counted twice."""
        cdef Host host
        cdef HostSlots** at
        cdef HostSlots* copies = NULL
        cdef int i, n = 0
        cdef bytearray places, room
        if unsettled():
            settle()
        total = PoolStats()
        with self.hosts_lock:
            hosts = list(self.hosts.values())
            n = len(hosts)
            places = bytearray((n + 1) * sizeof(HostSlots*))
            room = bytearray((n + 1) * sizeof(HostSlots))         # written to once already: no page is missing under the lock
            at = <HostSlots**>PyByteArray_AS_STRING(places)
            copies = <HostSlots*>PyByteArray_AS_STRING(room)
            for i in range(n):
                host = hosts[i]
                at[i] = &host.h
            at[n] = &self.folded
            with nogil:
                pool_lock(self)
                for i in range(n + 1):
                    copies[i] = at[i][0]
                pool_unlock(self)
        for i in range(n):
            if copies[i].folded:          # by a visitor, after the list was made
                continue
            host = hosts[i]
            row = _as_stats(&copies[i], HostStats())
            total.hosts[host.key] = row
            total._add(row)
        if copies[n].requests or copies[n].dials:
            row = _as_stats(&copies[n], HostStats())
            total.hosts["(others)"] = row
            total._add(row)
        return total


def gil_releases() -> int:
    return ph_gil_releases()
