"""The worklist: findings give studies their priority, and people get notices of the most urgent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import ClassVar

import highdicom
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from files.test_dicom_sr_structures import judged
from hilum.errors import UsageError
from hilum.files.dicom.reading import sr_reading
from hilum.service import configuration, model_facts
from hilum.service._courier import Couriers
from hilum.service.configuration import UrgencyRule
from hilum.service.model_facts import ModelFacts
from hilum.service.records import alert_records, tables
from hilum.service.records.alert_records import NOTICE
from hilum.service.records.job_queue import Job, JobOutcome, Jobs
from hilum.service.routing import routing_rules
from hilum.service.web import server as web_server
from hilum.service.web.web_node import WebNode
from ports import free_port
from service.objects_sent import encoded, simulated
from service.small_node import LEVEL, SmallNode
from service.thresholds import threshold_model

PNEUMOTHORAX = {"finding": "pneumothorax", "probability": 0.8, "priority": "emergency"}


@pytest.mark.parametrize(
    ("rows", "priority", "because"),
    [
        ([{"concept": "pneumothorax", "probability": 0.8}], "emergency", "probability 0.8, not calibrated"),
        ([{"concept": "pneumothorax", "probability": 0.9, "calibrated": True}], "emergency", "probability 0.9; from"),
        ([{"concept": "pneumothorax", "probability": 0.7996}], None, ""),
        ([{"concept": "pneumothorax", "probability": float("nan")}], None, ""),
        ([{"concept": "effusion", "value": 6.25, "unit": "ml"}], "urgent", "effusion: 6.25 ml; from 5 on urgent"),
        ([{"concept": "effusion", "value": True}], None, ""),
        (
            [{"concept": "effusion", "value": 9, "unit": "ml"}, {"concept": "pneumothorax", "probability": 0.95}],
            "emergency",
            "pneumothorax",
        ),
    ],
)
def test_the_most_urgent_rule_that_a_finding_meets_gives_the_priority_and_the_reason(rows, priority, because):
    rules = [UrgencyRule(finding="effusion", value=5, priority="urgent"), UrgencyRule(**PNEUMOTHORAX)]
    given = model_facts.most_urgent(rows, rules)
    assert (given and given.priority) == priority
    assert because in (given.because if given else "")


def test_a_probability_that_no_model_states_for_a_rule_or_bound_and_a_notice_that_no_rule_could_send_are_refused():
    settings = configuration.read_settings(urgent=[PNEUMOTHORAX])
    with pytest.raises(UsageError, match=r"no model of the node states a probability of 'pneumothorax'"):
        routing_rules.rules_of(settings, {"m": ModelFacts("m", "h", findings=("odd",))})
    assert routing_rules.rules_of(settings, {"m": ModelFacts("m", "h", findings=("pneumothorax",))})
    settings = configuration.read_settings(urgent=[{"finding": "lung", "value": 5, "priority": "urgent"}])
    with pytest.raises(UsageError, match=r"states a value of 'lung'. Name one of liver, short axis"):
        routing_rules.rules_of(
            settings, {"m": ModelFacts("m", "h", findings=("lung",), values=("short axis", "liver"))}
        )
    settings = configuration.read_settings(bound=[{"metric": "npv", "label": "lung", "at_least": 0.9}])
    with pytest.raises(UsageError, match=r"a probability of 'lung'. Name one of odd"):
        routing_rules.rules_of(settings, {"m": ModelFacts("m", "h", findings=("odd",), values=("lung",))})
    hook = {"when": "emergency", "by": "webhook", "to": "http://127.0.0.1:1/"}
    with pytest.raises(UsageError, match="which no rule of"):
        configuration.read_settings(notify=[hook])
    with pytest.raises(UsageError, match="needs the section smtp"):
        configuration.read_settings(
            urgent=[PNEUMOTHORAX], notify=[{**hook, "by": "smtp", "to": "duty@hospital.example"}]
        )


def api(node: SmallNode) -> TestClient:
    """The application, without a server."""
    return TestClient(
        web_server.web_app(WebNode(node.settings, node.database, node.store)), base_url="http://localhost"
    )


def test_the_worklist_goes_by_priority_and_then_by_age(tmp_path):
    node = SmallNode(tmp_path / "node")
    urgent = [UrgencyRule(finding="effusion", value=5, priority="urgent")]
    node.settings = node.settings.model_copy(update={"urgent": urgent})
    for number in range(3):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(encoded(simulated(f"1.2.3.{number}", study=f"1.2.{number}")))
        node.receive(path)
        node.keeper.round()
    # The node has no model: what one would find is stated here.
    queue = Jobs(node.database)
    findings = {1: [{"concept": "effusion", "value": 6.25, "unit": "ml"}], 2: []}
    for number, rows in findings.items():
        [study] = [row.study for row in node.rows(tables.STUDIES) if row.uid == f"1.2.{number}"]
        with node.database.write() as connection:
            columns = {"rule": "r", "model": "m", "model_hash": "h", "revision": 1, "priority": 2}
            queue.add(connection, study=study, inputs_hash="i", inputs={"series": {}}, **columns)
        job = queue.claim("w")
        assert isinstance(job, Job)
        urgency = model_facts.most_urgent(rows, node.settings.urgent)
        assert queue.finish(job, JobOutcome("answered", findings=rows, urgency=urgency, is_empty=not rows))
    client = api(node)
    listed = client.get("/api/worklist").json()
    assert (listed["schema"], listed["version"]) == ("hilum.worklist", 1)
    assert [(row["study"], row["priority"]) for row in listed["rows"]] == [
        ("1.2.1", "urgent"),
        ("1.2.0", "routine"),
        ("1.2.2", "routine"),
    ]
    named = ["patient", "modality", "description", "finding", "job", "verdict", "outcome", "reason", "is_corrected"]
    assert list(listed["rows"][0]) == ["study", "priority", "because", "received_at", "state", *named]
    reasons = [row["because"] for row in listed["rows"]]
    assert reasons[0] == "effusion: 6.25 ml; from 5 on urgent"
    assert reasons[1:] == ["no rule takes a series of it", "no finding makes it urgent"]
    assert [row["outcome"] for row in listed["rows"]] == ["answered", "refused", "answered"]
    assert [row["finding"] for row in listed["rows"]] == ["effusion: 6.25 ml", "", "nothing found"]
    assert "no rule" in listed["rows"][1]["reason"]
    with node.database.write() as connection:
        connection.execute(update(tables.STUDIES).values(received_at=0.0))
    assert client.get("/api/worklist").json()["rows"] == []


class Hook(BaseHTTPRequestHandler):
    """A webhook that notes what it gets, and answers with the statuses that a test gives it, then with 204."""

    statuses: ClassVar[list[int]]
    got: ClassVar[list[tuple[str, dict]]]
    location = ""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.got.append((self.headers["Idempotency-Key"], body))
        self.send_response(self.statuses.pop(0) if self.statuses else 204)
        self.send_header("Location", self.location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST  # noqa: N815

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@contextmanager
def hook(port: int, *statuses: int, location: str = "") -> Iterator[type[Hook]]:
    made = type("OneHook", (Hook,), {"statuses": list(statuses), "got": [], "location": location})
    server = ThreadingHTTPServer(("127.0.0.1", port), made)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()


def bright_node(folder: Path, mr: list[Path], *listed: dict, **sections) -> tuple[SmallNode, Couriers]:
    """A node with one urgent study, whose notice waits for these recipients."""
    node = SmallNode(
        folder / "node",
        threshold_model(folder / "model", LEVEL),
        urgent=[{"finding": "bright", "value": 0.01, "priority": "urgent"}],
        notify=[{"when": "urgent", **one} for one in listed],
        http={"url": "https://node.example/"},
        **sections,
    )
    node.receive(*mr)
    node.work()
    return node, Couriers(node.settings, node.database)


def at_once(node: SmallNode) -> None:
    with node.database.write() as connection:
        connection.execute(update(tables.DELIVERIES).values(next_at=0.0))


def test_a_webhook_that_fails_gets_the_notice_again_under_the_same_id_and_the_job_does_not_wait(tmp_path, mr):
    port = free_port()
    node, couriers = bright_node(tmp_path, mr, {"by": "webhook", "to": f"http://127.0.0.1:{port}/x"})
    [job], [recipient] = node.rows(tables.JOBS), couriers.recipients
    assert (job.state, job.urgency) == ("done", 1)
    assert job.because.startswith("bright: ")
    assert couriers.deliver(recipient) == 0  # nobody listens
    with hook(port, 503) as made:
        for _ in range(3):
            at_once(node)
            couriers.deliver(recipient)
    assert [key for key, _ in made.got] == [alert_records.notice_key(job.job)] * 2
    stated = made.got[0][1]
    named = {"notice", "study", "job", "outcome", "model", "model_version", "finding", "priority", "link"}
    assert stated.keys() - {"schema", "version"} == named
    told = [stated[name] for name in ("outcome", "model", "model_version")]
    assert told == ["answered", job.model, job.model_version]
    [study] = node.rows(tables.STUDIES)
    assert (stated["study"], stated["priority"]) == (study.uid, "urgent")
    assert stated["link"] == f"https://node.example/api/jobs/{job.job}"
    assert [row.state for row in node.rows(tables.DELIVERIES)] == ["sent"]


def test_a_report_states_the_priority_that_its_findings_give(tmp_path, mr):
    node, _ = bright_node(tmp_path, mr)
    path = node.result("answer_report.dcm")
    judged(path)
    [job], report = node.rows(tables.JOBS), highdicom.sr.srread(path)
    [evaluations] = [one for one in report.ContentSequence if one.name.value == "C0034375"]
    coded, reason = evaluations.ContentSequence
    assert (coded.name.meaning, coded.value.value, coded.value.meaning) == ("Priority", "103391001", "Urgent")
    assert reason.value == job.because
    assert {one.concept for one in sr_reading.read_report(path).stated}.isdisjoint({"Priority"})


def test_a_notice_goes_to_the_next_recipient_in_time_unless_it_is_acknowledged(tmp_path, mr):
    ports = free_port(), free_port()
    listed = [{"by": "webhook", "to": f"http://127.0.0.1:{port}/", "after_min": 5} for port in ports]
    node, couriers = bright_node(tmp_path, mr, *listed)
    first, second = sorted(node.rows(tables.DELIVERIES), key=lambda row: row.next_at)
    assert [first.peer, second.peer] == list(couriers.recipients)
    assert second.next_at - first.next_at == pytest.approx(300, abs=5)
    with hook(ports[0]) as one, hook(ports[1]) as other:
        assert [couriers.deliver(name) for name in couriers.recipients] == [1, 0]
        client = api(node)
        [row] = client.get("/api/notices", params={"unacknowledged": True}).json()["rows"]
        assert row["acknowledged_at"] is None
        answer = client.post(f"/api/notices/{row['notice']}/acknowledge").json()
        at_once(node)
        assert couriers.deliver(second.peer) == 0
    assert (len(one.got), len(other.got)) == (1, 0)
    assert answer["acknowledged_at"] is not None
    assert [sent["state"] for sent in answer["deliveries"]] == ["sent", "aside"]
    assert client.get("/api/notices", params={"unacknowledged": True}).json()["rows"] == []
    assert node.worker.jobs.retry(answer["job"])  # done again, the notice is still acknowledged
    node.work()
    assert [row.state for row in node.rows(tables.DELIVERIES) if row.peer == second.peer] == ["aside"]
    assert len(node.rows(tables.NOTICES)) == 1


def test_a_webhook_that_redirects_to_this_machine_is_refused_and_the_next_recipient_gets_the_notice(tmp_path, mr):
    ports = free_port(), free_port()
    listed = [{"by": "webhook", "to": f"http://127.0.0.1:{port}/", "after_min": 60} for port in ports]
    node, couriers = bright_node(tmp_path, mr, *listed)
    with hook(ports[1]) as other, hook(ports[0], 307, location=f"http://127.0.0.1:{ports[1]}/redirected"):
        first, second = couriers.recipients
        couriers.deliver(first)
        assert other.got == []
        couriers.deliver(second)
    assert len(other.got) == 1
    states = {row.peer: (row.state, row.reason) for row in node.rows(tables.DELIVERIES)}
    assert states[second] == ("sent", None)
    assert states[first][0] == "aside"
    assert "redirects" in states[first][1]


class Mailbox(StreamRequestHandler):
    """A server for e-mail that takes what comes."""

    got: ClassVar[list[str]] = []

    def handle(self) -> None:
        self._say("220 here")
        while line := self.rfile.readline().decode().strip():
            if line.upper() == "DATA":
                self._say("354 go on")
                text = b""
                while not text.endswith(b"\r\n.\r\n"):
                    text += self.rfile.readline()
                self.got.append(text.decode())
            self._say("221 bye" if line.upper() == "QUIT" else "250 ok")

    def _say(self, words: str) -> None:
        self.wfile.write(f"{words}\r\n".encode())


def test_an_email_bears_the_id_of_the_notice_and_names_nobody(tmp_path, mr):
    with ThreadingTCPServer(("127.0.0.1", 0), Mailbox) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        smtp = {"host": "127.0.0.1", "port": server.server_address[1], "sender": "node@hospital.example", "tls": "none"}
        node, couriers = bright_node(tmp_path, mr, {"by": "smtp", "to": "duty@hospital.example"}, smtp=smtp)
        [recipient] = couriers.recipients
        assert couriers.deliver(recipient) == 1
        server.shutdown()
    [mail] = Mailbox.got
    [job] = node.rows(tables.JOBS)
    assert f"Message-ID: <{alert_records.notice_key(job.job)}@hospital.example>" in mail
    assert "Subject: urgent: bright" in mail
    assert "hospital" not in recipient  # the records and the log hold no address
    assert NOTICE in mail
