"""`convert`: the same image in another format, same geometry, same values, or a refusal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from typing_extensions import TypedDict

from hilum import keywords
from hilum.errors import HilumError, UsageError
from hilum.files import file_formats, transform_file
from hilum.files.format_options import ReadOptions
from hilum.files.storage import csv_text
from hilum.lazy import pandas as pd
from hilum.options.images import ConvertOptions
from hilum.report import InNotebook
from hilum.transforms import adc, label_maps, spatial_transforms
from hilum.values import Affine, Geometry, Image, Problem, SpatialTransform
from hilum.values.record_schema import RecordHead, RecordSchema

# Values of a map that nobody calls a label map, and that is taken for one where half of its voxels are alike.
MOST_LABELS = 64


class ConvertedRow(TypedDict):
    """A volume that was written, and its grid."""

    file: str
    shape: list[int]
    affine: list[list[float]]
    spacing: list[float]
    orientation: str
    notes: list[str]


class ConversionRecord(RecordHead):
    """Volumes that were written, and those that were not: volume and remedy of each."""

    rows: list[ConvertedRow]
    failed: list[dict[str, str]]


CONVERSION_SCHEMA = RecordSchema("hilum.converted", ConversionRecord)


@dataclass(frozen=True, eq=False)
class ConversionResult(InNotebook):
    """The file that was written, and its source."""

    files: tuple[Path, ...]
    images: tuple[Image, ...]
    failures: tuple[Problem, ...] = ()

    @property
    def table(self) -> pd.DataFrame:
        """The images that were written, a row each: file, shape, affine, spacing, orientation, notes."""
        return pd.DataFrame(self.as_record()["rows"])

    def as_record(self) -> ConversionRecord:
        """The record for `--json`."""
        rows = [
            {
                "file": str(path),
                "shape": list(image.shape),
                "affine": image.geometry.affine.tolist(),
                "spacing": image.spacing,
                "orientation": image.geometry.orientation,
                "notes": list(image.notes),
            }
            for path, image in zip(self.files, self.images, strict=True)
        ]
        failed = [{"volume": one.what, "remedy": one.remedy} for one in self.failures]
        return CONVERSION_SCHEMA.record_of(self, rows=rows, failed=failed)

    def __repr__(self) -> str:
        lines = []
        for path, image in zip(self.files, self.images, strict=True):
            many = f", {len(image.channels)} channels" if len(image.channels) > 1 else ""
            frames = f", {image.frames} frames" if image.frames else ""
            lines += [
                f"{path}: {image.geometry.words}{many}{frames}, {image.dtype}",
                *(f"note: {note}" for note in image.notes),
            ]
        lines += [f"not written: {one.what}. {one.remedy}" for one in self.failures]
        return "\n".join(lines)


@keywords.takes(ConvertOptions)
def convert(options: ConvertOptions) -> ConversionResult:
    """Read any image, series or volume file and write it to `out`, whose suffix names the format.

    Several volumes on different grids become `<name>_1`, `<name>_2`, ..., or the one that `volume` names.
    regions:       a label map on the image's grid: the mean of each region over the frames instead, a series
    connectivity:  such a label map: a CSV of the correlations between regions over time, covariates of a model; of a
                   folder of files a row each
    through, onto: carry the image through a transform onto the grid of the fixed image; inverse: the transform was
                   made the other way round, with this image as the fixed one. Label maps stay label maps
    Of several volumes those that fail are named in the result; one alone raises what reading raises, and FormatError
    for what the format cannot hold.
    """
    out, reading = Path(options.out), keywords.narrow_options(options, ReadOptions)
    if (options.through is None) != (options.onto is None):
        raise UsageError("a transform needs a grid, and a grid a transform", "--through", "Give --through and --onto")
    if options.inverse and options.through is None:
        raise UsageError("there is no transform to invert", "--inverse", "Give --through and --onto")
    if options.connectivity is not None:
        return _correlations(Path(options.source), out, Path(options.connectivity), reading, options)
    volumes = file_formats.read_volumes(options.source, reading)
    if options.volume is not None and options.volume not in volumes:
        raise UsageError(
            f"there is no volume {options.volume!r}", str(options.source), f"Choose one of {', '.join(volumes)}"
        )
    chosen = list(volumes) if options.volume is None else [options.volume]
    suffix = file_formats.suffix_of(out)
    stem = out.name[: -len(suffix)] if suffix else out.name
    names = [out] if len(chosen) == 1 else [out.with_name(f"{stem}_{n + 1}{suffix}") for n in range(len(chosen))]
    for path in names:
        if path.exists() and not options.overwrite:
            raise UsageError("exists already", str(path), "Choose another --out, or give --overwrite")
    written, images, problems = [], [], []
    for path, name in zip(names, chosen, strict=True):
        try:
            image = volumes[name]  # of a folder of several series, read only now: one bad series spares the others
            image = adc.apparent_diffusion(image, str(options.source)) if options.adc else image
            if options.regions is not None:
                regions = file_formats.read(options.regions, orientation=options.orientation)
                image = label_maps.region_series(image, regions, str(options.source))
            image = _through(image, options, reading)
            file_formats.write(
                _picture(image, str(options.source)) if options.drop_geometry else image,
                path,
                overwrite=options.overwrite,
            )
        except HilumError as error:
            if len(names) == 1:
                raise
            problems.append(Problem.error(f"{name}: {error.problem}", (error.where,), remedy=error.remedy))
            continue
        written.append(path)
        images.append(image)
    return ConversionResult(tuple(written), tuple(images), tuple(problems))


def _correlations(
    source: Path, out: Path, atlas_file: Path, reading: ReadOptions, options: ConvertOptions
) -> ConversionResult:
    """A table with a row for each series of volumes; those that fail are named in the result."""
    if out.suffix.lower() != ".csv":
        raise UsageError("correlations are a table", str(out), "Give --out a name that ends in .csv")
    if out.exists() and not options.overwrite:
        raise UsageError("exists already", str(out), "Choose another --out, or give --overwrite")
    atlas = file_formats.read(atlas_file, orientation=options.orientation)
    listed = sorted(one for one in source.iterdir() if file_formats.format_of(one)) if source.is_dir() else []
    of_files = [one for one in listed if file_formats.format_of(one) != "dicom"]
    rows, images, problems = [], [], []
    for file in of_files or [source]:
        for name, image in file_formats.read_volumes(file, reading).items():
            try:
                series = label_maps.region_series(image, atlas, str(file))
                rows.append({"case": name, **label_maps.region_correlations(series, str(file))})
                images.append(series)
            except HilumError as error:
                problems.append(Problem.error(f"{name}: {error.problem}", (error.where,), remedy=error.remedy))
    if not rows:
        raise UsageError(
            problems[0].what if problems else "holds no series", str(source), "Give 4D images on the grid of the atlas"
        )
    csv_text.write_table(pd.DataFrame(rows), out)
    return ConversionResult((out,) * len(images), tuple(images), tuple(problems))


def _through(image: Image, options: ConvertOptions, reading: ReadOptions) -> Image:
    """The image on the grid of the fixed one, a label map by the largest share of each voxel; as it is without one."""
    onto, where, inverse = options.onto, str(options.source), options.inverse
    if options.through is None or onto is None:
        return image
    fixed = onto if isinstance(onto, Image) else next(iter(file_formats.read_volumes(onto, reading).values()))
    spatial_transforms.refuse_unlike_axes((image.geometry, fixed.geometry), where)
    transform = _transform_between(options.through, fixed, image, inverse=inverse)
    if transform.ndim != image.geometry.ndim:
        problem = f"a transform of {transform.ndim} axes for an image of {image.geometry.ndim}"
        raise UsageError(problem, "--through", "Give the transform of this image")
    spatial_transforms.refuse_unreached(transform, image, fixed.geometry, where)
    note = f"carried {'back ' if inverse else ''}through {transform!r}"
    if image.labels or (is_label_map := _is_label_map(image)):
        made = spatial_transforms.carry_labels(image.data, image.geometry, transform, fixed.geometry)
        moved = replace(image, pixels=made, geometry=fixed.geometry, source=fixed.source)
        note += ", each voxel with the label of the largest share"
        note += "" if image.labels or not is_label_map else "; whole numbers of few values are taken for labels"
    else:
        moved = replace(spatial_transforms.carry_image(image, transform, fixed.geometry), source=fixed.source)
    return replace(moved, notes=(*image.notes, note))


def _transform_between(
    through: str | Path | SpatialTransform, fixed: Image, moving: Image, *, inverse: bool
) -> SpatialTransform:
    """The transform from points of the fixed image to those of the moving one.

    A DICOM registration says itself which way it leads, by the frames of reference; `inverse` then changes nothing.
    """
    if isinstance(through, SpatialTransform):
        return spatial_transforms.invert_transform(through) if inverse else through
    if (ends := transform_file.transforms_to_images(through, fixed, moving)) is not None:
        joined = spatial_transforms.compose_transforms(spatial_transforms.invert_transform(ends[0]), ends[1])
        return joined if joined.matrix is None else SpatialTransform((Affine(joined.matrix),))
    transform = transform_file.read_transform(through)
    return spatial_transforms.invert_transform(transform) if inverse else transform


def _is_label_map(image: Image) -> bool:
    """Whether an image that nobody calls a label map is one: whole numbers, few values, and mostly one of them."""
    if image.shape[0] != 1 or image.dtype.kind not in "iub" or image.modality not in ("SEG", "unknown"):
        return False
    values, counts = np.unique(image.data, return_counts=True)
    return len(values) <= MOST_LABELS and counts.max() >= image.data.size / 2


def _picture(image: Image, where: str) -> Image:
    """Rows and columns of pixels: what is left of a single slice without its place in the patient."""
    data, shape = image.data, image.geometry.shape
    if len(shape) == 3:
        single = [axis for axis, size in enumerate(shape) if size == 1]
        if not single:
            raise UsageError(f"a volume of {shape} is not a picture", where, "Give one slice, or write .nii.gz")
        # (column, row) to (row, column), as every picture library has it
        data = data.squeeze(single[-1] - 3).swapaxes(-1, -2)
    spatial = data.shape[-2:]
    return replace(image, pixels=data, geometry=Geometry.of_pixels(spatial))
