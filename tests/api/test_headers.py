"""Headers: case-insensitive, in order, parsed when read."""
from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooledhttp import Headers
from pooledhttp.headers import merge, wire_bytes, without_none

WIRE = b"Server: x\r\nSet-Cookie: a=1\r\nX-Empty:\r\nset-cookie:  b=2; c \r\nX-Latin: caf\xe9\x85s\r\n"


def test_from_the_wire() -> None:
    h = Headers.from_wire(WIRE)
    assert h.multi_items() == [("Server", "x"), ("Set-Cookie", "a=1"), ("X-Empty", ""), ("set-cookie", "b=2; c"), ("X-Latin", "café\x85s")]
    assert h["SET-COOKIE"] == "a=1, b=2; c"
    assert h.get_list("set-cookie") == ["a=1", "b=2; c"]
    assert list(h) == ["Server", "Set-Cookie", "X-Empty", "X-Latin"]
    assert len(h) == 4
    assert h.raw[-1] == (b"X-Latin", b"caf\xe9\x85s")
    assert dict(h.items())["Set-Cookie"] == "a=1, b=2; c"
    assert "x-empty" in h
    assert 3 not in h
    assert h.get("nope") is None
    assert h.get("nope", "d") == "d"
    with pytest.raises(KeyError):
        h["nope"]
    assert Headers.from_wire(b"").multi_items() == []


@pytest.mark.parametrize("given_", [
    {"A": "1", "b": "2"}, [("A", "1"), ("b", "2")], [(b"A", b"1"), (b"b", b" 2 ")], Headers([("A", "1"), ("b", "2")]),
    iter([("A", "1"), ("b", "2")]),
])
def test_made_from(given_: object) -> None:
    assert Headers(given_).multi_items() == [("A", "1"), ("b", "2")]  # type: ignore[arg-type]


def test_changing() -> None:
    h = Headers([("A", "1"), ("B", "2"), ("a", "3")])
    version = h.version
    h["a"] = "4"
    assert h.multi_items() == [("a", "4"), ("B", "2")]
    h.add("b", "5")
    assert h.get_list("B") == ["2", "5"]
    del h["B"]
    assert h.multi_items() == [("a", "4")]
    with pytest.raises(KeyError):
        del h["B"]
    h.update({"C": "6"})
    assert h.setdefault("c", "7") == "6"
    assert h.pop("C") == "6"
    assert h.version == version + 5


def test_a_change_empties_what_was_derived() -> None:
    memo = {"x": 1}
    h = Headers()
    h.drop_on_change(memo)
    assert memo
    h["A"] = "1"
    assert not memo


def test_a_snapshot_is_not_changed_under_its_reader() -> None:
    h = Headers({"A": "1", "B": "2"})
    reader = iter(h.multi_items())
    next(reader)
    del h["B"]
    assert list(reader) == [("B", "2")]


def test_lists_split_at_commas() -> None:
    h = Headers([("Vary", "a, b"), ("vary", "c")])
    assert h.get_list("Vary") == ["a, b", "c"]
    assert h.get_list("Vary", split_commas=True) == ["a", "b", "c"]


def test_equality_copy_pickle_repr() -> None:
    h = Headers([("A", "1"), ("B", "2"), ("Authorization", "Basic secret")])
    assert h == {"authorization": "Basic secret", "b": "2", "a": "1"}
    assert h != {"a": "1"}
    assert h != [1]
    other = h.copy()
    other["A"] = "9"
    assert h["A"] == "1"
    assert pickle.loads(pickle.dumps(h)).multi_items() == h.multi_items()
    assert "secret" not in repr(h)
    assert "('A', '1')" in repr(h)
    with pytest.raises(TypeError):
        hash(h)


@pytest.mark.parametrize("bad", [{"A": 1}, {"A": None}, {1: "x"}, [("A", ["x"])]])
def test_wrong_types(bad: object) -> None:
    with pytest.raises(TypeError):
        Headers(bad)  # type: ignore[arg-type]


def test_merging() -> None:
    defaults = Headers([("User-Agent", "u"), ("Accept", "*/*"), ("X", "1")])
    given_, dropped = without_none({"accept": "text/html", "x": None})
    assert merge(defaults, Headers(given_), dropped).multi_items() == [("User-Agent", "u"), ("accept", "text/html")]
    assert merge(defaults, Headers()).multi_items() == defaults.multi_items()
    assert without_none(None) == (None, frozenset())


def test_bytes_on_the_wire() -> None:
    assert wire_bytes("é") == b"\xe9"
    assert wire_bytes("€") == b"\xe2\x82\xac"


TOKEN = st.text("abcXYZ-_09", min_size=1, max_size=8)
VALUE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=8)


@given(st.lists(st.tuples(TOKEN, VALUE), max_size=8))
def test_the_wire_comes_back(pairs: list[tuple[str, str]]) -> None:
    pairs = [(name, value.strip(" \t")) for name, value in pairs]
    h = Headers.from_wire(b"".join(f"{n}: {v}\r\n".encode("latin-1") for n, v in pairs))
    assert h.multi_items() == pairs
    assert h.raw == [(n.encode(), v.encode("latin-1")) for n, v in pairs]
    for name, _ in pairs:
        assert h[name.swapcase()] == ", ".join(v for n, v in pairs if n.lower() == name.lower())
