"""Sets of findings hold the truth of those who have the finding as often as of those who have not."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from claims.law import Law, Random
from scipy.special import expit, logit
from scipy.stats import norm

from hilum.belief import Certainty, label_belief, prediction_sets
from hilum.belief.certainties import ABSENT, BY_PRESENCE, PRESENT
from hilum.evaluation.conformal import Conformal
from hilum.values import Decision, Floats

CLAIM = "sets of findings, 90 % of new patients with the finding and of those without"
# The second where networks are averaged: their mean is better than each, so that its sets hold more.
HELD, HELD_BY_MEAN = (0.88, 0.93), (0.88, 0.96)
NAME, FOLDS = "nodule", 3
# New patients of the side that is asked about.
NEW = 100
# Calibrating patients by prevalence, of whom some 30 or more have the finding: with fewer than 20 there are no sets.
PATIENTS = {0.02: 1500, 0.1: 300, 0.3: 150}


def covered(
    random: Random, *, prevalence: float, auroc: float, side: str, patients: int, most: int = 1, folds: int = 1
) -> float:
    """The share of new patients of one side whose set holds the truth; NaN where there are no sets.

    auroc:    of a score that is normal in both groups
    patients: whose cases calibrate; most: cases of each, from 1 on, whose scores are alike
    folds:    networks whose mean states the sets, each with noise of its own; 1: one network
    """
    owner = np.repeat(np.arange(patients), random.integers(1, most + 1, patients))
    truth = (random.random(patients) < prevalence)[owner]
    apart = np.sqrt(2) * norm.ppf(auroc)

    def chances(present: np.ndarray, people: np.ndarray) -> Floats:
        """(folds, cases) probabilities that are right on average for each network."""
        own = random.normal(size=people.max() + 1)[people] if most > 1 else random.normal(size=len(people))
        noise = random.normal(size=(folds, len(people)))
        share = 0.5 if most > 1 else 0.2 if folds > 1 else 0.0
        score = np.sqrt(1 - share) * own + np.sqrt(share) * noise + apart * present
        return expit(logit(prevalence) + apart * score - apart**2 / 2)

    fold = owner % folds
    likely = chances(truth, owner)[fold, np.arange(len(owner))]
    groups = dict(zip(label_belief.groups_of_finding(NAME), (truth, ~truth), strict=True))
    scores = {group: np.abs(truth - likely)[there] for group, there in groups.items()}
    each = {group: (scores[group], owner[there]) for group, there in groups.items()}
    certainty = _with(prediction_sets.find_conformal_thresholds(Certainty(), "lac", BY_PRESENCE, each, exact=True))
    if certainty.conformal is None or certainty.conformal.lacking:
        return float("nan")
    if folds > 1:
        scored = {group: (scores[group], fold[there], owner[there]) for group, there in groups.items()}
        certainty = _with(prediction_sets.add_fold_scores(certainty.conformal, scored, folds))
    new = chances(np.full(NEW, side == PRESENT), np.arange(NEW))
    sets = [
        label_belief.label_sets(certainty, {NAME: float(own.mean())}, own[:, None] if folds > 1 else None)[NAME]
        for own in new.T
    ]
    return float(np.mean([side in one for one in sets]))


def _with(made: Mapping[str, Decision]) -> Certainty:
    """The thresholds and scores that were found."""
    return Certainty(conformal=Conformal.from_record(made["task.conformal"].value))


def _law(prevalence: float, auroc: float, side: str, few: int = 0, **how: int) -> Law:
    patients = how.pop("patients", PATIENTS[prevalence])
    words = [f"prevalence {100 * prevalence:g} %, AUROC {auroc:g}, {patients} patients"]
    words += [f"one to {how['most']} cases of each"] if "most" in how else []
    words += [f"mean of {how['folds']} folds"] if "folds" in how else []
    study = partial(covered, prevalence=prevalence, auroc=auroc, side=side, patients=patients, **how)
    limits = HELD_BY_MEAN if "folds" in how else HELD
    return Law(CLAIM, f"{', '.join(words)}: {side}", study, *limits, few=few, wide=(0.86, 0.97))


LAWS = [
    *(
        _law(prevalence, auroc, side, 60 if (prevalence, auroc) == (0.1, 0.75) else 0)
        for prevalence in PATIENTS
        for auroc in (0.75, 0.9)
        for side in (PRESENT, ABSENT)
    ),
    *(_law(0.1, 0.9, side, most=3) for side in (PRESENT, ABSENT)),
    *(_law(0.1, 0.9, side, folds=FOLDS) for side in (PRESENT, ABSENT)),
]
