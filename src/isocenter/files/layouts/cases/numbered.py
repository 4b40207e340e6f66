"""Patients of DICOM by their numbers in a table: one PatientID of two issuers belongs to two people."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from isocenter.errors import DatasetError, FormatError
from isocenter.files import dicom
from isocenter.files.storage import pseudonym_of_number


class Numbered:
    """The pseudonyms of patients whose PatientIDs a table may state, without the issuer that files name too."""

    def __init__(self, files: Iterable[Path], where: str) -> None:
        """files: one of each case, in whose headers issuers are looked up, once; where: what a refusal names."""
        self._files, self._where = files, where

    def patients(self, number: str, known: Container[str]) -> Sequence[str]:
        """Those of the known pseudonyms that this number stands for: of no issuer, else of the only one of the files.

        DatasetError where several issuers gave numbers, and this is one of them.
        """
        people = self.candidates(number, known)
        if people and pseudonym_of_number(number) not in known and len(self._issuers) > 1:
            problem = f"{len(self._issuers)} issuers gave the PatientIDs, and one number may be of several people"
            remedy = "Name patients as in cases.csv of an evaluation, or images by their files or folders"
            raise DatasetError(problem, self._where, remedy)
        return people

    def candidates(self, number: str, known: Container[str]) -> Sequence[str]:
        """Those of the known pseudonyms that this number may stand for: of no issuer, else of any of the files."""
        if (own := pseudonym_of_number(number)) in known:
            return (own,)
        return [one for issuer in self._issuers if (one := pseudonym_of_number(number, issuer)) in known]

    @cached_property
    def _issuers(self) -> frozenset[str]:
        issuers = set()
        for path in self._files:
            with suppress(FormatError):  # a case of another format has no issuer
                issuers.add(dicom.text(dicom.read_header(path).dataset, "IssuerOfPatientID"))
        return frozenset(issuers - {""})
