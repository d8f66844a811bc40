"""What nbpar does not open, show or run: ports, sockets of others, secrets, pickles of others, markup of others."""

from __future__ import annotations

import logging
import os
import pickle
import re
import sqlite3
import stat
import subprocess
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import psutil
import pytest

import nbpar
from nbpar.engine.events import Failure, OutputLine, SlowTask
from nbpar.engine.snapshot import Snapshot
from nbpar.notebook.status import status_text
from nbpar.store import files
from nbpar.store.journal import Journal
from nbpar.views import report, wording
from nbpar.views.scene import Scene
from tests.backends.conftest import PROCESSES
from tests.helpers import until
from tests.notebook.kernels import Kernel, start_kernel

# --- sockets ----------------------------------------------------------------------------------------------------------

NETWORK = ("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6")

needs_proc = pytest.mark.skipif(not Path("/proc/net/unix").exists(), reason="looks into Linux's /proc")


def sockets(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:  # closed meanwhile
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def network_inodes() -> set[str]:
    """Of all sockets of this machine that have to do with a network, whatever their state."""
    found = set()
    for kind in NETWORK:
        table = Path("/proc/net", kind)
        if table.exists():
            found |= {line.split()[9] for line in table.read_text().splitlines()[1:]}
    return found


def unix_paths() -> dict[str, str]:
    """The addresses of sockets that have one, by inode; an abstract one begins with ``@``."""
    rows = (line.split(maxsplit=7) for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    return {row[6]: row[7] for row in rows if len(row) == 8}


def family(pid: int) -> list[int]:
    """A process and all below it: workers and the fork server."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


@pytest.fixture(params=PROCESSES)
def inodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[set[str]]:
    """The sockets that a pool has made in all its processes, while its two workers run a task."""
    gate = tmp_path / "gate"

    def task(x: int) -> int:
        (tmp_path / f"begun-{x}").touch()
        until(gate.exists)
        return x

    before = sockets(os.getpid())
    with nbpar.WorkerPool(n_workers=2, start_method=request.param) as pool:
        job = pool.map_async(task, range(2), chunk_size=1, progress=False)
        until(lambda: len(list(tmp_path.glob("begun-*"))) == 2)
        workers = [psutil.Process(pid) for pid in pool.pids().values()]
        processes = {os.getpid(), *(one.pid for one in workers), *(one.ppid() for one in workers)}
        assert len(processes) == (4 if request.param == "forkserver" else 3)
        yield {inode for pid in processes for inode in sockets(pid)} - before
        gate.touch()
        assert job.result() == [0, 1]


@needs_proc
def test_no_process_has_a_network_socket_while_a_pool_works(inodes: set[str]) -> None:
    assert len(inodes) >= 4, "each worker has one, and so has the kernel for it"
    assert inodes & network_inodes() == set()


@needs_proc
def test_sockets_have_no_address_or_lie_in_a_folder_of_this_user_alone(inodes: set[str]) -> None:
    for address in [path for inode, path in unix_paths().items() if inode in inodes]:
        assert not address.startswith("@"), "an abstract socket is open to every user of the machine"
        file, folder = Path(address).stat(), Path(address).parent.stat()
        assert file.st_uid == folder.st_uid == os.geteuid()
        assert stat.S_IMODE(folder.st_mode) == 0o700
        assert not file.st_mode & (stat.S_IRWXG | stat.S_IRWXO)


@needs_proc
def test_a_notebook_listens_to_nothing_more_while_the_dashboard_is_open(tmp_path: Path) -> None:
    with start_kernel(tmp_path) as kernel:
        kernel.run("import ipywidgets, anywidget")
        (before,) = (sockets(pid) & network_inodes() for pid in [kernel.process.pid])
        assert before, "the kernel's own ports, by which the front end speaks to it"
        kernel.run("import nbpar, time, pathlib\nnbpar.configure(n_workers=2)")
        gate = tmp_path / "gate"
        cell = kernel.start(
            "def task(x):\n"
            f"    pathlib.Path({str(tmp_path)!r}, f'begun-{{x}}').touch()\n"
            f"    while not pathlib.Path({str(gate)!r}).exists():\n"
            "        time.sleep(0.01)\n"
            "    return x\n"
            "nbpar.map(task, range(2), chunk_size=1)"
        )
        kernel.wait_until(lambda: any(m["msg_type"] == "comm_open" for m in kernel.comm_messages), what="the widget")
        until(lambda: len(list(tmp_path.glob("begun-*"))) == 2)
        children = family(kernel.process.pid)[1:]
        assert len(children) >= 2
        assert {inode for pid in children for inode in sockets(pid)} & network_inodes() == set()
        assert sockets(kernel.process.pid) & network_inodes() <= before
        gate.touch()
        assert cell.wait().value == "[0, 1]"


# --- descriptors and files --------------------------------------------------------------------------------------------

LIST_DESCRIPTORS = """
import os
for number in os.listdir("/proc/self/fd"):
    if int(number) > 2 and os.path.exists(f"/proc/self/fd/{number}"):  # the folder that was listed is closed by now
        print(os.readlink(f"/proc/self/fd/{number}"))
"""


def inherited_by_a_program() -> set[str]:
    """What a program that is started here has open beside its three streams."""
    command = [sys.executable, "-S", "-c", LIST_DESCRIPTORS]
    found = subprocess.run(command, close_fds=False, capture_output=True, text=True, check=True)
    return set(found.stdout.splitlines())


@needs_proc
@pytest.mark.parametrize("method", PROCESSES)
def test_programs_that_tasks_start_inherit_nothing_of_the_workers(method: Any) -> None:
    np = pytest.importorskip("numpy")
    big = nbpar.share(np.arange(100_000))

    def task(x: int, array: Any, shared: Any) -> tuple[set[str], Any]:
        return inherited_by_a_program(), array + shared[:1]

    with nbpar.WorkerPool(n_workers=1, start_method=method) as pool:
        items = [(x, np.ones(200_000), big) for x in range(2)]
        results = [pool.starmap(task, items, chunk_size=1) for _ in range(3)]
    found = results[-1][-1][0]  # in the first there is no memory for results yet
    assert found - inherited_by_a_program() == set()


@pytest.mark.parametrize("method", PROCESSES)
def test_nothing_that_others_may_read_is_written_to_a_disk(method: Any, tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    before = os.umask(0)  # the most careless user
    tempdir = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(tmp_path)
    try:
        with nbpar.WorkerPool(n_workers=1, start_method=method, env={"TMPDIR": str(tmp_path)}) as pool:
            path = tmp_path / "kept.db"
            pool.map(lambda x: x, [np.ones(100_000)] * 3, checkpoint=path)
            seen = [one for one in tmp_path.rglob("*") if one.name != "pytest"]
            job = pool.map_async(until_gone, [str(tmp_path / "gate")], checkpoint=path, progress=False)
            seen += list(tmp_path.glob("kept.db*"))
            (tmp_path / "gate").touch()
            job.result()
    finally:
        os.umask(before)
        os.environ.pop("TMPDIR")
        if tempdir is not None:
            os.environ["TMPDIR"] = tempdir
    assert any(one.name.endswith("-wal") for one in seen), "a log beside the file, while a job runs"
    others = [one for one in seen if one.exists() and one.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]
    assert others == []


def until_gone(gate: str) -> bool:
    until(Path(gate).exists)
    return True


# --- secrets ----------------------------------------------------------------------------------------------------------

SECRET = "s3cr3t-t0k3n-of-the-user"


def everything_said(error: BaseException) -> str:
    """All that an error tells: its repr, its text, its traceback with the chain."""
    said = [repr(error), str(error), *traceback.format_exception(error, chain=True)]
    for one in getattr(error, "errors", ()):
        said += [repr(one), one.remote_traceback]
    return "\n".join(said)


@pytest.mark.parametrize("method", PROCESSES)
def test_secrets_of_the_environment_are_shown_nowhere(method: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []

    def fail(x: int) -> int:
        if os.environ["NBPAR_TEST_TOKEN"] != SECRET:
            raise AssertionError("it did not arrive")
        raise ValueError(x)

    def die(x: int) -> None:
        os._exit(3)

    env = {"NBPAR_TEST_TOKEN": SECRET}
    with nbpar.WorkerPool(n_workers=2, start_method=method, env=env) as pool:
        for function in (fail, die):
            with pytest.raises((ValueError, nbpar.WorkerDiedError)) as caught:
                pool.map(function, range(2), progress=False)
            said.append(everything_said(caught.value))
        until(lambda: len(pool.pids()) == 2)
        said += [" ".join(psutil.Process(pid).cmdline()) for pid in family(os.getpid())[1:]]
        jobs = nbpar.jobs()[-2:]
        said += [repr(pool), repr(pool.options), str(vars(pool)), status_text([pool], jobs)]
        for job in jobs:
            snapshot = job.snapshot()
            said += [repr(job), repr(snapshot), report.to_html(snapshot), report.to_text(snapshot)]
            said.append(repr(Scene().change(snapshot, cell_is_running=True)))
    with pytest.raises(nbpar.OptionsError) as refused:
        nbpar.WorkerPool(start_method=method, env=env, n_workers=-1)
    said += [everything_said(refused.value), caplog.text]
    assert all(said[:-1])
    assert SECRET not in "\n".join(said)


@pytest.mark.parametrize("where", ["init", "start"])
def test_secrets_are_not_in_the_error_of_workers_that_do_not_start(where: str) -> None:
    def init() -> None:
        raise RuntimeError("no connection")

    hooks: dict[str, Any] = {"worker_init": init} if where == "init" else {}
    env = {"NBPAR_TEST_TOKEN": SECRET} | ({"PYTHONHOME": "/nowhere"} if where == "start" else {})
    method: Any = "spawn" if where == "start" else "forkserver"
    with nbpar.WorkerPool(n_workers=1, start_method=method, env=env, **hooks) as pool:
        if where == "init":
            with pytest.raises(nbpar.WorkerStartError) as caught:
                pool.map(abs, [-1])
            assert SECRET not in everything_said(caught.value)
        else:
            assert pool.map(abs, [-1]) == [1], "the environment is set once the worker runs"


@pytest.mark.parametrize(
    "env",
    [
        {"NBPAR\0": SECRET},
        {"NBPAR": SECRET + "\0"},
        {"NB=PAR": SECRET},
        {"": SECRET},
        {"NBPAR": SECRET + "\ud800"},
        {"NBPAR\ud800": SECRET},
        {"NBPAR": [SECRET]},
        [("NBPAR", SECRET)],
    ],
    ids=ascii,
)
def test_what_cannot_be_an_environment_is_refused_without_showing_values(env: Any) -> None:
    with pytest.raises(nbpar.OptionsError) as caught:
        nbpar.WorkerPool(env=env)
    said = everything_said(caught.value)
    assert SECRET not in said
    assert "env" in str(caught.value)


# --- checkpoint files -------------------------------------------------------------------------------------------------


class Bomb:
    """As a pickle, runs a command when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


def double(x: int) -> int:
    return 2 * x


@pytest.fixture
def mined(tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint whose results are bombs, and the file that tells that one went off."""
    path, mark = tmp_path / "mined.db", tmp_path / "went-off"
    with nbpar.WorkerPool(start_method="serial") as pool:
        pool.map(double, range(3), checkpoint=path)
    bomb = pickle.dumps(Bomb(mark))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE results SET value = ?, crc = ?", (bomb, zlib.crc32(bomb)))
        connection.commit()
    return path, mark


def test_a_checkpoint_runs_nothing_when_it_is_opened_or_looked_into(mined: tuple[Path, Path]) -> None:
    path, mark = mined
    assert nbpar.checkpoint.info(path).n_results == 3
    assert "double" in repr(nbpar.checkpoint.info(path))
    journal = Journal(path)
    journal.begin("another", b"function", {})
    journal.close()
    with nbpar.WorkerPool(start_method="serial") as pool:
        assert pool.map(abs, range(3), checkpoint=path) == [0, 1, 2], "results of another function are not loaded"
    assert not mark.exists()
    with nbpar.WorkerPool(start_method="serial") as pool:
        pool.map(double, range(3), checkpoint=path)
    assert mark.exists(), "the bomb is none: this test says nothing"


def world_writable(path: Path) -> None:
    path.chmod(0o602)


def group_writable(path: Path) -> None:
    path.chmod(0o660)


def log_of_others(path: Path) -> None:
    log = path.with_name(path.name + "-wal")
    log.touch()
    log.chmod(0o622)


@pytest.mark.parametrize("spoil", [world_writable, group_writable, log_of_others])
@pytest.mark.parametrize("by_link", [False, True], ids=["file", "link"])
def test_a_checkpoint_that_others_may_write_is_refused_before_it_is_loaded(
    mined: tuple[Path, Path], spoil: Callable[[Path], None], by_link: bool
) -> None:
    path, mark = mined
    spoil(path)
    if by_link:
        link = path.parent / "elsewhere" / "link.db"
        link.parent.mkdir()
        link.symlink_to(path)
        path = link
    with nbpar.WorkerPool(start_method="serial") as pool, pytest.raises(nbpar.CheckpointError) as caught:
        pool.map(double, range(3), checkpoint=path)
    text = str(caught.value)
    assert "may be written by others" in text and f"chmod go-w {'mined.db' if '-wal' in text else path.name}" in text
    assert not mark.exists()


def test_a_checkpoint_of_another_user_is_refused_and_it_is_said_what_to_do(
    mined: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, mark = mined
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with nbpar.WorkerPool(start_method="serial") as pool, pytest.raises(nbpar.CheckpointError) as caught:
        pool.map(double, range(3), checkpoint=path)
    text = str(caught.value)
    assert "belongs to another user" in text and "loading results runs what stands in the file" in text
    assert "if you trust it: copy it" in text
    assert not mark.exists()


def test_a_checkpoint_that_is_exchanged_while_it_is_opened_is_refused(
    mined: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, mark = mined
    looked_at = files.check

    def check(path: Path) -> bool:
        there = looked_at(path)
        path.chmod(0o666)  # in the moment after the look, as somebody might put another file in its place
        return there

    monkeypatch.setattr("nbpar.store.journal.check", check)
    with nbpar.WorkerPool(start_method="serial") as pool, pytest.raises(nbpar.CheckpointError, match="by others"):
        pool.map(double, range(3), checkpoint=path)
    assert not mark.exists()


# --- markup -----------------------------------------------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"><svg onload='alert(1)'>",
    "</style></pre></code></details><b id=hostile>",
    "<!--",
    "]]><![CDATA[",
    "&lt;script&gt;&#60;b&#62;",
    "\x1b[31m\x1b[2J\x1b]0;title\x07\x9b1m",
    "\x00\x08\x7f\x85\u2028\u2029",
    "\u202eevil\u202c\u2066isolated\u2069\u061c\u200e\u200f",
    "\ud800 \ufffe",
]
TAGS = {"div", "strong", "span", "img", "table", "tr", "td", "th", "details", "summary", "code", "pre", "p"}
BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Markup(HTMLParser):
    """The tags, attributes and text of a page, as a browser takes them."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.others: list[str] = []
        self.words = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.words += data

    def handle_comment(self, data: str) -> None:
        self.others.append(data)

    def unknown_decl(self, data: str) -> None:
        self.others.append(data)


def hostile_snapshot(text: str) -> Snapshot:
    def task(x: object) -> None:
        raise ValueError(text)

    class Item:
        def __repr__(self) -> str:
            return text

    task.__name__ = task.__qualname__ = text
    with nbpar.WorkerPool(n_workers=1, start_method="threads") as pool:
        job = pool.map_async(task, [Item()], on_error="skip", progress=False)
        job.result()
    snapshot = job.snapshot()
    assert snapshot.n_failed == 1
    (failure,) = snapshot.failures
    odd = Failure(1, text, text, text, 0, text)
    return snapshot._replace(notes=(text,), failures=(failure, odd), n_failed=2)


def harmless_twin(snapshot: Snapshot) -> Snapshot:
    """The same job with plain words in all places."""
    words = [f"harmless {number}" for number in range(len(snapshot.failures))]
    return snapshot._replace(
        name="harmless",
        notes=("harmless",) * len(snapshot.notes),
        failures=tuple(
            Failure(failure.index, word, word, word, failure.worker_id, word)
            for failure, word in zip(snapshot.failures, words, strict=True)
        ),
        slowest=tuple(slow._replace(item_repr="harmless") for slow in snapshot.slowest),
    )


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_text_is_text_in_the_report(text: str) -> None:
    snapshot = hostile_snapshot(text)
    page = report.to_html(snapshot)
    page.encode()
    seen = Markup(page)
    assert set(seen.tags) <= TAGS and seen.others == []
    assert seen.attributes <= {"style", "alt", "width", "height", "src", "open", "align", "scope", "colspan"}
    harmless = Markup(report.to_html(harmless_twin(snapshot)))
    assert seen.tags == harmless.tags
    assert wording.clean(text).strip("\ufffd ")[:20] in seen.words
    for shown in (page, report.to_text(snapshot)):
        assert not BIDI.search(shown) and not CONTROL.search(shown.replace("\n", "").replace("\t", ""))


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_text_is_plain_when_it_goes_to_the_widget(text: str) -> None:
    scene = Scene()
    scene.write([OutputLine(0, 1, "stdout", text)])
    snapshot = hostile_snapshot(text)._replace(advice=(text,), slowest=(SlowTask(0, 1.0, 0, text),))
    message = scene.change(snapshot, cell_is_running=True)
    shown = [message["name"], *message["notes"], *message["advice"], message["slowest"][0][3]]
    shown += message["lines"][0][3].splitlines()
    for _, item, error, _, trace in message["failures"]:
        shown += [item, error, *trace.splitlines()]
    assert len(shown) > 10
    for part in shown:
        part.encode()
        assert part.isprintable() and not BIDI.search(part), "and the front end only ever sets it as text"


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    with start_kernel(tmp_path) as kernel:
        kernel.run("import nbpar\nnbpar.configure(n_workers=1, env={'NBPAR_TEST_TOKEN': 's3cr3t-' + 't0k3n'})")
        yield kernel


def test_verbose_tracebacks_of_a_notebook_do_not_show_the_environment(kernel: Kernel) -> None:
    kernel.run("%xmode Verbose")
    said = []
    for call in (
        "nbpar.map(lambda x: 1 / x, range(3))",
        "nbpar.map(lambda x: __import__('os')._exit(3), range(3))",
        "nbpar.map(abs, range(3), retries=-1)",
        "nbpar.configure(n_workers=-1, env={'NBPAR_TEST_TOKEN': 's3cr3t-' + 't0k3n'})",
    ):
        error = kernel.run(call, raises=True).error
        assert error is not None
        said.append(str(error))
    assert "s3cr3t-t0k3n" not in "\n".join(said) + kernel.terminal


def test_what_tasks_print_stays_text_in_a_notebook(kernel: Kernel) -> None:
    result = kernel.run("_ = nbpar.map(lambda x: print('<script>alert(1)</script>'), range(2), progress=False)")
    assert result.stdout.count("<script>alert(1)</script>\n") == 2
    assert not any("text/html" in data and "<script" in data["text/html"] for data in result.displays)
