"""A folder for each class, with the images of that class in it; train/, val/, test/ above them where they are split.

All may lie in one folder `images/`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from hilum import errors
from hilum.errors import DatasetError
from hilum.files import modality_words, patient_names
from hilum.files.modality_words import UNKNOWN_MODALITY
from hilum.layouts import image_folders, layout
from hilum.layouts.cases import class_labels, dataset_folder, mask_pairs, table_reading, unnamed_masks
from hilum.layouts.cases.class_labels import StatedClass
from hilum.layouts.cases.dataset_folder import Folder, FolderMember
from hilum.layouts.cases.mask_pairs import IMAGE, NamedCase, PairKey
from hilum.layouts.cases.names import BY_HAND, IMAGES, LABEL_NAME, LABELS, SELDOM_CLASSES
from hilum.layouts.cases.table_reading import MOST_CLASSES, TABLE_SUFFIXES
from hilum.layouts.layout import DatasetOptions, Example, Layout, Problems, Reading
from hilum.values import Problem, grouping

# Names of the files of a case.
MOST_KINDS = 8
# Tables in folders inside the data set that are looked at.
MOST_TABLES = 8
# A number of more digits is a year, or a patient's.
MOST_DIGITS = 2


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """Several folders with images, called neither images/ and labels/ nor after persons, and without masks/ in them.

    Nor do the files of one look like masks of another's, or some of the files like masks of the others. They may lie in
    one folder images/, unless a table has labels.
    """
    members = _members_in_classes(folder.images)
    if folder.dicom and all(mask_pairs.is_called_mask(member.path) for member in members):
        return False  # masks of series
    if unnamed_masks.label_maps_beside_series(folder, options.read):
        return False
    if len({_is_in_masks(member) for member in members}) > 1:
        return False  # masks would be images of a class
    is_within = image_folders.within_images(folder.images) != folder.images
    if is_within and any(_states_some(one, members) for one in folder.tables):
        return False  # the folders below images/ part the files that the table names
    names = mask_pairs.class_folder_names(PairKey(member.folders, member.stem) for member in members)
    if any(_states_some(one, members) and not _has_cells(one, names) for one in _tables_below(folder)):
        return False  # the classes are those of the table
    if options.labels is None and (patient_names.are_named_people(names) or _are_kinds(members)):
        return False
    if not names or unnamed_masks.mask_folders(folder, options.read) is not None:
        return False
    return not (options.references and unnamed_masks.masks_among(members, options.read))


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """The first folder is the class."""
    members = _members_in_classes(folder.images) or _members_in_classes(folder.dicom)
    if options.references:
        _refuse_copies(folder, members)
        _refuse_maps(folder, options)
    by_folder = options.class_rule is None  # else --labels names what the rule finds
    mask_pairs.refuse_formats({member.folders[0] for member in members}, folder.root)
    one_name = _called_otherwise(members)
    members = [replace(m, folders=(one_name.get(m.folders[0], m.folders[0]), *m.folders[1:])) for m in members]
    members, strange = _without_strangers(members) if options.references else (members, ())
    stated = [StatedClass(member.folders[0], member.split) for member in members]
    unlabelled = class_labels.count_placeholders(stated, options)
    names = {member.folders[0] for member in members} - {*unlabelled}
    classes, called = class_labels.name_classes(names, folder, options, declare=by_folder)
    cases = [NamedCase(PairKey.of_file(member), {IMAGE: member}) for member in members]
    names_of_one = errors.list_phrase(f"{name} as {one}" for name, one in sorted(one_name.items()))
    what, why = f"the folders {names_of_one} are one class", "parts of the set call it differently"
    renamed = [Problem("warning", what, why=why, remedy="Rename the folders if they are two")] if one_name else []
    loose = len(folder.images) - len(_members_in_classes(folder.images))
    note = Problem("note", f"{loose} images lie in no class folder", why="they are not read")
    problems = (note,) if loose > 0 else ()
    return Reading(
        mask_pairs.rows_of_cases(cases, options, called=called),
        how=f"a folder for each class: {', '.join(label.name for label in classes)}",
        classes={"class": classes},
        problems=(
            *problems,
            *renamed,
            *strange,
            *_doubtful_folder_warning(sorted(called), options),
            *class_labels.placeholder_notes(unlabelled, "in this folder"),
            *_with_folders_inside(members),
        ),
    )


def _called_otherwise(members: Sequence[FolderMember]) -> dict[str, str]:
    """{folder: name of its class in another part}, where parts call a class differently.

    In one part adenocarcinoma, in another adenocarcinoma_left_T2; NORMAL and normal. The shorter name counts, if it
    begins one name alone of each other part, and no part has both.
    """
    parts = grouping.distinct_by_key((member.folders[0], member.split) for member in members)
    apart = ((name, other) for name in parts for other in parts if other != name and not parts[other] & parts[name])
    begun = grouping.by_key((name, other) for name, other in apart if _begins(other, name))
    short = {name: own[0] for name, own in begun.items() if len(own) == 1 and begun.get(own[0], []) in ([], [name])}
    # Of two spellings of one name each begins the other: the first in order counts.
    short = {name: one for name, one in short.items() if short.get(one) != name or one > name}
    in_part = Counter((one, part) for name, one in short.items() for part in parts[name])
    return short if max(in_part.values(), default=0) <= 1 else {}


def _without_strangers(members: Sequence[FolderMember]) -> tuple[list[FolderMember], Problems]:
    """The files without those in folders that the training part lacks, as test/test, and the problem that says so."""
    parts = grouping.distinct_by_key((member.folders[0], member.split) for member in members)
    is_parted = any("train" in own for own in parts.values())
    strangers = {name for name, own in parts.items() if is_parted and not own & {"train", None}}
    out = [member.name for member in members if member.folders[0] in strangers]
    what = "image lies", "images lie", f"in {errors.list_phrase(sorted(strangers))}, which no training image does"
    remedy = "Rename the folders as those of the training part, or take them away"
    return [one for one in members if one.folders[0] not in strangers], layout.left_out_problem(out, what, remedy)


def _begins(one: str, other: str) -> bool:
    """Whether the words of one name are the first of another's, in any case."""
    first, second = (re.sub(r"[\W_]+", " ", name).strip().casefold() for name in (one, other))
    return f"{second} ".startswith(f"{first} ")


def _is_in_masks(member: FolderMember) -> bool:
    """Whether a folder below that of the class is called as those of masks are."""
    return any(name.lower() in LABELS or LABEL_NAME.search(name) for name in member.folders[1:])


def _states_some(table: FolderMember, members: Sequence[FolderMember]) -> bool:
    """Whether a table states references of some of the images."""
    if not table_reading.states_references(table.path):
        return False
    cells = (str(cell) for row in table_reading.read_table(table.path).rows for cell in row.values())
    named = {dataset_folder.stem_of(PurePosixPath(cell).name) for cell in cells}
    return any(member.stem in named for member in members)


def _tables_below(folder: Folder) -> list[FolderMember]:
    """The first tables in folders inside it that are no images."""
    known = {*folder.tables, *folder.images}
    return [one for one in folder.members if one.suffix in TABLE_SUFFIXES and one not in known][:MOST_TABLES]


def _has_cells(table: FolderMember, names: Collection[str]) -> bool:
    """Whether each name is a cell of the table."""
    cells = {str(cell).casefold() for row in table_reading.read_table(table.path).rows for cell in row.values()}
    return {name.casefold() for name in names} <= cells


def _are_kinds(members: Sequence[FolderMember]) -> bool:
    """Whether the files have a few names that come again in other folders, one of an image: FLAIR, T1, lesions."""
    counts = Counter(member.stem for member in members)
    is_again = 1 < len(counts) <= MOST_KINDS and min(counts.values()) > 1
    return is_again and any(mask_pairs.is_image_word(name) and not name.isdecimal() for name in counts)


def _with_folders_inside(members: Sequence[FolderMember]) -> Problems:
    """The warning on several folders of words in each class, of the same names or not: they may be the classes."""
    inside = grouping.distinct_by_key((one.folders[0], "".join(one.folders[1:2])) for one in members)
    common = sorted(set.intersection(*inside.values()) - {*IMAGES, ""}) if inside else []
    own = sorted(set.union(*inside.values())) if min(map(len, inside.values()), default=0) > 1 else []
    names, where = (common, "in each class") if len(common) > 1 else (own, "inside the classes")
    if not 1 < len(names) <= MOST_CLASSES or "" in names or any(map(str.isdigit, "".join(names))):
        return ()
    what = f"the folders {errors.list_phrase(names)} {where} are not read"
    why, remedy = "the folders above them are the classes", "If they are the classes, name one of the folders above "
    remedy += "them, or give a table with the columns image and label"
    return (Problem("warning", what, (), why, remedy),)


def _doubtful_folder_warning(names: Sequence[str], options: DatasetOptions) -> Problems:
    """The warning on folders that may be patients, or kinds of image of the same cases; none where they were asked for.

    Numbers with a leading zero are codes, as in tables; so are more numbers than there are classes.
    """
    numbered = all(name.isdecimal() for name in names)
    long = numbered and any(len(name) > MOST_DIGITS or (name.startswith("0") and len(name) > 1) for name in names)
    coded = long or len(names) > MOST_CLASSES or patient_names.are_numbered_people(names)
    words = [word for name in names for word in re.split(r"[\W_]+", name.lower()) if word]
    contrasts = all(modality_words.modality_word(word) != UNKNOWN_MODALITY for word in words)
    contrasts = contrasts or all(map(SELDOM_CLASSES.fullmatch, names))
    is_asked = options.layout is not None or options.labels is not None or not options.references
    if is_asked or not (coded or contrasts):
        return ()
    kind = ("many" if len(names) > MOST_CLASSES else "numbers") + ", as of patients" if coded else "kinds of image"
    remedy = "If they hold images of the same cases, give a table with a column of each: --column image:T1=COLUMN"
    if coded:
        remedy = "If they are no classes, give a table with the columns image, label and patient"
    what = f"the folders {errors.list_phrase(names)} are read as classes, and their names are {kind}"
    why, remedy = "a network would learn to tell them apart", f"{remedy}; if they are classes, --layout class_folders"
    return (Problem("warning", what, (), why, f"{remedy} confirms it"),)


def _refuse_copies(folder: Folder, members: Sequence[FolderMember]) -> None:
    """Raise DatasetError where one folder holds the others once more, as some published archives do."""
    names = {member.folders[0] for member in members}
    for name in sorted(names):
        inside = {member.folders[1] for member in members if member.folders[0] == name and len(member.folders) > 1}
        if len(again := sorted(inside & names)) > 1:
            problem = f"the folder {name} holds {errors.list_phrase(again)} too, which are classes beside it"
            remedy = f"Move {name} away if it is a copy, or name it in place of this folder"
            raise DatasetError(problem, str(folder.root), remedy)


def _refuse_maps(folder: Folder, options: DatasetOptions) -> None:
    """Raise DatasetError where the pictures are label maps of series that lie beside them."""
    if maps := unnamed_masks.label_maps_beside_series(folder, options.read):
        example = maps[0].path.relative_to(folder.root).as_posix()
        problem = f"the pictures beside the DICOM series, such as {example}, look like label maps, and not like images"
        raise DatasetError(problem, str(folder.root), "Move them out of the data set, if the series are the images")


def _members_in_classes(members: tuple[FolderMember, ...]) -> list[FolderMember]:
    inside = [
        m for m in image_folders.within_images(members) if m.folders and m.folders[0].lower() not in IMAGES | LABELS
    ]
    has_image_folder = any(m.folders[:1] and m.folders[0].lower() in IMAGES for m in members)
    return [m for m in inside if not (has_image_folder and BY_HAND.search(m.folders[0]))]


EXAMPLE: Example = {
    f"{part}/{name}/{name}{n}.png": n
    for part in ("train", "test")
    for name in ("benign", "malignant")
    for n in range(2)
}
LAYOUT = Layout("class_folders", "a folder for each class", fits, read, frozenset({"plain_images"}), EXAMPLE)
