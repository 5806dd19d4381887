"""URLs: RFC 3986, IDNA, and what must never get through."""
from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooledhttp import URL, InvalidURL, LocalProtocolError, UnsupportedProtocol
from pooledhttp.url import encode_form, encode_params

NORMAL = [
    ("http://example.com", "http://example.com/"),
    ("HTTP://EXAMPLE.com/Path", "http://example.com/Path"),
    ("http://example.com:80/", "http://example.com/"),
    ("https://example.com:443", "https://example.com/"),
    ("https://example.com:80/", "https://example.com:80/"),
    ("http://example.com:/", "http://example.com/"),
    ("http://example.com:0080/", "http://example.com/"),
    ("http://example.com?x=1", "http://example.com/?x=1"),
    ("http://example.com#top", "http://example.com/#top"),
    ("http://example.com/?", "http://example.com/?"),
    ("  http://example.com/ ", "http://example.com/"),
    ("http://h/a b", "http://h/a%20b"),
    ("http://h/ü?ü#ü", "http://h/%C3%BC?%C3%BC#%C3%BC"),
    ("http://h/%7e%2f%zz%", "http://h/%7e%2f%25zz%25"),
    ("http://h/100%", "http://h/100%25"),
    ("http://h/a%4", "http://h/a%254"),
    ("http://h/[x]{y}|\\^`\"<>", "http://h/%5Bx%5D%7By%7D%7C%5C%5E%60%22%3C%3E"),
    ("http://h/?a=b&c=d/?:@!$'()*+,;", "http://h/?a=b&c=d/?:@!$'()*+,;"),
    ("http://h/?q=http://other/", "http://h/?q=http://other/"),
    ("http://h/a/./b/../c", "http://h/a/c"),
    ("http://h/../../a", "http://h/a"),
    ("http://h/a/..", "http://h/"),
    ("http://h/a/.", "http://h/a/"),
    ("http://h/a//../b", "http://h/a/b"),
    ("http://h/.a/..b/...", "http://h/.a/..b/..."),
    ("http://h/%2e%2e/a", "http://h/%2e%2e/a"),
    ("http://[::1]/", "http://[::1]/"),
    ("http://[0:0:0:0:0:0:0:1]:8080/", "http://[::1]:8080/"),
    ("http://[2001:DB8::A]/", "http://[2001:db8::a]/"),
    ("http://127.0.0.1:8000/x", "http://127.0.0.1:8000/x"),
    ("http://bücher.example/", "http://xn--bcher-kva.example/"),
    ("http://BÜCHER.example/", "http://xn--bcher-kva.example/"),
    ("http://例え。テスト/", "http://xn--r8jz45g.xn--zckzah/"),
    ("http://my_service.svc.local./", "http://my_service.svc.local./"),
    ("http://user:pa:ss@h/", "http://user:pa:ss@h/"),
    ("http://us er:p@ss@h/", "http://us%20er:p%40ss@h/"),
    ("http://@h/", "http://h/"),
]


@pytest.mark.parametrize(("given_", "wanted"), NORMAL)
def test_normal_form(given_: str, wanted: str) -> None:
    assert URL(given_) == wanted
    assert str(URL(wanted)) == wanted


INVALID = ["", "example.com", "/path", "//h/", "http:", "http:/h", "http://", "http:///x", "http://:80/", "http://h:x/", "http://h:65536/",
           "http://h:0/", "http://h:-1/", "http://h:1:2/", "http://::1/", "http://[::1/", "http://[::1]x/", "http://[g::1]/", "http://[1.2.3.4]/",
           "http://a b/", "http://a..b/", "http://.a/", "http://a%2fb/", "http://evil\\@good/", "http://good\\.evil/",
           "http://" + "a" * 64 + ".example/", "http://a<b/", "http://\u2100.example/", "http://-\u00fc-/", "http://h/\ud800", "http://\ud800/"]


@pytest.mark.parametrize("text", INVALID)
def test_invalid(text: str) -> None:
    with pytest.raises(InvalidURL) as e:
        URL(text)
    assert isinstance(e.value, ValueError)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("char", ["\r", "\n", "\0", "\t", "\x7f", "\x1f"])
@pytest.mark.parametrize("template", ["http://h/a{}b", "http://h{}x/", "http://h/?q={}", "{}http://h/", "http://h/{}", "http://u{}@h/", "http://h/#{}"])
def test_control_characters_are_refused_as_both_kinds(template: str, char: str) -> None:
    with pytest.raises(LocalProtocolError) as e:
        URL(template.format(char))
    assert isinstance(e.value, InvalidURL)
    assert char not in str(e.value)
    assert type(pickle.loads(pickle.dumps(e.value))) is type(e.value)


@pytest.mark.parametrize("text", ["mailto:x@y", "localhost:8080/x", "file:/etc/passwd", "javascript:alert(1)"])
def test_no_scheme_of_ours(text: str) -> None:
    with pytest.raises(UnsupportedProtocol):
        URL(text)


def test_the_parts() -> None:
    url = URL("https://us%20er:p%C3%A4ss@Example.com:8443/a/b?x=1&y=2#frag")
    assert (url.scheme, url.host, url.port, url.path, url.query, url.fragment) == ("https", "example.com", 8443, "/a/b", "x=1&y=2", "frag")
    assert (url.userinfo, url.username, url.password) == ("us%20er:p%C3%A4ss", "us er", "päss")
    assert (url.authority, url.target, url.origin) == ("example.com:8443", "/a/b?x=1&y=2", "https://example.com:8443")
    assert url.key == "https://example.com:8443"
    assert url.redacted == "https://example.com:8443/a/b"
    assert url.without_userinfo() == "https://example.com:8443/a/b?x=1&y=2#frag"
    plain = URL("http://[::1]/")
    assert (plain.host, plain.port, plain.effective_port, plain.authority, plain.key) == ("::1", None, 80, "[::1]", "http://[::1]:80")
    assert plain.without_userinfo() is plain
    assert URL("http://u%ff@h/").username == "uÿ"
    with pytest.raises(UnsupportedProtocol):
        URL("ftp://h/").key  # noqa: B018


def test_secrets_stay_out_of_repr_and_messages() -> None:
    url = URL("http://user:hunter2@h/p?token=1")
    assert "hunter2" not in repr(url)
    for text in ("http://user:hunter2@h:99999/p?token=hunter2", "http://user:hunter2@/", "//user:hunter2@h/", "user:hunter2@h",
                 "http://user:hunter2@h/\n"):
        with pytest.raises((InvalidURL, UnsupportedProtocol)) as e:
            URL(text)
        assert "hunter2" not in str(e.value), text


def test_is_a_str_and_pickles() -> None:
    url = URL("HTTP://u:p@h:8080/x?y#z")
    assert isinstance(url, str)
    assert {url: 1}["http://u:p@h:8080/x?y#z"] == 1
    again = pickle.loads(pickle.dumps(url))
    assert type(again) is URL
    assert again == url
    assert again.port == 8080
    assert URL(url) is url
    with pytest.raises(TypeError):
        URL(b"http://h/")  # type: ignore[arg-type]


BASE = "http://a/b/c/d;p?q"
# RFC 3986 section 5.4.1 and 5.4.2, where the reference is one for http.
JOINS = {"g": "http://a/b/c/g", "./g": "http://a/b/c/g", "g/": "http://a/b/c/g/", "/g": "http://a/g", "//g": "http://g/",
         "?y": "http://a/b/c/d;p?y", "g?y": "http://a/b/c/g?y", "#s": "http://a/b/c/d;p?q#s", "g#s": "http://a/b/c/g#s", ";x": "http://a/b/c/;x",
         "": "http://a/b/c/d;p?q", ".": "http://a/b/c/", "..": "http://a/b/", "../g": "http://a/b/g", "../..": "http://a/", "../../g": "http://a/g",
         "../../../g": "http://a/g", "/./g": "http://a/g", "/../g": "http://a/g", "g.": "http://a/b/c/g.", "..g": "http://a/b/c/..g",
         "./../g": "http://a/b/g", "g;x=1/../y": "http://a/b/c/y", "g?y/../x": "http://a/b/c/g?y/../x", "https://z/x": "https://z/x"}


@pytest.mark.parametrize(("reference", "wanted"), JOINS.items())
def test_join(reference: str, wanted: str) -> None:
    assert URL(BASE).join(reference) == wanted


def test_join_keeps_the_userinfo_on_the_same_authority_only() -> None:
    base = URL("http://u:p@a/x")
    assert base.join("/y").username == "u"
    assert base.join("//b/y").username == ""


PARAMS = [
    ({"a": 1, "b": None, "c": "x y"}, "a=1&c=x%20y"),
    ([("a", 1), ("a", 2)], "a=1&a=2"),
    ({"a": [1, None, "2"]}, "a=1&a=2"),
    ({"t": True, "f": False}, "t=true&f=false"),
    ({"ü": "&=+%/?#"}, "%C3%BC=%26%3D%2B%25%2F%3F%23"),
    ({"b": b"\xff"}, "b=%FF"),
    ("?raw=1 2&x=%20", "raw=1%202&x=%20"),
    (b"raw=1", "raw=1"),
    ({}, ""),
    ({"a": 1.5}, "a=1.5"),
]


@pytest.mark.parametrize(("params", "wanted"), PARAMS)
def test_params(params: object, wanted: str) -> None:
    assert encode_params(params) == wanted  # type: ignore[arg-type]
    assert URL("http://h/p#f", params).target == ("/p?" + wanted if wanted else "/p")  # type: ignore[arg-type]


@pytest.mark.parametrize(("url", "wanted"), [
    ("http://h/?a=1", "a=1&b=2"), ("http://h/?", "b=2"), ("http://h/?a=1&", "a=1&b=2"), ("http://h/", "b=2")])
def test_params_are_appended(url: str, wanted: str) -> None:
    assert URL(url, {"b": 2}).query == wanted


@pytest.mark.parametrize("params", [["ab"], [("a", 1, 2)], ["x=1"]])
def test_params_of_a_wrong_shape(params: object) -> None:
    with pytest.raises(TypeError):
        encode_params(params)  # type: ignore[arg-type]


def test_a_form_is_urlencoded_with_plus() -> None:
    assert encode_form({"a b": "c+d", "e": ["~", "*-._"], "n": None}) == b"a+b=c%2Bd&e=%7E&e=*-._"


@given(st.text(max_size=40), st.text(max_size=40))
def test_normalising_again_changes_nothing(path: str, query: str) -> None:
    try:
        url = URL("http://example.com/" + path + "?" + query)
    except InvalidURL:
        return
    assert URL(str(url)) == url
    assert url.target.isascii()
    assert not set(url.target) & set(' "<>\\^`{|}#\r\n\t\0\x7f')
    assert url.host == "example.com"


@given(st.text(max_size=30))
def test_whatever_stands_there_the_host_is_safe(text: str) -> None:
    try:
        url = URL("http://" + text)
    except (InvalidURL, UnsupportedProtocol):
        return
    assert url.host
    assert url.host.isascii()
    assert not set(url.authority) & set(" /?#@\\\r\n\t\0%")
    assert URL(str(url)) == url


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(TEXT, TEXT), max_size=5))
def test_params_come_back(pairs: list[tuple[str, str]]) -> None:
    from urllib.parse import parse_qsl

    assert parse_qsl(encode_params(pairs), keep_blank_values=True) == pairs
    assert parse_qsl(encode_form(pairs).decode(), keep_blank_values=True) == pairs
