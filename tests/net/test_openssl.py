"""What only OpenSSL's own server will do on demand: key updates (TLS 1.3), renegotiation (TLS 1.2)."""
from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from pooledhttp._net import testing
from pooledhttp._net.dial import Dial, DialSpec
from pooledhttp._net.stream import Stream
from pooledhttp._net.tlsconfig import settings

from .conftest import SECOND, Certificates

pytestmark = [pytest.mark.usefixtures("tls_mode"), pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")]


class Server:
    """`openssl s_server`: a line on its standard input is sent to the client, or is a command if it is K, k, R or r."""

    def __init__(self, certs: Certificates, folder: Path, version: str) -> None:
        file = folder / "server.pem"
        certs.cert.private_key_and_cert_chain_pem.write_to_path(file)
        self.process = subprocess.Popen(["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", file, "-key", file, version],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
        self.output = b""
        port = int(self.until(rb"ACCEPT 127\.0\.0\.1:(\d+)\n")[1])
        stream = Dial(DialSpec("127.0.0.1", port, tls=settings(certs.ca_file)), 5 * SECOND, 5 * SECOND).run()
        assert stream is not None
        self.stream: Stream = stream
        self.until(rb"Secure Renegotiation IS.*\n")       # the last of what it says of the connection: it reads commands now
        assert testing.probe(stream) == "ok"              # the tickets, so that what comes next is what was asked for

    def until(self, pattern: bytes) -> re.Match[bytes]:
        stdout: IO[bytes] | None = self.process.stdout
        assert stdout is not None
        while True:
            found = re.search(pattern, self.output)
            if found:
                self.output = self.output[found.end():]
                return found
            piece = stdout.read(4096)
            assert piece, self.output
            self.output += piece

    def type(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)

    def close(self) -> None:
        testing.close(self.stream)
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def new(certs: Certificates, tmp_path: Path) -> Iterator[Server]:
    server = Server(certs, tmp_path, "-tls1_3")
    yield server
    server.close()


@pytest.fixture
def old(certs: Certificates, tmp_path: Path) -> Iterator[Server]:
    server = Server(certs, tmp_path, "-tls1_2")
    yield server
    server.close()


def talk(server: Server, words: bytes) -> None:
    testing.send(server.stream, words + b"\n", 5.0)
    server.until(words)
    server.type(words + b"\n")
    assert testing.recv(server.stream, 1000, 5.0) == words + b"\n"


@pytest.mark.parametrize("command", [b"k", b"K"])
def test_key_update_on_an_idle_connection(new: Server, command: bytes) -> None:
    talk(new, b"one")
    for _ in range(3):
        new.type(command + b"\n")
        assert testing.wait(new.stream, "r", 5.0) == "r"
        assert testing.probe(new.stream) == "ok"
        talk(new, b"another")


@pytest.mark.parametrize("command", [b"k", b"K"])
def test_key_update_before_the_answer(new: Server, command: bytes) -> None:
    testing.send(new.stream, b"ask\n")
    new.until(b"ask")
    new.type(command + b"\n")
    assert testing.wait(new.stream, "r", 5.0) == "r"
    assert testing.try_recv(new.stream, 100) is None
    new.type(b"answer\n")
    assert testing.recv(new.stream, 100, 5.0) == b"answer\n"
    talk(new, b"another")


def test_renegotiation_before_the_answer(old: Server) -> None:
    talk(old, b"one")
    for _ in range(2):
        old.type(b"r\n")
        assert testing.wait(old.stream, "r", 5.0) == "r"
        with pytest.raises(TimeoutError):
            testing.recv(old.stream, 100, 0.2)            # its messages are answered within; there is no data
        old.type(b"answer\n")
        assert testing.recv(old.stream, 100, 5.0) == b"answer\n"
        talk(old, b"two")


def test_renegotiation_while_sending(old: Server) -> None:
    old.type(b"r\n")
    assert testing.wait(old.stream, "r", 5.0) == "r"
    assert testing.try_recv(old.stream, 100) is None      # HelloRequest is read, ClientHello sent
    testing.send(old.stream, b"in the middle of it\n", 5.0)      # has to read the server's part first
    old.until(b"in the middle of it")
    talk(old, b"after")
