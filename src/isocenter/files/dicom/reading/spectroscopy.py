"""DICOM's MR Spectroscopy Storage: one voxel as a series in ppm. PS3.3 C.8.14"""

from __future__ import annotations

from typing import Any

import numpy as np

from isocenter.errors import FormatError
from isocenter.files import spectra
from isocenter.files.dicom import header_reading, tags
from isocenter.files.dicom.header_reading import Header
from isocenter.files.format_options import ReadOptions
from isocenter.files.spectra import SpectralAxis
from isocenter.values import Image, Source

MR_SPECTROSCOPY = "1.2.840.10008.5.1.4.1.1.4.2"


def read_spectroscopy(head: Header, options: ReadOptions) -> Image:
    """The spectrum of an object with one voxel, the lowest ppm first.

    Points in frequency stand from the highest to the lowest, those in time turn counterclockwise above the transmitter
    (C.8.14.4.1). Raises FormatError for two spectral axes, data of another length, and without frequency;
    GeometryError for several voxels.
    """
    where, stated = head.where, header_reading.read_object(head.path)
    sizes = [int(stated.get(name) or 1) for name in ("Columns", "Rows", "NumberOfFrames")]
    spectra.refuse_voxels(sizes, where)
    if int(stated.get("DataPointRows") or 1) != 1:
        raise FormatError("has two spectral axes", where, "Export a spectrum of one axis")
    points = int(stated.get("DataPointColumns") or 0)
    kind, domain = (str(stated.get(name) or "") for name in ("DataRepresentation", "SignalDomainColumns"))
    values = np.frombuffer(stated.get("SpectroscopyData") or b"", "<f4").astype(np.float64)
    is_complex = kind == "COMPLEX"
    if not points or len(values) != points * (1 + is_complex):
        problem = f"holds {len(values)} numbers where {points} points of {kind or 'no stated kind'} belong"
        raise FormatError(problem, where, "Get the file again")
    signal = (values[0::2] + 1j * values[1::2] if is_complex else values)[None]
    if domain == "FREQUENCY":
        spectrum: Any = signal[:, ::-1]
    elif domain == "TIME" and is_complex:
        spectrum = spectra.transform_signal(signal.astype(np.complex128))
    else:
        problem = f"points in {domain or 'no stated domain'} as {kind or 'no stated kind'}"
        raise FormatError(problem, where, "Export complex points in time, or a spectrum")
    axis = SpectralAxis(
        _number(stated, "SpectralWidth"),
        _number(stated, "TransmitterFrequency"),
        _number(stated, "ChemicalShiftReference"),
        tags.text(head.dataset, "ResonantNucleus"),
    )
    return spectra.spectrum_image(spectrum, axis, Source("dicom", (where,)), where, part=options.part)


def _number(stated: Any, keyword: str) -> float:
    """The first value of an attribute; not a number where it is not stated."""
    value = stated.get(keyword)
    first = value[0] if isinstance(value, list) or hasattr(value, "append") else value
    return float("nan") if first in (None, "") else float(first)
