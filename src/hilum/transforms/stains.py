"""Stains of tissue: the two dyes of a picture found in its colours, and brought to those of a reference.

Macenko et al., ISBI 2009, doi:10.1109/ISBI.2009.5193250. NumPy only, so that a copy travels with a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from hilum.values import Array, Floats, Image

# Light that passes where nothing is, in 8 bits; optical density below which a pixel counts as glass; percentile of
# angles at either end that are taken for a dye, and of a dye's concentration that is its most (section 2 and 3).
WHITE = 240.0
GLASS_DENSITY = 0.15
ANGLE_PERCENTILE = 1.0
MOST_PERCENTILE = 99.0
# Haematoxylin and eosin of the reference, (red, green, blue) of each, and the most of each: those of the authors' code.
REFERENCE = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
REFERENCE_MOST = np.array([1.9705, 1.0308])
# Pixels of which the dyes are found, about, and those of tissue that this takes at least.
SAMPLED = 2**18
FEWEST = 100
# How coarse a level of a slide may be for it, in pixels of level 0: colours of dyes mix where many pixels become one.
COARSEST = 8.0


@dataclass(frozen=True, eq=False)
class StainMatrix:
    """The dyes of a picture.

    dyes: (3, 2) optical densities of haematoxylin and eosin, each of length 1
    most: (2,) of each concentration, its 99th percentile
    """

    dyes: Floats
    most: Floats

    @classmethod
    def of_colours(cls, colours: Array) -> StainMatrix | None:
        """The dyes of (3, ...) colours of 8 bits; None where hardly anything is dyed."""
        density = optical_density(colours.reshape(3, -1).T)
        dyed = density[~(density < GLASS_DENSITY).any(axis=1)]
        if len(dyed) < FEWEST:
            return None
        _, directions = np.linalg.eigh(np.cov(dyed.T))
        plane = directions[:, 1:3]  # of the two largest eigenvalues
        in_plane = dyed @ plane
        angles = np.arctan2(in_plane[:, 1], in_plane[:, 0])
        ends = np.percentile(angles, [ANGLE_PERCENTILE, 100 - ANGLE_PERCENTILE])
        first, second = (plane @ np.array([np.cos(end), np.sin(end)]) for end in ends)
        # Haematoxylin takes more of the red.
        dyes = np.stack([first, second] if first[0] > second[0] else [second, first], axis=1)
        amounts = np.linalg.lstsq(dyes, density.T, rcond=None)[0]
        return cls(dyes, np.percentile(amounts, MOST_PERCENTILE, axis=1))

    def normalise(self, colours: Array) -> Array:
        """(3, ...) colours of 8 bits as if they had been dyed as the reference."""
        density = optical_density(colours.reshape(3, -1).T)
        amounts = np.linalg.lstsq(self.dyes, density.T, rcond=None)[0]
        amounts *= (REFERENCE_MOST / self.most)[:, None]
        made = np.minimum(WHITE * np.exp(-REFERENCE @ amounts), 255)
        return cast("Array", made.reshape(colours.shape).astype(np.uint8))


def optical_density(colours: Array) -> NDArray[np.float64]:
    """Colours of 8 bits as the natural logarithm of the light that is missing."""
    return np.asarray(-np.log((colours.astype(np.float64) + 1) / WHITE))


def normalise_stain(image: Image) -> Image:
    """A picture in colour with the dyes of the reference; one without dye stays as it is.

    Of a slide the dyes are found on a level that shows cells, and each part is changed when it is read.
    """
    found = StainMatrix.of_colours(_sampled_colours(image))
    return image if found is None else image.map_pixels(found.normalise, np.dtype(np.uint8))


def _sampled_colours(image: Image) -> Array:
    """(3, n) colours of lines that are evenly spread."""
    picture = image.level(image.level_within(COARSEST)) if image.is_slide else image
    rows, columns = picture.geometry.shape
    step = max(1, rows * columns // SAMPLED)
    if not image.is_slide:
        return picture.data.reshape(3, -1)[:, ::step]
    read = picture.reader()
    lines = [read((slice(0, 3), slice(row, row + 1), slice(0, columns))) for row in range(0, rows, max(1, step // 4))]
    return np.concatenate([line.reshape(3, -1)[:, :: min(step, 4)] for line in lines], axis=1)
