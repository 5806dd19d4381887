"""The chunked decoder: all splits, little room, in place, and where it stops when it is not sure."""
from __future__ import annotations

import pytest

from pooledhttp._proto import testing
from tests.proto.guard import PAGE, guarded

BODY = b"hello wide world, and all that is in it"


def chunk(data: bytes, ext: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), ext, data)


PLAIN: dict[str, tuple[bytes, bytes]] = {
    "nothing": (b"0\r\n\r\n", b""),
    "one": (chunk(BODY) + b"0\r\n\r\n", BODY),
    "three": (chunk(b"abc") + chunk(b"d") + chunk(b"efghijklmnopqrstu") + b"0\r\n\r\n", b"abcdefghijklmnopqrstu"),
    "bytes": (b"".join(chunk(bytes([i])) for i in BODY) + b"0\r\n\r\n", BODY),
    "upper case": (b"1A\r\n" + b"x" * 26 + b"\r\n0\r\n\r\n", b"x" * 26),
    "leading zeros": (b"00000000000000a\r\n0123456789\r\n0000000000000000\r\n\r\n", b"0123456789"),
    "data like framing": (chunk(b"\r\n0\r\n\r\n") + chunk(b"\r") + chunk(b"\n") + b"0\r\n\r\n", b"\r\n0\r\n\r\n\r\n"),
    "extensions": (chunk(b"ab", b";a") + chunk(b"cd", b";a=b;c") + chunk(b"ef", b';a="b;c=\'d,(e)";f') + b'0;x=y\r\n\r\n', b"abcdef"),
    "empty quoted": (chunk(b"ab", b';a=""') + b"0\r\n\r\n", b"ab"),
    "longest line": (chunk(b"ab", b";" + b"x" * (4096 - 4)) + b"0\r\n\r\n", b"ab"),
}

# Name: bytes, the body before the stop, the offset of the stop, the element at the stop.
ODD: dict[str, tuple[bytes, bytes, int, str]] = {
    "no size": (b"\r\nabc", b"", 0, "header"),
    "not hex": (b"xyz\r\n", b"", 0, "header"),
    "sign": (b"+5\r\n", b"", 0, "header"),
    "minus": (b"-5\r\n", b"", 0, "header"),
    "0x": (b"0x5\r\nhello\r\n", b"", 0, "header"),
    "blank first": (b" 5\r\n", b"", 0, "header"),
    "blank behind": (b"5 \r\nhello\r\n", b"", 0, "header"),
    "blank before the extension": (b"5 ;a\r\nhello\r\n", b"", 0, "header"),
    "17 digits": (b"00000000000000005\r\n", b"", 0, "header"),
    "2**63": (b"8000000000000000\r\n", b"", 0, "header"),
    "2**64 + 5": (b"10000000000000005\r\n", b"", 0, "header"),
    "all F": (b"ffffffffffffffff\r\n", b"", 0, "header"),
    "bare LF behind the size": (b"5\nhello\r\n", b"", 0, "header"),
    "bare CR behind the size": (b"5\rhello\r\n", b"", 0, "header"),
    "empty extension": (b"5;\r\nhello\r\n", b"", 0, "header"),
    "no extension value": (b"5;a=\r\nhello\r\n", b"", 0, "header"),
    "blank in an extension": (b"5;a =b\r\nhello\r\n", b"", 0, "header"),
    "blank quoted": (b'5;a="b c"\r\nhello\r\n', b"", 0, "header"),
    "escape": (b'5;a="\\""\r\nhello\r\n', b"", 0, "header"),
    "unclosed quote": (b'5;a="b\r\nhello\r\n', b"", 0, "header"),
    "text behind a quote": (b'5;a="b"c\r\nhello\r\n', b"", 0, "header"),
    "CR in a quote": (b'5;a="b\rc"\r\nhello\r\n', b"", 0, "header"),
    "LF in an extension": (b"5;a\nb\r\nhello\r\n", b"", 0, "header"),
    "NUL in an extension": (b"5;a\0\r\nhello\r\n", b"", 0, "header"),
    "obs-text in an extension": (b"5;\xe9\r\nhello\r\n", b"", 0, "header"),
    "line too long": (b"5;" + b"x" * 4093 + b"\r\nhello\r\n", b"", 0, "header"),
    "endless line": (b"5;" + b"x" * 9000, b"", 0, "header"),
    "odd second header": (chunk(b"abc") + b"zz\r\n", b"abc", 8, "header"),
    "data too long": (b"3\r\nabcd\r\n", b"abc", 6, "crlf"),
    "data too short": (b"3\r\nab\r\n0\r\n\r\n", b"ab\r", 6, "crlf"),
    "bare LF behind data": (b"3\r\nabc\n0\r\n\r\n", b"abc", 6, "crlf"),
    "CR CR behind data": (b"3\r\nabc\r\r\n", b"abc", 6, "crlf"),
    "trailer": (chunk(b"abc") + b"0\r\nA: b\r\n\r\n", b"abc", 11, "trailer"),
    "trailer behind nothing": (b"0\r\nA: b\r\n\r\n", b"", 3, "trailer"),
    "bare LF at the end": (b"0\r\n\n", b"", 3, "trailer"),
    "CR and another": (b"0\r\n\rx", b"", 3, "trailer"),
}

plain = pytest.mark.parametrize(("wire", "body"), PLAIN.values(), ids=PLAIN.keys())
odd = pytest.mark.parametrize(("wire", "body", "stop", "state"), ODD.values(), ids=ODD.keys())


def splits_of(wire: bytes) -> list[list[int]]:
    """Whole, byte by byte, and in two pieces (at the ends of a long wire)."""
    two = [i for i in range(len(wire)) if i < 100 or i > len(wire) - 100 or i % 97 == 0]
    return [[], two, *([i] for i in two)]


@plain
@pytest.mark.parametrize("in_place", [False, True])
def test_however_it_is_split(wire: bytes, body: bytes, in_place: bool) -> None:
    for splits in splits_of(wire):
        for behind in (b"", b"HTTP/1.1 200 OK\r\n"):
            assert testing.decode(wire + behind, splits, in_place=in_place) == ("ok", body, len(wire), "done", 0)


@plain
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("cap", [1, 2, 3, 7])
def test_little_room(wire: bytes, body: bytes, cap: int, in_place: bool) -> None:
    for splits in splits_of(wire)[:40]:
        assert testing.decode(wire, splits, cap, in_place) == ("ok", body, len(wire), "done", 0)
        assert testing.decode(wire, splits, cap, True, before=5) == ("ok", body, len(wire), "done", 0)


@plain
def test_no_part_of_it_ends_it(wire: bytes, body: bytes) -> None:
    for i in range(len(wire)):
        status, got, at, state, _ = testing.decode(wire[:i])
        assert status == "more" and state != "done"
        assert body.startswith(got)
        # Only an unfinished line stays.
        assert state == "data" and at == i or at <= i and b"\r\n" not in wire[at:i]


def test_no_room_at_all() -> None:
    d = testing.Decoder()
    assert d.feed(b"3\r\nabc\r\n", 0) == ("more", 3, b"", b"abc\r\n")
    assert (d.state, d.left) == ("data", 3)
    assert d.feed(b"abc\r\n", 2) == ("more", 2, b"ab", b"c\r\n")
    assert d.feed(b"c\r\n", 1) == ("more", 3, b"c", b"")
    # Framing needs no room.
    assert d.feed(b"0\r\n\r\n", 0) == ("ok", 5, b"", b"")
    assert d.feed(b"more", 9) == ("ok", 0, b"", b"more")


def test_full_with_nothing_left() -> None:
    d = testing.Decoder()
    assert d.feed(b"3\r\nabc\r\n0\r\n\r\nX", 3) == ("ok", 13, b"abc", b"X")


def test_in_place_moves_and_does_not_overtake() -> None:
    wire = b"".join(chunk(bytes([i]) * n) for i, n in enumerate((1, 30, 2, 17, 16, 1, 255))) + b"0\r\n\r\n"
    whole = testing.decode(wire)[1]
    for before in (0, 1, 40):
        for end in range(len(wire) + 1):
            d = testing.Decoder()
            _, used, out, kept = d.feed(wire[:end], len(wire), in_place=True, before=before)
            assert whole.startswith(out)
            assert kept == wire[used:end]


def test_large_sizes() -> None:
    d = testing.Decoder()
    assert d.feed(b"7fffffffffffffff\r\nab", 9) == ("more", 20, b"ab", b"")
    assert (d.state, d.left) == ("data", 2**63 - 3)


def test_a_line_that_must_become_too_long_is_not_waited_for() -> None:
    line = b"5;" + b"x" * 4093
    assert testing.Decoder().feed(line, 0)[:2] == ("more", 0)
    assert testing.Decoder().feed(line + b"x", 0)[:2] == ("unsure", 0)


@odd
@pytest.mark.parametrize("in_place", [False, True])
def test_stops_at_the_start_of_what_is_odd(wire: bytes, body: bytes, stop: int, state: str, in_place: bool) -> None:
    for splits in splits_of(wire):
        for cap in (2, 1 << 16):
            assert testing.decode(wire, splits, cap, in_place) == ("unsure", body, stop, state, 0)


def test_every_byte_in_a_header() -> None:
    hexdigits = b"0123456789abcdefABCDEF"
    for c in range(256):
        status, used, _, _ = testing.Decoder().feed(b"%c\r\n" % c, 0)
        assert (status, used) == (("more", 3) if c in hexdigits else ("unsure", 0))
        status, used, _, _ = testing.Decoder().feed(b"1;%c\r\n" % c, 0)
        assert (status, used) == (("more", 5) if chr(c) in "!#$%&'*+-.^_`|~" or (c < 128 and chr(c).isalnum()) else ("unsure", 0))
        status, used, _, _ = testing.Decoder().feed(b'1;a="%c"\r\n' % c, 0)
        assert (status, used) == (("more", 9) if 33 <= c <= 126 and c not in b'"\\' else ("unsure", 0))


@pytest.mark.parametrize("wire", [*(w for w, _ in PLAIN.values()), *(o[0] for o in ODD.values())])
def test_never_reads_past_the_end(wire: bytes) -> None:
    with guarded() as memory:
        for i in range(min(len(wire), PAGE) + 1):
            if 300 < i < 3900:
                continue
            there = testing.Decoder().feed(wire[:i], 1 << 16)[:3]
            assert testing.feed_at(memory.at_end(wire[:i]), i, 1 << 16) == there
