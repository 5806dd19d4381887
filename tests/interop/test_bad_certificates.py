"""The table of certificates that are not accepted: each is a CertificateError that says which, and no connection is left."""
from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from pooledhttp import Client, Transport, errors
from tests.support.certificates import CLIENT, SERVER, Made, make, signed_with
from tests.support.peer import Peer, answering, respond

MakePeer = Callable[..., Peer]
NAME = "a.example.test"


def loopback(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    return [(socket.AF_INET, ("127.0.0.1", port))]


class Chains(NamedTuple):
    """What is trusted, and a place for the servers' files."""

    root: Made
    weak_root: Made
    rsa_root: Made
    middle: Made
    folder: Path
    trusted: Path


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> Chains:
    folder = tmp_path_factory.mktemp("chains")
    root, weak_root, rsa_root = (make(cn=f"root {bits}", authority=True, rsa_bits=bits) for bits in (0, 1024, 2048))
    trusted = folder / "trusted.pem"
    trusted.write_bytes(root.pem + weak_root.pem + rsa_root.pem)
    return Chains(root, weak_root, rsa_root, make(cn="middle", authority=True, by=root), folder, trusted)


def refused(peer: MakePeer, chains: Chains, host: str, certificate: Made, *chain: Made) -> str:
    """What the error says; nothing of the connection is left on either side, and nothing of a request was sent."""
    server = peer(answering(respond(b"x")), tls=certificate.server(chains.folder, *chain))
    url = f"https://{host}:{server.port}/"
    with Transport(verify=chains.trusted, resolver=loopback) as transport:
        with pytest.raises(errors.CertificateError) as caught:
            Client(transport=transport).get(url, timeout=20)
        stats = transport.stats()
        assert (stats.dials, stats.opened, stats.open, stats.dialing, stats.active) == (1, 0, 0, 0, 0)
    server.wait_closed()
    assert not server.conns[0].received
    error = caught.value
    assert error.phase == "tls" and error.request is not None and error.request.url == url
    assert f"the certificate of {host}:{server.port} was not accepted: " in str(error)
    return str(error)


def accepted(peer: MakePeer, chains: Chains, host: str, certificate: Made, *chain: Made) -> None:
    server = peer(answering(respond(b"x")), tls=certificate.server(chains.folder, *chain))
    with Client(verify=chains.trusted, resolver=loopback, timeout=20) as client:
        assert client.get(f"https://{host}:{server.port}/").content == b"x"


def test_what_is_good_is_accepted(peer: MakePeer, chains: Chains) -> None:
    """The table's own tools: without the one fault each certificate below passes."""
    accepted(peer, chains, NAME, make(NAME, by=chains.root))
    accepted(peer, chains, NAME, make("other.test", NAME, by=chains.middle, authority=False, usage=SERVER), chains.middle)


@pytest.mark.parametrize(("days", "words"), [((-30, -1), "has expired"), ((1, 30), "is not yet valid")])
def test_out_of_its_time(peer: MakePeer, chains: Chains, days: tuple[int, int], words: str) -> None:
    assert words in refused(peer, chains, NAME, make(NAME, by=chains.root, days=days))
    middle = make(cn="middle out of time", authority=True, by=chains.root, days=days)
    assert words in refused(peer, chains, NAME, make(NAME, by=middle), middle)


@pytest.mark.parametrize(("host", "names"), [
    (NAME, ["b.example.test"]),
    ("a.b.example.test", ["*.example.test"]),          # a wildcard stands for one label (RFC 9525 section 6.3),
    ("example.test", ["*.example.test"]),              # and for no less
    ("a.test", ["*.test"]),
    ("foo.example.test", ["f*.example.test"]),         # no part of a label
    ("a.example.test", ["a.*.test"]),                  # and only the leftmost one
    (NAME, []),
])
def test_a_name_it_does_not_have(peer: MakePeer, chains: Chains, host: str, names: list[str]) -> None:
    text = refused(peer, chains, host, make(*names, by=chains.root, cn=host))
    assert "it is for another host" in text and host in text


def test_a_common_name_alone_is_no_name(peer: MakePeer, chains: Chains) -> None:
    """RFC 9525 section 2."""
    assert "a name counts in subjectAltName only" in refused(peer, chains, NAME, make(by=chains.root, cn=NAME))


@pytest.mark.parametrize(("host", "names"), [
    (NAME, ["*.example.test"]), ("x-1.example.test", ["*.example.test"]), ("A.EXAMPLE.test", ["a.Example.TEST"]), ("127.0.0.1", ["127.0.0.1"]),
])
def test_names_that_it_has(peer: MakePeer, chains: Chains, host: str, names: list[str]) -> None:
    accepted(peer, chains, host, make(*names, by=chains.root))


@pytest.mark.parametrize("names", [["127.0.0.2"], ["a.test"], ["*.0.0.1"]])
def test_an_address_it_does_not_have(peer: MakePeer, chains: Chains, names: list[str]) -> None:
    """An address is neither a name nor under a wildcard, though a common name says it."""
    assert "it is for another address" in refused(peer, chains, "127.0.0.1", make(*names, by=chains.root, cn="127.0.0.1"))


def test_self_signed(peer: MakePeer, chains: Chains) -> None:
    assert "it is self-signed" in refused(peer, chains, NAME, make(NAME))


def test_an_unknown_authority(peer: MakePeer, chains: Chains) -> None:
    stranger = make(cn="stranger", authority=True)
    assert "its issuer is unknown" in refused(peer, chains, NAME, make(NAME, by=stranger))
    assert "ends in a self-signed certificate that is not trusted" in refused(peer, chains, NAME, make(NAME, by=stranger), stranger)


def test_a_stranger_by_a_known_name(peer: MakePeer, chains: Chains) -> None:
    """The trusted root's name, with another key."""
    refused(peer, chains, NAME, make(NAME, by=make(cn="root 0", authority=True)))


def test_a_missing_intermediate(peer: MakePeer, chains: Chains) -> None:
    assert "may not send an intermediate certificate" in refused(peer, chains, NAME, make(NAME, by=chains.middle))


def test_weak_keys(peer: MakePeer, chains: Chains) -> None:
    """RSA of 1024 bits, in the leaf and above it."""
    assert "its key is too weak" in refused(peer, chains, NAME, make(NAME, by=chains.root, rsa_bits=1024))
    assert "its issuer's key is too weak" in refused(peer, chains, NAME, make(NAME, by=chains.weak_root))


@pytest.mark.parametrize("digest", ["sha1", "md5"])
def test_weak_signatures(peer: MakePeer, chains: Chains, digest: str) -> None:
    assert "a signature that is too weak" in refused(peer, chains, NAME, signed_with(digest, NAME, chains.rsa_root, chains.folder))


def test_not_for_servers(peer: MakePeer, chains: Chains) -> None:
    assert "it is not meant for servers" in refused(peer, chains, NAME, make(NAME, by=chains.root, usage=CLIENT))


@pytest.mark.parametrize("said", [False, None])
def test_an_issuer_that_is_no_authority(peer: MakePeer, chains: Chains, said: bool | None) -> None:
    other = make("other.test", by=chains.root, authority=said)
    assert "its issuer is no certificate authority" in refused(peer, chains, NAME, make(NAME, by=other), other)
