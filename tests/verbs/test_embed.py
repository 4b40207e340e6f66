"""`embed`: a row of features for each image, by whatever computes the model."""

import json

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch

import hilum
import trained
from hilum.errors import DatasetError, UsageError
from hilum.networks import factory, network_parts
from hilum.runtime import Model
from hilum.runtime.guard.image_observation import Observation
from hilum.transforms import channel_stack


def numbers(table):
    return table[[name for name in table if name[1:].isdecimal()]].to_numpy()


def test_each_image_gets_the_mean_of_the_deepest_map_of_the_network(classified):
    model = hilum.load(classified.out)
    picture = sorted(classified.data.rglob("*.png"))[0]
    table = hilum.embed(model, picture).table
    image = hilum.read(picture)
    prepared, _ = model.preprocessing.open_image(channel_stack.stack_images({"image": image}, "x"), "x")
    at = factory.family_of(model.networks.architecture["name"]).features
    batch = torch.from_numpy(np.asarray(prepared, dtype=np.float32)[None])
    with torch.inference_mode():
        expected = network_parts.compute_features(model.networks.run.module, batch, at=at).pooled[0].numpy()
    assert numbers(table)[0] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_folder_becomes_a_table_of_cases_patients_and_numbers(classified, tmp_path):
    made = hilum.embed(classified.out, classified.data, out=tmp_path / "seen")
    table, record = pd.read_parquet(tmp_path / "seen" / "embeddings.parquet"), tmp_path / "seen" / "embeddings.json"
    pd.testing.assert_frame_equal(table, made.table)
    assert list(table.columns[:4]) == ["case", "patient", "image", "e0"]
    assert len(table) == len(list(classified.data.rglob("*.png")))
    assert json.loads(record.read_text(encoding="utf-8"))["features"] == made.features == numbers(table).shape[1]
    assert np.ptp(numbers(table), axis=0).max() > 0


def test_features_of_a_volume_are_the_mean_over_its_windows(segmented):
    table = hilum.embed(segmented.out, segmented.data).table
    assert len(table) and np.isfinite(numbers(table)).all()


def test_a_package_computed_by_onnx_gives_the_same_features(segmented, packaged):
    images = segmented.data
    by_torch, by_onnx = (
        numbers(hilum.embed(path, images, **how).table)
        for path, how in ((segmented.out, {}), (packaged.out, {"backend": "onnx"}))
    )
    assert by_onnx == pytest.approx(by_torch, rel=1e-2, abs=1e-3)


@pytest.mark.whole
def test_a_package_without_a_gate_gives_features_whatever_is_its_fastest_backend(classified, tmp_path):
    chosen = {**trained.TWO_STEPS, "network.size": trained.SMALL_RESNET, "guard.gate": False}
    run = trained.classifying(classified.data, tmp_path / "run", assignments=chosen).out
    hilum.package(run, out=tmp_path / "package", backends=("onnx",))
    of_run, of_package = (numbers(hilum.embed(path, classified.data).table) for path in (run, tmp_path / "package"))
    assert of_package == pytest.approx(of_run, rel=1e-2, abs=1e-3)
    with pytest.raises(UsageError, match="--backend torch"):
        hilum.embed(tmp_path / "package", classified.data, backend="onnx")


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_embedded(classified, tmp_path, cli):
    for n, path in enumerate(sorted(classified.data.rglob("*.png"))[:2]):
        (tmp_path / f"{n}.png").write_bytes(path.read_bytes())
    (tmp_path / "cut.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])
    done = cli("embed", classified.out, tmp_path, "--out", tmp_path / "seen")
    assert done.code == 1
    assert "2 cases with" in done.out
    assert "cut" in done.out
    assert len(pd.read_parquet(tmp_path / "seen" / "embeddings.parquet")) == 2


def test_no_image_that_can_be_read_is_an_error_and_nothing_is_written(classified, tmp_path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    with pytest.raises(DatasetError, match="cut"):
        hilum.embed(classified.out, tmp_path / "cut.png", out=tmp_path / "seen")
    assert not (tmp_path / "seen").exists()


def test_a_network_without_such_features_is_refused(classified, monkeypatch, tmp_path):
    monkeypatch.setattr(Model, "observe", lambda model, case: (Observation(None), None))
    PIL.Image.new("L", (32, 32)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="gives no pooled features"):
        hilum.embed(classified.out, tmp_path / "a.png")


def test_after_ctrl_c_the_cases_that_were_done_are_kept(classified, monkeypatch, tmp_path):
    seen, look = [], Model.observe

    def pressed(model, case):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(case.id)
        return look(model, case)

    monkeypatch.setattr(Model, "observe", pressed)
    with pytest.raises(KeyboardInterrupt):
        hilum.embed(classified.out, classified.data, out=tmp_path / "seen")
    assert list(pd.read_parquet(tmp_path / "seen" / "embeddings.parquet")["case"]) == seen
