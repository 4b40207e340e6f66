"""Clips with annotated frames: each frame is a case, and an object keeps the number of its track."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hilum import errors
from hilum.errors import DatasetError
from hilum.files import modality_words, patient_names
from hilum.layouts import layout
from hilum.layouts.cases.annotated_boxes import AnnotatedBox, Annotation, Ring, UnreadObject
from hilum.layouts.cases.annotation_files import AnnotatedFolder, AnnotationFormat
from hilum.layouts.cases.dataset_folder import VIDEO_SUFFIXES, Folder, FolderMember
from hilum.layouts.layout import DatasetOptions, Reading, References
from hilum.values import CaseRow, Cell, Split

FRAME = "_frame{:06}"


@dataclass(frozen=True)
class ListedClip:
    """A clip as a file lists it.

    name:   of the clip, from which its patient is made
    frames: {frame from 0: its boxes}; a frame that is neither in it nor in `unread` has no object
    count:  of its frames
    clip:   its file; else images has the file of each frame
    unread: {frame from 0: its objects that cannot be read}
    """

    path: Path
    name: str
    frames: Mapping[int, tuple[AnnotatedBox, ...]]
    count: int
    size: tuple[int, int] | None = None
    clip: Path | None = None
    images: Mapping[int, Path] = field(default_factory=dict)
    split: Split | None = None
    unread: Mapping[int, Sequence[UnreadObject]] = field(default_factory=dict)

    def annotation(self, frame: int) -> Annotation:
        """The boxes of a frame, cut to the image."""
        boxes = self.frames.get(frame, ())
        if self.size is not None:
            boxes = tuple(kept for one in boxes if (kept := cut_to_image(one, self.size)) is not None)
        return Annotation(self.path, boxes, self.size, unread=tuple(self.unread.get(frame, ())))

    @property
    def keys(self) -> dict[int, str]:
        """{frame: its name in the file}."""
        numbers = range(self.count) if self.clip is not None else sorted(self.images)
        return {number: f"{self.name}{FRAME.format(number)}" for number in numbers}

    @property
    def annotations(self) -> dict[str, Annotation]:
        """{name of a frame: its annotation}."""
        return {key: self.annotation(number) for number, key in self.keys.items()}

    def cell(self, frame: int, modality: str | None) -> Cell:
        """The image of a frame."""
        if self.clip is None:
            return Cell((self.images[frame],), "clip", modality=modality)
        return Cell((self.clip,), "frame", f"{frame}/{self.count}", modality=modality)

    def rows(self, owner: str, modality: str | None, references: Mapping[int, References]) -> Iterator[CaseRow]:
        """A case for each frame, with what is known of it."""
        for number, key in self.keys.items():
            image = {"image": self.cell(number, modality)}
            yield CaseRow(key, image, references[number], split=self.split, patient=owner)


def cut_to_image(box: AnnotatedBox, size: tuple[int, int]) -> AnnotatedBox | None:
    """A box without what lies beyond the image, as where an object leaves a clip; None where all of it does."""
    low = tuple(max(0.0, edge) for edge in box.low)
    high = tuple(min(float(whole), edge) for edge, whole in zip(box.high, size, strict=True))
    return replace(box, low=low, high=high) if all(a < b for a, b in zip(low, high, strict=True)) else None


def rings_between(keyframes: Mapping[int, Ring | None], last: int) -> Iterator[tuple[int, Ring]]:
    """(frame, corners) of a track on every frame, from the corners at its keyframes; None where it is outside.

    Between two with as many corners these move evenly, else they stay until the next; after the last one they stay up
    to the frame `last`.
    """
    stated = sorted(keyframes)
    for frame, after in zip(stated, [*stated[1:], last + 1], strict=True):
        ring, target = keyframes[frame], keyframes.get(after)
        for number in range(frame, after if ring is not None else frame):
            share = (number - frame) / (after - frame)
            moves = target is not None and ring is not None and len(target) == len(ring)
            yield number, _between(ring, target, share) if moves else ring  # type: ignore[arg-type, misc]  # `moves` says that there are two


def _between(ring: Ring, target: Ring, share: float) -> Ring:
    pairs = zip(ring, target, strict=True)
    return tuple(((1 - share) * x + share * to_x, (1 - share) * y + share * to_y) for (x, y), (to_x, to_y) in pairs)


def clip_of(name: str, folder: Folder) -> FolderMember | None:
    """The clip of this name in a folder, else its only one."""
    clips = [one for one in folder.members if one.suffix in VIDEO_SUFFIXES]
    called = [one for one in clips if one.path.name.casefold() == Path(name).name.casefold()]
    return next(iter(called), clips[0] if len(clips) == 1 else None)


def read_clips(clips: Sequence[ListedClip], folder: Folder, options: DatasetOptions, form: AnnotationFormat) -> Reading:
    """A case for each frame of each clip; a clip is a patient of its own where its name states none.

    Raises DatasetError for two clips of one name.
    """
    owners, patients = owners_of_clips(clips, folder)
    modality = modality_words.modality_word(options.modality)
    rows = list[CaseRow]()
    for clip, owner in zip(clips, owners, strict=True):
        own = {number: form.references_of(clip.annotation(number), key) for number, key in clip.keys.items()}
        rows += clip.rows(owner, modality, own)
    lost = [clip.name for clip in clips if not clip.keys]
    seen = f"{errors.count_phrase(len(rows), 'frame')} of {errors.count_phrase(len(clips), 'clip')}"
    problems = layout.left_out_problem(lost, "clips have neither a file nor images", "Add them, or correct the names")
    return AnnotatedFolder(folder, options, form).read_rows(rows, seen=seen, patients=patients, problems=problems)


def owners_of_clips(clips: Sequence[ListedClip], folder: Folder) -> tuple[Sequence[str], str]:
    """The patient of each clip, and the rule in words; DatasetError for two clips of one name."""
    names = [clip.name for clip in clips]
    if len(set(names)) < len(names):
        raise DatasetError("two clips have one name", str(folder.root), "Rename one")
    guess = patient_names.patients_of(names)
    return (guess.names, "the names of clips") if guess.known else (names, "clips, each of which counts as a patient")
