"""Whom a client trusts: each form of `verify`, the environment's CA variables, files that change, and the key log."""
from __future__ import annotations

import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import certifi
import pytest

import pooledhttp
from pooledhttp import Client, Transport, errors
from tests.support.ca import Authority
from tests.support.nginx import Nginx
from tests.support.peer import Peer, answering, respond

MakePeer = Callable[..., Peer]


class Server:
    """A peer with a certificate of `authority`; `trusted(**options)` says whether a client of these options takes it."""

    def __init__(self, peer: MakePeer, authority: Authority) -> None:
        self.peer = peer(answering(respond(b"x")), tls=authority.server())
        self.pem = authority.pem

    def trusted(self, **options: Any) -> bool:
        with Client(timeout=20, **options) as client:
            return self.takes(client)

    def takes(self, client: Client) -> bool:
        try:
            assert client.get(self.peer.url()).content == b"x"
        except errors.CertificateError as e:
            assert "its issuer is unknown" in str(e)
            return False
        return True


@pytest.fixture
def server(peer: MakePeer, ca: Authority) -> Server:
    return Server(peer, ca)


@pytest.fixture
def other(tmp_path: Path) -> Authority:
    """Another authority than the server's."""
    (tmp_path / "other").mkdir()
    return Authority(tmp_path / "other")


def put(authority: Path, file: Path) -> None:
    """As certificates are rotated: the file is replaced in one step."""
    new = file.with_suffix(".new")
    new.write_bytes(authority.read_bytes())
    new.replace(file)


# --- verify --------------------------------------------------------------------------------------------------------------------

def test_true_is_certifis_alone(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the system's: which SSL_CERT_FILE adds to by OpenSSL's own rule."""
    monkeypatch.setenv("SSL_CERT_FILE", str(server.pem))
    assert not server.trusted(verify=True, trust_env=False)
    monkeypatch.setattr(certifi, "where", lambda: str(server.pem))
    assert server.trusted(verify=True, trust_env=False)
    monkeypatch.undo()
    assert not server.trusted(verify=True)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file(server: Server, other: Authority, kind: Any) -> None:
    assert server.trusted(verify=kind(server.pem))
    assert not server.trusted(verify=kind(other.pem))


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize("kind", [str, Path])
def test_a_directory(server: Server, other: Authority, tmp_path: Path, kind: Any, hashed: bool) -> None:
    folder = tmp_path / "authorities"
    folder.mkdir()

    def hold(*authorities: Path) -> None:
        for i, authority in enumerate(authorities):
            (folder / f"{i}.pem").write_bytes(authority.read_bytes())
        if hashed:
            subprocess.run(["openssl", "rehash", folder], check=True, capture_output=True, timeout=20)

    hold(other.pem)
    assert not server.trusted(verify=kind(folder))
    hold(other.pem, server.pem)
    assert server.trusted(verify=kind(folder))


def test_false_trusts_anyone(server: Server) -> None:
    assert server.trusted(verify=False)


def test_a_context_is_left_as_it_is_but_for_alpn_set_once(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    calls: list[list[str]] = []

    class Context(ssl.SSLContext):
        def set_alpn_protocols(self, protocols: Any) -> None:
            calls.append(list(protocols))
            super().set_alpn_protocols(protocols)

    def facts(context: ssl.SSLContext) -> list[object]:
        names = ("options", "verify_mode", "verify_flags", "check_hostname", "hostname_checks_common_name", "minimum_version", "maximum_version",
                 "keylog_filename", "post_handshake_auth", "sni_callback", "sslobject_class", "sslsocket_class", "security_level")
        return [*(getattr(context, name) for name in names), context.get_ciphers(), context.get_ca_certs()]

    mine = Context(ssl.PROTOCOL_TLS_CLIENT)
    mine.load_verify_locations(server.pem)
    before = facts(mine)
    for _ in range(2):                        # two transports, several dials each
        with Client(verify=mine, disable_keep_alives=True, timeout=20) as client:
            assert server.takes(client) and server.takes(client)
    assert facts(mine) == before
    assert calls == [["http/1.1"]]
    assert not (tmp_path / "keys").exists()
    bare = Context(ssl.PROTOCOL_TLS_CLIENT)
    assert not server.trusted(verify=bare)


def test_a_context_of_truststores(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import truststore

    monkeypatch.setenv("SSL_CERT_FILE", str(server.pem))
    assert server.trusted(verify=truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


# --- "system" ------------------------------------------------------------------------------------------------------------------

def test_the_system(server: Server, other: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """By truststore; on Linux it trusts what OpenSSL's defaults name, and SSL_CERT_FILE is one of them."""
    assert not server.trusted(verify="system")
    monkeypatch.setenv("SSL_CERT_FILE", str(server.pem))
    with Client(verify="system", timeout=20, disable_keep_alives=True) as client:
        assert server.takes(client) and server.takes(client)
        monkeypatch.setenv("SSL_CERT_FILE", str(other.pem))
        assert not server.takes(client)           # noticed at the next dial


def test_the_system_checks_the_name(peer: MakePeer, ca: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.pem))
    server = peer(answering(respond(b"x")), tls=ca.server("a.test"))
    with Client(verify="system", timeout=20) as client, pytest.raises(errors.CertificateError, match="for another address"):
        client.get(server.url())


def test_the_system_file_that_changes(server: Server, other: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "system.pem"
    put(other.pem, file)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with Client(verify="system", timeout=20) as client:
        assert not server.takes(client)
        put(server.pem, file)
        assert server.takes(client)


def test_the_system_without_truststore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "truststore", None)
    with pytest.raises(ImportError) as caught:
        Transport(verify="system")
    assert str(caught.value) == 'verify="system" needs the package truststore: pip install "pooledhttp[system]"'


def test_truststore_is_imported_with_the_first_dial() -> None:
    script = ("import sys, pooledhttp\nc = pooledhttp.Client(verify='system')\nassert 'truststore' not in sys.modules\n"
              "try: c.get('https://127.0.0.1:1/')\nexcept pooledhttp.ConnectError: pass\nassert 'truststore' in sys.modules")
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


# --- the environment -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_variable_counts_where_verify_is_true(server: Server, other: Authority, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def setting(authority: Authority | Server) -> str:
        return str(authority.pem.parent if name == "SSL_CERT_DIR" else authority.pem)

    monkeypatch.setenv(name, setting(server))
    assert server.trusted()
    assert server.trusted(verify=True)
    assert not server.trusted(trust_env=False)
    assert not server.trusted(verify=other.pem)
    monkeypatch.setenv(name, setting(other))
    assert not server.trusted()
    assert server.trusted(verify=False)
    assert server.trusted(verify=server.pem)


def test_which_variable_wins(server: Server, other: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """SSL_CERT_FILE and SSL_CERT_DIR together, else REQUESTS_CA_BUNDLE, else CURL_CA_BUNDLE."""
    ours, theirs = str(server.pem), str(other.pem)
    monkeypatch.setenv("CURL_CA_BUNDLE", ours)
    assert server.trusted()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", theirs)
    assert not server.trusted()
    monkeypatch.setenv("SSL_CERT_FILE", ours)
    assert server.trusted()
    monkeypatch.setenv("SSL_CERT_FILE", theirs)
    assert not server.trusted()
    monkeypatch.setenv("SSL_CERT_DIR", str(server.pem.parent))
    assert server.trusted()


def test_the_variables_are_read_when_the_client_is_made(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(timeout=20, max_idle_conns=5) as before:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.pem))
        assert not server.takes(before)
        with Client(timeout=20, max_idle_conns=5) as after:
            monkeypatch.delenv("SSL_CERT_FILE")
            assert server.takes(after)


@pytest.mark.parametrize("shared", [False, True], ids=["given", "default"])
def test_clients_of_one_transport_share_no_connection_where_they_trust_otherwise(server: Server, monkeypatch: pytest.MonkeyPatch,
                                                                                 shared: bool) -> None:
    transport = pooledhttp.default_transport() if shared else Transport()
    options: dict[str, Any] = {"timeout": 20} if shared else {"timeout": 20, "transport": transport}
    plain = Client(**options)
    monkeypatch.setenv("SSL_CERT_FILE", str(server.pem))
    trusting = [Client(**options) for _ in range(2)]
    strict = Client(trust_env=False, **options)
    url = server.peer.url()
    for _ in range(2):
        for client in trusting:
            assert server.takes(client)
            assert client.get(url).conn.reused               # of those of one environment there is one connection
        for client in (plain, strict):
            assert not server.takes(client)                  # though a connection idles that another client trusts
        request = trusting[0].build_request("GET", url)
        assert trusting[1].send(request).conn.reused
        with pytest.raises(errors.CertificateError):
            strict.send(request)                             # the sender's trust counts, not the builder's
        request = strict.build_request("GET", url)
        assert trusting[0].send(request).conn.reused
        assert request.trust is None
    assert server.peer.handshakes == 1
    key = f"https://127.0.0.1:{server.peer.port}"
    rows = transport.stats().hosts
    assert rows[f"{key} (SSL_CERT_FILE={str(server.pem)!r})"].opened == 1
    assert rows[key].opened == 0
    transport.close_idle_connections()
    if not shared:
        transport.close()


def test_a_full_pool_names_origins(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(server.pem))
    with Client(timeout=20, max_conns_per_host=1) as client, client.stream("GET", server.peer.url("/held")):
        with pytest.raises(errors.PoolTimeout) as caught:
            client.get(server.peer.url(), timeout=pooledhttp.Timeout(pool=0.05))
        assert f"held by: GET {server.peer.url('/held')} for " in str(caught.value)


def test_a_transport_with_a_round_trip_of_its_own(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(Transport):
        n = 0

        def round_trip(self, request: Any, **options: Any) -> Any:
            self.n += 1
            return super().round_trip(request, **options)

    monkeypatch.setenv("SSL_CERT_FILE", str(server.pem))
    with Counting() as transport:
        assert server.takes(Client(transport=transport, timeout=20))
        assert not server.takes(Client(transport=transport, timeout=20, trust_env=False))
        assert transport.n == 2


def test_plain_http_is_one_pool_whatever_is_trusted(nginx: Nginx, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with Transport() as transport:
        assert Client(transport=transport).get(nginx.url("/1k")).ok
        monkeypatch.setenv("SSL_CERT_FILE", str(server.pem))
        assert Client(transport=transport).get(nginx.url("/1k")).conn.reused


def test_other_options_go_with_the_environments_trust(peer: MakePeer, ca: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's certificate and the name asked for are the transport's."""
    context = ca.new_server("a.test")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca.pem)
    server = peer(answering(respond(b"x")), tls=context)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca.pem))
    cert = tuple(map(str, ca.issue("client.test")))
    with Client(cert=cert, server_hostname="a.test", timeout=20) as client:
        assert client.get(server.url()).content == b"x"


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("what", ["absent", "useless"])
def test_a_bad_path_is_an_error_that_names_the_variable(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, what: str) -> None:
    path = tmp_path / what
    if what == "useless":
        path.mkdir() if name == "SSL_CERT_DIR" else path.write_text("no certificate")
    monkeypatch.setenv(name, str(path))
    with Client(timeout=20, max_idle_conns=5) as client:
        with pytest.raises(errors.TLSError) as caught:
            client.get(server.peer.url())
        assert not isinstance(caught.value, errors.CertificateError)
        assert caught.value.phase == "tls"
        assert str(path) in str(caught.value) and name in str(caught.value)
        assert "\n" not in str(caught.value)
        assert client.transport.stats().opened == server.peer.accepted == 0


# --- files that change ---------------------------------------------------------------------------------------------------------

def test_a_changed_ca_file_is_noticed_at_the_next_dial(server: Server, other: Authority, tmp_path: Path) -> None:
    """And not before: what is open was checked when it was opened."""
    file = tmp_path / "ca.pem"
    put(other.pem, file)
    with Client(verify=file, timeout=20) as client:
        assert not server.takes(client)
        put(server.pem, file)
        assert server.takes(client)
        put(other.pem, file)
        assert client.get(server.peer.url()).conn.reused
        client.transport.close_idle_connections()
        assert not server.takes(client)           # nor does the session that was kept open a door
        file.unlink()
        with pytest.raises(errors.TLSError, match="cannot read.*ca.pem"):
            client.get(server.peer.url())
        put(server.pem, file)
        assert server.takes(client)


# --- the key log ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("verify", [True, False, "system", "file"])
def test_the_key_log(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verify: Any) -> None:
    """NSS's format: one line a secret, begun by its label and the client's random."""
    monkeypatch.setattr(certifi, "where", lambda: str(server.pem))
    monkeypatch.setenv("SSL_CERT_FILE", str(server.pem))
    verify = server.pem if verify == "file" else verify
    assert server.trusted(verify=verify)
    log = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    assert server.trusted(verify=verify)
    lines = [line.split() for line in log.read_text().splitlines() if not line.startswith("#")]
    assert {"CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"} <= {line[0] for line in lines}
    assert len({line[1] for line in lines}) == 1
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "absent" / "keys"))
    with Client(verify=verify, timeout=20) as client, pytest.raises(errors.TLSError, match="which SSLKEYLOGFILE names: No such file"):
        client.get(server.peer.url())
    monkeypatch.delenv("SSLKEYLOGFILE")
    before = log.read_text()
    assert server.trusted(verify=verify)
    assert log.read_text() == before


def test_threads_that_notice_a_change_together(server: Server, other: Authority, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    put(other.pem, file)
    results: list[bool] = []
    with Client(verify=file, timeout=30, disable_keep_alives=True) as client:
        for authority, expected in ((other, False), (server, True), (other, False)):
            put(authority.pem, file)
            results.clear()
            threads = [threading.Thread(target=lambda: results.append(server.takes(client))) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            assert results == [expected] * 8
