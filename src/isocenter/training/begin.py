"""Which weights a training begins from: fresh ones, another model's, or published ones."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from isocenter import networks
from isocenter.errors import PlanError
from isocenter.planning import Network
from isocenter.runtime import digest, read_tensors

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

log = logging.getLogger("isocenter")


def fitting(module: Module, start: Path) -> dict[str, Tensor]:
    """The weights in a file whose names and shapes agree with the network's.

    Raises PlanError where none does: the run would begin from nothing and not say so.
    """
    own, given = module.state_dict(), read_tensors(start)
    agreeing = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    if not agreeing:
        raise PlanError("not one weight fits the plan's network", str(start), "Give a model of the same network")
    return agreeing


def begin_from(module: Module, network: Network, start: Path | None) -> str:
    """Take over what the plan or a person names; says in words what was, nothing for fresh weights.

    start: a model's weights, which come after the network's published ones
    """
    said = []
    if network.pretrained is not None:
        said.append(networks.pretrained(module, network.name, network.size, network.pretrained))
    if start is not None:
        own, agreeing = module.state_dict(), fitting(module, start)
        module.load_state_dict({**own, **agreeing})
        said.append(f"{len(agreeing)} of {len(own)} tensors from {start.name} with SHA-256 {digest(start)[:16]}")
    if said:
        log.info("began from %s", "; ".join(said))
    return "; ".join(said)
