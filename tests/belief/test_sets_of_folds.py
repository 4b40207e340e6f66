"""What tasks state for the mean of folds, each of which scored the cases that it had not seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from hilum.evaluation import conformal
from hilum.tasks import fitting, task_catalogue, task_settings
from hilum.tasks.fitting import PredictedCases
from hilum.tasks.shared.averages import EACH
from hilum.values import Case, Geometry, Image, Prediction
from matrices import thinned

GRID, PLANE = Geometry((4, 4), np.eye(3)), Geometry.of_pixels((24, 24))
CLASSES, FOLDS, KNOWN, NEW = ["a", "b", "c"], 3, 150, 200
TIMES = {"horizons": [5.0], "scale": 6.0, "edges": [20.0], "followed": 20.0, "censoring": {"time": [], "share": []}}
KINDS = {
    "classes": {"name": "classification", "classes": CLASSES, "smoothing": 0.0},
    "grades": {"name": "classification", "classes": CLASSES, "smoothing": 0.0, "order": "cumulative"},
    "findings": {"name": "findings", "findings": CLASSES},
    "times": {"name": "survival", "model": "cox", **TIMES},
    "shapes": {"name": "survival", "model": "weibull", **TIMES},
    **{
        noise: {
            "name": "regression",
            "targets": ["x"],
            "units": {},
            "mean": {"x": 10.0},
            "deviation": {"x": 2.0},
            "noise": noise,
        }
        for noise in ("none", "gaussian", "quantiles")
    },
}


def decoded(task, outputs: np.ndarray, each: np.ndarray | None = None) -> list[Prediction]:
    """outputs: (cases, channels); each: (folds, cases, channels)"""
    (head,) = task.heads
    arrays = [{head: one} for one in outputs]
    if each is not None:
        arrays = [{**one, f"{head}{EACH}": own.ravel()} for one, own in zip(arrays, each.swapaxes(0, 1), strict=True)]
    return [task.decode([((), one)], GRID) for one in arrays]


def simulated(kind: str, seed: int = 0) -> tuple[np.ndarray, list[Case]]:
    """(folds, cases, channels) outputs of networks that err each in its own way, and the cases with their truth."""
    random, task = np.random.default_rng(seed), task_catalogue.build_task(KINDS[kind])
    (head,), (need,) = task.heads.values(), task.needs
    signal = random.normal(0, 1.5, (KNOWN + NEW, head.count))
    if kind in ("classes", "grades"):
        likely = task.probabilities({"class": signal.T})["class"].T
        numbers = (random.random((KNOWN + NEW, 1)) > np.cumsum(likely, axis=1)[:, :-1]).sum(axis=1)
        truths = [CLASSES[number] for number in numbers]
    elif kind == "findings":
        present = random.random(signal.shape) < 1 / (1 + np.exp(-signal))
        truths = [dict(zip(CLASSES, row.tolist(), strict=True)) for row in present]
    elif kind in ("times", "shapes"):
        sign = 1 if kind == "times" else -1
        times = 6 * random.exponential(size=KNOWN + NEW) * np.exp(-sign * signal[:, 0])
        limits = random.uniform(2, 20, KNOWN + NEW)
        truths = [(float(min(one, end)), bool(one <= end)) for one, end in zip(times, limits, strict=True)]
    else:
        truths = [{"x": float(v)} for v in 10 + 2 * (signal[:, 0] + random.normal(size=KNOWN + NEW))]
    each = 2 * signal + random.normal(0, 0.7, (FOLDS, 1, head.count))
    return each, [Case(f"c{n}", f"p{n}", {}, {need: truth}) for n, truth in enumerate(truths)]


def crossed(kind: str, each: np.ndarray, cases: list[Case], **settings):
    """The task of the mean, and the outputs by the fold that has not seen a case."""
    task, folds = task_catalogue.build_task({**KINDS[kind], **settings}), np.arange(KNOWN) % FOLDS
    predictions = decoded(task, each[folds, np.arange(KNOWN)])
    first, _ = fitting.with_sets(task, PredictedCases(predictions, cases[:KNOWN]), exact=False)
    return fitting.with_sets_of_folds(first, PredictedCases(predictions, cases[:KNOWN], folds.tolist()))


@pytest.mark.parametrize("kind", thinned(2, KINDS))
def test_the_mean_of_folds_states_what_holds_at_least_two_coverages_less_one(kind):
    each, cases = simulated(kind)
    task, decisions = crossed(kind, each, cases)
    because = decisions["task.conformal"].because
    assert "mean of 3 folds" in because and "about 90 %" in because and "the 150 cases that" in because
    again = task_catalogue.build_task({"name": task.name, **task_settings.settings_of(task)})
    assert again == task and task.folds_by_head == dict.fromkeys(task.heads, FOLDS)
    stated = decoded(again, each[:, KNOWN:].mean(axis=0), each[:, KNOWN:])
    table = task.score(stated, cases[KNOWN:]).assign(split="test")
    held = [row.estimate.value for row in task.summary(table, seed=0) if row.metric == "coverage"]
    assert held and min(held) > 0.8
    alone = decoded(again, each[0, KNOWN:])
    assert [one.confidence for one in alone] != [one.confidence for one in stated]


@pytest.mark.parametrize("by", ["all", "class"])
def test_a_class_is_in_a_set_unless_too_many_cases_went_better_with_the_fold_that_had_not_seen_them(by):
    each, cases = simulated("classes", 1)
    task, _ = crossed("classes", each, cases, conformal_by=by)
    found = task.certainty.conformal
    assert set(found.crossed) == ({"all"} if by == "all" else set(CLASSES))
    likely = np.exp(each) / np.exp(each).sum(axis=2, keepdims=True)
    scores = np.stack([conformal.class_scores(one, "lac") for one in likely])
    for place, one in enumerate(decoded(task, each.mean(axis=0), each)[KNOWN:], start=KNOWN):
        expected = [
            name
            for number, name in enumerate(CLASSES)
            if conformal.cross_sets(found.steps(name, FOLDS), scores[:, place, [number]], 0.9)[0]
        ]
        assert list(one.confidence.set[""]) == expected


def test_a_class_without_cases_stays_open_and_a_finding_without_gets_no_sets():
    each, cases = simulated("classes", 2)
    cases = [replace(one, references={"class": "a" if one.references["class"] == "c" else "b"}) for one in cases]
    for by in ("all", "class"):
        task, _ = crossed("classes", each, cases, conformal_by=by)
        assert all("c" in one.confidence.set[""] for one in decoded(task, each.mean(axis=0), each))
    each, cases = simulated("findings", 2)
    cases = [replace(one, references={"findings": {"a": one.references["findings"]["a"]}}) for one in cases]
    task, _ = crossed("findings", each, cases)
    sets = [one.confidence.set for one in decoded(task, each.mean(axis=0), each)]
    assert {name for one in sets for name in one} == {"a"} and len({one["a"] for one in sets}) > 1
    assert set(task.certainty.conformal.crossed) == {"with a", "without a"}


def test_an_interval_is_as_wide_as_the_errors_of_each_fold_in_its_own_error_bars():
    each, cases = simulated("gaussian", 3)
    task, _ = crossed("gaussian", each, cases, error_factor={"x": 3.0})
    (one,) = decoded(task, each.mean(axis=0)[-1:], each[:, -1:])
    said, bars = 10 + 2 * each[:, -1, 0], 2 * np.exp(0.5 * each[:, -1, 1])
    low, high = conformal.cross_interval(task.certainty.conformal.steps("x", FOLDS), said, said, bars, 0.9)
    assert (one.confidence.low["x"], one.confidence.high["x"]) == pytest.approx((low, high))


def test_sets_by_a_covariate_do_not_go_by_folds():
    each, cases = simulated("classes", 4)
    cases = [replace(one, covariates={"site": "north"}) for one in cases]
    task, decisions = crossed("classes", each, cases, conformal_by="site")
    assert not decisions and not task.folds_by_head


def test_the_bound_of_a_time_is_one_that_too_few_cases_fell_below_with_the_fold_that_had_not_seen_them():
    each, cases = simulated("times", 5)
    task, _ = crossed("times", each, cases, slope=0.5, baseline={"time": [3.0], "hazard": [0.4]})
    (one,) = decoded(task, each.mean(axis=0)[-1:], each[:, -1:])
    risks, folds = each[:, :, 0], np.arange(KNOWN) % FOLDS
    ratios = np.exp(-risks[folds, np.arange(KNOWN)]) / [case.references["event"][0] for case in cases[:KNOWN]]
    ends = np.sort(np.exp(-risks[folds, -1]) / ratios)
    # One of 64 steps a fold stands for a case or for its neighbours with larger ratios.
    assert one.confidence.low["time"] == pytest.approx(ends[KNOWN - int(np.ceil(0.9 * (KNOWN + 1)))], rel=0.2)


def several(kinds: dict[str, str]):
    settings = {
        f"{name}.{key}": one for name, kind in kinds.items() for key, one in KINDS[kind].items() if key != "name"
    }
    return task_catalogue.build_task({**settings, "name": "+".join(kinds)})


def test_parts_of_several_tasks_state_for_the_mean_of_folds_what_each_states_alone():
    kinds = {"classification": "classes", "regression": "gaussian"}
    both = {name: simulated(kind, 6) for name, kind in kinds.items()}
    cases = [
        Case(f"c{n}", f"p{n}", {}, {key: one for _, own in both.values() for key, one in own[n].references.items()})
        for n in range(KNOWN + NEW)
    ]
    task, folds = several(kinds), np.arange(KNOWN) % FOLDS

    def said(task, number: int, by: int) -> Prediction:
        heads = dict(zip(task.heads, (each for each, _ in both.values()), strict=True))
        own = {head: each[by, number] if by >= 0 else each[:, number].mean(axis=0) for head, each in heads.items()}
        beside = {f"{head}{EACH}": each[:, number].ravel() for head, each in heads.items()} if by < 0 else {}
        return task.decode([((), {**own, **beside})], GRID)

    own = [said(task, number, fold) for number, fold in enumerate(folds)]
    made, _ = fitting.with_sets(task, PredictedCases(own, cases[:KNOWN]), exact=False)
    made, decisions = fitting.with_sets_of_folds(made, PredictedCases(own, cases[:KNOWN], folds.tolist()))
    assert set(decisions) == {"task.classification.conformal", "task.regression.conformal"}
    whole = [said(made, number, -1) for number in range(KNOWN, KNOWN + NEW)]
    for name, kind in kinds.items():
        each, alone = both[name]
        task, _ = crossed(kind, each, alone)
        expected = decoded(task, each[:, KNOWN:].mean(axis=0), each[:, KNOWN:])
        for one, part in zip(expected, whole, strict=True):
            found = part.parts[name].confidence
            assert (found.set, found.low, found.high) == (one.confidence.set, one.confidence.low, one.confidence.high)


def test_a_part_that_a_fold_has_no_cases_of_goes_by_thresholds():
    task = several({"classification": "classes", "regression": "gaussian"})
    random, cases = np.random.default_rng(0), []
    for number in range(60):
        references = {"class": CLASSES[number % 3], **({"value": {"x": 10.0}} if number % FOLDS else {})}
        cases.append(Case(f"c{number}", f"p{number}", {}, references))
    values = [random.normal(size=5) for _ in cases]
    each = [{"classification_class": one[:3], "regression_value": one[3:]} for one in values]
    own = [task.decode([((), one)], GRID) for one in each]
    made, _ = fitting.with_sets(task, PredictedCases(own, cases), exact=False)
    made, _ = fitting.with_sets_of_folds(made, PredictedCases(own, cases, [number % FOLDS for number in range(60)]))
    assert made.folds_by_head == {"classification_class": FOLDS}


def blobs(number: int) -> list[Case]:
    """Cases with a disc each, of another size and in another place."""
    random, grid = np.random.default_rng(7), np.stack(np.indices(PLANE.shape))
    made = []
    for n in range(number):
        middle, radius = random.uniform(10, 14, (2, 1, 1)), random.uniform(3, 8)
        disc = np.linalg.norm(grid - middle, axis=0) < radius
        made.append(Case(f"c{n}", f"p{n}", {}, {"mask": Image(disc[None].astype(np.uint8), PLANE)}))
    return made


def outlined(task, each: np.ndarray, by: int | None) -> Prediction:
    """each: (folds, 2, *spatial); by: the fold that speaks, None for the mean of all"""
    if by is not None:
        return task.decode([((slice(0, 24), slice(0, 24)), {"mask": each[by]})], PLANE)
    mean = task.average([{"mask": one[None]} for one in each])["mask"][0]
    beside = {f"mask{EACH}": np.concatenate(each)}
    halves = [(slice(a, a + 12), slice(0, 24)) for a in (0, 12)]
    parts = [(one, {name: given[:, one[0]] for name, given in {"mask": mean, **beside}.items()}) for one in halves]
    return task.decode(parts, PLANE)


@pytest.mark.whole
def test_the_interval_of_a_volume_by_folds_that_err_each_in_its_own_way_holds_it():
    random, cases, known, new = np.random.default_rng(8), blobs(190), 90, 100
    true = np.stack([case.references["mask"].data[0] for case in cases]).astype(float)
    depths = np.stack([ndimage.distance_transform_edt(one) - ndimage.distance_transform_edt(1 - one) for one in true])
    shifts = np.array([-1.0, 0.3, 0.8])[:, None] + random.normal(0, 0.6, len(cases))
    logits = 1.5 * (depths[None] + shifts[..., None, None])
    each = np.stack([np.zeros_like(logits), logits], axis=2).astype(np.float32)
    labels = [{"value": 1, "name": "disc"}]
    raw = task_catalogue.build_task({"name": "segmentation", "labels": labels, "loss": "dice+ce", "tolerance": 2.0})
    folds = np.arange(known) % FOLDS
    own = [outlined(raw, each[:, n], fold) for n, fold in enumerate(folds)]
    task, _ = fitting.with_fitted_calibration(raw, PredictedCases(own, cases[:known]))
    task, _ = fitting.with_sets(task, PredictedCases(own, cases[:known]), exact=False)
    approximate = task
    task, decisions = fitting.with_sets_of_folds(task, PredictedCases(own, cases[:known], folds.tolist()))
    assert "mean of 3 folds" in decisions["task.conformal"].because and task.folds_by_head == {"mask": FOLDS}
    assert task_catalogue.build_task({"name": task.name, **task_settings.settings_of(task)}) == task
    held, ends = [], []
    for n in range(known, known + new):
        found = task.outputs(outlined(task, each[:, n], None))
        ends.append((found["disc_pixels_low"], found["disc_pixels_high"]))
        held.append(ends[-1][0] <= true[n].sum() <= ends[-1][1])
    assert np.mean(held) > 0.8
    alone = outlined(task, each[:, -1], 0).confidence
    assert alone.low == outlined(approximate, each[:, -1], 0).confidence.low
    sizes, doubts = [], []
    for one in each[:, -1]:
        chance = 1 / (1 + np.exp(-one[1].astype(float)))
        sizes.append([(one[1] > 0).sum()])
        doubts.append([np.abs((one[1] > 0) - chance).sum()])
    said, wide = np.array(sizes)[:, 0], np.array(doubts)[:, 0]
    assert ends[-1] == pytest.approx(
        conformal.cross_interval(task.certainty.conformal.steps("disc", FOLDS), said, said, wide, 0.9)
    )


def test_volumes_of_many_labels_go_by_thresholds():
    labels = [{"value": value, "name": str(value)} for value in range(1, 40)]
    raw = task_catalogue.build_task({"name": "segmentation", "labels": labels, "loss": "dice+ce", "tolerance": 2.0})
    cases = blobs(6)
    outputs = np.random.default_rng(0).normal(size=(6, 40, 24, 24)).astype(np.float32)
    own = [raw.decode([((slice(0, 24), slice(0, 24)), {"mask": one})], PLANE) for one in outputs]
    task, _ = fitting.with_sets(raw, PredictedCases(own, cases), exact=False)
    assert fitting.with_sets_of_folds(task, PredictedCases(own, cases, [0, 1, 2] * 2)) == (task, {})
