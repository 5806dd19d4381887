"""Which proxy a request takes: the transport's option, or what its client found in the environment.

The environment's rules are those of Python's urllib (as requests and httpx have them) and Go's for loopback:
https://pkg.go.dev/golang.org/x/net/http/httpproxy#Config.
"""
from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from pooledhttp._net.proxy import DEFAULT_PORTS, Proxy, basic, hold, proxy
from pooledhttp._proto.writer import field_block
from pooledhttp._typing import TYPE_CHECKING, Any
from pooledhttp.errors import InvalidURL, ProxyError, UnsupportedProtocol
from pooledhttp.url import URL, redact

if TYPE_CHECKING:
    import ipaddress
    from typing import TypeAlias

    Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
    Fields: TypeAlias = list[tuple[str, str | bytes]]

ENV = "env"
_AUTHORIZATION = "proxy-authorization"
# What the request or CONNECT says by itself, and what would be another request.
_FRAMING = frozenset(("host", "content-length", "transfer-encoding", "connection"))
_ENDS = frozenset("/?#")
_MEMO_SIZE = 1024


def parse(text: str) -> Proxy:
    """The proxy of a URL; ValueError says what is wrong with it, without userinfo. Without a scheme it is http://, as curl and Go have it."""
    if not isinstance(text, str):
        raise TypeError(f"a proxy is a URL, not {type(text).__name__}")
    if "://" not in text:
        text = "http://" + text
    scheme, _, rest = text.partition("://")
    userinfo, _, where = rest.rpartition("@")
    if not _ENDS.isdisjoint(userinfo):           # first: what follows would take it for a host, and show it
        raise ValueError(f"'/', '?' and '#' in the userinfo of a proxy's URL are written as %2F, %3F and %23: {redact(f'{scheme}://{where}')}")
    try:
        url = URL(text)
    except (InvalidURL, UnsupportedProtocol) as e:
        raise ValueError(f"not a proxy's URL: {e.message}") from None
    if url.scheme not in DEFAULT_PORTS:
        raise ValueError(f"a proxy is http, https, socks5 or socks5h, not {url.scheme!r}: {redact(text)}")
    if url.target != "/" or url.fragment:
        raise ValueError(f"a proxy's URL has no path, query or fragment: {redact(text)}")
    port = url.port or DEFAULT_PORTS[url.scheme]
    if not url.userinfo:
        return proxy(url.scheme, url.host, port)
    username, password = url.username, url.password
    if url.scheme.startswith("socks"):
        login = username.encode(), password.encode()
        if max(map(len, login)) > 255:
            raise ValueError(f"a user name or password over 255 bytes, which SOCKS does not take: {redact(text)}")
        return proxy(url.scheme, url.host, port, *login)
    if ":" in username:
        raise ValueError(f"a colon in the user name, which Basic authentication does not take (RFC 7617): {redact(text)}")
    return proxy(url.scheme, url.host, port, authorization=basic(username, password))


def check_fields(fields: Any) -> Fields:
    """`proxy_headers` as pairs. TypeError, ValueError or LocalProtocolError for what cannot be sent."""
    if fields is None:
        return []
    pairs = list(fields.multi_items() if hasattr(fields, "multi_items") else fields.items() if hasattr(fields, "items") else fields)
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
        raise TypeError("proxy_headers are a mapping or (name, value) pairs")
    pairs = [(name.decode("ascii") if isinstance(name, bytes) else name, value) for name, value in pairs]
    field_block(pairs)
    for name, _ in pairs:
        if name.lower() in _FRAMING:
            raise ValueError(f"proxy_headers cannot have {name}: it is said by itself")
    return pairs


# -- the environment --

class Environment:
    """The proxy variables as they were when a client was made. `read` gives one object for equal variables."""

    def __init__(self, values: tuple[tuple[str, str], ...], no_proxy: str) -> None:
        self._values = values                  # for http, https and the rest: the variable's name and what it said
        self._no_proxy = no_proxy
        self._bypass: Bypass | None = None
        self._parsed: dict[str, Proxy] = {}
        self._memo: dict[tuple[str, str, int], Proxy | None] = {}

    @staticmethod
    def read(environ: Mapping[str, str]) -> Environment | None:
        """None where no variable names a proxy. Looks names up: a large environment costs nothing."""
        get = environ.get
        # A CGI server passes a request's Proxy field as HTTP_PROXY (https://httpoxy.org).
        cgi = "REQUEST_METHOD" in environ
        everything = _first(get, "all_proxy", "ALL_PROXY")
        values = tuple(found if found[1] else everything for found in (
            ("http_proxy", get("http_proxy", "")) if cgi else _first(get, "http_proxy", "HTTP_PROXY"), _first(get, "https_proxy", "HTTPS_PROXY")))
        if not values[0][1] and not values[1][1]:
            return None
        key = values, _first(get, "no_proxy", "NO_PROXY")[1]
        known = _environments.get(key)
        if known is None:
            if len(_environments) >= _MEMO_SIZE:
                _environments.clear()
            known = _environments.setdefault(key, Environment(*key))
        return known

    def choose(self, url: URL) -> Proxy | None:
        """The proxy for `url`. ProxyError where its variable holds none."""
        key = url.scheme, url.host, url.effective_port
        try:
            return self._memo[key]
        except KeyError:
            pass
        chosen = None
        name, value = self._values[url.scheme == "https"]
        if value and not loopback(url.host):
            if self._bypass is None:
                self._bypass = Bypass(self._no_proxy)
            if not self._bypass(url.host, url.effective_port):
                chosen = self._parsed.get(value)
                if chosen is None:
                    try:
                        chosen = self._parsed[value] = parse(value)
                    except ValueError as e:
                        raise ProxyError(f"the environment's {name} cannot be used: {e}", phase="proxy") from None
        if len(self._memo) >= _MEMO_SIZE:
            self._memo.clear()
        self._memo[key] = chosen
        return chosen


_environments: dict[tuple[tuple[tuple[str, str], ...], str], Environment] = {}


def _first(get: Callable[[str], str | None], lower: str, upper: str) -> tuple[str, str]:
    """The lower case wins, also where it is set to nothing."""
    value = get(lower)
    return (upper, (get(upper) or "").strip()) if value is None else (lower, value.strip())


def loopback(host: str) -> bool:
    """Whether `host` is this machine, by its name."""
    host = host.rstrip(".")
    if host == "localhost":
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that `host` is, an IPv4-mapped one as IPv4; None for a name."""
    if ":" not in host and not host[-1:].isdigit():
        return None
    import ipaddress

    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class Bypass:
    """NO_PROXY, parsed: called with host and port, whether they are reached without a proxy.

    Entries stand between commas or spaces: "*" for all; a name, for itself and what is beneath it, a leading "." or "*." being the same; an
    address; a network ("10.0.0.0/8", "fd00::/8"). A name or an address may have a port, an IPv6 address in brackets then.
    """

    def __init__(self, text: str) -> None:
        self._all = False
        self._names: dict[str, set[int]] = {}               # a name to its ports; 0: all
        self._addresses: dict[Any, set[int]] = {}
        self._networks: list[Network] = []
        for entry in text.replace(",", " ").split():
            self._add(entry.lower())

    def _add(self, entry: str) -> None:
        if entry == "*":
            self._all = True
            return
        if "/" in entry:
            import ipaddress

            try:
                self._networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                return                       # a hint for all programs: what we do not know, another one may
            return
        host, port = entry, 0
        if entry.startswith("["):
            host, _, rest = entry[1:].partition("]")
            digits = rest.removeprefix(":")
        elif entry.count(":") == 1:
            host, _, digits = entry.partition(":")
        else:
            digits = ""
        if digits:
            if not digits.isascii() or not digits.isdigit():
                return
            port = int(digits)
        address = _address(host)
        if address is not None:
            self._addresses.setdefault(address, set()).add(port)
            return
        host = host.removeprefix("*").strip(".")
        if not host.isascii():
            try:
                host = URL(f"http://{host}").host
            except InvalidURL:
                return
        if host:
            self._names.setdefault(host, set()).add(port)

    def __call__(self, host: str, port: int) -> bool:
        if self._all:
            return True
        host = host.rstrip(".")
        address = _address(host)
        if address is not None:
            ports = self._addresses.get(address, ())
            return 0 in ports or port in ports or any(address in network for network in self._networks)
        name = host
        while name:
            ports = self._names.get(name, ())
            if 0 in ports or port in ports:
                return True
            name = name.partition(".")[2]
        return False


# -- what a request is told --

class Rule:
    """A transport's `proxy` and `proxy_headers`, checked.

    `alone` is the option that goes with no proxy: "connect_filter", "uds" or "". `fields` are `proxy_headers` but for Proxy-Authorization, which
    stands in place of a URL's userinfo.
    """

    def __init__(self, option: Any, fields: Any, alone: str) -> None:
        self.fixed: Proxy | None = None
        self.ask: Callable[[URL], str | None] | None = None
        self.env = isinstance(option, str) and option == ENV
        pairs = check_fields(fields)
        self.fields = [pair for pair in pairs if pair[0].lower() != _AUTHORIZATION]
        self._authorization = _last_authorization(pairs)
        self._authorized: dict[Proxy, Proxy] = {}              # of the environment, which has few
        self.alone = alone
        if callable(option):
            self.ask = option
        elif option is not None and not self.env:
            self.fixed = self.authorized(parse(option))
        if alone and (self.fixed is not None or self.ask is not None):
            raise ValueError(_refusal(alone))

    def authorized(self, chosen: Proxy) -> Proxy:
        if not self._authorization:
            return chosen
        if not self.env:
            return chosen.authorized(self._authorization)
        known = self._authorized.get(chosen)
        if known is None:
            known = self._authorized[chosen] = chosen.authorized(self._authorization)
        return known


def _refusal(alone: str) -> str:
    why = "it would see the proxy's address and not the server's" if alone == "connect_filter" else "a Unix socket is no way to a proxy"
    return f"{alone} and a proxy exclude each other: {why} (proxy=None takes none)"


class Surroundings:
    """What a client found in the environment, and the rule of its transport: what a request needs to know to find its pool.

    `ca`: the end of the pool keys of what speaks TLS. A request carries it as `trust`.
    """

    __slots__ = ("ca", "env", "rule")

    def __init__(self, ca: str, env: Environment | None, rule: Rule) -> None:
        self.ca = ca
        self.env = env if rule.env and rule.alone != "uds" else None
        self.rule = rule

    def varies(self, url: URL, fields: Sequence[tuple[str, str | bytes]]) -> bool:
        """Whether the next such request may take another proxy, or one that nobody holds, or says what shows in it as the caller's own."""
        return self.rule.ask is not None or bool(_last_authorization(fields)) or bool(self.rule.fields and url.scheme == "http")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Surroundings) and (self.ca, self.env, self.rule) == (other.ca, other.env, other.rule)

    def __hash__(self) -> int:
        return hash((self.ca, self.env, self.rule))

    def choose(self, url: URL) -> Proxy | None:
        """The proxy for `url`. ProxyError where the environment names none that can be used; ValueError for a callable's, or where none may be."""
        rule = self.rule
        if url.socket_path is not None:
            return None                      # to a Unix socket no proxy leads
        if rule.fixed is not None:
            return rule.fixed
        if rule.ask is not None:
            said = rule.ask(url)
            return None if said is None else rule.authorized(parse(said))
        chosen = None if self.env is None else self.env.choose(url)
        if chosen is None:
            return None
        if rule.alone:
            raise ValueError(_refusal(rule.alone))
        return rule.authorized(chosen)

    def route(self, request: Any, fields: Fields) -> tuple[str, str]:
        """The pool key and the target for `request`, which holds the proxy that the key names.

        Puts into `fields` what a proxy that reads them is to see, and takes out what it alone may: it goes into CONNECT.
        """
        url: URL = request.url
        chosen = None if url.socket_path is not None else self.choose(url)            # no proxy leads to a socket of this machine
        secure = url.scheme == "https"
        proxied = self.env is not None or self.rule.fixed is not None or self.rule.ask is not None
        mine = _last_authorization(fields) if proxied else ""
        if mine:                             # also where this URL takes none: it is for the proxy that others take
            fields[:] = [pair for pair in fields if pair[0].lower() != _AUTHORIZATION]
        if chosen is None:
            return (url.key + self.ca if secure else url.key), url.target
        if mine:
            chosen = chosen.authorized(mine)
        target = url.target
        if not chosen.tunnels(url.scheme):
            target = f"{url.scheme}://{url.host_field}{url.target}"        # an IPv6 zone is this machine's own
            names = {name.lower() for name, _ in fields}
            fields.extend(pair for pair in self.rule.fields if pair[0].lower() not in names)
            if chosen.authorization:
                fields.append(("Proxy-Authorization", chosen.authorization))
        if chosen is not self.rule.fixed:
            hold(request, chosen)
        return f"{url.key} via {chosen.label}{self.ca if secure or chosen.scheme == 'https' else ''}", target


def connect_fields(rule: Rule, chosen: Proxy) -> bytes:
    """What CONNECT says beside Host, checked."""
    return field_block([*rule.fields, ("Proxy-Authorization", chosen.authorization)] if chosen.authorization else rule.fields)


def _last_authorization(fields: Sequence[tuple[str, str | bytes]]) -> str:
    value = next((value for name, value in reversed(fields) if name.lower() == _AUTHORIZATION), "")
    return value if isinstance(value, str) else value.decode("latin-1")


def surroundings(rule: Rule, ca: str, trust_env: bool) -> Surroundings | None:
    """What a client of a transport of that `rule` tells its requests; None where there is nothing to tell."""
    env = Environment.read(os.environ) if trust_env and rule.env and rule.alone != "uds" else None
    return Surroundings(ca, env, rule) if ca or env is not None or not rule.env else None
