"""Images are synthesised of a class, marked, compared with those that trained, and train."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest

import hilum
import trained
from hilum.errors import HilumError, UsageError
from hilum.evaluation import image_copies
from hilum.files import file_formats, synthetic_marks
from hilum.planning import plan_file
from hilum.prediction import predictors
from hilum.reading import ReadingOptions, dataset_reading
from hilum.runtime import record_files
from hilum.runtime.image_synthesis import ImageSynthesiser
from hilum.values import Geometry, Image

SMALL: dict[str, Any] = {
    "training.steps": 30,
    "training.validations": 1,
    "training.batch": 4,
    "network.size": {"width": 8, "levels": 2, "blocks": 1},
}


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> trained.Trained:
    """Pictures of two classes, and a network that has begun to synthesise them."""
    root = tmp_path_factory.mktemp("synthesis")
    data = trained.pictures(root / "data")
    hilum.train(data, out=root / "run", task="synthesis", assignments=SMALL, device="cpu", threads=1)
    return trained.Trained(data, root / "run")


@pytest.fixture(scope="module")
def synthetic(generator: trained.Trained) -> Path:
    """Two images of each class, with a table of all images."""
    out = generator.out.parent / "synthetic"
    hilum.synthesise(generator.out, count=2, steps=2, data=generator.data, out=out, device="cpu")
    return out


def test_the_plan_synthesises_by_class_on_a_scale_that_comes_back(generator):
    plan = plan_file.read_plan(generator.out / "plan.yaml")
    assert (plan["network.name"], plan["objectives.terms"]) == ("diffusion_unet", ["flow"])
    assert (sorted(plan["task.classes"]), plan["task.structures"]) == (["bright", "dark"], None)
    assert plan["training.sampling"] == "square_root"
    [scale] = plan["preprocessing.normalisation"]
    assert (scale["low"] - scale["mean"]) / scale["deviation"] == pytest.approx(-1)
    assert (scale["high"] - scale["mean"]) / scale["deviation"] == pytest.approx(1)
    assert not any(plan[f"augmentation.{name}"] for name in ("rotation", "noise", "contrast", "gamma", "shift"))
    assert "few" in plan.decision("task.classes").because


def test_folders_of_classes_are_read_as_data_and_every_file_is_marked(generator, synthetic):
    files = sorted(synthetic.rglob("*.png"))
    model = record_files.read_json(synthetic / "synthesis.json", "hilum.synthesis")["model"]
    assert [file.parent.name for file in files] == ["bright", "bright", "dark", "dark"]
    assert {synthetic_marks.read_mark(file) for file in files} == {model} == {hilum.load(generator.out).sha256}
    images = [file_formats.read(file) for file in files]
    sizes = {file_formats.read(file).data.shape for file in generator.data.rglob("*.png")}
    assert all(one.data.dtype == np.uint8 and one.data.shape in sizes for one in images)
    assert "usefulness: not measured" in (synthetic / "report.html").read_text()


def test_the_table_has_the_real_rows_with_their_parts_and_synthetic_ones_train(generator, synthetic):
    rows = pd.read_csv(synthetic / "dataset.csv").to_dict("records")
    added = [row for row in rows if row["case"].startswith("synthetic_")]
    assert len(rows) == 40 + 4
    assert {row["split"] for row in added} == {"train"}
    assert {row["split"] for row in rows if row not in added} == {"train", "val", "test"}


def test_the_same_seed_makes_the_same_images(generator):
    first, second = (
        hilum.synthesise(generator.out, count=1, steps=2, label="dark", seed=5, device="cpu").images for _ in range(2)
    )
    assert list(first) == list(second) == ["dark/synthetic_00000.png"]
    for name, image in first.items():
        assert np.array_equal(image.data, second[name].data)


def test_an_image_nearer_than_test_images_are_is_withheld_and_replaced(generator, monkeypatch, tmp_path):
    monkeypatch.setattr("hilum.evaluation.image_copies.copy_threshold", lambda distances: np.inf)
    found = hilum.synthesise(generator.out, count=2, steps=1, label="dark", out=tmp_path / "out", device="cpu")
    assert found.rows == []
    assert found.withheld == {"dark": 4}
    assert not list((tmp_path / "out").rglob("*.png"))
    assert json.loads((tmp_path / "out" / "synthesis.json").read_text())["withheld"] == {"dark": 4}


def test_a_copy_in_features_is_withheld_though_its_pixels_are_far(generator, monkeypatch):
    from_images = image_copies.KnownImages.from_images

    def strict_in_features(trained, unseen, *, is_scaled=False):
        known = from_images(trained, unseen, is_scaled=is_scaled)
        return replace(known, threshold=np.inf if is_scaled else 0.0)

    asked = {"count": 1, "steps": 1, "label": "dark", "device": "cpu", "features": generator.out}
    found = hilum.synthesise(generator.out, **asked)
    assert found.thresholds.keys() == {"pixels", "features"}
    assert all(row["feature_distance"] >= found.thresholds["features"] for row in found.rows)
    monkeypatch.setattr(image_copies.KnownImages, "from_images", strict_in_features)
    assert hilum.synthesise(generator.out, **asked).withheld == {"dark": 2}


def test_a_mask_of_other_proportions_than_the_images_is_refused_by_both_sizes(generator):
    synthesiser = ImageSynthesiser(predictors.load_model(generator.out, "cpu"))
    mask = Image(np.ones((1, 10, 90), np.uint8), Geometry.of_pixels((10, 90)))
    with pytest.raises(UsageError, match="the mask has 10 x 90 voxels, and images are synthesised with"):
        synthesiser.mask_on_network_grid(mask, "mask.png")


def test_a_full_disk_halfway_leaves_no_images(generator, monkeypatch, tmp_path):
    write, written = file_formats.write, list[Path]()

    def failing(image, path):
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)
        write(image, path)

    monkeypatch.setattr(file_formats, "write", failing)
    with pytest.raises(HilumError):
        hilum.synthesise(generator.out, count=2, steps=1, label="dark", out=tmp_path / "out", device="cpu")
    assert written
    assert list(tmp_path.iterdir()) == []


def test_few_images_of_a_class_are_a_warning_of_copies(generator, caplog):
    found = hilum.synthesise(generator.out, count=1, steps=1, label="dark", device="cpu")
    assert "may be copies" in found.sentences[0]
    assert "may be copies" in caplog.text


def test_images_of_neither_class_nor_mask_are_written_into_one_folder(tmp_path):
    data = trained.pictures(tmp_path / "labelled")
    bare = tmp_path / "bare"
    bare.mkdir()
    for n, file in enumerate(sorted(data.rglob("*.png"))[::2]):
        shutil.copy(file, bare / f"{n:02}.png")
    small = {**SMALL, "training.steps": 2}
    hilum.train(bare, out=tmp_path / "run", task="synthesis", assignments=small, device="cpu", threads=1)
    plan = plan_file.read_plan(tmp_path / "run" / "plan.yaml")
    assert (plan["task.classes"], plan["task.structures"]) == ([], None)
    out = tmp_path / "synthetic"
    asked = {"guidance": 2.0, "steps": 1, "device": "cpu"}
    hilum.synthesise(tmp_path / "run", count=2, data=bare, out=out, **asked)
    assert sorted(file.parent.name for file in out.rglob("*.png")) == ["images", "images"]
    rows = pd.read_csv(out / "dataset.csv").to_dict("records")
    assert [row["split"] for row in rows if row["case"].startswith("synthetic_")] == ["train", "train"]
    with pytest.raises(UsageError, match="synthesises no 'dark'"):
        hilum.synthesise(tmp_path / "run", label="dark", **asked)


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"label": "grey"}, "synthesises no 'grey'"), ({"mask": "mask.png"}, "without masks")],
)
def test_what_the_model_was_not_trained_on_is_refused_and_nothing_is_written(generator, tmp_path, asked, words):
    with pytest.raises(UsageError, match=words):
        hilum.synthesise(generator.out, out=tmp_path / "out", device="cpu", **asked)
    assert not (tmp_path / "out").exists()


def test_a_run_that_synthesises_nothing_is_refused(classified):
    with pytest.raises(UsageError, match="synthesises no images"):
        hilum.synthesise(classified.out, device="cpu")


@pytest.mark.whole
def test_volumes_are_synthesised_by_masks_and_lie_on_their_grid(tmp_path):
    data = trained.blobs(tmp_path / "data")
    small = {**SMALL, "training.steps": 2}
    hilum.train(data, out=tmp_path / "run", task="synthesis", assignments=small, device="cpu", threads=1)
    masks = tmp_path / "masks"
    masks.mkdir()
    for n in (3, 4):
        shutil.copy(data / "labels" / f"case{n:02}.nii.gz", masks)
    out = tmp_path / "synthetic"
    found = hilum.synthesise(
        tmp_path / "run", count=1, steps=2, guidance=2.0, mask=masks, data=data, out=out, device="cpu"
    )
    assert [row["label"] for row in found.rows] == ["case03", "case04"]
    for row in found.rows:
        name = Path(row["file"]).name
        image, label = (file_formats.read(out / folder / name) for folder in ("images", "labels"))
        asked = file_formats.read(masks / f"{row['label']}.nii.gz")
        assert np.array_equal(label.data, asked.data)
        assert image.geometry.equals(label.geometry, 1e-3)
        assert image.geometry.spacing == pytest.approx(asked.geometry.spacing, rel=1e-5)
        assert np.abs(image.geometry.affine[:3, 3]).max() < 1e-4
        assert (
            synthetic_marks.read_mark(out / "images" / name) == synthetic_marks.read_mark(out / "labels" / name) != ""
        )
    read = dataset_reading.open_dataset(out / "dataset.csv", ReadingOptions())
    assert len(read) == 12 + 2
    assert read.kinds == {"mask"}
    odd = tmp_path / "odd.nii.gz"
    nibabel.Nifti1Image(np.ones((16, 16, 40), np.uint8), trained.OBLIQUE).to_filename(odd)
    with pytest.raises(UsageError, match="the mask has 16 x 16 x 40 voxels"):
        hilum.synthesise(tmp_path / "run", mask=odd, device="cpu")
    with pytest.raises(UsageError, match="synthesises by masks"):
        hilum.synthesise(tmp_path / "run", device="cpu")
