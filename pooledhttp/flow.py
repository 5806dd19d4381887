"""What a client does for one request beyond one exchange: redirects( auth( retries( hooks and the exchange ))), under one deadline."""
from __future__ import annotations

from time import monotonic_ns

from pooledhttp import redirects
from pooledhttp._trip.gate import deadline_passed
from pooledhttp._typing import TYPE_CHECKING, Any
from pooledhttp.auth import Auth
from pooledhttp.content import rewound
from pooledhttp.context import Context
from pooledhttp.errors import Error, TooManyRedirects
from pooledhttp.request import Request
from pooledhttp.response import Response
from pooledhttp.timeout import Timeout
from pooledhttp.transport import FLAG_MAY_GO_ON, FLAG_MAY_REPEAT, FLAG_STREAM, Canceller

if TYPE_CHECKING:
    from collections.abc import Callable

    from pooledhttp.client import Client

# How long the rest of a body that nobody wants is waited for (ns), so that its connection can serve again. Of it 256 KiB at most are taken.
_DRAIN = 500_000_000


def drop(response: Response) -> None:
    """Be done with a response whose body nobody wants; its connection is kept where the body's end is near."""
    if response.closed:
        return
    try:
        drain = getattr(response._reply, "drain", None)
        if drain is not None:
            drain(monotonic_ns() + _DRAIN)
    finally:
        response.close()


def _as_request(made: Any) -> Request:
    if not isinstance(made, Request):
        raise TypeError(f"an auth returns the request to send, not {type(made).__name__}")
    return made


class Flow:
    """One `send`. `deadline` is absolute (monotonic ns), -1 for none, and `source` whose it is; `max_body` bounds the last body (-1: none)."""

    __slots__ = ("_begun", "_redirects", "auth", "cancel", "client", "deadline", "follow", "history", "max_body", "source", "stream", "timeout")

    def __init__(self, client: Client, timeout: Timeout, source: str, deadline: int, *, auth: Callable[[Request], Request] | None, follow: bool,
                 stream: bool, max_body: int, cancel: Canceller | None) -> None:
        self.client = client
        self.timeout = timeout
        self.source = source
        self.deadline = deadline
        self.auth = auth
        self.follow = follow
        self.stream = stream
        self.max_body = max_body
        self.cancel = cancel
        self.history: list[Response] = []          # what was answered before, and went on
        self._redirects = 0
        self._begun = False

    def run(self, request: Request) -> Response:
        """The last response to `request`, which stays as it is."""
        return self.go_on(request, self._authenticated(request))

    def go_on(self, request: Request, response: Response) -> Response:
        """The last response, where `response` is the first."""
        while self.follow and response.status_code in redirects.STATUSES:
            following = self._redirected(request, response)
            if following is None:
                break
            request = following
            response = self._authenticated(request)
        try:
            if self.history:
                response.history = list(self.history)
            if self.max_body >= 0:
                response.check_size(self.max_body)
            if not (self.stream or response.closed):
                response.read()
            return response.raise_for_status() if self.client._raise else response
        except BaseException:
            response.close()
            raise

    # --- redirects --------------------------------------------------------------------------------------------------------

    def _redirected(self, request: Request, response: Response) -> Request | None:
        try:
            following = redirects.following(request, response)
            if following is None:
                return None
            limit = self.client._max_redirects
            if self._redirects >= limit:
                if self.history:
                    response.history = list(self.history)
                raise TooManyRedirects(f"more than {limit} redirects", request=following, response=response)
            self._redirects += 1
        except BaseException:
            drop(response)
            raise
        if not redirects.same_origin(request.url, following.url):
            self.auth = None                       # also where the chain comes back
        self._leave(response)
        return following

    def _leave(self, response: Response) -> None:
        drop(response)
        if self.history:
            response.history = list(self.history)
        self.history.append(response)

    # --- auth -------------------------------------------------------------------------------------------------------------

    def _authenticated(self, request: Request) -> Response:
        auth = self.auth
        if auth is None:
            return self._tried(request)
        if not self._is_flow(auth):
            return self._tried(_as_request(auth(request.copy())))
        steps = auth.auth_flow(request.copy())     # type: ignore[attr-defined]  # what _is_flow says
        try:
            step = next(steps)
            while True:
                response = self._tried(_as_request(step))
                try:
                    if getattr(auth, "requires_response_body", False):
                        response.read()
                    step = steps.send(response)
                except StopIteration:
                    return response
                except BaseException:
                    response.close()
                    raise
                if not rewound(step.body):
                    return response                # its body is gone: the answer that there is
                self._leave(response)
        finally:
            steps.close()

    @staticmethod
    def _is_flow(auth: Any) -> bool:
        flow = getattr(type(auth), "auth_flow", None)
        return flow is not None and flow is not getattr(Auth, "auth_flow", None)

    # --- tries ------------------------------------------------------------------------------------------------------------

    def _tried(self, request: Request) -> Response:
        return self._exchanged(request)

    # --- one exchange -----------------------------------------------------------------------------------------------------

    def _exchanged(self, request: Request) -> Response:
        client = self.client
        hooks = client._hooks
        if request.trust != client._trust:
            request = request.copy()               # another client built it
            request.trust = client._trust
        elif hooks is not None:
            request = request.copy()
        if hooks is None:
            return self._sent(request, self.stream)
        for hook in hooks["request"]:
            hook(request)
        response = self._sent(request, self.stream or bool(hooks["response"]))
        try:
            for hook in hooks["response"]:
                hook(response)
        except BaseException:
            response.close()
            raise
        return response

    def _sent(self, request: Request, unread: bool) -> Response:
        client = self.client
        exchange = client._exchange
        try:
            response = self._over_transport(client.transport, request) if exchange is None else self._over_wire(exchange, request, unread)
        except Error as e:
            if e.request is None:
                e.request = request
            raise
        response.default_encoding = client._default_encoding
        return response

    def _over_wire(self, exchange: Any, request: Request, unread: bool) -> Response:
        key, host, port, method, target, authority, fields, body, flags, _ = request.wire()
        if self.follow:
            flags |= FLAG_MAY_GO_ON
        if self.auth is not None and self._is_flow(self.auth):
            flags |= FLAG_MAY_REPEAT
        if unread:
            flags |= FLAG_STREAM
        reply = exchange(key, host, port, method, target, authority, fields, body, self.timeout.limits, self.deadline, self.source, flags,
                         -1 if unread else self.max_body, self.cancel)
        response = Response.from_reply(reply, request)
        if unread:
            response.check_size(self.max_body)
        return response

    def _over_transport(self, transport: Any, request: Request) -> Response:
        timeout = self._left() if self._begun else self.timeout
        self._begun = True
        response = transport.round_trip(request, timeout=timeout, context=self.cancel if isinstance(self.cancel, Context) else None)
        if not isinstance(response, Response):
            raise TypeError(f"a transport's round_trip returns a Response, not {type(response).__name__}")
        if response.request is None:
            response.request = request
        return response

    def _left(self) -> Timeout:
        """The limits with what remains of the deadline, for a transport that knows nothing of the tries before."""
        if self.deadline < 0:
            return self.timeout
        left = self.deadline - monotonic_ns()
        if left <= 0:
            raise deadline_passed(self.source, "pool", None, self.timeout.limits.total / 1e9)
        return self.timeout.with_total(left / 1e9)
