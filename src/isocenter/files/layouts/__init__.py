"""Layouts of data sets: one file a layout, its line in `LAYOUTS` of index.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.files.layouts.boxes_of_image import holds_boxes, read_boxes
    from isocenter.files.layouts.cases import covariates_in, observed_values
    from isocenter.files.layouts.index import LAYOUTS, load_layout, read_dataset
    from isocenter.files.layouts.layout import CaseFiles, DatasetOptions, Layout, Reading

__all__ = [
    "LAYOUTS",
    "CaseFiles",
    "DatasetOptions",
    "Layout",
    "Reading",
    "covariates_in",
    "holds_boxes",
    "load_layout",
    "observed_values",
    "read_boxes",
    "read_dataset",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
