"""What a client does for one request beyond one exchange: redirects( auth( retries( hooks and the exchange ))), under one deadline."""
from __future__ import annotations

from time import monotonic_ns

from pooledhttp._core.cancel import pause
from pooledhttp._core.runtime import logger
from pooledhttp._trip.gate import deadline_passed
from pooledhttp._typing import TYPE_CHECKING, Any
from pooledhttp.auth import Auth
from pooledhttp.content import rewound
from pooledhttp.context import Context
from pooledhttp.errors import Cancelled, Error, TooManyRedirects, TransportError
from pooledhttp.request import Request
from pooledhttp.response import SETS_COOKIES, Response
from pooledhttp.timeout import Timeout
from pooledhttp.transport import FLAG_MAY_GO_ON, FLAG_MAY_REPEAT, FLAG_STREAM, Canceller, Transport

if TYPE_CHECKING:
    from collections.abc import Callable

    from pooledhttp.client import Client
    from pooledhttp.cookies import Cookies
    from pooledhttp.proxies import Surroundings
    from pooledhttp.retry import Retry

# Of a redirect, where it says where to.
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
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
    except Error as e:                             # cancelled
        if e.request is None:
            e.request = response.request
        raise
    finally:
        response.close()


def _as_request(made: Any) -> Request:
    if not isinstance(made, Request):
        raise TypeError(f"an auth returns the request to send, not {type(made).__name__}")
    return made


class Route:
    """A transport as a client uses it: `exchange` is its compiled one, None where its `round_trip` is to be called; `trust` goes on requests.

    `as_is`: it wants no body coded, and decodes none.
    """

    __slots__ = ("as_is", "exchange", "transport", "trust")

    def __init__(self, transport: Any, trust_env: bool) -> None:
        self.transport = transport
        # Read now (where a pickle is opened, that process's) and not again. Requests over one transport whose clients trust otherwise, or take other proxies,
        # share no connection.
        self.trust: Surroundings | None = transport.surroundings(trust_env) if isinstance(transport, Transport) else None
        # A subclass's own round_trip is what it wants called.
        own = isinstance(transport, Transport) and type(transport).round_trip is Transport.round_trip
        self.exchange: Any = transport.exchange if own else None
        self.as_is: bool = getattr(transport, "disable_compression", False)


class Flow:
    """One `send`. `deadline` is absolute (monotonic ns), -1 for none, and `source` whose it is; `max_body` bounds the last body (-1: none)."""

    __slots__ = ("_abroad", "_begun", "_key", "_redirects", "_retries", "auth", "cancel", "client", "deadline", "follow", "history", "max_body", "retry",
                 "source", "stream", "timeout")

    def __init__(self, client: Client, timeout: Timeout, source: str, deadline: int, *, auth: Callable[[Request], Request] | None, follow: bool,
                 retry: Retry | None, stream: bool, max_body: int, cancel: Canceller | None) -> None:
        self.client = client
        self.timeout = timeout
        self.source = source
        self.deadline = deadline
        self.auth = auth
        self.follow = follow
        self.retry = retry
        self.stream = stream
        self.max_body = max_body
        self.cancel = cancel
        self.history: list[Response] = []          # what was answered before, and went on
        self._redirects = 0
        self._retries = 0
        self._abroad = False                       # redirected to another origin, perhaps back
        self._begun = False                        # something was sent
        self._key = ""                             # the pool key of the last exchange

    def run(self, request: Request) -> Response:
        """The last response to `request`, which stays as it is."""
        if getattr(self.auth, "requires_request_body", False):
            request = request.copy()
            request.read()
        return self.go_on(request, self._authenticated(request))

    def go_on(self, request: Request, response: Response) -> Response:
        """The last response, where `response` is the first."""
        while self.follow and response.status_code in _REDIRECTS:
            following = self._redirected(request, response)
            if following is None:
                break
            request = following
            response = self._authenticated(request)
        try:
            if self.history:
                response.history = list(self.history)
            response.check_size(self.max_body)
            if not (self.stream or response.closed):
                response.read()
            return response.raise_for_status() if self.client._raise else response
        except BaseException:
            response.close()
            raise

    # --- redirects --------------------------------------------------------------------------------------------------------

    def _redirected(self, request: Request, response: Response) -> Request | None:
        from pooledhttp import redirects

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
            self._abroad = True
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
            step = next(steps, None)
            while True:
                response = self._tried(_as_request(step))
                try:
                    if getattr(auth, "requires_response_body", False):
                        response.read()
                    step = steps.send(response)
                    again = rewound(_as_request(step).body)
                except StopIteration:
                    return response
                except BaseException:
                    response.close()
                    raise
                if not again:
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
        """The answer to `request`, after as many tries as the policy, the host's budget and the deadline allow."""
        retry = self.retry
        if retry is None:
            return self._exchanged(request)
        transport = self.client._route_of(request.url).transport
        count = getattr(transport, "count_retry", None)
        allowance = retry.allowance(transport, request.url.key)
        earlier: list[Error] = []
        tried = 0
        try:
            while True:
                tried += 1
                response = None
                try:
                    response = self._exchanged(request)
                    until = self._until(tried, request, response, allowance) if retry.allows_response(request, response) else -1
                    if until < 0:
                        if not self.stream and not response.closed and response.status_code < 300:
                            response.read()        # what breaks in the body is tried again too
                        return response
                    drop(response)
                except Error as e:
                    if response is not None:
                        response.close()
                        response = None
                    if earlier:
                        e.earlier = tuple(earlier)
                        if e.__context__ is None and earlier[-1] is not e:
                            e.__context__ = earlier[-1]
                    until = self._until(tried, request, None, allowance) if retry.allows_error(request, e) else -1
                    if until < 0:
                        raise
                    earlier.append(e)
                self._retries += 1
                if count is not None and self._key:
                    count(self._key)
                if (log := logger(10)) is not None:
                    from pooledhttp._trip.tales import say_retry

                    why = f"the answer was {response.status_code}" if response is not None else type(earlier[-1]).__name__
                    say_retry(log, f"{request.method} {request.url.redacted}", self._retries, retry.total, (until - monotonic_ns()) / 1e9, why)
                self._wait(until, request)
        finally:
            earlier.clear()                        # their tracebacks hold this frame

    def _until(self, tried: int, request: Request, response: Response | None, allowance: Callable[[], bool]) -> int:
        """When the next try is due (monotonic ns); -1 where there is none: all are used up, it would be too late, or the body is gone."""
        retry = self.retry
        if retry is None or self._retries >= retry.total:
            return -1
        seconds = retry.seconds(tried, response)
        if seconds is None:
            return -1
        until = monotonic_ns() + int(seconds * 1e9)
        if (0 <= self.deadline <= until) or not rewound(request.body) or not allowance():
            return -1
        return until

    def _wait(self, until: int, request: Request) -> None:
        try:
            done = pause(until, self.cancel)
        except OSError as e:                       # no descriptor to be had
            raise TransportError(e.strerror or str(e), request=request, phase="pool", errno=e.errno) from e
        if not done:
            assert self.cancel is not None
            reason = self.cancel.reason
            raise Cancelled(f"cancelled between two tries{f': {reason}' if reason is not None else ''}", reason=reason, request=request)

    # --- one exchange -----------------------------------------------------------------------------------------------------

    def _exchanged(self, request: Request) -> Response:
        client = self.client
        hooks = client._hooks
        jar = client._cookies
        route = client._route_of(request.url)
        if hooks is not None or request.trust != route.trust:
            request = request.copy()               # the next try, or hop, begins with what the caller meant
            request.trust = route.trust
        if jar or request.cookies:
            request = self._with_cookies(request, jar)
        if hooks is None:
            return self._sent(route, request, self.stream)
        for hook in hooks["request"]:
            hook(request)
        response = self._sent(route, request, self.stream or bool(hooks["response"]))
        try:
            for hook in hooks["response"]:
                hook(response)
        except BaseException:
            response.close()
            raise
        return response

    def _with_cookies(self, request: Request, jar: Cookies | None) -> Request:
        value = (jar or request.cookies).header(request, redirected=self._abroad)  # type: ignore[union-attr]  # one of them is there
        if value is None:
            return request
        request = request.copy()
        request.headers["Cookie"] = value
        return request

    def _sent(self, route: Route, request: Request, unread: bool) -> Response:
        client = self.client
        try:
            response = self._over_transport(route.transport, request) if route.exchange is None else self._over_wire(route.exchange, request, unread)
        except Error as e:
            if e.request is None:
                e.request = request
            raise
        response.default_encoding = client._default_encoding
        return response

    def _over_wire(self, exchange: Any, request: Request, unread: bool) -> Response:
        key, host, port, method, target, authority, fields, body, flags, _ = request.wire()
        self._key = key
        if self.follow:
            flags |= FLAG_MAY_GO_ON
        if self.retry is not None or (self.auth is not None and self._is_flow(self.auth)):
            flags |= FLAG_MAY_REPEAT
        if unread:
            flags |= FLAG_STREAM
        reply = exchange(key, host, port, method, target, authority, fields, body, self.timeout.limits, self.deadline, self.source, flags,
                         -1 if unread else self.max_body, self.cancel)
        response = Response.from_reply(reply, request)
        response._limit = self.max_body            # whoever reads it, also where another follows on it
        if reply.notes & SETS_COOKIES:
            self.client._take_cookies(response, request)
        return response

    def _over_transport(self, transport: Any, request: Request) -> Response:
        cancel = self.cancel
        if cancel is not None and cancel.cancelled:          # it may know nothing of contexts
            reason = cancel.reason
            raise Cancelled(f"cancelled before it was sent{f': {reason}' if reason is not None else ''}", reason=reason, request=request, phase="pool")
        timeout = self._left() if self._begun or self.source == "context" else self.timeout
        self._begun = True
        response = transport.round_trip(request, timeout=timeout, context=cancel if isinstance(cancel, Context) else None)
        if not isinstance(response, Response):
            raise TypeError(f"a transport's round_trip returns a Response, not {type(response).__name__}")
        if response.request is None:
            response.request = request
        if self.max_body >= 0 and not response.closed:
            response.check_size(self.max_body)
        if "set-cookie" in response.headers:
            self.client._take_cookies(response, request)
        return response

    def _left(self) -> Timeout:
        """The limits with what remains of the deadline, for a transport that knows nothing of the tries before."""
        if self.deadline < 0:
            return self.timeout
        left = self.deadline - monotonic_ns()
        if left <= 0:
            raise deadline_passed(self.source, "pool", None, self.timeout.limits.total / 1e9)
        return self.timeout.with_total(left / 1e9)
