"""The answers of a representation: outputs of a network, and its features as a result.

A copy of this file travels with a packaged model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from isocenter.tasks.shared import Shares, mean_of
from isocenter.tasks.task import Task
from isocenter.values import Array, Finding, Floats, Geometry, Measurements, Prediction, Slabs


def named(features: Floats) -> Iterator[tuple[str, float]]:
    """(name, value) of each feature: e0, e1, ..."""
    return ((f"e{n}", float(value)) for n, value in enumerate(features))


class RepresentationAnswering(Task):
    """Results of a representation; the fields are those of `Representation`."""

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The mean of the outputs of mirrored views."""
        names = outputs[0].keys()
        return {name: mean_of([np.asarray(one[name], np.float32) for one in outputs], shares) for name in names}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """No probabilities: the outputs as they are."""
        return {name: np.asarray(arrays[name], dtype=np.float32) for name in self.heads if name in arrays}

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """A result that is still empty: `with_features` adds what the network saw in all windows."""
        for _ in slabs:
            pass
        return Prediction(geometry)

    def with_features(self, prediction: Prediction, features: Floats | None) -> Prediction:
        """The result with the pooled features as its values, as `embed` calls them."""
        return prediction if features is None else replace(prediction, values=dict(named(features)))

    def outputs(self, prediction: Prediction) -> Mapping[str, Any]:
        """A column a feature."""
        return dict(prediction.values or {})

    def results(self, prediction: Prediction, measured: Measurements = ()) -> list[Finding]:
        """None: features are no findings."""
        return []
