"""`ensemble`: runs of any seeds and architectures as one model, whose members count as validation cases say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from typing_extensions import TypedDict

from hilum import errors, keywords
from hilum.errors import DatasetError, UsageError
from hilum.evaluation import Metrics, case_tables
from hilum.evaluation.case_tables import SummaryRecord
from hilum.evaluation.fairness.group_attributes import NONE
from hilum.files.storage import csv_text, hashing
from hilum.lazy import pandas as pd
from hilum.options.training import EnsembleOptions
from hilum.planning import plan_file, plan_result
from hilum.planning.plan_file import GROUPS
from hilum.planning.rules import split_rules
from hilum.quality import synthetic_images
from hilum.reading import ReadingOptions, dataset_reading, verb_results
from hilum.report import Block, InNotebook, Paragraph, Section, Table, wording
from hilum.runs import gate, run_end
from hilum.runs.run_end import ENVIRONMENT, ENVIRONMENT_SCHEMA, NOTES_SCHEMA
from hilum.runs.run_folder import NOTES
from hilum.runs.run_report import RunReport
from hilum.runs.tuning import UnseenPredictions
from hilum.runtime import Model, hardware, model_assembly, model_identity, predicted_memory, record_files
from hilum.runtime import ensemble as runtime_ensemble
from hilum.runtime.model_files import REPORT
from hilum.runtime.model_schema import MembersRecord
from hilum.runtime.package.package_contents import WEIGHTS
from hilum.scoring import case_scoring, data_record, model_comparison, model_verdict
from hilum.scoring.auditing import all_audits
from hilum.scoring.case_scoring import CASES, EVALUATION, AuditInput, ScoredCases
from hilum.scoring.model_comparison import Comparison, ComparisonRecord
from hilum.scoring.model_verdict import Verdict
from hilum.tasks import Task, properties
from hilum.training.member_weighting import MemberWeights
from hilum.values import Dataset, Plan, Row, Split
from hilum.verbs import ensemble_members
from hilum.verbs.ensemble_members import EQUAL, FITTED, SPLIT_BECAUSE, EnsembleMember, JoinedMembers
from hilum.work_state import log

# What tells an ensemble's folder from any other.
MARKS = ("members/ensemble.json", "plan.yaml", "split.csv")
OURS = "ensemble"
WEIGHTINGS = (FITTED, EQUAL)
TUNED_ASIDE = (
    "Thresholds and post-processing were found on the same validation cases, each predicted by weights that were "
    "fitted without its patient: no case has a say in both the weights and the thresholds of one prediction. Whether "
    "weights are fitted at all, all cases decided."
)
TUNED_EQUAL = "Thresholds and post-processing were found on the validation cases, which had no say in the weights."
TUNED_BY_NONE = "No validation case is left by which thresholds and post-processing could be found."
OF_FOLDS = "The folds of a run count alike: they have no validation case in common."
OF_NETWORKS = "Several networks of one training count alike."
UNKNOWN_TRAINING = "which cases trained it is not known; where it has seen test cases, the figures are too good."
PARTS: Mapping[Split, str] = {"train": "training", "val": "validation", "calibration": "calibration", "test": "test"}


# How it compares with the best of its members.
MemberComparison = TypedDict("MemberComparison", {"beside": ComparisonRecord | None})  # noqa: UP013 - as files name it


class EnsembleRecord(SummaryRecord, MemberComparison):
    """The figures of an ensemble, the weights of its members and why, and how it compares with the best of them."""

    out: str
    report: str
    weights: dict[str, float]
    because: str
    notes: list[str]


@dataclass(frozen=True, eq=False)
class Ensemble(InNotebook):
    """An ensemble; prints its headline, the verdict and how much its members count.

    weights: {member: how much it counts}, together 1
    comparison:  the members on the same test cases; None where no case is left for testing
    """

    out: Path
    weights: Mapping[str, float]
    because: str
    rows: tuple[Row, ...]
    primary: str
    comparison: Comparison | None
    notes: tuple[str, ...] = ()
    headline: tuple[Row, ...] = ()
    verdict: Verdict = field(default_factory=Verdict)
    metrics: Metrics = field(default_factory=Metrics)

    @property
    def report(self) -> Path:
        """The page."""
        return self.out / REPORT

    @property
    def table(self) -> pd.DataFrame:
        """Every figure, a row each: metric, label, value, low, high, n, patients, unit, method."""
        return pd.DataFrame(case_tables.rows_to_json(self.rows)["rows"])

    def as_record(self) -> EnsembleRecord:
        """The record for `--json`."""
        facts = {"out": str(self.out), "report": str(self.report), "weights": dict(self.weights)}
        judged = {"because": self.because, "notes": list(self.notes), "verdict": self.verdict.as_record()}
        comparison = None if self.comparison is None else self.comparison.as_record()
        return cast("EnsembleRecord", {**case_tables.rows_to_json(self.rows), **facts, **judged, "beside": comparison})

    def __repr__(self) -> str:
        headline = [wording.row_words(row, self.metrics) for row in self.headline]
        counts = ", ".join(f"{name} {share:.2f}" for name, share in self.weights.items())
        judged = [str(self.verdict), *self.verdict.against]
        return "\n".join([*headline, *judged, f"weights: {counts}", self.because, str(self.report)])


@keywords.takes(EnsembleOptions)
def ensemble(options: EnsembleOptions) -> Ensemble:
    """Finished runs on the same data as one model, the mean of what their networks say of each window.

    weights: "fitted" to the validation cases where that is surely better than "equal", which never looks at them
    seed:    by which validation patients are dealt into parts, and patients are resampled for intervals
    The ensemble is tested on the cases that no member was trained or selected on. Thresholds and the like are found
    anew, on predictions by weights in which the case itself had no say.
    Raises UsageError for runs that cannot be averaged, or whose parts would let test patients leak.
    """
    out = options.out
    out, paths = Path(out), [Path(one) for one in options.runs]
    if len(paths) < 2:
        raise UsageError(f"{errors.count_phrase(len(paths), 'run')} given", "ensemble", "Give two runs or more")
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("a run is given twice", "ensemble", "Give each once")
    if options.weights not in WEIGHTINGS:
        raise UsageError(f"there are no weights {options.weights!r}", "--weights", f"Choose {' or '.join(WEIGHTINGS)}")
    verb_results.refuse_taken(out, options.overwrite, MARKS)
    chosen = hardware.announced_device(options.device, options.threads).value
    names = tuple(f"member {name}" if name == OURS else name for name in model_comparison.folder_names(paths))
    members = ensemble_members.load_members(paths, names, chosen)
    ensemble_members.refuse_other_data(members)
    parts = ensemble_members.parts_of_all(members)
    model = runtime_ensemble.place_on_device(
        ensemble_members.join_members(members), [path / WEIGHTS for one in members for path in one.checkpoints], chosen
    )
    dataset = _data_of(members, model.task, options.data)
    joined, unseen = JoinedMembers(members, model, dataset, parts), UnseenPredictions()
    weighed = ensemble_members.weights_of_members(joined, options.weights, options.seed)
    log.info("weights: %s", weighed.because)
    task, decisions = ensemble_members.tuned_task(unseen, joined, weighed)
    kept, final = joined.of_those_that_count(weighed.shares, task)
    final = model_assembly.with_uncertainty(
        runtime_ensemble.place_on_device(final, [path / WEIGHTS for path in kept], chosen)
    )
    held, others = joined.cases("calibration"), joined.cases("val")
    final, judged = gate.refit_gate(unseen, final, held or others, exact=bool(held), chose=not held)
    decisions |= judged
    plan = ensemble_members.ensemble_plan(members, final, parts, decisions, dataset.root)
    with verb_results.result_folder(out, options.overwrite, MARKS) as folder:
        record: MembersRecord = {"weights": joined.by_name(weighed.shares), "because": weighed.because}
        runtime_ensemble.write_members(kept, final, record, folder)
        (folder / "plan.yaml").write_text(
            plan_file.plan_text(plan_result.with_relative_data(plan, out)), encoding="utf-8"
        )
        return _test(folder, out, joined, final, weighed, plan, options.seed)


def _data_of(members: Sequence[EnsembleMember], task: Task, data: str | Path | None) -> Dataset:
    """The members' data, read again as the first read them; UsageError where they are not what they were."""
    first = members[0]
    options = ReadingOptions.of_plan(first.plan.options)
    place = first.run / first.plan.data if data is None else Path(data)
    has_references = properties.learns_from_references(task)
    dataset = dataset_reading.open_dataset(place, options, references=has_references, needs=task.needs)
    dataset = data_record.name_as_in_run(dataset, first.data)
    dataset = dataset_reading.keep_referenced(dataset, task)
    there = {case.id for case in dataset}
    if lacking := set(first.split["case"]) - there:
        problem = f"{errors.count_phrase(len(lacking), 'case')} of {first.name} no longer there"
        raise DatasetError(problem, str(dataset.root or dataset.name), "Restore the data as they were")
    cases = [case for case in dataset if case.id in set(first.split["case"])]
    ensemble_members.refuse_changed_cases(members, cases, {case.id: hashing.content_hash(case) for case in cases})
    return dataset


def _test(
    folder: Path, out: Path, joined: JoinedMembers, model: Model, weighed: MemberWeights, plan: Plan, seed: int
) -> Ensemble:
    """Test the ensemble, and write figures and report into the folder that becomes `out`."""
    members, dataset, parts = joined.members, joined.dataset, joined.parts
    primary, known = str(plan["evaluation.primary"]), bool(model.record.get("patients_known"))
    named = joined.by_name(weighed.shares)
    csv_text.write_table(case_scoring.split_table(dataset, parts), folder / "split.csv")
    data_record.copy_data_record(members[0].run, folder, [one.data for one in members])
    tested = joined.cases("test")
    scored, comparison = None, None
    if tested:
        predictor, groups = predicted_memory.with_smaller_batches(model), plan[GROUPS] or NONE
        scored = case_scoring.score_cases(predictor, tested, parts, seed=seed, patients_known=known)
        fixed = plan_file.preregistered_groups(plan)
        scored = all_audits.run_audits(
            AuditInput(scored, predictor, tested, seed, known, planned=groups, preregistered=fixed)
        )
        (folder / EVALUATION).mkdir()
        scored.write(folder / EVALUATION)
        comparison = _compare(folder, members, model.task, primary, seed, known)
    notes = _notes(members, scored, known)
    simulated = synthetic_images.is_simulated(dataset)
    verdict = model_verdict.verdict_on_scores(scored, seed=seed, patients_known=known, notes=notes, simulated=simulated)
    run_end.write_notes(folder, notes, scored, verdict)
    case_scoring.write_verdict(folder / EVALUATION, verdict.as_record(), primary, plan_file.preregistered_margin(plan))
    record_files.write_json(folder / ENVIRONMENT, ENVIRONMENT_SCHEMA, hardware.machine_environment())
    page = RunReport(
        f"Ensemble of {errors.count_phrase(len(members), 'run')} on {dataset.name}",
        f"{split_rules.part_count_words(parts)}; {SPLIT_BECAUSE}.",
        primary=primary,
        scored=scored,
        notes=notes,
        facts={
            "members": ", ".join(f"{name} ({share:.2f})" for name, share in named.items()),
            "weights": weighed.because,
            "data hash": plan.data_hash,
            **model_identity.identity_facts(model),
        },
        views=f"{EVALUATION}/",
        plan=plan,
        problems=() if scored is None else scored.problems,
        environment=hardware.machine_environment(),
        members=[_members_section(members, weighed, comparison, parts)],
        verdict=verdict,
    )
    (folder / REPORT).write_text(page.html, encoding="utf-8")
    rows = () if scored is None else tuple(scored.rows)
    headline = tuple(model_verdict.headline_rows(rows, primary, model.task)) if rows else ()
    metrics = model.task.metrics
    return Ensemble(out, named, weighed.because, rows, primary, comparison, tuple(notes), headline, verdict, metrics)


def _compare(
    folder: Path, members: Sequence[EnsembleMember], task: Task, primary: str, seed: int, patients_known: bool
) -> Comparison:
    """The members on the ensemble's test cases: as their own evaluations scored them, each by its own thresholds."""
    tables, tasks = {OURS: case_tables.read_cases(folder / EVALUATION / CASES)}, [task]
    for ensemble_member in (one for one in members if not one.is_foreign):
        tables[ensemble_member.name], task = model_comparison.evaluated_cases(ensemble_member.run)
        tasks.append(task)
    # A case that one of them could not score is left out for all.
    common = set.intersection(*(set(table["case"]) for table in tables.values()))
    cut = {name: table[table["case"].isin(common)].reset_index(drop=True) for name, table in tables.items()}
    return model_comparison.compare_tables(cut, tasks, primary, seed=seed, patients_known=patients_known)


def _notes(members: Sequence[EnsembleMember], scored: ScoredCases | None, patients_known: bool) -> list[str]:
    """Notes that a reader must know before any figure: those of the members, then those of the ensemble."""
    notes = []
    if not patients_known:
        notes.append("Patients unknown, split by case: leakage cannot be excluded.")
    notes += [] if scored is None else scored.notes
    for ensemble_member in members:
        if ensemble_member.is_foreign:
            notes.append(f"{ensemble_member.name}: {UNKNOWN_TRAINING}")
            continue
        theirs = record_files.read_json(ensemble_member.run / NOTES, NOTES_SCHEMA)
        known_already = {*notes, *theirs["of_figures"]}  # the ensemble has figures of its own
        notes += [one for one in theirs["notes"] if one not in known_already and not one.startswith("Patients unknown")]
    if scored is None and not any(note.startswith("Every case was trained on") for note in notes):
        notes.append("Every case was trained on: nothing is estimated.")
    if scored is not None and (lost := verb_results.failures_among(scored.problems)):
        notes.append(f"{errors.count_phrase(len(lost), 'test case')} could not be scored: see Data.")
    return notes


def _members_section(
    members: Sequence[EnsembleMember], weighed: MemberWeights, comparison: Comparison | None, parts: Mapping[str, Split]
) -> Section:
    """Weights with their reason, then every member compared with the ensemble on the same test cases."""
    counts = [
        errors.count_phrase(sum(part == one for part in parts.values()), f"{name} case") for one, name in PARTS.items()
    ]
    tuned = TUNED_ASIDE if weighed.is_fitted else TUNED_EQUAL if "val" in parts.values() else TUNED_BY_NONE
    sentences = [f"Weights: {weighed.because}.", tuned]
    several = [one for one in members if len(one.models) > 1]
    sentences += [OF_FOLDS] * any(one.is_of_folds for one in several)
    sentences += [OF_NETWORKS] * (not all(one.is_of_folds for one in several))
    blocks: list[Block] = [
        _weights(members, weighed),
        Paragraph(" ".join(sentences)),
        Paragraph(f"{', '.join(counts)}."),
    ]
    if comparison is not None:
        blocks += [
            Paragraph(model_comparison.comparison_lead(comparison)),
            *model_comparison.primary_blocks(comparison),
        ]
        blocks.append(Paragraph(" ".join(model_comparison.comparison_caveats(comparison))))
    return Section("Members", blocks)


def _weights(members: Sequence[EnsembleMember], weighed: MemberWeights) -> Table:
    columns = ["Member", "Weight", "Network", "Seed", "Networks"]
    return Table(
        columns,
        [
            [
                one.name,
                f"{share:.2f}" if share else "0: left out of the model",
                one.models[0].networks.families,
                "" if one.is_foreign else str(one.plan["training.seed"]),
                str(len(one.models)),
            ]
            for one, share in zip(members, weighed.shares, strict=True)
        ],
    )
