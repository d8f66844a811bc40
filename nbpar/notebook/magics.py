"""``%%parallel``, ``%parallel`` and ``%nbpar``: what a user writes, turned into calls of a pool.

Owns the magics themselves: reading a line, finding the cell's text and file name, choosing the verb of the pool,
storing or showing the result, and turning refusals into one message. Registered by :mod:`nbpar.notebook`.
"""

from __future__ import annotations

import argparse
import ast
import linecache
import re
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

from IPython.core.display_functions import display
from IPython.core.displayhook import DisplayHook
from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, needs_local_scope, no_var_expand

from nbpar.api import default_pool
from nbpar.errors import NbparError, OptionsError
from nbpar.history import jobs
from nbpar.notebook.cells import each_task, evaluate, read_header, suggest_each
from nbpar.notebook.completer import SUBCOMMANDS
from nbpar.notebook.comprehensions import read_comprehension
from nbpar.notebook.debug import failed_task
from nbpar.notebook.dry_run import plan_of_comprehension, plan_of_each, plan_of_loop
from nbpar.notebook.loop_model import Loop
from nbpar.notebook.loop_run import run_loop
from nbpar.notebook.loops import read_loop
from nbpar.notebook.options import PARALLEL, map_options, parse, said_in_options, split_options, with_arguments
from nbpar.notebook.plan import Plan
from nbpar.notebook.pools import all_pools, pool_of, restart_pools, shutdown_pools
from nbpar.notebook.rehearsal import imap_and_check, map_and_check
from nbpar.notebook.source import Place, Refused, Source, aligned
from nbpar.notebook.status import status_text
from nbpar.wire.exceptions import strip_own_frames

__all__ = ["NbparMagics"]


@magics_class
class NbparMagics(Magics):
    """The magics of nbpar."""

    @no_var_expand
    @needs_local_scope
    @line_cell_magic
    @with_arguments(*PARALLEL)
    def parallel(self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None) -> Any:
        """Run a loop, a cell for each item, or a comprehension, on all cores.

        ::

            %%parallel
            total, good = 0, []
            for x in xs:
                y = simulate(x)
                total += y.score
                if y.ok:
                    good.append(y)

        runs the body of the loop for each item, and what stands around it in the notebook. Afterwards the names are
        what the loop leaves without the first line; where that cannot be, it is refused, and says why. ::

            %%parallel -o results each x in xs
            y = simulate(x)
            y.score

        runs the cell for each item of xs; its last expression is the item's result. Names assigned in it belong to the
        task, others are the notebook's. Without -o the list of results is shown. Options stand before `each`. ::

            results = %parallel -j 4 [f(x) for x in xs if ok(x)]

        gives what the list, set or dict comprehension gives; all, any, dict, frozenset, list, max, min, set, sorted,
        sum and tuple may stand around it. With --dry-run nothing runs, and all three show what would.
        """
        __tracebackhide__ = True
        words, at = split_options(line)
        options = parse(self, "parallel", words)
        if cell is None:
            source, column, is_silent = self._source_of_line(line[at:])
            if options.dry_run:
                return _reported(source, lambda: self._look_at_line(source, options, local_ns or {}))
            value = _reported(source, lambda: self._comprehension(source, column, options, local_ns or {}))
            return None if is_silent else value
        source = self._source_of_cell(line, cell)
        if options.dry_run:
            return _reported(source, lambda: self._look_at_cell(source, line[at:], options))
        run = self._each if line[at:].strip() else self._loop
        return _reported(source, lambda: run(source, line[at:], options))

    @no_var_expand
    @line_magic
    @with_arguments(
        (("--force",), {"action": "store_true", "help": "debug: run the item although it ended its worker."}),
        (("action",), {"nargs": "?", "default": "status", "help": "status (default), restart, shutdown or debug."}),
        (("job",), {"nargs": "?", "help": "debug: the job's id; by default the last with failures."}),
        (("index",), {"nargs": "?", "help": "debug: the item's position; by default the first that failed."}),
    )
    def nbpar(self, line: str) -> Any:
        """Look at the workers and the jobs, and look after them.

        ::

            %nbpar status            the workers and the latest jobs
            %nbpar restart           new workers; running tasks end first
            %nbpar shutdown          no workers; the next map starts new ones
            %nbpar debug [JOB] [INDEX]

        The last runs a failed item again in the kernel, so that its exception is raised here and %debug can look at it.
        """
        __tracebackhide__ = True
        options = parse(self, "nbpar", line)
        if options.action not in SUBCOMMANDS:
            raise UsageError(f"%nbpar {options.action} is not allowed; allowed: {', '.join(SUBCOMMANDS)}")
        if options.action != "debug" and (options.job or options.force):
            raise UsageError(f"%nbpar {options.action} takes no arguments")
        return _reported(Source(""), lambda: self._look_after(options))

    # --- the forms ----------------------------------------------------------------------------------------------------

    def _each(self, source: Source, form: str, options: argparse.Namespace) -> Any:
        __tracebackhide__ = True
        first_line, _, below = source.text.partition("\n")
        column = len(first_line) - len(form)
        body = source.parse(below, line=2)
        _check_form(form, column, body)
        header = read_header(form[4:], source, column=column + 4)
        task = each_task(header, self._by_users_transformers(body), source, self._namespace)
        pool = pool_of(options.workers)
        items = evaluate(header.iterable, source, self._namespace)
        call = map_options(options, f"each {header.text}")
        if options.background and options.check is not None:
            raise Refused("--check compares results, and --background does not wait for them: leave out one of the two")
        if options.background:
            job = pool.map_async(task.function, items, **call)
            if (name := options.output) is not None:
                print(f"{name} is the job: `await {name}` or {name}.result() gives the list.")  # noqa: T201
            return self._given(job, options)
        results = map_and_check(pool.map, task.function, items, options.check, call)
        if options.output is None and (_ends_with_semicolon(below) or all(one is None for one in results)):
            return None  # as a cell that ends with a statement, with print(...) or with a semicolon
        return self._given(results, options)

    def _loop(self, source: Source, _form: str, options: argparse.Namespace) -> Any:
        __tracebackhide__ = True
        below = source.text.partition("\n")[2]
        body = self._by_users_transformers(source.parse(below, line=2))
        _check_loop_options(options)
        loop = read_loop(body, source, seeded=options.seed is not None, namespace=self._namespace)
        value = run_loop(
            loop,
            source,
            self._namespace,
            pool=pool_of(options.workers),
            call=map_options(options, loop.header),
            check=options.check,
            interactivity=self._shell.ast_node_interactivity,
        )
        return None if _ends_with_semicolon(below) else value

    def _comprehension(self, source: Source, column: int, options: argparse.Namespace, local_ns: dict[str, Any]) -> Any:
        __tracebackhide__ = True
        if options.background:
            raise Refused("%parallel gives the comprehension's value; --background is for %%parallel each")
        scope = None if local_ns is self._namespace else local_ns
        found = read_comprehension(source, self._namespace, scope, column=column)
        if options.on_error == "return" and not found.keeps_errors:
            raise Refused("--on-error return: the value has no place for an error; allowed here: raise, skip")
        call = map_options(options, f"%parallel {' '.join(source.text.split())}")
        pool = pool_of(options.workers)
        if not found.stops_early:
            results = map_and_check(pool.map, found.task, found.items, options.check, call)
            return self._given(found.value(results), options)
        outcomes: Any  # a generator: its end cancels what is not needed any more
        if options.check is None:
            outcomes = pool.imap(found.task, found.items, **call)
        else:
            outcomes = imap_and_check(pool.imap, found.task, found.items, options.check, call)
        try:
            return self._given(found.value(outcomes), options)
        finally:
            outcomes.close()

    def _given(self, value: Any, options: argparse.Namespace) -> Any:
        """Store a value under the name of ``-o``, or give it to be shown."""
        if options.output is None:
            return value
        self._shell.push({options.output: value})
        return None

    # --- --dry-run ----------------------------------------------------------------------------------------------------

    def _look_at_cell(self, source: Source, form: str, options: argparse.Namespace) -> None:
        first_line, _, below = source.text.partition("\n")
        body = self._by_users_transformers(source.parse(below, line=2))
        n_workers = options.workers or default_pool().n_workers
        if form.strip():
            column = len(first_line) - len(form)
            _check_form(form, column, body)
            _show(plan_of_each(form[4:], body, source, self._namespace, column=column + 4, n_workers=n_workers))
            return

        def read() -> Loop:
            _check_loop_options(options)
            return read_loop(body, source, seeded=options.seed is not None, namespace=self._namespace)

        _show(plan_of_loop(read, body, source, self._namespace, n_workers=n_workers))

    def _look_at_line(self, source: Source, options: argparse.Namespace, local_ns: dict[str, Any]) -> None:
        scope = None if local_ns is self._namespace else local_ns
        n_workers = options.workers or default_pool().n_workers
        _show(plan_of_comprehension(source, self._namespace, scope, n_workers=n_workers))
        if not linecache.getline(source.filename, source.first_line).lstrip().startswith("get_ipython()"):
            raise UsageError("--dry-run gives no value: nothing was assigned, and the cell ends here")

    # --- %nbpar -------------------------------------------------------------------------------------------------------

    def _look_after(self, options: argparse.Namespace) -> Any:
        __tracebackhide__ = True
        if options.action == "status":
            print(status_text(all_pools(), jobs()))  # noqa: T201  # this and the next: what was asked for
        elif options.action == "restart":
            restart_pools()
            print("The workers are replaced as they get free.")  # noqa: T201
        elif options.action == "shutdown":
            shutdown_pools()
            print("The workers end with their jobs; the next map starts new ones.")  # noqa: T201
        else:
            job_id, index = _number("JOB", options.job), _number("INDEX", options.index)
            sentence, task = failed_task(jobs(), job_id, index, force=options.force)
            print(sentence)  # noqa: T201
            value = task()
            print("This time it succeeded; its value:")  # noqa: T201
            return value
        return None

    # --- the notebook -------------------------------------------------------------------------------------------------

    @property
    def _shell(self) -> Any:  # hardly any of its methods has types
        return self.shell

    @property
    def _namespace(self) -> dict[str, Any]:
        namespace: dict[str, Any] = self._shell.user_ns
        return namespace

    def _source_of_cell(self, line: str, cell: str) -> Source:
        """The whole cell, known to tracebacks under the name that IPython gives it, its own lines at their numbers."""
        try:
            below = aligned(cell, self._shell.transform_cell(cell))
        except SyntaxError as error:  # of an input transformer
            raise UsageError(f"%%parallel: this is not Python: {error.msg}") from None
        text, written = f"%%parallel {line}\n{below}", f"%%parallel {line}\n{cell}"
        compiler, frame = self._shell.compile, _frame_of_user()
        filename = frame.f_code.co_filename
        if compiler.format_code_name(filename) and "run_cell_magic" in linecache.getline(filename, frame.f_lineno):
            linecache.cache[filename] = len(text), None, text.splitlines(keepends=True), filename
        else:  # called by code, or below another cell magic
            filename = compiler.cache(text, self._cell_number(frame), raw_code=written)
        return Source(text, written, filename, self._label(filename), compiler.flags)

    def _source_of_line(self, expression: str) -> tuple[Source, int, bool]:
        """The expression as a text, its column in the line of the file, and whether a semicolon hides its value."""
        frame = _frame_of_user()
        filename, number = frame.f_code.co_filename, frame.f_lineno
        written = linecache.getline(filename, number)
        stripped = expression.rstrip().removesuffix(";")
        column = max(written.find(stripped), 0)
        # Behind `ys = %parallel ...` a semicolon hides nothing, and the value is asked for.
        is_silent = expression.rstrip().endswith(";") and written.lstrip().startswith("get_ipython()")
        source = Source(stripped, "", filename, self._label(filename), self._shell.compile.flags, number)
        return source, column, is_silent

    def _cell_number(self, frame: FrameType | None) -> int:
        """Number of the cell that runs; the shell's own count is ahead of it since IPython 9."""
        while frame is not None:
            if name := self._shell.compile.format_code_name(frame.f_code.co_filename):
                return int("".join(filter(str.isdecimal, name[1])) or 0)
            frame = frame.f_back
        return int(self._shell.execution_count)

    def _label(self, filename: str) -> str:
        return " ".join(self._shell.compile.format_code_name(filename) or ("File", filename))

    def _by_users_transformers(self, body: ast.Module) -> ast.Module:
        transformed = self._shell.transform_ast(body)
        assert isinstance(transformed, ast.Module)
        return transformed


def _reported(source: Source, call: Callable[[], Any]) -> Any:
    """Call; what is refused becomes one message, and tracebacks begin with the user's own frames."""
    __tracebackhide__ = True
    try:
        return call()
    except Refused as refused:
        raise UsageError(source.describe(refused)) from None
    except OptionsError as error:
        if strip_own_frames(error).__traceback__ is not None:  # raised by a call of the user's own
            raise
        raise UsageError(said_in_options(error)) from None
    except BaseException as error:
        strip_own_frames(error)
        if isinstance(error, NbparError) and error.__traceback__ is None:
            # Nothing of the user's led to it: its message is all there is to show. IPython asks for this attribute.
            error._render_traceback_ = partial(_one_line, error)  # type: ignore[attr-defined]
        raise


_INSTEAD = {
    "-o": (
        "names the results of the `each` form. A loop puts its results where it says: `results.append(...)`, with "
        "`results = []` above the loop"
    ),
    "--background": (
        "is for the `each` form, whose results are the job's. A loop changes the notebook's own objects, and these "
        "would change beneath the cells that follow"
    ),
    "--on-error return": (
        "has no place to put an error in a loop. Catch it in the body, with `try`, and append it; or use "
        "--on-error skip, with which a failing iteration leaves nothing behind"
    ),
}
"""Options that a loop does not take, and what to do."""


def _check_form(form: str, column: int, body: ast.Module) -> None:
    """Refuse what follows the options, and does not begin with `each`."""
    if not re.match(r"each\b", form):
        raise Refused(
            f"%%parallel: `{form}` is no form of it. Above a loop stand options alone. In the `each` form "
            f"the cell is the task, for one item: begin it with\n    {suggest_each(body)}\n  and make what it "
            f"gives its last expression",
            Place(1, column, 1, column + len(form)),
        )


def _check_loop_options(options: argparse.Namespace) -> None:
    for option, is_set in (("-o", options.output), ("--background", options.background)):
        if is_set:
            raise Refused(f"{option} {_INSTEAD[option]}")
    if options.on_error == "return":
        raise Refused(f"--on-error return {_INSTEAD['--on-error return']}")


def _show(plan: Plan) -> None:
    shown: Any = display  # it has no types
    shown(plan)


def _one_line(error: NbparError) -> list[str]:
    return [f"{type(error).__name__}: {error}"]


def _frame_of_user() -> FrameType:
    """The frame that called the magic: the first that is neither nbpar's nor IPython's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in ("nbpar", "IPython"):
        frame = frame.f_back
    return frame or sys._getframe(1)


def _ends_with_semicolon(text: str) -> bool:
    try:
        hook: Any = DisplayHook
        return bool(hook.semicolon_at_end_of_expression(text))
    except Exception:  # noqa: BLE001  # tokenize finds fault with more than the parser does
        return False


def _number(what: str, text: str | None) -> int | None:
    if text is None or text.isdecimal():
        return None if text is None else int(text)
    raise UsageError(f"%nbpar debug: {what}={text!r} is not allowed; allowed: a whole number, 0 or more")
