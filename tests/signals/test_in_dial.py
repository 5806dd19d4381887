"""A signal's handler that raises an OSError of its own in the midst of a dial: it is the caller's, and no address's failure."""
from __future__ import annotations

import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pooledhttp import Client, Transport
from tests.exchange.support import adds_up
from tests.support.ca import Authority
from tests.support.peer import Peer, answering, respond


class Expired(TimeoutError):
    """As of a block of code that an alarm bounds."""


@pytest.fixture
def expiring() -> Iterator[None]:
    def expire(*_: object) -> None:
        raise Expired

    before = signal.signal(signal.SIGUSR1, expire)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("expiring")
@pytest.mark.parametrize("step", ["setblocking", "setsockopt", "connect_ex", "getpeername"])
def test_at_a_step_of_the_connect(peer: Callable[..., Peer], new_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    real = getattr(socket.socket, step)
    armed = [True]

    def met(self: socket.socket, *args: Any) -> Any:
        out = real(self, *args)
        if armed:
            armed.clear()
            signal.raise_signal(signal.SIGUSR1)
        return out

    server = peer(answering(respond(b"ok")))
    client = new_client()
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, step, met, raising=False)
        with pytest.raises(Expired):
            client.get(server.url())
        assert not armed
    stats = client.transport.stats()
    assert (stats.dials, stats.dialing, stats.opened) == (1, 0, 0)
    assert client.get(server.url()).content == b"ok"


class Wired:
    """An SSLObject whose handshake is met by the signal."""

    def __init__(self, obj: Any) -> None:
        self._obj = obj

    def __getattr__(self, name: str) -> Any:
        return getattr(self._obj, name)

    def do_handshake(self) -> None:
        signal.raise_signal(signal.SIGUSR1)
        self._obj.do_handshake()


class Trap(ssl.SSLContext):
    armed = True

    def wrap_bio(self, *args: Any, **kw: Any) -> Any:
        obj = super().wrap_bio(*args, **kw)
        return Wired(obj) if self.armed else obj


@pytest.mark.usefixtures("expiring")
def test_in_the_handshake(peer: Callable[..., Peer], ca: Authority) -> None:
    trap = Trap(ssl.PROTOCOL_TLS_CLIENT)
    trap.load_verify_locations(str(ca.pem))
    server = peer(answering(respond(b"ok")), tls=ca.server())
    with Transport(verify=trap) as transport:
        client = Client(transport=transport, timeout=10.0)
        with pytest.raises(Expired):
            client.get(server.url())
        assert (transport.stats().dialing, transport.stats().opened) == (0, 0)
        trap.armed = False
        assert client.get(server.url()).content == b"ok"
    adds_up(transport.stats())
