"""A request as the caller means it, and as the transport needs it."""
from __future__ import annotations

from collections import namedtuple
from time import monotonic_ns

from pooledhttp._proto.writer import check_method, check_target, field_block
from pooledhttp._typing import TYPE_CHECKING, Any
from pooledhttp.auth import BasicAuth
from pooledhttp.content import BodySource, ChunkedBody, GoneBody, encode_body
from pooledhttp.context import Context, in_force, within
from pooledhttp.errors import InvalidURL, LocalProtocolError, ProxyError
from pooledhttp.headers import Headers, HeaderTypes, wire_bytes
from pooledhttp.timeout import Timeout, TimeoutTypes
from pooledhttp.transport import FLAG_EXPECT, FLAG_REPLAY, FLAG_SAID_CLOSE, FLAG_STREAM
from pooledhttp.url import URL, Params, redact

# RFC 9110 section 9.2.1: safe to send again where nobody knows whether the server saw it.
_REPLAYABLE = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
# Methods whose meaning is in the body: Content-Length: 0 says that there is none (RFC 9110 section 8.6).
_WITH_BODY = frozenset(("POST", "PUT", "PATCH"))
# What the transport frames by itself.
_FRAMING = frozenset(("host", "content-length", "transfer-encoding"))


if TYPE_CHECKING:
    from typing import NamedTuple

    from pooledhttp._net.proxy import Proxy
    from pooledhttp.cookies import Cookies, CookieTypes
    from pooledhttp.multipart import RequestFiles
    from pooledhttp.proxies import Surroundings

    class Wire(NamedTuple):
        """A request as `Transport.exchange` takes it. `flags` has FLAG_REPLAY where it may be sent again on a fresh connection."""

        key: str
        host: str
        port: int
        method: bytes
        target: bytes
        authority: bytes
        fields: bytes
        body: bytes | BodySource | None
        flags: int
        url: str
else:
    # As typing.NamedTuple makes it, without importing that.
    Wire = namedtuple("Wire", "key host port method target authority fields body flags url")


def as_cookies(cookies: CookieTypes) -> Cookies:
    """What was given as `cookies`."""
    from pooledhttp.cookies import Cookies

    return Cookies(cookies)


class Request:
    """A request: `method` (in upper case), `url` (a `URL` without userinfo), `headers`, `body`.

    `content`, `data`, `files` and `json` exclude each other, but that `data` may hold a form's fields beside `files`. A URL's userinfo
    becomes an `Authorization` header where none is given. Raises InvalidURL, UnsupportedProtocol, LocalProtocolError (a method that is no
    token, a name that would break its part), or TypeError (conflicting arguments).
    """

    __slots__ = ("__weakref__", "body", "complete", "cookies", "headers", "held", "method", "trust", "url")
    method: str
    url: URL
    headers: Headers
    body: bytes | BodySource | None     # None: no body
    complete: bool                      # a client has added its defaults
    cookies: Cookies | None             # its own, beside the client's; a client makes a Cookie field of both when it sends
    trust: Surroundings | None          # of its client: which proxy, and whom the environment has it trust; None: neither
    held: tuple[Proxy, ...]             # those that its newest pool keys name, for as long as they are used

    def __init__(self, method: str, url: str, *, params: Params | None = None, headers: HeaderTypes = None, cookies: CookieTypes = None,
                 content: Any = None, data: Any = None, files: RequestFiles | None = None, json: Any = None) -> None:
        if not isinstance(method, str):
            raise TypeError(f"a method is a str, not {type(method).__name__}")
        if "://" in method:
            raise LocalProtocolError(f"{redact(method)} is no method: the method comes first, then the URL")
        method = method.upper()
        check_method(wire_bytes(method))
        if method == "CONNECT":
            raise LocalProtocolError("CONNECT turns a connection into a tunnel, which no pool could take back (RFC 9110 section 9.3.6)")
        target = URL(url, params)
        self.method = method
        self.headers = Headers(headers)
        self.complete = False
        self.trust = None
        self.held = ()
        self.cookies = as_cookies(cookies) if cookies is not None else None
        fields = self.headers.multi_items()                             # ours alone: nobody else has these headers yet
        names = [name.lower() for name, _ in fields]
        if target.userinfo:
            if "authorization" not in names:
                try:
                    auth = BasicAuth(target.username, target.password)
                except ValueError as e:
                    raise InvalidURL(f"{e}, in the URL {redact(target)}") from None
                fields.append(("Authorization", auth.header))
            target = target.without_userinfo()
        target.effective_port                                           # noqa: B018 - the scheme is one we speak
        self.url = target
        at = names.index("content-type") if "content-type" in names else -1
        body, kind = encode_body(content, data, json, files, None if at < 0 else fields[at][1])
        self.body = b"" if isinstance(body, BodySource) and body.length == 0 else body
        if kind is not None:
            if at < 0:
                fields.append(("Content-Type", kind))
            elif files and fields[at][1][:10].lower() == "multipart/":
                fields[at] = (fields[at][0], kind)                      # with the boundary that it may have left to us
        length = self._length(self.body)
        if length is not None and "content-length" not in names and "transfer-encoding" not in names:
            fields.append(("Content-Length", str(length)))

    @classmethod
    def from_wire(cls, made: tuple[Any, ...]) -> Request:
        """The request that was sent as `made`, a Wire or a tuple of its values."""
        wire = Wire(*made)
        self = cls.__new__(cls)
        self.method = wire.method.decode("ascii")
        self.url = URL(wire.url)
        self.headers = Headers.from_wire(wire.fields)
        if " via " in wire.key.partition(" (")[0]:
            self.headers.pop("Proxy-Authorization", None)        # was for the proxy, and not the caller's
        self.body = wire.body
        self.complete = True
        self.trust = None
        self.held = ()
        self.cookies = None
        return self

    def _length(self, body: bytes | BodySource | None) -> int | None:
        """The Content-Length to be sent; None where there is none."""
        if isinstance(body, BodySource):
            return body.length
        if body:
            return len(body)
        return 0 if self.method in _WITH_BODY else None

    @property
    def content(self) -> bytes:
        """The body as bytes; a source is read into memory for it, and sent from there afterwards."""
        body = self.body
        if isinstance(body, BodySource):
            self.body = body = b"".join(body)
        return body or b""

    def read(self) -> bytes:
        """The same as `content`."""
        return self.content

    def copy(self) -> Request:
        """A request of its own headers and of the same body."""
        other = Request.__new__(Request)
        other.method = self.method
        other.url = self.url
        other.headers = self.headers.copy()
        other.body = self.body
        other.complete = self.complete
        other.trust = self.trust
        other.held = ()
        other.cookies = self.cookies
        return other

    def wire(self) -> Wire:
        """The request as the transport needs it, checked. LocalProtocolError for what HTTP does not allow, ProxyError where there is no way to its proxy."""
        try:
            return self._checked()
        except (LocalProtocolError, ProxyError) as e:
            e.request = self
            raise

    def _wire(self, timeout: TimeoutTypes = None, context: Context | None = None) -> tuple[Any, ...]:
        """The arguments of `Transport.exchange` for `Transport.round_trip`: the body is left unread."""
        wire = self.wire()
        limits = Timeout.of(timeout).limits
        deadline, source = monotonic_ns() + limits.total if limits.total >= 0 else -1, "request"
        cancel = in_force(context)
        if cancel is not None:
            deadline, source = within(cancel, deadline, source)
        return (*wire[:8], limits, deadline, source, wire.flags | FLAG_STREAM, -1, cancel)

    def _checked(self) -> Wire:
        url = self.url
        method = self.method
        body = self.body
        pairs: list[tuple[str, str | bytes]] = []
        framing: dict[str, list[str]] = {}
        flags = FLAG_REPLAY if method in _REPLAYABLE else 0
        length = self._length(body)
        stated = None if length is None else str(length)
        said = False
        for name, value in self.headers.multi_items():
            lower = name.lower()
            if lower in _FRAMING:
                if value != stated or lower != "content-length":
                    framing.setdefault(lower, []).append(value)          # looked at below
                if lower == "content-length" and not said:
                    said = True
                    pairs.append((name, value))
                continue
            if lower == "idempotency-key":
                flags |= FLAG_REPLAY
            elif lower == "connection" and "close" in [option.strip().lower() for option in value.split(",")]:
                flags |= FLAG_SAID_CLOSE
            elif lower == "expect" and value.lower() == "100-continue":
                if not body:
                    continue                                             # there is nothing to ask about (RFC 9110 section 10.1.1)
                flags |= FLAG_EXPECT
            pairs.append((name, value))
        authority = url.host_field.encode("ascii")
        if framing:
            hosts = framing.get("host")
            if hosts:
                if len(hosts) > 1:
                    raise LocalProtocolError("more than one Host header")
                authority = field_block([("Host", hosts[0])])[6:-2]
            body = _frame(body, framing, self.headers)
            length = self._length(body)
        if isinstance(body, BodySource) and body.trailers is not None and length is not None:
            raise LocalProtocolError("trailers are sent behind a chunked body, and this one has a Content-Length (RFC 9110 section 6.5.1)")
        if length is not None and not said:
            pairs.append(("Content-Length", str(length)))
        key, target = url.key, url.target
        if self.trust is not None:
            key, target = self.trust.route(self, pairs)
        return Wire(key, url.socket_path or url.host, url.effective_port, check_method(method.encode("ascii")), check_target(target.encode("ascii")),
                    authority, field_block(pairs), None if length == 0 else body or None, flags, str(url))

    def __repr__(self) -> str:
        return f"<Request [{self.method} {self.url.redacted}]>"

    def __getstate__(self) -> dict[str, Any]:
        body = self.body
        if isinstance(body, BodySource):
            body = GoneBody()
        return {"method": self.method, "url": self.url, "headers": self.headers, "body": body, "complete": self.complete,
                "cookies": self.cookies}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.trust = None
        self.held = ()
        self.cookies = None
        for name, value in state.items():
            setattr(self, name, value)


def _frame(body: bytes | BodySource | None, framing: dict[str, list[str]], headers: Headers) -> bytes | BodySource | None:
    """The body, framed as the caller's own Content-Length or Transfer-Encoding says; LocalProtocolError where that would lie."""
    codings = framing.get("transfer-encoding", [])
    lengths = headers.get_list("content-length") if codings or "content-length" in framing else []
    if lengths and codings:
        raise LocalProtocolError("both Content-Length and Transfer-Encoding (RFC 9112 section 6.2)")
    if codings:
        if [coding.lower() for coding in codings] != ["chunked"]:
            raise LocalProtocolError("Transfer-Encoding: only 'chunked' is sent")
        if isinstance(body, BodySource):
            body.length = None
            return body
        return ChunkedBody(body or b"")
    if lengths:
        given = lengths[0]
        if not (given.isascii() and given.isdigit()) or any(length != given for length in lengths):
            raise LocalProtocolError(f"Content-Length is not one number of bytes: {', '.join(lengths)!r}")
        length = int(given)
        if isinstance(body, BodySource):
            if body.length is None:
                body.length = length
            known = body.length
        else:
            known = len(body or b"")
        if known != length:
            raise LocalProtocolError(f"Content-Length is {length}, and the body has {known} bytes")
    return body
