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
import PIL.Image
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
    "style": 1.0,
    "speckle": 0.2,
    "colour": 1.0,
    "stain": 0.3,
    "paste": 1.0,
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
    # A second patient, whose structures are pasted.
    other_image, other_labels = phantoms.make_phantom(seed=1, patient=3)
    other = Normalisation("zscore").apply(other_image.data[0], np.ones(other_image.geometry.shape, dtype=bool))
    slices = images.shape[-1]
    second = (
        torch.from_numpy(other)[None, None, ..., :slices],
        torch.from_numpy(other_labels.data[..., :slices].copy()).long(),
    )
    shown = [("as it is", images, dense)]
    for name, strength in STRENGTHS.items():
        change = replace(OFF, **{name: strength, **BESIDE.get(name, {})})
        batch, labelled = _batch(name, images, dense, second)
        drawn = []
        for n in range(DRAWS):
            draws = [random_draws.sample_generator(n, sample, 0) for sample in range(len(batch))]
            drawn.append(change(batch, labelled, draws, image.geometry.spacing))
        changed, moved, _ = max(drawn, key=lambda one: float((_slice(one[0]) - _slice(images)).abs().mean()))
        shown.append((f"{name} {strength:g}", changed, moved))
    _draw(shown, image.geometry.spacing)
    plt.savefig(out, dpi=70)
    with PIL.Image.open(out) as drawn_image:
        drawn_image.convert("RGB").quantize(128, dither=PIL.Image.Dither.NONE).save(out, optimize=True)


def _batch(
    name: str, images: torch.Tensor, labels: torch.Tensor, second: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch that a kind needs: three colours, or another patient beside this one."""
    if name in ("colour", "stain"):
        return torch.cat([images + 0.4, images, images.clamp(max=0.5) - 0.4], dim=1), labels
    if name == "paste":
        return torch.cat([images, second[0]]), torch.cat([labels, second[1]])
    return images, labels


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
        grey = ((image[0, ..., middle] - low) / (high + 0.5 - low)).clamp(0, 1).movedim(0, -1)
        place.imshow(
            grey if grey.shape[-1] == 3 else grey[..., 0], "gray", vmin=0, vmax=1, aspect=spacing[0] / spacing[1]
        )
        place.contour(labels[0, :, :, middle] > 0, levels=[0.5], colors="orange", linewidths=0.8)
        place.set_title(title, fontsize=8)
    for place in axes.flat:
        place.axis("off")


if __name__ == "__main__":
    main()
