"""Who leaks into whom: patients on both sides of a split, and images that are there twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from isocenter.errors import counted
from isocenter.quality.near_duplicates import Twin
from isocenter.values import Case, Dataset, Problem

# What is measured on an image, and not called.
MEASURED = {"values", "times"}


def leakage(dataset: Dataset, found: Sequence[Twin]) -> Iterator[Problem]:
    """found: pairs of cases with (nearly) the same image."""
    yield from _split_patients(dataset)
    if not dataset.patients_known and len(dataset) > 0:
        yield Problem(
            "warning",
            f"patients are not known ({dataset.patients})",
            (),
            "one person may stand on both sides of a split: leakage cannot be excluded",
            "Say with --patient REGEX|COLUMN how to tell them apart",
        )
    for exact in (True, False):
        alike = [twin for twin in found if twin.exact == exact]
        yield from _twins(dataset, alike, "exactly" if exact else "nearly")


def _split_patients(dataset: Dataset) -> Iterator[Problem]:
    """A patient on both sides of the set's own split."""
    sides: dict[str, set[str]] = {}
    for case in dataset:
        if case.id in dataset.splits:
            sides.setdefault(case.patient, set()).add(dataset.splits[case.id])
    both = {patient for patient, found in sides.items() if len(found) > 1}
    if both and dataset.patients_known:
        yield Problem(
            "error",
            f"{counted(len(both), 'patient stands', 'patients stand')} in more than one part of the set's own split",
            tuple(case.id for case in dataset if case.patient in both),
            "the test would be passed by recognising a person",
            "Correct the split, so that all cases of a patient are in one part",
        )


def _twins(dataset: Dataset, pairs: Sequence[Twin], how: str) -> Iterator[Problem]:
    """Across the parts of the set's own split, with contradictory classes, else of several patients, of one."""
    parts, patients = dataset.splits, {case.id: case.patient for case in dataset}
    said = {case.id: _said(case) for case in dataset}
    across = [t for t in pairs if parts.get(t.first) != parts.get(t.second)]
    contrary = {t: kinds for t in pairs if (kinds := _contradictions(said[t.first], said[t.second], t.exact))}
    told = {*across, *contrary}
    rest = [t for t in pairs if t not in told]
    of_one = [dataset.patients_known and patients[t.first] == patients[t.second] for t in rest]
    one = [t for t, same in zip(rest, of_one, strict=True) if same]
    several = [t for t, same in zip(rest, of_one, strict=True) if not same]
    yield from _pairs(
        "warning",
        across,
        f"{how} the same image in two parts of the set's own split",
        "the test would be passed by remembering",
        "Nothing: the test part stays whole, and the plan leaves the others out of training",
    )
    yield from _pairs(
        "warning",
        list(contrary),
        f"{how} the same image with different {' and '.join(sorted(set().union(*contrary.values())))}",
        "one of them is wrong, and a model cannot be right about both",
        "Ask who labelled them; leave out what cannot be settled",
    )
    yield from _pairs(
        "warning",
        several,
        f"{how} the same image under different names",
        "drawn into training and test it would leak, and it counts more than it should",
        "Nothing: the plan keeps them on one side; leave out those that are not meant",
    )
    yield from _pairs(
        "note",
        one,
        f"{how} the same image of one patient",
        "they stay on one side of a split, but tell little more than one of them",
        "Leave out those that are not meant",
    )


def _said(case: Case) -> dict[tuple[str, str], object]:
    """What its references say of the case as a whole: its class, each finding and value, its time and event."""
    references = case.references
    own: dict[tuple[str, str], object] = {}
    own |= {("findings", name): bool(present) for name, present in references.get("findings", {}).items()}
    own |= {("values", name): float(value) for name, value in references.get("value", {}).items()}
    own |= {("times", ""): tuple(references["event"])} if "event" in references else {}
    return own | ({("classes", ""): references["class"]} if "class" in references else {})


def _contradictions(
    one: Mapping[tuple[str, str], object], other: Mapping[tuple[str, str], object], exact: bool
) -> set[str]:
    """Of what kind the two say different things."""
    found = {kind for kind, name in one.keys() & other.keys() if one[kind, name] != other[kind, name]}
    # Nearly the same image may be the next moment, which has a value and a time of its own.
    return found if exact else found - MEASURED


def _pairs(severity: str, pairs: Sequence[Twin], what: str, why: str, remedy: str) -> Iterator[Problem]:
    if pairs:
        cases = tuple(dict.fromkeys(name for twin in pairs for name in (twin.first, twin.second)))
        said = f"{counted(len(pairs), 'pair')} of cases with {what}"
        yield Problem(severity, said, cases, why, remedy)  # type: ignore[arg-type]
