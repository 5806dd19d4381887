"""A transport that asks a function and no network: for tests of what uses a client."""
from __future__ import annotations

from collections.abc import Callable

from pooledhttp._typing import Any
from pooledhttp.request import Request
from pooledhttp.response import Response


class MockTransport:
    """`handler(request) -> Response` answers every request; what it raises, the caller of the client gets.

    `Client(transport=MockTransport(handler))`. Called on the requesting thread, by as many threads at once as there are.
    """

    def __init__(self, handler: Callable[[Request], Response]) -> None:
        self.handler = handler
        self.closed: bool = False

    def round_trip(self, request: Request, *, timeout: Any = None, context: Any = None) -> Response:
        """What the handler returns."""
        if self.closed:
            raise RuntimeError("the transport is closed")
        response = self.handler(request)
        if not isinstance(response, Response):
            raise TypeError(f"a MockTransport's handler returns a Response, not {type(response).__name__}")
        return response

    def close_idle_connections(self) -> None:
        """There are none."""

    def close(self, *, cancel: bool = False) -> None:
        """Take no further request."""
        self.closed = True
