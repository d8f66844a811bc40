from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nbpar.system import Group, KillCounter, group_of, is_exiting, numbers_in, private_bytes

linux = pytest.mark.skipif(sys.platform != "linux", reason="what Linux tells in files")


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_private_memory_grows_when_a_process_takes_some() -> None:
    before = private_bytes(os.getpid())
    taken = b"x" * 100_000_000
    after = private_bytes(os.getpid())
    assert before is not None and after is not None
    assert 90_000_000 < after - before < 130_000_000
    del taken


@linux
def test_private_memory_is_without_pages_that_are_shared() -> None:
    import mmap

    before = private_bytes(os.getpid())
    shared = mmap.mmap(-1, 100_000_000)  # as arenas are
    shared.write(b"x" * 100_000_000)
    after = private_bytes(os.getpid())
    assert before is not None and after is not None
    assert after - before < 30_000_000
    shared.close()


def test_private_memory_is_none_when_the_process_is_gone() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert private_bytes(ended.pid) is None


@linux
def test_process_is_exiting_when_it_has_ended_and_not_while_it_runs() -> None:
    assert not is_exiting(os.getpid())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # not reaped yet
    assert is_exiting(ended.pid)
    ended.wait()
    assert is_exiting(ended.pid)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    return tmp_path / "proc"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


def test_group_is_found_in_version_2(root: Path, proc: Path) -> None:
    write(proc / "7" / "cgroup", "0::/user.slice/app\n")
    write(root / "user.slice" / "app" / "memory.events", "low 0\noom 3\noom_kill 2\n")
    group = group_of(7, root=root, proc=proc)
    assert group == Group(root / "user.slice" / "app", root, 2)
    assert KillCounter(group, proc=proc).read() == 2


def test_group_is_the_top_when_a_container_is_told_a_path_from_outside(root: Path, proc: Path) -> None:
    write(proc / "7" / "cgroup", "0::/../docker/4f5e\n")
    write(root / "memory.max", "1000000\n")
    write(root / "memory.events", "oom_kill 1\n")
    assert group_of(7, root=root, proc=proc) == Group(root, root, 2)


def test_group_is_found_in_version_1_also_beside_an_empty_version_2(root: Path, proc: Path) -> None:
    write(proc / "7" / "cgroup", "9:name=systemd:/\n12:cpu,cpuacct:/a\n4:memory:/a/b\n0::/a\n")
    write(root / "memory" / "a" / "b" / "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    group = group_of(7, root=root, proc=proc)
    assert group == Group(root / "memory" / "a" / "b", root / "memory", 1)
    assert KillCounter(group, proc=proc).read() == 5


def test_machine_counts_when_no_group_does(root: Path, proc: Path) -> None:
    write(proc / "7" / "cgroup", "0::/\n")
    write(proc / "vmstat", "nr_free_pages 5\noom_kill 4\n")
    assert group_of(7, root=root, proc=proc) is None
    assert KillCounter(None, proc=proc).read() == 4


def test_machine_counts_when_the_group_is_of_a_system_that_does_not_yet(root: Path, proc: Path) -> None:
    write(proc / "7" / "cgroup", "4:memory:/a\n")
    write(root / "memory" / "a" / "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n")
    write(proc / "vmstat", "oom_kill 4\n")
    assert KillCounter(group_of(7, root=root, proc=proc), proc=proc).read() == 4


def test_nothing_is_known_when_nothing_can_be_read(root: Path, proc: Path) -> None:
    assert group_of(7, root=root, proc=proc) is None
    assert KillCounter(None, proc=proc).read() is None
    assert numbers_in(proc / "vmstat") == {}
