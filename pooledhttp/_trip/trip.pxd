from libc.stdint cimport int64_t

from pooledhttp._conn.connection cimport Exchange
from pooledhttp._core.cancel cimport Canceller
from pooledhttp._core.poolable cimport Slot
from pooledhttp._core.runtime cimport WakeHandle
from pooledhttp._pool.pool cimport Host, Pool, Waiter


cdef class Reply(Exchange):
    cdef Tripper trip
    cdef Host host
    cdef Slot* slot                # held until the connection is given back
    cdef Slot* dead                # to be reaped once the GIL is held
    cdef bint first                # the request is not counted yet
    cdef bint gave                 # the connection was given back; its slot is still referenced
    cdef Waiter waiter
    cdef Canceller cancel
    cdef WakeHandle wake_handle
    cdef object source_body        # the BodySource, to begin again
    cdef str source
    cdef readonly int status
    cdef readonly bytes head
    cdef readonly object content
    cdef object rest               # h11's data that a small read left over
    cdef str _reason
    cdef readonly bint closed
    cdef object failed             # the error that ended the body


    cdef object _check(self)
    cdef Py_ssize_t _read(self, char* at, Py_ssize_t n) except -1
    cdef object _resolve(self, int st)
    cdef bytes _fallback_read(self, Py_ssize_t n)


cdef class Tripper:
    cdef readonly Pool pool
    cdef size_t max_head
    cdef bint retry_stale
    cdef bint close_each           # disable_keep_alives

    cdef int run(self, Reply x) noexcept nogil
    cdef int attempt(self, Reply x, bint probe) noexcept nogil
    cdef int resume(self, Reply x) noexcept nogil
    cdef void give(self, Reply x, int verdict, int64_t idle_limit, bint used) noexcept nogil
    cdef int judge(self, Reply x, int st) noexcept nogil
    cdef object settle(self, Reply x)
    cdef object slow(self, Reply x, int st)
    cdef int wait_turn(self, Reply x) except? -99
    cdef int took(self, Reply x, Slot* s) except? -99
    cdef int dial(self, Reply x) except? -99
    cdef int resolve(self, Reply x, int st) except 0
    cdef object abort(self, Reply x, int reason)
    cdef object failure(self, Reply x, int st)
    cdef int next_piece(self, Reply x) except 0
    cdef object take_head(self, Reply x)
    cdef int fallback_head(self, Reply x) except 0
    cdef int fallback_body(self, Reply x) except 0
    cdef bytes fallback_data(self, Reply x)
    cdef bytes raw(self, Reply x)
    cdef bytes read_rest(self, Reply x, int64_t limit)
    cdef object finish(self, Reply x)
