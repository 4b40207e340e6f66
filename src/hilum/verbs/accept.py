"""`accept`: whether a model is good enough at a site, by a plan that was agreed and locked before anybody looked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from hilum import errors, keywords
from hilum.errors import UsageError
from hilum.evaluation import Table, intervals
from hilum.evaluation.fairness import group_attributes
from hilum.evaluation.fairness.group_attributes import UNKNOWN
from hilum.files.dicom import header_reading, tags
from hilum.files.storage import hashing
from hilum.lazy import pandas as pd
from hilum.monitoring import acceptance_plan, change_plan, change_rules
from hilum.monitoring.acceptance_plan import (
    ACCEPTANCE,
    CONDITIONAL,
    NOT_ACCEPTED,
    SCHEMA,
    AcceptanceFacts,
    AcceptancePlan,
    AcceptanceRecord,
    AcceptanceRow,
    AgreedRow,
    LockOfRecord,
)
from hilum.monitoring.change_plan import ALL, Acceptance
from hilum.options.records import AcceptOptions
from hilum.reading import dataset_reading, verb_results
from hilum.report import InNotebook, Paragraph, ReportPage, Section, page_blocks
from hilum.report import Table as PageTable
from hilum.report.page_blocks import Link
from hilum.runtime import model_files, record_files
from hilum.scoring import case_scoring
from hilum.scoring.case_scoring import CASES
from hilum.tasks import Task
from hilum.values import ANSWERED, Dataset, Estimate, record_schema
from hilum.verbs import change, evaluate
from hilum.verbs.evaluate import EvaluationResult

REPORT = "report.html"
REFUSED, SCORED = "not_answered", "cases_scored"
# What a rule that fails of too few cases needs, when its figure lies on the right side.
SIZE = "the figure lies on the right side: `hilum study size` says how many cases could show it"


@dataclass(frozen=True, eq=False)
class AcceptanceResult(InNotebook):
    """The lock on a plan and its cases, or the verdict; prints it with the rules that do not hold.

    verdict:    accepted, accepted with conditions, not accepted; empty where the plan was only locked
    conditions: {attribute: groups that are answered}; empty for no condition
    facts:      plan, model, data, lock and who agreed
    """

    verdict: str
    rows: Sequence[AcceptanceRow] = ()
    conditions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    facts: AcceptanceFacts = field(default_factory=AcceptanceFacts)
    notes: Sequence[str] = ()
    out: Path | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether the model may answer, be it under conditions; a plan that was only locked says nothing against it."""
        return self.verdict != NOT_ACCEPTED

    @property
    def broken(self) -> list[AcceptanceRow]:
        """The rules that do not hold."""
        return [row for row in self.rows if row.holds is False]

    @property
    def table(self) -> pd.DataFrame:
        """The rows."""
        return pd.DataFrame([asdict(row) for row in self.rows], columns=list(AcceptanceRow.__dataclass_fields__))

    def as_record(self) -> AcceptanceRecord:
        """The record for `--json` and acceptance.json."""
        return {
            "schema": SCHEMA,
            "version": 1,
            "verdict": self.verdict,
            "conditions": {name: list(own) for name, own in self.conditions.items()},
            **self.facts,
            "rows": record_schema.plain(self.rows),
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        if not self.verdict:
            cases = errors.count_phrase(self.facts["cases"], "case")
            return f"locked with {cases}: {self.facts['lock']}"
        lines = [self.verdict, *(f"answered of {name}: {', '.join(own)}" for name, own in self.conditions.items())]
        lines += [f"does not hold: {row.wanted}{_of_group(row)}: {row.found}" for row in self.broken]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, *([f"written: {self.out}"] if self.out is not None else [])])


@keywords.takes(AcceptOptions)
def accept(options: AcceptOptions) -> AcceptanceResult:
    """Test a package at a site by an agreed plan, once; with `lock` fix the plan and the cases before.

    out: a folder for acceptance.json, report.html and the scores, sealed
    config: settings of a node, which answers a study of each scanner in a folder of its own and sends the results
    Raises PlanError for a plan that cannot be executed; IntegrityError for a plan or a set that changed after the lock;
    DatasetError where cases that trained the model are in the set; UsageError without a lock, for another package, too
    few cases, or a second look.
    """
    path, target = Path(options.plan), None if options.out is None else Path(options.out)
    if target is not None and not options.lock:
        verb_results.refuse_taken(target, options.overwrite, (ACCEPTANCE, REPORT))
    agreed = acceptance_plan.read_acceptance_plan(path)
    with change.open_package(Path(options.model)) as package:
        if package.sha256 != agreed.model:
            problem = f"is not the package that was agreed on: its manifest.json has the SHA-256 {package.sha256}"
            raise UsageError(problem, str(options.model), f"Give the one with {agreed.model}")
        task = model_files.load(package.folder, "cpu").task
        change.refuse_impossible(agreed.acceptance, agreed.where, package, task)
        dataset = dataset_reading.open_labelled(Path(options.data), options.reading, task)
        covariates = group_attributes.covariates_by_name(dataset, [case.id for case in dataset])
        if agreed.groups:  # refused before anything is scored
            group_attributes.groups_by_attribute(covariates, ",".join(agreed.groups))
        notes = change.refuse_trained(dataset, Path(options.data), [package], None)
        hashed, now = hashing.dataset_hash(dataset), datetime.now(UTC).isoformat(timespec="seconds")
        if options.lock:
            acceptance_plan.refuse_few_cases(agreed, covariates, len(dataset))
            lock = acceptance_plan.write_lock(agreed, path, hashed, len(dataset), now)
            return AcceptanceResult("", facts=AcceptanceFacts(lock=str(lock), cases=len(dataset)), notes=notes)
        lock_record, lock_hash = acceptance_plan.read_lock(agreed, path, hashed)
        checks = [] if options.config is None else _technical_rows(Path(options.config), package.sha256, dataset)
        change_plan.count_look(Path(options.data), agreed, hashed, {"at": now, "model": package.sha256})
        result = evaluate.evaluate(
            package.folder, dataset, device=options.device, threads=options.threads, seed=options.seed
        )
    rows = [*_case_rows(result), *checks, *_rule_rows(agreed, result, dataset, options.seed), *_figure_rows(result)]
    verdict, conditions = acceptance_plan.verdict_of_rows(rows)
    facts = AcceptanceFacts(
        model=package.sha256,
        package=Path(options.model).name,
        agreed=[AgreedRow(name=name, on=on) for name, on in agreed.agreed],
        plan=agreed.sha256,
        lock=LockOfRecord(sha256=lock_hash, at=lock_record["at"], data=lock_record["data"], cases=lock_record["cases"]),
        looked_at=now,
    )
    notes += [SIZE] if any(SIZE in row.found for row in rows) else []
    made = AcceptanceResult(verdict, rows, conditions, facts, [*notes, *result.notes], target)
    return made if target is None else _written(made, result, target, options.overwrite)


def _technical_rows(config: Path, manifest: str, dataset: Dataset) -> list[AcceptanceRow]:
    """The checks of a node's settings on one study of each scanner. UsageError for a set without DICOM."""
    from hilum.verbs import serve

    serve.refuse_missing_extra("accept --config")
    from hilum.service import acceptances, configuration, technical_checks

    settings, paths = configuration.read_settings(config), dict[tuple[str, str], list[Path]]()
    name = technical_checks.model_of_package(settings, manifest)
    for image in (image for case in dataset for image in case.images.values()):
        if image.source is None or not image.source.is_dicom:
            raise UsageError("a case is no DICOM, which scanners send", "--config", "Give the images as they are sent")
        files = [Path(one) for one in image.source.paths]
        head = header_reading.read_header(files[0]).dataset
        scanner = tags.text(head, acceptances.KEYWORDS[technical_checks.SCANNER]) or UNKNOWN
        paths.setdefault((scanner, tags.text(head, "StudyInstanceUID")), []).extend(files)
    studies = {scanner: (study, paths[scanner, study]) for scanner, study in reversed(paths)}
    with tempfile.TemporaryDirectory(prefix="hilum-accept-") as folder:
        return list(technical_checks.check_scanners(settings, name, studies, Path(folder)))


def _case_rows(result: EvaluationResult) -> Iterator[AcceptanceRow]:
    """How many cases were scored, which has to be each, and the share that got no answer."""
    count, failed = len(result.outcomes), len(result.failures)
    scored = intervals.wilson(max(count - failed, 0), max(count, 1))
    found = "; ".join(one.what for one in result.failures[:3]) or "each"
    yield _row(SCORED, ALL, scored, wanted="every case is scored", found=found, holds=not failed)
    silent = sum(one.outcome != ANSWERED for one in result.outcomes)
    yield _row(REFUSED, ALL, intervals.wilson(silent, max(count, 1)))


def _figure_rows(result: EvaluationResult) -> Iterator[AcceptanceRow]:
    """Every figure of the evaluation, calibration among them."""
    return (_row(row.metric, row.label, row.estimate) for row in result.rows)


def _rule_rows(
    agreed: AcceptancePlan, result: EvaluationResult, dataset: Dataset, seed: int
) -> Iterator[AcceptanceRow]:
    """A row for each rule, of all cases and of each group that it names."""
    table, task = result.scored.table, result.scored.task
    assert task is not None  # noqa: S101 - cases were scored
    ids = [str(case) for case in dict.fromkeys(table["case"])]
    covariates = group_attributes.covariates_by_name(dataset, ids)
    own = {(row.metric, row.label): row.estimate for row in result.rows}
    for rule in agreed.acceptance:
        yield _judged(rule, own.get((rule.metric, rule.label)), agreed, task)
        for attribute in rule.groups:
            [levels] = group_attributes.groups_by_attribute(covariates, attribute).values()
            for level in sorted(set(levels) - {UNKNOWN}, key=group_attributes.group_order):
                cases = {case for case, group in zip(ids, levels, strict=True) if group == level}
                estimate = _estimate_of(rule, table[table["case"].isin(cases)], task, dataset, seed)
                yield _judged(rule, estimate, agreed, task, attribute, str(level))


def _estimate_of(rule: Acceptance, table: Table, task: Task, dataset: Dataset, seed: int) -> Estimate | None:
    rows = case_scoring.summarise_table(task, table, seed=seed, patients_known=dataset.patients_known)
    return next((row.estimate for row in rows if (row.metric, row.label) == (rule.metric, rule.label)), None)


def _judged(
    rule: Acceptance,
    estimate: Estimate | None,
    agreed: AcceptancePlan,
    task: Task,
    attribute: str = "",
    group: str = "",
) -> AcceptanceRow:
    """The row of a rule; a figure on the right side whose interval is too wide says that cases are too few."""
    words = f"{rule.metric} of {rule.label}: {rule.rule} {rule.value:g}"
    own = {"attribute": attribute, "group": group, "wanted": words}
    if estimate is None:
        nothing, found = Estimate(float("nan"), n=0), "there is no such figure"
        return _row(rule.metric, rule.label, nothing, **own, found=found, holds=False)
    more = task.metrics.metric_named(rule.metric).better != "less"
    judged = change_rules.judge_rule(rule, estimate, None, agreed, more=more, where=group)
    is_near = estimate.value >= rule.value if more else estimate.value <= rule.value
    found = judged.found if judged.holds or not is_near else f"{judged.found}; {SIZE}"
    return _row(rule.metric, rule.label, estimate, **own, found=found, holds=judged.holds)


def _row(metric: str, label: str, estimate: Estimate, **more: Any) -> AcceptanceRow:
    """A figure as a row; more: its group, and what a rule asks of it."""
    ends = (estimate.value, estimate.low, estimate.high)
    return AcceptanceRow(metric, label, *ends, estimate.n, estimate.patients, **more)


def _of_group(row: AcceptanceRow) -> str:
    return f" ({row.attribute} {row.group})" if row.attribute else ""


def _written(made: AcceptanceResult, result: EvaluationResult, target: Path, overwrite: bool) -> AcceptanceResult:
    with verb_results.result_folder(target, overwrite, (ACCEPTANCE, REPORT)) as folder:
        result.scored.write(folder)
        record_files.write_json(folder / ACCEPTANCE, SCHEMA, made.as_record())
        (folder / REPORT).write_text(page_blocks.render_page(acceptance_page(made)), encoding="utf-8")
        record_files.seal_folder(folder)
    return made


def acceptance_page(made: AcceptanceResult) -> ReportPage:
    """The report: the verdict, the rules with what was found, and every other figure."""
    rules = [
        [f"{row.wanted}{_of_group(row)}", row.found, "holds" if row.holds else "does not hold"]
        for row in made.rows
        if row.holds is not None
    ]
    figures = [
        [row.metric, row.label, _number(row.value), _number(row.low), _number(row.high), row.n]
        for row in made.rows
        if row.holds is None
    ]
    files = [Link(ACCEPTANCE, ACCEPTANCE), Link("cases", CASES)]
    answered = [Paragraph(f"Answered of {name}: {', '.join(own)}. No other.") for name, own in made.conditions.items()]
    sections = [
        Section("Rules that were agreed", [*answered, PageTable(["rule", "found", ""], rules)], files),
        Section("All figures", [PageTable(["metric", "label", "value", "low", "high", "n"], figures)], files),
    ]
    people = {f"agreed on {one['on']}": one["name"] for one in made.facts["agreed"]}
    locked = cast("LockOfRecord", made.facts["lock"])["at"]
    facts = {"package": made.facts["model"], "plan": made.facts["plan"], "locked": locked, **people}
    verdict = f"{made.verdict}: see which groups are answered" if made.verdict == CONDITIONAL else made.verdict
    return ReportPage("Acceptance of a model", sections=sections, facts=facts, notes=made.notes, verdict=verdict)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
