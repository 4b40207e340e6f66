"""Sets of classes and findings, and intervals of values, by cases that did not train."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from hilum.errors import PlanError
from hilum.evaluation import conformal
from hilum.scoring import model_verdict
from hilum.tasks import fitting, properties, task_catalogue, task_settings
from hilum.tasks.fitting import PredictedCases
from hilum.values import Case, Geometry, Prediction
from matrices import thinned

GRID = Geometry((2, 2), np.eye(3))
CLASSES = ["a", "b", "c"]


def classes(**settings):
    return task_catalogue.build_task({"name": "classification", "classes": CLASSES, "smoothing": 0.0, **settings})


def findings(**settings):
    return task_catalogue.build_task({"name": "findings", "findings": ["x", "y"], **settings})


def values(**settings):
    given = {"targets": ["size"], "units": {}, "mean": {"size": 10.0}, "deviation": {"size": 2.0}, **settings}
    return task_catalogue.build_task({"name": "regression", **given})


def survival(**settings):
    followed = {"time": [1.0], "share": [0.5]}
    given = {"horizons": [1.0, 2.0], "scale": 1.0, "edges": [1.0, 2.0], "followed": 4.0, "censoring": followed}
    return task_catalogue.build_task({"name": "survival", "model": "cox", **given, **settings})


def decoded(task, outputs) -> list[Prediction]:
    (head,) = task.heads
    return [task.decode([((), {head: np.asarray(one, dtype=np.float32)})], GRID) for one in outputs]


def cases_of(kind: str, truths) -> list[Case]:
    return [Case(f"c{n}", f"p{n}", {}, {kind: truth}) for n, truth in enumerate(truths)]


def simulated(count: int, seed: int = 0, names=CLASSES):
    """Overconfident logits, and classes sampled by the true probabilities."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (count, len(names)))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return 3 * logits, [names[random.choice(len(names), p=p)] for p in true]


def assured(task, outputs, cases, *, exact=True):
    return fitting.with_sets(task, PredictedCases(decoded(task, outputs), cases), exact=exact)


@pytest.mark.parametrize(
    ("settings", "by"), thinned(2, [({}, "class"), ({"order": "softmax"}, "class"), ({"conformal_by": "all"}, "all")])
)
def test_sets_of_new_cases_hold_the_class_as_often_as_promised(settings, by):
    task = classes(coverage=0.8, **settings)
    (logits, truths), (new, new_truths) = simulated(600), simulated(2000, seed=1)
    made, decisions = assured(task, logits, cases_of("class", truths))
    found = decisions["task.conformal"].value
    assert (found["by"], found["level"], found["exact"]) == (by, 0.8, True)
    assert sum(found["n"].values()) == 600
    predictions = decoded(made, new)
    covered = [truth in one.confidence.set[""] for truth, one in zip(new_truths, predictions, strict=True)]
    assert np.mean(covered) == pytest.approx(0.8, abs=0.06)
    places = [sorted(CLASSES.index(name) for name in one.confidence.set[""]) for one in predictions]
    if "order" in settings:
        assert all(own == list(range(own[0], own[-1] + 1)) for own in places if own)


@pytest.mark.parametrize("method", thinned(1, ["lac", "aps", "raps"]))
def test_the_method_and_the_coverage_that_a_person_sets_are_kept(method):
    task = classes(conformal_method=method, conformal_by="all", coverage=0.7)
    logits, truths = simulated(200)
    made, decisions = assured(task, logits, cases_of("class", truths))
    assert decisions["task.conformal"].value["method"] == method
    assert task_catalogue.build_task({"name": "classification", **task_settings.settings_of(made)}) == made
    again, nothing = assured(made, logits, cases_of("class", truths))
    assert (again, nothing) == (made, {})


@pytest.mark.parametrize("method", ["aps", "raps"])
def test_the_surest_cases_have_the_likeliest_class_in_their_set(method):
    task = classes(conformal_method=method, conformal_by="all", coverage=0.7)
    logits, truths = simulated(200)
    made, _ = assured(task, logits, cases_of("class", truths))
    [sure] = decoded(made, [[16.0, 0.0, 0.0]])
    assert conformal.class_scores([[*sure.probabilities.values()]], method).min() > made.certainty.conformal.threshold(
        "all"
    )
    assert sure.confidence.set[""] == (CLASSES[0],)


@pytest.mark.whole
def test_sets_do_not_depend_on_whether_the_predictions_were_calibrated_already():
    logits, truths = simulated(300)
    raw, cases = classes(), cases_of("class", truths)
    predictions = decoded(raw, logits)
    tuned, _ = fitting.with_fitted_calibration(raw, PredictedCases(predictions, cases))
    first, _ = fitting.with_sets(tuned, PredictedCases(predictions, cases), exact=False)
    second, decisions = fitting.with_sets(tuned, PredictedCases(decoded(tuned, logits), cases), exact=False)
    assert first.certainty.conformal.settings == second.certainty.conformal.settings
    assert "approximate, no guarantee" in decisions["task.conformal"].because


@pytest.mark.parametrize("by", ["all", "class"])
def test_a_class_without_calibration_cases_is_in_every_set(by):
    logits, truths = simulated(200, names=CLASSES[:2])
    logits = np.column_stack([logits, np.full(200, -9.0)])
    made, decisions = assured(classes(conformal_by=by), logits, cases_of("class", truths))
    assert decisions["task.conformal"].value["thresholds"]["c"] is None
    assert "c (0): too few patients" in decisions["task.conformal"].because
    assert all("c" in one.confidence.set[""] for one in decoded(made, logits[:40]))


def test_with_too_few_patients_every_class_is_in_every_set_and_that_is_said():
    logits, truths = simulated(8)
    made, decisions = assured(classes(), logits, cases_of("class", [*"abc", *truths[3:]]))
    assert "too few patients" in decisions["task.conformal"].because
    assert "(at least 9), so nothing is left out" in decisions["task.conformal"].because
    assert "patients like those of the 8 cases that set them" in decisions["task.conformal"].because
    assert decoded(made, logits)[0].confidence.set == {"": ("a", "b", "c")}


def test_a_patient_with_many_cases_counts_once():
    logits, truths = simulated(100)
    cases = [Case(f"c{n}", f"p{n % 8}", {}, {"class": truth}) for n, truth in enumerate(truths)]
    _, decisions = assured(classes(conformal_by="all"), logits, cases)
    assert decisions["task.conformal"].value["n"] == {"all": 8}
    assert "patients like the 8 patients whose cases set them" in decisions["task.conformal"].because
    assert decisions["task.conformal"].value["thresholds"] == {"all": None}


@pytest.mark.parametrize("output", [0.0, math.nan])
def test_outputs_that_are_constant_or_no_numbers_leave_all_classes_in(output):
    logits, truths = np.full((90, 3), output), [*"abc"] * 30
    made, _ = assured(classes(), logits, cases_of("class", truths))
    assert decoded(made, logits[:1])[0].confidence.set == {"": ("a", "b", "c")}


@pytest.mark.parametrize("coverage", [1.2, 0, 1, True, "much", math.nan])
@pytest.mark.parametrize("make", [classes, findings, values, survival])
def test_an_impossible_coverage_is_refused_by_its_name(make, coverage):
    with pytest.raises(PlanError, match=r"task\.coverage"):
        make(coverage=coverage)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("conformal_method", "best"), ("conformal_by", ""), ("conformal", {"level": 0.9}), ("conformal", 3)],
)
def test_impossible_settings_of_sets_are_refused_by_their_names(setting, value):
    with pytest.raises(PlanError, match=rf"task\.{setting}"):
        classes(**{setting: value})


def test_a_model_of_before_there_were_sets_predicts_as_before_and_its_columns_are_blank():
    before = classes()
    settings = {
        name: value for name, value in task_settings.settings_of(before).items() if not name.startswith(("conf", "cov"))
    }
    task = task_catalogue.build_task({"name": "classification", **settings})
    assert task == before
    (prediction,) = decoded(task, [[1.0, 2.0, 0.0]])
    columns = task.outputs(prediction)
    assert (columns["predicted"], columns["set"]) == ("b", None)
    table = task.score([prediction], cases_of("class", ["b"])).assign(split="test")
    assert table["set"].isna().all()
    assert not {"coverage", "set_size"} & {row.metric for row in task.summary(table, seed=0)}
    (measured,) = decoded(values(), [[0.5]])
    assert values().outputs(measured) == {"value_size": 11.0, "low_size": None, "high_size": None}


def test_columns_and_rows_state_the_sets():
    logits, truths = simulated(300)
    cases = cases_of("class", truths)
    made, _ = assured(classes(), logits, cases)
    predictions = decoded(made, logits)
    assert json.loads(made.outputs(predictions[0])["set"]) == list(predictions[0].confidence.set[""])
    table = made.score(predictions, cases).assign(split="test")
    rows = {row.metric: row.estimate for row in made.summary(table, seed=0) if row.label == "all"}
    sets = [one.confidence.set[""] for one in predictions]
    assert rows["coverage"].value == pytest.approx(np.mean([t in one for t, one in zip(truths, sets, strict=True)]))
    assert rows["coverage"].low < 0.9 < rows["coverage"].high
    assert rows["set_size"].value == pytest.approx(np.mean([len(one) for one in sets]))


def test_sets_hold_for_each_value_of_a_covariate_and_are_the_widest_where_it_is_unknown():
    random = np.random.default_rng(6)
    sites = random.choice(["north", "south"], 1500).tolist()
    logits, truths = simulated(1500)
    # In the south the classes are sampled without a look at the image.
    truths = [CLASSES[random.integers(3)] if site == "south" else own for site, own in zip(sites, truths, strict=True)]
    cases = [
        Case(f"c{n}", f"p{n}", {}, {"class": own}, {"site": site if n % 5 else None})
        for n, (own, site) in enumerate(zip(truths, sites, strict=True))
    ]
    made, decisions = assured(classes(conformal_by="site"), logits[:700], cases[:700])
    found = decisions["task.conformal"].value
    assert (found["by"], set(found["thresholds"]), sum(found["n"].values())) == ("site", {"north", "south"}, 560)
    narrow = properties.covariate_adjustment(made)
    raw = decoded(made, logits[700:])
    for site in ("north", "south"):
        own = [(narrow(one, {"site": site}), case) for one, case in zip(raw, cases[700:], strict=True)]
        held = [c.references["class"] in p.confidence.set[""] for p, c in own if c.covariates["site"] == site]
        assert np.mean(held) == pytest.approx(0.9, abs=0.05)
        assert not own[0][0].notes
    for covariates in ({}, {"site": None}, {"site": "east"}):
        unknown = narrow(raw[0], covariates)
        assert "site is unknown" in unknown.notes[0]
        assert unknown.confidence.set == raw[0].confidence.set == narrow(raw[0], {"site": "south"}).confidence.set
    assert properties.covariate_adjustment(classes()) is None
    no_sites, _ = assured(classes(conformal_by="ward"), logits[:60], cases[:60])
    assert decoded(no_sites, logits[:1])[0].confidence.set == {"": ("a", "b", "c")}


@pytest.mark.parametrize(("calibrating", "asked"), [(1, 1.0), (1.0, "1"), ("North", " north"), ("M", "m")])
def test_a_value_of_a_covariate_is_known_however_it_is_written(calibrating, asked):
    logits, truths = simulated(120)
    sites = [calibrating if n % 2 else "other" for n in range(120)]
    stated = enumerate(zip(truths, sites, strict=True))
    cases = [Case(f"c{n}", f"p{n}", {}, {"class": truth}, {"site": site}) for n, (truth, site) in stated]
    made, _ = assured(classes(conformal_by="site"), logits, cases)
    (raw,) = decoded(made, logits[:1])
    own, same = (properties.covariate_adjustment(made)(raw, {"site": one}) for one in (asked, calibrating))
    assert not own.notes and own.confidence.set == same.confidence.set


def test_of_a_covariate_that_no_calibrating_case_states_nothing_is_left_out_and_the_reason_says_so():
    logits, truths = simulated(120)
    cases = [Case(f"c{n}", f"p{n}", {}, {"class": t}, {"site": "" if n % 2 else None}) for n, t in enumerate(truths)]
    made, decisions = assured(classes(conformal_by="site"), logits, cases)
    assert decoded(made, logits[:1])[0].confidence.set == {"": ("a", "b", "c")}
    assert "those of the 0 cases that set them" in decisions["task.conformal"].because
    assert "nothing is left out" in decisions["task.conformal"].because


@pytest.mark.whole
def test_findings_are_present_absent_or_undecided_and_as_often_right_as_promised():
    random = np.random.default_rng(3)
    odds = random.normal(0, 2, (1200, 2)) * [1.0, 0.3]
    present = random.random((1200, 2)) < 1 / (1 + np.exp(-odds))
    cases = cases_of(
        "findings", [{"x": bool(x), **({"y": bool(y)} if n % 2 else {})} for n, (x, y) in enumerate(present)]
    )
    made, decisions = assured(findings(), odds[:600], cases[:600])
    counts = {f"{side} {name}": int((present[step - 1 : 600 : step, place] == (side == "with")).sum())
              for place, (name, step) in enumerate((("x", 1), ("y", 2))) for side in ("with", "without")}  # fmt: skip
    assert decisions["task.conformal"].value["n"] == counts
    assert "of new patients with each finding, and of those without it" in decisions["task.conformal"].because
    predictions = decoded(made, odds[600:])
    for place, name in enumerate("xy"):
        sets = [one.confidence.set[name] for one in predictions]
        assert set(sets) == {("present",), ("absent",), ("present", "absent")}
        for truth, side in ((True, "present"), (False, "absent")):
            right = [side in own for own, known in zip(sets, present[600:, place], strict=True) if known == truth]
            assert np.mean(right) == pytest.approx(0.9, abs=0.06)
    assert made.outputs(predictions[0])["set_x"] == json.dumps(list(predictions[0].confidence.set["x"]))
    table = made.score(predictions, cases[600:]).assign(split="test")
    rows = {(row.metric, row.label): row.estimate for row in made.summary(table, seed=0)}
    assert {("coverage", "all"), ("coverage", "x"), ("set_size", "y"), ("coverage_present", "all")} <= set(rows)
    own = table[(table["label"] == "x") & (table["reference"] == "absent")]
    stated = rows["coverage_absent", "x"]
    assert stated.value == pytest.approx(np.mean(["absent" in one for one in own["set"]])) and stated.low < 0.9
    assert (stated.n, stated.value) == (len(own), pytest.approx(0.9, abs=0.06))


def with_x(odds, many: int, **settings):
    """Findings x, which so many of these cases have, and y, which half of them have."""
    truths = [{"x": n < many, "y": n % 2 > 0} for n in range(len(odds))]
    return assured(findings(**settings), odds, cases_of("findings", truths))


@pytest.mark.parametrize(("many", "coverage", "needed"), [(19, 0.9, 20), (20, 0.9, 0), (40, 0.98, 49)])
def test_a_finding_that_too_few_have_gets_no_sets_and_the_others_keep_theirs(many, coverage, needed):
    odds = np.random.default_rng(4).normal(0, 3, (140, 2))
    made, decisions = with_x(odds, many, coverage=coverage)
    (new,) = decoded(made, odds[:1])
    because, columns = decisions["task.conformal"].because, made.outputs(new)
    assert ("x" in new.confidence.set) == (not needed) and "y" in new.confidence.set
    assert (columns["set_x"] is None) == bool(needed) and columns["set_y"]
    lacking = f"{many} patients with x, {needed} needed"
    assert because.startswith(f"no sets: {lacking}; other sets") == bool(needed)
    assert list(model_verdict.boundless_sentences(made)) == ([f"No sets: {lacking}."] if needed else [])
    table = made.score(decoded(made, odds[:30]), cases_of("findings", [{"x": True, "y": True}] * 30))
    labels = {row.label for row in made.summary(table.assign(split="test"), seed=0) if row.metric == "coverage"}
    assert labels == ({"all", "y"} if needed else {"all", "x", "y"})
    assert task_catalogue.build_task({"name": "findings", **task_settings.settings_of(made)}) == made


def test_a_finding_that_no_calibration_case_knows_gets_no_sets():
    odds = np.random.default_rng(4).normal(0, 3, (60, 2))
    made, decisions = assured(findings(), odds, cases_of("findings", [{"x": bool(one > 0)} for one, _ in odds]))
    assert {name for one in decoded(made, odds) for name in one.confidence.set} == {"x"}
    lacking = "0 patients with y, 0 patients without y, 20 needed of each"
    assert decisions["task.conformal"].because.startswith(f"no sets: {lacking}; ")


def test_where_present_and_absent_are_both_unlikely_the_likelier_one_is_the_set():
    """Of those with the finding nine of ten have odds above 2, of those without below -2."""
    odds = np.repeat(np.concatenate([np.linspace(1, 10, 50), -np.linspace(1, 10, 50)])[:, None], 2, axis=1)
    made, _ = assured(findings(), odds, cases_of("findings", [{"x": n < 50, "y": n < 50} for n in range(100)]))
    sets = [one.confidence.set["x"] for one in decoded(made, np.array([[0.5], [-0.5], [3], [-3]]) * [1, 1])]
    assert sets == [("present",), ("absent",)] * 2


def test_the_reason_names_the_class_that_is_too_rare_for_a_promise_of_its_own():
    logits, truths = simulated(60)
    truths = ["a" if n < 19 else truth if truth != "a" else "b" for n, truth in enumerate(truths)]
    _, decisions = assured(classes(), logits, cases_of("class", truths))
    assert decisions["task.conformal"].value["by"] == "all"
    assert "over all classes together" in decisions["task.conformal"].because


@pytest.mark.parametrize("noise", thinned(1, ["none", "gaussian"]))
def test_intervals_hold_the_value_as_often_as_promised(noise):
    random = np.random.default_rng(5)
    logs = random.normal(0, 1, 1200)
    spread = np.exp(0.5 * logs) if noise == "gaussian" else np.ones(1200)
    guess = random.normal(0, 1, 1200)
    cases = cases_of("value", [{"size": float(v)} for v in 10 + 2 * (guess + 2 * spread * random.normal(size=1200))])
    outputs = np.column_stack([guess, logs]) if noise == "gaussian" else guess[:, None]
    task = values(noise=noise)
    task, _ = fitting.with_fitted_calibration(task, PredictedCases(decoded(task, outputs[:600]), cases[:600]))
    first, _ = fitting.with_sets(
        task, PredictedCases(decoded(values(noise=noise), outputs[:600]), cases[:600]), exact=False
    )
    made, decisions = fitting.with_sets(task, PredictedCases(decoded(task, outputs[:600]), cases[:600]), exact=True)
    assert made.certainty.conformal.thresholds == first.certainty.conformal.thresholds
    assert decisions["task.conformal"].value["method"] == ("normalised" if noise == "gaussian" else "absolute")
    predictions = decoded(made, outputs[600:])
    table = made.score(predictions, cases[600:]).assign(split="test")
    rows = {row.metric: row.estimate for row in made.summary(table, seed=0)}
    assert rows["coverage"].value == pytest.approx(0.9, abs=0.04)
    widths = np.array([one.confidence.high["size"] - one.confidence.low["size"] for one in predictions])
    assert rows["interval_width"].value == pytest.approx(widths.mean())
    assert (np.ptp(widths) > 1) == (noise == "gaussian")
    columns = made.outputs(predictions[0])
    assert columns["low_size"] < columns["value_size"] < columns["high_size"]


@pytest.mark.whole
def test_intervals_between_quantiles_hold_the_value_as_often_as_promised_on_each_side_as_far_as_it_is_skewed():
    """The network's own quantiles are right in shape and far too narrow."""
    random = np.random.default_rng(6)
    logs, guess = random.normal(0, 0.5, 1200), random.normal(0, 1, 1200)
    cases = cases_of(
        "value", [{"size": float(v)} for v in 10 + 2 * (guess + np.exp(logs) * random.exponential(size=1200))]
    )
    outputs = np.column_stack([guess, np.full(1200, -8.0), 2 * logs])  # twice the logarithm of a distance
    bare = values(noise="quantiles")
    (own,) = decoded(bare, [[0.0, np.log(4.0), np.log(9.0)]])
    assert (own.confidence.low["size"], own.confidence.high["size"]) == pytest.approx((10 - 2 * 2, 10 + 2 * 3))
    made, decisions = assured(bare, outputs[:600], cases[:600])
    assert decisions["task.conformal"].value["method"] == "cqr"
    predictions = decoded(made, outputs[600:])
    table = made.score(predictions, cases[600:]).assign(split="test")
    rows = {row.metric: row.estimate for row in made.summary(table, seed=0)}
    assert rows["coverage"].value == pytest.approx(0.9, abs=0.04)
    ends = [(one.confidence.low["size"], one.values["size"], one.confidence.high["size"]) for one in predictions]
    assert np.mean([high - value > value - low for low, value, high in ends]) > 0.99
    assert task_catalogue.build_task({"name": "regression", **task_settings.settings_of(made)}) == made


@pytest.mark.whole
def test_quantiles_that_are_too_wide_give_no_interval_whose_ends_pass_each_other_and_the_coverage_stays():
    random, easy = np.random.default_rng(8), np.arange(1200) % 15 == 0  # the network knows that these vary little
    true = 10 + random.normal(size=1200) * np.where(easy, 0.3, 1.5)
    cases = cases_of("value", [{"size": float(v)} for v in true])
    away = 2 * np.log(np.where(easy, 0.5, 3.0))
    made, _ = assured(values(noise="quantiles"), np.column_stack([0 * away, away, away])[:600], cases[:600])
    assert made.certainty.conformal.thresholds["size"] < -1
    predictions = decoded(made, np.column_stack([0 * away, away, away])[600:])
    ends = np.array([(one.confidence.low["size"], one.confidence.high["size"]) for one in predictions])
    assert (ends[easy[600:]] == 10).all() and (ends[:, 0] <= ends[:, 1]).all()
    covered = (ends[:, 0] <= true[600:]) & (true[600:] <= ends[:, 1])
    assert covered.mean() == pytest.approx(0.9, abs=0.04)


def test_values_that_are_no_numbers_leave_an_interval_without_ends():
    made, _ = assured(values(), np.full((60, 1), np.nan), cases_of("value", [{"size": 10.0}] * 60))
    [found] = decoded(made, [[0.0]])
    assert (found.confidence.low["size"], found.confidence.high["size"]) == (-math.inf, math.inf)


def test_with_too_few_patients_an_interval_has_no_ends_and_its_columns_are_blank():
    cases = cases_of("value", [{"size": 10.0 + n} for n in range(8)])
    made, decisions = assured(values(), np.zeros((8, 1)), cases)
    assert decisions["task.conformal"].value["thresholds"] == {"size": None}
    (prediction,) = decoded(made, [[0.0]])
    assert (prediction.confidence.low["size"], prediction.confidence.high["size"]) == (-math.inf, math.inf)
    assert made.outputs(prediction) == {"value_size": 10.0, "low_size": None, "high_size": None}
    table = made.score(decoded(made, np.zeros((8, 1))), cases).assign(split="test")
    assert table[["low", "high"]].isna().all(axis=None)
    rows = {row.metric: row.estimate for row in made.summary(table, seed=0)}
    assert rows["coverage"].value == 1.0


@pytest.mark.parametrize("censoring", thinned(1, ["at random", "by risk", "at one time"]))
@pytest.mark.whole
def test_a_lower_bound_of_times_holds_whatever_ends_an_observation(censoring):
    random = np.random.default_rng(7)
    ratios = random.normal(size=800)
    event = random.exponential(2 * np.exp(-ratios)) + 1e-3
    ends = {
        "at random": random.exponential(3, 800) + 1e-3,
        "by risk": random.exponential(np.exp(ratios)) + 1e-3,
        "at one time": np.full(800, 1.5),
    }[censoring]
    outcomes = list(zip(np.minimum(event, ends).tolist(), (event <= ends).tolist(), strict=True))
    cases, raw = cases_of("event", outcomes), survival()
    outputs = ratios[:, None]
    before = decoded(raw, outputs[:400])
    task, _ = fitting.with_fitted_calibration(raw, PredictedCases(before, cases[:400]))
    first, _ = fitting.with_sets(task, PredictedCases(before, cases[:400]), exact=False)
    made, decisions = fitting.with_sets(task, PredictedCases(decoded(task, outputs[:400]), cases[:400]), exact=True)
    limits = [one.certainty.conformal.thresholds["all"] for one in (first, made)]
    assert limits[0] == pytest.approx(limits[1])
    assert decisions["task.conformal"].value["n"] == {"all": 400}
    assert task_catalogue.build_task({"name": "survival", **task_settings.settings_of(made)}) == made
    predictions = decoded(made, outputs[400:])
    table = made.score(predictions, cases[400:]).assign(split="test")
    [row] = [row for row in made.summary(table, seed=0) if row.metric == "coverage"]
    assert row.estimate.value == pytest.approx(0.9, abs=0.05)
    assert (event[400:] >= table["time_low"]).mean() >= row.estimate.value
    lows = [one.confidence.low["time"] for one in predictions]
    assert np.corrcoef(np.log(lows), ratios[400:])[0, 1] < -0.99


@pytest.mark.whole
def test_a_bound_of_the_events_time_holds_and_is_sharper_where_many_leave_for_reasons_of_their_own():
    random = np.random.default_rng(11)
    ratios, count = random.normal(size=1600), 1600
    event, ends = random.exponential(2 * np.exp(-ratios)) + 1e-3, random.exponential(1.5, count) + 1e-3
    outcomes = list(zip(np.minimum(event, ends).tolist(), (event <= ends).tolist(), strict=True))
    cases, when = cases_of("event", outcomes), np.linspace(0.02, 4.0, 100)
    followed = {"time": when.tolist(), "share": np.exp(-when / 1.5).tolist()}
    lows, stated = {}, {}
    for kind in ("observed", "event"):
        raw = survival(bound=kind, censoring=followed, horizons=[0.5, 1.0, 2.0])
        task, _ = fitting.with_fitted_calibration(raw, PredictedCases(decoded(raw, ratios[:800, None]), cases[:800]))
        made, decisions = fitting.with_sets(
            task, PredictedCases(decoded(task, ratios[:800, None]), cases[:800]), exact=True
        )
        stated[kind] = decisions["task.conformal"]
        predictions = decoded(made, ratios[800:, None])
        lows[kind] = np.array([one.confidence.low["time"] for one in predictions])
    assert task_catalogue.build_task({"name": "survival", **task_settings.settings_of(made)}) == made
    table = made.score(predictions[:200], cases[800:1000]).assign(split="test")
    [row] = [row for row in made.summary(table, seed=0) if row.metric == "coverage"]
    assert row.estimate.low < (event[800:1000] >= table["time_low"]).mean() < row.estimate.high
    held = {kind: (event[800:] >= low).mean() for kind, low in lows.items()}
    assert held["event"] == pytest.approx(0.9, abs=0.03)
    assert held["observed"] > held["event"] + 0.03
    assert np.median(lows["event"]) > 1.3 * np.median(lows["observed"])
    # exp(-1 / 1.5) = .51 of the cases would be observed at 1, and of all that were, or would have been, that many told.
    assert lows["event"].max() <= 1.0
    assert stated["event"].value["n"]["all"] == pytest.approx(408, abs=50)
    assert "if nothing that ends an observation has to do with the patient" in stated["event"].because
    assert "if nothing that ends" not in stated["observed"].because


def test_an_unknown_bound_of_times_is_refused_by_its_name():
    with pytest.raises(PlanError, match=r"task\.bound.*observed, event"):
        survival(bound="sharp")


def test_with_too_few_patients_the_lower_bound_of_times_is_zero_and_without_any_blank():
    cases = cases_of("event", [(1.0, True)] * 8)
    (before,) = decoded(survival(), [[0.0]])
    assert survival().outputs(before)["time_low"] is None
    made, _ = assured(survival(), np.zeros((8, 1)), cases)
    assert made.outputs(decoded(made, [[0.0]])[0])["time_low"] == 0.0


def test_several_tasks_state_the_sets_of_each():
    both = task_catalogue.build_task(
        {
            "name": "classification+regression",
            **{f"classification.{key}": value for key, value in task_settings.settings_of(classes()).items()},
            **{f"regression.{key}": value for key, value in task_settings.settings_of(values()).items()},
        }
    )
    logits, truths = simulated(60)
    parts = [
        Prediction(GRID, parts={"classification": one, "regression": other})
        for one, other in zip(decoded(classes(), logits), decoded(values(), logits[:, :1]), strict=True)
    ]
    cases = [
        Case(f"c{n}", f"p{n}", {}, {"class": name, **({"value": {"size": 10.0 + n}} if n % 2 else {})})
        for n, name in enumerate(truths)
    ]
    made, decisions = fitting.with_sets(both, PredictedCases(parts, cases), exact=True)
    assert decisions["task.classification.conformal"].value["n"] == {"all": 60}
    assert decisions["task.regression.conformal"].value["n"] == {"size": 30}
    assert made.parts["regression"].certainty.conformal is not None
