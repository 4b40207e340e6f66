"""Code of the documentation runs as it stands, where its page says so."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

ROOT = Path(__file__).parents[1]
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run(page: str) -> dict[str, Any]:
    """The names that are left after all code of a page has run from top to bottom."""
    names: dict[str, Any] = {"__name__": "page"}
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for block in PYTHON.finditer(text):
        above = "\n" * (text[: block.start()].count("\n") + 1)
        exec(compile(above + block[1], page, "exec", dont_inherit=True), names)  # noqa: S102 - an error names the line of the page
    return names


def test_the_textbook_pipeline_and_ours_run_side_by_side(classified, tmp_path, monkeypatch, capsys):
    shutil.copytree(classified.data, tmp_path / "pictures")
    (tmp_path / "run").symlink_to(classified.out)
    monkeypatch.chdir(tmp_path)
    names = run("textbook.md")
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
