"""What a program may follow of its requests: the base of `Transport(trace=...)`."""
from __future__ import annotations

from pooledhttp._typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pooledhttp.conninfo import ConnInfo

    Address: TypeAlias = "tuple[str, int] | str"


class Trace:
    """Hooks of `Transport(trace=...)`, modelled on Go's `net/http/httptrace`; each does nothing here.

    Given an object (of this class or any other), all requests of the transport call its hooks. Given a subclass of this class, each exchange makes
    an instance of it, without arguments, whose `key`, `method` and `target` say what it is of; one instance more, with these empty, hears of
    connections closed while no request had to do with it. A redirect, a retry by policy and a step of an auth are exchanges of their own.

    A hook is called when it happens, on the request's own thread unless it says otherwise, and never under a lock. It may take fewer arguments than
    are said here: the first ones. An `Exception` that it raises goes to `sys.unraisablehook`, and the request goes on; what is no `Exception`
    (KeyboardInterrupt) ends the request. Its time counts as the request's.
    """

    key: str = ""            # the pool key, as in `stats().hosts`
    method: str = ""
    target: str = ""         # path and query, as on the request line

    def get_conn(self, key: str, method: str, target: str) -> None:
        """A connection is wanted: an exchange begins, or begins again because its reused connection died."""

    def got_conn(self, info: ConnInfo) -> None:
        """It has one, just dialed or reused, and the request is about to be sent."""

    def dns_start(self, host: str) -> None:
        """A name is to be resolved. Not called for IP addresses and Unix sockets."""

    def dns_done(self, addresses: Sequence[tuple[str, int]], error: BaseException | None, kept: bool) -> None:
        """It is resolved to (ip, port) each, or is not. `kept`: nobody was asked, the answer was of `dns_cache_ttl` seconds ago at most."""

    def connect_start(self, address: Address) -> None:
        """A TCP connect to (ip, port), or one to the path of a Unix socket. Of Happy Eyeballs several may be under way."""

    def connect_done(self, address: Address, error: BaseException | None) -> None:
        """It is connected, or not: also where another address was faster, and where the dial is given up."""

    def tls_start(self, host: str) -> None:
        """A handshake, with the server or with the proxy that `host` names."""

    def tls_done(self, info: Any, error: BaseException | None) -> None:
        """`info` has `tls_version`, `cipher`, `alpn` and `resumed`; None where it failed. A kept session that the server refuses makes a second handshake."""

    def wrote_request(self, error: BaseException | None) -> None:
        """Head and body are with the kernel, or will not be. May come after `first_byte` where the server answers early."""

    def got_1xx(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """An interim response, as 100 or 103."""

    def first_byte(self) -> None:
        """The first byte of the answer, of an interim one too, has arrived."""

    def put_idle(self, error: str | None) -> None:
        """The connection could serve again and was pooled; or it was not, for the reason `error`, and `closed` follows.

        It is in the pool by then: another thread may tell of it what comes next a moment before. Called by whoever ends the body: the thread that
        reads it, or the janitor's for one that was closed early. For a dial that a request left behind for another connection, by the thread that
        finished it.
        """

    def closed(self, reason: str, info: ConnInfo) -> None:
        """A connection was closed; `reason` is a key of `stats().closed`.

        On whatever thread did it: the request's, that of another request (eviction), the janitor's (idle timeouts, drains, responses collected
        unclosed), that of `Transport.close()`. Not called in a forked child for what is the parent's.
        """
