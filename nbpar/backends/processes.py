"""Workers that are processes: starts them, feeds them, hears from them, buries them.

::

    dispatcher --send--> encode --> Channel ==socket==> worker (nbpar.worker.main)
               <-poll--- decode <-- Channel <=socket===/   |  board: what runs now (shared page)
                              <---- output pipe <=========/   stdout and stderr of C code and subprocesses
                              <---- process sentinel           death is an event, not a silence

Each worker has one socket, one pipe and one sentinel, all in the dispatcher's selector; :class:`ProcessWorkers` owns
them and closes them when the worker is gone. Bounds: a worker's outgoing queue holds its two chunks; of raw output
only the last 4 KB are remembered.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from multiprocess import reduction

from nbpar.backends.arenas import PoolArenas
from nbpar.backends.base import Gone, JobSpec, Printed, ShuttingDown, WorkerEvent
from nbpar.backends.captured import CapturedBuffers
from nbpar.backends.hearing import to_event
from nbpar.backends.shipping import PreparedJob, Shipper, prepare_job
from nbpar.backends.start import explain, forget_process, get_context, reap_server, start_process, watch_server
from nbpar.engine.instructions import Chunk
from nbpar.engine.plans import Running
from nbpar.engine.state import Activity
from nbpar.errors import SerializationError, WorkerStartError
from nbpar.options import PoolOptions
from nbpar.system import is_exiting
from nbpar.wire import shared
from nbpar.wire.board import Slot, make_board
from nbpar.wire.channel import Channel, ChannelClosedError, Message, channel_pair
from nbpar.wire.codec import CannotPickle, Codec
from nbpar.wire.messages import Kind
from nbpar.worker import main as worker_main
from nbpar.worker.boot import WorkerSetup

__all__ = ["ProcessWorkers"]

_LAST_WORDS_BYTES = 4096


@dataclass(slots=True, eq=False)
class _Process:
    """One worker process and what the kernel holds of it."""

    worker_id: int
    process: Any
    pid: int
    channel: Channel
    shipper: Shipper
    pipe_fd: int
    sentinel: int
    owns_sentinel: bool
    begin_s: float
    half_line: bytes = b""
    last_words: bytes = b""
    writing: bool = False
    is_cut_off: bool = False


class ProcessWorkers:
    """The :class:`~nbpar.backends.base.Workers` of a pool of processes.

    Parameters
    ----------
    options : PoolOptions
    """

    def __init__(self, options: PoolOptions) -> None:
        self._options = options
        self._context = get_context(options.start_method)
        self._codec = Codec("dill" if options.serializer == "dill" else "auto")
        self._hook_handles: dict[int, Any] = {}  # shared objects that the hooks refer to, by id; until the pool ends
        self._hooks = tuple(
            None if hook is None else self._encode_hook(name, hook)
            for name, hook in (("worker_init", options.worker_init), ("worker_exit", options.worker_exit))
        )
        try:
            self._board = make_board(self._context, options.count)
            self._selector = selectors.DefaultSelector()
            # The dispatcher's thread waits for the selector as a whole, so that one call keeps events from it (`lend`).
            self._outer: select.epoll | None = None
            if isinstance(self._selector, getattr(selectors, "EpollSelector", ())):
                self._outer = select.epoll()
            self._wake_in, self._wake_out = socket.socketpair()
        except OSError as error:
            raise WorkerStartError(f"the pool cannot be made: {explain(error)}") from error
        self._slots = [Slot(self._board, worker_id) for worker_id in range(options.count)]
        self._arenas = PoolArenas(options.count)
        self._captured = CapturedBuffers()
        self._processes: dict[int, _Process] = {}
        self._failed_starts: list[Gone] = []
        self._server_fd: int | None = None
        if self._outer is not None:
            self._outer.register(self._selector.fileno(), select.EPOLLIN)
        self._borrower: int | None = None
        self._ready: list[tuple[selectors.SelectorKey, int]] | None = None  # seen by `wait`, for `poll`
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._selector.register(self._wake_in, selectors.EVENT_READ, ("wake", None))
        self._has_released = False
        shared.tell_releases(self.released)

    def _encode_hook(self, name: str, hook: Any) -> tuple[bytes, list[bytes]]:
        try:
            encoded = self._codec.encode_function(hook)
        except CannotPickle as error:
            raise SerializationError(f"{name} cannot be sent to the workers: {error}") from error
        self._hook_handles.update((shared_id, shared.handle(shared_id)) for shared_id in encoded.shared_ids)
        return bytes(encoded.payload), [bytes(buffer) for buffer in encoded.buffers]

    # --- any thread ---------------------------------------------------------------------------------------------------

    def prepare(self, job: JobSpec) -> PreparedJob:
        """Pickle the function of a job, afresh for each job: what changed in the notebook since is always seen."""
        __tracebackhide__ = True
        return prepare_job(self._codec, self._captured, job)

    def wake(self) -> None:
        """Make `wait` return."""
        with contextlib.suppress(OSError):  # full: it will wake anyhow; closed: nobody polls any more
            self._wake_out.send(b"\0")

    def released(self) -> None:
        """A shared object is gone: idle workers would keep its memory until the next job."""
        self._has_released = True
        self.wake()

    def look(self, worker_id: int) -> tuple[Running | None, Activity]:
        """What a worker does now, by its board."""
        slot = self._slots[worker_id]
        (limit_s, part), chunk_id, index, since_s = slot.part, slot.chunk_id, slot.index, slot.since_s
        running = None if chunk_id is None else Running(chunk_id, index, since_s, slot.n_block, limit_s, part)
        return running, Activity(index, since_s, 0, slot.tracked)

    def pid(self, worker_id: int) -> int | None:
        """A worker's process."""
        process = self._processes.get(worker_id)
        return process.pid if process is not None else None

    # --- the dispatcher's thread: to the workers ----------------------------------------------------------------------

    def start(self, worker_id: int) -> None:
        """Start a process; a failure is told by the next `poll`."""
        self._slots[worker_id].clear()
        try:
            one = self._start(worker_id)
        except Exception as error:  # noqa: BLE001  # whatever the system refuses: told as a start that failed
            reason = f"{type(error).__name__}: {error}"
            self._failed_starts.append(Gone(worker_id, 0, None, None, start_error=reason))
            return
        forget_process(one.process)
        self._processes[worker_id] = one
        self._selector.register(one.channel, selectors.EVENT_READ, ("channel", one))
        self._selector.register(one.pipe_fd, selectors.EVENT_READ, ("pipe", one))
        self._selector.register(one.sentinel, selectors.EVENT_READ, ("sentinel", one))
        if self._hook_handles:
            one.shipper.send_first(self._hook_handles)
            self._watch_writes(one)
        if self._server_fd is None and self._options.start_method == "forkserver":
            self._server_fd = watch_server()
            if self._server_fd is not None:
                self._selector.register(self._server_fd, selectors.EVENT_READ, ("server", None))

    def _start(self, worker_id: int) -> _Process:
        begin_s = time.perf_counter()
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            our_end, their_end = channel_pair()
            ours.callback(our_end.close)
            theirs.callback(their_end.close)
            pipe_in, pipe_out = os.pipe()
            ours.callback(os.close, pipe_in)
            theirs.callback(os.close, pipe_out)
            os.set_blocking(pipe_in, False)
            pipe: Any = pipe_out if self._options.start_method == "fork" else _PipeEnd(pipe_out)
            args = (their_end, self._board, pipe, self._setup(worker_id, (our_end.fileno(), pipe_in)))
            process = start_process(self._context, worker_id, worker_main.run, args)
            ours.pop_all()  # kept from here on
        sentinel, owns = _sentinel(process, self._options.start_method)
        channel = Channel(our_end)
        shipper = Shipper(worker_id, channel, self._codec, self._arenas)
        return _Process(worker_id, process, process.pid, channel, shipper, pipe_in, sentinel, owns, begin_s)

    def _setup(self, worker_id: int, own_fds: tuple[int, ...]) -> WorkerSetup:
        options = self._options
        cpus: Sequence[int] = ()
        if options.cpu_ids is not None:
            one = options.cpu_ids[worker_id]
            cpus = [one] if isinstance(one, int) else list(one)
        close_fds: tuple[int, ...] = ()
        if options.start_method == "fork":
            others = ((p.channel.fileno(), p.pipe_fd) for p in self._processes.values())
            # Of a worker that has just died the channel may be closed, and its number is -1.
            close_fds = (*own_fds, *(fd for pair in others for fd in pair if fd >= 0))
        return WorkerSetup(
            worker_id=worker_id,
            start_method=options.start_method,
            kernel_pid=os.getpid(),
            serializer=options.serializer,
            threads=options.threads,
            environ={**os.environ, **(options.env or {})},
            sys_path=tuple(sys.path),
            cpus=cpus,
            close_fds=close_fds,
            worker_init=self._hooks[0],
            worker_exit=self._hooks[1],
            awaits_shared=bool(self._hook_handles),
            memory_limit_bytes=options.memory_limit_bytes,
            keep_globals=options.keep_globals,
        )

    def send(self, worker_id: int, chunk: Chunk, job: JobSpec, prepared: object, *, quick: bool) -> int:
        """Send a chunk, and before it what this worker does not have yet."""
        assert isinstance(prepared, PreparedJob)
        process = self._processes.get(worker_id)
        if process is None:  # it died a moment ago: `poll` will say so, and the chunk goes to another
            return 0
        n_bytes = process.shipper.send_chunk(chunk, job, prepared, quick=quick)
        self._watch_writes(process)
        return n_bytes

    def interrupt(self, worker_id: int, chunk_id: int) -> None:
        """Drop a chunk; if the worker runs it, a signal tells it now."""
        slot = self._slots[worker_id]
        slot.drop(chunk_id)
        process = self._processes.get(worker_id)
        if process is not None and slot.chunk_id == chunk_id and hasattr(signal, "SIGINT"):
            _signal(process.pid, signal.SIGINT)

    def recall(self, worker_id: int, chunk_id: int) -> None:
        """Drop a chunk, without a signal."""
        self._slots[worker_id].drop(chunk_id)

    def kill(self, worker_id: int, *, gently: bool) -> None:
        """SIGTERM or SIGKILL."""
        process = self._processes.get(worker_id)
        if process is not None:
            _signal(process.pid, signal.SIGTERM if gently else getattr(signal, "SIGKILL", signal.SIGTERM))

    def stop(self, worker_id: int) -> None:
        """Let a worker run its `worker_exit` and end."""
        process = self._processes.get(worker_id)
        if process is not None:
            process.channel.send(Message(Kind.STOP))
            self._watch_writes(process)

    def end_job(self, job_id: int) -> None:
        """Workers may forget a job."""
        self._arenas.end_job()
        for process in self._processes.values():
            process.shipper.end_job(job_id)

    # --- the dispatcher's thread: from the workers --------------------------------------------------------------------

    @property
    def has_news(self) -> bool:
        """Whether a descriptor is ready."""
        self._ready = self._selector.select(0)
        return bool(self._ready)

    @property
    def can_lend(self) -> bool:
        """On Linux."""
        return self._outer is not None

    def lend(self, on: bool) -> None:  # see the protocol
        """Take the inner selector out of the outer, or put it back."""
        if self._outer is not None:
            self._borrower = threading.get_ident() if on else None
            self._outer.modify(self._selector.fileno(), 0 if on else select.EPOLLIN)

    def wait(self, timeout_s: float | None) -> None:
        """Wait for something to happen."""
        if self._failed_starts:
            return
        if self._outer is not None and threading.get_ident() != self._borrower:
            self._outer.poll(timeout_s)
        else:
            self._ready = self._selector.select(timeout_s)

    def rest_in_s(self, now_s: float) -> float | None:
        """Until memory is to be given back."""
        due_s = self._arenas.due_s
        return None if due_s is None else max(0.0, due_s - now_s)

    def poll(self) -> Iterable[WorkerEvent]:
        """What has happened, in the order in which each worker told it."""
        if self._arenas.due_s is not None and time.perf_counter() >= self._arenas.due_s:
            self._rest()
        events: list[WorkerEvent] = list(self._failed_starts)
        self._failed_starts.clear()
        gone: list[_Process] = []
        ready, self._ready = self._ready, None
        for key, mask in self._selector.select(0) if ready is None else ready:
            name, process = key.data
            if name == "wake":
                self._drain_wakes()
                self._let_go()
            elif name == "pipe":
                events.extend(self._read_pipe(process))
            elif name == "sentinel":
                gone.append(process)
            elif name == "server":
                self._forget_server()
                if reap_server():
                    events.append(ShuttingDown())
            else:
                if mask & selectors.EVENT_WRITE:
                    process.channel.flush()
                    self._watch_writes(process)
                if mask & selectors.EVENT_READ:
                    events.extend(self._read_channel(process))
        for process in gone:
            events.extend(self._bury(process))
        return events

    def _forget_server(self) -> None:
        if self._server_fd is not None:
            self._selector.unregister(self._server_fd)
            os.close(self._server_fd)
            self._server_fd = None

    def _drain_wakes(self) -> None:
        try:
            while len(self._wake_in.recv(4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def _let_go(self) -> None:
        if self._has_released:
            self._has_released = False
            for process in self._processes.values():
                process.shipper.let_go()
                self._watch_writes(process)

    def _watch_writes(self, process: _Process) -> None:
        """Have the selector tell when the socket takes more, exactly while something waits."""
        wants = process.channel.wants_write
        if wants != process.writing:
            process.writing = wants
            mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if wants else 0)
            self._selector.modify(process.channel, mask, ("channel", process))

    def _read_channel(self, process: _Process) -> list[WorkerEvent]:
        try:
            messages = process.channel.receive()
        except ChannelClosedError:
            # It is ending, or has closed its descriptors: either way it cannot be spoken to. Its sentinel follows.
            self._selector.unregister(process.channel)
            process.channel.close()
            process.writing = False
            process.is_cut_off = not is_exiting(process.pid)
            _signal(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            return []
        # What a task wrote to the descriptors was in the pipe before its result was in the socket: so it comes first.
        printed = self._read_pipe(process)
        return printed + [event for message in messages if (event := self._heard(process, message)) is not None]

    def _heard(self, process: _Process, message: Message) -> WorkerEvent | None:
        if message.buffers:
            self._arenas.note_use()
        event = to_event(self._codec, process.worker_id, process.pid, process.begin_s, message)
        if event is None and message.kind == Kind.MAPPED:
            process.shipper.has_arena = True
        elif event is None and message.kind == Kind.ROOM:
            self._arenas.give_room(process.worker_id, process.channel)
            self._watch_writes(process)
        return event

    def _rest(self) -> None:
        """Have memory returned to the system that no large buffer has needed for a while."""
        for worker_id, reserve_bytes in self._arenas.rest().items():
            process = self._processes[worker_id]
            process.channel.send(Message(Kind.TRIM, (reserve_bytes, 0, 0, 0, 0)))
            self._watch_writes(process)

    def _read_pipe(self, process: _Process) -> list[WorkerEvent]:
        """Whole lines that C code or a subprocess wrote; labelled with the task that runs now."""
        try:
            data = os.read(process.pipe_fd, 1 << 16)
        except BlockingIOError:
            return []
        if not data:
            with contextlib.suppress(KeyError):  # read once more when the worker is buried
                self._selector.unregister(process.pipe_fd)
            return []
        process.last_words = (process.last_words + data)[-_LAST_WORDS_BYTES:]
        whole, newline, rest = (process.half_line + data).rpartition(b"\n")
        if not newline and len(rest) < _LAST_WORDS_BYTES:
            process.half_line = rest
            return []
        process.half_line, whole = (rest, whole) if newline else (b"", rest)
        lines = whole.decode("utf-8", "replace").split("\n")
        return [Printed(process.worker_id, self._slots[process.worker_id].index, "stdout", lines)]

    def _bury(self, process: _Process) -> list[WorkerEvent]:
        """Hear the last of a worker that has ended, and free what the kernel holds of it."""
        process.process.join(1.0)
        exit_code = process.process.exitcode
        running, _ = self.look(process.worker_id)
        events: list[WorkerEvent] = []
        try:
            while messages := process.channel.receive():
                events += [event for message in messages if (event := self._heard(process, message)) is not None]
        except ChannelClosedError:
            pass
        while more := self._read_pipe(process):
            events += more
        last_words = _last_lines(process.last_words)
        gone = Gone(process.worker_id, process.pid, exit_code, running, last_words, is_cut_off=process.is_cut_off)
        events.append(gone)
        self._free(process)
        self._arenas.lose(process.worker_id)
        return events

    def _free(self, process: _Process) -> None:
        for one in (process.channel, process.pipe_fd, process.sentinel):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(one)
        process.channel.close()
        os.close(process.pipe_fd)
        if process.owns_sentinel:
            os.close(process.sentinel)
        with contextlib.suppress(ValueError):  # its exit code was taken by somebody else (SIGCHLD ignored)
            process.process.close()
        self._processes.pop(process.worker_id, None)

    def close(self) -> None:
        """Kill what is left and free everything."""
        for process in list(self._processes.values()):
            _signal(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        for process in list(self._processes.values()):
            process.process.join(2.0)
            self._free(process)  # also without an exit code, which cannot be learnt where SIGCHLD is ignored
        self._arenas.close()
        self._captured.clear()
        self._hook_handles.clear()
        # Jobs that are remembered keep the backend of a pool, but its memory goes.
        self._board, self._slots = None, [Slot.alone() for _ in self._slots]
        self._forget_server()
        if self._outer is not None:
            self._outer.close()
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()


class _PipeEnd:
    """A descriptor that travels to a spawned process as one of multiprocess's own."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _same, (reduction.DupFd(self._fd),)


def _same(pipe: Any) -> Any:
    return pipe


def _sentinel(process: Any, start_method: str) -> tuple[int, bool]:
    """A descriptor that tells when the process has ended, and whether it is ours to close.

    With fork and spawn multiprocess's sentinel is a pipe that processes of the worker's own may hold open after its
    death; the kernel's descriptor of the process is exact. The fork server's sentinel is exact, too.
    """
    if start_method != "forkserver" and hasattr(os, "pidfd_open"):
        try:
            return os.pidfd_open(process.pid), True
        except OSError:
            pass
    return process.sentinel, False


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _last_lines(data: bytes) -> str:
    """The last lines that a dying worker wrote (faulthandler's, mostly), on one line."""
    lines = [line.strip() for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
    return " | ".join(lines[-3:])[-300:]
