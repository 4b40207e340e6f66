from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal

from hilum.errors import DatasetError, GeometryError, PlanError
from hilum.evaluation import distance, intervals
from hilum.tasks import task_catalogue, task_settings
from hilum.tasks.segmentation import scoring
from hilum.tasks.segmentation.mask_postprocessing import Tidying
from hilum.tasks.segmentation.question import Segmentation
from hilum.values import Case, Confidence, Geometry, Image, Label, Prediction

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
    assert task_catalogue.build_task({"name": "segmentation", **task_settings.settings_of(TASK)}) == TASK
    full = Segmentation(
        TASK.classes,
        "dice+focal",
        {"liver": 2.0, "tumour": 0.5},
        {"background": 1.0, "tumour": 3.0},
        {"tumour": Tidying(True, False, 12.5)},
    )
    assert (
        task_catalogue.build_task({"name": "segmentation", **json.loads(json.dumps(task_settings.settings_of(full)))})
        == full
    )


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
    truth, predicted = (torch.from_numpy(rng.integers(0, 3, (1, 8, 8))) for _ in range(2))
    parts = [slice(0, 3), slice(3, 8)]
    collected: dict[str, torch.Tensor] = {}
    for part in parts:
        for name, value in TASK.quality({"mask": certain(predicted[:, part])}, truth[:, part]).items():
            collected[name] = collected.get(name, 0) + value
    dice = [
        2 * int(((truth == c) & (predicted == c)).sum()) / int((truth == c).sum() + (predicted == c).sum())
        for c in (1, 2)
    ]
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


def test_the_post_processing_of_a_label_is_part_of_decoding():
    logits = np.zeros((3, *GRID.shape), np.float32)
    logits[1, 0:2] = logits[2, 3, :2] = logits[2, 3, 4] = 5.0
    slabs = [((slice(0, 4), slice(0, 5), slice(0, 6)), {"mask": logits})]
    plain = np.asarray(TASK.decode(slabs, GRID).data)
    tidy = Segmentation(TASK.classes, postprocessing={"tumour": Tidying(largest=True)})
    tidied = np.asarray(tidy.decode(slabs, GRID).data)
    assert_array_equal(tidied == 7, plain == 7)
    assert_array_equal(np.argwhere(tidied != plain), [[3, 4, column] for column in range(6)])


def test_the_average_of_outputs_decodes_to_the_label_with_the_highest_mean_probability():
    sure, unsure = np.array([[0.0, 3.0]]), np.array([[0.5, 0.0]])
    mean = TASK.average([{"mask": sure}, {"mask": unsure}, {"mask": unsure}])
    assert TASK.probabilities({"mask": mean["mask"][0]})["mask"].sum() == pytest.approx(1.0)
    assert mean["mask"][0].argmax() == 1  # two vote for the first, yet the sure one weighs more


def test_each_label_has_its_own_tolerance():
    truth = box(7, slice(0, 2), slice(0, 2), slice(0, 2)) + box(3, slice(2, 4), slice(3, 5), slice(0, 2))
    predicted = box(7, slice(0, 2), slice(0, 2), slice(0, 4)) + box(3, slice(2, 4), slice(3, 5), slice(0, 4))
    # an end face moved by 1 mm
    task = Segmentation(TASK.classes, tolerance={"liver": 1.0, "tumour": 0.4})
    table = task.score([Prediction(GRID, data=predicted, labels=TASK.classes)], [case(truth)])
    assert table["nsd"].tolist()[0] == 1.0
    assert table["nsd"].tolist()[1] < 0.9
    methods = {row.label: row.estimate.method for row in task.summary(table, seed=0) if row.metric == "nsd"}
    assert "tolerance 1 mm" in methods["liver"]
    assert "tolerance 0.4 mm" in methods["tumour"]
    assert "tolerance 0.4 to 1 mm" in methods["all"]


def test_what_has_one_empty_side_is_counted_at_the_worst_and_what_has_two_is_left_out():
    only_liver, none = box(7, slice(0, 2)), box(7, slice(0, 0))
    pairs = [(only_liver, only_liver), (none, only_liver), (only_liver, none), (none, none)]
    table = TASK.score(
        [Prediction(GRID, data=predicted, labels=TASK.classes) for predicted, _ in pairs],
        [case(truth, name=str(n)) for n, (_, truth) in enumerate(pairs)],
    )
    liver = table[table["label"] == "liver"]
    diagonal = float(np.linalg.norm(np.multiply(GRID.shape, GRID.spacing)))
    assert liver["dice"].tolist()[:3] == liver["nsd"].tolist()[:3] == liver["iou"].tolist()[:3] == [1.0, 0.0, 0.0]
    assert liver["hd95"].tolist()[:3] == liver["assd"].tolist()[:3] == pytest.approx([0.0, diagonal, diagonal])
    assert liver[["dice", "iou", "nsd", "hd95", "assd"]].iloc[3].isna().all()
    assert liver["detected"].tolist()[:2] == [1.0, 0.0]
    assert liver["false_positive_volume"].tolist()[2:] == pytest.approx([0.06, 0.0])  # ml, on empty references alone
    assert liver["false_positive_volume"][:2].isna().all()
    rows = {(row.metric, row.label): row.estimate for row in TASK.summary(table, seed=0)}
    assert rows["dice", "liver"].value == pytest.approx(1 / 3)
    assert "1 undefined left out" in rows["dice", "liver"].method
    assert "2 with one side empty counted as the image's diagonal" in rows["hd95", "liver"].method
    assert "2 with one side empty counted as 0" in rows["nsd", "liver"].method
    assert rows["detected", "liver"].value == 0.5
    assert rows["detected", "liver"].low == pytest.approx(intervals.wilson(1, 2).low)
    assert "Wilson" in rows["detected", "liver"].method
    assert "2 empty references left out" in rows["detected", "liver"].method
    assert "of 2 empty references" in rows["false_positive_volume", "liver"].method
    assert rows["dice_pooled", "liver"].value == pytest.approx(2 / 4)


def test_pictures_are_scored_in_pixels_and_flat_images_with_a_size_in_square_mm():
    for grid, names in (
        (Geometry.of_pixels((8, 8)), ("hd95_pixels", "assd_pixels", "nsd_pixels", "volume_error_pixels")),
        (Geometry((8, 8), np.diag([0.5, 0.5, 1.0])), ("hd95", "assd", "nsd", "volume_error_mm2")),
    ):
        mask = np.zeros((8, 8), np.uint8)
        mask[2:5, 2:5] = 7
        predicted = np.zeros_like(mask)
        predicted[2:5, 2:7] = 7
        table = TASK.score([Prediction(grid, data=predicted, labels=TASK.classes)], [case(mask, grid, grid)])
        assert set(names) <= set(table)
        units = {row.metric: row.estimate.unit for row in TASK.summary(table, seed=0)}
        size = grid.spacing
        assert [units[name] for name in names] == (
            ["pixels", "pixels", "", "pixels"] if size is None else ["mm", "mm", "", "mm²"]
        )
        assert TASK.metrics.metric_named(names[3]).words == "Area error"
        assert table.iloc[0][names[3]] == pytest.approx(6 if size is None else 6 * 0.25)
        assert table.iloc[0][names[0]] == pytest.approx(2 if size is None else 1.0)


def test_volumes_of_unknown_size_are_scored_in_voxels():
    grid = Geometry((8, 8, 8), np.eye(4), physical=False, oriented=False)
    mask, predicted = (np.zeros((8, 8, 8), np.uint8) for _ in range(2))
    mask[2:5, 2:5, 2:5], predicted[2:5, 2:5, 2:7] = 7, 7
    table = TASK.score([Prediction(grid, data=predicted, labels=TASK.classes)], [case(mask, grid, grid)])
    rows = {row.metric: row.estimate for row in TASK.summary(table, seed=0)}
    assert not [name for name in [*table, *rows] if name.endswith("_pixels")]
    names = ("hd95_voxels", "hd_voxels", "assd_voxels", "nsd_voxels", "volume_error_voxels")
    assert set(names) <= TASK.primaries
    assert [rows[name].unit for name in names] == ["voxels", "voxels", "voxels", "", "voxels"]
    assert "voxels" in rows["nsd_voxels"].method
    assert TASK.metrics.metric_named("nsd_voxels").words == "NSD, tolerance in voxels"
    assert distance.surface_distance(mask[..., 3], predicted[..., 3]).unit == "pixels"
    assert distance.surface_distance(mask, predicted).unit == "voxels"


def test_intervals_of_images_of_known_and_of_unknown_size_are_counted_together():
    mask, one = np.zeros((8, 8), np.uint8), Confidence(low={"liver": 1.0}, high={"liver": 20.0})
    mask[2:5, 2:5] = 7
    none = np.zeros_like(mask)
    grids = [Geometry((8, 8), np.diag([0.5, 0.5, 1.0])), Geometry.of_pixels((8, 8))]
    table = TASK.score(
        [
            Prediction(grid, data=own, labels=TASK.classes, confidence=one)
            for grid, own in zip(grids, (mask, none), strict=True)
        ],
        [case(mask, grid, grid, str(n)) for n, grid in enumerate(grids)],
    )
    rows = {(row.metric, row.label): row.estimate for row in TASK.summary(table, seed=0)}
    assert rows["coverage", "liver"].value == 1  # 2.25 mm2 and 9 pixels
    assert ("interval_width", "liver") not in rows
    assert "with one side empty" not in rows["hd95", "liver"].method
    assert "1 with one side empty" in rows["hd95_pixels", "liver"].method


def test_a_case_is_scored_as_worked_out_by_hand():
    truth = box(7, slice(0, 2), slice(0, 2), slice(0, 2))  # 8 voxels of 1 mm3
    predicted = box(7, slice(0, 2), slice(0, 2), slice(0, 3))  # 12, 8 of them right
    table = TASK.score([Prediction(GRID, data=predicted, labels=TASK.classes)], [case(truth)])
    assert list(table.columns[:3]) == ["case", "patient", "label"]
    assert table["label"].tolist() == ["liver", "tumour"]
    liver = table.iloc[0]
    assert liver["dice"] == pytest.approx(2 * 8 / 20)
    assert liver["iou"] == pytest.approx(8 / 12)
    assert (liver["sensitivity"], liver["precision"]) == (1.0, pytest.approx(8 / 12))
    assert liver["volume_error"] == pytest.approx(0.004)  # ml
    assert liver["hd95"] == pytest.approx(0.5)
    assert np.isnan(table.iloc[1]["dice"])


def test_under_a_tilted_gantry_a_voxel_is_smaller_than_its_edges_multiplied():
    tilted = Geometry((4, 5, 6), np.array([[2.0, 0, 0, 0], [0, 1, 0.3, 0], [0, 0, 0.4, 0], [0, 0, 0, 1]]))
    truth, predicted = box(7, slice(0, 2)), box(7, slice(0, 3))
    table = TASK.score([Prediction(tilted, data=predicted, labels=TASK.classes)], [case(truth, tilted, tilted)])
    assert table["volume_error"].iloc[0] == pytest.approx(30 * 2 * 0.4 / 1000)
    assert TASK.outputs(Prediction(tilted, data=predicted))["liver_ml"] == pytest.approx(90 * 0.8 / 1000)


def test_numbers_of_pieces_are_no_shares_even_where_all_cases_have_one_too_many():
    truth, grid = np.zeros((24, 24), np.uint8), Geometry.of_pixels((24, 24))
    truth[4:7, 2:20] = 1
    predicted = truth.copy()
    predicted[14:17, 2:20] = 1
    [scores] = scoring.structure_case_rows(predicted, truth, {"vessel": (1,)}, grid, {"vessel": 1.0}, ("vessel",))
    table = pd.DataFrame([{"case": f"c{n}", "patient": f"p{n}", "split": "test", **scores} for n in range(12)])
    made = {
        row.metric: row.estimate
        for row in scoring.mask_summary_rows(table, {"vessel": 1.0}, seed=0)
        if row.label == "vessel"
    }
    assert (made["components_error"].value, made["components_error"].unit) == (1, "pieces")
    assert (made["loops_error"].value, made["loops_error"].unit) == (0, "loops")
    assert made["components_error"].low is made["components_error"].high is made["loops_error"].high is None
    assert made["centreline_recall"].low > 0.7


def test_a_structure_that_is_called_all_has_figures_of_its_own_beside_those_of_all():
    figures = []
    for name in ("liver", "all"):
        labels = (Label(7, name), Label(3, "tumour"))
        task = Segmentation(labels, tolerance={name: 1.0, "tumour": 0.4})
        whole = box(7, slice(0, 2)) + box(3, slice(2, 4))
        pairs = [(whole, whole), (box(7, slice(0, 1)), whole)]
        predictions = [Prediction(GRID, data=predicted, labels=labels) for predicted, _ in pairs]
        table = task.score(predictions, [case(truth, name=str(n)) for n, (_, truth) in enumerate(pairs)])
        rows = task.summary(table, seed=0)
        figures.append({(row.metric, row.label): (row.estimate.value, row.estimate.method) for row in rows})
        assert len(figures[-1]) == len(rows)
        assert next(iter(task.overview(table))).title == "Dice of the cases"
    plain, own = figures
    assert set(own) == {(metric, "all (structure)" if label == "liver" else label) for metric, label in plain}
    for (metric, label), (value, method) in plain.items():
        same = own[metric, "all (structure)" if label == "liver" else label]
        assert (same[0] == pytest.approx(value, nan_ok=True), same[1]) == (True, method)


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
        {"tolerance": {"liver": 1.0}},
        {"tolerance": {"liver": 1.0, "tumour": 1.0, "lung": 1.0}},
        {"weights": {"tumour": 0.0}},
        {"weights": {"lung": 1.0}},
        {"postprocessing": {"liver": {"largest": "yes"}}},
        {"postprocessing": {"liver": {"smooth": True}}},
        {"postprocessing": {"lung": {}}},
        {"labels": [{"value": 1, "name": "a"}, {"value": 2, "name": "a"}]},
        {"losses": "ce"},
    ],
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(PlanError):
        task_settings.task_from_settings(Segmentation, {**task_settings.settings_of(TASK), **change})
