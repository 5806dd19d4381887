"""Bodies: what they are made of, how often they can be sent, and a length that holds."""
from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pooledhttp import LocalProtocolError, StreamConsumed
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
