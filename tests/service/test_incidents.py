"""Incidents of a node: kept, changed, and reported in the fields that authorities ask for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fastapi.testclient import TestClient
from sqlalchemy import insert, select

import hilum
from hilum.service import configuration, node_folder
from hilum.service.records import tables
from hilum.service.records.actor import Actor
from hilum.service.records.alert_records import Incidents
from hilum.service.web import server
from hilum.service.web.web_node import WebNode
from service.small_node import SmallNode

STATED = {
    "kind": "decline",
    "harm": "A fracture was missed.",
    "version": "wrist 2",
    "known_on": "2026-11-02",
    "cause": "",
    "action": "",
    "checked": "",
}
SETTLED = {"cause": "A plaster cast.", "action": "Casts are refused.", "checked": "Twenty casts were refused."}
EVE = Actor("eve", "administrator")


def test_an_incident_is_kept_with_each_change_in_the_audit(database):
    incidents = Incidents(database)
    number = incidents.add(STATED, EVE)
    assert incidents.change(number, SETTLED, EVE) and not incidents.change(number + 1, SETTLED, EVE)
    [row] = incidents.rows(10)
    assert (row.harm, row.checked, row.account, row.study) == (STATED["harm"], SETTLED["checked"], "eve", None)
    with database.read() as connection:
        details = (
            connection.execute(select(tables.AUDIT.c.detail).where(tables.AUDIT.c.action == "incident")).scalars().all()
        )
    assert details == [
        {"kind": "decline", "stated": ["harm", "kind", "known_on", "version"]},
        {"changed": ["action", "cause", "checked"]},
    ]


def test_people_state_incidents_and_what_became_of_them_over_http(tmp_path):
    node = SmallNode(tmp_path / "node")
    web_node = WebNode(node.settings, node.database, node.store)
    client = TestClient(server.web_app(web_node), base_url="http://127.0.0.1:8180", client=("127.0.0.1", 4000))
    token = {"X-CSRF-Token": client.get("/api/me").json()["csrf"]}
    made = client.post(
        "/api/incidents", json={name: STATED[name] for name in ("kind", "harm", "known_on")}, headers=token
    )
    assert (made.status_code, made.json()["incident"]) == (201, 1)
    changed = client.put("/api/incidents/1", json=SETTLED, headers=token).json()
    assert (changed["cause"], changed["harm"]) == (SETTLED["cause"], STATED["harm"])
    assert [row["incident"] for row in client.get("/api/incidents").json()["rows"]] == [1]
    later = (datetime.now(UTC) + timedelta(days=3)).date().isoformat()
    for wrong, status in (({"known_on": later}, 422), ({"kind": "unheard of"}, 422), ({"study": "1.2.3"}, 404)):
        assert client.post("/api/incidents", json={**STATED, **wrong}, headers=token).status_code == status
    assert client.put("/api/incidents/9", json=SETTLED, headers=token).status_code == 404


def filled(database) -> None:
    """A study with an incident, and a job of which a reader rejected the result."""
    study = {"study": "s" * 32, "uid": "1.2", "state": "done", "instances": 1, "received_at": 0, "last_at": 0}
    job = {"job": "j" * 32, "study": "s" * 32, "rule": "r", "model": "wrist", "model_hash": "abc", "inputs_hash": "i"}
    job |= {"not_before": 0, "created_at": 0, "started_at": 1, "done_at": 3, "revision": 1, "inputs": []}
    said = {"judged": "j" * 32, "study": "s" * 32, "account": "ada", "at": 0, "verdict": "rejected", "reason": "missed"}
    with database.write() as connection:
        connection.execute(insert(tables.STUDIES).values(**study, attributes={"00100010": "Doe^Jane"}))
        connection.execute(insert(tables.JOBS).values(**job, state="done", outcome="answered", priority=0))
        connection.execute(insert(tables.FEEDBACK).values(**said, text="Doe missed", seconds=20.0, before=[], after=[]))
    Incidents(database).add({**STATED, "study": "s" * 32}, EVE)


def test_a_node_on_either_database_reports_incidents_with_their_deadlines(database, tmp_path):
    filled(database)
    if database.skips_locked:  # of PostgreSQL, whose place stands in the settings of the node
        place = database.engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
        settings = configuration.read_settings(None, (), tmp_path, database={"url": place})
        node_folder.settings_file(tmp_path, "keeper").write_text(settings.model_dump_json())
    made = hilum.document(tmp_path, names="incident,pms,risk-file", out=tmp_path / "out")
    rows = {(row["document"], row["item"], row["pointer"]): row for row in made.rows}
    due = [row["value"] for row in made.rows if row["item"].endswith(" due")]
    assert due == ["2026-12-02", "2026-11-09", "2026-11-12"]
    assert [row["value"] for row in made.rows if row["item"].endswith("FDA B5")] == [STATED["harm"]]
    assert next(row["state"] for row in made.rows if row["item"].endswith("FDA H3")) == "missing"
    [said] = [row["value"] for row in made.rows if row["document"] == "pms" and row["pointer"] == "/agreement"]
    assert all(words in said for words in ("judged: 1", "rejected: 1", "missed: 1"))
    assert rows["risk-file", "H10", "/rates/rejected/high"]["value"] == 1.0
    assert rows["pms", "5", "/alerts"]["value"] == "total: 0, open: 0, rows: none"
    assert "open: 1" in rows["risk-file", "10", "/incidents"]["value"]
    assert hilum.verify_documents(tmp_path / "out", against=tmp_path).broken == []
    assert "Doe" not in "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    Incidents(database).change(Incidents(database).rows(1)[0].incident, SETTLED, EVE)
    assert hilum.verify_documents(tmp_path / "out", against=tmp_path).broken != []
