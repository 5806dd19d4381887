"""Forms with files, progress and trailers, as they are on the wire."""
from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from tqdm.utils import CallbackIOWrapper

from pooledhttp import Client, LocalProtocolError
from tests.exchange.support import closed
from tests.support.ca import Authority
from tests.support.peer import Conn, Peer, header, respond
from tests.support.pyserver import PyServer

MakePeer = Callable[..., Peer]
SIZE = 1_000_003
KIND = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.fixture
def content() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def path(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    return path


def form(content: bytes, filename: str = "a.bin") -> bytes:
    return (b'--b\r\nContent-Disposition: form-data; name="id"\r\n\r\n7\r\n--b\r\nContent-Disposition: form-data; name="f"; filename="' + filename.encode()
            + b'"\r\nContent-Type: application/octet-stream\r\n\r\n' + content + b"\r\n--b--\r\n")


class Keeper:
    """A script that answers, and keeps heads, bodies, and the bytes of each request as they came."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self.raw = b""

    def __call__(self, conn: Conn, i: int) -> None:
        while True:
            at = len(conn.received)
            self.requests.append(conn.recv_request())
            self.raw = bytes(conn.received[at:])
            conn.send(respond(b"ok"))


@pytest.mark.parametrize("seekable", [True, False])
def test_a_file_in_a_form(peer: MakePeer, client: Client, path: Path, content: bytes, seekable: bool) -> None:
    keeper = Keeper()
    server = peer(keeper)
    for _ in range(2):
        with path.open("rb") as file:
            given: Any = file if seekable else ("a.bin", iter(lambda: file.read(100_000), b""))
            assert client.post(server.url(), data={"id": 7}, files={"f": given}, headers=KIND).content == b"ok"
        head, body = keeper.requests[-1]
        assert body == form(content)
        assert header(head, "Content-Type") == KIND["Content-Type"]
        assert (header(head, "Content-Length"), header(head, "Transfer-Encoding")) == ((str(len(body)), None) if seekable else (None, "chunked"))
    assert server.accepted == 1


def test_a_small_form_travels_with_its_head(peer: MakePeer, client: Client) -> None:
    packets = []

    def script(conn: Conn, i: int) -> None:
        packets.append(conn.recv_some(1 << 20))
        conn.send(respond(b"ok"))

    client.post(peer(script).url(), data={"id": 7}, files={"f": ("a.bin", b"x")}, headers=KIND)
    assert packets[0].endswith(b"\r\n\r\n" + form(b"x"))


def test_a_file_in_a_form_through_tls(tls_pyserver: PyServer, ca: Authority, tls_mode: str, path: Path, content: bytes) -> None:
    with Client(verify=str(ca.pem), timeout=20) as client, path.open("rb") as file:
        told = client.post(tls_pyserver.url("/echo"), data={"id": 7}, files={"f": file}, headers=KIND).json()
        assert told["sha256"] == hashlib.sha256(form(content)).hexdigest()


def test_a_form_that_is_sent_again(peer: MakePeer, client: Client, path: Path, content: bytes) -> None:
    """The kept connection dies with the second request's head: the whole form goes again over a fresh one."""
    bodies: list[bytes] = []

    def script(conn: Conn, i: int) -> None:
        bodies.append(conn.recv_request()[1])
        conn.send(respond(b"ok"))
        conn.recv_head()
        if i == 1:
            conn.reset()

    server = peer(script)
    client.get(server.url())
    with path.open("rb") as file:
        file.seek(3)
        assert client.post(server.url(), data={"id": 7}, files={"f": file}, headers={**KIND, "Idempotency-Key": "1"}).content == b"ok"
    assert bodies == [b"", form(content[3:])]
    assert client.transport.stats().retries == 1


@pytest.mark.parametrize("status", [307, 308])
def test_a_form_that_is_led_elsewhere(peer: MakePeer, client: Client, path: Path, content: bytes, status: int) -> None:
    bodies: list[bytes] = []

    def script(conn: Conn, i: int) -> None:
        for answer in (respond(b"", status, {"Location": "/there"}), respond(b"ok")):
            bodies.append(conn.recv_request()[1])
            conn.send(answer)

    with path.open("rb") as file:
        file.seek(3)
        assert client.post(peer(script).url(), data={"id": 7}, files={"f": file}, headers=KIND).content == b"ok"
    assert bodies == [form(content[3:])] * 2


def test_a_form_of_a_generator_is_led_nowhere(peer: MakePeer, client: Client) -> None:
    server = peer(lambda conn, i: conn.recv_request() and conn.send(respond(b"", 307, {"Location": "/there"})))
    assert client.post(server.url(), files={"f": ("a", iter([b"x"]))}).status_code == 307
    assert server.accepted == 1


def test_a_file_of_a_form_that_shrinks(peer: MakePeer, client: Client, path: Path) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        os.truncate(path, SIZE // 2)
        conn.recv_until_closed()

    os.truncate(path, 64 << 20)
    with path.open("rb") as file, pytest.raises(LocalProtocolError, match="bytes short") as e:
        client.post(peer(script).url(), files={"f": file})
    assert e.value.phase == "send"
    assert closed(client.transport.stats()) == {"error": 1}


# --- progress: whoever counts in `read` sees every byte, however large the file is ---

class Counting(io.BufferedReader):
    sent = 0

    def read(self, n: int | None = -1, /) -> bytes:
        piece = super().read(n)
        self.sent += len(piece)
        return piece


class Wrapper:
    """Hands on what it does not have itself, as wrappers do."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sent = 0

    def read(self, n: int = -1) -> bytes:
        piece = self._file.read(n)
        self.sent += len(piece)
        return piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize("how", ["subclass", "wrapper", "tqdm"])
@pytest.mark.parametrize("in_form", [False, True])
def test_progress_is_counted_in_read(peer: MakePeer, client: Client, path: Path, content: bytes, how: str, in_form: bool) -> None:
    keeper, told = Keeper(), []
    with path.open("rb") as file:
        counted: Any = Counting(file.raw) if how == "subclass" else Wrapper(file) if how == "wrapper" else CallbackIOWrapper(told.append, file, "read")
        given: dict[str, Any] = {"data": {"id": 7}, "files": {"f": counted}, "headers": KIND} if in_form else {"content": counted}
        assert client.put(peer(keeper).url(), **given).content == b"ok"
        assert (sum(told) if how == "tqdm" else counted.sent) == SIZE
    head, body = keeper.requests[-1]
    assert body == (form(content) if in_form else content)
    assert header(head, "Content-Length") == str(len(body))


# --- trailers ---

class Hashed:
    """A body that says its digest behind itself."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.trailers: Any = lambda: {"X-Digest": self.digest.hexdigest(), "x-two": "é"}

    def __iter__(self) -> Iterator[bytes]:
        self.digest = hashlib.sha256()
        for piece in self.pieces:
            self.digest.update(piece)
            yield piece


def test_trailers_come_behind_the_last_chunk(peer: MakePeer, client: Client) -> None:
    keeper = Keeper()
    server = peer(keeper)
    for pieces in ([b"one", b"two"], []):
        body = Hashed(pieces)
        assert client.post(server.url(), content=body, headers={"Trailer": "X-Digest"}).content == b"ok"
        digest = hashlib.sha256(b"".join(pieces)).hexdigest().encode()
        assert keeper.raw.endswith(b"".join(b"3\r\n%b\r\n" % p for p in pieces) + b"0\r\nX-Digest: " + digest + b"\r\nx-two: \xe9\r\n\r\n")
        assert header(keeper.requests[-1][0], "Trailer") == "X-Digest"
    assert server.accepted == 1


@pytest.mark.parametrize(("trailers", "error"), [({"Content-Length": "1"}, LocalProtocolError), ({"X": "a\r\nb"}, LocalProtocolError), (["X"], TypeError),
                                                 (lambda: 1 // 0, ZeroDivisionError)])
def test_trailers_that_cannot_be_sent(peer: MakePeer, client: Client, trailers: Any, error: type[Exception]) -> None:
    body, server = Hashed([b"one"]), peer(Keeper())
    body.trailers = trailers
    with pytest.raises(error):
        client.post(server.url(), content=body)
    server.wait_closed(0)
    assert not server.conns[0].received.endswith(b"\r\n0\r\n\r\n")
    assert closed(client.transport.stats()) == {"error": 1}
