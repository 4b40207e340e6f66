"""Documents of a real run: what is measured, what a person states, and what no longer holds."""

from __future__ import annotations

import csv
import json
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from ruamel.yaml import YAML

import hilum
from hilum.documents import checks, document_pages, fact_file, guidelines, subjects
from hilum.documents.guidelines import PLACEHOLDER
from hilum.documents.subjects import DocumentSubject
from hilum.errors import IntegrityError, PlanError, ResourceError, UsageError
from hilum.evaluation import Metrics
from hilum.monitoring import change_plan
from hilum.report import Figure, Paragraph, page_blocks
from hilum.runtime import record_files
from hilum.service.records import tables
from hilum.verbs.document import DocumentsResult

# Items of each list, and its parts where the source counts those; the figures of the guidelines themselves.
COUNTS = {
    "acceptance": (9, 9),
    "ai-act": (9, 23),
    "canada": (12, None),  # the ten components of the guidance of 5 February 2025, with the description
    "chai": (55, None),
    "claim": (44, 44),
    "consort-ai": (30 + 14, None),
    "data-sheet": (7, None),
    "draft": (20, 20),
    "decide-ai": (17 + 10, 28 + 10),
    "fda-510k": (27, None),  # Table 1 of the guidance on eSTAR for 510(k)
    "fda-ai": (23, None),
    "fda-de-novo": (27, None),  # Table 1 of the guidance on eSTAR for De Novo
    "fda-pma": (13 + 8 + 3, None),  # 21 CFR 814.20(b)(1) to (13), of the guidance on software VI.A to J, three of ours
    "gdpr": (7, 10),
    "gmlp": (10, 10),
    "hipaa": (13, None),
    "iec-62366": (11, None),
    "imdrf": (10, None),  # N12, 6A to 6C and 7; N41, 5.2 to 5.4, 8 and 9: imdrf.org
    "incident": (25, None),  # sections A to H of FDA 3500A, 21 CFR 803.52; 1 to 4 of the EU's form
    "inventory": (2, 2),
    "iso-13485": (24, None),
    "japan": (10, None),
    "mdr": (10, None),  # 1.1 to 6.2 of Annex II, 1.1 and 1.2 of Annex III: eur-lex.europa.eu/eli/reg/2017/745/oj
    "mdr-clinical": (10, None),  # Annex XIV: 1(a) to 1(e), 2 to 4, 6, 7, of the same regulation
    "model-card": (9, None),
    "pccp": (3, 12),
    "pms": (11, None),
    "sap": (13, None),
    "risk-file": (11 + 1, None),  # each line of advice is one of ours
    "software-file": (20, None),
    "spirit-ai": (34 + 15, None),
    "stard-ai": (40, 48),
    "tripod+ai": (27, 52),
    "uk": (11, None),
}
EMPTY_CELL = re.compile(r"<(t[dh])\b[^>]*>\s*</\1>")
# How many lists were compared with their text, and which texts are sold, so that nobody compared them.
COMPARED = {"source": 20, "second hand": 3, "not compared": 7, "our own": 4}
SOLD = {"iec-62366", "iso-13485", "risk-file", "software-file"}


@pytest.fixture(scope="session")
def records(classified: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of a run without its weights and pages; tests that change them copy it."""
    folder = tmp_path_factory.mktemp("records") / "run"
    kept = shutil.ignore_patterns("*.safetensors", "*.html", "tensorboard", "last", "events*")
    return Path(shutil.copytree(classified.out, folder, ignore=kept))


@pytest.fixture(scope="session")
def documented(records: Path, tmp_path_factory: pytest.TempPathFactory) -> DocumentsResult:
    return hilum.document(records, out=tmp_path_factory.mktemp("documents") / "all")


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_a_list_has_as_many_items_as_its_source(name):
    items, parts = COUNTS[name]
    listed = guidelines.read_guideline(name)
    assert len(listed.numbers) == items
    assert parts is None or len(listed.items) == parts


def test_every_list_says_how_far_it_was_compared_with_its_text():
    listed = [guidelines.read_guideline(name) for name in guidelines.guideline_names()]
    assert Counter(one.compared for one in listed) == COMPARED
    assert {one.name for one in listed if "sold" in one.licence} == SOLD
    assert all(one.compared == "not compared" for one in listed if one.name in SOLD)


def test_every_list_is_counted_and_needs_evidence_for_each_item():
    assert set(guidelines.guideline_names()) == set(COUNTS)
    for name in guidelines.guideline_names():
        for item in guidelines.read_guideline(name).items:
            assert any(not one.startswith("?") for one in item.evidence), f"{name} {item.name}"
            assert len({other.name for other in guidelines.read_guideline(name).items}) == len(
                guidelines.read_guideline(name).items
            )


def test_half_of_claim_is_measured_from_a_default_run(documented):
    [score] = [one for one in documented.scores if one["document"] == "claim"]
    assert score["measured"] >= 22
    assert sum(value for key, value in score.items() if key != "document") == 44


def test_what_only_a_person_knows_is_never_measured(documented):
    for one in documented.documents:
        for answered in one.answered:
            if all(text.removeprefix("?").split()[0] == "fact" for text in answered.item.evidence):
                assert answered.state in ("missing", "not applicable")


def test_every_measured_value_stands_in_its_record(documented, records):
    subject = DocumentSubject.open(records)
    measured = [row for row in documented.rows if row["state"] == "measured"]
    assert len(measured) > 100
    for row in measured:
        value = subject.at(row["record"], row["pointer"]).value
        assert row["value"] == guidelines.plain_value(value)
        assert not isinstance(row["value"], dict | list)


def test_a_row_has_the_fields_that_others_read(documented):
    written = json.loads((documented.out / "documents.json").read_text())
    assert (written["schema"], written["version"]) == ("hilum.documents", 1)
    fields = "document item part section subject state value record pointer sha256 because"
    assert all(set(row) == set(fields.split()) for row in written["rows"])


def test_a_page_begins_with_its_score_and_at_most_ten_gaps(documented):
    page = (documented.out / "claim.html").read_text()
    assert "of 44 items are measured" in page
    assert "Draft for a responsible person to complete" in page
    gaps = page.split("Gaps that weigh most</h2>")[1].split("</table>")[0]
    assert gaps.count("<tr>") == 11


def test_no_cell_of_a_document_is_empty(documented):
    for path in documented.files:
        if path.suffix == ".html":
            page = path.read_text(encoding="utf-8")
            assert "<td>" in page and not EMPTY_CELL.search(page), path.name
    rows = [row for one in documented.documents for part in one.answered for row in part.answers]
    places = {(row.lookup, document_pages.place_text(row)) for row in rows if row.state == "missing"}
    assert ("fact developer", "not stated") in places
    assert any(place == "not measured" for _, place in places)


def test_documents_of_unchanged_records_hold(documented, records):
    assert hilum.verify_documents(documented.out, against=records).broken == []


def change(file: Path, rng: random.Random) -> None:
    """Change one figure of a record, by the last of its digits."""
    text = file.read_text()
    digits = [found.start() for found in re.finditer(r"(?<![\w.])\d+(?:\.\d+)?", text)]
    place = rng.choice(digits)
    other = rng.choice([digit for digit in "123456789" if digit != text[place]])
    file.write_text(text[:place] + other + text[place + 1 :])


@pytest.mark.parametrize("changes", [10, pytest.param(200, marks=pytest.mark.whole)])
def test_a_changed_figure_in_any_record_is_found(documented, records, tmp_path, changes):
    shutil.copytree(records, tmp_path / "run")
    written = json.loads((documented.out / "documents.json").read_text())
    rng, names = random.Random(0), sorted(written["records"])  # noqa: S311
    for _ in range(changes):
        file = tmp_path / "run" / rng.choice(names)
        kept = file.read_bytes()
        change(file, rng)
        assert checks.broken_rows(documented.out, DocumentSubject(tmp_path / "run", "run")) != [], file
        file.write_bytes(kept)


def test_a_changed_figure_is_named_with_both_values(documented, records, tmp_path):
    shutil.copytree(records, tmp_path / "run")
    file = tmp_path / "run" / "evaluation" / "summary.json"
    summary = json.loads(file.read_text())
    summary["rows"][0]["value"] = 0.999
    file.write_text(json.dumps(summary))
    broken = [str(one) for one in hilum.verify_documents(documented.out, against=tmp_path / "run").broken]
    assert any(one.startswith("claim 37: evaluation/summary.json /rows/0 was") and "0.999" in one for one in broken)


def test_a_changed_row_of_the_documents_is_found(documented, records, tmp_path):
    shutil.copytree(documented.out, tmp_path / "documents")
    file = tmp_path / "documents" / "documents.json"
    written = json.loads(file.read_text())
    row = next(row for row in written["rows"] if row["state"] == "measured")
    row["value"] = "better"
    file.write_text(json.dumps(written))
    assert len(hilum.verify_documents(tmp_path / "documents", against=records).broken) == 1


def test_a_changed_page_is_found_also_where_its_hash_was_changed_with_it(documented, records, tmp_path):
    folder = tmp_path / "documents"
    shutil.copytree(documented.out, folder)
    page, file = folder / "claim.html", folder / "documents.json"
    page.write_text(page.read_text().replace("of 44 items are measured", "of 44 items were measured"))
    names = [one.where for one in hilum.verify_documents(folder, against=records).broken]
    assert "claim.html" in names
    written = json.loads(file.read_text())
    written["pages"]["claim.html"] = record_files.file_digest(page)
    file.write_text(json.dumps(written))
    assert "claim.html" in [one.where for one in hilum.verify_documents(folder, against=records).broken]
    page.unlink()
    assert "claim.html" in [one.where for one in hilum.verify_documents(folder, against=records).broken]


def test_a_changed_score_is_found(documented, records, tmp_path):
    shutil.copytree(documented.out, tmp_path / "documents")
    file = tmp_path / "documents" / "documents.json"
    written = json.loads(file.read_text())
    written["scores"][0]["measured"] += 1
    file.write_text(json.dumps(written))
    [broken] = hilum.verify_documents(tmp_path / "documents", against=records).broken
    assert "does not follow from its rows" in str(broken)
    del written["rows"][0]["state"]
    file.write_text(json.dumps(written))
    with pytest.raises(IntegrityError, match="is damaged"):
        hilum.verify_documents(tmp_path / "documents", against=records)


def test_the_command_line_exits_with_1_where_a_row_no_longer_holds(documented, records, tmp_path, cli):
    shutil.copytree(records, tmp_path / "run")
    assert cli("document", "verify", documented.out, "--against", tmp_path / "run").code == 0
    (tmp_path / "run" / "split.csv").write_text("case,patient,split,fold\n")
    result = cli("document", "verify", documented.out, "--against", tmp_path / "run")
    assert result.code == 1
    assert "split.csv" in result.last


def facts_of(folder: Path, **facts: str) -> Path:
    """A facts.toml with these statements."""
    lines = [
        f"{key} = {{ value = {json.dumps(value)}, by = 'A. Reader', on = 2026-01-05 }}" for key, value in facts.items()
    ]
    (folder / "facts.toml").write_text("\n".join(lines))
    return folder / "facts.toml"


def test_a_fact_is_stated_with_name_and_day_and_can_be_verified(records, tmp_path):
    facts = facts_of(tmp_path, funding="A grant of the university; it had no influence.")
    made = hilum.document(records, names="claim", facts=facts, out=tmp_path / "out")
    [row] = [row for row in made.rows if row["item"] == "44"]
    assert (row["state"], row["because"]) == ("stated", "stated by A. Reader on 2026-01-05")
    assert hilum.verify_documents(tmp_path / "out", against=records).broken == []
    (tmp_path / "out" / "facts.toml").write_text("")
    assert any(one.where == "claim 44" for one in hilum.verify_documents(tmp_path / "out", against=records).broken)


def test_the_open_questions_are_commented_out_and_can_be_given_back(documented):
    text = (documented.out / "facts.toml").read_text()
    assert tomllib.loads(text) == {}
    assert '# funding = { value = "", by = "", on = }' in text
    assert fact_file.read_facts(documented.out / "facts.toml", date.today()) == {}


WRONG_FACTS = {
    "an unknown key": ('fundign = { value = "none", by = "A", on = 2026-01-05 }', "fundign.*Write funding"),
    "a future day": ('funding = { value = "none", by = "A", on = 2999-01-05 }', "lies in the future"),
    "HTML": ('funding = { value = "<script>x</script>", by = "A", on = 2026-01-05 }', "HTML or a formula"),
    "a formula": ('funding = { value = "=1+1", by = "A", on = 2026-01-05 }', "HTML or a formula"),
    "nobody": ('funding = { value = "none", on = 2026-01-05 }', "needs value, by and on"),
    "no TOML": ("funding = none", "is not TOML"),
}


@pytest.mark.parametrize("wrong", sorted(WRONG_FACTS))
def test_facts_are_refused(wrong, tmp_path):
    text, problem = WRONG_FACTS[wrong]
    (tmp_path / "facts.toml").write_text(text)
    with pytest.raises(UsageError, match=problem):
        fact_file.read_facts(tmp_path / "facts.toml", date(2026, 11, 1))


@pytest.mark.parametrize("words", ["+ a grant of the university", "@home programme", "- see the grant"])
def test_a_text_that_begins_with_a_sign_is_text_on_a_page(words, tmp_path):
    (tmp_path / "facts.toml").write_text(f'funding = {{ value = "{words}", by = "A. Reader", on = 2026-01-05 }}\n')
    assert fact_file.read_facts(tmp_path / "facts.toml", date(2026, 11, 1))["funding"].value == words


def test_a_statement_that_a_record_contradicts_is_refused_with_both_named(records, tmp_path):
    claims = facts_of(tmp_path, external_testing="External validation was done in two hospitals.")
    with pytest.raises(
        UsageError, match=r"external_testing states 'External validation was done.*plan\.yaml /split/method"
    ):
        hilum.document(records, facts=claims)
    for denial in ("There was no external validation, for want of data.", "External validation is planned."):
        denies = facts_of(tmp_path, external_testing=denial)
        assert hilum.document(records, names="claim", facts=denies).rows


def test_no_exclusions_is_refused_where_the_check_names_some(records, tmp_path):
    shutil.copytree(records, tmp_path / "run")
    row = {"severity": "error", "what": "case 7 cannot be read", "cases": ["7"]}
    (tmp_path / "run" / "check.json").write_text(json.dumps({"schema": "hilum.check", "version": 1, "rows": [row]}))
    facts = facts_of(tmp_path, inclusion_criteria="All cases of 2020; no exclusions.")
    with pytest.raises(UsageError, match=r"no exclusions.*check\.json /rows/0/what.*case 7"):
        hilum.document(tmp_path / "run", facts=facts)


# A statement of a person, and the record of a run that speaks against it: its file and its text.
TESTS = {"schema": "hilum.comparison", "version": 1, "tests": [{"metric": "auroc", "verdict": "not shown"}]}
WEAK = "group,n,judged,p_adjusted\nsex=f,80,no,0.001\nsex=m,90,yes,0.004\n"
CONTRADICTED = {
    "a better model": ("It is superior to the readers.", "comparison.json", json.dumps(TESTS), "/tests/0/verdict"),
    "all groups alike": ("It has no bias.", "evaluation/weak_groups.csv", WEAK, "group@2"),
    "no pretraining": ("It was trained from scratch.", "plan.yaml", ("pretrained", "imagenet"), "/network/pretrained"),
    "a split by patients": ("Cases were split by patient.", "plan.yaml", ("method", None), "/split/method/because"),
}


@pytest.mark.parametrize("name", sorted(CONTRADICTED))
def test_a_claim_without_ground_in_the_records_is_refused(records, tmp_path, name):
    words, record, change, pointer = CONTRADICTED[name]
    run = Path(shutil.copytree(records, tmp_path / "run"))
    plain = hilum.document(run, names="claim", facts=facts_of(tmp_path, implications="None.")).rows
    assert plain
    if isinstance(change, str):
        (run / record).write_text(change)
    else:
        plan = YAML(typ="safe").load((run / record).read_text())
        section = plan["network" if change[0] == "pretrained" else "split"][change[0]]
        section |= {"value": change[1]} if change[1] else {"because": "patients unknown: each case stands for one"}
        with (run / record).open("w") as lines:
            YAML().dump(plan, lines)
    with pytest.raises(UsageError, match=re.escape(f"{record} {pointer}")):
        hilum.document(run, names="claim", facts=facts_of(tmp_path, implications=words))
    denied = facts_of(tmp_path, implications=f"It was not shown that {words[0].lower()}{words[1:]}")
    assert hilum.document(run, names="claim", facts=denied).rows


def test_a_statement_is_judged_by_the_question_that_it_answers(records, tmp_path):
    def documented_with(**stated: str) -> list[dict]:
        return hilum.document(records, names="claim", facts=facts_of(tmp_path, **stated)).rows

    with pytest.raises(UsageError, match=r"external_testing states .*another hospital.*plan\.yaml /split"):
        documented_with(external_testing="The test part is from another hospital.")
    with pytest.raises(UsageError, match=r"limitations states 'None.'.*run\.json /verdict/against"):
        documented_with(limitations="None.")
    assert documented_with(external_testing="None: one hospital took part.", limitations="One reader took part.")
    assert documented_with(external_testing="It was not tested on data of other institutions yet.")


def test_a_judgement_shows_its_evidence_until_a_person_states_it(records, tmp_path):
    def answered(name: str, number: str, **stated: str) -> str:
        made = hilum.document(records, names=name, facts=facts_of(tmp_path, **stated) if stated else None)
        return next(one.state for one in made.documents[0].answered if one.item.name == number)

    assert answered("ai-act", "4") == "evidence"
    assert answered("ai-act", "4", metrics_rationale="Both kinds of error cost alike here.") == "stated"
    assert answered("gmlp", "6") == "missing"
    assert answered("gmlp", "6", intended_use="Triage of radiographs.") == "evidence"
    made = hilum.document(records, names="iso-13485")
    assert {row["state"] for row in made.rows} == {"evidence", "missing"}
    assert "judgement" in document_pages.score_sentence(made.documents[0])


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"evidence": ["fact funding"], "judgement": "funding"}, "1 asks for a judgement, and no record"),
        ({"evidence": ["sumary primary"]}, "'sumary primary' is not a look-up.*Use summary"),
    ],
)
def test_a_list_that_asks_for_what_nothing_answers_is_refused(row, problem):
    table = {"title": "t", "edition": "e", "source": "s", "licence": "l", "compared": "not compared"}
    item = {"number": 1, "section": "s", "subject": "what"}
    with pytest.raises(UsageError, match=problem):
        guidelines.parse_guideline("own", {**table, "items": [{**item, **row}]})
    twice = {**item, "evidence": ["fact funding"]}
    with pytest.raises(UsageError, match="1 stands 2 times"):
        guidelines.parse_guideline("own", {**table, "items": [twice, twice]})


def test_the_page_of_a_superseded_text_names_the_newer_edition(records):
    head = {"title": "t", "edition": "of 2015", "source": "s", "licence": "l", "compared": "not compared"}
    table = {**head, "superseded_by": "the edition of 2025"}
    row = {"number": 1, "section": "s", "subject": "what", "evidence": ["summary primary"]}
    subject = DocumentSubject.open(records)
    made = guidelines.fill_guideline(guidelines.parse_guideline("own", {**table, "items": [row]}), subject, {})
    page = page_blocks.render_page(document_pages.compose_document_page(made, subject))
    assert "superseded: use the edition of 2025" in page
    assert "not compared with it: check it before use. Of run; of 2015." in page


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        ({}, "compared is ''.*Use source, second hand"),
        ({"compared": "read"}, "compared is 'read'"),
        ({"compared": "source"}, "'source' and seen is ''"),
        ({"compared": "source", "seen": "November"}, "seen is 'November'"),
        ({"compared": "not compared", "seen": "2026-11-29"}, "none where nothing was compared"),
    ],
)
def test_a_list_that_does_not_say_how_far_it_was_compared_is_refused(head, problem):
    item = {"number": 1, "section": "s", "subject": "what", "evidence": ["fact funding"]}
    table = {"title": "t", "edition": "e", "source": "s", "licence": "l", "items": [item]}
    with pytest.raises(UsageError, match=problem):
        guidelines.parse_guideline("own", {**table, **head})


def test_the_nearest_document_is_named_for_an_unknown_one(records):
    with pytest.raises(UsageError, match="Use claim;"):
        hilum.document(records, names="claims")


def test_no_paper_of_this_model_states_a_figure_of_other_data(documented, records):
    plan = (records / "plan.yaml").read_text()
    assert "families measured" in plan  # it stands in the plan, as the source of the decision
    assert not [row for row in documented.rows if "families measured" in f"{row['value']} {row['because']}"]


def test_records_that_disagree_are_refused_with_both_named(records, tmp_path):
    shutil.copytree(records, tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    run = json.loads(file.read_text())
    run["verdict"]["answer"] = "Far better than chance."
    file.write_text(json.dumps(run))
    with pytest.raises(IntegrityError, match=r"run\.json /verdict/answer.*evaluation/summary\.json /verdict/answer"):
        hilum.document(tmp_path / "run")


def test_an_unfinished_run_is_refused(records, tmp_path):
    shutil.copytree(records, tmp_path / "run", ignore=shutil.ignore_patterns("run.json"))
    with pytest.raises(IntegrityError, match="not finished"):
        hilum.document(tmp_path / "run")


def test_a_run_without_a_test_part_says_what_measures_it(records, tmp_path):
    shutil.copytree(records, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    made = hilum.document(tmp_path / "run", names="claim")
    [row] = [row for row in made.rows if row["item"] == "29"]
    assert (row["state"], row["because"]) == ("missing", "run hilum evaluate MODEL DATA")


def test_an_unknown_document_and_a_folder_of_something_else_are_refused(records, tmp_path):
    with pytest.raises(UsageError, match=r"'clam' is not known.*claim"):
        hilum.document(records, names="clam")
    with pytest.raises(UsageError, match="no run, package, node or study"):
        hilum.document(tmp_path)


def test_no_template_holds_a_figure():
    for item in guidelines.read_guideline("draft").items:
        assert not re.search(r"\d", PLACEHOLDER.sub("", item.sentence)), item.name
        assert PLACEHOLDER.findall(item.sentence), item.name


def test_every_number_of_a_draft_is_that_of_a_row(documented):
    [draft] = [one for one in documented.documents if one.guideline.name == "draft"]
    known = " ".join(json.dumps(row["value"]) for row in draft.rows)
    texts = [
        block.text
        for section in document_pages.draft_sections(draft, Metrics())
        for block in section.blocks
        if isinstance(block, Paragraph)
    ]
    numbers = {found for text in texts for found in re.findall(r"\d+", text)}
    assert len(numbers) > 20
    rounded = {f"{float(one):.{places}f}" for one in re.findall(r"-?\d+\.?\d*", known) for places in (0, 1, 2, 3)}
    pieces = {piece for one in rounded for piece in one.lstrip("-").split(".")} | set(re.findall(r"\d+", known))
    assert numbers - pieces <= {"95"}  # of intervals, whose level is 0.95


def test_a_draft_names_the_method_of_a_decision_and_the_value_of_a_figure(documented):
    [draft] = [one for one in documented.documents if one.guideline.name == "draft"]
    texts = [
        block.text
        for section in document_pages.draft_sections(draft, Metrics())
        for block in section.blocks
        if hasattr(block, "text")
    ]
    assert any(text.startswith("Intensities were normalised by the method zscore, because ") for text in texts)
    # A figure has a method as well, but its sentence gives the value and its interval.
    [primary] = [text for text in texts if text.startswith("On the test cases the model reached ")]
    assert re.search(r"reached Auroc [\d.]+ \(95 % interval [\d.]+ to [\d.]+", primary)


def test_the_flow_of_cases_is_made_from_the_rows(documented, records):
    [draft] = [one for one in documented.documents if one.guideline.name == "draft"]
    [flow] = [
        block
        for section in document_pages.draft_sections(draft, Metrics())
        for block in section.blocks
        if isinstance(block, Figure)
    ]
    with (records / "split.csv").open() as lines:
        parts = Counter(row["split"] for row in csv.DictReader(lines))
    assert f"Training: {parts['train']}, Validation: {parts['val']}, Test: {parts['test']}" in flow.alt
    assert f"Found: {parts.total()} cases; Could not be used: 0" in flow.alt


def test_a_case_of_several_folds_counts_once():
    rows = [{"case": "a", "split": "train"}, {"case": "a", "split": "train"}, {"case": "b", "split": "test"}]
    assert subjects.value_in_csv(rows, "count:split=train;distinct=case") == 1
    assert subjects.value_in_csv(rows, "count:split=train") == 2
    assert subjects.value_in_csv(rows, "case@3") == "b"
    with pytest.raises(IndexError):
        subjects.value_in_csv(rows, "case@0")


def test_the_card_of_chai_is_valid_under_its_schema(documented, records, tmp_path, data):
    schema = pytest.importorskip("xmlschema").XMLSchema(str(data / "documents" / "chai_applied_model_card_v0.2.xsd"))
    schema.validate(str(documented.out / "chai.xml"))
    facts = facts_of(tmp_path, model_name="Liver & spleen 2", approval="None.", clinical_risk="High.")
    made = hilum.document(records, names="chai", facts=facts, out=tmp_path / "out")
    schema.validate(str(tmp_path / "out" / "chai.xml"))
    assert "Liver &amp; spleen 2" in (made.out / "chai.xml").read_text()


def test_a_word_file_holds_the_tables_of_the_page(records, tmp_path):
    docx = pytest.importorskip("docx")
    hilum.document(records, names="model-card", formats="docx", out=tmp_path / "out")
    assert not (tmp_path / "out" / "model-card.html").exists()
    word = docx.Document(str(tmp_path / "out" / "model-card.docx"))
    cells = [cell.text for table in word.tables for row in table.rows for cell in row.cells]
    assert "what is asked" in cells
    assert any("plan.yaml /network/name/value" in text for text in cells)


@pytest.mark.whole
def test_a_word_file_opens_in_libreoffice_and_a_pdf_has_all_pages(records, tmp_path):
    office, browser = shutil.which("soffice"), shutil.which("chromium")
    if office is None or browser is None:
        pytest.skip("there is no LibreOffice or no Chromium")
    hilum.document(records, names="claim,draft", formats="docx,pdf", out=tmp_path / "out")
    assert (tmp_path / "out" / "claim.pdf").read_bytes().startswith(b"%PDF")
    (tmp_path / "out" / "claim.pdf").unlink()
    profile = f"-env:UserInstallation=file://{tmp_path}/office"
    command = [office, profile, "--headless", "--convert-to", "pdf", "--outdir", tmp_path / "out"]
    subprocess.run([*command, tmp_path / "out" / "claim.docx"], check=True, capture_output=True, timeout=300)
    assert (tmp_path / "out" / "claim.pdf").read_bytes().startswith(b"%PDF")


def test_a_pdf_without_a_browser_is_refused_before_anything_is_written(records, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ResourceError, match=r"no Chromium.*Install chromium"):
        hilum.document(records, names="claim", formats="pdf", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_package_is_documented_from_what_it_keeps_of_its_run(packaged, tmp_path):
    made = hilum.document(packaged.out, names="model-card", out=tmp_path / "out")
    states = {row["item"] + row["part"]: row["record"] for row in made.rows if row["state"] == "measured"}
    assert states["1a"] == "hilum/model.json"
    assert not EMPTY_CELL.search((tmp_path / "out" / "model-card.html").read_text(encoding="utf-8"))
    assert hilum.verify_documents(tmp_path / "out", against=packaged.out).broken == []


def test_an_old_package_is_refused(packaged, tmp_path):
    shutil.copytree(packaged.out / "hilum", tmp_path / "old" / "hilum")
    file = tmp_path / "old" / "hilum" / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 0}))
    with pytest.raises(IntegrityError, match="another version"):
        hilum.document(tmp_path / "old", names="model-card")


def test_what_is_no_database_of_a_node_is_refused_and_a_database_is_never_changed(tmp_path):
    for name in ("torn", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "torn" / "node.sqlite").write_bytes(b"no database at all" * 100)
    with sqlite3.connect(tmp_path / "other" / "node.sqlite") as database:
        database.execute("CREATE TABLE notes (n INTEGER)")
    before = {path: path.read_bytes() for path in tmp_path.glob("*/*")}
    for name in ("torn", "other"):
        with pytest.raises(IntegrityError, match="is no database of a node"):
            hilum.document(tmp_path / name, names="pms")
    assert {path: path.read_bytes() for path in tmp_path.glob("*/*")} == before


def test_a_run_is_documented_where_the_libraries_of_nodes_are_not_installed():
    code = "import sys; sys.modules['sqlalchemy'] = None; import hilum.verbs.document"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_node_is_documented_without_any_identity(tmp_path):
    node = tmp_path / "node"
    node.mkdir()
    engine = sqlalchemy.create_engine(f"sqlite:///{node}/node.sqlite")
    tables.metadata.create_all(engine)
    study = {"study": "s", "uid": "1.2", "state": "done", "instances": 1, "received_at": 0, "last_at": 0}
    times = {"not_before": 0, "created_at": 86400, "started_at": 10, "done_at": 12}
    names = {"job": "j", "study": "s", "rule": "r", "model": "lung", "model_hash": "abc", "inputs_hash": "i"}
    with engine.begin() as database:
        database.execute(tables.STUDIES.insert().values(**study, attributes={"00100010": "Doe^Jane"}))
        job = {**names, **times, "revision": 1, "inputs": [], "state": "done", "outcome": "answered", "priority": 0}
        database.execute(tables.JOBS.insert().values(**job))
    made = hilum.document(node, names="pms", out=tmp_path / "out")
    [exposure] = [row["value"] for row in made.rows if row["pointer"] == "/exposure"]
    assert all(words in exposure for words in ("jobs: 1", "from: 1970-01-02", "median_seconds: 2"))
    assert hilum.verify_documents(tmp_path / "out", against=node).broken == []
    pages = "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert "Doe" not in pages and not EMPTY_CELL.search(pages)
    with engine.begin() as database:
        database.execute(tables.JOBS.update().values(outcome="failed"))
    assert hilum.verify_documents(tmp_path / "out", against=node).broken != []


CHANGE_PLAN = """
version = 1
approved = "{digest}"
[[modification]]
name = "retrain with site data"
may_change = ["weights", "task.calibration"]
[[acceptance]]
metric = "auroc"
label = "all"
rule = "non-inferior"
margin = 0.02
against = ["approved", "current"]
[evidence]
alpha = 0.05
evaluations = 5
""".replace("{digest}", "0" * 64)


def test_a_plan_of_changes_is_documented_in_the_three_parts_of_the_guidance(records, tmp_path):
    shutil.copytree(records, tmp_path / "run")
    (tmp_path / "run" / "change-plan.toml").write_text(CHANGE_PLAN)
    made = hilum.document(tmp_path / "run", names="pccp", out=tmp_path / "out")
    of_plan = [row for row in made.rows if row["record"] == "change-plan.toml"]
    planned = {row["item"] + row["part"] for row in of_plan}
    assert {row["state"] for row in of_plan} == {"planned"}
    assert {"VIa", "VIb", "VIIc", "VIId"} <= planned
    assert not EMPTY_CELL.search((tmp_path / "out" / "pccp.html").read_text(encoding="utf-8"))
    assert hilum.verify_documents(tmp_path / "out", against=tmp_path / "run").broken == []


NOT_EXECUTABLE = {
    "an unknown key": ("alpha = 0.05", "alfa = 0.05", "'alfa' is not known"),
    "an unknown part": ('"weights", ', '"colour", ', "'colour' is no part"),
    "a metric that the evaluation lacks": ('metric = "auroc"', 'metric = "dice"', "'dice', which the evaluation lacks"),
    "no margin": ("margin = 0.02\n", "", "needs a margin"),
    "no comparator": ('against = ["approved", "current"]\n', "", "against nothing"),
}


@pytest.mark.parametrize("wrong", sorted(NOT_EXECUTABLE))
def test_a_plan_of_changes_that_no_check_could_execute_is_refused(wrong):
    before, after, problem = NOT_EXECUTABLE[wrong]
    with pytest.raises(PlanError, match=problem):
        change_plan.refuse_change_plan(tomllib.loads(CHANGE_PLAN.replace(before, after)), {"auroc"}, "change-plan.toml")


def test_each_line_of_advice_of_a_node_is_a_promise_of_its_risk_file(tmp_path):
    advice = [{"when": "called nodule", "say": "CT", "code": None}, {"when": "", "say": "rescreen", "code": None}]
    (tmp_path / "settings.json").write_text(json.dumps({"models": {"lung": {"path": "m", "advice": advice}}}))
    listed = guidelines.read_guideline("risk-file").for_subject(DocumentSubject(tmp_path, "node"))
    promises = [item.subject for item in listed.items if item.section == "Promises"]
    assert [words.partition(":")[0] for words in promises] == [
        "lung says 'CT' where called nodule",
        "lung says 'rescreen' where nothing else",
    ]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.916666666667, "0.917"),
        (
            {"value": 0.0833333333333, "low": 0.0102563412813, "high": 0.269972801558, "n": 24},
            "0.083 (95 % interval 0.010 to 0.270, n = 24)",
        ),
        ({"judged": 24, "accept": 22, "by_model": {"hippocampus": {"reject": 2}}, "note": ""},
         "judged: 24, accept: 22, by_model (hippocampus (reject: 2))"),
        ([0.1234567, 2.0], "0.123, 2"),
    ],
)  # fmt: skip
def test_figures_stand_in_cells_as_people_write_them(value, words):
    assert document_pages.recorded_value_words(value, Metrics()) == words
