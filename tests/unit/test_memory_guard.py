"""Which worker has to go for its memory: the decisions, and what they are made from."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbpar.backends import memory
from nbpar.backends.base import Gone
from nbpar.backends.losses import describe_end, describe_exit
from nbpar.backends.memory import MemoryWatch, group_rooms, groups_around, rooms
from nbpar.engine.instructions import Chunk, Kill, Send
from nbpar.engine.memory import (
    LOOK_S,
    QUICK_LOOK_S,
    MemoryGuard,
    MemoryStop,
    Room,
    reserve_bytes,
    stop_bytes,
)
from nbpar.engine.plans import JobPlan, Running
from nbpar.engine.scheduler import Scheduler
from nbpar.system import Group

MB, GB = 10**6, 10**9
LIMIT = 2 * GB
WIDE = Room("the machine", 16 * GB, 12 * GB)
SHORT = Room("the machine", 16 * GB, 700 * MB)


def test_worker_is_stopped_when_its_task_takes_it_far_beyond_the_limit() -> None:
    guard = MemoryGuard(LIMIT)
    used = {0: stop_bytes(LIMIT), 1: stop_bytes(LIMIT) + 1}
    assert guard.look(used, {0, 1}, [WIDE]) == [MemoryStop(1, used[1])]


def test_worker_without_a_task_is_left_alone_whatever_it_holds() -> None:
    assert MemoryGuard(LIMIT).look({0: 10 * GB}, set(), [WIDE]) == []


def test_worker_is_stopped_once_until_it_is_gone() -> None:
    guard = MemoryGuard(LIMIT)
    assert guard.look({0: 5 * GB}, {0}, [WIDE])
    assert not guard.look({0: 6 * GB}, {0}, [WIDE])
    guard.gone(0)
    assert guard.look({0: 5 * GB}, {0}, [WIDE]) == [MemoryStop(0, 5 * GB)]


def test_small_limit_has_a_margin_that_a_library_does_not_use_up() -> None:
    assert stop_bytes(64 * MB) == 128 * MB
    assert stop_bytes(10 * GB) == 12 * GB


@pytest.mark.parametrize("limit", [None, LIMIT])
def test_largest_worker_is_stopped_when_nearly_nothing_is_left(limit: int | None) -> None:
    guard = MemoryGuard(limit)
    assert guard.wants_readings([SHORT])
    assert guard.look({0: 1 * GB, 1: 2 * GB}, {0, 1}, [WIDE, SHORT]) == [MemoryStop(1, 2 * GB, SHORT)]


def test_next_is_stopped_only_when_the_last_one_is_gone() -> None:
    guard = MemoryGuard(None)
    used = {0: 1 * GB, 1: 2 * GB}
    guard.look(used, {0, 1}, [SHORT])
    assert guard.look(used, {0, 1}, [SHORT]) == []
    guard.gone(1)
    assert guard.look({0: 1 * GB}, {0}, [SHORT]) == [MemoryStop(0, 1 * GB, SHORT)]


def test_worker_that_has_nothing_to_do_goes_first() -> None:
    guard = MemoryGuard(None)
    assert guard.look({0: 3 * GB, 1: 1 * GB}, {0}, [SHORT]) == [MemoryStop(1, 1 * GB, SHORT)]


def test_nobody_is_stopped_when_no_worker_is_what_fills_the_machine() -> None:
    small = reserve_bytes(SHORT.total_bytes) // 4 - 1
    assert MemoryGuard(None).look({0: small, 1: small}, {0, 1}, [SHORT]) == []
    assert MemoryGuard(None).look({}, {0}, [SHORT]) == []


def test_task_may_swap_unless_there_is_a_limit() -> None:
    swapping = SHORT._replace(swap_bytes=8 * GB)
    used = {0: 1 * GB}
    assert MemoryGuard(None).look(used, {0}, [swapping]) == []
    assert not MemoryGuard(None).wants_readings([swapping])
    assert MemoryGuard(LIMIT).look(used, {0}, [swapping]) == [MemoryStop(0, 1 * GB, swapping)]


def test_container_counts_when_the_machine_has_enough() -> None:
    container = Room("the container", 2 * GB, 100 * MB)
    assert MemoryGuard(None).look({0: 1 * GB}, {0}, [WIDE, container]) == [MemoryStop(0, 1 * GB, container)]


def test_looks_come_faster_when_a_bound_is_near() -> None:
    guard = MemoryGuard(LIMIT)
    assert guard.pace_s == LOOK_S
    guard.look({0: 100 * MB}, {0}, [WIDE])
    assert guard.pace_s == LOOK_S
    guard.look({0: 1100 * MB}, {0}, [WIDE])
    assert guard.pace_s == QUICK_LOOK_S
    guard.look({0: 100 * MB}, {0}, [WIDE._replace(available_bytes=2 * GB)])
    assert guard.pace_s == QUICK_LOOK_S
    guard.look({0: 100 * MB}, {0}, [WIDE])
    assert guard.pace_s == LOOK_S


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a loaded machine
@given(st.integers(10**8, 10**14))
def test_reserve_is_a_small_part_of_any_memory(total: int) -> None:
    assert total // 200_000 <= reserve_bytes(total) <= max(total // 10, 0)
    assert reserve_bytes(total) <= 2 * GB


READINGS = st.dictionaries(st.integers(0, 7), st.integers(0, 20 * GB), max_size=8)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a loaded machine
@given(READINGS, st.sets(st.integers(0, 7)), st.sampled_from([None, LIMIT]), st.integers(0, 16 * GB))
def test_verdicts_are_few_and_about_workers_that_were_read(
    used: dict[int, int], busy: set[int], limit: int | None, left: int
) -> None:
    guard = MemoryGuard(limit)
    room = WIDE._replace(available_bytes=left)
    stops = guard.look(used, busy, [room])
    assert len({stop.worker_id for stop in stops}) == len(stops)
    for stop in stops:
        assert stop.used_bytes == used[stop.worker_id]
        if stop.room is None:
            assert limit is not None and stop.worker_id in busy and stop.used_bytes > stop_bytes(limit)
        else:
            assert left < reserve_bytes(room.total_bytes)
    assert sum(stop.room is not None for stop in stops) <= 1
    if limit is None and left >= reserve_bytes(room.total_bytes):
        assert not stops


# --- what the system tells --------------------------------------------------------------------------------------------


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


MACHINE = Room("the machine", 16 * GB, 12 * GB, 4 * GB)


def told(folder: Path, top: Path, version: int) -> list[Room]:
    return list(group_rooms(groups_around(Group(folder, top, version)), MACHINE))


def test_cached_files_count_as_available_in_a_container_of_version_2(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    write(folder / "memory.max", f"{2 * GB}\n")
    write(folder / "memory.current", f"{1900 * MB}\n")
    write(folder / "memory.stat", f"anon {1000 * MB}\ninactive_file {500 * MB}\nactive_file {300 * MB}\nshmem 7\n")
    write(folder / "memory.swap.max", "0\n")
    write(folder / "memory.swap.current", "0\n")
    write(tmp_path / "memory.max", "max\n")
    write(tmp_path / "memory.current", f"{3 * GB}\n")
    assert told(folder, tmp_path, 2) == [Room("the container", 2 * GB, 900 * MB, 0)]


def test_swap_of_the_machine_is_a_containers_when_it_has_no_limit_for_that(tmp_path: Path) -> None:
    write(tmp_path / "memory.max", f"{2 * GB}\n")
    write(tmp_path / "memory.current", f"{1900 * MB}\n")
    write(tmp_path / "memory.swap.max", "max\n")
    assert told(tmp_path, tmp_path, 2) == [Room("the container", 2 * GB, 100 * MB, 4 * GB)]


def test_container_of_version_1_is_read_with_those_around_it(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    write(inner / "memory.limit_in_bytes", f"{2 * GB}\n")
    write(inner / "memory.usage_in_bytes", f"{1 * GB}\n")
    write(inner / "memory.stat", f"inactive_file 5\ntotal_inactive_file {50 * MB}\ntotal_active_file {50 * MB}\n")
    write(inner / "memory.memsw.limit_in_bytes", f"{3 * GB}\n")
    write(inner / "memory.memsw.usage_in_bytes", f"{1500 * MB}\n")
    write(inner.parent / "memory.limit_in_bytes", f"{4 * GB}\n")
    write(inner.parent / "memory.usage_in_bytes", f"{4 * GB + 5}\n")
    write(tmp_path / "memory.limit_in_bytes", "9223372036854771712\n")
    write(tmp_path / "memory.usage_in_bytes", "1\n")
    assert told(inner, tmp_path, 1) == [
        Room("the container", 2 * GB, 1100 * MB, 500 * MB),
        Room("the container", 4 * GB, 0, 4 * GB),
    ]


def test_limit_above_the_machine_is_none(tmp_path: Path) -> None:
    write(tmp_path / "memory.max", f"{17 * GB}\n")
    write(tmp_path / "memory.current", "0\n")
    assert told(tmp_path, tmp_path, 2) == []
    assert list(group_rooms(groups_around(None), MACHINE)) == []


def test_machine_is_told_with_something_left() -> None:
    machine, *containers = rooms()
    assert machine.name == "the machine"
    assert 0 < machine.available_bytes < machine.total_bytes
    for one in containers:
        assert one.available_bytes <= one.total_bytes < machine.total_bytes


# --- the watch --------------------------------------------------------------------------------------------------------


class FakeCounter:
    """Stands for the system's count of kills."""

    count: int | None = 3
    file = Path("counter")

    def __init__(self, group: object) -> None:
        pass

    def read(self) -> int | None:
        return FakeCounter.count


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> MemoryWatch:
    monkeypatch.setattr(memory, "KillCounter", FakeCounter)
    monkeypatch.setattr(FakeCounter, "count", 3)
    return MemoryWatch(None)


def test_death_is_out_of_memory_only_when_the_count_went_up(watch: MemoryWatch) -> None:
    watch.began(0, os.getpid(), 0)
    watch.began(1, os.getpid(), 0)
    assert watch.ended(0, killed=True) == (None, False)
    FakeCounter.count = 4
    assert watch.ended(1, killed=True) == (None, True)


def test_one_count_explains_one_death(watch: MemoryWatch) -> None:
    for worker_id in range(3):
        watch.began(worker_id, os.getpid(), 0)
    FakeCounter.count = 5
    assert [watch.ended(worker_id, killed=True)[1] for worker_id in range(3)] == [True, True, False]
    watch.began(0, os.getpid(), 0)
    assert watch.ended(0, killed=True) == (None, False)


def test_worker_that_began_between_a_kill_and_its_news_has_kills_of_its_own(watch: MemoryWatch) -> None:
    watch.began(0, os.getpid(), 0)
    FakeCounter.count = 4
    watch.began(1, os.getpid(), 0)
    assert watch.ended(0, killed=True) == (None, True)
    watch.began(0, os.getpid(), 0)
    FakeCounter.count = 5
    assert watch.ended(1, killed=True) == (None, True)
    assert watch.ended(0, killed=True) == (None, False)


def test_nothing_is_said_of_memory_when_the_system_does_not_tell(watch: MemoryWatch) -> None:
    FakeCounter.count = None
    watch.began(0, os.getpid(), 0)
    assert watch.ended(0, killed=True) == (None, None)
    assert watch.ended(1, killed=True) == (None, None)  # it was never ready


def test_end_of_another_kind_uses_up_no_count(watch: MemoryWatch) -> None:
    watch.began(0, os.getpid(), 0)
    watch.began(1, os.getpid(), 0)
    FakeCounter.count = 4
    assert watch.ended(0, killed=False) == (None, None)
    assert watch.ended(1, killed=True) == (None, True)


def test_looks_are_due_only_while_tasks_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "rooms", lambda: [WIDE])
    watch = MemoryWatch(None)
    assert watch.rest_in_s(10.0, is_busy=False) is None
    assert not watch.is_due(100.0)
    assert watch.rest_in_s(10.0, is_busy=True) == pytest.approx(LOOK_S)
    assert watch.rest_in_s(10.1, is_busy=True) == pytest.approx(LOOK_S - 0.1)
    assert not watch.is_due(10.1)
    assert watch.is_due(10.3)
    assert watch.look(10.3, {0}) == []
    assert watch.rest_in_s(10.3, is_busy=True) == pytest.approx(LOOK_S)
    assert watch.rest_in_s(10.4, is_busy=False) is None


@pytest.mark.skipif(sys.platform == "win32", reason="the process's own memory counts differently there")
def test_inherited_memory_is_not_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "rooms", lambda: [WIDE])
    monkeypatch.setattr(memory, "private_bytes", lambda pid: 5 * GB)
    watch = MemoryWatch(LIMIT)
    watch.began(0, os.getpid(), 4 * GB)
    watch.began(1, os.getpid(), 0)
    assert watch.look(0.0, {0, 1}) == [MemoryStop(1, 5 * GB)]
    watch.spare(1)
    assert watch.look(0.0, {0, 1}) == [MemoryStop(1, 5 * GB)]
    assert watch.ended(1, killed=True) == (MemoryStop(1, 5 * GB), None)
    assert watch.ended(0, killed=False) == (None, None)


# --- in words ---------------------------------------------------------------------------------------------------------

KILLED = Gone(0, 7, -9, None)


def words(
    event: Gone = KILLED, stop: MemoryStop | None = None, *, by_nbpar: bool = False, out_of_memory: bool | None = None
) -> str:
    return describe_end(event, stop, LIMIT, by_nbpar=by_nbpar, out_of_memory=out_of_memory)


def test_end_says_who_did_it_and_why() -> None:
    assert words(stop=MemoryStop(0, 2_451_000_000)) == "was stopped by nbpar at 2.5 GB: memory_limit is 2 GB"
    assert words(stop=MemoryStop(0, 3 * GB, SHORT)) == (
        "was stopped by nbpar at 3 GB: the machine had 700 MB of 16 GB left, and this was the largest worker"
    )
    assert words(KILLED._replace(is_cut_off=True)) == "closed its connection to nbpar and was stopped"
    assert words(by_nbpar=True) == "was stopped by nbpar"
    assert words(out_of_memory=True) == "was killed by the system: out of memory (SIGKILL)"
    assert words(out_of_memory=False) == "was killed from outside (SIGKILL)"
    assert words() == "was killed by SIGKILL (out of memory, or killed by hand)"
    assert words(Gone(0, 7, 3, None), by_nbpar=True) == "ended with exit code 3"
    assert describe_exit(-11, out_of_memory=True) == "crashed with a segmentation fault (SIGSEGV)"


# --- in the scheduler -------------------------------------------------------------------------------------------------


def begun(retries: int = 0, chunk_size: int = 3) -> Scheduler:
    """A scheduler whose one worker holds the first chunk of a job."""
    scheduler = Scheduler(n_workers=1)
    scheduler.warm()
    scheduler.decide(0.0, {})
    scheduler.worker_ready(0)
    scheduler.add_job(JobPlan(1, 6, chunk_size=chunk_size, retries=retries))
    assert scheduler.decide(0.0, {}) == [Send(0, Chunk(1, 1, 0, chunk_size))]
    assert scheduler.is_busy
    return scheduler


def test_task_that_the_worker_is_killed_for_is_lost_for_its_memory() -> None:
    scheduler = begun()
    running = Running(1, 1, 0.0)
    scheduler.kill_for_memory(0, running)
    scheduler.kill_for_memory(0, running)
    assert scheduler.decide(0.0, {}).count(Kill(0)) == 1
    lost = scheduler.worker_lost(0, running, 0.0)
    assert lost is not None and (lost.index, lost.loss) == (1, "memory")
    assert not scheduler.is_busy


def test_task_is_done_again_when_the_one_that_was_too_large_ended_just_in_time() -> None:
    scheduler = begun()
    scheduler.kill_for_memory(0, Running(1, 1, 0.0))
    assert scheduler.worker_lost(0, Running(1, 2, 0.0), 0.0) is None


def test_task_between_two_steps_is_blamed_when_it_is_alone() -> None:
    """While its result is pickled the board names none; to put it back would kill workers for ever."""
    scheduler = begun(chunk_size=1)
    scheduler.kill_for_memory(0, Running(1, None, 0.0))
    lost = scheduler.worker_lost(0, Running(1, None, 0.0), 0.0)
    assert lost is not None and (lost.index, lost.loss) == (0, "memory")


def test_short_tasks_of_a_block_run_one_by_one_when_one_of_them_was_too_large() -> None:
    scheduler = begun()
    block = Running(1, 0, 0.0, n_block=3)
    scheduler.kill_for_memory(0, block)
    assert scheduler.worker_lost(0, block, 0.0) is None
    scheduler.decide(1.0, {})
    scheduler.worker_ready(0)
    (send,) = (one for one in scheduler.decide(1.0, {}) if isinstance(one, Send))
    assert (send.chunk.start, send.chunk.stop) == (0, 1)


def test_task_that_was_too_large_is_tried_again_when_it_may_be() -> None:
    scheduler = begun(retries=1)
    scheduler.kill_for_memory(0, Running(1, 1, 0.0))
    assert scheduler.worker_lost(0, Running(1, 1, 0.0), 0.0) is None
