"""Parameters of MPIRE's pool and maps: what is checked, what is the default, which one counts."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbpar.errors import OptionsError
from nbpar.interop.mpire.params import MapParameters, WorkerPoolParams, check_map_parameters, cpu_count

WHOLE = ["iterable_len", "n_splits", "max_tasks_active", "worker_lifespan"]
TIMEOUTS = ["task_timeout", "worker_init_timeout", "worker_exit_timeout"]


def check(items: Any = range(100), n_jobs: Any = 3, progress_bar: Any = False, **given: Any) -> MapParameters:
    named = dict.fromkeys(["iterable_len", "max_tasks_active", "chunk_size", "n_splits", "worker_lifespan"])
    return check_map_parameters(WorkerPoolParams(n_jobs), items, progress_bar=progress_bar, **(named | given))


def unsized(n: int) -> Iterator[int]:
    yield from range(n)


# --- the pool ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_jobs", [None, 0])
def test_without_a_number_there_is_a_worker_for_each_cpu_that_may_be_used(n_jobs: int | None) -> None:
    assert WorkerPoolParams(n_jobs).n_jobs == cpu_count()


def test_a_number_of_workers_may_be_numpys() -> None:
    n_jobs = WorkerPoolParams(np.int64(3)).n_jobs
    assert (n_jobs, type(n_jobs)) == (3, int)


@pytest.mark.parametrize(("n_jobs", "kind"), [(-1, ValueError), (2.0, TypeError), ("2", TypeError), (True, TypeError)])
def test_a_number_of_workers_is_checked(n_jobs: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="n_jobs") as raised:
        WorkerPoolParams(n_jobs)
    assert isinstance(raised.value, OptionsError)


@pytest.mark.parametrize(
    ("n_jobs", "cpu_ids", "masks"),
    [
        (2, None, []),
        (2, [], []),
        (1, [0], [[0]]),
        (3, [0], [[0], [0], [0]]),
        (2, [0, [0]], [[0], [0]]),
        (2, [[0, 0]], [[0, 0], [0, 0]]),
    ],
)
def test_one_entry_of_cpu_ids_is_for_all_workers(n_jobs: int, cpu_ids: Any, masks: list[list[int]]) -> None:
    assert WorkerPoolParams(n_jobs, cpu_ids).cpu_ids == masks


def test_each_worker_has_a_mask_of_its_own() -> None:
    first, second = WorkerPoolParams(2, [0]).cpu_ids
    assert first is not second


@pytest.mark.parametrize(
    ("n_jobs", "cpu_ids", "kind"),
    [
        (3, [0, 0], ValueError),
        (1, [-1], ValueError),
        (1, [os.cpu_count()], ValueError),
        (1, [[0, os.cpu_count()]], ValueError),
        (1, [1.5], TypeError),
        (1, [[]], TypeError),
        (1, "0", TypeError),
        (1, {0}, TypeError),
    ],
)
def test_cpu_ids_are_checked(n_jobs: int, cpu_ids: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="cpu_ids"):
        WorkerPoolParams(n_jobs, cpu_ids)


def test_a_start_method_that_does_not_exist_is_named() -> None:
    with pytest.raises(OptionsError, match="start_method='threads' is not allowed; allowed: 'fork', "):
        WorkerPoolParams(1, start_method="threads")


def test_shared_objects_are_not_part_of_what_is_shown_of_the_parameters() -> None:
    assert "secret" not in repr(WorkerPoolParams(1, shared_objects="secret"))


# --- numbers of a map -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [1.0, "3", [1], True])
def test_what_has_to_be_a_whole_number_is_one(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"{name}=.* a whole number"):
        check(**{name: value})


@pytest.mark.parametrize("name", [*WHOLE[1:], "chunk_size"])
@pytest.mark.parametrize("value", [0, -5])
def test_numbers_are_at_least_one(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name}={value} .* 1 or more"):
        check(**{name: value})


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf")])
def test_a_chunk_has_at_least_one_task_and_ends(value: float) -> None:
    with pytest.raises(ValueError, match="chunk_size"):
        check(chunk_size=value)


def test_a_length_may_be_nothing_but_not_less() -> None:
    assert list(check(iterable_len=0).items) == []
    with pytest.raises(ValueError, match="iterable_len=-1"):
        check(iterable_len=-1)


@pytest.mark.parametrize("name", TIMEOUTS)
def test_a_timeout_is_a_number_above_zero(name: str) -> None:
    for seconds in (None, 0.5, 1, 100.5, int(1e8), np.float64(0.25)):
        assert getattr(check(**{name: seconds}), name) == seconds
    for wrong, kind in (("3", TypeError), ({8}, TypeError), (0, ValueError), (-1.5, ValueError)):
        with pytest.raises(kind, match=name):
            check(**{name: wrong})


def test_numpys_numbers_are_numbers() -> None:
    told = check(chunk_size=np.int64(5), max_tasks_active=np.int32(30), worker_lifespan=np.uint8(7))
    assert (told.chunk_size, told.max_tasks_active, told.worker_lifespan) == (5, 30, 7)


# --- which one counts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (100 / (3 * 64), False)),
        ({"chunk_size": 7}, (7, True)),
        ({"chunk_size": 2.5}, (2.5, True)),
        ({"chunk_size": 7, "n_splits": 4}, (7, True)),
        ({"n_splits": 8}, (12.5, True)),
        ({"n_splits": 1000}, (0.1, True)),
        ({"n_splits": 5, "iterable_len": 50}, (10.0, True)),
    ],
)
def test_chunk_size_counts_before_n_splits_and_that_before_the_default(
    given: dict[str, Any], expected: tuple[float, bool]
) -> None:
    told = check(**given)
    assert (told.chunk_size, told.is_chunk_size_given) == expected


@pytest.mark.parametrize("n_splits", [None, 11])
def test_without_a_length_a_chunk_has_four_tasks_and_a_warning_says_so(n_splits: int | None) -> None:
    with pytest.warns(RuntimeWarning, match=r"length .* is not known") as warned:
        told = check(unsized(10), n_splits=n_splits)
    assert (told.n_tasks, told.chunk_size, told.is_chunk_size_given) == (None, 4, False)
    assert [one.filename for one in warned] != []


@pytest.mark.parametrize("given", [{"chunk_size": 2}, {"iterable_len": 10}, {"iterable_len": 10, "n_splits": 3}])
def test_a_length_or_a_chunk_size_is_enough_for_no_warning(given: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(check(unsized(10), **given).items)) == 10


@pytest.mark.parametrize(("n_jobs", "chunk_size", "expected"), [(1, 10, 20), (2, 1.8, 8), (4, 3.14, 32)])
def test_two_chunks_for_each_worker_may_be_under_way(n_jobs: int, chunk_size: float, expected: int) -> None:
    told = check(n_jobs=n_jobs, chunk_size=chunk_size)
    assert (told.max_tasks_active, told.is_max_tasks_active_given) == (expected, False)


def test_of_no_tasks_at_all_some_may_still_be_under_way() -> None:
    assert check([], n_jobs=2).max_tasks_active == 4


def test_max_tasks_active_is_taken_as_it_is() -> None:
    told = check(max_tasks_active=12)
    assert (told.max_tasks_active, told.is_max_tasks_active_given) == (12, True)


# --- the input --------------------------------------------------------------------------------------------------------


def test_no_more_than_iterable_len_is_read_of_an_input() -> None:
    endless = itertools.count()
    told = check(endless, iterable_len=5)
    assert (told.n_tasks, list(told.items), next(endless)) == (5, [0, 1, 2, 3, 4], 5)


def test_a_sequence_is_cut_off_as_well() -> None:
    assert list(check([1, 2, 3], iterable_len=2).items) == [1, 2]


def test_a_length_beyond_the_end_is_only_announced() -> None:
    told = check([1, 2, 3], iterable_len=100)
    assert (told.n_tasks, told.items) == (100, [1, 2, 3])


def test_the_callers_own_list_is_passed_on_and_not_copied() -> None:
    items = [1, 2, 3]
    assert check(items).items is items


def test_nothing_is_read_before_the_map_begins() -> None:
    items = iter(range(3))
    check(items, chunk_size=1)
    assert next(items) == 0


def test_an_array_becomes_four_slices_for_each_worker() -> None:
    told = check(np.arange(100), n_jobs=3)
    slices = [piece for (piece,) in told.items]
    assert (told.n_tasks, told.chunk_size, told.is_numpy, told.is_chunk_size_given) == (12, 1, True, True)
    assert len(slices) == 12
    assert np.array_equal(np.concatenate(slices), np.arange(100))


@pytest.mark.parametrize(
    ("given", "lengths"),
    [
        ({"n_splits": 3}, [4, 3, 3]),
        ({"chunk_size": 4}, [4, 4, 2]),
        ({"chunk_size": 2.5}, [3, 2, 3, 2]),
        ({"chunk_size": 4, "iterable_len": 7}, [4, 3]),
        ({"n_splits": 100}, [1] * 10),
    ],
)
def test_an_array_is_cut_as_it_was_asked_for(given: dict[str, Any], lengths: list[int]) -> None:
    told = check(np.arange(10).reshape(10, 1), **given)
    assert [len(piece) for (piece,) in told.items] == lengths
    assert told.n_tasks == len(lengths)


def test_slices_of_an_array_are_views_of_it() -> None:
    array = np.arange(10)
    assert all(np.shares_memory(piece, array) for (piece,) in check(array).items)


@given(
    n_tasks=st.integers(0, 200),
    chunk_size=st.none() | st.integers(1, 50) | st.floats(1, 50),
    n_splits=st.none() | st.integers(1, 50),
    iterable_len=st.none() | st.integers(0, 250),
    is_array=st.booleans(),
)
def test_every_task_is_there_once_and_in_order(
    n_tasks: int, chunk_size: float | None, n_splits: int | None, iterable_len: int | None, is_array: bool
) -> None:
    items = np.arange(n_tasks) if is_array else list(range(n_tasks))
    told = check(items, chunk_size=chunk_size, n_splits=n_splits, iterable_len=iterable_len)
    found = list(told.items)
    if is_array:
        found = [int(value) for (piece,) in found for value in piece]
    assert found == list(range(n_tasks))[:iterable_len]


def test_the_result_can_be_unpacked_as_mpires_five() -> None:
    n_tasks, max_tasks_active, chunk_size, progress_bar, options = check(chunk_size=2, progress_bar=True)
    assert (n_tasks, max_tasks_active, chunk_size, progress_bar, options["total"]) == (100, 12, 2, True, 100)
