"""Monitoring within a node: a round over its records, what alerts do, and what the API says of them."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert, select

from isocenter.service import Rounds, read_settings
from isocenter.service.monitoring.baseline import freeze
from isocenter.service.monitoring.cases import cases
from isocenter.service.monitoring.safety import hold_of, undone
from isocenter.service.objects.store import ObjectStore
from isocenter.service.records.actor import ANYONE
from isocenter.service.records.alerts import CLOSED, settled
from isocenter.service.records.tables import (
    alerts,
    audit,
    deliveries,
    findings,
    holds,
    jobs,
    measures,
    outcomes,
    series,
    studies,
)
from isocenter.service.stored import SETTINGS
from isocenter.service.web.app import web_app
from isocenter.service.web.web_node import WebNode
from service.databases import with_tables

BEGAN = time.time() - 100 * 86400
HOUR = 3600.0


class Records:
    """A node's records, filled by hand with what workers would have written."""

    def __init__(self, folder, **sections):
        folder.mkdir(parents=True, exist_ok=True)
        sections["monitor"] = {"baseline_cases": 60}
        self.settings = read_settings(None, [folder / "nodule"], folder, **sections)
        (folder / SETTINGS).write_text(self.settings.model_dump_json())
        self.database = with_tables(self.settings.database_url)
        self.rounds, self.count = Rounds(self.settings, self.database), 0
        self.random = np.random.default_rng(1)

    def answered(self, number, *, noisy="", version="v1", **measured):
        """So many jobs, one an hour; the noise of one station is raised."""
        rows = {table: [] for table in (studies, series, jobs, measures, findings)}
        for n in range(self.count, self.count + number):
            station = "ab"[n % 3 > 0]
            key, at = f"{n:032x}", BEGAN + n * HOUR
            noise = self.random.normal(10, 1) + 4 * (station == noisy)
            p = float(self.random.random())
            rows[studies].append(
                {"study": key, "uid": f"1.2.{n}", "state": "done", "received_at": at, "last_at": at, "patient": f"p{n}"}
            )
            own = {"station": station * 32, "software": "6" if station == noisy else "5"}
            rows[series].append({"study": key, "series": key, "uid": f"1.2.{n}.1", **own})
            stated = {"rule": "r", "model": "nodule", "model_hash": version, "inputs_hash": "i", "revision": 1}
            stated |= {"state": "done", "outcome": "result", "priority": 2, "not_before": at, "created_at": at}
            stated |= {"done_at": at, "inputs": {"series": {"image": key}}, "seconds": {"read": 1.0}}
            rows[jobs].append({"job": key, "study": key, **stated})
            rows[measures].append({"job": key, "measures": {"noise": noise, **measured}, "distances": {}})
            found = {"concept": "nodule", "probability": p, "value": p > 0.5}
            rows[findings].append({"job": key, "number": 0, "concept": "nodule", "row": found})
        with self.database.write() as connection:
            for table, own in rows.items():
                connection.execute(insert(table), own)
        self.count += number

    def freeze(self, version="v1"):
        with self.database.write() as connection:
            assert freeze(connection, "nodule", version, self.settings.monitor.baseline_cases, ANYONE)

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
    [alert] = noisy.rows(alerts)
    assert (alert.watch, alert.kind, alert.scope, alert.severity) == (
        "measure_noise",
        "input",
        "station=bbbbbbbb",
        "urgent",
    )
    assert alert.state == "open" and "software 5 to 6" in alert.because
    assert abs(alert.since - (BEGAN + 120 * HOUR)) < 24 * HOUR
    [hold] = noisy.rows(holds)
    assert hold.action == "abstain" and hold.because.startswith(f"alert {alert.n} (urgent)")
    [sent] = noisy.rows(deliveries)
    notice = json.loads((noisy.settings.folder / "results" / sent.job / sent.name).read_text())
    assert (notice["priority"], notice["alert"]) == ("urgent", alert.n)
    assert [row.action for row in noisy.rows(audit)] == ["baseline frozen", "alert", "safety abstain"]
    noisy.answered(5, noisy="b")
    assert noisy.rounds.round() == 1 and noisy.rounds.round() == 0
    assert len(noisy.rows(alerts)) == 1


def test_what_a_person_undoes_is_not_done_again_for_the_same_alert(noisy):
    [alert], [hold] = noisy.rows(alerts), noisy.rows(holds)
    with noisy.database.write() as connection:
        assert undone(connection, hold.n, ANYONE, "only this scanner")
        assert hold_of(connection, "nodule") is None
        assert settled(connection, alert.n, CLOSED, "the scanner is known", ANYONE)
    noisy.rounds.round()
    assert [row.state for row in noisy.rows(alerts)] == ["closed"]
    assert len(noisy.rows(holds)) == 1


def test_an_alert_is_cleared_after_three_quiet_windows(noisy):
    noisy.answered(160)
    noisy.rounds.round()
    [alert] = noisy.rows(alerts)
    assert (alert.state, alert.quiet) == ("cleared", 3)


def test_without_a_baseline_nothing_is_watched_until_it_is_frozen(records):
    records.answered(59)
    records.rounds.round()
    with records.database.write() as connection:
        assert not freeze(connection, "nodule", "v1", 60, ANYONE)
    records.answered(100, noisy="b")
    records.rounds.round()
    assert not records.rows(alerts)


def test_watches_begin_again_with_a_new_version_and_alerts_of_the_old_one_end(noisy):
    noisy.answered(200, version="v2", noisy="b")
    noisy.rounds.round()
    [alert] = noisy.rows(alerts)
    assert (alert.state, alert.reason) == ("cleared", "another version of the model answers")


def test_a_measure_that_vanishes_rings(records):
    records.answered(60, sharpness=1.0)
    records.freeze()
    records.answered(60)
    records.rounds.round()
    [alert] = records.rows(alerts)
    assert (alert.watch, alert.because) == ("measure_sharpness", "values are missing")


def test_an_audited_figure_below_a_bound_is_urgent_and_stays_one_alert(tmp_path):
    records = Records(tmp_path / "node", bound=[{"metric": "sensitivity", "label": "nodule", "at_least": 0.9}])
    records.answered(60)
    records.freeze()
    records.answered(60)
    with records.database.write() as connection:  # all are ill, and half of them are called
        for row in connection.execute(select(jobs.c.job, jobs.c.done_at)).all():
            own = {"label": "nodule", "value": 1.0, "source": "blind", "account": "reader", "inclusion": 0.9}
            connection.execute(insert(outcomes).values(job=row.job, at=row.done_at, **own))
        assert cases(connection)["reference_nodule"].eq(1.0).all()
    records.rounds.round()
    records.answered(1)
    records.rounds.round()
    rung = [row for row in records.rows(alerts) if row.kind == "performance"]
    records.database.close()
    assert [(row.watch, row.severity) for row in rung] == [("sensitivity of nodule", "urgent")]


def test_the_api_and_the_metrics_say_what_stands_and_a_person_ends_it(noisy):
    node = WebNode(noisy.settings, noisy.database, ObjectStore(noisy.settings.folder, "web"))
    web = TestClient(web_app(node), base_url="http://127.0.0.1")
    seen = web.get("/api/monitor").json()
    assert seen["verdict"] == "1 alert stands"
    assert seen["models"][0]["verdict"] == "urgent: measure_noise (station=bbbbbbbb)"
    assert {row["watch"] for row in seen["models"][0]["drift"]} >= {"measure_noise", "probability_nodule"}
    text = web.get("/metrics").text
    assert 'isocenter_alerts{severity="urgent"} 1.0' in text
    assert 'isocenter_watch_log_evidence{model="nodule",scope="station=bbbbbbbb",watch="measure_noise"}' in text
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
