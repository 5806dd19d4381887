"""CONNECT and SOCKS 5 without a socket: whatever the answer, and however it is cut."""
from __future__ import annotations

import pytest

from pooledhttp._proto.connect import MAX_HEAD, Connect
from pooledhttp._proto.socks import REPLIES, Socks
from pooledhttp.errors import ProxyError

OK = b"HTTP/1.1 200 Connection established\r\n\r\n"
AUTH = b"Proxy-Authorization: Basic c2VjcmV0OnNlY3JldA==\r\n"


def connect(fields: bytes = b"") -> Connect:
    return Connect("http://proxy:3128", "origin.test", 443, fields)


def test_what_connect_says() -> None:
    assert connect().outgoing == b"CONNECT origin.test:443 HTTP/1.1\r\nHost: origin.test:443\r\n\r\n"
    assert Connect("p", "::1", 8443, b"X-A: b\r\n").outgoing == b"CONNECT [::1]:8443 HTTP/1.1\r\nHost: [::1]:8443\r\nX-A: b\r\n\r\n"


@pytest.mark.parametrize("head", [
    OK,
    b"HTTP/1.0 200 OK\r\nVia: x\r\n\r\n",
    b"HTTP/1.1 204 \r\nContent-Length: 7\r\n\r\n",                       # RFC 9110 section 9.3.6: a client ignores it
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK,
], ids=["usual", "1.0", "length", "chunked", "interim"])
@pytest.mark.parametrize("behind", [b"", b"\x16\x03the server speaks first"])
def test_a_tunnel_however_it_is_cut(head: bytes, behind: bytes) -> None:
    whole = head + behind
    for cut in range(1, len(whole)):
        asked = connect()
        assert asked.feed(whole[:cut]) is (cut >= len(head))
        if cut < len(head):
            assert asked.feed(whole[cut:]) is True
            assert asked.early == behind
        else:
            assert asked.early + whole[cut:] == behind
    asked = connect()
    assert [asked.feed(whole[i:i + 1]) for i in range(len(head))] == [False] * (len(head) - 1) + [True]
    assert asked.early == b""


@pytest.mark.parametrize(("answer", "status", "says"), [
    (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!", 403, "the proxy http://proxy:3128 refused a tunnel to origin.test:443: 403 Forbidden"),
    (b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>", 502, "502 Bad Gateway"),
    (b"HTTP/1.0 503\r\n\r\n", 503, "503"),
    (b"HTTP/1.1 302 Found\r\nLocation: http://login\r\n\r\n", 302, "302 Found"),
    (b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="x"\r\nProxy-Authenticate: NTLM\r\n\r\n', 407,
     'wants credentials for origin.test:443 (407 Proxy Authentication Required; give them in the proxy\'s URL): Basic realm="x", NTLM'),
])
def test_a_refusal(answer: bytes, status: int, says: str) -> None:
    with pytest.raises(ProxyError) as e:
        connect().feed(answer)
    assert says in e.value.message
    assert (e.value.status_code, e.value.phase) == (status, "proxy")
    assert e.value.reason is not None and e.value.reason in str(e.value)


def test_credentials_that_are_not_taken() -> None:
    with pytest.raises(ProxyError, match="it does not take the credentials given") as e:
        connect(AUTH).feed(b"HTTP/1.1 407 No\r\n\r\n")
    assert "c2VjcmV0" not in str(e.value)


@pytest.mark.parametrize(("answer", "says"), [
    (b"SSH-2.0-OpenSSH_9\r\n", "bad status line"),
    (b"\x15\x03\x01\x00\x02\x02\x28", "speaks TLS"),
    (b"\x05\x00garbage that is no HTTP", "bad status line"),
    (b"HTTP/2 200\r\n\r\n", "HTTP/2"),
    (b"HTTP/1.1 2000 OK\r\n\r\n", "bad status line"),
    (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "bad field line"),
    (b"HTTP/1.1 200 OK\r\nA: b\x00c\r\n\r\n", "control character"),
    (b"HTTP/1.1 101 Switching\r\n\r\n", "switched protocols"),
    (b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD, "over the limit of 65536 bytes"),
    (b"HTTP/1.1 100 Continue\r\n\r\n" * 4000, "over the limit of 65536 bytes"),
])
def test_no_answer_of_http(answer: bytes, says: str) -> None:
    with pytest.raises(ProxyError, match="did not answer CONNECT origin.test:443 by HTTP's rules") as e:
        connect().feed(answer)
    assert says in e.value.message
    assert e.value.status_code is None


@pytest.mark.parametrize(("before", "says"), [(b"", "without an answer"), (b"HT", "ended within"), (OK[:-2], "ended within")])
def test_a_proxy_that_closes(before: bytes, says: str) -> None:
    asked = connect()
    if before:
        assert asked.feed(before) is False
    with pytest.raises(ProxyError, match=says):
        asked.feed(b"")


# -- SOCKS --

def socks(host: str = "origin.test", address: bytes | None = None, user: bytes = b"", password: bytes = b"") -> Socks:
    return Socks("socks5h://proxy:1080", host, 443, address, user, password)


def play(asked: Socks, answers: bytes, size: int) -> tuple[bytes, bool, int]:
    """What was sent, whether it is done, and how much of `answers` was not read."""
    sent, at, done = asked.outgoing, 0, False
    asked.outgoing = b""
    while not done and at < len(answers):
        piece = answers[at:at + min(size, asked.room)]
        at += len(piece)
        done = asked.feed(piece)
        sent += asked.outgoing
        asked.outgoing = b""
    return sent, done, len(answers) - at


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("bound", [b"\x01\x7f\0\0\1\x04\x38", b"\x04" + bytes(16) + b"\x04\x38", b"\x03\x04host\x04\x38", b"\x03\x00\x04\x38"])
@pytest.mark.parametrize(("address", "where"), [
    (None, b"\x03\x0borigin.test"), (b"\x0a\0\0\1", b"\x01\x0a\0\0\1"), (bytes(15) + b"\1", b"\x04" + bytes(15) + b"\1")])
def test_socks(address: bytes | None, where: bytes, bound: bytes, size: int) -> None:
    sent, done, left = play(socks(address=address), b"\5\0" + b"\5\0\0" + bound + b"early", size)
    assert sent == b"\5\1\0" + b"\5\1\0" + where + b"\x01\xbb"
    assert (done, left) == (True, 5)               # what follows is the origin's, and was not read


@pytest.mark.parametrize("size", [1, 1000])
def test_socks_with_a_login(size: int) -> None:
    sent, done, left = play(socks(user=b"us", password=b"secret"), b"\5\2" + b"\1\0" + b"\5\0\0\1" + bytes(6), size)
    assert sent == b"\5\2\0\2" + b"\1\2us\6secret" + b"\5\1\0\3\x0borigin.test\x01\xbb"
    assert (done, left) == (True, 0)
    sent, done, _ = play(socks(user=b"us", password=b"secret"), b"\5\0" + b"\5\0\0\1" + bytes(6), size)
    assert b"secret" not in sent and done          # it did not want one


@pytest.mark.parametrize(("answers", "says"), [
    (b"\5\xff", "accepts no way of authentication that we offer"),
    (b"\5\1", "was not offered (1)"),
    (b"\5\2\1\1", "refused the user name and password"),
    (b"HT", "does not speak SOCKS 5: it speaks HTTP"),
    (b"\4\x5a", "does not speak SOCKS 5"),
    (b"\5\0\4\0\0\1\0", "does not speak SOCKS 5"),
    (b"\5\0\5\0\0\7\0", "does not speak SOCKS 5"),
    (b"\5\0\5\x63\0\1\0", "a reply that RFC 1928 does not know (reply 99)"),
    *((b"\5\0\5" + bytes([code]) + b"\0\1\0", f"did not connect to origin.test:443: {text} (reply {code})") for code, text in REPLIES.items()),
])
def test_socks_that_refuses(answers: bytes, says: str) -> None:
    with pytest.raises(ProxyError) as e:
        play(socks(user=b"us", password=b"secret"), answers, 1000)
    assert says in e.value.message
    assert "secret" not in e.value.message
    assert e.value.phase == "proxy"
    assert e.value.socks_reply == (answers[3] if "reply" in says else None)


def test_socks_that_wants_a_login() -> None:
    with pytest.raises(ProxyError, match="it wants a user name and password: give them in its URL"):
        play(socks(), b"\5\xff", 2)
    with pytest.raises(ProxyError, match="not offered"):
        play(socks(), b"\5\2", 2)                  # nobody sends a login that there is not


@pytest.mark.parametrize("before", [b"", b"\5", b"\5\0", b"\5\0\5\0\0\1"])
def test_socks_that_closes(before: bytes) -> None:
    asked = socks()
    play(asked, before, 1000)
    with pytest.raises(ProxyError, match="closed the connection before it was done with origin.test:443"):
        asked.feed(b"")


def test_a_name_that_socks_does_not_take() -> None:
    with pytest.raises(ProxyError, match="too long"):
        socks(".".join(["x" * 60] * 5))
