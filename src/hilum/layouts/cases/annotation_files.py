"""Annotation files as cases: what a labelling program states of images, in a file beside each or in a list of many.

A format is a parser, from a file to the annotations of its images; finding the images and making rows of them is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hilum import errors
from hilum.errors import DatasetError
from hilum.files import modality_words
from hilum.files.storage import structured_text
from hilum.layouts import layout
from hilum.layouts.cases import annotated_boxes, dataset_folder, mask_pairs
from hilum.layouts.cases.annotated_boxes import Annotation
from hilum.layouts.cases.annotated_outlines import BOXES, AnnotationReferences
from hilum.layouts.cases.dataset_folder import Folder, FolderMember
from hilum.layouts.cases.names import NEIGHBOURS
from hilum.layouts.layout import DatasetOptions, Problems, Reading, References
from hilum.values import CaseRow, Cell, Problem, Split, grouping

# Of many files, such as the sidecars of BIDS, only so many are opened to know them.
MOST_OPENED = 32
HEAD_BYTES = 1 << 20
MOST_NAMED = 12  # images in one message
# What a parser stumbles over: a key that lacks, a text in place of a number.
UNREADABLE = (ArithmeticError, AttributeError, KeyError, TypeError, ValueError)


@dataclass(frozen=True)
class AnnotationFormat:
    """The files of one labelling program.

    part:  the name of their layout, which is the word for a cell of one
    what:  the format in words
    usual: the kind of reference that outlines are where none is asked for
    flat:  kinds of shapes that cover nothing
    """

    part: str
    what: str
    usual: str = "mask"
    flat: frozenset[str] = frozenset()

    def references_of(self, annotation: Annotation | None, key: str = "") -> References:
        """The annotations of an image, before it is known as which kinds they are read; none where nobody looked.

        key: the image's name in a file of many
        """
        return {} if annotation is None else {BOXES: Cell((annotation.path,), self.part, key, known=annotation)}


@contextmanager
def refuse_unreadable(path: Path, problem: str, remedy: str) -> Iterator[None]:
    """Raise DatasetError for what a parser cannot read, with its cause; the problem has {} where that stands."""
    try:
        yield
    except UNREADABLE as error:
        before, _, after = problem.rpartition("{}")
        raise DatasetError(f"{before}{errors.describe_cause(error)}{after}", str(path), remedy) from error


def stated_size(columns: Any, rows: Any) -> tuple[int, int] | None:
    """(columns, rows) of an image as a file states them; None where it states nothing, or nought."""
    size = int(columns or 0), int(rows or 0)
    return size if all(size) else None


def file_begins_with(path: Path, *patterns: bytes) -> bool:
    """Whether each of these stands at the beginning of a file."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return all(pattern in head for pattern in patterns)


def json_record(path: Path, largest: int) -> Any:
    """The content of a JSON file. Raises DatasetError where it is damaged."""
    try:
        return structured_text.load_json(path, largest=largest)
    except (ValueError, OSError) as error:
        raise DatasetError(f"cannot be read ({error})", str(path), "Get the file again") from error


def files_beside_images(folder: Folder, suffix: str) -> list[FolderMember]:
    """The files of a suffix that bear the name of an image."""
    stems = {member.stem.casefold() for member in folder.images}
    return [one for one in folder.members if one.suffix == suffix and one.stem.casefold() in stems]


def files_of_many(folder: Folder, suffix: str, *marks: Sequence[bytes]) -> list[FolderMember]:
    """The first files of a suffix that bear the name of no image, so that they are no sidecar of one.

    marks: of which all of one stand at the beginning of each, where any are given
    """
    stems = {member.stem for member in folder.images}
    files = [one for one in folder.members if one.suffix == suffix and one.stem not in stems][:MOST_OPENED]
    return [one for one in files if not marks or any(file_begins_with(one.path, *own) for own in marks)]


@dataclass(frozen=True)
class Sidecar:
    """What the file of one image states.

    image:  the name of the image as stated, whose suffix chooses between two of one name
    kinds:  of the shapes in it
    unread: what else it states and is not read, in words
    """

    annotation: Annotation
    image: str = ""
    kinds: frozenset[str] = frozenset()
    unread: frozenset[str] = frozenset()


def _owners_by_stem(folder: Folder, files: Mapping[FolderMember, Sidecar]) -> tuple[dict[Path, Annotation], Problems]:
    """{image: its annotation} of files that bear the name of their image, and the problem of those without one.

    An image is looked for in the folder of its file, then in the neighbouring ones, at last anywhere.
    """
    images = annotated_boxes.images_by_file_name(folder)
    called = grouping.distinct_by_key((one.stem.casefold(), one.path.name) for one in folder.images)
    owners, lost, places = dict[Path, Annotation](), list[str](), {member.path.parent for member in files}
    for member, sidecar in files.items():
        place, suffix = member.path.parent, Path(sidecar.image).suffix
        near = [place, *(place.parent / name for name in NEIGHBOURS)]
        names, others = called.get(member.stem.casefold(), ()), places - {place}
        ranked = sorted((dataset_folder.stem_of(one) != member.stem, not one.endswith(suffix), one) for one in names)
        look = partial(annotated_boxes.image_named, near=near, where=member.path, split=member.split, others=others)
        image = next((one for one in (look(images, name) for *_, name in ranked) if one is not None), None)
        if image is None:
            lost.append(member.name)
        elif image.path in owners:
            raise DatasetError(f"{owners[image.path].path.name} is of the same image", str(member.path), "Keep one")
        else:
            owners[image.path] = sidecar.annotation
    return owners, mask_pairs.missing_image_problem(lost)


@dataclass(frozen=True)
class ListedImage:
    """One image as a file lists it.

    name:   of its file, which may begin with folders
    within: the name of the folder of its images, where the file names one
    source: what lists it, in words
    clip:   of which it is a frame; empty of a picture
    """

    name: str
    annotation: Annotation
    split: Split | None = None
    within: str = ""
    source: str = ""
    clip: str = ""

    @property
    def key(self) -> str:
        """The image's name in its file, with the folder that tells it from others of its name."""
        return f"{self.within}/{self.name}" if self.within else self.name


@dataclass(frozen=True)
class AnnotatedFolder:
    """The images of a folder with their annotations, as cases."""

    folder: Folder
    options: DatasetOptions
    form: AnnotationFormat

    def read_rows(
        self,
        rows: Sequence[CaseRow],
        *,
        seen: str,
        annotations: Sequence[Annotation] = (),
        names: Mapping[str, str] | None = None,
        patients: str = "",
        problems: Sequence[Problem] = (),
    ) -> Reading:
        """Cases whose annotations are read as the kinds that are asked for.

        seen:        what is annotated, in words
        annotations: of images that are not here, whose classes count too
        names:       {name in a file: name of its class}, where the data set states them
        Raises UsageError where --labels names what nobody annotated, and DatasetError where no annotation can be read.
        """
        annotated = [(row.name, cell.known) for row in rows for cell in row.references.values()]
        every = [*annotations, *(annotation for _, annotation in annotated)]
        _refuse_all_unreadable(every)
        made = AnnotationReferences.for_options(every, self.form.usual, self.folder, self.options, names, rows=rows)
        return Reading(
            tuple(made.with_kinds(rows)),
            how=f"{self.form.what}: {made.count_in_words(every)} on {seen}",
            classes=made.classes,
            annotation_names=made.names,
            modality=modality_words.modality_word(self.options.modality),
            patients=patients,
            problems=(*problems, *_unread_problem(annotated), *made.notes(every)),
        )

    def read_sidecars(self, files: Mapping[FolderMember, Sidecar], parts: Mapping[str, Split] | None = None) -> Reading:
        """A case for each image in the folders of those that a file is about; the others of these are not labelled.

        parts: {name of an image without suffix: its part}, where the data set lists them
        Raises DatasetError for two files of one image.
        """
        owners, lost = _owners_by_stem(self.folder, files)
        pointed = [member.name for member, one in files.items() if one.kinds & self.form.flat]
        what = "file has", "files have", "points or lines, which cover nothing"
        problems = [*lost, *layout.left_out_problem(pointed, what, "Outline them", "warning")]
        for unread in sorted(frozenset().union(*(one.unread for one in files.values()))):
            stating = tuple(member.name for member, one in files.items() if unread in one.unread)
            counted = errors.count_phrase(len(stating), "file states", "files state")
            problems.append(Problem("note", f"{counted} {unread}, which is not read", stating))
        images, known = self.folder.images, parts or {}
        named = {one.path: (one.name, known.get(one.stem, one.split)) for one in images}
        return self.read_owned(owners, named, problems=problems)

    def read_owned(
        self,
        owners: Mapping[Path, Annotation],
        images: Mapping[Path, tuple[str, Split | None]],
        names: Mapping[str, str] | None = None,
        problems: Sequence[Problem] = (),
    ) -> Reading:
        """A case for each image in the folders of annotated ones; images: {image: name and part of its case}."""
        places, modality = {path.parent for path in owners}, modality_words.modality_word(self.options.modality)
        rows = list[CaseRow]()
        for path, (name, split) in images.items():
            if not places or path.parent in places:
                image = {"image": Cell((path,), modality=modality)}
                rows.append(CaseRow(name, image, self.form.references_of(owners.get(path)), split=split))
        return self.read_rows(rows, seen=errors.count_phrase(len(owners), "image"), names=names, problems=problems)

    def read_listed(
        self,
        entries: Sequence[ListedImage],
        problems: Sequence[Problem] = (),
        words: Callable[[Path], Sequence[str]] = lambda path: (),
    ) -> Reading:
        """A case for each image that is listed; an image without a box is known to hold nothing.

        words: of folders that may hold the images of a file, the best first
        Raises DatasetError where no image is listed, and for one that is listed twice.
        """
        if not entries:
            problem = f"no file of {self.form.what} lists an image"
            raise DatasetError(problem, str(self.folder.root), "Name another --layout")
        found = _listed_members(entries, self.folder, words)
        missing = [entry for entry, image in found if image is None]
        there = [(entry, image) for entry, image in found if image is not None]
        owners = grouping.by_key((image.path, entry) for entry, image in there)
        modality, rows = modality_words.modality_word(self.options.modality), list[CaseRow]()
        for entry, image in there:
            cell = Cell((image.path,), "clip" if entry.clip else "", modality=modality)
            row = CaseRow(image.name, {"image": cell}, self.form.references_of(entry.annotation, entry.key))
            rows.append(replace(row, split=entry.split or image.split, patient=entry.clip or None))
        _refuse_twice([own for own in owners.values() if len(own) > 1])
        files = ", ".join(dict.fromkeys(entry.annotation.path.name for entry in entries))
        absent = "listed image is", "listed images are", "not there"
        names, remedy = [entry.name for entry in missing], "Correct the names, or get the files"
        lost = layout.left_out_problem(names, absent, remedy)
        places = {image.path.parent for _, image in there}
        others = [one.name for one in self.folder.images if one.path.parent in places and one.path not in owners]
        unlisted = "image beside them is", "images beside them are", f"not listed ({files})"
        lost = (*lost, *layout.left_out_problem(others, unlisted, "List them, or take them away", "warning"))
        return self.read_rows(
            rows,
            seen=f"{errors.count_phrase(len(rows), 'image')}, listed in {files}",
            annotations=[entry.annotation for entry in missing],
            patients="clips, each of which counts as a patient",
            problems=(*problems, *lost),
        )


def _listed_members(
    entries: Sequence[ListedImage], folder: Folder, words: Callable[[Path], Sequence[str]]
) -> list[tuple[ListedImage, FolderMember | None]]:
    """Each entry with its image; None where it is not there."""
    images, own = annotated_boxes.images_by_file_name(folder), {entry.annotation.path.parent for entry in entries}
    found = []
    for entry in entries:
        path = entry.annotation.path
        near = [path.parent, folder.root, path.parent / "images", folder.root / "images"]
        near += [base / word for base in (near[0], near[1], near[3]) for word in words(path)]
        near = [*(place / entry.within for place in near if entry.within), *near]
        look = partial(annotated_boxes.image_named, split=entry.split, others=own - {path.parent}, within=entry.within)
        found.append((entry, look(images, entry.name, near, path)))
    return found


def _refuse_all_unreadable(annotations: Sequence[Annotation]) -> None:
    """Raise DatasetError where no annotation can be read: not one is odd, but the file is of another kind."""
    faults = [(one, unread) for one in annotations for unread in one.unread]
    if faults and not any(one.boxes for one in annotations):
        problem = f"no annotation can be read: {faults[0][1].words}"
        raise DatasetError(problem, str(faults[0][0].path), "Export it anew")


def _refuse_twice(twice: Sequence[Sequence[ListedImage]]) -> None:
    """Raise DatasetError for images that several lists, or tasks of one, describe."""
    if twice:
        each = [entry for entries in twice for entry in entries]
        by = errors.list_phrase(dict.fromkeys(entry.source or entry.annotation.path.name for entry in each))
        names = errors.list_phrase([entries[0].name for entries in twice], MOST_NAMED)
        images = errors.count_phrase(len(twice), "image is", "images are")
        problem = f"{images} listed more than once ({names}), by {by}"
        remedy = "Keep one list of each image and move the others away; give images of one name a folder each"
        raise DatasetError(problem, str(each[-1].annotation.path), remedy)


def _unread_problem(annotated: Sequence[tuple[str, Annotation]]) -> Problems:
    """The warning on objects that cannot be read, by the cases of their images.

    annotated: (case, what its file states)
    """
    unread = [(case, annotation.path.name, one) for case, annotation in annotated for one in annotation.unread]
    files = list(dict.fromkeys(file for _, file, _ in unread))
    in_words = [one.words if len(files) == 1 else f"{file}, {one.words}" for _, file, one in unread]
    counted = errors.count_phrase(len(unread), "annotation")
    what = f"{counted} of {errors.list_phrase(files, 3)} cannot be read ({errors.list_phrase(in_words)})"
    anywhere = sum(not one.low for _, _, one in unread)
    where = "what lies in their boxes is unknown"
    if anywhere:
        where += f", and where no box is stated ({errors.count_phrase(anywhere, 'annotation')}) the rest of the image"
    cases = dict.fromkeys(case for case, _, _ in unread)
    return layout.left_out_problem(cases, what, f"Correct them: until then {where}", "warning")
