"""Parts of a data set as text files list them, an image or a patient in each line.

As train.txt and val.txt, or train_val_list.txt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from isocenter import errors
from isocenter.errors import DatasetError
from isocenter.layouts.cases import dataset_folder, table_join, table_reading, text_names
from isocenter.layouts.cases.dataset_folder import Folder
from isocenter.values import CaseRow, Problem, Split

SUFFIXES = frozenset({".txt", ".list", ".lst"})
# What holds the validation cases too, of which another list may say which they are.
BOTH: frozenset[Split] = frozenset({"train", "val"})
FEWEST = 2  # parts that are listed: one alone would leave nothing to test or to train

# The lists of one folder, each with the parts that it may name.
Lists = Sequence[tuple[frozenset[Split], Path]]


def assign_parts(cases: list[CaseRow], folder: Folder) -> tuple[list[CaseRow], str, list[Problem]]:
    """The cases with the parts that lists name, these in words, and the note on lists that leave cases out.

    Such are not used, nor are lists of several folders that name other parts: nobody could say which was meant.
    Raises DatasetError where two lists name the same case.
    """
    found = [] if folder.is_file or any(case.split for case in cases) else list(_lists(folder))
    keys = _keys(cases, folder.root) if found else {}
    stated = [(parts, lists) for lists in found if len(set((parts := _parts(lists, keys)).values())) >= FEWEST]
    whole = [(parts, lists) for parts, lists in stated if len(parts) == len(cases)]
    if not whole or any(parts != whole[0][0] for parts, _ in whole):
        return cases, "", [_unused_lists(parts, lists, len(cases)) for parts, lists in stated]
    parts, lists = whole[0]
    parted = [replace(case, split=parts[number]) for number, case in enumerate(cases)]
    return parted, f"parts as in {errors.list_phrase(path.name for _, path in lists)}", []


def _unused_lists(parts: Mapping[int, Split], lists: Lists, count: int) -> Problem:
    names, absent = errors.list_phrase(path.name for _, path in lists), count - len(parts)
    cases = errors.count_phrase(absent, "case is", "cases are")
    why = f"{cases} in none of them" if absent else "other lists name other parts"
    remedy = "To use them, list every case once, or give a table with the columns case and split"
    return Problem("note", f"the parts of {names} are not used", why=why, remedy=remedy)


def _lists(folder: Folder) -> Iterator[Lists]:
    """The lists of each folder that has at most one for each part, and one of two parts together."""
    of_folder = defaultdict[Path, list[tuple[frozenset[Split], Path]]](list)
    for member in folder.members:
        if member.suffix in SUFFIXES and (named := table_join.parts_in_name(member.path)):
            of_folder[member.path.parent].append((BOTH if "trainval" in member.stem.lower() else named, member.path))
    for own in of_folder.values():
        kinds = {named for named, _ in own}
        if len(own) == len(kinds) >= FEWEST and all(len(named) == 1 or named == BOTH for named in kinds):
            yield sorted(own, key=lambda one: len(one[0]))  # that of both last


def _parts(lists: Lists, keys: Mapping[str, set[int]]) -> dict[int, Split]:
    """{number of a case: its part} of those that are listed; in a list of both parts it trains, unless another says."""
    parts, before = dict[int, Split](), dict[int, Path]()
    for named, path in lists:
        for number, line in _cases_named(path, keys):
            if parts.setdefault(number, min(named)) not in named:
                problem = f"lists {line}, which {before[number].name} lists too"
                raise DatasetError(problem, str(path), "Leave it in one of them")
            before.setdefault(number, path)
    return parts


def _cases_named(path: Path, keys: Mapping[str, set[int]]) -> Iterator[tuple[int, str]]:
    """(number of a case, what names it) for the lines of a list; a line may say more than a name."""
    for line in table_reading.compose_letters(path.read_text(encoding="utf-8", errors="replace")).splitlines():
        name = next((text for text in (line.strip(), *line.replace(",", " ").split()) if text in keys), None)
        yield from ((number, name) for number in sorted(keys[name])) if name is not None else ()


def _keys(cases: Sequence[CaseRow], root: Path) -> dict[str, set[int]]:
    """{what may stand in a list: the cases that are meant}: names, files, folders."""
    keys: dict[str, set[int]] = defaultdict(set)
    for number, case in enumerate(cases):
        places = [path.relative_to(root) if path.is_relative_to(root) else Path(path.name) for path in case.paths]
        # A path as each of its folders sees it, with and without suffix, and the names of these folders.
        endings = (end for place in places for end in text_names.path_endings(place.as_posix()))
        texts = {one for end in endings for one in (end, dataset_folder.stem_of(end))}
        for text in texts.union({case.name, PurePosixPath(case.name).name}, *(place.parts[:-1] for place in places)):
            keys[text].add(number)
    return keys
