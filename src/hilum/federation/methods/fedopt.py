"""FedOpt: the server takes a step of Adam or Yogi along the sites' mean change. Reddi et al., arXiv:2003.00295"""

from __future__ import annotations

import numpy as np

from hilum.federation.aggregation import CommonState
from hilum.federation.methods.fedavg import FedAvg

# As in the paper, algorithm 2 and its experiments.
FIRST = 0.9
SECOND = 0.99
ADAPTIVITY = 1e-3


class FedOpt(FedAvg):
    """FedAdam or FedYogi, by `federation.server` and `federation.server_rate`."""

    def finish(self) -> CommonState:
        """The common weights, moved by the server's own rate."""
        weights = dict[str, np.ndarray]()
        moments = dict[str, np.ndarray]()
        for name, mean in super().finish().weights.items():
            before = self.common.weights[name]
            change = mean - before
            square = np.square(mean - before)
            first = self.common.moments.get(f"first/{name}", np.zeros_like(change))
            second = self.common.moments.get(f"second/{name}", np.full_like(change, ADAPTIVITY**2))
            first = FIRST * first + (1 - FIRST) * change
            apart = second - square
            second = second - (1 - SECOND) * (square * np.sign(apart) if self.chosen.server == "yogi" else apart)
            weights[name] = before + self.chosen.server_rate * first / (np.sqrt(second) + ADAPTIVITY)
            moments |= {f"first/{name}": first, f"second/{name}": second}
        return CommonState(weights, moments)
