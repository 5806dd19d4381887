"""Whatever bytes, in whatever pieces: the fast path gives h11's answer, or hands over; and behind it `Fallback` gives h11's answer,
or stands on one of the rules in which we are stricter. docs/parser.md names these rules, and so does `STRICTER`.
"""
from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pooledhttp._proto import testing
from pooledhttp._proto.fallback import Fallback
from pooledhttp.errors import RemoteProtocolError
from tests.proto.answers import ELEMENTS, LIMIT, Answer, fallback_answer, h11_answer, our_answer
from tests.proto.corpus import CASES, SERVERS, SNIPPETS, Case

DOC = Path(__file__).resolve().parents[2] / "docs" / "parser.md"
BOUNDED = settings(max_examples=300, deadline=None, derandomize=True, database=None,
                   suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much])


def _names(answer: Answer) -> list[bytes]:
    return [name.lower() for name, _ in answer.fields]


def _odd_version(answer: Answer) -> bool:
    return not set(answer.versions) <= {b"1.0", b"1.1"}


def _bad_sooner(method: bytes, wire: bytes, theirs: Answer) -> bool:
    # h11 only waits for the end of the head, and would refuse it then (or take a version that we do not).
    ended = h11_answer(method, wire + b"\r\n\r\n", False)
    return theirs.outcome == "incomplete" and (ended.outcome == "error" or _odd_version(ended))


# Name: what our error says, and what then must be true of h11's answer.
STRICTER: dict[str, tuple[str, Callable[[bytes, bytes, Answer], bool]]] = {
    "version": ("bad status line", lambda method, wire, theirs: _odd_version(theirs)),
    "early-start": ("bad status line", _bad_sooner),
    "length-and-coding": ("both Content-Length and Transfer-Encoding",
                          lambda method, wire, theirs: {b"content-length", b"transfer-encoding"} <= set(_names(theirs))),
    "coding-in-1.0": ("Transfer-Encoding in an HTTP/1.0 response",
                      lambda method, wire, theirs: theirs.version == b"1.0" and b"transfer-encoding" in _names(theirs)),
    "length-overflow": ("Content-Length '", lambda method, wire, theirs: any(
        name.lower() == b"content-length" and (len(value) > 19 or int(value) >= 2**63) for name, value in theirs.fields)),
    "interim-limit": ("interim responses", lambda method, wire, theirs: len(theirs.interim) > 32),
}


def rule(method: bytes, wire: bytes, ours: Answer, theirs: Answer) -> str:
    """The name of the rule by which `ours` is an error where h11's answer is none."""
    for name, (text, holds) in STRICTER.items():
        if text in ours.error and holds(method, wire, theirs):
            return name
    pytest.fail(f"stricter than h11 by no rule: {ours.error!r}\n{method!r} {wire!r}\nh11: {theirs}")


def compare(method: bytes, wire: bytes, ours: Answer, theirs: Answer) -> str | None:
    """The rule's name where we are stricter; None where the answers are the same."""
    if ours.outcome == "error" and theirs.outcome == "error":
        return None
    if ours.outcome == "error" and ours.handed != "":
        return rule(method, wire, ours, theirs)
    assert ours == theirs, f"{method!r} {wire!r}"
    return None


def check(case: Case, splits: list[int], room: int = 1 << 16, in_place: bool = False) -> Answer:
    theirs = h11_answer(case.method, case.wire, case.eof)
    ours = our_answer(case.method, case.wire, splits, case.eof, room, in_place)
    compare(case.method, case.wire, ours, theirs)
    alone = fallback_answer(case.method, case.wire, splits, case.eof)
    alone.handed = "all"
    compare(case.method, case.wire, alone, theirs)
    if alone.facts and ours.facts:
        assert {name: ours.facts[name] for name in alone.facts} == alone.facts
    return ours


def ways(wire: bytes) -> list[list[int]]:
    return [[], list(range(1, len(wire))), *([i] for i in range(1, len(wire), 1 + len(wire) // 40)), list(range(1, len(wire), 7))]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_corpus(case: Case) -> None:
    for splits in ways(case.wire):
        ours = check(case, splits, room=3 if len(splits) % 2 else 1 << 16, in_place=len(splits) % 3 == 0)
        assert (ours.handed == "") is case.plain, ours.handed


def test_names_are_unique() -> None:
    assert len({c.name for c in CASES}) == len(CASES)


def test_the_rules_are_those_of_the_document_and_all_met() -> None:
    met = set()
    for case in CASES:
        theirs = h11_answer(case.method, case.wire, case.eof)
        ours = fallback_answer(case.method, case.wire, [], case.eof)
        ours.handed = "all"
        met.add(compare(case.method, case.wire, ours, theirs))
    assert met - {None} == set(STRICTER)
    # Limits are tests of their own: h11 has none that would compare.
    assert set(re.findall(r"^\| `([a-z0-9.-]+)` \|", DOC.read_text(), re.MULTILINE)) == {*STRICTER, "head-limit", "line-limit"}


@pytest.mark.parametrize("case", [c for c in CASES if b"chunked\r\n\r\n" in c.wire], ids=lambda c: c.name)
def test_resumed_at_every_element(case: Case) -> None:
    """h11 goes on from each place at which the decoder could have handed over, and ends as it would have from the start."""
    body = case.wire[case.wire.index(b"chunked\r\n\r\n") + 11:]
    whole = our_answer(b"GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body, [], case.eof)
    seen = set()
    decoder, at, before = testing.Decoder(), 0, b""
    while True:
        if decoder.state in ELEMENTS:
            seen.add(decoder.state)
            for splits in ([], list(range(1, len(body) - at))):
                fb = Fallback.resume_chunked(ELEMENTS[decoder.state], LIMIT)
                outcome, got = _drive(fb, body[at:], splits, case.eof)
                assert (outcome, before + got) == (whole.outcome, whole.body)
                if outcome == "complete":
                    assert (tuple(fb.trailers), fb.leftover) == (whole.trailers, whole.leftover)
        # One step: to the next element at most, by the least room and bytes.
        state, left = decoder.state, decoder.left
        for end in range(at, len(body) + 1):
            said, used, out, _ = decoder.feed(body[at:end], 1)
            if said != "more" or used:
                break
        at += used
        before += out
        if said != "more" or (decoder.state, decoder.left, used) == (state, left, 0):
            break
    assert "header" in seen
    if whole.outcome == "complete" and not whole.handed:
        assert "trailer" in seen and ("crlf" in seen) is bool(whole.body)


def test_limits_that_h11_leaves_to_its_user() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    long_head = head[:-2] + b"X: " + b"y" * 5000 + b"\r\n\r\n"
    for end in (len(long_head), len(long_head) - 1):
        fb = Fallback(b"GET", 4096)
        with pytest.raises(RemoteProtocolError, match="head is over the limit of 4096 bytes") as head_limit:
            fb.feed(long_head[:end])
            fb.head()
        assert head_limit.value.phase == "headers"
    assert testing.head(long_head, 4096)[0] == "unsure"
    for element, start in (("header", b"5;" + b"x" * 30000), ("trailer", b"X: " + b"y" * 30000)):
        assert testing.Decoder(element).feed(start, 9)[0] == "unsure"
        fb = Fallback.resume_chunked(ELEMENTS[element], 4096)
        with pytest.raises(RemoteProtocolError, match="trailers or a chunk header are over the limit") as line_limit:
            fb.feed(start)
            fb.data()
        assert line_limit.value.phase == "body"


def _drive(fb: Fallback, wire: bytes, splits: list[int], eof: bool) -> tuple[str, bytes]:
    got = b""
    ends = [*splits, len(wire)]
    pieces = [p for p in (wire[a:b] for a, b in zip([0, *ends], ends, strict=False)) if p]
    outcome = "incomplete"
    try:
        for piece in [*pieces, *([b""] if eof else [])]:
            fb.feed(piece)
            while outcome == "incomplete":
                data = fb.data()
                if data is None:
                    break
                if not data:
                    outcome = "complete"
                got += data
    except RemoteProtocolError as e:
        assert e.phase == "body"
        return "error", got
    return outcome, got


# --- generated --------------------------------------------------------------------------------------------------------------

_token = st.text("abcXYZ019-_!", min_size=1, max_size=8).map(str.encode)
_value = st.binary(max_size=12).map(lambda b: bytes(c for c in b if c == 9 or (c >= 32 and c != 127)))
_field = st.one_of(
    st.builds(lambda n, v: n + b": " + v, _token, _value),
    st.sampled_from([b"Connection: close", b"Connection: keep-alive", b"Connection:x , Close", b"Keep-Alive: timeout=5",
                     b"Keep-Alive: max=3,timeout=07",
                     b'Keep-Alive: timeout="', b"Content-Length: 3", b"content-length:0", b"Transfer-Encoding: chunked",
                     b"transfer-encoding:\tCHUNKED ", b"Content-Length: 3,3", b"X: a\r\n b", b"Upgrade: h2c"]))
_start = st.sampled_from([b"HTTP/1.1 200 OK"] * 6 + [b"HTTP/1.0 200 OK", b"HTTP/1.1 404", b"HTTP/1.1 204 ", b"HTTP/1.1 304 Not Modified",
                                                     b"HTTP/1.1 100 Continue", b"HTTP/1.1 103 X", b"HTTP/1.1 700 X", b"HTTP/1.2 200 OK"])
_chunk = st.builds(lambda data, ext: b"%x%b\r\n%b\r\n" % (len(data), ext, data), st.binary(min_size=1, max_size=20),
                   st.sampled_from([b"", b"", b"", b";a", b";a=b", b' ; a="b c"', b';a="b"']))
_chunks = st.builds(lambda chunks, end: b"".join(chunks) + end, st.lists(_chunk, max_size=4),
                    st.sampled_from([b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b""]))


@st.composite
def _responses(draw: st.DrawFn) -> bytes:
    wire = b""
    for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
        wire += b"".join(line + b"\r\n" for line in (draw(_start), *draw(st.lists(_field, max_size=5)), b""))
    return wire + draw(st.one_of(_chunks, st.binary(max_size=12)))


@st.composite
def _mutated(draw: st.DrawFn, wires: st.SearchStrategy[bytes]) -> bytes:
    wire = draw(wires)
    for _ in range(draw(st.integers(0, 3))):
        a = draw(st.integers(0, len(wire)))
        b = min(len(wire), a + draw(st.sampled_from([0, 0, 1, 1, 2, 7])))
        wire = wire[:a] + draw(st.one_of(st.sampled_from(SNIPPETS), st.just(b""), st.binary(min_size=1, max_size=1))) + wire[b:]
    return wire


def _generated(wires: st.SearchStrategy[bytes]) -> st.SearchStrategy[tuple[Case, list[int], int, bool]]:
    @st.composite
    def build(draw: st.DrawFn) -> tuple[Case, list[int], int, bool]:
        wire = draw(wires)
        cuts = draw(st.one_of(st.just(list(range(1, len(wire)))), st.lists(st.integers(1, max(1, len(wire) - 1)), max_size=6)))
        method = draw(st.sampled_from([b"GET", b"GET", b"POST", b"HEAD"]))
        case = Case("generated", wire, method=method, eof=draw(st.booleans()))
        return case, sorted(set(cuts)), draw(st.sampled_from([1, 5, 1 << 16])), draw(st.booleans())

    return build()


@BOUNDED
@given(_generated(_mutated(_responses())))
def test_generated_responses(one: tuple[Case, list[int], int, bool]) -> None:
    check(*one)


@BOUNDED
@given(_generated(_mutated(st.sampled_from([c.wire for c in CASES if len(c.wire) < 1000]))))
def test_mutated_corpus(one: tuple[Case, list[int], int, bool]) -> None:
    check(*one)


def test_every_single_mutation_of_what_servers_send() -> None:
    """Each byte left out, doubled, or replaced by each odd one: counted, so that the test shows that it tests."""
    decided = handed = stricter = 0
    for case in SERVERS:
        for i in range(len(case.wire)):
            for new in (b"", case.wire[i:i + 1] * 2, b"\r", b"\n", b"\0", b" ", b":", b"\x80"):
                wire = case.wire[:i] + new + case.wire[i + 1:]
                theirs = h11_answer(case.method, wire, case.eof)
                ours = our_answer(case.method, wire, [], case.eof)
                name = compare(case.method, wire, ours, theirs)
                decided += not ours.handed
                handed += bool(ours.handed)
                stricter += name is not None
    assert decided > 1000 and handed > 1000 and stricter < handed
