"""A label map on the source's grid, from outputs that come part by part.

NumPy only: a packaged model carries a copy of this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from isocenter.files import Spool
from isocenter.tasks.segmentation.voxel_calibration import Believed
from isocenter.tasks.shared import EACH
from isocenter.values import Array, Deferred, Geometry, Region, Slabs


class Taker(Protocol):
    """What also looks at the outputs of every part."""

    def take(self, region: Region, labels: Array, outputs: Array) -> None:
        """(*region) the label map of a part, and (channels, *region) its outputs."""


def decoded(
    slabs: Slabs,
    geometry: Geometry,
    believed: Believed,
    largest: int,
    takers: Sequence[Taker],
    networks: Sequence[Taker] = (),
) -> Array | Deferred:
    """(*spatial) label values; what no slab covers (cut away before the network) is background.

    believed: what makes label values of outputs, of which `largest` is the largest
    networks: each looks at the outputs of one of the networks whose mean the outputs are, where these are known
    """
    mask = Spool(geometry.shape, np.min_scalar_type(largest))
    for region, arrays in slabs:
        # The largest of outputs that are yet to be resampled is found without all of them; takers need them all.
        outputs = np.asarray(arrays["mask"]) if takers else arrays["mask"]
        mask[region] = labels = believed.marked(outputs)
        for taker in takers:
            taker.take(region, labels, outputs)
        if networks and f"mask{EACH}" in arrays:
            each = np.split(np.asarray(arrays[f"mask{EACH}"]), len(networks))
            for taker, own in zip(networks, each, strict=True):
                taker.take(region, believed.plain.marked(own), own)
    return mask.data
