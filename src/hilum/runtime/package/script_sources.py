"""Source files that travel with a package: modules of ours, and all of ours that they import, as one package of files.

A file is cut down to the names that are asked for, and what those use: nothing else travels. A kind of problem is one
class in one file, which also trains, scores and draws, and a packaged model only predicts.

There is one source of truth: what a package computes is computed by copies of the files that compute it here. Only
the import lines differ: they name the file in which a name is defined, relative to the importing file, so that no
index of a room travels, and nothing that prediction does without.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from hilum import lazy
from hilum.errors import PlanError

OURS = "hilum"
# What lies in this room for the package only stands at its top.
TOP = "hilum.runtime.bundle"
# Where what takes long to import comes from.
LAZY = "hilum.lazy"
# In place of a name: all of them.
WHOLE = "*"


@dataclass(frozen=True)
class Sources:
    """The files under `scripts/`, by their path there, and what they need beside the standard library.

    places: {module as it is called here: dotted name in the package}
    """

    texts: Mapping[str, str]
    needs: frozenset[str]
    places: Mapping[str, str]


def collect_sources(
    roots: Mapping[str, Collection[str]],
    parts: Mapping[str, Collection[str]],
    texts_at_hand: Mapping[str, str],
    stamp: str,
) -> Sources:
    """The files of ours that the names of `roots` need, rewritten to import one another.

    roots: {module: names}, all of it where no name is given
    parts: {module: methods} that its classes keep
    texts_at_hand: {module: text} of those that need not be found, such as the one file of somebody else's network
    stamp: first line of every file: where the copy comes from
    Raises PlanError for a module that cannot travel.
    """
    names_wanted = {module: set(names) or {WHOLE} for module, names in roots.items()}
    texts: dict[str, str] = {}
    waiting = list(names_wanted)
    while waiting:
        module = waiting.pop()
        text = texts_at_hand[module] if module in texts_at_hand else _text(module)
        is_whole = WHOLE in names_wanted[module]
        texts[module] = text if is_whole else slice_source(text, names_wanted[module], parts.get(module, ()))
        for file, name in _ours(texts[module]):
            names = names_wanted.setdefault(file, set())
            if (name or WHOLE) not in names:
                names.add(name or WHOLE)
                waiting.append(file)
    files, needs = {"__init__.py": f"# {stamp}\n"}, set()
    for module, text in texts.items():
        path = PurePosixPath(f"{_place(module).replace('.', '/')}.py")
        files[path.as_posix()] = f"# {stamp}\n{_rewritten(module, text, texts)}"
        files |= {(above / "__init__.py").as_posix(): f"# {stamp}\n" for above in path.parents}
        needs |= _others(module, text)
    return Sources(files, frozenset(needs - sys.stdlib_module_names), {module: _place(module) for module in texts})


def _place(module: str) -> str:
    """The dotted name under `scripts` of a module."""
    return module.removeprefix(f"{TOP}.").removeprefix(f"{OURS}.")


def _text(module: str) -> str:
    try:
        spec = find_spec(module)
    except ImportError:
        spec = None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise PlanError(f"{module} has no source file", "package", "Only what is written in Python can travel")
    return Path(spec.origin).read_text(encoding="utf-8")


def _ours(text: str) -> list[tuple[str, str]]:
    """(module, name) of ours that a file needs when it runs, rather than when its types are checked."""
    needed = []
    for node, idle in _imports(text):
        if isinstance(node, ast.ImportFrom) and _is_ours(node.module) and not idle:
            for alias in node.names:
                module, name = _definition_place(str(node.module), alias.name)
                names = [name] if name else _asked_of(text, alias.asname or alias.name)
                needed += [(module, one) for one in names]
    return needed


def _asked_of(text: str, module: str) -> list[str]:
    """The names that a file asks of a module that it imported; one empty name where it hands the module on."""
    uses, asked = _uses(text)
    names = asked.get(module, [])
    return sorted(set(names)) if names and len(names) == uses[module] else [""]


@cache  # a file asks several modules
def _uses(text: str) -> tuple[Counter[str], dict[str, list[str]]]:
    """How often each name is looked up in a file, and the attributes that are asked of it."""
    uses: Counter[str] = Counter()
    asked: dict[str, list[str]] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name):
            uses[node.id] += 1
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            asked.setdefault(node.value.id, []).append(node.attr)
    return uses, asked


def _others(module: str, text: str) -> set[str]:
    """The packages of others that a file imports."""
    packages = set()
    for node in (one for one, idle in _imports(text) if not idle):
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif node.module == LAZY:  # a name there stands for a module of others
            packages |= {getattr(lazy, alias.name).__name__.partition(".")[0] for alias in node.names}
        elif not _is_ours(node.module):
            packages.add((node.module or "").partition(".")[0])
        if isinstance(node, ast.ImportFrom) and node.level:
            raise PlanError(f"{module} imports from its own package", "package", "Write its imports in full")
    if OURS in packages:
        raise PlanError(f"{module} imports {OURS} as a whole", "package", "Import the names that it needs")
    return packages


def _rewritten(module: str, text: str, travelling: Mapping[str, str]) -> str:
    """The text with our imports made relative; what is imported for its type alone, and stays here, is anything."""
    lines = text.splitlines(keepends=True)
    for node, idle in sorted(_imports(text), key=lambda item: item[0].lineno, reverse=True):
        if not isinstance(node, ast.ImportFrom) or not _is_ours(node.module):
            continue
        names = [(*_definition_place(str(node.module), alias.name), alias) for alias in node.names]
        staying = [alias for file, name, alias in names if idle and name not in travelling.get(file, "")]
        import_lines = _relative(module, [one for one in names if one[2] not in staying])
        import_lines += [f"from typing import Any as {alias.asname or alias.name}" for alias in staying]
        indent = " " * node.col_offset
        lines[node.lineno - 1 : node.end_lineno] = [f"{indent}{line}\n" for line in import_lines]
    return "".join(lines)


def _is_ours(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] == OURS


@cache  # an index is asked for each of its names, and most files travel with every package
def _imports(text: str) -> tuple[tuple[ast.Import | ast.ImportFrom, bool], ...]:
    """The imports of a file, and of each whether it is idle: in a block for the checking of types, which never runs."""
    tree = ast.parse(text)
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    idle = {inner for block in blocks for statement in block.body for inner in ast.walk(statement)}
    return tuple((node, node in idle) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))


def _definition_place(module: str, name: str) -> tuple[str, str]:
    """(module whose file defines the name, its name there); (module, "") where the name is a module itself.

    An index names what its files define: it is followed, and does not travel.
    """
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return module, name
    for node, _ in _imports(_text(module)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module != module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _definition_place(node.module, alias.name)
    if find_spec(f"{module}.{name}") is not None:
        return f"{module}.{name}", ""
    raise PlanError(f"{module} defines {name} in its index", "package", "Move it into a file of its own")


def _relative(module: str, names: Sequence[tuple[str, str, ast.alias]]) -> list[str]:
    """One import line for each file, sorted; of names as they are called here."""
    by_file: dict[str, list[str]] = {}
    for file, name, alias in names:
        # A module is imported from the folder that it lies in.
        source = _place(file) if name else _place(file).rpartition(".")[0]
        origin = name or file.rpartition(".")[2]
        called = alias.asname or alias.name
        by_file.setdefault(source, []).append(origin if origin == called else f"{origin} as {called}")
    up = "." * (_place(module).count(".") + 1)
    return [f"from {up}{source} import {', '.join(sorted(imported))}" for source, imported in sorted(by_file.items())]


def slice_source(text: str, names: Collection[str], members: Collection[str] = ()) -> str:
    """The file's text with these of its names, and what they use in it; statements that name nothing stay.

    members: where given, the classes among the names, and their bases in the file, keep these methods and class
             variables, and those that they use
    """
    return _slice_source(text, frozenset(names), frozenset(members))


@cache  # most files travel with every package, cut to the same names
def _slice_source(text: str, names: frozenset[str], members: frozenset[str]) -> str:
    tree = ast.parse(text)
    defining: dict[str, list[ast.stmt]] = {}
    for node in tree.body:
        for name in _bound(node):
            defining.setdefault(name, []).append(node)
    dropped: list[ast.stmt] = []
    for node in _with_bases(tree, names) if members else ():
        dropped += _unused_methods(node, members)
    acting = [node for node in tree.body if not _is_silent(node)]
    used = set(names).union(*(_names(node) for node in acting))
    waiting = used & set(defining)
    kept_nodes: set[ast.stmt] = set()
    while waiting:
        for node in defining[waiting.pop()]:
            if node not in kept_nodes:
                kept_nodes.add(node)
                used |= (more := _names(node, without=dropped))
                waiting |= more & set(defining)
    dropped += [node for nodes in defining.values() for node in nodes if node not in kept_nodes]
    return _without(text, dropped, _imports_left(tree, used))


def _with_bases(tree: ast.Module, names: Collection[str]) -> list[ast.ClassDef]:
    """The classes of these names, and those of the same file that they are derived from."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    found: dict[str, ast.ClassDef] = {}
    waiting = [name for name in names if name in classes]
    while waiting:
        name = waiting.pop()
        found[name] = classes[name]
        bases = (base.id for base in classes[name].bases if isinstance(base, ast.Name))
        waiting += [base for base in bases if base in classes and base not in found]
    return list(found.values())


def _unused_methods(body: ast.ClassDef, members: Collection[str]) -> list[ast.stmt]:
    methods = {name: node for node in body.body for name in _members(node)}
    waiting = {name for name in methods if name in members or name.startswith("__")}
    kept_names: set[str] = set()
    while waiting:
        name = waiting.pop()
        kept_names.add(name)
        called_methods = {
            node.attr
            for node in ast.walk(methods[name])
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            if node.value.id in ("self", "cls", body.name)
        }
        waiting |= (called_methods & set(methods)) - kept_names
    return [node for name, node in methods.items() if name not in kept_names]


def _members(node: ast.stmt) -> list[str]:
    """The name of a method, or of a value that all instances share."""
    if isinstance(node, ast.AnnAssign) and not ast.unparse(node.annotation).startswith("ClassVar"):
        return []  # a field of a dataclass
    return _bound(node) if isinstance(node, ast.FunctionDef | ast.AnnAssign) else []


def _names(node: ast.stmt, without: Collection[ast.stmt] = ()) -> set[str]:
    """Every name that is looked up in the node."""
    names: set[str] = set()
    waiting: list[ast.AST] = [node]
    while waiting:
        inner = waiting.pop()
        if inner in without:
            continue
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load):
            names.add(inner.id)
        waiting += ast.iter_child_nodes(inner)
    return names


def _bound(node: ast.stmt) -> list[str]:
    """The names that a statement gives to things, where that is all it does."""
    match node:
        case ast.FunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Assign():
            targets = node.targets
        case ast.AnnAssign():
            targets = [node.target]
        case _:
            return []
    parts = [part for target in targets for part in getattr(target, "elts", [target])]
    names = [part.id for part in parts if isinstance(part, ast.Name)]
    return names if len(names) == len(parts) else []


def _is_silent(node: ast.stmt) -> bool:
    """Whether it changes nothing that another statement of the file has made."""
    return bool(_bound(node)) or isinstance(node, ast.Import | ast.ImportFrom) or _is_block_of_imports(node)


def _is_block_of_imports(node: ast.stmt) -> bool:
    """Whether a statement is a block of imports for the checking of types alone."""
    if not isinstance(node, ast.If) or node.orelse:
        return False
    return all(isinstance(one, ast.Import | ast.ImportFrom) for one in node.body)


def _imports_left(tree: ast.Module, used: Collection[str]) -> dict[ast.stmt, str]:
    """The rest of each import; a block that loses all its imports goes as a whole."""
    left: dict[ast.stmt, str] = {}
    for block in filter(_is_block_of_imports, tree.body):
        imports = [one for one in ast.walk(block) if isinstance(one, ast.Import | ast.ImportFrom)]
        left_in_block: dict[ast.stmt, str] = {one: _needed_names(one, used) for one in imports}
        left.update(left_in_block if any(left_in_block.values()) else {block: ""})
    guards = {"TYPE_CHECKING"} if any(left.values()) else set()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            left[node] = _needed_names(node, {*used, *guards})
    return left


def _needed_names(node: ast.Import | ast.ImportFrom, used: Collection[str]) -> str:
    if isinstance(node, ast.ImportFrom) and node.module == "__future__":
        return ast.unparse(node)
    names = [alias for alias in node.names if (alias.asname or alias.name.partition(".")[0]) in used]
    if not names:
        return ""
    shortened = (
        ast.ImportFrom(node.module, names, node.level) if isinstance(node, ast.ImportFrom) else ast.Import(names)
    )
    return " " * node.col_offset + ast.unparse(shortened)


def _without(text: str, dropped: Collection[ast.stmt], imports: dict[ast.stmt, str]) -> str:
    """The text without these statements and the comments right above them, its imports replaced."""
    lines: list[str | None] = [*text.splitlines()]
    for node in [*dropped, *imports]:
        first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))]) - 1
        while node in dropped and first and (lines[first - 1] or "").lstrip().startswith("#"):
            first -= 1
        lines[first : node.end_lineno] = [imports.get(node) or None, *[None] * ((node.end_lineno or 0) - first - 1)]
    tidy = "\n".join(line.rstrip() for line in lines if line is not None)
    tidy = re.sub(r"\n{3,}(?= )", "\n\n", tidy)  # a gap inside the class
    return re.sub(r"\n{4,}", "\n\n\n", tidy).rstrip() + "\n"
