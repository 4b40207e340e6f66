"""Concepts behind a model's answers: those shown by examples (TCAV), and measurements that explain its answers.

Kim et al., ICML 2018, arXiv:1711.11279. The directions are those of the deepest map, of which pooled features are the
mean: to move every place of the map along one is to move the pooled features. A direction is the difference of means,
because that of a classifier turns away from it wherever features vary together (Pahde et al., arXiv:2202.03482).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum import errors
from hilum.errors import DatasetError
from hilum.evaluation import intervals
from hilum.evaluation.significance import testing
from hilum.explanation.case_on_grid import CaseOnGrid, UnfitError
from hilum.lazy import linear_model, special, torch
from hilum.networks import network_parts
from hilum.values import Estimate, Floats

# Images that a concept must have, and sets of random images beside it.
FEWEST, RANDOM = 10, 50
LEVEL = 0.05
METHOD = "--concepts"


class SeenFeatures(NamedTuple):
    """The features that a network sees in a case: (features,) pooled, and how the answer moves with each of them."""

    pooled: Floats
    gradient: Floats


@dataclass(frozen=True)
class Concept:
    """A concept, and whether the answer goes with it.

    score:     share of cases in which the answer grows along the concept, TCAV; low, high: over random counterparts
    agreement: mean cosine between the answer's gradient and the concept's direction
    effect:    how far the answer moves, to first order, from random images to the concept's
    p:         of such an effect for a concept of random images; two-sided
    """

    concept: str
    images: int
    cases: int
    score: float
    low: float
    high: float
    agreement: float
    effect: float
    p: float
    p_adjusted: float = float("nan")

    @property
    def is_found(self) -> bool:
        """Whether the answer goes with the concept more than with random images."""
        return self.p_adjusted < LEVEL


def network_features(grid: CaseOnGrid) -> SeenFeatures:
    """The features of the window of a case that says most for the target, those of all members in a row.

    Raises UnfitError where no deepest map is known.
    """
    pooled, gradients = list[Floats](), list[Floats]()
    for subject, share in zip(grid.subjects(grid.fullest_window()), grid.shares, strict=True):
        if subject.module is None or subject.family is None or not subject.family.features:
            raise UnfitError(METHOD, "the deepest feature map of this model is not known")
        inputs = [one for one in (subject.image, subject.context) if one is not None]
        with torch.enable_grad():
            inputs[0] = inputs[0].clone().requires_grad_()
            features = network_parts.compute_features(subject.module, *inputs, at=subject.family.features)
            [moved] = torch.autograd.grad(subject.objective(features.outputs).sum(), features.deepest)
        moved = moved.flatten(2).sum(dim=2) if moved.ndim > 2 else moved
        pooled.append(features.pooled[0].detach().cpu().double().numpy())
        gradients.append(share * moved.sum(dim=0).cpu().double().numpy())
    return SeenFeatures(np.concatenate(pooled), np.concatenate(gradients))


def tcav(concepts: Mapping[str, ArrayLike], pool: ArrayLike, gradients: ArrayLike, *, seed: int) -> list[Concept]:
    """Each concept beside 50 of random images, Holm over the concepts; the surest first.

    concepts:  {name: (images, features)}
    pool:      (images, features) of images that show nothing in particular
    gradients: (cases, features) of the answer
    DatasetError for a concept of fewer than 10 images, or a pool of fewer than twice so many.
    """
    others, moved = np.asarray(pool, dtype=np.float64), np.asarray(gradients, dtype=np.float64)
    if len(others) < 2 * FEWEST:
        problem = f"{errors.count_phrase(len(others), 'image')} to compare concepts with"
        raise DatasetError(problem, METHOD, f"Explain {2 * FEWEST} images or more")
    examples = {name: np.asarray(rows, dtype=np.float64) for name, rows in concepts.items()}
    for name, rows in examples.items():
        refuse_few_images(name, len(rows))
    scale = np.concatenate([others, *examples.values()]).std(axis=0)
    scale = np.where(scale > 1e-9 * max(scale.max(), 1e-300), scale, np.inf)
    units = moved * np.where(np.isfinite(scale), scale, 0.0)
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-300)
    random, answer = np.random.default_rng(seed), moved.mean(axis=0)
    tested = []
    for name, rows in examples.items():
        size = min(len(rows), len(others) // 2)
        cosines, effects, chance = np.empty((RANDOM, len(units))), np.empty(RANDOM), np.empty(RANDOM)
        for draw in range(RANDOM):
            dealt = random.permutation(len(others))
            counterpart = others[dealt[:size]].mean(axis=0)
            apart = rows.mean(axis=0) - counterpart
            effects[draw] = answer @ apart
            chance[draw] = answer @ (others[dealt[size : 2 * size]].mean(axis=0) - counterpart)
            apart /= scale
            cosines[draw] = units @ apart / max(float(np.linalg.norm(apart)), 1e-300)
        scores = (cosines > 0).mean(axis=1)
        low, high = np.quantile(scores, [0.025, 0.975]).tolist()
        effect, agreement = float(effects.mean()), float(cosines.mean())
        # One more of them would lie this far from their mean: Student's law, as their own spread is measured too.
        spread = max(float(chance.std(ddof=1)) * np.sqrt(1 + 1 / RANDOM), 1e-12)
        p = 2 * float(special.stdtr(RANDOM - 1, -abs(effect - chance.mean()) / spread))
        share = float(scores.mean())
        tested.append(Concept(name, len(rows), len(units), share, low, high, agreement, effect, p))
    adjusted = testing.holm([one.p for one in tested]).tolist()
    return sorted((replace(one, p_adjusted=p) for one, p in zip(tested, adjusted, strict=True)), key=lambda row: row.p)


def refuse_few_images(name: str, images: int) -> None:
    """Raises DatasetError for a concept of so few images that its direction would be theirs alone."""
    if images < FEWEST:
        problem = f"the concept has {errors.count_phrase(images, 'image')}, which are too few"
        raise DatasetError(problem, f"{METHOD} {name}", f"Give {FEWEST} or more")


FOLDS, FEWEST_ANSWERS = 5, 20
# Where each measurement may bend, as quantiles; so many strengths of the penalty are tried.
BENDS, STRENGTHS = (1 / 3, 2 / 3), 40


@dataclass(frozen=True)
class Surrogate:
    """A sum of bent lines, one a measurement, that stands for a model's answers.

    r2:        share of the answers' variance that it explains in patients that did not fit it
    shares:    {measurement: its share of what the surrogate varies by}, the largest first; 0 of those left out
    direction: {measurement: 1 where more of it means more for the target, -1 where less}
    """

    r2: Estimate
    shares: Mapping[str, float]
    direction: Mapping[str, int]


def additive_surrogate(
    measurements: Mapping[str, Sequence[float]], answers: ArrayLike, patients: Sequence[str], *, seed: int
) -> Surrogate:
    """The surrogate of answers by measurements, {name: (cases,)}; what is not known of a case has the median.

    Lasso on lines and their bends (Hastie and Tibshirani, Stat Sci 1986; Tibshirani, J R Stat Soc B 1996); its penalty
    is chosen, and its R² measured, in folds of patients. DatasetError for fewer than 20 patients, or answers without
    any difference.
    """
    response, people = np.asarray(answers, dtype=np.float64), np.asarray(patients, dtype=str)
    if len(set(people.tolist())) < FEWEST_ANSWERS:
        problem = (
            f"{errors.count_phrase(len(set(people.tolist())), 'patient')} are too few to show what measurements explain"
        )
        raise DatasetError(problem, "--concepts measured", f"Give {FEWEST_ANSWERS} or more")
    if np.ptp(response) <= 1e-9 * max(np.abs(response).max(), 1e-9):
        raise DatasetError("the model answers every case alike", "--concepts measured", "Give cases that differ")
    names = list(measurements)
    table = np.stack([_fill_unknown(measurements[name]) for name in names], axis=1)
    folds = _folds(people, seed)
    guessed, base = np.empty(len(response)), np.empty(len(response))
    for fold in range(FOLDS):
        held_out = folds == fold
        if held_out.any():
            columns = _Columns.from_table(table[~held_out])
            fitted = _fit_basis(columns(table[~held_out]), response[~held_out], people[~held_out], seed)
            guessed[held_out] = fitted.predict(columns(table[held_out]))
            base[held_out] = response[~held_out].mean()

    def explained(weights: Floats) -> Floats:
        """(draws,) of (draws, cases) how often each case was sampled."""
        return 1 - weights @ (response - guessed) ** 2 / np.maximum(weights @ (response - base) ** 2, 1e-300)

    r2 = intervals.bootstrap_statistic(explained, people, seed=seed, exact=False)
    columns = _Columns.from_table(table)
    basis = columns(table)
    weights = _fit_basis(basis, response, people, seed).coef_.reshape(len(names), -1)
    parts = np.einsum("nkb,kb->nk", basis.reshape(len(basis), len(names), -1), weights)
    spread = parts.var(axis=0)
    order = np.argsort(-spread, kind="stable")
    shares = {names[n]: float(spread[n] / max(spread.sum(), 1e-300)) for n in order}
    return Surrogate(r2, shares, {names[n]: _direction(parts[:, n], table[:, n]) for n in order})


@dataclass(frozen=True)
class _Columns:
    """Measurements as lines and bends, on the scale of the cases that fit."""

    middle: Floats
    spread: Floats
    bends: Floats

    @classmethod
    def from_table(cls, table: Floats) -> _Columns:
        spread = table.std(axis=0)
        return cls(table.mean(axis=0), np.where(spread > 0, spread, 1.0), np.quantile(table, BENDS, axis=0))

    def __call__(self, table: Floats) -> Floats:
        """(cases, measurements) to (cases, measurements * columns of each)."""
        line = (table - self.middle) / self.spread
        bent = [np.maximum(table - bend, 0) / self.spread for bend in self.bends]
        return np.stack([line, *bent], axis=2).clip(-5, 5).reshape(len(table), -1)


def _fit_basis(basis: Floats, response: Floats, people: NDArray[np.str_], seed: int) -> Any:
    folds = _folds(people, seed + 1)
    splits = [(np.flatnonzero(folds != n), np.flatnonzero(folds == n)) for n in range(FOLDS) if (folds == n).any()]
    return linear_model.LassoCV(cv=splits, alphas=STRENGTHS, max_iter=5000, tol=1e-3).fit(basis, response)


def _folds(people: NDArray[np.str_], seed: int) -> NDArray[np.intp]:
    """(cases,) the fold of each, all cases of a patient in one."""
    _, owner = np.unique(people, return_inverse=True)
    dealt = np.random.default_rng(seed).permutation(owner.max() + 1) % FOLDS
    return np.asarray(dealt[owner])


def _fill_unknown(values: Sequence[float]) -> Floats:
    numbers = np.array([np.nan if value is None else float(value) for value in values])
    finite = numbers[np.isfinite(numbers)]
    return np.where(np.isfinite(numbers), numbers, np.median(finite) if finite.size else 0.0)


def _direction(part: Floats, measured: Floats) -> int:
    if part.std() <= 0 or measured.std() <= 0:
        return 0
    return int(np.sign(np.corrcoef(part, measured)[0, 1]))
