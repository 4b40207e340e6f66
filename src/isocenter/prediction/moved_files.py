"""The files of a pair: the moved image, the transform, its field, moved labels, and the same as DICOM objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from isocenter.errors import FormatError, GeometryError
from isocenter.files import dicom, write, write_label_map, write_transform
from isocenter.transforms import carried, carried_labels, whole_field, with_one_field
from isocenter.values import UNMOVED, Correspondence, Image, Problem, SpatialTransform

# How the folder of the moved image as a DICOM series, and the file of the registration, go on after a name.
SERIES, REGISTRATION = "moved_dicom", "transform.dcm"


def write_moved(
    transform: SpatialTransform, image: Image, pair: Correspondence, folder: Path, name: str, algorithm: str
) -> Iterator[Path]:
    """Write each file of a pair.

    image: of two channels, the moving one as it was brought onto the fixed grid
    pair:  what is known of both images: labels of the moving one are carried along
    """
    grid, unmoved = image.geometry, _unmoved(image)
    is_nifti = image.source is not None and image.source.format == "nifti"
    moved = replace(carried(unmoved, transform, grid), source=image.source if is_nifti else None, facts={})
    kinds = ("moved.nii.gz", "transform.h5", "field.nii.gz", "labels.nii.gz")
    moved_file, transform_file, field_file, labels_file = (folder / f"{name}_{kind}" for kind in kinds)
    write(moved, moved_file)
    write_transform(transform, transform_file)
    yield from (moved_file, transform_file)
    if grid.has_sides and not grid.is_sheared:
        write_transform(SpatialTransform((whole_field(transform, grid),)), field_file)
        yield field_file
    if pair.moving_labels is not None:
        drawn = pair.moving_labels
        values = carried_labels(drawn.data[0], drawn.geometry, transform, grid)
        write_label_map(values, drawn.labels, moved, labels_file, algorithm=algorithm)
        yield labels_file


def write_moved_objects(
    transform: SpatialTransform, image: Image, folder: Path, name: str
) -> tuple[list[Path], list[Problem]]:
    """The DICOM objects of a pair of two DICOM images, and why there are none of a pair that cannot bear them.

    image: as `write_moved` takes it
    """
    fixed, unmoved = replace(image, pixels=image.data[:1], channels=("fixed",)), _unmoved(image)
    if not all(one.source is not None and one.source.is_dicom for one in (fixed, unmoved)):
        return [], []
    moved = replace(carried(unmoved, transform, image.geometry), facts=unmoved.facts)
    try:
        return list(write_dicom_pair(transform, moved, fixed, unmoved, folder, name)), []
    except (FormatError, GeometryError) as error:
        what = f"no DICOM registration: {error.problem}"
        return [], [Problem("warning", what, (name,), remedy=error.remedy)]


def write_dicom_pair(
    transform: SpatialTransform, moved: Image, fixed: Image, moving: Image, folder: Path, name: str = ""
) -> Iterator[Path]:
    """A DICOM registration of two DICOM volumes, and the moved one as a series; nothing of other images.

    name: of the pair, which begins the names of both
    """
    if not all(_has_dicom_place(one) for one in (fixed, moving)):
        return
    prefix = f"{name}_" if name else ""
    registration, series = folder / f"{prefix}{REGISTRATION}", folder / f"{prefix}{SERIES}"
    write_transform(with_one_field(transform), registration, fixed=fixed, moving=moving)
    yield registration
    if dicom.can_derive(moving):
        code = dicom.RESAMPLED if transform.is_linear else dicom.DEFORMED
        placed = replace(moved, geometry=fixed.geometry)
        dicom.write_derived_series(placed, moving, code, "Laid on the fixed image", series)
        yield series


def _unmoved(image: Image) -> Image:
    """The moving image of a pair as it was read."""
    unmoved: Image = image.facts_of(1).get(UNMOVED, replace(image, pixels=image.data[1:2], channels=("moving",)))
    return unmoved


def _has_dicom_place(image: Image) -> bool:
    """Whether it is a DICOM volume in a frame of reference, which a registration names."""
    is_dicom = image.source is not None and image.source.is_dicom
    return is_dicom and image.geometry.has_sides and image.geometry.frame_of_reference is not None
