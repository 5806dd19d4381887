"""Spans, metrics and the context on the wire, with the real SDK and its exporters in memory."""
from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, Tracer

from pooledhttp import Client, ConnectError, Context, DeadlineExceeded, MockTransport, Request, Response, Retry
from pooledhttp.adapters.opentelemetry import SECRETS, ConnectionTrace, instrument, uninstrument
from pooledhttp.fanout import Fetch
from tests.api.server import Server


class Kept:
    """Providers, and what came of them."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)

    @property
    def options(self) -> dict[str, Any]:
        return {"tracer_provider": self.tracer_provider, "meter_provider": self.meter_provider}

    @property
    def tracer(self) -> Tracer:
        return self.tracer_provider.get_tracer("tests")

    def spans(self) -> list[ReadableSpan]:
        got = list(self.exporter.get_finished_spans())
        self.exporter.clear()
        return got

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        return [point for rm in (data.resource_metrics if data is not None else ()) for sm in rm.scope_metrics for metric in sm.metrics
                if metric.name == name for point in metric.data.data_points]


@pytest.fixture
def kept() -> Iterator[Kept]:
    kept = Kept()
    yield kept
    kept.tracer_provider.shutdown()
    kept.meter_provider.shutdown()


@pytest.fixture
def client(kept: Kept, server: Server) -> Iterator[Client]:
    with Client(max_conns_per_host=8, timeout=10) as client:
        yield instrument(client, **kept.options)


def told(response: Response) -> dict[str, str]:
    """The header fields that the server got, by their names in lower case."""
    return {name.lower(): value for name, value in response.json()["headers"]}


def parent(span: ReadableSpan) -> str:
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{int(span.context.trace_flags):02x}"


def test_a_span(client: Client, kept: Kept, server: Server) -> None:
    response = client.get(server.url + "/echo?a=1", params={"sig": "secret"})
    (span,) = kept.spans()
    host, port = server.server_address[:2]
    assert (span.name, span.kind, span.status.status_code) == ("GET", SpanKind.CLIENT, StatusCode.UNSET)
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET", "server.address": host, "server.port": port, "url.full": f"{server.url}/echo?a=1&sig=REDACTED",
        "http.response.status_code": 200, "network.protocol.version": "1.1", "network.peer.address": host, "network.peer.port": port}
    assert told(response)["traceparent"] == parent(span)
    assert span.instrumentation_scope is not None and span.instrumentation_scope.name == "pooledhttp"
    assert response.url == f"{server.url}/echo?a=1&sig=secret"


@pytest.mark.parametrize(("url", "shown"), [
    ("http://user:pass@h/p?x=1#f", "http://h/p?x=1#f"),
    ("http://h/?Signature=a&AWSAccessKeyId=b&X-Goog-Signature=c&sig=d&Sig=e", "http://h/?Signature=REDACTED&AWSAccessKeyId=REDACTED"
     "&X-Goog-Signature=REDACTED&sig=REDACTED&Sig=e"),
    ("http://h/?s%69g=a&mine=b&sig", "http://h/?s%69g=REDACTED&mine=REDACTED&sig"),
])
def test_what_a_span_shows_of_a_url(kept: Kept, url: str, shown: str) -> None:
    client = instrument(Client(transport=MockTransport(lambda request: Response(200))), redact=[*SECRETS, "mine"], **kept.options)
    client.get(url)
    (span,) = kept.spans()
    assert span.attributes is not None and span.attributes["url.full"] == shown


def test_methods(kept: Kept) -> None:
    client = instrument(Client(transport=MockTransport(lambda request: Response(200))), **kept.options)
    for method in ("POST", "PURGE"):
        client.request(method, "http://h/")
    post, purge = kept.spans()
    assert post.name == "POST" and "http.request.method_original" not in (post.attributes or {})
    assert purge.name == "HTTP" and purge.attributes is not None
    assert (purge.attributes["http.request.method"], purge.attributes["http.request.method_original"]) == ("_OTHER", "PURGE")


def test_errors_are_told(client: Client, kept: Kept, server: Server) -> None:
    assert client.get(server.url + "/status/404").status_code == 404
    with pytest.raises(ConnectError):
        client.get("http://127.0.0.1:1/?q=secret")
    with pytest.raises(DeadlineExceeded):
        client.get(server.url + "/held", timeout=0.05)
    missing, refused, late = kept.spans()
    assert [span.status.status_code for span in (missing, refused, late)] == [StatusCode.ERROR] * 3
    assert [(span.attributes or {})["error.type"] for span in (missing, refused, late)] == [
        "404", "pooledhttp.errors.ConnectError", "pooledhttp.errors.DeadlineExceeded"]
    assert "secret" not in (refused.status.description or "") and "http.response.status_code" not in (refused.attributes or {})
    points = {point.attributes.get("error.type"): point for point in kept.points("http.client.request.duration")}
    assert set(points) == {"404", "pooledhttp.errors.ConnectError", "pooledhttp.errors.DeadlineExceeded"}
    assert points["pooledhttp.errors.DeadlineExceeded"].sum >= 0.05


def test_redirects_and_retries_are_spans_of_their_own(client: Client, kept: Kept, server: Server) -> None:
    client.get(server.url + "/status/302")
    spans = kept.spans()
    assert [(s.attributes or {}).get("http.request.resend_count") for s in spans] == [None, 1]
    assert [(s.attributes or {})["http.response.status_code"] for s in spans] == [302, 200]
    client.get(server.url + "/status/503", retries=Retry(2, backoff=0.0))
    spans = kept.spans()
    assert [(s.attributes or {}).get("http.request.resend_count") for s in spans] == [None, 1, 2]
    assert len({s.context.span_id for s in spans}) == 3


def test_the_request_of_the_caller_stays_as_it_is(client: Client, kept: Kept, server: Server) -> None:
    request = Request("GET", server.url + "/echo")
    one, two = told(client.send(request)), told(client.send(request))
    assert one["traceparent"] != two["traceparent"]
    assert "traceparent" not in request.headers


def test_parents_come_from_the_caller_also_in_workers(client: Client, kept: Kept, server: Server) -> None:
    urls = [f"{server.url}/echo?{n}" for n in range(6)]
    with ThreadPoolExecutor(2) as executor, kept.tracer.start_as_current_span("batch") as batch:
        responses = [*client.map(urls, workers=3), *client.as_completed(urls, executor=executor)]
    spans = {parent(s): s for s in kept.spans() if s.kind is SpanKind.CLIENT}
    assert len(spans) == 12
    assert all(s.parent is not None and s.parent.span_id == batch.get_span_context().span_id for s in spans.values())
    assert {told(r)["traceparent"] for r in responses} == set(spans)
    client.get(urls[0])
    assert kept.spans()[0].parent is None                     # outside of it


def test_each_of_two_maps_has_its_own_parent(client: Client, kept: Kept, server: Server) -> None:
    """Begun in one span, iterated in another, on another thread: the first one is meant."""
    with kept.tracer.start_as_current_span("begun") as begun:
        results = client.map([server.url + "/echo"] * 3, workers=2)
    got: list[Response] = []
    with kept.tracer.start_as_current_span("elsewhere"):
        thread = threading.Thread(target=lambda: got.extend(results))
        thread.start()
        thread.join()
    assert len(got) == 3
    assert {s.parent.span_id for s in kept.spans() if s.parent is not None} == {begun.get_span_context().span_id}


def test_a_pickled_task_takes_its_trace_along(client: Client, kept: Kept, server: Server) -> None:
    with kept.tracer.start_as_current_span("batch") as batch:
        results = client.map([server.url + "/echo"], executor=Pickling())
    (response,) = results
    assert told(response)["traceparent"].split("-")[1] == f"{batch.get_span_context().trace_id:032x}"
    assert kept.spans()[0].name == "batch"


class Pickling(ThreadPoolExecutor):
    """Another process's part, played by this one."""

    def submit(self, fn: Any, /, *args: Any, **kw: Any) -> Any:
        assert isinstance(fn, Fetch)
        return super().submit(Travelled(pickle.dumps(fn)), *args, **kw)


class Travelled:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def __call__(self, item: Any) -> Response:
        fetch = pickle.loads(self.data)
        try:
            return fetch(item)  # type: ignore[no-any-return]
        finally:
            fetch.client.close()


@pytest.mark.parametrize("propagate", [True, False, lambda url: url.path == "/echo"])
def test_propagation(kept: Kept, server: Server, propagate: Any) -> None:
    with instrument(Client(timeout=10, max_conns_per_host=2), propagate=propagate, **kept.options) as client:
        there = "traceparent" in told(client.get(server.url + "/echo"))
        assert there is (propagate is not False)
        if callable(propagate):
            assert "traceparent" not in client.get(server.url + "/number/1").request.headers  # type: ignore[union-attr]


def test_duration(client: Client, kept: Kept, server: Server) -> None:
    for _ in range(3):
        client.get(server.url + "/number/1")
    (point,) = kept.points("http.client.request.duration")
    assert (point.count, tuple(point.explicit_bounds)) == (3, (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10))
    host, port = server.server_address[:2]
    assert dict(point.attributes) == {"http.request.method": "GET", "server.address": host, "server.port": port,
                                      "http.response.status_code": 200, "network.protocol.version": "1.1"}
    assert 0 < point.sum < 10


def test_open_connections(client: Client, kept: Kept, server: Server) -> None:
    with instrument(Client(transport=client.transport), **kept.options) as other:       # the same transport: counted once
        other.get(server.url + "/number/1")
        with client.stream("GET", server.url + "/number/1"), client.stream("GET", server.url + "/number/2"):
            assert {p.attributes["http.connection.state"]: p.value for p in kept.points("http.client.open_connections")} == {"active": 2, "idle": 0}
        points = kept.points("http.client.open_connections")
        assert {p.attributes["http.connection.state"]: p.value for p in points} == {"active": 0, "idle": 2}
        host, port = server.server_address[:2]
        assert {(p.attributes["server.address"], p.attributes["server.port"]) for p in points} == {(host, port)}


def test_the_compiled_exchange_is_used_and_the_body_read_in_it(client: Client, kept: Kept, server: Server) -> None:
    client.get(server.url + "/number/1")
    response = client.get(server.url + "/number/12")
    assert response.content == b"12" and response.conn is not None and response.conn.reused
    assert client.transport.stats().active == 0
    assert len(kept.spans()) == 2


def test_what_an_exporter_sends_is_not_told(client: Client, kept: Kept, server: Server) -> None:
    token = otel_context.attach(otel_context.set_value(otel_context._SUPPRESS_INSTRUMENTATION_KEY, True))
    try:
        assert "traceparent" not in told(client.get(server.url + "/echo"))
    finally:
        otel_context.detach(token)
    assert kept.spans() == []


def test_instrumented_late_and_taken_back(kept: Kept, server: Server) -> None:
    with Client(max_conns_per_host=2, timeout=10) as client:
        url = server.url + "/echo"
        assert "traceparent" not in told(client.get(url))
        assert client._memo                                   # the short cut knows the URL
        assert instrument(client, **kept.options) is client
        assert "traceparent" in told(client.get(url))
        assert not client._memo
        assert uninstrument(client) is client
        assert "traceparent" not in told(client.get(url))
        assert client._memo
    assert len(kept.spans()) == 1


def test_without_an_sdk_requests_are_as_they_were(server: Server) -> None:
    with instrument(Client(max_conns_per_host=2, timeout=10)) as client, Context(timeout=5):
        assert "traceparent" not in told(client.get(server.url + "/echo"))


def test_it_pickles(client: Client, server: Server) -> None:
    """The settings travel; the providers are those of where it arrives, and here the global ones do nothing."""
    with pickle.loads(pickle.dumps(client)) as there:
        assert "traceparent" not in told(there.get(server.url + "/echo"))
        with trace.use_span(trace.NonRecordingSpan(trace.SpanContext(5, 6, True, trace.TraceFlags(1)))):
            assert told(there.get(server.url + "/echo"))["traceparent"].startswith(f"00-{5:032x}-")


def test_mistakes() -> None:
    client = Client()
    for wrong in ({"propagate": "yes"}, {"redact": "sig"}):
        with pytest.raises(TypeError):
            instrument(client, **wrong)  # type: ignore[arg-type]
    assert client._flow.__module__ == "pooledhttp.flow"


def test_how_long_connections_lived(kept: Kept, server: Server) -> None:
    class Measured(ConnectionTrace):
        meter_provider = kept.meter_provider

    with Client(trace=Measured, timeout=10) as client:
        for _ in range(3):
            client.get(server.url + "/echo")
        assert kept.points("http.client.connection.duration") == []          # it lives
    (point,) = kept.points("http.client.connection.duration")
    host, port = server.url.partition("://")[2].split(":")
    assert dict(point.attributes) == {"server.address": host, "server.port": int(port), "url.scheme": "http"}
    assert (point.count, 0 < point.sum < 10) == (1, True)
    assert ConnectionTrace._born == {}
