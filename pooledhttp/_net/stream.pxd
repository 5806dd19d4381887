"""The seam under HTTP: bytes over one socket, under absolute deadlines. Knows nothing of HTTP."""
from libc.stdint cimport int64_t
from pooledhttp._core.runtime cimport Wake

cdef enum:
    WAIT_READ = 1
    WAIT_WRITE = 2


cdef class Stream:
    cdef int fd                    # -1 once closed
    cdef int err                   # errno behind the last ST_IO
    cdef public object exc         # the exception behind the last ST_TLS
    cdef bint foreign              # `exc` is not TLS's: raised by a signal's handler inside ssl, or MemoryError. Raise it as it is
    cdef bint ready                # a receive has something without the socket: decrypted bytes, whole records, or an end
    cdef int64_t heard             # ns: when bytes last came that could not be handed out yet (the middle of a TLS record); 0: never
    cdef int64_t moved             # ns: when the kernel last took bytes that had been accepted before; 0: never
    # Blocking. recv_into: >= 1 bytes, ST_EOF, ST_TIMEOUT, ST_INTR, ST_WOKEN (only where wake is given), ST_IO, ST_TLS.
    cdef ssize_t recv_into(self, char* p, size_t n, int64_t deadline, Wake* wake) noexcept nogil
    # Waits a moment for a large part of n bytes, all of which are to come. As try_recv.
    cdef ssize_t recv_batch(self, char* p, size_t n) noexcept nogil
    # Never blocking. >= 1 bytes, ST_EOF, ST_AGAIN, ST_IO, ST_TLS.
    cdef ssize_t try_recv(self, char* p, size_t n) noexcept nogil
    # Never blocking. Bytes *accepted* (>= 1), ST_AGAIN, ST_IO, ST_TLS. What a layer accepted but the kernel did not
    # take yet is `unsent`; try_flush sends it: ST_OK when nothing is left, ST_AGAIN, ST_IO, ST_TLS.
    cdef ssize_t try_send(self, const char* p, size_t n) noexcept nogil
    cdef int try_flush(self) noexcept nogil
    # Never blocking, but for the file's disk. Bytes accepted (>= 1) of the n that stand at `at` in a file, or as for try_send; ST_FILE.
    cdef ssize_t try_send_file(self, int file, int64_t at, size_t n) noexcept nogil
    # Blocking: a mask of WAIT_READ | WAIT_WRITE that may now succeed, ST_TIMEOUT, ST_INTR, ST_WOKEN, ST_IO.
    # Bytes already decrypted count as readable.
    cdef int wait(self, int events, int64_t deadline, Wake* wake) noexcept nogil
    # Never blocking, for an idle stream: ST_OK if it may be used, ST_EOF if the peer closed or broke it,
    # ST_PROTO if it sent bytes nobody asked for.
    cdef int probe(self) noexcept nogil
    # Closes the descriptor, once. `graceful` says a TLS goodbye may be tried, without waiting.
    cdef void close(self, bint graceful) noexcept nogil
