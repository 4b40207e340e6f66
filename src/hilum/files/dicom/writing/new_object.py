"""Objects that open a series of their own on a source: who made them, what is refused, and how they are saved."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import highdicom
from pydicom.dataset import Dataset

from hilum.errors import FormatError
from hilum.files.dicom import elements, library_warnings, tags
from hilum.files.dicom.uids import IMPLICIT, MAKER
from hilum.files.dicom.writing import source_planes
from hilum.files.storage import atomic
from hilum.lazy import pydicom


def new_series_arguments(number: int, description: str) -> dict[str, Any]:
    """The arguments of highdicom for an object that opens a series of its own, made by this program."""
    return {
        "series_instance_uid": highdicom.UID(),
        "series_number": number,
        "sop_instance_uid": highdicom.UID(),
        "instance_number": 1,
        "manufacturer": MAKER,
        "manufacturer_model_name": "Hilum",
        "software_versions": version("hilum"),
        "device_serial_number": "0",
        "series_description": description[:64],  # LO, PS3.5 6.2
    }


def create_object(sop_class: str, modality: str, syntax: str, head: Dataset, number: int, description: str) -> Dataset:
    """An object without content of the same patient and study.

    head: of the source, as `complete_for_highdicom` gives it
    """
    dataset = highdicom.SOPClass(
        study_instance_uid=head.StudyInstanceUID,
        sop_class_uid=sop_class,
        modality=modality,
        transfer_syntax_uid=syntax,
        **new_series_arguments(number, description),
    )
    dataset.copy_patient_and_study_information(head)
    return dataset


@contextmanager
def make_on_source(what: str, where: str) -> Iterator[None]:
    """Make an object in silence; FormatError for what highdicom raises at a deficient source."""
    try:
        with (
            library_warnings.collect_warnings()
        ):  # highdicom warns about unusual names, and prints the patient's with the warning
            yield
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        problem = f"no {what} can be written on this source ({deficiency(error)})"
        raise FormatError(problem, where, "Write .nii.gz, or repair the source's header") from error


def deficiency(error: Exception) -> str:
    """What a source lacks, in words of DICOM: highdicom raises errors of Python at an attribute that is absent."""
    keyword = error.name if isinstance(error, AttributeError) else None
    if keyword is not None and elements.tag_of_keyword(keyword) is not None:
        return f"the image states no {tags.keyword_with_tag(keyword)}"
    if isinstance(error, KeyError) and pydicom.uid.UID(str(error.args[0])).is_valid:
        sop_class = pydicom.uid.UID(error.args[0])
        return f"highdicom does not know images of SOP class {sop_class}, {sop_class.name}"
    return str(error)


def save_object(dataset: Dataset, source: Path, names: Iterable[str], path: Path, *, overwrite: bool) -> None:
    """Write an object with the elements that it repeats from its source. names: that the result adds"""
    with (
        library_warnings.collect_warnings(),
        atomic.write_whole(Path(path), overwrite=overwrite) as partial,
    ):  # pydicom warns with values of the source
        source_planes.repeat_elements(dataset, source, names)
        dataset.save_as(partial, enforce_file_format=True)


LONGEST = 64  # of a component group of a person's name, and of a long string: PS3.5 6.2


@dataclass(frozen=True)
class ReadingPerson:
    """A person by the name of their account, and the organisation for which they read."""

    name: str
    organisation: str

    @property
    def person_name(self) -> str:
        """The name as a family name: nobody knows which of its words is the given one. PS3.5 6.2.1"""
        plain = re.sub(r"[\\^=\x00-\x1f\x7f]+", " ", self.name).strip()
        return f"{plain[: LONGEST - 1]}^"


def encode_dataset(dataset: pydicom.Dataset, syntax: str, where: str) -> bytes:
    """A data set without group 2, lowest byte first, its values as they are. PS3.5 A.1 and A.2

    syntax: of implicit or of explicit VR; where: its file
    Raises FormatError.
    """
    file = pydicom.filebase.DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = syntax == IMPLICIT, True
    try:
        with library_warnings.collect_warnings():
            pydicom.filewriter.write_dataset(file, dataset)
    except tags.pydicom_errors() as error:
        raise FormatError(
            f"cannot be put into {pydicom.uid.UID(syntax).name} ({error})", where, "Get it again"
        ) from error
    return bytes(file.getvalue())
