"""The files of one predicted case: what is written of it, under which names, and what could not be."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from isocenter.belief import ADDED_MAPS
from isocenter.errors import FormatError, GeometryError, UsageError
from isocenter.files import named_as, probabilities_written, write_label_map, write_map, write_report
from isocenter.prediction.placeless import has_place, promises
from isocenter.report import Figure, figures
from isocenter.runtime import EPISTEMIC, TOTAL, Model, coded_labels, codes_of
from isocenter.tasks import Task, channels_of, head_of, leaves, part_names
from isocenter.values import Array, Case, Deferred, Finding, Image, Label, Map, Prediction, Problem, Region

# Names that Windows keeps for devices, with any suffix:
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
RESERVED = frozenset({"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))})
PROBABILITIES, OVERLAY, REPORT = "_probabilities", "_overlay", "_report"
# In place of formats that hold no fractions.
OF_NUMBERS = {"png": "tiff", "dcm": "nii.gz"}
AUTO, DICOM = "auto", "dcm"
# Bytes that systems allow a file's name, 255, without a number, a suffix and what a name has more while it is written.
LONGEST_NAME, DIGITS_OF_NAME = 255 - 48, 10
# Of a SHA-256, as results tell models apart.
PROGRAM, DIGITS = "isocenter", 16
FORMATS = ("nii.gz", "nii", "nrrd", "png", "tiff", DICOM, "csv")


@dataclass(frozen=True)
class Wanted:
    """What of a result is written.

    format:        of the label map; "auto" chooses by the source; with it and with "dcm", boxes and answers about the
                   whole image become a report on DICOM
    probabilities: of every voxel beside it
    overlay:       a picture of the image with the result drawn on it
    maps:          the entropy of every voxel's probabilities, and what of it is epistemic
    added:         what the model's answers add: results that miss no more than `task.risk` allows
    Raises UsageError for a format that results are not written in.
    """

    format: str = AUTO
    probabilities: bool = False
    overlay: bool = False
    maps: bool = False
    added: bool = False

    def __post_init__(self) -> None:
        if self.format not in (AUTO, *FORMATS):
            remedy = f"Choose auto or one of {', '.join(FORMATS)}"
            raise UsageError(f"cannot write {self.format!r}", "--format", remedy)


def kinds_of_maps(task: Task) -> list[str]:
    """The names of maps of a case, which end its files' names: several parts have the same, with the part before it.

    A further label map is called by its part alone, and its probabilities by both.
    """
    own, parts = (TOTAL, EPISTEMIC, *ADDED_MAPS), part_names(task)
    further = (*own, PROBABILITIES.lstrip("_"))
    return [*own, *parts, *(f"{part}_{kind}" for part in parts for kind in further)]


def with_own_names(cases: Sequence[Case], kinds: Sequence[str]) -> list[Case]:
    """Cases with file names of their own: ids can be anything, and two inputs may share one.

    kinds: of maps that a case may have, which end the names of its files
    """
    taken: set[str] = set()  # in lower case, as some file systems do not tell them apart
    numbers: dict[str, int] = {}  # {name: the next number to try}: thousands may be called ct
    longest = LONGEST_NAME - max(len(ending.encode()) for ending in _endings(kinds))
    named = []
    for case in cases:
        plain = re.sub(r"[^\w.()+-]+", "_", case.id).strip("._") or "case"
        plain = f"{plain}_" if plain.partition(".")[0].upper() in RESERVED else plain
        plain = _shortened(plain, longest)
        numbered = ((n, plain if n == 1 else f"{plain}_{n}") for n in count(numbers.get(plain.lower(), 1)))
        number, name = next((n, one) for n, one in numbered if not _stems(one, kinds) & taken)
        numbers[plain.lower()] = number + 1
        taken |= _stems(name, kinds)
        named.append(replace(case, id=name))
    return named


def _shortened(name: str, longest: int) -> str:
    """A name of at most so many bytes: the end of a longer one gives way to digits that are its own."""
    if len(name.encode()) <= longest:
        return name
    own = f"-{hashlib.sha256(name.encode()).hexdigest()[:DIGITS_OF_NAME]}"
    return name.encode()[: longest - len(own)].decode(errors="ignore") + own


def _endings(kinds: Sequence[str]) -> tuple[str, ...]:
    """What the names of a case's files end with, before their suffix."""
    return ("", PROBABILITIES, OVERLAY, REPORT, *(f"_{kind}" for kind in kinds))


def _stems(name: str, kinds: Sequence[str]) -> set[str]:
    """What the files of a case may be called, without their suffix."""
    return {f"{name}{ending}".lower() for ending in _endings(kinds)}


@contextmanager
def room_for(folder: Path) -> Iterator[Path]:
    """A folder to write a case's files into, which then lie in `folder`: all of them, or none where one fails."""
    with tempfile.TemporaryDirectory(prefix=".case.", suffix=".partial", dir=folder) as room:
        with named_as(folder, Path(room)):
            yield Path(room)
        for path in sorted(Path(room).iterdir()):
            path.rename(folder / path.name)


@contextmanager
def probability_files(
    task: Task, image: Image, folder: Path, name: str, wanted: Wanted
) -> Iterator[tuple[Callable[[Region, Mapping[str, Array]], None] | None, list[Path]]]:
    """What a model is to tell the probabilities of a case's voxels, and the files that hold them when it is done.

    Nothing where none were asked for, or where the task has none for every voxel.
    """
    dense = channels_of(task)
    if not (wanted.probabilities and dense):
        yield None, []
        return
    endings, suffix = _of_further_parts(task), _suffix(image, wanted.format, OF_NUMBERS)
    paths = {head: folder / f"{name}{endings.get(head, PROBABILITIES)}.{suffix}" for head in dense}
    files: list[Path] = []
    with ExitStack() as stack:
        takers = {head: stack.enter_context(probabilities_written(dense[head], image, paths[head])) for head in dense}

        def take(region: Region, arrays: Mapping[str, Array]) -> None:
            """Write the probabilities of a part of the image."""
            for head, one in takers.items():
                if head in arrays:
                    one(region, arrays[head])

        yield take, files
    files += paths.values()


def _of_further_parts(task: Task) -> dict[str, str]:
    """{dense head: how the file of its probabilities ends} of parts beside that whose label map the whole has."""
    each = [(part, head_of(part, head)) for part, own in leaves(task).items() if part for head in channels_of(own)]
    each.sort(key=lambda one: task.heads[one[1]].holds_boxes)
    return {head: f"_{part}{PROBABILITIES}" for part, head in each[1:]}


def write_result(
    prediction: Prediction,
    image: Image,
    folder: Path,
    name: str,
    wanted: Wanted,
    model: Model,
    *,
    findings: Sequence[Finding] = (),
    is_part: bool = False,
) -> tuple[list[Path], list[Problem]]:
    """The files of a result, and what of them could not be.

    findings: of the result, what has no place in the image; of a clip those of its first frame
    is_part: whether the model has looked at a part of the image only
    """
    written, lacking = list[Path](), list[Problem]()
    codes, algorithm = codes_of(model), algorithm_of(model)
    for part, mask, labels in prediction.label_maps:
        own = f"{name}_{part}" if part else name
        files, problems = _label_map(mask, coded_labels(labels, codes), image, folder / own, wanted, algorithm)
        written, lacking = [*written, *files], [*lacking, *problems]
    report = folder / f"{name}{REPORT}.dcm"
    reports, without = _report(prediction, image, report, wanted, model, is_part=is_part, findings=findings)
    written, lacking = [*written, *reports], [*lacking, *without]
    written += write_maps(prediction.maps, image, folder, name, wanted.format)
    if wanted.overlay and has_place(prediction):
        still = image.frame(0) if prediction.frames else image
        bare = Case(name, name, {"image": still})  # what is known of the case is no result
        written.append(folder / f"{name}{OVERLAY}.png")
        drawn = _marked(model.task, prediction.frames[0] if prediction.frames else prediction, bare)
        written[-1].write_bytes(figures.one_below_another(drawn))
    return written, lacking


def write_maps(maps: Mapping[str, Map], image: Image, folder: Path, name: str, format: str = AUTO) -> Iterator[Path]:
    """The file of each map of a case, in a format that holds numbers."""
    for kind, made in maps.items():
        path = folder / f"{name}_{kind}.{_suffix(image, format, OF_NUMBERS)}"
        write_map(kind, made, image, path)
        yield path


def algorithm_of(model: Model) -> str:
    """How DICOM results name a model: by its task and the beginning of its weights' SHA-256, in 64 letters."""
    weights = str(model.record.get("weights_sha256") or "")[:DIGITS]
    return " ".join(filter(None, (f"{PROGRAM} {model.task.name}"[: 63 - DIGITS], weights)))


def _marked(task: Task, prediction: Prediction, case: Case) -> list[Figure]:
    """A picture of what the task marks in the image; of several tasks one of each that marks something."""
    placed = {name: part for name, part in leaves(task).items() if name and has_place(prediction.parts[name])}
    each = [part.figures(prediction.parts[name], case) for name, part in placed.items()]
    return [drawn[0] for drawn in each or [task.figures(prediction, case)]]


def _label_map(
    mask: Array | Deferred, labels: Sequence[Label], image: Image, path: Path, wanted: Wanted, algorithm: str
) -> tuple[list[Path], list[Problem]]:
    """A SEG that nobody asked for by name is left out with a warning where the series cannot bear one.

    path: of the files without their suffix
    """
    name = path.name
    # A PNG holds 16 bits: numbers of more objects than that need another file.
    wide = {"png": "tiff"} if wanted.format == AUTO and mask.dtype.itemsize > 2 else None
    written, lacking = [path.with_name(f"{name}.{_suffix(image, wanted.format, wide)}")], []
    write_label_map(mask, labels, image, written[0], algorithm=algorithm)
    geometry, source = image.geometry, image.source
    bears = (geometry.is_volume or geometry.is_picture) and image.frames is None
    if wanted.format == AUTO and bears and source is not None and source.format == "dicom":
        try:
            write_label_map(mask, labels, image, path.with_name(f"{name}.dcm"), algorithm=algorithm)
            written.append(path.with_name(f"{name}.dcm"))
        except (FormatError, GeometryError) as error:
            lacking.append(Problem("warning", f"no DICOM SEG: {error.problem}", (name,), remedy=error.remedy))
    return written, lacking


def _report(
    prediction: Prediction,
    image: Image,
    path: Path,
    wanted: Wanted,
    model: Model,
    *,
    is_part: bool,
    findings: Sequence[Finding],
) -> tuple[list[Path], list[Problem]]:
    """Boxes that are called and findings without a place, as a DICOM report.

    One that nobody asked for is left out where there can be none.
    """
    is_dicom = image.source is not None and image.source.format == "dicom"
    # Of a clip those of any frame: that no report can hold them is said where one is written.
    called = next((one.called for one in (prediction, *prediction.frames) if one.called is not None), None)
    if (called is None and not findings) or not (wanted.format == DICOM or (wanted.format == AUTO and is_dicom)):
        return [], []
    limits = [
        *promises(model.task, findings),
        *(["only a part of the image was looked at"] if is_part else []),
        *([f"the model would give no answer here: {prediction.abstained}"] if prediction.abstained else []),
    ]
    looked = next((one for name, one in leaves(model.task).items() if _is_boxed(prediction, name)), model.task)
    sought: dict[str, Any] = {"classes": [one.name for one in looked.labels], "least_score": prediction.threshold}
    named: dict[str, Any] = {"algorithm": algorithm_of(model), "findings": findings, "limits": limits}
    try:
        write_report(called, image, path, **named, **(sought if called is not None else {}))
    except FormatError as error:
        if wanted.format == DICOM:
            raise
        case = path.stem.removesuffix(REPORT)
        return [], [Problem("warning", f"no DICOM report: {error.problem}", (case,), remedy=error.remedy)]
    return [path], []


def _is_boxed(prediction: Prediction, part: str) -> bool:
    return part in prediction.parts and prediction.parts[part].boxes is not None


def _suffix(image: Image, format: str, instead: Mapping[str, str] | None = None) -> str:
    """Of the format that was asked for, else what suits the source.

    instead: for formats that cannot hold the numbers
    """
    # A PNG has no pixel size and no frames.
    flat = "tiff" if image.geometry.physical or image.frames is not None else "png"
    # NIfTI holds an orientation in mm only.
    volume = "nrrd" if image.geometry.has_sides and not image.geometry.physical else "nii.gz"
    own = {1: "csv", 2: flat}.get(image.geometry.ndim, volume)
    suffix = own if format == AUTO else format
    return (instead or {}).get(suffix, suffix)
