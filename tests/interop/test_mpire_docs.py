"""The page about MPIRE names what there is, and what there is has MPIRE's signatures."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import nbpar.interop.mpire as door
from nbpar.interop.mpire import async_result, context, dashboard, insights, tqdm_utils, utils

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "mpire.md").read_text(encoding="utf-8")

# MPIRE 2.10.2, in its order.
CONSTRUCTOR = [
    *("n_jobs", "daemon", "cpu_ids", "shared_objects", "pass_worker_id", "use_worker_state", "start_method"),
    *("keep_alive", "use_dill", "enable_insights", "order_tasks"),
]
HOOKS = ["worker_init", "worker_exit", "task_timeout", "worker_init_timeout", "worker_exit_timeout"]
MAP_BEGIN = [
    *("func", "iterable_of_args", "iterable_len", "max_tasks_active", "chunk_size", "n_splits", "worker_lifespan"),
    "progress_bar",
]
MAP_END = [*HOOKS, "progress_bar_options", "progress_bar_style"]
APPLY = ["func", "args", "kwargs", "callback", "error_callback", *HOOKS]

SIGNATURES = {
    "__init__": CONSTRUCTOR,
    "map": [*MAP_BEGIN, "concatenate_numpy_output", *MAP_END],
    "map_unordered": [*MAP_BEGIN, *MAP_END],
    "imap": [*MAP_BEGIN, *MAP_END],
    "imap_unordered": [*MAP_BEGIN, *MAP_END],
    "apply": APPLY,
    "apply_async": APPLY,
    "pass_on_worker_id": ["pass_on"],
    "set_shared_objects": ["shared_objects"],
    "set_use_worker_state": ["use_worker_state"],
    "set_keep_alive": ["keep_alive"],
    "set_order_tasks": ["order_tasks"],
    "stop_and_join": ["keep_alive"],
    "join": ["keep_alive"],
    "terminate": [],
    "get_exit_results": [],
    "get_insights": [],
    "print_insights": [],
}

DEFAULTS = {
    "daemon": True,
    "pass_worker_id": False,
    "use_worker_state": False,
    "keep_alive": False,
    "use_dill": False,
    "enable_insights": False,
    "order_tasks": False,
    "progress_bar": False,
    "concatenate_numpy_output": True,
    "args": (),
    "func": inspect.Parameter.empty,
    "iterable_of_args": inspect.Parameter.empty,
}
"""All others are None."""


def rows(heading: str) -> dict[str, str]:
    """The names in the first column of the table below a heading, with their row."""
    part = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (text,) = [one for one in part if one.partition("\n")[0] == heading]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return {name: line for line in lines for name in re.findall(r"`(\w+|[^`]+?)(?:\([^`]*)?`", line.split("|")[1])}


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_method_has_mpires_parameters_in_its_order(name: str) -> None:
    parameters = list(inspect.signature(getattr(door.WorkerPool, name)).parameters.values())[1:]
    assert [one.name for one in parameters] == SIGNATURES[name]
    assert {one.kind for one in parameters} <= {inspect.Parameter.POSITIONAL_OR_KEYWORD}


@pytest.mark.parametrize("name", [name for name in SIGNATURES if not re.match(r"pass_on|set_|stop|join", name)])
def test_a_parameter_has_mpires_default(name: str) -> None:
    for one in list(inspect.signature(getattr(door.WorkerPool, name)).parameters.values())[1:]:
        assert one.default == DEFAULTS.get(one.name), one.name


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("pass_on_worker_id", True),
        ("set_shared_objects", None),
        ("set_use_worker_state", True),
        ("set_keep_alive", True),
        ("set_order_tasks", True),
        ("stop_and_join", False),
    ],
)
def test_a_setter_has_mpires_default(name: str, default: Any) -> None:
    (one,) = list(inspect.signature(getattr(door.WorkerPool, name)).parameters.values())[1:]
    assert one.default is default


def test_the_page_has_every_parameter_of_the_constructor_in_order() -> None:
    assert list(rows("The constructor")) == CONSTRUCTOR


def test_the_page_has_every_parameter_of_a_map_in_order() -> None:
    assert list(rows("`map`, `map_unordered`, `imap`, `imap_unordered`")) == SIGNATURES["map"]


def test_the_page_has_every_parameter_of_apply_in_order() -> None:
    assert list(rows("`apply`, `apply_async`")) == APPLY


def test_the_page_has_every_public_name_of_the_pool() -> None:
    public = {name for name in dir(door.WorkerPool(1)) if not name.startswith("_")} - {"pool_params"}
    assert public - set(rows("Methods")) == set()
    assert set(rows("Methods")) - public == {"with"}


def test_the_page_has_every_insight() -> None:
    table = rows("Insights")
    for key in insights.PoolInsights(1).as_dict():
        kind = re.sub(r"start_up|init|waiting|working|exit", "start_up", key)
        assert key in table or kind in table, key


def test_the_page_has_every_public_name_of_the_helpers() -> None:
    text = "\n".join(rows("Helpers").values())
    names = [*utils.__all__, *dashboard.__all__, *context.__all__, "PROGRESS_BAR_DEFAULT_STYLE", "cpu_count"]
    assert [name for name in names if f"`{name}" not in text and f".{name}" not in text] == ["context_of"]


def test_the_page_has_every_style_of_a_progress_bar() -> None:
    table = "\n".join(rows("Progress bars").values())
    assert [style for style in tqdm_utils.STYLES if f'`"{style}"`' not in table] == []


def test_the_page_has_the_methods_of_a_result() -> None:
    for name in ("ready", "successful", "wait", "get"):
        assert callable(getattr(async_result.AsyncResult, name))
        assert f"`{name}(" in PAGE


@pytest.mark.parametrize("name", ["chunk_tasks", "make_single_arguments", "apply_numpy_chunking", "get_n_chunks"])
def test_the_page_has_the_signature_of_a_helper(name: str) -> None:
    (told,) = re.findall(rf"`mpire\.utils\.{name}(\(.*?\))`", PAGE)
    parameters = inspect.signature(getattr(utils, name)).parameters.values()
    plain = [one.replace(annotation=inspect.Parameter.empty) for one in parameters]
    assert told == str(inspect.Signature(plain))
