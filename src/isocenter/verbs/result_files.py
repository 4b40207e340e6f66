"""The files of one predicted case: what is written of it, under which names, and what could not be."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np

from isocenter.errors import FormatError, GeometryError
from isocenter.files import probabilities_written, write_label_map
from isocenter.report import figures
from isocenter.tasks import Task
from isocenter.values import Array, Case, Dense, Image, Prediction, Problem, Region
from isocenter.verbs.output import named_as

# Names that Windows keeps for devices, with any suffix:
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
RESERVED = frozenset({"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))})
PROBABILITIES, OVERLAY = "_probabilities", "_overlay"
FORMATS = ("nii.gz", "nii", "nrrd", "png", "tiff", "dcm", "csv")


@dataclass(frozen=True)
class Wanted:
    """What of a dense result is written.

    format:        of the label map; "auto" chooses by the source
    probabilities: of every voxel beside it
    overlay:       a picture of the image with the result's outlines
    """

    format: str = "auto"
    probabilities: bool = False
    overlay: bool = False


def told_apart(cases: Sequence[Case]) -> list[Case]:
    """Cases with file names of their own: ids can be anything, and two inputs may share one."""
    taken: set[str] = set()  # in lower case, as some file systems do not tell them apart
    named = []
    for case in cases:
        plain = re.sub(r"[^\w.()+-]+", "_", case.id).strip("._") or "case"
        plain = f"{plain}_" if plain.partition(".")[0].upper() in RESERVED else plain
        numbered = (plain if n == 1 else f"{plain}_{n}" for n in count(1))
        name = next(one for one in numbered if not _stems(one) & taken)
        taken |= _stems(name)
        named.append(replace(case, id=name))
    return named


def _stems(name: str) -> set[str]:
    """What the files of a case may be called, without their suffix."""
    return {f"{name}{ending}".lower() for ending in ("", PROBABILITIES, OVERLAY)}


@contextmanager
def room_for(folder: Path, name: str) -> Iterator[Path]:
    """A folder to write a case's files into, which then lie in `folder`: all of them, or none where one fails."""
    with tempfile.TemporaryDirectory(prefix=f".{name}.", suffix=".partial", dir=folder) as room:
        with named_as(folder, Path(room)):
            yield Path(room)
        for path in sorted(Path(room).iterdir()):
            path.rename(folder / path.name)


@contextmanager
def probabilities_beside(
    task: Task, image: Image, folder: Path, name: str, wanted: Wanted
) -> Iterator[tuple[Callable[[Region, Mapping[str, Array]], None] | None, list[Path]]]:
    """What a model is to tell the probabilities of a case's voxels, and the files that hold them when it is done.

    Nothing where none were asked for, or where the task has none for every voxel.
    """
    dense = [head for head, kind in task.heads.items() if isinstance(kind, Dense)]
    if not (wanted.probabilities and dense):
        yield None, []
        return
    path = folder / f"{name}{PROBABILITIES}.{_suffix(image, wanted.format, {'png': 'tiff', 'dcm': 'nii.gz'})}"
    files: list[Path] = []
    with probabilities_written(task.labels, image, path) as take:
        yield lambda region, arrays: take(region, arrays[dense[0]]), files
    files.append(path)


def write_result(
    prediction: Prediction, image: Image, folder: Path, name: str, wanted: Wanted, algorithm: str
) -> tuple[list[Path], list[Problem]]:
    """The files of a dense result, and what of them could not be; nothing for a result that is not dense.

    A SEG that nobody asked for by name is left out with a warning where the series cannot bear one.
    """
    if prediction.data is None:
        return [], []
    mask, algorithm = prediction.data, f"isocenter {algorithm}"
    written, lacking = [folder / f"{name}.{_suffix(image, wanted.format)}"], []
    write_label_map(mask, prediction.labels, image, written[0], algorithm=algorithm)
    series = (
        image.geometry.ndim == 3
        and image.frames is None
        and image.source is not None
        and image.source.format == "dicom"
    )
    if wanted.format == "auto" and series:
        try:
            write_label_map(mask, prediction.labels, image, folder / f"{name}.dcm", algorithm=algorithm)
            written.append(folder / f"{name}.dcm")
        except (FormatError, GeometryError) as error:
            lacking.append(Problem("warning", f"no DICOM SEG: {error.problem}", (name,), remedy=error.remedy))
    if wanted.overlay:
        written.append(folder / f"{name}{OVERLAY}.png")
        still, drawn = (image, mask) if image.frames is None else (image.frame(0), np.asarray(mask)[0])
        written[-1].write_bytes(figures.contours(still, None, np.asarray(drawn), prediction.labels, name).png)
    return written, lacking


def _suffix(image: Image, format: str, instead: Mapping[str, str] | None = None) -> str:
    """Of the format that was asked for, else what suits the source.

    instead: for formats that cannot hold the numbers
    """
    own = "csv" if image.geometry.ndim == 1 else "nii.gz"
    if image.geometry.ndim == 2:  # a PNG has no place for the size of a pixel, nor for frames
        own = "tiff" if image.geometry.physical or image.frames is not None else "png"
    suffix = format if format != "auto" else own
    return (instead or {}).get(suffix, suffix)
