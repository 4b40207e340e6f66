"""Groups of cases in which a model fails more: one test a group by permutation of patients, Holm over all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from hilum.evaluation.significance import testing
from hilum.lazy import pandas as pd
from hilum.lazy import special
from hilum.values import Array, Floats

LEVEL = 0.05
# Patients that a group, and the rest, must have to be judged; levels of a column that is not cut into ranges.
FEWEST = 10
MOST_LEVELS = 8
TOO_FEW = "too few to judge"
# Permutations at the most and of very many patients, times patients; fewer once every group was exceeded so often:
# Besag and Clifford, Biometrika 1991, doi:10.1093/biomet/78.2.301
DRAWS = 9999
FEWEST_DRAWS = 1999
MOST_WORK = 100_000_000
ENOUGH = 20
AT_ONCE = 500
# Clusters are of so many patients on average, along so many principal axes.
PATIENTS_A_CLUSTER = 25
MOST_CLUSTERS = 8
AXES = 16
ROUNDS = 50


@dataclass(frozen=True)
class WeakGroup:
    """A group of cases, and how much more the model fails in it than elsewhere.

    attribute, group: such as "sex" and "F"
    n, patients:      cases and patients in it
    error, elsewhere: mean error of its cases and of all others
    low, high:        95 % interval of the difference, by the variance of patients
    p:                of so large a difference where errors do not depend on the group; one-sided: it fails more
    judged:           whether it was tested; else why not
    """

    attribute: str
    group: str
    n: int
    patients: int
    error: float
    elsewhere: float
    difference: float
    low: float = float("nan")
    high: float = float("nan")
    p: float = float("nan")
    p_adjusted: float = float("nan")
    judged: str = "yes"

    @property
    def is_found(self) -> bool:
        """Whether the model is shown to fail more in it."""
        return self.p_adjusted < LEVEL


def weak_groups(
    errors: ArrayLike, patients: Sequence[str], attributes: Mapping[str, Sequence[Any]], *, seed: int
) -> list[WeakGroup]:
    """Every group of every attribute, the surest first.

    errors:     (cases,) how wrong each answer is
    attributes: {name: (cases,) values}; few different ones are groups, more numbers are cut into thirds, None and NaN
                are in no group
    Errors are dealt anew among patients: cases of one patient are alike.
    """
    wrong = np.asarray(errors, dtype=np.float64)
    _, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    tested = list[WeakGroup]()
    members = list[Array]()
    for attribute, values in attributes.items():
        for group, inside in groups_of_values(values).items():
            group_found = _describe(attribute, group, wrong, owner, inside)
            tested.append(group_found)
            if group_found.judged == "yes":
                members.append(inside)
    if members:
        chances = iter(_chances(wrong, owner, np.stack(members), seed))
        tested = [replace(one, p=next(chances)) if one.judged == "yes" else one for one in tested]
    adjusted = testing.holm([one.p for one in tested])
    tested = [replace(one, p_adjusted=float(p)) for one, p in zip(tested, adjusted, strict=True)]
    return sorted(tested, key=lambda group: (np.isnan(group.p), group.p, -group.difference))


def groups_of_values(values: Sequence[Any]) -> dict[str, Array]:
    """{group: (cases,) who is in it}: the values where they are few, thirds of many numbers, nothing else.

    Two values leave one comparison: of two groups that are all there is, both are kept, as each may be the weak one.
    """
    column = pd.Series(list(values), dtype=object)
    present = column.notna().to_numpy()
    named = column[present].map(str)
    if 2 <= named.nunique() <= MOST_LEVELS:
        return {str(name): present & (column.map(str) == name).to_numpy() for name in sorted(named.unique())}
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(float)
    present = np.isfinite(numbers)
    if present.sum() < named.size or np.unique(numbers[present]).size < 3:
        return {}
    low, high = np.quantile(numbers[present], [1 / 3, 2 / 3]).tolist()
    thirds = {
        f"up to {low:.4g}": numbers <= low,
        f"{low:.4g} to {high:.4g}": (numbers > low) & (numbers <= high),
        f"above {high:.4g}": numbers > high,
    }
    return {name: present & inside for name, inside in thirds.items()}


def cluster_cases(features: ArrayLike, patients: Sequence[str], *, seed: int) -> list[str | None]:
    """(cases,) the cluster of each case by its features, without a look at errors; None of too few patients.

    k-means along the longest principal axes (Lloyd, IEEE Trans Inf Theory 1982, doi:10.1109/TIT.1982.1056489)
    """
    rows = np.asarray(features, dtype=np.float64)
    count = min(MOST_CLUSTERS, len(set(patients)) // PATIENTS_A_CLUSTER)
    if count < 2:
        return [None] * len(rows)
    spread = rows.std(axis=0)
    rows = (rows - rows.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    left, sizes, _ = np.linalg.svd(rows, full_matrices=False)
    places = (left * sizes)[:, :AXES]
    if not places.any():
        return [None] * len(rows)
    random = np.random.default_rng(seed)
    centres = places[_spread_out(places, count, random)]
    for _ in range(ROUNDS):
        apart = ((places[:, None] - centres[None]) ** 2).sum(axis=2)
        nearest = apart.argmin(axis=1)
        moved = np.stack(
            [places[nearest == n].mean(axis=0) if (nearest == n).any() else one for n, one in enumerate(centres)]
        )
        if np.allclose(moved, centres):
            break
        centres = moved
    return [f"cluster {n + 1}" for n in nearest.tolist()]


def _spread_out(places: Floats, count: int, random: np.random.Generator) -> list[int]:
    """First centres far from each other (k-means++, Arthur and Vassilvitskii, SODA 2007)."""
    chosen = [int(random.integers(len(places)))]
    while len(chosen) < count:
        apart = ((places[:, None] - places[chosen][None]) ** 2).sum(axis=2).min(axis=1)
        share = apart / apart.sum() if apart.sum() > 0 else None
        chosen.append(int(random.choice(len(places), p=share)))
    return chosen


def _describe(attribute: str, group: str, wrong: Floats, owner: Array, inside: Array) -> WeakGroup:
    """The group without its p; the interval by the linearised variance of both means over patients."""
    people = owner.max() + 1
    parts = []
    for which in (inside, ~inside):
        count, total = (np.bincount(owner[which], weights, people) for weights in (None, wrong[which]))
        parts.append((count, total, total.sum() / max(count.sum(), 1)))
    (count, total, mean), (others, other_total, elsewhere) = parts
    here = int((count > 0).sum())
    outside = int((others > 0).sum())
    weak_group = WeakGroup(
        attribute, group, int(inside.sum()), here, float(mean), float(elsewhere), float(mean - elsewhere)
    )
    if min(here, outside) < FEWEST:
        return replace(weak_group, judged=TOO_FEW)
    lean = (total - mean * count) / count.sum() - (other_total - elsewhere * others) / others.sum()
    half = float(special.stdtrit(min(here, outside) - 1, 0.975) * np.sqrt((lean**2).sum() * people / (people - 1)))
    return replace(weak_group, low=weak_group.difference - half, high=weak_group.difference + half)


def _chances(wrong: Floats, owner: Array, members: Array, seed: int) -> list[float]:
    """p of each of (groups, cases): how often patients' errors, dealt anew, go with the share of their cases in it.

    Compared is how steeply errors rise with the share over the standard error of that, made anew for each dealing: by
    the rise alone, a group whose errors are as large and more spread would pass for a weak one.
    DiCiccio and Romano, J Am Stat Assoc 2017, doi:10.1080/01621459.2016.1202117
    """
    people = int(owner.max()) + 1
    counts = np.bincount(owner, minlength=people)
    errors = np.bincount(owner, wrong, people) / counts
    shares = np.stack([np.bincount(owner, inside, people) / counts for inside in members])
    errors = errors - errors.mean()
    shares = shares - shares.mean(axis=1, keepdims=True)
    errors[np.abs(errors) <= 1e-12 * np.abs(wrong).max()] = 0.0  # rounding of errors that are all the same
    # What differs by rounding alone is a tie, and a tie counts against the group.
    rise = _rises(shares, errors[None])[:, 0]
    rise -= 1e-9 * np.abs(rise)
    random = np.random.default_rng(seed)
    reached = np.zeros(len(shares))
    done = 0
    most = int(np.clip(MOST_WORK // people, FEWEST_DRAWS, DRAWS))
    while done < most and reached.min() < ENOUGH:
        rows = min(AT_ONCE, most - done)
        reached += (_rises(shares, random.permuted(np.tile(errors, (rows, 1)), axis=1)) >= rise[:, None]).sum(axis=1)
        done += rows
    return cast("list[float]", ((reached + 1) / (done + 1)).tolist())


def _rises(shares: Floats, errors: Floats) -> Floats:
    """(groups, rows) the slopes of (rows, people) errors in (groups, people) shares over their standard errors.

    Both centred. Of two groups it is Welch's t: residuals are divided by what the slope left them (HC2). Skewness is
    taken out of it, which else makes one-sided tests wrong in one direction: Hall, J R Stat Soc B 1992,
    doi:10.1111/j.2517-6161.1992.tb01875.x
    """
    size = (shares**2).sum(axis=1, keepdims=True).clip(1e-12)
    weights = shares**2 / (1 - 1 / shares.shape[1] - shares**2 / size).clip(1e-12)
    products = shares @ errors.T
    squares = (errors**2).T
    slopes = products / size
    variances = weights @ squares - 2 * slopes * ((weights * shares) @ errors.T)
    variances += slopes**2 * (weights * shares**2).sum(axis=1, keepdims=True)
    error = np.sqrt(np.maximum(variances, 1e-9 * size * squares.mean(axis=0)).clip(1e-180))
    t = products / error
    cubes = shares**3
    third = cubes @ (errors**3).T - 3 * slopes * ((cubes * shares) @ squares)
    third += 3 * slopes**2 * ((cubes * shares**2) @ errors.T) - slopes**3 * (cubes * shares**3).sum(
        axis=1, keepdims=True
    )
    skewness = third / error**3
    return cast("Floats", t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6)
