"""The servers and checks that all other tests stand on do what they say; tested with the standard library's clients."""
from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import leaks
from tests.support.ca import Authority
from tests.support.nginx import Nginx, content
from tests.support.peer import ClientGone, Conn, FullBacklog, Peer, answering, chunked, respond
from tests.support.processes import PATIENCE, ROOT, end, read_line, spawn_kept, spawn_python
from tests.support.pyserver import PyServer, pattern

MakePeer = Callable[..., Peer]


def get(port: int, target: str, *, context: ssl.SSLContext | None = None, method: str = "GET", body: object = None,
        headers: dict[str, str] | None = None) -> tuple[http.client.HTTPResponse, bytes]:
    if context is not None:
        client: http.client.HTTPConnection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
    else:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        client.request(method, target, body=body, headers=headers or {})  # type: ignore[arg-type]
        response = client.getresponse()
        return response, response.read()
    finally:
        client.close()


def test_a_peer_follows_its_script_and_keeps_what_came(peer: MakePeer) -> None:
    def script(conn: Conn, i: int) -> None:
        head, body = conn.recv_request()
        assert head.startswith(b"POST /x ")
        conn.send_split(respond(body[::-1] + b"%d" % i), [1, 2, 3])

    p = peer(script)
    for i in range(2):
        response, body = get(p.port, "/x", method="POST", body=b"abc")
        assert (response.status, body) == (200, b"cba%d" % i)
    p.wait_closed(1)
    assert p.accepted == 2
    assert p.conns[0].received.endswith(b"\r\n\r\nabc")


def test_a_peer_reads_chunked_bodies(peer: MakePeer) -> None:
    got = []

    def script(conn: Conn, i: int) -> None:
        got.append(conn.recv_request()[1])
        conn.send(respond(length=False, headers={"Transfer-Encoding": "chunked"}) + chunked(b"ab", b"", b"c"))

    p = peer(script)
    _, body = get(p.port, "/", method="POST", body=iter([b"12", b"345"]))
    assert (got, body) == ([b"12345"], b"abc")


def test_a_peer_speaks_tls(peer: MakePeer, ca: Authority) -> None:
    p = peer(answering(respond(b"hello")), tls=ca.server())
    assert get(p.port, "/", context=ca.client())[1] == b"hello"
    with pytest.raises(ssl.SSLCertVerificationError):
        get(p.port, "/", context=ssl.create_default_context())
    p.wait_closed(1)
    assert (p.handshakes, len(p.tls_errors)) == (1, 1)


@pytest.mark.parametrize("expired", [False, True])
def test_the_authority_issues_what_was_asked(peer: MakePeer, ca: Authority, expired: bool) -> None:
    p = peer(answering(respond(b"x")), tls=ca.new_server("other.test" if not expired else "127.0.0.1", expired=expired))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired" if expired else "mismatch"):
        get(p.port, "/", context=ca.client())


def test_a_peer_resets_and_says_goodbye(peer: MakePeer, ca: Authority) -> None:
    p = peer(lambda conn, i: conn.reset())
    with pytest.raises(ConnectionError):
        get(p.port, "/")
    goodbye = peer(lambda conn, i: conn.close(notify=i == 0), tls=ca.server())
    for i in range(2):
        with socket.create_connection(("127.0.0.1", goodbye.port), timeout=10) as sock, \
                ca.client().wrap_socket(sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False) as tls:
            if i == 0:
                assert tls.recv(1) == b""
            else:
                with pytest.raises(ssl.SSLEOFError):
                    tls.recv(1)


def test_a_peer_that_stalls_stops_at_once(ca: Authority) -> None:
    with Peer(lambda conn, i: conn.stall()) as p, Peer(answering(respond()), tls=ca.server()) as silent, \
            socket.create_connection(("127.0.0.1", p.port)) as a, socket.create_connection(("127.0.0.1", silent.port)) as b:
        p.wait_accepted(1)
        silent.wait_accepted(1)
        started = time.monotonic()
        p.stop()
        silent.stop()                 # in the middle of a handshake
        assert time.monotonic() - started < 2
        assert a.recv(1) == b.recv(1) == b""


def test_a_scripts_failure_reaches_the_test() -> None:
    def script(conn: Conn, i: int) -> None:
        raise AssertionError("as scripted")

    with pytest.raises(AssertionError, match="as scripted"), Peer(script) as p, socket.create_connection(("127.0.0.1", p.port)):
        p.wait_closed()


def test_a_client_that_leaves_is_no_failure(peer: MakePeer) -> None:
    seen = []

    def script(conn: Conn, i: int) -> None:
        try:
            conn.recv_head()
        except ClientGone as exc:
            seen.append(str(exc))
            raise

    p = peer(script)
    with socket.create_connection(("127.0.0.1", p.port)) as sock:
        sock.send(b"GET")
    p.wait_closed()
    assert seen == ["the client closed after 3 bytes"]


def test_a_peer_listens_on_a_path(peer: MakePeer, tmp_path: Path) -> None:
    p = peer(answering(respond(b"by path")), uds=tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(tmp_path / "s"))
        sock.send(b"GET / HTTP/1.1\r\n\r\n")
        assert sock.recv(1000).endswith(b"\r\n\r\nby path")
    p.wait_closed()


def test_a_full_backlog_stalls_a_connect() -> None:
    with FullBacklog() as full, socket.socket() as sock:
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sock.connect((full.host, full.port))


def test_the_python_server_says_what_came(pyserver: PyServer, tls_pyserver: PyServer, ca: Authority) -> None:
    for server, context in ((pyserver, None), (tls_pyserver, ca.client())):
        body = os.urandom(300_000)
        response, answer = get(server.port, "/a?b=c", context=context, method="PUT", body=iter([body[:7], body[7:]]),
                               headers={"X-Token": "t1"})
        seen = json.loads(answer)
        assert response.getheader("X-Token") == seen["token"] == "t1"
        assert (seen["method"], seen["target"], seen["length"]) == ("PUT", "/a?b=c", len(body))
        assert seen["sha256"] == hashlib.sha256(body).hexdigest()
        for target in ("/chunked/100000", "/bytes/100000"):
            assert get(server.port, target, context=context)[1] == pattern(100_000)


def test_nginx_serves_every_location(nginx: Nginx, ca: Authority) -> None:
    for server, context in (("plain", None), ("tls", ca.client())):
        port = nginx.port[server]
        for name in ("1k", "64k", "1m"):
            response, body = get(port, f"/{name}", context=context)
            assert (response.status, body) == (200, content(name))
            chunks, body = get(port, f"/chunked/{name}", context=context)
            assert (chunks.getheader("Transfer-Encoding"), body) == ("chunked", content(name))
            changed = response.getheader("Last-Modified") or ""
            assert get(port, f"/{name}", context=context, headers={"If-Modified-Since": changed})[0].status == 304
        assert get(port, "/1g", context=context, method="HEAD")[0].getheader("Content-Length") == str(1 << 30)
        assert get(port, "/204", context=context)[0].status == 204
        assert get(port, "/500", context=context)[0].status == 500
        assert get(port, "/token?token=abc", context=context)[1] == b"abc"
        assert get(port, "/close/1k", context=context)[0].getheader("Connection") == "close"
        big = content("1m")
        assert get(port, f"/dav/{server}", context=context, method="PUT", body=big)[0].status == 201
        assert get(port, f"/dav/{server}", context=context)[1] == big
        seen = json.loads(get(port, "/upload", context=context, method="POST", body=iter([big, big]))[1])
        assert (seen["length"], seen["sha256"]) == (len(big) * 2, hashlib.sha256(big * 2).hexdigest())
        assert get(port, "/discard", context=context, method="POST", body=big)[1] == b"discarded"


def test_nginx_limits_keep_alive_where_it_should(nginx: Nginx) -> None:
    closing = {}
    for server in ("plain", "few", "brief"):
        client = http.client.HTTPConnection("127.0.0.1", nginx.port[server], timeout=10)
        seen = []
        for _ in range(5):
            client.request("GET", "/1k")
            response = client.getresponse()
            response.read()
            seen.append((response.getheader("Connection"), response.getheader("Keep-Alive")))
        client.close()
        closing[server] = seen
    assert closing["plain"] == [("keep-alive", None)] * 5
    assert closing["few"] == [("keep-alive", None)] * 4 + [("close", None)]
    assert closing["brief"] == [("keep-alive", "timeout=1")] * 5


def test_the_leak_check_names_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "PATIENCE", 0.1)
    before = leaks.snapshot()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="a-thread-of-mine", daemon=True)
    thread.start()
    r, w = os.pipe()
    buffers = leaks.snapshot()
    left = "\n".join(leaks.check(before))
    assert "a-thread-of-mine" in left
    assert f"descriptor {r}: pipe:" in left
    assert f"descriptor {w}: pipe:" in left
    stop.set()
    thread.join()
    os.close(r)
    os.close(w)
    assert leaks.check(before) == []
    assert f"descriptor {r} (pipe:" in "\n".join(leaks.check(buffers))


def test_the_leak_check_counts_live_objects(peer: MakePeer) -> None:
    """Wake descriptors, open connections, and buffers in use: of a request in the making, and of a response unread."""
    from pooledhttp import Client, Transport
    from pooledhttp._core.runtime import WakeHandle

    before = leaks.snapshot()
    handle = WakeHandle()
    assert [line for line in leaks._left(before) if "wakes" in line] == ["pooledhttp._core.runtime: wakes: 1"]
    del handle
    assert leaks.check(before) == []
    server = peer(answering(respond(b"x" * 100_000)))
    begun = leaks.snapshot()
    client = Client(transport=Transport())
    r = client.get(server.url(), stream=True)
    assert {"pooledhttp._core.runtime: buffers: 1", "pooledhttp._pool.core: connections: 1"} <= set(leaks._left(begun))
    assert any(line.startswith("descriptor ") and "socket:" in line for line in leaks._left(begun))
    r.read()
    left = leaks._left(begun)
    assert "pooledhttp._pool.core: connections: 1" in left and not any("buffers" in line for line in left)
    client.transport.close()
    server.wait_closed()
    assert leaks.check(begun) == []


def test_the_leak_check_waits_for_what_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "PATIENCE", 10.0)
    before = leaks.snapshot()
    thread = threading.Thread(target=time.sleep, args=(0.1,))
    thread.start()
    assert leaks.check(before) == []
    assert not thread.is_alive()


LEAKS = {
    "a descriptor": ("descriptor", "os.pipe()"),
    "a thread": ("thread", "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"),
    "a connection": ("connections: 1", "kept.append(Client(transport=Transport())); kept[-1].get(url)"),
    "a response": ("buffers: 1", "kept.append(Client(transport=Transport()).get(url, stream=True))"),
    "a response dropped": ("unclosed response", "Client(transport=Transport()).get(url, stream=True)"),
    "nothing": ("", "Client().get(url)"),
}


@pytest.mark.slow
@pytest.mark.parametrize("leak", LEAKS)
def test_a_test_that_leaks_fails(peer: MakePeer, tmp_path: Path, leak: str) -> None:
    """With these tests' own settings and fixtures, in a run of its own."""
    says, code = LEAKS[leak]
    url = peer(answering(respond(b"x" * 100_000))).url()
    test = tmp_path / "test_leaking.py"
    test.write_text("import os, threading, time\nfrom pooledhttp import Client, Transport\nfrom tests.support import leaks\nleaks.PATIENCE = 0.7\nkept = []\n"
                    f"url = {url!r}\ndef test_it():\n    {code}\n")
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml",
                           "--rootdir", tmp_path, test], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == (1 if says else 0), done.stdout
    assert says in done.stdout


# Starts another in a session of its own, and says who both are.
FORKING = "setsid sleep 600 & echo $! $$; exec sleep 600"


def gone(pids: list[int]) -> bool:
    def ended(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    return all(ended(pid) for pid in pids)


def await_gone(pids: list[int]) -> None:
    until = time.monotonic() + PATIENCE
    while not gone(pids):
        assert time.monotonic() < until, f"some of {pids} still run"
        time.sleep(0.01)


@pytest.mark.parametrize("ended_by", ["its parent's death", "being told", "the server's own end"])
def test_a_kept_server_leaves_nothing(ended_by: str) -> None:
    """Neither the server nor what it has put into another session outlives whom it was started by, or the word to end."""
    if ended_by == "its parent's death":
        code = f"import sys; from tests.support.processes import spawn_kept; spawn_kept('sh', '-c', {FORKING!r}); sys.stdin.read()"
        child = spawn_python("-c", code, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    else:
        child = spawn_kept("sh", "-c", FORKING, stdout=subprocess.PIPE)
    assert child.stdout is not None
    pids = [int(word) for word in read_line(child.stdout).split()]
    assert len(pids) == 2
    assert not gone(pids[:1])
    assert not gone(pids[1:])
    if ended_by == "its parent's death":
        child.kill()
    elif ended_by == "the server's own end":
        os.kill(pids[1], signal.SIGKILL)
        await_gone(pids[1:])
        assert child.poll() is None                  # what it has left is kept until the end
    if ended_by != "its parent's death":
        assert end(child) == 0
        assert gone(pids)
    else:
        end(child)
        await_gone(pids)


def test_a_keeper_says_how_its_server_ended_and_passes_signals_on() -> None:
    child = spawn_kept("sh", "-c", "exit 7")
    assert child.wait(PATIENCE) == 7
    child = spawn_kept("sh", "-c", "trap 'echo heard; exit 3' HUP; echo up; while :; do sleep 0.01; done", stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert read_line(child.stdout) == b"up\n"
    child.send_signal(signal.SIGHUP)
    assert read_line(child.stdout) == b"heard\n"
    assert child.wait(PATIENCE) == 3
    assert end(child) == 3
