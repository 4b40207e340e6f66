from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from isocenter import tasks
from isocenter.errors import DatasetError, GeometryError, PlanError
from isocenter.tasks.segmentation import Segmentation
from isocenter.values import Case, Geometry, Image, Label, Prediction

GRID = Geometry((4, 5, 6), np.diag([2.0, 1.0, 0.5, 1.0]))
TASK = Segmentation((Label(7, "liver", (255, 0, 0)), Label(3, "tumour")))


def case(mask: np.ndarray, grid: Geometry = GRID, on: Geometry = GRID, name: str = "a") -> Case:
    image = Image(np.zeros((1, *on.shape), np.float32), on)
    return Case(name, name, {"image": image}, {"mask": Image(mask[None], grid)})


def box(value: int, *region: slice) -> np.ndarray:
    mask = np.zeros(GRID.shape, np.uint8)
    mask[region] = value
    return mask


def certain(target: torch.Tensor, channels: int = 3, by: float = 30.0) -> torch.Tensor:
    """Logits that say the target beyond doubt."""
    return by * torch.nn.functional.one_hot(target.long(), channels).movedim(-1, 1).float()


def test_a_task_comes_back_from_its_settings():
    assert tasks.build({"name": "segmentation", **TASK.settings}) == TASK


def test_label_values_become_channels_in_the_order_of_the_labels():
    mask = box(7, slice(0, 2)) + box(3, slice(3, 4))
    target = TASK.target(case(mask))
    assert_array_equal(target.data, np.select([mask == 7, mask == 3], [1, 2]))
    assert target.head.channels == 3


def test_a_value_without_label_and_a_mask_on_another_grid_are_refused():
    with pytest.raises(DatasetError, match="5"):
        TASK.target(case(box(5, slice(0, 1))))
    moved = Geometry(GRID.shape, GRID.affine + np.diag([1.0, 1.0, 1.0], k=1))
    with pytest.raises(GeometryError, match="different grids"):
        TASK.target(case(box(7, slice(0, 1)), grid=moved))


def test_a_mask_of_floats_is_read_where_they_are_whole_and_refused_where_not():
    assert TASK.target(case(box(7, slice(0, 1)).astype(np.float32))).data.max() == 1
    with pytest.raises(DatasetError, match="whole numbers"):
        TASK.target(case(np.full(GRID.shape, 0.5, np.float32)))


def test_a_perfect_answer_costs_nothing_and_a_wrong_one_much():
    target = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (2, 6, 6)))
    assert float(TASK.loss({"mask": certain(target)}, target)) == pytest.approx(0.0, abs=1e-5)
    assert float(TASK.loss({"mask": certain((target + 1) % 3)}, target)) > 20


def test_the_loss_of_knowing_nothing_is_the_entropy_and_the_soft_dice_of_a_third():
    target = torch.zeros(1, 9, dtype=torch.long)
    target[0, :3], target[0, 3:6] = 1, 2
    # probability 1/3 everywhere: both = 3 * 1/3, sizes 9 * 1/3 + 3, so each label has Dice 2 / 6
    assert float(TASK.loss({"mask": torch.zeros(1, 3, 9)}, target)) == pytest.approx(np.log(3) + 1 - 1 / 3, abs=1e-4)
    entropy_only = Segmentation(TASK.classes, "ce")
    assert float(entropy_only.loss({"mask": torch.zeros(1, 3, 9)}, target)) == pytest.approx(np.log(3), abs=1e-6)


def test_a_batch_without_a_label_has_a_finite_loss_and_gradient():
    logits = torch.zeros(2, 3, 4, 4, requires_grad=True)
    TASK.loss({"mask": logits}, torch.zeros(2, 4, 4, dtype=torch.long)).backward()
    assert logits.grad.isfinite().all()


def test_counts_of_parts_add_up_to_the_selection_over_the_whole():
    rng = np.random.default_rng(1)
    truth, said = (torch.from_numpy(rng.integers(0, 3, (1, 8, 8))) for _ in range(2))
    parts = [slice(0, 3), slice(3, 8)]
    collected: dict[str, torch.Tensor] = {}
    for part in parts:
        for name, value in TASK.quality({"mask": certain(said[:, part])}, truth[:, part]).items():
            collected[name] = collected.get(name, 0) + value
    dice = [2 * int(((truth == c) & (said == c)).sum()) / int((truth == c).sum() + (said == c).sum()) for c in (1, 2)]
    assert TASK.selection(collected) == pytest.approx(np.mean(dice))


def test_a_label_that_neither_side_has_is_left_out_of_the_selection():
    counts = {"both": torch.tensor([[4, 0]]), "size": torch.tensor([[10, 0]])}
    assert TASK.selection(counts) == pytest.approx(0.8)


def test_decoding_places_the_label_values_and_leaves_the_rest_background():
    slabs = [
        (
            (slice(0, 1), slice(0, 5), slice(1, 6)),
            {"mask": np.eye(3)[:, 1].reshape(3, 1, 1, 1) * np.ones((3, 1, 5, 5))},
        ),
        (
            (slice(1, 3), slice(0, 5), slice(1, 6)),
            {"mask": np.eye(3)[:, 2].reshape(3, 1, 1, 1) * np.ones((3, 2, 5, 5))},
        ),
    ]
    prediction = TASK.decode(slabs, GRID)
    assert_array_equal(
        prediction.data, box(7, slice(0, 1), slice(None), slice(1, 6)) + box(3, slice(1, 3), slice(None), slice(1, 6))
    )
    assert prediction.geometry is GRID
    assert [label.name for label in prediction.labels] == ["liver", "tumour"]


def test_a_case_is_scored_as_worked_out_by_hand():
    truth = box(7, slice(0, 2), slice(0, 2), slice(0, 2))  # 8 voxels of 1 mm3
    said = box(7, slice(0, 2), slice(0, 2), slice(0, 3))  # 12, 8 of them right
    table = TASK.score([Prediction(GRID, data=said, labels=TASK.classes)], [case(truth)])
    assert list(table.columns[:3]) == ["case", "patient", "label"]
    assert table["label"].tolist() == ["liver", "tumour"]
    liver = table.iloc[0]
    assert liver["dice"] == pytest.approx(2 * 8 / 20)
    assert liver["iou"] == pytest.approx(8 / 12)
    assert (liver["sensitivity"], liver["precision"]) == (1.0, pytest.approx(8 / 12))
    assert liver["volume_error"] == pytest.approx(0.004)  # ml
    assert liver["hd95"] == pytest.approx(0.5)
    assert np.isnan(table.iloc[1]["dice"])


def test_the_summary_is_the_mean_over_cases_and_over_labels_first():
    full, none = box(7, slice(0, 2)) + box(3, slice(2, 4)), box(7, slice(0, 2))
    tables = TASK.score(
        [Prediction(GRID, data=full, labels=TASK.classes), Prediction(GRID, data=none, labels=TASK.classes)],
        [case(full), case(full, name="b")],
    )
    rows = [row for row in TASK.summary(tables, seed=0) if row.metric == "dice"]
    assert [row.label for row in rows] == ["all", "liver", "tumour"]
    assert [row.estimate.value for row in rows] == pytest.approx([0.75, 1.0, 0.5])
    assert TASK.rank(tables) == ["a", "b"]


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "mse"},
        {"labels": []},
        {"labels": [{"value": 0, "name": "air"}]},
        {"labels": [{"value": 1, "name": "a"}, {"value": 1, "name": "b"}]},
        {"labels": [{"name": "a"}]},
        {"tolerance": "wide"},
        {"tolerance": -1.0},
        {"tolerance": "nan"},
    ],
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(PlanError):
        Segmentation.of({**TASK.settings, **change})
