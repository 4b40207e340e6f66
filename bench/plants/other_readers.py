"""How other programs read the same planted inputs: SimpleITK, and MONAI through its own readers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK

from .planted import Array, Seen, Volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


class Words(SimpleITK.LoggerBase):
    """What ITK says while it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def DisplayText(self, text: str) -> None:  # noqa: N802 - the name that the library calls
        self.lines.append(text)

    DisplayWarningText = DisplayErrorText = DisplayGenericOutputText = DisplayText


def by_simpleitk(path: Path) -> tuple[Array, Array]:
    """(values, affine) as SimpleITK has them, of a folder its first series."""
    if path.is_dir():
        names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(path))
        image = SimpleITK.ReadImage(names)
    else:
        image = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    count = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(count, count)[:3, :3]
    affine[:3, :3] = direction * np.array(image.GetSpacing())[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    return SimpleITK.GetArrayFromImage(image).T, LPS @ affine


def by_monai(path: Path) -> tuple[Array, Array]:
    """(values, affine) as MONAI's LoadImage has them with the reader that it picks: pydicom's of a folder, else any."""
    from monai.transforms import LoadImage

    reader = "PydicomReader" if path.is_dir() else None
    image = LoadImage(reader=reader, image_only=True, dtype=None)(str(path))
    return np.asarray(image), np.asarray(image.affine, float)


def by_nibabel(path: Path) -> tuple[Array, Array]:
    """(values, affine) as nibabel has them, which nnU-Net's NibabelIO and TotalSegmentator read by."""
    image = nibabel.load(path)
    return np.asarray(image.dataobj), np.asarray(image.affine)


READERS: Mapping[str, Callable[[Path], tuple[Array, Array]]] = {
    "SimpleITK": by_simpleitk,
    "MONAI": by_monai,
    "nibabel": by_nibabel,
}
# What a reader cannot be asked: a format or a folder that it does not claim to read.
OUTSIDE = {"nibabel": lambda path: path.is_dir() or path.suffix not in (".nii", ".gz", ".hdr", ".mgz", ".mgh")}


def look_by(name: str, path: Path) -> Seen | None:
    """What a program makes of a volume, with what it says; None where it does not claim to read it."""
    if OUTSIDE.get(name, lambda _: False)(path):
        return None
    words = Words()
    before = words.SetAsGlobalITKLogger()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            values, affine = READERS[name](path)
        messages = [str(one.message) for one in caught if not is_about_program(one)]
        said = [*words.lines, *messages]
    except Exception as error:  # whatever it raises is its refusal
        return Seen(None, str(error))
    finally:
        with suppress(AttributeError):
            before.SetAsGlobalITKLogger()
    values = np.squeeze(values) if values.ndim > 3 else values
    return Seen(Volume(values, affine) if values.ndim == 3 else None, "\n".join(said))


def is_about_program(warning: warnings.WarningMessage) -> bool:
    """Whether a warning is about the program or a plugin that it lacks, not about the file."""
    kinds = DeprecationWarning | FutureWarning | ImportWarning | ResourceWarning
    return issubclass(warning.category, kinds) or "nvImageCodec" in str(warning.message)
