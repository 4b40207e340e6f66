"""Which files a door may touch: those below its roots, also through links, `..` and what a table or a plan names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from hilum.errors import UsageError
from hilum.options.command_index import Command

# Texts that name files: tables, plans, settings of data sets. Larger ones are guarded when they are read.
TEXTS = frozenset({".csv", ".tsv", ".txt", ".yaml", ".yml", ".toml", ".json"})
LARGEST_TEXT, MOST_ENTRIES = 8 << 20, 50_000
NAME = re.compile(r"[^\n\r\t\",;|{}\[\]]+")
# What may stand before a path on a line of a plan or a table.
KEY = re.compile(r"^[\w.\- ]+[:=]\s*")


@dataclass(frozen=True)
class AllowedPaths:
    """Folders below which a door reads and writes.

    start: from which relative paths go
    """

    roots: tuple[Path, ...]
    start: Path

    @classmethod
    def below(cls, roots: Sequence[Path], start: Path) -> AllowedPaths:
        """The folders, each where it really lies. UsageError for one that is not there."""
        for root in roots:
            if not root.is_dir():
                raise UsageError("there is no such folder", str(root), "Give a folder as --root")
        return cls(tuple(Path(os.path.realpath(one)) for one in (*roots, start)), Path(os.path.realpath(start)))

    def holds(self, path: str | Path) -> bool:
        """Whether a path leads to a place below a root, wherever its links go."""
        real = Path(os.path.realpath(self.start / path))
        return any(real.is_relative_to(root) for root in self.roots)

    def find(self, path: str) -> str:
        """A relative path that lies below a root, and not in the workspace, as a whole one; any other as it is."""
        if Path(path).is_absolute() or (self.start / path).exists():
            return path
        return next((str(root / path) for root in self.roots if (root / path).exists()), path)

    def refuse_outside(self, path: str | Path, where: str) -> None:
        """UsageError for a path that leads out."""
        if not self.holds(path):
            raise UsageError("lies outside the folders that are allowed", where, "Give a path below --root")

    def refuse_arguments(self, command: Command, values: Mapping[str, JsonValue]) -> None:
        """UsageError where an option names a file outside, or a file or folder that leads or points outside."""
        for name, value in values.items():
            keyword = command.keywords[name]
            for text in _texts(value):
                if keyword.is_path:
                    self.refuse_outside(text, name)
                    self._refuse_named(self.start / text, name)
                for part in _paths_in(text):
                    self.refuse_outside(part, name)

    def _refuse_named(self, path: Path, where: str) -> None:
        """UsageError where links below a folder, or names in its texts, lead out."""
        if path.is_file():
            self._refuse_text(path, where)
        elif path.is_dir():
            for count, entry in enumerate(_entries(path)):
                if entry.is_symlink():
                    self.refuse_outside(entry.path, f"{where}: {Path(entry.path).relative_to(path)}")
                elif entry.is_file() and Path(entry.path).parent == path:
                    self._refuse_text(Path(entry.path), where)
                if count > MOST_ENTRIES:
                    return

    def _refuse_text(self, path: Path, where: str) -> None:
        if path.suffix.lower() not in TEXTS or path.stat().st_size > LARGEST_TEXT:
            return
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            for name in NAME.findall(line):
                for part in _paths_in(KEY.sub("", name.strip(" '")).strip(" '")):
                    if os.path.lexists(path.parent / part):
                        self.refuse_outside(path.parent / part, f"{where}: line {number}")


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value, those of keys too."""
    match value:
        case str():
            yield value
        case Mapping():
            for name, one in value.items():
                yield str(name)
                yield from _texts(one)
        case list() | tuple():
            for one in value:
                yield from _texts(one)


def _paths_in(text: str) -> Iterator[str]:
    """The parts of a text that could lead out of any folder: absolute paths, and those with `..`."""
    for part in {text, *re.split(r"[=,;]", text)}:
        if part.startswith("/") or ".." in re.split(r"[/\\]", part):
            yield part.strip()


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """All entries below a folder, without following links."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    yield from _entries(Path(entry.path))
    except OSError:  # what cannot be listed is not read either
        return
