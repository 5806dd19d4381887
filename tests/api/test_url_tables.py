"""URLs of real life, row by row: what is taken, what it becomes, and what is refused. docs/urls.md says the rules."""
from __future__ import annotations

import os
from typing import Any

import pytest

from pooledhttp import URL, InvalidURL, LocalProtocolError, Request, UnsupportedProtocol
from pooledhttp.url import encode_form

TARGETS = [
    # spaces, tabs apart (they are refused)
    ("http://h/a b?c d#e f", "/a%20b?c%20d"), ("http://h/%20", "/%20"), ("http://h/a+b?c+d", "/a+b?c+d"), ("http://h/\u00a0", "/%C2%A0"),
    ("http://h/\u3000x", "/%E3%80%80x"), ("   http://h/x   ", "/x"),
    # percent: valid escapes stay as they are, in their case; a lone one is a character
    ("http://h/%41%zz%4%", "/%41%25zz%254%25"), ("http://h/%e4?%C3%A4", "/%e4?%C3%A4"), ("http://h/%2F%2f", "/%2F%2f"), ("http://h/%25", "/%25"),
    ("http://h/%2525", "/%2525"), ("http://h/%0d%0a?%00", "/%0d%0a?%00"), ("http://h/%uABCD", "/%25uABCD"), ("http://h/%EF%BC%85", "/%EF%BC%85"),
    # what RFC 3986 has no room for
    ("http://h/ä?ä", "/%C3%A4?%C3%A4"), ("http://h/😀", "/%F0%9F%98%80"), ("http://h/e\u0301", "/e%CC%81"),
    ("http://h/<>\"`{}|\\^", "/%3C%3E%22%60%7B%7D%7C%5C%5E"),
    ("http://h/a[0]?b[]=1", "/a%5B0%5D?b%5B%5D=1"), ("http://h/\\..\\x", "/%5C..%5Cx"), ("http://h/\u2028\u0085", "/%E2%80%A8%C2%85"),
    # what it has
    ("http://h/!$&'()*+,;=:@-._~", "/!$&'()*+,;=:@-._~"), ("http://h/?!$&'()*+,;=:@-._~/?", "/?!$&'()*+,;=:@-._~/?"), ("http://h/a;v=1/b,2", "/a;v=1/b,2"),
    ("http://h/http://other/x", "/http://other/x"), ("http://h/@b", "/@b"), ("http://h//x", "//x"), ("http://h/x//", "/x//"), ("http://h/a:80/", "/a:80/"),
    # dots: segments of them go (RFC 3986 section 5.2.4), whoever wrote them; escaped ones are no dots
    ("http://h/.", "/"), ("http://h/..", "/"), ("http://h/a/./b/.", "/a/b/"), ("http://h/a/b/..", "/a/"), ("http://h/a/b/../", "/a/"),
    ("http://h/../../../x", "/x"),
    ("http://h/a//..", "/a/"), ("http://h/a/..;/b", "/a/..;/b"), ("http://h/...", "/..."), ("http://h/.well-known/x", "/.well-known/x"),
    ("http://h/a..b", "/a..b"),
    ("http://h/a/%2e%2e/b", "/a/%2e%2e/b"), ("http://h/a/.%2E/b", "/a/.%2E/b"), ("http://h/?../x", "/?../x"), ("http://h/a?b/../c", "/a?b/../c"),
    # the query
    ("http://h?", "/?"), ("http://h/?", "/?"), ("http://h/??", "/??"), ("http://h/?&&", "/?&&"), ("http://h/?a", "/?a"), ("http://h/?a=", "/?a="),
    ("http://h/?=b", "/?=b"), ("http://h/?a=b=c", "/?a=b=c"), ("http://h/?a=b&a=b", "/?a=b&a=b"), ("http://h?x=http://o?y", "/?x=http://o?y"),
    # the fragment stays at home
    ("http://h/#", "/"), ("http://h/#/?x", "/"), ("http://h/?#x", "/?"), ("http://h/?a#?b", "/?a"), ("http://h#a#b", "/"), ("http://h/#%zz", "/"),
    ("http://h/" + "x" * 100_000 + "?" + "y" * 100_000, "/" + "x" * 100_000 + "?" + "y" * 100_000),
]


@pytest.mark.parametrize(("given", "target"), TARGETS, ids=lambda t: ascii(t[:40]))
def test_what_is_sent(given: str, target: str) -> None:
    url = URL(given)
    assert url.target == target
    assert URL(str(url)) == url
    assert Request("GET", given).wire().target == target.encode("ascii")


# (URL, host to dial, port, Host)
HOSTS: list[tuple[str, str, int, str]] = [
    ("HTTP://ExAmPlE.CoM/", "example.com", 80, "example.com"), ("https://h", "h", 443, "h"), ("http://localhost", "localhost", 80, "localhost"),
    # ports
    ("http://h:80", "h", 80, "h"), ("https://h:443", "h", 443, "h"), ("http://h:443", "h", 443, "h:443"), ("https://h:80", "h", 80, "h:80"),
    ("http://h:", "h", 80, "h"), ("https://h:/x", "h", 443, "h"), ("http://h:1", "h", 1, "h:1"), ("http://h:65535", "h", 65535, "h:65535"),
    ("http://h:00008080", "h", 8080, "h:8080"), ("http://h:0080", "h", 80, "h"), ("http://h:" + "0" * 50 + "81", "h", 81, "h:81"),
    # names
    ("http://h./", "h.", 80, "h."), ("http://a_b.c-d.e/", "a_b.c-d.e", 80, "a_b.c-d.e"), ("http://-a-.b/", "-a-.b", 80, "-a-.b"),
    ("http://a~b!$&'()*+,;=/", "a~b!$&'()*+,;=", 80, "a~b!$&'()*+,;="),
    ("http://" + "a" * 63 + ".b/", "a" * 63 + ".b", 80, "a" * 63 + ".b"),
    ("http://xn--bcher-kva.example/", "xn--bcher-kva.example", 80, "xn--bcher-kva.example"),
    # IDNA 2008 with the mapping of UTS 46, non-transitional
    ("http://BÜCHER.example/", "xn--bcher-kva.example", 80, "xn--bcher-kva.example"), ("http://faß.de/", "xn--fa-hia.de", 80, "xn--fa-hia.de"),
    ("http://例え。テスト/", "xn--r8jz45g.xn--zckzah", 80, "xn--r8jz45g.xn--zckzah"), ("http://ｅｘａｍｐｌｅ．com/", "example.com", 80, "example.com"),
    ("http://Ⅷ.example:81/", "viii.example", 81, "viii.example:81"), ("http://bu\u0308cher.example/", "xn--bcher-kva.example", 80, "xn--bcher-kva.example"),
    ("http://so\u00adft.example/", "soft.example", 80, "soft.example"),
    ("http://παράδειγμα.ελ/", "xn--hxajbheg2az3al.xn--qxam", 80, "xn--hxajbheg2az3al.xn--qxam"),
    # IPv4, and what libc takes for it: it is dialed as libc says, and a connect_filter sees the address
    ("http://127.0.0.1/", "127.0.0.1", 80, "127.0.0.1"), ("http://127.1/", "127.1", 80, "127.1"), ("http://2130706433/", "2130706433", 80, "2130706433"),
    ("http://0x7F.1/", "0x7f.1", 80, "0x7f.1"), ("http://0177.0.0.1/", "0177.0.0.1", 80, "0177.0.0.1"), ("http://0/", "0", 80, "0"),
    ("http://256.1.1.1/", "256.1.1.1", 80, "256.1.1.1"),
    ("http://１２７.0.0.1/", "127.0.0.1", 80, "127.0.0.1"), ("http://1.2.3.4./", "1.2.3.4.", 80, "1.2.3.4."),
    # IPv6, in its shortest form
    ("http://[::1]/", "::1", 80, "[::1]"), ("http://[0:0:0:0:0:0:0:1]:81/", "::1", 81, "[::1]:81"),
    ("http://[2001:DB8:0:0:1:0:0:1]/", "2001:db8::1:0:0:1", 80, "[2001:db8::1:0:0:1]"),
    ("http://[::]/", "::", 80, "[::]"), ("http://[::ffff:127.0.0.1]/", "::ffff:127.0.0.1", 80, "[::ffff:127.0.0.1]"),
    ("http://[::FFFF:7f00:1]/", "::ffff:127.0.0.1", 80, "[::ffff:127.0.0.1]"),
    # with a zone (RFC 6874), which is of this machine only and is not sent
    ("http://[fe80::1%25eth0]/", "fe80::1%eth0", 80, "[fe80::1]"), ("http://[FE80::1%25Eth0]:8080/", "fe80::1%Eth0", 8080, "[fe80::1]:8080"),
    ("http://[fe80::1%eth0]/", "fe80::1%eth0", 80, "[fe80::1]"), ("http://[fe80::1%25br-1.2_~]/", "fe80::1%br-1.2_~", 80, "[fe80::1]"),
    ("https://[fe80::1%252]:443/", "fe80::1%2", 443, "[fe80::1]"), ("http://[fe80::1%2525]/", "fe80::1%25", 80, "[fe80::1]"),
]


@pytest.mark.parametrize(("given", "host", "port", "field"), HOSTS, ids=lambda v: ascii(v)[:40])
def test_where_it_goes(given: str, host: str, port: int, field: str) -> None:
    wire = Request("GET", given).wire()
    assert (wire.host, wire.port, wire.authority) == (host, port, field.encode())
    url = URL(given)
    assert (url.host, url.effective_port) == (host, port)
    assert URL(str(url)) == url
    assert url.key == f"{url.scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    assert URL(str(url)).key == url.key


REFUSED = [
    "http://h:0/", "http://h:65536/", "http://h:99999999999999999999/", "http://h:-1/", "http://h:+1/", "http://h: 80/", "http://h:８０/", "http://h:80:80/",
    "http://h:http/", "http://h:0x50/", "http://h:8 0/", "http://u:p@h:x/",
    "http://", "http:///x", "http://?", "http://#", "http://:80", "http://@/", "http://u@/", "http://u:p@:80/", "http:h", "http:/h/x", "https:\\\\h\\x",
    "http", "//h/x", "h/x", "",
    " ", "/x", "?x", "1http://h/", "ht tp://h/", ":http://h", "http\u00a0://h/",
    "http://a b/", "http://a\\b/", "http://h\\@other/", "http://a%2fb/", "http://ex%61mple.com/", "http://%6c/", "http://a%/", "http://a<b/", "http://a\"b/",
    "http://a|b/", "http://a^b/",
    "http://a`b/", "http://a{b}/", "http://h]/", "http://a[b]/",
    "http://.", "http://..", "http://.h/", "http://h../", "http://a..b/", "http://" + "a" * 64 + "/", "http://" + "abc." * 64 + "d/",
    "http://\u2100.example/", "http://a\u2025b/", "http://\u200b/", "http://-ü-/", "http://😀.example/", "http://xn--a.ü/", "http://\ufdd0/",
    "http://[]/", "http://[::1", "http://::1/", "http://[::1]x/", "http://[::1]]/", "http://[[::1]]/", "http://[1]/", "http://[127.0.0.1]/", "http://[::g]/",
    "http://[:::1]/",
    "http://[1:2:3:4:5:6:7:8:9]/", "http://[::ffff:1.2.3.256]/", "http://[v1.x]/", "http://[ ::1 ]/",
    "http://[fe80::1%]/", "http://[fe80::1%25]/", "http://[fe80::1%25a/b]/", "http://[fe80::1%25a%2Fb]/", "http://[fe80::1%25a b]/", "http://[fe80::1%25ä]/",
    "http://[fe80::1%eth0%1]/",
    "http://[%25eth0]/", "http://h%25eth0/",
]


@pytest.mark.parametrize("given", REFUSED, ids=lambda t: ascii(t[:30]))
def test_what_is_no_url(given: str) -> None:
    with pytest.raises(InvalidURL):
        URL(given)


@pytest.mark.parametrize("given", ["ftp://h/", "ws://h/", "file:///etc/passwd", "data:text/plain,x", "about:blank", "https+unix://%2Fx/", "http2://h/"])
def test_schemes_that_we_do_not_speak(given: str) -> None:
    with pytest.raises(UnsupportedProtocol):
        Request("GET", given)


@pytest.mark.parametrize("char", [*map(chr, range(32)), "\x7f"], ids=ascii)
def test_control_characters_are_refused_everywhere_and_never_dropped(char: str) -> None:
    for given in (f"{char}http://h/", f"ht{char}tp://h/", f"http:/{char}/h/", f"http://h{char}/", f"http://u{char}@h/", f"http://h:8{char}0/",
                  f"http://h/{char}",
                  f"http://h/?{char}", f"http://h/#{char}", f"http://h/x{char}"):
        with pytest.raises(LocalProtocolError):
            URL(given)
        with pytest.raises(LocalProtocolError):
            URL("http://h/").join(f"x{char}y")


USERINFO = [
    ("http://u@h/", "u", ""), ("http://u:@h/", "u", ""), ("http://:p@h/", "", "p"), ("http://u:p@h/", "u", "p"), ("http://u:p:q@h/", "u", "p:q"),
    ("http://u@v@h/", "u@v", ""), ("http://u:p@q@h/", "u", "p@q"), ("http://%75:%70%3A%40@h/", "u", "p:@"), ("http://u%20v:p%2Fq@h/", "u v", "p/q"),
    ("http://ü:ä@h/", "ü", "ä"), ("http://u:%FF@h/", "u", "\xff"), ("http://u:50%@h/", "u", "50%"), ("http://u;a=b&c:p!$'()*+,@h/", "u;a=b&c", "p!$'()*+,"),
    ("http://u:[p]@h/", "u", "[p]"), ("http://@h/", "", ""),
]


@pytest.mark.parametrize(("given", "user", "password"), USERINFO)
def test_userinfo(given: str, user: str, password: str) -> None:
    url = URL(given)
    assert (url.username, url.password, url.host) == (user, password, "h")
    assert URL(str(url)) == url
    assert Request("GET", given).url == url.without_userinfo() == "http://h/"


def test_a_slash_or_a_question_mark_ends_the_authority() -> None:
    # So that nobody is led elsewhere by what looks like a host.
    for given in ("http://good/@evil/", "http://good?@evil/", "http://good#@evil/", "http://good/:80@evil/"):
        assert URL(given).host == "good"


# --- references, RFC 3986 section 5.4, and what browsers are given ---

BASE = "http://a/b/c/d;p?q"
REFERENCES = [
    # 5.4.1
    ("g", "http://a/b/c/g"), ("./g", "http://a/b/c/g"), ("g/", "http://a/b/c/g/"), ("/g", "http://a/g"), ("//g", "http://g/"), ("?y", "http://a/b/c/d;p?y"),
    ("g?y", "http://a/b/c/g?y"), ("#s", "http://a/b/c/d;p?q#s"), ("g#s", "http://a/b/c/g#s"), ("g?y#s", "http://a/b/c/g?y#s"), (";x", "http://a/b/c/;x"),
    ("g;x", "http://a/b/c/g;x"), ("g;x?y#s", "http://a/b/c/g;x?y#s"), ("", "http://a/b/c/d;p?q"), (".", "http://a/b/c/"), ("./", "http://a/b/c/"),
    ("..", "http://a/b/"), ("../", "http://a/b/"), ("../g", "http://a/b/g"), ("../..", "http://a/"), ("../../", "http://a/"), ("../../g", "http://a/g"),
    # 5.4.2
    ("../../../g", "http://a/g"), ("../../../../g", "http://a/g"), ("/./g", "http://a/g"), ("/../g", "http://a/g"), ("g.", "http://a/b/c/g."),
    (".g", "http://a/b/c/.g"), ("g..", "http://a/b/c/g.."), ("..g", "http://a/b/c/..g"), ("./../g", "http://a/b/g"), ("./g/.", "http://a/b/c/g/"),
    ("g/./h", "http://a/b/c/g/h"), ("g/../h", "http://a/b/c/h"), ("g;x=1/./y", "http://a/b/c/g;x=1/y"), ("g;x=1/../y", "http://a/b/c/y"),
    ("g?y/./x", "http://a/b/c/g?y/./x"), ("g?y/../x", "http://a/b/c/g?y/../x"), ("g#s/./x", "http://a/b/c/g#s/./x"), ("g#s/../x", "http://a/b/c/g#s/../x"),
    # of real life
    ("https://z/x", "https://z/x"), ("HTTPS://Z", "https://z/"), (" /x ", "http://a/x"), (" https://z/ ", "https://z/"), ("?", "http://a/b/c/d;p?"),
    ("#", "http://a/b/c/d;p?q"),
    ("//g:81/x?y#z", "http://g:81/x?y#z"), ("//u:p@g/", "http://u:p@g/"), ("/a b/ü", "http://a/a%20b/%C3%BC"), ("/%zz", "http://a/%25zz"), ("g:80", None),
    ("./g:80", "http://a/b/c/g:80"), ("/g:80", "http://a/g:80"), ("\\\\evil\\x", "http://a/b/c/%5C%5Cevil%5Cx"), ("/\\evil", "http://a/%5Cevil"),
    ("\\/evil", "http://a/b/c/%5C/evil"),
    ("/x//../y", "http://a/x/y"), ("//[::1]:80/", "http://[::1]/"), ("http:g", None), ("g:h", None), ("///g", None), ("//", None), ("//:80", None),
    ("http://", None),
    ("//g\\@h/", None), ("javascript:alert(1)", None), ("http+unix://%2Fx/", "http+unix://%2fx/"),
]


@pytest.mark.parametrize(("reference", "wanted"), REFERENCES)
def test_references(reference: str, wanted: str | None) -> None:
    if wanted is None:
        with pytest.raises((InvalidURL, UnsupportedProtocol)):
            URL(BASE).join(reference)
    else:
        assert URL(BASE).join(reference) == wanted


@pytest.mark.parametrize(("base", "reference", "wanted"), [
    ("http://a", "g", "http://a/g"), ("http://a?q", "g", "http://a/g"), ("http://a?q", "?r", "http://a/?r"), ("http://a/b#s", "", "http://a/b"),
    ("http://a/b#s", "g", "http://a/g"),
    ("http://u:p@a:81/b/", "c", "http://u:p@a:81/b/c"), ("http://u:p@a/b", "//a/c", "http://a/c"), ("https://a/b", "//c/d", "https://c/d"),
    ("http://[fe80::1%25lo]:81/b", "/c", "http://[fe80::1%25lo]:81/c"), ("http+unix://%2Frun%2Fx/b", "/c?d", "http+unix://%2frun%2fx/c?d"),
    ("http+unix://%2Frun%2Fx/b/", "c", "http+unix://%2frun%2fx/b/c"), ("http://a/%2e%2e/b", "c", "http://a/%2e%2e/c")])
def test_bases(base: str, reference: str, wanted: str) -> None:
    assert URL(base).join(reference) == wanted


# --- parameters ---

PARAMS: list[tuple[Any, str]] = [
    ({"a": "b c"}, "a=b%20c"), ({"a": "b+c"}, "a=b%2Bc"), ({"a": "b%20c"}, "a=b%2520c"), ({"a b": "ü"}, "a%20b=%C3%BC"), ({"a": ""}, "a="), ({"": "b"}, "=b"),
    ({"a": None}, ""),
    ({"a": None, "b": 1}, "b=1"), ({"a": []}, ""), ({"a": [None]}, ""), ({"a": [1, "x", None, True]}, "a=1&a=x&a=true"), ({"a": (1, 2)}, "a=1&a=2"),
    ([("b", 1), ("a", 2), ("b", 3)], "b=1&a=2&b=3"), ((("b", 1),), "b=1"), (iter([("b", [1, 2])]), "b=1&b=2"), ({"z": 1, "a": 2}, "z=1&a=2"),
    ({"a": 0, "b": 0.0, "c": False}, "a=0&b=0.0&c=false"), ({"a": -1, "b": 1e100}, "a=-1&b=1e%2B100"), ({1: 2}, "1=2"), ({b"a": b"\xff "}, "a=%FF%20"),
    ({"a": "&=#?/:@;,"}, "a=%26%3D%23%3F%2F%3A%40%3B%2C"), ({"a[]": [1, 2]}, "a%5B%5D=1&a%5B%5D=2"), ({"a": "😀"}, "a=%F0%9F%98%80"),
    ({"a": "\r\n\0"}, "a=%0D%0A%00"),
    ({"a": "~-._"}, "a=~-._"), ({"a": "'\"<>"}, "a=%27%22%3C%3E"),
    ("a=b&c", "a=b&c"), ("?a=b", "a=b"), ("??a", "?a"), ("a=b c&d=%20%zz", "a=b%20c&d=%20%25zz"), ("a=ü#x", "a=%C3%BC%23x"), ("a=\r\n", "a=%0D%0A"),
    ("a+b", "a+b"), ("", ""),
    (b"a=b c", "a=b%20c"), ({}, ""), ([], ""), ((), ""),
]


@pytest.mark.parametrize(("params", "query"), PARAMS, ids=lambda p: ascii(p)[:40])
def test_params(params: Any, query: str) -> None:
    assert URL("http://h/", params).target == ("/?" + query if query else "/")


@pytest.mark.parametrize(("url", "wanted"), [
    ("http://h", "/?n=1"), ("http://h?", "/?n=1"), ("http://h/?a", "/?a&n=1"), ("http://h/?a=1&", "/?a=1&n=1"), ("http://h/?n=0", "/?n=0&n=1"),
    ("http://h/x?y?", "/x?y?n=1"),
    ("http://h/x#f", "/x?n=1"), ("http://h/x?#f?g", "/x?n=1"), ("http://h/x?a=b#f", "/x?a=b&n=1"), ("http+unix://%2Fx/y", "/y?n=1"),
    ("http://[fe80::1%25lo]/", "/?n=1")])
def test_params_beside_a_query(url: str, wanted: str) -> None:
    joined = URL(url, {"n": 1})
    assert joined.target == wanted
    assert joined.fragment == URL(url).fragment
    assert URL(url, {}) == URL(url, None) == URL(url)


@pytest.mark.parametrize("params", [5, ["ab"], [("a",)], [("a", 1, 2)], ["a=b"], {"a"}])
def test_what_are_no_params(params: Any) -> None:
    with pytest.raises(TypeError):
        URL("http://h/", params)


@pytest.mark.parametrize("params", [{"a": "\ud800"}, {"\ud800": 1}, "\ud800", b"\xff"])
def test_params_that_no_url_can_hold(params: Any) -> None:
    with pytest.raises(InvalidURL):
        URL("http://h/?secret", params)


@pytest.mark.parametrize(("data", "wanted"), [({"a b": "c d+e"}, b"a+b=c+d%2Be"), ([("a", 1), ("a", None), ("a", [2, 3])], b"a=1&a=2&a=3"),
                                              ({"ü": "\r\n"}, b"%C3%BC=%0D%0A"),
                                              ({"a": "*-._~"}, b"a=*-._%7E"), ({"a": True}, b"a=true"), ({}, b"")])
def test_forms(data: Any, wanted: bytes) -> None:
    assert encode_form(data) == wanted


# --- Unix sockets ---

SOCKETS = [
    ("http+unix://%2Fvar%2Frun%2Fx.sock/info?a#f", "/var/run/x.sock", "http+unix://%2fvar%2frun%2fx.sock/info?a#f"),
    ("HTTP+UNIX://%2fRun%2FX", "/Run/X", "http+unix://%2f%52un%2f%58/"), ("http+unix://run%2Fx", "run/x", "http+unix://run%2fx/"),
    ("http+unix://%2Fa%20b ü", "/a b ü", "http+unix://%2fa%20b%20%c3%bc/"), ("http+unix://%2Fx%3A80/", "/x:80", "http+unix://%2fx%3a80/"),
    ("http+unix://%2F%FF", os.fsdecode(b"/\xff"), "http+unix://%2f%ff/"), ("http+unix://%00name/", "\0name", "http+unix://%00name/"),
    ("http+unix://%2Fa%25b/", "/a%b", "http+unix://%2fa%25b/"), ("http+unix://u:p@%2Fx/", "/x", "http+unix://u:p@%2fx/"),
    ("http+unix://%2Fx?y", "/x", "http+unix://%2fx/?y"), ("http+unix://%2Fx%40y/", "/x@y", "http+unix://%2fx%40y/"),
]


@pytest.mark.parametrize(("given", "path", "wanted"), SOCKETS)
def test_the_path_of_a_socket_stands_for_the_host(given: str, path: str, wanted: str) -> None:
    url = URL(given)
    assert url == URL(wanted) == wanted
    assert url.socket_path == path
    wire = Request("GET", given).wire()
    assert (wire.host, wire.authority, wire.key) == (path, b"localhost", f"http+unix://{url.host}:80")


@pytest.mark.parametrize("given", ["http+unix:///run/x.sock", "http+unix://", "http+unix:%2Fx", "http+unix://%2Fx:80/", "http+unix://[::1]/",
                                   "http+unix://%2Fa%00b/", "http+unix://%2F\\x/y\n"])
def test_what_names_no_socket(given: str) -> None:
    with pytest.raises(InvalidURL):
        URL(given)


def test_other_urls_name_none() -> None:
    assert URL("http://h/").socket_path is None
