"""Masks in the folder of their image, marked by a suffix: `x.jpg` and `x_mask.png`, or `x_1stHO` and `x_2ndHO`.

Or, where names end in numbers, by their first word: `volume-7` and `segmentation-7`, as in LiTS. `x.seg.nrrd` of 3D
Slicer is a mask by its suffix. Where several people drew one image, the first is the reference and the others are kept
as "mask:<name>".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isocenter.errors import DatasetError, listed
from isocenter.files.layouts.cases.classes import mask_labels, name_classes
from isocenter.files.layouts.cases.folder import Folder, Member
from isocenter.files.layouts.cases.load import mask_cells, structure_cell
from isocenter.files.layouts.cases.names import (
    IMAGE_SUFFIX,
    IMAGES,
    LABELS,
    LAST_WORD,
    MASK_OR_READER,
    NUMBERED_MASK,
    PREFIX,
)
from isocenter.files.layouts.cases.pairs import Key, class_names, image_cells, respelt, without_image
from isocenter.files.layouts.cases.segments import SLICER
from isocenter.files.layouts.cases.structures import structure_labels, without_structure
from isocenter.files.layouts.image_folders import within_images
from isocenter.files.layouts.layout import DatasetOptions, Layout, Reading
from isocenter.files.modality import modality_word
from isocenter.values import CaseRow, Cell, Label


@dataclass(frozen=True)
class Drawn:
    """A mask: who drew it, and which structure its name adds to the image's (x_lesion_mask of x)."""

    member: Member
    observer: str
    structure: str


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """Whether at least one mask has its image in the same folder."""
    del options
    images, masks = _sorted(folder)
    known = _by_any_name(images)
    return any(_owner(key, known) for key, _ in masks)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """Pairs by the name without suffix, within one folder; masks of several structures become one label map.

    Raises DatasetError where some masks name a structure and others none, or several people drew several structures.
    """
    images, masks = _sorted(folder)
    drawn: dict[Key, list[Drawn]] = defaultdict(list)
    lost, known = [], _by_any_name(images)
    for key, mask in masks:
        owner = _owner(key, known)
        if owner is None:
            lost.append(mask.member.name)
        else:
            drawn[owner].append(Drawn(mask.member, mask.observer, key.stem[len(owner.stem) :].strip("_.- ")))
    structures = _structures(drawn, folder, options)
    labels = tuple(structures.values()) or (mask_labels(folder, options) if drawn else ())
    classes, called = name_classes(class_names(images, drawn=bool(drawn)), folder, options, declare=not drawn)
    partly = [key for key, masks in drawn.items() if not set(structures) <= {mask.structure for mask in masks}]
    modality = modality_word(options.modality)
    rows = tuple(
        CaseRow(
            key.name,
            image_cells([image], ["image"], [modality]),
            {**_references(drawn[key], structures), **({"class": called[key.folders[0]]} if called else {})},
            split=image.split,
        )
        for key, image in images.items()
        if key not in partly
    )
    people = sorted({mask.observer for some in drawn.values() for mask in some if mask.observer})
    seen = f"; {people[0]} is the reference, {', '.join(people[1:])} the other readers" if len(people) > 1 else ""
    return Reading(
        rows,
        how=f"each image with its mask in one folder{seen}",
        classes={"mask": labels, "class": classes},
        readers=tuple(people) if len(people) > 1 else (),
        problems=(*without_image(lost), *without_structure([key.name for key in partly], structures)),
    )


def _references(drawn: Sequence[Drawn], structures: Mapping[str, Label]) -> Mapping[str, Cell]:
    """The masks of one image: of structures one map, of several people each their own."""
    by_name: dict[str, list[Path]] = defaultdict(list)
    for mask in sorted(drawn, key=lambda mask: mask.observer):
        by_name[mask.structure if structures else mask.observer].append(mask.member.path)
    return {"mask": structure_cell(by_name)} if structures and drawn else mask_cells(by_name)


def _sorted(folder: Folder) -> tuple[dict[Key, Member], list[tuple[Key, Drawn]]]:
    """Images by their name without suffix, and masks likewise."""
    images: dict[Key, Member] = {}
    masks: list[tuple[Key, Drawn]] = []
    for member in within_images(folder.images):
        if member.folders and member.folders[0].lower() in IMAGES | LABELS:
            continue
        fit = MASK_OR_READER.match(member.stem)
        numbered = None if fit else NUMBERED_MASK.match(member.stem)
        if member.suffix == SLICER:
            base = fit["base"] if fit else member.stem
            masks.append((Key(member.folders, base, member.split), Drawn(member, "", "")))
        elif fit:
            masks.append((Key(member.folders, fit["base"], member.split), Drawn(member, fit["observer"] or "", "")))
        elif numbered:
            masks.append((Key(member.folders, numbered["base"], member.split), Drawn(member, "", "")))
        else:
            images[Key(member.folders, IMAGE_SUFFIX.sub("", member.stem), member.split)] = member
    return images, respelt(masks, images)


def _by_any_name(images: Iterable[Key]) -> dict[Key, Key]:
    """{name by which a mask may call it, its own or the number at its end: image}"""
    keys = list(images)
    return {key.called(PREFIX.sub("", key.stem)): key for key in keys} | {key: key for key in keys}


def _owner(key: Key, known: Mapping[Key, Key]) -> Key | None:
    """The image of a mask: of the same name, or of the name without its last word."""
    return next((known[one] for one in (key, key.called(LAST_WORD.sub("", key.stem))) if one in known), None)


def _structures(drawn: Mapping[Key, Sequence[Drawn]], folder: Folder, options: DatasetOptions) -> dict[str, Label]:
    """{structure: its label}, where images have masks of several, one image or each another one; else empty."""
    masks = [mask for own in drawn.values() for mask in own]
    several = {mask.structure for mask in masks}
    in_one = any(len({mask.structure for mask in own}) > 1 for own in drawn.values())
    if not in_one and len(several - {""}) < 2:
        return {}
    if any(mask.observer for mask in masks):
        raise DatasetError(
            f"there are masks of several structures ({listed(sorted(several - {''}))}) and of several people",
            str(masks[0].member.path),
            "Put those of one person into one label map with a number for each structure",
        )
    return structure_labels(several, folder, options)


LAYOUT = Layout(
    "suffix_masks",
    "each image with its mask in one folder, marked by a suffix",
    fits,
    read,
    over=frozenset({"class_folders", "plain_images"}),
)
