"""The one UI thread of the process: it asks jobs for snapshots ten times a second and hands them to their views.

A job calls :func:`watch` when it starts and :meth:`Watch.finish` when it ends. The thread lives while something is
watched. Whatever a view does wrong stays here: it is logged once and the view is dropped, the job goes on.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from nbpar.daemon import start_thread
from nbpar.engine.events import NO_WORKER, OutputLine
from nbpar.engine.snapshot import Snapshot, View

__all__ = ["Ticker", "Watch", "watch"]

TICK_S = 0.1
OPEN_AFTER_S = 0.3  # a shorter job is over before a picture of it could be read


class Watch:
    """One job's view being kept up to date; :func:`watch` makes it."""

    def __init__(
        self,
        ticker: Ticker,
        view: View,
        snapshot: Callable[[], Snapshot],
        lines: Callable[[], list[OutputLine]],
        tells_failure: bool,
    ) -> None:
        self._ticker = ticker
        self._view = view
        self._snapshot = snapshot
        self._lines = lines
        self._tells_failure = tells_failure
        # Held while the view is called: the ticker's thread and the one that ends the job never draw at once.
        self._lock = threading.RLock()
        self._opened = False
        self._n_said = 0  # notes that were read out, or are shown by the view
        self._over = False  # closed or dropped
        self._finishing = False

    def finish(self, *, wait: bool = True) -> None:
        """Draw the last lines and the end, once, however many threads ask for it.

        Parameters
        ----------
        wait : bool
            True: what there is to see has been drawn when this returns (for whoever waits for the job). False: the
            ticker's thread draws it at once (for a dispatcher, which must not wait for a view).
        """
        if wait:
            self._finish()
        else:
            self._finishing = True
            self._ticker.wake()

    def tick(self) -> None:
        """Draw what is new; called by the ticker's thread."""
        with self._lock:
            if self._finishing:
                self._finish()
            if not self._over:
                self._guard(self._draw)

    def open(self) -> None:
        """Draw at once, however young the job is."""
        with self._lock:
            if not (self._over or self._opened):
                self._guard(lambda: self._open(self._snapshot()))

    def abandon(self) -> None:
        """Never draw again; in the child of a fork, where the lock may be held by a thread that is not there."""
        self._lock = threading.RLock()
        self._over = True

    def _finish(self) -> None:
        with self._lock:
            if self._over:
                return
            self._guard(self._draw_end)
            self._over = True
        self._ticker.forget(self)

    def _draw(self) -> None:
        self._write()
        snapshot = self._snapshot()
        if snapshot.ended:
            return
        if self._opened:
            self._view.update(snapshot)
        elif snapshot.elapsed_s >= OPEN_AFTER_S:
            self._open(snapshot)
        if self._opened:
            self._say(snapshot)

    def _open(self, snapshot: Snapshot) -> None:
        self._opened = True
        self._view.open(snapshot)

    def _draw_end(self) -> None:
        self._write()
        snapshot = self._snapshot()
        is_asked_for = (self._tells_failure and snapshot.status == "failed") or snapshot.profile is not None
        if is_asked_for and not self._opened:
            self._open(snapshot)
        self._say(snapshot)
        if self._opened:
            self._view.close(snapshot)

    def _say(self, snapshot: Snapshot) -> None:
        """Write out what has to be read, where the view does not show it."""
        new, self._n_said = snapshot.aloud[self._n_said :], len(snapshot.aloud)
        if new and not (self._opened and getattr(self._view, "shows_notes", False)):
            self._view.write([OutputLine(NO_WORKER, None, "stderr", text) for text in new])

    def _write(self) -> None:
        lines = self._lines()
        if lines:
            self._view.write(lines)

    def _guard(self, draw: Callable[[], None]) -> None:
        try:
            draw()
        except MemoryError:  # what a task in a pool of threads has taken: the next tick may find some again
            pass
        except Exception:  # whatever a front end throws: the job is worth more than its picture
            self._over = True
            self._ticker.forget(self)
            import logging  # 7 ms that a sound view need not pay

            name = type(self._view).__name__
            logging.getLogger("nbpar").exception("nbpar: the view %s failed and is left out from now on", name)


class Ticker:
    """Owns the thread and the set of watches. The process has one; tests make their own.

    Parameters
    ----------
    tick_s : float
        Time between two ticks.
    """

    def __init__(self, tick_s: float = TICK_S) -> None:
        self._tick_s = tick_s
        self._watches: list[Watch] = []
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # guards the two above; never held while a view is called
        self._woken = threading.Event()

    def watch(
        self,
        view: View,
        snapshot: Callable[[], Snapshot],
        lines: Callable[[], list[OutputLine]],
        *,
        tells_failure: bool = False,
    ) -> Watch:
        """See :func:`watch`."""
        new = Watch(self, view, snapshot, lines, tells_failure)
        with self._lock:
            self._watches.append(new)
            if self._thread is None:
                try:
                    self._thread = start_thread(self._run, name="nbpar-ticker")
                except RuntimeError:  # no more threads, or the interpreter is going down: `finish` still draws
                    return new
        return new

    @property
    def thread(self) -> threading.Thread | None:
        """The thread, while there is one."""
        return self._thread

    def wake(self) -> None:
        """Let the next tick come now."""
        self._woken.set()

    def forget(self, watch: Watch) -> None:
        """Take a watch out; the thread ends when none is left."""
        with self._lock:
            if watch in self._watches:
                self._watches.remove(watch)
            if not self._watches:
                self._woken.set()

    def after_fork(self) -> None:
        """Forget the parent's thread and jobs; called in the child, where no other thread runs."""
        for watch in self._watches:
            watch.abandon()
        self._watches = []
        self._thread = None
        self._lock = threading.Lock()
        self._woken = threading.Event()

    def _run(self) -> None:
        while True:
            self._woken.wait(self._tick_s)
            self._woken.clear()
            with self._lock:
                if not self._watches:
                    self._thread = None  # under the lock: `watch` sees either a thread that will look again, or none
                    return
                watches = list(self._watches)
            for watch in watches:
                watch.tick()


_ticker = Ticker()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ticker.after_fork)


def watch(
    view: View,
    snapshot: Callable[[], Snapshot],
    lines: Callable[[], list[OutputLine]],
    *,
    tells_failure: bool = False,
) -> Watch:
    """Keep `view` up to date until :meth:`Watch.finish`.

    Parameters
    ----------
    view : View
        Draws. It is called by one thread at a time.
    snapshot : callable
        Gives the job's snapshot now; called from the ticker's thread and from the one that finishes.
    lines : callable
        Gives the lines that workers wrote since it was last called, [] when there are none.
    tells_failure : bool
        Draw a job that has failed also when it was short: nobody may be waiting for its exception.

    Returns
    -------
    Watch
        Whoever ends the job, or waits for it, calls its ``finish``.
    """
    return _ticker.watch(view, snapshot, lines, tells_failure=tells_failure)
