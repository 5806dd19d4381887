"""Many requests by several threads, or by an executor, in a loop of the caller's."""
from __future__ import annotations

import os
from _operator import length_hint
from _queue import Empty, SimpleQueue
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from threading import Event, Thread, current_thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from pooledhttp._core.runtime import generation, slice_ns
from pooledhttp.context import Context, in_force
from pooledhttp.errors import Cancelled, Error
from pooledhttp.progress import check, reporter
from pooledhttp.request import Request
from pooledhttp.response import Response
from pooledhttp.transport import Canceller

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from contextvars import Context as Surroundings

    from pooledhttp.client import Client
    from pooledhttp.progress import Progress, Report
    from pooledhttp.reach import Line

# How long leaving the loop waits for what it cancelled, in seconds. A cancel is obeyed within 50 ms; who does not obey
# (another's transport, a hook) is left to end by itself.
_PATIENCE = 0.25
# How long what is ready may wait for the input to give further requests, in seconds; an input that takes longer is slow.
_INPUT = 0.005
# An input that would block may give this instead: what is ready is yielded, and the input asked again.
LATER = object()


def _await(queue: SimpleQueue[_Task]) -> _Task:
    """`queue.get()`; the main thread looks up for signals in between."""
    while True:
        turn = slice_ns(-1)
        with suppress(Empty):
            return queue.get(timeout=None if turn < 0 else turn / 1e9)


class _Task:
    __slots__ = ("collected", "error", "future", "item", "result", "taken_back")

    def __init__(self, item: Any) -> None:
        self.item = item
        self.result: Any = None
        self.error: BaseException | None = None
        self.future: Any = None
        self.collected = False              # the loop knows that it is done
        self.taken_back = False             # from the executor, to be done by the loop's own thread

    @property
    def done(self) -> bool:
        return self.result is not None or self.error is not None

    def run(self, work: Callable[[Any], Any]) -> None:
        try:
            self.result = work(self.item)
        except BaseException as e:          # it is raised in the caller's thread, at its turn
            self.error = e

    def take(self) -> Any:
        """The result, which is the caller's from now on."""
        result, self.result = self.result, None
        self.future = None                  # it has it too
        return result

    def drop(self) -> None:
        result = self.take()
        if isinstance(result, Response):
            result.close()


class Fetch:
    """What a worker does with an item, within a copy of `around`: the context variables of who began the loop.

    It may be pickled. A context then travels as what remains of it; a cancel comes over `line`, where the other process can see it; and of the variables
    an instrumented client takes along what says whose trace it is.
    """

    __slots__ = ("address", "around", "cancel", "client", "line", "options", "travelled")

    def __init__(self, client: Client, options: dict[str, Any], cancel: Canceller | None = None, around: Surroundings | None = None) -> None:
        self.client = client
        self.options = options
        self.cancel = cancel
        self.around = around
        self.line: Line | None = None              # to where it travels
        self.address: tuple[str, str] | None = None          # of the line of where it came from
        self.travelled = False

    def __reduce__(self) -> tuple[Any, ...]:
        self.travelled = True
        carry = getattr(self.client._flow, "carry", None)
        note = carry(self.around) if carry is not None and self.around is not None else None
        address = self.address if self.line is None else self.line.address()
        return _arrived, (self.client, self.options, self.cancel if isinstance(self.cancel, Context) else None, note, address)

    def __call__(self, item: Any) -> Response:
        """The item's response; what it raises carries `.request`: the request, or the item where none could be made of it."""
        around = self.around
        return self._hear(item) if around is None else around.copy().run(self._hear, item)

    def _hear(self, item: Any) -> Response:
        if self.address is None or self.cancel is None:
            return self._obey(item)
        from pooledhttp.reach import Hearing

        with Hearing(self.address, self.cancel):
            return self._obey(item)

    def _obey(self, item: Any) -> Response:
        if not isinstance(self.cancel, Context):
            return self._fetch(item)
        with self.cancel:                            # ambient also for what a hook or an input's body asks
            return self._fetch(item)

    def _fetch(self, item: Any) -> Response:
        client, options, cancel = self.client, self.options, self.cancel
        try:
            if isinstance(item, Request):
                client._check_sending(options)
                return client._send(client._completed(item), dict(options), cancel)
            if isinstance(item, str):
                made = None if options else client._memo.get(item) or client._learn(item)
                if made is not None:
                    return client._again(made, client._timing, cancel)
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


def _arrived(client: Client, options: dict[str, Any], cancel: Context | None, note: Any, address: tuple[str, str] | None) -> Fetch:
    fetch = Fetch(client, options, cancel or (None if address is None else Canceller()), None if note is None else client._flow.arrive(note))
    fetch.address = address
    return fetch


class Threads:
    """Daemon threads that do `work(item)`, started as there is work for them, at most `limit`. `cancel` is what the work obeys."""

    def __init__(self, work: Callable[[Any], Any], cancel: Canceller, limit: int) -> None:
        self.work = work
        self.limit = limit
        self.cancel = cancel
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
            del task                                 # idle, it would keep what the caller has let go

    def _run(self, task: _Task | None) -> None:
        assert task is not None
        if self.leaving.is_set():
            return
        task.run(self.work)
        self.done.put(task)
        if self.leaving.is_set():                    # after the put: either the loop's own clearing up sees it, or this does
            task.drop()

    def wait(self) -> _Task:
        return _await(self.done)

    def end(self, early: bool) -> None:
        self.leaving.set()
        if early:
            self.cancel.cancel("the loop over the responses was left")
        until = monotonic() + _PATIENCE
        for thread in self.threads:
            if thread is not current_thread():       # a forgotten iterator may be collected by any thread
                thread.join(max(0.0, until - monotonic()))


class _Pool:
    """An executor of the caller's. Its threads in this process obey a cancel as ours do, and other processes by the line; its futures are cancelled too."""

    def __init__(self, work: Fetch, cancel: Canceller, executor: Executor) -> None:
        self.work = work
        self.cancel = cancel
        self.executor = executor
        self.done: SimpleQueue[_Task] = SimpleQueue()
        self.running: dict[_Task, None] = {}
        self.dismiss: Callable[[], object] = bool    # its threads are not ours
        self.leaving = Event()

    def submit(self, task: _Task, unfinished: int) -> None:
        task.future = self.executor.submit(self.work, task.item)
        self.running[task] = None
        task.future.add_done_callback(lambda future: self._finished(task))

    def _finished(self, task: _Task) -> None:
        future = task.future
        try:
            if future.cancelled():
                if task.taken_back:
                    return
                task.error = Cancelled("the executor cancelled the request", request=task.item)
            else:
                task.error = future.exception()
                if task.error is None:
                    task.result = future.result()
        except BaseException as e:                   # another's future may raise anything; who swallows it would leave the loop waiting
            task.error = e
        self._put(task)

    def _put(self, task: _Task) -> None:
        self.running.pop(task, None)
        self.done.put(task)
        if self.leaving.is_set():                    # after the put: either the loop's own clearing up sees it, or this does
            task.drop()

    def wait(self) -> _Task:
        # On a thread of the executor itself, waiting for what no other of its threads may ever begin would be for ever.
        if current_thread() in getattr(self.executor, "_threads", ()):
            for task in list(self.running):
                task.taken_back = True
                if task.future.cancel() and not task.done:
                    task.run(self.work)
                    self._put(task)
                    break
        return _await(self.done)

    def end(self, early: bool) -> None:
        self.leaving.set()
        line = self.work.line
        try:
            if early:
                if line is not None:
                    line.cancel()
                self._end_early()
        finally:
            if line is not None:
                line.close()

    def _end_early(self) -> None:
        self.cancel.cancel("the loop over the responses was left")
        for task in list(self.running):
            cancel = getattr(task.future, "cancel", None)
            if cancel is not None:
                cancel()
        if self.work.travelled:                      # in other processes: nothing is waited for
            return
        until = monotonic() + _PATIENCE
        with suppress(Empty):
            while self.running:
                self.done.get(timeout=max(0.0, until - monotonic())).drop()


def check_workers(workers: Any) -> int:
    """ValueError for what is no number of workers."""
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(f"workers is at least 1, not {workers!r}")
    return workers


def fan_out(client: Client, requests: Iterable[Any], *, workers: int | None, executor: Executor | None, ordered: bool,
            return_exceptions: bool, progress: Progress, options: dict[str, Any]) -> Iterator[Any]:
    """See `Client.map`. The arguments are checked now; the first request is taken when the iterator is first asked."""
    if executor is not None and (isinstance(executor, type) or not callable(getattr(executor, "submit", None))):
        what = f"the class {executor.__name__}" if isinstance(executor, type) else type(executor).__name__
        raise TypeError(f"executor is a concurrent.futures.Executor, or has its submit, not {what}")
    if workers is None:
        size = getattr(executor, "_max_workers", None)
        workers = size if isinstance(size, int) and size > 0 else min(32, (os.cpu_count() or 1) * 4 + 4)
    check_workers(workers)
    check(progress)
    if isinstance(requests, (str, bytes)):
        raise TypeError("map takes an iterable of requests: put a single URL in a list")
    source = iter(requests)
    total = None
    if progress is not None and progress is not False:
        hint = length_hint(requests, -1)
        total = hint if hint >= 0 else None
    context = in_force(options.pop("context", None))
    cancel = Canceller() if context is None else context.child()
    work = Fetch(client, options, cancel, copy_context())
    if executor is not None:
        from pooledhttp.reach import Line

        work.line = Line()
        if context is not None:
            context.tell(work.line)
    crew = Threads(work, cancel, workers) if executor is None else _Pool(work, cancel, executor)
    return spread(source, crew, ahead=2 * workers, ordered=ordered, return_exceptions=return_exceptions, progress=progress, total=total)


class _Loop:
    """The books of one loop: what was taken and not yet yielded, and whose turn it is."""

    def __init__(self, crew: Threads | _Pool, ordered: bool, report: Report | None, total: int | None) -> None:
        self.crew = crew
        self.ordered = ordered
        self.report = report
        self.total = total
        self.taken: deque[_Task] = deque()      # ordered: in order of their turn
        self.ready: deque[_Task] = deque()      # not ordered: done, in order of completion
        self.outstanding = 0                    # taken and not yet yielded
        self.unfinished = 0                     # taken and not yet done
        self.count = 0                          # done
        self.process = generation()             # whose threads work for it

    def take(self, item: Any) -> None:
        task = _Task(item)
        self.crew.submit(task, self.unfinished + 1)
        self.outstanding += 1
        self.unfinished += 1
        if self.ordered:
            self.taken.append(task)

    def collect(self, task: _Task) -> None:
        if task.collected:                      # one that the executor and we have both ended
            return
        task.collected = True
        self.unfinished -= 1
        self.count += 1
        if not self.ordered:
            self.ready.append(task)
        if self.report is not None:
            if self.total is not None and self.total < self.count:
                self.total = None               # the input had promised fewer
            self.report(self.count, self.total)

    def has_turn(self) -> bool:
        """Whether the next to be yielded is there; never waits."""
        done = self.crew.done
        with suppress(Empty):
            while True:
                self.collect(done.get_nowait())
        return self.taken[0].collected if self.taken else bool(self.ready)

    def turn(self) -> _Task:
        while not self.has_turn():
            if self.process != generation():
                raise RuntimeError("this loop over responses was begun before the fork, and its workers are the parent's: begin another")
            self.collect(self.crew.wait())
        self.outstanding -= 1
        return self.taken.popleft() if self.ordered else self.ready.popleft()

    def drop(self) -> None:
        """Close what nobody will see. (What is not done yet drops itself when it is.)"""
        with suppress(Empty):
            while True:
                self.crew.done.get_nowait().drop()
        for task in (*self.taken, *self.ready):
            task.drop()


def spread(source: Iterator[Any], crew: Threads | _Pool, *, ahead: int, ordered: bool = True, return_exceptions: bool = False,
           progress: Progress = None, total: int | None = None) -> Iterator[Any]:
    """The results of the crew's work on the items of `source`, of which at most `ahead` are taken and not yet yielded."""
    report, finish = reporter(progress, total)
    loop = _Loop(crew, ordered, report, total)
    failure: Exception | None = None             # the input's own or the executor's, raised after what was begun before
    more = True
    slow = False                                 # the input took its time over the last one
    early = True
    try:
        while True:
            # At least one is taken for one that is yielded, so that the workers never starve; and as many as may be,
            # unless the input is slow and something is ready.
            first, waited, later = not slow, _INPUT if slow else 0.0, False
            while more and loop.outstanding < ahead and (first or waited < _INPUT or not loop.has_turn()):
                first = False
                began = monotonic()
                try:
                    item = next(source)
                    took = monotonic() - began
                    slow = took > _INPUT
                    waited += took
                    if item is LATER:
                        later = True
                        break
                    loop.take(item)
                    del item
                except StopIteration:
                    more = False
                except Exception as e:           # raised below
                    failure = e
                    more = False
            if not loop.outstanding:
                if later:
                    continue
                break
            if later and not loop.has_turn():
                continue
            task = loop.turn()
            error = task.error
            if error is None:
                yield task.take()
                del task
            elif return_exceptions and isinstance(error, Exception):
                del task
                yield error
                del error
            else:
                try:
                    raise error
                finally:
                    del error, task              # or the traceback would keep them, and they it
        early = False
        if failure is not None:
            raise failure
    finally:
        try:
            crew.dismiss()
            crew.end(early)
        finally:                                 # a second Ctrl-C may come while those are waited for
            loop.drop()
            finish()
