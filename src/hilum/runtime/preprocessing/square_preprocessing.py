"""A picture, or one slice of a volume, as the square that SAM's networks see, and masks back onto its own grid.

Kirillov et al., arXiv:2304.02643; Ma et al., arXiv:2304.12306; Zhang and Liu, arXiv:2304.13785. NumPy only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from hilum.belief import certainties
from hilum.errors import DatasetError, GeometryError, PlanError
from hilum.runtime.preprocessing import nnunet_preprocessing, restore
from hilum.runtime.preprocessing.protocol import GridTrace, HeldParts, VolumePart
from hilum.transforms import COLOUR, channel_stack, resampling
from hilum.transforms.resampling import Taps
from hilum.values import MM, Array, Geometry, Image, Region, Slabs, StatedSettings

if TYPE_CHECKING:
    from hilum.values.plain_values import PlainValue

KIND = "square"
# Mean and deviation of each colour, of values from 0 to 255: those of SAM.
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
BRIGHTEST = 255.0
# By how much masks are smaller than the square, along each side.
REDUCED = 4
# What a range is at least.
LEAST = 1e-8


@dataclass(frozen=True)
class SquarePreprocessing:
    """Three equal channels of a grey image, or its colours, on a square.

    side:     of the square, in voxels
    fit:      "pad": the longest side is brought to it (linear), the shorter one padded at its far end, and intensities
              go by SAM's mean and deviation; those that are not of 8 bits, from minimum to maximum as 0 to 255.
              "stretch": both sides are brought to it (cubic), and intensities go from minimum to maximum as 0 to 1
    enlarged: what of a mask is brought to the image's grid (linear): "logits", or "probabilities" of a mask that is
              a quarter of the square along each side
    """

    side: int
    fit: Literal["pad", "stretch"] = "stretch"
    enlarged: Literal["logits", "probabilities"] = "logits"
    modality: str = "unknown"

    channels, ndim, order_of_axes, unit, reduction = COLOUR, 2, (0, 1), MM, 1.0
    slicewise, absent, tissue, tiles = True, (), "none", None
    spacing = frames = interval = cascade = None
    around, moments, marks = 0, 1, 0

    @classmethod
    def from_settings(cls, settings: StatedSettings) -> SquarePreprocessing:
        """Read a model's record; PlanError for impossible settings."""
        try:
            return cls(**{key: value for key, value in settings.items() if key != "kind"})
        except TypeError as error:
            raise PlanError(f"impossible settings: {error}", "preprocessing", "Adopt the model again") from error

    @property
    def shape(self) -> tuple[int, int]:
        """The square."""
        return self.side, self.side

    @property
    def settings(self) -> dict[str, PlainValue]:
        """Plain values for JSON."""
        return {"kind": KIND, **asdict(self)}

    def __call__(self, image: Image, where: str) -> tuple[NDArray[np.float32], GridTrace]:
        """(3, side, side) as the network sees it, and the way back; errors for what is no single picture."""
        if image.geometry.ndim != self.ndim or image.frames is not None:
            raise GeometryError("is no single picture", where, "Give a picture, or a volume, which goes by its slices")
        image = channel_stack.match_colours(image, COLOUR)
        if image.channels != COLOUR:
            problem = f"has the channels {', '.join(image.channels)}, and the model sees one, or red, green and blue"
            raise DatasetError(problem, where, "Give one image, or a picture in colour")
        trace, valid = self.trace(image.geometry), image.valid
        data = np.asarray(image.data, dtype=np.float32)
        data = np.where(valid, data, data.min(where=valid, initial=np.inf) if valid.any() else 0)
        data = resampling.resample(data, trace.shape, "linear" if self.fit == "pad" else "cubic")
        low, high = float(data.min()), float(data.max())
        unit_range = (data - low) / max(high - low, LEAST)
        if self.fit == "pad":
            bright = np.rint(data) if image.dtype == np.uint8 else BRIGHTEST * unit_range
            data = (bright - np.reshape(MEAN, (3, 1, 1))) / np.reshape(DEVIATION, (3, 1, 1))
        else:
            data = unit_range
        return np.pad(data, ((0, 0), *trace.pad)).astype(np.float32), trace

    def trace(self, geometry: Geometry) -> GridTrace:
        """The way of a picture of this grid, which follows from its size alone."""
        sizes = geometry.shape
        scale = self.side / max(sizes)
        shape = tuple(max(1, int(n * scale + 0.5)) for n in sizes) if self.fit == "pad" else self.shape
        pad = tuple((0, self.side - n) for n in shape)
        steps = tuple(step * old / new for step, old, new in zip(geometry.steps, sizes, shape, strict=True))
        back = tuple(self._taps(new, old) for old, new in zip(sizes, shape, strict=True))
        crop = tuple(slice(0, n) for n in sizes)
        return GridTrace(geometry, None, (0, 1), (False, False), crop, shape, pad, steps, back)

    def _taps(self, seen: int, size: int) -> Taps:
        """How rows of a mask become rows of the image: torch's linear interpolation between centres, without more."""
        if self.enlarged == "logits":
            return nnunet_preprocessing.resampling_taps(seen, size, 1)
        # The network repeats each row of its mask: any of these is that row.
        step = nnunet_preprocessing.resampling_taps(seen // REDUCED, size, 1)
        return Taps(step.index * REDUCED, step.weight)

    def open_image(self, image: Image, where: str) -> tuple[NDArray[np.float32], GridTrace]:
        """The same as a call."""
        return self(image, where)

    def held_parts(self, geometry: Geometry) -> HeldParts:
        """All of a picture."""
        return HeldParts()

    def present(self, image: Image, where: str) -> tuple[bool, ...]:
        """All channels."""
        return (True,) * len(COLOUR)

    def parts(self, trace: GridTrace, region: Region | None, patch: Sequence[int], channels: int) -> list[VolumePart]:
        """The square."""
        return [VolumePart()]

    def restore(
        self, output_slabs: Slabs, trace: GridTrace, part: Region | None = None
    ) -> Iterator[tuple[Region, Mapping[str, Array]]]:
        """Outputs on the picture's own grid; where probabilities are enlarged, the log odds of these."""
        if self.enlarged == "logits":
            yield from restore.restore_regions(output_slabs, trace, part)
            return
        probable = (
            (region, {name: certainties.sigmoid(one) for name, one in arrays.items()})
            for region, arrays in output_slabs
        )
        for region, arrays in restore.restore_regions(probable, trace, part):
            yield region, {name: certainties.log_odds(np.asarray(one)) for name, one in arrays.items()}
