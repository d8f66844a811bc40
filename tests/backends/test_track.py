"""Progress inside a task, on every backend: `nbpar.track`, and a plain tqdm that becomes the same."""

from __future__ import annotations

import asyncio
import io
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tqdm as tqdm_package
import tqdm.asyncio
import tqdm.auto
import tqdm.notebook
import tqdm.std
from tqdm import tqdm as notebook_name

import nbpar
from nbpar.errors import OptionsError
from nbpar.worker.context import current_context
from tests.backends.conftest import WITH_WORKERS, only
from tests.helpers import run_script, until

Pool = nbpar.WorkerPool
Seen = tuple[int, int | None] | None


def told() -> Seen:
    """What the board says of the running task."""
    context = current_context()
    assert context is not None
    return context.slot.tracked


def one(pool: Pool, function: Callable[[Any], Any]) -> Any:
    """Run a task alone, told about by task: not as part of a block."""
    return pool.map(function, [0], chunk_size=1, seed=1)[0]


# --- nbpar.track ------------------------------------------------------------------------------------------------------


def test_track_tells_each_step(pool: Pool) -> None:
    def task(_: int) -> list[Seen]:
        return [told() for _ in nbpar.track("abc")] + [told()]

    assert one(pool, task) == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_track_of_unknown_length_counts(pool: Pool) -> None:
    def task(_: int) -> list[Seen]:
        return [told() for _ in nbpar.track(iter("ab"))] + [told() for _ in nbpar.track((c for c in "ab"), total=7)]

    assert one(pool, task) == [(0, None), (1, None), (0, 7), (1, 7)]


def test_a_loop_that_was_left_early_lets_the_next_tell(pool: Pool) -> None:
    def task(_: int) -> list[Seen]:
        for _ in nbpar.track(range(10)):
            break
        seen = [told()]
        try:
            for _ in nbpar.track(range(5)):
                raise ValueError
        except ValueError:
            seen.append(told())
        return seen + [told() for _ in nbpar.track(range(2), total=None)]

    assert one(pool, task) == [(0, 10), (0, 5), (0, 2), (1, 2)]


def test_the_outermost_of_nested_loops_counts(pool: Pool) -> None:
    def task(_: int) -> list[Seen]:
        return [told() for _ in nbpar.track(range(2)) for _ in nbpar.track(range(3)) for _ in notebook_name("ab")]

    assert one(pool, task) == [(0, 2)] * 6 + [(1, 2)] * 6


def test_loops_one_after_the_other_begin_anew(pool: Pool) -> None:
    def task(_: int) -> list[Seen]:
        first = iter(nbpar.track(range(2)))
        list(first)
        return [told() for _ in nbpar.track(range(5))]

    assert one(pool, task)[:2] == [(0, 5), (1, 5)]


@only("forkserver", "threads", "serial")
def test_a_loop_that_outlives_its_task_tells_nothing_of_the_next(pool: Pool) -> None:
    kept = nbpar.per_worker(list[Iterator[int]])

    def task(i: int) -> Seen:
        if i == 0:
            kept().append(iter(nbpar.track(range(100))))
        next(kept()[0])
        return told()

    with Pool(n_workers=1, start_method=pool.start_method) as alone:
        assert alone.map(task, range(3), chunk_size=3, seed=1) == [(0, 100), None, None]


def test_an_error_of_the_input_is_the_tasks_own(pool: Pool) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        one(pool, lambda _: list(nbpar.track(broken())))


@only(*WITH_WORKERS)
def test_what_the_kernel_sees_is_what_the_task_told(pool: Pool, tmp_path: Path) -> None:
    def task(_: int) -> None:
        for i in nbpar.track(range(4)):
            while i == 3 and not (tmp_path / "go").exists():
                time.sleep(0.005)

    job = pool.map_async(task, [0], chunk_size=1)
    try:
        until(lambda: [one.track for one in job.snapshot().lanes if one.track] == [(3, 4)])
    finally:
        (tmp_path / "go").touch()
    job.result()


@pytest.mark.parametrize("total", [-1, 2.5, "many", True])
def test_a_total_that_is_none_is_refused_at_once(total: Any) -> None:
    with pytest.raises(OptionsError, match="total="):
        nbpar.track([], total=total)


# --- tqdm -------------------------------------------------------------------------------------------------------------


def flavours() -> dict[str, Callable[[Any], Any]]:
    """Each is called in the task."""

    def in_function(xs: Any) -> Any:
        from tqdm import tqdm as late

        return late(xs)

    return {
        "from tqdm import tqdm": notebook_name,
        "in the function": in_function,
        "tqdm.tqdm": lambda xs: tqdm_package.tqdm(xs, desc="x", leave=False, ncols=40),
        "tqdm.auto": tqdm.auto.tqdm,
        "tqdm.std": lambda xs: tqdm.std.tqdm(xs, file=sys.stderr),
        "tqdm.notebook": lambda xs: tqdm.notebook.tqdm(xs, colour="red"),
        "trange": lambda xs: tqdm_package.trange(len(xs)),
    }


@pytest.mark.parametrize("flavour", flavours())
def test_bars_tell_and_print_nothing(pool: Pool, flavour: str, capfd: pytest.CaptureFixture[str]) -> None:
    make = flavours()[flavour]

    def task(_: int) -> list[Seen]:
        return [told() for _ in make("abc")] + [told()]

    assert one(pool, task) == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert capfd.readouterr() == ("", "")


def test_bars_are_told_by_hand_as_well(pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    def task(_: int) -> list[Any]:
        seen: list[Any] = []
        with notebook_name(total=10, desc="a") as bar:
            bar.set_description("b")
            bar.set_postfix(loss=1)
            bar.update(4)
            seen.append(told())
            bar.n = 6
            bar.refresh()
            seen.append(told())
            bar.reset(total=20)
            seen.append(told())
            bar.update()
        seen.append((bar.n, bar.desc.strip(": "), isinstance(bar, notebook_name)))
        unknown = notebook_name()
        unknown.update(7)
        seen.append(told())
        unknown.close()
        share = notebook_name(total=0.5)
        share.update(0.25)
        seen.append(told())
        return seen

    assert one(pool, task) == [(4, 10), (6, 10), (0, 20), (1, "b", True), (7, None), (50, 100)]
    assert capfd.readouterr() == ("", "")


def test_bars_may_be_used_in_all_the_ways_there_are(pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    def task(_: int) -> list[Any]:
        seen: list[Any] = []
        bar = notebook_name(range(2), disable=None)
        seen.append([told() for _ in bar])
        seen.append([told() for _ in bar])  # tqdm shows an iteration once
        bar.clear()
        bar.unpause()
        bar.display()
        assert str(bar)
        assert len(bar) == 2
        with tqdm.notebook.tqdm(total=3) as drawn:
            drawn.display()
        with notebook_name.wrapattr(io.BytesIO(bytes(1000)), "read", total=1000) as file:
            file.read(300)
            seen.append(told())
        return seen

    assert one(pool, task) == [[(0, 2), (1, 2)], [(2, 2), (2, 2)], (300, 1000)]
    assert capfd.readouterr() == ("", "")


async def through(bar: type[tqdm.asyncio.tqdm[Any]]) -> tuple[list[int], list[Seen]]:
    async def squared(i: int) -> int:
        await asyncio.sleep(0)
        return i * i

    async def numbers() -> AsyncIterator[int]:
        for i in range(3):
            yield await squared(i)

    gathered = await bar.gather(*[squared(i) for i in range(3)])
    return gathered, [told() async for _ in bar(numbers(), total=3)]


def test_bars_of_coroutines_tell_as_well(pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    found = one(pool, lambda _: asyncio.run(through(tqdm.asyncio.tqdm)))
    assert found == ([0, 1, 4], [(1, 3), (2, 3), (3, 3)])
    assert capfd.readouterr() == ("", "")


def test_bars_with_a_file_of_ones_own_write_there(pool: Pool) -> None:
    def task(_: int) -> tuple[Seen, str, Seen]:
        file = io.StringIO()
        with_file = [told() for _ in notebook_name("abc", file=file)]
        disabled = [told() for _ in notebook_name("abc", disable=True)]
        return with_file[-1], file.getvalue(), disabled[-1]

    seen, text, quiet = one(pool, task)
    assert (seen, quiet) == (None, None)
    assert "3/3" in text


def test_a_wrong_argument_of_a_bar_is_an_error_as_ever(pool: Pool) -> None:
    with pytest.raises(tqdm.std.TqdmKeyError, match="wrong"):
        one(pool, lambda _: notebook_name("abc", wrong=1))


def test_what_tqdm_writes_is_output_of_the_task(pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    def task(_: int) -> None:
        for c in notebook_name("ab"):
            notebook_name.write(c)

    pool.map(task, [0], progress=False, seed=1)
    text = capfd.readouterr().out
    assert [line[-1] for line in text.splitlines()] == ["a", "b"]
    assert "%" not in text


@only("threads", "serial")
def test_bars_of_the_kernel_are_as_they_were(pool: Pool) -> None:
    one(pool, lambda _: list(notebook_name("ab")))
    file = io.StringIO()
    assert list(notebook_name("abc", file=file, mininterval=0, ascii=True)) == ["a", "b", "c"]
    assert "3/3" in file.getvalue()
    bar = notebook_name(total=2, file=file)
    assert bar.update(2) in (True, None)
    bar.close()
    assert bar.n == 2


@only(*WITH_WORKERS)
def test_several_threads_of_a_task_may_tell(pool: Pool) -> None:
    def task(_: int) -> int:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(4) as threads:
            return sum(threads.map(lambda _: sum(1 for _ in nbpar.track(range(1000))), range(8)))

    assert one(pool, task) == 8000


@pytest.mark.parametrize("start_method", ["forkserver", "threads", "serial"])
def test_tqdm_is_caught_when_a_task_is_the_first_to_load_it(start_method: str) -> None:
    n_workers = None if start_method == "serial" else 1
    text = run_script(f"""
import sys
import nbpar
from nbpar.worker.context import current_context

def task(i):
    assert i or "tqdm" not in sys.modules
    from tqdm.auto import tqdm
    return [current_context().slot.tracked for _ in tqdm("ab")]

with nbpar.WorkerPool(n_workers={n_workers}, start_method={start_method!r}) as pool:
    print(pool.map(task, range(2), seed=1))
assert not any("nbpar" in type(finder).__module__ for finder in sys.meta_path) or {start_method == "forkserver"}
import tqdm.std
assert tqdm.std.__spec__.loader.get_source("tqdm.std")
""")
    assert text == "[[(0, 2), (1, 2)], [(0, 2), (1, 2)]]\n"
