"""Watches over a stream of cases, with a stated rate of false alarms.

A watch bets case by case that the stream has changed. For each case at which the change may have been, the money of a
bettor who began there is a martingale as long as nothing changed; their sum is an e-detector (Shin, Ramdas and Rinaldo,
arXiv:2203.03532). Its mean after m cases is at most m, so by Doob's inequality the chance that it reaches `run_length`
within m cases is at most m / run_length, whatever the distribution of the cases.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum.errors import DatasetError, UsageError
from hilum.lazy import special
from hilum.values import Floats

FEWEST = 20
# Shifts of the normal score of a case that bets are made on, in SD, and SDs.
SHIFTS = (-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0)
SPREADS = (0.6, 1.5, 2.5)
# Log-odds by which probabilities may be off, and factors of their log-odds.
OFFSETS = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)
SLOPES = (0.5, 2.0)
# Money on a column's missing values, of all that is on the column.
ON_MISSING = 0.1
# Cases whose ranks are counted at once, and those whose bets are.
BLOCK = 128
TOGETHER = 4096
# Outermost normal score and log-odds: a p-value or a probability of exactly 0 or 1 would stake everything.
OUTERMOST = 1e-12


@dataclass(frozen=True, eq=False)
class Watch:
    """The evidence that a stream has changed, case by case.

    log_evidence: (cases,) natural logarithm of the e-detector
    limit:        of `log_evidence`, at which the alarm is given: log(run_length)
    alarm:        place of the first case in `values` at or above the limit; None without alarm
    change:       place of the case at which the change most probably began, as seen at the alarm; None without alarm
    column:       that carried most of the evidence at the alarm; None without alarm
    is_missing:   whether that evidence is in whether values are there, not in what they are
    """

    log_evidence: Floats
    limit: float
    alarm: int | None
    change: int | None
    column: int | None = None
    is_missing: bool = False


def watch_values(
    reference: ArrayLike,
    values: ArrayLike,
    *,
    run_length: float,
    strata: tuple[ArrayLike, ArrayLike] | None = None,
    patients: ArrayLike | None = None,
) -> Watch:
    """Evidence that `values` no longer come as `reference` did.

    reference:  (cases,) or (cases, columns), one case a patient; NaN where a value is missing
    values:     the same, in the order of time
    run_length: cases; without a change an alarm within m cases has at most the chance m / run_length
    strata:     of reference and values, each (cases,): a case is ranked among those of its stratum only, so that what
                differs between weekdays and weekends, or wards, is no change
    patients:   (cases,) of `values`: only the first case of each patient counts
    A case's p-value is its rank among the reference and all cases before it. Such p-values are independent and uniform
    without a change, however few the reference are (Vovk et al., arXiv:2102.10439); against a frozen reference alone
    they are not. Missing values are ranked as a column of their own.
    Raises UsageError for a run length of at most 1 and for unlike columns, DatasetError for fewer than 20 reference
    cases.
    """
    reference_rows = _rows(reference, "reference")
    stream = _rows(values, "values")
    if reference_rows.shape[1] != stream.shape[1]:
        problem = f"{reference_rows.shape[1]} columns of the reference, {stream.shape[1]} of the values"
        raise UsageError(problem, "watch", "Give the same columns of both")
    if len(reference_rows) < FEWEST:
        raise DatasetError(f"{len(reference_rows)} reference cases", "watch", f"Give {FEWEST} at least, better 300")
    groups = _strata(strata, len(reference_rows), len(stream))
    counted = _first_of_each(patients, len(stream))
    # Equal values have a random order. Its seed is the reference's content: the same for a stream that grows, and
    # another one for another reference.
    random = np.random.default_rng(np.frombuffer(sha256(reference_rows.tobytes()).digest(), dtype=np.uint32))
    everything = np.concatenate([reference_rows, stream])
    # Whether a value is there is a column of its own, ranked with random order of equals as any other.
    columns = np.concatenate([everything, np.isnan(everything).astype(np.float64)], axis=1)
    enters = np.concatenate([np.ones(len(reference_rows), dtype=bool), counted])
    bets = np.zeros((len(stream), columns.shape[1], len(SHIFTS) + len(SPREADS)))
    for position, column in enumerate(columns.T):
        p = np.full(len(everything), np.nan)
        for group in np.unique(groups):
            chosen = np.flatnonzero((groups == group) & enters & ~np.isnan(column))
            p[chosen] = _sequential_p(column[chosen], random)
        bets[:, position] = _log_bets(p[len(reference_rows) :])
    bets[~counted] = 0.0
    width = reference_rows.shape[1]
    shares = np.repeat([(1 - ON_MISSING) / width, ON_MISSING / width], width)
    weights = np.repeat(shares / bets.shape[2], bets.shape[2])
    watched, at_alarm = _detect(bets.reshape(len(stream), -1), weights, counted, run_length)
    if at_alarm is None:
        return watched
    position = at_alarm // bets.shape[2]
    return Watch(
        watched.log_evidence,
        watched.limit,
        watched.alarm,
        watched.change,
        int(position % width),
        bool(position >= width),
    )


def watch_calibration(
    probabilities: ArrayLike, outcomes: ArrayLike, *, run_length: float, tolerance: float = 0.0
) -> Watch:
    """Evidence that outcomes no longer come as often as their probabilities say.

    probabilities: (cases,) calibrated probabilities, in the order of time
    outcomes:      (cases,) 0 or 1; NaN where it is not known: the case then adds nothing
    run_length:    cases; while the probabilities hold an alarm within m cases has at most the chance m / run_length
    tolerance:     log-odds by which probabilities may be off without an alarm
    The rate of false alarms holds whatever the images do: bets are made on outcomes given their probabilities (Arnold,
    Henzi and Ziegel, arXiv:2109.11761).
    Raises UsageError for probabilities outside 0..1, other outcomes, unlike lengths and a run length of at most 1.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape:
        raise UsageError(
            f"probabilities of shape {p.shape}, outcomes of {y.shape}", "watch_calibration", "Give (cases,)"
        )
    usable = ~np.isnan(y) & ~np.isnan(p)
    if not (np.isin(y[usable], (0, 1)).all() and ((p[usable] >= 0) & (p[usable] <= 1)).all()):
        raise UsageError("an outcome or a probability is outside 0..1", "watch_calibration", "Give outcomes 0 or 1")
    log_odds = special.logit(np.clip(np.where(usable, p, 0.5), OUTERMOST, 1 - OUTERMOST))
    # A bet on log-odds beyond the tolerance, against the most extreme ones that the tolerance still allows: its mean
    # is at most 1 for all of these.
    wagers = [log_odds + off for off in OFFSETS] + [log_odds * slope for slope in SLOPES]
    bets = np.zeros((len(p), len(wagers)))
    for index, wager in enumerate(wagers):
        allowed = log_odds + np.clip(wager - log_odds, -tolerance, tolerance)
        sign = np.where(y == 1, 1.0, -1.0)
        gained = special.log_expit(sign * wager) - special.log_expit(sign * allowed)
        bets[:, index] = np.where(usable & (np.abs(wager - log_odds) > tolerance), gained, 0.0)
    watched, _ = _detect(bets, np.full(len(wagers), 1 / len(wagers)), usable, run_length)
    return watched


def _rows(numbers: ArrayLike, name: str) -> Floats:
    rows = np.asarray(numbers, dtype=np.float64)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2:
        raise UsageError(f"{name} of shape {rows.shape}", "watch", "Give (cases,) or (cases, columns)")
    return np.where(np.isfinite(rows), rows, np.nan)


def _strata(strata: tuple[ArrayLike, ArrayLike] | None, references: int, stream: int) -> NDArray[np.intp]:
    if strata is None:
        return np.zeros(references + stream, dtype=np.intp)
    first, second = (np.asarray(one).astype(str) for one in strata)
    if (len(first), len(second)) != (references, stream):
        raise UsageError(f"strata of {len(first)} and {len(second)} cases", "watch", "Give one for each case")
    return np.unique(np.concatenate([first, second]), return_inverse=True)[1]


def _first_of_each(patients: ArrayLike | None, cases: int) -> NDArray[np.bool_]:
    if patients is None:
        return np.ones(cases, dtype=bool)
    owners = np.asarray(patients).astype(str)
    if len(owners) != cases:
        raise UsageError(f"patients of {len(owners)} cases", "watch", "Give one for each of the values")
    counted = np.zeros(cases, dtype=bool)
    counted[np.unique(owners, return_index=True)[1]] = True
    return counted


def _sequential_p(column: Floats, random: np.random.Generator) -> Floats:
    """(cases,) the rank of each among those before it and itself, as a share; equals in random order.

    NaN while all are equal: there is nothing to rank.
    """
    if not len(column) or (column == column[0]).all():
        return np.full(len(column), np.nan)
    p = np.empty(len(column))
    before = np.empty(0)
    for start in range(0, len(column), BLOCK):
        block = column[start : start + BLOCK]
        earlier = np.tril(np.ones((len(block), len(block)), dtype=bool), k=-1)
        larger = len(before) - np.searchsorted(before, block, side="right")
        larger = larger + (earlier & (block[None, :] > block[:, None])).sum(axis=1)
        equal = np.searchsorted(before, block, side="right") - np.searchsorted(before, block, side="left")
        equal = equal + (earlier & (block[None, :] == block[:, None])).sum(axis=1) + 1
        so_far = start + 1 + np.arange(len(block))
        ranks = (larger + random.random(len(block)) * equal) / so_far
        p[start : start + len(block)] = np.where(equal == so_far, np.nan, ranks)
        before = np.sort(np.concatenate([before, block]), kind="stable")
    return p


def _log_bets(p: Floats) -> Floats:
    """(cases, bets) logarithms of likelihood ratios of normal scores; 0 where there is no p-value."""
    ranked = ~np.isnan(p)
    score = special.ndtri(1 - np.clip(np.where(ranked, p, 0.5), OUTERMOST, 1 - OUTERMOST))[:, None]
    shifts = np.array(SHIFTS)
    spreads = np.array(SPREADS)
    shifted = shifts * score - shifts**2 / 2
    spread = score**2 / 2 * (1 - 1 / spreads**2) - np.log(spreads)
    return np.where(ranked[:, None], np.concatenate([shifted, spread], axis=1), 0.0)


def _detect(bets: Floats, weights: Floats, counted: NDArray[np.bool_], run_length: float) -> tuple[Watch, int | None]:
    """The e-detector of (cases, bets), and the bet with most evidence at the alarm.

    A case that does not count leaves everything as it is: no bettor begins there.
    """
    if not run_length > 1:
        raise UsageError(
            f"run_length={run_length}", "watch", "Give the number of cases between false alarms, such as 10000"
        )
    limit = float(np.log(run_length))
    evidence = np.full(len(bets), -np.inf)
    shares = np.log(weights)
    money = np.full(bets.shape[1], -np.inf)
    alarm = None
    change = None
    carrier = None
    for start in range(0, len(bets), TOGETHER):
        gained = np.where(counted[start : start + TOGETHER, None], bets[start : start + TOGETHER], 0.0)
        since = np.cumsum(gained, axis=0)
        # Each bettor begins with 1 before a case; today it has that times all that the cases since then gained.
        begins = np.where(counted[start : start + TOGETHER, None], gained - since, -np.inf)
        held = np.logaddexp.accumulate(np.concatenate([money[None], begins]), axis=0)[1:] + since
        evidence[start : start + TOGETHER] = np.logaddexp.reduce(held + shares, axis=1)
        rung = np.flatnonzero(evidence[start : start + TOGETHER] >= limit)
        if alarm is None and len(rung):
            alarm = start + int(rung[0])
            carrier = int(np.argmax(held[rung[0]] + shares))
            change = _begun(bets[: alarm + 1, carrier], counted[: alarm + 1])
        money = held[-1]
    return Watch(evidence, limit, alarm, change), carrier


def _begun(gained: Floats, counted: NDArray[np.bool_]) -> int:
    """The case from which on a bet gained most: the last before which it never had less."""
    before = np.cumsum(np.where(counted, gained, 0.0)) - np.where(counted, gained, 0.0)
    return int(np.flatnonzero(counted & (before <= np.minimum.accumulate(before)))[-1])
