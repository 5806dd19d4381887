"""Requests, and the bytes that the transport is given."""
from __future__ import annotations

import io
import pickle
from typing import Any

import pytest

from pooledhttp import InvalidURL, LocalProtocolError, Request, StreamConsumed, UnsupportedProtocol
from pooledhttp.content import BodySource
from pooledhttp.transport import FLAG_REPLAY, FLAG_STREAM


def test_the_wire() -> None:
    wire = Request("get", "https://User:pw@Example.COM:8443/a b?x#f", params={"y": 1}, headers={"X-A": "1"}).wire()
    assert wire.key == "https://example.com:8443"
    assert (wire.host, wire.port, wire.authority) == ("example.com", 8443, b"example.com:8443")
    assert (wire.method, wire.target, wire.body, wire.flags) == (b"GET", b"/a%20b?x&y=1", None, FLAG_REPLAY)
    assert wire.fields == b"X-A: 1\r\nAuthorization: Basic VXNlcjpwdw==\r\n"
    assert wire.url == "https://example.com:8443/a%20b?x&y=1#f"


def test_an_ipv6_literal_and_a_default_port() -> None:
    wire = Request("GET", "http://[::1]:80/").wire()
    assert (wire.key, wire.host, wire.port, wire.authority) == ("http://[::1]:80", "::1", 80, b"[::1]")


def lines(request: Request) -> list[bytes]:
    return request.wire().fields.split(b"\r\n")[:-1]


@pytest.mark.parametrize(("method", "given", "fields"), [
    ("GET", {}, []),
    ("GET", {"content": b""}, []),
    ("DELETE", {}, []),
    ("POST", {}, [b"Content-Length: 0"]),
    ("PUT", {"content": b""}, [b"Content-Length: 0"]),
    ("PATCH", {"content": []}, [b"Content-Length: 0"]),
    ("GET", {"content": b"abc"}, [b"Content-Length: 3"]),
    ("POST", {"content": [b"a", b"b"]}, [b"Content-Length: 2"]),
    ("POST", {"content": iter([b"a"])}, []),
    ("POST", {"content": io.BytesIO(b"abcd")}, [b"Content-Length: 4"]),
    ("POST", {"json": {}}, [b"Content-Type: application/json", b"Content-Length: 2"]),
    ("POST", {"data": {"a": 1}}, [b"Content-Type: application/x-www-form-urlencoded", b"Content-Length: 3"]),
    ("POST", {"json": {}, "headers": {"content-type": "application/x"}}, [b"content-type: application/x", b"Content-Length: 2"]),
    ("POST", {"content": iter([b"ab"]), "headers": {"Content-Length": "2"}}, [b"Content-Length: 2"]),
    ("POST", {"content": b"ab", "headers": {"content-length": "2"}}, [b"content-length: 2"]),
    ("POST", {"content": b"ab", "headers": {"Transfer-Encoding": "Chunked"}}, []),
    ("POST", {"content": [b"ab"], "headers": {"Transfer-Encoding": "chunked"}}, []),
])
def test_framing(method: str, given: dict[str, Any], fields: list[bytes]) -> None:
    request = Request(method, "http://h/", **given)
    assert lines(request) == fields
    body = request.wire().body
    known = any(f.lower().startswith(b"content-length") and not f.endswith(b" 0") for f in fields)
    assert (isinstance(body, bytes) or (isinstance(body, BodySource) and body.length is not None)) == known


@pytest.mark.parametrize(("given", "problem"), [
    ({"content": b"ab", "headers": {"Content-Length": "3"}}, "Content-Length is 3"),
    ({"headers": {"Content-Length": "3"}}, "Content-Length is 3"),
    ({"content": b"ab", "headers": {"Content-Length": "+2"}}, "not one number"),
    ({"content": b"ab", "headers": [("Content-Length", "2"), ("Content-Length", "3")]}, "not one number"),
    ({"content": b"ab", "headers": [("Content-Length", "2"), ("Transfer-Encoding", "chunked")]}, "both"),
    ({"content": b"ab", "headers": {"Transfer-Encoding": "gzip, chunked"}}, "chunked"),
    ({"content": b"ab", "headers": [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")]}, "chunked"),
    ({"headers": [("Host", "a"), ("host", "b")]}, "Host"),
    ({"headers": {"Host": "a\r\nX: y"}}, "Host"),
    ({"headers": {"X-A": "b\r\nX: y"}}, "X-A"),
    ({"headers": {"X-A": "b\nX: y"}}, "X-A"),
    ({"headers": {"X-A": "b\0"}}, "X-A"),
    ({"headers": {"X A": "b"}}, "X A"),
    ({"headers": {"": "b"}}, "name"),
    ({"headers": {"X:": "b"}}, "X:"),
    ({"headers": {"Größe": "b"}}, "Gr"),
])
def test_what_would_be_smuggled_is_refused(given: dict[str, Any], problem: str) -> None:
    request = Request("POST", "http://h/", **given)
    with pytest.raises(LocalProtocolError, match=problem) as e:
        request.wire()
    assert e.value.request is request


@pytest.mark.parametrize("method", ["GE T", "GET\r\n", "", "GÉT", "G\0", "GET /x HTTP/1.1"])
def test_a_method_is_a_token(method: str) -> None:
    with pytest.raises(LocalProtocolError):
        Request(method, "http://h/")


def test_other_bad_arguments() -> None:
    with pytest.raises(TypeError):
        Request(b"GET", "http://h/")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="content and json"):
        Request("POST", "http://h/", content=b"x", json={})
    with pytest.raises(UnsupportedProtocol):
        Request("GET", "ftp://h/")
    with pytest.raises(InvalidURL):
        Request("GET", "/only/a/path")


def test_a_host_of_the_callers() -> None:
    wire = Request("GET", "http://127.0.0.1:8080/", headers={"host": "virtual.example"}).wire()
    assert (wire.authority, wire.fields, wire.host) == (b"virtual.example", b"", "127.0.0.1")


def test_values_that_are_not_ascii() -> None:
    assert lines(Request("GET", "http://h/", headers={"X": "é", "Y": "€", "Z": b"\xff"})) == [b"X: \xe9", "Y: €".encode(), b"Z: \xff"]


@pytest.mark.parametrize(("method", "headers", "flags"), [
    ("GET", {}, FLAG_REPLAY), ("HEAD", {}, FLAG_REPLAY), ("OPTIONS", {}, FLAG_REPLAY), ("TRACE", {}, FLAG_REPLAY),
    ("PUT", {}, 0), ("DELETE", {}, 0), ("POST", {}, 0), ("POST", {"idempotency-key": "1"}, FLAG_REPLAY)])
def test_what_may_be_sent_again(method: str, headers: dict[str, str], flags: int) -> None:
    assert Request(method, "http://h/", headers=headers).wire().flags == flags


def test_userinfo_becomes_basic_auth_and_is_seen_nowhere() -> None:
    request = Request("GET", "http://user:p%40ss@h/")
    assert request.headers["Authorization"] == "Basic dXNlcjpwQHNz"
    assert request.url == "http://h/"
    assert "ss" not in repr(request)
    assert Request("GET", "http://u:p@h/", headers={"authorization": "Mine"}).headers["Authorization"] == "Mine"
    with pytest.raises(InvalidURL, match="colon"):
        Request("GET", "http://us%3aer:p@h/")


def test_what_round_trip_gives_to_exchange() -> None:
    request = Request("GET", "http://h/x")
    args = request._wire(None)
    assert len(args) == 14
    assert args[:8] == tuple(request.wire()[:8])
    assert (args[9], args[10], args[11], args[12], args[13]) == (-1, "request", FLAG_REPLAY | FLAG_STREAM, -1, None)
    assert request._wire(5)[9] > 0


def test_content_reads_a_source_and_keeps_it() -> None:
    request = Request("POST", "http://h/", content=iter([b"a", b"b"]))
    assert request.read() == b"ab"
    assert request.content == b"ab"
    assert request.wire().body == b"ab"
    assert Request("GET", "http://h/").content == b""


def test_pickle_and_copy() -> None:
    request = Request("POST", "http://h/x?y", headers={"A": "1"}, content=b"abc")
    other = pickle.loads(pickle.dumps(request))
    assert (other.method, other.url, other.headers, other.content) == ("POST", "http://h/x?y", request.headers, b"abc")
    copy = request.copy()
    copy.headers["A"] = "2"
    assert request.headers["A"] == "1"
    streamed = pickle.loads(pickle.dumps(Request("POST", "http://h/", content=iter([b"a"]))))
    assert streamed.method == "POST"
    with pytest.raises(StreamConsumed, match="pickled"):
        list(streamed.wire().body)


def test_the_request_that_a_wire_was() -> None:
    request = Request("GET", "http://h/x?y#z", headers={"A": "1"})
    again = Request.from_wire(request.wire())
    assert (again.method, again.url, again.headers) == ("GET", "http://h/x?y#z", request.headers)
    assert again.wire() == request.wire()
