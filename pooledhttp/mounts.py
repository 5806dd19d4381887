"""Which transport a request goes over: patterns of URLs, the longest match first."""
from __future__ import annotations

from pooledhttp._typing import TYPE_CHECKING, Any
from pooledhttp.flow import Route
from pooledhttp.url import DEFAULT_PORTS, URL

if TYPE_CHECKING:
    from collections.abc import Mapping


class Pattern:
    """`scheme://host:port/path`, of which only the scheme ("all" for any) must be there.

    host: one name; "*.example.com", every name below it; "*example.com", it and every name below it; "*" or nothing, every host; and
    "internal.", with a dot at its end, every name that begins so. port: that one, else any. path: it and what is below it.
    Raises ValueError (of which InvalidURL is one).
    """

    __slots__ = ("beginning", "host", "path", "port", "rank", "scheme", "wild")

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"a mount's pattern is a str, not {type(text).__name__}")
        scheme, mark, rest = text.partition("://")
        scheme = scheme.lower()
        if not mark or (scheme != "all" and scheme not in DEFAULT_PORTS):
            raise ValueError(f'a mount\'s pattern begins with "all://" or the scheme of a URL that we speak, not {text!r}')
        authority, slash, path = rest.partition("/")
        if "@" in authority or "?" in rest or "#" in rest:
            raise ValueError(f"a mount's pattern has neither userinfo nor query nor fragment: {text!r}")
        self.scheme = scheme
        self.wild = ""
        for wild in ("*.", "*"):
            if authority.startswith(wild):
                self.wild = wild
                authority = authority.removeprefix(wild)
                break
        if "*" in authority or (self.wild == "*." and not authority):
            raise ValueError(f"a * stands at the beginning of a mount's host only: {text!r}")
        name, colon, port = authority, "", ""
        if not authority.endswith("]"):
            name, colon, port = authority.rpartition(":") if ":" in authority else (authority, "", "")
        self.beginning = name.endswith(".") and not self.wild
        self.host = ""
        self.port: int | None = None
        known = scheme if scheme != "all" else "http"
        if name:
            self.host = URL(f"{known}://{name.removesuffix('.')}/").host
        if colon:
            self.port = URL(f"{known}://h:{port}/").effective_port if port else None
        self.path = URL(f"{known}://h/{path}").path if slash and path else ""
        exact = 0 if self.wild == "*" else 1 if self.wild or self.beginning else 2
        self.rank = (len(self.host), exact, len(self.path), self.port is not None, scheme != "all")

    def matches(self, url: URL) -> bool:
        return (self.scheme in ("all", url.scheme) and (self.port is None or self.port == url.effective_port) and self._takes_host(url.host)
                and (not self.path or url.path == self.path or url.path.startswith(self.path if self.path[-1] == "/" else self.path + "/")))

    def _takes_host(self, host: str) -> bool:
        mine = self.host
        if not mine:
            return True
        if self.beginning:
            return host.startswith(mine + ".")
        return (bool(self.wild) and host.endswith("." + mine)) or (host == mine and self.wild != "*.")


class Mounts:
    """The routes of a client, by pattern; `own` is the one of its own transport."""

    def __init__(self, mounts: Mapping[str, Any], trust_env: bool) -> None:
        if not hasattr(mounts, "items"):
            raise TypeError(f"mounts is a mapping of patterns to transports, not {type(mounts).__name__}")
        self.given = dict(mounts)
        rows: list[tuple[Pattern, Route | None]] = []
        for text, transport in self.given.items():
            if transport is not None and not callable(getattr(transport, "round_trip", None)):
                raise TypeError(f"a transport has a method round_trip, and {type(transport).__name__}, mounted for {text!r}, has none")
            rows.append((Pattern(text), None if transport is None else Route(transport, trust_env)))
        self._rows = sorted(rows, key=lambda row: row[0].rank, reverse=True)

    def find(self, url: URL, own: Route) -> Route:
        """The route of the longest pattern that matches; `own` where none does, or where its transport is None."""
        for pattern, route in self._rows:
            if pattern.matches(url):
                return route or own
        return own
