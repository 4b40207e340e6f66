"""Parts that text files list, an image or a patient in each line: train.txt and val.txt, or train_val_list.txt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from isocenter.errors import DatasetError, counted, listed
from isocenter.files.layouts.cases.folder import Folder, stem_of
from isocenter.files.layouts.cases.join import parts_named
from isocenter.files.layouts.layout import CaseFiles
from isocenter.values import Problem, Split

SUFFIXES = frozenset({".txt", ".list", ".lst"})
# What holds the validation cases too, of which another list may say which they are.
BOTH: frozenset[Split] = frozenset({"train", "val"})
FEWEST = 2  # parts that are listed: one alone would leave nothing to test or to train


@dataclass(frozen=True)
class Lists:
    """The lists of one folder, each of another part; `both` names training and validation cases together."""

    parts: Mapping[Split, Path]
    both: Path | None

    @property
    def paths(self) -> list[Path]:
        """Their files."""
        return [*self.parts.values(), *([self.both] if self.both else [])]


def with_listed_parts(cases: Sequence[CaseFiles], folder: Folder) -> tuple[list[CaseFiles], str, list[Problem]]:
    """The cases with the parts that lists name, these in words, and the note on lists that leave cases out.

    Such are not used, nor are lists of several folders that name other parts: nobody could say which was meant.
    Raises DatasetError where two lists name the same case.
    """
    found = [] if folder.is_file or any(case.split for case in cases) else list(_lists(folder))
    keys = _keys(cases, folder.root) if found else {}
    stated = [(parts, lists) for lists in found if len(set((parts := _parts(lists, keys)).values())) >= FEWEST]
    whole = [(parts, lists) for parts, lists in stated if len(parts) == len(cases)]
    if not whole or any(parts != whole[0][0] for parts, _ in whole):
        return list(cases), "", [_unused(parts, lists, len(cases)) for parts, lists in stated]
    parts, lists = whole[0]
    parted = [replace(case, split=parts[number]) for number, case in enumerate(cases)]
    return parted, f"parts as in {listed(path.name for path in lists.paths)}", []


def _unused(parts: Mapping[int, Split], lists: Lists, count: int) -> Problem:
    names = listed(path.name for path in lists.paths)
    absent = count - len(parts)
    why = f"{counted(absent, 'case is', 'cases are')} in none of them" if absent else "other lists name other parts"
    remedy = "To use them, list every case once, or give a table with the columns case and split"
    return Problem("note", f"the parts of {names} are not used", why=why, remedy=remedy)


def _lists(folder: Folder) -> Iterator[Lists]:
    """The lists of each folder that has at most one for each part."""
    of_folder: dict[Path, list[tuple[frozenset[Split], Path]]] = defaultdict(list)
    for member in folder.members:
        if member.suffix in SUFFIXES and (named := parts_named(member.path)):
            of_folder[member.path.parent].append((BOTH if "trainval" in member.stem.lower() else named, member.path))
    for own in of_folder.values():
        parts = {part: path for named, path in own if len(named) == 1 for part in named}
        both = [path for named, path in own if named == BOTH]
        if len(parts) + len(both) == len(own) >= FEWEST and len(both) < FEWEST:
            yield Lists(parts, both[0] if both else None)


def _parts(lists: Lists, keys: Mapping[str, set[int]]) -> dict[int, Split]:
    """{number of a case: its part} of those that are listed."""
    parts: dict[int, Split] = {}
    for part, path in lists.parts.items():
        for number, line in _named(path, keys):
            if parts.setdefault(number, part) != part:
                problem = f"lists {line}, which {lists.parts[parts[number]].name} lists too"
                raise DatasetError(problem, str(path), "Leave it in one of them")
    for number, line in _named(lists.both, keys) if lists.both else ():
        if parts.setdefault(number, "train") not in BOTH:
            problem = f"lists {line}, which {lists.parts[parts[number]].name} lists too"
            raise DatasetError(problem, str(lists.both), "Leave it in one of them")
    return parts


def _named(path: Path, keys: Mapping[str, set[int]]) -> Iterator[tuple[int, str]]:
    """(number of a case, what names it) for the lines of a list; a line may say more than a name."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        texts = (line.strip(), *line.replace(",", " ").split())
        name = next((text for text in texts if text in keys), None)
        yield from ((number, name) for number in sorted(keys[name])) if name is not None else ()


def _keys(cases: Sequence[CaseFiles], root: Path) -> dict[str, set[int]]:
    """{what may stand in a list: the cases that are meant}: names, files, folders."""
    keys: dict[str, set[int]] = defaultdict(set)
    for number, case in enumerate(cases):
        for path in case.files:
            relative = PurePosixPath(path.relative_to(root).as_posix()) if path.is_relative_to(root) else None
            for text in (path.name, stem_of(path.name), *(_inner_paths(relative) if relative else ())):
                keys[text].add(number)
        for text in (case.name, PurePosixPath(case.name).name):
            keys[text].add(number)
    return keys


def _inner_paths(relative: PurePosixPath) -> Iterator[str]:
    """A path as each of its folders sees it, with and without suffix, and the names of these folders."""
    for start in range(len(relative.parts)):
        inner = PurePosixPath(*relative.parts[start:])
        yield from (str(inner), str(inner.with_name(stem_of(inner.name))))
    yield from relative.parts[:-1]
