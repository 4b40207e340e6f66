"""Correlation alignment: features of images of two places vary alike.

Sun and Saenko, "Deep CORAL", arXiv:1607.01719
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hilum.lazy import torch
from hilum.objectives.objective_terms import Needs, Objective, ObjectiveStep

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Coral(Objective):
    """The squared difference of the covariances of the network's features, as the mean over pairs of places."""

    needs: ClassVar[Needs] = Needs(features=True, places=True)

    @property
    def fewest(self) -> int:
        """Two images have a covariance."""
        return 2

    def loss(self, step: ObjectiveStep) -> Tensor:
        """Squared Frobenius norm over 4 d^2, d being the number of features; 0 without two images of two places."""
        features, places = step.features_by_place
        by_place = [features[places == place] for place in torch.unique(places)]
        covariances = [torch.cov(own.T).reshape(own.shape[1], -1) for own in by_place if len(own) > 1]
        pairs = [(one - other).square().mean() / 4 for one, other in itertools.combinations(covariances, 2)]
        return torch.stack(pairs).mean() if pairs else 0 * features.sum()
