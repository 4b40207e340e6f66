"""The files of one predicted case: what is written of it, under which names, and what could not be."""

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

from isocenter.belief import ADDED_MAPS
from isocenter.files import TakenProbabilities, named_as, write_label_map, write_map, write_surfaces
from isocenter.files.dicom import ANSWERS, Result
from isocenter.prediction.answers import AUTO, DICOM, NOTHING_MARKED, SURFACES, Wanted, write_answers
from isocenter.prediction.model_name import algorithm_of
from isocenter.prediction.page import page_of
from isocenter.prediction.placeless import has_place, marks_nothing, promises
from isocenter.report import Figure, figures
from isocenter.runtime import EPISTEMIC, TOTAL, Model, coded_labels, codes_of
from isocenter.tasks import Task, channels_of, head_of, leaves, part_names
from isocenter.values import Array, Case, Deferred, Finding, Image, Label, Map, Prediction, Problem, Region

# Names that Windows keeps for devices, with any suffix:
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
RESERVED = frozenset({"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))})
# How the names of objects end that a case has several of, without a limit to their numbers.
SEVERAL = re.compile(r"_((stl|pm)(_\d+)?|volume_\d+(_labelmap)?)$", re.IGNORECASE)
# The map of what an answer rests on.
EXPLANATION = "explanation"
PROBABILITIES, OVERLAY, REPORT = "_probabilities", "_overlay", "_report"
# In place of formats that hold no fractions.
OF_NUMBERS = {"png": "tiff", "dcm": "nii.gz", **dict.fromkeys(SURFACES, "nii.gz")}
# Bytes that systems allow a file's name, 255, without a number, a suffix and what a name has more while it is written.
LONGEST_NAME, DIGITS_OF_NAME = 255 - 48, 10


def kinds_of_maps(task: Task) -> list[str]:
    """The names of maps of a case, which end its files' names: several parts have the same, with the part before it.

    A further label map is called by its part alone, and its probabilities by both.
    """
    maps = (TOTAL, EPISTEMIC, *ADDED_MAPS, EXPLANATION, PROBABILITIES.lstrip("_"))
    own, parts = (*maps, *(f"{kind}_pm" for kind in maps)), part_names(task)
    further = (*own, *ANSWERS)
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
        plain = f"{plain}_" if SEVERAL.search(plain) else plain
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
    """Endings of the names of a case's files, before their suffix."""
    return ("", PROBABILITIES, OVERLAY, REPORT, *(f"_{kind}" for kind in (*ANSWERS, *kinds)))


def _stems(name: str, kinds: Sequence[str]) -> set[str]:
    """Stems that the files of a case may have, without their suffix."""
    return {f"{name}{ending}".lower() for ending in _endings(kinds)}


@contextmanager
def room_for(folder: Path) -> Iterator[Path]:
    """A folder to write a case's files into, which then lie in `folder`: all of them, or none where one fails."""
    with tempfile.TemporaryDirectory(prefix=".case.", suffix=".partial", dir=folder) as room:
        with named_as(folder, Path(room)):
            yield Path(room)
        for path in sorted(Path(room).iterdir()):
            path.rename(folder / path.name)


class Probabilities:
    """The probabilities of a case's voxels, which a model hands on while it sees the image.

    Taken where files or Parametric Maps of them were asked for, and the task has some of every voxel.
    folder, name: of the case's files
    """

    def __init__(self, task: Task, image: Image, folder: Path, name: str, wanted: Wanted) -> None:
        self.folder, self.name = folder, name
        self.has_files = wanted.probabilities
        self.has_maps = "pm" in wanted.kinds_for(image) and image.frames is None
        dense = channels_of(task) if self.has_files or self.has_maps else {}
        endings, self.suffix = _of_further_parts(task), _suffix(image, wanted.format, OF_NUMBERS)
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
        made = {self.endings[head].lstrip("_"): one.of_labels for head, one in self.taken.items() if self.has_maps}
        return {kind: one for kind, one in made.items() if one is not None}

    def write(self) -> Iterator[Path]:
        """The files that were asked for, once the network has seen all of the image."""
        for head, one in self.taken.items() if self.has_files else ():
            path = self.folder / f"{self.name}{self.endings[head]}.{self.suffix}"
            if one.write(path):
                yield path


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
    probabilities: Probabilities | None = None,
    is_part: bool = False,
) -> tuple[list[Path], list[Problem]]:
    """The files of a result, and what of them could not be.

    findings: of the result; of a clip each names its frame
    probabilities: of its voxels, which are all there once its label maps are read
    is_part: whether the model has looked at a part of the image only
    """
    written, lacking, codes = list[Path](), list[Problem](), codes_of(model)
    for part, mask, labels in prediction.label_maps if wanted.format != DICOM else ():
        own = folder / (f"{name}_{part}" if part else name)
        named = coded_labels(labels, codes)
        if wanted.format in SURFACES:
            target = own.with_name(f"{own.name}.{wanted.format}")
            files = write_surfaces(np.asarray(mask), named, image.geometry, target)
            if not files:
                lacking.append(Problem("note", f"no surface: {NOTHING_MARKED}", (target.name,)))
            written += files
        else:
            written.append(_label_map(mask, named, image, own, wanted, algorithm_of(model)))
    if kinds := wanted.kinds_for(image):
        stated = _stated(prediction, image, model, is_part=is_part, findings=findings)
        if probabilities is not None:
            stated = replace(stated, maps={**stated.maps, **probabilities.maps})
        stated = replace(stated, page=partial(page_of, stated, wanted.text, prediction.maps.get(EXPLANATION)))
        objects, refused = write_answers(stated, kinds, folder / name, wanted)
        written += objects
        lacking += refused
    written += write_maps(prediction.maps, image, folder, name, wanted.format)
    written += probabilities.write() if probabilities is not None else ()
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


def _marked(task: Task, prediction: Prediction, case: Case) -> list[Figure]:
    """A picture of what the task marks in the image; of several tasks one of each that marks something."""
    placed = {name: part for name, part in leaves(task).items() if name and has_place(prediction.parts[name])}
    each = [part.figures(prediction.parts[name], case) for name, part in placed.items()]
    return [drawn[0] for drawn in each or [task.figures(prediction, case)]]


def _label_map(
    mask: Array | Deferred, labels: Sequence[Label], image: Image, path: Path, wanted: Wanted, algorithm: str
) -> Path:
    """The file of a label map beside DICOM objects. path: without its suffix"""
    # A PNG holds 16 bits: numbers of more objects than that need another file.
    wide = {"png": "tiff"} if wanted.format == AUTO and mask.dtype.itemsize > 2 else None
    written = path.with_name(f"{path.name}.{_suffix(image, wanted.format, wide)}")
    write_label_map(mask, labels, image, written, algorithm=algorithm)
    return written


def _stated(
    prediction: Prediction,
    image: Image,
    model: Model,
    *,
    findings: Sequence[Finding],
    is_part: bool,
) -> Result:
    """A result as writers of DICOM objects take it."""
    stills, codes = prediction.frames or (prediction,), codes_of(model)
    sought, least_score = _sought(model.task, stills[0])
    limits = [
        *promises(model.task, findings),
        *(["only a part of the image was looked at"] if is_part else []),
        *([f"the model would give no answer here: {prediction.abstained}"] if prediction.abstained else []),
        *prediction.notes,
    ]
    return Result(
        image,
        algorithm_of(model),
        # One that is computed when it is read is read once for all kinds.
        [(part, np.asarray(mask), coded_labels(own, codes)) for part, mask, own in prediction.label_maps],
        findings,
        sought,
        is_empty=bool(sought) and all(map(marks_nothing, stills)),
        least_score=least_score,
        limits=limits,
        maps=prediction.maps,
    )


def _sought(task: Task, still: Prediction) -> tuple[list[str], float]:
    """(names of what was looked for in the image, the score from which on boxes are called)."""
    own = {name: still.parts[name] if name else still for name in leaves(task)}
    names = [label.name for name, part in leaves(task).items() if has_place(own[name]) for label in part.labels]
    is_boxed = any(one.boxes is not None for one in own.values())
    return list(dict.fromkeys(names)), still.threshold if is_boxed else 0.0


def _suffix(image: Image, format: str, instead: Mapping[str, str] | None = None) -> str:
    """Suffix of the format that was asked for, else the one that suits the source.

    instead: for formats that cannot hold the numbers
    """
    # A PNG has no pixel size and no frames.
    flat = "tiff" if image.geometry.physical or image.frames is not None else "png"
    # NIfTI holds an orientation in mm only.
    volume = "nrrd" if image.geometry.has_sides and not image.geometry.physical else "nii.gz"
    own = {1: "csv", 2: flat}.get(image.geometry.ndim, volume)
    suffix = own if format == AUTO else format
    return (instead or {}).get(suffix, suffix)
