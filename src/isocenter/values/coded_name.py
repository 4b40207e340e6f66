"""Codes of a name: a structure, class, finding or value of a model in the words of DICOM, LOINC and other schemes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from isocenter.values.image import Code


@dataclass(frozen=True)
class CodedName:
    """The codes of one name, and who states them.

    codes:  equivalents, of which the first goes into DICOM; none where the name has a private code
    source: the file of codes, the data, or DICOM's dictionary
    unit:   of its value, where a file of codes states it
    """

    codes: tuple[Code, ...] = ()
    source: str = ""
    unit: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """Plain values for a model's record."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> CodedName:
        """Make a code from the plain values of a model's record."""
        codes = tuple(Code(one["scheme"], one["value"], one["meaning"]) for one in record["codes"])
        return cls(codes, str(record["source"]), str(record["unit"]))
