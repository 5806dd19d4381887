"""Content codings undone: every decoder, whole and in pieces, and what it says of broken data."""
from __future__ import annotations

import gzip
import pickle
import random
import sys
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pooledhttp import Client, DecodingError, MockTransport, Request, Response, ResponseTooLarge, StreamConsumed, decoders, features

# Of everything: text, what does not compress, and more than the decoders' steps.
BODIES = [b"x", b"hello " * 20, random.Random(1).randbytes(1000), b"\0" * 500_000, random.Random(2).randbytes(150_000) + b"tail" * 50_000]


def raw_deflate(data: bytes) -> bytes:
    d = zlib.compressobj(wbits=-15)
    return d.compress(data) + d.flush()


def members(data: bytes) -> bytes:
    return gzip.compress(data[:7]) + gzip.compress(b"") + gzip.compress(data[7:])


def stored(data: bytes) -> bytes:
    d = zlib.compressobj(0, wbits=31)
    return d.compress(data) + d.flush()


def br(data: bytes) -> bytes:
    out: bytes = brotli.compress(data, quality=5)
    return out


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def zstd_frames(data: bytes) -> bytes:
    skippable = b"\x5a\x2a\x4d\x18\x03\0\0\0abc"
    stream = zstandard.ZstdCompressor().compressobj()           # a frame that does not say its size
    return skippable + zstd(data[:7]) + skippable + stream.compress(data[7:]) + stream.flush() + skippable


ENCODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip", gzip.compress),
    "gzip members": ("gzip", members),
    "gzip stored": ("gzip", stored),
    "gzip and padding": ("gzip", lambda data: gzip.compress(data) + bytes(700)),
    "gzip and noise": ("gzip", lambda data: gzip.compress(data) + b"\x1f"),
    "deflate": ("deflate", zlib.compress),
    "deflate raw": ("deflate", raw_deflate),
    "br": ("br", br),
    "zstd": ("zstd", zstd),
    "zstd frames": ("zstd", zstd_frames),
    "identity": ("identity", bytes),
    "nothing": (" , ", bytes),
    "gzip, br": ("gzip, br", lambda data: br(gzip.compress(data))),
    "br, zstd, deflate, identity, gzip": ("br, zstd, deflate,identity, ,GZIP", lambda data: gzip.compress(zlib.compress(zstd(br(data))))),
}
CODINGS = [name for name in ENCODERS if name not in ("identity", "nothing")]


@pytest.fixture(params=["brotli and backports.zstd", "brotlicffi and zstandard"])
def modules(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the modules that may be installed."""
    brotlis, _, frames = request.param.partition(" and ")
    if frames == "backports.zstd":
        try:
            import compression.zstd  # noqa: F401 - Python 3.14's own, whose backport it is
            frames = "compression.zstd"
        except ImportError:
            pass
    monkeypatch.setattr(decoders, "_modules", {"br": import_module(brotlis), "zstd": import_module(frames)})


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at:at + size] for at in range(0, len(data), size))


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("name", ENCODERS)
def test_every_coding(name: str) -> None:
    coding, encode = ENCODERS[name]
    for body in BODIES:
        coded = encode(body)
        headers = {"Content-Encoding": coding, "Content-Length": str(len(coded))}
        r = Response(200, headers=headers, content=coded)
        assert r.content == body
        assert r.headers["content-encoding"] == coding.strip()
        assert r.headers["content-length"] == str(len(coded))
        assert b"".join(r.iter_raw(1000)) == coded
        for size in (1, 3, 1000) if len(coded) < 3000 else (1000, 70_000):
            assert Response(200, headers=headers, content=cut(coded, size)).content == body
        pieces = list(Response(200, headers=headers, content=cut(coded, 9999)).iter_bytes(5000))
        assert b"".join(pieces) == body
        assert max(map(len, pieces)) <= 5000
        assert b"".join(Response(200, headers=headers, content=cut(coded, 9999)).iter_raw()) == coded


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("name", CODINGS)
def test_it_reads_as_a_file(name: str) -> None:
    coding, encode = ENCODERS[name]
    body = BODIES[4]
    r = Response(200, headers={"Content-Encoding": coding}, content=cut(encode(body), 4000))
    out = r.read(1) + r.read(100_000)
    buffer = bytearray(30_000)
    n = r.readinto(buffer)
    assert 0 < n <= 30_000
    out += buffer[:n]
    assert out == body[:100_001 + n]
    out += r.read()
    assert (out, r.read(5), r.readinto(buffer)) == (body, b"", 0)


def refused(coding: str, coded: bytes) -> None:
    """Broken, however it comes."""
    for content in (coded, cut(coded, 1)):
        with pytest.raises(DecodingError, match="ends within its|is broken") as e:
            _ = Response(200, headers={"Content-Encoding": coding}, content=content).content
        assert e.value.phase == "body"
        assert str(pickle.loads(pickle.dumps(e.value))) == str(e.value)


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("name", ["gzip", "gzip stored", "deflate", "deflate raw", "br", "zstd", "gzip, br", CODINGS[-1]])
def test_truncated(name: str) -> None:
    coding, encode = ENCODERS[name]
    coded = encode(BODIES[1])
    for n in {1, 2, 3, 5, len(coded) // 2, len(coded) - 9, len(coded) - 5, len(coded) - 1}:
        refused(coding, coded[:n])


@pytest.mark.usefixtures("modules")
def test_truncated_or_corrupt_in_a_later_member() -> None:
    for coding, encode, magic in (("gzip", gzip.compress, 2), ("zstd", zstd, 5)):
        one = encode(b"hello")
        for n in (magic, len(one) - 5, len(one) - 1):
            refused(coding, one + one[:n])
            refused(coding, one + one[:n] + b"\xff" * (len(one) - n))
    refused("zstd", zstd(b"hello") + b"\x50\x2a\x4d\x18\xff\xff\xff\xff" + b"short of what it says")


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, br"])
@pytest.mark.parametrize("junk", [b"this is not what it says that it is", b"\xff" * 100, b"\x1f\x8b\xff\xff" + bytes(60),
                                  b"\x28\xb5\x2f\xfd" + b"\xff" * 9])
def test_corrupt(coding: str, junk: bytes) -> None:
    request = Request("GET", "http://u:secret@h/p?token=1")
    with pytest.raises(DecodingError, match=r"coding.*\(GET http://h/p\)$") as e:
        Response(200, headers={"Content-Encoding": coding}, content=junk, request=request)
    assert e.value.request is request
    for size in (1, 7):
        r = Response(200, headers={"Content-Encoding": coding}, content=cut(junk, size))
        with pytest.raises(DecodingError):
            list(r.iter_bytes())
        assert r.closed


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("name", ["gzip", "deflate raw", "br", "zstd", "zstd frames", "gzip members"])
@given(data=st.data())
def test_bytes_changed_at_random_are_an_error_or_as_much_data(name: str, data: st.DataObject) -> None:
    coding, encode = ENCODERS[name]
    body = b"some text, and some more text, and more " * 30
    coded = bytearray(encode(body))
    for _ in range(data.draw(st.integers(1, 3))):
        coded[data.draw(st.integers(0, len(coded) - 1))] = data.draw(st.integers(0, 255))
    sizes = data.draw(st.sampled_from([1, 7, 1000]))
    outcomes = []
    for content in (bytes(coded), cut(bytes(coded), sizes)):
        r = None
        try:
            r = Response(200, headers={"Content-Encoding": coding}, content=content)
            r.check_size(10_000_000)
            outcomes.append(r.content)
        except (DecodingError, ResponseTooLarge) as e:
            outcomes.append(type(e))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, zstd"])
@pytest.mark.parametrize("content", [b"", []])
def test_an_empty_body_is_empty_in_any_coding(coding: str, content: Any) -> None:
    r = Response(200, headers={"Content-Encoding": coding}, content=content)
    assert (r.content, list(r.iter_raw()), r.read()) == (b"", [], b"")


@pytest.mark.parametrize("coding", ["compress", "gzip, aes128gcm", "snappy, gzip", "*", "gzip;q=1"])
def test_an_unknown_coding_is_left_as_it_is(coding: str) -> None:
    coded = gzip.compress(b"hello")
    assert Response(200, headers={"Content-Encoding": coding}, content=coded).content == coded
    assert Response(200, headers={"Content-Encoding": coding}, content=iter([coded])).content == coded


def test_codings_in_several_fields_are_one_list() -> None:
    coded = brotli.compress(gzip.compress(b"hello"))
    r = Response(200, headers=[("Content-Encoding", "gzip"), ("X", "y"), ("content-encoding", "br")], content=coded)
    assert r.text == "hello"


def test_a_part_of_a_coded_body_is_left_as_it_is() -> None:
    part = gzip.compress(b"hello" * 100)[10:20]
    assert Response(206, headers={"Content-Encoding": "gzip", "Content-Range": "bytes 10-19/50"}, content=part).content == part


def test_too_many_codings() -> None:
    coded = b"x"
    for _ in range(6):
        coded = gzip.compress(coded)
    with pytest.raises(DecodingError, match="6 content codings, and at most 5"):
        Response(200, headers={"Content-Encoding": ", ".join(["gzip"] * 6)}, content=coded)
    assert Response(200, headers={"Content-Encoding": ", ".join(["gzip"] * 5)}, content=gzip.decompress(coded)).content == b"x"


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(("coding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstd)])
def test_what_follows_the_end_is_passed_over_up_to_a_limit(coding: str, encode: Callable[[bytes], bytes]) -> None:
    for content in (encode(b"hello") + b"\n" * 65536, cut(encode(b"hello") + b"\n" * 65536, 3000)):
        assert Response(200, headers={"Content-Encoding": coding}, content=content).content == b"hello"
    for content in (encode(b"hello") + b"\n" * 65537, cut(encode(b"hello") + b"\n" * 65537, 3000)):
        with pytest.raises(DecodingError, match="65536 bytes behind"):
            _ = Response(200, headers={"Content-Encoding": coding}, content=content).content


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("content", [brotli.compress(b"hello") + b"more", [brotli.compress(b"hello"), b"more"]])
def test_nothing_follows_the_end_of_br(content: Any) -> None:
    with pytest.raises(DecodingError, match="br coding is broken"):
        _ = Response(200, headers={"Content-Encoding": "br"}, content=content).content


@pytest.mark.usefixtures("modules")
def test_a_zstd_frame_that_wants_much_memory_is_refused() -> None:
    # RFC 9659: 8 MiB is the most that a coded body may ask us to keep.
    params = zstandard.ZstdCompressionParameters.from_level(3, window_log=24)
    big = zstandard.ZstdCompressor(compression_params=params).compress(random.Random(3).randbytes(1 << 24))
    with pytest.raises(DecodingError, match="memory"):
        Response(200, headers={"Content-Encoding": "zstd"}, content=big)


def test_text_and_lines_are_of_the_decoded_body() -> None:
    text = "één\r\ntwee\rdrie\n\u2028vier"
    coded = gzip.compress(text.encode("utf-8"))
    headers = {"Content-Encoding": "gzip", "Content-Type": "text/plain; charset=utf-8"}
    for size in (1, 2, 1000):
        def made(size: int = size) -> Response:
            return Response(200, headers=headers, content=cut(coded, size))
        assert made().text == text
        assert "".join(made().iter_text(1)) == text
        assert list(made().iter_lines(1)) == ["één", "twee", "drie", "\u2028vier"]
    assert Response(200, headers=headers, content=gzip.compress(b'{"a": 1}')).json() == {"a": 1}


def test_what_was_on_the_wire_is_kept_where_it_came_whole() -> None:
    coded = gzip.compress(b"hello")
    r = Response(200, headers={"Content-Encoding": "gzip"}, content=coded)
    assert (list(r.iter_raw()), list(r.iter_raw()), r.content) == ([coded], [coded], b"hello")
    travelled = pickle.loads(pickle.dumps(r))
    assert (travelled.content, travelled.text, list(travelled.iter_bytes())) == (b"hello", "hello", [b"hello"])
    assert travelled.headers["content-encoding"] == "gzip"
    streamed = Response(200, headers={"Content-Encoding": "gzip"}, content=iter([coded]))
    assert streamed.read() == b"hello"
    for one in (travelled, streamed):
        with pytest.raises(StreamConsumed, match="is not kept"):
            list(one.iter_raw())
    part = Response(200, headers={"Content-Encoding": "gzip"}, content=iter([coded]))
    assert part.read(2) == b"he"
    with pytest.raises(StreamConsumed, match="in part"):
        list(part.iter_raw())
    plain = Response(200, content=iter([b"hello"]))
    assert plain.read(2) == b"he"
    assert list(plain.iter_raw()) == [b"llo"]


# --- what is asked for ------------------------------------------------------------------------------------------------------

def asked(client: dict[str, Any] | None = None, **options: Any) -> str | None:
    c = Client(transport=MockTransport(lambda request: Response(200)), **client or {})
    request = c.get("http://h/", **options).request
    assert request is not None
    value: str | None = request.headers.get("accept-encoding")
    return value


def test_accept_encoding() -> None:
    every = "gzip, deflate, br, zstd"
    assert asked() == every
    assert asked(headers={"X": "y"}) == every
    assert asked(headers={"accept-ENCODING": "gzip"}) == "gzip"
    assert asked(headers={"Accept-Encoding": None}) is None
    assert asked(headers={"Range": "bytes=0-9"}) is None
    assert asked(headers={"range": "bytes=0-9", "Accept-Encoding": "br"}) == "br"
    assert asked({"headers": {"accept-encoding": "identity"}}) == "identity"
    assert asked({"headers": {"Accept-Encoding": None}}) is None
    assert asked({"headers": {"Accept-Encoding": None}}, headers={"Accept-Encoding": "gzip"}) == "gzip"
    c = Client(transport=MockTransport(lambda request: Response(200)), headers={"Accept-Encoding": None})
    assert "accept-encoding" not in pickle.loads(pickle.dumps(Client(headers={"Accept-Encoding": None}))).build_request("GET", "http://h/").headers
    c.headers = {}  # type: ignore[assignment]
    assert c.build_request("GET", "http://h/").headers["accept-encoding"] == every
    mine = Request("GET", "http://h/")
    assert c.send(mine).request.headers["accept-encoding"] == every  # type: ignore[union-attr]
    assert "accept-encoding" not in mine.headers


def test_a_mounted_transport_may_want_nothing_coded() -> None:
    class AsIs(MockTransport):
        disable_compression = True

    plain = AsIs(lambda request: Response(200))
    c = Client(transport=MockTransport(lambda request: Response(200)), mounts={"http://raw": plain})
    assert c.build_request("GET", "http://h/").headers["accept-encoding"] == "gzip, deflate, br, zstd"
    assert "accept-encoding" not in c.build_request("GET", "http://raw/").headers
    assert "accept-encoding" not in c.send(Request("GET", "http://raw/")).request.headers  # type: ignore[union-attr]


@pytest.mark.parametrize(("there", "says", "shown"), [
    ({"br": None, "zstd": None}, "gzip, deflate", (False, False)),
    ({"br": brotli, "zstd": None}, "gzip, deflate, br", (f"brotli {brotli.__version__}", False)),
    ({"br": None, "zstd": zstandard}, "gzip, deflate, zstd", (False, f"zstandard {zstandard.__version__}"))])
def test_only_what_is_there_is_asked_for_and_undone(monkeypatch: pytest.MonkeyPatch, there: dict[str, Any], says: str, shown: tuple[Any, Any]) -> None:
    monkeypatch.setattr(decoders, "_modules", there)
    monkeypatch.setattr(decoders, "_accepted", "")
    assert asked() == says
    assert (features()["brotli"], features()["zstd"]) == shown
    assert str(features()["gzip"]).startswith("zlib 1.")
    for name, coded in (("br", brotli.compress(b"hello")), ("zstd", zstd(b"hello"))):
        got = Response(200, headers={"Content-Encoding": name}, content=coded).content
        assert got == (b"hello" if there[name] else coded)
    assert Response(200, headers={"Content-Encoding": "gzip"}, content=gzip.compress(b"hello")).content == b"hello"


def test_a_brotli_that_cannot_be_bounded_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        class Decompressor:
            def process(self, data: bytes) -> bytes:
                return data

    for old, used in (({"brotli": Old}, "brotlicffi"), ({"brotli": Old, "brotlicffi": Old}, None)):
        with monkeypatch.context() as patch:
            patch.setattr(decoders, "_modules", {})
            for name, module in old.items():
                patch.setitem(sys.modules, name, module)
            found = decoders._brotli()
            assert (found.__name__ if found else None) == used
