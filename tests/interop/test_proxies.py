"""squid, tinyproxy and dante, from Debian's packages."""
from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from pooledhttp import Client, ProxyError
from tests.interop.conftest import Web
from tests.support.ca import Authority
from tests.support.nginx import Nginx, content
from tests.support.peer import free_ports
from tests.support.pyserver import pattern
from tests.support.servers.proxies import FORBIDDEN, PASSWORD, REAL, USER, RealProxy

WAYS = [("squid", "main", ""), ("squid", "tls", ""), ("tinyproxy", "main", ""), ("dante", "main", "socks5"), ("dante", "main", "socks5h")]
Proxies = Callable[[str], RealProxy]


@pytest.fixture(scope="module")
def proxies(ca: Authority) -> Iterator[Proxies]:
    """`proxies(name)` is running and ready."""
    started: dict[str, RealProxy] = {}
    certificate = ca.issue()

    def get(name: str) -> RealProxy:
        kind = REAL[name]
        if kind.find() is None:
            pytest.skip(f"{kind.binary} of the Debian package {kind.package} is not installed")
        if name not in started:
            started[name] = kind(certificate=certificate)
            started[name].ready()
        return started[name]

    yield get
    for server in started.values():
        server.close()


class Through(Web):
    """A web through a proxy."""

    def __init__(self, ca: Authority, nginx: Nginx, door: str, proxy: str) -> None:
        super().__init__(ca, lambda target: nginx.url(target, door))
        self.client.close()
        self._made.clear()
        self.client = self.new(proxy=proxy)


@pytest.fixture(params=WAYS, ids=["-".join(filter(None, way)) for way in WAYS])
def way(request: pytest.FixtureRequest, proxies: Proxies) -> str:
    name, door, scheme = request.param
    return proxies(name).proxy(door, scheme=scheme)


@pytest.fixture(params=["plain", "tls", "h2"])
def through(request: pytest.FixtureRequest, ca: Authority, nginx: Nginx, way: str) -> Iterator[Through]:
    it = Through(ca, nginx, request.param, way)
    yield it
    it.close()


def test_bodies(through: Through, request: pytest.FixtureRequest) -> None:
    client = through.client
    if "plain-tinyproxy" in request.node.name:
        client = through.new(proxy=client.transport.options["proxy"], disable_keep_alives=True)          # see below: POST is not sent again
    for name in ("1k", "64k", "1m"):
        for where in ("", "/chunked"):
            r = client.get(through.url(f"{where}/{name}"))
            assert (r.status_code, r.content == content(name)) == (200, True)
    assert client.get(through.url("/204")).status_code == 204
    assert client.head(through.url("/1k")).content == b""
    body = pattern(300_000)
    assert client.post(through.url("/upload"), content=body).json()["length"] == len(body)
    assert client.post(through.url("/upload"), content=iter([body[:1000], body[1000:]])).json()["length"] == len(body)
    through.adds_up(client)


def test_connections_are_kept(through: Through, way: str) -> None:
    """Tinyproxy closes after each answer that is no tunnel's, and does not say so before: a GET is sent again where that is seen late."""
    for _ in range(5):
        r = through.client.get(through.url("/1k"))
        assert r.content == content("1k")
    stats = through.adds_up()
    through.client.transport.close_idle_connections()
    kept = stats.reuses == 4
    assert kept or stats.closed["not_reusable"] + stats.closed["server_closed"] >= 4
    if through.url("").startswith("https") or way.startswith("socks"):
        assert kept and r.conn.reused


def test_threads(through: Through) -> None:
    wrong: list[object] = []

    def work(i: int) -> None:
        try:
            for n in range(6):
                token = f"{i}-{n}"
                r = through.client.get(through.url(f"/token?token={token}"))
                if r.text != token:
                    wrong.append((token, r.status_code, r.text))
        except BaseException as e:
            wrong.append(e)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(40)
    assert wrong == []
    assert through.adds_up().requests == 96


@pytest.mark.parametrize("door", ["plain", "tls"])
@pytest.mark.parametrize("name", ["squid", "tinyproxy"])
def test_logins(name: str, door: str, proxies: Proxies, nginx: Nginx, ca: Authority) -> None:
    proxy, url = proxies(name), nginx.url("/1k", door)

    def client(userinfo: str) -> Client:
        return Client(proxy=proxy.proxy("auth", userinfo), verify=str(ca.pem), timeout=20.0)

    with client(f"{USER}:{PASSWORD}") as known:
        for _ in range(2):
            assert known.get(url).content == content("1k")
    for userinfo, says in (("", "give them in the proxy's URL"), (f"{USER}:wrong", "it does not take the credentials given")):
        with client(userinfo) as unknown:
            if door == "plain":
                assert unknown.get(url).status_code in (401, 407)
                continue
            with pytest.raises(ProxyError) as e:
                unknown.get(url)
            # Tinyproxy says 401 where a login is wrong.
            assert e.value.status_code in (401, 407)
            assert e.value.status_code == 401 or says in str(e.value)
            assert "wrong" not in str(e.value)


def test_a_login_of_socks_that_is_refused(proxies: Proxies, nginx: Nginx) -> None:
    proxy = proxies("dante")
    for userinfo, says in (("nobody-of-that-name:pw", "refused the user name and password"), ("", "it wants a user name and password")):
        with Client(proxy=proxy.proxy("auth", userinfo), timeout=20.0) as client, pytest.raises(ProxyError, match=says):
            client.get(nginx.url("/1k"))


@pytest.mark.parametrize("name", ["squid", "tinyproxy"])
def test_a_host_that_is_forbidden(name: str, proxies: Proxies) -> None:
    with Client(proxy=proxies(name).proxy(), timeout=20.0) as client:
        with pytest.raises(ProxyError, match="refused a tunnel to forbidden.test:443: 403") as e:
            client.get(f"https://{FORBIDDEN}/")
        assert (e.value.status_code, e.value.phase) == (403, "proxy")
        assert client.get(f"http://{FORBIDDEN}/").status_code == 403


def test_an_address_that_is_forbidden(proxies: Proxies) -> None:
    with Client(proxy=proxies("dante").proxy(), timeout=20.0) as client, pytest.raises(ProxyError, match="not allowed by ruleset") as e:
        client.get("http://127.0.0.77:81/")
    assert e.value.socks_reply == 2


@pytest.mark.parametrize("name", ["squid", "tinyproxy", "dante"])
def test_nobody_behind_the_proxy(name: str, proxies: Proxies) -> None:
    port = free_ports(1)[0]
    with Client(proxy=proxies(name).proxy(), timeout=20.0) as client:
        with pytest.raises(ProxyError) as e:
            client.get(f"https://127.0.0.1:{port}/")
        if name == "dante":
            assert (e.value.socks_reply, e.value.reason) == (5, "connection refused")
        else:
            assert e.value.status_code in (500, 502, 503)
