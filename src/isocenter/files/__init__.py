"""Reading and writing: one file a format, one file a data set's layout; the only room that knows LPS.

The geometry contract: what comes in lies where the file places it, in RAS+ mm, or is refused; what goes out lies on the
source's own grid, or is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.files.code_file import read_codes
    from isocenter.files.dicom import (
        SUV_BW,
        SeriesNames,
        lean_body_share,
        stated_patient,
        taken_on,
        write_series,
    )
    from isocenter.files.format import CaseNames, Entry, FileChoices, Format, Part, Prefer, ReadOptions
    from isocenter.files.index import FORMATS, format_of, read, read_image, read_volumes, suffix_of, write
    from isocenter.files.label_table import find as find_labels
    from isocenter.files.label_table import read as read_labels
    from isocenter.files.label_table import table_path as label_table_path
    from isocenter.files.label_table import write as write_labels
    from isocenter.files.layouts.boxes_of_image import holds_boxes, read_boxes
    from isocenter.files.layouts.cases.classes import observed_values
    from isocenter.files.layouts.cases.dicom_masks import drawn_on, is_drawn
    from isocenter.files.layouts.cases.folder import OWN_TABLE
    from isocenter.files.layouts.cases.join import covariates_in
    from isocenter.files.layouts.cases.unnamed_masks import is_exchanged
    from isocenter.files.layouts.dataset_table import write_dataset_table
    from isocenter.files.layouts.index import read_dataset, read_frame
    from isocenter.files.layouts.layout import LAYOUTS, PSEUDONYMS, DatasetOptions
    from isocenter.files.modality import UNKNOWN_MODALITY, modality_word
    from isocenter.files.result import TakenProbabilities, write_label_map, write_map
    from isocenter.files.storage.atomic import named_as, sweep, unwritable, write_text, written
    from isocenter.files.storage.cache import cache_folder, cached
    from isocenter.files.storage.csv_text import (
        CsvWriter,
        read_given_table,
        read_text_table,
        text_column,
        unmarked,
        write_table,
    )
    from isocenter.files.storage.hashing import (
        content_hash,
        dataset_hash,
        file_hash,
        is_nobody,
        known_hash,
        patient_key_id,
        pseudonym_of_number,
        take_hash,
    )
    from isocenter.files.storage.kept import FOLDER as EXAMINED
    from isocenter.files.storage.kept import (
        Caching,
        FileIdentity,
        caching_as,
        current_caching,
        keep_text,
        kept_text,
        write_pending,
    )
    from isocenter.files.storage.lock import locked
    from isocenter.files.storage.packed import opened_zip, refuse_growth
    from isocenter.files.storage.spool import Spool, stacked_spools
    from isocenter.files.storage.structured_text import DEEPEST, line_of_key, load_json, parse_json
    from isocenter.files.storage.web import download, unpack_tar
    from isocenter.files.surface import write_surfaces
    from isocenter.files.transform_file import read_transform, transforms_to_images, write_transform

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
