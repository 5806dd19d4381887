"""A batch job as a program, over processes of several makes; it says in JSON what it saw. Run by the tests: `python -m tests.batch.jobs MAKE URL`."""
from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from pooledhttp import Cancelled, Client, Context

TASKS = 40
Run = Callable[[Callable[..., Any], "list[tuple[Any, ...]]"], "list[Any]"]


def fetch(client: Client, url: str) -> tuple[int, int]:
    """A task that brings its client along: (process, what the server said)."""
    return os.getpid(), int(client.get(url).raise_for_status().text)


@contextmanager
def dask() -> Iterator[tuple[Executor, Run]]:
    import distributed

    library: Any = distributed                 # not typed
    with (library.LocalCluster(n_workers=2, threads_per_worker=2, processes=True, host="127.0.0.1", dashboard_address=None) as cluster,
          library.Client(cluster) as dask, dask.get_executor(pure=False) as executor):
        def run(task: Callable[..., Any], calls: list[tuple[Any, ...]]) -> list[Any]:
            return list(dask.gather([dask.submit(task, *call, pure=False) for call in calls]))

        yield executor, run


@contextmanager
def pool(method: str) -> Iterator[tuple[Executor, Run]]:
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as executor, context.Pool(2) as pool:
        yield executor, lambda task, calls: pool.starmap(task, calls, chunksize=1)


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 15
    while not what():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.01)


def failure(e: Any) -> dict[str, Any]:
    """What of an exception has travelled."""
    request, conn, response = getattr(e, "request", None), getattr(e, "conn", None), getattr(e, "response", None)
    return {"kind": type(e).__name__, "text": str(e), "phase": getattr(e, "phase", None),
            "method": getattr(request, "method", None), "url": getattr(request, "url", None),
            "peer": conn.remote_addr[1] if conn is not None else None, "source": getattr(e, "source", None),
            "answer": [response.status_code, response.text, response.conn.requests > 0] if response is not None else None}


def main(make: str, url: str) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    with ExitStack() as stack:
        here = stack.enter_context(Client(timeout=20))
        executor, run = stack.enter_context(dask() if make == "dask" else pool(make))

        def count(name: str) -> int:
            return int(here.get(f"{url}/count/{name}").text)

        # Tasks that bring their client along: a pickle each, one transport a process.
        before = count("accepted")
        with Client(idle_conn_timeout=60, timeout=20) as client:
            got = run(fetch, [(client, f"{url}/number/{n}") for n in range(TASKS)])
        seen["tasks"] = {"processes": len({pid for pid, _ in got}), "right": [n for _, n in got] == list(range(TASKS)),
                         "connections": count("accepted") - before}

        # map on the executor.
        before = count("accepted")
        with Client(max_idle_conns=50, timeout=20) as client:
            answers = list(client.map([f"{url}/number/{n}" for n in range(TASKS)], executor=executor, workers=4))
        seen["map"] = {"right": [int(r.text) for r in answers] == list(range(TASKS)), "connections": count("accepted") - before,
                       "conn": answers[-1].conn is not None and answers[-1].conn.remote_addr is not None, "request": answers[3].request.method}  # type: ignore[union-attr]

        # What fails.
        with Client(timeout=20, raise_for_status=True, max_idle_conns=51) as client:
            given: list[Any] = [f"{url}/status/404", "http://127.0.0.1:1/", ("POST", f"{url}/hang")]
            seen["failures"] = [failure(e) for e in client.map(given, executor=executor, timeout=0.5, return_exceptions=True)]

        # A context's deadline goes along.
        wait_for(lambda: count("hanging") == 0)
        began = time.monotonic()
        with Client(timeout=20, max_idle_conns=52) as client, Context(timeout=0.6):
            late = list(client.map([f"{url}/hang"] * 2, executor=executor, return_exceptions=True))
        seen["deadline"] = {"seconds": time.monotonic() - began, "errors": [failure(e) for e in late]}

        # A cancel reaches what runs there.
        wait_for(lambda: count("hanging") == 0)
        with Client(timeout=20, max_idle_conns=53) as client:
            context = Context()
            cancelled: list[Any] = []
            thread = threading.Thread(target=lambda: cancelled.extend(
                client.map([f"{url}/hang"] * 2, executor=executor, context=context, return_exceptions=True)))
            thread.start()
            wait_for(lambda: count("hanging") == 2)
            began = time.monotonic()
            context.cancel("enough")
            wait_for(lambda: count("hanging") == 0)
            seen["cancel"] = {"seconds": time.monotonic() - began}
            thread.join()
            seen["cancel"]["errors"] = [type(e).__name__ for e in cancelled]
            seen["cancel"]["is"] = all(isinstance(e, Cancelled) for e in cancelled)

        # And leaving the loop.
        with Client(timeout=20, max_idle_conns=54) as client:
            results = client.map([f"{url}/number/1", *[f"{url}/hang"] * 30], executor=executor, workers=3)
            next(results)
            wait_for(lambda: count("hanging") >= 2)
            began = time.monotonic()
            results.close()  # type: ignore[attr-defined]
            left = time.monotonic() - began
            wait_for(lambda: count("hanging") == 0)
            seen["left"] = {"seconds": left, "all": time.monotonic() - began}
            seen["after"] = run(fetch, [(client, f"{url}/number/7")])[0][1]
    return seen


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
