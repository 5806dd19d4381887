"""Responses and exceptions travel: to another process, into a cache, through a queue."""
from __future__ import annotations

import copy
import gzip
import pickle
from typing import Any

import pytest

import pooledhttp
from pooledhttp import Client, ConnInfo, Request, Response, StreamClosed, StreamConsumed, errors
from tests.support.peer import answering, chunked, respond

from .server import Server

CONN = ConnInfo(7, True, 3, 0.5, ("192.0.2.1", 443), ("192.0.2.9", 5000), "TLSv1.3", "AES", None)


def travelled(thing: Any) -> Any:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(thing, protocol))
        assert type(again) is type(thing)
    return again


def kinds(cls: type[errors.Error]) -> list[type[errors.Error]]:
    return [cls, *[kind for sub in cls.__subclasses__() if sub.__module__ == "pooledhttp.errors" for kind in kinds(sub)]]


# errors.JSONDecodeError is made when first asked for, and takes other arguments: test_response has it.
@pytest.mark.parametrize("cls", sorted({kind for kind in kinds(errors.Error) if kind.__name__ != "JSONDecodeError"}, key=lambda kind: kind.__name__))
def test_every_exception(cls: type[errors.Error]) -> None:
    request = Request("POST", "http://u:p@h/x?y", json={"a": 1})
    special: dict[str, Any] = {}
    if issubclass(cls, errors.DeadlineExceeded):
        special["source"] = "context"
    if issubclass(cls, errors.Cancelled):
        special["reason"] = "shutting down"
    if issubclass(cls, errors.HTTPStatusError):
        special["response"] = Response(503, content=b"why", request=request)
    error = cls("what happened", request=request, phase="body", conn=CONN, errno=104, **special)
    for again in (travelled(error), copy.copy(error)):
        assert (str(again), repr(again), again.message) == (str(error), repr(error), "what happened")
        assert (again.phase, again.conn, again.errno) == ("body", CONN, 104)
        assert (again.request.method, again.request.url, again.request.content) == ("POST", request.url, b'{"a":1}')
        for name, value in special.items():
            if name == "response":
                assert (again.response.status_code, again.response.content) == (503, b"why")
            else:
                assert getattr(again, name) == value
    bare = travelled(cls("what happened"))
    assert (str(bare), bare.request, bare.phase, bare.conn, bare.errno) == ("what happened", None, None, None, None)


def test_every_exception_that_is_exported_is_tested() -> None:
    exported = {getattr(pooledhttp, name) for name in pooledhttp.__all__ if isinstance(getattr(pooledhttp, name), type)}
    assert {kind for kind in exported if issubclass(kind, errors.Error)} <= set(kinds(errors.Error))


def test_a_response_from_the_wire(peer: Any) -> None:
    server = peer(answering(respond(gzip.compress(b'{"a": "\xc3\xa9"}'), 203, {"Content-Encoding": "gzip", "X-A": "1"})))
    with Client(max_idle_conns=2, default_encoding="latin-1") as client:
        r = client.get(server.url("/x?y"))
        first = Response(302, headers={"Location": "/x"}, content=b"moved", request=Request("GET", "http://h/"))
        r.history = [first]
        for again in (travelled(r), copy.copy(r)):
            assert (again.status_code, again.reason, again.http_version) == (203, "OK", "HTTP/1.1")
            assert (again.content, again.json(), again.encoding) == (b'{"a": "\xc3\xa9"}', {"a": "é"}, "latin-1")
            assert again.headers.multi_items() == r.headers.multi_items()
            assert (again.url, again.request.method, again.request.headers) == (r.url, "GET", r.request.headers)  # type: ignore[union-attr]
            assert (again.elapsed, again.timings, again.conn) == (r.elapsed, r.timings, r.conn)
            assert (again.closed, list(again.iter_bytes(100)), again.read()) == (True, [r.content], r.content)
            assert [(h.status_code, h.content, h.url) for h in again.history] == [(302, b"moved", "http://h/")]
            again.raise_for_status()
            assert travelled(again).content == r.content
        with pytest.raises(StreamConsumed):
            list(travelled(r).iter_raw())
        assert list(r.iter_raw()) == [gzip.compress(b'{"a": "\xc3\xa9"}')]


def test_trailers_and_streams(peer: Any) -> None:
    answer = respond(b"", 200, {"Transfer-Encoding": "chunked"}, length=False) + chunked(b"hello", trailers=b"X-Sum: 5\r\n")
    server = peer(answering(answer))
    with Client(max_idle_conns=2) as client:
        with client.stream("GET", server.url()) as r:
            again = travelled(r)                       # an unread body is read for it
        assert (again.content, r.content, again.trailers.multi_items()) == (b"hello", b"hello", [("X-Sum", "5")])
        assert list(again.iter_raw()) == [b"hello"]
        with client.stream("GET", server.url()) as r:
            pass
        with pytest.raises(StreamClosed):
            travelled(r).read()
        with client.stream("GET", server.url()) as r:
            list(r.iter_bytes())
        with pytest.raises(StreamConsumed):
            travelled(r).read()


def test_a_status_error_with_its_response(server: Server) -> None:
    with Client(max_idle_conns=2) as client, pytest.raises(pooledhttp.HTTPStatusError) as e:
        client.get(server.url + "/status/404?token=secret").raise_for_status()
    again = travelled(e.value)
    assert (str(again), again.response.status_code, again.response.text) == (str(e.value), 404, "status 404")
    assert again.request.url == again.response.url == e.value.response.url
