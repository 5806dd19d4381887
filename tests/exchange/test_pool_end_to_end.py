"""The pool as a client sees it: over real sockets, on the real clock."""
from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pooledhttp import Cancelled, Client, ConnectTimeout, Error, Response, Timeout, Transport
from pooledhttp.transport import Canceller, live
from tests.exchange.support import adds_up, closed, until
from tests.support.ca import Authority
from tests.support.peer import Conn, FullBacklog, Peer, answering, header, respond

MakePeer = Callable[..., Peer]
MakeClient = Callable[..., Client]
HELLO = respond(b"hello")
OK = b"HTTP/1.1 200 OK\r\n"


def closes_when_told(told: threading.Event, how: str) -> Callable[[Conn, int], None]:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(HELLO)
        told.wait(10)
        if how == "reset":
            conn.reset()
        elif how == "half-close":
            conn.shutdown_write()
            conn.recv_until_closed()
        elif how == "says something":
            conn.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
            conn.recv_until_closed()

    return script


@pytest.mark.parametrize("how", ["close", "reset", "half-close", "says something"])
def test_a_dead_idle_connection_is_noticed_within_a_second(peer: MakePeer, client: Client, how: str) -> None:
    told = threading.Event()
    server = peer(closes_when_told(told, how))
    client.get(server.url())
    assert client.transport.stats().idle == 1
    told.set()
    began = time.monotonic()
    until(lambda: client.transport.stats().open == 0)
    assert time.monotonic() - began < 1.0
    assert closed(client.transport.stats()) == {"server_closed": 1}
    server.wait_closed(0)


def test_tls_a_dead_idle_connection_is_noticed_and_tickets_are_no_death(peer: MakePeer, new_client: MakeClient, ca: Authority) -> None:
    told = threading.Event()
    server = peer(closes_when_told(told, "close"), tls=ca.server())
    client = new_client(verify=str(ca.pem))
    assert client.get(server.url()).content == b"hello"
    time.sleep(0.6)                          # more than a round of the janitor, which reads the tickets
    assert client.transport.stats().idle == 1
    told.set()
    began = time.monotonic()
    until(lambda: client.transport.stats().open == 0)
    assert time.monotonic() - began < 1.0
    assert closed(client.transport.stats()) == {"server_closed": 1}


@pytest.mark.parametrize(("options", "headers", "limit", "reason"), [
    ({"idle_conn_timeout": 0.3}, {}, 0.3, "idle_timeout"),
    ({}, {"Keep-Alive": "timeout=2"}, 1.0, "idle_timeout"),
    ({}, {"Keep-Alive": "timeout=1, max=100"}, 0.5, "idle_timeout"),
    ({"max_conn_lifetime": 0.4}, {}, 0.4, "lifetime"),
], ids=["idle_conn_timeout", "keep-alive-2", "keep-alive-1", "max_conn_lifetime"])
def test_idle_connections_end_by_themselves(peer: MakePeer, new_client: MakeClient, options: dict[str, Any], headers: dict[str, str], limit: float,
                                            reason: str) -> None:
    server = peer(answering(respond(b"hello", headers=headers)))
    client = new_client(**options)
    client.get(server.url())
    began = time.monotonic()
    until(lambda: client.transport.stats().open == 0)
    # A lifetime has a jitter of a tenth; the janitor comes twice a second.
    assert limit * 0.85 < time.monotonic() - began < limit + 0.75
    assert closed(client.transport.stats()) == {reason: 1}
    server.wait_closed(0)


def test_an_expired_connection_is_not_handed_out(peer: MakePeer, new_client: MakeClient) -> None:
    server = peer(answering(HELLO))
    client = new_client(idle_conn_timeout=0.05)
    for n in range(3):
        r = client.get(server.url())
        assert r.conn is not None
        assert not r.conn.reused, n
        time.sleep(0.06)
    assert server.accepted == 3
    assert closed(client.transport.stats())["idle_timeout"] >= 2


def test_a_lifetime_that_ends_under_a_request_lets_it_finish(peer: MakePeer, new_client: MakeClient) -> None:
    def script(conn: Conn, i: int) -> None:
        while True:
            conn.recv_request()
            time.sleep(0.15)
            conn.send(HELLO)

    server = peer(script)
    client = new_client(max_conn_lifetime=0.1)
    for _ in range(2):
        assert client.get(server.url()).content == b"hello"
    assert (server.accepted, closed(client.transport.stats())) == (2, {"lifetime": 2})


def test_disable_keep_alives(peer: MakePeer, new_client: MakeClient) -> None:
    server = peer(answering(HELLO))
    client = new_client(disable_keep_alives=True)
    for n in range(3):
        r = client.post(server.url(), content=b"x")
        assert r.conn is not None
        assert (r.content, r.conn.reused, r.conn.requests) == (b"hello", False, 1)
        server.wait_closed(n)
        assert header(bytes(server.conns[n].received), "Connection") == "close"
    assert (server.accepted, closed(client.transport.stats())) == (3, {"not_reusable": 3})
    client.get(server.url(), headers={"Connection": "close, x"})
    assert bytes(server.conns[3].received).lower().count(b"connection:") == 1


def test_disable_keep_alives_at_the_limit_hands_on_the_right_to_dial(peer: MakePeer, new_client: MakeClient) -> None:
    server = peer(answering(HELLO))
    client = new_client(disable_keep_alives=True, max_conns_per_host=2)
    statuses = [r.status_code for r in client.map([server.url()] * 20, workers=8)]
    assert (statuses, server.accepted) == ([200] * 20, 20)
    assert client.transport.stats().open == 0


def test_close_idle_connections(peer: MakePeer, client: Client) -> None:
    server = peer(answering(HELLO, respond(b"x" * 1_000_000)))
    client.get(server.url())
    with client.stream("GET", server.url()) as r:
        client.transport.close_idle_connections()
        # The one that is busy is let finish, and is closed as it comes back.
        assert len(r.read()) == 1_000_000
    server.wait_closed(0)
    assert closed(client.transport.stats()) == {"shutdown": 1}
    client.get(server.url())
    client.get(server.url())
    assert (server.accepted, client.transport.stats().idle) == (2, 1)
    client.transport.close_idle_connections()
    assert (client.transport.stats().open, closed(client.transport.stats())) == (0, {"shutdown": 2})


def test_close_while_requests_are_in_flight(peer: MakePeer, client: Client) -> None:
    go_on = threading.Event()

    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        go_on.wait(10)
        conn.send(HELLO)
        conn.recv_until_closed()

    server = peer(script)
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(client.get(server.url()).content)) for _ in range(4)]
    for t in threads:
        t.start()
    server.wait_for(lambda p: p.accepted == 4 and all(c.received.endswith(b"\r\n\r\n") for c in p.conns))
    client.transport.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.get(server.url())
    go_on.set()
    for t in threads:
        t.join(10)
    assert answers == [b"hello"] * 4
    assert (client.transport.stats().open, closed(client.transport.stats())) == (0, {"shutdown": 4})


def stalls(where: str) -> Callable[[Conn, int], None]:
    heads = {"head": b"", "half-head": OK + b"X", "length": OK + b"Content-Length: 100\r\n\r\nhalf", "until-close": OK + b"\r\nhalf",
             "chunked": OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "fallback-head": OK + b"X: a\r\n b\r\n",
             "fallback": OK + b"X: a\r\n b\r\nContent-Length: 100\r\n\r\nhalf", "fallback-until-close": OK + b"X: a\r\n b\r\n\r\nhalf",
             "large-until-close": OK + b"\r\n" + b"x" * 500_000, "send": b""}

    def script(conn: Conn, i: int) -> None:
        if where == "send":
            conn.recv_exact(1000)
            conn.stall()
        conn.recv_request()
        conn.send(heads[where])
        conn.recv_until_closed()

    return script


STALLS = ["head", "half-head", "length", "until-close", "large-until-close", "chunked", "fallback-head", "fallback", "fallback-until-close", "send"]


@pytest.mark.parametrize("warm", [False, True], ids=["fresh", "reused"])
@pytest.mark.parametrize("where", STALLS)
def test_close_with_cancel_ends_what_is_in_flight(peer: MakePeer, client: Client, where: str, warm: bool) -> None:
    """However the body is framed: an end that we made is no end of the server's."""
    stall = stalls(where)

    def script(conn: Conn, i: int) -> None:
        if warm:
            conn.recv_request()
            conn.send(HELLO)
        conn.received.clear()
        conn._taken = 0
        stall(conn, i)

    server = peer(script)
    if warm:
        client.get(server.url())
    raised: list[BaseException] = []

    def run() -> None:
        try:
            raised.append(AssertionError(client.get(server.url(), content=b"x" * (30 << 20) if where == "send" else None)))
        except BaseException as e:
            raised.append(e)

    t = threading.Thread(target=run)
    t.start()
    server.wait_for(lambda p: p.accepted == 1 and len(p.conns[0].received) > 0)
    time.sleep(0.02)                         # a moment, so that it mostly waits where it should
    began = time.monotonic()
    client.transport.close(cancel=True)
    t.join(10)
    assert time.monotonic() - began < 0.5
    assert [type(e) for e in raised] == [Cancelled], raised
    assert "the transport was closed" in str(raised[0])
    assert raised[0].request is not None     # type: ignore[attr-defined]
    stats = client.transport.stats()
    assert (stats.open, closed(stats), stats.retries) == (0, {"cancelled": 1}, 0)


@pytest.mark.parametrize("disable", [False, True], ids=["keep-alives", "no-keep-alives"])
def test_close_with_cancel_ends_dials_and_waits(new_client: MakeClient, disable: bool) -> None:
    with FullBacklog() as full:
        client = new_client(max_conns_per_host=2, disable_keep_alives=disable)
        raised: list[BaseException] = []

        def run() -> None:
            try:
                client.get(f"http://{full.host}:{full.port}/")
            except BaseException as e:
                raised.append(e)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for t in threads:
            t.start()
        until(lambda: (client.transport.stats().dialing, client.transport.stats().waiting) == (2, 2))
        began = time.monotonic()
        client.transport.close(cancel=True)
        for t in threads:
            t.join(10)
        assert time.monotonic() - began < 0.5
        assert [type(e) for e in raised] == [Cancelled] * 4
        assert sorted(e.phase for e in raised if isinstance(e, Cancelled)) == ["connect", "connect", "pool", "pool"]
        stats = client.transport.stats()
        assert (stats.dialing, stats.waiting, stats.open) == (0, 0, 0)


def test_close_with_cancel_ends_streams_that_are_read_later(peer: MakePeer, client: Client) -> None:
    server = peer(stalls("until-close"))
    with client.stream("GET", server.url()) as r:
        assert r.read(4) == b"half"
        client.transport.close(cancel=True)
        with pytest.raises(Cancelled) as e:
            r.read()
    assert (e.value.phase, e.value.request.method) == ("body", "GET")
    assert closed(client.transport.stats()) == {"cancelled": 1}


def frees_later(held: threading.Event) -> Callable[[Conn, int], None]:
    def script(conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            if b"/held" in head:
                held.wait(10)
            conn.send(respond(b"%d" % i))

    return script


def race(client: Client, url: str, held: threading.Event) -> Response:
    """One request that holds the only connection, and one that dials; the first is answered when the second is dialing."""
    out: list[Response] = []
    first = threading.Thread(target=lambda: client.get(url + "held"))
    first.start()
    until(lambda: client.transport.stats().active == 1)
    second = threading.Thread(target=lambda: out.append(client.get(url + "next")))
    second.start()
    until(lambda: client.transport.stats().dialing == 1)
    held.set()
    first.join(10)
    second.join(10)
    return out[0]


def test_a_connection_given_back_beats_a_stalled_handshake(peer: MakePeer, new_client: MakeClient, ca: Authority) -> None:
    held, handshake = threading.Event(), threading.Event()
    served = frees_later(held)

    def script(conn: Conn, i: int) -> None:
        if i == 1:
            handshake.wait(10)
        conn.start_tls(ca.server())
        served(conn, i)

    server = peer(script)
    client = new_client(verify=str(ca.pem))
    r = race(client, server.url("/").replace("http:", "https:"), held)
    assert r.conn is not None
    assert (r.content, r.conn.reused) == (b"0", True)
    assert client.transport.stats().dialing == 1
    # The dial that lost is finished by a helper, and pooled.
    handshake.set()
    until(lambda: client.transport.stats().dialing == 0)
    stats = client.transport.stats()
    assert (stats.dials, stats.opened, stats.idle, closed(stats)) == (2, 2, 2, {})
    with client.stream("GET", server.url("/").replace("http:", "https:")) as a, client.stream("GET", server.url("/").replace("http:", "https:")) as b:
        assert {a.read(), b.read()} == {b"0", b"1"}


def test_a_lost_dial_that_fails_is_counted(peer: MakePeer, new_client: MakeClient, ca: Authority) -> None:
    held, handshake = threading.Event(), threading.Event()
    served = frees_later(held)

    def script(conn: Conn, i: int) -> None:
        if i == 1:
            handshake.wait(10)
            return
        conn.start_tls(ca.server())
        served(conn, i)

    server = peer(script)
    client = new_client(verify=str(ca.pem))
    assert race(client, server.url("/").replace("http:", "https:"), held).content == b"0"
    handshake.set()
    until(lambda: client.transport.stats().dialing == 0)
    stats = client.transport.stats()
    assert (stats.dials, stats.opened, stats.idle, closed(stats)) == (2, 1, 1, {})
    adds_up(stats)


def test_a_failed_dial_takes_what_came_free(peer: MakePeer, new_client: MakeClient) -> None:
    """The second connect is refused while the first connection is busy; nothing is free yet, so it is the request's error."""
    held = threading.Event()
    allowed = iter([True])
    client = new_client(connect_filter=lambda ip, port: next(allowed, False))
    server = peer(frees_later(held))
    first = threading.Thread(target=lambda: client.get(server.url("/held")))
    first.start()
    until(lambda: client.transport.stats().active == 1)
    with pytest.raises(Error, match="connect_filter refused"):
        client.get(server.url("/next"))
    held.set()
    first.join(10)
    assert client.get(server.url("/next")).content == b"0"
    stats = client.transport.stats()
    assert (stats.dials, stats.opened, stats.idle, stats.dialing) == (2, 1, 1, 0)


def test_waiters_are_served_in_their_order(peer: MakePeer, new_client: MakeClient) -> None:
    def script(conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            order.append(head.split(b" ")[1])
            if b"first" in head:
                go_on.wait(10)
            conn.send(HELLO)

    order: list[bytes] = []
    go_on = threading.Event()
    server = peer(script)
    client = new_client(max_conns_per_host=1)
    threads = []
    for n, name in enumerate(["/first", "/a", "/b", "/c", "/d"]):
        threads.append(threading.Thread(target=client.get, args=(server.url(name),)))
        threads[-1].start()
        until(lambda n=n: client.transport.stats().waiting == n and client.transport.stats().active == 1)
    go_on.set()
    for t in threads:
        t.join(10)
    assert order == [b"/first", b"/a", b"/b", b"/c", b"/d"]
    stats = client.transport.stats()
    assert (server.accepted, stats.waits, stats.reuses, stats.waiting) == (1, 4, 4, 0)


@pytest.mark.parametrize("end", ["close", "body", "error", "cancel"])
def test_a_slot_comes_free_however_a_request_ends(peer: MakePeer, new_client: MakeClient, end: str) -> None:
    def script(conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            if b"/first" not in head:
                conn.send(HELLO)
            elif end == "close":
                conn.send(respond(b"x", headers={"Connection": "close"}))
            elif end == "body":
                conn.send(respond(b"x" * 5_000_000))
            elif end == "error":
                conn.send(b"rubbish rubbish rubbish")
            else:
                conn.stall()

    server = peer(script)
    client = new_client(max_conns_per_host=1)
    timeout = Timeout(read=0.2) if end == "cancel" else None
    failed: list[BaseException] = []

    def first() -> None:
        try:
            client.get(server.url("/first"), timeout=timeout)
        except Error as e:
            failed.append(e)

    holder = threading.Thread(target=first)
    holder.start()
    server.wait_accepted(1)
    assert client.get(server.url("/next")).content == b"hello"
    holder.join(10)
    assert len(failed) == (end in ("error", "cancel"))
    adds_up(client.transport.stats())
    assert client.transport.stats().waiting == 0


# --- cancelling a single request -------------------------------------------------------------------------------------------

def cancelled_in(client: Client, url: str, seen: Callable[[], object], content: Any = None) -> Cancelled:
    """Cancels a request once `seen()`; what it raised, within 50 ms."""
    canceller = Canceller()
    raised: list[tuple[BaseException, float]] = []

    def run() -> None:
        try:
            client._request("POST", url, {"content": content}, canceller)
        except BaseException as e:
            raised.append((e, time.monotonic()))

    t = threading.Thread(target=run)
    t.start()
    until(seen)
    began = time.monotonic()
    canceller.cancel("enough")
    t.join(10)
    error, at = raised[0]
    assert isinstance(error, Cancelled), error
    assert at - began < 0.25
    return error


def test_a_cancel_wherever_it_comes(peer: MakePeer, new_client: MakeClient) -> None:
    client = new_client(max_conns_per_host=1)
    server = peer(stalls("head"))
    error = cancelled_in(client, server.url(), lambda: server.accepted and server.conns[0].received.endswith(b"\r\n\r\n"))
    assert (error.phase, error.reason) == ("headers", "enough")
    assert closed(client.transport.stats()) == {"cancelled": 1}
    with client.stream("GET", peer(answering(respond(b"x" * 5_000_000))).url()) as held:
        assert held.url is not None
        error = cancelled_in(client, held.url, lambda: client.transport.stats().waiting == 1)
        assert (error.phase, client.transport.stats().waiting) == ("pool", 0)
    with FullBacklog() as full:
        error = cancelled_in(client, f"http://{full.host}:{full.port}/", lambda: client.transport.stats().dialing == 1)
        assert (error.phase, client.transport.stats().dialing) == ("connect", 0)
    error = cancelled_in(client, peer(stalls("send")).url(), lambda: client.transport.stats().active == 1, b"x" * (30 << 20))
    assert error.phase == "send"
    error = cancelled_in(client, peer(stalls("length")).url(), lambda: client.transport.stats().active == 1)
    assert error.phase in ("headers", "body")


def test_cancels_at_any_moment_leave_the_pool_whole(peer: MakePeer, new_client: MakeClient) -> None:
    """A cancel may come with the grant of a connection, with a dial's end, with the answer: nothing is lost, and nobody waits on."""
    client = new_client(max_conns_per_host=2)
    server = peer(answering(HELLO))
    wrong: list[BaseException] = []
    counts = {"answered": 0, "cancelled": 0}
    lock = threading.Lock()

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(25):
            canceller = Canceller()
            timer = threading.Timer(10 ** rng.uniform(-4.3, -1.3), canceller.cancel)
            timer.start()
            try:
                client._request("GET", server.url(), {}, canceller)
                kind = "answered"
            except Cancelled:
                kind = "cancelled"
            except BaseException as e:
                wrong.append(e)
                return
            finally:
                timer.join()
            with lock:
                counts[kind] += 1

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
        assert not t.is_alive()
    assert wrong == []
    assert sum(counts.values()) == 200
    assert min(counts.values()) > 0, counts
    stats = client.transport.stats()
    adds_up(stats)
    assert (stats.active, stats.waiting, stats.dialing) == (0, 0, 0)
    assert client.get(server.url()).content == b"hello"


def test_a_cancel_is_not_lost_to_a_request_of_the_uploads_iterator(peer: MakePeer, client: Client) -> None:
    """The inner request waits on the same wake-up of this thread, and clears it."""
    canceller = Canceller()
    other = peer(answering(HELLO))
    server = peer(stalls("head"))

    def body() -> Any:
        yield b"one"
        canceller.cancel("in between")
        assert client.get(other.url()).content == b"hello"       # dials, and so looks at the wake-up
        yield b"two"

    with pytest.raises(Cancelled) as e:
        client._request("POST", server.url(), {"content": body(), "timeout": 3.0}, canceller)
    assert e.value.reason == "in between"


# --- mixed load ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [{}, {"max_conns_per_host": 5}, {"max_idle_conns_per_host": 2, "reuse": "fifo"}, {"max_conn_lifetime": 0.05}],
                         ids=["unbounded", "five", "two-idle", "short-lived"])
def test_the_counts_add_up_under_mixed_load(peer: MakePeer, new_client: MakeClient, options: dict[str, Any]) -> None:
    """16 threads; servers that close, reset, delay, say too much; every answer is its own request's."""
    def script(conn: Conn, i: int) -> None:
        rng = random.Random(i)
        while True:
            head, body = conn.recv_request()
            token = (header(head, "X-Token") or "").encode()
            kind = rng.random()
            if kind < 0.05:
                conn.reset()
                return
            if kind < 0.1:
                return
            if kind < 0.2:
                time.sleep(rng.random() * 0.01)
            if kind < 0.25:
                conn.send(respond(token + body, headers={"Connection": "close"}))
                return
            if kind < 0.3:
                conn.send(OK + b"\r\n" + token + body)
                return
            if kind < 0.35:
                conn.send(respond(token + body) + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
            elif kind < 0.4:
                conn.send(OK + b"Content-Length: 1000\r\n\r\n" + token)
                return
            elif kind < 0.5:
                conn.send(OK + b"X: a\r\n b\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\nT: 1\r\n\r\n" % (len(token + body), token + body))
            else:
                conn.send(respond(token + body))

    servers = [peer(script) for _ in range(3)]
    client = new_client(**options)
    wrong: list[BaseException] = []
    answered = [0] * 16
    stop = threading.Event()

    def work(n: int) -> None:
        rng = random.Random(1000 + n)
        try:
            for k in range(60):
                token = f"{n}-{k}"
                url = rng.choice(servers).url(f"/{token}")
                content = b"+" + b"b" * rng.choice([1, 9000, 100_000]) if rng.random() < 0.3 else None
                try:
                    if rng.random() < 0.3:
                        with client.stream("POST" if content else "GET", url, content=content, headers={"X-Token": token}) as r:
                            body = b"".join(r.iter_bytes()) if rng.random() < 0.7 else None
                    else:
                        body = client.request("POST" if content else "GET", url, content=content, headers={"X-Token": token}).content
                except Error:
                    continue
                if body is not None:
                    assert body == token.encode() + (content or b"")
                    answered[n] += 1
        except BaseException as e:
            wrong.append(e)

    def watch() -> None:
        try:
            while not stop.wait(0.001):
                adds_up(client.transport.stats())
        except BaseException as e:
            wrong.append(e)

    watcher = threading.Thread(target=watch)
    watcher.start()
    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(40)
        assert not t.is_alive()
    stop.set()
    watcher.join(10)
    if wrong:
        raise wrong[0]
    assert sum(answered) > 400
    stats = client.transport.stats()
    adds_up(stats)
    assert (stats.active, stats.waiting, stats.dialing, stats.leaked) == (0, 0, 0, 0)
    assert stats.requests == 16 * 60
    client.transport.close()
    assert client.transport.stats().open == 0


def test_a_kept_error_keeps_no_descriptor(new_client: MakeClient) -> None:
    """An error's traceback holds the frames that it came through, but not the wake descriptor of the thread it was raised in."""
    go_on = threading.Event()

    def resolver(host: str, port: int) -> list[Any]:
        go_on.wait(10)
        return []

    client = new_client(resolver=resolver)
    kept: list[BaseException] = []

    def run() -> None:
        try:
            client.get("http://no.such.host.test/", timeout=Timeout(connect=0.05))
        except Error as e:
            kept.append(e)

    before = live()["wakes"]
    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    go_on.set()
    assert [type(e) for e in kept] == [ConnectTimeout]
    until(lambda: live()["wakes"] == before, "the end of the thread's descriptor")


def test_a_transport_that_is_dropped_closes_what_idles(peer: MakePeer) -> None:
    server = peer(answering(HELLO))
    client = Client(transport=Transport())
    client.get(server.url())
    del client
    server.wait_closed(0, timeout=2.0)
