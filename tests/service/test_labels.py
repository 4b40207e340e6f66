"""Labels that come later, and the choice of what to label next."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import insert, select

import hilum
from hilum.errors import DatasetError, UsageError
from hilum.monitoring import labelling
from hilum.service.model_facts import ModelFacts
from hilum.service.monitoring import monitored_cases, outcomes
from hilum.service.node_folder import MODELS
from hilum.service.objects import object_store
from hilum.service.records import record_database, tables
from service.databases import with_tables
from service.test_blind import add_job, job_of

FACTS = {
    "classes": ModelFacts("classes", "h", task="classification", findings=("calm", "odd")),
    "findings": ModelFacts("findings", "h", task="findings", findings=("nodule", "effusion")),
    "size": ModelFacts("size", "h", task="regression", values=("volume",)),
}
LABELS = "study,label,value,at,source\n"


def labelled_node(folder, model="findings", cases=60):
    """A node with results of a model: every second case is labelled, women are the first half."""
    folder.mkdir()
    database = with_tables(f"sqlite:///{folder / 'node.sqlite'}")
    rows = [asdict(FACTS[model])]
    (folder / MODELS).write_text(json.dumps({"schema": "hilum.models", "version": 1, "rows": rows}))
    random = np.random.default_rng(0)
    with database.write() as connection:
        for number in range(cases):
            job, p = job_of(number), (number % 10) / 10 + 0.05
            found = {"classes": _classes(p), "findings": _findings(p), "size": [{"concept": "volume", "value": p}]}[
                model
            ]
            sex = {"sex": {"value": "F" if number < cases // 2 else "M", "source": "DICOM"}}
            more = {"covariates": sex, "rule": model, "model": model, "model_hash": "h", "inputs": {"series": {}}}
            add_job(connection, job, float(number), found, patient=f"{number:016x}", **more)
            seen = random.normal(number % 3 * 8.0, 1, 4).astype(np.float16).tobytes()
            connection.execute(insert(tables.MEASURES).values(job=job, measures={}, distances={}, features=seen))
    database.close()
    return folder


def _classes(p):
    both = {"calm": 1 - p, "odd": p}
    return [{"concept": name, "probability": q, "group": "class", "called": q >= 0.5} for name, q in both.items()]


def _findings(p):
    return [{"concept": name, "probability": q, "value": q > 0.5} for name, q in (("nodule", p), ("effusion", 0.2))]


def rows_of(folder, table):
    database = record_database.node_database(folder)
    try:
        with database.read() as connection:
            return connection.execute(select(table)).all()
    finally:
        database.close()


def test_a_row_that_cannot_be_taken_stops_no_other_and_unknown_studies_are_named(tmp_path, cli):
    node = labelled_node(tmp_path / "node")
    lines = [
        "1.3,nodule,1,2026-03-01,pathology",
        "1.4,NODULE,absent,2026-03-01T10:00:00,registry",
        "9.9,nodule,1,2026-03-01,p",
    ]
    lines += [
        "1.5,tumour,1,2026-03-01,p",
        "1.6,nodule,0.5,2026-03-01,p",
        "1.7,nodule,1,soon,p",
        "1.8,nodule,1,2026-03-01,blind",
    ]
    lines += ["1.9,nodule,,2026-03-01,p", f"{object_store.uid_key('1.10')},,1,2026-03-01,p"]
    (tmp_path / "labels.csv").write_text(LABELS + "\n".join(lines))
    answer = json.loads(cli("feedback", "import", node, tmp_path / "labels.csv", "--json").out)
    assert (answer["rows"], answer["results"], answer["unknown"]) == (3, 3, ["9.9"])
    assert list(answer["refused"]) == ["4", "5", "6", "7", "9"]
    kept = {
        int(row.job[:16], 16): (row.label, row.value, row.source, row.inclusion)
        for row in rows_of(node, tables.OUTCOME_ROWS)
    }
    assert kept == {
        3: ("nodule", 1.0, "pathology", None),
        4: ("nodule", 0.0, "registry", None),
        9: ("nodule", 1.0, "p", None),
    }
    assert [row.detail["unknown"] for row in rows_of(node, tables.AUDIT)] == [1]
    database = record_database.node_database(node)
    with database.read() as connection:
        seen = monitored_cases.monitored_jobs(connection).set_index("case").loc[job_of(4)]
    database.close()
    # A late label counts for the day of its study.
    assert (seen["at"][:10], seen["reference_at"][:16], seen["reference_nodule"]) == (
        "1970-01-01",
        "2026-03-01T10:00",
        0.0,
    )
    # A row that says it again takes its place.
    again = pd.DataFrame([{"study": "1.3", "label": "nodule", "value": 0, "at": "2026-04-01", "source": "pathology"}])
    hilum.import_labels(node, again)
    assert sorted((row.label, row.value) for row in rows_of(node, tables.OUTCOME_ROWS))[0] == ("nodule", 0.0)
    assert len(rows_of(node, tables.OUTCOME_ROWS)) == 3


def test_labels_are_read_in_the_words_of_exports_and_none_lies_in_the_future(tmp_path):
    node = labelled_node(tmp_path / "node", cases=8)
    rows = ["1.3;nodule;Y;01.03.2026 10:00;p", "1.4;nodule;neg;25.03.2026;p", "1.5;nodule;n/a;25.03.2026;p"]
    (tmp_path / "labels.csv").write_text(LABELS.replace(",", ";") + "\n".join([*rows, "1.6;nodule;1;01.01.2046;p"]))
    taken = hilum.import_labels(node, tmp_path / "labels.csv")
    assert sorted((int(row.job[:16], 16), row.value) for row in rows_of(node, tables.OUTCOME_ROWS)) == [
        (3, 1.0),
        (4, 0.0),
    ]
    assert "no number, and not present or absent" in taken.refused[3]
    assert "'01.01.2046' lies in the future" in taken.refused[4]
    (tmp_path / "labels.csv").write_text(LABELS + "1.3,nodule,1,03.04.2026,p\n")
    with pytest.raises(DatasetError, match="which may be 2026-03-04 or 2026-04-03"):
        hilum.import_labels(node, tmp_path / "labels.csv")


@pytest.mark.parametrize("code", ["-999", "<0.5", "soon"])
def test_a_code_or_a_limit_is_no_label_of_a_number(tmp_path, code):
    node = labelled_node(tmp_path / "node", model="size", cases=12)
    lines = [f"1.{n},volume,{n}.5,2026-03-01,p" for n in range(1, 8)]
    (tmp_path / "labels.csv").write_text(LABELS + "\n".join([*lines, f"1.8,volume,{code},2026-03-01,p"]))
    taken = hilum.import_labels(node, tmp_path / "labels.csv")
    assert (taken.rows, list(taken.refused)) == (7, [8])


@pytest.mark.parametrize("lacking", ["study", "at", "source", "label,value"])
def test_a_table_without_a_column_is_refused_as_a_whole(tmp_path, lacking):
    node = labelled_node(tmp_path / "node", cases=1)
    row = {"study": "1.0", "label": "nodule", "value": "1", "at": "2026-03-01", "source": "p"}
    with pytest.raises(DatasetError, match=f"has no column {lacking.partition(',')[0]}"):
        hilum.import_labels(node, pd.DataFrame([row]).drop(columns=lacking.split(",")))
    assert rows_of(node, tables.OUTCOME_ROWS) == []


def test_a_class_excludes_the_others_and_a_number_needs_no_label(tmp_path):
    row = {"study": "1.0", "at": "2026-03-01", "source": "p"}
    classes, size = (labelled_node(tmp_path / name, name, 1) for name in ("classes", "size"))
    assert hilum.import_labels(classes, pd.DataFrame([{**row, "label": "odd"}])).rows == 1
    assert {one.label: one.value for one in rows_of(classes, tables.OUTCOME_ROWS)} == {"calm": 0.0, "odd": 1.0}
    assert hilum.import_labels(size, pd.DataFrame([{**row, "value": "12.5"}])).rows == 1
    assert {one.label: one.value for one in rows_of(size, tables.OUTCOME_ROWS)} == {"volume": 12.5}


def test_no_patient_of_a_locked_set_and_no_labelled_case_is_chosen(tmp_path, cli):
    node, locked = labelled_node(tmp_path / "node", cases=12), tmp_path / "locked"
    locked.mkdir()
    for number in range(4):
        hilum.write(hilum.read(picture(tmp_path / "one.png", number)), locked / f"{number}.png")
    table = [{"case": f"c{n}", "image": f"{n}.png", "patient": f"{n:016x}", "label": "ab"[n % 2]} for n in range(4)]
    pd.DataFrame(table).to_csv(locked / "dataset.csv", index=False)
    database = record_database.node_database(node)
    with database.write() as connection:
        outcomes.write_outcomes(connection, job_of(4), {"nodule": 1.0}, "pathology")
        connection.execute(
            insert(tables.BLIND_READS).values(job=job_of(5), inclusion=0.5, sampled_at=0, week="w", state="waiting")
        )
    database.close()
    for place in (locked, tmp_path / "locked.looks.jsonl"):
        out = tmp_path / f"out-{place.suffix}"
        assert cli("feedback", "next", node, 100, "--locked", place, "--out", out).code == 0
        chosen = pd.read_csv(out / "next.csv", dtype=str, keep_default_na=False)
        assert list(chosen) == ["rank", "case", "method", "score", "because", "study"]
        assert sorted(int(one.removeprefix("case_"), 16) for one in chosen["case"]) == list(range(6, 12))


def test_uncertain_cases_come_first_and_typical_ones_are_of_clusters_without_a_label(tmp_path):
    node = labelled_node(tmp_path / "node")
    uncertain = hilum.next_labels(node, 6, method="uncertainty", out=tmp_path / "u").table
    assert {int(one.removeprefix("case_"), 16) % 10 for one in uncertain["case"]} == {4, 5}
    database = record_database.node_database(node)
    with database.write() as connection:
        for number in range(0, 60, 3):  # all of the first kind
            outcomes.write_outcomes(connection, job_of(number), {"nodule": 1.0}, "pathology")
    database.close()
    typical = hilum.next_labels(node, 6, method="typical", out=tmp_path / "t").table
    assert {int(one.removeprefix("case_"), 16) % 3 for one in typical["case"]} == {1, 2}
    assert typical["because"].str.contains("none of them labelled").all()
    assert (typical["score"] > 0).all()
    with pytest.raises(UsageError, match="random, uncertainty, typical"):
        hilum.next_labels(node, 6, method="guess", out=tmp_path / "g")
    with pytest.raises(UsageError, match="needs features of a gate"):
        labelling.next_cases(2, "typical", [False] * 3)


def test_labels_that_may_be_wrong_are_listed_and_worse_ones_of_one_group_are_a_finding(tmp_path):
    node = labelled_node(tmp_path / "node", "classes", 200)
    random = np.random.default_rng(0)
    database = record_database.node_database(node)
    with database.write() as connection:
        for number in range(200):
            p, is_woman = (number % 10) / 10 + 0.05, number < 100
            is_odd = p > 0.5 if not 0.4 < p < 0.6 else random.random() < p
            is_wrong = is_woman and number % 10 in (0, 9) and number % 3 == 0
            odd = float(bool(is_odd) != is_wrong)
            outcomes.write_outcomes(connection, job_of(number), {"odd": odd, "calm": 1 - odd}, "reports")
            verdict = "corrected" if is_woman and number % 4 == 0 else "accepted"
            stated = {
                "judged": job_of(number),
                "study": object_store.uid_key(f"1.{number}"),
                "account": "ada",
                "verdict": verdict,
            }
            connection.execute(insert(tables.FEEDBACK).values(at=0, reason="", text="", before=[], after=[], **stated))
    database.close()
    seen = hilum.next_labels(node, 5, out=tmp_path / "out")
    doubted = pd.read_csv(tmp_path / "out" / "relabel.csv")
    assert len(doubted) >= 6 and (doubted["probability_reference"] < 0.1).all()
    assert len(seen.table) == 0  # every case has a label
    found = {(kind, one.group) for kind, one in seen.groups if one.is_found}
    assert found == {("corrected answers", "F"), ("doubted labels", "F")}
    assert any("where sex is F" in one for one in seen.findings)
    assert "p_adjusted" in pd.read_csv(tmp_path / "out" / "label_groups.csv")


def picture(path, number):
    import PIL.Image

    PIL.Image.fromarray(np.full((16, 16), 10 * number + 1, np.uint8)).save(path)
    return path
