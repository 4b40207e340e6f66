"""Which weights a training begins from: fresh ones, another model's, or published ones."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from isocenter import networks
from isocenter.planning import Network

if TYPE_CHECKING:
    from torch.nn import Module

log = logging.getLogger("isocenter")


def take_over(module: Module, network: Network, source: str | Path) -> str:
    """Weights of a file, or the network's published ones ("auto"), as far as they fit; says in words what did.

    Raises PlanError where none does: the run would begin from nothing and not say so.
    """
    return networks.pretrained(module, network.name, network.size, source, network.inflation)


def begin_from(module: Module, network: Network, start: Path | None) -> str:
    """Take over what the plan or a person names; says in words what was, nothing for fresh weights.

    start: a model's weights, which come after the network's published ones
    """
    sources = [source for source in (network.pretrained, start) if source is not None]
    said = "; ".join(take_over(module, network, source) for source in sources)
    if said:
        log.info("began from %s", said)
    return said
