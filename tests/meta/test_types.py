"""What type checkers and help() see. `make types` checks this file; the tests run it."""
from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest

import pooledhttp
from pooledhttp import Client, MockTransport, Request, Response, Transport, option_types
from pooledhttp.client import _KNOWN


def client() -> Client:
    return Client(transport=MockTransport(lambda request: Response(200, content=request.url.path)))


def texts() -> list[str]:
    return [r.text for r in client().map(["http://h/1", ("PUT", "http://h/2"), Request("GET", "http://h/3")], workers=2)]


def completed(urls: Iterator[str]) -> set[str]:
    return {r.text for r in client().as_completed(urls, progress=lambda done, total: None, timeout=5.0)}


def either() -> list[Response | Exception]:
    return list(client().map(["http://h/1", "nonsense"], return_exceptions=True))


def narrowed() -> list[int]:
    return [r.status_code for r in client().as_completed(["http://h/1"], return_exceptions=True, ordered_by=None) if isinstance(r, Response)]  # type: ignore[call-overload]


def transport_options() -> Client:
    return Client(max_conns_per_host=4, verify=False, retry_stale=False)


def wrong_options() -> Client:
    return Client(max_conns_per_hosts=4)  # type: ignore[call-arg]


def test_the_fan_out_is_typed_as_it_is() -> None:
    assert texts() == ["/1", "/2", "/3"]
    assert completed(iter(["http://h/1"])) == {"/1"}
    assert [type(r).__name__ for r in either()] == ["Response", "InvalidURL"]
    with pytest.raises(TypeError, match="ordered_by"):
        narrowed()
    with transport_options() as it:
        assert not it.closed
    with pytest.raises(TypeError, match="max_conns_per_hosts"):
        wrong_options()


def test_a_client_takes_what_a_transport_takes() -> None:
    wanted = {name: p.annotation for name, p in inspect.signature(Transport.__init__).parameters.items() if name != "self"}
    given = {name: hint.__forward_arg__ for name, hint in option_types.TransportOptions.__annotations__.items()}
    assert given == wanted


def test_a_request_takes_what_its_type_says() -> None:
    assert set(option_types.Options.__annotations__) == _KNOWN
    assert callable(pooledhttp.options)                   # no module may come to stand in its place


@pytest.mark.parametrize("name", ["get", "head", "options", "post", "put", "patch", "delete", "request", "stream"])
def test_help_says_what_it_is_and_what_it_takes(name: str) -> None:
    for it in (getattr(pooledhttp, name), getattr(Client, name)):
        assert "Options" in (inspect.getdoc(it) or "")
    assert "max_response_bytes" in (inspect.getdoc(pooledhttp.get) or "")
    assert "max_response_bytes" in (inspect.getdoc(Client.request) or "")
