"""What goes into a request's head, checked: nothing here can split or smuggle one (RFC 9110 section 5, RFC 9112 section 3).

Errors name the header and never its value, which may be a secret.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

from pooledhttp.errors import LocalProtocolError

cdef enum:
    ROOM = 1024                    # bytes on the stack; a block that is longer moves to the heap
    SHOWN = 64                     # characters of a bad name that a message repeats

cdef unsigned char _token[256]     # RFC 9110 section 5.6.2: tchar
cdef unsigned char _text[256]      # HTAB, SP, VCHAR, obs-text

cdef int _c
for _c in range(256):
    _token[_c] = chr(_c) in "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    _text[_c] = _c == 9 or (_c >= 32 and _c != 127)


cdef struct Block:
    char* at
    size_t size
    size_t room
    bint heap


cdef int reserve(Block* b, size_t more) except -1:
    """Makes room for `more` bytes."""
    cdef size_t room = b.room
    cdef char* p
    if b.size + more <= room:
        return 0
    while room < b.size + more:
        room *= 2
    p = <char*>(realloc(b.at, room) if b.heap else malloc(room))
    if p == NULL:
        raise MemoryError()
    if not b.heap:
        memcpy(p, b.at, b.size)
    b.at = p
    b.room = room
    b.heap = True
    return 0


cdef object shown(object name):
    return repr(name if len(name) <= SHOWN else name[:SHOWN]) + ("" if len(name) <= SHOWN else " (shortened)")


cdef bint is_token(bytes b) noexcept:
    cdef const unsigned char* p = <const unsigned char*>PyBytes_AS_STRING(b)
    cdef Py_ssize_t i, n = PyBytes_GET_SIZE(b)
    for i in range(n):
        if not _token[p[i]]:
            return False
    return n > 0


cdef bytes name_bytes(object name):
    cdef bytes b
    if isinstance(name, bytes):
        b = name
    elif isinstance(name, str):
        try:
            b = (<str>name).encode("ascii")
        except UnicodeEncodeError:
            b = b""                # no token either: the error below names it
    else:
        raise TypeError(f"a header's name must be str or bytes, not {type(name).__name__}")
    if not is_token(b):
        raise LocalProtocolError(f"header name {shown(name)} is not a token (RFC 9110 section 5.6.2)")
    return b


cdef bytes value_bytes(bytes name, object value):
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise TypeError(f"the value of header {shown(name.decode())} must be str or bytes, not {type(value).__name__}")
    try:
        return (<str>value).encode("latin-1")
    except UnicodeEncodeError:
        pass
    try:
        return (<str>value).encode("utf-8")
    except UnicodeEncodeError:
        # From None: the codec's error carries the value.
        raise LocalProtocolError(f"the value of header {shown(name.decode())} holds a lone surrogate") from None


cdef int add(Block* b, object name_in, object value_in) except -1:
    cdef bytes name = name_bytes(name_in)
    cdef bytes value = value_bytes(name, value_in)
    cdef const unsigned char* p = <const unsigned char*>PyBytes_AS_STRING(value)
    cdef size_t k = PyBytes_GET_SIZE(name), n = PyBytes_GET_SIZE(value), i
    cdef char* out
    for i in range(n):
        if not _text[p[i]]:
            raise LocalProtocolError(f"the value of header {shown(name.decode())} holds the control character 0x{p[i]:02x}")
    while n > 0 and (p[0] == 32 or p[0] == 9):
        p += 1
        n -= 1
    while n > 0 and (p[n - 1] == 32 or p[n - 1] == 9):
        n -= 1
    reserve(b, k + n + 4)
    out = b.at + b.size
    memcpy(out, PyBytes_AS_STRING(name), k)
    out[k] = 58                    # ":"
    out[k + 1] = 32
    memcpy(out + k + 2, p, n)
    out[k + 2 + n] = 13
    out[k + 3 + n] = 10
    b.size += k + n + 4
    return 0


cpdef bytes field_block(object pairs):
    """Field lines, each `Name: value` and CRLF, of an iterable of (name, value), each str or bytes, in its order and case.

    A str name must be ASCII; a str value is sent as Latin-1 where it can be, else as UTF-8. Spaces and tabs around a value
    are left out. LocalProtocolError: a name that is not a token (RFC 9110 section 5.6.2), a control character other than
    HTAB in a value (section 5.5). TypeError: neither str nor bytes.
    """
    cdef char stack[ROOM]
    cdef Block b
    b.at = stack
    b.size = 0
    b.room = ROOM
    b.heap = False
    try:
        for name, value in pairs:
            add(&b, name, value)
        return PyBytes_FromStringAndSize(b.at, b.size)
    finally:
        if b.heap:
            free(b.at)


cpdef bytes check_method(object method):
    """The method (str or bytes) as bytes. LocalProtocolError where it is not a token (RFC 9110 section 9.1)."""
    cdef bytes b
    if isinstance(method, bytes):
        b = method
    elif isinstance(method, str):
        try:
            b = (<str>method).encode("ascii")
        except UnicodeEncodeError:
            b = b""
    else:
        raise TypeError(f"a method must be str or bytes, not {type(method).__name__}")
    if not is_token(b):
        raise LocalProtocolError(f"method {shown(method)} is not a token (RFC 9110 section 9.1)")
    return b


cpdef bytes check_target(bytes target):
    """The request target. LocalProtocolError where it is empty or holds anything but visible ASCII (RFC 9112 section 3.2)."""
    if target is None:
        raise TypeError("a request target must be bytes, not None")
    cdef const unsigned char* p = <const unsigned char*>PyBytes_AS_STRING(target)
    cdef Py_ssize_t i, n = PyBytes_GET_SIZE(target)
    if n == 0:
        raise LocalProtocolError("the request target is empty")
    for i in range(n):
        if not 0x21 <= p[i] <= 0x7e:
            raise LocalProtocolError(f"the request target holds the byte 0x{p[i]:02x} at offset {i}; only visible ASCII may be sent")
    return target
