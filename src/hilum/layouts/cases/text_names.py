"""Texts in cells as names of images: a path, the end of one, or a name without folders, with its suffix or without."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import TypeVar

from hilum.layouts.cases import dataset_folder, table_reading
from hilum.values import grouping

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def plain_text(cell: object) -> str:
    """A cell as the path that it may be, with / between folders."""
    return str(cell).strip().replace("\\", "/")


def bare_name(cell: object) -> str:
    """The name in a cell without folders and suffix."""
    return dataset_folder.stem_of(str(cell).replace("\\", "/").rsplit("/", 1)[-1])


def dashed_name(cell: object) -> str:
    """A cell as a name that no folder parts."""
    return str(cell).replace("/", "-").replace("\\", "-")


def folded_path(path: Path) -> tuple[str, str]:
    """Folder and name by which a path is found: letters composed, the name without regard to upper and lower case."""
    return table_reading.compose_letters(str(path.parent)), table_reading.compose_letters(path.name).casefold()


def path_endings(path: str) -> list[str]:
    """The path and what is left of it folder by folder, the longest first, its letters composed."""
    parts = [part for part in Path(table_reading.compose_letters(path)).parts if part not in ("/", ".")]
    return ["/".join(parts[start:]) for start in range(len(parts))]


def sole_bearers(named: Iterable[tuple[K, V]]) -> dict[K, V]:
    """{name: what bears it} of the names that only one thing bears: of several nobody could say which is meant."""
    return {name: own[0] for name, own in grouping.by_key(named).items() if len(own) == 1}
