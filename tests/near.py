"""`make near`: the tests that stand nearest to what changed since the last commit, for at most a minute.

A test stands as near to a changed function as the fewest names that lead there: a test that calls it is one name away,
one that calls its caller two. Names are followed through imports, indexes of rooms and fixtures, as text; what is only
reached through an object's method is not seen, and neither is a changed file of data.
"""

from __future__ import annotations

import ast
import gc
import json
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

START = time.monotonic()
SECONDS = 60.0
# So many files of tests are collected at most: more than a minute's tests lie in them.
FILES = 40
ROOT = Path(__file__).parents[1]
# What the files of the last call hold, so that only those that changed are parsed.
KEPT = ROOT / ".pytest_cache" / "near.json"
Name = tuple[str, str]


@dataclass(frozen=True)
class Source:
    """The top-level names of a file.

    spans:    first and last line of each name
    uses:     names that each uses: a name, the name of an argument, or module and attribute
    imported: module and name in it of what the file imports; an empty name is the module itself
    """

    spans: Mapping[str, tuple[int, int]]
    uses: Mapping[str, list[list[str]]]
    imported: Mapping[str, tuple[str, str]]

    @classmethod
    def of(cls, path: Path) -> Source:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        named = dict(_named(tree))
        spans = {name: (_first(node), node.end_lineno or node.lineno) for name, node in named.items()}
        return cls(spans, {name: _uses(node) for name, node in named.items()}, dict(_imports(tree)))

    def at(self, lines: Iterable[int]) -> set[str]:
        """The names whose definition has one of these lines; all of them where a line is of none."""
        found: set[str] = set()
        for line in lines:
            hit = {name for name, (first, last) in self.spans.items() if first <= line <= last}
            found |= hit or set(self.spans)
        return found


def _named(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            yield node.name, node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((target.id, node) for target in targets if isinstance(target, ast.Name))


def _first(node: ast.stmt) -> int:
    return min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])


def _uses(node: ast.stmt) -> list[list[str]]:
    found = set[tuple[str, ...]]()
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            found.add(("name", part.id))
        elif isinstance(part, ast.arg):
            found.add(("argument", part.arg))
        elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            found.add(("attribute", part.value.id, part.attr))
    return [list(one) for one in sorted(found)]


def _imports(tree: ast.Module) -> Iterator[tuple[str, tuple[str, str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, (node.module or "", alias.name)) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name.partition(".")[0], (alias.name, "")) for alias in node.names)


def sources() -> dict[str, Source]:
    """Every file of the source and of the tests, by its path from the root."""
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    made = {}
    for path in (*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py")):
        place, stamp = str(path.relative_to(ROOT)), path.stat().st_mtime_ns
        known = kept.get(place)
        made[place] = known if known and known["stamp"] == stamp else {"stamp": stamp, **asdict(Source.of(path))}
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps(made), encoding="utf-8")
    return {place: Source(one["spans"], one["uses"], one["imported"]) for place, one in made.items()}


class Graph:
    """Which name uses which, of the source and of the tests."""

    def __init__(self, files: Mapping[str, Source]) -> None:
        self.sources = files
        self.modules = {_module(place): place for place in files}
        self.users: dict[Name, set[Name]] = defaultdict(set)
        for place, source in files.items():
            for name, uses in source.uses.items():
                for kind, *used in uses:
                    for target in self._targets(place, kind, *used):
                        self.users[target].add((place, name))

    def _targets(self, place: str, kind: str, name: str, attribute: str = "") -> Iterator[Name]:
        if kind == "name":
            yield from self._resolve(place, name)
        elif kind == "attribute":
            module, inside = self.sources[place].imported.get(name, ("", ""))
            if holder := self.modules.get(f"{module}.{inside}" if inside else module):
                yield from self._resolve(holder, attribute)
        elif place.startswith("tests"):  # an argument may be a fixture
            for holder in (place, "tests/conftest.py"):
                yield from self._resolve(holder, name)

    def _resolve(self, place: str, name: str, depth: int = 0) -> Iterator[Name]:
        """Where a name that a file offers is defined: an index takes it from another file."""
        source = self.sources[place]
        if name in source.spans:
            yield place, name
        elif name in source.imported and depth < 4:
            module, original = source.imported[name]
            if further := self.modules.get(module):
                yield from self._resolve(further, original, depth + 1)

    def distances(self, changed: set[Name]) -> dict[Name, int]:
        """Fewest steps from each name to one that changed."""
        found, edge = dict.fromkeys(changed, 0), changed
        while edge:
            edge = {user for name in edge for user in self.users[name]} - set(found)
            found |= dict.fromkeys(edge, 1 + max(found.values()))
        return found


def _module(place: str) -> str:
    parts = Path(place).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def changed_lines() -> dict[str, list[int]]:
    """Lines of Python files that the last commit does not have; for a removal, the line before it."""
    found: dict[str, list[int]] = defaultdict(list)
    place = ""
    for line in _git("diff", "--unified=0", "--no-color", "HEAD", "--", "*.py").splitlines():
        if line.startswith("+++ "):
            place = line[6:]
        elif match := re.match(r"@@ -\S+ \+(\d+)(?:,(\d+))? @@", line):
            first, count = int(match[1]), int(match[2] or 1)
            found[place] += list(range(first, first + count)) or [max(first, 1)]
    for name in _git("ls-files", "--others", "--exclude-standard", "--", "*.py").splitlines():
        found[name] = list(range(1, 1 + len((ROOT / name).read_text(encoding="utf-8").splitlines())))
    return found


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout


class Minute:
    """Runs the nearest tests first, until the time is over."""

    def __init__(self, ranks: Mapping[Name, int], room: str) -> None:
        self.ranks, self.room, self.left = ranks, room, 0

    def order(self, item: pytest.Item) -> tuple[int, bool]:
        place = str(item.path.relative_to(ROOT))
        return self.ranks.get((place, getattr(item, "originalname", item.name)), 99), self.room not in item.path.parts

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        config.hook.pytest_deselected(items=[item for item in items if self.order(item)[0] == 99])
        items[:] = sorted((item for item in items if self.order(item)[0] < 99), key=self.order)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self) -> bool | None:
        over = time.monotonic() - START > SECONDS - 5
        self.left += over
        return over or None


def main() -> int:
    gc.disable()  # millions of nodes are made, and none is garbage yet
    files = sources()
    gc.enable()
    lines, graph = changed_lines(), Graph(files)
    changed = {(place, name) for place in lines if place in files for name in files[place].at(lines[place])}
    ranks = {
        (place, name): steps
        for (place, name), steps in graph.distances(changed).items()
        if Path(place).name.startswith("test_") and name.startswith("test_")
    }
    if not ranks:
        print("nothing that a test calls has changed since the last commit")  # noqa: T201
        return 0
    nearest: dict[str, int] = {}
    for (place, _), steps in sorted(ranks.items(), key=lambda one: one[1]):
        nearest.setdefault(place, steps)
    rooms = [Path(place).parts[2] for place in lines if place.startswith("src")]
    minute = Minute(ranks, rooms[0] if rooms else "")
    chosen = sorted(nearest, key=lambda place: (nearest[place], minute.room not in Path(place).parts))[:FILES]
    words = ["-m", "not whole", "-x", "--durations-min=5", *(str(ROOT / place) for place in chosen)]
    code = pytest.main(words, plugins=[minute])
    elsewhere = sum(place not in chosen for place, _ in ranks)
    print(  # noqa: T201
        f"{len(changed)} changed names; {minute.left + elsewhere} more tests that reach them were not run"
        f" ({time.monotonic() - START:.0f} s): `make test` runs all"
    )
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
