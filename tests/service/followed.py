"""Studies of one patient, whose structure changes from one to the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom

from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.values import Geometry, Image

SHAPE = (24, 20, 10)


def study(folder: Path, day: str, radius: float, *, shift=(0, 0), **stated: str) -> list[Path]:
    """An MR of a bright ball in tissue, taken on a day; stated: attributes in each of its files."""
    x, y, z = np.indices(SHAPE).astype(float)
    x, y = x - shift[0], y - shift[1]
    tissue = 12 + 8 * np.sin(x / 2.3) * np.cos(y / 1.9) + 3 * np.sin(z * 1.1 + x / 3)
    away = np.sqrt((x - 11) ** 2 + (y - 9) ** 2 + (2 * (z - 4.5)) ** 2)
    image = np.where(away <= radius, 200, tissue)
    where = folder / day
    geometry = Geometry(SHAPE, np.diag([1.0, 1.0, 2.0, 1.0]))
    series_writing.write_series(
        Image(image[None].astype(np.int16), geometry, modality="MR"),
        SeriesNames(stated.get("PatientID", "p"), day, "series"),
        where,
    )
    paths = sorted(where.iterdir())
    for path in paths:
        dataset = pydicom.dcmread(path)
        for keyword, text in {"PatientID": "4711", "IssuerOfPatientID": "here", "StudyDate": day, **stated}.items():
            setattr(dataset, keyword, text)
        dataset.save_as(path)
    return paths
