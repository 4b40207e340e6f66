"""NIfTI-MRS: a signal in time behind three axes of space, its frequencies in a header extension.

https://wtclarke.github.io/mrs_nifti_standard, doi:10.1002/mrm.29418. Its frequencies are right-handed (Levitt): a
resonance above that of the transmitter turns clockwise, so that the transform is that of the conjugate.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from isocenter.errors import FormatError
from isocenter.files import spectra
from isocenter.files.format_options import ReadOptions
from isocenter.files.nifti import nifti_header
from isocenter.files.spectra import WATER_PPM, SpectralAxis
from isocenter.files.storage import structured_text
from isocenter.lazy import nibabel
from isocenter.values import Image, Source

INTENT, EXTENSION = b"mrs_v", 44
SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
# Of the further dimensions that which can be channels; coils and repeats are to be combined before.
EDITED = "DIM_EDIT"
USUAL = ("DIM_COIL", "DIM_DYN", "DIM_INDIRECT_0")


def is_spectrum(header: Any) -> bool:
    """Whether the intent of a header is that of NIfTI-MRS."""
    return nifti_header.is_nifti(header) and bytes(header["intent_name"].tobytes()).startswith(INTENT)


def read_spectrum(path: Path, name: str, options: ReadOptions) -> Mapping[str, Image]:
    """The spectrum of one voxel as a series in ppm; edits are channels.

    Raises FormatError for coils and repeats that were not combined, and without frequency; GeometryError for several
    voxels.
    """
    where = str(path)
    image: Any = nibabel.load(path)
    stated = _extension(image.header, where)
    shape = (*image.shape, *[1] * (7 - len(image.shape)))
    spectra.refuse_voxels(shape[:3], where)
    for place, size in enumerate(shape[4:]):
        kind = stated.get(f"dim_{place + 5}") or USUAL[place]
        if size > 1 and kind != EDITED:
            problem = f"{size} points of {kind} were not combined"
            raise FormatError(problem, where, "Combine coils and average repeats first, as with fsl_mrs_preproc")
    signal = np.asarray(image.dataobj, np.complex128).reshape(shape[3], -1).T
    unit = image.header.get_xyzt_units()[1]
    dwell = float(image.header["pixdim"][4]) * SECONDS.get(unit, 1.0)
    nucleus = _first(stated.get("ResonantNucleus"))
    reference = WATER_PPM if nucleus == "1H" else 0.0
    axis = SpectralAxis(
        1 / dwell if dwell > 0 else 0.0, _number(stated.get("SpectrometerFrequency")), reference, nucleus
    )
    spectrum = spectra.transform_signal(signal.conj())
    channels = tuple(f"edit {n + 1}" for n in range(len(spectrum))) if len(spectrum) > 1 else ()
    source = Source("nifti", (where,))
    return {name: spectra.spectrum_image(spectrum, axis, source, where, part=options.part, channels=channels)}


def _extension(header: Any, where: str) -> Mapping[str, Any]:
    for extension in header.extensions:
        if extension.get_code() == EXTENSION:
            try:
                stated = structured_text.parse_json(extension.text if hasattr(extension, "text") else _text(extension))
            except ValueError as error:
                raise FormatError(f"its header extension is no JSON ({error})", where, "Get the file again") from error
            if isinstance(stated, dict):
                return stated
    raise FormatError("is NIfTI-MRS without the header extension of its frequencies", where, "Get the file again")


def _text(extension: Any) -> str:
    content = extension.get_content()
    return content.decode("utf-8", errors="replace").rstrip("\0 ") if isinstance(content, bytes) else str(content)


def _first(value: Any) -> str:
    return str(value[0]) if isinstance(value, list) and value else str(value or "")


def _number(value: Any) -> float:
    try:
        return float(_first(value))
    except ValueError:
        return float("nan")
