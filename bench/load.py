"""One client's load, in a process of its own: `python load.py CLIENT URL THREADS SECONDS` prints requests per second.

Each client is used as its documentation says is fastest for threads: one shared client where it is thread-safe, a handle a thread where it is not.
"""
from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable


def pooledhttp_get(url: str) -> Callable[[], Callable[[], int]]:
    import pooledhttp

    client = pooledhttp.Client(verify=False) if url.startswith("https") else pooledhttp.Client()

    def worker() -> Callable[[], int]:
        get = client.get
        return lambda: len(get(url).content)

    return worker


def pyreqwest_get(url: str) -> Callable[[], Callable[[], int]]:
    from pyreqwest.client import SyncClientBuilder

    client = SyncClientBuilder().danger_accept_invalid_certs(True).http1_only().build()

    def worker() -> Callable[[], int]:
        return lambda: len(client.get(url).build().send().bytes())

    return worker


def pycurl_get(url: str) -> Callable[[], Callable[[], int]]:
    import pycurl

    def worker() -> Callable[[], int]:
        from io import BytesIO

        c = pycurl.Curl()
        c.setopt(pycurl.URL, url)
        c.setopt(pycurl.SSL_VERIFYPEER, 0)
        c.setopt(pycurl.SSL_VERIFYHOST, 0)
        c.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        c.setopt(pycurl.NOSIGNAL, 1)

        def get() -> int:
            out = BytesIO()
            c.setopt(pycurl.WRITEDATA, out)
            c.perform()
            return len(out.getvalue())

        return get

    return worker


def urllib3_get(url: str) -> Callable[[], Callable[[], int]]:
    import urllib3

    pool = urllib3.PoolManager(maxsize=64, cert_reqs="CERT_NONE")

    def worker() -> Callable[[], int]:
        return lambda: len(pool.request("GET", url).data)

    return worker


CLIENTS = {"pooledhttp": pooledhttp_get, "pyreqwest": pyreqwest_get, "pycurl": pycurl_get, "urllib3": urllib3_get}


def main() -> None:
    name, url, threads, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    make = CLIENTS[name](url)
    size = make()()
    counts = [0] * threads
    start = threading.Barrier(threads + 1)
    end = [0.0]

    def run(i: int) -> None:
        get = make()
        if get() != size:
            raise SystemExit("a different answer")
        start.wait()
        n = 0
        while time.perf_counter() < end[0]:
            for _ in range(10):
                if get() != size:
                    raise SystemExit("a different answer")
            n += 10
        counts[i] = n

    workers = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
    for w in workers:
        w.start()
    end[0] = time.perf_counter() + seconds
    began = time.perf_counter()
    start.wait()
    for w in workers:
        w.join()
    took = time.perf_counter() - began
    print(f"{sum(counts) / took:.0f}")


if __name__ == "__main__":
    main()
