"""The values that all rooms share: immutable, typed, small. No input or output, no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.values.boxes import BoundingBoxes, columns_of, table_columns
    from isocenter.values.case import (
        SPLITS,
        Case,
        CaseRow,
        Cell,
        Dataset,
        DatasetTable,
        Frame,
        LazyMapping,
        Problem,
        Split,
        people_of,
    )
    from isocenter.values.cells import (
        AS_MISSING,
        ColumnTimes,
        ColumnValues,
        TextColumn,
        is_absent,
        is_numeric,
        may_be_code,
        missing_codes,
        moment_in,
        numbers_in,
        one_spelling,
        plain_numbers,
        shares_in,
        times_in,
        truth_in,
        truths_in,
    )
    from isocenter.values.covariates import (
        AGE,
        BLANKS,
        DAYS,
        UNLABELLED,
        Course,
        course_in,
        courses,
        is_missing,
        level_in,
        number_in,
        time_column,
    )
    from isocenter.values.estimate import Draws, Estimate, Recipe, Row
    from isocenter.values.finding import MOST_FRAMES, CodedName, Finding, Findings, Measurements
    from isocenter.values.fingerprint import CaseFacts, Fingerprint, Shortcut, sizes_in_words
    from isocenter.values.geometry import (
        DIRECTION_TOLERANCE,
        GRID_TOLERANCE,
        HEADER_ROUNDING,
        MM,
        MM3_PER_ML,
        SERIES_UNITS,
        Floats,
        Geometry,
        counted_in,
        is_orientation,
    )
    from isocenter.values.grading import grades, rising
    from isocenter.values.image import (
        OF_CHANNELS,
        STATED_SIDES,
        WITHOUT_VOXELS,
        Array,
        Code,
        Deferred,
        DrawnMap,
        Image,
        Label,
        Reader,
        Source,
        blocks,
        hidden,
        names_of_channels,
        one_channel,
        parts_of,
        reader_of,
        unambiguous_name,
    )
    from isocenter.values.outcome import (
        ABSTAINED,
        ANSWERED,
        FAILED,
        REFUSALS,
        REFUSED,
        CaseOutcome,
        OutcomeName,
        error_outcome,
        outcome_sentence,
    )
    from isocenter.values.plan import (
        BY_HAND,
        PLAN_VERSION,
        Decision,
        Plan,
        Sentence,
        counting_cases,
        stands_for,
        with_pixels,
    )
    from isocenter.values.prediction import (
        KNOWN,
        Boxes,
        Confidence,
        Dense,
        Head,
        Instances,
        Map,
        Merge,
        Prediction,
        Region,
        Several,
        Slabs,
        Target,
        Vector,
    )
    from isocenter.values.reference_kind import (
        CaseReference,
        Cohort,
        ReferenceChecks,
        ReferenceFacts,
        ReferenceKind,
        ReferenceMeasures,
        ReferenceStrata,
        ReferenceWords,
    )
    from isocenter.values.setting_fields import (
        COMPARED,
        NOT_KEPT,
        Setting,
        compared_by,
        plain_settings,
        plain_value,
        redeclared,
        setting,
        settings_group,
        settings_in,
        values_of,
    )
    from isocenter.values.slabs import (
        Extent,
        is_tabled,
        is_true_everywhere,
        label_voxels,
        memory_order,
        memory_slabs,
        table_counts,
        table_values,
    )
    from isocenter.values.transform import (
        ONTO,
        UNMOVED,
        Affine,
        Correspondence,
        Displacement,
        SpatialTransform,
        TransformPart,
        patients_of_pair,
    )

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
