"""Monitoring within a node: a round over its records, what alerts do, and what the API says of them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from pathlib import Path
from threading import Event

import httpx
import numpy as np
import pydicom
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert, select, update

import hilum
from hilum.errors import UsageError
from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.runtime.guard.case_distances import Correlated, Ranges, Reference
from hilum.runtime.guard.image_gate import Guard, TrainingLook
from hilum.service import configuration, deploying
from hilum.service._process import ROLES
from hilum.service.monitoring import monitored_cases, safety
from hilum.service.monitoring_rounds import Rounds
from hilum.service.node_folder import SETTINGS
from hilum.service.objects.object_store import ObjectStore
from hilum.service.records import alert_records, tables
from hilum.service.records.actor import ANYONE
from hilum.service.records.alert_records import CLOSED
from hilum.service.web import server
from hilum.service.web.web_node import WebNode
from hilum.values import Geometry, Image
from service.databases import with_tables
from service.objects_sent import encoded, simulated
from service.small_node import LEVEL, SmallNode
from service.thresholds import threshold_model
from service.web_served import RELATED, related

# A Thursday at midnight some 100 days ago: weekends are watched apart, so that results depend on the first day.
BEGAN = (time.time() // (7 * 86400) - 14) * 7 * 86400
HOUR = 3600.0


class Records:
    """A node's records, filled by hand with what workers would have written."""

    def __init__(self, folder, **sections):
        folder.mkdir(parents=True, exist_ok=True)
        sections["monitor"] = {"baseline_cases": 60}
        self.settings = configuration.read_settings(None, [folder / "nodule"], folder, **sections)
        (folder / SETTINGS).write_text(self.settings.model_dump_json())
        self.database = with_tables(self.settings.database_url)
        self.rounds, self.count = Rounds(self.settings, self.database), 0
        self.random = np.random.default_rng(1)

    def answered(self, number, *, noisy="", version="v1", seen=None, **measured):
        """So many jobs, one an hour; the noise of one station is raised. seen: mean of what the network sees."""
        rows = {
            table: []
            for table in (tables.STUDIES, tables.SERIES_ROWS, tables.JOBS, tables.MEASURES, tables.FINDING_ROWS)
        }
        for n in range(self.count, self.count + number):
            station = "ab"[n % 3 > 0]
            key, at = f"{n:032x}", BEGAN + n * HOUR
            noise = self.random.normal(10, 1) + 4 * (station == noisy)
            p = float(self.random.random())
            rows[tables.STUDIES].append(
                {"study": key, "uid": f"1.2.{n}", "state": "done", "received_at": at, "last_at": at, "patient": f"p{n}"}
            )
            own = {"station": station * 32, "software": "6" if station == noisy else "5"}
            rows[tables.SERIES_ROWS].append({"study": key, "series": key, "uid": f"1.2.{n}.1", **own})
            stated = {"rule": "r", "model": "nodule", "model_hash": version, "inputs_hash": "i", "revision": 1}
            stated |= {"state": "done", "outcome": "answered", "priority": 2, "not_before": at, "created_at": at}
            stated |= {"done_at": at, "inputs": {"series": {"image": key}}, "seconds": {"read": 1.0}}
            rows[tables.JOBS].append({"job": key, "study": key, **stated})
            rows[tables.MEASURES].append(
                {"job": key, "measures": {"noise": noise, **measured}, "distances": {}, "features": self.features(seen)}
            )
            found = {"concept": "nodule", "probability": p, "value": p > 0.5}
            rows[tables.FINDING_ROWS].append({"job": key, "number": 0, "concept": "nodule", "row": found})
        with self.database.write() as connection:
            for table, own in rows.items():
                connection.execute(insert(table), own)
        self.count += number

    def features(self, mean):
        return None if mean is None else self.random.normal(mean, 1, 12).astype(np.float16).tobytes()

    def freeze(self, version="v1"):
        with self.database.write() as connection:
            assert monitored_cases.freeze_newest_cases(
                connection, "nodule", version, self.settings.monitor.baseline_cases, ANYONE
            )

    def rows(self, table):
        with self.database.read() as connection:
            return connection.execute(select(table)).all()


@pytest.fixture
def records(tmp_path):
    made = Records(
        tmp_path / "node",
        safety=[{"when": {"kind": "input", "severity": "urgent"}, "then": "abstain", "model": "nodule"}],
        notify=[{"when": "monitor:urgent", "by": "webhook", "to": "http://127.0.0.1:9/alert"}],
    )
    yield made
    made.database.close()


@pytest.fixture
def noisy(records):
    """Records of a node one of whose stations has become noisy after its baseline."""
    records.answered(60)
    records.freeze()
    records.answered(60)
    records.answered(60, noisy="b")
    records.rounds.round()
    return records


def test_noise_of_one_station_is_one_alert_with_its_place_which_holds_the_model_and_tells_people(noisy):
    [alert] = noisy.rows(tables.ALERTS)
    assert (alert.watch, alert.kind, alert.scope, alert.severity) == (
        "measure_noise",
        "input",
        "station=bbbbbbbb",
        "urgent",
    )
    assert alert.state == "open" and "about the same time software changed from 5 to 6" in alert.because
    assert abs(alert.since - (BEGAN + 120 * HOUR)) < 24 * HOUR
    [hold] = noisy.rows(tables.HOLDS)
    assert hold.action == "abstain" and hold.because.startswith(f"alert {alert.n} (urgent)")
    [sent] = noisy.rows(tables.DELIVERIES)
    notice = json.loads((noisy.settings.folder / "results" / sent.job / sent.name).read_text())
    assert (notice["priority"], notice["alert"]) == ("urgent", alert.n)
    assert [row.action for row in noisy.rows(tables.AUDIT)] == ["baseline frozen", "alert", "safety abstain"]
    noisy.answered(5, noisy="b")
    assert noisy.rounds.round() == 1 and noisy.rounds.round() == 0
    assert len(noisy.rows(tables.ALERTS)) == 1


def test_a_rollback_without_a_package_to_go_back_to_is_written_as_a_failure_and_jobs_name_it(tmp_path):
    records = Records(tmp_path / "node", safety=[{"then": "rollback", "model": "nodule"}])
    records.answered(60)
    records.freeze()
    records.answered(80, noisy="b")
    records.rounds.round()
    with records.database.read() as connection:
        hold = safety.hold_of(connection, "nodule")
        tried = connection.execute(select(tables.AUDIT).where(tables.AUDIT.c.action == "safety rollback")).one()
    records.database.close()
    assert hold.action == "rollback"
    assert tried.outcome == "failure" and tried.detail["problem"]


def test_what_a_person_undoes_is_not_done_again_for_the_same_alert(noisy):
    [alert], [hold] = noisy.rows(tables.ALERTS), noisy.rows(tables.HOLDS)
    with noisy.database.write() as connection:
        assert safety.undo_model_hold(connection, hold.n, ANYONE, "only this scanner")
        assert safety.hold_of(connection, "nodule") is None
        assert alert_records.settle_alert(connection, alert.n, CLOSED, "the scanner is known", ANYONE)
    noisy.rounds.round()
    assert [row.state for row in noisy.rows(tables.ALERTS)] == ["closed"]
    assert len(noisy.rows(tables.HOLDS)) == 1


def test_an_alert_is_cleared_after_three_quiet_windows(noisy):
    noisy.answered(160)
    noisy.rounds.round()
    [alert] = noisy.rows(tables.ALERTS)
    assert (alert.state, alert.quiet) == ("cleared", 3)


def test_without_a_baseline_nothing_is_watched_until_it_is_frozen(records):
    records.answered(59)
    records.rounds.round()
    with records.database.write() as connection:
        assert not monitored_cases.freeze_newest_cases(connection, "nodule", "v1", 60, ANYONE)
    records.answered(100, noisy="b")
    records.rounds.round()
    assert not records.rows(tables.ALERTS)


def test_watches_begin_again_with_a_new_version_and_alerts_of_the_old_one_end(noisy):
    noisy.answered(200, version="v2", noisy="b")
    noisy.rounds.round()
    [alert] = noisy.rows(tables.ALERTS)
    assert (alert.state, alert.reason) == ("cleared", "another version of the model answers")


def test_a_measure_that_vanishes_rings(records):
    records.answered(60, sharpness=1.0)
    records.freeze()
    records.answered(60)
    records.rounds.round()
    [alert] = records.rows(tables.ALERTS)
    assert alert.watch == "measure_sharpness" and alert.because.startswith("values are missing: ")


def test_an_audited_figure_below_a_bound_is_urgent_and_stays_one_alert(tmp_path):
    records = Records(tmp_path / "node", bound=[{"metric": "sensitivity", "label": "nodule", "at_least": 0.9}])
    records.answered(60)
    records.freeze()
    records.answered(60)
    with records.database.write() as connection:  # all are ill, and half of them are called
        for row in connection.execute(select(tables.JOBS.c.job, tables.JOBS.c.done_at)).all():
            own = {"label": "nodule", "value": 1.0, "source": "blind", "account": "reader", "inclusion": 0.9}
            connection.execute(insert(tables.OUTCOME_ROWS).values(job=row.job, at=row.done_at, **own))
        assert monitored_cases.monitored_jobs(connection)["reference_nodule"].eq(1.0).all()
    records.rounds.round()
    records.answered(1)
    records.rounds.round()
    rung = [row for row in records.rows(tables.ALERTS) if row.kind == "performance"]
    node = WebNode(records.settings, records.database, ObjectStore(records.settings.folder, "web"))
    [own] = TestClient(server.web_app(node), base_url="http://127.0.0.1").get("/api/monitor").json()["models"]
    assert [(one["bound"], one["state"]) for one in own["bounds"]] == [("sensitivity of nodule", "crossed")]
    [state] = hilum.monitor(records.settings.folder).bounds
    assert (state.state, state.reported) == ("crossed", "")
    records.database.close()
    assert [(row.watch, row.severity) for row in rung] == [("sensitivity of nodule", "urgent")]


def test_the_api_and_the_metrics_say_what_stands_and_a_person_ends_it(noisy):
    node = WebNode(noisy.settings, noisy.database, ObjectStore(noisy.settings.folder, "web"))
    web = TestClient(server.web_app(node), base_url="http://127.0.0.1")
    seen = web.get("/api/monitor").json()
    assert seen["verdict"] == "1 alert stands"
    assert seen["models"][0]["verdict"] == "urgent: measure_noise (station=bbbbbbbb)"
    assert {row["watch"] for row in seen["models"][0]["drift"]} >= {"measure_noise", "probability_nodule"}
    text = web.get("/metrics").text
    assert 'hilum_alerts{severity="urgent"} 1.0' in text
    assert 'hilum_watch_log_evidence{model="nodule",scope="station=bbbbbbbb",watch="measure_noise"}' in text
    [alert] = web.get("/api/alerts", params={"state": "open"}).json()["rows"]
    token = {"X-CSRF-Token": web.get("/api/me").json()["csrf"]}
    ask = lambda path, body: web.post(path, json=body, headers=token)  # noqa: E731
    assert ask(f"/api/alerts/{alert['n']}/acknowledge", {"reason": ""}).status_code == 422
    assert ask(f"/api/alerts/{alert['n']}/acknowledge", {"reason": "seen"}).json()["state"] == "acknowledged"
    assert ask(f"/api/alerts/{alert['n']}/close", {"reason": "repaired"}).json()["state"] == "closed"
    assert ask(f"/api/alerts/{alert['n']}/close", {"reason": "again"}).status_code == 409
    hold = seen["holds"][0]["n"]
    assert ask(f"/api/monitor/holds/{hold}/undo", {"reason": "repaired"}).json()["undone_at"]
    assert ask("/api/monitor/baseline", {"model": "nodule"}).json()["models"][0]["baseline"]["state"] == "frozen"
    assert ask("/api/monitor/baseline", {"model": "other"}).status_code == 404


def test_the_verb_reads_a_node_with_its_baseline_and_lists_alerts_as_they_stand(noisy, tmp_path):
    seen = hilum.monitor(noisy.settings.folder, out=tmp_path / "out")
    assert [(one.alert, one.state, one.scope) for one in seen.alerts] == [(1, "open", "station=bbbbbbbb")]
    assert (seen.facts["cases"], seen.facts["reference_cases"]) == (120, 60)
    assert "station=bbbbbbbb" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(UsageError, match="bounds of its own"):
        hilum.monitor(noisy.settings.folder, bounds=[("sensitivity", "nodule", 0.8)])
    with noisy.database.read() as connection:
        others = monitored_cases.monitored_jobs(connection).assign(measure_noise=5.0)
    compared = hilum.monitor(noisy.settings.folder, reference=others)
    assert compared.site_verdict.startswith("This site is unlike the reference table (input")
    assert [(one.alert, one.scope) for one in compared.alerts] == [(1, "station=bbbbbbbb")]


def test_a_site_unlike_what_calibrated_its_model_is_said_once_and_is_no_change(records):
    gate = gate_of(np.random.default_rng(0).normal(size=(60, 12)))
    deploying.write_model_gate(records.settings.folder, "v1", gate)
    records.answered(60, seen=0.8)
    records.freeze()
    records.answered(60, seen=0.8)
    records.rounds.round()
    assert not records.rows(tables.ALERTS)
    node = WebNode(records.settings, records.database, ObjectStore(records.settings.folder, "web"))
    [own] = TestClient(server.web_app(node), base_url="http://127.0.0.1").get("/api/monitor").json()["models"]
    assert own["verdict"] == "no alert"
    assert own["site_verdict"].startswith("This site is unlike the cases that calibrated the model (features")
    assert {row["test"]: (row["patients"], row["known"]) for row in own["site"]}["energy"] == (60, 60)
    assert hilum.monitor(records.settings.folder).site_verdict == own["site_verdict"]
    records.answered(40, seen=-0.8)
    records.rounds.round()
    [alert] = records.rows(tables.ALERTS)
    assert (alert.watch, alert.kind) == ("features", "input")


def gate_of(trained):
    """A gate that knows nothing but the features of its training cases, half of which calibrated it."""
    few = Ranges.from_rows(np.ones((2, 1)))
    none, pair = Reference.from_rows(np.eye(2)), Correlated.from_rows(np.eye(2))
    look = TrainingLook(np.zeros((1, 3)), none, few, none, pair, few)
    own = {"features": Reference.from_rows(trained), "calibrated": trained.astype(np.float32), "trained": len(trained)}
    return Guard(0.01, True, {}, {}, look, **own)


@pytest.mark.parametrize(("action", "state", "outcome"), [("abstain", "done", "abstained"), ("stop", "waiting", None)])
def test_a_held_model_answers_no_further_job_and_its_reason_names_the_alert(small_node, mr, action, state, outcome):
    [model] = small_node.settings.models
    with small_node.database.write() as connection:
        own = {"model": model, "action": action, "alert": 7, "because": "alert 7 (urgent): measure_noise", "since": 0.0}
        connection.execute(insert(tables.HOLDS).values(own))
    small_node.receive(*mr)
    small_node.work()
    [job] = small_node.rows(tables.JOBS)
    assert (job.state, job.outcome) == (state, outcome)
    assert "alert 7 (urgent): measure_noise" in job.reason
    assert small_node.rows(tables.MEASURES) == []
    with small_node.database.write() as connection:
        assert safety.undo_model_hold(connection, 1, ANYONE, "it was the phantom")
        connection.execute(update(tables.JOBS).values(not_before=0.0))
    if action == "stop":
        small_node.work()
        assert [row.outcome for row in small_node.rows(tables.JOBS)] == ["answered"]


def test_grades_are_watched_as_classes_are_and_measurements_of_structures_are_not():
    rows = [
        {"concept": "grade 3", "group": "grade", "called": True, "probability": 0.7},
        {"concept": "sphericity", "group": "nodule", "value": 0.8},
    ]
    assert monitored_cases.columns_of_answer(rows) == {"probability_grade 3": 0.7, "called_grade 3": 1}


def test_a_worker_notes_measures_of_the_image_and_distances_of_the_gate(tmp_path, gated, small_node, mr):
    small_node.receive(*mr)
    small_node.work()
    [own] = small_node.rows(tables.MEASURES)
    assert {"mean", "sd", "p1", "p99", "noise", "sharpness"} <= own.measures.keys()
    with small_node.database.read() as connection:
        [row] = monitored_cases.monitored_jobs(connection).to_dict("records")
    assert row["measure_mean"] == own.measures["mean"] and row["bright_ml"] > 0
    node = SmallNode(tmp_path / "gated", gated.out)
    (tmp_path / "one.dcm").write_bytes(encoded(simulated("1.2.3.4", side=24)))
    node.receive(tmp_path / "one.dcm")
    node.work()
    [own], [job] = node.rows(tables.MEASURES), node.rows(tables.JOBS)
    ROLES["try"](node.settings, "try", Event())
    with node.database.read() as connection:
        [row] = monitored_cases.monitored_jobs(
            connection, gate=deploying.read_model_gate(node.settings.folder, job.model_hash)
        ).to_dict("records")
    node.store.close()
    node.database.close()
    assert np.isfinite([row["feature_1"], row["feature_beside"]]).all()
    assert {"features", "texture"} <= own.distances.keys()
    assert np.isfinite(np.frombuffer(own.features, np.float16)).all()


def test_the_rules_for_prometheus_are_read_by_it():
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    rules = Path(__file__).parents[2] / "deploy" / "alerts.yml"
    done = subprocess.run([program, "check", "rules", rules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "SUCCESS: 5 rules found" in done.stdout


def pictures(folder, numbers, *, noise):
    """Volumes of stations A and B in turn, of a patient each, as DICOM files; noise: SD of it on station B."""
    files = []
    for n in numbers:
        station, random = "AB"[n % 2], np.random.default_rng(n)
        x, y, z = np.indices((32, 28, 4))
        ball = 200.0 * ((x - 15) ** 2 + (y - 13) ** 2 + 6 * (z - 2) ** 2 < 60) + x
        data = ball + random.normal(0, noise if station == "B" else 2.0, ball.shape)
        image = Image(data[None].astype(np.int16), Geometry(ball.shape, np.diag([-1.0, -1, 2, 1])), modality="MR")
        series_writing.write_series(image, SeriesNames(f"p{n}", f"study {n}", "series"), folder / str(n))
        for path in sorted((folder / str(n)).iterdir()):
            header = pydicom.dcmread(path)
            header.StationName = f"SCANNER{station}"
            header.save_as(path)
            files.append(path.read_bytes())
    return files


@pytest.mark.whole
def test_a_living_node_finds_noise_of_one_station_and_holds_its_model(tmp_path):
    model = threshold_model(tmp_path / "model", LEVEL)
    (tmp_path / "node.toml").write_text(
        f"""
        [models.bright]
        path = "{model}"
        [dicom]
        port = 0
        [http]
        port = 0
        [study]
        complete_after_s = 0.5
        [node]
        min_free_gb = 0
        [monitor]
        baseline_cases = 40
        [[safety]]
        when = {{ kind = "input" }}
        then = "abstain"
        model = "bright"
        """
    )
    with hilum.serve(config=tmp_path / "node.toml", folder=tmp_path / "node") as node:
        web = httpx.Client(base_url=node.http, timeout=60)

        def answered(first, last, noise):
            files = pictures(tmp_path / f"from-{first}", range(first, last), noise=noise)
            for start in range(0, len(files), 40):
                stored = web.post("/dicomweb/studies", content=related(*files[start : start + 40]), headers=RELATED)
                assert stored.status_code == 200
            until(lambda: len(web.get("/api/jobs", params={"limit": 500, "state": "done"}).json()["rows"]) == last)

        answered(0, 40, 2.0)
        token = {"X-CSRF-Token": web.get("/api/me").json()["csrf"]}
        frozen = web.post("/api/monitor/baseline", json={"model": "bright"}, headers=token).json()
        assert frozen["models"][0]["baseline"]["state"] == "frozen"
        answered(40, 60, 2.0)
        answered(60, 120, 12.0)
        found = lambda: [row for row in web.get("/api/alerts").json()["rows"] if row["kind"] == "input"]  # noqa: E731
        until(found, 200)
        [alert] = found()
        station = hashlib.sha256(b"SCANNERB").hexdigest()[:8]
        assert (alert["kind"], alert["scope"], alert["state"]) == ("input", f"station={station}", "open")
        answered(120, 121, 2.0)
        # A round may have held the model while noisy studies were still answered.
        held = [
            row for row in web.get("/api/jobs", params={"limit": 500}).json()["rows"] if row["outcome"] != "answered"
        ]
        assert held and {row["outcome"] for row in held} == {"abstained"}
        assert all(f"alert {alert['n']}" in row["reason"] for row in held)
        web.close()


def until(condition, limit_s=120):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.3)
