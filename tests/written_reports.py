"""Structured reports written by highdicom: outlines on images that `written_dicom` wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

NODULE = sr.CodedConcept("27925004", "SCT", "Nodule")
CYST = sr.CodedConcept("367643001", "SCT", "Cyst")


def headers(folder: Path) -> list[Dataset]:
    """Of all images under a folder, as complete as a report copies them."""
    found = []
    for path in sorted(folder.rglob("*.dcm")):
        dataset = pydicom.dcmread(path)
        for keyword in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
            setattr(dataset, keyword, dataset.get(keyword, None))
        dataset.ReferringPhysicianName = None
        found.append(dataset)
    return found


def outline(image: Dataset, points: Any, graphic: str = "POLYLINE", frames: Sequence[int] | None = None) -> Any:
    """A region in pixels: columns and rows from the corner of the first one."""
    source = sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID, frames)
    return sr.ImageRegion(sr.GraphicTypeValues(graphic), np.array(points, float), source)


def rectangle(image: Dataset, x0: float, y0: float, x1: float, y1: float) -> Any:
    return outline(image, [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)])


def planar(region: Any, finding: Any = NODULE, tracking: str | None = None, **more: Any) -> Any:
    """A measurement group of one outline, TID 1410."""
    named = sr.TrackingIdentifier(uid=tracking or highdicom.UID(), identifier="region")
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        referenced_region=region, tracking_identifier=named, finding_type=finding, **more
    )


def volumetric(finding: Any = NODULE, **region: Any) -> Any:
    """A measurement group of several outlines or of a surface, TID 1411."""
    named = sr.TrackingIdentifier(uid=highdicom.UID(), identifier="region")
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=named, finding_type=finding, **region
    )


def report(path: Path, evidence: Sequence[Dataset], groups: Sequence[Any]) -> Path:
    """A measurement report, TID 1500."""
    observer = sr.ObserverContext(
        codes.DCM.Device, sr.DeviceObserverIdentifyingAttributes(uid=highdicom.UID(), name="tests")
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=sr.CodedConcept("25045-6", "LN", "CT unspecified body region"),
        imaging_measurements=list(groups),
    )
    made = sr.Comprehensive3DSR(
        evidence=list(evidence),
        content=content,
        series_number=7,
        series_instance_uid=highdicom.UID(),
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="tests",
        is_complete=True,
    )
    made.save_as(path)
    return path
