"""Where a dial goes and how, and what comes of it; how messages name addresses."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pooledhttp._net.resolver import Resolver, literal

if TYPE_CHECKING:
    import ssl

    from pooledhttp._net.proxy import Proxy
    from pooledhttp._net.tlsconfig import TlsSettings

NAMED_MAX = 32                        # failed addresses that an error's message names

Sessions = list["tuple[ssl.SSLContext, ssl.SSLSession] | None"]


class DeadlinePassed(Exception):
    """The deadline given to `run` came before any limit of the dial's own. `phase` is "dns", "connect", "proxy" or "tls"."""

    def __init__(self, phase: str) -> None:
        super().__init__(phase)
        self.phase = phase


class DialInfo(NamedTuple):
    """The connection made, as `ConnInfo` words it."""

    remote_addr: tuple[str, int] | str | None
    local_addr: tuple[str, int] | str | None
    tls_version: str | None = None
    cipher: str | None = None
    alpn: str | None = None


class TlsInfo(NamedTuple):
    """A handshake that is done, for a trace."""

    tls_version: str | None
    cipher: str | None
    alpn: str | None
    resumed: bool


class Teller(Protocol):
    """Who follows a dial."""

    def tell(self, name: str, *args: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Hop:
    """The proxy on the way. `tls`: how it is spoken to, where by TLS. `tunnel`: it is asked for one, and HTTP itself goes past it. `fields`: a
    checked block of header fields for CONNECT, which may hold secrets. `sessions`: as of `DialSpec`."""

    proxy: Proxy
    tunnel: bool
    tls: TlsSettings | None = None
    fields: bytes = field(default=b"", repr=False)
    sessions: Sessions = field(default_factory=lambda: [None], repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class DialSpec:
    """Where to and how.

    `tls`: None for a plain stream. `hop`: a proxy, to which the connection is then made; all about addresses is about the proxy's.
    `server_hostname` replaces `host` in SNI and in the check of the certificate. `uds`: the path of a Unix socket to connect to instead of host and
    port. `local_address`: an IP, or (IP, port), to connect from.
    `socket_options`: (level, option, value) each, set before the connect. `tcp_keepalive`: seconds of silence before the first probe
    and between probes; None or 0: off. `happy_eyeballs_delay`: seconds until the next address is tried beside the one that has not
    answered; 0: all at once, None: one after another. `connect_filter(ip, port)` returns False to refuse an address; it is asked
    at each dial, of a kept answer too, about what the kernel would connect to (IPv4 where an IPv6 address stands for one).
    `fresh_dns`: pass over a kept answer of the resolver. `sessions`: one place for the newest TLS session of this server, with its
    context: (context, session) or None; a spec is made once a pool key, so no other server is ever offered it.
    """

    host: str
    port: int
    tls: TlsSettings | None = None
    server_hostname: str | None = None
    uds: str | None = None
    local_address: str | tuple[str, int] | None = None
    socket_options: Sequence[tuple[Any, ...]] = ()
    tcp_keepalive: float | None = 15.0
    happy_eyeballs_delay: float | None = 0.3
    connect_filter: Callable[[str, int], bool] | None = None
    resolver: Resolver = field(default_factory=Resolver)
    fresh_dns: bool = False
    hop: Hop | None = None
    sessions: Sessions = field(default_factory=lambda: [None], repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.local_address is not None:
            check_local(self.local_address)

    @property
    def local_ip(self) -> str:
        """Of `local_address`; "" without one."""
        local = self.local_address
        return local[0] if isinstance(local, tuple) else local or ""

    @property
    def where(self) -> str:
        """For messages: the server."""
        return self.uds if self.uds is not None else show((self.host, self.port))

    @property
    def first_host(self) -> str:
        """Of what is connected to."""
        return self.host if self.hop is None else self.hop.proxy.host

    @property
    def first_port(self) -> int:
        return self.port if self.hop is None else self.hop.proxy.port

    @property
    def first_where(self) -> str:
        """For messages."""
        return self.where if self.hop is None else f"the proxy {self.hop.proxy.label}"


def show(address: Any) -> str:
    """A socket's address for messages: "127.0.0.1:80", "[::1]:80", "[fe80::1%2]:80", or a path."""
    if not isinstance(address, tuple):
        return str(address)
    ip = f"{address[0]}%{address[3]}" if len(address) > 3 and address[3] and "%" not in address[0] else address[0]
    return f"[{ip}]:{address[1]}" if ":" in ip else f"{ip}:{address[1]}"


def show_all(told: Sequence[str], apart: str) -> str:
    """`told` in one line, which stays one that can be read."""
    return apart.join(told[:NAMED_MAX]) + (f"{apart}and {len(told) - NAMED_MAX} more" if len(told) > NAMED_MAX else "")


def check_local(address: Any) -> None:
    """Raises ValueError where it is neither an IP address nor (IP, port)."""
    ip, port = address if isinstance(address, tuple) and len(address) == 2 else (address, 0)
    if not isinstance(ip, str) or not isinstance(port, int) or not 0 <= port < 65536 or literal(ip, 0) is None:
        raise ValueError(f"local_address is no IP address, nor (IP address, port): {address!r}")


def check_options(options: Any) -> tuple[tuple[Any, ...], ...]:
    """`socket_options` as tuples of their own; TypeError for one that setsockopt would not take."""
    checked = []
    for option in options:
        if not isinstance(option, (tuple, list)) or len(option) not in (3, 4) or not all(isinstance(n, int) for n in option[:2]):
            raise TypeError(f"socket_options are (level, option, value) each, not {option!r}")
        checked.append(tuple(option))
    return tuple(checked)
