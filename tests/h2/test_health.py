"""GOAWAY, refusals, PING, cold starts: how HTTP/2 connections begin and end, and what becomes of the requests on them."""
from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pooledhttp import Client, errors
from tests.exchange.support import closed, until
from tests.support.ca import Authority
from tests.support.frames import (
    ENHANCE_YOUR_CALM,
    GOAWAY,
    HTTP_1_1_REQUIRED,
    PING,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    Frames,
)
from tests.support.peer import Conn, Peer, respond

MakePeer = Callable[..., Peer]
MakeClient = Callable[..., Client]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_goaway_lets_go_on_what_it_names(peer: MakePeer, h2c: MakeClient, method: str) -> None:
    """Streams up to the last one are answered; those above were not processed, and are sent again on another connection whatever their method."""

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        if i == 0:
            h2.answer(h2.request()[0], b"0")
            a, b = h2.requests(2)
            h2.goaway(min(a, b))
            h2.answer(min(a, b), b"old")
            h2.drain()
        while True:
            h2.answer(h2.request()[0], b"new")

    server = peer(script)
    client = h2c()
    assert client.get(server.url("/")).content == b"0"
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(client.request, method, server.url("/"), content=b"x" if method == "POST" else None) for _ in range(2)]
        assert sorted(a.result().content for a in answers) == [b"new", b"old"]
    stats = client.transport.stats()
    assert (stats.opened, stats.retries, closed(stats)) == (2, 1, {"server_closed": 1})


def test_goaway_while_idle(peer: MakePeer, h2c: MakeClient) -> None:
    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        h2.answer(h2.request()[0], b"%d" % i)
        if i == 0:
            h2.goaway(1)
        h2.drain()

    server = peer(script)
    client = h2c()
    assert client.post(server.url("/"), content=b"x").content == b"0"
    server.wait_closed(0)                   # the janitor, or the next request, sees to it
    assert client.post(server.url("/"), content=b"x").content == b"1"
    assert closed(client.transport.stats()) == {"server_closed": 1}


def test_the_connection_ends_with_streams_under_way(peer: MakePeer, h2c: MakeClient) -> None:
    """What may be sent again is, on a new connection; what may not, fails."""

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        if i == 0:
            h2.answer(h2.request()[0])
            h2.requests(2)
            return
        while True:
            h2.answer(h2.request()[0], b"again")

    server = peer(script)
    client = h2c()
    client.get(server.url("/"))
    with ThreadPoolExecutor(2) as pool:
        get = pool.submit(client.get, server.url("/"))
        post = pool.submit(client.post, server.url("/"), content=b"x")
        assert get.result().content == b"again"
        with pytest.raises(errors.StaleConnectionError, match="not idempotent"):
            post.result()
    assert client.transport.stats().opened == 2


def test_a_body_that_the_connections_end_cuts(peer: MakePeer, h2c: MakeClient) -> None:
    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        stream = h2.request()[0]
        h2.headers(stream, [(":status", "200")])
        h2.data(stream, b"half")
        conn.shutdown_write()
        h2.drain()

    client = h2c()
    for stream in (False, True):
        with pytest.raises(errors.RemoteProtocolError, match="cut short"), client.stream("GET", peer(script).url("/")) as r:
            r.read()
        if not stream:
            with pytest.raises(errors.RemoteProtocolError, match="cut short"):
                client.get(peer(script).url("/"))


def test_refused_streams_are_sent_again(peer: MakePeer, h2c: MakeClient) -> None:
    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        for _ in range(3):
            h2.reset(h2.request()[0], REFUSED_STREAM)
        stream, _, body = h2.request()
        h2.answer(stream, body)
        while True:
            h2.reset(h2.request()[0], REFUSED_STREAM)

    server = peer(script)
    client = h2c()
    assert client.post(server.url("/"), content=b"body").content == b"body"
    with pytest.raises(errors.RemoteProtocolError, match="did not process"):
        client.post(server.url("/"), content=b"body")
    stats = client.transport.stats()
    assert (stats.opened, stats.retries) == (1, 7)


def test_enhance_your_calm(peer: MakePeer, h2c: MakeClient) -> None:
    """That connection gets nothing more."""

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        h2.answer(h2.request()[0], b"%d" % i)
        if i == 0:
            h2.request()
            h2.goaway(1, ENHANCE_YOUR_CALM)
        h2.drain()

    server = peer(script)
    client = h2c()
    assert client.get(server.url("/")).content == b"0"
    assert client.post(server.url("/"), content=b"x").content == b"1"
    until(lambda: client.transport.stats().open == 1)


@pytest.mark.parametrize("by", ["RST_STREAM", "GOAWAY"])
def test_http_1_1_required(peer: MakePeer, new_client: MakeClient, ca: Authority, by: str) -> None:
    """Once, and remembered."""
    context = ca.new_server("127.0.0.1")
    context.set_alpn_protocols(["h2", "http/1.1"])
    spoken = []

    def script(conn: Conn, i: int) -> None:
        spoken.append(conn.sock.selected_alpn_protocol())           # type: ignore[union-attr]
        if spoken[-1] == "h2":
            h2 = Frames(conn)
            if by == "GOAWAY":
                h2.request()
                h2.goaway(0, HTTP_1_1_REQUIRED)
            else:
                h2.reset(h2.request()[0], HTTP_1_1_REQUIRED)
            h2.drain()
            return
        while True:
            conn.recv_request()
            conn.send(respond(b"by 1.1"))

    server = peer(script, tls=context)
    client = new_client(verify=str(ca.pem))
    for _ in range(3):
        r = client.post(f"https://127.0.0.1:{server.port}/", content=b"x")
        assert (r.content, r.http_version) == (b"by 1.1", "HTTP/1.1")
    client.transport.close_idle_connections()
    assert client.get(f"https://127.0.0.1:{server.port}/").http_version == "HTTP/1.1"
    assert spoken[0] == "h2" and set(spoken[1:]) == {"http/1.1"}


def test_http_1_1_required_where_http2_was_known(peer: MakePeer, h2c: MakeClient) -> None:
    begun: list[bytes] = []

    def script(conn: Conn, i: int) -> None:
        if i == 0:
            h2 = Frames(conn)
            h2.reset(h2.request()[0], HTTP_1_1_REQUIRED)
            h2.drain()
            return
        while True:
            begun.append(conn.recv_request()[0][:6])
            conn.send(respond(b"by 1.1"))

    server, client = peer(script), h2c()
    for _ in range(2):
        r = client.post(server.url("/"), content=b"x")
        assert (r.content, r.http_version) == (b"by 1.1", "HTTP/1.1")
    assert begun == [b"POST /"] * 2


def test_alpn_picks(peer: MakePeer, new_client: MakeClient, ca: Authority) -> None:
    offered = ca.new_server("127.0.0.1")
    offered.set_alpn_protocols(["h2"])

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        while True:
            stream, fields, _ = h2.request()
            h2.answer(stream, fields[":scheme"].encode())

    server = peer(script, tls=offered)
    r = new_client(verify=str(ca.pem)).get(f"https://127.0.0.1:{server.port}/")
    assert r.conn is not None
    assert (r.http_version, r.content, r.conn.alpn) == ("HTTP/2", b"https", "h2")
    for options in ({"http2": False}, {"disable_keep_alives": True}):
        plain = peer(lambda conn, i: (conn.recv_request(), conn.send(respond(b"1.1"))), tls=ca.server("127.0.0.1"))
        r = new_client(verify=str(ca.pem), **options).get(f"https://127.0.0.1:{plain.port}/")
        assert (r.http_version, r.conn is not None and r.conn.alpn) in (("HTTP/1.1", None), ("HTTP/1.1", "http/1.1"))


def test_pings_keep_watch(peer: MakePeer, h2c: MakeClient) -> None:
    """With streams open and nothing read, a PING; unanswered, the connection ends and what may be sent again is."""

    class Deaf(Frames):
        def pinged(self, payload: bytes) -> None:
            pings.append(payload)

    pings: list[bytes] = []

    def script(conn: Conn, i: int) -> None:
        if i == 0:
            h2 = Deaf(conn)
            h2.answer(h2.request()[0], b"0")
            h2.drain()
            return
        answered = Frames(conn)
        stream = answered.request()[0]
        answered.until(PING)
        answered.until(PING)
        answered.answer(stream, b"late")
        answered.drain()

    server = peer(script)
    client = h2c(http2_ping_interval=0.1, http2_ping_timeout=0.1)
    with ThreadPoolExecutor(1) as pool:           # the main thread wakes more often, for its signals' sake
        assert pool.submit(client.get, server.url("/")).result().content == b"0"
        assert pool.submit(client.get, server.url("/")).result().content == b"late"
    assert len(pings) == 1
    assert client.transport.stats().opened == 2
    with pytest.raises(errors.RemoteProtocolError, match="PING"):
        deaf = peer(lambda conn, i: Deaf(conn).drain())
        client.post(deaf.url("/"), content=b"x")


def test_an_idle_connection_answers(peer: MakePeer, h2c: MakeClient) -> None:
    """PING and SETTINGS, by the janitor."""
    acked = threading.Event()

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        h2.answer(h2.request()[0])
        h2.ping()
        h2.until(PING)
        acked.set()
        h2.answer(h2.request()[0], b"still")
        h2.drain()

    server = peer(script)
    client = h2c()
    client.get(server.url("/"))
    assert acked.wait(5)
    assert client.get(server.url("/")).content == b"still"
    assert client.transport.stats().opened == 1


def test_a_spike_opens_few_connections(new_client: MakeClient, peer: MakePeer, ca: Authority) -> None:
    """100 threads at once to a host that nobody knows: those that began to dial before the first connection was there.
    Where HTTP/2 is known of the host: one."""
    context = ca.new_server("127.0.0.1")
    context.set_alpn_protocols(["h2", "http/1.1"])

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn, [(3, 250)])
        while True:
            h2.answer(h2.request()[0], b"fine")

    server = peer(script, tls=context)
    client = new_client(verify=str(ca.pem), http2_max_conns_per_host=4)
    url = f"https://127.0.0.1:{server.port}/"

    def spike() -> None:
        barrier = threading.Barrier(100)

        def one(_: int) -> bytes:
            barrier.wait()
            return client.get(url).content

        with ThreadPoolExecutor(100) as pool:
            assert set(pool.map(one, range(100))) == {b"fine"}

    spike()
    first = client.transport.stats().opened
    client.transport.close_idle_connections()
    spike()
    again = client.transport.stats().opened - first
    print(f"connections opened at a spike of 100 threads: {first} where the host is new, {again} where it is known")
    assert first < 100 and again <= 2


def test_lifetime_and_idle_timeout_hold(peer: MakePeer, h2c: MakeClient) -> None:
    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        while True:
            h2.answer(h2.request()[0])

    server = peer(script)
    client = h2c(idle_conn_timeout=0.1)
    client.get(server.url("/"))
    until(lambda: closed(client.transport.stats()) == {"idle_timeout": 1})
    brief = h2c(max_conn_lifetime=0.05)
    brief.get(server.url("/"))
    until(lambda: closed(brief.transport.stats()) == {"lifetime": 1})


def test_a_connection_that_we_close_says_so(peer: MakePeer, h2c: MakeClient) -> None:
    """RFC 9113 section 6.8; and answers that are kept hold nothing of it."""
    said: list[bytes] = []

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        h2.answer(h2.request()[0], b"kept")
        said.append(h2.until(GOAWAY)[3])
        h2.drain()

    server = peer(script)
    client = h2c()
    kept = client.get(server.url("/"))
    descriptors = len(os.listdir("/proc/self/fd"))
    client.transport.close_idle_connections()
    server.wait_closed(0)
    assert said == [bytes(8)]
    until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors - 3, "both sockets' and the wake descriptor's end")
    assert kept.content == b"kept"


def test_a_protocol_error_of_the_connection_is_for_who_is_fresh(peer: MakePeer, h2c: MakeClient) -> None:
    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        h2.request()
        h2.goaway(0, PROTOCOL_ERROR)
        h2.drain()

    client = h2c(retry_stale=False)
    with pytest.raises(errors.RemoteProtocolError):
        client.get(peer(script).url("/"))
