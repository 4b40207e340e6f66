"""Scores from which on single objects miss little."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hilum.belief import Certainty, covering_results, object_belief
from hilum.errors import PlanError
from hilum.evaluation import instances
from hilum.evaluation.conformal import Conformal
from hilum.tasks import fitting, properties, task_catalogue, task_settings
from hilum.tasks.fitting import PredictedCases
from hilum.tasks.instances.answering import HEAD, ObjectDecoder
from hilum.tasks.instances.question import InstanceSegmentation
from hilum.values import Case, Geometry, Image, Prediction

SPACE = Geometry.of_pixels((24, 40))
DISCS = ((6, 8), (17, 8), (6, 20), (17, 20), (6, 32), (17, 32))


def discs(chances: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(24, 40) numbers of six discs, how probable their voxels are, and heights."""
    rows, columns = np.indices(SPACE.shape)
    numbers, inside, height = np.zeros(SPACE.shape, np.int32), np.zeros(SPACE.shape), np.zeros(SPACE.shape)
    for number, ((row, column), chance) in enumerate(zip(DISCS, chances, strict=True), start=1):
        away = np.hypot(rows - row, columns - column)
        numbers[away < 5], inside[away < 5] = number, chance
        height = np.maximum(height, np.clip(1 - away / 5, 0, 1))
    return numbers, inside, height


def task_of(**settings) -> InstanceSegmentation:
    named = {"name": "instances", "steps": [1, 1], "reach": 5, "smallest": 9, "inside": 0.5, "prominence": 0.2}
    return task_catalogue.build_task({**named, "risk": 0.2, **settings})


def case_of(numbers: np.ndarray, name: str) -> Case:
    image = Image(np.zeros((1, *SPACE.shape), np.float32), SPACE)
    return Case(name, name, {"image": image}, {"instances": Image(numbers[None], SPACE)})


def predicted(task: InstanceSegmentation, inside: np.ndarray, height: np.ndarray) -> Prediction:
    """What it makes of a network that says so."""
    logits = np.log(inside.clip(0.004) / (1 - inside.clip(0.004)))
    outputs = np.stack([logits, height]).astype(np.float32)
    return task.decode([(tuple(slice(0, size) for size in SPACE.shape), {HEAD: outputs})], SPACE)


def simulated(task: InstanceSegmentation, count: int, seed: int) -> tuple[list[Prediction], list[Case]]:
    """Six discs a case, of which some are hardly seen, and one of which is none."""
    random, predictions, cases = np.random.default_rng(seed), [], []
    for number in range(count):
        numbers, inside, height = discs(random.beta(2, 1.5, 6).clip(0.06, 0.97))
        truth = np.where(numbers == 1 + random.integers(6), 0, numbers)
        predictions.append(predicted(task, inside, height))
        cases.append(case_of(truth, f"c{number}"))
    return predictions, cases


def test_objects_that_are_not_called_are_found_where_the_network_is_less_sure_and_score_so():
    numbers, inside, height = discs(np.array([0.9, 0.7, 0.4, 0.25, 0.12, 0.01]))
    found, scores = ObjectDecoder(0.5, 0.2, 9).candidates(inside, height)
    overlap = instances.instance_overlap(found, numbers)
    assert overlap.matched_pairs(0.9) == len(scores) == 5
    assert_array_equal(np.sort(scores.round(2)), [0.12, 0.25, 0.4, 1, 1])
    none, nothing = ObjectDecoder(0.5, 0.2).candidates(np.zeros((4, 4)), np.zeros((4, 4)))
    assert not none.any() and nothing.shape == (0,)


def test_the_rim_of_an_object_that_is_called_is_no_other_object():
    rows, columns = np.indices((40, 40))
    away = np.hypot(rows - 20, columns - 20)
    inside, height = np.exp(-((away / 6) ** 2)), np.clip(1 - away / 18, 0, 1)
    found, scores = ObjectDecoder(0.5, 0.2, 4).candidates(inside, height)
    assert found.max() == 1 and scores.tolist() == [1.0]


def test_covering_objects_miss_the_share_that_was_allowed_in_new_cases_on_average():
    """Candidates as they come: each of six objects has one, but for a few, with a score of its own."""
    numbers, _, _ = discs(np.ones(6))
    numbers = numbers[::3, ::2]

    def held(seed: int):
        random = np.random.default_rng(seed)
        for _ in range(60):
            there = np.append(True, random.random(6) < 0.97)
            _, own = np.unique(np.where(there[numbers], numbers, 0), return_inverse=True)
            yield (own.reshape(numbers.shape), random.beta(2, 2, int(own.max()))), numbers

    missed, people = [], [f"p{number}" for number in range(60)]
    for seed in range(30):
        best = [object_belief.best_object_scores(*own, truth) for own, truth in held(seed)]
        missing = {"object": covering_results.missed_shares(best, people)}
        decisions = covering_results.covering_thresholds(Certainty(risk=0.2), missing, exact=True, answers="objects")
        least = Certainty(covering=Conformal.from_record(decisions["task.covering"].value)).covers_from["object"]
        missed.append(
            np.mean(
                [(object_belief.best_object_scores(*own, truth) < least).mean() for own, truth in held(1000 + seed)]
            )
        )
    assert 0.15 < np.mean(missed) <= 0.2 + 3 * np.std(missed) / np.sqrt(30)
    assert decisions["task.covering"].value["n"] == {"object": 60}


def test_a_task_finds_its_score_keeps_it_and_maps_all_objects_that_it_takes():
    task = task_of()
    predictions, _ = found = simulated(task, 40, 0)
    assert properties.added_results(task) is None
    assured, decisions = fitting.with_sets(task, PredictedCases(*found), exact=True)
    because = decisions["task.covering"].because
    assert "objects from these scores on miss at most 20 % of those of a case on average" in because
    least = assured.certainty.covers_from["object"]
    assert 0 < least < 0.5
    again = task_catalogue.build_task(
        {"name": "instances", **json.loads(json.dumps(task_settings.settings_of(assured)))}
    )
    assert again == assured and fitting.with_sets(again, PredictedCases(*found), exact=True) == (assured, {})
    usual = assured.summary(assured.score(*found), seed=0)
    rows = {row.metric: row.estimate for row in usual}
    assert rows["covering_missed"].value < 0.2 < 1 - np.mean([one.data.max() / 6 for one in predictions])
    assert rows["covering_false"].value == pytest.approx(1.0, abs=0.3)
    covering = properties.added_results(assured).complete(predictions[0], None).maps["covering"]
    assert covering.data.max() >= predictions[0].data.max()
    assert (covering.data[np.asarray(predictions[0].data) > 0] > 0).all()
    sure, _ = fitting.with_sets(task_of(risk_delta=0.1), PredictedCases(*found), exact=True)
    assert sure.certainty.covers_from["object"] < least


def test_where_too_many_are_lost_all_are_mapped_and_what_was_not_kept_is_said():
    task = task_of(risk=0.05)
    numbers, inside, height = discs(np.array([0.9, 0.9, 0.9, 0.9, 0.3, 0.004]))
    held = [predicted(task, inside, height)] * 30, [case_of(numbers, f"c{number}") for number in range(30)]
    blind, decisions = fitting.with_sets(task, PredictedCases(*held), exact=False)
    assert blind.certainty.covers_from == {"object": 0.0}
    assert "no score is known to do so for object" in decisions["task.covering"].because
    assert properties.added_results(blind).complete(held[0][0], None).maps["covering"].data.max() == 5
    clip = properties.added_results(blind).complete(replace(held[0][0], untuned=None), None)
    assert "clip" in clip.notes[-1] and not clip.maps
    empty = fitting.with_sets(
        task,
        PredictedCases(
            held[0],
            [replace(one, references={"instances": Image(np.zeros((1, *SPACE.shape), int), SPACE)}) for one in held[1]],
        ),
        exact=True,
    )
    assert empty[0].certainty.covers_from == {"object": 0.0}


def test_maps_that_are_no_numbers_hold_no_object():
    nothing = np.full(SPACE.shape, np.nan)
    made = predicted(task_of(), nothing, nothing)
    assured, _ = fitting.with_sets(
        task_of(), PredictedCases([made] * 12, [case_of(discs(np.ones(6))[0], str(n)) for n in range(12)]), exact=True
    )
    assert assured.certainty.covers_from == {"object": 0.0}
    assert not properties.added_results(assured).complete(made, None).maps["covering"].data.any()


def test_without_a_risk_nothing_is_kept_for_it_and_an_impossible_one_is_refused():
    numbers, inside, height = discs(np.full(6, 0.9))
    older = task_of(risk=None)
    made = predicted(older, inside, height)
    assert made.untuned is None and fitting.with_sets(
        older, PredictedCases([made], [case_of(numbers, "c")]), exact=True
    ) == (
        older,
        {},
    )
    assert "covering_missed" not in older.score([made], [case_of(numbers, "c")])
    with pytest.raises(PlanError, match=r"task\.risk"):
        task_of(risk=1.2)
    with pytest.raises(PlanError, match=r"task\.covering"):
        task_of(covering={"method": "crc"})
