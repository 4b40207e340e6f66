"""Parties in processes of their own: kits, what these let a job do, whose they are, and what NVFlare carries."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

import hilum
from hilum import installation
from hilum.errors import DatasetError, HilumError, IntegrityError, UsageError, WorkerLostError
from hilum.federation import exchanges, parties, party_kits
from hilum.federation.exchanges import ExchangeRecords, SiteMessage
from hilum.federation.federated_run import JobRecord
from hilum.runs.plan_request import PlanRequest

needs_nvflare = pytest.mark.skipif(find_spec("nvflare") is None, reason="nvflare is not installed (extra federated)")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Kits of two federations; tests only read them."""
    root = tmp_path_factory.mktemp("kits")
    for name in ("first", "second"):
        (described := root / f"{name}.yaml").write_text("parties: [b, a]\nhost: localhost\nport: 8102\n")
        hilum.provision_federation(described, out=root / name)
    return root


@pytest.mark.parametrize(
    "text",
    [
        "parties: [a, a]\nhost: localhost\nport: 8102",
        "parties: [a, server]\nhost: localhost\nport: 8102",
        "parties: [a/b]\nhost: localhost\nport: 8102",
        "parties: []\nhost: localhost\nport: 8102",
        "parties: [a]\nhost: localhost\nport: 70000",
        "parties: [a]\nport: 8102",
        "parties: [a",
        "",
    ],
)
def test_a_file_that_describes_no_federation_is_refused(text, tmp_path):
    (path := tmp_path / "FEDERATION.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"describes no federation .*Give parties"):
        party_kits.read_federation(path)


@needs_nvflare
def test_each_party_has_a_kit_that_names_our_two_classes_alone_and_lets_nobody_bring_code(made):
    assert sorted(path.name for path in (made / "first").iterdir()) == ["a", "b", "server"]
    for name in ("a", "b", "server"):
        local = made / "first" / name / "local"
        allowed = json.loads((local / "resources.json").read_text())
        assert (allowed["class_allow_list"], allowed["class_list_enforcement_mode"]) == ([*party_kits.OURS], "enforce")
        rights = json.loads((local / "authorization.json").read_text())["permissions"]
        assert [of["byoc"] for of in rights.values()] == ["none"]
    assert "/nvflare/" not in (made / "first" / "server" / "local" / "resources.json").read_text()
    assert not (made / "first" / "a" / party_kits.OPERATOR).exists()  # only the server submits jobs


@needs_nvflare
def test_nvflare_itself_refuses_other_classes_and_jobs_with_code(made):
    from nvflare.apis.fl_exception import UnsafeComponentError
    from nvflare.apis.workspace import Workspace
    from nvflare.app_common.widgets.component_path_authorizer import ComponentPathAuthorizer
    from nvflare.fuel.sec.authz import AuthorizationService
    from nvflare.private.fed.utils.app_authz import AppAuthzService
    from nvflare.security.security import FLAuthorizer

    workspace = Workspace(str(made / "first" / "a"), "a")
    authorizer = ComponentPathAuthorizer()
    for ours in party_kits.OURS:
        authorizer.authorize_component_config({"path": ours}, workspace=workspace)
    with pytest.raises(UnsafeComponentError):
        authorizer.authorize_component_config(
            {"path": "nvflare.app_common.workflows.fedavg.FedAvg"}, workspace=workspace
        )
    policy = json.loads((made / "first" / "a" / "local" / "authorization.json").read_text())
    AuthorizationService.initialize(FLAuthorizer("hilum", policy))
    who = {"submitter_name": "o", "submitter_org": "hilum", "submitter_role": "project_admin"}
    assert AppAuthzService.authorize_app_info({"byoc": True}, **who) == (False, "BYOC not permitted")
    assert AppAuthzService.authorize_app_info({"byoc": False}, **who) == (True, "")


@needs_nvflare
def test_guards_are_written_anew_when_a_party_starts(made, tmp_path):
    shutil.copytree(made / "first" / "a", tmp_path / "a")
    (tmp_path / "a" / "local" / "resources.json").write_text('{"class_allow_list": ["*"]}')
    party_kits.read_kit(tmp_path / "a").write()
    assert json.loads((tmp_path / "a" / "local" / "resources.json").read_text())["class_allow_list"] == [
        *party_kits.OURS
    ]


@needs_nvflare
def test_kits_of_another_party_or_federation_are_refused(made, tmp_path):
    with pytest.raises(UsageError, match=r"is the kit of a\. Give the server's"):
        hilum.serve_federation(made / "first" / "a", out=tmp_path / "JOB")
    with pytest.raises(UsageError, match=r"is the kit of server\. Give that of your site"):
        hilum.join_federation(made / "first" / "server", data=tmp_path, yes=True)
    with pytest.raises(UsageError, match="holds no kit"):
        hilum.join_federation(tmp_path, data=tmp_path, yes=True)


@needs_nvflare
def test_a_server_refuses_what_it_cannot_do_before_it_starts(made, tmp_path):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        with pytest.raises(UsageError, match="cannot be listened on"):
            parties.take_port("", taken.getsockname()[1])
    assert parties.take_port("localhost", 0) > 0
    with pytest.raises(UsageError, match="3 of 2 sites"):
        hilum.serve_federation(made / "first" / "server", out=tmp_path / "JOB", min_sites=3)
    with pytest.raises(UsageError, match="a folder for a job, or a job to resume"):
        hilum.serve_federation(made / "first" / "server")


@needs_nvflare
def test_an_exported_job_is_nvflares_layout_and_names_no_path_of_this_machine(made, tmp_path):
    hilum.serve_federation(
        made / "first" / "server", export=tmp_path / "job", assignments={"training.steps": 8}, min_sites=1
    )
    files = {path.relative_to(tmp_path / "job").as_posix(): path for path in (tmp_path / "job").rglob("*.json")}
    configured = "app/config/config_fed"
    assert sorted(files) == [f"{configured}_client.json", f"{configured}_server.json", "meta.json"]
    assert json.loads(files["meta.json"].read_text())["deploy_map"] == {"app": ["@ALL"]}
    assert not [path for path in files.values() if str(tmp_path) in path.read_text()]
    executor = json.loads(files[f"{configured}_client.json"].read_text())["executors"][0]["executor"]
    request = party_kits.read_request(executor["args"]["request"], {"reading": {"labels": "1=core"}})
    assert (request.assignments, request.reading.labels) == ({"training.steps": 8}, "1=core")


def test_a_missing_nvflare_is_one_line_that_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(party_kits, "find_spec", lambda name: None)
    line = re.escape(installation.install_line("federated"))
    with pytest.raises(UsageError, match=rf"nvflare is not installed\. {line}"):
        hilum.federate({"a": tmp_path}, out=tmp_path / "JOB", transport="mtls")
    assert not (tmp_path / "JOB.sites").exists()


def test_errors_travel_as_classes_of_ours_and_say_nothing_of_cases_elsewhere():
    error = DatasetError("has no image of Jane Doe", "/data/doe", "Look at it")
    sent = exchanges.error_message(party_kits.discreet_error(error, "a")).encoded
    answer = exchanges.read_answer(sent, "a", 1.0)
    assert isinstance(answer.error, DatasetError) and answer.message is None
    assert "doe" not in str(answer.error).lower() and "site a: cannot go on with its data" in str(answer.error)
    for name in ("SystemExit", "describe_fault", "Callable", "NoSuchThing"):
        assert (
            type(exchanges.read_error({"class": name, "problem": "x", "where": "y", "remedy": "z"})) is IntegrityError
        )
    assert exchanges.read_answer(b"no message", "a", 1.0).error is not None


def test_a_person_is_shown_the_plan_and_may_refuse_it(tmp_path, monkeypatch):
    kit, shown = party_kits.Kit(tmp_path, "a", ("a",), 1), []

    def person(*answers):
        """Somebody who answers while the site waits."""
        said = iter(answers)
        monkeypatch.setattr(
            time, "sleep", lambda _: party_kits.ask_person(kit, lambda plan: shown.append(plan) or next(said))
        )

    person(True)
    party_kits.wait_for_agreement(kit, "the plan")
    party_kits.wait_for_agreement(kit, "the plan")  # once more after a loss: nobody is asked again
    assert shown == ["the plan"]
    with pytest.raises(UsageError, match="refuses the plan"):  # agreed to another one
        party_kits.wait_for_agreement(kit, "another plan")
    (tmp_path / party_kits.ANSWER).unlink()
    person(False)
    with pytest.raises(UsageError, match="refuses the plan"):
        party_kits.wait_for_agreement(kit, "another plan")


class Tasks:
    """A controller whose sites answer what they are given at once, or never."""

    def __init__(self, answers, gone=()):
        self.answers, self.gone, self.cancelled = answers, gone, []

    def broadcast(self, task, context, targets, min_responses):
        for name in targets:
            if name in self.answers:
                client = type("Client", (), {"name": name})
                done = type("ClientTask", (), {"client": client, "result": self.answers[name]})
                task.result_received_cb(client_task=done, fl_ctx=context)

    def get_client_disconnect_time(self, name):
        return time.time() if name in self.gone else None

    def cancel_task(self, task):
        self.cancelled.append(task)


@needs_nvflare
def test_messages_are_tasks_and_a_site_that_is_late_or_gone_is_lost(monkeypatch):
    from hilum.federation import nvflare_carrier

    monkeypatch.setattr(nvflare_carrier, "LOOK", 0.01)
    good = {nvflare_carrier.MESSAGE: SiteMessage("round", {"loss": 0.5}).encoded}
    signal = type("Signal", (), {"triggered": False})
    for timeout, gone in ((0.02, ()), (None, ("b",))):
        tasks = Tasks({"a": dict(good), "c": {nvflare_carrier.MESSAGE: b"\x80\x04pickle"}}, gone)
        carrier = nvflare_carrier.TaskCarrier(tasks, None, signal, ("a", "b", "c"), timeout)
        answers = dict(carrier.ask(SiteMessage("round"), 1, ExchangeRecords()))
        assert answers["a"].facts == {"loss": 0.5} and not answers["a"].error
        assert isinstance(answers["b"].error, WorkerLostError) and isinstance(answers["c"].error, IntegrityError)
        assert len(tasks.cancelled) == 1
    signal.triggered = True
    carrier = nvflare_carrier.TaskCarrier(Tasks({}), None, signal, ("a",), None)
    with pytest.raises(HilumError, match="ended from outside"):
        dict(carrier.ask(SiteMessage("round"), 1, ExchangeRecords()))


@needs_nvflare
def test_a_site_sends_no_facts_of_smaller_groups_than_it_has_agreed_to(tmp_path):
    from hilum.federation import nvflare_carrier

    kit = party_kits.Kit(tmp_path, "a", ("a",), 1, {"min_count": 10})
    asked = SiteMessage("stand-ins", {"min_count": 2, "kinds": ["class"]})
    with pytest.raises(UsageError, match=r"site a: sends no facts of groups of 2. Ask for federation.min_count=10"):
        nvflare_carrier.SiteExecutor("{}")._answer(kit, asked)


def test_how_a_job_ended_is_read_as_it_was_written(tmp_path):
    kit = party_kits.Kit(tmp_path, "server", ("a",), 1)
    assert party_kits.read_end(kit) is None
    party_kits.write_end(kit, WorkerLostError("is gone", "site a", "Look"))
    error = party_kits.read_end(kit).error
    assert (type(error), str(error)) == (WorkerLostError, "site a: is gone. Look.")
    party_kits.write_end(kit)
    assert party_kits.read_end(kit).error is None


def test_a_job_in_nvflares_layout_builds_nothing_but_our_classes(tmp_path):
    party_kits.write_job(tmp_path / "job", PlanRequest(), JobRecord("mtls", 2, 1.0, True))
    text = "".join(path.read_text() for path in (tmp_path / "job").rglob("*.json"))
    assert text.count('"path"') == 2 and all(one in text for one in party_kits.OURS)
