"""Elements that a result repeats from its source letter for letter: highdicom would parse them, and refuse odd ones."""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset

from isocenter.files.dicom.header import read_header

# Sites write birth dates such as 17.03.1962, and sexes such as D or X. A PACS knows the patient by just these.
AS_STATED = ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime")


def repeat_as_stated(made: Dataset, source: Path) -> None:
    """Give a result these values of its source, of which `completed` has hidden them from highdicom."""
    stated = read_header(source).library
    for keyword in AS_STATED:
        if keyword in stated:
            made[keyword] = stated[keyword]
