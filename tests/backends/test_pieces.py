"""Items that travel by the slice: `nbpar.inputs.Pieces`."""

from __future__ import annotations

from typing import Any

import pytest

import nbpar
from nbpar.inputs import Pieces
from tests.backends.conftest import PROCESSES

sent: list[int] = []  # lengths of the slices that left this process


class Numbers(Pieces):
    def __init__(self, numbers: list[Any]) -> None:
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        found = self.numbers[index]
        return Numbers(found) if isinstance(index, slice) else found

    def __reduce__(self) -> tuple[Any, ...]:
        sent.append(len(self))
        return Numbers, (self.numbers,)


class Fragile(Numbers):
    def __getitem__(self, index: Any) -> Any:
        found = self.numbers[index]
        return Fragile(found) if isinstance(index, slice) else found

    def __reduce__(self) -> tuple[Any, ...]:
        return _broken, (len(self),)


def _broken(n: int) -> Any:
    raise OSError(f"{n} pieces")


def test_a_chunk_takes_one_slice(pool: nbpar.WorkerPool, method: str) -> None:
    sent.clear()
    assert pool.map(lambda x: 2 * x, Numbers(list(range(100))), chunk_size=10) == list(range(0, 200, 2))
    if method in PROCESSES:  # a chunk that was asked back is sent once more
        assert set(sent) == {10} and len(sent) >= 10
    else:
        assert sent == []


def test_pieces_are_cut_as_any_other_items_when_the_job_chooses_the_chunks(pool: nbpar.WorkerPool) -> None:
    assert pool.map(str, Numbers(list(range(5000)))) == [str(x) for x in range(5000)]


def test_an_error_names_the_piece(pool: nbpar.WorkerPool) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        pool.map(lambda x: 1 // x, Numbers([1, 2, 0]))
    assert any("item 2 = 0" in note for note in caught.value.__notes__)


def test_one_piece_that_cannot_be_sent_fails_alone(pool: nbpar.WorkerPool, method: str) -> None:
    generator = (x for x in "ab")
    results = pool.map(lambda x: type(x).__name__, Numbers([1, generator, 2.0]), chunk_size=3, on_error="return")
    assert [results[0], results[2]] == ["int", "float"]
    assert isinstance(results[1], nbpar.SerializationError) == (method in PROCESSES)


@pytest.mark.parametrize("method", PROCESSES)
def test_a_slice_that_cannot_be_rebuilt_fails_with_all_its_tasks(pool: nbpar.WorkerPool) -> None:
    results = pool.map(abs, Fragile([1, 2, 3]), chunk_size=3, on_error="return")
    assert len(results) == 3
    assert all(isinstance(one, nbpar.SerializationError) and "pieces" in str(one) for one in results)


def test_what_failed_is_run_again_with_its_own_piece(pool: nbpar.WorkerPool) -> None:
    bad = {3}

    def check(x: int) -> int:
        assert x not in bad
        return x

    job = pool.map_async(check, Numbers([1, 2, 3, 4]), on_error="return")
    job.wait()
    bad.clear()
    assert job.retry_failed().result() == [1, 2, 3, 4]
