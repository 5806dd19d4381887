"""TLS sessions are resumed, as the server counts them, and never where they should not be."""
from __future__ import annotations

import ctypes
import gc
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pooledhttp import Client, Timeout, Transport, errors
from tests.exchange.test_fork import in_child
from tests.support.ca import Authority
from tests.support.nginx import Nginx
from tests.support.peer import Conn, Peer, answering, free_ports, respond
from tests.support.processes import connectable, end, spawn

pytestmark = pytest.mark.usefixtures("tls_mode")

MakePeer = Callable[..., Peer]
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Counting:
    """A server that notes of each connection whether its session was resumed. `broken`: what breaks each handshake that wants to."""

    def __init__(self, peer: MakePeer, ca: Authority, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        self.resumed: list[bool | None] = []
        self.breaks: Callable[[Conn], object] | None = None
        self.context = ca.new_server("localhost", "127.0.0.1", "a.test", "b.test")
        self.context.minimum_version = self.context.maximum_version = version
        self.peer = peer(self.script)
        self.url = f"https://127.0.0.1:{self.peer.port}/"

    def script(self, conn: Conn, i: int) -> None:
        if self.breaks is not None and offers_a_session(conn.sock.recv(65536, socket.MSG_PEEK)):
            conn.recv_some()
            self.breaks(conn)
            return
        conn.start_tls(self.context)
        assert isinstance(conn.sock, ssl.SSLSocket)
        self.resumed.append(conn.sock.session_reused)
        answering(respond(b"x"))(conn, i)


def offers_a_session(hello: bytes) -> bool:
    """Whether a ClientHello (RFC 8446 section 4.1.2) has pre_shared_key, or a session_ticket that is not empty (RFC 5077 section 3.2)."""
    assert hello[:1] == b"\x16" and hello[5:6] == b"\x01"
    at = 43                                                    # record and handshake heads, version, random
    at += 1 + hello[at]                                        # session id
    at += 2 + int.from_bytes(hello[at:at + 2], "big")          # cipher suites
    at += 1 + hello[at]                                        # compression
    last = at + 2 + int.from_bytes(hello[at:at + 2], "big")
    at += 2
    while at < last:
        kind, length = (int.from_bytes(hello[at + i:at + i + 2], "big") for i in (0, 2))
        if kind == 41 or (kind == 35 and length):
            return True
        at += 4 + length
    return False


@pytest.fixture
def server(peer: MakePeer, ca: Authority) -> Counting:
    return Counting(peer, ca)


def loopback(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    return [(socket.AF_INET, ("127.0.0.1", port))]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_second_connection_resumes(peer: MakePeer, ca: Authority, version: ssl.TLSVersion) -> None:
    server = Counting(peer, ca, version)
    with Client(verify=ca.pem, timeout=20, disable_keep_alives=True) as client:
        for _ in range(4):
            assert client.get(server.url).conn.tls_version == version.name.replace("_", ".")
    assert server.resumed == [False, True, True, True]


@pytest.mark.parametrize("verify", ["file", False, "context", "system"])
def test_whatever_is_trusted(server: Counting, ca: Authority, monkeypatch: pytest.MonkeyPatch, verify: Any) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.pem))
    verify = {"file": ca.pem, "context": ca.client()}.get(verify, verify)
    with Client(verify=verify, timeout=20, disable_keep_alives=True) as client:
        for _ in range(3):
            assert client.get(server.url).ok
    assert server.resumed == [False, True, True]


def test_while_the_first_connection_is_open(server: Counting, ca: Authority) -> None:
    """The session is at hand once the first bytes came; no connection need close for it."""
    with Client(verify=ca.pem, timeout=20) as client, client.stream("GET", server.url), client.stream("GET", server.url), client.stream("GET", server.url):
        assert server.resumed == [False, True, True]


def test_nginx_counts_them(nginx: Nginx, ca: Authority) -> None:
    with Client(verify=ca.pem, timeout=20, disable_keep_alives=True) as client:
        assert [client.get(nginx.url("/resumed", "tls")).text for _ in range(4)] == [".", "r", "r", "r"]


class MallInfo(ctypes.Structure):
    """glibc's mallinfo2."""
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]


def test_memory_stays(nginx: Nginx, ca: Authority) -> None:
    """`ssl` leaks some 7 KiB for each look at a session, until CPython 3.12.8 and 3.13.1."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("no mallinfo2")
    libc.mallinfo2.restype = MallInfo

    def used() -> int:
        gc.collect()
        return int(libc.mallinfo2().uordblks)

    n = 100
    with Client(verify=ca.pem, timeout=20, disable_keep_alives=True) as client:
        for _ in range(20):
            client.get(nginx.url("/resumed", "tls"))
        before = used()
        for _ in range(n):
            assert client.get(nginx.url("/resumed", "tls")).text == "r"
        assert used() - before < n * 2000


def test_no_handler_of_a_signal_runs_while_a_session_is_kept(nginx: Nginx, ca: Authority) -> None:
    """It would where Python code is called, and what it raised would be lost there, with the answer."""
    called: list[str] = []

    def note(frame: Any, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code.co_filename == ssl.__file__:
            called.append(frame.f_code.co_name)

    with Client(verify=ca.pem, timeout=20, disable_keep_alives=True) as client:
        for _ in range(2):
            client.get(nginx.url("/resumed", "tls"))
        sys.setprofile(note)
        try:
            assert client.get(nginx.url("/resumed", "tls")).text == "r"
        finally:
            sys.setprofile(None)
    assert {"do_handshake", "version"} <= set(called)            # by the dial, which is arranged for that
    assert not {"session", "session_reused", "pending", "read", "write"} & set(called)


@pytest.fixture(params=["-tls1_2", "-tls1_3"])
def s_server(request: pytest.FixtureRequest, ca: Authority, tmp_path: Path) -> Iterator[int]:
    """OpenSSL's own server, on a port; it answers with the session's parameters, "Reused" among them, and keeps nothing alive."""
    chain, key = ca.issue()
    port = free_ports(1)[0]
    with (tmp_path / "output").open("wb") as output:
        child = spawn("openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", chain, "-key", key, "-www", request.param,
                      stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            for _ in range(500):
                if connectable(port):
                    break
                threading.Event().wait(0.02)
            else:
                raise AssertionError("openssl s_server does not listen")
            yield port
        finally:
            end(child)


def test_openssls_own_server_counts_them(s_server: int, ca: Authority) -> None:
    with Client(verify=ca.pem, timeout=20) as client:
        said = [client.get(f"https://127.0.0.1:{s_server}/").text for _ in range(3)]
    assert [("Reused, TLS" in text, "New, TLS" in text) for text in said] == [(False, True), (True, False), (True, False)]


@pytest.mark.parametrize("first", VERSIONS)
def test_servers_of_two_versions_behind_one_name(peer: MakePeer, ca: Authority, first: ssl.TLSVersion) -> None:
    """The session of one version is no hindrance to speaking another."""
    servers = [Counting(peer, ca, version) for version in sorted(VERSIONS, key=lambda v: v != first)]
    turns = iter((0, 1, 1, 0, 0))

    def resolver(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
        return [(socket.AF_INET, ("127.0.0.1", servers[next(turns)].peer.port))]

    with Client(verify=ca.pem, timeout=20, resolver=resolver, disable_keep_alives=True) as client:
        for _ in range(5):
            assert client.get("https://a.test/").ok
        stats = client.transport.stats()
        assert (stats.dials, stats.opened) == (5, 5)
    assert [server.resumed for server in servers] == [[False, False, True], [False, True]]
    assert [server.peer.accepted for server in servers] == [3, 2]


def test_never_between_host_names(server: Counting, ca: Authority) -> None:
    with Client(verify=ca.pem, timeout=20, resolver=loopback, disable_keep_alives=True) as client:
        for host in ("a.test", "b.test", "127.0.0.1", "a.test", "b.test", "127.0.0.1"):
            assert client.get(f"https://{host}:{server.peer.port}/").ok
    assert server.resumed == [False, False, False, True, True, True]


def test_never_between_identities(server: Counting, ca: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who trusts anyone made the session: it must not open a door to those who check, nor the other way."""
    with Client(verify=False, timeout=20, disable_keep_alives=True) as anyone:
        assert anyone.get(server.url).ok and anyone.get(server.url).ok
    assert server.resumed == [False, True]
    with Transport(disable_keep_alives=True) as transport:
        strict = Client(transport=transport, timeout=20)
        monkeypatch.setenv("SSL_CERT_FILE", str(ca.pem))
        trusting = Client(transport=transport, timeout=20)
        for _ in range(2):
            assert trusting.get(server.url).ok
            with pytest.raises(errors.CertificateError):
                strict.get(server.url)
    assert server.resumed == [False, True, False, True]
    for name in ("a.test", "b.test"):
        with Client(verify=ca.pem, timeout=20, server_hostname=name) as client:
            assert client.get(server.url).ok
    assert server.resumed[4:] == [False, False]


def test_dropped_where_the_trusted_file_changed(server: Counting, ca: Authority, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(ca.pem.read_bytes())
    with Client(verify=file, timeout=20, disable_keep_alives=True) as client:
        assert client.get(server.url).ok and client.get(server.url).ok
        os.utime(file, ns=(1, 1))
        assert client.get(server.url).ok and client.get(server.url).ok
    assert server.resumed == [False, True, False, True]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("how", ["alert", "close", "reset"])
def test_a_server_that_breaks_on_sessions_fails_no_request(peer: MakePeer, ca: Authority, how: str, version: ssl.TLSVersion) -> None:
    """The handshake is begun anew on another connection, without it."""
    server = Counting(peer, ca, version)
    with Client(verify=ca.pem, timeout=20, disable_keep_alives=True) as client:
        assert client.get(server.url).ok and client.get(server.url).ok
        server.breaks = {"alert": lambda conn: conn.send(b"\x15\x03\x03\x00\x02\x02\x50"), "close": lambda conn: None,
                         "reset": lambda conn: conn.reset()}[how]
        r = client.get(server.url)
        assert r.ok and r.timings["connect"] > 0 and r.timings["tls"] > 0
        assert server.resumed == [False, True, False]
        stats = client.transport.stats()
        assert (stats.dials, stats.opened, stats.retries) == (3, 3, 0)
    assert server.peer.accepted == 4


def test_a_server_that_breaks_all_the_same_is_an_error(peer: MakePeer, ca: Authority) -> None:
    """One more connection, and no more than that."""
    server = Counting(peer, ca)
    with Client(verify=ca.pem, timeout=20, disable_keep_alives=True) as client:
        assert client.get(server.url).ok
        server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)            # no certificate: nothing in common with anyone
        with pytest.raises(errors.TLSError, match="nothing in common"):
            client.get(server.url)
        assert server.peer.accepted == 3
        with pytest.raises(errors.TLSError):
            client.get(server.url)
        assert server.peer.accepted == 4                                    # the session is forgotten


def test_the_handshakes_limit_covers_both_tries(peer: MakePeer, ca: Authority) -> None:
    server = Counting(peer, ca)
    with Client(verify=ca.pem, disable_keep_alives=True) as client:
        assert client.get(server.url, timeout=20).ok
        stalled: list[Conn] = []

        def breaks(conn: Conn) -> None:
            server.peer.script = lambda conn, i: (stalled.append(conn), conn.stall())

        server.breaks = breaks
        with pytest.raises(errors.TLSHandshakeTimeout):
            client.get(server.url, timeout=Timeout(connect=20, tls_handshake=0.3))
        assert len(stalled) == 1
        with pytest.raises(errors.DeadlineExceeded):
            client.get(server.url, timeout=0.2)


def test_a_server_that_is_stuck_with_a_session_is_not_offered_it_again(peer: MakePeer, ca: Authority) -> None:
    server = Counting(peer, ca)
    with Client(verify=ca.pem, disable_keep_alives=True) as client:
        for limit in (Timeout(tls_handshake=0.2), Timeout(total=0.2)):
            assert client.get(server.url, timeout=20).ok
            server.breaks = lambda conn: conn.recv_until_closed()
            with pytest.raises((errors.TLSHandshakeTimeout, errors.DeadlineExceeded)):
                client.get(server.url, timeout=limit)
            assert client.get(server.url, timeout=20).ok
            server.breaks = None
    assert server.resumed == [False, False, True, False]


def test_a_context_that_refuses_its_session(server: Counting, ca: Authority) -> None:
    """One of the user's that has another inside, made anew now and then (CPython refuses a session of another context)."""
    made: list[ssl.SSLContext] = []

    class Changing(ssl.SSLContext):
        def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
            made.append(ca.client())
            return made[-1].wrap_bio(*args, **options)

    with Client(verify=Changing(ssl.PROTOCOL_TLS_CLIENT), timeout=20, disable_keep_alives=True) as client:
        for _ in range(3):
            assert client.get(server.url).ok
    assert server.resumed == [False] * 3 and len(made) == 5


def test_many_threads_resume_one_session(server: Counting, ca: Authority) -> None:
    with Client(verify=ca.pem, timeout=30, disable_keep_alives=True) as client:
        assert client.get(server.url).ok
        failed: list[BaseException] = []

        def work() -> None:
            try:
                for _ in range(10):
                    assert client.get(server.url).ok
            except BaseException as e:
                failed.append(e)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failed == []
    assert server.resumed == [False] + [True] * 80


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_resumes(server: Counting, ca: Authority) -> None:
    """A session is bytes that the server gave; the child's copy is as good."""
    with Client(verify=ca.pem, timeout=20, disable_keep_alives=True) as client:
        assert client.get(server.url).ok

        def work() -> None:
            assert client.get(server.url).ok

        in_child(work)
        assert client.get(server.url).ok
    assert server.resumed == [False, True, True]


def test_they_are_bounded(server: Counting, ca: Authority) -> None:
    """They go with the pool's row of their host: the least recently used of many."""
    with Client(verify=ca.pem, timeout=20, resolver=loopback, disable_keep_alives=True) as client:
        pool = client.transport.pool
        assert client.get(f"https://a.test:{server.peer.port}/").ok
        for i in range(1024):
            pool.host(f"https://{i}.test:443")
        assert f"https://a.test:{server.peer.port}" not in client.transport.stats().hosts
        assert client.get(f"https://a.test:{server.peer.port}/").ok
    assert server.resumed == [False, False]
