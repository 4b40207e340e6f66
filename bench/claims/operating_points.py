"""Operating points: what a threshold that unseen cases have chosen keeps to in new patients.

The truth follows from the law of the scores, so that no test part's luck is in it. Scores of the ill and of the others
are normal with an AUROC of 0.90; the law of an order statistic is (n + 1 - k) / (n + 1), whatever their distribution.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
from claims.law import Law, Random
from scipy import special, stats

from hilum.belief import Certainty, covering_results, operating_points
from hilum.belief.covering_results import COVERS_FROM
from hilum.belief.operating_points import OperatingPoint
from hilum.evaluation.conformal import Conformal

MEAN = "mean sensitivity or specificity that was registered, in new patients"
SURE = "share of trainings in which a registered sensitivity or specificity holds"
BOXES = "share of boxes that covering boxes find"
BOXES_SURE = "share of trainings in which covering boxes miss no more than the risk"
REFUSED = "no threshold where patients are too few"
# Two normal distributions this far apart have an AUROC of 0.90.
APART = float(np.sqrt(2) * stats.norm.ppf(0.90))
# What an image shares with the others of its patient, of its variance.
ALIKE = 0.8
# How far above the level a mean may lie: (n + 1 - k) / (n + 1) is up to .011 above in these cells, and a threshold lies
# between two scores, not on one.
SLACK = 0.025
# Correct boxes have this mean and spread of log odds, images of a patient and boxes of an image alike.
BOX_ODDS = 1.5, 1.0
DECIDING, BOXES_EACH = 4, 3


@dataclass(frozen=True)
class Cell:
    """Who decides a threshold.

    ill:        patients of the side that the rule names
    rule:       "sensitivity>=.95"
    confidence: with which it is to hold; None on average
    images:     of each patient
    decimals:   of scores, so that many are tied; None: all
    """

    ill: int
    rule: str = "sensitivity>=.95"
    confidence: float | None = None
    images: int = 1
    decimals: int | None = None

    @property
    def level(self) -> float:
        return float(self.rule.partition(">=")[2])

    @property
    def words(self) -> str:
        """The cell in words."""
        tied = "" if self.decimals is None else ", scores tied"
        images = f", {self.images} images each" * (self.images > 1)
        sure = "" if self.confidence is None else f" in {self.confidence:.0%} of trainings"
        return f"{self.rule}{sure}{images}{tied}, {self.ill} patients"


def reached(cell: Cell, random: Random) -> float:
    """The true sensitivity, or specificity, at a threshold that sampled cases chose; NaN where there is none."""
    sides = np.repeat([True, False], [cell.ill, max(cell.ill, 30)])
    people = np.repeat(np.arange(len(sides)), cell.images)
    shared, own = random.normal(size=len(sides))[people], random.normal(size=len(people))
    noise = np.sqrt(ALIKE) * shared + np.sqrt(1 - ALIKE) * own if cell.images > 1 else own
    named, upwards = sides[people], cell.rule.startswith("sensitivity")
    positive = named if upwards else ~named
    scores = noise + APART * positive
    scores = scores if cell.decimals is None else scores.round(cell.decimals)
    given = {"ill": (special.expit(scores), positive, people)}
    levels, _ = operating_points.chosen_thresholds(OperatingPoint(cell.rule, cell.confidence), given, "0.5")
    if "ill" not in levels:
        return float("nan")
    level = float(special.logit(np.clip(levels["ill"], 1e-12, 1 - 1e-12)))
    if cell.decimals is not None:  # of rounded scores those count from half a step below the next one on
        step = 10.0**-cell.decimals
        level = np.ceil(level / step - 1e-6) * step - step / 2
    return float(stats.norm.sf(level - APART) if upwards else stats.norm.cdf(level))


def is_kept(cell: Cell, random: Random) -> float:
    """1 where the true figure is at least the level."""
    return float(reached(cell, random) >= cell.level - 1e-9)


def is_refused(cell: Cell, random: Random) -> float:
    """1 where no threshold follows."""
    return float(np.isnan(reached(cell, random)))


def found_boxes(patients: int, risk: float, delta: float | None, random: Random) -> float:
    """The true share of boxes from the score on that sampled patients chose; NaN where none is known to do."""
    mean, spread = BOX_ODDS
    shape = patients, DECIDING, BOXES_EACH
    parts = [random.normal(size=(*shape[:n], *[1] * (3 - n))) * np.sqrt(w) for n, w in ((1, 0.4), (2, 0.3), (3, 0.3))]
    scores = special.expit(mean + spread * cast(np.ndarray, sum(parts)))
    missed = (scores[..., None] < COVERS_FROM).mean(axis=2).reshape(-1, len(COVERS_FROM))
    owners = np.repeat([f"p{n}" for n in range(patients)], DECIDING)
    certainty = Certainty(risk=risk, risk_delta=delta)
    made = covering_results.covering_thresholds(
        certainty, {"lesion": (missed, owners)}, exact=True, words=("{}", "none")
    )
    found = Certainty(covering=Conformal.from_record(made["task.covering"].value))
    if (least := (found.covers_from or {}).get("lesion")) is None:
        return float("nan")
    return float(stats.norm.sf((special.logit(np.clip(least, 1e-12, 1 - 1e-12)) - mean) / spread))


def enough_boxes(patients: int, risk: float, delta: float, random: Random) -> float:
    """1 where the true share is at least 1 - risk; where no score is known to do, all boxes are shown."""
    found = found_boxes(patients, risk, delta, random)
    return 1.0 if np.isnan(found) else float(found >= 1 - risk)


def mean_law(cell: Cell, few: int = 0, wide: tuple[float, float] | None = None) -> Law:
    """The mean is little above the level; with ties or several images it may be more."""
    high = cell.level + SLACK if cell.decimals is None and cell.images == 1 else 1.0
    low = cell.level - 0.005
    return Law(MEAN, cell.words, partial(reached, cell), low, high, draws=1000, few=few, wide=wide)


def sure_law(cell: Cell, few: int = 0, wide: tuple[float, float] | None = None) -> Law:
    """It holds in nine of ten trainings or more, up to what chance makes of 1,000."""
    return Law(SURE, cell.words, partial(is_kept, cell), 0.885, draws=1000, few=few, wide=wide)


def refused_law(cell: Cell) -> Law:
    """Too few never have a threshold."""
    return Law(REFUSED, cell.words, partial(is_refused, cell), 1.0, draws=50, few=3)


LAWS = [
    *[refused_law(one) for one in (Cell(10), Cell(18), Cell(44, confidence=0.9))],
    mean_law(Cell(19)),
    mean_law(Cell(20), few=150, wide=(0.938, 0.97)),
    *[mean_law(Cell(ill)) for ill in (50, 100, 200)],
    *[mean_law(Cell(ill, "sensitivity>=.9")) for ill in (10, 19, 20, 50, 100, 200)],
    *[mean_law(Cell(ill, "specificity>=.95")) for ill in (19, 20, 50, 100, 200)],
    mean_law(Cell(19, images=3), few=150, wide=(0.96, 1.0)),
    *[mean_law(Cell(ill, images=3)) for ill in (50, 200)],
    *[mean_law(Cell(ill, decimals=0)) for ill in (19, 50, 200)],
    *[mean_law(Cell(ill, "specificity>=.95", decimals=0)) for ill in (19, 50, 200)],
    *[sure_law(Cell(ill, confidence=0.9)) for ill in (50, 100)],
    sure_law(Cell(200, confidence=0.9), few=100, wide=(0.82, 1.0)),
    *[sure_law(Cell(ill, "sensitivity>=.9", 0.9)) for ill in (22, 50, 200)],
    *[sure_law(Cell(ill, "specificity>=.95", 0.9)) for ill in (50, 200)],
    *[sure_law(Cell(ill, confidence=0.9, images=3)) for ill in (50, 100, 200)],
    sure_law(Cell(100, confidence=0.9, decimals=0)),
    *[
        Law(BOXES, f"risk .1, {DECIDING} images each, {n} patients", partial(found_boxes, n, 0.1, None), 0.895)
        for n in (10, 20, 50, 200)
    ],
    *[
        Law(BOXES_SURE, f"risk .1, {DECIDING} images each, {n} patients", partial(enough_boxes, n, 0.1, 0.1), 0.885)
        for n in (30, 50, 200)
    ],
]
