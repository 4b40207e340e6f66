"""Hilum's side of `clinical_sizes.py`: look at every case of a folder, or prepare it for a training.

python bench/sides/clinical_sizes.py look FOLDER THREADS
python bench/sides/clinical_sizes.py prepare FOLDER THREADS
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hilum

CT = (-1000.0, 300.0, -300.0, 400.0)
LINKED, PATCH, STEPS = 60, 96, 8


def main() -> None:
    part, folder, threads = sys.argv[1:]
    said = {"look": _look, "prepare": _prepare}[part](Path(folder), int(threads))
    print(json.dumps({**said, "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def _look(folder: Path, threads: int) -> dict[str, Any]:
    began = _cpu_seconds()
    found = hilum.check(folder, threads=threads)
    return {"cases": len(found.examination.fingerprint.cases), "cpu_seconds": _cpu_seconds() - began}


def _prepare(folder: Path, threads: int) -> dict[str, Any]:
    from hilum.layouts import dataset_layouts
    from hilum.layouts.layout import DatasetOptions
    from hilum.runtime import Preprocessing
    from hilum.tasks.segmentation.question import Segmentation
    from hilum.training.data import prepared_store
    from hilum.transforms.intensity import Normalisation
    from hilum.values import Label

    cases, steps = list(dataset_layouts.read_dataset(folder, DatasetOptions())), (1.5, 1.5, 1.5)
    names, window = next(iter(cases[0].images.values())).channels, Normalisation("window", *CT)
    preprocessing = Preprocessing(3, names, (window,), steps, crop="content", smallest=(PATCH,) * 3)
    began = _cpu_seconds()
    prepared = prepared_store.prepare_all(
        cases, preprocessing, Segmentation((Label(1, "organ"),)), threads=threads, memory=0
    )
    return {"cpu_seconds": _cpu_seconds() - began, "waiting": _share_waiting(prepared * (LINKED // len(prepared)))}


def _share_waiting(cases: Sequence[Any]) -> float:
    """The share of the time of steps, after the first, in which the network waits for patches."""
    import torch

    from hilum.networks import factory
    from hilum.training.data.batch_loading import Loader
    from hilum.values import Dense

    torch.set_num_threads(2)
    size = {"width": 16, "widest": 128, "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]}
    network = factory.build("unet", 1, 3, {"mask": Dense(2)}, size)
    batches = Loader(cases, (PATCH,) * 3, 2, 0.33, 0).batches(0)
    waited, worked = [], []
    for _ in range(STEPS):
        marks = [time.perf_counter()]
        images = torch.from_numpy(next(batches).images)
        marks.append(time.perf_counter())
        network(images)["mask"].pow(2).mean().backward()
        waited.append(marks[1] - marks[0])
        worked.append(time.perf_counter() - marks[1])
    batches.close()
    return sum(waited[1:]) / (sum(waited[1:]) + sum(worked[1:]))


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


if __name__ == "__main__":
    main()
