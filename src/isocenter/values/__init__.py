"""The values that all rooms share: immutable, typed, small. No input or output, no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.values import (
        acquisition,
        advice_lines,
        bounding_boxes,
        case_outcome,
        covariate_values,
        dataset_cases,
        dataset_fingerprint,
        estimate,
        explanation_records,
        finding,
        finding_records,
        grading,
        grid_geometry,
        grouping,
        plain_values,
        plan_decisions,
        prediction,
        prompts,
        record_schema,
        reference_kind,
        setting_fields,
        slabs,
        spatial_transform,
        table_cells,
        voxel_images,
    )
    from isocenter.values.acquisition import Acquisition, Measurement
    from isocenter.values.bounding_boxes import BoundingBoxes
    from isocenter.values.case_outcome import ANSWERED
    from isocenter.values.dataset_cases import Case, CaseRow, Cell, Dataset, LazyMapping, Problem, References, Split
    from isocenter.values.dataset_fingerprint import CaseFacts, Fingerprint
    from isocenter.values.estimate import Estimate, Row
    from isocenter.values.finding import Finding, Measurements
    from isocenter.values.grid_geometry import MM, Floats, Geometry
    from isocenter.values.plain_values import PlainValue
    from isocenter.values.plan_decisions import BY_HAND, Assignments, Decision, Plan
    from isocenter.values.prediction import (
        Confidence,
        Dense,
        DenseImage,
        DrawnImage,
        Head,
        Map,
        Merge,
        Prediction,
        Region,
        Slabs,
        Target,
        Vector,
    )
    from isocenter.values.prompts import Prompts
    from isocenter.values.reference_kind import (
        CaseReference,
        Cohort,
        ReferenceChecks,
        ReferenceFacts,
        ReferenceKind,
        ReferenceWords,
    )
    from isocenter.values.setting_fields import Setting, SettingsGroup, StatedSettings
    from isocenter.values.spatial_transform import Affine, Displacement, SpatialTransform
    from isocenter.values.voxel_images import Array, Code, Deferred, FileFacts, Image, Label, SlideLevel, Source

lazy_index(__name__)
