"""Values that fit no clock and no C integer, and other things that callers may well give."""
from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from pooledhttp import Client, LocalProtocolError, Request, Timeout, Transport
from tests.support.peer import Conn, Peer, respond

INF = float("inf")


class Blob(bytes):
    """Some library's own bytes."""


def _echo(conn: Conn, _: int) -> None:
    while True:
        _, body = conn.recv_request()
        conn.send(respond(b"got " + body))


@pytest.mark.parametrize("body", [b"abc", b""])
def test_a_subclass_of_bytes_is_a_body(peer: Callable[..., Peer], client: Client, body: bytes) -> None:
    assert client.post(peer(_echo).url("/"), content=Blob(body)).content == b"got " + body


@pytest.mark.parametrize("option", ["idle_conn_timeout", "max_conn_lifetime", "dns_cache_ttl", "happy_eyeballs_delay", "tcp_keepalive"])
def test_for_ever(peer: Callable[..., Peer], new_client: Callable[..., Client], option: str) -> None:
    client = new_client(resolver=lambda host, port: [(2, ("127.0.0.1", port))], **{option: INF})
    url = peer(_echo).url("/").replace("127.0.0.1", "name.test")
    assert client.get(url).content == client.get(url).content == b"got "
    assert client.transport.stats().dials == 1


@pytest.mark.parametrize("limit", [1 << 63, 1 << 70])
def test_a_limit_beyond_all_bodies(peer: Callable[..., Peer], client: Client, limit: int) -> None:
    assert client.get(peer(_echo).url("/"), max_response_bytes=limit).content == b"got "


def test_a_timeout_beyond_all_floats(peer: Callable[..., Peer], client: Client) -> None:
    assert client.get(peer(_echo).url("/"), timeout=10 ** 400).content == b"got "
    with pytest.raises(ValueError, match="must be at least 0 seconds"):
        Timeout(-10 ** 400)


@pytest.mark.parametrize("name", ["max_idle_conns", "max_idle_conns_per_host", "max_conns_per_host", "max_response_header_bytes",
                                  "http2_max_conns_per_host"])
def test_counts_are_ints_of_any_size(name: str) -> None:
    options: dict[str, Any] = {name: 10 ** 12}
    Transport(**options).close()
    for bad in (1.5, INF, None, True, -1):
        with pytest.raises(ValueError, match=name):
            Transport(**{name: bad})


@pytest.mark.parametrize("option", ["http2_ping_interval", "http2_ping_timeout"])
def test_times_of_pings(option: str) -> None:
    for good in (7, 0.5, 0, 10 ** 12, INF):
        Transport(**{option: good}).close()
    for bad in (-1, "1", float("nan")):
        with pytest.raises((ValueError, TypeError), match=option):
            Transport(**{option: bad})


def test_http2_is_one_of_three() -> None:
    for bad in ("prior", 2, None):
        with pytest.raises(ValueError, match="http2"):
            Transport(http2=bad)


def test_no_connection_becomes_a_tunnel() -> None:
    with pytest.raises(LocalProtocolError, match="tunnel"):
        Request("CONNECT", "http://example.com/")


def test_a_transport_that_was_not_made() -> None:
    class Forgetful(Transport):
        def __init__(self) -> None:
            pass                                          # and not Transport's

    with pytest.raises(RuntimeError, match="Forgetful.__init__"):
        Client(transport=Forgetful()).get("http://127.0.0.1/")


def test_a_transport_is_one_of_its_kind() -> None:
    with Transport() as transport:
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="neither copied nor pickled"):
                duplicate(transport)
