"""Which `ssl.SSLObject`s have their records read and written by OpenSSL directly, and that all others work as well."""
from __future__ import annotations

import ssl
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from pooledhttp._net import openssl, testing
from pooledhttp._net.tls import TlsStream

from .conftest import Certificates, Tls, TlsPeer, shake, tcp_pair

pytestmark = pytest.mark.skipif(not openssl.available(), reason="this Python's ssl module does not let OpenSSL be reached")


class Other(ssl.SSLObject):
    pass


class Wrapped:
    """Stands before an SSLObject, and has the rest of it by its own name."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class WrappingContext(ssl.SSLContext):
    def wrap_bio(self, *args: Any, **kw: Any) -> Any:
        return Wrapped(super().wrap_bio(*args, **kw))


def plain(certs: Certificates) -> ssl.SSLContext:
    return certs.client()


def with_other_objects(certs: Certificates) -> ssl.SSLContext:
    return certs.client(sslobject_class=Other)


def with_a_wrapper(certs: Certificates) -> ssl.SSLContext:
    context = WrappingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certs.ca_file)
    return context


def with_its_messages_watched(certs: Certificates) -> ssl.SSLContext:
    return certs.client(_msg_callback=lambda *_: None)


@pytest.mark.parametrize(("make", "direct"), [(plain, True), (with_other_objects, False), (with_a_wrapper, False), (with_its_messages_watched, False)])
def test_whose_records_are_direct(certs: Certificates, make: Callable[[Certificates], ssl.SSLContext], direct: bool) -> None:
    context = make(certs)
    ours, theirs = tcp_pair()
    stream, peer = TlsStream(ours, context, "localhost"), TlsPeer(theirs, certs.server())
    shake(stream, peer)
    for _ in range(3):
        testing.send(stream, b"ask")
        assert peer.recv(3) == b"ask"
        peer.send(b"answer")
        assert testing.recv(stream, 100, 1.0) == b"answer"
    assert openssl.offered(context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")) is direct
    testing.close(stream)
    theirs.close()


def test_what_is_no_ssl_object_is_not_offered(certs: Certificates) -> None:
    ours, theirs = tcp_pair()
    with certs.client().wrap_socket(ours, server_hostname="localhost", do_handshake_on_connect=False) as over_a_socket:
        assert not openssl.offered(over_a_socket)
        held = ssl.SSLObject.__new__(ssl.SSLObject)
        assert not openssl.offered(held)
        held._sslobj = over_a_socket._sslobj          # type: ignore[attr-defined]
        assert not openssl.offered(held)              # it stands on a descriptor, not on memory
        held._sslobj = object()                       # type: ignore[attr-defined]
        assert not openssl.offered(held)
    for foreign in (None, object(), 7):
        assert not openssl.offered(foreign)
    theirs.close()


def test_an_object_whose_context_was_changed(certs: Certificates) -> None:
    one = certs.client().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
    assert openssl.offered(one)
    one.context = certs.client()                      # as an SNI callback may: the object says so itself
    assert openssl.offered(one)


def test_turned_off(certs: Certificates) -> None:
    one = certs.client().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
    assert openssl.use(False) is True
    try:
        assert not openssl.offered(one)
    finally:
        assert openssl.use(True) is False
    assert openssl.offered(one)


@pytest.mark.parametrize("change", ["del _ssl.__file__", "_ssl.__file__ = '/nowhere/_ssl.so'", "_ssl.__file__ = _ssl.__file__.replace('_ssl', '_json')",
                                    "del _ssl._SSLSocket"])
def test_an_ssl_module_of_another_make(change: str) -> None:
    """Linked into the interpreter, or with names of its own: said to be unavailable, and no address is made up."""
    program = f"""
import _json, _ssl, ssl
one = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
{change}
from pooledhttp._net import openssl
assert not openssl.available()
assert not openssl.offered(one)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_failure_is_named_as_ssl_names_it(certs: Certificates) -> None:
    seen = []
    for direct in (True, False):
        before = openssl.use(direct)
        try:
            with Tls(certs) as tls:
                tls.peer.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                with pytest.raises(ssl.SSLError) as failure:
                    testing.recv(tls.stream, 100, 1.0)
        finally:
            openssl.use(before)
        seen.append((type(failure.value), failure.value.errno, failure.value.library, failure.value.reason))
    assert seen[0] == seen[1]
    assert openssl.reason_of("tlsv13 alert certificate required") == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    assert openssl.reason_of("sslv3 alert bad certificate") == openssl.reason_of("ssl/tls alert bad certificate") == "SSLV3_ALERT_BAD_CERTIFICATE"
