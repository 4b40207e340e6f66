"""Uncertainty as the disagreement between draws of a network's last layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from isocenter.runtime.uncertainty.disagreement import Disagreement
from isocenter.values import Floats

if TYPE_CHECKING:
    from torch import Tensor

    from isocenter.networks import Features
    from isocenter.runtime.networks import Networks
    from isocenter.runtime.uncertainty.method import Basis, Drawing


def drawn(basis: Basis, drawing: Drawing) -> Networks:
    """The network, with how draws of its last layers differ beside its outputs."""
    differ = basis.differ
    assert differ is not None  # noqa: S101 - else the method would be lacking
    own = replace(differ, kinds={head: kind for head, kind in differ.kinds.items() if head in drawing.heads})
    return basis.networks.watched(partial(_by_draws, own, drawing, basis.inference.draws))


def _by_draws(differ: Disagreement, drawing: Drawing, count: int, seen: Features) -> Mapping[str, Tensor]:
    return differ(drawing.views(seen, count))


def paired_noise(count: int, size: int) -> Floats:
    """(count, size) standard normal numbers, always the same, in pairs about the mean, which is what is stated."""
    half = np.random.default_rng(0).standard_normal((-(-count // 2), size))
    return np.concatenate([half, -half])[:count]
