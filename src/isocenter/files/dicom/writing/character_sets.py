"""The character sets of a result: those of its source, or UTF-8 where a name needs more."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydicom.dataset import Dataset

from isocenter.files.dicom.header import read_header
from isocenter.files.dicom.tags import words

# PS3.3 C.12.1.1.2
UTF_8 = "ISO_IR 192"


def state_character_sets(made: Dataset, source: Path, names: Iterable[str]) -> None:
    """Give a result the character sets of its source, in which a PACS knows the patient's name.

    names: that the result adds; where one has letters beyond ASCII, all of its text is in UTF-8
    highdicom must not see them: it refuses some that the standard allows, such as those of Japan and Korea.
    """
    own = words(read_header(source).dataset, "SpecificCharacterSet")
    if not all(name.isascii() for name in names):
        made.SpecificCharacterSet = UTF_8
    elif any(own):
        made.SpecificCharacterSet = own[0] if len(own) == 1 else list(own)
