"""Reading and writing: one file a format, one file a data set's layout; the only room that knows LPS.

The geometry contract: what comes in lies where the file says, in RAS+ mm, or is refused; what goes out lies on the
source's own grid, or is refused.
"""

from isocenter.files.atomic import unwritable, write_text, written
from isocenter.files.format import Entry, Format, Part, ReadOptions
from isocenter.files.hashing import content_hash, dataset_hash, file_hash
from isocenter.files.index import FORMATS, format_of, read, read_volumes, suffix_of, write
from isocenter.files.label_table import find as find_labels
from isocenter.files.label_table import read as read_labels
from isocenter.files.label_table import table_path as label_table_path
from isocenter.files.label_table import write as write_labels
from isocenter.files.layouts import LAYOUTS, DatasetOptions, observed_values, read_dataset
from isocenter.files.result import write_label_map

__all__ = [
    "FORMATS",
    "LAYOUTS",
    "DatasetOptions",
    "Entry",
    "Format",
    "Part",
    "ReadOptions",
    "content_hash",
    "dataset_hash",
    "file_hash",
    "find_labels",
    "format_of",
    "label_table_path",
    "observed_values",
    "read",
    "read_dataset",
    "read_labels",
    "read_volumes",
    "suffix_of",
    "unwritable",
    "write",
    "write_labels",
    "write_text",
    "written",
]
