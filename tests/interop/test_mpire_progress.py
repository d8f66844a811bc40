"""Progress bars of MPIRE's maps: what their options and styles say to nbpar's display, and what they check."""

from __future__ import annotations

import inspect
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tqdm

import nbpar
from nbpar.errors import OptionsError
from nbpar.interop.mpire import WorkerPool, tqdm_utils
from nbpar.interop.mpire.progress import OPTIONS, ProgressPlan, check_progress_bar_options, plan_progress
from nbpar.views.cell import Cell
from tests.notebook.kernels import ipykernels, start_kernel


@pytest.fixture
def in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cell, "current", classmethod(lambda cls: object()))


@pytest.fixture
def default_style() -> Iterator[Any]:
    before = tqdm_utils.PROGRESS_BAR_DEFAULT_STYLE
    yield tqdm_utils
    tqdm_utils.PROGRESS_BAR_DEFAULT_STYLE = before


# --- what is drawn ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("style", "progress"), [(None, True), ("std", True), ("notebook", True), ("rich", "detail"), ("dashboard", None)]
)
def test_a_style_is_a_way_of_nbpars_to_show_a_job(style: str | None, progress: Any) -> None:
    assert plan_progress(True, None, style) == ProgressPlan(progress, None)


def test_without_a_progress_bar_nothing_is_drawn_outside_of_a_notebook() -> None:
    assert plan_progress(False, None, None).progress is False


@pytest.mark.usefixtures("in_a_notebook")
def test_in_a_notebook_a_job_has_its_card_in_any_case() -> None:
    assert plan_progress(False, None, None).progress is None


@pytest.mark.usefixtures("in_a_notebook")
@pytest.mark.parametrize("progress_bar", [True, False])
def test_a_disabled_bar_is_not_drawn_anywhere(progress_bar: bool) -> None:
    assert plan_progress(progress_bar, {"disable": True}, None).progress is False


def test_a_description_names_the_job() -> None:
    assert plan_progress(True, {"desc": "Pages"}, None).name == "Pages"
    assert plan_progress(True, {"desc": ""}, None).name is None


def test_the_default_style_is_the_one_a_program_has_set(default_style: Any) -> None:
    default_style.PROGRESS_BAR_DEFAULT_STYLE = "rich"
    assert plan_progress(True, None, None).progress == "detail"
    assert plan_progress(True, None, "std").progress is True


# --- what is checked --------------------------------------------------------------------------------------------------


def test_options_have_mpires_defaults() -> None:
    assert check_progress_bar_options(None, 7, None) == {
        "position": 0,
        "dynamic_ncols": True,
        "mininterval": 0.1,
        "maxinterval": 0.5,
        "total": 7,
        "leave": True,
    }


def test_what_is_given_counts_before_the_defaults_and_is_not_changed() -> None:
    given = {"position": 3, "desc": "x", "maxinterval": 2}
    told = check_progress_bar_options(given, None, None)
    assert {name: told[name] for name in given} == given == {"position": 3, "desc": "x", "maxinterval": 2}


@pytest.mark.parametrize("name", ["total", "leave"])
def test_what_has_no_effect_is_said(name: str) -> None:
    with pytest.warns(RuntimeWarning, match=name):
        told = check_progress_bar_options({name: False}, 5, None)
    assert (told["total"], told["leave"]) == (5, True)


@pytest.mark.parametrize("options", ["hello", {8}, 3.14, [("desc", "x")]])
def test_options_are_a_dictionary(options: Any) -> None:
    with pytest.raises(TypeError, match="progress_bar_options") as raised:
        check_progress_bar_options(options, None, None)
    assert isinstance(raised.value, OptionsError)


def test_an_option_that_tqdm_does_not_have_is_named() -> None:
    kinds: list[type[Exception]] = [KeyError, tqdm.TqdmKeyError, OptionsError]
    for kind in kinds:
        with pytest.raises(kind, match="not 'width'"):
            check_progress_bar_options({"width": 3}, None, None)


@pytest.mark.parametrize(
    "options", [{"position": "hello"}, {"desc": 3}, {"mininterval": "1"}, {"disable": "yes"}, {"unit": None}]
)
def test_an_option_of_a_wrong_type_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"progress_bar_options\\['{next(iter(options))}'\\]"):
        check_progress_bar_options(options, None, None)


@pytest.mark.parametrize("style", [-1, "fancy", {}, "", ["std"]])
def test_a_style_that_does_not_exist_is_named(style: Any) -> None:
    with pytest.raises(ValueError, match=r"progress_bar_style=.* 'std', 'rich', 'notebook', 'dashboard'"):
        check_progress_bar_options(None, None, style)


def test_a_default_style_that_does_not_exist_is_named(default_style: Any) -> None:
    default_style.PROGRESS_BAR_DEFAULT_STYLE = "fancy"
    with pytest.raises(ValueError, match="PROGRESS_BAR_DEFAULT_STYLE='fancy'"):
        check_progress_bar_options(None, None, None)


def test_a_place_and_the_rich_style_exclude_each_other_as_in_mpire() -> None:
    with pytest.raises(NotImplementedError, match="rich"):
        check_progress_bar_options({"position": 1}, None, "rich")


def test_every_argument_of_tqdms_bar_is_an_option() -> None:
    arguments = set(inspect.signature(tqdm.tqdm.__init__).parameters) - {"self", "kwargs"}
    assert arguments - set(OPTIONS) == set()


def test_what_tqdm_takes_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)  # a thread of tqdm's would stay, and forks warn of threads
    options: dict[str, Any] = {
        "desc": "work",
        "file": io.StringIO(),
        "ncols": 80,
        "unit": "page",
        "unit_scale": True,
        "colour": "green",
        "bar_format": "{l_bar}{bar}",
        "postfix": {"loss": 1.0},
        "smoothing": 0,
        "ascii": " #",
        "initial": 3,
        "delay": 0.5,
        "miniters": 1,
        "disable": None,
    }
    assert tqdm.tqdm([], **(options | {"file": io.StringIO()})) is not None
    told = check_progress_bar_options(options, 1, None)
    assert {name: told[name] for name in options} == options


def test_to_check_options_tqdm_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert check_progress_bar_options({"desc": "x"}, 1, "std")["desc"] == "x"


# --- of a real pool ---------------------------------------------------------------------------------------------------


def shown(call: str) -> str:
    """What a program shows of a map that takes half a second, where its stderr is no terminal."""
    source = (
        "import time\n"
        "from nbpar.interop.mpire import WorkerPool\n"
        "def nap(x): time.sleep(0.12)\n"
        f"with WorkerPool(1, start_method='threading') as pool: {call}\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("NBPAR_UI", "CI")}
    line = [sys.executable, "-W", "error", "-c", source]
    done = subprocess.run(line, check=True, capture_output=True, text=True, timeout=50, env=environment)
    assert done.stdout == ""
    return done.stderr


def test_a_progress_bar_is_shown_under_its_description() -> None:
    text = shown("pool.map(nap, range(5), progress_bar=True, progress_bar_options={'desc': 'Pages'})")
    assert "Pages" in text
    assert "5 of 5" in text


@pytest.mark.parametrize("more", ["", ", progress_bar=True, progress_bar_options={'disable': True}"])
def test_without_a_progress_bar_nothing_is_shown(more: str) -> None:
    assert shown(f"list(pool.imap(nap, range(5){more}))") == ""


def test_a_job_has_the_name_of_its_function_or_its_description() -> None:
    with WorkerPool(1, start_method="threading") as pool:
        pool.map(abs, [1, 2])
        assert nbpar.jobs()[-1].name == "map abs"
        pool.map(abs, [1, 2], progress_bar_options={"desc": "both"})
        assert nbpar.jobs()[-1].name == "both"


def test_what_is_said_of_options_points_to_the_users_line() -> None:
    with WorkerPool(1, start_method="threading") as pool:
        calls: list[Any] = [pool.map, pool.map_unordered, pool.imap, pool.imap_unordered]
        for call in calls:
            with pytest.warns(RuntimeWarning) as warned:
                list(call(abs, iter([1]), progress_bar_options={"total": 3}))
            assert {one.filename for one in warned} == {__file__}, call


def test_in_a_kernel_a_map_has_its_card_unless_it_is_disabled(tmp_path: Path) -> None:
    with start_kernel(tmp_path, pythonpath=next(iter(ipykernels().values()))) as kernel:
        kernel.run("from nbpar.interop.mpire import WorkerPool\nimport time\ndef nap(x): time.sleep(0.15)")
        kernel.run("pool = WorkerPool(1, start_method='threading', keep_alive=True)")
        carded = kernel.run("pool.map(nap, range(4), progress_bar_options={'desc': 'Pages'});")
        assert any("Pages" in str(bundle.get("text/html")) for bundle in carded.displays)
        for style in ("'dashboard'", "'notebook'"):
            carded = kernel.run(f"pool.map(nap, range(4), progress_bar=True, progress_bar_style={style});")
            assert any("map nap" in str(bundle.get("text/html")) for bundle in carded.displays)
        bare = kernel.run("pool.map(nap, range(4), progress_bar=True, progress_bar_options={'disable': True});")
        assert not bare.displays
