"""In the kernel: the events of a job with many workers as they would come, and ways to show them.

Two cores cannot run 64 workers, so their events are made ahead and fed into a
:class:`~nbpar.engine.state.JobState` when they are due. All that follows is the real thing: state, ticker, dashboard,
comm and front end. Each way of showing runs in a cell that blocks, as a map does, and its threads' CPU time is read
from their clocks.
"""

from __future__ import annotations

import heapq
import json
import random
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from nbpar.engine.events import ChunkDone, Failure, WorkerStarted
from nbpar.engine.snapshot import Snapshot
from nbpar.engine.state import Activity, JobState
from nbpar.views import choose
from nbpar.views.cell import Cell
from nbpar.views.controls import Controls
from nbpar.views.ticker import watch
from nbpar.wire.board import Slot

__all__ = ["WAYS", "Due", "Replay", "plan", "show"]

STEP_S = 0.005
SHOWN_S = 1.0
"""A job stays as it is for so long after its last event, so that this one is painted too."""
PERIOD_S = 0.1
FAILS_EVERY = 5_000


class Due(NamedTuple):
    """The end of a task, and the task that its worker runs next (-1: none)."""

    end_s: float
    begin_s: float
    worker_id: int
    task_index: int
    next_index: int


def plan(*, n_workers: int, n_tasks: int, duration_s: float) -> list[Due]:
    """The ends of all tasks in order of time: each goes to the worker that is free first, as in a pool.

    Examples
    --------
    >>> [(due.worker_id, due.task_index) for due in plan(n_workers=2, n_tasks=4, duration_s=1.0)]
    [(0, 0), (1, 1), (0, 2), (1, 3)]
    """
    mean_s = n_workers * duration_s / n_tasks
    rng = random.Random(0)
    free = [(0.001 * worker_id, worker_id) for worker_id in range(n_workers)]
    ends: list[tuple[float, float, int, int]] = []
    for index in range(n_tasks):
        begin_s, worker_id = heapq.heappop(free)
        end_s = begin_s + mean_s * rng.uniform(0.5, 1.5)
        ends.append((end_s, begin_s, worker_id, index))
        heapq.heappush(free, (end_s, worker_id))
    ends.sort()
    following: dict[int, int] = {}
    found = []
    for end_s, begin_s, worker_id, index in reversed(ends):
        found.append(Due(end_s, begin_s, worker_id, index, following.get(worker_id, -1)))
        following[worker_id] = index
    return found[::-1]


class Replay:
    """A job whose events come when they are due; :meth:`feed` runs in a thread of its own.

    Attributes
    ----------
    reached : list of (float, int)
        Wall time, and how many tasks had ended by then.
    counts : list of int
        Tasks ended, by worker.
    folded_s : float
        CPU time of snapshots that went into folding events, which is not theirs: where nobody looks, the thread that
        applies the events does it.
    """

    def __init__(
        self, *, n_workers: int, n_tasks: int, duration_s: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.n_workers, self.n_tasks, self.duration_s = n_workers, n_tasks, duration_s
        self._clock = clock
        self.reached: list[tuple[float, int]] = []
        self.counts = [0] * n_workers
        self.folded_s = 0.0
        dues = plan(n_workers=n_workers, n_tasks=n_tasks, duration_s=duration_s)
        # As numbers in a row: a hundred thousand tuples would be looked at by each full collection of garbage.
        self._times = array("d", (time_s for due in dues for time_s in (due.end_s, due.begin_s)))
        self._whats = array("q", (number for due in dues for number in (due.worker_id, due.task_index, due.next_index)))
        self._since_s = [0.0] * n_workers  # by the replay's clock, which the board does not know
        self._slots = [Slot.alone() for _ in range(n_workers)]
        self._lock = threading.Lock()
        self._state: JobState | None = None

    @property
    def n_done(self) -> int:
        """Tasks that have ended."""
        return self.reached[-1][1] if self.reached else 0

    def begin(self) -> None:
        """All workers are there."""
        now_s = self._clock()
        self._begin_s = now_s
        self._state = JobState(
            job_id=1, name="map score", n_tasks=self.n_tasks, n_workers=self.n_workers, begin_s=now_s
        )
        self._state.status = "running"
        for worker_id in range(self.n_workers):
            self._state.apply(WorkerStarted(worker_id, 1000 + worker_id, now_s, now_s + 0.001 * worker_id))

    def feed(self) -> None:
        """Apply each event when it is due."""
        while self.step():
            time.sleep(STEP_S)
        time.sleep(SHOWN_S)
        assert self._state is not None
        with self._lock:
            self._state.finish("done", self._clock())

    def step(self) -> bool:
        """Apply what is due; whether there is more to come."""
        times, whats, at = self._times, self._whats, self.n_done
        until_s = self._clock() - self._begin_s
        with self._lock:
            while at < self.n_tasks and times[2 * at] <= until_s:
                self._apply(Due(times[2 * at], times[2 * at + 1], *whats[3 * at : 3 * at + 3]))
                at += 1
        self.reached.append((time.time(), at))
        return at < self.n_tasks

    def _apply(self, due: Due) -> None:
        state = self._state
        assert state is not None
        fails = due.task_index % FAILS_EVERY == FAILS_EVERY - 1
        begin_s, end_s = self._begin_s + due.begin_s, self._begin_s + due.end_s
        state.apply(ChunkDone(due.worker_id, due.task_index, due.task_index + 1, begin_s, end_s, int(fails)))
        if fails:
            state.apply(Failure(due.task_index, str(due.task_index), "ValueError", "too large", due.worker_id))
        self.counts[due.worker_id] += 1
        self._since_s[due.worker_id] = due.end_s
        slot = self._slots[due.worker_id]
        if due.next_index < 0:
            slot.end_chunk()
        else:
            slot.begin_task(due.next_index)

    def snapshot(self) -> Snapshot:
        """As :meth:`nbpar.job.Job.snapshot` makes it, the board's slots read one by one."""
        activities = {}
        for worker_id, slot in enumerate(self._slots):
            index = slot.index
            if index is not None:
                activities[worker_id] = Activity(index, self._begin_s + self._since_s[worker_id], 0, slot.tracked)
        assert self._state is not None
        with self._lock:
            begin_s = time.thread_time()
            self._state.n_done  # noqa: B018  # folds what has come
            self.folded_s += time.thread_time() - begin_s
            return self._state.snapshot(self._clock(), activities)


# --- the ways to show it ----------------------------------------------------------------------------------------------


@contextmanager
def _nbpar(replay: Replay) -> Iterator[None]:
    controls = Controls(*[_nothing] * len(Controls._fields))
    watched = watch(choose(None, cell=Cell.current(), controls=controls), replay.snapshot, list)
    yield
    watched.finish()


def _nothing() -> Any:
    """What the buttons do here."""
    return True


@contextmanager
def _tqdm(replay: Replay) -> Iterator[None]:
    from tqdm.notebook import tqdm

    bar = tqdm(total=replay.n_tasks, mininterval=0)
    with _ten_times_a_second(lambda: bar.update(replay.n_done - int(bar.n))):
        yield
    bar.close()


@contextmanager
def _ipywidgets(replay: Replay) -> Iterator[None]:
    import ipywidgets
    from IPython.display import display

    total = ipywidgets.Label()
    total.add_class("nbpar-bench-total")
    most = max(1, 2 * replay.n_tasks // replay.n_workers)
    bars = [ipywidgets.IntProgress(max=most) for _ in range(replay.n_workers)]
    texts = [ipywidgets.Label() for _ in range(replay.n_workers)]
    rows = [
        ipywidgets.HBox([ipywidgets.Label(str(number)), *row])
        for number, row in enumerate(zip(bars, texts, strict=True))
    ]
    display(ipywidgets.VBox([total, *rows]))  # type: ignore[no-untyped-call]  # IPython's

    def update() -> None:
        n_done = replay.n_done
        for bar, text, count in zip(bars, texts, replay.counts, strict=True):
            bar.value = count
            text.value = f"{count:,}"
        total.value = f"{n_done} of {replay.n_tasks}"

    with _ten_times_a_second(update):
        yield


@contextmanager
def _ten_times_a_second(update: Callable[[], object]) -> Iterator[None]:
    over = threading.Event()

    def run() -> None:
        while not over.wait(PERIOD_S):
            update()

    thread = threading.Thread(target=run, name="updater")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        update()


WAYS = {"nbpar": _nbpar, "tqdm.notebook, one bar": _tqdm, "ipywidgets, 64 lanes": _ipywidgets}


def show(way: str, path: str, *, n_workers: int, n_tasks: int, duration_s: float) -> None:
    """Replay with one of :data:`WAYS` in the cell that runs; what was measured goes into a file, as JSON."""
    for name in ("anywidget", "ipywidgets", "tqdm.notebook"):  # 0.3 s once in a session, not part of a second's cost
        import_module(name)
    replay = Replay(n_workers=n_workers, n_tasks=n_tasks, duration_s=duration_s)
    replay.begin()
    feeder = threading.Thread(target=replay.feed, name="feeder")
    with _Messages() as messages:
        before_s = _cpu_s()
        begin_s = time.perf_counter()
        with WAYS[way](replay):
            feeder.start()
            # The feeder's clock has to be read while it lives; the last second has no events.
            feeder.join(duration_s + SHOWN_S / 2)
            spent_s = time.perf_counter() - begin_s
            cpu_s = {name: clock_s - before_s.get(name, 0.0) for name, clock_s in _cpu_s().items()}
            n_messages = dict(messages.counts)
            cpu_s["folding"] = replay.folded_s
            feeder.join()
    record = {"reached": replay.reached, "spent_s": spent_s, "cpu_s": cpu_s, "n_messages": n_messages}
    Path(path).write_text(json.dumps(record), encoding="utf-8")


class _Messages:
    """Counts what the kernel sends to its front ends for a display, by type."""

    _TYPES = ("comm_open", "comm_msg", "comm_close", "display_data", "update_display_data", "stream")

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> _Messages:
        from IPython import get_ipython

        shell: Any = get_ipython()
        session = self._session = shell.kernel.session
        send = session.send

        def counted(stream: Any, msg_or_type: Any, *args: Any, **kwargs: Any) -> Any:
            kind = msg_or_type if isinstance(msg_or_type, str) else msg_or_type["header"]["msg_type"]
            if kind in self._TYPES:
                self.counts[kind] += 1
            return send(stream, msg_or_type, *args, **kwargs)

        session.send = counted
        return self

    def __exit__(self, *_: object) -> None:
        del self._session.send  # the class's own again


def _cpu_s() -> dict[str, float]:
    """CPU time of each thread by its name, and of the whole process as ``process``: more, by the threads of ZeroMQ."""
    found = {"process": time.process_time()}
    for thread in threading.enumerate():
        if thread.ident is not None:
            found[thread.name] = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return found
