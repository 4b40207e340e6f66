"""Median and trimmed mean of each number over the sites, which few wrong sites cannot move far.

Yin et al., ICML 2018, arXiv:1803.01498
"""

from __future__ import annotations

import math

import numpy as np

from hilum.federation.aggregation import CommonState
from hilum.federation.exchanges import Arrays
from hilum.planning.plan_sections import FederationSettings


class Median:
    """The median of the sites, which all count alike; it needs all of them in memory."""

    def __init__(self, chosen: FederationSettings) -> None:
        self.chosen = chosen

    def start(self, common: CommonState) -> None:
        """A round begins."""
        self.common = common
        self.sites = list[Arrays]()

    def add(self, site: str, weights: Arrays, share: float) -> None:
        """Keep a site's weights."""
        self.sites.append(weights)

    def finish(self) -> CommonState:
        """The middle of each number."""
        names = self.common.weights
        middle = {name: self.middle(np.stack([one[name] for one in self.sites])) for name in names}
        return CommonState(middle, self.common.moments)

    def middle(self, values: np.ndarray) -> np.ndarray:
        """(sites, ...) to (...)."""
        return np.asarray(np.median(values, axis=0))

    @property
    def of_averages(self) -> Median:
        """The same: averaged weights of a wrong site are as wrong."""
        return type(self)(self.chosen)


class TrimmedMean(Median):
    """The mean without a share of the sites, `federation.trim`, at either end."""

    def middle(self, values: np.ndarray) -> np.ndarray:
        """(sites, ...) to (...)."""
        left_out = min(math.ceil(self.chosen.trim * len(values)), (len(values) - 1) // 2)
        return np.asarray(np.sort(values, axis=0)[left_out : len(values) - left_out].mean(axis=0))
