"""What a server asks for: `WWW-Authenticate` fields taken apart, and `Authentication-Info` (RFC 9110 section 11)."""
from __future__ import annotations

import re
from collections.abc import Iterable

_SPACE = re.compile(r"[ \t]*")
_BETWEEN = re.compile(r"[ \t,]*")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_EQUALS = re.compile(r"[ \t]*=[ \t]*")
_TOKEN68 = re.compile(r"([A-Za-z0-9._~+/-]+=*)[ \t]*(?:,|\Z)")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_BARE = re.compile(r'[^ \t,"]+')         # what no token may hold, as "=" or "/", is met unquoted all the same
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class Malformed(ValueError):
    """A field that is not in the grammar."""


class Challenge:
    """One challenge: `scheme` in lower case; `params` by lower-case name, unquoted; `token68`, "" where it has none."""

    __slots__ = ("params", "scheme", "token68")

    def __init__(self, scheme: str, params: dict[str, str] | None = None, token68: str = "") -> None:
        self.scheme = scheme
        self.params = {} if params is None else params
        self.token68 = token68

    def __repr__(self) -> str:
        return f"<Challenge {self.scheme}>"


def _value(text: str, at: int) -> tuple[str, int]:
    """The value that begins at `at`, unquoted, and where it ends."""
    if text.startswith('"', at):
        quoted = _QUOTED.match(text, at)
        if quoted is None:
            raise Malformed("a quoted string that does not end")
        return _ESCAPED.sub(r"\1", quoted[1]), quoted.end()
    bare = _BARE.match(text, at)
    return (bare[0], bare.end()) if bare is not None else ("", at)


def _name(text: str, at: int) -> tuple[str, int]:
    token = _TOKEN.match(text, at)
    if token is None:
        raise Malformed(f"neither a scheme nor a parameter at character {at}")
    return token[0].lower(), token.end()


def _scan(text: str, found: list[Challenge]) -> None:
    """Appends the challenges of one field's value as they are met. A comma parts challenges and parameters alike (RFC 9110 section
    11.6.1): a name before "=" is a parameter of the challenge before it, any other begins a challenge."""
    current: Challenge | None = None
    at = _BETWEEN.match(text).end()  # type: ignore[union-attr]  # it matches nothing at all, too
    while at < len(text):
        name, end = _name(text, at)
        equals = _EQUALS.match(text, end)
        if equals is not None:
            if current is None:
                raise Malformed("a parameter before any scheme")
            value, at = _value(text, equals.end())
            current.params.setdefault(name, value)       # it "MUST only occur once": nobody later gets to replace it
        else:
            current = Challenge(name)
            at = _SPACE.match(text, end).end()  # type: ignore[union-attr]
            token68 = _TOKEN68.match(text, at) if at > end else None
            if token68 is not None:
                current.token68 = token68[1]
                at = token68.end(1)
            found.append(current)
        at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """The challenges of all `WWW-Authenticate` fields, in order. Of a malformed field what comes before its first fault, without the
    challenge that the fault is in."""
    out: list[Challenge] = []
    for value in values:
        found: list[Challenge] = []
        try:
            _scan(value, found)
        except Malformed:
            found = found[:-1]
        out += found
    return out


def parse_params(value: str) -> dict[str, str]:
    """The parameters of an `Authentication-Info` field (RFC 9110 section 11.6.3), by lower-case name; none of a malformed one."""
    challenge = Challenge("")
    params: dict[str, str] = challenge.params
    try:
        at = _BETWEEN.match(value).end()  # type: ignore[union-attr]
        while at < len(value):
            name, end = _name(value, at)
            equals = _EQUALS.match(value, end)
            if equals is None:
                raise Malformed("a name without a value")
            text, at = _value(value, equals.end())
            params.setdefault(name, text)
            at = _BETWEEN.match(value, at).end()  # type: ignore[union-attr]
    except Malformed:
        return {}
    return params
