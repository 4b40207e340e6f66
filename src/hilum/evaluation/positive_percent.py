"""The share of cells that are positive, in percent, with an interval from blocks of tissue.

Positive percent, tumour proportion score and combined positive score are this, each with its own cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.evaluation.intervals import DRAWS, LEVEL
from hilum.values import Array, Estimate, Floats

# Fewer cells than this say too little: the programmes of PD-L1 ask for 100 viable tumour cells.
FEWEST_CELLS = 100
# mm along each side of a block. Neighbouring cells are alike: resampling cells would make the interval too narrow.
BLOCK = 1.0
POSITIVE_PERCENT = "positive percent"
MOST = 100.0


@dataclass(frozen=True)
class PositiveScore:
    """The cells that are counted. positive: their classes; among: the classes among which they count"""

    positive: tuple[str, ...]
    among: tuple[str, ...]


def estimate_percent(
    places: Floats, names: Sequence[str], score: PositiveScore, *, block: float = BLOCK, seed: int = 0
) -> Estimate:
    """100 times the positive cells over those among which they count, at most 100; NaN where these are too few.

    places: (n, axes) of the cells, in the unit of `block`
    names:  (n,) their classes
    The interval is a percentile bootstrap over blocks that hold such a cell; with one block there is none.
    Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8
    """
    is_positive, is_among = (np.isin(np.array(names, dtype=str), own) for own in (score.positive, score.among))
    count = int(is_among.sum())
    if count < FEWEST_CELLS:
        few = f"none: {count} cells among which to count, and at least {FEWEST_CELLS} are needed"
        return Estimate(float("nan"), n=count, unit="%", method=few)
    counted = is_positive | is_among
    cells = np.floor(np.asarray(places)[counted] / block).astype(np.int64)
    blocks, owner = np.unique(cells, axis=0, return_inverse=True)
    sums = np.stack([np.bincount(owner.ravel(), one[counted], len(blocks)) for one in (is_positive, is_among)])
    value = _percent(sums.sum(axis=1))
    if len(blocks) < 2:
        return Estimate(float(value), n=count, unit="%", method="none: one block of tissue")
    weights = np.random.default_rng(seed).multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), size=DRAWS)
    figures = _percent(sums @ weights.T)
    low, high = np.quantile(figures[np.isfinite(figures)], [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    method = f"bootstrap over {len(blocks)} blocks of {block:g} x {block:g}"
    return Estimate(float(value), low, high, LEVEL, n=count, unit="%", method=method)


def _percent(sums: Array) -> NDArray[np.float64]:
    """(2, ...) positive cells and those among which they count, to percent; NaN where there are none."""
    positive, among = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.minimum(np.where(among > 0, MOST * positive / among, np.nan), MOST)


def read_score(stated: object) -> PositiveScore | None:
    """The score that a plan or a record states as {positive: [...], among: [...]}; ValueError for anything else."""
    if stated is None or isinstance(stated, PositiveScore):
        return stated
    if not isinstance(stated, dict) or set(stated) != {"positive", "among"}:
        raise ValueError(f"{stated!r} does not name the classes that are positive, and those among which they count")
    lists = {name: (own,) if isinstance(own, str) else tuple(map(str, own)) for name, own in stated.items()}
    if not all(lists.values()):
        raise ValueError("no class is named")
    return PositiveScore(**lists)
