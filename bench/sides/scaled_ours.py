"""One point of the scaling: `scaled_ours.py make WHAT N FOLDER`, then `scaled_ours.py run WHAT N FOLDER THREADS`

The last line of the second is JSON: the seconds of the work itself, without the start of Python.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import nibabel
import numpy as np

SIDE, FEW = 24, 300
# Cases that differ in their first voxels only are quick to make, and no two are the same file.
STAMP = 64


def make(what: str, n: int, folder: Path) -> None:
    if what in ("check", "prepare", "workers"):
        _cohort(n if what != "workers" else FEW, folder)
        return
    side = round(n ** (1 / 3)) if what == "voxels" else 96
    noise = np.random.default_rng(0).normal(100, 20, (side,) * 3).astype(np.int16)
    nibabel.Nifti1Image(noise, np.eye(4)).to_filename(folder / "volume.nii.gz")


def _cohort(n: int, folder: Path) -> None:
    """images/ and labels/: a bright ball in noise, anew in every case."""
    random = np.random.default_rng(0)
    away = np.sqrt(sum((axis - SIDE / 2) ** 2 for axis in np.indices((SIDE,) * 3)))
    mask = (away < SIDE / 4).astype(np.uint8)
    for name in ("images", "labels"):
        (folder / "data" / name).mkdir(parents=True)
    for number in range(n):
        image = (100 * mask + random.normal(0, 10, mask.shape)).astype(np.int16)
        image.flat[:STAMP] = number % 2**15
        for name, array in (("images", image), ("labels", mask)):
            nibabel.Nifti1Image(array, np.eye(4)).to_filename(folder / "data" / name / f"case{number:06}.nii.gz")


def run(what: str, n: int, folder: Path, threads: int) -> None:
    import isocenter  # after the arguments are understood: `make` does without

    if what in ("check", "workers"):
        began = time.perf_counter()
        isocenter.check(folder / "data", threads=threads)
    elif what == "prepare":
        began = _prepared(folder, threads)
    else:
        model = _model(n if what == "classes" else 3)
        began = time.perf_counter()
        isocenter.predict(model, folder / "volume.nii.gz", out=folder / "out")
    print(json.dumps({"seconds": time.perf_counter() - began}))


def _prepared(folder: Path, threads: int) -> float:
    """Every case prepared for training; when that began."""
    from isocenter.layouts import dataset_layouts
    from isocenter.runtime import Preprocessing
    from isocenter.tasks import task_catalogue
    from isocenter.training.data import prepared_store
    from isocenter.transforms.intensity import Normalisation

    dataset = dataset_layouts.read_dataset(folder / "data")
    scale = (Normalisation("zscore"),)
    preprocessing = Preprocessing(
        ndim=3, channels=("image",), modality="unknown", spacing=(1.5, 1.5, 1.5), normalisation=scale
    )
    task = task_catalogue.build_task(
        {"name": "segmentation", "labels": [{"value": 1, "name": "1"}], "loss": "ce", "tolerance": 1.0}
    )
    began = time.perf_counter()
    prepared_store.prepare_all(list(dataset), preprocessing, task, threads=threads, memory=0)
    return began


def _model(classes: int):
    """A light U-Net of so many classes, with weights that have learnt nothing."""
    from isocenter.runtime import Model, Preprocessing, torch_networks
    from isocenter.runtime.inference import Inference
    from isocenter.runtime.torch_networks import Networks, TorchNetwork
    from isocenter.tasks import task_catalogue
    from isocenter.transforms.intensity import Normalisation

    labels = [{"value": number, "name": f"part {number}"} for number in range(1, classes + 1)]
    task = task_catalogue.build_task({"name": "segmentation", "labels": labels, "loss": "ce", "tolerance": 2.0})
    size = {"width": 8, "widest": 16, "strides": [[1, 1, 1], [2, 2, 2]]}
    network = {"name": "unet", "channels": 1, "spatial_dims": 3, "size": size}
    scale = (Normalisation("zscore"),)
    preprocessing = Preprocessing(ndim=3, channels=("image",), modality="unknown", spacing=None, normalisation=scale)
    module = torch_networks.build_module(task, network).eval()
    return Model(task, preprocessing, Inference((32, 32, 32), overlap=0.25), Networks(TorchNetwork(module), network))


def main() -> None:
    order, what, n, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    if order == "make":
        make(what, n, folder)
    else:
        run(what, n, folder, int(sys.argv[5]))


if __name__ == "__main__":
    main()
