"""A family of networks with a capability that none of ours has takes one new file and one line in an index.

Its file is `toys/rings.py`, a package of somebody else's; the line is the entry point that is written below.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

import hilum
import trained
from hilum.networks import factory
from packages import bundle_checked_and_run, installed

TOY = Path(__file__).parent / "toys" / "rings.py"
POINTS = "[hilum.networks]\nrings = rings:RINGS\n"
GIVEN = {"training.steps": 40, "training.validations": 2, "training.batch": 2, "network.name": "rings"}


@dataclass(frozen=True)
class Promised:
    """Volumes, the run of the family on them, and the package of the run."""

    data: Path
    run: Path
    package: Path


@pytest.fixture(scope="module")
def promised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Promised]:
    """The family installed, trained and packaged; tests only read what it left."""
    root = tmp_path_factory.mktemp("promise")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(installed(root / "site", TOY, POINTS)))
        importlib.invalidate_caches()
        data = trained.blobs(root / "data")
        given = {"labels": trained.LABELS, "device": "cpu", "threads": 1, "assignments": GIVEN}
        hilum.train(data, out=root / "run", **given)
        hilum.package(root / "run", out=root / "packaged", backends=())
        yield Promised(data, root / "run", root / "packaged")
    sys.modules.pop("rings", None)


def test_no_file_of_ours_has_heard_of_it():
    ours = Path(hilum.__file__).parent
    assert not [path for path in ours.rglob("*.py") if "rings:RINGS" in path.read_text() or path.stem == "rings"]


def test_it_is_in_the_index_and_the_catalogue_finds_out_by_itself_what_it_can_answer(promised):
    assert "rings" in hilum.list_networks()
    found = factory.family_members(["rings"])
    assert [one.axes for one in found] == [1, 2, 3]
    assert {one.tasks for one in found} == {("boxes", "dense", "objects", "vector")}
    assert {one.paper for one in found} == {"arXiv:1511.07122"}


def test_its_size_follows_the_images_with_its_own_reason(promised):
    made = hilum.plan(
        promised.data, labels=trained.LABELS, device="cpu", threads=1, assignments={"network.name": "rings"}
    ).plan
    assert made["network.size"] == {"reaches": [1, 2, 4], "margin": 0.5}
    assert made.decision("network.size").because.startswith("patch (16, 16, 16): 3 rings on the cpu")


def test_no_family_of_ours_is_taught_each_voxel_by_a_loss_of_its_own(promised):
    ours = [factory.family_of(name) for name in factory.own_families()]
    assert not [family for family in ours if family.has_loss and "dense" in family.answers]
    toy = factory.family_of("rings")
    assert toy.has_loss
    assert toy.sees_targets


def test_it_learns_by_its_own_loss(promised):
    losses = pd.read_csv(promised.run / "log.csv")["loss"]
    assert losses.iloc[-5:].mean() < 0.9 * losses.iloc[:5].mean()
    assert (promised.run / "report.html").is_file()


def test_its_package_has_a_copy_of_its_file_and_needs_no_other(promised, monkeypatch):
    copy = promised.package / "scripts" / "networks" / "rings.py"
    assert "class Rings(nn.Module)" in copy.read_text()
    image = promised.data / "images" / "case00.nii.gz"
    ours = np.asarray(hilum.load(promised.run, "cpu").predict(image).data)
    assert_array_equal(np.asarray(hilum.load(promised.package, "cpu").predict(image).data), ours)
    onnx = hilum.load(promised.package, "cpu", backend="onnx").predict(image)
    assert (np.asarray(onnx.data) == ours).mean() > 0.999
    record = json.loads((promised.package / "hilum" / "model.json").read_text())
    assert record["network"]["name"] == "rings"


@pytest.mark.whole
def test_its_package_runs_under_monai_where_neither_it_nor_hilum_is(promised, tmp_path):
    done = bundle_checked_and_run(promised.package, promised.data / "images", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    ours = hilum.predict(promised.run, promised.data / "images" / "case00.nii.gz", device="cpu")
    theirs = hilum.read(tmp_path / "results" / "case00.nii.gz").data[0]
    assert_array_equal(theirs, np.asarray(next(iter(ours.predictions.values())).data))
