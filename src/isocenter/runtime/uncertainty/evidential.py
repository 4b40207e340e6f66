"""Uncertainty by the evidence that a network's own outputs state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from isocenter.runtime.inference import EVIDENTIAL
from isocenter.runtime.torch_network import TorchNetwork
from isocenter.runtime.uncertainty.disagreement import Disagreement
from isocenter.runtime.uncertainty.method import Basis, Without

if TYPE_CHECKING:
    from torch import Tensor

    from isocenter.networks import Features
    from isocenter.runtime.networks import Networks


class Evidential(Without):
    """The uncertainty that a single view states, of a network that was trained to state its evidence."""

    def suits(self, basis: Basis) -> bool:
        """Whether the task's outputs are evidence."""
        return basis.task.states_evidence

    def lacking(self, basis: Basis) -> str:
        """Why there is no evidence, or why nobody can read it; empty where it can be read."""
        if basis.silent:
            return basis.silent
        if not self.suits(basis):
            return "its network was not trained to state evidence (task.loss or task.noise evidential)"
        if not (isinstance(basis.networks.run, TorchNetwork) and basis.networks.deepest):
            return "the backend does not run a single network of Isocenter, whose evidence could be read"
        return ""

    def networks(self, basis: Basis) -> Networks:
        """The network, with the uncertainty of its evidence."""
        differ = basis.differ
        assert differ is not None  # noqa: S101 - else it would be lacking
        own = replace(differ, kinds={head: differ.kinds[head] for head in differ.evidence})
        return basis.networks.watched(partial(_by_evidence, own))


def _by_evidence(differ: Disagreement, seen: Features) -> Mapping[str, Tensor]:
    return differ.of_evidence(seen.outputs)


METHOD = Evidential(EVIDENTIAL)
