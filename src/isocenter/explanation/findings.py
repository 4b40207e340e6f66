"""Places that the maps of a cohort mark: borders, corners, letters, and those of one answer only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter.evaluation import holm
from isocenter.explanation.references import evidence_of, outer_fifth
from isocenter.lazy import torch
from isocenter.values import Floats

# Cells along each axis of the small copies that are compared, by the number of axes.
CELLS = {1: 64, 2: 20, 3: 10}
# Cases from which a cohort is looked at; draws of the permutations; share of the cells that is a place of one answer.
FEWEST, DRAWS, PLACE = 5, 999, 0.05
# In place of an answer, where none has enough maps of its own.
EVERY = "all"


@dataclass(frozen=True, eq=False)
class Small:
    """A map brought down to a few cells: what it holds in each, together 1.

    target:  that it is of
    letters: (*cells) the share of each cell in letters that are burned into the image; None where there are none
    """

    case: str
    target: str
    cells: Floats
    letters: Floats | None = None

    @classmethod
    def of(
        cls, case: str, target: str, data: NDArray[np.float32], ndim: int, letters: NDArray[np.bool_] | None = None
    ) -> Small:
        """Bring down a map (*spatial), or (frames, *spatial) of a clip."""
        evidence = evidence_of(data).reshape(-1, *data.shape[-ndim:]).sum(axis=0)
        cells = _in_cells(evidence)
        total = cells.sum()
        return cls(case, target, cells / total if total > 0 else cells, None if letters is None else _in_cells(letters))


def findings_of(maps: Sequence[Small], *, seed: int) -> list[dict[str, Any]]:
    """Rows of kind, target, share (of the evidence), area, p (adjusted after Holm), cases, the smallest p first.

    Places are looked for in the maps of each answer that has enough of them: a mark may stand for one answer alone.
    p is by permutation: maps are moved round at random within the image, and for places of one answer the answers are
    dealt out anew.
    """
    whole = [one for one in maps if one.cells.any()]
    if len(whole) < FEWEST:
        return []
    random = np.random.default_rng(seed)
    each = {target: [one for one in whole if one.target == target] for target in sorted({one.target for one in whole})}
    answers = {target: own for target, own in each.items() if len(own) >= FEWEST} or {EVERY: whole}
    rows = [{**row, "target": target} for target, own in answers.items() for row in _by_place(own, random)]
    rows += _by_answer(whole, random)
    adjusted = holm([row["p"] for row in rows])
    rows = [{**row, "p": float(p)} for row, p in zip(rows, adjusted, strict=True)]
    return sorted(rows, key=lambda row: (row["p"], -row["share"]))


def _by_place(maps: Sequence[Small], random: np.random.Generator) -> Iterator[dict[str, Any]]:
    shape = maps[0].cells.shape
    alike = [one for one in maps if one.cells.shape == shape]
    places = {"border": outer_fifth(shape).astype(float)}
    if len(shape) > 1:
        places["corner"] = _corners(shape).astype(float)
    for kind, place in places.items():
        yield _moved(kind, [(one.cells, place) for one in alike], random)
    with_letters = [(one.cells, one.letters) for one in alike if one.letters is not None]
    if len(with_letters) >= FEWEST:
        yield _moved("text", with_letters, random)


def _moved(kind: str, pairs: Sequence[tuple[Floats, Floats]], random: np.random.Generator) -> dict[str, Any]:
    """One row: the evidence in a place, against that of the same maps moved round."""
    axes = tuple(range(1, pairs[0][0].ndim + 1))
    cells, places = (np.stack(one) for one in zip(*pairs, strict=True))
    # All shifts of a map at once: the correlation of map and place.
    product = np.fft.fftn(cells, axes=axes).conj() * np.fft.fftn(places, axes=axes)
    shares = np.fft.ifftn(product, axes=axes).real.reshape(len(pairs), -1)
    own = float(shares[:, 0].mean())
    drawn = random.integers(shares.shape[1], size=(DRAWS, len(pairs)))
    chance = shares[np.arange(len(pairs)), drawn].mean(axis=1)
    p = (1 + np.count_nonzero(chance >= own - 1e-12)) / (1 + DRAWS)
    return {"kind": kind, "share": own, "area": float(places.mean()), "p": p, "cases": len(pairs)}


def _by_answer(maps: Sequence[Small], random: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Cells that the maps of each answer hold most beyond those of others, against answers dealt out anew."""
    shape = maps[0].cells.shape
    alike = [one for one in maps if one.cells.shape == shape]
    cells, targets = np.stack([one.cells.ravel() for one in alike]), np.array([one.target for one in alike])
    count = max(1, round(PLACE * cells.shape[1]))
    for target in sorted(set(targets)):
        own = targets == target
        if own.sum() < FEWEST or (~own).sum() < FEWEST:
            continue

        def beyond(chosen: NDArray[np.bool_]) -> tuple[float, float]:
            """Excess of the hottest cells, and their share of the evidence."""
            mean = cells[chosen].mean(axis=0)
            excess = mean - cells[~chosen].mean(axis=0)
            hottest = np.argpartition(excess, -count)[-count:]
            return float(excess[hottest].sum()), float(mean[hottest].sum())

        excess, share = beyond(own)
        chance = np.array([beyond(random.permutation(own))[0] for _ in range(DRAWS)])
        p = (1 + np.count_nonzero(chance >= excess - 1e-12)) / (1 + DRAWS)
        yield {
            "kind": f"cluster of {target}", "share": share, "area": count / cells.shape[1], "p": p,
            "cases": int(own.sum()), "target": target,
        }  # fmt: skip


def _corners(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask of the corners: every axis is within a fifth of an end."""
    near: NDArray[np.int_] = np.zeros(shape, dtype=int)
    for axis, size in enumerate(shape):
        edge = max(1, round(size / 5))
        ends = np.zeros(size, dtype=int)
        ends[:edge] = ends[-edge:] = 1
        near = near + ends.reshape([-1 if n == axis else 1 for n in range(len(shape))])
    return near >= len(shape)


def _in_cells(values: NDArray[Any]) -> Floats:
    """(*spatial) to the mean over a few cells an axis; an image of fewer voxels has repeated ones."""
    pool: dict[int, Callable[..., Any]] = {
        1: torch.nn.functional.adaptive_avg_pool1d,
        2: torch.nn.functional.adaptive_avg_pool2d,
        3: torch.nn.functional.adaptive_avg_pool3d,
    }
    given = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None, None]
    made = pool[values.ndim](given, (CELLS[values.ndim],) * values.ndim)
    return np.asarray(made[0, 0].numpy(), dtype=np.float64)
