"""What another package adds through entry points works in every verb, without an edit of ours."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import forked

# One file each, as docs/extending.md shows them.
EXAMPLES = {
    "networks": ("tiny", "network:TINY"),
    "tasks": ("grading", "task:Grading"),
    "formats": ("tinyimage", "format:ENTRY"),
    "references": ("side", "reference:SIDE"),
    "objectives": ("sureness", "objective:Sureness"),
    "backends": ("double", "backend:BACKEND"),
}
MOST_LINES = 40
FOLDER = Path(__file__).parent / "additions"
SCRIPT = """
import json
from pathlib import Path

import numpy as np

import hilum
from hilum.values import Geometry, Image

for n in range(24):
    pixels = np.random.default_rng(n).normal(60 + 120 * (n % 2), 20, (1, 16, 16)).clip(0, 255).astype(np.uint8)
    Path("data", f"grade{n % 2}").mkdir(parents=True, exist_ok=True)
    hilum.write(Image(pixels, Geometry.of_pixels((16, 16))), f"data/grade{n % 2}/{n:02}.tiny")
few = {"training.steps": 4, "training.validations": 1, "training.batch": 2}
terms = {"objectives.terms": ["supervised", "sureness"], "sureness.temperature": 2.0}
unlabelled = ["data/grade0"]
own = {"task": "grading", "unlabelled": unlabelled, "assignments": {**few, **terms}}
run = hilum.train("data", out="run", device="cpu", threads=1, **own)
assert "loss_sureness" in Path("run/log.csv").read_text()
model = hilum.load("run", "cpu")
made = model.networks.architecture
assert (model.task.name, made["name"], made["size"]) == ("grading", "tiny", {})
assert "tiny" in hilum.list_networks()
predicted = hilum.predict("run", "data/grade0/00.tiny", out="predicted", device="cpu")
assert list(predicted.table.columns)[2:5] == ["predicted", "probability_grade0", "probability_grade1"]
assert hilum.evaluate("run", "data", out="evaluated", device="cpu").which == "the test cases of the run's own data"
packaged = hilum.package("run", out="packaged", backends=())
assert packaged.onnx == {"exported": False, "because": "nobody has tried it"}
image = hilum.read("data/grade0/00.tiny")
assert hilum.load("packaged", "cpu").predict(image).probabilities == model.predict(image).probabilities
assert Path("packaged/scripts/networks/network.py").is_file()
doubled = hilum.predict("packaged", "data/grade0/00.tiny", out="doubled", device="cpu", backend="double")
assert abs(doubled.table["probability_grade0"] - predicted.table["probability_grade0"]).max() < 1e-4
rows = [f"data/grade{n % 2}/{n:02}.tiny,p{n},{('left', 'right')[n % 2]}" for n in range(24)]
Path("cases.csv").write_text("\\n".join(["image,patient,where", *rows]))
found = hilum.check("cases.csv", column={"side": "where"}, out="checked", threads=1)
assert found.facts["sides"] == "12 left, 12 right"
grading = Path("packaged/scripts/foreign/task.py").read_text()
assert "from ..tasks.classification.question import Classification" in grading
assert "def decisions" not in grading
required = json.loads(Path("packaged/configs/metadata.json").read_text())["required_packages_version"]
assert not {"foreign", "pandas", "matplotlib"} & set(required), required
for chosen in ("resnet", "unet"):
    other = {**few, "network.name": chosen}
    planned = hilum.plan("data", task="classification", device="cpu", assignments=other)
    assert planned.plan["network.name"] == chosen
planned = hilum.plan("data", task="classification", device="cpu", assignments={"network.name": "tiny"})
assert planned.plan["network.size"] == {}
"""


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder as pip leaves it of a package with all examples."""
    package, about = tmp_path / "site" / "foreign", tmp_path / "site" / "foreign-1.0.dist-info"
    for folder in (package, about):
        folder.mkdir(parents=True)
    (package / "__init__.py").touch()
    points = []
    for kind, (name, target) in EXAMPLES.items():
        shutil.copy(FOLDER / f"{target.partition(':')[0]}.py", package)
        points.append(f"[hilum.{kind}]\n{name} = foreign.{target}\n")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("".join(points))
    return tmp_path


def test_what_another_package_adds_goes_from_data_to_a_prediction(foreign, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(foreign / "site"))
    done = forked.run("-c", SCRIPT, folder=foreign)
    assert done.returncode == 0, done.stderr


def test_every_example_is_short_and_stands_on_the_page_on_extending():
    page = (FOLDER.parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
    files = sorted(FOLDER.glob("*.py"))
    assert {f"{target.partition(':')[0]}.py" for _, target in EXAMPLES.values()} <= {file.name for file in files}
    for file in files:
        assert f'--8<-- "tests/additions/{file.name}"' in page
        assert len(file.read_text(encoding="utf-8").splitlines()) <= MOST_LINES, file.name
