"""Files on disk: written whole or not at all, cached, downloaded, hashed, spooled, read in blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.files.storage.atomic import named_as, sweep, unwritable, write_text, written
    from isocenter.files.storage.block import Block, is_number
    from isocenter.files.storage.cache import cache_folder, cached
    from isocenter.files.storage.csv_text import (
        CsvWriter,
        read_given_table,
        read_text_table,
        separator_of,
        unmarked,
        write_table,
    )
    from isocenter.files.storage.expansion import most_unpacked, refuse_expansion
    from isocenter.files.storage.hashing import content_hash, dataset_hash, file_hash
    from isocenter.files.storage.json_text import DEEPEST, load_json, parse_json
    from isocenter.files.storage.lock import locked
    from isocenter.files.storage.packed import (
        GZIP_MAGIC,
        Compression,
        compression_of,
        inflating,
        is_compressed,
        read_head,
    )
    from isocenter.files.storage.patient_key import (
        is_nobody,
        is_pseudonym,
        patient_key_id,
        pseudonym,
        pseudonym_of_number,
    )
    from isocenter.files.storage.scale_factors import largest_stored, refuse_scale
    from isocenter.files.storage.sidecar import each_once, inside_folder, is_inside, is_named_inside, not_elsewhere
    from isocenter.files.storage.spool import Spool, stacked_spools
    from isocenter.files.storage.walk import files_below
    from isocenter.files.storage.web import download, unpack_tar
    from isocenter.files.storage.zip_archive import opened_zip, refuse_growth

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
