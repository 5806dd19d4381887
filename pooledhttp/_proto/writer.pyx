"""What a request may say on the wire: nothing here lets a value split or smuggle a request (RFC 9110 section 5, RFC 9112 section 3)."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from pooledhttp.errors import LocalProtocolError

cdef unsigned char _TOKEN[256]       # RFC 9110 section 5.6.2: tchar
cdef unsigned char _VALUE[256]       # RFC 9110 section 5.5: what a field value may hold
cdef int _i
for _i in range(256):
    _TOKEN[_i] = 1 if chr(_i) in "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" else 0
    _VALUE[_i] = 1 if _i == 9 or (_i >= 32 and _i != 127) else 0


cdef inline bint _all(const unsigned char* table, bytes data):
    cdef const unsigned char* p = <const unsigned char*>PyBytes_AS_STRING(data)
    cdef Py_ssize_t i
    for i in range(PyBytes_GET_SIZE(data)):
        if not table[p[i]]:
            return False
    return True


cdef bytes _name(object name):
    cdef bytes raw
    if isinstance(name, str):
        try:
            raw = name.encode("ascii")
        except UnicodeEncodeError:
            raise LocalProtocolError(f"header name {name!r} is not a token (RFC 9110 section 5.1)", phase="send") from None
    elif isinstance(name, (bytes, bytearray)):
        raw = bytes(name)
    else:
        raise TypeError(f"a header name must be str or bytes, not {type(name).__name__}")
    if not raw or not _all(_TOKEN, raw):
        raise LocalProtocolError(f"header name {raw.decode('latin-1')!r} is not a token (RFC 9110 section 5.1)", phase="send")
    return raw


cdef bytes _value(bytes name, object value):
    cdef bytes raw
    if isinstance(value, str):
        try:
            raw = value.encode("latin-1")
        except UnicodeEncodeError:
            try:
                raw = value.encode("utf-8")
            except UnicodeEncodeError:
                raise LocalProtocolError(f"the value of header {name.decode()!r} cannot be encoded", phase="send") from None
    elif isinstance(value, (bytes, bytearray)):
        raw = bytes(value)
    elif isinstance(value, int):
        raw = b"%d" % value
    else:
        raise TypeError(f"the value of header {name.decode()!r} must be str, bytes or int, not {type(value).__name__}")
    raw = raw.strip(b" \t")
    if not _all(_VALUE, raw):
        # Never the value itself: it may be a secret.
        raise LocalProtocolError(f"the value of header {name.decode()!r} has a control character in it (CR, LF, NUL or the like)", phase="send")
    return raw


def field_block(pairs) -> bytes:
    """Field lines for the wire, `Name: value` CRLF each, from (name, value) pairs of str or bytes, in order.

    A str value is sent as latin-1 where it can be, else as UTF-8; spaces and tabs around a value are dropped. Raises `LocalProtocolError`, which
    names the header, for a name that is no token (RFC 9110 section 5.6.2) and for a control character in a value; `TypeError` for other types.
    """
    cdef list lines = []
    for name, value in pairs:
        raw = _name(name)
        lines.append(raw)
        lines.append(b": ")
        lines.append(_value(raw, value))
        lines.append(b"\r\n")
    return b"".join(lines)


def check_method(method) -> bytes:
    """The method as bytes, its case kept; a `LocalProtocolError` where it is no token (RFC 9110 section 9.1)."""
    cdef bytes raw
    if isinstance(method, str):
        raw = method.encode("utf-8", "replace")
    elif isinstance(method, bytes):
        raw = method
    else:
        raise TypeError(f"a method must be str, not {type(method).__name__}")
    if not raw or not _all(_TOKEN, raw):
        raise LocalProtocolError(f"method {method!r} is not a token (RFC 9110 section 9.1)", phase="send")
    return raw


def check_target(bytes target not None) -> bytes:
    """The request target as it is; a `LocalProtocolError` where it is empty or has other than visible ASCII in it (RFC 9112 section 3.2)."""
    cdef const unsigned char* p = <const unsigned char*>PyBytes_AS_STRING(target)
    cdef Py_ssize_t i
    if not target:
        raise LocalProtocolError("the request target is empty", phase="send")
    for i in range(PyBytes_GET_SIZE(target)):
        if p[i] <= 32 or p[i] >= 127:
            raise LocalProtocolError(f"the request target has byte {p[i]:#04x} in it at {i}", phase="send")
    return target
