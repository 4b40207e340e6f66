"""Observations of one image while a network predicts it: intensities, texture, layout and pooled features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter.runtime.guard.composition import Composition, composition, mean_composition
from isocenter.runtime.guard.header import Header, header_of
from isocenter.runtime.windows.averaging import POOLED
from isocenter.runtime.windows.slide import Network
from isocenter.values import Array, Image

# Voxels of a window and of an image that are noted, evenly spread.
OF_A_WINDOW, OF_AN_IMAGE = 2**12, 2**16


@dataclass(frozen=True, eq=False)
class Observation:
    """One image as a model saw it.

    sample:   (channels, n) intensities of the network's input; (0, 0) where it has not seen it yet
    composed: how it is composed, the mean of all windows; None where the network has not seen it yet
    features: (features,) pooled, the mean of all windows; None where what computes the network gives none
    patient:  whose image it is, where somebody asks
    """

    header: Header
    sample: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    composed: Composition | None = None
    features: NDArray[np.float64] | None = None
    patient: str = ""

    @property
    def is_seen(self) -> bool:
        """Whether a network has seen the image; a large volume passes it only while its result is written."""
        return self.composed is not None

    @property
    def is_constant(self) -> bool:
        """Whether the network has seen one value everywhere."""
        return self.is_seen and bool((np.nanmax(self.sample, axis=1) == np.nanmin(self.sample, axis=1)).all())


@dataclass(eq=False)
class Watching:
    """A network that notes what it sees of one image.

    passes_on: whether the features stay among its outputs, for another one that notes them too
    """

    network: Network
    passes_on: bool = False
    samples: list[NDArray[np.float32]] = field(default_factory=list)
    features: list[NDArray[np.float64]] = field(default_factory=list)
    composed: list[Composition] = field(default_factory=list)
    _ends: NDArray[np.float32] | None = None

    def __call__(self, batch: NDArray[np.float32], *context: NDArray[np.float32]) -> Mapping[str, Array]:
        outputs = dict(self.network(batch, *context))
        if POOLED in outputs:
            self.features.extend(np.asarray(outputs[POOLED], dtype=np.float64))
            if not self.passes_on:
                del outputs[POOLED]
        step = max(1, batch[0, 0].size // OF_A_WINDOW)
        self.samples.extend(np.array(window.reshape(len(window), -1)[:, ::step]) for window in batch)
        self.composed.extend(composition(window) for window in batch)
        if self._ends is None or self.is_blank:
            self._ends = _ends(batch, self._ends)
        return outputs

    @property
    def is_blank(self) -> bool:
        """Whether all that the network has seen is one value in each channel; voxels without a value do not count."""
        return self._ends is not None and bool((self._ends[0] == self._ends[1]).all())

    def observation(
        self, image: Image, covariates: Mapping[str, Any] | None = None, *, whole: bool = True
    ) -> Observation:
        """The observation of an image, with its header; of a part of an image its header alone."""
        if not (self.samples and whole):
            return Observation(header_of(image, covariates))
        sample = np.concatenate(self.samples, axis=1)
        features = np.mean(self.features, axis=0) if self.features else None
        spread = sample[:, :: max(1, sample.shape[1] // OF_AN_IMAGE)]
        return Observation(header_of(image, covariates), spread, mean_composition(self.composed), features)


def _ends(batch: NDArray[np.float32], before: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """(2, channels) lowest and highest value of each channel, also of the windows before."""
    rows = np.moveaxis(batch, 1, 0).reshape(batch.shape[1], -1)
    rows = rows if before is None else np.concatenate([rows, before.T], axis=1)
    return np.stack([np.fmin.reduce(rows, axis=1), np.fmax.reduce(rows, axis=1)])
