"""Images with the image that each should become: `images/` beside `targets/`, or `x_target` beside `x`.

A table with the columns image and target is one of cases (`manifest`).
"""

from __future__ import annotations

from dataclasses import replace

from hilum import errors
from hilum.files import modality_words
from hilum.layouts import layout
from hilum.layouts.cases import mask_pairs
from hilum.layouts.cases.column_names import TARGET
from hilum.layouts.cases.dataset_folder import Folder, FolderMember
from hilum.layouts.cases.mask_pairs import NamedCase, PairKey
from hilum.layouts.cases.names import IMAGES, TARGET_SUFFIX, TARGETS
from hilum.layouts.layout import BY_NAMES, DatasetOptions, Example, Layout, Reading
from hilum.values import Cell

Keyed = list[tuple[PairKey, FolderMember]]


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """At least one image and its target, by their names."""
    images, targets = _sort_members(folder)
    return bool(targets) and not {key for key, _ in targets}.isdisjoint(mask_pairs.group_into_cases(images, options))


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """Each image as a case, with its target where there is one; targets without an image are left out."""
    images, targets = _sort_members(folder)
    cases = mask_pairs.group_into_cases(images, options)
    modality = modality_words.modality_word(options.modality)
    cells = {key: Cell((member.path,), modality=modality) for key, member in targets}
    named = [NamedCase(key, own) for key, own in cases.items()]
    rows = mask_pairs.rows_of_cases(named, options, modality=modality)
    paired = tuple(
        replace(row, references={**row.references, **({TARGET: cells[one.key]} if one.key in cells else {})})
        for row, one in zip(rows, named, strict=True)
    )
    lost = [key.name for key, _ in targets if key not in cases]
    what = "target has", "targets have", "no image of its name"
    return Reading(
        paired,
        how=f"images and targets of the same name, {errors.count_phrase(len(rows), 'case')}",
        problems=layout.left_out_problem(lost, what, "Give the image, or remove the target", "warning"),
    )


def _sort_members(folder: Folder) -> tuple[Keyed, Keyed]:
    """(images, targets) by their names without the folder or the suffix that tells them apart."""
    places = {member.folders[0].lower() for member in folder.images if member.folders}
    in_folders = bool(places & TARGETS) and bool(places & IMAGES)
    images, targets = Keyed(), Keyed()
    for member in folder.images:
        key = PairKey.of_file(member)
        if in_folders:
            top = member.folders[0].lower() if member.folders else ""
            if top in IMAGES | TARGETS:
                (targets if top in TARGETS else images).append((key.without_folder(0), member))
        elif fit := TARGET_SUFFIX.search(member.stem):
            targets.append((key.with_stem(member.stem[: fit.start()]), member))
        else:
            images.append((key, member))
    return images, targets


EXAMPLE: Example = {"x0.png": 0, "x0_target.png": 1, "x1.png": 1, "x1_target.png": 2}
WHAT = "images with the images that they should become: images/ beside targets/, or x_target beside x"
LAYOUT = Layout("image_targets", WHAT, fits, read, BY_NAMES | {"dicom_folder"}, EXAMPLE)
