"""An input with a planted fault: what it is, what is right about it, and how it is mended."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np

Array = np.ndarray[Any, Any]
Random = random.Random
# What may be right: the same values as without the fault; no answer; an answer and words that name the fault.
Right = Literal["same", "refused", "named"]
# Which of two faults at a time decides: the more severe one.
SEVERITY: tuple[Right, ...] = ("same", "named", "refused")


@dataclass(frozen=True)
class Wanted:
    """What is right about a fault, by construction.

    right:  the outcomes that are right
    words:  regular expression that words about it match: those of its remedy do not count
    mends:  (regular expression of a remedy, what it asks for) of what can be done to the files
    within: mm by which a corner may lie off, and share of the range by which a value may
    """

    right: tuple[Right, ...]
    words: str = ""
    mends: tuple[tuple[str, Callable[[Path], None]], ...] = ()
    within: tuple[float, float] = (1e-3, 1e-6)

    def beside(self, other: Wanted) -> Wanted:
        """What is right where both faults are planted."""
        first, second = sorted((self, other), key=lambda wanted: max(map(SEVERITY.index, wanted.right)), reverse=True)
        within = max(self.within[0], other.within[0]), max(self.within[1], other.within[1])
        words = "|".join(filter(None, (self.words, other.words)))
        right = first.right
        if "same" in right and "same" not in second.right:
            right = second.right
        if "refused" in other.right or "refused" in self.right:
            right = (*right, "refused") if "refused" not in right else right
        return Wanted(right, words, (*self.mends, *other.mends), within)


@dataclass(frozen=True)
class Seen:
    """What a program made of an input: `values` in a form that can be compared, or nothing and a refusal.

    words: what it said, in all its notes and findings, or in its refusal
    """

    values: Any
    words: str
    remedy: str = ""
    fault: str = ""


@dataclass(frozen=True)
class Planted:
    """An input as it lies in a folder.

    look:   how it is read, with the options that a remedy may ask for
    differ: words on how values differ from what they have to be; empty where they do not
    """

    source: str
    path: Path
    wanted: Wanted
    look: Callable[[Path, Mapping[str, Any]], Seen]
    differ: Callable[[Any, Wanted], str]


@dataclass(frozen=True)
class Volume:
    """Voxels with their place, or a picture without one.

    values: (i, j, k) or, of a picture, (rows, columns[, channels])
    affine: (4, 4) index to RAS+ mm; None of a picture
    """

    values: Array
    affine: Array | None = None
    spacing: tuple[float, ...] | None = None

    def differs(self, other: Volume, within: tuple[float, float]) -> str:
        """How another volume differs, however its axes are stored; empty where it is the same."""
        if (self.affine is None) != (other.affine is None):
            return "a place that one of them lacks"
        if any(one.affine is not None and not is_grid(one.affine) for one in (self, other)):
            return "a place that is no grid"
        first, second = self._upright(), other._upright()
        if first.affine is None:
            first, second = first._in_grey(), second._in_grey()
        if first.values.shape != second.values.shape:
            return f"shape {second.values.shape} in place of {first.values.shape}"
        if first.affine is not None and second.affine is not None:
            corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
            corners[:, :3] *= np.array(first.values.shape) - 1
            off = np.linalg.norm(corners @ (first.affine - second.affine).T, axis=1).max()
            if off > within[0]:
                return f"corners {off:.4g} mm off"
        if self.spacing and (other.spacing is None or not np.allclose(self.spacing, other.spacing, rtol=1e-3)):
            return f"spacing {other.spacing} in place of {self.spacing}"
        reach = max(float(np.ptp(first.values.astype(float))), 1.0)
        off = float(np.abs(first.values.astype(float) - second.values.astype(float)).max(initial=0))
        return f"values {off:.4g} off" if not off <= within[1] * reach else ""

    def _in_grey(self) -> Volume:
        """Three channels that are alike everywhere are one."""
        values = self.values
        is_grey = values.ndim == 3 and values.shape[-1] == 3 and bool((values == values[..., :1]).all())
        return replace(self, values=values[..., 0]) if is_grey else self

    def _upright(self) -> Volume:
        """The volume with its axes along the patient's, as far as turns and mirrors bring them there."""
        if self.affine is None:
            return self
        turn = nibabel.io_orientation(self.affine)
        values = nibabel.apply_orientation(self.values, turn)
        return Volume(values, self.affine @ nibabel.orientations.inv_ornt_aff(turn, self.values.shape[:3]))


def is_grid(affine: Array) -> bool:
    """Whether an index has a place of its own."""
    return bool(np.isfinite(affine).all()) and abs(np.linalg.det(affine[:3, :3])) > 1e-12


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    plant: changes what it is given, and says what is then right
    fits:  whether it can be planted there
    next:  whether it belongs to another question, whose figures are stated apart
    """

    name: str
    plant: Callable[..., Wanted]
    fits: Callable[[Any], bool] = field(default=lambda _: True)
    next: bool = False


def pick(faults: Sequence[Fault], subject: Any, rng: Random, chosen: Sequence[Fault] = ()) -> Fault | None:
    """One of the faults that fit the subject and were not chosen yet."""
    fitting = [fault for fault in faults if fault not in chosen and fault.fits(subject)]
    return rng.choice(fitting) if fitting else None


def matches(words: str, text: str) -> bool:
    """Whether a text has the words; every text has none."""
    return re.search(words, text, re.IGNORECASE | re.DOTALL) is not None


def emptied(folder: Path) -> Path:
    """The folder without its files."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder
