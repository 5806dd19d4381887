"""Files for bodies: names that are safe, and each its own."""
from __future__ import annotations

import os
from urllib.parse import unquote

from pooledhttp.url import URL

_BYTES = 200                 # of a name; file systems take 255
_PLAIN = frozenset("._-+=@,~ ()")


def safe_name(url: URL) -> str:
    """The last part of the URL's path as a file's name: no separator, nothing hidden, no option, nothing that a terminal obeys."""
    last = unquote(url.path.rstrip("/").rpartition("/")[2], errors="replace")
    name = "".join([c if c.isalnum() or c in _PLAIN else "_" for c in last]).lstrip(".- ").rstrip(". ")
    if not name:
        return "index"
    stem, dot, kind = name.rpartition(".")
    if not dot or len(kind.encode()) > 16:
        stem, dot, kind = name, "", ""
    keep = _BYTES - len(kind.encode()) - len(dot)
    return stem.encode()[:keep].decode("utf-8", "ignore") + dot + kind


class Names:
    """Paths in a directory, none of them twice, and none that is there already: `name.txt`, `name-2.txt`, ..."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._used: set[str] = set()
        self._next: dict[str, int] = {}

    def path(self, url: URL) -> str:
        """A path for what `url` brings."""
        base = name = safe_name(url)
        stem, dot, kind = base.rpartition(".")
        if not dot:
            stem, kind = base, ""
        n = self._next.get(base, 1)
        while True:
            if n > 1:
                name = f"{stem}-{n}{dot}{kind}"
            n += 1
            path = os.path.join(self.directory, name)
            if name not in self._used and not os.path.lexists(path):
                break
        self._next[base] = n
        self._used.add(name)
        return path
