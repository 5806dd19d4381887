"""Server-sent events: the standard's rules as a table, and any split of the bytes gives the same events."""
from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pooledhttp
from pooledhttp import Client, MockTransport, Response, ResponseTooLarge, StreamConsumed
from pooledhttp.events import Event


def read(*pieces: bytes, limit: int = 1 << 20) -> list[Event]:
    return list(Response(200, headers={"Content-Type": "text/event-stream"}, content=iter(pieces)).iter_events(max_event_bytes=limit))


# The stream, and the events in it.
TABLE: list[tuple[bytes, list[Event]]] = [
    (b"", []),
    (b"data: hello\n\n", [Event("hello")]),
    (b"data: hello\r\n\r\n", [Event("hello")]),
    (b"data: hello\r\r", [Event("hello")]),
    (b"data: a\r\n\ndata: b\n\r\ndata: c\r\n\rdata: d\n\r", [Event("a"), Event("b"), Event("c"), Event("d")]),
    (b"data:no space\ndata:  two\ndata:\tone\n\n", [Event("no space\n two\n\tone")]),
    (b"data: a:b: c\n\n", [Event("a:b: c")]),
    (b"data\n\n", [Event("")]),
    (b"data:\n\n", [Event("")]),
    (b"data\ndata\n\n", [Event("\n")]),
    (b"data: \ndata: \ndata: x\n\n", [Event("\n\nx")]),
    (b"\n\n\ndata: a\n\n\n\n", [Event("a")]),
    (b": a comment\n:\n::data: x\ndata: a\n: another\n\n", [Event("a")]),
    (b" data: x\nDATA: x\ndata : x\nfoo: x\nfoo\ndata: a\n\n", [Event("a")]),
    (b"event: add\ndata: 1\n\ndata: 2\n\n", [Event("1", event="add"), Event("2")]),
    (b"event: a\nevent: b\ndata: 1\n\nevent:\ndata: 2\n\n", [Event("1", event="b"), Event("2")]),
    (b"event: lost\n\ndata: 1\n\n", [Event("1")]),
    (b"id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n\nid\ndata: d\n\n", [Event("a", id="1"), Event("b", id="1"), Event("c", id="2"), Event("d")]),
    (b"id: 7\n\ndata: a\n\n", [Event("a", id="7")]),
    (b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\nid: \0\ndata: c\n\n", [Event("a", id="1"), Event("b", id="1"), Event("c", id="1")]),
    (b"id: 1\nid: 2\ndata: a\n\n", [Event("a", id="2")]),
    (b"retry: 3000\ndata: a\n\ndata: b\n\n", [Event("a", retry=3000), Event("b")]),
    (b"retry: 10\n\ndata: a\n\n", [Event("a", retry=10)]),
    (b"retry: -1\ndata: a\n\nretry: 1.5\ndata: b\n\nretry: 1x\ndata: c\n\nretry:\ndata: d\n\nretry: \xd9\xa1\ndata: e\n\nretry: " + b"9" * 5000 +
     b"\ndata: f\n\n", [Event(c) for c in "abcdef"]),
    (b"\xef\xbb\xbfdata: a\n\n", [Event("a")]),
    (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\ndata: b\n\n", [Event("b")]),
    (b"data: a\n\n\xef\xbb\xbfdata: b\ndata: \xef\xbb\xbfc\n\n", [Event("a"), Event("\ufeffc")]),
    (b"data: \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\nevent: \xc3\xa9\nid: \xc3\xa9\n\n", [Event("é€😀", event="é", id="é")]),
    (b"data: \xff\xc3\ndata: \xe2\x82\n\n", [Event("\ufffd\ufffd\n\ufffd")]),
    (b"data: a\xe2\x80\xa8b\x0bc\x0cd\xc2\x85e\n\n", [Event("a\u2028b\x0bc\x0cd\x85e")]),
    (b"data: whole\n\ndata: cut off\n", [Event("whole")]),
    (b"data: whole\n\ndata: cut off", [Event("whole")]),
    (b"data: whole\n\nid: 9\nretry: 5\nevent", [Event("whole")]),
    (b"\xef\xbb", []),
]


@pytest.mark.parametrize(("stream", "events"), TABLE)
def test_the_rules(stream: bytes, events: list[Event]) -> None:
    assert read(stream) == events
    assert read(*[stream[i:i + 1] for i in range(len(stream))]) == events
    for at in range(1, min(len(stream), 60)):
        assert read(stream[:at], stream[at:]) == events
    coded = gzip.compress(stream)
    r = Response(200, headers={"Content-Encoding": "gzip"}, content=iter([coded[:20], coded[20:]]))
    assert list(r.iter_events()) == events


PART = st.sampled_from([b"data", b"data: x", b"data:", b": ", b"\r", b"\n", b"\r\n", b"\n\n", b"\r\r", b"event: e", b"id: 1", b"id", b"id: \0", b"retry: 1",
                        b"\xef\xbb\xbf", b"\xef", b"\xbb", b"\xbf", b"\xc3", b"\xa9", b"\xff", b" ", b"\0", b"x"])


def lines(text: str) -> list[str]:
    """As the standard's grammar cuts them; the last is what no line end follows."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def by_the_standard(stream: bytes) -> list[Event]:
    """The standard's algorithm, word by word, over the whole stream."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    data, kind, buffer, last, retry = "", "", "", "", None
    out = []
    for line in lines(text)[:-1]:
        if line == "":
            last = buffer
            if data == "":
                kind = ""
                continue
            out.append(Event(data.removesuffix("\n"), event=kind or "message", id=last, retry=retry))
            data, kind, retry = "", "", None
        elif line.startswith(":"):
            pass
        else:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "data":
                data += value + "\n"
            elif name == "id" and "\0" not in value:
                buffer = value
            elif name == "retry" and value.isascii() and value.isdigit():
                retry = int(value)
    return out


@given(st.lists(PART, max_size=40), st.lists(st.integers(0, 200), max_size=8))
def test_any_stream_in_any_pieces(parts: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(parts)
    at = sorted({min(cut, len(stream)) for cut in cuts})
    pieces = [stream[a:b] for a, b in zip([0, *at], [*at, len(stream)], strict=True)]
    assert read(*pieces) == by_the_standard(stream)


def test_an_event() -> None:
    e = Event('{"a": [1]}', event="add", id="5", retry=10)
    assert e.json() == {"a": [1]}
    assert e.json(parse_int=str) == {"a": ["1"]}
    assert pickle.loads(pickle.dumps(e)) == e
    assert hash(e) == hash(Event('{"a": [1]}', event="add", id="5", retry=10))
    assert e != Event('{"a": [1]}')
    assert e != "event"
    assert repr(e) == """Event('{"a": [1]}', event='add', id='5', retry=10)"""
    with pytest.raises(pooledhttp.JSONDecodeError) as err:
        Event("[DONE").json()
    assert isinstance(err.value, json.JSONDecodeError)


def test_what_is_needed_to_connect_again() -> None:
    pieces = iter([b"id: 1\nretry: 500\n\n", b"data: a\n\nid: 2\n", b"\nid: 3\ndata: cut off"])
    events = Response(200, content=pieces).iter_events()
    assert (events.last_event_id, events.retry) == ("", None)
    assert next(events) == Event("a", id="1", retry=500)
    assert (events.last_event_id, events.retry) == ("1", 500)
    assert list(events) == []
    assert (events.last_event_id, events.retry) == ("2", 500)


def endless(piece: bytes, counted: list[int]) -> Iterator[bytes]:
    while True:
        counted[0] += len(piece)
        yield piece


@pytest.mark.parametrize("piece", [b"x" * 1000, b"data: " + b"x" * 1000, b"data: x\n", b"data\n", b":" + b"x" * 3000])
def test_an_endless_event_ends(piece: bytes) -> None:
    counted = [0]

    def body() -> Iterator[bytes]:
        yield b"data: before\n\n"
        yield from endless(piece, counted)

    client = Client(transport=MockTransport(lambda request: Response(200, content=body())))
    with client.stream("GET", "http://h/events?token=1") as r:
        events = r.iter_events(max_event_bytes=100_000)
        assert next(events) == Event("before")
        with pytest.raises(ResponseTooLarge, match=r"max_event_bytes=100000 \(GET http://h/events\)$"):
            next(events)
        assert r.closed
    assert counted[0] < 300_000


@pytest.mark.parametrize(("stream", "fits"), [(b"data: 90\n\n", True), (b"data: 901\n\n", False), (b"data:1\r\ndata\r\n\r\n", False),
                                              (b"data\r\ndata\r\n\r\n", True),
                                              (b"data\n\ndata\n\ndata\n\n", True), (b": 6789012\n", False), (b": 678901\n", True), (b": 678\n" * 5, True)])
def test_the_limit_is_exact_however_it_is_cut(stream: bytes, fits: bool) -> None:
    for size in (1, 2, 3, 100):
        pieces = [stream[at:at + size] for at in range(0, len(stream), size)]
        if fits:
            read(*pieces, limit=8)
        else:
            with pytest.raises(ResponseTooLarge):
                read(*pieces, limit=8)


def test_events_before_one_that_is_too_long_are_given() -> None:
    events = Response(200, content=iter([b"data: 1\n\ndata: 2\n\ndata: 34567890\n\n"])).iter_events(max_event_bytes=8)
    assert [next(events).data, next(events).data] == ["1", "2"]
    with pytest.raises(ResponseTooLarge):
        next(events)


def test_a_body_in_memory_and_one_that_was_read() -> None:
    r = Response(200, content="data: é\n\n")
    assert [list(r.iter_events()) for _ in range(2)] == [[Event("é")]] * 2
    r = Response(200, content=iter([b"data: a\n\n"]))
    assert list(r.iter_events()) == [Event("a")]
    with pytest.raises(StreamConsumed):
        next(r.iter_events())
