"""Members of an ensemble: those that one training leaves, their outputs, and the weights fitted to these."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.training.members.one_training import clear_moments, keep_members
    from isocenter.training.members.weights import (
        MemberOutputs,
        MemberWeights,
        equal_weights,
        member_outputs,
        member_weights,
    )

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
