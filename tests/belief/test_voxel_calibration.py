from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from hilum.belief import Certainty, certainties, voxel_calibration
from hilum.belief.covering_results import COVERS_FROM
from hilum.belief.voxel_calibration import SIZES, VoxelCalibration
from hilum.errors import PlanError
from hilum.evaluation.calibration_fit import Calibrator
from hilum.evaluation.conformal import Conformal
from hilum.tasks import fitting, properties, task_settings
from hilum.tasks.fitting import PredictedCases
from hilum.tasks.segmentation.mask_postprocessing import Tidying
from hilum.tasks.segmentation.question import Segmentation
from hilum.values import Geometry
from matrices import thinned
from tasks.sampled_voxels import GRID, REGIONS, TASK, WHOLE, case, sample_labels, true_outputs, tuned


def test_a_network_that_is_twice_as_sure_as_it_should_be_gets_half_of_its_factor():
    task, decisions, made, _ = tuned(TASK, 4, 2.0)
    assert task.certainty.calibration.method == "temperature"  # of four cases nothing else is fitted
    assert task.certainty.calibration.parameters["all"][0] == pytest.approx(0.5, rel=0.06)
    assert task.certainty.calibration.cases == 4
    assert "summed probabilities are" in decisions["task.calibration"].because
    outputs = 2 * true_outputs(9)
    assert np.abs(task.probabilities({"mask": outputs})["mask"] - certainties.softmax(true_outputs(9))).max() < 0.02
    again = task.decode([(WHOLE, {"mask": (2 * true_outputs(0)).astype(np.float32)})], GRID)
    assert np.array_equal(again.data, made[0].data)  # the label map stays
    assert fitting.with_fitted_calibration(task, PredictedCases(made, [])) == (task, {})


def test_a_class_that_is_too_likely_gets_a_shift_and_its_volume_is_right():
    task, decisions, *_ = tuned(TASK, 8, 2.0, shift=1.5)
    calibration = task.certainty.calibration
    assert calibration.method == "vector"
    outputs = 2 * true_outputs(50)
    outputs[1] += 1.5
    right, before, after = (
        made[1].sum()
        for made in (
            certainties.softmax(true_outputs(50)),
            certainties.softmax(outputs),
            task.probabilities({"mask": outputs})["mask"],
        )
    )
    assert abs(after / right - 1) < 0.03 < abs(before / right - 1)
    assert set(calibration.parameters) == {"background", "organ", "lesion"}
    again = task_settings.task_from_settings(Segmentation, {**task_settings.settings_of(task)})
    assert again == task
    assert decisions["task.calibration"].value == calibration.settings


@pytest.mark.whole
def test_regions_are_calibrated_each_by_itself():
    task, decisions, *_ = tuned(REGIONS, 8, 2.0, shift=1.0)
    assert task.certainty.calibration.method == "platt", decisions
    factor, shift = task.certainty.calibration.parameters["organ"]
    assert (factor, shift) == (pytest.approx(0.5, rel=0.1), pytest.approx(-0.5, abs=0.15))
    assert task.certainty.calibration.parameters["lesion"][0] == pytest.approx(0.5, rel=0.15)


def test_voxels_of_which_nothing_is_known_say_nothing():
    partly = replace(TASK, ignore=9)
    _, _, made, references = tuned(partly, 4, 2.0)
    hidden = []
    for one in references:
        mask = np.array(one.references["mask"].data[0])
        mask[:, :20] = 9
        hidden.append(case(mask, int(one.id)))
    wrong = [
        case(np.where(one.references["mask"].data[0] == 9, 2, one.references["mask"].data[0]), n)
        for n, one in enumerate(hidden)
    ]
    found, misled = (
        fitting.with_fitted_calibration(partly, PredictedCases(made, given))[0].certainty.calibration
        for given in (hidden, wrong)
    )
    assert found.parameters["all"][0] == pytest.approx(0.5, rel=0.1)
    assert misled.parameters.get("all", [1.0])[0] != pytest.approx(0.5, rel=0.1)


def test_two_channels_are_calibrated_by_the_odds_of_the_second():
    outputs = np.array([[0.3, -2.0], [1.0, 4.0]], np.float32)
    odds = 0.5 * (outputs[1] - outputs[0]) - 1.0
    for name in ("organ", "all"):  # which is also how the one factor of a temperature is called
        probable = VoxelCalibration(("background", name), True, Calibrator("vector", {name: [0.5, -1.0]}))
        np.testing.assert_allclose(probable(outputs)[1], 1 / (1 + np.exp(-odds)), rtol=1e-6)
        assert probable.moves_edges


def test_the_calibration_of_voxels_is_that_of_the_calibrator_everywhere():
    outputs = np.random.default_rng(0).normal(scale=9, size=(3, 500))
    for name in ("organ", "all"):
        numbers = {"background": [0.5, 0.1], name: [0.7, -0.4], "lesion": [0.6, 0.3]}
        for calibrator in (Calibrator("temperature", {"all": [0.4]}), Calibrator("vector", numbers)):
            names = ("background", name, "lesion")
            theirs = np.exp(calibrator.classes(outputs.T, names)).T
            np.testing.assert_allclose(VoxelCalibration(names, True, calibrator)(outputs), theirs, atol=2e-6)


@pytest.mark.whole
def test_the_dice_that_is_expected_is_that_of_sums_and_on_average_the_true_one():
    task, decisions, made, references = tuned(TASK, 10, 2.0)
    assert made[0].confidence.expected == {}
    expected, true = [], []
    for seed, one in enumerate(references):
        outputs = (2 * true_outputs(seed)).astype(np.float32)
        slabs = [((slice(n, n + 16), slice(0, 48)), {"mask": outputs[:, n : n + 16]}) for n in (0, 16, 32)]
        prediction = task.decode(slabs, GRID)
        marked, truth = np.asarray(prediction.data) == 2, one.references["mask"].data[0] == 2
        expected.append(prediction.confidence.expected["organ"])
        true.append(2 * (marked & truth).sum() / (marked.sum() + truth.sum()))
        chance = task.probabilities({"mask": outputs})["mask"][1]
        by_hand = 2 * chance[marked].sum() / (chance.sum() + marked.sum())
        assert expected[-1] == pytest.approx(by_hand ** task.expected_dice["organ"], rel=1e-5)
    assert np.mean(expected) == pytest.approx(np.mean(true), abs=0.01)
    assert task.outputs(prediction)["expected_dice_organ"] == pytest.approx(expected[-1], abs=1e-4)
    assert "mean Dice of 10 unseen cases" in decisions["task.expected_dice"].because


@pytest.mark.whole
def test_many_images_of_a_patient_whose_mask_is_wrong_do_not_decide_what_dice_is_expected():
    _, _, made, references = tuned(TASK, 10, 2.0)
    odd = replace(references[0], references=references[5].references)  # the mask of another patient
    powers = [
        fitting.with_fitted_calibration(
            replace(TASK, certainty=Certainty("none", Calibrator())),
            PredictedCases([*made, *[made[0]] * more], [odd, *references[1:], *[odd] * more]),
        )[0].expected_dice
        for more in (0, 20)
    ]
    assert powers[0] == powers[1]


def test_what_was_found_for_a_structure_goes_by_its_name_whichever_comes_first():
    found = Conformal("doubt", 0.9, "label", dict.fromkeys(NAMES, 20), {"organ": 2.0, "lesion": 50.0}, True)
    task = replace(TASK, expected_dice={"organ": 0.5, "lesion": 2.0}, certainty=Certainty(conformal=found))
    turned = replace(
        task,
        expected_dice={"lesion": 2.0, "organ": 0.5},
        certainty=Certainty(conformal=replace(found, thresholds={"lesion": 50.0, "organ": 2.0})),
    )
    slabs = [(WHOLE, {"mask": true_outputs(0).astype(np.float32)})]
    one, other = (own.decode(slabs, GRID).confidence for own in (task, turned))
    assert (one.expected, one.low, one.high) == (other.expected, other.low, other.high)
    masks = replace(found, thresholds={"lesion": 0.9, "organ": 0.7})
    covering = properties.added_results(replace(TASK, certainty=Certainty(risk=0.1, covering=masks))).masks["mask"]
    assert [*covering] == ["organ", "lesion"]


def test_an_empty_mask_has_no_expected_dice():
    task = replace(tuned(TASK, 2, 2.0)[0], expected_dice={"organ": 1.0, "lesion": 1.0})
    outputs = np.stack([np.full(GRID.shape, 9.0), *np.zeros((2, *GRID.shape))]).astype(np.float32)
    assert task.decode([(WHOLE, {"mask": outputs})], GRID).confidence.expected == {}


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        (TASK, {"calibration_method": "isotonic"}, "voxels are not calibrated by isotonic"),
        (REGIONS, {"calibration_method": "vector"}, "voxels are not calibrated by vector"),
        (
            TASK,
            {"calibration": {"method": "vector", "parameters": {"liver": [1, 0]}, "cases": 3}},
            "not of the channels",
        ),
        (TASK, {"expected_dice": {"organ": 1.0}}, "not one for each structure"),
    ],
)
def test_a_calibration_that_voxels_cannot_have_is_refused(task, given, message):
    with pytest.raises(PlanError, match=message):
        task_settings.task_from_settings(Segmentation, {**task_settings.settings_of(task), **given})


def test_without_a_calibration_nothing_changes():
    none = replace(TASK, certainty=Certainty("none", Calibrator()))
    outputs = {"mask": true_outputs(3)}
    np.testing.assert_array_equal(none.probabilities(outputs)["mask"], certainties.softmax(outputs["mask"]))


def test_rows_say_how_far_voxels_near_edges_and_volumes_are_off_before_and_after():
    task, _, _, references = tuned(TASK, 6, 2.0, shift=1.0)
    outputs = [2 * true_outputs(seed) for seed in range(6)]
    for one in outputs:
        one[1] += 1.0
    predictions = [task.decode([(WHOLE, {"mask": one.astype(np.float32)})], GRID) for one in outputs]
    table = task.score(predictions, references)
    rows = {(row.metric, row.label): row.estimate for row in task.summary(table, seed=0)}
    assert {metric for metric, _ in rows} <= task.primaries
    # By hand: of all voxels, as an image this small is its own sample, within 5 of an edge of the reference.
    near = [voxel_calibration.is_near_edge(one.references["mask"].data[0], GRID) for one in references]
    for ending, of in (("", task), ("_uncalibrated", replace(TASK, certainty=Certainty("none", Calibrator())))):
        chances = [of.probabilities({"mask": one})["mask"][1] for one in outputs]
        truths = [one.references["mask"].data[0] == 2 for one in references]
        errors = [chance.sum() / truth.sum() - 1 for chance, truth in zip(chances, truths, strict=True)]
        assert rows[f"summed_volume_error{ending}", "organ"].value == pytest.approx(np.mean(errors), abs=1e-4)
        gaps = np.zeros(15)
        for chance, truth, there in zip(chances, truths, near, strict=True):
            places = np.minimum((chance[there] * 15).astype(int), 14)
            gaps += np.bincount(places, (chance - truth)[there], 15) / there.sum() / 6
        assert rows[f"ece_near{ending}", "organ"].value == pytest.approx(np.abs(gaps).sum(), abs=1e-4)
    assert rows["ece_near", "all"].value < 0.5 * rows["ece_near_uncalibrated", "all"].value
    assert 0 <= rows["ece_near", "all"].low < rows["ece_near", "all"].high
    assert rows["ece_near_uncalibrated", "organ"].low > 0.01  # of twice the confidence that there should be
    bias = table["expected_dice"] - table["dice"]
    assert rows["expected_dice_bias", "lesion"].value == pytest.approx(bias[table["label"] == "lesion"].mean())
    organ = table[table["label"] == "organ"]
    assert rows["expected_dice_pearson", "organ"].value == pytest.approx(organ["dice"].corr(organ["expected_dice"]))


def test_predictions_without_a_sample_have_no_rows_about_voxels():
    task, _, made, references = tuned(TASK, 3, 2.0)
    table = task.score([replace(one, untuned=None) for one in made], references)
    assert not {"near_gaps", "summed_volume_error", "expected_dice"} & set(table)
    metrics = {row.metric for row in task.summary(table, seed=0)}
    assert "dice" in metrics
    assert "ece_near" not in metrics


NAMES = ("organ", "lesion")


def stated(task: Segmentation, seeds: range, *, sure: float = 1.0):
    """Predictions and cases whose truth is sampled by the right probabilities; the network's are surer by a factor."""
    made, cases = [], []
    for seed in seeds:
        right = true_outputs(seed)
        cases.append(case(sample_labels(right, seed), seed))
        made.append(task.decode([(WHOLE, {"mask": (sure * right).astype(np.float32)})], GRID))
    return made, cases


def promising(**wishes) -> Segmentation:
    return replace(TASK, certainty=Certainty(**wishes))


def missed(task: Segmentation, seeds: range, **how) -> np.ndarray:
    """(cases, structures) the share of each structure outside of its covering mask, voxel by voxel."""
    least, shares = properties.added_results(task).masks["mask"], []
    for seed in seeds:
        right = true_outputs(seed)
        truth, chances = sample_labels(right, seed), certainties.softmax(how.get("sure", 1.0) * right)
        places = zip((2, 5), chances[1:], (least[name] for name in NAMES), strict=True)
        shares.append([(own[truth == value] < limit).mean() for value, own, limit in places])
    return np.array(shares)


@pytest.mark.parametrize("sure", thinned(1, [1.0, 3.0]))
def test_covering_masks_miss_the_share_that_was_allowed_in_new_cases_whatever_the_probabilities(sure):
    task = promising(risk=0.1)
    task, decisions = fitting.with_sets(task, PredictedCases(*stated(task, range(200), sure=sure)), exact=True)
    shares = missed(task, range(200, 400), sure=sure).mean(axis=0)
    assert (shares < 0.12).all()
    assert (shares > 0.06).all()  # the largest threshold that does it
    assert task.certainty.covering.n == {"organ": 200, "lesion": 200}
    assert "decided nothing else" in decisions["task.covering"].because


def test_with_a_confidence_masks_are_larger_and_miss_less():
    on_average, confident = promising(risk=0.1), promising(risk=0.1, risk_delta=0.05)
    made = stated(on_average, range(60))
    first, second = (fitting.with_sets(task, PredictedCases(*made), exact=False)[0] for task in (on_average, confident))
    limits = [properties.added_results(task).masks["mask"] for task in (first, second)]
    assert all(limits[1][name] < limits[0][name] <= 0.5 for name in NAMES)
    assert (missed(second, range(60, 160)).mean(axis=0) < 0.1).all()


def test_with_too_few_patients_the_mask_is_the_whole_image_and_that_is_said():
    task = promising(risk=0.1)
    task, decisions = fitting.with_sets(task, PredictedCases(*stated(task, range(5))), exact=True)
    assert properties.added_results(task).masks["mask"] == {"organ": 0.0, "lesion": 0.0}
    assert "the whole image" in decisions["task.covering"].because
    assert (
        task_settings.task_from_settings(Segmentation, task_settings.settings_of(task)).certainty.covering
        == task.certainty.covering
    )


def test_a_structure_that_nobody_sampled_counts_as_missed():
    task = promising(risk=0.1)
    made, cases = stated(task, range(40))
    lost = [replace(one, untuned=None) for one in made]
    assert properties.added_results(fitting.with_sets(task, PredictedCases(lost, cases), exact=True)[0]).masks[
        "mask"
    ] == {
        "organ": 0.0,
        "lesion": 0.0,
    }


def test_what_lies_beyond_the_part_that_the_network_saw_is_missed():
    task = promising(risk=0.1)
    right = true_outputs(0).astype(np.float32)
    truth = sample_labels(right, 0)
    part = (slice(0, 24), slice(4, 44))
    made = task.decode([(part, {"mask": right[(slice(None), *part)]})], GRID)
    shares = task.answers.missed_shares(task.rows([made], [case(truth, 0)]))
    for value, chances, name in zip((2, 5), certainties.softmax(right)[1:], NAMES, strict=True):
        there, seen = truth == value, np.zeros(GRID.shape, bool)
        seen[part] = True
        for place, limit in enumerate(COVERS_FROM):
            by_hand = (~seen[there] & (limit > 0)).sum() + (seen & (chances < limit))[there].sum()
            assert shares[name][0][0, place] == pytest.approx(by_hand / there.sum(), abs=1e-6)
    assert 0.2 < shares["organ"][0][0, -2] < 1


def test_outputs_that_are_no_numbers_are_in_no_mask():
    task = promising(risk=0.1)
    made, cases = stated(task, range(40))
    blank = [{**one.untuned, "outputs": np.full_like(one.untuned["outputs"], np.nan)} for one in made]
    lost = [replace(one, untuned=own) for one, own in zip(made, blank, strict=True)]
    with np.errstate(invalid="ignore"):
        assert properties.added_results(fitting.with_sets(task, PredictedCases(lost, cases), exact=True)[0]).masks[
            "mask"
        ] == {
            "organ": 0.0,
            "lesion": 0.0,
        }


def test_regions_have_covering_masks_of_their_own():
    task = replace(REGIONS, certainty=Certainty(risk=0.2))
    made, cases = [], []
    for seed in range(40):
        _, organ, lesion = true_outputs(seed)
        right = np.stack([np.maximum(organ, lesion), lesion])
        cases.append(case(np.select([right[1] > 0, right[0] > 0], [5, 2]).astype(np.uint8), seed))
        made.append(task.decode([(WHOLE, {"mask": right.astype(np.float32)})], GRID))
    found = properties.added_results(fitting.with_sets(task, PredictedCases(made, cases), exact=True)[0]).masks["mask"]
    assert found == {"organ": 0.5, "lesion": 0.5}  # never less than what is likely


def test_scores_say_what_the_masks_miss_and_how_large_they_are():
    task = promising(risk=0.1)
    task, _ = fitting.with_sets(task, PredictedCases(*stated(task, range(60))), exact=True)
    rows = task.summary(task.score(*stated(task, range(60, 80))), seed=0)
    values = {(row.metric, row.label): row.estimate.value for row in rows}
    for place, name in enumerate(NAMES):
        assert values["covering_missed", name] == pytest.approx(missed(task, range(60, 80))[:, place].mean(), abs=1e-6)
        assert values["covering_size", name] > 0.8


def test_without_a_risk_or_thresholds_there_is_no_covering_mask():
    task, made = fitting.with_sets(promising(), PredictedCases(*stated(TASK, range(3))), exact=True)
    assert task.certainty.covering is None
    assert set(made) == {"task.conformal"}
    assert properties.added_results(TASK) is None


@pytest.mark.parametrize(("name", "value"), [("risk", 1.2), ("risk", True), ("risk_delta", 0), ("covering", {"n": 1})])
def test_an_impossible_risk_is_refused_by_its_name(name, value):
    with pytest.raises(PlanError, match=f"task.{name}"):
        task_settings.task_from_settings(Segmentation, {**task_settings.settings_of(TASK), name: value})


@pytest.mark.whole
def test_intervals_of_volumes_hold_the_volume_as_often_as_promised_and_stand_in_columns_and_rows():
    task, _ = tuned(replace(TASK, certainty=Certainty(coverage=0.8)), 20, 1.0)[:2]
    assert stated(task, range(1))[0][0].confidence.low == {}
    task, decisions = fitting.with_sets(task, PredictedCases(*stated(task, range(100, 250))), exact=True)
    assert "hold the truth in 80 % of new patients" in decisions["task.conformal"].because
    predictions, cases = stated(task, range(250, 400))
    rows = {(row.metric, row.label): row.estimate for row in task.summary(task.score(predictions, cases), seed=0)}
    for value, name in ((2, "organ"), (5, "lesion")):
        sizes = [float((one.references["mask"].data == value).sum()) for one in cases]
        ends = [(one.confidence.low[name], one.confidence.high[name]) for one in predictions]
        held = np.mean([low <= size <= high for size, (low, high) in zip(sizes, ends, strict=True)])
        assert 0.68 < held < 0.92
        assert rows["coverage", name].value == pytest.approx(held)
        assert rows["interval_width", name].value == pytest.approx(np.mean([high - low for low, high in ends]))
        columns = task.outputs(predictions[0])
        assert columns[f"{name}_mm2_low"] < columns[f"{name}_mm2"] < columns[f"{name}_mm2_high"]
    assert task_settings.task_from_settings(Segmentation, task_settings.settings_of(task)).certainty == task.certainty


def test_voxels_sampled_before_calibration_tell_how_doubtful_a_volume_is_after_it():
    task, _ = tuned(TASK, 20, 1.0)[:2]
    before, cases = stated(TASK, range(100, 105))
    after, _ = stated(task, range(100, 105))
    for earlier, later, one in zip(before, after, cases, strict=True):
        found = task.answers.sizes(earlier, task.truth.reference_map(one), one.patient, task.probable)
        assert SIZES not in earlier.untuned
        assert_allclose(found, later.untuned[SIZES], rtol=0.02)


def test_the_interval_of_a_volume_is_set_by_masks_that_are_tidied_as_those_that_are_stated():
    task, _ = tuned(replace(TASK, postprocessing={"organ": Tidying(largest=True)}), 10, 1.0)[:2]
    seeds, found = range(100, 130), []
    for own in (TASK, task):  # before anything was decided, and after
        made, cases = [], []
        for seed in seeds:
            right = true_outputs(seed)
            cases.append(case(sample_labels(right, seed), seed))
            right[1, 40:46, 40:46] += 30.0  # a piece of the organ that nobody contoured
            made.append(own.decode([(WHOLE, {"mask": right.astype(np.float32)})], GRID))
        found.append(
            fitting.with_sets(task, PredictedCases(made, cases), exact=True)[0].certainty.conformal.threshold("organ")
        )
    assert found[0] == pytest.approx(found[1], rel=0.05)


def test_with_too_few_patients_or_without_whole_references_a_volume_has_no_interval():
    task, _ = tuned(TASK, 20, 1.0)[:2]
    few, decisions = fitting.with_sets(task, PredictedCases(*stated(task, range(4))), exact=True)
    assert "too few patients" in decisions["task.conformal"].because
    assert few.outputs(stated(few, range(1))[0][0])["organ_mm2_low"] is None
    partly = replace(task, ignore=9)
    assert (
        fitting.with_sets(partly, PredictedCases(*stated(partly, range(20))), exact=True)[0].certainty.conformal is None
    )


def test_the_interval_of_a_volume_stands_in_millilitres_and_ends_at_nothing():
    found = Conformal("doubt", 0.9, "label", dict.fromkeys(NAMES, 20), dict(zip(NAMES, (2.0, 50.0), strict=True)), True)
    task = replace(TASK, expected_dice=dict.fromkeys(NAMES, 1.0), certainty=Certainty(conformal=found))
    logits = 3 * np.random.default_rng(0).normal(size=(3, 10, 9, 8)).astype(np.float32)
    grid = Geometry(logits.shape[1:], np.diag([2.0, 2.0, 2.5, 1.0]))
    columns = task.outputs(task.decode([((slice(None),) * 3, {"mask": logits})], grid))
    chance, mask = certainties.softmax(logits), logits.argmax(axis=0)
    for value, name in enumerate(NAMES, start=1):
        doubt = 0.01 * np.abs((mask == value) - chance[value]).sum()
        ends = [0.01 * (mask == value).sum() + side * found.thresholds[name] * doubt for side in (-1, 1)]
        stated = [columns[f"{name}_ml_low"], columns[f"{name}_ml_high"]]
        assert_allclose(stated, [max(0.0, ends[0]), ends[1]], rtol=1e-4)
    assert columns[f"{NAMES[1]}_ml_low"] == 0
