"""A label map as Label Map Segmentation, PS3.3 A.51: one frame a plane, and not one a segment and plane."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from highdicom.seg import SegmentationTypeValues

from isocenter.files.dicom.writing.answers import Result, answer_path
from isocenter.files.dicom.writing.seg import write_segmentation

SERIES_NUMBER = 102


def label_maps(result: Result, path: Path) -> Iterator[Path]:
    """An object for each label map of a result."""
    for part, mask, labels in result.label_maps:
        target = answer_path(path, "labelmap", part)
        write_segmentation(
            mask,
            labels,
            result.source,
            target,
            algorithm_name=result.algorithm,
            description="Label map",
            series_number=SERIES_NUMBER,
            form=SegmentationTypeValues.LABELMAP,
        )
        yield target
