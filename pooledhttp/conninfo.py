"""What a response or an error says of the connection that carried it."""
from __future__ import annotations


class ConnInfo:
    """A connection, as it was when the response's head (or the error) came.

    `id` is unique in the process; `requests` counts those it has served, this one included; `idle_for` is how long it had
    idled before this request, in seconds. Addresses are (host, port), or the path of a Unix socket.
    """

    __slots__ = ("alpn", "cipher", "id", "idle_for", "local_addr", "remote_addr", "requests", "reused", "tls_version")
    id: int
    reused: bool
    requests: int
    idle_for: float
    remote_addr: tuple[str, int] | str | None
    local_addr: tuple[str, int] | str | None
    tls_version: str | None
    cipher: str | None
    alpn: str | None

    def __init__(self, id: int, reused: bool, requests: int, idle_for: float, remote_addr: tuple[str, int] | str | None,
                 local_addr: tuple[str, int] | str | None, tls_version: str | None, cipher: str | None, alpn: str | None) -> None:
        self.id = id
        self.reused = reused
        self.requests = requests
        self.idle_for = idle_for
        self.remote_addr = remote_addr
        self.local_addr = local_addr
        self.tls_version = tls_version
        self.cipher = cipher
        self.alpn = alpn

    def _values(self) -> tuple[object, ...]:
        return (self.id, self.reused, self.requests, self.idle_for, self.remote_addr, self.local_addr, self.tls_version, self.cipher, self.alpn)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConnInfo) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __reduce__(self) -> tuple[type[ConnInfo], tuple[object, ...]]:
        return ConnInfo, self._values()

    def __repr__(self) -> str:
        return (f"ConnInfo(id={self.id!r}, reused={self.reused!r}, requests={self.requests!r}, idle_for={self.idle_for!r}, "
                f"remote_addr={self.remote_addr!r}, local_addr={self.local_addr!r}, tls_version={self.tls_version!r}, cipher={self.cipher!r}, "
                f"alpn={self.alpn!r})")
