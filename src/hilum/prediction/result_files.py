"""The files of one predicted case, or of a pair: what is written of it, under which names, and what could not be."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from hilum.belief.covering_results import ADDED_MAPS
from hilum.errors import FormatError, GeometryError
from hilum.files import file_formats, result_images, surface_mesh, transform_file
from hilum.files.dicom import header_reading, tags
from hilum.files.dicom.writing import derived
from hilum.files.dicom.writing.dicom_answers import ANSWERS, EarlierObjects, Result
from hilum.files.result_images import TakenProbabilities
from hilum.files.storage import atomic
from hilum.prediction import answers, slide_results
from hilum.prediction.answers import AUTO, DICOM, NOTHING_MARKED, SURFACES, WantedFiles
from hilum.report import Figure
from hilum.report.figures import result_page, sheets
from hilum.runtime import Model, result_codes
from hilum.runtime.uncertainty.disagreement import EPISTEMIC, TOTAL
from hilum.tasks import Task, properties, task_catalogue, task_settings
from hilum.transforms import spatial_transforms
from hilum.values import (
    Array,
    Case,
    Deferred,
    Finding,
    Image,
    Label,
    Map,
    Prediction,
    Problem,
    Region,
    SpatialTransform,
    voxel_images,
)
from hilum.values.spatial_transform import UNMOVED, Correspondence

# Names that Windows keeps for devices, with any suffix:
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
RESERVED = frozenset({"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))})
# How the names of objects end that a case has several of, without a limit to their numbers.
SEVERAL = re.compile(r"_((stl|pm)(_\d+)?|volume_\d+(_labelmap)?)$", re.IGNORECASE)
# The map of what an answer rests on.
EXPLANATION = "explanation"
PROBABILITIES = "_probabilities"
OVERLAY = "_overlay"
REPORT = "_report"
# In place of formats that hold no fractions.
OF_NUMBERS = {"png": "tiff", "dcm": "nii.gz", **dict.fromkeys(SURFACES, "nii.gz")}
# Bytes that systems allow a file's name, 255, without a number, a suffix and what a name has more while it is written.
LONGEST_NAME = 255 - 48
DIGITS_OF_NAME = 10


def map_names(task: Task) -> list[str]:
    """The names of maps of a case, which end its files' names: several parts have the same, with the part before it.

    A further label map is called by its part alone, and its probabilities by both.
    """
    own = dict.fromkeys(name for part in properties.leaf_tasks(task).values() for name in part.own_maps)
    maps = (TOTAL, EPISTEMIC, *ADDED_MAPS, EXPLANATION, PROBABILITIES.lstrip("_"), *own)
    names = (*maps, *(f"{kind}_pm" for kind in maps))
    parts = properties.part_names(task)
    further = (*names, *ANSWERS)
    return [*names, *parts, *(f"{part}_{kind}" for part in parts for kind in further)]


def with_unique_names(cases: Sequence[Case], kinds: Sequence[str]) -> list[Case]:
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
        plain = f"{plain}_" if SEVERAL.search(plain) else plain
        plain = _shorten(plain, longest)
        numbered = ((n, plain if n == 1 else f"{plain}_{n}") for n in count(numbers.get(plain.lower(), 1)))
        number, name = next((n, one) for n, one in numbered if not _stems(one, kinds) & taken)
        numbers[plain.lower()] = number + 1
        taken |= _stems(name, kinds)
        named.append(replace(case, id=name))
    return named


def _shorten(name: str, longest: int) -> str:
    """A name of at most so many bytes: the end of a longer one gives way to digits that are its own."""
    if len(name.encode()) <= longest:
        return name
    digits = f"-{hashlib.sha256(name.encode()).hexdigest()[:DIGITS_OF_NAME]}"
    return name.encode()[: longest - len(digits)].decode(errors="ignore") + digits


def _endings(kinds: Sequence[str]) -> tuple[str, ...]:
    """Endings of the names of a case's files, before their suffix."""
    return ("", PROBABILITIES, OVERLAY, REPORT, *(f"_{kind}" for kind in (*ANSWERS, *kinds)))


def _stems(name: str, kinds: Sequence[str]) -> set[str]:
    """Stems that the files of a case may have, without their suffix."""
    return {f"{name}{ending}".lower() for ending in _endings(kinds)}


@contextmanager
def new_case_folder(folder: Path) -> Iterator[Path]:
    """A folder to write a case's files into, which then lie in `folder`: all of them, or none where one fails."""
    with tempfile.TemporaryDirectory(prefix=".case.", suffix=".partial", dir=folder) as room:
        with atomic.name_errors_after(folder, Path(room)):
            yield Path(room)
        for path in sorted(Path(room).iterdir()):
            path.rename(folder / path.name)


class CaseProbabilities:
    """The probabilities of a case's voxels, which a model hands on while it sees the image.

    Taken where files or Parametric Maps of them were asked for, and the task has some of every voxel.
    folder, name: of the case's files
    """

    def __init__(self, task: Task, image: Image, folder: Path, name: str, wanted: WantedFiles) -> None:
        self.folder = folder
        self.name = name
        self.has_files = wanted.probabilities and not image.is_slide  # it would be of a thousand times the size
        self.has_maps = "pm" in wanted.kinds_for(image) and image.frames is None
        dense = task_catalogue.channel_labels(task) if self.has_files or self.has_maps else {}
        endings = _of_further_parts(task)
        self.suffix = _suffix(image, wanted.format, OF_NUMBERS)
        self.endings = {head: endings.get(head, PROBABILITIES) for head in dense}
        self.taken = {head: TakenProbabilities(labels, image, folder) for head, labels in dense.items()}

    @property
    def receiver(self) -> Callable[[Region, Mapping[str, Array]], None] | None:
        """Receiver of the probabilities of a part of the image; None where none are wanted."""
        return self._take if self.taken else None

    def _take(self, region: Region, arrays: Mapping[str, Array]) -> None:
        for head, one in self.taken.items():
            if head in arrays:
                one(region, arrays[head])

    @property
    def maps(self) -> dict[str, Map]:
        """{kind: the probabilities of its labels} for Parametric Maps, once the network has seen all of the image."""
        of_labels = {self.endings[head].lstrip("_"): one.of_labels for head, one in self.taken.items() if self.has_maps}
        return {kind: one for kind, one in of_labels.items() if one is not None}

    def write(self) -> Iterator[Path]:
        """The files that were asked for, once the network has seen all of the image."""
        for head, one in self.taken.items() if self.has_files else ():
            path = self.folder / f"{self.name}{self.endings[head]}.{self.suffix}"
            if one.write(path):
                yield path


def _of_further_parts(task: Task) -> dict[str, str]:
    """{dense head: how the file of its probabilities ends} of parts beside that whose label map the whole has."""
    heads = [
        (part, properties.full_head_name(part, head))
        for part, own in properties.leaf_tasks(task).items()
        if part
        for head in task_catalogue.channel_labels(own)
    ]
    heads.sort(key=lambda one: task.heads[one[1]].holds_boxes)
    return {head: f"_{part}{PROBABILITIES}" for part, head in heads[1:]}


def write_result(
    prediction: Prediction,
    image: Image,
    folder: Path,
    name: str,
    wanted: WantedFiles,
    model: Model,
    *,
    findings: Sequence[Finding] = (),
    probabilities: CaseProbabilities | None = None,
    is_part: bool = False,
    earlier: EarlierObjects | None = None,
) -> tuple[list[Path], list[Problem]]:
    """The files of a result, and what of them could not be.

    findings: of the result; of a clip each names its frame
    probabilities: of its voxels, which are all there once its label maps are read
    is_part: whether the model has looked at a part of the image only
    earlier: objects of the study since which change is stated
    """
    written = list[Path]()
    lacking = list[Problem]()
    codes = result_codes.codes_of_model(model)
    for part, mask, labels in prediction.label_maps if wanted.format != DICOM else ():
        stem = folder / (f"{name}_{part}" if part else name)
        named = result_codes.coded_labels(labels, codes)
        if wanted.format in SURFACES:
            target = stem.with_name(f"{stem.name}.{wanted.format}")
            files = surface_mesh.write_surfaces(np.asarray(mask), named, image.geometry, target)
            if not files:
                lacking.append(Problem.note(f"no surface: {NOTHING_MARKED}", (target.name,)))
            written += files
        else:
            written.append(_label_map(mask, named, image, stem, wanted, algorithm_name_of_model(model)))
    if kinds := wanted.kinds_for(image):
        answer = replace(_dicom_result(prediction, image, model, is_part=is_part, findings=findings), earlier=earlier)
        if probabilities is not None:
            answer = replace(answer, maps={**answer.maps, **probabilities.maps})
        answer = replace(answer, page=partial(draw_result_page, answer, wanted.text, prediction.maps.get(EXPLANATION)))
        objects, refused = answers.write_answers(answer, kinds, folder / name, wanted)
        written += objects
        lacking += refused
    if image.is_slide and wanted.probabilities:
        lacking.append(Problem.note("no probabilities of pixels: those of a slide are not written", (name,)))
    written += write_maps(prediction.maps, image, folder, name, wanted.format)
    written += probabilities.write() if probabilities is not None else ()
    if wanted.overlay and has_place(prediction):
        shown = prediction.frames[0] if prediction.frames else prediction
        still = image.frame(0) if prediction.frames else image
        shown, still = slide_results.shown_coarsely(shown, still) if image.is_slide else (shown, still)
        bare = Case(name, name, {"image": still})  # what is known of the case is no result
        written.append(folder / f"{name}{OVERLAY}.png")
        pictures = _mark_figures(model.task, shown, bare)
        written[-1].write_bytes(sheets.stack_pictures(pictures))
    return written, lacking


def write_maps(maps: Mapping[str, Map], image: Image, folder: Path, name: str, format: str = AUTO) -> Iterator[Path]:
    """The file of each map of a case, in a format that holds numbers."""
    for kind, voxel_map in maps.items():
        path = folder / f"{name}_{kind}.{_suffix(image, format, OF_NUMBERS)}"
        result_images.write_map(kind, voxel_map, image, path)
        yield path


def _mark_figures(task: Task, prediction: Prediction, case: Case) -> list[Figure]:
    """A picture of what the task marks in the image; of several tasks one of each that marks something."""
    placed = {
        name: part for name, part in properties.leaf_tasks(task).items() if name and has_place(prediction.parts[name])
    }
    figures_of_parts = [part.figures(prediction.parts[name], case) for name, part in placed.items()]
    return [figures[0] for figures in figures_of_parts or [task.figures(prediction, case)]]


def _label_map(
    mask: Array | Deferred, labels: Sequence[Label], image: Image, path: Path, wanted: WantedFiles, algorithm: str
) -> Path:
    """The file of a label map beside DICOM objects. path: without its suffix"""
    # A PNG holds 16 bits: numbers of more objects than that need another file.
    wide = {"png": "tiff"} if wanted.format == AUTO and mask.dtype.itemsize > 2 else None
    written = path.with_name(f"{path.name}.{_suffix(image, wanted.format, wide)}")
    result_images.write_label_map(mask, labels, image, written, algorithm=algorithm)
    return written


def _dicom_result(
    prediction: Prediction, image: Image, model: Model, *, findings: Sequence[Finding], is_part: bool
) -> Result:
    """A result as writers of DICOM objects take it."""
    stills = prediction.frames or (prediction,)
    codes = result_codes.codes_of_model(model)
    sought, least_score = _sought(model.task, stills[0])
    limits = [
        *promise_sentences(model.task, findings),
        *(["only a part of the image was looked at"] if is_part else []),
        *([] if model.gate.is_fitted else [str(model.gate)]),
        *([f"the model would give no answer here: {prediction.abstained}"] if prediction.abstained else []),
        *prediction.notes,
    ]
    return Result(
        image,
        algorithm_name_of_model(model),
        # One that is computed when it is read is read once for all kinds.
        [(part, np.asarray(mask), result_codes.coded_labels(own, codes)) for part, mask, own in prediction.label_maps],
        findings,
        sought,
        is_empty=bool(sought) and all(map(marks_nothing, stills)),
        least_score=least_score,
        limits=limits,
        maps=prediction.maps,
    )


def _sought(task: Task, still: Prediction) -> tuple[list[str], float]:
    """(names of what was looked for in the image, the score from which on boxes are called)."""
    leaves = properties.leaf_tasks(task)
    by_part = {name: still.parts[name] if name else still for name in leaves}
    names = [label.name for name, part in leaves.items() if has_place(by_part[name]) for label in part.labels]
    is_boxed = any(one.boxes is not None for one in by_part.values())
    return list(dict.fromkeys(names)), still.threshold if is_boxed else 0.0


def _suffix(image: Image, format: str, instead: Mapping[str, str] | None = None) -> str:
    """Suffix of the format that was asked for, else the one that suits the source.

    instead: for formats that cannot hold the numbers
    """
    # A PNG has no pixel size and no frames.
    flat = "tiff" if image.geometry.physical or image.frames is not None else "png"
    flat = "tif" if image.is_slide else flat
    # NIfTI holds an orientation in mm only.
    volume = "nrrd" if image.geometry.has_sides and not image.geometry.physical else "nii.gz"
    suiting = {1: "csv", 2: flat}.get(image.geometry.ndim, volume)
    suffix = suiting if format == AUTO else format
    return (instead or {}).get(suffix, suffix)


def draw_result_page(result: Result, words: str, heat: Map | None = None) -> result_page.ResultPage:
    """The result on one page. words: that each object of it bears; heat: what the answer rests on, as colours"""
    nothing = [f"Nothing was found of: {', '.join(result.classes)}."] if result.is_empty else []
    sets = [
        f"{one.concept}: the answer is one of {', '.join(one.possible)}." for one in result.findings if one.possible
    ]
    limits = [f"{limit[:1].upper()}{limit[1:]}." for limit in result.limits]
    return result_page.ResultPage(
        result.source,
        [(mask, labels) for _, mask, labels in result.label_maps],
        result.findings,
        [f"Result of {result.algorithm}", *_of_study(result)],
        [*nothing, *sets, *limits],
        words,
        heat,
    )


def _of_study(result: Result) -> list[str]:
    """The modality and the date of the study, as the first image states them."""
    if result.source.source is None:
        return []
    head = header_reading.read_header(Path(result.source.source.paths[0])).dataset
    date = tags.text(head, "StudyDate")
    is_plain = len(date) == len("20240131") and date.isdigit()
    day = f"{date[:4]}-{date[4:6]}-{date[6:]}" if is_plain else date
    return [
        ", ".join(filter(None, [tags.text(head, "Modality"), f"study of {day}" if day else "study without a date"]))
    ]


def has_place(prediction: Prediction) -> bool:
    """Whether the result lies somewhere in the image, and does not only speak of it."""
    every = (prediction, *prediction.frames)
    return any(one.data is not None or one.boxes is not None for one in every)


def says_something(prediction: Prediction, findings: Sequence[Finding]) -> bool:
    """Whether the result, or one of its frames, is an answer about the whole image, whatever it is, or marks something.

    A measured value of 0 and an absent finding are answers; a mask without a voxel and a search without a box are not.
    findings: of the result, or of all its frames
    """
    stills = prediction.frames or (prediction,)
    if any(not has_place(part) for still in stills for part in still.parts.values() or (still,)):
        return True
    return any(one.probability is not None or bool(one.value) for one in findings)


def marks_nothing(still: Prediction) -> bool:
    """Whether the parts of a result that look for something in the image have found none of it."""
    placed = [part for part in still.parts.values() or (still,) if has_place(part)]
    return bool(placed) and not any(_marks(part) for part in placed)


def _marks(part: Prediction) -> bool:
    """Whether there is a box that is called, or a voxel that is marked."""
    if part.called_boxes is not None and len(part.called_boxes):
        return True
    return part.data is not None and any(bool(np.any(block)) for _, block in voxel_images.walk_blocks(part.data))


def promise_sentences(task: Task, findings: Sequence[Finding]) -> Iterator[str]:
    """Promises of sets and intervals among the findings, a sentence for each coverage."""
    if any(one.possible is not None or one.low is not None or one.high is not None for one in findings):
        settings = [task_settings.settings_of(part) for part in properties.leaf_tasks(task).values()]
        for coverage in sorted({float(one["coverage"]) for one in settings if one.get("coverage")}):
            yield f"coverage of sets and intervals: {100 * coverage:.4g} % of new patients"


# Of a SHA-256, as results tell models apart.
PROGRAM = "hilum"
DIGITS = 12
LONGEST_ALGORITHM = 64


def algorithm_name_of_model(model: Model) -> str:
    """Name of a model in DICOM results: its name and its version, in 64 letters."""
    stated = model_identity(model)
    return algorithm_name(stated["name"], stated["version"])


def algorithm_name(name: str, version: str) -> str:
    """The name in DICOM results of a model of this name and version: of a long name the beginning."""
    return f"{name[: LONGEST_ALGORITHM - len(version) - 1]} {version}".strip()[:LONGEST_ALGORITHM]


def model_identity(model: Model) -> dict[str, str]:
    """The name and version of a model, the SHA-256 of it and of its weights, and on what it refuses images.

    The version of one without is how its SHA-256 begins.
    """
    weights = str(model.record.get("weights_sha256") or "")
    name = str(model.record.get("name") or f"{PROGRAM} {model.task.name}")
    version = str(model.record.get("version") or model.sha256[:DIGITS])
    stated = {"name": name, "version": version, "sha256": model.sha256, "weights_sha256": weights}
    stated["gate"] = str(model.gate)
    return stated | ({"unfinished_training": unfinished} if (unfinished := model.unfinished_training) else {})


# How the folder of the moved image as a DICOM series, and the file of the registration, go on after a name.
SERIES = "moved_dicom"
REGISTRATION = "transform.dcm"


def write_moved_files(
    transform: SpatialTransform, image: Image, pair: Correspondence, folder: Path, name: str, algorithm: str
) -> Iterator[Path]:
    """Write each file of a pair.

    image: of two channels, the moving one as it was brought onto the fixed grid
    pair:  what is known of both images: labels of the moving one are carried along
    """
    grid = image.geometry
    unmoved = _unmoved_image(image)
    source = image.source if image.source is not None and image.source.format == "nifti" else None
    moved = replace(spatial_transforms.carry_image(unmoved, transform, grid), source=source, facts={})
    kinds = ("moved.nii.gz", "transform.h5", "field.nii.gz", "labels.nii.gz")
    moved_file, steps_file, field_file, labels_file = (folder / f"{name}_{kind}" for kind in kinds)
    file_formats.write(moved, moved_file)
    transform_file.write_transform(transform, steps_file)
    yield from (moved_file, steps_file)
    if grid.has_sides and not grid.is_sheared:
        field = spatial_transforms.to_single_field(transform, grid)
        transform_file.write_transform(SpatialTransform((field,)), field_file)
        yield field_file
    if pair.moving_labels is not None:
        label_map = pair.moving_labels
        values = spatial_transforms.carry_labels(label_map.data[0], label_map.geometry, transform, grid)
        result_images.write_label_map(values, label_map.labels, moved, labels_file, algorithm=algorithm)
        yield labels_file


def write_moved_objects(
    transform: SpatialTransform, image: Image, folder: Path, name: str
) -> tuple[list[Path], list[Problem]]:
    """The DICOM objects of a pair of two DICOM images, and why there are none of a pair that cannot bear them.

    image: as `write_moved_files` takes it
    """
    fixed = replace(image, pixels=image.data[:1], channels=("fixed",))
    unmoved = _unmoved_image(image)
    if not all(one.source is not None and one.source.is_dicom for one in (fixed, unmoved)):
        return [], []
    moved = replace(spatial_transforms.carry_image(unmoved, transform, image.geometry), facts=unmoved.facts)
    try:
        return list(write_dicom_pair(transform, moved, fixed, unmoved, folder, name)), []
    except (FormatError, GeometryError) as error:
        what = f"no DICOM registration: {error.problem}"
        return [], [Problem.warning(what, (name,), remedy=error.remedy)]


def write_dicom_pair(
    transform: SpatialTransform, moved: Image, fixed: Image, moving: Image, folder: Path, name: str = ""
) -> Iterator[Path]:
    """A DICOM registration of two DICOM volumes, and the moved one as a series; nothing of other images.

    name: of the pair, which begins the names of both
    """
    if not all(_has_dicom_place(one) for one in (fixed, moving)):
        return
    prefix = f"{name}_" if name else ""
    registration = folder / f"{prefix}{REGISTRATION}"
    series = folder / f"{prefix}{SERIES}"
    transform_file.write_transform(spatial_transforms.join_fields(transform), registration, fixed=fixed, moving=moving)
    yield registration
    if derived.can_derive(moving):
        code = derived.RESAMPLED if transform.is_linear else derived.DEFORMED
        placed = replace(moved, geometry=fixed.geometry)
        derived.write_derived_series(placed, moving, code, "Laid on the fixed image", series)
        yield series


def _unmoved_image(image: Image) -> Image:
    """The moving image of a pair as it was read."""
    unmoved: Image = image.facts_of(1).get(UNMOVED, replace(image, pixels=image.data[1:2], channels=("moving",)))
    return unmoved


def _has_dicom_place(image: Image) -> bool:
    """Whether it is a DICOM volume in a frame of reference, which a registration names."""
    is_dicom = image.source is not None and image.source.is_dicom
    return is_dicom and image.geometry.has_sides and image.geometry.frame_of_reference is not None
