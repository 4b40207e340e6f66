"""The cases of a data set from its files: pairs, classes, boxes, tables, DICOM references."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.files.layouts.cases.assembly import assemble
    from isocenter.files.layouts.cases.boxes import (
        Annotation,
        Drawn,
        NamedImages,
        Outline,
        Ring,
        by_file_name,
        ellipse,
        image_named,
        load_boxes,
        names_in,
        turned,
    )
    from isocenter.files.layouts.cases.classes import (
        Stated,
        declared_background,
        described_channels,
        mask_labels,
        name_classes,
        numbered_names,
        observed_values,
        placeholder_notes,
        placeholders,
    )
    from isocenter.files.layouts.cases.dicom_cases import person_in, read_dicom
    from isocenter.files.layouts.cases.dicom_masks import drawn_on, is_drawn
    from isocenter.files.layouts.cases.findings_in_rows import with_findings
    from isocenter.files.layouts.cases.folder import PACKED, SPLIT_WORDS, Folder, Member, stem_of
    from isocenter.files.layouts.cases.frames import by_frame
    from isocenter.files.layouts.cases.join import (
        covariates_in,
        fold_notes,
        part_named,
        part_of_row,
        split_column,
        split_of,
    )
    from isocenter.files.layouts.cases.listed import Listed, files_of_many, read_listed
    from isocenter.files.layouts.cases.load import (
        given,
        label_maps,
        load_frame,
        load_image,
        load_instances,
        load_mask,
        masks_by_reader,
    )
    from isocenter.files.layouts.cases.numbered import Numbered
    from isocenter.files.layouts.cases.orientation import on_upright_pixels
    from isocenter.files.layouts.cases.outlines import DrawnReferences
    from isocenter.files.layouts.cases.pairs import (
        FORMAT_ENDING,
        IMAGE_SUFFIX,
        LABEL_NAME,
        MASK_NAME,
        MASK_WORDS,
        PREFIX,
        READER,
        READER_FOLDER,
        Key,
        Pair,
        are_apart,
        are_channel_numbers,
        by_channel,
        by_reader,
        class_names,
        class_names_of_pairs,
        is_called_mask,
        number_of,
        one_each,
        owner_of,
        owners_of,
        pair,
        parted_by_words,
        readers,
        refuse_formats,
        respelt,
        says_image,
        with_owner,
        without_image,
    )
    from isocenter.files.layouts.cases.segments import SLICER
    from isocenter.files.layouts.cases.structures import (
        LAST_WORD,
        by_folder_of_masks,
        by_structure,
        structure_labels,
        structure_map,
        without_structure,
    )
    from isocenter.files.layouts.cases.table import (
        IMAGE_COLUMNS,
        LOOKED_AT,
        MOST_CLASSES,
        PATIENT_COLUMNS,
        REFERENCE_COLUMNS,
        SPLIT_COLUMNS,
        SPREADSHEETS,
        TABLE_SUFFIXES,
        Table,
        as_whole,
        can_be_named,
        columns_of_classes,
        columns_of_files,
        composed,
        covariates_of,
        header_notes,
        is_labelled,
        kinds_stated,
        label_remedy,
        names_nobody,
        number,
        read_table,
        states_references,
        with_column_of_classes,
    )
    from isocenter.files.layouts.cases.unnamed_masks import (
        LOOSE,
        drawn_folders,
        drawn_kinds,
        folder_at,
        folder_words,
        label_maps_among,
        masks_among,
        pictures_of_slices,
    )

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
