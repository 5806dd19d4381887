"""All that the pool and the janitor know of a connection."""
from libc.stdint cimport int64_t, uint64_t

cdef enum SlotState:
    SL_NEW = 0          # made, not registered
    SL_ACTIVE = 1       # checked out (in_use >= 1)
    SL_IDLE = 2         # on the idle lists
    SL_CLAIMED = 3      # idle and readable: the janitor looks at it, outside the lock
    SL_DEAD = 4         # counted as closed; whoever holds the GIL next drops the pool's reference
    SL_CURSOR = 5       # not a connection: marks a sweep's place in the pool's idle list


cdef struct Slot:
    # The pool's book-keeping of one connection, embedded in it. Guarded by the pool's lock.
    void* owner                 # the Poolable; the pool holds one reference to it from register to reap
    void* host                  # HostSlots*
    Slot* free_prev             # the host's connections on offer (in_use < capacity), most recent first
    Slot* free_next
    Slot* lru_prev              # the pool's idle connections (in_use == 0) over all hosts, most recent first
    Slot* lru_next
    Slot* all_prev              # the host's open connections
    Slot* all_next
    Slot* dead_next             # a chain that its holder closes and reaps
    int state
    int on_offer                # 1: on the host's list of connections on offer
    int in_use
    int capacity
    int shares                  # 1: exchanges share it, whatever the capacity is now
    int fresh                   # 1: shared, and its peer did not say yet among how many
    int refs                    # the pool's one, and one of each user: the last to go drops the reference to the owner
    int pins                    # who still needs the descriptor (interrupt); the last one out closes
    int interrupted             # close(cancel=True) broke it
    int fd                      # what the janitor polls while it is idle
    int reason                  # why it was closed (Reason), once dead
    int64_t born
    int64_t idle_since
    int64_t idle_limit          # ns this one may idle at most (Keep-Alive: timeout), -1: the pool's own rule
    int64_t die_at              # end of life (max_conn_lifetime with jitter), -1: none
    uint64_t id
    uint64_t uses               # requests served
    void* holder                # Holder* of the request that has it


cdef struct Holder:
    # Who holds a connection, for PoolTimeout's message. Lives in the request; unlinked under the lock.
    const char* label           # what it does, e.g. the method
    size_t label_len
    const char* detail          # to what, e.g. the request target; cut at its query
    size_t detail_len
    int64_t since
    int unread                  # 1: its body was left unread (streaming)


cdef class Poolable:
    cdef Slot slot
    cdef object home            # keeps what slot.host points into alive
    cdef int fileno(self) noexcept nogil
    # Idle and handed out: ST_OK if it may be used; anything else and it is closed. Never blocks.
    cdef int probe(self) noexcept nogil
    # Idle and readable: ST_OK if it is still good (a TLS ticket was read), anything else and it is closed. Never blocks.
    cdef int on_readable(self) noexcept nogil
    # Draining: ST_OK when it may be pooled, ST_AGAIN to be called again when readable, anything else to close. Never blocks.
    cdef int drain_step(self) noexcept nogil
    # From another thread, while the connection is pinned: break what waits on it. Never blocks.
    cdef void interrupt(self) noexcept nogil
    cdef void close(self, int reason) noexcept nogil
