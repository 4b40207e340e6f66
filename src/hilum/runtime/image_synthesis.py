"""Images made out of noise by the networks of a model, and how well these know images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from hilum.errors import UsageError
from hilum.files.synthetic_marks import SYNTHETIC
from hilum.lazy import torch
from hilum.objectives import flow
from hilum.runtime import model_assembly
from hilum.runtime.model_assembly import Model
from hilum.runtime.preprocessing import restore
from hilum.runtime.preprocessing.preprocessing import Preprocessing
from hilum.runtime.torch_networks import Differentiable
from hilum.transforms import random_draws
from hilum.values import Array, Case, Floats, Head, Image

if TYPE_CHECKING:
    from torch import Tensor

# Levels at which a loss is measured, and images that a network takes at once.
LEVELS, BATCH = (0.1, 0.3, 0.5, 0.7, 0.9), 32
# A mask of other proportions than the images that trained would be stretched.
STRETCHED = 1.25
# Of the numbers of a generator, so that no two draws share their numbers.
NOISE, LOSS_NOISE = 0, 1


@dataclass(frozen=True, eq=False)
class ImageSynthesiser:
    """Synthesises images on the grid and the scale of a model's network; UsageError for one that synthesises none."""

    model: Model

    def __post_init__(self) -> None:
        if self.model.task.heads.keys() != {"image"} or self.head.conditions is None:
            problem = f"is a model for {self.model.task.name}, which synthesises no images"
            raise UsageError(problem, "synthesise", "Give a run of --task synthesis")

    @property
    def head(self) -> Head:
        """The head that synthesises, with the names of what may be asked for."""
        return self.model.task.heads["image"]

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, *spatial) of an image on the network's grid."""
        return (len(self._steps.channels), *self.model.inference.patch)

    @property
    def _steps(self) -> Preprocessing:
        return cast(Preprocessing, self.model.preprocessing)  # no model of another program synthesises images

    @cached_property
    def _networks(self) -> Differentiable:
        return Differentiable.from_networks(self.model.networks)

    def _velocity(self, images: Tensor, context: Tensor) -> Tensor:
        """The mean of the networks."""
        networks = enumerate(self._networks.shares)
        return torch.stack([share * self._networks.run_of(n)(images, context)["image"] for n, share in networks]).sum(0)

    def _noise(self, seed: int, numbers: Sequence[int], purpose: int) -> Tensor:
        generators = (random_draws.sample_generator(seed, purpose, number) for number in numbers)
        noise = [one.standard_normal(self.shape, dtype=np.float32) for one in generators]
        return torch.from_numpy(np.stack(noise)).to(self._networks.device)

    def synthesise(
        self, asked: Array, numbers: Sequence[int], *, seed: int, steps: int, guidance: float
    ) -> Iterator[NDArray[np.float32]]:
        """(channels, *spatial) image after image, each out of noise of its own number: equal steps along the flow.

        asked:    the number of a class, or (*spatial) of labels
        guidance: by how much the way of the condition is followed beyond that without one; 1 follows it alone
        Ho and Salimans, arXiv:2207.12598
        """
        for start in range(0, len(numbers), BATCH):
            images = self._noise(seed, numbers[start : start + BATCH], NOISE)
            wanted = torch.from_numpy(np.stack([asked] * len(images))).to(images.device)
            everyone = torch.ones(len(images), dtype=torch.bool, device=images.device)
            with torch.inference_mode():
                for step in range(steps):
                    level = everyone * (step / steps)
                    velocity = self._velocity(*flow.with_condition(self.head, images, level, wanted, everyone))
                    if guidance != 1 and self.head.conditions != (0, 0):
                        free = self._velocity(*flow.with_condition(self.head, images, level, wanted, ~everyone))
                        velocity = free + guidance * (velocity - free)
                    images = images + velocity / steps
            yield from images.cpu().numpy()

    def losses(self, images: Sequence[Array], asked: Sequence[Array], *, seed: int) -> Floats:
        """(images,) mean squared differences of the stated from the true way, over fixed levels and noise."""
        losses = list[NDArray[np.float64]]()
        for start in range(0, len(images), BATCH):
            numbers = range(start, min(len(images), start + BATCH))
            noise = self._noise(seed, numbers, LOSS_NOISE)
            given = [torch.from_numpy(np.stack([one[n] for n in numbers])).to(noise) for one in (images, asked)]
            everyone = torch.ones(len(noise), dtype=torch.bool, device=noise.device)
            with torch.inference_mode():
                each = [
                    flow.flow_errors(self._velocity, self.head, given[0], noise, everyone * level, given[1], everyone)
                    for level in LEVELS
                ]
            losses.append(torch.stack(each).mean(dim=0).double().cpu().numpy())
        return np.concatenate(losses)

    def on_network_grid(self, case: Case) -> tuple[NDArray[np.float32], Array]:
        """(channels, *spatial) image, and the condition that it has, as `synthesise` takes it."""
        image, where = model_assembly.subject_image(case)
        prepared, trace = self._steps(image, where)
        asked = self.model.task.target(case).data
        return prepared, self._steps.labels(asked, trace, 0).astype(np.int64) if np.ndim(asked) else asked

    def mask_on_network_grid(self, mask: Image, where: str) -> Array:
        """(*spatial) numbers of labels of a mask; UsageError for one of other proportions or structures."""
        size, ours = mask.geometry.shape, self.shape[1:]
        ratios = np.array([a / b for a, b in zip(size, ours, strict=False)])
        if len(size) != len(ours) or ratios.max() > STRETCHED * ratios.min():
            sizes = [" x ".join(map(str, one)) for one in (size, ours)]
            problem, remedy = "the mask has {} voxels, and images are synthesised with {}", "Give a mask of their size"
            raise UsageError(problem.format(*sizes), where, remedy)
        pixels = np.zeros((self.shape[0], *size), dtype=np.float32)
        blank = Image(pixels, mask.geometry, channels=self._steps.channels)
        numbers = self.on_network_grid(Case(where, where, {"image": blank}, {"mask": mask}))[1]
        if not numbers.any():
            raise UsageError("marks none of the structures that the model was trained on", where, "Give another mask")
        return numbers

    def as_image(self, pixels: Array, like: Image, mark: str) -> Image:
        """A synthetic image in the unit, on the grid and of the type of another, marked; nothing says where it lies."""
        whole = tuple(slice(0, size) for size in pixels.shape[1:])
        data = np.zeros((len(pixels), *like.geometry.shape), dtype=np.float32)
        trace = self._steps(like, "synthetic")[1]
        for region, arrays in restore.restore_regions([(whole, {"image": pixels})], trace):
            data[(slice(None), *region)] = np.asarray(arrays["image"])
        for place, scale in enumerate(self._steps.normalisation):
            data[place] = np.clip(scale.deviation * data[place] + scale.mean, scale.low, scale.high)
        data = np.rint(data).astype(like.dtype) if like.dtype.kind in "iu" else data
        return replace(like, pixels=data, geometry=like.geometry.at_origin, source=None, facts={SYNTHETIC: mark})
