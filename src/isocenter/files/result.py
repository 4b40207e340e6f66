"""Results back on the grid of the image that they were made from."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from isocenter.errors import FormatError
from isocenter.files import label_table
from isocenter.files.atomic import unwritable
from isocenter.files.index import suffix_of, write
from isocenter.values import Array, Deferred, Geometry, Image, Label, Region

# Pictures have no place for a table of labels, and need none to be looked at.
WITH_TABLE = frozenset({".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".tiff", ".tif", ".png", ".npy"})

BACKGROUND = "background"
# The suffixes of formats to which several numbers a voxel are frames, so that every program opens them as four axes.
FRAMED = frozenset({".nii.gz", ".nii"})
FILL_BYTES = 1 << 24


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
    beside other formats lies a table of the labels' names.
    Raises FormatError where the format cannot hold the result.
    """
    if suffix_of(path) in (".dcm", ".dicom", ".ima"):
        if source.source is None or source.source.format != "dicom":
            raise FormatError(
                "a DICOM SEG needs the DICOM series that it belongs to", str(path), "Choose --format nii.gz"
            )
        from isocenter.files import dicom_seg_write  # highdicom takes a second to import

        dicom_seg_write.write(
            np.asarray(label_map), labels, source, path, algorithm_name=algorithm, overwrite=overwrite
        )
        return
    write(source.with_label_map(label_map, labels), path, overwrite=overwrite)
    if labels and suffix_of(path) in WITH_TABLE:
        stem = path.name.removesuffix(suffix_of(path))
        label_table.write(labels, path.with_name(f"{stem}.labels.csv"), overwrite=overwrite)


@contextmanager
def probabilities_written(
    labels: Sequence[Label], source: Image, path: Path, *, overwrite: bool = False
) -> Iterator[Callable[[Region, Array], None]]:
    """Takes the probabilities of a dense result part by part, (channels, *region), and writes them at the end.

    One volume (in a picture one channel) a label, the first one the background's where the channels have one; beside
    them lies a table of which is which, counted from 0. They have the precision of float16, and never lie in memory
    as a whole: until the end they are in a file beside the result. What no part covers is background.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".partial", dir=path.parent) as room:
        held: list[np.memmap] = []

        def take(region: Region, probabilities: Array) -> None:
            if not held:
                background = len(probabilities) > len(labels)
                held.append(_reserved(Path(room, "voxels"), len(probabilities), source.geometry, background))
            held[0][(slice(None), *region)] = probabilities.astype(np.float16)

        yield take
        if held:
            _write_probabilities(held.pop(), labels, source, path, overwrite)


def _reserved(path: Path, channels: int, geometry: Geometry, background: bool) -> np.memmap:
    """(channels, *spatial) in a file that has its whole size from the start: a full disk is an error, no crash."""
    voxels = int(np.prod(geometry.shape))
    try:
        with path.open("wb") as file:
            for channel in range(channels):
                filled = np.full(min(voxels, FILL_BYTES), float(background and channel == 0), dtype=np.float32)
                for start in range(0, voxels, len(filled)):
                    file.write(filled[: voxels - start].tobytes())
    except OSError as error:
        raise unwritable(error, path) from error
    return np.memmap(path, dtype=np.float32, mode="r+", shape=(channels, *geometry.shape))


def _write_probabilities(held: Array, labels: Sequence[Label], source: Image, path: Path, overwrite: bool) -> None:
    named = [*([BACKGROUND] if len(held) > len(labels) else []), *(label.name for label in labels)]
    framed = suffix_of(path) in FRAMED
    image = replace(
        source,
        pixels=held[None] if framed else held,
        modality="unknown",
        channels=("probability",) if framed else tuple(named),
        times=None,
        padding=None,
        labels=(),
        notes=(),
        facts={},
    )
    write(image, path, overwrite=overwrite)
    stem = path.name.removesuffix(suffix_of(path))
    table = [Label(place, name) for place, name in enumerate(named)]
    label_table.write(table, path.with_name(f"{stem}.labels.csv"), overwrite=overwrite)
