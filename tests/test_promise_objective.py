"""An objective with a part and a queue, which none of ours has, takes one new file and one line in an index.

Its file is `toys/centre.py`, a package of somebody else's; the line is the entry point that is written below.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

import hilum
import trained
from hilum.errors import PlanError
from hilum.objectives import objective_catalogue
from hilum.planning import plan_file
from packages import installed

TOY = Path(__file__).parent / "toys" / "centre.py"
POINTS = "[hilum.objectives]\ncentre = centre:Centre\n"
GIVEN = {"objectives.terms": ["supervised", "centre"], "training.validations": 3, "centre.steps": 2}


@dataclass(frozen=True)
class Promised:
    """Pictures with and without classes, a run that nobody stopped, and one that was killed and resumed."""

    data: Path
    unlabelled: Path
    run: Path
    resumed: Path


@pytest.fixture(scope="module")
def promised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Promised]:
    """The objective installed, trained twice and once resumed; tests only read what it left."""
    root = tmp_path_factory.mktemp("promise")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(installed(root / "site", TOY, POINTS)))
        importlib.invalidate_caches()
        data = trained.pictures(root / "data", 20)
        unlabelled = trained.pictures(root / "unlabelled", 6, classes=("a", "b"), first=100)
        trained.classifying(data, root / "run", unlabelled=[unlabelled], assignments=GIVEN)

        def pressed(moment):
            if moment.step == 3:
                signal.raise_signal(signal.SIGINT)

        with trained.watching(pressed), pytest.raises(KeyboardInterrupt):
            trained.classifying(data, root / "resumed", unlabelled=[unlabelled], assignments=GIVEN)
        hilum.train(resume=root / "resumed")
        yield Promised(data, unlabelled, root / "run", root / "resumed")
    sys.modules.pop("centre", None)


def test_no_file_of_ours_has_heard_of_it():
    ours = Path(hilum.__file__).parent
    assert not [path for path in ours.rglob("*.py") if "centre:Centre" in path.read_text()]


def test_it_is_in_the_index_and_in_the_plan_with_its_own_reasons(promised):
    assert "centre" in objective_catalogue.objective_names()
    plan = plan_file.read_plan(promised.run / "plan.yaml")
    assert (plan["centre.weight"], plan["centre.steps"]) == (0.5, 2)
    assert plan.decision("centre.weight").because.startswith("half of it is enough for")
    because = plan.decision("objectives.unlabelled_hash").because
    assert "6 unlabelled images; training leaves out 0 of patients and 0 near duplicates" in because


def test_it_refuses_what_it_cannot_teach(promised, tmp_path):
    with pytest.raises(PlanError, match="centre cannot teach segmentation: it centres vectors"):
        hilum.plan(
            trained.blobs(tmp_path / "blobs", 6),
            labels=trained.LABELS,
            device="cpu",
            assignments={**GIVEN, "objectives.unlabelled": [str(promised.unlabelled)]},
        )


def test_its_loss_is_logged_and_drawn_and_its_part_learns(promised):
    log = pd.read_csv(promised.run / "log.csv")
    assert log["loss_centre"].notna().all()
    np.testing.assert_allclose(log["loss"], log["loss_supervised"] + 0.5 * log["loss_centre"], rtol=1e-5)
    kept = load_file(promised.run / "checkpoints" / "last" / "objectives.safetensors")
    assert kept["parts.centre.queue"].shape == (2,)
    assert kept["parts.centre.queue"].all()
    assert (promised.run / "report.html").is_file()


def test_a_stopped_run_goes_on_to_the_bit(promised):
    for name in ("module", "weights", "optimiser", "objectives"):
        place = f"checkpoints/last/{name}.safetensors"
        assert (promised.run / place).read_bytes() == (promised.resumed / place).read_bytes(), name


@pytest.mark.whole
def test_its_package_holds_nothing_of_it_but_the_record(promised, tmp_path):
    hilum.package(promised.run, out=tmp_path / "packaged", backends=())
    assert not [path for path in (tmp_path / "packaged").rglob("*") if "objectives" in path.name]
    record = json.loads((tmp_path / "packaged" / "hilum" / "model.json").read_text())["record"]
    assert record["objectives"] == hilum.load(promised.run, "cpu").record["objectives"]


def test_the_record_of_the_model_says_what_taught_it(promised):
    record = hilum.load(promised.run, "cpu").record
    assert record["objectives"]["centre"] == {"weight": 0.5, "ramp": 0.0, "steps": 2}
    assert record["unlabelled"] == {"cases": 6, "of_target": 0, "left_out": {"patients": 0, "near_duplicates": 0}}
