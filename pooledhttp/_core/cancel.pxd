from pooledhttp._core.runtime cimport WakeHandle


cdef class Canceller:
    cdef int flag                 # atomic
    cdef readonly object reason
    cdef object lock              # a Python lock: registering is not on the way of a request without a canceller
    cdef public bint drains       # whether connections whose answers it cut short are read to the answer's end, in the background
    cdef list waiting             # WakeHandles of threads that may be blocked
    cdef int generation           # of the process that the lock and the list are of

    cdef bint is_cancelled(self) noexcept nogil
    cpdef object guard(self)
    cdef object enter(self, WakeHandle wake)
    cdef object leave(self, WakeHandle wake)
