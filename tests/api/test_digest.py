"""Digest authentication, step by step: the standards' examples, a server written apart, and what ends it."""
from __future__ import annotations

import hashlib
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pooledhttp import DigestAuth, Request, Response
from pooledhttp.challenges import parse_params
from pooledhttp.content import BodySource
from tests.support.digest import Digest

URL = "http://www.example.org/dir/index.html?a=b"


def exchange(auth: DigestAuth, server: Digest, request: Request, limit: int = 5) -> list[int]:
    """The statuses of all that is sent for one request."""
    flow = auth.auth_flow(request)
    sent = next(flow)
    statuses = []
    while len(statuses) < limit:
        body = sent.body
        content = b"".join(body) if isinstance(body, BodySource) else body or b""
        status, fields = server.answer(sent.method, sent.url.target, sent.headers.get("authorization"), content)
        statuses.append(status)
        try:
            sent = flow.send(Response(status, headers=fields, request=sent))
        except StopIteration:
            return statuses
    raise AssertionError(f"it does not end: {statuses}")


def answered(challenge: str | list[str], user: str | bytes, password: str, url: str, cnonce: str, monkeypatch: pytest.MonkeyPatch, **request: Any) -> Any:
    """The fields of the answer to a challenge."""
    monkeypatch.setattr("pooledhttp.digest._cnonce", lambda: cnonce)
    sent = Request(request.pop("method", "GET"), url, **request)
    flow = DigestAuth(user, password).auth_flow(sent)
    next(flow)
    fields = [challenge] if isinstance(challenge, str) else challenge
    try:
        flow.send(Response(401, headers=[("WWW-Authenticate", field) for field in fields], request=sent))
    except StopIteration:
        return None
    return sent.headers["Authorization"]


MUFASA = "Mufasa", "Circle of Life", "http://www.example.org/dir/index.html", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
BOTH = ('Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={}, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", '
        'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"')


@pytest.mark.parametrize(("algorithm", "response"), [
    ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
    ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
])
def test_the_example_of_rfc_7616_3_9_1(algorithm: str, response: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answered(BOTH.format(algorithm), *MUFASA, monkeypatch) == (
        'Digest username="Mufasa", realm="http-auth@example.org", nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", uri="/dir/index.html", '
        f'response="{response}", algorithm={algorithm}, opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS", qop=auth, nc=00000001, '
        'cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"')


def test_the_strongest_challenge_is_answered_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    weak, strong = BOTH.format("MD5"), BOTH.format("SHA-256")
    for challenge in ([strong, weak], [weak, strong], f"{weak}, {strong}", f'Basic realm="x", {strong}, {weak}, Negotiate', [f"{weak}, Bearer", strong]):
        assert "algorithm=SHA-256" in answered(challenge, *MUFASA, monkeypatch)
    assert "algorithm=MD5" in answered([BOTH.format("SHA3-999"), weak], *MUFASA, monkeypatch)


# With the corrections of erratum 4897: the RFC's own figures are of another SHA-512/256.
@pytest.mark.parametrize(("userhash", "user"), [
    ("true", 'username="793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b", '),
    ("false", "username*=UTF-8''J%C3%A4s%C3%B8n%20Doe, "),
])
def test_the_example_of_rfc_7616_3_9_2(userhash: str, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    challenge = ('Digest realm="api@example.org", qop="auth", algorithm=SHA-512-256, nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK", '
                 f'opaque="HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS", charset=UTF-8, userhash={userhash}')
    for name in ("J\xe4s\xf8n Doe", "Ja\u0308s\xf8n Doe", "J\xe4s\xf8n Doe".encode()):         # composed or not
        said = answered(challenge, name, "Secret, or not?", "http://api.example.org/doe.json", "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v", monkeypatch)
        assert said.startswith("Digest " + user)
        assert 'response="3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"' in said
        assert ("userhash=true" in said) == (userhash == "true")


@pytest.mark.parametrize(("qop", "response"), [(', qop="auth,auth-int"', "6629fae49393a05397450978507c4ef1"), ("", "670fd8c2df070c60b045671b8b24ff02")])
def test_the_example_of_rfc_2617_and_the_same_by_rfc_2069(qop: str, response: str, monkeypatch: pytest.MonkeyPatch) -> None:
    challenge = 'Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"' + qop
    said = answered(challenge, "Mufasa", "Circle Of Life", "http://www.nowhere.org/dir/index.html", "0a4f113b", monkeypatch)
    assert f'response="{response}"' in said
    assert "algorithm" not in said
    assert ("cnonce" in said) == ("nc=00000001" in said) == bool(qop)


@pytest.mark.parametrize("qop", ["auth", "auth-int", "auth-int , AUTH", None])
@pytest.mark.parametrize("algorithm", [None, "MD5", "MD5-sess", "SHA-256", "SHA-256-sess", "SHA-512-256", "SHA-512-256-sess"])
def test_each_algorithm_with_each_qop(algorithm: str | None, qop: str | None) -> None:
    server = Digest(algorithm=algorithm, qop=qop and qop.lower())
    auth = DigestAuth("mufasa", "Circle of Life")
    assert exchange(auth, server, Request("POST", URL, content=b"body")) == [401, 200]
    assert exchange(auth, server, Request("GET", URL)) == [200]
    assert exchange(auth, server, Request("PUT", "http://www.example.org/%20", content=[b"a", b"b"])) == [200]
    assert server.wrong == []
    assert list(server.counts.values()) == [[1, 2, 3] if qop else [0, 0, 0]]


@pytest.mark.parametrize("user", ['quo"ted', "back\\slash", "co:lon", "\xfcml\xe4ut", "\u65e5\u672c", ""])
@pytest.mark.parametrize("how", [{}, {"charset": True}, {"userhash": True}, {"userhash": True, "charset": True}])
def test_users_of_all_kinds(user: str, how: dict[str, Any]) -> None:
    server = Digest(user=user, password="p\xe4ss:\u65e5", realm="\xe9tage", **how)
    assert exchange(DigestAuth(user, "p\xe4ss:\u65e5"), server, Request("GET", URL)) == [401, 200], server.wrong


def test_a_wrong_password_is_tried_once_and_not_again_in_advance() -> None:
    server = Digest()
    auth = DigestAuth("mufasa", "guess")
    for _ in range(2):
        assert exchange(auth, server, Request("GET", URL)) == [401, 401]
    assert server.challenged == 2 and len(server.wrong) == 2


def test_a_password_that_is_right_no_more() -> None:
    server = Digest()
    auth = DigestAuth("mufasa", "Circle of Life")
    assert exchange(auth, server, Request("GET", URL)) == [401, 200]
    server.password = "changed"
    assert exchange(auth, server, Request("GET", URL)) == [401, 401]        # the answer in advance, and one to a fresh challenge
    assert exchange(auth, server, Request("GET", URL)) == [401, 401]


def test_a_stale_nonce() -> None:
    server = Digest(uses=2)
    auth = DigestAuth("mufasa", "Circle of Life")
    statuses = [exchange(auth, server, Request("GET", URL)) for _ in range(5)]
    assert statuses == [[401, 200], [200], [401, 200], [200], [401, 200]]
    assert (server.stale, server.challenged, server.wrong) == (2, 1, [])


def test_a_nonce_that_the_server_forgot_without_saying_stale() -> None:
    server = Digest()
    auth = DigestAuth("mufasa", "Circle of Life")
    exchange(auth, server, Request("GET", URL))
    server.counts.clear()                            # as by a restart
    assert exchange(auth, server, Request("GET", URL)) == [401, 200]


def test_nonces_that_are_always_stale_end() -> None:
    server = Digest(uses=0)
    assert exchange(DigestAuth("mufasa", "Circle of Life"), server, Request("GET", URL)) == [401, 401, 401, 401]
    assert server.stale == 3


def test_the_next_nonce() -> None:
    server = Digest(uses=1, nextnonce=True)
    auth = DigestAuth("mufasa", "Circle of Life")
    statuses = [exchange(auth, server, Request("GET", URL)) for _ in range(4)]
    assert statuses == [[401, 200], [200], [200], [200]]
    assert list(server.counts.values()) == [[1], [1], [1], [1], []]


def test_origins_have_challenges_of_their_own() -> None:
    one, other = Digest(realm="one"), Digest(realm="other")
    auth = DigestAuth("mufasa", "Circle of Life")
    for expected in ([401, 200], [200]):
        assert exchange(auth, one, Request("GET", "http://h:1/")) == expected
        assert exchange(auth, other, Request("GET", "http://h:2/")) == expected
        assert exchange(auth, other, Request("GET", "https://h:1/")) == expected
    assert one.wrong == other.wrong == []


def test_what_is_kept_is_bounded() -> None:
    server = Digest()
    auth = DigestAuth("mufasa", "Circle of Life")
    for port in range(1, 301):
        assert exchange(auth, server, Request("GET", f"http://h:{port}/")) == [401, 200]
    assert len(auth._memory.spaces) == 256
    assert exchange(auth, server, Request("GET", "http://h:300/")) == [200]
    assert exchange(auth, server, Request("GET", "http://h:1/")) == [401, 200]


@pytest.mark.parametrize("challenge", [
    None, "", "Basic realm=x", "Negotiate", "Digest", 'Digest realm="a"', "Digest nonce=x", 'Digest realm="a", nonce="b', "Digest realm=a, nonce=b, qop=other",
    "Digest realm=a, nonce=b, algorithm=MD4", "Digest realm=a, nonce=b, algorithm=", "@@@", 'Bearer realm="a", nonce="b"',
])
def test_a_challenge_that_cannot_be_answered(challenge: str | None) -> None:
    request = Request("GET", URL)
    flow = DigestAuth("u", "p").auth_flow(request)
    next(flow)
    with pytest.raises(StopIteration):
        flow.send(Response(401, headers={} if challenge is None else {"WWW-Authenticate": challenge}))
    assert "authorization" not in request.headers


def test_a_hash_that_this_python_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str, data: bytes = b"", **kw: Any) -> Any:
        if name == "sha512_256":
            raise ValueError("unsupported hash type")
        return hashlib.new(name, data, **kw)

    monkeypatch.setattr("pooledhttp.digest.new_hash", without)
    said = answered([BOTH.format("SHA-512-256"), BOTH.format("MD5")], *MUFASA, monkeypatch)
    assert "algorithm=MD5" in said
    assert answered(BOTH.format("SHA-512-256"), *MUFASA, monkeypatch) is None


def test_the_password_is_not_sent_in_the_clear_first() -> None:
    """A URL's userinfo would become Basic credentials."""
    server = Digest()
    auth = DigestAuth("mufasa", "Circle of Life")
    assert exchange(auth, server, Request("GET", "http://mufasa:Circle%20of%20Life@h/")) == [401, 200]
    assert server.challenged == 1 and server.wrong == []


def test_bodies_that_are_covered(tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(os.urandom(600_000))
    server = Digest(qop="auth-int")
    auth = DigestAuth("mufasa", "Circle of Life")

    def twice() -> Iterator[bytes]:
        yield b"one"
        yield b"two"

    with path.open("rb") as file:
        file.seek(1000)
        assert exchange(auth, server, Request("PUT", URL, content=file)) == [401, 200]
        assert exchange(auth, server, Request("PUT", URL, content=file)) == [200]
    # What can be read once is not hashed: its request goes without an answer, and the 401 is the end of it.
    once = twice()
    assert exchange(auth, server, Request("PUT", URL, content=once)) == [401]
    assert list(once) == []
    assert exchange(auth, server, Request("PUT", URL, content=[b"one", b"two"])) == [200]
    assert server.wrong == []


def test_a_body_that_is_gone_leaves_the_401_and_the_next_request_is_answered_in_advance() -> None:
    server = Digest()
    auth = DigestAuth("mufasa", "Circle of Life")
    assert exchange(auth, server, Request("PUT", URL, content=iter([b"x"]))) == [401]
    assert exchange(auth, server, Request("PUT", URL, content=iter([b"x"]))) == [200]


@pytest.mark.parametrize("algorithm", ["SHA-256", "MD5-sess"])
def test_threads_count_one_nonce_together(algorithm: str) -> None:
    server = Digest(algorithm=algorithm)
    auth = DigestAuth("mufasa", "Circle of Life")
    assert exchange(auth, server, Request("GET", URL)) == [401, 200]
    gate = threading.Barrier(32)
    bad = []

    def work() -> None:
        gate.wait()
        for _ in range(20):
            statuses = exchange(auth, server, Request("GET", URL))
            if statuses != [200]:
                bad.append(statuses)

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bad == [] and server.wrong == []
    assert [sorted(counts) for counts in server.counts.values()] == [list(range(1, 642))]


def test_threads_whose_nonces_run_out_all_arrive() -> None:
    server = Digest(uses=7, nextnonce=True)
    auth = DigestAuth("mufasa", "Circle of Life")
    ends = []

    def work() -> None:
        for _ in range(10):
            ends.append(exchange(auth, server, Request("GET", URL))[-1])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == [200] * 80
    assert server.wrong == []


def test_a_forked_child_asks_for_a_nonce_of_its_own() -> None:
    server = Digest()
    auth = DigestAuth("mufasa", "Circle of Life")
    exchange(auth, server, Request("GET", URL))
    with auth._memory.lock:                              # as another thread may hold it
        child = os.fork()
        if not child:
            os._exit(0 if exchange(auth, server, Request("GET", URL)) == [401, 200] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert exchange(auth, server, Request("GET", URL)) == [200]


def test_the_object() -> None:
    auth = DigestAuth("user", "hunter2")
    assert "hunter" not in repr(auth) and "user" not in repr(auth)
    other = pickle.loads(pickle.dumps(auth))
    assert other == auth and hash(other) == hash(auth) and other is not auth
    assert auth != DigestAuth("user", "other") and auth != 1
    exchange(auth, Digest(), Request("GET", URL))
    assert pickle.loads(pickle.dumps(auth))._memory.spaces == {}
    for bad in ((None, "p"), ("u", None), (1, "p")):
        with pytest.raises(TypeError, match="digest authentication is a str or bytes"):
            DigestAuth(*bad)  # type: ignore[arg-type]


def test_as_a_function() -> None:
    server = Digest()
    auth = DigestAuth("mufasa", "Circle of Life")
    assert "authorization" not in auth(Request("GET", URL)).headers
    exchange(auth, server, Request("GET", URL))
    assert server.answer("GET", "/dir/index.html?a=b", auth(Request("GET", URL)).headers["authorization"])[0] == 200


def _counts(*said: tuple[int, str, str]) -> list[tuple[str, str]]:
    """The nonces and counts that an auth uses for requests whose answers are (status, nonce, nextnonce), each begun when the one before has ended."""
    auth = DigestAuth("u", "p")
    out = []
    for status, nonce, following in said:
        flow = auth.auth_flow(Request("GET", "http://a.test/"))
        request = next(flow)
        fields = {"WWW-Authenticate": f'Digest realm="r", nonce="{nonce}", qop="auth"'}
        if status == 401:
            request = flow.send(Response(401, headers=fields))
        params = parse_params(request.headers["authorization"].removeprefix("Digest "))
        out.append((params["nonce"], params["nc"]))
        with pytest.raises(StopIteration):
            flow.send(Response(200, headers={"Authentication-Info": f'nextnonce="{following}"'} if following else {}))
    return out


def test_a_nextnonce_that_comes_late_is_counted_on() -> None:
    assert _counts((401, "a", "b"), (200, "", "c"), (200, "", "b"), (200, "", "")) == [
        ("a", "00000001"), ("b", "00000001"), ("c", "00000001"), ("b", "00000002")]


def test_a_nonce_that_several_threads_were_given_is_counted_once() -> None:
    auth = DigestAuth("u", "p")
    flows = [auth.auth_flow(Request("GET", "http://a.test/")) for _ in range(3)]
    for flow in flows:
        assert "authorization" not in next(flow).headers
    asked = Response(401, headers={"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5-sess'})
    said = [parse_params(flow.send(asked).headers["authorization"].removeprefix("Digest ")) for flow in flows]
    assert [params["nc"] for params in said] == ["00000001", "00000002", "00000003"]
    assert len({params["cnonce"] for params in said}) == 1
