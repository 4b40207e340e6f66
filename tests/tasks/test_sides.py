from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.tasks.classification.question import Classification
from hilum.tasks.segmentation.question import Segmentation
from hilum.tasks.shared import left_right
from hilum.values import Label


@pytest.mark.parametrize(
    "names",
    [
        ("left kidney", "right kidney"),
        ("left kidney", "kidney_right"),
        ("kidneyleft", "kidneyright"),
        ("leftLung", "rightLung"),
        ("LKidney", "RKidney"),
        ("L", "R"),
        ("ctx-lh-cuneus", "ctx-rh-cuneus"),
        ("Left-Lateral-Ventricle", "Right-Lateral-Ventricle"),
        ("OD", "OS"),
        ("fundus os", "fundus od"),
        ("Niere links", "Niere rechts"),
        ("rein gauche", "rein droit"),
        ("njure vänster", "njure höger"),
        ("ren sinister", "ren dexter"),
        ("riñón izquierdo", "riñón derecho"),
    ],
)
def test_named_pairs_change_places(names):
    assert left_right.counterpart_places(names) == (1, 0)


@pytest.mark.parametrize(
    "names",
    [
        ("anterior", "posterior"),
        ("bright", "dark"),
        ("L1", "L2"),
        ("upright", "cleft"),
        ("os ilium", "os pubis"),
        ("linear", "sin"),
    ],
)
def test_names_without_a_side_stay(names):
    assert left_right.counterpart_places(names) == (0, 1)


@pytest.mark.parametrize(
    "names",
    [
        ("lung_lobe_left", "spleen"),
        ("linke Niere", "Milz"),
        ("upper lobe left", "upper lobe right", "middle lobe right"),
        ("left ventricle", "myocardium", "right ventricle"),
        ("LV", "MYO", "RV"),
        ("left", "Left", "right"),
    ],
)
def test_a_side_without_a_true_counterpart_forbids_mirroring(names):
    assert left_right.counterpart_places(names) is None


@settings(max_examples=40)
@given(st.lists(st.sampled_from(["kidney", "lung", "femur", "spleen", "aorta"]), unique=True, min_size=1), st.data())
def test_mirroring_twice_changes_nothing(organs, data):
    names = []
    for organ in organs:
        names += [f"left {organ}", f"{organ}_right"] if data.draw(st.booleans()) else [organ]
    names = data.draw(st.permutations(names))
    order = left_right.counterpart_places(names)
    assert [order[place] for place in order] == list(range(len(names)))


def test_the_background_of_a_segmentation_stays_and_its_sides_change_places():
    labels = [Label(5, "liver"), Label(2, "kidney left"), Label(9, "kidney right")]
    assert Segmentation(tuple(labels)).channels_when_mirrored == (0, 1, 3, 2)
    assert Segmentation((labels[1],)).channels_when_mirrored is None


def test_a_classification_by_side_is_swapped_in_the_mirror():
    assert Classification(("left", "right")).channels_when_mirrored == (1, 0)
    assert Classification(("benign", "malignant")).channels_when_mirrored == (0, 1)
