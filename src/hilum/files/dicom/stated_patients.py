"""Patients as headers state them, and whether the headers of one study state several. PS3.3 C.7.1.1"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hilum.files.dicom import tags
from hilum.files.dicom.elements import DicomDataset
from hilum.files.storage import hashing


@dataclass(frozen=True)
class StatedPatient:
    """What one header states of its patient.

    number: PatientID; issuer: IssuerOfPatientID; name: PatientName, which counts where no number is anybody's
    """

    number: str = ""
    issuer: str = ""
    name: str = ""

    @classmethod
    def of_dataset(cls, dataset: DicomDataset) -> StatedPatient:
        """Read the patient of an object; the name only where there is no number, for it takes longer."""
        number = tags.text(dataset, "PatientID")
        name = tags.text(dataset, "PatientName") if hashing.is_nobody(number) else ""
        return cls(number, tags.text(dataset, "IssuerOfPatientID"), name)

    @property
    def identifier(self) -> str:
        """The number, else the name; empty where neither is anybody's, as of "anonymous"."""
        return next((text for text in (self.number, self.name) if not hashing.is_nobody(text)), "")

    def identity(self, study_uid: str) -> str:
        """What pseudonyms are made of, equal for one person; where nobody is named, the study stands for one."""
        return f"{self.issuer}\0{self.identifier or study_uid}"


def mixed_people(patients: Iterable[StatedPatient]) -> list[str]:
    """The patients of a study, by number and issuer, else by name; empty where they are one.

    A header without a number, or without an issuer, is of any of them: scanners and workstations leave it out.
    """
    stated = list(patients)
    people = {(one.number, one.issuer) for one in stated if not hashing.is_nobody(one.number)}
    if not people:
        names = [one.name for one in stated if not hashing.is_nobody(one.name)]
        people = {(" ".join(name.replace("^", " ").upper().split()), "") for name in names}
    numbers_with_issuer = {number for number, issuer in people if issuer}
    distinct = sorted(person for person in people if person[1] or person[0] not in numbers_with_issuer)
    if len(distinct) < 2:
        return []
    return [f"{number} of {issuer}" if issuer else number for number, issuer in distinct]
