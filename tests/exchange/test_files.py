"""Files as request bodies: from the kernel's cache to the socket, and by way of a buffer where TLS encrypts them."""
from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pooledhttp import Client, LocalProtocolError, Timeout, Transport, WriteTimeout
from pooledhttp._conn.connection import FilePiece
from pooledhttp.content import FileBody
from tests.exchange.support import closed
from tests.support.ca import Authority
from tests.support.peer import Conn, Peer, header, respond
from tests.support.pyserver import PyServer

MakePeer = Callable[..., Peer]
SIZE = 5_000_011


@pytest.fixture
def content() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def path(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "body"
    path.write_bytes(content)
    return path


def keep(into: list[tuple[bytes, bytes]]) -> Callable[[Conn, int], None]:
    def script(conn: Conn, i: int) -> None:
        while True:
            into.append(conn.recv_request())
            conn.send(respond(b"ok"))

    return script


@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize("start", [0, 1, SIZE - 70_000, SIZE - 1])
def test_every_byte_from_where_it_stands(peer: MakePeer, client: Client, path: Path, content: bytes, start: int, buffering: int) -> None:
    got: list[tuple[bytes, bytes]] = []
    server = peer(keep(got))
    with path.open("rb", buffering=buffering) as file:
        file.seek(start)
        assert [isinstance(piece, FilePiece) for piece in FileBody(file).sendable()] == [start < SIZE - 1]
        file.seek(start)
        for _ in range(2):
            assert client.post(server.url(), content=file).content == b"ok"
            assert file.tell() == SIZE
            file.seek(start)
    assert [header(head, "Content-Length") for head, _ in got] == [str(SIZE - start)] * 2
    assert [body == content[start:] for _, body in got] == [True, True]
    assert server.accepted == 1


def test_through_tls(tls_pyserver: PyServer, ca: Authority, tls_mode: str, path: Path, content: bytes) -> None:
    with Client(verify=str(ca.pem), timeout=20) as client, path.open("rb") as file:
        assert client.post(tls_pyserver.url("/echo"), content=file).json()["sha256"] == hashlib.sha256(content).hexdigest()


def test_the_answer_is_read_while_the_file_is_sent(peer: MakePeer, client: Client, path: Path) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.send(respond(b"too much", status="413 Content Too Large"))
        conn.recv_until_closed()

    with path.open("r+b") as file:
        file.truncate(1 << 30)
    with path.open("rb") as file:
        r = client.post(peer(script).url(), content=file)
    assert (r.status_code, r.content) == (413, b"too much")
    assert closed(client.transport.stats()) == {"not_reusable": 1}


def test_a_file_that_grows_is_sent_as_long_as_it_was(peer: MakePeer, client: Client, path: Path, content: bytes) -> None:
    bodies: list[bytes] = []

    def script(conn: Conn, i: int) -> None:
        head = conn.recv_head()
        with path.open("ab") as more:
            more.write(b"x" * 100_000)
        bodies.append(conn.recv_body(head))
        conn.send(respond(b"ok"))

    with path.open("rb") as file:
        assert client.post(peer(script).url(), content=file).content == b"ok"
        assert file.tell() == SIZE
    assert bodies == [content]


@pytest.mark.unsanitized("32 MiB through a peer in Python")
@pytest.mark.parametrize("tls", [False, True])
def test_a_file_that_shrinks(peer: MakePeer, path: Path, ca: Authority, tls: bool) -> None:
    """What was promised cannot be sent: the connection is closed, and the error says whose mistake it was."""
    size, left = 64 << 20, 32 << 20

    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        os.truncate(path, left)
        conn.recv_until_closed()

    os.truncate(path, size)
    server = peer(script, tls=ca.server()) if tls else peer(script)
    with Transport(verify=str(ca.pem)) as transport, path.open("rb") as file:
        with pytest.raises(LocalProtocolError, match=f"{size - left} bytes short of its Content-Length of {size}") as e:
            Client(transport=transport, timeout=20).post(server.url(), content=file)
        assert (e.value.phase, e.value.request.method) == ("send", "POST")
        assert closed(transport.stats()) == {"error": 1}


def test_a_server_that_stops_reading_a_file(peer: MakePeer, client: Client, path: Path) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.stall()

    os.truncate(path, 1 << 30)
    with path.open("rb") as file, pytest.raises(WriteTimeout):
        client.post(peer(script).url(), content=file, timeout=Timeout(write=0.2))
    assert closed(client.transport.stats()) == {"timeout": 1}


def test_a_file_that_is_sent_again(peer: MakePeer, client: Client, path: Path, content: bytes) -> None:
    """The kept connection dies with the second request's head: the file goes again, from its start, over a fresh one."""
    bodies: list[bytes] = []

    def script(conn: Conn, i: int) -> None:
        bodies.append(conn.recv_request()[1])
        conn.send(respond(b"ok"))
        conn.recv_head()
        if i == 1:
            conn.reset()

    server = peer(script)
    with path.open("rb") as file:
        client.post(server.url(), content=file)
        file.seek(0)
        assert client.post(server.url(), content=file, headers={"Idempotency-Key": "1"}).content == b"ok"
    assert bodies == [content, content]
    assert client.transport.stats().retries == 1


@pytest.mark.unsanitized("the other thread has to be there before all is sent")
def test_nobody_elses_file_is_sent(peer: MakePeer, client: Client, tmp_path: Path) -> None:
    """In the middle of it another thread closes the file, and opens one that gets its number."""
    content = os.urandom(1 << 20) * 32
    path, other = tmp_path / "mine", tmp_path / "other"
    path.write_bytes(content)
    other.write_bytes(b"secret" * (32 << 18))
    begun, swapped = threading.Event(), threading.Event()
    bodies: list[bytes] = []

    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        first = conn.recv_exact(1)             # with the head alone it may not have been opened yet
        begun.set()
        assert swapped.wait(10)
        bodies.append(first + conn.recv_exact(len(content) - 1))
        conn.send(respond(b"ok"))

    server = peer(script)
    file = path.open("rb", buffering=0)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(client.post, server.url(), content=file)
        assert begun.wait(10)
        number = file.fileno()
        file.close()
        with other.open("rb") as opened:
            assert opened.fileno() == number
            swapped.set()
            assert answer.result(20).content == b"ok"
    assert [body == content for body in bodies] == [True]


def test_a_piece_of_a_file_keeps_it_open(path: Path) -> None:
    before: Any = os.listdir("/proc/self/fd")
    with path.open("rb") as file:
        piece = FilePiece(file.fileno(), 0, SIZE)
    assert (piece.size, len(os.listdir("/proc/self/fd"))) == (SIZE, len(before) + 1)
    del piece
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(OSError):
        FilePiece(-1, 0, 1)
