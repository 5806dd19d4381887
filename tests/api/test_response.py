"""Responses: by hand, from the wire, as streams."""
from __future__ import annotations

import gc
import io
import json
import pickle
import warnings
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

import pooledhttp
from pooledhttp import (
    Client,
    ConnInfo,
    Headers,
    HTTPStatusError,
    Request,
    Response,
    ResponseTooLarge,
    StreamClosed,
    StreamConsumed,
)
from tests.exchange.support import until

from .server import Server, Spy


def test_by_hand() -> None:
    r = Response(404, headers={"X-A": "1"}, content=b"abc")
    assert (r.status_code, r.status, r.reason, r.reason_phrase, r.http_version) == (404, 404, "Not Found", "Not Found", "HTTP/1.1")
    assert (r.ok, r.is_success, r.is_client_error, r.is_server_error, r.is_redirect) == (False, False, True, False, False)
    assert r.headers["x-a"] == "1"
    assert (r.content, r.data, r.text, r.read(), r.closed) == (b"abc", b"abc", "abc", b"abc", True)
    assert (r.request, r.url, r.conn, r.history, r.elapsed, r.timings, r.trailers) == (None, None, None, [], timedelta(0), {}, Headers())
    assert repr(r) == "<Response [404 Not Found]>"
    assert repr(Response(299)) == "<Response [299]>"
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        r.nope  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("status", [0, 99, 1000, "200", True, None, 200.0])
def test_a_status_has_three_digits(status: Any) -> None:
    with pytest.raises(ValueError, match="status"):
        Response(status)


@pytest.mark.parametrize(("status", "headers", "flags"), [
    (200, {}, "ok success"), (204, {}, "ok success"), (302, {"Location": "/"}, "ok redirect"), (302, {}, "ok"),
    (304, {"location": "/"}, "ok"), (400, {}, "client"), (499, {}, "client"), (500, {}, "server"), (599, {}, "server"), (600, {}, "")])
def test_kinds_of_status(status: int, headers: dict[str, str], flags: str) -> None:
    r = Response(status, headers=headers)
    given = [name for name, value in (("ok", r.ok), ("success", r.is_success), ("redirect", r.is_redirect), ("client", r.is_client_error),
                                      ("server", r.is_server_error)) if value]
    assert given == flags.split()


def test_raise_for_status() -> None:
    fine = Response(399)
    assert fine.raise_for_status() is fine
    request = Request("GET", "http://u:secret@h/p?token=secret")
    bad = Response(503, content=b"why", request=request)
    with pytest.raises(HTTPStatusError, match="server error 503 Service Unavailable for GET http://h/p$") as e:
        bad.raise_for_status()
    assert e.value.response is bad
    assert e.value.request is request
    again = pickle.loads(pickle.dumps(e.value))
    assert (again.response.content, again.request.url) == (b"why", request.url)
    with pytest.raises(HTTPStatusError, match="^client error 499$"):
        Response(499).raise_for_status()
    assert Response(600).raise_for_status().status_code == 600


@pytest.mark.parametrize(("kind", "encoding", "text"), [
    ("text/plain", "utf-8", "é\ufffd"), ("text/plain; charset=latin-1", "latin-1", "Ã©ÿ"),
    ('text/plain; x=y; Charset="ISO-8859-1"', "ISO-8859-1", "Ã©ÿ"), ("text/plain; charset=no-such", "utf-8", "é\ufffd"),
    ("text/plain; charset=", "utf-8", "é\ufffd"), ("text/plain; charset=a\0b", "utf-8", "é\ufffd"),
    (None, "utf-8", "é\ufffd")])
def test_text(kind: str | None, encoding: str, text: str) -> None:
    r = Response(200, headers={"Content-Type": kind} if kind else None, content=b"\xc3\xa9\xff")
    assert (r.encoding, r.text) == (encoding, text)
    assert "".join(r.iter_text(1)) == text


def test_encoding_can_be_set() -> None:
    r = Response(200, content=b"\xe9")
    r.encoding = "latin-1"
    assert r.text == "é"
    with pytest.raises(LookupError):
        r.encoding = "no-such"
    r.encoding = None
    assert r.encoding == "utf-8"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"])
def test_json(encoding: str) -> None:
    assert Response(200, content='{"a": "ü"}'.encode(encoding)).json() == {"a": "ü"}
    assert Response(200, content=b"1.5").json(parse_float=str) == "1.5"


@pytest.mark.parametrize("content", [b"", b"{", b"<html>", b'"\xff"'])
def test_json_that_is_none(content: bytes) -> None:
    request = Request("GET", "http://h/")
    with pytest.raises(pooledhttp.JSONDecodeError) as e:
        Response(200, content=content, request=request).json()
    assert isinstance(e.value, json.JSONDecodeError)
    assert isinstance(e.value, pooledhttp.Error)
    assert e.value.request is request
    again = pickle.loads(pickle.dumps(e.value))
    assert (again.msg, again.pos, str(again)) == (e.value.msg, e.value.pos, str(e.value))


def test_in_memory_it_can_be_iterated_again() -> None:
    r = Response(200, content=b"abcde")
    for _ in range(2):
        assert list(r.iter_bytes(2)) == [b"ab", b"cd", b"e"]
        assert list(r.iter_raw()) == [b"abcde"]
        assert list(r.iter_content(None)) == [b"abcde"]
    with pytest.raises(ValueError, match="chunk_size"):
        next(r.iter_bytes(0))


def test_in_memory_it_reads_as_a_file() -> None:
    r = Response(200, content=b"abcde")
    assert (r.read(2), r.read(2), r.read(2), r.read(2)) == (b"ab", b"cd", b"e", b"")
    r = Response(200, content=b"abcde")
    buffer = bytearray(3)
    assert (r.readinto(buffer), bytes(buffer)) == (3, b"abc")
    assert r.read() == b"de"
    assert (r.readinto(buffer), r.content) == (0, b"abcde")


def streamed(*pieces: bytes, limit: int = -1) -> Response:
    r = Response(200, content=iter(pieces))
    r.check_size(limit)
    return r


def test_a_stream_is_read_once() -> None:
    r = streamed(b"ab", b"c")
    assert not r.closed
    assert list(r.iter_bytes()) == [b"ab", b"c"]
    assert r.closed
    for again in (lambda: list(r.iter_bytes()), lambda: list(r.iter_text()), lambda: list(r.iter_lines()), r.read, lambda: r.read(1),
                  lambda: r.content, lambda: r.text, r.json, lambda: r.readinto(bytearray(1))):
        with pytest.raises(StreamConsumed):
            again()  # type: ignore[operator]


def test_a_stream_that_an_iterator_has() -> None:
    r = streamed(b"ab", b"c")
    taken = r.iter_bytes()
    assert next(taken) == b"ab"
    with pytest.raises(StreamConsumed):
        next(r.iter_bytes())
    with pytest.raises(StreamConsumed):
        r.read()
    r.close()
    with pytest.raises(StreamClosed):
        next(taken)
    with pytest.raises(StreamClosed):
        r.read()


def test_a_stream_that_was_closed() -> None:
    r = streamed(b"ab")
    r.close()
    r.close()
    assert r.closed
    for again in (lambda: list(r.iter_bytes()), r.read, lambda: r.read(1), lambda: r.content, lambda: r.text,
                  lambda: r.readinto(bytearray(1))):
        with pytest.raises(StreamClosed):
            again()  # type: ignore[operator]


def test_reading_a_stream_whole_keeps_it() -> None:
    r = streamed(b"ab", b"c")
    assert r.read() == b"abc"
    assert (r.content, r.closed) == (b"abc", True)
    assert list(r.iter_bytes()) == [b"abc"]
    r = streamed(b'{"a"', b":1}")
    assert r.json() == {"a": 1}
    r.close()
    assert r.text == '{"a":1}'


def test_a_stream_reads_as_a_file() -> None:
    r = streamed(b"abc", b"", b"defg")
    assert (r.read(0), r.read(2), r.read(4)) == (b"", b"ab", b"cdef")
    with pytest.raises(StreamConsumed, match="in part"):
        r.content  # noqa: B018
    assert r.read() == b"g"
    assert (r.read(1), r.read(), r.readinto(bytearray(1)), r.closed) == (b"", b"", 0, True)
    r = streamed(b"abcdef")
    assert r.read(1) == b"a"
    assert list(r.iter_bytes(4)) == [b"bcde", b"f"]
    r = streamed(b"abcde")
    buffer = bytearray(4)
    assert (r.readinto(buffer), bytes(buffer), r.readinto(bytearray()), r.readinto(buffer), r.readinto(buffer)) == (4, b"abcd", 0, 1, 0)


@pytest.mark.parametrize("read", [
    lambda r: b"".join(r.iter_bytes(2)), lambda r: r.read(), lambda r: r.content, lambda r: r.read(6),
    lambda r: r.readinto(bytearray(9)), lambda r: list(r.iter_lines())])
def test_a_body_over_the_limit(read: Any) -> None:
    request = Request("GET", "http://h/")
    r = streamed(b"abc", b"def", limit=5)
    r.request = request
    with pytest.raises(ResponseTooLarge, match="max_response_bytes=5") as e:
        while read(r):
            pass
    assert (e.value.phase, e.value.request) == ("body", request)
    assert r.closed


def test_a_body_just_at_the_limit_and_what_is_yielded_before_it() -> None:
    assert b"".join(streamed(b"abc", b"de", limit=5).iter_bytes()) == b"abcde"
    assert streamed(b"abcde", limit=5).read() == b"abcde"
    assert b"".join(streamed(limit=0).iter_bytes()) == b""
    got = []
    with pytest.raises(ResponseTooLarge):
        got.extend(streamed(b"abc", b"defg", limit=5).iter_bytes())
    taken = streamed(b"abc", b"defg", limit=5).iter_bytes()
    assert next(taken) == b"abc"


def test_an_error_on_the_way_names_the_request_and_closes() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"ab"
        raise pooledhttp.ReadError("broke", phase="body")

    r = Response(200, content=pieces())
    r.request = Request("GET", "http://h/")
    with pytest.raises(pooledhttp.ReadError) as e:
        list(r.iter_bytes())
    assert e.value.request is r.request
    assert r.closed


def test_a_with_block_closes() -> None:
    closed = []

    def pieces() -> Iterator[bytes]:
        try:
            yield b"ab"
            yield b"cd"
        finally:
            closed.append(True)

    with Response(200, content=pieces()) as r:
        assert r.read(1) == b"a"
    assert r.closed
    assert closed == [True]


def test_pickle() -> None:
    r = Response(201, headers=[("A", "1"), ("a", "2")], content=b"x", request=Request("PUT", "http://h/p", content=b"y"))
    r.encoding = "latin-1"
    again = pickle.loads(pickle.dumps(r))
    assert (again.status_code, again.headers, again.content, again.request.content, again.url, again.encoding, again.closed) == (
        201, r.headers, b"x", b"y", "http://h/p", "latin-1", True)
    assert pickle.loads(pickle.dumps(streamed(b"ab", b"c"))).content == b"abc"
    read = streamed(b"ab")
    list(read.iter_bytes())
    with pytest.raises(StreamConsumed):
        pickle.loads(pickle.dumps(read)).content  # noqa: B018
    closed = streamed(b"ab")
    closed.close()
    with pytest.raises(StreamClosed):
        pickle.loads(pickle.dumps(closed)).content  # noqa: B018


# --- over a wire ------------------------------------------------------------------------------------------------------------


def test_what_a_response_knows_of_its_exchange(client: Client, server: Server) -> None:
    r = client.get(server.url + "/echo?x#y", headers={"X-A": "1"})
    assert (r.status_code, r.reason, r.http_version, r.url) == (200, "OK", "HTTP/1.1", server.url + "/echo?x#y")
    assert r.headers["content-type"] == "application/json"
    assert r.request is not None
    assert (r.request.method, r.request.headers["x-a"]) == ("GET", "1")
    assert isinstance(r.elapsed, timedelta)
    assert timedelta(0) < r.elapsed < timedelta(seconds=5)
    assert set(r.timings) == {"pool", "dns", "connect", "tls", "send", "wait", "body"}
    assert isinstance(r.conn, ConnInfo)
    assert r.conn.remote_addr == ("127.0.0.1", server.server_address[1])
    again = pickle.loads(pickle.dumps(r))
    assert (again.json(), again.conn, again.timings, again.elapsed, again.url) == (r.json(), r.conn, r.timings, r.elapsed, r.url)


def test_streams(client: Client, server: Server) -> None:
    with client.stream("GET", server.url + "/bytes/200000") as r:
        assert not r.closed
        data = b"".join(r.iter_bytes())
    assert len(data) == 200000
    with client.stream("GET", server.url + "/chunked/ab%0A/cd/e") as r:
        assert list(r.iter_lines()) == ["ab%0Acde"]
    with client.stream("GET", server.url + "/bytes/1000") as r:
        buffer = bytearray(600)
        got = 0
        while n := r.readinto(memoryview(buffer)[:100]):
            got += n
        assert got == 1000
    r = client.get(server.url + "/bytes/10", stream=True)
    assert not r.closed
    assert r.content == bytes(range(10))
    assert r.closed
    with client.stream("GET", server.url + "/bytes/1000", max_response_bytes=999) as r, pytest.raises(ResponseTooLarge):
        r.read()
    with client.stream("HEAD", server.url + "/bytes/1000") as r:
        assert r.read() == b""


def test_a_forgotten_stream_warns_is_counted_and_gives_its_connection_back(client: Client, spy: Spy, server: Server) -> None:
    before = spy.stats().leaked
    r = client.get(server.url + "/bytes/100000?token=secret", stream=True)
    with pytest.warns(ResourceWarning, match=f"unclosed response to GET {server.url}/bytes/100000: it held connection") as caught:
        del r
        gc.collect()
    assert "secret" not in str(caught[0].message)
    assert spy.stats().leaked == before + 1
    until(lambda: spy.stats().active == 0)             # its rest is drained in the background


def test_what_was_closed_or_read_does_not_warn(client: Client, server: Server) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client.get(server.url + "/bytes/10", stream=True).close()
        client.get(server.url + "/bytes/10", stream=True).read()
        list(client.get(server.url + "/bytes/10", stream=True).iter_bytes())
        with client.stream("GET", server.url + "/bytes/10"):
            pass
        io.BytesIO(client.get(server.url + "/bytes/10").content)
        gc.collect()
