"""Retention: objects go, then results and identity; what waits stays; a kill loses and brings back nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from hilum.errors import UsageError
from hilum.service import _retention, configuration
from hilum.service._keeper import Keeper
from hilum.service._retention import Retention
from hilum.service.objects import object_store
from hilum.service.records import tables
from hilum.service.records.job_queue import Jobs
from hilum.service.records.record_database import DatabaseClock
from hilum.service.records.study_index import Arrival, StudyIndex
from service.objects_sent import encoded, simulated
from service.small_node import SmallNode
from service.web_served import served

DAY = 86400.0


def keeping(node: SmallNode, **section: Any) -> Retention:
    """Retention of a node by these settings."""
    retention = configuration.RetentionSection(**section)
    return Retention(node.settings.model_copy(update={"retention": retention}), node.database)


def older(database, days: float, study: str | None = None) -> None:
    """As if the last objects had come so many days ago."""
    which = [] if study is None else [tables.STUDIES.c.study == study]
    with database.write() as connection:
        connection.execute(update(tables.STUDIES).where(*which).values(last_at=DatabaseClock() - days * DAY))


def files(node: SmallNode, folder: str) -> list[Path]:
    """What lies in a folder of the node."""
    return [path for path in (node.settings.folder / folder).rglob("*") if path.is_file()]


@pytest.fixture
def done(small_node, mr) -> SmallNode:
    """A node that has answered a study."""
    small_node.receive(*mr)
    small_node.work()
    [study] = small_node.rows(tables.STUDIES)
    assert study.state == "done" and study.attributes["PatientID"] and files(small_node, "results")
    return small_node


def test_objects_go_first_then_results_and_identity_and_the_rest_stays(done, caplog):
    stays = {table.name: done.rows(table) for table in (tables.FINDING_ROWS, tables.MEASURES, tables.JOBS)}
    retention = keeping(done, images_days=30, results_days=300)
    older(done.database, 29)
    assert retention.look() == 0
    older(done.database, 31)
    with caplog.at_level(logging.INFO):
        assert [retention.look(), retention.look()] == [1, 0]
    [study] = done.rows(tables.STUDIES)
    assert (study.state, study.instances, study.outcome) == ("gone", 0, "answered") and study.attributes["PatientID"]
    assert not files(done, "studies") and files(done, "results") and done.rows(tables.INSTANCES) == []
    older(done.database, 301)
    assert [retention.look(), retention.look()] == [1, 0]
    [gone] = done.rows(tables.STUDIES)
    assert gone.patient == study.patient and gone.results_gone_at is not None and not files(done, "results")
    assert {table.name: done.rows(table) for table in (tables.FINDING_ROWS, tables.MEASURES, tables.JOBS)} == stays
    deletions = [row for row in done.rows(tables.AUDIT) if row.action.endswith(" deleted")]
    assert [row.action for row in deletions] == ["objects deleted", "results deleted"]
    assert all(row.patient == study.patient and row.detail["bytes"] > 0 for row in deletions)
    assert deletions[0].detail["because"] == "older than 30 days"


def test_of_a_patient_nothing_is_left_in_the_database_to_its_bytes(small_node, tmp_path):
    (tmp_path / "object.dcm").write_bytes(encoded(simulated("1.2.3.4")))  # of Jane Doe, whose number is secret-17
    small_node.receive(tmp_path / "object.dcm")
    small_node.work()

    def stands() -> list[bool]:
        content = b"".join(path.read_bytes() for path in small_node.settings.folder.glob("node.sqlite*"))
        return [word in content for word in (b"secret-17", b"Doe^Jane", b"doe^jane")]

    assert stands() == [True, True, True]
    older(small_node.database, 9)
    assert keeping(small_node, images_days=1, results_days=2).look() == 2
    assert stands() == [False, False, False]


WAITS = {
    "a draft": (tables.DRAFTS, {"judged": "job", "account": "a", "stroke": "1", "mark": {}, "at": 0.0}),
    "a blind read": (
        tables.BLIND_READS,
        {"job": "job", "inclusion": 1.0, "sampled_at": 0.0, "week": "w", "state": "waiting"},
    ),
    "an incident": (
        tables.INCIDENTS,
        {"study": "study", "kind": "k", "known_on": "2026-01-01", "account": "a", "at": 0.0}
        | dict.fromkeys(("harm", "version", "cause", "action", "checked"), ""),
    ),
    "a correction": (
        tables.CORRECTIONS,
        {
            "correction": "c",
            "judged": "job",
            "study": "study",
            "revision": 1,
            "account": "a",
            "at": 0.0,
            "findings": [],
        },
    ),
    "a delivery": (
        tables.DELIVERIES,
        {"job": "job", "name": "answer.dcm", "peer": "pacs", "state": "waiting", "next_at": 0.0, "created_at": 0.0},
    ),
    "an order": (
        tables.WORKITEMS,
        {"workitem": "1.2", "state": "SCHEDULED", "study": "study", "series": [], "rule": "r", "priority": 1}
        | {"dataset": {}, "created_at": 0.0, "start_at": 0.0},
    ),
}


def test_a_study_that_somebody_waits_for_or_comes_back_to_stays(done):
    [study], [job] = done.rows(tables.STUDIES), done.rows(tables.JOBS)
    keys = {"job": job.job, "study": study.study}
    older(done.database, 9)
    went = dict[str, int]()
    for what, (table, row) in WAITS.items():
        with done.database.write() as connection:
            own = {name: keys.get(value, value) if isinstance(value, str) else value for name, value in row.items()}
            connection.execute(insert(table).values(own))
        went[what] = keeping(done, images_days=1, results_days=2, quota_gb=1e-9).look()
        with done.database.write() as connection:
            connection.execute(table.delete())
    assert went == dict.fromkeys(WAITS, 0)
    assert keeping(done, images_days=1).look() == 1


def test_studies_of_a_rule_that_is_kept_stay_and_those_of_no_such_rule_are_refused(done, tmp_path):
    [job] = done.rows(tables.JOBS)
    older(done.database, 9)
    assert keeping(done, images_days=1, keep=[job.rule]).look() == 0
    assert keeping(done, images_days=1, keep=["another"]).look() == 1
    (tmp_path / "node.toml").write_text('[retention]\nimages_days = 3\nkeep = ["lung"]\n')
    with pytest.raises(UsageError, match="lung, which is not a rule"):
        configuration.read_settings(tmp_path / "node.toml")
    (tmp_path / "node.toml").write_text("[retention]\nresults_days = 3\n")
    with pytest.raises(UsageError, match="images go first"):
        configuration.read_settings(tmp_path / "node.toml")


@pytest.mark.parametrize("files_gone", [3, 99])
def test_what_a_kill_interrupts_is_finished_later_and_nothing_comes_back(done, monkeypatch, files_gone):
    older(done.database, 9)
    retention = keeping(done, images_days=1)

    class KilledError(Exception):
        pass

    def killed(folder: Path, paths: list[str]) -> int:
        for path in paths[:files_gone]:
            (folder / path).unlink()
        raise KilledError

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(object_store, "remove_files", killed)
        retention.look()
    [study] = done.rows(tables.STUDIES)
    assert study.state == "going"
    keeper = Keeper(retention.settings, done.database, done.rules, done.models)
    assert keeper.find() == 0  # what is left has its rows
    assert keeper.retention.round() == 1 and keeper.find() == 0
    keeper.round()
    [study] = done.rows(tables.STUDIES)
    assert study.state == "gone" and not files(done, "studies") and len(done.rows(tables.JOBS)) == 1


def test_a_study_that_the_disk_does_not_let_go_is_tried_again_and_stops_no_other(done, monkeypatch, caplog):
    older(done.database, 9)
    retention = keeping(done, images_days=1)
    with monkeypatch.context() as patch:
        patch.setattr(object_store, "remove_files", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        assert retention.look() == 0
    assert "cannot go: Input/output error" in caplog.text
    assert retention.look() == 1


def test_objects_that_come_again_make_a_new_revision_whose_results_are_made_anew(done, mr):
    before = {path.name: path.read_bytes() for path in files(done, "results") if path.suffix == ".dcm"}
    older(done.database, 9)
    retention = keeping(done, images_days=1, results_days=2)
    assert retention.look() == 2
    done.receive(*mr)
    done.work()
    [study], [job] = done.rows(tables.STUDIES), done.rows(tables.JOBS)
    assert (study.state, study.revision, study.instances) == ("done", 2, len(mr)) and study.attributes["PatientID"]
    assert (study.objects_gone_at, study.results_gone_at, job.state) == (None, None, "done")
    assert {path.name: path.read_bytes() for path in files(done, "results") if path.suffix == ".dcm"} == before


def test_a_part_of_a_study_that_comes_again_is_a_study_of_that_part(done, mr):
    older(done.database, 9)
    assert keeping(done, images_days=1).look() == 1
    done.receive(*mr[:4])
    done.work()
    [study] = done.rows(tables.STUDIES)
    assert (study.state, study.revision, study.instances) == ("done", 2, 4)
    assert sorted(row.state for row in done.rows(tables.JOBS)) == ["done", "superseded"]


def index_of_studies(database, folder: Path, count: int) -> list[str]:
    """Studies that are done, a day between each and the next, the first the oldest, of 1,000 bytes each."""
    index, keys = StudyIndex(database), [f"{n:032d}" for n in range(count)]
    for n, key in enumerate(keys):
        path = f"studies/{key[:2]}/{key}/s/{key}.dcm"
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_bytes(bytes(1000))
        index.add([Arrival(key, "s", key, f"1.{n}", f"2.{n}", f"3.{n}", "4", "5", path, 1000, "0" * 64, "p", "store")])
        older(database, count - n, key)
    with database.write() as connection:
        connection.execute(update(tables.STUDIES).values(state="done", routed=1))
    return keys


def test_beyond_the_quota_the_oldest_go_until_it_holds(database, tmp_path, caplog):
    keys = index_of_studies(database, tmp_path, 6)
    with database.write() as connection:  # the oldest stands in an incident
        row = {"study": keys[0], "kind": "k", "known_on": "2026-01-01", "account": "a", "at": 0.0}
        texts = dict.fromkeys(("harm", "version", "cause", "action", "checked"), "")
        connection.execute(insert(tables.INCIDENTS).values(row | texts))
    settings = configuration.read_settings(None, (), tmp_path, retention={"quota_gb": 3.5e-6})
    retention = Retention(settings, database)
    assert [retention.look(), retention.look()] == [3, 0]
    with database.read() as connection:
        stays = (
            connection.execute(select(tables.STUDIES.c.study).where(tables.STUDIES.c.state == "done")).scalars().all()
        )
        assert sorted(stays) == [keys[0], keys[4], keys[5]] and _retention.stored_bytes(connection) == 3000
    assert [one for one in caplog.records if one.levelno > logging.INFO] == []


def test_a_quota_below_what_may_not_go_is_said_once_and_deletes_nothing_more(done, caplog):
    settings = {"images_days": 1e6, "quota_gb": 1e-9, "keep_judged": True}
    [job], [study] = done.rows(tables.JOBS), done.rows(tables.STUDIES)
    with done.database.write() as connection:
        row = {"correction": "c", "judged": job.job, "study": study.study, "revision": 1, "account": "a", "at": 0.0}
        connection.execute(insert(tables.CORRECTIONS).values(row | {"findings": []}))
    retention, before = keeping(done, **settings), len(files(done, "."))
    assert [retention.look(), retention.look()] == [0, 0]
    assert caplog.text.count("above the quota of 1e-09 GB, and nothing more may go") == 1
    assert len(files(done, ".")) == before


def test_what_is_gone_is_answered_as_gone(tmp_path):
    with served(tmp_path / "node") as node:
        node.store(encoded(simulated("1.2.3.4")))
        node.complete("1.2", {"PatientID": "secret-17"}, inputs_hash="i")
        job = node.answer("1.2", {"answer.dcm": (b"x", "1.9"), "findings.json": (b"{}", None)}, [])
        with node.database.write() as connection:
            connection.execute(update(tables.STUDIES).values(state="done", routed=1))
        older(node.database, 9)
        retention = configuration.RetentionSection(images_days=1, results_days=8)
        look = Retention(node.settings.model_copy(update={"retention": retention}), node.database).look
        answer, objects = f"/api/jobs/{job}/answers/findings.json", "/dicomweb/studies/1.2"
        assert [node.client.get(path).status_code for path in (answer, objects)] == [200, 200]
        assert look() == 2
        gone = [objects, f"{objects}/metadata", f"{objects}/series/1.2.3/instances/1.2.3.4", answer]
        gone += ["/api/series/1.2.3/grid", f"/api/jobs/{job}/fhir", "/api/studies/1.2/reading"]
        assert {path: node.client.get(path).status_code for path in gone} == dict.fromkeys(gone, 410)
        assert node.client.get("/dicomweb/studies").status_code == 204
        [study] = node.client.get("/api/studies?state=gone").json()["rows"]
        assert study["study"] == "1.2" and study["objects_gone_at"] <= study["results_gone_at"]
        for path in (f"/api/jobs/{job}/retry", "/api/studies/1.2/reroute"):
            refused = node.client.post(path)
            assert refused.status_code == 409 and "deleted by retention" in refused.text
        assert Jobs(node.database).claim("w") is None
