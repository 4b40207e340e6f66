"""Studies: how many participants a study needs, its plan, its allocation and its analysis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.studies import (
        before_after,
        concealment,
        interim_looks,
        model_studies,
        randomisation,
        sizing,
        treatment_effects,
        trial_analysis,
        trial_protocol,
    )

lazy_index(__name__)
