"""The faults of the soak: signals to workers, the fork server and the main thread, and pools that go."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import psutil

from tests.soak.stage import Stage

__all__ = ["Faults", "Interrupts"]

SIGNALS = {
    "killed": signal.SIGKILL,
    "crashed": signal.SIGSEGV,
    "terminated": signal.SIGTERM,
    "aborted": signal.SIGABRT,
}


class Faults:
    """Does one fault after the other, in its own thread."""

    def __init__(self, stage: Stage, mean_s: float) -> None:
        self._stage = stage
        self._chance = random.Random(f"{stage.seed}:faults")
        self._mean_s = mean_s

    def run(self) -> None:
        """Until the stage stops."""
        kinds = [self._signal, self._stop, self._kill_server, self._replace]
        while not self._stage.stop.wait(self._chance.expovariate(1 / self._mean_s)):
            self._chance.choices(kinds, [20, 4, 1, 2])[0]()

    def _worker(self) -> int | None:
        guests = [guest for guest in self._stage.guests() if not guest.is_threads]
        pids = [pid for guest in guests for pid in guest.pool.pids().values()]
        return self._chance.choice(pids) if pids else None

    def _signal(self) -> None:
        if (pid := self._worker()) is None:
            return
        name = self._chance.choice(sorted(SIGNALS))
        self._hit(pid, name, SIGNALS[name])

    def _stop(self) -> None:
        if (pid := self._worker()) is None:
            return
        self._hit(pid, "stopped", signal.SIGSTOP)
        self._stage.stop.wait(self._chance.uniform(0.0, 1.0))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _hit(self, pid: int, name: str, number: int) -> None:
        self._stage.deaths.by_fault(pid, name)
        self._stage.note_fault(name, f"worker {pid}")
        self._stage.counts["faults"] += 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def _kill_server(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for guest in self._stage.guests():
                for pid in guest.pool.pids().values() if guest.pool.start_method == "forkserver" else ():
                    self._end_server(psutil.Process(pid).parent())
                    return

    def _end_server(self, server: psutil.Process | None) -> None:
        if server is None or server.ppid() != os.getpid():  # the worker has just lost it: this is another
            return
        server.suspend()  # so that no worker is made that is not known here
        for child in server.children():
            self._stage.deaths.by_fault(child.pid, "lost its server")
        self._stage.note_fault("servers", f"server {server.pid}")
        self._stage.counts["faults"] += 1
        server.kill()

    def _replace(self) -> None:
        self._stage.replace_pool(self._chance)


class Interrupts:
    """Ctrl-C to the main thread, wherever it is within a call that it may interrupt."""

    def __init__(self, stage: Stage, mean_s: float) -> None:
        self._stage = stage
        self._chance = random.Random(f"{stage.seed}:interrupts")
        self._mean_s = mean_s
        self._is_armed = False
        self._sent_s: float | None = None

    def install(self) -> None:
        """In the main thread."""
        signal.signal(signal.SIGINT, self._handle)

    def _handle(self, _number: int, _frame: object) -> None:
        if self._is_armed:
            self._is_armed = False
            raise KeyboardInterrupt

    def arm(self, on: bool) -> None:  # a switch
        """The main thread may be interrupted from now on, or not any more."""
        self._is_armed = on
        if on:
            self._sent_s = None
        elif self._sent_s is not None:
            took_s, self._sent_s = time.monotonic() - self._sent_s, None
            self._stage.slowest_interrupt_s = max(self._stage.slowest_interrupt_s, took_s)

    def run(self) -> None:
        """Until the stage stops."""
        while not self._stage.stop.wait(self._chance.expovariate(1 / self._mean_s)):
            if self._is_armed:
                self._sent_s = time.monotonic()
                self._stage.note_fault("interrupts", "main thread")
                os.kill(os.getpid(), signal.SIGINT)
