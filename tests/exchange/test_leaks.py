"""Streamed responses that are collected unclosed: their connection is free at once, they are counted, and they say so."""
from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pooledhttp import Client, Response
from tests.exchange.support import adds_up, closed, until
from tests.support.ca import Authority
from tests.support.peer import PATIENCE, Conn, Peer, answering, chunked, respond
from tests.support.processes import ROOT
from tests.support.pyserver import pattern

MakePeer = Callable[..., Peer]
MakeClient = Callable[..., Client]

BODY = pattern(1 << 20)
FRAMINGS = {
    "length": respond(BODY),
    "chunked": respond(headers={"Transfer-Encoding": "chunked"}, length=False) + chunked(BODY),
    "h11": respond(BODY, headers={"X-Folded": "a\r\n b"}),
    "until-close": respond(BODY, length=False),
}
READS: dict[str, Callable[[Response], Any]] = {
    "nothing": lambda r: None,
    "some": lambda r: r.read(1000),
    "into": lambda r: r.readinto(bytearray(100_000)),
    "iterated": lambda r: next(iter(r.iter_bytes(1000))),
}


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def server(request: pytest.FixtureRequest, peer: MakePeer, ca: Authority) -> Callable[..., Peer]:
    return lambda script: peer(script, tls=ca.server() if request.param else None)


def stalling(beginning: bytes) -> Callable[[Conn, int], None]:
    """The first connection says `beginning` and no more; on others whatever is asked is answered."""

    def script(conn: Conn, i: int) -> None:
        if i:
            answering(respond(b"ok"))(conn, i)
        conn.recv_head()
        conn.send(beginning)
        conn.recv_until_closed()

    return script


def in_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


@pytest.mark.parametrize("how", READS)
@pytest.mark.parametrize("framing", FRAMINGS)
def test_who_waits_gets_on_at_once(server: MakePeer, new_client: MakeClient, ca: Authority, framing: str, how: str) -> None:
    """By the last reference's going, with no collection of cycles."""
    client = new_client(verify=str(ca.pem), max_conns_per_host=1)
    peer = server(stalling(FRAMINGS[framing][:-10] if framing != "until-close" else FRAMINGS[framing]))
    gc.disable()
    try:
        r = client.get(peer.url("/left"), stream=True)
        READS[how](r)
        got: list[bytes] = []
        waiting = in_thread(lambda: got.append(client.get(peer.url("/next")).content))
        until(lambda: client.transport.stats().waiting == 1, "the second one's waiting")
        with pytest.warns(ResourceWarning, match=f"unclosed response to GET {peer.url('/left')}: it held connection") as caught:
            del r
        waiting.join(PATIENCE)
        assert got == [b"ok"]
    finally:
        gc.enable()
    assert len(caught) == 1
    stats = client.transport.stats()
    assert (stats.leaked, stats.active, stats.waits, stats.opened) == (1, 0, 1, 2)
    assert sum(closed(stats).values()) == 1
    assert sum(host.leaked for host in stats.hosts.values()) == 1


def test_what_has_arrived_is_drained_and_the_connection_serves_again(server: MakePeer, new_client: MakeClient, ca: Authority) -> None:
    client = new_client(verify=str(ca.pem))
    peer = server(answering(respond(b"small")))
    r = client.get(peer.url(), stream=True)
    peer.wait_for(lambda p: p.conns[0].received, "the request")
    with pytest.warns(ResourceWarning):
        del r
    assert client.get(peer.url()).content == b"small"
    stats = client.transport.stats()
    assert stats.leaked == 1 and stats.opened in (1, 2)          # the body came with the head, or after the collection
    adds_up(stats)


def test_in_another_thread(server: MakePeer, new_client: MakeClient, ca: Authority) -> None:
    client = new_client(verify=str(ca.pem), max_conns_per_host=1)
    peer = server(stalling(FRAMINGS["length"][:-10]))
    held = [client.get(peer.url(), stream=True)]
    with pytest.warns(ResourceWarning):
        in_thread(held.clear).join(PATIENCE)
        assert client.get(peer.url()).content == b"ok"
    assert client.transport.stats().leaked == 1


def told(caught: list[warnings.WarningMessage]) -> int:
    return len([w for w in caught if w.category is ResourceWarning])


def test_collected_at_any_moment(server: MakePeer, new_client: MakeClient, ca: Authority) -> None:
    """In the midst of other requests, of this and other threads: the collector runs at almost every allocation, under whatever lock."""
    client = new_client(verify=str(ca.pem), max_conns_per_host=8)
    peer = server(answering(respond(b"small")))
    rounds, threads, failed = 25, 4, []

    def leak() -> None:
        try:
            for _ in range(rounds):
                r = client.get(peer.url(), stream=True)
                cycle: list[Any] = [r]
                cycle.append(cycle)
                del r, cycle
                assert client.get(peer.url()).content == b"small"
        except BaseException as e:  # noqa: B036 - it is looked at below
            failed.append(e)

    before = gc.get_threshold()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gc.set_threshold(5, 2, 2)
        try:
            running = [in_thread(leak) for _ in range(threads)]
            for thread in running:
                thread.join(30)
                assert not thread.is_alive()
        finally:
            gc.set_threshold(*before)
        # The last collection may be a thread's of the peer, and under way: gc.collect() is then refused.
        until(lambda: gc.collect() == 0 and client.transport.stats().active == 0 and told(caught) >= rounds * threads, "the end of the collections")
    assert failed == []
    stats = client.transport.stats()
    assert (stats.leaked, stats.active, stats.waiting) == (rounds * threads, 0, 0)
    assert told(caught) == rounds * threads
    adds_up(stats)


@pytest.mark.parametrize("answer", [respond(b""), respond(status=204, length=False), respond(status=304, length=False), respond(b"five")],
                         ids=["length 0", "204", "304", "HEAD"])
def test_a_stream_of_nothing_holds_nothing(server: MakePeer, new_client: MakeClient, ca: Authority, answer: bytes) -> None:
    client = new_client(verify=str(ca.pem))
    head = answer.endswith(b"five")
    peer = server(answering(answer.removesuffix(b"five")))
    for _ in range(2):
        r = client.request("HEAD" if head else "GET", peer.url(), stream=True)
        assert (client.transport.stats().idle, client.transport.stats().active) == (1, 0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del r
    with client.stream("HEAD" if head else "GET", peer.url()) as r:
        assert r.read() == b"" and list(r.iter_bytes()) == []
    stats = client.transport.stats()
    assert (stats.leaked, stats.opened, stats.reuses) == (0, 1, 2)


def test_an_early_answer_of_nothing_does_not_wait_for_the_upload(server: MakePeer, new_client: MakeClient, ca: Authority) -> None:
    go = threading.Event()

    def script(conn: Conn, i: int) -> None:
        head = conn.recv_head()
        conn.send(respond(b""))
        assert go.wait(PATIENCE)
        conn.recv_body(head)
        conn.recv_until_closed()

    client = new_client(verify=str(ca.pem))
    peer = server(script)
    r = client.put(peer.url(), content=bytes(32 << 20), stream=True)
    assert r.status_code == 200
    go.set()
    assert r.read() == b""
    assert client.transport.stats().idle == 1


# --- where it was made --------------------------------------------------------------------------------------------------------------


MAKES = {"get": "client.get(url, stream=True)", "request": "client.request('GET', url, stream=True)", "stream": "client.stream('GET', url).__enter__()",
         "top level": "pooledhttp.get(url, stream=True)"}


@pytest.mark.parametrize(("how", "frames"), [*((how, 1) for how in MAKES), ("get", 25)])
def test_it_says_where_it_was_made(peer: MakePeer, how: str, frames: int, tmp_path: Path) -> None:
    url = peer(answering(FRAMINGS["length"])).url()
    program = tmp_path / "users.py"
    program.write_text(f"import sys, pooledhttp\nurl = sys.argv[1]\nclient = pooledhttp.Client()\n\nkept = {MAKES[how]}\ndel kept\nsys.exit()\n")
    done = subprocess.run([sys.executable, "-W", "default", "-X", f"tracemalloc={frames}", program, url], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, timeout=20)
    assert done.returncode == 0
    assert f"ResourceWarning: unclosed response to GET {url}, made at {program}:5: it held connection 1 to (" in done.stderr
    assert done.stderr.count("ResourceWarning") == 1
    if frames > 1:
        assert f'File "{program}", lineno 5' in done.stderr.partition("Object allocated at")[2]


def test_the_line_is_the_users_whose_module_has_a_name_like_ours(peer: MakePeer, client: Client) -> None:
    url = peer(stalling(FRAMINGS["length"][:-10])).url()
    scope: dict[str, Any] = {"__name__": "pooledhttp_users", "client": client, "url": url}
    code = compile("\n\n\nr = client.get(url, stream=True)", "users.py", "exec")
    tracemalloc.start()
    try:
        exec(code, scope)
    finally:
        tracemalloc.stop()
    with pytest.warns(ResourceWarning, match="made at users.py:4"):
        del scope["r"]


# --- the end of the interpreter ------------------------------------------------------------------------------------------------------

KEEPS = {
    "a global": "kept = client.get(url, stream=True)",
    "partly read": "kept = client.get(url, stream=True); kept.read(2)",
    "a cycle": "kept = [client.get(url, stream=True)]; kept.append(kept); del kept",
    "a cycle of globals": "kept = client.get(url, stream=True); client.own = sys.modules[__name__].__dict__",
    "a thread": "held = []\nthreading.Thread(target=lambda: (held.append(client.get(url, stream=True)), time.sleep(60)), daemon=True).start()\n"
                "while not held: time.sleep(0.001)",
    "its own end": "class Late:\n    def __del__(self): self.r.close()\nkept = Late(); kept.r = client.get(url, stream=True)",
    "an iterator": "kept = client.get(url, stream=True).iter_bytes(1); next(kept)",
}


@pytest.mark.parametrize("body", ["small", "large"])
@pytest.mark.parametrize("keeps", KEEPS)
def test_at_the_interpreters_end_it_is_silent(peer: MakePeer, keeps: str, body: str) -> None:
    url = peer(answering(respond(b"small" if body == "small" else BODY * 20))).url()
    program = ("import pooledhttp, sys, threading, time\nurl = sys.argv[1]\nclass C(pooledhttp.Client): pass\n"
               f"client = C(transport=pooledhttp.Transport())\n{KEEPS[keeps]}\n")
    done = subprocess.run([sys.executable, "-X", "dev", "-c", program, url], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- what is told, and what is none ----------------------------------------------------------------------------------------------------


def test_a_collected_response_gives_its_slot_back_and_says_so(peer: MakePeer, new_client: MakeClient) -> None:
    client = new_client(max_conns_per_host=1)
    server = peer(answering(respond(pattern(20 << 20)), respond(b"small")))
    r = client.get(server.url("/left?secret=1"), stream=True)
    assert r.conn is not None
    says = rf"unclosed response to GET http://{server.host}:{server.port}/left: it held connection {r.conn.id} to .*{server.port}"
    with pytest.warns(ResourceWarning, match=says) as caught:
        del r
        gc.collect()
    assert "secret" not in str(caught[0].message)
    until(lambda: client.transport.stats().open == 0)
    stats = client.transport.stats()
    assert (stats.leaked, stats.open, closed(stats)) == (1, 0, {"drain_limit": 1})
    assert client.get(server.url()).status_code == 200


def test_a_response_in_a_cycle_wakes_who_waits(peer: MakePeer, new_client: MakeClient) -> None:
    client = new_client(max_conns_per_host=1)
    server = peer(answering(respond(pattern(20 << 20))))
    r = client.get(server.url(), stream=True)
    cycle: list[Any] = [r]
    cycle.append(cycle)
    statuses: list[int] = []
    waiting = threading.Thread(target=lambda: statuses.append(client.get(server.url()).status_code))
    waiting.start()
    until(lambda: client.transport.stats().waiting == 1)
    with pytest.warns(ResourceWarning):
        del r, cycle
        gc.collect()
    waiting.join(10)
    assert statuses == [200]
    assert client.transport.stats().leaked == 1


def test_a_body_that_was_read_is_no_leak(peer: MakePeer, client: Client) -> None:
    server = peer(answering(respond(b"hello")))
    for read in (Response.read, lambda r: list(r.iter_bytes()), Response.close):
        r = client.get(server.url(), stream=True)
        read(r)
        del r
        gc.collect()
    assert client.transport.stats().leaked == 0


