"""The verdict of tests of differences: superior, non-inferior, equivalent, inferior, or nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isocenter.evaluation import Test, benjamini_hochberg, equivalence, holm, non_inferiority
from isocenter.values import Floats
from isocenter.verbs.evaluation import Standing

# Two-sided; a margin is tested on one side, with half of it (ICH E9, section 3.3.2).
LEVEL = 0.05


def adjusted(p: Sequence[float], correction: str) -> Floats:
    """p-values of one family, adjusted for each other: "holm", "bh" or "none"."""
    given = np.asarray(p, dtype=np.float64)
    return given if correction == "none" else {"holm": holm, "bh": benjamini_hochberg}[correction](given)


def verdicts(
    tests: Sequence[Test], margins: Sequence[float | None], more: Sequence[bool | None], correction: str
) -> list[tuple[float, Standing]]:
    """(adjusted p, verdict) of each test of one family.

    margins: in the unit of each metric; more: whether more of it is better; None where neither is, so
             that a difference makes no model the better one
    A difference is shown where p is below 5 % and its interval, which stands on the page, does not hold 0. One that
    lies within the margin on both sides is none that matters: the models are equivalent.
    """
    each = [(test, None if test.unfit else m, up) for test, m, up in zip(tests, margins, more, strict=True)]
    p = adjusted([test.p for test in tests], correction)
    none = [float("nan") if not m or up is None else non_inferiority(test, m, more=up).p for test, m, up in each]
    both = [float("nan") if not m else equivalence(test, m).p for test, m, _ in each]
    not_worse, alike = (adjusted(one, correction) < LEVEL / 2 for one in (none, both))
    made: list[tuple[float, Standing]] = []
    for n, (test, _, up) in enumerate(each):
        differs = p[n] < LEVEL and up is not None and not _holds_zero(test)
        verdict: Standing = "not shown"
        if alike[n]:
            verdict = "equivalent"
        elif differs and (test.difference > 0) == up:
            verdict = "superior"
        elif not_worse[n]:
            verdict = "non-inferior"
        elif differs:
            verdict = "inferior"
        made.append((float(p[n]), verdict))
    return made


def _holds_zero(test: Test) -> bool:
    return test.low is not None and test.high is not None and test.low <= 0 <= test.high
