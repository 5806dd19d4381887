"""A whole pool: its hosts by key, its closing, its statistics, and the janitor's step."""
from libc.stdint cimport int64_t

from pooledhttp._core.poolable cimport Slot
from pooledhttp._pool.core cimport Host, HostSlots, PoolCore


cdef class Pool(PoolCore):
    cdef dict hosts                  # key -> Host; changed under hosts_lock
    cdef readonly object hosts_lock           # a Python lock, never taken on the way of a warm request
    cdef object __weakref__
    cdef int max_hosts
    cdef int fold_at                 # at so many hosts, the quiet ones fold

    cpdef Host host(self, str key)
    cdef object _fold(self)
    cdef void _retire_idle(self, Slot** dead) noexcept nogil
    cdef object _interrupt(self, Host host)


# The janitor's step: expired, and dead idle connections. Returns how many are idle after it.
cdef int pool_sweep(PoolCore p, int64_t now, Slot** dead) noexcept nogil
