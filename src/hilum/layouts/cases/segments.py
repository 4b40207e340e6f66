"""Segmentations whose files name their structures: one numbering for the whole data set, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from hilum import errors
from hilum.errors import FormatError, HilumError
from hilum.files import file_formats
from hilum.files.format_options import ReadOptions
from hilum.layouts.cases.dataset_folder import Folder
from hilum.values import Image, Label, grouping
from hilum.values.voxel_images import WITHOUT_VOXELS

SLICER = ".seg.nrrd"  # of 3D Slicer, always a mask


def one_numbering(files: Iterable[Mapping[str, int]]) -> tuple[Label, ...]:
    """The labels of files that say {name: number}: their numbers where all agree, else the names in order.

    Names that differ in upper case only are one, unless one file has both.
    """
    stated = list(files)
    apart = {name for own in stated for name, times in Counter(map(str.casefold, own)).items() if times > 1}
    folded = {name: name if name.casefold() in apart else name.casefold() for own in stated for name in own}
    spelt = grouping.distinct_by_key((key, name) for name, key in folded.items())
    values = grouping.distinct_by_key((folded[name], value) for own in stated for name, value in own.items())
    named = {min(spelt[key]): numbers for key, numbers in values.items()}
    every = [value for numbers in named.values() for value in numbers]
    if len(every) == len(named) == len(set(every)):
        return tuple(sorted((Label(min(some), name) for name, some in named.items()), key=lambda label: label.value))
    return tuple(Label(n + 1, name) for n, name in enumerate(sorted(named)))


def slicer_labels(folder: Folder, options: ReadOptions) -> tuple[Label, ...]:
    """The labels of all segmentations of 3D Slicer in a folder, from their headers; empty without any."""
    files: list[Image] = []
    for member in folder.images:
        if member.suffix == SLICER:
            try:
                files.extend(file_formats.read_volumes(member.path, options).values())
            except HilumError:  # reported where the case is read
                continue
    return one_numbering({label.name: label.value for label in segments_in(file)} for file in files)


def segments_in(image: Image) -> tuple[Label, ...]:
    """The structures that a file of segments names; overlapping ones are its channels."""
    if len(image.channels) == 1:
        return tuple(label for label in image.labels if label.value)
    return image.labels or tuple(Label(n + 1, name) for n, name in enumerate(image.channels))


def number_by_name(segments: Image, labels: tuple[Label, ...], path: Path, others: Image | None = None) -> Image:
    """The label map of segments, numbered as in the whole data set: by name.

    others: a label map, made by this function, of files that name other structures; it is united with this one
    What `labels` does not name is background. Raises FormatError where what it names overlaps.
    """
    data, several = segments.data, len(segments.channels) > 1
    shape, dtype = data.shape[1:], np.min_scalar_type(max((label.value for label in labels), default=0))
    pixels = np.zeros(shape, dtype) if others is None else others.data[0].copy()
    coloured = {}
    for n, label in enumerate(segments_in(segments)):
        value = _number(label, labels)
        mask = data[n] > 0 if several else data[0] == label.value
        if value and pixels[mask].any():
            problem = f"{label.name} overlaps another structure, so a voxel would have several labels"
            remedy = "Choose structures that do not overlap, as in --labels 1=NAME,2=NAME"
            raise FormatError(problem, str(path), remedy)
        pixels[mask] = value or pixels[mask]
        coloured[value] = label
    known = labels if others is None else others.labels
    named = tuple(replace(coloured.get(label.value, label), value=label.value, name=label.name) for label in known)
    called = {label.value: label.name for label in labels}
    empty = segments.facts.get(WITHOUT_VOXELS, {})
    owners = {label.name: called.get(_number(label, labels)) for label in segments_in(segments)}
    lost = {owner: empty[name] for name, owner in owners.items() if owner is not None and name in empty}
    facts = {**segments.facts, WITHOUT_VOXELS: lost}
    joined = replace(segments, pixels=pixels[None], channels=("label",), labels=named, facts=facts)
    return joined if others is None else _of_both(others, joined)


def _of_both(first: Image, joined: Image) -> Image:
    """A label map of several files, with the notes and files of all."""
    paths = [path for image in (first, joined) for path in (image.source.paths if image.source else ())]
    notes = tuple(dict.fromkeys((*first.notes, *joined.notes)))
    source = joined.source and replace(joined.source, paths=tuple(paths))
    facts = {**joined.facts, WITHOUT_VOXELS: {**first.facts[WITHOUT_VOXELS], **joined.facts[WITHOUT_VOXELS]}}
    return replace(joined, notes=notes, source=source, facts=facts)


def slicer_mask(image: Image, labels: tuple[Label, ...], path: Path) -> Image:
    """A segmentation of 3D Slicer numbered by the names of its segments; by its own numbers where none is declared.

    Raises FormatError for segments in several layers of which none is declared.
    """
    if any(_number(label, labels) for label in segments_in(image)):
        return number_by_name(image, labels, path)
    if len(image.channels) > 1:
        remedy = "Give these names, as in --labels 1=NAME,2=NAME"
        raise FormatError(f"none of its segments ({errors.list_phrase(image.channels)}) is declared", str(path), remedy)
    return image


def refuse_unnamed(segments: Image, labels: tuple[Label, ...], path: Path) -> None:
    """Refuse a structure that is none of the labels of all files: it would be background."""
    unnamed = [label.name for label in segments_in(segments) if not _number(label, labels)]
    if unnamed:
        problem = f"names structures that the data set lacks ({errors.list_phrase(unnamed)})"
        raise FormatError(problem, str(path), "Read the data set again if the file has changed")


def _number(label: Label, labels: tuple[Label, ...]) -> int:
    """The value of a structure in the data set, by its name; 0 where the data set leaves it out."""
    exact = (one.value for one in labels if one.name == label.name)
    return next(iter((*exact, *(one.value for one in labels if one.name.casefold() == label.name.casefold()))), 0)
