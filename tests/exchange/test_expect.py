"""`Expect: 100-continue` (RFC 9110 section 10.1.1): the body waits until the server asks for it, and goes unasked after a while."""
from __future__ import annotations

import io
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from select import select
from types import GeneratorType
from typing import Any

import pytest

from pooledhttp import Cancelled, Client, DeadlineExceeded, LocalProtocolError, ReadTimeout, Request, StaleConnectionError, Timeout, Transport
from pooledhttp._core.cancel import Canceller
from tests.exchange.conftest import MakeClient, MakePeer
from tests.exchange.support import closed
from tests.support.ca import Authority
from tests.support.peer import Conn, header, respond
from tests.support.pyserver import pattern

EXPECT = {"Expect": "100-continue"}
GO = b"HTTP/1.1 100 Continue\r\n\r\n"
LARGE = 400_000
HOURS = 10_000.0


@pytest.fixture(params=["small", "large", "buffer", "list", "generator", "file", "pipe-like", "multipart"])
def body(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Request options that give a body, and its bytes."""
    kind = request.param
    data = pattern(10) if kind == "small" else pattern(LARGE)
    path = tmp_path / "body.bin"
    path.write_bytes(data)
    with path.open("rb") as file:
        if kind == "multipart":
            yield {"files": {"f": file}, "headers": {**EXPECT, "Content-Type": "multipart/form-data; boundary=b"}}, (
                b'--b\r\nContent-Disposition: form-data; name="f"; filename="body.bin"\r\nContent-Type: application/octet-stream\r\n\r\n' + data
                + b"\r\n--b--\r\n")
            return
        content: Any = {"small": data, "large": data, "buffer": memoryview(bytearray(data)), "list": [data[:7], data[7:]], "file": file,
                        "generator": (data[at:at + 50_000] for at in range(0, len(data), 50_000)), "pipe-like": OnlyReads(data)}[kind]
        yield {"content": content, "headers": EXPECT}, data


class OnlyReads:
    def __init__(self, data: bytes) -> None:
        self._from = io.BytesIO(data)
        self.asked = 0

    def read(self, n: int) -> bytes:
        self.asked += 1
        return self._from.read(n)


def silent(conn: Conn, seconds: float = 0.02) -> bool:
    """Whether the client sends nothing more by itself for so long."""
    return not select([conn.sock], [], [], seconds)[0]


class Asked:
    """A script: a request's head, `said`, and then its body if that was asked for."""

    def __init__(self, *said: bytes, answer: bytes = respond(b"ok"), quiet: bool = True) -> None:
        self.said = said
        self.answer = answer
        self.quiet = quiet
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []

    def __call__(self, conn: Conn, i: int) -> None:
        while True:
            head = conn.recv_head()
            self.heads.append(head)
            if header(head, "Expect") == "100-continue":
                assert not self.quiet or (silent(conn) and conn.received.endswith(b"\r\n\r\n"))
                for said in self.said:
                    conn.send(said)
            self.bodies.append(conn.recv_body(head))
            conn.send(self.answer)


@pytest.mark.parametrize("said", [(GO,), (b"HTTP/1.1 100 \r\n\r\n",), (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", GO), (GO[:11], GO[11:]),
                                  (b"HTTP/1.1 100 Continue\r\nX: a\r\n b\r\n\r\n",), (GO, GO)],
                         ids=["plain", "no-reason", "103-first", "in-pieces", "folded", "twice"])
def test_the_body_follows_when_it_is_asked_for(peer: MakePeer, new_client: MakeClient, body: tuple[dict[str, Any], bytes],
                                               said: tuple[bytes, ...]) -> None:
    client, script = new_client(expect_continue_timeout=HOURS), Asked(*said)
    options, data = body
    server = peer(script)
    r = client.post(server.url("/x"), **options)
    assert (r.status_code, r.content) == (200, b"ok")
    assert script.bodies == [data]
    assert header(script.heads[0], "Expect") == "100-continue"
    assert client.get(server.url()).conn.reused                    # both directions came to their end
    assert closed(client.transport.stats()) == {}


@pytest.mark.parametrize("body", ["small", "large", "generator", "file"], indirect=True)
@pytest.mark.parametrize("answer", [respond(b"no", 413), respond(b"no", 401, {"Connection": "close"}), respond(b"no", 200), respond(b"no", 303),
                                    b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", b"HTTP/1.0 500 No\r\n\r\nno",
                                    b"HTTP/1.1 403 No\r\nX: folded\r\n line\r\nContent-Length: 2\r\n\r\nno"],
                         ids=["413", "close", "200", "303", "chunked", "1.0", "fallback"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_instead_keeps_the_body_here(peer: MakePeer, new_client: MakeClient, body: tuple[dict[str, Any], bytes], answer: bytes,
                                               stream: bool) -> None:
    client = new_client(expect_continue_timeout=HOURS)
    rest: list[bytes] = []

    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.send(answer)
        if b"HTTP/1.0" in answer:
            conn.shutdown_write()
        rest.append(conn.recv_until_closed())

    server = peer(script)
    options, data = body
    with client.stream("POST", server.url(), **options) if stream else client.post(server.url(), **options) as r:
        assert r.read() == b"no"
    # The server was promised a body: nothing else may come over this connection.
    assert closed(client.transport.stats()) == {"not_reusable": 1}
    server.wait_closed(0)
    assert rest == [b""]


def test_a_generator_is_not_begun_for_nothing(peer: MakePeer, new_client: MakeClient) -> None:
    begun = []

    def body() -> Iterator[bytes]:
        begun.append(True)
        yield b"x"

    def script(conn: Conn, i: int) -> None:
        conn.recv_head()
        conn.send(respond(b"no", 401))

    pieces = body()
    assert new_client(expect_continue_timeout=HOURS).post(peer(script).url(), content=pieces, headers=EXPECT).status_code == 401
    assert begun == []
    assert next(pieces) == b"x"


def test_the_body_goes_unasked_after_a_while(peer: MakePeer, new_client: MakeClient, body: tuple[dict[str, Any], bytes]) -> None:
    client, script = new_client(expect_continue_timeout=0.1), Asked()
    options, data = body
    began = time.monotonic()
    assert client.post(peer(script).url(), **options).content == b"ok"
    assert 0.1 <= time.monotonic() - began < 2
    assert script.bodies == [data]
    assert closed(client.transport.stats()) == {}


def test_zero_is_no_wait(peer: MakePeer, new_client: MakeClient, body: tuple[dict[str, Any], bytes]) -> None:
    client, script = new_client(expect_continue_timeout=0), Asked(quiet=False)
    options, data = body
    assert client.post(peer(script).url(), **options, timeout=Timeout(read=5)).content == b"ok"
    assert script.bodies == [data]


def test_a_late_100_is_taken_for_what_it_is(peer: MakePeer, new_client: MakeClient) -> None:
    client = new_client(expect_continue_timeout=0.02)

    def script(conn: Conn, i: int) -> None:
        for _ in range(2):
            head = conn.recv_head()
            assert conn.recv_body(head) == b"abc"
            conn.send(GO + respond(b"ok"))

    server = peer(script)
    for _ in range(2):
        assert client.post(server.url(), content=b"abc", headers=EXPECT).content == b"ok"
    assert server.accepted == 1


# --- 417 ---

class Refusing:
    """A script of a server that knows no Expect, and says so at once, or (`late`) once it has the body."""

    def __init__(self, late: bool = False, refusal: bytes = respond(b"what?", 417)) -> None:
        self.late = late
        self.refusal = refusal
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []

    def __call__(self, conn: Conn, i: int) -> None:
        while True:
            head = conn.recv_head()
            self.heads.append(head)
            expects = header(head, "Expect") is not None
            if self.late or not expects:
                self.bodies.append(conn.recv_body(head))
            conn.send(self.refusal if expects else respond(b"ok"))


@pytest.mark.parametrize("body", ["small", "large", "generator", "file"], indirect=True)
@pytest.mark.parametrize("refusal", [respond(b"what?", 417), respond(b"w" * 100_000, 417),
                                     b"HTTP/1.1 417 No\r\nX: folded\r\n line\r\nContent-Length: 0\r\n\r\n",
                                     b"HTTP/1.0 417 No\r\n\r\n"], ids=["plain", "large", "fallback", "1.0"])
def test_417_brings_the_request_again_without_it(peer: MakePeer, new_client: MakeClient, body: tuple[dict[str, Any], bytes], refusal: bytes) -> None:
    client, script = new_client(expect_continue_timeout=HOURS), Refusing(refusal=refusal)
    options, data = body
    server = peer(script)
    r = client.post(server.url("/x"), **options)
    assert (r.status_code, r.content) == (200, b"ok")
    assert script.bodies == [data]
    assert [header(head, "Expect") for head in script.heads] == ["100-continue", None]
    assert script.heads[1] == script.heads[0].replace(b"Expect: 100-continue\r\n", b"")
    stats = client.transport.stats()
    assert (closed(stats), stats.retries, stats.requests, server.accepted) == ({"not_reusable": 1}, 1, 1, 2)


@pytest.mark.parametrize("refusal", [respond(b"what?", 417), b"HTTP/1.1 417 No\r\nX: folded\r\n line\r\nContent-Length: 5\r\n\r\nwhat?"],
                         ids=["plain", "fallback"])
def test_417_to_a_body_that_was_sent(peer: MakePeer, new_client: MakeClient, body: tuple[dict[str, Any], bytes], refusal: bytes) -> None:
    client, script = new_client(expect_continue_timeout=0.02), Refusing(late=True, refusal=refusal)
    options, data = body
    r = client.post(peer(script).url(), **options)
    if isinstance(options.get("content"), (OnlyReads, GeneratorType)):
        assert (r.status_code, r.content, script.bodies) == (417, b"what?", [data])          # it cannot be sent twice
    else:
        assert (r.status_code, r.content, script.bodies) == (200, b"ok", [data, data])


def test_417_to_a_request_that_asked_nothing_is_an_answer(peer: MakePeer, client: Client) -> None:
    server = peer(lambda conn, i: conn.recv_request() and conn.send(respond(b"what?", 417)))
    assert client.post(server.url(), content=b"x", headers={"Expect": "something-else"}).status_code == 417
    assert client.post(server.url(), content=b"x").status_code == 417
    assert server.accepted == 2


def test_417_twice_is_returned(peer: MakePeer, new_client: MakeClient) -> None:
    def script(conn: Conn, i: int) -> None:
        conn.recv_request() if i else conn.recv_head()
        conn.send(respond(b"what?", 417))

    server = peer(script)
    r = new_client(max_conns_per_host=1).post(server.url(), content=b"x", headers=EXPECT)
    assert (r.status_code, server.accepted) == (417, 2)


# --- what ends the wait ---

def held(conn: Conn, i: int) -> None:
    conn.recv_head()
    conn.stall()


def test_a_deadline_while_it_is_waited(peer: MakePeer, new_client: MakeClient) -> None:
    client = new_client(expect_continue_timeout=HOURS)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="waiting for the response's head") as e:
        client.put(peer(held).url(), content=b"x", headers=EXPECT, timeout=0.15)
    assert (e.value.phase, e.value.source) == ("headers", "request")
    assert 0.15 <= time.monotonic() - began < 1
    assert closed(client.transport.stats()) == {"timeout": 1}


def test_other_limits_begin_when_the_body_is_sent(peer: MakePeer, new_client: MakeClient) -> None:
    client = new_client(expect_continue_timeout=0.25)
    with pytest.raises(ReadTimeout):
        client.put(peer(held).url(), content=b"x", headers=EXPECT, timeout=Timeout(read=0.1, write=0.1))
    script = Asked()
    assert client.put(peer(script).url(), content=b"x", headers=EXPECT, timeout=Timeout(read=5, write=0.1)).content == b"ok"


def test_a_cancel_while_it_is_waited(peer: MakePeer, new_client: MakeClient) -> None:
    client, cancel = new_client(expect_continue_timeout=HOURS), Canceller()
    server = peer(held)
    bell = threading.Thread(target=lambda: (server.wait_for(lambda p: p.conns and p.conns[0].received.endswith(b"\r\n\r\n")), cancel.cancel("enough")))
    bell.start()
    with pytest.raises(Cancelled, match="enough") as e:
        client._request("POST", server.url(), {"content": b"x", "headers": EXPECT}, cancel)
    bell.join()
    assert e.value.phase == "headers"
    assert closed(client.transport.stats()) == {"cancelled": 1}


def test_signals_while_it_is_waited(peer: MakePeer, new_client: MakeClient) -> None:
    """Their handlers run, and the wait goes on with what remains of it; or ends by what one raises."""
    client, rings = new_client(expect_continue_timeout=0.3), []
    script = Asked(quiet=False)

    def ring(*_: Any) -> None:
        rings.append(time.monotonic())
        if len(rings) == 100:
            raise LookupError("mine")

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        began = time.monotonic()
        assert client.post(peer(script).url(), content=b"abc", headers=EXPECT).content == b"ok"
        took = time.monotonic() - began
        assert 0.3 <= took < 1.5 and len(rings) >= 3
        del rings[:]
        rings += [0.0] * 97
        with pytest.raises(LookupError, match="mine"):
            client.post(peer(held).url(), content=b"abc", headers=EXPECT)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert closed(client.transport.stats()) == {"cancelled": 1}


@pytest.mark.parametrize(("headers", "again"), [({}, False), ({"Idempotency-Key": "1"}, True)])
def test_a_kept_connection_that_dies_while_it_is_waited(peer: MakePeer, new_client: MakeClient, headers: dict[str, str], again: bool) -> None:
    client = new_client(expect_continue_timeout=HOURS)
    bodies = []

    def script(conn: Conn, i: int) -> None:
        if i == 0:
            conn.recv_request()
            conn.send(respond(b"first"))
            conn.recv_head()
            return
        head = conn.recv_head()
        conn.send(GO)
        bodies.append(conn.recv_body(head))
        conn.send(respond(b"ok"))

    server = peer(script)
    client.get(server.url())
    if again:
        assert client.post(server.url(), content=(b"a", b"b"), headers={**EXPECT, **headers}).content == b"ok"
        assert bodies == [b"ab"]
    else:
        with pytest.raises(StaleConnectionError, match="not idempotent"):
            client.post(server.url(), content=(b"a", b"b"), headers={**EXPECT, **headers})


@pytest.mark.parametrize("outcome", ["100", "answer", "silence", "417"])
def test_over_tls(peer: MakePeer, new_client: MakeClient, ca: Authority, tls_mode: str, outcome: str) -> None:
    client = new_client(verify=str(ca.pem), expect_continue_timeout=0.05 if outcome == "silence" else HOURS)
    data, rest = pattern(LARGE), []

    def script(conn: Conn, i: int) -> None:
        head = conn.recv_head()
        if outcome == "100":
            conn.send(GO)
        elif outcome == "answer" or (outcome == "417" and i == 0):
            conn.send(respond(b"no", 403 if outcome == "answer" else 417))
            rest.append(conn.recv_until_closed())
            return
        rest.append(conn.recv_body(head))
        conn.send(respond(b"ok"))

    server = peer(script, tls=ca.server())
    r = client.post(server.url(), content=data, headers=EXPECT)
    assert (r.status_code, r.content) == ((403, b"no") if outcome == "answer" else (200, b"ok"))
    if outcome == "answer":
        server.wait_closed(0)
    assert rest == {"100": [data], "answer": [b""], "silence": [data], "417": [b"", data]}[outcome]


# --- who may ask ---

@pytest.mark.parametrize("request_", [{"method": "GET"}, {"method": "POST", "content": b""}, {"method": "POST", "content": []}, {"method": "DELETE"}], ids=repr)
def test_without_a_body_nothing_is_asked(request_: dict[str, Any]) -> None:
    wire = Request(url="http://h/", headers={"X": "1", "expect": "100-Continue"}, **request_).wire()
    assert b"xpect" not in wire.fields


def test_it_is_sent_as_it_was_written() -> None:
    wire = Request("POST", "http://h/", headers={"expect": "100-Continue", "X": "1"}, content=b"x").wire()
    assert wire.fields == b"expect: 100-Continue\r\nX: 1\r\nContent-Length: 1\r\n"


@pytest.mark.parametrize("bad", [None, -1, "1", float("nan"), True])
def test_waits_that_cannot_be_meant(bad: Any) -> None:
    with pytest.raises(ValueError, match="expect_continue_timeout"):
        Transport(expect_continue_timeout=bad)
    Transport(expect_continue_timeout=float("inf")).close()


def test_a_body_that_fails_after_it_was_asked_for(peer: MakePeer, new_client: MakeClient) -> None:
    client = new_client(expect_continue_timeout=HOURS)
    with pytest.raises(LocalProtocolError, match="1 bytes short"):
        client.post(peer(Asked(GO)).url(), content=iter([b"a"]), headers={**EXPECT, "Content-Length": "2"})
    assert closed(client.transport.stats()) == {"error": 1}
