from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbpar.sizes import in_words, parse_size

SIZES = [
    ("2GB", 2_000_000_000),
    ("2 gb", 2_000_000_000),
    ("2G", 2_000_000_000),
    ("500MB", 500_000_000),
    ("500 m", 500_000_000),
    ("1.5 GiB", 3 << 29),
    (".5Gi", 1 << 29),
    ("3.KiB", 3 << 10),
    ("7 kB", 7000),
    ("1TB", 10**12),
    ("1 TiB", 1 << 40),
    ("12345", 12345),
    (" 12345 B ", 12345),
    ("9007199254740993", 9007199254740993),  # not by way of a float
]

NO_SIZES = [
    "",
    "GB",
    "2 GBs",
    "2 PB",
    "-2GB",
    "2,5 GB",
    "1e9",
    "2 ib",
    "i",
    "two GB",
    "2 G B",
    "٢GB",
    "inf",
    "nan",
    ".",
]


@pytest.mark.parametrize(("text", "n_bytes"), SIZES)
def test_size_is_read_when_it_has_a_known_unit(text: str, n_bytes: int) -> None:
    assert parse_size(text) == n_bytes


@pytest.mark.parametrize("text", NO_SIZES)
def test_size_is_refused_when_it_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a loaded machine
@given(st.integers(0, 10**18))
def test_words_tell_the_size_to_two_figures(n_bytes: int) -> None:
    told = parse_size(in_words(n_bytes).replace("bytes", "B"))
    assert abs(told - n_bytes) <= n_bytes * 0.05


@pytest.mark.parametrize(
    ("n_bytes", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (2_300_000_000, "2.3 GB"),
        (10**15, "1000 TB"),
    ],
)
def test_words_change_to_the_next_unit_when_the_number_gets_long(n_bytes: int, words: str) -> None:
    assert in_words(n_bytes) == words
