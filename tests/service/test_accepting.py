"""Acceptance of a model with the node that shall run it: a study of each scanner goes to a PACS and is found there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hilum
import packages
from hilum.monitoring.acceptance_plan import ACCEPTED, CONDITIONAL
from hilum.runtime import record_files
from hilum.values import Label
from service import followed

PLAN = """
version = 1
model = "{model}"
agreed = [{ name = "A. Physicist", on = "2026-11-20" }]
[[acceptance]]
metric = "dice"
rule = "at_least"
value = 0.0
"""
NODE = """
[[peers]]
name = "pacs"
ae_title = "{title}"
host = "127.0.0.1"
port = {port}
[models.balls]
path = "model"
[[rules]]
name = "t1"
model = "balls"
when = { SeriesDescription = "T1" }
send = ["pacs"]
"""


def scanned_site(folder: Path, numbers: range) -> Path:
    """A table of MR volumes as DICOM with masks; the last is of another scanner, which calls its series otherwise."""
    rows = ["image,mask,patient"]
    for number in numbers:
        stated = {"ManufacturerModelName": "Beta", "SeriesDescription": "localiser"} if number == 14 else {}
        stated = {"ManufacturerModelName": "Alpha", "SeriesDescription": "T1", "PatientID": str(number), **stated}
        paths = followed.study(folder / f"p{number}", "20240101", 5.0 + number / 10, **stated)
        image = hilum.read(paths[0].parent)
        bright = image.data[0] > 100
        halves = np.where(np.arange(bright.shape[0])[:, None, None] < 11, 3, 7) * bright
        ball = image.with_label_map(halves.astype(np.uint8), [Label(3, "kidney left"), Label(7, "kidney right")])
        hilum.write(ball, folder / f"p{number}" / "mask.nii.gz")
        rows.append(f"p{number}/20240101,p{number}/mask.nii.gz,{number}")
    (folder / "site.csv").write_text("\n".join(rows))
    return folder / "site.csv"


@pytest.mark.whole
def test_a_node_takes_and_answers_the_scanners_of_a_site_and_a_pacs_has_the_results(orthanc, tmp_path):
    with packages.no_export():
        package = packages.packed(packages.segmenting(), tmp_path / "model")
    (tmp_path / "node.toml").write_text(NODE.replace("{title}", orthanc.ae_title).replace("{port}", str(orthanc.port)))
    made = {}
    for name, numbers in {"one": range(14), "two": range(15)}.items():
        (tmp_path / name).mkdir()
        site = scanned_site(tmp_path / name, numbers)
        plan = tmp_path / name / "acceptance.toml"
        plan.write_text(PLAN.replace("{model}", record_files.file_digest(package / "manifest.json")))
        given = {"plan": plan, "device": "cpu"}
        hilum.accept(package, site, lock=True, **given)
        made[name] = hilum.accept(package, site, config=tmp_path / "node.toml", out=tmp_path / name / "out", **given)
    assert made["one"].verdict == ACCEPTED, made["one"]
    checks = [(row.metric, row.group, row.holds) for row in made["two"].rows if row.attribute == "scanner"]
    assert sorted(checks, key=lambda one: one[1]) == [
        ("series_taken", "Alpha", True),
        ("answered_in_time", "Alpha", True),
        ("results_read_back", "Alpha", True),
        ("series_taken", "Beta", False),
    ]
    assert (made["two"].verdict, made["two"].conditions) == (CONDITIONAL, {"scanner": ["Alpha"]})
    assert len(orthanc.ask("/studies")) == 1, "one study of the scanner, in both"
