"""Every kind of change on a simulated patient, as the page on augmentation shows it.

    python bench/augmentation_figure.py docs/images/augmentation.png

Each kind is drawn at the strength that stands above it, which is more than a plan uses, so that it can be seen.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from isocenter.transforms import phantoms, random_draws
from isocenter.transforms.augment import Augmentation
from isocenter.transforms.intensity import Normalisation

OFF = Augmentation(
    rotation=0, scale=0, contrast=0, brightness=0, gamma=0, noise=0, probability=1, accidents=1, left_right=0
)
STRENGTHS = {
    "rotation": 20.0,
    "scale": 0.2,
    "shear": 0.3,
    "shift": 0.15,
    "elastic": 0.02,
    "contrast": 0.5,
    "brightness": 0.6,
    "gamma": 0.8,
    "noise": 0.4,
    "blur": 1.5,
    "low_resolution": 2.0,
    "sharpen": 3.0,
    "equalise": 1.0,
    "bias_field": 0.4,
    "motion": 4.0,
    "ghosting": 1.0,
    "spikes": 1.0,
    "dose_noise": 0.5,
    "metal": 2.0,
    "cutout": 0.5,
    "cutout_count": 3,
}
# What shows only beside another kind.
BESIDE = {"cutout_count": {"cutout": 0.3}}
COLUMNS = 6
# Of so many draws the one is shown that changes the slice most.
DRAWS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    image, labels = phantoms.make_phantom(seed=0, patient=2)
    pixels = Normalisation("zscore").apply(image.data[0], np.ones(image.geometry.shape, dtype=bool))
    images, dense = torch.from_numpy(pixels)[None, None], torch.from_numpy(labels.data.copy()).long()
    shown = [("as it is", images, dense)]
    for name, strength in STRENGTHS.items():
        change = replace(OFF, **{name: strength, **BESIDE.get(name, {})})
        drawn = [
            change(images, dense, [random_draws.sample_generator(n, 0, 0)], image.geometry.spacing)
            for n in range(DRAWS)
        ]
        changed, moved, _ = max(drawn, key=lambda one: float((_slice(one[0]) - _slice(images)).abs().mean()))
        shown.append((f"{name} {strength:g}", changed, moved))
    _draw(shown, image.geometry.spacing)
    plt.savefig(out, dpi=70, pil_kwargs={"optimize": True})


def _slice(image: torch.Tensor) -> torch.Tensor:
    """The middle one of the first sample."""
    return image.flatten(0, -4)[0, :, :, image.shape[-1] // 2]


def _draw(shown: list[tuple[str, torch.Tensor, torch.Tensor]], spacing: tuple[float, ...]) -> None:
    """The middle slice of each, with the outline of the labels."""
    low, high = np.percentile(shown[0][1].numpy(), (0.5, 99.5))
    rows = -(-len(shown) // COLUMNS)
    _, axes = plt.subplots(rows, COLUMNS, figsize=(1.7 * COLUMNS, 1.95 * rows), layout="constrained")
    for place, (title, image, labels) in zip(axes.flat, shown, strict=False):
        middle = image.shape[-1] // 2
        place.imshow(image[0, 0, :, :, middle], cmap="gray", vmin=low, vmax=high + 0.5, aspect=spacing[0] / spacing[1])
        place.contour(labels[0, :, :, middle] > 0, levels=[0.5], colors="orange", linewidths=0.8)
        place.set_title(title, fontsize=8)
    for place in axes.flat:
        place.axis("off")


if __name__ == "__main__":
    main()
