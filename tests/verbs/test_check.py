from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from scipy import ndimage

import hilum
import real_data
import simulated_in_time
import trained
from cohorts import paired, picture
from hilum.errors import DatasetError, UsageError
from hilum.files.storage import hashing
from hilum.layouts import dataset_layouts
from situations import write_picture

# The ultrasound images of the corpus of which facts are known, and as many others as a shortcut takes to be measured.
NAMED = ("benign (433)", "malignant (145)", "benign (164)", "benign (85)", "benign (100)", "normal (4)")
OTHERS = [f"{name} ({n})" for name in ("benign", "malignant", "normal") for n in range(500, 509)]


def lesions(root: Path) -> Path:
    """Simulated speckle with darker lesions, with the classes, names, twins and second masks of the ultrasound set."""
    rows, columns = np.indices((96, 120))
    pixels: dict[str, np.ndarray] = {}
    for seed, name in enumerate((*NAMED, *OTHERS)):
        kind = name.partition(" ")[0]
        generator = np.random.default_rng(seed)
        speckle = ndimage.gaussian_filter(generator.normal(size=rows.shape), 4)
        image = 120 + 160 * speckle + generator.normal(0, 4, rows.shape)
        centres = [] if kind == "normal" else [(40, 35), (50, 85)] if name == "benign (100)" else [(45, 60)]
        for n, (row, column) in enumerate(centres):
            inside = (rows - row) ** 2 + (columns - column) ** 2 < 200
            image[inside] -= 60
            mask = root / "masks" / kind / f"{name}_mask{f'_{n}' if n else ''}.png"
            write_picture(mask, 255 * inside.astype(np.uint8))
        if kind == "normal":
            write_picture(root / "masks" / kind / f"{name}_mask.png", np.zeros(rows.shape, np.uint8))
        pixels[name] = image.clip(0, 255).astype(np.uint8)
    pixels["malignant (145)"] = pixels["benign (433)"]
    pixels["benign (85)"] = (1.1 * pixels["benign (164)"] + 10).clip(0, 255).astype(np.uint8)
    for name, image in pixels.items():
        write_picture(root / "images" / name.partition(" ")[0] / f"{name}.png", image)
    return root


@pytest.fixture(scope="module", params=["simulated", pytest.param("ultrasound", marks=pytest.mark.corpus)])
def checked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("check")
    folder = lesions(root / "simulated") if request.param == "simulated" else real_data.CORPUS / "ultrasound"
    return hilum.check(folder, out=root / "out", threads=1), root / "out"


def test_the_record_holds_the_fingerprint_of_every_case(checked):
    result, out = checked
    record = json.loads((out / "check.json").read_text())
    assert set(record["cases"]) == {case.id for case in result.dataset}
    case = record["cases"]["benign (100)"]
    mask = next(one for one in result.dataset if one.id == "benign (100)").references["mask"].data[0]
    assert case["references"]["mask"]["1"] == np.count_nonzero(mask)
    assert case["components"]["1"] == 2  # the set's own description counts two masks in this image
    assert case["foreground"][0]["mean"] < case["intensity"][0]["mean"]  # a lesion is darker than the tissue around
    assert set(case["quality"][0]) == {"sharpness", "noise", "clipped", "echo", "letters"}
    assert record["cases"]["normal (4)"]["foreground"] == []


def test_its_rows_are_the_same_data(checked):
    result, out = checked
    assert hashing.dataset_hash(dataset_layouts.read_dataset(out / "dataset.csv")) == hashing.dataset_hash(
        result.dataset
    )
    assert repr(result).splitlines()[-1] == f"written: {out / 'check.html'}, {out / 'dataset.csv'}"


def test_a_folder_that_is_refused_gets_a_table_of_its_images(tmp_path):
    for n in range(3):
        picture(tmp_path / "set" / "images" / f"x{n}.png", n)
        picture(tmp_path / "set" / "imgs" / f"x{n}.png", n + 1)
        picture(tmp_path / "set" / "masks" / f"x{n}.png", 255)
    with pytest.raises(DatasetError, match=r"writes dataset\.csv") as refused:
        hilum.check(tmp_path / "set", out=tmp_path / "out")
    assert f"The images are listed in {tmp_path / 'out' / 'dataset.csv'}" in refused.value.remedy
    written = (tmp_path / "out" / "dataset.csv").read_text().splitlines()
    assert written[0].startswith("case,patient,split,image")


def test_the_record_holds_twins_and_shortcuts(checked):
    _, out = checked
    record = json.loads((out / "check.json").read_text())
    assert {tuple(one["cases"]) for one in record["twins"]} == {
        ("benign (433)", "malignant (145)"),
        ("benign (164)", "benign (85)"),
    }
    assert {"image size", "border pixels"} <= {one["name"] for one in record["shortcuts"]}
    assert all(0 <= one["p"] <= 1 for one in record["shortcuts"])
    assert record["passed"]


def test_the_page_says_in_its_lead_that_patients_are_unknown_and_shows_twins(checked):
    result, out = checked
    page = (out / "check.html").read_text(encoding="utf-8")
    assert result.facts["patients"].startswith("unknown (each case stands for itself")
    assert "Patients are unknown: a split is by case, and leakage cannot be excluded." in page
    assert "benign (433) and malignant (145), equal images" in page
    assert "Shortcuts to the answer" in page
    assert re.search(r"benign \(\d+\), malignant \(\d+\)", page)


def test_the_worst_findings_come_first_with_reason_and_remedy(checked):
    result, _ = checked
    lines = repr(result).splitlines()
    severities = [line.split()[0] for line in lines if line.split()[0] in ("error", "warning", "note")]
    assert severities == sorted(severities, key=("error", "warning", "note").index)
    at = next(n for n, line in enumerate(lines) if "with different classes" in line)
    assert "[benign (433), malignant (145)]" in lines[at]
    assert "One of them is wrong" in lines[at + 1]
    assert "Ask who labelled them" in lines[at + 2]


def test_nothing_is_written_unless_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert hilum.check(trained.pictures(tmp_path / "data")).passed
    assert not list((tmp_path / "empty").iterdir())


def test_a_set_in_memory_without_classes_or_masks_has_a_page_too(data: Path, tmp_path):
    dataset = dataset_layouts.read_dataset(data / "hippocampus")
    bare = replace(dataset, cases=tuple(replace(case, references={}) for case in dataset.cases[:3]))
    assert hilum.check(bare, out=tmp_path / "out").passed
    assert "Cases, evenly chosen" in (tmp_path / "out" / "check.html").read_text(encoding="utf-8")


def test_a_channel_without_a_name_is_not_called_nought_and_long_lists_are_cut(tmp_path):
    folder = trained.blobs(tmp_path / "data", 4)
    assert hilum.check(folder, threads=1).facts["channels"] == "one, without a name"


def test_series_are_drawn_in_the_unit_of_their_own_axis(tmp_path):
    for n in range(4):
        leads, peak = simulated_in_time.beats(n, samples=160 + n)
        for folder, columns in (("images", {"I": leads[0], "II": leads[1]}), ("labels", {"peak": peak})):
            simulated_in_time.table(tmp_path / "data" / folder / f"patient{n}.csv", columns, step=0.005 * (1 + n % 2))
    hilum.check(tmp_path / "data", out=tmp_path / "out", threads=1)
    page = (tmp_path / "out" / "check.html").read_text(encoding="utf-8")
    assert "Dots of spacing (s)." in page and "Dots of size (samples)." in page


def exchanged(root: Path, count: int, other: int = 0) -> Path:
    """Noise as masks of squares, and as images of `other` cases."""
    for n in range(count + other):
        square = np.zeros((24, 20), np.uint8)
        square[4 + n : 12, 5:15] = 255
        noise = np.random.default_rng(n).integers(0, 250, square.shape).astype(np.uint8)
        for folder, pixels in zip(("images", "masks"), (square, noise) if n < count else (noise, square), strict=True):
            (root / folder).mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(pixels).save(root / folder / f"x{n}.png")
    return root


def test_images_and_masks_that_are_exchanged_are_called_that_in_one_finding(tmp_path):
    whole = hilum.check(exchanged(tmp_path / "all", 5), out=tmp_path / "out", threads=1)
    [problem] = whole.problems
    assert problem.what.startswith("images and masks are exchanged") and not whole.passed
    page = (tmp_path / "out" / "check.html").read_text(encoding="utf-8")
    assert "Images and masks are exchanged" in page and "How it looks" not in page
    with pytest.raises(DatasetError, match=r"images and masks are exchanged: .* Exchange the names of their folders"):
        hilum.plan(tmp_path / "all")
    some = hilum.check(exchanged(tmp_path / "one", 1, 5), threads=1)
    assert ("image and mask are exchanged", ("x0",)) in [(one.what, one.cases) for one in some.problems]
    assert some.passed and len(some.examination.dataset) == 5


@pytest.mark.parametrize("kind", ["run", "evaluation"])
def test_a_folder_that_we_wrote_is_called_what_it_is(kind, tmp_path):
    if kind == "run":
        for name in ("plan.yaml", "split.csv", "dataset.csv", "log.csv"):
            (tmp_path / name).write_text("case,patient\n")
    else:
        (tmp_path / "summary.json").write_text('{"schema": "hilum.summary", "version": 1, "rows": []}')
    says = {"run": "is a run of hilum, and no data set. .*dataset.csv", "evaluation": "is an evaluation"}[kind]
    with pytest.raises(UsageError, match=says):
        hilum.check(tmp_path)


def test_a_second_check_of_the_same_data_replaces_its_own_files_and_nothing_that_a_person_made(tmp_path):
    folder, out = paired(tmp_path / "data"), tmp_path / "out"
    hilum.check(folder, out=out, threads=1)
    (out / "notes" / "mine.txt").parent.mkdir()
    (out / "notes" / "mine.txt").write_text("seen")
    for part in ("images", "labels"):
        picture(folder / part / "one_more.png", 255)
    hilum.check(folder, out=out, threads=1)
    assert "one_more" in (out / "dataset.csv").read_text() and (out / "notes" / "mine.txt").read_text() == "seen"
    with pytest.raises(UsageError, match="exists already"):
        hilum.check(paired(tmp_path / "other"), out=out, threads=1)
    before = (out / "dataset.csv").read_text()
    (out / "dataset.csv").write_text(before + "x,x,,,\n")
    with pytest.raises(UsageError, match=r"dataset.csv was changed since the last check"):
        hilum.check(folder, out=out, threads=1)
    assert (out / "dataset.csv").read_text() != before
    hilum.check(folder, out=out, threads=1, overwrite=True)
    assert (out / "dataset.csv").read_text() == before and (out / "notes" / "mine.txt").exists()
    (out / "check.json").unlink()
    with pytest.raises(UsageError, match="exists already"):
        hilum.check(folder, out=out, threads=1)


def test_a_folder_that_was_refused_is_checked_again_once_it_is_mended(tmp_path):
    for folder in ("images", "imgs", "masks"):
        for n in range(3):
            picture(tmp_path / "set" / folder / f"x{n}.png", 255 * (folder == "masks") or n)
    for _ in range(2):
        with pytest.raises(DatasetError, match=r"The images are listed in .*dataset\.csv"):
            hilum.check(tmp_path / "set", out=tmp_path / "out")
    shutil.rmtree(tmp_path / "set" / "imgs")
    hilum.check(tmp_path / "set", out=tmp_path / "out", threads=1)
    assert json.loads((tmp_path / "out" / "check.json").read_text())["cases"]
