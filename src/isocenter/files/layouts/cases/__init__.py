"""The cases of a data set from its files. Listed is what is imported at its first use: DICOM takes half a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.files.layouts.cases.dicom_cases import (
        load_reported,
        load_series,
        person_in,
        read_dicom,
        slices_of,
    )
    from isocenter.files.layouts.cases.dicom_masks import load_drawn

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
