"""The files below a folder, listed once and by name only."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from pathlib import Path, PurePosixPath
from typing import Any

from hilum import errors
from hilum.errors import DatasetError
from hilum.files import file_formats, series
from hilum.files.file_formats import FORMATS
from hilum.files.storage import folder_files, structured_text
from hilum.layouts.cases import names, table_reading
from hilum.layouts.cases.table_reading import TABLE_SUFFIXES, TEXT_SUFFIX, LongTable
from hilum.values import Split, grouping

# An object of a file that other programs write, JSON, YAML or TOML: {key: value}, of which nothing is sure.
Record = Mapping[str, Any]
# One image a file, known by its name. Archives and clips hold many things; DICOM has a layout of its own.
NO_SINGLE_IMAGE = frozenset({"dicom", "video"})
NO_IMAGE_SUFFIXES = frozenset({".npz", ".img", ".rec"})  # .img and .rec are the second half of a pair
DICOM_SUFFIXES = frozenset(FORMATS["dicom"].suffixes)
VIDEO_SUFFIXES = frozenset(FORMATS["video"].suffixes)
# How Python holds a byte of a name that is not in UTF-8, PEP 383.
SURROGATE = re.compile("[\ud800-\udfff]")
SERIES_SUFFIXES = frozenset(FORMATS["series"].suffixes)
# The table of what each case knows: it is no table of cases.
KNOWN_TABLE = "known.csv"
# The table of the classes of single objects, and the folder of maps of them beside one of labels.
OBJECT_TABLE, CLASS_FOLDER = "objects.csv", "classes"
# The rows that this program writes; beside it lies a file that ends in .toml.
OWN_TABLE = "dataset.csv"
# How files end in which whole folders are packed; they are not unpacked unasked.
PACKED = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")


@dataclass(frozen=True)
class FolderMember:
    """One file of the folder.

    folders: on the way to it, without the one that names a split
    split:   that the folders name
    stem:    its name without suffix, its letters composed whichever way the file system writes them
    """

    path: Path
    folders: tuple[str, ...]
    split: Split | None
    stem: str
    suffix: str

    @property
    def name(self) -> str:
        """Folders and stem, as problems name the case; its id has "-" for "/"."""
        return "/".join((*self.folders, self.stem))


class Folder:
    """The files below a folder, or one file; hidden ones left out.

    known: what a layout has found out to know whether it fits, for its reading
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.known: dict[type, Any] = {}

    @property
    def is_file(self) -> bool:
        """Whether it is one file and no folder."""
        return self.root.is_file()

    @cached_property
    def members(self) -> tuple[FolderMember, ...]:
        """All files, in the order of their paths. Raises DatasetError where no text can hold one."""
        base = self.root.parent if self.is_file else self.root
        # A table in memory lies in no folder.
        found = [self.root] if self.is_file else list(folder_files.files_below(self.root)) if self.root.exists() else []
        _refuse_unwritable(found, self.root)
        relative = [PurePosixPath(path.relative_to(base).as_posix()) for path in found]
        parting = _split_level(relative)
        return tuple(_member(base, path, parting) for path in relative)

    @property
    def inner(self) -> Path | None:
        """The one folder in it that holds all of its images and tables, as of an unpacked archive; None without one."""
        held = (*self.images, *self.dicom, *[m for m in self.members if m.suffix in TABLE_SUFFIXES])
        tops = {m.path.relative_to(self.root).parts[0] for m in held} if not self.is_file else set()
        only = self.root / tops.pop() if len(tops) == 1 else self.root
        return only if only != self.root and only.is_dir() else None

    @cached_property
    def images(self) -> tuple[FolderMember, ...]:
        """Files that each hold one image, DICOM excepted; not the maps of classes."""
        return tuple(m for m in self._image_files if m not in self.class_maps)

    @cached_property
    def class_maps(self) -> tuple[FolderMember, ...]:
        """Maps of the classes of single objects: images in a folder `classes/` beside one of labels."""
        files = self._image_files
        labelled = {m.folders[:n] for m in files for n, name in enumerate(m.folders) if name.lower() in names.LABELS}
        above = ((m, m.folders[:n]) for m in files for n, name in enumerate(m.folders) if name.lower() == CLASS_FOLDER)
        return tuple(dict.fromkeys(m for m, folders in above if folders in labelled))

    @cached_property
    def _image_files(self) -> tuple[FolderMember, ...]:
        holding = _image_suffixes(NO_SINGLE_IMAGE) - TABLE_SUFFIXES
        return tuple(m for m in self.members if m.suffix in holding or m in self._series)

    @cached_property
    def _series(self) -> frozenset[FolderMember]:
        """Tables of which each is one series, as their first rows show."""
        tables = (m for m in self.members if m.suffix in SERIES_SUFFIXES and m.path != self.root / KNOWN_TABLE)
        return frozenset(m for m in tables if series.is_series(m.path))

    @cached_property
    def dicom(self) -> tuple[FolderMember, ...]:
        """Files with the suffix of DICOM, or with its first bytes and a suffix that is no other format's."""
        known, every = _image_suffixes(), self.members
        named = (m.suffix in DICOM_SUFFIXES or (m.suffix not in known and _begins_as_dicom(m.path)) for m in every)
        return tuple(compress(every, named))

    @cached_property
    def clips(self) -> tuple[FolderMember, ...]:
        """Clips, each of which is an image with frames, where no file holds a single one."""
        return () if self.images or self.dicom else tuple(m for m in self.members if m.suffix in VIDEO_SUFFIXES)

    @cached_property
    def tables(self) -> tuple[FolderMember, ...]:
        """Tables that lie in the folder itself, or the only one below it, and have a row of each."""
        return tuple(m for m in self._named_tables if m not in self.long_tables)

    @cached_property
    def text_tables(self) -> tuple[FolderMember, ...]:
        """Text files in the folder itself whose lines name an image each and say more of it; not those of one image."""
        of_image = {image.stem for image in self.images}
        texts = (m for m in self.members if m.suffix == TEXT_SUFFIX and m.stem not in of_image)
        here = (m for m in texts if self.is_file or m.path.parent == self.root)
        return tuple(m for m in here if table_reading.is_text_table(m.path))

    @cached_property
    def long_tables(self) -> Mapping[FolderMember, LongTable]:
        """Tables that have several rows of one patient, in a folder with images or another table."""
        if len(self._named_tables) < 2 and not (self.images or self.dicom):
            return {}
        tables = {member: LongTable.from_file(member.path) for member in self._named_tables}
        return {member: long for member, long in tables.items() if long is not None}

    @cached_property
    def _named_tables(self) -> tuple[FolderMember, ...]:
        named = [m for m in self.members if m.suffix in TABLE_SUFFIXES and m not in self._series]
        # The table that this program has made of a data set says nothing more beside the images.
        own = [m.path for m in named if m.path.name == OWN_TABLE and m.path.with_suffix(".toml").is_file()]
        apart = {*own, *(self.root / name for name in (KNOWN_TABLE, OBJECT_TABLE))}
        named = [m for m in named if self.is_file or m.path not in apart]
        here = tuple(m for m in named if m.path.parent == self.root)
        return here or (tuple(named) if len(named) == 1 and not self.is_file else ())

    @cached_property
    def description(self) -> Record | None:
        """The contents of `dataset.json` in the folder itself; None without one.

        Raises DatasetError where it is damaged.
        """
        path = self.root / "dataset.json"
        if self.is_file or not path.is_file():
            return None
        try:
            described = structured_text.load_json(path)
        except (ValueError, OSError) as error:
            raise DatasetError(f"cannot be read ({error})", str(path), "Correct or remove it") from error
        return described if isinstance(described, dict) else None


def _image_suffixes(without: Collection[str] = ()) -> set[str]:
    """The suffixes of all formats but these that are no second half of a pair."""
    entries = [entry for name, entry in file_formats.format_entries().items() if name not in without]
    return {suffix for entry in entries for suffix in entry.suffixes} - NO_IMAGE_SUFFIXES


def _refuse_unwritable(paths: Iterable[Path], root: Path) -> None:
    """Raise DatasetError for names that are not in UTF-8, as old systems wrote them: no table can hold them."""
    if odd := [path for path in paths if SURROGATE.search(str(path))]:
        count = errors.count_phrase(len(odd), "file has a name or folder", "files have a name or folder")
        problem = f"{count} that is not in UTF-8, such as {odd[0]}"
        raise DatasetError(problem, str(root), "Rename it: no table and no report can hold such a name")


def stem_of(name: str) -> str:
    """A file's name without the suffix of its format."""
    suffix = file_formats.suffix_of(Path(name))
    return name[: len(name) - len(suffix)]


def are_parts(folders: Iterable[str]) -> bool:
    """Whether folders are the parts of one set: training_set and b. Evaluation Set."""
    parts = [_part(names.EVALUATION.sub("val", name)) for name in folders]
    return len({part[1] for part in parts if part is not None}) == 1 and None not in parts


@dataclass(frozen=True)
class _Parting:
    """The level at which folders are called train, val or test.

    rest:  what else is in their names
    kinds: {folder: its part, and the kind of files that it holds of it}, as train_labels beside train
    """

    level: int
    rest: str
    kinds: Mapping[str, tuple[Split, str]]

    def part_of(self, folder: str) -> tuple[Split, tuple[str, ...]] | None:
        """The part of a folder, and the folder that stands for it among its layout's; None where it is of none."""
        if (own := self.kinds.get(folder)) is not None:
            return own[0], (own[1],)
        part = _part(folder)
        return (part[0], ()) if part is not None and part[1] == self.rest else None


def _split_level(paths: list[PurePosixPath]) -> _Parting | None:
    """The highest level at which folders are called train, val or test, or train_images and train_labels.

    "train" must be among several.
    """
    for level in range(max((len(path.parts) for path in paths), default=1) - 1):
        below = (path for path in paths if len(path.parts) > level + 1)
        stems = grouping.distinct_by_key((path.parts[level], stem_of(path.name)) for path in below)
        splits = grouping.distinct_by_key(part[::-1] for part in map(_part, stems) if part is not None)
        parted = sorted(rest for rest, own in splits.items() if _is_split(own))
        if parted and (parted[0] == "" or len(parted) == 1):
            return _Parting(level, parted[0], {} if parted[0] else _kinds_of_parts(stems))
        if not parted and (kinds := _kinds_of_parts(stems)):
            return _Parting(level, "", kinds)
    return None


def _is_split(parts: Collection[Split]) -> bool:
    return "train" in parts and len(parts) > 1


def _kinds_of_parts(stems: Mapping[str, set[str]]) -> dict[str, tuple[Split, str]]:
    """{folder: its part and kind} of folders called after a part and what they hold of it; stems: of their files.

    Labels beside images; beside folders of the parts alone also what has the names of most of their files.
    """
    plain, kinds = defaultdict[Split, set[str]](set), dict[str, tuple[Split, str]]()
    for name, own in stems.items():
        if (part := _part(name)) is not None and part[1] == "":
            plain[part[0]] |= own
        elif (kind := _kind_of_part(name)) is not None:
            kinds[name] = kind
    if _is_split(plain):
        return {
            name: (part, kind)
            for name, (part, kind) in kinds.items()
            if kind in names.LABELS or 2 * len(stems[name] & plain[part]) > len(stems[name])
        }
    known = {name: own for name, own in kinds.items() if own[1] in names.IMAGES | names.LABELS}
    each = [{part for part, kind in known.values() if kind in words} for words in (names.IMAGES, names.LABELS)]
    return known if all(map(_is_split, each)) else {}


def _kind_of_part(name: str) -> tuple[Split, str] | None:
    """The part and the kind of files of a folder: train and labels of train_labels, trainLabels or labels-train."""
    fit = names.KIND_OF_PART.match(name)
    if fit is None:
        return None
    part, kind = (fit["part"], fit["kind"]) if fit["part"] else (fit["last"], fit["before"])
    return names.PART_WORDS[part.lower()], re.sub(r"[\W_]+", "_", kind.lower())


def _part(name: str) -> tuple[Split, str] | None:
    """The part of a set that a folder's name states, and its other words; None where it states none."""
    words = [_without_ending(word) for word in re.findall(r"[a-z]+", name.lower())]
    parts = [word for word in words if word in names.PART_WORDS]
    rest = " ".join(word for word in words if word not in (*parts, *names.OF_A_PART) and len(word) > 1)
    return None if len(parts) != 1 or names.OF_ONE_KIND.search(rest) else (names.PART_WORDS[parts[0]], rest)


def _without_ending(word: str) -> str:
    bare = (word.removesuffix(ending) for ending in names.OF_A_PART)
    return next((one for one in bare if one in names.PART_WORDS), word)


def _member(base: Path, path: PurePosixPath, parting: _Parting | None) -> FolderMember:
    folders, split = [table_reading.compose_letters(part) for part in path.parts[:-1]], None
    is_below = parting is not None and len(folders) > parting.level
    if parting is not None and is_below and (part := parting.part_of(folders[parting.level])) is not None:
        split, folders[parting.level : parting.level + 1] = part
    stem, suffix = table_reading.compose_letters(stem_of(path.name)), file_formats.suffix_of(Path(path.name))
    return FolderMember(base / path, tuple(folders), split, stem, suffix)


def _begins_as_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except FileNotFoundError:  # a link that leads nowhere
        return False
