"""Pools in kernels with threads, event loops, signal handlers and forks of their own; forks that cannot work."""

from __future__ import annotations

import sys
import threading
import types
import warnings
from pathlib import Path

import pytest

import nbpar
from nbpar.backends import hazards
from nbpar.errors import OptionsError
from tests.backends.conftest import PROCESSES
from tests.helpers import run_script

START = """
import faulthandler, os, signal, sys, threading, time
import nbpar
faulthandler.dump_traceback_later(25, exit=True)
method = sys.argv[1]
"""

EXEC_BASED = ("forkserver", "spawn")
SHARED_METHODS = ("forkserver", "fork", "threads")  # once they run, spawned workers are as those of the fork server

# --- what other threads hold while a pool starts ----------------------------------------------------------------------

HELD = {
    "a lock of the notebook's": """
lock = threading.Lock()
taken, done = threading.Event(), threading.Event()
def hold():
    with lock:
        taken.set()
        done.wait(20)
def task(x):
    with lock:
        return x + 1
thread = threading.Thread(target=hold, daemon=True)
thread.start()
taken.wait()
""",
    "an import half done": """
import pathlib, tempfile
folder = pathlib.Path(tempfile.mkdtemp())
(folder / "slow_module.py").write_text(
    "import sys, threading\\n"
    "if hasattr(sys, 'nbpar_done'):\\n"
    "    sys.nbpar_taken.set(); sys.nbpar_done.wait(20)\\n"
    "def plus(x): return x + 1\\n"
)
sys.path.insert(0, str(folder))
sys.nbpar_taken, sys.nbpar_done = taken, done = threading.Event(), threading.Event()
def task(x):
    import slow_module
    return slow_module.plus(x)
thread = threading.Thread(target=lambda: __import__("slow_module"), daemon=True)
thread.start()
taken.wait()
""",
}


@pytest.mark.parametrize("what", HELD)
@pytest.mark.parametrize("method", EXEC_BASED)
def test_workers_start_and_run_while_another_thread_holds(method: str, what: str) -> None:
    code = f"""
{HELD[what]}
with nbpar.WorkerPool(n_workers=2, start_method=method) as pool:
    job = pool.map_async(task, range(8), progress=False)
    print(job.result(timeout=15))
    print(thread.is_alive())
done.set()
thread.join()
"""
    assert run_script(START + code, method) == "[1, 2, 3, 4, 5, 6, 7, 8]\nTrue\n"


OPENMP = """
#include <omp.h>
double work(int n) {
    double sum = 0;
    #pragma omp parallel for num_threads(2) reduction(+:sum)
    for (int i = 0; i < n; i++) sum += i;
    return sum;
}
"""


@pytest.mark.parametrize("method", EXEC_BASED)
def test_workers_run_when_blas_is_warm_in_the_kernel(method: str) -> None:
    code = """
import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits
a = np.random.default_rng(0).normal(size=(400, 400))
with threadpool_limits(2):
    expected = a @ a
    assert threadpool_info(), "no BLAS with threads here"
    with nbpar.WorkerPool(n_workers=2, start_method=method, threads_per_worker=2) as pool:
        found = pool.map(lambda n: a @ a, range(4), chunk_size=1, timeout=15)
print(all(np.allclose(one, expected) for one in found))
"""
    assert run_script(START + code, method) == "True\n"


@pytest.fixture(scope="session")
def openmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A C library whose loop is shared out by OpenMP."""
    import shutil
    import subprocess

    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler here to make an OpenMP library with")
    folder = tmp_path_factory.mktemp("openmp")
    (folder / "work.c").write_text(OPENMP)
    command = [compiler, "-fopenmp", "-shared", "-fPIC", "-o", str(folder / "libwork.so"), str(folder / "work.c")]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"the C compiler here has no OpenMP: {made.stderr[-200:]}")
    return folder / "libwork.so"


OPENMP_WORK = """
import ctypes
def work(path, n):
    library = ctypes.CDLL(path)
    library.work.restype = ctypes.c_double
    return library.work(n)
path = sys.argv[2]
assert work(path, 1000) == 499500  # from here on libgomp has threads in this process
"""


@pytest.mark.parametrize("method", EXEC_BASED)
def test_workers_run_openmp_when_it_is_warm_in_the_kernel(method: str, openmp: Path) -> None:
    code = """
with nbpar.WorkerPool(n_workers=2, start_method=method) as pool:
    print(pool.map(lambda n: work(path, n), [10, 100, 1000, 10000], chunk_size=1, timeout=15))
"""
    assert run_script(START + OPENMP_WORK + code, method, str(openmp)) == "[45.0, 4950.0, 499500.0, 49995000.0]\n"


def test_a_fork_is_warned_of_when_openmp_is_warm(openmp: Path) -> None:
    code = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with nbpar.WorkerPool(n_workers=1, start_method="fork") as pool:
        assert pool.map(abs, [-1]) == [1]
(one,) = [str(one.message) for one in caught if one.category is RuntimeWarning]
print("OpenMP may have threads here (libgomp" in one, one.count("forkserver"))
"""
    assert run_script(START + OPENMP_WORK + code, "fork", str(openmp)) == "True 1\n"


# --- forks that cannot work -------------------------------------------------------------------------------------------


def fake_torch(monkeypatch: pytest.MonkeyPatch, *, initialized: bool) -> types.SimpleNamespace:
    cuda = types.SimpleNamespace(is_initialized=lambda: initialized)
    torch = types.ModuleType("torch")
    torch.cuda = cuda  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    return cuda


REFUSED = (
    r"start_method='fork' is not allowed; allowed: 'forkserver' \(the default\) or 'spawn' in this process, "
    r"where CUDA is initialised \(torch\.cuda\.is_initialized\(\)\)"
)


def test_fork_is_refused_when_torch_has_initialised_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, initialized=True)
    with pytest.raises(OptionsError, match=REFUSED):
        nbpar.WorkerPool(n_workers=1, start_method="fork")


@pytest.mark.parametrize("method", EXEC_BASED)
def test_other_methods_work_when_torch_has_initialised_cuda(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    fake_torch(monkeypatch, initialized=True)
    with nbpar.WorkerPool(n_workers=1, start_method=method) as pool:  # type: ignore[arg-type]
        assert pool.map(abs, [-1]) == [1]


def test_fork_works_when_torch_is_there_and_cuda_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, initialized=False)
    with nbpar.WorkerPool(n_workers=1, start_method="fork") as pool:
        assert pool.map(abs, [-1]) == [1]


def test_fork_works_when_the_module_by_the_name_of_torch_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    with nbpar.WorkerPool(n_workers=1, start_method="fork") as pool:
        assert pool.map(abs, [-1]) == [1]


def test_a_pool_starts_no_more_forks_once_cuda_is_initialised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the pool's making and a worker's start there may be hours."""
    cuda = fake_torch(monkeypatch, initialized=False)
    with nbpar.WorkerPool(n_workers=1, start_method="fork") as pool:
        cuda.is_initialized = lambda: True
        with pytest.raises(nbpar.WorkerStartError, match="CUDA is initialised"):
            pool.map(abs, [-1])
        cuda.is_initialized = lambda: False
        assert pool.map(abs, [-1]) == [1]


def test_fork_is_refused_when_the_cuda_driver_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever initialised it: its devices are open, and its library is mapped."""
    maps = "7f00-7f01 r-xp 00000000 08:01 42 /usr/lib/x86_64-linux-gnu/libcuda.so.550.54\n"
    monkeypatch.setattr(hazards, "_open_files", lambda: iter(["/dev/null", "/dev/nvidia0", "/dev/nvidia-uvm"]))
    monkeypatch.setattr(hazards, "_maps", lambda: maps)
    with pytest.raises(OptionsError, match=r"CUDA is initialised \(the driver has /dev/nvidia-uvm open\)"):
        nbpar.WorkerPool(n_workers=1, start_method="fork")
    # A monitor of the GPUs has the devices open, and no context that a fork could break.
    monkeypatch.setattr(hazards, "_maps", lambda: maps.replace("libcuda", "libnvidia-ml"))
    hazards.refuse_fork_with_cuda()


def test_open_files_are_seen_as_they_are(tmp_path: Path) -> None:
    with (tmp_path / "nvidia0").open("w"):
        assert str(tmp_path / "nvidia0") in list(hazards._open_files())
    assert str(tmp_path / "nvidia0") not in list(hazards._open_files())
    assert "libc" in hazards._maps()


def test_a_fork_with_threads_is_warned_of_once_for_each_pool_at_the_users_line() -> None:
    release = threading.Event()
    others = [threading.Thread(target=release.wait, name=f"mine-{n}", daemon=True) for n in range(6)]
    for thread in others:
        thread.start()
    try:
        for _ in range(2):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                with nbpar.WorkerPool(n_workers=2, start_method="fork") as pool:
                    assert pool.map(abs, [-1, -2]) == [1, 2]
                    pool.restart()
                    assert pool.map(abs, [-1, -2]) == [1, 2]
            found = [one for one in caught if issubclass(one.category, RuntimeWarning)]
            assert len(found) == 1
            assert found[0].filename == __file__
            message = str(found[0].message)
            assert 'start_method="fork"' in message and "mine-0" in message and "more)" in message
            assert '"forkserver", the default, has no such risk' in message
    finally:
        release.set()
        for thread in others:
            thread.join()


@pytest.mark.parametrize("method", EXEC_BASED)
def test_no_other_method_is_warned_of(method: str) -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait, daemon=True)
    thread.start()
    try:
        with nbpar.WorkerPool(n_workers=1, start_method=method) as pool:  # type: ignore[arg-type]  # warnings are errors
            assert pool.map(abs, [-1]) == [1]
    finally:
        release.set()
        thread.join()


# --- one pool, many callers -------------------------------------------------------------------------------------------

SHARED_BY_ALL = """
import asyncio, random
pool = nbpar.WorkerPool(n_workers=2, start_method=method)
problems = []
n_done = {}

def guarded(name):
    def wrap(function):
        def run(*args):
            try:
                function(*args)
            except BaseException as error:
                problems.append((name, repr(error)))
            n_done[name] = n_done.get(name, 0) + 1
        return run
    return wrap

@guarded("mapper")
def mapper(seed):
    for n in range(15):
        add = seed * 1000 + n
        assert pool.map(lambda x: x + add, range(20)) == list(range(add, add + 20))
        assert list(pool.imap(lambda x: x * add, range(30))) == [x * add for x in range(30)]
        futures = [pool.submit(pow, add, k) for k in range(4)]
        assert [future.result(timeout=20) for future in futures] == [add**k for k in range(4)]

@guarded("canceller")
def canceller():
    for n in range(15):
        job = pool.map_async(lambda x: (time.sleep(0.002), x)[1], range(10_000), progress=False)
        time.sleep(0.005)
        job.cancel()
        try:
            job.result(timeout=20)
        except nbpar.JobCancelledError:
            pass
        found = job.results_by_index
        assert all(i == value for i, value in found.items()), found
        stream = pool.imap(lambda x: -x, iter(range(10_000)))
        assert [next(stream) for _ in range(5)] == [0, -1, -2, -3, -4]
        del stream  # reading ends, and so does its job

@guarded("loop")
def loop():
    async def one(n):
        job = pool.map_async(lambda x: x - n, range(20), progress=False)
        assert await job == [x - n for x in range(20)]
        assert await pool.submit(divmod, n, 7) == divmod(n, 7)
        cancelled = pool.map_async(time.sleep, [30] * 4, progress=False)
        cancelled.cancel()
        try:
            await cancelled
        except nbpar.JobCancelledError:
            return n
        raise AssertionError("it was not cancelled")
    async def all_of_them():
        assert await asyncio.gather(*(one(n) for n in range(10))) == list(range(10))
    asyncio.run(all_of_them())

threads = [threading.Thread(target=mapper, args=(1,)), threading.Thread(target=loop),
           threading.Thread(target=canceller)]
for thread in threads: thread.start()
mapper(2)  # the main thread, too
for thread in threads: thread.join()
print(problems, sorted(n_done.items()), pool.map(abs, [-1]))
"""


@pytest.mark.parametrize("method", SHARED_METHODS)
def test_threads_and_an_event_loop_share_a_pool_and_each_gets_its_own_results(method: str) -> None:
    out = run_script(START + SHARED_BY_ALL, method)
    assert out == "[] [('canceller', 1), ('loop', 1), ('mapper', 2)] [1]\n"


@pytest.mark.parametrize("method", SHARED_METHODS)
def test_maps_run_in_the_tasks_of_a_thread_pool(method: str) -> None:
    code = """
import warnings
from concurrent.futures import ThreadPoolExecutor
if method == "fork":  # it is made while eight threads run, and says so
    warnings.simplefilter("ignore", RuntimeWarning)
nbpar.configure(n_workers=2, start_method=method)
def work(n):
    return nbpar.map(lambda x: x * n, range(25)) + [nbpar.submit(pow, n, 2).result(timeout=20)]
with ThreadPoolExecutor(8) as executor:
    found = list(executor.map(work, range(40)))
print(found == [[x * n for x in range(25)] + [n * n] for n in range(40)])
print(sum(thread.name == "nbpar-dispatcher" for thread in threading.enumerate()))
"""
    assert run_script(START + code, method) == "True\n1\n"


@pytest.mark.parametrize("cancel", [False, True])
@pytest.mark.parametrize("method", SHARED_METHODS)
def test_a_pool_that_one_thread_shuts_down_refuses_the_others_and_none_hangs(method: str, cancel: bool) -> None:
    code = """
cancel = sys.argv[2] == "True"
ends = []
def use(pool, how):
    try:
        while True:
            if how == "map":
                assert pool.map(abs, range(50)) == list(range(50))
            elif how == "imap":
                assert list(pool.imap(abs, range(50))) == list(range(50))
            elif how == "submit":
                assert pool.submit(abs, -3).result(timeout=20) == 3
            else:
                assert pool.map_async(abs, range(50), progress=False).result(timeout=20) == list(range(50))
    except BaseException as error:
        ends.append(error)

for n in range(6):
    pool = nbpar.WorkerPool(n_workers=2, start_method=method)
    threads = [threading.Thread(target=use, args=(pool, how)) for how in ("map", "imap", "submit", "async") * 2]
    for thread in threads: thread.start()
    while n and not pool.pids(): time.sleep(0.001)  # the first is shut down while its workers start
    time.sleep(0.01 * n)
    pool.shutdown(cancel=cancel)
    for thread in threads: thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
print(len(ends), sorted({(type(end).__name__, str(end)) for end in ends}))
"""
    out = run_script(START + code, method, str(cancel))
    n_ends, _, kinds = out.partition(" ")
    assert n_ends == "48"
    allowed = {"PoolClosedError"}
    if cancel or "JobCancelledError" in kinds:  # what ran was cancelled; a stream is in any case
        allowed |= {"JobCancelledError", "CancelledError"}
    found: set[str] = {name for name, _ in eval(kinds)}
    assert found <= allowed, kinds
    assert "PoolClosedError" in found or cancel, kinds


# --- signals and forks of the user's own ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", PROCESSES)
def test_pools_work_when_nobody_waits_for_children(method: str) -> None:
    """SIGCHLD ignored: no exit code of a child can be learnt, and nothing may depend on one."""
    code = """
from tests.helpers import descriptors, processes, until
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
with nbpar.WorkerPool(n_workers=1, start_method=method) as first: first.map(abs, [-1])
n_before, before = len(descriptors()), processes()
for _ in range(2):
    with nbpar.WorkerPool(n_workers=2, start_method=method) as pool:
        assert pool.map(abs, range(50)) == list(range(50))
        (error,) = pool.map(lambda x: os.kill(os.getpid(), signal.SIGKILL), [0], on_error="return")
        assert isinstance(error, nbpar.WorkerDiedError), error
        assert pool.map(abs, range(50)) == list(range(50))
        if method == "forkserver":  # its end cannot be learnt either
            from nbpar.backends.forkserver import server
            os.kill(server.pid, signal.SIGKILL)
            assert pool.map(abs, range(50), retries=3) == list(range(50))
until(lambda: len(descriptors()) <= n_before and processes() <= before, within_s=5)
print("right")
"""
    assert run_script(START + code, method) == "right\n"


@pytest.mark.parametrize("method", SHARED_METHODS)
def test_an_alarm_of_the_users_own_rings_while_maps_run(method: str) -> None:
    code = """
n_rings = 0
def ring(number, frame):
    global n_rings
    n_rings += 1
signal.signal(signal.SIGALRM, ring)
with nbpar.WorkerPool(n_workers=2, start_method=method) as pool:
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    for _ in range(20):
        assert pool.map(lambda x: (time.sleep(0.001), x)[1], range(20), chunk_size=1) == list(range(20))
        assert list(pool.imap(abs, range(20))) == list(range(20))
    long = n_rings
    pool.map(lambda x: time.sleep(0.3), range(2), chunk_size=1)  # they come while it only waits
    during = n_rings - long
    signal.setitimer(signal.ITIMER_REAL, 0)
    handlers = pool.map(lambda x: signal.getsignal(signal.SIGALRM) is signal.SIG_DFL, [0])
print(during >= 5, signal.getsignal(signal.SIGALRM) is ring, handlers)
"""
    in_tasks = {"threads": False, "fork": False}.get(method, True)
    assert run_script(START + code, method) == f"True True [{in_tasks}]\n"


@pytest.mark.parametrize("method", PROCESSES)
def test_a_fork_of_the_users_own_goes_its_way_while_the_pool_goes_on(method: str) -> None:
    code = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks of processes with threads
def fork(child):
    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(9)
    return pid
pool = nbpar.WorkerPool(n_workers=2, start_method=method)
assert pool.map(abs, range(20)) == list(range(20))
job = pool.map_async(lambda x: (time.sleep(0.01), x)[1], range(50), chunk_size=1, progress=False)
pids = [fork(lambda: os._exit(0)), fork(lambda: sys.exit(0)), fork(lambda: os.kill(os.getpid(), signal.SIGKILL))]
stays = fork(lambda: time.sleep(20))  # it has copies of the pool's descriptors, and outlives it
assert pool.map(abs, range(20)) == list(range(20))
assert job.result(timeout=20) == list(range(50))
statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
(error,) = pool.map(lambda x: os.kill(os.getpid(), signal.SIGKILL), [0], on_error="return")
assert isinstance(error, nbpar.WorkerDiedError), error
assert pool.map(abs, range(20)) == list(range(20))
workers = list(pool.pids().values())
pool.shutdown()
from tests.helpers import alive, until
until(lambda: not any(alive(pid) for pid in workers), within_s=5)
os.kill(stays, signal.SIGKILL)
os.waitpid(stays, 0)
print(statuses)
"""
    assert run_script(START + code, method) == "[0, 9, -9]\n"


def test_the_kernel_may_print_while_pools_of_threads_end() -> None:
    """`print` holds no reference to the stream that it writes to, and the pool puts the former one back."""
    code = """
for n in range(150):
    print(nbpar.WorkerPool(n_workers=1, start_method=method).map(abs, [-n]))  # dropped, so it ends by and by
"""
    assert run_script(START + code, "threads") == "".join(f"[{n}]\n" for n in range(150))
