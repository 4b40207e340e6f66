"""Findings and boxes of volumes go the same way as those of pictures."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hilum
import trained
from packages import no_export

RESNET = {**trained.FEW_STEPS, "network.size": trained.SMALL_RESNET}
UNET = {**trained.FEW_STEPS, "network.size": trained.SMALL_UNET}


def nodules(root: Path, count: int = 14) -> Path:
    """Volumes of 1 x 1 x 2 mm with a bright nodule, in every second one a dark one too; their boxes and findings."""
    (root / "volumes").mkdir(parents=True)
    boxes, findings = ["image,label,x0,y0,z0,x1,y1,z1"], ["image,patient,bright,dark"]
    for n in range(count):
        rng = np.random.default_rng(n)
        voxels = rng.normal(0, 5, (20, 18, 12))
        name = f"volumes/{n:02}.nii.gz"
        for kind, level, across in (("bright", 100, 5.0), ("dark", -100, 13.0))[: 1 + n % 2]:
            centre = np.array([across, rng.uniform(6, 12), rng.uniform(4, 8)])
            half = np.array([3.0, 3.0, 1.5])
            steps = (np.stack(np.indices(voxels.shape), axis=-1) + 0.5 - centre) / half
            voxels[(steps**2).sum(axis=-1) < 1] += level
            boxes.append(",".join([name, kind, *(f"{edge:.2f}" for edge in (*centre - half, *centre + half))]))
        findings.append(f"{name},p{n},{int(n % 3 > 0)},{n % 2}")
        image = nibabel.Nifti1Image(voxels.astype(np.float32), np.diag([1.0, 1.0, 2.0, 1.0]))
        image.to_filename(root / name)
    (root / "boxes.csv").write_text("\n".join(boxes))
    (root / "findings.csv").write_text("\n".join(findings))
    return root


@pytest.mark.whole
def test_boxes_of_volumes_are_trained_scored_predicted_drawn_and_packaged(tmp_path):
    data = nodules(tmp_path / "data") / "boxes.csv"
    plan = hilum.plan(data, device="cpu", threads=1).plan
    assert (plan["task.name"], plan["task.axes"], plan["evaluation.primary"]) == ("detection", 3, "ap10")
    run = hilum.train(data, out=tmp_path / "run", device="cpu", threads=1, assignments=UNET)
    assert {row.label for row in run.rows} == {"all", "bright", "dark"}
    assert "Boxes:" in (run.out / "report.html").read_text()
    one = tmp_path / "data" / "volumes" / "03.nii.gz"
    result = hilum.predict(run.out, one, out=tmp_path / "found", device="cpu", overlay=True)
    table = pd.read_csv(tmp_path / "found" / "predictions.csv")
    assert list(table.columns)[2:] == ["label", "score", "x0", "y0", "z0", "x1", "y1", "z1"]
    assert (result.cases, [path.name for path in (tmp_path / "found").glob("*.png")]) == (1, ["03_overlay.png"])
    with no_export():
        hilum.package(run.out, out=tmp_path / "packaged", backends=())
    image = hilum.read(one)
    own, packaged = (hilum.load(model, "cpu").predict(image).boxes for model in (run.out, tmp_path / "packaged"))
    assert_allclose(packaged.corners, own.corners, atol=1e-4)


@pytest.mark.whole
def test_findings_of_volumes_are_trained_scored_predicted_and_packaged(tmp_path):
    data = nodules(tmp_path / "data") / "findings.csv"
    column = {"finding:bright": "bright", "finding:dark": "dark"}
    run = hilum.train(data, out=tmp_path / "run", column=column, device="cpu", threads=1, assignments=RESNET)
    rows = json.loads((run.out / "evaluation" / "summary.json").read_text())["rows"]
    assert (rows[0]["metric"], {row["label"] for row in rows}) == ("auroc", {"all", "bright", "dark"})
    with no_export():
        hilum.package(run.out, out=tmp_path / "packaged", backends=())
    image = hilum.read(tmp_path / "data" / "volumes" / "03.nii.gz")
    own, packaged = (hilum.load(one, "cpu").predict(image).probabilities for one in (run.out, tmp_path / "packaged"))
    assert set(own) == {"bright", "dark"}
    assert packaged == own
