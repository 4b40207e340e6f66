from __future__ import annotations

from dataclasses import replace

import pytest

from hilum.errors import DatasetError, PlanError
from hilum.tasks import task_settings
from hilum.tasks.segmentation.question import Segmentation
from hilum.values import CaseFacts, Dataset, Decision, Fingerprint, Label

LABELS = (Label(1, "organ"), Label(2, "vessel"))


def facts(
    voxels: dict[int, int], thickness: dict[int, float], pieces: int = 1, elongation: dict[int, float] | None = None
) -> CaseFacts:
    return CaseFacts(
        "a",
        (64, 64, 32),
        (1.0, 1.0, 2.0),
        True,
        True,
        ("CT",),
        "CT",
        ({"min": 0.0, "low": 0.0, "high": 1.0, "median": 0.5, "max": 1.0, "mean": 0.5, "deviation": 0.2},),
        references={"mask": voxels},
        thickness=thickness,
        elongation=elongation or {},
        components=dict.fromkeys(thickness, pieces),
    )


def planned(*cases: CaseFacts, labels: tuple[Label, ...] = LABELS):
    dataset = Dataset((), classes={"mask": labels})
    return Segmentation.settings_for(dataset, Fingerprint(cases))


def test_thick_structures_are_taught_by_overlap_and_entropy_within_two_voxels():
    decisions = planned(facts({0: 100_000, 1: 20_000, 2: 9_000}, {1: 12.0, 2: 9.0}))
    assert decisions["loss"].value == "dice+ce"
    assert "22.5 %" in decisions["loss"].because
    assert decisions["tolerance"].value == {"organ": 2.0, "vessel": 2.0}
    assert decisions["weights"].value is None


def test_a_thin_structure_brings_the_boundary_in_and_halves_its_tolerance():
    decisions = planned(facts({0: 100_000, 1: 20_000, 2: 9_000}, {1: 12.0, 2: 2.3}, pieces=50))
    assert decisions["loss"].value == "dice+ce+boundary"
    assert "vessel is 2.3 voxels thin" in decisions["loss"].because
    assert decisions["tolerance"].value == {"organ": 2.0, "vessel": 1.0}


def test_so_do_tiny_pieces():
    decisions = planned(facts({0: 100_000, 1: 20_000, 2: 800}, {1: 12.0, 2: 5.0}, pieces=10))
    assert decisions["loss"].value == "dice+ce+boundary"
    assert "a piece of vessel has 80 voxels" in decisions["loss"].because


def test_where_nearly_all_is_background_the_easy_voxels_count_little():
    decisions = planned(facts({0: 10_000_000, 1: 4_000, 2: 3_000}, {1: 12.0, 2: 9.0}))
    assert decisions["loss"].value == "dice+focal"


def test_labels_of_very_unlike_volumes_are_weighted_and_the_reason_says_how_unlike():
    decisions = planned(facts({0: 100_000, 1: 90_000, 2: 300}, {1: 30.0, 2: 6.0}))
    assert decisions["weights"].value["organ"] == 1.0
    assert 1.0 < decisions["weights"].value["vessel"] <= 10.0
    assert "300 times fewer" in decisions["weights"].because


def test_what_is_planned_makes_a_task():
    decisions = planned(facts({0: 100_000, 1: 90_000, 2: 300}, {1: 30.0, 2: 2.0}, pieces=4))
    task = task_settings.task_from_settings(
        Segmentation, {name: decision.value for name, decision in decisions.items()}
    )
    assert task.loss_name == "dice+ce+boundary"
    assert task.postprocessing is None
    assert all(decision.because for decision in decisions.values())


def test_what_is_long_and_thin_is_taught_and_measured_by_its_centreline():
    decisions = planned(facts({0: 100_000, 1: 20_000, 2: 9_000}, {1: 12.0, 2: 6.0}, elongation={1: 2.0, 2: 42.0}))
    assert decisions["loss"].value == "dice+ce+cldice"
    assert decisions["centrelines"].value == ["vessel"]
    assert "vessel is 6.0 voxels thin and 42 times as long" in decisions["loss"].because
    task = task_settings.task_from_settings(
        Segmentation, {name: decision.value for name, decision in decisions.items()}
    )
    assert task_settings.task_from_settings(Segmentation, task_settings.settings_of(task)) == task


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "dice+ce+cldice"}, "no label is long and thin"),
        ({"loss": "dice+ce+cldice", "centrelines": ["nerve"]}, "there is no label 'nerve'"),
        ({"loss": "dice", "weights": {"organ": 2.0}}, "weights would do nothing"),
    ],
)
def test_a_loss_that_does_not_suit_the_labels_is_refused(settings, message):
    labels = [{"value": 1, "name": "organ"}, {"value": 2, "name": "vessel"}]
    with pytest.raises(PlanError, match=message):
        task_settings.task_from_settings(
            Segmentation, {"labels": labels, "loss": "dice+ce", "tolerance": 2.0, **settings}
        )


def test_more_labels_than_a_target_has_numbers_are_refused():
    def task(count: int) -> Segmentation:
        labels = [{"value": n, "name": f"area {n}"} for n in range(1, count + 1)]
        return task_settings.task_from_settings(Segmentation, {"labels": labels, "loss": "dice+ce", "tolerance": 2.0})

    assert len(task(254).labels) == 254
    with pytest.raises(PlanError, match=r"255 labels, and a segmentation learns at most 254"):
        task(255)


def test_masks_that_mark_nothing_are_refused():
    with pytest.raises(DatasetError, match="every training mask is empty"):
        planned(facts({0: 131_072}, {}))


def test_facts_without_thickness_still_make_a_plan():
    decisions = planned(facts({0: 100_000, 1: 20_000}, {}), labels=())
    assert decisions["loss"].value == "dice+ce"
    assert decisions["tolerance"].value == {"1": 2.0}


def reduced(shape: tuple[int, ...], *widths: float) -> Decision:
    """Of cases in which the structures are so many voxels wide."""
    case = facts({0: 100_000, 1: 90_000, 2: 300}, dict(enumerate(widths, start=1)))
    case = replace(case, shape=shape, steps=(1.0,) * len(shape))
    task = task_settings.task_from_settings(
        Segmentation, {name: decision.value for name, decision in planned(case).items()}
    )
    return task.decisions(Fingerprint((case,)))["preprocessing.reduction"]


@pytest.mark.parametrize(
    ("shape", "widths", "factor"),
    [
        ((256, 256), (60.0, 27.0), 2.0),
        ((256, 256, 1), (60.0, 27.0), 2.0),
        ((640, 480), (60.0, 27.0), 2.0),
        ((640, 480), (60.0, 90.0), 3.0),  # else the image itself would be too small
        ((640, 480), (60.0, 9.0), 1.0),  # vessels would be lost
        ((640, 480), (), 1.0),
        ((256, 256, 300), (60.0, 27.0), 1.0),
    ],
)
def test_pictures_are_as_coarse_as_their_thinnest_structure_allows(shape, widths, factor):
    assert reduced(shape, *widths).value == factor


def test_the_reason_says_what_is_left_of_the_thinnest_structure():
    assert reduced((256, 256), 60.0, 27.0).because == (
        "vessel is 27 voxels wide: a coarser grid leaves 13.5 of them, and time for more steps"
    )
