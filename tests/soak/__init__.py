"""A soak: a mix of everything under random faults, for minutes, and books in which every task must be accounted for.

``make soak`` runs it, and ``python -m tests.soak --minutes 5 --seed 1``. The seed fixes what is run and what is done to
it; the moments are the machine's. `tests/promises/test_soak.py` runs a short one.
"""
