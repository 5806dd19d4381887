"""Header fields: a case-insensitive multi-dict that keeps order and case, and parses the wire's bytes only when somebody reads."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping

from pooledhttp._typing import TYPE_CHECKING, Any
from pooledhttp.errors import Error

if TYPE_CHECKING:
    from typing import TypeAlias

HeaderTypes: TypeAlias = "Headers | Mapping[str, Any] | Iterable[tuple[Any, Any]] | None"

_SECRET = frozenset(("authorization", "cookie", "proxy-authorization", "set-cookie"))


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value.strip(" \t")
    if isinstance(value, bytes):
        return value.decode("latin-1").strip(" \t")
    raise TypeError(f"the value of the header {name!r} is a str or bytes, not {type(value).__name__}")


def _name(name: Any) -> str:
    if isinstance(name, str):
        return name
    if isinstance(name, bytes):
        return name.decode("latin-1")
    raise TypeError(f"a header's name is a str or bytes, not {type(name).__name__}")


def header_fields(headers: Any) -> Iterable[tuple[Any, Any]]:
    """(name, value) of each field, unchecked, of a mapping or of pairs; TypeError for anything else."""
    if isinstance(headers, Mapping):
        return headers.items()
    if isinstance(headers, (str, bytes)) or not isinstance(headers, Iterable):
        raise TypeError(f"headers are a mapping or (name, value) pairs, not {type(headers).__name__}")
    fields = list(headers)
    for field in fields:
        if not isinstance(field, (tuple, list)) or len(field) != 2:
            raise TypeError(f"headers are a mapping or (name, value) pairs: one of them is {type(field).__name__}")
    return fields


def wire_bytes(text: str) -> bytes:
    """A name or value as sent: Latin-1 as received fields are read, or UTF-8 where Latin-1 has no such character."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")


class Headers(MutableMapping[str, str]):
    """Header fields by case-insensitive name.

    `headers[name]` joins several fields of one name with ", " (RFC 9110 section 5.3); `get_list` gives them apart. Iteration, `keys`
    and `items` give each name once, in the order and case of the wire; `multi_items` gives every field. Safe to read while
    another thread changes it: a change replaces the whole.
    """

    __slots__ = ("_index", "_memo", "_pairs", "_wire", "version")

    def __init__(self, headers: HeaderTypes = None) -> None:
        self._wire: bytes | None = None
        self._index: dict[str, list[str]] | None = None
        self._memo: dict[Any, Any] | None = None
        self.version: int = 0            # counts changes
        self._pairs: list[tuple[str, str]] | None
        if headers is None:
            self._pairs = []
        elif isinstance(headers, Headers):
            self._pairs = list(headers.multi_items())
        else:
            pairs = []
            for key, value in header_fields(headers):
                name = _name(key)
                pairs.append((name, _text(name, value)))
            self._pairs = pairs

    @classmethod
    def from_wire(cls, head: bytes) -> Headers:
        """From validated field lines, b"Name: value\\r\\n" each, without folding; parsed on the first reading."""
        self = cls.__new__(cls)
        self._wire = head
        self._pairs = self._index = self._memo = None
        self.version = 0
        return self

    def drop_on_change(self, memo: dict[Any, Any]) -> None:
        """Empty `memo` at every change from now on: what was derived from these headers is stale then."""
        self._memo = memo

    def multi_items(self) -> list[tuple[str, str]]:
        """Every field as (name, value), in order. Not to be changed: it is the very list."""
        pairs = self._pairs
        if pairs is None:
            assert self._wire is not None
            pairs = []
            # Not splitlines(): it also splits at U+0085, which a Latin-1 value may hold.
            for line in self._wire.decode("latin-1").split("\r\n"):
                if line:
                    name, _, value = line.partition(":")
                    pairs.append((name, value.strip(" \t")))
            self._pairs = pairs
        return pairs

    def _by_name(self) -> dict[str, list[str]]:
        index = self._index
        if index is None:
            index = {}
            for name, value in self.multi_items():
                index.setdefault(name.lower(), []).append(value)
            self._index = index
        return index

    def _replace(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs
        self._index = None
        self.version += 1
        if self._memo is not None:
            self._memo.clear()

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        """Every field as bytes, in order."""
        return [(wire_bytes(name), wire_bytes(value)) for name, value in self.multi_items()]

    def get_list(self, name: str, split_commas: bool = False) -> list[str]:
        """The values of every field of that name; with `split_commas` each is split at its commas."""
        values = self._by_name().get(name.lower(), [])
        if split_commas:
            return [part.strip(" \t") for value in values for part in value.split(",")]
        return list(values)

    def add(self, name: str, value: str | bytes) -> None:
        """Append a field, whatever others of that name there are."""
        name = _name(name)
        self._replace([*self.multi_items(), (name, _text(name, value))])

    def get(self, name: str, default: Any = None) -> Any:
        values = self._by_name().get(name.lower())
        return default if values is None else ", ".join(values)

    def copy(self) -> Headers:
        return Headers(self)

    def __getitem__(self, name: str) -> str:
        values = self._by_name().get(name.lower())
        if values is None:
            raise KeyError(name)
        return ", ".join(values)

    def __setitem__(self, name: str, value: str | bytes) -> None:
        """One field of that name, in the place of the first there was."""
        name = _name(name)
        field = (name, _text(name, value))
        lower = name.lower()
        pairs: list[tuple[str, str]] = []
        placed = False
        for pair in self.multi_items():
            if pair[0].lower() != lower:
                pairs.append(pair)
            elif not placed:
                placed = True
                pairs.append(field)
        if not placed:
            pairs.append(field)
        self._replace(pairs)

    def __delitem__(self, name: str) -> None:
        lower = name.lower()
        before = self.multi_items()
        pairs = [pair for pair in before if pair[0].lower() != lower]
        if len(pairs) == len(before):
            raise KeyError(name)
        self._replace(pairs)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._by_name()

    def __iter__(self) -> Iterator[str]:
        seen: set[str] = set()
        for name, _ in self.multi_items():
            lower = name.lower()
            if lower not in seen:
                seen.add(lower)
                yield name

    def __len__(self) -> int:
        return len(self._by_name())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Headers, Mapping)):
            return NotImplemented
        mine = sorted((name.lower(), value) for name, value in self.multi_items())
        try:
            theirs = other if isinstance(other, Headers) else Headers(other)
        except (TypeError, Error):
            return False                # what no header can be
        return mine == sorted((name.lower(), value) for name, value in theirs.multi_items())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = [(name, "[secure]" if name.lower() in _SECRET else value) for name, value in self.multi_items()]
        return f"Headers({shown!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Headers, (self.multi_items(),)


def without_none(headers: HeaderTypes) -> tuple[HeaderTypes, frozenset[str]]:
    """`headers` without the names whose value is None, and those names in lower case."""
    if headers is None or isinstance(headers, Headers):
        return headers, frozenset()
    pairs = list(header_fields(headers))
    dropped = frozenset([_name(name).lower() for name, value in pairs if value is None])
    return [(name, value) for name, value in pairs if value is not None], dropped


def advertise(headers: Headers, dropped: frozenset[str] = frozenset()) -> None:
    """Add `Accept-Encoding` to a request's own headers: what we can undo. Not where the caller has it or dropped it, and not beside Range:
    a part of what was coded cannot be decoded."""
    for name, _ in headers.multi_items():
        if name.lower() in ("accept-encoding", "range"):
            return
    if "accept-encoding" not in dropped:
        from pooledhttp.decoders import accept_encoding

        headers.add("Accept-Encoding", accept_encoding())


def merge(defaults: Headers, headers: Headers, dropped: frozenset[str] = frozenset()) -> Headers:
    """`headers` over `defaults`: a name in `headers` replaces the default's fields; the names `dropped` (lower case) are left out."""
    given = headers.multi_items()
    hidden = {name.lower() for name, _ in given} | dropped
    merged = Headers()
    merged._pairs = [pair for pair in defaults.multi_items() if pair[0].lower() not in hidden]
    merged._pairs += [pair for pair in given if pair[0].lower() not in dropped] if dropped else given
    return merged
