"""Results written on the grid of the image that they were made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from isocenter.errors import FormatError
from isocenter.files import dicom, label_table
from isocenter.files.index import FORMATS, suffix_of, write
from isocenter.files.storage import Spool
from isocenter.values import Array, BoundingBoxes, Deferred, Image, Label, Map, Region

# Suffixes of formats that cannot hold labels: a table of labels is written next to the file.
WITH_TABLE = frozenset({".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".tiff", ".tif", ".png", ".npy", ".csv"})

BACKGROUND = "background"
# In these formats several numbers a voxel are written as frames, so that every program opens them as four axes.
FRAMED = frozenset({".nii.gz", ".nii"})


def write_label_map(
    label_map: Array | Deferred,
    labels: Sequence[Label],
    source: Image,
    path: Path,
    *,
    algorithm: str,
    overwrite: bool = False,
) -> None:
    """A label map, (*spatial) on the source's grid, in the format that the suffix names.

    NIfTI keeps the source's header bits; .dcm becomes a DICOM SEG of the source's patient and frame of reference;
    next to other formats a table of the labels' names is written.
    Raises FormatError where the format cannot hold the result.
    """
    if suffix_of(path) in FORMATS["dicom"].suffixes:
        if source.source is None or not source.source.is_dicom:
            problem = "a DICOM SEG needs the DICOM series that it belongs to"
            raise FormatError(problem, str(path), "Choose --format nii.gz")
        # Through the index, which imports highdicom only now: it takes a second.
        dicom.write_segmentation(
            np.asarray(label_map), labels, source, path, algorithm_name=algorithm, overwrite=overwrite
        )
        return
    write(source.with_label_map(label_map, labels), path, overwrite=overwrite)
    if labels and suffix_of(path) in WITH_TABLE:
        stem = path.name.removesuffix(suffix_of(path))
        label_table.write(labels, path.with_name(f"{stem}.labels.csv"), overwrite=overwrite)


def write_boxes(boxes: BoundingBoxes, source: Image, path: Path, *, algorithm: str, overwrite: bool = False) -> None:
    """Boxes on the source's grid as a DICOM structured report of the source's patient.

    Raises FormatError where the source is no DICOM, or cannot bear a report.
    """
    dicom.write_report(boxes, source, path, algorithm_name=algorithm, overwrite=overwrite)


def write_map(name: str, made: Map, source: Image, path: Path, *, overwrite: bool = False) -> None:
    """Numbers of every voxel, (*spatial) on the source's grid, as an image of one channel that is called `name`."""
    pixels = made.data.one_channel() if isinstance(made.data, Deferred) else made.data[None]
    write(_of_numbers(source, pixels, (name,)), path, overwrite=overwrite)


@contextmanager
def probabilities_written(
    labels: Sequence[Label], source: Image, path: Path, *, overwrite: bool = False
) -> Iterator[Callable[[Region, Array], None]]:
    """A function that takes the probabilities of a dense result part by part, (channels, *region); written at the end.

    One volume (in a picture one channel) a label, the first one the background's where the channels have one; next
    to them a table names the channels, counted from 0. They have the precision of float16, and never lie in memory
    as a whole: until the end they are in a file next to the result. What no part covers is background.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    held: list[Spool] = []

    def take(region: Region, probabilities: Array) -> None:
        """Write the probabilities of a part, (channels, *region)."""
        if not held:
            background = len(probabilities) > len(labels)
            held.extend(
                Spool(source.geometry.shape, np.dtype(np.float16), fill=fill, held=0, folder=path.parent)
                for fill in [float(background), *[0.0] * (len(probabilities) - 1)]
            )
        for spool, channel in zip(held, probabilities, strict=True):
            spool[region] = channel.astype(np.float16)

    yield take
    if held:
        _write_probabilities(held, labels, source, path, overwrite)


@dataclass(frozen=True, eq=False)
class _Stacked:
    """Several arrays of one shape as the first axis of one, in single precision."""

    arrays: Sequence[Spool]

    def __call__(self) -> Array:
        return np.stack([one.load() for one in self.arrays]).astype(np.float32)

    def part(self, region: tuple[slice, ...]) -> Array:
        """The arrays and the part of them that lie in a region."""
        return np.stack([one[region[1:]] for one in self.arrays[region[0]]]).astype(np.float32)


def _write_probabilities(
    held: Sequence[Spool], labels: Sequence[Label], source: Image, path: Path, overwrite: bool
) -> None:
    named = [*([BACKGROUND] if len(held) > len(labels) else []), *(label.name for label in labels)]
    framed = suffix_of(path) in FRAMED
    stacked = _Stacked(held)
    pixels = Deferred((len(held), *source.geometry.shape), np.dtype(np.float32), stacked, stacked.part)
    channels = ("probability",) if framed else tuple(named)
    write(_of_numbers(source, pixels.one_channel() if framed else pixels, channels), path, overwrite=overwrite)
    stem = path.name.removesuffix(suffix_of(path))
    table = [Label(place, name) for place, name in enumerate(named)]
    label_table.write(table, path.with_name(f"{stem}.labels.csv"), overwrite=overwrite)


def _of_numbers(source: Image, pixels: Array | Deferred, channels: tuple[str, ...]) -> Image:
    """Numbers of the source's voxels as an image on its grid, with the header of the same source."""
    return replace(
        source,
        pixels=pixels,
        modality="unknown",
        channels=channels,
        times=None,
        padding=None,
        labels=(),
        notes=(),
        facts={},
    )
