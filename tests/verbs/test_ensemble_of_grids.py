"""Runs that see images on grids of their own as one model: averaged on the grid of the image."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import hilum
import trained
from hilum.errors import IntegrityError, UsageError
from hilum.runtime import record_files

torch.set_num_threads(1)
COARSE = {"preprocessing.spacing": [2.0, 2.0, 1.7], "inference.patch": [8, 8, 8], "training.patch": [8, 8, 8]}


@pytest.fixture(scope="module")
def coarse(segmented, tmp_path_factory) -> Path:
    """A run on a coarser grid, with smaller windows."""
    out = tmp_path_factory.mktemp("runs") / "coarse"
    assignments = {**trained.TWO_STEPS, "network.name": "unet", "network.size": trained.SMALL_UNET, **COARSE}
    hilum.train(segmented.data, out=out, labels=trained.LABELS, assignments=assignments, device="cpu", threads=1)
    return out


@pytest.fixture(scope="module")
def joined(segmented, coarse, tmp_path_factory):
    """An ensemble of both."""
    out = tmp_path_factory.mktemp("ensembles") / "joined"
    return hilum.ensemble([segmented.out, coarse], out=out, device="cpu")


def test_runs_of_unlike_grids_are_tested_together_and_load_as_one_model(joined, segmented, coarse):
    assert joined.weights == {"run": 0.5, "coarse": 0.5}
    assert joined.rows and "coarse less ensemble" in joined.report.read_text()
    both, image = hilum.load(joined.out, device="cpu"), sorted((segmented.data / "images").iterdir())[0]
    assert [one.preprocessing.spacing for one in both.members][1] == (2.0, 2.0, 1.7)
    assert both.uncertainty.name == "members"
    assert np.asarray(both.predict(image).data).shape == (16, 16, 16)
    alone = hilum.load(joined.out, device="cpu", fold=1)
    assert (np.asarray(alone.predict(image).data) == np.asarray(hilum.load(coarse).predict(image).data)).all()
    with pytest.raises(UsageError, match=r"grids of their own\. Explain one of its members: --fold 0 to 1"):
        hilum.explain(joined.out, image, out=joined.out.parent / "maps", method="occlusion")


def test_a_list_of_members_that_names_some_twice_is_refused(joined, tmp_path):
    changed = shutil.copytree(joined.out, tmp_path / "changed")
    record = json.loads((changed / "members" / "ensemble.json").read_text())
    assert record["apart"] == [[0], [1]]
    record["apart"] = [[0], [0]]
    (changed / "members" / "ensemble.json").write_text(json.dumps(record))
    record_files.seal_folder(changed / "members")
    with pytest.raises(IntegrityError, match=r"says \[\[0\], \[0\]\] of 2 networks"):
        hilum.load(changed, device="cpu")


@pytest.mark.whole
def test_their_package_holds_each_as_a_package_and_answers_alike_in_torch_and_onnx(joined, segmented, tmp_path):
    packaged = hilum.package(joined.out, out=tmp_path / "package", backends=())
    assert packaged.networks == 2
    assert "MONAI does not run this ensemble" in repr(packaged)
    config = json.loads((packaged.out / "configs" / "inference.json").read_text())
    assert "MONAI does not run this ensemble" in config["run"][0]
    assert (packaged.out / "members" / "1" / "models" / "model.onnx").is_file()
    image = sorted((segmented.data / "images").iterdir())[0]
    expected = hilum.load(joined.out, device="cpu").predict(image)
    for backend in ("torch", "onnx"):
        found = hilum.load(packaged.out, device="cpu", backend=backend).predict(image)
        assert (np.asarray(found.data) == np.asarray(expected.data)).mean() > 0.9999
        assert found.confidence.expected == pytest.approx(expected.confidence.expected, abs=1e-4)
    single = hilum.load(packaged.out, device="cpu", fold=1).predict(image)
    assert not (np.asarray(single.data) == np.asarray(expected.data)).all()
