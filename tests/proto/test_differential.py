"""Whatever bytes, in whatever pieces: the compiled path gives h11's answer or hands over, and we are stricter only where we say so.

The places where we are stricter than h11 are `STRICTER`, by the names that docs/parser.md gives them.
"""
from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .corpus import CHUNKED, CORPUS, OK, sized
from .drivers import by_fallback, by_fast_path, by_h11

DOC = Path(__file__).parents[2] / "docs" / "parser.md"

# Each rule: what our error says, and bytes that h11 takes.
STRICTER: dict[str, tuple[str, bytes]] = {
    "version": (r"the server speaks HTTP/", b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "length-beside-coding": (r"both Content-Length and Transfer-Encoding",
                             OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "length-overflow": (r"Content-Length is over", OK + b"Content-Length: 9223372036854775808\r\n\r\n"),
    "coding-in-1.0": (r"Transfer-Encoding in an HTTP/1.0 response", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "control-in-reason": (r"a control character in the reason", b"HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n"),
    "control-in-field": (r"a control character in field", OK + b"A: \x01\r\nContent-Length: 0\r\n\r\n"),
    "control-in-chunk-line": (r"a control character in a chunk's header line", CHUNKED + b"1;a\rb\r\nx\r\n0\r\n\r\n"),
    "chunk-overflow": (r"a chunk's size is over", CHUNKED + b"8000000000000000\r\n"),
    "chunk-line-limit": (r"a chunk's header line is over the limit", CHUNKED + b"1;" + b"a" * 16384 + b"\r\nx\r\n0\r\n\r\n"),
    "head-limit": (r"the response's head is over the limit", sized(b"", b"A: " + b"a" * 20000 + b"\r\n")),
    "interim-limit": (r"interim \(1xx\) responses are over the limit", b"HTTP/1.1 103 Hint\r\n\r\n" * 1000 + sized(b"")),
    "trailer-limit": (r"the trailer section is over the limit", CHUNKED + b"0\r\nA: " + b"a" * 20000 + b"\r\n\r\n"),
}


def stricter_rule(why: str) -> str:
    """The rule that an error belongs to; "" for none."""
    return next((name for name, (pattern, _) in STRICTER.items() if re.match(pattern, why)), "")




def check(method: bytes, pieces: list[bytes]) -> None:
    theirs = by_h11(method, pieces)
    ours, facts = by_fallback(method, pieces)
    fast, fast_facts, handed = by_fast_path(method, pieces)
    # The way through the compiled path is the way through the fallback, facts and all.
    assert fast == ours
    assert fast_facts == facts or fast.error
    if not ours.error:
        assert ours == theirs
    elif ours != theirs:
        # Never without a rule that has a name; and what the compiled path answers by itself is h11's answer.
        rule = stricter_rule(ours.why)
        assert rule, f"refused without a rule: {ours.why!r}; h11: {theirs.why!r}"
        assert handed, f"the compiled path refused by itself ({rule})"


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    at = sorted({place % (len(raw) + 1) for place in places} - {0, len(raw)}) if raw else []
    return [raw[a:b] for a, b in zip([0, *at], [*at, len(raw)], strict=True)] if raw else []


@pytest.mark.parametrize(("method", "raw"), [pytest.param(method, raw, id=name) for name, method, raw in CORPUS])
def test_corpus(method: bytes, raw: bytes) -> None:
    check(method, cut(raw, []))
    check(method, [raw[i:i + 1] for i in range(len(raw))])
    for place in range(1, len(raw), 1 if len(raw) < 400 else 13):
        check(method, cut(raw, [place]))


CUTS = st.lists(st.integers(0, 4000), max_size=8)
SETTINGS = settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SETTINGS
@given(st.sampled_from(CORPUS), CUTS)
def test_corpus_in_random_pieces(item: tuple[str, bytes, bytes], places: list[int]) -> None:
    check(item[1], cut(item[2], places))


NASTY = st.sampled_from([
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b" ", b"\t", b":", b"\x00", b"\x01", b"\x0b", b"\x7f", b"\xff", b",", b";", b"=", b"\"",
    b"0", b"9", b"a", b"-", b"+", b"chunked", b"close", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n", b"Keep-Alive: timeout=9\r\n", b" folded\r\n", b"HTTP/1.1 100 Continue\r\n\r\n",
])
EDIT = st.tuples(st.integers(0, 4000), st.integers(0, 3), NASTY | st.binary(max_size=2))


@SETTINGS
@given(st.sampled_from(CORPUS), st.lists(EDIT, min_size=1, max_size=3), CUTS)
def test_mutated_corpus(item: tuple[str, bytes, bytes], edits: list[tuple[int, int, bytes]], places: list[int]) -> None:
    raw = item[2]
    for place, gone, new in edits:
        place %= len(raw) + 1
        raw = raw[:place] + new + raw[place + gone:]
    check(item[1], cut(raw, places))


FIELD = st.one_of(
    st.builds(b"Content-Length: %d\r\n".__mod__, st.integers(0, 12)),
    st.sampled_from([b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Connection: keep-alive, x\r\n",
                     b"Connection: ,close ,\r\n", b"Keep-Alive: timeout=5, max=9\r\n", b"Keep-Alive: max=9, timeout = 07\r\n",
                     b"Keep-Alive: timeout=5\r\nKeep-Alive: timeout=3\r\n", b"Keep-Alive: timeout=12345678901\r\n",
                     b"Set-Cookie: a=b; Path=/\r\n", b"content-encoding: gzip\r\n", b"Upgrade: h2c\r\n", b"X: y\r\n", b"X:\r\n", b"X: a\tb \r\n",
                     b"X: a\r\n b\r\n"]),
)
CHUNK = st.one_of(
    st.binary(min_size=1, max_size=20).map(lambda b: b"%x\r\n%b\r\n" % (len(b), b)),
    st.binary(min_size=1, max_size=20).map(lambda b: b"%04X;ext=\"a b\";c\r\n%b\r\n" % (len(b), b)),
    st.binary(min_size=1, max_size=20).map(lambda b: b"%x ;odd\r\n%b\r\n" % (len(b), b)),
    st.binary(min_size=1, max_size=20).map(lambda b: b"%x \r\n%b\r\n" % (len(b), b)),
)
BEHIND = st.sampled_from([b"", b"next"])
LAST = st.sampled_from([b"0\r\n\r\n", b"0;end\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"0\r\nA: b\r\n c\r\n\r\n", b"00\r\n\n", b"0\r\n", b""])
BODY = st.one_of(st.binary(max_size=30), st.builds(lambda chunks, last: b"".join(chunks) + last, st.lists(CHUNK, max_size=4), LAST))
START = st.sampled_from([b"HTTP/1.1 200 OK\r\n"] * 6 + [
    b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 204 No Content\r\n", b"HTTP/1.1 304 \r\n", b"HTTP/1.1 500\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", b"HTTP/1.1 103 Hint\r\nLink: x\r\n\r\nHTTP/1.1 201 Made\r\n",
])


@SETTINGS
@given(st.sampled_from([b"GET"] * 6 + [b"HEAD", b"CONNECT"]), START, st.lists(FIELD, max_size=4), BODY, BEHIND, CUTS)
def test_made_responses(method: bytes, start: bytes, fields: list[bytes], body: bytes, behind: bytes, places: list[int]) -> None:
    check(method, cut(start + b"".join(fields) + b"\r\n" + body + behind, places))


@SETTINGS
@given(st.lists(CHUNK, max_size=5), LAST, BEHIND, CUTS)
def test_made_chunks(chunks: list[bytes], last: bytes, behind: bytes, places: list[int]) -> None:
    check(b"GET", cut(CHUNKED + b"".join(chunks) + last + behind, places))


@pytest.mark.parametrize("rule", STRICTER)
def test_where_we_are_stricter(rule: str) -> None:
    pattern, raw = STRICTER[rule]
    theirs = by_h11(b"GET", [raw])
    # It takes them, or believes a length and misses only the bytes that it announces.
    assert not theirs.error or "without sending complete message body" in theirs.why
    for pieces in ([raw], cut(raw, list(range(0, len(raw), 1 + len(raw) // 50)))):
        for answer in (by_fallback(b"GET", pieces, 16384)[0], by_fast_path(b"GET", pieces, 16384)[0]):
            assert re.match(pattern, answer.why)
            assert stricter_rule(answer.why) == rule
            assert answer.error in ("headers", "body")


def test_the_rules_are_written_down() -> None:
    names = set(re.findall(r"^\| `([a-z0-9.-]+)` \|", DOC.read_text(), re.MULTILINE))
    assert names == set(STRICTER)


def test_much_of_the_corpus_is_plain() -> None:
    # A compiled path that hands everything over would pass every test above.
    plain = {name for name, method, raw in CORPUS if not by_fast_path(method, [raw] if raw else [])[2]}
    assert {"nginx", "apache", "gunicorn", "http.server", "redirect", "cookies", "until close", "1.0 keep-alive", "HEAD", "204", "304",
            "100", "chunk extensions", "CONNECT"} <= plain
