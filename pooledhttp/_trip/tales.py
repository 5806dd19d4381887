"""Who follows an exchange (`Transport(trace=...)`), and the lines of the log. Imported only where there is somebody to tell."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pooledhttp._core.runtime import logger, unraisable
from pooledhttp._pool.core import check_unlocked
from pooledhttp._pool.janitor import janitor
from pooledhttp._pool.stats import CLOSE_REASONS
from pooledhttp._typing import TYPE_CHECKING, Any
from pooledhttp.conninfo import ConnInfo
from pooledhttp.trace import Trace

if TYPE_CHECKING:
    import logging

DEBUG = 10              # logging's own, which is not imported for them
WARNING = 30

# Each hook, and with how many arguments it is called.
HOOKS = {"get_conn": 3, "got_conn": 1, "dns_start": 1, "dns_done": 3, "connect_start": 1, "connect_done": 2, "tls_start": 1, "tls_done": 2,
         "wrote_request": 1, "got_1xx": 2, "first_byte": 0, "put_idle": 1, "closed": 2}
# As the Telling enum in _conn/connection.pxd.
TELL = 1
_BITS = {"wrote_request": 4, "first_byte": 8, "got_1xx": 16}


def _arguments(hook: Any, name: str) -> int:
    """How many of its arguments `hook` takes. TypeError where it wants more than there are."""
    from inspect import Parameter, signature

    there = HOOKS[name]
    try:
        parameters = signature(hook).parameters.values()
    except ValueError:                    # of a built-in that does not say
        return there
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)]
    if len(needed) > there or any(p.kind is Parameter.KEYWORD_ONLY for p in needed):
        raise TypeError(f"trace: {name} is called with {there} arguments, and {hook!r} wants others")
    if any(p.kind is Parameter.VAR_POSITIONAL for p in parameters):
        return there
    return min(there, sum(p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD) for p in parameters))


class Tale:
    """The hooks that one exchange calls."""

    __slots__ = ("_hooks", "bits")

    def __init__(self, hooks: dict[str, tuple[Callable[..., object], int]]) -> None:
        self._hooks = hooks
        self.bits = TELL
        for name in hooks:
            self.bits |= _BITS.get(name, 0)

    def tell(self, name: str, *args: object) -> None:
        """Call the hook `name`, if there is one."""
        found = self._hooks.get(name)
        if found is None:
            return
        check_unlocked()
        hook, taken = found
        try:
            hook(*args[:taken])
        except Exception as e:
            unraisable(e, hook)


class Tales:
    """A transport's `trace`: `begin` makes each exchange's tale, `apart` is that of what belongs to none."""

    def __init__(self, trace: Any) -> None:
        self._make: type[Trace] | None = trace if isinstance(trace, type) and issubclass(trace, Trace) else None
        first = trace if self._make is None else self._make()
        self._taken: dict[str, int] = {}
        for name in HOOKS:
            hook = getattr(first, name, None)
            if hook is None or getattr(hook, "__func__", None) is getattr(Trace, name):
                continue
            if not callable(hook):
                raise TypeError(f"trace: {name} must be callable, not {hook!r}")
            self._taken[name] = _arguments(hook, name)
        if not self._taken and not isinstance(first, Trace):
            raise TypeError(f"trace: {trace!r} has none of the hooks {', '.join(HOOKS)}")
        self.apart = self._tale(first)

    def _tale(self, trace: Any) -> Tale:
        return Tale({name: (getattr(trace, name), taken) for name, taken in self._taken.items()})

    def begin(self, key: str, method: str, target: str) -> Tale:
        """An exchange begins."""
        if self._make is None:
            return self.apart
        try:
            trace = self._make()
            trace.key, trace.method, trace.target = key, method, target
            return self._tale(trace)
        except Exception as e:
            unraisable(e, self._make)
            return Tale({})


# --- closed connections ----------------------------------------------------------------------------------------------------

def observe(follower: Tales | None, gone: list[tuple[Any, int, str, int, int, float]], by: Tale | None, later: bool) -> None:
    """`install_observer`'s."""
    if later:
        janitor.tell(partial(_observed, follower, gone, by))
    else:
        _observed(follower, gone, by)


def _observed(follower: Tales | None, gone: list[tuple[Any, int, str, int, int, float]], by: Tale | None) -> None:
    log = logger(DEBUG)
    for conn, number, key, ident, requests, age in gone:
        reason = CLOSE_REASONS[number]
        if log is not None:
            say(log, DEBUG, "connection %d to %s closed: %s (age %.3g s, %d request%s)", ident, _short(key), reason, age, requests, "s"[requests == 1:])
        if follower is not None:
            (by or follower.apart).tell("closed", reason, ConnInfo(ident, requests > 1, requests, 0.0, *conn.info))


# --- the log -----------------------------------------------------------------------------------------------------------------

def say(log: logging.Logger, level: int, line: str, *args: object) -> None:
    """A line of the log; a filter or a handler that raises ends no request."""
    check_unlocked()
    try:
        log.log(level, line, *args)
    except Exception as e:
        unraisable(e, log)


def _short(key: str) -> str:
    return key.partition(" (")[0]              # without the variables that say whom it trusts


def say_dialed(log: logging.Logger, key: str, ident: int, dial: Any) -> None:
    """A dial has made the connection `ident`."""
    info = dial.info
    address = info.remote_addr
    took = ", ".join(f"{what} {ns / 1e6:.1f}" for what, ns in dial.timings.items() if ns)
    tls = f", {info.tls_version} {info.cipher}{', ' + info.alpn if info.alpn else ''}" if info.tls_version else ""
    say(log, DEBUG, "connection %d to %s at %s made in %.1f ms (%s)%s", ident, _short(key),
        f"{address[0]} port {address[1]}" if isinstance(address, tuple) else address, sum(dial.timings.values()) / 1e6, took, tls)


def say_failed(log: logging.Logger, key: str, error: BaseException | None, seconds: float) -> None:
    """A dial has failed; None: it was given up."""
    say(log, DEBUG, "no connection to %s after %.1f ms: %s", _short(key), seconds * 1e3,
        "given up" if error is None else f"{type(error).__name__}: {error}")


def say_again(log: logging.Logger, key: str, method: bytes, target: bytes) -> None:
    """A reused connection died before the answer, or 417 was the answer."""
    path = target.partition(b"?")[0].decode("latin-1")
    say(log, DEBUG, "%s %s%s is sent again on another connection: the one it had was of no use", method.decode("latin-1"),
        "" if "://" in path else _short(key).partition(" via ")[0], path)


def say_retry(log: logging.Logger, request: str, number: int, total: int, pause: float, why: str) -> None:
    """A request is tried again by its `Retry`."""
    say(log, DEBUG, "%s is tried again (retry %d of at most %d) in %.3g s: %s", request, number, total, max(0.0, pause), why)


def warn_later(line: str, *args: object) -> None:
    """A warning from where anything may be held: it is written by the janitor's thread."""
    log = logger(WARNING)
    if log is not None:
        janitor.tell(partial(say, log, WARNING, line, *args))
