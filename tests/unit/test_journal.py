"""The checkpoint file: what is written stays, what is not nbpar's is refused and left as it is."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbpar.errors import CheckpointError
from nbpar.store import files, journal
from nbpar.store.journal import Journal, describe

PARTS = {"f()": "1"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sweep.db"


@contextlib.contextmanager
def opened(path: Path, name: str = "f", fingerprint: bytes = b"1") -> Iterator[Journal]:
    new = Journal(path)
    try:
        new.begin(name, fingerprint, PARTS)
        yield new
    finally:
        new.close()


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, byte by byte; -shm is but SQLite's index of -wal."""
    found = (one for one in folder.iterdir() if one.is_file() and not one.name.endswith("-shm"))
    return {one.name: one.read_bytes() for one in found}


# --- what is written --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)  # each closes a file up to six times, and the disk may be slow
@given(st.lists(st.dictionaries(st.integers(0, 50), st.binary(max_size=9000), min_size=1), max_size=6))
def test_results_are_found_as_they_were_last_put(batches: list[dict[int, bytes]]) -> None:
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"nbpar-test-{os.getpid()}"
    folder.mkdir()
    try:
        expected: dict[bytes, bytes] = {}
        for batch in batches:
            with opened(folder / "a.db") as one:
                rows = {key(number): value for number, value in batch.items()}
                one.put(rows.items())
                expected.update(rows)
                assert one.find([key(number) for number in range(51)]) == expected
        assert sorted(contents(folder)) == (["a.db"] if batches else [])
    finally:
        shutil.rmtree(folder)


def test_functions_and_their_versions_do_not_mix(path: Path) -> None:
    with opened(path) as one, opened(path, "f", b"2") as other, opened(path, "g", b"3") as third:
        one.put([(key(1), b"one")])
        other.put([(key(1), b"other")])
        assert [each.find([key(1)]) for each in (one, other, third)] == [{key(1): b"one"}, {key(1): b"other"}, {}]
        assert [each.is_empty for each in (one, other, third)] == [False, False, True]


def test_another_version_that_has_results_is_told_once(path: Path) -> None:
    with opened(path) as one:
        one.put([(key(1), b""), (key(2), b"")])
    with contextlib.closing(Journal(path)) as new:
        before = new.begin("f", b"2", {"f()": "2"})
        assert before is not None
        assert (before.n_results, dict(before.parts)) == (2, PARTS)
    with contextlib.closing(Journal(path)) as new:
        assert new.begin("f", b"2", {}) is None  # it is known by now
        assert new.begin("g", b"3", {}) is None  # another function


def test_a_file_is_its_owners_alone(path: Path) -> None:
    old = os.umask(0)
    try:
        with opened(path) as one:
            one.put([(key(1), b"1")])
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(old)
    assert modes == {"sweep.db": 0o600, "sweep.db-wal": 0o600, "sweep.db-shm": 0o600}


def test_nothing_is_left_beside_a_closed_file(path: Path) -> None:
    with opened(path) as one:
        one.put([(key(1), b"1")])
    describe(path)
    files.check(path)
    assert [one.name for one in path.parent.iterdir()] == ["sweep.db"]


def test_nothing_is_left_beside_a_file_that_two_threads_close_at_once(path: Path) -> None:
    for _ in range(100):
        one = Journal(path)
        one.begin("f", b"1", PARTS)
        other = one.twin()
        both = threading.Barrier(2)

        def close(mine: Journal, both: threading.Barrier = both) -> None:
            both.wait()
            mine.close()

        threads = [threading.Thread(target=close, args=(mine,)) for mine in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [file.name for file in path.parent.iterdir()] == ["sweep.db"]


def test_a_journal_that_is_dropped_is_closed(path: Path) -> None:
    one = Journal(path)
    one.begin("f", b"1", PARTS)
    del one
    gc.collect()
    assert [one.name for one in path.parent.iterdir()] == ["sweep.db"]


def test_a_damaged_result_is_not_found(path: Path) -> None:
    with opened(path) as one:
        one.put([(key(1), b"a" * 100), (key(2), b"b" * 100)])
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE results SET value = ? WHERE key = ?", (b"a" * 99 + b"x", key(1)))
    with opened(path) as one:
        assert one.find([key(1), key(2)]) == {key(2): b"b" * 100}


def test_a_result_is_put_with_all_of_its_report_or_not_at_all(path: Path) -> None:
    with opened(path) as one:
        with pytest.raises(sqlite3.Error):
            one.put([(key(1), b"1"), (None, b"2")])  # type: ignore[list-item]
        assert one.find([key(1)]) == {}
        one.put([(key(1), b"1")])
        assert one.find([key(1)]) == {key(1): b"1"}


def test_a_full_disk_is_an_error_and_keeps_what_was_there(path: Path) -> None:
    with opened(path) as one:
        one.put([(key(1), b"1")])
        (n_pages,) = one._db.execute("PRAGMA page_count").fetchone()
        one._db.execute(f"PRAGMA max_page_count={n_pages}")
        with pytest.raises(sqlite3.OperationalError, match="full"):
            one.put([(key(2), b"2" * 100_000)])
    with opened(path) as one:
        assert one.find([key(1), key(2)]) == {key(1): b"1"}


KILLED = """
import os, sys
from pathlib import Path
from nbpar.store.journal import Journal
one = Journal(Path(sys.argv[1]))
one.begin("f", b"1", {})
for number in range(300):
    one.put([(number.to_bytes(16, "big"), b"x" * number * 100)])
os.kill(os.getpid(), 9)
"""


def test_what_was_put_survives_a_kill(path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == -9
    assert (path.parent / "sweep.db-wal").stat().st_size > 0
    before = contents(path.parent)
    assert describe(path)[0].n_results == 300
    assert contents(path.parent) == before
    with opened(path) as one:
        found = one.find([key(number) for number in range(300)])
    assert found == {key(number): b"x" * number * 100 for number in range(300)}
    assert [one.name for one in path.parent.iterdir()] == ["sweep.db"]


def test_two_write_at_the_same_time(path: Path) -> None:
    def write(first: int) -> None:
        with opened(path) as one:
            for number in range(first, 400, 2):
                one.put([(key(number), str(number).encode())])

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with opened(path) as one:
        assert len(one.find([key(number) for number in range(400)])) == 400


def test_many_make_the_same_file_at_the_same_time(path: Path) -> None:
    barrier = threading.Barrier(8)
    errors: list[BaseException] = []

    def make(number: int) -> None:
        barrier.wait()
        try:
            with opened(path) as one:
                one.put([(key(number), b"1")])
        except Exception as error:  # noqa: BLE001  # whatever it was, it is looked at below
            errors.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert describe(path)[0].n_results == 8
    assert [one.name for one in path.parent.iterdir()] == ["sweep.db"]


def test_the_log_of_a_file_that_was_removed_does_not_come_back(path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    path.unlink()
    with opened(path) as one:
        assert one.is_empty
    assert describe(path)[0].n_results == 0


def test_a_file_system_without_hard_links_will_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", no_links)
    with opened(path) as one:
        one.put([(key(1), b"1")])
    assert [one.name for one in path.parent.iterdir()] == ["sweep.db"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_of_a_fork_leaves_the_file_alone(path: Path) -> None:
    with opened(path) as one:
        one.put([(key(1), b"1")])
        child = os.fork()
        if child == 0:
            del one
            gc.collect()
            os._exit(len(journal._inherited))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        assert (path.parent / "sweep.db-wal").exists()
        one.put([(key(2), b"2")])
    with opened(path) as one:
        assert len(one.find([key(1), key(2)])) == 2


# --- what is refused --------------------------------------------------------------------------------------------------


def filled(path: Path, n_bytes: int = 100_000) -> None:
    with opened(path) as one:
        one.put((key(number), b"x" * 1000) for number in range(n_bytes // 1000))


def _text(path: Path) -> None:
    path.write_text("a,b\n1,2\n" * 1000)


def _empty(path: Path) -> None:
    path.touch()


def _short(path: Path) -> None:
    filled(path)
    path.write_bytes(path.read_bytes()[:50])


def _truncated(path: Path) -> None:
    filled(path)
    path.write_bytes(path.read_bytes()[:-5000])


def _half_a_page(path: Path) -> None:
    filled(path)
    path.write_bytes(path.read_bytes()[:-100])


def _overwritten(path: Path) -> None:
    filled(path)
    data = bytearray(path.read_bytes())
    data[8192:16384] = b"\xaa" * 8192
    path.write_bytes(data)


def _header_overwritten(path: Path) -> None:
    filled(path)
    data = bytearray(path.read_bytes())
    data[:16] = b"\0" * 16
    path.write_bytes(data)


def _foreign(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE moz_places (id INTEGER PRIMARY KEY)")


def _foreign_with_log(path: Path) -> None:
    code = (
        "import sqlite3, sys, os\nc = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA journal_mode=WAL')\nc.execute('CREATE TABLE t (a)')\nos.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.with_name("sweep.db-wal").stat().st_size


def _newer(path: Path) -> None:
    filled(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=2")


def _more_tables(path: Path) -> None:
    filled(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE VIEW more AS SELECT * FROM results")


def _torn_beside_its_log(path: Path) -> None:
    filled(path)
    code = KILLED.replace("range(300)", "range(3)")
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xaa" * (len(data) - 4096))


def _writable_by_the_group(path: Path) -> None:
    filled(path)
    path.chmod(0o660)


def _writable_by_all(path: Path) -> None:
    filled(path)
    path.chmod(0o602)


def _log_writable_by_all(path: Path) -> None:
    filled(path)
    path.with_name("sweep.db-wal").touch()
    path.with_name("sweep.db-wal").chmod(0o666)


REFUSED = {
    _text: "no checkpoint",
    _empty: "empty",
    _short: "too short",
    _truncated: "damaged|its end is missing",
    _half_a_page: "damaged|its end is missing",
    _overwritten: "damaged",
    _header_overwritten: "no checkpoint",
    _foreign: "of another program",
    _foreign_with_log: "of another program",
    _newer: "newer version",
    _more_tables: "tables",
    _torn_beside_its_log: "damaged",
    _writable_by_the_group: "by others.*chmod go-w sweep.db",
    _writable_by_all: "by others",
    _log_writable_by_all: "sweep.db-wal beside it may be written by others",
}


@pytest.mark.parametrize(("spoil", "why"), REFUSED.items(), ids=[spoil.__name__[1:] for spoil in REFUSED])
def test_a_file_that_is_no_checkpoint_is_refused_and_left_as_it_is(
    path: Path, spoil: Callable[[Path], None], why: str
) -> None:
    spoil(path)
    before, mode = contents(path.parent), path.stat().st_mode
    with pytest.raises(CheckpointError, match=f"(?s)^{path} cannot be the checkpoint: .*({why}).*left as it is"):
        Journal(path)
    assert contents(path.parent) == before
    assert path.stat().st_mode == mode


@pytest.mark.parametrize("spoil", [_text, _empty, _short, _truncated, _overwritten, _foreign, _newer, _more_tables])
def test_what_is_no_checkpoint_is_not_described(path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(path)
    before = contents(path.parent)
    with pytest.raises(CheckpointError):
        describe(path)
    assert contents(path.parent) == before


def test_a_folder_a_pipe_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="it is a folder"):
        Journal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="not a regular file"):
        Journal(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match=r"cannot be made: .*No such file or directory"):
        Journal(tmp_path / "no" / "sweep.db")
    with pytest.raises(CheckpointError, match="no such file"):
        describe(tmp_path / "none.db")
    assert [one.name for one in tmp_path.iterdir()] == ["pipe"]


def test_a_file_of_another_user_is_refused_but_described(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(CheckpointError, match="belongs to another user"):
        Journal(path)
    assert describe(path)[0].n_results == 100


def test_a_file_that_may_not_be_written_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write whatever the mode says
    with pytest.raises(CheckpointError, match="may not be read and written"):
        Journal(path)


def test_a_link_to_a_checkpoint_is_one(path: Path) -> None:
    filled(path)
    link = path.with_name("link.db")
    link.symlink_to(path)
    with opened(link) as one:
        assert not one.is_empty


def test_a_file_that_another_kernel_uses_is_not_refused(path: Path) -> None:
    with opened(path) as one:
        for number in range(200):
            one.put([(key(number), b"x" * 2000)])
            with opened(path) as other:
                assert not other.is_empty
