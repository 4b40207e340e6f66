from __future__ import annotations

import numpy as np
import pytest

import isocenter
import trained
from isocenter.planning.modalities import absent_decision, dropout_decision, lacking
from isocenter.values import Case, Dataset, Geometry, Image

GRID = Geometry.of_pixels((4, 4))


def case(number: int, *names: str) -> Case:
    return Case(str(number), str(number), {name: Image(np.ones((1, 4, 4)), GRID).named(name) for name in names})


def test_who_lacks_what_is_counted_by_name_and_by_the_numbers_of_files():
    named = Dataset((case(1, "T1", "T2"), case(2, "T2"), case(3, "T2")))
    assert lacking(named, ["T1", "T2"]) == {"T1": 2}
    numbered = Dataset((case(1, "0", "1"), case(2, "0001")))
    assert lacking(numbered, ["0", "1"]) == {"0": 1}
    assert lacking(Dataset((case(1, "image"), case(2, "image"))), ["fat", "water"]) == {}


def test_training_leaves_images_out_where_cases_lack_some_and_only_there():
    holes = dropout_decision(["T1", "T2"], {"T2": 12}, 60)
    assert holes.value == 0.5
    assert holes.because.startswith("channel T2: 12 of 60 cases lack it")
    assert absent_decision(["T1", "T2"], {"T2": 12}, 60, holes.value).value == ["T1", "T2"]
    assert absent_decision(["T1", "T2"], {"T2": 12}, 60, 0.0).value == ["T2"]
    assert dropout_decision(["T1", "T2"], {}, 60).value == 0
    assert absent_decision(["T1", "T2"], {}, 60, 0.0).value == []
    assert dropout_decision(["R", "G", "B"], {}, 60).value == 0


@pytest.fixture(scope="module")
def holed(tmp_path_factory):
    """Nine cases of two images, of which two lack one."""
    root = trained.two_channels(tmp_path_factory.mktemp("holed"), 9)
    for name in ("case01_0001", "case02_0000"):
        (root / "imagesTr" / f"{name}.nii.gz").unlink()
    return root


def test_the_check_and_the_plan_say_who_lacks_what(holed):
    assert "channel T2: 1 of 9 cases lack it" in str(isocenter.check(holed))
    plan = isocenter.plan(holed, device="cpu", threads=1).plan
    assert (plan["preprocessing.channels"], plan["preprocessing.absent"]) == (["T1", "T2"], ["T1", "T2"])
    assert plan["training.modality_dropout"] == 0.5
    assert "channel T1: 1 of 9 cases lack it" in plan.decision("training.modality_dropout").because


def test_a_dropout_that_was_asked_for_is_followed_by_what_may_be_absent(holed):
    none = isocenter.plan(holed, device="cpu", threads=1, assignments={"training.modality_dropout": 0}).plan
    assert none["training.modality_dropout"] == 0
    assert none["preprocessing.absent"] == ["T1", "T2"]
    assert "training leaves none out" in none.decision("preprocessing.absent").because
