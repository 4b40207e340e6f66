"""The files of a pair: the moved image, the transform, its field on the fixed grid, and moved labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from isocenter.files import write, write_label_map, write_transform
from isocenter.transforms import carried, carried_labels, whole_field
from isocenter.values import UNMOVED, Correspondence, Image, SpatialTransform


def write_moved(
    transform: SpatialTransform, image: Image, pair: Correspondence, folder: Path, name: str, algorithm: str
) -> Iterator[Path]:
    """Write each file of a pair.

    image: of two channels, the moving one as it was brought onto the fixed grid
    pair:  what is known of both images: labels of the moving one are carried along
    """
    grid = image.geometry
    unmoved: Image = image.facts_of(1).get(UNMOVED, replace(image, pixels=image.data[1:2], channels=("moving",)))
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
