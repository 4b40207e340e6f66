"""The report that a newer one replaces, as the newer one names it. PS3.3 C.17.2"""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset

from isocenter.files.dicom.identity import read_identity


def name_predecessor(report: Dataset, earlier: Path) -> None:
    """Have a report name the earlier one that it replaces. Raises FormatError where that is no DICOM object."""
    identity = read_identity(earlier)
    named, series, document = Dataset(), Dataset(), Dataset()
    named.ReferencedSOPClassUID, named.ReferencedSOPInstanceUID = identity.sop_class, identity.instance
    series.SeriesInstanceUID, series.ReferencedSOPSequence = identity.series, [named]
    document.StudyInstanceUID, document.ReferencedSeriesSequence = identity.study, [series]
    report.PredecessorDocumentsSequence = [document]
