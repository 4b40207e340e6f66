"""Sites that train under privacy budgets: what each spends, what of it leaves the site, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.numpy import load_file

import hilum
import trained
from accountants import epsilon_by_hand
from hilum.errors import HilumError, IntegrityError, PlanError
from hilum.federation import site_budgets
from hilum.federation.exchanges import SiteMessage
from hilum.federation.site import Site
from hilum.planning import plan_file
from hilum.planning.plan_sections import FederationSettings, PrivacySettings
from hilum.runs.plan_request import PlanRequest
from hilum.training.length.schedule import TrainingPace
from hilum.values import BY_HAND, Decision

CHOSEN = {
    **{"privacy.epsilon": 8.0, "training.steps": 4, "training.batch": 8, "federation.min_count": 6},
    **{"network.size": {**trained.SMALL_RESNET, "norm": "group"}},
}


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Path:
    """A job of a large and a small site with noise of the system; tests only read it."""
    root = tmp_path_factory.mktemp("private")
    sites = {"a": trained.pictures(root / "a", 30), "b": trained.pictures(root / "b", 8, first=60)}
    given = {"rounds": 2, "device": "cpu", "threads": 1, "membership": True}
    hilum.federate(sites, out=root / "JOB", assignments=CHOSEN, **given)
    return root / "JOB"


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "privacy.json").read_text(encoding="utf-8"))


def test_the_epsilon_of_each_site_is_that_of_an_accountant_over_all_its_rounds(job):
    for name in "ab":
        [row] = record(job.with_name("JOB.sites") / name)["rows"]
        assert (row["unit"], row["steps"], row["noise"]) == ("case", 4, "system")
        assert row["sampling_rate"] == pytest.approx(min(1, 8 / row["units"]))
        by_hand = epsilon_by_hand(row["noise_multiplier"], row["sampling_rate"], 4, row["delta"])
        assert 7.9 < row["epsilon"] <= 8.0
        assert row["epsilon"] == pytest.approx(by_hand, rel=0.01)


def test_the_job_states_every_site_and_nothing_that_tells_how_small_one_is(job):
    own = {name: record(job.with_name("JOB.sites") / name)["rows"][0] for name in "ab"}
    large, small = record(job)["rows"]
    assert large == {**own["a"], "site": "a"}
    assert own["b"]["units"] < 6
    assert {name for name, one in small.items() if one is None} == {"units", "sampling_rate", "noise_multiplier"}
    assert (small["site"], small["epsilon"], small["steps"]) == ("b", 8.0, 4)
    assert small["delta"] == pytest.approx(0.1 / 6)
    assert {"plan.yaml", "temperature", "shares of the sites"} <= {one["what"] for one in record(job)["outside"]}


def test_no_loss_leaves_a_site_under_a_budget_and_the_report_says_what_is_bounded(job):
    assert pd.read_csv(job / "federation" / "rounds.csv")["loss"].isna().all()
    assert "of each case they tell at most epsilon 8, but for a chance of 0.0167" in (job / "report.html").read_text()


def test_a_site_attacks_the_model_with_its_own_patients_and_a_small_one_says_why_not(job):
    table = pd.read_csv(job / "federation" / "sites.csv").set_index(["metric", "site"])
    for metric in ("membership_auc", "membership_tpr"):
        assert 0 <= table.loc[(metric, "a"), "low"] <= table.loc[(metric, "a"), "value"] <= 1
        assert table.loc[(metric, "a"), "n"] == 26
        assert table.loc[(metric, "b"), ["value", "low", "high", "n"]].isna().all()
    assert "Not attacked: b (fewer than 6 training or test patients)." in (job / "report.html").read_text()
    rows = json.loads((job / "evaluation" / "summary.json").read_text())["rows"]
    assert {"membership_auc", "membership_tpr"} < {row["metric"] for row in rows}


def weights(folder: Path) -> Mapping[str, bytes]:
    tensors = load_file(folder / "checkpoints" / "last" / "module.safetensors")
    return {name: one.tobytes() for name, one in tensors.items()}


def reopened(folder: Path, name: str = "a", **changes: Decision) -> Site:
    """A site that goes on in its folder, where the plan has these changes."""
    path = folder / "plan.yaml"
    plan = plan_file.read_plan(path).with_decisions({name.replace("__", "."): one for name, one in changes.items()})
    path.write_text(plan_file.plan_text(plan), encoding="utf-8")
    site = Site(name, None, folder, PlanRequest(), 0.0)
    site.answer(SiteMessage("resume"))
    return site


def test_a_round_that_was_killed_or_asked_for_again_is_the_same_and_spends_nothing_twice(job):
    root = job.parent / "again"  # as far from its data as it was
    shutil.copytree(job.with_name("JOB.sites") / "a", root / "whole")
    shutil.rmtree(root / "whole" / "checkpoints")
    site = reopened(root / "whole", training__deterministic=Decision(True, BY_HAND))
    common = site.answer(SiteMessage("start", {"decisions": {}})).arrays

    def ask(site: Site, number: int) -> SiteMessage:
        facts = {"round": number, "begins": 2 * number - 2, "until": 2 * number, "averages": False}
        return site.answer(SiteMessage("round", {**facts, "pace": dataclasses.asdict(TrainingPace(4))}, common))

    ask(site, 1)
    shutil.copytree(root / "whole", root / "killed")
    told = ask(site, 2).facts["privacy"]

    def kill(moment):
        raise KeyboardInterrupt

    with trained.watching(kill), pytest.raises(KeyboardInterrupt):
        ask(reopened(root / "killed"), 2)
    for _ in range(2):  # the second time as by a server that lost the answer
        assert ask(reopened(root / "killed"), 2).facts["privacy"] == told
        assert weights(root / "killed") == weights(root / "whole")
    assert [(row["steps"], row["noise"], row["epsilon"]) for row in told] == [(4, "seed", None)]

    shutil.rmtree(root / "killed" / "checkpoints")
    with pytest.raises(IntegrityError, match=r"site a: .*killed.*lost what it has spent"):
        ask(reopened(root / "killed"), 2)


def test_a_budget_that_a_site_cannot_keep_to_is_refused_by_its_name(job, tmp_path):
    data = trained.pictures(tmp_path / "data", 12)
    site = Site("b", data, tmp_path / "b", PlanRequest(), 0.0)
    site.answer(SiteMessage("introduce"))
    site.answer(SiteMessage("stand-ins", {"min_count": 6, "kinds": ["class"]}))
    plan = plan_file.read_plan(job / "plan.yaml")
    wide = plan.with_decision("privacy.delta", Decision(0.5, BY_HAND))
    with pytest.raises(PlanError, match=r"site b: privacy.delta: 0.5 is above one in"):
        site.answer(SiteMessage("plan", {"plan": plan_file.plan_text(wide)}))
    tight = {"privacy.epsilon": Decision(0.01, BY_HAND), "privacy.delta": Decision(1e-12, BY_HAND)}
    small = plan.with_decisions(tight)
    site.answer(SiteMessage("plan", {"plan": plan_file.plan_text(small)}))
    with pytest.raises(HilumError, match=r"site b: privacy.epsilon: .*no noise keeps 4 more steps to it, of"):
        site.answer(SiteMessage("start", {"decisions": {}}))
    with pytest.raises(PlanError, match=r"privacy\.epsilon"):
        hilum.federate({"a": data}, out=tmp_path / "JOB", assignments={"privacy.epsilon": 0})


def test_what_a_site_has_spent_stays_where_it_is_gone_and_must_be_said(tmp_path):
    row = {
        **{"site": "elsewhere", "unit": "patient", "units": 40, "clip": 1.0, "noise_multiplier": 0.7, "steps": 2},
        **{"sampling_rate": 0.2, "delta": 1e-3, "epsilon": 3.0, "accountant": "rdp", "noise": "system"},
    }
    chosen = type("Settings", (), {"privacy": PrivacySettings(8.0), "federation": FederationSettings()})
    for site in "ab":
        site_budgets.note_rows(tmp_path, {site: site_budgets.read_rows({"privacy": [row]}, site, chosen, tmp_path)})
    later = {**row, "steps": 4, "epsilon": 5.0}
    site_budgets.note_rows(tmp_path, {"b": site_budgets.read_rows({"privacy": [later]}, "b", chosen, tmp_path)})
    assert [(one["site"], one["steps"]) for one in record(tmp_path)["rows"]] == [("a", 2), ("b", 4)]
    for facts in ({}, {"privacy": []}, {"privacy": [{"site": "b"}]}, {"privacy": [row]}):
        with pytest.raises(IntegrityError, match="site b: does not say what of its privacy budget"):
            site_budgets.read_rows(facts, "b", chosen, tmp_path)
    seeded = {**later, "epsilon": None, "noise": "seed"}
    site_budgets.note_rows(tmp_path, {"b": [seeded | {"site": "b"}]})
    assert "nothing is claimed" in site_budgets.budget_sentences(tmp_path)[0]
