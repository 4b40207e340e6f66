"""What another package adds through entry points works in every verb, without an edit of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

import forked

NETWORK = """
from torch import nn

from isocenter.networks import Family


class Tiny(nn.Module):
    def __init__(self, channels, vectors, width=3):
        super().__init__()
        self.body = nn.Conv2d(channels, width, 3, padding=1)
        self.vectors = nn.ModuleDict({name: nn.Linear(width, size) for name, size in vectors.items()})

    def forward(self, images, context=None):
        pooled = self.body(images).relu().flatten(2).mean(dim=2)
        return {name: layer(pooled) for name, layer in self.vectors.items()}


def build(channels, spatial_dims, vectors, **size):
    return Tiny(channels, vectors, **size)


TINY = Family(build, answers=frozenset({"vector"}), without_onnx="nobody has tried it")
"""
TASK = """
from dataclasses import dataclass
from typing import ClassVar

from isocenter.tasks.classification.question import Classification
from isocenter.values import Decision


@dataclass(frozen=True)
class Grading(Classification):
    name: ClassVar[str] = "grading"

    def decisions(self, fingerprint):
        return super().decisions(fingerprint) | {"network.name": Decision("tiny", "all that a grade needs")}
"""
FORMAT = """
import numpy as np

from isocenter.files import Entry, Format
from isocenter.values import Geometry, Image

MAGIC = b"TINYIMG1"


def read(path, options):
    pixels = np.frombuffer(path.read_bytes(), np.uint8, offset=len(MAGIC)).reshape(1, 16, 16)
    return {"image": Image(pixels, Geometry.of_pixels((16, 16)))}


def write(image, path):
    path.write_bytes(MAGIC + image.data.astype(np.uint8).tobytes())


FORMAT = Format("tinyimage", read, write)
ENTRY = Entry("foreign.pixels:FORMAT", (".tiny",), ((0, MAGIC),))
"""
SCRIPT = """
import json
from pathlib import Path

import numpy as np

import isocenter
from isocenter.values import Geometry, Image

for n in range(24):
    pixels = np.random.default_rng(n).normal(60 + 120 * (n % 2), 20, (1, 16, 16)).clip(0, 255).astype(np.uint8)
    Path("data", f"grade{n % 2}").mkdir(parents=True, exist_ok=True)
    isocenter.write(Image(pixels, Geometry.of_pixels((16, 16))), f"data/grade{n % 2}/{n:02}.tiny")
few = {"training.steps": 4, "training.validations": 1, "training.batch": 2}
run = isocenter.train("data", task="grading", out="run", device="cpu", threads=1, assignments=few)
model = isocenter.load("run", "cpu")
assert (model.task.name, model.network["name"], model.network["size"]) == ("grading", "tiny", {})
assert "tiny" in isocenter.list_networks()
predicted = isocenter.predict("run", "data/grade0/00.tiny", out="predicted", device="cpu")
assert list(predicted.table.columns)[2:5] == ["predicted", "probability_grade0", "probability_grade1"]
assert isocenter.evaluate("run", "data", out="evaluated", device="cpu").which == "the test cases of the run's own data"
packaged = isocenter.package("run", out="packaged", backends=())
assert packaged.onnx == {"exported": False, "because": "nobody has tried it"}
image = isocenter.read("data/grade0/00.tiny")
assert isocenter.load("packaged", "cpu").predict(image).probabilities == model.predict(image).probabilities
assert Path("packaged/scripts/networks/tiny.py").is_file()
grading = Path("packaged/scripts/foreign/grading.py").read_text()
assert "from ..tasks.classification.question import Classification" in grading
assert "def decisions" not in grading
required = json.loads(Path("packaged/configs/metadata.json").read_text())["required_packages_version"]
assert not {"foreign", "pandas", "matplotlib"} & set(required), required
for chosen in ("resnet", "unet"):
    other = {**few, "network.name": chosen}
    planned = isocenter.plan("data", task="classification", device="cpu", assignments=other)
    assert planned.plan["network.name"] == chosen
planned = isocenter.plan("data", task="classification", device="cpu", assignments={"network.name": "tiny"})
assert planned.plan["network.size"] == {}
"""


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder as pip leaves it of a package with a network, a task and a format."""
    package, about = tmp_path / "site" / "foreign", tmp_path / "site" / "foreign-1.0.dist-info"
    for folder in (package, about):
        folder.mkdir(parents=True)
    for name, text in (("__init__", ""), ("tiny", NETWORK), ("grading", TASK), ("pixels", FORMAT)):
        (package / f"{name}.py").write_text(text)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[isocenter.networks]\ntiny = foreign.tiny:TINY\n"
        "[isocenter.tasks]\ngrading = foreign.grading:Grading\n"
        "[isocenter.formats]\ntinyimage = foreign.pixels:ENTRY\n"
    )
    return tmp_path


def test_a_network_a_task_and_a_format_of_another_package_go_from_data_to_a_prediction(foreign, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(foreign / "site"))
    done = forked.run("-c", SCRIPT, folder=foreign)
    assert done.returncode == 0, done.stderr
