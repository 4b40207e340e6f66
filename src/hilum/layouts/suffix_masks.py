"""Masks in the folder of their image, marked by a suffix: `x.jpg` and `x_mask.png`, or `x_1stHO` and `x_2ndHO`.

Or, where names end in numbers, by their first word: `volume-7` and `segmentation-7`, as in LiTS. `x.seg.nrrd` of 3D
Slicer is a mask by its suffix. Where several contoured one image, the first is the reference, and others are kept
as "mask:<name>".
"""

from __future__ import annotations

from hilum.layouts import image_folders
from hilum.layouts.cases import mask_pairs
from hilum.layouts.cases.dataset_folder import Folder, FolderMember
from hilum.layouts.cases.mask_pairs import BY_WORDS, Images, PairKey
from hilum.layouts.cases.names import IMAGE_SUFFIX, IMAGES, LABELS, MASK_OR_READER, NUMBERED_MASK
from hilum.layouts.cases.segments import SLICER
from hilum.layouts.layout import DatasetOptions, Example, Layout, Reading


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """Whether at least one mask has its image in the same folder."""
    images, masks = _sort_members(folder)
    return any(mask_pairs.owners_of_masks([key for key, _ in masks], images, BY_WORDS))


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """Pairs by the name without suffix, within one folder; masks of several structures become one label map."""
    cases, problems = mask_pairs.pair_masks(*_sort_members(folder), BY_WORDS)
    readers = sorted({mask.reader for case in cases for mask in case.masks} - {""})
    seen = f"; {readers[0]} is the reference, {', '.join(readers[1:])} the other readers" if len(readers) > 1 else ""
    how = f"each image with its mask in one folder{seen}"
    return mask_pairs.reading_of_cases(cases, folder, options, how=how, problems=problems)


def _sort_members(folder: Folder) -> tuple[dict[PairKey, Images], list[tuple[PairKey, FolderMember]]]:
    """Images by their name without suffix, and masks by their own."""
    images, masks = list[tuple[PairKey, FolderMember]](), list[tuple[PairKey, FolderMember]]()
    for member in image_folders.within_images(folder.images):
        if member.folders and member.folders[0].lower() in IMAGES | LABELS:
            continue
        key = PairKey.of_file(member)
        if MASK_OR_READER.match(member.stem) or NUMBERED_MASK.match(member.stem):
            masks.append((key, member))
        elif member.suffix == SLICER:
            masks.append((key.with_stem(f"{member.stem}_seg"), member))
        else:
            images.append((key.with_stem(IMAGE_SUFFIX.sub("", member.stem)), member))
    return mask_pairs.one_image_each(images), mask_pairs.match_letter_case(masks, [key for key, _ in images])


EXAMPLE: Example = {"x0.png": 0, "x0_1stHO.png": 1, "x0_2ndHO.png": (0, 1), "x1.png": 0, "x1_1stHO.png": 1}
WHAT = "each image with its mask in one folder, marked by a suffix"
LAYOUT = Layout("suffix_masks", WHAT, fits, read, frozenset({"class_folders", "plain_images"}), EXAMPLE)
