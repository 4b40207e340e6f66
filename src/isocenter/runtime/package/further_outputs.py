"""A network as it is exported: its uncertainty beside its heads, and the features at which a gate looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from isocenter import networks
from isocenter.networks import hooked
from isocenter.runtime.model import Model
from isocenter.runtime.networks import Watched
from isocenter.runtime.package.contents import each_head
from isocenter.tasks import BETWEEN, EACH, WITHIN


@dataclass(frozen=True)
class Further:
    """Outputs that an exported network computes beside its heads.

    at:       the part of the first network whose output is the deepest map; empty where nobody needs it
    pooled:   whether its features are an output
    method:   of uncertainty, and `heads` those that state it
    in_network: the uncertainty of one network, as in `Watched`
    differ:   that between several, as in `Averaged`
    each:     heads of which what each of several says is an output too
    """

    at: str = ""
    pooled: bool = False
    method: str = ""
    heads: tuple[str, ...] = ()
    in_network: Callable[..., Mapping[str, Tensor]] | None = None
    differ: Callable[..., Mapping[str, Tensor]] | None = None
    each: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: Model) -> Further:
        """The outputs that a model's way to predict asks for."""
        at, run = networks.family_of(model.networks.architectures[0]["name"]).features, model.networks.run
        gated = model.guard is not None and model.guard.features is not None
        further = cls(at, bool(at) and (gated or model.task.by_name))
        if isinstance(run, Watched) and run.further is not None:
            heads = tuple(run.further.args[0].heads)  # type: ignore[attr-defined]
            return replace(further, method=model.uncertainty.name, heads=heads, in_network=run.further)
        if (average := model.networks.average) is None:
            return further
        further = replace(further, each=tuple(model.task.crossed))
        if (differ := average.differ) is None:
            return further
        return replace(further, method=model.uncertainty.name, heads=tuple(differ.kinds), differ=differ)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the outputs after the heads."""
        states = [f"{head}{end.replace(':', '_')}" for head in self.heads for end in (WITHIN, BETWEEN)]
        names_of_each = [f"{head}{EACH.replace(':', '_')}" for head in self.each]
        return (*states, *names_of_each, *(["features"] if self.pooled else []))

    @property
    def record(self) -> dict[str, Any]:
        """The entries of a package's record."""
        uncertainty = {"uncertainty": {"method": self.method, "heads": list(self.heads)}} if self.heads else {}
        of_each = {"each": list(self.each)} if self.each else {}
        return {**uncertainty, **of_each, **({"features": True} if self.pooled else {})}


class WithFurther(nn.Module):
    """(batch, channels, *patch) to a tensor for each head, and what `further` names after them.

    network: as `every_head` makes it
    heads:   of the task
    shares:  how much each of several networks counts
    """

    def __init__(
        self, network: nn.Module, heads: Sequence[str], further: Further, shares: Sequence[float] | None
    ) -> None:
        super().__init__()
        self.network: Any = network
        self.heads, self.further, self.shares = tuple(heads), further, shares

    def forward(self, images: Tensor, context: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the heads' outputs, then the others."""
        views, own_further = list[Mapping[str, Tensor]](), self.further
        with ExitStack() as hooks:
            for network in self.network.networks if own_further.differ is not None or own_further.each else ():
                hooks.enter_context(hooked(network, lambda _, output: views.append(self._called(output))))
            inputs = (images,) if context is None else (images, context)
            if not own_further.at:
                outputs, features = each_head(self.network(*inputs)), None
            else:
                last, first = own_further.in_network is not None, self.network.networks[0]
                features = networks.features(self.network, *inputs, at=own_further.at, last=last, within=first)
                outputs = each_head(features.outputs)
        uncertain: Mapping[str, Tensor] = {}
        if own_further.differ is not None:
            uncertain = own_further.differ(views, self.shares)
        elif own_further.in_network is not None and features is not None:
            named = dict(zip(self.heads, outputs, strict=True))
            uncertain = own_further.in_network(replace(features, outputs=named, inputs=self._called(features.inputs)))
        further = [uncertain[f"{head}{end}"] for head in own_further.heads for end in (WITHIN, BETWEEN)]
        further += [torch.cat([one[head] for one in views], dim=1) for head in own_further.each]
        return (*outputs, *further, *([features.pooled] if own_further.pooled and features is not None else []))

    def _called(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by the task's names: an exported network calls no head by a word of Python."""
        return {head: outputs[name] for head in self.heads for name in (head, f"{head}_") if name in outputs}
