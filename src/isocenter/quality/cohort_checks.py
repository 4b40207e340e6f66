"""What only shows beside the other cases; an error here is not mended by leaving a case out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from isocenter.errors import counted, listed
from isocenter.quality.boxes import no_boxes
from isocenter.quality.event_checks import events
from isocenter.quality.instances import no_instances
from isocenter.transforms import COLOUR, GREY, all_channels, placed, without_alpha
from isocenter.values import Dataset, Fingerprint, Label, Problem, grades

# A label map with more values than this, undeclared, numbers instances.
MOST_LABELS = 32
# Of fewer patients of a class none is left for one of training, selection and test.
FEWEST_PATIENTS = 3


def none_left(problems: Sequence[Problem], fingerprint: Fingerprint) -> Iterator[Problem]:
    """That no case can be used, and what is wrong with the first."""
    if fingerprint.cases:
        return
    first = next((problem for problem in problems if problem.severity == "error"), Problem("error", "there is none"))
    remedy = first.remedy or "See what was found for each case"
    where = f"{', '.join(first.cases[:1])}: " if first.cases else ""
    what = f"no case can be used; the first: {where}{first.what}"
    yield Problem("error", what, (), "there is nothing to learn from", remedy)


def together(dataset: Dataset, fingerprint: Fingerprint) -> Iterator[Problem]:
    """Labels, classes, events, channels and axes of all cases that can be used."""
    yield from _labels(dataset, fingerprint)
    yield from _background(dataset, fingerprint)
    yield from no_boxes(dataset, fingerprint)
    yield from no_instances(dataset, fingerprint)
    yield from _classes(dataset, fingerprint)
    yield from _grades(fingerprint)
    yield from _findings(dataset, fingerprint)
    yield from events(dataset, fingerprint)
    yield from _channels(dataset, fingerprint)
    axes = {len(case.shape) for case in fingerprint.cases}
    if len(axes) > 1:
        yield Problem(
            "error", "some images have two axes and some three", (), "one network takes one kind", "Split the data set"
        )


def _labels(dataset: Dataset, fingerprint: Fingerprint) -> Iterator[Problem]:
    declared = {label.value for label in dataset.classes.get("mask", ())} | {0}
    strange = {
        case.id: sorted(set(case.references["mask"]) - declared)
        for case in fingerprint.cases
        if set(case.references.get("mask", ())) - declared
    }
    if len(declared) > 1 and strange:
        values = sorted({value for found in strange.values() for value in found})
        yield Problem(
            "error",
            f"masks hold values without a label: {listed(values)}",
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
            "Choose --task instances, for boxes --task detection --labels each=NAME, or give masks with one value for "
            "each structure, such as 1 for every nucleus",
        )


def _background(dataset: Dataset, fingerprint: Fingerprint) -> Iterator[Problem]:
    """Masks in which nothing is drawn, in all the cases that would train."""
    masks = {case.id: set(case.references["mask"]) for case in fingerprint.cases if "mask" in case.references}
    training = {case: values for case, values in masks.items() if dataset.splits.get(case, "train") == "train"}
    if training and all(values <= {0} for values in training.values()):
        where = "of the training part " if len(training) < len(masks) else ""
        yield Problem(
            "error",
            f"every mask {where}is empty: all {len(training)} are background",
            (),
            "there is no structure to learn",
            "Look at how the masks were written, or give those that hold the structures",
        )
        return
    declared = {label.value: label.name for label in dataset.classes.get("mask", ()) if label.value != 0}
    declared = {value: name for value, name in declared.items() if not Label(value, name).is_ignored}
    missing = [name for value, name in declared.items() if training and not any(value in v for v in training.values())]
    if missing:
        yield Problem(
            "warning",
            f"declared but nowhere drawn in the cases that train: {listed(missing)}",
            (),
            "it cannot be learnt",
            "Leave it out with --labels, or look for the masks that hold it",
        )


def _classes(dataset: Dataset, fingerprint: Fingerprint) -> Iterator[Problem]:
    training = {case.id for case in dataset if dataset.splits.get(case.id, "train") == "train"}
    counts = fingerprint.only(training).counts()
    if len(counts) == 1:
        [(name, count)] = counts.items()
        which = "" if len(training) == len(dataset) else "training "
        yield Problem(
            # A set with masks can still teach them.
            "warning" if "mask" in dataset.kinds else "error",
            f"{f'all {count} {which}cases are' if count > 1 else f'the one {which}case is'} of one class, {name}",
            (),
            "there is nothing to tell apart",
            "Add cases of another class: two classes are the least",
        )
        return
    declared = [label.name for label in dataset.classes.get("class", ())] or list(fingerprint.counts())
    untaught = [name for name in declared if counts and name not in counts]
    if untaught:
        yield Problem(
            "warning",
            f"no case that trains is of the class {listed(untaught)}",
            tuple(case.id for case in fingerprint.cases if case.references.get("class") in untaught),
            "it cannot be learnt, and cases of it can only be called wrongly",
            "Add cases of it to the training part, or leave the class out",
        )
    patients: dict[str, set[str]] = {name: set() for name in fingerprint.counts() if name not in untaught}
    owner = {case.id: case.patient for case in dataset}
    for case in fingerprint.cases:
        if case.references.get("class") in patients:
            patients[case.references["class"]].add(owner[case.id])
    few = {name: len(people) for name, people in patients.items() if len(people) < FEWEST_PATIENTS}
    if few:
        unit = "patient" if dataset.patients_known else "case"
        yield Problem(
            "warning",
            f"few of a class: {', '.join(f'{name} has {counted(n, unit)}' for name, n in few.items())}",
            tuple(case.id for case in fingerprint.cases if case.references.get("class") in few),
            "it cannot be in training, selection and test at once",
            "Add cases of it, or join it with another class",
        )


def _grades(fingerprint: Fingerprint) -> Iterator[Problem]:
    """Classes that are numbered, with a number missing between them."""
    numbers = sorted(grades(list(fingerprint.counts())) or ())
    missing = sorted(set(range(numbers[0], numbers[-1])) - set(numbers)) if len(numbers) > 2 else []
    if missing:
        yield Problem(
            "note",
            f"the classes are numbered {listed(numbers)}: no case has {listed(missing)}",
            (),
            "if they are grades, their distances are counted in places of this order, and a gap counts as one step",
            "Add cases of the missing grade, or state what mistakes cost with --set task.costs=...",
        )


def _findings(dataset: Dataset, fingerprint: Fingerprint) -> Iterator[Problem]:
    """Findings that all cases that train have, or none."""
    training = {case.id for case in dataset if dataset.splits.get(case.id, "train") == "train"}
    found = fingerprint.only(training).findings
    for name in [label.name for label in dataset.classes.get("findings", ())] or list(found):
        present, absent = found.get(name, (0, 0))
        if not (present and absent):
            yield Problem(
                "warning",
                f"finding {name}: {present} of the cases that train have it and {absent} do not",
                (),
                "it cannot be learnt, and the plan leaves it out",
                "Add cases with and without it, or leave out its column",
            )


def _channels(dataset: Dataset, fingerprint: Fingerprint) -> Iterator[Problem]:
    """Cases with other channels than the rest; pictures in grey beside those in colour can be brought to one kind.

    A case that lacks an image is none: its channels are told by the names of its images.
    """
    kinds = [without_alpha(case.channels) for case in fingerprint.cases]
    if set(kinds) <= {GREY, COLOUR} or len(set(kinds)) == 1:
        return
    images = {case.id: set(case.images) for case in dataset}
    named = all(
        {name, name.partition(":")[0]} & images[case.id] for case in fingerprint.cases for name in case.channels
    )
    places = [placed(kind, all_channels(kinds)) for kind in kinds]
    if named and all(found is not None and list(found) == sorted(found) for found in places):
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
