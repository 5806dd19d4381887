from libc.stdint cimport int64_t

from pooledhttp._conn.connection cimport Exchange
from pooledhttp._core.cancel cimport Canceller
from pooledhttp._core.poolable cimport Slot
from pooledhttp._core.runtime cimport WakeHandle
from pooledhttp._pool.core cimport Host, Waiter
from pooledhttp._pool.pool cimport Pool


cdef class Reply(Exchange):
    cdef Pool pool
    cdef Host host
    cdef str host_name
    cdef int port
    cdef int64_t pool_until        # when Timeout.pool ends; 0: it did not wait yet
    cdef Slot* slot                # held until the connection is given back
    cdef Slot* dead                # to be reaped once the GIL is held
    cdef int busy                  # atomic: threads inside read or close
    cdef Waiter waiter
    cdef Canceller cancel
    cdef WakeHandle wake_handle
    cdef object source_body        # the BodySource, to begin again
    cdef int64_t to_come           # bytes of it that nobody has taken yet; -1: nobody knows
    cdef str source
    cdef readonly int status
    cdef readonly bytes head
    cdef readonly object content
    cdef object rest               # body bytes that wait to be read: h11's, or what a small read left over
    cdef str _reason
    cdef readonly bint closed
    cdef object failed             # the error that ended the body
    cdef int drain_reason          # what the connection is closed for where the drain does not come to the end
    cdef size_t drained            # bytes of the body thrown away
    # --- for those who follow it
    cdef object tale               # whom to tell of this exchange; None: nobody
    cdef int given                 # RE_REUSE: and was pooled; else why not
    # --- a byte each, as in Exchange
    cdef unsigned char first            # the request is not counted yet
    cdef unsigned char may_retry        # Transport(retry_stale=True)
    cdef unsigned char gave             # the connection was given back; its slot is still referenced
    cdef unsigned char draining         # nobody reads it any more, and the connection is to serve again
    cdef unsigned char again            # this exchange begins again, on another connection
    cdef unsigned char offered          # the connection could serve again
    cdef unsigned char collected        # nobody has it any more: no user's code may run here
    cdef unsigned char undone           # times that a server did not begin with it

    cdef object _check(self)
    cdef Py_ssize_t _read(self, char* at, Py_ssize_t n) except -1
    cdef Py_ssize_t _read_on(self, char* at, Py_ssize_t n) except -1
    cdef object _enter(self)
    cdef object _leave(self)
    cdef object _close(self)
    cdef bint may_drain(self) noexcept nogil
    cdef object hand_over(self, int reason)
    cdef int skim(self) noexcept nogil
    cdef object _drain(self, int64_t until)
    cdef bytes _fallback_read(self, Py_ssize_t n)
    cdef void give(self, int verdict, int64_t idle_limit, bint used) noexcept nogil
    cdef object settle(self)
    cdef object tell_conn(self)
    cdef object tell_wire(self)
    cdef object tell_lost(self)
    cdef object tell_end(self)
    cdef object take_head(self)
    cdef object finish(self)
    cdef object abort(self, int reason)
    cdef int resolve(self, int st) except 0
    cdef bint by_context(self, int st, object e) except -1
    cdef object obey(self)
    cdef object failure(self, int st)
    cdef int next_piece(self) except 0
    cdef object took_piece(self, int64_t n)
    cdef bytes raw(self)
    cdef int fallback_head(self) except 0
    cdef int fallback_body(self) except 0
    cdef bytes fallback_data(self)
    cdef bytes fallback_rest(self, int64_t limit)
    cdef bytes read_rest(self, int64_t limit)


cdef WakeHandle wake_of_thread()


cdef class Obeying:
    cdef Reply reply
    cdef WakeHandle handle
