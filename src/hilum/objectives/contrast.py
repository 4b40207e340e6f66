"""Contrast: two views of an image lie close together, and far from views of other patients.

Chen et al., "SimCLR", ICML 2020, arXiv:2002.05709; with a queue He et al., "MoCo", CVPR 2020, arXiv:1911.05722
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

from annotated_types import Ge, Gt, Le

from hilum.lazy import torch
from hilum.objectives import objective_terms
from hilum.objectives.objective_terms import NUMBERS, Needs, Objective, ObjectiveStep, Positives, SeenBatch
from hilum.values import Dataset, Decision, Fingerprint

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

SIMCLR = "arXiv:2002.05709"
MOCO = "arXiv:1911.05722"
# SimCLR's best temperature of trainings of 100 epochs.
TEMPERATURE = 0.1
# Least share of an image that a view shows. Structures of medical images are small: of much less nothing may be left.
SHOWN = 0.3
# Of the layers after the features; MoCo's .999 would hardly move them in trainings of a few thousand steps.
MOMENTUM = 0.99
# Keys that make up for batches of a few volumes.
QUEUE = 1024


@dataclass(frozen=True)
class Contrast(Objective):
    """The cross-entropy of finding an image's other view among those of other patients.

    positives:   of what the other view is: the same part of the image, another part of it, another image of the patient
    temperature: by which cosines are divided
    shown:       least share of an image that a view shows
    queue:       so many earlier views by the averaged weights are compared too; 0: those of the batch alone
    """

    positives: Positives = "view"
    temperature: Annotated[float, Gt(0), Le(10)] = TEMPERATURE
    shown: Annotated[float, Gt(0), Le(1)] = SHOWN
    queue: Annotated[int, Ge(0)] = 0

    needs: ClassVar[Needs] = Needs(labels=False, features=True, second=True, teacher=True)

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> Mapping[str, Decision]:
        """A queue where batches are of a few volumes."""
        volumes = sum(case.frames is not None or sum(size > 1 for size in case.shape) > 2 for case in fingerprint.cases)
        if 2 * volumes > len(fingerprint):
            queue = Decision(QUEUE, "a batch of volumes holds few others to be told apart from", MOCO)
        else:
            queue = Decision(0, "a batch of pictures holds enough others to be told apart from", SIMCLR)
        return {
            "positives": Decision("view", "two views of one image show the same for certain", SIMCLR),
            "temperature": Decision(TEMPERATURE, "the paper found it best for few epochs", SIMCLR),
            "queue": queue,
        }

    @property
    def fewest(self) -> int:
        """Two, where nothing but the batch is compared."""
        return 1 if self.queue else 2

    @property
    def shows(self) -> Positives:
        """The image of which the second view is."""
        return self.positives

    def parts(self, network: Module, features: int) -> Module:
        """The layers that are compared; of a queue also their averages, and keys with the patients that they are of."""
        layers: Any = objective_terms.projection_layers(features, NUMBERS)
        if self.queue:
            layers["taught"] = copy.deepcopy(layers).requires_grad_(False)
            layers.register_buffer("waiting", torch.zeros(self.queue, NUMBERS))
            layers.register_buffer("owners", torch.full((self.queue,), -1))
            layers.register_buffer("place", torch.zeros((), dtype=torch.int64))
        return cast("Module", layers)

    def losses(self, step: ObjectiveStep) -> Tensor:
        """Losses of both views of each image; with a queue of the first, whose other view the averaged weights see."""
        assert step.second is not None  # noqa: S101 - its needs say so
        views = [replace(seen, images=crop_images(seen.images, self.shown)) for seen in (step.labelled, step.second)]
        owners = torch.tensor(step.patients, device=views[0].images.device)
        if self.queue:
            queries = objective_terms.project_features(step.parts, step.embedding_network(views[0]))
            keys = momentum_keys(step, views[1])
            step.parts.latest = keys
            filled = step.parts.owners >= 0
            others = torch.cat([keys, step.parts.waiting[filled]])
            return info_nce(queries, others, owners, torch.cat([owners, step.parts.owners[filled]]), self.temperature)
        left, right = (objective_terms.project_features(step.parts, step.embedding_network(one)) for one in views)
        return normalised_cross_entropy(left, right, owners, self.temperature)

    def after(self, step: ObjectiveStep) -> None:
        """Move the averaged layers, and let this batch's keys wait in place of the oldest."""
        if not self.queue:
            return
        parts = step.parts
        for name, mean in parts["taught"].items():
            for averaged, weight in zip(mean.parameters(), parts[name].parameters(), strict=True):
                averaged.lerp_(weight, 1 - MOMENTUM)
        keys = parts.latest[: self.queue]
        places = (int(parts.place) + torch.arange(len(keys), device=keys.device)) % self.queue
        parts.waiting[places] = keys
        parts.owners[places] = torch.tensor(step.patients[: self.queue], device=keys.device)
        parts.place.fill_((int(parts.place) + len(keys)) % self.queue)


def momentum_keys(step: ObjectiveStep, seen: SeenBatch) -> Tensor:
    """(batch, numbers) of unit length, by averaged weights, without a gradient."""
    assert step.taught is not None  # noqa: S101 - its needs say so
    with torch.no_grad():
        return torch.nn.functional.normalize(
            objective_terms.project_features(step.parts["taught"], step.taught(seen)), dim=1
        )


def normalised_cross_entropy(left: Tensor, right: Tensor, owners: Tensor, temperature: float) -> Tensor:
    """(batch,) the loss NT-Xent of each pair, the mean over its two views; images of one patient are no negatives.

    left, right: (batch, numbers) two views of each image
    owners:      (batch,) numbers of the patients
    """
    both = torch.nn.functional.normalize(torch.cat([left, right]).float(), dim=1)
    people = torch.cat([owners, owners])
    count = len(left)
    alike = both @ both.T / temperature
    rows = torch.arange(2 * count, device=both.device)
    other = (rows + count) % (2 * count)
    counts = people[:, None] != people[None]
    counts[rows, other] = True
    log_sums = alike.masked_fill(~counts, -torch.inf).logsumexp(dim=1) - alike[rows, other]
    return log_sums.reshape(2, count).mean(dim=0)


def info_nce(queries: Tensor, keys: Tensor, owners: Tensor, key_owners: Tensor, temperature: float) -> Tensor:
    """(batch,) the loss InfoNCE of each image: its own key stands at its place, before all others.

    keys: (batch or more, numbers) of unit length
    """
    alike = torch.nn.functional.normalize(queries.float(), dim=1) @ keys.T / temperature
    rows = torch.arange(len(queries), device=queries.device)
    counts = owners[:, None] != key_owners[None]
    counts[rows, rows] = True
    return alike.masked_fill(~counts, -torch.inf).logsumexp(dim=1) - alike[rows, rows]


def crop_images(images: Tensor, least: float) -> Tensor:
    """A part of each image, of at least this share of its voxels, in the size of the whole."""
    count = len(images)
    axes = images.ndim - 2
    share = least + (1 - least) * torch.rand(count)
    side = share ** (1 / axes)
    shift = (2 * torch.rand(count, axes) - 1) * (1 - side)[:, None]
    matrix = torch.cat([torch.diag_embed(side[:, None].expand(count, axes)), shift[..., None]], dim=2).to(images.device)
    if axes == 1:  # grids have two axes or three
        flat = torch.zeros(count, 2, 3, device=images.device)
        flat[:, 0, 0] = matrix[:, 0, 0]
        flat[:, 0, 2] = matrix[:, 0, 1]
        flat[:, 1, 1] = 1.0
        grid = torch.nn.functional.affine_grid(flat, [count, 1, 1, images.shape[2]], align_corners=False)
        return _sample(images[:, :, None], grid)[:, :, 0]
    grid = torch.nn.functional.affine_grid(matrix, [count, 1, *images.shape[2:]], align_corners=False)
    return _sample(images, grid)


def _sample(images: Tensor, grid: Tensor) -> Tensor:
    sampled: Tensor = torch.nn.functional.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return sampled.to(images.dtype)
