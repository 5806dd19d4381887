"""When a request is tried again, and after which pause; and the budget that keeps a host in trouble from being stampeded."""
from __future__ import annotations

import os
import threading
from functools import partial
from time import time
from weakref import WeakKeyDictionary, WeakSet

from pooledhttp._core.runtime import at_fork
from pooledhttp._typing import TYPE_CHECKING, Any
from pooledhttp.errors import (
    CertificateError,
    ConnectError,
    ConnectRefusedByFilter,
    DeadlineExceeded,
    LocalProtocolError,
    PoolTimeout,
    TransportError,
    UnsupportedProtocol,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    from pooledhttp.request import Request
    from pooledhttp.response import Response

RetryTypes: TypeAlias = "Retry | int | None"

# RFC 9110 section 9.2.2.
IDEMPOTENT = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"))
STATUSES = frozenset((429, 502, 503, 504))
# Another try would end the same way, or is somebody else's to decide.
_FINAL = (CertificateError, ConnectRefusedByFilter, DeadlineExceeded, LocalProtocolError, PoolTimeout, UnsupportedProtocol)
# Up to here no byte of the request was sent to the server that it is for.
_UNSENT = ("dns", "connect", "proxy", "tls")
_RESERVE = 10.0              # tries that a host's budget holds at most, and at first
_HOSTS = 1024                # whose budgets are kept apart
_NEVER = 1e12                # seconds: more than anybody waits


def random() -> float:
    """From 0 to 1, evenly; without the module of that name, whose import is dear."""
    return int.from_bytes(os.urandom(4), "big") / 0xFFFFFFFF


def _always() -> bool:
    return True


def _number(name: str, value: Any) -> float:
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} is a number, not {type(value).__name__}")
    number = float(value)
    if not 0 <= number < _NEVER:
        raise ValueError(f"{name} is at least 0, not {value!r}")
    return number


class Retry:
    """When a request that failed, or was answered by one of `statuses`, is sent again.

    total: tries after the first, over the whole of a request, its redirects included.
    backoff, max_backoff: the pause before try n is at most backoff * 2**(n - 1) seconds, and at most max_backoff.
    jitter: the pause is drawn evenly between 0 and that, so that clients that failed together do not come back together.
    statuses: answers that are no answer yet.
    methods: those that may be sent twice (None: all). Others are sent again where they bear `Idempotency-Key`, or where nothing was sent.
    respect_retry_after: the server's `Retry-After` (RFC 9110 section 10.2.3) is the least pause; one beyond max_retry_after seconds ends the
    retrying, and the response is returned.
    budget: how many tries of each host may be retries, as a share of its requests, beside a reserve of 10; None: no bound.

    A Retry holds no state, and may be shared by clients and threads. Raises TypeError and ValueError.
    """

    __slots__ = ("backoff", "budget", "jitter", "max_backoff", "max_retry_after", "methods", "respect_retry_after", "statuses", "total")
    total: int
    backoff: float
    max_backoff: float
    jitter: bool
    statuses: frozenset[int]
    methods: frozenset[str] | None
    respect_retry_after: bool
    budget: float | None
    max_retry_after: float

    def __init__(self, total: int, *, backoff: float = 0.1, max_backoff: float = 30.0, jitter: bool = True, statuses: Iterable[int] = STATUSES,
                 methods: Iterable[str] | None = IDEMPOTENT, respect_retry_after: bool = True, budget: float | None = 0.2,
                 max_retry_after: float = 60.0) -> None:
        if isinstance(total, bool) or not isinstance(total, int):
            raise TypeError(f"total is a number of tries, not {type(total).__name__}")
        if total < 0:
            raise ValueError(f"total is at least 0, not {total}")
        if isinstance(methods, str):
            raise TypeError("methods are several: put one in a list")
        self.total = total
        self.backoff = _number("backoff", backoff)
        self.max_backoff = _number("max_backoff", max_backoff)
        self.jitter = bool(jitter)
        self.statuses = frozenset(statuses)
        for status in self.statuses:
            if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 999:
                raise ValueError(f"a status that is retried is a number from 200 to 999, not {status!r}")
        self.methods = None if methods is None else frozenset([method.upper() for method in methods])
        self.respect_retry_after = bool(respect_retry_after)
        self.budget = None if budget is None else _number("budget", budget)
        self.max_retry_after = _number("max_retry_after", max_retry_after)

    @classmethod
    def of(cls, value: RetryTypes) -> Retry | None:
        """A `Retry` as it is; a number of tries after the first; None where there is no such try."""
        if value is None or isinstance(value, Retry):
            return value if value is None or value.total else None
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"retries is a number of tries or a Retry, not {type(value).__name__}")
        return cls(value) if value else None

    def may_repeat(self, request: Request) -> bool:
        """Whether the request may reach its server twice."""
        return self.methods is None or request.method in self.methods or "idempotency-key" in request.headers

    def allows_error(self, request: Request, error: Exception) -> bool:
        """Whether the request may be sent again after that error."""
        if not isinstance(error, TransportError) or isinstance(error, _FINAL):
            return False
        status = getattr(error, "status_code", None)           # a proxy's: 407 and its kin stay
        if status is not None and 400 <= status < 500 and status != 429:
            return False
        return error.phase in _UNSENT or isinstance(error, ConnectError) or self.may_repeat(request)

    def allows_response(self, request: Request, response: Response) -> bool:
        """Whether the request may be sent again after that answer."""
        return response.status_code in self.statuses and self.may_repeat(request)

    def pause(self, tried: int, response: Response | None, *, now: float, draw: float) -> float | None:
        """Seconds before another try after `tried` of them; None where the server asks for more than `max_retry_after`.

        `now` is the time (since the epoch) that a date in Retry-After is compared with, `draw` a random number from 0 to 1.
        """
        seconds = min(self.backoff * 2.0 ** min(tried - 1, 1000), self.max_backoff)
        if self.jitter:
            seconds *= draw
        if response is not None and self.respect_retry_after:
            asked = retry_after(response, now)
            if asked > self.max_retry_after:
                return None
            seconds = max(seconds, asked)
        return seconds

    def seconds(self, tried: int, response: Response | None) -> float | None:
        """`pause`, now."""
        return self.pause(tried, response, now=time(), draw=random())

    def allowance(self, transport: Any, host: str) -> Callable[[], bool]:
        """Counts a request to `host`, and gives what each retry of it asks for leave."""
        if self.budget is None:
            return _always
        budgets = budgets_of(transport)
        budgets.deposit(host, self.budget)
        return partial(budgets.take, host)

    def _values(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self.__slots__])

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        methods = None if self.methods is None else sorted(self.methods)
        return (f"Retry({self.total}, backoff={self.backoff:g}, max_backoff={self.max_backoff:g}, jitter={self.jitter}, "
                f"statuses={sorted(self.statuses)}, methods={methods}, respect_retry_after={self.respect_retry_after}, "
                f"budget={self.budget}, max_retry_after={self.max_retry_after:g})")


def retry_after(response: Response, now: float) -> float:
    """The seconds that `Retry-After` asks for, as a number or as a date; 0 where there is none, or none that can be read."""
    for value in response.headers.get_list("retry-after")[:1]:
        if value.isascii() and value.isdigit():
            return float(value[:20])
        from email.utils import parsedate_to_datetime

        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - now)
        except (ValueError, OverflowError):
            return 0.0
    return 0.0


class Budgets:
    """The retries that each host may still be sent: a reserve, which its requests refill. Bounded: see `_row`."""

    __slots__ = ("__weakref__", "_lock", "_others", "_rows", "_size")

    def __init__(self, size: int = _HOSTS) -> None:
        self._size = size
        self._rows: dict[str, float] = {}        # the least recently used first
        self._others = _RESERVE
        self._lock = threading.RLock()           # a signal's handler may make a request while its own thread is in here
        _all.add(self)

    def __len__(self) -> int:
        return len(self._rows)

    def deposit(self, host: str, share: float) -> None:
        """A request goes to that host."""
        with self._lock:
            self._rows[host] = min(_RESERVE, self._row(host) + share)

    def take(self, host: str) -> bool:
        """Whether there may be another retry; it is taken off."""
        with self._lock:
            left = self._row(host)
            enough = left >= 1 - 1e-9            # five shares of 0.2 are one
            self._rows[host] = left - 1 if enough else left
            return enough

    def _row(self, host: str) -> float:
        """Taken out: whoever calls puts it back, as the most recently used.

        A full row says no more than none, and goes first. Where all hosts are in trouble, the least recently used one's row becomes the one that
        hosts not seen before begin with: many names for one dying server have one reserve in the end.
        """
        left = self._rows.pop(host, None)
        if left is None:
            left = _RESERVE
            if len(self._rows) >= self._size:
                self._rows = {name: tokens for name, tokens in self._rows.items() if tokens < _RESERVE}
                if len(self._rows) >= self._size:
                    self._others = min(self._others, self._rows.pop(next(iter(self._rows))))
                    left = self._others
                else:
                    self._others = _RESERVE
        return left


_all: WeakSet[Budgets] = WeakSet()
_of: WeakKeyDictionary[Any, Budgets] = WeakKeyDictionary()
_lock = threading.RLock()
_homeless = Budgets()            # of transports that no dictionary takes


def budgets_of(transport: Any) -> Budgets:
    """The transport's: clients that share it share them."""
    try:
        with _lock:
            budgets = _of.get(transport)
            if budgets is None:
                budgets = _of[transport] = Budgets()
            return budgets
    except TypeError:
        return _homeless


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    for budgets in list(_all):
        budgets._lock = threading.RLock()        # another thread of the parent may have held it


at_fork(_after_fork_in_child)
