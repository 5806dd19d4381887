/* What differs between Linux and macOS, and the counter of GIL releases, in one place.
 *
 * Every compiled module includes this after Python.h and before its own code. */
#ifndef PH_COMPAT_H
#define PH_COMPAT_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include <sys/ioctl.h>

#ifdef __linux__
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#endif

/* Each explicit release of the GIL by this module is counted, so that a test can show by count
 * that a small exchange makes one. Counted before the release, under the GIL; atomic for builds without one. */
static unsigned long ph_gil_count = 0;
static inline PyThreadState *ph_save_thread(void) {
    __atomic_add_fetch(&ph_gil_count, 1, __ATOMIC_RELAXED);
    return PyEval_SaveThread();
}
#define PyEval_SaveThread ph_save_thread
/* `with gil` in a thread of Python's that has no state any more: the interpreter is gone, and the process will be. To make a state
 * anew would crash; Python's own daemon threads end, or from 3.14 on hang, where they come back for the GIL. */
static inline PyGILState_STATE ph_gil_ensure(void) {
    if (PyGILState_GetThisThreadState() == NULL) for (;;) pause();
    return PyGILState_Ensure();
}
#define PyGILState_Ensure ph_gil_ensure
static inline unsigned long ph_gil_releases(void) { return __atomic_load_n(&ph_gil_count, __ATOMIC_RELAXED); }

/* MSG_NOSIGNAL is Linux's; macOS sets SO_NOSIGPIPE on the socket when it is made. */
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif
#ifndef POLLRDHUP
#define POLLRDHUP 0
#endif

/* The calling thread, as Python's `threading.get_ident()` numbers it. */
static inline unsigned long ph_self(void) { return (unsigned long)pthread_self(); }

static inline int64_t ph_now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

/* poll() with nanoseconds; a negative timeout waits for ever. macOS has no ppoll: round up to a millisecond, never early. */
static inline int ph_poll(struct pollfd *fds, unsigned n, int64_t timeout_ns) {
#ifdef __linux__
    if (timeout_ns < 0) return ppoll(fds, n, NULL, NULL);
    struct timespec ts = {(time_t)(timeout_ns / 1000000000LL), (long)(timeout_ns % 1000000000LL)};
    return ppoll(fds, n, &ts, NULL);
#else
    int64_t ms = timeout_ns < 0 ? -1 : (timeout_ns + 999999) / 1000000;
    return poll(fds, n, ms > 0x7fffffff ? 0x7fffffff : (int)ms);
#endif
}

/* A thread's wake-up descriptor: an eventfd, or the two ends of a pipe. */
static inline int ph_wake_open(int *rd, int *wr) {
#ifdef __linux__
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) return -1;
    *rd = *wr = fd;
    return 0;
#else
    int p[2];
    if (pipe(p) < 0) return -1;
    for (int i = 0; i < 2; i++) {
        fcntl(p[i], F_SETFD, FD_CLOEXEC);
        fcntl(p[i], F_SETFL, O_NONBLOCK);
    }
    *rd = p[0];
    *wr = p[1];
    return 0;
#endif
}
static inline void ph_wake_write(int wr) {
    uint64_t one = 1;
    ssize_t r;
    /* EAGAIN means that it is already readable, which is what was wanted. */
    do { r = write(wr, &one, sizeof one); } while (r < 0 && errno == EINTR);
}
static inline void ph_wake_drain(int rd) {
    char b[64];
    ssize_t r;
    do { r = read(rd, b, sizeof b); } while (r > 0 && r == (ssize_t)sizeof b);
}

static inline int ph_set_rcvtimeo(int fd, int64_t ns) {
    struct timeval tv = {(time_t)(ns / 1000000000LL), (suseconds_t)((ns % 1000000000LL) / 1000)};
    if (tv.tv_sec == 0 && tv.tv_usec == 0) tv.tv_usec = 1; /* 0 would mean for ever */
    return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
}

/* Waits until `n` bytes have arrived, or for `ns`. Linux wakes a reader as soon as there are any bytes, unless it is told otherwise. */
static inline int ph_gather(int fd, int n, int64_t ns) {
    struct pollfd p = {fd, POLLIN, 0};
    int one = 1, r, failed;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &n, sizeof n) < 0) return -1;
    r = ph_poll(&p, 1, ns);
    failed = errno;
    setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &one, sizeof one);
    errno = failed;
    return r;
}

/* Bytes of a file straight to a socket in blocking mode, as many as it takes now. EINVAL: not this file, or not on this system. sendfile knows
 * no MSG_DONTWAIT, so the descriptor is told for the call not to block. */
static inline ssize_t ph_sendfile(int sock, int file, int64_t at, size_t n) {
#ifdef __linux__
    off_t from = (off_t)at;
    int on = 1, off = 0, failed;
    ssize_t r;
    if (ioctl(sock, FIONBIO, &on) < 0) return -1;
    do { r = sendfile(sock, file, &from, n); } while (r < 0 && errno == EINTR);
    failed = errno;
    ioctl(sock, FIONBIO, &off);
    errno = failed;
    return r;
#else
    (void)sock, (void)file, (void)at, (void)n;
    errno = EINVAL;
    return -1;
#endif
}

/* Debug builds (PH_DEBUG) hold the locking rules: helpers that need a lock assert it, and nothing is closed under one. */
#ifdef PH_DEBUG
static __thread int ph_locks_held __attribute__((unused)) = 0;
#define PH_ASSERT(x) do { if (!(x)) abort(); } while (0)
#define ph_note_lock(n) ((void)(ph_locks_held += (n)))
#define ph_assert_locked() PH_ASSERT(ph_locks_held == 1)
#define ph_assert_unlocked() PH_ASSERT(ph_locks_held == 0)
#else
#define ph_note_lock(n) ((void)0)
#define ph_assert_locked() ((void)0)
#define ph_assert_unlocked() ((void)0)
#endif

/* Sleeps while *p is 0, at most so long (ns; negative: for ever). 0: it may be something else now; else -1 and errno: EINTR, ETIMEDOUT.
 * Where there is no futex it looks every millisecond. */
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
static inline int ph_doze(int *p, int64_t timeout_ns) {
    struct timespec ts = {(time_t)(timeout_ns / 1000000000LL), (long)(timeout_ns % 1000000000LL)};
    if (syscall(SYS_futex, p, FUTEX_WAIT_PRIVATE, 0, timeout_ns < 0 ? NULL : &ts, NULL, 0) < 0 && errno != EAGAIN) return -1;
    return 0;
}
static inline void ph_rouse(int *p) { syscall(SYS_futex, p, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0); }
#else
static inline int ph_doze(int *p, int64_t timeout_ns) {
    int64_t until = timeout_ns < 0 ? -1 : ph_now() + timeout_ns;
    while (__atomic_load_n(p, __ATOMIC_ACQUIRE) == 0) {
        if (until >= 0 && ph_now() >= until) { errno = ETIMEDOUT; return -1; }
        if (ph_poll(NULL, 0, 1000000) < 0) return -1;
    }
    return 0;
}
static inline void ph_rouse(int *p) { (void)p; }
#endif

static inline int ph_cas_int(int *p, int from, int to) { return __atomic_compare_exchange_n(p, &from, to, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); }
static inline int ph_swap_int(int *p, int v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }
static inline int ph_or_int(int *p, int v) { return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST); }
static inline int ph_and_int(int *p, int v) { return __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST); }
static inline void *ph_swap_ptr(void **p, void *v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }
static inline int ph_cas_ptr(void **p, void *from, void *to) { return __atomic_compare_exchange_n(p, &from, to, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); }
#define ph_load_ptr(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)

#define ph_add_int(p, v) __atomic_add_fetch((p), (v), __ATOMIC_ACQ_REL)
#define ph_load_int(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define ph_store_int(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

#endif
