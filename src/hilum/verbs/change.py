"""`change`: whether a changed model lies within an agreed plan and is as good, and what speaks for training anew."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from hilum import errors, keywords
from hilum.errors import DatasetError, IntegrityError, PlanError, UsageError
from hilum.evaluation import ALL
from hilum.evaluation.fairness import group_attributes
from hilum.files.storage import hashing
from hilum.lazy import pandas as pd
from hilum.monitoring import change_plan, change_rules
from hilum.monitoring.change_plan import APPROVED, AT_LEAST, CHANGE_PLAN, CURRENT, Acceptance, ChangePlan
from hilum.monitoring.change_rules import (
    ALLOWED,
    CHANGE_RECORD,
    CHANGE_SCHEMA,
    OUTSIDE,
    ChangeCheckRecord,
    ChangeFacts,
    ChangeRow,
    HashedFile,
    LockedSet,
    RegulatoryAnswer,
)
from hilum.monitoring.monitoring_record import MONITORED, MONITORED_SCHEMA
from hilum.options.records import CheckChangeOptions, ProposeChangeOptions
from hilum.reading import dataset_reading, verb_results
from hilum.report import InNotebook, Paragraph, ReportPage, Section, Table, page_blocks
from hilum.report.page_blocks import Link
from hilum.runtime import model_files, record_files
from hilum.runtime.model_schema import ModelRecord
from hilum.runtime.package import package_contents
from hilum.runtime.package.package_contents import PACKAGED
from hilum.runtime.record_files import MANIFEST_SCHEMA
from hilum.scoring import case_selection
from hilum.scoring.case_scoring import CASES, ScoredCases
from hilum.scoring.data_record import DataRecord
from hilum.scoring.model_comparison import Comparison, ModelTest
from hilum.tasks import Task
from hilum.values import Dataset, record_schema
from hilum.values.record_schema import RecordHead, RecordSchema
from hilum.verbs import comparison_tests, evaluate

REPORT = "report.html"


class FiredTrigger(TypedDict):
    """A trigger of a change plan that a monitoring has met."""

    trigger: str
    evidence: str


class ProposalRecord(RecordHead):
    """A proposal to train anew: the triggers, the modification of the plan and the command; plan: its SHA-256."""

    triggers: list[FiredTrigger]
    modification: str
    command: str
    plan: str


PROPOSAL, PROPOSAL_SCHEMA = "proposal.json", RecordSchema("hilum.proposal", ProposalRecord)
CHECK_AGAIN = "Check this change: hilum change check"
# Rules that the reason for a verdict names in full.
LISTED = 3
MANIFEST, FIRST, NEW, PLAIN = "manifest.json", "first", "new", "torch"


class CheckedPackage(NamedTuple):
    """A package whose files are what was written.

    given:  what the person named; folder: where it lies, unpacked
    record: `model.json`; sha256: of its manifest
    """

    given: Path
    folder: Path
    record: ModelRecord
    sha256: str


@dataclass(frozen=True, eq=False)
class ChangeCheck(InNotebook):
    """Result of the check of a change; prints the verdict and the rules that do not hold.

    verdict:   allowed, refused (a rule of acceptance does not hold) or outside (of what the plan lets change)
    rows:      of the parts that differ and, where the change is inside the plan, of the rules of acceptance
    questions: of a regulator, with what the records answer; for `outside` alone
    facts:     models, plan and locked set with their hashes, and which look this was
    """

    verdict: str
    rows: Sequence[ChangeRow]
    questions: Sequence[RegulatoryAnswer]
    facts: ChangeFacts
    notes: Sequence[str] = field(default=())
    out: Path | None = None

    @property
    def is_allowed(self) -> bool:
        """Whether the new model may take the place of the old one."""
        return self.verdict == ALLOWED

    @property
    def broken(self) -> list[ChangeRow]:
        """The rows that do not hold."""
        return [row for row in self.rows if not row.holds]

    @property
    def because(self) -> str:
        """The reason for the verdict in one sentence."""
        if self.is_allowed:
            return f"every one of {errors.count_phrase(len(self.rows), 'rule')} holds"
        counts = ", ".join(f"{len(rows)} {kind}" for kind, rows in change_rules.rows_by_kind(self.broken).items())
        if self.verdict == OUTSIDE:
            return f"{errors.count_phrase(len(self.broken), 'part')} changed that no modification names ({counts})"
        rules_broken = list(dict.fromkeys(f"{row.rule}: {row.found}" for row in self.broken))
        more = [f"{len(rules_broken) - LISTED} more"] if len(rules_broken) > LISTED else []
        rules = errors.count_phrase(sum(not row.part for row in self.rows), "rule")
        return f"of {rules} {counts}: {'; '.join(rules_broken[:LISTED] + more)}"

    @property
    def table(self) -> pd.DataFrame:
        """The rows."""
        return pd.DataFrame([vars(row) for row in self.rows], columns=list(ChangeRow.__dataclass_fields__))

    def as_record(self) -> ChangeCheckRecord:
        """The record for `--json` and change.json."""
        return {
            "schema": CHANGE_SCHEMA,
            "version": 1,
            "verdict": self.verdict,
            "because": self.because,
            **self.facts,
            "rows": record_schema.plain(self.rows),
            "questions": record_schema.plain(self.questions),
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        lines = [f"{self.verdict}: {self.because}"]
        if self.verdict == OUTSIDE:
            parts = {kind: [row.part for row in rows] for kind, rows in change_rules.rows_by_kind(self.broken).items()}
            lines += [f"  {kind}: {len(own)} ({errors.list_phrase(own)})" for kind, own in parts.items()]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, *([f"written: {self.out}"] if self.out is not None else [])])


@dataclass(frozen=True)
class ChangeProposal:
    """Reasons for training anew, and the command that would; nothing is trained.

    triggers: (trigger, evidence)
    """

    triggers: Sequence[tuple[str, str]]
    modification: str
    command: str
    plan: str
    out: Path | None = None

    def as_record(self) -> ProposalRecord:
        """The record for `--json` and proposal.json."""
        return ProposalRecord(
            schema=PROPOSAL_SCHEMA,
            version=1,
            triggers=[FiredTrigger(trigger=name, evidence=evidence) for name, evidence in self.triggers],
            modification=self.modification,
            command=self.command,
            plan=self.plan,
        )

    def __repr__(self) -> str:
        if not self.triggers:
            return "no trigger of the plan has fired: nothing is proposed"
        lines = [f"{name}: {evidence}" for name, evidence in self.triggers]
        lines += [f"proposed, as {self.modification!r}: {self.command}"]
        return "\n".join([*lines, *([f"written: {self.out}"] if self.out is not None else [])])


@keywords.takes(CheckChangeOptions)
def check_change(options: CheckChangeOptions) -> ChangeCheck:
    """Check a changed model against an agreed plan of changes, on a locked set.

    out:       a folder for change.json, report.html and the scores of each model
    A change outside the plan is told from the records alone, and costs no look.
    Raises PlanError for a plan that cannot be executed, IntegrityError for a package, a plan or a set that is not what
    it was, DatasetError where patients of training are in the locked set, UsageError where all looks are spent.
    """
    target = None if options.out is None else Path(options.out)
    if target is not None:
        verb_results.refuse_taken(target, options.overwrite, (CHANGE_RECORD, REPORT))
    agreed = change_plan.read_change_plan(Path(options.plan))
    with ExitStack() as stack:
        current, changed = (stack.enter_context(open_package(Path(one))) for one in (options.old, options.new))
        origin = None if options.approved is None else stack.enter_context(open_package(Path(options.approved)))
        before = {APPROVED: _approved_package(agreed, current, origin), CURRENT: current}
        rows, parts = list[ChangeRow](), list[str]()
        for package in _apart(before).values():
            own = _parts(package, changed)
            rows += change_rules.part_rows(own, agreed, str(package.given))
            parts += [part for part in own if part not in parts]
        if any(not row.holds for row in rows):
            outside = change_rules.regulatory_answers([part for part in parts if agreed.modification_of(part) is None])
            facts = _facts(agreed, before, changed)
            note = "The locked set was not looked at: the change is outside the plan."
            return _write_check(ChangeCheck(OUTSIDE, rows, outside, facts, [note], target), {}, options.overwrite)
        task = model_files.load(changed.folder, "cpu").task
        refuse_impossible(agreed.acceptance, agreed.where, changed, task)
        dataset = dataset_reading.open_labelled(Path(options.data), options.reading, task)
        covariates = group_attributes.covariates_by_name(dataset, [case.id for case in dataset])
        if agreed.groups:  # refused before anything is scored
            group_attributes.groups_by_attribute(covariates, ",".join(agreed.groups))
        notes = refuse_trained(dataset, Path(options.data), [*_apart(before).values(), changed], options.run)
        hashed, now = hashing.dataset_hash(dataset), datetime.now(UTC).isoformat(timespec="seconds")
        look = {"at": now, "old": current.sha256, "new": changed.sha256}
        number = change_plan.count_look(Path(options.data), agreed, hashed, look)
        scored, failed = dict[str, ScoredCases](), list[str]()
        for name, package in {**_apart(before), NEW: changed}.items():
            # The models are compared, and not what computes them, which certificates compare.
            result = evaluate.evaluate(
                package.folder,
                dataset,
                device=options.device,
                threads=options.threads,
                backend=PLAIN,
                seed=options.seed,
            )
            scored[name] = result.scored
            failed += [f"{name}: {one.what}" for one in result.failures]
    rows.append(ChangeRow("every case is scored", "no failure", "; ".join(failed) or "none", not failed, CASES))
    rows += _acceptance(agreed, scored, before, seed=options.seed, patients_known=dataset.patients_known)
    facts = {
        **_facts(agreed, before, changed),
        "data": LockedSet(path=str(options.data), hash=hashed, cases=len(dataset)),
        "look": number,
        "looks": agreed.evaluations,
        "alpha_of_look": agreed.alpha_of_look,
    }
    if any(rule.against == (CURRENT,) for rule in agreed.acceptance):
        notes.append("A rule compares with the current model alone: over several changes quality can creep down.")
    verdict = change_rules.verdict_of_change(rows)
    return _write_check(ChangeCheck(verdict, rows, (), facts, notes, target), scored, options.overwrite)


@keywords.takes(ProposeChangeOptions)
def propose_change(options: ProposeChangeOptions) -> ChangeProposal:
    """Propose to train anew where a trigger of the plan has fired in a monitoring; nothing is trained.

    out:       a folder for proposal.json, which is written only where a trigger has fired
    Raises PlanError for a plan without [retrain], IntegrityError for a folder that holds no monitoring.
    """
    agreed = change_plan.read_change_plan(Path(options.plan))
    if not agreed.retrain:
        raise PlanError("has no [retrain]", agreed.where, "Name a trigger: bound, concept or labels")
    record = record_files.read_json(Path(options.monitored) / MONITORED, MONITORED_SCHEMA)
    try:
        triggers = list(change_rules.fired_triggers(agreed, record))
    except (KeyError, TypeError) as error:
        where = str(Path(options.monitored) / MONITORED)
        raise IntegrityError(f"is damaged ({error})", where, "Run hilum monitor again") from error
    modification = agreed.retrain.get("modification", next(iter(agreed.modifications)))
    words = ["hilum", "train", agreed.retrain.get("data", "DATA"), "--from", str(options.package)]
    made = ChangeProposal(
        triggers, modification, shlex.join(words), agreed.sha256, None if options.out is None else Path(options.out)
    )
    if made.out is not None and triggers:
        verb_results.refuse_taken(made.out, options.overwrite, (PROPOSAL,))
        with verb_results.result_folder(made.out, options.overwrite, (PROPOSAL,)) as folder:
            record_files.write_json(folder / PROPOSAL, PROPOSAL_SCHEMA, made.as_record())
    return made


@contextmanager
def open_package(path: Path) -> Iterator[CheckedPackage]:
    """A package, checked against its manifest. Raises UsageError for anything else."""
    with record_files.unpack(path) as folder:
        if not (folder / PACKAGED).is_dir():
            raise UsageError("is no package", str(path), "Pack the run: hilum package RUN")
        record_files.verify_seal(folder)
        yield CheckedPackage(
            path, folder, package_contents.package_record(folder), record_files.file_digest(folder / MANIFEST)
        )


def _approved_package(plan: ChangePlan, current: CheckedPackage, approved: CheckedPackage | None) -> CheckedPackage:
    """The package that the plan names."""
    package = current if approved is None else approved
    if package.sha256 == plan.approved:
        return package
    problem = f"is not the approved package: its manifest.json has the SHA-256 {package.sha256}"
    remedy = f"Give the one with {plan.approved}" + (" by --approved" if approved is None else "")
    raise UsageError(problem, str(package.given), remedy)


def _apart(before: Mapping[str, CheckedPackage]) -> dict[str, CheckedPackage]:
    """The models to compare with, each once: the approved one may be the current one."""
    known = dict[str, CheckedPackage]()
    for name, package in before.items():
        if package.sha256 not in {one.sha256 for one in known.values()}:
            known[name] = package
    return known


def _parts(old: CheckedPackage, new: CheckedPackage) -> list[str]:
    """Names of the parts in which two packages differ; those of the first stage of a cascade begin with `first`."""
    records = [_with_arrays(package.folder, package.record) for package in (old, new)]
    parts, stages = change_rules.changed_parts(*records), [package.folder / FIRST for package in (old, new)]
    has_first = [stage.is_dir() for stage in stages]
    if any(has_first) and not all(has_first):
        return [*parts, FIRST]
    if all(has_first):
        first = [_with_arrays(stage, package_contents.package_record(stage)) for stage in stages]
        parts += [f"{FIRST}.{part}" for part in change_rules.changed_parts(*first)]
    return parts


def _with_arrays(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the SHA-256 of its arrays, by part: those of weights, of the gate and of others."""
    listed = record_files.read_json(folder / MANIFEST, MANIFEST_SCHEMA)["sha256"]
    arrays = dict[str, list[str]]()
    for name, sha256 in sorted(listed.items()):
        path = Path(name)
        if path.parent == Path(PACKAGED) and path.suffix == ".safetensors":
            arrays.setdefault(path.stem.split("_")[0], []).append(sha256)
    return {**record, "arrays": arrays}


def refuse_impossible(rules: Sequence[Acceptance], where: str, package: CheckedPackage, task: Task) -> None:
    """PlanError for a rule that no evaluation of a package could decide, as `change_rules.refuse_impossible` has it."""
    evaluated = {(row["metric"], str(row["label"])) for row in package.record.get("evaluation", ())}
    change_rules.refuse_impossible(rules, where, evaluated, task)


def refuse_trained(
    dataset: Dataset, data: Path, packages: Sequence[CheckedPackage], run: str | Path | None
) -> list[str]:
    """DatasetError where images or patients of training are in the locked set; notes on what nobody knows."""
    notes = list[str]()
    remedy = "Lock a set of other patients"
    for package in packages:
        hashes = {one: one for one in package.record["record"].get("trained", ())}
        if not hashes:
            notes.append(f"{package.given} does not say which images trained it: none could be looked for.")
        record = DataRecord(hashes, {}, hashes)
        if trained := record.trained_cases(dataset, {one: {"train"} for one in hashes}):
            whose = {case.patient for case in dataset if case.id in trained}
            problem = f"holds {errors.count_phrase(len(whose), 'patient')} whose images trained {package.given}"
            raise DatasetError(problem, str(data), remedy)
    if run is not None:
        if not dataset.patients_known:
            raise DatasetError("does not say whose the cases are", str(data), "Name them: --patient COLUMN")
        people = case_selection.training_patients(model_files.load(Path(run), "cpu"), Path(run))
        if not people:
            notes.append(f"{run} does not know whose its cases are: no patient could be looked for by name.")
        if same := {case.patient for case in dataset} & people:
            raise DatasetError(
                f"holds {errors.count_phrase(len(same), 'patient')} who trained {run}", str(data), remedy
            )
    return notes


def _acceptance(
    plan: ChangePlan,
    scored: Mapping[str, ScoredCases],
    before: Mapping[str, CheckedPackage],
    *,
    seed: int,
    patients_known: bool,
) -> Iterator[ChangeRow]:
    """A row for each rule, model that it is against, and group."""
    tables = {name: one.table for name, one in scored.items()}
    tasks = {name: one.task for name, one in scored.items() if one.task is not None}
    is_both = len(scored) == 2
    for name in _apart(before):
        asked = [rule for rule in plan.acceptance if rule.rule == AT_LEAST and name == APPROVED]
        others = [rule for rule in plan.acceptance if rule.rule != AT_LEAST]
        asked += others if is_both else [rule for rule in others if name in rule.against]
        pair = [name, NEW]
        own_tables, own_tasks = {one: tables[one] for one in pair}, [tasks[one] for one in pair]
        against = f"{APPROVED} and {CURRENT}" if is_both else name
        for groups in dict.fromkeys(rule.groups for rule in asked):
            made = comparison_tests.tests_by_group(
                own_tables, own_tasks, groups, seed=seed, patients_known=patients_known
            )
            for group, comparison, tests in made:
                for rule in (one for one in asked if one.groups == groups):
                    where = ", ".join(filter(None, ["" if rule.rule == AT_LEAST else f"against {against}", group]))
                    yield _row(rule, comparison, tests, plan, where)


def _row(
    rule: Acceptance, comparison: Comparison, tests: Sequence[ModelTest], plan: ChangePlan, where: str
) -> ChangeRow:
    """The row of a rule by a comparison of the new model, its second, with another."""
    found = [row for row in comparison.rows if (row.metric, row.label) == (rule.metric, rule.label)]
    if not found:
        words = f"{rule.metric} of {rule.label}, {where}: {rule.rule}"
        return ChangeRow(words, "a figure", "there is no such figure", False, f"{NEW}/{CASES}")
    # The figures of a label that are those over all labels are tested once.
    own = {row.label: row.test for row in tests if row.metric == rule.metric}
    more = comparison.metrics.metric_named(rule.metric).better != "less"
    return change_rules.judge_rule(
        rule, found[0].estimates[1], own.get(rule.label, own.get(ALL)), plan, more=more, where=where
    )


def _facts(plan: ChangePlan, before: Mapping[str, CheckedPackage], new: CheckedPackage) -> ChangeFacts:
    packages = {**before, NEW: new}
    named = {name: HashedFile(path=str(one.given), sha256=one.sha256) for name, one in packages.items()}
    return cast("ChangeFacts", {"plan": HashedFile(path=plan.where, sha256=plan.sha256), **named})


def _write_check(check: ChangeCheck, scored: Mapping[str, ScoredCases], overwrite: bool) -> ChangeCheck:
    if check.out is None:
        return check
    with verb_results.result_folder(check.out, overwrite, (CHANGE_RECORD, REPORT)) as folder:
        for name, one in scored.items():
            (folder / name).mkdir()
            one.write(folder / name)
        record = check.as_record()
        record_files.write_json(folder / CHANGE_RECORD, CHANGE_SCHEMA, record)
        shutil.copyfile(record["plan"]["path"], folder / CHANGE_PLAN)
        (folder / REPORT).write_text(page_blocks.render_page(change_check_page(check, list(scored))), encoding="utf-8")
        if "data" in record:
            change_plan.note_check(
                record["plan"]["sha256"], record["data"]["hash"], hashing.file_hash(folder / CHANGE_RECORD)
            )
    return check


def confirm_check(check: Path, current: Path, new: Path) -> str:
    """The SHA-256 of a check that allows a package in place of another: its verdict is reached anew.

    check: the folder that `check_change` wrote, or its change.json; current, new: folders of the packages
    Raises UsageError for a check of other packages, or whose plan and rows do not allow the change, IntegrityError for
    a record that no check of this machine has written.
    """
    path = check / CHANGE_RECORD if check.is_dir() else check
    record = record_files.read_json(path, CHANGE_SCHEMA)
    try:
        with ExitStack() as stack:
            packages = [stack.enter_context(open_package(one)) for one in (current, new)]
            _refuse_other_packages(record, packages, path)
            rows = TypeAdapter(list[ChangeRow]).validate_python(record["rows"])
            _refuse_broken(rows, record["verdict"], path)
            agreed = change_plan.read_change_plan(path.with_name(CHANGE_PLAN))
            _refuse_broken(
                list(change_rules.part_rows(_parts(*packages), agreed, str(current))), record["verdict"], path
            )
        stated, sha256 = {row.rule for row in rows}, hashing.file_hash(path)
        looked_at = (agreed.sha256, record["data"]["hash"])
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        raise IntegrityError(f"is damaged ({error})", str(path), CHECK_AGAIN) from error
    for rule in agreed.acceptance:
        words = f"{rule.metric} of {rule.label}"
        if not any(one.startswith((f"{words}:", f"{words},")) and f": {rule.rule}" in one for one in stated):
            raise UsageError(f"has no row for {words}: {rule.rule}, which the plan asks for", str(path), CHECK_AGAIN)
    if not change_plan.is_noted(*looked_at, sha256):
        problem = "is not what a check of this machine has written, by this plan and on its locked set"
        raise IntegrityError(problem, str(path), f"{CHECK_AGAIN} on the machine of the node, and promote its folder")
    return sha256


def _refuse_other_packages(record: ChangeCheckRecord, packages: Sequence[CheckedPackage], path: Path) -> None:
    for name, package in zip((CURRENT, NEW), packages, strict=True):
        stated = cast("Mapping[str, HashedFile]", record).get(name)
        found = stated and stated.get("sha256")
        if found != package.sha256:
            problem = (
                f"is a check of another package: the {name} one had the manifest {found}, and has {package.sha256}"
            )
            raise UsageError(problem, str(path), CHECK_AGAIN)


def _refuse_broken(rows: Sequence[ChangeRow], verdict: str, path: Path) -> None:
    """UsageError for another verdict than allowed, or one that these rows do not bear."""
    if verdict != ALLOWED:
        raise UsageError(f"the verdict is {verdict}", str(path), "Promote what a check allows")
    if change_rules.verdict_of_change(rows) != ALLOWED:
        broken = next(row for row in rows if not row.holds)
        problem = f"states that the change is allowed, and that it is not: {broken.rule}: {broken.found}"
        raise UsageError(problem, str(path), CHECK_AGAIN)


def change_check_page(check: ChangeCheck, scored: Sequence[str]) -> ReportPage:
    """The report: the verdict, the rules, and for a change outside the plan the questions of a regulator."""
    rows = [
        [row.rule, row.wanted, row.found, "holds" if row.holds else row.kind, row.evidence]
        for row in check.rows
        if not row.part
    ]
    columns = ["rule", "wanted", "found", "", "evidence"]
    files = [Link(CHANGE_RECORD, CHANGE_RECORD), *(Link(f"cases of {name}", f"{name}/{CASES}") for name in scored)]
    changes = [row for row in check.rows if row.part]
    kinds = [
        [kind, len(own), ", ".join(row.part for row in own), found, own[0].evidence]
        for found, against in dict.fromkeys((row.found, row.evidence) for row in changes)
        for kind, own in change_rules.rows_by_kind(
            row for row in changes if (row.found, row.evidence) == (found, against)
        ).items()
    ]
    heads = ["kind", "parts", "names", "found", "evidence"]
    changed = Table(heads, kinds) if kinds else Paragraph("The models do not differ.")
    sections = [Section("What changed", [changed], files)]
    sections += [Section("Rules", [Table(columns, rows)], files)] if rows else []
    if check.questions:
        cells = [[one.number, one.question, one.answer, one.evidence] for one in check.questions]
        lead = Paragraph("Asked by FDA of a software change, in our words. What no record answers is missing.")
        table = Table(["", "question", "answer", "evidence, or what to give"], cells)
        sections.append(
            Section("Questions on a change outside the plan", [lead, table], [Link(CHANGE_RECORD, CHANGE_RECORD)])
        )
    facts = {
        name: value["sha256"] for name, value in check.facts.items() if isinstance(value, Mapping) and "sha256" in value
    }
    if "look" in check.facts:
        facts |= {
            "look": f"{check.facts['look']} of {check.facts['looks']}",
            "alpha of a look": check.facts["alpha_of_look"],
        }
    return ReportPage(
        "Check of a change",
        sections=sections,
        facts=facts,
        notes=check.notes,
        verdict=f"{check.verdict}: {check.because}",
    )
