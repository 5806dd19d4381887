"""What hooks hear: of each kind of exchange all of it, in order, when it happens, under no lock."""
from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import pooledhttp
from pooledhttp import Cancelled, Client, ConnectError, ConnInfo, Context, DNSError, ReadTimeout, Timeout, TLSError, Trace, Transport
from pooledhttp._net import helpers
from pooledhttp._pool.janitor import janitor
from tests.exchange.conftest import MakeClient, MakePeer
from tests.exchange.support import until
from tests.exchange.test_dialing import address, answers
from tests.exchange.test_fork import in_child
from tests.support.ca import Authority
from tests.support.peer import Conn, FullBacklog, Peer, answering, free_ports, respond
from tests.support.proxy import ScriptedProxy

HOOKS = ("get_conn", "got_conn", "dns_start", "dns_done", "connect_start", "connect_done", "tls_start", "tls_done", "wrote_request", "got_1xx",
         "first_byte", "put_idle", "closed")
SENT = ["wrote_request", "first_byte"]
FRESH = ["get_conn", "connect_start", "connect_done", "got_conn", *SENT, "put_idle"]
REUSED = ["get_conn", "got_conn", *SENT, "put_idle"]
HERE = answering(respond(b"here"))


class Record:
    """All hooks: `calls` has (name, arguments, thread). Each of them uses the pool, and looks whether a lock of ours is held."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], threading.Thread]] = []
        self.transport: Transport | None = None
        self.during: dict[str, Callable[[], object]] = {}

    def __getattr__(self, name: str) -> Any:
        if name not in HOOKS:
            raise AttributeError(name)
        return lambda *args: self._heard(name, args)

    def _heard(self, name: str, args: tuple[Any, ...]) -> None:
        transport = self.transport
        assert transport is not None
        transport.stats()                      # hangs where the pool's lock is held
        locks = [transport._lock, transport.pool.hosts_lock, janitor._lock, helpers.shared._lock]
        if transport._resolver is not None:
            locks.append(transport._resolver._lock)
        self.calls.append((name, args, threading.current_thread()))
        if any(lock._is_owned() for lock in locks):  # type: ignore[attr-defined]  # RLock has it
            self.calls.append(("UNDER A LOCK", (name,), threading.current_thread()))
        if name in self.during:
            self.during[name]()

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.calls]

    def taken(self) -> list[str]:
        """The names so far, which are forgotten."""
        names = self.names
        self.calls.clear()
        return names

    def args(self, name: str) -> tuple[Any, ...]:
        """Of the only call of `name`."""
        (found,) = [args for one, args, _ in self.calls if one == name]
        return found


@pytest.fixture
def record() -> Record:
    return Record()


@pytest.fixture
def traced(new_client: MakeClient, record: Record) -> MakeClient:
    def make(**options: Any) -> Client:
        client = new_client(trace=record, **options)
        record.transport = client.transport
        return client

    return make


# --- the order of things ----------------------------------------------------------------------------------------------------

def test_fresh_and_reused(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    server = peer(HERE)
    client = traced()
    r = client.get(server.url("/a?b=c"))
    assert record.names == FRESH
    key = f"http://127.0.0.1:{server.port}"
    assert record.args("get_conn") == (key, "GET", "/a?b=c") and list(client.transport.stats().hosts) == [key]
    (info,) = record.args("got_conn")
    assert isinstance(info, ConnInfo) and info == r.conn and not info.reused
    assert record.args("connect_start") == (("127.0.0.1", server.port),)
    assert record.args("connect_done") == (("127.0.0.1", server.port), None)
    assert record.args("wrote_request") == record.args("put_idle") == (None,)
    assert {thread for _, _, thread in record.calls} == {threading.current_thread()}
    record.calls.clear()
    client.get(server.url("/a?b=c"))
    assert record.names == REUSED
    assert (record.args("got_conn")[0].id, record.args("got_conn")[0].reused, record.args("got_conn")[0].requests) == (info.id, True, 2)
    record.calls.clear()
    client.transport.close()
    reason, last = record.args("closed")
    assert record.names == ["closed"] and reason == "shutdown" and (last.id, last.requests) == (info.id, 2)


def test_names(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    server = peer(HERE)
    client = traced(resolver=answers(("127.0.0.1", server.port)))
    client.get("http://name.test/")
    assert record.names == ["get_conn", "dns_start", "dns_done", *FRESH[1:]]
    assert record.args("dns_start") == ("name.test",)
    assert record.args("dns_done") == ([("127.0.0.1", server.port)], None, False)
    record.calls.clear()
    client.transport.close_idle_connections()
    record.calls.clear()
    client.get("http://name.test/")
    assert record.args("dns_done")[2] is True                        # kept: nobody was asked


@pytest.mark.usefixtures("tls_mode")
def test_tls_and_a_resumed_session(peer: MakePeer, traced: MakeClient, record: Record, ca: Authority) -> None:
    server = peer(HERE, tls=ca.new_server("127.0.0.1"))
    client = traced(verify=str(ca.pem))
    fresh = [*FRESH[:3], "tls_start", "tls_done", *FRESH[3:]]
    for resumed in (False, True):
        record.calls.clear()
        client.get(server.url())
        assert record.names == fresh
        info, error = record.args("tls_done")
        assert error is None and (info.tls_version, info.resumed) == ("TLSv1.3", resumed) and info.cipher
        assert record.args("tls_start") == ("127.0.0.1",)
        client.transport.close_idle_connections()


@pytest.mark.parametrize("socks", [False, True])
def test_a_proxy(socks: bool, peer: MakePeer, traced: MakeClient, record: Record, ca: Authority) -> None:
    server = peer(HERE, tls=ca.new_server("127.0.0.1"))
    with ScriptedProxy(socks=socks, tls=None if socks else ca.new_server("127.0.0.1")) as proxy:
        kind = "socks5h" if socks else "https"
        client = traced(verify=str(ca.pem), proxy=f"{kind}://127.0.0.1:{proxy.port}")
        client.get(server.url())
        shakes = ["tls_start", "tls_done"] * (1 if socks else 2)
        assert record.names == [*FRESH[:3], *shakes, *FRESH[3:]]
        assert record.args("connect_start") == (("127.0.0.1", proxy.port),)
        client.close()


def test_happy_eyeballs(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    server = peer(HERE)
    refusing = free_ports(1)[0]
    with FullBacklog("::1") as full:
        client = traced(resolver=answers(("::1", full.port), ("127.0.0.1", refusing), ("127.0.0.1", server.port)), happy_eyeballs_delay=0.01)
        client.get("http://many.test/")
    six, bad, good = ("::1", full.port), ("127.0.0.1", refusing), ("127.0.0.1", server.port)
    told = [(name, args[0], type(args[1]).__name__ if len(args) > 1 else "") for name, args, _ in record.calls if name.startswith("connect")]
    assert told == [("connect_start", six, ""), ("connect_start", bad, ""), ("connect_done", bad, "ConnectError"), ("connect_start", good, ""),
                    ("connect_done", good, "NoneType"), ("connect_done", six, "ConnectError")]


def test_a_stale_connection(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(respond(b"x"))
        if i == 0:
            conn.recv_request()                # and closes
        else:
            HERE(conn, i)

    server = peer(script)
    client = traced()
    client.get(server.url())
    record.calls.clear()
    client.get(server.url())
    assert record.names == ["get_conn", "got_conn", "wrote_request", "closed", *FRESH]
    assert [args[0] for name, args, _ in record.calls if name == "closed"] == ["server_closed"]


def test_a_connection_found_dead_was_never_got(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(respond(b"x"))

    server = peer(script)
    client = traced()
    client.get(server.url())
    record.calls.clear()
    server.wait_closed(0)
    client.get(server.url())
    until(lambda: "closed" in record.names)                               # by the request, or the janitor, who may see the next one's end too
    assert [name for name in record.names if name != "closed"] == FRESH


def test_redirects_and_retries_are_exchanges_of_their_own(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    client = traced()
    moved = peer(answering(respond(status=302, headers={"Location": "/there"}), respond(b"there")))
    client.get(moved.url())
    assert record.taken() == [*FRESH, *REUSED]
    busy = peer(answering(respond(status=503), respond(b"ok")))
    client.get(busy.url(), retries=pooledhttp.Retry(1, backoff=0.0))
    assert record.taken() == [*FRESH, *REUSED]


@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\nX-A: 1\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n"])
def test_interim_responses(interim: bytes, peer: MakePeer, traced: MakeClient, record: Record) -> None:
    go = threading.Event()

    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(interim)
        assert go.wait(10)
        conn.send(interim + respond(b"late"))
        conn.recv_until_closed()

    record.during["got_1xx"] = go.set          # live: the rest comes only when the first was told
    assert traced().get(peer(script).url()).content == b"late"
    assert record.names == [*FRESH[:-1], "got_1xx", "got_1xx", "put_idle"]
    status = int(interim[9:12])
    fields = [("X-A", "1")] if status == 100 else [("Link", "</a>"), ("Link", "</b>")]
    assert [args for name, args, _ in record.calls if name == "got_1xx"] == [(status, fields)] * 2


def test_expect_100_continue(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    def script(conn: Conn, i: int) -> None:
        head = conn.recv_head()
        assert record.names[-1] == "got_conn"
        conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        conn.recv_body(head)
        conn.send(respond(b"taken"))
        conn.recv_until_closed()

    client = traced(expect_continue_timeout=10.0)
    assert client.post(peer(script).url(), content=b"x" * 100, headers={"Expect": "100-continue"}).content == b"taken"
    assert record.names == [*FRESH[:4], "first_byte", "got_1xx", "wrote_request", "put_idle"]


def test_417_makes_it_begin_again(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    def script(conn: Conn, i: int) -> None:
        head = conn.recv_head()
        if i == 0:
            conn.send(respond(status=417, reason="Expectation Failed"))
        else:
            conn.recv_body(head)
            conn.send(respond(b"taken"))
        conn.recv_until_closed()

    assert traced().post(peer(script).url(), content=b"x", headers={"Expect": "100-continue"}).content == b"taken"
    assert record.names == [*FRESH[:4], "first_byte", "wrote_request", "closed", *FRESH]


def test_an_upload_in_pieces(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    pieces = iter([b"a" * 10_000, b"b" * 10_000])

    def body() -> Iterator[bytes]:
        for piece in pieces:
            assert "wrote_request" not in record.names
            yield piece

    traced().post(peer(HERE).url(), content=body())
    assert record.names == FRESH


def test_an_early_answer_ends_the_upload(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    answered = threading.Event()

    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.send(respond(b"too much", status=413, reason="Too Large"))
        answered.set()
        conn.recv_until_closed()

    def body() -> Iterator[bytes]:
        yield b"a"
        assert answered.wait(10)
        while True:
            yield b"b" * 1000

    assert traced().post(peer(script).url(), content=body()).status_code == 413
    assert record.names == [*FRESH[:4], "first_byte", "wrote_request", "closed"]
    assert isinstance(record.args("wrote_request")[0], pooledhttp.WriteError)


def test_a_body_that_fails(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    def body() -> Iterator[bytes]:
        yield b"a"
        raise KeyError("mine")

    with pytest.raises(KeyError):
        traced().post(peer(lambda conn, i: conn.recv_until_closed() and None).url(), content=body())
    assert record.names == [*FRESH[:4], "wrote_request", "closed"]
    assert isinstance(record.args("wrote_request")[0], KeyError) and record.args("closed")[0] == "error"


# --- how it ends ------------------------------------------------------------------------------------------------------------

def test_a_stream_is_put_back_at_its_end(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    with traced().stream("GET", peer(HERE).url()) as r:
        assert record.names == FRESH[:-1]
        assert r.read() == b"here"
        assert record.names == FRESH


def test_a_stream_closed_early(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nx")
        conn.recv_until_closed()

    with traced().stream("GET", peer(script).url()) as r:
        r.close()
        assert record.names == [*FRESH[:-1], "closed"] and record.args("closed")[0] == "drain_limit"


def test_a_stream_drained_in_the_background(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    go = threading.Event()

    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx")
        assert go.wait(10)
        conn.send(b"y")
        conn.recv_until_closed()

    heard = threading.Event()
    record.during["put_idle"] = record.during["closed"] = heard.set
    with traced().stream("GET", peer(script).url()):
        pass
    go.set()
    assert heard.wait(10)
    # Where the machine is slow, 50 ms are over before.
    assert record.names[:-1] == FRESH[:-1] and record.names[-1] in ("put_idle", "closed")
    assert record.calls[-1][2] != threading.current_thread()


def test_a_response_collected_unclosed(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nx")
        conn.recv_until_closed()

    heard = threading.Event()
    record.during["closed"] = heard.set
    r = traced().get(peer(script).url(), stream=True)
    assert r.status_code == 200
    with pytest.warns(ResourceWarning):
        del r
        gc.collect()
    assert heard.wait(10)
    assert record.calls[-1][0] == "closed" and record.calls[-1][2] != threading.current_thread()         # no user's code runs in a destructor


def test_a_cancel(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    client = traced()
    server = peer(lambda conn, i: conn.recv_until_closed() and None)
    ctx = Context()
    record.during["wrote_request"] = lambda: ctx.cancel("enough")         # seen right after the hook
    with pytest.raises(Cancelled):
        client.get(server.url(), context=ctx)
    until(lambda: "closed" in record.names)                               # by the janitor, 50 ms later
    assert record.names == [*FRESH[:4], "wrote_request", "closed"] and record.args("closed")[0] == "cancelled"


def test_a_timeout(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    with pytest.raises(ReadTimeout):
        traced().get(peer(lambda conn, i: conn.recv_until_closed() and None).url(), timeout=Timeout(read=0.05))
    assert record.names == [*FRESH[:4], "wrote_request", "closed"] and record.args("closed")[0] == "timeout"


def test_a_dial_that_fails(traced: MakeClient, record: Record, peer: MakePeer, ca: Authority) -> None:
    port = free_ports(1)[0]
    with pytest.raises(ConnectError):
        traced().get(f"http://127.0.0.1:{port}/")
    assert record.names == ["get_conn", "connect_start", "connect_done"]
    assert isinstance(record.args("connect_done")[1], ConnectError)

    def nobody(host: str, port: int) -> list[Any]:
        raise OSError("no such name")

    record.calls.clear()
    with pytest.raises(DNSError):
        traced(resolver=nobody).get("http://nobody.test/")
    assert record.names == ["get_conn", "dns_start", "dns_done"]
    addresses, error, kept = record.args("dns_done")
    assert addresses == [] and isinstance(error, DNSError) and kept is False
    def no_tls(conn: Conn, i: int) -> None:
        conn.recv_some()
        conn.send(respond(b"plain", status=400))

    record.calls.clear()
    with pytest.raises(TLSError):
        traced(verify=str(ca.pem)).get(f"https://127.0.0.1:{peer(no_tls).port}/")
    assert record.names == ["get_conn", "connect_start", "connect_done", "tls_start", "tls_done"]
    assert record.args("tls_done")[0] is None and isinstance(record.args("tls_done")[1], TLSError)


@pytest.mark.parametrize("phase", ["dns", "connect", "tls"])
def test_a_dial_that_is_given_up(phase: str, traced: MakeClient, record: Record, peer: MakePeer, ca: Authority) -> None:
    gate = threading.Event()
    silent = peer(lambda conn, i: conn.recv_until_closed() and None)

    def slow(host: str, port: int) -> list[Any]:
        gate.wait(10)
        return [address("127.0.0.1", silent.port)]

    with FullBacklog() as full:
        options: dict[str, Any] = {"dns": {"resolver": slow}, "connect": {"resolver": answers((full.host, full.port))}, "tls": {"verify": str(ca.pem)}}[phase]
        with pytest.raises(pooledhttp.DeadlineExceeded):
            traced(**options).get(f"https://127.0.0.1:{silent.port}/" if phase == "tls" else "http://name.test/", timeout=0.1)
        gate.set()
    assert record.names[-2:] == [f"{phase}_start", f"{phase}_done"]
    assert isinstance(record.args(f"{phase}_done")[1], pooledhttp.ConnectTimeout)


def test_the_pool_closes(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    closed = threading.Event()
    record.during["closed"] = closed.set
    one, two = peer(HERE), peer(HERE)
    client = traced(max_idle_conns=1)
    client.get(one.url())
    client.get(two.url())
    assert record.names == [*FRESH, *FRESH, "closed"]
    reason, info = record.args("closed")
    assert reason == "evicted" and info.remote_addr == ("127.0.0.1", one.port) and record.calls[-1][2] == threading.current_thread()
    closed.clear()
    record.calls.clear()
    aging = traced(idle_conn_timeout=0.05)
    aging.get(one.url())
    assert closed.wait(10) and record.args("closed")[0] == "idle_timeout" and record.calls[-1][2] != threading.current_thread()
    record.calls.clear()
    lone = traced(disable_keep_alives=True)
    lone.get(one.url())
    assert record.taken() == [*FRESH[:-1], "closed"]
    busy = traced()
    with busy.stream("GET", one.url()) as r:
        busy.transport.close()
        record.calls.clear()
        r.read()
        assert record.names == ["put_idle", "closed"] and record.args("put_idle") == ("shutdown",) and record.args("closed")[0] == "shutdown"


def test_a_dial_left_behind(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    """A request takes the connection that comes free while it dials; what comes of its dial is told by the thread that finishes it."""
    asked, answer, connect = threading.Event(), threading.Event(), threading.Event()
    finished = threading.Event()

    def script(conn: Conn, i: int) -> None:
        while True:
            conn.recv_request()
            asked.set()
            assert answer.wait(10)
            conn.send(respond(b"x"))

    server = peer(script)

    def resolver(host: str, port: int) -> list[Any]:
        if asked.is_set():
            assert connect.wait(10)
        return [address("127.0.0.1", server.port)]

    client = traced(resolver=resolver, dns_cache_ttl=0)
    first = threading.Thread(target=lambda: client.get("http://name.test/1"))
    first.start()
    assert asked.wait(10)
    second = threading.Thread(target=lambda: client.get("http://name.test/2"))
    second.start()
    until(lambda: client.transport.stats().dialing == 1 and record.names.count("dns_start") == 2)
    answer.set()
    first.join()
    second.join()
    assert [name for name, _, thread in record.calls if thread is second] == ["get_conn", "dns_start", "got_conn", *SENT, "put_idle"]
    record.during["put_idle"] = finished.set
    connect.set()
    assert finished.wait(10)
    assert [name for name, _, thread in record.calls if thread not in (first, second)] == ["dns_done", "connect_start", "connect_done", "put_idle"]


def test_thirty_two_threads(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    server = peer(HERE)
    client = traced()

    def work() -> None:
        for _ in range(20):
            client.get(server.url())

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    helped = {thread for _, _, thread in record.calls} - set(threads)
    assert all(name in ("connect_start", "connect_done", "put_idle", "closed") for name, _, thread in record.calls if thread in helped)
    for thread in threads:
        names = [name for name, _, by in record.calls if by is thread and name != "closed" and not name.startswith("connect_")]
        assert names == REUSED * 20
    assert "UNDER A LOCK" not in record.names


# --- hooks that are not plain -----------------------------------------------------------------------------------------------

@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    heard: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    return heard


def test_what_hooks_raise(peer: MakePeer, traced: MakeClient, record: Record, unraisable: list[Any], ca: Authority) -> None:
    def fail() -> None:
        raise ValueError("mine")

    record.during = dict.fromkeys(HOOKS, fail)
    server = peer(HERE, tls=ca.new_server("127.0.0.1"))
    client = traced(verify=str(ca.pem))
    for _ in range(2):
        assert client.get(server.url()).content == b"here"
    client.transport.close()
    assert len(unraisable) == len(record.calls) == 9 + 5 + 1
    assert {type(said.exc_value) for said in unraisable} == {ValueError}
    assert "UNDER A LOCK" not in record.names
    said = unraisable.pop()
    del said
    unraisable.clear()


@pytest.mark.parametrize("hook", ["get_conn", "connect_start", "connect_done", "got_conn", "wrote_request", "first_byte", "put_idle"])
def test_an_interrupt_within_a_hook_ends_the_request_and_leaks_nothing(hook: str, peer: MakePeer, traced: MakeClient, record: Record) -> None:
    client = traced()
    server = peer(HERE)
    record.during[hook] = lambda: signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        client.get(server.url())
    record.during.clear()
    stats = client.transport.stats()
    assert (stats.active, stats.dialing, stats.idle) == (0, 0, 1 if hook == "put_idle" else 0)
    assert client.get(server.url()).content == b"here"


def test_a_hook_may_make_requests(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    client = traced()
    one, two = peer(HERE), peer(HERE)
    inner = 0

    def again() -> None:
        nonlocal inner
        inner += 1
        if inner <= len(HOOKS):
            during, record.during = record.during, {}
            assert client.get(two.url()).content == b"here"
            record.during = during

    record.during = dict.fromkeys(HOOKS, again)
    with Context(timeout=10.0) as ctx:
        assert client.get(one.url(), context=ctx).content == b"here"
    record.during = {}
    assert inner == len(FRESH)


def test_hooks_take_what_they_want(peer: MakePeer, new_client: MakeClient) -> None:
    heard: list[object] = []

    class Few(Trace):
        def get_conn(self) -> None:  # type: ignore[override]
            heard.append("get")

        def got_conn(self, info: ConnInfo, more: str = "mine") -> None:
            heard.append(more)

        def closed(self, reason: str) -> None:  # type: ignore[override]
            heard.append(reason)

    client = new_client(trace=Few())
    client.get(peer(HERE).url())
    client.transport.close()
    assert heard == ["get", "mine", "shutdown"]


def test_what_is_no_trace() -> None:
    class Greedy:
        def closed(self, reason: str, info: ConnInfo, more: int) -> None: ...

    class Odd:
        closed = 5

    for wrong, says in ((Greedy(), "closed is called with 2 arguments"), (Odd(), "callable"), (object(), "none of the hooks"), (Greedy, "2 arguments")):
        with pytest.raises(TypeError, match=says):
            Transport(trace=wrong)


class PerRequest(Trace):
    made: list[PerRequest] = []

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.made.append(self)

    def got_conn(self, info: ConnInfo) -> None:
        self.heard.append("got_conn")

    def first_byte(self) -> None:
        self.heard.append("first_byte")

    def put_idle(self, error: str | None) -> None:
        self.heard.append("put_idle")

    def closed(self, reason: str, info: ConnInfo) -> None:
        self.heard.append(reason)


def test_a_class_makes_an_object_for_each_exchange(peer: MakePeer, new_client: MakeClient) -> None:
    PerRequest.made.clear()
    server = peer(HERE)
    client = new_client(trace=PerRequest)
    with client.stream("GET", server.url("/one")) as r:
        client.get(server.url("/two"))
        r.read()
    client.transport.close()
    apart, one, two = PerRequest.made
    assert (one.method, one.target, one.key) == ("GET", "/one", f"http://127.0.0.1:{server.port}")
    assert one.heard == two.heard == ["got_conn", "first_byte", "put_idle"] and two.target == "/two"
    assert apart.heard == ["shutdown", "shutdown"] and apart.key == ""


def test_a_class_whose_object_cannot_be_made(peer: MakePeer, new_client: MakeClient, unraisable: list[Any]) -> None:
    class Once(Trace):
        made = 0

        def __init__(self) -> None:
            type(self).made += 1
            if self.made > 1:
                raise ValueError("mine")

        def closed(self, reason: str, info: ConnInfo) -> None: ...

    client = new_client(trace=Once)
    assert client.get(peer(HERE).url()).content == b"here"
    assert [type(said.exc_value) for said in unraisable] == [ValueError]
    unraisable.clear()


def test_a_client_with_a_trace_travels(peer: MakePeer) -> None:
    server = peer(HERE)
    with Client(trace=PerRequest) as client:
        travelled = pickle.loads(pickle.dumps(client))
    with travelled:
        PerRequest.made.clear()
        travelled.get(server.url())
        assert [one.heard for one in PerRequest.made] == [["got_conn", "first_byte", "put_idle"]]


def test_a_child_hears_nothing_of_its_parents_connections(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    server = peer(HERE)
    client = traced()
    client.get(server.url())
    record.calls.clear()

    def child() -> None:
        assert record.names == []
        client.get(server.url())
        assert record.names == FRESH

    in_child(child)


def test_nothing_is_imported_without_one() -> None:
    said = subprocess.run([sys.executable, "-c", "import sys, pooledhttp\npooledhttp.Client(max_idle_conns=3).close()\n"
                           "print([m for m in sys.modules if m in ('logging', 'inspect', 'pooledhttp.trace', 'pooledhttp._trip.tales')])"],
                          capture_output=True, text=True, check=True, env={**os.environ, "PYTHONSAFEPATH": ""})
    assert said.stdout.strip() == "[]"


def test_the_fast_lane_stays_one_hand_off(peer: MakePeer, new_client: MakeClient, record: Record) -> None:
    """What a trace costs, those pay who have one."""
    from pooledhttp._trip.trip import gil_releases

    server = peer(HERE)
    releases = {}
    for name, options in (("off", {}), ("on", {"trace": record})):
        client = new_client(**options)
        record.transport = client.transport
        client.get(server.url())
        before = gil_releases()
        client.get(server.url())
        releases[name] = gil_releases() - before
    assert releases["off"] <= 1 or releases["off"] < releases["on"]


def test_time_in_hooks_counts(peer: MakePeer, traced: MakeClient, record: Record) -> None:
    record.during["got_conn"] = lambda: time.sleep(0.2)
    with pytest.raises(pooledhttp.DeadlineExceeded):
        traced().get(peer(HERE).url(), timeout=0.1)


def test_a_unix_socket(peer: MakePeer, traced: MakeClient, record: Record, tmp_path: Any) -> None:
    server: Peer = peer(HERE, uds=tmp_path / "s")
    traced(uds=str(tmp_path / "s")).get("http://localhost/")
    assert record.names == FRESH and record.args("connect_start") == (str(tmp_path / "s"),)
    assert server.accepted == 1 and socket.AF_UNIX
