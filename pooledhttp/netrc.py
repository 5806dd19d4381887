"""Users and passwords from a netrc file, by host."""
from __future__ import annotations

import os

from pooledhttp._typing import TYPE_CHECKING, Any
from pooledhttp.auth import Auth, BasicAuth

if TYPE_CHECKING:
    from pooledhttp.request import Request

    Stamp = tuple[int, int, int, int]


class NetRCAuth(Auth):
    """Basic authentication as a netrc file says for the request's host, or else its `default` entry.

    `file`: a path; without it, the one that the variable NETRC names when a request is sent, else ~/.netrc, which must be readable by
    its owner alone, and may be absent. The file is read when first needed, and again when it has changed. A request that bears an
    `Authorization` keeps it, and a host without an entry gets none.

    A request raises OSError where a file that was named cannot be read, and ValueError where the file is not a netrc.
    """

    __slots__ = ("_read", "file")

    def __init__(self, file: str | os.PathLike[str] | None = None) -> None:
        self.file: str | None = None if file is None else os.fspath(file)
        # (path, stamp, entries): replaced as one, so that threads need no lock; two may read the same file.
        self._read: tuple[str, Stamp, dict[str, tuple[str, str]]] | None = None

    def __call__(self, request: Request) -> Request:
        if "authorization" not in request.headers:
            entries = self._entries()
            entry = entries.get(request.url.host) or entries.get("")
            if entry is not None:
                request = BasicAuth(*entry)(request)
        return request

    def _entries(self) -> dict[str, tuple[str, str]]:
        """(user, password) by host in lower case; the default's by ""."""
        named = self.file or os.environ.get("NETRC")
        path = named or os.path.expanduser("~/.netrc")
        try:
            status = os.stat(path)
        except FileNotFoundError:
            if named:
                raise
            return {}
        stamp = status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode
        known = self._read
        if known is None or known[:2] != (path, stamp):
            self._read = known = path, stamp, _parse(path, None if not named else path)
        return known[2]

    def __eq__(self, other: object) -> bool:
        return self.file == other.file if isinstance(other, NetRCAuth) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.file)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.file!r})" if self.file is not None else f"{type(self).__name__}()"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.file,)


def _parse(path: str, file: str | None) -> dict[str, tuple[str, str]]:
    from netrc import NetrcParseError, netrc

    try:
        hosts = netrc(file).hosts              # without a path it looks at the file's owner and mode, too
    except NetrcParseError as e:
        # What it says of a line may quote a password; of the file's owner and mode it does not.
        what = e.msg if e.msg.startswith("~/.netrc ") else f"line {e.lineno} is not what a netrc holds"
        raise ValueError(f"{path}: {what}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not text") from None
    entries = {}
    for host, (login, account, password) in hosts.items():
        user = login or account
        if user or password:
            entries["" if host == "default" else host.lower()] = user or "", password or ""
    return entries
