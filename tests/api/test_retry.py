"""Retries by policy: what is tried again, after which pause, how often, how a host is spared, and what ends it."""
from __future__ import annotations

import io
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooledhttp import (
    Cancelled,
    CertificateError,
    Client,
    ConnectError,
    ConnectRefusedByFilter,
    ConnectTimeout,
    DeadlineExceeded,
    DecodingError,
    DNSError,
    HTTPStatusError,
    LocalProtocolError,
    MockTransport,
    PoolTimeout,
    ProxyError,
    ReadError,
    ReadTimeout,
    RemoteProtocolError,
    Request,
    Response,
    ResponseHeaderTimeout,
    ResponseTooLarge,
    Retry,
    StaleConnectionError,
    TLSError,
    TLSHandshakeTimeout,
    TooManyRedirects,
    UnsupportedProtocol,
    WriteError,
    WriteTimeout,
    default_transport,
    retry,
)
from pooledhttp._core.cancel import Canceller, pause
from tests.support.peer import Conn, Peer, Script, free_ports, respond

MakePeer = Callable[..., Peer]
FAST = {"backoff": 0.001, "budget": None}


class Answers:
    """A handler that gives one answer after another, the last for ever; an exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = answers
        self.seen: list[Request] = []

    def __call__(self, request: Request) -> Response:
        answer = self.answers[min(len(self.seen), len(self.answers) - 1)]
        self.seen.append(request)
        if isinstance(answer, BaseException):
            raise answer
        return Response(answer) if isinstance(answer, int) else answer


def trying(*answers: Any, **options: Any) -> tuple[Client, Answers]:
    handler = Answers(*answers)
    return Client(transport=MockTransport(handler), **{"retries": Retry(3, **FAST), **options}), handler


# --- the policy -----------------------------------------------------------------------------------------------------------------


def test_defaults() -> None:
    policy = Retry(4)
    assert (policy.total, policy.backoff, policy.max_backoff, policy.jitter, policy.respect_retry_after, policy.budget, policy.max_retry_after) == (
        4, 0.1, 30.0, True, True, 0.2, 60.0)
    assert policy.statuses == {429, 502, 503, 504}
    assert policy.methods == {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}
    assert policy == Retry.of(4) == pickle.loads(pickle.dumps(policy))
    assert hash(policy) == hash(Retry(4))
    assert policy != Retry(4, jitter=False)
    assert Retry.of(policy) is policy
    assert Retry.of(None) is Retry.of(0) is Retry.of(Retry(0)) is None
    assert "Retry(4, backoff=0.1" in repr(policy)


@pytest.mark.parametrize(("options", "error"), [
    ({"total": -1}, ValueError), ({"total": True}, TypeError), ({"total": 1.5}, TypeError), ({"total": "3"}, TypeError), ({"backoff": -1}, ValueError),
    ({"backoff": "1"}, TypeError), ({"max_backoff": float("nan")}, ValueError), ({"max_backoff": float("inf")}, ValueError), ({"budget": -0.1}, ValueError),
    ({"statuses": [99]}, ValueError), ({"statuses": ["503"]}, ValueError), ({"statuses": [100]}, ValueError), ({"methods": "GET"}, TypeError),
    ({"max_retry_after": None}, TypeError),
])
def test_policies_that_are_none(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Retry(**{"total": 3, **options})


@pytest.mark.parametrize("bad", [True, 1.5, "3", [3]])
def test_retries_that_are_none(bad: Any) -> None:
    with pytest.raises(TypeError, match="retries"):
        Client(retries=bad)
    client, handler = trying(200)
    with pytest.raises(TypeError, match="retries"):
        client.get("http://a/", retries=bad)
    assert handler.seen == []


@pytest.mark.parametrize(("policy", "seconds"), [
    (Retry(9, jitter=False), [0.1, 0.2, 0.4, 0.8, 1.6]), (Retry(9, jitter=False, backoff=1, max_backoff=3), [1, 2, 3, 3, 3]),
    (Retry(9), [0.05, 0.1, 0.2, 0.4, 0.8]), (Retry(9, backoff=0), [0, 0]), (Retry(9, jitter=False, max_backoff=0), [0, 0]),
])
def test_pauses(policy: Retry, seconds: list[float]) -> None:
    assert [policy.pause(n + 1, None, now=0, draw=0.5) for n in range(len(seconds))] == pytest.approx(seconds)
    assert policy.pause(100_000, None, now=0, draw=1) in (policy.max_backoff, 0.0)
    assert policy.pause(3, None, now=0, draw=0) == (0 if policy.jitter else seconds[2] if len(seconds) > 2 else 0)


NOW = 1_700_000_000.0


@pytest.mark.parametrize(("value", "seconds"), [
    ("0", 0), ("7", 7), ("007", 7), ("60", 60), ("61", None), ("9" * 5000, None), (formatdate(NOW + 30, usegmt=True), 30),
    (formatdate(NOW - 30, usegmt=True), 0),
    (formatdate(NOW + 61, usegmt=True), None), ("Tuesday, 14-Nov-23 22:13:50 GMT", 30), ("Tue Nov 14 22:13:50 2023", 30),
    ("-1", 0), ("1.5", 0), ("soon", 0), ("", 0), ("1, 2", 0), ("٣", 0), ("Tue, 99 Foo 2023 99:99:99 GMT", 0),
])
def test_retry_after(value: str, seconds: float | None) -> None:
    response = Response(503, headers={"Retry-After": value})
    policy = Retry(3, backoff=0)
    assert policy.pause(1, response, now=NOW, draw=0) == (None if seconds is None else pytest.approx(seconds))
    assert Retry(3, backoff=0, respect_retry_after=False).pause(1, response, now=NOW, draw=0) == 0
    assert Retry(3, backoff=100, max_backoff=100, jitter=False).pause(1, Response(503, headers={"Retry-After": "1"}), now=NOW, draw=0) == 100


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=60) | st.lists(st.sampled_from(
    ["Mon", "Tue,", "14", "Nov", "2023", "0000", "22:13:50", "GMT", "-0000", "+9999", ":", "99999999999", ",", "-"]), max_size=8).map(" ".join))
def test_any_retry_after_is_understood_or_ignored(value: str) -> None:
    seconds = retry.retry_after(Response(503, headers={"Retry-After": value}), NOW)
    assert seconds >= 0


def test_random() -> None:
    drawn = [retry.random() for _ in range(200)]
    assert all(0 <= n <= 1 for n in drawn)
    assert len(set(drawn)) > 190
    assert 0.3 < sum(drawn) / 200 < 0.7


# --- what is tried again --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 404, 408, 429, 500, 501, 502, 503, 504])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST", "PATCH"])
def test_answers(status: int, method: str) -> None:
    client, handler = trying(status, 200, follow_redirects=False)
    again = status in (429, 502, 503, 504) and method not in ("POST", "PATCH")
    assert client.request(method, "http://a/").status_code == (200 if again else status)
    assert len(handler.seen) == 1 + again


def test_an_idempotency_key_makes_any_method_idempotent() -> None:
    client, handler = trying(503, ReadError("broke", phase="headers"), 200)
    assert client.post("http://a/", headers={"Idempotency-Key": "1"}, content=b"x").status_code == 200
    assert [request.content for request in handler.seen] == [b"x"] * 3


def refused(status: int) -> ProxyError:
    error = ProxyError("no", phase="proxy")
    error.status_code = status  # type: ignore[attr-defined]
    return error


ERRORS = [
    (refused(503), "all"), (refused(429), "all"), (refused(407), "none"), (refused(403), "none"),
    (ConnectError("no", phase="connect"), "all"), (DNSError("no", phase="dns"), "all"), (ConnectTimeout("late", phase="connect"), "all"),
    (TLSHandshakeTimeout("late", phase="tls"), "all"), (TLSError("no", phase="tls"), "all"), (ProxyError("no", phase="proxy"), "all"),
    (ReadError("broke", phase="headers"), "idempotent"), (ReadError("broke", phase="body"), "idempotent"), (WriteError("broke", phase="send"), "idempotent"),
    (StaleConnectionError("died", phase="headers"), "idempotent"), (RemoteProtocolError("no answer", phase="headers"), "idempotent"),
    (ReadTimeout("late", phase="headers"), "idempotent"), (WriteTimeout("late", phase="send"), "idempotent"),
    (TLSError("broke", phase="headers"), "idempotent"), (ResponseHeaderTimeout("late", phase="headers"), "idempotent"),
    (CertificateError("not him", phase="tls"), "none"), (ConnectRefusedByFilter("no", phase="connect"), "none"), (Cancelled("enough"), "none"),
    (DeadlineExceeded("late", phase="connect"), "none"), (LocalProtocolError("no", phase="send"), "none"), (UnsupportedProtocol("gopher"), "none"),
    (PoolTimeout("full", phase="pool"), "none"), (DecodingError("broken"), "none"), (ResponseTooLarge("big"), "none"), (TooManyRedirects("many"), "none"),
    (HTTPStatusError("503"), "none"), (OSError("other"), "none"), (KeyError("handler"), "none"), (KeyboardInterrupt(), "none"),
]


@pytest.mark.parametrize(("error", "which"), ERRORS, ids=[f"{type(e).__name__}-{getattr(e, 'phase', None)}-{getattr(e, 'status_code', 0)}" for e, _ in ERRORS])
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_errors(error: BaseException, which: str, method: str) -> None:
    client, handler = trying(error, error, 200)
    if which == "all" or (which == "idempotent" and method != "POST"):
        assert client.request(method, "http://a/").status_code == 200
        assert len(handler.seen) == 3
    else:
        with pytest.raises(type(error)):
            client.request(method, "http://a/")
        assert len(handler.seen) == 1


def test_methods_and_statuses_of_ones_own() -> None:
    client, handler = trying(418, 503, 200, retries=Retry(5, methods=["post"], statuses=[418], **FAST))
    assert client.post("http://a/").status_code == 503
    assert client.get("http://a/").status_code == 200
    client, handler = trying(503, 503, 200, retries=Retry(5, methods=None, **FAST))
    assert client.patch("http://a/").status_code == 200
    assert len(handler.seen) == 3


@pytest.mark.parametrize(("mine", "given", "tries"), [
    (None, None, 1), (None, 2, 3), (2, None, 3), (2, 0, 1), (2, 1, 2), (Retry(2, **FAST), Retry(4, **FAST), 5), (0, None, 1),  # type: ignore[arg-type]
])
def test_who_says_how_often(mine: Any, given: Any, tries: int) -> None:
    client, handler = trying(503, retries=mine)
    options = {} if given is None else {"retries": given}
    assert client.get("http://a/", **options).status_code == 503
    assert len(handler.seen) == tries
    assert client.get("http://a/", retries=None).status_code == 503


@pytest.mark.parametrize(("content", "again"), [(b"x", True), (io.BytesIO(b"x"), True), ([b"x"], True), (iter([b"x"]), False)])
def test_bodies_are_rewound_or_the_first_answer_stands(peer: MakePeer, client: Client, content: Any, again: bool) -> None:
    server = peer(steps(respond(b"", 503), respond(b"", 503), respond(b"")))
    assert client.put(server.url(), content=content).status_code == (200 if again else 503)
    server.stop()
    assert sum(bytes(conn.received).count(b"PUT") for conn in server.conns) == (3 if again else 1)


def test_the_last_failure_has_the_earlier_ones() -> None:
    first, second, last = ReadError("1"), ReadTimeout("2"), WriteError("3")
    client, _ = trying(first, second, last, retries=Retry(2, **FAST))  # type: ignore[arg-type]
    with pytest.raises(WriteError) as e:
        client.get("http://a/x")
    assert e.value.earlier == (first, second)
    assert e.value.__context__ is second
    assert second.__context__ is first
    assert [str(x) for x in pickle.loads(pickle.dumps(e.value)).earlier] == [str(first), str(second)]
    assert ReadError("alone").earlier == ()


def test_a_failure_after_answers_and_an_answer_after_failures() -> None:
    client, _ = trying(503, ReadError("broke"), retries=Retry(1, **FAST))  # type: ignore[arg-type]
    with pytest.raises(ReadError):
        client.get("http://a/")
    client, _ = trying(ReadError("broke"), 503, retries=Retry(1, **FAST), raise_for_status=True)  # type: ignore[arg-type]
    with pytest.raises(HTTPStatusError):
        client.get("http://a/")


def test_each_try_is_seen_by_the_hooks() -> None:
    log: list[Any] = []

    def stamp(request: Request) -> None:
        assert "x-try" not in request.headers
        request.headers["X-Try"] = str(len(log))
        log.append("try")

    client, handler = trying(503, ReadError("broke"), 200, event_hooks={"request": [stamp], "response": [lambda r: log.append(r.status_code)]})
    r = client.get("http://a/")
    assert log == ["try", 503, "try", "try", 200]
    assert [request.headers["x-try"] for request in handler.seen] == ["0", "2", "3"]
    assert r.history == []


def test_total_is_over_the_redirects() -> None:
    moved = Response(302, headers={"Location": "/y"})
    client, handler = trying(503, moved, 503, 503, 503)
    assert client.get("http://a/x").status_code == 503
    assert len(handler.seen) == 5


def test_a_retry_after_that_is_too_long_ends_it() -> None:
    client, handler = trying(Response(503, headers={"Retry-After": "61"}), 200)
    r = client.get("http://a/")
    assert (r.status_code, r.headers["retry-after"], len(handler.seen)) == (503, "61", 1)


def test_a_retry_after_is_waited_for() -> None:
    client, _ = trying(Response(429, headers={"Retry-After": "1"}), 200)
    began = time.monotonic()
    assert client.get("http://a/").status_code == 200
    assert 1.0 <= time.monotonic() - began < 1.3


# --- the deadline, cancelling, signals ------------------------------------------------------------------------------------------


def test_never_past_the_deadline() -> None:
    began = time.monotonic()
    client, handler = trying(503, retries=Retry(9, backoff=0.08, jitter=False, budget=None), timeout=0.4)
    assert client.get("http://a/").status_code == 503
    client, handler = trying(ReadError("broke"), retries=Retry(9, backoff=5, jitter=False, budget=None))
    with pytest.raises(ReadError):
        client.get("http://a/", timeout=1)
    assert len(handler.seen) == 1
    client, handler = trying(Response(503, headers={"Retry-After": "2"}))
    assert client.get("http://a/", timeout=1).status_code == 503
    assert len(handler.seen) == 1
    assert time.monotonic() - began < 0.5


def test_a_cancel_ends_the_pause() -> None:
    client, handler = trying(503, retries=Retry(3, backoff=30, jitter=False, budget=None))
    reached = threading.Event()
    client.event_hooks["response"].append(lambda r: reached.set())
    cancel = Canceller()
    ended: list[Any] = []

    def work() -> None:
        try:
            client._request("GET", "http://a/", {}, cancel)
        except Cancelled as e:
            ended.append((e, time.monotonic()))

    thread = threading.Thread(target=work)
    thread.start()
    assert reached.wait(10)
    time.sleep(0.05)                       # into the pause; a cancel before it ends it as well
    said = time.monotonic()
    cancel.cancel("enough")
    thread.join(10)
    error, when = ended[0]
    assert when - said < 0.05
    assert (error.reason, error.request.url, len(handler.seen)) == ("enough", "http://a/", 1)
    with pytest.raises(Cancelled):         # before it begins
        client._request("GET", "http://a/", {}, cancel)


def test_leaving_a_map_early_ends_the_pauses() -> None:
    client, _ = trying(200, 503, retries=Retry(3, backoff=30, jitter=False, budget=None))
    began = time.monotonic()
    for _ in client.map(["http://a/"] * 4, workers=2):
        break
    assert time.monotonic() - began < 0.5


def test_ctrl_c_ends_the_pause() -> None:
    client, _ = trying(503, retries=Retry(3, backoff=30, jitter=False, budget=None))
    sent: list[float] = []

    def kill() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.1, kill)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        client.get("http://a/")
    assert time.monotonic() - sent[0] < 0.1
    timer.join()


def test_pause() -> None:
    began = time.monotonic_ns()
    assert pause(began + 30_000_000)
    assert 30_000_000 <= time.monotonic_ns() - began < 80_000_000
    assert pause(0)
    assert pause(began, Canceller())
    cancelled = Canceller()
    cancelled.cancel()
    assert not pause(began + 10_000_000_000, cancelled)
    assert not pause(0, cancelled)
    assert time.monotonic_ns() - began < 200_000_000


def test_a_handler_that_returns_does_not_end_the_pause() -> None:
    rings = []
    old = signal.signal(signal.SIGALRM, lambda *a: rings.append(time.monotonic()))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        began = time.monotonic()
        assert pause(time.monotonic_ns() + 150_000_000, Canceller())
        assert time.monotonic() - began >= 0.15
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert len(rings) >= 3


# --- the budget -----------------------------------------------------------------------------------------------------------------


def test_a_budget() -> None:
    budgets = retry.Budgets()
    assert [budgets.take("a") for _ in range(11)] == [True] * 10 + [False]
    for _ in range(5):
        budgets.deposit("a", 0.2)
    assert [budgets.take("a"), budgets.take("a")] == [True, False]
    for _ in range(1000):
        budgets.deposit("a", 0.2)
    assert [budgets.take("a") for _ in range(11)] == [True] * 10 + [False]
    assert budgets.take("b")


def test_budgets_are_bounded() -> None:
    budgets = retry.Budgets(8)
    for i in range(100):
        budgets.deposit(f"healthy-{i}", 0.2)
    assert len(budgets) <= 9
    for i in range(8):
        while budgets.take(f"dying-{i}"):
            pass
    assert len(budgets) <= 9
    for i in range(100):                   # names without end for what is dying: they have what the first one left
        budgets.deposit(f"name-{i}", 0.2)
        assert not budgets.take(f"name-{i}")
    assert len(budgets) <= 9
    for i in range(8):
        for _ in range(50):
            budgets.deposit(f"name-{92 + i}", 0.2)
    budgets.deposit("another", 0.2)        # it is over
    assert budgets.take("another")


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0, 3.0])
def test_a_dying_server_is_not_stampeded(share: float) -> None:
    client, handler = trying(503, retries=Retry(5, backoff=0, budget=share))
    requests = 50
    for _ in range(requests):
        client.get("http://a/")
    assert len(handler.seen) <= requests * (1 + share) + 10 + 1e-6
    assert len(handler.seen) >= min(requests * 6, requests + 10 + (requests - 5) * min(share, 5)) - 10
    assert client.get("http://b/").status_code == 503                  # another host has its own
    assert [request.url.host for request in handler.seen].count("b") == 6


def test_thirty_two_threads_share_a_budget(peer: MakePeer) -> None:
    seen: list[int] = []

    def script(conn: Conn, i: int) -> None:
        while True:
            conn.recv_request()
            seen.append(i)
            conn.send(respond(b"", 503))

    server = peer(script)
    with Client(retries=Retry(5, backoff=0.001), idle_conn_timeout=60) as client, Client(transport=client.transport, retries=Retry(5, backoff=0.001)) as other:
        def work(n: int) -> None:
            for i in range(10):
                assert (client, other)[i % 2].get(server.url("/")).status_code == 503

        threads = [threading.Thread(target=work, args=(n,)) for n in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = client.transport.stats()
    assert 320 + 10 <= len(seen) <= 320 * 1.2 + 10
    assert stats.retries == len(seen) - 320
    assert stats.requests == len(seen)
    assert next(iter(stats.hosts.values())).retries == stats.retries


def test_clients_made_for_each_request_share_a_budget(peer: MakePeer) -> None:
    seen: list[int] = []

    def script(conn: Conn, i: int) -> None:
        while True:
            conn.recv_request()
            seen.append(i)
            conn.send(respond(b"", 503))

    server = peer(script)
    for _ in range(30):
        Client(retries=Retry(5, backoff=0, budget=0.0)).get(server.url("/"))
    assert len(seen) == 40
    default_transport().close_idle_connections()


def test_transports_that_no_weak_reference_takes() -> None:
    class Slotted:
        __slots__ = ()

        def round_trip(self, request: Request, *, timeout: Any = None, context: Any = None) -> Response:
            return Response(503)

    assert Client(transport=Slotted(), retries=Retry(2, backoff=0)).get("http://slotted/").status_code == 503


# --- over a wire ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(idle_conn_timeout=60, timeout=10, retries=Retry(3, **FAST)) as client:  # type: ignore[arg-type]
        yield client


def steps(*answers: Any) -> Script:
    """One answer a request, whatever connection it comes on: bytes; None for a close without a word; a str for bytes and then a reset."""
    left = list(answers)
    lock = threading.Lock()

    def script(conn: Conn, i: int) -> None:
        while True:
            conn.recv_request()
            with lock:
                answer = left.pop(0)
            if answer is None:
                return
            if isinstance(answer, str):
                conn.send(answer.encode())
                conn.reset()
                return
            conn.send(answer)

    return script


@pytest.mark.parametrize("how", ["get", "stream", "hooks"])
def test_what_breaks_on_the_wire(peer: MakePeer, client: Client, how: str) -> None:
    server = peer(steps(None, "HTTP/1.1 200 O", respond(b"busy", 503), respond(b"done")))
    if how == "hooks":
        client.event_hooks["response"].append(lambda r: None)
    if how == "stream":
        with client.stream("GET", server.url()) as r:
            assert r.read() == b"done"
    else:
        assert client.get(server.url()).content == b"done"
    stats = client.transport.stats()
    assert (stats.retries, stats.requests, stats.active) == (3, 4, 0)


@pytest.mark.parametrize("how", ["get", "hooks"])
def test_what_breaks_in_the_body_is_tried_again(peer: MakePeer, client: Client, how: str) -> None:
    server = peer(steps("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nbegin", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegin", respond(b"whole")))
    if how == "hooks":
        client.event_hooks["response"].append(lambda r: None)
    assert client.get(server.url()).content == b"whole"
    with client.stream("GET", peer(steps("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegin")).url()) as r, pytest.raises((ReadError, RemoteProtocolError)):
        r.read()


def test_a_large_answer_that_is_no_answer_is_not_read(peer: MakePeer, client: Client) -> None:
    server = peer(steps(respond(b"x" * 1000, 503), respond(b"", 503, {"Content-Length": str(1 << 40)}, length=False), respond(b"done")))
    assert client.get(server.url(), max_response_bytes=10).content == b"done"
    server = peer(steps(*[respond(b"x" * 1000, 503)] * 8))
    assert client.get(server.url()).content == b"x" * 1000
    with pytest.raises(ResponseTooLarge):
        client.get(server.url(), max_response_bytes=10)


def test_the_connection_of_an_answer_that_was_none_serves_again(peer: MakePeer, client: Client) -> None:
    server = peer(steps(respond(b"x" * 100_000, 503), respond(b"", 429), respond(b"done")))
    assert client.get(server.url()).content == b"done"
    assert client.transport.stats().opened == 1


def test_nobody_there(client: Client) -> None:
    (port,) = free_ports(1)
    for method in ("GET", "POST"):
        with pytest.raises(ConnectError) as e:
            client.request(method, f"http://127.0.0.1:{port}/", content=b"x")
        assert len(e.value.earlier) == 3
    assert client.transport.stats().dials == 8


def test_a_server_that_comes_back(client: Client) -> None:
    (port,) = free_ports(1)
    made: list[Peer] = []
    tried = []

    def start(request: Request) -> None:
        tried.append(request)
        if len(tried) == 3:
            made.append(Peer(steps(respond(b"here")), port=port))

    client.event_hooks["request"].append(start)
    assert client.post(f"http://127.0.0.1:{port}/", content=b"x").content == b"here"
    made[0].stop()


def test_one_deadline_over_the_tries(peer: MakePeer, client: Client) -> None:
    def script(conn: Conn, i: int) -> None:
        while True:
            conn.recv_request()
            time.sleep(0.06)
            conn.send(respond(b"", 503))

    server = peer(script)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded) as e:
        client.get(server.url(), timeout=0.2, retries=Retry(50, **FAST))  # type: ignore[arg-type]
    assert 0.19 < time.monotonic() - began < 0.3
    assert e.value.source == "request"


def test_a_client_with_a_policy_pickles() -> None:
    client = Client(retries=Retry(2, backoff=0), max_redirects=3, follow_redirects=False)
    again = pickle.loads(pickle.dumps(client))
    assert (again._retry, again._max_redirects, again._follow) == (Retry(2, backoff=0), 3, False)
