"""`study plan`, `lock`, `randomise`, `assign` and `analyse`: a trial from its plan to its results."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import JsonValue
from typing_extensions import TypedDict

from hilum import errors, installation, keywords
from hilum.errors import UsageError
from hilum.files.storage import csv_text, file_lock
from hilum.options import records
from hilum.reading import verb_results
from hilum.report import Block, InNotebook, Paragraph, ReportPage, Section, Table, page_blocks, wording
from hilum.runtime import record_files
from hilum.studies import concealment, interim_looks, randomisation, trial_analysis, trial_protocol
from hilum.studies.interim_looks import InterimLook
from hilum.studies.randomisation import Allocation
from hilum.studies.trial_analysis import FLOW_SCHEMA, BaselineRow, EffectRow, FlowRecord, TrialAnalysis
from hilum.studies.trial_protocol import Endpoint, Study
from hilum.values import plain_values
from hilum.values.record_schema import RecordOfFields
from hilum.values.table_cells import AS_LIMIT, AS_MISSING
from hilum.verbs import study_folder
from hilum.verbs.study_folder import PLAN, RECORD, REGISTRY, AmendmentRow, StudyFolder

RESULTS, FLOW, PAGE = "results.json", "flow.json", "report.html"
TURN_S = 15.0  # for which a site waits while others write the same study, each for a moment


@dataclass(frozen=True)
class PlannedStudy(RecordOfFields):
    """A plan that was written. missing: keys that a registry asks for and the plan does not have"""

    title: str
    n: int | None
    missing: list[str]
    out: Path

    def __repr__(self) -> str:
        size = "no size is planned" if self.n is None else errors.count_phrase(self.n, "participant")
        gaps = f"\nregistry.json lacks {errors.list_phrase(self.missing)}" if self.missing else ""
        return f"{self.title}: {size}{gaps}\nwritten: {self.out}"


@dataclass(frozen=True)
class SealedPlan(RecordOfFields):
    """A plan that was locked, or amended."""

    plan_sha256: str
    amendments: list[AmendmentRow]

    def __repr__(self) -> str:
        return f"locked with {errors.count_phrase(len(self.amendments), 'amendment')}: study.toml is {self.plan_sha256}"


@dataclass(frozen=True)
class RandomisationResult(RecordOfFields):
    """A list that was randomised and encrypted. lists: one a stratum, or one a cluster"""

    method: str
    lists: int

    def __repr__(self) -> str:
        what = (
            errors.count_phrase(self.lists, "cluster")
            if self.method == "cluster"
            else errors.count_phrase(self.lists, "list")
        )
        return f"randomised by {self.method}: {what}, encrypted; keep {concealment.KEY} where the list is not"


@dataclass(frozen=True)
class AssignedArm(RecordOfFields):
    """The arm of one participant or cluster."""

    participant: str
    arm: str

    def __repr__(self) -> str:
        return f"{self.participant}: {self.arm}"


class TrialResults(TypedDict):
    """What the page shows of `results.json`, which also repeats the plan."""

    title: str
    question: str
    tests: list[EffectRow]
    look: dict[str, float | bool]
    baseline: list[BaselineRow]
    columns: list[str]
    locked: str
    plan_sha256: str
    data_sha256: str
    analysed: str


@dataclass(frozen=True)
class AnalysisResult(InNotebook):
    """Contents of `results.json` and `flow.json`."""

    results: TrialResults
    flow: FlowRecord
    out: Path

    @property
    def tests(self) -> list[EffectRow]:
        """Every test, a row each."""
        return list(self.results["tests"])

    def as_record(self) -> dict[str, JsonValue]:
        """The record for `--json`."""
        return dict(plain_values.as_json({**self.results, "flow": self.flow}))

    def __repr__(self) -> str:
        taken = [f"\nnote: {one}" for one in self.results["columns"] if AS_MISSING in one or AS_LIMIT in one]
        return f"{verdict_words(self.results)}{''.join(taken)}\nwritten: {self.out}"


@keywords.takes(records.StudyPlanOptions)
def study_plan(options: records.StudyPlanOptions) -> PlannedStudy:
    """Write the documents of a trial from its study.toml.

    out: a folder for the plan, protocol.html (by SPIRIT-AI), sap.html, study.json and registry.json
    Raises UsageError, which names the line, for a plan with a fault; a locked plan is never overwritten.
    """
    _refuse_without("statsmodels", "study plan")
    source, folder = Path(options.plan), Path(options.out)
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read ({error})", str(source), "Give a study.toml") from error
    verb_results.refuse_taken(folder, options.overwrite, (PLAN, RECORD, REGISTRY))
    if folder.is_dir() and StudyFolder(folder).is_locked:
        raise UsageError("the plan is locked", str(folder), "Amend it: hilum study lock --reason TEXT")
    with verb_results.result_folder(folder, options.overwrite, (PLAN, RECORD, REGISTRY)) as partial:
        study = study_folder.write_plan(partial, text, str(source))
    size = study.planned_size
    return PlannedStudy(
        study.title, None if size is None else size.n, trial_protocol.registry_record(study)["missing"], folder
    )


@keywords.takes(records.StudyLockOptions)
def study_lock(options: records.StudyLockOptions) -> SealedPlan:
    """Seal a plan by the hashes of its files; once it is sealed, an edit of study.toml is an amendment.

    Raises UsageError for an edit without a reason, and for one of arms or strata once they were randomised.
    """
    _refuse_without("statsmodels", "study lock")
    with file_lock.hold_lock(Path(options.folder), TURN_S):
        record = StudyFolder.open(Path(options.folder), is_locked=False).lock(options.reason)
    return SealedPlan(record_files.file_digest(Path(options.folder) / PLAN), record["amendments"])


@keywords.takes(records.StudyRandomiseOptions)
def study_randomise(options: records.StudyRandomiseOptions) -> RandomisationResult:
    """Randomise the list of a locked plan and encrypt it with the key in HILUM_ALLOCATION_KEY.

    Raises UsageError for another method than the design's, a second list, and a key that is no key.
    """
    _refuse_without("cryptography", "study randomise")
    concealment.allocation_key()  # refused before anything is allocated
    with file_lock.hold_lock(Path(options.folder), TURN_S):
        opened = StudyFolder.open(Path(options.folder))
        if options.method != opened.study.method:
            problem = f"a {opened.study.design} trial is not randomised by {options.method!r}"
            raise UsageError(problem, "--method", f"Use {opened.study.method}")
        # From the system's entropy: a seed that somebody knows would tell every arm.
        lists = randomisation.allocate_lists(
            opened.study, randomisation.length_of_lists(opened.study), np.random.default_rng()
        )
        opened.randomise(Allocation(lists, {}))
    return RandomisationResult(options.method, len(lists))


@keywords.takes(records.StudyAssignOptions)
def study_assign(options: records.StudyAssignOptions) -> AssignedArm:
    """Give the next arm of the list to a participant or a cluster, once, and log it.

    assignments: the level of each stratum, such as {"site": "Bern"}
    Raises UsageError for whoever has an arm, an unknown stratum and a missing key; IntegrityError for another key, and
    for a log or a plan that was edited.
    """
    _refuse_without("cryptography", "study assign")
    with file_lock.hold_lock(Path(options.folder), TURN_S):
        arm = StudyFolder.open(Path(options.folder)).assign(options.participant, dict(options.assignments or {}))
    return AssignedArm(options.participant, arm)


@keywords.takes(records.StudyAnalyseOptions)
def study_analyse(options: records.StudyAnalyseOptions) -> AnalysisResult:
    """Analyse a trial as its locked plan says; whatever else is asked for is marked as exploratory.

    data:    a table of participants with the columns participant and arm, and those that the plan names
    out:     a folder for results.json, flow.json and report.html
    explore: further columns and how they are compared: {"minutes": "mean"}, or "proportion"
    Each analysis of another table is a look; beyond those of the plan all is exploratory.
    Raises DatasetError for data unlike the allocation, UsageError for a plan that is not locked, and IntegrityError for
    one that was edited.
    """
    _refuse_without("statsmodels", "study analyse")
    table_file, result = Path(options.data), Path(options.out)
    verb_results.refuse_missing(table_file)
    verb_results.refuse_taken(result, options.overwrite, (RESULTS, FLOW))
    with file_lock.hold_lock(Path(options.folder), TURN_S):
        opened = StudyFolder.open(Path(options.folder))
        if not opened.is_randomised or opened.assignments.empty:
            raise UsageError("nobody was assigned yet", str(options.folder), "Run `hilum study assign` first")
        study, sha256 = opened.study, record_files.file_digest(table_file)
        before = [one for one in opened.looks if one["data"] != sha256]
        known = [one for one in opened.looks if one["data"] == sha256]
        looks = 1 if study.looks is None else study.looks.number
        number = int(known[0]["look"]) if known else len(before) + 1
        trial = TrialAnalysis(
            study,
            trial_analysis.read_data(
                study,
                csv_text.read_given_table(table_file),
                opened.assignments,
                str(table_file),
                is_last=number >= looks,
            ),
            str(table_file),
            explored=_explored_endpoints(study, options.explore or {}),
            is_planned=number <= looks,
        )
        fraction = _fraction(study, trial, number)
        if study.looks is not None and number <= looks:
            earlier = [float(one["fraction"]) for one in before if one["look"] < number]
            trial = _at_look(study, trial, [*earlier, fraction], table_file)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record = {
            **trial_protocol.plan_record(study),
            **trial.record(),
            "amendments": opened.amendments["amendments"] or "none: the plan was not amended after it was locked",
            "locked": opened.amendments["locked"],
            "plan_sha256": opened.sealed_hashes[PLAN],
            "data_sha256": sha256,
            "analysed": now,
        }
        flow = trial.flow(opened.assignments)
        with verb_results.result_folder(result, options.overwrite, (RESULTS, FLOW)) as partial:
            record_files.write_json(partial / RESULTS, "hilum.study_results", record)
            record_files.write_json(partial / FLOW, FLOW_SCHEMA, flow)
            shutil.copyfile(opened.folder / RECORD, partial / RECORD)
            (partial / PAGE).write_text(
                page_blocks.render_page(results_page(cast("TrialResults", record), flow)), encoding="utf-8"
            )
            if not known:  # before anybody sees a figure
                opened.note_look({"look": number, "data": sha256, "fraction": fraction, "on": now})
    return AnalysisResult(cast("TrialResults", record), flow, result)


def _explored_endpoints(study: Study, columns: Mapping[str, str]) -> list[Endpoint]:
    planned = {one.name for one in study.endpoints}
    for name, metric in columns.items():
        if name in planned or metric not in ("mean", "proportion"):
            problem = "is an endpoint of the plan" if name in planned else f"cannot be compared by {metric!r}"
            raise UsageError(f"{name} {problem}", "--explore", "Give another column as NAME=mean or NAME=proportion")
    return [
        Endpoint.model_validate({"name": name, "metric": metric, "direction": "higher"})
        for name, metric in columns.items()
    ]


def _fraction(study: Study, trial: TrialAnalysis, number: int) -> float:
    """The share of the planned outcomes that is known; the last look has all."""
    size = study.planned_size
    first = study.primary[0]
    planned = None if size is None else size.events if first.metric == trial_protocol.TIME else size.n
    if study.looks is None or number >= study.looks.number or not planned:
        return 1.0
    if first.metric == trial_protocol.TIME:
        return min(1.0, int(trial.has_event(first).sum()) / planned)
    return min(1.0, float(np.isfinite(trial.numbers(first.name, of=first)).sum()) / planned)


def _at_look(study: Study, trial: TrialAnalysis, fractions: list[float], table: Path) -> TrialAnalysis:
    """The trial with the bound of its look. Raises UsageError where it has no more outcomes than the look before."""
    rising = all(one < other for one, other in pairwise(fractions))
    if not rising or fractions[0] <= 0 or study.looks is None:
        problem = f"has no more outcomes than look {len(fractions) - 1}"
        raise UsageError(problem, str(table), "Look again when more are known")
    found: InterimLook = interim_looks.looks_at_fractions(fractions, study.analysis.alpha, study.looks.spending)[-1]
    return TrialAnalysis(study, trial.data, trial.where, found, trial.explored, trial.is_planned)


def _refuse_without(package: str, where: str) -> None:
    if find_spec(package) is None:
        raise UsageError(f"{package} is not installed", where, installation.install_line("documents"))


COLUMNS = ("endpoint", "who", "missing outcomes"), ("difference", "p", "p adjusted", "verdict")
VERDICTS = {
    "superior": "is superior to",
    "non-inferior": "is non-inferior to",
    "equivalent": "is equivalent to",
    "inferior": "is inferior to",
    "not shown": "is not shown to differ from",
}
SECTIONS = {
    "primary": "Primary endpoints",
    "sensitivity": "Sensitivity analyses",
    "secondary": "Secondary endpoints",
    "subgroups": "Subgroups",
    "exploratory": "Exploratory: not in the plan",
}


def verdict_words(results: TrialResults) -> str:
    """The verdicts of the primary endpoints in words."""
    parts = []
    for row in results["tests"]:
        if row["role"] == "primary":
            arms = "; ".join(f"{arm} {_seen_words(row, arm)}" for arm in (row["first"], row["second"]))
            values = f"{arms}; {_difference(row)} ({_interval(row)}, p {wording.p_text(row['p'])})"
            verdict = VERDICTS[str(row["verdict"])]
            whether = f"{row['second']} {verdict} {row['first']} in {row['endpoint']}{_margin(row)}"
            parts.append(f"{whether}: {values}.")
    if not results["look"]["planned"]:
        parts.append("The looks of the plan were spent before: all of this is exploratory.")
    return " ".join(parts)


def results_page(results: TrialResults, flow: FlowRecord) -> ReportPage:
    """The page."""
    arms = [row["arm"] for row in flow["arms"]]
    sections = [Section("Flow of participants", [trial_analysis.flow_diagram(flow["arms"]), *_losses(flow)])]
    for role, title in SECTIONS.items():
        rows = [row for row in results["tests"] if _section(row) == role]
        if rows:
            columns, cells = (*COLUMNS[0], *arms, *COLUMNS[1]), [_cells(row, arms) for row in rows]
            filled = [n for n in range(len(columns)) if any(row[n] is not None for row in cells)]
            table = Table([columns[n] for n in filled], [[row[n] for n in filled] for row in cells])
            sections.append(Section(title, [table, Paragraph(_methods(rows))]))
    baseline = [
        [row["characteristic"], *(_characteristic(cast("dict[str, float]", row[arm])) for arm in arms)]
        for row in results["baseline"]
    ]
    sections.append(Section("What each arm began with", [Table(("", *arms), baseline, "Mean (SD), or number (share)")]))
    return ReportPage(
        results["title"],
        lead=results["question"],
        verdict=verdict_words(results),
        sections=sections,
        facts={name: results[name] for name in ("locked", "plan_sha256", "data_sha256", "analysed")},
        notes=results["columns"],
    )


def _losses(flow: FlowRecord) -> list[Block]:
    if isinstance(flow["losses"], str):
        return [Paragraph("The primary outcome of nobody is missing.")]
    rows = [[row["arm"], row["reason"], row["participants"]] for row in flow["losses"]]
    return [Table(("arm", "why the primary outcome is missing", "participants"), rows)]


def _section(row: EffectRow) -> str:
    if not row["planned"]:
        return "exploratory"
    return "subgroups" if row["role"] in ("subgroup", "interaction") else str(row["role"])


def _cells(row: EffectRow, arms: Sequence[str]) -> list[Any]:
    named = row["endpoint"] if row["label"] == "all" else f"{row['endpoint']}, {row['label']}"
    people = f"{row['population']} ({', '.join(f'{arm} {n}' for arm, n in row['n'].items())})"
    p = [None if one is None else wording.p_text(one) for one in (row["p"], row["p_adjusted"])]
    if row["role"] == "interaction":
        is_shown = (row["p_adjusted"] or 0.0) < 1 - row["level"]
        most = f"{row['differs_most']} differs most" if is_shown else "no difference between levels is shown"
        return [f"{named}: interaction", people, row["missing"], None, None, most, *p, None]
    seen = [_seen_words(row, arm) for arm in arms]
    apart = f"{_difference(row).removeprefix('difference ')} ({_interval(row)})"
    return [named, people, row["missing"], *seen, apart, *p, row["verdict"]]


def _seen_words(row: EffectRow, arm: str) -> str:
    """What was seen in an arm: n of N, a mean with its deviation, or a median time."""
    value, known = row["values"][arm], row["known"][arm]
    if row["metric"] == trial_protocol.TIME:
        median = "median not reached" if value is None else f"median {value:.4g}"
        return f"{row['events'][arm]} of {known} had the event, {median}"
    if value is None:
        return "no outcome"
    if row["metric"] == "proportion":
        return f"{round(value * known)} of {known} ({wording.share_text(value)})"
    return f"mean {wording.number_text(value)} (SD {wording.number_text(row['sd'][arm])}), n {known}"


def _margin(row: EffectRow) -> str:
    """The margin of a verdict that speaks of one."""
    if row["margin"] is None or row["verdict"] in ("superior", "inferior"):
        return ""
    return f"{', nor to be non-inferior' if row['verdict'] == 'not shown' else ''} by the margin of {row['margin']:g}"


def _difference(row: EffectRow) -> str:
    if "hazard_ratio" not in row:
        return f"difference {wording.number_text(row['difference'], signed=True)}"
    ratio = row["hazard_ratio"]["value"]
    return f"hazard ratio {wording.number_text(ratio)}" if np.isfinite(ratio) else str(row["method"])


def _interval(row: EffectRow) -> str:
    if not np.isfinite(row["low"]):
        return "no interval"
    level = f"{100 * row['level']:.1f} % interval" if row["level"] < 0.9995 else "interval by the bound of the look"
    ends = row.get("hazard_ratio", row)
    return f"{level} {wording.number_text(ends['low'])} to {wording.number_text(ends['high'])}"


def _methods(rows: Sequence[EffectRow]) -> str:
    return "; ".join(dict.fromkeys(str(row["method"]) for row in rows))


def _characteristic(cell: Mapping[str, float]) -> str:
    if "mean" not in cell:
        return str(cell["n"])
    if "count" in cell and cell["n"]:
        return f"{cell['count']} of {cell['n']} ({wording.share_text(cell['mean'])})"
    return "unknown" if cell["n"] == 0 else f"{wording.number_text(cell['mean'])} ({wording.number_text(cell['sd'])})"
