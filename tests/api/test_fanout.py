"""map and as_completed: order, what is taken ahead, failures, and leaving early."""
from __future__ import annotations

import gc
import itertools
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import pytest

from pooledhttp import Client, InvalidURL, MockTransport, ReadError, Request, Response, StreamClosed
from pooledhttp.fanout import LATER, Threads, spread
from pooledhttp.transport import Canceller
from tests.exchange.support import until

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


def test_a_slow_input_is_asked_after_what_is_ready_was_seen() -> None:
    """The first is late, so that others are ready when it comes: all of them are yielded then, not one for each that is taken."""
    behind = []
    seen = 0
    first = threading.Event()

    def slow() -> Iterator[str]:
        for i, url in enumerate(urls(24)):
            behind.append(i - seen)
            if i == 8:
                first.set()
            time.sleep(0.02)
            yield url

    def handler(request: Request) -> Response:
        if request.url.path == "/0":
            first.wait(10)
        return Response(200)

    for _ in mock(handler).map(slow(), workers=8):
        seen += 1
    assert behind[8] == 8
    assert sorted(behind[12:])[6] <= 2, behind        # the one that is just being fetched


def test_an_input_of_the_commands_may_say_later() -> None:
    """What is ready is yielded, whatever the input does then."""
    cancel = Canceller()
    seen: list[int] = []

    def source() -> Iterator[object]:
        for i in range(5):
            yield LATER
            yield i
            while len(seen) <= i:
                time.sleep(0.001)
                yield LATER
        yield LATER

    for result in spread(source(), Threads(str, cancel, 2), ahead=4):
        seen.append(int(result))
    assert seen == [0, 1, 2, 3, 4]


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


def test_an_input_that_ends_badly_while_the_first_is_awaited(client: Client, spy: Spy, server: Server) -> None:
    def interrupted() -> Iterator[str]:
        yield from [server.url + "/held"] * 3
        for _ in range(3):
            assert server.held.acquire(timeout=10)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(client.map(interrupted(), workers=3))
    assert spy.stats().active == 0
    assert mapping_threads() == []


@pytest.mark.parametrize(("error", "given"), [
    (ValueError, {"workers": 0}), (ValueError, {"workers": True}), (ValueError, {"workers": "4"}), (TypeError, {"no_such": 1}),
    (TypeError, {"context": object()}), (TypeError, {"progress": 5}), (TypeError, {"progress": "yes"}),
    (TypeError, {"requests": "http://h/"}), (TypeError, {"requests": 5})])
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


def test_ctrl_c_while_waiting(client: Client, spy: Spy, server: Server, pool: dict[str, Any]) -> None:
    times = []

    def interrupt() -> None:
        for _ in range(4):
            assert server.held.acquire(timeout=10)
        times.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    for _ in range(3):
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            list(client.map([server.url + "/held"] * 20, **pool))
        times[-1] = time.monotonic() - times[-1]
        thread.join()
        assert spy.stats().active == 0
        assert mapping_threads() == []
    assert sorted(times)[1] < 0.1, times


def test_an_exception_in_the_loops_body_leaves_it(client: Client, spy: Spy, server: Server, pool: dict[str, Any]) -> None:
    """At once, also while the exception, and so the loop's frame, is kept."""
    with pytest.raises(LookupError) as kept:
        for _ in client.map([server.url + "/number/1", *[server.url + "/held"] * 8], **pool):
            raise LookupError("the body's own")
    assert spy.stats().active == 0
    assert mapping_threads() == []
    assert kept.value.__traceback__ is not None


def test_an_iterator_that_is_dropped_leaves_it(client: Client, spy: Spy, server: Server, pool: dict[str, Any]) -> None:
    results = client.map([server.url + "/number/1", *[server.url + "/held"] * 8], **pool)
    next(results)
    del results
    assert spy.stats().active == 0
    assert mapping_threads() == []


def test_an_iterator_in_a_cycle_is_left_when_it_is_collected(client: Client, spy: Spy, server: Server) -> None:
    class Holder:
        me: Any
        results: Any

    holder = Holder()
    holder.me, holder.results = holder, client.map([server.url + "/number/1", *[server.url + "/held"] * 8], workers=4)
    next(holder.results)
    del holder
    gc.collect()
    assert spy.stats().active == 0
    assert mapping_threads() == []


def test_a_response_that_was_handed_out_is_the_callers(pool: dict[str, Any]) -> None:
    """The loop keeps none; and a worker that is late does not close, for the loop that was left, what the caller has got."""
    for r in mock(lambda request: Response(200)).map(urls(20), **pool):
        kept = weakref.ref(r)
        del r
        until = time.monotonic() + 10
        while kept() is not None:                    # an executor's thread is about to let it go
            assert time.monotonic() < until, gc.get_referrers(kept())
            time.sleep(0.001)

    late = threading.Event()

    class Slow(SimpleQueue):  # type: ignore[type-arg]
        def put(self, task: Any, block: bool = True, timeout: float | None = None) -> None:
            super().put(task)
            late.wait(10)                            # handed over, and the worker has not gone on yet

    cancel = Canceller()
    crew = Threads(lambda item: Response(200, content=iter([item])), cancel, 1)
    crew.done = Slow()
    results = spread(iter([b"x"]), crew, ahead=2)
    response = next(results)
    results.close()  # type: ignore[attr-defined]
    late.set()
    for thread in crew.threads:
        thread.join(10)
    assert response.read() == b"x"


def test_a_failure_cancels_the_others(client: Client, spy: Spy, server: Server) -> None:
    with pytest.raises(InvalidURL):
        list(client.map(["nonsense", *[server.url + "/held"] * 5], workers=4))
    assert spy.stats().active == 0


def test_streams_that_nobody_sees_are_closed(client: Client, spy: Spy, server: Server, pool: dict[str, Any]) -> None:
    results = client.map([server.url + "/bytes/100000"] * 12, stream=True, **pool)
    first = next(results)
    until(lambda: spy.stats().active >= 8)              # the first, and seven that are ready
    assert len(first.read()) == 100000
    results.close()  # type: ignore[attr-defined]
    until(lambda: spy.stats().active == 0)              # the rests are drained in the background
    assert spy.stats().leaked == 0


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


# --- progress ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
def test_progress_is_told_each_that_is_done(ordered: bool) -> None:
    told: list[tuple[int, int | None]] = []
    list(mock(failing).map(list(urls(5)), workers=2, return_exceptions=True, ordered=ordered, progress=lambda *a: told.append(a)))
    assert told == [(i, 5) for i in range(1, 6)]
    told.clear()
    list(mock(failing).map(urls(2), progress=lambda *a: told.append(a)))
    assert told == [(1, None), (2, None)]
    told.clear()
    list(mock(failing).map(urls(2), progress=False))
    assert told == []


def test_an_input_may_say_how_much_it_will_give() -> None:
    class Hinted:
        def __init__(self, hint: int) -> None:
            self.hint = hint

        def __iter__(self) -> Iterator[str]:
            return urls(3)

        def __length_hint__(self) -> int:
            return self.hint

    class Unasked(Hinted):
        def __len__(self) -> int:
            raise AssertionError("whoever wants no progress is not counted")

    told: list[tuple[int, int | None]] = []
    for hint, totals in ((3, [3, 3, 3]), (2, [2, 2, None]), (9, [9, 9, 9])):
        told.clear()
        list(mock(failing).map(Hinted(hint), progress=lambda *a: told.append(a), workers=1))
        assert told == list(zip((1, 2, 3), totals, strict=True))
    told.clear()
    list(mock(failing).map(iter(list(urls(3))), progress=lambda *a: told.append(a)))
    assert told[-1] == (3, 3)
    assert len(list(mock(failing).map(Unasked(3)))) == 3


def test_a_progress_that_raises_ends_the_loop(client: Client, spy: Spy, server: Server, pool: dict[str, Any]) -> None:
    def progress(done: int, total: int | None) -> None:
        raise LookupError(done)

    with pytest.raises(LookupError, match="1"):
        list(client.map([server.url + "/number/1", *[server.url + "/held"] * 8], progress=progress, return_exceptions=True, **pool))
    assert spy.stats().active == 0
    assert mapping_threads() == []


@pytest.mark.parametrize("options", [{"headers": {"a": "b"}}, {"params": {"a": "b"}}, {"cookies": {"a": "b"}}, {"json": {}}])
def test_a_request_that_is_made_takes_no_options_that_make_one(options: dict[str, Any]) -> None:
    """They would be left out without a word."""
    with Client(transport=MockTransport(lambda request: Response(200))) as client:
        request = Request("GET", "http://a.test/")
        made, refused = client.map(["http://a.test/", request], return_exceptions=True, **options)
        assert isinstance(made, Response) and isinstance(refused, TypeError)
        assert refused.request is request  # type: ignore[attr-defined]
