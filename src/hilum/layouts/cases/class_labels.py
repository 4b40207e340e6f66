"""The meaning of label values: from --labels, a table in the folder, or dataset.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, FormatError, UsageError
from hilum.files import label_table, patient_names
from hilum.layouts.cases import segments
from hilum.layouts.cases.dataset_folder import Folder, Record
from hilum.layouts.layout import DatasetOptions, Labels
from hilum.values import Case, CaseRow, Label, Problem, Split, grading, voxel_images
from hilum.values.covariate_values import UNLABELLED

# The part of a set that is often given without its classes, and what is then written in their place.
TEST: Split = "test"
MINUS_ONE = "-1"
# Classes in their order, and {name in the data: name of its class}.
NamedClasses = tuple[Labels, dict[str, str]]


def parse_labels(text: str) -> Labels:
    """ "1=anterior,2=posterior" as labels.

    Raises UsageError for anything else.
    """
    labels = []
    for part in text.split(","):
        value, equals, name = part.partition("=")
        # A second equals sign is a comma that was forgotten.
        if not (equals and value.strip().isdecimal() and name.strip()) or "=" in name:
            raise UsageError(f"{part!r} is not a label", f"--labels {text}", "Write 1=anterior,2=posterior")
        labels.append(Label(int(value), name.strip()))
    if fault := label_table.label_fault(labels):
        raise UsageError(fault, f"--labels {text}", label_table.ONE_EACH)
    return tuple(sorted(labels, key=lambda label: label.value))


def declared_background(text: str | None) -> int:
    """The value of the background where 0 is a structure, as 255 of "0=cup,128=rim,255=background"; else 0."""
    if text is None or "+" in text or "background" not in text.casefold():
        return 0
    labels = parse_labels(text)
    has_structure_zero = any(label.value == 0 and not (label.is_ignored or label.is_background) for label in labels)
    return next((label.value for label in labels if label.is_background), 0) if has_structure_zero else 0


def mask_labels(folder: Folder, options: DatasetOptions) -> Labels:
    """The declared labels of masks but the background (0); empty where none are declared.

    Of regions each value is one: the part of the region that it marks.
    """
    if regions := mask_regions(folder, options):
        labels = [*voxel_images.labels_of_regions(regions), *_ignored_among_regions(folder, options)]
        return tuple(sorted(labels, key=lambda label: label.value))
    if options.labels is not None:
        return _structures(parse_labels(options.labels), options.labels)
    described = (folder.description or {}).get("labels")
    if described:
        return _foreground(labels_in_dataset_json(described, _description(folder)))
    return _foreground(_table_labels(folder)) or segments.slicer_labels(folder, options.read)


def mask_regions(folder: Folder, options: DatasetOptions) -> dict[str, tuple[int, ...]]:
    """{name: values, first the one that marks it} where structures overlap; empty where none are declared so.

    --labels 1+2+3=whole,2+3=core,3=enhancing, or dataset.json as nnU-Net has it: {"whole": [1, 2, 3], ...} with
    "regions_class_order". Raises UsageError and DatasetError for what is neither.
    """
    if options.labels is not None:
        joined = any("+" in part.partition("=")[0] for part in options.labels.split(","))
        return parse_regions(options.labels) if joined else {}
    described, where = _table_in((folder.description or {}).get("labels")), _description(folder)
    if not any(len(_list_in(value)) > 1 for value in described.values()):
        return {}
    named = {str(name): _numbers(value, where) for name, value in described.items()}
    regions = {name: values for name, values in named.items() if values != (0,) and name.casefold() != "ignore"}
    stated = (folder.description or {}).get("regions_class_order")
    order = _list_in(stated)
    if len(order) != len(regions):
        problem = f"{len(regions)} regions and `regions_class_order` {stated}"
        raise DatasetError(problem, where, "Give the value that marks each region, in their order")
    for (name, values), mark in zip(regions.items(), order, strict=True):
        if mark not in values:
            raise DatasetError(f"{name} is marked by {mark}, which is none of its values", where, "Correct the order")
    if fault := label_table.label_fault([Label(mark, name) for name, mark in zip(regions, order, strict=True)]):
        raise DatasetError(f"`regions_class_order`: {fault}", where, "Give a value of its own that marks each region")
    marked = zip(regions.items(), order, strict=True)
    return {name: (mark, *(one for one in values if one != mark)) for (name, values), mark in marked}


def parse_regions(text: str) -> dict[str, tuple[int, ...]]:
    """ "1+2+3=whole,2+3=core,3=enhancing" as {name: values}; what is to be ignored is no region.

    Raises UsageError for anything else.
    """
    regions: dict[str, tuple[int, ...]] = {}
    for part in text.split(","):
        numbers, equals, name = (piece.strip() for piece in part.partition("="))
        values = [one.strip() for one in numbers.split("+")]
        if not (equals and name) or "=" in name or name in regions or not all(one.isdecimal() for one in values):
            raise UsageError(f"{part!r} is not a region", f"--labels {text}", "Write 1+2+3=whole,2+3=core,3=enhancing")
        regions[name] = tuple(int(one) for one in values)
    if fault := label_table.label_fault([Label(values[0], name) for name, values in regions.items()]):
        remedy = "Write first a value that marks this region alone, as in 1+2+3=whole,2+3=core,3=enhancing"
        raise UsageError(f"by its first value, {fault}", f"--labels {text}", remedy)
    return {name: values for name, values in regions.items() if values != (0,) and not Label(0, name).is_ignored}


def labels_in_dataset_json(described: Any, where: str) -> Labels:
    """The `labels` of dataset.json: {"0": "name"} in the Decathlon, {"name": 0} in nnU-Net v2.

    Raises DatasetError for what is neither.
    """
    table = _table_in(described)
    if table != described:
        raise DatasetError("`labels` is not a table of names and numbers", where, "Correct it, or give --labels")
    labels = []
    for key, value in table.items():
        number, name = (key, value) if str(key).isdecimal() and not _is_number(value) else (value, key)
        number = _list_in(number)[0] if len(_list_in(number)) == 1 else number
        if (whole := label_table.label_value(number)) is None:
            problem = f"the label {name!r} is {number!r}, not one whole number"
            raise DatasetError(problem, where, "Give --labels 1=NAME,2=NAME")
        labels.append(Label(whole, str(name)))
    if fault := label_table.label_fault(labels):
        raise DatasetError(fault, where, "Correct it, or give --labels 1=NAME,2=NAME")
    return tuple(sorted(labels, key=lambda label: label.value))


def channel_names_in_dataset_json(folder: Folder) -> tuple[str, ...]:
    """The channels that dataset.json names, in order; empty where it names none."""
    described = folder.description or {}
    named = _table_in(described.get("channel_names", described.get("modality")))
    if not all(str(key).isdecimal() for key in named):
        return ()
    return tuple(str(named[key]) for key in sorted(named, key=int))


def name_classes(
    names: Iterable[str], folder: Folder, options: DatasetOptions, *, declare: bool = True
) -> NamedClasses:
    """The classes in order, and {name in the data: name of its class}.

    --labels, or a table such as classes.csv, either puts the names in order (0=NORMAL,1=PNEUMONIA) or gives names to
    numbers (0=normal). They are not used where `declare` is False, because masks have the numbers then. Without them
    grades of a known scale stand as they rise, and other names by the alphabet.
    """
    stated = sorted(set(names), key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
    labels: Labels = ()
    if declare:
        labels = parse_labels(options.labels) if options.labels is not None else _table_labels(folder)
    by_name, by_value = {label.name for label in labels}, {str(label.value): label.name for label in labels}
    if set(stated) <= by_name:
        return labels, {name: name for name in stated}
    if set(stated) <= by_value.keys():
        return labels, {name: by_value[name] for name in stated}
    if options.labels is None or not declare:
        return numbered_names(grading.order_by_grade(stated) or stated), {name: name for name in stated}
    missing = ", ".join(sorted(set(stated) - by_name)[:5])
    raise UsageError(f"does not name {missing}", f"--labels {options.labels}", "Name every class of the data")


@dataclass(frozen=True)
class StatedClass:
    """The class that a row or folder states of an image.

    is_further: whether it states another reference too, so that the word may be meant
    """

    name: str
    split: Split | None = None
    is_further: bool = False


def count_placeholders(stated: Sequence[StatedClass], options: DatasetOptions) -> dict[str, int]:
    """{word that stands where nobody states a class: images of it}: no class is called so.

    It is the only word of a test part, which no other image has; or a word such as ?, or -1 beside 0 and 1. A word that
    --labels declares is a class.
    """
    declared = parse_labels(options.labels) if options.labels is not None else ()
    counts = Counter(one.name for one in stated)
    tested = {one.name for one in stated if one.split == TEST}
    elsewhere = {one.name for one in stated if one.split != TEST}
    vague = {name for name in counts if name == MINUS_ONE or name.strip().lower() in UNLABELLED}
    hidden = tested - elsewhere if elsewhere else set()
    hidden = hidden if len(tested) == 1 else hidden & vague
    is_numbered = "0" in counts and all(name.isdecimal() for name in {*counts} - vague)
    meant = {one.name for one in stated if one.is_further} | (set() if is_numbered else {MINUS_ONE})
    nowhere = vague - meant if elsewhere - vague else set()
    return {name: counts[name] for name in sorted((hidden | nowhere) - {label.name for label in declared})}


def placeholder_notes(found: Mapping[str, int], where: str) -> Iterator[Problem]:
    """The warning on words that were read as no class."""
    for name, count in found.items():
        what = f"{name} is read as not labelled: {errors.count_phrase(count, 'image')} {where}"
        why, remedy = "such an image trains and tests nothing", "If it is a class, give it another name"
        yield Problem("warning", what, (), why, remedy)


def with_classes_by_rule(
    cases: Sequence[CaseRow], rule: str, folder: Folder, options: DatasetOptions
) -> tuple[list[CaseRow], Labels]:
    """The cases, each of the class that a regular expression finds in its name, and the classes in order.

    Raises UsageError where the expression is wrong, or does not fit every name.
    """
    every = [case.name for case in cases]
    found = patient_names.match_by_expression(rule, every, "--class-rule", "_(benign|malignant)")
    if missed := [case.name for case, name in zip(cases, found, strict=True) if not name]:
        problem = f"finds no class in {len(missed)} of {len(cases)} case names, such as {missed[0]}"
        remedy = "Give an expression with a group around the class, such as _(benign|malignant), that fits each name"
        raise UsageError(problem, f"--class-rule {rule}", remedy)
    names = [name or "" for name in found]
    labels, called = name_classes(names, folder, options, declare=not any("mask" in case.references for case in cases))
    each = zip(cases, names, strict=True)
    return [replace(row, references={**row.references, "class": called[name]}) for row, name in each], labels


def numbered_names(names: Iterable[str]) -> Labels:
    """Names in their order, numbered from 0."""
    return tuple(Label(number, name) for number, name in enumerate(names))


def observed_values(case: Case) -> tuple[int, ...]:
    """The values above 0 in a case's mask, in order; reads it."""
    return tuple(int(value) for value in np.unique(case.references["mask"].data) if value)


def _structures(labels: Labels, text: str) -> Labels:
    """The structures among labels of masks; one of 0 gets the value that is declared as the background.

    Raises UsageError where 0 is a structure and nothing is declared to lie around it.
    """
    if background := declared_background(text):
        structures = (label for label in labels if label.value != background)
        moved = (replace(label, value=label.value or background) for label in structures)
        return tuple(sorted(moved, key=lambda label: label.value))
    zero = next((label for label in labels if label.value == 0), None)
    if zero is not None and not (zero.is_ignored or zero.is_background):
        problem = f"0 is the background of masks, and cannot be {zero.name}"
        remedy = f"Say which value lies around the structures, as in 0={zero.name},255=background"
        raise UsageError(problem, f"--labels {text}", remedy)
    return _foreground(labels)


def _foreground(labels: Labels) -> Labels:
    """Without the background; a 0 that is to be ignored stays."""
    return tuple(label for label in labels if label.value or label.is_ignored)


def _ignored_among_regions(folder: Folder, options: DatasetOptions) -> Iterator[Label]:
    """The value that is to be ignored, declared among regions."""
    described = (folder.description or {}).get("labels") or {}
    pairs = [(name, value) for name, value in described.items()] if options.labels is None else []
    pairs += [(name, number) for number, _, name in (one.partition("=") for one in (options.labels or "").split(","))]
    for name, value in pairs:
        if Label(0, name.strip()).is_ignored:
            yield Label(_numbers(value, _description(folder))[0], "ignore")


def _numbers(value: Any, where: str) -> tuple[int, ...]:
    values = _list_in(value) or [value]
    if not all(_is_number(one) for one in values):
        raise DatasetError(f"{value!r} is not a list of mask values", where, "Write [1, 2, 3]")
    return tuple(int(one) for one in values)


def _table_in(described: Any) -> Record:
    """A JSON object; empty where it is something else."""
    return described if isinstance(described, Mapping) else {}


def _list_in(described: Any) -> list[Any]:
    """A JSON array; empty where it is something else."""
    return described if isinstance(described, list) else []


def _description(folder: Folder) -> str:
    return str(folder.root / "dataset.json")


def _table_labels(folder: Folder) -> Labels:
    """The labels from a table of names in the folder. A labels.csv may also be a list of images."""
    place = folder.root if not folder.is_file else folder.root.parent
    tables = [name for name in label_table.FOLDER_TABLES if (place / name).is_file()]
    try:
        return label_table.find_labels(folder.root)
    except FormatError as error:
        if label_table.IMAGE_LIST not in tables or not error.where.endswith(label_table.IMAGE_LIST):
            raise
    others = [name for name in tables if name != label_table.IMAGE_LIST]
    return label_table.read_labels(place / others[0]) if others else ()


def _is_number(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and value.isdecimal())
