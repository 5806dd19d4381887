"""map on executors of the caller's: of threads, of processes, and of other makes, which keep only what the interface promises."""
from __future__ import annotations

import gc
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pooledhttp import Cancelled, Client, ConnectError, DeadlineExceeded, InvalidURL, MockTransport, ReadError, Request, Response, StreamConsumed

from .server import Server, Spy


def mock(handler: Callable[[Request], Response]) -> Client:
    return Client(transport=MockTransport(handler))


def urls(n: int) -> list[str]:
    return [f"http://h/{i}" for i in range(n)]


def number(response: Response) -> int:
    assert response.url is not None
    return int(response.url.path[1:])


def ends(what: Callable[[], bool], say: str) -> None:
    until = time.monotonic() + 10
    while not what():
        assert time.monotonic() < until, say
        time.sleep(0.002)


# --- threads -------------------------------------------------------------------------------------------------------------------------


def test_several_maps_share_one(client: Client, server: Server) -> None:
    with ThreadPoolExecutor(2) as executor:
        maps = [client.map([f"{server.url}/number/{10 * m + i}" for i in range(10)], executor=executor) for m in range(4)]
        got = [[int(r.content) for r in results] for results in zip(*maps, strict=True)]
    assert got == [[10 * m + i for m in range(4)] for i in range(10)]


def test_leaving_one_leaves_the_others_and_the_executor_alone(client: Client, spy: Spy, server: Server) -> None:
    with ThreadPoolExecutor(4) as executor:
        left = client.map([server.url + "/number/1", *[server.url + "/held"] * 6], executor=executor)
        next(left)
        for _ in range(4):
            assert server.held.acquire(timeout=10)
        other = client.map([f"{server.url}/number/{i}" for i in range(10)], executor=executor)
        left.close()  # type: ignore[attr-defined]
        assert [int(r.content) for r in other] == list(range(10))
        assert executor.submit(int, "5").result(10) == 5
    assert spy.stats().active == 0


@pytest.mark.parametrize("return_exceptions", [True, False])
def test_one_that_was_shut_down(return_exceptions: bool) -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        list(mock(lambda request: Response(200)).map(urls(3), executor=executor, return_exceptions=return_exceptions))


def test_one_that_is_shut_down_in_the_midst() -> None:
    """What was begun is yielded, then it is said."""
    executor = ThreadPoolExecutor(1)
    seen = []
    with pytest.raises(RuntimeError, match="shutdown"):
        for r in mock(lambda request: Response(200)).map(urls(50), executor=executor, workers=2):
            seen.append(number(r))
            if number(r) == 5:
                executor.shutdown(wait=False)
    assert seen == list(range(len(seen)))
    assert 6 <= len(seen) <= 5 + 4 + 1


def test_one_that_cancels_is_seen() -> None:
    hold, begun = threading.Event(), threading.Event()

    def handler(request: Request) -> Response:
        begun.set()
        hold.wait(10)
        return Response(200)

    with ThreadPoolExecutor(1) as executor:
        results = mock(handler).map(urls(3), executor=executor, workers=2, return_exceptions=True)

        def shut() -> None:
            begun.wait(10)
            ends(lambda: executor._work_queue.qsize() >= 2, "the others are not queued")
            executor.shutdown(wait=False, cancel_futures=True)
            hold.set()

        thread = threading.Thread(target=shut)
        thread.start()
        kinds = [type(r) for r in results]
        thread.join()
    assert kinds == [Response, Cancelled, Cancelled]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("size", [1, 2])
def test_a_map_within_a_task_of_the_same_executor(size: int, ordered: bool) -> None:
    """Its threads may all be waiting for such maps: each then does its own."""
    client = mock(lambda request: Response(200))

    def task(depth: int) -> int:
        if depth == 0:
            return 1
        return sum(1 for _ in client.map(urls(7), executor=executor, ordered=ordered)) + nested(depth - 1)

    def nested(depth: int) -> int:
        def handler(request: Request) -> Response:
            return Response(200, content=str(task(depth)))

        return sum(int(r.text) for r in mock(handler).map(urls(3), executor=executor, ordered=ordered))

    with ThreadPoolExecutor(size) as executor:
        futures = [executor.submit(task, 2) for _ in range(4)]
        assert [future.result(20) for future in futures] == [7 + 3 * (7 + 3)] * 4


# --- processes -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        list(executor.map(abs, range(4)))               # started, and none of them a test's
        yield executor
    del executor
    gc.collect()                                        # its pipes close with it, and not within another's test


def test_processes_keep_a_pool_each(server: Server, processes: ProcessPoolExecutor, tmp_path: Path) -> None:
    with Client(idle_conn_timeout=60, headers={"X-Mine": "m"}, timeout=30) as client:
        answers = list(client.map([f"{server.url}/echo?{i}" for i in range(40)], executor=processes))
        told = [r.json() for r in answers]
        assert [t["target"] for t in told] == [f"/echo?{i}" for i in range(40)]
        assert ["X-Mine", "m"] in told[0]["headers"]
        assert 1 <= len({r.conn.local_addr for r in answers}) <= 2  # type: ignore[union-attr]
        assert sum(not r.conn.reused for r in answers) <= 2  # type: ignore[union-attr]
        assert client.transport.stats().requests == 0
        assert answers[3].url == f"{server.url}/echo?3"
        assert answers[3].request.method == "GET"  # type: ignore[union-attr]
        assert answers[3].elapsed.total_seconds() > 0
    _close_in(processes, tmp_path)


def _close_in(processes: ProcessPoolExecutor, directory: Path) -> None:
    """Nothing idles in the children any more: the server waits for its connections to end."""
    assert len(set(processes.map(_close_all, [str(directory)] * 2))) == 2


def _close_all(directory: str) -> int:
    """In a child, and in each: a task ends when the other one's has come."""
    from pooledhttp import default_transport, interned

    for entry in list(interned._entries.values()):
        entry.transport.close_idle_connections()
    default_transport().close_idle_connections()
    (Path(directory) / f"closed-{os.getpid()}").touch()
    ends(lambda: len(list(Path(directory).glob("closed-*"))) == 2, "the other process does not come")
    return os.getpid()


def test_streams_requests_and_failures_travel(server: Server, processes: ProcessPoolExecutor, tmp_path: Path) -> None:
    given: list[Any] = [("PUT", server.url + "/echo"), Request("POST", server.url + "/echo", content=b"body"), server.url + "/bytes/100000", "nonsense",
                        "http://127.0.0.1:1/", 5, Request("POST", server.url + "/echo", content=iter([b"gone"])), server.url + "/held"]
    with Client(timeout=30) as client:
        put, post, large, nonsense, refused, five, gone, late = client.map(given, executor=processes, stream=True, timeout=1, return_exceptions=True)
    assert (put.json()["method"], post.json()["body"], len(large.content)) == ("PUT", "body", 100000)  # type: ignore[union-attr]
    assert [type(e) for e in (nonsense, refused, five, gone, late)] == [InvalidURL, ConnectError, TypeError, StreamConsumed, DeadlineExceeded]
    assert [e.request for e in (nonsense, five)] == ["nonsense", 5]  # type: ignore[union-attr]
    assert refused.request.url == "http://127.0.0.1:1/"  # type: ignore[union-attr]
    assert (late.phase, late.request.url) == ("headers", server.url + "/held")  # type: ignore[union-attr]
    _close_in(processes, tmp_path)


def wait_for_a_file(request: Request) -> Response:
    if request.url.path != "/now":
        directory = Path(request.url.path)
        (directory / f"begun-{os.getpid()}").touch()
        ends((directory / "go").exists, "nobody says go")
    return Response(200)


def test_leaving_does_not_wait_for_processes(processes: ProcessPoolExecutor, tmp_path: Path) -> None:
    times = []
    client = Client(transport=MockTransport(wait_for_a_file))
    for n in range(3):
        directory = tmp_path / str(n)
        directory.mkdir()
        results = client.map(["http://h/now", *[f"http://h{directory}"] * 30], executor=processes, workers=8)
        next(results)
        ends(lambda here=directory: bool(list(here.glob("begun-*"))), "none is begun")  # type: ignore[misc]
        began = time.monotonic()
        results.close()  # type: ignore[attr-defined]
        times.append(time.monotonic() - began)
        (directory / "go").touch()
        assert list(processes.map(abs, range(4))) == list(range(4))              # what was queued was taken back
    assert sorted(times)[1] < 0.1, times


def test_what_cannot_travel_fails_at_its_turn(processes: ProcessPoolExecutor) -> None:
    with pytest.raises(Exception, match="pickle|local object"):
        list(mock(lambda request: Response(200)).map(urls(3), executor=processes))


def kill(request: Request) -> Response:
    if request.url.path == "/2":
        os._exit(1)
    return Response(200, content=request.url.path)


def test_a_process_that_dies() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        seen = []
        with pytest.raises(BrokenExecutor):
            for r in Client(transport=MockTransport(kill)).map(urls(20), executor=executor):
                seen.append(r.text)
    assert seen in ([], ["/0"], ["/0", "/1"])


# --- other makes ---------------------------------------------------------------------------------------------------------------------


class Theirs:
    """A future of another library: the four methods that map needs, and no kinship."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._state = "waiting"
        self._value: Any = None
        self._calls: list[Callable[[Any], object]] = []

    def begin(self) -> bool:
        with self._lock:
            if self._state != "waiting":
                return False
            self._state = "running"
            return True

    def end(self, state: str, value: Any) -> None:
        with self._lock:
            self._state, self._value = state, value
            calls, self._calls = self._calls, []
        for call in calls:
            call(self)

    def add_done_callback(self, call: Callable[[Any], object]) -> None:
        with self._lock:
            if self._state in ("waiting", "running"):
                self._calls.append(call)
                return
        call(self)

    def cancel(self) -> bool:
        with self._lock:
            if self._state != "waiting":
                return False
        self.end("cancelled", None)
        return True

    def cancelled(self) -> bool:
        return self._state == "cancelled"

    def exception(self) -> BaseException | None:
        return self._value if self._state == "failed" else None

    def result(self) -> Any:
        return self._value


class Cluster(Executor):
    """Threads behind futures of its own, as Dask's and Ray's: submit, and nothing else of an executor."""

    def __init__(self, size: int) -> None:
        self.inner = ThreadPoolExecutor(size)
        self.made: list[Theirs] = []

    def submit(self, call: Any, *args: Any, **kw: Any) -> Any:  # type: ignore[override]
        future = Theirs()
        self.made.append(future)

        def work() -> None:
            if not future.begin():
                return
            try:
                value = call(*args, **kw)
            except BaseException as e:
                future.end("failed", e)
            else:
                future.end("done", value)

        self.inner.submit(work)
        return future


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(3)
    yield cluster
    cluster.inner.shutdown()


def test_futures_of_another_make(client: Client, server: Server, cluster: Cluster) -> None:
    assert [int(r.content) for r in client.map([f"{server.url}/number/{i}" for i in range(30)], executor=cluster)] == list(range(30))
    assert sorted(int(r.content) for r in client.as_completed([f"{server.url}/number/{i}" for i in range(30)], executor=cluster)) == list(range(30))
    with pytest.raises(InvalidURL) as e:
        list(client.map([server.url + "/number/1", "nonsense"], executor=cluster))
    assert e.value.request == "nonsense"


def test_leaving_cancels_theirs(client: Client, spy: Spy, server: Server, cluster: Cluster) -> None:
    """What was not begun by their cancel; what runs in this process by ours."""
    results = client.map([server.url + "/number/1", *[server.url + "/held"] * 9], executor=cluster, workers=5)
    next(results)
    for _ in range(3):
        assert server.held.acquire(timeout=10)
    results.close()  # type: ignore[attr-defined]
    assert spy.stats().active == 0
    assert [future._state for future in cluster.made] == ["done"] + ["failed"] * 3 + ["cancelled"] * 6


class AtOnce(Executor):
    """Does it in submit."""

    def submit(self, call: Any, *args: Any, **kw: Any) -> Any:  # type: ignore[override]
        future: Future[Any] = Future()
        try:
            future.set_result(call(*args, **kw))
        except BaseException as e:
            future.set_exception(e)
        return future


@pytest.mark.parametrize("ordered", [True, False])
def test_one_that_does_it_at_once(ordered: bool) -> None:
    def handler(request: Request) -> Response:
        if request.url.path == "/3":
            raise ReadError("broke")
        return Response(200)

    kinds = [type(r) for r in mock(handler).map(urls(6), executor=AtOnce(), ordered=ordered, return_exceptions=True)]
    assert kinds == [Response, Response, Response, ReadError, Response, Response]


@pytest.mark.parametrize("method", ["cancelled", "exception", "result"])
def test_a_future_that_raises_does_not_hang_the_loop(method: str, monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    def broken(self: Theirs) -> Any:
        raise LookupError("theirs")

    listened = threading.Event()

    def handler(request: Request) -> Response:
        ends(lambda: listened.is_set() or (len(cluster.made) == 3 and bool(cluster.made[2]._calls)), "the loop does not listen")
        listened.set()
        return Response(200)

    monkeypatch.setattr(Theirs, method, broken)
    with pytest.raises(LookupError, match="theirs"):
        list(mock(handler).map(urls(3), executor=cluster))


def test_an_executor_whose_size_is_no_number(cluster: Cluster) -> None:
    cluster._max_workers = "many"  # type: ignore[attr-defined]
    assert len(list(mock(lambda request: Response(200)).map(urls(3), executor=cluster))) == 3
