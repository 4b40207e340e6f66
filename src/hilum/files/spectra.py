"""MR spectra as series in ppm: one voxel, whose signal in time or in frequency was stored with its frequencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.errors import FormatError, GeometryError
from hilum.files import format_options
from hilum.files.format_options import Part
from hilum.values import Geometry, Image, Source

# ppm of water at body temperature, on which a transmitter for protons is set.
WATER_PPM = 4.65


@dataclass(frozen=True)
class SpectralAxis:
    """The frequencies of a signal.

    width_hz:      the spectral width, 1 over the time between points
    frequency_mhz: of the transmitter; reference_ppm: the chemical shift there
    nucleus:       as DICOM writes it: 1H, 31P
    """

    width_hz: float
    frequency_mhz: float
    reference_ppm: float
    nucleus: str

    def refuse_unknown(self, where: str) -> None:
        """FormatError where a number is missing or no positive one: the shift of a peak cannot be told then."""
        for name, value in (("spectral width", self.width_hz), ("frequency of the transmitter", self.frequency_mhz)):
            if not (math.isfinite(value) and value > 0):
                problem = f"states no {name}, so that ppm cannot be told"
                raise FormatError(problem, where, "Export the spectrum again, with its header")
        if not math.isfinite(self.reference_ppm):
            raise FormatError("states no chemical shift reference", where, "Export the spectrum again, with its header")

    def grid(self, points: int) -> Geometry:
        """The axis in ppm, the lowest first, as a transform of the signal in time gives it."""
        step = self.width_hz / points / self.frequency_mhz
        start = self.reference_ppm - (points // 2) * step
        return Geometry((points,), np.array([[step, start], [0.0, 1.0]]), oriented=False, unit="ppm")


def transform_signal(signal: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """(channels, points) of a signal in time to its spectrum, the lowest frequency first."""
    return np.asarray(np.fft.fftshift(np.fft.fft(signal, axis=-1), axes=-1))


def spectrum_image(
    spectrum: NDArray[np.complex128] | NDArray[np.float64],
    axis: SpectralAxis,
    source: Source,
    where: str,
    *,
    part: Part | None = None,
    channels: Sequence[str] = (),
) -> Image:
    """(channels, points), the lowest frequency first, as a series in ppm; of complex points the part that is asked for.

    Raises FormatError for complex points of which no part is asked for, and for frequencies that are not stated.
    """
    axis.refuse_unknown(where)
    values = np.asarray(format_options.real_part(spectrum, part, where), np.float32)
    facts = {"nucleus": axis.nucleus, "transmitter_mhz": axis.frequency_mhz}
    return Image(values, axis.grid(values.shape[-1]), "MR", tuple(channels), facts=facts, source=source)


def refuse_voxels(sizes: Sequence[int], where: str) -> None:
    """GeometryError for spectra of several voxels."""
    if math.prod(sizes) != 1:
        problem = f"spectra of {' x '.join(map(str, sizes))} voxels, and a series has one"
        raise GeometryError(problem, where, "Export the voxel of interest, or a map of a metabolite")
