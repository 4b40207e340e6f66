"""The table of labels that FreeSurfer keeps behind the voxels of an MGH file, and other entries there.

utils/mri.cpp, utils/tags.cpp and utils/colortab.cpp of https://github.com/freesurfer/freesurfer
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from hilum.errors import FormatError
from hilum.files import label_table
from hilum.values import Label

# Numbers of entries; of the first two kinds no length is stated, of the third one in 4 bytes, of others in 8.
COLOUR_TABLE, WITHOUT_LENGTH, SHORT_LENGTH = 1, (2, 20), 30
FOOTER = 20  # bytes: repetition time, flip angle, echo time, inversion time and field of view
BY_VALUE = -2  # version of a table whose entries state their values; a positive one is the number of entries
LONGEST = 1 << 22


@dataclass
class _Footer:
    """The bytes behind the voxels, and how many of them are read."""

    content: bytes
    at: int = FOOTER

    def integer(self) -> int:
        """The next whole number of 4 bytes."""
        (number,) = struct.unpack_from(">i", self.content, self.at)
        self.at += 4
        return int(number)

    def text(self) -> str:
        """The next text, behind its length."""
        length = self.integer()
        if not 0 <= length <= len(self.content) - self.at:
            raise ValueError(f"a text of {length} bytes")
        text = self.content[self.at : self.at + length]
        self.at += length
        return text.split(b"\0")[0].decode("utf-8", "replace")


def read_labels(content: bytes, where: str) -> tuple[Label, ...]:
    """The labels of the table; none where there is none. content: the bytes behind the voxels

    Raises FormatError for a table that is damaged.
    """
    footer = _Footer(content)
    try:
        while footer.at + 4 <= len(content):
            kind = footer.integer()
            if kind == COLOUR_TABLE:
                return label_table.check_labels((one for one in _entries(footer) if one.value), where)
            if kind == SHORT_LENGTH:
                footer.at += footer.integer()
            elif kind not in WITHOUT_LENGTH:
                (length,) = struct.unpack_from(">q", content, footer.at)
                footer.at += 8 + max(length, 0)
    except (struct.error, ValueError) as error:
        raise FormatError(f"its table of labels is damaged ({error})", where, "Get the file again") from error
    return ()


def _entries(footer: _Footer) -> Iterator[Label]:
    version = footer.integer()
    count = footer.integer() if version == BY_VALUE else version
    footer.text()  # the name of the file that it was made from
    count = footer.integer() if version == BY_VALUE else count
    if not 0 <= count <= LONGEST:
        raise ValueError(f"{count} entries")
    for number in range(count):
        value = footer.integer() if version == BY_VALUE else number
        name = label_table.clean_name(footer.text())
        red, green, blue, _ = (footer.integer() for _ in range(4))
        yield Label(value, name or str(value), (red, green, blue))
