"""Time limits, as users give them."""
from __future__ import annotations

from math import inf, isnan

from pooledhttp._core.limits import Limits
from pooledhttp._typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TypeAlias

TimeoutTypes: TypeAlias = "Timeout | float | tuple[float | None, float | None] | None"

_FIELDS = ("total", "pool", "connect", "tls_handshake", "response_header", "read", "write")
FOR_EVER = 1e9              # seconds: 31 years; more is no limit, and fits no clock
_MEMO_SIZE = 256
_memo: dict[float, Timeout] = {}


class _Default:
    """A limit that was not given."""

    def __repr__(self) -> str:
        return "default"


_DEFAULT: Any = _Default()


def _seconds(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, (bool, str, bytes)) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError(f"the timeout {name!r} is a number of seconds or None, not {type(value).__name__}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = inf if value > 0 else -inf
    if isnan(seconds) or seconds < 0:
        raise ValueError(f"the timeout {name!r} must be at least 0 seconds, not {value!r}")
    return seconds


class Timeout:
    """The limits of a request, in seconds; None is no limit.

    `total` is a hard deadline over everything, the last byte of the body included. `pool` bounds the wait for a connection,
    `connect` DNS and TCP, `tls_handshake` the handshake, `response_header` the time from the request's last byte to the end of the
    response's head, `read` and `write` the longest silence. Defaults: pool 60, connect 10, tls_handshake 10, response_header None,
    read 60, write 60; where `total` is given, the limits not given beside it are None. Immutable.

    Raises TypeError for what is not a number, ValueError for what is negative or NaN.
    """

    __slots__ = (*_FIELDS, "limits")
    total: float | None
    pool: float | None
    connect: float | None
    tls_handshake: float | None
    response_header: float | None
    read: float | None
    write: float | None
    limits: Limits               # the same in nanoseconds, for the compiled floors

    def __init__(self, total: float | None = None, *, pool: float | None = _DEFAULT, connect: float | None = _DEFAULT,
                 tls_handshake: float | None = _DEFAULT, response_header: float | None = None, read: float | None = _DEFAULT,
                 write: float | None = _DEFAULT) -> None:
        put = object.__setattr__
        given = (("pool", pool, 60.0), ("connect", connect, 10.0), ("tls_handshake", tls_handshake, 10.0),
                 ("response_header", response_header, None), ("read", read, 60.0), ("write", write, 60.0))
        values = [_seconds("total", total)]
        for name, value, default in given:
            values.append((default if total is None else None) if value is _DEFAULT else _seconds(name, value))
        for name, seconds in zip(_FIELDS, values, strict=True):
            put(self, name, seconds)
        put(self, "limits", Limits(*[None if s is None or s > FOR_EVER else s for s in values]))

    @classmethod
    def of(cls, value: TimeoutTypes) -> Timeout:
        """A `Timeout` as it is; a number as `total`; (connect, read) as in requests; None as no limit at all."""
        if isinstance(value, Timeout):
            return value
        if value is None:
            return NO_LIMIT
        if isinstance(value, tuple):
            if len(value) != 2:
                raise TypeError(f"a timeout as a tuple is (connect, read), not {len(value)} values")
            return cls(connect=value[0], read=value[1])
        if type(value) is not float and type(value) is not int:      # True == 1: it must not find the memo
            return cls(value)
        timeout = _memo.get(value)
        if timeout is None:
            timeout = cls(value)
            if len(_memo) >= _MEMO_SIZE:
                _memo.clear()
            _memo[value] = timeout
        return timeout

    @classmethod
    def from_limits(cls, limits: Limits) -> Timeout:
        """The same in seconds."""
        values = (limits.total, limits.pool, limits.connect, limits.tls, limits.header, limits.read, limits.write)
        return _rebuild(*[None if ns < 0 else ns / 1e9 for ns in values])

    def with_total(self, total: float) -> Timeout:
        """The same limits with another `total`."""
        return _rebuild(total, *self._values()[1:])

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a Timeout cannot be changed: make another")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Timeout cannot be changed: make another")

    def _values(self) -> tuple[float | None, ...]:
        return tuple([getattr(self, name) for name in _FIELDS])

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if isinstance(other, Timeout) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        return f"Timeout({', '.join([f'{name}={getattr(self, name)!r}' for name in _FIELDS])})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, self._values()


def _rebuild(*values: float | None) -> Timeout:
    return Timeout(values[0], **dict(zip(_FIELDS[1:], values[1:], strict=True)))


NO_LIMIT = Timeout(None, pool=None, connect=None, tls_handshake=None, response_header=None, read=None, write=None)
