"""Prototypical: in episodes of a few cases each query lies nearest to the mean of its own class.

Snell et al., "Prototypical networks for few-shot learning", NeurIPS 2017, arXiv:1703.05175
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hilum.lazy import torch
from hilum.objectives import episodes
from hilum.objectives.episodes import EpisodeObjective
from hilum.objectives.objective_terms import Needs, ObjectiveStep

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Prototypical(EpisodeObjective):
    """The cross-entropy of finding the class of a query by its distance from the means of the supports."""

    needs: ClassVar[Needs] = Needs(features=True, prototypes=True)
    source: ClassVar[str] = "arXiv:1703.05175"

    def loss(self, step: ObjectiveStep) -> Tensor:
        """The mean over queries; of no query 0."""
        assert step.features is not None  # noqa: S101 - its needs say so
        classes = step.labelled.targets.flatten()
        owners = torch.tensor(step.patients, device=step.features.device)
        return episode_loss(step.features, classes, owners, self.shots)


def episode_loss(features: Tensor, classes: Tensor, owners: Tensor, shots: int) -> Tensor:
    """The mean cross-entropy of queries by squared distances from the means of the supports.

    features: (batch, features); classes, owners: (batch,) class and patient of each
    """
    supports, is_query = episodes.part_episode(classes, owners, shots)
    means = torch.stack([features[one].mean(dim=0) for one in supports])
    distances = (features[is_query][:, None] - means[None]).square().sum(dim=2)
    truth = torch.searchsorted(classes.unique(), classes[is_query])
    return torch.nn.functional.cross_entropy(-distances, truth) if is_query.any() else features.sum() * 0
