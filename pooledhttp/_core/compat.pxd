"""The C shims of compat.h, for `cimport`."""
from libc.stdint cimport int64_t


cdef extern from "compat.h" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t*, void*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_trylock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_mutex_destroy(pthread_mutex_t*)

    cdef struct pollfd:
        int fd
        short events
        short revents
    enum:
        POLLIN
        POLLOUT
        POLLERR
        POLLHUP
        POLLNVAL
        POLLRDHUP
        MSG_PEEK
        MSG_DONTWAIT
        MSG_NOSIGNAL
        EAGAIN
        EINTR
        ECONNRESET
        EPIPE
        ENOTCONN
        EBADF

    ssize_t c_recv "recv"(int fd, void* buf, size_t n, int flags)
    ssize_t c_send "send"(int fd, const void* buf, size_t n, int flags)
    int c_close "close"(int fd)
    int c_shutdown "shutdown"(int fd, int how)
    int errno

    unsigned long ph_self()
    int64_t ph_now()
    int ph_poll(pollfd* fds, unsigned n, int64_t timeout_ns)
    int ph_wake_open(int* rd, int* wr)
    void ph_wake_write(int wr)
    void ph_wake_drain(int rd)
    int ph_set_rcvtimeo(int fd, int64_t ns)
    int ph_gather(int fd, int n, int64_t ns)
    ssize_t ph_sendfile(int sock, int file, int64_t at, size_t n)
    ssize_t c_pread "pread"(int fd, void* buf, size_t n, int64_t at)
    unsigned long ph_gil_releases()
    enum:
        ETIMEDOUT
    int ph_doze(int* p, int64_t timeout_ns)
    void ph_rouse(int* p)
    bint ph_cas_int(int* p, int old, int new)
    int ph_swap_int(int* p, int v)
    int ph_or_int(int* p, int v)
    int ph_and_int(int* p, int v)
    void* ph_swap_ptr(void** p, void* v)
    bint ph_cas_ptr(void** p, void* old, void* new)
    void* ph_load_ptr(void** p)
    int ph_add_int(int* p, int v)
    int64_t ph_add_long "ph_add_int"(int64_t* p, int64_t v)
    int ph_load_int(int* p)
    void ph_store_int(int* p, int v)
    void ph_note_lock(int n)
    void ph_assert_locked()
    void ph_assert_unlocked()
