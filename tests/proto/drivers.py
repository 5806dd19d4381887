"""The same bytes through three readers: h11 alone, the fallback alone, and the compiled path that hands over where it is unsure."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import h11

from pooledhttp._proto.fallback import Fallback
from pooledhttp._proto.testing import MORE, OK, ChunkedDecoder, HeadParser
from pooledhttp.errors import RemoteProtocolError

Pairs = list[tuple[bytes, bytes]]


@dataclass
class Answer:
    """What a reader made of the bytes. `error` is the phase in which it refused them; `why` is not compared."""

    error: str = ""
    interim: list[tuple[int, Pairs]] = field(default_factory=list)
    status: int = 0
    minor: int = -1
    reason: bytes = b""
    fields: Pairs = field(default_factory=list)
    body: bytes = b""
    trailers: Pairs = field(default_factory=list)
    leftover: bytes = b""
    why: str = field(default="", compare=False)


@dataclass
class Facts:
    """What only ours says of a head."""

    content_length: int
    chunked: int
    conn_close: int
    conn_keep_alive: int
    keep_alive_timeout: int
    notes: int


def normal(pairs: Pairs) -> Pairs:
    """As h11 gives them: it writes a transfer coding in lower case."""
    return [(bytes(k), bytes(v).lower() if k.lower() == b"transfer-encoding" else bytes(v)) for k, v in pairs]


def parsed(block: bytes) -> Pairs:
    assert block == b"" or block.endswith(b"\r\n")
    lines = [line.partition(b":") for line in block.split(b"\r\n")[:-1]]
    return normal([(k, v.strip(b" \t")) for k, _, v in lines])


def by_h11(method: bytes, pieces: list[bytes]) -> Answer:
    answer = Answer()
    conn = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 24)
    conn.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"x")]))
    conn.send(h11.EndOfMessage())
    rest = iter(pieces)
    try:
        while True:
            event = conn.next_event()
            if event is h11.NEED_DATA:
                conn.receive_data(next(rest, b""))
            elif isinstance(event, h11.InformationalResponse):
                answer.interim.append((event.status_code, normal(event.headers.raw_items())))
            elif isinstance(event, h11.Response):
                answer.status = event.status_code
                answer.minor = int(event.http_version[-1:])
                answer.reason = bytes(event.reason)
                answer.fields = normal(event.headers.raw_items())
            elif isinstance(event, h11.Data):
                answer.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                answer.trailers = normal(event.headers.raw_items())
                break
            else:
                assert event is h11.PAUSED        # a CONNECT's tunnel
                break
    except h11.RemoteProtocolError as e:
        answer.error = "body" if answer.status else "headers"
        answer.why = str(e)
        return answer
    answer.leftover = conn.trailing_data[0] + b"".join(rest)
    return answer


def _body(answer: Answer, reader: Fallback, rest: Iterator[bytes]) -> None:
    while (piece := reader.data()) != b"":
        if piece is None:
            reader.feed(next(rest, b""))
        else:
            answer.body += piece
    answer.trailers = normal(reader.trailers)
    answer.leftover = reader.leftover + b"".join(rest)


def _whole(answer: Answer, reader: Fallback, rest: Iterator[bytes]) -> Facts:
    try:
        while (head := reader.head()) is None:
            reader.feed(next(rest, b""))
    finally:
        answer.interim += [(status, parsed(block)) for status, block in reader.interim]
    answer.status, answer.minor, answer.reason, answer.fields = head.status, head.minor, head.reason, parsed(head.fields)
    _body(answer, reader, rest)
    return Facts(head.content_length, head.chunked, head.conn_close, head.conn_keep_alive, head.keep_alive_timeout, head.notes)


def by_fallback(method: bytes, pieces: list[bytes], max_head: int = 1 << 20) -> tuple[Answer, Facts | None]:
    answer = Answer()
    try:
        return answer, _whole(answer, Fallback(method, max_head), iter(pieces))
    except RemoteProtocolError as e:
        assert e.phase is not None
        answer.error, answer.why = e.phase, str(e)
        return answer, None


def by_fast_path(method: bytes, pieces: list[bytes], max_head: int = 1 << 20) -> tuple[Answer, Facts | None, str]:
    """As the client reads: also says what was handed over ("head", "body" or "")."""
    answer, handed = Answer(), [""]
    try:
        return answer, _fast(answer, handed, method, iter(pieces), max_head), handed[0]
    except RemoteProtocolError as e:
        assert e.phase is not None
        answer.error, answer.why = e.phase, str(e)
        return answer, None, handed[0]


def _fast(answer: Answer, handed: list[str], method: bytes, rest: Iterator[bytes], max_head: int) -> Facts:
    data, parser = b"", HeadParser(max_head)
    while True:
        status = parser.parse(data)
        if status == MORE and (piece := next(rest, b"")):
            data += piece
            continue
        if status != OK:
            # Unsure, or the connection ended within the head: the fallback says what is wrong.
            handed[0] = "head"
            reader = Fallback(method, max_head)
            if data:
                reader.feed(data)
            return _whole(answer, reader, rest)
        f = parser.facts()
        fields = parsed(data[f["fields_off"]:f["fields_off"] + f["fields_len"]])
        reason = data[f["reason_off"]:f["reason_off"] + f["reason_len"]]
        data = data[f["size"]:]
        if f["status"] != 100:
            break
        answer.interim.append((100, fields))
        parser = HeadParser(max_head)
    answer.status, answer.minor, answer.reason, answer.fields = f["status"], f["minor"], reason, fields
    facts = Facts(f["content_length"], f["chunked"], f["conn_close"], f["conn_keep_alive"], f["keep_alive_timeout"], f["notes"])
    if method == b"HEAD" or f["status"] in (204, 304) or (method == b"CONNECT" and f["status"] < 300):
        answer.leftover = data + b"".join(rest)
    elif f["chunked"]:
        _fast_chunks(answer, handed, data, rest, max_head)
    elif f["content_length"] >= 0:
        while len(data) < f["content_length"] and (piece := next(rest, b"")):
            data += piece
        answer.body = data[:f["content_length"]]
        if len(answer.body) < f["content_length"]:
            raise RemoteProtocolError("truncated", phase="body")
        answer.leftover = data[f["content_length"]:] + b"".join(rest)
    else:
        answer.body = data + b"".join(rest)
    return facts


def _fast_chunks(answer: Answer, handed: list[str], data: bytes, rest: Iterator[bytes], max_head: int) -> None:
    decoder = ChunkedDecoder()
    while True:
        status, used, made = decoder.feed(data)
        answer.body += made
        data = data[used:]
        if status == OK:
            answer.leftover = data + b"".join(rest)
            return
        if status != MORE:
            handed[0] = "body"
            reader = Fallback.resume_chunked(decoder.state, max_head)
            if data:
                reader.feed(data)
            _body(answer, reader, rest)
            return
        piece = next(rest, b"")
        if not piece:
            raise RemoteProtocolError("truncated", phase="body")
        data += piece
