"""Members of an ensemble: their outputs on prepared cases, and the weights fitted to these."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.training.members.outputs import heard
    from isocenter.training.members.weights import Answers, Weighed, equal, weighed

__all__ = [
    "Answers",
    "Weighed",
    "equal",
    "heard",
    "weighed",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
