"""Results back on the grid of the image that they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from isocenter.errors import FormatError
from isocenter.files import label_table
from isocenter.files.index import suffix_of, write
from isocenter.values import Array, Image, Label

# Pictures have no place for a table of labels, and need none to be looked at.
WITH_TABLE = frozenset({".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".tiff", ".tif", ".png", ".npy"})


def write_label_map(
    label_map: Array,
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

        dicom_seg_write.write(label_map, labels, source, path, algorithm_name=algorithm, overwrite=overwrite)
        return
    image = replace(
        source,
        pixels=label_map[None],
        modality="SEG",
        channels=("label",),
        times=None,
        padding=None,
        labels=tuple(labels),
        notes=(),
        facts={},
    )
    write(image, path, overwrite=overwrite)
    if labels and suffix_of(path) in WITH_TABLE:
        stem = path.name.removesuffix(suffix_of(path))
        label_table.write(labels, path.with_name(f"{stem}.labels.csv"), overwrite=overwrite)
