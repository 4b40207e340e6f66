from __future__ import annotations

import pytest

from hilum.planning.search_domains import Between, OneOf
from hilum.training.search_study import COMPLETE, FEWEST_TO_RANK, IMPOSSIBLE, PRUNED, SearchStudy

SPACE = {"rate": Between(1e-3, 1e-5, 1e-1), "patch": OneOf(([32, 32], [16, 16])), "family": OneOf(("unet", "resnet"))}


def value_of(choices):
    """The highest where the rate is 1e-2 and the patch is small."""
    away = abs(choices["rate"] - 1e-2) / 1e-2
    return -away - (choices["patch"] == [32, 32])


def tried(path, count):
    """So many trials, each in a session of its own."""
    for _ in range(count):
        with SearchStudy(path, SPACE, seed=3) as study:
            trial = study.next()
            study.finish(trial, COMPLETE, value_of(trial.choices))
    with SearchStudy(path, {}, seed=3) as study:
        return study.done


def test_the_first_trial_is_the_plan_as_it_stands(tmp_path):
    with SearchStudy(tmp_path / "study.db", SPACE, seed=0) as study:
        trial = study.next()
    assert (trial.number, trial.choices) == (0, {"rate": 1e-3, "patch": [32, 32], "family": "unet"})


@pytest.mark.whole
def test_a_study_that_is_found_again_goes_on_as_if_it_had_not_been_closed(tmp_path):
    apart = tried(tmp_path / "apart.db", 7)
    with SearchStudy(tmp_path / "once.db", SPACE, seed=3) as study:
        for _ in range(7):
            trial = study.next()
            study.finish(trial, COMPLETE, value_of(trial.choices))
        at_once = study.done
    assert [(one.choices, one.value) for one in apart] == [(one.choices, one.value) for one in at_once]


@pytest.mark.whole
def test_another_seed_tries_other_plans(tmp_path):
    found = []
    for seed in (0, 1):
        with SearchStudy(tmp_path / f"{seed}.db", SPACE, seed) as study:
            study.finish(study.next(), COMPLETE, 0.0)
            found.append(study.next().choices["rate"])
    assert found[0] != found[1]


def test_the_decision_that_alone_matters_is_the_most_important_and_few_trials_state_none(tmp_path):
    with SearchStudy(tmp_path / "study.db", SPACE, seed=0) as study:
        for number in range(14):
            assert number >= FEWEST_TO_RANK or study.importances == {}
            trial = study.next()
            study.finish(trial, COMPLETE, float(trial.choices["patch"] == [16, 16]))
        shares = study.importances
    assert next(iter(shares)) == "patch"
    assert shares["patch"] > 0.8
    assert set(shares) == set(SPACE)
    assert sum(shares.values()) == pytest.approx(1)


def test_the_trial_that_a_killed_session_left_is_given_again(tmp_path):
    with SearchStudy(tmp_path / "study.db", SPACE, seed=0) as study:
        study.finish(study.next(), COMPLETE, 0.0)
        left = study.next()
    with SearchStudy(tmp_path / "study.db", {}, seed=0) as study:
        again = study.next()
        assert (again.number, again.choices) == (left.number, left.choices)
        study.finish(again, COMPLETE, 1.0, {"steps": 7})
        assert [one.facts.get("steps") for one in study.done] == [None, 7]
        assert study.next().number == 2


def test_a_trial_below_the_median_of_those_before_it_is_hopeless_and_the_plan_never_is(tmp_path):
    with SearchStudy(tmp_path / "study.db", SPACE, seed=0) as study:
        for value in (0.1, 0.7, 0.8, 0.9):
            trial = study.next()
            assert not trial.is_hopeless(0.5, value) or trial.number > 0
            study.finish(trial, COMPLETE, value)
        bad, good = study.next(), None
        assert not bad.is_hopeless(0.2, 0.0)  # too early to say
        assert bad.is_hopeless(0.5, 0.3)
        study.finish(bad, PRUNED)
        good = study.next()
        assert not good.is_hopeless(0.5, 0.85)
        study.finish(good, IMPOSSIBLE, facts={"why": "it does not fit"})
        assert [one.state for one in study.done] == [*[COMPLETE] * 4, PRUNED, IMPOSSIBLE]


@pytest.mark.whole
def test_something_better_than_the_plan_is_found_where_there_is_much(tmp_path):
    done = tried(tmp_path / "study.db", 10)
    assert max(one.value for one in done) > done[0].value + 0.9  # the smaller patch, and no worse a rate


@pytest.mark.parametrize("name", ["a run? fold#1 größe"])
def test_a_study_lies_in_any_folder(tmp_path, name):
    with SearchStudy(tmp_path / name / "study.db", SPACE, seed=0) as study:
        study.next()
    assert (tmp_path / name / "study.db").is_file()
