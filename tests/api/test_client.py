"""The client: defaults, precedence, hooks, limits, its transport, its end."""
from __future__ import annotations

import io
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import pooledhttp
from pooledhttp import (
    Client,
    ConnectError,
    DeadlineExceeded,
    HTTPStatusError,
    InvalidURL,
    LocalProtocolError,
    MockTransport,
    Request,
    Response,
    ResponseTooLarge,
    Timeout,
    Transport,
    UnsupportedProtocol,
    default_client,
    default_transport,
)

from .server import Server, Spy


def told(request: Request) -> Response:
    """A handler that answers with what it was asked, in headers."""
    return Response(200, headers=[("X-Method", request.method), *request.headers.multi_items()], content=request.content)


def mock(handler: Callable[[Request], Response] = told, **options: Any) -> Client:
    return Client(transport=MockTransport(handler), **options)


# --- requests over a wire -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "POST", "PUT", "PATCH"])
def test_every_method(client: Client, server: Server, method: str) -> None:
    url = server.url + "/echo"
    for r in (getattr(client, method.lower())(url), client.request(method.lower(), url, headers={"X": "1"})):
        assert r.status_code == 200
        if method == "HEAD":
            assert r.content == b""
            assert int(r.headers["content-length"]) > 0
        else:
            assert r.json()["method"] == method
        assert r.request is not None
        assert r.request.method == method


BODIES = [
    ({"content": b"bytes"}, "bytes"), ({"content": "tëxt"}, "tÃ«xt"), ({"content": [b"a", b"b"]}, "ab"),
    ({"content": iter([b"a", b"b"])}, "ab"), ({"content": io.BytesIO(b"file")}, "file"), ({"data": {"a": ["1", "ü"]}}, "a=1&a=%C3%BC"),
    ({"json": {"a": 1}}, '{"a":1}'), ({}, ""),
]


@pytest.mark.parametrize(("given", "body"), BODIES)
def test_bodies(client: Client, server: Server, given: dict[str, Any], body: str) -> None:
    answer = client.post(server.url + "/echo", **given).json()
    assert answer["body"] == body
    names = [name.lower() for name, _ in answer["headers"]]
    assert names.count("content-length") + names.count("transfer-encoding") == 1


def test_what_a_plain_request_says(client: Client, server: Server) -> None:
    headers = client.get(server.url + "/echo?x=1").json()["headers"]
    assert headers == [["Host", server.url[7:]], ["User-Agent", f"pooledhttp/{pooledhttp.__version__}"], ["Accept", "*/*"],
                       ["Accept-Encoding", "gzip, deflate, br, zstd"]]


def test_redirects_are_returned_where_that_is_wanted(client: Client, server: Server) -> None:
    r = client.get(server.url + "/status/302", follow_redirects=False)
    assert (r.status_code, r.is_redirect, r.history, r.content) == (302, True, [], b"status 302")


def test_limits_of_the_body(client: Client, server: Server) -> None:
    assert len(client.get(server.url + "/bytes/100", max_response_bytes=100).content) == 100
    with pytest.raises(ResponseTooLarge) as e:
        client.get(server.url + "/bytes/101", max_response_bytes=100)
    assert e.value.request.url == server.url + "/bytes/101"
    with Client(max_response_bytes=10, verify=True) as small:
        with pytest.raises(ResponseTooLarge):
            small.get(server.url + "/bytes/11")
        assert len(small.get(server.url + "/bytes/11", max_response_bytes=None).content) == 11
    for bad in (-1, True, 1.5, "5"):
        with pytest.raises(ValueError, match="max_response_bytes"):
            Client(max_response_bytes=bad)


def test_a_deadline_says_whose_it_was(client: Client, server: Server) -> None:
    with pytest.raises(DeadlineExceeded) as e:
        client.get(server.url + "/held", timeout=0.05)
    assert (e.value.source, e.value.request.url) == ("request", server.url + "/held")
    client.timeout = 0.05
    for again in (lambda: client.get(server.url + "/held"), lambda: client.post(server.url + "/held")):
        with pytest.raises(DeadlineExceeded) as e:
            again()
        assert e.value.source == "client"
    with pytest.raises(DeadlineExceeded):
        client.get(server.url + "/echo", timeout=0)


def test_errors_carry_the_request() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Client(verify=True) as client:
        for call in (lambda: client.get(f"http://127.0.0.1:{port}/x"), lambda: client.post(f"http://127.0.0.1:{port}/x", json={})):
            with pytest.raises(ConnectError) as e:
                call()
            assert e.value.request.url == f"http://127.0.0.1:{port}/x"
            assert pickle.loads(pickle.dumps(e.value)).request.method == e.value.request.method


# --- bad input: nothing reaches the transport -----------------------------------------------------------------------------------


BAD = [
    ((LocalProtocolError, InvalidURL), "http://h/a\r\nX: y", {}),
    ((LocalProtocolError, InvalidURL), "http://h/\0", {}),
    (LocalProtocolError, "http://h/", {"headers": {"X": "a\r\nY: b"}}),
    (LocalProtocolError, "http://h/", {"headers": {"X\r\n": "a"}}),
    (LocalProtocolError, "http://h/", {"headers": {"X y": "a"}}),
    (LocalProtocolError, "http://h/", {"content": b"x", "headers": {"Content-Length": "5"}}),
    (LocalProtocolError, "http://h/", {"auth": pooledhttp.BearerAuth("a\r\nX: y")}),
    (InvalidURL, "http:///x", {}),
    (InvalidURL, "/relative", {}),
    (InvalidURL, "http://h:99999/", {}),
    (UnsupportedProtocol, "ftp://h/", {}),
    (TypeError, "http://h/", {"content": b"x", "json": {}}),
    (TypeError, "http://h/", {"data": {}, "json": {}}),
    (TypeError, "http://h/", {"headers": {"X": 1}}),
    (TypeError, "http://h/", {"allow_redirects": True}),
    (TypeError, "http://h/", {"timeout": "5"}),
    (ValueError, "http://h/", {"timeout": -1}),
    (ValueError, "http://h/", {"max_response_bytes": -1}),
    (TypeError, 5, {}),
    (TypeError, None, {}),
]


@pytest.mark.parametrize(("error", "url", "options"), BAD)
def test_bad_input_reaches_no_transport(client: Client, spy: Spy, error: Any, url: Any, options: dict[str, Any]) -> None:
    with pytest.raises(error):
        client.post(url, **options)
    with pytest.raises(error):
        client.get(url, **options)
    assert not hasattr(spy, "seen")


@pytest.mark.parametrize("method", ["GE T", "GET\r\nX: y", "", "G\0T"])
def test_a_bad_method(client: Client, spy: Spy, method: str) -> None:
    with pytest.raises(LocalProtocolError):
        client.request(method, "http://h/")
    assert not hasattr(spy, "seen")


def test_an_unknown_option_says_where_it_is() -> None:
    with pytest.raises(TypeError, match="follow_redirects"):
        mock().get("http://h/", allow_redirects=False)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="transport's"):
        mock().get("http://h/", verify=False)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no option 'stream'"):
        mock().stream("GET", "http://h/", stream=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="build_request"):
        mock().send(Request("GET", "http://h/"), params={})  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="send"):
        mock().build_request("GET", "http://h/", timeout=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Request"):
        mock().send("http://h/")  # type: ignore[arg-type]


def test_what_asks_for_nothing_is_taken() -> None:
    c = mock(cookies=None, follow_redirects=False, max_redirects=10, retries=0, mounts=None, trust_env=False)
    assert c.get("http://h/", cookies=None, files=None, context=None, follow_redirects=False, retries=0).status_code == 200


# --- defaults -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("base", "url", "wanted"), [
    ("https://h/api/v1", "users", "https://h/api/v1/users"),
    ("https://h/api/v1/", "/users", "https://h/api/v1/users"),
    ("https://h", "/users?x=//y", "https://h/users?x=//y"),
    ("https://h/api", "", "https://h/api"),
    ("https://h/api", "?page=2", "https://h/api?page=2"),
    ("https://h/api", "http://other/x", "http://other/x"),
    ("https://h/api", "//other/x", "https://h/api/other/x"),
    ("https://h/api", "login?next=http://other/", "https://h/api/login?next=http://other/"),
    ("https://h/api", "a:b", "https://h/api/a:b"),
    ("https://u:p@h/api", "x", "https://h/api/x"),
])
def test_base_url(base: str, url: str, wanted: str) -> None:
    assert mock(base_url=base).get(url).url == wanted


@pytest.mark.parametrize("bad", ["https://h/?x=1", "https://h/#f", "/api", "https://"])
def test_a_bad_base_url(bad: str) -> None:
    with pytest.raises(InvalidURL):
        mock(base_url=bad)


@pytest.mark.parametrize(("mine", "given", "query"), [
    ({"key": "k"}, None, "a=1&key=k"), ({"key": "k"}, {"page": 2}, "a=1&key=k&page=2"), ({"key": "k"}, {"key": "other"}, "a=1&key=other"),
    ({"key": "k"}, {"key": None}, "a=1"), ({"key": "k"}, "raw=1", "a=1&key=k&raw=1"), ("raw=1", [("b", 2)], "a=1&raw=1&b=2"),
    (None, {"b": 2}, "a=1&b=2"), ({"key": "k"}, iter([("b", 2)]), "a=1&key=k&b=2"), ({"key": ["x", "y"]}, None, "a=1&key=x&key=y"),
])
def test_params(mine: Any, given: Any, query: str) -> None:
    url = mock(params=mine).get("http://h/?a=1", params=given).url
    assert url is not None
    assert url.query == query


def test_headers() -> None:
    c = mock(headers={"X-A": "1", "accept": "text/html", "User-Agent": None})
    assert c.headers.multi_items() == [("X-A", "1"), ("accept", "text/html")]
    sent = c.get("http://h/", headers={"x-a": "2", "ACCEPT": None, "Accept-Encoding": None}).request
    assert sent is not None
    assert sent.headers.multi_items() == [("x-a", "2")]
    c.headers = {"X-B": "1"}  # type: ignore[assignment]
    assert c.headers["user-agent"].startswith("pooledhttp/")
    c.headers["X-B"] = "3"
    assert c.get("http://h/").headers["x-b"] == "3"


def test_timeouts() -> None:
    seen = []

    class Keep:
        def round_trip(self, request: Request, *, timeout: Any = None, context: Any = None) -> Response:
            seen.append(timeout)
            return Response(200)

    c = Client(transport=Keep())
    assert c.timeout == Timeout()
    c.get("http://h/")
    c.get("http://h/", timeout=2)
    c.get("http://h/", timeout=(1, 2))
    c.get("http://h/", timeout=None)
    c.timeout = 7  # type: ignore[assignment]
    c.get("http://h/")
    assert seen == [Timeout(), Timeout(2), Timeout(connect=1, read=2), Timeout.of(None), Timeout(7)]


def test_default_encoding() -> None:
    assert mock(lambda r: Response(200, content=b"\xe9"), default_encoding="latin-1").get("http://h/").text == "é"
    with pytest.raises(LookupError):
        mock(default_encoding="no-such")


def test_raise_for_status(client: Client, server: Server) -> None:
    c = mock(lambda r: Response(404), raise_for_status=True)
    with pytest.raises(HTTPStatusError) as e:
        c.get("http://h/x")
    assert e.value.request.url == "http://h/x"
    with Client(raise_for_status=True, verify=True) as c:
        for call in (lambda: c.get(server.url + "/status/500"), lambda: c.get(server.url + "/status/500", headers={"X": "1"}),
                     lambda: c.get(server.url + "/status/500", stream=True)):
            with pytest.raises(HTTPStatusError) as e:
                call()
            assert e.value.response.status_code == 500
        assert c.get(server.url + "/status/399").status_code == 399


# --- hooks ----------------------------------------------------------------------------------------------------------------------


def test_hooks() -> None:
    log: list[Any] = []

    def stamp(request: Request) -> None:
        request.headers["X-Stamp"] = "1"
        log.append(request.method)

    c = mock(event_hooks={"request": [stamp], "response": [lambda r: log.append(r.status_code)]}, auth=("u", "p"))
    r = c.get("http://h/")
    assert r.request is not None
    assert r.request.headers["x-stamp"] == "1"
    assert "authorization" in r.request.headers
    c.event_hooks["response"].append(lambda r: log.append("second"))
    c.get("http://h/")
    c.event_hooks = {}
    c.get("http://h/")
    assert log == ["GET", 200, "GET", 200, "second"]
    with pytest.raises(ValueError, match="'error'"):
        mock(event_hooks={"error": []})


def test_hooks_on_the_wire_and_one_that_raises(client: Client, server: Server) -> None:
    client.get(server.url + "/echo")
    client.event_hooks["request"].append(lambda request: request.headers.__setitem__("X-Hook", "1"))
    assert ["X-Hook", "1"] in client.get(server.url + "/echo").json()["headers"]

    def refuse(response: Response) -> None:
        raise LookupError("no")

    client.event_hooks["response"].append(refuse)
    with pytest.raises(LookupError):
        client.get(server.url + "/bytes/100000", stream=True)          # nothing is left open: the leak check sees to that


# --- transports -------------------------------------------------------------------------------------------------------------------


def test_which_transport() -> None:
    assert Client().transport is default_transport()
    assert Client().transport is Client().transport
    given = Transport()
    with Client(transport=given) as c:
        assert c.transport is given
    assert not given.closed
    given.close()
    with Client(max_idle_conns=5) as c:
        assert c.transport is not default_transport()
    assert c.transport.closed
    with Client():
        pass
    assert not default_transport().closed
    with pytest.raises(TypeError, match="exclude"):
        Client(transport=given, max_idle_conns=5)
    with pytest.raises(TypeError, match="round_trip"):
        Client(transport=object())
    with pytest.raises(TypeError):
        Client(no_such_option=1)


def test_a_closed_client(server: Server) -> None:
    c = Client()
    with c:
        c.get(server.url + "/echo")
    assert c.closed
    url = server.url + "/echo"
    for call in (lambda: c.get(url), lambda: c.post(url), lambda: c.send(Request("GET", url)), lambda: c.get(url, timeout=1), c.__enter__,
                 lambda: next(c.map([url]))):
        with pytest.raises(RuntimeError, match="closed"):
            call()
    c.close()


def test_the_round_trip_of_a_transport_leaves_the_body_unread(server: Server) -> None:
    with Transport() as transport:
        r = transport.round_trip(Request("GET", server.url + "/bytes/1000"), timeout=5)
        assert not r.closed
        assert len(r.read()) == 1000


def test_a_transport_that_wraps_another(server: Server) -> None:
    seen = []

    class Logged(Transport):
        def round_trip(self, request: Request, *, timeout: Any = None, context: Any = None) -> Any:
            seen.append(request.url)
            return super().round_trip(request, timeout=timeout, context=context)

    with Logged() as transport, Client(transport=transport, max_response_bytes=100) as c:
        assert c.get(server.url + "/bytes/100").content == bytes(range(100))
        with pytest.raises(ResponseTooLarge):
            c.get(server.url + "/bytes/101")
        with c.stream("GET", server.url + "/bytes/100") as r:
            assert not r.closed
    assert len(seen) == 3


def test_mock_transport() -> None:
    def handler(request: Request) -> Response:
        if request.url.path == "/error":
            raise pooledhttp.ReadError("broke", phase="body")
        if request.url.path == "/wrong":
            return "text"  # type: ignore[return-value]
        return Response(200, content=iter([b"a", b"b"]))

    c = mock(handler, max_response_bytes=2)
    r = c.get("http://h/x")
    assert (r.content, r.closed) == (b"ab", True)
    assert r.request is not None
    assert r.request.url == "http://h/x"
    with c.stream("GET", "http://h/x") as r:
        assert next(r.iter_bytes()) == b"a"
    with pytest.raises(ResponseTooLarge):
        c.get("http://h/x", max_response_bytes=1)
    with pytest.raises(pooledhttp.ReadError) as e:
        c.get("http://h/error")
    assert e.value.request.url == "http://h/error"
    with pytest.raises(TypeError, match="Response"):
        c.get("http://h/wrong")
    c.close()
    assert not c.transport.closed
    c.transport.close_idle_connections()
    c.transport.close()
    with pytest.raises(RuntimeError):
        mock(handler).transport.__class__.round_trip(c.transport, Request("GET", "http://h/"))


def test_a_transport_that_returns_something_else() -> None:
    class Wrong:
        def round_trip(self, request: Request, **kw: Any) -> None:
            return None

    with pytest.raises(TypeError, match="NoneType"):
        Client(transport=Wrong()).get("http://h/")


# --- build_request and send -------------------------------------------------------------------------------------------------------


def test_build_and_send() -> None:
    c = mock(base_url="http://h/api", headers={"X": "1"}, params={"k": "v"})
    request = c.build_request("post", "x", json=[1])
    assert (request.method, request.url, request.headers["x"]) == ("POST", "http://h/api/x?k=v", "1")
    del request.headers["Accept"]
    assert "accept" not in c.send(request).headers
    plain = Request("GET", "http://h/y")
    assert c.send(plain).headers["x"] == "1"
    assert "x" not in plain.headers
    assert c.send(plain, timeout=1, auth=("u", "p")).headers["authorization"].startswith("Basic")


def test_a_body_that_can_be_sent_twice_and_one_that_cannot(client: Client, server: Server) -> None:
    twice = client.build_request("POST", server.url + "/echo", content=io.BytesIO(b"again"))
    assert [client.send(twice).json()["body"] for _ in range(2)] == ["again", "again"]
    once = client.build_request("POST", server.url + "/echo", content=iter([b"once"]))
    assert client.send(once).json()["body"] == "once"
    with pytest.raises(pooledhttp.StreamConsumed):
        client.send(once)


# --- the process's own ------------------------------------------------------------------------------------------------------------


def test_the_module_functions(server: Server) -> None:
    assert default_client() is default_client()
    assert default_client().transport is default_transport()
    for name in ("get", "head", "options", "post", "put", "patch", "delete"):
        assert getattr(pooledhttp, name)(server.url + "/echo").status_code == 200
    assert pooledhttp.request("PUT", server.url + "/echo", content=b"x").json()["body"] == "x"
    with pooledhttp.stream("GET", server.url + "/bytes/10") as r:
        assert len(r.read()) == 10


def test_a_forked_child_has_a_client_of_its_own(server: Server) -> None:
    code = ("import os, sys, pooledhttp\n"
            "mine = pooledhttp.default_client()\n"
            "pooledhttp.get(sys.argv[1])\n"
            "child = os.fork()\n"
            "if child == 0:\n"
            "    ok = pooledhttp.default_client() is not mine and pooledhttp.get(sys.argv[1]).status_code == 200\n"
            "    os._exit(0 if ok else 1)\n"
            "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or (pooledhttp.default_client() is not mine))\n")
    assert subprocess.run([sys.executable, "-c", code, server.url + "/echo"], timeout=30, env={**os.environ}, check=False).returncode == 0


def test_repr() -> None:
    c = mock()
    assert repr(c).startswith("<Client over <")
    c.close()
    assert repr(c).startswith("<Client closed over")
