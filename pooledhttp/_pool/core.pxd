"""Who may use which connection. Sees neither bytes nor HTTP; never waits, never makes a system call under its lock.

Every function here takes the lock for a few dozen instructions and gives it back. What must be closed is put on a `dead` chain that
the caller closes (`bury`) and, with the GIL, reaps (`reap`).
"""
from libc.stdint cimport int64_t, uint64_t

from pooledhttp._core.compat cimport pthread_mutex_t
from pooledhttp._core.poolable cimport Holder, Poolable, Slot
from pooledhttp._core.runtime cimport Wake

cdef enum WaiterState:
    W_OUT = 0           # in no queue
    W_QUEUED = 1
    W_CONN = 2          # was handed a connection
    W_DIAL = 3          # was handed the right to dial
    W_CLOSED = 4        # the pool was closed


cdef struct Waiter:
    # A request in a host's queue, on its own thread's memory. Guarded by the pool's lock.
    Waiter* prev
    Waiter* next
    int state
    int dialing         # 1: has a dial of its own under way, and takes a connection that comes first
    Slot* slot          # the connection handed over
    Wake* wake
    Holder* holder


cdef struct HostSlots:
    # A pool key's connections and counts. Guarded by the pool's lock.
    Slot* free_head     # on offer, most recently used first
    Slot* free_tail
    Slot* all_head
    Waiter* wait_head
    Waiter* wait_tail
    int n_idle
    int n_active
    int n_dialing
    int n_waiting
    int n_open
    int n_closing       # retired, and not closed yet: to the host it is a connection still (counted where max_per_host is set)
    void* pool          # the PoolCore that it is of
    int n_fresh         # shared connections that nobody knows the capacity of yet
    int shared          # 1: the last connection made was one that requests share: others are dialed when it is full
    int folded          # 1: counted into the pool's folded row, and no longer to be used
    int64_t last_used
    uint64_t dials
    uint64_t opened
    uint64_t reuses
    uint64_t waits
    uint64_t wait_ns
    uint64_t retries
    uint64_t requests
    uint64_t leaked
    uint64_t closed[11]


cdef class Host:
    """One pool key's home."""
    cdef HostSlots h
    cdef readonly str key
    cdef public object dial_spec     # what F4 needs to dial; the pool never looks


cdef class PoolCore:
    cdef pthread_mutex_t lock
    cdef HostSlots folded            # the counts of hosts that hold nothing any more
    cdef Slot* lru_head
    cdef Slot* lru_tail
    cdef Slot cursor_a
    cdef Slot cursor_b
    cdef int n_idle
    cdef int sweeping
    cdef int max_idle
    cdef int max_idle_per_host
    cdef int max_per_host
    cdef int max_shared              # connections of a host whose connections are shared; 0: no limit of theirs
    cdef int64_t idle_timeout
    cdef int64_t lifetime
    cdef int fifo
    cdef int closed
    cdef int ended                   # close(cancel=True): what is in flight ends
    cdef int keep_none               # close_idle_connections(): what comes back is closed, until the next request
    cdef public bint watched         # the janitor knows that something may be idle here
    cdef public object follower      # whom the observer tells of this pool's closed connections; None: nobody


# Acquire. `first`: count the request. ST_OK: *out is the caller's. ST_NEED_GIL: dial (counted; end it by pool_dialed or
# pool_dial_failed). ST_MORE: at the limit, call again with a waiter; with one: queued, or told at once (W_CLOSED) that
# close(cancel=True) ended everything. ST_CLOSED. ST_AGAIN: the host was folded.
cdef int pool_checkout(PoolCore p, HostSlots* h, Holder* holder, Waiter* w, bint first, int64_t now, Slot** out, Slot** dead) noexcept nogil
# A dialing request joins the queue for whatever is given back first: ST_OK: there was one on offer, *out; else ST_MORE, as above.
cdef int pool_race(PoolCore p, HostSlots* h, Waiter* w, int64_t now, Slot** out, Slot** dead) noexcept nogil
# Leave the queue. Says what was granted meanwhile: W_QUEUED (nothing), W_CONN, W_DIAL, W_CLOSED.
cdef int pool_leave(PoolCore p, HostSlots* h, Waiter* w) noexcept nogil
cdef int pool_waiter_state(PoolCore p, Waiter* w) noexcept nogil
# A dial ended well: the connection is registered and the caller's (holder given), or idle at once (holder NULL). It is
# interrupted at once where close(cancel=True) came meanwhile.
cdef void pool_dialed(PoolCore p, Host host, Poolable c, Holder* holder, int64_t now, Slot** dead)
cdef void pool_dial_failed(PoolCore p, HostSlots* h) noexcept nogil
# Give back: verdict RE_REUSE, or the reason against it. Returns RE_REUSE, or why it is closed. `idle_limit`: ns it may idle at most,
# -1 none. `used`: it carried a request; else it was found dead, or came too late to be wanted. Each taking is also a reference on
# the slot, which slot_release ends.
cdef int pool_give(PoolCore p, Slot* s, int verdict, int64_t idle_limit, bint used, int64_t now, Slot** dead) noexcept nogil
# Before giving back a connection that was found dead, by a request that needs another: True where somebody waits at max_per_host. The
# room that the dead one leaves is then this request's, as a dial of its own; first come, first served.
cdef bint pool_keep_place(PoolCore p, Slot* s) noexcept nogil
cdef void slot_release(Slot* s) noexcept nogil
# Break what `holder`, a connection's only user, waits on, from another thread; it is closed when given back. Does nothing where it was
# given back already: it may be another's by now.
cdef void pool_interrupt(PoolCore p, Slot* s, Holder* holder, Slot** dead) noexcept nogil
# How many exchanges the connection has room for, from now on.
cdef void pool_capacity(Slot* s, int n) noexcept nogil
cdef void pool_count(PoolCore p, HostSlots* h, uint64_t* counter, uint64_t n) noexcept nogil     # adds n to one of h's counters
cdef void pool_mark_unread(PoolCore p, Holder* holder) noexcept nogil
# Close descriptors of a dead chain (any thread, no lock held); then, with the GIL, drop the pool's references, and tell the observer
# where somebody follows: `by` is the request that has come upon them, `later` says that no user's code may run here. Any may raise afterwards.
cdef void bury(Slot* dead) noexcept nogil
cdef void reap(Slot* dead, object by=*, bint later=*)

# For the whole-pool operations, which share the lock.
cdef struct Wakes:
    Wake* w[16]
    int n

cdef enum:
    BATCH = 16               # waiters woken after one hold of the lock

cdef void pool_lock(PoolCore p) noexcept nogil
cdef void pool_unlock(PoolCore p) noexcept nogil
# The locking rules, in debug builds: the lock is held by this thread, or none is.
cdef void must_hold() noexcept nogil
cdef void must_not_hold() noexcept nogil
cdef void count_open(int n) noexcept nogil
cdef bint _expired_locked(PoolCore p, Slot* s, int64_t now, int* reason) noexcept nogil
cdef void _retire_locked(PoolCore p, Slot* s, int reason, Slot** dead, Wakes* out) noexcept nogil
cdef void _serve_locked(PoolCore p, HostSlots* h, Wakes* out) noexcept nogil
cdef void _notify(PoolCore p, HostSlots* h, Wakes* out) noexcept nogil
cdef void _tell(Wakes* out, Wake* wake) noexcept nogil
cdef void _trim_locked(PoolCore p, HostSlots* h, Slot** dead, Wakes* out) noexcept nogil
cdef void _condemn_locked(Slot* s, int reason) noexcept nogil
cdef void wake_all(Wakes* out) noexcept nogil
