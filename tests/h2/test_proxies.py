"""HTTP/2 behind proxies: inside what they tunnel, and not to the one that forwards."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pooledhttp import Client
from tests.support.ca import Authority
from tests.support.frames import Frames
from tests.support.peer import Conn, Peer, respond
from tests.support.proxy import ScriptedProxy

MakePeer = Callable[..., Peer]
MakeClient = Callable[..., Client]
BODY = bytes(range(256)) * 4096


def two_kinds(conn: Conn, i: int) -> None:
    h2 = Frames(conn)
    while True:
        stream, fields, body = h2.request()
        h2.answer(stream, BODY if fields[":path"] == "/large" else body or b"small", fields=[("x-scheme", fields[":scheme"])])


@pytest.mark.parametrize("kind", ["http", "https", "socks5"])
def test_inside_a_tunnel(peer: MakePeer, new_client: MakeClient, ca: Authority, kind: str) -> None:
    """By ALPN; over a proxy's own TLS its records hold whole ones of the origin's, which no poll shows."""
    context = ca.new_server("127.0.0.1")
    context.set_alpn_protocols(["h2", "http/1.1"])
    server = peer(two_kinds, tls=context)
    with ScriptedProxy(socks=kind == "socks5", tls=ca.new_server("127.0.0.1") if kind == "https" else None) as proxy:
        client = new_client(proxy=f"{kind}://127.0.0.1:{proxy.port}", verify=str(ca.pem))
        for _ in range(10):
            r = client.get(server.url("/large"))
            assert (r.http_version, r.headers["x-scheme"], r.content == BODY) == ("HTTP/2", "https", True)
            assert client.post(server.url("/"), content=BODY[:1000]).content == BODY[:1000]
        stats = client.transport.stats()
        assert (stats.opened, len(proxy.asked), server.accepted) == (1, 1, 1)


def test_prior_knowledge_is_of_the_origin(peer: MakePeer, h2c: MakeClient) -> None:
    """What forwards a request in the clear is asked by HTTP/1.1; through SOCKS the origin itself is spoken to."""
    heads: list[bytes] = []

    def forwards(conn: Conn, i: int) -> None:
        heads.append(conn.recv_request()[0])
        conn.send(respond(b"forwarded"))

    r = h2c(proxy=peer(forwards).url("")).get("http://name.test/x")
    assert (r.http_version, r.content, heads[0].split(b"\r\n")[0]) == ("HTTP/1.1", b"forwarded", b"GET http://name.test/x HTTP/1.1")
    server = peer(two_kinds)
    with ScriptedProxy(socks=True) as proxy:
        r = h2c(proxy=f"socks5://127.0.0.1:{proxy.port}").get(server.url("/"))
        assert (r.http_version, r.headers["x-scheme"], r.content) == ("HTTP/2", "http", b"small")


@pytest.mark.parametrize("status, phrase", [(200, "OK"), (404, "Not Found"), (299, "")])
def test_the_phrase_of_a_status(peer: MakePeer, h2c: MakeClient, status: int, phrase: str) -> None:
    """HTTP/2 sends none: the registered one is told, as in messages."""

    def script(conn: Conn, i: int) -> None:
        h2 = Frames(conn)
        h2.answer(h2.request()[0], b"x", status)
        h2.drain()

    r: Any = h2c().get(peer(script).url("/"))
    assert (r.status_code, r.reason, r.reason_phrase) == (status, phrase, phrase)
