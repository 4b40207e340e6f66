"""Simulated trials of clusters, such as hospitals, in two arms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isocenter.lazy import special, stats
from isocenter.studies.design import ClusterMeans
from isocenter.studies.inputs import Inputs
from isocenter.values import Floats


def cluster_statistics(
    means_of: ClusterMeans, inputs: Inputs, clusters: Sequence[int], draws: int, random: np.random.Generator
) -> Floats:
    """(draws, looks) t statistics of the clusters' means, as the z of the same p-value, positive for the effect.

    clusters: of an arm, at each look
    """
    arms = (True,) if inputs.get("paired") else (True, False)
    sizes = _sizes(inputs, (len(arms), draws, clusters[-1]), random)
    means = np.stack([means_of(inputs, is_new, own, random) for is_new, own in zip(arms, sizes, strict=True)])
    # A large cluster tells more, but not in proportion: its participants are alike.
    weights = 1 / (inputs["icc"] + (1 - inputs["icc"]) / sizes)
    found = []
    for number in clusters:
        weight, seen = weights[:, :, :number], means[:, :, :number]
        total = weight.sum(axis=2)
        centre = (weight * seen).sum(axis=2) / total
        free = len(arms) * (number - 1)
        spread = (weight * (seen - centre[:, :, None]) ** 2).sum(axis=(0, 2)) / free
        gap = centre[0] - centre[1] if len(arms) == 2 else centre[0]
        expected = inputs.get("difference")
        expected = inputs["first"] - inputs["second"] if expected is None else expected
        if inputs["margin"] is None:
            gap = np.sign(expected) * gap
        statistic = (gap + (inputs["margin"] or 0.0)) / np.sqrt(np.maximum(spread * (1 / total).sum(axis=0), 1e-300))
        found.append(-special.ndtri(np.clip(stats.t.sf(statistic, free), 1e-300, 1.0)))
    return np.stack(found, axis=1)


def _sizes(inputs: Inputs, shape: tuple[int, ...], random: np.random.Generator) -> Floats:
    """Participants of clusters with an outcome: a gamma distribution with the coefficient of variation, at least 1."""
    mean, cv = inputs["cluster"] * (1 - inputs["dropout"]), inputs["cv"]
    if not cv:
        return np.full(shape, max(1.0, float(np.floor(mean))))
    return np.maximum(1.0, np.round(random.gamma(1 / cv**2, mean * cv**2, shape)))
