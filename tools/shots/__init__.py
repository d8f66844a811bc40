"""``python -m tools.shots``: the pictures in ``docs/images``, taken of real jobs (``make shots``).

Most are cells of a notebook in JupyterLab, with a kernel and workers of their own; `saved.png` is what a saved notebook
shows where no JavaScript runs, `terminal.png` a pseudo terminal. The tasks wait, as downloads do, so that two cores can
show four workers, or 128; how long each waits depends on its item alone.

`cells` has the code of the notebooks, `lab` takes their pictures, `terminal` that of the terminal, `png` makes them
small.
"""
