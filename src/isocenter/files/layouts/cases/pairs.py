"""Pairs of images and masks, by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from isocenter.errors import DatasetError, counted, listed
from isocenter.files.layouts.cases.folder import Member, are_parts, stem_of
from isocenter.files.layouts.cases.names import (
    CHANNEL,
    FORMAT_FOLDERS,
    IMAGE_PREFIX,
    IMAGE_SUFFIX,
    IMAGE_WORD,
    LABEL_NAME,
    MASK_NAME,
    MASK_PREFIX,
    MASK_SUFFIX,
    PART_IMAGES,
    PART_OF_DOMAIN,
    PARTED,
    PREFIX,
    RANGE,
    READER_FOLDER,
    READER_SUFFIX,
    SPLIT_WORDS,
    WORD_OF_CASE,
    WORD_OF_MASKS,
)
from isocenter.files.layouts.layout import left_out
from isocenter.files.modality import UNKNOWN_MODALITY, modality_word
from isocenter.files.patients import are_numbered_people, hold_examinations, names_a_person, patients_of
from isocenter.values import Cell, Problem, Split

Mask = TypeVar("Mask")  # the file of a mask, or what else is known of it


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


@dataclass(frozen=True)
class Pair:
    """One case: its image files in channel order, and all masks drawn on it."""

    key: Key
    images: tuple[Member, ...]
    masks: tuple[Member, ...] = ()

    @property
    def name(self) -> str:
        """The case's name."""
        return self.key.name


def pair(
    images: Mapping[Key, Sequence[Member]], masks: Sequence[tuple[Key, Member]]
) -> tuple[list[Pair], tuple[Problem, ...]]:
    """Images with their masks by `owners_of`; images that differ in suffix alone, with one mask, are left out."""
    owners = owners_of([key for key, _ in masks], images)
    drawn: dict[Key, list[Member]] = {}
    lost: list[str] = []
    twins = _twins(images)
    claimed: set[Key] = set()
    for (key, member), owner in zip(masks, owners, strict=True):
        if owner is not None:
            drawn.setdefault(owner, []).append(member)
        elif (twin := owner_of(key, twins)) is not None:
            claimed |= twins[twin]
        else:
            lost.append(key.name)
    pairs = [
        Pair(key, tuple(members), tuple(drawn.get(key, ()))) for key, members in images.items() if key not in claimed
    ]
    what = f"{len(claimed)} images have the name of another and a different suffix, and labels that may be of either"
    remedy = "Remove one of each"
    return pairs, (*without_image(lost), *left_out((key.name for key in images if key in claimed), what, remedy))


def owners_of(masks: Sequence[Key], images: Mapping[Key, object]) -> list[Key | None]:
    """The image of each mask; None for one without.

    A mask has the image's name, or that and a mask's suffix (_mask, _mask_1, _seg). Where no name fits so, the word
    before the number may differ (img0001, label0001), or the folders around it, or the word stand first (x, mask_x); at
    last any word may stand before the number of an image (PANCREAS_0001, label0001; bus_0001-l, mask_0001-l).
    """
    owners = [owner_of(key, images) for key in masks]
    for of_image, of_mask in RULES:
        owners = owners if any(owners) else _owners(masks, images, of_image, of_mask)
    return owners


def respelt(masks: Sequence[tuple[Key, Mask]], images: Iterable[Key]) -> list[tuple[Key, Mask]]:
    """Masks whose names differ from an image's in upper and lower case only, under the name as the image spells it.

    Where two images differ in nothing else, or two masks would then be called the same, names stay as they are.
    """
    stems = {stem for key in images for stem in (key.stem, CHANNEL.sub("", key.stem))}
    spelt: dict[str, set[str]] = {}
    for stem in stems:
        spelt.setdefault(stem.casefold(), set()).add(stem)
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


def _without_words(suffix: re.Pattern[str], key: Key) -> Key:
    return key.called(PREFIX.sub("", suffix.sub("", key.stem)))


def _without_folders(suffix: re.Pattern[str], key: Key) -> Key:
    return Key((), suffix.sub("", key.stem), key.split)


def _without(word: re.Pattern[str], key: Key) -> Key:
    return key.called(word.sub("", key.stem))


def _wordless(key: Key) -> Key:
    """The key without the word before the first number of its name, as bus of bus_0001-l."""
    return key.called(re.sub(r"^[A-Za-z]+[_\- ]?(?=\d)", "", key.stem))


def _numbered(key: Key) -> Key:
    """The key with nothing but the number at the end of its name, if there is one."""
    return key.called(re.sub(r"^.*?(?=\d+$)", "", key.stem))


_BY_WORD = (partial(_without_words, IMAGE_SUFFIX), partial(_without_words, MASK_SUFFIX))
_BY_STEM = (partial(_without_folders, IMAGE_SUFFIX), partial(_without_folders, MASK_SUFFIX))
_BY_PREFIX = (partial(_without, IMAGE_PREFIX), partial(_without, MASK_PREFIX))
_BY_NUMBER = ((_wordless, _BY_WORD[1]), (_numbered, _BY_WORD[1]))
RULES = (_BY_WORD, _BY_STEM, _BY_PREFIX, *_BY_NUMBER)


def _owners(
    masks: Sequence[Key],
    images: Mapping[Key, object],
    of_image: Callable[[Key], Key],
    of_mask: Callable[[Key], Key],
) -> list[Key | None]:
    """The image of each mask, by keys of which each image has one of its own; none where two have the same."""
    known = {of_image(key): key for key in images}
    return [known.get(of_mask(key)) if len(known) == len(images) else None for key in masks]


def _twins(images: Mapping[Key, Sequence[Member]]) -> dict[Key, set[Key]]:
    """{the key that they share: those that `one_each` made of it} of images whose names differ in suffix only."""
    twins: dict[Key, set[Key]] = {}
    for key, members in images.items():
        if key.stem == members[0].path.name:
            twins.setdefault(key.called(members[0].stem), set()).add(key)
    return twins


def by_reader(
    masks: Iterable[tuple[Key, Member]], images: Mapping[Key, object]
) -> tuple[list[tuple[Key, Member]], dict[Member, str]]:
    """Masks under the keys of their images, and {mask: its reader}, by a folder or the end of a name.

    Only where nothing but the reader's name stands between a mask and its image.
    """
    keyed, readers = [], dict[Member, str]()
    for key, member in masks:
        read = None if owner_of(key, images) else next((one for one in _read_by(key) if owner_of(one[0], images)), None)
        keyed.append((read[0] if read else key, member))
        readers |= {member: read[1]} if read else {}
    return keyed, readers


def _read_by(key: Key) -> Iterator[tuple[Key, str]]:
    """The key without a reader's name, and the name; a folder's before a file's where both bear one."""
    for place, folder in enumerate(key.folders):
        if READER_FOLDER.match(folder):
            rest = key._replace(folders=key.folders[:place] + key.folders[place + 1 :])
            yield rest, folder
            yield from ((bare, folder) for bare, _ in _read_by(rest))
    if fit := READER_SUFFIX.search(key.stem):
        yield key.called(key.stem[: fit.start()]), fit[1]


def by_channel(members: Iterable[tuple[Key, Member]]) -> dict[Key, list[Member]]:
    """Files by case where all end in a channel number, in the order of the numbers; else empty."""
    cases: dict[Key, dict[str, Member]] = {}
    for key, member in members:
        fit = CHANNEL.search(key.stem)
        if fit is None:
            return {}
        cases.setdefault(key.called(key.stem[: fit.start()]), {})[fit.group(1)] = member
    return {key: [files[number] for number in sorted(files)] for key, files in cases.items()}


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


def are_channel_numbers(
    cases: Mapping[Key, Sequence[Member]], channels: int | None = None, absent: bool = False
) -> bool:
    """Whether numbers at the end of names, which nothing declares, are channels and not numbers of cases.

    Every case has 0000, 0001, ... up to the same number, and there are several cases or one channel; or up to the
    number of `channels` where that is known. Where some may be `absent` the numbers are below theirs.
    """
    widths = {len(members) for members in cases.values()}
    from_zero = all(m.stem.endswith(f"_{n:04d}") for members in cases.values() for n, m in enumerate(members))
    if channels is not None:
        below = channels > 1 and all(number_of(m) < channels for members in cases.values() for m in members)
        return (absent and below) or (widths == {channels} and from_zero)
    return len(widths) == 1 and from_zero and (len(cases) > 1 or widths == {1})


def one_each(members: Iterable[tuple[Key, Member]]) -> dict[Key, list[Member]]:
    """One image a case; two files that differ in suffix only are two cases."""
    listed = list(members)
    times = Counter(key for key, _ in listed)
    return {key if times[key] == 1 else key.called(member.path.name): [member] for key, member in listed}


def number_of(member: Member) -> int:
    """The channel of a file whose name ends in its number."""
    fit = CHANNEL.search(member.stem)
    assert fit is not None  # noqa: S101 - `by_channel` has checked it
    return int(fit[1])


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
    if "" in names or len(names) < 2 or len(firsts) == len(names) or holds_masks:
        return set()
    if are_parts(names):
        return set()
    if drawn and (are_numbered_people(names) or 2 * sum(count == 1 for count in counts.values()) > len(names)):
        return set()
    if drawn and (all(map(RANGE.match, names)) or hold_examinations([(*key.folders, key.stem) for key in keys])):
        return set()
    no_class = (names_a_person, PARTED.search, PART_IMAGES.match, PART_OF_DOMAIN.search)
    return set() if any(says(name) for name in names for says in no_class) else names


def class_names_of_pairs(pairs: Sequence[Pair]) -> set[str]:
    """The first folders, where they are classes; not where the names of the files show that each holds one person.

    Raises DatasetError where they hold the same images in several formats.
    """
    names = class_names((one.key for one in pairs), drawn=any(one.masks for one in pairs))
    if names:
        refuse_formats(names, pairs[0].images[0].path.parent)
    people = patients_of([one.key.stem for one in pairs])
    owners = {(one.key.folders[0], owner) for one, owner in zip(pairs, people.names, strict=True)} if names else set()
    of_persons = people.known and len(owners) == len(names) == len(set(people.names))
    return set() if of_persons else names


def refuse_formats(names: Collection[str], where: Path) -> None:
    """Raise DatasetError for folders that are called as formats: they are no classes, and may hold the same images."""
    if {name.lower() for name in names} <= FORMAT_FOLDERS:
        problem = f"the folders {listed(sorted(names))} hold images in several formats, and each may be there twice"
        raise DatasetError(problem, str(where), "Give one of these folders")


def image_cells(members: Sequence[Member], names: Sequence[str], modalities: Sequence[str | None]) -> dict[str, Cell]:
    """{channel: its cell}, in order."""
    each = zip(names, members, modalities, strict=True)
    return {name: Cell((member.path,), modality=modality) for name, member, modality in each}


def owner_of(key: Key, images: Mapping[Key, object]) -> Key | None:
    """The image of a mask: of its name, of that without a mask's suffix, or of that and the word of its part."""
    bare = key.called(MASK_SUFFIX.sub("", key.stem))
    parted = (key.called(f"{bare.stem}_{word}") for word, part in SPLIT_WORDS.items() if part == key.split)
    return next((one for one in (key, bare, *parted) if one in images), None)


def with_owner(masks: Sequence[tuple[Key, Member]], images: Mapping[Key, Member]) -> set[Member]:
    """The masks that have an image by any rule of names, also where images end in a channel's number."""
    keys = [key for key, _ in masks]
    owners = owners_of(keys, images)
    owners = owners if any(owners) else owners_of(keys, by_channel(images.items()))
    return {mask for (_, mask), owner in zip(masks, owners, strict=True) if owner is not None}


def are_apart(drawn: Collection[set[Member]], count: int) -> bool:
    """Whether most of so many masks have their image in one of several folders, each folder of other masks."""
    whole = set[Member]().union(*drawn)
    return len(drawn) > 1 and sum(map(len, drawn)) == len(whole) and 2 * len(whole) > count


def is_called_mask(path: Path) -> bool:
    """Whether the name of a file, or of its folder, is that of masks."""
    folder = path.parent.name
    return bool(LABEL_NAME.search(folder) or MASK_NAME.match(folder) or MASK_NAME.match(stem_of(path.name)))
