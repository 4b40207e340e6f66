"""A file cut down to the names that are asked for, and what those use: nothing else travels.

A kind of problem is one class in one file, which also trains, scores and draws. A packaged model only predicts.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from functools import cache


def sliced(text: str, names: Collection[str], members: Collection[str] = ()) -> str:
    """The file's text with these of its names, and what they use in it; statements that name nothing stay.

    members: where given, the classes among the names keep these methods and class variables, and those that they use
    """
    return _sliced(text, frozenset(names), frozenset(members))


@cache  # most files travel with every package, cut to the same names
def _sliced(text: str, names: frozenset[str], members: frozenset[str]) -> str:
    tree = ast.parse(text)
    defining: dict[str, list[ast.stmt]] = {}
    for node in tree.body:
        for name in _bound(node):
            defining.setdefault(name, []).append(node)
    dropped: list[ast.stmt] = []
    for node in tree.body if members else ():
        if isinstance(node, ast.ClassDef) and node.name in names:
            dropped += _unused_methods(node, members)
    acting = [node for node in tree.body if not _is_silent(node)]
    used = set(names).union(*(_names(node) for node in acting))
    waiting = used & set(defining)
    kept: set[ast.stmt] = set()
    while waiting:
        for node in defining[waiting.pop()]:
            if node not in kept:
                kept.add(node)
                used |= (more := _names(node, without=dropped))
                waiting |= more & set(defining)
    dropped += [node for nodes in defining.values() for node in nodes if node not in kept]
    return _without(text, dropped, _imports(tree, used))


def _unused_methods(body: ast.ClassDef, members: Collection[str]) -> list[ast.stmt]:
    methods = {name: node for node in body.body for name in _members(node)}
    waiting = {name for name in methods if name in members or name.startswith("__")}
    kept: set[str] = set()
    while waiting:
        name = waiting.pop()
        kept.add(name)
        own = {
            node.attr
            for node in ast.walk(methods[name])
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            if node.value.id in ("self", "cls", body.name)
        }
        waiting |= (own & set(methods)) - kept
    return [node for name, node in methods.items() if name not in kept]


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
    """What stands there for the checking of types alone."""
    if not isinstance(node, ast.If) or node.orelse:
        return False
    return all(isinstance(one, ast.Import | ast.ImportFrom) for one in node.body)


def _imports(tree: ast.Module, used: Collection[str]) -> dict[ast.stmt, str]:
    """What is left of each import; a block that loses all its imports goes as a whole."""
    left: dict[ast.stmt, str] = {}
    for block in filter(_is_block_of_imports, tree.body):
        imports = [one for one in ast.walk(block) if isinstance(one, ast.Import | ast.ImportFrom)]
        kept: dict[ast.stmt, str] = {one: _needed(one, used) for one in imports}
        left.update(kept if any(kept.values()) else {block: ""})
    guards = {"TYPE_CHECKING"} if any(left.values()) else set()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            left[node] = _needed(node, {*used, *guards})
    return left


def _needed(node: ast.Import | ast.ImportFrom, used: Collection[str]) -> str:
    if isinstance(node, ast.ImportFrom) and node.module == "__future__":
        return ast.unparse(node)
    names = [alias for alias in node.names if (alias.asname or alias.name.partition(".")[0]) in used]
    if not names:
        return ""
    kept = ast.ImportFrom(node.module, names, node.level) if isinstance(node, ast.ImportFrom) else ast.Import(names)
    return " " * node.col_offset + ast.unparse(kept)


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
