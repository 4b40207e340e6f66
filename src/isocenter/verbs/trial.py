"""`study plan`, `lock`, `randomise`, `assign` and `analyse`: a trial from its plan to its results."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from isocenter import studies
from isocenter.errors import UsageError, counted, listed
from isocenter.files import locked, read_given_table
from isocenter.keywords import takes
from isocenter.options import (
    StudyAnalyseOptions,
    StudyAssignOptions,
    StudyLockOptions,
    StudyPlanOptions,
    StudyRandomiseOptions,
)
from isocenter.reading import refuse_missing, refuse_taken, result_folder
from isocenter.report import Block, InNotebook, Page, Paragraph, Section, Table, number, p_text, render, share_text
from isocenter.runtime import as_json, digest, write_json
from isocenter.studies import Allocation, Endpoint, Look, Study, Trial, flow_of_arms
from isocenter.values import AS_MISSING
from isocenter.verbs.study_folder import PLAN, RECORD, REGISTRY, StudyFolder, write_plan

RESULTS, FLOW, PAGE = "results.json", "flow.json", "report.html"
TURN_S = 15.0  # for which a site waits while others write the same study, each for a moment


@dataclass(frozen=True)
class Planned:
    """A plan that was written. missing: keys that a registry asks for and the plan does not have"""

    title: str
    n: int | None
    missing: list[str]
    out: Path

    def as_record(self) -> dict[str, Any]:
        """The record for `--json`."""
        return {"title": self.title, "n": self.n, "missing": self.missing, "out": str(self.out)}

    def __repr__(self) -> str:
        size = "no size is planned" if self.n is None else counted(self.n, "participant")
        gaps = f"\nregistry.json lacks {listed(self.missing)}" if self.missing else ""
        return f"{self.title}: {size}{gaps}\nwritten: {self.out}"


@dataclass(frozen=True)
class Sealed:
    """A plan that was locked, or amended."""

    plan_sha256: str
    amendments: list[dict[str, Any]]

    def as_record(self) -> dict[str, Any]:
        """The record for `--json`."""
        return {"plan_sha256": self.plan_sha256, "amendments": self.amendments}

    def __repr__(self) -> str:
        return f"locked with {counted(len(self.amendments), 'amendment')}: study.toml is {self.plan_sha256}"


@dataclass(frozen=True)
class Randomised:
    """A list that was drawn and encrypted. lists: one a stratum, or one a cluster"""

    method: str
    lists: int

    def as_record(self) -> dict[str, Any]:
        """The record for `--json`."""
        return {"method": self.method, "lists": self.lists}

    def __repr__(self) -> str:
        what = counted(self.lists, "cluster") if self.method == "cluster" else counted(self.lists, "list")
        return f"randomised by {self.method}: {what}, encrypted; keep {studies.KEY} where the list is not"


@dataclass(frozen=True)
class Assigned:
    """The arm of one participant or cluster."""

    participant: str
    arm: str

    def as_record(self) -> dict[str, Any]:
        """The record for `--json`."""
        return {"participant": self.participant, "arm": self.arm}

    def __repr__(self) -> str:
        return f"{self.participant}: {self.arm}"


@dataclass(frozen=True)
class Analysed(InNotebook):
    """Contents of `results.json` and `flow.json`."""

    results: Mapping[str, Any]
    flow: Mapping[str, Any]
    out: Path

    @property
    def tests(self) -> list[dict[str, Any]]:
        """Every test, a row each."""
        return list(self.results["tests"])

    def as_record(self) -> dict[str, Any]:
        """The record for `--json`."""
        return dict(as_json({**self.results, "flow": self.flow}))

    def __repr__(self) -> str:
        taken = [f"\nnote: {one}" for one in self.results["columns"] if AS_MISSING in one]
        return f"{answer(self.results)}{''.join(taken)}\nwritten: {self.out}"


@takes(StudyPlanOptions)
def study_plan(options: StudyPlanOptions) -> Planned:
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
    refuse_taken(folder, options.overwrite, (PLAN, RECORD, REGISTRY))
    if folder.is_dir() and StudyFolder(folder).is_locked:
        raise UsageError("the plan is locked", str(folder), "Amend it: isocenter study lock --reason TEXT")
    with result_folder(folder, options.overwrite, (PLAN, RECORD, REGISTRY)) as partial:
        study = write_plan(partial, text, str(source))
    size = study.planned
    return Planned(study.title, None if size is None else size.n, studies.registry_record(study)["missing"], folder)


@takes(StudyLockOptions)
def study_lock(options: StudyLockOptions) -> Sealed:
    """Seal a plan by the hashes of its files; once it is sealed, an edit of study.toml is an amendment.

    Raises UsageError for an edit without a reason, and for one of arms or strata once they were randomised.
    """
    _refuse_without("statsmodels", "study lock")
    with locked(Path(options.folder), TURN_S):
        record = StudyFolder.opened(Path(options.folder), is_locked=False).lock(options.reason)
    return Sealed(digest(Path(options.folder) / PLAN), record["amendments"])


@takes(StudyRandomiseOptions)
def study_randomise(options: StudyRandomiseOptions) -> Randomised:
    """Draw the list of a locked plan and encrypt it with the key in ISOCENTER_ALLOCATION_KEY.

    Raises UsageError for another method than the design's, a second list, and a key that is no key.
    """
    _refuse_without("cryptography", "study randomise")
    studies.allocation_key()  # refused before anything is drawn
    with locked(Path(options.folder), TURN_S):
        opened = StudyFolder.opened(Path(options.folder))
        if options.method != opened.study.method:
            problem = f"a {opened.study.design} trial is not randomised by {options.method!r}"
            raise UsageError(problem, "--method", f"Use {opened.study.method}")
        # From the system's entropy: a seed that somebody knows would tell every arm.
        lists = studies.drawn_lists(opened.study, studies.length_of_lists(opened.study), np.random.default_rng())
        opened.randomise(Allocation(lists, {}))
    return Randomised(options.method, len(lists))


@takes(StudyAssignOptions)
def study_assign(options: StudyAssignOptions) -> Assigned:
    """Give the next arm of the list to a participant or a cluster, once, and log it.

    assignments: the level of each stratum, such as {"site": "Bern"}
    Raises UsageError for whoever has an arm, an unknown stratum and a missing key; IntegrityError for another key, and
    for a log or a plan that was edited.
    """
    _refuse_without("cryptography", "study assign")
    with locked(Path(options.folder), TURN_S):
        arm = StudyFolder.opened(Path(options.folder)).assign(options.participant, dict(options.assignments or {}))
    return Assigned(options.participant, arm)


@takes(StudyAnalyseOptions)
def study_analyse(options: StudyAnalyseOptions) -> Analysed:
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
    refuse_missing(table_file)
    refuse_taken(result, options.overwrite, (RESULTS, FLOW))
    with locked(Path(options.folder), TURN_S):
        opened = StudyFolder.opened(Path(options.folder))
        if not opened.is_randomised or opened.assignments.empty:
            raise UsageError("nobody was assigned yet", str(options.folder), "Run `isocenter study assign` first")
        study, sha256 = opened.study, digest(table_file)
        before = [one for one in opened.looks if one["data"] != sha256]
        known = [one for one in opened.looks if one["data"] == sha256]
        looks = 1 if study.looks is None else study.looks.number
        number = int(known[0]["look"]) if known else len(before) + 1
        trial = Trial(
            study,
            studies.read_data(
                study, read_given_table(table_file), opened.assignments, str(table_file), is_last=number >= looks
            ),
            str(table_file),
            explored=_explored(study, options.explore or {}),
            is_planned=number <= looks,
        )
        fraction = _fraction(study, trial, number)
        if study.looks is not None and number <= looks:
            earlier = [float(one["fraction"]) for one in before if one["look"] < number]
            trial = _at_look(study, trial, [*earlier, fraction], table_file)
        record = {
            **studies.plan_record(study),
            **trial.record(),
            "amendments": opened.amendments["amendments"] or "none: the plan was not amended after it was locked",
            "locked": opened.amendments["locked"],
            "plan_sha256": opened.sealed[PLAN],
            "data_sha256": sha256,
            "analysed": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        flow = trial.flow(opened.assignments)
        with result_folder(result, options.overwrite, (RESULTS, FLOW)) as partial:
            write_json(partial / RESULTS, "isocenter.study_results", record)
            write_json(partial / FLOW, "isocenter.study_flow", flow)
            shutil.copyfile(opened.folder / RECORD, partial / RECORD)
            (partial / PAGE).write_text(render(page_of_results(record, flow)), encoding="utf-8")
            if not known:  # before anybody sees a figure
                opened.note_look({"look": number, "data": sha256, "fraction": fraction, "on": record["analysed"]})
    return Analysed(record, flow, result)


def _explored(study: Study, columns: Mapping[str, str]) -> list[Endpoint]:
    planned = {one.name for one in study.endpoints}
    for name, metric in columns.items():
        if name in planned or metric not in ("mean", "proportion"):
            problem = "is an endpoint of the plan" if name in planned else f"cannot be compared by {metric!r}"
            raise UsageError(f"{name} {problem}", "--explore", "Give another column as NAME=mean or NAME=proportion")
    return [
        Endpoint.model_validate({"name": name, "metric": metric, "direction": "higher"})
        for name, metric in columns.items()
    ]


def _fraction(study: Study, trial: Trial, number: int) -> float:
    """The share of the planned outcomes that is known; the last look has all."""
    size = study.planned
    first = study.primary[0]
    planned = None if size is None else size.events if first.metric == studies.TIME else size.n
    if study.looks is None or number >= study.looks.number or not planned:
        return 1.0
    if first.metric == studies.TIME:
        return min(1.0, int(trial.happened(first).sum()) / planned)
    return min(1.0, float(np.isfinite(trial.numbers(first.name, of=first)).sum()) / planned)


def _at_look(study: Study, trial: Trial, fractions: list[float], table: Path) -> Trial:
    """The trial with the bound of its look. Raises UsageError where it has no more outcomes than the look before."""
    rising = all(one < other for one, other in pairwise(fractions))
    if not rising or fractions[0] <= 0 or study.looks is None:
        problem = f"has no more outcomes than look {len(fractions) - 1}"
        raise UsageError(problem, str(table), "Look again when more are known")
    found: Look = studies.bounds_at(fractions, study.analysis.alpha, study.looks.spending)[-1]
    return Trial(study, trial.data, trial.where, found, trial.explored, trial.is_planned)


def _refuse_without(package: str, where: str) -> None:
    if find_spec(package) is None:
        raise UsageError(f"{package} is not installed", where, "pip install 'isocenter[documents]'")


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


def answer(results: Mapping[str, Any]) -> str:
    """The verdicts of the primary endpoints in words."""
    parts = []
    for row in results["tests"]:
        if row["role"] == "primary":
            arms = "; ".join(f"{arm} {_seen(row, arm)}" for arm in (row["first"], row["second"]))
            values = f"{arms}; {_difference(row)} ({_interval(row)}, p {p_text(row['p'])})"
            whether = f"{row['second']} {VERDICTS[row['verdict']]} {row['first']} in {row['endpoint']}{_margin(row)}"
            parts.append(f"{whether}: {values}.")
    if not results["look"]["planned"]:
        parts.append("The looks of the plan were spent before: all of this is exploratory.")
    return " ".join(parts)


def page_of_results(results: Mapping[str, Any], flow: Mapping[str, Any]) -> Page:
    """The page."""
    arms = [row["arm"] for row in flow["arms"]]
    sections = [Section("Flow of participants", [flow_of_arms(flow["arms"]), *_losses(flow)])]
    for role, title in SECTIONS.items():
        rows = [row for row in results["tests"] if _section(row) == role]
        if rows:
            columns, cells = (*COLUMNS[0], *arms, *COLUMNS[1]), [_cells(row, arms) for row in rows]
            filled = [n for n in range(len(columns)) if any(row[n] is not None for row in cells)]
            table = Table([columns[n] for n in filled], [[row[n] for n in filled] for row in cells])
            sections.append(Section(title, [table, Paragraph(_methods(rows))]))
    baseline = [[row["characteristic"], *(_characteristic(row[arm]) for arm in arms)] for row in results["baseline"]]
    sections.append(Section("What each arm began with", [Table(("", *arms), baseline, "Mean (SD), or number (share)")]))
    return Page(
        results["title"],
        lead=results["question"],
        verdict=answer(results),
        sections=sections,
        facts={name: results[name] for name in ("locked", "plan_sha256", "data_sha256", "analysed")},
        notes=results["columns"],
    )


def _losses(flow: Mapping[str, Any]) -> list[Block]:
    if isinstance(flow["losses"], str):
        return [Paragraph("The primary outcome of nobody is missing.")]
    rows = [[row["arm"], row["reason"], row["participants"]] for row in flow["losses"]]
    return [Table(("arm", "why the primary outcome is missing", "participants"), rows)]


def _section(row: Mapping[str, Any]) -> str:
    if not row["planned"]:
        return "exploratory"
    return "subgroups" if row["role"] in ("subgroup", "interaction") else str(row["role"])


def _cells(row: Mapping[str, Any], arms: Sequence[str]) -> list[Any]:
    named = row["endpoint"] if row["label"] == "all" else f"{row['endpoint']}, {row['label']}"
    people = f"{row['population']} ({', '.join(f'{arm} {n}' for arm, n in row['n'].items())})"
    p = [None if row[name] is None else p_text(row[name]) for name in ("p", "p_adjusted")]
    if row["role"] == "interaction":
        is_shown = row["p_adjusted"] < 1 - row["level"]
        most = f"{row['differs_most']} differs most" if is_shown else "no difference between levels is shown"
        return [f"{named}: interaction", people, row["missing"], None, None, most, *p, None]
    seen = [_seen(row, arm) for arm in arms]
    apart = f"{_difference(row).removeprefix('difference ')} ({_interval(row)})"
    return [named, people, row["missing"], *seen, apart, *p, row["verdict"]]


def _seen(row: Mapping[str, Any], arm: str) -> str:
    """What was seen in an arm: n of N, a mean with its deviation, or a median time."""
    value, known = row["values"][arm], row["known"][arm]
    if row["metric"] == studies.TIME:
        median = "median not reached" if value is None else f"median {value:.4g}"
        return f"{row['events'][arm]} of {known} had the event, {median}"
    if not known:
        return "no outcome"
    if row["metric"] == "proportion":
        return f"{round(value * known)} of {known} ({share_text(value)})"
    return f"mean {number(value)} (SD {number(row['sd'][arm])}), n {known}"


def _margin(row: Mapping[str, Any]) -> str:
    """The margin of a verdict that speaks of one."""
    if row["margin"] is None or row["verdict"] in ("superior", "inferior"):
        return ""
    return f"{', nor to be non-inferior' if row['verdict'] == 'not shown' else ''} by the margin of {row['margin']:g}"


def _difference(row: Mapping[str, Any]) -> str:
    if "hazard_ratio" not in row:
        return f"difference {number(row['difference'], signed=True)}"
    ratio = row["hazard_ratio"]["value"]
    return f"hazard ratio {number(ratio)}" if np.isfinite(ratio) else str(row["method"])


def _interval(row: Mapping[str, Any]) -> str:
    if not np.isfinite(row["low"]):
        return "no interval"
    level = f"{100 * row['level']:.1f} % interval" if row["level"] < 0.9995 else "interval by the bound of the look"
    ends = row.get("hazard_ratio", row)
    return f"{level} {number(ends['low'])} to {number(ends['high'])}"


def _methods(rows: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(dict.fromkeys(str(row["method"]) for row in rows))


def _characteristic(cell: Mapping[str, Any]) -> str:
    if "mean" not in cell:
        return str(cell["n"])
    if "count" in cell and cell["n"]:
        return f"{cell['count']} of {cell['n']} ({share_text(cell['mean'])})"
    return "unknown" if cell["n"] == 0 else f"{number(cell['mean'])} ({number(cell['sd'])})"
