"""TLS over a socket, or over another TLS stream, as a Stream, by the standard `ssl` module."""
from libc.stdint cimport int64_t
from pooledhttp._core.runtime cimport Wake
from pooledhttp._net.openssl cimport Direct
from pooledhttp._net.records cimport Records
from pooledhttp._net.stream cimport Stream


cdef class TlsStream(Stream):
    cdef TlsStream under         # the TLS below this one, which owns the descriptor; None over a socket
    cdef bint clean_eof          # the peer said close_notify: nothing was cut off
    cdef bint truncated          # the TCP connection ended or broke without one
    cdef bint established        # the handshake is done
    cdef bint write_reads        # a write waits for the peer's part of a renegotiation (TLS 1.2)
    cdef int ended               # ST_EOF, ST_TLS or ST_IO for every receive from now on; 0: none
    cdef int send_err            # errno of the send that failed; nothing may be sent behind a gap
    cdef int64_t rcvtimeo        # of tcp.pxd's sock_recv
    cdef int credit              # of eager.pxd
    cdef Records records         # of what was fed to `incoming`
    cdef char first[16]          # the peer's first bytes, for the message where it does not speak TLS
    cdef int n_first
    cdef object obj              # ssl.SSLObject
    cdef object below            # the object below it, whose methods are C and run no signal's handler
    cdef object context
    cdef list sessions           # where the session goes once the first bytes were decrypted; None after that
    cdef object incoming         # ssl.MemoryBIO
    cdef object outgoing
    cdef object ssl_read         # bound methods of `below`, which saves a Python frame a call
    cdef object ssl_write
    cdef bytes out               # ciphertext that the kernel did not take yet lies in here ...
    cdef const char* out_p       # ... from here
    cdef size_t out_n
    cdef Direct direct           # set where records need no GIL; `out` is then unused, what is unsent lies in its BIO

    cdef ssize_t net_recv(self, char* p, size_t n, int64_t deadline, Wake* wake) noexcept nogil
    cdef ssize_t net_try_recv(self, char* p, size_t n) noexcept nogil
    cdef ssize_t net_try_send(self, const char* p, size_t n) noexcept nogil
    cdef int net_wait(self, int events, int64_t deadline, Wake* wake) noexcept nogil
    cdef ssize_t learn(self, ssize_t status) noexcept nogil
    cdef object failure(self, ssize_t status)
    cdef int net_failed(self, ssize_t status) noexcept
    cdef int flush(self) noexcept nogil
    cdef int flush_own(self) noexcept nogil
    cdef int flush_direct(self) noexcept nogil
    cdef ssize_t receive(self, char* p, size_t n, bint block, int64_t deadline, Wake* wake) noexcept nogil
    cdef ssize_t receive_with(self, char* buf, char* p, size_t n, bint block, int64_t deadline, Wake* wake) noexcept nogil
    cdef int cut_off(self, int status) noexcept
    cdef int fail(self, object exc) noexcept
    cdef ssize_t feed(self, char* buf, size_t fill, char* p, size_t n) noexcept nogil
    cdef ssize_t feed_direct(self, char* buf, size_t fill, char* p, size_t n) noexcept nogil
    cdef ssize_t feed_by_ssl(self, char* buf, size_t fill, char* p, size_t n) noexcept
    cdef ssize_t pull(self, char* p, size_t n) noexcept nogil
    cdef ssize_t pull_direct(self, char* p, size_t n) noexcept nogil
    cdef ssize_t pull_by_ssl(self, char* p, size_t n) noexcept
    cdef ssize_t encrypt(self, const char* p, size_t n) noexcept nogil
    cdef ssize_t encrypt_direct(self, const char* p, size_t n) noexcept nogil
    cdef ssize_t encrypt_by_ssl(self, const char* p, size_t n) noexcept
    cdef int fail_direct(self) noexcept
    cdef int keep_session(self) except -1
    cdef int gather(self) except -1
    cdef void say_goodbye(self) noexcept
