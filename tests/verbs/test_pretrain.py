"""A network is taught without references, and a training starts from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import hilum
import trained
from hilum.errors import DatasetError, HilumError, PlanError, UsageError
from hilum.planning import plan_file
from hilum.runtime import record_files
from hilum.training import recipe
from hilum.verbs.train import Run

SMALL = {"device": "cpu", "threads": 1}


def pretraining(data: Path, out: Path, *further: Path, **flags: Any) -> Run:
    """Six steps on small pictures."""
    stated = {"network.size": trained.SMALL_RESNET, "training.batch": 4, **flags.pop("assignments", {})}
    assignments = {**trained.FEW_STEPS, **stated}
    return hilum.pretrain([data, *further], out=out, assignments=assignments, **SMALL, **flags)


@pytest.fixture(scope="module")
def contrasted(tmp_path_factory: pytest.TempPathFactory) -> trained.Trained:
    """Pictures of two classes, of which nobody reads the class, and a network that has seen them."""
    root = tmp_path_factory.mktemp("contrast")
    data = trained.pictures(root / "data")
    pretraining(data, root / "run")
    return trained.Trained(data, root / "run")


def test_views_are_contrasted_where_the_network_gives_numbers_for_the_image(contrasted):
    plan = plan_file.read_plan(contrasted.out / "plan.yaml")
    assert (plan["task.name"], plan["task.head"], plan["objectives.terms"]) == (
        "representation",
        "embedding",
        ["contrast"],
    )
    log = pd.read_csv(contrasted.out / "log.csv")
    assert log["rank"].notna().sum() == log["validation"].notna().sum() == 2
    assert (log["validation"].dropna() < 0).all()
    [row] = trained.rows_of(contrasted.out)
    assert (row["metric"], row["n"]) == ("rank", 8)


def test_its_result_is_what_the_network_sees(contrasted):
    pictures = sorted(contrasted.data.rglob("*.png"))[:2]
    predicted = hilum.predict(contrasted.out, [*pictures], device="cpu")
    embedded = hilum.embed(contrasted.out, [*pictures], device="cpu")
    names = [f"e{n}" for n in range(embedded.features)]
    assert embedded.features == 8
    assert predicted.table[names].to_numpy() == pytest.approx(embedded.table[names].to_numpy(), rel=1e-4)
    assert not set(predicted.table) & {"predicted", "total"}


def test_it_is_evaluated_on_other_images_whatever_is_known_of_them(contrasted, tmp_path):
    other = trained.pictures(tmp_path / "other", count=4, first=100)
    shutil.copytree(other / "dark", tmp_path / "images")
    for data, count in ((other, 4), (tmp_path / "images", 2)):
        found = hilum.evaluate(contrasted.out, data, out=tmp_path / f"of-{data.name}", device="cpu")
        [row] = found.table.to_dict("records")
        assert (row["metric"], row["n"]) == ("rank", count)
        assert 1 <= row["value"] <= count


def test_it_is_no_part_of_another_kind_of_problem_and_never_picked_by_itself(contrasted, tmp_path):
    with pytest.raises(PlanError, match="joins no other kind"):
        hilum.train(contrasted.data, out=tmp_path / "run", task="representation+classification")
    unlabelled = tmp_path / "images"
    shutil.copytree(contrasted.data / "dark", unlabelled)
    with pytest.raises(DatasetError):
        hilum.train(unlabelled, out=tmp_path / "run")


@pytest.mark.whole
def test_a_training_starts_from_its_encoder(contrasted, tmp_path):
    run = trained.classifying(
        contrasted.data, tmp_path / "run", start=contrasted.out, seed=1, assignments=trained.TWO_STEPS
    )
    record = json.loads((run.out / "checkpoints" / "last" / "model.json").read_text())["record"]
    assert "began_from" in record
    before, after = (
        record_files.read_tensors(next((out / "checkpoints").rglob("*.safetensors")))
        for out in (contrasted.out, run.out)
    )
    shared = [name for name in before if name in after]
    assert len(shared) >= len(before) - 2
    assert any("had trained or selected a model that this one started" in note for note in run.notes)


@pytest.mark.whole
def test_it_is_packaged_and_computed_by_onnx(contrasted, tmp_path):
    hilum.package(contrasted.out, out=tmp_path / "model", backends=("onnx",))
    picture = next(contrasted.data.rglob("*.png"))
    found = [
        hilum.predict(tmp_path / "model", picture, device="cpu", backend=backend).table.filter(regex=r"^e\d+$")
        for backend in ("onnx", "torch")
    ]
    assert found[0].to_numpy() == pytest.approx(found[1].to_numpy(), rel=1e-3, abs=1e-4)
    assert found[0].shape == (1, 8)


@pytest.mark.whole
def test_blanked_voxels_are_restored_where_the_network_gives_an_image(tmp_path):
    data = trained.blobs(tmp_path / "data")
    unlabelled = tmp_path / "unlabelled"
    shutil.copytree(data / "images", unlabelled)
    stated = {**trained.FEW_STEPS, "network.size": trained.SMALL_UNET}
    before = hilum.pretrain(unlabelled, out=tmp_path / "before", assignments=stated, **SMALL)
    plan = plan_file.read_plan(before.out / "plan.yaml")
    assert (plan["task.head"], plan["objectives.terms"]) == ("image", ["masked"])
    loss = pd.read_csv(before.out / "log.csv")["loss"]
    assert loss.iloc[-1] < loss.iloc[0]
    run = trained.segmenting(data, tmp_path / "run", start=before.out, assignments=trained.TWO_STEPS)
    assert run.steps == 2


@pytest.mark.whole
def test_quarter_turns_are_told_apart(contrasted, tmp_path):
    run = pretraining(contrasted.data, tmp_path / "run", objective="rotation")
    assert pd.read_csv(run.out / "log.csv")["loss"].between(0.5, 3).all()


@pytest.mark.whole
def test_keys_wait_in_a_queue_and_a_stopped_training_goes_on_with_them(contrasted, tmp_path):
    stated = {"contrast.queue": 8, "contrast.positives": "patient", "training.steps": 3}

    def stops(moment: Any) -> None:
        if moment.step == 2:
            raise KeyboardInterrupt

    whole = pretraining(contrasted.data, tmp_path / "whole", objective="contrast", assignments=stated)
    with pytest.raises(KeyboardInterrupt), trained.watching(stops):
        pretraining(contrasted.data, tmp_path / "run", objective="contrast", assignments=stated)
    run = hilum.pretrain(resume=tmp_path / "run")
    ends = [record_files.read_tensors(one.out / "checkpoints" / "last" / "weights.safetensors") for one in (whole, run)]
    assert all(np.array_equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.whole
def test_several_data_sets_are_learnt_from_without_the_patients_that_a_run_holds_out(contrasted, tmp_path):
    other = trained.pictures(tmp_path / "other", count=6, first=100)
    run = pretraining(
        contrasted.data, tmp_path / "run", other, leave_out=contrasted.out, assignments={"training.steps": 1}
    )
    parts = pd.read_csv(contrasted.out / "split.csv").set_index("case")["split"]
    held = set(parts[parts.isin(["val", "test"])].index)
    names = set(pd.read_csv(run.out / "split.csv")["case"])
    assert held and not names & held
    assert len(names) == 40 - len(held) + 6


def test_a_training_on_all_images_looks_at_a_share_of_them(contrasted, tmp_path):
    pretraining(contrasted.data, tmp_path / "run", everything=True)
    log = pd.read_csv(tmp_path / "run" / "log.csv")
    assert log["rank"].notna().any()
    assert log["validation"].isna().all()


@pytest.mark.whole
@pytest.mark.parametrize("everything", [False, True])
def test_features_that_collapse_end_it(contrasted, tmp_path, monkeypatch, everything):
    monkeypatch.setattr(recipe, "LEAST_SHARE", 2.0)
    often = {"training.validations": 6}
    with pytest.raises(HilumError, match="the features collapsed"):
        pretraining(contrasted.data, tmp_path / "run", assignments=often, everything=everything)


def test_contrast_of_a_single_image_is_refused(contrasted, tmp_path):
    with pytest.raises(PlanError, match="contrast compares 2 images or more, and a batch has 1"):
        pretraining(contrasted.data, tmp_path / "run", assignments={"training.batch": 1})


def test_rotation_of_pictures_without_an_up_is_refused(contrasted, tmp_path):
    with pytest.raises(PlanError, match="the images have no up"):
        pretraining(contrasted.data, tmp_path / "run", objective="rotation", modality="SM")


def test_a_folder_without_an_image_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises((DatasetError, UsageError)):
        pretraining(tmp_path / "data", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("objective", ["supervised", "nonsense"])
def test_an_objective_that_cannot_teach_is_refused(contrasted, tmp_path, objective):
    with pytest.raises(PlanError, match=r"needs references|there is no objective"):
        pretraining(contrasted.data, tmp_path / "run", objective=objective)
