"""What a worker builds once: kept between jobs, replaced by version, and let go when nobody needs it any more."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

import nbpar
from nbpar.errors import NbparError, OptionsError
from nbpar.worker.per_worker import PerWorker
from tests.backends.conftest import METHODS, PROCESSES, only
from tests.helpers import until

Pool = nbpar.WorkerPool


def test_the_new_version_is_built_once_in_each_worker_when_it_is_replaced(pool: Pool, tmp_path: Path) -> None:
    def builder(version: str) -> Callable[[], str]:
        def build() -> str:
            with (tmp_path / version).open("a") as file:
                file.write("x")
            return version

        return build

    model = nbpar.per_worker(builder("first"))
    assert set(pool.map(lambda _: model(), range(20))) == {"first"}
    assert model.version == 1
    model.replace(builder("second"))
    assert model.version == 2
    assert set(pool.map(lambda _: model(), range(20)) + pool.map(lambda _: model(), range(20))) == {"second"}
    assert pool.submit(model).result() == "second"
    for version in ("first", "second"):
        assert 1 <= len((tmp_path / version).read_text()) <= pool.n_workers


@pytest.mark.parametrize("method", PROCESSES)
def test_a_job_under_way_goes_on_with_the_version_it_began_with(method: str, tmp_path: Path) -> None:
    def builder(version: str) -> Callable[[], str]:
        def build() -> str:
            with (tmp_path / version).open("a") as file:
                file.write("x")
            return version

        return build

    def ask(i: int) -> str:
        got = model()
        (tmp_path / f"began {i}").touch()
        while not (tmp_path / "go").exists():
            pass
        return got

    model = nbpar.per_worker(builder("first"))
    with Pool(n_workers=1, start_method=method) as pool:  # type: ignore[arg-type]
        before = pool.map_async(ask, range(6), chunk_size=1)
        until((tmp_path / "began 0").exists)
        model.replace(builder("second"))
        after = pool.map_async(lambda _: model(), range(6), chunk_size=1)
        (tmp_path / "go").touch()
        assert (before.result(), after.result()) == (["first"] * 6, ["second"] * 6)
    assert [len((tmp_path / name).read_text()) for name in ("first", "second")] == [1, 1]


@pytest.mark.parametrize("method", METHODS)
def test_the_former_object_is_gone_before_a_worker_builds_the_new_one(method: str) -> None:
    class Weights:
        pass

    former = nbpar.per_worker(dict[str, "weakref.ref[Weights]"])

    def first() -> Weights:
        made = Weights()
        former()["it"] = weakref.ref(made)
        return made

    def second() -> bool:
        return former()["it"]() is None

    model: PerWorker[object] = nbpar.per_worker(first)
    with Pool(n_workers=1, start_method=method, worker_init=gc.disable, worker_exit=gc.enable) as pool:  # type: ignore[arg-type]
        assert pool.map(lambda _: type(model()).__name__, [0]) == ["Weights"]
        model.replace(second)
        assert pool.map(lambda _: model(), [0]) == [True]


def test_a_version_that_cannot_be_built_is_its_tasks_error(pool: Pool) -> None:
    model = nbpar.per_worker(lambda: 1)
    assert pool.map(lambda _: model(), [0]) == [1]
    model.replace(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        pool.map(lambda _: model(), [0])
    model.replace(lambda: 3)
    assert pool.map(lambda _: model(), [0]) == [3]


def test_tasks_do_not_replace(pool: Pool) -> None:
    model = nbpar.per_worker(lambda: 1)
    with pytest.raises(NbparError, match="inside a task"):
        pool.map(lambda _: model.replace(lambda: 2), [0])


def test_what_cannot_be_called_is_refused() -> None:
    model = nbpar.per_worker(lambda: 1)
    with pytest.raises(OptionsError, match="factory"):
        model.replace(5)  # type: ignore[arg-type]
    assert (model(), model.version) == (1, 1)
    model.replace(lambda: 2)
    assert (model(), repr(model).endswith(", version 2)")) == (2, True)


@only(*PROCESSES)
def test_a_replaced_one_is_seen_when_globals_are_kept(method: str) -> None:
    with Pool(n_workers=1, start_method=method, keep_globals=True) as pool:  # type: ignore[arg-type]
        names: dict[str, object] = {"__name__": "__main__", "model": nbpar.per_worker(lambda: 1)}
        exec("def ask(_):\n    return model()\n\ndef look(_):\n    return int(big.value[0])", names)
        assert pool.map(names["ask"], [0]) == [1]  # type: ignore[arg-type]
        names["model"].replace(lambda: 2)  # type: ignore[attr-defined]
        assert pool.map(names["ask"], [0]) == [2]  # type: ignore[arg-type]
        for number in (7, 8):
            names["big"] = nbpar.share([number])
            assert pool.map(names["look"], [0]) == [number]  # type: ignore[arg-type]
