"""A training from the weights of another model: what that one had seen is known, and said wherever figures stand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

import hilum
import trained
from hilum.planning import plan_file
from hilum.scoring import data_record
from packages import no_export


def seen_by(run: Path) -> set[str]:
    """Hashes of the contents of the cases that trained or selected a run of one training."""
    table, rows = pd.read_csv(run / "split.csv", dtype=str), json.loads((run / "data.json").read_text())["rows"]
    used = set(table.loc[table["split"] != "test", "case"])
    return {row["content"] for row in rows if row["case"] in used}


@pytest.fixture(scope="module")
def child(segmented, tmp_path_factory):
    """A run from the weights of another on the same cases, split anew, so that it tests what the other had seen."""
    few = {"training.steps": 2, "training.validations": 1, "split.seed": 3}
    out = tmp_path_factory.mktemp("lineage") / "run"
    return trained.segmenting(segmented.data, out, start=segmented.out, assignments=few)


def test_a_model_of_a_parent_that_saw_its_test_cases_says_so_in_split_headline_and_report(child, segmented):
    tests = [
        set(table.loc[table["split"] == "test", "case"])
        for table in (pd.read_csv(run / "split.csv", dtype=str) for run in (child.out, segmented.out))
    ]
    shared = len(tests[0] - tests[1])
    assert shared
    note = (
        f"{shared} of {len(tests[0])} test cases had trained or selected a model that this one started or learnt from"
    )
    assert note in str(child)
    assert note in str(plan_file.read_plan(child.out / "plan.yaml").decision("split.method").because)
    assert note in (child.out / "report.html").read_text()
    evaluated = hilum.evaluate(child.out, segmented.data, device="cpu", labels=trained.LABELS)
    assert note in str(evaluated)


def test_what_was_seen_is_inherited_from_model_to_model(child, segmented, tmp_path):
    parent, own = seen_by(segmented.out), seen_by(child.out)
    assert data_record.read_data_record(child.out).inherited >= parent
    for start in (
        child.out,
        child.out / "checkpoints" / "best",
        child.out / "checkpoints" / "best" / "weights.safetensors",
    ):
        assert data_record.trace_lineage([start]).seen >= parent | own
        assert data_record.trace_lineage([start]).unknown == ()


def test_a_package_holds_what_its_parents_had_seen(child, segmented, tmp_path):
    with no_export():
        package = hilum.package(child.out, out=tmp_path / "child.zip", backends=()).out
    assert data_record.trace_lineage([package]).seen >= seen_by(segmented.out) | seen_by(child.out)
    with pytest.raises(hilum.HilumError, match="that trained this model"):
        hilum.evaluate(package, segmented.data, device="cpu", labels=trained.LABELS)


def test_a_model_that_starts_from_nothing_has_no_lineage(segmented):
    record = data_record.read_data_record(segmented.out)
    assert (record.inherited, record.unknown) == (frozenset(), ())
    assert data_record.trace_lineage([]).seen == frozenset()


def test_of_a_file_of_weights_by_itself_nobody_knows_what_it_had_seen(segmented, tmp_path):
    weights = segmented.out / "checkpoints" / "best" / "weights.safetensors"
    single = Path(shutil.copy(weights, tmp_path / "downloaded.safetensors"))
    assert data_record.trace_lineage([single, segmented.out]).unknown == ("downloaded.safetensors",)
    assert data_record.trace_lineage([single, segmented.out]).seen >= seen_by(segmented.out)
