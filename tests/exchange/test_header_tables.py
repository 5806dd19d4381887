"""Header fields of real life, as they are sent and as they are received: order, case, duplicates, and bytes that are no ASCII."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pooledhttp import Client, Headers, LocalProtocolError, Request
from tests.support.peer import Conn, Peer, respond

MakePeer = Callable[..., Peer]

SENT: list[tuple[Any, bytes]] = [
    # order, case and duplicates are the caller's
    ([("B", "1"), ("a", "2"), ("B", "3")], b"B: 1\r\na: 2\r\nB: 3\r\n"), ([("x-a", "1"), ("X-A", "2"), ("x-A", "1")], b"x-a: 1\r\nX-A: 2\r\nx-A: 1\r\n"),
    ({"zz": "1", "AA": "2"}, b"zz: 1\r\nAA: 2\r\n"), ((("A", "1"), ["B", "2"]), b"A: 1\r\nB: 2\r\n"), (iter([("A", "1")]), b"A: 1\r\n"),
    (Headers([("b", "1"), ("B", "2")]), b"b: 1\r\nB: 2\r\n"),
    # names: every character of a token
    ({"!#$%&'*+-.^_`|~09azAZ": "x"}, b"!#$%&'*+-.^_`|~09azAZ: x\r\n"), ({b"X-Bytes": b"1"}, b"X-Bytes: 1\r\n"), ({"a" * 5000: "x"}, b"a" * 5000 + b": x\r\n"),
    # values: what surrounds them is no part of them
    ({"A": ""}, b"A: \r\n"), ({"A": " "}, b"A: \r\n"), ({"A": " \t x \t y \t "}, b"A: x \t y\r\n"), ({"A": b" x "}, b"A: x\r\n"),
    ({"A": "\u00a0x\u00a0"}, b"A: \xa0x\xa0\r\n"),
    ({"A": 'q="a, b"; c:d'}, b'A: q="a, b"; c:d\r\n'), ({"A": "a:b::c"}, b"A: a:b::c\r\n"), ({"A": "x" * 70_000}, b"A: " + b"x" * 70_000 + b"\r\n"),
    # Latin-1 where it can hold the value, UTF-8 where it cannot; bytes as they are
    ({"A": "é"}, b"A: \xe9\r\n"), ({"A": "é€"}, b"A: \xc3\xa9\xe2\x82\xac\r\n"), ({"A": "😀"}, b"A: \xf0\x9f\x98\x80\r\n"),
    ({"A": "é".encode()}, b"A: \xc3\xa9\r\n"),
    ({"A": b"\x80\xff"}, b"A: \x80\xff\r\n"), ({"A": "\x85\xa0"}, b"A: \x85\xa0\r\n"),
    # what frames the message
    ({"Host": "other", "A": "1"}, b"A: 1\r\n"), ({"content-LENGTH": "0", "A": "1"}, b"content-LENGTH: 0\r\nA: 1\r\n"),
    ([("A", "1"), ("Content-Length", "0"), ("content-length", "0")],
                                                                                                                       b"A: 1\r\nContent-Length: 0\r\n"),
    ({"Connection": "close"}, b"Connection: close\r\n"), ({"connection": "Keep-Alive, X"}, b"connection: Keep-Alive, X\r\n"),
    ({"TE": "trailers"}, b"TE: trailers\r\n"),
]


@pytest.mark.parametrize(("headers", "fields"), SENT, ids=lambda v: ascii(v)[:50])
def test_what_is_sent(headers: Any, fields: bytes) -> None:
    said = "content-length" in fields.decode("latin-1").lower()
    assert Request("PUT", "http://h/", headers=headers).wire().fields == fields + (b"" if said else b"Content-Length: 0\r\n")


CONTROLS = [chr(c) for c in range(32) if c != 9] + ["\x7f"]


@pytest.mark.parametrize("char", CONTROLS, ids=ascii)
def test_no_control_character_is_sent(char: str) -> None:
    for headers in ({"A": f"x{char}y"}, {"A": f"x{char}"}, {"A": f"{char}x".encode()}, {f"A{char}": "x"}, {f"{char}A".encode(): "x"}, {"Host": f"h{char}"},
                    {"Host": f"{char}"}):
        with pytest.raises(LocalProtocolError) as e:
            Request("GET", "http://h/", headers=headers).wire()
        assert char not in e.value.message


@pytest.mark.parametrize("name", ["", " ", "A ", " A", "A B", "A:", ":", ":authority", "Größe", "A\u2028", "A(b)", "A/b", "A,b", "A;b", 'A"', "A=b", "A[b]",
                                  "A@b", "A\\b", "A{b}", "\u0130"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(LocalProtocolError):
        Request("GET", "http://h/", headers={name: "x"}).wire()


@pytest.mark.parametrize("value", [1, 1.5, None, True, ["a"], object(), bytearray(b"x")], ids=lambda v: type(v).__name__)
def test_what_is_no_value(value: Any) -> None:
    with pytest.raises(TypeError):
        Request("GET", "http://h/", headers={"A": value})


def test_a_lone_surrogate_is_no_value() -> None:
    with pytest.raises(LocalProtocolError, match="surrogate"):
        Request("GET", "http://h/", headers={"A": "\ud800"}).wire()


class Echo:
    """A script that keeps each request's field lines."""

    def __init__(self) -> None:
        self.lines: list[list[bytes]] = []

    def __call__(self, conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            self.lines.append(head.split(b"\r\n")[1:-2])
            conn.send(respond(b"ok"))


def test_the_whole_head(peer: MakePeer, new_client: Callable[..., Client]) -> None:
    """Host first, then the client's defaults, then the request's own in their order, then what says how long the body is."""
    echo = Echo()
    server = peer(echo)
    client = new_client(disable_compression=True)             # no Accept-Encoding
    client.headers = {"x-Default": "1", "accept": "text/html"}  # type: ignore[assignment]
    client.headers.add("X-default", "2")
    host, agent = f"Host: 127.0.0.1:{server.port}".encode(), b"User-Agent: " + client.headers["User-Agent"].encode()
    ours = [b"x-Default: 1", b"accept: text/html", b"X-default: 2"]
    rows: list[tuple[dict[str, Any], list[bytes]]] = [
        ({}, [host, agent, *ours, b"Content-Length: 0"]),
        ({"headers": [("Z", "1"), ("ACCEPT", "*/*"), ("z", "2")]}, [host, agent, ours[0], ours[2], b"Z: 1", b"ACCEPT: */*", b"z: 2", b"Content-Length: 0"]),
        ({"headers": {"X-DEFAULT": None, "accept": None, "user-agent": None}}, [host, b"Content-Length: 0"]),
        ({"headers": {"Host": "virtual.example:81", "X-Default": ""}, "content": b"abc"},
         [b"Host: virtual.example:81", agent, ours[1], b"X-Default: ", b"Content-Length: 3"]),
        ({"headers": {"x-default": "3", "content-length": "3", "Y": "1"}, "content": iter([b"abc"])},
         [host, agent, ours[1], b"x-default: 3", b"content-length: 3", b"Y: 1"]),
        ({"headers": {"transfer-encoding": "chunked"}, "content": b"abc"}, [host, agent, *ours, b"Transfer-Encoding: chunked"]),
        ({"headers": {"host": ""}}, [b"Host: ", agent, *ours, b"Content-Length: 0"]),
    ]
    for options, lines in rows:
        assert client.post(server.url(), **options).content == b"ok"
        assert echo.lines[-1] == lines
    assert server.accepted == 1


RECEIVED: list[tuple[bytes, list[tuple[str, str]]]] = [
    (b"A: 1\r\nb: 2\r\na: 3\r\n", [("A", "1"), ("b", "2"), ("a", "3")]), (b"A:1\r\nB:\t2 \t\r\nC:\r\nD: \r\n", [("A", "1"), ("B", "2"), ("C", ""), ("D", "")]),
    (b"A: a:b: c\r\n", [("A", "a:b: c")]), (b"A: caf\xe9\r\n", [("A", "caf\xe9")]), (b"A: \xc3\xa9\xe2\x82\xac\r\n", [("A", "\xc3\xa9\xe2\x82\xac")]),
    (b"A: x\x85y\xa0\r\nB: 1\r\n", [("A", "x\x85y\xa0"), ("B", "1")]), (b"A: a\tb\r\n", [("A", "a\tb")]), (b"A: x,, y ,\r\n", [("A", "x,, y ,")]),
    (b"!#$%&'*+-.^_`|~: 1\r\n", [("!#$%&'*+-.^_`|~", "1")]), (b"Set-Cookie: a=b, c\r\nset-cookie: d\r\n", [("Set-Cookie", "a=b, c"), ("set-cookie", "d")]),
    (b"A: 1\r\n folded\r\n\tagain\r\nB: 2\r\n", [("A", "1 folded again"), ("B", "2")]), (b"A: " + b"x" * 60_000 + b"\r\n", [("A", "x" * 60_000)]),
]


@pytest.mark.parametrize(("fields", "pairs"), RECEIVED, ids=lambda v: ascii(v)[:40])
def test_what_is_received(peer: MakePeer, client: Client, fields: bytes, pairs: list[tuple[str, str]]) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 0\r\n\r\n")

    headers = client.get(peer(script).url()).headers
    assert headers.multi_items() == [*pairs, ("Content-Length", "0")]
    name, value = pairs[0]
    assert headers.get_list(name.upper())[0] == value
    assert headers.raw[0] == (name.encode(), value.encode("latin-1"))
