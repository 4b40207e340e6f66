from __future__ import annotations

import re

import pytest

import hilum
import real_data
import trained
from hilum.errors import DatasetError, PlanError
from hilum.networks import factory
from hilum.planning import plan_changes, plan_checks, plan_file
from hilum.values import BY_HAND


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    return trained.blobs(tmp_path_factory.mktemp("plan") / "data", 8)


@pytest.fixture(scope="module")
def first(blobs):
    """The plan of a set of volumes, by the rules alone; tests only read it."""
    return planned(blobs)


def planned(data, **flags):
    return hilum.plan(data, labels=trained.LABELS, device="cpu", threads=1, **flags)


def test_statistics_come_from_the_training_cases_alone(first):
    count = list(first.parts.values()).count("train")
    assert f"median spacing of {count} training cases" in first.plan.decision("preprocessing.spacing").because


def test_the_spacing_is_that_of_the_grid_in_canonical_order(first):
    spacing = first.plan["preprocessing.spacing"]
    assert spacing == pytest.approx([(1.1**2 + 0.2**2) ** 0.5, 1.1280, 1.3086], abs=1e-3)


def test_the_same_data_give_the_same_plan_and_another_seed_another_split(blobs, first):
    again, other = planned(blobs), planned(blobs, seed=1)
    # How much memory happens to be free stands in its reason alone.
    assert [one for one in first.plan if one[0] != "training.memory"] == [
        one for one in again.plan if one[0] != "training.memory"
    ]
    assert first.plan["training.memory"] == again.plan["training.memory"]
    assert first.parts == again.parts
    assert first.parts != other.parts
    assert other.plan["training.seed"] == 1


def test_a_seed_set_by_hand_chooses_the_split_as_the_flag_does(blobs):
    assert planned(blobs, assignments={"training.seed": 1}).parts == planned(blobs, seed=1).parts


def test_minutes_that_were_set_by_hand_decide_as_those_of_the_flag_do(blobs):
    flag, by_hand = planned(blobs, minutes=600.0).plan, planned(blobs, assignments={"training.minutes": 600.0}).plan
    assert by_hand.decision("training.minutes").because == BY_HAND
    assert flag["training.early_stop"] is not None  # as in no usual hour
    differing = {name for name, one in flag if one != by_hand.decision(name)}
    assert differing - {"training.memory"} == {"training.minutes"}


def test_nothing_is_written_without_out(blobs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planned(blobs)
    assert not list(tmp_path.iterdir())


def test_what_is_set_by_hand_is_recorded_so(blobs):
    made = planned(blobs, assignments={"training.steps": 6}).plan
    assert made["training.steps"] == 6
    assert made.decision("training.steps").because == BY_HAND
    assert plan_checks.checked_settings(made).training.steps == 6


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("training.batches", "training.batch"), ("inference.zzz", "inference.overlap"), ("zzz", "network")],
)
def test_a_name_that_the_plan_does_not_have_is_refused_with_those_that_may_be_meant(first, wrong, meant):
    with pytest.raises(PlanError) as caught:
        plan_changes.with_settings(first.plan, {wrong: 4})
    assert meant in re.split(r", | ", caught.value.remedy)


def test_pictures_of_classes_are_planned_for_a_residual_network(tmp_path):
    made = hilum.plan(trained.pictures(tmp_path / "data"), device="cpu", threads=1).plan
    assert made["task.name"] == "classification"
    assert made["network.name"] == "resnet"
    assert made["task.classes"] == ["bright", "dark"]
    assert made["preprocessing.spacing"] is None


def test_a_family_that_a_usual_rate_breaks_has_one_of_its_own_where_it_is_planned(blobs):
    rates = {}
    for name in ("unet", "segresnet"):
        made = planned(blobs, assignments={"network.name": name}).plan
        rates[name] = made.decision("training.learning_rate")
    times, why = factory.learning_rate_factor("segresnet", "dense")
    assert (
        factory.learning_rate_factor("unet", "dense")
        == factory.learning_rate_factor("segresnet", "vector")
        == (1.0, "")
    )
    assert rates["segresnet"].value == times * rates["unet"].value < rates["unet"].value
    assert rates["segresnet"].because.endswith(f"segresnet {why}")


def test_a_flag_wins_over_the_plan_and_the_plan_over_the_rule(blobs, tmp_path):
    few = {**trained.FEW_STEPS, "network.size": trained.SMALL_UNET, "training.seed": 3}
    planned(blobs, out=tmp_path / "plan.yaml", assignments=few)
    run = hilum.train(tmp_path / "plan.yaml", out=tmp_path / "run", seed=4, assignments={"training.batch": 1})
    text = (run.out / "plan.yaml").read_text()
    kept = plan_file.read_plan(run.out / "plan.yaml")
    assert [kept[f"training.{name}"] for name in ("seed", "batch", "steps")] == [4, 1, 6]
    for name in ("training.seed", "training.batch", "training.steps"):
        assert kept.decision(name).because == BY_HAND
    assert kept.decision("training.learning_rate").because != BY_HAND
    assert str(tmp_path) not in text
    assert "sampled by seed 4" in kept.decision("split.method").because
    assert kept.options == {"labels": trained.LABELS}


@pytest.mark.whole
def test_what_a_flag_says_about_reading_is_kept_for_a_resumed_run(blobs, tmp_path):
    few = {**trained.FEW_STEPS, "network.size": trained.SMALL_UNET}
    planned(blobs, out=tmp_path / "plan.yaml", assignments=few, everything=True)
    run = hilum.train(tmp_path / "plan.yaml", out=tmp_path / "run", everything=True, modality="MR")
    kept = plan_file.read_plan(run.out / "plan.yaml")
    assert kept.options == {"labels": trained.LABELS, "modality": "MR", "everything": True}
    guard = hilum.load(run.out, "cpu").guard  # training cases judge, each by the others
    assert guard is not None and guard.is_calibrated and (guard.trained, guard.unseen) == (8, 0)


def test_a_plan_keeps_without_which_structures_cases_exist(blobs):
    assert planned(blobs, lesions=("core",)).plan.options["lesions"] == ["core"]
    with pytest.raises(DatasetError, match="--lesions names tumour, and masks show shell, core"):
        planned(blobs, lesions=("tumour",))


def test_a_rounded_spacing_adds_nothing_to_a_patch(first):
    assert first.plan["training.patch"] == [16, 16, 16]


def test_the_size_of_a_network_follows_the_family_that_was_chosen(tmp_path):
    pictures = trained.pictures(tmp_path / "data", 12)
    for name in ("resnet", "unet"):
        made = hilum.plan(pictures, device="cpu", threads=1, assignments={"network.name": name}).plan
        assert made["network.name"] == name
        assert made.decision("network.name").because == BY_HAND
        assert made.decision("network.size").because != BY_HAND


def test_cases_are_brought_to_a_patch_that_was_set_by_hand(blobs):
    made = planned(blobs, assignments={"training.patch": [8, 8, 8]}).plan
    assert made["preprocessing.smallest"] == [8, 8, 8]
    assert "set by hand" in made.decision("preprocessing.smallest").because


@pytest.mark.whole
@pytest.mark.parametrize("folder", real_data.FOLDERS)
def test_hippocampi_are_planned_whole_and_mirrored_once_it_is_said_that_they_are_mr(folder):
    made = hilum.plan(folder / "hippocampus", labels="1=anterior,2=posterior", device="cpu", threads=1).plan
    assert made["preprocessing.spacing"] == [1.0, 1.0, 1.0]
    assert made["training.patch"] == [40, 56, 40]
    assert made["training.batch"] == 4
    assert (made["network.name"], made["network.size"]["width"]) == ("unet", 16)
    assert made["augmentation.flips"] == made["inference.flips"] == []
    stated = hilum.plan(
        folder / "hippocampus", labels="1=anterior,2=posterior", modality="MR", device="cpu", threads=1
    ).plan
    assert stated["augmentation.flips"] == stated["inference.flips"] == [0]  # RAS+: the first axis runs left to right
    assert "hippocampus" in stated.decision("augmentation.flips").because
    assert "leakage cannot be excluded" in made.decision("split.method").because
    assert 1 < made["training.memory"] < 4


def test_how_weights_of_pictures_are_inflated_for_volumes_is_set_by_hand(blobs):
    assert planned(blobs).plan["network.inflation"] == "mean"
    made = planned(blobs, assignments={"network.inflation": "centre"}).plan
    assert plan_checks.checked_settings(made).network.inflation == "centre"
    assert made.decision("network.inflation").because == BY_HAND
    with pytest.raises(PlanError, match="inflation"):
        planned(blobs, assignments={"network.inflation": "corner"})


def test_a_spacing_that_was_set_by_hand_decides_the_patch_and_the_network(blobs):
    own, coarse = (planned(blobs, assignments=asked).plan for asked in ({}, {"preprocessing.spacing": [2.5, 2.5, 2.5]}))
    assert coarse.decision("preprocessing.spacing").because == BY_HAND
    assert all(small < whole for small, whole in zip(coarse["training.patch"], own["training.patch"], strict=True))
    assert coarse["preprocessing.smallest"] == coarse["training.patch"]
    with pytest.raises(PlanError, match="Give one size above 0 per axis"):
        planned(blobs, assignments={"preprocessing.spacing": [2.5, 2.5]})


def test_so_does_a_factor_by_which_the_grid_is_coarser(blobs):
    own, coarse = (planned(blobs, assignments=asked).plan for asked in ({}, {"preprocessing.reduction": 2.5}))
    assert coarse.decision("preprocessing.reduction").because == BY_HAND
    assert all(small < whole for small, whole in zip(coarse["training.patch"], own["training.patch"], strict=True))
    assert coarse["preprocessing.smallest"] == coarse["training.patch"]
