"""The values that all rooms share: immutable, typed, small. No input or output, no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.values import (
        acquisition,
        advice_lines,
        argument_kinds,
        bounding_boxes,
        case_outcome,
        covariate_values,
        dataset_cases,
        dataset_fingerprint,
        estimate,
        explanation_records,
        fact_rules,
        finding,
        finding_records,
        grading,
        grid_geometry,
        grouping,
        personal_columns,
        personal_values,
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
    from hilum.values.acquisition import Acquisition, Measurement
    from hilum.values.bounding_boxes import BoundingBoxes
    from hilum.values.case_outcome import ANSWERED
    from hilum.values.dataset_cases import Case, CaseRow, Cell, Dataset, LazyMapping, Problem, References, Split
    from hilum.values.dataset_fingerprint import CaseFacts, Fingerprint
    from hilum.values.estimate import Estimate, Row
    from hilum.values.fact_rules import FactOutcome, FactRule
    from hilum.values.finding import Finding, Measurements
    from hilum.values.grid_geometry import MM, Floats, Geometry
    from hilum.values.plain_values import PlainValue
    from hilum.values.plan_decisions import BY_HAND, Assignments, Decision, Plan
    from hilum.values.prediction import (
        Confidence,
        Dense,
        DenseImage,
        Head,
        Map,
        Merge,
        Prediction,
        Region,
        Slabs,
        SyntheticImage,
        Target,
        Vector,
    )
    from hilum.values.prompts import Prompts
    from hilum.values.reference_kind import (
        CaseReference,
        Cohort,
        ReferenceChecks,
        ReferenceFacts,
        ReferenceKind,
        ReferenceWords,
    )
    from hilum.values.setting_fields import Setting, SettingsGroup, StatedSettings
    from hilum.values.spatial_transform import Affine, Displacement, SpatialTransform
    from hilum.values.voxel_images import Array, Code, Deferred, FileFacts, Image, Label, SlideLevel, Source

lazy_index(__name__)
