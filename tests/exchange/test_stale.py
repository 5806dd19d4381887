"""Reused connections that die: when a request is tried again, and when it must not be (RFC 9110 section 9.2.2)."""
from __future__ import annotations

import errno
import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pooledhttp import Client, ReadError, RemoteProtocolError, StaleConnectionError, WriteError
from tests.exchange.support import client_socket, closed
from tests.support.peer import Conn, Peer, respond
from tests.support.pyserver import pattern

MakePeer = Callable[..., Peer]
MakeClient = Callable[..., Client]
WHOLE = b"x" * 100_000


class Dying:
    """The first answer of a connection is whole. The next request on it meets what `how` says; connections from `lives_from` on stay well."""

    def __init__(self, how: str, lives_from: int = 1) -> None:
        self.how = how
        self.lives_from = lives_from
        self.bodies: list[bytes] = []
        self.served: list[int] = []

    def __call__(self, conn: Conn, i: int) -> None:
        n = 0
        while True:
            head = conn.recv_head()
            if n == 1 and i < self.lives_from:
                if self.how == "some-body":
                    conn.recv_exact(1000)
                    conn.reset()
                    return
                conn.recv_body(head)
                if self.how == "request-read":
                    return
                if self.how == "request-read-reset":
                    conn.reset()
                    return
                if self.how == "interim":
                    conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
                    return
                if self.how == "one-byte":
                    conn.send(b"H")
                    return
                if self.how == "body":
                    conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
                    return
                raise AssertionError(self.how)
            self.bodies.append(conn.recv_body(head))
            self.served.append(i)
            n += 1
            conn.send(respond(b"answer"))


def once() -> Iterator[bytes]:
    yield b"only "
    yield b"once"


class Again:
    def __iter__(self) -> Iterator[bytes]:
        return once()


class Unseekable(io.RawIOBase):
    """Reads, and cannot be rewound."""

    def __init__(self) -> None:
        self.left = b"only once"

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def read(self, n: int = -1) -> bytes:
        out, self.left = self.left, b""
        return out


BODIES: dict[str, tuple[Callable[[], Any], bytes, bool]] = {        # made by, on the wire, can be sent again
    "none": (lambda: None, b"", True),
    "bytes": (lambda: b"small", b"small", True),
    "large": (lambda: WHOLE, WHOLE, True),
    "file": (lambda: io.BytesIO(b"from a file"), b"from a file", True),
    "list": (lambda: [b"a ", b"list"], b"a list", True),
    "iterable": (Again, b"only once", True),
    "generator": (once, b"only once", False),
    "unseekable": (Unseekable, b"only once", False),
}
METHODS = [("GET", {}, True), ("HEAD", {}, True), ("OPTIONS", {}, True), ("TRACE", {}, True), ("POST", {}, False), ("PUT", {}, False),
           ("DELETE", {}, False), ("PATCH", {}, False), ("POST", {"Idempotency-Key": "k1"}, True), ("PATCH", {"idempotency-key": ""}, True)]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(("method", "headers", "safe"), METHODS, ids=[f"{m}{'-key' if h else ''}" for m, h, _ in METHODS])
@pytest.mark.parametrize("death", ["request-read", "request-read-reset"])
def test_after_the_request_was_written(peer: MakePeer, client: Client, death: str, method: str, headers: dict[str, str], safe: bool, body: str) -> None:
    make, wire, again = BODIES[body]
    script = Dying(death)
    server = peer(script)
    client.request("GET" if method == "HEAD" else method, server.url())
    if safe and again:
        r = client.request("GET" if method == "HEAD" else method, server.url(), headers=headers, content=make())
        assert (r.content, r.conn and r.conn.reused) == (b"answer", False)
        assert (script.bodies, script.served) == ([b"", wire], [0, 1])
        assert client.transport.stats().retries == 1
    else:
        with pytest.raises(StaleConnectionError, match="body cannot be sent twice" if safe else "not idempotent") as e:
            client.request(method, server.url(), headers=headers, content=make())
        assert (e.value.phase, e.value.conn.reused, e.value.request.method) == ("headers", True, method)
        assert isinstance(e.value, ConnectionError)
        assert e.value.errno in ((errno.ECONNRESET, errno.EPIPE) if death == "request-read-reset" else (None, errno.ECONNRESET, errno.EPIPE))
        assert (server.accepted, client.transport.stats().retries) == (1, 0)
    assert closed(client.transport.stats()) == {"server_closed": 1}
    assert client.get(server.url()).content == b"answer"


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_before_anything_was_written(peer: MakePeer, client: Client, method: str, body: str) -> None:
    # Whatever the method: the server cannot have seen it. The connection looks alive and takes no byte.
    make, wire, _ = BODIES[body]
    script = Dying("never", lives_from=0)
    server = peer(script)
    client.get(server.url())
    with client_socket(server.conns[0].sock.getpeername()) as spoiled:
        spoiled.shutdown(1)
    r = client.request(method, server.url(), content=make())
    assert (r.content, r.conn and r.conn.reused) == (b"answer", False)
    assert script.bodies == [b"", wire]
    stats = client.transport.stats()
    assert (stats.requests, stats.dials, closed(stats)) == (2, 2, {"server_closed": 1})


@pytest.mark.parametrize("death", ["one-byte", "interim", "body"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_after_the_first_byte_of_the_answer(peer: MakePeer, client: Client, method: str, death: str) -> None:
    server = peer(Dying(death))
    client.get(server.url())
    with pytest.raises(RemoteProtocolError) as e:
        client.request(method, server.url())
    assert e.value.phase == ("body" if death == "body" else "headers")
    assert (server.accepted, client.transport.stats().retries) == (1, 0)
    assert closed(client.transport.stats()) == {"error": 1}
    assert client.get(server.url()).content == b"answer"


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_fresh_connection_is_tried_once(peer: MakePeer, client: Client, method: str, how: str) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        if how == "reset":
            conn.reset()

    server = peer(script)
    with pytest.raises((RemoteProtocolError, ReadError)) as e:
        client.request(method, server.url())
    assert type(e.value) is (RemoteProtocolError if how == "close" else ReadError)
    assert (e.value.phase, e.value.conn.reused) == ("headers", False)
    assert (server.accepted, client.transport.stats().retries) == (1, 0)
    assert closed(client.transport.stats()) == {"error": 1}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("death", ["request-read", "request-read-reset"])
def test_without_retry_stale(peer: MakePeer, new_client: MakeClient, method: str, death: str) -> None:
    client = new_client(retry_stale=False)
    server = peer(Dying(death))
    client.get(server.url())
    with pytest.raises(StaleConnectionError, match="retry_stale is off") as e:
        client.request(method, server.url())
    assert (e.value.phase, e.value.conn.reused) == ("headers", True)
    assert (server.accepted, client.transport.stats().retries) == (1, 0)
    assert closed(client.transport.stats()) == {"server_closed": 1}


def fill(client: Client, server: Peer, n: int) -> None:
    """`n` idle connections."""
    streams = [client.request("GET", server.url(), stream=True) for _ in range(n)]
    for r in streams:
        r.read()
    assert client.transport.stats().idle == n


def test_all_of_several_stale_ones_are_passed_over(peer: MakePeer, client: Client) -> None:
    script = Dying("request-read", lives_from=5)
    server = peer(script)
    fill(client, server, 5)
    r = client.get(server.url(), params={"x": 1})
    assert (r.content, r.conn and r.conn.reused) == (b"answer", False)
    stats = client.transport.stats()
    assert (stats.retries, closed(stats), server.accepted, stats.requests) == (5, {"server_closed": 5}, 6, 6)


def test_the_first_that_lives_serves(peer: MakePeer, client: Client) -> None:
    # Most recently used first: connections 4, 3 and 2 die under the request, 1 lives.
    def script(conn: Conn, i: int) -> None:
        for n in range(3):
            conn.recv_request()
            if n == 1 and i >= 2:
                return
            conn.send(respond(b"answer %d" % i))

    server = peer(script)
    fill(client, server, 5)
    r = client.get(server.url())
    assert (r.content, r.conn and r.conn.reused) == (b"answer 1", True)
    stats = client.transport.stats()
    assert (stats.retries, closed(stats), server.accepted) == (3, {"server_closed": 3}, 5)


def test_dead_before_the_probe(peer: MakePeer, client: Client) -> None:
    # Closed long ago: the probe sees it, nothing is written, and it is no retry.
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(respond(b"answer"))

    server = peer(script)
    for n in range(3):
        assert client.post(server.url(), content=once()).content == b"answer"
        server.wait_closed(n)
    stats = client.transport.stats()
    assert (stats.retries, server.accepted, closed(stats)) == (0, 3, {"server_closed": 2})


def test_half_an_upload_is_begun_again_from_its_start(peer: MakePeer, client: Client) -> None:
    big = pattern(3_000_000)

    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(respond(b"warm"))
        head = conn.recv_head()
        if i == 0:
            conn.recv_exact(1_000_000)
            conn.reset()
        else:
            raise AssertionError(head)

    bodies = []

    def served(conn: Conn, i: int) -> None:
        if i == 0:
            script(conn, i)
        bodies.append(conn.recv_request()[1])
        conn.send(respond(b"answer"))

    for body in (io.BytesIO(b"skip" + big), big):
        server = peer(served)
        if isinstance(body, io.BytesIO):
            body.seek(4)
        client.get(server.url())
        r = client.request("POST", server.url(), content=body, headers={"Idempotency-Key": "1"})
        assert (r.content, bodies.pop() == big, server.accepted) == (b"answer", True, 2)


def test_a_one_shot_body_that_was_not_begun_is_sent(peer: MakePeer, client: Client) -> None:
    script = Dying("never", lives_from=0)
    server = peer(script)
    client.get(server.url())
    begun = threading.Event()

    def body() -> Iterator[bytes]:
        begun.set()
        yield b"one shot"

    with client_socket(server.conns[0].sock.getpeername()) as spoiled:
        spoiled.shutdown(1)
    assert client.post(server.url(), content=body()).content == b"answer"
    assert begun.is_set()
    assert script.bodies == [b"", b"one shot"]


@pytest.mark.parametrize("idempotent", [False, True])
def test_an_upload_that_breaks_on_a_reused_connection(peer: MakePeer, client: Client, idempotent: bool) -> None:
    script = Dying("some-body")
    server = peer(script)
    client.get(server.url())
    headers = {"Idempotency-Key": "k"} if idempotent else {}
    with pytest.raises(StaleConnectionError, match="sent twice" if idempotent else "not idempotent"):
        client.post(server.url(), headers=headers, content=(b"x" * 100_000 for _ in range(100)))
    assert closed(client.transport.stats()) == {"server_closed": 1}
    assert WriteError not in StaleConnectionError.__mro__
