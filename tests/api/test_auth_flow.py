"""Authentication through a client: on the wire, over redirects, with threads, and flows of the user's own."""
from __future__ import annotations

import io
import pickle
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from pooledhttp import Auth, Client, DigestAuth, MockTransport, Request, Response
from tests.support.digest import Digest
from tests.support.peer import Conn, Peer, Script, answering, chunked, header, respond

MakePeer = Callable[..., Peer]
AUTH = "mufasa", "Circle of Life"


def guarded(server: Digest, body_401: bytes = b"who are you?", chunks: bool = False) -> Script:
    """Answers what `server` says, with the body it was sent; a 401 has `body_401`."""

    def script(conn: Conn, i: int) -> None:
        while True:
            head, body = conn.recv_request()
            method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
            status, fields = server.answer(method, target, header(head, "Authorization"), body)
            answer = body if status == 200 else body_401
            if chunks:
                pieces = [answer[at:at + 1000] for at in range(0, len(answer), 1000)]
                conn.send(respond(b"", status, [*fields, ("Transfer-Encoding", "chunked")], length=False) + chunked(*pieces))
            else:
                conn.send(respond(answer, status, fields))

    return script


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(max_idle_conns=10, timeout=10.0) as client:
        yield client


# --- the 401 and the answer to it on one connection ---------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [False, True])
@pytest.mark.parametrize("size", [0, 12, 200_000])
def test_one_connection(peer: MakePeer, client: Client, size: int, chunks: bool) -> None:
    server = Digest()
    p = peer(guarded(server, b"x" * size, chunks))
    client.auth = DigestAuth(*AUTH)
    r = client.get(p.url("/a?b=c"))
    assert (r.status_code, [h.status_code for h in r.history], server.wrong) == (200, [401], [])
    assert client.get(p.url("/b")).history == []
    assert (p.accepted, client.transport.stats().opened) == (1, 1)
    assert server.challenged == 1


def test_a_401_without_an_end_is_not_waited_for(peer: MakePeer, client: Client) -> None:
    server = Digest()

    def script(conn: Conn, i: int) -> None:
        head, _ = conn.recv_request()
        status, fields = server.answer("GET", "/", header(head, "Authorization"))
        if status == 401:
            conn.send(respond(b"x" * 100, status, [*fields, ("Content-Length", "1000000000")], length=False))
            assert conn.recv_until_closed() == b""
        else:
            conn.send(respond(b"in", status, fields))

    p = peer(script)
    assert client.get(p.url("/"), auth=DigestAuth(*AUTH)).text == "in"
    assert p.accepted == 2


@pytest.mark.parametrize("body", [b"bytes", [b"a", b"list"], io.BytesIO(b"x" * 300_000)], ids=["bytes", "list", "file"])
@pytest.mark.parametrize("qop", ["auth", "auth-int"])
def test_a_body_is_sent_again(peer: MakePeer, client: Client, body: Any, qop: str) -> None:
    server = Digest(qop=qop)
    p = peer(guarded(server))
    whole = body if isinstance(body, bytes) else b"".join(body) if isinstance(body, list) else body.getvalue()
    if isinstance(body, io.BytesIO):
        body.seek(0)
    r = client.post(p.url("/"), content=body, auth=DigestAuth(*AUTH))
    assert (r.status_code, r.content, server.wrong, p.accepted) == (200, whole, [], 1)


@pytest.mark.parametrize("qop", ["auth", "auth-int"])
def test_a_body_that_is_gone(peer: MakePeer, client: Client, qop: str) -> None:
    server = Digest(qop=qop)
    p = peer(guarded(server))
    auth = DigestAuth(*AUTH)
    r = client.post(p.url("/"), content=iter([b"once"]), auth=auth)
    assert (r.status_code, r.text, r.history) == (401, "who are you?", [])
    if qop == "auth":                                    # now the challenge is known, and one try is enough
        assert client.post(p.url("/"), content=iter([b"once"]), auth=auth).content == b"once"
    assert p.accepted == 1


def test_a_401_that_comes_before_the_body_was_read(peer: MakePeer, client: Client) -> None:
    server = Digest()
    whole = bytes(range(256)) * 20_000                   # more than the sockets hold

    def script(conn: Conn, i: int) -> None:
        head = conn.recv_head()
        if header(head, "Authorization") is None:
            status, fields = server.answer("PUT", "/", None)
            conn.send(respond(b"", status, fields))
            conn.recv_until_closed()
        else:
            body = conn.recv_body(head)
            status, fields = server.answer("PUT", "/", header(head, "Authorization"), body)
            conn.send(respond(b"all" if body == whole else b"not all", status, fields))

    p = peer(script)
    r = client.put(p.url("/"), content=io.BytesIO(whole), auth=DigestAuth(*AUTH))
    assert (r.status_code, r.text, [h.status_code for h in r.history], p.accepted) == (200, "all", [401], 2)


def test_a_wrong_password(peer: MakePeer, client: Client) -> None:
    server = Digest()
    p = peer(guarded(server))
    r = client.get(p.url("/"), auth=DigestAuth("mufasa", "wrong"))
    assert (r.status_code, r.text, [h.status_code for h in r.history]) == (401, "who are you?", [401])
    assert (len(server.wrong), server.challenged, p.accepted) == (1, 1, 1)


@pytest.mark.parametrize("field", ["Digest realm=\"a", "@", "Digest realm=a, nonce=b, algorithm=X", "Negotiate", "Basic realm=x", ""])
def test_a_challenge_that_is_none(peer: MakePeer, client: Client, field: str) -> None:
    p = peer(answering(respond(b"no", 401, {"WWW-Authenticate": field})))
    r = client.get(p.url("/"), auth=DigestAuth(*AUTH))
    assert (r.status_code, r.text) == (401, "no")


def test_a_stream(peer: MakePeer, client: Client) -> None:
    server = Digest()
    p = peer(guarded(server))
    with client.stream("POST", p.url("/"), content=b"x" * 100_000, auth=DigestAuth(*AUTH)) as r:
        assert r.status_code == 200
        assert b"".join(r.iter_bytes()) == b"x" * 100_000
    assert p.accepted == 1


def test_threads_share_a_challenge(peer: MakePeer, client: Client) -> None:
    server = Digest()
    p = peer(guarded(server))
    client.auth = DigestAuth(*AUTH)
    assert client.get(p.url("/")).ok
    gate = threading.Barrier(16)
    statuses = []

    def work() -> None:
        gate.wait()
        for _ in range(10):
            statuses.append(client.get(p.url("/")).status_code)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 160
    assert (server.wrong, server.challenged) == ([], 1)
    assert [sorted(counts) for counts in server.counts.values()] == [list(range(1, 162))]


def test_a_client_with_digest_travels(peer: MakePeer) -> None:
    server = Digest()
    p = peer(guarded(server))
    with Client(auth=DigestAuth(*AUTH), max_idle_conns=3) as first, pickle.loads(pickle.dumps(first)) as second:
        assert first.get(p.url("/")).ok and second.get(p.url("/")).ok
    assert server.wrong == []


# --- redirects ------------------------------------------------------------------------------------------------------------------


def test_a_redirect_within_the_origin_is_answered_for_its_own_target(peer: MakePeer, client: Client) -> None:
    server = Digest()

    def script(conn: Conn, i: int) -> None:
        while True:
            head, _ = conn.recv_request()
            target = head.split(b" ")[1].decode()
            status, fields = server.answer("GET", target, header(head, "Authorization"))
            if status == 200 and target == "/old":
                conn.send(respond(b"", 302, {"Location": "/new?x=y"}))
            else:
                conn.send(respond(b"", status, fields))

    p = peer(script)
    r = client.get(p.url("/old"), auth=DigestAuth(*AUTH))
    assert (r.status_code, r.url.path, [h.status_code for h in r.history]) == (200, "/new", [401, 302])
    assert (server.wrong, p.accepted) == ([], 1)


def test_another_origin_gets_nothing(peer: MakePeer, client: Client) -> None:
    other = Digest()
    p2 = peer(guarded(other))
    p1 = peer(answering(respond(b"", 302, {"Location": p2.url("/x")})))
    r = client.get(p1.url("/"), auth=DigestAuth(*AUTH))
    assert (r.status_code, other.challenged, other.wrong) == (401, 1, [])


# --- flows of the user's own ----------------------------------------------------------------------------------------------------


class Token(Auth):
    """Gets a token first, and a new one where that has aged."""

    requires_response_body = True

    def __init__(self) -> None:
        self.token = ""
        self.bodies: list[bytes] = []

    def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        request.headers["Authorization"] = "Bearer " + self.token
        response = yield request
        if response.status_code == 401:
            self.bodies.append(response.content)
            fresh = yield Request("POST", request.url.join("/token"), data={"grant": "x"})
            self.token = fresh.json()["token"]
            request.headers["Authorization"] = "Bearer " + self.token
            yield request


@pytest.mark.parametrize("stream", [False, True])
def test_a_flow_that_asks_for_a_token(peer: MakePeer, client: Client, stream: bool) -> None:
    def script(conn: Conn, i: int) -> None:
        while True:
            head, body = conn.recv_request()
            if head.startswith(b"POST /token"):
                assert body == b"grant=x"
                conn.send(respond(b'{"token": "t1"}'))
            elif header(head, "Authorization") == "Bearer t1":
                conn.send(respond(b"in " + body))
            else:
                conn.send(respond(b"out", 401))

    p = peer(script)
    auth = Token()
    r = client.put(p.url("/"), content=b"b", auth=auth, stream=stream)
    assert (r.read(), [h.status_code for h in r.history], auth.bodies) == (b"in b", [401, 200], [b"out"])
    assert client.put(p.url("/"), content=b"b", auth=auth).history == []
    assert p.accepted == 1


class Signed(Auth):
    """Signs the body."""

    requires_request_body = True

    def __call__(self, request: Request) -> Request:
        request.headers["X-Length"] = str(len(request.content))
        return request


class SignedFlow(Signed):
    def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        response = yield self(request)
        if response.status_code == 401:
            yield request


@pytest.mark.parametrize("auth", [Signed(), SignedFlow()])
def test_a_flow_that_needs_the_body(auth: Auth) -> None:
    seen = []

    def handler(request: Request) -> Response:
        seen.append((request.headers["X-Length"], request.content))
        return Response(401 if len(seen) == 1 else 200)

    given = Request("POST", "http://h/", content=iter([b"ab", b"c"]))
    r = Client(transport=MockTransport(handler), auth=auth).send(given)
    assert seen == [("3", b"abc")] * (2 if type(auth) is SignedFlow else 1)
    assert r.status_code == (200 if type(auth) is SignedFlow else 401)
    assert "x-length" not in given.headers


def test_a_plain_auth_yields_what_it_returns() -> None:
    class Shout(Auth):
        def __call__(self, request: Request) -> Request:
            request.headers["Authorization"] = "Shout"
            return request

    flow = Shout().auth_flow(Request("GET", "http://h/"))
    assert next(flow).headers["authorization"] == "Shout"
    with pytest.raises(StopIteration):
        flow.send(Response(401))
    with pytest.raises(NotImplementedError):
        Auth()(Request("GET", "http://h/"))


def test_a_flow_that_fails_gives_the_connection_back(peer: MakePeer, client: Client) -> None:
    class Fails(Auth):
        def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
            yield request
            raise LookupError("no such key")

    p = peer(answering(respond(b"x")))
    with pytest.raises(LookupError):
        client.get(p.url("/"), auth=Fails())
    assert client.transport.stats().active == 0


def test_auth_none_switches_the_clients_off(peer: MakePeer, client: Client) -> None:
    server = Digest()
    p = peer(guarded(server))
    client.auth = DigestAuth(*AUTH)
    assert client.get(p.url("/"), auth=None).status_code == 401
    assert client.get(p.url("/")).status_code == 200
