"""The DICOM format: files and folders of series as images in RAS+ mm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from isocenter.errors import FormatError, IsocenterError
from isocenter.files.dicom.header import Header, check_pixels, read_header
from isocenter.files.dicom.reading.images import images_of
from isocenter.files.dicom.reading.series import SEGMENTATIONS, collected, grouped, safe, safe_name, unique
from isocenter.files.dicom.tags import pydicom_errors
from isocenter.files.dicom.warnings import quiet
from isocenter.files.format import Format, ReadOptions
from isocenter.values import Image, LazyMapping


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """All volumes of a file, of what a DICOMDIR lists, or of a folder, by name; pixels are read when asked for.

    Of several series one that cannot be read is refused when it is asked for, so that the others can be had.
    Segmentations are left out where a folder holds images too: they are references.
    Raises FormatError or GeometryError where nothing can be read.
    """
    with quiet():  # `read_header` keeps them as notes
        return _read(collected(path), options)


def read_series(paths: Iterable[Path], options: ReadOptions | None = None) -> Mapping[str, Image]:
    """All volumes of the files of one series (at least one file), by name."""
    with quiet():
        return _read([read_header(path) for path in paths], options or ReadOptions())


def _read(heads: list[Header], options: ReadOptions) -> Mapping[str, Image]:
    pictures = [head for head in heads if head.is_image]
    images = [head for head in pictures if head.sop_class not in SEGMENTATIONS] or pictures
    if not images:
        check_pixels(heads[0])
    loaders: list[Callable[[], Image]] = []
    names, refusals = list[str](), list[IsocenterError]()
    for group in grouped(images):
        volumes, refusal = _volumes_or_refusal(group, options)
        refusals += [refusal] if refusal else []
        names += [safe_name(group[0].dataset) + safe(suffix) for suffix, _ in volumes]
        loaders += [load for _, load in volumes]
    if len(refusals) == len(loaders):
        raise refusals[0]
    return LazyMapping(dict(zip(unique(names), loaders, strict=True)))


def _volumes_or_refusal(
    group: list[Header], options: ReadOptions
) -> tuple[list[tuple[str, Callable[[], Image]]], IsocenterError | None]:
    """([(a suffix, a function that gives the image)], the error that the one function raises)."""
    try:
        return [(suffix, partial(_itself, image)) for suffix, image in images_of(group, options)], None
    except IsocenterError as error:
        refusal = error
    except pydicom_errors() as error:
        reason = f"{type(error).__name__}: {error}"
        refusal = FormatError(f"cannot be read ({reason})", group[0].where, "Get the files of this series again")
    return [("", partial(_refuse, refusal))], refusal


def _itself(image: Image) -> Image:
    return image


def _refuse(error: IsocenterError) -> Image:
    raise error


FORMAT = Format("dicom", read)
