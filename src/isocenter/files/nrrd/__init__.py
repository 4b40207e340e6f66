"""NRRD, and Slicer's segmentations in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.files.nrrd.read import FORMAT

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
