"""What a process has one of: the free list of exchange buffers, and each thread's wake descriptor."""
from cpython.exc cimport PyErr_WriteUnraisable
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XINCREF
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

from pooledhttp._core.compat cimport (
    c_close, errno, ph_add_int, ph_gil_releases, ph_load_int, ph_now, ph_poll, ph_self, ph_wake_drain, ph_wake_open, ph_wake_write, pthread_mutex_init,
    pthread_mutex_t, pthread_mutex_trylock, pthread_mutex_unlock,
)

import os
import sys
import threading

cdef extern from *:
    """
    /* Also in a child that Python was not told of (uWSGI's, unless it is configured to). */
    static int *ph_flag;
    static void ph_in_child(void) { *ph_flag = 1; }
    static int ph_watch_forks(int *flag) { ph_flag = flag; return pthread_atfork(NULL, NULL, ph_in_child); }
    """
    int ph_watch_forks(int* flag)

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident()
    void PyErr_Restore(PyObject* kind, PyObject* value, PyObject* trace)          # takes its arguments' references
    ctypedef struct PyInterpreterState:
        pass
    PyInterpreterState* PyInterpreterState_Get()
    PyInterpreterState* PyInterpreterState_Main()

if PyInterpreterState_Get() != PyInterpreterState_Main():
    # Who works without the GIL takes it by PyGILState_Ensure, which knows the main interpreter alone.
    raise ImportError("this is a subinterpreter")

cdef enum:
    IMPORT_MAX = 500000000     # ns: a module that takes longer to import does not keep a fork
    KEEP = 64                  # free buffers kept: at most 5 MiB, only as many as were ever in use at once

cdef pthread_mutex_t _lock
cdef char* _free[KEEP]
cdef int _n_free = 0
cdef int _out = 0              # buffers in use
cdef int _wakes = 0            # wake descriptors open
cdef int _forks = 0            # between the first process and this one
pthread_mutex_init(&_lock, NULL)
# Wrong only where Python before 3.13 first imported `threading` in another thread; its main thread then waits unsliced.
cdef unsigned long _main = threading.main_thread().ident or 0


cdef bint on_main() noexcept nogil:
    return ph_self() == _main


cdef char* buffer_take() noexcept nogil:
    global _n_free
    cdef char* buf = NULL
    # Tried, not waited for: some callers hold the GIL, and malloc is a fair second choice.
    if pthread_mutex_trylock(&_lock) == 0:
        if _n_free > 0:
            _n_free -= 1
            buf = _free[_n_free]
        pthread_mutex_unlock(&_lock)
    if buf == NULL:
        buf = <char*>malloc(BUFFER_SIZE)
    if buf != NULL:
        ph_add_int(&_out, 1)
    return buf


cdef void buffer_give(char* buf) noexcept nogil:
    global _n_free
    if buf == NULL:
        return
    ph_add_int(&_out, -1)
    if pthread_mutex_trylock(&_lock) == 0:
        if _n_free < KEEP:
            _free[_n_free] = buf
            _n_free += 1
            buf = NULL
        pthread_mutex_unlock(&_lock)
    if buf != NULL:
        free(buf)


cdef void wake_hold(Wake* w) noexcept nogil:
    ph_add_int(&w.refs, 1)


cdef void wake_drop(Wake* w) noexcept nogil:
    if ph_add_int(&w.refs, -1) == 0:
        c_close(w.rd)
        if w.wr != w.rd:
            c_close(w.wr)
        free(w)
        ph_add_int(&_wakes, -1)


cdef void wake_signal(Wake* w) noexcept nogil:
    ph_wake_write(w.wr)


cdef void wake_clear(Wake* w) noexcept nogil:
    ph_wake_drain(w.rd)


cdef class WakeHandle:
    """A thread's wake descriptor: readable once `signal()` was called, until `clear()`. Any thread may signal."""

    def __cinit__(self):
        self.w = <Wake*>malloc(sizeof(Wake))
        if self.w == NULL:
            raise MemoryError()
        if ph_wake_open(&self.w.rd, &self.w.wr) < 0:
            free(self.w)
            self.w = NULL
            raise OSError(errno, f"cannot open a wake descriptor: {os.strerror(errno)}")
        self.w.refs = 1
        ph_add_int(&_wakes, 1)

    def __dealloc__(self):
        if self.w != NULL:
            wake_drop(self.w)

    cdef void enter(self) noexcept:
        self.depth += 1

    cdef void leave(self) noexcept:
        # A request that a signal's handler makes while another of its thread waits may have taken the wake-up that was meant for that.
        self.depth -= 1
        if self.depth > 0:
            wake_signal(self.w)

    def fileno(self) -> int:
        return self.w.rd

    def signal(self) -> None:
        wake_signal(self.w)

    def clear(self) -> None:
        wake_clear(self.w)


cdef object _local = threading.local()


def current_wake() -> WakeHandle:
    """This thread's wake handle, made on first use and closed when the thread ends."""
    try:
        return _local.wake
    except AttributeError:
        _local.wake = WakeHandle()
        return _local.wake


cdef Wake* thread_wake() except NULL:
    cdef WakeHandle h = current_wake()
    return h.w


def slice_ns(int64_t left) -> int:
    """Of `left` nanoseconds (-1: for ever), how many this thread may wait at a time: on the main one at most SLICE, so that it sees signals."""
    return SLICE if on_main() and (left < 0 or left > SLICE) else left


def unraisable(exc not None, where) -> None:
    """Hand `exc`, which ends nothing, to `sys.unraisablehook`."""
    cdef object kind = type(exc), trace = exc.__traceback__
    Py_INCREF(kind)
    Py_INCREF(exc)
    Py_XINCREF(<PyObject*>trace if trace is not None else NULL)
    PyErr_Restore(<PyObject*>kind, <PyObject*>exc, <PyObject*>trace if trace is not None else NULL)
    PyErr_WriteUnraisable(where)


cdef object _logger = None


def logger(int level):
    """The program's logger "pooledhttp" where it takes lines of `level`, else None: so too where the program never imported `logging`."""
    global _logger
    if _logger is None:
        logging = sys.modules.get("logging")
        if getattr(logging, "getLogger", None) is None:        # or is being imported just now
            return None
        made = logging.getLogger("pooledhttp")
        if not made.handlers:
            made.addHandler(logging.NullHandler())             # a program that set up no logging is not written to
        _logger = made
    return _logger if _logger.isEnabledFor(level) else None


def live() -> dict:
    """Live objects, for the tests' teardown: buffers in use, wake descriptors open."""
    return {"buffers": ph_load_int(&_out), "wakes": ph_load_int(&_wakes)}


cdef int forks() noexcept nogil:
    return _forks + unsettled_flag


def generation() -> int:
    """How many forks lie between the first process and this one: another number means another process."""
    return forks()


cdef list _hooks = []


def at_fork(hook) -> None:
    """Have `hook()` called in a forked child, before anything else of ours runs there: in the order in which they were given."""
    _hooks.append(hook)


def settle() -> None:
    """In a forked child, once: let go of what is the parent's. By itself where Python knows of the fork, else at the first use."""
    if unsettled_flag:
        forget_threads()
        for hook in list(_hooks):
            hook()


cdef bint _others_import():
    cdef object me = PyThread_get_thread_ident()
    for ref in list(getattr(sys.modules.get("_frozen_importlib"), "_module_locks", {}).values()):
        owner = getattr(ref(), "owner", None)
        if owner is not None and owner != me:
            return True
    return False


def wait_for_imports() -> None:
    """Returns when no other thread imports anything, or after 0.5 s.

    Python keeps a lock for each module that is being imported, and in a forked child nobody opens one that another thread had: the child's first import of
    that module would hang. Much of ours is imported when first needed, which in a server is when its threads make their first requests.
    """
    cdef int64_t until
    if _others_import():
        until = ph_now() + IMPORT_MAX
        while _others_import() and ph_now() < until:
            with nogil:
                ph_poll(NULL, 0, 1000000)


def forget_threads() -> None:
    """After fork: the other threads' wake handles are not ours, the lock may have been held, and who forked is the main thread."""
    global _forks, _local, _main, unsettled_flag
    unsettled_flag = 0
    _forks += 1
    _main = ph_self()
    pthread_mutex_init(&_lock, NULL)
    _local = threading.local()


if ph_watch_forks(&unsettled_flag) != 0:
    raise MemoryError()
# Before a fork the last registered is called first, and after it the first.
os.register_at_fork(before=wait_for_imports, after_in_child=settle)


def gil_releases() -> int:
    return ph_gil_releases()
