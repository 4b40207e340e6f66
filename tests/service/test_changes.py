"""Packages that change at a running node: in shadow, for a share of the patients, in place of the old one; and back."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from argon2 import PasswordHasher
from sqlalchemy import insert, select, update

import hilum
import packages
from hilum.errors import IntegrityError, PlanError, UsageError
from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.files.storage import hashing
from hilum.monitoring import change_plan
from hilum.runtime import record_files
from hilum.service import deploying, node_folder
from hilum.service.configuration import BoundSection
from hilum.service.model_facts import ModelFacts
from hilum.service.monitoring import change_comparison
from hilum.service.node_folder import MODELS
from hilum.service.records import accounts as of_accounts
from hilum.service.records import deployments, tables
from hilum.service.records.actor import NODE, Actor
from hilum.service.records.deployments import ChangeError, DeployedPackage
from hilum.values import Geometry, Image
from service.databases import with_tables
from service.people import PASSWORD, logged_in, with_people
from service.small_node import SmallNode

PLAN = """\
version = 1
approved = "{approved}"

[[modification]]
name = "retrained"
may_change = ["weights"]
because = "further patients"

[[acceptance]]
metric = "dice"
rule = "at_least"
value = 0.1

[evidence]
alpha = 0.05
evaluations = 2
"""
RULES = ("change of weights", "dice of all: at_least 0.1")
ROW = {"wanted": "", "found": "", "holds": True, "evidence": ""}
READER, CHIEF = Actor("reader", "radiologist"), Actor("chief", "administrator")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """{name: package} of two models that segment, of which the new one has other weights."""
    root, model = tmp_path_factory.mktemp("packages"), packages.segmenting()
    with packages.no_export():
        found = {"m": packages.packed(model, root / "m")}
        with torch.no_grad():
            for weights in model.networks.run.module.parameters():
                weights.mul_(-1.5)
        found["new"] = packages.packed(model, root / "new")
    return found


@pytest.fixture
def node(tmp_path, made):
    """A node of the old package, with a radiologist and an administrator."""
    small = SmallNode(tmp_path / "node", made["m"])
    node_folder.settings_file(small.settings.folder, "keeper").write_text(small.settings.model_dump_json())
    facts = {"schema": "hilum.models", "version": 1, "rows": [asdict(one) for one in small.models.values()]}
    (small.settings.folder / MODELS).write_text(json.dumps(facts))
    with patch.object(of_accounts, "HASHER", PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)):
        people = of_accounts.Accounts(small.database)
        people.first(PASSWORD)
        people.make("reader", "radiologist", PASSWORD)
        yield small
    small.store.close()
    small.database.close()


@pytest.fixture
def allowed(tmp_path, made):
    """A check that allows just this change, as `change check` writes it."""
    shas = {
        name: {"sha256": record_files.file_digest(made[one] / "manifest.json")}
        for name, one in (("current", "m"), ("new", "new"))
    }
    plan = tmp_path / "check" / "change-plan.toml"
    plan.parent.mkdir()
    plan.write_text(PLAN.replace("{approved}", shas["current"]["sha256"]))
    rows = [{**ROW, "rule": rule} for rule in RULES]
    facts = {"plan": {"sha256": record_files.file_digest(plan)}, "data": {"hash": tmp_path.name}, "rows": rows, **shas}
    path = plan.with_name("change.json")
    path.write_text(json.dumps({"schema": "hilum.change", "version": 1, "verdict": "allowed", **facts}))
    change_plan.note_check(record_files.file_digest(plan), tmp_path.name, hashing.file_hash(path))
    return path


def examined(node: SmallNode, folder, name: str) -> str:
    """Have a study of a patient of this name answered; the hash of the model that did."""
    ball = np.random.default_rng(len(name)).integers(0, 200, (1, 12, 10, 6), dtype=np.int16)
    series_writing.write_series(
        Image(ball, Geometry((12, 10, 6), np.eye(4)), modality="MR"), SeriesNames(name, name, name), folder
    )
    node.receive(*sorted(folder.iterdir()))
    node.work()
    row = node.rows(tables.JOBS)[-1]
    assert row.outcome == "answered", row.reason
    return row.model_hash


@pytest.mark.whole
def test_a_promoted_package_answers_without_a_restart_once_two_persons_approved_and_a_rollback_takes_it_back(
    node, made, allowed, tmp_path
):
    old = examined(node, tmp_path / "a", "first")
    assert old == node.models["m"].hash
    asked = hilum.promote_change(node.settings.folder, made["new"], check=allowed)
    [_, waiting] = asked.table.to_dict("records")
    assert (waiting["mode"], waiting["state"], waiting["package"]) == (
        "live",
        "waiting",
        record_files.file_digest(made["new"] / "manifest.json"),
    )
    with node.database.write() as connection:
        assert deployments.approve_change(connection, 2, CHIEF) is False
        with pytest.raises(ChangeError, match="by this person already"):
            deployments.approve_change(connection, 2, CHIEF)
        with pytest.raises(ChangeError, match="persons with accounts alone"):
            deployments.approve_change(connection, 2, Actor("token pacs", "service"))
        assert deployments.approve_change(connection, 2, READER) is True
    new = examined(node, tmp_path / "b", "second one")
    assert new != old
    began = time.monotonic()
    back = hilum.roll_back_change(
        node.settings.folder, because="it misses lesions", account="reader", password=PASSWORD
    )
    assert time.monotonic() - began < 10 and "answers again" in back.done
    assert examined(node, tmp_path / "c", "third of all") == old
    events = [(row.action, row.actor) for row in node.rows(tables.AUDIT) if row.action.startswith("change")]
    assert [name for name, _ in events] == [
        *("change asked for", "change approved", "change approved", "change ended", "change begun"),
        *("change ended", "change begun"),
    ]
    assert [actor for _, actor in events][-1] == "reader"


def test_a_package_in_shadow_answers_what_is_done_and_only_the_differences_are_kept(node, made, tmp_path):
    node.worker.warm()
    hilum.shadow_change(node.settings.folder, made["new"])
    old = examined(node, tmp_path / "a", "first")
    before = {path: path.stat().st_mtime_ns for path in (node.settings.folder / "results").rglob("*")}
    assert node.worker._shadow_next(threading.Event()) is True
    assert node.worker._shadow_next(threading.Event()) is False
    results = node.settings.folder / "results"
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*")} == before
    assert [row.model_hash for row in node.rows(tables.JOBS)] == [old]
    found = hilum.change_status(node.settings.folder)
    metrics = {row["metric"]: row for row in found.figures.to_dict("records")}
    assert metrics["outcome"]["value"] == 0 and metrics["outcome"]["cases"] == 1
    assert any(name.startswith("dice_") and row["value"] < 1 for name, row in metrics.items())
    assert "shadow, in force" in str(found)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"verdict": "refused"}, "verdict is refused"),
        ({"new": {"sha256": "0"}}, "a check of another package: the new"),
        ({"rows": [{**ROW, "rule": RULES[0], "holds": False}]}, "allowed, and that it is not: change of weights"),
        ({"rows": []}, "has no row for dice of all: at_least"),
        ({"rows": [{}]}, "is damaged"),
        ({"because": "a word"}, "is not what a check of this machine has written"),
    ],
)
def test_a_check_of_another_change_or_verdict_promotes_nothing(node, made, allowed, changed, words):
    allowed.write_text(json.dumps({**json.loads(allowed.read_text()), **changed}))
    with pytest.raises((UsageError, IntegrityError), match=words):
        hilum.promote_change(node.settings.folder, made["new"], check=allowed)
    assert node.rows(tables.DEPLOYMENTS) == []


def test_a_check_by_another_plan_or_of_parts_that_its_plan_does_not_name_promotes_nothing(node, made, allowed):
    plan = allowed.with_name("change-plan.toml")
    text = plan.read_text()
    for other, words in (("value = 0.5", "written, by this plan"), ('may_change = ["task"]', "no modification names")):
        plan.write_text(text.replace("value = 0.1" if "value" in other else 'may_change = ["weights"]', other))
        with pytest.raises((UsageError, IntegrityError), match=words):
            hilum.promote_change(node.settings.folder, made["new"], check=allowed)
    plan.unlink()
    with pytest.raises(PlanError, match="cannot be read"):
        hilum.promote_change(node.settings.folder, made["new"], check=allowed.parent)


def test_what_is_no_package_or_no_model_of_the_node_is_refused(node, made, tmp_path):
    with pytest.raises(UsageError, match="is no package"):
        hilum.shadow_change(node.settings.folder, tmp_path)
    with pytest.raises(UsageError, match="there is no model 'other'"):
        hilum.shadow_change(node.settings.folder, made["new"], model="other")


@pytest.mark.parametrize(("share", "until"), [(0, "2100-01-01"), (1, "2100-01-01"), (0.2, "2020-01-01"), (0.2, "soon")])
def test_a_split_without_a_share_or_a_day_to_come_is_refused(tmp_path, share, until):
    with pytest.raises(UsageError, match=r"is not (more|less) than|is over|is no day"):
        hilum.split_change(tmp_path, tmp_path, check=tmp_path, share=share, until=until)


def test_a_rollback_to_a_package_that_fails_its_manifest_is_refused_and_all_stays(node, made, allowed):
    hilum.promote_change(node.settings.folder, made["new"], check=allowed)
    with node.database.write() as connection:
        deployments.approve_change(connection, 2, CHIEF)
        deployments.approve_change(connection, 2, READER)
    place = node.settings.folder / "packages" / record_files.file_digest(made["m"] / "manifest.json")
    (place / "hilum" / "model.json").write_text("{}")
    before = node.rows(tables.DEPLOYMENTS)
    with pytest.raises(IntegrityError, match="not the file that was written"), node.database.write() as connection:
        deployments.roll_back(connection, "m", NODE, "an alert")
    assert node.rows(tables.DEPLOYMENTS) == before
    with pytest.raises(UsageError, match="account or password is wrong"):
        hilum.roll_back_change(node.settings.folder, because="so", account="reader", password="wrong" * 4)


def package(name: str, digest: str, folder) -> DeployedPackage:
    """A package without files: what needs none is tested with it."""
    return DeployedPackage("m", folder / name, f"{name}-manifest", ModelFacts("m", digest, "MR"))


@pytest.fixture
def records(tmp_path):
    """An empty database."""
    made = with_tables(f"sqlite:///{tmp_path / 'node.sqlite'}")
    yield made
    made.close()


@pytest.fixture
def split(records, tmp_path):
    """A split of two in ten that goes on; its number."""
    old, new = package("old", "h1", tmp_path), package("new", "h2", tmp_path)
    with records.write() as connection:
        n = deployments.ask_for_change(connection, new, "arm", package_asked=old, because="split", share=0.2, until=4e9)
        connection.execute(update(tables.DEPLOYMENTS).where(tables.DEPLOYMENTS.c.n == n).values(began=1.0))
    return n


def study(records, key: str, patient: str):
    with records.write() as connection:
        made = {"study": key, "uid": key, "state": "complete", "received_at": 1, "last_at": 1, "patient": patient}
        connection.execute(insert(tables.STUDIES).values(made))
        return connection.execute(select(tables.STUDIES).where(tables.STUDIES.c.study == key)).one()


def test_a_patient_always_has_one_arm_and_the_share_is_that_which_was_asked_for(records, split):
    facts = {"m": ModelFacts("m", "h1", "MR")}
    with records.read() as connection:
        arm = connection.execute(select(tables.DEPLOYMENTS).where(tables.DEPLOYMENTS.c.n == split)).one()
    chosen = [deployments.is_of_arm(f"p{n}", arm) for n in range(2000)]
    assert 330 < sum(chosen) < 470
    inside, outside = f"p{chosen.index(True)}", f"p{chosen.index(False)}"
    for number, (patient, wanted) in enumerate([(inside, "h2"), (inside, "h2"), (outside, "h1")]):
        row = study(records, f"s{number}", patient)
        with records.read() as connection:
            assert deployments.models_of(connection, facts, row)["m"].hash == wanted
            assert deployments.models_of(connection, facts)["m"].hash == "h1"
    with records.write() as connection:
        connection.execute(update(tables.DEPLOYMENTS).where(tables.DEPLOYMENTS.c.n == split).values(until=2.0))
        assert deployments.models_of(connection, facts, study_of(connection, "s0"))["m"].hash == "h1"
        assert deployments.end_at_date(connection) == [split]


def study_of(connection, key: str):
    return connection.execute(select(tables.STUDIES).where(tables.STUDIES.c.study == key)).one()


def test_a_study_keeps_the_package_that_answered_it_unless_that_was_taken_back(records, split, tmp_path):
    row, facts = study(records, "s", "somebody"), {"m": ModelFacts("m", "h1", "MR")}
    answered(records, "j", "s", "h2")
    with records.write() as connection:
        connection.execute(update(tables.DEPLOYMENTS).where(tables.DEPLOYMENTS.c.n == split).values(share=0.0))
        assert deployments.models_of(connection, facts, row)["m"].hash == "h2"
        connection.execute(update(tables.JOBS).values(state="waiting"))
        assert "has ended" in deployments.end_change(connection, split, CHIEF, "it harms")
        assert deployments.models_of(connection, facts, row)["m"].hash == "h1"
        assert connection.execute(select(tables.JOBS.c.state)).scalars().all() == ["superseded"]


def answered(records, job: str, study: str, digest: str, *, called: bool = True, truth: float | None = None) -> None:
    """A job that is done, with the call of one finding, and the label that came later."""
    with records.write() as connection:
        done = {"state": "done", "outcome": "answered", "done_at": 10.0, "created_at": 5.0, "not_before": 0.0}
        columns = {
            "revision": 1,
            "rule": "r",
            "model": "m",
            "inputs_hash": job,
            "priority": 2,
            "inputs": {"series": {}},
        }
        connection.execute(insert(tables.JOBS).values(job=job, study=study, model_hash=digest, **columns, **done))
        connection.execute(insert(tables.MEASURES).values(job=job, measures={}, distances={}))
        row = {"concept": "nodule", "value": called, "probability": 0.9 if called else 0.1}
        connection.execute(insert(tables.FINDING_ROWS).values(job=job, number=0, concept="nodule", row=row))
        if truth is not None:
            stated = {"job": job, "label": "nodule", "source": "pathology", "value": truth, "at": 20.0, "account": "x"}
            connection.execute(insert(tables.OUTCOME_ROWS).values(stated))


def test_a_split_ends_by_itself_where_its_new_arm_crosses_the_bound_of_harm(records, split):
    bounds = [BoundSection(metric="sensitivity", label="nodule", at_least=0.8)]
    for number in range(60):
        study(records, f"s{number}", f"q{number}")
        answered(records, f"j{number}", f"s{number}", "h2", called=number % 3 == 0, truth=1.0)
        if number == 5:
            assert change_comparison.end_harmful(records, bounds) == []
    with records.read() as connection:
        arm = connection.execute(select(tables.DEPLOYMENTS).where(tables.DEPLOYMENTS.c.n == split)).one()
        figures = {
            (one.metric, one.arm, one.source): one.estimate
            for one in change_comparison.figures_of_change(connection, arm)
        }
    rate = figures["sensitivity_nodule", "new", "reported"]
    assert rate.value == pytest.approx(1 / 3) and rate.low < 1 / 3 < rate.high < 0.8
    assert figures["called_nodule", "new", ""].n == 60
    [because] = change_comparison.end_harmful(records, bounds)
    assert because.startswith("the reported sensitivity of nodule in the new arm is at most")
    with records.read() as connection:
        assert [row["state"] for row in change_comparison.change_rows(connection)] == ["in force", "ended"]


def test_settings_may_name_what_was_live_and_another_file_of_codes_makes_another_model_of_it(node, made, tmp_path):
    hilum.shadow_change(node.settings.folder, made["new"])
    codes = tmp_path / "codes.csv"
    codes.write_text("name,scheme,value,meaning\nkidney left,99SITE,1,Left kidney\n")
    before = [row.hash for row in node.rows(tables.DEPLOYMENTS)]
    for change, path in (({"codes": codes}, made["m"]), ({}, made["new"])):
        own = node.settings.models["m"].model_copy(update={"path": path, **change})
        settings = node.settings.model_copy(update={"models": {"m": own}})
        if path == made["new"]:
            with pytest.raises(UsageError, match="that no change made live"):
                deploying.refresh_packages(settings, node.database)
        else:
            deploying.refresh_packages(settings, node.database)
    after = [row.hash for row in node.rows(tables.DEPLOYMENTS)]
    assert len({*before, *after}) == 4


def test_what_cannot_be_told_apart_or_goes_on_already_is_no_change(records, split, tmp_path):
    old = package("old", "h1", tmp_path)
    with records.write() as connection:
        with pytest.raises(ChangeError, match="has the weights, settings and gate"):
            deployments.ask_for_change(
                connection, replace(old, manifest="other"), "live", package_asked=old, because=""
            )
        with pytest.raises(ChangeError, match=f"change {split} of this model, arm, goes on"):
            deployments.ask_for_change(
                connection, package("new", "h3", tmp_path), "arm", package_asked=old, because="", share=0.1, until=4e9
            )
        deployments.roll_back(connection, "m", CHIEF, "so")
        with pytest.raises(ChangeError, match="no package answered before"):
            deployments.roll_back(connection, "m", CHIEF, "so")


def test_a_change_is_approved_and_ended_over_http_and_listed_for_everybody(tmp_path):
    with with_people(tmp_path / "node") as web:
        old, new = package("old", "h1", tmp_path), package("new", "h2", tmp_path)
        with web.database.write() as connection:
            n = deployments.ask_for_change(
                connection, new, "live", package_asked=old, because="promoted", check_hash="c"
            )
        reader, viewer = logged_in(web, "radiologist"), logged_in(web, "viewer")
        done = reader.post(f"/api/changes/{n}/approve")
        assert done.status_code == 200 and done.json()["approvals"][0]["account"] == "radiologist"
        again = reader.post(f"/api/changes/{n}/approve")
        assert again.status_code == 409 and "by this person already" in again.json()["problem"]
        assert viewer.post(f"/api/changes/{n}/approve").status_code == 403
        rows = viewer.get("/api/changes").json()["rows"]
        assert [(row["mode"], row["state"]) for row in rows] == [("live", "in force"), ("live", "waiting")]
        chief = logged_in(web, "administrator")
        assert chief.post(f"/api/changes/{n}/end", json={"reason": "not now"}).json()["state"] == "ended"
        assert chief.post("/api/changes/99/end", json={"reason": "not now"}).status_code == 404
