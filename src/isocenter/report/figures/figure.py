"""Pictures as values, with their text."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, eq=False)
class Figure:
    """A picture that explains itself.

    title, caption: what it shows, and how to read it
    alt:            the text for readers who cannot see it
    png:            the picture, small enough to stand in a page
    dark:           the same in the inks of a dark page; None where one picture serves both
    wide:           wants the whole width of a page
    density:        pixels of the picture for one of a plain screen
    href:           the address that it opens, relative to the page
    """

    title: str
    png: bytes
    alt: str
    caption: str = ""
    dark: bytes | None = None
    wide: bool = False
    density: float = 1.0
    href: str = ""
    template: ClassVar[str] = "figure"

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        width, height = struct.unpack(">II", self.png[16:24])  # the first chunk, PNG specification 11.2.2
        return width, height

    def _repr_png_(self) -> bytes:
        return self.png
