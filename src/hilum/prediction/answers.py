"""Files of a result and its DICOM objects: one that cannot be written never stops the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hilum.errors import FormatError, GeometryError, UsageError
from hilum.files.dicom.writing import source_planes
from hilum.files.dicom.writing.dicom_answers import ANSWERS, Result
from hilum.values import Image, Problem
from hilum.values.finding import MOST_FRAMES

AUTO = "auto"
DICOM = "dcm"
SURFACES = ("stl", "obj")
FORMATS = ("nii.gz", "nii", "nrrd", "png", "tiff", DICOM, "csv", *SURFACES)
NOTHING_MARKED = "no structure has a voxel"
USUAL = ("seg", "sr")  # where nobody names kinds
# Kinds of which a series of several volumes has an object for each, and how its file's name goes on.
EACH_VOLUME = ("seg", "labelmap")
VOLUME = "volume"
# Kinds of which an object names the frames of a clip.
OF_CLIPS = (*EACH_VOLUME, "gsps")


@dataclass(frozen=True)
class WantedFiles:
    """Parts of a result that are to be written.

    format:        of the label map, or of its structures' surfaces; "auto" chooses by the source
    answers:       kinds of DICOM objects beside it, or with "dcm" in its place; without any, what suits of a SEG and a
                   report
    probabilities: of every voxel beside it
    overlay:       a picture of the image with the result over it
    maps:          the entropy of every voxel's probabilities, and what of it is epistemic
    added:         what the model's answers add: results that miss no more than `task.risk` allows
    text:          what readers have to be told, which stands where pixels are
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


def write_answers(
    result: Result, kinds: Sequence[str], path: Path, wanted: WantedFiles
) -> tuple[list[Path], list[Problem]]:
    """The objects of a result, and which of them could not be written and why.

    path: of the case's files, without what ends their names
    Raises FormatError or GeometryError where only DICOM objects were asked for, and there is none.
    """
    written = list[Path]()
    lacking = list[Problem]()
    refusals = dict[str, FormatError | GeometryError]()
    for kind in sorted(kinds, key=lambda kind: kind == "sr"):  # a report refers to the SEG
        if not ANSWERS[kind].suits(result):
            if wanted.answers:
                lacking.append(_lacking(kind, path, f"the result has not {ANSWERS[kind].states}", "Ask for others"))
            continue
        try:
            own = list[Path]()
            for number, file in enumerate(_objects(result, kind, path)):
                own.append(file)
                written.append(file)
                if kind == "seg" and result.source.frames is None:
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


def _objects(result: Result, kind: str, path: Path) -> Iterator[Path]:
    """The objects of one kind; of a series of several volumes those of each volume in which something is marked.

    A clip has one segmentation and one presentation state, which name the frames that they are of. A report says by
    itself what it can state of a clip. Raises GeometryError for other kinds of several images.
    """
    image = result.source
    answer = ANSWERS[kind]
    if image.frames is None or kind == "sr" or (image.geometry.is_picture and kind in OF_CLIPS):
        yield from answer.write(result, path)
        return
    what = "volumes" if image.geometry.is_volume else "frames"
    if kind not in EACH_VOLUME or not image.geometry.is_volume:
        problem = f"the series holds {image.frames} {what}, and an object of this kind belongs to one"
        raise GeometryError(problem, kind, "Give one of them as a series of its own")
    marked = [n for n in range(image.frames) if any(mask[n].any() for _, mask, _ in result.label_maps)]
    if len(marked) > MOST_FRAMES:
        problem = f"{len(marked)} volumes are marked, and objects of at most {MOST_FRAMES} are written"
        raise GeometryError(problem, kind, "Use the .nii.gz, or give fewer volumes")
    volumes = list(source_planes.split_into_volumes(image))
    for number in marked:
        label_maps = [(part, mask[number], labels) for part, mask, labels in result.label_maps]
        still = replace(result, source=volumes[number], label_maps=label_maps)
        yield from answer.write(still, path.with_name(f"{path.name}_{VOLUME}_{number + 1}"))


def _lacking(kind: str, path: Path, problem: str, remedy: str) -> Problem:
    return Problem.warning(f"no DICOM {ANSWERS[kind].name}: {problem}", (path.name,), remedy=remedy)
