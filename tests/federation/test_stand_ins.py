"""What stands for a site's cases in planning, and the plan that is made of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fingerprints import LAPTOP, SAMPLED, cohort, facts
from hilum.errors import DatasetError, IntegrityError, PlanError
from hilum.federation import agreement, federated_job, stand_ins
from hilum.planning import planner
from hilum.planning.plan_inputs import Wishes
from hilum.quality.dataset_examination import Examination
from hilum.runs.plan_request import PlanRequest
from hilum.values import Decision, Fingerprint

RNG = np.random.default_rng(1)


def cases(count, classes=("mask",), first=0):
    """Like cases of unlike size, contrast and foreground."""
    made = []
    for n in range(first, first + count):
        shape = tuple(RNG.integers(30, 60, size=3).tolist())
        steps = tuple(np.round(RNG.uniform(0.8, 1.5, size=3), 3).tolist())
        name = classes[n % len(classes)]
        reference = {"mask": {0: 900 + n, 1: 60 + n, 2: 20}} if name == "mask" else {"class": name}
        made.append(facts(shape, steps, name=f"c{n}", intensity={"median": 40.0 + n}, references=reference))
    return made


def group(cases, least):
    return stand_ins.stand_ins_of(cases, {}, {"mask", "class"}, least)


def test_groups_have_at_least_so_many_cases_and_never_cross_classes():
    found = group(cases(53, ("benign", "malign")), 10)
    assert all(10 <= one.size < 20 for one in found)
    assert sum(one.size for one in found) == 53
    assert {one.facts.references["class"] for one in found} == {"benign", "malign"}
    assert group(cases(9), 10) == []
    assert sum(one.size for one in group(cases(25, ("benign",) * 9 + ("rare",)), 10)) == 23


def test_the_facts_of_a_group_are_medians():
    alike = [replace(facts(name=f"c{n}"), shape=(10 + n, 20, 20), references={"mask": {1: n}}) for n in range(11)]
    [one] = group(alike, 11)
    assert (one.facts.shape, one.facts.references) == ((15, 20, 20), {"mask": {1: 5}})


def test_what_travels_names_no_case_and_comes_back_as_it_was():
    [one] = group(cases(12), 12)
    assert "c0" not in str(one.record)
    [back] = stand_ins.read_stand_ins([one.record], "a")
    assert replace(back.facts, id="") == one.facts
    with pytest.raises(IntegrityError, match="no facts of cases"):
        stand_ins.read_stand_ins([{"facts": {"shape": "large"}, "size": 10, "known": None}], "a")


@pytest.mark.parametrize(("classes", "labels"), [(("mask",), ("shell", "core")), (("benign", "malign"), ())])
def test_with_groups_of_one_case_the_plan_is_that_of_all_cases_together(classes, labels):
    every = cases(40, classes)
    sites = {"a": every[:25], "b": every[25:]}
    task = "segmentation" if labels else "classification"
    introduced = {
        site: agreement.introduce(Examination(cohort(own, labels), Fingerprint(tuple(own)), ()), task)
        for site, own in sites.items()
    }
    sent = {site: group(own, 1) for site, own in sites.items()}
    sent = {site: stand_ins.read_stand_ins([one.record for one in own], site) for site, own in sent.items()}
    examined = stand_ins.examination_of(sent, agreement.agree(introduced))
    wishes = Wishes(Decision("cpu", "asked for"), 10.0)
    pooled = planner.make_plan(cohort(every, labels, name="sites"), Fingerprint(tuple(every)), SAMPLED, LAPTOP, wishes)
    apart = planner.make_plan(examined.dataset, examined.fingerprint, SAMPLED, LAPTOP, wishes)
    assert {name: one.value for name, one in apart} == {name: one.value for name, one in pooled}


def test_sites_without_enough_like_cases_are_nothing_to_plan_by():
    introduced = agreement.introduce(
        Examination(cohort(few := cases(4), ("a", "b")), Fingerprint(tuple(few)), ()), "segmentation"
    )
    settings = federated_job.federation_settings({}, 5)
    with pytest.raises(DatasetError, match="no site has 10 like training cases"):
        federated_job.plan_for_sites(
            stand_ins.examination_of({"a": []}, introduced), introduced, PlanRequest(), settings
        )


@pytest.mark.parametrize("name", ["split.folds", "guard.gate", "federation.method_", "federation.min_count"])
def test_what_needs_cases_of_several_sites_or_cannot_be_is_refused(name):
    with pytest.raises(PlanError, match=name.partition(".")[2]):
        federated_job.federation_settings({name: 0}, 5)
