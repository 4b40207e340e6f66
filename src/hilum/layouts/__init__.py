"""From names in a folder to the cases of a data set: one file a layout, its line in `LAYOUTS` of `layout.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.layouts import boxes_of_image, cases, dataset_layouts, dataset_table, layout
    from hilum.layouts.cases.dataset_folder import OWN_TABLE
    from hilum.layouts.layout import PSEUDONYMS, DatasetOptions

lazy_index(__name__)
