"""Folders `images/` and `labels/` or `masks/`, a file a case, with class folders in them where there are classes.

Images may also lie beside the folder of masks.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from hilum import errors
from hilum.errors import DatasetError
from hilum.files import modality_words
from hilum.files.modality_words import UNKNOWN_MODALITY
from hilum.layouts import nnunet
from hilum.layouts.cases import class_labels, mask_pairs, table_join, table_reading, unnamed_masks
from hilum.layouts.cases.dataset_folder import Folder, FolderMember
from hilum.layouts.cases.mask_pairs import CLOSE, RULES, Images, MaskFile, NamedCase, Pairing, PairKey
from hilum.layouts.cases.names import (
    BY_HAND,
    FIELD_OF_VIEW,
    IMAGE_NAME,
    IMAGES,
    LABEL_NAME,
    LABELS,
    MANY_LABELS,
    PARTS,
    READER_FOLDER,
)
from hilum.layouts.cases.unnamed_masks import LOOSE, MaskFolders
from hilum.layouts.layout import DatasetOptions, Example, Layout, Reading
from hilum.values import Problem, Split

Keyed = list[tuple[PairKey, FolderMember]]


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """Images under a folder for images and masks under one for labels; or only labels without DICOM.

    What nnU-Net's own folders hold does not count where its description fits them.
    """
    taken = {f"{kind}{part}" for kind in ("images", "labels") for part in ("Tr", "Ts")}
    taken = taken if nnunet.fits(folder, options) else set()
    roles = find_roles(folder, options)
    places = {roles.role_of(member) for member in folder.images if not taken.intersection(member.folders)}
    return places >= {"image", "label"} or (places == {"label"} and not folder.dicom)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """Pairs by equal name; several masks of one image are joined, unless their folders or names name their readers.

    Masks in folders of structures (`masks/liver/x.png`) become one label map.

    Labels without images are cases by themselves where images may be painted from them. Raises DatasetError where they
    may not, and where two folders of images hold one of the same name, so that a mask may be of either.
    """
    roles = find_roles(folder, options)
    roles.check(str(folder.root))
    images, masks = (
        [(roles.key(member), member) for member in folder.images if roles.role_of(member) == role]
        for role in ("image", "label")
    )
    if not images and options.paints:
        own_cases = [NamedCase(key, {}, (MaskFile(member),)) for key, member in masks]
        return mask_pairs.reading_of_cases(own_cases, folder, options, how="label maps without images")
    if not images:
        problem = f"holds {errors.count_phrase(len(masks), 'label')} and no images"
        raise DatasetError(problem, str(folder.root), "Put the images into images/ in the same folder")
    masks = mask_pairs.match_letter_case(masks, [key for key, _ in images])
    by_key = _with_channels(images, [key for key, _ in masks], roles)
    if not by_key:
        _refuse_twice(images, folder)
    cases, lost = mask_pairs.pair_masks(by_key or mask_pairs.one_image_each(images), masks)
    cases = _by_folder_of_masks(cases, roles)
    modality = modality_words.common_modality(class_labels.channel_names_in_dataset_json(folder))
    problems = (*lost, *_outside(folder, roles))
    how = "images and labels of the same name"
    return mask_pairs.reading_of_cases(cases, folder, options, how=how, modality=modality, problems=problems)


def within_images(members: tuple[FolderMember, ...]) -> tuple[FolderMember, ...]:
    """The files without the one folder images/ (or img/, ...) above them, where each lies in a folder inside it."""
    tops = {member.folders[0].lower() if len(member.folders) > 1 else "" for member in members}
    if len(tops) != 1 or not tops <= IMAGES:
        return members
    return tuple(replace(member, folders=member.folders[1:]) for member in members)


def _with_channels(images: Keyed, masks: Sequence[PairKey], roles: FolderRoles) -> Mapping[PairKey, Images]:
    """The images by case where their names end in numbers of channels, or name contrasts, or lie in such folders.

    Labels show whether a number at the end is a channel's (x of x_0000) or the case's (x_0000 of x_0000, and
    PANCREAS_0001 of label0001). Empty where each image is a case.
    """
    known = dict(images)
    numbered = {} if known.keys() & set(masks) else mask_pairs.group_by_channel(images)
    are_channels = any(mask_pairs.owners_of_masks(masks, numbered))
    if are_channels or (numbered and not any(mask_pairs.owners_of_masks(masks, known))):
        return numbered
    has_own_masks = any(mask_pairs.owner_of_mask(key, known) for key in masks)
    return roles.by_contrast(images) if roles.contrasts or not has_own_masks else {}


def _by_folder_of_masks(cases: list[NamedCase], roles: FolderRoles) -> list[NamedCase]:
    """The cases, with structures by their folders of masks where one image has masks in several of these.

    `lung masks/x.png` and `infection masks/x.png` show two structures of x, and are no two pieces of one.
    """
    folders = [{roles.folder(mask.member) for mask in case.masks} for case in cases]
    are_named = any(mask.reader or mask.structure for case in cases for mask in case.masks)
    if are_named or max(map(len, folders), default=0) < 2:
        return cases
    names = {folder: mask_pairs.structure_in_name(folder) for folder in set[str]().union(*folders)}
    names = names if len(set(names.values())) == len(names) else {folder: folder for folder in names}
    return [
        replace(case, masks=tuple(replace(mask, structure=names[roles.folder(mask.member)]) for mask in case.masks))
        for case in cases
    ]


def _refuse_twice(images: Keyed, folder: Folder) -> None:
    """Raise DatasetError for two images of one key in two folders."""
    known: dict[tuple[PairKey, str], FolderMember] = {}
    for key, member in images:
        if (other := known.setdefault((key, member.path.name), member)) is not member:
            places = errors.list_phrase(one.path.parent.relative_to(folder.root).as_posix() for one in (other, member))
            problem = f"two images are called {member.path.name} ({places}), and masks may be of either"
            raise DatasetError(problem, str(folder.root), "Rename them")


@dataclass(frozen=True)
class FolderRoles:
    """The folders of images and those of labels, of the first two on the way to a file.

    of:        {folder: image or label}; `LOOSE` of images beside these folders
    loose:     the number of folders above such images; -1 where there are none
    fields:    folders that show the field of view
    contrasts: the folders that hold the contrasts of each case
    alike:     folders of which each may hold the images
    by_values: folders that look like masks, where no name marks labels
    parts:     {folder: its part of the set}, where there are several
    kinds:     {folder: left of left_images}, where each folder of images has its own of masks
    """

    of: Mapping[str, str]
    loose: int = -1
    fields: frozenset[str] = frozenset()
    contrasts: tuple[str, ...] = ()
    alike: tuple[str, ...] = ()
    by_values: MaskFolders | None = None
    parts: Mapping[str, Split] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)

    def check(self, root: str) -> None:
        """Raise DatasetError where folders that no name marks may also be classes, or two of them images."""
        if self.by_values is not None:
            self.by_values.check(root)
        if self.alike:
            places = " or in ".join(map(unnamed_masks.folder_words, self.alike))
            problem = f"the images may be in {places}, as the names of the masks are in each"
            contrasts = "those of contrasts are known by names such as T1, FLAIR, CT or PET"
            remedy = f"Move what are no images to another place, or name the folders images/ and masks/; {contrasts}"
            raise DatasetError(problem, root, remedy)

    def level(self, member: FolderMember) -> int | None:
        """The number of folders above the one that marks a file as image or label, or above an image next to it."""
        loose = self.loose if len(member.folders) == self.loose else None
        return next((n for n, name in enumerate(member.folders[:2]) if name in self.of), loose)

    def folder(self, member: FolderMember) -> str:
        """The folder that marks a file as image or label; `LOOSE` of an image beside it."""
        return unnamed_masks.folder_at(member, self.level(member) or 0) or LOOSE

    def role_of(self, member: FolderMember) -> str | None:
        """Whether a file is an image or a label; None where no folder says it."""
        return None if self.level(member) is None else self.of[self.folder(member)]

    def key(self, member: FolderMember) -> PairKey:
        """The folders without the one of images or labels, the name, the split; a folder that names a reader stays.

        Folders such as train_images and test_images state the split where there are several parts. Of left_images
        beside right_images the word that is also that of its masks stays.
        """
        level = self.level(member) or 0
        key, kind = _key(member, level), self.kinds.get(self.folder(member))
        folders = (*key.folders[:level], kind, *key.folders[level:]) if kind else key.folders
        return key._replace(folders=folders, split=self.parts.get(self.folder(member), key.split))

    def by_contrast(self, images: Keyed) -> Mapping[PairKey, Images]:
        """Images by case and contrast, which their folder or name states; empty where neither does."""
        words = {} if self.contrasts else mask_pairs.split_by_words([member for _, member in images])
        cases: dict[PairKey, dict[str, FolderMember]] = {}
        for key, member in images:
            if self.contrasts:
                cases.setdefault(key, {})[self.folder(member)] = member
            elif words:
                cases.setdefault(key.with_stem(words[member][0]), {})[words[member][1]] = member
        count = len({channel for own in cases.values() for channel in own})
        is_whole = count > 1 and 2 * sum(len(own) == count for own in cases.values()) > len(cases)
        return {key: {name: own[name] for name in sorted(own)} for key, own in cases.items()} if is_whole else {}


def find_roles(folder: Folder, options: DatasetOptions) -> FolderRoles:
    """The folders by their names, else by those of their files, else by what the files look like.

    Where no name marks labels, folders of label maps with the names of images do, unless a table states what is true
    of them.
    """
    named, endings, fields = _named_roles(folder)
    labels = set() if "image" in named.values() else {*named} or endings
    neighbours = _find_images_beside(folder, labels) if labels else ImagesBeside({}, -1)
    of, level = named | neighbours.of, neighbours.level
    is_stated = options.layout is None and any(table_reading.states_references(one.path) for one in folder.tables)
    by_values = None if "label" in of.values() else unnamed_masks.mask_folders(folder, options.read)
    if by_values is not None and not is_stated:
        of = dict.fromkeys(by_values.images, "image") | dict.fromkeys(by_values.masks, "label")
        level = by_values.level
    loose = level if LOOSE in of else -1
    parts = {name: part for name in of if (part := table_join.part_in_name(Path(name))) is not None}
    if "train" in parts.values() and len(set(parts.values())) > 1:
        return FolderRoles(of, loose, fields, neighbours.contrasts, neighbours.alike, by_values, parts)
    return FolderRoles(of, loose, fields, neighbours.contrasts, neighbours.alike, by_values, kinds=_kinds_beside(of))


def _named_roles(folder: Folder) -> tuple[dict[str, str], set[str], frozenset[str]]:
    """The roles of folders by their whole names, but of those around all files.

    Else by what their names end in where both do, else by a word for masks in them. Folders of masks by hand,
    `1st_manual` or `manual1` beside `images`, hold labels, and `mask` then holds none: so DRIVE and HRF are laid out.
    The others are folders that end as those of labels do, and those that show the field of view.
    """
    names = {name for member in folder.images for name in member.folders[:2]}
    inner = names.difference(set(names).intersection(*(member.folders[:2] for member in folder.images)))
    images, labels = ({name for name in names if name.lower() in words} for words in (IMAGES, LABELS))
    if images and (by_hand := {name for name in names if BY_HAND.search(name)}):
        fields = {name for name in names if name.lower() in FIELD_OF_VIEW}
        of = dict.fromkeys(images, "image") | dict.fromkeys((labels - fields) | by_hand, "label")
        return of, set(), frozenset(fields)
    endings = [{name for name in inner if known.search(name)} for known in (IMAGE_NAME, LABEL_NAME)]
    if not (images or labels) and all(endings) and not endings[0] & endings[1]:
        images, labels = endings
    if not labels:
        words = LABELS if images else MANY_LABELS
        worded = {name for name in inner - images if not words.isdisjoint(re.findall(r"[a-z]+", name.lower()))}
        below = {name for member in folder.images if images & {*member.folders} for name in member.folders[:2]}
        labels = (worded or endings[1] - below) if images else worded if len(worded) == 1 else set()
    return dict.fromkeys(images, "image") | dict.fromkeys(labels, "label"), endings[1], frozenset()


class ImagesBeside(NamedTuple):
    """The roles of folders beside those of labels, by the names of files: of none where it is not sure.

    level: the number of folders above them; contrasts, alike: as of `FolderRoles`
    """

    of: dict[str, str]
    level: int
    contrasts: tuple[str, ...] = ()
    alike: tuple[str, ...] = ()


def _find_images_beside(folder: Folder, labels: Collection[str]) -> ImagesBeside:
    """The folder beside those of labels, or the files there, as images if their names pair.

    Or several beside them, of which each mask has its image in one alone. Several that each hold most of them are the
    contrasts of each case if they are named so (`T1`, `FLAIR`).
    """
    level = next(n for member in folder.images for n, name in enumerate(member.folders[:2]) if name in labels)
    keyed: dict[str, dict[PairKey, FolderMember]] = {}
    for member in folder.images:
        if (name := unnamed_masks.folder_at(member, level)) is not None:
            keyed.setdefault(name, {})[_key(member, level)] = member
    masks = [key for name in labels for key in keyed.pop(name, {})]
    owned = {name: _with_owner(masks, images, CLOSE) for name, images in keyed.items()}
    if not any(owned.values()):
        owned = {name: _with_owner(masks, images, RULES) for name, images in keyed.items()}
    owning = sorted(name for name, own in owned.items() if own)
    several = set[int]().union(*owned.values())
    is_apart = len(owning) > 1 and sum(map(len, owned.values())) == len(several) and 2 * len(several) > len(masks)
    found = tuple(owning if is_apart else [name for name in owning if 2 * len(owned[name]) > len(masks)])
    alike = found if len(found) > 1 and not is_apart else ()
    are_contrasts = all(modality_words.modality_word(name.lower()) != UNKNOWN_MODALITY for name in alike)
    is_sure = LOOSE in found or len(found) > 1 or (found and not {*owning} - {*found, LOOSE})
    of = dict.fromkeys(found, "image") | dict.fromkeys(labels, "label") if is_sure else {}
    return ImagesBeside(of, level, *((alike, ()) if are_contrasts else ((), alike)))


def _kinds_beside(roles: Mapping[str, str]) -> dict[str, str]:
    """{folder: left of left_images and of left_masks}, where each folder of images has its own of masks; else empty."""
    ends = {"image": IMAGE_NAME, "label": LABEL_NAME}
    kinds = {name: ends[role].sub("", name).strip("_- ").lower() for name, role in roles.items()}
    images, labels = (sorted(kinds[name] for name, role in roles.items() if role == one) for one in ends)
    return kinds if len(set(images)) == len(images) > 1 and images == labels else {}


def _with_owner(masks: Sequence[PairKey], images: Mapping[PairKey, FolderMember], rules: Sequence[Pairing]) -> set[int]:
    """The masks, by number, that have an image by their names, also where images end in a channel's number."""
    every = (images, mask_pairs.group_by_channel(images.items()))
    each = (mask_pairs.owners_of_masks(masks, known, rules) for known in every)
    owners = next((found for found in each if any(found)), [])
    return {number for number, owner in enumerate(owners) if owner is not None}


def _key(member: FolderMember, level: int) -> PairKey:
    name = unnamed_masks.folder_at(member, level) or LOOSE
    is_reader = bool(BY_HAND.search(name) and READER_FOLDER.search(name))
    folders = member.folders[: level + is_reader] + member.folders[level + 1 :]
    return PairKey(folders, member.stem, PARTS.get(name.lower(), member.split))


def _outside(folder: Folder, roles: FolderRoles) -> list[Problem]:
    unread = [member for member in folder.images if roles.role_of(member) is None]
    fields = [member for member in unread if not roles.fields.isdisjoint(member.folders[:2])]
    problems = []
    if fields:
        what = f"{errors.count_phrase(len(fields), 'image')} of {fields[0].path.parent.name}/"
        why = "beside masks contoured by hand, they show where the camera saw anything: they are not read"
        problems.append(Problem("note", what, why=why))
    if outside := len(unread) - len(fields):
        what = f"{errors.count_phrase(outside, 'image lies', 'images lie')} outside the folders of images and masks"
        problems.append(Problem("note", what, why="they are not read"))
    return problems


EXAMPLE: Example = {f"{kind}/x{n}.png": n for kind in ("images", "masks") for n in range(2)}
WHAT = "images/ and labels/ or masks/"
LAYOUT = Layout("image_folders", WHAT, fits, read, frozenset({"suffix_masks", "case_folders", "plain_images"}), EXAMPLE)
