"""Which statements of a loop's body change something outside of it: the effects.

Owns the recognition. A change of an outer object by one of the operations of :data:`nbpar.notebook.loop_model.Kind` is
an effect, recorded by workers and done in the kernel; any other change of what is, or may be, an outer object is
refused; changes of what the iteration has made itself are its own affair. Asked by :mod:`nbpar.notebook.flow` at each
statement, with what is known at that point; :mod:`nbpar.notebook.sites` rewrites what was found.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from nbpar.notebook import loop_words as words
from nbpar.notebook.aliases import Value, join_values
from nbpar.notebook.flow import Flow
from nbpar.notebook.flow_state import ITEM_PART, SET
from nbpar.notebook.held import held
from nbpar.notebook.loop_model import Kind
from nbpar.notebook.scopes import free_names
from nbpar.notebook.shapes import extreme_name, path_of, root_of, unused_values

__all__ = ["Effect", "Effects"]

_METHODS: Mapping[str, Kind] = {"append": "append", "extend": "extend", "add": "add", "update": "update"}

_TAKES = frozenset(["pop", "popitem", "popleft", "setdefault"])  # change their object and give something

_CHANGES_NAMES = """
    appendleft extendleft insert remove discard clear sort reverse rotate move_to_end difference_update
    intersection_update symmetric_difference_update subtract fill resize put __setitem__ __delitem__ __iadd__ setflags
    byteswap itemset
"""
_CHANGES = frozenset(_CHANGES_NAMES.split())

_HANDED_ON = _CHANGES | _TAKES | _METHODS.keys()

# Functions that change their first argument.
_CHANGE_FIRST_NAMES = """
    setattr delattr operator.setitem operator.delitem operator.iadd heapq.heappush heapq.heappop heapq.heapify
    heapq.heapreplace heapq.heappushpop bisect.insort bisect.insort_left bisect.insort_right numpy.copyto numpy.put
    numpy.place numpy.putmask numpy.fill_diagonal numpy.put_along_axis random.shuffle numpy.random.shuffle list.append
    list.extend list.sort list.insert dict.update dict.pop dict.setdefault set.add set.update set.discard
"""
_CHANGE_FIRST = frozenset(_CHANGE_FIRST_NAMES.split())

_RANDOM_OBJECTS_NAMES = """
    Random SystemRandom Generator default_rng RandomState SeedSequence BitGenerator PCG64 PCG64DXSM MT19937 Philox
    SFC64
"""
_RANDOM_OBJECTS = frozenset(_RANDOM_OBJECTS_NAMES.split())


@dataclass(slots=True)
class Effect:
    """A change of an outer object, or of the item.

    Attributes
    ----------
    kind, name, depth, on_item, guarded
        As in :class:`nbpar.notebook.loop_model.Site`.
    statement : ast.stmt
        Where it stands.
    target : ast.expr or None
        What is assigned to, for kinds that assign.
    """

    kind: Kind
    name: str
    depth: int
    statement: ast.stmt
    target: ast.expr | None = None
    on_item: bool = False
    guarded: bool = False


_BUILTINS = words.NAMESPACE_FUNCTIONS | {"setattr", "delattr", "list", "dict", "set"}


class Effects:
    """Collects effects, and refuses changes that are none.

    Parameters
    ----------
    modules : mapping
        Names that stand for modules, with the full name.
    imported : mapping
        Names of what was imported from a module, with the full name.
    extremes : collection of str
        Outer names that the body only sets by ``n = min(n, ...)`` or ``+=``.
    seeded : bool
        Whether each task has a seed of its own.

    Attributes
    ----------
    found : dict
        Effects by what makes them: a statement, or one of the targets of an assignment.
    """

    def __init__(
        self,
        body: list[ast.stmt],
        extremes: Collection[str],
        *,
        modules: Mapping[str, str],
        imported: Mapping[str, str],
        seeded: bool,
    ) -> None:
        self.found: dict[ast.AST, Effect] = {}
        self._ordinary: set[ast.AST] = set()  # changes that are no effects
        self._modules = modules
        self._full_names = {**modules, **imported}
        self._extremes = extremes
        self._seeded = seeded
        self._unused = unused_values(body)

    # --- statements ---------------------------------------------------------------------------------------------------

    def call(self, node: ast.Expr, flow: Flow) -> bool:
        """``path.append(value)`` and the like."""
        match node.value:
            case ast.Call(func=ast.Attribute(value=base, attr=method)) if method in _METHODS:
                call = node.value
            case _:
                return False
        path = path_of(base)
        if path is None or not self._is_effect(path[0], node, flow) or self._dotted(call.func, flow) in _CHANGE_FIRST:
            return False
        text = ast.unparse(call)
        if method != "update" and (len(call.args) != 1 or call.keywords):
            flow.refuse(call, words.unclear_call(text, method))
        for argument in call.args:
            if isinstance(argument, ast.Starred):
                flow.refuse(argument, words.starred_argument(text))
        for keyword in call.keywords:
            if keyword.arg is None:
                flow.refuse(keyword.value, words.starred_argument(text))
        arguments: list[ast.expr] = [*path[1], *call.args, *(keyword.value for keyword in call.keywords)]
        if method in ("extend", "update"):
            flow.consumed.update(one for one in call.args if isinstance(one, ast.GeneratorExp))
        for part in arguments:
            flow.read(part)
        values = join_values(*map(flow.value, arguments[len(path[1]) :]))
        self._note(Effect(_METHODS[method], path[0].id, len(path[1]), node), node, values, flow)
        return True

    def extreme(self, node: ast.Assign, flow: Flow) -> bool:
        """``best = min(best, value)``."""
        name = extreme_name(node)
        if name is None or name not in self._extremes:
            return False
        assert isinstance(node.value, ast.Call)
        operands: list[ast.expr] = [node.value.func, *node.value.args]
        for operand in operands:
            if not (isinstance(operand, ast.Name) and operand.id == name):
                flow.read(operand)
        self._note(
            Effect("extreme", name, 0, node, node.targets[0]),
            node.targets[0],
            join_values(*map(flow.value, operands[1:])),
            flow,
        )
        return True

    def augmented(self, node: ast.AugAssign, flow: Flow) -> bool:
        """``n += value``, ``path[key] += value``."""
        path = path_of(node.target)
        if path is None or not self._is_effect(path[0], node.target, flow, is_name=not path[1]):
            if isinstance(node.target, ast.Name) and isinstance(node.value, ast.List | ast.ListComp):
                own = flow.value(ast.Name(node.target.id, ast.Load())).outer
                if own:
                    flow.refuse(node, words.adds_list(node.target.id, own, flow.targets))
            return False
        for key in path[1]:
            flow.read(key)
        flow.read(node.value)
        kind: Kind = "augitem" if path[1] else "augname"
        self._note(
            Effect(kind, path[0].id, max(len(path[1]) - 1, 0), node, node.target), node, flow.value(node.value), flow
        )
        return True

    def store(self, target: ast.Attribute | ast.Subscript, value: Value, statement: ast.stmt, flow: Flow) -> bool:
        """``path[key] = value``, the value read already."""
        path = path_of(target)
        if path is None or not self._is_effect(path[0], target, flow):
            return False
        if not isinstance(statement, ast.Assign | ast.AnnAssign):
            flow.refuse(
                target,
                words.odd_target(ast.unparse(target), "a `for`" if isinstance(statement, ast.For) else "a `with`"),
            )
        for key in path[1]:
            flow.read(key)
        self._note(Effect("setitem", path[0].id, len(path[1]) - 1, statement, target), target, value, flow)
        return True

    def local_store(self, target: ast.Attribute | ast.Subscript, statement: ast.stmt, flow: Flow) -> None:
        """A change of an object that is no plain path of an outer name."""
        own = flow.value(target.value).outer
        root = root_of(target)
        if own and isinstance(root, ast.Name) and self._is_item_here(root.id, flow):
            flow.refuse(target, words.item_or_not(ast.unparse(target)))
        if own:
            flow.refuse(target, words.store(target, statement, own, flow.targets))
        self._ordinary.add(target)
        if target in self.found:
            flow.refuse(target, words.item_or_not(ast.unparse(target)))

    def _is_effect(self, root: ast.Name, node: ast.AST, flow: Flow, *, is_name: bool = False) -> bool:
        if flow.is_outer(root.id):
            return root.id not in self._modules
        if is_name or flow.state.mark(root.id) != ITEM_PART:
            return False
        if node in self._ordinary:
            flow.refuse(node, words.item_or_not(root.id))
        return True

    def _is_item_here(self, name: str, flow: Flow) -> bool:
        """Whether a name is the item's on some of the paths to this point."""
        mark = flow.state.mark(name)
        return bool(mark & ITEM_PART) and mark != ITEM_PART

    def _note(self, effect: Effect, made_by: ast.AST, value: Value, flow: Flow) -> None:
        effect.on_item = not flow.is_outer(effect.name)
        effect.guarded = bool(flow.guards)
        self.found[made_by] = effect
        if not effect.on_item:
            flow.state = held(flow.state.having(f"{effect.name}[]", SET), effect, value)
        flow.changed()

    # --- expressions --------------------------------------------------------------------------------------------------

    def check(self, node: ast.Attribute | ast.Call, flow: Flow) -> None:
        """Refuse an expression that changes an outer object, or takes from what only the kernel has."""
        if isinstance(node, ast.Attribute):
            self._check_attribute(node, flow)
            return
        dotted = self._dotted(node.func, flow)
        match node.func:
            case ast.Attribute(value=base, attr=method) if dotted not in _CHANGE_FIRST:
                self._check_method(node, base, method, flow)
            case ast.Name(id="next") if node.args and (own := flow.value(node.args[0]).outer):
                flow.refuse(node, words.next_of(ast.unparse(node.args[0]), min(own), flow.targets))
            case ast.Name(id=name) if name in words.NAMESPACE_FUNCTIONS and flow.is_outer(name):
                if name not in ("vars", "dir") or not node.args:
                    flow.refuse(node, words.namespace_function(name))
        if dotted in _CHANGE_FIRST or (dotted.startswith("numpy.") and dotted.endswith(".at")):
            own = flow.value(node.args[0]).outer if node.args else frozenset()
            if own and not all(name.startswith("module ") for name in own):
                flow.refuse(node, words.function_changes(ast.unparse(node.func), ast.unparse(node.args[0]), dotted))
        self._check_random(node, dotted, flow)
        for keyword in node.keywords:
            self._check_keyword(node, keyword, flow)

    def _check_method(self, node: ast.Call, base: ast.expr, method: str, flow: Flow) -> None:
        if method not in _TAKES and method not in _CHANGES and method not in _METHODS:
            return
        if method not in _TAKES and node not in self._unused:
            return  # np.append(a, b), df.sort("x"): what gives a value is no change, or is found out by the worker
        if isinstance(base, ast.Name) and self._is_module(base, flow):
            return
        own = flow.value(base).outer
        root = root_of(base)
        if own and isinstance(root, ast.Name) and self._is_item_here(root.id, flow):
            flow.refuse(node, words.item_or_not(ast.unparse(base)))
        if own:
            flow.refuse(node, words.method(base, method, own, flow.targets))
        if isinstance(base, ast.Name):
            self._ordinary.add(node)

    def _check_attribute(self, node: ast.Attribute, flow: Flow) -> None:
        """``push = out.append``: a method that changes an outer object, handed on."""
        if node in flow.called or node.attr not in _HANDED_ON:
            return
        if isinstance(node.value, ast.Name) and self._is_module(node.value, flow):
            return
        own = flow.value(node.value).outer
        if own:
            flow.refuse(node, words.handed_on(ast.unparse(node), min(own)))

    def _check_keyword(self, call: ast.Call, keyword: ast.keyword, flow: Flow) -> None:
        if keyword.arg == "inplace" and isinstance(keyword.value, ast.Constant) and keyword.value.value:
            base = call.func.value if isinstance(call.func, ast.Attribute) else call
            own = flow.value(base).outer
            if own:
                flow.refuse(call, words.in_place(ast.unparse(call.func)))
        elif keyword.arg == "out" and isinstance(call.func, ast.Attribute):
            outer = {name for name in flow.value(keyword.value).outer if name not in flow.targets}
            if outer:
                flow.refuse(keyword.value, words.out_argument(ast.unparse(keyword.value), min(outer)))

    def _check_random(self, node: ast.Call, dotted: str, flow: Flow) -> None:
        for module in ("random.", "numpy.random."):
            rest = dotted.removeprefix(module)
            if dotted.startswith(module) and "." not in rest and rest not in _RANDOM_OBJECTS and not self._seeded:
                flow.refuse(node, words.random(ast.unparse(node.func)))

    def _dotted(self, node: ast.expr, flow: Flow) -> str:
        """The full name of a function of a module; of others, the name as it is."""
        match node:
            case ast.Attribute():
                return f"{self._dotted(node.value, flow)}.{node.attr}"
            case ast.Name():
                if flow.is_outer(node.id):
                    return self._full_names.get(node.id, node.id if node.id in _BUILTINS else "")
                own = flow.value(node).outer
                return next(iter(own)).removeprefix("module ") if len(own) == 1 else node.id
        return ""

    def _is_module(self, node: ast.Name, flow: Flow) -> bool:
        if flow.is_outer(node.id):
            return node.id in self._modules
        return any(name.startswith("module ") for name in flow.value(node).outer)

    def inside(self, node: ast.AST, flow: Flow) -> None:
        """Refuse effects in a function or a class that the body makes: they would happen when it is called."""
        outer = {id(name) for name in free_names(node) if flow.is_outer(name.id)}
        for part in ast.walk(node):
            changed: ast.expr | None = None
            match part:
                case ast.Call(func=ast.Attribute(value=base, attr=method)):
                    if method in _TAKES or ((method in _METHODS or method in _CHANGES) and part in self._unused):
                        changed = base
                case ast.Subscript(value=base) | ast.Attribute(value=base):
                    if not isinstance(part.ctx, ast.Load):
                        changed = base
            changed = root_of(changed) if changed is not None else None
            if isinstance(changed, ast.Name) and id(changed) in outer and changed.id not in self._modules:
                flow.refuse(part, words.inside(changed.id))
            if isinstance(part, ast.Call):
                dotted = self._dotted(part.func, flow)
                if any(id(name) in outer for name in ast.walk(part.func)):
                    self._check_random(part, dotted, flow)
                if dotted in words.NAMESPACE_FUNCTIONS and dotted not in ("vars", "dir", "locals"):
                    flow.refuse(part, words.namespace_function(dotted))
