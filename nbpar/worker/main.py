"""A worker process: takes messages, runs chunks, sends results. Nothing else runs in its main thread.

::

    socket --> receive --> DEFINE, JOB: functions by key        (kept until FORGET / END_JOB)
                       --> CHUNK: decode the arguments --> run_chunk --> encode the values --> RESULTS --> socket
                                  (each in its own try)      |              (each in its own try)
                                                             +--> the board: what runs, since when

Started by :mod:`nbpar.backends.processes`. It never imports the user's main module: what a task needs comes by value.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import pickle
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nbpar.errors import SerializationError
from nbpar.wire import shared
from nbpar.wire.arena import Place
from nbpar.wire.board import TASK, Slot
from nbpar.wire.channel import ChannelClosedError, Message, WorkerChannel
from nbpar.wire.codec import CannotPickle, Codec, DecodeFailure, Definition
from nbpar.wire.exceptions import encode_exception
from nbpar.wire.memory import return_freed_memory
from nbpar.wire.messages import CLASS_KEY, ChunkFlag, JobFlag, Kind, Surroundings
from nbpar.worker.arenas import WorkerArenas
from nbpar.worker.bars import catch_bars
from nbpar.worker.boot import (
    WorkerSetup,
    end_with_parent,
    keep_freed_memory,
    use_cpus,
    use_environment,
    use_threads,
)
from nbpar.worker.changes import Captured, captured_by
from nbpar.worker.context import Context, TaskInterrupt, set_context
from nbpar.worker.execute import Report, Unusable, Work, cannot_rebuild, run_chunk, unwrapped
from nbpar.worker.memory import OwnMemory
from nbpar.worker.output import Sender, apply_logging, apply_warning_filters, install_output

if TYPE_CHECKING:
    from nbpar.worker.strict import Strict

__all__ = ["run"]


def run(sock: socket.socket, board: Any, pipe: Any, setup: WorkerSetup) -> None:
    """Entry of a worker process; returns when the kernel says STOP or is gone.

    Parameters
    ----------
    sock : socket.socket
        The worker's end of its channel.
    board : ctypes array
        See :mod:`nbpar.wire.board`.
    pipe : DupFd or int
        Write end of the pipe for raw output.
    setup : WorkerSetup
    """
    end_with_parent(setup)
    use_environment(setup)
    use_cpus(setup.cpus)
    use_threads(setup.threads)
    keep_freed_memory()
    context = Context(setup.worker_id, Slot(board, setup.worker_id))
    worker = _Worker(WorkerChannel(sock), context, setup)
    # Jupyter interrupts the whole process group. A worker heeds SIGINT only for a chunk the kernel wants dropped.
    signal.signal(signal.SIGINT, worker.on_sigint)
    if hasattr(signal, "pthread_sigmask"):  # blocked while the process started: an import must not be interrupted
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    set_context(context, whole_process=True)
    catch_bars(own_process=True)
    pipe_fd = pipe.detach() if hasattr(pipe, "detach") else pipe
    worker.streams = install_output(worker.sender, context, pipe_fd)
    exit_code = 0
    try:
        worker.serve()
    except (ChannelClosedError, BrokenPipeError, ConnectionResetError):
        pass
    except BaseException:  # noqa: BLE001  # a task set a handler of signals that raises; there is no memory left
        exit_code = 1
        with contextlib.suppress(BaseException):  # not by `sys.stderr`, which sends: a message may be half sent
            os.write(2, traceback.format_exc().encode("utf-8", "backslashreplace"))
    os._exit(exit_code)  # neither threads of the user's nor atexit functions of the kernel's copy may hold the process


class _Worker:
    """The state of this process as a worker: functions, jobs, streams."""

    def __init__(self, channel: WorkerChannel, context: Context, setup: WorkerSetup) -> None:
        self.channel = channel
        self.sender = Sender(channel)
        self.arenas = WorkerArenas(channel, self.sender)
        self.memory = OwnMemory(setup)
        self.context = context
        self.setup = setup
        if setup.keep_globals:
            from nbpar.worker.contents import keep_globals

            keep_globals()
        self.codec = Codec("dill" if setup.serializer == "dill" else "auto", in_worker=True)
        # Payload, and buffers or the id of the memory that has them. Bounded by the kernel, which sends FORGET.
        self.functions: dict[str, tuple[bytes, list[bytes], int] | SerializationError] = {}
        self.jobs: dict[int, Work | None] = {}  # None: its function could not be rebuilt
        self.captured: dict[int, Captured] = {}  # of the jobs whose function brought something that can change
        self.captures_nothing: set[str] = set()  # keys of other functions
        self.strict: dict[int, Strict] = {}  # of the jobs that have to leave what a serial loop leaves
        self.samplers: dict[int, Any] = {}  # of the jobs that are profiled
        self.streams: tuple[Any, ...] = ()
        self.surroundings = Surroundings("", (), {}, [])
        self.filters_from: tuple[Any, int] = (None, 0)

    def on_sigint(self, _signum: int, _frame: object) -> None:
        """Interrupt the running task if its chunk is to be dropped."""
        words = self.context.slot.words
        chunk_id = self.context.slot.chunk_id
        if chunk_id is None or not self.context.slot.drops(chunk_id):
            return
        together = self.context.together  # its event loop cancels; a step that is under way is broken off as a task is
        if not (words[TASK] if together is None else together.interrupt()):
            return
        words[TASK] = 0  # a second signal changes nothing
        if self.sender.busy:
            self.sender.defer_interrupt()
        else:
            raise TaskInterrupt

    def serve(self) -> None:
        """Work until STOP."""
        awaits_shared = self.setup.awaits_shared
        while awaits_shared:
            message = self.channel.receive()
            self._heed(message)
            awaits_shared = message.kind != Kind.SHARE or message.numbers[0] != 0
        begin_s = time.perf_counter()
        if not self._call_hook(self.setup.worker_init, Kind.NOT_READY):
            return
        ready_s = time.perf_counter()
        init_s = ready_s - begin_s if self.setup.worker_init is not None else 0.0
        numbers = (os.getpid(), self.memory.inherited_bytes, 0, 0, 0)
        self.sender.send(Message(Kind.READY, numbers, (ready_s, init_s, 0.0, 0.0, 0.0)))
        while True:
            message = self.channel.receive()
            if message.kind == Kind.CHUNK:
                self._run_chunk(message)
            elif message.kind == Kind.STOP:
                begin_s = time.perf_counter()
                self._call_hook(self.setup.worker_exit, None)
                if self.setup.worker_exit is not None:
                    exit_s = time.perf_counter() - begin_s
                    self.sender.send(Message(Kind.LEFT, times=(exit_s, 0.0, 0.0, 0.0, 0.0)))
                return
            else:
                self._heed(message)
            del message  # an idle worker must not hold on to the arguments of its last task

    def _heed(self, message: Message) -> None:
        """Whatever is to be known or done between chunks."""
        match message.kind:
            case Kind.DEFINE:
                self._define(message)
            case Kind.FORGET:
                self.functions.pop(message.head.decode(), None)
                self.captures_nothing.discard(message.head.decode())
            case Kind.FOLLOW:
                self._follow_kernel(message)
            case Kind.JOB:
                self._begin_job(message)
            case Kind.END_JOB:
                self.jobs.pop(message.numbers[0], None)
                self.captured.pop(message.numbers[0], None)
                self.strict.pop(message.numbers[0], None)
                self.samplers.pop(message.numbers[0], None)
                if not self.jobs or message.numbers[0] < min(self.jobs):
                    self.context.former.clear()
            case Kind.SHARE if message.fds:  # else there was no descriptor free for it
                shared.attach(message.numbers[0], message.numbers[1], message.head, message.fds[0])
            case Kind.UNSHARE:
                shared.detach(message.numbers[0])
            case Kind.ARENA:
                self.arenas.take(message)
            case Kind.TRIM:
                self.arenas.trim(message.numbers[0])
                return_freed_memory()

    def _call_hook(self, hook: tuple[bytes, list[bytes]] | None, kind: Kind | None) -> bool:
        """Call `worker_init` or `worker_exit`; an error is reported as `kind`, or printed."""
        if hook is None:
            return True
        try:
            self.codec.decode(*hook)()
        except BaseException as error:  # noqa: BLE001  # also SystemExit: it is the hook's failure
            if kind is None:
                sys.stderr.write(f"worker_exit failed: {error!r}\n")
            else:
                self.sender.send(Message(kind, payload=encode_exception(error)))
            return False
        finally:
            self._finish_lines()
        return True

    def _define(self, message: Message) -> None:
        n_key = message.numbers[0]
        key, sources = message.head[:n_key], message.head[n_key:]
        if key.startswith(CLASS_KEY):
            with contextlib.suppress(BaseException):  # the tasks that need the class fail with the reason
                self.codec.define(Definition(key[len(CLASS_KEY) :].decode(), bytes(message.payload)))
            return
        if message.lost_bytes:
            self.functions[key.decode()] = message.lost("function")
            return
        buffers = [bytes(buffer) for buffer in message.buffers]
        self.functions[key.decode()] = bytes(message.payload), buffers, message.numbers[1]
        for file_name, source in pickle.loads(sources).items() if sources else ():
            linecache.cache[file_name] = (len(source), None, source.splitlines(keepends=True), file_name)

    def _begin_job(self, message: Message) -> None:
        job_id, flags = message.numbers[:2]
        self.arenas.begin_job()
        # A task may have gone elsewhere; the next job begins where the kernel is.
        with contextlib.suppress(OSError):
            os.chdir(self.surroundings.cwd)
        sys.path[:] = self.surroundings.sys_path
        try:
            known = self.functions[message.head.decode()]
            if isinstance(known, SerializationError):
                raise known
            payload, buffers, shared_id = known
            # Copies, as written: what a task does to an array in its closure is gone with the job.
            own: Sequence[Any] = shared.map_buffers(shared_id) if shared_id else [bytearray(one) for one in buffers]
            function: Any = self.codec.decode(payload, own)
        except BaseException as error:  # noqa: BLE001  # whatever an import or __setstate__ of the user's raises
            self.jobs[job_id] = None
            self.sender.send(Message(Kind.NO_JOB, (job_id, 0, 0, 0, 0), payload=encode_exception(error)))
            return
        # After the function, which may have loaded the modules of the categories.
        filters = self.surroundings.warnings
        if self.filters_from[0] is not filters or self.filters_from[1] != len(sys.modules):
            self.filters_from = (filters, len(sys.modules))
            apply_warning_filters(filters)
        seed = int.from_bytes(message.payload, "little")
        star, seeded = bool(flags & JobFlag.STAR), bool(flags & JobFlag.SEEDED)
        self.jobs[job_id] = Work(function, star, seed, seeded, message.numbers[2], message.times[0] or None)
        if flags & JobFlag.STRICT:
            self._begin_strict_job(job_id, function, flags)
        elif not self.setup.keep_globals and (key := message.head.decode()) not in self.captures_nothing:
            if (captured := captured_by(function)) is not None:
                self.captured[job_id] = captured
            else:
                self.captures_nothing.add(key)
        if flags & JobFlag.PROFILED:
            from nbpar.worker.profile import Sampler

            numbers = (job_id, 0, 0, 0, 0)
            self.samplers[job_id] = Sampler(lambda data: self.sender.send(Message(Kind.SAMPLED, numbers, payload=data)))

    def _begin_strict_job(self, job_id: int, function: Any, flags: int) -> None:
        from nbpar.worker.strict import Strict

        keeps_items, seeded = bool(flags & JobFlag.KEEPS_ITEMS), bool(flags & JobFlag.SEEDED)
        strict = self.strict[job_id] = Strict(function, keeps_items=keeps_items, seeded=seeded)
        work = self.jobs[job_id]
        assert work is not None
        self.jobs[job_id] = work._replace(function=strict.function)

    def _follow_kernel(self, message: Message) -> None:
        """Take over what has changed in the kernel since the last job."""
        self.surroundings = pickle.loads(message.head)
        apply_logging(self.surroundings.logging)

    # --- chunks -------------------------------------------------------------------------------------------------------

    def _run_chunk(self, message: Message) -> None:
        job_id, chunk_id, start, stop, flags = message.numbers
        work = self.jobs.get(job_id)
        slot = self.context.slot
        if work is None or slot.drops(chunk_id):
            if job_id in self.strict:  # it may have held back its look, since this chunk was to follow
                self._tell_changes(job_id, 0.0, is_final=True)
            self._send_report(job_id, chunk_id, Report(start, final=True))
            return
        self.context.n_jobs = len(self.jobs)
        slot.begin_chunk(chunk_id)  # from here on a death is blamed on this chunk, also while it is unpickled
        begin_s = time.perf_counter()
        items, usable = self._arguments(message, stop - start, flags)
        unpack_s = time.perf_counter() - begin_s + self.channel.take_receive_s()
        message.payload, message.buffers = b"", ()
        self.context.attempt = max(1, flags // ChunkFlag.ATTEMPT)
        self.context.seed = work.seed

        def report(one: Report) -> None:
            self._tell_changes(job_id, one.end_s - one.begin_s, is_final=one.final)
            if one.final and sampler is not None:  # before the kernel knows that this was all
                sampler.stop()
            if one.final and type(items) is list:
                items.clear()  # before the kernel knows: it may then put the next arguments where these were
            self._send_report(job_id, chunk_id, one)

        sampler = self.samplers.get(job_id)
        if sampler is not None:
            sampler.start()
        run_chunk(
            work,
            items,
            chunk_id=chunk_id,
            start=start,
            context=self.context,
            quick=bool(flags & ChunkFlag.QUICK) and usable,
            returnable=bool(flags & ChunkFlag.RETURNABLE),
            report=report,
            unpack_s=unpack_s,
        )

    def _tell_changes(self, job_id: int, work_s: float, *, is_final: bool) -> None:
        """Before the results that go with it, while the kernel has the job."""
        if (captured := self.captured.get(job_id)) is not None:
            changed = captured.look(work_s)
        elif (strict := self.strict.get(job_id)) is not None:
            changed = strict.look(work_s, is_last=is_final and not self._has_more_of(job_id))
        else:
            return
        if changed:
            names = "\n".join(changed).encode("utf-8", "backslashreplace")
            self.sender.send(Message(Kind.CHANGED, (job_id, 0, 0, 0, 0), payload=names))

    def _has_more_of(self, job_id: int) -> bool:
        """Whether another chunk of the job is here already."""
        return any(one.kind == Kind.CHUNK and one.numbers[0] == job_id for one in self.channel.arrived())

    def _arguments(self, message: Message, n_items: int, flags: int) -> tuple[Any, bool]:
        """The chunk's arguments, and whether all are usable; one that cannot be rebuilt fails alone."""
        if message.lost_bytes:
            return [Unusable(message.lost("argument"))] * n_items, False
        usable = not flags & ChunkFlag.HAS_UNUSABLE
        try:
            items: Any = self.codec.decode(message.payload, message.buffers)
        except BaseException:  # noqa: BLE001  # whatever a __setstate__ raises; found again below, item by item
            usable = False
            items = [
                Unusable(cannot_rebuild("argument", item.error)) if type(item) is DecodeFailure else item
                for item in self.codec.decode_each(message.payload, message.buffers, n_items)
            ]
        if flags & ChunkFlag.HAS_SHARED:
            items = [unwrapped(item) for item in items]
            usable = usable and not any(type(item) is Unusable for item in items)
        return items, usable

    # --- results ------------------------------------------------------------------------------------------------------

    def _send_report(self, job_id: int, chunk_id: int, report: Report) -> None:
        self._finish_lines()
        begin_s = time.perf_counter()
        encoded = None
        buffers: Sequence[memoryview | Place] = ()
        if report.values:
            try:
                encoded = self.codec.encode(report.values)
            except CannotPickle:
                encoded = self._encode_good_values(report)
            if encoded.buffers:
                buffers = self.arenas.place(encoded.buffers)
                encoded.buffers = []
        failures = b""
        if report.failures:
            failures = pickle.dumps([(index, encode_exception(error)) for index, error in report.failures])
        longest = report.longest_index - report.first + 1 if report.longest_index >= 0 else 0
        pack_s = time.perf_counter() - begin_s
        message = Message(
            Kind.RESULTS,
            (job_id, chunk_id, report.first, report.n_ended, report.final + 2 * longest),
            (report.begin_s, report.end_s, report.unpack_s, pack_s, report.longest_s),
            failures,
            encoded.payload if encoded is not None else b"",
            buffers,
        )
        if not report.final or self.memory.limit_bytes is None:
            self.sender.send(message)
            return
        report.values.clear()
        report.failures.clear()
        # Before the results: the kernel is to know it while it has the job that the task was one of.
        is_heavy = self._tell_if_heavy(message.inline_bytes)
        self.sender.send(message)
        if not is_heavy:  # what travelled in the message may have had no pages, as zeros have none
            del message, encoded, buffers
            self._tell_if_heavy(0)

    def _tell_if_heavy(self, pending_bytes: int) -> bool:
        n_bytes = self.memory.too_many_bytes(pending_bytes)
        if n_bytes is not None:
            self.sender.send(Message(Kind.HEAVY, (n_bytes, 0, 0, 0, 0)))
        return n_bytes is not None

    def _encode_good_values(self, report: Report) -> Any:
        """Turn values that cannot travel into failures of their own tasks, and encode the others."""
        failed = {index for index, _ in report.failures}
        indices = [i for i in range(report.first, report.first + report.n_ended) if i not in failed]
        refusals = {i: self.codec.refusal(value) for i, value in zip(indices, report.values, strict=True)}
        good = [value for value, why in zip(report.values, refusals.values(), strict=True) if why is None]
        try:
            encoded = self.codec.encode(good)
        except CannotPickle as error:  # of two minds: what could be pickled a moment ago cannot be now
            encoded = self.codec.encode([])
            refusals = {i: why or error for i, why in refusals.items()}
        report.failures += [(i, _cannot_be_sent(why)) for i, why in refusals.items() if why is not None]
        report.failures.sort(key=lambda failure: failure[0])
        return encoded

    def _finish_lines(self) -> None:
        for stream in self.streams:
            stream.finish()


def _cannot_be_sent(why: CannotPickle) -> SerializationError:
    refused = SerializationError(f"the result cannot be sent back: {why}")
    refused.of_result = True
    refused.__cause__ = why.__cause__
    return refused
