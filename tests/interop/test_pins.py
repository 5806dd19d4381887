"""`fingerprint`: the one leaf that is accepted, whatever else is trusted."""
from __future__ import annotations

import hashlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pooledhttp import Client, Transport, errors
from tests.support.certificates import Made, make
from tests.support.peer import Conn, Peer, answering, respond

MakePeer = Callable[..., Peer]
LEAF_ROOT = make(cn="root", authority=True)
LEAF = make("127.0.0.1", "localhost", by=LEAF_ROOT)
ALONE = make("127.0.0.1")                # self-signed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    file = tmp_path / "root.pem"
    file.write_bytes(LEAF_ROOT.pem)
    return file


@pytest.fixture
def serving(peer: MakePeer, tmp_path: Path) -> Callable[..., Peer]:
    def new(made: Made = LEAF, *chain: Made) -> Peer:
        return peer(answering(respond(b"x")), tls=made.server(tmp_path, *chain))

    return new


def pin(made: Made, *, colons: bool = False, upper: bool = False) -> str:
    digits = made.sha256
    if colons:
        digits = ":".join(digits[i:i + 2] for i in range(0, 64, 2))
    return f"sha256:{digits.upper() if upper else digits}"


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("colons", [False, True])
def test_the_pinned_leaf_is_accepted(serving: Callable[..., Peer], root: Path, colons: bool, upper: bool) -> None:
    server = serving()
    assert LEAF.sha256 == hashlib.sha256(ssl.PEM_cert_to_DER_cert(LEAF.pem.decode())).hexdigest()
    with Client(verify=root, fingerprint=pin(LEAF, colons=colons, upper=upper), timeout=20) as client:
        for reused in (False, True):
            assert client.get(server.url()).conn.reused is reused


def refused(server: Peer, words: str, **options: Any) -> None:
    """No byte of the request was sent, and no connection is left."""
    with Transport(**options) as transport:
        with pytest.raises(errors.CertificateError) as caught:
            Client(transport=transport).post(server.url(), content=b"password", timeout=20)
        assert caught.value.phase == "tls"
        assert words in str(caught.value)
        stats = transport.stats()
        assert (stats.dials, stats.opened, stats.open) == (1, 0, 0)
    server.wait_closed()
    assert not server.conns[0].received


@pytest.mark.parametrize("verify", [True, False])
def test_another_leaf_is_refused_and_its_fingerprint_said(serving: Callable[..., Peer], root: Path, verify: bool) -> None:
    """Though the same authority vouches for both."""
    other = make("127.0.0.1", by=LEAF_ROOT)
    server = serving(other)
    refused(server, f"is not the pinned one: its fingerprint is {pin(other)}", verify=root if verify else False, fingerprint=pin(LEAF))
    with Client(verify=root if verify else False, fingerprint=pin(other), timeout=20) as client:
        assert client.get(server.url()).ok


def test_an_issuer_is_no_leaf(serving: Callable[..., Peer], root: Path) -> None:
    refused(serving(LEAF, LEAF_ROOT), pin(LEAF), verify=root, fingerprint=pin(LEAF_ROOT))


def test_a_pin_adds_to_what_verify_asks(serving: Callable[..., Peer]) -> None:
    """The right leaf of an unknown authority is still refused; with `verify=False` the pin alone decides."""
    server = serving()
    refused(server, "its issuer is unknown", fingerprint=pin(LEAF))
    context = ssl.create_default_context(cadata=LEAF_ROOT.pem.decode())
    for verify in (False, context):
        with Client(verify=verify, fingerprint=pin(LEAF), timeout=20) as client:
            assert client.get(server.url()).ok
    with Client(verify=context, fingerprint=pin(LEAF_ROOT), timeout=20) as client, pytest.raises(errors.CertificateError, match="not the pinned"):
        client.get(server.url())
    alone = serving(ALONE)
    refused(alone, "it is self-signed", fingerprint=pin(ALONE))
    with Client(verify=False, fingerprint=pin(ALONE), timeout=20) as client:
        assert client.get(alone.url()).ok


def test_a_pin_and_the_name(serving: Callable[..., Peer], root: Path) -> None:
    server = serving()

    def resolver(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
        return [(socket.AF_INET, ("127.0.0.1", port))]

    with Client(verify=root, fingerprint=pin(LEAF), resolver=resolver, timeout=20) as client, pytest.raises(errors.CertificateError, match="another host"):
        client.get(f"https://a.test:{server.port}/")
    with Client(verify=False, fingerprint=pin(LEAF), resolver=resolver, timeout=20) as client:
        assert client.get(f"https://a.test:{server.port}/").ok


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_pin_holds_on_resumed_sessions(peer: MakePeer, root: Path, tmp_path: Path, version: ssl.TLSVersion) -> None:
    """And a server that shows another leaf resumes nothing: its session was another's."""
    resumed: list[bool | None] = []

    def script(conn: Conn, i: int) -> None:
        assert isinstance(conn.sock, ssl.SSLSocket)
        resumed.append(conn.sock.session_reused)
        answering(respond(b"x"))(conn, i)

    context = LEAF.server(tmp_path)
    context.maximum_version = version
    server = peer(script, tls=context)
    with Client(verify=root, fingerprint=pin(LEAF), timeout=20, disable_keep_alives=True) as client:
        for _ in range(3):
            assert client.get(server.url()).ok
        assert resumed == [False, True, True]
        server.tls = make("127.0.0.1", by=LEAF_ROOT).server(tmp_path)
        with pytest.raises(errors.CertificateError, match="not the pinned one"):
            client.get(server.url())


def test_a_plain_connection_has_no_leaf(peer: MakePeer) -> None:
    server = peer(answering(respond(b"x")))
    with Client(fingerprint=pin(LEAF), timeout=20) as client:
        assert client.get(server.url()).ok


@pytest.mark.parametrize("bad", ["", "sha256:", LEAF.sha256, "sha1:" + "ab" * 20, "sha256:" + "ab" * 31, "sha256:" + "ab" * 33, "sha256:" + "xy" * 32,
                                 "sha256:" + "ab:" * 32, "sha256:a:" + "ab" * 31 + "b", "sha256: " + "ab" * 32, "sha256:" + "ab" * 32 + "\n",
                                 "sha256:" + "\u0661" * 64])
def test_a_bad_form_is_refused_at_once(bad: str) -> None:
    with pytest.raises(ValueError, match="fingerprint must be"):
        Transport(fingerprint=bad)


@pytest.mark.parametrize("bad", [b"sha256:" + b"ab" * 32, 5, ["sha256:" + "ab" * 32]])
def test_a_pin_is_a_str(bad: Any) -> None:
    with pytest.raises(TypeError, match="fingerprint must be"):
        Transport(fingerprint=bad)
