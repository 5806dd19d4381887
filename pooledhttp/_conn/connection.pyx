"""The exchange's state, and the abstract connection."""
from libc.stdlib cimport free
from libc.string cimport memset

from pooledhttp._core.compat cimport c_close
from pooledhttp._core.runtime cimport buffer_give
from pooledhttp._core.status cimport PH_SEND, RE_ERROR, ST_IO

from os import dup


cdef class FilePiece:
    """`size` bytes of an open regular file from `at` on, sent without passing through Python.

    An upload's iterator may yield it where the body's length is known.

    `descriptor` is duplicated, so that nobody's closing it meanwhile has another file sent. OSError where that fails.
    """

    def __cinit__(self, int descriptor, int64_t at, int64_t size):
        self.fd = -1
        self.fd = dup(descriptor)
        self.at = at
        self.size = size

    def __dealloc__(self):
        if self.fd >= 0:
            c_close(self.fd)


cdef class Exchange:
    """One request and its response. Its buffer is held only while bytes are under way."""

    def __cinit__(self):
        memset(&self.holder, 0, sizeof(Holder))
        self.deadline = -1
        self.max_body = -1
        self.phase = PH_SEND

    def __dealloc__(self):
        self.drop_buffer()
        if self.h2 != NULL:
            self.drop_h2()
        if self.tail != NULL:
            free(self.tail)

    cdef void reset(self) noexcept nogil:
        self.n_spans = self.at_span = 0
        self.file_left = 0
        self.sending = self.any_sent = self.send_broke = self.any_received = self.expecting = False
        self.has_pieces = self.in_pieces
        self.lo = self.hi = self.body_off = self.body_len = 0
        self.facts.scanned = 0
        if self.decoded_body:
            self.decoded_body = False
            self.max_body = -2 - self.max_body
        self.interim = 0
        self.framed = True
        if self.h2 != NULL:
            self.drop_h2()
        if self.tail != NULL:
            free(self.tail)
            self.tail = NULL
        self.h2_seen = 0
        self.framing = FR_NONE
        self.stage = XS_HEAD
        self.phase = PH_SEND
        self.limit = 0
        self.err = 0
        self.silent_since = 0
        self.t_sent = self.t_first = self.t_head = self.t_done = 0

    cdef void drop_h2(self) noexcept nogil:
        cdef void* stream = self.h2
        if stream != NULL:
            self.h2 = NULL
            self.h2_free(stream)

    cdef void drop_buffer(self) noexcept nogil:
        cdef char* buf = self.buf
        self.buf = NULL
        if buf == NULL:
            return
        if self.own_buf:
            free(buf)
        else:
            buffer_give(buf)
        self.own_buf = False


cdef class Connection(Poolable):
    """A connection that carries exchanges."""

    cdef int begin(self, Exchange ex) noexcept nogil:
        return ST_IO

    cdef int exchange(self, Exchange ex) noexcept nogil:
        return ST_IO

    cdef ssize_t fill(self, Exchange ex, char* dst, size_t room) noexcept nogil:
        return ST_IO

    cdef ssize_t read_body(self, Exchange ex, char* dst, size_t n) noexcept nogil:
        return ST_IO

    cdef void go_on(self, Exchange ex) noexcept nogil:
        pass

    cdef int finish_sending(self, Exchange ex) noexcept nogil:
        return ST_IO

    cdef int part(self, Exchange ex, int reason) noexcept nogil:
        return reason

    cdef bint disturb(self, Exchange ex):
        return False

    cdef bint shared(self) noexcept nogil:
        return False

    cdef int verdict(self, Exchange ex, int64_t* idle_limit) noexcept nogil:
        return RE_ERROR
