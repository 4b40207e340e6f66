"""Facts of a case, the numbers that planning and the comparison of cases need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from isocenter.quality.intensities import intensity
from isocenter.transforms import content
from isocenter.values import Array, Case, CaseFacts, Image, ReferenceMeasures


def facts_of(case: Case, image: Image, valid: Array, measures: Mapping[str, ReferenceMeasures]) -> CaseFacts:
    """Return the facts of an image whose voxels are read.

    valid:    (channels, *spatial) where they are measurements
    measures: {name of a reference: what was measured of it}; a later one overrules an earlier one
    """
    canonical = image.geometry.canonical
    fields: dict[str, Any] = {"foreground": ()}
    for own in measures.values():
        fields |= {} if own.foreground is None else {"foreground": own.foreground}
        maps = {"thickness": own.thickness, "elongation": own.elongation, "components": own.components}
        fields |= {name: values for name, values in maps.items() if values}
    return CaseFacts(
        id=case.id,
        shape=canonical.shape,
        steps=canonical.steps,
        physical=image.geometry.physical,
        oriented=image.geometry.oriented,
        channels=image.channels,
        modality=image.modality,
        intensity=tuple(intensity(channel[known]) for channel, known in zip(image.data, valid, strict=True)),
        content=_content(image.data, valid),
        references={name: measures[name].summary for name in case.references},
        voxel_volume=canonical.voxel_volume,
        unit=image.geometry.unit,
        frames=image.frames,
        lasts=None if image.times is None else max(image.times) - min(image.times),
        **fields,
    )


def _content(data: Array, valid: Array) -> float:
    """Share of the grid inside the box around all that is above the lowest value."""
    above = np.zeros(data.shape[1:], dtype=bool)
    for channel, known in zip(data, valid, strict=True):
        above |= known & (channel > channel[known].min())
    kept = [part.stop - part.start for part in content(above)]
    return float(np.prod(kept) / above.size)
