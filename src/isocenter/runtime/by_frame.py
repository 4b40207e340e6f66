"""A clip through a model of still images, frame by frame, and its results as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from isocenter.values import Image, Prediction

# The columns of `measurements` that say how large something is, and what their relative change is called.
SIZES = {
    "volume_ml": "ejection_fraction_percent",
    "area_mm2": "fractional_area_change_percent",
    "voxels": "fractional_change_percent",
}


def predicted_by_frame(image: Image, predict: Callable[[Image, int], Prediction]) -> Prediction:
    """One prediction whose `data` is (frames, *spatial), and whose `frames` are those of each."""
    each = tuple(predict(image.frame(number), number) for number in range(image.frames or 0))
    data = np.stack([np.asarray(one.data) for one in each])
    return Prediction(image.geometry, data=data, labels=each[0].labels, frames=each)


def over_time(frames: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """One row a label: its largest and smallest size, and by how much of the largest it becomes smaller.

    frames: rows of `measurements` of each frame
    Of volumes of a ventricle over a heartbeat that is the ejection fraction, (EDV - ESV) / EDV, of areas the
    fractional area change. Lang et al., J Am Soc Echocardiogr 2015, doi:10.1016/j.echo.2014.10.003
    """
    rows = []
    for each in zip(*frames, strict=True):
        size = next(name for name in SIZES if name in each[0])
        largest, smallest = (bound(float(one[size]) for one in each) for bound in (max, min))
        change = 100 * (largest - smallest) / largest if largest else float("nan")
        rows.append(
            {
                "label": each[0]["label"],
                f"largest_{size}": largest,
                f"smallest_{size}": smallest,
                SIZES[size]: round(change, 6),
            }
        )
    return rows
