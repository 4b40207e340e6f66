"""A pulse beside a picture, from a table of times to a package: whether it rises or falls is half of the class."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest

import hilum
import trained
from hilum.errors import DatasetError
from hilum.layouts.cases import table_join
from hilum.runtime.bundle import formats, inference
from hilum.values.covariate_values import Course

FEW = {
    **trained.FEW_STEPS,
    "network.size": trained.SMALL_RESNET,
    "training.batch": 8,
    "network.context": ["pulse", "sex"],
    "evaluation.image_only": False,
}
READING = {"device": "cpu", "threads": 1}


def cohort(root: Path, count: int = 40) -> Path:
    """Pictures of two classes, whose patients' pulse was read at uneven times; of every tenth it was not."""
    rows, people = [], []
    for n in range(count):
        rng = np.random.default_rng(n)
        ill, rises = n % 2, (n % 2) ^ (rng.random() < 0.1)
        folder = root / ("ill" if ill else "well")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.normal(100 + 5 * ill, 20, (16, 16)).clip(0, 255).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{n:02}.png")
        people.append((f"{n:02}.png", "FM"[rng.integers(2)]))
        for at in sorted(rng.uniform(0, 60, 12)) if n % 10 != 3 else ():
            slope = (at - 30) * (1 if rises else -1)
            rows.append((f"{n:02}", round(at, 2), round(80 + slope + rng.normal(0, 3), 1)))
    pd.DataFrame(rows, columns=["case", "time (min)", "pulse"]).to_csv(root / "vitals.csv", index=False)
    pd.DataFrame(people, columns=["image", "sex"]).to_csv(root / "people.csv", index=False)
    return root


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Data, and a run on them that is told pulse and sex; tests only read them."""
    root = tmp_path_factory.mktemp("read")
    data = cohort(root / "data")
    hilum.train(data, out=root / "run", assignments=FEW, **READING)
    return data, root / "run"


@pytest.mark.whole
def test_the_plan_says_over_which_time_in_how_many_stretches(read):
    plan = hilum.plan(read[0], assignments=FEW, **READING).plan
    assert plan["network.context"]["pulse"]["stretches"] == 12
    assert plan["network.context"]["pulse"]["unit"] == "s"
    assert "pulse is a course: the mean of 12 stretches" in plan.decision("network.context").because
    assert hilum.load(read[1], "cpu").networks.architecture["fusion"]["courses"] == [1, 12]


@pytest.mark.whole
def test_what_the_courses_tell_alone_stands_beside_the_model(read):
    single = json.loads((read[1] / "evaluation" / "covariates.json").read_text())["rows"]
    assert next(row["value"] for row in single if row["metric"] == "auroc") > 0.7


@pytest.mark.whole
def test_a_prediction_takes_tables_of_people_and_of_times(read, tmp_path):
    data, run = read
    picture = data / "well" / "00.png"
    (tmp_path / "people.csv").write_text("case,sex\n00,F\n")
    rising = [(f"00,{at},{60 + at}") for at in range(0, 60, 5)]
    (tmp_path / "vitals.csv").write_text("\n".join(["case,minutes,pulse", *rising]))
    tables = [tmp_path / "people.csv", tmp_path / "vitals.csv"]
    found = hilum.predict(run, picture, covariates=tables, device="cpu")
    assert not found.problems
    pairs = [(60.0 * at, 60 + at) for at in range(0, 60, 5)]
    by_hand = hilum.predict(run, picture, covariates={"sex": "F", "pulse": pairs}, device="cpu")
    assert by_hand.table["probability_ill"].tolist() == found.table["probability_ill"].tolist()
    (tmp_path / "unknown.csv").write_text("case,time,pulse\n00,0,80\n00,1,82\n")
    with pytest.raises(DatasetError, match="its times are without a unit"):
        hilum.predict(run, picture, covariates=tmp_path / "unknown.csv", device="cpu")
    problems = hilum.predict(run, picture, covariates=tables[0], device="cpu").problems
    assert any("pulse is missing: taken as never read" in one.what for one in problems)


@pytest.mark.whole
def test_a_package_in_onnx_says_the_same_of_a_table_of_times(read, tmp_path):
    data, run = read
    packaged = hilum.package(run, out=tmp_path / "package", backends=())
    table = tmp_path / "vitals.csv"
    table.write_text("case,time (min),pulse,sex\n00,5,60,F\n00,50,95.5,F\n")
    given = {"covariates": table, "device": "cpu"}
    ours = hilum.predict(run, data / "well" / "00.png", **given)
    onnx = hilum.predict(packaged.out, data / "well" / "00.png", backend="onnx", **given)
    assert onnx.table["probability_ill"].tolist() == pytest.approx(ours.table["probability_ill"].tolist(), abs=1e-5)


def test_a_bundle_reads_the_same_of_a_table_of_times(tmp_path):
    table = tmp_path / "vitals.csv"
    table.write_text("case,time (min),pulse,sex\na.png,5,60,F\nb.png,7,99,M\na.png,50,95.5,F\nb.png,58,61,M\n")
    [ours, other] = table_join.covariates_of_cases(table, [("a", "a"), ("b", "b")])[0]
    theirs = inference.read_covariates(table, formats.pictures())
    assert ours["pulse"] == Course((300.0, 3000.0), (60.0, 95.5), "s")
    assert {case: {name: one[name] for name in ours} for case, one in theirs.items()} == {"a": ours, "b": other}
    table.write_text("case,time,pulse\na.png,5,60\na.png,soon,99\n")
    with pytest.raises(DatasetError, match="'soon' is not a time, in column time"):
        inference.read_covariates(table, formats.pictures())
