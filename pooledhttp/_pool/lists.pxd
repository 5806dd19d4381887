"""The pool's doubly linked lists: a host's connections on offer, the idle ones over all hosts, a host's queue. All under the pool's lock."""
from pooledhttp._core.poolable cimport Slot
from pooledhttp._pool.core cimport W_QUEUED, HostSlots, PoolCore, Waiter


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


cdef inline void _lru_push(PoolCore p, Slot* s) noexcept nogil:
    s.lru_prev = NULL
    s.lru_next = p.lru_head
    if p.lru_head != NULL:
        p.lru_head.lru_prev = s
    else:
        p.lru_tail = s
    p.lru_head = s


cdef inline void _lru_remove(PoolCore p, Slot* s) noexcept nogil:
    if s.lru_prev != NULL:
        s.lru_prev.lru_next = s.lru_next
    else:
        p.lru_head = s.lru_next
    if s.lru_next != NULL:
        s.lru_next.lru_prev = s.lru_prev
    else:
        p.lru_tail = s.lru_prev
    s.lru_prev = s.lru_next = NULL


cdef inline void _lru_before(PoolCore p, Slot* cursor, Slot* s) noexcept nogil:
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
