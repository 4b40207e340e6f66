"""One pass over all cases: what is here, what is wrong, and the numbers that planning needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isocenter.errors import IsocenterError, counted
from isocenter.quality import masks
from isocenter.transforms import COLOUR, GREY, content, stacked, without_alpha
from isocenter.values import (
    GRID_TOLERANCE,
    Array,
    Case,
    CaseFacts,
    Dataset,
    Fingerprint,
    Image,
    Problem,
    Shortcut,
)

# A label map with more values than this, undeclared, numbers instances.
MOST_LABELS = 32
# Called with the number of cases done and of all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Examination:
    """A data set as far as it can be used, and what was found about it.

    dataset:  without the cases that cannot be used
    problems: all that was found
    fatal:    those of them because of which nothing should be trained on the rest either
    twins:    groups of cases that hold (nearly) the same image
    shortcuts: what was tried to tell the classes apart without the disease, the strongest first
    """

    dataset: Dataset
    fingerprint: Fingerprint
    problems: tuple[Problem, ...]
    fatal: tuple[Problem, ...] = ()
    twins: tuple[frozenset[str], ...] = ()
    shortcuts: tuple[Shortcut, ...] = ()


def examine(dataset: Dataset, *, threads: int = 1, progress: Progress | None = None) -> Examination:
    """Read every case once, a case a thread; one bad case is named and the rest goes on."""
    facts: list[CaseFacts] = []
    problems = list(dataset.problems)
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        for done, (measured, found) in enumerate(pool.map(_measured, dataset.cases), start=1):
            problems.extend(found)
            if measured is not None:
                facts.append(measured)
            if progress is not None:
                progress(done, len(dataset))
    fingerprint = Fingerprint(tuple(facts))
    of_the_whole = [problem for problem in dataset.problems if not problem.cases]
    together = [*_none_left(problems, fingerprint), *_together(dataset, fingerprint)]
    problems = [*_joined(problems), *together]
    fatal = tuple(problem for problem in (*of_the_whole, *together) if problem.severity == "error")
    usable = dataset.only({case.id for case in facts})
    return Examination(replace(usable, problems=tuple(problems)), fingerprint, tuple(problems), fatal)


def _measured(case: Case) -> tuple[CaseFacts | None, list[Problem]]:
    try:
        image = stacked(case.images, case.id)
        # Read once: every measure looks at the voxels.
        image = image.with_pixels(image.data)
        references = {kind: _read(value) for kind, value in case.references.items()}
        problems = list(_alone(case, image, references))
        if any(problem.severity == "error" for problem in problems):
            return None, problems
        return _facts(case, image, references), problems
    except IsocenterError as error:
        # Without the case's name in it, what many cases have is said once.
        what = error.problem if error.where == case.id else f"{error.where}: {error.problem}"
        return None, [Problem("error", what, (case.id,), "cannot be used", error.remedy)]


def _facts(case: Case, image: Image, references: Mapping[str, Any]) -> CaseFacts:
    data, valid = image.data, image.valid
    canonical = image.geometry.canonical
    mask = references.get("mask")
    found = masks.structures(mask.data[0]) if isinstance(mask, Image) else {}
    return CaseFacts(
        id=case.id,
        shape=canonical.shape,
        steps=canonical.steps,
        physical=image.geometry.physical,
        oriented=image.geometry.oriented,
        channels=image.channels,
        modality=image.modality,
        intensity=tuple(_intensity(channel[measured]) for channel, measured in zip(data, valid, strict=True)),
        content=_content(data, valid),
        references={kind: _summary(value) for kind, value in references.items()},
        foreground=_foreground(data, valid, mask),
        thickness={value: structure.thickness for value, structure in found.items()},
        components={value: len(structure.pieces) for value, structure in found.items()},
    )


def _foreground(data: Array, valid: Array, mask: Any) -> tuple[Mapping[str, float], ...]:
    """Per channel the intensities inside the mask; nothing without one, or where it holds no measurement."""
    if not isinstance(mask, Image):
        return ()
    inside = mask.data[0] != 0
    parts = [channel[measured & inside] for channel, measured in zip(data, valid, strict=True)]
    return tuple(_intensity(part) for part in parts) if all(part.size for part in parts) else ()


def _intensity(values: Array) -> Mapping[str, float]:
    low, median, high = np.percentile(values, (0.5, 50, 99.5))
    return {
        "min": float(values.min()),
        "low": float(low),
        "median": float(median),
        "high": float(high),
        "max": float(values.max()),
        "mean": float(values.mean(dtype=np.float64)),
        "deviation": float(values.std(dtype=np.float64)),
    }


def _content(data: Array, valid: Array) -> float:
    """Share of the grid inside the box around all that is above the lowest value."""
    above = np.zeros(data.shape[1:], dtype=bool)
    for channel, measured in zip(data, valid, strict=True):
        above |= measured & (channel > channel[measured].min())
    region = content(above)
    kept = [part.stop - part.start for part in region]
    return float(np.prod(kept) / above.size)


def _summary(value: Any) -> Any:
    """Of a reference: label values and their voxels, or the value itself."""
    return masks.voxels(value.data) if isinstance(value, Image) else value


def _read(value: Any) -> Any:
    """A reference with its voxels, if it has any, read once."""
    return value.with_pixels(value.data) if isinstance(value, Image) else value


def _alone(case: Case, image: Image, references: Mapping[str, Any]) -> Iterable[Problem]:
    """What can be said about one case without the others."""
    data, valid = image.data, image.valid
    for name, channel, measured in zip(image.channels, data, valid, strict=True):
        if not measured.any():
            yield Problem(
                "error", f"channel {name!r} holds no measurement", (case.id,), "nothing to learn", "Leave it out"
            )
            continue
        if channel[measured].min() == channel[measured].max():
            yield Problem(
                "warning",
                f"channel {name!r} is constant",
                (case.id,),
                "it shows nothing",
                "Look at it, or leave it out",
            )
        broken = int(np.count_nonzero(~np.isfinite(channel))) if channel.dtype.kind == "f" else 0
        if broken:
            yield Problem(
                "warning",
                f"channel {name!r} has {broken} voxels that are not finite",
                (case.id,),
                "they are left out of every statistic",
                "Look at how the file was made",
            )
    for kind, value in references.items():
        if isinstance(value, Image):
            yield from _mask(case, image, kind, value)


def _mask(case: Case, image: Image, kind: str, mask: Image) -> Iterable[Problem]:
    if not mask.geometry.equals(image.geometry):
        yield Problem(
            "error",
            f"{kind} ({mask.geometry!r}) and image ({image.geometry!r}) lie on different grids, "
            f"more than {GRID_TOLERANCE} mm apart",
            (case.id,),
            "a label would be learnt in the wrong place",
            "Resample one onto the other, or leave the case out",
        )
    elif not mask.data.any():
        yield Problem(
            "note", f"{kind} is empty", (case.id,), "it teaches only what is not there", "Check that this is meant"
        )


def _none_left(problems: Sequence[Problem], fingerprint: Fingerprint) -> Iterable[Problem]:
    """That no case can be used, and what is wrong with the first."""
    if fingerprint.cases:
        return
    first = next((problem for problem in problems if problem.severity == "error"), Problem("error", "there is none"))
    remedy = first.remedy or "See what was found for each case"
    where = f"{', '.join(first.cases[:1])}: " if first.cases else ""
    what = f"no case can be used; the first: {where}{first.what}"
    yield Problem("error", what, (), "there is nothing to learn from", remedy)


def _together(dataset: Dataset, fingerprint: Fingerprint) -> Iterable[Problem]:
    """What only shows beside the other cases; an error here is not mended by leaving a case out."""
    declared = {label.value for label in dataset.classes.get("mask", ())} | {0}
    if len(declared) > 1:
        strange = {
            case.id: sorted(set(case.references["mask"]) - declared)
            for case in fingerprint.cases
            if set(case.references.get("mask", ())) - declared
        }
        if strange:
            values = sorted({value for found in strange.values() for value in found})
            yield Problem(
                "error",
                f"masks hold values without a label: {', '.join(map(str, values))}",
                tuple(strange),
                "nobody knows what they mean",
                "Declare them with --labels VALUE=NAME,..., or correct the masks",
            )
    found = set(fingerprint.voxels())
    if len(declared) == 1 and len(found) > MOST_LABELS:
        yield Problem(
            "error",
            f"masks hold {len(found)} different values, so they seem to number instances and not to name structures",
            (),
            "a class would be learnt for every number",
            "Declare the labels with --labels; instances are not a task yet",
        )
    yield from _channels(fingerprint)
    axes = {len(case.shape) for case in fingerprint.cases}
    if len(axes) > 1:
        yield Problem(
            "error", "some images have two axes and some three", (), "one network takes one kind", "Split the data set"
        )
    yield from _split_patients(dataset)
    if not dataset.patients_known and len(dataset) > 0:
        yield Problem(
            "warning",
            f"patients are not known ({dataset.patients})",
            (),
            "one person may stand on both sides of a split: leakage cannot be excluded",
            "Say with --patient REGEX|COLUMN how to tell them apart",
        )


def _channels(fingerprint: Fingerprint) -> Iterable[Problem]:
    """Cases with other channels than the rest; pictures in grey beside those in colour can be brought to one kind."""
    kinds = [without_alpha(case.channels) for case in fingerprint.cases]
    if set(kinds) <= {GREY, COLOUR} or len(set(kinds)) == 1:
        return
    usual = max(sorted(set(kinds)), key=kinds.count)
    others = "; ".join(", ".join(kind) for kind in sorted(set(kinds) - {usual}))
    yield Problem(
        "error",
        f"some cases have other channels ({others}) than the rest ({', '.join(usual)})",
        tuple(case.id for case, kind in zip(fingerprint.cases, kinds, strict=True) if kind != usual),
        "one network takes one kind",
        "Give each case the same images, in the same order, or leave these cases out",
    )


def _joined(problems: Sequence[Problem]) -> list[Problem]:
    """One problem for all cases that have it."""
    cases: dict[Problem, list[str]] = {}
    for problem in problems:
        cases.setdefault(replace(problem, cases=()), []).extend(problem.cases)
    return [replace(problem, cases=tuple(found)) for problem, found in cases.items()]


def _split_patients(dataset: Dataset) -> Iterable[Problem]:
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
