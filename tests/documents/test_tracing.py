"""Requirements, promises and hazards: what names no test does not hold, here and in files of others."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

import hilum
from hilum.documents import guidelines, reporting_days, tracing
from hilum.documents.fact_file import QUESTIONS, Fact
from hilum.documents.subjects import DocumentSubject
from hilum.errors import UsageError

ROOT = Path(__file__).parents[2]
PROJECT = {
    "pyproject.toml": "",
    "tests/files/test_a.py": "def test_there():\n    pass\n",
    "src/tool/__init__.py": "",
    "src/tool/files/__init__.py": "",
    "PAGE.md": "- **Kept.** It holds (`tests/files/test_a.py::test_there`).\n\n- **Empty.** It holds.\n",
    "hazards.toml": """
[[hazards]]
id = "H1"
hazard = "A result is lost"
sequence = "A disk fills."
harm = "Late treatment."
severity = "serious"
control = "It is sent again."
tests = ["tests/files/test_a.py::test_there"]
[[hazards]]
id = "H2"
hazard = "A result is doubled"
sequence = "It is sent again."
harm = "Confusion."
severity = "minor"
tests = ["tests/files/test_a.py::test_there"]
[[hazards]]
id = "H3"
hazard = "A result is wrong"
sequence = "A bit flips."
harm = "Late treatment."
severity = "serious"
control = "It is compared."
""",
    "TABLE.md": """
| threat | what holds it |
|---|---|
| **Flood** | It stands high (`tests/files/test_a.py::test_there`) |
| **Fire** | It is of stone (`tests/files/test_a.py::test_gone`) |
""",
    "requirements.toml": """
promises = ["PAGE.md", "TABLE.md"]
hazards = "hazards.toml"
[[requirements]]
id = "R1"
text = "It reads."
source = "user need"
risk = "low"
tests = ["tests/files/test_a.py::test_there"]
[[requirements]]
id = "R2"
text = "It writes."
source = "user need"
risk = "low"
tests = ["tests/files/test_a.py::test_gone"]
[[requirements]]
id = "R3"
text = "It computes."
source = "user need"
risk = "low"
tests = []
[[requirements]]
id = "R4"
text = "It sends."
source = "user need"
risk = "low"
code = ["src/tool/gone.py"]
tests = ["tests/files/test_a.py::test_there"]
""",
}
RESULTS = '<testsuites><testsuite><testcase classname="tests.files.test_a" name="test_there[1]">{}</testcase>'
RESULTS += '<testcase classname="tests.files.test_a" name="test_there[2]"/></testsuite></testsuites>'


def project(folder: Path) -> Path:
    """A project in which some things hold; its requirements."""
    for name, text in PROJECT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / "requirements.toml"


def test_all_that_this_project_requires_promises_and_controls_names_tests_that_exist():
    trace = tracing.trace_project(ROOT / "docs" / "requirements.toml")
    assert [(row.id, row.problems) for row in trace.broken] == []
    kinds = [row.kind for row in trace.rows]
    assert kinds.count("requirement") >= 40 and kinds.count("hazard") >= 25 and kinds.count("promise") > 20
    assert sum(len(row.tests) for row in trace.rows if row.kind == "promise") > 50
    assert trace.layers[0] == "cli" and trace.layers[-1] == "errors"


def test_what_names_no_test_that_exists_does_not_hold(tmp_path, cli):
    trace = tracing.trace_project(project(tmp_path))
    assert {row.id: row.problems for row in trace.broken} == {
        "R2": ("tests/files/test_a.py::test_gone: no such test",),
        "R3": ("no test",),
        "R4": ("there is no src/tool/gone.py",),
        "PAGE Empty": ("no test",),
        "TABLE Fire": ("tests/files/test_a.py::test_gone: no such test",),
        "H2": ("no control",),
        "H3": ("no test",),
    }
    assert next(row.code for row in trace.rows if row.id == "R1") == ("src/tool/files",)
    assert next(row.text for row in trace.rows if row.id == "TABLE Flood") == "Flood: It stands high"
    result = cli("document", "trace", "--requirements", tmp_path / "requirements.toml", "--out", tmp_path / "trace")
    assert result.code == 1 and "7 do not hold; the first: R2" in result.last
    written = json.loads((tmp_path / "trace" / "trace.json").read_text())
    assert written["broken"] == ["R2", "R3", "R4", "PAGE Empty", "TABLE Fire", "H2", "H3"]


@pytest.mark.parametrize(
    ("inside", "result", "holds"),
    [("", "passed", True), ("<failure/>", "failed", False), ("<skipped/>", "passed", True)],
)
def test_with_results_a_requirement_needs_a_test_that_passed_and_none_that_failed(tmp_path, inside, result, holds):
    (tmp_path / "junit.xml").write_text(RESULTS.format(inside))
    first = tracing.trace_project(project(tmp_path), tmp_path / "junit.xml").rows[0]
    assert first.tests == {"tests/files/test_a.py::test_there": result}
    assert (first.problems == ()) == holds
    (tmp_path / "junit.xml").write_text("<testsuites/>")
    assert tracing.trace_project(tmp_path / "requirements.toml", tmp_path / "junit.xml").rows[0].problems == (
        "none of its tests passed",
    )


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [('id = "R2"', 'id = "R1"', "R1 stands twice"), ("risk =", "risks =", "'risks' is not known")],
)
def test_a_requirement_that_stands_twice_or_says_something_unknown_is_refused(tmp_path, before, after, problem):
    file = project(tmp_path)
    file.write_text(file.read_text().replace(before, after))
    with pytest.raises(UsageError, match=problem):
        tracing.trace_project(file)


def facts(**stated: str) -> dict[str, Fact]:
    return {key: Fact(key, value, "A. Reader", date(2026, 1, 5)) for key, value in stated.items()}


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """A result folder with one sensitivity, and the trace of this project."""
    row = {"metric": "sensitivity", "label": "all", "value": 0.9, "low": 0.8, "high": 0.95, "level": 0.95, "n": 50}
    summary = {"schema": "hilum.evaluation", "version": 1, "primary": "sensitivity", "rows": [row]}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    hilum.trace_requirements(ROOT / "docs" / "requirements.toml", out=tmp_path / "run" / "software")
    return tmp_path / "run"


def test_each_hazard_has_severity_probability_control_and_residual_risk(result, tmp_path):
    made = hilum.document(result, names="risk-file", out=tmp_path / "out")
    rows = {row["item"] + row["part"]: row for row in made.rows}
    assert (rows["H01b"]["state"], rows["H01b"]["pointer"]) == ("measured", "1-/rows/0/low")
    assert rows["H01b"]["value"] == pytest.approx(0.2)
    assert (rows["H03b"]["state"], rows["H01a"]["state"], rows["H01d"]["state"]) == ("missing",) * 3
    tests = next(one["tests"] for one in tracing.read_hazards() if one["id"] == "H03")
    assert all(test in rows["H03c"]["value"] for test in tests)
    page = (tmp_path / "out" / "risk-file.html").read_text()
    assert "At most 20 %, about 1 in 5. The 95 % interval of sensitivity is 0.8 to 0.95" in page
    assert "proposed: catastrophic" in rows["H03a"]["because"]
    assert hilum.verify_documents(tmp_path / "out", against=result).broken == []
    file = result / "summary.json"
    file.write_text(file.read_text().replace("0.8", "0.7"))
    assert any("H01" in str(one) for one in hilum.verify_documents(tmp_path / "out", against=result).broken)


def test_the_safety_class_follows_from_the_worst_severity_that_a_person_states(result):
    subject = DocumentSubject.open(result)
    listed = guidelines.read_guideline("software-file").for_subject(subject)
    stated = {f"severity_{one['id']}": "minor" for one in tracing.read_hazards()}
    for worst, words in (("Serious: an operation", "class C; rigour level II"), ("minor", "class B; rigour level II")):
        document = guidelines.fill_guideline(listed, subject, facts(**{**stated, "severity_H05": worst}))
        [row] = [row for row in document.rows if row["item"] == "4.3"]
        assert row["state"] == "stated" and words in row["because"]
    [row] = [
        row
        for row in guidelines.fill_guideline(listed, subject, facts(severity_H05="minor")).rows
        if row["item"] == "4.3"
    ]
    assert row["state"] == "missing"
    requirements = [row for row in document.rows if row["item"] == "5.2" and row["part"] == ""]
    assert len(requirements) >= 40 and requirements[0]["pointer"] == "/requirements/IN-1"


def test_third_party_software_comes_from_a_list_in_cyclonedx(result):
    (result / "bom.json").write_text(json.dumps({"bomFormat": "CycloneDX", "components": [{"name": "numpy"}]}))
    subject = DocumentSubject.open(result)
    rows = guidelines.fill_guideline(guidelines.read_guideline("software-file").for_subject(subject), subject, {}).rows
    [soup] = [row for row in rows if row["item"] == "8.1" and row["part"] == ""]
    assert (soup["record"], soup["value"]) == ("bom.json", "name: numpy")


@pytest.mark.whole
def test_the_list_of_packages_that_make_bom_writes_is_read(result):
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nbom:")[2].splitlines()[1]
    recipe = recipe.strip(" \t@").replace("$(BIN)/python", sys.executable).replace("bom.json", str(result / "bom.json"))
    subprocess.run(recipe.split(), cwd=ROOT, check=True, capture_output=True)
    subject = DocumentSubject.open(result)
    rows = guidelines.fill_guideline(guidelines.read_guideline("software-file").for_subject(subject), subject, {}).rows
    [soup] = [row for row in rows if row["item"] == "8.1" and row["part"] == ""]
    assert all(f"name: {name}" in soup["value"] for name in ("torch", "pydicom", "onnxruntime"))


def test_every_look_up_of_a_probability_and_every_question_of_a_hazard_is_known(result):
    subject = DocumentSubject.open(result)
    document = guidelines.fill_guideline(guidelines.read_guideline("risk-file").for_subject(subject), subject, {})
    assert len({one.item.number for one in document.answered if one.item.section == "Hazards"}) >= 25
    assert all(
        f"severity_{one['id']}" in QUESTIONS and f"residual_{one['id']}" in QUESTIONS for one in tracing.read_hazards()
    )


def test_reports_of_an_incident_are_due_by_its_kind():
    friday = date(2026, 11, 27)
    due = reporting_days.due_days("death", friday)
    assert list(due.values()) == ["2026-12-27", "2026-12-04", "2026-12-07"]
    assert list(reporting_days.due_days("possible", friday))[2] == "EU, 15 days"
    assert list(reporting_days.due_days("none", friday)) == ["none"]
