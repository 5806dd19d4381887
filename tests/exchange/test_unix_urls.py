"""Unix sockets that a URL names, and where a filter of addresses must hold: at every hop, whatever the host is called."""
from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import pooledhttp
from pooledhttp import Client, ConnectError, ConnectRefusedByFilter, TransportError, public_addresses_only
from pooledhttp._net.resolver import literal
from tests.exchange.conftest import MakeClient
from tests.exchange.support import closed
from tests.support.peer import Conn, Peer, header, respond

MakePeer = Callable[..., Peer]


def unix_url(path: Path, rest: str = "/") -> str:
    return f"http+unix://{quote(str(path), safe='')}{rest}"


class Named:
    """A script that says who it is, and keeps the heads."""

    def __init__(self, name: bytes, *answers: bytes) -> None:
        self.name = name
        self.answers = list(answers)
        self.heads: list[bytes] = []

    def __call__(self, conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            self.heads.append(head)
            conn.send(self.answers.pop(0) if self.answers else respond(self.name))


def test_a_url_names_a_socket(peer: MakePeer, client: Client, tmp_path: Path) -> None:
    script = Named(b"a")
    path = tmp_path / "Dir with ü" / "a.sock"
    path.parent.mkdir()
    server = peer(script, uds=path)
    r = client.get(unix_url(path, "/x?y#z"), params={"n": 1})
    assert (r.content, r.conn is not None and (r.conn.reused, r.conn.remote_addr)) == (b"a", (False, str(path)))
    assert script.heads[0].startswith(b"GET /x?y&n=1 HTTP/1.1\r\nHost: localhost\r\n")
    r = client.post(unix_url(path), content=b"abc", headers={"Host": "other"})
    assert r.conn is not None and r.conn.reused
    assert header(script.heads[1], "Host") == "other"
    assert server.accepted == 1
    assert list(client.transport.stats().hosts) == [f"http+unix://{pooledhttp.URL(unix_url(path)).host}:80"]


def test_sockets_are_pooled_apart_and_from_hosts(peer: MakePeer, client: Client, tmp_path: Path) -> None:
    servers = [peer(Named(name), uds=tmp_path / name.decode()) for name in (b"a", b"B", b"b")]
    tcp = peer(Named(b"tcp"))
    for _ in range(2):
        assert [client.get(unix_url(tmp_path / name)).content for name in ("a", "B", "b")] == [b"a", b"B", b"b"]
        assert client.get(tcp.url()).content == b"tcp"
    assert [server.accepted for server in (*servers, tcp)] == [1, 1, 1, 1]


def test_the_url_counts_more_than_the_transports_own_socket(peer: MakePeer, new_client: MakeClient, tmp_path: Path) -> None:
    peer(Named(b"own"), uds=tmp_path / "own"), peer(Named(b"named"), uds=tmp_path / "named")
    client = new_client(uds=tmp_path / "own")
    assert client.get("http://whatever/").content == b"own"
    assert client.get(unix_url(tmp_path / "named")).content == b"named"


def test_a_socket_of_linuxs_own_names(client: Client) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(b"\0pooledhttp-test-" + str(id(listener)).encode())
        listener.listen(1)
        name = quote(listener.getsockname(), safe="")
        with pytest.raises(pooledhttp.TimeoutException) as e:          # connected, and nobody answers
            client.get(f"http+unix://{name}/", timeout=0.1)
        assert e.value.phase == "headers"


@pytest.mark.parametrize(("name", "problem"), [("none", "No such file"), ("x" * 200, "too long"), (".", "refused|socket operation")])
def test_no_socket(client: Client, tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(ConnectError, match=f"(?i){problem}") as e:
        client.get(unix_url(tmp_path / name))
    assert e.value.phase == "connect"


def test_base_url_and_relative_redirects(peer: MakePeer, new_client: MakeClient, tmp_path: Path) -> None:
    script = Named(b"there", respond(b"", 302, {"Location": "../c"}), respond(b"", 307, {"Location": "/d?e"}))
    peer(script, uds=tmp_path / "s")
    client = Client(transport=new_client().transport, base_url=unix_url(tmp_path / "s", "/api/"), timeout=5)
    assert client.get("a/b").content == b"there"
    assert [head.split(b" ")[1] for head in script.heads] == [b"/api/a/b", b"/api/c", b"/d?e"]


def test_no_server_leads_to_a_socket(peer: MakePeer, client: Client, tmp_path: Path) -> None:
    secret = peer(Named(b"secret"), uds=tmp_path / "s")
    other = peer(Named(b"secret"), uds=tmp_path / "t")
    for server, url in ((peer(Named(b"", respond(b"", 302, {"Location": unix_url(tmp_path / "s")}))), None),
                        (peer(Named(b"", respond(b"", 302, {"Location": unix_url(tmp_path / "s")})), uds=tmp_path / "r"), unix_url(tmp_path / "r"))):
        with pytest.raises(TransportError, match="redirect"):
            client.get(url or server.url())
    assert (secret.accepted, other.accepted) == (0, 0)


# --- filters ---

def test_a_filter_refuses_sockets_that_urls_name(peer: MakePeer, new_client: MakeClient, tmp_path: Path) -> None:
    """It has no say about a socket's path, and whoever chooses the URL may not choose that either."""
    server = peer(Named(b"secret"), uds=tmp_path / "s")
    client = new_client(connect_filter=lambda ip, port: True)
    for _ in range(2):
        with pytest.raises(ConnectRefusedByFilter, match="no Unix socket") as e:
            client.get(unix_url(tmp_path / "s"))
        assert (e.value.phase, e.value.request is not None) == ("connect", True)
    assert server.accepted == 0
    stats = client.transport.stats()
    assert (stats.open, stats.dialing) == (0, 0)
    assert new_client(connect_filter=lambda ip, port: False, uds=tmp_path / "s").get("http://h/").content == b"secret"       # the transport's own


def test_public_addresses_only_lets_nothing_through_to_this_machine(peer: MakePeer, new_client: MakeClient) -> None:
    server = peer(Named(b"secret"))
    names = {"ten.test": "10.0.0.1", "metadata.test": "169.254.169.254", "mapped.test": "::ffff:127.0.0.1", "nat64.test": "64:ff9b::7f00:1",
             "local.test": "fe80::1", "six.test": "2002:7f00:1::"}

    def resolver(host: str, port: int) -> list[tuple[int, Any]]:
        if ":" in names[host]:
            return [(socket.AF_INET6, (names[host], port, 0, 0))]
        return [(socket.AF_INET, (names[host], port))]

    client = new_client(connect_filter=public_addresses_only, resolver=resolver)
    for host in ("127.0.0.1", "127.1", "2130706433", "0x7f000001", "017700000001", "0", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
                 "[64:ff9b::7f00:1]",
                 "１２７.0.0.1", "127。0。0。1", "[fe80::1%25lo]", *names):
        with pytest.raises(ConnectRefusedByFilter):
            client.get(f"http://{host}:{server.port}/")
    assert server.accepted == 0


def led_to(location: str) -> Named:
    return Named(b"public", respond(b"", 302, {"Location": location}))


def test_a_redirect_is_dialed_by_the_same_filter(peer: MakePeer, new_client: MakeClient) -> None:
    """The public server leads to this machine, in every form in which it can be named."""
    private = peer(Named(b"secret"))
    for location in (f"http://127.0.0.1:{private.port}/", f"//127.1:{private.port}/", f"http://[::ffff:127.0.0.1]:{private.port}/",
                     f"http://[::1]:{private.port}/",
                     f"http://inside.test:{private.port}/", f"http://0:{private.port}/"):
        public = peer(led_to(location))

        def allow(ip: str, port: int, public: Peer = public) -> bool:
            return port == public.port or public_addresses_only(ip, port)

        client = new_client(connect_filter=allow, resolver=lambda host, port: [(socket.AF_INET, ("127.0.0.1", port))])
        with pytest.raises(ConnectRefusedByFilter) as e:
            client.get(f"http://outside.test:{public.port}/")
        assert e.value.request is not None and e.value.request.url.port == private.port
        assert client.get(f"http://outside.test:{public.port}/").content == b"public"
        assert closed(client.transport.stats()) == {}
    assert private.accepted == 0


def test_a_name_that_is_rebound_between_two_dials(peer: MakePeer, new_client: MakeClient) -> None:
    """A check of one's own would have seen the first answer; the second is what is dialed, and what the filter sees."""
    private = peer(Named(b"secret"))
    public = peer(Named(b"public", respond(b"", 302, {"Location": "/again", "Connection": "close"})))
    answers = [public.port, private.port]

    def resolver(host: str, port: int) -> list[tuple[int, Any]]:
        return [(socket.AF_INET, ("127.0.0.1", answers.pop(0)))]

    def allow(ip: str, port: int) -> bool:
        return port == public.port or public_addresses_only(ip, port)

    client = new_client(connect_filter=allow, resolver=resolver, dns_cache_ttl=0)
    with pytest.raises(ConnectRefusedByFilter, match="rebinds.test"):
        client.get("http://rebinds.test/")
    assert (answers, public.accepted, private.accepted) == ([], 1, 0)


def test_an_ipv6_zone_reaches_the_kernel() -> None:
    host = pooledhttp.URL("http://[fe80::1%25lo]/").host
    assert literal(host, 80) == [(socket.AF_INET6, ("fe80::1", 80, 0, socket.if_nametoindex("lo")))]


def test_cookies_of_a_socket_are_its_own(peer: MakePeer, client: Client, tmp_path: Path) -> None:
    """Host is the same for all of them, and they are not."""
    scripts = [Named(b"a", respond(b"", 200, {"Set-Cookie": "who=a"})), Named(b"b", respond(b"", 200, {"Set-Cookie": "who=b"}))]
    for name, script in zip("aA", scripts, strict=True):
        peer(script, uds=tmp_path / name)
    for _ in range(2):
        for name in "aA":
            client.get(unix_url(tmp_path / name))
    assert [[header(head, "Cookie") for head in script.heads] for script in scripts] == [[None, "who=a"], [None, "who=b"]]
