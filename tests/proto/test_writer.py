"""What goes into a request's head: nothing may split or smuggle one, and no error repeats a value."""
from __future__ import annotations

from typing import Any

import pytest

from pooledhttp._proto.writer import check_method, check_target, field_block
from pooledhttp.errors import LocalProtocolError

from .guard import guarded

TOKEN = set(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
TEXT = {9, *range(32, 127), *range(128, 256)}


def test_lines_keep_order_and_case() -> None:
    pairs: list[tuple[Any, Any]] = [("Host", "a.example"), (b"x-lower", b"1"), ("X-Empty", ""), ("Set", "a"), ("Set", "b")]
    assert field_block(pairs) == b"Host: a.example\r\nx-lower: 1\r\nX-Empty: \r\nSet: a\r\nSet: b\r\n"
    assert field_block([]) == b""
    assert field_block(iter(pairs)) == field_block(pairs)
    assert field_block({"A": "1", "B": "2"}.items()) == b"A: 1\r\nB: 2\r\n"


def test_text_is_encoded() -> None:
    assert field_block([("A", "é")]) == b"A: \xe9\r\n"
    assert field_block([("A", "é\u20ac")]) == b"A: \xc3\xa9\xe2\x82\xac\r\n"


@pytest.mark.parametrize(("value", "sent"), [("  a b\t", b"a b"), (b"\t \t", b""), (" ", b""), ("a\tb", b"a\tb")])
def test_spaces_around_a_value_are_left_out(value: Any, sent: bytes) -> None:
    assert field_block([("A", value)]) == b"A: " + sent + b"\r\n"


@pytest.mark.parametrize("count", [1, 10, 1000])
@pytest.mark.parametrize("size", [0, 1, 1015, 1016, 1017, 5000])
def test_long_blocks(size: int, count: int) -> None:
    # 1024 bytes are where a block leaves the stack.
    want = (b"Name: " + b"v" * size + b"\r\n") * count
    assert field_block([("Name", "v" * size)] * count) == want


@pytest.mark.parametrize("byte", range(256))
def test_every_byte_in_a_name(byte: int) -> None:
    for where in (b"%c", b"%cA", b"A%cB", b"A%c"):
        name = where % byte
        for given in (name, name.decode("latin-1")):
            if byte in TOKEN:
                assert field_block([(given, "v")]) == name + b": v\r\n"
            else:
                with pytest.raises(LocalProtocolError, match="header name .* is not a token") as e:
                    field_block([(given, "s3cret")])
                assert "s3cret" not in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("byte", range(256))
def test_every_byte_in_a_value(byte: int) -> None:
    for where in (b"%c", b"%cs3cret", b"s3%ccret", b"s3cret%c"):
        value = where % byte
        for given in (value, value.decode("latin-1")):
            if byte in TEXT:
                assert field_block([("A", given)]) == b"A: " + value.strip(b" \t") + b"\r\n"
            else:
                with pytest.raises(LocalProtocolError, match=f"header 'Authorization' .*0x{byte:02x}") as e:
                    field_block([("X", "1"), ("Authorization", given)])
                assert "cret" not in str(e.value)


@pytest.mark.parametrize("byte", range(256))
def test_every_byte_in_a_method(byte: int) -> None:
    for where in (b"%c", b"GE%c", b"%cGET", b"GE%cT"):
        method = where % byte
        for given in (method, method.decode("latin-1")):
            if byte in TOKEN:
                assert check_method(given) == method
            else:
                with pytest.raises(LocalProtocolError, match="method"):
                    check_method(given)


@pytest.mark.parametrize("byte", range(256))
def test_every_byte_in_a_target(byte: int) -> None:
    for where in (b"%c", b"/?s3cret%c", b"%c/", b"/a%c?s3cret"):
        target = where % byte
        if 0x21 <= byte <= 0x7e:
            assert check_target(target) == target
        else:
            with pytest.raises(LocalProtocolError, match=f"request target holds the byte 0x{byte:02x} at offset {where.index(b'%')}") as e:
                check_target(target)
            assert "cret" not in str(e.value)


def test_what_is_empty_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="name"):
        field_block([("", "v")])
    with pytest.raises(LocalProtocolError, match="method"):
        check_method("")
    with pytest.raises(LocalProtocolError, match="empty"):
        check_target(b"")


def test_other_characters() -> None:
    # Letters that turn into CR and LF where a codec drops their high byte.
    with pytest.raises(LocalProtocolError, match="token"):
        field_block([("A\u560a", "v")])
    assert field_block([("A", "v\u560a\u560d")]) == b"A: v\xe5\x98\x8a\xe5\x98\x8d\r\n"
    with pytest.raises(LocalProtocolError, match="header 'A' holds a lone surrogate") as e:
        field_block([("A", "s3cret\ud800")])
    assert e.value.__cause__ is None and e.value.__suppress_context__
    with pytest.raises(LocalProtocolError, match="method"):
        check_method("G\u0100T")


def test_a_long_bad_name_is_shortened() -> None:
    with pytest.raises(LocalProtocolError, match="shortened") as e:
        field_block([("a " * 1000, "v")])
    assert len(str(e.value)) < 200


@pytest.mark.parametrize("value", [None, 5, 1.5, bytearray(b"x"), ["a"]])
def test_other_types_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="value of header 'A'"):
        field_block([("A", value)])
    with pytest.raises(TypeError, match="name"):
        field_block([(value, "v")])
    with pytest.raises(TypeError, match="method"):
        check_method(value)
    with pytest.raises(TypeError):
        check_target(value)


def test_an_iterable_that_fails_says_its_own_error() -> None:
    def pairs() -> Any:
        yield "A", "v" * 5000
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        field_block(pairs())


@pytest.mark.parametrize("size", [7, 15, 23, 1023, 1031, 4095])
def test_nothing_behind_what_is_given_is_read(size: int) -> None:
    # As written, or with the odd byte first, last, or just behind.
    name, value, odd = b"n" * size, b"v" * size, (0, 1, size - 1)
    with guarded() as names, guarded() as values:
        ours = names.object_at_end(name)
        assert check_method(ours) is ours
        assert check_target(ours) is ours
        for given, sent in ((value, value), (b" " * size, b""), (value[:-2] + b"\t ", value[:-2]), (b" \t" + value[2:], value[2:])):
            assert field_block([(ours, values.object_at_end(given))]) == name + b": " + sent + b"\r\n"
        del ours
        for at in odd:
            bad = name[:at] + b"\n" + name[at + 1:]
            for check in (check_method, check_target, lambda it: field_block([(it, b"v")]), lambda it: field_block([(b"n", it)])):
                with pytest.raises(LocalProtocolError):
                    check(names.object_at_end(bad))
