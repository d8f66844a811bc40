"""MPIRE's second published workload: documents of different lengths, counted with state in each worker."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import nbpar
from benchmarks.core import WrongResultError
from benchmarks.peers import SERIAL
from benchmarks.peers.stdlib import forked_executor, forked_pool
from benchmarks.tasks import documents
from benchmarks.team import Team
from benchmarks.workloads.published import Published, Way

__all__ = ["Documents"]

Corpus = Sequence[Sequence[bytes]]

_runs = itertools.count()


class Documents(Published):
    """Published with 2,000 documents of 5,000 or 15,000 words of 20 random bytes; here fewer and shorter ones."""

    name = "mpire-documents"
    title = "MPIRE's stateful workload: 120 documents of 200 or 600 words, counts kept in each worker"
    about = (
        f"{Published.about} A beginning of a word is frequent if it is so within one worker, as published; so the "
        "check is that nothing infrequent was found and nothing that must be frequent somewhere is missing."
    )
    budget_s = 15.0

    def argument(self) -> Corpus:
        """Random words."""
        generator = random.Random(2)
        n_documents, n_words = self.size(120, 6), self.size(400, 40)
        corpus = [
            [generator.randbytes(20) for _ in range(n_words // 2 if number % 2 else n_words * 3 // 2)]
            for number in range(n_documents)
        ]
        counts: documents.Counts = {}
        for document in corpus:
            documents.count(counts, document)
        self._possible = set(documents.frequent(counts))
        self._certain = set(documents.frequent(counts, documents.FREQUENT * self.n_workers))
        return corpus

    def check(self, argument: Any, result: Any) -> None:
        """What must be there is there, and nothing else than may be."""
        found = {beginning for part in result for beginning in part}
        if not self._certain <= found <= self._possible:
            raise WrongResultError("not the frequent beginnings")

    def whole_ways(self) -> dict[str, list[tuple[str, Way]]]:
        """State as each library has it."""
        n = self.n_workers
        return {
            SERIAL: [("", _serial)],
            "Pool": [("counts by the initializer", partial(_pool, n))],
            "ProcessPoolExecutor": [("counts by the initializer", partial(_executor, n))],
            "mpire": [("worker_state and worker_exit, as published", partial(_mpire, n))],
            "nbpar": [("", _nbpar)],
        }

    def kept_ways(self, argument: Any, team: Team, stack: ExitStack) -> dict[str, tuple[str, Way]]:
        """A run begins with empty counts."""
        ways: dict[str, tuple[str, Way]] = {
            "nbpar": ("nbpar.map", _nbpar_map),
            "joblib": ("counts in a global", partial(_joblib, self.n_workers)),
        }
        if team.has("Pool"):
            pool = stack.enter_context(forked_pool(self.n_workers))
            ways["Pool"] = ("counts in a global", lambda corpus: pool.map(_run_of_count(), corpus))
        if team.has("mpire"):
            import mpire

            kept = stack.enter_context(mpire.WorkerPool(self.n_workers, use_worker_state=True, keep_alive=True))
            ways["mpire"] = ("worker_state", partial(_mpire_kept, kept))
        return ways


def _run_of_count() -> Any:
    return partial(documents.count_in_run, next(_runs))


def _serial(corpus: Corpus) -> Any:
    counts: documents.Counts = {}
    return [documents.count(counts, document) for document in corpus]


def _nbpar(corpus: Corpus) -> Any:
    with nbpar.WorkerPool() as pool:
        counts = nbpar.per_worker(documents.Counts)
        return pool.map(lambda document: documents.count(counts(), document), corpus)


def _nbpar_map(corpus: Corpus) -> Any:
    counts = nbpar.per_worker(documents.Counts)
    return nbpar.map(lambda document: documents.count(counts(), document), corpus)


def _pool(n_workers: int, corpus: Corpus) -> Any:
    with forked_pool(n_workers, documents.begin_counting) as pool:
        return pool.map(documents.count_here, corpus)


def _executor(n_workers: int, corpus: Corpus) -> Any:
    with forked_executor(n_workers, documents.begin_counting) as executor:
        return list(executor.map(documents.count_here, corpus))


def _mpire(n_workers: int, corpus: Corpus) -> Any:
    import mpire

    with mpire.WorkerPool(n_jobs=n_workers, use_worker_state=True) as pool:
        pool.map(
            documents.count_in_state,
            [(document,) for document in corpus],  # a list by itself would be unpacked
            worker_init=documents.begin_state,
            worker_exit=documents.frequent_in_state,
        )
        return pool.get_exit_results()


def _mpire_kept(pool: Any, corpus: Corpus) -> Any:
    run = next(_runs)
    return pool.map(documents.count_in_run_and_state, [(run, document) for document in corpus])


def _joblib(n_workers: int, corpus: Corpus) -> Any:
    import joblib

    task = joblib.delayed(_run_of_count())
    return joblib.Parallel(n_jobs=n_workers)(task(document) for document in corpus)
