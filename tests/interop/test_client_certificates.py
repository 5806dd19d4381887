"""`cert` in all its forms, before a server that wants one."""
from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509

from pooledhttp import Client, Transport, errors
from tests.support.ca import Authority
from tests.support.certificates import CLIENT, Made, make
from tests.support.peer import Conn, Peer, answering, respond

MakePeer = Callable[..., Peer]
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Files(NamedTuple):
    """One certificate, as files of every kind."""

    made: Made
    root: Path
    cert: str
    key: str
    both: str
    locked: str            # the key, and its password is "secret"
    locked_both: str


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("client")
    root = make(cn="clients", authority=True)
    made = make("client.test", by=root, usage=CLIENT)
    locked = made.encrypted(b"secret")
    contents = {"root": root.pem, "cert": made.pem, "key": made.key_pem, "both": made.pem + made.key_pem, "locked": locked,
                "locked_both": locked + made.pem}
    for name, content in contents.items():
        (folder / f"{name}.pem").write_bytes(content)
    return Files(made, folder / "root.pem", *(str(folder / f"{name}.pem") for name in list(contents)[1:]))


def serial(conn: Conn) -> int | None:
    """Of the client's certificate."""
    assert isinstance(conn.sock, ssl.SSLSocket)
    der = conn.sock.getpeercert(True)
    return None if der is None else x509.load_der_x509_certificate(der).serial_number


@pytest.fixture
def wanting(peer: MakePeer, ca: Authority, files: Files) -> Callable[..., Peer]:
    """Makes a server that wants a client's certificate, and answers its serial number."""

    def script(conn: Conn, i: int) -> None:
        answering(respond(str(serial(conn)).encode()))(conn, i)

    def new(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Peer:
        context = ca.new_server()
        context.maximum_version = version
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(files.root)
        return peer(script, tls=context)

    return new


def forms(files: Files) -> dict[str, Any]:
    """Each form of `cert`, by its name."""
    return {
        "one file": files.both, "one file, a Path": Path(files.both), "a tuple of one": (files.both,),
        "(cert, key)": (files.cert, files.key), "Paths": (Path(files.cert), Path(files.key)), "no key": (files.both, None),
        "password": (files.cert, files.locked, "secret"), "bytes": (files.cert, files.locked, b"secret"),
        "bytearray": (files.cert, files.locked, bytearray(b"secret")),
        "called": (files.cert, files.locked, lambda: "secret"), "one file, locked": (files.locked_both, None, "secret"),
        "a password not needed": (files.cert, files.key, "unused"), "no password": (files.cert, files.key, None),
    }


def test_every_form(wanting: Callable[..., Peer], ca: Authority, files: Files) -> None:
    server = wanting()
    expected = str(files.made.cert.serial_number)
    got = {}
    for name, cert in forms(files).items():
        with Client(verify=ca.pem, cert=cert, timeout=20) as client:
            got[name] = client.get(server.url()).text
    assert got == dict.fromkeys(forms(files), expected)


@pytest.mark.parametrize("version", VERSIONS)
def test_it_is_shown_on_each_connection(wanting: Callable[..., Peer], ca: Authority, files: Files, version: ssl.TLSVersion) -> None:
    """Resumed ones too."""
    server = wanting(version)
    with Client(verify=ca.pem, cert=files.both, timeout=20, disable_keep_alives=True) as client:
        for _ in range(3):
            assert client.get(server.url()).text == str(files.made.cert.serial_number)


def fails(cert: Any, *words: str, server: Peer) -> None:
    with Transport(verify=False, cert=cert) as transport:
        with pytest.raises(errors.TLSError) as caught:
            Client(transport=transport).get(server.url(), timeout=20)
        assert transport.stats().opened == server.accepted == 0           # heard of before a connection is spent
    error = caught.value
    assert error.phase == "tls" and not isinstance(error, errors.CertificateError)
    assert "cannot load the client certificate" in str(error) or "cannot read" in str(error)
    for word in words:
        assert word in str(error)
    assert "\n" not in str(error) and "secret" not in str(error) and "guess" not in str(error)


def test_what_cannot_be_loaded(wanting: Callable[..., Peer], files: Files, tmp_path: Path) -> None:
    server = wanting()
    (tmp_path / "junk.pem").write_text("junk")
    (tmp_path / "other.pem").write_bytes(make("other").key_pem)
    (tmp_path / "torn.pem").write_bytes(files.made.key_pem[:60] + files.made.key_pem[70:])
    fails((files.cert, files.locked, "guess"), "the password does not open the key", files.locked, server=server)
    fails((files.cert, files.locked, lambda: b"guess"), "the password does not open the key", server=server)
    fails((files.locked_both, None, "guess"), "the password does not open the key", server=server)
    fails((files.cert, files.locked), "encrypted and no password was given", server=server)
    fails(files.locked_both, "encrypted and no password was given", server=server)
    fails(files.cert, "there is no private key", server=server)
    fails((files.cert, str(tmp_path / "junk.pem")), "there is no private key", "junk.pem", server=server)
    fails((str(tmp_path / "junk.pem"), files.key), "junk.pem", server=server)
    fails((files.cert, str(tmp_path / "torn.pem")), "damaged", "torn.pem", server=server)
    fails((files.cert, str(tmp_path / "other.pem")), "is not this certificate's", "other.pem", server=server)
    fails(str(tmp_path / "absent.pem"), "absent.pem", "No such file", server=server)
    fails((files.cert, str(tmp_path / "absent.pem")), "absent.pem", "No such file", server=server)

    def refuses() -> str:
        raise ValueError("the vault is shut")

    fails((files.cert, files.locked, refuses), "the vault is shut", server=server)


@pytest.mark.parametrize("cert", [("a", "b", 5), ("a", "b", ["secret"]), 7, ()])
def test_what_is_refused_at_once(cert: Any) -> None:
    with pytest.raises(TypeError):
        Transport(cert=cert)


def test_beside_a_context_of_the_users(files: Files) -> None:
    with pytest.raises(ValueError, match="into the context"):
        Transport(verify=ssl.create_default_context(), cert=files.both)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("body", [None, b"x" * 10, b"x" * 3_000_000], ids=["get", "small", "large"])
def test_none_where_one_is_wanted(wanting: Callable[..., Peer], ca: Authority, version: ssl.TLSVersion, body: bytes | None) -> None:
    """In TLS 1.3 the server says so after the handshake, with the first read, and perhaps while we send."""
    server = wanting(version)
    with Client(verify=ca.pem, timeout=20) as client:
        for n in range(1, 6):
            with pytest.raises(errors.TLSError, match="wants a client certificate") as caught:
                client.request("GET" if body is None else "POST", server.url(), content=body)
            assert not isinstance(caught.value, errors.CertificateError)
            server.wait_closed(n - 1)
        stats = client.transport.stats()
        assert (stats.open, stats.active, stats.opened, stats.retries) == (0, 0, sum(stats.closed.values()), 0)
        assert stats.dials == 5


@pytest.mark.parametrize("version", VERSIONS)
def test_one_that_the_server_does_not_know(wanting: Callable[..., Peer], ca: Authority, tmp_path: Path, version: ssl.TLSVersion) -> None:
    server = wanting(version)
    stranger = make("client.test", by=make(cn="stranger", authority=True))
    file = tmp_path / "stranger.pem"
    file.write_bytes(stranger.key_pem + stranger.pem)
    unknown = pytest.raises(errors.TLSError, match="the server does not know the issuer of our certificate")
    with Client(verify=ca.pem, cert=file, timeout=20) as client, unknown:
        client.get(server.url())


def test_a_rotated_certificate_is_shown_at_the_next_dial(wanting: Callable[..., Peer], ca: Authority, files: Files, tmp_path: Path) -> None:
    """One file, replaced in one step: no dial sees a certificate beside another's key. The session of before is not resumed."""
    server = wanting()
    file = tmp_path / "client.pem"
    file.write_bytes(Path(files.both).read_bytes())
    authority = make(cn="more clients", authority=True)
    assert server.tls is not None
    server.tls.load_verify_locations(cadata=authority.pem.decode())
    newer = make("client.test", by=authority, usage=CLIENT)
    with Client(verify=ca.pem, cert=file, timeout=20) as client:
        assert client.get(server.url()).text == str(files.made.cert.serial_number)
        (tmp_path / "new").write_bytes(newer.key_pem + newer.pem)
        (tmp_path / "new").replace(file)
        r = client.get(server.url())
        assert (r.conn.reused, r.text) == (True, str(files.made.cert.serial_number))
        client.transport.close_idle_connections()
        for _ in range(2):
            assert client.get(server.url()).text == str(newer.cert.serial_number)
