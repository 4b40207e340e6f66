"""A whole node: its processes, a real sender, and what remains when any of them is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from sqlalchemy import select

import hilum
import packages
from hilum.errors import UsageError
from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.layouts import dataset_layouts, layout
from hilum.monitoring.acceptance_plan import ACCEPTANCE, CONDITIONAL, SCHEMA
from hilum.runtime import record_files
from hilum.service.records import record_database, tables
from hilum.service.records.accounts import Accounts
from hilum.service.records.study_index import StudyIndex
from hilum.values import Geometry, Image
from service import followed
from service.objects_sent import data_set, encoded, simulated
from service.receiving import dcmtk
from service.talking import Talk, object_sent
from service.thresholds import threshold_model

QUICK = {
    "dicom": {"port": 0},
    "http": {"port": 0},
    "study": {"complete_after_s": 0.5},
    "node": {"min_free_gb": 0},
    "queue": {"lease_s": 2},
}
ROLES = ("receiver", "keeper", "worker", "web")
WAIT_S = 120


def study(folder: Path, number: int, description: str = "study") -> list[Path]:
    """Six slices of MR with a bright block, of a patient of its own."""
    data = np.zeros((1, 12, 10, 6), np.int16)
    data[0, 2:6, 3:7, 1:4] = 100 + number
    image = Image(data, Geometry((12, 10, 6), np.diag([-1.0, -1, 2, 1])), modality="MR")
    series_writing.write_series(image, SeriesNames(f"p{number}", description, "series"), folder)
    return sorted(folder.iterdir())


def send(node, paths: list[Path]) -> None:
    """By DCMTK, again and again until the node has taken all."""
    host, port = node.settings.dicom.host, str(node.settings.dicom.port)
    for _ in range(40):
        command = [dcmtk("storescu"), "-aec", "HILUM", host, port, *map(str, paths)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode == 0:
            return
        time.sleep(0.3)
    raise AssertionError(done.stderr.decode())


def rows(node, table):
    database = record_database.open_database(node.settings.database_url)
    with database.read() as connection:
        found = connection.execute(select(table)).all()
    database.close()
    return found


def until(condition, what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def hurry(node) -> None:
    """Wait for no further image of any study."""
    database = record_database.open_database(node.settings.database_url)
    for row in rows(node, tables.STUDIES):
        StudyIndex(database).hurry(row.study)
    database.close()


def killed(node, role: str) -> None:
    """`kill -9` of the processes of a role."""
    for child in node._children:
        if child.role == role and child.process is not None:
            os.kill(child.process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return threshold_model(tmp_path_factory.mktemp("model"), 50)


@pytest.fixture(scope="module")
def node(tmp_path_factory, model, request):
    """A node that runs, and waits five minutes for further images; the last test that uses it stops it."""
    try:
        port = request.getfixturevalue("orthanc_server").port
    except pytest.skip.Exception:
        port = 1
    sections = {
        **QUICK,
        "study": {"complete_after_s": 300},
        "peers": [{"name": "pacs", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": port}],
        "rules": [
            {"name": "bright", "model": model.name, "when": {"StudyDescription": "study"}},
            {"name": "sent", "model": model.name, "when": {"StudyDescription": "for the PACS"}, "send": ["pacs"]},
        ],
    }
    with hilum.serve(model, folder=tmp_path_factory.mktemp("shared") / "node", **sections) as running:
        yield running


@pytest.mark.whole
def test_whatever_process_is_killed_every_study_has_one_result(tmp_path, node):
    for number, role in enumerate(ROLES):
        send(node, study(tmp_path / str(number), number))
        killed(node, role)
    count = len(ROLES)
    until(lambda: [row.instances for row in rows(node, tables.STUDIES)] == [6] * count, "an object is lost")
    hurry(node)
    until(lambda: [row.state for row in rows(node, tables.STUDIES)] == ["done"] * count, "a study is lost, or not done")
    found = rows(node, tables.JOBS)
    assert sorted((row.state, row.outcome) for row in found) == [("done", "answered")] * count
    for row in found:
        answer = np.asarray(hilum.read(node.settings.folder / "results" / row.job / "answer.nii.gz").data)
        assert answer.sum() == 4 * 4 * 3
    log = (node.settings.folder / "node.jsonl").read_text()
    assert "p0" not in log
    assert all(f"{role}-0 was ended by signal 9; it is restarted" in log for role in ROLES)
    until(lambda: hilum.verify_audit(node.settings.folder).unsealed == 0, "an event is not sealed")
    events = Counter(row.action for row in rows(node, tables.AUDIT))
    assert (events["study received"], events["prediction"]) == (count, count) and events["association"] >= count
    assert all(row.patient for row in rows(node, tables.AUDIT) if row.action == "prediction")


def test_a_second_node_in_the_folder_of_one_that_runs_is_refused_and_leaves_its_settings(node, model):
    kept = (node.settings.folder / "settings.json").read_text()
    for check in (True, False):
        with pytest.raises(UsageError, match="another node runs"):
            hilum.serve(model, folder=node.settings.folder, check=check, **QUICK)
    assert (node.settings.folder / "settings.json").read_text() == kept


def test_an_answer_in_the_pacs_lies_on_the_voxels_of_its_study_and_is_committed_there(tmp_path, node, orthanc):
    orthanc.knows("node", "HILUM", node.settings.dicom.port)
    for path in study(tmp_path / "study", 1, "for the PACS"):
        orthanc.ask("/instances", path.read_bytes())
    [known] = orthanc.ask("/studies")
    # It asks Orthanc how many objects the study has, and does not wait for five minutes.
    orthanc.ask("/modalities/node/store", {"Resources": [known], "Synchronous": True})
    until(
        lambda: [row.state for row in rows(node, tables.DELIVERIES)] == 2 * ["committed"],
        "SEG and SR were not committed",
    )
    until(lambda: {row.state for row in rows(node, tables.STUDIES)} == {"done"}, "a study is not done")
    listed = httpx.get(f"{node.http}/api/studies").json()["rows"]
    [said] = [one for one in listed if one["jobs"][0]["rule"] == "sent"]
    answer = said["jobs"][0]["answers"][0]
    assert answer["deliveries"] == [
        {"peer": "pacs", "state": "committed", "reason": None, "attempts": 1, "sent_as": None}
    ]
    web = DICOMwebClient(f"{node.http}/dicomweb")
    [found] = web.search_for_instances(said["study"], search_filters={"Modality": "SEG"})
    fetched = web.retrieve_instance(said["study"], found["0020000E"]["Value"][0], answer["sop_instance_uid"])
    assert fetched.SegmentSequence[0].SegmentLabel
    assert httpx.get(f"{node.http}/health/ready").json()["ready"]
    [segmentation] = [one for one in orthanc.ask("/series?expand") if one["MainDicomTags"]["Modality"] == "SEG"]
    back = tmp_path / "back.dcm"
    back.write_bytes(orthanc.ask(f"/instances/{segmentation['Instances'][0]}/file"))
    [case] = dataset_layouts.read_dataset(tmp_path / "study", layout.DatasetOptions(references=False))
    [source] = case.images.values()
    found = hilum.read(back)
    places = source.geometry.to_index(found.geometry.to_world(np.argwhere(np.asarray(found.data)[0] > 0)))
    marked = np.zeros(source.geometry.shape, bool)
    marked[tuple(np.rint(places).astype(int).T)] = True
    np.testing.assert_array_equal(marked, np.asarray(source.data)[0] > 50)


@pytest.mark.whole
def test_a_node_that_exists_is_continued_by_a_command_that_says_when_it_is_ready_and_drains_at_sigterm(
    tmp_path, node, model
):
    count = len(rows(node, tables.STUDIES)) + 1
    send(node, study(tmp_path / "late", len(ROLES)))  # which the node would wait five minutes for
    node.stop()
    folder = node.settings.folder
    config = folder.parent / "node.toml"
    config.write_text(
        f'[dicom]\nport = 0\n[http]\nport = 0\n[node]\nmin_free_gb = 0\n[models."{model.name}"]\npath = "{model}"\n'
        "[study]\ncomplete_after_s = 0.5\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "hilum", "serve", "--config", str(config)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder.parent)
    try:
        line = running.stdout.readline().decode()
        assert line.startswith("ready: DICOM 127.0.0.1:"), line + running.stderr.read().decode()
        assert ", http://127.0.0.1:" in line
        until(lambda: [row.state for row in rows(node, tables.STUDIES)] == ["done"] * count, "a study is not answered")
        assert {row.outcome for row in rows(node, tables.JOBS)} == {"answered"}
        began = time.monotonic()
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0
        assert time.monotonic() - began < 30
    finally:
        running.kill()
    assert json.loads((folder / "models.json").read_text())["rows"][0]["name"] == model.name


@pytest.mark.whole
def test_peers_that_stall_keep_no_node_from_ending_within_30_s(tmp_path, model):
    config = tmp_path / "node.toml"
    config.write_text("[dicom]\nport = 0\n[http]\nport = 0\n[node]\nmin_free_gb = 0\n", encoding="utf-8")
    command = [sys.executable, "-m", "hilum", "serve", str(model), "--config", str(config)]
    head = b"POST /dicomweb/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n"
    head += b'Content-Type: multipart/related; type="application/dicom"; boundary=b\r\n\r\n--b'
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path) as running:
        try:
            dicom, web = map(int, re.findall(r"127\.0\.0\.1:(\d+)", running.stdout.readline().decode()))
            with Talk(dicom) as idle, Talk(dicom) as stalled, socket.create_connection(("127.0.0.1", web)) as uploading:
                idle.associate()
                stalled.associate()
                stalled.say(object_sent(data_set(encoded(simulated())), "1.2.3.4")[:-10])
                uploading.sendall(head)
                until(lambda: list((tmp_path / "node").rglob("*.part")), "the half object does not come")
                running.send_signal(signal.SIGTERM)
                assert running.wait(30) == 0
        finally:
            running.kill()


def test_check_looks_at_everything_and_starts_nothing(tmp_path, model, cli, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *given: None)  # which stay those of the tests
    (tmp_path / "node.toml").write_text("[dicom]\nport = 0\n[http]\nport = 0\n")
    checked = cli("serve", model, "--config", tmp_path / "node.toml", "--check")
    assert (checked.code, "are in order" in checked.out) == (0, True), checked.err
    assert re.search(r"warning: model \S+: no gate: every image gets an answer", checked.err)
    assert re.search(
        r"warning: model \S+: label 1, 'bright', has no code: its segment goes out as \"Tissue\"", checked.err
    )
    assert not (tmp_path / "node" / "alive").exists()
    (tmp_path / "node.toml").write_text("[dicom]\nport = 0\nprot = 1\n")
    refused = cli("serve", model, "--config", tmp_path / "node.toml")
    assert (refused.code, "node.toml, line 3, [dicom]: dicom.prot: there is no such key" in refused.err) == (2, True)
    ports = "[dicom]\nport = 0\n[http]\nport = 0\n"
    rules = f'[models.m]\npath = "{model}"\n[[rules]]\nname = "r"\nmodel = "m"\nwhen = {{ Modalty = "MR" }}\n'
    for text, words in (
        (f'{ports}[models.m]\npath = "none"\n', f"line 6, [models.m]: {tmp_path}/none: there is no such model"),
        (f"{ports}{rules}", "line 7, [[rules]]: rule 'r': 'Modalty' is neither a DICOM keyword"),
    ):
        (tmp_path / "node.toml").write_text(text)
        refused = cli("serve", "--config", tmp_path / "node.toml", "--check")
        assert (refused.code, words in refused.err) == (2, True), refused.err


@pytest.mark.whole
def test_a_model_that_does_not_load_is_refused_before_anything_starts(tmp_path, model):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    broken.with_suffix(".json").write_bytes(model.with_suffix(".json").read_bytes())
    with pytest.raises(UsageError, match=r"broken\.onnx"):
        hilum.serve(broken, folder=tmp_path / "node", **QUICK)
    with pytest.raises(UsageError, match="no such model"):
        hilum.serve(tmp_path / "none", folder=tmp_path / "node", **QUICK)


def test_a_port_in_use_is_refused_before_anything_starts(tmp_path, model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for role in ("dicom", "http"):
            with pytest.raises(UsageError, match="cannot be listened on"):
                hilum.serve(model, folder=tmp_path / "node", **{**QUICK, role: {"port": taken.getsockname()[1]}})
    assert not (tmp_path / "node").exists()


def test_without_the_extra_the_remedy_is_its_installation(tmp_path, model, monkeypatch):
    monkeypatch.setattr("hilum.verbs.serve.EXTRA", ("no_such_package",))
    with pytest.raises(UsageError, match=r"no_such_package is not installed\..*\[service\]"):
        hilum.serve(model, folder=tmp_path / "node")
    with pytest.raises(UsageError, match="no_such_package is not installed"):
        hilum.route(tmp_path, model)


def test_an_unknown_role_names_those_that_there_are(tmp_path, model):
    with pytest.raises(UsageError, match="receiver, keeper, worker, web"):
        hilum.serve(model, folder=tmp_path / "node", role="router")


@pytest.mark.whole
def test_an_accepted_model_answers_its_scanners_is_halted_beyond_a_limit_and_goes_on_when_two_people_agree(tmp_path):
    with packages.no_export():
        package = packages.packed(packages.segmenting(), tmp_path / "model")
    manifest, accepted = record_files.file_digest(package / "manifest.json"), tmp_path / "accepted"
    accepted.mkdir()
    record = {"verdict": CONDITIONAL, "model": manifest, "conditions": {"scanner": ["Alpha"]}}
    record_files.write_json(accepted / ACCEPTANCE, SCHEMA, record)
    record_files.seal_folder(accepted)
    (tmp_path / "node.toml").write_text("""
[models.kidneys]
path = "model"
require_acceptance = true
acceptance = "accepted"
stop = [{ seconds_p95 = 1e-6 }]
[[rules]]
name = "all"
model = "kidneys"
""")

    def came(numbers: range, scanner: str) -> list[Path]:
        stated = {"ManufacturerModelName": scanner, "SeriesDescription": "T1"}
        return [
            path
            for n in numbers
            for path in followed.study(
                tmp_path / scanner / str(n), "20240101", 6.0, PatientID=f"{scanner}{n}", **stated
            )
        ]

    def outcomes() -> Counter:
        return Counter((row.state, row.outcome) for row in rows(node, tables.JOBS))

    with hilum.serve(config=tmp_path / "node.toml", folder=tmp_path / "node", **QUICK) as node:
        send(node, [*came(range(20), "Alpha"), *came(range(1), "Beta")])
        ended = {("done", "answered"): 20, ("done", "abstained"): 1}
        until(lambda: outcomes() == ended, "not every study has its outcome")
        [other] = [row for row in rows(node, tables.JOBS) if row.outcome == "abstained"]
        assert other.reason == "the model was not accepted here for scanner Beta"
        until(lambda: rows(node, tables.HOLDS), "the model is not halted")
        [hold] = rows(node, tables.HOLDS)
        assert hold.action == "halt"
        send(node, came(range(20, 21), "Alpha"))
        reasons = lambda: [row.reason or "" for row in rows(node, tables.JOBS) if row.state == "waiting"]  # noqa: E731
        until(lambda: any("stopped by" in one for one in reasons()), "the job does not say why it waits")
        database = record_database.open_database(node.settings.database_url)
        Accounts(database).first("a password of the first one")
        for name in ("ada", "ben"):
            Accounts(database).make(name, "radiologist", "my own long password")
        database.close()
        for name, status in (("ada", 200), ("ada", 409), ("ben", 200)):
            with httpx.Client(base_url=node.http, timeout=60) as browser:
                known = browser.post("/api/login", json={"account": name, "password": "my own long password"}).json()
                browser.headers["X-CSRF-Token"] = known["csrf"]
                undone = browser.post(f"/api/monitor/holds/{hold.n}/undo", json={"reason": "a slow disk, mended"})
                assert undone.status_code == status, undone.text
        until(lambda: outcomes()["done", "answered"] == 21, "the model does not go on")
