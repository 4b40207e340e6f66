"""Hilum's side of `resampling.py`: one step on prepared files. Its last line says the seconds without reading.

python bench/sides/resample_ours.py image|labels|scores FOLDER RESULT
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from hilum.transforms import label_resampling, resampling
from hilum.transforms.resampling import Taps


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("step", choices=("image", "labels", "scores"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("result", type=Path)
    asked = parser.parse_args()
    shapes = json.loads((asked.folder / "shapes.json").read_text())
    if asked.step == "scores":
        result, seconds = _scores(asked.folder / "scores.npy", tuple(shapes["source"]))
    else:
        array = np.load(asked.folder / f"{asked.step}.npy")
        began = time.perf_counter()
        if asked.step == "image":
            result = resampling.resample(array[None], shapes["network"], "cubic")[0]
        else:
            result = label_resampling.resample_labels(array, shapes["network"])
        seconds = time.perf_counter() - began
    np.save(asked.result, result)
    print(json.dumps({"step_seconds": seconds}))


def _scores(path: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, float]:
    """Slab after slab, as a network's finished windows come: only the rows that the coming ones need are read."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        (classes, *old), _, dtype = np.lib.format.read_array_header_1_0(file)
        start = file.tell()
    steps = [resampling.axis_taps(a, b) for a, b in zip(old, shape, strict=True)]
    chosen, seconds = np.empty(shape, np.uint8), 0.0
    for rows, step, near in resampling.split_into_slabs(steps[0], shape[1] * shape[2]):
        part = np.empty((classes, near.stop - near.start, *old[1:]), dtype)
        for number in range(classes):
            at = start + (number * old[0] + near.start) * old[1] * old[2] * dtype.itemsize
            part[number] = np.fromfile(path, dtype, part[0].size, offset=at).reshape(part.shape[1:])
        began = time.perf_counter()
        chosen[rows] = label_resampling.largest_on_slab(
            part.astype(np.float32), [Taps(step.index, step.weight), *steps[1:]]
        )
        seconds += time.perf_counter() - began
    return chosen, seconds


if __name__ == "__main__":
    main()
