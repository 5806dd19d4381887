"""Bodies: what they are made of, how often they can be sent, and a length that holds."""
from __future__ import annotations

import gzip
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pooledhttp import LocalProtocolError, Request, StreamClosed, StreamConsumed
from pooledhttp.content import PIECE, BodySource, FileBody, encode_body, encode_content


def source(content: Any) -> BodySource:
    body = encode_content(content)
    assert isinstance(body, BodySource)
    return body


@pytest.mark.parametrize(("content", "wanted"), [
    (b"x", b"x"), ("ü", b"\xc3\xbc"), (bytearray(b"x"), b"x"), (memoryview(b"abc")[::2], b"ac"), (b"", b"")])
def test_in_memory(content: Any, wanted: bytes) -> None:
    assert encode_content(content) == wanted


def test_a_large_buffer_is_not_copied() -> None:
    data = bytearray(os.urandom(PIECE * 2 + 5))
    body = source(data)
    pieces = list(body)
    assert body.length == len(data)
    assert [len(p) for p in pieces] == [PIECE, PIECE, 5]
    assert b"".join(pieces) == data
    assert all(isinstance(p, memoryview) and p.obj is data for p in pieces)
    assert body.rewind()


def test_a_list_has_a_length_and_can_be_sent_again() -> None:
    body = source([b"ab", b"", b"c"])
    assert body.length == 3
    assert list(body) == [b"ab", b"c"]
    assert body.rewind()
    assert list(body) == [b"ab", b"c"]


def test_a_generator_can_be_sent_once() -> None:
    body = source(x for x in (b"a", bytearray(b"b"), memoryview(b"c")))
    assert body.length is None
    assert body.rewind()                                  # nothing was taken yet
    assert b"".join(body) == b"abc"
    assert not body.rewind()
    with pytest.raises(StreamConsumed):
        iter(body)


def test_an_iterable_that_starts_anew_can_be_sent_again() -> None:
    class Anew:
        def __iter__(self) -> Iterator[bytes]:
            return iter((b"a", b"b"))

    body = source(Anew())
    assert body.length is None
    assert b"".join(body) == b"ab"
    assert b"".join(body) == b"ab"


def test_a_file_is_read_in_pieces_from_where_it_stands(tmp_path: Path) -> None:
    data = os.urandom(PIECE + 100)
    path = tmp_path / "f"
    path.write_bytes(b"head" + data)
    with path.open("rb") as f:
        f.seek(4)
        body = source(f)
        assert body.length == len(data)
        for _ in range(2):
            assert [len(p) for p in body] == [PIECE, 100]
            assert body.rewind()
        assert b"".join(body) == data


def test_a_file_that_grows_is_sent_as_it_was_and_one_that_shrinks_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 10)
    with path.open("rb", buffering=0) as f:
        body = source(f)
        path.write_bytes(b"y" * 20)
        assert b"".join(body) == b"y" * 10
        path.write_bytes(b"z" * 3)
        with pytest.raises(LocalProtocolError, match="7 bytes short"):
            list(body)


def test_a_pipe_has_no_length() -> None:
    r, w = os.pipe()
    os.write(w, b"piped")
    os.close(w)
    with open(r, "rb") as f:
        body = source(f)
        assert body.length is None
        assert b"".join(body) == b"piped"
        assert not body.rewind()


def test_a_gzip_file_is_sent_as_it_reads_and_not_as_it_is_stored() -> None:
    raw = io.BytesIO(gzip.compress(b"plain" * 1000))
    with gzip.GzipFile(fileobj=raw) as f:
        body = source(f)
        assert body.length in (None, 5000)
        assert b"".join(body) == b"plain" * 1000


def test_a_reader_without_seek() -> None:
    class Reader:
        def __init__(self) -> None:
            self.left = [b"a", b"b"]

        def read(self, n: int) -> bytes:
            return self.left.pop(0) if self.left else b""

    body = FileBody(Reader())
    assert body.length is None
    assert list(body) == [b"a", b"b"]


class Stated:
    """As requests_toolbelt's encoders are: it only reads, and says how much there is."""

    def __init__(self, data: bytes, length: Any) -> None:
        self.file = io.BytesIO(data)
        self.len = length

    def read(self, n: int) -> bytes:
        return self.file.read(n)


class Sized(Stated):
    def __init__(self, data: bytes, length: int) -> None:
        self.file = io.BytesIO(data)
        self.length = length

    def __len__(self) -> int:
        return self.length


@pytest.mark.parametrize("kind", [Stated, Sized])
def test_a_reader_that_says_its_length(kind: type[Stated]) -> None:
    body = FileBody(kind(b"abc", 3))
    assert (body.length, list(body)) == (3, [b"abc"])
    assert not body.rewind()
    with pytest.raises(LocalProtocolError, match="1 bytes short"):
        list(FileBody(kind(b"abc", 4)))


@pytest.mark.parametrize("length", [-1, None, "3", True, 3.0, lambda: 3])
def test_a_length_that_is_none(length: Any) -> None:
    assert FileBody(Stated(b"abc", length)).length is None


def test_a_temporary_file_that_tells_nothing_as_it_seeks() -> None:
    class Quiet(io.BytesIO):
        def seek(self, *args: Any) -> None:  # type: ignore[override]  # as tempfile's spooled one does in Python 3.10
            super().seek(*args)

    file = Quiet(b"abcd")
    file.seek(1)
    body = FileBody(file)
    assert (body.length, list(body), body.rewind(), list(body)) == (3, [b"bcd"], True, [b"bcd"])
    with tempfile.SpooledTemporaryFile() as spooled, tempfile.NamedTemporaryFile() as named:
        for each in (spooled, named):
            each.write(b"abcd")
            each.seek(1)
            body = FileBody(each)
            assert (body.length, list(body), body.rewind(), list(body)) == (3, [b"bcd"], True, [b"bcd"])


def test_a_file_is_sent_from_where_the_request_found_it() -> None:
    file = io.BytesIO(b"abcd")
    body = source(file)
    file.seek(3)
    assert b"".join(body) == b"abcd"


def test_a_file_that_was_closed_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 100_000)
    file = path.open("rb")
    body = source(file)
    assert list(body)
    file.close()
    assert not body.rewind()
    for again in (iter, BodySource.sendable):
        with pytest.raises(StreamClosed, match="closed before it was sent"):
            list(again(body))  # type: ignore[operator]


# --- trailers ---

class WithTrailers:
    def __init__(self, trailers: Any, *pieces: bytes) -> None:
        self.trailers = trailers
        self.pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.pieces)


class ReadWithTrailers(io.BytesIO):
    trailers = (("X-End", "1"),)


class ListWithTrailers(list[bytes]):
    trailers = (("X-End", "1"),)


@pytest.mark.parametrize("content", [WithTrailers([("X-End", "1")], b"abc"), WithTrailers(lambda: {"X-End": "1"}, b"abc"), ReadWithTrailers(b"abc"),
                                     ListWithTrailers([b"abc"])], ids=lambda c: type(c).__name__)
def test_trailers_make_it_chunked(content: Any) -> None:
    body = source(content)
    assert (body.length, b"".join(body), body.trailer_section()) == (None, b"abc", b"X-End: 1\r\n")
    request = Request("POST", "http://h/", content=content, headers={"Trailer": "X-End"})
    assert request.wire().fields == b"Trailer: X-End\r\n"
    with pytest.raises(LocalProtocolError, match="trailers"):
        Request("POST", "http://h/", content=content, headers={"Content-Length": "3"}).wire()


@pytest.mark.parametrize("none", [None, (), {}, lambda: None, list])
def test_no_trailers(none: Any) -> None:
    content = WithTrailers(none, b"abc")
    assert source(content).trailer_section() == b""
    if not none:                          # and that is known beforehand
        assert Request("POST", "http://h/", content=content, headers={"Content-Length": "3"}).wire().fields == b"Content-Length: 3\r\n"


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "HOST", "Trailer", "Authorization", "Set-Cookie", "Content-Type", "Content-Encoding",
                                  "Cache-Control", "Expect", "Range", "TE", "If-Match", "Connection", "Max-Forwards", "WWW-Authenticate"])
def test_what_no_trailer_may_say(name: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"{name} may not be sent as a trailer") as e:
        source(WithTrailers([("X-Ok", "1"), (name, "1")])).trailer_section()
    assert e.value.phase == "send"


@pytest.mark.parametrize("bad", [{"X": "a\r\nY: b"}, {"X Y": "a"}, {"X": "\0"}, {"": "a"}])
def test_trailers_split_nothing(bad: Any) -> None:
    with pytest.raises(LocalProtocolError):
        source(WithTrailers(bad)).trailer_section()


@pytest.mark.parametrize("bad", ["X: y", [("X",)], {"X": 5}, 5])
def test_wrong_trailers(bad: Any) -> None:
    with pytest.raises(TypeError):
        source(WithTrailers(bad)).trailer_section()


def test_a_length_that_the_source_does_not_fulfil() -> None:
    body = source(x for x in (b"abc", b"de"))
    body.length = 4
    taken = iter(body)
    assert next(taken) == b"abc"
    with pytest.raises(LocalProtocolError, match="longer than its Content-Length of 4") as e:
        next(taken)
    assert e.value.phase == "send"
    body = source(iter([b"abc"]))
    body.length = 4
    with pytest.raises(LocalProtocolError, match="1 bytes short"):
        list(body)


@pytest.mark.parametrize("bad", [io.StringIO("text"), {"a": 1}, 5, object(), ["text"], [b"a", 5]])
def test_wrong_content(bad: Any) -> None:
    with pytest.raises(TypeError):
        encode_content(bad)


def test_a_piece_that_is_no_bytes() -> None:
    with pytest.raises(TypeError, match="bytes-like"):
        list(source(iter([b"a", "b"])))


FORM, JSON = "application/x-www-form-urlencoded", "application/json"


@pytest.mark.parametrize(("given", "body", "kind"), [
    ({}, None, None),
    ({"content": b"x"}, b"x", None),
    ({"content": b""}, b"", None),
    ({"data": {"a": "b c", "d": [1, 2]}}, b"a=b+c&d=1&d=2", FORM),
    ({"data": [("a", 1), ("a", 2)]}, b"a=1&a=2", FORM),
    ({"data": {}}, b"", FORM),
    ({"data": "raw"}, b"raw", None),
    ({"json": {"a": [1, None, "ü"]}}, '{"a":[1,null,"ü"]}'.encode(), JSON),
    ({"json": []}, b"[]", JSON),
    ({"json": 0}, b"0", JSON),
    ({"json": "\ud800"}, b'"\\ud800"', JSON),
])
def test_arguments(given: dict[str, Any], body: bytes | None, kind: str | None) -> None:
    assert encode_body(given.get("content"), given.get("data"), given.get("json")) == (body, kind)


@pytest.mark.parametrize("pair", [("content", "data"), ("content", "json"), ("data", "json")])
def test_two_bodies(pair: tuple[str, str]) -> None:
    with pytest.raises(TypeError, match=f"{pair[0]} and {pair[1]}"):
        encode_body(*[b"x" if name in pair else None for name in ("content", "data", "json")])


def test_nan_is_no_json() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode_body(None, None, float("nan"))
