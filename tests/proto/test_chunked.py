"""The compiled chunked decoder: plain chunks are decoded, in place too, and h11 can go on from wherever it hands over."""
from __future__ import annotations

import ctypes

import pytest

from pooledhttp._proto import fallback
from pooledhttp._proto.fallback import Fallback
from pooledhttp._proto.testing import (
    CK_CRLF,
    CK_DATA,
    CK_DONE,
    CK_HEADER,
    CK_TRAILER,
    MORE,
    OK,
    UNSURE,
    ChunkedDecoder,
)
from pooledhttp.errors import RemoteProtocolError

from .guard import guarded

PLAIN = [
    (b"0\r\n\r\n", b""),
    (b"0000\r\n\r\n", b""),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"5\r\nhello\r\n06\r\n world\r\n0\r\n\r\n", b"hello world"),
    (b"aB\r\n" + b"x" * 0xab + b"\r\n0\r\n\r\n", b"x" * 0xab),
    (b"0000000000000002\r\nok\r\n0\r\n\r\n", b"ok"),
    (b"2;a\r\n\r\n\r\n2;b=c;d=\"e f\";g\r\n0\n\r\n0;z=\"\"\r\n\r\n", b"\r\n0\n"),
    (b"1000\r\n" + bytes(range(256)) * 16 + b"\r\n0\r\n\r\n", bytes(range(256)) * 16),
]

# Odd bytes, the element at whose start the decoder stops, how many bytes are before it, and what h11 says of it: data or no.
ODD: list[tuple[bytes, int, int, bytes | None]] = [
    (b"\r\n", CK_HEADER, 0, None),
    (b"x\r\n", CK_HEADER, 0, None),
    (b"-5\r\nhello\r\n0\r\n\r\n", CK_HEADER, 0, None),
    (b"+5\r\nhello\r\n0\r\n\r\n", CK_HEADER, 0, None),
    (b"0x5\r\nhello\r\n0\r\n\r\n", CK_HEADER, 0, None),
    (b" 5\r\nhello\r\n0\r\n\r\n", CK_HEADER, 0, None),
    (b"5 \r\nhello\r\n0\r\n\r\n", CK_HEADER, 0, b"hello"),
    (b"5\nhello\r\n0\r\n\r\n", CK_HEADER, 0, None),
    (b"5\r5\r\nhello\r\n0\r\n\r\n", CK_HEADER, 0, None),
    (b"5; a\r\nhello\r\n0\r\n\r\n", CK_HEADER, 0, b"hello"),
    (b"5;\r\nhello\r\n0\r\n\r\n", CK_HEADER, 0, b"hello"),
    (b"5;a=\r\nhello\r\n0\r\n\r\n", CK_HEADER, 0, b"hello"),
    (b"5;a=\"\\\"\"\r\nhello\r\n0\r\n\r\n", CK_HEADER, 0, b"hello"),
    (b"5;a=\"\\x\"\r\nhello\r\n0\r\n\r\n", CK_HEADER, 0, b"hello"),
    (b"5;a=\"b\"c\r\nhello\r\n0\r\n\r\n", CK_HEADER, 0, b"hello"),
    (b"5;a=\xe9\r\nhello\r\n0\r\n\r\n", CK_HEADER, 0, b"hello"),
    (b"5;a=\"\xe9\"\r\nhello\r\n0\r\n\r\n", CK_HEADER, 0, b"hello"),
    (b"5;a\nb\r\nhello\r\n0\r\n\r\n", CK_HEADER, 0, None),
    (b"5;a\rb\r\nhello\r\n0\r\n\r\n", CK_HEADER, 0, None),
    (b"5;a\x00\r\nhello\r\n0\r\n\r\n", CK_HEADER, 0, None),
    (b"00000000000000005\r\nhello\r\n0\r\n\r\n", CK_HEADER, 0, b"hello"),
    (b"8000000000000000\r\nhello", CK_HEADER, 0, None),
    (b"ffffffffffffffff\r\nhello", CK_HEADER, 0, None),
    (b"10000000000000005\r\nhello", CK_HEADER, 0, None),
    (b"5\r\nhello\r\nx\r\n", CK_HEADER, 10, None),
    (b"5\r\nhello!\r\n0\r\n\r\n", CK_CRLF, 8, None),
    (b"5\r\nhello\n0\r\n\r\n", CK_CRLF, 8, None),
    (b"5\r\nhello\r0\r\n\r\n", CK_CRLF, 8, None),
    (b"5\r\nhello\r\n0\r\nA: b\r\n\r\n", CK_TRAILER, 13, b""),
    (b"5\r\nhello\r\n0\r\n\n", CK_TRAILER, 13, b""),
    (b"5\r\nhello\r\n0\r\n\rx", CK_TRAILER, 13, None),
    (b"5\r\nhello\r\n0\r\n5\r\nhello\r\n0\r\n\r\n", CK_TRAILER, 13, None),
]


def test_the_elements_have_the_same_numbers() -> None:
    assert (fallback.CK_HEADER, fallback.CK_DATA, fallback.CK_CRLF, fallback.CK_TRAILER) == (CK_HEADER, CK_DATA, CK_CRLF, CK_TRAILER)


def drive(pieces: list[bytes], cap: int = -1) -> tuple[int, bytes, bytes, ChunkedDecoder]:
    """Status, decoded bytes and what was not consumed, of bytes that come in `pieces`, at most `cap` decoded a call."""
    decoder = ChunkedDecoder()
    pending, out, status = b"", b"", MORE
    for piece in pieces:
        pending += piece
        while True:
            status, used, made = decoder.feed(pending, cap)
            pending = pending[used:]
            out += made
            if status != MORE or not (len(made) == cap and pending):
                break
        if status != MORE:
            break
    return status, out, pending, decoder


@pytest.mark.parametrize(("raw", "body"), PLAIN)
def test_plain_chunks(raw: bytes, body: bytes) -> None:
    status, out, rest, decoder = drive([raw + b"HTTP/1.1"])
    assert (status, out, rest, decoder.state) == (OK, body, b"HTTP/1.1", CK_DONE)
    assert decoder.feed(b"more") == (OK, 0, b"")


@pytest.mark.parametrize(("raw", "body"), PLAIN)
def test_every_split(raw: bytes, body: bytes) -> None:
    for n in range(len(raw)):
        status, out, rest, _ = drive([raw[:n]])
        assert status == MORE and body.startswith(out)
        assert drive([raw[:n], raw[n:]])[:3] == (OK, body, b"")
    assert drive([raw[i:i + 1] for i in range(len(raw))])[:3] == (OK, body, b"")


@pytest.mark.parametrize("cap", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(("raw", "body"), PLAIN)
def test_a_small_room(raw: bytes, body: bytes, cap: int) -> None:
    assert drive([raw], cap)[:3] == (OK, body, b"")


def test_no_room_at_all_still_ends() -> None:
    decoder = ChunkedDecoder()
    assert decoder.feed(b"2\r\nok\r\n0\r\n\r\n", 2) == (OK, 12, b"ok")
    decoder = ChunkedDecoder()
    assert decoder.feed(b"2\r\nok\r\n", 0) == (MORE, 3, b"")
    assert (decoder.state, decoder.left) == (CK_DATA, 2)


@pytest.mark.parametrize("ahead", [0, 1, 5])
@pytest.mark.parametrize(("raw", "body"), PLAIN)
def test_in_place(raw: bytes, body: bytes, ahead: int) -> None:
    for cut in range(len(raw)):
        # As a connection does it: `made` decoded bytes, `kept` raw ones behind, then what arrives next.
        buffer = bytearray(b"#" * ahead)
        decoder = ChunkedDecoder()
        made = at = 0
        at = ahead
        status = MORE
        for piece in (raw[:cut], raw[cut:]):
            buffer += piece
            status, used, n = decoder.feed_in_place(buffer, made, at)
            made += n
            at += used
        assert status == OK
        assert bytes(buffer[:made]) == body
        assert at == len(buffer)


@pytest.mark.parametrize(("raw", "element", "before", "more"), ODD)
def test_what_is_odd_is_handed_over_at_its_first_byte(raw: bytes, element: int, before: int, more: bytes | None) -> None:
    for pieces in ([raw], [raw[i:i + 1] for i in range(len(raw))], *([raw[:n], raw[n:]] for n in range(len(raw)))):
        decoder = ChunkedDecoder()
        pending, status, consumed, out = b"", MORE, 0, b""
        rest = list(pieces)
        while status == MORE and rest:
            pending += rest.pop(0)
            status, used, made = decoder.feed(pending)
            pending = pending[used:]
            consumed += used
            out += made
        assert (status, decoder.state, consumed) == (UNSURE, element, before)
        assert out == (b"hello" if before else b"")
        goes_on = Fallback.resume_chunked(decoder.state, 4096)
        goes_on.feed(raw[consumed:])
        if more is None:
            with pytest.raises(RemoteProtocolError) as e:
                while goes_on.data():
                    pass
                goes_on.feed(b"")
                goes_on.data()
            assert e.value.phase == "body"
        else:
            got = b""
            while piece := goes_on.data():
                got += piece
            assert (piece, got, goes_on.leftover) == (b"", more, b"")


def test_resuming_gives_trailers_and_what_follows() -> None:
    decoder = ChunkedDecoder()
    raw = b"2\r\nok\r\n0\r\nDigest: x\r\nA: b\r\n c\r\n\r\nnext"
    status, used, out = decoder.feed(raw)
    assert (status, out, decoder.state) == (UNSURE, b"ok", CK_TRAILER)
    goes_on = Fallback.resume_chunked(decoder.state, 4096)
    goes_on.feed(raw[used:])
    assert goes_on.data() == b""
    assert goes_on.trailers == [(b"Digest", b"x"), (b"A", b"b c")]
    assert goes_on.leftover == b"next"


def test_a_header_line_is_limited() -> None:
    fits = b"1;" + b"a" * (4096 - 4) + b"\r\n"
    assert len(fits) == 4096
    assert ChunkedDecoder().feed(fits + b"x\r\n0\r\n\r\n")[::2] == (OK, b"x")
    assert ChunkedDecoder().feed(fits[:-1]) == (MORE, 0, b"")
    over = fits[:-2] + b"a\r\n"
    assert ChunkedDecoder().feed(over) == (UNSURE, 0, b"")
    # In pieces it is as unsure, as soon as no line of 4096 bytes can come of it.
    assert ChunkedDecoder().feed(over[:4095]) == (MORE, 0, b"")
    assert ChunkedDecoder().feed(over[:4096]) == (UNSURE, 0, b"")


def test_the_largest_size() -> None:
    decoder = ChunkedDecoder()
    assert decoder.feed(b"7fffffffffffffff\r\nx") == (MORE, 19, b"x")
    assert decoder.left == 2**63 - 2


def test_nothing_outside_the_bytes_is_touched() -> None:
    with guarded() as memory:
        for raw in [raw for raw, _ in PLAIN] + [raw for raw, *_ in ODD]:
            for n in range(0, len(raw) + 1, 1 if len(raw) < 300 else 97):
                part = raw[:n]
                want = ChunkedDecoder().feed(part)
                for put in (memory.at_end, memory.at_start):
                    status, used, made = ChunkedDecoder().feed_at(put(part), n)
                    assert (status, used, made) == (want[0], want[1], len(want[2]))


def test_nothing_outside_either_memory_is_touched() -> None:
    with guarded() as source, guarded() as target:
        for raw in [raw for raw, _ in PLAIN if len(raw) < 300] + [raw for raw, *_ in ODD]:
            for cut in range(len(raw) + 1):
                for room in (1, 2, len(raw)):
                    ours, theirs = ChunkedDecoder(), ChunkedDecoder()
                    pending, status = b"", MORE
                    for piece in (raw[:cut], raw[cut:]):
                        pending += piece
                        more = True
                        while more and status == MORE:
                            status, used, out = theirs.feed(pending, room)
                            into = target.at_end(bytes(room))
                            assert ours.feed_at(source.at_end(pending), len(pending), into, room) == (status, used, len(out))
                            assert ctypes.string_at(into, len(out)) == out
                            pending = pending[used:]
                            more = len(out) == room and pending != b""
