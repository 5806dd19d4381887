"""The fallback by itself: what it says of a head, what its errors say, its limits, and going on in the middle of a body."""
from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable

import pytest

from pooledhttp._proto.fallback import CK_DATA, MAX_CHUNK_LINE, Fallback
from pooledhttp.errors import RemoteProtocolError

from .corpus import CHUNKED, OK, sized

LIMIT = 1 << 20


def fed(raw: bytes, method: bytes = b"GET", max_head: int = LIMIT) -> Fallback:
    reader = Fallback(method, max_head)
    reader.feed(raw)
    return reader


def drained(reader: Fallback) -> bytes:
    out = b""
    while piece := reader.data():
        out += piece
    assert piece == b""
    return out


def refusal(raw: bytes, method: bytes = b"GET", max_head: int = LIMIT, eof: bool = False) -> RemoteProtocolError:
    reader = fed(raw, method, max_head)
    if eof:
        reader.feed(b"")
    with pytest.raises(RemoteProtocolError) as e:
        while reader.data():
            pass
    assert "\n" not in str(e.value) and len(str(e.value)) < 300
    assert str(pickle.loads(pickle.dumps(e.value))) == str(e.value)
    return e.value


def test_a_head() -> None:
    reader = fed(b"HTTP/1.1 201 Made it\r\nX-One: a\r\n  b\r\nkeep-ALIVE: timeout=15, max=9\r\nconnection: Close, Keep-Alive\r\n"
                 b"Content-Length: 3, 3\r\n\r\nabcnext")
    head = reader.head()
    assert head is not None and reader.head() is head
    assert (head.status, head.reason, head.minor) == (201, b"Made it", 1)
    assert head.fields == b"X-One: a b\r\nkeep-ALIVE: timeout=15, max=9\r\nconnection: Close, Keep-Alive\r\nContent-Length: 3\r\n"
    assert (head.content_length, head.chunked, head.conn_close, head.conn_keep_alive, head.keep_alive_timeout) == (3, 0, 1, 1, 15)
    assert (head.until_close, head.notes) == (False, 0)
    assert reader.leftover == b"abcnext"
    assert (reader.data(), reader.data(), reader.data()) == (b"abc", b"", b"")
    assert reader.leftover == b"next"


@pytest.mark.parametrize(("fields", "notes"), [
    (b"Set-Cookie2: a\r\nX-Content-Encoding: gzip\r\n", 0),
    (b"Set-Cookie: a=b\r\n", 1),
    (b"set-COOKIE:\r\n folded=1\r\n", 1),
    (b"Content-ENCODING: gzip\r\n", 2),
    (b"Content-Encoding: gzip\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n", 3),
])
def test_cookies_and_codings_are_noted(fields: bytes, notes: int) -> None:
    # An interim head's fields are not the response's.
    head = fed(b"HTTP/1.1 103 Early\r\nSet-Cookie: x\r\nContent-Encoding: br\r\n\r\nHTTP/1.1 200\r\n" + fields + b"\r\n").head()
    assert head is not None and head.notes == notes


@pytest.mark.parametrize(("method", "head", "until_close"), [
    (b"GET", b"HTTP/1.1 200\r\n\r\n", True),
    (b"GET", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", True),
    (b"HEAD", b"HTTP/1.1 200\r\n\r\n", False),
    (b"GET", b"HTTP/1.1 204\r\n\r\n", False),
    (b"GET", b"HTTP/1.1 304\r\n\r\n", False),
    (b"CONNECT", b"HTTP/1.1 200\r\n\r\n", False),
    (b"CONNECT", b"HTTP/1.1 403\r\n\r\n", True),
    (b"GET", b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n", False),
    (b"GET", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", False),
])
def test_who_ends_the_body(method: bytes, head: bytes, until_close: bool) -> None:
    got = fed(head, method).head()
    assert got is not None and got.until_close is until_close


def test_until_close_ends_with_the_connection() -> None:
    reader = fed(b"HTTP/1.1 200\r\n\r\nall")
    assert (reader.data(), reader.data()) == (b"all", None)
    reader.feed(b" of it")
    reader.feed(b"")
    assert drained(reader) == b" of it"
    with pytest.raises(RuntimeError, match="behind the end"):
        reader.feed(b"x")


def test_interim_heads_are_kept() -> None:
    reader = fed(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
    assert reader.head() is None
    reader.feed(sized(b"x"))
    head = reader.head()
    assert head is not None and head.status == 200
    assert reader.interim == [(103, b"Link: </a>\r\nLink: </b>\r\n"), (100, b"")]


def test_it_asks_for_more() -> None:
    reader = Fallback(b"GET", LIMIT)
    assert reader.head() is None and reader.data() is None
    for c in b"HTTP/1.1 200 OK\nContent-Length: 2\n\n":
        assert reader.data() is None
        reader.feed(bytes([c]))
    assert reader.head() is not None
    assert reader.data() is None
    reader.feed(b"o")
    assert (reader.data(), reader.data()) == (b"o", None)
    reader.feed(b"k")
    assert (reader.data(), reader.data()) == (b"k", b"")


HEAD_ERRORS: list[tuple[bytes, str]] = [
    (b"HTTP/9.9 200 OK\r\n\r\n", "the server speaks HTTP/9.9, not HTTP/1.1 or 1.0: b'HTTP/9.9 200 OK'"),
    (b"HTTP/2 200\r\n\r\n", "the server speaks HTTP/2, not HTTP/1.1 or 1.0: b'HTTP/2 200'"),
    (b"SSH-2.0-OpenSSH_9.2p1\r\n", "bad status line: b'SSH-2.0-OpenSSH_9.2p1'"),
    (b"\x15\x03\x01\x00\x02\x02\x46" + b"x" * 9, "the server speaks TLS on this port: use https://"),
    (b"HTTP/1.1 2000 OK\r\n\r\n", "bad status line: b'HTTP/1.1 2000 OK'"),
    (b"HTTP/1.1 000 OK\r\n\r\n", "bad status line: b'HTTP/1.1 000 OK'"),
    (b"HTTP/1.1 200" + b"x" * 500 + b"\r\n\r\n", f"bad status line: {b'HTTP/1.1 200' + b'x' * 52!r}... (512 bytes)"),
    (b"\r\n" + sized(b"x"), "bad status line: b''"),
    (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "the server switched protocols (101), which was not asked for"),
    (b"HTTP/1.1 200 O\x01\r\n\r\n", "a control character in the reason phrase of status 200"),
    (OK + b"Content-Length: +5\r\n\r\n", "bad Content-Length: b'+5'"),
    (OK + b"content-length: -1\r\n\r\n", "bad Content-Length: b'-1'"),
    (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "conflicting Content-Length: b'5', b'6'"),
    (OK + b"Content-Length: 5, 6\r\n\r\n", "conflicting Content-Length: b'5, 6'"),
    (OK + b"Content-Length: 9223372036854775808\r\n\r\n", "Content-Length is over 9223372036854775807: 9223372036854775808"),
    (OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "both Content-Length and Transfer-Encoding"),
    (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "a Transfer-Encoding other than chunked: b'gzip, chunked'"),
    (OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n", "more than one Transfer-Encoding: b'chunked', b'gzip'"),
    (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding in an HTTP/1.0 response"),
    (OK + b" A: b\r\n\r\n", "a folded line before the first field"),
    (OK + b"A: b\r\nB\x00: s3cret\r\n\r\n", r"bad field line: b'B\x00'"),
    (OK + b"A : s3cret\r\n\r\n", "bad field line: b'A '"),
    (OK + b"A: b\r\nSet-Cookie: s3cret\x00\r\n\r\n", "a control character in field b'Set-Cookie'"),
    (OK + b"Set-Cookie: s3cret\x01\r\n\r\n", "a control character in field b'Set-Cookie'"),
    (OK + b"A: b\r\n s3\x00cret\r\n\r\n", "a control character in a folded field"),
    (OK + b"A: b\r\n s3\x01cret\r\n\r\n", "a control character in field b'A'"),
    (b"HTTP/1.1 103 Hint\r\nA: \x02\r\n\r\n", "a control character in field b'A'"),
]

BODY_ERRORS: list[tuple[bytes, str]] = [
    (b"x\r\n", "bad chunk size: b'x'"),
    (b"\r\n", "bad chunk size: b''"),
    (b"-1\r\n", "bad chunk size: b'-1'"),
    (b"0x1\r\n", "bad chunk size: b'0x1'"),
    (b"1" * 21 + b"\r\n", f"bad chunk size: {b'1' * 21!r}"),
    (b"f" * 500 + b"\r\n", f"bad chunk size: {b'f' * 64!r}... (500 bytes)"),
    (b"8000000000000000\r\n", "a chunk's size is over 9223372036854775807: b'8000000000000000'"),
    (b"1;\x00\r\n", "a control character in a chunk's header line"),
    (b"1\r\nxy\r\n", "bytes other than CRLF behind a chunk's data"),
    (b"1\r\nx\ry", "bytes other than CRLF behind a chunk's data"),
    (b"0\r\nnot a field\r\n\r\n", "a bad field in the trailer section"),
    (b"0\r\nA: \x01\r\n\r\n", "a control character in field b'A'"),
]


@pytest.mark.parametrize(("raw", "message"), HEAD_ERRORS)
def test_what_is_wrong_with_a_head(raw: bytes, message: str) -> None:
    error = refusal(raw)
    assert (error.phase, str(error)) == ("headers", message)


@pytest.mark.parametrize(("raw", "message"), BODY_ERRORS)
def test_what_is_wrong_with_a_chunked_body(raw: bytes, message: str) -> None:
    error = refusal(CHUNKED + raw)
    assert (error.phase, str(error)) == ("body", message)


@pytest.mark.parametrize(("raw", "phase", "message"), [
    (b"", "headers", "the connection ended within the response's head, after 0 bytes of it"),
    (b"HTTP/1", "headers", "the connection ended within the response's head, after 6 bytes of it"),
    (b"HTTP/1.1 200 OK\r\nA: b\r\n", "headers", "the connection ended within the response's head, after 23 bytes of it"),
    (b"HTTP/1.1 100 Continue\r\n\r\n", "headers", "the connection ended within the response's head, after 0 bytes of it"),
    (b"oops", "headers", "bad status line: b'oops'"),
    (OK + b"Content-Length: 10\r\n\r\nhello", "body", "truncated body: got 5 of 10 bytes"),
    (CHUNKED + b"5", "body", "truncated body: the connection ended before a chunk's size"),
    (CHUNKED + b"5\r\nhel", "body", "truncated body: the connection ended 2 bytes before the end of a chunk"),
    (CHUNKED + b"5\r\nhello\r", "body", "truncated body: the connection ended behind a chunk's data"),
    (CHUNKED + b"5\r\nhello\r\n0\r\nA: b\r\n", "body", "truncated body: the connection ended in the trailer section"),
])
def test_a_connection_that_ends_too_soon(raw: bytes, phase: str, message: str) -> None:
    error = refusal(raw, eof=True)
    assert (error.phase, str(error)) == (phase, message)


def test_nothing_is_refused_before_its_time() -> None:
    # A start that may still become a status line is not an error, and garbage is one as soon as it can be shown.
    for n in range(1, 13):
        assert fed(b"HTTP/1.0 200 "[:n]).head() is None
    assert fed(b"HTTX").head() is None
    with pytest.raises(RemoteProtocolError, match="bad status line: b'GET / HTTP/1.1xx'"):
        fed(b"GET / HTTP/1.1xx").head()


def grown(block: Callable[[int], bytes], size: int) -> bytes:
    """`block(n)` with n such that it has `size` bytes."""
    raw = block(size - len(block(0)))
    assert len(raw) == size
    return raw


def pieces_of(raw: bytes) -> list[list[bytes]]:
    return [[raw], [raw[i:i + 100] for i in range(0, len(raw), 100)], [raw[:-1], raw[-1:]]]


@pytest.mark.parametrize(("before", "block", "limit", "message"), [
    (b"", lambda n: OK + b"A: " + b"x" * n + b"\r\n\r\n", 1000, "the response's head is over the limit of 1000 bytes"),
    (CHUNKED + b"0\r\n", lambda n: b"A: " + b"x" * n + b"\r\n\r\n", 1000, "the trailer section is over the limit of 1000 bytes"),
    (CHUNKED, lambda n: b"1;" + b"x" * n + b"\r\n", MAX_CHUNK_LINE, f"a chunk's header line is over the limit of {MAX_CHUNK_LINE} bytes"),
])
def test_limits_do_not_depend_on_the_pieces(before: bytes, block: Callable[[int], bytes], limit: int, message: str) -> None:
    for raw in pieces_of(grown(block, limit)):
        reader = fed(before, max_head=1000) if before else Fallback(b"GET", 1000)
        for piece in raw:
            reader.feed(piece)
            reader.data()
    for raw in pieces_of(grown(block, limit + 1)):
        reader = fed(before, max_head=1000) if before else Fallback(b"GET", 1000)
        with pytest.raises(RemoteProtocolError) as e:
            for piece in raw:
                reader.feed(piece)
                reader.data()
        assert str(e.value) == message


def test_a_flood_of_interim_heads_ends() -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    limit = len(hint) * 10
    reader = fed(hint * 10 + sized(b"x"), max_head=limit)
    assert reader.head() is not None and len(reader.interim) == 10
    error = refusal(hint * 11, max_head=limit)
    assert (error.phase, str(error)) == ("headers", f"interim (1xx) responses are over the limit of {limit} bytes")


def test_a_limit_below_h11s_own() -> None:
    assert refusal(sized(b"x"), max_head=5).phase == "headers"


def test_going_on_knows_only_where_an_element_begins() -> None:
    with pytest.raises(KeyError):
        Fallback.resume_chunked(CK_DATA, LIMIT)


def test_many_small_pieces_of_many_chunks() -> None:
    raw = CHUNKED + b"".join(b"1; odd\r\n%c\r\n" % c for c in range(256)) + b"0\r\n\r\nnext"
    reader = Fallback(b"GET", LIMIT)
    out = b""
    for c in raw:
        reader.feed(bytes([c]))
        while piece := reader.data():
            out += piece
    assert (out, reader.leftover) == (bytes(range(256)), b"next")


def test_importing_it_imports_no_h11() -> None:
    code = "import sys, pooledhttp, pooledhttp._proto.fallback; print([m for m in sys.modules if m.startswith('h11')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30).stdout == "[]\n"
