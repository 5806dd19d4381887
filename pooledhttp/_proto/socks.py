"""SOCKS 5 (RFC 1928), with user name and password (RFC 1929): what is sent to the proxy, and what its answers mean. Bytes in, facts out."""
from __future__ import annotations

from collections.abc import Callable

from pooledhttp import errors

_NONE, _PASSWORD, _NO_METHOD = 0, 2, 0xff
_IPV4, _NAME, _IPV6 = 1, 3, 4

# RFC 1928 section 6.
REPLIES = {
    1: "general SOCKS server failure",
    2: "connection not allowed by ruleset",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "command not supported",
    8: "address type not supported",
}


class Socks:
    """A connection through the proxy `who` (for messages) to `host` and `port`.

    `address` is `host` in four or sixteen bytes where it is an address, or was resolved; None: the proxy resolves the name. Send `outgoing` whenever
    there is some, and `feed` what comes, at most `room` bytes at a time: what follows the last answer is the origin's. `early` stays empty.
    """

    def __init__(self, who: str, host: str, port: int, address: bytes | None, username: bytes = b"", password: bytes = b"") -> None:
        self._who = who
        self._to = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._login = username, password
        if address is not None:
            where = bytes([_IPV4 if len(address) == 4 else _IPV6]) + address
        else:
            name = host.encode("ascii")
            if len(name) > 255:
                raise errors.ProxyError(f"a name of {len(name)} bytes is too long for SOCKS, which takes 255", phase="proxy")
            where = bytes([_NAME, len(name)]) + name
        self._request = b"\x05\x01\x00" + where + port.to_bytes(2, "big")
        methods = [_NONE, _PASSWORD] if username or password else [_NONE]
        self.outgoing = bytes([5, len(methods), *methods])
        self.room = 2
        self.early = b""
        self._pending = b""
        self._step: Callable[[bytes], bool] = self._method

    def feed(self, data: bytes) -> bool:
        """More of the answers, b"" where the proxy has closed: whether the connection is there. Raises ProxyError."""
        if not data:
            raise errors.ProxyError(f"the proxy {self._who} closed the connection before it was done with {self._to}", phase="proxy")
        self._pending += data
        self.room -= len(data)
        if self.room > 0:
            return False
        answer, self._pending = self._pending, b""
        return self._step(answer)

    def _method(self, answer: bytes) -> bool:
        version, method = answer
        if version != 5:
            hint = ": it speaks HTTP" if answer in (b"HT", b"\r\n") else ""
            raise self._no_socks(answer, hint)
        offered = self._login != (b"", b"")
        if method == _PASSWORD and offered:
            username, password = self._login
            self.outgoing = bytes([1, len(username)]) + username + bytes([len(password)]) + password
            self._next(2, self._login_answer)
        elif method == _NONE:
            self._ask()
        elif method == _NO_METHOD:
            wanted = "it does not take a user name and password" if offered else "it wants a user name and password: give them in its URL"
            raise errors.ProxyError(f"the proxy {self._who} accepts no way of authentication that we offer ({wanted})", phase="proxy")
        else:
            raise errors.ProxyError(f"the proxy {self._who} chose a way of authentication that was not offered ({method})", phase="proxy")
        return False

    def _login_answer(self, answer: bytes) -> bool:
        # The version is 1; some say 5.
        if answer[1]:
            raise errors.ProxyError(f"the proxy {self._who} refused the user name and password", phase="proxy", reason="authentication failed")
        self._ask()
        return False

    def _ask(self) -> None:
        self.outgoing = self._request
        self._next(5, self._reply)

    def _reply(self, answer: bytes) -> bool:
        version, code, _, kind, first = answer
        if version != 5:
            raise self._no_socks(answer)
        if code:
            why = REPLIES.get(code, "a reply that RFC 1928 does not know")
            raise errors.ProxyError(f"the proxy {self._who} did not connect to {self._to}: {why} (reply {code})", phase="proxy", reason=why, socks_reply=code)
        sizes = {_IPV4: 4, _IPV6: 16, _NAME: first + 1}
        if kind not in sizes:
            raise self._no_socks(answer)
        # `first` is the address's first byte, or its length; two bytes of port follow.
        self._next(sizes[kind] - 1 + 2, self._bound)
        return False

    def _bound(self, answer: bytes) -> bool:
        return True

    def _next(self, room: int, step: Callable[[bytes], bool]) -> None:
        self.room = room
        self._step = step

    def _no_socks(self, answer: bytes, hint: str = "") -> errors.ProxyError:
        return errors.ProxyError(f"the proxy {self._who} does not speak SOCKS 5{hint}: it answered {answer!r}", phase="proxy")
