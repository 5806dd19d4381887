"""Answers that nobody waits for any more: read to their end in the background, at most 256 KiB and 50 ms, so that the connection serves on."""
from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pytest

from pooledhttp import Cancelled, Client, Context, DeadlineExceeded, StreamClosed
from tests.exchange.support import adds_up, closed, until
from tests.support.ca import Authority
from tests.support.peer import Conn, Peer, answering, respond
from tests.support.pyserver import pattern

MakePeer = Callable[..., Peer]
MakeClient = Callable[..., Client]
OK = b"HTTP/1.1 200 OK\r\n"
LIMIT = 256 * 1024


class Later:
    """A script whose answer's rest (`rest`, behind `first`) is sent when `go` is set; it then serves on."""

    def __init__(self, first: bytes, rest: bytes) -> None:
        self.first, self.rest = first, rest
        self.go = threading.Event()
        self.asked = threading.Event()

    def __call__(self, conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(self.first)
        self.asked.set()
        assert self.go.wait(10)
        conn.send(self.rest)
        while True:
            conn.recv_request()
            conn.send(respond(b"next"))


def cut_short(script: Later, client: Client, server: Peer, kind: str, **options: object) -> BaseException:
    """A request that its context ends, when the answer has begun; or a stream that is left then."""
    with Context() as ctx:
        threading.Thread(target=lambda: (script.asked.wait(10), ctx.cancel("enough"))).start()
        with pytest.raises(Cancelled) as caught:
            if kind == "stream":
                with client.stream("GET", server.url(), context=ctx) as r:
                    r.read()
            else:
                client.get(server.url(), context=ctx)
    return caught.value


@pytest.mark.parametrize(("kind", "first", "rest"), [
    ("head", b"", respond(b"late")),
    ("head", b"HTTP/1.1 200", respond(b"late")[len(b"HTTP/1.1 200"):]),
    ("body", OK + b"Content-Length: 10\r\n\r\nhalf", b"andhal"),
    ("body", OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nha", b"lf\r\n0\r\n\r\n"),
    ("body", OK + b"Content-Length: 200000\r\n\r\n", pattern(200_000)),
    ("stream", OK + b"Content-Length: 10\r\n\r\nhalf", b"andhal"),
], ids=["nothing", "half a head", "length", "chunked", "large", "stream"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_cancelled_answer_that_comes_soon_keeps_its_connection(peer: MakePeer, new_client: MakeClient, ca: Authority, kind: str, first: bytes,
                                                                 rest: bytes, tls: bool) -> None:
    client = new_client(verify=str(ca.pem))
    script = Later(first, rest)
    server = peer(script, tls=ca.server() if tls else None)
    error = cut_short(script, client, server, kind)
    script.go.set()
    until(lambda: client.transport.stats().idle == 1)
    assert isinstance(error, Cancelled) and error.reason == "enough"
    assert error.phase == "headers" if kind == "head" else error.phase in ("headers", "body")
    assert client.get(server.url()).content == b"next"
    assert (server.accepted, closed(client.transport.stats())) == (1, {})


@pytest.mark.unsanitized("it has 20 ms to look before the drain ends")
@pytest.mark.parametrize(("ends", "reason"), [("cancel", "cancelled"), ("deadline", "timeout"), ("close", "drain_limit")])
def test_an_answer_that_does_not_come_ends_after_50_ms(peer: MakePeer, client: Client, ends: str, reason: str) -> None:
    script = Later(OK + b"Content-Length: 10\r\n\r\nhalf", b"")
    server = peer(script)
    if ends == "cancel":
        cut_short(script, client, server, "body")
    elif ends == "deadline":
        with pytest.raises(DeadlineExceeded) as caught:
            client.get(server.url(), context=Context(timeout=0.1))
        assert caught.value.source == "context"
    else:
        client.stream("GET", server.url()).__enter__().close()
    began = time.monotonic()
    assert client.transport.stats().active == 1
    until(lambda: closed(client.transport.stats()) == {reason: 1})
    took = time.monotonic() - began
    assert 0.02 < took < 0.25
    script.go.set()
    server.wait_closed(0)


def test_a_requests_own_deadline_closes_at_once(peer: MakePeer, client: Client) -> None:
    script = Later(OK + b"Content-Length: 10\r\n\r\nhalf", b"")
    server = peer(script)
    with pytest.raises(DeadlineExceeded) as caught:
        client.get(server.url(), timeout=0.1, context=Context(timeout=5))
    assert caught.value.source == "request"
    assert closed(client.transport.stats()) == {"timeout": 1}
    script.go.set()


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_more_than_the_limit_is_not_read(peer: MakePeer, client: Client, framing: str) -> None:
    size = 4 * LIMIT
    head = OK + (b"Content-Length: %d\r\n\r\n" % size if framing == "length" else b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size)

    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(head + bytes(size))
        conn.recv_until_closed()

    server = peer(script)
    with client.stream("GET", server.url()):
        pass
    until(lambda: closed(client.transport.stats()) == {"drain_limit": 1})
    server.wait_closed(0)


def test_who_closes_does_not_wait(peer: MakePeer, client: Client) -> None:
    """Two hundred streams that are left at once: the callers are through before the first drain's time is over."""
    go = threading.Event()

    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(OK + b"Content-Length: 10\r\n\r\nhalf")
        assert go.wait(10)
        conn.send(b"andhal")
        conn.recv_until_closed()

    server = peer(script)
    streams = [client.get(server.url(), stream=True) for _ in range(40)]
    began = time.monotonic()
    for r in streams:
        r.close()
    assert time.monotonic() - began < 0.05
    go.set()
    until(lambda: client.transport.stats().active == 0)
    adds_up(client.transport.stats())
    stats = client.transport.stats()
    assert stats.idle + stats.closed["drain_limit"] == 40
    for r in streams:
        with pytest.raises(StreamClosed):
            r.read()


def test_who_waits_gets_the_drained_connection(peer: MakePeer, new_client: MakeClient) -> None:
    client = new_client(max_conns_per_host=1)
    script = Later(OK + b"Content-Length: 10\r\n\r\nhalf", b"andhal")
    server = peer(script)
    got: list[bytes] = []
    with client.stream("GET", server.url()) as r:
        thread = threading.Thread(target=lambda: got.append(client.get(server.url()).content))
        thread.start()
        until(lambda: client.transport.stats().waiting == 1)
        script.go.set()
    thread.join()
    assert r.closed
    assert (got, server.accepted) == ([b"next"], 1)


def test_a_shutdown_ends_a_drain(peer: MakePeer, new_client: MakeClient) -> None:
    client = new_client()
    script = Later(OK + b"Content-Length: 10\r\n\r\nhalf", b"andhal")
    server = peer(script)
    client.stream("GET", server.url()).__enter__().close()
    client.transport.close(cancel=True)
    until(lambda: client.transport.stats().open == 0)
    script.go.set()
    server.wait_closed(0)


def test_a_child_leaves_the_parents_drains_alone(peer: MakePeer, client: Client) -> None:
    script = Later(OK + b"Content-Length: 10\r\n\r\nhalf", b"andhal")
    server = peer(script)
    client.stream("GET", server.url()).__enter__().close()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if client.transport.stats().open == 0 else 2
        finally:
            os._exit(status)
    script.go.set()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    until(lambda: client.transport.stats().active == 0)
    adds_up(client.transport.stats())


def test_unread_answers_of_a_server_that_says_close(peer: MakePeer, client: Client) -> None:
    """Nothing to gain: closed at once, and counted for what it was."""
    server = peer(answering(OK + b"Connection: close\r\nContent-Length: 10\r\n\r\nhalfandhal"))
    with client.stream("GET", server.url()):
        pass
    until(lambda: client.transport.stats().open == 0)
    assert sum(closed(client.transport.stats()).values()) == 1
