"""The folder that may be handed on, and the private one beside it: report, way back, what waits for a look."""

from __future__ import annotations

import csv
import filecmp
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NotRequired

import numpy as np

from hilum import errors
from hilum.deidentification import burned_in_text, coded_images
from hilum.deidentification.attribute_cleaning import CleaningRules
from hilum.deidentification.burned_in_text import HiddenPlaces
from hilum.deidentification.common_words import CommonWords
from hilum.deidentification.confidentiality_profile import EDITION, ConfidentialityProfile
from hilum.deidentification.dicom_objects import IdentifierSurvey, ObjectFacts
from hilum.deidentification.keyed_names import KeyedNames
from hilum.errors import FormatError, HilumError, ResourceError, UsageError
from hilum.files import file_formats, patient_names
from hilum.files.dicom import header_reading, library_warnings
from hilum.files.dicom.elements import MAGIC_END
from hilum.files.format_options import ReadOptions
from hilum.files.pictures import plain_picture
from hilum.files.storage import atomic, csv_text, folder_files
from hilum.report import Figure, ReportPage, Section, page_blocks
from hilum.runtime import record_files
from hilum.values import Image, PlainValue, personal_columns
from hilum.values.record_schema import RecordHead, RecordSchema

TABLES = (".csv", ".tsv", ".txt")
REPORT, TABLE, REVIEW = "report.json", "table.csv", "review.html"
COLUMNS = ("kind", "original", "issuer", "new", "days")
OTHER_FOLDER = "Choose another --out"
LEAD = (
    "These files are not handed on yet. In a yellow frame is what may be text; it becomes black, as what is black "
    "already. Where more than this says who somebody is, leave the file out. Else give the command again, with "
    "--accept-review."
)
# {format: suffix that it is written with}; of pictures PNG and JPEG alone.
SUFFIXES = {"nifti": ".nii.gz", "nrrd": ".nrrd", "metaimage": ".mha", "tiff": ".tiff", "picture": ".png"}
PICTURES = (b"\x89PNG", b"\xff\xd8\xff")


@dataclass(frozen=True)
class HandedFile:
    """What became of one file.

    source, output: relative to the input and to the folder; output is None where nothing was written
    actions: number of elements by what was done to them
    text:    places with text that were blacked
    review:  why a person has to look at it first
    refused: why it is never handed on
    """

    source: str
    output: str | None = None
    actions: Mapping[str, int] = field(default_factory=dict)
    text: int = 0
    review: str | None = None
    refused: str | None = None
    remedy: str = ""

    def as_row(self) -> dict[str, PlainValue]:
        """The row of the report."""
        return {name: value for name, value in vars(self).items() if name != "remedy"}


class DeidentificationRecord(RecordHead):
    """What became of each file; of the private report also its key, by its id, and the options of the profile."""

    key: NotRequired[str]
    edition: NotRequired[str]
    options: NotRequired[list[str]]
    complete: NotRequired[bool]
    rows: list[dict[str, PlainValue]]


SCHEMA = RecordSchema("hilum.deidentified", DeidentificationRecord)


@dataclass(frozen=True)
class HandingPlan:
    """What is asked: inputs, the folder, the profile, the key's names, whether the way back is written."""

    inputs: Sequence[Path]
    out: Path
    profile: ConfidentialityProfile
    names: KeyedNames
    with_table: bool = False
    accept_review: bool = False

    @property
    def private(self) -> Path:
        """The folder of what may not be handed on."""
        return self.out.with_name(f"{self.out.name}.private")

    def refuse_misuse(self) -> None:
        """Raise UsageError for inputs that are not there, folders within each other, and a folder of others."""
        for path in self.inputs:
            if not path.exists():
                raise UsageError("there is no such file or folder", str(path), "Check the path")
            for own in (self.out, self.private):
                if folder_files.is_inside(own, path) or folder_files.is_inside(path, own):
                    problem = f"lies within {path}, or it within" if own == self.out else f"would lie within {path}"
                    raise UsageError(problem, str(own), OTHER_FOLDER)
        if self.out.exists() and not self.out.is_dir():
            raise UsageError("is no folder", str(self.out), OTHER_FOLDER)
        is_ours = (self.private / REPORT).is_file()
        if self.out.is_dir() and any(self.out.iterdir()) and not is_ours:
            raise UsageError("holds files that are not from here", str(self.out), OTHER_FOLDER)
        if is_ours:
            self._refuse_other_run(record_files.read_json(self.private / REPORT, SCHEMA))
        if (self.private / TABLE).is_file() and self.names.id not in {row["new"] for row in self.rows_before()}:
            self._refuse_key(self.private / TABLE)

    def _refuse_other_run(self, record: DeidentificationRecord) -> None:
        if record.get("key") != self.names.id:
            self._refuse_key(self.private / REPORT)
        if record.get("options") != sorted(self.profile.options):
            stated = ", ".join(record.get("options") or ["none"])
            problem = f"was written with other options ({stated})"
            raise UsageError(problem, str(self.out), f"{OTHER_FOLDER}, or give the same --options")

    def _refuse_key(self, path: Path) -> None:
        raise UsageError("was written with another key", str(path), "Give that key, or choose another --out")

    def rows_before(self) -> list[dict[str, str]]:
        """The rows of a way back that is there."""
        path = self.private / TABLE
        if not path.is_file():
            return []
        with path.open(encoding="utf-8", newline="") as file:
            return [{name: csv_text.unmark_cell(cell) for name, cell in row.items()} for row in csv.DictReader(file)]


def list_inputs(inputs: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """(name in the report, path) of every file; of several inputs the name begins with the input's own."""
    for given in inputs:
        before = Path(given.resolve().name) if len(inputs) > 1 else Path()
        if given.is_dir():
            for path in folder_files.files_below(given):
                yield (before / path.relative_to(given)).as_posix(), path
        else:
            yield given.name, given


class FolderHanding:
    """One run over all files: first a look at each, then one after the other is written; rows in their order."""

    def __init__(self, plan: HandingPlan) -> None:
        self.plan = plan
        self.rules = CleaningRules(plan.profile, plan.names, CommonWords())
        self.survey = IdentifierSurvey(self.rules)
        self.files = list(list_inputs(plan.inputs))
        self.rows: dict[str, HandedFile] = {}
        self.objects: dict[str, ObjectFacts] = {}
        self.paths = dict(self.files)
        self.written: dict[Path, str] = {}
        self.images: list[str] = []
        self.others: list[str] = []  # of no format that is handed on, if no image file names them as its own
        self.parts: dict[Path, str | None] = {}
        self.pictures: dict[str, bytes] = {}

    def run(self) -> list[HandedFile]:
        """All rows. Whatever ends it early, whole files and a report are left."""
        if not self.files:
            where = ", ".join(map(str, self.plan.inputs))
            raise UsageError("there is no file in it", where, "Give files, or a folder that holds some")
        self._make_folders()
        try:
            self._hand_on_all()
        except BaseException:
            with suppress(HilumError):  # a full disk, which the first error names already
                self._write_private(is_complete=False)
            raise
        self._write_private(is_complete=True)
        return list(self.rows.values())

    def _hand_on_all(self) -> None:
        for source, path in self.files:
            with self._refusing(source):
                self._examine(source, path)
        for source, path in sorted(self.files, key=lambda one: one[0] in self.others):
            if source not in self.rows:
                with self._refusing(source):
                    self.rows[source] = self._hand_on(source, path)

    def _make_folders(self) -> None:
        try:
            self.plan.out.mkdir(parents=True, exist_ok=True)
            self.plan.private.mkdir(mode=0o700, exist_ok=True)
            self.plan.private.chmod(0o700)
        except OSError as error:
            raise atomic.unwritable_error(error, self.plan.out) from error

    @contextmanager
    def _refusing(self, source: str) -> Iterator[None]:
        """One bad file never stops the others; a full disk does."""
        try:
            with library_warnings.collect_warnings(), errors.foreign_errors(lambda error: _unforeseen(error, source)):
                yield
        except (ResourceError, UsageError):
            raise
        except HilumError as error:
            self.rows[source] = HandedFile(source, refused=error.problem, remedy=error.remedy)

    def _examine(self, source: str, path: Path) -> None:
        if is_dicom(path):
            self.objects[source] = self.survey.examine(path)
        elif is_rewritable(path):
            self.images.append(source)
        else:
            self.others.append(source)

    def _hand_on(self, source: str, path: Path) -> HandedFile:
        if source in self.others:
            if (output := self.parts.get(path.resolve())) is not None:
                return HandedFile(source, output)
            raise _refusal_of_other(path)
        facts = self.objects.get(source)
        if facts is None:
            return self._hand_on_image(source, path)
        place = facts.output(self.plan.names, retain_uids="retain-uids" in self.plan.profile)
        place = self._free_path(place, path)
        if (known := self.written.setdefault(place, source)) != source:
            return replace(self.rows[known], source=source)
        hidden, actions = self.survey.write(facts, self.plan.out / place, accept=self.plan.accept_review)
        return self._row(source, place.as_posix() if actions else None, hidden, actions)

    def _hand_on_image(self, source: str, path: Path) -> HandedFile:
        name, number = self.names_of_images[source]
        output = Path(name, f"{name}_{number}")
        looks = "clean-pixels" in self.plan.profile
        written = write_anew(path, self.plan.out / output, looks=looks, accept=self.plan.accept_review)
        stated = (output.parent / written.name).as_posix() if written.name else None
        self.parts |= dict.fromkeys((Path(one).resolve() for one in written.parts), stated)
        return self._row(source, stated, written.hidden, {})

    def _row(self, source: str, output: str | None, hidden: HiddenPlaces, actions: Mapping[str, int]) -> HandedFile:
        review = describe(hidden) if hidden.needs_look else None
        if review and output is None:
            self.pictures[source] = hidden.picture
        return HandedFile(source, output, actions, text=len(hidden.places) if output else 0, review=review)

    @cached_property
    def names_of_images(self) -> dict[str, tuple[str, int]]:
        """{file: new name of the patient by the names of all files, number among the patient's}."""
        owners = patient_names.patients_of([Path(source).with_suffix("").as_posix() for source in self.images]).names
        count, names = Counter[str](), {}
        for source, owner in zip(self.images, owners, strict=True):
            count[owner] += 1
            names[source] = (self.plan.names.patient_of_number(owner, "file"), count[owner])
        return names

    def _free_path(self, output: Path, path: Path) -> Path:
        """The output, with a number behind its name where other content of the input has the same UID."""
        number, free = 1, output
        while (known := self.written.get(free)) is not None and not filecmp.cmp(self.paths[known], path, shallow=False):
            number += 1
            free = output.with_name(f"{output.stem}_{number}{output.suffix}")
        return free

    def _write_private(self, *, is_complete: bool) -> None:
        """The report, and the way back where it is asked for; after Ctrl-C of the files that were done."""
        self.rows = {source: self.rows[source] for source, _ in self.files if source in self.rows}
        record = {
            "key": self.plan.names.id,
            "edition": EDITION,
            "options": sorted(self.plan.profile.options),
            "complete": is_complete,
            "rows": [row.as_row() for row in self.rows.values()],
        }
        with atomic.write_whole(self.plan.private / REPORT, overwrite=True) as partial:
            record_files.write_json(partial, SCHEMA, record)
        if self.plan.with_table:
            self._write_table()
        if self.pictures:
            atomic.write_text(self.plan.private / REVIEW, render(self.pictures), overwrite=True)

    def _write_table(self) -> None:
        rows = {tuple(row[name] for name in COLUMNS): None for row in self.plan.rows_before()}
        rows |= dict.fromkeys([("key", "", "", self.plan.names.id, ""), *self._way_back()])
        with (
            atomic.write_whole(self.plan.private / TABLE, overwrite=True) as partial,
            partial.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv_text.CsvWriter(file, COLUMNS)
            for row in rows:
                writer.add(row)

    def _way_back(self) -> Iterator[tuple[str, ...]]:
        """Patients with the days by which their dates moved, studies, series, instances, and files."""
        names, profile = self.plan.names, self.plan.profile
        for source, facts in self.objects.items():
            row = self.rows.get(source)
            if row is None or row.output is None:
                continue
            days = str(names.days(facts.patient)) if "shift-dates" in profile else ""
            kind, original = ("patient", facts.number) if facts.number else ("patient of study", facts.study)
            yield kind, original, facts.issuer if facts.number else "", facts.patient, days
            _, study, series, instance = Path(row.output).parts
            uids = (
                (facts.study, study),
                (facts.series, series),
                (facts.instance, re.sub(r"(_\d+)?\.dcm$", "", instance)),
            )
            for level, (original, new) in zip(("study", "series", "instance"), uids, strict=True):
                yield level, original, "", new, ""


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its first bytes, or by its name where these are damaged."""
    try:
        with path.open("rb") as file:
            return header_reading.looks_like_dicom(file.read(MAGIC_END)) or (file_formats.format_of(path) == "dicom")
    except OSError as error:
        raise FormatError(f"cannot be read ({error.strerror})", str(path), "Check its rights") from error


def _refusal_of_other(path: Path) -> FormatError:
    """The refusal of a file of another kind; of a table it names the columns that say who somebody is."""
    problem, remedy = "is of a format that is not handed on", "Convert it first, or leave it out"
    if path.suffix.lower() in TABLES:
        with suppress(OSError, ValueError, HilumError):  # what is no table has no columns
            names = csv_text.read_text_table(path, separator=csv_text.separator_of(path), most=1).columns
            of_people = [str(name) for name in names if personal_columns.identifies_person(str(name))]
            if of_people:
                problem += f"; {errors.list_phrase(of_people)} say who somebody is"
                remedy = "Take these columns out, look at the others, and hand it on by hand"
    return FormatError(problem, str(path), remedy)


def _unforeseen(error: Exception, source: str) -> HilumError:
    """The refusal for what nobody foresaw, by its kind alone: its words may hold a value of the patient's."""
    if isinstance(error, OSError):
        raise atomic.unwritable_error(error, Path(source)) from error
    return FormatError(f"cannot be parsed ({type(error).__name__})", source, "Get the file again from its source")


# The page of what may be text: a picture of each file, for a person's eyes alone.


def describe(hidden: HiddenPlaces) -> str:
    """Why a person has to look."""
    places = f"{errors.count_phrase(len(hidden.unsure), 'place')} may be text" if hidden.unsure else ""
    return "; ".join(filter(None, (hidden.doubt, places)))


def render(pictures: Mapping[str, bytes]) -> str:
    """The page. pictures: {file: PNG}"""
    shown = [Figure(source, png, f"{source} with what may be text", wide=True) for source, png in pictures.items()]
    page = ReportPage("To be looked at", sections=[Section("Files", shown)], lead=LEAD)
    return page_blocks.render_page(page)


# Images of other formats: read and written anew, so that voxels and geometry pass and nothing else.
#
# A JPEG keeps its coded image to the byte and loses what stands beside it but its orientation.


@dataclass(frozen=True)
class RewrittenImage:
    """The name of what was written, empty where a person has to look first; the files that were read for it."""

    name: str
    parts: Sequence[str]
    hidden: HiddenPlaces


def is_rewritable(path: Path) -> bool:
    """Whether a file is of a format that is handed on."""
    with path.open("rb") as file:
        start = file.read(4)
    name = file_formats.format_of(path)
    return name in SUFFIXES and (name != "picture" or start.startswith(PICTURES))


def write_anew(path: Path, stem: Path, *, looks: bool, accept: bool) -> RewrittenImage:
    """Write an image under another name, with the suffix of its format. looks: black text of a picture

    Raises FormatError for what cannot be read or written.
    """
    image = file_formats.read_image(path, ReadOptions())
    hidden = _find(image) if looks and len(image.geometry.shape) == 2 and image.frames is None else HiddenPlaces()
    parts = () if image.source is None else image.source.paths
    if hidden.needs_look and not accept:
        return RewrittenImage("", parts, hidden)
    content = path.read_bytes()
    if content.startswith(PICTURES[1]) and not hidden.places:
        target = stem.with_name(f"{stem.name}.jpg")
        with atomic.write_whole(target, overwrite=True) as partial:
            orientation = plain_picture.exif_orientation(path)
            partial.write_bytes(coded_images.strip_jpeg(content, str(path), orientation=orientation))
        return RewrittenImage(target.name, parts, hidden)
    target = stem.with_name(stem.name + SUFFIXES[str(file_formats.format_of(path))])
    bare = replace(image, source=None, notes=(), labels=(), channels=_nameless(image.channels))
    if hidden.places:
        data = np.array(image.data)
        data[:, hidden.mask((data.shape[1], data.shape[2]))] = data.min()
        bare = replace(bare, pixels=data)
    file_formats.write(bare, target, overwrite=True)
    return RewrittenImage(target.name, parts, hidden)


def _nameless(channels: Sequence[str]) -> tuple[str, ...]:
    """The names of colours; none of what a file calls its channels."""
    own = tuple(channels)
    return own if own in plain_picture.CHANNELS.values() else ()


def _find(image: Image) -> HiddenPlaces:
    data = np.asarray(image.data)
    return burned_in_text.find_in_picture(np.moveaxis(data[:3], 0, -1) if len(data) >= 3 else data[0])
