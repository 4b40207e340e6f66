"""Reading and writing: one file a format, one file a data set's layout; the only room that knows LPS.

The geometry contract: what comes in lies where the file places it, in RAS+ mm, or is refused; what goes out lies on the
source's own grid, or is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.files.dicom import SeriesNames, write_series
    from isocenter.files.format import Entry, Format, Part, Prefer, ReadKeywords, ReadOptions, refuse_no_orientation
    from isocenter.files.index import FORMATS, format_of, read, read_volumes, suffix_of, write
    from isocenter.files.label_table import find as find_labels
    from isocenter.files.label_table import read as read_labels
    from isocenter.files.label_table import table_path as label_table_path
    from isocenter.files.label_table import write as write_labels
    from isocenter.files.layouts import (
        LAYOUTS,
        PSEUDONYMS,
        CaseNames,
        DatasetOptions,
        covariates_in,
        drawn_on,
        holds_boxes,
        is_drawn,
        observed_values,
        read_boxes,
        read_dataset,
    )
    from isocenter.files.modality import UNKNOWN_MODALITY, modality_word
    from isocenter.files.result import probabilities_written, write_label_map, write_map, write_report
    from isocenter.files.storage import (
        DEEPEST,
        CsvWriter,
        Spool,
        cache_folder,
        cached,
        content_hash,
        dataset_hash,
        download,
        file_hash,
        load_json,
        locked,
        named_as,
        opened_zip,
        parse_json,
        patient_key_id,
        read_given_table,
        read_text_table,
        refuse_growth,
        stacked_spools,
        sweep,
        unmarked,
        unpack_tar,
        unwritable,
        write_table,
        write_text,
        written,
    )

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
