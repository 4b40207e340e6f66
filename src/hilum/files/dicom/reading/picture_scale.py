"""The pixel size and the frame times of images without a position."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from hilum.errors import FormatError
from hilum.files import pixel_aspect
from hilum.files.dicom import tags
from hilum.files.dicom.elements import DicomDataset
from hilum.values import FileFacts, Geometry

# X-ray shadows: what the detector measures is larger than what is in the patient, PS3.3 10.7.1.3.
PROJECTIONS = ("CR", "DX", "MG", "XA", "RF", "RG", "IO", "PX")
CALIBRATIONS = ("GEOMETRY", "FIDUCIAL")  # PixelSpacingCalibrationType, PS3.3 10.7.1.2
CENTIMETRES = 3  # Physical Units, PS3.3 C.8.5.5.1.15
PLANE = 1  # Region Spatial Format: 2D tissue or flow


@dataclass(frozen=True)
class PixelScale:
    """The size of a pixel, as far as it is known.

    spacing: (between rows, between columns) mm in the patient; None where that is not known
    """

    spacing: tuple[float, float] | None = None
    facts: FileFacts = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def geometry(self, shape: tuple[int, int]) -> Geometry:
        """The grid of a picture of this size."""
        return Geometry.of_pixels(shape) if self.spacing is None else Geometry.of_spacing(shape, self.spacing)


def pixel_scale(dataset: DicomDataset, where: str) -> PixelScale:
    """The size of a pixel of a picture without position, or a note on its sides. PS3.3 10.7.1.3, C.8.5.5, C.7.6.3.1.7

    Raises FormatError for a spacing that cannot be.
    """
    scale = _stated_scale(dataset, where)
    if scale.spacing is not None:
        return scale
    names = ("PixelAspectRatio", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelSpacing")
    stated = (tags.numbers(dataset, name, where) for name in names)
    height, width = next((one for one in stated if one is not None and len(one) == 2), (0.0, 0.0))
    return replace(scale, notes=(*scale.notes, *pixel_aspect.aspect_notes(width, height)))


def _stated_scale(dataset: DicomDataset, where: str) -> PixelScale:
    spacing = _spacing(dataset, "PixelSpacing", where)
    if tags.text(dataset, "Modality") in PROJECTIONS:
        return _projection(dataset, spacing, where)
    facts = _aspect(dataset, where)
    if spacing is not None:
        return PixelScale(spacing)
    nominal = _spacing(dataset, "NominalScannedPixelSpacing", where)
    if nominal is not None:
        return PixelScale(facts={**facts, "nominal_scanned_pixel_spacing": nominal})
    return _ultrasound(dataset, facts, where)


def _projection(dataset: DicomDataset, spacing: tuple[float, float] | None, where: str) -> PixelScale:
    """Only a calibrated Pixel Spacing is in the patient: one stated to be, or one that differs from the detector's."""
    detector = _spacing(dataset, "ImagerPixelSpacing", where)
    facts = _aspect(dataset, where)
    if detector is not None:
        facts = {**facts, "imager_pixel_spacing": detector}
    if spacing is None:
        note = ("the pixel spacing is known at the detector only, not in the patient",) if detector else ()
        return PixelScale(None, facts, note)
    calibration = tags.text(dataset, "PixelSpacingCalibrationType").upper()
    if calibration in CALIBRATIONS:
        return PixelScale(spacing, facts, (f"pixel spacing calibrated by {calibration.lower()}",))
    if detector is not None and not np.allclose(spacing, detector, rtol=1e-6):
        return PixelScale(spacing, facts, ("pixel spacing differs from the detector's, so it is taken as calibrated",))
    facts = {**facts, "imager_pixel_spacing": spacing}
    return PixelScale(
        None, facts, ("PixelSpacing (0028,0030) is not calibrated: it is at the detector, not in the patient",)
    )


def _ultrasound(dataset: DicomDataset, facts: FileFacts, where: str) -> PixelScale:
    """A calibrated region is the picture's scale only where it is the one region and covers everything."""
    regions = tags.items(dataset, "SequenceOfUltrasoundRegions")
    rows, columns = tags.lenient_number(dataset, "Rows") or 0, tags.lenient_number(dataset, "Columns") or 0
    if not regions:
        return PixelScale(None, facts)
    region = regions[0]
    bounds = [tags.lenient_number(region, f"RegionLocation{name}") for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
    steps = [tags.single_number(region, f"PhysicalDelta{axis}", where) for axis in "YX"]
    units = [tags.lenient_number(region, f"PhysicalUnits{axis}Direction") for axis in "XY"]
    flat = units == [CENTIMETRES] * 2 and tags.lenient_number(region, "RegionSpatialFormat") == PLANE and all(steps)
    covers_picture = None not in bounds and bounds[0] == bounds[1] == 0 and bounds[2:] in _ends(rows, columns)
    if len(regions) == 1 and flat and covers_picture:
        return PixelScale(
            (abs(steps[0] or 0) * 10, abs(steps[1] or 0) * 10), facts, ("pixel size from the one region",)
        )
    facts = {**facts, "ultrasound_regions": len(regions)}
    return PixelScale(
        None, facts, ("calibrated regions cover only parts of the picture, so pixels have no size in mm",)
    )


def _ends(rows: float, columns: float) -> list[list[float]]:
    """The last pixel; some writers give the size instead."""
    return [[columns - 1, rows - 1], [columns, rows]]


def _aspect(dataset: DicomDataset, where: str) -> FileFacts:
    ratio = tags.numbers(dataset, "PixelAspectRatio", where)
    return {"pixel_aspect_ratio": ratio} if ratio is not None and len(set(ratio)) > 1 else {}


def _spacing(dataset: DicomDataset, keyword: str, where: str) -> tuple[float, float] | None:
    spacing = tags.numbers(dataset, keyword, where)
    if spacing is None:
        return None
    if len(spacing) != 2 or min(spacing) <= 0:
        shown = "\\".join(f"{x:g}" for x in spacing)
        raise FormatError(
            f"{tags.keyword_with_tag(keyword)} is {shown}", where, "Correct the attribute, or export the file again"
        )
    return spacing[0], spacing[1]


def frame_times(dataset: DicomDataset, count: int) -> tuple[tuple[float, ...] | None, tuple[str, ...]]:
    """(s of each frame from the first, notes); None where the object states no time. PS3.3 C.7.6.5.1.1"""
    try:
        vector = tags.numbers(dataset, "FrameTimeVector", "")
    except FormatError:
        vector = None
    notes: tuple[str, ...] = ()
    if vector is not None and len(vector) != count:
        stated = f"{tags.keyword_with_tag('FrameTimeVector')} has {len(vector)} values for {count} frames"
        vector, notes = None, (f"{stated}, and is not used",)
    if vector is not None:
        if min(vector[1:], default=1) <= 0:
            return None, (f"times are not known: those of {tags.keyword_with_tag('FrameTimeVector')} do not rise",)
        return tuple(round(float(t), 6) for t in np.cumsum(np.array([0.0, *vector[1:]])) / 1000), ()
    step = tags.lenient_number(dataset, "FrameTime") or 0
    if step > 0:
        return tuple(round(n * step / 1000, 6) for n in range(count)), notes
    for keyword in ("CineRate", "RecommendedDisplayFrameRate"):
        if (rate := tags.lenient_number(dataset, keyword) or 0) > 0:
            return tuple(round(n / rate, 6) for n in range(count)), (*notes, f"times from {keyword}: for display")
    if "FrameTime" in dataset:
        notes = (*notes, f"times are not known: {tags.keyword_with_tag('FrameTime')} is {step:g} ms")
    return None, notes
