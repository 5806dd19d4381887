"""Authentication: the seam for all its kinds, and those that need no second exchange."""
from __future__ import annotations

from pooledhttp._typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import TypeAlias

    from pooledhttp.request import Request
    from pooledhttp.response import Response

AuthTypes: TypeAlias = "Auth | tuple[str, str] | Callable[[Request], Request] | None"


class Auth:
    """What may be given as `auth`. A subclass overrides one of two methods:

    `__call__(request)` returns the request to send, for a scheme that needs no answer of the server's.

    `auth_flow(request)` is a generator: it yields a request, gets its response, and may yield another; the last response is the caller's.
    A response that is followed by another request is drained (bounded) and closed, so that the connection is used again.
    A request whose body cannot be sent again is not sent again: the response that there is, is the caller's.

    `requires_response_body = True`: each response's body is read before the generator gets it. `requires_request_body = True`: the
    request's body is in memory (`request.content`) before the generator starts. One object serves all threads at once.
    """

    requires_request_body = False
    requires_response_body = False

    def __call__(self, request: Request) -> Request:
        raise NotImplementedError

    def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        """The requests to send, one after another."""
        yield self(request)


class HeaderAuth(Auth):
    """Sets `Authorization` to the same value for every request."""

    __slots__ = ("header",)

    def __init__(self, header: str) -> None:
        self.header = header

    def __call__(self, request: Request) -> Request:
        request.headers["Authorization"] = self.header
        return request

    def __eq__(self, other: object) -> bool:
        return self.header == other.header if isinstance(other, HeaderAuth) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.header)

    def __repr__(self) -> str:
        return f"{type(self).__name__}([secure])"


def as_bytes(what: str, given: str | bytes, scheme: str) -> bytes:
    """A user's name or password as bytes, text in UTF-8; TypeError for anything else."""
    if not isinstance(given, (str, bytes)):
        raise TypeError(f"the {what} for {scheme} authentication is a str or bytes, not {type(given).__name__}")
    return given.encode("utf-8") if isinstance(given, str) else given


class BasicAuth(HeaderAuth):
    """RFC 7617: user and password in UTF-8. The user may not hold a colon (section 2): ValueError."""

    __slots__ = ()

    def __init__(self, user: str | bytes, password: str | bytes = "") -> None:
        from binascii import b2a_base64

        name = as_bytes("user", user, "basic")
        secret = as_bytes("password", password, "basic")
        if b":" in name:
            raise ValueError("a user name for basic authentication may not hold a colon")
        super().__init__("Basic " + b2a_base64(name + b":" + secret, newline=False).decode("ascii"))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (BasicAuth, self.header)


class BearerAuth(HeaderAuth):
    """RFC 6750 section 2.1."""

    __slots__ = ()

    def __init__(self, token: str) -> None:
        if not isinstance(token, str):
            raise TypeError(f"a bearer token is a str, not {type(token).__name__}")
        super().__init__("Bearer " + token)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (BearerAuth, self.header)


def _rebuild(cls: type[HeaderAuth], header: str) -> HeaderAuth:
    auth = cls.__new__(cls)
    auth.header = header
    return auth


def as_auth(auth: AuthTypes) -> Callable[[Request], Request] | None:
    """What was given as `auth`, as something to call; TypeError for anything else."""
    if auth is None or callable(auth):
        return auth
    if isinstance(auth, (tuple, list)) and len(auth) == 2:
        return BasicAuth(*auth)
    raise TypeError(f"auth is (user, password), an Auth or a callable (request) -> request, not {type(auth).__name__}")
