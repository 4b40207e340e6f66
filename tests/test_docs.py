"""Code of the documentation runs as it stands."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import trained
from hilum.monitoring import acceptance_plan, change_plan
from hilum.networks import factory
from hilum.studies import trial_protocol
from hilum.tasks import task_catalogue

PAGES = Path(__file__).parents[1] / "docs"
# The names of the textbook's listing.
LISTING = [
    *("ImagingModality", "TaskType", "ModelArchitecture", "ImagingConfig", "MedicalImagingDataset", "prepare_data"),
    *("MultiHeadAttention", "MLP", "DropPath", "TransformerBlock", "BayesianLinear", "MedicalViT", "Medical3DCNN"),
    *("ImagingTrainer", "run_training", "evaluate_model", "get_attention_maps", "save_model"),
]


@pytest.fixture(scope="module")
def textbook(tmp_path_factory):
    """The names of the page's code after it has run, and what it printed."""
    folder = tmp_path_factory.mktemp("textbook")
    trained.pictures(folder / "pictures", 24)
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        names = runpy.run_path(str(PAGES / "textbook.py"))
    return {**names, "printed": printed.getvalue(), "folder": folder}


def test_the_textbook_pipeline_and_ours_run_side_by_side(textbook):
    config, item, batch = textbook["config"], textbook["item"], textbook["batch"]
    assert item["image"].shape == (config.num_channels, *config.image_size)
    assert textbook["task"].classes == textbook["MedicalImagingDataset"].classes
    assert batch["covariates"].shape[1] == len(textbook["ours"].covariate_names) == 3
    assert textbook["outputs"]["class"].shape == (len(batch["case"]), config.num_classes)
    assert "auroc all" in textbook["printed"]
    assert "nan" not in textbook["printed"]


def test_the_textbook_mixes_patients_and_ours_does_not(textbook):
    assert len(textbook["in_both"]) > 0
    parts = list(textbook["patients"].values())
    assert sum(map(len, parts)) == len(set().union(*parts)) == textbook["df"]["patient_id"].nunique()
    assert textbook["evaluation"].scored.table["patient"].isin(textbook["patients"]["test"]).all()


def test_the_attention_of_the_textbook_is_ours_and_our_map_lies_on_the_image(textbook):
    assert textbook["same"] is True
    assert textbook["attention"].data.shape == PIL.Image.open(textbook["folder"] / textbook["files"][0]).size[::-1]
    assert (textbook["attention"].data >= 0).all()


def test_the_uncertainty_of_the_textbook_has_two_parts_of_one_total(textbook):
    doubt = textbook["doubt"]
    assert 0 < doubt.epistemic < doubt.total <= np.log(2) + 1e-6
    assert doubt.total == pytest.approx(doubt.aleatoric + doubt.epistemic)


@pytest.mark.parametrize("enumeration", ["ImagingModality", "TaskType", "ModelArchitecture"])
def test_each_value_of_the_textbook_is_taken_or_its_name_here_stands_beside_it(textbook, enumeration):
    answers = {**textbook["modalities"], **textbook["kinds"], **textbook["families"]}
    code = (PAGES / "textbook.py").read_text(encoding="utf-8")
    for member in textbook[enumeration]:
        [comment] = re.findall(rf'^    {member.name} = "{member.value}"(?:  # (.*))?$', code, re.MULTILINE)
        is_taken = not str(answers[member]).startswith("Use ")
        assert is_taken == (comment == ""), member
        if not is_taken:
            name = re.match(r"\w+", comment)[0]
            assert name in (*factory.family_names(), task_catalogue.ALL, "no")
            assert name == "no" or name in answers[member]


def test_each_name_of_the_listing_stands_on_the_page_and_in_its_code(textbook):
    page = (PAGES / "textbook.md").read_text(encoding="utf-8")
    for name in LISTING:
        assert f"`{name}" in page
        assert name in textbook or hasattr(textbook["MedicalViT"], name)


def test_the_page_of_the_textbook_shows_all_of_its_code_in_order():
    page, code = ((PAGES / f"textbook.{suffix}").read_text(encoding="utf-8") for suffix in ("md", "py"))
    shown = re.findall(r'--8<-- "docs/textbook.py:([\w-]+)"', page)
    assert shown == re.findall(r"--8<-- \[start:([\w-]+)\]", code) == re.findall(r"--8<-- \[end:([\w-]+)\]", code)
    assert len(shown) > 15


def test_the_plans_that_pages_show_are_plans(tmp_path):
    for name in ("acceptance", "change-plan"):
        text = (PAGES / "how-to" / f"{name}.toml").read_text(encoding="utf-8")
        (tmp_path / f"{name}.toml").write_text(re.sub("<SHA-256 .*>", "0" * 64, text), encoding="utf-8")
    assert acceptance_plan.read_acceptance_plan(tmp_path / "acceptance.toml").cases["station"] == 20
    assert change_plan.read_change_plan(tmp_path / "change-plan.toml", ["auroc"]).evaluations == 5
    study = trial_protocol.read_study((PAGES / "how-to" / "study.toml").read_text(encoding="utf-8"), "study.toml")
    assert study.title == "A model as second reader of chest radiographs"


@pytest.mark.whole
def test_the_commands_of_the_first_page_run_one_after_the_other(tmp_path, monkeypatch, cli):
    """As they stand, but for the data, their labels and the minutes."""
    trained.blobs(tmp_path / "hippocampus")
    other = trained.blobs(tmp_path / "another-hospital", first=50)
    shutil.copy(other / "images" / "case00.nii.gz", tmp_path / "new-scan.nii.gz")
    monkeypatch.chdir(tmp_path)
    [block] = re.findall(r"```console\n(.*?)```", (PAGES / "index.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.removeprefix("$ hilum ") for line in block.splitlines()]
    assert [line.split()[0] for line in lines] == ["check", "plan", "train", "evaluate", "predict", "view", "package"]
    for line in lines:
        words = line.replace("--minutes 10", "--minutes 0.5").replace("1=anterior,2=posterior", trained.LABELS).split()
        assert cli(*words).code == 0, line
    assert (tmp_path / "run" / "report.html").is_file()
    assert (tmp_path / "hippocampus-model" / "manifest.json").is_file()
