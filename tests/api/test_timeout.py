"""Timeout: every form it is given in."""
from __future__ import annotations

import pickle
from fractions import Fraction

import pytest

from pooledhttp import Timeout
from pooledhttp.timeout import NO_LIMIT

FIELDS = ("total", "pool", "connect", "tls_handshake", "response_header", "read", "write")


def values(t: Timeout) -> tuple[float | None, ...]:
    return tuple(getattr(t, name) for name in FIELDS)


def limits(t: Timeout) -> tuple[int, ...]:
    x = t.limits
    return (x.total, x.pool, x.connect, x.tls, x.header, x.read, x.write)


FORMS = [
    (Timeout(), (None, 60.0, 10.0, 10.0, None, 60.0, 60.0)),
    (Timeout(5), (5.0, None, None, None, None, None, None)),
    (Timeout(5, read=1), (5.0, None, None, None, None, 1.0, None)),
    (Timeout(connect=1, read=None), (None, 60.0, 1.0, 10.0, None, None, 60.0)),
    (Timeout(response_header=2.5), (None, 60.0, 10.0, 10.0, 2.5, 60.0, 60.0)),
    (Timeout.of(300), (300.0, None, None, None, None, None, None)),
    (Timeout.of(0), (0.0, None, None, None, None, None, None)),
    (Timeout.of(Fraction(1, 2)), (0.5, None, None, None, None, None, None)),  # type: ignore[arg-type]
    (Timeout.of((3.05, 27)), (None, 60.0, 3.05, 10.0, None, 27.0, 60.0)),
    (Timeout.of((None, 1)), (None, 60.0, None, 10.0, None, 1.0, 60.0)),
    (Timeout.of(None), (None,) * 7),
]


@pytest.mark.parametrize(("timeout", "wanted"), FORMS)
def test_forms(timeout: Timeout, wanted: tuple[float | None, ...]) -> None:
    assert values(timeout) == wanted
    assert limits(timeout) == tuple(-1 if s is None else int(s * 1e9) for s in wanted)
    assert pickle.loads(pickle.dumps(timeout)) == timeout
    assert hash(pickle.loads(pickle.dumps(timeout))) == hash(timeout)


def test_what_is_given_twice_is_made_once() -> None:
    assert Timeout.of(2.5) is Timeout.of(2.5)
    t = Timeout(1)
    assert Timeout.of(t) is t
    assert Timeout.of(None) is NO_LIMIT


def test_for_ever_is_no_limit_below() -> None:
    assert limits(Timeout(float("inf"), read=1e30, write=1e9)) == (-1, -1, -1, -1, -1, -1, 10**18)


@pytest.mark.parametrize("bad", [True, False, "5", b"5", [1, 2], object(), (1,), (1, 2, 3), (True, 1), ("1", 2), 1j])
def test_wrong_types(bad: object) -> None:
    Timeout.of(1)                     # True == 1, and must not find it
    with pytest.raises(TypeError):
        Timeout.of(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [-1, -0.001, float("nan"), float("-inf"), (-1, 1), (1, float("nan"))])
def test_wrong_values(bad: object) -> None:
    with pytest.raises(ValueError, match="must be at least 0 seconds"):
        Timeout.of(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_checked(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Timeout(**{name: -1})
    with pytest.raises(TypeError, match=name):
        Timeout(**{name: "x"})


def test_is_immutable_and_compares() -> None:
    t = Timeout(1, read=2)
    with pytest.raises(AttributeError):
        t.read = 3
    with pytest.raises(AttributeError):
        del t.read
    assert t == Timeout(1.0, read=2.0)
    assert t != Timeout(1)
    assert t != 1
    assert repr(t) == ("Timeout(total=1.0, pool=None, connect=None, tls_handshake=None, response_header=None, read=2.0, write=None)")
