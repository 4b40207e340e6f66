"""Changes of a model: inside a plan, outside of it, and looks at the locked set."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

import hilum
import packages
import trained
from hilum.cli.terminal import app
from hilum.errors import DatasetError, IntegrityError, PlanError, UsageError
from hilum.evaluation.significance import margins
from hilum.evaluation.significance.testing import DifferenceTest
from hilum.files.storage import hashing
from hilum.monitoring import change_plan, change_rules
from hilum.monitoring.change_plan import Acceptance
from hilum.monitoring.change_rules import ChangeRow
from hilum.runtime import record_files
from hilum.tasks import task_catalogue
from hilum.values import Estimate
from hilum.verbs import change
from hilum.verbs.change import ChangeCheck

CLASSES = ("$benign", "malignant")
PLAN = """
version = 1
approved = "{approved}"
[[modification]]
name = "retrain with site data"
may_change = ["weights", "task.calibration"]
[[acceptance]]
metric = "auroc"
label = "all"
rule = "non-inferior"
margin = 0.1
against = ["approved", "current"]
groups = ["sex"]
[[acceptance]]
metric = "auroc"
rule = "at_least"
value = 0.05
[evidence]
alpha = 0.05
evaluations = 2
[retrain]
bound = true
labels = 200
data = "site data"
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """{name: package}: approved, one with other weights, and one with another task."""
    root, model = tmp_path_factory.mktemp("models"), packages.classifying()
    with packages.no_export():
        made = {"approved": packages.packed(model, root / "approved")}
        with torch.no_grad():
            for weights in model.networks.run.module.parameters():
                weights.mul_(1.001)
        made["retrained"] = packages.packed(model, root / "retrained")
    made["outside"] = root / "outside"
    shutil.copytree(made["retrained"], made["outside"])
    record = json.loads((made["outside"] / "hilum/model.json").read_text())
    packages.changed(made["outside"], "hilum/model.json", task={**record["task"], "classes": ["a", "b"]})
    return made


@pytest.fixture
def locked(tmp_path):
    """A table of 110 pictures of as many women and men."""
    trained.pictures(tmp_path, 110, CLASSES)
    files = sorted(tmp_path.rglob("*.png"), key=lambda path: path.stem)
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name},p{n},{'FM'[n // 2 % 2]}" for n, path in enumerate(files)]
    (tmp_path / "locked.csv").write_text("\n".join(["image,label,patient,sex", *rows]))
    return tmp_path / "locked.csv"


def planned(models, folder: Path, text: str = PLAN) -> Path:
    path = folder / "change-plan.toml"
    path.write_text(text.replace("{approved}", record_files.file_digest(models["approved"] / "manifest.json")))
    return path


@pytest.mark.whole
def test_a_retrained_model_that_is_as_good_is_allowed_and_each_check_is_a_look(models, locked, tmp_path):
    plan = planned(models, tmp_path)
    given = {"plan": plan, "data": locked, "device": "cpu", "threads": 1}
    found = hilum.check_change(models["approved"], models["retrained"], **given, out=tmp_path / "out")
    assert found.is_allowed, found
    written = json.loads((tmp_path / "out" / "change.json").read_text())
    assert (written["verdict"], written["look"], written["alpha_of_look"]) == ("allowed", 1, 0.025)
    rules = [row["rule"] for row in written["rows"]]
    assert "change of weights" in rules
    assert "auroc of all, against approved and current, sex F: non-inferior" in rules
    assert (tmp_path / "out" / "new" / "cases.csv").is_file()
    assert "allowed" in (tmp_path / "out" / "report.html").read_text()


def test_a_plan_edited_after_a_look_another_set_and_a_look_too_many_are_refused(models, tmp_path):
    plan, place = change_plan.read_change_plan(planned(models, tmp_path)), tmp_path / "locked.csv"
    own = tmp_path.name
    assert change_plan.count_look(place, plan, own, {}) == 1
    edited = change_plan.read_change_plan(planned(models, tmp_path, PLAN.replace("margin = 0.1", "margin = 0.2")))
    with pytest.raises(IntegrityError, match="was edited after the locked set was looked at"):
        change_plan.count_look(place, edited, own, {})
    with pytest.raises(IntegrityError, match="was edited after the locked set was looked at"):
        change_plan.count_look(tmp_path / "copy" / "of-it.csv", edited, own, {})
    with pytest.raises(IntegrityError, match="is not the set that was looked at"):
        change_plan.count_look(place, plan, f"{own}-other", {})
    change_plan.note_check(plan.sha256, own, "sha256")  # which is no look
    assert change_plan.is_noted(plan.sha256, own, "sha256") and not change_plan.is_noted(plan.sha256, own, "another")
    assert change_plan.count_look(tmp_path / "copy.csv", plan, own, {}) == 2
    with pytest.raises(UsageError, match="has had 2 looks, all that the plan allows"):
        change_plan.count_look(place, plan, own, {})


def test_a_change_that_no_modification_names_is_outside_and_costs_no_look(models, locked, tmp_path):
    plan = planned(models, tmp_path)
    out = tmp_path / "out"
    words = ["change", "check", models["approved"], models["outside"], "--plan", plan, "--data", locked, "--out", out]
    with pytest.raises(Exception, match="the change is outside"):
        app(args=[str(word) for word in words], standalone_mode=False)
    written = json.loads((out / "change.json").read_text())
    assert [row["rule"] for row in written["rows"] if not row["holds"]] == ["change of task.classes"]
    answered = {one["number"]: one["answer"] for one in written["questions"]}
    assert (answered["use"], answered["1"], answered["3a"]) == ("yes", "no", "missing")
    assert not change_plan.ledger_of(locked).exists()


def test_patients_of_training_in_the_locked_set_are_refused_before_a_look(models, locked, tmp_path):
    plan, package = planned(models, tmp_path), tmp_path / "package"
    shutil.copytree(models["retrained"], package)
    record = json.loads((package / "hilum/model.json").read_text())["record"]
    seen = hashing.file_hash(next(locked.parent.rglob("07.png")))
    packages.changed(package, "hilum/model.json", record={**record, "trained": [seen]})
    with pytest.raises(DatasetError, match="holds 1 patient whose images trained"):
        hilum.check_change(models["approved"], package, plan=plan, data=locked)
    assert not change_plan.ledger_of(locked).exists()


def test_a_package_that_is_not_the_approved_one_is_refused(models, locked, tmp_path):
    with pytest.raises(UsageError, match="by --approved"):
        hilum.check_change(models["retrained"], models["approved"], plan=planned(models, tmp_path), data=locked)


@pytest.mark.parametrize("wrong", ["retrian = 1\n", "[retrain]\nlabel = 5\n", "[retrain]\nlabels = true\n", "a = = 1"])
def test_a_plan_that_cannot_be_read_is_a_usage_error_that_names_the_key(models, tmp_path, wrong):
    text = PLAN.partition("[retrain]")[0]
    text = f"{wrong}{text}" if "[" not in wrong else f"{text}{wrong}"
    named = {"r": "'retrian'", "[": "label", "a": "is not TOML"}[wrong[0]]
    with pytest.raises(PlanError, match=named):
        change_plan.read_change_plan(planned(models, tmp_path, text))


LABELS = [{"value": 1, "name": "front"}, {"value": 2, "name": "back"}]
SEGMENTATION = task_catalogue.build_task({"name": "segmentation", "labels": LABELS, "loss": "ce", "tolerance": 1.0})


@pytest.mark.parametrize(
    ("changes", "evaluated", "message"),
    [
        ({"label": "front"}, set(), ""),
        ({"label": "liver"}, set(), "dice of 'liver', of which the model states none. Use all, "),
        ({"label": "back"}, {("dice", "all"), ("dice", "front")}, ""),
        ({"label": "back"}, {("dice", "all")}, "dice of 'back'"),
        ({"metric": "hd95", "value": 85.0}, set(), ""),
        ({"metric": "hd95", "value": -1.0}, set(), "hd95 of -1, which it cannot have. hd95 lies between 0 and inf"),
        ({"value": 1.0}, set(), ""),
        ({"value": 1.5}, set(), "dice of 1.5, which it cannot have"),
        ({"rule": "non-inferior", "margin": 2.0, "against": ("current",)}, set(), "dice worse by 2, which no model"),
        ({"rule": "non-inferior", "margin": 0.02, "against": ("current",)}, set(), ""),
    ],
)
def test_a_rule_has_a_label_of_the_model_and_a_value_on_the_scale_of_its_metric(tmp_path, changes, evaluated, message):
    (tmp_path / "plan.toml").write_text("[[acceptance]]\n")
    rule = Acceptance(**{"metric": "dice", "rule": "at_least", "value": 0.8, **changes})
    with pytest.raises(PlanError, match=re.escape(message)) if message else nullcontext():
        change_rules.refuse_impossible([rule], str(tmp_path / "plan.toml"), evaluated, SEGMENTATION)


def test_alpha_is_spent_over_the_looks(models, tmp_path):
    # The whole interval lies within the margin of .02; p is .007.
    test = DifferenceTest(-0.01, -0.018, -0.002, 0.0, 0.01, "a test")
    rows = {}
    for looks in (1, 5):
        text = PLAN.replace("evaluations = 2", f"evaluations = {looks}").replace("margin = 0.1", "margin = 0.02")
        plan = change_plan.read_change_plan(planned(models, tmp_path, text))
        rows[looks] = change_rules.judge_rule(plan.acceptance[0], Estimate(0.9), test, plan, more=True, where="")
    assert (rows[1].holds, rows[5].holds) == (True, False), rows


def test_parts_are_named_to_the_key_and_reasons_of_decisions_do_not_count():
    old = {"task": {"name": "x", "calibration": None}, "decisions": {"training.steps": {"value": 5, "because": "a"}}}
    new = {"task": {"name": "x", "calibration": 1.0}, "decisions": {"training.steps": {"value": 5, "because": "b"}}}
    guarded = {**new, "guard": {"level": 1}, "arrays": {"guard": ["1"], "weights": ["2"]}, "record": {"a": 1}}
    assert change_rules.changed_parts(old, new) == ["task.calibration"]
    assert change_rules.changed_parts(new, guarded) == ["guard", "weights"]
    assert change_rules.changed_parts(new, {**new, "laplace": {"scale": 2.0}}) == ["weights.laplace"]


def test_what_changed_is_listed_by_kind_with_counts(models, tmp_path):
    plan = change_plan.read_change_plan(planned(models, tmp_path))
    parts = ["weights", "guard", *(f"decisions.training.{n}" for n in range(80)), "task.classes", "task.labels"]
    check = ChangeCheck("outside", list(change_rules.part_rows(parts, plan, "lung-1")), (), {})
    counts = "80 decisions.training, 2 task, 1 guard"
    assert check.because == f"83 parts changed that no modification names ({counts})"
    assert len(str(check).splitlines()) == 4 and "  task: 2 (task.classes, task.labels)" in str(check)
    page = change.change_check_page(check, [])
    [section] = [one for one in page.sections if one.title == "What changed"]
    assert [row[:2] for row in section.blocks[0].rows] == [
        ["weights", 1], ["decisions.training", 80], ["task", 2], ["guard", 1]
    ]  # fmt: skip


def test_where_too_few_patients_can_tell_it_is_said_how_many_could(models, tmp_path):
    plan = change_plan.read_change_plan(planned(models, tmp_path))
    rule, floor = plan.acceptance
    few = DifferenceTest(0.01, -0.02, 0.04, 0.0, 0.5, "a test", margins.too_few_for_margins(20))
    same = DifferenceTest(0.0, None, None, 0.0, 1.0, "no case tells them apart")
    found = [
        change_rules.judge_rule(rule, Estimate(0.9), few, plan, more=True, where="sex F"),
        change_rules.judge_rule(rule, Estimate(0.9, n=20, patients=20), same, plan, more=True, where=""),
        change_rules.judge_rule(
            floor, Estimate(0.9, 0.8, 1.0, method="w; unreliable: 6 patients"), None, plan, more=True, where=""
        ),
    ]
    assert not any(row.holds for row in found)
    assert "cannot be judged: its interval holds its level from 50 patients on, and these are 20" in found[0].found
    assert "cannot be judged by 20 patients, but by 42" in found[1].found  # (1 - .1) ** 42 < .025 / 2
    assert "cannot be judged: 6 patients, and 10 are needed" in found[2].found
    check = ChangeCheck("refused", [*found, ChangeRow("a", "b", "worse", False, "")], (), {})
    assert check.because.startswith("of 4 rules 3 cannot be judged, 1 broken: auroc of all")
    assert check.because.endswith("; 1 more")


def test_a_trigger_proposes_a_command_and_trains_nothing(models, tmp_path):
    alert = {"alert": 1, "at": "2026-06-01", "kind": "performance", "because": "audited sensitivity 0.700"}
    record = {"schema": "hilum.monitor", "version": 1, "alerts": [alert], "labels": 199}
    (tmp_path / "monitor.json").write_text(json.dumps(record))
    given = {"plan": planned(models, tmp_path), "monitored": tmp_path, "out": tmp_path / "out"}
    made = hilum.propose_change("lung.zip", **given)
    assert [name for name, _ in made.triggers] == ["bound"]
    assert made.command == "hilum train 'site data' --from lung.zip"
    assert json.loads((tmp_path / "out" / "proposal.json").read_text())["triggers"][0]["trigger"] == "bound"


def test_a_package_that_fails_its_manifest_is_refused(models, locked, tmp_path):
    shutil.copytree(models["retrained"], tmp_path / "package")
    weights = tmp_path / "package" / "hilum" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match="SHA-256 differs"):
        hilum.check_change(models["approved"], tmp_path / "package", plan=planned(models, tmp_path), data=locked)
