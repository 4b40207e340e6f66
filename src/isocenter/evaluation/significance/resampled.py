"""The test, and the ranks, of figures that were made of the same bootstrap samples of patients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isocenter.evaluation.intervals import difference
from isocenter.evaluation.significance.margin_intervals import too_few_for_margins
from isocenter.evaluation.significance.outcome import NOTHING, Test
from isocenter.lazy import stats
from isocenter.values import Estimate, Floats


def paired_bootstrap(first: Estimate, second: Estimate) -> Test:
    """The difference of two figures that kept the draws of the same patients.

    p is the level at which the interval of `difference` ends at 0, so that both always say the same.
    """
    apart, drawn, other = difference(first, second), first.draws, second.draws
    if apart.low is None or apart.high is None or drawn is None or other is None:
        same = abs(apart.value) <= NOTHING
        return Test(apart.value, None, None, 0.0 if same else np.nan, 1.0 if same else np.nan, apart.method)
    figures = other.figures - drawn.figures
    figures = figures[np.isfinite(figures)]
    beyond = min((figures <= 0).sum(), (figures >= 0).sum())
    share = min(1.0, 2 * (1 + float(beyond)) / (1 + len(figures)))
    free = max(drawn.fewest - drawn.models, 1)
    # The interval is widened for few patients: what it is widened by is taken from the normal deviate here.
    wide = float(stats.norm.isf(share / 2)) * (free / drawn.fewest) ** 0.5
    statistic = apart.value / max(float(figures.std(ddof=1)), NOTHING)
    p, too_few = 2 * float(stats.t.sf(wide, free)), too_few_for_margins(len(drawn.strata))
    return Test(apart.value, apart.low, apart.high, statistic, p, apart.method, too_few)


def bootstrap_ranks(estimates: Sequence[Estimate], *, more: bool = True) -> Floats | None:
    """(draws, models) the rank of each model in each bootstrap sample, 1 for the best; models alike share their mean.

    None where they were not drawn for the same patients.
    """
    drawn = [one.draws for one in estimates]
    kept = [one for one in drawn if one is not None]
    if len(kept) < len(drawn) or any(not np.array_equal(one.strata, kept[0].strata) for one in kept):
        return None
    figures = np.stack([one.figures for one in kept], axis=1)
    figures = figures[np.isfinite(figures).all(axis=1)]
    return np.asarray(stats.rankdata(-figures if more else figures, axis=1)) if len(figures) else None
