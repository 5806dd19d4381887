"""Answers that a server may well give to see what breaks: encodings, bodies of many parts, redirects to where none may lead."""
from __future__ import annotations

import gzip
from collections.abc import Callable, Generator
from typing import Any

import pytest

from pooledhttp import Auth, Cancelled, Client, Context, DeadlineExceeded, DigestAuth, JSONDecodeError, MockTransport, Request, Response, UnsupportedProtocol
from pooledhttp.decoders import SLICE, Gzip, Members, Zstd, ZstdFrame, _zstd
from tests.support.peer import Conn, Peer, header, respond


def said(charset: str, body: bytes, stream: bool = False) -> Response:
    return Response(200, headers={"Content-Type": f"text/plain; charset={charset}"}, content=iter([body[:1], body[1:]]) if stream else body)


@pytest.mark.parametrize("charset", ["hex", "rot13", "zlib", "bz2", "base64", "idna", "undefined", "punycode", "utf-8\0"])
def test_a_charset_that_makes_no_text_of_bytes(charset: str) -> None:
    assert said(charset, b"a\xffb").text == "a\ufffdb"
    assert "".join(said(charset, b"a\xffb", stream=True).iter_text()) == "a\ufffdb"
    assert said(charset, b"a").encoding == "utf-8"
    with pytest.raises(LookupError):
        said("utf-8", b"").encoding = charset
    with pytest.raises(LookupError):
        Client(transport=MockTransport(lambda request: Response(200)), default_encoding=charset)


@pytest.mark.parametrize("charset", ["utf-16", "utf-32", "U16"])
@pytest.mark.parametrize("text", ["h\u00e9llo", "", "x"])
@pytest.mark.parametrize("order", ["", "-le", "-be"])
def test_wide_characters_with_and_without_a_mark(charset: str, text: str, order: str) -> None:
    name = "utf-32" if charset == "utf-32" else "utf-16"
    body = text.encode(name + order)
    whole = said(charset, body).text
    for size in (1, 2, 3, 100):
        assert "".join(said(charset, body, stream=True).iter_text(size)) == whole
    if not order:
        assert whole == text


@pytest.mark.parametrize("body", [b"[" * 200_000, b"1" * 5000])
def test_json_that_python_does_not_read(body: bytes) -> None:
    request = Request("GET", "http://a.test/")
    with pytest.raises(JSONDecodeError) as e:
        Response(200, content=body, request=request).json()
    assert e.value.request is request


def test_what_the_callers_own_hook_raises_of_json_stays() -> None:
    def fail(text: str) -> Any:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="^mine$"):
        Response(200, content=b"1").json(parse_int=fail)


def _work(codec: Members, data: bytes) -> tuple[bytes, int]:
    """What comes of `data`, fed at once, and how many bytes were copied to get at the rest."""
    out = codec.feed(data, 1 << 40)
    copied = 0
    while codec.more:
        copied += len(codec._rest)
        out += codec.feed(b"", 1 << 40)
    assert codec.complete
    return out, copied


@pytest.mark.parametrize("make", [lambda: Gzip(), pytest.param(lambda: Zstd(), marks=pytest.mark.skipif(_zstd() is None, reason="no zstd here"))])
def test_many_members_are_no_square(make: Callable[[], Members]) -> None:
    codec = make()
    small = gzip.compress(b"") if type(codec) is Gzip else b"\x50\x2a\x4d\x18\0\0\0\0"
    n = 20_000
    _, copied = _work(codec, small * n)
    assert copied < n * 2 * SLICE


@pytest.mark.parametrize("inner", [b"", b"x", b"0123456789" * 5000])
def test_members_of_any_size_are_joined(inner: bytes) -> None:
    n = 300
    response = Response(200, headers={"Content-Encoding": "gzip"}, content=(gzip.compress(inner) * n) + b"\0" * 50_000)
    assert response.content == inner * n


def test_blocks_by_zstandard_are_no_square() -> None:
    """The frame keeps what it was given, and does not cut it anew for each block."""
    zstandard = pytest.importorskip("zstandard")
    frame = ZstdFrame(None)
    body = zstandard.ZstdCompressor(level=0).compress(bytes(1 << 20))
    out = frame.decompress(body, 1 << 20)
    kept = frame._rest
    while not frame.eof:
        assert frame._rest is kept
        out += frame.decompress(b"", 1 << 20)
    assert out == bytes(1 << 20)


def test_no_redirect_leads_from_one_unix_socket_to_another() -> None:
    asked = []

    def answer(request: Request) -> Response:
        asked.append(str(request.url))
        return Response(302, headers={"Location": "//%2Frun%2Fdocker.sock/info"})

    with Client(transport=MockTransport(answer)) as client, pytest.raises(UnsupportedProtocol):
        client.get("http+unix://%2Frun%2Fa.sock/")
    assert asked == ["http+unix://%2frun%2fa.sock/"]


def test_a_flow_that_yields_no_request_keeps_no_connection(peer: Callable[..., Peer], client: Client) -> None:
    class Odd(Auth):
        def auth_flow(self, request: Request) -> Generator[Any, Response, None]:
            yield request
            yield 5

    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        conn.recv_until_closed()

    with pytest.raises(TypeError, match="not int") as e:
        client.get(peer(script).url("/"), auth=Odd(), stream=True)
    assert client.transport.stats().open == 0
    del e


def test_proxy_credentials_stay_with_proxies(peer: Callable[..., Peer]) -> None:
    """A URL that takes none, where others take one: its server is not told."""

    def script(conn: Conn, i: int) -> None:
        head, _ = conn.recv_request()
        conn.send(respond((header(head, "Proxy-Authorization") or "").encode()))

    url = peer(script).url("/")
    for proxy, seen in ((lambda url: None, b""), (None, b"Basic eA==")):
        with Client(proxy=proxy, headers={"Proxy-Authorization": "Basic eA=="}) as client:
            assert client.get(url).content == seen


@pytest.mark.parametrize("status", [302, 401, 503])
def test_a_cancel_while_an_answer_is_thrown_away_names_its_request(peer: Callable[..., Peer], client: Client, status: int) -> None:
    ctx = Context()

    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        fields = b"Location: /x\r\nWWW-Authenticate: Digest realm=\"a\", nonce=\"b\"\r\nContent-Length: 1000\r\n\r\n"
        conn.send(b"HTTP/1.1 %d Later\r\n%b" % (status, fields))
        conn.send(b"x")
        ctx.cancel("enough")
        conn.recv_until_closed()

    with pytest.raises(Cancelled) as e:
        client.get(peer(script).url("/a"), context=ctx, retries=1, auth=DigestAuth("u", "p"))
    assert e.value.request is not None and e.value.request.url.path == "/a"


def test_a_context_that_has_ended_asks_no_transport() -> None:
    asked = []
    ctx = Context()

    def answer(request: Request) -> Response:
        asked.append(request.url.path)
        ctx.cancel("enough")
        return Response(302, headers={"Location": "/next"})

    with Client(transport=MockTransport(answer)) as client:
        with pytest.raises(Cancelled, match="enough") as e:
            client.get("http://a.test/first", context=ctx)
        assert asked == ["/first"] and e.value.request is not None and e.value.request.url.path == "/next"
        with pytest.raises(Cancelled):
            client.get("http://a.test/again", context=ctx)
        with pytest.raises(DeadlineExceeded) as late:
            client.get("http://a.test/again", context=Context(timeout=0))
        assert late.value.source == "context"
        assert asked == ["/first"]


def test_a_transport_is_given_what_a_context_leaves() -> None:
    given = []

    class Own:
        def round_trip(self, request: Request, *, timeout: Any = None, context: Any = None) -> Response:
            given.append(timeout.total)
            return Response(200)

    with Client(transport=Own(), timeout=300.0) as client:
        client.get("http://a.test/", context=Context(timeout=100.0))
        client.get("http://a.test/", context=Context(timeout=1000.0))
    assert 90 < given[0] <= 100 and given[1] == 300
