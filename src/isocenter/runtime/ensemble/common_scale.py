"""Members that were trained on intensities of different scales, given images on one.

Each fold of a cross-validation has the window, mean and deviation of its own training cases; their mean sees an image
that is prepared once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from isocenter.errors import UsageError
from isocenter.lazy import torch
from isocenter.runtime import bundle
from isocenter.runtime.guard.guard import Guard
from isocenter.runtime.model import Model
from isocenter.runtime.preprocessing.preprocessing import Preprocessing
from isocenter.runtime.torch_network import TorchNetwork
from isocenter.runtime.windows.slide import Network
from isocenter.transforms import Normalisation

if TYPE_CHECKING:
    pass


class Conversion(NamedTuple):
    """A change from one scale to another: values * scale + offset, held within low and high."""

    scale: float = 1.0
    offset: float = 0.0
    low: float = -math.inf
    high: float = math.inf


def on_one_scale(members: Sequence[Model], where: str) -> tuple[Preprocessing, tuple[Network, ...]]:
    """The preprocessing for all members, and the members as networks for images that are prepared so.

    Raises UsageError for members that differ in more than a window, a mean and a deviation.
    """
    each = [_ours(one, where) for one in members]
    if all(one == each[0] for one in each):
        return each[0], tuple(one.networks.run for one in members)
    common = widest([one.normalisation for one in each])
    if common is None or any(replace(one, normalisation=each[0].normalisation) != each[0] for one in each):
        raise UsageError("its members preprocess images differently", where, "Choose one with --fold")
    return replace(each[0], normalisation=common), tuple(_converted(one, common) for one in members)


def guard_on(common: Preprocessing, member: Model) -> Guard | None:
    """The gate of a member for images that are prepared for all members; it counts voxels by its own scale."""
    guard, own = member.guard, member.preprocessing
    if guard is None or own == common or not isinstance(own, Preprocessing):
        return guard
    edges = [
        # What the member clipped at a bound lies beyond it here, and belongs into the same bin.
        np.where(row >= one.high, np.inf, (row - one.offset) / one.scale)
        for row, one in zip(guard.edges, conversions(common.normalisation, own), strict=True)
    ]
    return replace(guard, edges=np.stack(edges))


def widest(members: Sequence[Sequence[Normalisation]]) -> tuple[Normalisation, ...] | None:
    """Each channel's normalisation that keeps all that any member looks at: the widest window, else the first one's.

    None where the members differ in more than a window, a mean and a deviation.
    """
    if len({len(one) for one in members}) > 1:
        return None
    channels = list(zip(*members, strict=True))
    if any(_kind(one) != _kind(channel[0]) for channel in channels for one in channel):
        return None
    return tuple(_widest(channel) for channel in channels)


def conversion(given: Normalisation, own: Normalisation) -> Conversion:
    """The conversion from what one normalisation made of a channel to what a member's own would have.

    Exact but for values beside the bounds of a window in an image that is resampled: the member clipped before.
    """
    if own.method == "zscore":
        return Conversion()
    low, high = _bounds(own)
    return Conversion(
        given.deviation / own.deviation,
        (given.mean - own.mean) / own.deviation,
        (low - own.mean) / own.deviation,
        (high - own.mean) / own.deviation,
    )


def conversions(common: Sequence[Normalisation], own: Preprocessing) -> list[Conversion]:
    """The conversion of each channel of a member's network; numbers of labels stay as they are."""
    each = zip(common, own.normalisation, strict=True)
    made = [conversion(given, scale) for given, scale in each for _ in range(own.frames or 1)]
    return [*made, *[Conversion()] * (own.cascade is not None)]


def have_own_scales(model: Model) -> bool:
    """Whether each network of a model stands behind a conversion."""
    return all(
        isinstance(one, TorchNetwork) and isinstance(one.module, bundle.OnItsScale) for one in model.networks.members
    )


def _ours(member: Model, where: str) -> Preprocessing:
    """Its preprocessing; UsageError for a member of another program, whose folds its own folder holds together."""
    if not isinstance(member.preprocessing, Preprocessing):
        raise UsageError("its members use another program's preprocessing", where, "Give that program's own folder")
    return member.preprocessing


def _converted(member: Model, common: Sequence[Normalisation]) -> TorchNetwork:
    assert isinstance(member.networks.run, TorchNetwork)  # noqa: S101 - as it was loaded
    own = _ours(member, "model")
    module = bundle.OnItsScale(member.networks.run.module, own.inputs)  # the conversion becomes part of its state
    made = conversions(common, own)
    for name in Conversion._fields:
        setattr(module, name, torch.tensor([getattr(one, name) for one in made]))
    return TorchNetwork(module.eval().to(member.networks.run.device), member.networks.run.device)


def _kind(own: Normalisation) -> tuple[object, ...]:
    """The settings that members must have in common: the method, and the range that becomes 0 to 1."""
    return (own.method, own.low, own.high) if own.method == "range" else (own.method,)


def _widest(channel: Sequence[Normalisation]) -> Normalisation:
    first = channel[0]
    if first.method != "window":
        return first
    bounds = [_bounds(one) for one in channel]
    return replace(first, low=min(low for low, _ in bounds), high=max(high for _, high in bounds))


def _bounds(normalisation: Normalisation) -> tuple[float, float]:
    """Between which values mean and deviation are counted."""
    if normalisation.method == "range":
        return 0.0, 1.0
    assert normalisation.low is not None and normalisation.high is not None  # noqa: S101 - the plan's schema sees to it
    return normalisation.low, normalisation.high
