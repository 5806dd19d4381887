"""The client: defaults over a transport. Safe to share among any number of threads."""
from __future__ import annotations

from collections.abc import Mapping
from time import monotonic_ns

from pooledhttp._typing import TYPE_CHECKING, Any, overload
from pooledhttp._version import __version__
from pooledhttp.auth import AuthTypes, HeaderAuth, as_auth
from pooledhttp.context import Use, in_force, within
from pooledhttp.errors import Error, InvalidURL
from pooledhttp.flow import Flow, Route
from pooledhttp.headers import Headers, HeaderTypes, advertise, merge, without_none
from pooledhttp.request import Request, as_cookies
from pooledhttp.response import SETS_COOKIES, Response, check_encoding
from pooledhttp.timeout import Timeout, TimeoutTypes
from pooledhttp.transport import FLAG_MAY_GO_ON, Canceller, Transport, default_transport
from pooledhttp.url import URL, Params, beneath, flatten, is_absolute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Executor
    from typing import Literal, TypeAlias

    from typing_extensions import Unpack

    from pooledhttp._core.limits import Limits
    from pooledhttp._trip.trip import Prepared
    from pooledhttp.cookies import Cookies, CookieTypes
    from pooledhttp.interned import Lease
    from pooledhttp.mounts import Mounts
    from pooledhttp.option_types import BuildOptions, Options, SendOptions, StreamOptions, TransportOptions
    from pooledhttp.progress import Progress
    from pooledhttp.retry import Retry, RetryTypes

    Requests: TypeAlias = Iterable[str | Request | tuple[str, str]]

_MEMO_SIZE = 1024
_ENDLESS = (1 << 63) - 1         # bytes; no body is longer
_BUILD = ("params", "headers", "cookies", "content", "data", "files", "json")
_KNOWN = frozenset((*_BUILD, "auth", "timeout", "context", "follow_redirects", "stream", "max_response_bytes", "retries"))
_GIVEN: Any = object()          # not given
# What no pickle holds.
_LIVE = frozenset(("transport", "_exchange", "_exchange_prepared", "_leases", "_memo", "_mounts", "_private", "_route", "_timing", "_trust"))
_DEFAULT_TIMEOUT = Timeout()
_DEFAULT_HEADERS = Headers({"User-Agent": f"pooledhttp/{__version__}", "Accept": "*/*"})
# Where else the option is, for those who come from another client.
_ELSEWHERE = {"allow_redirects": "it is follow_redirects here", "verify": "it is the transport's: Client(verify=...)",
              "cert": "it is the transport's: Client(cert=...)", "proxies": "it is the transport's: Client(proxy=...)",
              "proxy": "it is the transport's: Client(proxy=...)"}


def check_options(options: Mapping[str, Any]) -> None:
    """TypeError for an option that no request has."""
    for name in options:
        if name not in _KNOWN:
            hint = f" ({_ELSEWHERE[name]})" if name in _ELSEWHERE else ""
            raise TypeError(f"a request has no option {name!r}{hint}")


def as_retry(retries: RetryTypes) -> Retry | None:
    """What was given as `retries`; None for none."""
    if retries is None:
        return None
    from pooledhttp.retry import Retry

    return Retry.of(retries)


def _defaults(headers: HeaderTypes) -> tuple[Headers, frozenset[str]]:
    """A client's headers, and the names (lower case) that are to be left out."""
    if headers is None:
        return Headers(_DEFAULT_HEADERS), frozenset()
    given, dropped = without_none(headers)
    return merge(_DEFAULT_HEADERS, Headers(given), dropped), dropped


def _check_limit(limit: int | None) -> int:
    if limit is None:
        return -1
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise ValueError(f"max_response_bytes is a number of bytes or None, not {limit!r}")
    return min(limit, _ENDLESS)


class Client:
    """Requests with defaults, over a transport; meant to be made once, and shared by all threads.

    `transport`: anything with `round_trip`; further keyword arguments make a private `Transport`; with neither it is the shared
    `default_transport()`. `base_url` stands before URLs without a scheme. `headers` and `params` are every request's defaults; a request's
    own replace them by name. `timeout` as for `Timeout.of`. `event_hooks={"request": [f], "response": [f]}`. `raise_for_status=True`
    calls it on every last response. `max_response_bytes` bounds each body. `follow_redirects`, at most `max_redirects` of them. `retries`: a
    number of tries after the first, or a `Retry`. `mounts={"https://internal.": transport}`: by the longest match, see `mounts.Pattern`; None is
    the client's own transport. `cookies` as for `Cookies`: what its jar holds at first.

    A pickle of it holds its configuration. Where that is unpickled, all clients of the same configuration share one transport, which
    the last `close()` closes; a client of the default transport gets the default transport there.
    """

    # On the instance from when there is a cookie, or somebody asks: a plain get() looks at no jar before.
    _cookies: Cookies | None = None
    _keeps_cookies = True               # the shared default client's are nobody's
    _flow: Any = Flow                   # what makes a Flow of a request; another one sees every exchange, and there is no fast lane beside it

    def __init__(self, *, transport: Any = None, base_url: str = "", headers: HeaderTypes = None, params: Params | None = None,
                 cookies: CookieTypes = None, auth: AuthTypes = None, timeout: TimeoutTypes = _DEFAULT_TIMEOUT,
                 follow_redirects: bool = True, max_redirects: int = 10, retries: RetryTypes = None,
                 event_hooks: Mapping[str, Iterable[Callable[[Any], Any]]] | None = None, mounts: Mapping[str, Any] | None = None, trust_env: bool = True,
                 raise_for_status: bool = False, max_response_bytes: int | None = None, default_encoding: str = "utf-8",
                 **transport_options: Unpack[TransportOptions]) -> None:
        if isinstance(max_redirects, bool) or not isinstance(max_redirects, int) or max_redirects < 0:
            raise ValueError(f"max_redirects is a number of redirects, not {max_redirects!r}")
        self._follow = bool(follow_redirects)
        self._max_redirects = max_redirects
        self._retry = as_retry(retries)
        if transport is not None:
            if transport_options:
                raise TypeError(f"transport= and its options ({', '.join(transport_options)}) exclude each other")
            if not callable(getattr(transport, "round_trip", None)):
                raise TypeError(f"a transport has a method round_trip, and {type(transport).__name__} has none")
        self._base = ""
        if base_url:
            base = URL(base_url)
            if base.query or base.fragment:
                raise InvalidURL("base_url has neither a query nor a fragment: give params=")
            self._base = str(base)
        self._params = None if params is None else params if isinstance(params, (str, bytes)) else flatten(params)
        self._auth = as_auth(auth)
        if cookies is not None:
            self._cookies = as_cookies(cookies)
        self._limit = _check_limit(max_response_bytes)
        self._raise = raise_for_status
        check_encoding(default_encoding)
        self._default_encoding = default_encoding
        self._hooks: dict[str, list[Callable[[Any], Any]]] | None = None
        # GETs by their URL as given, ready to send: what a plain get() needs. Emptied whenever a default changes.
        self._memo: dict[str, Prepared] = {}
        self._headers, self._dropped = _defaults(headers)
        self._headers.drop_on_change(self._memo)
        self._set_timeout(timeout)
        if event_hooks:
            self._set_hooks(event_hooks)
        self._private = bool(transport_options)
        self._leases: list[Lease] = []               # of transports that are shared with others that came out of a pickle
        self._closed = False
        if transport is None:
            transport = Transport(**transport_options) if transport_options else default_transport()
        self._trust_env = trust_env
        self._attach(transport, mounts)

    def _attach(self, transport: Any, mounts: Mapping[str, Any] | None) -> None:
        self.transport = transport
        self._route = Route(transport, self._trust_env)
        self._trust = self._route.trust
        self._exchange = self._route.exchange
        self._exchange_prepared: Any = None if self._exchange is None else transport.exchange_prepared
        self._mounts: Mounts | None = None
        if mounts is not None and mounts != {}:
            from pooledhttp.mounts import Mounts

            self._mounts = Mounts(mounts, self._trust_env)

    def _route_of(self, url: URL) -> Route:
        return self._route if self._mounts is None else self._mounts.find(url, self._route)

    # --- defaults -------------------------------------------------------------------------------------------------------

    @property
    def headers(self) -> Headers:
        """Every request's default header fields."""
        return self._headers

    @headers.setter
    def headers(self, headers: HeaderTypes) -> None:
        self._headers, self._dropped = _defaults(headers)
        self._forget()

    @property
    def timeout(self) -> Timeout:
        """The limits of requests that bring none of their own."""
        return self._timeout

    @timeout.setter
    def timeout(self, timeout: TimeoutTypes) -> None:
        self._set_timeout(timeout)

    def _set_timeout(self, timeout: TimeoutTypes) -> None:
        self._timeout = Timeout.of(timeout)
        # One attribute: a request on another thread sees both or neither.
        limits = self._timeout.limits
        self._timing = (limits, limits.total, "client")

    @property
    def auth(self) -> Any:
        """What every request without an `auth` of its own is called with."""
        return self._auth

    @auth.setter
    def auth(self, auth: AuthTypes) -> None:
        self._auth = as_auth(auth)
        self._forget()

    @property
    def cookies(self) -> Cookies:
        """The jar: what servers set is in it, and what it holds is sent where it belongs."""
        jar = self._cookies
        if jar is None:
            jar = self._adopt(as_cookies(None))
        return jar

    @cookies.setter
    def cookies(self, cookies: CookieTypes) -> None:
        self._cookies = as_cookies(cookies)
        self._forget()

    def _adopt(self, jar: Cookies) -> Cookies:
        """`jar`, or the one that another thread came first with."""
        jar = self.__dict__.setdefault("_cookies", jar)
        self._forget()
        return jar

    def _take_cookies(self, response: Response, request: Request) -> None:
        """Keep the cookies that `response` sets."""
        if not self._keeps_cookies:
            return
        jar = self._cookies
        if jar is None:
            if not response.cookies:
                return                       # none that its host may set: no reason to look into a jar from now on
            jar = self._adopt(as_cookies(None))
        jar.extract(response, request)

    @property
    def event_hooks(self) -> dict[str, list[Callable[[Any], Any]]]:
        """{"request": [f(request)], "response": [f(response)]}; the lists may be changed."""
        if self._hooks is None:
            self._set_hooks({})
        assert self._hooks is not None
        return self._hooks

    @event_hooks.setter
    def event_hooks(self, hooks: Mapping[str, Iterable[Callable[[Any], Any]]]) -> None:
        self._set_hooks(hooks)

    def _set_hooks(self, hooks: Mapping[str, Iterable[Callable[[Any], Any]]]) -> None:
        unknown = set(hooks) - {"request", "response"}
        if unknown:
            raise ValueError(f"event_hooks has 'request' and 'response', not {', '.join(map(repr, sorted(unknown)))}")
        for name, given in hooks.items():
            if callable(given) or not all(map(callable, given)):
                raise TypeError(f"event_hooks[{name!r}] is a list of functions")
        self._hooks = {"request": list(hooks.get("request", ())), "response": list(hooks.get("response", ()))}
        self._forget()

    def _forget(self) -> None:
        # A new dict: a thread that is just learning a URL puts it into the old one.
        memo: dict[str, Prepared] = {}
        self._headers.drop_on_change(memo)
        self._memo = memo

    # --- requests -------------------------------------------------------------------------------------------------------

    def get(self, url: str, **options: Unpack[Options]) -> Response:
        """The response to a GET of `url`, whatever its status. Options as for `request`."""
        if not options:
            made = self._memo.get(url) or self._learn(url)
            if made is not None:
                return self._again(made, self._timing, in_force(None) if Use.ambient else None)
        elif len(options) == 1 and "timeout" in options:
            made = self._memo.get(url) or self._learn(url)
            if made is not None:
                limits = Timeout.of(options["timeout"]).limits
                return self._again(made, (limits, limits.total, "request"), in_force(None) if Use.ambient else None)
        return self._request("GET", url, options)

    def head(self, url: str, **options: Unpack[Options]) -> Response:
        """The response to a HEAD, which has no body. Options as for `request`."""
        return self._request("HEAD", url, options)

    def options(self, url: str, **options: Unpack[Options]) -> Response:
        """The response to an OPTIONS. Options as for `request`."""
        return self._request("OPTIONS", url, options)

    def delete(self, url: str, **options: Unpack[Options]) -> Response:
        """The response to a DELETE. Options as for `request`."""
        return self._request("DELETE", url, options)

    def post(self, url: str, **options: Unpack[Options]) -> Response:
        """The response to a POST; the body is `json=`, `data=` or `content=`. Options as for `request`."""
        return self._request("POST", url, options)

    def put(self, url: str, **options: Unpack[Options]) -> Response:
        """The response to a PUT; the body is `json=`, `data=` or `content=`. Options as for `request`."""
        return self._request("PUT", url, options)

    def patch(self, url: str, **options: Unpack[Options]) -> Response:
        """The response to a PATCH; the body is `json=`, `data=` or `content=`. Options as for `request`."""
        return self._request("PATCH", url, options)

    def request(self, method: str, url: str, **options: Unpack[Options]) -> Response:
        """Send a request and return its response, the body in memory unless `stream=True`. Options:

        params: a mapping, pairs or a str, appended to the URL's query; a None value is left out.
        headers: a mapping or pairs, over the client's; a None value takes a default away.
        cookies: as for `Cookies`; for this request alone, over those of the jar.
        content: bytes, str (UTF-8), a binary file, or an iterable of bytes.
        data: a mapping or pairs, as a form; else like content.
        files: a mapping or pairs, as a form with files (and the fields of `data`): a file, bytes, or (filename, file[, content_type[, headers]]).
        json: what `json.dumps` takes, sent as compact UTF-8.
        auth: (user, password), an `Auth`, or a callable (request) -> request; None for none.
        timeout: seconds for everything, (connect, read), a `Timeout`, or None for no limit.
        context: a `Context` that it obeys, beside the one that is ambient.
        stream: the body is left unread; the response is the caller's to close.
        max_response_bytes: the greatest body; ResponseTooLarge over it.
        follow_redirects, retries: instead of the client's.

        Raises subclasses of `pooledhttp.Error`; TypeError and ValueError for arguments that make no request.
        """
        return self._request(method, url, options)

    def stream(self, method: str, url: str, **options: Unpack[StreamOptions]) -> StreamContext:
        """A context manager: the response with its body unread, closed when the block is left. Options as for `request`."""
        return StreamContext(self, method, url, options)

    def build_request(self, method: str, url: str, **options: Unpack[BuildOptions]) -> Request:
        """A request with this client's defaults, for `send`."""
        check_options(options)
        request, rest = self._build(method, url, options)
        if rest:
            raise TypeError(f"{next(iter(rest))!r} is an option of send, not of build_request")
        return request

    def send(self, request: Request, **options: Unpack[SendOptions]) -> Response:
        """Send a request. One that `build_request` did not make is completed with the default headers; yours is not changed."""
        given: dict[str, Any] = dict(options)
        self._check_sending(given)
        return self._send(self._completed(request), given, None)

    @staticmethod
    def _check_sending(options: Mapping[str, Any]) -> None:
        """TypeError for an option that a request which is made has no use for."""
        for name in options:
            if name in _BUILD:
                raise TypeError(f"{name!r} is an option of build_request, not of send")

    @overload
    def map(self, requests: Requests, *, workers: int | None = None, executor: Executor | None = None, ordered: bool = True,
            return_exceptions: Literal[False] = False, progress: Progress = None, **options: Unpack[Options]) -> Iterator[Response]: ...

    @overload
    def map(self, requests: Requests, *, workers: int | None = None, executor: Executor | None = None, ordered: bool = True,
            return_exceptions: bool, progress: Progress = None, **options: Unpack[Options]) -> Iterator[Response | Exception]: ...

    def map(self, requests: Requests, *, workers: int | None = None, executor: Executor | None = None, ordered: bool = True,
            return_exceptions: bool = False, progress: Progress = None, **options: Unpack[Options]) -> Iterator[Any]:
        """Responses to many requests, in order, or with `ordered=False` as they come.

        requests: URLs, `Request`s or (method, url) pairs, perhaps endless: at most 2 * workers are taken ahead. It is read on the
        caller's thread, between two responses: while it blocks, nothing is yielded.
        workers: how many threads do it (default: the executor's, or min(32, cpus * 4 + 4)).
        executor: a `concurrent.futures.Executor` that does it instead; processes get the client as its configuration.
        return_exceptions: a failure is yielded, not raised at its turn. Either way it carries `.request`.
        progress: True for a bar on a terminal (rich or tqdm), or called with (done, total or None); what it raises ends the loop.
        options: every request's, as for `request`; where there are `Request`s, as for `send`.

        Leaving the loop early cancels what is in flight and gives every connection back. An iterator that is kept is to be
        closed (`contextlib.closing`).
        """
        from pooledhttp.fanout import fan_out

        check_options(options)
        return fan_out(self, requests, workers=workers, executor=executor, ordered=ordered, return_exceptions=return_exceptions,
                       progress=progress, options=dict(options))

    @overload
    def as_completed(self, requests: Requests, *, workers: int | None = None, executor: Executor | None = None,
                     return_exceptions: Literal[False] = False, progress: Progress = None, **options: Unpack[Options]) -> Iterator[Response]: ...

    @overload
    def as_completed(self, requests: Requests, *, workers: int | None = None, executor: Executor | None = None,
                     return_exceptions: bool, progress: Progress = None, **options: Unpack[Options]) -> Iterator[Response | Exception]: ...

    def as_completed(self, requests: Requests, *, workers: int | None = None, executor: Executor | None = None,
                     return_exceptions: bool = False, progress: Progress = None, **options: Unpack[Options]) -> Iterator[Any]:
        """Responses to many requests, as they come: `map` with `ordered=False`."""
        return self.map(requests, workers=workers, executor=executor, ordered=False, return_exceptions=return_exceptions,
                        progress=progress, **options)

    # --- the fast lane: a plain get() of a URL seen before ----------------------------------------------------------------

    def _learn(self, url: str) -> Prepared | None:
        """What a plain GET of `url` needs, kept for the next one; None where each request must be made by itself."""
        memo = self._memo                    # first: whoever changes what is read below replaces it afterwards
        auth = self._auth
        if (self._closed or self._exchange is None or self._hooks is not None or self._retry is not None or self._cookies is not None or self._flow is not Flow
                or not (auth is None or isinstance(auth, HeaderAuth))
                or (self._mounts is not None and self._route_of(URL(self._absolute(url, None))) is not self._route)):
            return None
        headers = self._headers
        version = headers.version
        request, _ = self._build("GET", url, {})
        if auth is not None:
            request = auth(request)
        if self._trust is not None and self._trust.varies(request.url, request.headers.multi_items()):
            return None
        *most, flags, whole = request.wire()
        wire = *most, flags | FLAG_MAY_GO_ON if self._follow else flags, whole
        made: Prepared = self.transport.prepare(wire, self._limit, self._default_encoding)
        if len(memo) >= _MEMO_SIZE:
            memo.clear()
        memo[url] = made
        if headers.version != version:
            memo.pop(url, None)              # changed while we built: this one is sent, and not kept
        return made

    def _again(self, made: Prepared, timing: tuple[Limits, int, str], cancel: Canceller | None = None) -> Response:
        limits, total, source = timing
        deadline = -1 if total < 0 else monotonic_ns() + total
        if cancel is not None:
            deadline, source = within(cancel, deadline, source)
        try:
            answer = self._exchange_prepared(made, limits, deadline, source, cancel)
        except Error as e:
            if e.request is None:
                e.request = Request.from_wire(made.wire)
            raise
        if type(answer) is not Response:
            return self._went_on(answer, made.wire, limits, deadline, source, cancel)
        return answer.raise_for_status() if self._raise else answer

    def _went_on(self, reply: Any, wire: tuple[Any, ...], limits: Limits, deadline: int, source: str, cancel: Canceller | None) -> Response:
        """The short cut led to a redirect, to cookies, or to a coded body: the rest is the whole way."""
        request = Request.from_wire(wire)
        request.trust = self._trust
        response = Response.from_reply(reply, request)
        response._limit = self._limit
        response.default_encoding = self._default_encoding
        if reply.notes & SETS_COOKIES:
            self._take_cookies(response, request)
        flow = Flow(self, Timeout.from_limits(limits), source, deadline, auth=self._auth, follow=self._follow, retry=None, stream=False,
                    max_body=self._limit, cancel=cancel)
        return flow.go_on(request, response)

    # --- the whole way ----------------------------------------------------------------------------------------------------

    def _request(self, method: str, url: str, options: Mapping[str, Any], cancel: Canceller | None = None) -> Response:
        if options:
            check_options(options)
        request, rest = self._build(method, url, options)
        return self._send(request, rest, cancel)

    def _build(self, method: str, url: str, options: Mapping[str, Any]) -> tuple[Request, dict[str, Any]]:
        """The request with this client's defaults, and the options that are for sending it."""
        rest = dict(options)
        take = rest.pop
        params = take("params", None)
        headers, dropped = without_none(take("headers", None))
        request = Request(method, self._absolute(url, params), headers=headers, cookies=take("cookies", None),
                          content=take("content", None), data=take("data", None), files=take("files", None), json=take("json", None))
        request.headers = merge(self._headers, request.headers, dropped)
        if not self._route_of(request.url).as_is:
            advertise(request.headers, dropped | self._dropped)
        request.complete = True
        request.trust = self._trust
        return request, rest

    def _absolute(self, url: str, params: Params | None) -> str:
        if self._base and isinstance(url, str) and not is_absolute(url):
            url = beneath(self._base, url)
        mine = self._params
        if mine is None and params is None:
            return url
        if mine is None or params is None:
            return URL(url, mine if params is None else params)
        if isinstance(mine, (str, bytes)) or isinstance(params, (str, bytes)):
            return URL(url, mine).with_params(params)
        pairs = list(params.items() if isinstance(params, Mapping) else params)
        names = {name for name, _ in pairs}                      # also those of None, which take a default away
        return URL(url, [pair for pair in mine if pair[0] not in names]).with_params(pairs)

    def _completed(self, request: Request) -> Request:
        if not isinstance(request, Request):
            raise TypeError(f"a Request is sent, not {type(request).__name__}")
        if request.complete:
            return request
        request = request.copy()
        request.headers = merge(self._headers, request.headers)
        if not self._route_of(request.url).as_is:
            advertise(request.headers, self._dropped)
        request.complete = True
        return request

    def _send(self, request: Request, options: dict[str, Any], cancel: Canceller | None) -> Response:
        take = options.pop
        auth = take("auth", _GIVEN)
        timeout = take("timeout", _GIVEN)
        limit = take("max_response_bytes", _GIVEN)
        stream = take("stream", False)
        context = take("context", None)
        if cancel is None and (context is not None or Use.ambient):
            cancel = in_force(context)
        follow = take("follow_redirects", None)
        retries = take("retries", None)
        if options:
            check_options(options)
        if self._closed:
            raise RuntimeError("the client is closed")
        if timeout is _GIVEN:
            limits, source = self._timeout, "client"
        else:
            limits, source = Timeout.of(timeout), "request"
        total = limits.limits.total
        deadline = monotonic_ns() + total if total >= 0 else -1
        if cancel is not None:
            deadline, source = within(cancel, deadline, source)
        flow = self._flow(self, limits, source, deadline, auth=as_auth(auth) if auth is not _GIVEN else self._auth,
                    follow=self._follow if follow is None else bool(follow), retry=self._retry if retries is None else as_retry(retries), stream=stream,
                    max_body=_check_limit(limit) if limit is not _GIVEN else self._limit, cancel=cancel)
        response: Response = flow.run(request)
        return response

    # --- the end ----------------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Take no further request, and close the transport where it is this client's own; a shared or given one stays open."""
        self._closed = True
        self._forget()
        if self._private:
            self.transport.close()
        leases, self._leases = self._leases, []
        for lease in leases:
            lease.close()

    def __enter__(self) -> Client:
        if self._closed:
            raise RuntimeError("the client is closed")
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client{' closed' if self._closed else ''} over {self.transport!r}>"

    def __getstate__(self) -> dict[str, Any]:
        """The configuration. A transport of another class travels as its own pickle says."""
        if self._closed:
            raise RuntimeError("the client is closed")
        from pooledhttp.interned import travelling

        state = {name: value for name, value in dict(self.__dict__).items() if name not in _LIVE}
        mounts = [(pattern, travelling(transport)) for pattern, transport in self._mounts.given.items()] if self._mounts is not None else None
        return {**state, "transport": travelling(self.transport), "private": self._private, "mounts": mounts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        from pooledhttp.interned import arrived

        state = dict(state)
        transport, private, mounts = [state.pop(name) for name in ("transport", "private", "mounts")]
        self.__dict__.update(state)
        self._private = private and transport[0] == "own"
        self._leases = []
        self._memo = {}
        self._headers = self._headers.copy()         # a shallow copy's would be the other's too
        self._headers.drop_on_change(self._memo)
        if self._hooks is not None:
            self._hooks = {name: list(hooks) for name, hooks in self._hooks.items()}
        self._set_timeout(self._timeout)
        if self._cookies is not None:
            self._cookies = self._cookies.copy()
        leases = self._leases
        self._attach(arrived(transport, leases), None if mounts is None else {pattern: arrived(how, leases) for pattern, how in mounts})


class StreamContext:
    """`with client.stream(...) as response`."""

    __slots__ = ("_args", "_response")

    def __init__(self, client: Client, method: str, url: str, options: Mapping[str, Any]) -> None:
        if "stream" in options:
            raise TypeError("stream() has no option 'stream'")
        self._args = client, method, url, options
        self._response: Response | None = None

    def __enter__(self) -> Response:
        client, method, url, options = self._args
        self._response = client._request(method, url, {**options, "stream": True})
        return self._response

    def __exit__(self, *exc: object) -> None:
        if self._response is not None:
            self._response.close()
