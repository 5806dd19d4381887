"""WSGITransport: the app gets what PEP 3333 says, its answer is streamed, closed, and fails as it fails."""
from __future__ import annotations

import gzip
import io
import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.validate import validator

import pytest

from pooledhttp import Client, HTTPStatusError, RemoteProtocolError, Request, ResponseTooLarge, StreamClosed, WSGITransport

Environ = dict[str, Any]
Start = Callable[..., Any]


def client(app: Any, **options: Any) -> Client:
    """Over an app that is watched, both ways, for what PEP 3333 asks."""
    return Client(transport=WSGITransport(validator(app), **options), base_url="http://app.test")


def plainly(app: Any, **options: Any) -> Client:
    return Client(transport=WSGITransport(app, **options), base_url="http://app.test")


def told(environ: Environ, start: Start) -> Iterable[bytes]:
    """Answers with the request."""
    body = environ["wsgi.input"].read(1 << 20)
    out = {key: value for key, value in environ.items() if isinstance(value, (str, int, bool))}
    answer = json.dumps({**out, "body": body.decode("latin-1")}).encode()
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]


def text(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def test_the_environment() -> None:
    r = client(told).get("/a%20b/%C3%BC?x=%20&y", headers=[("X-One", "1"), ("x-one", "2"), ("Cookie", "a=b"), ("cookie", "c=d")])
    got = r.json()
    assert {key: got[key] for key in ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL",
                                      "REMOTE_ADDR", "HTTP_HOST", "HTTP_X_ONE", "HTTP_COOKIE", "HTTP_ACCEPT", "wsgi.url_scheme", "wsgi.multithread",
                                      "wsgi.multiprocess", "wsgi.run_once", "body")} == {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/a b/\u00c3\u00bc", "QUERY_STRING": "x=%20&y", "SERVER_NAME": "app.test",
        "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "app.test", "HTTP_X_ONE": "1, 2",
        "HTTP_COOKIE": "a=b; c=d", "HTTP_ACCEPT": "*/*", "wsgi.url_scheme": "http", "wsgi.multithread": True, "wsgi.multiprocess": False,
        "wsgi.run_once": False, "body": ""}
    assert got["PATH_INFO"].encode("latin-1").decode() == "/a b/ü"
    assert {"CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"} & set(got) == set()
    assert (r.status_code, r.reason, r.http_version, r.conn, r.closed) == (200, "OK", "HTTP/1.1", None, True)
    assert r.elapsed.total_seconds() > 0


@pytest.mark.parametrize(("url", "script", "path", "host"), [
    ("https://h:8443/app/x", "/app", "/x", ("h", "8443", "h:8443")),
    ("https://h/app", "/app", "", ("h", "443", "h")),
    ("http://[::1]/app/", "/app", "/", ("::1", "80", "[::1]")),
    ("http://h/apple", "/app", "/apple", ("h", "80", "h")),
    ("http://h/%C3%BC/x", "/ü", "/x", ("h", "80", "h")),
    ("http://h/", "", "/", ("h", "80", "h"))])
def test_where_it_is_mounted(url: str, script: str, path: str, host: tuple[str, str, str]) -> None:
    environ = WSGITransport(told, script_name=script, remote_addr="203.0.113.9").environ(Request("GET", url))
    assert (environ["SCRIPT_NAME"].encode("latin-1").decode(), environ["PATH_INFO"]) == (script, path)
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"], environ["HTTP_HOST"]) == host
    assert environ["REMOTE_ADDR"] == "203.0.113.9"
    assert environ["wsgi.errors"] is sys.stderr


@pytest.mark.parametrize(("given", "body", "kind", "length"), [
    ({"json": {"a": 1}}, '{"a":1}', "application/json", "7"),
    ({"data": {"a": "b c"}}, "a=b+c", "application/x-www-form-urlencoded", "5"),
    ({"content": b"abc", "headers": {"Content-Type": "text/x"}}, "abc", "text/x", "3"),
    ({"content": b""}, "", None, "0"),
    ({"content": io.BytesIO(b"from a file")}, "from a file", None, "11")])
def test_bodies_in(given: dict[str, Any], body: str, kind: str | None, length: str) -> None:
    got = client(told).post("/", **given).json()
    assert (got["body"], got.get("CONTENT_TYPE"), got.get("CONTENT_LENGTH")) == (body, kind, length)


def test_a_request_is_read_as_it_is_made() -> None:
    made: list[str] = []

    def pieces() -> Iterator[bytes]:
        for piece in (b"one\ntwo\n", b"", b"three", b"\nfour"):
            made.append(piece.decode())
            yield piece

    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        assert environ["wsgi.input_terminated"] is True
        assert environ["HTTP_TRANSFER_ENCODING"] == "chunked"
        assert made == []
        body = environ["wsgi.input"]
        start("200 OK", [("Content-Type", "text/plain")])
        assert body.readline() == b"one\n"
        assert made == ["one\ntwo\n"]
        return [body.readline(), body.read(3), body.readline(100), *list(body)]

    assert client(app).post("/", content=pieces()).text == "two\nthree\nfour"


def test_what_breaks_the_request_reaches_the_app_and_then_the_caller() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"one"
        raise KeyError("the source")

    with pytest.raises(KeyError, match="the source"):
        client(told).post("/", content=pieces())


def test_an_answer_is_made_as_it_is_read() -> None:
    made: list[int] = []

    class Body:
        closed = 0

        def __iter__(self) -> Iterator[bytes]:
            for n in range(5):
                made.append(n)
                yield b"%d" % n

        def close(self) -> None:
            self.closed += 1

    body = Body()

    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        start("201 Made It", [("Content-Type", "text/plain"), ("X-A", "1"), ("x-a", "2")])
        return body

    with client(app).stream("GET", "/") as r:
        assert (r.status_code, r.reason, r.headers.get_list("X-A"), r.closed) == (201, "Made It", ["1", "2"], False)
        assert made == [0]
        pieces = r.iter_bytes()
        assert [next(pieces), next(pieces)] == [b"0", b"1"]
        assert (made, body.closed) == ([0, 1], 0)
    assert (made, body.closed, r.closed) == ([0, 1], 1, True)
    with pytest.raises(StreamClosed):
        next(pieces)
    assert client(app).get("/").text == "01234"
    assert body.closed == 2
    with client(app).stream("GET", "/") as r:
        pass                                                       # nothing of it was read
    assert body.closed == 3
    with pytest.raises(ResponseTooLarge):
        client(app).get("/", max_response_bytes=3)
    assert body.closed == 4
    r = client(app).get("/", stream=True)
    del r                                                          # and nobody closed it
    assert body.closed == 5


def test_a_generator_that_starts_late_and_empty_pieces() -> None:
    def app(environ: Environ, start: Start) -> Iterator[bytes]:
        yield b""
        start("200 OK", [("Content-Type", "text/plain")])
        yield b""
        yield b"late"
        yield b""

    r = plainly(app).get("/")
    assert (r.status_code, r.text) == (200, "late")

    def empty(environ: Environ, start: Start) -> Iterator[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        yield from ()

    assert client(empty).get("/").content == b""


def test_write() -> None:
    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        write = start("200 OK", [("Content-Type", "text/plain")])
        write(b"written ")
        write(b"first, ")
        return [b"then ", b"returned"]

    assert client(app).get("/").text == "written first, then returned"


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")])
def test_no_body_is_sent(method: str, status: str) -> None:
    closed = []

    class Body(list[bytes]):
        def close(self) -> None:
            closed.append(True)

    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        start(status, [("Content-Length", "5"), ("Content-Encoding", "gzip")])
        return Body([b"hello"])

    r = plainly(app).request(method, "/")
    assert (r.status_code, r.content, r.headers["content-length"], closed) == (int(status[:3]), b"", "5", [True])


def test_a_length_is_held_as_a_server_holds_it() -> None:
    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", environ["QUERY_STRING"])])
        return [b"12", b"345"]

    assert plainly(app).get("/?5").text == "12345"
    assert plainly(app).get("/?3").text == "123"
    with pytest.raises(RemoteProtocolError, match="cut short: 2 bytes") as e:
        plainly(app).get("/?7")
    assert (e.value.phase, e.value.request.url.query) == ("body", "7")


def test_codings_and_status_errors_as_over_the_wire() -> None:
    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        assert environ["HTTP_ACCEPT_ENCODING"] == "gzip, deflate, br, zstd"
        start("503 Down", [("Content-Type", "text/plain"), ("Content-Encoding", "gzip")])
        return [gzip.compress(b"hello")]

    r = client(app).get("/")
    assert (r.status_code, r.text) == (503, "hello")
    with pytest.raises(HTTPStatusError, match="server error 503 Down for GET http://app.test/"):
        r.raise_for_status()


# --- failures ---------------------------------------------------------------------------------------------------------------

def before(environ: Environ, start: Start) -> Iterable[bytes]:
    raise KeyError("before")


def between(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    raise KeyError("between")


def first(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    raise KeyError("first")
    yield b""


def never(environ: Environ, start: Start) -> Iterable[bytes]:
    return [b"without start_response"]


def twice(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", [])
    start("200 OK", [])
    return []


def odd_status(environ: Environ, start: Start) -> Iterable[bytes]:
    start("2000 OK", [])
    return []


def odd_piece(environ: Environ, start: Start) -> Iterable[Any]:
    start("200 OK", [])
    return ["text"]


@pytest.mark.parametrize(("app", "error"), [(before, KeyError), (between, KeyError), (first, KeyError), (never, AssertionError), (twice, AssertionError),
                                            (odd_status, ValueError), (odd_piece, TypeError)])
def test_an_app_that_fails_before_its_answer(app: Any, error: type[Exception], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(error):
        plainly(app).get("/")
    assert capsys.readouterr().err == ""
    r = plainly(app, raise_app_exceptions=False).get("/")
    assert (r.status_code, r.text) == (500, "Internal Server Error")
    assert error.__name__ in capsys.readouterr().err                # where a server's log would have it


def test_an_app_that_fails_in_its_answer(capsys: pytest.CaptureFixture[str]) -> None:
    closed = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"some"
            raise KeyError("midway")

        def close(self) -> None:
            closed.append(True)

    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        return Body()

    with pytest.raises(KeyError, match="midway"):
        client(app).get("/")
    with client(app).stream("GET", "/") as r:
        pieces = r.iter_bytes()
        assert next(pieces) == b"some"
        with pytest.raises(KeyError, match="midway"):
            next(pieces)
        assert r.closed
    assert closed == [True, True]
    with pytest.raises(RemoteProtocolError, match=r"cut short: the application ended with KeyError \(GET http://app.test/\)") as e:
        client(app, raise_app_exceptions=False).get("/")
    assert isinstance(e.value.__cause__, KeyError)
    assert "midway" in capsys.readouterr().err
    assert closed == [True] * 3


def test_an_error_handlers_answer() -> None:
    """`exc_info`: the app has caught its exception, and answers with another response."""
    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        try:
            raise KeyError("caught")
        except KeyError:
            start("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
            return [b"sorry"]

    with pytest.raises(KeyError, match="caught"):
        client(app).get("/")
    r = client(app, raise_app_exceptions=False).get("/")
    assert (r.status_code, r.reason, r.text) == (500, "Oops", "sorry")

    def late(environ: Environ, start: Start) -> Iterator[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        yield b"some"
        try:
            raise KeyError("too late")
        except KeyError:
            start("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())       # raises: the head is sent
            yield b"never"

    with pytest.raises(KeyError, match="too late"):
        client(late).get("/")


def test_an_exception_in_close_is_the_apps_too() -> None:
    class Body(list[bytes]):
        def close(self) -> None:
            raise KeyError("in close")

    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        return Body([b"a"])

    with pytest.raises(KeyError, match="in close"):
        plainly(app).get("/")


# --- the transport ----------------------------------------------------------------------------------------------------------

def test_many_threads_at_once() -> None:
    barrier = threading.Barrier(32)

    def app(environ: Environ, start: Start) -> Iterator[bytes]:
        barrier.wait(10)                                           # all 32 are in here at once
        mine = threading.get_ident()
        body = environ["wsgi.input"].read(1 << 20)
        start("200 OK", [("Content-Type", "text/plain")])
        for _ in range(100):
            assert threading.get_ident() == mine
            yield environ["QUERY_STRING"].encode() + body + b"\n"

    c = client(app)

    def call(n: int) -> None:
        assert c.post(f"/?{n}", content=iter([b" body ", b"%d" % n])).text == f"{n} body {n}\n" * 100

    with ThreadPoolExecutor(32) as pool:
        for _ in pool.map(call, range(64)):
            pass


def test_map_and_closing() -> None:
    transport = WSGITransport(validator(told))
    c = Client(transport=transport, base_url="http://app.test")
    assert [r.json()["PATH_INFO"] for r in c.map([f"/{n}" for n in range(20)], workers=4)] == [f"/{n}" for n in range(20)]
    transport.close_idle_connections()
    transport.close()
    with pytest.raises(RuntimeError, match="closed"):
        c.get("/")


@pytest.mark.parametrize(("app", "options", "error"), [("app", {}, TypeError), (text, {"script_name": "app"}, ValueError),
                                                       (text, {"script_name": "/app/"}, ValueError)])
def test_what_is_no_app(app: Any, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        WSGITransport(app, **options)
