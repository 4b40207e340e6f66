"""Small models of known weights, packages of them, and a Python without Hilum to run them in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import forked
from hilum.runtime import Model, Preprocessing, ensemble, record_files, torch_networks
from hilum.runtime.inference import Inference
from hilum.runtime.package import onnx_export, package_writing
from hilum.runtime.package.package_writing import PackageEvidence
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.runtime.windows.averaging import AveragedNetwork
from hilum.tasks import task_catalogue
from hilum.transforms.intensity import Normalisation


def installed(folder: Path, toy: Path, points: str) -> Path:
    """A folder as pip leaves it of a package of one file; points: its entry points."""
    about = folder / f"{toy.stem}-1.0.dist-info"
    about.mkdir(parents=True)
    shutil.copy(toy, folder / toy.name)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {toy.stem}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(points)
    return folder


BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hilum":
            raise ImportError("hilum is blocked")
sys.meta_path.insert(0, Blocked())
"""
SIDED = [{"value": 3, "name": "kidney left", "colour": [255, 0, 0]}, {"value": 7, "name": "kidney right"}]
CONFIG, METADATA = "configs/inference.json", "configs/metadata.json"


def segmenting(
    networks: int = 1, *, flips: tuple[int, ...] = (), decoding: str | None = None, **preparation: Any
) -> Model:
    """A model of two structures with random weights, of one network or of the mean of several."""
    settings = {"name": "segmentation", "labels": SIDED, "loss": "dice+ce", "tolerance": 2.0, "decoding": decoding}
    task = task_catalogue.build_task(settings)
    preprocessing = Preprocessing(3, ("T1",), (Normalisation("zscore"),), modality="MR", **preparation)
    size = {"strides": [[1, 1, 1], [2, 2, 2]], "width": 4, "widest": 8}
    inference = Inference((8, 8, 4), 0.5, 2, flips, 0)
    return _made(task, preprocessing, inference, {"name": "unet", "size": size}, networks)


def of_folds(*, flips: tuple[int, ...] = (), **preparation: Any) -> Model:
    """A model of two networks, each with the window of its own training cases."""
    windows = (Normalisation("window", 40.0, 150.0, 95.0, 25.0), Normalisation("window", 55.0, 170.0, 105.0, 35.0))
    both = segmenting(2, flips=flips, **preparation)
    assert isinstance(both.networks.run, AveragedNetwork)
    each = [
        replace(both.with_run(run), preprocessing=replace(both.preprocessing, normalisation=(window,)))
        for run, window in zip(both.networks.run.members, windows, strict=True)
    ]
    preprocessing, networks = ensemble.share_scale(each, "folds")
    return replace(both.with_run(AveragedNetwork(networks, both.task.average)), preprocessing=preprocessing)


def classifying(name: str = "resnet", **size: Any) -> Model:
    """A model of two classes of pictures with random weights."""
    task = task_catalogue.build_task({"name": "classification", "classes": ["$benign", "malignant"], "smoothing": 0.0})
    preprocessing = Preprocessing(2, ("0",), (Normalisation("zscore"),), shape=(32, 32))
    sizes = size or {"blocks": [1, 1], "width": 4}
    return _made(task, preprocessing, Inference((32, 32)), {"name": name, "size": sizes}, 1)


def _made(task: Any, preprocessing: Preprocessing, inference: Inference, family: dict[str, Any], count: int) -> Model:
    network = {**family, "channels": 1, "spatial_dims": preprocessing.ndim}
    torch.manual_seed(5)
    runs = tuple(TorchNetwork(torch_networks.build_module(task, network).eval()) for _ in range(count))
    run = runs[0] if count == 1 else AveragedNetwork(runs, task.average)
    return Model(task, preprocessing, inference, Networks(run, network), {"data_hash": "abc"})


# Of one network that takes voxels as they are, of two that resample and mirror, and of pictures; masks are decoded for
# Dice, which is more work than the largest output.
TINY = {
    "single": partial(segmenting, decoding="dice"),
    "folds": partial(of_folds, flips=(0, 1), decoding="dice", spacing=(1.4, 1.0, 1.0)),
    "pictured": classifying,
}


def packed(model: Model, folder: Path, title: str = "tiny") -> Path:
    """The model's package."""
    folder.mkdir(parents=True)
    package_writing.write_package(model, PackageEvidence(), title, folder)
    return folder


@contextmanager
def no_export() -> Iterator[None]:
    """Packages are written without an ONNX file, whose export takes longer than all the rest: for tests of the rest."""
    with pytest.MonkeyPatch.context() as patch:
        left_out = {"exported": False, "because": "a test looks at other things"}
        patch.setattr(onnx_export, "write_onnx", lambda network, shape, path, **options: left_out)
        yield


def without_hilum(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """python with these words, from the folder, where Hilum cannot be imported; MONAI is imported already."""
    return forked.run(*words, after=f"{BLOCK}\nimport monai.bundle", folder=folder)


def of_a_fresh_python(folder: Path, room: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """The same by a Python that has imported nothing yet, which takes ten seconds more."""
    room.mkdir(parents=True, exist_ok=True)
    (room / "sitecustomize.py").write_text(BLOCK)
    own = {**os.environ, "PYTHONPATH": str(room), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, check=False)


def bundle_checked_and_run(package: Path, images: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """MONAI's `verify_net_in_out`, its check of properties and its `run`, in one process."""
    code = f"""
import logging, sys
logging.basicConfig(stream=sys.stdout, level=logging.INFO)
from monai.bundle import ConfigWorkflow, run, verify_net_in_out
verify_net_in_out("network_def", meta_file={METADATA!r}, config_file={CONFIG!r}, device="cpu")
flow = ConfigWorkflow({CONFIG!r}, {METADATA!r}, False, workflow_type="inference", dataset_dir={str(images)!r})
flow.initialize()
print("missing properties:", flow.check_properties())
run(config_file={CONFIG!r}, dataset_dir={str(images)!r}, output_dir={str(out)!r})
"""
    return without_hilum(package, "-c", code)


def changed(folder: Path, name: str, **values: object) -> None:
    """A JSON record of a package with other values, and its seal made anew."""
    record = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**record, **values}))
    record_files.seal_folder(folder)
