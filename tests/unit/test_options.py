from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbpar import options
from nbpar.errors import OptionsError
from nbpar.options import JobOptions, PoolOptions, usable_cpus

BAD_JOB_OPTIONS: list[tuple[str, Any]] = [
    ("chunk_size", 0),
    ("chunk_size", -3),
    ("chunk_size", 1.5),
    ("chunk_size", True),
    ("chunk_size", "8"),
    ("timeout", 0),
    ("timeout", -1.0),
    ("timeout", float("nan")),
    ("timeout", float("inf")),
    ("timeout", "5"),
    ("timeout", True),
    ("retries", -1),
    ("retries", None),
    ("retries", 1.0),
    ("on_error", "ignore"),
    ("on_error", None),
    ("on_error", ["raise"]),
    ("seed", -1),
    ("seed", "x"),
    ("progress", 1),
    ("progress", "details"),
    ("name", 5),
    ("max_in_flight", 0),
    ("checkpoint", 5),
    ("checkpoint", ""),
]

BAD_POOL_OPTIONS: list[tuple[str, Any]] = [
    ("n_workers", 0),
    ("n_workers", -1),
    ("n_workers", 2.0),
    ("n_workers", "all"),
    ("start_method", "forkpool"),
    ("start_method", None),
    ("worker_init", 5),
    ("worker_exit", "f"),
    ("tasks_per_worker", 0),
    ("memory_limit", 2),
    ("memory_limit", 63_999_999),
    ("memory_limit", "2"),
    ("memory_limit", "2 potatoes"),
    ("memory_limit", "63 MB"),
    ("memory_limit", ""),
    ("memory_limit", -(1 << 30)),
    ("memory_limit", True),
    ("memory_limit", 2e9 + 0.5),
    ("memory_limit", float("nan")),
    ("memory_limit", [1 << 30]),
    ("memory_limit", b"2GB"),
    ("threads_per_worker", 0),
    ("threads_per_worker", "all"),
    ("serializer", "pickle"),
    ("env", {"A": 1}),
    ("env", ["A"]),
    ("cpu_ids", "01"),
    ("cpu_ids", [0]),
    ("cpu_ids", [0, 10_000]),
    ("cpu_ids", [0, []]),
    ("cpu_ids", 5),
    ("cpu_ids", [0, "x"]),
    ("cpu_ids", [0, None]),
    ("idle_timeout", 0),
    ("idle_timeout", "5"),
    ("keep_globals", 1),
]


@pytest.mark.parametrize(("option", "value"), BAD_JOB_OPTIONS)
def test_job_option_is_refused_by_name_when_not_allowed(option: str, value: object) -> None:
    with pytest.raises(OptionsError) as caught:
        JobOptions(**{option: value})  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{option}={value!r} is not allowed; allowed: ")


@pytest.mark.parametrize(("option", "value"), BAD_POOL_OPTIONS)
def test_pool_option_is_refused_by_name_when_not_allowed(option: str, value: object) -> None:
    given: dict[str, Any] = {"n_workers": 2, option: value}
    with pytest.raises(OptionsError) as caught:
        PoolOptions(**given)
    assert caught.value.option == option
    assert "is not allowed; allowed: " in str(caught.value)


def test_numpy_numbers_are_taken_when_whole() -> None:
    assert JobOptions(chunk_size=np.int64(3), seed=np.uint32(5)).chunk_size == 3  # type: ignore[arg-type]
    assert PoolOptions(n_workers=np.int64(3)).count == 3  # type: ignore[arg-type]
    assert JobOptions(timeout=np.float64(0.5)).timeout == 0.5


def test_values_of_the_environment_are_not_shown_when_refused_or_printed() -> None:
    with pytest.raises(OptionsError) as caught:
        PoolOptions(env={"TOKEN": 123456})  # type: ignore[dict-item]
    assert "123456" not in str(caught.value)
    assert "secret" not in repr(PoolOptions(env={"TOKEN": "secret"}))


def test_cpus_are_shared_out_when_threads_are_automatic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "usable_cpus", lambda: 8)
    assert PoolOptions(n_workers=3).threads == 2
    assert PoolOptions(n_workers=16).threads == 1
    assert PoolOptions(n_workers=3, threads_per_worker=5).threads == 5
    assert PoolOptions().count == 8


def test_serial_has_one_worker_when_not_told() -> None:
    assert PoolOptions(start_method="serial").count == 1
    with pytest.raises(OptionsError, match="n_workers=2"):
        PoolOptions(start_method="serial", n_workers=2)


@pytest.mark.parametrize("method", ["threads", "serial"])
@pytest.mark.parametrize(("option", "value"), [("env", {"A": "b"}), ("cpu_ids", [0])])
def test_process_options_are_refused_when_there_is_one_process(method: Any, option: str, value: object) -> None:
    with pytest.raises(OptionsError, match=option):
        PoolOptions(start_method=method, n_workers=1, **{option: value})  # type: ignore[arg-type]


@pytest.mark.skipif(sys.platform != "linux", reason="affinity and cgroups are Linux's")
def test_cpus_follow_affinity_when_it_is_narrow() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("quota", "cpus"), [("max 100000", None), ("150000 100000", 2), ("50000 100000", 1), ("broken", None)]
)
def test_cpus_follow_the_quota_when_a_container_has_one(
    quota: str, cpus: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cpu.max").write_text(quota)

    def opened(path: str, **_: object) -> Any:
        if not path.endswith("cpu.max"):
            raise FileNotFoundError(path)
        return (tmp_path / "cpu.max").open(encoding="ascii")

    monkeypatch.setattr(options, "open", opened, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)), raising=False)
    assert usable_cpus() == (64 if cpus is None else cpus)


@pytest.mark.parametrize(
    ("value", "n_bytes"),
    [("2GB", 2 * 10**9), ("1.5 GiB", 3 << 29), (64_000_000, 64_000_000), (2e9, 2 * 10**9), (np.int32(10**9), 10**9)],
)
def test_memory_limit_is_bytes_however_it_was_given(value: Any, n_bytes: int) -> None:
    given = PoolOptions(memory_limit=value)
    assert given.memory_limit == given.memory_limit_bytes == n_bytes
    assert type(given.memory_limit) is int
    assert PoolOptions().memory_limit_bytes is None


def test_memory_limit_says_what_is_allowed() -> None:
    with pytest.raises(OptionsError) as caught:
        PoolOptions(memory_limit="2")
    assert str(caught.value) == (
        "memory_limit='2' is not allowed; allowed: bytes as a whole number or a size such as '2GB' or '1.5 GiB', 64 MB "
        "or more for each worker, or None (no limit)"
    )


@pytest.mark.parametrize("method", ["threads", "serial"])
def test_memory_limit_is_refused_when_workers_are_no_processes(method: Any) -> None:
    with pytest.raises(OptionsError, match=f"start_method='{method}': workers have no memory of their own there"):
        PoolOptions(start_method=method, memory_limit="2GB")
