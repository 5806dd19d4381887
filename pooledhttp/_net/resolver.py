"""Host names to addresses: getaddrinfo (or a user's callable) in helper threads, shared, cached, never past a caller's deadline."""
from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

from pooledhttp import errors
from pooledhttp._net import helpers

Address = tuple[int, Any]                             # (family, sockaddr), as getaddrinfo says them
ResolverCallable = Callable[[str, int], Iterable[tuple[int, Any]]]
Failure = tuple[str, BaseException | None]            # the message, and what it came from

TTL_MAX = 3e9                                         # seconds: for ever
CACHE_MAX = 1024                                      # names kept; the one least recently looked up goes first
# A lookup that is older is joined no longer where another helper can be had: libc may hang for ever on an answer that was lost,
# while a fresh question would be answered.
JOIN_NS = 15_000_000_000


class Handle(Protocol):
    """A thread's wake handle, as `pooledhttp._core.runtime.current_wake()` gives."""

    def signal(self) -> None: ...


class Lookup:
    """One question in flight, or answered. Any number of threads may wait for it."""

    __slots__ = ("host", "port", "started", "done", "kept", "_found", "_error", "_waiters")

    def __init__(self, host: str, port: int, found: list[Address] | None = None) -> None:
        self.host = host
        self.port = port
        self.started = time.monotonic_ns()
        self.done = self.kept = found is not None         # kept: it was known, and nobody is asked
        self._found = found
        self._error: Failure | None = None
        self._waiters: list[Handle] = []

    def add_waiter(self, handle: Handle) -> None:
        """`handle` is signalled when `done` becomes true, at once where it is. It may be signalled more than once."""
        self._waiters.append(handle)
        # Whoever finishes sets `done` before it walks the list: one of the two sees the other.
        if self.done:
            handle.signal()

    def remove_waiter(self, handle: Handle) -> None:
        """A signal that is already on its way may still come."""
        with contextlib.suppress(ValueError):
            self._waiters.remove(handle)

    def result(self) -> list[Address]:
        """The addresses, in the order of preference of whoever answered; at least one. Raises DNSError. Only once `done`."""
        if self._error is not None:
            text, cause = self._error
            code = cause.errno if isinstance(cause, OSError) else None
            raise errors.DNSError(text, phase="dns", errno=code) from cause      # a new one each time: callers add to their exceptions
        if self._found is None:
            raise RuntimeError("the lookup is not done")
        return list(self._found)

    def finish(self, found: list[Address] | None, error: Failure | None = None) -> None:
        """For the resolver."""
        self._found = found
        self._error = error
        self.done = True
        for handle in list(self._waiters):
            handle.signal()


def literal(host: str, port: int) -> list[Address] | None:
    """The address that an IP literal is (IPv6 with or without a zone), as libc reads it; None for a name. Asks nobody."""
    if ":" not in host and not host[-1:].isdigit():
        return None
    try:
        found = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, ValueError):
        return None
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]


def _system(host: str, port: int) -> list[Address]:
    # As bytes: a str would go through Python's IDNA codec of 2003, and the name is ASCII by now.
    found = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
    return [(family, sockaddr) for family, _, _, _, sockaddr in found if family in (socket.AF_INET, socket.AF_INET6)]


def _check(entry: Any) -> Address:
    """Refuse what a user's callable should not say: a name in a sockaddr would be looked up by connect(), past any deadline."""
    try:
        family, sockaddr = entry
        ip, port = sockaddr[:2]
        socket.inet_pton(family, ip.partition("%")[0])
        if not isinstance(sockaddr, tuple) or not isinstance(port, int) or not 0 < port < 65536:
            raise ValueError("no tuple with a port")
    except (OSError, ValueError, TypeError, AttributeError) as exc:
        raise ValueError(f"{entry!r} is no (family, sockaddr) of an IP address") from exc
    return family, sockaddr


class Resolver:
    """Lookups for any number of threads.

    `custom(host, port)` answers instead of getaddrinfo: an iterable of (family, sockaddr). `ttl` is for how many seconds an answer
    is kept (0: not at all). IP literals are answered without either.
    """

    def __init__(self, custom: ResolverCallable | None = None, ttl: float = 60.0, *, threads: helpers.Helpers | None = None) -> None:
        self._ask: ResolverCallable = custom if custom is not None else _system
        self._ttl = int(min(ttl, TTL_MAX) * 1e9)
        self._helpers = threads if threads is not None else helpers.shared
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.RLock()                # re-entrant as in helpers.py
        self._cache: dict[tuple[str, int], tuple[int, list[Address]]] = {}
        self._flying: dict[tuple[str, int], Lookup] = {}

    def reset_after_fork(self) -> None:
        """In the child: forget what the parent asked and knew, and its threads."""
        self._forget()
        self._helpers.reset_after_fork()

    def lookup(self, host: str, port: int, *, fresh: bool = False) -> Lookup:
        """Start, join or find a lookup; never waits. `fresh` passes over a kept answer."""
        found = literal(host, port)
        if found is not None:
            return Lookup(host, port, found)
        key = (host, port)
        now = time.monotonic_ns()
        mine: Lookup | None = None
        ticket = helpers.Ticket()
        try:
            with self._lock:
                kept = self._cache.pop(key, None)
                if kept is not None and now < kept[0]:
                    self._cache[key] = kept           # the newest again
                    if not fresh:
                        return Lookup(host, port, kept[1])
                flying = self._flying.get(key)
                if flying is not None and (now - flying.started < JOIN_NS or not self._helpers.has_room(host)):
                    return flying
                mine = self._flying[key] = Lookup(host, port)
            self._helpers.submit(host, partial(self._work, mine), ticket)
        except BaseException as exc:
            # What a signal's handler raises may come at any step, also when all is done: others may have joined the lookup.
            if mine is not None and not ticket.taken:
                self._land(mine, None)
                mine.finish(None, (f"cannot resolve {host!r}: no thread can be started: {exc}", exc))
            if mine is None or not isinstance(exc, RuntimeError):
                raise
        assert mine is not None
        return mine

    def invalidate(self, host: str, port: int) -> None:
        """Drop the kept answer: a connect to it failed."""
        with self._lock:
            self._cache.pop((host, port), None)

    def _land(self, lookup: Lookup, found: list[Address] | None) -> None:
        key = (lookup.host, lookup.port)
        with self._lock:
            if self._flying.get(key) is lookup:
                del self._flying[key]
            if found and self._ttl > 0:
                self._cache.pop(key, None)
                self._cache[key] = (time.monotonic_ns() + self._ttl, found)
                while len(self._cache) > CACHE_MAX:
                    del self._cache[next(iter(self._cache))]

    def _work(self, lookup: Lookup) -> None:
        found: dict[Address, None] = {}               # each once, in order, however many thousands
        error: Failure | None = None
        host = lookup.host
        try:
            for entry in self._ask(host, lookup.port):
                found[_check(entry)] = None
            if not found:
                error = (f"cannot resolve {host!r}: no addresses", None)
        except OSError as exc:                        # gaierror is one; where libc's own calls failed (EAI_SYSTEM) it is their error
            error = (f"cannot resolve {host!r}: {exc.strerror or exc}", exc)
        except BaseException as exc:                  # a user's callable may raise anything; the waiters must hear of it
            error = (f"cannot resolve {host!r}: {type(exc).__name__}: {exc}", exc)
        addresses = list(found) if error is None else None
        self._land(lookup, addresses)
        lookup.finish(addresses, error)
