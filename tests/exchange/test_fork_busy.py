"""Forks in the midst of other threads' work: whatever lock they hold, the child works, and their connections hear nothing of it."""
from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable

import pytest

from pooledhttp import Client, Context, Cookies, DigestAuth, Error, Retry
from tests.exchange.support import adds_up, closed
from tests.support.ca import Authority
from tests.support.forking import busily, in_child, relay
from tests.support.peer import Conn, Peer, respond
from tests.support.processes import PATIENCE, end, read_line, spawn_python
from tests.support.pyserver import PyServer

MakePeer = Callable[..., Peer]
MakeClient = Callable[..., Client]
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def raw_fork() -> int:
    """As uWSGI forks: the system's call, and no word to Python."""
    return int(ctypes.PyDLL(None).fork())


def everything(conn: Conn, i: int) -> None:
    """Cookies, digest challenges, refusals that are tried again, long bodies."""
    while True:
        head, _ = conn.recv_request()
        path = head.split(b" ")[1]
        if path == b"/digest" and b"uthorization: " not in head:
            conn.send(respond(status=401, headers=[("WWW-Authenticate", 'Digest realm="r", nonce="n", qop="auth", algorithm=SHA-256')]))
        elif path == b"/busy":
            conn.send(respond(status=503))
        elif path == b"/long":
            conn.send(respond(b"x" * 100_000))
        else:
            conn.send(respond(b"fine", headers=[("Set-Cookie", f"c{i}=1")]))


def test_any_lock_may_be_held_by_another_thread(peer: MakePeer, new_client: MakeClient) -> None:
    server = peer(everything)
    client = new_client(max_conns_per_host=6, idle_conn_timeout=0.2)
    client.cookies = Cookies()
    digest, context = DigestAuth("u", "p"), Context()
    retry = Retry(1, backoff=0.0, jitter=False)

    def work(n: int, stop: threading.Event) -> None:
        while not stop.is_set():
            child = context.child(timeout=20)
            client.get(server.url("/"), context=child)
            client.get(server.url("/digest"), auth=digest, context=context)
            client.get(server.url("/busy"), retries=retry, context=context)
            with client.stream("GET", server.url("/long"), context=context) as r:
                r.read(10)                       # the rest is the janitor's
            for _ in client.map([server.url("/m")] * 4, workers=2, context=context):
                pass
            client.cookies.clear()

    def child() -> None:
        stats = client.transport.stats()
        assert (stats.open, stats.waiting, stats.dialing) == (0, 0, 0), stats
        for _ in range(2):
            assert client.get(server.url("/")).content == b"fine"
            assert client.get(server.url("/digest"), auth=digest).content == b"fine"
            assert client.get(server.url("/busy"), retries=retry).status_code == 503
            with client.stream("GET", server.url("/long")) as r:
                r.read(10)
            assert len(list(client.map([server.url("/m")] * 4, workers=2))) == 4
        context.cancel("in the child")
        with pytest.raises(Error, match="in the child"):
            client.get(server.url("/"))          # the context is ambient
        adds_up(client.transport.stats())

    with busily(6, work), context:
        for _ in range(15):
            in_child(child)
    assert not context.cancelled
    assert closed(client.transport.stats()).keys() <= {"idle_timeout", "drain_limit"}


def test_a_child_handshakes_while_the_parents_threads_do(tls_pyserver: PyServer, ca: Authority, new_client: MakeClient) -> None:
    """OpenSSL's locks are not for us to open in the child: the fork waits until nobody holds one."""
    client = new_client(verify=str(ca.pem), disable_keep_alives=True)
    url = f"https://127.0.0.1:{tls_pyserver.port}/"

    def work(n: int, stop: threading.Event) -> None:
        # Each thread's first handshake sets up its random numbers. None ends before the last fork: at a thread's end OpenSSL has a lock for a moment,
        # and that nobody sees.
        firsts: list[threading.Thread] = []

        def first(asked: threading.Event) -> None:
            client.get(url)
            asked.set()
            stop.wait()

        while not stop.is_set():
            if len(firsts) == 100:
                client.get(url)
                continue
            asked = threading.Event()
            firsts.append(threading.Thread(target=first, args=(asked,)))
            firsts[-1].start()
            asked.wait(10)
        for thread in firsts:
            thread.join()

    def child() -> None:
        assert client.get(url).ok
        assert [r.ok for r in client.map([url] * 2, workers=2)] == [True] * 2

    with busily(4, work):
        for _ in range(15):
            in_child(child)
    assert client.get(url).ok


def test_not_a_byte_on_the_parents_tls_connections(peer: MakePeer, tls_pyserver: PyServer, ca: Authority, new_client: MakeClient, tls_mode: str) -> None:
    """Seen on the wire, where an alert (close_notify) is a record as any other."""
    wire = peer(relay(tls_pyserver.port))
    client = new_client(verify=str(ca.pem))
    base = f"https://127.0.0.1:{wire.port}"
    with client.stream("GET", f"{base}/bytes/9000000") as r, client.stream("GET", f"{base}/bytes/10") as other:
        r.read(10)
        other.read()
        parents = len(wire.conns)
        before = [bytes(conn.received) for conn in wire.conns]

        def child(first: Callable[[], object]) -> None:
            first()
            try:
                r.read(100_000_000)
            except Error:
                pass
            else:
                raise AssertionError("the parent's body was read")
            assert client.get(f"{base}/bytes/7").conn.requests <= 2          # the second one, where `first` was a request
            assert client.get(f"{base}/bytes/7").conn.reused
            assert closed(client.transport.stats()) == {"forked": 2}
            r.close()
            client.transport.close(cancel=True)

        for first in (client.transport.stats, r.close, client.transport.close_idle_connections, lambda: client.get(f"{base}/bytes/7"), lambda: None):
            in_child(lambda first=first: child(first))
        assert [bytes(conn.received) for conn in wire.conns[:parents]] == before
        assert len(wire.conns) == parents + 5
        assert len(r.read()) == 9_000_000 - 10
    assert client.get(f"{base}/bytes/7").conn.reused


# As uWSGI's master: no other threads of Python's run while it forks, for nobody mends the interpreter's own locks in the child.
UNTOLD = """
import sys
from pooledhttp import Client, Error
from pooledhttp._core import runtime
from tests.exchange.test_fork_busy import raw_fork
from tests.support.forking import in_child
base, verify = sys.argv[1:]
client = Client(verify=verify or True)
r, other = client.request("GET", base + "/long", stream=True), client.get(base + "/")
assert r.read(10) == b"x" * 10 and other.content == b"fine"
generation = runtime.generation()
print("there", flush=True)
sys.stdin.readline()

def child(first):
    assert runtime.generation() == generation + 1
    first()
    try:
        r.read()
    except Error:
        pass
    else:
        raise AssertionError("the parent's body was read")
    a, b = client.get(base + "/"), client.get(base + "/")
    assert a.content == b.content == b"fine" and a.conn.requests <= 2 and b.conn.reused
    assert {k: v for k, v in client.transport.stats().closed.items() if v} == {"forked": 2}
    assert runtime.generation() == generation + 1
    in_child(lambda: client.get(base + "/"), fork=raw_fork)
    assert client.get(base + "/").conn.reused
    r.close()
    client.transport.close(cancel=True)

for first in (client.transport.stats, r.close, client.transport.close_idle_connections, lambda: client.get(base + "/"), lambda: None):
    in_child(lambda: child(first), fork=raw_fork)
assert runtime.generation() == generation
print("forked", flush=True)
sys.stdin.readline()
assert len(r.read()) == 100_000 - 10 and client.get(base + "/").conn.reused
client.close()
"""


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_child_that_python_knows_nothing_of_is_seen(peer: MakePeer, ca: Authority, scheme: str) -> None:
    server = peer(everything, tls=ca.server("127.0.0.1") if scheme == "https" else None)
    wire = peer(relay(server.port))
    program = spawn_python("-c", UNTOLD, f"{scheme}://127.0.0.1:{wire.port}", ca.pem if scheme == "https" else "",
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert program.stdin is not None and program.stdout is not None and program.stderr is not None
        assert read_line(program.stdout) == b"there\n"
        before = [bytes(conn.received) for conn in wire.conns]
        assert len(before) == 2
        program.stdin.write(b"fork\n")
        program.stdin.flush()
        said = read_line(program.stdout)
        assert said == b"forked\n", program.stderr.read()
        assert len(wire.conns) == 2 + 2 * 5
        assert [bytes(conn.received) for conn in wire.conns[:2]] == before
        program.stdin.close()
        assert program.wait(PATIENCE) == 0, program.stderr.read()
        more = [len(conn.received) - len(was) for conn, was in zip(wire.conns, before, strict=False)]
        assert sorted(n > 100 for n in more) == [False, True] and max(more) < 400, more      # one request more, and goodbyes
    finally:
        end(program)


def test_a_connection_in_the_making_is_closed_in_the_child(peer: MakePeer, new_client: MakeClient, ca: Authority) -> None:
    """While a child lives that has a copy of it, a socket that the parent closes stays open for its server."""
    server = peer(lambda conn, i: conn.recv_until_closed())          # it never shakes hands
    client = new_client(verify=str(ca.pem), timeout=1.0)
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            client.get(f"https://127.0.0.1:{server.port}/")
        except Error as e:
            failed.append(e)

    thread = threading.Thread(target=ask)
    thread.start()
    server.wait_for(lambda p: p.conns and p.conns[0].received)
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(w)
        os.read(r, 1)
        os._exit(0)
    os.close(r)
    try:
        thread.join()
        server.wait_closed(0, timeout=3)
    finally:
        os.close(w)
        assert os.waitpid(pid, 0)[1] == 0
    assert len(failed) == 1


def test_a_loop_over_responses_does_not_go_on_in_the_child(peer: MakePeer, new_client: MakeClient) -> None:
    server = peer(everything)
    client = new_client()
    urls = [server.url(f"/{n}") for n in range(20)]
    loop = client.map(urls, workers=2)
    assert next(loop).content == b"fine"

    def child() -> None:
        with pytest.raises(RuntimeError, match="before the fork"):
            for _ in loop:
                pass
        assert len(list(client.map(urls, workers=2))) == 20

    in_child(child)
    assert [r.content for r in loop] == [b"fine"] * 19
