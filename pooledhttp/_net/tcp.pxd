"""A plain socket as a Stream."""
from libc.stdint cimport int64_t
from pooledhttp._core.runtime cimport Wake
from pooledhttp._net.stream cimport Stream


cdef class TcpStream(Stream):
    cdef int64_t rcvtimeo        # what SO_RCVTIMEO is set to, ns; 0: not set (for ever)
    cdef int credit              # of eager.pxd


# Shared with the TLS stream, which has the same socket below it. Both block by the kernel's deadline.
cdef ssize_t sock_recv(int fd, char* p, size_t n, int64_t deadline, Wake* wake, int64_t* rcvtimeo, int* credit, int* err) noexcept nogil
cdef ssize_t sock_try_recv(int fd, char* p, size_t n, int* err) noexcept nogil
cdef ssize_t sock_try_send(int fd, const char* p, size_t n, int* err) noexcept nogil
cdef int sock_wait(int fd, int events, int64_t deadline, Wake* wake, int* err) noexcept nogil
cdef int sock_probe(int fd) noexcept nogil      # ST_OK: quiet; ST_EOF: closed or broken; ST_PROTO: bytes are waiting
