"""The cases that the samples of a batch show: a function of the seed and of the sample's number.

natural:      every case once an epoch
balanced:     class after class, each as often as any other (Buda et al., arXiv:1710.05381)
oversampled:  an epoch has as many cases of each class as the largest has: those of the others come again
undersampled: an epoch has as many cases of each class as the smallest has: others of the larger ones each time
square_root:  classes come by the square roots of their sizes, between their own shares and equal ones
              (Mahajan et al., arXiv:1805.00932)
by_loss:      what cost most when it was last seen comes most often: hard cases are mined as training goes on
              (Loshchilov and Hutter, arXiv:1511.06343). The only one that needs more than the targets: `LastLosses`
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.transforms import random_draws
from hilum.values import Array

# Measured numbers are sampled alike over so many equal parts of their range.
LEVELS = 10
# Sets the draws of classes, of the cases of a class and of an epoch apart from those of epochs and of patches.
CLASS_DRAW = 2**31 + 1
MEMBER_DRAW = 2**31 + 2
BALANCED_DRAW = 1
EPOCH_DRAW = 2**31 + 3
LOSS_DRAW = 2**31 + 4
SAMPLE_DRAW = 2**31 + 5
# How many times as often as the easiest case the hardest one comes; between them by their ranks, so that a wrong
# reference, which costs most for ever, comes no oftener for it. The paper tries 1 to 1e8, and ends with 1.
PRESSURE = 10.0
BY_LOSS = "by_loss"

# (classes,) cases to (classes,) how many of each an epoch has.
IN_AN_EPOCH: Mapping[str, Callable[[NDArray[np.intp]], NDArray[np.intp]]] = {
    "oversampled": lambda sizes: np.full_like(sizes, sizes.max()),
    "undersampled": lambda sizes: np.full_like(sizes, sizes.min()),
    "square_root": lambda sizes: np.rint(np.sqrt(sizes * float(sizes.max()))).astype(np.intp),
}


@dataclass(eq=False)
class LastLosses:
    """The losses of cases when they were last seen, as far as the draws of an epoch may know them.

    batch:  samples a step
    ahead:  batches that are made before their step: an epoch knows only what was known when its first may be made, so
            that its cases do not depend on how fast they are sampled, nor on whether the training was stopped
    known:  (step, case, loss) of the last time before the epoch at hand, and of each time since
    """

    cases: int
    batch: int
    ahead: int
    known: list[tuple[int, int, float]] = field(default_factory=list)

    def add(self, step: int, cases: Sequence[int], losses: Iterable[float]) -> None:
        """Note the losses of the cases of a step; a loss that is no number is left out."""
        pairs = zip(cases, losses, strict=True)
        self.known += [(step, case, float(loss)) for case, loss in pairs if np.isfinite(loss)]
        epoch = step * self.batch // self.cases
        if epoch != (step - 1) * self.batch // self.cases:
            self._forget(self._last(epoch))

    def ranks(self, epoch: int) -> NDArray[np.intp]:
        """(cases,) 0 for what cost most before an epoch; what was not seen yet comes first."""
        until = self._last(epoch)
        latest = np.full(self.cases, np.inf)
        for step, case, loss in self.known:
            if step <= until:
                latest[case] = loss
        return np.argsort(np.argsort(-latest, kind="stable"), kind="stable")

    def _last(self, epoch: int) -> int:
        """The last step that is surely done when the first batch of an epoch is made."""
        return epoch * self.cases // self.batch - self.ahead - 1

    def _forget(self, until: int) -> None:
        """Keep only the last time of each case up to a step."""
        before = {case: (step, case, loss) for step, case, loss in self.known if step <= until}
        self.known = [*before.values(), *(one for one in self.known if one[0] > until)]


@dataclass(frozen=True, eq=False)
class Sampling:
    """Cases sampled as `how` says.

    targets: of all cases; those that are alike are a class, of numbers the tenths of the first one's range
    costs:   what is sampled by, where it is "by_loss"
    owners:  (cases,) numbers that are sampled by in place of classes; each: how many of these an epoch has
    """

    how: str
    seed: int
    targets: Sequence[Array]
    costs: LastLosses | None = None
    owners: NDArray[np.intp] | None = None
    each: NDArray[np.intp] | None = None

    def __call__(self, number: int) -> tuple[int, np.random.Generator]:
        """The case of a sample, and the generator of its patch and its augmentation."""
        if self.owners is not None:
            return Sampling._class_by_class(self, number) if self.each is None else self._epoch_by_epoch(number)
        return SAMPLERS.get(self.how, Sampling._epoch_by_epoch)(self, number)

    def _case_by_case(self, number: int) -> tuple[int, np.random.Generator]:
        """Every case once an epoch."""
        epoch, position = divmod(number, len(self.targets))
        index = int(random_draws.epoch_order(self.seed, epoch, len(self.targets))[position])
        return index, random_draws.sample_generator(self.seed, epoch, index)

    def _class_by_class(self, number: int) -> tuple[int, np.random.Generator]:
        """Every class once a round."""
        rounds, position = divmod(number, len(self._classes))
        return self._member(self._dealt(len(self._classes), position, rounds, 0, CLASS_DRAW), rounds)

    def _dealt(self, count: int, position: int, *draw: int) -> int:
        """What lies at a position of so many that a draw has mixed."""
        return int(random_draws.sample_generator(self.seed, *draw).permutation(count)[position])

    def _epoch_by_epoch(self, number: int) -> tuple[int, np.random.Generator]:
        """A number of cases of each class an epoch, in an order of its own."""
        times = self._in_an_epoch
        epoch, position = divmod(number, int(times.sum()))
        position = self._dealt(int(times.sum()), position, epoch, 0, EPOCH_DRAW)
        chosen = int(np.searchsorted(np.cumsum(times), position, side="right"))
        of_class = position - int(times[:chosen].sum())
        return self._member(chosen, epoch * int(times[chosen]) + of_class)

    def _hard_ones_oftener(self, number: int) -> tuple[int, np.random.Generator]:
        """An epoch has each case as often as its rank says, rounded up or down."""
        assert self.costs is not None  # noqa: S101 - the loader gives it
        count = len(self.targets)
        epoch, position = divmod(number, count)
        if epoch == 0:
            return self._case_by_case(number)
        often = PRESSURE ** (-self.costs.ranks(epoch) / max(1, count - 1))
        draws = random_draws.sample_generator(self.seed, epoch, count, LOSS_DRAW)
        # One draw sets all marks, evenly apart: a case comes no oftener than its share says, but for a part of one.
        marks = (np.arange(count) + draws.random()) / count
        cases = np.searchsorted(np.cumsum(often) / often.sum(), marks, side="right").clip(max=count - 1)
        index = int(cases[draws.permutation(count)[position]])
        return index, random_draws.sample_generator(self.seed, number, index, SAMPLE_DRAW)

    def _member(self, chosen: int, turn: int) -> tuple[int, np.random.Generator]:
        """Within a class every case once before any comes again."""
        members = self._classes[chosen]
        lap, position = divmod(turn, len(members))
        index = int(members[self._dealt(len(members), position, lap, chosen, MEMBER_DRAW)])
        return index, random_draws.sample_generator(self.seed, lap, index, BALANCED_DRAW)

    @cached_property
    def _in_an_epoch(self) -> NDArray[np.intp]:
        if self.each is not None:
            return self.each
        return IN_AN_EPOCH[self.how](np.array([len(members) for members in self._classes]))

    @cached_property
    def _classes(self) -> list[NDArray[np.intp]]:
        """The numbers of the cases of each class: of those whose targets are alike."""
        owner = classes_of_targets(self.targets) if self.owners is None else self.owners
        return [np.flatnonzero(owner == number) for number in range(int(owner.max()) + 1)]


# How a sample's case is chosen; the others have so many cases of each class in an epoch.
SAMPLERS: Mapping[str, Callable[[Sampling, int], tuple[int, np.random.Generator]]] = {
    "natural": Sampling._case_by_case,
    BY_LOSS: Sampling._hard_ones_oftener,
    "balanced": Sampling._class_by_class,
}


def classes_of_targets(targets: Sequence[Array]) -> NDArray[np.intp]:
    """(cases,) number of the class of each: targets that are alike, of numbers those in one part of the range."""
    values = np.stack([np.atleast_1d(target) for target in targets])
    if np.issubdtype(values.dtype, np.floating):
        values = _levels(values[:, 0])[:, None]
    return np.asarray(np.unique(values, axis=0, return_inverse=True)[1]).reshape(-1)


def _levels(values: NDArray[Any]) -> NDArray[np.intp]:
    """(cases,) the part of the range in which each value lies; -1 where there is none."""
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    share = np.where(finite, values - low, 0.0) / ((high - low) or 1.0)
    return np.where(finite, np.minimum((share * LEVELS).astype(np.intp), LEVELS - 1), -1)
