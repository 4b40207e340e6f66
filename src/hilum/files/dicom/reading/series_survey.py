"""The DICOM series of a folder or DICOMDIR, from headers only, without anybody's identity. PS3.10 7.1, PS3.3 F.3

A file that is lost is named: a volume that is one slice shorter looks like a whole one.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import groupby, pairwise, permutations
from pathlib import Path

import numpy as np

from hilum import errors
from hilum.errors import FormatError
from hilum.files.dicom import header_reading, library_warnings, stated_patients, tags
from hilum.files.dicom.elements import DicomDataset
from hilum.files.dicom.header_reading import Header
from hilum.files.dicom.object_identity import Originals
from hilum.files.dicom.stated_patients import StatedPatient
from hilum.files.dicom.tags import LONGEST_TEXT
from hilum.files.dicom.uids import STRUCTURE_SET
from hilum.files.storage import folder_files, hashing
from hilum.values import Floats, Image, covariate_values, grouping

# Storage classes, PS3.4 B.5: Segmentation, Label Map Segmentation and Surface Segmentation.
SEGMENTATIONS = tuple(f"1.2.840.10008.5.1.4.1.1.66.{n}" for n in (4, 7, 5))
# What is contoured on images: each instance is an object of its own with its own structures, PS3.3 A.51 and A.19.
CONTOURED = (*SEGMENTATIONS, STRUCTURE_SET)
LONGEST_NAME = 60
# Localizers have a few slices of each plane: scanners offer up to nine. A longer stack is an examination.
LOCALIZER_SLICES = 9
# Planes count as parallel, or as at right angles, within 15 degrees.
SLACK = np.sin(np.radians(15))
# Patient, study, series, SOP class, and of what is contoured on images the object.
Key = tuple[str, str, str, str, str]
OWN_SUFFIXES = (".dcm", ".dicom", ".ima")
# A number in a file name, which may be hexadecimal: what differs from slice to slice.
NUMBER_IN_NAME = re.compile(r"[0-9A-F]*[0-9][0-9A-F]*")


@dataclass(frozen=True)
class SeriesFiles:
    """The files of one series, as the headers describe them; of segmentations and structure sets one object each.

    patient:    pseudonym of the person who was scanned, see `hashing.make_pseudonym`
    study, uid: of study and series
    name:       safe for file names, made from the description, unique among the series that came with it
    paths:      in the order of instance numbers, which need not be the order of slices; of one object several only
                where they have the same UID and different contents
    sop_class:  UID; sop_class_name: in words
    is_image:   whether it is an image, and no segmentation
    is_localizer: whether it only served to plan other series, by its image type or by a few slices in crossing planes
    references: UIDs of the series that a segmentation, structure set or report is about
    covariates: age (years), sex, manufacturer, model, body part: as written, None where absent; field strength (T), kV
                and kernel where the header has them
    accession:  number of the order that the study answers; empty where it is not known
    is_nobodys: whether no patient is stated, so that the study stands for one
    instances:  {SOP Instance UID: the file of that object}
    """

    patient: str
    study: str
    uid: str
    name: str
    modality: str
    number: int | None
    description: str
    paths: tuple[Path, ...]
    sop_class: str
    sop_class_name: str
    frame_of_reference: str | None
    is_image: bool
    references: tuple[str, ...] = ()
    covariates: Mapping[str, float | str | None] = field(default_factory=dict)
    is_localizer: bool = False
    accession: str = ""
    is_nobodys: bool = False
    instances: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class SeriesSurvey:
    """All series under a folder, objects contoured on them one by one, and DICOM by start or name that cannot be read.

    copies: files that hold the same object as another file of their series, which are in no series
    rivals: {file: another file of its series, with the same UID and another content}
    mixed:  UIDs of the studies whose series state several patients
    """

    series: tuple[SeriesFiles, ...]
    damaged: tuple[FormatError, ...] = ()
    copies: tuple[Path, ...] = ()
    rivals: Mapping[Path, Path] = field(default_factory=dict)
    mixed: frozenset[str] = frozenset()


def list_series(folder: Path) -> list[SeriesFiles]:
    """The series under a folder. Raises FormatError at the first damaged file; `survey_folder` goes on."""
    surveyed = survey_folder(folder)
    if surveyed.damaged:
        raise surveyed.damaged[0]
    return list(surveyed.series)


def survey_folder(folder: Path) -> SeriesSurvey:
    """The series under a folder, and what is damaged there; of a DICOMDIR those of its folder, and what it lacks."""
    groups: dict[Key, _Gathered] = {}
    people: dict[str, str] = {}
    damaged: list[FormatError] = []
    with library_warnings.collect_warnings():  # what is odd about a header is noted when its series is read
        if folder.is_file():
            damaged += _lacking(folder)
        for path in dicom_files(folder.parent if folder.is_file() else folder):
            try:
                head = _member(path)
            except FormatError as error:
                damaged.append(error)
                continue
            if not head.is_directory:
                groups.setdefault(_key(head, people), _Gathered(head)).add(head)
        for key, whole in _series_of_incomplete({key: group.first for key, group in groups.items()}).items():
            groups[whole].join(groups.pop(key))
        ordered = [groups[key] for key in sorted(groups, key=lambda key: _place(key, groups[key].first))]
        names = unique_names([safe_name(group.first.dataset) for group in ordered])
        described = [_describe(group, name) for group, name in zip(ordered, names, strict=True)]
    copies = tuple(path for group in ordered for path in group.originals.copies)
    rivals = {path: first for group in ordered for path, first in group.originals.rivals.items()}
    return SeriesSurvey(tuple(described), tuple(damaged), copies, rivals, _mixed_studies(ordered))


def collect_headers(path: Path) -> list[Header]:
    """The headers of a file, of a folder, or of what a DICOMDIR lists.

    Raises FormatError for a damaged one: a series that has lost a slice unnoticed would be a guess.
    """
    if path.is_dir():
        heads = [_member(file) for file in dicom_files(path)]
        if not heads:
            raise FormatError("there is no DICOM file in this folder", str(path), "Give a folder of DICOM, or one file")
        return [head for head in heads if not head.is_directory] or heads
    head = header_reading.read_header(path)
    return [_member(file) for file in files_in_dicomdir(head)] if head.is_directory else [head]


def _member(path: Path) -> Header:
    """The header of one file among others.

    Raises FormatError for one that is not there, as where a link leads nowhere, and for an image that is cut short in
    its header: nothing shows of which series it was a slice. Each image states its series, PS3.3 C.7.3.1.
    """
    try:
        head = header_reading.read_header(path)
    except FileNotFoundError as error:
        problem = "is missing: a link to it leads nowhere, or it was moved"
        raise FormatError(problem, str(path), "Get it, as with `datalad get`, or take the link away") from error
    if head.is_image and not head.has_pixels and not tags.text(head.dataset, "SeriesInstanceUID"):
        raise FormatError(
            f"holds neither pixels nor {tags.keyword_with_tag('SeriesInstanceUID')}",
            head.where,
            "It is cut short: get the file again",
        )
    return head


def _lacking(dicomdir: Path) -> list[FormatError]:
    """The error of a DICOMDIR that lists what is not there."""
    try:
        files_in_dicomdir(header_reading.read_header(dicomdir))
    except FormatError as error:
        return [error]
    return []


def group_by_series(heads: Iterable[Header]) -> list[list[Header]]:
    """Headers by series; a file without series UID is its own. In an order that does not depend on file names."""
    people: dict[str, str] = {}
    groups = grouping.by_key((_key(head, people), head) for head in heads)
    for key, whole in _series_of_incomplete({key: group[0] for key, group in groups.items()}).items():
        groups[whole] += groups.pop(key)
    for group in groups.values():
        group.sort(key=_order)
    return [groups[key] for key in sorted(groups, key=lambda key: _place(key, groups[key][0]))]


def files_by_patient(groups: Iterable[Sequence[Header]]) -> dict[tuple[str, str], list[int]]:
    """{(study, series) whose files state several patients: how many files each of them has, most first}."""
    series = grouping.by_key((stated_series(group[0]), group) for group in groups)
    counts = {}
    for stated, parts in series.items():
        people = [StatedPatient.of_dataset(part[0].dataset) for part in parts]
        if stated[1] and stated_patients.mixed_people(people):
            counts[stated] = sorted((len(part) for part in parts), reverse=True)
    return counts


def stated_series(head: Header) -> tuple[str, str]:
    """The UIDs of study and series that a header states; empty where it states none."""
    return tags.text(head.dataset, "StudyInstanceUID"), tags.text(head.dataset, "SeriesInstanceUID")


def _key(head: Header, people: dict[str, str]) -> Key:
    """The series that a file belongs to, or the contoured object; people: the pseudonyms that are made already."""
    uid = tags.text(head.dataset, "SeriesInstanceUID") or str(head.path)
    contoured_object = (
        (tags.text(head.dataset, "SOPInstanceUID") or str(head.path)) if head.sop_class in CONTOURED else ""
    )
    identity = _identity(head.dataset)
    if identity not in people:
        people[identity] = hashing.make_pseudonym(identity)
    return people[identity], tags.text(head.dataset, "StudyInstanceUID"), uid, head.sop_class, contoured_object


def _series_of_incomplete(firsts: Mapping[Key, Header]) -> dict[Key, Key]:
    """{files that state no patient or no study: the one series that has their UID and all else that they state}.

    The UID of a series is that of no other one, PS3.3 C.7.3.1; where several have it, nobody knows which is meant.
    """
    stated = {
        key: [bool(tags.text(head.dataset, keyword)) for keyword in ("PatientID", "StudyInstanceUID")]
        for key, head in firsts.items()
    }
    whole = grouping.by_key((key[2:], key) for key in firsts if all(stated[key]))
    joined = {}
    for key in firsts:
        has_patient, has_study = stated[key]
        fitting = [
            other
            for other in whole.get(key[2:], [])
            if (other[0] == key[0] or not has_patient) and (other[1] == key[1] or not has_study)
        ]
        if len(fitting) == 1 and fitting != [key]:
            joined[key] = fitting[0]
    return joined


def _order(head: Header) -> tuple[float, str]:
    """The order of a file in its series, as far as the header shows it without geometry."""
    return tags.lenient_number(head.dataset, "InstanceNumber") or 0, str(head.path)


def _mixed_studies(groups: Iterable[_Gathered]) -> frozenset[str]:
    """The studies whose series state several patients; a series without a study is in none."""
    datasets = [group.first.dataset for group in groups]
    patients = grouping.by_key(
        (tags.text(dataset, "StudyInstanceUID"), StatedPatient.of_dataset(dataset)) for dataset in datasets
    )
    return frozenset(study for study, stated in patients.items() if study and stated_patients.mixed_people(stated))


def _place(key: Key, first: Header) -> tuple[str, str, float, tuple[str, ...], float, str]:
    """The order of a series among others, and of an object in its series."""
    series, instance = (
        tags.lenient_number(first.dataset, keyword) or 0 for keyword in ("SeriesNumber", "InstanceNumber")
    )
    return key[0], key[1], series, key[:4], instance, key[4]


class _Gathered:
    """The files of one series; of a hundred thousand headers only the first of each series is kept."""

    def __init__(self, first: Header) -> None:
        self.first = first
        self.members: list[tuple[tuple[float, str], Path]] = []
        self.orientations = Counter[tuple[str, ...]]()
        self.originals = Originals()

    def add(self, head: Header) -> None:
        """Take one more file of the series; a copy of one that is there counts for nothing."""
        if not self.originals.add(head):
            return
        self.members.append((_order(head), head.path))
        self.orientations[tags.words(head.dataset, "ImageOrientationPatient")] += 1
        self.first = min(self.first, head, key=_order)

    def join(self, other: _Gathered) -> None:
        """Take the files of another group, which belong to this series."""
        self.members += other.members
        self.orientations += other.orientations
        self.originals.join(other.originals)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files in the order of their instance numbers."""
        return tuple(path for _, path in sorted(self.members))

    @property
    def crosses_planes(self) -> bool:
        """Whether it has a few slices in each of two or three planes at right angles, as localizers of MR have.

        Some scanners write OTHER, not LOCALIZER, as the image type of these.
        """
        if len(self.orientations) < 2 or len(self.members) > 3 * LOCALIZER_SLICES:
            return False
        normals = [_normal(orientation) for orientation in self.orientations]
        apart: list[list[int]] = []  # slices of each plane, by their place in `normals`
        for n, normal in enumerate(normals):
            same = (plane for plane in apart if abs(normals[plane[0]] @ normal) > np.sqrt(1 - SLACK**2))
            if (plane := next(same, None)) is not None:
                plane.append(n)
            else:
                apart.append([n])
        axes = np.array([normals[plane[0]] for plane in apart])
        counts = list(self.orientations.values())
        is_short = all(sum(counts[n] for n in plane) <= LOCALIZER_SLICES for plane in apart)
        return is_short and len(axes) in (2, 3) and np.allclose(axes @ axes.T, np.eye(len(axes)), rtol=0, atol=SLACK)


def _normal(orientation: tuple[str, ...]) -> Floats:
    """(3,) the normal of a slice; zeros where its orientation is missing or damaged."""
    try:
        row, column = np.array(orientation, dtype=np.float64).reshape(2, 3)
    except ValueError:
        return np.zeros(3)
    return np.cross(row, column)


def unique_names(names: list[str]) -> list[str]:
    """Names that occur once stay; others get _1, _2 in order."""
    count, so_far = Counter(names), Counter[str]()
    taken = {name for name in names if count[name] == 1}
    different = []
    for name in names:
        if count[name] == 1:
            different.append(name)
            continue
        so_far[name] += 1
        while f"{name}_{so_far[name]}" in taken:
            so_far[name] += 1
        taken.add(f"{name}_{so_far[name]}")
        different.append(f"{name}_{so_far[name]}")
    return different


def safe_name(dataset: DicomDataset) -> str:
    """A name for files from what was scanned; never from who was scanned."""
    for keyword in ("SeriesDescription", "ProtocolName", "StudyDescription", "Modality"):
        entry = tags.text(dataset, keyword)
        description = safe_text(entry).strip("._-")[:LONGEST_NAME]
        if description and not names_the_patient(dataset, entry):
            return description
    return "image"


def safe_text(name: str) -> str:
    """A name of characters that every file system takes."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name)


def pseudonym_from_header(dataset: DicomDataset) -> str:
    """A pseudonym that is equal for one person; without an identifier, or of "anonymous", the study stands for one."""
    return hashing.make_pseudonym(_identity(dataset))


def stated_patient_pseudonym(image: Image) -> str | None:
    """A pseudonym of the patient whom an image's own DICOM files name; None of another image, or of nobody named."""
    if image.source is None or not image.source.is_dicom:
        return None
    head = header_reading.read_header(Path(image.source.paths[0])).dataset
    return hashing.make_pseudonym(_identity(head)) if StatedPatient.of_dataset(head).identifier else None


def acquisition_day(image: Image) -> date | None:
    """The day on which a DICOM image was taken; None of another image, or where its files do not state it."""
    if image.source is None or not image.source.is_dicom:
        return None
    head = header_reading.read_header(Path(image.source.paths[0])).dataset
    dates = (tags.text(head, f"{kind}Date").replace(".", "") for kind in ("Acquisition", "Content", "Series", "Study"))
    for day in dates:
        with suppress(ValueError):
            return datetime.strptime(day[:8], "%Y%m%d").date()
    return None


def _identity(dataset: DicomDataset) -> str:
    return StatedPatient.of_dataset(dataset).identity(tags.text(dataset, "StudyInstanceUID"))


def referenced_series(dataset: DicomDataset) -> tuple[str, ...]:
    """UIDs of the series that an object points at: SEG (C.8.20.2), RTSTRUCT (C.8.8.5), SR evidence (C.17.2)."""
    uids = [tags.text(entry, "SeriesInstanceUID") for entry in tags.items(dataset, "ReferencedSeriesSequence")]
    for frame in tags.items(dataset, "ReferencedFrameOfReferenceSequence"):
        for study in tags.items(frame, "RTReferencedStudySequence"):
            uids += [tags.text(entry, "SeriesInstanceUID") for entry in tags.items(study, "RTReferencedSeriesSequence")]
    for study in tags.items(dataset, "CurrentRequestedProcedureEvidenceSequence"):
        uids += [tags.text(entry, "SeriesInstanceUID") for entry in tags.items(study, "ReferencedSeriesSequence")]
    return tuple(dict.fromkeys(uid for uid in uids if uid))


def _describe(group: _Gathered, name: str) -> SeriesFiles:
    first, dataset = group.first, group.first.dataset
    return SeriesFiles(
        patient=pseudonym_from_header(dataset),
        study=tags.text(dataset, "StudyInstanceUID"),
        uid=tags.text(dataset, "SeriesInstanceUID"),
        name=name,
        modality=tags.text(dataset, "Modality") or "unknown",
        number=_series_number(dataset),
        description=anonymous_description(dataset),
        paths=group.paths,
        sop_class=first.sop_class,
        sop_class_name=first.sop_class_name,
        frame_of_reference=_frame_of_reference(dataset),
        is_image=first.is_image and first.sop_class not in SEGMENTATIONS,
        references=referenced_series(dataset),
        covariates=_covariates(dataset),
        is_localizer="LOCALIZER" in tags.words(dataset, "ImageType") or group.crosses_planes,
        accession=tags.text(dataset, "AccessionNumber"),
        is_nobodys=not StatedPatient.of_dataset(dataset).identifier,
        instances=group.originals.first,
    )


def anonymous_description(dataset: DicomDataset) -> str:
    """The series description, empty where it names the patient."""
    description = tags.text(dataset, "SeriesDescription")
    return "" if names_the_patient(dataset, description) else description


def _series_number(dataset: DicomDataset) -> int | None:
    number = tags.lenient_number(dataset, "SeriesNumber")
    return None if number is None or not number.is_integer() else int(number)


def _frame_of_reference(dataset: DicomDataset) -> str | None:
    frame_of_reference = tags.text(dataset, "FrameOfReferenceUID")
    inside = [
        tags.text(entry, "FrameOfReferenceUID") for entry in tags.items(dataset, "ReferencedFrameOfReferenceSequence")
    ]
    return frame_of_reference or next((uid for uid in inside if uid), None)


def _covariates(dataset: DicomDataset) -> dict[str, float | str | None]:
    return {
        "age": _years(tags.text(dataset, "PatientAge")),
        "sex": _stated_text(dataset, "PatientSex"),
        "manufacturer": _stated_text(dataset, "Manufacturer"),
        "model": _stated_text(dataset, "ManufacturerModelName"),
        "body_part": _stated_text(dataset, "BodyPartExamined"),
        **{name: value for name, value in _of_the_scanner(dataset).items() if value},
    }


def _stated_text(dataset: DicomDataset, keyword: str) -> str | None:
    """None where the value says that nobody knows it, as tables of covariates are read."""
    text = tags.text(dataset, keyword)
    return None if text.casefold() in covariate_values.NOTHING | covariate_values.UNLABELLED else text


def _of_the_scanner(dataset: DicomDataset) -> dict[str, float | str | None]:
    """Settings by which scans of one person differ: PS3.3 C.8.3.1, C.8.15.2 and C.8.2.1."""
    return {
        "field_strength": tags.lenient_number(dataset, "MagneticFieldStrength"),
        "kv": tags.lenient_number(dataset, "KVP"),
        "kernel": tags.text(dataset, "ConvolutionKernel"),
    }


def _years(age: str) -> float | None:
    """An age string such as 045Y, 006M, PS3.5 6.2."""
    match = re.fullmatch(r"(\d{1,3})([DWMY])", age)
    return None if match is None else int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[match[2]]


def dicom_files(folder: Path) -> Iterator[Path]:
    """Every file under a folder that starts as DICOM does, or should by its name; hidden ones are passed over.

    By its name should a file with one of DICOM's own suffixes, and one that is called as the DICOM next to it but for
    a number, as IM0004 next to IM0003: it is empty or damaged. A README next to them is neither.
    """
    for _, paths in groupby(folder_files.files_below(folder), key=lambda path: path.parent):
        names, others = set[str](), list[Path]()
        for path in paths:
            if path.suffix.lower() in OWN_SUFFIXES or _starts_as_dicom(path):
                names.add(_without_numbers(path.name))
                yield path
            else:
                others.append(path)
        yield from (path for path in others if _without_numbers(path.name) in names)


def files_in_dicomdir(dicomdir: Header) -> list[Path]:
    """The files that a DICOMDIR lists and that are there; also in lower case, in which Linux shows those of a CD.

    Raises FormatError where a path leads out of the DICOMDIR's folder, where a listed image is missing, or all is.
    """
    root = dicomdir.path.parent.resolve()
    paths, lost = list[Path](), list[str]()
    for record in tags.items(dicomdir.dataset, "DirectoryRecordSequence"):
        parts = tags.words(record, "ReferencedFileID")
        if not parts:
            continue
        exact, lower = (root.joinpath(*some).resolve() for some in (parts, [part.lower() for part in parts]))
        if not folder_files.is_inside(exact, root) or not folder_files.is_inside(lower, root):
            raise FormatError(
                f"{tags.keyword_with_tag('ReferencedFileID')} leads out of its folder: {'/'.join(parts)}",
                dicomdir.where,
                "Read the folder instead of the DICOMDIR",
            )
        path = exact if exact.is_file() else lower
        if path.is_file():
            paths.append(path)
        elif tags.text(record, "DirectoryRecordType") == "IMAGE":
            lost.append("/".join(parts))
    if not paths:
        raise FormatError("none of the files that it lists exists", dicomdir.where, "Copy the whole medium")
    if lost:
        what = errors.count_phrase(len(lost), "image that it lists is", "images that it lists are")
        raise FormatError(
            f"{what} missing: {errors.list_phrase(lost)}",
            dicomdir.where,
            "Copy the whole medium, or give the folder of a series that is whole",
        )
    return list(dict.fromkeys(paths))


def _starts_as_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except FileNotFoundError:  # a link that leads nowhere
        return False
    return start[128:132] == b"DICM" or (_may_lack_a_preamble(path) and header_reading.looks_like_dicom(start))


def _may_lack_a_preamble(path: Path) -> bool:
    """A name without suffix, a UID, or DICOM's own: in others two bytes prove too little."""
    suffix = path.suffix.lower()
    return suffix in ("", *OWN_SUFFIXES) or suffix[1:].isdigit()


def _without_numbers(name: str) -> str:
    return NUMBER_IN_NAME.sub("#", name.upper())


NAMES = 3  # components of a name before its titles: family, given and middle name, PS3.5 6.2.1.1
# Titles, and particles of family names, are words of descriptions too; they count where nothing stands beside them.
SHORT_WORDS = frozenset(("al", "da", "de", "di", "do", "dr", "du", "el", "la", "le", "mr", "ms"))
SHORTEST = 3  # characters of a part that may be any; of two, only letters of a name are one
# Shorter ones lie in ordinary words by chance: Beck in Becken, Abdo in Abdomen.
SHORTEST_INSIDE, SHORTEST_INSIDE_IDEOGRAPHS = 5, 2
SHORTEST_JOINED = 4
MOST_WORDS = 8  # of a name, and of a description that are taken for one
APART = " "  # between words, which hold no blanks
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")  # all but tabs and the ends of lines


def names_the_patient(dataset: DicomDataset, description: str) -> bool:
    """Whether a description repeats a part of the patient's name, in any of its scripts, or of the identifier.

    Accents and capitals do not count, nor how parts are joined (DoeJane, JDoe) or separated (47-11 as 47 11). A text
    that is far too long, or holds control characters, may have swallowed elements behind it, and so the name: it counts
    as one that does.
    """
    name, identifier = tags.text(dataset, "PatientName"), tags.text(dataset, "PatientID")
    if max(map(len, (name, identifier, description))) >= LONGEST_TEXT or CONTROL.search(description):
        return True
    names, identifiers = _names(name), _identifiers(identifier)
    words = _words(description)
    if any(part in APART.join(words) for part in names | identifiers if len(part) >= _shortest_inside(part)):
        return True
    sought = {*words, *_join_neighbours(words)}
    inner = {word for word in _words(_apart(description)) if len(word) >= SHORTEST}
    return not (names.isdisjoint(sought | inner) and identifiers.isdisjoint(sought))


def _names(phrase: str) -> set[str]:
    """The texts that betray a name: its words, two of them joined, or one with the initial of another."""
    found: set[str] = set()
    for group in phrase.split("="):  # one for each script, PS3.5 6.2.1.2
        components = [_words(component) for component in group.split("^")]
        words = [word for component in components[:NAMES] for word in component if _is_name(word, component)]
        initials = [word[0] for component in components[:NAMES] for word in component]
        found.update(words, (word for title in components[NAMES:] for word in title if len(word) >= SHORTEST))
        found.update(a + b for a, b in permutations(words[:MOST_WORDS], 2))
        long = [word for word in words[:MOST_WORDS] if len(word) >= SHORTEST]
        found.update(both for word in long for i in initials[:MOST_WORDS] for both in (word + i, i + word))
    return found


def _is_name(word: str, component: list[str]) -> bool:
    """Whether a word is enough of a name to be looked for."""
    if len(word) >= SHORTEST or _is_ideographic(word):
        return True
    return len(word) == SHORTEST - 1 and word.isalpha() and (word not in SHORT_WORDS or component == [word])


def _identifiers(phrase: str) -> set[str]:
    """The texts that betray an identifier: its parts, and all of them joined."""
    words = _words(phrase)
    return {part for part in (*words, "".join(words)) if len(part) >= SHORTEST}


def _words(phrase: str) -> list[str]:
    """The words of a text, without accents and capitals."""
    letters = unicodedata.normalize("NFKD", phrase.casefold())
    bare = "".join(letter for letter in letters if not unicodedata.category(letter).startswith("M"))
    return [word for word in re.split(r"[\W_]+", unicodedata.normalize("NFC", bare)) if word]


def _join_neighbours(words: list[str]) -> set[str]:
    """Neighbours joined."""
    runs = ("".join(words[start : start + n]) for start in range(len(words)) for n in range(2, MOST_WORDS + 1))
    return {run for run in runs if len(run) >= SHORTEST_JOINED}


def _apart(phrase: str) -> str:
    """A text with a blank before each capital that follows a small letter, and between letters and digits."""
    breaks = (" " if (a.islower() and b.isupper()) or a.isdigit() != b.isdigit() else "" for a, b in pairwise(phrase))
    return phrase[:1] + "".join(blank + letter for blank, letter in zip(breaks, phrase[1:], strict=True))


def _shortest_inside(part: str) -> int:
    """The length from which on a part is looked for inside words."""
    return SHORTEST_INSIDE_IDEOGRAPHS if _is_ideographic(part) else SHORTEST_INSIDE


def _is_ideographic(word: str) -> bool:
    """Whether it is Chinese, Japanese or Korean, whose words are short and need no blanks."""
    return all(unicodedata.east_asian_width(letter) == "W" for letter in word)
