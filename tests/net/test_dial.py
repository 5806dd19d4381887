"""The dial: DNS, TCP, TLS under deadlines; what fails is named, and nothing leaks."""
from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import select
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from pooledhttp import errors
from pooledhttp._core import runtime
from pooledhttp._net import testing
from pooledhttp._net.dial import FOREVER, DeadlinePassed, Dial, DialSpec, attempt_end, interleave, show
from pooledhttp._net.resolver import Address, Resolver
from pooledhttp._net.tlsconfig import settings

from .conftest import SECOND, Certificates, Peer, lateness, reset, until


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


def answers(*addresses: tuple[Any, ...]) -> Resolver:
    found: list[Address] = [(socket.AF_INET6 if ":" in a[0] else socket.AF_INET, a) for a in addresses]
    return Resolver(lambda host, port: found)


def serve_tls(listener: socket.socket, context: ssl.SSLContext) -> Callable[[], None]:
    """One connection: whatever comes is sent back, until the client says goodbye."""
    def serve() -> None:
        sock, _ = listener.accept()
        with contextlib.suppress(OSError), context.wrap_socket(sock, server_side=True) as tls:
            while data := tls.recv(1000):
                tls.sendall(data)
    return serve


# -- what comes of it --

def test_plain(listener: socket.socket) -> None:
    dial = Dial(DialSpec("localhost", port_of(listener)), 5 * SECOND)
    stream = dial.run()
    assert stream is not None
    peer, address = listener.accept()
    assert dial.info == (("127.0.0.1", port_of(listener)), address, None, None, None)
    assert dial.timings["dns"] > 0 and dial.timings["connect"] > 0 and dial.timings["tls"] == 0
    fd = testing.fileno(stream)
    assert os.get_blocking(fd) and fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    testing.send(stream, b"hello")
    assert peer.recv(10) == b"hello"
    with pytest.raises(RuntimeError):
        dial.run()
    dial.abandon()                                    # the stream is the caller's by now
    assert testing.probe(stream) == "ok"
    testing.close(stream)
    peer.close()


def test_tls(listener: socket.socket, certs: Certificates) -> None:
    with Peer(serve_tls(listener, certs.server())):
        dial = Dial(DialSpec("127.0.0.1", port_of(listener), tls=settings(certs.ca_file)), 5 * SECOND, 5 * SECOND)
        stream = dial.run()
        assert stream is not None
        assert dial.info[2:] == ("TLSv1.3", "TLS_AES_256_GCM_SHA384", "http/1.1")
        assert all(ns > 0 for ns in dial.timings.values())
        assert os.get_blocking(testing.fileno(stream))
        testing.send(stream, b"hello")
        assert testing.recv(stream, 10, 1.0) == b"hello"
        testing.close(stream)


def test_ipv6(certs: Certificates) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener, Peer(serve_tls(listener, certs.server())):
        dial = Dial(DialSpec("::1", port_of(listener), tls=settings(certs.ca_file)))
        stream = dial.run()
        assert dial.info.remote_addr == ("::1", port_of(listener)) and stream is not None
        testing.close(stream)


@pytest.mark.parametrize("name", [None, "example.test"])
def test_sni(listener: socket.socket, certs: Certificates, name: str | None) -> None:
    asked = []
    context = certs.server()
    context.sni_callback = lambda sock, host, ctx: asked.append(host)
    with Peer(serve_tls(listener, context)):
        stream = Dial(DialSpec("127.0.0.1", port_of(listener), tls=settings(certs.ca_file), server_hostname=name)).run()
        assert stream is not None
        testing.close(stream)
    assert asked == [name]                            # RFC 6066: no address in SNI


def test_client_certificate(listener: socket.socket, certs: Certificates, tmp_path: Path) -> None:
    file = tmp_path / "client.pem"
    certs.ca.issue_cert("client").private_key_and_cert_chain_pem.write_to_path(file)
    context = certs.server(verify_mode=ssl.CERT_REQUIRED)
    certs.ca.configure_trust(context)
    with Peer(serve_tls(listener, context)):
        stream = Dial(DialSpec("127.0.0.1", port_of(listener), tls=settings(certs.ca_file, file))).run()
        assert stream is not None
        testing.send(stream, b"x")
        assert testing.recv(stream, 1, 2.0) == b"x"
        testing.close(stream)
    with Peer(serve_tls(listener, context)):
        stream = Dial(DialSpec("127.0.0.1", port_of(listener), tls=settings(certs.ca_file))).run()
        assert stream is not None
        with pytest.raises(ssl.SSLError, match="(?i)certificate required"):       # TLS 1.3: heard of after our Finished
            testing.recv(stream, 1, 2.0)
        testing.close(stream)


def test_unix_socket(tmp_path: Path, certs: Certificates) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        dial = Dial(DialSpec("localhost", 80, uds=path))
        stream = dial.run()
        assert dial.info[:2] == (path, None) and stream is not None
        testing.close(stream)
        listener.accept()[0].close()
        with Peer(serve_tls(listener, certs.server())):
            stream = Dial(DialSpec("localhost", 80, uds=path, tls=settings(certs.ca_file))).run()
            assert stream is not None
            testing.close(stream)
    with pytest.raises(errors.ConnectError, match=f"{path}.*refused"):
        Dial(DialSpec("localhost", 80, uds=path)).run()
    with pytest.raises(errors.ConnectError, match="No such file"):
        Dial(DialSpec("localhost", 80, uds=path + "x")).run()


def test_a_unix_socket_whose_backlog_is_full(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        filler = socket.socket(socket.AF_UNIX)
        filler.connect(path)
        lateness(0.3, lambda: Dial(DialSpec("localhost", 80, uds=path), int(0.3 * SECOND)).run(), errors.ConnectTimeout, rounds=1)
        timer = threading.Timer(0.05, lambda: listener.accept()[0].close())
        timer.start()
        stream = Dial(DialSpec("localhost", 80, uds=path), 5 * SECOND).run()
        assert stream is not None
        timer.join()
        testing.close(stream)
        filler.close()
        listener.accept()[0].close()


def test_socket_options(listener: socket.socket) -> None:
    spec = DialSpec("127.0.0.1", port_of(listener), tcp_keepalive=7.0, local_address="127.0.0.9",
                    socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)])
    stream = Dial(spec).run()
    assert stream is not None
    sock = socket.socket(fileno=os.dup(testing.fileno(stream)))
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 7
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 8192
    assert sock.getsockname()[0] == "127.0.0.9"
    sock.close()
    testing.close(stream)
    stream = Dial(DialSpec("127.0.0.1", port_of(listener), tcp_keepalive=None)).run()
    assert stream is not None
    sock = socket.socket(fileno=os.dup(testing.fileno(stream)))
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    sock.close()
    testing.close(stream)


@pytest.mark.parametrize("bad", [{"local_address": "192.0.2.77"}, {"socket_options": [(9999, 9999, 1)]}, {"socket_options": [("x",)]}])
def test_options_that_the_system_refuses(listener: socket.socket, bad: dict[str, Any]) -> None:
    with pytest.raises(errors.ConnectError, match="127.0.0.1"):
        Dial(DialSpec("127.0.0.1", port_of(listener), **bad)).run()


def test_a_local_address_that_is_a_name() -> None:
    with pytest.raises(ValueError, match="no IP"):
        DialSpec("127.0.0.1", 80, local_address="localhost")


def test_a_local_address_of_the_other_family(listener: socket.socket) -> None:
    with pytest.raises(errors.ConnectError, match="of that family"):
        Dial(DialSpec("127.0.0.1", port_of(listener), local_address="::1")).run()


# -- addresses --

def test_interleaving() -> None:
    four: list[Address] = [(socket.AF_INET, (f"10.0.0.{i}", 1)) for i in range(3)]
    six: list[Address] = [(socket.AF_INET6, (f"::{i}", 1, 0, 0)) for i in range(2)]
    assert interleave([]) == []
    assert interleave(six + four) == [six[0], four[0], six[1], four[1], four[2]]
    assert interleave(four + six) == [four[0], six[0], four[1], six[1], four[2]]


def test_attempts_share_what_remains() -> None:
    s = SECOND
    assert attempt_end(0, FOREVER, 3) == FOREVER
    assert attempt_end(s, 31 * s, 3) == 11 * s
    assert attempt_end(s, 31 * s, 1) == 31 * s
    assert attempt_end(0, 5 * s, 10) == 2 * s
    assert attempt_end(4 * s, 5 * s, 10) == 5 * s


def test_show() -> None:
    assert show(("fe80::1", 80, 0, 2)) == "[fe80::1%2]:80" and show(("fe80::1%lo", 80, 0, 1)) == "[fe80::1%lo]:80"
    assert show(("::1", 80, 0, 0)) == "[::1]:80" and show(("a", 1)) == "a:1" and show("/x") == "/x"


def test_the_next_address_is_tried_after_a_refusal(listener: socket.socket, closed_port: int) -> None:
    resolver = answers(("127.0.0.1", closed_port), ("::1", closed_port, 0, 0), ("127.0.0.1", port_of(listener)))
    start = time.monotonic()
    stream = Dial(DialSpec("a.test", 1, resolver=resolver, happy_eyeballs_delay=5.0)).run()
    assert stream is not None and time.monotonic() - start < 1
    testing.close(stream)


@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_the_next_address_is_tried_beside_one_that_stalls(listener: socket.socket, full_listener: tuple[str, int], delay: float) -> None:
    dial = Dial(DialSpec("a.test", 1, resolver=answers(full_listener, ("127.0.0.1", port_of(listener))), happy_eyeballs_delay=delay))
    start = time.monotonic()
    stream = dial.run()
    took = time.monotonic() - start
    assert stream is not None and delay <= took < delay + 0.1
    assert dial.info.remote_addr == ("127.0.0.1", port_of(listener))
    testing.close(stream)


def test_one_after_another(listener: socket.socket, full_listener: tuple[str, int]) -> None:
    # Without Happy Eyeballs the first gets its share (2 s is the least), then the second is tried.
    spec = DialSpec("a.test", 1, resolver=answers(full_listener, ("127.0.0.1", port_of(listener))), happy_eyeballs_delay=None)
    start = time.monotonic()
    stream = Dial(spec, 3 * SECOND).run()
    assert stream is not None and 2.0 <= time.monotonic() - start < 2.1
    testing.close(stream)


def test_every_address_tried_is_named(closed_port: int) -> None:
    calls = []

    def resolve(host: str, port: int) -> list[Address]:
        calls.append(host)
        return [(socket.AF_INET6, ("::1", closed_port)), (socket.AF_INET, ("127.0.0.1", closed_port))]

    spec = DialSpec("a.test", 443, resolver=Resolver(resolve))
    for n in (1, 2):
        with pytest.raises(errors.ConnectError) as caught:
            Dial(spec, 5 * SECOND).run()
        text = str(caught.value)
        assert text.startswith("cannot connect to a.test:443: ")
        assert f"[::1]:{closed_port}: Connection refused" in text and f"127.0.0.1:{closed_port}: Connection refused" in text
        assert caught.value.phase == "connect" and not isinstance(caught.value, errors.DNSError)
        assert len(calls) == n                        # a failed connect drops the answer


def test_answers_are_kept_where_the_connect_succeeds(listener: socket.socket) -> None:
    calls = []

    def resolve(host: str, port: int) -> list[Address]:
        calls.append(host)
        return [(socket.AF_INET, ("127.0.0.1", port))]

    resolver = Resolver(resolve)
    for fresh, n in ((False, 1), (False, 1), (True, 2)):
        stream = Dial(DialSpec("a.test", port_of(listener), resolver=resolver, fresh_dns=fresh)).run()
        assert stream is not None and len(calls) == n
        testing.close(stream)


def test_dns_errors() -> None:
    with pytest.raises(errors.DNSError, match="nothing.invalid"):
        Dial(DialSpec("nothing.invalid", 80), 5 * SECOND).run()


def test_filter(listener: socket.socket) -> None:
    asked = []

    def refuse(ip: str, port: int) -> bool:
        asked.append((ip, port))
        return ip == "127.0.0.3"

    port = port_of(listener)
    resolver = answers(("127.0.0.2", 1), ("::ffff:127.0.0.1", 1, 0, 0), ("::1", 1, 0, 0))
    with pytest.raises(errors.ConnectRefusedByFilter, match="127.0.0.2") as caught:
        Dial(DialSpec("a.test", port, resolver=resolver, connect_filter=refuse)).run()
    assert caught.value.phase == "connect"
    assert asked == [("127.0.0.2", 1), ("127.0.0.1", 1), ("::1", 1)]     # what is connected to; a mapped address is what it stands for
    with socket.create_server(("127.0.0.3", 0)) as other:
        resolver = answers(("127.0.0.2", 1), ("127.0.0.3", port_of(other)))
        stream = Dial(DialSpec("a.test", port_of(other), resolver=resolver, connect_filter=refuse)).run()
        assert stream is not None
        testing.close(stream)


def test_a_filter_that_raises(listener: socket.socket) -> None:
    def refuse(ip: str, port: int) -> bool:
        raise LookupError("mine")

    with pytest.raises(LookupError):
        Dial(DialSpec("127.0.0.1", port_of(listener), connect_filter=refuse)).run()


# -- limits and deadlines --

def limits(seconds: float, dial: Callable[[int, int, int], Any], phase: str, expected: type[errors.TimeoutException], rounds: int) -> None:
    """`dial(connect_ns, tls_ns, deadline)` ends at its own limit with `expected`, at the caller's deadline with DeadlinePassed."""
    ns = int(seconds * SECOND)

    def own() -> None:
        try:
            dial(ns, ns, time.monotonic_ns() + 2 * ns)
        except errors.TimeoutException as exc:
            assert exc.phase == phase
            raise

    def callers() -> None:
        try:
            dial(2 * ns, FOREVER, time.monotonic_ns() + ns)
        except DeadlinePassed as exc:
            assert exc.phase == phase
            raise

    lateness(seconds, own, expected, rounds)
    if rounds > 1:
        lateness(seconds, callers, DeadlinePassed, rounds)


@pytest.mark.parametrize(("seconds", "rounds"), [(0.3, 3), (3.0, 1)])
def test_a_connect_that_stalls(full_listener: tuple[str, int], seconds: float, rounds: int) -> None:
    def dial(connect: int, tls: int, deadline: int) -> None:
        Dial(DialSpec(*full_listener), connect, tls).run(deadline)

    limits(seconds, dial, "connect", errors.ConnectTimeout, rounds)
    with pytest.raises(errors.ConnectTimeout, match=r"within connect=0.1 s: no answer in 0\.\d+ s"):      # an attempt begins after the dial does
        Dial(DialSpec(*full_listener), SECOND // 10).run()


def test_a_resolver_that_hangs() -> None:
    release = threading.Event()

    def hang(host: str, port: int) -> list[Address]:
        release.wait(30)
        return []

    resolver = Resolver(hang)

    def dial(connect: int, tls: int, deadline: int) -> None:
        Dial(DialSpec("hangs.test", 80, resolver=resolver), connect, tls).run(deadline)

    try:
        limits(0.3, dial, "dns", errors.ConnectTimeout, 3)
    finally:
        release.set()


@pytest.mark.parametrize(("seconds", "rounds"), [(0.3, 3), (3.0, 1)])
def test_a_handshake_that_stalls(listener: socket.socket, certs: Certificates, seconds: float, rounds: int) -> None:
    tls = settings(certs.ca_file)
    tls.context()

    def dial(connect: int, tls_ns: int, deadline: int) -> None:
        Dial(DialSpec("127.0.0.1", port_of(listener), tls=tls), connect, tls_ns).run(deadline)

    limits(seconds, dial, "tls", errors.TLSHandshakeTimeout, rounds)


def test_a_handshake_that_trickles(listener: socket.socket, certs: Certificates) -> None:
    tls = settings(certs.ca_file)
    tls.context()

    def trickle() -> None:
        sock, _ = listener.accept()
        with sock, contextlib.suppress(OSError):
            sock.sendall(b"\x16\x03\x03\x40\x00")
            while True:
                sock.sendall(b"\0")
                if select.select([sock], [], [], 0.005)[0] and not sock.recv(10000):
                    return

    with Peer(trickle):
        lateness(0.3, lambda: Dial(DialSpec("127.0.0.1", port_of(listener), tls=tls), FOREVER, int(0.3 * SECOND)).run(),
                 errors.TLSHandshakeTimeout, rounds=1)


# -- TLS that fails --

def failing(listener: socket.socket, context: ssl.SSLContext, spec: DialSpec, expected: type[errors.TLSError]) -> str:
    with Peer(serve_tls(listener, context)):
        with pytest.raises(expected) as caught:
            Dial(spec, 5 * SECOND, 5 * SECOND).run()
        assert caught.value.phase == "tls" and f"127.0.0.1:{port_of(listener)}" in str(caught.value)
        assert type(caught.value) is expected
        return str(caught.value)


def leaf(ca: trustme.CA, start: int = -1, end: int = 1, name: str = "127.0.0.1") -> ssl.SSLContext:
    now = datetime.datetime.now(datetime.timezone.utc)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    day = datetime.timedelta(days=1)
    ca.issue_cert(name, not_before=now + start * day, not_after=now + end * day).configure_cert(context)
    return context


def test_certificates_that_are_not_accepted(listener: socket.socket, certs: Certificates, tmp_path: Path) -> None:
    ca = certs.ca
    spec = DialSpec("127.0.0.1", port_of(listener), tls=settings(certs.ca_file))
    named = DialSpec("127.0.0.1", port_of(listener), tls=settings(certs.ca_file), server_hostname="other.test")
    refused = errors.CertificateError
    assert "has expired" in failing(listener, leaf(ca, -2, -1), spec, refused)
    assert "not yet valid" in failing(listener, leaf(ca, 1, 2), spec, refused)
    assert "for another address" in failing(listener, leaf(ca, name="10.9.8.7"), spec, refused)
    text = failing(listener, leaf(ca, name="a.test"), named, refused)
    assert "for another host" in text and "other.test" in text
    assert "issuer is unknown" in failing(listener, leaf(trustme.CA()), spec, refused)
    assert "self-signed" in failing(listener, self_signed(tmp_path), spec, refused)


def self_signed(folder: Path) -> ssl.SSLContext:
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "k", "-out", folder / "c"],
                   check=True, capture_output=True, timeout=10)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "c", folder / "k")
    return context


def test_without_verification_anyone_is_accepted(listener: socket.socket, certs: Certificates) -> None:
    with Peer(serve_tls(listener, leaf(trustme.CA(), -2, -1, "a.test"))):
        stream = Dial(DialSpec("127.0.0.1", port_of(listener), tls=settings(False))).run()
        assert stream is not None
        testing.close(stream)


def test_nothing_in_common(listener: socket.socket, certs: Certificates) -> None:
    context = ssl.create_default_context(cafile=certs.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    spec = DialSpec("127.0.0.1", port_of(listener), tls=settings(context))
    text = failing(listener, certs.server(maximum_version=ssl.TLSVersion.TLSv1_2), spec, errors.TLSError)
    assert "refuses our versions" in text


def scripted(listener: socket.socket, script: Callable[[socket.socket], None], certs: Certificates) -> str:
    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(65536)
            script(sock)

    with Peer(serve):
        with pytest.raises(errors.TLSError) as caught:
            Dial(DialSpec("127.0.0.1", port_of(listener), tls=settings(certs.ca_file)), 5 * SECOND, 5 * SECOND).run()
        assert type(caught.value) is errors.TLSError and caught.value.phase == "tls"
        return str(caught.value)


def test_what_is_no_tls(listener: socket.socket, certs: Certificates) -> None:
    assert "plain HTTP" in scripted(listener, lambda s: s.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"), certs)
    assert "does not speak TLS" in scripted(listener, lambda s: s.sendall(b"220 mail.test ESMTP\r\n"), certs)
    assert "closed the connection during the TLS handshake" in scripted(listener, lambda s: None, certs)
    assert "reset" in scripted(listener, reset, certs)
    assert "TLS with" in scripted(listener, lambda s: s.sendall(b"\x15\x03\x03\x00\x02\x02\x28"), certs)


def test_names_that_tls_cannot_ask_for(listener: socket.socket, certs: Certificates) -> None:
    for name in (".bad", "a" * 64 + ".test", ""):
        with pytest.raises(errors.TLSError):
            Dial(DialSpec("127.0.0.1", port_of(listener), tls=settings(certs.ca_file), server_hostname=name)).run()


def test_bad_files_are_heard_of_before_a_connection_is_spent(listener: socket.socket, tmp_path: Path) -> None:
    with pytest.raises(errors.TLSError, match="missing"):
        Dial(DialSpec("127.0.0.1", port_of(listener), tls=settings(tmp_path / "missing"))).run()
    listener.settimeout(0)
    with pytest.raises(BlockingIOError):
        listener.accept()


# -- leaving and taking up again --

class Woken:
    """What a caller would have: its wake handle, and why it was woken."""

    def __init__(self) -> None:
        self.for_good = False
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.for_good


@pytest.mark.parametrize("where", ["dns", "connect", "tls"])
def test_a_dial_is_left_and_finished_by_another_thread(certs: Certificates, where: str) -> None:
    gate = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    port = port_of(listener)
    fillers: list[socket.socket] = []

    def resolve(host: str, p: int) -> list[Address]:
        assert where != "dns" or gate.wait(10)
        return [(socket.AF_INET, ("127.0.0.1", port))]

    def serve() -> None:
        assert where == "dns" or gate.wait(10)
        for _ in fillers:
            listener.accept()[0].close()
        serve_tls(listener, certs.server())()

    if where == "connect":
        while True:
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
            if not select.select([], [sock], [], 0.1)[1]:
                sock.close()
                break
            fillers.append(sock)
    dial = Dial(DialSpec("localhost", port, tls=settings(certs.ca_file), resolver=Resolver(resolve)), 8 * SECOND, 8 * SECOND)
    woken, handle = Woken(), runtime.current_wake()

    def wake() -> None:
        handle.signal()                               # for nothing: the dial goes on
        until(lambda: woken.asked >= 3)
        woken.for_good = True
        handle.signal()

    with Peer(serve) as server:
        with Peer(wake):
            assert dial.run(time.monotonic_ns() + 5 * SECOND, woken) is None
        finisher = Peer(dial.run)
        gate.set()
        stream = finisher.join()
        assert dial.info.tls_version == "TLSv1.3"
        testing.send(stream, b"x")
        assert testing.recv(stream, 1, 2.0) == b"x"
        testing.close(stream)
        server.join()
    for sock in fillers:
        sock.close()
    listener.close()


@pytest.mark.parametrize("where", ["connect", "tls"])
def test_an_abandoned_dial_closes_its_sockets(
        listener: socket.socket, full_listener: tuple[str, int], certs: Certificates, where: str) -> None:
    host, port = full_listener if where == "connect" else listener.getsockname()
    dial = Dial(DialSpec(host, port, tls=settings(certs.ca_file)), 5 * SECOND, 5 * SECOND)
    woken, handle = Woken(), runtime.current_wake()

    def wake() -> None:
        until(lambda: woken.asked >= 1)
        woken.for_good = True
        handle.signal()

    with Peer(wake):
        assert dial.run(FOREVER, woken) is None
    dial.abandon()
    dial.abandon()
    with pytest.raises(RuntimeError):
        dial.run()


def test_ctrl_c_ends_a_dial(full_listener: tuple[str, int]) -> None:
    timer = threading.Timer(0.05, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        Dial(DialSpec(*full_listener)).run()
    assert time.monotonic() - start < 0.15
    timer.join()


def test_a_signal_that_raises_nothing_leaves_the_deadline_as_it_is(full_listener: tuple[str, int]) -> None:
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        lateness(0.3, lambda: Dial(DialSpec(*full_listener), int(0.3 * SECOND)).run(), errors.ConnectTimeout, rounds=1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(seen) > 3
