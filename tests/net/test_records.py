"""Where TLS records end, followed through bytes in any pieces: as a reader of the framing says, and nothing outside the bytes is read."""
from __future__ import annotations

import pytest

from pooledhttp._net.testing import RecordFramer
from tests.proto.guard import guarded


def record(kind: int, size: int) -> bytes:
    return bytes((kind, 3, 3)) + size.to_bytes(2, "big") + bytes(size)


# Bytes, how many records end in them (what is no record counts as one, by its header), and how many bytes of an unfinished one they close with.
STREAMS = [
    (b"", 0, 0),
    (record(23, 1), 1, 0),
    (record(22, 100) + record(20, 1) + record(23, 300), 3, 0),
    (record(23, 18432), 1, 0),
    (record(23, 18432)[:-1], 0, 18436),
    (record(21, 2) + b"\x17\x03", 1, 2),
    (record(23, 0), 1, 0),
    (record(19, 5)[:5] + record(25, 5)[:5], 2, 0),
    (b"\x17\x03\x03\x48\x01", 1, 0),
    (b"HTTP/1.1 400 Bad", 3, 1),
]


@pytest.mark.parametrize(("raw", "ended", "partial"), STREAMS)
def test_records_are_followed_in_any_pieces(raw: bytes, ended: int, partial: int) -> None:
    with guarded(6) as memory:
        for cut in range(0, len(raw) + 1, 1 if len(raw) < 1000 else 997):
            framer = RecordFramer()
            assert sum(framer.follow_at(memory.at_end(piece), len(piece)) for piece in (raw[:cut], raw[cut:])) == ended
            assert framer.partial == partial
        framer = RecordFramer()
        assert sum(framer.follow_at(memory.at_end(bytes((byte,))), 1) for byte in raw) == ended
        assert framer.partial == partial
