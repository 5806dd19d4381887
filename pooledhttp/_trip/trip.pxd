from libc.stdint cimport int64_t

from pooledhttp._conn.connection cimport Connection
from pooledhttp._core.cancel cimport Canceller
from pooledhttp._core.poolable cimport Slot
from pooledhttp._net.stream cimport Stream
from pooledhttp._pool.core cimport Host
from pooledhttp._pool.pool cimport Pool
from pooledhttp._trip.reply cimport Reply


cdef class Prepared:
    cdef readonly tuple wire
    cdef str key
    cdef str host_name
    cdef int port
    cdef bytes method
    cdef bytes target
    cdef bytes authority
    cdef bytes fields
    cdef bytes made_head
    cdef int flags
    cdef int64_t max_body
    cdef str encoding
    cdef bint no_body_method
    cdef Host host                 # as it was when this was made: perhaps folded since


cdef class Tripper:
    cdef readonly Pool pool
    cdef size_t max_head
    cdef bint retry_stale
    cdef int flags                 # of every exchange: FLAG_CLOSE, FLAG_AS_IS
    cdef int64_t expect            # ns that a body waits for 100 (Continue)
    cdef bint h2_known             # in the clear too (RFC 9113 section 3.3)
    cdef int64_t h2_ping[2]        # ns: the interval (0: never) and the timeout
    cdef readonly set h1_only      # pool keys whose servers want HTTP/1.1

    cdef object go(self, Reply x, Canceller cancel)
    cdef int run(self, Reply x) noexcept nogil
    cdef int attempt(self, Reply x, bint probe) noexcept nogil
    cdef int resume(self, Reply x) noexcept nogil
    cdef int judge(self, Reply x, int st) noexcept nogil
    cdef int undone(self, Reply x, int st) noexcept nogil
    cdef Connection connection(self, Host home, Stream stream, object info)
    cdef object only_h1(self, Reply x)
    cdef bint may_send_again(self, Reply x) except -1
    cdef int replace(self, Reply x, bint retried, int reason) noexcept nogil
    cdef int start(self, Reply x) noexcept nogil
    cdef object follow(self, Reply x)
    cdef object begun_again(self, Reply x)
    cdef object say_failed(self, Reply x, int64_t began, object error)
    cdef object forgo(self, Reply x)
    cdef object guarded(self, Reply x, int st)
    cdef bint may_begin_again(self, Reply x) except -1
    cdef bint may_go_unasked(self, Reply x) except -1
    cdef object drop_dial(self, object dial, Reply x)
    cdef bint woken(self, Reply x)
    cdef object slow(self, Reply x, int st)
    cdef int wait_turn(self, Reply x) except? -99
    cdef int took(self, Reply x, Slot* s) except? -99
    cdef int dial(self, Reply x) except? -99
    cdef object refuse(self, Reply x, int state)
