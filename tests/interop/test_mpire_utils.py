"""What MPIRE offers beside its pool: helpers, and the dashboard that is none."""

from __future__ import annotations

import itertools
import math
import os
import pickle
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbpar.errors import OptionsError
from nbpar.interop.mpire import dashboard
from nbpar.interop.mpire.chunks import chunk_lengths
from nbpar.interop.mpire.utils import (
    NonPickledSyncManager,
    TimeIt,
    apply_numpy_chunking,
    chunk_tasks,
    create_sync_manager,
    format_seconds,
    get_n_chunks,
    make_single_arguments,
    set_cpu_affinity,
)

# --- chunks -----------------------------------------------------------------------------------------------------------


def test_chunks_of_a_sequence_are_tuples_and_of_an_array_slices() -> None:
    assert list(chunk_tasks([1, 2, 3], chunk_size=2)) == [(1, 2), (3,)]
    slices = list(chunk_tasks(np.arange(3), chunk_size=2))
    assert [piece.tolist() for piece in slices if isinstance(piece, np.ndarray)] == [[0, 1], [2]]


def test_an_input_is_read_as_its_chunks_are_taken() -> None:
    numbers = itertools.count()
    chunks = chunk_tasks(numbers, chunk_size=3)
    assert (next(chunks), next(chunks), next(numbers)) == ((0, 1, 2), (3, 4, 5), 6)


def test_an_announced_length_is_where_chunks_end() -> None:
    numbers = itertools.count()
    assert list(chunk_tasks(numbers, iterable_len=5, chunk_size=2)) == [(0, 1), (2, 3), (4,)]
    assert next(numbers) == 5


def test_a_length_beyond_the_end_changes_the_size_of_chunks_alone() -> None:
    assert list(chunk_tasks([1, 2, 3], iterable_len=100, chunk_size=2)) == [(1, 2), (3,)]
    assert list(chunk_tasks(iter([1, 2, 3]), iterable_len=6, n_splits=3)) == [(1, 2), (3,)]


@pytest.mark.parametrize("given", [{}, {"n_splits": 3}])
def test_chunks_need_a_size_or_a_length(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is not allowed") as raised:
        next(chunk_tasks(iter("abc"), **given))
    assert isinstance(raised.value, OptionsError)


@given(size=st.floats(0.01, 100), n=st.integers(1, 300))
def test_a_fraction_is_carried_over_to_the_next_chunk(size: float, n: int) -> None:
    lengths = list(itertools.islice(chunk_lengths(size), n))
    assert min(lengths) >= 1
    if size >= 1:
        assert all(length in (math.floor(size), math.ceil(size)) for length in lengths)
        assert -1e-6 < sum(lengths) - n * size < 1.0


@given(n=st.integers(0, 300), n_splits=st.integers(1, 40))
def test_n_splits_gives_so_many_chunks_of_about_one_size(n: int, n_splits: int) -> None:
    lengths = [len(chunk) for chunk in chunk_tasks(range(n), n_splits=n_splits)]
    assert len(lengths) == min(n, n_splits) == get_n_chunks(range(n), n_splits=n_splits)
    assert sum(lengths) == n
    assert not lengths or max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(
    ("given", "n_chunks"),
    [
        ({"chunk_size": 3}, 4),
        ({"chunk_size": 2.5}, 4),
        ({"n_splits": 3}, 3),
        ({"n_splits": 30}, 10),
        ({"n_jobs": 2}, 8),
        ({"n_jobs": 1, "iterable_len": 2}, 2),
        ({"iterable_len": 100, "chunk_size": 5}, 2),
    ],
)
def test_chunks_are_counted_before_they_are_cut(given: dict[str, Any], n_chunks: int) -> None:
    assert get_n_chunks(range(10), **given) == n_chunks


def test_chunks_of_an_input_without_length_are_counted_by_the_announced_one() -> None:
    assert get_n_chunks(iter("abc"), iterable_len=12, chunk_size=5) == 3
    with pytest.raises(ValueError, match="iterable_len"):
        get_n_chunks(iter("abc"), chunk_size=5)


def test_an_array_is_cut_for_a_map() -> None:
    slices, n_slices, chunk_size, n_splits = apply_numpy_chunking(np.arange(10), iterable_len=8, n_jobs=1)
    assert ([piece.tolist() for (piece,) in slices], n_slices) == ([[0, 1], [2, 3], [4, 5], [6, 7]], 4)
    assert (chunk_size, n_splits) == (1, None)


def test_an_array_is_not_cut_by_nothing() -> None:
    with pytest.raises(ValueError, match="n_jobs"):
        apply_numpy_chunking(np.arange(3))


def test_single_arguments_are_tuples_of_one() -> None:
    singles = make_single_arguments(iter([(1, 2), "ab"]))
    assert not isinstance(singles, list)
    assert list(singles) == [((1, 2),), ("ab",)]
    assert make_single_arguments({"a": 1}, generator=False) == [("a",)]


# --- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "with_milliseconds", "text"),
    [
        (None, True, ""),
        (0, True, "0:00:00"),
        (0.0, False, "0:00:00"),
        (12.3456, True, "0:00:12.345"),
        (12.3456, False, "0:00:12"),
        (0.0001, True, "0:00:00.000"),
        (7322, True, "2:02:02"),
        (90061.5, True, "1 day, 1:01:01.500"),
    ],
)
def test_seconds_are_written_as_mpire_does(seconds: float | None, with_milliseconds: bool, text: str) -> None:
    assert format_seconds(seconds, with_milliseconds) == text


def test_durations_are_summed_up_and_the_longest_are_kept() -> None:
    times, longest = [0.0, 5.0], [(0.0, ""), (1e6, "long")]
    for name in "ab":
        with TimeIt(times, 1, longest, partial(str, name)):
            pass
    assert times[0] == 0.0
    assert times[1] > 5.0
    assert len(longest) == 2
    assert max(longest) == (1e6, "long")
    assert min(longest)[1] in ("a", "b")


def test_a_duration_too_short_to_be_kept_is_not_described() -> None:
    def describe() -> str:
        pytest.fail("it was described")

    longest = [(1e6, "long")]
    with TimeIt(None, 0, longest, describe):
        pass
    assert longest == [(1e6, "long")]


def test_a_block_that_raises_is_measured_as_well() -> None:
    times = [0.0]
    with pytest.raises(KeyError), TimeIt(times, 0):
        raise KeyError(1)
    assert times[0] > 0.0


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not tell where a process may run")
def test_a_process_is_pinned_to_cpus() -> None:
    cpu = min(os.sched_getaffinity(0))
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        set_cpu_affinity(process.pid, [cpu])
        assert os.sched_getaffinity(process.pid) == {cpu}
    finally:
        process.communicate(b"\n", timeout=20)


def test_a_manager_is_left_behind_by_what_is_pickled() -> None:
    manager = NonPickledSyncManager()
    assert manager.address is None  # of the manager itself
    assert pickle.loads(pickle.dumps(manager)).manager is None


def test_managers_have_keys_of_their_own() -> None:
    managers: list[Any] = [create_sync_manager(use_dill) for use_dill in (False, False, True)]
    keys = {bytes(manager._authkey) for manager in managers}
    assert len(keys) == 3


def test_a_manager_with_dill_takes_what_pickle_does_not() -> None:
    with create_sync_manager(use_dill=True) as manager:
        functions = manager.list()
        functions.append(lambda x: x + 1)
        assert functions[0](1) == 2


# --- the dashboard ----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_dashboard() -> Any:
    dashboard.shutdown_dashboard()
    yield
    dashboard.shutdown_dashboard()
    dashboard.set_stacklevel(1)


@pytest.mark.usefixtures("no_dashboard")
def test_a_dashboard_opens_no_port_and_says_where_to_look() -> None:
    with pytest.warns(UserWarning, match="card below its cell"):
        told = dashboard.start_dashboard(range(9000, 9100))
    assert told == {"dashboard_port_nr": None, "manager_host": None, "manager_port_nr": None}


@pytest.mark.usefixtures("no_dashboard")
def test_there_is_one_dashboard_until_it_is_shut_down() -> None:
    with pytest.warns(UserWarning, match="connects to no server"):
        dashboard.connect_to_dashboard(8099, "somewhere")
    with pytest.raises(RuntimeError, match="already"):
        dashboard.start_dashboard()
    with pytest.raises(RuntimeError, match="already"):
        dashboard.connect_to_dashboard(8099)
    dashboard.shutdown_dashboard()
    with pytest.warns(UserWarning, match="no server"):
        dashboard.start_dashboard()


@pytest.mark.usefixtures("no_dashboard")
def test_a_stack_level_is_kept_and_checked() -> None:
    assert dashboard.get_stacklevel() == 1
    dashboard.set_stacklevel(3)
    assert dashboard.get_stacklevel() == 3
    with pytest.raises(ValueError, match="stacklevel=0"):
        dashboard.set_stacklevel(0)


# --- under MPIRE's name -----------------------------------------------------------------------------------------------


def run(source: str) -> None:
    line = [sys.executable, "-W", "error", "-c", textwrap.dedent(source)]
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr


def test_under_mpires_name_each_module_is_there_once() -> None:
    run(
        """
        import sys
        import nbpar.interop.mpire
        sys.modules["mpire"] = nbpar.interop.mpire

        import mpire.utils
        from mpire.utils import chunk_tasks
        from mpire import tqdm_utils
        import mpire.tqdm_utils, mpire.dashboard
        from mpire.dashboard import set_stacklevel
        import nbpar.interop.mpire.utils as own, nbpar.interop.mpire.tqdm_utils as own_tqdm

        assert mpire.utils is own and sys.modules["mpire.utils"] is own
        assert own.__name__ == own.__spec__.name == "nbpar.interop.mpire.utils"
        assert tqdm_utils is own_tqdm is mpire.tqdm_utils
        assert list(mpire.utils.chunk_tasks("abc", chunk_size=2)) == [("a", "b"), ("c",)]
        """
    )


def test_under_mpires_name_what_does_not_exist_is_not_found() -> None:
    run(
        """
        import sys
        import nbpar.interop.mpire
        sys.modules["mpire"] = nbpar.interop.mpire
        try:
            import mpire.comms
        except ModuleNotFoundError as error:
            assert error.name == "mpire.comms", error.name
        else:
            raise AssertionError
        """
    )


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_modules_of_a_program_find_mpires_name_in_workers_as_well(tmp_path: Path, start_method: str) -> None:
    (tmp_path / "pages.py").write_text(
        "from mpire import WorkerPool\n"
        "from mpire.utils import chunk_tasks\n"
        "def halves(n):\n"
        "    return [len(half) for half in chunk_tasks(range(n), n_splits=2)]\n",
        encoding="utf-8",
    )
    run(
        f"""
        import sys
        import nbpar.interop.mpire
        sys.modules["mpire"] = nbpar.interop.mpire
        sys.path.insert(0, {str(tmp_path)!r})
        import pages

        with pages.WorkerPool(1, start_method={start_method!r}) as pool:
            assert pool.map(pages.halves, [3, 4]) == [[2, 1], [2, 2]]
        """
    )


def test_other_packages_are_imported_as_ever() -> None:
    run(
        """
        import sys
        import nbpar.interop.mpire
        from nbpar.interop.mpire.alias import install
        install()
        import xml.dom.minidom, email.mime.text
        assert sum(type(finder).__module__.startswith("nbpar") for finder in sys.meta_path) == 1
        """
    )
