"""One object in several files: the same bytes are read once, another content with the same UID is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isocenter.errors import FormatError, GeometryError
from isocenter.files.dicom.header import Header
from isocenter.files.dicom.identity import read_identity, same_object
from isocenter.files.dicom.tags import named, text


@dataclass
class Originals:
    """The objects of one series, each in the file in which it comes first.

    first:  {SOP Instance UID: that file}
    copies: {file: the first file of the same object}
    rivals: {file: the first file with its UID, which holds another object}
    """

    first: dict[str, Path] = field(default_factory=dict)
    copies: dict[Path, Path] = field(default_factory=dict)
    rivals: dict[Path, Path] = field(default_factory=dict)

    def add(self, head: Header) -> bool:
        """Take one more file; False where it is a copy."""
        uid = text(head.dataset, "SOPInstanceUID")
        first = self.first.setdefault(uid, head.path) if uid else head.path
        if first == head.path:
            return True
        is_copy = _holds_the_same(head.path, first)
        (self.copies if is_copy else self.rivals)[head.path] = first
        return not is_copy


def originals(heads: Sequence[Header], where: str) -> tuple[list[Header], tuple[str, ...]]:
    """(The headers without those of copies, a note of each copy).

    Raises GeometryError for two files with one UID and different contents: which of them is meant cannot be known.
    """
    seen = Originals()
    kept = [head for head in heads if seen.add(head)]
    for path, first in seen.rivals.items():
        raise GeometryError(
            f"{first.name} and {path.name} have one {named('SOPInstanceUID')} and different contents",
            where,
            "Keep the one that is meant, or give each a UID of its own",
        )
    return kept, tuple(f"{path.name} is a copy of {first.name}: it is read once" for path, first in seen.copies.items())


def _holds_the_same(path: Path, first: Path) -> bool:
    try:
        return same_object(path, read_identity(path), first, read_identity(first))
    except FormatError:  # without all its UIDs
        return False
