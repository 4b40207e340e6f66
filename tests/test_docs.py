"""Code of the documentation runs as it stands."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import trained
from hilum.monitoring import acceptance_plan, change_plan
from hilum.studies import trial_protocol

PAGES = Path(__file__).parents[1] / "docs"


def test_the_textbook_pipeline_and_ours_run_side_by_side(classified, tmp_path, monkeypatch, capsys):
    shutil.copytree(classified.data, tmp_path / "pictures")
    (tmp_path / "run").symlink_to(classified.out)
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(PAGES / "textbook.py"))
    assert names["batch"].images.shape == names["images"].shape
    assert names["task"].classes == names["textbook"].classes
    assert len(names["table"]["case"].unique()) == len(names["cases"])
    assert names["joined"]["covariates"].shape[1] == len(names["patients"].covariate_names) == 4
    assert names["logits"].shape == (len(names["joined"]["case"]), 2)
    assert set(names["words"].values()) == {"DX", "CT", "MR", "US", "SM"}
    assert names["explained"].data.shape == PIL.Image.open(names["files"][0]).size[::-1]
    assert 0 < names["doubt"].total <= np.log(2) + 1e-6
    said = capsys.readouterr().out
    assert "auroc all" in said
    assert "nan" not in said


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
