"""Two pictures of a patient, of which some lack one: from a table with blanks to a package without Hilum."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest

import hilum
import trained
from hilum.errors import DatasetError
from hilum.evaluation import case_tables
from hilum.runtime import Preprocessing
from hilum.scoring import case_scoring, image_subsets
from hilum.scoring.answered_cases import ScoringFold
from hilum.scoring.case_scoring import ScoredCases
from hilum.scoring.image_subsets import Subsets
from hilum.tasks.classification.question import Classification
from hilum.values import Case, Geometry, Image, Prediction
from packages import CONFIG, without_hilum

COLUMN = {"image:CT": "ct", "image:PT": "pt", "label": "state", "patient": "person"}
SIZE = {"strides": [[1, 1], [2, 2]], "width": 4, "modalities": 2, "method": "intermediate"}
FEW = {**trained.FEW_STEPS, "network.name": "fusion", "network.size": SIZE, "training.batch": 8}
READING = {"column": COLUMN, "device": "cpu", "threads": 1}


def cohort(root: Path, count: int = 30) -> Path:
    """A bright square in the one and a dark one in the other make the class; each third case lacks one of them."""
    root.mkdir(parents=True)
    rows = ["id,ct,pt,state,person"]
    for n in range(count):
        rng, ill = np.random.default_rng(n), n % 2
        cells = []
        for channel, name in enumerate(("ct", "pt")):
            pixels = rng.normal(120, 20, (16, 16))
            pixels[4:10, 4:10] += (-1) ** channel * 80 * ill
            PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{name}{n:02}.png")
            cells.append("" if n % 6 == 3 * channel else f"{name}{n:02}.png")
        rows.append(f"c{n:02},{','.join(cells)},{'ill' if ill else 'well'},p{n}")
    (root / "table.csv").write_text("\n".join(rows))
    return root / "table.csv"


@pytest.fixture(scope="module")
def holed(tmp_path_factory):
    """The table, and a run on it; tests only read them."""
    root = tmp_path_factory.mktemp("holed")
    data = cohort(root / "data")
    hilum.train(data, out=root / "run", assignments=FEW, **READING)
    return data, root / "run"


@pytest.mark.whole
def test_every_subset_of_the_images_is_scored_with_its_interval(holed):
    _, run = holed
    rows = json.loads((run / "evaluation" / "images.json").read_text())["rows"]
    first = {tuple(row["images"]): row for row in rows if row["metric"] == rows[0]["metric"] and row["label"] == "all"}
    assert list(first) == [("CT",), ("PT",), ("CT", "PT")]
    table = pd.read_csv(run / "evaluation" / "cases.csv", dtype={"case": str})
    lacks = {one: sum(int(case[1:]) % 6 == 3 * n for case in table["case"]) for n, one in enumerate(("CT", "PT"))}
    assert first["CT",]["n"] == len(table) - lacks["CT"]
    assert first["CT", "PT"]["n"] == len(table) - sum(lacks.values())
    page = (run / "report.html").read_text()
    assert "By images" in page
    assert "CT + PT" in page


@pytest.mark.whole
def test_a_patient_who_lacks_an_image_gets_the_answer_of_the_others(holed, tmp_path):
    data, run = holed
    folder = data.parent
    table = tmp_path / "new.csv"
    both, one = f"{folder}/ct01.png,{folder}/pt01.png", f",{folder}/pt01.png"
    table.write_text(f"id,ct,pt\nboth,{both}\nlacks,{one}\n")
    columns = {"image:CT": "ct", "image:PT": "pt"}
    found = hilum.predict(run, table, column=columns, device="cpu").table.set_index("case")["probability_ill"]
    assert found["both"] != found["lacks"]
    whole = hilum.load(run, device="cpu")
    lone = hilum.read(folder / "pt01.png").with_image_name("PT")
    assert whole.predict(lone).probabilities["ill"] == pytest.approx(found["lacks"], abs=1e-6)
    with pytest.raises(DatasetError, match="has 1 channel"):
        whole.predict(hilum.read(folder / "pt01.png"))  # nothing says which of the two it is


@pytest.mark.whole
def test_the_files_of_one_patient_alone_are_the_images_that_their_names_end_in(holed, tmp_path):
    data, run = holed
    model = hilum.load(run, device="cpu")
    both = {name: hilum.read(data.parent / f"{name.lower()}01.png").with_image_name(name) for name in ("CT", "PT")}
    expected = model.predict(Case("a", "a", both)).probabilities["ill"]
    for name in both:
        copied = tmp_path / "alone" / f"c01_{name}.png"
        copied.parent.mkdir(exist_ok=True)
        copied.write_bytes((data.parent / f"{name.lower()}01.png").read_bytes())
    found = hilum.predict(run, tmp_path / "alone", device="cpu").table
    assert found["probability_ill"].tolist() == [pytest.approx(expected, abs=1e-6)]


@pytest.mark.whole
def test_each_image_is_left_out_once_although_the_first_case_lacks_it(holed, tmp_path):
    data, run = holed
    given = {"split": "all", "corruptions": "noise", "severities": "1", "out": tmp_path / "out"}
    scored = hilum.evaluate(run, data, **READING, **given).scored.table
    assert scored["case"].iloc[0] == "c00"  # of which there is no CT
    table = pd.read_csv(tmp_path / "out" / "robustness.csv")
    assert set(table["corruption"]) == {"none", "noise", "without PT", "without CT"}


@pytest.mark.whole
def test_a_package_does_without_an_image_in_onnx_and_without_hilum(holed, tmp_path):
    data, run = holed
    packaged = hilum.package(run, out=tmp_path / "package", backends=())
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for case, files in {"a": ("ct01", "pt01"), "b": (None, "pt01"), "c": ("ct02", None)}.items():
        for number, name in enumerate(files):
            if name is not None:
                (pictures / f"{case}_{number:04}.png").write_bytes((data.parent / f"{name}.png").read_bytes())
    ours = hilum.predict(run, pictures, device="cpu").table.set_index("case")["probability_ill"]
    onnx = hilum.predict(packaged.out, pictures, device="cpu", backend="onnx").table.set_index("case")
    assert onnx.loc[ours.index, "probability_ill"].tolist() == pytest.approx(ours.tolist(), abs=1e-5)
    words = ("-m", "monai.bundle", "run", "--config_file", CONFIG, "--dataset_dir", pictures)
    done = without_hilum(packaged.out, *words, "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    theirs = pd.read_csv(tmp_path / "out" / "predictions.csv", dtype={"case": str}).set_index("case")
    assert theirs.loc[ours.index, "probability_ill"].tolist() == pytest.approx(ours.tolist(), rel=1e-4)
    page = (packaged.out / "docs" / "README.md").read_text()
    assert "A case may lack `CT` and `PT`" in page
    assert "image:CT, image:PT" in page


def test_of_four_images_every_subset_is_scored_and_of_more_each_alone_and_all_but_each():
    def of(count: int, absent: int) -> Subsets:
        names = tuple(f"T{n}" for n in range(count))
        return Subsets.from_preprocessing(Preprocessing(2, names, (), absent=names[:absent]))

    assert len(of(4, 4).wanted) == 15
    assert len(of(6, 6).wanted) == 6 + 6 + 1
    assert of(2, 0).wanted == ()
    assert of(3, 1).wanted == (("T1", "T2"), ("T0", "T1", "T2"))


def test_an_image_is_found_by_its_name_or_by_its_number():
    grid, subsets = Geometry.of_pixels((2, 2)), Subsets(("CT", "PT"), ())

    def has(*names: str) -> dict[str, str]:
        return subsets.of_case(Case("c", "p", {name: Image(np.ones((1, 2, 2)), grid) for name in names}))

    assert has("0", "1") == {"CT": "0", "PT": "1"}
    assert has("PT") == {"PT": "PT"}
    assert has("0001") == {"PT": "0001"}


@pytest.mark.whole
def test_beside_covariates_the_images_alone_are_trained_on_with_what_tells_which_are_there(tmp_path):
    data = cohort(tmp_path / "data")
    table = pd.read_csv(data).assign(age=lambda one: [40 + n % 7 for n in range(len(one))])
    table.to_csv(data, index=False)
    run = hilum.train(data, out=tmp_path / "run", assignments=FEW | {"network.context": ["age"]}, **READING)
    context, single = (hilum.load(folder, "cpu").networks.context for folder in (run.out, run.out / "image_only"))
    assert (context.names, context.channels) == (("age",), ("CT", "PT"))
    assert (single.names, single.channels) == ((), ("CT", "PT"))
    rows = json.loads((run.out / "evaluation" / "images.json").read_text())["rows"]
    assert {tuple(row["images"]) for row in rows} == {("CT",), ("PT",), ("CT", "PT")}


def test_of_folds_a_subset_of_the_images_is_scored_by_the_thresholds_of_the_cases_own_fold():
    @dataclass(frozen=True)
    class Answering:
        """As probable as its image is bright."""

        task: Classification

        def predict(self, subject: Case) -> Prediction:
            chance = float(np.mean([image.data.mean() for image in subject.images.values()]))
            return Prediction(grid, probabilities={"well": 1 - chance, "ill": chance})

    grid, common = Geometry.of_pixels((2, 2)), Classification(("well", "ill"), thresholds={"ill": 0.9})
    cases = [
        Case(f"c{n}", f"p{n}", {name: Image(np.full((1, 2, 2), 0.1 + 0.03 * n), grid) for name in ("CT", "PT")},
             {"class": ("well", "ill")[n % 2]})
        for n in range(24)
    ]  # fmt: skip
    folds = {
        case.id: ScoringFold(n % 2, replace(common, thresholds={"ill": 0.2 + n % 2 / 10}))
        for n, case in enumerate(cases)
    }
    model, how = Answering(common), {"seed": 0, "patients_known": True, "folds": folds}
    rows = [
        row
        for case in cases
        for row in case_scoring.case_table_rows(model.predict(case), case, common, "test", folds[case.id])
    ]
    preprocessing = Preprocessing(2, ("CT", "PT"), (), absent=("CT", "PT"))
    scored = image_subsets.with_subsets(
        ScoredCases(case_tables.case_table(rows), (), task=common), model, preprocessing, cases, **how
    )
    methods = {
        names: [row.estimate.method for row in own if row.metric == "sensitivity"] for names, own in scored.subsets
    }
    assert set(methods) == {("CT",), ("PT",), ("CT", "PT")}
    assert all("ill from 0.2 to 0.3 on, each fold's own" in one for own in methods.values() for one in own)
