"""Mistakes of users, and what they are told: the option, what it takes, what it got."""
from __future__ import annotations

import inspect
import pickle
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pooledhttp import (
    URL,
    BasicAuth,
    BearerAuth,
    Cancelled,
    Client,
    DNSError,
    InvalidURL,
    LocalProtocolError,
    Request,
    StreamConsumed,
    Timeout,
    TLSError,
    Transport,
    UnsupportedProtocol,
)


def pieces() -> Iterator[bytes]:
    yield b"piece"


def spent() -> Iterator[bytes]:
    body = pieces()
    assert list(body) == [b"piece"]
    return body


U = "http://h/"
OPTION = "socket_options are (level, option, value) each, not "
MISTAKES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: URL("localhost:8000/x"), UnsupportedProtocol, "no scheme (http:// or https://) in the URL 'localhost:8000/x'"),
    (lambda: URL("localhost:8000"), UnsupportedProtocol, "no scheme (http:// or https://) in the URL 'localhost:8000'"),
    (lambda: URL("mailto:a"), UnsupportedProtocol, "the scheme 'mailto' is not one we speak (http, https), in the URL 'mailto:a'"),
    (lambda: URL("file:/etc/x"), UnsupportedProtocol, "the scheme 'file' is not one we speak (http, https), in the URL 'file:/etc/x'"),
    (lambda: Request("GET", "ftp://u:pw@h/?t=1"), UnsupportedProtocol, "the scheme 'ftp' is not one we speak (http, https), in the URL 'ftp://h/'"),
    (lambda: URL("http:/h/"), InvalidURL, "no // after the scheme in the URL 'http:/h/'"),
    (lambda: Request("http://u:pw@h/?t=1", "GET"), LocalProtocolError, "'http://h/' is no method: the method comes first, then the URL"),
    (lambda: Timeout(-1), ValueError, "the timeout 'total' must be at least 0 seconds, not -1"),
    (lambda: Timeout(read=float("nan")), ValueError, "the timeout 'read' must be at least 0 seconds, not nan"),
    (lambda: Request("GET", U, headers="A: b"), TypeError, "headers are a mapping or (name, value) pairs, not str"),  # type: ignore[arg-type]
    (lambda: Client(headers=3), TypeError, "headers are a mapping or (name, value) pairs, not int"),  # type: ignore[arg-type]
    (lambda: Client(headers=["ab"]), TypeError, "headers are a mapping or (name, value) pairs: one of them is str"),  # type: ignore[list-item]
    (lambda: Request("GET", U, params=3), TypeError, "parameters are a mapping, (name, value) pairs, or a str, not int"),  # type: ignore[arg-type]
    (lambda: Request("GET", U, params=[3]), TypeError, "parameters are a mapping, (name, value) pairs, or a str"),  # type: ignore[list-item]
    (lambda: Client(auth=("user", None)), TypeError, "the password for basic authentication is a str or bytes, not NoneType"),  # type: ignore[arg-type]
    (lambda: BasicAuth(7), TypeError, "the user for basic authentication is a str or bytes, not int"),  # type: ignore[arg-type]
    (lambda: BearerAuth(None), TypeError, "a bearer token is a str, not NoneType"),  # type: ignore[arg-type]
    (lambda: Request("POST", U, content=spent()), StreamConsumed, "the generator given as a request's body has run to its end already: make another"),
    (lambda: Client(event_hooks={"request": print}), TypeError, "event_hooks['request'] is a list of functions"),  # type: ignore[dict-item]
    (lambda: Client(event_hooks={"response": [3]}), TypeError, "event_hooks['response'] is a list of functions"),  # type: ignore[list-item]
    (lambda: Client().map([U], executor=ThreadPoolExecutor), TypeError,  # type: ignore[call-overload]
     "executor is a concurrent.futures.Executor, or has its submit, not the class ThreadPoolExecutor"),
    (lambda: Client().map([U], executor=3), TypeError,  # type: ignore[call-overload]
     "executor is a concurrent.futures.Executor, or has its submit, not int"),
    (lambda: Transport(verify=None), TypeError,  # type: ignore[arg-type]
     'verify must be True, False, "system", a path or an ssl.SSLContext, not NoneType'),
    (lambda: Transport(cert=["c", "k"]), TypeError,  # type: ignore[arg-type]
     "cert must be a path, (cert, key) or (cert, key, password), not list"),
    (lambda: Transport(cert=()), TypeError, "cert must be a path, (cert, key) or (cert, key, password), not 0 values"),
    (lambda: Transport(socket_options=[(1, 2)]), TypeError, OPTION + "(1, 2)"),  # type: ignore[list-item]
    (lambda: Transport(socket_options=[("SO_MARK", 2, 3)]), TypeError, OPTION + "('SO_MARK', 2, 3)"),  # type: ignore[list-item]
    (lambda: Transport(proxy="ftp://user:pw@h"), ValueError, "a proxy is http, https, socks5 or socks5h, not 'ftp': 'ftp://h'"),
    (lambda: Transport(proxy="http://user:p/w@h"), ValueError,
     "'/', '?' and '#' in the userinfo of a proxy's URL are written as %2F, %3F and %23: 'http://h'"),
    (lambda: Transport(proxy="http://h", uds="/s"), ValueError,
     "uds and a proxy exclude each other: a Unix socket is no way to a proxy (proxy=None takes none)"),
    (lambda: Transport(proxy=7), TypeError, "a proxy is a URL, not int"),  # type: ignore[arg-type]
    (lambda: Transport(proxy_headers={"Host": "x"}), ValueError, "proxy_headers cannot have Host: it is said by itself"),
]


@pytest.mark.parametrize(("call", "kind", "message"), MISTAKES, ids=[message[:40] for _, _, message in MISTAKES])
def test_what_they_are_told(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as e:
        call()
    assert str(e.value) == message


@pytest.mark.parametrize("option", ["verify", "cert"])
def test_a_file_that_is_not_there(option: str, tmp_path: Path) -> None:
    """Known before anything is dialed: nobody listens at port 9."""
    path = str(tmp_path / "none.pem")
    given: dict[str, Any] = {option: path}
    with Client(**given) as client, pytest.raises(TLSError) as e:
        client.get("https://127.0.0.1:9/")
    assert e.value.message == f"cannot read {path!r}, which {option} names: No such file or directory"


def test_a_failure_says_of_which_request_without_its_secrets() -> None:
    with Client(resolver=lambda host, port: []) as client, pytest.raises(DNSError) as e:
        client.post("http://user:pw@h.test:81/a?token=t#f", content=b"x", headers={"A": "b"})
    assert e.value.message == "cannot resolve 'h.test': no addresses"
    told = e.value.message + " (POST http://h.test:81/a)"
    again = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(e.value))))
    assert str(e.value) == str(again) == told and again.message == e.value.message


@pytest.mark.parametrize("item", ["http://[/", 7, ("GET", "http://h/"), None])
def test_what_is_no_request_is_left_out(item: object) -> None:
    error = Cancelled("gone", request=item)
    assert str(error) == error.message == "gone"


def test_a_generator_that_has_not_begun_or_not_ended_is_a_body() -> None:
    assert Request("POST", U, content=pieces()).content == b"piece"
    body = pieces()
    next(body)
    assert Request("POST", U, content=body).content == b""


def test_a_good_option_of_each_kind_is_taken(tmp_path: Path) -> None:
    with Transport(socket_options=iter([[socket.SOL_SOCKET, socket.SO_RCVBUF, 65536], (6, 1, b"\0" * 4)]),  # type: ignore[list-item]
                   uds=tmp_path / "socket") as transport:
        spec = transport.dial_spec("http://h:80", "h", 80)
    assert spec.socket_options == ((socket.SOL_SOCKET, socket.SO_RCVBUF, 65536), (6, 1, b"\0" * 4))
    assert spec.uds == str(tmp_path / "socket")


def test_the_signature_of_a_transport_names_its_options() -> None:
    class Own(Transport):
        def __init__(self, name: str, *, size: int = 3) -> None:
            super().__init__()

    names = list(inspect.signature(Transport).parameters)
    assert names[:2] == ["max_idle_conns", "max_idle_conns_per_host"] and "self" not in names
    assert str(inspect.signature(Own)).startswith("(name: 'str', *, size: 'int' = 3)")
