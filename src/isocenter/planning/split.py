"""Who trains, who selects, who tests: by patient, never by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from isocenter.errors import DatasetError, counted
from isocenter.transforms import generator
from isocenter.values import Case, Dataset, Decision, Split

TEST_SHARE = 0.2
VAL_SHARE = 0.1
MOST_VAL_CASES = 20
FEW_PATIENTS = 4


def split(dataset: Dataset, *, seed: int, everything: bool = False) -> tuple[Mapping[str, Split], Decision]:
    """{case id: part} and how it was made.

    A set's own test part is kept whole. Without one, a fifth of the patients is test; of the rest a tenth, at most 20
    cases, selects. Patients are drawn within their rarest class, so that each part has all classes.
    everything: all cases but a set's own test part train, nothing selects
    Raises DatasetError where there are too few patients to part.
    """
    own = dict(dataset.splits)
    parts: dict[str, Split] = {case.id: own.get(case.id, "train") for case in dataset}
    said = []
    if "test" in own.values():
        said.append("the set's own test part")
    elif not everything:
        drawn = _draw([case for case in dataset if parts[case.id] == "train"], TEST_SHARE, seed, 1)
        parts |= dict.fromkeys(drawn, "test")
        said.append(f"{counted(len(drawn), 'test case')}: a fifth of the patients, drawn by seed {seed}")
    if everything:
        parts = {key: "train" if part == "val" else part for key, part in parts.items()}
    elif "val" in own.values():
        said.append("the set's own validation part")
    else:
        rest = [case for case in dataset if parts[case.id] == "train"]
        drawn = _draw(rest, min(VAL_SHARE, MOST_VAL_CASES / max(1, len(rest))), seed, 2)
        parts |= dict.fromkeys(drawn, "val")
        said.append(
            f"{counted(len(drawn), 'validation case')}: a tenth of the other patients, at most {MOST_VAL_CASES} cases"
        )
    counts = {part: list(parts.values()).count(part) for part in ("train", "val", "test")}
    if not counts["train"] or (not everything and not counts["val"]):
        raise DatasetError(
            f"{counted(len(dataset), 'case')} of {counted(len({case.patient for case in dataset}), 'patient')}: "
            "too few to part",
            str(dataset.root or dataset.name),
            "Give more cases, or --all to train on every case",
        )
    grouped = "by patient" if dataset.patients_known else "by case, patients unknown: leakage cannot be excluded"
    because = f"{counts['train']} train, {counts['val']} val, {counts['test']} test, {grouped}; {', '.join(said)}"
    return parts, Decision("own" if own else "drawn", because, "doi:10.1148/radiol.220182")


def _draw(cases: Sequence[Case], share: float, seed: int, salt: int) -> list[str]:
    """Ids of about `share` of the cases, whole patients, from every class alike."""
    by_patient: dict[str, list[Case]] = {}
    for case in cases:
        by_patient.setdefault(case.patient, []).append(case)
    if len(by_patient) < 2:
        return []
    names = [_class(case) for case in cases]
    strata: dict[str, list[str]] = {}
    for patient, owned in sorted(by_patient.items()):
        rarest = min((_class(case) for case in owned), key=names.count)
        strata.setdefault(rarest, []).append(patient)
    chosen: list[str] = []
    for number, (_, patients) in enumerate(sorted(strata.items())):
        shuffled = generator(seed, salt, number).permutation(np.array(patients, dtype=object)).tolist()
        wanted, taken = share * sum(len(by_patient[patient]) for patient in patients), 0
        # Of a class with few patients one is worth more on the other side than a share of one here.
        least = 1 if len(patients) >= FEW_PATIENTS or (not chosen and number == len(strata) - 1) else 0
        for patient in shuffled:
            more = len(by_patient[patient])
            if taken + more / 2 > wanted and taken >= least:
                break
            taken += more
            chosen += [case.id for case in by_patient[patient]]
    return chosen


def _class(case: Case) -> str:
    return str(case.references.get("class", "")) if "class" in case.references else ""
