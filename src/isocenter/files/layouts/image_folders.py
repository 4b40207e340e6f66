"""Folders `images/` and `labels/` or `masks/`, a file a case, with class folders in them where there are classes.

Images may also lie beside the folder of masks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from isocenter.errors import DatasetError, counted, listed
from isocenter.files.layouts import nnunet
from isocenter.files.layouts.cases.classes import described_channels, mask_labels, name_classes
from isocenter.files.layouts.cases.folder import Folder, Member
from isocenter.files.layouts.cases.join import part_named
from isocenter.files.layouts.cases.load import mask_cells, structure_cell
from isocenter.files.layouts.cases.names import (
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
from isocenter.files.layouts.cases.pairs import (
    Key,
    Pair,
    are_apart,
    by_channel,
    by_reader,
    class_names_of_pairs,
    image_cells,
    number_of,
    one_each,
    owner_of,
    owners_of,
    pair,
    parted_by_words,
    respelt,
    with_owner,
)
from isocenter.files.layouts.cases.structures import (
    by_folder_of_masks,
    by_structure,
    structure_labels,
    without_structure,
)
from isocenter.files.layouts.cases.table import states_references
from isocenter.files.layouts.cases.unnamed_masks import LOOSE, drawn_folders, folder_at, folder_words
from isocenter.files.layouts.layout import DatasetOptions, Layout, Reading
from isocenter.files.modality import UNKNOWN_MODALITY, common_modality, modality_word
from isocenter.values import CaseRow, Cell, Problem, Split


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """Images under a folder for images and masks under one for labels; or only labels without DICOM: `read` refuses.

    What nnU-Net's own folders hold does not count where its description fits them.
    """
    taken = {f"{kind}{part}" for kind in ("images", "labels") for part in ("Tr", "Ts")}
    taken = taken if nnunet.fits(folder, options) else set()
    roles = _Roles(folder, options)
    places = {roles.of(member) for member in folder.images if not taken.intersection(member.folders)}
    return places >= {"image", "label"} or (places == {"label"} and not folder.dicom)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """Pairs by equal name; several masks of one image are joined, unless their folders or names name their readers.

    Masks in folders of structures (`masks/liver/x.png`) become one label map.

    Raises DatasetError where two folders of images hold one of the same name, so that a mask may be of either.
    """
    roles = _Roles(folder, options)
    roles.check()
    images = [(roles.key(member), member) for member in folder.images if roles.of(member) == "image"]
    masks = [(roles.key(member), member) for member in folder.images if roles.of(member) == "label"]
    if not images:
        raise DatasetError(
            f"holds {counted(len(masks), 'label')} and no images",
            str(folder.root),
            "Put the images into images/ in the same folder",
        )
    masks = respelt(masks, [key for key, _ in images])
    # Labels show whether a number at the end is a channel's (x of x_0000) or the case's (x_0000 of x_0000).
    drawn = {key for key, _ in masks}
    known = dict(images)
    has_own_masks = any(owner_of(key, known) for key in drawn)
    channels, shown = {} if drawn & known.keys() else by_channel(images), dict[Member, str]()
    if not any(owners_of(list(drawn), channels)) and any(owners_of(list(drawn), known)):
        channels = {}  # PANCREAS_0001 of label0001
    if channels:
        shown = {member: str(number_of(member)) for members in channels.values() for member in members}
    elif roles.contrasts or not has_own_masks:
        channels, shown = roles.by_contrast(images)
    if not channels:
        _refuse_twice(images, folder)
    by_key = channels or one_each(images)
    masks, people = by_reader(masks, by_key)
    masks, parts = by_structure(masks, by_key)
    if not (people or parts):
        parts = by_folder_of_masks(masks, {member: roles.folder(member) for _, member in masks}, by_key)
    pairs, lost = pair(by_key, masks)
    structures = structure_labels(parts.values(), folder, options)
    partly = [one.name for one in pairs if one.masks and not set(structures) <= {parts.get(m) for m in one.masks}]
    pairs = [one for one in pairs if one.name not in partly]
    labels = tuple(structures.values()) or (mask_labels(folder, options) if masks else ())
    classes, called = name_classes(class_names_of_pairs(pairs), folder, options, declare=not masks)
    modality = options.modality or common_modality(roles.contrasts or described_channels(folder))
    masks_of = partial(_of_structures, parts) if structures else partial(_of_readers, people)
    rows = tuple(_row(one, shown, masks_of, called, modality) for one in pairs)
    names = tuple(sorted(set(people.values())))
    return Reading(
        rows,
        how=f"images and labels of the same name, {counted(len(rows), 'case')}",
        classes={"mask": labels, "class": classes},
        modality=modality,
        readers=names if len(names) > 1 else (),
        channels=tuple(sorted({name for one in rows for name in one.images})) if channels else (),
        problems=(*lost, *without_structure(partly, structures), *_outside(folder, roles)),
    )


def within_images(members: tuple[Member, ...]) -> tuple[Member, ...]:
    """The files without the one folder images/ (or img/, ...) above them, where each lies in a folder inside it."""
    tops = {member.folders[0].lower() if len(member.folders) > 1 else "" for member in members}
    if len(tops) != 1 or not tops <= IMAGES:
        return members
    return tuple(replace(member, folders=member.folders[1:]) for member in members)


# The references of one image by its masks.
MasksOf = Callable[[Sequence[Member]], Mapping[str, Cell]]


def _of_readers(people: Mapping[Member, str], masks: Sequence[Member]) -> Mapping[str, Cell]:
    return mask_cells(_paths_by(people, masks))


def _of_structures(parts: Mapping[Member, str], masks: Sequence[Member]) -> Mapping[str, Cell]:
    return {"mask": structure_cell(_paths_by(parts, masks))} if masks else {}


def _paths_by(names: Mapping[Member, str], masks: Sequence[Member]) -> dict[str, list[Path]]:
    """{name of a mask: files}, in the order of the names."""
    paths: dict[str, list[Path]] = {}
    for mask in sorted(masks, key=lambda mask: names.get(mask, "")):
        paths.setdefault(names.get(mask, ""), []).append(mask.path)
    return paths


def _row(
    files: Pair, shown: Mapping[Member, str], masks_of: MasksOf, called: Mapping[str, str], modality: str | None
) -> CaseRow:
    names = [shown.get(member, "image") for member in files.images]
    references: dict[str, Any] = {**masks_of(files.masks)}
    if called:
        references["class"] = called[files.key.folders[0]]
    cells = image_cells(files.images, names, [modality_word(modality or one) for one in names])
    return CaseRow(files.name, cells, references, split=files.key.split)


def _with_word_of_labels(folder: Folder, names: Collection[str], words: Collection[str]) -> set[str]:
    """The folders with one of these words in their names, but those around all files."""
    around = set(names).intersection(*(member.folders[:2] for member in folder.images))
    each = {name: re.findall(r"[a-z]+", name.lower()) for name in set(names) - around}
    return {name for name, own in each.items() if not set(own).isdisjoint(words)}


def _inside(folder: Folder, names: Collection[str]) -> set[str]:
    """The folders on the way to files that lie below one of these."""
    return {
        name for member in folder.images if not set(names).isdisjoint(member.folders) for name in member.folders[:2]
    }


def _stated_parts(folders: Iterable[str]) -> dict[str, Split]:
    """{folder: the part that its name states}, where several do, and one of them is for training."""
    stated = {name: part for name in folders if (part := part_named(Path(name))) is not None}
    return stated if "train" in stated.values() and len(set(stated.values())) > 1 else {}


def _kinds_beside(roles: Mapping[str, str]) -> dict[str, str]:
    """{folder: left of left_images and of left_masks}, where each folder of images has its own of masks; else empty."""
    ends = {"image": IMAGE_NAME, "label": LABEL_NAME}
    kinds = {name: ends[role].sub("", name).strip("_- ").lower() for name, role in roles.items()}
    images, labels = (sorted(kinds[name] for name, role in roles.items() if role == one) for one in ends)
    return kinds if len(set(images)) == len(images) > 1 and images == labels else {}


def _refuse_twice(images: Sequence[tuple[Key, Member]], folder: Folder) -> None:
    """Raise DatasetError for two images of one key in two folders."""
    known: dict[tuple[Key, str], Member] = {}
    for key, member in images:
        if (other := known.setdefault((key, member.path.name), member)) is not member:
            places = listed(one.path.parent.relative_to(folder.root).as_posix() for one in (other, member))
            problem = f"two images are called {member.path.name} ({places}), and masks may be of either"
            raise DatasetError(problem, str(folder.root), "Rename them")


class _Roles:
    """The folders of images and those of labels: by their whole names, else by what these end in, where both do.

    Where only labels are called so, the images are the files of the one folder beside theirs, or those that lie beside
    it, if most labels have their names.
    Several such folders hold the contrasts of each case if they are named so (`T1`, `FLAIR`).
    Folders of drawings by hand, `1st_manual` or `manual1` beside `images`, hold labels, and `mask` then holds none: so
    DRIVE and HRF are laid out. Where no name marks labels, folders of label maps with the names of images do, unless a
    table states what is true of them.
    """

    def __init__(self, folder: Folder, options: DatasetOptions) -> None:
        names = {name for member in folder.images for name in member.folders[:2]}
        images, labels = ({name for name in names if name.lower() in words} for words in (IMAGES, LABELS))
        self._fields: set[str] = set()
        if images and (by_hand := {name for name in names if BY_HAND.search(name)}):
            self._fields = {name for name in names if name.lower() in FIELD_OF_VIEW}
            labels = (labels - self._fields) | by_hand
        around = set[str](names).intersection(*(member.folders[:2] for member in folder.images))
        ending = [{name for name in names - around if known.search(name)} for known in (IMAGE_NAME, LABEL_NAME)]
        if not (images or labels) and all(ending) and not ending[0] & ending[1]:
            images, labels = ending
        if not labels:
            labels = _with_word_of_labels(folder, names - images, LABELS if images else MANY_LABELS)
            labels = labels if images or len(labels) == 1 else set()
            labels = labels or (ending[1] - _inside(folder, images) if images else set())
        self._role = dict.fromkeys(images, "image") | dict.fromkeys(labels, "label")
        self._loose: int | None = None  # the level of folders beside which images lie
        self._alike: list[str] = []
        self.contrasts: tuple[str, ...] = ()
        if not images and (masks := labels or ending[1]):
            self._pair(folder, masks)
        self._drawn = None if "label" in self._role.values() else drawn_folders(folder, options.read)
        is_table = options.layout is None and any(states_references(table.path) for table in folder.tables)
        if self._drawn is not None and not is_table:
            self._role = dict.fromkeys(self._drawn.images, "image") | dict.fromkeys(self._drawn.masks, "label")
            self._loose = self._drawn.level if LOOSE in self._role else None
        self._root = str(folder.root)
        self._parts = _stated_parts(self._role)
        self._kinds = {} if self._parts else _kinds_beside(self._role)

    def check(self) -> None:
        """Raise DatasetError where folders that no name marks may also be classes, or two of them images."""
        if self._drawn is not None:
            self._drawn.check(self._root)
        if self._alike:
            places = " or in ".join(map(folder_words, self._alike))
            raise DatasetError(
                f"the images may be in {places}, as the names of the masks are in each",
                self._root,
                "Move what are no images to another place, or name the folders images/ and masks/; those of contrasts "
                "are known by names such as T1, FLAIR, CT or PET",
            )

    def _pair(self, folder: Folder, labels: Collection[str]) -> None:
        """Give these folders of labels, and the one beside them or the files there, their roles if their names pair.

        Or several beside them, of which each mask has its image in one alone.
        """
        level = next(n for member in folder.images for n, name in enumerate(member.folders[:2]) if name in labels)
        keyed: dict[str, dict[Key, Member]] = {}
        for member in folder.images:
            if (name := folder_at(member, level)) is not None:
                keyed.setdefault(name, {})[_key(member, level)] = member
        masks = [(key, member) for name in labels for key, member in keyed.pop(name, {}).items()]
        owned = {name: by_structure(masks, images)[0] for name, images in keyed.items()}
        drawn = {name: {mask for key, mask in owned[name] if owner_of(key, images)} for name, images in keyed.items()}
        paired = sorted(name for name, own in drawn.items() if 2 * len(own) > len(masks))
        if not any(drawn.values()):
            drawn = {name: with_owner(owned[name], images) for name, images in keyed.items()}
            paired = sorted(name for name, own in drawn.items() if own)
        if is_apart := are_apart([own for own in drawn.values() if own], len(masks)):
            paired = sorted(name for name, own in drawn.items() if own)
        if len(paired) > 1 and not is_apart and all(modality_word(n.lower()) != UNKNOWN_MODALITY for n in paired):
            self.contrasts = tuple(paired)
        self._alike = paired if len(paired) > 1 and not (is_apart or self.contrasts) else []
        if LOOSE in paired:
            self._loose = level
        elif not paired or (len(paired) == 1 and any(drawn[name] for name in keyed.keys() - {*paired, LOOSE})):
            return
        self._role |= dict.fromkeys(paired, "image") | dict.fromkeys(labels, "label")

    def level(self, member: Member) -> int | None:
        """The number of folders above the one that marks a file as image or label, or above an image next to it."""
        loose = self._loose if len(member.folders) == self._loose else None
        return next((n for n, name in enumerate(member.folders[:2]) if name in self._role), loose)

    def folder(self, member: Member) -> str:
        """The folder that marks a file as image or label; `LOOSE` of an image beside it."""
        return folder_at(member, self.level(member) or 0) or LOOSE

    def of(self, member: Member) -> str | None:
        """Whether a file is an image or a label; None where no folder says it."""
        level = self.level(member)
        return None if level is None else self._role[folder_at(member, level) or LOOSE]

    def by_contrast(self, images: Sequence[tuple[Key, Member]]) -> tuple[dict[Key, list[Member]], dict[Member, str]]:
        """Images by case, and {image: its contrast}, which its folder or name states; empty where neither does."""
        members = [member for _, member in images]
        if self.contrasts:
            shown = {member: folder_at(member, self.level(member) or 0) or LOOSE for member in members}
            keyed = images
        else:
            named = parted_by_words(members)
            shown = {member: word for member, (_, word) in named.items()}
            keyed = [(key.called(named[member][0]), member) for key, member in images if member in named]
        cases: dict[Key, list[Member]] = {}
        for key, member in sorted(keyed, key=lambda one: shown[one[1]]):
            cases.setdefault(key, []).append(member)
        names = set(shown.values())
        whole = sum(len(members) == len(names) for members in cases.values())
        return (cases, shown) if len(names) > 1 and 2 * whole > len(cases) else ({}, {})

    def shows_field(self, member: Member) -> bool:
        """Whether a file shows the field of view."""
        return not self._fields.isdisjoint(member.folders[:2])

    def key(self, member: Member) -> Key:
        """The folders without the one of images or labels, the name, the split; a folder that names a reader stays.

        Folders such as train_images and test_images state the split where there are several parts. Of left_images
        beside right_images the word that is also that of its masks stays.
        """
        level = self.level(member) or 0
        key, kind = _key(member, level), self._kinds.get(self.folder(member))
        folders = (*key.folders[:level], kind, *key.folders[level:]) if kind else key.folders
        return key._replace(folders=folders, split=self._parts.get(self.folder(member), key.split))


def _key(member: Member, level: int) -> Key:
    name = folder_at(member, level) or LOOSE
    is_reader = bool(BY_HAND.search(name) and READER_FOLDER.search(name))
    folders = member.folders[: level + is_reader] + member.folders[level + 1 :]
    return Key(folders, member.stem, PARTS.get(name.lower(), member.split))


def _outside(folder: Folder, roles: _Roles) -> list[Problem]:
    unread = [member for member in folder.images if roles.of(member) is None]
    fields = [member for member in unread if roles.shows_field(member)]
    problems = []
    if fields:
        what = f"{counted(len(fields), 'image')} of {fields[0].path.parent.name}/"
        why = "beside masks drawn by hand, they show where the camera saw anything: they are not read"
        problems.append(Problem("note", what, why=why))
    if outside := len(unread) - len(fields):
        what = f"{counted(outside, 'image lies', 'images lie')} outside the folders of images and masks"
        problems.append(Problem("note", what, why="they are not read"))
    return problems


LAYOUT = Layout(
    "image_folders",
    "images/ and labels/ or masks/",
    fits,
    read,
    over=frozenset({"suffix_masks", "case_folders", "plain_images"}),
)
