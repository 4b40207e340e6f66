"""What `doctor` finds on a machine: what is there, what is lacking, what fails while it looks, and its exit code."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import hilum
from hilum import installation
from hilum.options.command_index import COMMANDS
from hilum.runtime import hardware
from hilum.verbs import doctor as doctor_verb
from hilum.verbs.doctor import FINE, LACKING, UNKNOWN, MachineExamination, MachineFinding


def named(check: str) -> list[MachineFinding]:
    """The findings of one check."""
    return list(doctor_verb.CHECKS[check]())


def one(check: str) -> MachineFinding:
    [finding] = named(check)
    return finding


def put_program(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of this name, found before any other."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time for all checks, also where other tests take the cores."""
    monkeypatch.setattr(doctor_verb, "LIMIT_S", 60.0)


@pytest.fixture
def here() -> MachineExamination:
    return hilum.doctor()


def test_a_machine_that_runs_these_tests_can_do_the_main_job(here, cli):
    assert here.is_ready
    shown = cli("doctor")
    assert shown.code == 0
    assert shown.out.startswith("Nothing keeps this machine from the main job: check, plan, train, evaluate, predict")
    assert len(shown.out.splitlines()) == len(here.findings) + 1


def test_each_thing_has_a_line_and_each_extra_says_what_it_opens_and_how_to_get_it(here):
    findings = {finding.what: finding for finding in here.findings}
    assert {"Python", "packages", "processor", "memory", "working folder", "cache", "GPU", "clock"} <= findings.keys()
    assert {"Chromium", "C++ compiler", "DCMTK", "fonts", "ports"} <= findings.keys()
    for extra, opens in installation.EXTRAS.items():
        finding = findings[f"extra {extra}"]
        assert finding.opens == opens
        assert (finding.state, finding.remedy) in [(FINE, ""), (LACKING, installation.install_line(extra))]
    assert [finding.what for finding in here.findings if finding.state == LACKING and not finding.remedy] == []


def test_the_record_for_json_has_the_rows_and_the_machine_as_environment_json_has_it(cli):
    record = json.loads(cli("doctor", "--json").out)
    assert (record["schema"], record["is_ready"]) == ("hilum.doctor", True)
    assert record["environment"] == hardware.machine_environment()
    assert {row["state"] for row in record["rows"]} <= {FINE, LACKING, UNKNOWN}
    assert len(hilum.doctor().table) == len(record["rows"])


def test_too_little_memory_ends_with_1_and_the_remedy(cli, monkeypatch):
    monkeypatch.setattr(hardware, "available_host_memory", lambda: 1.5 * 2**30)
    done = cli("doctor")
    assert done.code == 1
    assert done.out.startswith("This machine cannot do the main job")
    assert re.fullmatch(r"memory: 1\.5 of [\d.]+ GiB are free\. A small training takes 2: close .*", done.last)


def test_a_cache_that_cannot_be_written_ends_with_1_and_the_variable_that_names_another(cli, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "file" / "cache"))
    done = cli("doctor")
    assert done.code == 1
    assert done.last.startswith("cache: ")
    assert "HILUM_CACHE" in done.last
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_missing_package_of_the_core_ends_with_1_and_the_line_that_installs_it(cli, monkeypatch):
    monkeypatch.setattr(installation, "missing_packages", lambda extra="": [] if extra else ["torch>=2.10"])
    done = cli("doctor")
    assert done.code == 1
    assert done.last == f"packages: not installed: torch>=2.10. {installation.install_line()}."


def test_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    assert hilum.doctor().is_ready
    assert list(tmp_path.iterdir()) == []


def test_a_clock_before_this_release_is_stated(monkeypatch):
    assert one("clock").state == FINE
    monkeypatch.setattr(hilum, "__date__", "2999-01-01")
    finding = one("clock")
    assert finding.state == LACKING
    assert "before this release of 2999-01-01" in finding.found


def test_a_port_that_is_taken_is_named_with_its_setting():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        finding = doctor_verb.port_finding({"dicom": port})
        assert finding.state == LACKING
        assert str(port) in finding.found
        assert "dicom.port" in finding.remedy
    assert doctor_verb.port_finding({"dicom": port}).state == FINE


def test_gpus_are_those_that_nvidia_smi_lists(tmp_path, monkeypatch):
    put_program(tmp_path, "nvidia-smi", "echo 'NVIDIA H200, 143771 MiB, 570.86.15'", monkeypatch)
    finding = one("GPU")
    assert finding.found.startswith("NVIDIA H200, 143771 MiB, 570.86.15 (name, memory, driver)")
    monkeypatch.setattr(hardware, "package_versions", lambda packages: {"torch": "2.13.0+cpu"})
    finding = one("GPU")
    assert finding.state == LACKING
    assert "torch 2.13.0+cpu is built without CUDA" in finding.found


@pytest.mark.parametrize(
    ("script", "state", "found"),
    [
        ("echo 'Failed to initialize NVML: Driver/library version mismatch' >&2; exit 18", LACKING, "version mismatch"),
        ("exit 9", LACKING, "ended with 9"),
        ("exec sleep 60", UNKNOWN, "no answer"),
    ],
)
def test_a_driver_that_fails_or_hangs_is_a_line(tmp_path, monkeypatch, script, state, found):
    monkeypatch.setattr(doctor_verb, "PROGRAM_S", 0.5)
    put_program(tmp_path, "nvidia-smi", script, monkeypatch)
    finding = one("GPU")
    assert finding.state == state
    assert found in finding.found
    assert "driver" in finding.remedy


def test_programs_that_are_not_found_have_a_remedy_each(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for check in ("Chromium", "C++ compiler", "DCMTK", "programs of tests"):
        assert one(check).state == LACKING
        assert one(check).remedy
    assert one("fonts").state == UNKNOWN


def test_fonts_without_the_letters_of_a_language_are_stated(tmp_path, monkeypatch):
    put_program(tmp_path, "fc-list", 'test "$2" != ":lang=ko"', monkeypatch)
    finding = one("fonts")
    assert (finding.state, finding.found) == (LACKING, "none has the letters of Korean")


def test_a_check_that_fails_or_hangs_is_a_line_and_the_others_answer():
    hold = threading.Event()

    def fails() -> Iterator[MachineFinding]:
        raise KeyError("no such entry")
        yield

    def hangs() -> Iterator[MachineFinding]:
        hold.wait(60)
        yield MachineFinding("hangs", FINE, "late")

    def answers() -> Iterator[MachineFinding]:
        yield MachineFinding("answers", FINE, "there")

    checks = {"fails": fails, "hangs": hangs, "answers": answers}
    findings = list(doctor_verb.run_checks(checks, time.monotonic() + 1.0))
    hold.set()
    assert [(finding.what, finding.state) for finding in findings] == [
        ("fails", UNKNOWN),
        ("hangs", UNKNOWN),
        ("answers", FINE),
    ]
    assert "it lacks 'no such entry'" in findings[0].found
    assert findings[1].found == "gave no answer in time"
    assert "; 2 things could not be looked at." in str(MachineExamination(tuple(findings))).splitlines()[0]


def test_the_date_of_the_release_is_that_of_the_changes_once_it_is_released():
    changes = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")
    [day] = re.findall(rf"^## {re.escape(hilum.__version__)}, (.+)$", changes, re.MULTILINE)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", hilum.__date__)
    assert day in ("unreleased", hilum.__date__)


def test_info_and_doctor_may_be_asked_by_agents_and_write_nothing():
    commands = {command.words: command for command in COMMANDS}
    for words in ("info", "doctor"):
        assert commands[words].reads
        assert not commands[words].is_own
