"""Hilum's side of `clinical_sizes.py`: one part of the way of a case, which is all that a folder holds.

python bench/sides/clinical_answers.py predict|all|score FOLDER THREADS
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

import hilum
from hilum.planning import plan_checks, planner, training_memory
from hilum.planning.plan_inputs import Wishes
from hilum.runtime import Model, torch_networks
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.tasks.segmentation import scoring as segmentation_scoring
from hilum.values import Array, Decision

STRUCTURES = 20


def main() -> None:
    part, folder, threads = sys.argv[1:]
    work = PARTS[part](Path(folder), int(threads))
    began = os.times()
    said = work()
    ended = os.times()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**said, "cpu_seconds": sum(ended[:4]) - sum(began[:4]), "rss_mib": peak}))


Work = Callable[[], dict[str, object]]


def predicting(folder: Path, threads: int, *, skips: bool = True) -> Work:
    """Predict the case by the network that is planned for it, without training."""
    found, method = hilum.check(folder, threads=threads).examination, Decision("sampled", "one case is measured")
    wishes = Wishes(Decision("cpu", "it is measured on the processor"), minutes=60)
    chosen = plan_checks.checked_settings(
        planner.make_plan(
            found.dataset, found.fingerprint, method, training_memory.this_machine("cpu", threads), wishes
        )
    )
    network = TorchNetwork(torch_networks.build_module(chosen.task, chosen.architecture).eval())
    inference = chosen.inference if skips else replace(chosen.inference, skip=None)
    model = Model(chosen.task, chosen.preprocessing, inference, Networks(network, chosen.architecture))
    windows: list[int] = []

    def work() -> dict[str, object]:
        prediction = model.predict(found.dataset.cases[0], progress=lambda done, _: windows.append(done))
        return {"voxels": int(np.count_nonzero(np.asarray(prediction.data))), "windows": max(windows)}

    return work


def scoring(folder: Path, threads: int) -> Work:
    """Score a map of balls, one a structure, against one that is moved by a voxel."""
    geometry = hilum.read(next((folder / "imagesTr").iterdir())).geometry
    maps, structures = [_balls(geometry.shape, shift) for shift in (0, 1)], range(1, 1 + STRUCTURES)
    values, tolerances = {f"{n}": (n,) for n in structures}, {f"{n}": 2.0 for n in structures}
    return lambda: {"rows": len(list(segmentation_scoring.structure_case_rows(*maps, values, geometry, tolerances)))}


def _balls(shape: tuple[int, ...], shift: int) -> Array:
    labels, rng = np.zeros(shape, np.uint8, order="F"), np.random.default_rng(0)
    for value in range(1, 1 + STRUCTURES):
        middle, radius = rng.uniform(0.25, 0.75, 3) * shape + shift, rng.uniform(0.04, 0.12, 3) * shape
        low, high = np.maximum(middle - radius, 0).astype(int), np.minimum(middle + radius + 1, shape).astype(int)
        box = tuple(slice(*ends) for ends in zip(low, high, strict=True))
        inside = sum(((x - m) / r) ** 2 for x, m, r in zip(np.ogrid[box], middle, radius, strict=True)) < 1
        labels[box][inside] = value
    return labels


PARTS: dict[str, Callable[[Path, int], Work]] = {
    "predict": predicting,
    "all": lambda folder, threads: predicting(folder, threads, skips=False),
    "score": scoring,
}

if __name__ == "__main__":
    main()
