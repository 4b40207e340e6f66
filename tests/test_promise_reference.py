"""A kind of reference that nobody here knows, in a format that nobody here knows, goes through every verb.

Its file is `toys/fingertip.py`, a package of somebody else's with a kind of reference, a format that holds it, a kind
of problem and a network with a kind of answer of its own; its lines in our indexes are the entry points below.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import hilum
from hilum.errors import DatasetError
from hilum.networks import factory
from hilum.quality import references
from hilum.tasks import task_catalogue
from hilum.verbs.train import Run
from packages import installed, no_export

TOY = Path(__file__).parent / "toys" / "fingertip.py"
POINTS = """
[hilum.references]
tip = fingertip:TIP
[hilum.formats]
tips = fingertip:ENTRY
[hilum.tasks]
indicating = fingertip:Pointing
[hilum.networks]
spotter = fingertip:SPOTTER
"""
HERE: Any = {"device": "cpu", "threads": 1}
FEW = {"training.steps": 2, "training.validations": 1, "training.batch": 2}


@dataclass(frozen=True)
class Promised:
    """Pictures with their tips, the run on them, and the package of the run."""

    data: Path
    run: Run
    package: Path

    @property
    def image(self) -> Path:
        return self.data / "finger03.tip"


def fingers(folder: Path, count: int = 20) -> Path:
    """Bright lines from the left edge to their tips, one file each."""
    toy = importlib.import_module("fingertip")
    folder.mkdir(parents=True)
    for n in range(count):
        rng = np.random.default_rng(n)
        tip = (float(rng.integers(4, 16)), float(rng.integers(4, 20)))
        pixels = rng.normal(60, 8, (20, 24))
        pixels[int(tip[0]), : int(tip[1]) + 1] = 220
        toy.write_tip(folder / f"finger{n:02}.tip", pixels.clip(0, 255), tip)
    return folder


@pytest.fixture(scope="module")
def promised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Promised]:
    """The toy installed, trained and packaged; tests only read what it left."""
    root = tmp_path_factory.mktemp("promise")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(installed(root / "site", TOY, POINTS)))
        importlib.invalidate_caches()
        data = fingers(root / "data")
        run = hilum.train(data, out=root / "run", assignments=FEW, **HERE)
        with no_export():
            hilum.package(root / "run", out=root / "packaged", backends=())
        yield Promised(data, run, root / "packaged")
    sys.modules.pop("fingertip", None)


def test_no_file_of_ours_knows_it():
    ours = Path(hilum.__file__).parent
    own = re.compile(r'"tips?"|fingertip|spotter|indicating"', re.IGNORECASE)
    assert not [path for path in ours.rglob("*.py") if own.search(path.read_text())]


def test_it_is_in_every_index(promised):
    assert "tip" in {kind.name for kind in references.reference_kinds()}
    assert "indicating" in task_catalogue.task_names()
    assert "spotter" in hilum.list_networks()


def test_no_family_of_ours_has_its_kind_of_answer(promised):
    own = factory.family_of("spotter").answers
    assert own == {"nearness"}
    assert not [name for name in factory.own_families() if factory.family_of(name).answers & own]


def test_its_data_are_checked_and_the_reference_is_stated_counted_outlined_and_recorded(promised, tmp_path):
    checked = hilum.check(promised.data, out=tmp_path / "check", threads=1)
    assert checked.passed
    assert checked.facts["references"] == "tip"
    assert re.fullmatch(r"20, in rows \d+ to \d+", checked.facts["tips"])
    assert checked.facts["read as"] == "20 images; tip in the images' own files"
    record = json.loads((tmp_path / "check" / "check.json").read_text())
    assert record["cases"]["finger03"]["references"]["tip"] == [*checked.dataset.cases[3].references["tip"]]
    page = (tmp_path / "check" / "check.html").read_text()
    assert "Where the tips lie" in page
    assert "Outlines: the reference." in page


def test_a_tip_outside_its_image_leaves_the_case_out_with_the_reason(promised, tmp_path):
    data = shutil.copytree(promised.data, tmp_path / "data")
    toy = importlib.import_module("fingertip")
    toy.write_tip(data / "finger03.tip", np.zeros((20, 24)), (3, 40))
    (data / "finger04.tip").write_bytes(b"TIPS1\n{}\n")
    checked = hilum.check(data, threads=1)
    assert checked.facts["cases"] == "18 of 20 can be used"
    problems = {problem.cases: problem.what for problem in checked.problems if problem.severity == "error"}
    assert problems[("finger03",)] == "the tip lies outside its image"
    assert "cannot be read as tips" in problems[("finger04",)]


def test_the_plan_samples_the_parts_alike_by_its_strata(promised, tmp_path, cli):
    done = cli("plan", promised.data, "--out", tmp_path / "plan.yaml", "--device", "cpu", "--threads", 1)
    assert done.code == 0, done.err
    plan = hilum.plan(promised.data, folds=2, **HERE).plan
    assert "tips of both halves" in plan.decision("split.method").because
    assert (plan["task.name"], plan["network.name"]) == ("indicating", "spotter")


def test_it_learns_by_the_loss_of_its_network_and_is_reported(promised):
    losses = pd.read_csv(promised.run.out / "log.csv")["loss"]
    assert np.isfinite(losses).all()
    [row] = promised.run.rows
    assert (row.metric, row.estimate.unit) == ("tip_distance", "pixels")
    page = promised.run.report.read_text()
    assert "Tip distance was named primary before training, with its radius;" in page
    assert "It rises where the tip is" in page
    view = (promised.run.out / "evaluation" / "views" / "1.html").read_text()
    assert "reference" in view


def test_it_is_evaluated_and_predicted(promised, cli, tmp_path):
    done = cli("evaluate", promised.run.out, promised.data, "--out", tmp_path / "scored", "--device", "cpu")
    assert done.code == 0, done.err
    assert "Tip distance " in done.out
    done = cli("predict", promised.run.out, promised.data, "--out", tmp_path / "out", "--device", "cpu")
    assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert list(table.columns) == ["case", "image", "tip_row", "tip_column", "gate_p", "abstained"]
    assert len(table) == 20


def test_its_package_predicts_the_same_and_says_what_it_learned_from(promised):
    ours = hilum.load(promised.run.out, "cpu").predict(promised.image)
    theirs = hilum.predict(promised.package, promised.image, device="cpu")
    [row] = theirs.table.to_dict("records")
    assert ours.values == {"row": row["tip_row"], "column": row["tip_column"]}
    assert (promised.package / "scripts" / "networks" / "fingertip.py").is_file()
    record = json.loads((promised.package / "hilum" / "model.json").read_text())
    assert record["record"]["fingerprint"]["references"] == {"tip": {"cases": 13}}  # that trained


def test_its_pictures_can_be_looked_at(promised, tmp_path, cli):
    done = cli("view", promised.image, "--out", tmp_path / "finger.html")
    assert done.code == 0, done.err
    assert "finger03.tip" in (tmp_path / "finger.html").read_text()


def test_a_table_can_state_it_in_a_column_of_its_name(promised, tmp_path):
    rows = ["image,patient,where", *(f"{promised.data}/finger{n:02}.tip,p{n},{n + 4} 8" for n in range(4))]
    (tmp_path / "cases.csv").write_text("\n".join(rows))
    dataset = hilum.check(tmp_path / "cases.csv", column={"tip": "where"}, threads=1).dataset
    assert [case.references["tip"] for case in dataset] == [(n + 4.0, 8.0) for n in range(4)]
    (tmp_path / "cases.csv").write_text(rows[0] + "\n" + rows[1].replace("4 8", "thumb"))
    with pytest.raises(DatasetError, match="column where holds 'thumb', which is not a tip"):
        hilum.check(tmp_path / "cases.csv", column={"tip": "where"}, threads=1)


def test_a_file_without_it_says_what_is_wrong(promised, tmp_path):
    (tmp_path / "finger00.tip").write_bytes(b"TIPS1\n{}\n")
    with pytest.raises(DatasetError, match="it lacks 'shape'"):
        hilum.plan(tmp_path, **HERE)
