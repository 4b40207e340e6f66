from __future__ import annotations

import numpy as np
import pytest

from fingerprints import cohort, facts, intensity, several
from hilum.planning.rules import normalisation_rules, preprocessing_rules
from hilum.quality import dataset_examination
from hilum.runtime import Preprocessing
from hilum.values import Case, CaseFacts, Dataset, Fingerprint, Geometry, Image

HU = {"min": -1024.0, "low": -1000.0, "high": 1500.0, "mean": -300.0, "deviation": 400.0}


def only(found: Fingerprint, modality: str, *structures: str) -> dict:
    [one] = normalisation_rules.decide_normalisation(found, ("0",), modality, structures).value
    return one


def test_of_most_images_each_goes_by_its_own_mean():
    for modality in ("MR", "US", "DX", "NM", "MG", "unknown", "SOMETHING"):
        assert only(several(3), modality)["method"] == "zscore"


def test_a_ct_is_windowed_for_the_tissue_that_its_labels_name():
    decision = normalisation_rules.decide_normalisation(
        several(3, intensity=HU, inside=HU), ("0",), "CT", ["liver", "spleen"]
    )
    [one] = decision.value
    assert (one["method"], one["low"], one["high"]) == ("window", -160.0, 240.0)
    assert (one["low"] - one["mean"]) / one["deviation"] == -2
    assert (one["high"] - one["mean"]) / one["deviation"] == 2
    assert '"liver" is to be seen' in decision.because


def test_a_ct_of_anything_else_by_the_voxels_inside_the_structures_of_all_training_cases_pooled():
    """Beside nine lesions in fat lies a dense one, a tenth of all voxels: a median of cases would clip it."""
    rng = np.random.default_rng(0)
    voxels = [rng.normal(-80, 20, 4000) for _ in range(9)] + [rng.normal(300, 40, 4000)]
    marked = [facts(name=str(n), intensity=HU, inside=intensity(own)) for n, own in enumerate(voxels)]
    plain = facts(name="empty", intensity=HU)
    decision = normalisation_rules.decide_normalisation(Fingerprint((*marked, plain)), ("0",), "CT", ["lesion"])
    [one] = decision.value
    pooled = np.concatenate(voxels)
    assert (one["low"], one["high"]) == pytest.approx(np.percentile(pooled, (0.5, 99.5)), abs=8)
    assert (one["mean"], one["deviation"]) == pytest.approx((pooled.mean(), pooled.std()), rel=1e-4)
    assert "10 training cases" in decision.because


def test_a_ct_without_masks_by_percentiles_of_the_whole():
    voxels = np.random.default_rng(0).normal(-300, 400, 10_000)
    one = only(several(2, intensity=intensity(voxels)), "CT", "lesion")
    assert (one["low"], one["high"]) == pytest.approx(np.percentile(voxels, (0.5, 99.5)), rel=1e-4)
    assert one["mean"] == pytest.approx(voxels.mean(), rel=1e-4)


def test_a_ct_that_was_brought_to_grey_levels_is_not_taken_for_hounsfield_units():
    decision = normalisation_rules.decide_normalisation(several(2, intensity={"min": 0.0}), ("0",), "CT", ["liver"])
    assert decision.value[0]["method"] == "zscore"
    assert "not Hounsfield units" in decision.because


def test_pet_beside_ct_goes_each_by_its_own():
    found = several(2, channels=("PET", "CT"), intensity=HU)
    decision = normalisation_rules.decide_normalisation(found, ("PET", "CT"), "unknown", ["lesion"])
    pet, ct = decision.value
    assert (pet["low"], pet["high"], ct["mean"]) == (0, 50, -300)
    assert "standardised uptake values" in decision.because and "Hounsfield units" in decision.because


@pytest.mark.parametrize("order", [("CT", "PET"), ("PET", "CT")])
def test_pet_beside_ct_goes_each_by_its_own_whichever_image_of_a_case_comes_first(order):
    """An image of several has the modality of its first."""
    cases = []
    for n in range(4):
        rng, shape = np.random.default_rng(n), (6, 6, 6)
        ct = Image(rng.normal(0, 400, (1, *shape)).clip(-1000, None), Geometry(shape, np.eye(4)), modality="CT")
        pet = Image(rng.exponential(2, (1, *shape)), Geometry(shape, np.eye(4)), modality="PT")
        mask = Image((rng.random((1, *shape)) > 0.5).astype(np.uint8), Geometry(shape, np.eye(4)))
        both = {"CT": ct, "PET": pet}
        cases.append(Case(f"c{n}", f"p{n}", {name: both[name] for name in order}, {"mask": mask}))
    found = dataset_examination.examine(Dataset(tuple(cases), patients_known=True)).fingerprint
    made = normalisation_rules.decide_normalisation(found, order, found.cases[0].modality, ["lesion"])
    of = dict(zip(order, made.value, strict=True))
    assert (of["PET"]["method"], of["PET"]["high"]) == ("window", 50)
    assert of["CT"]["method"] == "window" and of["CT"]["low"] < -500
    assert "Hounsfield units mean the same" in made.because and "standardised uptake values" in made.because


def test_ct_among_mr_has_no_window_and_plan_and_check_say_why():
    found = Fingerprint(tuple(facts(name=str(n), modality="CT" if n < 6 else "MR", intensity=HU) for n in range(10)))
    decision = normalisation_rules.decide_normalisation(found, ("0",), "CT", ["liver"])
    assert decision.value[0]["method"] == "zscore"
    assert "6 CT, 4 MR have no scale in common" in decision.because
    [problem] = preprocessing_rules.normalised_problems(cohort(found.cases, ["liver"]), found)
    assert problem.what == "the images are of several kinds: 6 CT, 4 MR"


def test_a_single_image_of_another_kind_takes_no_window_away_and_kinds_of_one_scale_are_no_finding():
    cases = [facts(name=str(n), modality="MR" if n == 9 else "CT", intensity=HU) for n in range(20)]
    assert only(Fingerprint(tuple(cases)), "CT", "liver")["method"] == "window"
    alike = Fingerprint(tuple(facts(name=str(n), modality=("DX", "CR")[n % 2], shape=(20, 20)) for n in range(8)))
    assert not list(preprocessing_rules.normalised_problems(cohort(alike.cases), alike))


def test_lesions_of_different_uptake_stay_apart_and_mean_the_same_in_every_pet():
    [chosen] = normalisation_rules.decide_normalisation(
        several(3, intensity={"max": 60.0}), ("0",), "PT", ["lesion"]
    ).value
    scale = Preprocessing.from_settings({"ndim": 3, "channels": ["0"], "normalisation": [chosen]}).normalisation[0]
    everywhere = np.ones((3,), bool)
    first, second = (scale.apply(np.array([6.0, 12.0, hottest]), everywhere) for hottest in (25.0, 60.0))
    assert np.diff(first).min() > 1
    assert (first[:2] == second[:2]).all()


@pytest.mark.parametrize("highest", [43_000.0, 1.0])
def test_pet_in_becquerels_or_brought_to_1_goes_by_each_images_own_mean(highest):
    decision = normalisation_rules.decide_normalisation(
        several(3, intensity={"max": highest}), ("0",), "PT", ["lesion"]
    )
    assert decision.value[0]["method"] == "zscore"
    assert "not a standardised uptake value" in decision.because


def test_images_that_become_one_value_are_counted_and_not_named_in_a_reason_that_packages_keep():
    """As a CT in other units: all of it lies beyond the window."""
    cases = [facts(name=str(n), intensity=HU) for n in range(3)]
    beyond = facts(name="odd", intensity={"min": 5000.0, "max": 9000.0})
    decision = normalisation_rules.decide_normalisation(Fingerprint((*cases, beyond)), ("0",), "CT", ["liver"])
    assert "1 training case will be one value everywhere" in decision.because
    assert "odd" not in decision.because


def test_check_names_the_cases_that_are_one_value_once_normalised_and_no_constant_file_twice():
    cases = [facts(name=str(n), intensity=HU) for n in range(3)]
    beyond = facts(name="odd", intensity={"min": 5000.0, "max": 9000.0})
    constant = facts(name="flat", intensity={"min": 0.0, "max": 0.0})
    found = Fingerprint((*cases, beyond, constant))
    [problem] = preprocessing_rules.normalised_problems(cohort(found.cases, ["liver"], "ct"), found)
    assert (problem.severity, problem.cases) == ("warning", ("odd",))
    assert "one value everywhere once it is normalised" in problem.what
    assert "rescale slope" in problem.remedy
    assert not list(preprocessing_rules.normalised_problems(cohort(cases, ["liver"], "ct"), Fingerprint(tuple(cases))))
    assert not list(
        preprocessing_rules.normalised_problems(cohort(found.cases, ["liver"], "mri"), found)
    )  # each by its own deviation


def test_a_picture_of_one_colour_is_counted_too():
    blank = facts(name="blank", channels=("R", "G", "B"), shape=(20, 20), intensity={"min": 7.0, "max": 7.0})
    found = Fingerprint((*several(2, channels=("R", "G", "B"), shape=(20, 20)).cases, blank))
    decision = normalisation_rules.decide_normalisation(found, ("R", "G", "B"), "unknown", [])
    assert "1 training case will be one value everywhere" in decision.because
    assert "blank" not in decision.because


def test_colours_keep_their_relation():
    found = several(2, channels=("R", "G", "B"), shape=(20, 20))
    decision = normalisation_rules.decide_normalisation(found, ("R", "G", "B"), "unknown", [])
    assert [one["method"] for one in decision.value] == ["range"] * 3
    assert decision.value[0]["mean"] == pytest.approx(50 / 255, rel=1e-5)


def pictures(*brightest: float) -> list[CaseFacts]:
    each = ({"max": most, "mean": most / 4, "deviation": most / 8} for most in brightest)
    colours = {"channels": ("R", "G", "B"), "shape": (20, 20)}
    return [facts(name=f"p{n}", intensity=one, **colours) for n, one in enumerate(each)]


@pytest.mark.parametrize("brightest", [200.0, 3_000.0, 60_000.0, 70_000.0])
def test_colours_of_any_number_of_bits_stay_apart(brightest):
    found = Fingerprint(tuple(pictures(brightest, 0.9 * brightest)))
    chosen = normalisation_rules.decide_normalisation(found, ("R", "G", "B"), "SM", []).value
    scale = Preprocessing.from_settings(
        {"ndim": 2, "channels": ["R", "G", "B"], "normalisation": chosen}
    ).normalisation[0]
    values = scale.apply(np.array([0.0, brightest / 2, brightest]), np.ones(3, bool))
    assert np.diff(values) == pytest.approx([4.0 * 2 / 1.9] * 2, rel=1e-3)  # of the median deviation


def test_colours_of_8_bits_among_colours_of_16_are_named():
    cases = pictures(255.0, 60_000.0, 50_000.0)
    found, what = Fingerprint(tuple(cases)), "1 colour picture without a value above 255, as of 8 bits a colour"
    because = normalisation_rules.decide_normalisation(found, ("R", "G", "B"), "SM", []).because
    assert what in because and "p0" not in because
    [problem] = preprocessing_rules.normalised_problems(cohort(cases), found)
    assert problem.what.startswith(what)
    assert problem.cases == ("p0",)


def test_a_part_of_the_cases_has_the_range_of_all():
    """Of a cross-validation each fold has cases of its own, and their networks are averaged."""
    dark = Fingerprint(tuple(pictures(200.0, 180.0)))
    assert (
        normalisation_rules.decide_normalisation(dark, ("R", "G", "B"), "SM", [], brightest=60_000).value[0]["high"]
        == 65_535
    )


def test_a_black_picture_is_of_as_many_bits_as_the_others():
    found = Fingerprint(tuple(pictures(0.0, 60_000.0, 50_000.0)))
    assert normalisation_rules.decide_normalisation(found, ("R", "G", "B"), "SM", []).value[0]["high"] == 65_535


@pytest.mark.parametrize("modality", ["CT", "MR", "unknown"])
def test_what_is_decided_is_what_preprocessing_takes(modality):
    chosen = normalisation_rules.decide_normalisation(several(2, intensity=HU), ("0",), modality, ["lesion"]).value
    assert len(Preprocessing.from_settings({"ndim": 3, "channels": ["0"], "normalisation": chosen}).normalisation) == 1
