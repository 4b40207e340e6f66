"""One case in numbers: what planning and the comparison of cases need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from isocenter.quality.instances import pieces_of
from isocenter.quality.mask_facts import Structure, drawn, voxels
from isocenter.transforms import content
from isocenter.values import Array, Case, CaseFacts, Image


def facts_of(
    case: Case, image: Image, valid: Array, references: Mapping[str, Any], structures: Mapping[int, Structure]
) -> CaseFacts:
    """image and references with their voxels read; valid: (channels, *spatial), where they are measurements."""
    canonical = image.geometry.canonical
    return CaseFacts(
        id=case.id,
        shape=canonical.shape,
        steps=canonical.steps,
        physical=image.geometry.physical,
        oriented=image.geometry.oriented,
        channels=image.channels,
        modality=image.modality,
        intensity=tuple(_intensity(channel[known]) for channel, known in zip(image.data, valid, strict=True)),
        content=_content(image.data, valid),
        references={kind: _summary(value) for kind, value in references.items()},
        foreground=_foreground(image.data, valid, references.get("mask", references.get("instances"))),
        voxel_volume=canonical.voxel_volume,
        thickness={value: structure.thickness for value, structure in structures.items()},
        elongation={value: structure.elongation for value, structure in structures.items()},
        components=_components(structures, references.get("instances")),
        unit=image.geometry.unit,
        frames=image.frames,
        lasts=None if image.times is None else max(image.times) - min(image.times),
    )


def _components(structures: Mapping[int, Structure], instances: Any) -> Mapping[int, int]:
    """Pieces of each structure; without structures, of each object."""
    if structures or not isinstance(instances, Image):
        return {value: len(structure.pieces) for value, structure in structures.items()}
    return pieces_of(instances.data[0])


def _intensity(values: Array) -> Mapping[str, float]:
    low, median, high = np.percentile(values, (0.5, 50, 99.5))
    return {
        "min": float(values.min()),
        "low": float(low),
        "median": float(median),
        "high": float(high),
        "max": float(values.max()),
        "mean": float(values.mean(dtype=np.float64)),
        "deviation": float(values.std(dtype=np.float64)),
    }


def _foreground(data: Array, valid: Array, mask: Any) -> tuple[Mapping[str, float], ...]:
    """Per channel the intensities inside the mask; nothing without one, or where it holds no measurement."""
    if not isinstance(mask, Image):
        return ()
    inside = drawn(mask) != 0
    parts = [channel[known & inside] for channel, known in zip(data, valid, strict=True)]
    return tuple(_intensity(part) for part in parts) if all(part.size for part in parts) else ()


def _content(data: Array, valid: Array) -> float:
    """Share of the grid inside the box around all that is above the lowest value."""
    above = np.zeros(data.shape[1:], dtype=bool)
    for channel, known in zip(data, valid, strict=True):
        above |= known & (channel > channel[known].min())
    kept = [part.stop - part.start for part in content(above)]
    return float(np.prod(kept) / above.size)


def _summary(value: Any) -> Any:
    """Of a reference: label values and their voxels, or the value itself."""
    return voxels(value.data) if isinstance(value, Image) else value
