"""Masks of single objects, a folder a case: `images/` of one file and `masks/` of one file an object.

Caicedo et al., Nature Methods 2019, doi:10.1038/s41592-019-0612-7; folders as in the Data Science Bowl 2018.
"""

from __future__ import annotations

from collections import defaultdict

from isocenter.errors import counted
from isocenter.files.layouts.cases.classes import mask_labels
from isocenter.files.layouts.cases.folder import Folder, Member
from isocenter.files.layouts.cases.names import IMAGES, LABELS
from isocenter.files.layouts.cases.pairs import image_cells
from isocenter.files.layouts.layout import DatasetOptions, Layout, Reading, left_out
from isocenter.files.modality import modality_word
from isocenter.values import CaseRow, Cell, Split

# Folders of the case, and the split that they name.
Place = tuple[tuple[str, ...], Split | None]


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """Every case has one image, and one of them several masks of which none has the name of the image."""
    del options
    images, masks = _sorted(folder)
    if not images or any(len(members) > 1 for members in images.values()):
        return False
    drawn = {place: {mask.stem for mask in masks.get(place, ())} for place in images}
    return any(len(names) > 1 and images[place][0].stem not in names for place, names in drawn.items())


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """Masks are objects, numbered in the order of their names; joined to one structure where that is asked for."""
    images, masks = _sorted(folder)
    joined = "mask" in options.kinds
    labels = mask_labels(folder, options) if joined else ()
    rows, several = [], []
    modality = modality_word(options.modality)
    for (folders, split), members in images.items():
        name = "/".join(folders)
        if len(members) > 1:
            several.append(name)
            continue
        drawn = tuple(sorted(member.path for member in masks.get((folders, split), ())))
        references = {"instances": Cell(drawn)} if drawn else {}
        rows.append(CaseRow(name, image_cells(members, ["image"], [modality]), references, split=split))
    return Reading(
        tuple(rows),
        how=f"a folder per case with one mask per object, {counted(len(rows), 'case')}",
        classes={"mask": labels},
        problems=left_out(
            several, f"{counted(len(several), 'case has', 'cases have')} several images", "Give each case one image"
        ),
    )


def _sorted(folder: Folder) -> tuple[dict[Place, list[Member]], dict[Place, list[Member]]]:
    """Images and masks by the folder of their case."""
    images: dict[Place, list[Member]] = defaultdict(list)
    masks: dict[Place, list[Member]] = defaultdict(list)
    for member in folder.images:
        if len(member.folders) < 2:
            continue
        *case, last = member.folders
        place = (tuple(case), member.split)
        if last.lower() in IMAGES:
            images[place].append(member)
        elif last.lower() in LABELS:
            masks[place].append(member)
    return images, masks


LAYOUT = Layout(
    "object_masks",
    "a folder per case with images/ of one file and masks/ of one file per object",
    fits,
    read,
    over=frozenset({"image_folders", "suffix_masks", "case_folders", "class_folders", "plain_images"}),
)
