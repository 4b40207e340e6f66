"""`explain --counterfactual`: the smallest change that flips a call, proved by predicting it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import tifffile

import hilum
from explanation.looking import Linear, corner_model, model, textured
from hilum.errors import DatasetError, FormatError, UsageError
from hilum.explanation import counterfactuals
from hilum.explanation.counterfactuals import Counterfactual, Flip
from hilum.runtime import covariate_encoding
from hilum.runtime.model_parts import ImageDirections, ModelParts
from hilum.scoring.explaining import counterfactual_section
from hilum.tasks import task_catalogue, task_settings
from hilum.values import Case, Dataset, Geometry, Image, LazyMapping, Prediction

COLUMNS = ["case", "space", "from", "to", "probability_before", "probability_after", "share_changed", "gate_p"]


@pytest.fixture(scope="module")
def flipped(gated, tmp_path_factory):
    """Three pictures of the class "dark" whose calls are flipped; tests only read what came of it."""
    out = tmp_path_factory.mktemp("flipped") / "out"
    pictures = sorted((gated.data / "dark").glob("*.png"))[:3]
    flags = {"method": "gradcam", "tests": 0, "device": "cpu"}
    return hilum.explain(gated.out, [*pictures], counterfactual="auto", out=out, **flags), pictures


@pytest.mark.whole
def test_what_is_written_is_called_otherwise_with_the_probability_that_is_stated(flipped, gated):
    result, _ = flipped
    table = pd.read_csv(result.out / "counterfactuals.csv", dtype={"case": str})
    assert list(table)[: len(COLUMNS)] == COLUMNS
    assert (table["from"] != table["to"]).all()
    assert table["flipped"].mean() > 0.6
    model = hilum.load(gated.out, "cpu")
    for row in table.to_dict("records"):
        image = tifffile.imread(result.out / f"{row['case']}_counterfactual.tiff")
        made = Image(image[None].astype(np.uint8), Geometry.of_pixels(image.shape))
        np.testing.assert_array_equal(made.data[0], image)  # a picture of 8 bits stays one
        again = model.predict(made)
        assert again.probabilities[row["to"]] == pytest.approx(row["probability_after"], abs=1e-5)
        assert again.confidence.gate_p == pytest.approx(row["gate_p"], abs=1e-6)


@pytest.mark.whole
def test_the_difference_is_that_of_the_two_images_within_the_range_of_the_first(flipped):
    result, pictures = flipped
    table = pd.read_csv(result.out / "counterfactuals.csv", dtype={"case": str}).set_index("case")
    for picture in pictures:
        given = np.asarray(PIL.Image.open(picture)).astype(float)
        made = tifffile.imread(result.out / f"{picture.stem}_counterfactual.tiff")
        apart = tifffile.imread(result.out / f"{picture.stem}_difference.tiff")
        np.testing.assert_allclose(made - given, apart)
        assert given.min() <= made.min() and made.max() <= given.max()
        share = (abs(apart) > 0.01 * np.ptp(given)).mean()
        assert share == pytest.approx(table.loc[picture.stem, "share_changed"], abs=1e-6)
        assert (result.out / f"{picture.stem}_counterfactual.png").is_file()
    page = (result.out / "report.html").read_text()
    assert "What would flip the call" in page and 'href="counterfactuals.csv"' in page


def test_a_name_that_is_not_called_and_a_model_that_calls_nothing_are_refused(classified, segmented):
    picture = sorted((classified.data / "dark").glob("*.png"))[0]
    with pytest.raises(UsageError, match=r"no 'cat' to flip to.*bright and dark|no 'cat' to flip to.*bright, dark"):
        hilum.explain(classified.out, picture, method="gradcam", tests=0, counterfactual="cat")
    volume = sorted((segmented.data / "images").glob("*.nii.gz"))[0]
    with pytest.raises(UsageError, match="a segmentation calls no class or finding that could flip"):
        hilum.explain(segmented.out, volume, method="gradcam", tests=0, counterfactual="core")


def test_what_suits_no_case_is_refused_before_any_is_read(classified, tmp_path):
    nowhere = tmp_path / "not there.png"
    for wrong in ({"counterfactual": "cat"}, {"target": "cat"}, {"concepts": tmp_path / "no folder"}):
        with pytest.raises(UsageError, match=r"cat|not a folder"):
            hilum.explain(classified.out, nowhere, method="gradcam", **wrong)


def test_of_findings_the_one_that_is_named_is_called_the_other_way():
    task = task_settings.task_from_settings(
        task_catalogue.task_class("findings"), {"findings": ["cyst", "node"], "thresholds": {"cyst": 0.3}}
    )
    prediction = Prediction(Geometry.of_pixels((4, 4)), probabilities={"cyst": 0.4, "node": 0.2})
    flip = Flip.from_target(task, "cyst", prediction)
    assert (flip.before, flip.after) == ("present", "absent")
    assert flip.probability(prediction) == pytest.approx(0.6)
    assert Flip.from_target(task, "node", prediction).after == "present"
    still = Image(np.zeros((1, 4, 4), np.float32), Geometry.of_pixels((4, 4)))
    made = Counterfactual(still, np.zeros((1, 4, 4), np.float32), 0.6, 0.9, 0.0, None, passes=True, flipped=True)
    caption = counterfactual_section._strip(Case("a", "p", {"image": still}), flip, made, "image").caption
    assert "From present to absent: the probability that cyst is absent along the change" in caption


def test_of_covariates_the_nearest_value_that_flips_alone_is_named():
    """The answer is "b" from 60 years on, whatever else is known."""
    task = task_settings.task_from_settings(
        task_catalogue.task_class("classification"), {"classes": ["a", "b"], "smoothing": 0.0}
    )

    def predict(case: Case) -> Prediction:
        p = 0.9 if case.covariates["age"] >= 60 else 0.1
        return Prediction(Geometry.of_pixels((4, 4)), probabilities={"a": 1 - p, "b": p})

    columns = covariate_encoding.Context.from_settings(
        {
            "age": {"kind": "number", "median": 50, "mean": 50, "deviation": 8, "missing": 0},
            "sex": {"kind": "category", "levels": {"F": 0.5, "M": 0.5}, "missing": 0},
        }
    )
    case = Case("c", "p", {}, covariates={"age": 52, "sex": "F"})
    model = SimpleNamespace(task=task, networks=SimpleNamespace(context=columns), predict=predict)
    found = list(counterfactuals.flipping_covariates(model, case, Flip.from_target(task, "b", predict(case))))
    assert [change for change, _ in found] == ["age = 66.0"]


@pytest.mark.whole
def test_a_call_that_calibration_alone_has_turned_flips_too(gated):
    """The network answers as asked before anything changes; its calibrated answer does not."""
    model = hilum.load(gated.out, "cpu")
    picture = sorted((gated.data / "dark").glob("*.png"))[0]
    given = model.predict(model_image(gated)).confidence.uncalibrated
    name = model.task.classes[1]
    odds = np.log(given[name]) - np.log(1 - given[name])
    shifted = {"method": "platt", "parameters": {name: [1.0, float(-odds - 0.5 * np.sign(odds))]}, "cases": 60}
    task = task_settings.task_from_settings(
        type(model.task), {**task_settings.settings_of(model.task), "calibration": shifted}
    )
    how = {"method": "gradcam", "tests": 0, "counterfactual": "auto"}
    table = hilum.explain(replace(model, task=task), picture, **how).tables["counterfactuals.csv"]
    assert table["flipped"].all()
    assert (table["probability_before"] < 0.5).all()
    assert (table["probability_after"] > 0.5).all()


@pytest.mark.whole
def test_along_the_directions_of_training_images_there_is_a_second_counterfactual(gated, tmp_path):
    """A model that carries directions changes images along them alone, beside the change everywhere."""
    model = hilum.load(gated.out, "cpu")
    rng = np.random.default_rng(0)
    shape = model.preprocessing(model_image(gated), "picture")[0].shape
    pattern = rng.normal(size=shape).astype(np.float32)
    given = [one * pattern + rng.normal(0, 0.05, shape).astype(np.float32) for one in rng.normal(size=100)]
    own = replace(model, parts=ModelParts(directions=ImageDirections.fit_images(given, [f"p{n}" for n in range(100)])))
    picture = sorted((gated.data / "dark").glob("*.png"))[0]
    hilum.explain(own, picture, method="gradcam", tests=0, counterfactual="auto", out=tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "counterfactuals.csv")
    assert table["space"].tolist() == ["image", "directions"]
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {f"{picture.stem}_counterfactual_directions.tiff", f"{picture.stem}_difference_directions.tiff"} <= files


def model_image(run) -> Image:
    pixels = np.asarray(PIL.Image.open(sorted((run.data / "dark").glob("*.png"))[0]))
    return Image(pixels[None], Geometry.of_pixels(pixels.shape))


def unreadable() -> Image:
    raise FormatError("the pixels are damaged", "scan", "Copy it again")


def corners(count: int, *damaged: int) -> Dataset:
    """Pictures with a bright corner in memory, of which some cannot be read."""
    pictures = [replace(textured(n), geometry=Geometry.of_pixels((20, 20))) for n in range(count)]
    loaders = [unreadable if n in damaged else partial(lambda one: one, pictures[n]) for n in range(count)]
    return Dataset([Case(f"c{n:02}", f"p{n:02}", LazyMapping({"image": one})) for n, one in enumerate(loaders)])


@pytest.mark.whole
def test_a_damaged_case_is_reported_once_and_the_other_has_its_map_and_its_counterfactual(tmp_path):
    how = {"method": "integrated_gradients", "tests": 0, "counterfactual": "auto"}
    result = hilum.explain(corner_model(), corners(2, 0), out=tmp_path / "out", **how)
    assert [problem.what for problem in result.failures] == ["c00: the pixels are damaged"]
    table = pd.read_csv(tmp_path / "out" / "counterfactuals.csv")
    assert table["case"].tolist() == ["c01"]
    assert result.table["case"].tolist() == ["c01"]
    assert {"c01_counterfactual.tiff", "c01_difference.tiff"} <= {path.name for path in result.files}


@pytest.mark.whole
def test_a_case_whose_counterfactual_fails_keeps_its_map_and_is_reported(tmp_path, monkeypatch):
    of = corner_model()

    def predict(self, case, *given, **more):
        if isinstance(case, Case) and case.id == "c01":
            raise DatasetError("cannot be predicted", case.id, "Look at it")
        return plain(self, case, *given, **more)

    plain = type(of).predict
    monkeypatch.setattr(type(of), "predict", predict)
    how = {"method": "integrated_gradients", "tests": 0, "counterfactual": "auto"}
    result = hilum.explain(of, corners(2), out=tmp_path / "out", **how)
    assert [problem.cases for problem in result.failures] == [("c01",)]
    assert result.table["case"].tolist() == ["c00", "c01"]
    assert result.tables["counterfactuals.csv"]["case"].tolist() == ["c00"]


def test_models_of_clips_and_cascades_are_refused_before_any_case_is_read():
    clips = model(Linear(np.ones((3, 8, 8))), (8, 8), frames=3)
    for of in (clips, replace(corner_model(), first=corner_model())):
        with pytest.raises(UsageError, match="cascades and clips have no counterfactuals"):
            hilum.explain(of, corners(1, 0), method="occlusion", tests=0, counterfactual="auto")
