"""What SECURITY.md promises of the whole source; tests/documents/test_tracing.py holds that promises name tests."""

from __future__ import annotations

import json
import re
import shutil
import socket
import tomllib
from collections import Counter
from pathlib import Path

import hilum
import trained
from audit_dependencies import floors, judged, pinned
from hilum.studies.concealment import KEY

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "hilum"
TEXTS = {path.relative_to(SOURCE).as_posix(): path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")}


def holding(pattern: str) -> set[str]:
    """The files of the source in which a pattern is found."""
    return {path for path, text in TEXTS.items() if re.search(pattern, text, re.MULTILINE)}


def test_nothing_in_the_source_runs_what_a_file_says() -> None:
    # Our own processes, and a file that one of them wrote a moment ago in a folder of its own.
    ours = {f"runtime/parallel/{name}.py" for name in ("map_cases", "worker_main")}
    assert holding(r"\b(un)?pickle\.loads?\(|marshal\.|joblib|cloudpickle") == {
        *ours, "runtime/package/backend_trial.py",
    }  # fmt: skip
    assert not holding(r"(?<![.\w])(eval|exec|compile|__import__)\(|weights_only=False|allow_pickle=True")
    assert not holding(r"shell=True|os\.system|os\.popen|yaml\.(unsafe_|full_)?load\b|extractall\((?!room|partial)")


def test_json_of_strangers_is_parsed_in_one_place() -> None:
    # The others parse what lies in the installation, in our own cache, or what the same run has just written.
    ours = {
        "networks/member_catalogue.py",
        "quality/known_cases.py",
        "training/search_study.py",
        "scoring/case_scoring.py",
        "installation.py",
        "verbs/info.py",
    }
    assert holding(r"json\.loads?\(") == {"files/storage/structured_text.py", *ours}


def test_few_files_reach_for_a_network() -> None:
    libraries = r"urllib\.request|http\.client|socket|requests|ftplib|smtplib|aiohttp|httpx|mlflow|nvflare|distributed$"
    named = holding(rf"^\s*(import|from) ({libraries})")
    of_dicom = ("asking", "handed_associations", "dicom_listening", "messages", "receiver", "sending")
    assert named == {
        "files/storage/web.py", "networks/weight_loading.py", "runtime/parallel/dask_cluster.py", "training/_logs.py",
        "service/supervisor.py", "service/web/server.py", "service/web/openid.py", "service/web/dicomweb/retrieve.py",
        "service/exchange/fhir_server.py", "service/exchange/hl7_reports.py", "service/_node_threads.py",
        "service/_delivering.py",
        "service/_intake.py", "doors/loopback.py", "verbs/doctor.py",
        "federation/nvflare_carrier.py", "federation/parties.py", "service/work/prior_answers.py",
        *(f"service/dicom/{name}.py" for name in of_dicom),
    }  # fmt: skip


def test_checking_and_predicting_connect_to_nothing(cli, segmented, tmp_path, monkeypatch) -> None:
    asked = []
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, lambda self, address: asked.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **how: asked.append(where))
    image = segmented.data / "images" / "case00.nii.gz"
    assert cli("predict", segmented.out, image, "--out", tmp_path / "result").code == 0
    assert cli("check", segmented.data, "--labels", trained.LABELS, "--out", tmp_path / "check").code == 0
    assert asked == []


def test_the_lowest_torch_that_is_allowed_is_one_whose_reader_of_weights_is_safe() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lowest = dict(one.split("==") for one in floors(project))
    assert tuple(map(int, lowest["torch"].split("."))) >= (2, 10)  # CVE-2026-24747
    assert {"torchvision", "pydicom", "sqlalchemy", "psycopg", "pip-audit"} <= set(lowest)
    versions = pinned((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert len(versions) > 200 and any(one.startswith("torch==2.") for one in versions)


def test_an_audit_without_answers_states_that_nothing_was_audited() -> None:
    skipped = json.dumps({"dependencies": [{"name": "torch", "skip_reason": "not found"}]})
    for text in ("", "no JSON", "[]", skipped):
        [line], vulnerable = judged("floors", ["torch==2.8"], text, "ConnectionError")
        assert "NOTHING WAS AUDITED" in line and not vulnerable


def test_an_audit_names_each_vulnerability_and_how_many_versions_were_looked_at() -> None:
    flaw = {"id": "CVE-2026-24747", "fix_versions": ["2.10.0"]}
    known = [{"name": "torch", "version": "2.8", "vulns": [flaw]}, {"name": "own", "skip_reason": "not found"}]
    lines, vulnerable = judged("floors", ["torch==2.8", "own==1"], json.dumps({"dependencies": known}))
    assert vulnerable and lines == [
        "floors: torch 2.8: CVE-2026-24747, fixed in 2.10.0",
        "floors: 1 of 2 versions audited, 1 vulnerabilities",
    ]


PLAN = """\
title = "A second reader"
question = "Does it find more?"
design = "parallel"
arms = [{ name = "usual", text = "Without" }, { name = "model", text = "With" }]
endpoints = [{ name = "found", metric = "proportion", direction = "higher", primary = true }]
population = { criteria = "Adults" }
"""


def test_no_file_and_no_other_list_of_a_trial_tells_a_later_arm(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(KEY, "5e" * 32)
    (tmp_path / "study.toml").write_text(PLAN)
    hilum.study_plan(tmp_path / "study.toml", out=tmp_path / "plan")
    hilum.study_lock(tmp_path / "plan")
    given, written = [], []
    for name in ("first", "second"):
        study = Path(shutil.copytree(tmp_path / "plan", tmp_path / name))
        before = {path.name for path in study.iterdir()}
        hilum.study_randomise(study, method="block")
        written.append(b"".join(path.read_bytes() for path in study.iterdir() if path.name not in before))
        given.append([hilum.study_assign(study, participant=f"P{n}").arm for n in range(40)])
    assert given[0] != given[1]  # of one plan, under one key
    assert all(b"usual" not in one and b"model" not in one for one in written)
    assert all(Counter(arms[:40])["model"] in range(14, 27) for arms in given)
