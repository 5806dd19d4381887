"""`Reply.notes`: which responses want more than the plain way, by both parsers, and as the wire has it."""
from __future__ import annotations

from collections.abc import Callable

import pytest

from pooledhttp import Client
from tests.support.peer import Conn, Peer, respond

FIELDS: list[tuple[list[tuple[str, str]], int]] = [
    ([], 0),
    ([("Content-Type", "text/plain"), ("Vary", "Cookie"), ("Content-Location", "/x")], 0),
    ([("Set-Cookie", "a=b; Path=/")], 1),
    ([("content-encoding", "gzip")], 2),
    ([("CONTENT-ENCODING", "br"), ("SET-COOKIE", "a=b"), ("Set-Cookie", "c=d")], 3),
]


@pytest.mark.parametrize("parser", ["compiled", "h11"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("fields", "notes"), FIELDS)
def test_notes(peer: Callable[..., Peer], client: Client, fields: list[tuple[str, str]], notes: int, streamed: bool, parser: str) -> None:
    folded = [("X-Folded", "a\r\n b")] if parser == "h11" else []
    # An interim response's fields are its own.
    interim = b"HTTP/1.1 100 Continue\r\nSet-Cookie: no=no\r\nContent-Encoding: gzip\r\n\r\n"
    noted, plain = interim + respond(b"", headers=fields + folded), respond(b"", headers=folded)

    def script(conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            conn.send(noted if b"/noted" in head else plain)

    server = peer(script)
    with client.stream("GET", server.url("/noted")) if streamed else client.get(server.url("/noted")) as r:
        assert r._reply.notes == notes
        assert r.headers.get_list("X-Folded") == (["a b"] if folded else [])
    with client.stream("GET", server.url()) if streamed else client.get(server.url()) as r:
        assert r._reply.notes == 0
