"""Uncertainty as the disagreement between the members of a model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from isocenter.runtime.inference import MEMBERS
from isocenter.runtime.uncertainty.method import Basis, Without

if TYPE_CHECKING:
    from isocenter.runtime.networks import Networks


class Members(Without):
    """The disagreement between the networks of folds, of other seeds or of an ensemble."""

    def suits(self, basis: Basis) -> bool:
        """Whether there are several networks."""
        return basis.networks.average is not None

    def lacking(self, basis: Basis) -> str:
        """Why they cannot differ; empty where they can."""
        lacking = "" if self.suits(basis) else "the model is one network, without members that could differ"
        return basis.silent or lacking

    def networks(self, basis: Basis) -> Networks:
        """The networks, with how they differ beside their mean."""
        assert basis.networks.average is not None  # noqa: S101 - else it would be lacking
        return replace(basis.networks, run=replace(basis.networks.average, differ=basis.differ))


METHOD = Members(MEMBERS)
