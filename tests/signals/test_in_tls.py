"""A signal's handler that raises inside the `ssl` module: its exception is the caller's, whatever TLS was about to do."""
from __future__ import annotations

import signal
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pooledhttp import Client, Transport
from tests.exchange.support import adds_up
from tests.signals.conftest import Alarm
from tests.support.ca import Authority
from tests.support.peer import Conn, Peer, respond

pytestmark = pytest.mark.usefixtures("tls_mode")


class Wired:
    """An SSLObject, of which one call is met by a signal."""

    def __init__(self, obj: Any, context: Trap) -> None:
        self._obj = obj
        self._context = context

    @property
    def _sslobj(self) -> Wired:
        return self                    # what the stream takes the short way to

    def __getattr__(self, name: str) -> Any:
        return getattr(self._obj, name)

    def read(self, *args: Any) -> Any:
        self._context.met("read")
        return self._obj.read(*args)

    def write(self, *args: Any) -> Any:
        self._context.met("write")
        return self._obj.write(*args)

    def shutdown(self) -> Any:
        return self._obj.unwrap()

    def unwrap(self) -> Any:
        self._context.met("unwrap")
        return self._obj.unwrap()


class Trap(ssl.SSLContext):
    """`armed`: the next call of that name is met by SIGUSR1, once."""

    armed = ""

    def met(self, name: str) -> None:
        if self.armed == name:
            self.armed = ""
            signal.raise_signal(signal.SIGUSR1)

    def wrap_bio(self, *args: Any, **kw: Any) -> Any:
        return Wired(super().wrap_bio(*args, **kw), self)


@pytest.fixture
def trap(ca: Authority) -> Trap:
    context = Trap(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(str(ca.pem))
    return context


def _serve(conn: Conn, _: int) -> None:
    while True:
        conn.recv_head()
        conn.send(respond(b"whole"))


@pytest.mark.usefixtures("alarmed")
@pytest.mark.parametrize("where", ["write", "read"])
@pytest.mark.parametrize("warm", [True, False], ids=["reused", "fresh"])
def test_the_exception_is_the_callers(peer: Callable[..., Peer], ca: Authority, trap: Trap, where: str, warm: bool) -> None:
    server = peer(_serve, tls=ca.server())
    with Transport(verify=trap) as transport:
        client = Client(transport=transport, timeout=10.0)
        if warm:
            client.get(server.url("/"))
        trap.armed = where
        with pytest.raises(Alarm):
            client.get(server.url("/"))
        stats = transport.stats()
        assert stats.open == 0 and stats.retries == 0
        assert client.get(server.url("/")).content == b"whole"
    adds_up(transport.stats())


@pytest.mark.usefixtures("alarmed")
def test_in_the_probe_of_an_idle_connection(peer: Callable[..., Peer], ca: Authority, trap: Trap) -> None:
    more = threading.Event()
    sent = threading.Event()

    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.send(respond(b"whole"))
        if i == 0:
            assert more.wait(10)
            conn.send(b"unasked")                         # so that the probe has something to read
            sent.set()
        conn.recv_until_closed()

    server = peer(script, tls=ca.server())
    with Transport(verify=trap) as transport:
        client = Client(transport=transport, timeout=10.0)
        assert client.get(server.url("/")).content == b"whole"
        more.set()
        assert sent.wait(10)
        trap.armed = "read"                                   # whoever reads next, the janitor or we
        try:
            client.get(server.url("/"))
        except Alarm:
            until = time.monotonic() + 10
            while transport.stats().open and time.monotonic() < until:
                time.sleep(0.01)                              # the janitor may be about to close it
            assert transport.stats().open == 0
        else:
            assert transport.stats().closed["server_closed"] == 1      # the janitor was first; no signal is heard in its thread
    adds_up(transport.stats())


@pytest.mark.usefixtures("alarmed")
def test_the_goodbye_runs_no_handler(peer: Callable[..., Peer], ca: Authority, trap: Trap) -> None:
    # Nobody above could hear what it raises there.
    server = peer(_serve, tls=ca.server())
    with Transport(verify=trap) as transport:
        Client(transport=transport, timeout=10.0).get(server.url("/"))
        trap.armed = "unwrap"
        transport.close_idle_connections()
        assert trap.armed == "unwrap"
    adds_up(transport.stats())
