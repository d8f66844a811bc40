"""The code of the cells whose pictures are taken, and of the terminal's script.

The tasks wait, as downloads do. How long, and which of them fail, depends on the item alone.
"""

from __future__ import annotations

__all__ = [
    "CANCELLED",
    "DONE",
    "DRY_RUN",
    "FAILING",
    "MANY",
    "MANY_SETUP",
    "N_PAGES",
    "N_STATIONS",
    "PAUSED",
    "PROFILE",
    "PROFILE_SETUP",
    "REFUSED",
    "SETUP",
    "TERMINAL",
]

N_STATIONS = 240
N_PAGES = 4_000

SETUP = '''\
import random
import time

import numpy as np

import nbpar

nbpar.configure(n_workers=4)

cities = "Bergen Lagos Quito Osaka Turin Perth Tunis Davos Sofia Lyon Cusco Hanoi".split()
stations = [f"{city}-{number}" for number in range(20) for city in cities]


def fetch(station):
    """A slow service, and some work on what it sends."""
    rng = random.Random(station)
    time.sleep(rng.uniform(0.06, 0.4) * (3 if rng.random() < 0.06 else 1))
    rows = np.random.default_rng(1).normal(size=int(rng.uniform(0.5, 3.0) * 1e6))
    return rows.sum()


def parse(station):
    """Four readings cannot be read."""
    fetch(station)
    text = "n/a" if station in ("Quito-1", "Perth-4", "Hanoi-6", "Lagos-10") else "12.5"
    return float(text)
'''

DONE = """\
%%parallel
totals, largest = {}, 0.0
for station in stations:
    total = fetch(station)
    totals[station] = total
    largest = max(largest, total)\
"""
REFUSED = """\
%%parallel
warmer, before = [], 0.0
for station in stations:
    total = fetch(station)
    if total > before:
        warmer.append(station)
    before = total\
"""
DRY_RUN = DONE.replace("%%parallel", "%%parallel --dry-run")
FAILING = 'readings = nbpar.map(parse, stations, on_error="skip")'
PAUSED = "job = nbpar.map_async(fetch, stations)"
CANCELLED = "totals = nbpar.map(fetch, stations)"

MANY_SETUP = '''\
import random
import time

import nbpar


def wait_for_page(number):
    """A thread waits, as for a network; one page in six hundred is missing."""
    rng = random.Random(number)
    time.sleep(rng.uniform(0.2, 1.0))
    if number % 600 == 411:
        raise LookupError(f"page {number} is not there")
'''

MANY = f"""\
with nbpar.WorkerPool(n_workers=128, start_method="threads") as pool:
    pages = pool.map(wait_for_page, range({N_PAGES:_}), on_error="skip")\
"""

PROFILE_SETUP = """\
import numpy as np

import nbpar

nbpar.configure(n_workers=2)
"""

PROFILE = """\
def smooth(seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(500, 500))
    for _ in range(4):
        rows = np.sort(rows, axis=1)
        rows = rows @ rows.T / 500
    return rows.sum()

sums = nbpar.map(smooth, range(60), profile=True)\
"""

TERMINAL = """\
import random
import time

import nbpar

nbpar.configure(n_workers=4)


def download(number):
    rng = random.Random(number)
    for _ in nbpar.track(range(rng.randint(5, 40))):
        time.sleep(rng.uniform(0.01, 0.08))
    if number % 25 == 17:
        raise LookupError(f"page {number} is not there")


nbpar.map(download, range(80), on_error="skip", progress="detail")
"""
