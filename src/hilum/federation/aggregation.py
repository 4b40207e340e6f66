"""How the weights of sites become common ones. A method is one file and its line in `AGGREGATIONS`, or an entry point.

Sums are in float64 and in the order of the sites' names, so that the order of arrival changes no bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from hilum import plugins
from hilum.errors import PlanError
from hilum.federation.exchanges import Arrays
from hilum.planning.plan_sections import FederationSettings

AGGREGATIONS = {
    "fedavg": "hilum.federation.methods.fedavg:FedAvg",
    "fedopt": "hilum.federation.methods.fedopt:FedOpt",
    "median": "hilum.federation.methods.coordinatewise:Median",
    "trimmed_mean": "hilum.federation.methods.coordinatewise:TrimmedMean",
}
METHOD = "federation.method"
# Running statistics of batch normalisation, of which variances are pooled about the pooled mean.
MEAN, VARIANCE = "running_mean", "running_var"


@dataclass(frozen=True, eq=False)
class CommonState:
    """What the sites have in common between two rounds.

    weights: {name: array} of the network, without what stays at home
    moments: {name: array} that a method keeps from round to round
    """

    weights: Arrays
    moments: Arrays = field(default_factory=dict)


class Aggregation(Protocol):
    """A method for one round, made of the plan's section `federation`: `start`, `add` for each site, `finish`."""

    def start(self, common: CommonState) -> None:
        """A round begins, from what the sites had in common."""

    def add(self, site: str, weights: Arrays, share: float) -> None:
        """The weights of a site after its steps; share: its training cases."""

    def finish(self) -> CommonState:
        """What the sites have in common from now on, in float64."""

    @property
    def of_averages(self) -> Aggregation:
        """The method for weights averaged over steps, which no server moves any further."""


def make_aggregation(chosen: FederationSettings) -> Aggregation:
    """The plan's method, ours or one of the entry point `hilum.aggregations`; PlanError where there is none."""
    targets = plugins.targets_of(AGGREGATIONS, "hilum.aggregations")
    if chosen.method not in targets:
        raise PlanError(f"there is no method {chosen.method!r}", METHOD, f"Choose from {', '.join(sorted(targets))}")
    method: Aggregation = plugins.load_target(targets[chosen.method])(chosen)
    return method


def aggregate(method: Aggregation, common: CommonState, updates: Mapping[str, tuple[Arrays, float]]) -> CommonState:
    """One round: {site: (its weights, its training cases)} to what they have in common, in the types they came in.

    `updates` may read each site's weights as it is asked for them, so that one is in memory at a time. Counters of
    steps are those of the site that has most; statistics of batch normalisation are pooled by counts.
    """
    pooled = PooledStatistics()
    counters = dict[str, np.ndarray]()
    of_batches = {name for name in common.weights if name.rpartition(".")[2] in (MEAN, VARIANCE)}
    floating = {name for name, one in common.weights.items() if one.dtype.kind == "f"} - of_batches
    method.start(CommonState({name: common.weights[name].astype(np.float64) for name in floating}, common.moments))
    for site in sorted(updates):
        weights, share = updates[site]
        method.add(site, {name: weights[name].astype(np.float64) for name in floating}, share)
        pooled.add({name: weights[name] for name in of_batches}, share)
        for name in common.weights.keys() - floating - of_batches:
            counters[name] = np.maximum(counters.get(name, weights[name]), weights[name])
    finished = method.finish()
    found = {**finished.weights, **pooled.finish(), **counters}
    return CommonState({name: found[name].astype(one.dtype) for name, one in common.weights.items()}, finished.moments)


class PooledStatistics:
    """Means and variances of batch normalisation, pooled by counts: as if all samples had been of one site."""

    def __init__(self) -> None:
        self._sums = dict[str, np.ndarray]()
        self._count = 0.0

    def add(self, statistics: Arrays, share: float) -> None:
        """Those of a site; of a variance the second moment is summed."""
        self._count += share
        for name, one in statistics.items():
            value = one.astype(np.float64)
            mean = name.removesuffix(VARIANCE) + MEAN
            if name.endswith(VARIANCE) and mean in statistics:
                value = value + statistics[mean].astype(np.float64) ** 2
            self._sums[name] = self._sums.get(name, 0.0) + share * value

    def finish(self) -> dict[str, np.ndarray]:
        """{name: pooled statistics}"""
        means = {name: one / self._count for name, one in self._sums.items()}
        return {
            name: one - means[mean] ** 2
            if name.endswith(VARIANCE) and (mean := name.removesuffix(VARIANCE) + MEAN) in means
            else one
            for name, one in means.items()
        }
