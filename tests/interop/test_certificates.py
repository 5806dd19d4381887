"""Whom we trust: verify in all its forms, names, versions, tickets, and a goodbye that must be said."""
from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pooledhttp import Client, Transport, errors
from pooledhttp._pool.janitor import TICK
from tests.support.ca import Authority
from tests.support.nginx import Nginx
from tests.support.peer import Conn, Peer, answering, respond
from tests.support.pyserver import PyServer

pytestmark = pytest.mark.usefixtures("tls_mode")

MakePeer = Callable[..., Peer]


def refused(transport: Transport, url: str, *words: str) -> errors.CertificateError:
    """A request is not sent: CertificateError, in phase "tls", and no connection is left."""
    with pytest.raises(errors.CertificateError) as caught:
        Client(transport=transport).get(url, timeout=10)
    error = caught.value
    assert error.phase == "tls"
    assert error.request.url == url
    assert not isinstance(error, TimeoutError)
    for word in words:
        assert word in str(error)
    stats = transport.stats()
    assert (stats.opened, stats.open, stats.dialing, stats.active) == (0, 0, 0, 0)
    return error


# --- verify --------------------------------------------------------------------------------------------------------------------

def test_an_unknown_authority_is_refused(nginx: Nginx, tls_pyserver: PyServer) -> None:
    for url in (nginx.url("/1k", "tls"), tls_pyserver.url("/")):
        with Transport() as transport:
            refused(transport, url, "127.0.0.1", "not accepted")


def test_verify_in_all_its_forms(nginx: Nginx, ca: Authority, tmp_path: Path) -> None:
    folder = tmp_path / "authorities"
    folder.mkdir()
    (folder / "ours.pem").write_bytes(ca.pem.read_bytes())
    for verify in (str(ca.pem), ca.pem, folder, ca.client(), False):
        with Client(verify=verify, timeout=10) as client:
            for reused in (False, True):
                r = client.get(nginx.url("/1k", "tls"))
                assert (r.status_code, r.conn.reused) == (200, reused)
            assert r.conn.tls_version in ("TLSv1.2", "TLSv1.3")
            assert r.conn.cipher


def test_another_authority_is_refused(nginx: Nginx, tmp_path: Path) -> None:
    with Transport(verify=str(Authority(tmp_path).pem)) as transport:
        refused(transport, nginx.url("/1k", "tls"))


def test_verify_false_takes_anything(peer: MakePeer, ca: Authority) -> None:
    server = peer(answering(respond(b"x")), tls=ca.new_server("elsewhere.test", expired=True))
    with Client(verify=False, timeout=10) as client:
        assert client.get(server.url()).content == b"x"


def test_an_expired_certificate_is_refused(peer: MakePeer, ca: Authority) -> None:
    server = peer(answering(respond(b"x")), tls=ca.new_server(expired=True))
    with Transport(verify=str(ca.pem)) as transport:
        refused(transport, server.url(), "expired")
    server.wait_closed()
    assert server.handshakes == 0


def test_a_context_of_the_users(peer: MakePeer, ca: Authority, tmp_path: Path) -> None:
    """Its own rules hold: here, that the client shows a certificate and speaks 1.2 at most."""
    server_context = ca.new_server()
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.load_verify_locations(ca.pem)
    server = peer(answering(respond(b"x")), tls=server_context)
    context = ca.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(*ca.issue("client.test"))
    with Client(verify=context, timeout=10) as client:
        r = client.get(server.url())
        assert (r.content, r.conn.tls_version) == (b"x", "TLSv1.2")
    with Client(verify=str(ca.pem), cert=tuple(map(str, ca.issue("client.test"))), timeout=10) as client:
        r = client.get(server.url())
        assert (r.content, r.conn.tls_version) == (b"x", "TLSv1.3")


def test_a_missing_client_certificate(peer: MakePeer, ca: Authority) -> None:
    server_context = ca.new_server()
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.load_verify_locations(ca.pem)
    server = peer(answering(respond(b"x")), tls=server_context)
    with Client(verify=str(ca.pem), timeout=10) as client:
        # In TLS 1.3 the server's refusal comes after our handshake is done.
        with pytest.raises(errors.TransportError) as caught:
            client.get(server.url())
        assert isinstance(caught.value, (errors.TLSError, errors.ReadError, errors.WriteError))
        stats = client.transport.stats()
        assert (stats.open, stats.active, stats.opened) == (0, 0, sum(stats.closed.values()))


# --- names ---------------------------------------------------------------------------------------------------------------------

def loopback(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    return [(socket.AF_INET, ("127.0.0.1", port))]


def test_the_server_sees_the_name(peer: MakePeer, ca: Authority) -> None:
    """SNI (RFC 6066 section 3): the host's name, or what `server_hostname` says; never an address."""
    context = ca.new_server("a.test", "b.test", "127.0.0.1")
    names: list[str | None] = []
    context.sni_callback = lambda sock, name, ctx: names.append(name)
    server = peer(answering(respond(b"x")), tls=context)
    with Client(verify=str(ca.pem), timeout=10, resolver=loopback) as client:
        for host in ("a.test", "b.test", "127.0.0.1"):
            assert client.get(f"https://{host}:{server.port}/").content == b"x"
        stats = client.transport.stats()
        assert stats.opened == 3              # never shared between names, though the address is one
    assert names == ["a.test", "b.test", None]
    with Client(verify=str(ca.pem), timeout=10, server_hostname="a.test") as client:
        assert client.get(server.url()).content == b"x"
    assert names[3:] == ["a.test"]


def test_another_hosts_certificate_is_refused(peer: MakePeer, ca: Authority) -> None:
    server = peer(answering(respond(b"x")), tls=ca.server("a.test"))
    with Transport(verify=str(ca.pem), resolver=loopback) as transport:
        refused(transport, f"https://b.test:{server.port}/", "another host", "b.test")
    with Transport(verify=str(ca.pem)) as transport:
        refused(transport, server.url(), "another address", "127.0.0.1")
    with Transport(verify=str(ca.pem), resolver=loopback, server_hostname="b.test") as transport:
        refused(transport, f"https://a.test:{server.port}/")
    with Client(verify=str(ca.pem), resolver=loopback, timeout=10) as client:
        assert client.get(f"https://a.test:{server.port}/").content == b"x"


def test_a_refusal_is_not_kept(peer: MakePeer, ca: Authority) -> None:
    """Many threads at once, none gets through, and with the right authority all do."""
    server = peer(answering(respond(b"x")), tls=ca.server())
    with Transport() as transport:
        seen: list[type[BaseException]] = []

        def work() -> None:
            try:
                Client(transport=transport).get(server.url(), timeout=10)
            except errors.Error as e:
                seen.append(type(e))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert seen == [errors.CertificateError] * 8
        stats = transport.stats()
        assert (stats.dials, stats.opened, stats.dialing, stats.waiting) == (8, 0, 0, 0)


def test_max_conns_after_refusals(peer: MakePeer, ca: Authority) -> None:
    """A refused handshake gives its place back to whoever waits."""
    server = peer(answering(respond(b"x")), tls=ca.server("a.test"))
    with Transport(verify=str(ca.pem), max_conns_per_host=1) as transport:
        for _ in range(3):
            refused(transport, server.url())


# --- versions, tickets, the goodbye ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(peer: MakePeer, ca: Authority, version: ssl.TLSVersion) -> None:
    context = ca.new_server()
    context.minimum_version = context.maximum_version = version
    server = peer(answering(respond(b"x" * 100_000)), tls=context)
    with Client(verify=str(ca.pem), timeout=10) as client:
        for i in range(20):
            r = client.get(server.url())
            assert (r.content, r.conn.reused) == (b"x" * 100_000, i > 0)
        assert r.conn.tls_version == version.name.replace("_", ".")
        assert client.post(server.url(), content=bytes(300_000)).status_code == 200
    assert server.accepted == server.handshakes == 1


def test_a_server_too_old_is_refused(peer: MakePeer, ca: Authority) -> None:
    context = ca.client()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    old = ca.new_server()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    server = peer(answering(respond(b"x")), tls=old)
    with Client(verify=context, timeout=10) as client:
        with pytest.raises(errors.TLSError) as caught:
            client.get(server.url())
        assert caught.value.phase == "tls"
        assert not isinstance(caught.value, errors.CertificateError)


def refused_by_tls(server: Peer, words: str, **options: Any) -> None:
    with Transport(**options) as transport:
        with pytest.raises(errors.TLSError, match=words) as caught:
            Client(transport=transport).get(f"https://127.0.0.1:{server.port}/", timeout=20)
        assert caught.value.phase == "tls" and not isinstance(caught.value, errors.CertificateError)
        stats = transport.stats()
        assert (stats.dials, stats.opened, stats.open) == (1, 0, 0)
    server.wait_closed()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_versions_nobody_should_speak(peer: MakePeer, ca: Authority) -> None:
    """TLS 1.1 and below (RFC 8996): a server that knows no better refuses us; one that answers so all the same is refused."""
    old = ca.new_server()
    old.set_ciphers("ALL@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    refused_by_tls(peer(answering(respond(b"x")), tls=old), "the server refuses our versions of TLS", verify=str(ca.pem))

    def answers_in_tls_1_0(conn: Conn, i: int) -> None:
        conn.recv_some()
        hello = b"\x03\x01" + bytes(32) + b"\x00" + b"\x00\x2f" + b"\x00"
        conn.send(b"\x16\x03\x01" + (4 + len(hello)).to_bytes(2, "big") + b"\x02" + len(hello).to_bytes(3, "big") + hello)
        conn.recv_until_closed()

    refused_by_tls(peer(answers_in_tls_1_0), "speaks only versions of TLS that are too old")


def test_a_name_that_the_server_does_not_know(peer: MakePeer, ca: Authority) -> None:
    context = ca.new_server()
    context.sni_callback = lambda sock, name, ctx: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    refused_by_tls(peer(answering(respond(b"x")), tls=context), "the server knows no host of this name", verify=str(ca.pem), server_hostname="a.test")


@pytest.mark.parametrize("part", [b"", b"\x16", b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03"], ids=["nothing", "a byte", "half a hello"])
@pytest.mark.parametrize("how", ["closes", "resets"])
def test_a_handshake_that_is_cut(peer: MakePeer, part: bytes, how: str) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_some()
        conn.send(part)
        if how == "resets":
            conn.reset()

    refused_by_tls(peer(script), "closed the connection during the TLS handshake" if how == "closes" else "broke during the handshake: Connection reset")


def idles(client: Client, url: str) -> None:
    """A hundred requests in sequence after an idle time in which the janitor has looked at the connection: one dial."""
    assert client.get(url).status_code == 200
    time.sleep(2 * TICK + 0.1)
    for i in range(100):
        r = client.get(url)
        assert (r.status_code, r.conn.reused, r.conn.requests) == (200, True, i + 2)
    stats = client.transport.stats()
    assert (stats.dials, stats.opened, stats.retries, sum(stats.closed.values())) == (1, 1, 0, 0)


def test_tickets_on_idle_connections(nginx: Nginx, ca: Authority) -> None:
    with Client(verify=str(ca.pem), timeout=10) as client:
        idles(client, nginx.url("/1k", "tls"))


def test_many_tickets_on_idle_connections(peer: MakePeer, ca: Authority) -> None:
    context = ca.new_server()
    context.num_tickets = 8
    server = peer(answering(respond(b"x")), tls=context)
    with Client(verify=str(ca.pem), timeout=10) as client:
        idles(client, server.url())


def until_close(conn: Conn, *, notify: bool) -> None:
    conn.recv_head()
    conn.send(respond(b"x" * 5000, length=False))
    conn.close(notify=notify)


@pytest.mark.parametrize("how", ["whole", "stream"])
def test_a_body_until_close_wants_a_goodbye(peer: MakePeer, ca: Authority, how: str) -> None:
    """Without close_notify whoever cut the connection may have cut the body (RFC 9112 section 9.8)."""
    notify = True
    server = peer(lambda conn, i: until_close(conn, notify=notify), tls=ca.server())

    def get(client: Client) -> bytes:
        if how == "whole":
            return client.get(server.url()).content
        with client.stream("GET", server.url()) as r:
            return b"".join(r.iter_bytes())

    with Client(verify=str(ca.pem), timeout=10) as client:
        assert get(client) == b"x" * 5000
        notify = False
        with pytest.raises(errors.RemoteProtocolError) as caught:
            get(client)
        assert caught.value.phase == "body"
        assert "close_notify" in str(caught.value)
        stats = client.transport.stats()
        assert (stats.open, stats.closed["not_reusable"], stats.closed["error"]) == (0, 1, 1)


def test_a_known_length_needs_no_goodbye(peer: MakePeer, ca: Authority) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.send(respond(b"x" * 5000))
        conn.close(notify=False)

    server = peer(script, tls=ca.server())
    with Client(verify=str(ca.pem), timeout=10) as client:
        for _ in range(3):
            assert client.get(server.url()).content == b"x" * 5000
            server.wait_closed(server.accepted - 1)


def test_plain_http_on_a_tls_port_and_the_other_way(nginx: Nginx, ca: Authority) -> None:
    with Client(verify=str(ca.pem), timeout=10) as client:
        with pytest.raises(errors.TLSError) as caught:
            client.get(f"https://127.0.0.1:{nginx.port['plain']}/1k")
        assert caught.value.phase == "tls"
        assert "plain HTTP" in str(caught.value)
        r = client.get(f"http://127.0.0.1:{nginx.port['tls']}/1k")
        assert r.status_code == 400                # nginx says so itself


@pytest.mark.parametrize("answer", [b"\x15\x03\x01\x00\x02\x02\x46", b"\x16\x03\x03\x00\x05hello", b"\x15\x03"], ids=["alert", "handshake", "cut"])
@pytest.mark.parametrize("how", ["stays", "closes", "resets"])
def test_plain_http_to_a_server_of_tls(peer: MakePeer, answer: bytes, how: str) -> None:
    """Its alert is no status line (RFC 8446 section 6): said at once, not when the server closes."""
    def script(conn: Conn, i: int) -> None:
        conn.recv_some(5)
        conn.send(answer)
        if how == "stays":
            conn.recv_until_closed()
        elif how == "resets":
            conn.reset()

    server = peer(script)
    with Transport() as transport:
        with pytest.raises(errors.RemoteProtocolError, match="the server speaks TLS on this port: use https://") as caught:
            Client(transport=transport).get(server.url(), timeout=20)
        assert caught.value.phase == "headers"
        stats = transport.stats()
        assert (stats.open, stats.closed["error"]) == (0, 1)


@pytest.mark.parametrize("body", [None, b"x" * 3_000_000], ids=["get", "upload"])
def test_plain_http_to_openssls_server(peer: MakePeer, ca: Authority, body: bytes | None) -> None:
    """It closes or resets without a word, so that we can only guess."""
    server = peer(answering(respond(b"x")), tls=ca.server())
    with Transport() as transport:
        with pytest.raises(errors.TransportError, match="is https:// meant") as caught:
            Client(transport=transport).request("GET" if body is None else "PUT", f"http://127.0.0.1:{server.port}/", content=body, timeout=20)
        assert isinstance(caught.value, (errors.RemoteProtocolError, errors.ReadError, errors.WriteError))
        assert transport.stats().open == 0


def test_a_bad_authority_file_costs_no_connection(nginx: Nginx, tmp_path: Path) -> None:
    bad: list[Any] = [tmp_path / "absent.pem", tmp_path / "empty.pem"]
    bad[1].write_text("no certificate")
    for verify in bad:
        with Transport(verify=str(verify)) as transport:
            with pytest.raises(errors.TLSError) as caught:
                Client(transport=transport).get(nginx.url("/1k", "tls"))
            assert verify.name in str(caught.value)
            assert transport.stats().opened == 0
