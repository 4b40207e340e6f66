"""Groups of the people of training cases, and how training treats them alike.

reweigh:          cases weigh so that group and class are independent (Kamiran and Calders, Knowl Inf Syst 2012,
                  doi:10.1007/s10115-011-0463-8); without classes, or of several findings, so that groups weigh alike
resample:         cases are sampled so
balanced_batches: batches have as many cases of each group
adversarial:      what the network sees is to tell no group: a linear adversary learns to, and the network gets its
                  gradient reversed (Ganin and others, J Mach Learn Res 2016, arXiv:1505.07818)
constraint:       the last layer is fitted anew after training, so that calls are as right in every group
                  (`training.constrained`)
group_dro:        the loss is mostly that of the group which is worst off (Sagawa et al., arXiv:1911.08731)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from hilum.lazy import torch
from hilum.objectives import dann
from hilum.objectives.objective_terms import SUPERVISED, Needs, Objective, ObjectiveStep
from hilum.planning import PlanSettings
from hilum.training.data import case_sampling
from hilum.training.data.prepared_store import PreparedCase

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

REWEIGH = "reweigh"
RESAMPLE = "resample"
BALANCED_BATCHES = "balanced_batches"
GROUP_DRO = "group_dro"
ADVERSARIAL = "adversarial"
CONSTRAINT = "constraint"
# The objective that it adds.
ADVERSARY = "adversary"
# How fast the weights of groups follow their losses, as in the paper.
PACE = 0.01


@dataclass(frozen=True, eq=False)
class ProtectedGroups:
    """The groups of training cases.

    groups:  (cases,) number of the group of each; those of whom nobody knows it are a group too
    cells:   (cases,) number of its group and class together; of its group where targets are no classes
    weights: (cells,) of a case, 1 on average
    """

    method: str
    groups: NDArray[np.intp]
    cells: NDArray[np.intp]
    weights: NDArray[np.float64]

    @classmethod
    def for_cases(cls, method: str, cases: Sequence[PreparedCase]) -> ProtectedGroups | None:
        """None where nothing is done about groups."""
        if method == "none":
            return None
        groups = np.unique([case.group for case in cases], return_inverse=True)[1].reshape(-1)
        single = all(not isinstance(case.target, Mapping) and np.shape(case.target) in ((), (1,)) for case in cases)
        classes = np.zeros(len(cases), np.intp)
        if single:
            classes = case_sampling.classes_of_targets([case.target for case in cases])
        has_classes = classes.max() > 0
        names, cells = np.unique(np.stack([groups, classes]), axis=1, return_inverse=True)
        cells = cells.reshape(-1)
        counts = np.bincount(cells)
        of_group = np.bincount(groups)
        of_class = np.bincount(classes)
        expected = of_group[names[0]] * of_class[names[1]] / len(cases)
        if not has_classes:
            expected = np.full(len(counts), len(cases) / len(of_group))
        return cls(method, groups, cells, expected / counts)

    @property
    def strata_to_sample(self) -> tuple[NDArray[np.intp], NDArray[np.intp] | None] | None:
        """(cases,) what cases are sampled by, and how many of each an epoch has: None for as many in a batch."""
        if self.method == BALANCED_BATCHES:
            return self.groups, None
        if self.method == RESAMPLE:
            sizes = np.rint(self.weights * np.bincount(self.cells)).astype(np.intp)
            return self.cells, np.maximum(sizes, 1)
        return None


def objectives_of_groups(settings: PlanSettings, cases: Sequence[PreparedCase]) -> dict[str, Objective]:
    """The objectives that treat groups of people alike, by name; those of other methods train as they are."""
    protected = ProtectedGroups.for_cases(settings.training.fairness, cases)
    if protected is None:
        return {}
    if protected.method == ADVERSARIAL:
        return {ADVERSARY: Adversary(protected=protected)}
    if protected.method not in (REWEIGH, GROUP_DRO) or SUPERVISED not in settings.terms:
        return {}
    usual = settings.terms[SUPERVISED]
    kind = Reweighed if protected.method == REWEIGH else WorstGroup
    return {SUPERVISED: kind(usual.weight, usual.ramp, protected=protected)}


@dataclass(frozen=True, eq=False)
class GroupObjective(Objective):
    """An objective that knows the groups of the training cases."""

    protected: ProtectedGroups = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class Reweighed(GroupObjective):
    """The loss of the batch in which group and class are independent: each case has the weight of its cell."""

    def loss(self, step: ObjectiveStep) -> Tensor:
        """The weighted mean of the losses of cells; a cell's is that of its cases."""
        cells = self.protected.cells[np.asarray(step.labelled.cases)]
        present, counts = np.unique(cells, return_counts=True)
        shares = self.protected.weights[present] * counts
        losses = [_select_losses(step, cells == cell) for cell in present]
        return torch.stack([loss * float(share) for loss, share in zip(losses, shares, strict=True)]).sum() / len(cells)


@dataclass(frozen=True, eq=False)
class WorstGroup(GroupObjective):
    """The loss that is mostly that of the group which is worst off: shares of groups follow their losses."""

    def parts(self, network: Module, features: int) -> Module:
        """(groups,) share of each group's loss; on the processor, because not every device has doubles."""
        count = int(self.protected.groups.max()) + 1
        module = torch.nn.Module()
        module.register_buffer("shares", torch.full((count,), 1 / count, dtype=torch.float64, device="cpu"))
        return module

    def loss(self, step: ObjectiveStep) -> Tensor:
        """The losses of groups, by the shares that they come to with this batch."""
        groups = self.protected.groups[np.asarray(step.labelled.cases)]
        present = np.unique(groups)
        losses = torch.stack([_select_losses(step, groups == group) for group in present])
        weights = self._shares(step, present, losses)[present]
        weights = weights / weights.sum()
        step.parts.seen = present, losses.detach()
        return (losses * torch.as_tensor(weights, dtype=losses.dtype, device=losses.device)).sum()

    def after(self, step: ObjectiveStep) -> None:
        """Keep the shares that the batch has come to."""
        step.parts.shares.copy_(torch.from_numpy(self._shares(step, *step.parts.seen)))

    def _shares(self, step: ObjectiveStep, present: NDArray[np.intp], losses: Tensor) -> NDArray[np.float64]:
        """(groups,) shares after a batch in which these groups have these losses."""
        shares = step.parts.shares.numpy().copy()
        now = losses.detach().cpu().double().numpy()
        if np.isfinite(now).all():
            shares[present] *= np.exp(PACE * now)
            shares /= shares.sum()
        return np.asarray(shares)


@dataclass(frozen=True, eq=False)
class Adversary(GroupObjective):
    """The loss in telling the groups by the network's features; the network is taught the reverse."""

    needs: ClassVar[Needs] = Needs(features=True)

    def parts(self, network: Module, features: int) -> Module:
        """(groups, features and 1) weights that know nothing yet."""
        return dann.fresh_adversary(int(self.protected.groups.max()) + 1, features)

    def loss(self, step: ObjectiveStep) -> Tensor:
        """Cross-entropy of the groups, with the gradient reversed on its way into the network."""
        assert step.features is not None  # noqa: S101 - it needs them
        groups = torch.as_tensor(self.protected.groups[np.asarray(step.labelled.cases)], device=step.features.device)
        return dann.adversarial_loss(step.parts, step.features, groups)


def _select_losses(step: ObjectiveStep, here: NDArray[np.bool_]) -> Tensor:
    """The loss of some samples of a batch."""
    outputs = step.outputs
    targets = step.labelled.targets
    places = torch.as_tensor(np.flatnonzero(here), device=next(iter(outputs.values())).device)
    chosen = (
        targets[places] if not isinstance(targets, Mapping) else {name: one[places] for name, one in targets.items()}
    )
    return step.judge({name: one[places] for name, one in outputs.items()}, chosen)
