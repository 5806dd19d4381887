"""Many requests by several threads, or by an executor, in a loop of the caller's."""
from __future__ import annotations

import os
from _queue import Empty, SimpleQueue
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import suppress
from functools import partial
from importlib import import_module
from threading import Event, Thread, current_thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from pooledhttp._core.runtime import slice_ns
from pooledhttp.errors import Cancelled, Error
from pooledhttp.request import Request
from pooledhttp.response import Response
from pooledhttp.transport import Canceller

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from pooledhttp.client import Client

# How long leaving the loop waits for what it cancelled, in seconds. A cancel is obeyed within 50 ms; who does not obey
# (another's transport, a hook) is left to end by itself.
_PATIENCE = 0.25
# How long what is ready may wait for the input to give further requests, in seconds.
_INPUT = 0.005


class _Task:
    __slots__ = ("error", "future", "item", "response")

    def __init__(self, item: Any) -> None:
        self.item = item
        self.response: Response | None = None
        self.error: BaseException | None = None
        self.future: Any = None

    @property
    def done(self) -> bool:
        return self.response is not None or self.error is not None

    def drop(self) -> None:
        if self.response is not None:
            self.response.close()


def _next(done: SimpleQueue[_Task]) -> _Task:
    """`done.get()`; the main thread looks up for signals in between."""
    while True:
        turn = slice_ns(-1)
        with suppress(Empty):
            return done.get(timeout=None if turn < 0 else turn / 1e9)


def _fetch(client: Client, item: Any, options: dict[str, Any], cancel: Canceller | None) -> Response:
    """One item's response; what it raises carries `.request`: the request, or the item where none could be made of it."""
    try:
        if isinstance(item, Request):
            return client._send(client._completed(item), dict(options), cancel)
        if isinstance(item, str):
            wire = None if options else client._memo.get(item) or client._learn(item)
            if wire is not None:
                return client._again(wire, client._timing, cancel)
            return client._request("GET", item, options, cancel)
        if isinstance(item, (tuple, list)) and len(item) == 2:
            return client._request(item[0], item[1], options, cancel)
        raise TypeError(f"map takes URLs, Requests and (method, url) pairs, not {type(item).__name__}")
    except Exception as e:
        if isinstance(e, Error):
            if e.request is None:
                e.request = item
        elif not hasattr(type(e), "request"):
            e.request = item  # type: ignore[attr-defined]
        raise


class _Threads:
    """Daemon threads that fetch, started as there is work for them, at most `limit`."""

    def __init__(self, client: Client, options: dict[str, Any], limit: int) -> None:
        self.client = client
        self.options = options
        self.limit = limit
        self.cancel = Canceller()
        self.todo: SimpleQueue[_Task | None] = SimpleQueue()
        self.done: SimpleQueue[_Task] = SimpleQueue()
        self.threads: list[Thread] = []
        # Ends the threads. One call of C, which no signal's handler can part: no thread may wait for ever.
        self.dismiss: Callable[[], object] = partial(self.todo.put, None)
        self.leaving = Event()

    def submit(self, task: _Task, unfinished: int) -> None:
        self.todo.put(task)
        if len(self.threads) < min(self.limit, unfinished):
            thread = Thread(target=self._work, name=f"pooledhttp-map-{len(self.threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # The interpreter is ending and takes no new threads: the caller's does it.
                if not self.threads:
                    self._run(self.todo.get())
                return
            self.threads.append(thread)

    def _work(self) -> None:
        while True:
            task = self.todo.get()
            if task is None:
                self.todo.put(None)                  # for the next one: also for a thread that its starter never came to note
                return
            self._run(task)

    def _run(self, task: _Task | None) -> None:
        assert task is not None
        if self.leaving.is_set():
            return
        try:
            task.response = _fetch(self.client, task.item, self.options, self.cancel)
        except BaseException as e:                   # it is raised in the caller's thread, at its turn
            task.error = e
        self.done.put(task)
        if self.leaving.is_set():                    # after the put: either the loop's own clearing up sees it, or this does
            task.drop()

    def end(self, early: bool) -> None:
        self.leaving.set()
        if early:
            self.cancel.cancel("the loop over the responses was left")
        until = monotonic() + _PATIENCE
        for thread in self.threads:
            if thread is not current_thread():       # a forgotten iterator may be collected by any thread
                thread.join(max(0.0, until - monotonic()))


class _Pool:
    """An executor of the caller's. A thread pool obeys a cancel as ours does; another gets its futures cancelled."""

    def __init__(self, client: Client, options: dict[str, Any], executor: Executor) -> None:
        from concurrent.futures import ThreadPoolExecutor, wait

        self.client = client
        self.options = options
        self.executor = executor
        self.cancel = Canceller() if isinstance(executor, ThreadPoolExecutor) else None
        self.done: SimpleQueue[_Task] = SimpleQueue()
        self.running: set[_Task] = set()
        self.dismiss: Callable[[], object] = bool    # its threads are not ours
        self.leaving = Event()
        self._wait = wait

    def submit(self, task: _Task, unfinished: int) -> None:
        task.future = self.executor.submit(_fetch, self.client, task.item, self.options, self.cancel)
        self.running.add(task)
        task.future.add_done_callback(lambda future: self._finished(task))

    def _finished(self, task: _Task) -> None:
        future = task.future
        self.running.discard(task)
        task.error = Cancelled("the executor cancelled the request", request=task.item) if future.cancelled() else future.exception()
        if task.error is None:
            task.response = future.result()
        self.done.put(task)
        if self.leaving.is_set():                    # after the put: either the loop's own clearing up sees it, or this does
            task.drop()

    def end(self, early: bool) -> None:
        self.leaving.set()
        if self.cancel is not None and early:
            self.cancel.cancel("the loop over the responses was left")
        left = [task.future for task in list(self.running)]
        for future in left:
            future.cancel()
        if self.cancel is not None and left:
            self._wait(left, timeout=_PATIENCE)


def _progress(progress: Any, total: int | None) -> tuple[Callable[[int, int | None], Any] | None, Callable[[], Any]]:
    """What to call with (done, total), and at the end."""
    if progress is None or progress is False:
        return None, lambda: None
    if progress is not True:
        if not callable(progress):
            raise TypeError("progress is True or a callable (done, total)")
        return progress, lambda: None
    with suppress(ImportError):
        bar = import_module("tqdm").tqdm(total=total, unit="req")
        return lambda done, total: bar.update(done - bar.n), bar.close
    with suppress(ImportError):
        shown = import_module("rich.progress").Progress()
        shown.start()
        row = shown.add_task("requests", total=total)
        return lambda done, total: shown.update(row, completed=done), shown.stop
    return None, lambda: None


def fan_out(client: Client, requests: Iterable[Any], *, workers: int | None, executor: Executor | None, ordered: bool,
            return_exceptions: bool, progress: Any, options: dict[str, Any]) -> Iterator[Any]:
    """See `Client.map`. The arguments are checked now; the first request is taken when the iterator is first asked."""
    if workers is None:
        workers = getattr(executor, "_max_workers", None) or min(32, (os.cpu_count() or 1) * 4 + 4)
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(f"workers is at least 1, not {workers!r}")
    if isinstance(requests, (str, bytes)):
        raise TypeError("map takes an iterable of requests: put a single URL in a list")
    source = iter(requests)
    total = len(requests) if isinstance(requests, Sized) else None
    crew = _Threads(client, options, workers) if executor is None else _Pool(client, options, executor)
    return _loop(source, total, crew, 2 * workers, ordered, return_exceptions, progress)


class _Loop:
    """The books of one loop: what was taken and not yet yielded, and whose turn it is."""

    def __init__(self, crew: _Threads | _Pool, ordered: bool, report: Callable[[int, int | None], Any] | None, total: int | None) -> None:
        self.crew = crew
        self.ordered = ordered
        self.report = report
        self.total = total
        self.taken: deque[_Task] = deque()      # ordered: in order of their turn
        self.ready: deque[_Task] = deque()      # not ordered: done, in order of completion
        self.outstanding = 0                    # taken and not yet yielded
        self.unfinished = 0                     # taken and not yet done
        self.count = 0                          # done

    def take(self, item: Any) -> None:
        task = _Task(item)
        self.outstanding += 1
        self.unfinished += 1
        if self.ordered:
            self.taken.append(task)
        self.crew.submit(task, self.unfinished)

    def collect(self, task: _Task) -> None:
        self.unfinished -= 1
        self.count += 1
        if not self.ordered:
            self.ready.append(task)
        if self.report is not None:
            self.report(self.count, self.total)

    def has_turn(self) -> bool:
        """Whether the next to be yielded is there; never waits."""
        done = self.crew.done
        with suppress(Empty):
            while True:
                self.collect(done.get_nowait())
        return self.taken[0].done if self.taken else bool(self.ready)

    def turn(self) -> _Task:
        while not self.has_turn():
            self.collect(_next(self.crew.done))
        self.outstanding -= 1
        return self.taken.popleft() if self.ordered else self.ready.popleft()

    def drop(self) -> None:
        """Close what nobody will see. (What is not done yet drops itself when it is.)"""
        with suppress(Empty):
            while True:
                self.crew.done.get_nowait().drop()
        for task in (*self.taken, *self.ready):
            task.drop()


def _loop(source: Iterator[Any], total: int | None, crew: _Threads | _Pool, ahead: int, ordered: bool, return_exceptions: bool,
          progress: Any) -> Iterator[Any]:
    report, finish = _progress(progress, total)
    loop = _Loop(crew, ordered, report, total)
    failure: Exception | None = None             # the input's own, raised after what it gave before
    more = True
    early = True
    try:
        while True:
            # At least one is taken for one that is yielded, so that the workers never starve; and as many as may be,
            # unless the input is slow and something is ready.
            first, waited = True, 0.0
            while more and loop.outstanding < ahead and (first or waited < _INPUT or not loop.has_turn()):
                first = False
                began = monotonic()
                try:
                    item = next(source)
                except StopIteration:
                    more = False
                except Exception as e:           # raised below
                    failure = e
                    more = False
                else:
                    waited += monotonic() - began
                    loop.take(item)
            if not loop.outstanding:
                break
            task = loop.turn()
            error = task.error
            if error is None:
                yield task.response
            elif return_exceptions and isinstance(error, Exception):
                yield error
            else:
                try:
                    raise error
                finally:
                    del error, task              # or the traceback would keep them, and they it
        early = False
        if failure is not None:
            raise failure
    finally:
        crew.dismiss()
        crew.end(early)
        loop.drop()
        finish()
