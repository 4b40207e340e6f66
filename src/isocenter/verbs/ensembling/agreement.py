"""Checks that the members of an ensemble can be averaged: what differs between them, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from isocenter.errors import UsageError
from isocenter.runtime import Inference, Model
from isocenter.tasks import Task, rows_in, settings_of, untuned
from isocenter.values import Geometry, Region

WHERE = "ensemble"
ALIKE = "Train the members from one plan: isocenter train PLAN.yaml --seed N, with split.seed set in it"
# Voxels an axis of the noise by which it is seen whether two tasks decode alike.
NOISE = 6


def refuse_unlike(names: tuple[str, str], first: Model, other: Model) -> None:
    """UsageError for a model whose outputs cannot be averaged with the first's, with what differs.

    names: of both, the first's first
    """
    ours, theirs = first.task, other.task
    if (ours.name, ours.labels, ours.heads) != (theirs.name, theirs.labels, theirs.heads):
        problem = f"{names[1]} answers another question than {names[0]}: {_question(theirs)}, not {_question(ours)}"
        raise UsageError(problem, WHERE, "Give runs of one kind of problem with the same classes")
    refuse_differing(names, seen_by(first), seen_by(other))
    ours, theirs = untuned(ours), untuned(theirs)
    if not decode_alike(ours, theirs, first.preprocessing.ndim):
        settings = [{f"task.{key}": value for key, value in settings_of(task).items()} for task in (ours, theirs)]
        refuse_differing(names, *settings)


def seen_by(model: Model) -> dict[str, Any]:
    """{"section.name": value} of what members must have in common to be averaged window by window, and judged alike.

    Intensities are not among it: members that differ in a window, a mean and a deviation are brought to one scale.
    """
    prepared = {key: value for key, value in model.preprocessing.settings.items() if key != "normalisation"}
    windows = model.inference.settings
    return {
        **{f"preprocessing.{key}": value for key, value in prepared.items()},
        **{f"inference.{key}": windows[key] for key in ("patch", "left_right")},
        "network.context": model.network.get("context") or None,
        "evaluation.primary": model.record.get("primary"),
    }


def refuse_differing(names: tuple[str, str], ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """UsageError where values differ, with both."""
    differing = [f"{key} is {theirs.get(key)}, not {value}" for key, value in ours.items() if theirs.get(key) != value]
    if differing:
        raise UsageError(f"{names[1]} differs from {names[0]}: {'; '.join(differing)}", WHERE, ALIKE)


def decode_alike(first: Task, other: Task, ndim: int) -> bool:
    """Whether two tasks with the same heads make the same result of the same outputs, which are noise here."""
    rng, spatial = np.random.default_rng(0), (NOISE,) * ndim
    dense = {name: (head.count, *spatial) for name, head in first.heads.items() if head.is_dense}
    whole = {name: (head.count,) for name, head in first.heads.items() if head.is_vector}
    arrays = {name: rng.normal(0, 2, shape).astype(np.float32) for name, shape in {**dense, **whole}.items()}
    everywhere: Region = tuple(slice(0, size) for size in spatial)
    parts: list[tuple[Region, list[str]]] = [(everywhere, [*dense]), ((), [*whole])]
    slabs = [(region, {name: arrays[name] for name in names}) for region, names in parts if names]
    grid = Geometry(spatial, np.eye(ndim + 1))
    rows = [rows_in(task.decoding.outputs(task.decoding.decode(slabs, grid))) for task in (first, other)]
    ours, theirs = (task.decoding.probabilities(arrays) for task in (first, other))
    return all(np.allclose(ours[key], theirs[key], atol=1e-6) for key in ours) and _equal(*rows)


def _equal(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether rows say the same, but for rounding."""
    if [list(row) for row in ours] != [list(row) for row in theirs]:
        return False
    pairs = [(row[key], other[key]) for row, other in zip(ours, theirs, strict=True) for key in row]
    return all(a == b or (isinstance(a, float) and bool(np.isclose(a, b, equal_nan=True))) for a, b in pairs)


def common_windows(each: Sequence[Inference]) -> Inference:
    """As all members look: the largest overlap, the fewest windows at once, the mirrored views that all have."""
    flips = tuple(axis for axis in each[0].flips if all(axis in one.flips for one in each))
    overlap, batch = max(one.overlap for one in each), min(one.batch for one in each)
    return replace(each[0], overlap=overlap, batch=batch, flips=flips)


def _question(task: Task) -> str:
    return f"{task.name} of {', '.join(label.name for label in task.labels)}"
