"""Masks decoded for Dice: the same as RankSEG's, from four bytes a voxel."""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from rankseg import RankSEG

from hilum.belief import Certainty, certainties, dice_decoding
from hilum.belief.dice_decoding import VoxelCodes
from hilum.errors import PlanError
from hilum.evaluation.calibration_fit import Calibrator
from hilum.tasks import fitting, task_settings
from hilum.tasks.fitting import PredictedCases
from hilum.tasks.segmentation.question import Segmentation
from hilum.values import Geometry, Label, Prediction
from hilum.values.voxel_images import ReferenceMap
from tasks.sampled_voxels import GRID, REGIONS, TASK, WHOLE, case, sample_labels, true_outputs

VOLUME = Geometry((40, 48, 30), np.eye(3 + 1))


def smooth_outputs(channels: int, seed: int, sureness: float) -> np.ndarray:
    """(channels, 40, 48, 30) outputs of blobs beside each other, of which a few are doubtful."""
    random, grid = np.random.default_rng(seed), np.indices(VOLUME.shape)
    places = random.uniform(0.1, 0.9, (channels, 3)) * VOLUME.shape
    far = [np.sqrt(((grid - place.reshape(3, 1, 1, 1)) ** 2).sum(axis=0)) for place in places]
    odds = [(radius - one) * sureness for radius, one in zip(random.uniform(2, 9, channels), far, strict=True)]
    odds[0] = np.zeros(VOLUME.shape)
    return (np.stack(odds) + random.normal(size=(channels, *VOLUME.shape))).astype(np.float32)


def label_map(task: Segmentation, outputs: np.ndarray, parts: int = 7) -> np.ndarray:
    """The label map of outputs that come in parts along the last axis."""
    return np.asarray(decoded(task, outputs, parts).data)


def decoded(task: Segmentation, outputs: np.ndarray, parts: int = 7) -> Prediction:
    edges = np.linspace(0, VOLUME.shape[2], parts + 1).astype(int)
    slabs = [
        ((*[slice(0, n) for n in VOLUME.shape[:2]], slice(low, high)), {"mask": outputs[..., low:high]})
        for low, high in itertools.pairwise(edges)
    ]
    return task.decode(slabs, VOLUME)


def masks_of(channels: int) -> Segmentation:
    labels = tuple(Label(n, f"part {n}") for n in range(1, channels))
    return Segmentation(labels, decoding="dice")


@pytest.mark.parametrize(("channels", "sureness"), [(2, 0.3), (3, 0.6), (5, 0.5), (5, 2.0), (18, 2.0)])
def test_masks_of_exclusive_structures_are_those_of_rankseg(channels: int, sureness: float):
    outputs = smooth_outputs(channels, channels, sureness)
    chances = torch.from_numpy(certainties.softmax(outputs).astype(np.float64))
    theirs = RankSEG(metric="dice").predict(chances[None])[0].numpy()
    ours = label_map(masks_of(channels), outputs)
    assert np.mean(ours == theirs) >= 0.999
    assert np.mean(outputs.argmax(axis=0) == theirs) < np.mean(ours == theirs)


def test_each_region_is_decoded_alone_as_rankseg_does():
    outputs = smooth_outputs(4, 3, 0.4)[1:3]
    chances = torch.from_numpy(certainties.sigmoid(outputs).astype(np.float64))
    organ, lesion = RankSEG(metric="dice", output_mode="multilabel").predict(chances[None])[0].numpy()
    ours = label_map(replace(REGIONS, decoding="dice"), outputs)
    assert np.mean(ours == np.select([lesion, organ], [5, 2])) >= 0.999
    assert not np.array_equal(ours, label_map(REGIONS, outputs))


def tuned(task: Segmentation, cases: int, factor: float = 1.0, without: int | None = None):
    """The task tuned on outputs that are right but for a factor; of the label `without` nothing is contoured."""
    made, references = [], []
    for number in range(cases):
        right = 0.45 * true_outputs(number)
        mask = sample_labels(right, number)
        made.append(task.decode([(WHOLE, {"mask": (factor * right).astype(np.float32)})], GRID))
        references.append(case(np.where(mask == without, 0, mask), number))
    return fitting.with_fitted_calibration(task, PredictedCases(made, references))


def mean_dice(task: Segmentation, seeds: range) -> np.ndarray:
    """(cases,) mean Dice of label maps of right outputs that are doubtful."""
    scores = []
    for number in seeds:
        right = 0.45 * true_outputs(number)
        marked = np.asarray(task.decode([(WHOLE, {"mask": right.astype(np.float32)})], GRID).data)
        each = [(marked == value, sample_labels(right, number) == value) for value in (2, 5)]
        scores.append(np.mean([2 * (own & truth).sum() / (own.sum() + truth.sum()) for own, truth in each]))
    return np.array(scores)


def test_unseen_cases_choose_it_where_they_gain_and_the_gain_holds_for_others():
    task, decisions = tuned(TASK, 12)
    assert task.decoding == "dice", decisions["task.decoding"].because
    assert "by masks decoded for Dice (+0." in decisions["task.decoding"].because
    assert task_settings.task_from_settings(Segmentation, task_settings.settings_of(task)) == task
    argmax = replace(task, decoding="argmax")
    assert np.mean(mean_dice(task, range(50, 70)) - mean_dice(argmax, range(50, 70))) > 0.01


def test_the_expected_dice_and_volumes_are_those_of_the_masks():
    task, _ = tuned(TASK, 12)
    outputs = (0.45 * true_outputs(3)).astype(np.float32)
    prediction = task.decode([(WHOLE, {"mask": outputs})], GRID)
    chances, marked = task.probable(outputs), np.asarray(prediction.data)
    for index, (name, value) in enumerate((("organ", 2), ("lesion", 5)), start=1):
        mask = marked == value
        soft = 2 * chances[index][mask].sum() / (chances[index].sum() + mask.sum())
        assert prediction.confidence.expected[name] == pytest.approx(soft ** task.expected_dice[name], abs=1e-3)
        assert prediction.untuned["sizes"][0][index - 1] == mask.sum()


def test_sizes_of_masks_are_known_without_predicting_anew():
    """An image this small is its own sample; folds are compared by the most probable labels, whatever makes maps."""
    outputs, by_dice = (0.45 * true_outputs(3)).astype(np.float32), replace(TASK, decoding="dice")
    made = {task: task.decode([(WHOLE, {"mask": outputs})], GRID) for task in (TASK, by_dice)}
    sizes = {task: [np.count_nonzero(np.asarray(one.data) == value) for value in (2, 5)] for task, one in made.items()}
    truth = ReferenceMap(sample_labels(outputs, 3))
    assert sizes[TASK] != sizes[by_dice]
    assert_allclose(by_dice.answers.sizes(made[TASK], truth, "3", by_dice.probable)[0], sizes[by_dice], atol=1e-3)
    assert_allclose(by_dice.answers.sizes(made[by_dice], truth, "3", by_dice.probable.plain)[0], sizes[TASK], atol=1e-3)


def test_what_is_set_by_hand_stands_and_few_patients_choose_nothing():
    few, decisions = tuned(TASK, 4)
    assert few.decoding == "argmax"
    assert "4 patients are too few" in decisions["task.decoding"].because
    for rule in ("argmax", "dice"):
        task, decisions = tuned(replace(TASK, decoding=rule), 12)
        assert task.decoding == rule
        assert "task.decoding" not in decisions


def test_argmax_stays_with_the_figure_where_masks_for_dice_lose():
    """Outputs that are far too unsure, and that nothing calibrates, promise masks that are too large."""
    task, decisions = tuned(replace(TASK, certainty=Certainty("none")), 12, factor=0.2)
    assert task.decoding == "argmax"
    assert "by masks decoded for Dice (-0." in decisions["task.decoding"].because


def test_argmax_stays_where_no_unseen_case_has_a_label():
    task, decisions = tuned(TASK, 8, without=5)
    assert task.decoding == "argmax"
    assert "no unseen case has lesion" in decisions["task.decoding"].because


def test_another_rule_is_refused():
    with pytest.raises(PlanError, match="'iou' is no rule"):
        task_settings.task_from_settings(Segmentation, {**task_settings.settings_of(TASK), "decoding": "iou"})


def test_calibrated_probabilities_decide():
    outputs, task = (0.45 * true_outputs(1)).astype(np.float32), replace(TASK, decoding="dice")
    cooled = replace(task, certainty=Certainty("temperature", Calibrator("temperature", {"all": [0.5]})))
    maps = [np.asarray(one.decode([(WHOLE, {"mask": outputs})], GRID).data) for one in (task, cooled)]
    assert not np.array_equal(*maps)
    assert np.array_equal(maps[1], np.asarray(task.decode([(WHOLE, {"mask": 0.5 * outputs})], GRID).data))


def test_codes_take_at_most_six_bytes_and_give_back_the_two_largest_probabilities():
    random = np.random.default_rng(0)
    for channels, words in ((2, 1), (3, 2), (16, 2), (17, 3), (255, 3)):
        codes = VoxelCodes(channels, exclusive=True)
        chances = random.dirichlet(np.full(channels, 0.2), size=200).T
        kept, numbers = codes.unpack(codes.pack(np.rint(chances * dice_decoding.STEPS).astype(np.uint16)))
        assert codes.words == words
        assert masks_of(channels).bytes_per_voxel == 2 * words + 1
        largest = np.sort(chances, axis=0)[::-1][:2]
        assert_allclose(np.sort(kept, axis=0)[::-1][:2], largest, atol=2 / dice_decoding.STEPS)
        theirs = np.take_along_axis(chances, numbers[:2].astype(int), axis=0)
        assert_allclose(kept[:2], theirs, atol=2 / dice_decoding.STEPS)


def test_parts_of_any_size_and_an_image_that_is_seen_in_part_give_the_same_masks():
    outputs = smooth_outputs(3, 1, 0.6)
    whole = label_map(masks_of(3), outputs, parts=1)
    assert np.array_equal(whole, label_map(masks_of(3), outputs, parts=30))
    part = (*[slice(0, n) for n in VOLUME.shape[:2]], slice(5, 20))
    seen = np.asarray(masks_of(3).decode([(part, {"mask": outputs[..., 5:20]})], VOLUME).data)
    assert not seen[..., :5].any()
    assert seen[..., 5:20].any()


def test_outputs_of_all_voxels_are_never_held():
    grid, task = Geometry((160, 160, 64), np.eye(4)), masks_of(8)

    def slabs():
        for low in range(0, 64, 4):
            part = (slice(0, 160), slice(0, 160), slice(low, low + 4))
            yield part, {"mask": np.random.default_rng(low).normal(size=(8, 160, 160, 4)).astype(np.float32)}

    tracemalloc.start()
    task.decode(slabs(), grid)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.6 * 8 * 4 * 160 * 160 * 64  # outputs of one part, and what is made of them, beside 5 bytes a voxel
