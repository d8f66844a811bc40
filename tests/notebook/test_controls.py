"""Clicks as a front end sends them, and jobs that are shown again, in real kernels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.notebook.kernels import Cell, Kernel, Result, ipykernels, start_kernel

_VERSIONS = ipykernels()
_SETUP = """
import time, threading
from pathlib import Path
import nbpar
%load_ext nbpar
nbpar.configure(n_workers=2)
def wait_for(name):
    while not Path(name).exists():
        time.sleep(0.01)
def gated(x, name=None):
    wait_for(name or f"gate-{x}")
    return 10 * x
nbpar.map(abs, range(4))
"""
STATIC = {"text/html", "text/plain"}

_numbers = itertools.count()


@pytest.fixture(scope="module", params=list(_VERSIONS.values()), ids=list(_VERSIONS))
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """The kernel that all tests of this module share."""
    with start_kernel(tmp_path_factory.mktemp("session"), pythonpath=request.param) as kernel:
        kernel.run(_SETUP)
        yield kernel
        assert kernel.terminal == ""


class Job:
    """A job of tasks that end when the test says so."""

    def __init__(self, kernel: Kernel, n_tasks: int = 4) -> None:
        self.kernel = kernel
        self.gate = f"open-{next(_numbers)}"
        self.call = f"lambda x: gated(x, {self.gate!r}), range({n_tasks}), chunk_size=1, name={self.gate!r}"
        self.id = 0

    def open(self) -> None:
        """Let its tasks end."""
        Path(self.kernel.process.cwd(), self.gate).touch()

    def begin(self, code: str = "job = nbpar.map_async({call})") -> Cell:
        """Run a cell with the call, to its first card; the cell."""
        n_before = len(cards(self.kernel))
        cell = self.kernel.start(code.format(call=self.call))
        self.kernel.wait_until(lambda: len(cards(self.kernel)) > n_before, what="the card")
        self.id = cards(self.kernel)[-1].job_id
        return cell


class Card:
    """A card as its front end sees it."""

    def __init__(self, kernel: Kernel, opened: dict[str, Any]) -> None:
        self.kernel = kernel
        self.comm_id: str = opened["comm_id"]
        self.first: dict[str, Any] = opened["data"]["state"]["scene"]

    @property
    def job_id(self) -> int:
        return int(self.first["job"])

    @property
    def heard(self) -> list[dict[str, Any]]:
        """What the kernel has sent it."""
        contents = [message["content"] for message in self.kernel.comm_messages if message["msg_type"] == "comm_msg"]
        data = [content["data"] for content in contents if content["comm_id"] == self.comm_id]
        return [one["content"] for one in data if one.get("method") == "custom"]

    @property
    def scene(self) -> dict[str, Any]:
        """The last one."""
        scenes: list[dict[str, Any]] = [self.first, *(one["scene"] for one in self.heard if "scene" in one)]
        return scenes[-1]

    @property
    def is_closed(self) -> bool:
        messages = self.kernel.comm_messages
        return any(one["msg_type"] == "comm_close" and one["content"]["comm_id"] == self.comm_id for one in messages)

    def click(self, verb: str, job_id: int | None = None, subshell_id: str | None = None) -> None:
        """Send what a button sends."""
        content = {verb: self.job_id if job_id is None else job_id}
        self.kernel.send_comm(self.comm_id, {"method": "custom", "content": content}, subshell_id=subshell_id)

    def wait_heard(self, answer: dict[str, Any]) -> None:
        self.kernel.wait_until(lambda: answer in self.heard, what=str(answer))

    def wait_scene(self, **fields: Any) -> None:
        self.kernel.wait_until(lambda: fields.items() <= self.scene.items(), what=f"a scene with {fields}")


def cards(kernel: Kernel) -> list[Card]:
    """All that were ever shown."""
    opened = [message["content"] for message in kernel.comm_messages if message["msg_type"] == "comm_open"]
    return [Card(kernel, one) for one in opened if "can_cancel" in one["data"].get("state", {})]


def wait_shown(cell: Cell, text: str) -> Result:
    """Wait until a cell shows a text, also when it has ended."""
    cell.kernel.wait_until(lambda: text in str(cell.result.outputs), what=repr(text))
    return cell.result


# --- clicks -----------------------------------------------------------------------------------------------------------


def test_background_job_is_paused_resumed_and_cancelled_by_messages(session: Kernel) -> None:
    job = Job(session)
    job.begin().wait()
    card = cards(session)[-1]
    card.click("ping")
    card.wait_heard({"pong": job.id})
    card.click("pause")
    card.wait_heard({"ack": job.id, "of": "pause"})
    assert session.evaluate("job.status") == "paused"
    card.wait_scene(status="paused")
    card.click("resume")
    card.wait_heard({"ack": job.id, "of": "resume"})
    assert session.evaluate("job.status") == "running"
    card.click("cancel")
    session.wait_until(lambda: card.is_closed)
    assert session.evaluate("job.wait(20) and job.status") == "cancelled"


def test_click_of_another_or_an_ended_job_does_nothing(session: Kernel) -> None:
    first, second = Job(session), Job(session)
    first.begin("first = nbpar.map_async({call})").wait()
    old = cards(session)[-1]
    first.open()
    session.run("first.result()")
    session.wait_until(lambda: old.is_closed, what="the card's end")
    second.begin("second = nbpar.map_async({call})").wait()
    card = cards(session)[-1]
    for verb in ("pause", "cancel", "ping"):
        old.click(verb)  # late: the card is not there any more
        card.click(verb, first.id)
    card.click("ping")
    card.wait_heard({"pong": second.id})
    assert [one for one in card.heard if "scene" not in one] == [{"pong": second.id}]
    assert session.evaluate("[first.status, second.status]") == ["done", "running"]
    second.open()
    assert session.run("second.result()").value == "[0, 10, 20, 30]"


def test_message_is_heard_while_a_cell_blocks_where_the_kernel_has_it_on_a_subshell(session: Kernel) -> None:
    subshell_id = session.create_subshell()
    # ipykernel 7.4 answers a widget on the shell that it last spoke from; that is a cell's here.
    is_heard = subshell_id is not None and session.evaluate("__import__('ipykernel').version_info[:2] < (7, 4)")
    job = Job(session)
    cell = job.begin("print(nbpar.map({call}))")
    card = cards(session)[-1]
    card.click("ping", subshell_id=subshell_id)
    card.wait_scene(cell_is_running=True)
    if is_heard:
        card.wait_heard({"pong": job.id})
        card.click("pause", subshell_id=subshell_id)
        card.wait_scene(status="paused")
        card.click("resume", subshell_id=subshell_id)
        card.wait_scene(status="running")
    else:
        n_seen = len(card.heard)
        session.wait_until(lambda: len(card.heard) > n_seen + 5)
        assert [one for one in card.heard if "scene" not in one] == []
    assert not cell.done
    job.open()
    assert cell.wait().stdout == "[0, 10, 20, 30]\n"


def test_click_is_heard_while_a_cell_awaits_a_job(session: Kernel) -> None:
    subshell_id = session.create_subshell()  # what JupyterLab sends clicks to; since 7.4 it would not need it
    job = Job(session)
    cell = job.begin("job = nbpar.map_async({call})\nawait job")
    card = cards(session)[-1]
    card.wait_scene(cell_is_running=True)
    card.click("pause", subshell_id=subshell_id)
    if subshell_id is None:  # ipykernel 6 hears nothing meanwhile; there the front end interrupts for a Cancel
        card.click("cancel")
        session.interrupt()
        assert cell.wait(10).error is not None
        card.wait_heard({"ack": job.id, "of": "pause"})
        return
    card.wait_heard({"ack": job.id, "of": "pause"})
    card.click("cancel", subshell_id=subshell_id)
    result = cell.wait(10)
    assert result.error is not None
    assert result.error.name == "JobCancelledError"


@pytest.mark.parametrize("wait", ["await job", "job.result()", "for _ in job: pass"])
def test_interrupt_ends_the_wait_for_a_job_and_the_click_that_follows_the_job(session: Kernel, wait: str) -> None:
    job = Job(session)
    job.begin().wait()
    card = cards(session)[-1]
    card.wait_scene(cell_is_running=False)
    cell = session.start(wait)
    card.wait_scene(cell_is_running=True)  # so the front end may interrupt, when it gets no answer
    card.click("cancel")
    if card.scene["status"] == "running":
        session.interrupt()
    assert cell.wait(10).error is not None
    assert session.evaluate("job.wait(20) and job.status") == "cancelled"


@pytest.mark.parametrize("wait", ["await job", "job.result()", "for _ in job: pass"])
def test_stop_button_ends_a_wait_at_once_and_the_job_goes_on(session: Kernel, wait: str) -> None:
    job = Job(session)
    job.begin().wait()
    card = cards(session)[-1]
    cell = session.start(wait)
    card.wait_scene(cell_is_running=True)
    session.interrupt()  # and no other message, which would wake the kernel's loop
    error = cell.wait(10).error
    assert error is not None
    assert error.name == "JobInterrupt"
    assert error.traceback == f"Interrupted: this cell does not wait for {job.gate} any more"
    assert session.evaluate("job.status") == "running"
    assert session.evaluate("__import__('signal').getsignal(2).__module__") != "nbpar.waiting"
    job.open()
    assert session.run("job.result()").value == "[0, 10, 20, 30]"


def test_only_the_stop_button_makes_an_interrupt_of_a_wait_that_is_cancelled(session: Kernel) -> None:
    job = Job(session)
    job.begin().wait()
    timed = session.run("import asyncio\nasync with asyncio.timeout(0.05):\n    await job", raises=True)
    assert timed.error is not None and timed.error.name == "TimeoutError"
    card = cards(session)[-1]
    cell = session.start("await asyncio.gather(job, asyncio.sleep(60))")
    card.wait_scene(cell_is_running=True)
    session.interrupt()
    error = cell.wait(10).error
    assert error is not None and error.name == "CancelledError"  # of the gathering, which waits for more than the job
    assert session.evaluate("job.status") == "running"
    job.open()
    assert session.run("await job").value == "[0, 10, 20, 30]"


def test_other_work_in_the_cell_is_not_taken_for_waiting(session: Kernel) -> None:
    job, gate = Job(session), Job(session)
    cell = job.begin(f"job = nbpar.map_async({{call}})\nwait_for({gate.gate!r})")
    card = cards(session)[-1]
    n_seen = len(card.heard)
    session.wait_until(lambda: len(card.heard) > n_seen + 3)
    assert card.scene["cell_is_running"] is False
    gate.open()
    cell.wait()
    job.open()
    session.run("job.result()")


# --- shown again ------------------------------------------------------------------------------------------------------


def test_running_job_is_shown_in_several_cells_that_all_live(session: Kernel) -> None:
    job = Job(session)
    first = job.begin()
    first.wait()
    second = session.start("job.show()\nprint('below')")
    second.wait()
    third = session.start("nbpar.jobs()[-1].show()")
    third.wait()
    shown = cards(session)[-3:]
    assert [card.job_id for card in shown] == [job.id] * 3
    assert list(second.result.displays[0])[-1] == "application/vnd.jupyter.widget-view+json"
    assert second.result.outputs[1]["text"] == "below\n"
    shown[1].click("pause")
    for card in shown:
        card.wait_scene(status="paused")
    shown[2].click("resume")
    job.open()
    session.run("job.result()")
    session.wait_until(lambda: all(card.is_closed for card in shown))
    for cell in (first, second, third):
        (picture,) = cell.result.displays
        assert set(picture) == STATIC
        assert "4 of 4 tasks" in picture["text/plain"]


def test_ended_job_is_shown_as_its_picture(session: Kernel) -> None:
    session.run("nbpar.map(lambda x: x, range(7), name='blocking')")
    (picture,) = session.run("nbpar.jobs()[-1].show()").displays
    assert set(picture) == STATIC
    assert "blocking: done, 7 of 7 tasks" in picture["text/plain"]


def test_job_as_the_last_expression_shows_its_picture_but_not_beside_its_card(session: Kernel) -> None:
    job = Job(session)
    cell = job.begin("job = nbpar.map_async({call})\njob")
    cell.wait()
    assert {"text/plain"} in [set(one) for one in cell.result.displays]
    running = session.run("job")
    assert running.value == f"<Job {job.id} '{job.gate}': running, 0 of 4 tasks>"
    assert set(running.displays[0]) == STATIC
    job.open()
    session.run("job.result()")
    (picture,) = session.run("job").displays
    assert picture["text/plain"] == f"<Job {job.id} '{job.gate}': done, 4 of 4 tasks>"
    assert "4 of 4 tasks" in picture["text/html"]


def test_job_goes_on_when_its_cell_is_run_again_and_both_can_be_shown(session: Kernel) -> None:
    first, second = Job(session, n_tasks=2), Job(session)
    first.begin("job = nbpar.map_async({call})").wait()
    second.begin("job = nbpar.map_async({call})").wait()
    cell = session.start(f"[old] = [job for job in nbpar.jobs() if job.name == {first.gate!r}]\nold.show()")
    cell.wait()
    cards(session)[-1].wait_scene(job=first.id, status="running")
    first.open()
    assert session.run("old.result()").value == "[0, 10]"
    second.open()
    assert session.run("job.result()").value == "[0, 10, 20, 30]"
    assert f"{first.gate}: done, 2 of 2 tasks" in wait_shown(cell, "2 of 2 tasks").displays[0]["text/plain"]


# --- in the background ------------------------------------------------------------------------------------------------


def test_failure_of_a_short_background_job_is_shown_under_its_cell(session: Kernel) -> None:
    cell = session.start("job = nbpar.map_async(lambda x: 1 // x, [1, 0], name='quick')")
    shown = wait_shown(cell, "quick: failed")
    (picture,) = shown.displays
    assert set(picture) == STATIC
    assert "ZeroDivisionError" in picture["text/plain"]
    assert shown.stderr == ""
    result = session.run("await job", raises=True)
    assert result.error is not None
    assert result.error.name == "ZeroDivisionError"


def test_failure_of_a_background_job_without_a_card_is_one_line(session: Kernel) -> None:
    cell = session.start("job = nbpar.map_async(lambda x: 1 // x, [1, 0], name='quick', progress=False)")
    shown = wait_shown(cell, "failed")
    job_id = session.evaluate("job.id")
    line = f"nbpar: job {job_id}, quick, failed: item 1: ZeroDivisionError: integer division or modulo by zero\n"
    assert shown.stderr.replace("division by zero", "integer division or modulo by zero") == line
    assert shown.displays == []


def test_background_job_whose_workers_do_not_start_says_why(session: Kernel) -> None:
    cell = session.start(
        "def broken():\n    raise OSError('no such model')\n"
        "other = nbpar.WorkerPool(n_workers=1, worker_init=broken)\njob = other.map_async(abs, [1], name='hopeless')"
    )
    shown = wait_shown(cell, "no such model")
    assert "hopeless: failed" in shown.displays[0]["text/plain"]
    session.run("other.shutdown()")


def test_parallel_in_the_background_ends_at_once_and_names_the_job(session: Kernel) -> None:
    job = Job(session)
    cell = job.begin(f"%%parallel -o res --background each x in range(4)\nwait_for({job.gate!r})\n10 * x")
    assert cell.wait().stdout == "res is the job: `await res` or res.result() gives the list.\n"
    assert cards(session)[-1].scene["name"] == "each x in range(4)"
    job.open()
    assert session.run("await res").value == "[0, 10, 20, 30]"
    unnamed = session.run("%%parallel --background each x in range(4)\nx")
    assert {"text/plain"} in [set(one) for one in unnamed.displays]
    assert session.run("_.result()").value == "[0, 1, 2, 3]"


def test_what_failed_has_a_card_when_it_is_run_again(session: Kernel) -> None:
    job = Job(session)
    session.run("good = False\ndef task(x):\n    assert good\n    wait_for(gate)\n    return x")
    session.run(f"gate = {job.gate!r}\njob = nbpar.map_async(task, [1], on_error='return')\njob.wait()\ngood = True")
    job.begin("again = job.retry_failed()").wait()
    assert cards(session)[-1].scene["status"] == "running"
    job.open()
    assert session.run("again.result()").value == "[1]"
