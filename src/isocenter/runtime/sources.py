"""Source files that travel with a package: modules of ours, and all of ours that they import, as one package of files.

There is one source of truth: what a package computes is computed by copies of the files that compute it here. Only
the import lines differ: they name the file in which a name is defined, relative to the importing file, so that no
index of a room travels, and nothing that prediction does without.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from isocenter.errors import PlanError

OURS = "isocenter"
# What lies in this room for the package only stands at its top.
TOP = "isocenter.runtime.bundle"


@dataclass(frozen=True)
class Sources:
    """The files under `scripts/`, by their path there, and what they need beside the standard library.

    places: {module as it is called here: dotted name in the package}
    """

    texts: Mapping[str, str]
    needs: frozenset[str]
    places: Mapping[str, str]


def travelling(roots: Sequence[str], stamp: str) -> Sources:
    """The modules `roots` and all of ours that they import, rewritten to import one another.

    roots: the only modules of others that may be among them are whole in themselves (a third party's network)
    stamp: first line of every file: where the copy comes from
    Raises PlanError for a module that cannot travel.
    """
    places: dict[str, str] = {}
    texts: dict[str, str] = {}
    needs: set[str] = set()
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module in places:
            continue
        places[module] = _place(module)
        text = _text(module)
        rewritten, ours, others = _rewritten(module, text)
        texts[f"{places[module].replace('.', '/')}.py"] = f"# {stamp}\n{rewritten}"
        needs |= others
        waiting += ours
    for path in [*texts]:
        for above in list(Path(path).parents)[:-1]:
            texts.setdefault(f"{above.as_posix()}/__init__.py", "")
    texts["__init__.py"] = f"# {stamp}\n"
    return Sources(texts, frozenset(needs - sys.stdlib_module_names), places)


def _place(module: str) -> str:
    """The dotted name under `scripts` of a module."""
    for above in (f"{TOP}.", f"{OURS}."):
        if module.startswith(above):
            return module.removeprefix(above)
    return f"networks.{module.rpartition('.')[2]}"  # a third party's network lies where ours do


def _text(module: str) -> str:
    try:
        spec = find_spec(module)
    except ImportError:
        spec = None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise PlanError(f"{module} has no source file", "package", "Only what is written in Python can travel")
    return Path(spec.origin).read_text(encoding="utf-8")


def _rewritten(module: str, text: str) -> tuple[str, list[str], set[str]]:
    """The text with our imports made relative, which modules of ours it imports, and which packages of others."""
    lines = text.splitlines(keepends=True)
    ours: list[str] = []
    others: set[str] = set()
    for node in sorted(_imports(ast.parse(text)), key=lambda node: node.lineno, reverse=True):
        if isinstance(node, ast.Import):
            others |= {alias.name.partition(".")[0] for alias in node.names}
        elif node.level:
            raise PlanError(f"{module} imports from its own package", "package", "Write its imports in full")
        elif node.module and node.module.partition(".")[0] == OURS:
            found = [(*_defined(node.module, alias.name), alias) for alias in node.names]
            ours += [file for file, _, _ in found]
            indent = lines[node.lineno - 1][: node.col_offset]
            lines[node.lineno - 1 : node.end_lineno] = [f"{indent}{line}\n" for line in _relative(module, found)]
        elif node.module:
            others.add(node.module.partition(".")[0])
    if OURS in others:
        raise PlanError(f"{module} imports {OURS} as a whole", "package", "Import the names that it needs")
    return "".join(lines), ours, others


def _imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))


def _defined(module: str, name: str) -> tuple[str, str]:
    """(module whose file defines the name, its name there); (module, "") where the name is a module itself.

    An index names what its files define: it is followed, and does not travel.
    """
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return module, name
    for node in _imports(ast.parse(_text(module))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _defined(node.module, alias.name)
    if find_spec(f"{module}.{name}") is not None:
        return f"{module}.{name}", ""
    raise PlanError(f"{module} defines {name} in its index", "package", "Move it into a file of its own")


def _relative(module: str, found: Sequence[tuple[str, str, ast.alias]]) -> list[str]:
    """One import line for each file, sorted; of names as they are called here."""
    by_file: dict[str, list[str]] = {}
    for file, name, alias in found:
        # A module is imported from the folder that it lies in.
        source = _place(file) if name else _place(file).rpartition(".")[0]
        own = name or file.rpartition(".")[2]
        called = alias.asname or alias.name
        by_file.setdefault(source, []).append(own if own == called else f"{own} as {called}")
    up = "." * (_place(module).count(".") + 1)
    return [f"from {up}{source} import {', '.join(sorted(names))}" for source, names in sorted(by_file.items())]
