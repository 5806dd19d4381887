"""The app: what `BACKEND` (an environment variable, the address of a service) says of a path, with the service's greeting before it.

`/stream/...` passes the body on as it comes.
"""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pooledhttp
from examples.wsgi.deadline import Deadline

BACKEND = os.environ["BACKEND"].rstrip("/")

# One for all threads. A fork may come after this: each worker has connections of its own, whatever the master used.
client = pooledhttp.Client(max_idle_conns_per_host=32, timeout=60.0)
greeting = client.get(f"{BACKEND}/greeting").raise_for_status().content


def passed_on(url: str) -> Iterator[bytes]:
    with client.stream("GET", url) as response:
        yield from response.raise_for_status().iter_bytes()


def ask(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    try:
        if path.startswith("/stream/"):
            pieces = passed_on(BACKEND + path)
            first = next(pieces, b"")          # before the head goes: until here an error has a status
            start_response("200 OK", [("Content-Type", "text/plain")])
            return chained(first, pieces)
        body = greeting + client.get(BACKEND + path).raise_for_status().content
    except pooledhttp.Error as error:
        if isinstance(error, pooledhttp.DeadlineExceeded) and error.source == "context":
            raise                              # is `Deadline`'s
        body = f"{type(error).__name__}\n".encode()
        start_response("502 Bad Gateway", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    else:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


app = Deadline(ask, seconds=float(os.environ.get("REQUEST_SECONDS", 20.0)))


def finish() -> str:
    """For the end of a process, when no request is being answered any more, or none has time left. What to write to the log."""
    client.transport.close(cancel=True)        # what idles is closed; what still waits for an answer gets an error, and does not keep the process
    client.close()
    stats = client.transport.stats()
    return f"{stats.requests} requests over {stats.opened} connections, {stats.leaked} leaked, {stats.open} left open"
