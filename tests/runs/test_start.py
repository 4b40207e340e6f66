from __future__ import annotations

import logging
import shutil
from datetime import timedelta

import pytest
import torch

from foreign_folders import network_of, result_folder
from hilum.errors import IntegrityError, UsageError
from hilum.networks import factory
from hilum.runs import initial_weights
from hilum.runtime import record_files
from hilum.values import Dense


@pytest.fixture
def best(segmented) -> bytes:
    """The weights of the run on volumes."""
    return (segmented.out / "checkpoints" / "best" / "weights.safetensors").read_bytes()


def test_a_run_and_a_file_of_weights_give_the_same(segmented, best):
    with initial_weights.open_weight_source(segmented.out) as source:
        assert source.weights.read_bytes() == best
    with initial_weights.open_weight_source(source.weights) as given:
        assert given.weights == source.weights


def test_nothing_to_begin_from_is_nothing():
    with initial_weights.open_weight_source(None) as source:
        assert source is None


def test_a_zipped_package_is_unpacked_for_as_long_as_its_weights_are_needed(packaged, tmp_path):
    record_files.write_zip(packaged.out, tmp_path / "shells.zip")
    with initial_weights.open_weight_source(tmp_path / "shells.zip") as source:
        assert source.weights.read_bytes() == (packaged.out / "hilum" / "weights.safetensors").read_bytes()
    assert not source.weights.exists()


def test_of_a_run_of_folds_the_first_is_taken_and_that_is_said(segmented, best, tmp_path, caplog):
    for fold in range(2):
        shutil.copytree(segmented.out / "checkpoints", tmp_path / "run" / f"fold_{fold}" / "checkpoints")
    with caplog.at_level(logging.INFO, "hilum"), initial_weights.open_weight_source(tmp_path / "run") as source:
        assert source.weights.read_bytes() == best
        assert source.weights.is_relative_to(tmp_path / "run" / "fold_0")
    assert "several networks: training begins from the weights of the first" in caplog.text


def test_of_a_package_of_folds_the_first_is_taken_unless_it_was_changed(packaged, tmp_path):
    folder = shutil.copytree(packaged.out, tmp_path / "folds") / "hilum"
    first = (folder / "weights.safetensors").rename(folder / "weights_0.safetensors")
    record_files.seal_folder(tmp_path / "folds")
    with initial_weights.open_weight_source(tmp_path / "folds") as source:
        assert source.weights == first
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(IntegrityError), initial_weights.open_weight_source(tmp_path / "folds"):
        pass


def test_of_an_ensemble_the_first_member_is_taken_and_that_is_said(segmented, best, tmp_path, caplog):
    for member in range(2):
        shutil.copytree(segmented.out / "checkpoints" / "best", tmp_path / "both" / "members" / str(member))
    with caplog.at_level(logging.INFO, "hilum"), initial_weights.open_weight_source(tmp_path / "both") as source:
        assert source.weights.read_bytes() == best
        assert source.weights.is_relative_to(tmp_path / "both" / "members" / "0")
    assert "several networks: training begins from the weights of the first" in caplog.text


def test_a_folder_without_weights_is_refused(tmp_path):
    with (
        pytest.raises(UsageError, match="holds no weights to begin from"),
        initial_weights.open_weight_source(tmp_path),
    ):
        pass


def test_of_an_nnunet_folder_the_network_is_that_of_its_checkpoint_and_the_grid_that_of_its_plans(tmp_path):
    order = (1, 0, 2)
    folder = result_folder(tmp_path / "result", "3d_fullres", transpose=order, scheme="CTNormalization")
    with initial_weights.open_weight_source(folder) as source:
        assert source.weights.name == "checkpoint_final.pth"
        assert (source.family, source.size["features"]) == ("plain_conv_unet", [4, 8])
        # nnU-Net's network sees (row, slice, column), and ours (column, row, slice).
        assert source.prepared["spacing"] == [1.0, 1.5, 1.2]
        assert source.prepared["normalisation"][0]["low"] == 5.0
        ours = factory.build(source.family, 1, 3, {"mask": Dense(3)}, source.size)
        made = factory.load_pretrained(ours, source.family, source.size, source.weights)
    assert {row.how for row in made.rows} == {"copied"}
    theirs = network_of(folder)
    images = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        expected = theirs(images)["mask"].permute(0, 1, 4, 2, 3)
        answer = ours.eval()(images.permute(0, 1, 4, 2, 3))["mask"]
    torch.testing.assert_close(answer, expected, atol=1e-5, rtol=1e-5)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save({"state_dict": {}, "made": timedelta(1)}, tmp_path / "weights.pth")
    with (
        pytest.raises(IntegrityError, match="could run any code"),
        initial_weights.open_weight_source(tmp_path / "weights.pth"),
    ):
        pass
