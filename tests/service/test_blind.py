"""Results that are sampled at random, read with the answer hidden, and what is true of studies."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from sqlalchemy import insert, update

import hilum
from hilum.service.configuration import PRIORITIES
from hilum.service.monitoring import outcomes
from hilum.service.objects import object_store
from hilum.service.reading import blind_reading
from hilum.service.records import tables
from hilum.service.records.workitem_records import Workitems
from service.databases import with_tables
from service.small_node import SmallNode
from service.test_correcting import address, describe, page
from service.test_workitems import order
from service.thresholds import class_model

WEEK_S = 7 * 86400.0
BLIND = {"audit": {"per_week": 20}}


@pytest.fixture
def sampled_node(tmp_path, mr):
    """A node with one result, which is sampled: of two classes the model calls "odd"."""
    model = class_model(tmp_path / "model")
    node = SmallNode(tmp_path / "node", model, answers=["sr"], monitor=BLIND)
    describe(node)
    node.receive(*mr)
    node.work()
    with node.database.write() as connection:
        add_reader(connection)
        [job] = connection.execute(tables.JOBS.select()).all()
        assert blind_reading.sample_blind_reads(connection, node.settings, job.done_at) == 0  # its week has not ended
        assert blind_reading.sample_blind_reads(connection, node.settings, job.done_at + WEEK_S) == 1
        assert blind_reading.sample_blind_reads(connection, node.settings, job.done_at + WEEK_S) == 0
    yield node
    node.store.close()
    node.database.close()


def test_a_sampled_result_is_hidden_from_its_readers_until_one_of_them_has_read_the_study(sampled_node):
    ada, ben, eve = page(sampled_node), page(sampled_node, "ben"), page(sampled_node, "eve", "viewer")
    [study], job = sampled_node.rows(tables.STUDIES), address(sampled_node)
    assert ben.get(f"/api/studies/{study.uid}").status_code == 200
    [read] = ada.get("/api/blind").json()["rows"]
    assert (read["labels"], read["exclusive"], read["study"]) == (["calm", "odd"], True, study.uid)
    seen = ada.get(f"/api/studies/{study.uid}/reading").json()
    assert (seen["jobs"], seen["blind"]) == ([], [read])
    for path in (f"{job}/answers/findings.json", f"{job}/fhir", f"{job}/maps/mask/slices/axial/0", f"{job}/draft"):
        assert ada.get(path).status_code == 409, path
    assert ada.post(f"{job}/feedback", json={"verdict": "accepted"}).status_code == 409
    assert ada.get("/api/worklist").json()["rows"][0]["finding"] == ""
    assert len(eve.get(f"/api/studies/{study.uid}/reading").json()["jobs"]) == 1  # who reads nothing is asked nothing

    path = f"/api/blind/{read['job']}"
    for values in ({}, {"odd": 1}, {"odd": 1, "calm": 1}, {"odd": 0.5, "calm": 0.5}):
        assert ada.post(path, json=values).status_code == 422, values
    assert ada.post(path, json={"odd": 0, "calm": 1}).status_code == 200
    assert ben.post(path, json={"odd": 0, "calm": 1}).status_code == 409
    assert len(ada.get(f"/api/studies/{study.uid}/reading").json()["jobs"]) == 1
    kept = {
        row.label: (row.value, row.source, row.account, row.inclusion) for row in sampled_node.rows(tables.OUTCOME_ROWS)
    }
    assert kept == {"odd": (0.0, "blind", "ada", 1.0), "calm": (1.0, "blind", "ada", 1.0)}
    actions = [row.action for row in sampled_node.rows(tables.AUDIT)]
    assert {"blind sample", "view blind", "blind read", "view"} <= set(actions)


def test_who_has_opened_the_answer_cannot_read_the_study_blind(sampled_node):
    with sampled_node.database.write() as connection:
        connection.execute(update(tables.BLIND_READS).values(state="ended"))
    ada, [study] = page(sampled_node), sampled_node.rows(tables.STUDIES)
    ada.get(f"/api/studies/{study.uid}/reading")
    with sampled_node.database.write() as connection:
        connection.execute(update(tables.BLIND_READS).values(state="waiting"))
    assert ada.get("/api/blind").json()["rows"] == []
    assert len(ada.get(f"/api/studies/{study.uid}/reading").json()["jobs"]) == 1
    assert len(page(sampled_node, "ben").get("/api/blind").json()["rows"]) == 1


def test_no_other_route_tells_a_reader_what_a_sampled_study_hides(sampled_node):
    ada, eve = page(sampled_node), page(sampled_node, "eve", "viewer")
    [study], [job] = sampled_node.rows(tables.STUDIES), sampled_node.rows(tables.JOBS)
    [report] = [row for row in sampled_node.rows(tables.ANSWERS) if row.sop_instance_uid]
    path = f"/dicomweb/studies/{study.uid}"
    [of_report] = eve.get(f"{path}/series?Modality=SR").json()
    address_of_report = f"{path}/series/{of_report['0020000E']['Value'][0]}/instances/{report.sop_instance_uid}"
    objects = len(eve.get(f"{path}/metadata").json())
    with sampled_node.database.write() as connection:
        connection.execute(update(tables.JOBS).values(urgency=PRIORITIES.index("emergency"), because="odd"))
    Workitems(sampled_node.database, sampled_node.rules).create(
        order(study.uid, rule=sampled_node.rules[0].name), "1.2.777"
    )

    def send_back():
        data = (sampled_node.settings.folder / "results" / report.job / report.name).read_bytes()
        with sampled_node.store.open_part() as part:
            part.write(data)
            sampled_node.store.keep(part, "PACS")
        sampled_node.keeper.round()

    for is_back in (False, True):
        if is_back:
            send_back()
        shown = [ada.get("/api/jobs").json()["rows"][0], ada.get(f"/api/jobs/{job.job}").json()]
        shown += ada.get(f"/api/studies/{study.uid}").json()["jobs"]
        for one in shown:
            assert (one["outcome"], one["reason"], one["answers"]) == (None, "to be read blind", [])
        assert ada.get(f"/api/studies/{study.uid}").json()["outcome"] is None
        assert ada.get(f"/api/studies/{study.uid}/route").status_code == 409
        assert ada.get(f"{path}/series?Modality=SR").status_code == 204
        rows = [one.get("/api/worklist?hours=8000").json()["rows"][0] for one in (ada, eve)]
        assert [row["priority"] for row in rows] == ["routine", "emergency"]
        assert [one.get("/dicomweb/workitems").status_code for one in (ada, eve)] == [204, 200]
        assert [one.get("/dicomweb/workitems/1.2.777").status_code for one in (ada, eve)] == [409, 200]
        [found] = ada.get("/dicomweb/studies").json()
        assert found["00080061"]["Value"] == ["MR"] and found["00201208"]["Value"] == [objects - 1]
        assert len(ada.get(f"{path}/metadata").json()) == objects - 1
        assert ada.get(path).status_code == 200
        for refused in ("", "/metadata"):
            answer = ada.get(f"{address_of_report}{refused}")
            assert answer.status_code == 409 and "read the study blind" in answer.json()["problem"], refused
        assert len(eve.get(f"{path}/metadata").json()) == objects
    # Images alone were seen, so the study may still be read blind; then everything is shown.
    assert len(ada.get("/api/blind").json()["rows"]) == 1
    assert ada.post(f"/api/blind/{job.job}", json={"odd": 0, "calm": 1}).status_code == 200
    assert ada.get(f"/api/jobs/{job.job}").json()["outcome"] == "answered"
    assert ada.get(address_of_report).status_code == 200


def test_readers_are_asked_what_the_version_answers_that_made_the_result(sampled_node):
    [own] = sampled_node.models.values()
    facts = asdict(replace(own, hash="newer", findings=["fracture"]))
    change = {"model": own.name, "folder": "", "manifest": "m", "hash": "newer", "mode": "live", "because": "better"}
    with sampled_node.database.write() as connection:
        connection.execute(insert(tables.DEPLOYMENTS).values(**change, facts=facts, asked_at=1.0, began=1.0))
    ada = page(sampled_node)
    assert ada.get("/api/blind").json()["rows"][0]["labels"] == ["calm", "odd"]
    with sampled_node.database.write() as connection:
        connection.execute(update(tables.JOBS).values(model_hash="newer"))
    assert ada.get("/api/blind").json()["rows"][0]["labels"] == ["fracture"]


def test_verdicts_are_reported_and_never_pooled_with_a_blind_read(sampled_node, tmp_path):
    with sampled_node.database.write() as connection:
        connection.execute(update(tables.BLIND_READS).values(state="ended"))
    ada, [job] = page(sampled_node), sampled_node.rows(tables.JOBS)
    chosen = hilum.next_labels(sampled_node.settings.folder, 5, method="uncertainty", out=tmp_path / "next").table
    assert chosen["case"].tolist() == [f"case_{job.job[:16]}"]
    odd = 1 / (1 + np.exp(-1.0))
    assert chosen["score"].tolist() == pytest.approx([-odd * np.log(odd) - (1 - odd) * np.log(1 - odd)], abs=1e-3)
    ada.post(f"{address(sampled_node)}/feedback", json={"verdict": "accepted"})
    with sampled_node.database.write() as connection:
        given = outcomes.outcomes_by_job(connection)[job.job]
        assert {one.label: (one.value, one.inclusion) for one in given} == {"odd": (1.0, None), "calm": (0.0, None)}
        outcomes.write_outcomes(
            connection, job.job, {"odd": 0.0}, "pathology", at=1.0
        )  # before a verdict on a shown answer
        assert {one.label: one.source for one in outcomes.outcomes_by_job(connection)[job.job]} == {
            "odd": "pathology",
            "calm": "verdict",
        }
        outcomes.write_outcomes(connection, job.job, {"calm": 1.0}, "blind", inclusion=0.2)
        assert [(one.label, one.inclusion) for one in outcomes.outcomes_by_job(connection)[job.job]] == [("calm", 0.2)]
    ada.post(f"{address(sampled_node)}/feedback", json={"verdict": "rejected", "text": "no"})
    assert "verdict" not in {row.source for row in sampled_node.rows(tables.OUTCOME_ROWS)}


def test_a_result_states_classes_findings_structures_and_boxes_but_no_measurement_of_them():
    rows = [
        {"concept": "calm", "group": "class", "called": False},
        {"concept": "nodule", "value": True},
        {"concept": "liver", "value": 0.0, "unit": "ml", "group": "liver", "label": 1},
        {"concept": "spleen", "value": 90.0, "unit": "ml", "group": "spleen", "label": 2},
        {"concept": "Diameter", "value": 4.0, "unit": "mm", "group": "spleen", "label": 2},
        {"concept": "fracture", "value": [0, 1], "box": 0},
        {"concept": "volume", "value": 12.5},
    ]
    stated = {"calm": 0.0, "nodule": 1.0, "liver": 0.0, "spleen": 1.0, "fracture": 1.0, "volume": 12.5}
    assert outcomes.stated_values(rows) == stated
    assert outcomes.called_labels(rows) == {"nodule", "spleen", "fracture"}


def test_half_of_the_sample_is_called_and_each_chance_is_that_of_its_kind(tmp_path):
    node = SmallNode(tmp_path / "node", monitor={"audit": {"per_week": 6}})
    database = with_tables(node.settings.database_url)
    now = database.now()
    with database.write() as connection:
        add_reader(connection)
        for number in range(40):
            add_job(connection, job_of(number), now - WEEK_S, [{"concept": "nodule", "value": number < 10}])
        assert blind_reading.sample_blind_reads(connection, node.settings, now) == 6
        rows = {int(row.job[:16], 16): row.inclusion for row in connection.execute(tables.BLIND_READS.select())}
    assert sorted(rows.values()) == pytest.approx([3 / 30] * 3 + [3 / 10] * 3)
    assert all(inclusion == pytest.approx(0.3 if number < 10 else 0.1) for number, inclusion in rows.items())


def add_reader(connection):
    connection.execute(insert(tables.ACCOUNTS).values(account="ada", role="radiologist", created_at=0))


def job_of(number):
    """The key of a job that is made up; the name of its case ends with the number."""
    return f"{number:016x}{0:016x}"


def add_job(connection, job, done_at, rows, *, patient=None, **columns):
    """A result in the records, without files. columns: of the job"""
    uid = f"1.{int(job[:16], 16)}"
    study = object_store.uid_key(uid)
    known = {"uid": uid, "state": "done", "received_at": done_at, "last_at": done_at}
    connection.execute(insert(tables.STUDIES).values(study=study, patient=patient, **known))
    of_job = dict.fromkeys(("rule", "model", "model_hash", "inputs_hash"), "m") | {"inputs": {}, "revision": 1}
    times = {"not_before": 0, "created_at": done_at, "done_at": done_at, "priority": 0}
    stated = {"job": job, "study": study, "state": "done", "outcome": "answered", **of_job, **times}
    connection.execute(insert(tables.JOBS).values({**stated, **columns}))
    for number, row in enumerate(rows):
        connection.execute(insert(tables.FINDING_ROWS).values(job=job, number=number, concept=row["concept"], row=row))
