"""How far label maps of two folders are the same, case by case, and by class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import hilum
from hilum.evaluation import mask_overlap


def compared(found: Path, wanted: Path, labels: dict[str, int]) -> pd.DataFrame:
    """One row a case of `wanted`: case, share of voxels that are equal, Dice of each label, and the problem if any.

    A case that is missing or lies on another grid is a row with a problem, whose figures are 0.
    """
    rows = []
    for file in sorted(wanted.glob("*.nii.gz")):
        row = {"case": file.name.removesuffix(".nii.gz"), "equal": 0.0, **dict.fromkeys(labels, 0.0), "problem": ""}
        if not (found / file.name).is_file():
            rows.append({**row, "problem": "there is no result"})
            continue
        one, other = (hilum.read(folder / file.name) for folder in (found, wanted))
        if one.data.shape != other.data.shape or not np.allclose(one.geometry.affine, other.geometry.affine, atol=1e-3):
            rows.append({**row, "problem": "lies on another grid"})
            continue
        each = {name: mask_overlap.dice(one.data == value, other.data == value) for name, value in labels.items()}
        rows.append({**row, "equal": float(np.mean(one.data == other.data)), **each})
    return pd.DataFrame(rows)
