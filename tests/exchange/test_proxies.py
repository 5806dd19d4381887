"""Requests through proxies that are scripts: what each is asked, what its failures are, and that pools do not mix."""
from __future__ import annotations

import errno
import gc
import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import pooledhttp
from pooledhttp import (
    Cancelled,
    CertificateError,
    Client,
    ConnectError,
    ConnectTimeout,
    DeadlineExceeded,
    DNSError,
    ProxyError,
    Timeout,
    TLSError,
    TLSHandshakeTimeout,
    Transport,
)
from pooledhttp._net import proxy as known
from pooledhttp.transport import Canceller
from tests.exchange.conftest import MakeClient, MakePeer
from tests.exchange.support import adds_up, closed, until
from tests.support.ca import Authority
from tests.support.peer import Conn, FullBacklog, Peer, answering, free_ports, header, respond
from tests.support.proxy import OK, ScriptedProxy, connected, relay
from tests.support.stalled_proxies import STALLS, Stalled

HELLO = respond(b"hello")


@pytest.fixture
def secure(peer: MakePeer, ca: Authority) -> Peer:
    return peer(answering(HELLO), tls=ca.server())


@pytest.fixture
def plain(peer: MakePeer) -> Peer:
    return peer(answering(HELLO))


def head(peer: Peer, i: int = 0) -> bytes:
    return bytes(peer.conns[i].received)


# -- each way --

@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
def test_each_way(scheme: str, plain: Peer, secure: Peer, ca: Authority, new_client: MakeClient) -> None:
    with ScriptedProxy(socks=scheme.startswith("socks"), tls=ca.server() if scheme == "https" else None) as proxy:
        client = new_client(proxy=proxy.proxy(scheme), verify=str(ca.pem))
        for origin in (plain, secure):
            for n in range(3):
                r = client.get(origin.url("/x?y"))
                assert r.content == b"hello"
                assert r.conn.reused is (n > 0)
                assert r.conn.remote_addr == ("127.0.0.1", proxy.port)
                assert (r.conn.tls_version is None) is (origin is plain)
            assert r.request.headers.get("proxy-authorization") is None
            assert b"GET /x?y HTTP/1.1\r\nHost: 127.0.0.1:" in head(origin)
        assert proxy.accepted == 2
        asked = [line for line, _ in proxy.asked]
        if scheme.startswith("socks"):
            assert asked == [f"SOCKS 127.0.0.1:{plain.port} 1", f"SOCKS 127.0.0.1:{secure.port} 1"]
        else:
            assert asked == [f"GET {plain.url('/x?y')} HTTP/1.1"] * 3 + [f"CONNECT 127.0.0.1:{secure.port} HTTP/1.1"]
        label = f"{scheme}://127.0.0.1:{proxy.port}"
        assert set(client.transport.stats().hosts) == {f"http://127.0.0.1:{plain.port} via {label}", f"https://127.0.0.1:{secure.port} via {label}"}


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h"])
def test_bodies_of_all_sizes(scheme: str, peer: MakePeer, ca: Authority, new_client: MakeClient, tls_mode: str) -> None:
    big = bytes(range(251)) * 12000               # 3 MB

    def echo(conn: Conn, i: int) -> None:
        while True:
            _, body = conn.recv_request()
            conn.send(respond(body))

    origin = peer(echo, tls=ca.server())
    with ScriptedProxy(socks=scheme.startswith("socks"), tls=ca.server() if scheme == "https" else None) as proxy:
        client = new_client(proxy=proxy.proxy(scheme), verify=str(ca.pem))
        for body in (b"", b"x", big[:70_000], big):
            assert client.post(origin.url(), content=body).content == body
        with client.stream("POST", origin.url(), content=iter([big[:100], big[100:]])) as r:
            assert b"".join(r.iter_bytes()) == big
        assert (proxy.accepted, origin.accepted) == (1, 1)


def test_what_a_plain_proxy_is_told(plain: Peer, new_client: MakeClient) -> None:
    with ScriptedProxy() as proxy:
        client = new_client(proxy=proxy.proxy(userinfo="us:p%20w"), proxy_headers={"X-Via": "us"})
        r = client.get(plain.url("/a"), headers={"X-Mine": "1"})
        _, told = proxy.asked[0]
        assert (header(told, "Proxy-Authorization"), header(told, "X-Via"), header(told, "X-Mine")) == ("Basic dXM6cCB3", "us", "1")
        assert header(told, "Host") == f"127.0.0.1:{plain.port}"
        assert "x-via" not in r.request.headers and "proxy-authorization" not in r.request.headers


def test_what_only_connect_says(secure: Peer, ca: Authority, new_client: MakeClient) -> None:
    with ScriptedProxy() as proxy:
        client = new_client(proxy=proxy.proxy(userinfo="us:pw"), proxy_headers={"X-Via": "us"}, verify=str(ca.pem))
        for mine in ({}, {"Proxy-Authorization": "Mine"}):
            client.get(secure.url("/a"), headers=mine)
        told = [h for _, h in proxy.asked]
        assert [header(h, "Proxy-Authorization") for h in told] == ["Basic dXM6cHc=", "Mine"]          # other credentials, another tunnel
        assert all(header(h, "Host") == f"127.0.0.1:{secure.port}" and header(h, "X-Via") == "us" for h in told)
        assert [line.split()[0] for line, _ in proxy.asked] == ["CONNECT"] * 2
    for conn in secure.conns:
        assert b"proxy-authorization" not in conn.received.lower() and b"x-via" not in conn.received.lower()


def test_the_fast_lane_tells_its_proxy_too_and_shows_no_secret(plain: Peer, new_client: MakeClient) -> None:
    with ScriptedProxy() as proxy:
        client = new_client(proxy=proxy.proxy(userinfo="us:pw"))
        for _ in range(3):
            r = client.get(plain.url())
            assert "proxy-authorization" not in r.request.headers
        assert len(client._memo) == 1
        assert [header(h, "Proxy-Authorization") for _, h in proxy.asked] == ["Basic dXM6cHc="] * 3
        assert proxy.accepted == 1


def test_a_redirect_takes_the_proxy_of_where_it_leads(plain: Peer, peer: MakePeer, secure: Peer, ca: Authority, new_client: MakeClient) -> None:
    first = peer(answering(respond(b"", 302, {"Location": secure.url("/there")})))
    asked: list[str] = []
    with ScriptedProxy() as one, ScriptedProxy() as two:
        def choose(url: pooledhttp.URL) -> str:
            asked.append(url.scheme)
            return one.proxy(userinfo="us:one") if url.scheme == "http" else two.proxy(userinfo="us:two")

        client = new_client(proxy=choose, verify=str(ca.pem))
        assert client.get(first.url()).content == b"hello"
        assert asked == ["http", "https"]
        assert [header(h, "Proxy-Authorization") for _, h in one.asked + two.asked] == ["Basic dXM6b25l", "Basic dXM6dHdv"]
    with ScriptedProxy() as one:                    # by the fast lane, and from a proxy to none
        client = new_client(proxy=lambda url: one.proxy(userinfo="us:one") if url.scheme == "http" else None, verify=str(ca.pem))
        assert client.get(first.url()).content == b"hello"
    assert b"proxy-authorization" not in head(secure, -1).lower()


def test_the_environments_proxy_by_the_fast_lane_leads_to_none(peer: MakePeer, secure: Peer, ca: Authority, new_client: MakeClient,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """Its credentials stay behind when the redirect goes where no proxy is."""
    first = peer(answering(respond(b"", 302, {"Location": secure.url("/there")})), name="origin.test")
    with ScriptedProxy(names={"origin.test": "127.0.0.1"}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.proxy(userinfo="us:pw"))
        client = new_client(verify=str(ca.pem))
        for _ in range(2):
            r = client.get(first.url())
            assert r.content == b"hello"
            assert "proxy-authorization" not in r.history[0].request.headers
        assert len(proxy.asked) == 2
    assert b"proxy-authorization" not in head(secure).lower()


# -- names --

def test_who_resolves(peer: MakePeer, new_client: MakeClient) -> None:
    origin = peer(answering(HELLO), name="origin.test")
    resolved: list[str] = []

    def resolver(host: str, port: int) -> list[tuple[int, Any]]:
        resolved.append(host)
        return [(socket.AF_INET, ("127.0.0.1", port))]

    with ScriptedProxy(socks=True, names={"origin.test": "127.0.0.1"}) as proxy:
        for scheme, expected, kind in (("socks5", ["origin.test"], 1), ("socks5h", [], 3)):
            client = new_client(proxy=proxy.proxy(scheme), resolver=resolver)
            assert client.get(origin.url()).content == b"hello"
            assert (resolved, proxy.asked[-1][0].split()[2]) == (expected, str(kind))
            resolved.clear()
        client = new_client(proxy=f"socks5h://proxy.test:{proxy.port}", resolver=resolver)
        assert client.get(origin.url()).content == b"hello"
        assert resolved == ["proxy.test"]


def test_socks_tries_the_next_address(peer: MakePeer, new_client: MakeClient) -> None:
    origin = peer(answering(HELLO), name="origin.test")
    with ScriptedProxy(socks=True) as proxy:
        asked: list[str] = []

        def resolver(host: str, port: int) -> list[tuple[int, Any]]:
            asked.append(host)
            return [(socket.AF_INET6, ("::1", port, 0, 0)), (socket.AF_INET, ("127.0.0.1", port))]

        client = new_client(proxy=proxy.proxy("socks5"), resolver=resolver)
        r = client.get(origin.url())
        assert r.content == b"hello"
        assert [line for line, _ in proxy.asked] == [f"SOCKS ::1:{origin.port} 4", f"SOCKS 127.0.0.1:{origin.port} 1"]
        assert client.transport.stats().dials == 1
        origin.stop()
        client.transport.close_idle_connections()
        asked.clear()
        for n in (0, 1):
            with pytest.raises(ProxyError, match="connection refused") as e:
                client.get(origin.url())
            assert e.value.socks_reply == 5
            assert len(asked) == n                  # an answer of which no connection came is not kept


def test_names_that_do_not_resolve(new_client: MakeClient) -> None:
    def resolver(host: str, port: int) -> list[tuple[int, Any]]:
        if host == "gone.test":
            raise OSError(errno.ENOENT, "no such name")
        return [(socket.AF_INET, ("127.0.0.1", port))]

    with pytest.raises(ProxyError, match="cannot connect to the proxy http://gone.test:80") as e:
        new_client(proxy="http://gone.test", resolver=resolver).get("https://origin.test/")
    assert isinstance(e.value, ConnectError) and e.value.phase == "dns"
    with ScriptedProxy(socks=True) as proxy:
        client = new_client(proxy=proxy.proxy("socks5"), resolver=resolver)
        with pytest.raises(DNSError) as d:
            client.get("http://gone.test/")
        assert not isinstance(d.value, ProxyError) and d.value.phase == "dns"


def test_ipv6(peer: MakePeer, new_client: MakeClient) -> None:
    origin = peer(answering(HELLO), host="::1")
    with ScriptedProxy() as proxy, ScriptedProxy(socks=True) as socks:
        assert new_client(proxy=proxy.proxy()).get(origin.url("/a")).content == b"hello"
        assert proxy.asked[0][0] == f"GET http://[::1]:{origin.port}/a HTTP/1.1"
        assert new_client(proxy=socks.proxy("socks5h")).get(origin.url("/a")).content == b"hello"
        assert socks.asked[0][0] == f"SOCKS ::1:{origin.port} 4"


def test_a_socks_login(plain: Peer, new_client: MakeClient) -> None:
    with ScriptedProxy(socks=True, login=(b"us", b"p w")) as proxy:
        assert new_client(proxy=proxy.proxy("socks5", "us:p%20w")).get(plain.url()).content == b"hello"
        with pytest.raises(ProxyError, match="refused the user name and password"):
            new_client(proxy=proxy.proxy("socks5", "us:wrong")).get(plain.url())
        with pytest.raises(ProxyError, match="it wants a user name and password"):
            new_client(proxy=proxy.proxy("socks5")).get(plain.url())


# -- failures --

def answer(data: bytes, size: int = 0, then: Callable[[Conn], object] | None = None) -> Callable[[Conn, int], None]:
    """A proxy that says `data` to CONNECT, in pieces of `size`, and closes, or does what is `then` to be done."""
    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.send_split(data, [size] * (len(data) // size) if size else [])
        if then is not None:
            then(conn)
    return script


REFUSALS = [
    (b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n", 407, "wants credentials"),
    (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\noops!", 502, "502 Bad Gateway"),
    (b"HTTP/1.1 403 Forbidden\r\n\r\n", 403, "403 Forbidden"),
    (b"", None, "without an answer"),
    (b"HTTP/1.1 200 O", None, "ended within"),
    (b"garbage\r\n\r\n", None, "bad status line"),
    (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000, None, "over the limit"),
]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(("said", "status", "says"), REFUSALS, ids=[says for _, _, says in REFUSALS])
def test_a_proxy_that_refuses(said: bytes, status: int | None, says: str, tls: bool, peer: MakePeer, ca: Authority, new_client: MakeClient) -> None:
    proxy = peer(answer(said), tls=ca.server() if tls else None)
    client = new_client(proxy=proxy.url(""), verify=str(ca.pem))
    for _ in range(2):                              # the second as the first: nothing is kept
        with pytest.raises(ProxyError, match=says) as e:
            client.get("https://origin.test/x?secret")
        assert (e.value.status_code, e.value.phase, e.value.request.method) == (status, "proxy", "GET")
        assert "secret" not in str(e.value) and not isinstance(e.value, ConnectError)
    stats = client.transport.stats()
    assert (stats.dials, stats.dialing, stats.opened) == (2, 0, 0)


def test_a_reset(peer: MakePeer, new_client: MakeClient) -> None:
    proxy = peer(answer(b"", then=Conn.reset))
    with pytest.raises(ProxyError, match="broke before it had connected us") as e:
        new_client(proxy=proxy.url("")).get("https://origin.test/")
    assert (e.value.errno, e.value.phase) == (errno.ECONNRESET, "proxy")


def test_a_proxy_that_refuses_before_it_is_asked(peer: MakePeer, new_client: MakeClient) -> None:
    """What it said counts, though it has closed and our question may fail."""
    def script(conn: Conn, i: int) -> None:
        conn.send(b"HTTP/1.1 403 Not you\r\n\r\n")

    with pytest.raises(ProxyError) as e:
        new_client(proxy=peer(script).url("")).get("https://origin.test/")
    assert e.value.status_code in (403, None)
    assert e.value.status_code == 403 or e.value.errno == errno.ECONNRESET


def test_no_proxy_there(new_client: MakeClient) -> None:
    for scheme in ("http", "https", "socks5"):
        client = new_client(proxy=f"{scheme}://127.0.0.1:{free_ports(1)[0]}")
        for url in ("http://origin.test/", "https://origin.test/"):
            if scheme == "socks5":
                url = url.replace("origin.test", "127.0.0.1")
            with pytest.raises(ProxyError, match=f"cannot connect to the proxy {scheme}://127.0.0.1") as e:
                client.get(url)
            assert isinstance(e.value, ConnectError) and isinstance(e.value, ConnectionError)
            assert (e.value.errno, e.value.phase) == (errno.ECONNREFUSED, "connect")
    with FullBacklog() as full, pytest.raises(ConnectTimeout, match="no connection to the proxy http://127.0.0.1") as t:
        new_client(proxy=f"http://127.0.0.1:{full.port}", timeout=Timeout(connect=0.1)).get("https://origin.test/")
    assert t.value.phase == "connect"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_tunnel_that_comes_byte_by_byte(scheme: str, secure: Peer, ca: Authority, peer: MakePeer, new_client: MakeClient) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.send_split(OK, [1] * (len(OK) - 1))
        relay(conn, connected("127.0.0.1", secure.port))

    proxy = peer(script, tls=ca.server() if scheme == "https" else None)
    assert new_client(proxy=proxy.url(""), verify=str(ca.pem)).get(secure.url()).content == b"hello"


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_bytes_behind_the_answer_are_the_origins(tls: bool, ca: Authority, peer: MakePeer, new_client: MakeClient) -> None:
    proxy = peer(answer(OK + b"HTTP/1.1 400 Bad Request\r\n\r\n", then=Conn.recv_until_closed), tls=ca.server() if tls else None)
    with pytest.raises(TLSError, match="TLS with origin.test:443 failed: it speaks plain HTTP on this port"):
        new_client(proxy=proxy.url(""), verify=str(ca.pem)).get("https://origin.test/")


def test_bytes_behind_a_socks_answer_are_the_origins(peer: MakePeer, new_client: MakeClient) -> None:
    """A server that answers before it is asked."""
    def script(conn: Conn, i: int) -> None:
        conn.recv_exact(3)
        conn.send(b"\5\0")
        conn.recv_exact(10)
        conn.send(b"\5\0\0\1" + bytes(6) + HELLO)
        conn.recv_until_closed()

    proxy = peer(script)
    assert new_client(proxy=f"socks5://127.0.0.1:{proxy.port}").get("http://127.0.0.1:9/").content == b"hello"


def test_an_origin_that_is_not_trusted(peer: MakePeer, ca: Authority, new_client: MakeClient) -> None:
    """The proxy is, and the message says which of the two is not."""
    other = peer(answering(HELLO), tls=ca.server("other.test"))
    with ScriptedProxy(tls=ca.server()) as proxy, pytest.raises(CertificateError, match=f"the certificate of 127.0.0.1:{other.port} was not accepted"):
        new_client(proxy=proxy.proxy(), verify=str(ca.pem)).get(other.url())
    with ScriptedProxy(tls=ca.server("other.test")) as proxy:
        with pytest.raises(CertificateError, match=f"the certificate of the proxy https://127.0.0.1:{proxy.port} was not accepted"):
            new_client(proxy=proxy.proxy(), verify=str(ca.pem)).get(other.url())
        assert proxy.asked == []
    with ScriptedProxy(tls=ca.server()) as proxy:
        client = new_client(proxy=proxy.proxy(), verify=str(ca.pem), server_hostname="other.test")        # the origin's name alone
        assert client.get(other.url()).content == b"hello"


def test_a_certificate_and_a_pin_are_for_the_server(peer: MakePeer, ca: Authority, new_client: MakeClient) -> None:
    shown: list[tuple[str, bool]] = []
    mine = ca.issue("client.test")
    contexts = ca.new_server(), ca.new_server()
    for context in contexts:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(str(ca.pem))

    def seen(who: str, conn: Conn) -> None:
        assert isinstance(conn.sock, ssl.SSLSocket)
        shown.append((who, bool(conn.sock.getpeercert())))

    def serve(conn: Conn, i: int) -> None:
        conn.recv_request()
        seen("server", conn)
        conn.send(HELLO)

    origin = peer(serve, tls=contexts[0])
    with ScriptedProxy(tls=contexts[1], before=lambda conn, head: seen("proxy", conn) is not None) as proxy:
        with connected("127.0.0.1", origin.port) as sock, ca.client().wrap_socket(sock, server_hostname="localhost") as tls:
            leaf = tls.getpeercert(True)
        assert leaf is not None
        client = new_client(proxy=proxy.proxy(), verify=str(ca.pem), cert=mine, fingerprint="sha256:" + hashlib.sha256(leaf).hexdigest())
        assert client.get(origin.url()).content == b"hello"
    assert shown == [("proxy", False), ("server", True)]


def test_a_proxy_that_speaks_no_tls(plain: Peer, new_client: MakeClient) -> None:
    with ScriptedProxy(before=lambda conn, head: True) as proxy:
        def refuse(conn: Conn, i: int) -> None:
            conn.recv_some()
            conn.send(b"HTTP/1.0 400 Bad Request\r\n\r\n")

        proxy.script = refuse
        with pytest.raises(TLSError, match="TLS with the proxy https://127.0.0.1:[0-9]+ failed: it speaks plain HTTP"):
            new_client(proxy=proxy.proxy("https")).get(plain.url())


def test_a_refusal_of_a_plain_request_is_a_response(plain: Peer, new_client: MakeClient) -> None:
    def before(conn: Conn, head: bytes) -> bool:
        conn.send(respond(b"who are you?", 407, {"Proxy-Authenticate": "Basic"}, reason="Proxy Authentication Required"))
        return True

    with ScriptedProxy(before=before) as proxy:
        r = new_client(proxy=proxy.proxy()).get(plain.url())
        assert (r.status_code, r.content) == (407, b"who are you?")


# -- limits --

def through(stalled: Stalled, ca: Authority, client: MakeClient, timeout: Any) -> tuple[Peer, Client]:
    proxy = stalled.start(ca)
    return proxy, client(proxy=stalled.url(proxy), verify=str(ca.pem), timeout=timeout)


@pytest.mark.parametrize("stalled", STALLS, ids=lambda s: s.name)
def test_a_stall_ends_by_the_deadline(stalled: Stalled, ca: Authority, new_client: MakeClient) -> None:
    proxy, client = through(stalled, ca, new_client, Timeout(total=0.3))
    with proxy:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded) as e:
            client.get("https://127.0.0.1:9/")
        late = time.monotonic() - began - 0.3
        assert 0 <= late < 0.25
        assert e.value.phase == stalled.phase
        assert client.transport.stats().dialing == 0
        proxy.wait_for(lambda p: p.conns[0].received.endswith(b"@"))


@pytest.mark.parametrize("stalled", STALLS, ids=lambda s: s.name)
def test_a_stall_ends_by_its_limit(stalled: Stalled, ca: Authority, new_client: MakeClient) -> None:
    """`connect` for what the proxy is asked, `tls_handshake` for each handshake."""
    proxy, client = through(stalled, ca, new_client, Timeout(connect=0.15, tls_handshake=5.0) if stalled.phase == "proxy" else Timeout(tls_handshake=0.15))
    with proxy:
        began = time.monotonic()
        with pytest.raises((ConnectTimeout, TLSHandshakeTimeout)) as e:
            client.get("https://127.0.0.1:9/")
        assert 0.15 <= time.monotonic() - began < 0.8
        assert (type(e.value), e.value.phase) == (ConnectTimeout if stalled.phase == "proxy" else TLSHandshakeTimeout, stalled.phase)
        named = "127.0.0.1:9" if stalled.origin else f"the proxy {stalled.scheme}://127.0.0.1:{proxy.port}#"
        assert named in str(e.value)


def test_a_contexts_deadline(ca: Authority, new_client: MakeClient) -> None:
    proxy, client = through(STALLS[0], ca, new_client, 10.0)
    with proxy, pytest.raises(DeadlineExceeded) as e:
        client.get("https://127.0.0.1:9/", context=pooledhttp.Context(timeout=0.1))
    assert (e.value.source, e.value.phase) == ("context", "proxy")


def test_drops_do_not_lengthen_the_limit(peer: MakePeer, new_client: MakeClient) -> None:
    """A byte at a time is no progress."""
    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.send(b"HTTP/1.1 200 OK\r\nX: ")
        while not conn._peer.stopped.wait(0.01):
            conn.send(b"y")

    began = time.monotonic()
    with pytest.raises(ConnectTimeout):
        new_client(proxy=peer(script).url(""), timeout=Timeout(connect=0.2)).get("https://origin.test/")
    assert 0.2 <= time.monotonic() - began < 0.8


def test_tls_with_the_proxy_does_not_count_for_connect(secure: Peer, ca: Authority, peer: MakePeer, new_client: MakeClient) -> None:
    def script(conn: Conn, i: int) -> None:
        conn._peer.stopped.wait(0.3)
        conn.start_tls(ca.server())
        conn.recv_head()
        conn.send(OK)
        relay(conn, connected("127.0.0.1", secure.port))

    proxy = peer(script)
    client = new_client(proxy=f"https://127.0.0.1:{proxy.port}", verify=str(ca.pem), timeout=Timeout(connect=0.25, tls_handshake=5.0))
    r = client.get(secure.url())
    assert r.content == b"hello"
    assert r.timings["tls"] > 0.25 > r.timings["connect"]


@pytest.mark.parametrize("stalled", STALLS, ids=lambda s: s.name)
def test_a_cancel(stalled: Stalled, ca: Authority, new_client: MakeClient) -> None:
    proxy, client = through(stalled, ca, new_client, 10.0)
    canceller = Canceller()
    with proxy:
        ended: list[tuple[BaseException, float]] = []

        def run() -> None:
            try:
                client._request("GET", "https://127.0.0.1:9/", {}, canceller)
            except BaseException as e:
                ended.append((e, time.monotonic()))

        thread = threading.Thread(target=run)
        thread.start()
        until(lambda: stalled.met(proxy))
        began = time.monotonic()
        canceller.cancel("enough")
        thread.join(10)
        error, at = ended[0]
        assert isinstance(error, Cancelled) and error.reason == "enough"
        assert at - began < 0.25
        assert client.transport.stats().dialing == 0


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h"])
def test_a_dial_that_lost_its_race_is_finished(scheme: str, secure: Peer, ca: Authority, new_client: MakeClient) -> None:
    """A request that is handed an idle connection leaves its dial, in the midst of what the proxy is asked, to a helper."""
    held = threading.Event()
    release = threading.Event()

    class Slow(ScriptedProxy):
        def _http(self, conn: Conn, i: int) -> None:
            if i == 1:
                conn.recv_head()
                held.set()
                release.wait(10)
                conn.send(OK)
                relay(conn, connected("127.0.0.1", secure.port))
                return
            super()._http(conn, i)

        def _socks(self, conn: Conn, i: int) -> None:
            if i == 1:
                held.set()
                release.wait(10)
            super()._socks(conn, i)

    with Slow(socks=scheme == "socks5h", tls=ca.server() if scheme == "https" else None) as proxy:
        client = new_client(proxy=proxy.proxy(scheme), verify=str(ca.pem))
        with client.stream("GET", secure.url()) as first:
            other: list[Any] = []
            thread = threading.Thread(target=lambda: other.append(client.get(secure.url())))
            thread.start()
            assert held.wait(10)
            first.read()
        thread.join(10)
        assert other[0].content == b"hello" and other[0].conn.reused
        assert client.transport.stats().dialing == 1
        release.set()
        until(lambda: client.transport.stats().idle == 2)
        assert client.transport.stats().opened == 2


# -- pools --

def test_pools_mix_neither_proxies_nor_credentials(plain: Peer, secure: Peer, ca: Authority) -> None:
    with ScriptedProxy() as one, ScriptedProxy() as two, Transport(verify=str(ca.pem), proxy=lambda url: ways[0]) as transport:
        client = Client(transport=transport, timeout=10.0)
        choices: list[str | None] = [None, one.proxy(), two.proxy(), one.proxy(userinfo="us:a"), one.proxy(userinfo="us:b")]
        ways: list[str | None] = [None]
        for turn in range(2):
            for way in choices:
                ways[0] = way
                for origin in (plain, secure):
                    r = client.get(origin.url())
                    assert r.conn.reused is (turn == 1), way
                    expected = origin.port if way is None else int(way.rpartition(":")[2])
                    assert r.conn.remote_addr == ("127.0.0.1", expected)
        stats = transport.stats()
        assert (len(stats.hosts), stats.opened, stats.open) == (10, 10, 10)
        assert [header(h, "Proxy-Authorization") for line, h in one.asked if line.startswith("CONNECT")] == [None, "Basic dXM6YQ==", "Basic dXM6Yg=="]


def test_rotating_credentials_leave_nothing_behind(plain: Peer) -> None:
    before = set(known._labels)
    with ScriptedProxy() as proxy:
        n = iter(range(10_000))
        with Client(proxy=lambda url: proxy.proxy(userinfo=f"session-{next(n)}:pw"), disable_keep_alives=True, timeout=10.0) as client:
            for _ in range(30):
                assert client.get(plain.url()).content == b"hello"
        assert len({header(h, "Proxy-Authorization") for _, h in proxy.asked}) == 30
        del client
        gc.collect()
        assert set(known._labels) <= before


def test_one_request_sent_by_many_threads_with_rotating_credentials(plain: Peer) -> None:
    """What each thread's pool key names is there when it dials."""
    with ScriptedProxy() as proxy:
        n = iter(range(10_000))
        with Client(proxy=lambda url: proxy.proxy(userinfo=f"session-{next(n)}:pw"), timeout=20.0) as client:
            request = client.build_request("GET", plain.url())
            wrong: list[object] = []

            def work() -> None:
                try:
                    for _ in range(10):
                        if client.send(request).content != b"hello":
                            wrong.append("content")
                except BaseException as e:
                    wrong.append(e)

            threads = [threading.Thread(target=work) for _ in range(16)]
            for t in threads:
                t.start()
            for t in threads:
                t.join(40)
            assert wrong == []
            assert proxy.accepted == 160


def test_thirty_two_threads(plain: Peer, secure: Peer, ca: Authority, new_client: MakeClient) -> None:
    with ScriptedProxy() as proxy:
        client = new_client(proxy=proxy.proxy(userinfo="us:pw"), verify=str(ca.pem), max_conns_per_host=8)
        wrong: list[BaseException] = []

        def work(i: int) -> None:
            try:
                for n in range(12):
                    assert client.get((plain if (i + n) % 2 else secure).url(f"/{i}/{n}")).content == b"hello"
            except BaseException as e:
                wrong.append(e)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(32)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(50)
        assert wrong == []
        stats = client.transport.stats()
        adds_up(stats)
        assert proxy.accepted <= 16
        assert stats.requests == 32 * 12
        assert closed(stats) == {}


def test_what_holds_a_full_pool_is_named_once(peer: MakePeer, new_client: MakeClient) -> None:
    origin = peer(answering(respond(b"x" * 3_000_000)))
    with ScriptedProxy() as proxy:
        client = new_client(proxy=proxy.proxy(userinfo="us:pw"), max_conns_per_host=1, timeout=Timeout(pool=0.05, read=10.0))
        with client.stream("GET", origin.url("/held?secret")), pytest.raises(pooledhttp.PoolTimeout) as e:
            client.get(origin.url("/other"))
        assert f"held by: GET {origin.url('/held')} for" in str(e.value)
        assert f"of http://127.0.0.1:{origin.port} via http://127.0.0.1:{proxy.port}#" in str(e.value)
        assert "secret" not in str(e.value) and "dXM6" not in str(e.value)


def test_a_stale_tunnel_is_replaced(secure: Peer, ca: Authority, new_client: MakeClient) -> None:
    with ScriptedProxy() as proxy:
        client = new_client(proxy=proxy.proxy(), verify=str(ca.pem))
        assert client.get(secure.url()).content == b"hello"
        proxy.conns[0].sock.shutdown(socket.SHUT_RDWR)
        assert client.get(secure.url()).content == b"hello"
        assert proxy.accepted == 2
        assert closed(client.transport.stats()) == {"server_closed": 1}


def test_sessions_are_resumed_with_both(ca: Authority, peer: MakePeer, new_client: MakeClient) -> None:
    contexts = ca.new_server(), ca.new_server()
    origin = peer(answering(HELLO), tls=contexts[0])
    with ScriptedProxy(tls=contexts[1]) as proxy:
        client = new_client(proxy=proxy.proxy(), verify=str(ca.pem), disable_keep_alives=True)
        for _ in range(3):
            assert client.get(origin.url()).content == b"hello"
        assert [context.session_stats()["hits"] for context in contexts] == [2, 2]
