"""A step of private training: the gradient of each sample cut to a length, their sum with noise (DP-SGD).

Abadi et al., arXiv:1607.00133. What follows such a gradient, as the optimiser, its rate and averaged weights, tells no
more than the gradients do. Rounding of floating-point numbers is not defended against (Mironov 2012,
doi:10.1145/2382196.2382264).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from hilum.lazy import torch
from hilum.training.data.batch_loading import Batch
from hilum.training.data.private_sampling import NOISE_DRAW, Chance
from hilum.training.length.schedule import TrainingPace
from hilum.training.privacy_accounting import PrivacyBudget
from hilum.training.step import batch_loss
from hilum.training.step.batch_loss import Criterion
from hilum.training.step.computation import Compute
from hilum.training.step.train_step import Learner, Learnt
from hilum.work_state import log

if TYPE_CHECKING:
    from torch import Tensor

# Numbers of the gradients of samples that are in memory at once: 256 MiB.
MOST_NUMBERS = 2**26

Gradients = dict[str, "Tensor"]


@dataclass(eq=False)
class SampleGradients:
    """The gradients of single samples, all at once where torch can (`torch.func.vmap`), else one after the other."""

    criterion: Criterion
    one_by_one: bool = False

    def of_batch(self, module: Any, batch: Batch, compute: Compute) -> Iterator[tuple[Gradients, Tensor]]:
        """{weight: (samples, ...)} and (samples,) losses of a part of the batch after the other.

        module: as it is, not as Fabric has wrapped it
        """
        if not len(batch.images):  # by chance nobody was sampled
            return
        weights = {name: one for name, one in module.named_parameters() if one.requires_grad}
        seen = batch_loss.augment_batch(batch, self.criterion.settings, self.criterion.device)
        cost = self.criterion.cost_of_sample(module, batch, seen, compute)
        few = max(1, MOST_NUMBERS // sum(one.numel() for one in weights.values()))
        for first in range(0, len(seen.images), few):
            part = slice(first, first + few)
            targets = batch_loss.change_each_array(seen.targets, itemgetter(part))
            yield self._of_part(cost, weights, (seen.images[part], targets, tuple(one[part] for one in seen.context)))

    def _of_part(
        self, cost: Callable[..., Tensor], weights: Mapping[str, Tensor], samples: tuple[Any, ...]
    ) -> tuple[Gradients, Tensor]:
        if not self.one_by_one:
            try:
                detached = {name: one.detach() for name, one in weights.items()}
                gradients_at_once = torch.func.vmap(
                    torch.func.grad_and_value(cost), in_dims=(None, 0, 0, 0), randomness="different"
                )
                return gradients_at_once(detached, *samples)
            except RuntimeError as error:
                if "vmap" not in str(error):
                    raise
                log.warning(
                    "gradients are taken sample after sample, which takes longer: torch cannot take them at once"
                )
                self.one_by_one = True
        images, targets, context = samples
        losses = list[Any]()
        gradients = list[Any]()
        for n in range(len(images)):
            target = batch_loss.change_each_array(targets, itemgetter(n))
            losses.append(cost(weights, images[n], target, tuple(one[n] for one in context)))
            # Weights that the loss does not reach have a gradient of zero.
            found = torch.autograd.grad(losses[-1], list(weights.values()), allow_unused=True, materialize_grads=True)
            gradients.append(dict(zip(weights, found, strict=True)))
        stacked = {name: torch.stack([one[name] for one in gradients]) for name in weights}
        return stacked, torch.stack(losses).detach()


def clipped_gradient_sum(gradients: Gradients, clip: float) -> tuple[Gradients, Tensor]:
    """The sum of samples' gradients, each cut to the length `clip` over all weights, and (samples,) their lengths.

    gradients: {weight: (samples, ...)}
    A gradient that is no number counts as zero: whether one is must not decide whether a step is taken.
    """
    squares = [one.flatten(1).square().sum(dim=1) for one in gradients.values()]
    lengths = torch.stack(squares).sum(dim=0).sqrt()
    factors = torch.where(lengths.isfinite(), (clip / lengths.clamp(min=1e-12)).clamp(max=1.0), 0.0)
    added = {name: torch.einsum("n,n...->...", factors, one.nan_to_num()) for name, one in gradients.items()}
    return added, lengths


def add_noise(added: Gradients, deviation: float, chance: Chance, step: int) -> Gradients:
    """Sums of gradients with Gaussian noise of this standard deviation at every number."""
    draws = chance.generator(NOISE_DRAW, step)

    def noisy(one: Tensor) -> Tensor:
        noise = torch.from_numpy(draws.standard_normal(tuple(one.shape), dtype="float32"))
        return one + deviation * noise.to(one.device, one.dtype)

    return {name: noisy(one) for name, one in added.items()} if deviation else added


@dataclass(eq=False)
class PrivateLearner(Learner):
    """A learner whose weights see every sample only through noisy sums of gradients."""

    budget: PrivacyBudget = field(kw_only=True)
    samples: SampleGradients = field(kw_only=True)

    def learn(self, batch: Batch, step: int, pace: TrainingPace) -> Learnt:
        """Take a step, also of an empty batch; the loss is no number where there was no sample."""
        now = self.set_rates(step, pace)
        clip = self.budget.settings.clip
        noise = self.budget.take_step(step, pace)
        module = self.module.module
        weights = {name: one for name, one in module.named_parameters() if one.requires_grad}
        total = {name: torch.zeros_like(one) for name, one in weights.items()}
        losses = list[float]()
        with batch_loss.refuse_nondeterminism(self.settings):
            for gradients, part in self.samples.of_batch(module, batch, self.compute):
                added, _ = clipped_gradient_sum(gradients, clip)
                total = {name: one + added[name] for name, one in total.items()}
                losses += part.tolist()
        for name, one in add_noise(total, noise * clip, self.budget.chance, step).items():
            weights[name].grad = one / self.budget.batch
        self.hold_back(pace.progress(step))
        length = torch.stack([one.grad.norm() for one in weights.values() if one.grad is not None]).norm()
        self.move(step, pace)
        known = [one for one in losses if math.isfinite(one)]
        self.lost = self.lost + 1 if losses and not known else 0
        return Learnt(sum(known) / len(known) if known else math.nan, now, float(length))
