"""Of a bright and a dim disc a covariate says which is the structure: a mask that no image tells alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.testing import assert_allclose

import hilum
import trained
from hilum.runtime import torch_networks
from hilum.values import Dense

SIZE = {"width": 4, "widest": 8, "strides": [[1, 1], [2, 2]]}
FEW = {**trained.FEW_STEPS, "network.size": SIZE, "network.context": ["which"]}
READING = {"column": {"image": "file", "mask": "mask"}, "device": "cpu", "threads": 1}


def cohort(root: Path, count: int = 24) -> Path:
    root.mkdir(parents=True)
    rows = ["file,mask,which"]
    for n in range(count):
        rng = np.random.default_rng(n)
        discs = [
            np.hypot(*(np.indices((16, 16)) - centre[:, None, None])) < 3 for centre in np.array([[4, 8], [12, 8]])
        ]
        bright = n // 2 % 2
        pixels = 60 + 120 * discs[bright] + 60 * discs[1 - bright] + rng.normal(0, 8, (16, 16))
        PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{n:02}.png")
        mask = discs[bright] if n % 2 else discs[1 - bright]
        PIL.Image.fromarray(mask.astype(np.uint8)).save(root / f"{n:02}_mask.png")
        rows.append(f"{n:02}.png,{n:02}_mask.png,{'bright' if n % 2 else 'dim'}")
    (root / "table.csv").write_text("\n".join(rows))
    return root / "table.csv"


@pytest.fixture(scope="module")
def informed(tmp_path_factory):
    root = tmp_path_factory.mktemp("which")
    data = cohort(root / "data")
    hilum.train(data, out=root / "run", assignments=FEW, **READING)
    return data, root / "run"


@pytest.mark.whole
def test_a_mask_is_told_by_scaling_and_shifting_and_stated_beside_images_alone(informed):
    _, run = informed
    model = hilum.load(run, "cpu")
    assert all(isinstance(head, Dense) for head in model.task.heads.values())
    assert model.networks.architecture["fusion"]["method"] == "film"
    again = torch_networks.build_module(
        model.task, model.networks.architecture
    )  # what a record names is what was trained
    assert any("telling" in name for name, _ in again.named_parameters())
    record = json.loads((run / "evaluation" / "covariates.json").read_text())
    assert record["rows"] == []  # a table has no masks
    assert {row["metric"] for row in record["added"]["to the images"]} >= {"dice"}
    assert "what the covariates add to the images" in (run / "report.html").read_text()


@pytest.mark.whole
@pytest.mark.parametrize("name", ["pyramid", "yolox", "fcos", "retinanet", "faster_rcnn"])
def test_boxes_get_covariates_and_are_compared_with_those_of_images_alone(name, tmp_path):
    data, rng = trained.smears(tmp_path / "smears", 24), np.random.default_rng(0)
    (data / "patients.csv").write_text("case,age\n" + "\n".join(f"smear{n:02},{rng.normal(60):.2f}" for n in range(24)))
    size = {"network.size": {"width": 8, "widest": 16, "strides": [[1, 1], [2, 2], [2, 2]]}}
    asked = {**trained.FEW_STEPS, **(size if name in ("pyramid", "yolox") else {}), "network.name": name}
    hilum.train(data, out=tmp_path / "run", covariates="age", assignments=asked, device="cpu", threads=1)
    model = hilum.load(tmp_path / "run", "cpu")
    assert (model.networks.architecture["fusion"]["method"], model.networks.context.names) == ("film", ("age",))
    record = json.loads((tmp_path / "run" / "evaluation" / "covariates.json").read_text())
    assert record["rows"] == []  # a table places no box
    assert {row["metric"] for row in record["added"]["to the images"]} >= {"ap50"}


@pytest.mark.whole
def test_another_covariate_is_another_answer_in_onnx_as_in_torch(informed, tmp_path):
    packaged = hilum.package(informed[1], out=tmp_path / "package", backends=())
    ours, theirs = hilum.load(informed[1], "cpu"), hilum.load(packaged.out, "cpu", backend="onnx")
    images = np.random.default_rng(0).normal(size=(1, 1, *ours.inference.patch)).astype(np.float32)
    bright, dim = (ours.networks.context.vector({"which": one})[0][None] for one in ("bright", "dim"))
    assert np.abs(ours.networks.run(images, bright)["mask"] - ours.networks.run(images, dim)["mask"]).max() > 1e-6
    for one in (bright, dim):
        assert_allclose(theirs.networks.run(images, one)["mask"], ours.networks.run(images, one)["mask"], atol=1e-4)
    assert (packaged.out / "scripts" / "networks" / "context_fusion.py").is_file()
