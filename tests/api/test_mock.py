"""MockTransport: a function answers, with whatever a server could."""
from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import pooledhttp
from pooledhttp import Client, MockTransport, Request, Response, ResponseTooLarge


def test_the_handler_gets_the_request_as_it_would_be_sent() -> None:
    seen: list[Request] = []

    def handler(request: Request) -> Response:
        seen.append(request)
        return Response(201, headers={"X-A": "1"}, content=request.content)

    client = Client(transport=MockTransport(handler), base_url="http://h/api/", headers={"X-B": "2"}, auth=("u", "p"))
    r = client.post("items", params={"a": 1}, json={"b": 2})
    assert (r.status_code, r.reason, r.headers["x-a"], r.json()) == (201, "Created", "1", {"b": 2})
    request = seen[0]
    assert (request.method, str(request.url), request.headers["x-b"]) == ("POST", "http://h/api/items?a=1", "2")
    assert request.headers["authorization"] == "Basic dTpw"
    assert json.loads(request.read()) == {"b": 2}
    assert r.request is request


def test_a_streamed_answer() -> None:
    made: list[int] = []
    ended = []

    def body() -> Iterator[bytes]:
        try:
            for n in range(1000):
                made.append(n)
                yield b"x" * 1000
        finally:
            ended.append(True)

    client = Client(transport=MockTransport(lambda request: Response(200, content=body())))
    with client.stream("GET", "http://h/") as r:
        assert r.read(1500) == b"x" * 1500
        assert len(made) == 2
    assert ended == [True]
    assert len(client.get("http://h/").content) == 1_000_000
    made.clear()
    with pytest.raises(ResponseTooLarge) as e:
        client.get("http://h/", max_response_bytes=5000)
    assert str(e.value.request.url) == "http://h/"
    assert len(made) <= 7


def test_a_coded_answer() -> None:
    coded = gzip.compress(b"hello " * 1000)

    def handler(request: Request) -> Response:
        return Response(200, headers={"Content-Encoding": "gzip"}, content=iter([coded[:9], coded[9:]]) if request.url.path == "/s" else coded)

    client = Client(transport=MockTransport(handler))
    for path in ("", "s"):
        r = client.get(f"http://h/{path}", max_response_bytes=6000)
        assert (r.content, r.headers["content-encoding"]) == (b"hello " * 1000, "gzip")
        with pytest.raises(ResponseTooLarge):
            client.get(f"http://h/{path}", max_response_bytes=5999)
    with client.stream("GET", "http://h/s") as r:
        assert b"".join(r.iter_raw()) == coded


def test_what_it_raises_the_caller_gets() -> None:
    def handler(request: Request) -> Response:
        if request.url.path == "/own":
            raise KeyError("own")
        raise pooledhttp.ConnectError("nobody there", phase="connect")

    client = Client(transport=MockTransport(handler))
    with pytest.raises(KeyError, match="own"):
        client.get("http://h/own")
    with pytest.raises(pooledhttp.ConnectError, match=r"nobody there \(GET http://h/x\)") as e:
        client.get("http://h/x?token=1")
    assert (e.value.phase, e.value.request.method) == ("connect", "GET")
    with pytest.raises(TypeError, match="handler returns a Response, not str"):
        Client(transport=MockTransport(lambda request: "text")).get("http://h/")  # type: ignore[arg-type,return-value]


def test_many_threads_and_closing() -> None:
    barrier = threading.Barrier(16)

    def handler(request: Request) -> Response:
        barrier.wait(10)
        return Response(200, content=request.url.query)

    transport = MockTransport(handler)
    client = Client(transport=transport)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda n: client.get(f"http://h/?{n}").text, range(32))) == [str(n) for n in range(32)]
    client.close()
    assert not transport.closed                       # given, so not the client's to close
    transport.close()
    with pytest.raises(RuntimeError, match="closed"):
        Client(transport=transport).get("http://h/")
