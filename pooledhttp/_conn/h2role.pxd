from libc.stdint cimport int64_t

from pooledhttp._conn.connection cimport Connection, Exchange
from pooledhttp._proto.h2 cimport H2, H2Stream

cdef enum:
    LEAD = 1                     # of `park`: the role is this thread's


cdef class H2Role(Connection):
    cdef H2 h
    cdef bint secure
    cdef int role                # atomic. 1: somebody leads, who alone touches what is above and below, down to the line
    cdef char* inbuf             # held while somebody leads
    cdef char* out               # frames that are not sent yet lie in here; NULL: there are none
    cdef size_t out_at
    cdef size_t out_n
    cdef bint stuck              # the kernel took no more
    cdef int room                # as the pool was told
    cdef int64_t last_read
    cdef int64_t ping_sent
    # --- the line
    cdef int dead                # a Status, once the connection is over
    cdef int dead_err
    cdef bint forked             # this process is another's child, and whoever had a lock of a stream is not here
    cdef int broken              # interrupted
    cdef int sleeping            # atomic. 1: who leads is about to wait, and wants to be written to
    cdef int parks               # atomic: how often somebody went to sleep
    cdef void* box               # atomic: streams that want something of who leads
    cdef int rd                  # where who leads is written to
    cdef int wr
    cdef int guests              # atomic: how many who are no users may be about to write to it
    cdef int64_t ping_interval   # ns, 0: never
    cdef int64_t ping_timeout

    cdef bint ours(self) noexcept nogil
    cdef void hang_up(self) noexcept nogil
    cdef void unplug(self) noexcept nogil
    cdef void push(self, H2Stream* s, int op) noexcept nogil
    cdef void kick(self) noexcept nogil
    cdef void drain(self) noexcept nogil
    cdef void die(self, int status, int err) noexcept nogil
    cdef int send_out(self) noexcept nogil
    cdef int receive(self) noexcept nogil
    cdef bint check_ping(self, int64_t now) noexcept nogil
    cdef int64_t next_ping(self) noexcept nogil
    cdef int lead(self, Exchange ex, H2Stream* s, int64_t until) noexcept nogil
    cdef void hand_on(self) noexcept nogil
    cdef void turn(self) noexcept nogil
    cdef int look_in(self) noexcept nogil
    cdef int park(self, Exchange ex, H2Stream* s, int64_t until) noexcept nogil
    cdef int health(self, int reason) noexcept nogil
