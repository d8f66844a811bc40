"""Who does a pool's work: one thread of its own, or the main thread while it would only wait for that one.

::

    user's threads                      the dispatcher's thread                                workers
    --------------                      -----------------------                                -------
    submit, feed, cancel --commands--> Scheduler --instructions--> Workers.send, start --> ... run tasks
                                           ^                                                       |
    Job (JobSink) <----- events, values ---+--------------- Workers.poll <--- results, output, deaths

The middle is :mod:`nbpar.backends.controller`, and nothing in it is locked: one thread at a time works there, the one
that holds the baton. A blocking call from the main thread takes it for its first 0.2 s (:meth:`Dispatcher.help`), so
that a short map changes threads not once.

Bounds: `commands` holds what users' threads asked for since the last turn, a few entries in a deque with atomic ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from nbpar.backends.base import JobSpec, Wait, Workers
from nbpar.backends.controller import Controller, Record
from nbpar.backends.signals import HeldSignals
from nbpar.daemon import start_thread
from nbpar.engine.instructions import EndJob
from nbpar.engine.state import Activity
from nbpar.errors import InternalError, PoolClosedError, WorkerStartError
from nbpar.options import PoolOptions
from nbpar.waiting import Latch

__all__ = ["Dispatcher"]

_main_thread = threading.main_thread().ident

_log = logging.getLogger("nbpar")

LOOK_S = 0.0001
"""A helping thread looks for so long before it sleeps, and lets others run between two looks: the answer to a short
call is mostly there by then, and to sleep and be woken takes up to a fifth of such a call."""


class Dispatcher:
    """A backend whose workers run beside the kernel's main thread: processes or threads.

    Parameters
    ----------
    workers : Workers
        Owned from now on: its methods are called by the dispatcher's thread, which also closes it.
    options : PoolOptions
    """

    can_pause = True

    def __init__(self, workers: Workers, options: PoolOptions) -> None:
        self._workers = workers
        self._n_workers = options.count
        self._controller = Controller(workers, options)
        self._commands: deque[Callable[[], None]] = deque()
        self._closed = Latch()
        self._thread: threading.Thread | None = None
        # Guards the start of the thread and the refusal of commands once it has ended. Reentrant: the garbage collector
        # may drop a stream, which cancels its job, while the lock is held.
        self._thread_lock = threading.RLock()
        self._owner_pid = os.getpid()
        # Held by the thread that does the dispatcher's work at the moment: its own, or the main thread in `help`.
        # Guards the scheduler, the workers and the jobs. Its own does not hold it while it waits for something to do.
        self._baton = threading.Lock()
        self._takes_help = False
        self._sleeps_until_s: float | None = None
        self._torn: BaseException | None = None

    # --- any thread ---------------------------------------------------------------------------------------------------

    def submit(self, job: JobSpec, wait: Wait | None = None) -> None:
        """Begin a job."""
        __tracebackhide__ = True
        record = Record(job, self._workers.prepare(job))
        self._post(lambda: self._controller.add(record), wait)

    def feed(
        self, job_id: int, n_available: int, *, closed: bool, todo: Sequence[tuple[int, int]] | None = None
    ) -> None:
        """More items of a streamed job are there."""
        self._post(lambda: self._controller.scheduler.feed(job_id, n_available, closed=closed, todo=todo))

    def cancel(self, job_id: int, *, gently: bool = False) -> None:
        """Stop a job."""
        stop, status = self._controller.scheduler.stop_job, EndJob(job_id, "cancelled")
        self._post(lambda: stop(job_id, status, time.perf_counter(), gently=gently))

    def pause(self, job_id: int, *, paused: bool) -> None:
        """Hold a job or let it go on."""
        self._post(lambda: self._controller.scheduler.pause(job_id, paused=paused))

    def make_room(self, job_id: int) -> None:
        """The consumer of a streamed job has taken results."""
        self._post(lambda: self._controller.make_room(job_id))

    def chunk_size(self, job_id: int) -> int:
        """Tasks that travel together at the moment."""
        return self._controller.scheduler.chunk_size(job_id)

    def activities(self, job_id: int) -> Mapping[int, Activity]:
        """What each worker does for a job now."""
        found = {}
        for worker_id in range(self._n_workers):
            running, activity = self._workers.look(worker_id)
            if running is None or activity.index is None:
                continue
            # Another thread's data, read without a lock: a chunk that ended a moment ago is simply not found.
            for chunk in list(self._controller.scheduler.held_chunks(worker_id)):
                if chunk.chunk_id == running.chunk_id and chunk.job_id == job_id:
                    ended_to = max(chunk.start, self._controller.scheduler.ended_to(worker_id))
                    n_done = max(0, min(activity.index, chunk.stop) - ended_to)
                    found[worker_id] = Activity(activity.index, activity.since_s, n_done, activity.track)
        return found

    def pids(self) -> Mapping[int, int]:
        """Process id of each worker that is up."""
        pids = ((worker_id, self._workers.pid(worker_id)) for worker_id in range(self._n_workers))
        return {worker_id: pid for worker_id, pid in pids if pid is not None}

    def warm(self) -> None:
        """Start workers ahead of the first job."""
        self._post(self._controller.scheduler.warm)

    def recycle(self, reason: str) -> None:
        """Replace all workers as they get free."""
        self._post(lambda: self._controller.recycle(reason))

    def shutdown(self, *, wait: bool, cancel: bool) -> None:
        """End the pool; with `wait` it returns when nothing is left of it."""
        if os.getpid() != self._owner_pid:  # after a fork: the thread and the workers are the parent's
            return
        with self._thread_lock:
            if self._thread is None:
                self._controller.closing = True
                if not self._closed.is_set():
                    self._closed.set()
                    self._workers.close()
                return
        with contextlib.suppress(PoolClosedError):
            self._post(lambda: self._controller.close(cancel=cancel))
        if wait and self._thread is not threading.current_thread():
            self._closed.wait()
            self._thread.join()

    def _post(self, command: Callable[[], None], wait: Wait | None = None) -> None:
        if os.getpid() != self._owner_pid:
            raise PoolClosedError("this pool belongs to the process that made it; make one of your own after a fork")
        with self._thread_lock:
            if self._closed.is_set():
                raise PoolClosedError("this pool was shut down; make another one")
            self._commands.append(command)
            if self._thread is None:
                self._start_thread()
        if not self.help(wait):
            self._workers.wake()

    def _start_thread(self) -> None:
        try:
            # Not set when a Ctrl-C breaks in: then the thread takes its place itself (`_run`).
            self._thread = start_thread(self._run, name="nbpar-dispatcher")
        except RuntimeError as error:  # no more threads
            self._commands.pop()
            raise WorkerStartError(f"the pool's thread cannot be started: {error} (ulimit -u?)") from error

    def help(self, wait: Wait | None = None) -> bool:
        """Do the dispatcher's work in the main thread, which would only wait for it: two changes of threads less.

        Without `wait` what is due now is done.

        Returns
        -------
        bool
            Whether what was due has been done. Not in other threads, where nothing holds exceptions back; nor before
            all workers are there, nor when the pool closes: that is left to the dispatcher's own thread.
        """
        if threading.get_ident() != _main_thread or not self._workers.can_lend:
            return False
        with HeldSignals() as signals:
            if not self._baton.acquire(blocking=False):
                return False
            due_s: float | None = None
            try:
                if not self._takes_help or self._controller.closing or not self._controller.scheduler.has_all_workers:
                    return False
                self._workers.lend(True)
                try:
                    due_s = self._work_guarded()
                    if wait is not None:
                        due_s = self._work_while(wait, signals, due_s)
                    elif self._workers.has_news:  # a worker took this CPU from us and has answered
                        due_s = self._work_guarded()
                finally:
                    self._workers.lend(False)
            finally:
                self._baton.release()
        until_s = self._sleeps_until_s
        # When the pool closes its own thread has to end, also where nothing is due any more.
        is_due = due_s is not None and (until_s is None or time.perf_counter() + due_s < until_s)
        if is_due or self._controller.closing:
            self._workers.wake()
        return True

    def _work_while(self, wait: Wait, signals: HeldSignals, due_s: float | None) -> float | None:
        end_s = time.perf_counter() + wait.limit_s
        if wait.meanwhile is not None:
            wait.meanwhile()
        look_to_s = time.perf_counter() + LOOK_S
        while self._torn is None and not wait.is_over():
            left_s = end_s - time.perf_counter()
            if left_s <= 0:
                break
            signals.may_break = True  # only here: what `wait` has found is found again by the next
            try:
                if not self._sees_news(look_to_s):
                    self._workers.wait(left_s if due_s is None else min(left_s, due_s))
            finally:
                signals.may_break = False
            due_s = self._work_guarded()
        return due_s

    def _sees_news(self, to_s: float) -> bool:
        """Whether news come before `to_s`."""
        while time.perf_counter() < to_s:
            if self._workers.has_news:
                return True
            os.sched_yield()  # a worker may have been put on this very CPU
        return False

    def _work_guarded(self) -> float | None:
        """One turn in the main thread; a defect is left to the dispatcher's own to tell."""
        try:
            return self._work()
        except BaseException as error:  # noqa: BLE001  # it is raised in the other thread
            self._torn = error
            return 0.0

    # --- the dispatcher's thread, or the main thread that helps -------------------------------------------------------

    def _run(self) -> None:
        with self._thread_lock:
            # A start that was broken off by a Ctrl-C may have been made good by another: the first to come here stays.
            if self._closed.is_set() or self._thread not in (None, threading.current_thread()):
                return
            self._thread = threading.current_thread()
        if hasattr(signal, "pthread_sigmask"):  # Ctrl-C is for the main thread, and workers are started from here
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            while True:
                with self._baton:
                    if self._torn is not None:
                        raise self._torn
                    due_s = self._work()
                    self._takes_help = bool(self._commands) or not self._controller.is_over
                    if not self._takes_help:
                        break
                    self._sleeps_until_s = None if due_s is None else time.perf_counter() + due_s
                self._workers.wait(due_s)
        except BaseException as error:  # noqa: BLE001  # a defect of nbpar's own must not leave anyone waiting
            _log.exception("nbpar's dispatcher failed")
            with self._baton:
                self._takes_help = False
            self._controller.fail_everything(InternalError(f"nbpar's dispatcher failed: {error!r}; please report this"))
        finally:
            with self._thread_lock:
                self._closed.set()
            self._controller.closing = True
            for command in list(self._commands):  # jobs that came too late
                command()
            self._controller.fail_everything(PoolClosedError("the pool was shut down before the job began"))
            self._workers.close()

    def _work(self) -> float | None:
        """All that is to be done now; the seconds until there is more to do by the clock, None when only news count."""
        self._controller.hear()
        while self._commands:
            self._commands.popleft()()
        due_s = self._controller.act()
        return 0.0 if self._commands else due_s
