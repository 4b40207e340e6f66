"""Versions of the same case in two data sets: other voxels, another mask or label, another part.

Cases are matched by the contents of their files or equal voxels, else as nearly the same image, else by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hilum import errors
from hilum.files.storage import csv_text, hashing
from hilum.quality import leakage
from hilum.quality.dataset_examination import Examination
from hilum.quality.image_descriptors import ImageLook
from hilum.scoring import data_record
from hilum.scoring.data_record import DATA_RECORD
from hilum.values import CaseFacts, Dataset, Problem, grouping

# References of which the value itself is compared; of masks what was measured of them.
STATED = {"class": "label", "findings": "findings", "value": "values", "event": "event"}
MASKS = ("mask", "instances")
BY_FILES, BY_VOXELS, BY_LIKENESS, BY_NAME = "by its files", "by equal voxels", "as nearly the same image", "by its name"
# Statistics of intensities that differ by less have been rounded.
ROUNDED = 1e-3
# Ends the names of cases of the other set where both are compared.
APART = "\0"


@dataclass(frozen=True, eq=False)
class OtherSet:
    """A data set, or what a run recorded of its own, that cases are compared with.

    contents: {case: hash of its files}
    digests:  {case: hash of its voxels}
    facts, looks: of the cases that are not the same files; empty of a record
    stated:   {case: {kind: value}} of references that are no images
    parts:    {case: part}
    is_record: whether nothing but hashes and parts is known
    """

    name: str
    contents: Mapping[str, str]
    digests: Mapping[str, str]
    facts: Mapping[str, CaseFacts] = field(default_factory=dict)
    looks: Mapping[str, ImageLook] = field(default_factory=dict)
    stated: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    is_record: bool = False


def record_folder(path: Path) -> Path | None:
    """The folder of a run whose record of cases a path names; None where it is a data set."""
    folder = path.parent if path.name == DATA_RECORD else path
    return folder if (folder / DATA_RECORD).is_file() and (folder / "split.csv").is_file() else None


def beside_run(examination: Examination, place: Path) -> Examination:
    """The examination with findings on cases that a run has otherwise; as it is where the place is no run."""
    folder = record_folder(place)
    if folder is None:
        return examination
    contents = {case.id: hashing.content_hash(case) for case in examination.dataset if case.files}
    found = version_problems(examination, contents, recorded_set(folder))
    return replace(examination, problems=(*examination.problems, *found))


def recorded_set(folder: Path) -> OtherSet:
    """What a run recorded of the cases that it was made with. Raises IntegrityError for a damaged record."""
    record, table = data_record.read_data_record(folder), csv_text.read_text_table(folder / "split.csv")
    parts = dict(zip(table["case"], table["split"], strict=True)) if table["fold"].nunique() < 2 else {}
    return OtherSet(folder.name, record.contents, record.voxels, parts=parts, is_record=True)


def examined_set(
    name: str, dataset: Dataset, known: Mapping[str, str], examine: Callable[[Dataset], Examination]
) -> OtherSet:
    """Another data set, of which cases whose files are known are not read.

    known:   {case: hash of its files} of the set that it is compared with
    examine: reads the cases of a data set
    """
    contents = {case.id: hashing.content_hash(case) for case in dataset if case.files}
    same = set(known.values())
    unknown = {case.id for case in dataset if contents.get(case.id) not in same}
    examination = examine(dataset.only(unknown)) if unknown else None
    looks = {} if examination is None else examination.looks
    return OtherSet(
        name,
        contents,
        {case: look.digest for case, look in looks.items()},
        {} if examination is None else {case.id: case for case in examination.fingerprint.cases},
        looks,
        {case.id: {kind: case.references[kind] for kind in STATED if kind in case.references} for case in dataset},
        dataset.splits,
    )


class Match(NamedTuple):
    """The case of the other set that a case is, and how that is known."""

    other: str
    how: str


def version_problems(examination: Examination, contents: Mapping[str, str], other: OtherSet) -> Iterator[Problem]:
    """Warnings on cases that the other set has otherwise, and a note on how many it has at all.

    contents: {case: hash of its files}
    """
    matches = _match_cases(examination, contents, other)
    facts = {case.id: case for case in examination.fingerprint.cases}
    found = [
        (difference, match.how, case)
        for case, match in matches.items()
        for difference in _differences(case, match, facts[case], examination, contents, other)
    ]
    for (difference, how), alike in grouping.by_key(((what, how), case) for what, how, case in found).items():
        yield Problem.warning(
            f"{other.name} has the same case ({how}) otherwise: {difference}",
            tuple(alike),
            "one of the two is wrong, or a model that learnt from one is judged by the other",
            "Look at both, and correct one of them",
        )
    counts = grouping.by_key((match.how, case) for case, match in matches.items())
    ways = errors.list_phrase(f"{len(cases)} {how}" for how, cases in counts.items()) or "none"
    lacking = "; it is a record of hashes, so near-duplicates, labels and values were not compared"
    yield Problem.note(
        f"of {len(facts)} cases {other.name} has {len(matches)} too ({ways}){lacking if other.is_record else ''}",
        (),
        "they were compared, case by case",
    )


def _match_cases(examination: Examination, contents: Mapping[str, str], other: OtherSet) -> dict[str, Match]:
    """{case: its match}, the surest way first. Names alone count where some images are the same, and no two images."""
    looks = examination.looks
    by_content = {content: name for name, content in other.contents.items()}
    by_digest = {digest: name for name, digest in other.digests.items()}
    matches = dict[str, Match]()
    for case, look in looks.items():
        if contents.get(case) in by_content:
            matches[case] = Match(by_content[contents[case]], BY_FILES)
        elif look.digest in by_digest:
            matches[case] = Match(by_digest[look.digest], BY_VOXELS)
    if other.looks:
        renamed = {f"{APART}{name}": look for name, look in other.looks.items()}
        rest = {case: look for case, look in looks.items() if case not in matches}
        for twin in leakage.find_twins({**rest, **renamed}):
            for case, name in ((twin.first, twin.second), (twin.second, twin.first)):
                if case in rest and name in renamed:
                    matches.setdefault(case, Match(name.removeprefix(APART), BY_LIKENESS))
    names = other.contents.keys() | other.looks.keys()
    if matches:
        matches |= {case: Match(case, BY_NAME) for case in looks if case not in matches and case in names}
    return matches


def _differences(
    case: str,
    match: Match,
    facts: CaseFacts,
    examination: Examination,
    contents: Mapping[str, str],
    other: OtherSet,
) -> Iterator[str]:
    """What the other set has otherwise, in words."""
    theirs = other.facts.get(match.other)
    if match.how == BY_NAME:
        yield "another image"
    elif theirs is not None and match.how == BY_LIKENESS:
        yield from _other_values(facts, theirs)
    if theirs is not None and match.how != BY_NAME and facts.shape == theirs.shape:
        yield from _other_masks(facts, theirs, same_voxels=match.how == BY_VOXELS)
    if other.is_record and match.how == BY_VOXELS and contents.get(case) != other.contents.get(match.other):
        yield "other files beside equal voxels, so another reference, or an image that was saved anew"
    for kind, word in STATED.items():
        own, their = facts.references.get(kind), other.stated.get(match.other, {}).get(kind)
        if own is not None and their is not None and own != their:
            yield f"{word} {_in_words(own)} here, {_in_words(their)} there"
    here, there = examination.dataset.splits.get(case), other.parts.get(match.other)
    if here is not None and there is not None and here != there:
        yield f"part {here} here, {there} there"


def _other_values(own: CaseFacts, their: CaseFacts) -> Iterator[str]:
    """How many times the intensities of the same image are those of the other set."""
    spans = [[levels["high"] - levels["low"] for levels in facts.intensity] for facts in (own, their)]
    if len(spans[0]) != len(spans[1]) or min(map(min, spans)) <= 0:
        return
    times = float(np.median([own_span / their_span for own_span, their_span in zip(*spans, strict=True)]))
    yield "values" if abs(times - 1) < ROUNDED else f"values about {float(f'{times:.2g}'):,g} times those there"


def _other_masks(own: CaseFacts, their: CaseFacts, *, same_voxels: bool) -> Iterator[str]:
    """Which maps of voxels differ: in how many voxels they mark, or in what the image shows there."""
    for kind in MASKS:
        if kind not in own.references or kind not in their.references:
            continue
        is_moved = same_voxels and _show_otherwise(own.foreground, their.foreground)
        if own.references[kind] != their.references[kind] or is_moved or own.places != their.places:
            yield f"another {'mask' if kind == 'mask' else 'map of objects'}"


def _show_otherwise(own: Sequence[Mapping[str, float]], their: Sequence[Mapping[str, float]]) -> bool:
    """Whether the voxels that two masks mark in one image differ in mean or spread.

    Percentiles are no proof: of whole numbers they are found otherwise than of the same numbers with decimals.
    """
    if len(own) != len(their):
        return True
    for own_channel, their_channel in zip(own, their, strict=True):
        rounded = ROUNDED * own_channel["deviation"]
        if any(abs(own_channel[name] - their_channel[name]) > rounded for name in ("mean", "deviation")):
            return True
    return False


def _in_words(value: Any) -> str:
    """A label, numbers by name, or a time with its event."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {known}" for name, known in value.items())
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
