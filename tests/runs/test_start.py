from __future__ import annotations

import logging
import shutil

import pytest

from isocenter.errors import IntegrityError, UsageError
from isocenter.runs.initial_weights import weights_of
from isocenter.runtime import seal, write_zip


@pytest.fixture
def best(segmented) -> bytes:
    """The weights of the run on volumes."""
    return (segmented.out / "checkpoints" / "best" / "weights.safetensors").read_bytes()


def test_a_run_and_a_file_of_weights_give_the_same(segmented, best):
    with weights_of(segmented.out) as weights:
        assert weights.read_bytes() == best
    with weights_of(weights) as given:
        assert given == weights


def test_nothing_to_begin_from_is_nothing():
    with weights_of(None) as weights:
        assert weights is None


def test_a_zipped_package_is_unpacked_for_as_long_as_its_weights_are_needed(packaged, tmp_path):
    write_zip(packaged.out, tmp_path / "shells.zip")
    with weights_of(tmp_path / "shells.zip") as weights:
        assert weights.read_bytes() == (packaged.out / "isocenter" / "weights.safetensors").read_bytes()
    assert not weights.exists()


def test_of_a_run_of_folds_the_first_is_taken_and_that_is_said(segmented, best, tmp_path, caplog):
    for fold in range(2):
        shutil.copytree(segmented.out / "checkpoints", tmp_path / "run" / f"fold_{fold}" / "checkpoints")
    with caplog.at_level(logging.INFO, "isocenter"), weights_of(tmp_path / "run") as weights:
        assert weights.read_bytes() == best
        assert weights.is_relative_to(tmp_path / "run" / "fold_0")
    assert "several networks: training begins from the weights of the first" in caplog.text


def test_of_a_package_of_folds_the_first_is_taken_unless_it_was_changed(packaged, tmp_path):
    folder = shutil.copytree(packaged.out, tmp_path / "folds") / "isocenter"
    first = (folder / "weights.safetensors").rename(folder / "weights_0.safetensors")
    seal(tmp_path / "folds")
    with weights_of(tmp_path / "folds") as weights:
        assert weights == first
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(IntegrityError), weights_of(tmp_path / "folds"):
        pass


def test_of_an_ensemble_the_first_member_is_taken_and_that_is_said(segmented, best, tmp_path, caplog):
    for member in range(2):
        shutil.copytree(segmented.out / "checkpoints" / "best", tmp_path / "both" / "members" / str(member))
    with caplog.at_level(logging.INFO, "isocenter"), weights_of(tmp_path / "both") as weights:
        assert weights.read_bytes() == best
        assert weights.is_relative_to(tmp_path / "both" / "members" / "0")
    assert "several networks: training begins from the weights of the first" in caplog.text


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no weights to begin from"), weights_of(tmp_path):
        pass
