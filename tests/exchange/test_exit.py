"""The interpreter's end while something is still under way: no hang, no crash, not a word."""
from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.peer import Conn, Peer, respond
from tests.support.processes import PATIENCE, ROOT

BEGIN = """
import atexit, sys, threading, time
import pooledhttp
from pooledhttp import Client, Context, Error
base = sys.argv[1]
client = Client()
def hung():
    try:
        client.get(base + "/never", timeout=1.0)
    except Error:
        pass
def asked(n=1):
    while client.transport.stats().active < n:
        time.sleep(0.001)
"""
CASES = {
    "in a daemon thread": "threading.Thread(target=client.get, args=(base + '/never',), daemon=True).start(); asked()",
    "in daemon threads, many": "[threading.Thread(target=client.get, args=(base + '/never',), daemon=True).start() for _ in range(20)]; asked(20)",
    "in a thread that is waited for": "threading.Thread(target=hung).start(); asked()",
    "unclosed client": "client.get(base + '/')",
    "inside atexit": "atexit.register(lambda: print(client.get(base + '/').text)); client.get(base + '/')",
    "first used inside atexit": "atexit.register(lambda: print(pooledhttp.get(base + '/').text))",
    "inside __del__": """
class Late:
    def __del__(self, client=client, base=base, Error=Error):
        try:
            client.get(base + '/', timeout=1.0)
        except (Error, RuntimeError):
            pass
late = Late()
late.itself = late
sys.modules["late"] = late
client.get(base + '/')
""",
    "traced, and collected when nothing can be imported any more": """
class Late:
    def __del__(self):
        self.client = None
sys.late = Late()
sys.late.client = Client(trace=pooledhttp.Trace())
sys.late.client.get(base + '/')
""",
    "map loop half-way": "loop = client.map([base + '/'] * 50, workers=4); next(loop)",
    "map loop half-way, hung": "loop = client.map([base + '/'] + [base + '/never'] * 9, workers=4, timeout=1.0); next(loop)",
    "drain pending": "r = client.request('GET', base + '/stuck', stream=True); r.close()",
    "ambient context": "Context(timeout=5).__enter__(); client.get(base + '/')",
    "cancelled in a thread": """
ctx = Context()
def work():
    try:
        client.get(base + '/never', context=ctx)
    except Error:
        pass
threading.Thread(target=work).start()
asked()
atexit.register(ctx.cancel)
threading._register_atexit(ctx.cancel)
""",
}


def script(conn: Conn, i: int) -> None:
    while True:
        path = conn.recv_request()[0].split(b" ")[1]
        if path == b"/never":
            conn.recv_until_closed()
            return
        if path == b"/stuck":
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
            conn.recv_until_closed()
            return
        conn.send(respond(b"fine"))


def run(code: str, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", BEGIN + code, url], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE,
                          check=False)


@pytest.mark.parametrize("case", CASES)
def test_the_end(peer: Callable[..., Peer], case: str) -> None:
    done = run(CASES[case], peer(script).url()[:-1])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ("fine\n" if "atexit" in case else "")


def test_a_stream_left_unread_is_warned_of_and_no_more(peer: Callable[..., Peer]) -> None:
    """By the rule for every response that is collected unclosed; -W error makes that line a traceback of Python's."""
    done = run("warnings = __import__('warnings'); warnings.simplefilter('ignore', ResourceWarning)\n"
               "r = client.request('GET', base + '/stuck', stream=True)", peer(script).url()[:-1])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
