"""Whether the disagreement of views rises with corruptions: dropout in all blocks, and members.

    python bench/epistemic.py dropout pneumonia --steps 300
    python bench/epistemic.py members pneumonia --steps 200
    python bench/epistemic.py dropout hippocampus --steps 150

Dropout leaves out a fifth of the feature maps between the two convolutions of every block, in training and in
prediction: of the U-Net by its own setting, of the residual network by a change of its blocks here. Members are five
networks that differ in their seeds. Pictures as in `uncertainty.py`; hippocampi are the first 100 of the set, and those
that are corrupted the 12 after them, scaled to 0..255 by their own least and largest value, with a U-Net of 8 maps.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from scipy import ndimage, stats
from trainings import ROOT
from uncertainty import CORRUPTED, CORRUPTIONS, PARTS, SEVERITIES, Pixels, drawn, picture

import isocenter
from isocenter.networks import resnet
from isocenter.runtime import Model, model_assembly
from isocenter.runtime.uncertainty.disagreement import Disagreement
from isocenter.runtime.uncertainty.uncertainty_methods import BY_MEMBERS
from isocenter.values import Geometry, Image

SHARE, SEEDS, TRAIN, VOLUMES, ENOUGH = 0.2, range(5), 100, 12, 0.8
# Masks of a picture are made at once, those of a volume one after the other.
DRAWS = {"pneumonia": 16, "hippocampus": 8}
UNET = {"width": 8, "widest": 64, "strides": [[1] * 3, [2] * 3, [2] * 3, [2] * 3]}


def _coarse(voxels: Pixels, level: int, _: np.random.Generator) -> Pixels:
    every = level + 1
    made = voxels[::every, ::every, ::every]
    for axis in range(3):
        made = made.repeat(every, axis=axis)
    return made[tuple(map(slice, voxels.shape))]


def _occluded(voxels: Pixels, level: int, random: np.random.Generator) -> Pixels:
    starts, made = [random.integers(0, length - 4 * level + 1) for length in voxels.shape], voxels.copy()
    made[tuple(slice(start, start + 4 * level) for start in starts)] = 0
    return made


OF_VOLUMES: Mapping[str, Callable[[Pixels, int, np.random.Generator], Pixels]] = {
    **CORRUPTIONS,
    "blur": lambda voxels, level, _: ndimage.gaussian_filter(voxels, 0.6 * level),
    "motion": lambda voxels, level, _: ndimage.uniform_filter1d(voxels, 2 * level + 1, axis=0),
    "coarse": _coarse,
    "occlusion": _occluded,
}


@dataclass
class Dropping:
    """A network whose dropout is on in prediction, as several views of each batch: arrays to arrays, as `Model.run`."""

    module: torch.nn.Module
    draws: int
    differ: Disagreement

    def __call__(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        images, count = torch.from_numpy(batch), self.draws
        with torch.inference_mode():
            if images.ndim == 4:
                made = self.module(images.repeat_interleave(count, 0))
                views = [{head: one[n::count] for head, one in made.items()} for n in range(count)]
            else:
                views = [self.module(images) for _ in range(count)]
            means = {head: torch.stack([view[head] for view in views]).mean(0) for head in views[0]}
            made = means | dict(self.differ(views))
        return {name: one.float().numpy() for name, one in made.items()}


def drop_in_residual_blocks(always: list[bool]) -> None:
    """Blocks of residual networks leave out maps between their convolutions; always: [whether in prediction too]"""

    def inner(self: Any, active: torch.Tensor) -> torch.Tensor:
        maps = self.activation(self.second_norm(self.first(active)))
        return self.second(torch.nn.functional.dropout2d(maps, SHARE, self.training or always[0]))

    resnet.ResNetBlock.inner = inner  # type: ignore[method-assign]


def data_of(name: str, given: argparse.Namespace) -> tuple[Path, list[Pixels]]:
    """Where a set to train on lies, made where it is not there, and the images that are to be corrupted."""
    place = given.out / (f"{name}.npz" if name == "pneumonia" else name)
    if name == "pneumonia":
        PARTS.update(test=200)
        return place, list(drawn(given.data / "medmnist/pneumoniamnist.npz", place)["test_images"][:CORRUPTED])
    for folder in ("images", "labels"):
        (place / folder).mkdir(parents=True, exist_ok=True)
        for path in sorted((given.data / name / folder).glob("*.nii.gz"))[:TRAIN]:
            if not (place / folder / path.name).exists():
                (place / folder / path.name).symlink_to(path.resolve())
    others = sorted((given.data / name / "images").glob("*.nii.gz"))[TRAIN : TRAIN + VOLUMES]
    voxels = [np.asarray(nibabel.load(path).dataobj, dtype=float) for path in others]
    return place, [255 * (one - one.min()) / np.ptp(one) for one in voxels]


def model_of(method: str, name: str, source: Path, given: argparse.Namespace) -> Model:
    """The trained model, which compares views by the method."""
    by_hand, always = {"training.steps": given.steps}, [False]
    if name == "hippocampus":
        by_hand["network.size"] = {**UNET, "dropout": SHARE if method == "dropout" else 0.0}
    elif method == "dropout":
        drop_in_residual_blocks(always)
    how = {"threads": given.threads, "device": "cpu", "overwrite": True}
    out = given.out / f"{method}-{name}-{given.steps}"
    runs = [out / f"seed_{seed}" for seed in (SEEDS if method == "members" else SEEDS[:1])]
    for seed, run in zip(SEEDS, runs, strict=False):
        if not (run / "report.html").is_file():
            isocenter.train(source, out=run, seed=seed, assignments=by_hand, **how)
    if method == "members":
        isocenter.ensemble(runs, out=out / "ensemble", weights="equal", **how)
        return model_assembly.with_uncertainty(isocenter.load(out / "ensemble", "cpu"), "members")
    model = isocenter.load(runs[0], "cpu")
    run, differ = model.networks.run, Disagreement.from_task(model.task)
    while not hasattr(run, "module"):
        run = run.run
    always[0] = True
    for part in run.module.modules():
        part.train("Dropout" in type(part).__name__)
    torch.manual_seed(0)
    assert differ is not None
    return replace(model.with_run(Dropping(run.module, DRAWS[name], differ)), uncertainty=BY_MEMBERS)


def epistemic(model: Model, images: Sequence[Pixels]) -> float:
    """The mean over the images."""
    made = []
    for one in images:
        whole = np.ascontiguousarray(one.clip(0, 255).round().astype(np.uint8)[None])
        volume = Image(whole, Geometry(one.shape, np.eye(4))) if one.ndim == 3 else picture(one)
        made.append(model.predict(volume).confidence.epistemic)
    return float(np.mean(made))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=["dropout", "members"])
    parser.add_argument("set", choices=list(DRAWS))
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / ".bench" / "epistemic")
    given = parser.parse_args()
    source, images = data_of(given.set, given)
    model = model_of(given.method, given.set, source, given)
    clean, found = epistemic(model, images), dict[str, float]()
    for name, corrupt in (OF_VOLUMES if given.set == "hippocampus" else CORRUPTIONS).items():
        random = np.random.default_rng(0)
        levels = [[corrupt(one.astype(float), level, random) for one in images] for level in SEVERITIES]
        means = [clean, *(epistemic(model, one) for one in levels)]
        found[name] = float(stats.spearmanr((0, *SEVERITIES), means).statistic)
        print(name, *(f"{one:.5f}" for one in means), flush=True)
    print(f"| set, method | {' | '.join(found)} | reached |")
    cells = " | ".join(f"{one:.2f}" for one in found.values())
    print(f"| {given.set}, {given.method} | {cells} | {sum(one >= ENOUGH for one in found.values())} of {len(found)} |")


if __name__ == "__main__":
    main()
