"""Results written on the grid of the image that they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hilum.errors import FormatError
from hilum.files import file_formats, label_table
from hilum.files.dicom.writing import seg
from hilum.files.file_formats import FORMATS
from hilum.files.storage import spool
from hilum.files.storage.spool import Spool
from hilum.values import Array, Deferred, Image, Label, Map, Region, voxel_images

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
    if file_formats.suffix_of(path) in FORMATS["dicom"].suffixes:
        if source.source is None or not source.source.is_dicom:
            problem = "a DICOM SEG needs the DICOM series that it belongs to"
            raise FormatError(problem, str(path), "Choose --format nii.gz")
        # Through the index, which imports highdicom only now: it takes a second.
        seg.write_segmentation(
            np.asarray(label_map), labels, source, path, algorithm_name=algorithm, overwrite=overwrite
        )
        return
    file_formats.write(source.with_label_map(label_map, labels), path, overwrite=overwrite)


def write_map(name: str, parameter_map: Map, source: Image, path: Path, *, overwrite: bool = False) -> None:
    """Numbers of every voxel on the source's grid as an image of one channel that is called `name`.

    Of a map with names there is one volume (in a picture one channel) each, and a table of them counted from 0.
    """
    if parameter_map.names and file_formats.suffix_of(path) not in FRAMED:
        file_formats.write(_of_numbers(source, parameter_map.data, parameter_map.names), path, overwrite=overwrite)
    else:
        file_formats.write(
            _of_numbers(source, voxel_images.one_channel(parameter_map.data), (name,)), path, overwrite=overwrite
        )
    if parameter_map.names:
        table = [Label(place, one) for place, one in enumerate(parameter_map.names)]
        label_table.write_labels(table, label_table.table_path(path), overwrite=overwrite)


class TakenProbabilities:
    """The probabilities of a dense result, taken part by part: called with a region and (channels, *region).

    labels: what the channels mean, behind the background where the channels have one
    folder: of the file that they lie in, which has no name
    They have the precision of float16, and never lie in memory as a whole. What no part covers is background.
    """

    def __init__(self, labels: Sequence[Label], source: Image, folder: Path) -> None:
        self.labels, self.source, self.folder = tuple(labels), source, folder
        self._held: list[Spool] = []

    def __call__(self, region: Region, probabilities: Array) -> None:
        """Take a part of the image."""
        if not self._held:
            background = len(probabilities) > len(self.labels)
            self.folder.mkdir(parents=True, exist_ok=True)
            self._held = [
                Spool(self.source.geometry.shape, np.dtype(np.float16), fill=fill, held=0, folder=self.folder)
                for fill in [float(background), *[0.0] * (len(probabilities) - 1)]
            ]
        for channel_spool, channel in zip(self._held, probabilities, strict=True):
            channel_spool[region] = channel.astype(np.float16)

    @property
    def of_labels(self) -> Map | None:
        """Labels that were taken, without the background; None where the result is not dense."""
        return self._map(self._held[len(self._held) - len(self.labels) :], ())

    def write(self, path: Path, *, overwrite: bool = False) -> bool:
        """Write one volume (in a picture one channel) a label, the background first, and beside them their names.

        Gives whether there was anything to write.
        """
        probability_map = self._map(self._held, (BACKGROUND,) if len(self._held) > len(self.labels) else ())
        if probability_map is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_map("probability", probability_map, self.source, path, overwrite=overwrite)
        return probability_map is not None

    def _map(self, held: Sequence[Spool], before: tuple[str, ...]) -> Map | None:
        names = (*before, *(label.name for label in self.labels))
        return Map(spool.stack_spools(held, np.dtype(np.float32)), names=names) if held else None


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
