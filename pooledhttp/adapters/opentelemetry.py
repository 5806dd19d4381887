"""Spans and metrics of a client's requests, for OpenTelemetry: `instrument(client)`.

By the semantic conventions for HTTP, stable names:
https://opentelemetry.io/docs/specs/semconv/http/http-spans/, https://opentelemetry.io/docs/specs/semconv/http/http-metrics/
"""
from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from contextvars import Context as Surroundings
from contextvars import copy_context
from time import perf_counter
from typing import TYPE_CHECKING, Any

try:
    from opentelemetry import context as otel_context
    from opentelemetry import metrics, propagate, trace
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.propagators.textmap import Setter
    from opentelemetry.trace import SpanKind, StatusCode, TracerProvider
except ImportError as e:
    raise ImportError("pooledhttp.adapters.opentelemetry needs opentelemetry-api: pip install 'pooledhttp[opentelemetry]'") from e

from pooledhttp._core.runtime import at_fork
from pooledhttp._version import __version__
from pooledhttp.flow import Flow, Route
from pooledhttp.headers import Headers
from pooledhttp.request import Request
from pooledhttp.response import Response
from pooledhttp.trace import Trace
from pooledhttp.transport import Transport
from pooledhttp.url import URL, unescape

if TYPE_CHECKING:
    from pooledhttp.client import Client
    from pooledhttp.conninfo import ConnInfo

_NAME = "pooledhttp"
_SCHEMA = "https://opentelemetry.io/schemas/1.27.0"
_METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"))
_BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)         # seconds, as advised
_LIFETIMES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)            # seconds, as advised
# Names in a query whose values are secrets of the great clouds' signed URLs, as the conventions list them.
SECRETS = frozenset(("AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature"))
# What an exporter sets around its own requests.
_SUPPRESSED = (otel_context._SUPPRESS_INSTRUMENTATION_KEY, otel_context._SUPPRESS_HTTP_INSTRUMENTATION_KEY)


class _Fields(Setter[Headers]):
    def set(self, carrier: Headers, key: str, value: str) -> None:
        carrier[key] = value


_fields = _Fields()


class _Instruments:
    """The metrics of one meter provider, and the transports whose connections it counts."""

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter(_NAME, __version__, schema_url=_SCHEMA)
        self.duration = meter.create_histogram("http.client.request.duration", unit="s", description="Duration of HTTP client requests.",
                                               explicit_bucket_boundaries_advisory=_BOUNDARIES)
        self.lifetime = meter.create_histogram("http.client.connection.duration", unit="s",
                                               description="The duration of the successfully established outbound HTTP connections.",
                                               explicit_bucket_boundaries_advisory=_LIFETIMES)
        self.transports: weakref.WeakSet[Transport] = weakref.WeakSet()
        meter.create_observable_up_down_counter(
            "http.client.open_connections", callbacks=[self.observe], unit="{connection}",
            description="Number of outbound HTTP connections that are currently active or idle on the client.")

    def observe(self, options: CallbackOptions) -> Iterable[Observation]:
        counts: dict[tuple[str, int | None, str], int] = {}
        for transport in list(self.transports):
            for key, host in transport.stats().hosts.items():
                address, port = _server(key)
                for state, n in (("active", host.active), ("idle", host.idle)):
                    counts[address, port, state] = counts.get((address, port, state), 0) + n
        for (address, port, state), n in counts.items():
            attributes: dict[str, str | int] = {"http.connection.state": state, "server.address": address}
            if port is not None:
                attributes["server.port"] = port
            yield Observation(n, attributes)


_instruments: weakref.WeakKeyDictionary[MeterProvider, _Instruments] = weakref.WeakKeyDictionary()
_lock = threading.RLock()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()


at_fork(_after_fork_in_child)


def _instruments_of(provider: MeterProvider) -> _Instruments:
    with _lock:
        found = _instruments.get(provider)
        if found is None:
            found = _instruments[provider] = _Instruments(provider)
        return found


def _server(key: str) -> tuple[str, int | None]:
    """The server's address and port of a pool key."""
    origin = key.partition(" ")[0].partition("://")[2]
    if not origin:
        return "_OTHER", None                  # hosts that the pool keeps no row for
    host, _, port = origin.rpartition(":")
    return (host[1:-1] if host.startswith("[") else host), int(port)


class Telemetry:
    """What an instrumented client makes its exchanges with."""

    def __init__(self, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None, propagating: bool | Callable[[URL], bool],
                 secrets: frozenset[str]) -> None:
        self._tracer = trace.get_tracer(_NAME, __version__, tracer_provider, schema_url=_SCHEMA)
        self._meter_provider = meter_provider
        self._made: _Instruments | None = None
        self._propagating = propagating
        self._secrets = secrets

    def __reduce__(self) -> Any:
        return Telemetry, (None, None, self._propagating, self._secrets)         # with the providers of there

    def __call__(self, *args: Any, **kw: Any) -> Flow:
        return _Observed(self, *args, **kw)

    # --- to other processes -----------------------------------------------------------------------------------------------

    def carry(self, around: Surroundings) -> dict[str, str] | None:
        """What says in another process whose trace it is."""
        carrier: dict[str, str] = {}
        around.copy().run(propagate.inject, carrier)
        return carrier or None

    def arrive(self, carrier: dict[str, str]) -> Surroundings:
        """Context variables in which the trace goes on."""
        around = copy_context()
        around.run(lambda: otel_context.attach(propagate.extract(carrier)))
        return around

    # --- an exchange ------------------------------------------------------------------------------------------------------

    def instruments(self) -> _Instruments:
        """Made by the first request: a program may set its providers after it has instrumented its clients."""
        made = self._made
        if made is None:
            made = self._made = _instruments_of(self._meter_provider or metrics.get_meter_provider())
        return made

    def full(self, url: URL) -> str:
        """The URL as a span shows it. (A request's has no userinfo any more.)"""
        query = url.query
        if query and self._secrets:
            query = "&".join(self._pair(pair) for pair in query.split("&"))
        return url.redacted + (f"?{query}" if query else "") + (f"#{url.fragment}" if url.fragment else "")

    def _pair(self, pair: str) -> str:
        name, equals, _ = pair.partition("=")
        return f"{name}=REDACTED" if equals and unescape(name) in self._secrets else pair

    def exchange(self, send: Callable[[Route, Request, bool], Response], route: Route, request: Request, unread: bool, resends: int) -> Response:
        """One exchange within a span of its own, which ends with the response's head, or with its body where that is read along."""
        url = request.url
        method = request.method
        known = method if method in _METHODS else "_OTHER"
        common: dict[str, str | int] = {"http.request.method": known, "server.address": url.host, "server.port": url.effective_port}
        attributes = {**common, "url.full": self.full(url)}
        if known != method:
            attributes["http.request.method_original"] = method
        if resends:
            attributes["http.request.resend_count"] = resends
        instruments = self.instruments()
        if isinstance(route.transport, Transport):
            instruments.transports.add(route.transport)
        span = self._tracer.start_span(known if known == method else "HTTP", kind=SpanKind.CLIENT, attributes=attributes)
        token = otel_context.attach(trace.set_span_in_context(span))
        begun = perf_counter()
        outcome: dict[str, str | int] = {}
        try:
            if self._propagating is True or self._propagating and self._propagating(url):
                request = request.copy()
                propagate.inject(request.headers, setter=_fields)
            response = send(route, request, unread)
            outcome["http.response.status_code"] = response.status_code
            outcome["network.protocol.version"] = response.http_version.partition("/")[2]
            if response.status_code >= 400:
                outcome["error.type"] = str(response.status_code)
                span.set_status(StatusCode.ERROR)
            if span.is_recording():
                self._tell(span, response)
            return response
        except BaseException as e:
            kind = type(e)
            outcome["error.type"] = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
            span.set_status(StatusCode.ERROR, str(e))
            raise
        finally:
            span.set_attributes(outcome)
            instruments.duration.record(perf_counter() - begun, {**common, **outcome})
            span.end()
            otel_context.detach(token)

    @staticmethod
    def _tell(span: trace.Span, response: Response) -> None:
        conn = response.conn
        if conn is None:
            return
        peer = conn.remote_addr
        if isinstance(peer, tuple):
            span.set_attribute("network.peer.address", peer[0])
            span.set_attribute("network.peer.port", peer[1])
        elif peer is not None:
            span.set_attribute("network.peer.address", peer)


class _Observed(Flow):
    """A flow whose exchanges are told of, each by itself: redirects, retries and steps of an auth too."""

    __slots__ = ("_sends", "_telemetry")

    def __init__(self, telemetry: Telemetry, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self._telemetry = telemetry
        self._sends = 0

    def _sent(self, route: Route, request: Request, unread: bool) -> Response:
        resends = self._sends
        self._sends += 1
        if any(otel_context.get_value(key) for key in _SUPPRESSED):
            return super()._sent(route, request, unread)
        return self._telemetry.exchange(super()._sent, route, request, unread, resends)


class ConnectionTrace(Trace):
    """`Transport(trace=ConnectionTrace)`: measures how long its connections lived (`http.client.connection.duration`, seconds), as each is closed.

    A subclass may say another `meter_provider` than the global one. A connection that served no request is not measured.
    """

    meter_provider: MeterProvider | None = None
    # Of connections that served: when each was made, and to where. An id is its pool's own, so it takes both.
    _born: dict[tuple[int, Any, Any], tuple[float, str]] = {}

    def got_conn(self, info: ConnInfo) -> None:
        if not info.reused:
            self._born[info.id, info.local_addr, info.remote_addr] = perf_counter(), self.key

    def closed(self, reason: str, info: ConnInfo) -> None:
        born = self._born.pop((info.id, info.local_addr, info.remote_addr), None)
        if born is None:
            return
        address, port = _server(born[1])
        attributes: dict[str, str | int] = {"server.address": address, "url.scheme": born[1].partition("://")[0]}
        if port is not None:
            attributes["server.port"] = port
        _instruments_of(self.meter_provider or metrics.get_meter_provider()).lifetime.record(perf_counter() - born[0], attributes)


def instrument(client: Client, *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None,
               propagate: bool | Callable[[URL], bool] = True, redact: Iterable[str] = SECRETS) -> Client:
    """Have `client` make a span of each of its exchanges, and measure them; returns it. A second call replaces the first's settings.

    The providers are the global ones where none are given, and always in another process that unpickles the client. `propagate` says whether requests
    take the trace's context along (`traceparent`, or what the global propagator writes), for all URLs, for none, or by a function of the URL.
    `redact`: names of query parameters whose values no span shows.

    Metrics: `http.client.request.duration` (seconds), and `http.client.open_connections` of the transports that an instrumented client has used.
    """
    if not (isinstance(propagate, bool) or callable(propagate)):
        raise TypeError(f"propagate is a bool or a function of the URL, not {type(propagate).__name__}")
    if isinstance(redact, str):
        raise TypeError("redact is an iterable of names: put a single one in a list")
    client._flow = Telemetry(tracer_provider, meter_provider, propagate, frozenset(redact))
    client._forget()
    return client


def uninstrument(client: Client) -> Client:
    """Take back what `instrument` did; returns the client."""
    client.__dict__.pop("_flow", None)
    client._forget()
    return client
