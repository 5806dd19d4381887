"""What h11 makes of a response, and what our parsers make of it, in one form that can be compared."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import h11

from pooledhttp._proto import testing
from pooledhttp._proto.fallback import Fallback
from pooledhttp.errors import RemoteProtocolError

Pairs = tuple[tuple[bytes, bytes], ...]
LIMIT = 1 << 20
ELEMENTS = {"header": 0, "crlf": 2, "trailer": 3}


@dataclass
class Answer:
    """`outcome`: "complete", "incomplete" (more bytes are needed) or "error"."""

    outcome: str = "incomplete"
    interim: list[tuple[int, Pairs]] = field(default_factory=list)
    status: int = 0
    version: bytes = b""
    reason: bytes = b""
    fields: Pairs = ()
    body: bytes = b""
    trailers: Pairs = ()
    leftover: bytes = b""
    # Not compared: how it came to it.
    error: str = field(default="", compare=False)
    handed: str = field(default="", compare=False)         # where the fast path handed over
    versions: list[bytes] = field(default_factory=list, compare=False)
    facts: dict[str, int] = field(default_factory=dict, compare=False)


def _pairs(items: Iterable[tuple[bytes, bytes]]) -> Pairs:
    # h11 lower-cases the transfer coding.
    return tuple((bytes(n), bytes(v).lower() if n.lower() == b"transfer-encoding" else bytes(v)) for n, v in items)


def _block_pairs(block: bytes) -> Pairs:
    lines = block.split(b"\r\n")[:-1]
    return _pairs((name, value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines))


def _h11_connection(method: bytes) -> Any:
    conn = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 30)
    conn.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    conn.send(h11.EndOfMessage())
    return conn


def h11_answer(method: bytes, wire: bytes, eof: bool) -> Answer:
    conn = _h11_connection(method)
    out = Answer()
    body = bytearray()
    try:
        for data in _pieces(wire, [], eof):
            conn.receive_data(data)
            while out.outcome == "incomplete":
                event = conn.next_event()
                if event is h11.NEED_DATA:
                    break
                if isinstance(event, h11.InformationalResponse):
                    out.interim.append((event.status_code, _pairs(event.headers.raw_items())))
                    out.versions.append(event.http_version)
                elif isinstance(event, h11.Response):
                    out.status, out.version, out.reason = event.status_code, event.http_version, bytes(event.reason)
                    out.fields = _pairs(event.headers.raw_items())
                    out.versions.append(event.http_version)
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    out.outcome, out.trailers = "complete", _pairs(event.headers.raw_items())
                    out.leftover = bytes(conn.trailing_data[0])
                else:
                    raise AssertionError(f"h11 said {event!r}")
    except h11.RemoteProtocolError as e:
        out.outcome, out.error = "error", str(e)
    out.body = bytes(body)
    return out


def _pieces(wire: bytes, splits: Iterable[int], eof: bool) -> list[bytes]:
    ends = [*splits, len(wire)]
    out = [p for p in (wire[a:b] for a, b in zip([0, *ends], ends, strict=False)) if p]
    return [*out, b""] if eof else out


def _run_fallback(fb: Fallback, pieces: list[bytes], out: Answer, in_body: bool) -> Answer:
    """Goes on with `out` by feeding `pieces` to `fb`."""
    body = bytearray(out.body)
    interim = len(out.interim)
    try:
        for piece in pieces:
            fb.feed(piece)
            if not in_body:
                head = fb.head()
                out.interim[interim:] = [(status, _block_pairs(block)) for status, block in fb.interim]
                if head is None:
                    continue
                in_body = True
                out.status, out.version, out.reason = head.status, b"1.%d" % head.minor, head.reason
                out.fields = _block_pairs(head.fields)
                out.facts = {k: int(getattr(head, k)) for k in
                             ("minor", "content_length", "chunked", "conn_close", "conn_keep_alive", "keep_alive_timeout", "until_close")}
            while out.outcome == "incomplete":
                data = fb.data()
                if data is None:
                    break
                if not data:
                    out.outcome, out.trailers, out.leftover = "complete", _pairs(fb.trailers), fb.leftover
                body += data
    except RemoteProtocolError as e:
        out.outcome, out.error = "error", str(e)
        out.interim[interim:] = [(status, _block_pairs(block)) for status, block in fb.interim]
    if out.outcome == "complete":
        out.leftover = fb.leftover
    out.body = bytes(body)
    return out


def fallback_answer(method: bytes, wire: bytes, splits: Iterable[int], eof: bool) -> Answer:
    """All of it by `Fallback`."""
    return _run_fallback(Fallback(method, LIMIT), _pieces(wire, splits, eof), Answer(), in_body=False)


def our_answer(method: bytes, wire: bytes, splits: Iterable[int], eof: bool, room: int = 1 << 16, in_place: bool = False) -> Answer:
    """By the fast path, and from where it hands over by `Fallback`. `room`: bytes that a chunked body is decoded into at once."""
    out = Answer()
    pieces = _pieces(wire, splits, eof)
    buf = b""
    scanned = 0
    facts: dict[str, int] | None = None
    decoder = testing.Decoder()
    for i, piece in enumerate(pieces):
        buf += piece
        while facts is None:
            said, facts, scanned = testing.head(buf, LIMIT, scanned)
            if said == "unsure":
                out.handed = "head"
                return _run_fallback(Fallback(method, LIMIT), [buf, *pieces[i + 1:]], out, in_body=False)
            if facts is None:
                break
            head, buf, scanned = buf[:facts["size"]], buf[facts["size"]:], 0
            fields = _block_pairs(head[facts["fields_off"]:facts["fields_off"] + facts["fields_len"]])
            if facts["status"] == 100:
                out.interim.append((100, fields))
                facts = None
                continue
            out.status, out.version, out.fields = facts["status"], b"1.%d" % facts["minor"], fields
            out.reason = head[facts["reason_off"]:facts["reason_off"] + facts["reason_len"]]
            out.facts = facts
            bodiless = method == b"HEAD" or facts["status"] in (204, 304)
            facts["until_close"] = int(not bodiless and not facts["chunked"] and facts["content_length"] < 0)
            if bodiless:
                out.outcome = "complete"
        if facts is None:
            if not piece and eof:
                out.outcome, out.error = "error", "the end in the head"
            continue
        if out.outcome == "complete":
            continue
        if facts["chunked"]:
            while True:
                said, used, data, buf = decoder.feed(buf, room, in_place)
                out.body += data
                if said != "more" or not used:
                    break
            if said == "ok":
                out.outcome = "complete"
            elif said == "unsure":
                out.handed = decoder.state
                fb = Fallback.resume_chunked(ELEMENTS[decoder.state], LIMIT)
                return _run_fallback(fb, [buf, *pieces[i + 1:]], out, in_body=True)
        else:
            take = len(buf) if facts["until_close"] else facts["content_length"] - len(out.body)
            out.body, buf = out.body + buf[:take], buf[take:]
            if len(out.body) == facts["content_length"]:
                out.outcome = "complete"
        if not piece and out.outcome == "incomplete":
            out.outcome = "complete" if facts["until_close"] else "error"
    if out.outcome == "complete":
        out.leftover = buf
    return out
