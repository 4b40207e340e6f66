from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

import hilum
import trained
from hilum.errors import PlanError
from hilum.planning.rules import modality_rules
from hilum.planning.rules.modality_rules import MissingImages
from hilum.values import Case, Dataset, Geometry, Image
from matrices import thinned

GRID = Geometry.of_pixels((4, 4))


def case(number: int, *names: str) -> Case:
    return Case(
        str(number), str(number), {name: Image(np.ones((1, 4, 4)), GRID).with_image_name(name) for name in names}
    )


def test_who_lacks_what_is_counted_by_name_and_by_the_numbers_of_files():
    named = Dataset((case(1, "T1", "T2"), case(2, "T2"), case(3, "T2")))
    assert MissingImages.from_dataset(named, ["T1", "T2"], {"1", "2"}).lacking == {"T1": 2}
    assert MissingImages.from_dataset(named, ["T1", "T2"], {"1", "2"}).presence["image:T1"] == {
        "there": 0.5
    }  # of those that train
    numbered = Dataset((case(1, "0", "1"), case(2, "0001")))
    assert MissingImages.from_dataset(numbered, ["0", "1"], {"1"}).lacking == {"0": 1}
    assert (
        MissingImages.from_dataset(Dataset((case(1, "image"), case(2, "image"))), ["fat", "water"], {"1"}).lacking == {}
    )


def test_training_leaves_images_out_where_cases_lack_some_and_only_there():
    holes = MissingImages(("T1", "T2"), {"T2": 12}, 60, {"T2": 0.8})
    planned = modality_rules.dropout_decision(holes)
    assert planned.value == 0.5
    assert planned.because.startswith("channel T2: 12 of 60 cases lack it")
    assert modality_rules.absent_decision(replace(holes, dropout=0.5)).value == ["T1", "T2"]
    assert modality_rules.absent_decision(holes).value == ["T2"]
    whole = replace(holes, lacking={})
    assert (modality_rules.dropout_decision(whole).value, modality_rules.absent_decision(whole).value) == (0, [])
    assert modality_rules.dropout_decision(MissingImages(("R", "G", "B"), {}, 60)).value == 0
    assert holes.presence == {"image:T1": {"there": 1.0}, "image:T2": {"there": 0.8}}


@pytest.mark.parametrize(("lacking", "many"), [({}, False), ({"T2": 2}, False), ({"T1": 1, "T2": 3}, True)])
def test_many_cases_lack_an_image_from_a_twentieth_on(lacking, many):
    assert MissingImages(("T1", "T2"), lacking, 60).many == many


@pytest.fixture(scope="module")
def holed(tmp_path_factory):
    """Nine cases of two images, of which two lack one."""
    root = trained.two_channels(tmp_path_factory.mktemp("holed"), 9)
    for name in ("case01_0001", "case02_0000"):
        (root / "imagesTr" / f"{name}.nii.gz").unlink()
    return root


def test_the_check_and_the_plan_say_who_lacks_what(holed):
    assert "channel T2: 1 of 9 cases lack it" in str(hilum.check(holed))
    plan = hilum.plan(holed, device="cpu", threads=1).plan
    assert (plan["preprocessing.channels"], plan["preprocessing.absent"]) == (["T1", "T2"], ["T1", "T2"])
    assert plan["training.modality_dropout"] == 0.5
    assert "channel T1: 1 of 9 cases lack it" in plan.decision("training.modality_dropout").because
    assert (plan["network.name"], plan["network.context_fusion"]) == ("unet", "film")
    assert "images are channels of one network" in plan.decision("network.name").because
    assert list(plan["network.context"]) == ["image:T1", "image:T2"]


@pytest.mark.whole
def test_another_way_is_told_what_is_there_as_far_as_it_takes_it(holed):
    late = {"network.name": "fusion_late"}
    plan = hilum.plan(holed, device="cpu", threads=1, assignments=late).plan
    assert plan["network.size"]["means"] == {"mask": "probabilities"}
    early = hilum.plan(holed, device="cpu", threads=1, assignments={"network.name": "unet_plus_plus"}).plan
    assert early["network.context"] is None
    assert "unet_plus_plus sees images alone" in early.decision("network.context").because


@pytest.mark.parametrize("name", thinned(1, ["fusion", "fusion_attention", "fusion_late"]))
def test_covariates_beside_masks_join_one_network_of_all_images_and_a_fusion_of_several(name, holed, tmp_path):
    rows = [f"case{n:02},{n % 4},{n % 3}" for n in range(9)]
    data = shutil.copytree(holed, tmp_path / "told")
    (data / "patients.csv").write_text("\n".join(["case,age,grade", *rows]))
    asked = {"network.context": ["age", "grade"]}
    plan = hilum.plan(data, device="cpu", threads=1, assignments=asked).plan
    assert list(plan["network.context"]) == ["age", "grade", "image:T1", "image:T2"]
    of_several = {**asked, "network.name": name}
    plan = hilum.plan(data, device="cpu", threads=1, assignments=of_several).plan
    assert list(plan["network.context"]) == ["age", "grade", "image:T1", "image:T2"]
    assert plan["network.context_fusion"] == "film"
    assert "concatenate" not in plan.decision("network.context_fusion").because
    with pytest.raises(PlanError, match="reach heads for the whole image only: choose film"):
        hilum.plan(data, device="cpu", threads=1, assignments={**of_several, "network.context_fusion": "concatenate"})


def test_a_dropout_that_was_asked_for_is_followed_by_what_may_be_absent(holed):
    none = hilum.plan(holed, device="cpu", threads=1, assignments={"training.modality_dropout": 0}).plan
    assert none["training.modality_dropout"] == 0
    assert none["preprocessing.absent"] == ["T1", "T2"]
    assert "training leaves none out" in none.decision("preprocessing.absent").because
