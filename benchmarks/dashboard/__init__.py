"""What the dashboard costs and how soon it shows what happened, in real kernels, JupyterLab, Notebook 7 and Chromium.

::

    study (this process)                          kernel                              Chromium
      live.py    opens a notebook, observes ──>  replay.py: 64 workers' events  ──>  paints, with the count they show
      overhead.py   pairs of runs           ──>  pairs.py: 1M tasks, card on and off
      cancel.py     clicks Cancel           ──>  a map that blocks

:mod:`benchmarks.dashboard.tick` measures what a tick costs without any of them.

Run by :mod:`benchmarks.studies.dashboard` (``make bench-dashboard``).
"""
