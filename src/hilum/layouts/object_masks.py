"""Masks of single objects, a folder a case: `images/` of one file and `masks/` of one file an object, or class folders.

Caicedo et al., Nature Methods 2019, doi:10.1038/s41592-019-0612-7; folders as in the Data Science Bowl 2018.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from hilum import errors
from hilum.errors import DatasetError
from hilum.layouts import layout
from hilum.layouts.cases import class_labels, mask_pairs
from hilum.layouts.cases.dataset_folder import Folder, FolderMember
from hilum.layouts.cases.mask_pairs import IMAGE, NamedCase, PairKey
from hilum.layouts.cases.names import IMAGES, LABELS
from hilum.layouts.layout import BY_NAMES, DatasetOptions, Example, Layout, Reading
from hilum.values import Cell


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """Every case has one image, and one of them several masks of which none has the name of the image."""
    images, masks = _sort_members(folder)
    if not images or any(len(members) > 1 for members in images.values()):
        return False
    mask_names = {key: {mask.stem for mask in masks[key]} for key in images}
    return any(len(names) > 1 and images[key][0].stem not in names for key, names in mask_names.items())


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """Masks are objects, numbered in the order of their names; joined to one structure where that is asked for."""
    images, masks = _sort_members(folder)
    cases = [NamedCase(key, {IMAGE: members[0]}) for key, members in images.items() if len(members) == 1]
    several = [key.name for key, members in images.items() if len(members) > 1]
    cells = [_cell(sorted(masks[case.key], key=lambda mask: mask.path)) for case in cases]
    if any(cell.names and not all(cell.names) for cell in cells) or len({bool(c.names) for c in cells if c.paths}) > 1:
        problem = "some masks lie in folders of classes, and others in none"
        raise DatasetError(problem, str(folder.root), "Put each mask into the folder of its class, as masks/nucleus/")
    each = zip(mask_pairs.rows_of_cases(cases, options), cells, strict=True)
    rows = tuple(replace(row, references={"instances": cell} if cell.paths else {}) for row, cell in each)
    what = "case has", "cases have", "several images"
    return Reading(
        rows,
        how=f"a folder per case with one mask per object, {errors.count_phrase(len(rows), 'case')}",
        classes={"mask": class_labels.mask_labels(folder, options) if "mask" in options.kinds else ()},
        problems=layout.left_out_problem(several, what, "Give each case one image"),
    )


def _cell(masks: Sequence[FolderMember]) -> Cell:
    """The cell of the masks of a case, with their classes where folders name them."""
    names = tuple("" if mask.folders[-1].lower() in LABELS else mask.folders[-1] for mask in masks)
    return Cell(tuple(mask.path for mask in masks), names=names if any(names) else ())


def _sort_members(folder: Folder) -> tuple[dict[PairKey, list[FolderMember]], dict[PairKey, list[FolderMember]]]:
    """Images and masks by the folder of their case."""
    images, masks = defaultdict[PairKey, list[FolderMember]](list), defaultdict[PairKey, list[FolderMember]](list)
    for member in folder.images:
        *above, last = ("", *member.folders)
        if len(above) > 2 and above[-1].lower() in LABELS and last.lower() not in IMAGES | LABELS:
            *above, last = above  # the folder of a class
        if len(above) > 1 and last.lower() in IMAGES | LABELS:
            key = PairKey(tuple(above[1:-1]), above[-1], member.split)
            (images if last.lower() in IMAGES else masks)[key].append(member)
    return images, masks


EXAMPLE: Example = {f"c{n}/images/c{n}.png": n for n in range(2)} | {
    f"c{n}/masks/m{k}.png": (255 * (k == 0), 255 * (k == 1)) for n in range(2) for k in range(2)
}
WHAT = "a folder per case with images/ of one file and masks/ of one file per object"
LAYOUT = Layout("object_masks", WHAT, fits, read, BY_NAMES, EXAMPLE)
