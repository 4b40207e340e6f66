"""Limits of the settings beyond which a model stops answering."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hilum.lazy import pandas as pd
from hilum.monitoring.alerting import CROSSED, BoundState
from hilum.monitoring.case_stream import CALLED
from hilum.service.configuration import StopRule

# Fewer jobs say too little to stop a model.
FEWEST = 20
DAY_S = 86400.0


def broken_limits(
    rules: Sequence[StopRule], jobs: pd.DataFrame, bounds: Sequence[BoundState], now: float
) -> Iterator[tuple[str, str]]:
    """(name of the limit, why it is broken) of each rule that says so; of fewer than 20 jobs none does, but a bound.

    jobs: as `monitored_jobs` has them, with their times; bounds: of audited figures; now: s since 1970
    """
    times = np.array([pd.Timestamp(one).timestamp() for one in jobs["at"]], dtype=np.float64)
    for rule in rules:
        if rule.bound:
            yield from ((f"limit: {one.bound}", one.because) for one in bounds if one.state == CROSSED)
            continue
        recent = jobs[times > now - DAY_S * rule.days]
        words = f"of {len(recent)} jobs in {rule.days:g} days"
        answered = recent[recent["abstained"].isna()]
        if rule.refused is not None and len(recent) >= FEWEST:
            share = 1 - len(answered) / len(recent)
            if share > rule.refused:
                yield "limit: refused", f"{share:.2f} {words} got no answer, more than {rule.refused:g}"
        if rule.seconds_p95 is not None and len(seconds := answered["seconds"].dropna()) >= FEWEST:
            slow = float(np.quantile(seconds.astype(float), 0.95))
            if slow > rule.seconds_p95:
                yield (
                    "limit: seconds_p95",
                    f"5 % {words} took longer than {slow:.1f} s, {rule.seconds_p95:g} are allowed",
                )
        if rule.calls is not None and len(answered) >= FEWEST and (column := f"{CALLED}{rule.calls}") in answered:
            share = float(answered[column].fillna(0).astype(float).mean())
            if share > float(rule.above or 0.0):
                why = f"{rule.calls} was called in {share:.2f} {words}, more than {rule.above:g}"
                yield f"limit: calls {rule.calls}", why
