"""The acceptance of a model at a site: agreed, locked, looked at once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import hilum
import packages
import trained
from hilum.cli.terminal import app
from hilum.errors import DatasetError, IntegrityError, PlanError, UsageError
from hilum.files.storage import hashing
from hilum.monitoring import acceptance_plan
from hilum.monitoring.acceptance_plan import ACCEPTED, CONDITIONAL, NOT_ACCEPTED, AcceptanceRow
from hilum.runtime import record_files

PLAN = """
version = 1
model = "{model}"
agreed = [{ name = "A. Physicist", on = "2026-11-20" }, { name = "B. Radiologist", on = 2026-11-21 }]
[[acceptance]]
metric = "auroc"
rule = "at_least"
value = 0.02
groups = ["station"]
[cases]
all = 40
station = 10
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A package with weights that have learnt nothing."""
    with packages.no_export():
        return packages.packed(packages.classifying(), tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def site(tmp_path) -> Path:
    """A table of 44 pictures from two stations."""
    trained.pictures(tmp_path, 44, ("$benign", "malignant"))
    files = sorted(tmp_path.rglob("*.png"), key=lambda path: path.stem)
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name},p{n},CT{n // 2 % 2}" for n, path in enumerate(files)]
    (tmp_path / "site.csv").write_text("\n".join(["image,label,patient,station", *rows]))
    return tmp_path / "site.csv"


def agreed(folder: Path, package: Path, text: str = PLAN) -> Path:
    path = folder / "acceptance.toml"
    path.write_text(text.replace("{model}", record_files.file_digest(package / "manifest.json")))
    return path


def words(package: Path, site: Path, plan: Path, *more: str) -> list[str]:
    return ["accept", str(package), str(site), "--plan", str(plan), "--device", "cpu", "--threads", "1", *more]


def test_a_locked_plan_is_looked_at_once_and_leaves_a_sealed_record(package, site, tmp_path):
    plan, out = agreed(tmp_path, package), tmp_path / "out"
    with pytest.raises(UsageError, match="is not locked"):
        app(args=words(package, site, plan, "--out", str(out)), standalone_mode=False)
    app(args=words(package, site, plan, "--lock"), standalone_mode=False)
    with pytest.raises(UsageError, match="is locked already"):
        app(args=words(package, site, plan, "--lock"), standalone_mode=False)
    app(args=words(package, site, plan, "--out", str(out)), standalone_mode=False)

    manifest = record_files.file_digest(package / "manifest.json")
    record = acceptance_plan.read_acceptance(out, manifest)
    assert (record["verdict"], record["conditions"]) == (ACCEPTED, {})
    assert [one["name"] for one in record["agreed"]] == ["A. Physicist", "B. Radiologist"]
    judged = [(row["metric"], row["attribute"], row["group"]) for row in record["rows"] if row["holds"]]
    assert judged == [
        ("cases_scored", "", ""),
        ("auroc", "", ""),
        ("auroc", "station", "CT0"),
        ("auroc", "station", "CT1"),
    ]
    assert {"not_answered", "ece", "brier"} <= {row["metric"] for row in record["rows"]}
    assert "accepted" in (out / "report.html").read_text()
    with pytest.raises(UsageError, match="has had 1 look"):
        hilum.accept(package, site, plan=plan, device="cpu", threads=1)

    [document] = hilum.document(out, names="acceptance").documents
    stated = {one.item.number: [answer.value for answer in one.answers] for one in document.answered}
    assert stated["3"][0]["name"] == "A. Physicist"
    assert stated["6"][0] == ACCEPTED
    assert [row["metric"] for row in stated["7"]] == [row["metric"] for row in record["rows"]]

    with pytest.raises(UsageError, match="is of another package"):
        acceptance_plan.read_acceptance(out, "0" * 64)
    changed = json.loads((out / "acceptance.json").read_text())
    (out / "acceptance.json").write_text(json.dumps({**changed, "conditions": {}, "verdict": "accepted "}))
    with pytest.raises(IntegrityError):
        acceptance_plan.read_acceptance(out, manifest)
    with pytest.raises(IntegrityError):
        hilum.document(out, names="acceptance")


def test_a_plan_or_a_set_that_changed_after_its_lock_is_refused_before_a_look(package, site, tmp_path):
    plan = agreed(tmp_path, package)
    assert not hilum.accept(package, site, plan=plan, lock=True).verdict
    agreed(tmp_path, package, PLAN.replace("0.02", "0.01"))
    with pytest.raises(IntegrityError, match="was changed after it was locked"):
        hilum.accept(package, site, plan=plan)
    agreed(tmp_path, package)
    site.write_text("\n".join(site.read_text().splitlines()[:-1]))
    with pytest.raises(IntegrityError, match="is not the set that was locked"):
        hilum.accept(package, site, plan=plan)


def test_cases_that_trained_the_model_are_refused(package, site, tmp_path):
    other = tmp_path / "package"
    shutil.copytree(package, other)
    record = json.loads((other / "hilum/model.json").read_text())["record"]
    seen = hashing.file_hash(next(site.parent.rglob("07.png")))
    packages.changed(other, "hilum/model.json", record={**record, "trained": [seen]})
    with pytest.raises(DatasetError, match="holds 1 patient whose images trained"):
        hilum.accept(other, site, plan=agreed(tmp_path, other), lock=True)


def test_another_package_and_fewer_cases_than_were_agreed_are_refused(package, site, tmp_path):
    with pytest.raises(UsageError, match="is not the package that was agreed on"):
        hilum.accept(package, site, plan=agreed(tmp_path, package, PLAN.replace("{model}", "0" * 64)), lock=True)
    with pytest.raises(UsageError, match="station CT0 22 cases, station CT1 22 cases; 30 were agreed"):
        hilum.accept(package, site, plan=agreed(tmp_path, package, PLAN.replace("= 10", "= 30")), lock=True)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('rule = "at_least"', 'rule = "superior"\nagainst = ["approved"]', "compares with another model"),
        ('{ name = "A. Physicist", on = "2026-11-20" }', '{ name = "A. Physicist" }', "is no day"),
        ("on = 2026-11-21", "on = 2999-01-01", "agreed on 2999-01-01, a day to come"),
        ("all = 40", "all = 0", "numbers of cases"),
        ("version = 1", "version = 2", "version 2"),
    ],
)
def test_a_plan_that_could_not_be_executed_is_refused(package, tmp_path, before, after, message):
    with pytest.raises(PlanError, match=message):
        acceptance_plan.read_acceptance_plan(agreed(tmp_path, package, PLAN.replace(before, after)))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            'metric = "auroc"',
            'metric = "auroc"\nlabel = "liver"',
            r"line 7: auroc of 'liver', of which the model states",
        ),
        ('metric = "auroc"', 'metric = "dice"', "line 6: acceptance by 'dice', which the evaluation lacks"),
        ("value = 0.02", "value = 85", "line 8: auroc of 85, which it cannot have. auroc lies between 0 and 1"),
        ("value = 0.02", "value = -1", "auroc of -1, which it cannot have"),
    ],
)
def test_a_rule_that_nothing_could_decide_is_refused_before_the_plan_is_locked(
    package, site, tmp_path, before, after, message
):
    plan = agreed(tmp_path, package, PLAN.replace(before, after))
    with pytest.raises(PlanError, match=message):
        hilum.accept(package, site, plan=plan, lock=True)
    assert not acceptance_plan.lock_of(plan).exists()


def test_a_rule_that_holds_in_some_groups_accepts_the_model_for_these():
    row = AcceptanceRow("auroc", "all", 0.9, 0.8, 1.0, 50, 50, holds=True)
    groups = [replace(row, attribute="station", group=name, holds=name != "CT2") for name in ("CT1", "CT2", "CT3")]
    assert acceptance_plan.verdict_of_rows([row, *groups]) == (CONDITIONAL, {"station": ["CT1", "CT3"]})
    assert acceptance_plan.verdict_of_rows([row, *groups[:1]]) == (ACCEPTED, {})
    assert acceptance_plan.verdict_of_rows([row, groups[1]]) == (NOT_ACCEPTED, {})
    assert acceptance_plan.verdict_of_rows([replace(row, holds=False), *groups]) == (NOT_ACCEPTED, {})
    record = {"conditions": {"station": ["CT1", "CT3"], "age:40": ["40 or more"]}}
    assert acceptance_plan.group_not_accepted({}, {}) == ""
    assert acceptance_plan.group_not_accepted(record, {"station": "CT2", "age": 50}) == "station CT2"
    assert acceptance_plan.group_not_accepted(record, {"age": 50}) == "station unknown"
    of_women = {"conditions": {"sex": ["female"]}}
    assert acceptance_plan.group_not_accepted(of_women, {"sex": " F"}) == ""
    assert acceptance_plan.group_not_accepted(of_women, {"sex": "M"}) == "sex M"


def test_settings_without_the_package_and_cases_that_no_scanner_sends_are_refused_before_the_look(
    package, site, tmp_path
):
    plan = agreed(tmp_path, package)
    hilum.accept(package, site, plan=plan, lock=True)
    (tmp_path / "node.toml").write_text(f'[models.other]\npath = "{tmp_path}"\n')
    with pytest.raises(UsageError, match="names no model that is this package"):
        hilum.accept(package, site, plan=plan, config=tmp_path / "node.toml")
    (tmp_path / "node.toml").write_text(f'[models.mine]\npath = "{package}"\n')
    with pytest.raises(UsageError, match="a case is no DICOM, which scanners send"):
        hilum.accept(package, site, plan=plan, config=tmp_path / "node.toml")
    assert not list(tmp_path.glob("*look*"))
