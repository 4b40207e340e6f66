from __future__ import annotations

from dataclasses import replace

import pytest

from fingerprints import cohort, facts, several
from hilum.planning.rules import anatomy_rules
from hilum.values import Label


@pytest.mark.parametrize("name", ["liver", "Spleen", "PNEUMONIA", "chest_xray", "left kidney", "aorta", "Myocardium"])
def test_the_trunk_has_two_different_sides(name):
    assert anatomy_rules.suggest_anatomy([name]).sides == "different"
    assert anatomy_rules.suggest_anatomy([name]).word == name


@pytest.mark.parametrize("name", ["hippocampus", "Brain", "left knee", "retinamnist", "eye", "hip", "breast"])
def test_head_and_limbs_are_alike_on_both_sides(name):
    assert anatomy_rules.suggest_anatomy([name]).sides == "alike"


@pytest.mark.parametrize("name", ["lesion", "1", "whip", "eyelike", "set", "shell"])
def test_a_name_that_says_nothing_about_the_body_is_not_guessed_from(name):
    assert anatomy_rules.suggest_anatomy([name]).sides is None


def test_one_word_of_the_trunk_outweighs_all_others():
    assert anatomy_rules.suggest_anatomy(["brain", "spine", "heart"]).sides == "different"


def test_names_are_those_of_set_structures_and_examined_parts():
    case = facts()
    data = cohort([case], name="torso")
    examined = replace(data, cases=tuple(replace(one, covariates={"body_part": "HEART"}) for one in data))
    assert anatomy_rules.anatomy_hints(data, [Label(1, "vessel")]) == ["torso", "vessel"]
    assert anatomy_rules.anatomy_hints(examined, [Label(1, "vessel")]) == ["torso", "vessel", "HEART"]


@pytest.mark.parametrize(
    ("names", "tissue"),
    [
        (["lung nodule", "lung"], "lung"),
        (["left upper lobe", "left lower lobe"], "lung"),
        (["globe"], None),
        (["temporal lobe"], None),
        (["vertebra L1", "rib"], "bone"),
        (["liver", "spleen"], "soft tissue"),
        (["hemorrhage"], "brain"),
        (["lung", "liver"], None),
        (["lesion"], None),
    ],
)
def test_a_ct_is_windowed_for_what_is_to_be_seen_if_that_is_one_kind_of_tissue(names, tissue):
    found = anatomy_rules.tissue_window(names)
    assert (found and found[0]) == tissue


def test_left_and_right_are_known_of_oriented_volumes_and_of_pictures():
    assert anatomy_rules.left_right_axis(several(2), 3).value == 0
    assert anatomy_rules.left_right_axis(several(2, shape=(20, 30), oriented=False), 2).value == 1
    unknown = anatomy_rules.left_right_axis(several(2, oriented=False), 3)
    assert unknown.value is None
    assert "2 of 2 training cases" in unknown.because


def test_of_single_slices_the_axis_depends_on_how_they_lie():
    assert anatomy_rules.left_right_axis(several(2, shape=(20, 30, 1)), 2).value == 0
    assert anatomy_rules.left_right_axis(several(2, shape=(20, 1, 30)), 2).value == 0
    assert anatomy_rules.left_right_axis(several(2, shape=(1, 20, 30)), 2).value is None
