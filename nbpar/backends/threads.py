"""Workers that are threads of the kernel: no pickling, shared memory, one GIL.

A thread cannot be killed. One that must go (a timeout, a task that ignores its interrupt) is abandoned: its results are
dropped, an exception is raised in it at its next bytecode, and another thread takes its place.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from nbpar.backends.base import (
    Gone,
    JobSpec,
    Left,
    NoJob,
    NotReady,
    Printed,
    Ready,
    TasksEnded,
    WorkerEvent,
    short_repr,
)
from nbpar.backends.isolation import Isolated, Packed, pack
from nbpar.backends.thread_output import renew_routes, route_prints
from nbpar.daemon import start_thread
from nbpar.engine.events import LostUpdate, Sampled
from nbpar.engine.instructions import Chunk
from nbpar.engine.plans import Running
from nbpar.engine.state import Activity
from nbpar.options import PoolOptions
from nbpar.wire.board import Slot
from nbpar.wire.exceptions import strip_own_frames, traceback_text
from nbpar.worker.bars import catch_bars
from nbpar.worker.context import Context, TaskInterrupt, current_context, set_context
from nbpar.worker.execute import Report, Unusable, Work, run_chunk, unwrapped

__all__ = ["ThreadWorkers"]


@dataclass(slots=True, eq=False)
class _Thread:
    """One worker thread. `inbox` holds at most the scheduler's two chunks and a stop."""

    worker_id: int
    context: Context
    inbox: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    thread: threading.Thread | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)  # guards chunk_id against a late interrupt
    chunk_id: int | None = None
    abandoned: bool = False
    samplers: dict[int, Any] = field(default_factory=dict)  # of the jobs that are profiled
    isolated: dict[int, Isolated] = field(default_factory=dict)  # of the strict jobs
    n_waiting: Counter[int] = field(default_factory=Counter)  # chunks in the inbox, of strict jobs, by job


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A job as its threads need it."""

    work: Work
    speed_key: object
    packed: Packed | None = None  # of a strict job: each thread has a copy of its own


@dataclass(frozen=True, slots=True)
class _Order:
    """A chunk to be run."""

    chunk: Chunk
    items: Sequence[Any]
    work: Work
    quick: bool
    returnable: bool
    profiled: bool
    strict: tuple[JobSpec, Packed] | None = None


class ThreadWorkers:
    """The :class:`~nbpar.backends.base.Workers` of a pool of threads."""

    def __init__(self, options: PoolOptions) -> None:
        self._options = options
        self._threads: dict[int, _Thread] = {}
        self._events: queue.SimpleQueue[WorkerEvent | None] = queue.SimpleQueue()  # bounded by the chunks out
        self._first: WorkerEvent | None = None  # taken out by `wait`, for `poll`

    def prepare(self, job: JobSpec) -> _Prepared:
        """Nothing is pickled."""
        renew_routes()
        catch_bars(own_process=False)
        packed = None if job.options.strict is None else pack(job)
        return _Prepared(job.work, getattr(job.function, "__code__", None), packed)

    def start(self, worker_id: int) -> None:
        """Start a thread."""
        # A slot of its own each time: an abandoned thread goes on writing into the old one.
        worker = _Thread(worker_id, Context(worker_id, Slot.alone()))
        begin_s = time.perf_counter()
        self._threads[worker_id] = worker
        try:
            worker.thread = start_thread(self._live, worker, begin_s, name=f"nbpar-thread-{worker_id}")
        except RuntimeError as error:  # can't start new thread
            self._events.put(Gone(worker_id, 0, None, None, start_error=str(error)))

    def send(self, worker_id: int, chunk: Chunk, job: JobSpec, prepared: object, *, quick: bool) -> int:
        """Hand a chunk to its thread."""
        assert isinstance(prepared, _Prepared)
        worker = self._threads.get(worker_id)
        if worker is not None:
            items = job.source.take(chunk.start, chunk.stop)
            options = job.options
            strict = None if prepared.packed is None else (job, prepared.packed)
            if strict is not None:
                worker.n_waiting[job.job_id] += 1
            returnable = options.chunk_size is None
            worker.inbox.put(_Order(chunk, items, prepared.work, quick, returnable, options.profile, strict))
        return 0

    def interrupt(self, worker_id: int, chunk_id: int) -> None:
        """Drop a chunk, or raise in the thread that runs it."""
        worker = self._threads.get(worker_id)
        if worker is None:
            return
        worker.context.slot.drop(chunk_id)
        with worker.lock:
            if worker.chunk_id == chunk_id and worker.thread is not None:
                if (together := worker.context.together) is not None:
                    together.interrupt()  # what waits is cancelled by its event loop
                else:
                    _raise_in(worker.thread, TaskInterrupt)

    def recall(self, worker_id: int, chunk_id: int) -> None:
        """Drop a chunk; what runs is left alone."""
        worker = self._threads.get(worker_id)
        if worker is not None:
            worker.context.slot.drop(chunk_id)

    def kill(self, worker_id: int, *, gently: bool) -> None:
        """Abandon a thread; `gently` only asks it again."""
        worker = self._threads.get(worker_id)
        if worker is None or worker.thread is None:
            return
        if gently:
            with worker.lock:
                if worker.chunk_id is not None:  # else it would be raised where nobody expects it
                    _raise_in(worker.thread, TaskInterrupt)
            return
        running, _ = self.look(worker_id)
        worker.abandoned = True
        worker.inbox.put(None)
        if (together := worker.context.together) is not None:
            together.interrupt()
        _raise_in(worker.thread, TaskInterrupt)
        del self._threads[worker_id]
        self._events.put(Gone(worker_id, os.getpid(), None, running))

    def stop(self, worker_id: int) -> None:
        """Let a thread end."""
        worker = self._threads.get(worker_id)
        if worker is not None:
            worker.inbox.put(None)

    def end_job(self, job_id: int) -> None:
        """Forget the samplers of a job that was profiled."""
        for worker in self._threads.values():
            worker.samplers.pop(job_id, None)
            worker.n_waiting.pop(job_id, None)
            if (isolated := worker.isolated.pop(job_id, None)) is not None:
                isolated.close()

    def wait(self, timeout_s: float | None) -> None:
        """Wait for an event."""
        with contextlib.suppress(queue.Empty):
            self._first = self._events.get(timeout=timeout_s) if timeout_s != 0.0 else self._events.get_nowait()

    def poll(self) -> Iterable[WorkerEvent]:
        """What has happened."""
        first, self._first = self._first, None
        events = [] if first is None else [first]
        try:
            while True:
                event = self._events.get_nowait()
                if event is not None:
                    events.append(event)
        except queue.Empty:
            return events

    def rest_in_s(self, _now_s: float) -> None:
        """Threads need no memory of their own."""

    @property
    def has_news(self) -> bool:
        """Whether there is an event."""
        return self._first is not None or not self._events.empty()

    @property
    def can_lend(self) -> bool:
        """No: tasks want the GIL that the helping thread would hold."""
        return False

    def lend(self, on: bool) -> None:  # see the protocol
        """Never called."""

    def wake(self) -> None:
        """Make `wait` return."""
        self._events.put(None)

    def look(self, worker_id: int) -> tuple[Running | None, Activity]:
        """What a thread does now."""
        worker = self._threads.get(worker_id)
        if worker is None:
            return None, Activity(None, 0.0)
        slot = worker.context.slot
        (limit_s, part), chunk_id, index, since_s = slot.part, slot.chunk_id, slot.index, slot.since_s
        running = None if chunk_id is None else Running(chunk_id, index, since_s, slot.n_block, limit_s, part)
        return running, Activity(index, since_s, 0, slot.tracked)

    def pid(self, worker_id: int) -> int | None:
        """The kernel's own."""
        return os.getpid() if worker_id in self._threads else None

    def close(self) -> None:
        """Ask every thread to end and wait a moment for it."""
        workers = list(self._threads.values())  # a thread that ends takes itself out
        for worker in workers:
            worker.inbox.put(None)
            if worker.chunk_id is not None and worker.thread is not None:
                if (together := worker.context.together) is not None:
                    together.interrupt()
                _raise_in(worker.thread, TaskInterrupt)
        for worker in workers:
            if worker.thread is not None and worker.thread is not threading.current_thread():
                worker.thread.join(0.5)
        self._threads.clear()

    # --- in the worker's thread ---------------------------------------------------------------------------------------

    def _live(self, worker: _Thread, begin_s: float) -> None:
        gone = Gone(worker.worker_id, os.getpid(), 0, None)
        try:
            self._serve(worker, begin_s)
        except BaseException as error:  # noqa: BLE001  # raised from outside, where no task runs: by a debugger, say
            gone = gone._replace(exit_code=None, running=self.look(worker.worker_id)[0], last_words=short_repr(error))
        if worker.context.loop is not None:
            from nbpar.worker.eventloop import close_loop

            close_loop(worker.context)
        if not worker.abandoned:
            self._threads.pop(worker.worker_id, None)
            self._events.put(gone)

    def _serve(self, worker: _Thread, begin_s: float) -> None:
        set_context(worker.context, whole_process=False)
        with route_prints(self._print, lambda: worker.context.index) as finish_line:
            ready_s = init_begin_s = time.perf_counter()
            try:
                if self._options.worker_init is not None:
                    self._options.worker_init()
                    ready_s = time.perf_counter()
            except BaseException as error:  # noqa: BLE001  # told to every job that waits
                self._events.put(NotReady(worker.worker_id, error))
                return
            init_s = ready_s - init_begin_s
            self._events.put(Ready(worker.worker_id, os.getpid(), begin_s, ready_s, init_s=init_s))
            while (message := worker.inbox.get()) is not None and not worker.abandoned:
                self._run(worker, message, finish_line)
            try:
                if self._options.worker_exit is not None and not worker.abandoned:
                    exit_begin_s = time.perf_counter()
                    self._options.worker_exit()
                    self._events.put(Left(worker.worker_id, time.perf_counter() - exit_begin_s))
            except BaseException as error:  # noqa: BLE001  # nobody waits for it: it is printed
                sys.stderr.write(f"worker_exit failed: {error!r}\n")

    def _run(self, worker: _Thread, order: _Order, finish_line: Callable[[], None]) -> None:
        chunk = order.chunk
        told = False
        isolated: Isolated | None = None
        sampler = self._sampler(worker, chunk.job_id) if order.profiled else None

        def report(one: Report) -> None:
            nonlocal told
            if one.final and sampler is not None:
                sampler.stop()
            finish_line()
            if isolated is not None:
                isolated.give(one.values, one.failures, one.first)
                is_last = one.final and not worker.n_waiting[chunk.job_id]
                if (changed := isolated.look(one.end_s - one.begin_s, is_last=is_last)) and not worker.abandoned:
                    self._events.put(LostUpdate(chunk.job_id, changed))
            if not worker.abandoned:
                self._events.put(_ended(worker.worker_id, chunk.chunk_id, one))
            told = one.final

        try:
            with worker.lock:
                worker.chunk_id = chunk.chunk_id
            if order.strict is not None:
                worker.n_waiting[chunk.job_id] -= 1
                isolated = self._isolated(worker, *order.strict)
            items = [unwrapped(item) for item in order.items] if isolated is None else isolated.take(order.items)
            worker.context.attempt, worker.context.seed = chunk.attempt, order.work.seed
            if sampler is not None:
                sampler.start()
            run_chunk(
                order.work if isolated is None else isolated.work,
                items,
                chunk_id=chunk.chunk_id,
                start=chunk.start,
                context=worker.context,
                quick=order.quick and not any(type(item) is Unusable for item in items),
                report=report,
                returnable=order.returnable,
            )
        except TaskInterrupt:  # it came between two tasks
            pass
        while True:
            try:
                with worker.lock:  # from here on no interrupt is raised for this chunk
                    worker.chunk_id = None
                    _clear_raise()
                worker.context.slot.end_chunk()
                if not told:
                    report(Report(chunk.stop, final=True))
                return
            except TaskInterrupt:
                continue

    def _isolated(self, worker: _Thread, job: JobSpec, packed: Packed) -> Isolated | None:
        """The copy of a strict job's function that belongs to this thread."""
        if job.job_id not in worker.isolated:
            try:
                worker.isolated[job.job_id] = Isolated(job, packed)
            except Exception as error:  # noqa: BLE001  # whatever a __setstate__ of the user's raises
                self._events.put(NoJob(worker.worker_id, job.job_id, error))
                return None
        return worker.isolated[job.job_id]

    def _sampler(self, worker: _Thread, job_id: int) -> Any:
        if job_id not in worker.samplers:
            from nbpar.worker.profile import Sampler

            def tell(data: bytes) -> None:
                if not worker.abandoned:
                    self._events.put(Sampled(worker.worker_id, job_id, data))

            worker.samplers[job_id] = Sampler(tell, only_watch=sys.version_info < (3, 12))
        return worker.samplers[job_id]

    def _print(self, text: str, is_stderr: bool, index: int | None) -> None:
        context = current_context()
        if context is not None:
            stream: Literal["stdout", "stderr"] = "stderr" if is_stderr else "stdout"
            self._events.put(Printed(context.worker_id, index, stream, text.split("\n")))


def _ended(worker_id: int, chunk_id: int, report: Report) -> TasksEnded:
    failures = [(index, strip_own_frames(error), traceback_text(error)) for index, error in report.failures]
    return TasksEnded(
        worker_id,
        chunk_id,
        report.first,
        report.n_ended,
        report.final,
        report.begin_s,
        report.end_s,
        report.values,
        failures,
        longest_index=report.longest_index,
        longest_s=report.longest_s,
    )


def _raise_in(thread: threading.Thread, error: type[BaseException]) -> None:
    """Raise in another thread at its next bytecode; a call into C must return first."""
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(error))


def _clear_raise() -> None:
    """Take back an exception that was to be raised in this thread: have one raised in its place, here.

    To set none instead would tell the interpreter that there is one and never that it has come: in Python 3.11 it looks
    for it at each loop and call from then on, and a thread that is traced or profiled does nothing else.
    """
    try:
        _raise_in(threading.current_thread(), TaskInterrupt)
        while True:  # it comes before the second turn
            pass
    except TaskInterrupt:
        pass
