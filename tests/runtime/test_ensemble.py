from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch

import isocenter
from isocenter.runtime import Inference, Model, together
from packages import bundle_checked_and_run, classifying, packed

torch.set_num_threads(1)

SHARES = (0.3, 0.7)


def two_families() -> Model:
    """A ResNet and a LeNet that count 3 to 7."""
    members = [classifying(), classifying("lenet", maps=[4, 8], hidden=[16, 8])]
    return together(members, members[0].task, Inference((32, 32)), SHARES)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return packed(two_families(), tmp_path_factory.mktemp("package") / "two")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32)).astype(np.uint8)
    path = tmp_path_factory.mktemp("images") / "noise.png"
    PIL.Image.fromarray(pixels).save(path)
    return path


def by_hand(image) -> float:
    """The weighted mean of what each member says alone."""
    both = two_families()
    alone = [replace(both, run=one).predict(image).probabilities["malignant"] for one in both.members]
    return sum(share * one for share, one in zip(SHARES, alone, strict=True))


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_package_of_two_families_counts_its_members_by_their_shares(package, image, backend):
    found = isocenter.load(package, "cpu", backend=backend)
    assert found.predict(image).probabilities["malignant"] == pytest.approx(by_hand(image), abs=1e-5)
    if backend == "torch":
        assert found.shares == SHARES
        assert [one["name"] for one in found.networks] == ["resnet", "lenet"]


def test_one_network_of_such_a_package_is_of_its_own_family(package, image):
    both = two_families()
    alone = isocenter.load(package, "cpu", fold=1)
    assert type(alone.run.module) is type(both.members[1].module)
    assert alone.predict(image).probabilities == pytest.approx(
        replace(both, run=both.members[1]).predict(image).probabilities, abs=1e-6
    )


def test_the_bundle_of_two_families_runs_without_isocenter_and_says_the_same(package, image, tmp_path):
    done = bundle_checked_and_run(package, image.parent, tmp_path / "out" / "results")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "results" / "predictions.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert float(row["probability_malignant"]) == pytest.approx(by_hand(image), abs=1e-5)
    assert "resnet, lenet" in (package / "docs" / "README.md").read_text()
