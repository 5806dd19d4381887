"""A plain socket as a Stream, with the kernel's own deadline on the read that waits.

A blocking `recv` with SO_RCVTIMEO costs one system call where `poll` and `recv` cost two. Kernel timers are coarse and late by
up to an eighth of their length, so the option is set to about 85 % of what remains, and only where what is set does not already
fit; `poll` waits for the rest. The descriptor is in blocking mode; whatever must not block says MSG_DONTWAIT.

The main thread waits in slices: the end of one is ST_INTR, as a signal that broke the wait is.
"""
from pooledhttp._core.clock cimport remaining
from pooledhttp._core.compat cimport (
    EAGAIN, EINTR, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, c_close, c_recv,
    c_send, errno, ph_gil_releases, ph_gather, ph_poll, ph_sendfile, ph_set_rcvtimeo, pollfd,
)
from pooledhttp._core.runtime cimport SLICE, on_main
from pooledhttp._core.status cimport ST_AGAIN, ST_EOF, ST_INTR, ST_IO, ST_OK, ST_PROTO, ST_TIMEOUT, ST_WOKEN
from pooledhttp._net.eager cimport EAGER_ASK, eager_begin, eager_end, eager_recv
from pooledhttp._net.stream cimport WAIT_READ, WAIT_WRITE

cdef enum:
    BATCH = 262144           # bytes of a large body that are worth a wake-up
    MOMENT = 2000000         # ns that they are waited for


cdef int sock_wait(int fd, int events, int64_t deadline, Wake* wake, int* err) noexcept nogil:
    cdef pollfd p[2]
    cdef int n = 1, r, got = 0
    cdef int64_t left = remaining(deadline)
    cdef bint sliced = False
    if left == 0:
        return ST_TIMEOUT
    if (left < 0 or left > SLICE) and on_main():
        left = SLICE
        sliced = True
    p[0].fd = fd
    p[0].events = (POLLIN if events & WAIT_READ else 0) | (POLLOUT if events & WAIT_WRITE else 0)
    p[0].revents = 0
    if wake != NULL:
        p[1].fd = wake.rd
        p[1].events = POLLIN
        p[1].revents = 0
        n = 2
    r = ph_poll(p, n, left)
    if r < 0:
        if errno == EINTR:
            return ST_INTR
        err[0] = errno
        return ST_IO
    if r == 0:
        return ST_INTR if sliced else ST_TIMEOUT
    if n == 2 and p[1].revents:
        return ST_WOKEN
    if p[0].revents & POLLNVAL:
        err[0] = 9
        return ST_IO
    if p[0].revents & (POLLERR | POLLHUP):
        return events                    # the call that follows says what it is
    if p[0].revents & POLLIN:
        got |= WAIT_READ
    if p[0].revents & POLLOUT:
        got |= WAIT_WRITE
    return got


cdef ssize_t sock_try_recv(int fd, char* p, size_t n, int* err) noexcept nogil:
    cdef ssize_t r
    while True:
        r = c_recv(fd, p, n, MSG_DONTWAIT)
        if r > 0:
            return r
        if r == 0:
            return ST_EOF
        if errno == EAGAIN:
            return ST_AGAIN
        if errno != EINTR:
            err[0] = errno
            return ST_IO


cdef ssize_t sock_try_send(int fd, const char* p, size_t n, int* err) noexcept nogil:
    cdef ssize_t r
    while True:
        r = c_send(fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL)
        if r >= 0:
            return r
        if errno == EAGAIN:
            return ST_AGAIN
        if errno != EINTR:
            err[0] = errno
            return ST_IO


cdef ssize_t sock_recv(int fd, char* p, size_t n, int64_t deadline, Wake* wake, int64_t* rcvtimeo, int* credit, int* err) noexcept nogil:
    cdef ssize_t r
    cdef int64_t began = 0, left, fit
    cdef int w, failed
    cdef bint sliced = False
    if wake == NULL:
        left = remaining(deadline)
        fit = left - left * 3 // 20
        if left == 0:
            # What has already arrived is still the caller's.
            r = sock_try_recv(fd, p, n, err)
            return ST_TIMEOUT if r == ST_AGAIN else r
        if (left < 0 or fit > SLICE) and on_main():
            sliced = True
            if rcvtimeo[0] > SLICE or rcvtimeo[0] < SLICE // 2:
                if ph_set_rcvtimeo(fd, SLICE) < 0:
                    err[0] = errno
                    return ST_IO
                rcvtimeo[0] = SLICE
        elif left < 0:
            if rcvtimeo[0] != 0:
                ph_set_rcvtimeo(fd, 3600000000000000)      # six weeks: a wake-up that early costs nothing
                rcvtimeo[0] = 0
        elif rcvtimeo[0] == 0 or rcvtimeo[0] > left - left // 8 or rcvtimeo[0] < left // 2:
            if ph_set_rcvtimeo(fd, fit) < 0:
                err[0] = errno
                return ST_IO
            rcvtimeo[0] = fit
        w = eager_begin(credit, &began)
        if w == EAGER_ASK:
            r = eager_recv(fd, p, n, credit, err)
            if r != ST_AGAIN:
                eager_end(w, began)
                return r
        r = c_recv(fd, p, n, 0)
        failed = errno
        eager_end(w, began)
        if r > 0:
            return r
        if r == 0:
            return ST_EOF
        if failed == EINTR:
            return ST_INTR
        if failed != EAGAIN:
            err[0] = failed
            return ST_IO
        if sliced:
            return ST_INTR
    while True:
        w = sock_wait(fd, WAIT_READ, deadline, wake, err)
        if w < 0:
            return w
        r = sock_try_recv(fd, p, n, err)
        if r != ST_AGAIN:
            return r


cdef int sock_probe(int fd) noexcept nogil:
    cdef char c
    cdef ssize_t r
    while True:
        r = c_recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT)
        if r > 0:
            return ST_PROTO
        if r == 0:
            return ST_EOF
        if errno == EAGAIN:
            return ST_OK
        if errno != EINTR:
            return ST_EOF


cdef class TcpStream(Stream):
    """A connected socket (an object, which is detached, or a descriptor), owned from here on, in blocking mode."""

    def __cinit__(self, object sock):
        # A socket object changes hands in one step that no signal can part.
        self.fd = sock if isinstance(sock, int) else sock.detach()

    def __dealloc__(self):
        if self.fd >= 0:
            c_close(self.fd)

    cdef ssize_t recv_into(self, char* p, size_t n, int64_t deadline, Wake* wake) noexcept nogil:
        return sock_recv(self.fd, p, n, deadline, wake, &self.rcvtimeo, &self.credit, &self.err)

    cdef ssize_t recv_batch(self, char* p, size_t n) noexcept nogil:
        # What the wait ended by does not matter: the wait for the first byte that may follow looks again.
        ph_gather(self.fd, <int>(n if n < BATCH else BATCH), MOMENT)
        return sock_try_recv(self.fd, p, n, &self.err)

    cdef ssize_t try_recv(self, char* p, size_t n) noexcept nogil:
        return sock_try_recv(self.fd, p, n, &self.err)

    cdef ssize_t try_send(self, const char* p, size_t n) noexcept nogil:
        return sock_try_send(self.fd, p, n, &self.err)

    cdef ssize_t try_send_file(self, int file, int64_t at, size_t n) noexcept nogil:
        cdef ssize_t r = ph_sendfile(self.fd, file, at, n)
        if r > 0:
            return r
        if r < 0 and errno == EAGAIN:
            return ST_AGAIN
        # Not a file for that, or it has failed: the plain way tells.
        return Stream.try_send_file(self, file, at, n)

    cdef int wait(self, int events, int64_t deadline, Wake* wake) noexcept nogil:
        return sock_wait(self.fd, events, deadline, wake, &self.err)

    cdef int probe(self) noexcept nogil:
        return sock_probe(self.fd)

    cdef void close(self, bint graceful) noexcept nogil:
        cdef int fd = self.fd
        self.fd = -1
        if fd >= 0:
            c_close(fd)


def gil_releases() -> int:
    return ph_gil_releases()
