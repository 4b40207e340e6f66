"""Which files of a folder are DICOM, and which a DICOMDIR lists."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from isocenter.errors import FormatError
from isocenter.files.dicom.header import Header, header, looks_like_dicom
from isocenter.files.dicom.tags import items, named, words


def headers(folder: Path) -> Iterator[Header | FormatError]:
    """Every DICOM file under a folder, in the order of their paths; what is damaged comes as its error."""
    for path in dicom_files(folder):
        try:
            yield header(path)
        except FormatError as error:
            yield error


def dicom_files(folder: Path) -> Iterator[Path]:
    """Every file under a folder that begins as DICOM does; hidden ones and links to folders are passed over."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith(".") or not path.is_file():  # a pipe would never end
                continue
            with path.open("rb") as file:
                start = file.read(132)
            if start[128:132] == b"DICM" or (_may_lack_a_preamble(path) and looks_like_dicom(start)):
                yield path


def listed(dicomdir: Header) -> list[Path]:
    """The files that a DICOMDIR lists and that are there. PS3.3 F.3

    Raises FormatError where a path leads out of the DICOMDIR's folder, or no listed file is there.
    """
    root = dicomdir.path.parent.resolve()
    found = []
    for record in items(dicomdir.dataset, "DirectoryRecordSequence"):
        parts = words(record, "ReferencedFileID")
        if not parts:
            continue
        path = root.joinpath(*parts).resolve()
        if not path.is_relative_to(root):
            raise FormatError(
                f"{named('ReferencedFileID')} leads out of its folder: {'/'.join(parts)}",
                dicomdir.where,
                "Read the folder instead of the DICOMDIR",
            )
        if path.is_file():
            found.append(path)
    if not found:
        raise FormatError("none of the files it lists is there", dicomdir.where, "Copy the whole medium")
    return list(dict.fromkeys(found))


def _may_lack_a_preamble(path: Path) -> bool:
    """A name without suffix, a UID, or DICOM's own: in others two bytes are too little to tell."""
    suffix = path.suffix.lower()
    return suffix in ("", ".dcm", ".dicom", ".ima") or suffix[1:].isdigit()
