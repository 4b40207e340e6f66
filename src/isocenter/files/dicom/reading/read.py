"""DICOM: files and folders of series to images in RAS+ mm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from isocenter.errors import FormatError, IsocenterError
from isocenter.files.dicom.header import Header, check_pixels, header
from isocenter.files.dicom.reading.images import Named, images_of
from isocenter.files.dicom.reading.series import SEGMENTATIONS, collected, grouped, safe, safe_name, unique
from isocenter.files.dicom.warnings import quiet
from isocenter.files.format import Format, ReadOptions
from isocenter.values import Image, LazyMapping


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """All volumes of a file, of what a DICOMDIR lists, or of a folder, by name; pixels are read when asked for.

    Of several series one that cannot be read is refused when it is asked for, so that the others can be had.
    Segmentations are left out where they lie beside images: they are references, and no images.
    Raises FormatError or GeometryError where nothing can be read.
    """
    with quiet():  # `header` keeps them as notes
        return _read(collected(path), options)


def read_series(paths: Iterable[Path], options: ReadOptions | None = None) -> Mapping[str, Image]:
    """All volumes of the files of one series (at least one file), by name."""
    with quiet():
        return _read([header(path) for path in paths], options or ReadOptions())


def _read(heads: list[Header], options: ReadOptions) -> Mapping[str, Image]:
    pictures = [head for head in heads if head.is_image]
    images = [head for head in pictures if head.sop_class not in SEGMENTATIONS] or pictures
    if not images:
        check_pixels(heads[0])
    loaders: dict[str, Callable[[], Image]] = {}
    names, found = [], []
    for group in grouped(images):
        volumes = _volumes_or_error(group, options)
        names += [safe_name(group[0].dataset) + safe(suffix) for suffix, _ in volumes]
        found += [volume for _, volume in volumes]
    refused = [volume for volume in found if isinstance(volume, IsocenterError)]
    if len(refused) == len(found):
        raise refused[0]
    for name, volume in zip(unique(names), found, strict=True):
        loaders[name] = partial(_refuse, volume) if isinstance(volume, IsocenterError) else partial(_itself, volume)
    return LazyMapping(loaders)


def _volumes_or_error(group: list[Header], options: ReadOptions) -> Sequence[Named | tuple[str, IsocenterError]]:
    try:
        return images_of(group, options)
    except IsocenterError as error:
        return [("", error)]
    except MemoryError:
        raise
    except Exception as error:  # what a library throws at a damaged header can be anything
        reason = f"{type(error).__name__}: {error}"
        return [("", FormatError(f"cannot be read ({reason})", group[0].where, "Get the files of this series again"))]


def _itself(image: Image) -> Image:
    return image


def _refuse(error: IsocenterError) -> Image:
    raise error


FORMAT = Format("dicom", read)
