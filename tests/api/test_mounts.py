"""Mounts: which transport a URL goes over, at each hop; who closes it; and how it travels."""
from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from pooledhttp import URL, Client, MockTransport, Request, Response, Transport, default_transport
from pooledhttp.flow import Route
from pooledhttp.mounts import Mounts, Pattern
from tests.support.peer import Peer, answering, respond

from .server import Spy

MakePeer = Callable[..., Peer]

PATTERNS = [
    ("all://", "http://a/ https://a:8443/x http://[::1]/", ""),
    ("http://", "http://a/ http://b:81/", "https://a/"),
    ("HTTPS://", "https://a/ https://a:8443/", "http://a/"),
    ("all://a.example", "http://a.example/ https://a.example:81/x http://A.EXAMPLE/", "http://b.a.example/ http://a.example.org/ http://xa.example/"),
    ("http://a:81", "http://a:81/", "http://a/ https://a:81/ http://a:82/"),
    ("http://a:80", "http://a/ http://a:80/", "http://a:81/"),
    ("https://a:443/", "https://a/", "https://a:8443/"),
    ("all://a:443", "https://a/ http://a:443/", "http://a/"),
    ("all://*", "http://a/ https://b.c:1/", ""),
    ("all://*:8080", "http://a:8080/ https://b:8080/", "http://a/"),
    ("all://*.svc", "http://a.svc/ http://a.b.svc:1/", "http://svc/ http://asvc/ http://a.svc.org/"),
    ("all://*svc", "http://a.svc/ http://svc/", "http://asvc/ http://a.svc.org/"),
    ("https://internal.", "https://internal.example/ https://internal.a.b:1/", "http://internal.a/ https://internal/ https://xinternal.a/ https://internals.a/"),
    ("https://10.", "https://10.1.2.3/", "https://110.1.2.3/ https://1.10.2.3/"),
    ("http://a/v1", "http://a/v1 http://a/v1/x http://a/v1?q", "http://a/ http://a/v12 http://a/v"),
    ("http://a/v1/", "http://a/v1/ http://a/v1/x", "http://a/v1 http://a/v1x"),
    ("http+unix://", "http+unix://%2Frun%2Fx.sock/ http+unix://%2Frun%2Fy/b", "http://a/"),
    ("http+unix://%2Frun%2Fx.sock/a", "http+unix://%2Frun%2Fx.sock/a/b", "http+unix://%2Frun%2Fx.sock/ http+unix://%2Frun%2Fy/a"),
    ("http://[::1]", "http://[::1]/ http://[0:0::1]:81/", "http://[::2]/"),
    ("http://[::1]:81", "http://[::1]:81/", "http://[::1]/"),
    ("all://bücher.example", "http://xn--bcher-kva.example/", "http://bucher.example/"),
]


@pytest.mark.parametrize(("pattern", "those", "others"), PATTERNS)
def test_patterns(pattern: str, those: str, others: str) -> None:
    made = Pattern(pattern)
    assert [url for url in those.split() if not made.matches(URL(url))] == []
    assert [url for url in others.split() if made.matches(URL(url))] == []


@pytest.mark.parametrize("bad", ["", "http", "a.example", "http:", "//a", "ftp://a", "htps://", "http://u:p@a", "http://a?x", "http://a#x", "http://a.*",
                                 "http://*.*", "http://*.", "http://a:x", "http://a:99999", "http://a b", "http://[::1", "*://a"])
def test_patterns_that_are_none(bad: str) -> None:
    with pytest.raises(ValueError, match=".+"):
        Client(mounts={bad: None})


def test_mounts_that_are_none() -> None:
    with pytest.raises(TypeError, match="round_trip"):
        Client(mounts={"http://": object()})
    with pytest.raises(TypeError, match="mapping"):
        Client(mounts=["http://"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pattern"):
        Client(mounts={5: None})  # type: ignore[dict-item]


ORDER = ["all://", "http://", "all://*.svc", "all://a.svc", "http://a.svc", "http://a.svc:81", "http://a.svc/x", "http://a.svc/x/y", "all://*.a.svc", "http://a.",
         "all://*svc"]


@pytest.mark.parametrize(("url", "longest"), [
    ("https://z/", "all://"), ("http://z/", "http://"), ("http://b.svc/", "all://*.svc"), ("https://a.svc/", "all://a.svc"), ("http://a.svc/", "http://a.svc"),
    ("http://a.svc:81/", "http://a.svc:81"), ("http://a.svc/x", "http://a.svc/x"), ("http://a.svc:81/x", "http://a.svc/x"), ("http://a.svc/x/y/z", "http://a.svc/x/y"),
    ("http://b.a.svc/", "all://*.a.svc"), ("http://a.org/", "http://a."), ("http://svc/", "all://*svc"),
])
def test_the_longest_match_wins(url: str, longest: str) -> None:
    named = {pattern: MockTransport(lambda request: Response(200)) for pattern in ORDER}
    for order in (ORDER, ORDER[::-1]):
        mounts = Mounts({pattern: named[pattern] for pattern in order}, True)
        found = mounts.find(URL(url), Route(None, True)).transport
        assert [pattern for pattern, transport in named.items() if transport is found] == [longest]


def named(name: str, log: list[str]) -> MockTransport:
    def handler(request: Request) -> Response:
        log.append(f"{name} {request.url}")
        if request.url.path == "/go":
            return Response(302, headers={"Location": request.url.query})
        return Response(200, content=name)

    return MockTransport(handler)


def test_each_hop_goes_its_way() -> None:
    log: list[str] = []
    client = Client(transport=named("own", log), mounts={"all://*.svc": named("svc", log), "https://": named("tls", log), "all://own.svc": None})
    assert client.get("http://x/go?https://y/").text == "tls"
    assert client.get("https://y/go?http://a.svc/go?http://own.svc/").text == "own"
    assert log == ["own http://x/go?https://y/", "tls https://y/", "tls https://y/go?http://a.svc/go?http://own.svc/",
                   "svc http://a.svc/go?http://own.svc/", "own http://own.svc/"]
    assert client.post("http://a.svc/", content=b"x", retries=2).text == "svc"


def test_a_mounted_transport_uses_its_compiled_exchange(peer: MakePeer) -> None:
    server = peer(answering(respond(b"mounted")))
    with Spy() as spy, Spy() as other, Client(transport=other, mounts={server.url("/mounted"): spy}) as client:
        for _ in range(3):
            assert client.get(server.url("/mounted/x")).content == b"mounted"
            assert client.get(server.url("/x")).content == b"mounted"
        with client.stream("GET", server.url("/mounted/x")) as r:
            r.read()
        assert (len(spy.seen), len(other.seen)) == (4, 3)
        assert (spy.stats().opened, other.stats().opened) == (1, 1)
        assert [r.content for r in client.map([server.url("/mounted"), server.url("/")])] == [b"mounted"] * 2
        assert (len(spy.seen), len(other.seen)) == (5, 4)


def test_a_mounted_transport_says_whether_bodies_may_be_coded() -> None:
    def told(request: Request) -> Response:
        return Response(200, content=str("accept-encoding" in request.headers))

    plain, coded = MockTransport(told), MockTransport(told)
    plain.disable_compression = True  # type: ignore[attr-defined]
    client = Client(transport=plain, mounts={"http://coded": coded})
    assert [client.get(url).text for url in ("http://a/", "http://coded/")] == ["False", "True"]
    assert [client.send(Request("GET", url)).text for url in ("http://a/", "http://coded/")] == ["False", "True"]


def test_a_mounted_transport_is_its_givers_to_close() -> None:
    mounted = Transport()
    with Client(mounts={"all://": mounted}, max_idle_conns=3) as client:
        assert client.transport is not mounted
    assert not mounted.closed
    assert client.transport.closed
    mounted.close()


def test_a_client_with_mounts_travels() -> None:
    with Transport(max_conns_per_host=7) as mounted, Client(mounts={"http://a": mounted, "http://b": default_transport(), "http://c": None}) as one:
        two = pickle.loads(pickle.dumps(one))
        three = pickle.loads(pickle.dumps(two))
        assert [p.options for p in (two._mounts.given["http://a"],)] == [{"max_conns_per_host": 7}]
        assert two._mounts.given["http://a"] is three._mounts.given["http://a"] is not mounted
        assert two._mounts.given["http://b"] is default_transport()
        assert two._mounts.given["http://c"] is None
        two.close()
        assert not three._mounts.given["http://a"].closed
        three.close()
        assert three._mounts.given["http://a"].closed
        assert not default_transport().closed


def handler_of_a_pickle(request: Request) -> Response:
    return Response(200, content="travelled")


def test_transports_of_others_travel_as_they_know_how() -> None:
    client: Any = Client(mounts={"http://a": MockTransport(handler_of_a_pickle)})
    assert pickle.loads(pickle.dumps(client)).get("http://a/").text == "travelled"
