"""Forks with HTTP/2 streams under way: the child lets them be, works at once, and the parent goes on."""
from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from pooledhttp import Client, Error
from tests.support.forking import busily, in_child
from tests.support.frames import Frames
from tests.support.peer import Conn, Peer

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def script(conn: Conn, i: int) -> None:
    h2 = Frames(conn)
    while True:
        stream, fields, _ = h2.request()
        h2.headers(stream, [(":status", "200")])
        h2.data(stream, b"x" * 50_000, end=fields[":path"] != "/open")


def test_threads_at_work(peer: Callable[..., Peer], h2c: Callable[..., Client]) -> None:
    server = peer(script)
    client = h2c()

    def work(n: int, stop: threading.Event) -> None:
        while not stop.is_set():
            assert len(client.get(server.url("/")).content) == 50_000
            with client.stream("GET", server.url("/")) as r:
                next(r.iter_bytes(10))

    left = client.request("GET", server.url("/open"), stream=True)

    def child() -> None:
        with pytest.raises(Error):
            left.read()
        left.close()
        for _ in range(2):
            r = client.get(server.url("/"))
            assert (len(r.content), r.http_version) == (50_000, "HTTP/2")
        assert client.transport.stats().open == 1
        client.transport.close(cancel=True)

    with busily(4, work):
        for _ in range(15):
            in_child(child)
    left.close()


def test_not_a_byte_on_the_parents_connection(peer: Callable[..., Peer], h2c: Callable[..., Client]) -> None:
    server = peer(script)
    client = h2c()
    left = client.request("GET", server.url("/open"), stream=True)
    other = client.request("GET", server.url("/open"), stream=True)
    assert len(next(left.iter_bytes(50_000))) > 0
    # Two frames that the client owes by now may still be on their way.
    client.get(server.url("/"))
    server.wait_for(lambda p: len(p.conns[0].received) > 0)

    def child() -> None:
        nonlocal other
        left.close()
        del other
        client.transport.close_idle_connections()
        assert len(client.get(server.url("/")).content) == 50_000

    before = bytes(server.conns[0].received)
    for _ in range(3):
        in_child(child)
    assert bytes(server.conns[0].received) == before
    left.close()
    other.close()
    assert len(client.get(server.url("/")).content) == 50_000
    assert client.transport.stats().opened == 1


def test_a_connection_of_the_parents_that_nobody_knows_the_room_of(peer: Callable[..., Peer], h2c: Callable[..., Client]) -> None:
    """Its server did not say yet how many streams it takes, for which all others wait: the child waits for nothing of the parent's."""

    def late(conn: Conn, i: int) -> None:
        if i == 0:
            conn.recv_until_closed()
        else:
            script(conn, i)

    server = peer(late)
    client = h2c()
    waiting = threading.Thread(target=lambda: pytest.raises(Error, client.get, server.url("/"), timeout=3.0))
    waiting.start()
    server.wait_for(lambda p: p.conns and p.conns[0].received)

    def child() -> None:
        assert len(client.get(server.url("/"), timeout=2.0).content) == 50_000

    in_child(child)
    client.transport.close(cancel=True)
    waiting.join()
