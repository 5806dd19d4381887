"""Every form in which a limit is given, on the client and on the request, and whose it then is."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import pooledhttp
from pooledhttp import Client, Request, Timeout, Transport, errors
from tests.deadlines.stalls import StallingServer
from tests.support.peer import FullBacklog, respond

S = 0.12               # the limit of most tests here
LATE = 0.1             # what is measured closely is in test_phases; here it is which limit it was
Call = Callable[..., Any]


@pytest.fixture
def server() -> Iterator[StallingServer]:
    with StallingServer() as it:
        it.new("x")
        yield it


@pytest.fixture(scope="module")
def full() -> Iterator[str]:
    with FullBacklog() as it:
        yield f"http://127.0.0.1:{it.port}/"


def ends(call: Callable[[], Any], error: type[errors.TimeoutException], phase: str, source: str | None = None) -> None:
    start = time.monotonic()
    with pytest.raises(error) as caught:
        call()
    took = time.monotonic() - start
    assert type(caught.value) is error
    assert S <= took < S + LATE
    assert caught.value.phase == phase
    assert getattr(caught.value, "source", None) == source


FORMS = [
    (S, errors.DeadlineExceeded),
    (Timeout(S), errors.DeadlineExceeded),
    (Timeout(total=S, read=5), errors.DeadlineExceeded),
    (Timeout(5, read=S), errors.ReadTimeout),
    (Timeout(read=S), errors.ReadTimeout),
    (Timeout(response_header=S), errors.ResponseHeaderTimeout),
    ((5, S), errors.ReadTimeout),
    ((None, S), errors.ReadTimeout),
]
CALLS: dict[str, Call] = {
    "get": lambda client, url, **kw: client.get(url, **kw),
    "get-again": lambda client, url, **kw: client.get(url, **kw),
    "post": lambda client, url, **kw: client.post(url, content=b"x", **kw),
    "request": lambda client, url, **kw: client.request("GET", url, **kw),
    "send": lambda client, url, **kw: client.send(client.build_request("GET", url), **kw),
    "stream": lambda client, url, **kw: client.stream("GET", url, **kw).__enter__(),
    "map": lambda client, url, **kw: list(client.map([url], **kw)),
    "as_completed": lambda client, url, **kw: list(client.as_completed([url], **kw)),
}


@pytest.mark.parametrize("form,error,how", [(*form, how) for how in CALLS for form in (FORMS if how in ("get", "post") else FORMS[::6])], ids=repr)
def test_of_the_request(server: StallingServer, form: Any, error: type[errors.TimeoutException], how: str) -> None:
    source = "request" if error is errors.DeadlineExceeded else None
    with Client(timeout=None, transport=Transport()) as client, client.transport:
        ends(lambda: CALLS[how](client, server.url("/head/x"), timeout=form), error, "headers", source)


@pytest.mark.parametrize("form,error,how", [(*form, how) for how in ("get", "stream", "map") for form in (FORMS if how == "get" else FORMS[::6])],
                         ids=repr)
def test_of_the_client(server: StallingServer, form: Any, error: type[errors.TimeoutException], how: str) -> None:
    source = "client" if error is errors.DeadlineExceeded else None
    with Transport() as transport, Client(timeout=form, transport=transport) as client:
        ends(lambda: CALLS[how](client, server.url("/head/x")), error, "headers", source)


def test_of_the_client_set_later(server: StallingServer) -> None:
    with Transport() as transport, Client(transport=transport) as client:
        assert client.get(server.url("/ok")).content == b"ok"        # the URL is known from here on
        client.timeout = S
        assert client.timeout == Timeout(S)
        ends(lambda: client.get(server.url("/head/x")), errors.DeadlineExceeded, "headers", "client")
        client.timeout = (5, S)
        ends(lambda: client.get(server.url("/head/x")), errors.ReadTimeout, "headers")


def test_the_requests_replaces_the_clients(server: StallingServer) -> None:
    with Transport() as transport, Client(timeout=Timeout(0.01, read=0.01), transport=transport) as client:
        # Wholly: nothing of the client's stays.
        ends(lambda: client.get(server.url("/head/x"), timeout=S), errors.DeadlineExceeded, "headers", "request")
        ends(lambda: client.get(server.url("/head/x"), timeout=(None, S)), errors.ReadTimeout, "headers")
        ends(lambda: client.get(server.url("/head/x"), timeout=Timeout(response_header=S)), errors.ResponseHeaderTimeout, "headers")


@pytest.mark.parametrize("how", ["get", "stream", "map"])
def test_none_is_no_limit(peer: Callable[..., Any], how: str) -> None:
    def script(conn: Any, i: int) -> None:
        conn.recv_head()
        time.sleep(0.25)
        conn.send(respond(b"at last"))

    server = peer(script)
    with Transport() as transport, Client(timeout=0.05, transport=transport) as client:
        got = CALLS[how](client, server.url(), timeout=None)
        response = got[0] if how == "map" else got
        assert response.read() == b"at last"


@pytest.mark.parametrize("form", [(S, 5), (S, None), Timeout(connect=S)], ids=repr)
@pytest.mark.parametrize("whose", ["client", "request"])
def test_connect(full: str, form: Any, whose: str) -> None:
    with Transport() as transport, Client(timeout=form if whose == "client" else None, transport=transport) as client:
        ends(lambda: client.get(full, **({} if whose == "client" else {"timeout": form})), errors.ConnectTimeout, "connect")


def test_module_level_functions(server: StallingServer) -> None:
    for call in (lambda: pooledhttp.get(server.url("/head/x"), timeout=S), lambda: pooledhttp.post(server.url("/head/x"), json={}, timeout=S),
                 lambda: pooledhttp.stream("GET", server.url("/head/x"), timeout=S).__enter__()):
        ends(call, errors.DeadlineExceeded, "headers", "request")


def test_round_trip(server: StallingServer) -> None:
    with Transport() as transport:
        request = Client(transport=transport).build_request("GET", server.url("/head/x"))
        ends(lambda: transport.round_trip(request, timeout=S), errors.DeadlineExceeded, "headers", "request")
        ends(lambda: transport.round_trip(request, timeout=(5, S)), errors.ReadTimeout, "headers")


def test_the_default_has_limits_and_a_total_has_no_other() -> None:
    t = Client().timeout
    assert (t.total, t.pool, t.connect, t.tls_handshake, t.response_header, t.read, t.write) == (None, 60, 10, 10, None, 60, 60)
    t = Timeout.of(300)
    assert (t.total, t.pool, t.connect, t.tls_handshake, t.response_header, t.read, t.write) == (300, None, None, None, None, None, None)


@pytest.mark.parametrize("timeout", [0, 0.0, 1e-9], ids=repr)
def test_no_time_at_all(server: StallingServer, timeout: float) -> None:
    """A limit of nothing is no `None`: it has passed. What it ends never hangs and is not answered."""
    with Transport() as transport, Client(transport=transport) as client:
        for url in ("/ok", "/head/x"):
            with pytest.raises(errors.DeadlineExceeded):
                client.get(server.url(url), timeout=timeout)
        assert client.get(server.url("/ok")).content == b"ok"
        with pytest.raises(errors.DeadlineExceeded):
            client.get(server.url("/ok"), timeout=timeout)           # on a warm connection
        stats = transport.stats()
        assert stats.opened == stats.open + sum(stats.closed.values())


def test_what_is_no_limit_costs_no_connection(server: StallingServer) -> None:
    with Transport() as transport, Client(transport=transport) as client:
        for bad, error in ((-1, ValueError), (float("nan"), ValueError), ("5", TypeError), (True, TypeError), ((1, 2, 3), TypeError)):
            with pytest.raises(error):
                client.get(server.url("/ok"), timeout=bad)
            with pytest.raises(error):
                Client(timeout=bad, transport=transport)
        assert transport.stats().dials == 0
    assert server.accepted == 0


def test_errors_carry_the_request_and_say_what_passed(server: StallingServer) -> None:
    with Transport() as transport, Client(transport=transport) as client:
        request = Request("GET", server.url("/body/x?token=secret"))
        server.new("x?token=secret")
        with pytest.raises(errors.DeadlineExceeded) as caught:
            client.send(request, timeout=S)
    error = caught.value
    assert error.request.url == request.url
    assert "deadline" in str(error) and "body" in str(error) and "secret" not in str(error)
    assert isinstance(error, TimeoutError) and isinstance(error, OSError)
    assert error.conn.remote_addr == ("127.0.0.1", server.port)


def test_an_endless_limit_is_none(server: StallingServer) -> None:
    with Transport() as transport, Client(timeout=float("inf"), transport=transport) as client:
        assert client.get(server.url("/ok")).content == b"ok"
        assert client.get(server.url("/ok"), timeout=1e300).content == b"ok"


def test_deadlines_of_threads_do_not_mix(server: StallingServer) -> None:
    """Many at once on one client, each with its own limit: each ends by its own, and the answered ones are answered."""
    limits = [0.1, 0.2, 0.3, 0.4]
    took: dict[float, list[float]] = {limit: [] for limit in limits}
    wrong: list[str] = []

    with Transport() as transport, Client(transport=transport) as client:
        def stalled(limit: float) -> None:
            for _ in range(2):
                start = time.monotonic()
                try:
                    client.get(server.url("/head/x"), timeout=limit)
                except errors.DeadlineExceeded:
                    took[limit].append(time.monotonic() - start)

        def fine(done: threading.Event) -> None:
            while not done.wait(0.01):
                try:
                    if client.get(server.url("/ok"), timeout=5).content != b"ok":
                        wrong.append("another's answer")
                except errors.Error as e:
                    wrong.append(repr(e))

        done = threading.Event()
        others = [threading.Thread(target=fine, args=(done,)) for _ in range(4)]
        threads = [threading.Thread(target=stalled, args=(limit,)) for limit in limits * 2]
        for t in (*others, *threads):
            t.start()
        for t in threads:
            t.join()
        done.set()
        for t in others:
            t.join()
        stats = transport.stats()
    assert not wrong
    for limit, times in took.items():
        assert len(times) == 4
        assert min(times) >= limit
        assert sorted(times)[1] < limit + 0.05
    assert stats.closed["timeout"] == 16
    assert stats.opened == stats.open + sum(stats.closed.values())
