"""Facts of a series that rules ask for: its headers and its geometry."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any

from hilum.errors import FormatError, HilumError
from hilum.files.dicom import header_reading, library_warnings
from hilum.files.dicom.reading import series_survey
from hilum.files.dicom.reading.picture_scale import PROJECTIONS
from hilum.files.dicom.stated_patients import StatedPatient
from hilum.layouts import DatasetOptions, dataset_layouts
from hilum.lazy import pydicom
from hilum.values import Case, Image, PlainValue

# Values of these kinds are no text, or too long for one.
LEFT_OUT = frozenset({"SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN", "UT"})
LONGEST = 1024
LONGEST_CODE = 16  # of a code string, PS3.5 6.2
SERIES = "series"
IDENTIFIERS = ("PatientID", "IssuerOfPatientID", "PatientName")
LARGEST_NUMBER = 2**31 - 1  # of a column, and of an integer string, PS3.5 6.2


# Attributes of a DICOM file by their keywords, as JSON and tables hold them; several values are a list.
HeaderValue = int | float | str
HeaderAttributes = Mapping[str, HeaderValue | Sequence[HeaderValue]]


@dataclass(frozen=True)
class SeriesFacts:
    """The facts of a series without its pixels; geometry is None where there is none, and `problem` says why.

    Of several radiographs it is what all have alike.

    attributes: {DICOM keyword: value} of its first object; several values are a list
    spacing_mm, field_of_view_mm: along each axis of the voxels; orientation: such as LPS
    is_localizer: as `SeriesFiles`
    """

    series: str
    uid: str
    instances: int = 0
    modality: str = ""
    spacing_mm: Sequence[float] | None = None
    shape: Sequence[int] | None = None
    orientation: str | None = None
    field_of_view_mm: Sequence[float] | None = None
    frames: int | None = None
    problem: str | None = None
    is_localizer: bool = False
    attributes: HeaderAttributes = field(default_factory=dict)

    @classmethod
    def of_row(cls, row: Any) -> SeriesFacts:
        """Read a row of the records."""
        stored = row._mapping
        columns = {one.name: stored[one.name] for one in fields(cls) if one.name in stored}
        attributes = stored["attributes"] or {}
        return cls(**{**columns, "attributes": attributes, "is_localizer": bool(stored["is_localizer"])})

    @property
    def slices(self) -> int:
        """Planes of the volume; where there is none, how many objects there are."""
        return self.shape[2] if self.shape is not None and len(self.shape) > 2 else self.instances

    def value(self, key: str) -> Any:
        """A fact of geometry, or an attribute by its keyword; None where it is not known."""
        if key == "localizer":
            return self.is_localizer
        if key == "Modality":
            return self.modality or self.attributes.get(key)
        if key in GEOMETRY:
            return getattr(self, key)
        return self.attributes.get(key)

    @property
    def columns(self) -> dict[str, PlainValue]:
        """The columns that the records keep of it; the station's name only as a hash."""
        header = self.attributes
        station = header.get("StationName")
        columns = {name: value for name, value in asdict(self).items() if name not in ("series", "uid")}
        return {
            **columns,
            "manufacturer": _text(header.get("Manufacturer")),
            "model": _text(header.get("ManufacturerModelName")),
            "station": hashlib.sha256(str(station).encode()).hexdigest()[:32] if station else None,
            "software": _text(header.get("SoftwareVersions")),
            "protocol": _text(header.get("ProtocolName")),
            "kernel": _text(header.get("ConvolutionKernel")),
            "field_strength": _number(header.get("MagneticFieldStrength")),
        }


GEOMETRY = ("spacing_mm", "slices", "orientation", "field_of_view_mm", "frames", "shape")


def read_series_facts(series: str, uid: str, folder: Path) -> SeriesFacts:
    """The facts of the series whose objects lie in a folder, each in a file of its own."""
    paths = sorted(folder.glob("*.dcm"))
    if not paths:
        return SeriesFacts(series, uid, problem="every object of the series is rejected")
    try:
        header = header_attributes(paths[0])
    except FormatError as error:
        return SeriesFacts(series, uid, len(paths), problem=error.problem)
    series_facts = SeriesFacts(
        series,
        uid,
        len(paths),
        str(header.get("Modality") or "")[:LONGEST_CODE],
        frames=_number(header.get("NumberOfFrames")),
        attributes=header,
    )
    try:
        series_facts = replace(
            series_facts, is_localizer=any(one.is_localizer for one in series_survey.survey_folder(folder).series)
        )
        grids = [
            _grid(image, series_facts.frames) for case in cases_of_series(folder) for image in case.images.values()
        ]
    except HilumError as error:
        return replace(series_facts, problem=error.problem)
    alike = {name: value for name, value in grids[0].items() if all(grid[name] == value for grid in grids)}
    return replace(series_facts, **{**dict.fromkeys(grids[0]), **alike})


def stated_patient(attributes: HeaderAttributes) -> StatedPatient:
    """The patient whom a header's attributes state."""
    number, issuer, name = (str(attributes.get(keyword) or "").strip() for keyword in IDENTIFIERS)
    return StatedPatient(number, issuer, name)


@contextmanager
def link_series_folder(paths: Sequence[Path]) -> Iterator[Path]:
    """Objects of a series alone in a folder, as links: neither those that came later nor those that are rejected."""
    with tempfile.TemporaryDirectory(prefix="hilum-series-") as folder:
        for path in paths:
            (Path(folder) / path.name).symlink_to(path.absolute())
        yield Path(folder)


def cases_of_series(folder: Path) -> list[Case]:
    """The cases of the series in a folder: its one volume, or of radiographs each view, as of a data set.

    Raises FormatError for a series of several volumes or patients, or one of whose views cannot be read.
    """
    cases = list(dataset_layouts.read_dataset(folder, DatasetOptions(references=False, channels=1)))
    if (people := len({case.patient for case in cases})) > 1:
        raise FormatError(f"the series holds images of {people} patients", SERIES, "Send each patient's series alone")
    images = [image for case in cases for image in case.images.values()]
    are_views = all(image.modality in PROJECTIONS and len(image.geometry.shape) == 2 for image in images)
    files = len(list(folder.glob("*.dcm")))
    if cases and are_views and len(cases) < files:
        problem = f"{files - len(cases)} of {files} images of the series cannot be read"
        raise FormatError(problem, SERIES, "Nothing is predicted of a part of a series")
    if len(cases) != 1 and not (cases and are_views):
        problem = f"the series holds {len(cases)} images, and a job takes one"
        raise FormatError(problem, SERIES, "Let a rule take a series of one volume")
    return cases


def _grid(image: Image, frames: int | None) -> dict[str, Any]:
    """The facts of an image's geometry; frames: as its header states them."""
    geometry, spacing = image.geometry, image.geometry.spacing
    return {
        "spacing_mm": spacing and [float(step) for step in spacing],
        "shape": [int(size) for size in geometry.shape],
        "orientation": geometry.orientation,
        "field_of_view_mm": spacing and [float(n * step) for n, step in zip(geometry.shape, spacing, strict=True)],
        "frames": image.frames or frames,
    }


def header_attributes(path: Path) -> dict[str, HeaderValue | list[HeaderValue]]:
    """Attributes of a DICOM file by their keywords, as JSON and tables can hold them; neither pixels nor sequences.

    A number is a number, any other value a text; several values are a list.
    Raises FormatError for a header that is damaged, or grows beyond all measure where it is deflated.
    """
    attributes = {}
    with library_warnings.collect_warnings():  # what is odd is said with its value, which may be a patient's
        for element in header_reading.read_header(path).library:
            if not element.keyword or element.VR in LEFT_OUT or element.is_empty:
                continue
            several = isinstance(element.value, pydicom.multival.MultiValue | list)
            values = [_plain(value) for value in (element.value if several else [element.value])]
            attributes[element.keyword] = values if several else values[0]
    return attributes


def _plain(value: Any) -> HeaderValue:
    """A number or a text; of a decimal string its number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if (isinstance(value, float) or type(value).__name__ == "DSdecimal") and isfinite(value):
        return float(value)
    # PostgreSQL takes no zero in a text, and UTF-8 no half of a pair.
    return str(value).replace("\0", "").encode(errors="replace").decode()[:LONGEST]


def _number(value: Any) -> Any:
    """A number; None for several, what is none, or what no column holds."""
    return value if isinstance(value, int | float) and abs(value) <= LARGEST_NUMBER else None


def _text(value: Any) -> str | None:
    """Several values as one text."""
    return "\\".join(map(str, value)) if isinstance(value, list) else None if value is None else str(value)
