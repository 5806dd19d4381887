"""Redirects: which request follows, what travels along and what does not, how the chain ends, and what becomes of the connections."""
from __future__ import annotations

import io
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pooledhttp import (
    URL,
    Client,
    DeadlineExceeded,
    Headers,
    HTTPStatusError,
    MockTransport,
    RemoteProtocolError,
    Request,
    Response,
    ResponseTooLarge,
    Retry,
    TooManyRedirects,
    UnsupportedProtocol,
    redirects,
)
from tests.support.peer import Conn, Peer, Script, chunked, header, respond

MakePeer = Callable[..., Peer]
STATUSES = (301, 302, 303, 307, 308)


def redirect(status: int, location: str, **headers: str) -> Response:
    return Response(status, headers={"Location": location, **headers})


class Site:
    """A handler for MockTransport: `places` has the answer for each URL, and anything else is told what it was asked."""

    def __init__(self, places: dict[str, Response | tuple[int, str]]) -> None:
        self.places = places
        self.seen: list[Request] = []

    def __call__(self, request: Request) -> Response:
        self.seen.append(request)
        place = self.places.get(str(request.url).partition("#")[0])
        if place is None:
            return Response(200, content=request.content)
        return redirect(*place) if isinstance(place, tuple) else place

    @property
    def urls(self) -> list[str]:
        return [str(request.url) for request in self.seen]


def visit(places: dict[str, Any], **options: Any) -> tuple[Client, Site]:
    site = Site(places)
    return Client(transport=MockTransport(site), **options), site


def request(*, method: str = "GET", url: str = "http://a/x", **options: Any) -> Request:
    return Request(method, url, **options)


# --- method and body ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_methods(status: int, method: str) -> None:
    client, site = visit({"http://a/x": (status, "/y")})
    body = None if method in ("GET", "HEAD", "OPTIONS", "DELETE") else b"body"
    r = client.request(method, "http://a/x", content=body)
    kept = status in (307, 308)
    assert (r.status_code, r.url, [h.status_code for h in r.history]) == (200, "http://a/y", [status])
    assert site.seen[1].method == (method if kept or method == "HEAD" else "GET")
    assert site.seen[1].content == (body or b"" if kept else b"")


BODY_FIELDS = ["Content-Type", "Content-Length", "Content-Encoding", "Content-Language", "Content-MD5", "Expect", "Digest", "Trailer"]


@pytest.mark.parametrize(("status", "kept"), [(301, False), (302, False), (303, False), (307, True), (308, True)])
def test_the_headers_of_a_body_go_with_it(status: int, kept: bool) -> None:
    values = {"Content-Length": "4"}
    client, site = visit({"http://a/x": (status, "/y")})
    client.post("http://a/x", content=b"body", headers={**{name: values.get(name, "v") for name in BODY_FIELDS}, "X-Mine": "1"})
    sent = site.seen[1].headers
    assert [name for name in BODY_FIELDS if name in sent] == (BODY_FIELDS if kept else [])
    assert sent["x-mine"] == "1"
    assert "http://a/y" in site.urls


class Closed(io.BytesIO):
    """A file that nobody can seek any more once it was read."""

    def seek(self, *where: Any) -> int:
        if getattr(self, "was_read", False):
            raise ValueError("I/O operation on closed file")
        return super().seek(*where)

    def read(self, *n: Any) -> bytes:
        self.was_read = True
        return super().read(*n)


@pytest.mark.parametrize(("content", "again"), [
    (b"twice", True), ([b"tw", b"ice"], True), (io.BytesIO(b"twice"), True), (iter([b"twice"]), False), (Closed(b"twice"), False),
])
def test_a_body_is_rewound_or_the_redirect_is_the_answer(peer: MakePeer, content: Any, again: bool) -> None:
    got: list[bytes] = []

    def script(conn: Conn, i: int) -> None:
        while True:
            got.append(conn.recv_request()[1])
            conn.send(respond(b"elsewhere", 307, {"Location": "/y"}) if len(got) == 1 else respond(b"done"))

    server = peer(script)
    with Client(idle_conn_timeout=60) as client:
        r = client.post(server.url("/x"), content=content)
        assert got == ([b"twice", b"twice"] if again else [b"twice"])
        assert (r.status_code, r.content) == ((200, b"done") if again else (307, b"elsewhere"))
        assert client.transport.stats().opened == 1


def test_a_form_with_files_is_sent_again(peer: MakePeer) -> None:
    got: list[bytes] = []
    answers = [respond(b"", 503), respond(b"", 308, {"Location": "/y"}), respond(b"done")]

    def script(conn: Conn, i: int) -> None:
        while True:
            head, body = conn.recv_request()
            got.append((header(head, "Content-Type") or "").encode() + body)
            conn.send(answers[len(got) - 1])

    server = peer(script)
    with Client(retries=Retry(1, backoff=0, methods=["POST"]), idle_conn_timeout=60) as client:
        r = client.post(server.url("/x"), data={"a": "b"}, files={"f": ("name", io.BytesIO(b"x" * 100_000))})
    assert r.content == b"done"
    assert len(got) == 3
    assert got[0] == got[1] == got[2]
    assert b"x" * 100_000 in got[0]


def test_a_generator_that_was_not_begun_goes_where_it_is_led(peer: MakePeer) -> None:
    """With Expect: 100-continue a redirect comes before the body."""
    got: list[bytes] = []

    def script(conn: Conn, i: int) -> None:
        head = conn.recv_head()
        if b" /x " in head:
            conn.send(respond(b"", 307, {"Location": "/y", "Connection": "close"}))
            return
        conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        got.append(conn.recv_body(head))
        conn.send(respond(b"done", headers={"Connection": "close"}))

    with Client(expect_continue_timeout=5) as client:
        r = client.post(peer(script).url("/x"), content=(b for b in [b"on", b"ce"]), headers={"Expect": "100-continue"})
    assert (r.content, got) == (b"done", [b"once"])


# --- where to -------------------------------------------------------------------------------------------------------------------


LOCATIONS = [
    ("http://a/d/x?q#f", "y", "http://a/d/y#f"), ("http://a/d/x", "/y", "http://a/y"), ("http://a/d/x", "?p=1", "http://a/d/x?p=1"),
    ("http://a/d/x?q", "#g", "http://a/d/x?q#g"), ("http://a/d/x#f", "/y#g", "http://a/y#g"), ("http://a/d/x#f", "http://b/", "http://b/#f"),
    ("http://a/d/x", "//b/y", "http://b/y"), ("http://a/d/x", "https://b:8443/y?z#w", "https://b:8443/y?z#w"), ("http://a/d/x", "../y", "http://a/y"),
    ("http://a/d/x", "HTTP://B/Y", "http://b/Y"), ("http://a/x", " /y ", "http://a/y"), ("http://a/x", "/a b", "http://a/a%20b"),
    ("http://a/x", "http://u:p@a/y", "http://a/y"), ("http://a/x", "/y#", "http://a/y"), ("http://a:8000/x", "/y", "http://a:8000/y"),
    ("http+unix://%2Frun%2Fx/a/b", "c", "http+unix://%2frun%2fx/a/c"), ("http+unix://%2Frun%2Fx/a", "http://b/", "http://b/"),
    ("http://a/x", "/\u20ac", "http://a/%E2%82%AC"),
    ("http://a/x", "y:z", None), ("http://a/x", "a:8000/y", None), ("http://a/x", "./y:z", "http://a/y:z"), ("http://[::1]:80/x", "/y", "http://[::1]/y"),
]


@pytest.mark.parametrize(("url", "location", "goal"), LOCATIONS)
def test_locations(url: str, location: str, goal: str | None) -> None:
    asked = request(url=url)
    if goal is None:
        with pytest.raises(UnsupportedProtocol):
            redirects.following(asked, redirect(302, location))
        return
    following = redirects.following(asked, redirect(302, location))
    assert following is not None
    assert following.url == goal


@pytest.mark.parametrize(("raw", "goal"), [
    ("/ü".encode(), "http://a/%C3%BC"), ("/ü".encode("latin-1"), "http://a/%FC"), ("http://bücher.example/".encode(), "http://xn--bcher-kva.example/"),
    (b"/%zz", "http://a/%25zz"), (b"/\xff\xfe?\xe9=1", "http://a/%FF%FE?%E9=1"),
])
def test_locations_that_are_not_ascii(raw: bytes, goal: str) -> None:
    response = Response(302)
    response.headers = Headers.from_wire(b"Location: " + raw + b"\r\n")
    following = redirects.following(request(), response)
    assert following is not None
    assert following.url == goal


@pytest.mark.parametrize(("location", "error"), [
    ("http://", RemoteProtocolError), ("http:///y", RemoteProtocolError), ("http:/y", RemoteProtocolError), ("http://b:99999/", RemoteProtocolError),
    ("http://b:x/", RemoteProtocolError), ("//", RemoteProtocolError), ("http://[::1/", RemoteProtocolError), ("http://a\\@b/", RemoteProtocolError),
    ("http://b\t/", RemoteProtocolError), ("http://u%3Av:p@b/", RemoteProtocolError),
    ("http+unix://%2Frun%2Fx/", UnsupportedProtocol),
    ("ftp://b/y", UnsupportedProtocol), ("file:///etc/passwd", UnsupportedProtocol), ("mailto:x@y", UnsupportedProtocol), ("javascript:x", UnsupportedProtocol),
])
def test_locations_that_cannot_be_used(location: str, error: type[Exception]) -> None:
    client, site = visit({"http://a/x": (302, location)})
    with pytest.raises(error) as e:
        client.get("http://a/x")
    assert (e.value.request.url, e.value.phase) == ("http://a/x", "headers")  # type: ignore[attr-defined]
    assert "redirect" in str(e.value)
    assert len(site.seen) == 1


@pytest.mark.parametrize("status", [300, 304, 305, 306, *STATUSES])
def test_what_is_no_redirect_is_returned(status: int) -> None:
    client, _ = visit({"http://a/x": Response(status), "http://a/y": Response(status, headers={"Location": ""})})
    assert client.get("http://a/x").status_code == client.get("http://a/y").status_code == status
    if status not in STATUSES:
        client, site = visit({"http://a/x": (status, "/y")})
        assert client.get("http://a/x").status_code == status
        assert len(site.seen) == 1


def test_two_locations() -> None:
    twice = Response(302, headers=[("Location", "/y"), ("Location", "/y")])
    differ = Response(302, headers=[("Location", "/y"), ("Location", "http://evil/")])
    client, _ = visit({"http://a/x": twice, "http://a/z": differ})
    assert client.get("http://a/x").url == "http://a/y"
    with pytest.raises(RemoteProtocolError, match="more than one"):
        client.get("http://a/z")


# --- what is secret -------------------------------------------------------------------------------------------------------------


SECRETS = {"Authorization": "s", "Cookie": "c=s", "Cookie2": "s", "Proxy-Authorization": "s", "Proxy-Authenticate": "s", "WWW-Authenticate": "s"}
ORIGINS = [
    ("http://a/", "http://a/y", True), ("http://a/", "http://a:80/y", True), ("http://a/", "https://a/", True), ("http://a:80/", "https://a:443/", True),
    ("http://A/", "http://a/", True), ("http://a:8000/", "http://a:8000/", True),
    ("https://a/", "http://a/", False), ("http://a/", "https://a:8443/", False), ("http://a:8000/", "https://a/", False), ("http://a/", "http://a:81/", False),
    ("http://a/", "http://b/", False), ("http://a/", "http://sub.a/", False), ("http://sub.a/", "http://a/", False), ("http://a/", "http://a./", False),
    ("http://127.0.0.1/", "http://localhost/", False), ("https://a/", "https://a:8443/", False), ("http://a:443/", "https://a/", False),
]


@pytest.mark.parametrize(("old", "new", "kept"), ORIGINS)
@pytest.mark.parametrize("status", [302, 307])
def test_secrets_stay_with_their_origin(old: str, new: str, kept: bool, status: int) -> None:
    asked = Request("POST", old, headers={**SECRETS, "X-Key": "kept"}, content=b"x")
    following = redirects.following(asked, redirect(status, new))
    assert following is not None
    assert [name for name in SECRETS if name in following.headers] == (list(SECRETS) if kept else [])
    assert following.headers["x-key"] == "kept"
    assert len(asked.headers) == len(SECRETS) + 2                # as it was


@pytest.mark.parametrize("auth", [("u", "p"), lambda request: stamped(request)])
@pytest.mark.parametrize("mine", ["client", "request", "header"])
def test_secrets_do_not_come_back(auth: Any, mine: str) -> None:
    client, site = visit({"http://a/1": (302, "/2"), "http://a/2": (307, "http://b/3"), "http://b/3": (302, "/4"), "http://b/4": (302, "http://a/5"),
                          "http://a/5": (302, "/6")}, auth=auth if mine == "client" else None)
    options: dict[str, Any] = {"auth": auth} if mine == "request" else {"headers": {"Authorization": "s"}} if mine == "header" else {}
    r = client.get("http://a/1", **options)
    assert (r.url, len(r.history)) == ("http://a/6", 5)
    assert ["authorization" in request.headers for request in site.seen] == [True, True, False, False, False, False]
    assert ["x-mark" in request.headers for request in site.seen] == [callable(auth) and mine != "header"] * 2 + [False] * 4


def stamped(request: Request) -> Request:
    request.headers["X-Mark"] = "1"
    request.headers["Authorization"] = "mark"
    return request


def test_userinfo_in_a_location_is_for_its_origin() -> None:
    client, site = visit({"http://a/1": (302, "http://u:p@b/2"), "http://b/2": (302, "/3"), "http://b/3": (302, "http://c/4")})
    client.get("http://a/1", auth=("me", "mine"))
    assert [request.headers.get("authorization") for request in site.seen] == ["Basic bWU6bWluZQ==", "Basic dTpw", "Basic dTpw", None]
    assert all("@" not in url for url in site.urls)


@pytest.mark.parametrize(("location", "host"), [("/y", "virtual"), ("http://a/y", "virtual"), ("http://b/y", None), ("https://a/y", None)])
def test_a_host_header_of_ones_own(location: str, host: str | None) -> None:
    following = redirects.following(request(headers={"Host": "virtual"}), redirect(302, location))
    assert following is not None
    assert following.headers.get("host") == host


# --- the chain ------------------------------------------------------------------------------------------------------------------


def test_history() -> None:
    client, _ = visit({f"http://a/{i}": (302, f"/{i + 1}") for i in range(3)})
    r = client.get("http://a/0")
    assert [h.url for h in r.history] == ["http://a/0", "http://a/1", "http://a/2"]
    assert [len(h.history) for h in r.history] == [0, 1, 2]
    assert all(h.closed for h in r.history)
    again = pickle.loads(pickle.dumps(r))
    assert [h.status_code for h in again.history] == [302] * 3


@pytest.mark.parametrize("limit", [None, 0, 1, 10])
def test_too_many(limit: int | None) -> None:
    client, site = visit({"http://a/x": (302, "/x#again")}, **({} if limit is None else {"max_redirects": limit}))
    with pytest.raises(TooManyRedirects) as e:
        client.get("http://a/x")
    most = 10 if limit is None else limit
    assert len(site.seen) == most + 1
    assert e.value.request.url == "http://a/x#again"
    assert (e.value.response.status_code, len(e.value.response.history)) == (302, most)
    assert pickle.loads(pickle.dumps(e.value)).response.status_code == 302
    assert client.get("http://a/x", follow_redirects=False).status_code == 302


@pytest.mark.parametrize("bad", [-1, True, 1.5, "3", None])
def test_a_limit_that_is_none(bad: Any) -> None:
    with pytest.raises(ValueError, match="max_redirects"):
        Client(max_redirects=bad)


def test_ten_are_not_too_many() -> None:
    client, _ = visit({f"http://a/{i}": (302, f"/{i + 1}") for i in range(10)})
    assert client.get("http://a/0").url == "http://a/10"


@pytest.mark.parametrize(("mine", "given", "followed"), [(True, None, True), (True, False, False), (False, None, False), (False, True, True)])
def test_who_decides(mine: bool, given: bool | None, followed: bool) -> None:
    client, _ = visit({"http://a/x": (302, "/y")}, follow_redirects=mine)
    assert client.get("http://a/x", follow_redirects=given).status_code == (200 if followed else 302)
    assert client.get("http://a/x").status_code == (200 if mine else 302)


def test_the_last_answer_alone_is_judged() -> None:
    client, _ = visit({"http://a/x": (302, "/y"), "http://a/y": Response(404)}, raise_for_status=True)
    with pytest.raises(HTTPStatusError) as e:
        client.get("http://a/x")
    assert (e.value.response.url, len(e.value.response.history)) == ("http://a/y", 1)


def test_hooks_see_each_hop() -> None:
    log: list[Any] = []

    def mark(request: Request) -> None:
        assert "x-hook" not in request.headers
        request.headers["X-Hook"] = "1"
        log.append(str(request.url))

    client, site = visit({"http://a/x": (302, "/y")}, event_hooks={"request": [mark], "response": [lambda r: log.append(r.status_code)]})
    client.get("http://a/x")
    assert log == ["http://a/x", 302, "http://a/y", 200]
    assert all(request.headers["x-hook"] == "1" for request in site.seen)


# --- over a wire ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(idle_conn_timeout=60, timeout=10) as client:
        yield client


def answers(*parts: Any) -> Script:
    """Answers one request after another on one connection; a list is sent in pieces, each a moment after the one before."""

    def script(conn: Conn, i: int) -> None:
        for part in parts:
            conn.recv_request()
            for piece in part if isinstance(part, list) else [part]:
                if piece is None:
                    conn.stall()
                conn.send(piece)
                if isinstance(part, list):
                    time.sleep(0.02)

    return script


def head(length: int | None, location: str = "/y", status: int = 302) -> bytes:
    framing = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
    return respond(b"", status, {"Location": location, **framing}, length=False)


BODIES: list[tuple[str, Any, int]] = [
    ("none", respond(b"", 302, {"Location": "/y"}), 1), ("at once", respond(b"x" * 1000, 302, {"Location": "/y"}), 1),
    ("later", [head(5), b"12345"], 1), ("in parts", [head(100_000), b"x" * 60_000, b"x" * 40_000], 1), ("chunked", [head(None), chunked(b"abc", b"de")], 1),
    ("chunked, cut", [head(None), b"3\r\nab", b"c\r\n0\r", b"\n\r\n"], 1), ("trailers", [head(None), chunked(b"abc", trailers=b"A: b\r\n")], 2),
    ("huge", [head(1 << 40), b"x" * 1000, None], 2), ("endless", [head(None), b"fffff\r\n", None], 2), ("stalled", [head(10), b"12345", None], 2),
]


@pytest.mark.parametrize("how", ["get", "again", "post", "stream"])
@pytest.mark.parametrize(("body", "opened"), [pytest.param(part, opened, id=name) for name, part, opened in BODIES])
def test_bodies_of_redirects(peer: MakePeer, client: Client, how: str, body: Any, opened: int) -> None:
    """The connection serves again where the redirect's body ends soon; nobody waits for more."""
    first = answers(body, respond(b"done"))

    def script(conn: Conn, i: int) -> None:
        if i == 0:
            first(conn, i)
        else:
            answers(respond(b"done"))(conn, i)

    server = peer(script)
    began = time.monotonic()
    if how == "get":
        r = client.get(server.url("/x"))
    elif how == "again":
        r = client.get(server.url("/x"), max_response_bytes=10)
    elif how == "post":
        r = client.post(server.url("/x"), content=b"x", max_response_bytes=10)
    else:
        with client.stream("GET", server.url("/x")) as r:
            r.read()
    assert (r.content, r.status_code, len(r.history)) == (b"done", 200, 1)
    assert time.monotonic() - began < 2
    assert client.transport.stats().opened == opened
    server.stop()


def test_a_large_body_of_a_redirect_that_is_not_followed_is_read(peer: MakePeer, client: Client) -> None:
    big = b"x" * 300_000
    server = peer(answers([respond(big, 302)], [respond(big, 302)], [respond(big, 302, {"Location": "/y"})], [respond(big, 302)]))
    assert client.get(server.url()).content == big
    assert client.post(server.url()).content == big
    assert client.get(server.url(), follow_redirects=False).content == big
    with pytest.raises(ResponseTooLarge):
        client.get(server.url(), max_response_bytes=1000)


def test_one_deadline_over_the_chain(peer: MakePeer, client: Client) -> None:
    def script(conn: Conn, i: int) -> None:
        while True:
            conn.recv_request()
            time.sleep(0.08)
            conn.send(respond(b"", 302, {"Location": "/again"}))

    server = peer(script)
    for options in ({}, {"headers": {"X": "1"}}):
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded) as e:
            client.get(server.url(), timeout=0.3, **options)  # type: ignore[arg-type]
        assert 0.29 < time.monotonic() - began < 0.4
        assert (e.value.source, e.value.request.url.path) == ("request", "/again")


def test_a_stalled_body_of_a_redirect_does_not_pass_the_deadline(peer: MakePeer, client: Client) -> None:
    server = peer(answers([head(10), None]))
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        client.get(server.url(), timeout=0.2)
    assert 0.19 < time.monotonic() - began < 0.3


def test_a_deadline_for_transports_of_others() -> None:
    seen = []

    class Slow:
        def round_trip(self, request: Request, *, timeout: Any = None, context: Any = None) -> Response:
            seen.append(timeout)
            time.sleep(0.06)
            return redirect(302, "/again")

    client = Client(transport=Slow(), timeout=0.2)
    with pytest.raises(DeadlineExceeded) as e:
        client.get("http://a/")
    assert e.value.source == "client"
    totals = [timeout.total for timeout in seen]
    assert totals[0] == 0.2
    assert all(a - b > 0.05 for a, b in zip(totals, totals[1:], strict=False))
    assert 2 <= len(totals) <= 4


def test_an_upload_is_broken_off_by_an_early_redirect(peer: MakePeer, client: Client) -> None:
    """Nobody sends a gigabyte to a server that says to send it elsewhere."""
    size = 1 << 28
    first = []

    def script(conn: Conn, i: int) -> None:
        if i == 0:
            conn.recv_head()
            conn.send(respond(b"", 307, {"Location": target}))
            first.append(len(conn.recv_until_closed()))
        else:
            conn.recv_head()
            conn.send(respond(b"thanks", headers={"Connection": "close"}))

    server = peer(script)
    target = server.url("/y")

    class Pieces:
        def __iter__(self) -> Iterator[bytes]:
            return (b"x" * 65536 for _ in range(size // 65536))

    r = client.post(server.url("/x"), content=Pieces())
    assert (r.status_code, r.content) == (200, b"thanks")
    server.wait_closed(0)
    assert first[0] < size // 4


def test_connect_filter_is_asked_at_each_hop(peer: MakePeer) -> None:
    inner = peer(answers(respond(b"secret")))
    outer = peer(answers(respond(b"", 302, {"Location": inner.url("/")})))
    with Client(connect_filter=lambda ip, port: port != inner.port) as client, pytest.raises(OSError, match="refused") as e:
        client.get(outer.url("/"))
    assert e.value.request.url == inner.url("/")  # type: ignore[attr-defined]
    assert inner.accepted == 0


def test_thirty_two_threads(peer: MakePeer, client: Client) -> None:
    """Each thread's chains are its own."""
    def script(conn: Conn, i: int) -> None:
        while True:
            target = conn.recv_request()[0].split(b" ")[1].decode()
            name, _, step = target[1:].partition("/")
            if step == "4":
                conn.send(respond(name.encode()))
            else:
                conn.send(respond(b"", 302, {"Location": f"/{name}/{int(step or 0) + 1}"}))

    server = peer(script)
    wrong: list[Any] = []

    def work(name: int) -> None:
        for i in range(6):
            r = client.get(server.url(f"/{name}-{i}/0"))
            if (r.text, [str(h.url) for h in r.history]) != (f"{name}-{i}", [server.url(f"/{name}-{i}/{step}") for step in range(4)]):
                wrong.append(r)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert client.transport.stats().requests == 32 * 6 * 5


def test_the_url_of_a_response_is_the_last_one() -> None:
    client, _ = visit({"http://a/x": (301, "//b/y?q#f")})
    url = client.get("http://a/x").url
    assert isinstance(url, URL)
    assert (url.host, url.query, url.fragment) == ("b", "q", "f")
