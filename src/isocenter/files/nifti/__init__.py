"""NIfTI-1, NIfTI-2 and Analyze 7.5."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.files.nifti.read import FORMAT

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
