"""The files that a series may consist of: the DICOM of a folder, and what a DICOMDIR lists. PS3.10 7.1, PS3.3 F.3

A file that is lost is named: a volume that is one slice shorter looks like a whole one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from isocenter import errors
from isocenter.errors import FormatError, counted
from isocenter.files.dicom.header import Header, looks_like_dicom
from isocenter.files.dicom.tags import items, named, text, words
from isocenter.files.storage import files_below, is_inside

OWN_SUFFIXES = (".dcm", ".dicom", ".ima")
# A number in a file name, which may be hexadecimal: what differs from slice to slice.
NUMBER_IN_NAME = re.compile(r"[0-9A-F]*[0-9][0-9A-F]*")


def dicom_files(folder: Path) -> Iterator[Path]:
    """Every file under a folder that starts as DICOM does, or should by its name; hidden ones are passed over.

    By its name should a file with one of DICOM's own suffixes, and one that is called as the DICOM next to it but for
    a number, as IM0004 next to IM0003: it is empty or damaged. A README next to them is neither.
    """
    for _, paths in groupby(files_below(folder), key=lambda path: path.parent):
        names, others = set[str](), list[Path]()
        for path in paths:
            if path.suffix.lower() in OWN_SUFFIXES or _starts_as_dicom(path):
                names.add(_without_numbers(path.name))
                yield path
            else:
                others.append(path)
        yield from (path for path in others if _without_numbers(path.name) in names)


def listed(dicomdir: Header) -> list[Path]:
    """The files that a DICOMDIR lists and that are there; also in lower case, in which Linux shows those of a CD.

    Raises FormatError where a path leads out of the DICOMDIR's folder, where a listed image is missing, or all is.
    """
    root = dicomdir.path.parent.resolve()
    paths, lost = list[Path](), list[str]()
    for record in items(dicomdir.dataset, "DirectoryRecordSequence"):
        parts = words(record, "ReferencedFileID")
        if not parts:
            continue
        exact, lower = (root.joinpath(*some).resolve() for some in (parts, [part.lower() for part in parts]))
        if not is_inside(exact, root) or not is_inside(lower, root):
            raise FormatError(
                f"{named('ReferencedFileID')} leads out of its folder: {'/'.join(parts)}",
                dicomdir.where,
                "Read the folder instead of the DICOMDIR",
            )
        path = exact if exact.is_file() else lower
        if path.is_file():
            paths.append(path)
        elif text(record, "DirectoryRecordType") == "IMAGE":
            lost.append("/".join(parts))
    if not paths:
        raise FormatError("none of the files that it lists exists", dicomdir.where, "Copy the whole medium")
    if lost:
        what = counted(len(lost), "image that it lists is", "images that it lists are")
        raise FormatError(
            f"{what} missing: {errors.listed(lost)}",
            dicomdir.where,
            "Copy the whole medium, or give the folder of a series that is whole",
        )
    return list(dict.fromkeys(paths))


def _starts_as_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except FileNotFoundError:  # a link that leads nowhere
        return False
    return start[128:132] == b"DICM" or (_may_lack_a_preamble(path) and looks_like_dicom(start))


def _may_lack_a_preamble(path: Path) -> bool:
    """A name without suffix, a UID, or DICOM's own: in others two bytes prove too little."""
    suffix = path.suffix.lower()
    return suffix in ("", *OWN_SUFFIXES) or suffix[1:].isdigit()


def _without_numbers(name: str) -> str:
    return NUMBER_IN_NAME.sub("#", name.upper())
