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

from isocenter.errors import DatasetError, IsocenterError, UsageError, counted, listed
from isocenter.files.format import ReadOptions
from isocenter.files.index import read_image
from isocenter.files.layouts.cases.classes import described_channels, mask_labels, name_classes
from isocenter.files.layouts.cases.folder import Folder, Member, are_parts, stem_of
from isocenter.files.layouts.cases.load import frame_cells, mask_cells, structure_cell
from isocenter.files.layouts.cases.names import (
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
from isocenter.files.layouts.layout import DatasetOptions, Reading, left_out
from isocenter.files.modality import UNKNOWN_MODALITY, common_modality, modality_word
from isocenter.files.patients import are_numbered_people, hold_examinations, names_a_person, patients_of
from isocenter.values import CaseRow, Cell, Label, Problem, Split

Mask = TypeVar("Mask")  # the file of a mask, or what else is known of it
# The name of a case's only image.
IMAGE = "image"


class Key(NamedTuple):
    """The folders, stem and split that an image and its mask share."""

    folders: tuple[str, ...]
    stem: str
    split: Split | None = None

    @property
    def name(self) -> str:
        """Folders and stem, the case's name."""
        return "/".join((*self.folders, self.stem))

    def called(self, stem: str) -> Key:
        """The key with another stem."""
        return self._replace(stem=stem)

    def without_folder(self, place: int) -> Key:
        """The key without one of its folders."""
        return self._replace(folders=self.folders[:place] + self.folders[place + 1 :])


@dataclass(frozen=True)
class MaskFile:
    """The file of a mask; who drew it and what it shows, where its folder or name says so."""

    member: Member
    reader: str = ""
    structure: str = ""


# {channel: its file} of a case
Images = Mapping[str, Member]


@dataclass(frozen=True)
class NamedCase:
    """One case by the names of its files: its images in order, and all masks drawn on it."""

    key: Key
    images: Images
    masks: tuple[MaskFile, ...] = ()


def paired(
    images: Mapping[Key, Images], masks: Sequence[tuple[Key, Member]], rules: Sequence[Pairing] | None = None
) -> tuple[list[NamedCase], tuple[Problem, ...]]:
    """The cases with their masks, and the problems of masks without an image.

    Images that differ in suffix alone, with one mask for both, are left out.
    """
    drawn: dict[Key, list[MaskFile]] = defaultdict(list)
    lost, claimed, twins = list[str](), set[Key](), _twins(images)
    for (key, member), owned in zip(masks, owners_of([key for key, _ in masks], images, rules), strict=True):
        if owned is not None:
            drawn[owned.image].append(MaskFile(member, owned.reader, owned.structure))
        elif (twin := owner_of(key, twins)) is not None:
            claimed |= twins[twin]
        else:
            lost.append(key.name)
    cases = [NamedCase(key, own, tuple(drawn[key])) for key, own in images.items() if key not in claimed]
    what = f"{len(claimed)} images have the name of another and a different suffix, and labels that may be of either"
    both = left_out((key.name for key in images if key in claimed), what, "Remove one of each")
    return cases, (*without_image(lost), *both)


class Owned(NamedTuple):
    """The image of a mask, who drew it and what."""

    image: Key
    reader: str = ""
    structure: str = ""


# A rule: the image of each mask among these; None for a mask without one.
Pairing = Callable[[Sequence[Key], Mapping[Key, object]], list[Owned | None]]


def owners_of(
    masks: Sequence[Key], images: Mapping[Key, object], rules: Sequence[Pairing] | None = None
) -> list[Owned | None]:
    """The image of each mask by the first of the rules that pairs any; None for one without."""
    for rule in RULES if rules is None else rules:
        owned = rule(masks, images)
        if any(owned):
            return owned
    return [None] * len(masks)


def owner_of(key: Key, images: Mapping[Key, object]) -> Key | None:
    """The image of a mask: of its name, of that without a mask's suffix, or of that and the word of its part."""
    bare = key.called(MASK_SUFFIX.sub("", key.stem))
    parted = (key.called(f"{bare.stem}_{word}") for word, part in SPLIT_WORDS.items() if part == key.split)
    return next((one for one in (key, bare, *parted) if one in images), None)


def _by_name(masks: Sequence[Key], images: Mapping[Key, object]) -> list[Owned | None]:
    """By the mask's own name, without a reader's name, and without the structure as its last word."""
    return [next(_named(key, images), None) for key in masks]


def _named(key: Key, images: Mapping[Key, object]) -> Iterator[Owned]:
    for rest, reader in ((key, ""), *_read_by(key)):
        if (owner := owner_of(rest, images)) is not None:
            yield Owned(owner, reader)
    for rest, reader in ((key, ""), *_read_by(key)):
        bare = rest.called(MASK_SUFFIX.sub("", rest.stem))
        fit = LAST_WORD.search(bare.stem) if reader or bare != rest else None  # x_overlay is no mask
        if fit and (one := bare.called(bare.stem[: fit.start()])) in images:
            yield Owned(one, reader, fit[1])


def _read_by(key: Key) -> Iterator[tuple[Key, str]]:
    """The key without a reader's name, and the name; a folder's before a file's where both bear one."""
    for place, folder in enumerate(key.folders):
        if READER_FOLDER.match(folder):
            rest = key.without_folder(place)
            yield rest, folder
            yield from ((bare, folder) for bare, _ in _read_by(rest))
    if fit := READER_SUFFIX.search(key.stem):
        yield key.called(key.stem[: fit.start()]), fit[1]


def _by_folder_of_structure(masks: Sequence[Key], images: Mapping[Key, object]) -> list[Owned | None]:
    """By the name without one of its folders, which names the structure; the last word may repeat it."""
    return [next(_in_folders(key, images), None) for key in masks]


def _in_folders(key: Key, images: Mapping[Key, object]) -> Iterator[Owned]:
    for place, name in enumerate(key.folders):
        bare = key.without_folder(place)
        for own in (bare, bare.called(LAST_WORD.sub("", bare.stem))):
            if (owner := owner_of(own, images)) is not None:
                yield Owned(owner, structure=structure_in(name))


def structure_in(folder: str) -> str:
    """The structure that the name of a folder of masks states; the whole name where it states none."""
    bare = ORDER.sub("", folder)
    return LABEL_NAME.sub("", bare).strip("_- ") or bare


def _alike(
    of_image: Callable[[Key], Key], of_mask: Callable[[Key], Key], masks: Sequence[Key], images: Mapping[Key, object]
) -> list[Owned | None]:
    """By what two functions make of the names, of which each image has one of its own; none where two have the same."""
    known = {of_image(key): Owned(key) for key in images}
    return [known.get(of_mask(key)) if len(known) == len(images) else None for key in masks]


def _by_common_word(masks: Sequence[Key], images: Mapping[Key, object]) -> list[Owned | None]:
    """By the name without its last word, where all masks have the same."""
    words = {fit[1] if (fit := LAST_WORD.search(key.stem)) else "" for key in masks}
    bare = [key.called(LAST_WORD.sub("", key.stem)) for key in masks]
    is_common = len(masks) > 1 and len(words) == 1 and "" not in words
    return [Owned(key) if is_common and key in images else None for key in bare]


def _without(pattern: str | re.Pattern[str], key: Key) -> Key:
    return key.called(re.sub(pattern, "", key.stem))


def _without_words(suffix: re.Pattern[str], key: Key) -> Key:
    return _without(PREFIX, _without(suffix, key))


def _without_folders(suffix: re.Pattern[str], key: Key) -> Key:
    return _without(suffix, key)._replace(folders=())


_BARE = partial(_without_words, MASK_SUFFIX)
CLOSE: tuple[Pairing, ...] = (_by_name, _by_folder_of_structure)
BY_WORDS: tuple[Pairing, ...] = (*CLOSE, partial(_alike, partial(_without_words, IMAGE_SUFFIX), _BARE))
RULES: tuple[Pairing, ...] = (
    *BY_WORDS,
    _by_common_word,
    partial(_alike, partial(_without_folders, IMAGE_SUFFIX), partial(_without_folders, MASK_SUFFIX)),
    partial(_alike, partial(_without, IMAGE_PREFIX), partial(_without, MASK_PREFIX)),
    partial(_alike, partial(_without, r"^[A-Za-z]+[_\- ]?(?=\d)"), _BARE),
    partial(_alike, partial(_without, r"^.*?(?=\d+$)"), _BARE),
)


def respelt(masks: Sequence[tuple[Key, Mask]], images: Iterable[Key]) -> list[tuple[Key, Mask]]:
    """Masks whose names differ from an image's in upper and lower case only, under the name as the image spells it.

    Where two images differ in nothing else, or two masks would then be called the same, names stay as they are.
    """
    stems = {stem for key in images for stem in (key.stem, CHANNEL.sub("", key.stem))}
    spelt: dict[str, set[str]] = defaultdict(set)
    for stem in stems:
        spelt[stem.casefold()].add(stem)
    keys = [key.called(_respelt(key.stem, stems, spelt)) for key, _ in masks]
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


def _twins(images: Mapping[Key, Images]) -> dict[Key, set[Key]]:
    """{the key that they share: those that `one_each` made of it} of images whose names differ in suffix only."""
    twins: dict[Key, set[Key]] = defaultdict(set)
    for key, own in images.items():
        member = next(iter(own.values()))
        if key.stem == member.path.name:
            twins[key.called(member.stem)].add(key)
    return twins


def by_channel(members: Iterable[tuple[Key, Member]]) -> dict[Key, Images]:
    """Files by case where all end in a channel number, in the order of the numbers; else empty."""
    cases: dict[Key, dict[str, Member]] = defaultdict(dict)
    for key, member in members:
        fit = CHANNEL.search(key.stem)
        if fit is None:
            return {}
        cases[key.called(key.stem[: fit.start()])][str(int(fit[1]))] = member
    return {key: {number: own[number] for number in sorted(own, key=int)} for key, own in cases.items()}


def are_channel_numbers(cases: Mapping[Key, Images], channels: int | None = None, absent: bool = False) -> bool:
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


def one_each(members: Iterable[tuple[Key, Member]]) -> dict[Key, Images]:
    """One image a case; two files that differ in suffix only are two cases."""
    keyed = list(members)
    times = Counter(key for key, _ in keyed)
    return {key if times[key] == 1 else key.called(member.path.name): {IMAGE: member} for key, member in keyed}


def says_image(name: str) -> bool:
    """Whether a name is a word for images or one of their modalities."""
    return bool(IMAGE_WORD.match(name)) or modality_word(name.lower()) != UNKNOWN_MODALITY


def parted_by_words(members: Sequence[Member]) -> dict[Member, tuple[str, str]]:
    """{file: its case, and what its name says}, as x_t1, x_flair and x_seg; empty where one name says neither."""
    for named in WORD_OF_CASE:
        fits = [named.match(member.stem) for member in members]
        parted = {member: (fit["case"], fit["word"]) for member, fit in zip(members, fits, strict=True) if fit}
        words = {word for _, word in parted.values()}
        if len(parted) == len(members) and all(says_image(word) or MASK_NAME.match(word) for word in words):
            return parted
    return {}


def is_called_mask(path: Path) -> bool:
    """Whether the name of a file, or of its folder, is that of masks."""
    folder = path.parent.name
    return bool(LABEL_NAME.search(folder) or MASK_NAME.match(folder) or MASK_NAME.match(stem_of(path.name)))


def reading_of(
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
    Raises DatasetError where some masks name a structure and others none, or several people drew several structures.
    """
    masks = [mask for case in cases for mask in case.masks]
    structures = structure_labels(_structures_of(cases, is_named=is_named), folder, options)
    if structures and any(mask.reader for mask in masks):
        names = listed(sorted({mask.structure for mask in masks} - {""}))
        problem = f"there are masks of several structures ({names}) and of several people"
        remedy = "Put those of one person into one label map with a number for each structure"
        raise DatasetError(problem, str(masks[0].member.path), remedy)
    partly = [case for case in cases if case.masks and not structures.keys() <= {mask.structure for mask in case.masks}]
    whole = [case for case in cases if case not in partly]
    labels = tuple(structures.values()) or (mask_labels(folder, options) if masks else ())
    classes, called = name_classes(_classes_of(whole), folder, options, declare=not masks)
    channels = sorted({channel for case in whole for channel in case.images})
    modality = options.modality or modality or common_modality(channels)
    rows = rows_of(whole, options, structures=structures, called=called, modality=modality)
    if channels == [IMAGE] and len(contrasts := described_channels(folder)) > 1 and _has_frames(rows):
        parted = [frame_cells(row.images[IMAGE].paths[0], contrasts, options.modality) for row in rows]
        rows = tuple(replace(row, images=own) for row, own in zip(rows, parted, strict=True))
        channels, modality = [*contrasts], options.modality or common_modality(contrasts)
    readers = sorted({mask.reader for mask in masks} - {""})
    lacking = without_structure([case.key.name for case in partly], structures)
    return Reading(
        rows,
        how=f"{how}, {counted(len(rows), 'case')}",
        classes={"mask": labels, "class": classes},
        modality=modality,
        readers=tuple(readers) if len(readers) > 1 else (),
        channels=tuple(channels) if channels != [IMAGE] else (),
        problems=(*problems, *lacking),
    )


def _has_frames(rows: Sequence[CaseRow]) -> bool:
    """Whether the first image has a fourth axis, as its header says; a damaged one is named when it is read."""
    try:
        return bool(rows) and read_image(rows[0].images[IMAGE].paths[0], ReadOptions()).frames is not None
    except IsocenterError:
        return False


def rows_of(
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
        images = {
            channel: Cell((member.path,), modality=modality_word(stated or channel))
            for channel, member in case.images.items()
        }
        references: dict[str, Any] = {**_mask_cells(case, structures)}
        if called and case.key.folders[0] in called:
            references["class"] = called[case.key.folders[0]]
        rows.append(CaseRow(case.key.name, images, references, split=case.key.split))
    return tuple(rows)


def _structures_of(cases: Sequence[NamedCase], *, is_named: bool) -> set[str]:
    """The structures that names of masks say; none where it is the same of all, and says nothing of one map."""
    own = [{mask.structure for mask in case.masks} for case in cases]
    several = set[str]().union(*own)
    is_several = len(several - {""}) > 1 or any(len(names) > 1 for names in own)
    return several if is_named or is_several else set()


def _mask_cells(case: NamedCase, structures: Mapping[str, Label]) -> Mapping[str, Cell]:
    """The masks of one image: of structures one map, of several people each their own."""
    by_name: dict[str, list[Path]] = {name: [] for name in (structures or sorted({one.reader for one in case.masks}))}
    for mask in case.masks:
        if (name := mask.structure if structures else mask.reader) in by_name:
            by_name[name].append(mask.member.path)
    return {"mask": structure_cell(by_name)} if structures and case.masks else mask_cells(by_name if case.masks else {})


def structure_labels(named: Iterable[str], folder: Folder, options: DatasetOptions) -> dict[str, Label]:
    """{structure that a mask's name says: its label}, or those that --labels names; empty where names say none.

    Raises DatasetError where some masks name a structure and others none ("").
    """
    names = sorted(set(named))
    if names in ([], [""]):
        return {}
    if "" in names:
        problem = f"some masks name a structure ({listed(names[1:])}), and others none"
        remedy = "Put them into one label map with a number for each structure, or take away what is not meant"
        raise DatasetError(problem, str(folder.root), remedy)
    if options.labels is None:
        return {name: Label(number, name) for number, name in enumerate(names, start=1)}
    asked = {label.name: label for label in mask_labels(folder, options)}
    if unknown := sorted(set(asked) - set(names)):
        problem = f"no mask is named {listed(unknown)}"
        raise UsageError(problem, f"--labels {options.labels}", f"Choose from {listed(names)}")
    return asked


def without_structure(cases: Sequence[str], structures: Collection[str]) -> tuple[Problem, ...]:
    """The problem that cases lack the mask of a structure; none where all have one of each."""
    what = f"{counted(len(cases), 'case lacks', 'cases lack')} masks of some of {listed(structures)}"
    return left_out(cases, what, "Add them, empty ones where a structure is not there, or name those to read")


def without_image(lost: Sequence[str]) -> tuple[Problem, ...]:
    """The problem that labels have no image; none where all have one."""
    what = f"{counted(len(lost), 'label has', 'labels have')} no image"
    return left_out(lost, what, "Add the images, or rename", "warning")


def class_names(keys: Iterable[Key], *, drawn: bool = False) -> set[str]:
    """The first folders, where they are classes: every case lies in one of several; none names a person, or a part.

    drawn: whether there are masks: numbered folders, or those of which most hold one case, may then be cases or people
    """
    keys = list(keys)
    firsts = [key.folders[0] if key.folders else "" for key in keys]
    counts = Counter(firsts)
    names = set(counts)
    # All of them may name masks: with_mask and without_mask are classes.
    holds_masks = len({bool(WORD_OF_MASKS.search(name)) for name in names}) > 1
    if "" in names or len(names) < 2 or len(firsts) == len(names) or holds_masks or are_parts(names):
        return set()
    if drawn and (are_numbered_people(names) or 2 * sum(count == 1 for count in counts.values()) > len(names)):
        return set()
    if drawn and (all(map(RANGE.match, names)) or hold_examinations([(*key.folders, key.stem) for key in keys])):
        return set()
    return set() if any(NO_CLASSES.search(name) or names_a_person(name) for name in names) else names


def _classes_of(cases: Sequence[NamedCase]) -> set[str]:
    """The first folders, where they are classes; not where the names of the files show that each holds one person.

    Raises DatasetError where they hold the same images in several formats.
    """
    names = class_names((case.key for case in cases), drawn=any(case.masks for case in cases))
    if not names:
        return names
    refuse_formats(names, next(iter(cases[0].images.values())).path.parent)
    people = patients_of([case.key.stem for case in cases])
    owners = {(case.key.folders[0], owner) for case, owner in zip(cases, people.names, strict=True)}
    return set() if people.known and len(owners) == len(names) == len(set(people.names)) else names


def refuse_formats(names: Collection[str], where: Path) -> None:
    """Raise DatasetError for folders that are called as formats: they are no classes, and may hold the same images."""
    if {name.lower() for name in names} <= FORMAT_FOLDERS:
        problem = f"the folders {listed(sorted(names))} hold images in several formats, and each may be there twice"
        raise DatasetError(problem, str(where), "Give one of these folders")
