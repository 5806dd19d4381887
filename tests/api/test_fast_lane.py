"""A plain get() of a URL seen before takes a short cut: the exchange must be asked the same, whatever was changed in between."""
from __future__ import annotations

import threading
from typing import Any

import pytest

from pooledhttp import BasicAuth, Client, Request, Timeout

from .server import Server, Spy


def asked(spy: Spy) -> tuple[Any, ...]:
    """The last exchange's arguments, but for the deadline's time."""
    args = list(spy.seen[-1])
    args[9] = args[9] > 0
    return tuple(args)


SETTINGS: list[dict[str, Any]] = [
    {}, {"timeout": 5}, {"timeout": None}, {"headers": {"X-A": "ü", "User-Agent": None}}, {"params": {"a": [1, 2]}}, {"auth": ("u", "p")},
    {"max_response_bytes": 10000}, {"timeout": (1, 2), "auth": BasicAuth("ü", "")}, {"auth": lambda request: request},
    {"event_hooks": {"request": [lambda request: None]}},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_short_cut_asks_what_the_whole_way_asks(spy: Spy, server: Server, settings: dict[str, Any]) -> None:
    url = server.url + "/echo?x=1"
    with Client(transport=spy, **settings) as client:
        client.request("GET", url)
        whole = asked(spy)
        for _ in range(3):
            r = client.get(url)
            assert asked(spy) == whole
            assert r.request is not None
            assert (r.request.method, r.url) == ("GET", url if "params" not in settings else url + "&a=1&a=2")
            assert ("headers", [[n, v] for n, v in r.request.headers.multi_items()]) == ("headers", r.json()["headers"][1:])
        client.request("GET", url, timeout=3)
        whole = asked(spy)
        for _ in range(2):
            client.get(url, timeout=3)
            assert asked(spy) == whole


def header(client: Client, url: str, name: str) -> str | None:
    return dict(client.get(url).json()["headers"]).get(name)


def test_a_changed_default_holds_at_once(client: Client, spy: Spy, server: Server) -> None:
    url = server.url + "/echo"
    for _ in range(2):
        assert header(client, url, "X") is None
    client.headers["X"] = "1"
    for _ in range(2):
        assert header(client, url, "X") == "1"
    del client.headers["X"]
    assert header(client, url, "X") is None
    client.headers = {"X": "2"}  # type: ignore[assignment]
    assert header(client, url, "X") == "2"
    client.headers.add("Y", "3")
    assert header(client, url, "Y") == "3"
    client.auth = ("u", "p")
    assert header(client, url, "Authorization") == "Basic dTpw"
    client.auth = None
    assert header(client, url, "Authorization") is None
    client.timeout = Timeout(9)
    client.get(url)
    assert spy.seen[-1][8] is client.timeout.limits

    def mark(request: Request) -> None:
        request.headers["Z"] = "1"

    client.event_hooks["request"].append(mark)
    assert header(client, url, "Z") == "1"


def test_userinfo_is_remembered_with_its_url(client: Client, server: Server) -> None:
    plain, secret = server.url + "/echo", server.url.replace("//", "//u:p@") + "/echo"
    for _ in range(2):
        assert header(client, plain, "Authorization") is None
        assert header(client, secret, "Authorization") == "Basic dTpw"
    url = client.get(secret).url
    assert url == plain


def test_what_is_remembered_is_bounded(client: Client, server: Server) -> None:
    for i in range(1500):
        client._learn(f"{server.url}/number/{i}")
    assert len(client._memo) <= 1024
    assert client.get(server.url + "/number/7").content == b"7"


def test_headers_changed_while_others_get(client: Client, server: Server) -> None:
    """No thread is ever answered for a header that was replaced before its request began."""
    url = server.url + "/echo"
    told: list[tuple[int, int]] = []
    value = 0
    stop = threading.Event()

    def get() -> None:
        while not stop.is_set():
            before = value
            told.append((before, int(header(client, url, "X") or 0)))

    threads = [threading.Thread(target=get) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(1, 60):
        client.headers["X"] = str(i)
        value = i
        seen = len(told)
        while len(told) < seen + 3:
            stop.wait(0.0005)
    stop.set()
    for thread in threads:
        thread.join()
    assert [pair for pair in told if pair[1] < pair[0]] == []
    assert len(told) >= 170
