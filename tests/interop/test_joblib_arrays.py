"""Arrays as arguments of joblib's calls: never stale, never another task's, and in memory once where they are large."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from joblib import Parallel, delayed

import nbpar
import nbpar.interop.joblib
from nbpar.interop.joblib import arguments
from nbpar.interop.joblib.arguments import Arguments, FileArray, Lent, opened

N = 40_000


@pytest.fixture(autouse=True, scope="module")
def backend() -> Iterator[None]:
    nbpar.configure(n_workers=2)
    nbpar.interop.joblib.register()
    yield
    nbpar.interop.joblib.shutdown()
    nbpar.shutdown(cancel=True)


@pytest.fixture(params=["copied", "shared"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How arrays travel: memory is said to be so small that they are shared, or large."""
    if request.param == "shared":
        monkeypatch.setattr(arguments, "usable_memory_bytes", lambda: 1 << 20)
    return str(request.param)


def run(calls: Any, **options: Any) -> Any:
    return Parallel(n_jobs=2, backend="nbpar", max_nbytes=1000, batch_size=1, **options)(calls)


def first(array: Any, _: int) -> float:
    return float(array[0])


def test_an_array_that_was_changed_between_two_calls_is_not_stale(way: str) -> None:
    array = np.zeros(N)
    with Parallel(n_jobs=2, backend="nbpar", max_nbytes=1000) as parallel:
        for value in range(4):
            array[0] = value
            assert parallel(delayed(first)(array, k) for k in range(4)) == [value] * 4


def test_an_array_that_is_changed_between_two_batches_is_not_stale(way: str) -> None:
    array = np.zeros(N)

    def calls() -> Iterator[Any]:
        for value in range(20):
            array[0] = value
            yield delayed(first)(array, value)

    # Tasks may see what was written after they were handed out, never what was there before.
    assert all(seen >= value for value, seen in enumerate(run(calls())))


def test_what_a_task_writes_to_its_array_is_its_own(way: str) -> None:
    def add(array: Any, _: int) -> float:
        array += 1
        return float(array[0])

    array = np.zeros(N)
    assert run(delayed(add)(array, k) for k in range(8)) == [1.0] * 8
    assert array[0] == 0


def test_tables_arrive_as_they_are(way: str) -> None:
    frame = pd.DataFrame({"a": np.arange(N), "b": np.arange(N) / 2})
    for result in run(delayed(lambda frame: frame)(frame) for _ in range(3)):
        pd.testing.assert_frame_equal(result, frame)


def test_a_large_array_that_goes_out_again_is_shared_until_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "usable_memory_bytes", lambda: 1 << 20)
    packer, array = Arguments(1000, n_workers=2), np.zeros(N)

    def packed() -> Any:
        (found,), named = packer.pack((array,), {"small": np.zeros(10), "n": 3})
        assert type(named["small"]) is np.ndarray and named["n"] == 3
        return found

    assert packed() is array
    lent = packed()
    assert type(lent) is Lent and packed() is lent
    array[-1] = 5
    again = packed()
    assert again is not lent
    assert (opened(lent)[-1], opened(again)[-1]) == (0, 5)
    opened(again)[-1] = 6
    assert opened(again)[-1] == 5


def test_an_array_in_the_place_of_another_one_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "usable_memory_bytes", lambda: 1 << 20)
    packer = Arguments(1000, n_workers=2)
    for _ in range(20):
        array = np.zeros(N)
        assert packer.pack((array,), {})[0][0] is array
    assert len(packer._met) == 1


@pytest.mark.parametrize("option", [{"max_nbytes": None}, {"mmap_mode": None}])
def test_nothing_is_shared_where_joblib_is_told_so(option: dict[str, Any]) -> None:
    with Parallel(n_jobs=2, backend="nbpar", **option) as parallel:
        assert parallel._backend._workers._least_bytes is None


def test_small_arrays_are_copied_whatever_the_limit() -> None:
    packer, array = Arguments(1000, n_workers=2), np.zeros(N)
    assert packer.pack((array,), {}) == ((array,), {})
    assert packer.pack((array,), {})[0][0] is array


def test_a_handle_of_share_arrives_unwrapped() -> None:
    shared = nbpar.share(np.arange(N))
    assert run([delayed(first)(shared, 0), delayed(first)(array=shared, _=1)]) == [0.0, 0.0]


# --- mapped files -----------------------------------------------------------------------------------------------------


def fill(output: Any, k: int) -> None:
    output[k] = k * 10


def test_tasks_write_into_a_mapped_file(tmp_path: Path) -> None:
    output = np.memmap(tmp_path / "output", dtype="f8", mode="w+", shape=(6, 2))
    run(delayed(fill)(output, k) for k in range(6))
    assert output[:, 1].tolist() == [0, 10, 20, 30, 40, 50]


def test_views_of_a_mapped_file_are_the_same_part_of_it(tmp_path: Path) -> None:
    output = np.memmap(tmp_path / "output", dtype="i4", mode="w+", offset=8, shape=(4, 6))
    output[:] = np.arange(24).reshape(4, 6)
    views = [output[1:], output[:, 2:4], output[::-1, ::2], output.T, np.asarray(output)[2], output[1:3][1]]
    for view, found in zip(views, run(delayed(np.array)(view) for view in views), strict=True):
        assert np.array_equal(view, found)
    run([delayed(fill)(output[::-1], 0)])
    assert output[3].tolist() == [0] * 6


def test_an_array_in_a_file_that_may_not_be_written_is_read_only(tmp_path: Path) -> None:
    np.memmap(tmp_path / "data", dtype="f8", mode="w+", shape=(5,))[:] = 7
    data = np.memmap(tmp_path / "data", dtype="f8", mode="r", shape=(5,))
    assert run([delayed(lambda array: (array[0], array.flags.writeable, type(array)))(data)]) == [(7, False, np.memmap)]


def test_a_mapping_that_is_copied_on_write_travels_as_its_data(tmp_path: Path) -> None:
    np.memmap(tmp_path / "data", dtype="f8", mode="w+", shape=(N,))[:] = 7
    data = np.memmap(tmp_path / "data", dtype="f8", mode="c", shape=(N,))
    data[0] = 8
    assert run([delayed(first)(data, 0)]) == [8.0]
    assert not isinstance(Arguments(None).pack((data,), {})[0][0], FileArray)
