"""What is written of a result, and its DICOM objects: one that cannot be written never stops the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from isocenter.errors import FormatError, GeometryError, UsageError
from isocenter.files.dicom import ANSWERS, Result
from isocenter.values import Image, Problem

AUTO, DICOM = "auto", "dcm"
SURFACES = ("stl", "obj")
FORMATS = ("nii.gz", "nii", "nrrd", "png", "tiff", DICOM, "csv", *SURFACES)
NOTHING_MARKED = "no structure has a voxel"
USUAL = ("seg", "sr")  # where nobody names kinds


@dataclass(frozen=True)
class Wanted:
    """What of a result is written.

    format:        of the label map, or of its structures' surfaces; "auto" chooses by the source
    answers:       kinds of DICOM objects beside it, or with "dcm" in its place; without any, what suits of a SEG and a
                   report
    probabilities: of every voxel beside it
    overlay:       a picture of the image with the result drawn on it
    maps:          the entropy of every voxel's probabilities, and what of it is epistemic
    added:         what the model's answers add: results that miss no more than `task.risk` allows
    text:          what readers have to be told, which is drawn where pixels are
    Raises UsageError for a format or a kind that results are not written in.
    """

    format: str = AUTO
    probabilities: bool = False
    overlay: bool = False
    maps: bool = False
    added: bool = False
    answers: tuple[str, ...] = ()
    text: str = ""

    def __post_init__(self) -> None:
        if self.format not in (AUTO, *FORMATS):
            remedy = f"Choose auto or one of {', '.join(FORMATS)}"
            raise UsageError(f"cannot write {self.format!r}", "--format", remedy)
        if unknown := [kind for kind in self.answers if kind not in ANSWERS]:
            problem = f"there is no answer {unknown[0]!r}"
            raise UsageError(problem, "--answers", f"Choose of {', '.join(ANSWERS)}")
        if self.answers and self.format not in (AUTO, DICOM):
            problem = f"answers are DICOM objects, and the format is {self.format}"
            raise UsageError(problem, "--answers", f"Choose --format {AUTO} or {DICOM}")

    def kinds_for(self, image: Image) -> tuple[str, ...]:
        """The kinds of objects that are tried on an image."""
        is_dicom = image.source is not None and image.source.format == "dicom"
        tried = self.format == DICOM or (self.format == AUTO and (is_dicom or bool(self.answers)))
        return (self.answers or USUAL) if tried else ()


def write_answers(result: Result, kinds: Sequence[str], path: Path, wanted: Wanted) -> tuple[list[Path], list[Problem]]:
    """The objects of a result, and which of them could not be written and why.

    path: of the case's files, without what ends their names
    Raises FormatError or GeometryError where only DICOM objects were asked for, and there is none.
    """
    written, lacking, refusals = list[Path](), list[Problem](), dict[str, FormatError | GeometryError]()
    for kind in sorted(kinds, key=lambda kind: kind == "sr"):  # a report refers to the SEG
        if not ANSWERS[kind].suits(result):
            if wanted.answers:
                lacking.append(_lacking(kind, path, f"the result has not {ANSWERS[kind].states}", "Ask for others"))
            continue
        try:
            _refuse_several(result.source, kind)
            own = list[Path]()
            for number, file in enumerate(ANSWERS[kind].write(result, path)):
                own.append(file)
                written.append(file)
                if kind == "seg":
                    segmentations = {**result.segmentations, file: result.label_maps[number][2]}
                    result = replace(result, segmentations=segmentations)
            if not own:
                lacking.append(_lacking(kind, path, NOTHING_MARKED, "Look at the report"))
        except (FormatError, GeometryError) as error:
            refusals[kind] = error
            lacking.append(_lacking(kind, path, error.problem, error.remedy))
    # The SEG is what DICOM alone means where nobody names kinds.
    is_short = not written or (not wanted.answers and "seg" in refusals)
    if wanted.format == DICOM and refusals and is_short:
        raise next(iter(refusals.values()))
    return written, lacking


def _refuse_several(image: Image, kind: str) -> None:
    """Refuse a series of several volumes or frames; a report says by itself what it can state of a clip."""
    if image.frames is not None and kind != "sr":
        what = "volumes" if image.geometry.is_volume else "frames"
        problem = f"the series holds {image.frames} {what}, and an object of this kind belongs to one"
        raise GeometryError(problem, str(kind), "Give one of them as a series of its own")


def _lacking(kind: str, path: Path, problem: str, remedy: str) -> Problem:
    return Problem("warning", f"no DICOM {ANSWERS[kind].name}: {problem}", (path.name,), remedy=remedy)
