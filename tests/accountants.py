"""Another accountant of private training, written for the tests."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import logsumexp


def epsilon_by_hand(noise: float, rate: float, steps: int, delta: float) -> float:
    """Renyi divergences of the subsampled Gaussian by quadrature, and from them epsilon.

    Mironov, Talwar and Zhang, arXiv:1908.10530; the conversion is that of Canonne et al., arXiv:2004.00010.
    """
    x, width = np.linspace(-30 * noise, 70 * noise, 20_001, retstep=True)
    density = -(x**2) / (2 * noise**2) - math.log(noise * math.sqrt(2 * math.pi))
    ratio = np.logaddexp(math.log1p(-rate) if rate < 1 else -np.inf, math.log(rate) + (2 * x - 1) / (2 * noise**2))
    bounds = []
    for order in (*np.arange(1.1, 11, 0.1), *range(11, 64)):
        moment = float(logsumexp(density + order * ratio) + math.log(width))
        divergence = steps * moment / (order - 1)
        bounds.append(divergence + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1))
    return min(bounds)
