"""URLs as RFC 3986 has them: parsed, normalised, and a `str` all the same.

What is normalised: the scheme and the host in lower case, an IDNA host in ASCII, an IPv6 literal in its shortest form, a default port
left out, dot segments removed (section 5.2.4), an empty path made "/". What may not stand in a component is percent-encoded
as UTF-8; valid escapes are left as they are. The userinfo is kept in the string, and left out of `repr` and every message.

"http+unix://%2Frun%2Fx.sock/path" names a Unix socket: its path, percent-encoded, stands for the host.
"""
from __future__ import annotations

from pooledhttp._typing import TYPE_CHECKING, Any
from pooledhttp.errors import InvalidURL, LocalProtocolError, UnsupportedProtocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import TypeAlias

Params: TypeAlias = "str | bytes | Mapping[str, Any] | Iterable[tuple[str, Any]]"

UNIX = "http+unix"
DEFAULT_PORTS = {"http": 80, "https": 443, UNIX: 80}

_ALNUM = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_UNRESERVED = frozenset(_ALNUM + "-._~")
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._~")
_REG_NAME = _UNRESERVED | frozenset("!$&'()*+,;=")
_USERINFO = _REG_NAME | {":"}
_PATH = _REG_NAME | frozenset(":@/")
_QUERY = _PATH | {"?"}
_SCHEME = frozenset(_ALNUM + "+-.")
_HEX = frozenset("0123456789abcdefABCDEF")
_DIGITS = frozenset("0123456789")
_CONTROLS = frozenset(map(chr, range(32))) | {"\x7f"}

_ESCAPED = [chr(b) if chr(b) in _UNRESERVED else f"%{b:02X}" for b in range(256)]
_FORM_SAFE = frozenset(_ALNUM + "-._*")
_FORM_ESCAPED = [chr(b) if chr(b) in _FORM_SAFE else f"%{b:02X}" for b in range(256)]
_FORM_ESCAPED[32] = "+"

_MEMO_SIZE = 1024          # texts; longer ones than _MEMO_TEXT characters are parsed each time
_MEMO_TEXT = 2048
_memo: dict[str, URL] = {}


class UnsafeURL(LocalProtocolError, InvalidURL):
    """The URL holds a control character, which could split a request."""


def redact(text: str) -> str:
    """`text`, which need not be a valid URL, as a message may show it: no userinfo, query or fragment; quoted and short."""
    text = text.partition("#")[0].partition("?")[0]
    scheme, mark, rest = text.partition("://")
    if mark:
        authority, slash, path = rest.partition("/")
        text = scheme + mark + authority.rpartition("@")[2] + slash + path
    elif "@" in text:
        text = text.rpartition("@")[2]
    return repr(text if len(text) <= 200 else text[:197] + "...")


def _encode(text: str, safe: frozenset[str]) -> str:
    """`text` with what is not `safe` percent-encoded (RFC 3986 section 2.1); a valid escape stays, a lone "%" becomes "%25"."""
    if safe.issuperset(text):
        return text
    out = []
    for i, ch in enumerate(text):
        if ch in safe or (ch == "%" and i + 2 < len(text) and _HEX.issuperset(text[i + 1:i + 3])):
            out.append(ch)
        else:
            out.extend([_ESCAPED[b] for b in ch.encode("utf-8")])
    return "".join(out)


def _unescaped(text: str) -> bytes:
    first, *rest = text.split("%")
    return first.encode() + b"".join(bytes.fromhex(part[:2]) + part[2:].encode() for part in rest)


def unescape(text: str) -> str:
    """`text`, whose escapes are valid, with them decoded as UTF-8, or as Latin-1 where they are not UTF-8."""
    if "%" not in text:
        return text
    data = _unescaped(text)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def remove_dot_segments(path: str) -> str:
    """An absolute path without "." and ".." segments (RFC 3986 section 5.2.4)."""
    if "/." not in path:
        return path
    out: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            if out:
                out.pop()
        elif segment != ".":
            out.append(segment)
    if segments[-1] in (".", ".."):
        out.append("")
    return "/" + "/".join(out)


def _host(host: str, text: str) -> str:
    """A registered name or IPv4 address in its ASCII form."""
    if not host:
        raise InvalidURL(f"no host in the URL {redact(text)}")
    if not host.isascii():
        import idna

        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except UnicodeError as e:
            raise InvalidURL(f"not a host name that IDNA allows in the URL {redact(text)}: {e}") from None
    host = host.lower()
    # Checked after IDNA: its mapping may give "/", "@" or "?" (U+2100 becomes "a/c"), which would move the host's end.
    if not _REG_NAME.issuperset(host):
        raise InvalidURL(f"a character that no host may have in the URL {redact(text)}")
    labels = host.removesuffix(".").split(".")
    if "" in labels or max(map(len, labels)) > 63 or len(host) > 254:
        raise InvalidURL(f"an empty or too long label in the host of the URL {redact(text)}, or too many")
    return host


def _ipv6(literal: str, text: str) -> tuple[str, str]:
    """The address as it is dialed, "fe80::1%eth0", and as it stands in a URL, "fe80::1%25eth0" (RFC 6874; a bare "%" is taken for that)."""
    import socket

    address, percent, zone = literal.partition("%")
    try:
        address = socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, address))
    except (OSError, ValueError):
        raise InvalidURL(f"not an IPv6 address between the brackets of the URL {redact(text)}") from None
    if not percent:
        return address, address
    zone = zone.removeprefix("25")
    if not zone or not _UNRESERVED.issuperset(zone):
        raise InvalidURL(f"not an IPv6 zone id between the brackets of the URL {redact(text)}")
    return f"{address}%{zone}", f"{address}%25{zone}"


def _socket_path(name: str, text: str) -> str:
    """A Unix socket's path in the one way in which we write it. Capitals are escaped: who compares hosts in lower case tells them apart."""
    if not name:
        raise InvalidURL(f"no socket in the URL {redact(text)}: its path is percent-encoded (http+unix://%2Frun%2Fx.sock/)")
    if ":" in name:
        raise InvalidURL(f"a Unix socket has no port, in the URL {redact(text)}")
    data = _unescaped(_encode(name, _REG_NAME))
    if b"\0" in data[1:]:                                # at the beginning it is a name of Linux's own space
        raise InvalidURL(f"a NUL in the socket's path in the URL {redact(text)}")
    return "".join([chr(b) if chr(b) in _LOWER else f"%{b:02x}" for b in data])


def _port(digits: str, text: str) -> int | None:
    if not digits:
        return None
    if not _DIGITS.issuperset(digits):
        raise InvalidURL(f"the port is not a number in the URL {redact(text)} (an IPv6 address stands in brackets)")
    digits = digits.lstrip("0")
    port = int(digits) if 1 <= len(digits) <= 5 else 0
    if not 1 <= port <= 65535:
        raise InvalidURL(f"the port is out of range (1 to 65535) in the URL {redact(text)}")
    return port


class URL(str):
    """A URL with a scheme and a host, normalised; `params` are appended to its query.

    `scheme`, `userinfo` (as written), `host` (ASCII; IPv6 without brackets, a zone behind "%"), `port` (None where it is the scheme's
    default), `path`, `query`, `fragment` are its parts. Raises InvalidURL, or UnsupportedProtocol for what has a scheme but no "//".
    """

    __slots__ = ("authority", "fragment", "host", "path", "port", "query", "scheme", "target", "userinfo")
    scheme: str
    userinfo: str
    host: str
    port: int | None
    path: str
    query: str
    fragment: str
    authority: str      # host and port: no userinfo, no default port, IPv6 in brackets
    target: str         # the origin-form of a request: path and query (RFC 9112 section 3.2.1)

    def __new__(cls, url: str, params: Params | None = None) -> URL:
        if not isinstance(url, str):
            raise TypeError(f"a URL is a str, not {type(url).__name__}")
        self = url if isinstance(url, URL) else _parse(url)
        return self if params is None else self.with_params(params)

    @property
    def username(self) -> str:
        """The userinfo's first part, decoded; "" where there is none."""
        return unescape(self.userinfo.partition(":")[0])

    @property
    def password(self) -> str:
        """The userinfo's second part, decoded; "" where there is none."""
        return unescape(self.userinfo.partition(":")[2])

    @property
    def host_field(self) -> str:
        """What a request says in Host: the authority, without an IPv6 zone (RFC 6874 section 4); "localhost" for a Unix socket."""
        if self.scheme == UNIX:
            return "localhost"
        address, zone, rest = self.authority.partition("%25")
        return address + rest[rest.index("]"):] if zone else address

    @property
    def socket_path(self) -> str | None:
        """The path of the Unix socket (as of `os.fsdecode`) that an "http+unix" URL names; None for others."""
        return _unescaped(self.host).decode("utf-8", "surrogateescape") if self.scheme == UNIX else None

    @property
    def origin(self) -> str:
        """Scheme, host and port as RFC 6454 serialises them: "https://example.com", the default port left out."""
        return f"{self.scheme}://{self.authority}"

    @property
    def effective_port(self) -> int:
        """The port, the scheme's default included; UnsupportedProtocol where it has none that we know."""
        port = self.port or DEFAULT_PORTS.get(self.scheme)
        if port is None:
            raise UnsupportedProtocol(f"the scheme {self.scheme!r} is not one we speak (http, https), in the URL {redact(self)}")
        return port

    @property
    def key(self) -> str:
        """The pool's name for the origin: "https://example.com:443", the port always there."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.effective_port}"

    @property
    def redacted(self) -> str:
        """As messages and logs show it: without userinfo, query and fragment."""
        return f"{self.scheme}://{self.authority}{self.path}"

    def without_userinfo(self) -> URL:
        return _parse(f"{self.origin}{self.target}{'#' + self.fragment if self.fragment else ''}") if self.userinfo else self

    def with_params(self, params: Params) -> URL:
        """This URL with `params` (see `encode_params`) appended to its query."""
        try:
            more = encode_params(params)
        except UnicodeError:
            raise InvalidURL(f"a lone surrogate, or bytes that are not ASCII, in the parameters of the URL {redact(self)}") from None
        if not more:
            return self
        head, mark, fragment = str(self).partition("#")
        joint = "?" if "?" not in head else "" if head[-1] in "?&" else "&"
        return _parse(f"{head}{joint}{more}{mark}{fragment}")

    def join(self, reference: str) -> URL:  # type: ignore[override]  # as httpx names it; nobody joins strings by a URL
        """`reference`, absolute or relative, resolved against this URL (RFC 3986 section 5.2.2)."""
        reference = reference.strip(" ")
        if has_scheme(reference):
            return URL(reference)
        base = f"{self.scheme}://"
        if reference.startswith("//"):
            return _parse(self.scheme + ":" + reference)
        base += f"{self.userinfo}@{self.authority}" if self.userinfo else self.authority
        if reference.startswith("/"):
            return _parse(base + reference)
        if reference.startswith("?"):
            return _parse(base + self.path + reference)
        if not reference or reference.startswith("#"):
            return _parse(base + self.target + reference)
        return _parse(base + self.path[:self.path.rfind("/") + 1] + reference)

    def __repr__(self) -> str:
        safe = f"[secure]@{self.authority}" if self.userinfo else self.authority
        return f"URL('{self.scheme}://{safe}{self.target}{'#' + self.fragment if self.fragment else ''}')"

    def __reduce__(self) -> tuple[Any, ...]:
        return URL, (str.__str__(self),)


def has_scheme(text: str) -> bool:
    """Whether `text` is absolute: a scheme (RFC 3986 section 3.1) stands before its first ":"."""
    scheme, colon, _ = text.partition(":")
    return bool(colon and scheme) and scheme[0].isalpha() and _SCHEME.issuperset(scheme)


def is_absolute(text: str) -> bool:
    """Whether `text` names its own server: "scheme://..."."""
    scheme, mark, _ = text.partition("://")
    return bool(mark) and has_scheme(scheme + ":")


def beneath(base: str, reference: str) -> str:
    """`reference`, a path that may begin with "/", beneath the path of `base`, which has no query: nothing of `base` is replaced."""
    if not reference:
        return base
    if reference[0] in "?#":
        return base + reference
    return f"{base.rstrip('/')}/{reference.lstrip('/')}"


def _parse(text: str) -> URL:
    url = _memo.get(text)
    if url is None:
        try:
            url = _parse_new(text)
        except UnicodeEncodeError:
            raise InvalidURL(f"a lone surrogate in the URL {redact(text)}") from None
        if len(text) <= _MEMO_TEXT:
            if len(_memo) >= _MEMO_SIZE:
                _memo.clear()
            _memo[text] = url
    return url


def _parse_new(given: str) -> URL:
    text = given.strip(" ")
    if not _CONTROLS.isdisjoint(text):
        raise UnsafeURL(f"a control character in the URL {redact(text)}")
    scheme, colon, rest = text.partition(":")
    if not has_scheme(text):
        raise InvalidURL(f"no scheme (http:// or https://) in the URL {redact(text)}")
    scheme = scheme.lower()
    if not rest.startswith("//"):
        if scheme in DEFAULT_PORTS:
            raise InvalidURL(f"no // after the scheme in the URL {redact(text)}")
        if "0" <= rest[:1] <= "9" and _DIGITS.issuperset(rest.partition("/")[0].partition("?")[0]):      # "localhost:8000/x"
            raise UnsupportedProtocol(f"no scheme (http:// or https://) in the URL {redact(text)}")
        raise UnsupportedProtocol(f"the scheme {scheme!r} is not one we speak (http, https), in the URL {redact(text)}")
    rest, _, fragment = rest[2:].partition("#")
    rest, mark, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    # Others read a backslash as a slash, and so another host in the same string: neither reading is safe.
    if "\\" in authority:
        raise InvalidURL(f"a backslash in the authority of the URL {redact(text)}")
    userinfo, at, hostport = authority.rpartition("@")
    if scheme not in DEFAULT_PORTS and (not hostport or scheme.endswith("+unix")):
        hint = ": give Transport(uds=) and an https:// URL, whose host the certificate is for" if scheme == "https+unix" else ""
        raise UnsupportedProtocol(f"the scheme {scheme!r} is not one we speak (http, https), in the URL {redact(text)}{hint}")
    if scheme == UNIX:
        host = authority = _socket_path(hostport, text)
        number = None
    elif hostport.startswith("["):
        literal, bracket, port = hostport[1:].partition("]")
        if not bracket or (port and port[0] != ":"):
            raise InvalidURL(f"an IPv6 address that its brackets do not hold in the URL {redact(text)}")
        host, literal = _ipv6(literal, text)
        authority = f"[{literal}]"
        number = _port(port[1:], text)
    else:
        name, _, port = hostport.partition(":")
        host = authority = _host(name, text)
        number = _port(port, text)
    if number is not None:
        if number == DEFAULT_PORTS.get(scheme):
            number = None
        else:
            authority = f"{authority}:{number}"
    userinfo = _encode(userinfo, _USERINFO)
    path = remove_dot_segments(_encode("/" + path, _PATH))
    query = _encode(query, _QUERY)
    fragment = _encode(fragment, _QUERY)
    target = path + mark + query
    url = str.__new__(URL, f"{scheme}://{userinfo + '@' if userinfo else ''}{authority}{target}{'#' + fragment if fragment else ''}")
    url.scheme = scheme
    url.userinfo = userinfo
    url.host = host
    url.port = number
    url.path = path
    url.query = query
    url.fragment = fragment
    url.authority = authority
    url.target = target
    return url


def scalar(value: Any) -> str | bytes:
    """A parameter's or a form field's value as text; bytes as they are."""
    if isinstance(value, (str, bytes)):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if hasattr(value, "read"):
        raise TypeError("a file is no parameter, nor a form's field: give it in files=")
    return str(value)


def flatten(params: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """(name, value) pairs: a sequence as a value repeats the name, None leaves it out."""
    pairs: Any = params.items() if hasattr(params, "items") else params
    if not hasattr(pairs, "__iter__"):
        raise TypeError(f"parameters are a mapping, (name, value) pairs, or a str, not {type(params).__name__}")
    out: list[tuple[str, Any]] = []
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError("parameters are a mapping, (name, value) pairs, or a str")
        name, value = pair
        if isinstance(value, (list, tuple, set, frozenset)):
            out.extend((name, v) for v in value if v is not None)
        elif value is not None:
            out.append((name, value))
    return out


def _quote(value: Any, table: list[str]) -> str:
    value = scalar(value)
    data = value.encode("utf-8") if isinstance(value, str) else value
    return "".join([table[b] for b in data])


def encode_params(params: Params) -> str:
    """`params` as a query: a mapping or pairs (a sequence repeats its name, None is left out, True is "true"), or a str as it is.

    A space becomes "%20", which is right in every query; names and values are UTF-8.
    """
    if isinstance(params, bytes):
        params = params.decode("ascii")
    if isinstance(params, str):
        return _encode(params.removeprefix("?"), _QUERY)
    return "&".join([f"{_quote(k, _ESCAPED)}={_quote(v, _ESCAPED)}" for k, v in flatten(params)])


def encode_form(data: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> bytes:
    """`data` as application/x-www-form-urlencoded (WHATWG URL section 5.2): UTF-8, a space is "+"."""
    return "&".join([f"{_quote(k, _FORM_ESCAPED)}={_quote(v, _FORM_ESCAPED)}" for k, v in flatten(data)]).encode("ascii")
