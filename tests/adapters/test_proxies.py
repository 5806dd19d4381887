"""Proxies, as requests and httpx name them."""
from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import requests
import urllib3
from requests import exceptions

from pooledhttp.adapters.httpx import PooledTransport
from pooledhttp.adapters.requests import PooledAdapter
from tests.support.ca import Authority
from tests.support.peer import Conn, Peer, free_ports, header, respond
from tests.support.proxy import ScriptedProxy
from tests.support.pyserver import PyServer

MakePeer = Callable[..., Peer]


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def proxy() -> Iterator[ScriptedProxy]:
    made = ScriptedProxy()
    with made:
        yield made


def test_requests_plain(session: requests.Session, proxy: ScriptedProxy, pyserver: PyServer) -> None:
    for _ in range(2):
        seen = session.get(pyserver.url("/x?a=1"), proxies={"http": proxy.proxy(userinfo="ada:se%2Fcret")}).json()
    assert seen["target"] == "/x?a=1"
    assert [line for line, _ in proxy.asked] == [f"GET {pyserver.url('/x?a=1')} HTTP/1.1"] * 2
    assert header(proxy.asked[0][1], "Proxy-Authorization") == basic("ada", "se/cret")
    assert proxy.asked[0][1].count(b"Proxy-Authorization") == 1
    assert proxy.accepted == 1
    assert session.get(pyserver.url("/")).ok
    assert len(proxy.asked) == 2                       # without proxies, straight there


def test_requests_tunnel(session: requests.Session, adapter: PooledAdapter, proxy: ScriptedProxy, tls_pyserver: PyServer, ca: Authority) -> None:
    session.verify = str(ca.pem)
    session.proxies = {"https": proxy.proxy(userinfo="ada:secret")}
    seen = [session.get(tls_pyserver.url("/x")).json() for _ in range(2)]
    assert [s["served"] for s in seen] == [1, 2]
    [(line, head)] = proxy.asked
    assert line == f"CONNECT 127.0.0.1:{tls_pyserver.port} HTTP/1.1"
    assert header(head, "Proxy-Authorization") == basic("ada", "secret")
    assert "Proxy-Authorization" not in dict(seen[0]["headers"])
    session.proxies = {}
    assert session.get(tls_pyserver.url("/")).json()["served"] == 1              # another connection: nothing is shared


def test_requests_headers_for_the_proxy(proxy: ScriptedProxy, tls_pyserver: PyServer, ca: Authority) -> None:
    class Mine(PooledAdapter):
        def proxy_headers(self, proxy: str) -> dict[str, str]:
            return {**super().proxy_headers(proxy), "X-Proxy": "mine"}

    with requests.Session() as session:
        session.mount("https://", Mine())
        seen = session.get(tls_pyserver.url("/"), verify=str(ca.pem), proxies={"all": proxy.proxy()}).json()
    assert header(proxy.asked[0][1], "X-Proxy") == "mine"
    assert "X-Proxy" not in dict(seen["headers"])


def test_requests_environment(session: requests.Session, proxy: ScriptedProxy, pyserver: PyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy.proxy())
    assert session.get(pyserver.url("/")).ok
    assert len(proxy.asked) == 1
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert session.get(pyserver.url("/")).ok
    assert len(proxy.asked) == 1


def test_requests_redirects_and_their_credentials(session: requests.Session, proxy: ScriptedProxy, peer: MakePeer) -> None:
    def script(conn: Conn, i: int) -> None:
        head, _ = conn.recv_request()
        conn.send(respond(b"here") if b"/next" in head else respond(b"", 302, {"Location": "/next"}))

    server = peer(script)
    r = session.get(server.url(), proxies={"http": proxy.proxy(userinfo="ada:secret")})
    assert r.history
    assert [head.count(b"Proxy-Authorization: " + basic("ada", "secret").encode()) for _, head in proxy.asked] == [1, 1]


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_requests_socks(session: requests.Session, pyserver: PyServer, scheme: str) -> None:
    socks = ScriptedProxy(socks=True, login=(b"ada", b"secret"))
    with socks:
        assert session.get(pyserver.url("/x"), proxies={"http": socks.proxy(scheme, "ada:secret")}).json()["target"] == "/x"
        assert socks.asked[0][0].startswith(f"SOCKS 127.0.0.1:{pyserver.port}")
        with pytest.raises(exceptions.ProxyError):
            session.get(pyserver.url("/x"), proxies={"http": socks.proxy(scheme, "ada:wrong")})


def refusing(conn: Conn, head: bytes) -> bool:
    conn.send(respond(b"no", 407, reason="Who are you"))
    return True


def test_requests_errors(session: requests.Session, tls_pyserver: PyServer) -> None:
    dead = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(exceptions.ProxyError) as caught:
        session.get("http://a.example/", proxies={"http": dead})
    assert isinstance(caught.value.args[0].reason, urllib3.exceptions.ProxyError)
    assert isinstance(caught.value.args[0].reason.original_error, urllib3.exceptions.NewConnectionError)
    proxy = ScriptedProxy(before=refusing)
    with proxy, pytest.raises(exceptions.ProxyError, match="407"):
        session.get(tls_pyserver.url("/"), proxies={"https": proxy.proxy()})
    for url in ("http:/badproxyurl:3128", "http://", "http:///example.com:8080"):
        with pytest.raises(exceptions.InvalidProxyURL):
            session.get("http://a.example/", proxies={"http": url})
    with pytest.raises(exceptions.InvalidSchema, match="socks4"):
        session.get("http://a.example/", proxies={"http": "socks4://127.0.0.1:1"})


def through(proxy: Any, **options: Any) -> httpx.Client:
    return httpx.Client(transport=PooledTransport(proxy=proxy, **options))


def test_httpx_plain_and_tunnel(proxy: ScriptedProxy, pyserver: PyServer, tls_pyserver: PyServer, ca: Authority) -> None:
    with through(httpx.Proxy(proxy.proxy(userinfo="ada:se%2Fcret"), headers={"X-Proxy": "mine"}), verify=str(ca.pem)) as client:
        assert client.get(pyserver.url("/x")).json()["target"] == "/x"
        seen = client.get(tls_pyserver.url("/y")).json()
    assert [line for line, _ in proxy.asked] == [f"GET {pyserver.url('/x')} HTTP/1.1", f"CONNECT 127.0.0.1:{tls_pyserver.port} HTTP/1.1"]
    assert {header(head, "Proxy-Authorization") for _, head in proxy.asked} == {basic("ada", "se/cret")}
    assert {header(head, "X-Proxy") for _, head in proxy.asked} == {"mine"}
    assert not {"X-Proxy", "Proxy-Authorization"} & {name for name, _ in seen["headers"]}


def test_httpx_socks(pyserver: PyServer) -> None:
    socks = ScriptedProxy(socks=True, login=(b"ada", b"secret"))
    with socks:
        with through(socks.proxy("socks5", "ada:secret")) as client:
            assert client.get(pyserver.url("/x")).json()["target"] == "/x"
        with through(socks.proxy("socks5", "ada:wrong")) as client, pytest.raises(httpx.ProxyError):
            client.get(pyserver.url("/x"))


def test_httpx_errors(tls_pyserver: PyServer) -> None:
    with through(f"http://127.0.0.1:{free_ports(1)[0]}") as client, pytest.raises(httpx.ConnectError):
        client.get("http://a.example/")
    proxy = ScriptedProxy(before=refusing)
    with proxy, through(proxy.proxy()) as client, pytest.raises(httpx.ProxyError, match="407"):
        client.get(tls_pyserver.url("/"))
    with pytest.raises(ValueError, match="scheme"):
        through("ftp://a.example")
