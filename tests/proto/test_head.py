"""The compiled head parser: plain heads are decided, everything else is handed over, and no byte outside is read."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pooledhttp._proto.testing import MORE, OK, UNSURE, HeadParser

from .corpus import CORPUS
from .guard import guarded

NGINX = (b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Fri, 22 Nov 2024 18:56:00 GMT\r\nContent-Type: application/octet-stream\r\n"
         b"Content-Length: 1024\r\nConnection: keep-alive\r\nETag: \"6740c9a0-400\"\r\nAccept-Ranges: bytes\r\n\r\n")

PLAIN = {"minor": 1, "content_length": -1, "chunked": 0, "conn_close": 0, "conn_keep_alive": 0, "keep_alive_timeout": -1, "notes": 0}


def line(field: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\n"


# Heads that are plain, and the facts in which they differ from PLAIN.
GOOD: list[tuple[bytes, dict[str, Any]]] = [
    (NGINX, {"status": 200, "content_length": 1024, "conn_keep_alive": 1, "n_fields": 7}),
    (b"HTTP/1.1 200 OK\r\n\r\n", {"status": 200, "n_fields": 0, "fields_len": 0}),
    (b"HTTP/1.1 200 \r\n\r\n", {"status": 200, "reason_len": 0}),
    (b"HTTP/1.1 404 Not\tFound  at all \xe9\r\nA:b\r\n\r\n", {"status": 404, "n_fields": 1}),
    (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", {"status": 200, "minor": 0, "content_length": 0,
                                                                                "conn_keep_alive": 1}),
    (b"HTTP/1.0 302 Found\r\n\r\n", {"status": 302, "minor": 0}),
    (b"HTTP/1.1 100 Continue\r\n\r\n", {"status": 100}),
    (b"HTTP/1.1 204 No Content\r\n\r\n", {"status": 204}),
    (b"HTTP/1.1 599 Last\r\n\r\n", {"status": 599}),
    (line(b"Transfer-Encoding: chunked"), {"chunked": 1}),
    (line(b"tRANSFER-eNCODING:\t CHUNked \t"), {"chunked": 1}),
    (line(b"Content-Length:9223372036854775807"), {"content_length": 2**63 - 1}),
    (line(b"Content-Length: 0000000000000000042  "), {"content_length": 42}),
    (line(b"content-length: 7\r\nConnection: CLOSE"), {"content_length": 7, "conn_close": 1}),
    (line(b"Connection: foo, ,close ,\tKeep-Alive"), {"conn_close": 1, "conn_keep_alive": 1}),
    (line(b"Connection: keep-alive\r\nConnection: upgrade\r\nConnection: close"), {"conn_close": 1, "conn_keep_alive": 1}),
    (line(b"Connection: Upgrade\r\nUpgrade: h2,h2c"), {}),
    (line(b"Connection: closed, keep-alives, clos"), {}),
    (line(b"Connection: "), {}),
    (line(b"Connectiom: close"), {}),
    (line(b"Keep-Alive: timeout=5, max=100"), {"keep_alive_timeout": 5}),
    (line(b"Keep-Alive: max=100,TimeOut = 30"), {"keep_alive_timeout": 30}),
    (line(b"Keep-Alive: timeout=30\r\nKeep-Alive: timeout=7"), {"keep_alive_timeout": 7}),
    (line(b"Keep-Alive: timeout=0"), {"keep_alive_timeout": 0}),
    (line(b"Keep-Alive: timeout=999999999"), {"keep_alive_timeout": 999999999}),
    (line(b"Keep-Alive: timeout=1000000000"), {}),
    (line(b"Keep-Alive: timeout=, timeout, timeout=x, timeout=-1, xtimeout=5, timeout=5s"), {}),
    (line(b"Set-Cookie: a=b"), {"notes": 1}),
    (line(b"SET-cookie:a=b\r\nSet-Cookie: c=d"), {"notes": 1, "n_fields": 2}),
    (line(b"Content-Encoding: gzip"), {"notes": 2}),
    (line(b"content-ENCODING:\r\nContent-Length: 3"), {"notes": 2, "content_length": 3}),
    (line(b"Set-Cookie: a=b\r\nConnection: close\r\nContent-Encoding: br"), {"notes": 3, "conn_close": 1}),
    (line(b"Set-Cookies: a\r\nSet-Cookie2: a\r\nSet_Cookie: a\r\nGet-Cookie: a\r\nContent-Encodin: a\r\nContent_Encoding: a\r\nContent-Encodings: a"), {}),
    (line(b"Content-Location: x\r\nVary: Content-Encoding"), {}),
    (line(b"X-Empty:\r\nX-Blank: \t \r\nX-8bit: \xe9\xff\x80"), {"n_fields": 3}),
    (line(b"!#$%&'*+-.^_`|~09azAZ: a:b \"c\"; d"), {"n_fields": 1}),
    (line(b"X-Upto: " + bytes(c for c in range(256) if c == 9 or (c > 31 and c != 127))), {"n_fields": 1}),
    (line(b"X-Long: " + b"v" * 5000), {"n_fields": 1}),
]

# Heads that h11 (or its refusal) must decide.
ODD = [
    b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    b" HTTP/1.1 200 OK\r\n\r\n",
    b"http/1.1 200 OK\r\n\r\n",
    b"HTTP/1.2 200 OK\r\n\r\n",
    b"HTTP/2.0 200 OK\r\n\r\n",
    b"HTTP/9.9 200 OK\r\n\r\n",
    b"HTTP/1.1  200 OK\r\n\r\n",
    b"HTTP/1.1\t200 OK\r\n\r\n",
    b"HTTP/1.1 200\r\n\r\n",
    b"HTTP/1.1 200\n\n",
    b"HTTP/1.1\n\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 2x0 OK\r\n\r\n",
    b"HTTP/1.1 200OK\r\n\r\n",
    b"HTTP/1.1 000 Zero\r\n\r\n",
    b"HTTP/1.1 099 Low\r\n\r\n",
    b"HTTP/1.1 600 High\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\n",
    b"HTTP/1.1 199 What\r\n\r\n",
    b"HTTP/1.0 100 Continue\r\n\r\n",
    b"HTTP/1.1 200 O\x00K\r\n\r\n",
    b"HTTP/1.1 200 O\rK\r\n\r\n",
    b"HTTP/1.1 200 OK\n\r\n",
    b"HTTP/1.1 200 OK\r\n\n",
    b"HTTP/1.1 200 OK\r\nA: b\n\r\n",
    b"HTTP/1.1 200 OK\nA: b\n\n",
    b"HTTP/1.1 200 OK\r\r\n\r\n",
    line(b"A: b\r\n c"),
    line(b" A: b"),
    line(b"\tA: b"),
    line(b"A : b"),
    line(b"A\t: b"),
    line(b": b"),
    line(b"A"),
    line(b"A b: c"),
    line(b"A\xe9: c"),
    line(b"A: b\x00c"),
    line(b"A: b\x0bc"),
    line(b"A: b\x7fc"),
    line(b"A: b\rc"),
    line(b"A: b\r"),
    line(b"Content-Length: "),
    line(b"Content-Length: +5"),
    line(b"Content-Length: -5"),
    line(b"Content-Length: 5, 5"),
    line(b"Content-Length: 5 5"),
    line(b"Content-Length: 0x5"),
    line(b"Content-Length: 5.0"),
    line(b"Content-Length: \xb2"),
    line(b"Content-Length: 9223372036854775808"),
    line(b"Content-Length: 9999999999999999999"),
    line(b"Content-Length: 18446744073709551616"),
    line(b"Content-Length: 00000000000000000005"),
    line(b"Content-Length: 5\r\nContent-Length: 5"),
    line(b"Content-Length: 5\r\ncontent-length: 6"),
    line(b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
    line(b"Transfer-Encoding: chunked\r\nContent-Length: 5"),
    line(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    line(b"Transfer-Encoding: gzip, chunked"),
    line(b"Transfer-Encoding: chunked, chunked"),
    line(b"Transfer-Encoding: identity"),
    line(b"Transfer-Encoding: xchunked"),
    line(b"Transfer-Encoding: chunked;q=1"),
    line(b"Transfer-Encoding: \"chunked\""),
    line(b"Transfer-Encoding:\x0bchunked"),
    line(b"Transfer-Encoding:"),
    line(b"Transfer-Encoding : chunked"),
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"\x16\x03\x01\x00\x05hello",
    b"SSH-2.0-OpenSSH_9.2p1\r\n",
    b"<html></html>",
]


def facts(head: bytes) -> dict[str, int]:
    parser = HeadParser()
    assert parser.parse(head) == OK
    return parser.facts()


@pytest.mark.parametrize(("head", "want"), GOOD)
def test_plain_heads_are_decided(head: bytes, want: dict[str, Any]) -> None:
    got = facts(head)
    assert {k: got[k] for k in {**PLAIN, **want}} == {**PLAIN, **want}
    assert got["size"] == len(head)
    reason = head[got["reason_off"]:got["reason_off"] + got["reason_len"]]
    assert reason == head.split(b"\r\n")[0][13:]
    fields = head[got["fields_off"]:got["fields_off"] + got["fields_len"]]
    assert fields == head.split(b"\r\n", 1)[1][:-2]
    assert fields.count(b"\r\n") == got["n_fields"]


@pytest.mark.parametrize("head", ODD)
def test_odd_heads_are_handed_over(head: bytes) -> None:
    assert HeadParser().parse(head) == UNSURE
    # Whatever comes behind, and however it comes.
    assert HeadParser().parse(head + b"x") == UNSURE
    parser = HeadParser()
    status = MORE
    for n in range(len(head) + 1):
        status = parser.parse(head[:n])
        if status != MORE:
            break
    assert status == UNSURE


@pytest.mark.parametrize(("head", "want"), GOOD)
def test_every_prefix_needs_more_and_every_split_gives_the_same_facts(head: bytes, want: dict[str, Any]) -> None:
    whole = facts(head)
    step = 1 if len(head) < 1000 else 97
    for n in range(0, len(head), step):
        parser = HeadParser()
        assert parser.parse(head[:n]) == MORE
        assert parser.scanned == n
        assert parser.parse(head + b"HTTP/1.1 500 Next\r\n\r\n") == OK
        assert parser.facts() == whole


@pytest.mark.parametrize(("head", "want"), GOOD)
def test_byte_by_byte(head: bytes, want: dict[str, Any]) -> None:
    parser = HeadParser()
    for n in range(len(head)):
        assert parser.parse(head[:n]) == MORE
    assert parser.parse(head) == OK
    assert parser.facts() == facts(head)


def test_bytes_once_searched_are_not_looked_at_again() -> None:
    # A bare LF put where the parser has been would make it unsure if it looked there again before the end.
    data = bytearray(b"HTTP/1.1 200 OK\r\nA: bbbb\r\nC: d\r\n")
    parser = HeadParser()
    assert parser.parse(data) == MORE
    data[20:21] = b"\n"
    for c in b"E: f\r\n":
        data.append(c)
        assert parser.parse(data) == MORE
        assert parser.scanned == len(data)
    data += b"\r\n"
    assert parser.parse(data) == UNSURE


def test_the_limit_counts_the_blank_line() -> None:
    head = line(b"A: b")
    n = len(head)
    assert HeadParser(n).parse(head) == OK
    assert HeadParser(n).parse(head + b"body") == OK
    assert HeadParser(n - 1).parse(head) == UNSURE
    assert HeadParser(n).parse(head[:-1]) == MORE
    assert HeadParser(n - 1).parse(head[:-1]) == UNSURE
    assert HeadParser(5).parse(head) == UNSURE
    assert HeadParser(0).parse(b"") == UNSURE
    parser = HeadParser(n - 1)
    assert parser.parse(head[:10]) == MORE
    assert parser.parse(head) == UNSURE


def everywhere(place: int, template: bytes) -> dict[int, int]:
    return {c: HeadParser().parse(template[:place] + bytes([c]) + template[place + 1:]) for c in range(256)}


TOKEN = set(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
TEXT = {9, *range(32, 127), *range(128, 256)}


@pytest.mark.parametrize("pad", range(9))
def test_every_byte_in_a_value(pad: int) -> None:
    head = line(b"A: " + b"v" * pad + b"?" + b"v" * (8 - pad))
    got = everywhere(head.index(b"?"), head)
    assert {c for c, status in got.items() if status == OK} == TEXT
    assert set(got.values()) == {OK, UNSURE}


def test_every_byte_in_a_reason() -> None:
    head = b"HTTP/1.1 200 O?K\r\n\r\n"
    assert {c for c, status in everywhere(head.index(b"?"), head).items() if status == OK} == TEXT


def test_every_byte_in_a_name() -> None:
    head = line(b"A?B: c")
    # A colon ends the name sooner: "A", with the value "B: c".
    assert {c for c, status in everywhere(head.index(b"?"), head).items() if status == OK} == TOKEN | {ord(":")}


def test_every_byte_in_the_status_line() -> None:
    head = b"HTTP/1.1 234 OK\r\n\r\n"
    for place, allowed in [(4, b"/"), (5, b"1"), (6, b"."), (7, b"01"), (8, b" "), (9, b"2345"), (10, b"0123456789"), (11, b"0123456789"),
                           (12, b" "), (16, b"\n"), (18, b"\n")]:
        got = everywhere(place, head)
        fine = {c for c, status in got.items() if status == OK}
        assert fine == set(allowed), place


def test_nothing_outside_the_bytes_is_read() -> None:
    heads = [head for head, _ in GOOD] + ODD
    with guarded() as memory:
        for head in [*heads, *(raw for _, _, raw in CORPUS if len(raw) < memory.size)]:
            expect = HeadParser().parse(head)
            for put in (memory.at_end, memory.at_start):
                step = 1 if len(head) < 300 else 211
                for n in range(0, len(head), step):
                    part = head[:n]
                    assert HeadParser().parse_at(put(part), n) == HeadParser().parse(part)
                assert HeadParser().parse_at(put(head), len(head)) == expect
        # And where it goes on: every prefix right before the forbidden page, with the one parser.
        for head in (*(head for head, _ in GOOD if len(head) < 1000), *ODD, *(raw for _, _, raw in CORPUS if len(raw) < memory.size)):
            parser = HeadParser()
            for n in range(len(head) + 1):
                if parser.parse_at(memory.at_end(head[:n]), n) != MORE:
                    break


def test_the_guard_page_guards() -> None:
    code = "\n".join([
        "import ctypes, resource",
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
        "from guard import guarded",
        "with guarded() as m:",
        "    ctypes.string_at(m.address, m.size)",
        "    print('inside', flush=True)",
        "    ctypes.string_at(m.address, m.size + 1)",
    ])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=Path(__file__).parent, timeout=30)
    assert done.stdout == b"inside\n"
    assert done.returncode < 0
