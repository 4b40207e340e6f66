"""Members of an ensemble: their outputs on prepared cases, and the weights fitted to these."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.training.members.outputs import member_outputs
    from isocenter.training.members.weights import MemberOutputs, MemberWeights, equal_weights, member_weights

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
