"""The one bound for what a small file may become in memory: it is checked before anything is decoded."""

from __future__ import annotations

from isocenter.errors import FormatError

# What any file may become without a second thought: a blank mammogram is 64 MB from a few hundred bytes.
FREE_BYTES = 1 << 30
# Beyond that. Deflate packs 1032 zeros into a byte; label maps of 64 bit floats come to 900 to 1.
LARGEST_RATIO = 1000


def most_unpacked(packed: int) -> int:
    """The most bytes that so many bytes of a file may become."""
    return max(FREE_BYTES, LARGEST_RATIO * packed)


def refuse_expansion(packed: int, decoded: int, where: str) -> None:
    """Raise FormatError where `packed` bytes of a file claim to be far too many `decoded` bytes of voxels."""
    if decoded > most_unpacked(packed):
        raise FormatError(
            f"claims {decoded} bytes of voxels in a file of {packed} bytes, which may be an attack",
            where,
            "If it is genuine, save it without compression",
        )
