"""A response that a second thread reads in the midst of the first one's reading."""
from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from pooledhttp import Client, StreamError
from tests.exchange.support import blocked_in_kernel, until
from tests.support.peer import Conn, Peer, respond


def test_the_second_is_told_and_the_first_goes_on(peer: Callable[..., Peer], client: Client) -> None:
    go = threading.Event()

    def script(conn: Conn, _: int) -> None:
        conn.recv_head()
        whole = respond(b"half" + b"rest")
        conn.send(whole[:-4])
        assert go.wait(10)
        conn.send(whole[-4:])
        conn.recv_until_closed()

    r = client.get(peer(script).url("/"), stream=True)
    assert r.read(4) == b"half"
    got: list[bytes] = []
    first = threading.Thread(target=lambda: got.append(r.read(4)))
    first.start()

    until(lambda: blocked_in_kernel(first), "the first one's waiting")
    with pytest.raises(StreamError, match="another thread"):
        r.read(4)
    go.set()
    first.join()
    assert got == [b"rest"] and r.read(4) == b""
    assert client.transport.stats().idle == 1
