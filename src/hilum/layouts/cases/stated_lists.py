"""Lists of cases and counts of a data set's own description, compared with what the folder holds.

Nothing is left out for them: a case that is listed may have been taken away, and one that is not be new.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from hilum import errors
from hilum.layouts.cases import dataset_folder
from hilum.layouts.layout import Problems
from hilum.values import Problem

# Names in full of those that lack or are not listed.
MOST_NAMED = 10
REMEDY = "Correct the description, or get the files"
# nnU-Net's number of a channel, which some lists have and some leave out.
CHANNEL = re.compile(r"_\d{4}$")


def list_problems(
    source: str, listed: Collection[str], there: Collection[str], unit: str = "case"
) -> Iterator[Problem]:
    """Warnings on what a description lists and the folder lacks, and the reverse, by name.

    source: the description, as "dataset.json (training)"
    """
    absent = sorted(set(listed) - set(there))
    if absent:
        yield absent_problem(source, absent, unit)
    unlisted = sorted(set(there) - set(listed))
    if unlisted:
        named = errors.list_phrase(unlisted, MOST_NAMED)
        what = f"{source} does not list {errors.count_phrase(len(unlisted), unit)} of the folder: {named}"
        yield Problem.warning(what, (), "they may belong to another version of the set", REMEDY)


def absent_problem(source: str, absent: Sequence[str], unit: str) -> Problem:
    """The warning on what a description lists and the folder lacks."""
    named = errors.list_phrase(absent, MOST_NAMED)
    what = f"{source} lists {errors.count_phrase(len(absent), unit)} that the folder lacks: {named}"
    return Problem.warning(what, (), "the set is not whole", REMEDY)


def count_problems(source: str, stated: Any, there: int, unit: str = "case") -> Problems:
    """The warning that a description states another number than there is; none where it states no number."""
    if isinstance(stated, bool) or not isinstance(stated, int) or stated == there:
        return ()
    what = f"{source} is {stated}, and the folder holds {errors.count_phrase(there, unit)}"
    return (Problem.warning(what, (), "the set is not whole, or its description of another version", REMEDY),)


def listed_names(entries: Any, there: Collection[str]) -> list[str] | None:
    """The cases that a list of images in `dataset.json` names; None where it is no list of images.

    there: names of cases, by which an entry with the number of a channel is known
    """
    if not isinstance(entries, list) or not entries:
        return None
    names = []
    for entry in entries:
        image = entry.get("image") if isinstance(entry, dict) else entry
        if not isinstance(image, str):
            return None
        stem = dataset_folder.stem_of(PurePosixPath(image).name)
        bare = CHANNEL.sub("", stem)
        names.append(stem if stem in there or bare not in there else bare)
    return names
