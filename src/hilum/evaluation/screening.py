"""Endpoints of screening: recalls, cancers found and missed, predictive values, and readings saved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from hilum.errors import UsageError
from hilum.evaluation import intervals
from hilum.values import Estimate, Row

# Of an examination: nothing, biopsied and benign, a biopsy advised and not done, found at it, found before the next.
OUTCOMES = ("normal", "benign", "advised", "cancer", "interval")
MODEL = "model"  # in place of a person among those who read an examination
READINGS = 2  # of each examination by people, as European programmes have it
ENDPOINTS = ("recall_rate", "detection_per_1000", "ppv1", "ppv2", "ppv3", "interval_cancers", "workload_saved")


def screening_rows(
    recalled: ArrayLike,
    outcome: ArrayLike,
    patients: ArrayLike,
    read_by: ArrayLike | None = None,
    *,
    seed: int,
    label: str = "all",
) -> list[Row]:
    """The endpoints, each with an interval over persons, as many examinations as each may have.

    recalled: (examinations,) truths
    outcome:  (examinations,) one of OUTCOMES
    read_by:  (examinations,) readers joined by "+", of whom "model" is no person; None leaves out the workload
    ppv1 is of all that were recalled, ppv2 of those with an advised biopsy, ppv3 of those with a biopsy. A cancer that
    was not recalled counts as an interval cancer, per 1,000 examinations. The workload is saved beside two readings.
    Raises UsageError for an outcome that is none.
    Sickles and D'Orsi, ACR BI-RADS Follow-up and Outcome Monitoring, 5th edition, 2013
    """
    called = np.asarray(recalled, bool)
    ends = np.asarray(outcome, str)
    people = np.asarray(patients)
    if unknown := sorted({*ends.tolist()} - {*OUTCOMES}):
        raise UsageError(f"{unknown[0]!r} is no outcome of screening", "outcome", f"Write {', '.join(OUTCOMES)}")
    cancer = np.isin(ends, ("cancer", "interval"))
    biopsied = cancer | (ends == "benign")
    among = {"ppv1": called, "ppv2": called & (biopsied | (ends == "advised")), "ppv3": called & biopsied}
    every = np.ones(len(called), bool)
    shares: dict[str, tuple[np.ndarray, np.ndarray]] = {"recall_rate": (called, every)}
    shares |= {"detection_per_1000": (called & cancer, every), **{name: (cancer, of) for name, of in among.items()}}
    shares |= {"interval_cancers": (~called & cancer, every)}
    rows = [Row(name, label, _share(name, event[of], people[of], seed)) for name, (event, of) in shares.items()]
    if read_by is not None:
        read = np.array([sum(one != MODEL for one in str(names).split("+") if one) for names in np.asarray(read_by)])
        saved = intervals.bootstrap(1 - read / READINGS, people, seed=seed)
        rows.append(Row("workload_saved", label, replace(saved, method=f"{saved.method}; beside two readings")))
    return rows


def _share(name: str, event: np.ndarray, people: np.ndarray, seed: int) -> Estimate:
    if not len(event):
        return Estimate(float("nan"), method="none: no examination is of this kind")
    estimate = intervals.proportion(event.astype(float), people, seed=seed)
    if name not in ("detection_per_1000", "interval_cancers"):
        return estimate
    low, high = (None if end is None else 1000 * end for end in (estimate.low, estimate.high))
    return replace(estimate, value=1000 * estimate.value, low=low, high=high, unit="per 1,000")
