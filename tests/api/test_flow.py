"""How redirects, auth, retries, hooks and the exchange stand to each other in one send."""
from __future__ import annotations

import io
import pickle
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest

from pooledhttp import Client, DeadlineExceeded, HTTPStatusError, MockTransport, ReadError, Request, Response, ResponseTooLarge, Retry, default_client
from pooledhttp.auth import Auth, HeaderAuth
from tests.support.peer import Conn, Peer, header, respond

MakePeer = Callable[..., Peer]


class Challenge(Auth):
    """Answers a 401 with a token that the 401 names."""

    requires_response_body = False

    def __init__(self) -> None:
        self.closed = 0
        self.bodies: list[Any] = []

    def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        try:
            response = yield request
            while response.status_code == 401:
                if self.requires_response_body:
                    self.bodies.append(response.content)
                request.headers["Authorization"] = "Token " + response.headers["x-token"]
                response = yield request
        finally:
            self.closed += 1


class Reading(Challenge):
    requires_response_body = True


def guarded(request: Request) -> Response:
    """Wants a token for each path; /go redirects to what its query names."""
    token = request.url.path.replace("/", "t")
    if request.headers.get("authorization") != "Token " + token:
        return Response(401, headers={"X-Token": token}, content=b"who?")
    if request.url.path == "/go":
        return Response(302, headers={"Location": request.url.query})
    return Response(200, content=request.content)


@pytest.mark.parametrize("kind", [Challenge, Reading])
def test_the_steps_of_an_auth(kind: type[Challenge]) -> None:
    auth = kind()
    client = Client(transport=MockTransport(guarded), auth=auth)
    r = client.post("http://a/x", content=b"body")
    assert (r.status_code, r.content, [h.status_code for h in r.history]) == (200, b"body", [401])
    assert (auth.closed, auth.bodies) == (1, [b"who?"] if auth.requires_response_body else [])
    assert r.request is not None
    assert r.request.headers["authorization"] == "Token tx"


def test_each_hop_is_authenticated_anew_on_the_same_origin_alone() -> None:
    client = Client(transport=MockTransport(guarded), auth=Challenge())
    r = client.get("http://a/go?/y")
    assert (r.status_code, [(h.status_code, h.url) for h in r.history]) == (
        200, [(401, "http://a/go?/y"), (302, "http://a/go?/y"), (401, "http://a/y")])
    r = client.get("http://a/go?http://b/y")
    assert (r.status_code, [h.status_code for h in r.history]) == (401, [401, 302])


def test_a_body_that_is_gone_ends_the_steps(peer: MakePeer) -> None:
    def script(conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            conn.send(respond(b"", 401, {"X-Token": "t"}) if header(head, "Authorization") is None else respond(b"in"))

    server = peer(script)
    with Client(auth=Challenge(), idle_conn_timeout=60) as client:
        assert client.post(server.url(), content=iter([b"once"])).status_code == 401
        assert client.post(server.url(), content=io.BytesIO(b"twice")).content == b"in"


def test_the_body_of_a_step_is_not_downloaded(peer: MakePeer) -> None:
    def script(conn: Conn, i: int) -> None:
        head, _ = conn.recv_request()
        if header(head, "Authorization") is None:
            conn.send(respond(b"", 401, {"X-Token": "t", "Content-Length": str(1 << 40)}, length=False))
            conn.stall()
        conn.send(respond(b"in"))

    server = peer(script)
    began = time.monotonic()
    with Client(auth=Challenge(), max_response_bytes=10, idle_conn_timeout=60) as client:
        assert client.get(server.url()).content == b"in"
    assert time.monotonic() - began < 1


def test_steps_that_raise_and_steps_that_are_none() -> None:
    class Broken(Challenge):
        def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
            yield request
            raise LookupError("no token")

    class Wrong(Challenge):
        def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
            yield "request"  # type: ignore[misc]

    class Nothing(Challenge):
        def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
            yield from ()

    client = Client(transport=MockTransport(lambda request: Response(200, content=iter([b"x"]))))
    with pytest.raises(LookupError):
        client.get("http://a/", auth=Broken())
    for wrong in (Wrong(), Nothing()):
        with pytest.raises(TypeError, match="auth"):
            client.get("http://a/", auth=wrong)


class Called(Auth):
    def __call__(self, request: Request) -> Request:
        request.headers["X-Called"] = "1"
        return request


@pytest.mark.parametrize("auth", [Called(), HeaderAuth("h"), lambda request: Called()(request)])
def test_what_is_only_called_works_as_before(auth: Any) -> None:
    seen = []
    client = Client(transport=MockTransport(lambda request: seen.append(request) or Response(401)), auth=auth)
    mine = Request("GET", "http://a/")
    assert client.send(mine).status_code == 401
    assert len(seen) == 1
    assert seen[0].headers.get("x-called", seen[0].headers.get("authorization")) in ("1", "h")
    assert len(mine.headers) == 0


def test_retries_are_inside_the_steps_and_hooks_inside_the_retries() -> None:
    log: list[Any] = []
    answers = [503, 401, ReadError("broke"), 503, 302, 503, 200]

    def handler(request: Request) -> Response:
        answer = answers.pop(0)
        log.append((str(request.url), request.headers.get("authorization"), request.headers["x-hook"]))
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, int)
        return Response(answer, headers={"X-Token": "t", "Location": "/y"})

    def hook(request: Request) -> None:
        request.headers.add("X-Hook", "1")

    client = Client(transport=MockTransport(handler), auth=Challenge(), retries=Retry(9, backoff=0), event_hooks={"request": [hook]})
    r = client.get("http://a/x")
    assert [h.status_code for h in r.history] == [401, 302]
    assert log == [("http://a/x", None, "1")] * 2 + [("http://a/x", "Token t", "1")] * 3 + [("http://a/y", None, "1")] * 2


# --- hooks ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_hook_sees_the_body_unread(peer: MakePeer, stream: bool) -> None:
    body = b"x" * 200_000
    sent = threading.Event()

    def script(conn: Conn, i: int) -> None:
        while True:
            conn.recv_request()
            conn.send(respond(body)[:-len(body)])
            sent.wait(10)                          # until a hook has seen the head
            conn.send(body)

    seen: list[Any] = []

    def look(response: Response) -> None:
        seen.append((response.closed, response.headers["content-length"]))
        sent.set()
        if len(seen) == 2:
            seen.append(len(response.read()))

    server = peer(script)
    with Client(event_hooks={"response": [look]}, idle_conn_timeout=60) as client:
        for _ in range(2):
            r = client.get(server.url(), stream=stream)
            assert len(r.read()) == 200_000
            assert r.closed
        with pytest.raises(ResponseTooLarge):
            client.get(server.url(), max_response_bytes=199_999, stream=stream).read()
    assert seen == [(False, "200000"), (False, "200000"), 200_000, (False, "200000")]


def test_a_hook_that_raises_for_the_status_closes_the_response(peer: MakePeer) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(respond(b"", 404, {"Content-Length": "1000000"}, length=False))
        conn.stall()

    server = peer(script)
    with Client(event_hooks={"response": [lambda r: r.raise_for_status()]}, retries=2, idle_conn_timeout=60) as client:
        with pytest.raises(HTTPStatusError):
            client.get(server.url())
        assert client.transport.stats().active == 0
    assert server.accepted == 1


def test_what_was_given_to_send_stays_as_it_is() -> None:
    client = Client(transport=MockTransport(lambda request: Response(302 if request.url.path == "/x" else 200, headers={"Location": "/y"})),
                    event_hooks={"request": [lambda request: request.headers.add("X", "1")]}, auth=("u", "p"))
    mine = client.build_request("POST", "http://a/x", content=b"x")
    before = mine.headers.multi_items()
    for _ in range(2):
        assert client.send(mine).url == "http://a/y"
    assert (mine.method, mine.url, mine.headers.multi_items(), mine.body) == ("POST", "http://a/x", before, b"x")


# --- one deadline ---------------------------------------------------------------------------------------------------------------


def test_one_deadline_over_redirects_retries_and_steps(peer: MakePeer) -> None:
    def script(conn: Conn, i: int) -> None:
        n = 0
        while True:
            conn.recv_request()
            n += 1
            time.sleep(0.03)
            conn.send((respond(b"", 401, {"X-Token": "t"}), respond(b"", 503), respond(b"", 302, {"Location": "/again"}))[n % 3])

    server = peer(script)
    with Client(auth=Challenge(), retries=Retry(99, backoff=0.01, budget=None), max_redirects=99, idle_conn_timeout=60) as client:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.get(server.url(), timeout=0.4)
        assert 0.39 < time.monotonic() - began < 0.5


# --- cookies ------------------------------------------------------------------------------------------------------------------


def test_cookies_of_hops_steps_and_tries() -> None:
    """What any answer sets goes along with whatever is sent next."""
    seen: list[str | None] = []
    answers = [(503, "a=1"), (401, "b=2"), (302, "c=3"), (200, "d=4")]

    def handler(request: Request) -> Response:
        seen.append(request.headers.get("cookie"))
        status, cookie = answers[len(seen) - 1] if len(seen) <= 4 else (200, "e=5")
        return Response(status, headers={"Set-Cookie": cookie, "X-Token": "t", "Location": "/y"})

    client = Client(transport=MockTransport(handler), auth=Challenge(), retries=Retry(3, backoff=0))
    client.get("http://a.example/x", cookies={"mine": "0"})
    client.get("http://b.example/x")
    assert [sorted(value.split("; ")) if value else None for value in seen] == [
        ["mine=0"], ["a=1", "mine=0"], ["a=1", "b=2", "mine=0"], ["a=1", "b=2", "c=3", "mine=0"], None]
    assert not pickle.loads(pickle.dumps(default_client()))._keeps_cookies


def test_a_simple_request_imports_nothing_of_this() -> None:
    import subprocess

    code = ("import sys, pooledhttp\n"
            "pooledhttp.Client(transport=pooledhttp.MockTransport(lambda r: pooledhttp.Response(200))).get('http://a/')\n"
            "print([m for m in ('redirects', 'retry', 'mounts', 'cookies', 'interned') if 'pooledhttp.' + m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True).stdout == "[]\n"
