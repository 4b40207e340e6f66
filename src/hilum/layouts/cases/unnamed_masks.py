"""Masks that no name marks: label maps by their values, in a folder that pairs with another, or among images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hilum import errors
from hilum.errors import DatasetError
from hilum.files import file_formats
from hilum.files.format_options import ReadOptions
from hilum.layouts.cases import cell_loading, mask_pairs
from hilum.layouts.cases.dataset_folder import Folder, FolderMember
from hilum.layouts.cases.mask_pairs import PairKey
from hilum.layouts.cases.names import WORD_OF_CASE
from hilum.values import Case, grouping

# Files of a folder that are read to know what it holds, and folders beyond which they are classes.
LOOKED_AT, MOST_FOLDERS = 5, 8
SURE = 3  # of `likeness_to_labels`
MAPS = frozenset({"mask", "instances"})
# Kinds of name of one set, beyond which names tell nothing, and formats of images that are no volumes.
MOST_KINDS, FLAT = 8, frozenset({"picture", "tiff", "video"})
# In place of a folder's name: of files that lie beside folders.
LOOSE = ""


@dataclass(frozen=True)
class MaskFolders:
    """Folders next to each other that look like images and their masks; images may lie beside them (`LOOSE`).

    level: how many folders lie above them
    sure: whether they can be nothing else: one of images, and one of maps of few values
    """

    level: int
    images: tuple[str, ...]
    masks: tuple[str, ...]
    sure: bool

    def check(self, root: str) -> None:
        """Raise DatasetError where the folders may also be classes."""
        if not self.sure:
            masks, images = (errors.list_phrase(map(folder_words, names)) for names in (self.masks, self.images))
            problem = f"the files in {masks} look like masks and have the names of those in {images}, but no name "
            problem += "says so"
            as_masks = "If they are masks, name the folders images/ and masks/ and take others away"
            raise DatasetError(problem, root, f"{as_masks}; if they are classes, choose --layout class_folders")


def folder_words(name: str) -> str:
    """A folder in words."""
    return "the folder itself" if name == LOOSE else f"{name}/"


def folder_at(member: FolderMember, level: int) -> str | None:
    """The folder below so many others in which a file lies; `LOOSE` beside such folders, None above them."""
    return None if len(member.folders) < level else (*member.folders, LOOSE)[level]


def mask_folders(folder: Folder, options: ReadOptions) -> MaskFolders | None:
    """The folders of images and of masks, first or second on the way to a file; None where no files pair so."""
    if MaskFolders not in folder.known:
        each = (_at(level, folder.images, options) for level in (0, 1))
        folder.known[MaskFolders] = next((found for found in each if found is not None), None)
    known: MaskFolders | None = folder.known[MaskFolders]
    return known


def _at(level: int, members: Iterable[FolderMember], options: ReadOptions) -> MaskFolders | None:
    """The folders at one level."""
    keyed: dict[str, dict[PairKey, FolderMember]] = {}
    for member in members:
        if (name := folder_at(member, level)) is not None:
            keyed.setdefault(name, {})[PairKey.of_file(member).without_folder(level)] = member
    if not 2 <= len(keyed) <= MOST_FOLDERS:
        return None
    folders = keyed.keys() - {LOOSE}
    each = ((one, other) for one in keyed for other in folders if one != other)
    pairs = [(one, other) for one, other in each if folders_are_paired(keyed[one], keyed[other])]
    looks = {name: _likeness(list(keyed[name].values()), options) for name in {each for pair in pairs for each in pair}}
    masks = sorted({other for one, other in pairs if looks[one] < looks[other]})
    if not masks:
        return None
    images = sorted((folders | {one for one, other in pairs if other in masks} & {LOOSE}) - set(masks))
    return MaskFolders(level, tuple(images), tuple(masks), len(masks) == len(images) == 1 and looks[masks[0]] == SURE)


def folders_are_paired(images: Mapping[PairKey, Any], masks: Mapping[PairKey, Any]) -> bool:
    """Whether most files of one folder have the names of files in another."""
    return 2 * sum(1 for key in masks if mask_pairs.owner_of_mask(key, images)) > len(masks)


def _likeness(members: list[FolderMember], options: ReadOptions) -> int:
    """The likeness of files to label maps; 0 where one of them looks like an image."""
    step = max(1, len(members) // LOOKED_AT)
    looks = [cell_loading.likeness_to_labels(member.path, options) for member in members[::step][:LOOKED_AT]]
    return max(looks) if min(looks) > 0 else 0


def is_exchanged(case: Case) -> bool:
    """Whether the one image of a case looks like a label map, and each of its label maps like an image."""
    image, *masks = case.files or (None,)
    kinds = {one.partition(":")[0] for one in case.references}
    if image is None or not masks or len(case.images) > 1 or not kinds & MAPS:
        return False
    looks = (cell_loading.likeness_to_labels(path, ReadOptions()) for path in (image, *masks))
    return next(looks) == SURE and not any(looks)


def masks_among(members: Iterable[FolderMember], options: ReadOptions) -> list[FolderMember]:
    """A file of each kind of name of which files look like label maps, where those of another look like images.

    Kinds of volumes are names that differ only in numbers; of pictures x and x_WORD in one folder, for any word.
    """
    volumes, pictures = list[FolderMember](), list[FolderMember]()
    for member in members:
        (pictures if file_formats.format_of(member.path) in FLAT else volumes).append(member)
    numbered = grouping.by_key((re.sub(r"\d+", "", member.stem), member) for member in volumes)
    return [kinds[name][0] for kinds in (numbered, _by_word(pictures)) for name in _kinds_like_maps(kinds, options)]


def label_maps_beside_series(folder: Folder, options: ReadOptions) -> list[FolderMember]:
    """The pictures beside series of DICOM that look like label maps of their slices, whom no name pairs with them."""
    pictures = [one for one in folder.images if file_formats.format_of(one.path) in FLAT] if folder.dicom else []
    return pictures if pictures and _likeness(pictures, options) == SURE else []


def mask_kinds(kinds: Mapping[str, Sequence[FolderMember]], options: ReadOptions) -> list[str]:
    """The kinds of images of a case of which files look like label maps, where those of another look like images.

    Only volumes are looked at.
    """
    has_flat = any(file_formats.format_of(named[0].path) in FLAT for named in kinds.values())
    return [] if has_flat else _kinds_like_maps(kinds, options)


def volumes_like_label_maps(kinds: Mapping[str, Sequence[FolderMember]], options: ReadOptions) -> list[str]:
    """The kinds of images of a case of which files look like label maps, whatever the others look like; of volumes."""
    volumes = {kind: named for kind, named in kinds.items() if file_formats.format_of(named[0].path) not in FLAT}
    return [kind for kind, look in _looks(volumes, options).items() if look == SURE]


def _kinds_like_maps(kinds: Mapping[str, Sequence[FolderMember]], options: ReadOptions) -> list[str]:
    """The kinds that look like label maps, by the first and the last file of each; none where all do."""
    if not 1 < len(kinds) <= MOST_KINDS:
        return []
    masks = [kind for kind, look in _looks(kinds, options).items() if look == SURE]
    return masks if len(masks) < len(kinds) else []


def _looks(kinds: Mapping[str, Sequence[FolderMember]], options: ReadOptions) -> dict[str, int]:
    """{kind: how much its first and its last file look like label maps}"""
    return {kind: _likeness([*dict.fromkeys((named[0], named[-1]))], options) for kind, named in kinds.items()}


def _by_word(pictures: Sequence[FolderMember]) -> dict[str, list[FolderMember]]:
    """{word: files x_WORD next to an x}, and under "" those other files."""
    known = {(member.folders, member.stem) for member in pictures}
    fits = [(member, WORD_OF_CASE[0].match(member.stem)) for member in pictures]
    each = ((fit["word"] if fit and (one.folders, fit["case"]) in known else "", one) for one, fit in fits)
    return grouping.by_key(each)
