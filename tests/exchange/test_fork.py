"""A forked child works at once, and leaves its parent's connections alone."""
from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import pooledhttp
from pooledhttp import Client, Error, Transport
from tests.exchange.support import adds_up, closed
from tests.support.ca import Authority
from tests.support.forking import in_child
from tests.support.peer import Conn, Peer, answering, respond

MakePeer = Callable[..., Peer]
MakeClient = Callable[..., Client]
HELLO = respond(b"hello")


def echoing(conn: Conn, i: int) -> None:
    while True:
        head, _ = conn.recv_request()
        conn.send(respond(head.split(b" ")[1]))


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_works_at_once_and_the_parent_goes_on(peer: MakePeer, new_client: MakeClient, ca: Authority, secure: bool) -> None:
    server = peer(echoing, tls=ca.server() if secure else None)
    client = new_client(verify=str(ca.pem) if secure else True, max_conns_per_host=2)
    with client.stream("GET", server.url("/a")) as one, client.stream("GET", server.url("/b")) as two:
        assert (one.read(), two.read()) == (b"/a", b"/b")
    assert client.transport.stats().idle == 2
    before = [bytes(conn.received) for conn in server.conns]

    def child() -> None:
        stats = client.transport.stats()
        assert (stats.open, closed(stats)) == (0, {"forked": 2}), stats
        for n in range(3):
            r = client.get(server.url(f"/child{n}"))
            assert r.conn is not None
            assert (r.content, r.conn.reused) == (b"/child%d" % n, n > 0)
        assert [r.content for r in client.map([server.url(f"/m{n}") for n in range(20)], workers=4)] == [b"/m%d" % n for n in range(20)]
        adds_up(client.transport.stats())
        client.transport.close()

    in_child(child)
    # Not a byte on the parent's connections: no request, no goodbye.
    assert [bytes(conn.received) for conn in server.conns[:2]] == before
    assert not any(conn.closed.is_set() for conn in server.conns[:2])
    assert server.accepted in (3, 4)
    stats = client.transport.stats()
    assert (stats.idle, closed(stats)) == (2, {})
    for n in range(4):
        r = client.get(server.url(f"/parent{n}"))
        assert r.conn is not None
        assert (r.content, r.conn.reused) == (b"/parent%d" % n, True)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_in_the_middle_of_everything(peer: MakePeer, new_client: MakeClient) -> None:
    """Other threads are in requests, waits and streams when this one forks; none of that is the child's."""
    go_on = threading.Event()

    def script(conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            if b"/slow" in head:
                go_on.wait(10)
            conn.send(respond(b"x" * 1_000_000 if b"/stream" in head else b"fine"))

    server = peer(script)
    client = new_client(max_conns_per_host=3)
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(client.get(server.url("/slow")).content)) for _ in range(3)]
    with client.stream("GET", server.url("/stream")) as r:
        assert r.read(10) == b"x" * 10
        for t in threads:
            t.start()
        server.wait_for(lambda p: sum(b"/slow" in c.received for c in p.conns) == 2)

        def child() -> None:
            stats = client.transport.stats()
            assert (stats.open, stats.active, stats.waiting, stats.dialing) == (0, 0, 0, 0), stats
            for _ in range(3):
                assert client.get(server.url("/fast")).content == b"fine"
            # The parent's stream is not ours to read.
            try:
                r.read(10_000_000)
            except Error:
                pass
            else:
                raise AssertionError("the parent's body was read")
            r.close()
            adds_up(client.transport.stats())

        in_child(child)
        assert len(r.read()) == 1_000_000 - 10
    go_on.set()
    for t in threads:
        t.join(10)
    assert answers == [b"fine"] * 3
    assert closed(client.transport.stats()) == {}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_default_client_of_a_child_is_a_fresh_one(peer: MakePeer) -> None:
    server = peer(answering(HELLO))
    assert pooledhttp.get(server.url()).content == b"hello"
    parents = pooledhttp.default_client()

    def child() -> None:
        assert pooledhttp.get(server.url()).content == b"hello"
        assert pooledhttp.default_client() is not parents
        assert Transport().stats().open == 0

    in_child(child)
    assert server.accepted == 2
    assert pooledhttp.get(server.url()).conn.reused
    assert pooledhttp.default_client() is parents


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_grandchild_and_the_janitor(peer: MakePeer, new_client: MakeClient) -> None:
    server = peer(answering(HELLO))
    client = new_client(idle_conn_timeout=0.3)
    client.get(server.url())

    def child() -> None:
        client.get(server.url())

        def grandchild() -> None:
            client.get(server.url())
            ended = threading.Event()
            # The child's janitor is not here; another one is started where something idles.
            for _ in range(2000):
                if client.transport.stats().open == 0:
                    return
                ended.wait(0.001)
            raise AssertionError(str(client.transport.stats()))

        in_child(grandchild)
        assert client.transport.stats().idle <= 1

    in_child(child)
    assert server.accepted == 3
