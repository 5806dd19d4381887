"""Responses as servers send them, and as attackers and broken servers do."""
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """`wire` answers a `method` request; `eof`: then the server closes. `plain`: the fast path decides all of it by itself."""

    name: str
    wire: bytes
    plain: bool = True
    method: bytes = b"GET"
    eof: bool = False


def resp(*fields: bytes, start: bytes = b"HTTP/1.1 200 OK", body: bytes = b"") -> bytes:
    return b"".join(line + b"\r\n" for line in (start, *fields, b"")) + body


def _lengths() -> list[Case]:
    def case(name: str, *values: bytes, plain: bool = False, body: bytes = b"hello") -> Case:
        return Case(f"length: {name}", resp(*(b"Content-Length: " + v for v in values), body=body), plain)

    return [
        case("plain", b"5", plain=True),
        case("zero", b"0", plain=True, body=b""),
        case("leading zeros", b"005", plain=True),
        case("blanks around", b" \t5 \t", plain=True),
        case("body still coming", b"9", plain=True),
        case("more than the body", b"5", plain=True, body=b"helloHTTP/1.1 200 OK\r\n"),
        case("largest", b"9223372036854775807", plain=True),
        case("2**63", b"9223372036854775808"),
        case("2**64 + 5", b"18446744073709551621"),
        case("20 digits", b"00000000000000000005"),
        case("21 digits", b"000000000000000000005"),
        case("40 digits", b"9" * 40),
        case("empty", b""),
        case("plus", b"+5"),
        case("minus", b"-5"),
        case("hex", b"0x5"),
        case("point", b"5.0"),
        case("exponent", b"5e0"),
        case("underscore", b"5_0"),
        case("two numbers", b"5 5"),
        case("list, equal", b"5, 5"),
        case("list, unequal", b"5, 6"),
        case("list with empty", b"5,"),
        case("twice, equal", b"5", b"5"),
        case("twice, unequal", b"5", b"6"),
        case("twice, equal numbers", b"5", b"05"),
        case("superscript", b"\xb2"),
        case("vertical tab", b"\x0b5"),
    ]


def _codings() -> list[Case]:
    chunked = b"5\r\nhello\r\n0\r\n\r\n"

    def case(name: str, *fields: bytes, plain: bool = False, start: bytes = b"HTTP/1.1 200 OK") -> Case:
        return Case(f"coding: {name}", resp(*fields, start=start, body=chunked), plain)

    return [
        case("plain", b"Transfer-Encoding: chunked", plain=True),
        case("case", b"TRANSFER-encoding: ChunkeD", plain=True),
        case("blanks around", b"Transfer-Encoding:\t chunked \t", plain=True),
        case("with length", b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        case("behind length", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        case("twice", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        case("twice, one unknown", b"Transfer-Encoding: chunked", b"Transfer-Encoding: cow"),
        case("identity", b"Transfer-Encoding: identity"),
        case("gzip", b"Transfer-Encoding: gzip"),
        case("gzip, chunked", b"Transfer-Encoding: gzip, chunked"),
        case("chunked, chunked", b"Transfer-Encoding: chunked, chunked"),
        case("chunked with comma", b"Transfer-Encoding: chunked,"),
        case("comma chunked", b"Transfer-Encoding: ,chunked"),
        case("parameter", b"Transfer-Encoding: chunked;q=1"),
        case("xchunked", b"Transfer-Encoding: xchunked"),
        case("quoted", b'Transfer-Encoding: "chunked"'),
        case("apostrophe", b"Transfer-Encoding: 'chunked'"),
        case("empty", b"Transfer-Encoding:"),
        case("vertical tab", b"Transfer-Encoding: \x0bchunked"),
        case("NUL", b"Transfer-Encoding: chunked\0"),
        case("blank before the colon", b"Transfer-Encoding : chunked"),
        case("tab before the colon", b"Transfer-Encoding\t: chunked"),
        case("blank before the name", b" Transfer-Encoding: chunked"),
        case("folded", b"Transfer-Encoding:", b" chunked"),
        case("folded in another", b"X: y", b" Transfer-Encoding: chunked"),
        case("behind a bare LF", b"X: y\nTransfer-Encoding: chunked"),
        case("behind a bare CR", b"X: y\rTransfer-Encoding: chunked"),
        case("HTTP/1.0", b"Transfer-Encoding: chunked", start=b"HTTP/1.0 200 OK"),
        case("HTTP/1.0 and length", b"Transfer-Encoding: chunked", b"Content-Length: 5", start=b"HTTP/1.0 200 OK"),
    ]


def _chunks() -> list[Case]:
    def case(name: str, body: bytes, plain: bool = False, eof: bool = False) -> Case:
        return Case(f"chunks: {name}", resp(b"Transfer-Encoding: chunked", body=body), plain, eof=eof)

    return [
        case("none", b"0\r\n\r\n", True),
        case("three", b"1\r\na\r\n2\r\nbc\r\n1a\r\n" + b"d" * 26 + b"\r\n0\r\n\r\n", True),
        case("data like framing", b"7\r\n0\r\n\r\n\r\n\r\n000\r\n\r\n", True),
        case("more behind", b"1\r\na\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n", True),
        case("extensions", b'1;a\r\na\r\n1;a=b;c="d"\r\nb\r\n0;e\r\n\r\n', True),
        case("extension in blanks", b'1 ; a = "b c"\r\na\r\n0\r\n\r\n'),
        case("extension with escape", b'1;a="\\""\r\na\r\n0\r\n\r\n'),
        case("extension with quoted CRLF", b'1;a="\r\nb"\r\na\r\n0\r\n\r\n'),
        case("extension with bare CR", b"1;a\rb\r\na\r\n0\r\n\r\n"),
        case("extension with bare LF", b"1;a\nb\r\na\r\n0\r\n\r\n"),
        case("extension with NUL", b"1;\0\r\na\r\n0\r\n\r\n"),
        case("extension, empty", b"1;\r\na\r\n0;\r\n\r\n"),
        case("blank behind the size", b"1 \r\na\r\n0\t\r\n\r\n"),
        case("blank before the size", b" 1\r\na\r\n0\r\n\r\n"),
        case("no size", b"\r\na\r\n0\r\n\r\n"),
        case("0x", b"0x1\r\na\r\n0\r\n\r\n"),
        case("sign", b"+1\r\na\r\n0\r\n\r\n"),
        case("minus", b"-1\r\na\r\n0\r\n\r\n"),
        case("not hex", b"g\r\na\r\n0\r\n\r\n"),
        case("18 digits", b"000000000000000001\r\na\r\n0\r\n\r\n"),
        case("21 digits", b"000000000000000000001\r\na\r\n0\r\n\r\n"),
        case("overflow", b"10000000000000001\r\na\r\n0\r\n\r\n"),
        case("2**63", b"8000000000000000\r\na"),
        case("2**63 - 1", b"7fffffffffffffff\r\na", True),
        case("bare LF behind the size", b"1\na\r\n0\r\n\r\n"),
        case("bare LF behind data", b"1\r\na\n0\r\n\r\n"),
        case("bare LF at the end", b"1\r\na\r\n0\r\n\n"),
        case("bare LF behind the last size", b"1\r\na\r\n0\n\r\n"),
        case("bare CR behind data", b"1\r\na\r0\r\n\r\n"),
        case("data too long", b"1\r\nab\r\n0\r\n\r\n"),
        case("data too short", b"2\r\na\r\n0\r\n\r\n"),
        case("junk for a last line", b"1\r\na\r\n0\r\njunk\r\n\r\n"),
        case("long extension", b"1;" + b"x" * 5000 + b"\r\na\r\n0\r\n\r\n"),
        case("trailer", b"1\r\na\r\n0\r\nX-Sum: 7\r\nY:  z \r\n\r\nrest"),
        case("folded trailer", b"1\r\na\r\n0\r\nX: 7\r\n 8\r\n\r\n"),
        case("framing in the trailer", b"1\r\na\r\n0\r\nContent-Length: 7\r\nTransfer-Encoding: x\r\n\r\n"),
        case("bad trailer", b"1\r\na\r\n0\r\nX : 7\r\n\r\n"),
        case("unfinished", b"5\r\nhel", True),
        case("unfinished, then closed", b"5\r\nhel", True, True),
        case("no last chunk, then closed", b"5\r\nhello\r\n", True, True),
        case("no last line, then closed", b"5\r\nhello\r\n0\r\n", True, True),
    ]


def _fields() -> list[Case]:
    def case(name: str, *fields: bytes, plain: bool = False) -> Case:
        return Case(f"fields: {name}", resp(b"Content-Length: 2", *fields, body=b"ok"), plain)

    return [
        case("obs-text", b"X: gr\xfc\xdfe", plain=True),
        case("empty values", b"X:", b"Y: ", b"Z: \t ", plain=True),
        case("tabs inside", b"X: a\tb  c", plain=True),
        case("repeated", b"Set-Cookie: a=b; Path=/", b"Set-Cookie: c=d", plain=True),
        case("colons", b"X::", b"Location: http://[::1]:80/", plain=True),
        case("every tchar", b"!#$%&'*+-.^_`|~09azAZ: v", plain=True),
        case("fifty", *(b"N%d: %d" % (i, i) for i in range(50)), plain=True),
        case("close", b"Connection: close", plain=True),
        case("keep-alive", b"Connection: Keep-Alive", b"Keep-Alive: timeout=5, max=100", plain=True),
        case("lists", b"Connection: a, ,CLOSE", b"connection: keep-alive", plain=True),
        case("keep-alive, odd", b'Keep-Alive: TIMEOUT = "5", timeout=x, timeout', plain=True),
        case("keep-alive, quoted", b'Keep-Alive: timeout="7"', plain=True),
        case("upgrade offered", b"Connection: upgrade", b"Upgrade: h2c", plain=True),
        case("folded", b"X: a", b"  b", b"\tc"),
        case("folded at once", b"X:", b" b"),
        case("blank before the colon", b"X : a"),
        case("no colon", b"X"),
        case("no name", b": a"),
        case("blank in the name", b"X Y: a"),
        case("quote in the name", b'"X": a'),
        case("obs-text in the name", b"\xe9: a"),
        case("NUL", b"X: a\0b"),
        case("control", b"X: a\x01b"),
        case("DEL", b"X: a\x7fb"),
        case("ESC", b"X: \x1b[31m"),
        case("form feed", b"X: a\x0cb"),
        case("bare CR", b"X: a\rb"),
        case("bare CR at the end", b"X: a\r"),
        case("bare LF", b"X: a\nY: b"),
        case("bare LF, then empty", b"X: a\n\nhidden"),
        case("LF CR LF", b"X: a\n"),
    ]


def _starts() -> list[Case]:
    def case(name: str, start: bytes, plain: bool = False, method: bytes = b"GET") -> Case:
        return Case(f"start: {name}", resp(b"Content-Length: 2", start=start, body=b"ok"), plain, method)

    return [
        case("HTTP/1.0", b"HTTP/1.0 200 OK", True),
        case("no reason", b"HTTP/1.1 200", True),
        case("empty reason", b"HTTP/1.1 200 ", True),
        case("blanks for a reason", b"HTTP/1.1 200  \t ", True),
        case("obs-text reason", b"HTTP/1.1 200 \xff", True),
        case("599", b"HTTP/1.1 599 X", True),
        case("404 to HEAD", b"HTTP/1.1 404 Not Found", True, b"HEAD"),
        case("204", b"HTTP/1.1 204 No Content", True),
        case("304", b"HTTP/1.1 304 Not Modified", True),
        case("600", b"HTTP/1.1 600 X"),
        case("999", b"HTTP/1.1 999 X"),
        case("000", b"HTTP/1.1 000 X"),
        case("099", b"HTTP/1.1 099 X"),
        case("101", b"HTTP/1.1 101 Switching Protocols"),
        case("HTTP/1.2", b"HTTP/1.2 200 OK"),
        case("HTTP/2.0", b"HTTP/2.0 200 OK"),
        case("HTTP/9.9", b"HTTP/9.9 200 OK"),
        case("HTTP/0.9", b"HTTP/0.9 200 OK"),
        case("HTTP/1", b"HTTP/1 200 OK"),
        case("HTTP/1.10", b"HTTP/1.10 200 OK"),
        case("lower case", b"http/1.1 200 OK"),
        case("ICY", b"ICY 200 OK"),
        case("two digits", b"HTTP/1.1 20 OK"),
        case("four digits", b"HTTP/1.1 2000 OK"),
        case("letters", b"HTTP/1.1 abc OK"),
        case("two blanks", b"HTTP/1.1  200 OK"),
        case("tab", b"HTTP/1.1\t200 OK"),
        case("blank first", b" HTTP/1.1 200 OK"),
        case("NUL in the reason", b"HTTP/1.1 200 O\0K"),
        case("control in the reason", b"HTTP/1.1 200 O\x02K"),
        case("CR in the reason", b"HTTP/1.1 200 O\rK"),
        case("LF in the reason", b"HTTP/1.1 200 O\nK"),
        case("a request", b"GET / HTTP/1.1"),
        case("an empty line first", b"\r\nHTTP/1.1 200 OK"),
        case("a bare LF first", b"\nHTTP/1.1 200 OK"),
    ]


def _bodiless_and_interim() -> list[Case]:
    ok = resp(b"Content-Length: 2", body=b"ok")
    go_on = resp(start=b"HTTP/1.1 100 Continue")
    hints = resp(b"Link: </a.css>", start=b"HTTP/1.1 103 Early Hints")
    chunked = resp(b"Transfer-Encoding: chunked")
    return [
        Case("HEAD with length", resp(b"Content-Length: 1000"), method=b"HEAD"),
        Case("HEAD with coding", chunked, method=b"HEAD"),
        Case("HEAD with neither", resp(), method=b"HEAD"),
        Case("HEAD with a body", ok, method=b"HEAD"),
        Case("204 with neither", resp(start=b"HTTP/1.1 204 No Content")),
        Case("204 with coding", chunked.replace(b"200 OK", b"204 No") + b"0\r\n\r\n"),
        Case("304 with length", resp(b"Content-Length: 70", b'ETag: "a"', start=b"HTTP/1.1 304 Not Modified")),
        Case("304 to HEAD", resp(start=b"HTTP/1.1 304 Not Modified"), method=b"HEAD"),
        Case("100 first", go_on + ok),
        Case("100 twice", go_on + go_on + ok),
        Case("100 with a field", resp(b"X: y", start=b"HTTP/1.1 100 Go on") + ok),
        Case("100 of HTTP/1.0", resp(start=b"HTTP/1.0 100 Continue") + ok),
        Case("100 with length", resp(b"Content-Length: 2", start=b"HTTP/1.1 100 Continue") + ok, False),
        Case("100 with coding", resp(b"Transfer-Encoding: chunked", start=b"HTTP/1.1 100 Continue") + ok, False),
        Case("100 and nothing", go_on),
        Case("100 and the end", go_on, eof=True),
        Case("102 first", resp(start=b"HTTP/1.1 102 Processing") + ok, False),
        Case("103 first", hints + ok, False),
        Case("103 among 100", go_on + hints + go_on + ok, False),
        Case("100, then odd", go_on + resp(b"Content-Length: 2", b"X: a", b" b", body=b"ok"), False),
        Case("100, then chunks", go_on + chunked + b"2\r\nok\r\n0\r\n\r\n"),
        Case("100 of HTTP/9.9", resp(start=b"HTTP/9.9 100 Continue") + ok, False),
        Case("forty of 103", hints * 40 + ok, False),
        Case("101 unasked", resp(b"Connection: upgrade", b"Upgrade: h2c", start=b"HTTP/1.1 101 Switching Protocols") + b"bytes", False),
    ]


def _closing() -> list[Case]:
    old = b"HTTP/1.0 200 OK"
    return [
        Case("until close", resp(b"Content-Type: text/plain", body=b"all there is"), eof=True),
        Case("until close, still open", resp(body=b"some")),
        Case("until close, empty", resp(), eof=True),
        Case("until close, HTTP/1.0", resp(start=old, body=b"all\r\n\r\nthere is"), eof=True),
        Case("until close, says keep-alive", resp(b"Connection: keep-alive", start=old, body=b"all"), eof=True),
        Case("HTTP/1.0 with length", resp(b"Content-Length: 3", start=old, body=b"all"), eof=True),
        Case("HTTP/1.0 keep-alive", resp(b"Connection: keep-alive", b"Content-Length: 3", start=old, body=b"all")),
        Case("HTTP/1.0 keep-alive and close", resp(b"Connection: keep-alive, close", b"Content-Length: 3", start=old, body=b"all")),
        Case("length and the end", resp(b"Content-Length: 3", body=b"all"), eof=True),
        Case("length and the end too soon", resp(b"Content-Length: 4", body=b"all"), eof=True),
        Case("the end in the head", b"HTTP/1.1 200 OK\r\nContent-Le", eof=True),
        Case("the end before the head", b"", eof=True),
        Case("nothing yet", b""),
        Case("part of a head", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"),
        Case("part of a status line", b"HTTP/1.1 2"),
        Case("part of a bad start", b"<html><body>no", False),
        Case("bad status line, still coming", b"HTTP/1.1 2000 OK\r\nX: ", True),
        Case("another version, still coming", b"HTTP/3.1 200 OK\r\n", False),
        Case("TLS alert", b"\x15\x03\x01\x00\x02\x02\x16", False, eof=True),
    ]


DATE = b"Date: Sat, 22 Nov 2025 12:00:00 GMT"
NGINX = Case("nginx", resp(b"Server: nginx/1.22.1", DATE, b"Content-Type: text/plain", b"Content-Length: 11",
                           b"Last-Modified: Sat, 22 Nov 2025 11:00:00 GMT", b"Connection: keep-alive", b'ETag: "6740a1b0-b"',
                           b"Accept-Ranges: bytes", body=b"hello world"))
APACHE = Case("apache", resp(DATE, b"Server: Apache/2.4.62 (Debian)", b"Vary: Accept-Encoding",
                             b"Keep-Alive: timeout=5, max=99", b"Connection: Keep-Alive", b"Transfer-Encoding: chunked",
                             b"Content-Type: text/html;charset=UTF-8", start=b"HTTP/1.1 404 Not Found",
                             body=b"1c\r\n<html><body>No</body></html>\r\n0\r\n\r\n"))
GUNICORN = Case("gunicorn", resp(b"Server: gunicorn", DATE, b"Connection: close", b"Content-Type: application/json",
                                 b"Content-Length: 2", body=b"{}"), eof=True)
PYTHON = Case("http.server", resp(b"Server: SimpleHTTP/0.6 Python/3.11.7", DATE, b"Content-type: text/plain",
                                  b"Content-Length: 3", start=b"HTTP/1.0 200 OK", body=b"abc"), eof=True)
CLOUDFRONT = Case("a cache", resp(b"Content-Length: 1", b"Connection: keep-alive", b"X-Cache: Hit from cloudfront", b"Age: 7",
                                  b"Via: 1.1 0123456789abcdef.cloudfront.net (CloudFront)", body=b"x"))

SERVERS = [NGINX, APACHE, GUNICORN, PYTHON, CLOUDFRONT]
CASES = [*SERVERS, *_starts(), *_fields(), *_lengths(), *_codings(), *_chunks(), *_bodiless_and_interim(), *_closing()]

# What a mutation puts somewhere into a response.
SNIPPETS = [b"\r", b"\n", b"\r\n", b"\n\n", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"9", b"f", b"-", b"+", b'"',
            b"\x7f", b"\xff", b"\x0b", b"\r\n ", b"\r\nX: y", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n", b"0\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.0 200 OK\r\n"]
