"""Small DICOM images in memory for tests of pixels and values; what the standard allows is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

PATH = "object.dcm"


def picture(
    pixels: np.ndarray[Any, Any],
    *,
    frames: int | None = None,
    syntax: str = ExplicitVRLittleEndian,
    encoded: Sequence[bytes] | None = None,
    fragments: int = 1,
    **tags: Any,
) -> Dataset:
    """An image of (rows, columns[, 3]), or with `frames` of (frames, rows, columns[, 3]).

    encoded: the compressed frames; without them the pixels are stored as they are
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    dataset = FileDataset(PATH, {}, file_meta=meta, is_implicit_VR=False, is_little_endian=True)
    dataset.SOPClassUID, dataset.Modality = SecondaryCaptureImageStorage, "OT"
    colour = pixels.ndim == (3 if frames is None else 4)
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = pixels.shape[(0 if frames is None else 1) :][:2]
    if frames is not None:
        dataset.NumberOfFrames = frames
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if encoded is None:
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    else:
        dataset.PixelData = encapsulate(list(encoded), fragments_per_frame=fragments)
    dataset["PixelData"].VR = "OB" if encoded is not None or bits == 8 else "OW"
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset
