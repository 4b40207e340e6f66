"""Consensus of the label maps of several readers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from isocenter.lazy import SimpleITK
from isocenter.values import Array


def votes(maps: Sequence[Array], labels: int) -> Iterator[NDArray[np.uint8]]:
    """(*spatial) how many of the maps say 0, then 1, and so on up to `labels`."""
    for label in range(labels + 1):
        yield np.sum([one == label for one in maps], axis=0, dtype=np.uint8)


def majority(maps: Sequence[Array], labels: int) -> Array:
    """(*spatial) what most of them say, of equals the highest label; `labels` + 1 where none of 0 to `labels` is said.

    As where labels are resampled: what is half a structure stays one.
    """
    chosen = np.full(maps[0].shape, labels + 1, dtype=np.min_scalar_type(labels + 1))
    most = np.ones(maps[0].shape, dtype=np.uint8)
    for label, count in enumerate(votes(maps, labels)):
        wins = count >= most
        chosen[wins], most[wins] = label, count[wins]
    return chosen


def staple(maps: Sequence[Array], labels: int) -> Array:
    """(*spatial) what is likeliest once the maps themselves have told how far each reader can be trusted.

    Warfield et al., IEEE Trans Med Imaging 2004, doi:10.1109/TMI.2004.828354; several labels as Rohlfing et al. (2003).
    Where somebody says nothing (`labels` + 1), or nothing is likeliest, most decide.
    """
    otherwise = majority(maps, labels)
    silent = np.any([one > labels for one in maps], axis=0)
    if len(maps) < 2 or not any(((one > 0) & ~silent).any() for one in maps):
        return otherwise
    read = [SimpleITK.GetImageFromArray(np.where(silent, 0, one).astype(np.uint8)) for one in maps]
    likeliest = SimpleITK.GetArrayFromImage(SimpleITK.MultiLabelSTAPLE(read, labels + 1))
    return np.where(silent | (likeliest > labels), otherwise, likeliest).astype(otherwise.dtype)
