"""What ``job.insights`` gives: the job's numbers with a table for people and a frame for further work.

The numbers are worked out in :mod:`nbpar.engine.insights`; the table is drawn by :mod:`nbpar.views.table`. Made by
:class:`nbpar.job.Job`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbpar.engine.insights import Insights, WorkerRow
from nbpar.views.table import insights_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["JobInsights"]


class JobInsights(Insights):
    """Where a job's time went, in numbers; printed, or as a cell's last expression, it is a table.

    Attributes are those of :class:`nbpar.engine.insights.Insights`: `serial_s`, `speedup`, `efficiency`, `workers` and
    others.

    Examples
    --------
    >>> import nbpar, time
    >>> with nbpar.WorkerPool(n_workers=2, start_method="threads") as pool:
    ...     job = pool.map_async(time.sleep, [0.2, 0.01, 0.01])
    ...     _ = job.result()
    >>> told = job.insights
    >>> told.n_done, told.serial_s > 0.2, told.slowest[0].item_repr
    (3, True, '0.2')
    >>> [worker.worker_id for worker in told.workers]
    [0, 1]
    """

    __slots__ = ()

    def to_frame(self) -> pd.DataFrame:
        """One row per worker, with `worker_id` as its index.

        Returns
        -------
        pandas.DataFrame
            Its columns are the fields of :class:`nbpar.engine.insights.WorkerRow`; what is not known is NaN.

        Raises
        ------
        ImportError
            Without pandas.

        Examples
        --------
        >>> import nbpar
        >>> with nbpar.WorkerPool(start_method="serial") as pool:
        ...     job = pool.map_async(abs, [-1, -2])
        >>> frame = job.insights.to_frame()
        >>> int(frame.loc[0, "n_done"]), int(frame["sent_bytes"].sum())
        (2, 0)
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "job.insights.to_frame() needs pandas (pip install pandas); job.insights.workers has the same rows "
                "without it"
            ) from error
        frame = pd.DataFrame([row._asdict() for row in self.workers], columns=list(WorkerRow._fields))
        return frame.astype({"peak_memory_bytes": float, "cpu": float}).set_index("worker_id")

    def __repr__(self) -> str:
        return f"<JobInsights of {self.name!r}, {self.status} with {self.n_done:,} tasks; print it for its table>"

    def __str__(self) -> str:
        return insights_text(self)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """What a notebook shows where this is a cell's last expression: the table."""
        from nbpar.views.report import insights_to_html  # where nobody looks at it, it is not loaded

        return {"text/html": insights_to_html(self), "text/plain": str(self)}
