"""A proxy as the dial and the pool know it: where it is, how it is asked, and a name for it that holds no secret."""
from __future__ import annotations

import base64
import itertools
import threading
import weakref

from pooledhttp._typing import Any

HELD = 64                    # proxies that one request holds
DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


class Proxy:
    """Made by `proxy`: one object for equal values, for as long as anybody holds it, so that pools may tell proxies apart by `label`.

    `authorization` is the value of Proxy-Authorization, "" for none; a SOCKS proxy has `username` and `password` instead. `label` is
    "http://proxy.example:3128", with a number behind it where there are credentials: "http://proxy.example:3128#1".
    """

    __slots__ = ("__weakref__", "authorization", "host", "label", "password", "port", "scheme", "username")
    scheme: str
    host: str
    port: int
    username: bytes
    password: bytes
    authorization: str
    label: str

    @property
    def socks(self) -> bool:
        return self.scheme.startswith("socks")

    def tunnels(self, scheme: str) -> bool:
        """Whether it carries bytes to an origin of `scheme`, and does not read the requests itself."""
        return scheme != "http" or self.socks

    def authorized(self, value: str) -> Proxy:
        """The same proxy, asked with this Proxy-Authorization. A SOCKS proxy has no such thing, and stays as it is."""
        return self if self.socks else proxy(self.scheme, self.host, self.port, authorization=value)

    def __repr__(self) -> str:
        return f"<Proxy {self.label}>"


_lock = threading.RLock()           # a signal's handler may make a request
_numbers = itertools.count(1)
_proxies: weakref.WeakValueDictionary[tuple[object, ...], Proxy] = weakref.WeakValueDictionary()
_labels: weakref.WeakValueDictionary[str, Proxy] = weakref.WeakValueDictionary()


def proxy(scheme: str, host: str, port: int, username: bytes = b"", password: bytes = b"", authorization: str = "") -> Proxy:
    """The proxy of these values."""
    key = scheme, host, port, username, password, authorization
    found = _proxies.get(key)
    if found is not None:
        return found
    with _lock:
        found = _proxies.get(key)
        if found is None:
            found = Proxy()
            found.scheme, found.host, found.port, found.username, found.password, found.authorization = key
            where = f"[{host}]" if ":" in host else host
            found.label = f"{scheme}://{where}:{port}"
            if username or password or authorization:
                found.label += f"#{next(_numbers)}"
            _labels[found.label] = found
            _proxies[key] = found
        return found


def hold(request: Any, chosen: Proxy) -> None:
    """`request.held` has `chosen` from now on, and the last that it had; several threads may send one request."""
    with _lock:
        request.held = (chosen, *request.held[:HELD - 1])


def labelled(label: str) -> Proxy:
    """The proxy of that label, which somebody holds."""
    return _labels[label]


def basic(username: str, password: str) -> str:
    """Proxy-Authorization by RFC 7617, in UTF-8."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode("ascii")


def reset_after_fork() -> None:
    """In the child: the lock may have been held by a thread that is not here."""
    global _lock
    _lock = threading.RLock()
