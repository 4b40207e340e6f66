"""A long DICOM series made of a real CT: its headers and its slices, moved about so that no two are alike."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

SYNTAXES = {
    "uncompressed": ExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}
# mm between slices, as in a body CT.
STEP = 1.25


def written_series(source: Path, folder: Path, syntax: str, slices: int) -> Path:
    """`slices` files of one axial series in `folder`, which is kept and found again.

    source: the folder of a real series, whose slices are taken in turn, each time shifted by some pixels
    """
    finished = folder / "finished"
    if finished.is_file():
        return folder / "series"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "series").mkdir(parents=True)
    templates = [pydicom.dcmread(file) for file in sorted(source.glob("*.dcm"))]
    uids = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    for number in range(slices):
        one = _slice(templates[number % len(templates)], number, uids)
        if SYNTAXES[syntax].is_compressed:
            one.compress(SYNTAXES[syntax], generate_instance_uid=False)
        # Names say nothing about the order, as in an archive's export.
        one.save_as(folder / "series" / f"{one.SOPInstanceUID.split('.')[-1]}.dcm")
    finished.touch()
    return folder / "series"


def _slice(template: pydicom.Dataset, number: int, uids: dict[str, str]) -> pydicom.Dataset:
    one = pydicom.dcmread(template.filename)
    shift = 7 * (number // 3) % one.Rows
    pixels = np.roll(one.pixel_array, (shift, 3 * shift), axis=(0, 1))
    one.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for name, uid in uids.items():
        setattr(one, name, uid)
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    one.InstanceNumber = number + 1
    one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    one.ImagePositionPatient = [*one.ImagePositionPatient[:2], -STEP * number]
    one.SliceLocation = -STEP * number
    one.SliceThickness = STEP
    if "GantryDetectorTilt" in one:
        one.GantryDetectorTilt = 0
    return one
