"""A GET that is made again and again is prepared once: what it meets in between must not matter."""
from __future__ import annotations

from collections.abc import Callable

import pytest

from pooledhttp import Client, ResponseTooLarge, Transport
from tests.exchange.conftest import MakeClient, MakePeer
from tests.support.peer import Conn, answering, header, respond


def heads(into: list[bytes], *answers: bytes) -> Callable[[Conn, int], None]:
    """Answers requests in turn, on whatever connection, the last one for ever, and keeps their heads."""
    def script(conn: Conn, i: int) -> None:
        while True:
            into.append(conn.recv_head())
            conn.send(answers[min(len(into), len(answers)) - 1])

    return script


def test_each_time_the_same_bytes(peer: MakePeer, client: Client) -> None:
    seen: list[bytes] = []
    server = peer(heads(seen, respond(b"1")))
    for _ in range(3):
        assert client.get(server.url("/a?b=c")).content == b"1"
    client.request("GET", server.url("/a?b=c"))
    assert len(set(seen)) == 1
    assert server.accepted == 1


def test_a_connection_for_each_says_so(peer: MakePeer, new_client: MakeClient) -> None:
    seen: list[bytes] = []
    client = new_client(disable_keep_alives=True)
    server = peer(heads(seen, respond(b"1")))
    for _ in range(3):
        assert client.get(server.url()).content == b"1"
    assert [header(head, "Connection") for head in seen] == ["close"] * 3


def test_a_host_that_was_forgotten_in_between(peer: MakePeer, client: Client) -> None:
    """The pool keeps the counts of so many hosts; the oldest that hold no connection go."""
    server = peer(answering(respond(b"1", headers={"Connection": "close"})))
    key = server.url("").removesuffix("/")
    assert client.get(server.url()).content == b"1"
    for i in range(20000):
        client.transport.pool.host(f"http://host{i}:80")
    assert key not in client.transport.stats().hosts
    for _ in range(2):
        assert client.get(server.url()).content == b"1"
    assert client.transport.stats().hosts[key].requests == 2


def test_what_is_no_plain_answer_goes_the_whole_way(peer: MakePeer, client: Client) -> None:
    seen: list[bytes] = []
    server = peer(heads(seen, respond(b"1"), respond(b"", 302, {"Location": "/b"}), respond(b"2"), respond(b"3", headers={"Set-Cookie": "a=b"}), respond(b"4")))
    assert [client.get(server.url()).content for _ in range(4)] == [b"1", b"2", b"3", b"4"]
    assert [head.split()[1] for head in seen] == [b"/", b"/", b"/b", b"/", b"/"]
    assert [header(head, "Cookie") for head in seen] == [None, None, None, None, "a=b"]


def test_the_limit_of_the_body_holds(peer: MakePeer, new_client: MakeClient) -> None:
    server = peer(answering(respond(b"12345")))
    with Client(transport=new_client().transport, max_response_bytes=4) as client:
        for _ in range(2):
            with pytest.raises(ResponseTooLarge) as e:
                client.get(server.url())
            assert e.value.request.url == server.url()


def test_what_another_transport_prepared_is_refused() -> None:
    with Transport() as one, Transport() as other:
        made = one.prepare(("http://a:80", "a", 80, b"GET", b"/", b"a", b"", None, 0, "http://a/"), -1, "utf-8")
        with pytest.raises(ValueError, match="another transport"):
            other.exchange_prepared(made, Client().timeout.limits, -1, "client", None)
