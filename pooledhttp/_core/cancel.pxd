from pooledhttp._core.runtime cimport WakeHandle


cdef class Canceller:
    cdef int flag                 # atomic
    cdef readonly object reason
    cdef object lock              # a Python lock: registering is not on the way of a request without a canceller
    cdef list waiting             # WakeHandles of threads that may be blocked

    cdef bint is_cancelled(self) noexcept nogil
    cdef object enter(self, WakeHandle wake)
    cdef object leave(self, WakeHandle wake)
