"""The transports behind an adapter: requests that trust, show or tunnel otherwise share no connection, and no transport."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pooledhttp.client import Client
from pooledhttp.renewed import renewed
from pooledhttp.transport import Transport

KEPT_MAX = 32            # transports beside the main one; over it, the one not used for longest is closed

T = TypeVar("T")


class Transports:
    """The main transport, and one for every other set of options that a request asked for.

    `given` is a `Transport`, a `Client` (whose transport it is), or anything with `round_trip`; it is never closed here. Without it the
    main transport is made of `options` when it is first needed, and again after `close()`. What a request asks of a transport that is not
    a `Transport` is left out: how it reaches its peer is its own affair.
    """

    def __init__(self, given: Any, options: Mapping[str, Any]) -> None:
        if given is not None:
            if options:
                raise TypeError(f"transport= and its options ({', '.join(options)}) exclude each other")
            if isinstance(given, Client):
                given = given.transport
            if not callable(getattr(given, "round_trip", None)):
                raise TypeError(f"a transport has a method round_trip, and {type(given).__name__} has none")
        self.given = given
        # The adapter's caller has read the environment, or was told not to.
        self._options = {"proxy": None, **options} if given is None else dict(given.options) if isinstance(given, Transport) else {}
        self._main: Any = given
        self._others: OrderedDict[tuple[Any, ...], Transport] = OrderedDict()
        self._lock = renewed(self)
        if given is None:
            self._main = Transport(**self._options)          # what is wrong with the options is heard of at once

    @property
    def main(self) -> Any:
        """The transport of requests that ask for nothing else."""
        with self._lock:
            if self._main.closed and self.given is None:
                self._main = Transport(**self._options)
            return self._main

    def get(self, changes: Mapping[str, Any]) -> Any:
        """The transport whose options are these, and the main one's where they say nothing."""
        if not changes or (self.given is not None and not isinstance(self.given, Transport)):
            return self.main
        key = tuple(sorted((name, tuple(sorted(value.items())) if isinstance(value, dict) else value) for name, value in changes.items()))
        evicted = None
        with self._lock:
            transport = self._others.pop(key, None)
            if transport is None:
                transport = Transport(**{**self._options, **changes})
                if len(self._others) >= KEPT_MAX:
                    evicted = self._others.popitem(last=False)[1]
            self._others[key] = transport
        if evicted is not None:
            evicted.close()
        return transport

    def use(self, changes: Mapping[str, Any], call: Callable[[Any], T]) -> T:
        """`call(transport)`; again with a new one where another thread closed it (`close()`, or too many others) before it was used."""
        while True:
            transport = self.get(changes)
            try:
                return call(transport)
            except RuntimeError:
                if transport is self.given or not transport.closed:
                    raise

    def all(self) -> list[Any]:
        """Those that are there now, the main one first."""
        with self._lock:
            return [self._main, *self._others.values()]

    def close(self) -> None:
        """Close all but a given one: what idles is closed, what is in flight may finish. They are made anew when next needed."""
        with self._lock:
            closing = [*self._others.values()]
            self._others.clear()
            if self.given is None:
                closing.append(self._main)
        for transport in closing:
            transport.close()
