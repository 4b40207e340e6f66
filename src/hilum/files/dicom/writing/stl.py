"""Surfaces as Encapsulated STL, PS3.3 A.85.1: LPS mm, and one object a structure, because STL knows no names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from highdicom.color import CIELabColor
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from hilum.files import surface_mesh
from hilum.files.dicom import header_reading
from hilum.files.dicom.uids import ENCAPSULATED_STL
from hilum.files.dicom.writing import dicom_answers, new_object, source_planes
from hilum.files.dicom.writing.dicom_answers import Result
from hilum.files.surface_mesh import SurfaceMesh
from hilum.values import Label

SERIES_NUMBER = 104
MILLIMETRE = CodedConcept("mm", "UCUM", "mm")


def surface_objects(result: Result, path: Path) -> Iterator[Path]:
    """An object for each structure that has a voxel, numbered from 1 through each label map.

    Raises FormatError for an image that is no volume in mm, and for one without a frame of reference.
    """
    where, geometry = str(path), result.source.geometry
    slices = source_planes.source_slices(result.source, where)
    source_planes.refuse_placeless(slices, result.source, where)
    first = slices[0].frame.path
    with new_object.make_on_source("surface", where):
        head = source_planes.source_file_headers(slices)[0]
    files = dict.fromkeys(part.frame.path for part in slices)
    images = [source_planes.reference_object(header_reading.read_header(file).dataset) for file in files]
    for part, mask, labels in result.label_maps:
        for number, (label, surface) in enumerate(
            surface_mesh.surfaces_of_structures(mask, labels, geometry, where), start=1
        ):
            target = dicom_answers.path_of_object(path, "stl", part, number)
            with new_object.make_on_source("surface", where):
                stl = _object(label, surface, head, images, result.algorithm)
            new_object.save_object(stl, first, [label.name], target, overwrite=False)
            yield target


def _object(label: Label, surface: SurfaceMesh, head: Dataset, images: Sequence[Dataset], algorithm: str) -> Dataset:
    stl = new_object.create_object(
        ENCAPSULATED_STL, "M3D", ExplicitVRLittleEndian, head, SERIES_NUMBER, f"Surface {label.name}"
    )
    stl.FrameOfReferenceUID, stl.PositionReferenceIndicator = head.FrameOfReferenceUID, None
    now = datetime.now()
    stl.ContentDate, stl.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    stl.AcquisitionDateTime, stl.BurnedInAnnotation = None, "NO"
    stl.DocumentTitle, stl.ContentDescription = label.name[:1024], algorithm[:64]  # ST and LO, PS3.5 6.2
    stl.ConceptNameCodeSequence = []
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = head.SeriesInstanceUID, list(images)
    stl.SourceInstanceSequence, stl.ReferencedSeriesSequence = list(images), [series]
    stl.MeasurementUnitsCodeSequence = [MILLIMETRE]
    stl.ModelModification, stl.ModelMirroring = "NO", "NO"
    if label.colour:
        stl.RecommendedDisplayCIELabValue = list(CIELabColor.from_rgb(*label.colour).value)
    stl.MIMETypeOfEncapsulatedDocument = "model/stl"
    document = surface_mesh.stl_bytes(surface.in_lps(), "Hilum SPACE=LPS mm")
    stl.EncapsulatedDocumentLength = len(document)
    stl.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    return stl
