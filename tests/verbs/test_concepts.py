"""`explain --concepts`: measurements that answers go with, and concepts shown by examples."""

from __future__ import annotations

import shutil
from functools import partial

import numpy as np
import pandas as pd
import PIL.Image
import pytest

import hilum
import trained
from explanation.looking import Linear, corner_model, model, textured
from hilum.errors import DatasetError, FormatError, UsageError
from hilum.explanation.concept_tests import Surrogate
from hilum.scoring.explaining import concept_section
from hilum.tasks.segmentation.question import Segmentation
from hilum.values import Case, Dataset, Estimate, Geometry, Image, Label, LazyMapping, Prediction


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Pictures like those of the shared run, which has not seen them, in one folder."""
    root = tmp_path_factory.mktemp("cohort")
    trained.pictures(root / "classes", 24, first=500)
    (root / "images").mkdir()
    for path in sorted((root / "classes").glob("*/*.png")):
        path.rename(root / "images" / path.name)
    return root / "images"


def stripes(root, count, level):
    """Pictures with bright columns, and none."""
    root.mkdir(parents=True)
    for n in range(count):
        pixels = np.random.default_rng(n).normal(120, 30, (24, 24))
        pixels[:, ::4] += level
        PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{n:02}.png")


@pytest.mark.whole
def test_measurements_of_what_is_looked_at_explain_a_share_of_the_answers(classified, cohort, tmp_path):
    result = hilum.explain(
        classified.out, cohort, method="gradcam", tests=0, concepts="measured", target="bright", out=tmp_path / "out"
    )
    table = pd.read_csv(tmp_path / "out" / "concepts.csv")
    assert {"stat_mean", "morph_vol_approx", "ih_entropy", "cm_contrast"} <= set(table["concept"])
    assert len(table) == 24  # of pictures
    assert table["r2"].nunique() == 1
    assert table["share"].sum() == pytest.approx(1)
    assert result.tables["concepts.csv"]["source"].unique().tolist() == ["measured"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "A sparse sum of" in page and 'href="concepts.csv"' in page


def test_concepts_shown_by_examples_have_a_score_beside_random_ones(classified, cohort, tmp_path, cli):
    stripes(tmp_path / "concepts" / "striped", 12, 100)
    stripes(tmp_path / "concepts" / "plain", 12, 0)
    given = ("--concepts", tmp_path / "concepts", "--method", "gradcam", "--target", "dark", "--tests", 0)
    ended = cli("explain", classified.out, cohort, *given, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    table = pd.read_csv(tmp_path / "out" / "concepts.csv")
    assert set(table["concept"]) == {"striped", "plain"}
    assert table["score"].between(0, 1).all()
    assert (table["p_adjusted"] >= table["p"]).all()
    assert (table["images"] == 12).all()


def test_a_concept_folder_with_three_images_is_refused_and_so_is_one_that_is_not_there(classified, cohort, tmp_path):
    stripes(tmp_path / "concepts" / "striped", 3, 100)
    with pytest.raises(DatasetError, match=r"striped: the concept has 3 images.*10 or more"):
        hilum.explain(classified.out, cohort, method="gradcam", tests=0, concepts=tmp_path / "concepts")
    with pytest.raises(UsageError, match="one folder per concept, or measured"):
        hilum.explain(classified.out, cohort, method="gradcam", tests=0, concepts=tmp_path / "nowhere")


def test_of_few_images_nothing_can_be_said(classified, cohort):
    with pytest.raises(DatasetError, match="20 or more"):
        hilum.explain(
            classified.out, [*sorted(cohort.glob("*.png"))[:4]], method="gradcam", tests=0, concepts="measured"
        )


def spread_cases(count, damaged=()):
    """Pictures with a bright corner of which some cannot be read, in memory."""

    def unreadable():
        raise FormatError("the pixels are damaged", "scan", "Copy it again")

    loaders = [unreadable if n in damaged else partial(textured, n) for n in range(count)]
    return Dataset([Case(f"c{n:02}", f"p{n:02}", LazyMapping({"image": one})) for n, one in enumerate(loaders)])


@pytest.mark.parametrize("target", ["auto", "bright"])
@pytest.mark.whole
def test_a_damaged_case_is_reported_and_the_others_are_measured(target):
    how = {"method": "integrated_gradients", "tests": 0, "concepts": "measured", "target": target}
    result = hilum.explain(corner_model(), spread_cases(22, damaged=(3,)), **how)
    assert [problem.what for problem in result.failures] == ["c03: the pixels are damaged"]
    assert (result.tables["concepts.csv"]["cases"] == 21).all()


def test_where_every_case_is_damaged_nothing_is_measured():
    with pytest.raises(DatasetError, match="0 patients are too few"):
        hilum.explain(corner_model(), spread_cases(2, (0, 1)), method="occlusion", tests=0, concepts="measured")


def test_a_damaged_case_and_a_damaged_example_are_reported_and_the_others_show_the_concept(
    classified, cohort, tmp_path
):
    stripes(tmp_path / "concepts" / "striped", 12, 100)
    broken, cases = tmp_path / "concepts" / "striped" / "00.png", shutil.copytree(cohort, tmp_path / "cases")
    for path in (broken, sorted(cases.glob("*.png"))[0]):
        path.write_bytes(path.read_bytes()[:-300])
    how = {"method": "gradcam", "target": "dark", "tests": 0, "concepts": tmp_path / "concepts"}
    result = hilum.explain(classified.out, cases, **how)
    assert {name for problem in result.failures for name in problem.cases} == {"00", "500"}
    [row] = result.tables["concepts.csv"].to_dict("records")
    assert (row["images"], row["cases"]) == (11, 23)


def test_measurements_of_clips_are_refused_before_any_case_is_explained():
    of_clips = model(Linear(np.ones((3, 8, 8))), (8, 8), frames=3)
    with pytest.raises(UsageError, match=r"measured: the model takes clips, and only still images are measured"):
        hilum.explain(of_clips, spread_cases(1, (0,)), method="occlusion", concepts="measured")
    clip = Image(np.zeros((1, 3, 20, 20), dtype=np.float32), Geometry((20, 20), np.eye(3)))
    both = Dataset([*spread_cases(1, (0,)), Case("clip", "p", {"image": clip})])
    with pytest.raises(UsageError, match=r"clip is a clip: only still images are measured.*Give still images"):
        hilum.explain(corner_model(), both, method="occlusion", concepts="measured")


def test_a_mask_model_that_goes_frame_by_frame_through_a_clip_has_no_concepts(segmented, tmp_path):
    stripes(tmp_path / "concepts" / "striped", 1, 100)
    clip = Image(np.zeros((1, 3, 16, 16, 16), dtype=np.float32), Geometry((16, 16, 16), np.eye(4)))
    cases = Dataset([Case("clip", "p", {"image": clip})])
    with pytest.raises(UsageError, match="clip is predicted frame by frame"):
        hilum.explain(segmented.out, cases, method="gradcam", tests=0, concepts=tmp_path / "concepts")


def test_what_is_measured_is_the_target_where_the_model_marks_it():
    grid = Geometry.of_pixels((4, 4))
    data = np.array([[0, 1, 1, 2]] * 4, np.uint8)
    parts = (Label(1, "liver"), Label(2, "tumour"), Label(3, "vessel"))
    data[0, 0] = 3
    made, image = Prediction(grid, data=data, labels=parts), Image(np.zeros((1, 4, 4), np.float32), grid)
    whole = Segmentation(parts, regions={"organ": (1, 2), "tumour": (2,)})
    for target, voxels in {"segmentation:tumour": 4, "organ": 12, "auto": 13}.items():
        assert concept_section._answer_region(made, image, target, whole).sum() == voxels


def test_an_interval_that_ends_just_below_0_has_no_minus_without_a_digit():
    found = Surrogate(Estimate(0.004, -0.001, 0.02), {"morph_diam": 1.0}, {"morph_diam": 1})
    assert "0 % (95 % interval 0 to 2 %)" in concept_section._section_of_measurements(found, 20).blocks[0].text


@pytest.mark.whole
def test_of_several_images_the_values_of_each_are_measured_under_its_name():
    """The answer follows the second image; the first is the same noise in every case."""
    weights = np.zeros((2, 20, 20))
    weights[1] = 1.0
    of = model(Linear(weights), (20, 20), channels=("T1", "T2"))
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 1, (20, 20)).astype(np.float32)
    pixels = [np.stack([noise, noise * bright]) for bright in rng.uniform(0.2, 1, 20)]
    cases = [
        Case(f"c{n}", f"p{n}", {"image": Image(one, Geometry((20, 20), np.eye(3)), channels=("T1", "T2"))})
        for n, one in enumerate(pixels)
    ]
    how = {"method": "integrated_gradients", "tests": 0, "concepts": "measured", "target": "bright"}
    table = hilum.explain(of, Dataset(cases), **how).tables["concepts.csv"].set_index("concept")
    assert {"morph_diam", "T1 stat_mean", "T2 cm_contrast"} <= set(table.index)
    assert "stat_mean" not in table.index
    shares = table["share"]
    assert shares[[name for name in shares.index if name.startswith("T2")]].sum() > 0.9
