"""multipart/form-data: what each part says of itself, and that no name gets out of its quotes."""
from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooledhttp import LocalProtocolError, Request
from pooledhttp._conn.connection import FilePiece
from pooledhttp.content import PIECE, BodySource
from pooledhttp.multipart import MultipartBody, encode_multipart

KIND = "multipart/form-data; boundary=b"


def made(files: Any, data: Any = None) -> bytes:
    """The body, with the boundary `b`."""
    body, kind = encode_multipart(files, data, KIND)
    assert kind == KIND
    assert body is not None
    return body if isinstance(body, bytes) else b"".join(body)


def one(value: Any, name: str = "f") -> bytes:
    """The only part, without its boundaries."""
    body = made({name: value})
    assert body.startswith(b"--b\r\n") and body.endswith(b"\r\n--b--\r\n")
    return body[5:-9]


class Named(io.BytesIO):
    def __init__(self, data: bytes, name: Any) -> None:
        super().__init__(data)
        self.name = name


def form(rest: str, kind: str | None = None) -> bytes:
    return f"Content-Disposition: form-data; {rest}\r\n".encode() + (f"Content-Type: {kind}\r\n".encode() if kind else b"") + b"\r\n"


OCTETS = "application/octet-stream"
PARTS = [
    (b"x", form('name="f"; filename="f"', OCTETS) + b"x"),
    ("ü", form('name="f"; filename="f"', OCTETS) + "ü".encode()),
    (bytearray(b"x"), form('name="f"; filename="f"', OCTETS) + b"x"),
    (io.BytesIO(b"x"), form('name="f"; filename="f"', OCTETS) + b"x"),
    (Named(b"x", "dir/in.dir/a.txt"), form('name="f"; filename="a.txt"', "text/plain") + b"x"),
    (Named(b"x", b"dir/a.png"), form('name="f"; filename="a.png"', "image/png") + b"x"),
    (Named(b"x", 5), form('name="f"; filename="f"', OCTETS) + b"x"),
    (Named(b"x", "<stdin>"), form('name="f"; filename="f"', OCTETS) + b"x"),
    (Named(b"x", "dir/"), form('name="f"; filename="f"', OCTETS) + b"x"),
    (("a.html", b"x"), form('name="f"; filename="a.html"', "text/html") + b"x"),
    (["a.html", b"x"], form('name="f"; filename="a.html"', "text/html") + b"x"),
    (("a.tar.gz", b"x"), form('name="f"; filename="a.tar.gz"', "application/gzip") + b"x"),
    (("a.tar.Z", b"x"), form('name="f"; filename="a.tar.Z"', OCTETS) + b"x"),
    (("dir/a.unheard-of", b"x"), form('name="f"; filename="dir/a.unheard-of"', OCTETS) + b"x"),
    ((Path("a.html"), b"x"), form('name="f"; filename="a.html"', "text/html") + b"x"),
    ((b"\xff.html", b"x"), b'Content-Disposition: form-data; name="f"; filename="\xff.html"\r\nContent-Type: text/html\r\n\r\nx'),
    (("", b"x"), form('name="f"; filename=""', OCTETS) + b"x"),
    ((None, b"x"), form('name="f"') + b"x"),
    ((None, "x", "application/json"), form('name="f"', "application/json") + b"x"),
    (("a", b"x", "image/webp"), form('name="f"; filename="a"', "image/webp") + b"x"),
    (("a.html", b"x", None), form('name="f"; filename="a.html"', "text/html") + b"x"),
    (("a", b"x", "image/webp", {"X-Id": "7", "x-two": "é"}),
     form('name="f"; filename="a"', "image/webp")[:-2] + b"X-Id: 7\r\nx-two: \xe9\r\n\r\nx"),
    (("a", b"x", "image/webp", [("content-type", "image/png")]), form('name="f"; filename="a"')[:-2] + b"content-type: image/png\r\n\r\nx"),
    (("a", b"x", None, {b"Content-Disposition": b"attachment"}), b"Content-Type: application/octet-stream\r\nContent-Disposition: attachment\r\n\r\nx"),
    (("a", [b"x", b"y"]), form('name="f"; filename="a"', OCTETS) + b"xy"),
    (("a", iter([b"x", b"", b"y"])), form('name="f"; filename="a"', OCTETS) + b"xy"),
    (("a", b""), form('name="f"; filename="a"', OCTETS)),
]


@pytest.mark.parametrize(("value", "part"), PARTS, ids=lambda v: "" if isinstance(v, bytes) else repr(v)[:60])
def test_a_file(value: Any, part: bytes) -> None:
    assert one(value) == part


# WHATWG: U+0022, CR and LF are escaped, "%" is not; ours: other controls, and the backslash that would escape the closing quote.
QUOTED = [('a"b', "a%22b"), ("a\rb\nc\r\nd", "a%0Db%0Ac%0D%0Ad"), ("100%22", "100%22"), ("a\0\t\x7f\x1b", "a%00%09%7F%1B"), ("ü€😀.txt", "ü€😀.txt"),
          ("a;b=c, d", "a;b=c, d"), ("a\\b", "a\\b"), ("a\\", "a%5C"), ("a\\\\", "a\\%5C"), ("\\", "%5C"), ('\\"', "\\%22"),
          ("../../etc/passwd", "../../etc/passwd"),
          ("\u2028\x85", "\u2028\x85"), ("", "")]


@pytest.mark.parametrize(("text", "quoted"), QUOTED)
def test_names_stay_in_their_quotes(text: str, quoted: str) -> None:
    assert one((text, b"", "x/y"), name=text) == form(f'name="{quoted}"; filename="{quoted}"', "x/y")
    assert made([("f", (None, b""))], {text: "v"}).startswith(b"--b\r\n" + form(f'name="{quoted}"') + b"v\r\n--b\r\n")


def test_a_file_whose_name_is_no_text(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\xfe.txt"
    with open(path, "wb+") as file:
        assert b'; filename="\xff\xfe.txt"\r\nContent-Type: text/plain' in one(file)
    with open(os.fsdecode(path), "rb") as file:
        assert b'; filename="\xff\xfe.txt"\r\nContent-Type: text/plain' in one(file)


@given(st.text(max_size=12), st.text(max_size=12))
def test_whatever_the_names_there_is_one_part(name: str, filename: str) -> None:
    try:
        body = made({name: (filename, b"content", "x/y")})
    except LocalProtocolError as e:
        assert "surrogate" in str(e)
        return
    head, _, rest = body.partition(b"\r\n\r\n")
    assert rest == b"content\r\n--b--\r\n"
    assert head.count(b"\r\n") == head.count(b"\n") == head.count(b"\r") == 2
    assert head.split(b"\r\n")[1].count(b'"') == 4
    assert b'\\"' not in head


FIELDS = {"text": "ü", "bytes": b"\xff", "n": 5, "x": 1.5, "yes": True, "no": False, "many": ["a", 2, None], "none": None, "empty": ""}


@pytest.mark.parametrize("data", [FIELDS, list(FIELDS.items()), iter(list(FIELDS.items()))], ids=["mapping", "pairs", "iterator"])
def test_fields_come_before_the_files(data: Any) -> None:
    body = made([("one", b"1"), ("one", ("b", b"2"))], data)
    wanted = [("text", None, "ü".encode()), ("bytes", None, b"\xff"), ("n", None, b"5"), ("x", None, b"1.5"), ("yes", None, b"true"), ("no", None, b"false"),
              ("many", None, b"a"), ("many", None, b"2"), ("empty", None, b""), ("one", "one", b"1"), ("one", "b", b"2")]
    assert read(body, KIND) == wanted


def read(body: bytes, kind: str) -> list[tuple[Any, Any, bytes]]:
    """(name, filename, content) of each part, as Python's own parser reads them."""
    message = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    assert not message.defects
    return [(p.get_param("name", header="content-disposition"), p.get_filename(), p.get_payload(decode=True)) for p in message.get_payload()]


def test_the_boundary_is_random_or_the_callers() -> None:
    bodies = [encode_multipart({"f": b"x"}) for _ in range(2)]
    kinds = [kind or "" for _, kind in bodies]
    assert kinds[0] != kinds[1]
    for body, kind in bodies:
        assert body is not None and kind is not None and kind.startswith("multipart/form-data; boundary=")
        assert len(kind.partition("=")[2]) == 32
        assert read(bytes(body), kind) == [("f", "f", b"x")]
    given_ = 'Multipart/Mixed; charset=x; Boundary="a b?:/()=" ; y=z'
    body, kind = encode_multipart({"f": b"x"}, None, given_)
    assert kind == given_ and isinstance(body, bytes) and body.startswith(b"--a b?:/()=\r\n") and body.endswith(b"\r\n--a b?:/()=--\r\n")


@pytest.mark.parametrize(("given_", "sent"), [("multipart/mixed", "multipart/mixed; boundary="), ("multipart/form-data; ", "multipart/form-data; boundary="),
                                              ("multipart/form-data; x=y", "multipart/form-data; x=y; boundary=")])
def test_a_content_type_without_its_boundary_gets_one(given_: str, sent: str) -> None:
    request = Request("POST", "http://h/", files={"f": b"x"}, headers={"X": "1", "content-type": given_, "Y": "2"})
    assert [name for name, _ in request.headers.multi_items()] == ["X", "content-type", "Y", "Content-Length"]
    kind = request.headers["Content-Type"]
    assert kind.startswith(sent)
    assert read(request.content, kind) == [("f", "f", b"x")]


def test_another_content_type_is_the_callers_own_affair() -> None:
    assert Request("POST", "http://h/", files={"f": b"x"}, headers={"Content-Type": "application/x"}).headers["Content-Type"] == "application/x"


@pytest.mark.parametrize("boundary", ["", "a" * 71, '"a b "', 'a\\b', "a\r\nX: y", "ü", '"a', "a\0"])
def test_boundaries_that_are_none(boundary: str) -> None:
    with pytest.raises(LocalProtocolError, match="boundary"):
        Request("POST", "http://h/", files={"f": b"x"}, headers={"Content-Type": f"multipart/form-data; boundary={boundary}"})


@pytest.mark.parametrize("value", [("a", b"", "x/y\r\nX: y"), ("a", b"", "x\0"), ("a", b"", None, {"X\r\nY": "z"}), ("a", b"", None, {"X": "z\r\n\r\nbody"}),
                                   ("a", b"", None, {"": "z"}), ("a", b"", None, {"X:": "z"}), ("\ud800", b"")])
def test_what_would_break_a_part_is_refused(value: Any) -> None:
    with pytest.raises(LocalProtocolError):
        Request("POST", "http://h/", files={"f": value})


@pytest.mark.parametrize(("given_", "problem"), [
    ({"files": b"x"}, "mapping or"), ({"files": "x"}, "mapping or"), ({"files": 5}, "mapping or"), ({"files": [b"x"]}, "pairs"),
    ({"files": ["ab", "cd", "efg"]}, "."),
    ({"files": {"f": None}}, "NoneType"), ({"files": {"f": 5}}, "int"), ({"files": {"f": {"a": 1}}}, "mapping"), ({"files": {5: b"x"}}, "name"),
    ({"files": {"f": ("a",)}}, "1 values"), ({"files": {"f": ("a", b"", "x/y", {}, 1)}}, "5 values"), ({"files": {"f": (5, b"")}}, "PathLike|path"),
    ({"files": {"f": ("a", b"", 5)}}, "Content-Type"), ({"files": {"f": ("a", b"", None, "X: y")}}, "headers"), ({"files": {"f": io.StringIO("x")}}, "binary"),
    ({"files": {"f": ("a", iter(["text"]))}}, "bytes-like"),
    ({"files": {"f": b""}, "content": b""}, "content and files"), ({"files": {"f": b""}, "json": {}}, "json and files"),
    ({"files": {"f": b""}, "data": b"raw"}, "beside files"), ({"files": {"f": b""}, "data": "a=b"}, "beside files"),
    ({"files": {"f": b""}, "data": io.BytesIO()}, "beside files"), ({"files": {"f": b""}, "data": {"g": io.BytesIO()}}, "files="),
    ({"data": {"g": io.BytesIO()}}, "files="), ({"params": {"g": io.BytesIO()}}, "files="),
])
def test_wrong_arguments(given_: dict[str, Any], problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        Request("POST", "http://h/", **given_).read()


def test_closed_files_are_heard_of_at_once() -> None:
    file = io.BytesIO(b"x")
    file.close()
    for given_ in ({"files": {"f": file}}, {"content": file}):
        with pytest.raises(ValueError, match="closed"):
            Request("POST", "http://h/", **given_)  # type: ignore[arg-type]


@pytest.mark.parametrize("none", [{}, [], (), iter(())])
def test_no_files_are_as_if_not_given(none: Any) -> None:
    request = Request("POST", "http://h/", files=none, data={"a": 1})
    assert (request.content, request.headers["content-type"]) == (b"a=1", "application/x-www-form-urlencoded")
    assert Request("POST", "http://h/", files=none).content == b""
    assert Request("POST", "http://h/", files=none, json=[]).content == b"[]"


# --- lengths, pieces, again ---

class Reader:
    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    def read(self, n: int) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


def test_the_length_is_known_where_every_parts_is(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 70_000)
    with path.open("rb") as file:
        file.seek(10)
        known = Request("POST", "http://h/", data={"a": "b"}, files={"f": file, "g": b"y" * PIECE})
        assert isinstance(known.body, MultipartBody)
        assert int(known.headers["Content-Length"]) == known.body.length == sum(map(len, known.body))
        unknown = Request("POST", "http://h/", data={"a": "b"}, files={"f": file, "g": Reader(b"y")})
        assert "Content-Length" not in unknown.headers
        assert isinstance(unknown.body, BodySource) and unknown.body.length is None
        assert not [piece for piece in unknown.body.sendable() if isinstance(piece, FilePiece)]        # no part of a file in a chunk


def test_large_files_go_from_the_kernel_and_small_parts_together(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(os.urandom(100_000))
    with paths[0].open("rb") as a, paths[1].open("rb") as b:
        request = Request("POST", "http://h/", data=[("n", i) for i in range(100)], files=[("a", a), ("b", b), ("c", b"c")])
        assert isinstance(request.body, MultipartBody)
        kinds = [piece.size if isinstance(piece, FilePiece) else bytes for piece in request.body.sendable()]
        assert kinds == [bytes, 100_000, bytes, 100_000, bytes]
        read_ = b"".join(request.body)
        assert [content for _, _, content in read(read_, request.headers["Content-Type"])][100:] == [paths[0].read_bytes(), paths[1].read_bytes(), b"c"]


def test_small_parts_in_memory_are_bytes() -> None:
    body, _ = encode_multipart({"f": b"x"}, {"a": "b"})
    assert isinstance(body, bytes)
    body, _ = encode_multipart({"f": b"x" * PIECE})
    assert isinstance(body, MultipartBody)


def test_a_hundred_megabytes_are_never_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with path.open("wb") as new:
        new.truncate(100 << 20)
    largest = total = 0
    with path.open("rb") as file:
        body = Request("POST", "http://h/", files={"f": file}).body
        assert isinstance(body, BodySource)
        for piece in body:
            largest, total = max(largest, sys.getsizeof(piece)), total + len(piece)
    assert total == body.length and largest <= PIECE + 100


def test_it_is_sent_again_from_where_each_file_stood(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(path.name.encode() * 1000)
    with paths[0].open("rb") as a, paths[1].open("rb") as b:
        a.seek(400)
        body, _ = encode_multipart([("a", a), ("b", b), ("again", a), ("l", ("x", [b"1", b"2"]))], None, KIND)
        assert isinstance(body, BodySource)
        first = b"".join(body)
        assert [content for *_, content in read(first, KIND)] == [b"a" * 600, b"b" * 1000, b"a" * 600, b"12"]
        assert body.rewind()
        assert b"".join(body) == first
        taken = iter(body)
        next(taken), next(taken)                 # left in the middle
        assert body.rewind()
        assert b"".join(body) == first
        b.close()
        assert not body.rewind()


@pytest.mark.parametrize("once", [Reader(b"x"), iter([b"x"])], ids=["reader", "iterator"])
def test_what_is_sent_once_keeps_the_whole_from_going_again(once: Any) -> None:
    body, _ = encode_multipart({"a": io.BytesIO(b"y"), "f": ("x", once)})
    assert isinstance(body, BodySource)
    assert body.rewind()
    assert b"x" in b"".join(body)
    assert not body.rewind()


def test_a_part_that_is_shorter_than_it_was(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 100)
    with path.open("rb", buffering=0) as file:
        body, _ = encode_multipart({"f": file, "g": b"y"})
        assert isinstance(body, BodySource)
        os.truncate(path, 60)
        with pytest.raises(LocalProtocolError, match="40 bytes short"):
            list(body)


def pieces() -> Iterator[bytes]:
    yield b"x"
    raise LookupError("mine")


def test_a_part_that_fails() -> None:
    body, _ = encode_multipart({"f": ("a", pieces())})
    assert isinstance(body, BodySource)
    with pytest.raises(LookupError, match="mine"):
        list(body)
