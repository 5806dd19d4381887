"""httpx over our transport: what goes out and what comes back is as httpx has it."""
from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import pooledhttp
from pooledhttp import Client, MockTransport, Response, Transport
from pooledhttp.adapters.httpx import PooledTransport
from tests.support.ca import Authority
from tests.support.peer import Conn, Peer, answering, chunked, free_ports, respond
from tests.support.pyserver import PyServer, pattern

MakePeer = Callable[..., Peer]


def test_connections_are_kept(client: httpx.Client, transport: PooledTransport, pyserver: PyServer) -> None:
    for _ in range(3):
        r = client.get(pyserver.url("/x?a=1"), headers={"X-Token": "t"})
        assert (r.status_code, r.reason_phrase, r.http_version, r.json()["target"], r.headers["x-token"]) == (200, "OK", "HTTP/1.1", "/x?a=1", "t")
    stats = transport.transport.stats()
    assert (stats.dials, stats.reuses, stats.idle) == (1, 2, 1)
    stream = r.extensions["network_stream"]
    assert stream.get_extra_info("server_addr") == ("127.0.0.1", pyserver.port)
    assert stream.get_extra_info("client_addr") == tuple(r.json()["client"])
    assert stream.get_extra_info("ssl_object") is None
    assert stream.conn.reused


def test_threads_share_it(client: httpx.Client, transport: PooledTransport, pyserver: PyServer) -> None:
    wrong: list[str] = []

    def work(k: int) -> None:
        for i in range(10):
            if client.get(pyserver.url("/"), headers={"X-Token": f"{k}-{i}"}).json()["token"] != f"{k}-{i}":
                wrong.append(f"{k}-{i}")

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = transport.transport.stats()
    assert (wrong, stats.requests, stats.active) == ([], 80, 0)
    assert stats.reuses >= 60


def test_the_head_both_ways(client: httpx.Client, peer: MakePeer) -> None:
    def script(conn: Conn, i: int) -> None:
        heads.append(conn.recv_request()[0])
        conn.send(respond(b"", 299, [("X-One", "1"), ("x-two", "a"), ("X-Two", "b\xe9")], reason="Fine"))

    heads: list[bytes] = []
    server = peer(script)
    client.headers.clear()
    r = client.get(server.url("/a%2Fb/../?q=%7e"), headers=[(b"X-B", b"1"), (b"x-b", b"2"), (b"C", b"\xe9")], extensions={"target": b"/other"})
    assert heads[0] == b"GET /other HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-B: 1\r\nx-b: 2\r\nC: \xe9\r\n\r\n" % server.port
    assert (r.status_code, r.reason_phrase) == (299, "Fine")
    assert r.headers.raw == [(b"X-One", b"1"), (b"x-two", b"a"), (b"X-Two", b"b\xe9"), (b"Content-Length", b"0")]


def test_cookies_and_redirects(client: httpx.Client, peer: MakePeer) -> None:
    server = peer(answering(respond(b"moved", 302, [("Location", "/next"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]), respond(b"here")))
    r = client.post(server.url(), data={"x": "y"}, follow_redirects=True)
    assert (r.text, [h.status_code for h in r.history], server.accepted) == ("here", [302], 1)
    assert dict(client.cookies) == {"a": "1", "b": "2"}
    assert b"\r\nCookie: a=1; b=2\r\n" in bytes(server.conns[0].received)


def generator() -> Iterator[bytes]:
    yield b"a"
    yield b"bc"


@pytest.mark.parametrize(("options", "length", "framing"), [
    ({"content": b"bytes"}, 5, "5"),
    ({"content": "t\xe9xt"}, 5, "5"),
    ({"content": generator()}, 3, "chunked"),
    ({"content": generator(), "headers": {"Content-Length": "3"}}, 3, "3"),
    ({"json": {"a": 1}}, 7, "7"),
    ({}, 0, "0"),
], ids=repr)
def test_bodies_out(client: httpx.Client, pyserver: PyServer, options: dict[str, Any], length: int, framing: str) -> None:
    seen = client.post(pyserver.url("/"), **options).json()
    framed = {name.lower(): value for name, value in seen["headers"]}
    assert (seen["length"], framed.get("content-length", "chunked")) == (length, framing)
    assert framed.get("transfer-encoding") == ("chunked" if framing == "chunked" else None)


def test_files_out(client: httpx.Client, pyserver: PyServer, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(pattern(200_000))
    with path.open("rb") as file:
        assert client.put(pyserver.url("/"), content=file).json()["length"] == 200_000
    with path.open("rb") as file:
        assert client.post(pyserver.url("/"), files={"f": file}).json()["length"] > 200_000


def test_bodies_in(client: httpx.Client, transport: PooledTransport, pyserver: PyServer, peer: MakePeer) -> None:
    assert client.get(pyserver.url("/bytes/100000")).content == pattern(100_000)
    assert client.get(pyserver.url("/chunked/100000")).content == pattern(100_000)
    with client.stream("GET", pyserver.url("/bytes/100000")) as r:
        assert b"".join(r.iter_bytes(3000)) == pattern(100_000)
    with client.stream("GET", pyserver.url("/bytes/10000000")) as r:
        assert next(r.iter_raw(10)) == pattern(10)
    packed = gzip.compress(b"text")
    server = peer(answering(respond(packed, headers={"Content-Encoding": "gzip"}),
                            respond(headers={"Content-Encoding": "gzip", "Transfer-Encoding": "chunked"}, length=False) + chunked(packed)))
    with client.stream("GET", server.url()) as r:
        assert b"".join(r.iter_raw()) == packed
    assert client.get(server.url()).content == b"text"
    assert client.head(pyserver.url("/bytes/10")).headers["content-length"] == "10"
    assert transport.transport.stats().active == 0


def test_a_body_as_it_arrives(client: httpx.Client, peer: MakePeer) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(respond(headers={"Transfer-Encoding": "chunked"}, length=False))
        for line in (b"one\n", b"two\n"):
            conn.send(chunked(line)[:-5])
            got.acquire()
        conn.send(b"0\r\n\r\n")

    got = threading.Semaphore(0)
    server = peer(script)
    with client.stream("GET", server.url()) as r:
        for i, line in enumerate(r.iter_lines()):
            assert line == ("one", "two")[i]
            got.release()
    assert i == 1


# --- errors -----------------------------------------------------------------------------------------------------------------


def stalling(conn: Conn, i: int) -> None:
    conn.recv_request()
    conn.stall()


def answer(data: bytes) -> Callable[[Conn, int], None]:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(data)

    return script


@pytest.mark.parametrize(("data", "error"), [
    (b"", httpx.RemoteProtocolError),
    (b"HTTP/1.1 200", httpx.RemoteProtocolError),
    (b"no HTTP\r\n\r\n", httpx.RemoteProtocolError),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", httpx.RemoteProtocolError),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", httpx.RemoteProtocolError),
    (respond(b"no gzip", headers={"Content-Encoding": "gzip"}), httpx.DecodingError),
], ids=["nothing", "half a head", "no head", "short", "bad chunk", "no gzip"])
def test_what_servers_do_wrong(client: httpx.Client, transport: PooledTransport, peer: MakePeer, data: bytes, error: type[Exception]) -> None:
    server = peer(answer(data))
    with pytest.raises(httpx.RequestError) as caught:
        client.get(server.url())
    assert type(caught.value) is error
    assert caught.value.request.url == server.url()
    assert transport.transport.stats().active == 0


def test_a_reset(client: httpx.Client, peer: MakePeer) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.reset()

    server = peer(script)
    with pytest.raises(httpx.ReadError):
        client.get(server.url())


def test_timeouts(client: httpx.Client, transport: PooledTransport, peer: MakePeer) -> None:
    server = peer(stalling)
    with pytest.raises(httpx.ReadTimeout):
        client.get(server.url(), timeout=httpx.Timeout(5, read=0.1))
    with pytest.raises(httpx.WriteTimeout):
        client.post(peer(lambda conn, i: conn.stall()).url(), content=b"x" * 30_000_000, timeout=httpx.Timeout(5, write=0.1))
    with pytest.raises(httpx.ConnectTimeout):
        client.get(f"https://127.0.0.1:{server.port}", timeout=httpx.Timeout(5, connect=0.1))

    def half(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        conn.stall()

    with pytest.raises(httpx.ReadTimeout):
        client.get(peer(half).url(), timeout=httpx.Timeout(5, read=0.1))
    assert transport.transport.stats().active == 0


def test_a_full_pool(peer: MakePeer, pyserver: PyServer) -> None:
    with httpx.Client(transport=PooledTransport(limits=httpx.Limits(max_connections=1)), timeout=httpx.Timeout(5, pool=0.1)) as client, \
            client.stream("GET", pyserver.url("/bytes/10")), pytest.raises(httpx.PoolTimeout, match="body left unread"):
        client.get(pyserver.url("/"))


def test_what_callers_do_wrong(client: httpx.Client, transport: PooledTransport) -> None:
    with pytest.raises(httpx.UnsupportedProtocol):
        client.get("ftp://a.example/")
    with pytest.raises(httpx.LocalProtocolError):
        client.get("http://127.0.0.1:9/", headers={"X-A": "a\nb: c"})
    with pytest.raises(httpx.LocalProtocolError):
        client.post("http://127.0.0.1:9/", content=b"both", headers={"Transfer-Encoding": "chunked", "Content-Length": "4"})
    assert transport.transport.stats().dials == 0


def test_connects_are_tried_again(peer: MakePeer) -> None:
    [port] = free_ports(1)
    tried: list[int] = []
    late: list[Peer] = []

    def resolver(host: str, at: int) -> list[tuple[int, Any]]:
        tried.append(at)
        if len(tried) == 2:
            late.append(peer(answering(respond(b"there")), port=port))
        return [(2, ("127.0.0.1", port))]

    with httpx.Client(transport=PooledTransport(retries=1, resolver=resolver, dns_cache_ttl=0)) as client:
        assert client.get("http://late.example/").text == "there"
    assert len(tried) == 2
    with httpx.Client(transport=PooledTransport()) as client, pytest.raises(httpx.ConnectError):
        client.get(f"http://127.0.0.1:{free_ports(1)[0]}/")


def test_what_a_body_raises(client: httpx.Client, pyserver: PyServer) -> None:
    def body() -> Iterator[bytes]:
        yield b"x"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        client.post(pyserver.url("/"), content=body())


# --- what the transport is made of ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "options"), [
    ({}, {}),
    ({"limits": httpx.Limits()}, {"idle_conn_timeout": 5.0, "max_idle_conns": 0, "max_idle_conns_per_host": 0}),
    ({"limits": httpx.Limits(max_connections=7, max_keepalive_connections=3, keepalive_expiry=None)},
     {"idle_conn_timeout": None, "max_conns_per_host": 7, "max_idle_conns": 3, "max_idle_conns_per_host": 3}),
    ({"limits": httpx.Limits(max_keepalive_connections=0)}, {"idle_conn_timeout": None, "disable_keep_alives": True}),
    ({"verify": False, "local_address": "127.0.0.1", "max_idle_conns": 9}, {"verify": False, "local_address": "127.0.0.1", "max_idle_conns": 9}),
], ids=repr)
def test_options(given: dict[str, Any], options: dict[str, Any]) -> None:
    assert PooledTransport(**given).transport.options == {"proxy": None, "http2": False, **options}


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="max_connections"):
        PooledTransport(limits=httpx.Limits(max_connections=0))
    with pytest.raises(ValueError, match="http1"):
        PooledTransport(http1=False)
    with pytest.raises(TypeError, match="exclude"):
        PooledTransport(transport=Transport(), verify=False)
    with pytest.raises(TypeError, match="nonsense"):
        PooledTransport(nonsense=1)


def test_tls(tls_pyserver: PyServer, ca: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    url = tls_pyserver.url("/")
    with httpx.Client(transport=PooledTransport(verify=str(ca.pem))) as client:
        assert client.get(url).json()["method"] == "GET"
        with pytest.raises(httpx.ConnectError, match="certificate"):
            client.get(url, extensions={"sni_hostname": "other.example"})
        assert client.get(url, extensions={"sni_hostname": b"localhost"}).status_code == 200
    with httpx.Client(transport=PooledTransport(verify=ca.client())) as client:
        assert client.get(url).status_code == 200
    with httpx.Client(transport=PooledTransport()) as client, pytest.raises(httpx.ConnectError, match="certificate"):
        client.get(url)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.pem))
    with httpx.Client(transport=PooledTransport()) as client:
        assert client.get(url).status_code == 200
    with httpx.Client(transport=PooledTransport(trust_env=False)) as client, pytest.raises(httpx.ConnectError):
        client.get(url)
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca.pem))
    with httpx.Client(transport=PooledTransport()) as client, pytest.raises(httpx.ConnectError):
        client.get(url)


def test_unix_sockets(peer: MakePeer, tmp_path: Path) -> None:
    peer(answering(respond(b"local")), uds=tmp_path / "s")
    with httpx.Client(transport=PooledTransport(uds=str(tmp_path / "s"))) as client:
        r = client.get("http://name.example/")
        assert (r.text, r.extensions["network_stream"].get_extra_info("server_addr")) == ("local", str(tmp_path / "s"))


def test_it_closes_its_own_transport(pyserver: PyServer) -> None:
    transport = PooledTransport()
    with httpx.Client(transport=transport) as client:
        client.get(pyserver.url("/"))
        ours = transport.transport
    assert ours.closed
    assert ours.stats().open == 0


@pytest.mark.parametrize("kind", ["transport", "client"])
def test_a_given_transport_stays_open(kind: str, pyserver: PyServer) -> None:
    with Transport() as given:
        with httpx.Client(transport=PooledTransport(transport=given if kind == "transport" else Client(transport=given))) as client:
            client.get(pyserver.url("/"))
        assert (given.closed, given.stats().requests) == (False, 1)


def test_over_a_mock() -> None:
    def handler(request: pooledhttp.Request) -> Response:
        return Response(201, headers={"X-Method": request.method}, content=request.content)

    with httpx.Client(transport=PooledTransport(transport=MockTransport(handler))) as client:
        r = client.post("https://api.example/x", content=iter([b"a", b"b"]))
    assert (r.status_code, r.content, r.headers["x-method"], r.extensions["network_stream"].get_extra_info("server_addr")) == (201, b"ab", "POST", None)
