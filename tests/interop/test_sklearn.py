"""scikit-learn on nbpar: the same results as serially, with the estimator's name on the card."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joblib import parallel_config
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import nbpar
import nbpar.interop.joblib
from tests.notebook.kernels import start_kernel

X, Y = make_classification(200, 6, random_state=0)


@pytest.fixture(autouse=True, scope="module")
def backend() -> Iterator[None]:
    nbpar.configure(n_workers=2)
    nbpar.interop.joblib.register()
    yield
    nbpar.interop.joblib.shutdown()
    nbpar.shutdown(cancel=True)


def new_jobs(before: set[int]) -> list[tuple[str, int | None, str]]:
    return [(job.name, job.n_tasks, job.status) for job in nbpar.jobs() if job.id not in before]


@pytest.fixture
def before() -> set[int]:
    return {job.id for job in nbpar.jobs()}


def test_a_search_is_one_job_by_its_name(before: set[int]) -> None:
    def search(**options: Any) -> Any:
        grid = {"max_depth": [1, 2, 3], "min_samples_leaf": [1, 5]}
        return GridSearchCV(DecisionTreeClassifier(random_state=0), grid, cv=3, **options).fit(X, Y)

    with parallel_config(backend="nbpar", n_jobs=2):
        found = search()
    expected = search()
    assert found.best_params_ == expected.best_params_
    assert np.array_equal(found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])
    assert new_jobs(before) == [("GridSearchCV", 18, "done")]


def test_a_validation_is_one_job_by_its_functions_name(before: set[int]) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression())
    with parallel_config(backend="nbpar", n_jobs=2):
        found = cross_val_score(model, X, Y, cv=4)
    assert np.array_equal(found, cross_val_score(model, X, Y, cv=4))
    assert new_jobs(before) == [("cross_validate", 4, "done")]


def test_forests_are_the_same_trees(before: set[int]) -> None:
    with parallel_config(backend="nbpar", n_jobs=2):
        found = RandomForestClassifier(8, random_state=0).fit(X, Y)
        chances = found.predict_proba(X)
    assert np.array_equal(chances, RandomForestClassifier(8, random_state=0).fit(X, Y).predict_proba(X))
    # To predict, a forest asks for memory in common: there joblib takes its own threads.
    assert new_jobs(before) == [("RandomForestClassifier", 8, "done")]


def test_importances_are_the_same(before: set[int]) -> None:
    model = DecisionTreeClassifier(random_state=0).fit(X, Y)
    with parallel_config(backend="nbpar"):
        found = permutation_importance(model, X, Y, n_repeats=2, random_state=0, n_jobs=2)
    expected = permutation_importance(model, X, Y, n_repeats=2, random_state=0)
    assert np.array_equal(found.importances, expected.importances)
    assert new_jobs(before) == [("permutation_importance", 6, "done")]


def test_jobs_within_jobs_end(before: set[int]) -> None:
    forest = RandomForestClassifier(3, random_state=0, n_jobs=2)
    with parallel_config(backend="nbpar", n_jobs=2):
        found = cross_val_score(forest, X, Y, cv=3, n_jobs=2)
    assert np.array_equal(found, cross_val_score(forest, X, Y, cv=3))
    assert [name for name, _, _ in new_jobs(before)] == ["cross_validate"]


def test_a_fit_that_fails_names_its_call() -> None:
    with (
        parallel_config(backend="nbpar", n_jobs=2),
        pytest.raises(ValueError, match="criterion"),
    ):
        GridSearchCV(DecisionTreeClassifier(), {"criterion": ["no"]}, error_score="raise", cv=3).fit(X, Y)
    (error, *_) = nbpar.jobs()[-1].errors
    assert error.item_repr.startswith("_fit_and_score(DecisionTreeClassifier(")


def test_a_notebook_fits_its_own_transformer_in_workers_and_stops_them(tmp_path: Path) -> None:
    with start_kernel(tmp_path) as kernel:
        kernel.run(
            "import nbpar, nbpar.interop.joblib; nbpar.interop.joblib.register(); nbpar.configure(n_workers=2)\n"
            "from joblib import parallel_config\nfrom sklearn.base import BaseEstimator, TransformerMixin\n"
            "from sklearn.datasets import make_classification\nfrom sklearn.model_selection import GridSearchCV\n"
            "from sklearn.pipeline import make_pipeline\nfrom sklearn.tree import DecisionTreeClassifier\n"
            "import os, time\nX, y = make_classification(100, 4, random_state=0)"
        )
        kernel.run(
            "class Shift(TransformerMixin, BaseEstimator):\n"
            "    def __init__(self, by=0): self.by = by\n"
            "    def fit(self, X, y=None): time.sleep(0.1); self.pid_ = os.getpid(); return self\n"
            "    def transform(self, X): return X + self.by"
        )
        result = kernel.run(
            "model = make_pipeline(Shift(), DecisionTreeClassifier(random_state=0))\n"
            "with parallel_config(backend='nbpar', n_jobs=2):\n"
            "    search = GridSearchCV(model, {'shift__by': [0, 1, 2]}, cv=2, refit=False).fit(X, y)\n"
            "job = nbpar.jobs()[-1]; job.name, job.n_tasks, job.n_done, job.status, len(search.cv_results_['params'])"
        )
        assert result.value == "('GridSearchCV', 6, 6, 'done', 3)"
        assert any("GridSearchCV" in str(shown.get("text/html", "")) for shown in result.displays)
        cell = kernel.start(
            "from joblib import Parallel, delayed\n"
            "def nap(s): print('begun', flush=True); time.sleep(s)\n"
            "with parallel_config(backend='nbpar', n_jobs=2):\n    Parallel()(delayed(nap)(60) for _ in range(3))"
        )
        cell.wait_for("begun")
        kernel.interrupt()
        error = cell.wait().error
        assert error is not None and error.name == "JobInterrupt" and "nap was cancelled" in error.value
        assert (
            kernel.run("Parallel(n_jobs=2, backend='nbpar')(delayed(abs)(-x) for x in range(3))").value == "[0, 1, 2]"
        )
