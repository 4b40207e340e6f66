from __future__ import annotations

from dataclasses import fields, replace

import nibabel
import numpy as np
import pytest
import torch

import hilum
import trained
from fingerprints import LAPTOP, cohort, facts, several
from hilum.errors import PlanError
from hilum.layouts import dataset_layouts
from hilum.planning import plan_checks, planner
from hilum.planning.plan_inputs import Wishes
from hilum.planning.rules import anatomy_rules, augmentation_rules, covariate_rules, image_profiles
from hilum.quality import dataset_examination
from hilum.runtime.windows import averaging
from hilum.tasks import task_catalogue
from hilum.transforms import random_draws
from hilum.transforms.augment import Augmentation
from hilum.values import Decision, Fingerprint, Label
from matrices import thinned

SIDES = ["left hippocampus", "right hippocampus"]


def segmenting(*names: str):
    labels = [{"value": value, "name": name} for value, name in enumerate(names, start=1)]
    return task_catalogue.build_task({"name": "segmentation", "labels": labels, "loss": "ce", "tolerance": 2.0})


def decided(modality: str, *names: str, axis: int | None = 0, patch: tuple[int, ...] = (40, 40, 40)):
    task = segmenting(*names)
    return augmentation_rules.augmentation_decisions(
        image_profiles.profile_for(modality),
        anatomy_rules.suggest_anatomy(names),
        Decision(axis, "for a test"),
        task,
        patch,
    )


@pytest.mark.parametrize(
    ("modality", "names", "flips"),
    thinned(
        6,
        [
            ("MR", ["lesion"], [0]),
            ("MR", ["liver"], []),
            ("CT", ["lesion"], []),
            ("CT", ["brain"], [0]),
            ("CT", ["lung"], []),
            ("DX", ["pneumonia"], []),
            ("DX", ["knee"], [0]),
            ("DX", ["caries", "tooth"], [0]),
            ("DX", ["tooth 11", "tooth 12", "tooth 21", "tooth 22"], []),
            ("XC", ["teeth", "1", "2", "3", "4"], []),
            ("MG", ["mass"], [0]),
            ("unknown", ["lesion"], []),
            ("unknown", ["hippocampus"], []),
            ("CT", ["hippocampus"], [0]),
            ("MR", SIDES, [0]),
            ("MR", ["left hippocampus", "lesion"], []),
            ("MR", ["left atrium", "right atrium"], []),
            ("CT", ["left kidney", "right kidney"], []),
        ],
    ),
)
def test_images_are_mirrored_across_left_and_right_only_where_that_leaves_a_patient(modality, names, flips):
    assert decided(modality, *names)["flips"].value == flips


def test_where_left_and_right_are_unknown_nothing_upright_is_mirrored():
    assert decided("MR", "lesion", axis=None)["flips"].value == []


def test_what_has_no_up_is_mirrored_and_turned_along_every_axis():
    chosen = decided("SM", "gland", axis=1, patch=(64, 64))
    assert chosen["flips"].value == [0, 1]
    assert chosen["quarter_turns"].value is True
    upright = decided("OP", "vessel", axis=1, patch=(64, 64))
    assert upright["flips"].value == [1]
    assert upright["quarter_turns"].value is False


@pytest.mark.parametrize("modality", ["OP", "SM"])
@pytest.mark.parametrize(
    "classes", [("OD", "OS"), ("left", "right"), ("Auge links", "Auge rechts"), ("left", "blurred")]
)
def test_a_picture_whose_classes_are_sides_is_never_mirrored(modality, classes):
    axis = Decision(1, "for a test")
    task = task_catalogue.build_task({"name": "classification", "classes": list(classes), "smoothing": 0.0})
    chosen = augmentation_rules.augmentation_decisions(
        image_profiles.profile_for(modality), anatomy_rules.suggest_anatomy(classes), axis, task, (64, 64)
    )
    assert chosen["flips"].value == augmentation_rules.flips_at_test(chosen["flips"]).value == []
    assert "the classes are sides" in chosen["flips"].because
    assert chosen["quarter_turns"].value is False
    because = {"SM": "a label names a side", "OP": "the image has an upright orientation"}[modality]
    assert chosen["quarter_turns"].because.startswith(because)
    with pytest.raises(PlanError, match="the classes are sides"):
        averaging.flipped_axes(task, 2, (), 1, True)
    assert averaging.flipped_axes(task, 2, (), 1) == ()
    other = task_catalogue.build_task({"name": "classification", "classes": ["benign", "malignant"], "smoothing": 0.0})
    assert augmentation_rules.augmentation_decisions(
        image_profiles.profile_for("OP"), anatomy_rules.suggest_anatomy(other.classes), axis, other, (64, 64)
    )["flips"].value == [1]


def levels(*names: str) -> dict:
    return {"levels": {name: 1 / len(names) for name in names}, "missing": 0.0}


NUMBER = {"median": 1.0, "mean": 1.0, "deviation": 1.0, "missing": 0.0}


@pytest.mark.parametrize(
    ("context", "found"),
    [
        ({"age": NUMBER, "eye": levels("OD", "OS")}, "eye"),
        ({"laterality": levels("L", "R", "both")}, "laterality"),
        ({"left_volume": NUMBER, "right_volume": NUMBER}, "left_volume"),
        ({"sex": levels("F", "M"), "stage": levels("R0", "R1"), "bright": NUMBER}, ""),
        (None, ""),
    ],
)
def test_no_image_is_mirrored_where_a_covariate_states_a_side(context, found):
    assert covariate_rules.sided_covariate(context) == found
    task, axis = segmenting("vessel"), Decision(1, "for a test")
    chosen = augmentation_rules.augmentation_decisions(
        image_profiles.profile_for("OP"), anatomy_rules.suggest_anatomy(["vessel"]), axis, task, (64, 64), found
    )["flips"]
    assert chosen.value == augmentation_rules.flips_at_test(chosen).value == ([] if found else [1])
    assert (f"{found} states a side" in chosen.because) == bool(found)


def test_a_model_that_was_planned_to_mirror_such_pictures_still_does():
    task = task_catalogue.build_task({"name": "classification", "classes": ["OD", "OS"], "smoothing": 0.0})
    assert averaging.flipped_axes(task, 2, (1,), 1) == averaging.flipped_axes(task, 2, (1,), 1, True) == (1,)


@pytest.mark.parametrize("modality", ["MR", "CT", "unknown", "SM"])
def test_tiny_images_lose_no_detail(modality):
    chosen = decided(modality, "lesion", axis=1, patch=(28, 28))
    assert all(chosen[name].value == 0 for name in ("blur", "low_resolution", "motion", "metal", "ghosting"))
    assert chosen["rotation"].value <= 15
    assert chosen["gamma"].value > 0


def test_every_field_is_decided_and_has_a_reason():
    for modality in ("MR", "CT", "unknown", "SM"):
        chosen = decided(modality, "lesion", axis=1, patch=(64, 64))
        assert list(chosen) == [field.name for field in fields(Augmentation)]
        assert all(one.because for one in chosen.values())


def test_prediction_mirrors_along_the_axes_of_training():
    assert augmentation_rules.flips_at_test(Decision([0], "")).value == [0]
    assert augmentation_rules.flips_at_test(Decision([], "")).value == []


@pytest.mark.whole
def test_of_a_mirrored_volume_paired_labels_change_places():
    found = several(4, shape=(16, 16, 16), references={"mask": {0: 4000, 1: 50, 2: 46}}, modality="MR")
    made = planner.make_plan(
        cohort(found.cases, SIDES),
        found,
        Decision("sampled", "for a test"),
        LAPTOP,
        Wishes(Decision("cpu", "for a test"), 1.0),
    )
    assert made["augmentation.flips"] == made["inference.flips"] == [0]
    assert "paired labels change places" in made.decision("augmentation.flips").because
    chosen = plan_checks.checked_settings(made)
    assert chosen.task.channels_when_mirrored == (0, 2, 1)
    labels = torch.zeros(8, 16, 16, 16, dtype=torch.uint8)
    labels[:, 2:6], labels[:, 10:14] = 1, 2  # left, then right, along the first axis
    images = labels[:, None].float() + 10
    varied = Augmentation(
        **{
            field.name: 0.0
            for field in fields(Augmentation)
            if field.name not in ("flips", "left_right", "quarter_turns")
        },
        flips=chosen.augmentation.flips,
        left_right=chosen.augmentation.left_right,
    )
    rngs = [random_draws.sample_generator(0, 0, n) for n in range(8)]
    seen, moved, crossed = varied(images, labels, rngs, (1.0, 1.0, 1.0), mirrored=chosen.task.channels_when_mirrored)
    assert 0 < int(crossed.sum()) < 8
    np.testing.assert_array_equal(moved.numpy(), labels.numpy())  # what lies on the left is the left one again
    for n in range(8):
        expected = images[n].flip(1) if crossed[n] else images[n]
        np.testing.assert_allclose(seen[n].numpy(), expected.numpy())


@pytest.mark.whole
def test_paired_labels_train_and_predict_mirrored_end_to_end(tmp_path):
    data = trained.blobs(tmp_path / "brain", 8)
    flags = {**trained.FEW_STEPS, "network.size": trained.SMALL_UNET}
    run = hilum.train(
        data,
        out=tmp_path / "run",
        labels="1=left cortex,2=right cortex",
        modality="MR",
        device="cpu",
        threads=1,
        assignments=flags,
    )
    model = hilum.load(run.out)
    assert model.inference.flips == (0,)
    assert model.task.channels_when_mirrored == (0, 2, 1)
    assert model.predict(next((data / "images").iterdir())).data.shape == (16, 16, 16)


def placed(*places: dict[int, tuple[float, float]]) -> Fingerprint:
    return Fingerprint(tuple(replace(facts(name=f"c{n}"), places=own) for n, own in enumerate(places)))


LEFT, RIGHT, ACROSS = (0.2, 0.45), (0.55, 0.8), (0.4, 0.6)


@pytest.mark.parametrize(
    ("names", "places", "found"),
    [
        (["nucleus_a", "nucleus_b"], [{1: LEFT, 2: RIGHT}] * 2, "nucleus_a and nucleus_b keep to the two halves"),
        (["stem", "a", "b"], [{1: ACROSS, 2: LEFT}, {1: ACROSS, 3: RIGHT}] * 2, "a and b keep to the two halves"),
        (["a", "b"], [{1: (0.1, 0.2), 2: (0.3, 0.45)}, {1: (0.2, 0.3), 2: (0.52, 0.6)}] * 3, "what is contoured"),
        (["a", "b"], [{1: (0.1, 0.2), 2: (0.3, 0.45)}, {1: (0.2, 0.3), 2: (0.52, 0.6)}] * 2, ""),
        (["a", "b"], [{1: LEFT, 2: RIGHT}, {1: RIGHT, 2: LEFT}] * 4, ""),
        (["core", "oedema"], [{1: LEFT, 2: LEFT}, {1: RIGHT, 2: ACROSS}] * 4, ""),
        (["a", "b"], [{1: LEFT, 2: RIGHT}], ""),
        (["lesion"], [{1: LEFT}] * 6, ""),
        (["organ"], [{1: LEFT}] * 12, "organ keeps to one half of all 12"),
        (["left kidney", "right kidney"], [{1: RIGHT, 2: LEFT}] * 12, ""),
        (["a", "b"], [{}] * 12, ""),
    ],
)
def test_labels_that_keep_to_their_halves_have_sides_whatever_they_are_called(names, places, found):
    labels = [Label(value, name) for value, name in enumerate(names, start=1)]
    because = anatomy_rules.sided_by_place(placed(*places), labels)
    assert because.startswith(found) if not found.startswith("what") else found in because
    assert bool(because) == bool(found)
    task = segmenting(*names)
    shown = replace(anatomy_rules.suggest_anatomy(["brain"]), placed=because)
    flips = augmentation_rules.augmentation_decisions(
        image_profiles.profile_for("MR"), shown, Decision(0, "for a test"), task, (40, 40, 40)
    )["flips"]
    assert flips.value == ([] if because else [0]) and (flips.because == because or not because)


@pytest.mark.parametrize("turn", ["RAS", "LPS", "SRA"])
def test_places_of_structures_are_shares_of_the_axis_from_left_to_right(tmp_path, turn):
    mask = np.zeros((20, 12, 8), np.uint8)
    mask[2:6, 3:6, 2:5], mask[12:14, 3:6, 2:5] = 1, 2
    for folder, pixels in (("images", np.random.default_rng(0).random(mask.shape, np.float32)), ("labels", mask)):
        (tmp_path / folder).mkdir()
        turned = nibabel.Nifti1Image(pixels, np.eye(4))
        towards = nibabel.orientations.ornt_transform(
            nibabel.io_orientation(np.eye(4)), nibabel.orientations.axcodes2ornt(turn)
        )
        turned.as_reoriented(towards).to_filename(tmp_path / folder / "c0.nii.gz")
    [case] = dataset_examination.examine(dataset_layouts.read_dataset(tmp_path)).fingerprint.cases
    assert case.places == {1: pytest.approx((0.1, 0.3)), 2: pytest.approx((0.6, 0.7))}


def test_a_plan_says_that_structures_keep_to_their_halves():
    found = Fingerprint(
        tuple(
            replace(facts(name=f"c{n}", references={"mask": {0: 990, 1: 10, 2: 10}}, modality="MR"), places=own)
            for n, own in enumerate([{1: LEFT, 2: RIGHT}] * 4)
        )
    )
    labelled = cohort(found.cases, ["brain nucleus a", "brain nucleus b"])
    made = planner.make_plan(
        labelled, found, Decision("sampled", "for a test"), LAPTOP, Wishes(Decision("cpu", "for a test"), 1.0)
    )
    assert made["augmentation.flips"] == made["inference.flips"] == []
    assert "keep to the two halves of all 4 training cases" in made.decision("augmentation.flips").because
