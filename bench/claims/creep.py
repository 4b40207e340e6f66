"""Twenty proposals, each a little worse than the model in use: how often models drift past the margin.

Each proposal is made of the model in use, whose scores it blurs a little, so that its AUROC is lower by .003 to .006.
The margin is .02. Park et al., arXiv:1912.12413, call this bio-creep.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from claims.law import Law, Random
from scipy import stats

from hilum.evaluation.significance import auroc_tests
from hilum.monitoring import change_rules
from hilum.monitoring.change_plan import APPROVED, CURRENT, Acceptance, ChangePlan
from hilum.values import Estimate

PROPOSALS, MARGIN = 20, 0.02
# Between ill and well, in standard deviations: an AUROC of .921. What each proposal adds to the variance of .1.
APART, BLUR = 2.0, 0.05


def area(blur: float) -> float:
    """The true AUROC of a model whose scores have so much more variance."""
    return float(stats.norm.cdf(APART / np.sqrt(2 * (1 + blur))))


def drifts(random: Random, cases: int, against: tuple[str, ...]) -> float:
    """Whether a model that is worse than the approved one by more than the margin comes into use."""
    rule = Acceptance("auroc", "all", "non-inferior", margin=MARGIN, against=against)
    plan = ChangePlan("", {}, (rule,), 0.05, PROPOSALS, "", "")
    ill = np.arange(cases) < cases // 2
    scores = random.normal(size=cases) + APART * ill
    models, blur = {APPROVED: scores, CURRENT: scores}, 0.0
    for _ in range(PROPOSALS):
        proposed = models[CURRENT] + random.normal(scale=np.sqrt(BLUR), size=cases)
        tests = [auroc_tests.delong(models[name], proposed, ill) for name in against]
        rows = [change_rules.judge_rule(rule, Estimate(0.0), test, plan, more=True, where="") for test in tests]
        if all(row.holds for row in rows):
            models[CURRENT], blur = proposed, blur + BLUR
    return float(area(blur) < area(0.0) - MARGIN)


CLAIM = "twenty proposals, each a little worse: a model past the margin comes into use"
LAWS: list[Law] = [
    Law(CLAIM, "against the current model alone, 1000 patients", partial(drifts, cases=1000, against=(CURRENT,)),
        low=0.95, draws=300),
    *(
        Law(CLAIM, f"against the approved and the current model, {cases} patients",
            partial(drifts, cases=cases, against=(APPROVED, CURRENT)), high=0.05, draws=300,
            few=5 * (cases == 1000), wide=(0.0, 0.2))
        for cases in (1000, 4000)
    ),
]  # fmt: skip
