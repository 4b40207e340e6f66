"""Studies: how many participants a study needs, its plan, its allocation and its analysis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.studies.allocation import Allocation, drawn_lists, length_of_lists, stratum_of
    from isocenter.studies.analysis import Trial, flow_of_arms, read_data
    from isocenter.studies.concealment import KEY, allocation_key, decrypted, encrypted
    from isocenter.studies.effects import Effect, cluster_test, hazard_effect, imputations, participant_effect, pooled
    from isocenter.studies.looks import Look, bounds, bounds_at, crossing
    from isocenter.studies.model_studies import pilot_inputs
    from isocenter.studies.proportions import null_variance
    from isocenter.studies.protocol import (
        ARM,
        PARTICIPANT,
        TIME,
        Endpoint,
        Study,
        plan_record,
        read_study,
        refuse_level,
        registry_record,
    )
    from isocenter.studies.sizing import DESIGNS, Simulated, Size, known_inputs, sized

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
