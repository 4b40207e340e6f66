"""Checks of data sets: what is here, what is wrong, who leaks into whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.quality.covariates import names_a_person, says_how
    from isocenter.quality.examination import Examination, Progress, examine, retested
    from isocenter.quality.ibsi import channel_measurements, region_measurements
    from isocenter.quality.image_descriptors import Look, descriptors, image_facts, voxel_digest
    from isocenter.quality.image_quality import letters_in, quick_measures
    from isocenter.quality.known_cases import kept_figure
    from isocenter.quality.label_proxies import PROXY, is_constant, label_association
    from isocenter.quality.leakage import Twin, duplicates_among
    from isocenter.quality.modality import MIXED_SCALE, STATED, guessed_modality, modality_problems, scales_of
    from isocenter.quality.references import kinds_of, reference_kinds, references_counted
    from isocenter.quality.references.masks import numbered_objects
    from isocenter.quality.shortcuts import SHORTCUT, shortcut_notes

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
