"""The pool and tqdm's maps in a real kernel: functions and globals of other cells, and the card by its name."""

from __future__ import annotations

from pathlib import Path

from tests.notebook.kernels import Result, ipykernels, start_kernel


def cards(result: Result) -> str:
    return "".join(str(bundle.get("text/html", "")) for bundle in result.displays)


def test_pools_and_maps_of_a_notebook_have_their_cells_functions_and_cards(tmp_path: Path) -> None:
    with start_kernel(tmp_path, pythonpath=next(iter(ipykernels().values()))) as kernel:
        kernel.run(
            "import time\nfrom nbpar.interop.multiprocessing import Pool\nfrom nbpar.interop.tqdm import process_map"
        )
        kernel.run("rate = None\ndef begin(value):\n    global rate\n    rate = value")
        kernel.run("def price(x):\n    time.sleep(0.2)\n    return rate * x")
        kernel.run("pool = Pool(2, begin, (3,))")
        priced = kernel.run("pool.map(price, range(5), chunksize=1)")
        assert priced.value == "[0, 3, 6, 9, 12]"
        assert "map price" in cards(priced)
        streamed = kernel.run("list(pool.imap_unordered(price, iter([1, 1, 1, 1]), name='streamed prices'))")
        assert streamed.value == "[3, 3, 3, 3]"
        assert "streamed prices" in cards(streamed)
        kernel.run("pool.terminate()")
        kernel.run("import nbpar\nnbpar.configure(n_workers=2)")
        mapped = kernel.run("process_map(lambda x: time.sleep(0.3) or x, [1, 2, 3, 4], desc='naps', unit='nap')")
        assert mapped.value == "[1, 2, 3, 4]"
        assert "naps" in cards(mapped)
        assert "nap/s" not in mapped.stderr
