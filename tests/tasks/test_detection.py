from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hilum.belief import box_belief
from hilum.errors import DatasetError, FormatError, PlanError
from hilum.evaluation import box_matching
from hilum.tasks import fitting, properties, task_catalogue, task_settings
from hilum.tasks.detection import question
from hilum.tasks.detection.answering import PRIOR
from hilum.tasks.detection.question import Detection
from hilum.tasks.detection.scoring import SELECTION_OVERLAPS
from hilum.tasks.fitting import PredictedCases
from hilum.values import BoundingBoxes, Case, CaseFacts, Dataset, Fingerprint, Geometry, Image, Label, Prediction

TASK = Detection(("cell", "clump"), 2, 8.0)


def boxes(*named: tuple[str, tuple[float, ...]], scores=None, axes: int = 2) -> BoundingBoxes:
    corners = np.array([corner for _, corner in named], dtype=float).reshape(-1, 2 * axes)
    return BoundingBoxes(corners, tuple(name for name, _ in named), scores)


def case(name: str, reference: BoundingBoxes, patient: str | None = None, shape=(24, 32)) -> Case:
    image = Image(np.zeros((1, *shape), np.float32), Geometry.of_pixels(shape))
    return Case(name, patient or name, {"image": image}, {"boxes": reference})


def ideal(task: Detection, given: BoundingBoxes, shape: tuple[int, ...]) -> np.ndarray:
    """(classes + 2 * axes, *shape) what a network that knows all would say of an image."""
    kinds = np.array([[task.classes.index(name)] for name in given.names], float).reshape(-1, 1)
    rows = torch.from_numpy(np.concatenate([kinds, given.corners], axis=1).astype(np.float32))
    truth = question.box_target(rows, len(task.classes), shape)
    chance = truth.heat.clamp(0.001, 0.98)
    logits = torch.log(chance / (1 - chance)) - PRIOR
    return torch.cat([logits, truth.lengths / task.typical, truth.offsets / task.typical]).numpy()


def whole(array: np.ndarray) -> list:
    return [(tuple(slice(0, size) for size in array.shape[1:]), {"boxes": array})]


def test_a_task_comes_back_from_its_settings_and_from_json():
    full = Detection(("cell",), 3, 4.5, 0.2, 0.37)
    for task in (TASK, full):
        assert (
            task_catalogue.build_task({"name": "detection", **json.loads(json.dumps(task_settings.settings_of(task)))})
            == task
        )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"classes": []}, "at least one class"),
        ({"classes": ["a", "a"]}, "each once"),
        ({"axes": 4}, "4 axes"),
        ({"typical": 0}, "a side of 0.0"),
        ({"typical": "long"}, "impossible"),
        ({"suppression": 2}, "not in"),
        ({"threshold": 0}, "not in"),
        ({"radius": 1}, "no such setting"),
    ],
)
def test_impossible_settings_are_refused(change, problem):
    with pytest.raises(PlanError, match=problem):
        task_catalogue.build_task({"name": "detection", **task_settings.settings_of(TASK), **change})


def test_the_target_is_a_row_a_box_and_one_of_class_minus_2_for_what_is_to_be_ignored():
    given = BoundingBoxes(
        np.array([[1, 2, 5, 6], [0, 0, 9, 9], [3, 3, 4, 9]]), ("clump", "cell", "cell"), ignored=[False, True, False]
    )
    assert_array_equal(TASK.target(case("a", given)).data, [[1, 1, 2, 5, 6], [0, 3, 3, 4, 9], [-2, 0, 0, 9, 9]])
    with pytest.raises(DatasetError, match="strange"):
        TASK.target(case("a", boxes(("strange", (0, 0, 1, 1)))))
    with pytest.raises(DatasetError, match="3 axes on an image of 2"):
        TASK.target(case("a", boxes(("cell", (0, 0, 0, 1, 1, 1)), axes=3)))


def test_the_map_of_centres_is_one_in_the_centres_voxel_of_the_boxs_class_and_falls_with_its_sides():
    rows = torch.tensor([[1.0, 2, 3, 12, 7], [-1, 0, 0, 4, 4]])
    truth = question.box_target(rows, 2, (16, 16))
    assert (truth.heat[0] == 0).all()
    assert [tuple(one) for one in (truth.heat[1] == 1).nonzero().tolist()] == [(7, 5)]
    # Longer along the first axis: the map falls more slowly there.
    assert truth.heat[1, 9, 5] > truth.heat[1, 7, 7]
    assert truth.lengths[:, 7, 5].tolist() == [10, 4]
    # The centre lies at (7, 5), the edge between voxels; the middle of voxel 7 is at 7.5.
    assert truth.offsets[:, 7, 5].tolist() == [-0.5, -0.5]
    assert truth.offsets[:, 9, 4].tolist() == [-2.5, 0.5]


def test_without_boxes_the_maps_are_empty_and_the_loss_is_that_of_saying_nothing():
    truth = question.box_target(torch.full((3, 5), -1.0), 2, (8, 8))
    assert float(truth.heat.sum() + truth.weight.sum()) == 0
    quiet = question.centre_loss(torch.full((1, 6, 8, 8), -20.0), torch.full((1, 3, 5), -1.0), 2, 8.0)
    assert 0 <= float(quiet) < 1e-3


@pytest.mark.parametrize("axes", [2, 3])
def test_the_loss_of_knowing_all_is_far_below_that_of_a_fresh_network_and_its_gradient_is_finite(axes):
    task = Detection(("cell", "clump"), axes, 8.0)
    shape = (16,) * axes
    reference = boxes(("cell", (1,) * axes + (7,) * axes), ("clump", (6,) * axes + (14,) * axes), axes=axes)
    rows = torch.from_numpy(np.concatenate([np.arange(2)[:, None], reference.corners], axis=1).astype(np.float32))[None]
    known = torch.from_numpy(ideal(task, reference, shape))[None]
    fresh = torch.zeros_like(known, requires_grad=True)
    lost = question.centre_loss(fresh, rows, 2, 8.0)
    lost.backward()
    assert torch.isfinite(fresh.grad).all()
    assert float(question.centre_loss(known, rows, 2, 8.0)) < 0.1 * float(lost.detach())


@pytest.mark.parametrize("axes", [2, 3])
def test_what_two_boxes_do_not_share_is_that_of_torchvision_and_worked_out_by_hand(axes):
    draws = torch.Generator().manual_seed(0)
    some, others = torch.rand(2, 40, 2 * axes, generator=draws) * 4 + 0.5
    if axes == 2:
        edges = [torch.cat([p[:, 2:] - p[:, :2] / 2, p[:, 2:] + p[:, :2] / 2], dim=1) for p in (some, others)]
        assert_allclose(
            question.giou_loss(some, others), torchvision.ops.generalized_box_iou_loss(*edges), rtol=1e-4, atol=1e-5
        )
    side, moved = torch.tensor([[2.0] * axes + [0.0] * axes]), torch.tensor([[2.0] * axes + [1.0] + [0.0] * (axes - 1)])
    # Half of a side away: a third is shared, and both fill what is around them.
    assert_allclose(question.giou_loss(side, moved), 2 / 3, rtol=1e-6)
    apart = torch.tensor([[2.0] * axes + [4.0] + [0.0] * (axes - 1)])
    assert_allclose(question.giou_loss(side, apart), 1 + 1 / 3, rtol=1e-6)


def test_a_small_box_that_is_badly_placed_costs_as_much_as_a_large_one():
    """By the same share of its side, and whatever else is in the image."""

    def regression(sides: list[float], wrong: int) -> float:
        rows = [[0.0, 10, left, 10 + side, left + side] for side, left in zip(sides, (4.0, 40.0), strict=False)]
        reference = torch.tensor([rows])
        truth = question.box_target(reference[0], 1, (64, 96))
        says = torch.cat([truth.heat, truth.lengths, truth.offsets])[None] / 8.0
        says[0, 1, truth.lengths[0] == sides[wrong]] *= 1.2
        known = torch.cat([truth.heat, truth.lengths, truth.offsets])[None] / 8.0
        return float(question.centre_loss(says, reference, 1, 8.0) - question.centre_loss(known, reference, 1, 8.0))

    small, large = regression([6.0, 40.0], 0), regression([6.0, 40.0], 1)
    assert small == pytest.approx(large, rel=1e-3)
    assert small == pytest.approx(regression([6.0], 0) / 2, rel=1e-3)


def test_the_focal_loss_is_worked_out_by_hand():
    logits, heat = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.5]])
    # Each is called with 1/2: 1/4 log 2 for the centre, and (1/2)^4 of as much for the voxel beside it.
    nowhere = torch.zeros(1, 2, dtype=torch.bool)
    assert float(question.centre_focal_loss(logits, heat, nowhere)) == pytest.approx(np.log(2) / 4 * (1 + 1 / 16))


def test_nothing_is_learnt_of_a_voxel_in_a_region_that_is_to_be_ignored():
    reference = boxes(("cell", (2, 2, 8, 8)), ("clump", (0, 0, 12, 32)), ("cell", (0, 0, 12, 32)))
    unknown = replace(reference, ignored=np.array([False, True, True]))
    target = TASK.target(case("a", unknown)).data
    assert target[:, 0].tolist() == [0, -2]  # one region of whatever class
    outputs = torch.zeros(1, 6, 24, 32, requires_grad=True)
    question.centre_loss(outputs, torch.from_numpy(target)[None].float(), 2, 8.0).backward()
    learnt = outputs.grad[0, :2] != 0
    assert not learnt[:, :12, 8:].any() and not learnt[:, :2].any() and not learnt[:, 8:12].any()
    assert learnt[0, 2:8, 2:8].all() and learnt[:, 12:].all()


def test_a_box_in_a_region_that_is_to_be_ignored_is_no_false_one_while_a_network_is_selected():
    both = boxes(("cell", (2, 2, 8, 8)), ("cell", (12, 12, 20, 20)))
    outputs = torch.from_numpy(ideal(TASK, both, (24, 32)))[None].float()
    rows = [[0.0, 2, 2, 8, 8], [-2.0, 10, 10, 24, 32]]
    counts = [TASK.quality({"boxes": outputs}, torch.tensor([rows[:number]])) for number in (1, 2)]
    assert [float(one["right"].sum()) for one in counts] == [2, 2]  # at both overlaps
    assert [float(one["wrong"].sum()) for one in counts] == [2, 0]


@pytest.mark.parametrize("axes", [2, 3])
def test_what_a_perfect_network_says_is_decoded_to_the_boxes_it_was_made_of(axes):
    task = Detection(("cell", "clump"), axes, 8.0, threshold=0.5)
    shape = (20, 26, 22)[:axes]
    reference = boxes(
        ("cell", (2.0, 1.5, 3.0)[:axes] + (8.0, 9.0, 9.5)[:axes]),
        ("clump", (9.0, 12.0, 4.0)[:axes] + (18.0, 25.0, 20.0)[:axes]),
        axes=axes,
    )
    decoded = task.decode(whole(ideal(task, reference, shape)), Geometry.of_pixels(shape)).boxes
    sure = decoded.at(decoded.scores > 0.5)
    assert sorted(sure.names) == ["cell", "clump"]
    for name in task.classes:
        assert_allclose(sure.of_class(name).corners, reference.of_class(name).corners, atol=1e-3)


@given(st.integers(0, 10**6), st.lists(st.integers(1, 19), max_size=5), st.booleans())
def test_it_does_not_matter_where_the_slabs_were_cut(seed, cuts, backwards):
    """Noise has peaks everywhere, also at the edges of slabs; these come from either end."""
    array = np.random.default_rng(seed).normal(size=(6, 20, 9)).astype(np.float32)
    edges = sorted({0, 20, *cuts})
    parts = [slice(a, b) for a, b in pairwise(edges)]
    slabs = [((part, slice(0, 9)), {"boxes": array[:, part]}) for part in (parts[::-1] if backwards else parts)]
    grid = Geometry.of_pixels((20, 9))
    whole_image, many = (TASK.decode(given, grid).boxes for given in (whole(array), slabs))
    assert len(whole_image) == len(many)
    order = [np.lexsort(one.corners.T) for one in (whole_image, many)]
    assert_allclose(whole_image.corners[order[0]], many.corners[order[1]])
    assert_allclose(whole_image.scores[order[0]], many.scores[order[1]])


@given(st.integers(0, 10**6))
def test_no_two_boxes_of_a_class_overlap_more_than_they_may_and_all_lie_in_the_image(seed):
    array = np.random.default_rng(seed).normal(size=(6, 20, 16)).astype(np.float32)
    decoded = TASK.decode(whole(array), Geometry.of_pixels((20, 16))).boxes
    assert ((decoded.low >= 0) & (decoded.high <= [20, 16])).all()
    for name in TASK.classes:
        own = decoded.of_class(name).corners
        overlap = box_matching.box_iou(own, own)
        assert (overlap[~np.eye(len(own), dtype=bool)] < TASK.suppression).all()


def test_a_volume_of_a_single_slice_gets_boxes_one_voxel_thick():
    reference = boxes(("cell", (2, 3, 10, 9)))
    array = ideal(TASK, reference, (16, 14))[:, :, :, None]
    grid = Geometry((16, 14, 1), np.eye(4))
    decoded = TASK.decode(whole(array), grid).boxes
    sure = decoded.at(decoded.scores > 0.5)
    assert_allclose(sure.corners, [[2, 3, 0, 10, 9, 1]], atol=1e-3)


def prediction_of(given: BoundingBoxes, shape=(24, 32), threshold: float = 0.0) -> Prediction:
    return Prediction(Geometry.of_pixels(shape), boxes=given, labels=TASK.labels, threshold=threshold)


def test_every_box_that_is_called_has_a_row_with_x_first_and_an_image_without_one_a_row_of_blanks():
    task = Detection(TASK.classes, 2, 8.0, threshold=0.5)
    given = boxes(("cell", (1, 2, 5, 9)), ("clump", (0, 0, 3, 3)), scores=np.array([0.9, 0.4]))
    [row] = properties.output_rows(task.outputs(prediction_of(given, threshold=0.5)))
    assert row == {"label": "cell", "score": 0.9, "x0": 2, "y0": 1, "x1": 9, "y1": 5}
    [blank] = properties.output_rows(task.outputs(prediction_of(BoundingBoxes.none(2, scored=True))))
    assert list(blank) == list(row)
    assert set(blank.values()) == {None}
    assert [finding.concept for finding in task.results(prediction_of(given, threshold=0.5))] == ["cell"]
    assert task.probable_findings == ("cell", "clump")


def scored_cases(count: int = 12, missed: int = 0) -> tuple[list[Prediction], list[Case]]:
    """Two boxes a case; of the first `missed` cases the cell is missed, and each case has a false box."""
    rng = np.random.default_rng(0)
    predictions, cases = [], []
    for n in range(count):
        reference = boxes(("cell", (1, 1, 6, 6)), ("clump", (10, 10, 20, 20)))
        named = [] if n < missed else [("cell", (1, 1, 6, 6))]
        named += [("clump", (10, 10, 20, 20)), ("clump", (0, 25, 4, 29))]
        scores = [*rng.uniform(0.7, 0.9, len(named) - 1), rng.uniform(0.1, 0.2)]
        predictions.append(prediction_of(boxes(*named, scores=np.array(scores))))
        cases.append(case(str(n), reference))
    return predictions, cases


def test_the_summary_of_boxes_that_are_all_right_is_perfect_and_the_row_over_all_comes_first():
    table = TASK.score(*scored_cases())
    rows = TASK.summary(table, seed=0)
    assert (rows[0].metric, rows[0].label) == ("ap50", "all")
    perfect = {"ap", "ap50", "ap10", "sensitivity", "ppv", "f1"}
    assert {row.estimate.value for row in rows if row.metric in perfect} == {1.0}
    others = {row.metric for row in rows} - TASK.primaries
    assert all(TASK.metrics.metric_named(metric).is_of_belief for metric in others)
    assert {row.label for row in rows} == {"all", "cell", "clump"}
    assert all(row.estimate.n == 12 for row in rows)


def test_a_class_that_is_called_all_has_figures_of_its_own_beside_those_of_all():
    figures = []
    for name in ("cell", "all"):
        task = Detection((name, "clump"), 2, 8.0)
        predictions, cases = scored_cases(missed=3)
        renamed = [
            replace(one.boxes, names=tuple(name if own == "cell" else own for own in one.boxes.names))
            for one in predictions
        ]
        renamed_predictions = [replace(one, boxes=own) for one, own in zip(predictions, renamed, strict=True)]
        known = [case(one.id, boxes((name, (1, 1, 6, 6)), ("clump", (10, 10, 20, 20)))) for one in cases]
        table = task.score(renamed_predictions, known)
        rows = task.summary(table, seed=0)
        figures.append({(row.metric, row.label): row.estimate.value for row in rows})
        assert len(figures[-1]) == len(rows)
        assert task.overview(table)
    plain, own = figures
    labels = {"cell": "all (class)"}
    assert own == pytest.approx(
        {(metric, labels.get(label, label)): value for (metric, label), value in plain.items()}, nan_ok=True
    )


def test_a_quarter_of_the_cells_missed_shows_in_every_figure():
    table = TASK.score(*scored_cases(missed=3))
    rows = {(row.metric, row.label): row.estimate for row in TASK.summary(table, seed=0)}
    assert rows["sensitivity", "cell"].value == pytest.approx(0.75)
    assert rows["ap50", "cell"].value == pytest.approx(76 / 101)
    assert rows["ap50", "all"].value == pytest.approx((76 / 101 + 1) / 2)
    assert rows["cpm", "cell"].value == pytest.approx(0.75)
    estimate = rows["sensitivity_at_1", "cell"]
    assert estimate.low < 0.75 < estimate.high
    assert "at most 1 false" in estimate.method
    # A cell has sides of 5 pixels, a clump of 10.
    assert rows["sensitivity_small", "cell"].value == pytest.approx(0.75)
    assert "pixels" in rows["sensitivity_small", "cell"].method


def test_figures_of_a_class_that_one_case_has_and_their_mean_over_classes_are_marked():
    predictions, cases = scored_cases()
    alone = [replace(one, references={"boxes": boxes(("clump", (10, 10, 20, 20)))}) for one in cases[1:]]
    rows = {
        (row.metric, row.label): row.estimate
        for row in TASK.summary(TASK.score(predictions, [cases[0], *alone]), seed=0)
    }
    assert all("unreliable: 1 patient with cell" in rows["ap50", label].method for label in ("all", "cell"))
    assert "unreliable" not in rows["ap50", "clump"].method


def one_scored(grid: Geometry, corners: tuple[float, ...], name: str = "a"):
    reference = boxes(("cell", corners), scores=np.array([0.9]), axes=grid.ndim)
    image = Image(np.zeros((1, *grid.shape), np.float32), grid)
    known = Case(name, name, {"image": image}, {"boxes": replace(reference, scores=None)})
    return Prediction(grid, boxes=reference, labels=TASK.labels, threshold=0.5), known


def sizes_stated(task: Detection, *scored) -> str:
    table = task.score(*map(list, zip(*scored, strict=True)))
    [row] = [r for r in task.summary(table, seed=0) if (r.metric, r.label) == ("sensitivity_small", "cell")]
    return row.estimate.method


def test_a_box_in_a_volume_of_a_single_slice_is_as_large_as_in_the_slice():
    grid = Geometry((24, 32, 1), np.diag([0.5, 0.5, 8.0, 1.0]))
    assert "sides up to 5 mm" in sizes_stated(TASK, one_scored(grid, (2, 3, 0, 12, 13, 1)))


def test_pictures_and_single_slices_of_volumes_are_scored_together():
    flat, single = Geometry.of_pixels((24, 32)), Geometry((24, 32, 1), np.diag([0.5, 0.5, 8.0, 1.0]))
    both = one_scored(flat, (2, 3, 12, 13)), one_scored(single, (2, 3, 0, 12, 13, 1), "b")
    for scored in (both, both[::-1]):
        assert "sides up to 10 pixels" in sizes_stated(TASK, *scored)
        table = TASK.score(*map(list, zip(*scored, strict=True)))
        assert {row.metric: row.estimate.value for row in TASK.summary(table, seed=0)}["ap50"] == 1


def test_sizes_are_counted_in_voxels_in_volumes_and_where_only_some_images_have_a_size():
    volumes, known = Detection(("cell",), 3, 8.0), Geometry((24, 32, 20), np.diag([0.5, 0.5, 0.5, 1.0]))
    unknown = Geometry.of_pixels((24, 32, 20))
    boxed = (2, 3, 4, 12, 13, 14)
    assert "sides up to 5 mm" in sizes_stated(volumes, one_scored(known, boxed))
    assert "sides up to 10 voxels" in sizes_stated(volumes, one_scored(unknown, boxed))
    mixed = sizes_stated(volumes, one_scored(known, boxed), one_scored(unknown, boxed, "b"))
    assert "sides up to 10 voxels" in mixed


def test_scores_survive_a_table_that_was_written_and_read_again(tmp_path):
    pandas = pytest.importorskip("pandas")
    table = TASK.score(*scored_cases(missed=3))
    table.to_csv(tmp_path / "cases.csv", index=False)
    again = pandas.read_csv(tmp_path / "cases.csv")
    reread, other = (list(map(str, TASK.summary(given, seed=0))) for given in (again, table))
    assert reread == other


@pytest.mark.parametrize("cell", ["[" * 10**5, '{"a": 1}', "[[1, 2]]", "no", "[[null]]"])
def test_a_cell_that_holds_no_boxes_is_refused(cell):
    table = TASK.score(*scored_cases(missed=3))
    with pytest.raises(FormatError, match="a cell holds no boxes"):
        list(TASK.summary(table.assign(predicted_boxes=cell), seed=0))


def test_curves_of_boxes_that_several_folds_scored_say_that_their_scores_are_pooled():
    table = TASK.score(*scored_cases(missed=3))
    of_folds = table.assign(fold=(table["case"].astype(int) % 2).astype(str))
    alone, crossed = (TASK.overview(one) for one in (table, of_folds))
    assert not [one.title for one in alone if "pooled" in one.caption]
    noted = [one.caption for one in crossed if "scores of 2 folds are pooled" in one.caption]
    assert len(noted) == 2 and "the mean of the seven marks" in noted[1]


def test_cases_are_ranked_from_the_one_that_was_found_whole():
    predictions, cases = scored_cases(4, missed=1)
    assert TASK.rank(TASK.score(predictions, cases))[-1] == "0"


def test_the_threshold_is_where_validation_boxes_are_best_called_and_stays_once_set():
    predictions, cases = scored_cases()
    tuned, decisions = fitting.with_fitted_calibration(TASK, PredictedCases(predictions, cases))
    assert 0.2 < tuned.threshold < 0.7
    assert "F1" in decisions["task.threshold"].because
    assert fitting.with_fitted_calibration(tuned, PredictedCases(predictions, cases)) == (tuned, {})
    few, decisions = fitting.with_fitted_calibration(TASK, PredictedCases(predictions[:2], cases[:2]))
    assert few.threshold == 0.3
    assert "too few" in decisions["task.threshold"].because


def test_the_threshold_of_boxes_whose_scores_are_nearly_1_parts_them_still():
    predictions, cases = scored_cases(missed=4)
    sure = [replace(one.boxes, scores=1 - 1e-7 * (1 - one.boxes.scores)) for one in predictions]
    level = box_belief.calling_score(sure, [one.references["boxes"] for one in cases], TASK.classes, 0.5).value
    assert 1 - 8e-8 < level < 1 - 3e-8  # false boxes lie below, right ones above


def test_boxes_of_one_score_are_called_together_where_the_threshold_is_chosen():
    hit, far = (0, 0, 5, 5), (15, 15, 20, 20)
    references = [boxes(("cell", hit))] * 20
    alike = [boxes(("cell", hit if n < 10 else far), scores=np.array([0.9])) for n in range(20)]
    chosen = box_belief.calling_score(alike, references, ["cell"], 0.5)
    assert chosen.value <= 0.9 and "the highest F1, 0.500," in chosen.because  # 10 of 20 right, 10 of 20 found
    apart = [boxes(("cell", hit if n < 10 else far), scores=np.array([0.9 if n < 15 else 0.4])) for n in range(20)]
    chosen = box_belief.calling_score(apart, references, ["cell"], 0.5)
    assert (chosen.value, "the highest F1, 0.571," in chosen.because) == (pytest.approx(0.65), True)


def test_validation_of_a_perfect_network_is_perfect_and_parts_add_up():
    reference = boxes(("cell", (2, 3, 9, 9)), ("clump", (10, 14, 20, 26)))
    array = ideal(TASK, reference, (24, 32))
    rows = np.array([[0, 2, 3, 9, 9], [1, 10, 14, 20, 26]], np.float32)
    outputs, target = {"boxes": torch.from_numpy(array)[None]}, torch.from_numpy(rows)[None]
    assert TASK.selection(TASK.quality(outputs, target)) == pytest.approx(1.0)
    nothing = {"boxes": torch.full_like(outputs["boxes"], -9.0)}
    assert TASK.selection(TASK.quality(nothing, target)) == 0
    assert np.isnan(TASK.selection(TASK.quality(nothing, torch.full((1, 2, 5), -1.0))))


def test_the_metric_that_selects_is_called_by_the_overlaps_at_which_it_is_measured():
    shifted = boxes(("cell", (4, 3, 11, 9)))  # overlaps (2, 3, 9, 9) by 5 / 9 of the union, so 0.5 and not 0.75
    outputs = {"boxes": torch.from_numpy(ideal(TASK, shifted, (24, 32)))[None]}
    found = TASK.quality(outputs, torch.tensor([[[0.0, 2, 3, 9, 9]]]))
    assert TASK.selection(found) == pytest.approx(1.0)
    words = TASK.metrics.metric_named(TASK.selects_by).words
    assert words == "Mean AP at IoU 0.1 and 0.5"
    assert [f"{overlap:g}" in words for overlap in SELECTION_OVERLAPS] == [True, True]


def test_the_mean_of_networks_is_that_of_their_outputs():
    low, high = ({"boxes": np.full((1, 6, 2, 2), value)} for value in (1.0, 4.0))
    assert_allclose(TASK.average([low, high])["boxes"], 2.5)


def facts(name: str, reference: BoundingBoxes) -> CaseFacts:
    return CaseFacts(
        name, (24, 32), (1.0, 1.0), False, False, ("0",), "unknown", ({},), references={"boxes": reference}
    )


def test_the_plan_counts_the_boxes_and_takes_the_median_of_their_sides():
    reference = [facts("a", boxes(("cell", (0, 0, 4, 6)), ("cell", (0, 0, 8, 10)))), facts("b", boxes())]
    dataset = Dataset(cases=(), classes={"boxes": (Label(0, "cell"), Label(1, "clump"))})
    made = Detection.settings_for(dataset, Fingerprint(tuple(reference)))
    assert made["classes"].value == ["cell", "clump"]
    assert "2 cell, 0 clump on 2 training images" in made["classes"].because
    assert (made["axes"].value, made["typical"].value) == (2, 7)
    task = task_settings.task_from_settings(Detection, {key: decision.value for key, decision in made.items()})
    assert task.decisions(Fingerprint(tuple(reference)))["evaluation.primary"].value == "ap50"
    with pytest.raises(DatasetError, match="no boxes"):
        Detection.settings_for(dataset, Fingerprint((facts("b", boxes()),)))


def seen_at(side: float, shape: tuple[int, ...] = (480, 640)) -> Fingerprint:
    reference = boxes(("cell", (0, 0, side, side)), ("clump", (0, 0, 3 * side, 3 * side)))
    case = CaseFacts("a", shape, (1.0, 1.0), False, False, ("0",), "unknown", ({},), references={"boxes": reference})
    return Fingerprint((case,))


@pytest.mark.parametrize(
    ("side", "shape", "factor", "network"),
    [
        (15.0, (480, 640), 1.0, "unet"),
        (38.0, (480, 640), 2.0, "pyramid"),
        (200.0, (480, 640), 3.0, "pyramid"),  # else the image itself would be too small
        (38.0, (100, 640), 1.0, "unet"),
    ],
)
def test_large_boxes_are_looked_for_on_a_coarser_grid_that_leaves_the_smallest_kind_fine_enough(
    side, shape, factor, network
):
    pyramid = seen_at(side, shape)
    decided = TASK.decisions(pyramid)
    assert (decided["preprocessing.reduction"].value, decided["network.name"].value) == (factor, network)
    assert f"{side:.3g} voxels" in decided["preprocessing.reduction"].because
    dataset = Dataset(cases=(), classes={})
    assert Detection.settings_for(dataset, pyramid)["typical"].value == pytest.approx(2 * side / factor, rel=1e-3)


@pytest.mark.parametrize(("side", "network"), [(5.0, "unet"), (8.0, "pyramid")])
def test_volumes_are_searched_by_what_found_more_of_objects_of_that_size(side, network):
    reference = boxes(("nodule", (0, 0, 0, side, side, 2 * side)), axes=3)
    facts = CaseFacts("a", (96, 96, 64), (1.0,) * 3, True, True, ("0",), "CT", ({},), references={"boxes": reference})
    decided = TASK.decisions(Fingerprint((facts,)))
    assert decided["network.name"].value == network
    assert "training.learning_rate" not in decided


def test_sides_in_the_names_of_classes_change_places_and_lengths_stay():
    task = Detection(("left lung", "right lung"), 2, 8.0)
    assert task.channels_when_mirrored == (1, 0, 2, 3, 4, 5)
    assert Detection(("left lung",), 2, 8.0).channels_when_mirrored is None
