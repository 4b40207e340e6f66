"""An image of two channels and a model of one, in every format that holds channels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from hilum.errors import DatasetError
from hilum.files import file_formats
from hilum.runtime import Preprocessing
from hilum.runtime.foreign.monai_transforms import MonaiTransforms
from hilum.transforms.intensity import Normalisation
from hilum.values import Geometry, Image

GRID = Geometry((5, 4, 3), np.diag([-1.0, -1.0, 2.0, 1.0]))
VOXELS = np.arange(120, dtype=np.int16).reshape(2, 5, 4, 3)


def volume(path: Path) -> None:
    file_formats.write(Image(VOXELS, GRID), path)


def picture(path: Path) -> None:
    tifffile.imwrite(path, VOXELS[..., 0].astype(np.uint16), photometric="minisblack", metadata={"axes": "CYX"})


def table(path: Path) -> None:
    rows = [f"{n / 100},{n},{-n}" for n in range(60)]
    path.write_text("\n".join(["time,I,II", *rows]))


@pytest.mark.parametrize(
    ("name", "made", "ndim", "names"),
    [
        ("scan.nii.gz", volume, 3, "0, 1"),
        ("scan.nrrd", volume, 3, "0, 1"),
        ("scan.mha", volume, 3, "0, 1"),
        ("scan.ome.tiff", picture, 2, "0, 1"),
        ("heart.csv", table, 1, "I, II"),
    ],
)
def test_two_channels_are_refused_by_name_where_the_model_has_one(
    name: str, made: Callable[[Path], None], ndim: int, names: str, tmp_path: Path
):
    made(tmp_path / name)
    image = file_formats.read(tmp_path / name)
    own = Preprocessing(ndim, ("T1",), (Normalisation("zscore"),), shape=(4,) * ndim)
    foreign = MonaiTransforms(("T1",), ndim, None, True, (4,) * ndim)
    for preprocessing in (own, foreign):
        with pytest.raises(DatasetError, match=rf"has 2 channels \({names}\), the model expects 1 \(T1\)"):
            preprocessing(image, "case 7")
