"""Lines over all splits of the text; links."""
from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooledhttp import Response
from pooledhttp.lines import LineSplitter, parse_links


def wanted(text: str) -> list[str]:
    return [line.removesuffix("\n") for line in io.StringIO(text, newline=None)]


def split(pieces: list[str]) -> list[str]:
    splitter = LineSplitter()
    return [line for piece in pieces for line in splitter.feed(piece)] + splitter.end()


@pytest.mark.parametrize("text", [
    "", "a", "a\n", "a\nb", "\n", "\r", "\r\n", "\n\r", "a\r", "a\r\nb\r\n", "a\r\rb\n\n", "a\u2028b\x85c\x0bd\n", "\r\n\r\n"])
def test_every_split_gives_the_same_lines(text: str) -> None:
    for mask in range(1 << max(0, len(text) - 1)):
        pieces, start = [], 0
        for i in range(1, len(text)):
            if mask >> (i - 1) & 1:
                pieces.append(text[start:i])
                start = i
        pieces.append(text[start:])
        assert split(pieces) == wanted(text), pieces


@given(st.lists(st.text("ab\r\n\u2028", max_size=5), max_size=10))
def test_any_pieces_give_the_lines_of_their_whole(pieces: list[str]) -> None:
    assert split(pieces) == wanted("".join(pieces))


@given(st.text("aé€😀\r\n"), st.sampled_from(["utf-8", "utf-16", "utf-32-le"]), st.integers(1, 7))
def test_lines_of_a_body_cut_inside_characters(text: str, encoding: str, size: int) -> None:
    r = Response(200, headers={"Content-Type": f"text/plain; charset={encoding}"}, content=text.encode(encoding))
    assert list(r.iter_lines(size)) == wanted(text)


def test_lines_come_as_soon_as_they_end() -> None:
    splitter = LineSplitter()
    assert splitter.feed("one\ntw") == ["one"]
    assert splitter.feed("o\r") == []
    assert splitter.feed("\nthree") == ["two"]
    assert splitter.end() == ["three"]
    assert splitter.end() == []


LINKS = [
    ('<https://h/?page=2>; rel="next"', [{"url": "https://h/?page=2", "rel": "next"}]),
    ("</a,b;c>; rel=prev; TITLE=\"x;, \\\"y\\\"\" , <b>", [{"url": "/a,b;c", "rel": "prev", "title": 'x;, "y"'}, {"url": "b"}]),
    ('<a>; rel=next; rel=other', [{"url": "a", "rel": "next"}]),
    ("", []), ("nonsense", []), ("<a", []), ("<a>;;=x", [{"url": "a"}]),
]


@pytest.mark.parametrize(("value", "links"), LINKS)
def test_links(value: str, links: list[dict[str, str]]) -> None:
    assert parse_links(value) == links


def test_links_of_a_response() -> None:
    r = Response(200, headers=[("Link", '<2>; rel="next last"'), ("link", "<1>")])
    assert r.links == {"next": {"url": "2", "rel": "next last"}, "last": {"url": "2", "rel": "next last"}, "1": {"url": "1"}}
    assert Response(200).links == {}
