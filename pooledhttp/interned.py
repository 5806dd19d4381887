"""Transports of clients that came out of a pickle: in a process, one for each configuration, counted."""
from __future__ import annotations

import os
import threading
from collections import deque
from typing import Any

from pooledhttp._core.runtime import at_fork
from pooledhttp.transport import Transport, default_transport

# So many that no client uses now are kept, for the next task that brings their client along.
_PARKED = 8


class _Entry:
    __slots__ = ("clients", "key", "transport")

    def __init__(self, key: bytes, transport: Transport) -> None:
        self.key = key
        self.transport = transport
        self.clients = 0


class Lease:
    """A client's share in a transport. A client that is collected unclosed gives it up too, and the transport is kept for a while."""

    __slots__ = ("_entry", "transport")

    def __init__(self, entry: _Entry) -> None:
        self._entry: _Entry | None = entry
        self.transport = entry.transport

    def close(self) -> None:
        """Give the share up; the last one closes the transport."""
        with _lock:
            entry, self._entry = self._entry, None         # under the lock: two threads that close a client at once give up one share
            if entry is None:
                return
            closing = _settle()
            entry.clients -= 1
            if entry.clients <= 0:
                if _entries.get(entry.key) is entry:
                    del _entries[entry.key]
                closing.append(entry.transport)
        _close(closing)

    def __del__(self) -> None:
        entry = self._entry
        if entry is not None:
            _forgotten.append(entry)               # no lock: this may run anywhere, also within what holds it


_entries: dict[bytes, _Entry] = {}                 # in order of their last taking
_forgotten: deque[_Entry] = deque()
_lock = threading.RLock()                          # a signal's handler may unpickle a client


def _settle() -> list[Transport]:
    """Count what was forgotten; the transports to be closed, without the lock."""
    while _forgotten:
        _forgotten.popleft().clients -= 1
    parked = [entry for entry in _entries.values() if entry.clients <= 0]
    closing = parked[:-_PARKED] if len(parked) > _PARKED else []
    for entry in closing:
        del _entries[entry.key]
    return [entry.transport for entry in closing]


def _close(transports: list[Transport]) -> None:
    for transport in transports:
        transport.close()


def _lease(key: bytes, made: Transport | None) -> Lease | None:
    with _lock:
        entry = _entries.pop(key, None)
        if entry is None or entry.transport.closed:
            if made is None:
                return None
            entry = _Entry(key, made)
        entry.clients += 1
        _entries[key] = entry
        closing = _settle()
    _close(closing)
    return Lease(entry)


def lease(key: bytes, options: dict[str, Any]) -> Lease:
    """A share in this process's transport of that configuration, which is made where there is none."""
    found = _lease(key, None)
    if found is None:
        made = Transport(**options)
        made.travel_key = key
        found = _lease(key, made)
        assert found is not None
        if found.transport is not made:            # another thread was faster
            made.close()
    return found


def configuration(transport: Transport) -> tuple[bytes, dict[str, Any]]:
    """What makes such a transport elsewhere, and what tells it from others: the same for the same options."""
    options = transport.options
    key = transport.travel_key
    if key is None:
        from hashlib import sha256
        from pickle import PicklingError, dumps

        try:
            key = sha256(dumps(sorted(options.items()), 4)).digest()
        except (PicklingError, TypeError, AttributeError):
            key = os.urandom(32)                   # another pickler than Python's may know how; then the key is this transport's own
        transport.travel_key = key
    return key, options


def travelling(transport: Any) -> tuple[Any, ...]:
    """What stands for a client's transport in a pickle."""
    if transport is default_transport():
        return ("default",)
    return ("interned", *configuration(transport)) if type(transport) is Transport else ("own", transport)


def arrived(how: tuple[Any, ...], leases: list[Lease]) -> Any:
    """What `travelling` said, here; a share in a transport is added to `leases`."""
    kind, *rest = how
    if kind == "default":
        return default_transport()
    if kind == "own":
        return rest[0]
    leases.append(lease(*rest))
    return leases[-1].transport


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()


at_fork(_after_fork_in_child)
