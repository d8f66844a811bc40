from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from nbpar.engine.chunking import AHEAD_S, GROWTH, MAX_BYTES, MAX_TASKS, SINGLE_S, TARGET_S, ChunkSizer


def learnt(mean_s: float, *, n_bytes: int = 1, n_workers: int = 2, n_chunks: int = 30) -> ChunkSizer:
    sizer = ChunkSizer(n_workers=n_workers)
    for _ in range(n_chunks):
        n_tasks = sizer.next_size(10**9)
        sizer.observe(n_tasks=n_tasks, work_s=mean_s * n_tasks, n_bytes=n_bytes * n_tasks)
    return sizer


def test_first_chunk_is_one_task_when_nothing_is_known() -> None:
    assert ChunkSizer(n_workers=2).next_size(10**6) == 1


def test_size_is_the_users_when_fixed() -> None:
    sizer = ChunkSizer(n_workers=2, fixed=7)
    sizer.observe(n_tasks=7, work_s=100.0, n_bytes=1)
    assert (sizer.next_size(100), sizer.next_size(3)) == (7, 3)


def test_chunk_holds_the_target_when_tasks_are_short() -> None:
    assert 0.5 * TARGET_S <= learnt(1e-5).next_size(10**9) * 1e-5 <= 1.5 * TARGET_S


def test_tasks_travel_alone_when_they_are_long() -> None:
    sizer = learnt(2 * SINGLE_S)
    assert (sizer.next_size(10**6), sizer.depth(10**6)) == (1, 2)


def test_workers_hold_two_chunks_when_tasks_are_short() -> None:
    assert learnt(SINGLE_S / 100).depth(1) == 2  # the last ones, too


def test_next_task_is_sent_ahead_when_tasks_are_neither_short_nor_the_last() -> None:
    sizer = learnt(0.9 * AHEAD_S, n_workers=2)
    assert sizer.depth(3) == 2
    assert sizer.depth(2) == 1


def test_nothing_is_sent_ahead_when_tasks_are_long() -> None:
    assert learnt(1.1 * AHEAD_S).depth(10**6) == 1
    fixed = ChunkSizer(n_workers=2, fixed=100)
    fixed.observe(n_tasks=100, work_s=0.5, n_bytes=1)
    assert fixed.depth(10**6) == 1


def test_bytes_bound_the_chunk_when_tasks_are_large() -> None:
    n_bytes = MAX_BYTES // 4
    assert 1 <= learnt(1e-6, n_bytes=n_bytes).next_size(10**9) <= 5


def test_chunks_shrink_when_the_end_is_near() -> None:
    sizer = learnt(1e-4, n_workers=4)
    assert sizer.next_size(80) == 10


def test_size_falls_at_once_when_tasks_turn_long() -> None:
    sizer = learnt(1e-6)
    sizer.observe(n_tasks=100, work_s=1.0, n_bytes=100)
    assert sizer.next_size(10**6) == 1


def test_first_guess_is_taken_when_the_function_is_known() -> None:
    assert ChunkSizer(n_workers=1, mean_s=1e-5).next_size(10**9) > 1


def test_chunk_that_ended_nothing_teaches_nothing() -> None:
    sizer = ChunkSizer(n_workers=2)
    sizer.observe(n_tasks=0, work_s=5.0, n_bytes=100)
    assert sizer.mean_s is None


@settings(deadline=None)
@given(
    n_workers=st.integers(1, 64),
    n_left=st.integers(1, 10**9),
    chunks=st.lists(st.tuples(st.integers(1, 1000), st.floats(-1.0, 100.0), st.integers(0, 10**12)), max_size=10),
)
def test_size_stays_in_its_bounds_when_durations_are_any(
    n_workers: int, n_left: int, chunks: list[tuple[int, float, int]]
) -> None:
    sizer = ChunkSizer(n_workers=n_workers)
    before = sizer.size
    for n_tasks, work_s, n_bytes in chunks:
        sizer.observe(n_tasks=n_tasks, work_s=work_s, n_bytes=n_bytes)
        assert 1 <= sizer.size <= min(MAX_TASKS, before * GROWTH)
        before = sizer.size
        assert 1 <= sizer.next_size(n_left) <= n_left
