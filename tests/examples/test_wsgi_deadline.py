"""The example's middleware, without a server: whose deadlines are a 504, and what becomes of a body that was begun."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from examples.wsgi.deadline import Deadline
from pooledhttp import Cancelled, Client, DeadlineExceeded
from tests.support.peer import PATIENCE, Conn, Peer, respond

MakePeer = Callable[..., Peer]
Start = Callable[..., Any]


class Head:
    """`start_response` as a server's, whose head is sent with the first piece of the body."""

    def __init__(self) -> None:
        self.status = ""
        self.sent = False

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        if exc_info and self.sent:
            raise exc_info[1]
        self.status = status


def half_then_nothing(conn: Conn, i: int) -> None:
    conn.recv_request()
    conn.send(respond(b"half", headers={"Content-Length": "8"}, length=False))
    conn.recv_until_closed()


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(max_idle_conns=4, timeout=PATIENCE) as it:
        yield it


def test_its_time_is_over_before_the_head_is_sent(peer: MakePeer, client: Client) -> None:
    url = peer(half_then_nothing).url()

    def app(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        start("200 OK", [])
        return [client.get(url).content]

    head = Head()
    assert list(Deadline(app, 0.1)({}, head)) == [b"not answered in time\n"]
    assert head.status == "504 Gateway Timeout"


def test_its_time_is_over_in_the_body(peer: MakePeer, client: Client) -> None:
    url = peer(half_then_nothing).url()
    closed = []

    def app(environ: dict[str, Any], start: Start) -> Iterator[bytes]:
        start("200 OK", [])
        try:
            with client.stream("GET", url) as response:
                yield from response.iter_bytes()
        finally:
            closed.append(True)

    head = Head()
    body = Deadline(app, 0.5)({}, head)
    assert next(body) == b"half"
    head.sent = True
    with pytest.raises(DeadlineExceeded) as caught:
        next(body)
    assert (caught.value.source, head.status, closed) == ("context", "200 OK", [True])


def test_another_deadline_is_the_apps_own(peer: MakePeer, client: Client) -> None:
    url = peer(half_then_nothing).url()

    def app(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        return [client.get(url, timeout=0.1).content]

    head = Head()
    with pytest.raises(DeadlineExceeded) as caught:
        list(Deadline(app, PATIENCE)({}, head))
    assert (caught.value.source, head.status) == ("request", "")


def test_a_body_that_is_left_is_closed_and_its_requests_are_cancelled(peer: MakePeer, client: Client) -> None:
    url = peer(half_then_nothing).url()

    class Body:
        closed = False

        def __iter__(self) -> Iterator[bytes]:
            yield b"a"
            yield b"b"

        def close(self) -> None:
            self.closed = True

    made = Body()
    opened = []

    def app(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        opened.append(client.get(url, stream=True))
        return made

    body = Deadline(app, PATIENCE)({}, Head())
    assert next(body) == b"a"
    body.close()
    assert made.closed
    with pytest.raises(Cancelled):
        opened[0].read()
    opened[0].close()
