"""The recipe that trains, what feeds it, and the state that it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.training import (
        channel_pruning,
        checkpoint_files,
        covariate_fitting,
        data,
        length,
        member_weighting,
        privacy_accounting,
        processes,
        recipe,
        search_study,
        session_length,
        step,
        training_state,
        weight_transfer,
    )

lazy_index(__name__)
