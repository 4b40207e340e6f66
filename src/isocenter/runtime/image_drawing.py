"""Images drawn out of noise by the networks of a model, and how well these know images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import UsageError
from isocenter.files.synthetic_marks import SYNTHETIC
from isocenter.lazy import torch
from isocenter.objectives import flow
from isocenter.runtime import model_assembly
from isocenter.runtime.model_assembly import Model
from isocenter.runtime.preprocessing import restore
from isocenter.runtime.preprocessing.preprocessing import Preprocessing
from isocenter.runtime.torch_networks import Differentiable
from isocenter.transforms import random_draws
from isocenter.values import Array, Case, Floats, Head, Image

if TYPE_CHECKING:
    from torch import Tensor

# Levels at which a loss is measured, and images that a network draws at once.
LEVELS, BATCH = (0.1, 0.3, 0.5, 0.7, 0.9), 32
# A mask of other proportions than the images that trained would be stretched.
STRETCHED = 1.25
# Of what a generator draws, so that no two draws share their numbers.
NOISE, LOSS_NOISE = 0, 1


@dataclass(frozen=True, eq=False)
class ImageDrawer:
    """Draws on the grid and the scale of a model's network. Raises UsageError for a model that draws no images."""

    model: Model

    def __post_init__(self) -> None:
        if not self._heads:
            problem = f"is a model for {self.model.task.name}, which draws no images"
            raise UsageError(problem, "synthesise", "Give a run of --task synthesis")

    @property
    def _heads(self) -> dict[str, Head]:
        return {name: head for name, head in self.model.task.heads.items() if head.conditions is not None}

    @property
    def head(self) -> Head:
        """The head that draws, with the names of what may be asked for."""
        return next(iter(self._heads.values()))

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, *spatial) of an image on the network's grid."""
        return (len(self.model.preprocessing.channels), *self.model.inference.patch)

    @cached_property
    def _networks(self) -> Differentiable:
        return Differentiable.from_networks(self.model.networks)

    def _velocity(self, images: Tensor, context: Tensor) -> Tensor:
        """The mean of the networks."""
        outputs = [
            self._networks.run_of(n)(images, context)[next(iter(self._heads))]
            for n in range(len(self._networks.modules))
        ]
        return torch.stack([share * one for share, one in zip(self._networks.shares, outputs, strict=True)]).sum(dim=0)

    def draw(
        self, asked: Array, numbers: Sequence[int], *, seed: int, steps: int, guidance: float
    ) -> Iterator[NDArray[np.float32]]:
        """(channels, *spatial) image after image, each out of noise of its own number: equal steps along the flow.

        asked:    (images,) numbers of classes, or (images, *spatial) of labels
        guidance: by how much the way of the condition is followed beyond that without one; 1 follows it alone
        Ho and Salimans, arXiv:2207.12598
        """
        for start in range(0, len(numbers), BATCH):
            part = slice(start, start + BATCH)
            noise = [self._noise(seed, number) for number in numbers[part]]
            drawn = self._flow(torch.from_numpy(np.stack(noise)), torch.from_numpy(asked[part]), steps, guidance)
            yield from drawn.cpu().numpy()

    def _flow(self, images: Tensor, asked: Tensor, steps: int, guidance: float) -> Tensor:
        head, device = self.head, self._networks.device
        images, asked = images.to(device), asked.to(device)
        everyone = torch.ones(len(images), dtype=torch.bool, device=device)
        with torch.inference_mode():
            for step in range(steps):
                level = torch.full((len(images),), step / steps, device=device)
                velocity = self._velocity(*flow.with_condition(head, images, level, asked, everyone))
                if guidance != 1 and head.conditions != (0, 0):
                    free = self._velocity(*flow.with_condition(head, images, level, asked, ~everyone))
                    velocity = free + guidance * (velocity - free)
                images = images + velocity / steps
        return images

    def _noise(self, seed: int, number: int, purpose: int = NOISE) -> NDArray[np.float32]:
        return random_draws.sample_generator(seed, purpose, number).standard_normal(self.shape, dtype=np.float32)

    def losses(self, images: Array, asked: Array, *, seed: int) -> Floats:
        """(images,) mean squared differences of the stated from the true way, over fixed levels and noise."""
        head, device, found = self.head, self._networks.device, list[NDArray[np.float64]]()
        for start in range(0, len(images), BATCH):
            seen, wanted = (torch.from_numpy(one[start : start + BATCH]).to(device) for one in (images, asked))
            keep = torch.ones(len(seen), dtype=torch.bool, device=device)
            noise = [self._noise(seed, n, LOSS_NOISE) for n in range(start, start + len(seen))]
            given = torch.from_numpy(np.stack(noise)).to(device)
            with torch.inference_mode():
                each = [
                    flow.flow_errors(
                        self._velocity, head, seen, given, seen.new_full((len(seen),), level), wanted, keep
                    )
                    for level in LEVELS
                ]
            found.append(torch.stack(each).mean(dim=0).double().cpu().numpy())
        return np.concatenate(found)

    def on_network_grid(self, case: Case) -> tuple[NDArray[np.float32], Array]:
        """(channels, *spatial) image, and the condition that it has, as `draw` takes it."""
        steps, task = self._steps, self.model.task
        image, where = model_assembly.subject_image(case)
        prepared, trace = steps(image, where)
        target = task.target(case).data
        return prepared, steps.labels(target, trace, 0).astype(np.int64) if np.ndim(target) else np.asarray(target)

    def mask_on_network_grid(self, mask: Image, where: str) -> Array:
        """(*spatial) numbers of labels of a mask; UsageError for one of other proportions or structures."""
        size, ours = mask.geometry.shape, self.shape[1:]
        ratios = np.array([a / b for a, b in zip(size, ours, strict=False)])
        if len(size) != len(ours) or ratios.max() > STRETCHED * ratios.min():
            problem = f"the mask has {' x '.join(map(str, size))} voxels, and images are drawn with "
            remedy = "Give a mask of the size of the images that trained the model"
            raise UsageError(f"{problem}{' x '.join(map(str, ours))}", where, remedy)
        pixels = np.zeros((len(self.model.preprocessing.channels), *size), dtype=np.float32)
        blank = Image(pixels, mask.geometry, channels=self.model.preprocessing.channels)
        case = Case(where, where, {"image": blank}, {"mask": mask})
        numbers = self.on_network_grid(case)[1]
        if not numbers.any():
            raise UsageError("marks none of the structures that the model was trained on", where, "Give another mask")
        return numbers

    def blank(self, mask: Image, like: Image) -> Image:
        """An image of one value on the grid of a mask, of the channels and the type of another."""
        return replace(
            like, pixels=np.zeros((len(like.channels), *mask.geometry.shape), like.dtype), geometry=mask.geometry
        )

    @property
    def _steps(self) -> Preprocessing:
        steps = self.model.preprocessing
        assert isinstance(steps, Preprocessing)  # noqa: S101 - no model of another program draws images
        return steps

    def as_image(self, drawn: Array, like: Image, where: str, mark: str) -> Image:
        """A drawn image in the unit, on the grid and of the type of another, marked; nothing says where it lies."""
        prepared = self._steps(like, where)[1]
        whole = tuple(slice(0, size) for size in drawn.shape[1:])
        data = np.zeros((len(drawn), *like.geometry.shape), dtype=np.float32)
        for region, arrays in restore.restore_regions([(whole, {"drawn": drawn})], prepared):
            data[(slice(None), *region)] = np.asarray(arrays["drawn"])
        for place, scale in enumerate(self._steps.normalisation):
            data[place] = np.clip(scale.deviation * data[place] + scale.mean, scale.low, scale.high)
        if np.issubdtype(like.dtype, np.integer):
            data = np.rint(data).astype(like.dtype)
        return Image(
            data, like.geometry.at_origin, modality=like.modality, channels=like.channels, facts={SYNTHETIC: mark}
        )
