"""Execute a notebook from top to bottom, headless, and print what its cells tagged ``headline`` wrote.

``python tools/run_notebook.py notebooks/quickstart.ipynb build/demo`` leaves the executed notebook and an HTML copy in
``build/demo``. The Makefile's ``demo`` and the test of ``binder/`` call it, so it needs no more than the ``lab`` extra.
A cell tagged ``raises-exception`` may fail; any other failure ends the run with that cell's error.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter


def main() -> int:
    """Run the notebook that the command line names; 0 when every cell did what its tags allow."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--timeout", type=float, default=300, metavar="S", help="longest run of one cell, in seconds")
    args = parser.parse_args()

    notebook = nbformat.read(args.notebook, as_version=4)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    executed = args.output_dir / args.notebook.name
    client = NotebookClient(
        notebook,
        timeout=args.timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(args.notebook.parent.resolve())}},
    )
    started_s = time.perf_counter()
    try:
        # ipykernel logs warnings about its transport to the terminal, which is not where a first look should start.
        with (args.output_dir / "kernel.log").open("wb") as log:
            client.execute(stdout=log, stderr=log)
    except CellExecutionError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        # Also after a failure: what the cells before it showed is the first thing to look at.
        nbformat.write(notebook, executed)
    page, _ = HTMLExporter().from_notebook_node(notebook)
    executed.with_suffix(".html").write_text(page, encoding="utf-8")

    n_cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    print(f"{args.notebook}: {n_cells} cells ran in {time.perf_counter() - started_s:.0f} s.")
    for cell in notebook.cells:
        if "headline" in cell.metadata.get("tags", []):
            print(_printed(cell), end="")
    return 0


def _printed(cell: Any) -> str:
    """What a cell wrote to its standard output."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")


if __name__ == "__main__":
    sys.exit(main())
