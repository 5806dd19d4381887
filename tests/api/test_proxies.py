"""Which proxy a request takes: the option, the environment, NO_PROXY; and that no secret shows."""
from __future__ import annotations

import os
import pickle
from typing import Any

import pytest

import pooledhttp
from pooledhttp import Client, ProxyError, Request, Transport
from pooledhttp._net.caenv import CA_VARIABLES
from pooledhttp._net.proxy import labelled
from pooledhttp.proxies import Bypass, Environment, Rule, Surroundings, parse
from pooledhttp.url import URL

# -- a proxy's URL --

@pytest.mark.parametrize(("url", "label"), [
    ("http://proxy.example", "http://proxy.example:80"),
    ("https://proxy.example", "https://proxy.example:443"),
    ("socks5://proxy.example", "socks5://proxy.example:1080"),
    ("SOCKS5H://Proxy.Example.:9", "socks5h://proxy.example.:9"),
    ("http://proxy.example:3128/", "http://proxy.example:3128"),
    ("proxy.example:3128", "http://proxy.example:3128"),
    ("http://[::1]:3128", "http://[::1]:3128"),
    ("http://b\u00fccher.example", "http://xn--bcher-kva.example:80"),
])
def test_a_url(url: str, label: str) -> None:
    found = parse(url)
    assert found.label == label
    assert found is parse(url)
    assert labelled(label) is found


@pytest.mark.parametrize("url", ["http://", "http://:3128", "http://p:0", "http://p:65536", "http://p:x", "ftp://p", "socks4://p", "http://p/path", "http://p?q",
                                 "http://p#f", "http://a%3Ab:c@p", "socks5://" + "u" * 256 + "@p", "http://secret:sec/ret@p", "http://secret:sec#ret@p"])
def test_no_proxys_url(url: str) -> None:
    with pytest.raises(ValueError) as e:
        Transport(proxy=url)
    assert "secret" not in str(e.value) and "sec" not in str(e.value).replace("section", "")


def test_credentials() -> None:
    one, two, none = parse("http://us:p%40ss%2F@p"), parse("http://us:other@p"), parse("http://p")
    assert one.authorization == "Basic dXM6cEBzcy8="
    assert len({one.label, two.label, none.label}) == 3
    assert one is parse("http://us:p%40ss%2F@p") and one is none.authorized(one.authorization)
    for shown in (repr(one), one.label):
        assert "us" not in shown and "ss" not in shown
    assert (parse("socks5://us@p").username, parse("socks5://us@p").password) == (b"us", b"")
    assert parse("socks5://p").authorized("Basic x") is parse("socks5://p")


def test_a_proxy_is_forgotten_with_its_last_user() -> None:
    one = parse("http://rotating:1@p")
    label = one.label
    del one
    with pytest.raises(KeyError):
        labelled(label)
    assert parse("http://rotating:1@p").label != label


# -- NO_PROXY --

@pytest.mark.parametrize(("text", "url", "direct"), [
    ("", "http://a.example/", False),
    ("*", "http://a.example/", True),
    ("b.example, *", "http://a.example/", True),
    ("a.example", "http://a.example/", True),
    ("A.Example", "http://a.example./", True),
    ("a.example", "http://x.y.a.example/", True),
    ("a.example", "http://ba.example/", False),
    ("a.example", "http://example/", False),
    (".a.example", "http://x.a.example/", True),
    (".a.example", "http://a.example/", True),
    (".a.example", "http://ba.example/", False),
    ("*.a.example", "http://x.a.example/", True),
    ("*.a.example", "http://ba.example/", False),
    ("a.example.", "http://a.example/", True),
    ("example", "http://a.example/", True),
    ("a.example:8080", "http://a.example:8080/", True),
    ("a.example:8080", "http://x.a.example:8080/", True),
    ("a.example:8080", "http://a.example/", False),
    ("a.example:80", "http://a.example/", True),
    ("a.example:443", "https://a.example/", True),
    ("a.example:x", "http://a.example/", False),
    (".a.example:8080", "http://x.a.example:8080/", True),
    ("x.example,a.example", "http://a.example/", True),
    (" x.example  ,\ta.example ", "http://a.example/", True),
    ("x.example a.example", "http://a.example/", True),
    (",,", "http://a.example/", False),
    ("b\u00fccher.example", "http://b\u00fccher.example/", True),
    ("10.1.2.3", "http://10.1.2.3/", True),
    ("10.1.2.3", "http://10.1.2.30/", False),
    ("10.1.2.3", "http://a.10.1.2.3.example/", False),
    ("10.1.2.3:81", "http://10.1.2.3:81/", True),
    ("10.1.2.3:81", "http://10.1.2.3/", False),
    ("10.0.0.0/8", "http://10.1.2.3/", True),
    ("10.0.0.0/8", "http://11.1.2.3/", False),
    ("10.1.2.3/8", "http://10.9.9.9/", True),
    ("10.0.0.0/8", "http://10.example/", False),
    ("10.0.0.0/99", "http://10.1.2.3/", False),
    ("192.168.0.0/255.255.0.0", "http://192.168.3.4/", True),
    ("10.0.0.0/8", "http://[::ffff:10.1.2.3]/", True),
    ("::ffff:10.1.2.3", "http://10.1.2.3/", True),
    ("fd00::1", "http://[fd00::1]/", True),
    ("fd00::1", "http://[fd00:0:0::1]/", True),
    ("[fd00::1]", "http://[fd00::1]:81/", True),
    ("[fd00::1]:81", "http://[fd00::1]:81/", True),
    ("[fd00::1]:81", "http://[fd00::1]/", False),
    ("fd00::/8", "http://[fd12::1]/", True),
    ("fe80::/10", "http://[fe80::1%25eth0]/", True),
    ("fe80::1", "http://[fe80::1%25eth0]/", True),
    ("fd00::/8", "http://[fe80::1]/", False),
    ("fd00::/8", "http://10.1.2.3/", False),
    ("10.0.0.0/8,fd00::/8,.corp,*.svc:8443", "https://a.svc:8443/", True),
])
def test_no_proxy(text: str, url: str, direct: bool) -> None:
    target = URL(url)
    assert Bypass(text)(target.host, target.effective_port) is direct
    env = Environment.read({"all_proxy": "http://p", "no_proxy": text})
    assert env is not None
    assert env.choose(target) is env.choose(target)
    assert (env.choose(target) is None) is direct


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost.", "127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"])
def test_loopback_is_not_proxied_by_the_environment(host: str) -> None:
    env = Environment.read({"http_proxy": "http://p"})
    assert env is not None and env.choose(URL(f"http://{host}:81/")) is None
    with Client(proxy="http://p") as client:
        assert "via http://p:80" in client.build_request("GET", f"http://{host}:81/").wire().key


@pytest.mark.parametrize("host", ["127.0.0.1.example", "localhost.example", "my-localhost", "128.0.0.1", "[::2]"])
def test_what_is_not_loopback(host: str) -> None:
    env = Environment.read({"http_proxy": "http://p"})
    assert env is not None and env.choose(URL(f"http://{host}/")) is parse("http://p")


# -- the variables --

@pytest.mark.parametrize(("environ", "http", "https"), [
    ({}, None, None),
    ({"http_proxy": "http://l"}, "l", None),
    ({"HTTP_PROXY": "http://u"}, "u", None),
    ({"http_proxy": "http://l", "HTTP_PROXY": "http://u"}, "l", None),
    ({"https_proxy": "http://l", "HTTPS_PROXY": "http://u"}, None, "l"),
    ({"HTTPS_PROXY": "http://u"}, None, "u"),
    ({"https_proxy": "", "HTTPS_PROXY": "http://u"}, None, None),
    ({"all_proxy": "http://a"}, "a", "a"),
    ({"ALL_PROXY": "http://a"}, "a", "a"),
    ({"ALL_PROXY": "http://a", "all_proxy": "http://b"}, "b", "b"),
    ({"ALL_PROXY": "http://a", "https_proxy": "http://l"}, "a", "l"),
    ({"ALL_PROXY": "http://a", "HTTP_PROXY": "http://u", "REQUEST_METHOD": "GET"}, "a", "a"),
    ({"HTTP_PROXY": "http://u", "REQUEST_METHOD": "GET"}, None, None),
    ({"http_proxy": "http://l", "HTTP_PROXY": "http://u", "REQUEST_METHOD": "GET"}, "l", None),
    ({"HTTPS_PROXY": "http://u", "REQUEST_METHOD": "GET"}, None, "u"),
    ({"http_proxy": " http://l "}, "l", None),
    ({"http_proxy": "l:3128"}, "l", None),
    ({"ALL_PROXY": "http://a", "NO_PROXY": "a.example"}, None, None),
    ({"ALL_PROXY": "http://a", "NO_PROXY": "a.example", "no_proxy": ""}, "a", "a"),
    ({"ALL_PROXY": "http://a", "NO_PROXY": "", "no_proxy": "a.example"}, None, None),
])
def test_the_variables(environ: dict[str, str], http: str | None, https: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUEST_METHOD", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with Client(idle_conn_timeout=7) as client:
        for scheme, expected in (("http", http), ("https", https)):
            key = client.build_request("GET", f"{scheme}://a.example/").wire().key
            assert key.partition(" via ")[2].partition(":")[2].strip("/").partition(":")[0] == (expected or "")
    with Client(trust_env=False) as client:
        assert client.build_request("GET", "http://a.example/").wire().key == "http://a.example:80"


def test_a_variable_that_holds_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heard of where it would be used, and only there."""
    monkeypatch.setenv("HTTPS_PROXY", "socks4://user:secret@h")
    with Client(idle_conn_timeout=7) as client:
        client.build_request("GET", "http://a.example/").wire()
        with pytest.raises(ProxyError, match="the environment's HTTPS_PROXY cannot be used: a proxy is http, https, socks5 or socks5h") as e:
            client.get("https://a.example/")
    assert "secret" not in str(e.value)
    assert e.value.phase == "proxy" and e.value.request is not None


class Counted(dict[str, str]):
    """An environment that says how often it was asked, and cannot be walked."""

    asked = 0

    def get(self, name: str, default: Any = None) -> Any:
        self.asked += 1
        return super().get(name, default)

    def __iter__(self) -> Any:
        raise AssertionError("nobody walks the environment")

    items = keys = values = __iter__  # type: ignore[assignment]


def test_the_environment_is_looked_up_and_not_walked() -> None:
    environ = Counted({f"V{i}": "x" for i in range(20_000)})
    environ["ALL_PROXY"] = "http://p"
    env = Environment.read(environ)
    assert env is not None and environ.asked <= 10
    assert Environment.read({"ALL_PROXY": "http://p"}) is env        # one object for equal variables
    for i in range(5000):
        env.choose(URL(f"http://h{i}.example/"))
    assert len(env._memo) <= 1024
    assert environ.asked <= 10


def test_the_environment_is_read_when_the_client_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://a.example/"
    with Transport() as transport:
        before = Client(transport=transport)
        monkeypatch.setenv("HTTP_PROXY", "http://u:secret@p:1")
        after = Client(transport=transport)
        monkeypatch.setenv("HTTP_PROXY", "http://p:2")
        third = Client(transport=transport)
        assert before.build_request("GET", url).wire().key == "http://a.example:80"
        key = after.build_request("GET", url).wire().key
        assert key.startswith("http://a.example:80 via http://p:1#") and "secret" not in key
        assert third.build_request("GET", url).wire().key == "http://a.example:80 via http://p:2"
        monkeypatch.delenv("HTTP_PROXY")
        assert after.build_request("GET", url).wire().key == key
        # A pickle is the configuration: where it is opened, that process's environment is read.
        again = pickle.loads(pickle.dumps(after))
        assert again.build_request("GET", url).wire().key == "http://a.example:80"
        again.close()


def test_all_variables_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    with Transport() as transport:
        for whole in (True, False):
            if not whole:                            # an environment of another kind
                monkeypatch.setattr(os, "environ", dict(os.environ))
            for name in (*CA_VARIABLES, *proxies):
                assert Client(transport=transport)._trust is None
                with monkeypatch.context() as patch:
                    patch.setitem(os.environ, name, "http://p")
                    assert Client(transport=transport)._trust is not None, name
                    assert Client(transport=transport, trust_env=False)._trust is None


def test_with_nothing_to_say_nothing_is_kept() -> None:
    client = Client()
    assert client._trust is None
    assert client.build_request("GET", "http://a.example/").trust is None
    with Client(proxy=None) as direct:
        assert direct.build_request("GET", "http://a.example/").wire().key == "http://a.example:80"


# -- what goes with no proxy --

def test_a_filter_and_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    def every(ip: str, port: int) -> bool:
        return True

    for proxy in ("http://p", lambda url: None):
        with pytest.raises(ValueError, match="connect_filter and a proxy exclude each other"):
            Transport(connect_filter=every, proxy=proxy)
    monkeypatch.setenv("HTTP_PROXY", "http://p")
    with Client(connect_filter=every) as client:
        with pytest.raises(ValueError, match="connect_filter and a proxy exclude each other"):
            client.get("http://a.example/")
        assert client.build_request("GET", "https://a.example/").wire().key == "https://a.example:443"       # takes none
    with Client(connect_filter=every, proxy=None) as client:
        assert client.build_request("GET", "http://a.example/").wire().key == "http://a.example:80"


def test_a_unix_socket_is_not_proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://p")
    with Client(uds="/s") as client:
        assert client.build_request("GET", "http://a.example/").wire().key == "http://a.example:80"
    with pytest.raises(ValueError, match="uds and a proxy"):
        Transport(uds="/s", proxy="http://p")
    with Client(proxy="http://p") as client:         # nor is one that a URL names
        assert " via " not in client.build_request("GET", "http+unix://%2Frun%2Fs/x").wire().key


# -- a callable --

def test_a_callable_is_asked_each_time() -> None:
    asked: list[URL] = []

    def choose(url: URL) -> str | None:
        asked.append(url)
        return None if url.host == "direct.example" else f"http://p{len(asked)}:1"

    with Client(proxy=choose) as client:
        assert client.build_request("GET", "http://a.example/x").wire().key == "http://a.example:80 via http://p1:1"
        assert client.build_request("GET", "http://a.example/x").wire().key == "http://a.example:80 via http://p2:1"
        assert client.build_request("GET", "http://direct.example/").wire().key == "http://direct.example:80"
    assert asked == ["http://a.example/x"] * 2 + ["http://direct.example/"]
    assert isinstance(asked[0], URL)


@pytest.mark.parametrize(("said", "kind"), [("ftp://p", ValueError), (7, TypeError)])
def test_a_callable_that_says_no_proxy(said: Any, kind: type[Exception]) -> None:
    with Client(proxy=lambda url: said) as client, pytest.raises(kind, match="a proxy is"):
        client.get("http://a.example/")


# -- what is sent --

def route(rule: Rule, url: str, fields: list[tuple[str, str | bytes]]) -> tuple[str, str]:
    return Surroundings("", None, rule).route(Request("GET", url), fields)


def test_absolute_form_and_fields() -> None:
    rule = Rule("http://us:pw@p:1", {"X-Via": "us", "X-Mine": "theirs"}, "")
    fields: list[tuple[str, str | bytes]] = [("X-Mine", "mine")]
    key, target = route(rule, "http://a.example:81/x?y#z", fields)
    assert target == "http://a.example:81/x?y"
    assert fields == [("X-Mine", "mine"), ("X-Via", "us"), ("Proxy-Authorization", "Basic dXM6cHc=")]
    assert key.startswith("http://a.example:81 via http://p:1#")
    for url, other in (("https://a.example/x", "http://us:pw@p:1"), ("http://a.example/x", "socks5://us:pw@p:1")):
        fields = [("X-Mine", "mine")]
        key, target = route(Rule(other, {"X-Via": "us"}, ""), url, fields)
        assert (target, fields) == ("/x", [("X-Mine", "mine")])


def test_a_zone_stays_here() -> None:
    assert route(Rule("http://p", None, ""), "http://[fe80::1%25eth0]:81/x", []) == ("http://[fe80::1%eth0]:81 via http://p:80", "http://[fe80::1]:81/x")


@pytest.mark.parametrize("url", ["http://a.example/", "https://a.example/"])
def test_a_requests_own_credentials_for_the_proxy(url: str) -> None:
    """They count before proxy_headers, and those before the URL's; through a tunnel none of them goes."""
    keys = set()
    for mine, option, expected in (("Mine", "Fields", "Mine"), ("", "Fields", "Fields"), ("", "", "Basic dXM6cHc=")):
        rule = Rule("http://us:pw@p:1", {"Proxy-Authorization": option} if option else None, "")
        fields: list[tuple[str, str | bytes]] = [("proxy-authorization", mine)] if mine else []
        told = Surroundings("", None, rule)
        request = Request("GET", url)
        key, _ = told.route(request, fields)
        keys.add(key)
        assert labelled(key.partition(" via ")[2]).authorization == expected
        assert fields == ([] if url.startswith("https") else [("Proxy-Authorization", expected)])
        assert told.varies(URL(url), [("Proxy-Authorization", "x")]) and not told.varies(URL(url), [])
    assert len(keys) == 3                          # no two credentials share a connection


def test_a_request_without_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """`round_trip` heeds its transport's proxy, whoever built the request, and no environment."""
    monkeypatch.setenv("HTTP_PROXY", "http://env:1")
    request = Request("GET", "http://a.example/")
    with Transport() as plain, Transport(proxy="http://mine:1") as mine, Client(transport=plain) as client:
        def key(transport: Transport, request: Request) -> str:
            return str(transport._told(request).wire().key)

        assert key(plain, request) == "http://a.example:80"
        assert key(mine, request) == "http://a.example:80 via http://mine:1"
        built = client.build_request("GET", "http://a.example/")
        assert key(plain, built) == "http://a.example:80 via http://env:1"
        assert key(mine, built) == "http://a.example:80 via http://mine:1"
        with Transport(proxy=None) as none:
            assert key(none, built) == "http://a.example:80"
        assert built.trust is client._trust


def test_each_mount_has_its_transports_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://env:1")
    with Transport(proxy="http://mine:1") as mine, Transport(proxy=None) as none, Transport() as env:
        client = Client(transport=none, mounts={"all://a.example": mine, "all://b.example": env})
        for host, key in (("a", " via http://mine:1"), ("b", " via http://env:1"), ("c", "")):
            request = client.build_request("GET", f"http://{host}.example/")
            request.trust = client._route_of(request.url).trust
            assert request.wire().key == f"http://{host}.example:80{key}"


def test_no_secret_shows() -> None:
    """Nor in a pickled error."""
    secret = "open-sesame"
    with Client(proxy=f"http://{secret}:{secret}@127.0.0.1:9", proxy_headers={"X-Token": secret}) as client:
        for url in ("http://a.example/", "https://a.example/"):
            with pytest.raises(ProxyError) as e:
                client.get(url)
            assert isinstance(e.value, pooledhttp.ConnectError)
            back = pickle.loads(pickle.dumps(e.value))
            assert (str(back), back.phase, back.errno) == (str(e.value), "connect", e.value.errno)
            told = [repr(e.value), str(e.value), repr(e.value.request), repr(e.value.request.headers.multi_items())]
            for text in (*told, str(client.transport.stats()), repr(client.transport), repr(client), pickle.dumps(e.value).decode("latin-1")):
                assert secret not in text and "b3Blbi1" not in text
        spec = client.transport.dial_spec(*client.build_request("GET", "https://a.example/").wire()[:3])
        assert secret not in repr(spec) and "b3Blbi1" not in repr(spec)
    assert "127.0.0.1:9" in str(e.value)


def test_a_client_with_a_proxy_costs_the_others_nothing() -> None:
    assert os.environ.get("HTTP_PROXY") is None
    code = ("import sys, pooledhttp; pooledhttp.Client(); pooledhttp.Client(max_idle_conns=3)\n"
            "assert 'pooledhttp.proxies' not in sys.modules and 'ipaddress' not in sys.modules and 'base64' not in sys.modules\n")
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", code], timeout=30, check=True)
