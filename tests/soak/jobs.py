"""The jobs of the soak: each verb, with options by chance, and the claim that is then held against the books."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np

import nbpar
from nbpar.errors import JobCancelledError, PoolClosedError, SerializationError, TaskError, WorkerStartError
from tests.soak.books import DIES, RECORD_BYTES, Claim, audit, read_runs
from tests.soak.claims import cause_of, claim_of, claim_without_job, wrong_raise, wrong_value
from tests.soak.stage import Guest, Stage, Story
from tests.soak.tasks import ACTS, DEADLY, SPOILT, TIMEOUT_S, BadArgument, Spec, make_task, perform

__all__ = ["Actor"]

N_KEPT = 12
"""Arrays among the results that are looked at again later."""


class Actor:
    """Runs one job after the other, in its own thread.

    Parameters
    ----------
    armed : callable, optional
        Called with True where a KeyboardInterrupt may come from now on, and with False where none may any more; for
        the one in the main thread.
    """

    def __init__(self, stage: Stage, number: int, armed: Callable[[bool], None] | None = None) -> None:
        self._stage = stage
        self._chance = random.Random(f"{stage.seed}:{number}")
        self._number = number
        self._armed = armed or (lambda _on: None)
        self._kept: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
        self._n_checkpoints = 0

    def run(self) -> None:
        """Until the stage stops."""
        kinds = [self._map, self._stream, self._background, self._submit, self._arrays, self._shared, self._checkpoint]
        weights = [5, 4, 5, 3, 3, 2, 2]
        try:
            while not self._stage.stop.is_set():
                self._chance.choices([*kinds, self._pool_of_its_own], [*weights, 1])[0]()
                self._look_at_kept()
        except BaseException as error:  # noqa: BLE001  # told with the rest
            self._stage.fail(f"actor {self._number}: {type(error).__name__}\n{traceback.format_exc()}")
        finally:
            self._kept.clear()  # what is held when all is over would look like a leak

    # --- kinds --------------------------------------------------------------------------------------------------------

    def _map(self) -> None:
        guest = self._stage.guest(self._chance)
        self._blocking(guest, self._chance.choice(["map", "starmap"]))

    def _arrays(self) -> None:
        guest = self._stage.guest(self._chance)
        self._blocking(guest, "arrays")

    def _shared(self) -> None:
        guest = self._stage.guest(self._chance)
        self._blocking(guest, "shared")

    def _blocking(self, guest: Guest, kind: str) -> None:
        # Workers that are replaced after a few tasks take a third of a second to start, on a busy machine.
        sizes = [0, 1, 7, 40] if (guest.pool.options.tasks_per_worker or 1000) < 100 else [0, 1, 7, 40, 300, 1500]
        n_tasks = self._chance.choice([1, 3, 20] if kind == "arrays" else sizes)
        spec, options = self._spec(guest, n_tasks), self._options(guest)
        story = self._stage.begin(kind, guest, spec, options)
        function, items, odd = self._work(guest, kind, spec, n_tasks)
        verb = guest.pool.map if kind == "map" else guest.pool.starmap
        name = f"soak {story.number}"
        raised: BaseException | None = None
        found: Any = None
        try:
            self._armed(True)
            found = verb(function, items, name=name, progress=False, **options)
            self._armed(False)
        except BaseException as error:  # noqa: BLE001  # whatever it is: it is what the books are compared with
            raised = error
        self._armed(False)
        job = next((one for one in reversed(nbpar.jobs()) if one.name == name), None)
        story.tell(f"raised {raised!r}; {job!r}")
        if job is None:  # refused, interrupted before it was one, or a hundred others came after it
            claim, problems = claim_without_job(found), list[str]()
        else:
            if isinstance(raised, KeyboardInterrupt):
                job.wait(20.0)
            claim, problems = claim_of(job, found, n_tasks, options["on_error"])
            problems += wrong_raise(story, job, raised)
        self._settle(guest, story, claim, problems, n_tasks, odd)

    def _stream(self) -> None:
        guest = self._stage.guest(self._chance)
        n_tasks = self._chance.choice([0, 1, 30, 400])
        ordered, is_endless = self._chance.random() < 0.5, self._chance.random() < 0.3
        n_wanted = self._chance.randrange(n_tasks + 1) if is_endless else None
        spec, options = self._spec(guest, n_tasks), self._options(guest)
        story = self._stage.begin("imap" if ordered else "imap, unordered", guest, spec, options)
        name = f"soak {story.number}"
        items: Iterable[int] = itertools.count() if is_endless else iter(range(n_tasks))
        values: dict[int, Any] = {}
        errors: dict[int, BaseException] = {}
        raised: BaseException | None = None
        were_read: list[int] = []
        wrong: list[str] = []

        def read() -> Iterator[int]:
            for item in items:
                were_read.append(item)
                yield item

        try:
            results: Any = guest.pool.imap(
                make_task(spec), read(), ordered=ordered, name=name, progress=False, **options
            )
            for value in itertools.islice(results, n_wanted):
                index, into = (value.index, errors) if isinstance(value, TaskError) else (value[0], values)
                if ordered and any(index <= one for one in itertools.islice(reversed(into), 1)):
                    wrong.append(f"task {index} came after a later one")
                into[index] = value
            results.close()
        except BaseException as error:  # noqa: BLE001  # see above
            raised = error
        job = next((one for one in reversed(nbpar.jobs()) if one.name == name), None)
        story.tell(f"{len(were_read)} read, {len(values)} values; raised {raised!r}; {job!r}")
        if job is None:
            claim = Claim("left", values, {index: cause_of(error) for index, error in errors.items()})
        else:
            if not job.wait(20.0):
                wrong.append("the job does not end")
            status = job.status if raised is not None or n_wanted is None else "left"
            errors = {error.index: error for error in job.errors} | errors
            claim = Claim(status, values, {index: cause_of(error) for index, error in errors.items()})
            wrong += wrong_raise(story, job, raised)
        if raised is None and n_wanted is None and len(were_read) != n_tasks:
            wrong.append(f"{len(were_read)} of {n_tasks} items were read")
        self._settle(guest, story, claim, wrong, None if is_endless else n_tasks)

    def _background(self) -> None:
        guest = self._stage.guest(self._chance)
        n_tasks = self._chance.choice([1, 7, 40, 300])
        spec, options = self._spec(guest, n_tasks), self._options(guest)
        story = self._stage.begin("map_async", guest, spec, options)
        try:
            job = guest.pool.map_async(make_task(spec), range(n_tasks), progress=False, **options)
        except PoolClosedError as error:
            self._settle(guest, story, Claim("cancelled"), [], n_tasks)
            story.tell(repr(error))
            return
        for what in self._chance.choices(["pause", "cancel", "wait", "nothing"], [2, 1, 2, 2], k=2):
            delay_s = self._chance.uniform(0.0, 0.3)
            story.tell(what)
            if what == "pause":
                job.pause()
                time.sleep(delay_s)  # the moment is to be any
                job.resume()
            elif what == "cancel":
                time.sleep(delay_s)
                job.cancel()
            elif what == "wait":
                job.wait(delay_s)
        raised: BaseException | None = None
        found: Any = None
        try:
            found = asyncio.run(_awaited(job)) if self._chance.random() < 0.3 else job.result()
        except BaseException as error:  # noqa: BLE001  # see above
            raised = error
        story.tell(f"raised {raised!r}; {job!r}")
        claim, problems = claim_of(job, found, n_tasks, options["on_error"])
        self._settle(guest, story, claim, problems + wrong_raise(story, job, raised), n_tasks)

    def _submit(self) -> None:
        guest = self._stage.guest(self._chance)
        n_tasks = self._chance.choice([1, 5, 25])
        spec = self._spec(guest, n_tasks, sleeps=False)
        story = self._stage.begin("submit", guest, spec, {})
        function = make_task(spec) if self._chance.random() < 0.5 else None
        values: dict[int, Any] = {}
        errors: dict[int, BaseException] = {}
        cancelled: list[int] = []
        futures = {}
        try:
            for index in range(n_tasks):
                futures[index] = (
                    guest.pool.submit(function, index)
                    if function is not None
                    else guest.pool.submit(perform, spec, index=index)
                )
        except PoolClosedError as error:
            story.tell(repr(error))
        for index in self._chance.sample(sorted(futures), len(futures) // 8):
            futures[index].cancel()
        for index, future in futures.items():
            try:
                values[index] = future.result(60.0)
            except (CancelledError, JobCancelledError, PoolClosedError, WorkerStartError) as error:
                story.tell(f"{index}: {error!r}")
                cancelled.append(index)
            except BaseException as error:  # noqa: BLE001  # see above
                errors[index] = error
        claim = Claim("cancelled" if cancelled or len(futures) < n_tasks else "done", values, errors)
        self._settle(guest, story, claim, [], n_tasks)

    def _checkpoint(self) -> None:
        """Twice with one file; the second time only what is missing may run."""
        guest = self._stage.guest(self._chance)
        n_tasks = self._chance.choice([5, 60])
        spec = self._spec(guest, n_tasks, pause_s=self._chance.choice([0.0, 0.002]))
        options = self._options(guest) | {"max_in_flight": None}
        self._n_checkpoints += 1
        path = self._stage.folder / f"checkpoint-{self._number}-{self._n_checkpoints}.db"
        told: dict[int, Any] = {}
        n_lines = 0
        for attempt in range(2):
            story = self._stage.begin(f"checkpoint {attempt + 1}", guest, spec, options)
            story.tell(f"{len(told)} results are there")
            raised: BaseException | None = None
            found: Any = None
            try:
                job = guest.pool.map_async(make_task(spec), range(n_tasks), progress=False, checkpoint=path, **options)
            except PoolClosedError as error:
                story.tell(repr(error))
                n_lines = self._settle(guest, story, Claim("cancelled"), [], n_tasks, keep=attempt == 0)
                continue
            if attempt == 0 and self._chance.random() < 0.4:
                job.wait(self._chance.uniform(0.0, 0.2))
                job.cancel()
            try:
                found = job.result()
            except BaseException as error:  # noqa: BLE001  # see above
                raised = error
            story.tell(f"raised {raised!r}; {job!r}")
            claim, problems = claim_of(job, found, n_tasks, options["on_error"])
            problems += wrong_raise(story, job, raised)
            if missing := told.keys() - claim.values.keys():
                problems.append(f"results of {sorted(missing)[:10]} were there, and are gone")
            n_lines = self._settle(
                guest, story, claim, problems, n_tasks, restored=told, skip=n_lines, keep=attempt == 0
            )
            told = dict(claim.values)
        for one in path.parent.glob(f"{path.name}*"):
            one.unlink()

    def _pool_of_its_own(self) -> None:
        method = self._chance.choice(["forkserver", "fork", "threads", "spawn"])
        options: dict[str, Any] = {"start_method": method, "n_workers": self._chance.choice([1, 2])}
        if self._chance.random() < 0.3:
            options["idle_timeout"] = 0.05
        if self._chance.random() < 0.3:
            options["tasks_per_worker"] = 7
        with self._stage.make_pool(**options) as pool:
            for _ in range(2):
                self._blocking(Guest(f"a pool of its own, {options}", pool), "map")

    # --- what a job is made of ----------------------------------------------------------------------------------------

    def _spec(self, guest: Guest, n_tasks: int, *, sleeps: bool = True, pause_s: float | None = None) -> Spec:
        chance = self._chance
        acts = ["raise", "raise", "stop", "exit", "interrupt", "base"]
        if not guest.is_threads:
            acts += [*SPOILT, *(["sleep"] if sleeps else []), *(DEADLY if chance.random() < 0.4 else ())]
        script = {}
        if n_tasks and chance.random() < 0.5:
            for index in chance.sample(range(n_tasks), min(n_tasks, chance.choice([1, 1, 2, 3]))):
                script[index] = (chance.choice(sorted(acts)), chance.choice([1, 1, 2, 9]))
        if pause_s is None:
            pause_s = chance.choice([0.0, 0.0, 0.001, 0.02]) if n_tasks <= 40 else 0.0
        return Spec(self._stage.new_book(), chance.getrandbits(32), script, pause_s)

    def _options(self, guest: Guest) -> dict[str, Any]:
        chance = self._chance
        return {
            "on_error": chance.choice(["raise", "return", "skip"]),
            "retries": chance.choice([0, 0, 1, 2]),
            "timeout": None if guest.is_threads else TIMEOUT_S,
            "chunk_size": chance.choice([None, None, 1, 5]),
            "seed": chance.choice([None, None, 7]),
            "max_in_flight": chance.choice([None, None, 3]),
        }

    def _work(self, guest: Guest, kind: str, spec: Spec, n_tasks: int) -> tuple[Callable[..., Any], Any, set[int]]:
        """The function, the items, and which of them cannot be rebuilt in a worker."""
        chance, odd = self._chance, set[int]()
        function = make_task(spec)
        if kind == "arrays":
            size = chance.choice([100, 20_000, 300_000])
            return function, [(index, spec.array(index, size)) for index in range(n_tasks)], odd
        if kind == "starmap":
            return function, [(index, index ^ spec.salt) for index in range(n_tasks)], odd
        if kind == "shared":
            big = nbpar.share(spec.array(0, 50_000))
            return _reader_of(function, spec), [(index, big) for index in range(n_tasks)], odd
        items: list[Any] = list(range(n_tasks))
        if not guest.is_threads and n_tasks and chance.random() < 0.1:
            odd = {chance.randrange(n_tasks)}
            items = [BadArgument() if index in odd else index for index in items]
        return function, items if odd or chance.random() < 0.5 else range(n_tasks), odd

    # --- the books ----------------------------------------------------------------------------------------------------

    def _settle(  # noqa: PLR0917  # they read like a sentence
        self,
        guest: Guest,
        story: Story,
        claim: Claim,
        problems: list[str],
        n_tasks: int | None,
        odd: Iterable[int] = (),
        *,
        restored: dict[int, Any] | None = None,
        skip: int = 0,
        keep: bool = False,
    ) -> int:
        """Compare a claim with the book; the number of lines in it."""
        spec, path = story.spec, Path(story.spec.book)
        runs = read_runs(spec.book, skip)
        n_lines = path.stat().st_size // RECORD_BYTES if path.exists() else 0
        for index, of_task in runs.items():
            for run in of_task:
                if run.end == DIES:
                    self._stage.deaths.by_act(run.pid, spec.book, index)
        size = {index: value[1] for index, value in claim.values.items() if isinstance(value[1], np.ndarray)}
        problems += audit(
            claim,
            runs,
            self._stage.deaths,
            n_tasks=n_tasks,
            retries=story.options.get("retries", 0),
            book=spec.book,
            check_value=lambda index, value: wrong_value(story, index, value),
            check_error=lambda index, error: self._wrong_error(story, index, error, set(odd)),
            restored=restored,
            abandons=guest.is_threads,
        )
        for index, array in itertools.islice(size.items(), 2):
            self._kept.append((array, 2 * spec.array(index, len(array))))
        self._stage.end(story, problems, sum(map(len, runs.values())), keep_book=keep)
        return n_lines

    def _wrong_error(self, story: Story, index: int, error: BaseException, odd: set[int]) -> str:
        act, _ = story.spec.script.get(index, ("", 0))
        allowed: tuple[type[BaseException], ...] = (ACTS[act][1],) if act else ()
        if index in odd:
            allowed = (SerializationError,)
        if isinstance(error, allowed):
            return ""
        if isinstance(error, nbpar.WorkerDiedError):
            return "" if self._stage.died(error.pid) else "nothing has ended that worker"
        if isinstance(error, nbpar.TaskTimeoutError):
            return "" if self._stage.counts["stopped"] else "nothing was stopped"
        return f"it is to be {allowed or 'none'}"

    def _look_at_kept(self) -> None:
        for array, expected in self._kept:
            if not np.array_equal(array, expected):
                self._stage.fail(f"actor {self._number}: an array changed while it was kept")
        del self._kept[:-N_KEPT]


async def _awaited(job: Any) -> Any:
    return await job


def _reader_of(function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    def read(index: int, big: Any) -> Any:
        if int(big[index % len(big)]) != int(spec.array(0, len(big))[index % len(big)]):
            raise AssertionError("the shared array is another")
        return function(index)

    return read
