"""Groups of the people of training cases, and how training treats them alike.

reweigh:          cases weigh so that group and class are independent (Kamiran and Calders, Knowl Inf Syst 2012,
                  doi:10.1007/s10115-011-0463-8); without classes, or of several findings, so that groups weigh alike
resample:         cases are drawn so
balanced_batches: batches have as many cases of each group
adversarial:      what the network sees is to tell no group: a linear adversary learns to, and the network gets its
                  gradient reversed (Ganin and others, J Mach Learn Res 2016, arXiv:1505.07818)
constraint:       the last layer is fitted anew after training, so that calls are as right in every group
                  (`training.constrained`)
group_dro:        the loss is mostly that of the group which is worst off (Sagawa et al., arXiv:1911.08731)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isocenter.lazy import torch
from isocenter.training.data.sampling import classes_of_targets
from isocenter.training.data.store import Prepared

if TYPE_CHECKING:
    from torch import Tensor

REWEIGH, RESAMPLE, BALANCED_BATCHES, GROUP_DRO = "reweigh", "resample", "balanced_batches", "group_dro"
ADVERSARIAL, CONSTRAINT = "adversarial", "constraint"
# Its weights, among the numbers of the loss that are learnt with those of the network.
ADVERSARY = "adversary"
# How fast the weights of groups follow their losses, as in the paper.
PACE = 0.01

Judge = Callable[[Mapping[str, Any], Any], "Tensor"]


@dataclass(frozen=True, eq=False)
class Protected:
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
    def of(cls, method: str, cases: Sequence[Prepared]) -> Protected | None:
        """None where nothing is done about groups."""
        if method == "none":
            return None
        groups = np.unique([case.group for case in cases], return_inverse=True)[1].reshape(-1)
        single = all(not isinstance(case.target, Mapping) and np.shape(case.target) in ((), (1,)) for case in cases)
        classes = classes_of_targets([case.target for case in cases]) if single else np.zeros(len(cases), np.intp)
        has_classes = classes.max() > 0
        names, cells = np.unique(np.stack([groups, classes]), axis=1, return_inverse=True)
        cells, counts = cells.reshape(-1), np.bincount(cells.reshape(-1))
        of_group, of_class = np.bincount(groups), np.bincount(classes)
        expected = of_group[names[0]] * of_class[names[1]] / len(cases)
        if not has_classes:
            expected = np.full(len(counts), len(cases) / len(of_group))
        return cls(method, groups, cells, expected / counts)

    @property
    def drawn(self) -> tuple[NDArray[np.intp], NDArray[np.intp] | None] | None:
        """(cases,) what cases are drawn by, and how many of each an epoch has: None for as many of each in a batch."""
        if self.method == BALANCED_BATCHES:
            return self.groups, None
        if self.method == RESAMPLE:
            sizes = np.rint(self.weights * np.bincount(self.cells)).astype(np.intp)
            return self.cells, np.maximum(sizes, 1)
        return None


@dataclass(eq=False)
class GroupLoss:
    """The loss of a batch from those of its groups.

    shares: (groups,) what each group's loss counts, which follows the losses in `group_dro`
    """

    protected: Protected
    shares: NDArray[np.float64]

    @classmethod
    def of(cls, protected: Protected | None) -> GroupLoss | None:
        """None where the loss does not look at groups."""
        if protected is None or protected.method not in (REWEIGH, GROUP_DRO, ADVERSARIAL):
            return None
        count = int(protected.groups.max()) + 1
        return cls(protected, np.full(count, 1 / count))

    def __call__(self, judge: Judge, outputs: Mapping[str, Tensor], targets: Any, cases: Sequence[int]) -> Tensor:
        """The loss of a batch of these training cases; a group's is that of its cases."""
        numbers = np.asarray(cases)
        if self.protected.method == ADVERSARIAL:
            return judge(outputs, targets)
        if self.protected.method == GROUP_DRO:
            return self._of_the_worst(judge, outputs, targets, self.protected.groups[numbers])
        cells = self.protected.cells[numbers]
        present, counts = np.unique(cells, return_counts=True)
        shares = self.protected.weights[present] * counts
        losses = [_of(judge, outputs, targets, cells == cell) for cell in present]
        return torch.stack([loss * float(share) for loss, share in zip(losses, shares, strict=True)]).sum() / len(cells)

    def adversary_cost(self, pooled: Tensor, adversary: Tensor, cases: Sequence[int]) -> Tensor:
        """The adversary's loss in telling the groups by (batch, features); the network is taught the reverse."""
        reversed_ = 2 * pooled.detach() - pooled
        logits = reversed_ @ adversary[:, :-1].T + adversary[:, -1]
        groups = torch.as_tensor(self.protected.groups[np.asarray(cases)], device=pooled.device)
        return torch.nn.functional.cross_entropy(logits, groups)

    def _of_the_worst(
        self, judge: Judge, outputs: Mapping[str, Tensor], targets: Any, groups: NDArray[np.intp]
    ) -> Tensor:
        present = np.unique(groups)
        losses = torch.stack([_of(judge, outputs, targets, groups == group) for group in present])
        now = losses.detach().cpu().double().numpy()
        if np.isfinite(now).all():
            self.shares[present] *= np.exp(PACE * now)
            self.shares /= self.shares.sum()
        weights = self.shares[present] / self.shares[present].sum()
        return (losses * torch.as_tensor(weights, dtype=losses.dtype, device=losses.device)).sum()


def _of(judge: Judge, outputs: Mapping[str, Tensor], targets: Any, here: NDArray[np.bool_]) -> Tensor:
    """The loss of some samples of a batch."""
    places = torch.as_tensor(np.flatnonzero(here), device=next(iter(outputs.values())).device)
    own = targets[places] if not isinstance(targets, Mapping) else {name: one[places] for name, one in targets.items()}
    return judge({name: one[places] for name, one in outputs.items()}, own)
