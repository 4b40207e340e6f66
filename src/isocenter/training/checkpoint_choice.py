"""Which weights a training leaves: its last, unless validation cases show surely that earlier ones were better.

The rate has fallen to zero by then, so that the last weights are mostly the best; of the looks at a few validation
cases the highest is often only the luckiest. A training that stopped early has not come so far: it keeps its best.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from isocenter.lazy import torch
from isocenter.tasks import Task

if TYPE_CHECKING:
    from torch import Tensor

# In so many of the draws earlier weights must be better than the last: one-sided, 95 %.
SURE = 0.95
DRAWS, MOST_DRAWS = 200, 10_000
# Of fewer cases all that agree would still do so by chance in more than one of twenty trainings: 2^-5.
FEWEST_CASES = 5


def share_better(
    task: Task, earlier: Mapping[str, Tensor], last: Mapping[str, Tensor], seed: int, draws: int = DRAWS
) -> float:
    """Share of bootstrap draws of the same validation cases in which the earlier weights have the higher metric.

    earlier, last: {name: (cases, ...)} of `Task.quality`, in the same order of cases
    0 where there are too few cases to tell.
    """
    counts = {len(value) for numbers in (earlier, last) for value in numbers.values()}
    if len(counts) != 1 or (count := counts.pop()) < FEWEST_CASES:
        return 0.0
    rng = np.random.default_rng(seed)
    better = 0
    for _ in range(draws):
        drawn = torch.from_numpy(rng.integers(count, size=count))
        before, after = (task.selection({name: one[drawn] for name, one in said.items()}) for said in (earlier, last))
        better += before > after
    return better / draws


def sure_of_best(tried: int) -> float:
    """The share of draws that the best of so many has to be better in: each of them is one more chance of luck.

    Bonferroni's bound; of one it is `SURE`. Dunn, J Am Stat Assoc 1961, doi:10.1080/01621459.1961.10482090
    """
    return 1 - (1 - SURE) / max(1, tried)


def draws_for(tried: int) -> int:
    """So many draws that as many as of a single comparison lie beyond that share; no more than take seconds."""
    return min(MOST_DRAWS, DRAWS * max(1, tried))
