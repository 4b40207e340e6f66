"""`document`: reporting guidelines, cards and technical files, filled from records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from isocenter import documents, service
from isocenter.documents import (
    DATABASE,
    FACTS,
    RECORD,
    ROOTS,
    SCHEMA,
    TRACE,
    TRACE_SCHEMA,
    Broken,
    Document,
    Subject,
    Trace,
    broken_rows,
    browser_path,
    card_xml,
    document_of,
    drafted,
    facts_text,
    file_record,
    guideline,
    guideline_names,
    metrics_of,
    node_record,
    page_of,
    print_pages,
    read_facts,
    refuse_contradictions,
    refuse_planned_changes,
    traced,
)
from isocenter.errors import IntegrityError, UsageError
from isocenter.keywords import takes
from isocenter.lazy import pandas as pd
from isocenter.options import DocumentOptions, TraceRequirementsOptions, VerifyDocumentsOptions
from isocenter.reading import refuse_taken, result_folder
from isocenter.report import InNotebook, render
from isocenter.runtime import as_json, digest, read_json, write_json
from isocenter.verbs.serve import need_extra

ALL = "all"
FORMATS = ("html", "docx", "pdf", "json")


@dataclass(frozen=True)
class Documented(InNotebook):
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
    def rows(self) -> list[dict[str, Any]]:
        """Every row of every document."""
        return [row for one in self.documents for row in one.rows]

    @property
    def table(self) -> pd.DataFrame:
        """The same rows."""
        return pd.DataFrame(self.rows)

    @property
    def scores(self) -> list[dict[str, Any]]:
        """The score of each document."""
        return [one.score for one in self.documents]

    def as_record(self) -> dict[str, Any]:
        """The record for `--json` and documents.json."""
        record = {"records": dict(self.records), "scores": self.scores, "rows": self.rows, "pages": dict(self.pages)}
        return {"schema": SCHEMA, "version": 1, **as_json(record)}

    def __repr__(self) -> str:
        lines = [
            f"{one['document']}: {one['measured']} measured, {one['stated']} stated, {one['missing']} missing, "
            f"{one['not_applicable']} not applicable"
            for one in self.scores
        ]
        return "\n".join([*lines, *([f"written: {self.out}"] if self.out is not None else [])])


@dataclass(frozen=True)
class Verified:
    """Result of a verification. broken: rows and records that no longer hold."""

    rows: int
    broken: Sequence[Broken] = field(default_factory=list)

    def as_record(self) -> dict[str, Any]:
        """The record for `--json`."""
        return {"rows": self.rows, "broken": [{"where": one.where, "problem": one.problem} for one in self.broken]}

    def __repr__(self) -> str:
        if not self.broken:
            return f"all {self.rows} rows hold"
        return "\n".join([*map(str, self.broken), f"{len(self.broken)} of {self.rows} rows and records no longer hold"])


@takes(DocumentOptions)
def document(options: DocumentOptions) -> Documented:
    """Fill documents from the records of a run, a package, a node or a study; nothing is invented.

    formats: "html", "docx", "pdf" (where a Chromium is found) and "json", as "html,docx" or a list
    out:     a folder for <name>.html and the other formats, documents.json and facts.toml with the open questions
    Raises UsageError for an unknown document or fact, and for a statement that a record contradicts; IntegrityError for
    an unfinished run, and where two records disagree.
    """
    folder = None if options.out is None else Path(options.out)
    if folder is not None:
        refuse_taken(folder, options.overwrite, (RECORD,))
    wanted = _named(options.formats, FORMATS, "--format")
    if "docx" in wanted and find_spec("docx") is None:
        raise UsageError("python-docx is not installed", "--format docx", "pip install 'isocenter[documents]'")
    if "pdf" in wanted:
        browser_path()
    opened = Subject.opened(Path(options.subject), node_of=_node_of)
    refuse_planned_changes(opened)
    chosen = [guideline(name).of(opened) for name in _chosen(options.names, opened.kind)]
    stated = {} if options.facts is None else read_facts(Path(options.facts), datetime.now(UTC).date())
    if options.facts is not None:
        refuse_contradictions(stated, opened, Path(options.facts))
    asked = [key for one in chosen for item in one.items for key in item.asks]
    if folder is None:
        return Documented([document_of(one, opened, stated) for one in chosen], opened.records)
    with result_folder(folder, options.overwrite, (RECORD,)) as partial:
        for name, text in opened.tables.items():
            (partial / name).write_text(text, encoding="utf-8")
        (partial / FACTS).write_text(facts_text(asked, stated), encoding="utf-8")
        stated_in = digest(partial / FACTS)
        filled = [document_of(one, opened, stated, stated_in) for one in chosen]
        written = _written(filled, opened, wanted, partial)
        pages = {path.name: digest(path) for path in [*written, partial / FACTS]}
        result = Documented(filled, opened.records, [folder / path.name for path in written], folder, pages)
        record = result.as_record()
        write_json(partial / RECORD, record.pop("schema"), record)
    return result


def _node_of(folder: Path) -> Mapping[str, Any]:
    """The figures of a node, whose database is a file of its folder or a server."""
    if (folder / DATABASE).is_file():
        return file_record(folder)
    need_extra("document")
    database = service.node_database(folder)
    try:
        with database.asked() as (query, tables):
            return node_record(query, tables)
    finally:
        database.close()


def _written(filled: Sequence[Document], subject: Subject, formats: Sequence[str], folder: Path) -> list[Path]:
    """The files of each document in each format."""
    browser = browser_path() if "pdf" in formats else ""
    metrics, pages, files = metrics_of(subject), list[Path](), list[Path]()
    for one in filled:
        page = page_of(one, subject, before=drafted(one, metrics))
        target = folder / f"{one.guideline.name}.html"
        if "html" in formats or browser:
            target.write_text(render(page), encoding="utf-8")
            pages.append(target)
        if "docx" in formats:
            files.append(target.with_suffix(".docx"))
            documents.write_word(page, files[-1])  # which imports python-docx
        if "json" in formats:
            files.append(target.with_suffix(".json"))
            write_json(files[-1], SCHEMA, {"scores": [one.score], "rows": one.rows})
        if one.guideline.name in ROOTS:
            files.append(target.with_suffix(".xml"))
            files[-1].write_text(card_xml(one, metrics), encoding="utf-8")
    if browser:
        files += print_pages(pages, browser)
    if "html" not in formats:
        for path in pages:
            path.unlink()
        pages = []
    return [*pages, *files]


def _chosen(names: str | Sequence[str], kind: str) -> list[str]:
    if names == ALL or list(names) == [ALL]:
        return [name for name in guideline_names() if kind in guideline(name).subjects]
    return _named(names, guideline_names(), "--for")


def _named(asked: str | Sequence[str], known: Sequence[str], where: str) -> list[str]:
    """The names of a list with commas, each once; UsageError for an unknown one."""
    names = asked.split(",") if isinstance(asked, str) else list(asked)
    cleaned = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    unknown = [name for name in cleaned if name not in known]
    if unknown or not cleaned:
        problem = f"{unknown[0]!r} is not known" if unknown else "names nothing"
        raise UsageError(problem, where, f"Use {', '.join(known)}")
    return cleaned


@takes(VerifyDocumentsOptions)
def verify_documents(options: VerifyDocumentsOptions) -> Verified:
    """Read every record that a folder of documents names anew, and list the rows and pages that no longer hold."""
    subject, record = (
        Subject.opened(Path(options.against), agreeing=False, node_of=_node_of),
        Path(options.folder) / RECORD,
    )
    written = read_json(record, SCHEMA)
    try:
        broken = broken_rows(Path(options.folder), subject)
        broken += _changed_pages(Path(options.folder), written, None if broken else subject)
        return Verified(len(written["rows"]), broken)
    except (KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"is damaged ({error})", str(record), "Write the documents anew") from error


def _changed_pages(folder: Path, written: Mapping[str, Any], subject: Subject | None) -> list[Broken]:
    """Files of documents that are not what was written, or not what their rows make.

    subject: None where rows do not hold, so that no page can be made anew
    """
    kept = {name: folder / name for name in written["pages"] if Path(name).name == name}
    now = {name: digest(path) if path.is_file() else "" for name, path in kept.items()}
    changed = {name for name, sha256 in now.items() if sha256 != written["pages"][name]}
    # People fill in facts for the next documents; these state those of before.
    if subject is not None and FACTS not in changed:
        stated, metrics = read_facts(folder / FACTS, datetime.now(UTC).date()), metrics_of(subject)
        for name in {f"{one['document']}.html" for one in written["scores"]} & kept.keys() - changed:
            filled = document_of(guideline(Path(name).stem).of(subject), subject, stated, now[FACTS])
            page = render(page_of(filled, subject, before=drafted(filled, metrics)))
            changed |= set() if page == kept[name].read_text(encoding="utf-8") else {name}
    return [Broken(name, "is not the file that was written of these rows") for name in sorted(changed - {FACTS})]


@takes(TraceRequirementsOptions)
def trace_requirements(options: TraceRequirementsOptions) -> Trace:
    """Trace requirements, promises of a page and controls of hazards to code, to tests and to their results.

    out:          a folder for trace.json, which `software-file` and `risk-file` read
    Raises UsageError for a file that is not there, says something unknown, or states one id twice.
    """
    if options.out is not None:
        refuse_taken(Path(options.out), options.overwrite, (TRACE,))
    trace = traced(Path(options.requirements), None if options.junit is None else Path(options.junit))
    if options.out is not None:
        with result_folder(Path(options.out), options.overwrite, (TRACE,)) as folder:
            write_json(folder / TRACE, TRACE_SCHEMA, trace.as_record())
    return trace
