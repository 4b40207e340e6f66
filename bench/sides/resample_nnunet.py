"""nnU-Net's side of `resampling.py`, run in its own environment: scipy as it ships, or torch. Nothing of ours.

python bench/sides/resample_nnunet.py scipy|torch image|labels|scores FOLDER RESULT
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("method", choices=("scipy", "torch"))
    parser.add_argument("step", choices=("image", "labels", "scores"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("result", type=Path)
    asked = parser.parse_args()
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    torch.set_num_threads(threads)
    shapes = json.loads((asked.folder / "shapes.json").read_text())
    array = np.load(asked.folder / f"{asked.step}.npy")
    old, new = (shapes["network"], shapes["source"]) if asked.step == "scores" else (array.shape, shapes["network"])
    spacing = [1.0, 1.0, 1.0], [a / b for a, b in zip(old, new, strict=True)]
    began = time.perf_counter()
    found = _resampled(asked.method, asked.step, array, new, spacing, threads)
    if asked.step == "scores":
        found = torch.as_tensor(found).argmax(0).to(torch.uint8).numpy()
    else:
        found = found[0]
    seconds = time.perf_counter() - began
    np.save(asked.result, found)
    print(json.dumps({"step_seconds": seconds}))


def _resampled(method: str, step: str, array: np.ndarray, new: Any, spacing: Any, threads: int) -> Any:
    """As nnU-Net's plans call it: order 3 for images, 1 for labels and for the scores of the classes."""
    data = array if step == "scores" else array[None]
    if step == "image":
        data = data.astype(np.float32)
    if method == "torch":
        return resample_torch_fornnunet(data, new, *spacing, is_seg=step == "labels", num_threads=threads)
    order = 3 if step == "image" else 1
    return resample_data_or_seg_to_shape(data, new, *spacing, is_seg=step == "labels", order=order, order_z=0)


if __name__ == "__main__":
    main()
