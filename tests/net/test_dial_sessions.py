"""The dial's second try, without the session that the server may have broken on: it can be left and taken up like the first."""
from __future__ import annotations

import socket
import ssl
import threading
import time

import pytest

from pooledhttp._core import runtime
from pooledhttp._net import testing
from pooledhttp._net.dial import Dial, DialSpec
from pooledhttp._net.tls import TlsStream
from pooledhttp._net.tlsconfig import settings

from .conftest import SECOND, Certificates, Peer

pytestmark = pytest.mark.usefixtures("tls_mode")


def spec_with_a_session(listener: socket.socket, certs: Certificates, context: ssl.SSLContext) -> DialSpec:
    """As a first connection leaves it."""
    spec = DialSpec("localhost", listener.getsockname()[1], tls=settings(certs.ca_file), happy_eyeballs_delay=None)

    def serve() -> None:
        with context.wrap_socket(listener.accept()[0], server_side=True) as tls:
            tls.sendall(b"x")
            assert tls.recv(1) == b""

    with Peer(serve):
        stream = Dial(spec, 8 * SECOND, 8 * SECOND).run()
        assert isinstance(stream, TlsStream)
        assert spec.sessions == [None]                 # TLS 1.3: the tickets come with the first bytes
        assert testing.recv(stream, 1, 5.0) == b"x"
        assert spec.sessions[0] is not None and spec.sessions[0][1].has_ticket
        testing.close(stream)
    return spec


def test_it_is_left_and_finished_by_another_thread(certs: Certificates) -> None:
    gate, second = threading.Event(), threading.Event()
    context = certs.server()
    for_good = False

    def serve() -> None:
        sock, _ = listener.accept()
        assert sock.recv(1000)
        sock.close()                                   # broken on the session
        sock, _ = listener.accept()
        second.set()
        assert gate.wait(10)
        with context.wrap_socket(sock, server_side=True) as tls:
            assert not tls.session_reused
            assert tls.recv(1) == b""

    def wake() -> None:
        nonlocal for_good
        assert second.wait(10)
        for_good = True
        handle.signal()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        spec = spec_with_a_session(listener, certs, context)
        dial, handle = Dial(spec, 8 * SECOND, 8 * SECOND), runtime.current_wake()
        with Peer(serve):
            with Peer(wake):
                assert dial.run(time.monotonic_ns() + 9 * SECOND, lambda: for_good) is None
            handle.clear()                             # where the dial looked between `for_good` and the signal
            assert spec.sessions == [None]
            finisher = Peer(dial.run)
            gate.set()
            stream = finisher.join()
            assert not stream.session_reused and stream.peer_certificate is not None
            assert dial.timings["tls"] > 0
            testing.close(stream)


def test_it_is_abandoned(certs: Certificates) -> None:
    """No socket is left (as the fixture of this directory holds)."""
    done = threading.Event()

    def serve() -> None:
        for last in (False, True):
            sock = listener.accept()[0]
            assert sock.recv(1000)
            if last:
                done.set()
                assert sock.recv(1000) == b""
            sock.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        spec = spec_with_a_session(listener, certs, certs.server())
        dial = Dial(spec, 8 * SECOND, 8 * SECOND)
        handle = runtime.current_wake()

        def wake() -> None:
            assert done.wait(10)
            handle.signal()

        with Peer(serve):
            with Peer(wake):
                assert dial.run(-1, done.is_set) is None
            handle.clear()
            dial.abandon()
