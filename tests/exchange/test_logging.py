"""The `pooledhttp` logger: a line for each dial, close and retry, a warning for each leak, no secret in any, and nothing where logging is not in use."""
from __future__ import annotations

import gc
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pooledhttp import Client, ConnectError, Retry, Transport
from tests.exchange.conftest import MakeClient, MakePeer
from tests.exchange.support import until
from tests.exchange.test_dialing import answers
from tests.support.ca import Authority
from tests.support.peer import Conn, answering, free_ports, respond

HERE = answering(respond(b"here"))


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="pooledhttp")
    return caplog


def test_a_dial_and_a_close(peer: MakePeer, new_client: MakeClient, lines: pytest.LogCaptureFixture, ca: Authority) -> None:
    server = peer(HERE, tls=ca.new_server("127.0.0.1", "name.test"))
    client = new_client(verify=str(ca.pem), resolver=answers(("127.0.0.1", server.port)))
    url = f"https://user:secret@name.test:{server.port}/path?token=secret"
    client.get(url)
    client.get(url)
    client.transport.close_idle_connections()
    made, closed = lines.messages
    where = rf"https://name\.test:{server.port}"
    assert re.fullmatch(rf"connection \d+ to {where} at 127\.0\.0\.1 port {server.port} made in [\d.]+ ms "
                        r"\(dns [\d.]+, connect [\d.]+, tls [\d.]+\), TLSv1\.3 \w+(, http/1\.1)?", made), made
    assert re.fullmatch(rf"connection \d+ to {where} closed: shutdown \(age [\de.-]+ s, 2 requests\)", closed), closed
    assert {(r.name, r.levelname) for r in lines.records} == {("pooledhttp", "DEBUG")}


def test_a_dial_that_fails(new_client: MakeClient, lines: pytest.LogCaptureFixture) -> None:
    port = free_ports(1)[0]
    with pytest.raises(ConnectError):
        new_client().get(f"http://127.0.0.1:{port}/?token=secret")
    (failed,) = lines.messages
    assert re.fullmatch(rf"no connection to http://127\.0\.0\.1:{port} after [\d.]+ ms: ConnectError: cannot connect .*refused", failed), failed


def test_retries(peer: MakePeer, new_client: MakeClient, lines: pytest.LogCaptureFixture) -> None:
    busy = peer(answering(respond(status=503), respond(b"ok")))
    client = new_client()
    url = busy.url("/path?token=secret").replace("://", "://user:secret@")
    assert client.get(url, retries=Retry(3, backoff=0.001, jitter=False)).content == b"ok"
    shown = f"GET http://127.0.0.1:{busy.port}/path"
    assert any(re.fullmatch(rf"{re.escape(shown)} is tried again \(retry 1 of at most 3\) in 0\.\d+ s: the answer was 503", line)
               for line in lines.messages), lines.messages

    def broken(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(respond(b"ok") if i else b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    cut = peer(broken)
    assert client.get(cut.url(), retries=Retry(1, backoff=0)).content == b"ok"
    assert any(line.endswith(": RemoteProtocolError") for line in lines.messages), lines.messages
    assert "secret" not in lines.text


def test_a_stale_connection(peer: MakePeer, new_client: MakeClient, lines: pytest.LogCaptureFixture) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(respond(b"x"))
        conn.recv_request()
        if i:
            conn.send(respond(b"y"))

    server = peer(script)
    client = new_client()
    client.get(server.url())
    lines.clear()
    client.get(server.url("/path?token=secret"))
    closed, again, made = lines.messages
    assert "closed: server_closed" in closed and made.startswith("connection ")
    assert again == f"GET http://127.0.0.1:{server.port}/path is sent again on another connection: the one it had was of no use"


def test_a_leak_is_a_warning_of_the_janitors(peer: MakePeer, new_client: MakeClient, lines: pytest.LogCaptureFixture) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nx")
        conn.recv_until_closed()

    server = peer(script)
    r = new_client().get(server.url("/path?token=secret"), stream=True)
    with pytest.warns(ResourceWarning):
        del r
        gc.collect()
    until(lambda: any(record.levelname == "WARNING" for record in lines.records))
    (warned,) = [record for record in lines.records if record.levelname == "WARNING"]
    assert f"unclosed response to GET http://127.0.0.1:{server.port}/path: it held connection" in warned.getMessage()
    assert warned.threadName == "pooledhttp-janitor" and "secret" not in lines.text


class Raising(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        raise ValueError("mine")


@pytest.fixture
def raising() -> Iterator[None]:
    log, bad = logging.getLogger("pooledhttp"), Raising()
    log.addFilter(bad)
    yield
    log.removeFilter(bad)


@pytest.mark.usefixtures("lines", "raising")
def test_a_filter_that_raises_ends_no_request(peer: MakePeer, new_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda said: heard.append(type(said.exc_value)))
    client = new_client(disable_keep_alives=True)
    for _ in range(3):
        assert client.get(peer(HERE).url()).content == b"here"
    client.transport.close()
    assert heard == [ValueError] * 6


def test_a_handler_may_make_requests(peer: MakePeer, new_client: MakeClient, lines: pytest.LogCaptureFixture) -> None:
    server, other = peer(HERE), peer(HERE)
    client = new_client()
    done = threading.Event()

    class Asking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not done.is_set():
                done.set()
                assert client.get(other.url()).content == b"here"

    handler = Asking()
    logging.getLogger("pooledhttp").addHandler(handler)
    try:
        assert client.get(server.url()).content == b"here"
    finally:
        logging.getLogger("pooledhttp").removeHandler(handler)
    assert done.is_set() and len([line for line in lines.messages if " made in " in line]) == 2


QUIET = """
import sys
{logging}
import pooledhttp
client = pooledhttp.Client(max_idle_conns=2)
for _ in range(2):
    client.get({url!r})
client.close()
print([m for m in sys.modules if m in ("logging", "pooledhttp._trip.tales")])
"""


@pytest.mark.parametrize(("logging", "modules"), [("", []), ("import logging", ["logging"])])
def test_it_is_quiet_where_nobody_asked(logging: str, modules: list[str], peer: MakePeer) -> None:
    done = subprocess.run([sys.executable, "-c", QUIET.format(logging=logging, url=peer(HERE).url())], capture_output=True, text=True, check=True)
    assert done.stderr == "" and done.stdout.strip() == str(modules)


def test_it_is_switched_on_and_off_as_it_runs(peer: MakePeer, lines: pytest.LogCaptureFixture) -> None:
    server = peer(HERE)
    with Client(transport=Transport()) as client:
        client.get(server.url())
        assert len(lines.messages) == 1
        logging.getLogger("pooledhttp").setLevel(logging.WARNING)
        client.transport.close_idle_connections()
        client.get(server.url())
        assert len(lines.messages) == 1
        client.transport.close()
