from __future__ import annotations

import pytest

from fingerprints import facts, several
from isocenter.planning.rules.normalisation import normalisation
from isocenter.runtime import Preprocessing
from isocenter.values import Fingerprint

HU = {"min": -1024.0, "low": -1000.0, "high": 1500.0, "mean": -300.0, "deviation": 400.0}


def only(found: Fingerprint, modality: str, *structures: str) -> dict:
    [one] = normalisation(found, ("0",), modality, structures).value
    return one


def test_of_most_images_each_goes_by_its_own_mean():
    for modality in ("MR", "US", "DX", "PT", "MG", "unknown", "SOMETHING"):
        assert only(several(3), modality)["method"] == "zscore"


def test_a_ct_is_windowed_for_the_tissue_that_its_labels_name():
    decision = normalisation(several(3, intensity=HU, inside=HU), ("0",), "CT", ["liver", "spleen"])
    [one] = decision.value
    assert (one["method"], one["low"], one["high"]) == ("window", -160.0, 240.0)
    assert (one["low"] - one["mean"]) / one["deviation"] == -2
    assert (one["high"] - one["mean"]) / one["deviation"] == 2
    assert '"liver" is to be seen' in decision.because


def test_a_ct_of_anything_else_by_percentiles_inside_the_structures_of_the_training_cases():
    marked = [
        facts(name=str(n), intensity=HU, inside={"low": -50.0 + n, "high": 200.0 + n, "mean": 80.0, "deviation": 30.0})
        for n in range(3)
    ]
    plain = facts(name="empty", intensity=HU)
    decision = normalisation(Fingerprint((*marked, plain)), ("0",), "CT", ["lesion"])
    [one] = decision.value
    assert one == {"method": "window", "low": -49.0, "high": 201.0, "mean": 80.0, "deviation": 30.0}
    assert "3 training cases" in decision.because


def test_a_ct_without_masks_by_percentiles_of_the_whole():
    one = only(several(2, intensity=HU), "CT", "lesion")
    assert (one["low"], one["high"], one["mean"]) == (-1000.0, 1500.0, -300.0)


def test_a_ct_that_was_brought_to_grey_levels_is_not_taken_for_hounsfield_units():
    decision = normalisation(several(2, intensity={"min": 0.0}), ("0",), "CT", ["liver"])
    assert decision.value[0]["method"] == "zscore"
    assert "no Hounsfield units" in decision.because


def test_pet_beside_ct_goes_each_by_its_own():
    found = several(2, channels=("PET", "CT"), intensity=HU)
    pet, ct = normalisation(found, ("PET", "CT"), "unknown", ["lesion"]).value
    assert (pet["method"], ct["method"]) == ("zscore", "window")


def test_colours_keep_their_relation():
    found = several(2, channels=("R", "G", "B"), shape=(20, 20))
    decision = normalisation(found, ("R", "G", "B"), "unknown", [])
    assert [one["method"] for one in decision.value] == ["range"] * 3
    assert decision.value[0]["mean"] == pytest.approx(50 / 255, rel=1e-5)


@pytest.mark.parametrize("modality", ["CT", "MR", "unknown"])
def test_what_is_decided_is_what_preprocessing_takes(modality):
    chosen = normalisation(several(2, intensity=HU), ("0",), modality, ["lesion"]).value
    assert len(Preprocessing.of({"ndim": 3, "channels": ["0"], "normalisation": chosen}).normalisation) == 1
