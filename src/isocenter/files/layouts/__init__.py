"""Layouts of data sets: one file a layout, its line in `LAYOUTS` of index.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.files.layouts.boxes_of_image import holds_boxes, read_boxes
    from isocenter.files.layouts.cases import covariates_in, drawn_on, is_drawn, observed_values
    from isocenter.files.layouts.index import LAYOUTS, load_layout, read_dataset
    from isocenter.files.layouts.layout import PSEUDONYMS, CaseFiles, CaseNames, DatasetOptions, Layout, Reading

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
