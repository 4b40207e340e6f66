"""Files that each list many images with what is drawn on them: the images that they name become cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from isocenter.errors import DatasetError, counted
from isocenter.files.layouts.cases.boxes import Annotation, by_file_name, image_named
from isocenter.files.layouts.cases.folder import Folder, Member
from isocenter.files.layouts.cases.load import load_image
from isocenter.files.layouts.cases.outlines import DrawnReferences
from isocenter.files.layouts.layout import CaseFiles, DatasetOptions, Reading, left_out
from isocenter.files.modality import modality_word
from isocenter.values import Split

# Of many files, such as the sidecars of BIDS, only so many are opened to know them.
MOST_OPENED = 32


@dataclass(frozen=True)
class Listed:
    """One image as a file lists it.

    name: of its file, which may begin with folders
    """

    name: str
    annotation: Annotation
    split: Split | None = None


def files_of_many(folder: Folder, suffix: str) -> list[Member]:
    """The first files of a suffix that bear the name of no image, so that they are no sidecar of one."""
    stems = {member.stem for member in folder.images}
    return [one for one in folder.members if one.suffix == suffix and one.stem not in stems][:MOST_OPENED]


def read_listed(
    listed: Sequence[Listed],
    folder: Folder,
    options: DatasetOptions,
    *,
    what: str,
    usual: str,
    words: Callable[[Path], Sequence[str]] = lambda path: (),
) -> Reading:
    """A case for each image that is listed; an image without a box is known to hold nothing.

    what:  the format
    usual: the kind of reference where none is asked for
    words: of folders that may hold the images of a file, the best first
    Raises DatasetError for an image that is listed twice.
    """
    annotations = [entry.annotation for entry in listed]
    made = DrawnReferences.of(annotations, usual, folder, options)
    images, modality = by_file_name(folder), modality_word(options.modality)
    own = {annotation.path.parent for annotation in annotations}
    cases: dict[Path, CaseFiles] = {}
    missing = []
    for entry in listed:
        path = entry.annotation.path
        near = [path.parent, folder.root, path.parent / "images", folder.root / "images"]
        near += [base / word for base in (near[0], near[1], near[3]) for word in words(path)]
        image = image_named(images, entry.name, near, path, split=entry.split, others=own - {path.parent})
        if image is None:
            missing.append(entry.name)
            continue
        if image.path in cases:
            raise DatasetError(f"lists {entry.name}, which is listed already", str(path), "Keep one")
        loader = partial(load_image, image.path, options.read, modality)
        cases[image.path] = CaseFiles(
            image.name,
            {"image": loader},
            made.readers(entry.annotation, loader),
            files=(image.path,),
            key=entry.annotation.digest,
            split=entry.split or image.split,
        )
    files = ", ".join(dict.fromkeys(annotation.path.name for annotation in annotations))
    absent = f"{counted(len(missing), 'listed image is', 'listed images are')} not there"
    return Reading(
        tuple(cases.values()),
        how=f"{what}: {made.counted(annotations)} on {counted(len(cases), 'image')}, listed in {files}",
        classes=made.classes,
        modality=modality,
        problems=(*left_out(missing, absent, "Correct the names, or get the files"), *made.notes(annotations)),
    )
