"""The request that a redirect asks for (RFC 9110 section 15.4). Go's net/http is the model for what travels along."""
from __future__ import annotations

from pooledhttp._typing import TYPE_CHECKING
from pooledhttp.auth import BasicAuth
from pooledhttp.content import rewound
from pooledhttp.errors import Error, InvalidURL, RemoteProtocolError, UnsupportedProtocol
from pooledhttp.headers import Headers
from pooledhttp.url import URL, has_scheme, redact

if TYPE_CHECKING:
    from pooledhttp.request import Request
    from pooledhttp.response import Response

# No server leads anywhere else: not to files, nor to a socket of this machine. (A relative reference stays with its server.)
_SCHEMES = ("http", "https")
# After these a GET is made, without a body, of whatever was no HEAD.
_TO_GET = frozenset((301, 302, 303))
# What speaks of the body, besides Content-*.
_OF_BODY = frozenset(("digest", "expect", "repr-digest", "trailer", "transfer-encoding"))
# What is for one origin alone: Go's list.
_SECRET = frozenset(("authorization", "cookie", "cookie2", "proxy-authenticate", "proxy-authorization", "www-authenticate"))


def same_origin(old: URL, new: URL) -> bool:
    """Whether what was meant for `old` may go to `new`: scheme, host and port are the same, or it is http to https on their own ports."""
    if old.host != new.host:
        return False
    if old.scheme == new.scheme:
        return old.effective_port == new.effective_port
    return (old.scheme, new.scheme, old.port, new.port) == ("http", "https", None, None)


def _reference(response: Response) -> str:
    """The Location as text; "" where there is none. Two that differ are refused: one of them may have been smuggled in."""
    locations = set(response.headers.get_list("location"))
    if len(locations) > 1:
        raise RemoteProtocolError("a redirect with more than one Location", phase="headers", conn=response.conn)
    text = "".join(locations)
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeEncodeError:                  # in a response made by hand
        return text
    except UnicodeDecodeError:                  # in another charset: the same bytes go back
        return "".join([ch if ch < "\x80" else f"%{ord(ch):02X}" for ch in text])


def _target(base: URL, response: Response) -> tuple[URL | None, bool]:
    """Where it goes (RFC 9110 section 10.2.2), and whether the reference was relative."""
    reference = _reference(response)
    if not reference:
        return None, False
    relative = not has_scheme(reference)
    if not relative and reference.partition(":")[0].lower() not in _SCHEMES:
        raise UnsupportedProtocol(f"a redirect to a scheme that none may lead to: {redact(reference)}", phase="headers", conn=response.conn)
    try:
        url = base.join(reference)
        url.effective_port                      # noqa: B018 - the scheme is one we speak
    except (InvalidURL, UnsupportedProtocol) as e:
        raise RemoteProtocolError(f"a redirect to a URL that cannot be used: {e.message}", phase="headers", conn=response.conn) from None
    if url.scheme not in _SCHEMES and url.host != base.host:          # "//..." keeps the scheme, and names another socket
        raise UnsupportedProtocol(f"a redirect to a socket that none may lead to: {redact(reference)}", phase="headers", conn=response.conn)
    if base.fragment and "#" not in reference:
        url = URL(f"{url}#{base.fragment}")
    return url, relative


def following(request: Request, response: Response) -> Request | None:
    """The request that `response`, a redirect of `request`, asks for. None where it names no URL, or wants a body again that is gone.

    Raises RemoteProtocolError for a Location that is no URL, UnsupportedProtocol for one of another scheme.
    """
    try:
        url, relative = _target(request.url, response)
    except Error as e:
        e.request = request
        raise
    if url is None:
        return None
    to_get = response.status_code in _TO_GET
    if not to_get and not rewound(request.body):
        return None
    other = request.copy()
    other.url = url.without_userinfo()
    same = same_origin(request.url, url)
    fields = request.headers.multi_items()
    if to_get:
        if request.method != "HEAD":
            other.method = "GET"
        other.body = None
        fields = [(name, value) for name, value in fields if not (name.lower().startswith("content-") or name.lower() in _OF_BODY)]
    if not same:
        fields = [(name, value) for name, value in fields if name.lower() not in _SECRET]
    if not same or not (relative or request.url.origin == url.origin):
        fields = [(name, value) for name, value in fields if name.lower() != "host"]
    other.headers = Headers(fields)
    if url.userinfo and "authorization" not in other.headers:
        try:
            other.headers["Authorization"] = BasicAuth(url.username, url.password).header
        except ValueError as e:
            raise RemoteProtocolError(f"a redirect to {redact(url)}: {e}", request=request, phase="headers", conn=response.conn) from None
    return other
