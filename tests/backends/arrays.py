"""What the tests of arrays share: recipes that make the same object on both sides, and what is compared of it.

Workers import this module: it must stay light, so pandas, pyarrow and hypothesis are loaded where they are used.
"""

from __future__ import annotations

import array
import pickle
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import psutil

if TYPE_CHECKING:
    from hypothesis import settings
    from hypothesis.strategies import SearchStrategy

Array = np.ndarray[Any, Any]

MB = 1 << 20

# A page, and the size from which buffers travel beside the pickle, each with its neighbours.
EDGES = [0, 1, 8, 100, 4088, 4096, 4104, 65_528, 65_535, 65_536, 65_537, 65_544, 131_072, 2 * MB, 2 * MB + 8]

DTYPES: list[Any] = ["?", "i1", "u2", "i4", ">i4", "u8", "f2", "f4", "f8", ">f8", "g", "c8", "c16"]
DTYPES += ["M8[ns]", "M8[D]", "m8[s]", "S7", "U5", "V3", "O"]
DTYPES += [[("a", "i4"), ("b", "f8"), ("c", "S3")], [("xy", "f4", (2,)), ("inner", [("t", "M8[s]"), ("u", "U2")])]]

VIEWS = ["whole", "middle", "step", "reversed", "transposed", "turned", "stretched", "field"]
KINDS = ["ndarray", "masked", "matrix", "recarray", "plain subclass", "subclass with state"]


class Plain(np.ndarray[Any, Any]):
    """A subclass that says nothing of pickling."""


class Tagged(np.ndarray[Any, Any]):
    """A subclass that brings its attribute along by itself."""

    tag: str

    def __reduce__(self) -> Any:
        reduced: Any = super().__reduce__()
        return *reduced[:2], (reduced[2], self.tag)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[0])
        self.tag = state[1]


class Recipe(NamedTuple):
    """All there is to know to make an array."""

    dtype: Any = "f8"
    n_bytes: int = 0
    n_dims: int = 1
    order: str = "C"
    view: str = "whole"
    kind: str = "ndarray"
    readonly: bool = False
    seed: int = 0


def examples(n: int) -> settings:
    """How many to try; that a failure is explained, line by line, takes minutes with arrays."""
    from hypothesis import Phase, settings

    return settings(max_examples=n, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink])


def recipes(kinds: list[str] | None = None) -> SearchStrategy[Recipe]:
    """Recipes of every dtype, size, order and view."""
    from hypothesis import strategies as st

    return st.builds(
        Recipe,
        dtype=st.sampled_from(DTYPES),
        n_bytes=st.sampled_from(EDGES) | st.integers(0, 3 * MB),
        n_dims=st.integers(0, 3),
        order=st.sampled_from("CF"),
        view=st.sampled_from(VIEWS),
        kind=st.sampled_from(kinds or KINDS),
        readonly=st.booleans(),
        seed=st.integers(0, 99),
    )


def build(recipe: Recipe) -> Array:
    """Make an array; the same recipe makes the same one everywhere."""
    made = _shaped(_flat(recipe), recipe)
    made = _view(made, recipe.view)
    if made.size == 0:  # numpy 2.4: an empty array may lose its byte order in numpy's own pickle
        made = made.astype(made.dtype.newbyteorder("="))
    made = _of_kind(made, recipe)
    if recipe.readonly:
        made.flags.writeable = False
    return made


def _flat(recipe: Recipe) -> Array:
    dtype = np.dtype(recipe.dtype)
    n = 1 if recipe.n_dims == 0 else recipe.n_bytes // dtype.itemsize
    random = np.random.default_rng(recipe.seed)
    if dtype.kind == "O":
        some = [None, recipe.seed, "text", (1, 2.5), b"x", float(recipe.seed)]
        made = np.empty(min(n, 500), dtype=object)
        made[:] = [some[i % len(some)] for i in range(len(made))]
        return made
    if dtype.kind == "b":
        return random.integers(0, 2, n).astype(bool)
    if dtype.kind == "U" or dtype.names == ("xy", "inner"):  # not any bytes are text
        made = np.zeros(n, dtype)
        made[:] = random.integers(0, 99, n)
        return made
    # Bytes are drawn for a few thousand elements and repeated: drawing is ten times slower than sending.
    some_bytes = np.frombuffer(random.bytes(dtype.itemsize * min(n, 4099)), dtype)
    return np.resize(some_bytes, n)


def _shaped(flat: Array, recipe: Recipe) -> Array:
    if recipe.n_dims == 0:
        return flat[:1].reshape(()).copy()
    rows = 1 + recipe.seed % 4
    shape = {1: (-1,), 2: (rows, -1), 3: (rows, 2, -1)}[recipe.n_dims]
    n_inner = abs(int(np.prod(shape)))
    order: Any = recipe.order
    return flat[: len(flat) // n_inner * n_inner].reshape(shape, order=order)


def _view(whole: Array, view: str) -> Array:
    if whole.ndim == 0:
        return whole
    match view:
        case "middle":
            return whole[..., 1:-1]
        case "step":
            return whole[..., ::3]
        case "reversed":
            return whole[::-1, ...]
        case "transposed":
            return whole.T
        case "turned":
            return np.moveaxis(whole, 0, -1)
        case "stretched" if whole.nbytes <= MB:
            return np.broadcast_to(whole, (3, *whole.shape))
        case "field" if whole.dtype.names:
            field: Array = whole[whole.dtype.names[-1]]
            return field
        case "field" if whole.dtype.kind == "c":
            return whole.imag
    return whole


def _of_kind(made: Array, recipe: Recipe) -> Array:
    match recipe.kind:
        case "masked":
            if made.dtype.names or made.dtype.kind == "V":
                return np.ma.masked_array(made)
            if made.dtype == np.float16:  # numpy 2.4: its default of what fills the holes overflows, which is a warning
                made = made.astype("f4")
            mask = np.arange(made.size).reshape(made.shape) % 3 == 1
            return np.ma.masked_array(made, mask)
        case "matrix" if made.ndim == 2:
            return made.view(np.matrix)
        case "recarray" if made.dtype.names:
            return made.view(np.recarray)
        case "plain subclass":
            return made.view(Plain)
        case "subclass with state":
            tagged = made.view(Tagged)
            tagged.tag = f"tag {recipe.seed}"
            return tagged
    return made


class Packet:
    """Holds bytes that travel out of band by pickle's own rule (PEP 574), as classes of other libraries do."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return Packet, (pickle.PickleBuffer(self.data),)


def describe(obj: object) -> Any:
    """What must be equal when an object has travelled, as plain data; a mutable part that is met again is named so."""
    return _describe(obj, {})


def _describe(obj: Any, seen: dict[int, int]) -> Any:
    if isinstance(obj, list | dict | set | bytearray | np.ndarray | array.array | Packet):
        if id(obj) in seen:
            return "again", seen[id(obj)]
        seen[id(obj)] = len(seen)
    name = type(obj).__name__
    match obj:
        case np.ndarray():
            return name, _describe_array(obj)
        case Packet():
            view = memoryview(obj.data)  # what comes back in the place of a buffer is up to the transport: as bytes
            return name, view.format, view.ndim, view.nbytes, view.readonly, _digest(view), list(view[:3])
        case bytes() | bytearray() | memoryview() | array.array():
            return name, memoryview(obj).nbytes, _digest(obj)
        case dict():
            return name, [(_describe(key, seen), _describe(value, seen)) for key, value in obj.items()]
        case list() | tuple():
            return name, [_describe(part, seen) for part in obj]
    return name, repr(obj)


def _describe_array(obj: Array) -> Any:
    about = [str(obj.dtype), obj.shape, _content(np.ma.getdata(obj))]  # under a mask, too
    if isinstance(obj, np.ma.MaskedArray):
        about += [_content(np.ma.getmaskarray(obj))]
    if isinstance(obj, Tagged):
        about.append(obj.tag)
    return about


def _content(obj: Array) -> Any:
    if obj.dtype.hasobject:
        return repr(np.asarray(obj).tolist())
    return _digest(np.asarray(obj).tobytes())


def _digest(data: Any) -> int:
    return zlib.crc32(data)


# --- frames and tables ------------------------------------------------------------------------------------------------

FRAMES = ["numbers", "strings", "categories", "dates", "nullable", "levels", "series", "empty"]
TABLES = ["numbers", "strings", "nulls", "dictionary", "nested", "dates", "sliced", "chunked", "batch", "empty"]


def frame(kind: str, n_rows: int) -> Any:
    """A pandas object; the same everywhere."""
    import pandas as pd

    n = np.arange(n_rows)
    match kind:
        case "numbers":
            floats = pd.DataFrame({name: n * factor for factor, name in enumerate("abc", start=1)}, dtype=float)
            return floats.assign(i=n.astype("i4"), b=n % 2 == 0, c=n * 1j)
        case "strings":
            return pd.DataFrame({"s": [f"row {i}" for i in n], "o": pd.Series([b"x", None] * n_rows, dtype=object)[n]})
        case "categories":
            return pd.DataFrame({"c": pd.Categorical.from_codes(n % 3, ["x", "y", "z"], ordered=True), "n": n})
        case "dates":
            days = pd.date_range("2020-02-28", periods=n_rows, freq="h")
            return pd.DataFrame({"t": days, "z": days.tz_localize("UTC"), "d": days - days[:1].repeat(n_rows)})
        case "nullable":
            holes = [None if i % 5 == 0 else int(i) for i in n]
            return pd.DataFrame({"i": pd.array(holes, dtype="Int64"), "f": np.where(n % 5, n, np.nan)})
        case "levels":
            levels = pd.MultiIndex.from_arrays([n % 7, [f"k{i}" for i in n]], names=["one", "two"])
            return pd.DataFrame({("x", "a"): n, ("x", "b"): -n}, index=levels)
        case "series":
            return pd.Series(n.astype("f4"), index=pd.Index(n[::-1], name="back"), name="s")
    return pd.DataFrame({"a": np.array([], dtype="f4")})


def same_frame(got: Any, kind: str, n_rows: int) -> bool:
    """Whether a frame is what the recipe makes; an assertion says where it is not."""
    import pandas as pd

    expected = frame(kind, n_rows)
    check: Any = pd.testing.assert_series_equal if isinstance(expected, pd.Series) else pd.testing.assert_frame_equal
    check(got, expected, check_exact=True, check_freq=True)
    return True


def table(kind: str, n_rows: int) -> Any:
    """A pyarrow table or batch; the same everywhere."""
    import pyarrow as pa

    n = np.arange(n_rows)
    texts = [f"row {i}" * (1 + i % 3) for i in n]
    match kind:
        case "numbers":
            return pa.table({"i": n, "f": n / 3, "b": n % 2 == 0})
        case "strings":
            return pa.table({"s": texts, "l": pa.array(texts, pa.large_string()), "b": pa.array(texts, pa.binary())})
        case "nulls":
            return pa.table({"i": pa.array([None if i % 3 == 0 else int(i) for i in n], pa.int32())})
        case "dictionary":
            return pa.table({"d": pa.array([f"k{i % 5}" for i in n]).dictionary_encode()})
        case "nested":
            return pa.table({"l": pa.array([[int(i)] * (i % 3) for i in n], pa.list_(pa.int64()))})
        case "dates":
            return pa.table({"t": pa.array(n.astype("M8[us]"))})
        case "sliced":
            return pa.table({"i": n, "s": texts}).slice(n_rows // 3, n_rows // 2)
        case "chunked":
            return pa.concat_tables([table("numbers", n_rows)] * 3)
        case "batch":
            return pa.RecordBatch.from_pydict({"i": n, "s": texts})
    return pa.table({"i": pa.array([], pa.int64())})


def same_table(got: Any, kind: str, n_rows: int) -> bool:
    """Whether a table is what the recipe makes, and sound in every part."""
    got.validate(full=True)
    expected = table(kind, n_rows)
    return bool(got.schema == expected.schema and got.equals(expected))


# --- what workers do with arrays --------------------------------------------------------------------------------------

KEPT: list[tuple[int, Array]] = []
"""Arrays that this worker keeps over tasks and jobs, each with its digest of then."""

MAX_KEPT = 30


def check_kept() -> int:
    """Raise if an array that this worker keeps has changed."""
    for digest, one in KEPT:
        assert _digest(one.tobytes()) == digest, "an array that the worker kept has changed"
    return len(KEPT)


def keep(one: Array) -> None:
    """Keep an array for as long as the worker lives, or until others have taken its place."""
    KEPT.append((_digest(one.tobytes()), one))
    del KEPT[:-MAX_KEPT]


_own: list[Array] = []


def own(one: Array) -> Array:
    """Return an array that this worker goes on to change; of such arrays it keeps five."""
    _own.append(one)
    del _own[:-5]
    return one


def change_own(_: object = None) -> Array:
    """Change what this worker owns, and return the newest."""
    for one in _own:
        np.add(one, 1, out=one)
    return _own[-1] if _own else np.zeros(0)


def filled(item: tuple[int, int]) -> Array:
    """An array of `n` bytes that is easy to recognise."""
    value, n_bytes = item
    return np.full(n_bytes, value % 251, np.uint8)


def tree_memory_bytes() -> int:
    """Memory of this process and its descendants, each page counted once.

    What is nobody's but theirs, and all pages of their anonymous files: those that were written into one and are not
    mapped at the moment belong to no process's own figures.
    """
    total = 0
    files: dict[tuple[int, int], int] = {}
    for one in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(OSError):  # it has ended
            rollup = Path(f"/proc/{one.pid}/smaps_rollup").read_text()
            total += sum(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Pss_Anon:"))
            for link in Path(f"/proc/{one.pid}/fd").iterdir():
                with suppress(OSError):  # it was closed
                    if "memfd:" in str(link.readlink()):
                        about = link.stat()
                        files[about.st_dev, about.st_ino] = about.st_blocks * 512
    return total + sum(files.values())
