"""How an image is read by us, in the form in which planted faults are judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from hilum.errors import HilumError
from hilum.files import file_formats
from hilum.files.format_options import ReadOptions
from hilum.values import Image

from .planted import Seen, Volume

OPTIONS = {field.name for field in fields(ReadOptions)}


def look_at_image(path: Path, options: Mapping[str, Any]) -> Seen:
    """The image as `hilum.read` has it, with its notes."""
    given = dict(options)
    volume = given.pop("volume", None)
    known = {name: value for name, value in given.items() if name in OPTIONS}
    try:
        image = file_formats.read_image(path, ReadOptions(**known), volume)
        values = volume_of(image)
    except HilumError as error:
        return Seen(None, f"{error.where}: {error.problem}", error.remedy, "" if error.remedy else "no remedy")
    return Seen(values, "\n".join(image.notes))


def volume_of(image: Image) -> Volume:
    """An image in the form in which values are compared; channels of a picture and frames come last."""
    data = image.data
    if image.geometry.ndim == 3 and image.geometry.spacing is not None:
        values = data[0] if len(data) == 1 else np.moveaxis(data, 0, -1)
        return Volume(values, np.asarray(image.geometry.affine))
    values = data[0] if len(data) == 1 else np.moveaxis(data, 0, -1)
    return Volume(values, None, image.geometry.spacing)


def differ_from(truth: Volume) -> Any:
    """A comparison with a volume."""
    return lambda volume, wanted: truth.differs(volume, wanted.within)
