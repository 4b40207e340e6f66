"""Reading and writing: one file a format, one file a data set's layout; the only room that knows LPS.

The geometry contract: what comes in lies where the file says, in RAS+ mm, or is refused; what goes out lies on the
source's own grid, or is refused.
"""

import importlib
from typing import TYPE_CHECKING, Any

from isocenter.files.format import Entry, Format, Part, ReadOptions
from isocenter.files.index import FORMATS, format_of, read, read_volumes, suffix_of, write
from isocenter.files.label_table import find as find_labels
from isocenter.files.label_table import read as read_labels
from isocenter.files.label_table import table_path as label_table_path
from isocenter.files.label_table import write as write_labels
from isocenter.files.layouts import LAYOUTS, DatasetOptions, observed_values, read_dataset
from isocenter.files.modality import modality_word
from isocenter.files.result import probabilities_written, write_boxes, write_label_map
from isocenter.files.storage.atomic import sweep, unwritable, write_text, written
from isocenter.files.storage.cache import cache_folder
from isocenter.files.storage.download import download, unpack_tar
from isocenter.files.storage.hashing import content_hash, dataset_hash, file_hash
from isocenter.files.storage.spool import Spool

if TYPE_CHECKING:
    from isocenter.files.dicom.writing.series import SeriesNames, write_series
    from isocenter.files.layouts.cases.boxes_of_image import holds_boxes, read_boxes
    from isocenter.files.layouts.cases.join import covariates_in

__all__ = [
    "FORMATS",
    "LAYOUTS",
    "DatasetOptions",
    "Entry",
    "Format",
    "Part",
    "ReadOptions",
    "SeriesNames",
    "Spool",
    "cache_folder",
    "content_hash",
    "covariates_in",
    "dataset_hash",
    "download",
    "file_hash",
    "find_labels",
    "format_of",
    "holds_boxes",
    "label_table_path",
    "modality_word",
    "observed_values",
    "probabilities_written",
    "read",
    "read_boxes",
    "read_dataset",
    "read_labels",
    "read_volumes",
    "suffix_of",
    "sweep",
    "unpack_tar",
    "unwritable",
    "write",
    "write_boxes",
    "write_label_map",
    "write_labels",
    "write_series",
    "write_text",
    "written",
]


# pydicom and pandas take a second to import, and few need these.
_HOMES = {
    "SeriesNames": "dicom.writing.series",
    "covariates_in": "layouts.cases.join",
    "holds_boxes": "layouts.cases.boxes_of_image",
    "read_boxes": "layouts.cases.boxes_of_image",
    "write_series": "dicom.writing.series",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"isocenter.files.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
