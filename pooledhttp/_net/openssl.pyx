"""OpenSSL's record layer under an `ssl.SSLObject`, called without the GIL.

Contexts, handshakes, certificates, sessions and errors are the `ssl` module's. But each of its reads and writes lets go of the GIL and
fights for it again, and among sixteen threads that costs more than the cipher. So once the handshake is done, records are
read and written by the `SSL*` inside the object, with the functions of the very library that the `ssl` module is linked to.

The object's layout is CPython's own affair, so nothing is taken on trust: its head is compared with what the object says by its public
attributes, and OpenSSL is asked whether that `SSL*` is the object's and stands over memory BIOs. Wherever a step is not as expected - another Python, a
subclass or a stand-in for `SSLObject`, OpenSSL linked into the interpreter - `direct_open` says so, and the stream goes by way of the `ssl` module.

At its exit a process takes OpenSSL down while daemon threads may still run without the GIL. So whoever calls OpenSSL says `direct_enter` first. From
the interpreter's exit on it answers no, and the GIL is taken for the calls: no thread gets that any more once OpenSSL is gone.

A fork must not come while another thread has one of OpenSSL's own locks (its random numbers' above all, which a thread's first handshake sets up): in the
child nobody would open it. So a fork waits until nobody is inside, neither there nor in a handshake or the making of a context (`shake_enter`); who comes
meanwhile waits for the fork.
"""
from cpython.object cimport PyObject

from libc.stdint cimport int64_t

from pooledhttp._core.compat cimport ph_gil_releases, ph_now, ph_poll
from pooledhttp._core.status cimport ST_AGAIN, ST_EOF, ST_TLS

cdef extern from *:
    """
    #include <dlfcn.h>

    /* The head of CPython's PySSLSocket (Modules/_ssl.c), the same from 3.10 to 3.14. */
    typedef struct {
        PyObject_HEAD
        PyObject *Socket;
        void *ssl;
        PyObject *ctx;
    } ph_ssl_head;
    #define PH_SSL_KNOWN (PY_VERSION_HEX >= 0x030A0000 && PY_VERSION_HEX < 0x030F0000)

    static int (*ph_SSL_read_ex)(void *, void *, size_t, size_t *);
    static int (*ph_SSL_write_ex)(void *, const void *, size_t, size_t *);
    static int (*ph_SSL_get_error)(const void *, int);
    static int (*ph_SSL_pending)(const void *);
    static void *(*ph_SSL_get_ex_data)(const void *, int);
    static void *(*ph_SSL_get_rbio)(const void *);
    static void *(*ph_SSL_get_wbio)(const void *);
    static int (*ph_BIO_method_type)(const void *);
    static int (*ph_BIO_read)(void *, void *, int);
    static int (*ph_BIO_write)(void *, const void *, int);
    static size_t (*ph_BIO_ctrl_pending)(void *);
    static long (*ph_BIO_ctrl)(void *, int, long, void *);
    static void (*ph_ERR_clear_error)(void);
    static unsigned long (*ph_ERR_peek_last_error)(void);
    static const char *(*ph_ERR_reason_error_string)(unsigned long);

    /* The functions as the library at `path` sees them: its own symbols and those of the libraries it is linked to. */
    static int ph_ssl_load(const char *path) {
        void *lib = dlopen(path, RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
        if (lib == NULL) return 0;
    #define PH_GET(name) if ((*(void **)&ph_##name = dlsym(lib, #name)) == NULL) return 0;
        PH_GET(SSL_read_ex) PH_GET(SSL_write_ex) PH_GET(SSL_get_error) PH_GET(SSL_pending) PH_GET(SSL_get_ex_data)
        PH_GET(SSL_get_rbio) PH_GET(SSL_get_wbio) PH_GET(BIO_method_type) PH_GET(BIO_read) PH_GET(BIO_write)
        PH_GET(BIO_ctrl_pending) PH_GET(BIO_ctrl) PH_GET(ERR_clear_error) PH_GET(ERR_peek_last_error) PH_GET(ERR_reason_error_string)
    #undef PH_GET
        return 1;               /* the library stays loaded: the handle is kept */
    }

    /* Who is inside, counted in lanes a cache line apart, for sixteen threads would fight for one. */
    #define PH_LANES 16
    static struct { int n; char apart[60]; } ph_lanes[PH_LANES];
    static int ph_ending;
    static inline void ph_leave(unsigned lane) { __atomic_sub_fetch(&ph_lanes[lane % PH_LANES].n, 1, __ATOMIC_SEQ_CST); }
    static inline int ph_enter(unsigned lane) {
        __atomic_add_fetch(&ph_lanes[lane % PH_LANES].n, 1, __ATOMIC_SEQ_CST);
        if (!__atomic_load_n(&ph_ending, __ATOMIC_SEQ_CST)) return 1;
        ph_leave(lane);
        return 0;
    }
    static void ph_end(void) { __atomic_or_fetch(&ph_ending, 1, __ATOMIC_SEQ_CST); }
    /* Forks under way, each counted as 2 beside the 1 of the end. */
    static void ph_fork_begins(void) { __atomic_add_fetch(&ph_ending, 2, __ATOMIC_SEQ_CST); }
    static void ph_fork_is_done(void) { __atomic_sub_fetch(&ph_ending, 2, __ATOMIC_SEQ_CST); }
    static int ph_forks(void) { return __atomic_load_n(&ph_ending, __ATOMIC_SEQ_CST) > 1; }
    static int ph_shaking;
    static int ph_shakes(int n) { return __atomic_add_fetch(&ph_shaking, n, __ATOMIC_SEQ_CST); }
    static int ph_inside(void) {
        int i, n = 0;
        for (i = 0; i < PH_LANES; i++) n += __atomic_load_n(&ph_lanes[i].n, __ATOMIC_SEQ_CST);
        return n;
    }
    static void ph_nobody_inside(void) { memset(ph_lanes, 0, sizeof ph_lanes); ph_shaking = 0; ph_ending &= 1; }
    """
    ctypedef struct ph_ssl_head:
        PyObject *Socket
        void *ssl
        PyObject *ctx
    bint PH_SSL_KNOWN
    int ph_SSL_read_ex(void*, void*, size_t, size_t*) noexcept nogil
    int ph_SSL_write_ex(void*, const void*, size_t, size_t*) noexcept nogil
    int ph_SSL_get_error(const void*, int) noexcept nogil
    int ph_SSL_pending(const void*) noexcept nogil
    void* ph_SSL_get_ex_data(const void*, int) noexcept nogil
    void* ph_SSL_get_rbio(const void*) noexcept nogil
    void* ph_SSL_get_wbio(const void*) noexcept nogil
    int ph_BIO_method_type(const void*) noexcept nogil
    int ph_BIO_read(void*, void*, int) noexcept nogil
    int ph_BIO_write(void*, const void*, int) noexcept nogil
    size_t ph_BIO_ctrl_pending(void*) noexcept nogil
    long ph_BIO_ctrl(void*, int, long, void*) noexcept nogil
    void ph_ERR_clear_error() noexcept nogil
    unsigned long ph_ERR_peek_last_error() noexcept nogil
    const char* ph_ERR_reason_error_string(unsigned long) noexcept nogil
    int ph_ssl_load(const char* path)
    bint ph_enter(unsigned lane) noexcept nogil
    void ph_leave(unsigned lane) noexcept nogil
    void ph_end() noexcept nogil
    void ph_fork_begins() noexcept nogil
    void ph_fork_is_done() noexcept nogil
    bint ph_forks() noexcept nogil
    int ph_shakes(int n) noexcept nogil
    int ph_inside() noexcept nogil
    void ph_nobody_inside() noexcept nogil

import atexit
import os
import sys

cdef enum:
    SSL_ERROR_WANT_READ = 2
    SSL_ERROR_ZERO_RETURN = 6
    BIO_TYPE_MEM = 1025
    BIO_CTRL_INFO = 3          # BIO_get_mem_data
    PIECE = 1 << 30            # BIO_read and BIO_write take an int
    END_MAX = 1_000_000_000    # ns that the exit waits for who is inside: only a callback of the user's can stay there
    FORK_MAX = 200_000_000     # ns that a fork waits for them, and they for a fork

cdef int _state = 0            # 0: not looked at yet; 1: to be had; -1: not
cdef bint _wanted = True
cdef object _inner_type = None


cdef int _look() except -1:
    global _state, _inner_type
    import _ssl

    _state = -1
    path = getattr(_ssl, "__file__", None)
    inner = getattr(_ssl, "_SSLSocket", None)
    if PH_SSL_KNOWN and path is not None and inner is not None and sys.implementation.name == "cpython" and \
            inner.__basicsize__ >= <int>sizeof(ph_ssl_head) and ph_ssl_load(os.fsencode(path)):
        _inner_type = inner
        atexit.register(end)
        _state = 1
    return 0


cdef bint direct_open(object sslobj, Direct* d) except -1:
    cdef ph_ssl_head* head
    d.ssl = NULL
    if _state == 0:
        _look()
    if _state < 0 or not _wanted:
        return False
    import ssl

    inner = getattr(sslobj, "_sslobj", None)
    if type(sslobj) is not ssl.SSLObject or type(inner) is not _inner_type:
        return False
    head = <ph_ssl_head*><PyObject*>inner
    if getattr(inner.context, "_msg_callback", None) is not None:
        return False                # what it raises, only `ssl` raises
    if head.Socket != NULL or head.ssl == NULL or head.ctx != <PyObject*>inner.context:
        return False
    if ph_SSL_get_ex_data(head.ssl, 0) != <void*>inner:
        return False
    d.rbio = ph_SSL_get_rbio(head.ssl)
    d.wbio = ph_SSL_get_wbio(head.ssl)
    if d.rbio == NULL or d.wbio == NULL or ph_BIO_method_type(d.rbio) != BIO_TYPE_MEM or ph_BIO_method_type(d.wbio) != BIO_TYPE_MEM:
        return False
    d.ssl = head.ssl
    d.lane = <unsigned>(<size_t>head.ssl >> 6)
    return True


cdef bint direct_enter(Direct* d) noexcept nogil:
    return ph_enter(d.lane)


cdef void direct_leave(Direct* d) noexcept nogil:
    ph_leave(d.lane)


cdef ssize_t _failed(Direct* d, int r) noexcept nogil:
    r = ph_SSL_get_error(d.ssl, r)
    if r == SSL_ERROR_WANT_READ:
        return ST_AGAIN
    if r == SSL_ERROR_ZERO_RETURN:
        return ST_EOF
    d.err = ph_ERR_peek_last_error()
    # The queue is the thread's, and `ssl` looks at it too.
    ph_ERR_clear_error()
    return ST_TLS


cdef inline void _forget_errors() noexcept nogil:
    # The call that follows is judged by what it leaves in the queue, which is nearly always empty; to clear it costs five times the look.
    if ph_ERR_peek_last_error():
        ph_ERR_clear_error()


cdef ssize_t direct_read(Direct* d, char* p, size_t n) noexcept nogil:
    cdef size_t got = 0
    cdef int r
    _forget_errors()
    r = ph_SSL_read_ex(d.ssl, p, n, &got)
    return <ssize_t>got if r > 0 else _failed(d, r)


cdef ssize_t direct_write(Direct* d, const char* p, size_t n) noexcept nogil:
    cdef size_t done = 0
    cdef int r
    _forget_errors()
    r = ph_SSL_write_ex(d.ssl, p, n, &done)
    return <ssize_t>done if r > 0 else _failed(d, r)


cdef bint direct_feed(Direct* d, const char* p, size_t n) noexcept nogil:
    cdef int k
    while n > 0:
        k = ph_BIO_write(d.rbio, p, <int>min(n, <size_t>PIECE))
        if k <= 0:
            return False
        p += k
        n -= <size_t>k
    return True


cdef size_t direct_fed(Direct* d) noexcept nogil:
    return ph_BIO_ctrl_pending(d.rbio)


cdef size_t direct_made(Direct* d) noexcept nogil:
    return ph_BIO_ctrl_pending(d.wbio)


cdef size_t direct_peek(Direct* d, char** p) noexcept nogil:
    cdef long n = ph_BIO_ctrl(d.wbio, BIO_CTRL_INFO, 0, p)
    return <size_t>n if n > 0 else 0


cdef void direct_drop(Direct* d, size_t n) noexcept nogil:
    cdef char gone[4096]
    cdef int k
    while n > 0:
        k = ph_BIO_read(d.wbio, gone, <int>min(n, sizeof(gone)))
        if k <= 0:
            return
        n -= <size_t>k


cdef bint direct_more(Direct* d) noexcept nogil:
    return ph_SSL_pending(d.ssl) > 0


cdef object direct_error(Direct* d):
    import ssl

    cdef const char* said = ph_ERR_reason_error_string(d.err) if d.err else NULL
    words = said.decode("ascii", "replace") if said != NULL else "the TLS library failed without a reason"
    reason = reason_of(words) if said != NULL else None
    error = ssl.SSLError(1, f"[SSL: {reason}] {words}" if reason else words)
    # Where `ssl` makes them it says so.
    error.library = "SSL"
    error.reason = reason
    return error


def reason_of(str words) -> str:
    """`ssl.SSLError.reason` for what OpenSSL says in words. Since 3.2 it says "ssl/tls alert" for the alerts that `ssl` names SSLV3_ALERT."""
    return words.replace("ssl/tls alert", "sslv3 alert").upper().replace(" ", "_").replace("-", "_")


def available() -> bool:
    """Whether this Python's `ssl` module lets OpenSSL be called directly."""
    if _state == 0:
        _look()
    return _state > 0


def use(bint on) -> bool:
    """Turn it on or off for streams made from now on; returns what it was. For tests, and for who mistrusts it."""
    global _wanted
    before = _wanted
    _wanted = on
    return before


def end() -> None:
    """The interpreter ends: from now on `direct_enter` says no. Returns when nobody is inside any more; registered with `atexit`."""
    cdef int64_t until = ph_now() + END_MAX
    with nogil:
        ph_end()
        while ph_inside() > 0 and ph_now() < until:
            ph_poll(NULL, 0, 1000000)


cdef void shake_enter() noexcept nogil:
    cdef int64_t until = 0
    ph_shakes(1)
    while ph_forks():
        ph_shakes(-1)
        if until == 0:
            until = ph_now() + FORK_MAX
        ph_poll(NULL, 0, 500000)
        ph_shakes(1)
        if ph_now() >= until:
            return


cdef void shake_leave() noexcept nogil:
    ph_shakes(-1)


def guarded(work, *args):
    """`work(*args)`, which works OpenSSL: a fork of another thread waits for it, for 200 ms at most."""
    with nogil:
        shake_enter()
    try:
        return work(*args)
    finally:
        shake_leave()


def before_fork() -> None:
    """Returns when nobody is inside OpenSSL by way of here; who comes from now on waits until the fork is done."""
    cdef int64_t until
    ph_fork_begins()
    if ph_inside() + ph_shakes(0) > 0:
        until = ph_now() + FORK_MAX
        with nogil:
            while ph_inside() + ph_shakes(0) > 0 and ph_now() < until:
                ph_poll(NULL, 0, 200000)


def after_fork_in_parent() -> None:
    """Those who wait for the fork go on."""
    ph_fork_is_done()


def reset_after_fork() -> None:
    """In the child: who was inside is not here."""
    ph_nobody_inside()


def offered(object sslobj) -> bool:
    """Whether records of this `ssl.SSLObject` can be read and written directly."""
    cdef Direct d
    return direct_open(sslobj, &d)


def gil_releases() -> int:
    """Explicit releases of the GIL by this module so far."""
    return ph_gil_releases()
