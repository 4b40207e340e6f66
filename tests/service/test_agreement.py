"""SR, FHIR and HL7 state the numbers of `findings.json`, for a trained model of each kind of problem."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest

import hilum
import trained
from hilum.files.dicom.reading import sr_reading
from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.service.exchange import fhir_reports, findings_report, hl7_reports
from hilum.service.records import tables
from hilum.values import Geometry, Image
from service.objects_sent import encoded, simulated
from service.reports import numbers_of_fhir, numbers_of_hl7, resources
from service.small_node import LEVEL, SmallNode
from service.thresholds import class_model, threshold_model

READING = {"device": "cpu", "threads": 1}
DIGITS = 9  # of a number in a report


def test_reports_agree_on_structures_and_on_classes(tmp_path, mr):
    for name, model in (("mask", threshold_model(tmp_path / "a", LEVEL)), ("class", class_model(tmp_path / "b"))):
        assert agreed(tmp_path / name, model, mr) == "answered"


@pytest.mark.parametrize("kind", ["segmented", "classified", "detected"])
@pytest.mark.whole
def test_reports_agree_on_a_trained_model(kind, request, tmp_path):
    run = request.getfixturevalue(kind)
    source = series(trained.blob(90)[0], tmp_path) if kind == "segmented" else [picture(smear(run.data), tmp_path)]
    assert agreed(tmp_path / "node", run.out, source) == "answered"


@pytest.mark.parametrize("kind", ["ordinal", "findings", "regression", "survival"])
@pytest.mark.whole
def test_reports_agree_on_answers_about_the_whole_image(kind, tmp_path):
    table, column = followed(tmp_path / "data"), COLUMNS[kind]
    given = {"network.size": trained.SMALL_RESNET, **trained.FEW_STEPS, "guard.gate": False}
    given |= {"task.order": "corn"} if kind == "ordinal" else {}
    hilum.train(table, out=tmp_path / "run", column=column, assignments=given, **READING)
    assert agreed(tmp_path / "node", tmp_path / "run", [picture(smear(table.parent), tmp_path)]) == "answered"


@pytest.mark.whole
def test_reports_agree_on_single_objects(tmp_path):
    given = {**trained.FEW_STEPS, "network.size": trained.SMALL_UNET, "guard.gate": False}
    data = trained.blobs(tmp_path / "balls")
    hilum.train(data, out=tmp_path / "run", task="instances", assignments=given, **READING)
    outcome = agreed(tmp_path / "node", tmp_path / "run", series(trained.blob(90)[0], tmp_path))
    assert outcome == "answered"


@pytest.mark.whole
def test_reports_agree_on_the_frames_of_a_clip_and_on_several_tasks(tmp_path):
    table = trained.lesions(tmp_path / "data")
    trained.answering_all(table, tmp_path / "run", assignments={"guard.gate": False})
    frames = np.stack([np.asarray(PIL.Image.open(tmp_path / f"data/images/ball{n:02}.png")) for n in range(3)])
    still, clip = picture(frames[0], tmp_path), picture(frames, tmp_path, frames=3)
    assert agreed(tmp_path / "node", tmp_path / "run", [still]) == "answered"
    assert agreed(tmp_path / "clips", tmp_path / "run", [clip]) == "answered"


COLUMNS = {
    "ordinal": {"label": "grade"},
    "findings": {"finding:bright": "bright", "finding:large": "large"},
    "regression": {"value:size (px)": "size"},
    "survival": {"time": "days", "event": "died"},
}


def followed(root: Path) -> Path:
    """The table of `lesions` with a grade, two findings, a size and a time to an event."""
    table = pd.read_csv(trained.lesions(root, 48))
    bright, size = table["label"] == "bright", table["size_px"]
    table = table[["image", "patient"]].assign(
        grade=1 + bright + (size > size.median()),
        bright=bright.astype(int),
        large=(size > size.median()).astype(int),
        size=size,
        days=2 * size + np.arange(len(size)),
        died=np.where(np.arange(len(size)) % 4, "dead", "alive"),
    )
    table.to_csv(root / "cases.csv", index=False)
    return root / "cases.csv"


def smear(data: Path) -> np.ndarray:
    """The pixels of the first picture of a data set."""
    return np.asarray(PIL.Image.open(next(iter(sorted(data.rglob("*.png"))))))


def picture(pixels: np.ndarray, folder: Path, frames: int | None = None) -> Path:
    """A DICOM image of grey pixels, or a clip of several frames."""
    path = folder / f"{frames or 'still'}.dcm"
    tags = {"Rows": pixels.shape[-2], "Columns": pixels.shape[-1]} | ({"NumberOfFrames": frames} if frames else {})
    path.write_bytes(encoded(simulated(f"1.2.3.{frames or 9}", **tags, PixelData=pixels.astype("<u2").tobytes())))
    return path


def series(voxels: np.ndarray, folder: Path) -> list[Path]:
    """A DICOM series of MR."""
    image = Image(voxels[None].astype(np.int16), Geometry(voxels.shape, np.diag([1.1, 1.1, 1.3, 1.0])), modality="MR")
    series_writing.write_series(image, SeriesNames("p", "study", "series"), folder / "series")
    return sorted((folder / "series").iterdir())


def agreed(folder: Path, model: Path, source: list[Path]) -> str:
    """The outcome of a node's job, whose reports were compared with its record."""
    node = SmallNode(folder, model)
    node.receive(*source)
    node.work()
    [job] = node.rows(tables.JOBS)
    report = findings_report.report_of_job(node.settings, node.database, job.job)
    node.store.close()
    node.database.close()
    assert report.record == json.loads(node.result("findings.json").read_text())
    made = fhir_reports.report_bundle(report, "R5")
    fhir_reports.encode_bundle(made, "R5")
    by_fhir, by_hl7 = (
        resources(made, "Observation"),
        numbers_of_hl7(hl7_reports.oru_message(report).decode(), len(report.rows)),
    )
    for row, of_fhir, of_hl7 in zip(report.rows, by_fhir, by_hl7, strict=True):
        stated = {name: findings_report.finite_or_none(row[name]) for name in ("value", "probability", "low", "high")}
        assert numbers_of_fhir(of_fhir) == stated
        assert {name: one if one is None else float(one) for name, one in of_hl7.items()} == stated
    in_sr = [
        one for one in sr_reading.read_report(node.result("answer_report.dcm")).stated if not isinstance(one.value, str)
    ]
    assert Counter(one.value for one in in_sr) == Counter(numbers_in(report.rows))
    for end in ("low", "high"):
        # The ends stand at their number; without one they are numbers of their own.
        valued = [row for row in report.rows if findings_report.finite_or_none(row["value"]) is not None]
        kept = sorted(number for row in valued if (number := findings_report.finite_or_none(row[end])) is not None)
        ends = sorted(number for one in in_sr if (number := getattr(one, end)) is not None)
        assert ends == pytest.approx(kept, rel=1e-6)
    return str(job.outcome)


def rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def numbers_in(rows: list[dict[str, object]]) -> list[float]:
    """The same numbers of a record."""
    values = [rounded(number) for row in rows if (number := findings_report.finite_or_none(row["value"])) is not None]
    bare = [row[end] for row in rows for end in ("low", "high") if row["value"] is None]
    values += [rounded(number) for end in bare if (number := findings_report.finite_or_none(end)) is not None]
    return values + [
        rounded(100 * number)
        for row in rows
        if (number := findings_report.finite_or_none(row["probability"])) is not None
    ]
