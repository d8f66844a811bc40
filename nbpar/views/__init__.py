"""Views draw snapshots: this package owns everything a user sees of a job, and nothing of the job itself.

General layout: :func:`choose` picks a view when there is something to show, :mod:`~nbpar.views.ticker` keeps it up to
date, :mod:`~nbpar.views.dashboard`, :mod:`~nbpar.views.text` and :mod:`~nbpar.views.plain` are the views,
:mod:`~nbpar.views.report` is the picture that stays. The optional dependencies (anywidget, IPython, tqdm) are imported
by the one view that needs them, when it is first drawn.
"""

from nbpar.views.choice import choose
from nbpar.views.controls import Controls

__all__ = ["Controls", "choose"]
