"""Cookies through a client: kept, sent, over redirects, per request, with threads; and what costs nothing while there are none."""
from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from http.cookiejar import CookieJar
from typing import Any

import pytest

import pooledhttp
from pooledhttp import Client, Cookies, MockTransport, Request, Response
from tests.support.ca import Authority
from tests.support.peer import Conn, Peer, Script, header, respond

MakePeer = Callable[..., Peer]


def saying(answers: dict[str, tuple[int, list[tuple[str, str]]]]) -> Script:
    """For each path its status and fields; the body is the Cookie field that came, or "-"."""

    def script(conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            status, fields = answers.get(head.split(b" ")[1].decode(), (200, []))
            conn.send(respond((header(head, "Cookie") or "-").encode("latin-1"), status, fields))

    return script


def sets(*cookies: str) -> tuple[int, list[tuple[str, str]]]:
    return 200, [("Set-Cookie", cookie) for cookie in cookies]


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(max_idle_conns=10, timeout=10.0) as client:
        yield client


def test_kept_and_sent_where_it_belongs(peer: MakePeer, client: Client) -> None:
    p = peer(saying({"/login": sets("sid=1; Path=/; HttpOnly", "deep=2; Path=/a", "old=3; Max-Age=0", "foreign=4; Domain=example.com")}))
    for _ in range(2):                                   # by the short cut, and not
        assert client.get(p.url("/")).text == "-"
    r = client.get(p.url("/login"))
    assert r.cookies == {"sid": "1", "deep": "2"}
    assert client.get(p.url("/")).text == "sid=1"
    assert client.get(p.url("/a/b")).text == "deep=2; sid=1"
    assert client.post(p.url("/a"), data={"x": "y"}).text == "deep=2; sid=1"
    with client.stream("GET", p.url("/")) as streamed:
        assert streamed.read() == b"sid=1"
    assert [r.text for r in client.map([p.url("/"), p.url("/a/")], workers=2)] == ["sid=1", "deep=2; sid=1"]
    assert client.get(p.url("/").replace("127.0.0.1", "localhost")).text == "-"
    assert client.cookies == {"sid": "1", "deep": "2"}
    assert client.get(p.url("/")).cookies == {}
    del client.cookies["sid"]
    client.cookies["mine"] = "5"
    assert client.get(p.url("/")).text == "mine=5"
    client.cookies = None
    assert client.get(p.url("/")).text == "-"
    client.cookies = {"new": "6"}
    assert client.get(p.url("/")).text == "new=6"
    client.cookies.clear()
    assert client.get(p.url("/")).text == "-"


def test_the_short_cut_takes_cookies_up_and_ends_with_them(peer: MakePeer, client: Client) -> None:
    count = []

    def script(conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            count.append(header(head, "Cookie"))
            conn.send(respond(b"", headers=[("Set-Cookie", "n=" + str(len(count)))] if len(count) in (3, 5) else []))

    p = peer(script)
    for _ in range(7):
        client.get(p.url("/"))
    assert count == [None, None, None, "n=3", "n=3", "n=5", "n=5"]


def test_a_cookie_that_is_refused_leaves_the_short_cut_on(peer: MakePeer, client: Client) -> None:
    p = peer(saying({"/": sets("a=b; Domain=example.com")}))
    for _ in range(3):
        client.get(p.url("/"))
    assert client._cookies is None and client._memo


def test_what_is_on_the_wire_is_what_came(peer: MakePeer, client: Client) -> None:
    seen = []

    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(b'HTTP/1.1 200 OK\r\nSet-Cookie: a="\xff\xe9 \xc3\xa9"; Path=/\r\nset-cookie:b={"x":[1,2]}\r\nContent-Length: 0\r\n\r\n')
        seen.append(conn.recv_request()[0])
        conn.send(respond())

    p = peer(script)
    r = client.get(p.url("/"))
    assert r.cookies["a"] == '"\xff\xe9 \xc3\xa9"'
    client.get(p.url("/"))
    assert b'\r\nCookie: a="\xff\xe9 \xc3\xa9"; b={"x":[1,2]}\r\n' in seen[0]


def test_over_tls_and_not(peer: MakePeer, ca: Authority) -> None:
    answers = {"/set": sets("tls=1; Secure", "any=2")}
    secure, plain = peer(saying(answers), tls=ca.server()), peer(saying({}))
    with Client(verify=str(ca.pem), timeout=10.0) as client:
        client.get(secure.url("/set"))
        assert client.get(secure.url("/")).text == "tls=1; any=2"
        assert client.get(plain.url("/")).text == "any=2"


# --- redirects ------------------------------------------------------------------------------------------------------------------


def test_a_hop_takes_up_and_sends(peer: MakePeer, client: Client) -> None:
    p2 = peer(saying({}))
    p = peer(saying({
        "/one": (302, [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2; Path=/one"), ("Location", "/two")]),
        "/two": (302, [("Set-Cookie", "a=; Max-Age=0; Path=/"), ("Set-Cookie", "c=3; Path=/"), ("Location", p2.url("/x").replace("127.0.0.1", "localhost"))]),
    }))
    r = client.get(p.url("/one"))
    assert [h.text for h in (client.get(p.url("/three")), r)] == ["c=3", "-"]
    assert [h.request.headers.get("cookie") for h in (*r.history, r) if h.request] == [None, "a=1", None]
    assert [h.cookies for h in r.history] == [{"a": "1", "b": "2"}, {"c": "3"}]
    assert client.cookies == {"b": "2", "c": "3"}


def test_cookies_without_a_domain_stay_with_whom_they_were_meant_for(peer: MakePeer) -> None:
    p2 = peer(saying({}))
    there = p2.url("/x").replace("127.0.0.1", "localhost")
    p = peer(saying({"/same": (302, [("Location", "/x")]), "/away": (302, [("Location", there)])}))
    with Client(cookies={"mine": "1"}, timeout=10.0) as client:
        assert client.get(p.url("/same"), cookies={"own": "2"}).text == "mine=1; own=2"
        assert client.get(p.url("/away"), cookies={"own": "2"}).text == "-"
        assert client.get(p.url("/away"), headers={"Cookie": "own=3"}).text == "-"
        assert client.get(p.url("/same"), headers={"Cookie": "own=3"}).text == "own=3"
        assert client.get(there).text == "mine=1"
        client.cookies.set("there", "4", domain="localhost")
        assert client.get(p.url("/away")).text == "there=4"


# --- per request ----------------------------------------------------------------------------------------------------------------


def test_a_requests_own_are_not_kept(peer: MakePeer, client: Client) -> None:
    p = peer(saying({"/set": sets("a=server; Path=/")}))
    assert client.get(p.url("/"), cookies={"a": "1", "b": "2"}).text == "a=1; b=2"
    assert client.get(p.url("/")).text == "-"
    client.get(p.url("/set"))
    assert client.get(p.url("/"), cookies={"a": "1"}).text == "a=1"
    assert client.get(p.url("/"), cookies=[("c", "3")]).text == "a=server; c=3"
    own = Cookies()
    own.set("x", "1", domain="example.com")
    assert client.get(p.url("/"), cookies=own).text == "a=server"
    assert client.get(p.url("/"), headers={"Cookie": "z=9"}).text == "z=9"
    assert client.get(p.url("/"), headers={"Cookie": "z=9"}, cookies={"y": "8"}).text == "z=9"
    request = client.build_request("GET", p.url("/"), cookies={"d": "4"})
    assert "cookie" not in request.headers
    assert [client.send(request).text for _ in range(2)] == ["a=server; d=4"] * 2
    assert client.send(Request("GET", p.url("/"), cookies={"e": "5"})).text == "a=server; e=5"
    assert client.cookies == {"a": "server"}


def test_the_module_functions_keep_none(peer: MakePeer) -> None:
    p = peer(saying({"/set": sets("a=1; Path=/")}))
    try:
        for _ in range(2):
            assert pooledhttp.get(p.url("/set")).cookies == {"a": "1"}
        assert pooledhttp.get(p.url("/set"), params={"q": "1"}).ok
        assert pooledhttp.get(p.url("/")).text == "-"
        assert pooledhttp.get(p.url("/"), cookies={"b": "2"}).text == "b=2"
        assert pooledhttp.default_client()._cookies is None
        assert pickle.loads(pickle.dumps(pooledhttp.default_client()))._keeps_cookies is False
    finally:
        pooledhttp.default_transport().close_idle_connections()


# --- the client's jar -----------------------------------------------------------------------------------------------------------


def mock(**options: Any) -> Client:
    def handler(request: Request) -> Response:
        return Response(200, headers=[("Set-Cookie", "set=1")], content=request.headers.get("cookie", "-"))

    return Client(transport=MockTransport(handler), **options)


def test_a_transport_of_the_users() -> None:
    client = mock()
    assert [client.get("http://h/").text for _ in range(2)] == ["-", "set=1"]


def test_hooks_see_what_is_sent_and_what_was_taken_up() -> None:
    seen: list[Any] = []
    client = mock(cookies={"a": "1"})
    client.event_hooks = {"request": [lambda r: seen.append(r.headers.get("cookie"))], "response": [lambda r: seen.append(dict(client.cookies))]}
    client.get("http://h/")
    assert seen == ["a=1", {"a": "1", "set": "1"}]


def test_what_a_client_takes() -> None:
    jar = CookieJar()
    given = Cookies({"a": "1"})
    for cookies, same in (({"a": "1"}, None), ([("a", "1")], None), (given, given.jar), (jar, jar)):
        client = mock(cookies=cookies)
        client.get("http://h/")
        assert client.cookies["set"] == "1"
        assert (client.cookies.jar is same) == (cookies is jar)
    assert given == {"a": "1"}
    assert [c.name for c in jar] == ["set"]
    with pytest.raises(TypeError, match="cookies"):
        mock(cookies="a=1")
    with pytest.raises(TypeError, match="cookies"):
        mock().cookies = 5


def test_copies_have_jars_of_their_own() -> None:
    client = Client(cookies={"a": "1"})
    for other in (pickle.loads(pickle.dumps(client)), copy.copy(client)):
        assert other.cookies == {"a": "1"}
        other.cookies["b"] = "2"
    assert client.cookies == {"a": "1"}


def test_threads_ask_for_the_jar_at_once() -> None:
    for _ in range(50):
        client = Client()
        gate = threading.Barrier(4)
        jars = []

        def work(client: Client = client, gate: threading.Barrier = gate, jars: list[Cookies] = jars) -> None:
            gate.wait()
            jars.append(client.cookies)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({id(jar) for jar in jars}) == 1


def test_threads_on_the_wire(peer: MakePeer, client: Client) -> None:
    def script(conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            name = head.split(b" ")[1].decode().strip("/")
            conn.send(respond((header(head, "Cookie") or "").encode(), headers={"Set-Cookie": f"c{name}={name}; Path=/{name}"}))

    p = peer(script)
    gate = threading.Barrier(32)
    wrong = []

    def work(n: int) -> None:
        gate.wait()
        for i in range(8):
            text = client.get(p.url(f"/{n}")).text
            if text != (f"c{n}={n}" if i else ""):
                wrong.append((n, i, text))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(client.cookies) == 32
