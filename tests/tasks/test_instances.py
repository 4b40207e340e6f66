"""Objects that touch: what is learnt of them, how they are parted again, and how that is scored."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

from hilum.belief import object_belief
from hilum.belief.covering_results import FALSE, MISSED
from hilum.errors import DatasetError, GeometryError, PlanError
from hilum.evaluation import instances
from hilum.tasks import fitting, task_catalogue, task_settings
from hilum.tasks.fitting import PredictedCases
from hilum.tasks.instances import answering, question
from hilum.tasks.instances.answering import HEAD, ObjectDecoder
from hilum.tasks.instances.question import InstanceSegmentation
from hilum.values import Case, CaseFacts, Dataset, Fingerprint, Geometry, Image, Label, Prediction

TASK = InstanceSegmentation((1.0, 1.0), 6.0)


def balls(shape, centres, radius):
    """(*spatial) numbered discs or balls; a voxel of two belongs to the nearer."""
    away = np.stack(
        [np.sqrt(sum((g - c) ** 2 for g, c in zip(np.indices(shape), one, strict=True))) for one in centres]
    )
    return np.where(away.min(axis=0) < radius, away.argmin(axis=0) + 1, 0).astype(np.int32)


TOUCHING = {
    2: balls((40, 60), [(20, 15), (20, 26), (11, 44), (29, 44)], 7.0),
    3: balls((20, 24, 40), [(10, 12, 10), (10, 12, 20), (9, 12, 31)], 6.0),
}


def maps_of(numbers, steps=None, reach=6.0):
    steps = steps or (1.0,) * numbers.ndim
    return (numbers > 0).astype(np.float32), question.object_heights(torch.from_numpy(numbers)[None], steps, reach)[
        0
    ].numpy()


def outputs_of(numbers):
    """(2, *spatial) as a perfect network would say it."""
    inside, height = maps_of(numbers)
    return np.stack([20 * inside - 10, height]).astype(np.float32)


def case_of(numbers, name="smear"):
    geometry = Geometry.of_pixels(numbers.shape)
    image = Image((numbers > 0).astype(np.float32)[None], geometry)
    return Case(name, name, {"image": image}, {"instances": Image(numbers[None], geometry)})


def facts_of(numbers, name="smear", physical=False):
    values, counts = np.unique(numbers, return_counts=True)
    voxels = dict(zip(values.tolist(), counts.tolist(), strict=True))
    return CaseFacts(
        name, numbers.shape, (1.0,) * numbers.ndim, physical, False, ("0",), "unknown", (),
        references={"instances": voxels}, voxel_volume=0.25 if physical else None,
    )  # fmt: skip


@pytest.mark.parametrize("axes", [2, 3])
def test_objects_that_touch_are_parted_where_they_do(axes):
    truth = TOUCHING[axes]
    assert question.touching_voxels(torch.from_numpy(truth)[None]).any()
    numbers = ObjectDecoder(0.5, 0.2)(*maps_of(truth))
    score = instances.instance_overlap(numbers, truth)
    assert len(score.predicted) == len(score.reference) == truth.max()
    assert score.aji > 0.97


def test_the_height_of_a_disc_is_its_distance_from_the_border_as_a_share_of_its_radius():
    disc = balls((31, 31), [(15, 15)], 10.5)
    height = question.object_heights(torch.from_numpy(disc)[None], (1.0, 1.0), 40.0)[0].numpy()
    away = np.hypot(*(np.indices(disc.shape) - 15))
    assert height.max() == height[15, 15] == 1
    assert_allclose(height[disc > 0], (11 - away[disc > 0]) / 11, atol=0.1)
    assert (height[disc == 0] == 0).all()


def test_heights_are_cut_off_at_the_reach_and_the_edge_of_a_patch_is_no_border():
    half = np.zeros((20, 40), dtype=np.int32)
    half[:, :20] = 1
    height = question.object_heights(torch.from_numpy(half)[None], (1.0, 1.0), 5.0)[0].numpy()
    assert_allclose(height[:, :15], 1.0)
    assert_allclose(height[10, 15:20], [1.0, 0.8, 0.6, 0.4, 0.2])


def test_voxels_that_are_longer_along_an_axis_count_as_long():
    layer = np.zeros((1, 7, 21), dtype=np.int32)
    layer[:, 1:6, 1:20] = 1
    height = question.object_heights(torch.from_numpy(layer), (3.0, 1.0), 20.0)[0].numpy()
    # At the middle 3 layers of 3 lie above, but 10 voxels of 1 beside: the nearest border is two layers off.
    assert height[3, 10] == height.max() == 1
    assert_allclose(height[2, 10] / height[3, 10], 4 / 7)


def test_heights_turn_with_their_objects():
    truth = torch.from_numpy(TOUCHING[2])[None]
    turned = question.object_heights(truth.rot90(1, (1, 2)), (1.0, 1.0), 6.0)
    assert_allclose(turned.numpy(), question.object_heights(truth, (1.0, 1.0), 6.0).rot90(1, (1, 2)).numpy())


def test_each_image_of_a_batch_has_objects_of_its_own():
    small, large = balls((30, 30), [(15, 15)], 3.0), balls((30, 30), [(15, 15)], 9.0)
    both = question.object_heights(torch.from_numpy(np.stack([small, large])), (1.0, 1.0), 20.0)
    assert_allclose(
        both[0].numpy(), question.object_heights(torch.from_numpy(small)[None], (1.0, 1.0), 20.0)[0].numpy()
    )
    assert_allclose(both.amax(dim=(1, 2)).numpy(), 1.0)


def test_the_loss_is_lowest_where_the_maps_are_right_and_joined_objects_cost_more():
    truth = torch.from_numpy(TOUCHING[2])[None]
    right = torch.from_numpy(outputs_of(TOUCHING[2]))[None]
    joined = torch.from_numpy(outputs_of((TOUCHING[2] > 0).astype(np.int32)))[None]
    costs = [
        float(question.instance_loss(one, truth, (1.0, 1.0), 6.0)) for one in (right, joined, torch.zeros_like(right))
    ]
    assert costs[0] < 0.01 < costs[1] < costs[2]
    nothing = torch.zeros_like(truth)
    assert np.isfinite(float(question.instance_loss(right, nothing, (1.0, 1.0), 6.0)))


def test_ripples_on_a_hill_are_no_objects_and_a_hill_of_its_own_is_one():
    inside, ridge = np.ones((1, 30)), np.full((1, 30), 0.5)
    ridge[0, 5], ridge[0, 15], ridge[0, 25] = 0.9, 0.57, 0.8
    assert ObjectDecoder(0.5, 0.2)(inside, ridge).max() == 2
    assert ObjectDecoder(0.5, 0.05)(inside, ridge).max() == 3
    assert ObjectDecoder(0.5, 0.5)(inside, ridge).max() == 1


def test_ripples_of_the_lattice_part_no_slanting_rod_once_they_are_smoothed_and_what_touches_stays_apart():
    across, along = np.indices((60, 60)) - 30.0
    slant = np.deg2rad(40)
    length, width = along * np.cos(slant) + across * np.sin(slant), across * np.cos(slant) - along * np.sin(slant)
    rod = ((length / 26) ** 2 + (width / 5) ** 2 < 1).astype(np.int32)
    assert (
        ObjectDecoder(0.5, 0.1)(*maps_of(rod)).max() > 1
    )  # its perfect heights have hills, because voxels are no points
    assert ObjectDecoder(0.5, 0.1, smooth=(1.0, 1.0))(*maps_of(rod)).max() == 1
    for axes, truth in TOUCHING.items():
        assert ObjectDecoder(0.5, 0.1, smooth=(1.0,) * axes)(*maps_of(truth)).max() == truth.max()
    single = [one[..., None] for one in maps_of(TOUCHING[2])]  # a picture kept as a volume of one slice
    assert ObjectDecoder(0.5, 0.1, smooth=(1.0, 1.0))(*single).max() == TOUCHING[2].max()


@given(hnp.arrays(np.int8, st.tuples(*[st.integers(2, 9)] * 2), elements=st.integers(0, 3)))
def test_two_seeds_share_what_is_open_by_their_distance_along_it_and_ties_are_the_later_ones(field):
    """Beside the plain way: every step looks at all places. 0 is closed, 1 open, 2 and 3 are seeds."""
    padded = np.pad(field, 1)
    plain = np.where(padded > 1, padded - 1, 0).astype(np.int32)
    while True:
        around = np.max([np.roll(plain, way, axis) for axis in (0, 1) for way in (1, -1)], axis=0)
        after = np.where((padded > 0) & (plain == 0), around, plain)
        if (after == plain).all():
            break
        plain = after
    numbers = np.where(padded > 1, padded - 1, 0).astype(np.int32).reshape(-1)
    waiting = np.flatnonzero(padded.reshape(-1) == 1)
    left = answering._grow(numbers, waiting, padded.reshape(-1) > 0, answering._neighbours(padded.shape))
    assert_array_equal(numbers.reshape(padded.shape), plain)
    assert_array_equal(np.sort(left), np.flatnonzero((padded.reshape(-1) == 1) & (plain.reshape(-1) == 0)))


def test_what_is_inside_without_a_hill_is_an_object_unless_it_is_too_small():
    inside = np.zeros((10, 10))
    inside[1:4, 1:4], inside[7, 7] = 1, 1
    flat = np.zeros((10, 10))
    assert ObjectDecoder(0.5, 0.2)(inside, flat).max() == 2
    assert_array_equal(
        ObjectDecoder(0.5, 0.2, smallest=2)(inside, flat) > 0, inside * (np.indices((10, 10))[0] < 5) > 0
    )


def test_an_image_without_anything_inside_has_no_object():
    numbers = ObjectDecoder(0.5, 0.2)(np.zeros((8, 8)), np.ones((8, 8)))
    assert numbers.max() == 0


def test_more_objects_than_16_bits_count_keep_their_numbers():
    inside = np.zeros((600, 600), dtype=np.float32)
    inside[::2, ::2] = 1
    numbers = ObjectDecoder(0.5, 0.2)(inside, inside)
    assert numbers.max() == 300 * 300 == len(np.unique(numbers)) - 1
    assert numbers.dtype == np.uint32
    assert object_belief.renumber_objects(np.array([[7, 7, 0, 3]])).tolist() == [[1, 1, 0, 2]]
    assert object_belief.renumber_objects(np.arange(65536)).dtype == np.uint16


def test_an_object_that_reaches_through_many_slabs_is_one():
    truth = TOUCHING[3]
    array, geometry = outputs_of(truth), Geometry.of_pixels(truth.shape)
    whole = TASK.decode([(tuple(slice(0, n) for n in truth.shape), {HEAD: array})], geometry)
    cut = [((slice(0, 20), slice(0, 24), slice(k, k + 5)), {HEAD: array[..., k : k + 5]}) for k in range(0, 40, 5)]
    assert_array_equal(TASK.decode(cut, geometry).data, whole.data)
    assert [label.name for label in whole.labels] == ["object 1", "object 2", "object 3"]


def test_a_result_has_a_count_and_a_mean_size_in_mm_where_they_are_known():
    truth = TOUCHING[2]
    region = tuple(slice(0, n) for n in truth.shape)
    known = Geometry(truth.shape, np.diag([0.5, 0.5, 1.0]))
    for geometry, column, voxel in (
        (Geometry.of_pixels(truth.shape), "mean_size_pixels", 1),
        (known, "mean_size_mm2", 0.25),
    ):
        prediction = TASK.decode([(region, {HEAD: outputs_of(truth)})], geometry)
        row = TASK.outputs(prediction)
        assert row["count"] == 4
        assert row[column] == pytest.approx((truth > 0).sum() * voxel / 4)
        count, mean, *each = TASK.results(prediction)
        assert [count.value, mean.value] == [row["count"], row[column]]
        assert np.mean([one.value for one in each]) == pytest.approx(row[column])
        assert [(one.concept, one.label, one.probability) for one in each] == [
            (label.name, label.value, prediction.confidence.scores[label.name]) for label in prediction.labels
        ]

        assert json.loads(row["scores"]) == pytest.approx([1.0] * 4, abs=1e-3)
    none = TASK.decode([], known)
    assert TASK.outputs(none) == {"count": 0, "mean_size_mm2": None, "scores": "[]"}


def test_of_very_many_objects_the_number_and_the_mean_size_are_findings_alone():
    data = np.arange(402).reshape(2, 201)
    labels = tuple(Label(n, f"object {n}") for n in range(1, 402))
    many = Prediction(Geometry.of_pixels(data.shape), data=data, labels=labels)
    assert [one.value for one in TASK.results(many)] == [401, 1.0]


def test_the_smallest_size_is_counted_in_mm_where_they_are_known():
    truth = TOUCHING[2]
    region = tuple(slice(0, n) for n in truth.shape)
    strict = replace(TASK, smallest=60.0)
    known = Geometry(truth.shape, np.diag([0.5, 0.5, 1.0]))
    assert strict.outputs(strict.decode([(region, {HEAD: outputs_of(truth)})], known))["count"] == 0
    plain = Geometry.of_pixels(truth.shape)
    assert strict.outputs(strict.decode([(region, {HEAD: outputs_of(truth)})], plain))["count"] == 4


def test_sizes_that_were_pixels_in_training_are_pixels_in_images_of_known_size_too():
    truth = TOUCHING[2]
    region = tuple(slice(0, n) for n in truth.shape)
    decided = InstanceSegmentation.settings_for(Dataset(()), Fingerprint((facts_of(truth),)))
    assert decided["in_voxels"].value is True
    task = task_catalogue.build_task({"name": "instances", **{name: one.value for name, one in decided.items()}})
    for geometry in (Geometry.of_pixels(truth.shape), Geometry.of_spacing(truth.shape, (2e-4, 2e-4))):  # 0.2 µm
        assert task.outputs(task.decode([(region, {HEAD: outputs_of(truth)})], geometry))["count"] == truth.max()
    in_mm = InstanceSegmentation.settings_for(Dataset(()), Fingerprint((facts_of(truth, physical=True),)))
    assert in_mm["in_voxels"].value is False


def test_heights_are_smoothed_by_the_sides_of_the_image_itself_whichever_way_its_axes_run():
    """A stack of three cells in slices five times as far apart as their pixels: each has its hill in three slices."""
    steps, shape = (5.0, 1.0, 1.0), (11, 40, 40)
    number, row, column = np.indices(shape)
    truth = np.where(np.hypot(row - 20, column - 20) < 12, (number + 2) // 3, 0) * (number < 10)
    inside, height = maps_of(truth, steps)
    ripples = np.random.default_rng(0).normal(0, 0.03, shape)
    outputs = np.stack([20 * inside - 10, height + ripples]).astype(np.float32)
    task, upright = InstanceSegmentation(steps, 6.0), Geometry(shape, np.diag([*steps, 1.0]))
    for axes in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        grid, turned = upright.permute(axes, (False,) * 3), np.transpose(truth, axes)
        moved = np.ascontiguousarray(outputs.transpose(0, *[axis + 1 for axis in axes]))
        made = task.decode([(tuple(slice(0, n) for n in grid.shape), {HEAD: moved})], grid)
        score = instances.instance_overlap(made.data, turned)
        assert len(score.predicted) == 3
        assert score.pq > 0.95


def test_validation_cases_decide_what_is_left_open_and_the_maps_go_with_it():
    truth = TOUCHING[2]
    region, geometry = tuple(slice(0, n) for n in truth.shape), Geometry.of_pixels(truth.shape)
    array = outputs_of(truth)
    array[0] = np.where(truth > 0, 10.0, -0.2)  # a network that says 0.45 of the background
    cases = [case_of(truth, str(n)) for n in range(3)]
    made = [TASK.decode([(region, {HEAD: array})], geometry) for _ in cases]
    assert set(made[0].untuned) == {"inside", "height"}
    tuned, decisions = fitting.with_fitted_calibration(TASK, PredictedCases(made, cases))
    assert set(decisions) == {"task.inside", "task.prominence", "task.calibration"}
    assert "12 objects of 3 validation cases" in decisions["task.inside"].because
    assert tuned.inside == 0.5
    assert tuned.decode([(region, {HEAD: array})], geometry).untuned is None
    assert fitting.with_fitted_calibration(tuned, PredictedCases(made, cases)) == (tuned, {})
    chosen = replace(TASK, inside=0.9)
    assert set(fitting.with_fitted_calibration(chosen, PredictedCases(made, cases))[1]) == {
        "task.prominence",
        "task.calibration",
    }


def test_of_few_objects_nothing_is_found_out():
    truth = balls((20, 20), [(10, 10)], 4.0)
    region, geometry = tuple(slice(0, n) for n in truth.shape), Geometry.of_pixels(truth.shape)
    made = TASK.decode([(region, {HEAD: outputs_of(truth)})], geometry)
    tuned, decisions = fitting.with_fitted_calibration(TASK, PredictedCases([made], [case_of(truth)]))
    assert (tuned.inside, tuned.prominence) == (0.5, 0.2)
    assert "too few" in decisions["task.inside"].because


def test_selection_is_the_mean_ap_of_the_cases_that_have_an_object():
    truth = TOUCHING[2]
    both = np.stack([truth, truth, np.zeros_like(truth)])
    arrays = np.stack([outputs_of(truth), outputs_of((truth > 0).astype(np.int32)), outputs_of(both[2])])
    collected = TASK.quality({HEAD: torch.from_numpy(arrays)}, torch.from_numpy(both))
    joined = instances.instance_overlap(ObjectDecoder(0.5, 0.2)(*maps_of((truth > 0).astype(np.int32))), truth).ap()
    right = instances.instance_overlap(ObjectDecoder(0.5, 0.2)(*maps_of(truth)), truth).ap()
    assert TASK.selection(collected) == pytest.approx((right + joined) / 2)


def test_a_target_is_numbered_without_gaps_and_lies_on_the_images_grid():
    numbers = np.array([[0, 3_000_000_000], [7, 7]], dtype=np.int64)
    target = TASK.target(case_of(numbers))
    assert target.data.tolist() == [[0, 2], [1, 1]]
    assert target.data.dtype == np.int32
    case = case_of(TOUCHING[2])
    other = Image(TOUCHING[2][None, :, :-1], Geometry.of_pixels((40, 59)))
    with pytest.raises(GeometryError, match="different grids"):
        TASK.target(replace(case, references={"instances": other}))


def test_scores_have_a_row_a_case_and_a_summary_with_the_unit_of_counts():
    truth = TOUCHING[2]
    region, geometry = tuple(slice(0, n) for n in truth.shape), Geometry.of_pixels(truth.shape)
    right = TASK.decode([(region, {HEAD: outputs_of(truth)})], geometry)
    short = TASK.decode([(region, {HEAD: outputs_of(np.where(truth == 1, 0, truth))})], geometry)
    table = TASK.score([right, short], [case_of(truth, "a"), case_of(truth, "b")])
    assert table["objects_predicted"].tolist() == [4, 3]
    assert table["count_difference"].tolist() == [0, -1]
    rows = {row.metric: row.estimate for row in TASK.summary(table, seed=0)}
    assert all(TASK.metrics.metric_named(metric).is_of_belief for metric in set(rows) - TASK.primaries)
    assert TASK.primaries - {MISSED, FALSE, "hota", "identity_switches"} <= set(rows)
    assert next(iter(rows)) == "ap50"
    assert rows["count_error"].value == 0.5
    assert rows["count_error"].unit == "objects"
    assert rows["ap50"].value == pytest.approx((1 + 3 / 4) / 2)
    assert rows["ap50_pooled"].value == pytest.approx(7 / 8)
    assert TASK.rank(table) == ["a", "b"]
    assert TASK.figures(right, case_of(truth))[0].png.startswith(b"\x89PNG")
    assert len(TASK.overview(table)) == 2


def test_an_object_free_case_is_legal_and_left_out_of_the_means():
    empty, truth = np.zeros_like(TOUCHING[2]), TOUCHING[2]
    region, geometry = tuple(slice(0, n) for n in truth.shape), Geometry.of_pixels(truth.shape)
    made = [TASK.decode([(region, {HEAD: outputs_of(one)})], geometry) for one in (truth, empty)]
    table = TASK.score(made, [case_of(truth, "a"), case_of(empty, "b")])
    rows = {row.metric: row.estimate for row in TASK.summary(table, seed=0)}
    assert rows["ap50"].value == 1
    assert "1 undefined left out" in rows["ap50"].method


def test_the_plan_knows_sizes_and_reach_from_the_training_objects():
    truth = TOUCHING[2]
    fingerprint = Fingerprint((facts_of(truth), facts_of(np.zeros_like(truth), "empty")))
    decided = InstanceSegmentation.settings_for(Dataset((case_of(truth),)), fingerprint)
    sizes = np.unique(truth[truth > 0], return_counts=True)[1]
    assert decided["reach"].value == pytest.approx(np.median(np.sqrt(sizes / np.pi)), abs=0.01)
    assert "4 objects of 1 training case" in decided["reach"].because
    assert sizes.min() / 2 <= decided["smallest"].value <= sizes.min() / 2 + 2
    assert decided["smallest"].because.startswith("pixels")
    assert decided["steps"].value == [1.0, 1.0]
    in_mm = InstanceSegmentation.settings_for(Dataset(()), Fingerprint((facts_of(truth, physical=True),)))
    assert in_mm["smallest"].value == pytest.approx(decided["smallest"].value / 4)
    task = task_catalogue.build_task({"name": "instances", **{name: one.value for name, one in decided.items()}})
    assert task_catalogue.build_task({"name": "instances", **task_settings.settings_of(task)}) == task
    with pytest.raises(DatasetError, match="no objects"):
        InstanceSegmentation.settings_for(Dataset(()), Fingerprint((facts_of(np.zeros_like(truth)),)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", [1.0]),
        ("reach", 0.0),
        ("smallest", -1.0),
        ("in_voxels", "yes"),
        ("inside", 1.5),
        ("prominence", 0),
        ("depth", 3),
        ("reach", "far"),
    ],
)
def test_an_impossible_setting_is_refused_by_name(name, value):
    with pytest.raises(PlanError, match="task"):
        task_settings.task_from_settings(InstanceSegmentation, {**task_settings.settings_of(TASK), name: value})


def test_a_data_set_of_numbered_objects_is_a_task_of_instances():
    assert task_catalogue.kind_for_dataset(Dataset((case_of(TOUCHING[2]),))) is InstanceSegmentation


def test_memory_counts_what_parting_objects_takes():
    assert task_catalogue.voxel_bytes(TASK) > 8
