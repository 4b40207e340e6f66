"""Concepts shown by examples: whether the direction from other images to them moves a model's answer (TCAV).

Kim et al., ICML 2018, arXiv:1711.11279. The directions are those of the deepest map, of which pooled features are the
mean: to move every place of the map along one is to move the pooled features. A direction is the difference of means,
because that of a classifier turns away from it wherever features vary together (Pahde et al., arXiv:2202.03482).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from isocenter import networks
from isocenter.errors import DatasetError, counted
from isocenter.evaluation import holm
from isocenter.explanation.case_on_grid import CaseOnGrid
from isocenter.explanation.subject import UnfitError
from isocenter.lazy import special, torch
from isocenter.values import Floats

# Images that a concept must have, and sets of random images beside it.
FEWEST, RANDOM = 10, 50
LEVEL = 0.05
METHOD = "--concepts"


class Seen(NamedTuple):
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


def seen_by_network(grid: CaseOnGrid) -> Seen:
    """The features of the window of a case that says most for the target, those of all members in a row.

    Raises UnfitError where no deepest map is known.
    """
    pooled, gradients = list[Floats](), list[Floats]()
    for subject, share in zip(grid.subjects(grid.fullest_window()), grid.shares, strict=True):
        if subject.module is None or subject.family is None or not subject.family.features:
            raise UnfitError(METHOD, "the deepest feature map of this model is not known")
        given = [one for one in (subject.image, subject.context) if one is not None]
        with torch.enable_grad():
            given[0] = given[0].clone().requires_grad_()
            made = networks.features(subject.module, *given, at=subject.family.features)
            [moved] = torch.autograd.grad(subject.objective(made.outputs).sum(), made.deepest)
        moved = moved.flatten(2).sum(dim=2) if moved.ndim > 2 else moved
        pooled.append(made.pooled[0].detach().cpu().double().numpy())
        gradients.append(share * moved.sum(dim=0).cpu().double().numpy())
    return Seen(np.concatenate(pooled), np.concatenate(gradients))


def tcav(concepts: Mapping[str, ArrayLike], pool: ArrayLike, gradients: ArrayLike, *, seed: int) -> list[Concept]:
    """Each concept beside 50 of random images, Holm over the concepts; the surest first.

    concepts:  {name: (images, features)}
    pool:      (images, features) of images that show nothing in particular
    gradients: (cases, features) of the answer
    DatasetError for a concept of fewer than 10 images, or a pool of fewer than twice so many.
    """
    others, moved = np.asarray(pool, dtype=np.float64), np.asarray(gradients, dtype=np.float64)
    if len(others) < 2 * FEWEST:
        problem = f"{counted(len(others), 'image')} to compare concepts with"
        raise DatasetError(problem, METHOD, f"Explain {2 * FEWEST} images or more")
    given = {name: np.asarray(rows, dtype=np.float64) for name, rows in concepts.items()}
    for name, rows in given.items():
        refuse_few(name, len(rows))
    scale = np.concatenate([others, *given.values()]).std(axis=0)
    scale = np.where(scale > 1e-9 * max(scale.max(), 1e-300), scale, np.inf)
    units = moved * np.where(np.isfinite(scale), scale, 0.0)
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-300)
    random, answer = np.random.default_rng(seed), moved.mean(axis=0)
    tested = []
    for name, rows in given.items():
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
    adjusted = holm([one.p for one in tested]).tolist()
    return sorted((replace(one, p_adjusted=p) for one, p in zip(tested, adjusted, strict=True)), key=lambda row: row.p)


def refuse_few(name: str, images: int) -> None:
    """Raises DatasetError for a concept of so few images that its direction would be theirs alone."""
    if images < FEWEST:
        problem = f"the concept has {counted(images, 'image')}, which are too few"
        raise DatasetError(problem, f"{METHOD} {name}", f"Give {FEWEST} or more")
