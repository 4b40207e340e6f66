"""Results written on the grid of the image that they were made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from isocenter.errors import FormatError
from isocenter.files import dicom, label_table
from isocenter.files.index import FORMATS, suffix_of, write
from isocenter.files.storage.spool import Spool, stacked_spools
from isocenter.values import Array, Deferred, Image, Label, Map, Region, one_channel

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


def write_map(name: str, made: Map, source: Image, path: Path, *, overwrite: bool = False) -> None:
    """Numbers of every voxel on the source's grid as an image of one channel that is called `name`.

    Of a map with names there is one volume (in a picture one channel) each, and a table of them counted from 0.
    """
    if made.names and suffix_of(path) not in FRAMED:
        write(_of_numbers(source, made.data, made.names), path, overwrite=overwrite)
    else:
        write(_of_numbers(source, one_channel(made.data), (name,)), path, overwrite=overwrite)
    if made.names:
        table = [Label(place, one) for place, one in enumerate(made.names)]
        label_table.write(table, label_table.table_path(path), overwrite=overwrite)


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
        names = (*([BACKGROUND] if len(held) > len(labels) else []), *(label.name for label in labels))
        made = Map(stacked_spools(held, np.dtype(np.float32)), names=names)
        write_map("probability", made, source, path, overwrite=overwrite)


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
