"""Leakage: patients on both sides of a split, and images that are there twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from isocenter.errors import counted
from isocenter.quality.near_duplicates import Twin
from isocenter.quality.references import reference_kinds
from isocenter.values import CaseFacts, Dataset, Fingerprint, Problem, ReferenceKind


def leakage(dataset: Dataset, fingerprint: Fingerprint, pairs: Sequence[Twin]) -> Iterator[Problem]:
    """Findings on patients and on pairs of cases with (nearly) the same image."""
    yield from _split_patients(dataset)
    yield from _spelt_patients(dataset)
    if not dataset.patients_known and len(dataset) > 0:
        yield Problem(
            "warning",
            f"patients are not known ({dataset.patients})",
            (),
            "one person may be in training and in test: leakage cannot be excluded",
            "Name the patient by --patient: a column, or a regular expression on case names",
        )
    for exact in (True, False):
        alike = [twin for twin in pairs if twin.exact == exact]
        yield from _twins(dataset, fingerprint, alike, "exactly" if exact else "nearly")


def _split_patients(dataset: Dataset) -> Iterator[Problem]:
    """A patient on both sides of the set's own split; a case of which it says nothing trains."""
    sides: dict[str, set[str]] = {}
    for case in dataset if dataset.splits else ():
        sides.setdefault(case.patient, set()).add(dataset.splits.get(case.id, "train"))
    both = {patient for patient, own in sides.items() if len(own) > 1}
    if both and dataset.patients_known:
        yield Problem(
            "error",
            f"{counted(len(both), 'patient is', 'patients are')} in more than one part of the set's own split",
            tuple(case.id for case in dataset if case.patient in both),
            "a model that only recognises a person would pass the test",
            "Correct the split, so that all cases of a patient are in one part",
        )


def _spelt_patients(dataset: Dataset) -> Iterator[Problem]:
    """Patients whose names differ only in upper and lower case, who may be one."""
    spelt: dict[str, set[str]] = {}
    for case in dataset if dataset.patients_known else ():
        spelt.setdefault(case.patient.casefold(), set()).add(case.patient)
    doubtful = {name for own in spelt.values() if len(own) > 1 for name in own}
    if doubtful:
        yield Problem(
            "warning",
            f"{len(doubtful)} patients differ from another only in upper and lower case",
            tuple(case.id for case in dataset if case.patient in doubtful),
            "if they are one person, that person may be in training and in test",
            "Write each patient in one way",
        )


def _twins(dataset: Dataset, fingerprint: Fingerprint, pairs: Sequence[Twin], how: str) -> Iterator[Problem]:
    """Across the parts of the set's own split, with contradictory classes, else of several patients, of one."""
    patients = {case.id: case.patient for case in dataset}
    parts = {case: dataset.splits.get(case, "train") for case in patients}  # of whom the split says nothing trains
    answers = {case.id: _answers(case) for case in fingerprint.cases}
    across = [t for t in pairs if parts[t.first] != parts[t.second]]
    contrary = {t: kinds for t in pairs if (kinds := _contradictions(answers[t.first], answers[t.second], t.exact))}
    named = {*across, *contrary}
    rest = [t for t in pairs if t not in named]
    of_one = {t for t in rest if dataset.patients_known and patients[t.first] == patients[t.second]}
    several, same_patient = [t for t in rest if t not in of_one], [t for t in rest if t in of_one]
    tested = [t for t in across if "test" in (parts[t.first], parts[t.second])]
    yield from _pairs(
        "warning",
        tested,
        f"{how} the same image in two parts of the set's own split",
        "a model that only remembers its training images would pass the test",
        "Nothing to do: the test part stays whole, and the plan leaves the others out of training",
    )
    yield from _pairs(
        "warning",
        [t for t in across if t not in set(tested)],
        f"{how} the same image in two parts of the set's own split, none of which is the test part",
        "weights that only remember their training images would be selected, or calibrated, by these",
        "Nothing to do: the plan brings both into training, or leaves one out",
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
        "one in training and one in test would be a leak, and each counts twice",
        "Nothing to do: the plan keeps each pair in one part; leave out those that are not intended",
    )
    yield from _pairs(
        "note",
        same_patient,
        f"{how} the same image of one patient",
        "each pair stays in one part, but adds little to one image",
        "Leave out those that are not intended",
    )


Answers = Mapping[tuple[str, str], tuple[ReferenceKind, object]]


def _answers(case: CaseFacts) -> Answers:
    """The answers of references on the case as a whole: its class, each finding and value, its time and event."""
    return {
        (kind.name, name): (kind, answer)
        for kind in reference_kinds()
        if kind.name in case.references
        for name, answer in kind.facts.answers(case.references[kind.name]).items()
    }


def _contradictions(first: Answers, second: Answers, exact: bool) -> set[str]:
    """The kinds, in the plural, of which the two have different answers."""
    different = [first[key] for key in first.keys() & second.keys() if first[key] != second[key]]
    # Nearly the same image may be the next moment, which has a value and a time of its own.
    return {kind.words.plural for kind, _ in different if exact or not kind.facts.is_measured}


def _pairs(
    severity: Literal["warning", "note"], pairs: Sequence[Twin], what: str, why: str, remedy: str
) -> Iterator[Problem]:
    if pairs:
        cases = tuple(dict.fromkeys(name for twin in pairs for name in (twin.first, twin.second)))
        yield Problem(severity, f"{counted(len(pairs), 'pair')} of cases with {what}", cases, why, remedy)
