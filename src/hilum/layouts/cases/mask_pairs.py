"""Pairs of images and masks by their names, and the rows that the cases are: what all layouts of plain names share.

Rules of pairing, in order; after the third each holds only where none before it pairs any mask:
  x.png           x.png, x_mask.png, x_mask_1.png   one name, with a word for masks at its end
  x.png           masks/anna/x.png, x_1stHO.png     and a reader's name, as a folder or the last word
  x.png           x_liver_mask.png                  and the structure as the last word
  x.png           masks/liver/x.png                 the structure as a folder
  img0001.png     label0001.png                     another word before the number
  x.png           x_L.png                           a last word that all masks have
  left/x.png      x.png                             other folders
  x.png           mask_x.png                        the word for masks at the beginning
  bus_0001-l.png  mask_0001-l.png                   any word before the number of an image
  PAN_0001.png    label0001.png                     nothing in common but the number at the end
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from hilum import errors
from hilum.errors import DatasetError, HilumError, UsageError
from hilum.files import file_formats, modality_words, patient_names
from hilum.files.format_options import ReadOptions
from hilum.files.modality_words import UNKNOWN_MODALITY
from hilum.layouts import layout
from hilum.layouts.cases import cell_loading, class_labels, dataset_folder
from hilum.layouts.cases.dataset_folder import Folder, FolderMember
from hilum.layouts.cases.names import (
    CHANNEL,
    FORMAT_FOLDERS,
    IMAGE_PREFIX,
    IMAGE_SUFFIX,
    IMAGE_WORD,
    LABEL_NAME,
    LAST_WORD,
    MASK_NAME,
    MASK_PREFIX,
    MASK_SUFFIX,
    NO_CLASSES,
    ORDER,
    PREFIX,
    RANGE,
    READER_FOLDER,
    READER_SUFFIX,
    SPLIT_WORDS,
    WORD_OF_CASE,
    WORD_OF_MASKS,
)
from hilum.layouts.layout import DatasetOptions, Problems, Reading
from hilum.values import CaseRow, Cell, Label, Problem, Split, grouping

Mask = TypeVar("Mask")  # the file of a mask, or what else is known of it
# The name of a case's only image.
IMAGE = "image"


class PairKey(NamedTuple):
    """The folders, stem and split that an image and its mask share."""

    folders: tuple[str, ...]
    stem: str
    split: Split | None = None

    @classmethod
    def of_file(cls, member: FolderMember) -> PairKey:
        """The key of a file whose folders all count."""
        return cls(member.folders, member.stem, member.split)

    @property
    def name(self) -> str:
        """Folders and stem, the case's name."""
        return "/".join((*self.folders, self.stem))

    def with_stem(self, stem: str) -> PairKey:
        """The key with another stem."""
        return self._replace(stem=stem)

    def without_folder(self, place: int) -> PairKey:
        """The key without one of its folders."""
        return self._replace(folders=self.folders[:place] + self.folders[place + 1 :])


@dataclass(frozen=True)
class MaskFile:
    """The file of a mask; who contoured it and what it shows, where its folder or name says so."""

    member: FolderMember
    reader: str = ""
    structure: str = ""


# {channel: its file} of a case
Images = Mapping[str, FolderMember]


@dataclass(frozen=True)
class NamedCase:
    """One case by the names of its files: its images in order, and all masks of it."""

    key: PairKey
    images: Images
    masks: tuple[MaskFile, ...] = ()


def pair_masks(
    images: Mapping[PairKey, Images],
    masks: Sequence[tuple[PairKey, FolderMember]],
    rules: Sequence[Pairing] | None = None,
) -> tuple[list[NamedCase], Problems]:
    """The cases with their masks, and the problems of masks without an image.

    Images that differ in suffix alone, with one mask for both, are left out.
    """
    masks_of: dict[PairKey, list[MaskFile]] = defaultdict(list)
    lost, claimed, twins = list[str](), set[PairKey](), _twins(images)
    for (key, member), owned in zip(masks, owners_of_masks([key for key, _ in masks], images, rules), strict=True):
        if owned is not None:
            masks_of[owned.image].append(MaskFile(member, owned.reader, owned.structure))
        elif (twin := owner_of_mask(key, twins)) is not None:
            claimed |= twins[twin]
        else:
            lost.append(key.name)
    cases = [NamedCase(key, own, tuple(masks_of[key])) for key, own in images.items() if key not in claimed]
    what = f"{len(claimed)} images have the name of another and a different suffix, and labels that may be of either"
    both = layout.left_out_problem((key.name for key in images if key in claimed), what, "Remove one of each")
    return cases, (*missing_image_problem(lost), *both)


class OwnedMask(NamedTuple):
    """The image of a mask, who contoured it and which structure."""

    image: PairKey
    reader: str = ""
    structure: str = ""


# A rule: the image of each mask among these; None for a mask without one.
Keys = Sequence[PairKey]
Known = Mapping[PairKey, object]
Owners = list[OwnedMask | None]
Pairing = Callable[[Keys, Known], Owners]


def owners_of_masks(masks: Keys, images: Known, rules: Sequence[Pairing] | None = None) -> Owners:
    """The image of each mask by the first of the rules that pairs any; None for one without."""
    for rule in RULES if rules is None else rules:
        owned = rule(masks, images)
        if any(owned):
            return owned
    return [None] * len(masks)


def owner_of_mask(key: PairKey, images: Known) -> PairKey | None:
    """The image of a mask: of its name, of that without a mask's suffix, or of that and the word of its part."""
    bare = key.with_stem(MASK_SUFFIX.sub("", key.stem))
    parted = (key.with_stem(f"{bare.stem}_{word}") for word, part in SPLIT_WORDS.items() if part == key.split)
    return next((one for one in (key, bare, *parted) if one in images), None)


def _first_of(owners: Callable[[PairKey, Known], Iterator[OwnedMask]], masks: Keys, images: Known) -> Owners:
    return [next(owners(key, images), None) for key in masks]


def _owners_by_name(key: PairKey, images: Known) -> Iterator[OwnedMask]:
    """By the mask's own name, without a reader's name, and without the structure as its last word."""
    for rest, reader in ((key, ""), *_read_by(key)):
        if (owner := owner_of_mask(rest, images)) is not None:
            yield OwnedMask(owner, reader)
    for rest, reader in ((key, ""), *_read_by(key)):
        bare = rest.with_stem(MASK_SUFFIX.sub("", rest.stem))
        fit = LAST_WORD.search(bare.stem) if reader or bare != rest else None  # x_overlay is no mask
        if fit and (one := bare.with_stem(bare.stem[: fit.start()])) in images:
            yield OwnedMask(one, reader, fit[1])


def _read_by(key: PairKey) -> Iterator[tuple[PairKey, str]]:
    """The key without a reader's name, and the name; a folder's before a file's where both bear one."""
    for place, folder in enumerate(key.folders):
        if READER_FOLDER.match(folder):
            rest = key.without_folder(place)
            yield rest, folder
            yield from ((bare, folder) for bare, _ in _read_by(rest))
    if fit := READER_SUFFIX.search(key.stem):
        yield key.with_stem(key.stem[: fit.start()]), fit[1]


def _owners_in_folders(key: PairKey, images: Known) -> Iterator[OwnedMask]:
    """By the name without one of its folders, which names the structure; the last word may repeat it."""
    for place, name in enumerate(key.folders):
        bare = key.without_folder(place)
        for own in (bare, bare.with_stem(LAST_WORD.sub("", bare.stem))):
            if (owner := owner_of_mask(own, images)) is not None:
                yield OwnedMask(owner, structure=structure_in_name(name))


def structure_in_name(folder: str) -> str:
    """The structure that the name of a folder of masks states; the whole name where it states none."""
    bare = ORDER.sub("", folder)
    return LABEL_NAME.sub("", bare).strip("_- ") or bare


def _alike(
    of_image: Callable[[PairKey], PairKey], of_mask: Callable[[PairKey], PairKey], masks: Keys, images: Known
) -> Owners:
    """By what two functions make of the names, of which each image has one of its own; none where two have the same."""
    known = {of_image(key): OwnedMask(key) for key in images}
    return [known.get(of_mask(key)) if len(known) == len(images) else None for key in masks]


def _by_common_word(masks: Keys, images: Known) -> Owners:
    """By the name without its last word, where all masks have the same."""
    words = {fit[1] if (fit := LAST_WORD.search(key.stem)) else "" for key in masks}
    bare = [key.with_stem(LAST_WORD.sub("", key.stem)) for key in masks]
    is_common = len(masks) > 1 and len(words) == 1 and "" not in words
    return [OwnedMask(key) if is_common and key in images else None for key in bare]


def _without(pattern: str | re.Pattern[str], key: PairKey) -> PairKey:
    return key.with_stem(re.sub(pattern, "", key.stem))


def _without_words(suffix: re.Pattern[str], key: PairKey) -> PairKey:
    return _without(PREFIX, _without(suffix, key))


def _without_folders(suffix: re.Pattern[str], key: PairKey) -> PairKey:
    return _without(suffix, key)._replace(folders=())


_BARE = partial(_without_words, MASK_SUFFIX)
CLOSE: tuple[Pairing, ...] = (partial(_first_of, _owners_by_name), partial(_first_of, _owners_in_folders))
BY_WORDS: tuple[Pairing, ...] = (*CLOSE, partial(_alike, partial(_without_words, IMAGE_SUFFIX), _BARE))
RULES: tuple[Pairing, ...] = (
    *BY_WORDS,
    _by_common_word,
    partial(_alike, partial(_without_folders, IMAGE_SUFFIX), partial(_without_folders, MASK_SUFFIX)),
    partial(_alike, partial(_without, IMAGE_PREFIX), partial(_without, MASK_PREFIX)),
    partial(_alike, partial(_without, r"^[A-Za-z]+[_\- ]?(?=\d)"), _BARE),
    partial(_alike, partial(_without, r"^.*?(?=\d+$)"), _BARE),
)


def match_letter_case(masks: Sequence[tuple[PairKey, Mask]], images: Iterable[PairKey]) -> list[tuple[PairKey, Mask]]:
    """Masks whose names differ from an image's in upper and lower case only, under the name as the image spells it.

    Where two images differ in nothing else, or two masks would then be called the same, names stay as they are.
    """
    stems = {stem for key in images for stem in (key.stem, CHANNEL.sub("", key.stem))}
    spelt = grouping.by_key((stem.casefold(), stem) for stem in stems)
    keys = [key.with_stem(_respelt(key.stem, stems, spelt)) for key, _ in masks]
    before, times = Counter(key for key, _ in masks), Counter(keys)
    return [(new if times[new] <= before[key] else key, member) for new, (key, member) in zip(keys, masks, strict=True)]


def _respelt(stem: str, stems: Collection[str], spelt: Mapping[str, Collection[str]]) -> str:
    """A mask's name with the image's spelling; spelt: {name in small letters: the names of images}."""
    bare = MASK_SUFFIX.sub("", stem)
    if stem in stems or bare in stems:
        return stem
    for own in (stem, bare):
        if len(names := spelt.get(own.casefold(), ())) == 1:
            return next(iter(names)) + stem[len(own) :]
    return stem


def _twins(images: Mapping[PairKey, Images]) -> dict[PairKey, set[PairKey]]:
    """{the key that they share: those that `one_image_each` made of it} of images whose names differ in suffix only."""
    firsts = ((key, next(iter(own.values()))) for key, own in images.items())
    named = ((key.with_stem(member.stem), key) for key, member in firsts if key.stem == member.path.name)
    return grouping.distinct_by_key(named)


def group_by_channel(members: Iterable[tuple[PairKey, FolderMember]]) -> dict[PairKey, Images]:
    """Files by case where all end in a channel number, in the order of the numbers; else empty."""
    cases: dict[PairKey, dict[str, FolderMember]] = defaultdict(dict)
    for key, member in members:
        fit = CHANNEL.search(key.stem)
        if fit is None:
            return {}
        cases[key.with_stem(key.stem[: fit.start()])][str(int(fit[1]))] = member
    return {key: {number: own[number] for number in sorted(own, key=int)} for key, own in cases.items()}


def are_channel_numbers(cases: Mapping[PairKey, Images], channels: int | None = None, absent: bool = False) -> bool:
    """Whether numbers at the end of names, which nothing declares, are channels and not numbers of cases.

    Every case has 0000, 0001, ... up to the same number, and there are several cases or one channel; or up to the
    number of `channels` where that is known. Where some may be `absent` the numbers are below theirs.
    """
    widths = {len(own) for own in cases.values()}
    from_zero = all([*own] == [str(n) for n in range(len(own))] for own in cases.values())
    if channels is not None:
        below = channels > 1 and all(int(number) < channels for own in cases.values() for number in own)
        return (absent and below) or (widths == {channels} and from_zero)
    return len(widths) == 1 and from_zero and (len(cases) > 1 or widths == {1})


def group_into_cases(members: Iterable[tuple[PairKey, FolderMember]], options: DatasetOptions) -> dict[PairKey, Images]:
    """The images by case: of as many channels as the numbers at the ends of names say, else of one."""
    keyed = list(members)
    numbered = group_by_channel(keyed)
    are_channels = bool(numbered) and are_channel_numbers(numbered, options.channels, options.absent)
    return numbered if are_channels else one_image_each(keyed)


def one_image_each(members: Iterable[tuple[PairKey, FolderMember]]) -> dict[PairKey, Images]:
    """One image a case; two files that differ in suffix only are two cases."""
    keyed = list(members)
    times = Counter(key for key, _ in keyed)
    return {key if times[key] == 1 else key.with_stem(member.path.name): {IMAGE: member} for key, member in keyed}


def is_image_word(name: str) -> bool:
    """Whether a name is a word for images or one of their modalities."""
    return bool(IMAGE_WORD.match(name)) or modality_words.modality_word(name.lower()) != UNKNOWN_MODALITY


def split_by_words(members: Sequence[FolderMember]) -> dict[FolderMember, tuple[str, str]]:
    """{file: its case, and what its name says}, as x_t1, x_flair and x_seg; empty where one name says neither."""
    for named in WORD_OF_CASE:
        fits = [named.match(member.stem) for member in members]
        parted = {member: (fit["case"], fit["word"]) for member, fit in zip(members, fits, strict=True) if fit}
        words = {word for _, word in parted.values()}
        if len(parted) == len(members) and all(is_image_word(word) or MASK_NAME.match(word) for word in words):
            return parted
    return {}


def is_called_mask(path: Path) -> bool:
    """Whether the name of a file, or of its folder, is that of masks."""
    folder, stem = path.parent.name, dataset_folder.stem_of(path.name)
    return bool(LABEL_NAME.search(folder) or MASK_NAME.match(folder) or MASK_NAME.match(stem))


def reading_of_cases(
    cases: Sequence[NamedCase],
    folder: Folder,
    options: DatasetOptions,
    *,
    how: str,
    modality: str | None = None,
    problems: Sequence[Problem] = (),
    is_named: bool = False,
) -> Reading:
    """The rows of the cases, with all that is declared of them.

    how:      they were read, in words
    modality: of all images, where something declares it
    is_named: whether masks of one structure alone are called by it too
    Raises DatasetError where some masks name a structure and others none, or several people contoured several.
    """
    masks = [mask for case in cases for mask in case.masks]
    structures = structure_labels(_structures_of(cases, is_named=is_named), folder, options)
    if structures and any(mask.reader for mask in masks):
        names = errors.list_phrase(sorted({mask.structure for mask in masks} - {""}))
        problem = f"there are masks of several structures ({names}) and of several people"
        remedy = "Put those of one person into one label map with a number for each structure"
        raise DatasetError(problem, str(masks[0].member.path), remedy)
    partly = [case for case in cases if case.masks and not structures.keys() <= {mask.structure for mask in case.masks}]
    whole = [case for case in cases if case not in partly]
    labels = tuple(structures.values()) or (class_labels.mask_labels(folder, options) if masks else ())
    classes, called = class_labels.name_classes(_classes_of(whole), folder, options, declare=not masks)
    channels = sorted({channel for case in whole for channel in case.images})
    modality = options.modality or modality or modality_words.common_modality(channels)
    rows = rows_of_cases(whole, options, structures=structures, called=called, modality=modality)
    contrasts = class_labels.channel_names_in_dataset_json(folder) if channels == [IMAGE] else ()
    if len(contrasts) > 1 and _has_frames(rows):
        parted = [cell_loading.frame_cells(row.images[IMAGE].paths[0], contrasts, options.modality) for row in rows]
        rows = tuple(replace(row, images=own) for row, own in zip(rows, parted, strict=True))
        channels, modality = [*contrasts], options.modality or modality_words.common_modality(contrasts)
    readers = sorted({mask.reader for mask in masks} - {""})
    lacking = missing_structure_problem([case.key.name for case in partly], structures)
    return Reading(
        rows,
        how=f"{how}, {errors.count_phrase(len(rows), 'case')}",
        classes={"mask": labels, "class": classes},
        modality=modality,
        readers=tuple(readers) if len(readers) > 1 else (),
        channels=tuple(channels) if channels != [IMAGE] else (),
        problems=(*problems, *lacking),
    )


def _has_frames(rows: Sequence[CaseRow]) -> bool:
    """Whether the first image has a fourth axis, as its header says; a damaged one is named when it is read."""
    try:
        return bool(rows) and file_formats.read_image(rows[0].images[IMAGE].paths[0], ReadOptions()).frames is not None
    except HilumError:
        return False


def rows_of_cases(
    cases: Sequence[NamedCase],
    options: DatasetOptions,
    *,
    structures: Mapping[str, Label] = MappingProxyType({}),
    called: Mapping[str, str] = MappingProxyType({}),
    modality: str | None = None,
) -> tuple[CaseRow, ...]:
    """A row for each case; called: {first folder: the class}, where folders are classes."""
    stated, rows = options.modality or modality, []
    for case in cases:
        words = {channel: modality_words.modality_word(stated or channel) for channel in case.images}
        images = {one: Cell((member.path,), modality=words[one]) for one, member in case.images.items()}
        references: dict[str, Any] = {**_mask_cells(case, structures)}
        if called and case.key.folders[0] in called:
            references["class"] = called[case.key.folders[0]]
        rows.append(CaseRow(case.key.name, images, references, split=case.key.split))
    return tuple(rows)


def _structures_of(cases: Sequence[NamedCase], *, is_named: bool) -> set[str]:
    """The structures that names of masks say; none where it is the same of all, and says nothing of one map."""
    own = [{mask.structure for mask in case.masks} for case in cases]
    several = set[str]().union(*own)
    return several if is_named or len(several - {""}) > 1 or any(len(names) > 1 for names in own) else set()


def _mask_cells(case: NamedCase, structures: Mapping[str, Label]) -> Mapping[str, Cell]:
    """The masks of one image: of structures one map, of several people each their own."""
    by_name: dict[str, list[Path]] = {name: [] for name in (structures or sorted({one.reader for one in case.masks}))}
    for mask in case.masks:
        if (name := mask.structure if structures else mask.reader) in by_name:
            by_name[name].append(mask.member.path)
    if structures and case.masks:
        return {"mask": cell_loading.structure_cell(by_name)}
    return cell_loading.mask_cells(by_name if case.masks else {})


def structure_labels(named: Iterable[str], folder: Folder, options: DatasetOptions) -> dict[str, Label]:
    """{structure that a mask's name says: its label}, or those that --labels names; empty where names say none.

    Raises DatasetError where some masks name a structure and others none ("").
    """
    names = sorted(set(named))
    if names in ([], [""]):
        return {}
    if "" in names:
        problem = f"some masks name a structure ({errors.list_phrase(names[1:])}), and others none"
        remedy = "Put them into one label map with a number for each structure, or take away what is not meant"
        raise DatasetError(problem, str(folder.root), remedy)
    if options.labels is None:
        return {name: Label(number, name) for number, name in enumerate(names, start=1)}
    asked = {label.name: label for label in class_labels.mask_labels(folder, options)}
    if unknown := sorted(set(asked) - set(names)):
        problem = f"no mask is named {errors.list_phrase(unknown)}"
        raise UsageError(problem, f"--labels {options.labels}", f"Choose from {errors.list_phrase(names)}")
    return asked


def missing_structure_problem(cases: Sequence[str], structures: Collection[str]) -> Problems:
    """The problem that cases lack the mask of a structure; none where all have one of each."""
    what = "case lacks", "cases lack", f"masks of some of {errors.list_phrase(structures)}"
    remedy = "Add them, empty ones where a structure is not there, or name those to read"
    return layout.left_out_problem(cases, what, remedy)


def missing_image_problem(lost: Sequence[str]) -> Problems:
    """The problem that labels have no image; none where all have one."""
    what = "label has", "labels have", "no image"
    return layout.left_out_problem(lost, what, "Add the images, or rename", "warning")


def class_folder_names(keys: Iterable[PairKey], *, has_masks: bool = False) -> set[str]:
    """The first folders, where they are classes: every case lies in one of several; none names a person, or a part.

    has_masks: whether there are masks: numbered folders, or those that mostly hold one case, may be cases or people
    """
    keys = list(keys)
    firsts = [key.folders[0] if key.folders else "" for key in keys]
    counts = Counter(firsts)
    names = set(counts)
    # All of them may name masks: with_mask and without_mask are classes.
    holds_masks = len({bool(WORD_OF_MASKS.search(name)) for name in names}) > 1
    if "" in names or len(names) < 2 or len(firsts) == len(names) or holds_masks or dataset_folder.are_parts(names):
        return set()
    if has_masks and (patient_names.are_numbered_people(names) or all(map(RANGE.match, names))):
        return set()
    is_single = 2 * sum(count == 1 for count in counts.values()) > len(names)
    if has_masks and (is_single or patient_names.hold_examinations([(*key.folders, key.stem) for key in keys])):
        return set()
    return set() if any(NO_CLASSES.search(name) or patient_names.names_a_person(name) for name in names) else names


def _classes_of(cases: Sequence[NamedCase]) -> set[str]:
    """The first folders, where they are classes; not where the names of the files show that each holds one person.

    Raises DatasetError where they hold the same images in several formats.
    """
    names = class_folder_names((case.key for case in cases), has_masks=any(case.masks for case in cases))
    if not names:
        return names
    refuse_formats(names, next(iter(cases[0].images.values())).path.parent)
    people = patient_names.patients_of([case.key.stem for case in cases])
    owners = {(case.key.folders[0], owner) for case, owner in zip(cases, people.names, strict=True)}
    return set() if people.known and len(owners) == len(names) == len(set(people.names)) else names


def refuse_formats(names: Collection[str], where: Path) -> None:
    """Raise DatasetError for folders that are called as formats: they are no classes, and may hold the same images."""
    if {name.lower() for name in names} <= FORMAT_FOLDERS:
        folder_names = errors.list_phrase(sorted(names))
        problem = f"the folders {folder_names} hold images in several formats, and each may be there twice"
        raise DatasetError(problem, str(where), "Give one of these folders")
