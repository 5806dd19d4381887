"""The end of the process while a daemon thread is inside a TLS exchange: OpenSSL is taken down before the last thread is gone."""
from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.ca import Authority
from tests.support.peer import Conn, Peer, respond
from tests.support.processes import PATIENCE, end, read_line, spawn_python

# Loaded before OpenSSL, so that its function runs after OpenSSL's own: the process is as good as gone, and waits.
LATE = r"""
#include <stdlib.h>
#include <unistd.h>

static void late(void) {
    char c;
    if (write(1, "late\n", 5) == 5) while (read(0, &c, 1) > 0) { }
}

__attribute__((constructor)) static void at_load(void) { atexit(late); }
"""

CHILD = """
import ctypes, sys, threading
ctypes.CDLL(sys.argv[1])
import pooledhttp
from pooledhttp._net import openssl
openssl.use(sys.argv[4] == "direct")
client = pooledhttp.Client(verify=sys.argv[3], timeout=None)
assert client.get(sys.argv[2]).content == b"first"
threading.Thread(target=client.get, args=(sys.argv[2],), daemon=True).start()
assert sys.stdin.readline() == "asked\\n"
"""


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("late")
    (folder / "late.c").write_text(LATE)
    subprocess.run(["cc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", folder / "late.so", folder / "late.c"], check=True, timeout=60)
    return folder / "late.so"


@pytest.mark.parametrize("mode", ["direct", "ssl"])
def test_an_answer_that_comes_when_openssl_is_gone(peer: Callable[..., Peer], ca: Authority, late: Path, mode: str) -> None:
    asked, go = threading.Event(), threading.Event()

    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(respond(b"first"))
        conn.recv_request()
        asked.set()
        assert go.wait(PATIENCE), "the process did not come to its end"
        conn.send(respond(b"second"))
        conn.recv_until_closed()

    server = peer(script, tls=ca.server("127.0.0.1"))
    child = spawn_python("-c", CHILD, late, server.url(), ca.pem, mode, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        assert asked.wait(PATIENCE), "the thread's request did not come"
        child.stdin.write(b"asked\n")
        child.stdin.flush()
        assert read_line(child.stdout) == b"late\n"
        go.set()
        try:
            code = child.wait(0.3)                # what the thread does with the answer, it does at once
        except subprocess.TimeoutExpired:
            child.stdin.close()
            code = child.wait(PATIENCE)
        assert code == 0, child.stderr.read()
    finally:
        end(child)
