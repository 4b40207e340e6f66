"""VoxelMorph trained on the volumes of HOME/arrays.npz for so many minutes: HOME MINUTES SEED.

Run by `bench/registration_trained.py` in the peer's own environment; writes the moving labels on the fixed images
(`moved`), voxels that fold in percent (`folded`) and seconds a pair (`seconds`) to HOME/moved.npz.
"""

import json
import sys
import time
from pathlib import Path

import neurite
import numpy as np
import torch
import voxelmorph

FEATURES = (16, 32, 32, 32)
STEP_SIZES = (1e-3, 1e-4)
TRIAL_MINUTES, KEPT_APART = 2.0, 20
LABELS = (1, 2)
# For the mean square; the local correlation, at 15 s a step on one core, would take 80 steps in all.
SMOOTHNESS = 0.01


def main(home, minutes, seed):
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    drawn = np.random.default_rng(seed)
    arrays = np.load(home / "arrays.npz")
    images = torch.from_numpy(np.stack([scaled(one) for one in arrays["images"]]))[:, None]
    labels = torch.stack([one_hot(one) for one in arrays["labels"]])
    began = time.perf_counter()
    trial = min(TRIAL_MINUTES, minutes / 10)
    dice = {}
    for size in STEP_SIZES:
        network, _ = trained(images[:-KEPT_APART], labels[:-KEPT_APART], size, trial, np.random.default_rng(seed))
        dice[size] = quality(network, images[-KEPT_APART:], labels[-KEPT_APART:])
    best = max(dice, key=dice.get)
    # The trials are a part of the minutes.
    left = minutes - (time.perf_counter() - began) / 60
    network, steps = trained(images, labels, best, left, drawn)
    moved, folded, seconds = [], [], []
    carry = voxelmorph.nn.modules.SpatialTransformer()
    for fixed, moving, label in zip(arrays["fixed"], arrays["moving"], arrays["drawn"], strict=True):
        start = time.perf_counter()
        with torch.no_grad():
            sides = [torch.from_numpy(scaled(one))[None, None] for one in (moving, fixed)]
            field = network(*sides)
        seconds.append(time.perf_counter() - start)
        with torch.no_grad():
            spread = carry(one_hot(label)[None], field)[0]
        rest = 1 - spread.sum(0, keepdim=True)
        moved.append(torch.cat([rest, spread]).argmax(0).numpy().astype(np.uint8))
        folded.append(folding(field[0].numpy()))
    np.savez(home / "moved.npz", moved=np.stack(moved), folded=folded, seconds=seconds)
    print(json.dumps({"steps": steps, "step_size": best, "trial": {str(k): v for k, v in dice.items()}}))


def trained(images, labels, step_size, minutes, drawn):
    """Train on pairs of two volumes that are drawn anew each step, as the authors' loop does."""
    network = voxelmorph.nn.models.VxmPairwise(3, 1, 1, FEATURES, activations=torch.nn.LeakyReLU)
    optimiser = torch.optim.Adam(network.parameters(), lr=step_size)
    unlike, dice = neurite.nn.modules.MSE(), neurite.nn.modules.Dice()
    rough = neurite.nn.modules.SpatialGradient("l2")
    carry = voxelmorph.nn.modules.SpatialTransformer()
    until, steps = time.perf_counter() + 60 * minutes, 0
    while time.perf_counter() < until:
        first, second = drawn.choice(len(images), 2, replace=False)
        field, moved = network(images[first][None], images[second][None], return_warped_source=True)
        loss = unlike(moved, images[second][None]) + SMOOTHNESS * rough(field)
        loss = loss + 1 - dice(carry(labels[first][None], field), labels[second][None]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
    return network.eval(), steps


def quality(network, images, labels):
    """Mean Dice of neighbours in the list of volumes."""
    carry, found = voxelmorph.nn.modules.SpatialTransformer(), []
    with torch.no_grad():
        for number in range(0, len(images) - 1, 2):
            field = network(images[number][None], images[number + 1][None])
            spread, true = carry(labels[number][None], field) > 0.5, labels[number + 1] > 0.5
            found.append(float(2 * (spread[0] & true).sum() / (spread[0].sum() + true.sum())))
    return float(np.mean(found))


def scaled(volume):
    """From 0 to 1, as the authors ask."""
    low, high = np.percentile(volume[volume > 0], 1) if (volume > 0).any() else 0.0, np.percentile(volume, 99.5)
    return np.clip((volume - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def one_hot(labels):
    return torch.from_numpy(np.stack([labels == value for value in LABELS]).astype(np.float32))


def folding(field):
    """Voxels whose Jacobian determinant is not positive, in percent."""
    rows = [np.stack(np.gradient(part), -1) for part in field]
    jacobian = np.stack(rows, -2) + np.eye(3)
    return float(100 * (np.linalg.det(jacobian) <= 0).mean())


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
