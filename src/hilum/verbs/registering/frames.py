"""`register frames`: the motion between the frames of a series, found and taken out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from hilum import errors, keywords
from hilum.errors import UsageError
from hilum.files import file_formats, result_images
from hilum.files.format_options import ReadOptions
from hilum.files.storage import csv_text
from hilum.lazy import pandas as pd
from hilum.options.images import RegisterFramesOptions
from hilum.reading import input_cases, verb_results
from hilum.registration import motion
from hilum.registration.engine import RegistrationSettings
from hilum.registration.motion import FollowedFrames, FrameTarget
from hilum.report import InNotebook
from hilum.transforms import spatial_transforms
from hilum.values import Floats, Geometry, Image, Label, SpatialTransform
from hilum.values.record_schema import RecordSchema, RowsRecord

MARKS = ("motion.csv", "corrected.nii.gz")
# Frames of one scene with noise of a few percent correlate by more: others hold a contrast agent, or something else.
LIKE = 0.98
# Where no size is known, pixels in place of mm.
COLUMNS = ("frame", "time_s", "x_mm", "y_mm", "z_mm", "x_deg", "y_deg", "z_deg", "displacement_mm", "note")


class MotionRecord(RowsRecord):
    """How far each frame had moved."""

    notes: list[str]


MOTION_SCHEMA = RecordSchema("hilum.motion", MotionRecord)


@dataclass(frozen=True, eq=False)
class Motion(InNotebook):
    """A series after the motion between its frames was taken out.

    corrected:  every frame on the grid of the first
    transforms: from the first frame (or the mean) to each
    table:      a row a frame: shift of the grid's centre, turn about it, mean length of the displacement
    labels:     those of one frame on each frame; union: every voxel that they reach in any
    notes:      frames in which movement cannot be told from a change of contents
    """

    corrected: Image
    transforms: tuple[SpatialTransform, ...]
    table: pd.DataFrame
    labels: Image | None = None
    union: Image | None = None
    out: Path | None = None
    notes: tuple[str, ...] = ()

    def as_record(self) -> MotionRecord:
        """The record for `--json`."""
        return MOTION_SCHEMA.record_of(self, rows=self.table.to_dict("records"))

    def __repr__(self) -> str:
        unit = _unit(self.corrected)
        moved = self.table[f"displacement_{unit}"]
        words = (
            f"{len(moved)} frames, moved by {moved.mean():.2f} {unit} on average and {moved.max():.2f} {unit} at most"
        )
        lines = [words, *(f"note: {note}" for note in self.notes)]
        return "\n".join(lines if self.out is None else [*lines, str(self.out / MARKS[1])])


@keywords.takes(RegisterFramesOptions)
def register_frames(options: RegisterFramesOptions) -> Motion:
    """Lay every frame of a series on the first, or on the mean of all, and say how far each had moved.

    out:       a folder for corrected.nii.gz and motion.csv; nothing is written without it
    labels:    a label map of one frame, carried to all: labels.nii.gz, and union.nii.gz, where any of them reaches
    Raises UsageError for an image of a single frame or a frame that is not there, GeometryError for labels of another
    grid, and for a deformable motion that folds, where labels are to follow it back.
    """
    reading = keywords.narrow_options(options, ReadOptions)
    chosen = (("to", options.to, get_args(FrameTarget)), ("transform", options.transform, ("rigid", "deformable")))
    for name, value, known in chosen:
        if value not in known:
            raise UsageError(f"there is no {value!r} of frames", f"--{name}", f"Choose {' or '.join(known)}")
    if options.labels is None and options.labels_frame != 1:
        raise UsageError("there are no labels", "--labels-frame", "Give --labels of this frame, or leave it out")
    target = None if options.out is None else Path(options.out)
    if target is not None:
        verb_results.refuse_taken(target, options.overwrite, MARKS)
    image = options.series if isinstance(options.series, Image) else file_formats.read_image(options.series, reading)
    where = "series" if isinstance(options.series, Image) else str(options.series)
    if not 1 <= options.labels_frame <= (image.frames or 1):
        problem = f"there is no frame {options.labels_frame} of {image.frames or 1}"
        raise UsageError(problem, "--labels-frame", "Give the number of the frame of the labels")
    label_map = None if options.labels is None else input_cases.labels_on_grid(options.labels, image, reading)
    followed = motion.frame_transforms(
        image, RegistrationSettings(cast("Any", options.transform)), cast("Any", options.to), where
    )
    made = followed.transforms
    frames = [
        spatial_transforms.carry_image(frame, one, image.geometry).data
        for frame, one in zip(image.still_frames(), made, strict=True)
    ]
    corrected = replace(image, pixels=np.stack(frames, axis=1), padding=None)
    carried_along, union = (
        (None, None) if label_map is None else _carried_along(label_map, image, made, options.labels_frame - 1)
    )
    columns = [name.replace("_mm", f"_{_unit(image)}") for name in COLUMNS]
    table = pd.DataFrame(_rows(image, followed), columns=columns)
    displacements = table[f"displacement_{_unit(image)}"].to_numpy(float)
    notes = (*_kept_frames(followed.notes), *_unlike_frames(corrected, displacements, followed.notes))
    result = Motion(corrected, tuple(made), table, carried_along, union, target, notes)
    if target is not None:
        with verb_results.result_folder(target, options.overwrite, MARKS) as folder:
            file_formats.write(corrected, folder / MARKS[1])
            csv_text.write_table(result.table, folder / MARKS[0])
            for name, one in (("labels", result.labels), ("union", result.union)):
                if one is not None:
                    on = image if one.frames else image.frame(0)
                    result_images.write_label_map(
                        one.data[0], one.labels, on, folder / f"{name}.nii.gz", algorithm="register"
                    )
    return result


def _kept_frames(faults: Sequence[str]) -> Iterator[str]:
    """A note on the frames that hold too little to be laid on others."""
    if kept := [f"{number} ({fault.partition(':')[0]})" for number, fault in enumerate(faults, start=1) if fault]:
        yield f"frame {errors.list_phrase(kept)}: kept as it is, and no other was laid by it"


def _unlike_frames(corrected: Image, displacements: Floats, faults: Sequence[str]) -> Iterator[str]:
    """A note on frames that moved by less than a voxel, and whose contents differ from those of the first frame."""
    step, unit = max(corrected.geometry.steps), _unit(corrected)
    start = faults.index("")
    first = corrected.data[0, start].astype(np.float64)
    unlike = list[str]()
    for number, displacement in enumerate(displacements):
        if number == start or faults[number]:
            continue
        frame = corrected.data[0, number].astype(np.float64)
        known = np.isfinite(first) & np.isfinite(frame)
        agreement = float(np.corrcoef(first[known], frame[known])[0, 1]) if known.any() else 0.0
        if displacement < step and not agreement >= LIKE:
            unlike.append(f"{number + 1} ({agreement:.2f})")
    if unlike:
        yield (
            f"the contents of frame {errors.list_phrase(unlike)} differ from those of the first one (correlation below "
            f"{LIKE:g}): a movement of less than a voxel ({step:.3g} {unit}) there may be that change"
        )


def _carried_along(
    label_map: Image, series: Image, transforms: Sequence[SpatialTransform], number: int
) -> tuple[Image, Image]:
    """The labels of one frame on each, and where any of them reaches: the label that most frames have there."""
    grid, values = series.geometry, label_map.data[0]
    carried_maps = np.stack(
        [
            values
            if frame == number
            else spatial_transforms.carry_labels(
                values,
                grid,
                spatial_transforms.compose_transforms(spatial_transforms.invert_transform(one), transforms[number]),
                grid,
            )
            for frame, one in enumerate(transforms)
        ]
    )
    label_values = [int(value) for value in np.unique(carried_maps) if value]
    counts = np.stack(
        [np.zeros(grid.shape, np.int32), *(np.count_nonzero(carried_maps == one, axis=0) for one in label_values)]
    )
    union = np.array([0, *label_values], carried_maps.dtype)[counts.argmax(axis=0)]
    labels = label_map.labels or tuple(Label(one, str(one)) for one in label_values)
    return series.with_label_map(carried_maps, labels), series.frame(0).with_label_map(union, labels)


def _unit(image: Image) -> str:
    return "mm" if image.geometry.physical else "pixels"


def _rows(image: Image, followed: FollowedFrames) -> Iterator[list[float | str | None]]:
    grid = image.geometry
    for number, (transform, note) in enumerate(zip(followed.transforms, followed.notes, strict=True)):
        vectors = spatial_transforms.to_single_field(transform, grid).vectors
        length = float(np.linalg.norm(vectors, axis=0).mean())
        rigid: Floats = np.full(6, np.nan) if transform.matrix is None else _rigid_motion(transform.matrix, grid)
        time = None if image.times is None else image.times[number]
        yield [number + 1, time, *rigid.tolist(), length, note]


def _rigid_motion(matrix: Floats, grid: Geometry) -> Floats:
    """(6,) shift of the grid's centre along x, y and z, and the turns about these in degrees.

    In a picture x runs along its columns to the right and y down its rows; a turn is one from x towards y, about z.
    """
    centre = grid.corners.mean(axis=0)
    moved = matrix[:-1, :-1] @ centre + matrix[:-1, -1]
    if not grid.is_picture:
        return np.concatenate([moved - centre, motion.rotation_angles(matrix)])
    down, right = (grid.to_index(moved) - grid.to_index(centre)) * grid.steps
    axes = grid.affine[:-1, :-1] / grid.steps
    turned = np.linalg.inv(axes) @ matrix[:-1, :-1] @ axes
    turn = np.degrees(np.arctan2(turned[0, 1], turned[1, 1]))
    return np.array([right, down, np.nan, np.nan, np.nan, turn])
