"""The programs that are counted: `python inside.py NAME JSON`, with `marks` on the path. Prints what it found, if anything, as JSON."""
from __future__ import annotations

import ctypes
import gc
import http.client
import json
import resource
import ssl
import sys
from collections import deque
from collections.abc import Callable
from itertools import repeat
from typing import Any
from urllib.parse import urlsplit

import marks  # type: ignore[import-not-found,unused-ignore]

import pooledhttp

SIZE = 1024              # of the answers
WARM = 200               # requests before the first window: the interpreter has specialised its code, the server said all that it says once
WINDOWS = 6


def windows(name: str, what: Callable[[object], object], times: int) -> None:
    # Called from C, so that callgrind sees the interpreter's loop being entered, and knows its name.
    for _ in range(WINDOWS):
        marks.begin()
        deque(map(what, repeat(None, times)), 0)
        marks.end(name)


def of_us(client: pooledhttp.Client, url: str) -> Callable[[object], None]:
    get = client.get

    def one(_: object) -> None:
        if len(get(url).content) != SIZE:
            raise AssertionError("a body of another length")

    return one


def of_the_library(url: str, ca: str) -> Callable[[object], None]:
    """http.client: what instructions are compared with where the budget does not know this machine's Python."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = (http.client.HTTPSConnection(parts.hostname, parts.port, context=ssl.create_default_context(cafile=ca)) if parts.scheme == "https"
                  else http.client.HTTPConnection(parts.hostname, parts.port))

    def one(_: object) -> None:
        connection.request("GET", parts.path)
        if len(connection.getresponse().read()) != SIZE:
            raise AssertionError("a body of another length")

    return one


def instructions(plain: str, tls: str, ca: str, times: int) -> None:
    with pooledhttp.Client(verify=ca) as client:
        for kind, url in (("plain", plain), ("tls", tls)):
            for name, one in ((f"{kind}_get", of_us(client, url)), (f"{kind}_http_client", of_the_library(url, ca))):
                for _ in range(WARM):
                    one(None)
                windows(name, one, times if name.endswith("get") else times // 4)
    for _ in range(WARM):
        pooledhttp.Client()
    windows("client", lambda _: pooledhttp.Client(), times)


def releases(plain: str, tls: str, ca: str, times: int) -> dict[str, float]:
    """Releases of the GIL a request; the pool's own module is left out, whose janitor looks around by the clock."""
    def so_far() -> int:
        return sum(module.gil_releases() for name, module in list(sys.modules.items())
                   if name.startswith("pooledhttp.") and name != "pooledhttp._pool.pool" and hasattr(module, "gil_releases"))

    found = {}
    with pooledhttp.Client(verify=ca) as client:
        for kind, url in (("plain", plain), ("tls", tls)):
            one = of_us(client, url)
            for _ in range(WARM):
                one(None)
            before = so_far()
            for _ in range(times):
                one(None)
            found[f"{kind}_releases"] = (so_far() - before) / times
    return found


class MallInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""
    _fields_ = [(name, ctypes.c_size_t) for name in
                ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]


def allocated() -> int:
    """Bytes that malloc has given out. With PYTHONMALLOC=malloc that is all memory there is, but for stacks and modules."""
    gc.collect()
    asked = ctypes.CDLL(None).mallinfo2
    asked.restype = MallInfo
    found = asked()
    return int(found.uordblks) + int(found.hblkhd)


def idle(url: str, few: int, many: int) -> dict[str, float]:
    """Bytes of an idle connection: to one host, and each to a host of its own (addresses of this machine, all of which `url` is served on)."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def hold(client: pooledhttp.Client, n: int) -> None:
        for response in [client.get(url, stream=True) for _ in range(n)]:
            response.read()

    def hold_hosts(client: pooledhttp.Client, n: int) -> None:
        for i in range(n):
            client.get(url.replace("127.0.0.1", f"127.0.{i // 250}.{i % 250 + 1}", 1))

    found = {}
    for name, method in (("idle_connection", hold), ("idle_host", hold_hosts)):
        with pooledhttp.Client(max_idle_conns=0, max_idle_conns_per_host=0) as client:
            sizes = []
            for n in (few, many):
                method(client, n)
                if (idling := client.transport.stats().idle) != n:
                    raise AssertionError(f"{idling} connections idle, not {n}")
                sizes.append(allocated())
        found[name] = (sizes[1] - sizes[0]) / (many - few)
    return found


def main() -> None:
    programs: dict[str, Callable[..., Any]] = {"instructions": instructions, "releases": releases, "idle": idle}
    print(json.dumps(programs[sys.argv[1]](**json.loads(sys.argv[2]))))


if __name__ == "__main__":
    main()
