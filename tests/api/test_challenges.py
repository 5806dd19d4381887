"""`WWW-Authenticate` fields: RFC 9110 section 11.6.1, and what is met of it."""
from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooledhttp.challenges import parse_challenges, parse_params

Parsed = list[tuple[str, dict[str, str], str]]


def parsed(*fields: str) -> Parsed:
    return [(c.scheme, c.params, c.token68) for c in parse_challenges(fields)]


CASES: list[tuple[tuple[str, ...], Parsed]] = [
    ((), []),
    (("",), []),
    ((" , ,\t",), []),
    (('Basic realm="simple"',), [("basic", {"realm": "simple"}, "")]),
    (("BASIC REALM=simple",), [("basic", {"realm": "simple"}, "")]),
    (("Negotiate",), [("negotiate", {}, "")]),
    (("Negotiate a87421000492aa874209af8bc028==",), [("negotiate", {}, "a87421000492aa874209af8bc028==")]),
    (("Negotiate, Basic realm=x",), [("negotiate", {}, ""), ("basic", {"realm": "x"}, "")]),
    (("NTLM TlRM-._~+/=, Basic realm=x",), [("ntlm", {}, "TlRM-._~+/="), ("basic", {"realm": "x"}, "")]),
    # The example of section 11.6.1, in one field and in two.
    (('Basic realm="simple", Newauth realm="apps", type=1, title="Login to \\"apps\\""',),
     [("basic", {"realm": "simple"}, ""), ("newauth", {"realm": "apps", "type": "1", "title": 'Login to "apps"'}, "")]),
    (('Basic realm="simple"', 'Newauth realm="apps", type=1'), [("basic", {"realm": "simple"}, ""), ("newauth", {"realm": "apps", "type": "1"}, "")]),
    # Commas, equals signs and schemes within quotes.
    (('Digest realm="a, Basic realm=b", nonce="x=="',), [("digest", {"realm": "a, Basic realm=b", "nonce": "x=="}, "")]),
    (('Digest realm="", qop="auth,auth-int"',), [("digest", {"realm": "", "qop": "auth,auth-int"}, "")]),
    (('Digest realm="back\\\\slash", a=b',), [("digest", {"realm": "back\\slash", "a": "b"}, "")]),
    # Odd spacing and empty elements.
    (('  Digest   realm = "a" ,, \t nonce=\t"b"  ,',), [("digest", {"realm": "a", "nonce": "b"}, "")]),
    ((', Basic realm="a"',), [("basic", {"realm": "a"}, "")]),
    (('Basic ,realm="a"',), [("basic", {"realm": "a"}, "")]),
    # Against the grammar, and met: no commas, unquoted values that are no tokens, a parameter twice.
    (('Digest realm="a" nonce="b" qop=auth',), [("digest", {"realm": "a", "nonce": "b", "qop": "auth"}, "")]),
    (("Digest nonce=AbC/+==, uri=/x?y=z",), [("digest", {"nonce": "AbC/+==", "uri": "/x?y=z"}, "")]),
    (('Digest realm="a", realm="b"',), [("digest", {"realm": "a"}, "")]),
    (("Digest realm=, nonce=x",), [("digest", {"nonce": "x"}, "realm=")]),
    (("Digest stale=, nonce=x, opaque=",), [("digest", {"nonce": "x", "opaque": ""}, "stale=")]),
    (('Basic realm="\xe9"',), [("basic", {"realm": "\xe9"}, "")]),
    # Malformed: what comes before the fault, without the challenge that it is in.
    (('Basic realm="a", Digest realm="b',), [("basic", {"realm": "a"}, "")]),
    (('Digest realm="a\\"',), []),
    (("=x",), []),
    (('realm="a"',), []),
    (('"Basic"',), []),
    (("Basic realm=a, Digest @, x=y", "Bearer"), [("basic", {"realm": "a"}, ""), ("bearer", {}, "")]),
    (("Basic realm=a;b",), [("basic", {"realm": "a;b"}, "")]),
]


@pytest.mark.parametrize(("fields", "wanted"), CASES)
def test_fields(fields: tuple[str, ...], wanted: Parsed) -> None:
    assert parsed(*fields) == wanted


@pytest.mark.parametrize(("field", "wanted"), [
    ('nextnonce="abc", qop=auth, rspauth="1", cnonce="x", nc=00000001', {"nextnonce": "abc", "qop": "auth", "rspauth": "1", "cnonce": "x", "nc": "00000001"}),
    ("NextNonce=abc", {"nextnonce": "abc"}),
    (" ,nextnonce=a,", {"nextnonce": "a"}),
    ("", {}),
    ("nextnonce", {}),
    ('nextnonce="abc', {}),
    ("Digest nextnonce=abc", {}),
])
def test_authentication_info(field: str, wanted: dict[str, str]) -> None:
    assert parse_params(field) == wanted


@given(st.lists(st.text(alphabet='ab="\\, \t;/é@', max_size=40), max_size=3))
def test_whatever_is_sent_is_no_crash(fields: list[str]) -> None:
    for challenge in parse_challenges(fields):
        assert challenge.scheme
    parse_params(",".join(fields))


TOKEN = st.text(alphabet="abcxyz0189-_.", min_size=1, max_size=8)
QUOTED = st.text(alphabet='ab ,="\\é', max_size=12)


@given(st.lists(st.tuples(TOKEN, st.dictionaries(TOKEN, QUOTED, min_size=1, max_size=4)), max_size=4))
def test_what_is_written_by_the_grammar_is_read_back(given: list[tuple[str, dict[str, str]]]) -> None:
    def quote(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    field = ", ".join(f"{scheme} " + ", ".join(f"{name}={quote(value)}" for name, value in params.items()) for scheme, params in given)
    assert parsed(field) == [(scheme, params, "") for scheme, params in given]


@pytest.mark.unsanitized("two seconds")
@pytest.mark.parametrize("field", ["a " * 50_000, "a=b " * 30_000, 'X realm="' + '\\"' * 60_000, "X " + "," * 100_000,
                                   "X " + "b" * 100_000 + "=" * 50_000 + "!"], ids=range(5))
def test_long_fields_cost_no_square(field: Any) -> None:
    began = time.monotonic()
    parse_challenges([field])
    assert time.monotonic() - began < 2
