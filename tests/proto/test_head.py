"""The head parser: what it decides, what it leaves to h11, and that it reads no byte that is not there."""
from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from pooledhttp._proto import testing
from tests.proto.guard import PAGE, guarded

NGINX = (b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 22 Nov 2025 12:00:00 GMT\r\nContent-Type: text/plain\r\n"
         b"Content-Length: 1024\r\nConnection: keep-alive\r\nAccept-Ranges: bytes\r\n\r\n")


def resp(*fields: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"".join(line + b"\r\n" for line in (start, *fields, b""))


# Head, and the facts that are not as in `PLAIN`.
PLAIN = {"status": 200, "minor": 1, "content_length": -1, "chunked": 0, "conn_close": 0, "conn_keep_alive": 0, "keep_alive_timeout": -1}
GOOD: dict[str, tuple[bytes, dict[str, int]]] = {
    "nginx": (NGINX, {"content_length": 1024, "conn_keep_alive": 1, "n_fields": 6}),
    "no fields": (resp(), {"n_fields": 0, "fields_len": 0, "fields_off": 17}),
    "no reason": (resp(start=b"HTTP/1.1 404"), {"status": 404, "reason_len": 0}),
    "empty reason": (resp(start=b"HTTP/1.1 404 "), {"status": 404, "reason_len": 0}),
    "reason with blanks": (resp(start=b"HTTP/1.1 404 \tNot  Found "), {"status": 404, "reason_len": 12}),
    "reason with obs-text": (resp(start=b"HTTP/1.1 200 gr\xfc\xdfe"), {"reason_len": 5}),
    "HTTP/1.0": (resp(start=b"HTTP/1.0 200 OK"), {"minor": 0}),
    "HTTP/1.0 keep-alive": (resp(b"Connection: Keep-Alive", b"Content-Length: 3", start=b"HTTP/1.0 200 OK"),
                            {"minor": 0, "conn_keep_alive": 1, "content_length": 3}),
    "100": (resp(start=b"HTTP/1.1 100 Continue"), {"status": 100}),
    "200": (resp(start=b"HTTP/1.1 200"), {"status": 200}),
    "599": (resp(start=b"HTTP/1.1 599"), {"status": 599}),
    "204": (resp(start=b"HTTP/1.1 204 No Content"), {"status": 204}),
    "length 0": (resp(b"Content-Length: 0"), {"content_length": 0}),
    "leading zeros": (resp(b"Content-Length: 0000000000000000017"), {"content_length": 17}),
    "largest length": (resp(b"Content-Length: 9223372036854775807"), {"content_length": 2**63 - 1}),
    "length, any case": (resp(b"cOnTeNt-LeNgTh:\t 12 \t"), {"content_length": 12}),
    "length, no blank": (resp(b"content-length:12"), {"content_length": 12}),
    "chunked": (resp(b"Transfer-Encoding: chunked"), {"chunked": 1}),
    "chunked, any case": (resp(b"transfer-ENCODING:CHUNKed  "), {"chunked": 1}),
    "close": (resp(b"Connection: close"), {"conn_close": 1}),
    "close, any case": (resp(b"CONNECTION: ClosE"), {"conn_close": 1}),
    "a list": (resp(b"Connection: foo,, \tKEEP-alive\t ,close , "), {"conn_close": 1, "conn_keep_alive": 1}),
    "repeated Connection": (resp(b"Connection: keep-alive", b"Connection: x, close"), {"conn_close": 1, "conn_keep_alive": 1}),
    "other tokens": (resp(b"Connection: closed, xclose, keep-alive2, upgrade, clo se"), {}),
    "empty Connection": (resp(b"Connection:"), {}),
    "not Connection": (resp(b"Connectiom: close", b"Proxy-Connection: close", b"X-Content-Length: 4"), {}),
    "names that look alike": (resp(b"Content-Lengtx: 4", b"Transfer-Encodinx: chunked", b"Keep-Alivf: timeout=4"), {}),
    "Keep-Alive": (resp(b"Keep-Alive: timeout=5"), {"keep_alive_timeout": 5}),
    "Keep-Alive, any order": (resp(b"Keep-Alive: max=100 , TimeOut=15"), {"keep_alive_timeout": 15}),
    "Keep-Alive, quoted": (resp(b'Keep-Alive: timeout="15", max=3'), {"keep_alive_timeout": 15}),
    "Keep-Alive of 0": (resp(b"Keep-Alive: timeout=0"), {"keep_alive_timeout": 0}),
    "Keep-Alive, the last counts": (resp(b"Keep-Alive: timeout=9", b"Keep-Alive: timeout=7, timeout=x"), {"keep_alive_timeout": 7}),
    "Keep-Alive, unreadable": (resp(b"Keep-Alive: timeout=-5, timeout, timeout=, timeouts=3, xtimeout=4, timeout=5s, timeout=1e3, 8"), {}),
    "Keep-Alive, endless": (resp(b"Keep-Alive: timeout=9999999999"), {}),
    "empty values": (resp(b"X:", b"Y: ", b"Z:\t\t"), {"n_fields": 3}),
    "every tchar": (resp(b"!#$%&'*+-.^_`|~09azAZ: v"), {"n_fields": 1}),
    "every value byte": (resp(b"X: " + bytes(c for c in range(256) if c == 9 or (c >= 32 and c != 127))), {"n_fields": 1}),
    "colons": (resp(b"X::: a:b"), {"n_fields": 1}),
    "many fields": (resp(*(b"N%d: %d" % (i, i) for i in range(500))), {"n_fields": 500}),
}

UNSURE: dict[str, bytes] = {
    "empty line first": b"\r\n" + NGINX,
    "another protocol": resp(start=b"ICY 200 OK"),
    "HTTP/2 preface": b"\0\0\x12\x04\0\0\0\0\0",
    "HTTP/0.9": b"<html>",
    "lower case": resp(start=b"http/1.1 200 OK"),
    "HTTP/1.2": resp(start=b"HTTP/1.2 200 OK"),
    "HTTP/1.:": resp(start=b"HTTP/1.: 200 OK"),
    "HTTP/2.0": resp(start=b"HTTP/2.0 200 OK"),
    "HTTP/1.10": resp(start=b"HTTP/1.10 200 OK"),
    "two blanks": resp(start=b"HTTP/1.1  200 OK"),
    "tab": resp(start=b"HTTP/1.1\t200 OK"),
    "tab behind status": resp(start=b"HTTP/1.1 200\tOK"),
    "two digits": resp(start=b"HTTP/1.1 20 OK"),
    "four digits": resp(start=b"HTTP/1.1 2000 OK"),
    "no status": resp(start=b"HTTP/1.1"),
    "no status, blank": resp(start=b"HTTP/1.1 "),
    "cut status": resp(start=b"HTTP/1.1 20"),
    "status of letters": resp(start=b"HTTP/1.1 2x0 OK"),
    "99": resp(start=b"HTTP/1.1 099 OK"),
    "101": resp(start=b"HTTP/1.1 101 Switching Protocols"),
    "103": resp(b"Link: </a>", start=b"HTTP/1.1 103 Early Hints"),
    "199": resp(start=b"HTTP/1.1 199 X"),
    "600": resp(start=b"HTTP/1.1 600 X"),
    "100 with length": resp(b"Content-Length: 0", start=b"HTTP/1.1 100 Continue"),
    "100 with coding": resp(b"Transfer-Encoding: chunked", start=b"HTTP/1.1 100 Continue"),
    "reason with CR": resp(start=b"HTTP/1.1 200 O\rK"),
    "reason with NUL": resp(start=b"HTTP/1.1 200 O\0K"),
    "reason with DEL": resp(start=b"HTTP/1.1 200 O\x7fK"),
    "bare LF everywhere": NGINX.replace(b"\r\n", b"\n"),
    "bare LF behind the status": NGINX.replace(b"\r\n", b"\n", 1),
    "bare LF behind a field": resp(b"A: b\nC: d"),
    "bare LF at the end": b"HTTP/1.1 200 OK\r\nA: b\r\n\n",
    "LF CR LF": b"HTTP/1.1 200 OK\r\nA: b\n\r\n",
    "bare CR in a value": resp(b"A: b\rc"),
    "bare CR in a name": resp(b"A\rb: c"),
    "CR CR LF": b"HTTP/1.1 200 OK\r\nA: b\r\r\n\r\n",
    "folding": resp(b"A: b", b" c"),
    "folding by tab": resp(b"A: b", b"\tc"),
    "folding of the status line": resp(b" c"),
    "blank before the colon": resp(b"A : b"),
    "tab before the colon": resp(b"A\t: b"),
    "no colon": resp(b"A"),
    "no name": resp(b": b"),
    "blank in a name": resp(b"A b: c"),
    "obs-text in a name": resp(b"\xe9: c"),
    "NUL in a name": resp(b"A\0: c"),
    "NUL in a value": resp(b"A: b\0c"),
    "DEL in a value": resp(b"A: b\x7fc"),
    "control in a value": resp(b"A: 12345678\x01"),
    "empty length": resp(b"Content-Length:"),
    "blank length": resp(b"Content-Length:  "),
    "signed length": resp(b"Content-Length: +5"),
    "negative length": resp(b"Content-Length: -5"),
    "length of letters": resp(b"Content-Length: 0x5"),
    "length with point": resp(b"Content-Length: 5.0"),
    "length with blank": resp(b"Content-Length: 5 5"),
    "length list": resp(b"Content-Length: 5, 5"),
    "length list of one": resp(b"Content-Length: 5,"),
    "lengths that differ": resp(b"Content-Length: 5", b"Content-Length: 6"),
    "lengths that agree": resp(b"Content-Length: 5", b"Content-Length: 5"),
    "length just too large": resp(b"Content-Length: 9223372036854775808"),
    "length of 20 digits": resp(b"Content-Length: 99999999999999999999"),
    "20 digits with zeros": resp(b"Content-Length: 00000000000000000017"),
    "length of 2**64 + 5": resp(b"Content-Length: 18446744073709551621"),
    "arabic digits": resp(b"Content-Length: \xd9\xa5"),
    "coding and length": resp(b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    "length and coding": resp(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "coding twice": resp(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "coding list": resp(b"Transfer-Encoding: gzip, chunked"),
    "coding list of one": resp(b"Transfer-Encoding: chunked,"),
    "unknown coding": resp(b"Transfer-Encoding: xchunked"),
    "identity": resp(b"Transfer-Encoding: identity"),
    "coding with parameter": resp(b"Transfer-Encoding: chunked;a=b"),
    "quoted coding": resp(b'Transfer-Encoding: "chunked"'),
    "coding with vertical tab": resp(b"Transfer-Encoding: \x0bchunked"),
    "empty coding": resp(b"Transfer-Encoding:"),
    "coding in HTTP/1.0": resp(b"Transfer-Encoding: chunked", start=b"HTTP/1.0 200 OK"),
}

good = pytest.mark.parametrize(("data", "differs"), GOOD.values(), ids=GOOD.keys())
unsure = pytest.mark.parametrize("data", UNSURE.values(), ids=UNSURE.keys())


def expected(facts: dict[str, int] | None, differs: dict[str, int]) -> None:
    assert facts is not None
    assert {k: facts[k] for k in (*PLAIN, *differs)} == {**PLAIN, **differs}


@good
def test_decided(data: bytes, differs: dict[str, int]) -> None:
    for behind in (b"", b"HTTP/1.1 500 No\r\nContent-Length: 1\r\n\r\n", b"\r\n\r\n", b"\n", b"\0" * 9):
        status, facts, scanned = testing.head(data + behind)
        assert status == "ok"
        expected(facts, differs)
        assert facts is not None
        assert facts["size"] == scanned == len(data)
        # The offsets cut the head where they say.
        start, _, block = data[:-2].partition(b"\r\n")
        assert data[facts["reason_off"]:facts["reason_off"] + facts["reason_len"]] == start[13:]
        assert data[facts["fields_off"]:facts["fields_off"] + facts["fields_len"]] == block
        assert facts["n_fields"] == block.count(b"\r\n")


@good
def test_decided_however_it_is_split(data: bytes, differs: dict[str, int]) -> None:
    whole = testing.head(data)
    body = b"x\r\n\r\n"
    ways = [list(range(len(data))), *([i] for i in range(len(data)))]
    for splits in ways[:400]:
        status, facts, there = testing.head_in_pieces(data + body, splits)
        assert (status, facts) == whole[:2]
        assert there == len(data + body)
    assert testing.head_in_pieces(data + body, range(len(data) + 1))[2] == len(data)


@unsure
def test_left_to_h11(data: bytes) -> None:
    assert testing.head(data)[0] == "unsure"
    assert testing.head_in_pieces(data, range(len(data)))[0] == "unsure"
    for i in range(len(data)):
        assert testing.head_in_pieces(data, [i])[0] == "unsure"
        assert testing.head(data[:i])[0] in ("more", "unsure")


@good
def test_no_prefix_is_decided(data: bytes, differs: dict[str, int]) -> None:
    for i in range(min(len(data), 1000)):
        assert testing.head(data[:i]) == ("more", None, i)


def test_each_byte_is_searched_once() -> None:
    head = resp(*(b"N%d: %d" % (i, i) for i in range(200)))
    scanned = 0
    for end in range(len(head)):
        # What lies before `scanned` is not searched again: an end that would be found there is not.
        status, _, scanned = testing.head(head[:end], scanned=scanned)
        assert (status, scanned) == ("more", end)
    assert testing.head(head + b"more", scanned=scanned)[0] == "ok"
    assert testing.head(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 30, scanned=30)[0] == "more"


def test_a_start_that_cannot_be_http_is_not_waited_for() -> None:
    for data in (b"\r", b"\x16\x03\x01", b"<", b"h", b"HTTP/2", b"HTTPS", b"HTTP/1,"):
        assert testing.head(data)[0] == "unsure"
    for data in (b"", b"H", b"HTTP/1", b"HTTP/1.", b"HTTP/1.9"):
        assert testing.head(data)[0] == "more"


def test_limit() -> None:
    size = len(NGINX)
    assert testing.head(NGINX, max_head=size)[0] == "ok"
    assert testing.head(NGINX + b"body" * 999, max_head=size)[0] == "ok"
    assert testing.head(NGINX, max_head=size - 1)[0] == "unsure"
    assert testing.head(NGINX[:-1], max_head=size)[0] == "more"
    assert testing.head(NGINX[:-1], max_head=size - 1)[0] == "unsure"
    assert testing.head_in_pieces(NGINX, range(size), max_head=100) == ("unsure", None, 100)
    # A limit below the smallest head, or none at all.
    assert testing.head(b"HTTP/1.1 200\r\n\r\n", max_head=0)[0] == "unsure"
    assert testing.head(NGINX, max_head=2**63)[0] == "ok"


@pytest.mark.parametrize("position", range(len(NGINX)))
def test_every_byte_at_every_place(position: int) -> None:
    """With any byte of a good head replaced by any other: decided only where the result still is a plain head."""
    token = set(b"!#$%&'*+-.^_`|~") | set(range(48, 58)) | set(range(65, 91)) | set(range(97, 123))
    value = {9, *range(32, 127), *range(128, 256)}
    for c in range(256):
        data = bytearray(NGINX)
        data[position] = c
        status, facts, _ = testing.head(bytes(data))
        if status != "ok":
            continue
        assert facts is not None
        size = facts["size"]
        start, *lines = bytes(data[:size]).split(b"\r\n")
        assert lines[-2:] == [b"", b""]
        assert start[:9] in (b"HTTP/1.1 ", b"HTTP/1.0 ")
        assert start[9:12].isdigit() and (200 <= int(start[9:12]) <= 599 or start[9:12] == b"100")
        assert start[12:13] in (b"", b" ") and set(start[12:]) <= value
        for line in lines[:-2]:
            name, colon, rest = line.partition(b":")
            assert colon and name and set(name) <= token and set(rest) <= value
            if name.lower() == b"content-length":
                assert rest.strip(b" \t").isdigit() and int(rest) == facts["content_length"]


@pytest.mark.parametrize("data", [*(d for d, _ in GOOD.values() if len(d) < PAGE), *UNSURE.values()])
def test_never_reads_past_the_end_or_before_the_start(data: bytes) -> None:
    with guarded() as memory:
        for i in range(len(data) + 1):
            there = testing.head(data[:i])
            assert testing.head_at(memory.at_end(data[:i]), i) == there
            assert testing.head_at(memory.at_start(data[:i]), i) == there
            # Resumed in the last bytes, where it looks back.
            for back in range(1, min(i, 5) + 1):
                if testing.head(data[:i - back])[0] == "more":
                    assert testing.head_at(memory.at_end(data[:i]), i, scanned=i - back)[:2] == there[:2]


def test_the_guard_page_bites() -> None:
    code = ("from pooledhttp._proto import testing\nfrom tests.proto.guard import guarded\n"
            "with guarded() as m:\n    testing.head_at(m.at_end(b'HTTP/1.1 200 OK'), 16)\n")
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False)
    assert done.returncode in (-signal.SIGSEGV, -signal.SIGBUS)
