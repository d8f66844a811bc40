"""Real kernels for tests: start one, run cells in it, interrupt it, see all that a front end would see.

Every wait is on a message of the kernel, none on the clock. A :class:`Kernel` keeps the outputs of each cell as a
front end does (``update_display`` changes an earlier output, ``clear_output`` clears), also when they come after the
cell ended, and keeps apart what the kernel's process wrote to its own terminal, so that a test can assert that nothing
leaked there.

Which ipykernel runs is a matter of the folder that comes first on the kernel's ``PYTHONPATH``: ``make test`` installs
two versions beside the installed one, into ``.kernels/ipykernel-<version>``.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import zmq
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

__all__ = ["Cell", "CellError", "Kernel", "Result", "ipykernels", "kernelspec", "start_kernel"]

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 30.0

_UNREAD_S = 3.0
"""Without any message, before the kernel is looked after: most waits are shorter."""

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def ipykernels() -> dict[str, str | None]:
    """The ipykernel versions to test: a name, and the folder to put on the kernel's ``PYTHONPATH`` (None: installed).

    ``NBPAR_KERNEL_PYTHONPATH`` names one folder to test instead; set but empty, it means the installed version alone.
    """
    asked = os.environ.get("NBPAR_KERNEL_PYTHONPATH")
    if asked:
        return {Path(asked).name: asked}
    versions: dict[str, str | None] = {"ipykernel-installed": None}
    if asked is None:
        for stamp in sorted(ROOT.glob(".kernels/ipykernel-*/.installed")):
            versions[stamp.parent.name] = str(stamp.parent)
    return versions


def kernelspec(pythonpath: str | None = None, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The contents of a ``kernel.json``; ``NBPAR_KERNEL_PYTHON`` names another interpreter than this one."""
    variables = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", **(env or {})}
    # The repository's root comes second, so that a kernel may import the helpers of `tests`.
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [pythonpath, str(ROOT), variables.get("PYTHONPATH")]))
    return {
        "argv": [
            os.environ.get("NBPAR_KERNEL_PYTHON", sys.executable),
            *("-m", "ipykernel_launcher", "-f", "{connection_file}"),
        ],
        "display_name": "nbpar tests",
        "language": "python",
        "env": variables,
        "metadata": {"debugger": False},
    }


@dataclass(frozen=True, slots=True)
class CellError:
    """What a cell raised, as the kernel reported it."""

    name: str
    value: str
    traceback: str

    def __str__(self) -> str:
        return f"{self.name}: {self.value}\n{self.traceback}"


@dataclass(frozen=True, slots=True)
class Result:
    """What a cell had shown at one moment.

    ``streams`` holds the text of ``"stdout"`` and ``"stderr"``; ``outputs`` every output in order, in nbformat's form,
    streams and errors too.
    """

    streams: Mapping[str, str]
    outputs: Sequence[Mapping[str, Any]]
    error: CellError | None
    execution_count: int | None
    duration_s: float

    @property
    def stdout(self) -> str:
        """The text of the cell's standard output."""
        return self.streams.get("stdout", "")

    @property
    def stderr(self) -> str:
        """The text of the cell's standard error."""
        return self.streams.get("stderr", "")

    @property
    def displays(self) -> list[Mapping[str, Any]]:
        """The mime bundles of displays and of the cell's value, in order."""
        return [output["data"] for output in self.outputs if "data" in output]

    @property
    def value(self) -> str | None:
        """The repr of the cell's last expression."""
        for output in self.outputs:
            if output["output_type"] == "execute_result":
                return str(output["data"]["text/plain"])
        return None


@dataclass(eq=False, slots=True)
class Cell:
    """A cell that was sent to a kernel; its outputs grow as the kernel's messages are read."""

    kernel: Kernel
    code: str
    message_id: str
    answers: deque[str]
    started_s: float
    outputs: list[dict[str, Any]] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    error: CellError | None = None
    execution_count: int | None = None
    ended_s: float | None = None
    idle: bool = False
    replied: bool = False
    clear_next: bool = False

    @property
    def done(self) -> bool:
        """Whether the kernel has answered and said that nothing of this cell runs any more."""
        return self.idle and self.replied

    @property
    def result(self) -> Result:
        """What the cell has shown so far."""
        streams: dict[str, str] = {}
        for output in self.outputs:
            if output["output_type"] == "stream":
                streams[output["name"]] = streams.get(output["name"], "") + output["text"]
        return Result(
            streams=streams,
            outputs=list(self.outputs),
            error=self.error,
            execution_count=self.execution_count,
            duration_s=(self.ended_s or time.monotonic()) - self.started_s,
        )

    def wait(self, timeout_s: float = TIMEOUT_S) -> Result:
        """Wait until the cell has ended; its error, if any, is in the result."""
        self.kernel.wait_until(lambda: self.done, timeout_s, what=f"the end of the cell\n{self.code}")
        return self.result

    def wait_for(self, text: str, timeout_s: float = TIMEOUT_S) -> Result:
        """Wait until ``text`` stands in the cell's standard output, error or displays."""
        self.kernel.wait_until(lambda: text in self._text() or self.done, timeout_s, what=repr(text))
        assert text in self._text(), f"the cell ended without {text!r}:\n{self._text()}"
        return self.result

    def _text(self) -> str:
        parts = []
        for output in self.outputs:
            parts.append(output.get("text", ""))
            parts.extend(str(value) for value in output.get("data", {}).values())
        return "\n".join(parts)


class Kernel:
    """A running kernel and the one client that reads all of its messages.

    Parameters
    ----------
    manager, client
        Started, with open channels and a ready kernel.
    terminal_path : Path
        The file that the kernel's own stdout and stderr go to.
    """

    def __init__(self, manager: KernelManager, client: BlockingKernelClient, terminal_path: Path) -> None:
        self.manager = manager
        self.client = client
        self.state = "idle"
        self.comm_messages: list[dict[str, Any]] = []
        self._cells: dict[str, Cell] = {}
        self._displays: dict[str, list[dict[str, Any]]] = {}
        self._terminal_path = terminal_path
        self._terminal_start = terminal_path.stat().st_size
        self._wakes: list[zmq.Socket[Any]] = []  # closed with the client's context

    # ------------------------------------------------------------------------------------------------------ cells

    def run(
        self, code: str, *, timeout_s: float = TIMEOUT_S, raises: bool = False, answers: Sequence[str] = ()
    ) -> Result:
        """Run a cell to its end.

        A cell that fails fails the test, unless ``raises``; then one that does not fail fails it. ``answers`` are typed
        at the cell's prompts, in turn.
        """
        result = self.start(code, answers=answers).wait(timeout_s)
        if raises:
            assert result.error is not None, f"the cell did not raise:\n{code}\n{result}"
        else:
            assert result.error is None, f"the cell failed:\n{code}\n{result.error}"
        return result

    def start(self, code: str, *, answers: Sequence[str] = ()) -> Cell:
        """Send a cell and return at once."""
        started_s = time.monotonic()
        message_id = self.client.execute(code, allow_stdin=bool(answers), stop_on_error=False)
        cell = Cell(self, code, message_id, deque(answers), started_s)
        self._cells[message_id] = cell
        return cell

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the kernel, by way of JSON."""
        text = self.run(f"import json as _json\nprint(_json.dumps({expression}))").stdout
        return json.loads(text)

    def interrupt(self) -> None:
        """Interrupt as the stop button does: SIGINT to the kernel's whole process group."""
        self.manager.interrupt_kernel()

    def send_comm(
        self,
        comm_id: str,
        data: Mapping[str, Any],
        buffers: Sequence[bytes] | None = None,
        subshell_id: str | None = None,
    ) -> None:
        """Send a message to a widget, as the front end does when its button is clicked."""
        message = self.client.session.msg("comm_msg", {"comm_id": comm_id, "data": dict(data)})
        if subshell_id is not None:
            message["header"]["subshell_id"] = subshell_id
        self.client.session.send(self.client.shell_channel.socket, message, buffers=buffers)

    def create_subshell(self) -> str | None:
        """What messages can be sent to while a cell blocks; None from a kernel that has none (before ipykernel 7)."""
        self.client.kernel_info()
        info = self.client.get_shell_msg(timeout=TIMEOUT_S)["content"]
        if "kernel subshells" not in info.get("supported_features", ()):
            return None
        message = self.client.session.msg("create_subshell_request", {})
        self.client.control_channel.send(message)
        created: str = self.client.get_control_msg(timeout=TIMEOUT_S)["content"]["subshell_id"]
        return created

    # -------------------------------------------------------------------------------------------------- processes

    @property
    def process(self) -> psutil.Process:
        """The kernel's process."""
        provisioner: Any = self.manager.provisioner
        return psutil.Process(provisioner.pid)

    def children(self) -> list[psutil.Process]:
        """Every living process below the kernel's."""
        return [child for child in self.process.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]

    @property
    def terminal(self) -> str:
        """What the kernel's process and its children wrote to their own stdout and stderr once it was ready."""
        with self._terminal_path.open("rb") as file:
            file.seek(self._terminal_start)
            return file.read().decode(errors="replace")

    # --------------------------------------------------------------------------------------------------- messages

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = TIMEOUT_S, what: str = "") -> None:
        """Read the kernel's messages until the condition holds; fail when it does not within the time."""
        deadline_s = time.monotonic() + timeout_s
        unread_at_s = time.monotonic() + _UNREAD_S
        poller = zmq.Poller()
        channels = (self.client.iopub_channel, self.client.shell_channel, self.client.stdin_channel)
        for channel in channels:
            poller.register(channel.socket, zmq.POLLIN)
        while True:
            for channel in channels:
                with contextlib.suppress(queue.Empty):
                    while True:
                        self._handle(channel.get_msg(timeout=0))
                        unread_at_s = time.monotonic() + _UNREAD_S
            if condition():
                return
            if time.monotonic() >= unread_at_s:
                unread_at_s = float("inf")
                self._wake()
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"waited {timeout_s:g} s for {what or 'the kernel'}\n{self.terminal[-2000:]}")
            if not self.manager.is_alive():
                raise RuntimeError(f"the kernel died; it wrote\n{self.terminal[-2000:]}")
            # A kernel that dies sends no message: look at its process once a second.
            poller.poll(int(min(left_s, 1.0) * 1000))

    def _wake(self) -> None:
        """Have the kernel read what it has left lying, which ipykernel 7 before 7.4 does until another client connects.

        See https://github.com/ipython/ipykernel/issues/1554.
        """
        self._wakes.append(self.client.connect_shell())

    def _handle(self, message: dict[str, Any]) -> None:
        kind, content = message["msg_type"], message["content"]
        if kind == "status":
            self.state = content["execution_state"]
        if kind.startswith("comm_"):
            self.comm_messages.append(message)
        if kind == "update_display_data":
            # By its id: also an output of another cell, and after that cell's end.
            for output in self._displays.get(content["transient"]["display_id"], []):
                output.update(data=content["data"], metadata=content["metadata"])
        cell = self._cells.get(message["parent_header"].get("msg_id", ""))
        if cell is not None:
            self._handle_for(cell, kind, content)

    def _handle_for(self, cell: Cell, kind: str, content: dict[str, Any]) -> None:
        match kind:
            case "status":
                cell.idle = content["execution_state"] == "idle"
            case "execute_reply":
                cell.replied, cell.ended_s = True, time.monotonic()
                cell.execution_count = content.get("execution_count")
            case "input_request":
                cell.prompts.append(content["prompt"])
                assert cell.answers, f"no answer is left for the prompt {content['prompt']!r}"
                self.client.input(cell.answers.popleft())
            case "clear_output":
                if content["wait"]:
                    cell.clear_next = True
                else:
                    cell.outputs.clear()
            case "stream" | "display_data" | "execute_result" | "error":
                if cell.clear_next:
                    cell.outputs.clear()
                    cell.clear_next = False
                self._append(cell, kind, content)

    def _append(self, cell: Cell, kind: str, content: dict[str, Any]) -> None:
        last = cell.outputs[-1] if cell.outputs else None
        if kind == "stream" and last is not None and last.get("name") == content["name"]:
            last["text"] += content["text"]
            return
        output = {"output_type": kind, **{key: value for key, value in content.items() if key != "transient"}}
        cell.outputs.append(output)
        if kind == "error":
            traceback = _ANSI.sub("", "\n".join(content["traceback"]))
            cell.error = CellError(content["ename"], _ANSI.sub("", content["evalue"]), traceback)
        display_id = content.get("transient", {}).get("display_id")
        if display_id is not None:
            self._displays.setdefault(display_id, []).append(output)


@contextlib.contextmanager
def start_kernel(
    directory: Path, *, pythonpath: str | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Kernel]:
    """Start a kernel that works in ``directory``, and end it with all of its process group.

    Parameters
    ----------
    directory : Path
        Where the kernel works; its terminal's text and its settings are kept there too.
    pythonpath : str, optional
        A folder of :func:`ipykernels`.
    env : mapping, optional
        Further environment variables.
    """
    spec_dir = directory / "kernelspecs" / "nbpar-tests"
    spec_dir.mkdir(parents=True)
    spec = kernelspec(pythonpath, {"IPYTHONDIR": str(directory / "ipython"), **(env or {})})
    (spec_dir / "kernel.json").write_text(json.dumps(spec))
    specs = KernelSpecManager(kernel_dirs=[str(spec_dir.parent)], ensure_native_kernel=False)
    manager = KernelManager(
        kernel_name=spec_dir.name, kernel_spec_manager=specs, connection_file=str(directory / "connection.json")
    )
    terminal_path = directory / "terminal.txt"
    with terminal_path.open("wb") as terminal:
        manager.start_kernel(stdout=terminal, stderr=terminal, cwd=str(directory))
    provisioner: Any = manager.provisioner
    group = provisioner.pgid
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        yield Kernel(manager, client, terminal_path)
    finally:
        client.stop_channels()
        client.context.destroy(linger=0)  # its own, with the sockets of wake-ups
        manager.shutdown_kernel(now=True)
        # shutdown_kernel(now=True) kills the kernel alone where its group is gone already; workers must not survive it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        manager.context.destroy(linger=0)
