"""The parts of `make shots` that need no browser: the cells, the terminal's page, the size of a file."""

from __future__ import annotations

import ast
import io
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.unit.terminals import Terminal
from tools.shots import cells, png
from tools.shots.terminal import page_of


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal(40, 5)
    yield terminal
    terminal.close()


@pytest.mark.parametrize("name", sorted(name for name in cells.__all__ if not name.startswith("N_")))
def test_each_cell_is_python(name: str) -> None:
    text = getattr(cells, name)
    first, _, below = text.partition("\n")
    assert ast.parse(below if first.startswith("%%") else text).body


def test_the_readings_that_fail_are_among_the_stations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _s: None)
    namespace: dict[str, object] = {}
    exec(cells.SETUP.replace("nbpar.configure(n_workers=4)", ""), namespace)
    stations, parse = namespace["stations"], namespace["parse"]
    assert isinstance(stations, list)
    assert len(set(stations)) == cells.N_STATIONS
    namespace["fetch"] = lambda _station: 0.0
    failed = []
    for station in stations:
        try:
            parse(station)  # type: ignore[operator]  # a function of the cell
        except ValueError:
            failed.append(station)
    assert failed == ["Quito-1", "Perth-4", "Hanoi-6", "Lagos-10"]


def test_a_terminal_is_drawn_in_its_colours_and_its_text_stays_text(terminal: Terminal) -> None:
    print("plain \x1b[32mgreen\x1b[0m \x1b[1;38;2;255;135;0m<b>bold</b>\x1b[0m", file=terminal.file)
    terminal.shown()
    (line,) = terminal.styled()
    assert [run for run in line if run[0].strip()] == [
        ("plain ", "default", False),
        ("green", "green", False),
        ("<b>bold</b>", "ff8700", True),
    ]
    page = page_of([line])
    assert "plain <span style='color:#4cc38a'>green</span>" in page
    assert "<span style='color:#ff8700;font-weight:bold'>&lt;b&gt;bold&lt;/b&gt;</span></pre>" in page


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def test_a_picture_of_few_colours_stays_as_it_is_and_gets_small(tmp_path: Path) -> None:
    picture = Image.new("RGB", (300, 200), "#ffffff")
    for x in range(0, 300, 10):
        picture.paste((59, 125, x % 256), (x, 20, x + 7, 180))
    path = tmp_path / "lanes.png"
    n_bytes = png.write(path, _png(picture))
    assert n_bytes == path.stat().st_size < 3_000
    with Image.open(path) as small:
        assert small.convert("RGB").tobytes() == picture.tobytes()


def test_a_picture_that_is_too_large_is_refused(tmp_path: Path) -> None:
    noise = Image.frombytes("L", (600, 600), random.Random(0).randbytes(360_000))
    with pytest.raises(ValueError, match=r"noise\.png takes .* bytes, more than 150,000"):
        png.write(tmp_path / "noise.png", _png(noise))
    assert not (tmp_path / "noise.png").exists()
