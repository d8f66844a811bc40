"""Arrays of every kind travel beside the pickle, and come back as they were."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from nbpar.wire.codec import Codec

RECORD = np.dtype([("a", "f8"), ("b", "i4")])
DATED = np.dtype([("when", "M8[s]"), ("b", "i4")])


def numbers(*shape: int) -> Any:
    return np.random.default_rng(0).random(shape)


def masked(*shape: int) -> Any:
    return np.ma.masked_greater(numbers(*shape), 0.5)


class Named(np.ndarray):
    """A subclass that leaves pickling to numpy."""


class Titled(np.ndarray):
    """A subclass that does not."""

    title = ""

    def __reduce__(self) -> Any:
        return titled, (np.array(self), self.title)


def titled(array: Any, title: str) -> Any:
    made = array.view(Titled)
    made.title = title
    return made


ARRAYS = {
    "contiguous": numbers(300, 100),
    "Fortran": np.asfortranarray(numbers(300, 100)),
    "each second row": numbers(300, 100)[::2],
    "each second column": numbers(300, 100)[:, ::2],
    "reversed": numbers(300, 100)[::-1, ::-1],
    "axes in another order": numbers(30, 40, 20).transpose(2, 0, 1),
    "axes in another order with gaps": numbers(60, 40, 20).transpose(2, 0, 1)[:, ::2],
    "Fortran with gaps": np.asfortranarray(numbers(300, 100))[::2],
    "broadcast": np.broadcast_to(numbers(1000), (20, 1000)),
    "bool": (numbers(300, 300) > 0.5)[:, 1:],
    "complex": (numbers(300, 100) * 1j)[::2],
    "other byte order": numbers(300, 100).astype(">f8")[:, ::2],
    "text": np.array(["abc"] * 20_000)[::2],
    "records": np.ones(20_000, RECORD),
    "records with gaps": np.ones(20_000, RECORD)[::2],
    "field": np.ones(20_000, RECORD)["a"],
    "dates": np.arange(20_000).astype("M8[ns]"),
    "durations with gaps": np.arange(40_000).astype("m8[s]").reshape(200, 200)[:, ::2],
    "Fortran dates": np.asfortranarray(np.arange(20_000).astype(">M8[D]").reshape(200, 100)),
    "records with dates": np.ones(20_000, DATED)[::2],
    "masked": masked(300, 300),
    "masked with gaps": masked(600, 300).T[:, ::2],
    "masked nowhere": np.ma.array(numbers(300, 300)),
    "masked records": np.ma.array(np.ones(80_000, RECORD), mask=[(i % 2 == 0, False) for i in range(80_000)]),
    "recarray": np.ones(20_000, RECORD).view(np.recarray),
    "matrix": numbers(300, 100).view(np.matrix)[:, ::2],
    "chararray": np.char.array(["abc"] * 20_000),
    "subclass": numbers(300, 100).view(Named)[:, ::2],
}


def there_and_back(obj: Any, **options: Any) -> tuple[Any, int]:
    encoded = Codec(**options).encode([obj])
    (got,) = Codec().decode(encoded.payload, [bytearray(buffer) for buffer in encoded.buffers])
    return got, len(encoded.payload)


@pytest.mark.parametrize("serializer", ["auto", "dill"])
@pytest.mark.parametrize("name", ARRAYS)
def test_large_array_travels_beside_the_pickle(name: str, serializer: str) -> None:
    array = ARRAYS[name]
    got, n_payload = there_and_back(array, serializer=serializer)
    assert n_payload < 2000
    assert type(got) is type(array)
    assert got.dtype == array.dtype and got.dtype.type is array.dtype.type
    assert got.shape == array.shape
    assert got.tobytes() == array.tobytes()
    assert got.flags.writeable
    as_numpy_has_it = pickle.loads(pickle.dumps(array))
    assert vars(got).keys() == vars(as_numpy_has_it).keys() if hasattr(got, "__dict__") else True
    if isinstance(array, np.ma.MaskedArray):
        assert (np.ma.getmaskarray(got) == np.ma.getmaskarray(array)).all()
        assert got.fill_value == array.fill_value


@pytest.mark.parametrize("name", ["axes in another order with gaps", "Fortran with gaps", "Fortran dates"])
def test_axes_lie_in_memory_as_they_did(name: str) -> None:
    array = ARRAYS[name]
    got, _ = there_and_back(array)
    assert np.argsort(got.strides).tolist() == np.argsort(array.strides).tolist()
    assert min(got.strides) == array.itemsize, "and without the gaps"


@pytest.mark.parametrize(
    "array",
    [
        numbers(100)[::2],
        masked(50),
        np.array([1, "a", None] * 20_000, object)[::2],
        np.ma.array([[1], None] * 20_000, dtype=object),
        np.array([]).reshape(0, 5),
        np.array(5.0),
        np.array([None] * 20_000).view(Named),
    ],
)
def test_other_arrays_travel_as_numpy_has_it(array: Any) -> None:
    got, _ = there_and_back(array)
    assert type(got) is type(array) and got.dtype == array.dtype and got.shape == array.shape
    assert got.tolist() == array.tolist()


def test_subclass_with_its_own_way_keeps_it() -> None:
    got, n_payload = there_and_back(titled(numbers(300, 100), "heights"))
    assert got.title == "heights"
    assert n_payload < 2000


def test_masked_array_is_one_of_its_own() -> None:
    array = masked(300, 300)
    got, _ = there_and_back(array)
    got[0, 0] = 5.0
    got[0, 1] = np.ma.masked
    assert got[0, 0] == 5.0
    assert got[0, 1] is np.ma.masked
    assert array.fill_value == got.fill_value


def test_readonly_stays_readonly_when_nothing_is_copied() -> None:
    array = numbers(30, 40, 20).transpose(2, 0, 1)
    array.flags.writeable = False
    got, _ = there_and_back(array)
    assert not got.flags.writeable


def test_frames_travel_beside_the_pickle() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": numbers(200_000), "b": np.arange(200_000), "c": numbers(200_000)})
    frame["when"] = pandas.to_datetime(np.arange(200_000), unit="s")
    frame["where"] = pandas.Categorical(["here", "there"] * 100_000)
    for one in (frame, frame[10:140_000], frame[::2], frame.set_index("when"), pandas.DataFrame(numbers(300, 300)).T):
        got, n_payload = there_and_back(one)
        assert n_payload < 10_000
        assert one.equals(got)


def test_slice_of_an_arrow_table_travels_alone() -> None:
    pa: Any = pytest.importorskip("pyarrow")
    n = 100_000
    names = pa.array(["here", "there", None, "where"] * (n // 4))
    table = pa.table({"a": numbers(n), "b": names, "c": names.dictionary_encode(), "d": [[1, 2], None] * (n // 2)})
    pieces = [
        table.slice(5, 100),
        table.slice(3, 0),
        table.to_batches()[0].slice(50, 100),
        table.to_batches()[0].slice(50, 0),
        table.column("a").slice(5, 100),
        table.column("b").slice(5, 0),
        pa.array(numbers(n)).slice(5, 100),
        names.slice(3, 10),
        names.slice(3, 0),
        table.column("c").chunk(0).slice(5, 7),
    ]
    for piece in pieces:
        got, n_payload = there_and_back(piece)
        assert type(got) is type(piece)
        assert got.equals(piece)
        assert n_payload < 20_000
    whole = [table, names, table.column("a"), pa.table({}), pa.array([], pa.int8())]
    for piece in whole:
        got, n_payload = there_and_back(piece)
        assert got.equals(piece)
        assert n_payload < 60_000
