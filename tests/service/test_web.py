"""The API of a node: what lies in it, what a person may ask of it, and who may ask."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from fastapi import Response

from hilum.errors import UsageError
from hilum.service import configuration, supervisor
from hilum.service.configuration import PeerSection
from hilum.service.records import record_database
from hilum.service.web import node_routes, server
from hilum.service.web.dicomweb import search
from hilum.service.web.web_node import WebNode
from ports import free_port
from service.objects_sent import encoded, simulated
from service.web_served import served

PEERS = [PeerSection(name="pacs", ae_title="ORTHANC", host="127.0.0.1", port=1)]
LISTS = ("studies", "jobs", "aside", "models", "peers", "worklist", "notices")


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A node with three studies, of which 1.2.0 has an answer on its way to a peer; tests only read it."""
    with served(tmp_path_factory.mktemp("web") / "node", peers=PEERS, models=[Path("m")]) as web:
        for number in range(3):
            web.store(encoded(simulated(f"1.2.3.{number}", study=f"1.2.{number}")))
        web.complete("1.2.0", {"Modality": "MR"}, modality="MR")
        files = {"answer.dcm": (b"seg", "2.25.7"), "findings.json": (b"{}", None)}
        web.job = web.answer("1.2.0", files, ["pacs"])
        yield web


@pytest.fixture
def fresh(tmp_path):
    """A node of its own."""
    with served(tmp_path / "node", peers=PEERS) as web:
        yield web


@pytest.mark.parametrize("name", LISTS)
def test_a_list_says_what_its_rows_are(node, name):
    answer = node.client.get(f"/api/{name}").json()
    assert list(answer) == ["schema", "version", "rows"]
    assert (answer["schema"], answer["version"]) == (f"hilum.{name}", 1)


def test_a_study_has_its_jobs_with_their_answers_and_deliveries(node):
    study = node.client.get("/api/studies/1.2.0").json()
    assert {name: study[name] for name in ("study", "state", "revision", "instances")} == {
        "study": "1.2.0",
        "state": "complete",
        "revision": 1,
        "instances": 1,
    }
    [job] = study["jobs"]
    assert (job["job"], job["rule"], job["model"], job["state"]) == (node.job, "all", "m", "sending")
    assert (job["outcome"], job["reason"], job["series"]) == ("answered", None, ["1.2.3"])
    assert job["answers"] == [
        {
            "kind": "seg",
            "name": "answer.dcm",
            "sop_instance_uid": "2.25.7",
            "deliveries": [{"peer": "pacs", "state": "waiting", "reason": None, "attempts": 0, "sent_as": None}],
        },
        {"kind": "findings", "name": "findings.json", "sop_instance_uid": None, "deliveries": []},
    ]
    assert node.client.get(f"/api/jobs/{node.job}").json() == job


def test_the_rules_say_why_a_series_is_taken_or_not(node):
    answer = node.client.get("/api/studies/1.2.0/route").json()
    [row] = answer["rows"]
    assert (answer["schema"], list(row)) == ("hilum.route", ["series", "rule", "role", "taken", "conditions"])
    assert (row["series"], row["rule"], row["taken"]) == ("1.2.3", "m", True)
    assert all(list(one) == ["name", "wanted", "found", "holds"] for one in row["conditions"])
    assert node.client.get("/api/studies/1.2.1/route").status_code == 409


def test_the_node_says_where_it_receives(node):
    about = node.client.get("/api/node").json()
    assert (about["dicom"], about["dicom_over_tls"], about["ae_title"]) == ("127.0.0.1:11112", None, "HILUM")


def test_a_model_is_named_with_its_hash_and_its_rules(node):
    [model] = node.client.get("/api/models").json()["rows"]
    assert {name: model[name] for name in ("name", "hash", "modality", "rules")} == {
        "name": "m",
        "hash": "h",
        "modality": "MR",
        "rules": ["m"],
    }


def test_pages_of_a_list_hold_every_row_once(node):
    seen, after = [], {}
    while rows := node.client.get("/api/studies", params={"limit": 2, **after}).json()["rows"]:
        seen += [row["study"] for row in rows]
        after = {"after": seen[-1]}
    assert seen == ["1.2.0", "1.2.1", "1.2.2"]


def test_a_list_holds_only_rows_of_the_state_that_is_asked_for(node):
    rows = node.client.get("/api/studies", params={"state": "receiving"}).json()["rows"]
    assert [row["study"] for row in rows] == ["1.2.1", "1.2.2"]
    assert node.client.get("/api/jobs", params={"state": "done"}).json()["rows"] == []


def test_a_file_of_a_result_is_fetched_by_its_name_alone(node):
    answer = node.client.get(f"/api/jobs/{node.job}/answers/answer.dcm")
    assert (answer.content, answer.headers["content-type"]) == (b"seg", "application/dicom")
    for name in ("other.dcm", "..%2F..%2Fnode.sqlite", "%2E%2E"):
        assert node.client.get(f"/api/jobs/{node.job}/answers/{name}").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/studies/9.9", 404),
        ("GET", "/api/studies/..%2F..", 404),
        ("GET", f"/api/jobs/{'0' * 32}", 404),
        ("GET", "/api/jobs/nonsense", 422),
        ("GET", "/api/studies?limit=0", 422),
        ("GET", "/api/studies?after=9.9", 422),
        ("GET", "/api/studies?state=finished", 422),
        ("GET", "/api/jobs?state=receiving", 422),
        ("POST", "/api/studies/9.9/complete", 404),
        ("POST", "/api/studies/1.2.0/complete", 409),
        ("POST", "/api/studies/1.2.1/reroute", 409),
        ("POST", f"/api/jobs/{'0' * 32}/retry", 404),
        ("POST", "/api/peers/nobody/echo", 404),
        ("POST", "/api/peers/pacs/echo", 502),
        ("POST", "/api/aside/7/release", 404),
        ("DELETE", "/api/studies", 405),
        ("GET", "/nothing", 404),
    ],
)
def test_what_cannot_be_done_is_answered_with_problem_place_and_remedy(node, method, path, status):
    answer = node.client.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"problem", "where", "remedy"}
    assert all(answer.json().values())


def test_a_study_is_completed_by_hand_and_routed_anew(fresh):
    fresh.store(encoded(simulated()))
    assert fresh.client.post("/api/studies/1.2/complete").json()["state"] == "receiving"  # the keeper is next
    fresh.complete("1.2")
    assert fresh.client.post("/api/studies/1.2/reroute").json()["state"] == "complete"


def test_a_job_is_cancelled_once_and_then_done_again(fresh):
    fresh.store(encoded(simulated()))
    job = fresh.answer("1.2", {"answer.dcm": (b"seg", "2.25.7")}, ["pacs"])
    assert fresh.client.post(f"/api/jobs/{job}/retry").status_code == 409
    assert fresh.client.post(f"/api/jobs/{job}/cancel").json()["state"] == "cancelled"
    assert fresh.client.post(f"/api/jobs/{job}/cancel").status_code == 409
    assert fresh.client.post(f"/api/jobs/{job}/retry").json()["state"] == "waiting"


def test_what_lies_aside_changes_places_with_the_object_that_came_first(fresh):
    first, other = encoded(simulated()), encoded(simulated(StudyDescription="another"))
    fresh.store(first)
    fresh.complete("1.2")
    fresh.store(other)
    [row] = fresh.client.get("/api/aside").json()["rows"]
    assert (row["n"], row["reason"]) == (1, "another object with the same UID came first")
    assert fresh.client.post("/api/aside/1/release").status_code == 200
    [kept] = fresh.settings.folder.glob("studies/*/*/*/*.dcm")
    assert kept.read_bytes() == other
    assert (fresh.settings.folder / "aside/1/object.dcm").read_bytes() == first
    study = fresh.client.get("/api/studies/1.2").json()
    assert (study["revision"], study["state"]) == (2, "receiving")


PATHS = """
GET /health/live, GET /health/ready, GET /metrics, GET /api/node, GET /api/models, GET /api/peers,
POST /api/peers/{name}/echo, GET /api/studies, GET /api/studies/{study}, GET /api/studies/{study}/route,
POST /api/studies/{study}/complete, POST /api/studies/{study}/reroute, POST /api/studies/{study}/lift,
GET /api/series/{series}/range, GET /api/jobs, GET /api/jobs/{job},
GET /api/jobs/{job}/fhir, GET /api/jobs/{job}/answers/{name}, POST /api/jobs/{job}/retry,
POST /api/jobs/{job}/cancel, GET /api/aside,
POST /api/aside/{n}/release, GET /api/worklist, GET /api/notices, POST /api/notices/{n}/acknowledge, GET /v2,
GET /v2/health/live, GET /v2/health/ready, GET /v2/models/{name}, GET /v2/models/{name}/ready,
POST /v2/models/{name}/infer, GET /api/audit,
GET /api/login, POST /api/login, POST /api/logout, GET /api/me, PUT /api/me/password, GET /api/login/openid,
GET /api/login/openid/answer, GET /api/accounts, POST /api/accounts, PUT /api/accounts/{account}, GET /api/tokens,
POST /api/tokens, DELETE /api/tokens/{token}, GET /api/worklist/events, GET /api/series/{series}/grid,
GET /api/series/{series}/slices/{plane}/{k}, GET /api/studies/{study}/reading,
GET /api/jobs/{job}/maps/{name}/slices/{plane}/{k}, GET /api/jobs/{job}/draft, POST /api/jobs/{job}/draft,
DELETE /api/jobs/{job}/draft/{stroke}, PUT /api/jobs/{job}/correction, POST /api/jobs/{job}/feedback,
GET /api/alerts, POST /api/alerts/{n}/acknowledge, POST /api/alerts/{n}/close, GET /api/monitor,
POST /api/monitor/baseline, POST /api/monitor/holds/{n}/undo, GET /api/changes, POST /api/changes/{n}/approve,
POST /api/changes/{n}/end, GET /api/blind, POST /api/blind/{job}, GET /api/incidents, POST /api/incidents,
PUT /api/incidents/{n}
"""


def test_every_path_is_stated_and_no_other(node):
    stated = node.client.get("/openapi.json").json()["paths"]
    ours = {(kind.upper(), path) for path, kinds in stated.items() for kind in kinds if "dicomweb" not in path}
    assert ours == {tuple(one.split()) for one in PATHS.split(",")}
    parameters = {one["name"] for one in stated["/api/studies"]["get"]["parameters"]}
    assert parameters == {"state", "limit", "after"}


def test_health_says_which_part_does_not_work(fresh):
    assert fresh.client.get("/health/live").json() == {"live": True}
    answer = fresh.client.get("/health/ready")
    assert (answer.status_code, answer.json()["parts"][-1]) == (
        503,
        {"part": "keeper", "ok": False, "problem": "it is not running"},
    )
    alive = fresh.settings.folder / "alive"
    alive.mkdir()
    (alive / "keeper").touch()
    assert fresh.client.get("/health/ready").json()["ready"]
    (alive / "worker-1").touch()
    os.utime(alive / "worker-1", (time.time() - 600,) * 2)
    answer = fresh.client.get("/health/ready")
    assert answer.status_code == 503
    assert {part["part"]: part["ok"] for part in answer.json()["parts"]} == {
        "database": True,
        "disk": True,
        "keeper": True,
        "worker-1": False,
    }


def test_a_database_that_does_not_answer_makes_the_node_not_ready(fresh):
    away = WebNode(
        fresh.settings, record_database.open_database(f"postgresql://node@127.0.0.1:{free_port()}/none"), None
    )
    response = Response()
    parts = {part.part: (part.ok, part.problem) for part in asyncio.run(node_routes.ready(away, response)).parts}
    assert (response.status_code, parts["database"]) == (503, (False, "it does not answer"))


def test_a_full_disk_makes_the_node_not_ready_and_is_no_reason_to_lose_an_object(tmp_path):
    with served(tmp_path / "node", node={"min_free_gb": 1e9}) as web:
        answer = web.client.get("/health/ready")
        assert (answer.status_code, answer.json()["parts"][1]["part"]) == (503, "disk")
        refused = web.store(encoded(simulated()))
        assert (refused.status_code, int(refused.headers["Retry-After"]) > 0) == (503, True)


def test_metrics_count_by_state(node):
    text = node.client.get("/metrics").text
    assert 'hilum_studies{state="receiving"} 2.0' in text
    assert 'hilum_jobs{state="sending"} 1.0' in text
    assert 'hilum_deliveries{peer="pacs",state="waiting"} 1.0' in text
    assert "hilum_free_bytes" in text
    assert 'hilum_oldest_seconds{what="waiting delivery"}' in text


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_node_on_postgresql_answers_alike(database, postgresql, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "STUDIES_AT_ONCE", 1)
    with served(tmp_path / "node", peers=PEERS, database={"url": postgresql}) as web:
        for number in range(3):
            web.store(encoded(simulated(f"1.2.3.{number}", study=f"1.2.{number}")))
        web.answer("1.2.0", {"answer.dcm": (b"seg", "2.25.7")}, ["pacs"])
        rows = web.client.get("/api/studies", params={"limit": 2, "after": "1.2.0"}).json()["rows"]
        assert [row["study"] for row in rows] == ["1.2.1", "1.2.2"]
        [job] = web.client.get("/api/jobs", params={"state": "sending"}).json()["rows"]
        assert [one["state"] for one in job["answers"][0]["deliveries"]] == ["waiting"]
        assert 'hilum_jobs{state="sending"} 1.0' in web.client.get("/metrics").text
        assert web.client.get("/health/ready").json()["parts"][0] == {"part": "database", "ok": True, "problem": None}
        (web.settings.folder / "results" / job["job"] / "answer.dcm").unlink()
        found = web.client.get("/dicomweb/series", params={"PatientID": "secret-17"}).json()
        assert [one["0020000E"]["Value"] for one in found] == [["1.2.3"]] * 3


def test_with_a_token_nothing_but_health_and_how_to_log_in_is_said_to_others(tmp_path, monkeypatch):
    monkeypatch.setenv("HILUM_TOKEN", "secret")
    with served(tmp_path / "node", token="secret") as web:  # noqa: S106
        paths = web.client.get("/openapi.json").json()["paths"]
        for path in [*paths, "/openapi.json", "/nothing"]:
            for wrong in ({}, {"Authorization": "Bearer secrex"}, {"Authorization": "Basic c2VjcmV0"}):
                answer = web.client.build_request("GET", path, headers=wrong)
                if not wrong:
                    del answer.headers["Authorization"]
                status = web.client.send(answer).status_code
                assert (status == 401) == (not path.startswith(("/health/", "/v2/health/", "/api/login"))), path
        assert web.client.get("/api/node", headers={"Host": "node.example"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"Origin": "https://evil.example"}, 403),
    ],
)
def test_without_a_token_only_this_machine_by_its_own_name_is_served(node, headers, status):
    assert node.client.get("/api/node", headers=headers).status_code == status


def test_an_address_that_others_reach_needs_a_token(tmp_path, monkeypatch):
    settings = configuration.read_settings(folder=tmp_path, http={"host": "0.0.0.0", "port": 0})  # noqa: S104
    for start in (server.web_listeners, supervisor.prepare_node):
        with pytest.raises(UsageError, match="no token is set"):
            start(settings)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("HILUM_TOKEN", "secret")
    [listener] = server.web_listeners(settings)
    listener.close()


def test_a_port_in_use_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = configuration.read_settings(folder=tmp_path, http={"port": taken.getsockname()[1]})
        with pytest.raises(UsageError, match="Address already in use"):
            server.web_listeners(settings)


def test_no_log_holds_what_names_a_patient(fresh, caplog, monkeypatch):
    monkeypatch.setattr("hilum.service.web.web_node.study_key", lambda name: {}[name])
    assert fresh.client.get("/api/studies/1.2.840.99").status_code == 500
    while "KeyError" not in caplog.text:  # it is written once the answer has gone
        time.sleep(0.01)
    assert "1.2.840.99" not in caplog.text
    assert "1.2.840.99" not in json.dumps([record.__dict__ for record in caplog.records], default=str)


def test_the_node_speaks_https_where_it_has_a_certificate(tmp_path):
    key, certificate = tmp_path / "node.key", tmp_path / "node.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2", "-nodes"]
    made = ["openssl", "req", "-x509", *subject, "-newkey", "rsa:2048", "-keyout", key, "-out", certificate]
    subprocess.run(made, check=True, capture_output=True)
    http = {"port": 0, "tls": {"certificate": str(certificate), "key": str(key)}}
    with served(tmp_path / "node", http=http) as web:
        assert web.url.startswith("https://")
        assert web.client.get("/api/studies").status_code == 200
        with pytest.raises(httpx.HTTPError):
            httpx.get(web.url.replace("https", "http") + "/api/studies", timeout=5)


def test_a_certificate_that_is_none_is_refused_by_name_before_anything_is_served(tmp_path):
    (tmp_path / "node.pem").write_text("hello")
    http = {"port": 0, "tls": {"certificate": str(tmp_path / "node.pem"), "key": str(tmp_path / "node.pem")}}
    with pytest.raises(UsageError, match=r"node\.pem: no TLS"):
        server.web_listeners(configuration.read_settings(None, [], tmp_path / "node", http=http))
