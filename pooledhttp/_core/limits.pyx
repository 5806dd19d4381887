"""A request's limits in nanoseconds. `Timeout` makes one of these once, not once a request."""


cdef int64_t _ns(object seconds) except? -2:
    if seconds is None:
        return -1
    return <int64_t>(<double>float(seconds) * 1e9)


cdef class Limits:
    """Limits in seconds (float or None for no limit), kept as nanoseconds.

    `total` bounds the whole request; `read` and `write` the longest silence; `header` the time from the request's
    last byte to the end of the response's head; `connect` DNS and TCP together.
    """

    def __init__(self, total=None, pool=None, connect=None, tls=None, header=None, read=None, write=None):
        self.total = _ns(total)
        self.pool = _ns(pool)
        self.connect = _ns(connect)
        self.tls = _ns(tls)
        self.header = _ns(header)
        self.read = _ns(read)
        self.write = _ns(write)
