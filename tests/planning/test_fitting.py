from __future__ import annotations

from dataclasses import replace

import pytest

from fingerprints import LAPTOP, SAMPLED, cohort, facts, several
from hilum.errors import PlanError, ResourceError
from hilum.planning import plan_changes, plan_checks, planner
from hilum.planning.plan_inputs import Wishes
from hilum.planning.training_memory import Machine
from hilum.tasks.shared.grid_and_length import MOST_EPOCHS
from hilum.values import Decision, Fingerprint, Plan
from matrices import thinned


def planned(found: Fingerprint, machine: Machine = LAPTOP, **given) -> Plan:
    asked = {"minutes": 60.0, "seed": 0, **given}
    return planner.make_plan(
        cohort(found.cases), found, SAMPLED, machine, Wishes(Decision(machine.device, "a test"), **asked)
    )


def test_the_predicted_peak_is_what_the_plan_says_and_within_what_is_free():
    made = planned(several(3))
    assert 0.95 < made["training.memory"] < 0.8 * LAPTOP.device_memory
    assert "16.0 GiB of memory are free on the cpu" in made.decision("training.memory").because


def test_with_less_memory_the_batch_gives_way_first_and_then_the_patch():
    found = several(3, shape=(96, 96, 96))
    plans = [planned(found, replace(LAPTOP, memory=free, device_memory=free)) for free in (16.0, 2.35, 1.6)]
    batches = [made["training.batch"] for made in plans]
    voxels = [made["training.patch"][0] for made in plans]
    assert batches[0] == 4
    assert batches[1] == 2
    assert voxels[1] == voxels[0] > voxels[2]
    assert "too little for 4 patches" in plans[1].decision("training.batch").because
    for made in plans:
        plan_checks.checked_settings(made)


def followed(count: int) -> Fingerprint:
    """Cases of whom a quarter had an event."""
    return Fingerprint(
        tuple(facts(name=f"c{n}", references={"event": (float(n + 1), n % 4 == 0)}) for n in range(count))
    )


def test_a_task_may_want_a_batch_and_memory_has_the_last_word():
    asked = planned(followed(200))
    assert asked["training.batch"] == 96
    assert "compared with the cases of its batch" in asked.decision("training.batch").because
    tight = planned(followed(200), replace(LAPTOP, memory=2.35, device_memory=2.35))
    assert tight["training.batch"] < 96
    assert "too little for 96 images" in tight.decision("training.batch").because


def test_where_nothing_fits_the_plan_is_refused_with_a_remedy():
    with pytest.raises(ResourceError, match="free memory, or take a larger machine"):
        planned(several(3), replace(LAPTOP, memory=0.7, device_memory=0.7))


def test_a_batch_set_by_hand_that_does_not_fit_is_refused_before_training():
    found = several(3)
    made = plan_changes.with_settings(planned(found), {"training.batch": 4096})
    with pytest.raises(ResourceError, match=r"training\.batch"):
        plan_changes.with_predicted_memory(made, found, LAPTOP)


def test_what_is_set_by_hand_changes_the_predicted_peak():
    found = several(3)
    made = planned(found)
    smaller = plan_changes.with_predicted_memory(plan_changes.with_settings(made, {"training.batch": 1}), found, LAPTOP)
    assert smaller["training.memory"] < made["training.memory"]
    assert plan_changes.with_predicted_memory(made, found, LAPTOP)["training.memory"] == made["training.memory"]


def test_few_thick_slices_are_looked_at_in_their_plane():
    made = planned(several(3, shape=(256, 256, 12), steps=(1.0, 1.0, 8.0)))
    assert made["network.name"] == "unet_slices"
    assert made["network.size"]["axis"] == 2
    assert "8 mm long along axis 2" in made.decision("network.name").because
    plan_checks.checked_settings(made)


@pytest.mark.parametrize(
    ("shape", "steps"),
    thinned(2, [((256, 256, 40), (1.0, 1.0, 8.0)), ((64, 64, 12), (1.0, 1.0, 2.0)), ((64, 64), (1.0, 1.0))]),
)
def test_many_slices_thin_ones_and_pictures_go_through_a_usual_unet(shape, steps):
    made = planned(several(3, shape=shape, steps=steps))
    assert made["network.name"] == "unet"
    plan_checks.checked_settings(made)


def test_hours_and_many_cases_make_the_network_wider():
    found, few = several(100), several(20)
    short, wide = planned(found), planned(found, minutes=600.0)
    assert wide["network.size"]["width"] == short["network.size"]["width"] * 3 // 2
    assert planned(few, minutes=600.0)["network.size"] == short["network.size"]
    assert planned(found, minutes=600.0, folds=5)["network.size"] == short["network.size"]
    plan_checks.checked_settings(wide)


def test_long_trainings_are_looked_at_oftener_and_may_end_early():
    short, long = planned(several(3)), planned(several(3), minutes=600.0)
    assert (short["training.validations"], short["training.early_stop"]) == (10, None)
    assert (long["training.validations"], long["training.early_stop"]) == (40, 20)


def test_whole_images_of_a_class_each_are_not_learnt_by_heart():
    classes = tuple(facts(name=f"c{n}", references={"class": "ab"[n % 2]}) for n in range(40))
    whole, dense = planned(Fingerprint(classes), minutes=600.0), planned(several(3), minutes=600.0)
    assert whole["training.epochs"] == MOST_EPOCHS
    assert "memorises" in whole.decision("training.epochs").because
    assert dense["training.epochs"] is None
    assert "did not harm" in dense.decision("training.epochs").because


def test_findings_of_whole_images_are_trained_as_long_as_classes_and_in_as_many_networks():
    images = [facts(name=f"c{n}", references={"findings": {"oedema": n % 2 == 0}}) for n in range(40)]
    classes = [facts(name=f"c{n}", references={"class": "ab"[n % 2]}) for n in range(40)]
    of_findings, of_classes = (planned(Fingerprint(tuple(cases))) for cases in (images, classes))
    for name in ("training.epochs", "training.networks"):
        assert of_findings.decision(name) == of_classes.decision(name)
    assert of_findings["training.epochs"] == MOST_EPOCHS


def test_where_images_give_values_the_plan_does_not_quote_what_was_measured_voxel_by_voxel():
    images = [facts(name=f"c{n}", references={"value": {"volume": float(n)}}) for n in range(40)]
    values = planned(Fingerprint(tuple(images))).decision("training.epochs")
    assert values.value is None
    assert "was measured for this kind of problem" in values.because
    assert "voxel" not in values.because


def test_the_plan_of_several_kinds_on_one_network_says_of_epochs_what_is_true_of_epochs():
    both = [facts(name=f"c{n}", references={"class": "ab"[n % 2], "mask": {0: 90, 1: 10}}) for n in range(40)]
    made = planned(Fingerprint(tuple(both)), task="classification+segmentation").decision("training.epochs")
    assert made.value is None
    assert "number of epochs" in made.because
    assert "several networks" not in made.because


def test_times_of_few_cases_are_not_learnt_by_heart_and_further_networks_have_the_minutes_left():
    few, many = (planned(followed(count), minutes=600.0) for count in (200, 800))
    # 64 steps of the 96 cases that hold 24 events are 31 passes over 200 cases, and fewer than 20 over 800.
    assert (few["training.epochs"], many["training.epochs"]) == (31, 20)
    assert "memorises" in many.decision("training.epochs").because
    assert "64 steps" in few.decision("training.epochs").because
    assert few["training.networks"] is None


def test_an_unknown_network_is_refused():
    with pytest.raises(PlanError, match="transformer"):
        planned(several(3), network="transformer")


def test_pictures_of_28_pixels_get_a_sane_plan():
    found = several(40, shape=(28, 28), physical=False, oriented=False, references={"class": "a"})
    other = several(40, shape=(28, 28), physical=False, oriented=False, references={"class": "b"})
    cases = tuple(replace(one, id=f"{one.references['class']}{one.id}") for one in (*found.cases, *other.cases))
    made = planned(Fingerprint(cases))
    assert made["preprocessing.shape"] == made["training.patch"] == made["inference.patch"] == [28, 28]
    assert made["preprocessing.crop"] == "none"
    assert made["augmentation.blur"] == made["augmentation.low_resolution"] == 0
    plan_checks.checked_settings(made)


def test_volumes_on_a_processor_come_in_smaller_batches_and_the_plan_says_why():
    def batch(machine: Machine = LAPTOP, count: int = 1188, shape: tuple[int, ...] = (28, 28, 28)) -> Decision:
        classes = [("hyperplasia" if n % 4 else "normal") for n in range(count)]
        found = Fingerprint(tuple(facts(shape, name=str(n), references={"class": c}) for n, c in enumerate(classes)))
        return planned(found, machine).decision("training.batch")

    volumes = batch()
    assert volumes.value == 16
    assert volumes.value * 28**3 <= 2**19 < 2 * volumes.value * 28**3
    assert "which would be 64; but volumes have 21952 voxels" in volumes.because
    assert batch(count=160).value == 10  # within the limit already
    assert batch(shape=(28, 28)).value == 64
    assert batch(replace(LAPTOP, device="cuda:0")).value == 64
    assert batch(shape=(48, 48, 48)).value == 8  # what normalises over a batch needs some, however large


def test_a_picture_of_many_objects_is_a_batch_in_itself_on_a_processor():
    def batch(objects: int = 24, shape: tuple[int, ...] = (256, 256), machine: Machine = LAPTOP, **given) -> Decision:
        references = {"instances": {0: 40_000, **dict.fromkeys(range(1, objects + 1), 300)}}
        found = Fingerprint(tuple(facts(shape, name=f"c{n}", physical=False, references=references) for n in range(8)))
        return planned(found, machine, task="instances", **given).decision("training.batch")

    assert batch().value == 1
    assert "the median training case has 24 objects" in batch().because
    assert batch(objects=3).value == batch(shape=(64, 64, 64)).value == 4
    assert batch(network="mask_rcnn").value == 4  # it normalises over a batch
    assert batch(machine=replace(LAPTOP, device="cuda:0"), minutes=10.0).value == 4


def test_images_that_are_seen_whole_on_a_grid_of_their_own_are_not_reduced_once_more():
    """The patch is planned for that grid; half of it would be padding."""
    references = {"mask": {0: 60_000, 1: 6_000}}
    found = [replace(facts((512, 512), name=f"c{n}", references=references), thickness={1: 60.0}) for n in range(4)]
    both = [replace(one, references={**references, "class": "ab"[n % 2]}) for n, one in enumerate(found)]
    assert planned(Fingerprint(tuple(found)))["preprocessing.reduction"] == 4
    assert "preprocessing.reduction" not in planned(Fingerprint(tuple(both)), task="classification+segmentation")


@pytest.mark.parametrize(
    ("minutes", "threads", "width", "factor"),
    thinned(
        2,
        [
            (4.0, 2, 9.0, 2.0),
            (600.0, 2, 9.0, 1.0),  # there is time for what is fine
            (4.0, 16, 9.0, 1.0),
            (4.0, 2, 7.0, 1.0),  # what is looked for would be lost
            (1.0, 2, 30.0, 3.0),  # as coarse as enough looks need, and no coarser
            (None, 2, 9.0, 1.0),
        ],
    ),
)
def test_pictures_are_coarser_where_the_minutes_show_each_a_few_times_only(minutes, threads, width, factor):
    found = several(14, shape=(960, 999), physical=False, oriented=False)
    found = Fingerprint(tuple(replace(case, thickness={1: width}) for case in found.cases))
    made = planned(found, replace(LAPTOP, threads=threads), minutes=minutes)
    assert made["preprocessing.reduction"] == factor
    assert "preprocessing.coarsest" not in made.names
    folded = planned(found, replace(LAPTOP, threads=threads), minutes=minutes and 5 * minutes, folds=5)
    assert folded["preprocessing.reduction"] == factor
    by_hand = planned(found, replace(LAPTOP, threads=threads), minutes=minutes, reduction=1.0)
    assert by_hand["training.patch"] == [256, 256]
