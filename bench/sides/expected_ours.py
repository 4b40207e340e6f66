"""Predicts one generated volume, and says what it was expected to take: `expected_ours.py SHAPE SPACING CLASSES BATCH`

The last line is JSON: bytes that the program held before, that were expected beside them, and the expectation's parts.
"""

from __future__ import annotations

import json
import sys
from functools import partial

import numpy as np
import psutil

from hilum.runtime import Model, Preprocessing, predicted_memory, torch_networks
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.tasks import task_catalogue
from hilum.transforms.intensity import Normalisation
from hilum.values import Deferred, Geometry, Image

PATCH = (64, 64, 64)


def main() -> None:
    shape, spacing = (tuple(json.loads(word)) for word in sys.argv[1:3])
    classes, batch = int(sys.argv[3]), int(sys.argv[4])
    pixels = Deferred((1, *shape), np.dtype(np.int16), partial(_simulated, shape), partial(_part, shape))
    image = Image(pixels, Geometry(shape, np.eye(4)), modality="CT", channels=("image",))
    model = _model(classes, batch, spacing)
    expected, held = predicted_memory.expected_memory(model, image), psutil.Process().memory_info().rss
    found = model.predict(image)
    assert found.data is not None
    last = found.data[0, 0, 0] if isinstance(found.data, np.ndarray) else np.asarray(found.data)[0, 0, 0]
    parts = {"image": expected.image, "network": expected.network, "sums": expected.sums, "result": expected.result}
    print(json.dumps({"held": held, "expected": expected.total, **parts, "corner": int(last)}))


def _model(classes: int, batch: int, spacing: tuple[float, ...]) -> Model:
    """A small U-Net with weights that have learnt nothing: what it takes does not hang on what it says."""
    labels = [{"value": n, "name": f"part {n}"} for n in range(1, classes + 1)]
    task = task_catalogue.build_task({"name": "segmentation", "labels": labels, "loss": "ce", "tolerance": 2.0})
    size = {"width": 16, "widest": 128, "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]]}
    network = {"name": "unet", "channels": 1, "spatial_dims": 3, "size": size}
    window = Normalisation("window", -1000.0, 1000.0, 0.0, 500.0)
    preprocessing = Preprocessing(ndim=3, channels=("image",), modality="CT", spacing=spacing, normalisation=(window,))
    run = TorchNetwork(torch_networks.build_module(task, network).eval())
    return Model(task, preprocessing, Inference(PATCH, batch=batch), Networks(run, network))


def _simulated(shape: tuple[int, ...]) -> np.ndarray:
    return _part(shape, tuple(slice(None) for _ in range(4)))


def _part(shape: tuple[int, ...], region: tuple[slice, ...]) -> np.ndarray:
    """Soft waves, made where they are asked for."""
    _, *axes = region
    waves = [np.sin(np.arange(size)[part] / 37) for size, part in zip(shape, axes, strict=True)]
    return (800 * waves[0][:, None, None] * waves[1][:, None] + 200 * waves[2]).astype(np.int16)[None]


if __name__ == "__main__":
    main()
