"""The main thread does the pool's work while it would only wait; whatever breaks in leaves the pool usable."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

import nbpar
from nbpar.errors import JobInterrupt
from tests.helpers import run_script, until

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no alarms")


class Witness:
    """A result that tells in which thread of the kernel it was rebuilt."""

    def __getstate__(self) -> dict[str, int]:
        return {"thread": 0}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.thread = threading.get_ident()


def witness(_item: int) -> Witness:
    return Witness()


def double(x: int) -> int:
    return 2 * x


@pytest.fixture(scope="module")
def pool() -> Iterator[nbpar.WorkerPool]:
    with nbpar.WorkerPool(n_workers=2) as made:
        made.map(double, range(100))
        while len(made.pids()) < 2:
            time.sleep(0.01)
        made.map(double, range(100))
        yield made


def test_a_short_map_changes_threads_not_once(pool: nbpar.WorkerPool) -> None:
    # On a loaded machine a map may last longer than the main thread helps; one of twenty does not.
    me = threading.get_ident()
    assert any({one.thread for one in pool.map(witness, range(4))} == {me} for _ in range(20))
    assert any(pool.submit(witness, 0).result().thread == me for _ in range(20))


def test_another_thread_leaves_the_work_to_the_dispatcher(pool: nbpar.WorkerPool) -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.extend(one.thread for one in pool.map(witness, range(4))))
    thread.start()
    thread.join()
    assert len(found) == 4
    assert threading.get_ident() not in found
    assert thread.ident not in found


def test_a_job_of_another_thread_goes_on_while_the_main_thread_maps(pool: nbpar.WorkerPool) -> None:
    found: list[int] = []

    def work() -> None:
        for _ in range(50):
            found.extend(pool.map(double, range(10)))

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(50):
        assert pool.map(double, range(10)) == list(range(0, 20, 2))
    thread.join()
    assert found == list(range(0, 20, 2)) * 50


# A script of its own, since it takes the alarm that ends a test which hangs. Its watchdog is a thread and tells where.
BROKEN_OFF = """
import faulthandler, os, random, signal, sys
import nbpar

class AlarmError(Exception):
    pass

def ring(number, frame):
    if sys.argv[1] == "SIGALRM":
        raise AlarmError
    os.kill(os.getpid(), signal.SIGINT)

def map_until_broken_off(pool, after_s):
    # Python drops what a handler raises inside a finalizer: so there is another alarm after a while.
    signal.setitimer(signal.ITIMER_REAL, after_s, 0.2)
    try:
        while True:
            assert pool.map(abs, range(20)) == list(range(20))
            assert pool.submit(abs, -4).result() == 4
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)

faulthandler.dump_traceback_later(25, exit=True)
signal.signal(signal.SIGALRM, ring)
dice = random.Random()
with nbpar.WorkerPool(n_workers=2) as pool:
    pool.map(abs, range(100))
    n_broken = 0
    for _ in range(100):
        try:
            map_until_broken_off(pool, dice.uniform(1e-5, 1.5e-3))
        except AlarmError if sys.argv[1] == "SIGALRM" else KeyboardInterrupt:
            n_broken += 1
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    print(n_broken, pool.map(abs, range(1000)) == list(range(1000)), len(pool.pids()))
"""


@pytest.mark.parametrize("number", ["SIGALRM", "SIGINT"])
def test_the_pool_works_on_whenever_a_signal_comes(number: str) -> None:
    assert run_script(BROKEN_OFF, number) == "100 True 2\n"


def test_an_interrupt_of_a_short_map_keeps_its_results(pool: nbpar.WorkerPool) -> None:
    def slow(x: int) -> int:
        time.sleep(60 if x == 3 else 0)
        return x

    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(JobInterrupt, match="3 of 4 results are kept"):
        pool.map(slow, range(4), chunk_size=1)
    assert nbpar.jobs()[-1].results == [0, 1, 2]
    assert pool.map(double, [1, 2]) == [2, 4]


def test_one_dispatcher_runs_when_an_interrupt_hits_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    wait = threading.Event.wait

    def interrupted(_self: threading.Event, _timeout: float | None = None) -> bool:
        monkeypatch.setattr(threading.Event, "wait", wait)
        raise KeyboardInterrupt  # in Thread.start(), before the new thread has told its ident

    def n_dispatchers() -> int:
        return sum(one.name == "nbpar-dispatcher" for one in threading.enumerate())

    n_before = n_dispatchers()
    for _ in range(10):
        with nbpar.WorkerPool(n_workers=1) as made:
            monkeypatch.setattr(threading.Event, "wait", interrupted)
            with pytest.raises(KeyboardInterrupt):
                made.map(abs, [1])
            assert made.map(abs, range(3)) == [0, 1, 2]
            until(lambda: n_dispatchers() == n_before + 1)


def test_a_done_callback_may_ask_for_the_result(pool: nbpar.WorkerPool) -> None:
    found: list[object] = []
    future = pool.submit(time.sleep, 0.2)  # so that the callback is there before the result
    future.add_done_callback(lambda one: found.append(one.result(timeout=5)))
    future.result(timeout=10)
    until(lambda: found == [None])
