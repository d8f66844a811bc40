from __future__ import annotations

import copy
import pickle

import pytest

from nbpar import errors
from nbpar.errors import (
    JobInterrupt,
    NbparError,
    OptionsError,
    RemoteError,
    TaskError,
    TaskTimeoutError,
    WorkerDiedError,
)

TASK_ERRORS = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, TaskError)]


def test_every_error_is_in_the_tree_when_public() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, NbparError | KeyboardInterrupt)
        assert name.endswith(("Error", "Interrupt"))


@pytest.mark.parametrize("kind", TASK_ERRORS)
def test_task_error_keeps_everything_when_pickled(kind: type[TaskError]) -> None:
    error = kind("broke", index=3, item_repr="{'n': 0}", worker_id=1, remote_traceback="Traceback ...")
    error.extra = 5  # type: ignore[attr-defined]
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert vars(again) == vars(error)
        assert str(again) == str(error) == "item 3 = {'n': 0}: broke"


def test_message_stands_alone_when_no_item_is_known() -> None:
    assert str(TaskError("broke")) == "broke"
    assert TaskError("broke", index=2).where == "item 2"


def test_options_error_names_option_value_and_allowed() -> None:
    error = OptionsError("retries", -1, "a whole number, 0 or more")
    assert str(error) == "retries=-1 is not allowed; allowed: a whole number, 0 or more"
    assert isinstance(error, ValueError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_builtin_kinds_are_kept_when_caught_by_them() -> None:
    assert issubclass(TaskTimeoutError, TimeoutError)
    assert issubclass(errors.PoolClosedError, RuntimeError)
    assert issubclass(JobInterrupt, KeyboardInterrupt)
    assert not issubclass(JobInterrupt, Exception)


def test_defaults_are_there_when_nothing_was_learnt() -> None:
    assert (WorkerDiedError("x").exit_code, WorkerDiedError("x").pid, RemoteError("x").type_name) == (None, None, "")


def test_interrupt_is_one_line_when_ipython_draws_it() -> None:
    assert list(JobInterrupt("stopped")._render_traceback_()) == ["stopped"]
