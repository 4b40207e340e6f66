"""FedAvg: the mean of the sites' weights, by their training cases. McMahan et al., AISTATS 2017, arXiv:1602.05629"""

from __future__ import annotations

import numpy as np

from hilum.federation.aggregation import CommonState
from hilum.federation.exchanges import Arrays
from hilum.planning.plan_sections import FederationSettings


class FedAvg:
    """The weighted mean, of which only the sum is in memory."""

    def __init__(self, chosen: FederationSettings) -> None:
        self.chosen = chosen

    def start(self, common: CommonState) -> None:
        """A round begins."""
        self.common = common
        self.sums = dict[str, np.ndarray]()
        self.count = 0.0

    def add(self, site: str, weights: Arrays, share: float) -> None:
        """Add a site's weights to the sum."""
        self.count += share
        for name, one in weights.items():
            self.sums[name] = self.sums.get(name, 0.0) + share * one

    def finish(self) -> CommonState:
        """The mean."""
        return CommonState({name: one / self.count for name, one in self.sums.items()}, self.common.moments)

    @property
    def of_averages(self) -> FedAvg:
        """The same."""
        return FedAvg(self.chosen)
