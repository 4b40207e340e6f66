"""Series in tables of numbers, or in plain arrays."""

from __future__ import annotations

from collections.abc import Mapping

from isocenter.files import Format, numpy_file, series


def formats() -> Mapping[str, Format]:
    """By suffix; the first is the one that results are written in."""
    return {".csv": series.FORMAT, ".tsv": series.FORMAT, ".npy": numpy_file.FORMAT, ".npz": numpy_file.FORMAT}
