"""Large bodies that are wanted whole are received in large parts; what little there is of them is not waited for longer than a moment."""
from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable

import pytest

from pooledhttp import Client, ReadTimeout, Timeout
from tests.support.peer import Conn, Peer, respond
from tests.support.pyserver import pattern

MakePeer = Callable[..., Peer]
SIZE = 1 << 20
BODY = pattern(SIZE)


@pytest.mark.parametrize("piece", [1000, 65_536, 262_144, 262_145, SIZE - 1])
def test_whatever_the_pieces(peer: MakePeer, client: Client, piece: int) -> None:
    def script(conn: Conn, i: int) -> None:
        while True:
            conn.recv_head()
            conn.send_split(respond(BODY), [piece] * (SIZE // piece))

    server = peer(script)
    for _ in range(3):
        assert client.get(server.url()).content == BODY
    assert server.accepted == 1


def test_the_last_byte_is_not_waited_for_behind_its_time(peer: MakePeer, client: Client) -> None:
    ends: list[float] = []

    def script(conn: Conn, i: int) -> None:
        while True:
            conn.recv_head()
            data = respond(BODY)
            cuts = [0, SIZE // 2, SIZE - 1000, len(data) - 1, len(data)]
            for start, end in zip(cuts, cuts[1:], strict=False):
                conn.closed.wait(0.02)
                conn.send(data[start:end])
            ends.append(time.monotonic())

    server, late = peer(script), []
    for n in range(5):
        assert client.get(server.url()).content == BODY
        done = time.monotonic()
        while len(ends) <= n:
            server.stopped.wait(0.001)
        late.append(done - ends[n])
    assert statistics.median(late) < 0.05, late


def test_silence_is_noticed_in_time(peer: MakePeer, client: Client) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.send(respond(BODY)[:SIZE // 2])
        conn.stall()

    server, took = peer(script), []
    for _ in range(5):
        began = time.monotonic()
        with pytest.raises(ReadTimeout):
            client.get(server.url(), timeout=Timeout(read=0.2))
        took.append(time.monotonic() - began)
    assert min(took) >= 0.2
    assert statistics.median(took) < 0.3, took


def test_the_socket_is_left_as_it_was(peer: MakePeer, new_client: Callable[..., Client]) -> None:
    """A low-water mark that stayed behind would have the next small answer waited for without end."""
    server = peer(lambda conn, i: [(conn.recv_head(), conn.send(respond(body))) for body in (BODY, b"small", BODY, b"small")])
    client = new_client(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)])
    assert [len(client.get(server.url(), timeout=5).content) for _ in range(4)] == [SIZE, 5, SIZE, 5]
