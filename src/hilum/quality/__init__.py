"""Checks of data sets: what is here, what is wrong, who leaks into whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.quality import (
        accepted_findings,
        axis_words,
        covariate_checks,
        dataset_examination,
        ibsi,
        image_descriptors,
        image_likeness,
        image_quality,
        known_cases,
        label_contradictions,
        label_proxies,
        leakage,
        mask_fit,
        mask_placement,
        modality_checks,
        number_checks,
        outlier_limits,
        patient_checks,
        references,
        shortcut_tests,
        synthetic_images,
    )

lazy_index(__name__)
