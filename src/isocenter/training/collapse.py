"""Collapse: a network without references that answers nearly the same to every image has learnt nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isocenter.errors import IsocenterError
from isocenter.evaluation import effective_rank, possible_rank

if TYPE_CHECKING:
    from torch import Tensor

# Below this share of the possible rank features are nearly the same for every image; after so many looks in a row it is
# no accident.
LEAST_SHARE, LOOKS = 0.05, 3


@dataclass
class Collapse:
    """The number of looks in a row at features of a rank that is too low; out: the run's folder."""

    out: Path
    low: int = 0

    @property
    def is_near(self) -> bool:
        """Whether the last look found too low a rank, so that these weights are not kept."""
        return self.low > 0

    def rank_of(self, features: Tensor, step: int) -> float:
        """The effective rank of the features of a look; IsocenterError after the last of several that are too low."""
        values = np.asarray(features, dtype=np.float64)
        rank, most = effective_rank(values), possible_rank(values)
        # Features without any number are all the same.
        self.low = self.low + 1 if not rank >= LEAST_SHARE * most else 0
        if self.low >= LOOKS:
            problem = (
                f"the features collapsed: at {LOOKS} looks in a row, up to step {step}, their effective rank was below "
                f"{100 * LEAST_SHARE:.0f} % of the possible {most}, at last {rank:.2f}. The checkpoints are of before"
            )
            remedy = "Train again with another --objective, a larger --set training.batch, or a smaller learning rate"
            raise IsocenterError(problem, str(self.out), remedy)
        return rank
