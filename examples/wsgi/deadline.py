"""A deadline for each request of a WSGI app, and 504 where it passes."""
from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable
from typing import Any

from pooledhttp import Context, DeadlineExceeded


class Deadline:
    """`app`, with `seconds` for each request, whatever it asks of others meanwhile: all that it sends obeys one context.

    The context is held until the server has sent the last piece of the body, so that a body made by a generator obeys it too. What is left then (a
    stream, a `map` loop) is cancelled.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]], seconds: float) -> None:
        self.app = app
        self.seconds = seconds

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Generator[bytes, None, None]:
        with Context.scope(timeout=self.seconds):
            try:
                body = self.app(environ, start_response)
                try:
                    yield from body
                finally:
                    close = getattr(body, "close", None)
                    if close is not None:
                        close()
            except DeadlineExceeded as error:
                if error.source != "context":          # the app's own limits are its own business
                    raise
                said = b"not answered in time\n"
                # Raises the error again where the head has gone: a body that was cut must not look whole.
                start_response("504 Gateway Timeout", [("Content-Type", "text/plain"), ("Content-Length", str(len(said)))], sys.exc_info())
                yield said
