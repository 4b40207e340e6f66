"""`document`: reporting guidelines, cards and technical files, filled from records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hilum import errors, installation, keywords
from hilum.documents import checks, document_pages, fact_file, guidelines, page_printing, tracing, word_file
from hilum.documents.checks import RECORD, BrokenRow
from hilum.documents.document_pages import ROOTS
from hilum.documents.fact_file import FACTS
from hilum.documents.guidelines import SCHEMA, STATES, AnswerRow, Document, DocumentsRecord
from hilum.documents.subjects import DocumentSubject
from hilum.documents.tracing import TRACE, TRACE_SCHEMA, RequirementTrace
from hilum.errors import IntegrityError, UsageError
from hilum.lazy import pandas as pd
from hilum.options.records import DocumentOptions, TraceRequirementsOptions, VerifyDocumentsOptions
from hilum.reading import verb_results
from hilum.report import InNotebook, page_blocks
from hilum.runtime import record_files
from hilum.service import node_record
from hilum.values import plain_values
from hilum.values.record_schema import RecordOfFields
from hilum.values.table_cells import TableRow
from hilum.verbs import serve

if TYPE_CHECKING:
    from hilum.service.node_record import NodeRecord

ALL = "all"
# States of which a summary says the number even where it is 0.
USUAL = ("measured", "stated", "missing", "not applicable")
FORMATS = ("html", "docx", "pdf", "json")


@dataclass(frozen=True)
class DocumentsResult(InNotebook):
    """Documents of one subject.

    records: {path: SHA-256} of all records of the subject
    pages:   {name: SHA-256} of the files that were written, and of the facts that they state
    """

    documents: Sequence[Document]
    records: Mapping[str, str]
    files: Sequence[Path] = ()
    out: Path | None = None
    pages: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> list[AnswerRow]:
        """Every row of every document."""
        return [row for one in self.documents for row in one.rows]

    @property
    def table(self) -> pd.DataFrame:
        """The same rows."""
        return pd.DataFrame(self.rows)

    @property
    def scores(self) -> list[TableRow]:
        """The score of each document."""
        return [one.score for one in self.documents]

    def as_record(self) -> DocumentsRecord:
        """The record for `--json` and documents.json."""
        record: DocumentsRecord = plain_values.as_json(SCHEMA.record_of(self))
        return record

    def __repr__(self) -> str:
        lines = [
            f"{one['document']}: "
            + ", ".join(f"{one[state.replace(' ', '_')]} {state}" for state in STATES if state in USUAL or one[state])
            for one in self.scores
        ]
        return "\n".join([*lines, *([f"written: {self.out}"] if self.out is not None else [])])


@dataclass(frozen=True)
class DocumentsCheck(RecordOfFields):
    """Result of a verification. broken: rows and records that no longer hold."""

    rows: int
    broken: Sequence[BrokenRow] = field(default_factory=list)

    def __repr__(self) -> str:
        if not self.broken:
            return f"all {self.rows} rows hold"
        return "\n".join([*map(str, self.broken), f"{len(self.broken)} of {self.rows} rows and records no longer hold"])


@keywords.takes(DocumentOptions)
def document(options: DocumentOptions) -> DocumentsResult:
    """Fill documents from the records of a run, a package, a node or a study; nothing is invented.

    formats: "html", "docx", "pdf" (where a Chromium is found) and "json", as "html,docx" or a list
    out:     a folder for <name>.html and the other formats, documents.json and facts.toml with the open questions
    Raises UsageError for an unknown document or fact, and for a statement that a record contradicts; IntegrityError for
    an unfinished run, and where two records disagree.
    """
    folder = None if options.out is None else Path(options.out)
    if folder is not None:
        verb_results.refuse_taken(folder, options.overwrite, (RECORD,))
    wanted = _check_names(options.formats, FORMATS, "--format")
    if "docx" in wanted and find_spec("docx") is None:
        raise UsageError("python-docx is not installed", "--format docx", installation.install_line("documents"))
    if "pdf" in wanted:
        page_printing.browser_path()
    opened = DocumentSubject.open(Path(options.subject), node_of=_node_of)
    checks.refuse_planned_changes(opened)
    chosen = [
        guidelines.read_guideline(name).for_subject(opened) for name in _choose_guidelines(options.names, opened.kind)
    ]
    stated = {} if options.facts is None else fact_file.read_facts(Path(options.facts), datetime.now(UTC).date())
    if options.facts is not None:
        checks.refuse_contradictions(stated, opened, Path(options.facts))
    asked = [key for one in chosen for item in one.items for key in item.asks]
    if folder is None:
        return DocumentsResult([guidelines.fill_guideline(one, opened, stated) for one in chosen], opened.records)
    with verb_results.result_folder(folder, options.overwrite, (RECORD,)) as partial:
        for name, text in opened.tables.items():
            (partial / name).write_text(text, encoding="utf-8")
        (partial / FACTS).write_text(fact_file.facts_text(asked, stated), encoding="utf-8")
        stated_in = record_files.file_digest(partial / FACTS)
        filled = [guidelines.fill_guideline(one, opened, stated, stated_in) for one in chosen]
        written = _write_documents(filled, opened, wanted, partial)
        pages = {path.name: record_files.file_digest(path) for path in [*written, partial / FACTS]}
        result = DocumentsResult(filled, opened.records, [folder / path.name for path in written], folder, pages)
        record_files.write_json(partial / RECORD, SCHEMA, result.as_record())
    return result


def _node_of(folder: Path) -> NodeRecord:
    """The figures of a node, whose database is a file of its folder or a server."""
    serve.refuse_missing_extra("document")
    return node_record.record_of_folder(folder)


def _write_documents(
    filled: Sequence[Document], subject: DocumentSubject, formats: Sequence[str], folder: Path
) -> list[Path]:
    """The files of each document in each format."""
    browser = page_printing.browser_path() if "pdf" in formats else ""
    metrics, pages, files = document_pages.metrics_of(subject), list[Path](), list[Path]()
    for one in filled:
        page = document_pages.compose_document_page(one, subject, before=document_pages.draft_sections(one, metrics))
        target = folder / f"{one.guideline.name}.html"
        if "html" in formats or browser:
            target.write_text(page_blocks.render_page(page), encoding="utf-8")
            pages.append(target)
        if "docx" in formats:
            files.append(target.with_suffix(".docx"))
            word_file.write_word(page, files[-1])  # which imports python-docx
        if "json" in formats:
            files.append(target.with_suffix(".json"))
            record_files.write_json(files[-1], SCHEMA, {"scores": [one.score], "rows": one.rows})
        if one.guideline.name in ROOTS:
            files.append(target.with_suffix(".xml"))
            files[-1].write_text(document_pages.card_xml(one, metrics), encoding="utf-8")
    if browser:
        files += page_printing.print_pages(pages, browser)
    if "html" not in formats:
        for path in pages:
            path.unlink()
        pages = []
    return [*pages, *files]


def _choose_guidelines(names: str | Sequence[str], kind: str) -> list[str]:
    if names == ALL or list(names) == [ALL]:
        return [name for name in guidelines.guideline_names() if kind in guidelines.read_guideline(name).subjects]
    return _check_names(names, guidelines.guideline_names(), "--for")


def _check_names(asked: str | Sequence[str], known: Sequence[str], where: str) -> list[str]:
    """The names of a list with commas, each once; UsageError for an unknown one."""
    names = asked.split(",") if isinstance(asked, str) else list(asked)
    cleaned = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    unknown = [name for name in cleaned if name not in known]
    if unknown or not cleaned:
        problem = f"{unknown[0]!r} is not known" if unknown else "names nothing"
        raise UsageError(problem, where, errors.nearest_remedy(unknown[0] if unknown else "", known))
    return cleaned


@keywords.takes(VerifyDocumentsOptions)
def verify_documents(options: VerifyDocumentsOptions) -> DocumentsCheck:
    """Read every record that a folder of documents names anew, and list the rows and pages that no longer hold."""
    subject = DocumentSubject.open(Path(options.against), agreeing=False, node_of=_node_of)
    record = Path(options.folder) / RECORD
    written = record_files.read_json(record, SCHEMA)
    try:
        broken = checks.broken_rows(Path(options.folder), subject)
        broken += _changed_pages(Path(options.folder), written, None if broken else subject)
        return DocumentsCheck(len(written["rows"]), broken)
    except (KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"is damaged ({error})", str(record), "Write the documents anew") from error


def _changed_pages(folder: Path, written: DocumentsRecord, subject: DocumentSubject | None) -> list[BrokenRow]:
    """Files of documents that are not what was written, or not what their rows make.

    subject: None where rows do not hold, so that no page can be made anew
    """
    kept = {name: folder / name for name in written["pages"] if Path(name).name == name}
    now = {name: record_files.file_digest(path) if path.is_file() else "" for name, path in kept.items()}
    changed = {name for name, sha256 in now.items() if sha256 != written["pages"][name]}
    # People fill in facts for the next documents; these state those of before.
    if subject is not None and FACTS not in changed:
        stated = fact_file.read_facts(folder / FACTS, datetime.now(UTC).date())
        metrics = document_pages.metrics_of(subject)
        for name in {f"{one['document']}.html" for one in written["scores"]} & kept.keys() - changed:
            filled = guidelines.fill_guideline(
                guidelines.read_guideline(Path(name).stem).for_subject(subject), subject, stated, now[FACTS]
            )
            page = page_blocks.render_page(
                document_pages.compose_document_page(
                    filled, subject, before=document_pages.draft_sections(filled, metrics)
                )
            )
            changed |= set() if page == kept[name].read_text(encoding="utf-8") else {name}
    return [BrokenRow(name, "is not the file that was written of these rows") for name in sorted(changed - {FACTS})]


@keywords.takes(TraceRequirementsOptions)
def trace_requirements(options: TraceRequirementsOptions) -> RequirementTrace:
    """Trace requirements, promises of a page and controls of hazards to code, to tests and to their results.

    out:          a folder for trace.json, which `software-file` and `risk-file` read
    Raises UsageError for a file that is not there, says something unknown, or states one id twice.
    """
    if options.out is not None:
        verb_results.refuse_taken(Path(options.out), options.overwrite, (TRACE,))
    trace = tracing.trace_project(Path(options.requirements), None if options.junit is None else Path(options.junit))
    if options.out is not None:
        with verb_results.result_folder(Path(options.out), options.overwrite, (TRACE,)) as folder:
            record_files.write_json(folder / TRACE, TRACE_SCHEMA, trace.as_record())
    return trace
