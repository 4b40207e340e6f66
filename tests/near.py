"""`make near`: the tests that stand nearest to what changed since the last commit, for at most a minute.

A test stands as near to a changed function as the fewest names that lead there: a test that calls it is one name away,
one that calls its caller two. Names are followed through imports, indexes of rooms and fixtures, as text; what is only
reached through an object's method is not seen, and neither is a changed file of data.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

START = time.monotonic()
SECONDS = 60.0
# So many files of tests are collected at most: more than a minute's tests lie in them.
FILES = 40
ROOT = Path(__file__).parents[1]
Name = tuple[Path, str]


class Source:
    """The top-level names of a file, the lines of each, and the names elsewhere that each uses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        tree = ast.parse(path.read_text(encoding="utf-8"))
        self.defined = {
            node.name: node
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
        }
        self.assigned = {
            target.id: node
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        self.imported: dict[str, tuple[str, str]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self.imported[alias.asname or alias.name] = (node.module or "", alias.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    self.imported[alias.asname or alias.name.partition(".")[0]] = (alias.name, "")

    def names(self) -> dict[str, ast.stmt]:
        return {**self.assigned, **self.defined}

    def at(self, lines: Iterable[int]) -> set[str]:
        """The names whose definition has one of these lines; all of them where a line is of none."""
        spans = {name: range(_first(node), (node.end_lineno or node.lineno) + 1) for name, node in self.names().items()}
        found: set[str] = set()
        for line in lines:
            hit = {name for name, span in spans.items() if line in span}
            found |= hit or set(spans)
        return found


def _first(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(one.lineno for one in decorators)])


class Graph:
    """Which name uses which, of the source and of the tests."""

    def __init__(self) -> None:
        files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
        self.sources = {path: Source(path) for path in files}
        self.modules = {_module(path): path for path in files}
        self.users: dict[Name, set[Name]] = defaultdict(set)
        for source in self.sources.values():
            for name, node in source.names().items():
                for used in self._used(source, node):
                    self.users[used].add((source.path, name))

    def _used(self, source: Source, node: ast.stmt) -> Iterator[Name]:
        for part in ast.walk(node):
            if isinstance(part, ast.Name):
                yield from self._of(source, part.id)
            elif isinstance(part, ast.arg):  # a fixture
                yield from self._fixture(source, part.arg)
            elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                module, name = source.imported.get(part.value.id, ("", ""))
                if path := self.modules.get(f"{module}.{name}" if name else module):
                    yield from self._resolved(path, part.attr)

    def _of(self, source: Source, name: str) -> Iterator[Name]:
        if name in source.names():
            yield source.path, name
        elif name in source.imported:
            module, original = source.imported[name]
            if path := self.modules.get(module):
                yield from self._resolved(path, original)

    def _fixture(self, source: Source, name: str) -> Iterator[Name]:
        if source.path.is_relative_to(ROOT / "tests"):
            for holder in (source, self.sources[ROOT / "tests/conftest.py"]):
                yield from self._of(holder, name)

    def _resolved(self, path: Path, name: str, depth: int = 0) -> Iterator[Name]:
        """Where a name that a file offers is defined: an index takes it from another file."""
        source = self.sources[path]
        if name in source.names():
            yield path, name
        elif name in source.imported and depth < 4:
            module, original = source.imported[name]
            if further := self.modules.get(module):
                yield from self._resolved(further, original, depth + 1)

    def distances(self, changed: set[Name]) -> dict[Name, int]:
        """Fewest steps from each name to one that changed."""
        found, edge = dict.fromkeys(changed, 0), changed
        while edge:
            edge = {user for name in edge for user in self.users[name]} - set(found)
            found |= dict.fromkeys(edge, 1 + max(found.values()))
        return found


def _module(path: Path) -> str:
    base = ROOT / ("src" if path.is_relative_to(ROOT / "src") else "tests")
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def changed_lines() -> dict[Path, list[int]]:
    """Lines of Python files that the last commit does not have; for a removal, the line before it."""
    found: dict[Path, list[int]] = defaultdict(list)
    path = Path()
    for line in _git("diff", "--unified=0", "--no-color", "HEAD", "--", "*.py").splitlines():
        if line.startswith("+++ "):
            path = ROOT / line[6:]
        elif match := re.match(r"@@ -\S+ \+(\d+)(?:,(\d+))? @@", line):
            first, count = int(match[1]), int(match[2] or 1)
            found[path] += list(range(first, first + count)) or [max(first, 1)]
    for name in _git("ls-files", "--others", "--exclude-standard", "--", "*.py").splitlines():
        found[ROOT / name] = list(range(1, 1 + len((ROOT / name).read_text(encoding="utf-8").splitlines())))
    return {path: lines for path, lines in found.items() if path.exists()}


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout


class Minute:
    """Runs the nearest tests first, until the time is over."""

    def __init__(self, ranks: dict[Name, int], room: str) -> None:
        self.ranks, self.room = ranks, room
        self.left = 0

    def rank(self, item: pytest.Item) -> tuple[int, bool]:
        name = getattr(item, "originalname", item.name)
        return self.ranks.get((item.path, name), 99), self.room not in item.path.parts

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        far = [item for item in items if self.rank(item)[0] == 99]
        config.hook.pytest_deselected(items=far)
        items[:] = sorted((item for item in items if self.rank(item)[0] < 99), key=self.rank)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self) -> bool | None:
        over = time.monotonic() - START > SECONDS - 5
        self.left += over
        return over or None


def main() -> int:
    lines = changed_lines()
    graph = Graph()
    changed = {
        (path, name) for path, own in lines.items() if path in graph.sources for name in graph.sources[path].at(own)
    }
    ranks = {
        name: steps
        for name, steps in graph.distances(changed).items()
        if name[0].name.startswith("test_") and name[1].startswith("test_")
    }
    if not ranks:
        print("nothing that a test calls has changed since the last commit")  # noqa: T201
        return 0
    nearest: dict[Path, int] = {}
    for (path, _), steps in sorted(ranks.items(), key=lambda one: one[1]):
        nearest.setdefault(path, steps)
    rooms = [path.parts[len(ROOT.parts) + 2] for path in lines if path.is_relative_to(ROOT / "src")]
    minute = Minute(ranks, rooms[0] if rooms else "")
    files = sorted(nearest, key=lambda path: (nearest[path], minute.room not in path.parts))
    chosen = [str(path) for path in files[:FILES]]
    code = pytest.main(["-m", "not whole", "-x", "--durations=0", "--durations-min=5", *chosen], plugins=[minute])
    of_other_files = sum(path not in files[:FILES] for path, _ in ranks)
    print(  # noqa: T201
        f"{len(changed)} changed names; {minute.left + of_other_files} more tests that reach them were not run"
        f" ({time.monotonic() - START:.0f} s): `make test` runs all"
    )
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
