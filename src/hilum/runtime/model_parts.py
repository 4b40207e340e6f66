"""Parts of a model that are found after its training: their settings stand in its record, their arrays in files.

Among them are the principal directions of the images that trained it: how such images differ, without showing any.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from hilum.transforms import resampling
from hilum.values import Floats

if TYPE_CHECKING:
    from hilum.runtime.guard.image_gate import Guard
    from hilum.runtime.part_settings import DirectionsSettings, PartsRecord
    from hilum.runtime.uncertainty.uncertainty_methods import Laplace


# {name of a part in a model's record: the file with its arrays}
PART_FILES: Mapping[str, str] = {
    "guard": "guard.safetensors",
    "laplace": "laplace.safetensors",
    "directions": "directions.safetensors",
}


@dataclass(frozen=True, eq=False)
class ModelParts:
    """Findings of cases for a model after its training.

    guard:      refuses images that are unlike those that trained the model; None for a model that answers for any
    laplace:    the posteriors of its last layers; None for a model without
    directions: along which its training images differ; None of few patients, and of dense answers
    """

    guard: Guard | None = None
    laplace: Laplace | None = None
    directions: ImageDirections | None = None

    @property
    def settings(self) -> PartsRecord:
        """Plain values for a model's record, of the parts that there are."""
        return cast("PartsRecord", {name: part.settings for name, part in vars(self).items() if part is not None})

    def write(self, folder: Path) -> None:
        """The arrays of the parts that there are, into an existing folder."""
        for name, part in vars(self).items():
            if part is not None:
                (folder / PART_FILES[name]).write_bytes(part.content)


WITHOUT_PARTS = ModelParts()


# From so many patients on, and one direction for so many: with fewer a direction could show one of them.
FEWEST_PATIENTS, PATIENTS_A_DIRECTION, MOST = 100, 10, 16
# Numbers of a direction: all of them together take 4 MiB at the most.
MOST_NUMBERS = 2**16


@dataclass(frozen=True, eq=False)
class ImageDirections:
    """The directions along which training images differ most.

    axes:     (directions, channels, *coarse) float32, each of length 1, over the grid that the network sees
    spread:   (directions,) standard deviation of training images along each
    patients: that they come from
    """

    axes: NDArray[np.float32]
    spread: Floats
    patients: int

    @classmethod
    def fit_images(cls, images: Iterable[NDArray[np.float32]], patients: Sequence[str]) -> ImageDirections | None:
        """Fit (channels, *grid) images of one grid; None of fewer than 100 patients."""
        people = len(set(patients))
        if people < FEWEST_PATIENTS:
            return None
        coarse = [_coarse(image) for image in images]
        if len({one.shape for one in coarse}) != 1:
            return None
        rows = np.stack(coarse).reshape(len(coarse), -1).astype(np.float64)
        # A patient counts once, however many images there are of one.
        _, owner = np.unique(patients, return_inverse=True)
        means = np.stack([rows[owner == n].mean(axis=0) for n in range(people)])
        _, sizes, axes = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
        count = min(MOST, people // PATIENTS_A_DIRECTION, int((sizes > 1e-6 * max(sizes[0], 1e-12)).sum()))
        shaped = axes[:count].reshape(count, *coarse[0].shape).astype(np.float32)
        return cls(shaped, sizes[:count] / np.sqrt(people), people) if count else None

    def on(self, spatial: Sequence[int]) -> NDArray[np.float32]:
        """(directions, channels, *spatial) one standard deviation along each, on a grid over the same field."""
        wide = (self.axes * self.spread.reshape(-1, *[1] * (self.axes.ndim - 1))).astype(np.float32)
        flat = wide.reshape(-1, *wide.shape[2:])
        return np.asarray(resampling.resample(flat, list(spatial), "linear"), dtype=np.float32).reshape(
            *wide.shape[:2], *spatial
        )

    @property
    def settings(self) -> DirectionsSettings:
        """Plain values for `model.json`; `sha256` is that of the file with its arrays."""
        return {"patients": self.patients, "sha256": hashlib.sha256(self.content).hexdigest()}

    @cached_property
    def content(self) -> bytes:
        """The arrays as safetensors."""
        return save({"axes": np.ascontiguousarray(self.axes), "spread": np.ascontiguousarray(self.spread)})

    @classmethod
    def from_record(cls, settings: DirectionsSettings, arrays: Mapping[str, Floats]) -> ImageDirections:
        """Read what `settings` and `content` gave; KeyError, TypeError or ValueError where they are not whole."""
        return cls(np.asarray(arrays["axes"], dtype=np.float32), arrays["spread"], int(settings["patients"]))


def _coarse(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """(channels, *coarse) of so few numbers as a direction may have."""
    spatial = list(image.shape[1:])
    factor = min(1.0, (MOST_NUMBERS / image.size) ** (1 / len(spatial)))
    smaller = [max(1, int(size * factor)) for size in spatial]
    return image if smaller == spatial else np.asarray(resampling.resample(image, smaller, "linear"), dtype=np.float32)
