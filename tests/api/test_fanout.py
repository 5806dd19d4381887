"""map and as_completed: order, what is taken ahead, failures, and leaving early."""
from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest

from pooledhttp import Cancelled, Client, InvalidURL, MockTransport, ReadError, Request, Response, StreamClosed

from .server import Server, Spy


def mock(handler: Callable[[Request], Response]) -> Client:
    return Client(transport=MockTransport(handler))


def number(response: Response) -> int:
    assert response.url is not None
    return int(response.url.path[1:])


def urls(n: int | None = None) -> Iterator[str]:
    return (f"http://h/{i}" for i in (itertools.count() if n is None else range(n)))


def mapping_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pooledhttp-map")]


@pytest.fixture(params=["threads", "executor"])
def pool(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Options that let four workers do it, our own or an executor's."""
    if request.param == "threads":
        yield {"workers": 4}
    else:
        with ThreadPoolExecutor(4) as executor:
            yield {"executor": executor}


def test_answers_in_order_over_a_wire(client: Client, server: Server, pool: dict[str, Any]) -> None:
    answers = list(client.map([f"{server.url}/number/{i}" for i in range(50)], **pool))
    assert [int(r.content) for r in answers] == list(range(50))
    assert mapping_threads() == []


def test_every_kind_of_request(client: Client, server: Server, pool: dict[str, Any]) -> None:
    url = server.url + "/echo"
    requests = [url, ("PUT", url), Request("PATCH", url, headers={"X": "mine"}), client.build_request("DELETE", url), ["post", url]]
    told = [r.json() for r in client.map(requests, timeout=10, **pool)]
    assert [t["method"] for t in told] == ["GET", "PUT", "PATCH", "DELETE", "POST"]
    assert ["X", "mine"] in told[2]["headers"]
    told = [r.json() for r in client.map([url, ("GET", url)], params={"page": 1}, headers={"X": "1"}, **pool)]
    assert [(t["target"], ["X", "1"] in t["headers"]) for t in told] == [("/echo?page=1", True)] * 2


def test_order_of_turns_whatever_the_order_of_completion(pool: dict[str, Any]) -> None:
    events = [threading.Event() for _ in range(4)]

    def handler(request: Request) -> Response:
        i = int(request.url.path[1:])
        if i < 3:
            events[i + 1].wait(10)           # 3 before 2 before 1 before 0
        events[i].set()
        return Response(200)

    assert [number(r) for r in mock(handler).map(urls(4), **pool)] == [0, 1, 2, 3]


def test_as_completed_gives_what_is_done_first(pool: dict[str, Any]) -> None:
    rest_seen = threading.Event()

    def handler(request: Request) -> Response:
        if request.url.path == "/0":
            rest_seen.wait(10)
        return Response(200)

    seen = []
    for r in mock(handler).as_completed(urls(20), **pool):
        seen.append(number(r))
        if len(seen) == 19:
            rest_seen.set()
    assert seen[-1] == 0
    assert sorted(seen) == list(range(20))


def test_workers_work_at_once() -> None:
    meet = threading.Barrier(5)

    def handler(request: Request) -> Response:
        meet.wait(10)
        return Response(200)

    assert len(list(mock(handler).map(urls(15), workers=5))) == 15


@pytest.mark.parametrize("ordered", [True, False])
def test_an_endless_input_is_taken_no_more_than_twice_the_workers_ahead(ordered: bool) -> None:
    taken = 0
    most = 0
    yielded = 0

    def endless() -> Iterator[str]:
        nonlocal taken, most
        for url in urls():
            taken += 1
            most = max(most, taken - yielded)
            yield url

    for _ in mock(lambda request: Response(200)).map(endless(), workers=3, ordered=ordered):
        yielded += 1
        if yielded == 100:
            break
    assert most <= 6
    assert taken <= 106


def test_as_much_is_taken_ahead_as_may_be() -> None:
    """While the first is awaited, the others are fetched."""
    first = threading.Event()
    others = threading.Semaphore(0)

    def handler(request: Request) -> Response:
        if request.url.path == "/0":
            first.wait(10)
        others.release()
        return Response(200)

    def release() -> None:
        for _ in range(5):
            assert others.acquire(timeout=10)
        first.set()

    thread = threading.Thread(target=release)
    thread.start()
    assert len(list(mock(handler).map(urls(30), workers=3))) == 30
    thread.join()


def test_a_slow_input_holds_up_little_of_what_is_ready() -> None:
    """The input is slow, and then waits until the second answer was seen."""
    second = threading.Event()

    def slow() -> Iterator[str]:
        for i, url in enumerate(urls(10)):
            if i == 6:
                assert second.wait(10)
            elif i > 3:
                time.sleep(0.02)                 # past the grace, with answers ready
            yield url

    for r in mock(lambda request: Response(200)).map(slow(), workers=8):
        if number(r) == 1:
            second.set()
    assert second.is_set()


def test_nothing_happens_before_it_is_asked_and_no_thread_stays() -> None:
    calls = []
    results = mock(lambda request: calls.append(1) or Response(200)).map(urls(5), workers=2)  # type: ignore[func-returns-value]
    assert (calls, mapping_threads()) == ([], [])
    next(results)
    assert 1 <= len(mapping_threads()) <= 2
    results.close()  # type: ignore[attr-defined]
    assert mapping_threads() == []


def test_no_more_threads_than_work() -> None:
    names = set()

    def handler(request: Request) -> Response:
        names.add(threading.current_thread().name)
        return Response(200)

    assert list(mock(handler).map([])) == []
    list(mock(handler).map(["http://h/"], workers=8))
    assert len(names) == 1


# --- failures ------------------------------------------------------------------------------------------------------------------


def failing(request: Request) -> Response:
    if request.url.path == "/3":
        raise ReadError("broke", phase="body")
    if request.url.path == "/5":
        raise LookupError("the handler's own")
    return Response(200)


def test_a_failure_is_raised_at_its_turn(pool: dict[str, Any]) -> None:
    seen = []
    with pytest.raises(ReadError) as e:
        for r in mock(failing).map(urls(10), **pool):
            seen.append(number(r))
    assert seen == [0, 1, 2]
    assert e.value.request.url == "http://h/3"
    assert mapping_threads() == []


def test_failures_are_yielded_where_that_is_asked(pool: dict[str, Any]) -> None:
    items: list[Any] = [*urls(7), "nonsense", 5, ("GET",)]
    results = list(mock(failing).map(items, return_exceptions=True, **pool))
    kinds = [type(r) for r in results]
    assert kinds == [Response, Response, Response, ReadError, Response, LookupError, Response, InvalidURL, TypeError, TypeError]
    assert results[3].request.url == "http://h/3"
    assert [r.request for r in results[7:]] == ["nonsense", 5, ("GET",)]


def test_the_inputs_own_failure_comes_after_what_it_gave(pool: dict[str, Any]) -> None:
    def input_() -> Iterator[str]:
        yield from urls(3)
        raise LookupError("input")

    seen = []
    with pytest.raises(LookupError, match="input"):
        for r in mock(lambda request: Response(200)).map(input_(), **pool):
            seen.append(number(r))
    assert seen == [0, 1, 2]


@pytest.mark.parametrize(("error", "given"), [
    (ValueError, {"workers": 0}), (ValueError, {"workers": True}), (ValueError, {"workers": "4"}), (TypeError, {"no_such": 1}),
    (NotImplementedError, {"context": object()}), (TypeError, {"requests": "http://h/"}), (TypeError, {"requests": 5})])
def test_wrong_arguments_fail_at_once(error: type[Exception], given: dict[str, Any]) -> None:
    with pytest.raises(error):
        mock(failing).map(**{"requests": [], **given})


# --- leaving early ---------------------------------------------------------------------------------------------------------------


def leave_while_held(client: Client, server: Server, leave: Callable[[Iterator[Any]], None], **pool: Any) -> float:
    """One is answered, the others are held by the server; how long the leaving took, in seconds."""
    urls = [server.url + "/number/0", *[f"{server.url}/held/{i}" for i in range(20)]]
    results = client.map(urls, **pool)
    next(results)
    for _ in range(4):
        assert server.held.acquire(timeout=10)
    start = time.monotonic()
    leave(results)
    return time.monotonic() - start


def test_leaving_cancels_what_is_in_flight_and_gives_every_connection_back(client: Client, spy: Spy, server: Server,
                                                                           pool: dict[str, Any]) -> None:
    times = []
    for _ in range(3):
        times.append(leave_while_held(client, server, lambda results: results.close(), **pool))  # type: ignore[attr-defined]
        assert spy.stats().active == 0
        assert mapping_threads() == []
    assert sorted(times)[1] < 0.1
    assert len(spy.seen) <= 3 * 5                        # what was queued was never begun
    assert client.get(server.url + "/number/7").content == b"7"


def test_breaking_out_of_the_loop_leaves_it(client: Client, spy: Spy, server: Server) -> None:
    for r in client.map([server.url + "/number/1", *[server.url + "/held"] * 8], workers=4):
        assert r.content == b"1"
        break
    assert spy.stats().active == 0
    assert mapping_threads() == []


def test_ctrl_c_while_waiting(client: Client, spy: Spy, server: Server) -> None:
    def interrupt() -> None:
        for _ in range(4):
            assert server.held.acquire(timeout=10)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        list(client.map([server.url + "/held"] * 20, workers=4))
    thread.join()
    assert spy.stats().active == 0
    assert mapping_threads() == []


def test_a_failure_cancels_the_others(client: Client, spy: Spy, server: Server) -> None:
    with pytest.raises(InvalidURL):
        list(client.map(["nonsense", *[server.url + "/held"] * 5], workers=4))
    assert spy.stats().active == 0


def test_streams_that_nobody_sees_are_closed(client: Client, spy: Spy, server: Server, pool: dict[str, Any]) -> None:
    results = client.map([server.url + "/bytes/100000"] * 12, stream=True, **pool)
    first = next(results)
    assert len(first.read()) == 100000
    results.close()  # type: ignore[attr-defined]
    assert spy.stats().active == 0                      # a stream that was left unread would also warn


def test_streams_that_are_read(client: Client, server: Server, pool: dict[str, Any]) -> None:
    assert [len(r.read()) for r in client.map([server.url + "/bytes/1000"] * 10, stream=True, **pool)] == [1000] * 10


def test_one_that_does_not_obey_is_left_behind_and_closes_what_it_gets() -> None:
    held, entered, answered = threading.Event(), threading.Event(), []

    def handler(request: Request) -> Response:
        response = Response(200, content=iter([b"x"]))
        if request.url.path == "/1":
            entered.set()
            held.wait(10)
            answered.append(response)
        return response

    results = mock(handler).map(urls(2), workers=2, stream=True)
    next(results).close()
    assert entered.wait(10)
    start = time.monotonic()
    results.close()  # type: ignore[attr-defined]
    assert time.monotonic() - start < 2
    late = [thread for thread in threading.enumerate() if thread.name.startswith("pooledhttp-map")]
    held.set()
    for thread in late:
        thread.join(10)
    with pytest.raises(StreamClosed):
        answered[0].read()


# --- executors ---------------------------------------------------------------------------------------------------------------------


def test_an_executor_that_cancels_is_seen() -> None:
    hold, begun = threading.Event(), threading.Event()

    def handler(request: Request) -> Response:
        begun.set()
        hold.wait(10)
        return Response(200)

    with ThreadPoolExecutor(1) as executor:
        results = mock(handler).map(urls(3), executor=executor, workers=2, return_exceptions=True)

        def shut() -> None:
            begun.wait(10)
            while executor._work_queue.qsize() < 2:
                time.sleep(0.001)
            executor.shutdown(wait=False, cancel_futures=True)
            hold.set()

        thread = threading.Thread(target=shut)
        thread.start()
        kinds = [type(r) for r in results]
        thread.join()
    assert kinds == [Response, Cancelled, Cancelled]


def test_a_client_does_not_travel_to_processes_yet() -> None:
    with ProcessPoolExecutor(1) as executor, pytest.raises(NotImplementedError, match="pickling"):
        list(Client().map(["http://h/"], executor=executor))


# --- progress ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
def test_progress_is_told_each_that_is_done(ordered: bool) -> None:
    told: list[tuple[int, int | None]] = []
    list(mock(failing).map(list(urls(5)), workers=2, return_exceptions=True, ordered=ordered, progress=lambda *a: told.append(a)))
    assert told == [(i, 5) for i in range(1, 6)]
    told.clear()
    list(mock(failing).map(urls(2), progress=lambda *a: told.append(a)))
    assert told == [(1, None), (2, None)]
    with pytest.raises(TypeError, match="progress"):
        next(mock(failing).map(urls(2), progress=5))


class Bar:
    """As much of tqdm as is used."""

    made: list[Bar]

    def __init__(self, total: int | None, unit: str) -> None:
        self.total, self.n, self.closed = total, 0, False
        self.made.append(self)

    def update(self, more: int) -> None:
        self.n += more

    def close(self) -> None:
        self.closed = True


def test_progress_as_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("tqdm")
    module.tqdm = Bar  # type: ignore[attr-defined]
    monkeypatch.setattr(Bar, "made", [], raising=False)
    monkeypatch.setitem(sys.modules, "tqdm", module)
    list(mock(failing).map(list(urls(3)), progress=True))
    assert [(bar.total, bar.n, bar.closed) for bar in Bar.made] == [(3, 3, True)]
    monkeypatch.setitem(sys.modules, "tqdm", None)          # not installed
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    assert len(list(mock(failing).map(urls(3), progress=True))) == 3
