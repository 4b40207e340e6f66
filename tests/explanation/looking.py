"""Networks of which it is known at what they look, as models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hilum.networks.common_layers import CONVOLUTION
from hilum.runtime import Model, Preprocessing
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.tasks import task, task_catalogue
from hilum.transforms.intensity import Normalisation
from hilum.values import Geometry, Image

torch.set_num_threads(1)
CLASSES = ("calm", "bright")


class Bright(nn.Module):
    """The class "bright" counts what is above a level, through a deepest map and a linear layer."""

    def __init__(self, axes: int, level: float = 0.5, classes: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(CONVOLUTION[axes](1, 1, 1), nn.ReLU())
        self.vectors = nn.ModuleDict({"class": nn.Linear(1, classes)})
        with torch.no_grad():
            self.body[0].weight.fill_(1.0)
            self.body[0].bias.fill_(-level)
            self.vectors["class"].weight.copy_(torch.tensor([[-1.0], [1.0]]) * 50)
            self.vectors["class"].bias.copy_(torch.tensor([0.1, 0.0]))

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        maps = self.body(images[:, :1])
        return {"class": self.vectors["class"](maps.flatten(2).mean(dim=2))}


class Linear(nn.Module):
    """The class "bright" is a weighted sum of the voxels."""

    def __init__(self, weights: np.ndarray) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.from_numpy(weights.astype(np.float32)))

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        score = (images * self.weights).flatten(1).sum(dim=1)
        return {"class": torch.stack([torch.zeros_like(score), score], dim=1)}


def classes(*names: str) -> task.Task:
    return task_catalogue.build_task({"name": "classification", "classes": list(names or CLASSES), "smoothing": 0.0})


def model(module: nn.Module, patch: Sequence[int], *, overlap: float = 0.5, name: str = "resnet", **more: Any) -> Model:
    """A model of classes; more: of the preprocessing."""
    settings = {"channels": ("0",), **more}
    scales = tuple(Normalisation("range", 0, 1) for _ in settings["channels"])
    preprocessing = Preprocessing(len(patch), normalisation=scales, smallest=tuple(patch), **settings)
    network = {"name": name, "channels": len(settings["channels"]), "spatial_dims": len(patch), "size": {}}
    return Model(
        classes(), preprocessing, Inference(tuple(patch), overlap), Networks(TorchNetwork(module.eval()), network)
    )


def spot(shape: Sequence[int], at: Sequence[int], affine: np.ndarray | None = None) -> Image:
    """A dark image with a bright spot of three voxels an axis."""
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 0.1, (1, *shape)).astype(np.float32)
    pixels[(0, *(slice(n - 1, n + 2) for n in at))] = 1.0
    grid = Geometry(tuple(shape), np.eye(len(shape) + 1) if affine is None else affine)
    return Image(pixels, grid)


def corner_model(size: int = 20, channels: int = 1) -> Model:
    """The class "bright" is what lies in the upper left corner, a fifth of each side, and nothing else."""
    weights = np.zeros((channels, size, size))
    weights[:, : size // 5, : size // 5] = np.random.default_rng(3).uniform(0.5, 1.5, (size // 5, size // 5))
    names = tuple(str(n) for n in range(channels))
    return model(Linear(weights), (size, size), channels=names)


def textured(seed: int, size: int = 20) -> Image:
    """A picture of smooth noise, of which the corner is bright."""
    rng = np.random.default_rng(seed)
    pixels = rng.uniform(0, 0.6, (1, size, size)).astype(np.float32)
    pixels[0, : size // 5, : size // 5] += rng.uniform(0.3, 0.4)
    return Image(pixels, Geometry((size, size), np.eye(3)))
