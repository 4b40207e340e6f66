"""`check`: what is here, is it fit to learn from; its page and its record."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Required, cast

import numpy as np
from pydantic import JsonValue
from typing_extensions import TypedDict

from hilum import errors, keywords, work_state
from hilum.errors import DatasetError, HilumError, IntegrityError, PlanError, UsageError
from hilum.files.modality_words import UNKNOWN_MODALITY
from hilum.files.storage import hashing
from hilum.layouts import OWN_TABLE, dataset_table
from hilum.layouts.dataset_table import ACCEPTED
from hilum.lazy import pandas as pd
from hilum.options.training import CheckOptions
from hilum.planning import training_memory
from hilum.planning.rules import preprocessing_rules
from hilum.quality import (
    accepted_findings,
    known_cases,
    mask_fit,
    modality_checks,
    outlier_limits,
    references,
    synthetic_images,
)
from hilum.quality.dataset_examination import Examination
from hilum.quality.image_descriptors import ImageLook
from hilum.quality.leakage import Twin
from hilum.reading import ReadingOptions, alignment, dataset_reading, verb_results
from hilum.reading.dataset_reading import Data
from hilum.report import Block, Figure, InNotebook, Paragraph, ReportPage, Section, Table, page_blocks
from hilum.report.figures import charts, cohort_figures, sheets
from hilum.report.page_blocks import Facts, Gallery, Problems
from hilum.runs import label_trainings
from hilum.runs.plan_request import PlanRequest
from hilum.runtime import record_files
from hilum.runtime.parallel import dask_cluster
from hilum.scoring import other_versions
from hilum.scoring.auditing import between_groups, representation_audit
from hilum.scoring.auditing.label_ranking import RELABEL, LabelRanking
from hilum.scoring.case_scoring import AuditOutcome
from hilum.tasks import task_catalogue
from hilum.transforms.channel_stack import GREY
from hilum.values import (
    BoundingBoxes,
    Case,
    CaseFacts,
    Cohort,
    Dataset,
    Fingerprint,
    Image,
    LazyMapping,
    Problem,
    dataset_cases,
    dataset_fingerprint,
    grid_geometry,
)
from hilum.values.dataset_cases import SPLITS
from hilum.values.dataset_fingerprint import Shortcut
from hilum.values.record_schema import FullFigure, RecordSchema


class ProblemRow(TypedDict):
    """A finding about the data, the cases that it is of, and what to do.

    kind, accepts: the word of a warning that a person can accept, and what accepts it for each of its cases
    """

    severity: str
    what: str
    cases: list[str]
    why: str
    remedy: str
    kind: str
    accepts: list[str]


class TwinsRow(TypedDict):
    """Two cases whose images are alike, or exactly the same."""

    cases: list[str]
    likeness: float
    exact: bool


class ShortcutRow(TypedDict):
    """What tells the answer without looking at the image: its AUROC, and whether it can be taken away."""

    name: str
    auc: FullFigure
    p: float
    removable: bool
    standing: bool
    setting: str
    what: str
    figure: str
    where: str
    kind: str


class CheckedCase(TypedDict):
    """One case's part of the fingerprint; intensities and quality of each channel."""

    shape: list[int]
    spacing: list[float] | None
    modality: str
    channels: list[str]
    content: float
    intensity: list[dict[str, float | None]]
    foreground: list[dict[str, float | None]]
    references: dict[str, JsonValue]
    thickness: dict[str, float]
    elongation: dict[str, float]
    components: dict[str, int]
    quality: list[dict[str, float | None]]


class CheckRecord(TypedDict, total=False):
    """What a look at a data set has found, and whether training may go on.

    source, files: where the data lie from the results, and the SHA-256 of the files that were written
    """

    schema: str
    version: int
    facts: dict[str, JsonValue]
    passed: Required[bool]
    rows: list[ProblemRow]
    twins: list[TwinsRow]
    shortcuts: list[ShortcutRow]
    cases: dict[str, CheckedCase]
    source: str
    files: dict[str, str]


MARKS, SCHEMA = ("check.json",), RecordSchema("hilum.check", CheckRecord)


@dataclass(frozen=True, eq=False)
class Check(InNotebook):
    """The findings about a data set; prints itself.

    stopped: Ctrl-C, where it ended the trainings that rank the references
    """

    dataset: Dataset
    examination: Examination
    facts: Mapping[str, JsonValue]
    out: Path | None = field(default=None)
    audits: Sequence[AuditOutcome] = ()
    stopped: KeyboardInterrupt | None = None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The findings that speak against training."""
        return self.examination.problems

    @property
    def table(self) -> pd.DataFrame:
        """The findings, the worst first: severity, what, cases, why, remedy."""
        findings = dataset_cases.worst_first(self.problems)
        return pd.DataFrame([asdict(one) for one in findings], columns=["severity", "what", "cases", "why", "remedy"])

    def as_record(self) -> CheckRecord:
        """The content of `check.json`."""
        rows = [
            ProblemRow(
                severity=p.severity,
                what=p.what,
                cases=list(p.cases),
                why=p.why,
                remedy=p.remedy,
                kind=p.kind,
                accepts=list(p.accepts),
            )
            for p in self.problems
        ]
        examination = self.examination
        return {
            "schema": SCHEMA,
            "version": 1,
            "facts": dict(self.facts),
            "passed": self.passed,
            "rows": rows,
            "twins": [
                {"cases": [twin.first, twin.second], "likeness": round(twin.likeness, 4), "exact": twin.exact}
                for twin in examination.pairs
            ],
            "shortcuts": [cast("ShortcutRow", asdict(shortcut)) for shortcut in examination.shortcuts],
            "cases": {case.id: case_record(case, examination.looks[case.id]) for case in examination.fingerprint.cases},
        }

    @property
    def passed(self) -> bool:
        """Whether training may go on."""
        return not self.examination.fatal

    def __repr__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.facts.items()]
        for problem in dataset_cases.worst_first(self.problems):
            lines.extend(_lines(problem))
        if not self.problems:
            lines.append("nothing was found that speaks against training")
        if self.out is not None:
            names = ["check.html", *([OWN_TABLE] if self.dataset.table is not None else [])]
            names += [name for audit in self.audits for name in audit.tables if name == RELABEL]
            lines.append(f"written: {', '.join(str(self.out / name) for name in names)}")
        return "\n".join(lines)


def _lines(problem: Problem) -> list[str]:
    """A finding in lines: what and which cases, why it matters, what to do."""
    cases = f" [{', '.join(problem.cases[:3])}{', ...' if len(problem.cases) > 3 else ''}]" if problem.cases else ""
    many = f" ({errors.count_phrase(len(problem.cases), 'case')})" if len(problem.cases) > 3 else ""
    lines = [f"{problem.severity:8}{problem.what.rstrip('.')}{many}{cases}."]
    for text in (problem.why, problem.remedy):
        if text:
            lines.append(f"{'':8}{text[:1].upper()}{text[1:].rstrip('.')}.")
    if accepting := page_blocks.accepting_words(problem):
        lines.append(f"{'':8}{accepting}")
    return lines


@keywords.takes(CheckOptions)
def check(options: CheckOptions) -> Check:
    """Read every case of `data` once and say what is there and what is wrong.

    out:   a folder for check.json, check.html and dataset.csv, which holds the cases row by row (also where they are
        refused); nothing is written without it
    shift: groups whose images are compared, into shift.csv; match: covariates by which their patients are paired
    other_data: data sets and runs whose versions of the same cases are compared with these
    minutes: from now until references are ranked by models that have not seen them, into relabel.csv
    Raises UsageError for a path or a covariate that is not there, DatasetError for a folder that cannot be understood.
    """
    began = work_state.command_start()
    for place in options.other_data:
        if not Path(place).exists():
            raise UsageError(f"there is no {place}", "--beside", "Give a data set, a run or its data.json")
    data = dataset_reading.path_for_workers(options.data, options.scheduler)
    if options.out is not None:
        verb_results.refuse_taken(Path(options.out), _replaces(options), MARKS)
    learns_from_references = task_catalogue.learns_from_references(options.task)
    if options.minutes is not None and not learns_from_references:
        problem = f"--task {options.task} learns from no reference that could be wrong"
        raise UsageError(problem, "--minutes", "Leave it out")
    reading = options.reading
    opened = functools.partial(
        _open_data, data, reading, lesions=options.lesions, with_references=learns_from_references
    )
    threads = options.threads or training_memory.core_count()
    try:
        with dask_cluster.spread_over(options.scheduler):
            dataset, examination, numbered = dataset_reading.open_and_examine(opened, options.task, threads)
    except DatasetError as error:
        if options.out is not None and (written := _write_images(options, Path(options.out))) is not None:
            raise error.stating(remedy=f"{error.remedy.rstrip('.')}. The images are listed in {written}") from error
        raise
    unknown = [
        *modality_checks.modality_problems(examination.dataset, examination.fingerprint),
        *modality_checks.unlike_contrasts(examination.dataset, examination.fingerprint),
    ]
    of_synthetic = synthetic_images.synthetic_image_problems(examination.dataset)
    lost = preprocessing_rules.normalised_problems(examination.dataset, examination.fingerprint)
    examination = replace(examination, problems=(*examination.problems, *unknown, *lost, *of_synthetic))
    versions = _other_versions(examination, options, threads)
    examination = replace(examination, problems=(*examination.problems, *versions))
    audits, stopped = list(_audits(examination, options)), None
    facts = _facts(dataset, examination)
    if options.minutes is not None:
        try:
            ranking = _rank_references(examination, numbered, options, began)
            cohort = Cohort(examination.dataset, examination.fingerprint)
            doubts = accepted_findings.apply_acceptances(ranking.problems, cohort, examination.looks)
            examination = replace(examination, problems=(*examination.problems, *doubts))
            facts["labels"] = ranking.statement
            audits.append(ranking.outcome)
        except (DatasetError, PlanError) as error:  # what was found stands, whether or not these data can train
            facts["labels"] = f"not ranked: {error}"
        except KeyboardInterrupt as stop:
            stopped = stop
            facts["labels"] = "not ranked: the training was stopped"
    result = Check(dataset, examination, facts, Path(options.out) if options.out is not None else None, audits, stopped)
    with nullcontext() if stopped is None else work_state.finish_despite_interrupt():
        if options.out is not None:
            _write(result, options)
        if stopped is not None:
            raise stopped
    return result


def _other_versions(examination: Examination, options: CheckOptions, threads: int) -> Iterator[Problem]:
    """Findings on cases that another data set, or a run, has otherwise."""
    if not options.other_data:
        return
    contents = {case.id: hashing.content_hash(case) for case in examination.dataset if case.files}
    needs = task_catalogue.needed_references(options.task)
    for place in map(Path, options.other_data):
        if (folder := other_versions.record_folder(place)) is not None:
            other = other_versions.recorded_set(folder)
        else:
            dataset = _open_data(place, options.reading, needs, lesions=(), with_references=True)
            examine = functools.partial(dataset_reading.examine_cases, threads=threads, kinds=needs)
            other = other_versions.examined_set(place.name, dataset, contents, examine)
        yield from other_versions.version_problems(examination, contents, other)


def _rank_references(examination: Examination, numbered: str, options: CheckOptions, began: float) -> LabelRanking:
    """All references, the most doubtful first, by trainings that end with the minutes."""
    request = PlanRequest(minutes=options.minutes, threads=options.threads, task=options.task, reading=options.reading)
    return label_trainings.rank_by_training(examination, numbered, request, began=began)


def _write(result: Check, options: CheckOptions) -> None:
    """The files of a check into the folder that was asked for."""
    with _results(options) as partial:
        alignment.write_alignment(result.dataset, options.reading.align, partial)
        further = [ACCEPTED] if any(problem.accepts for problem in result.problems) else []
        dataset_table.write_dataset_table(result.dataset, partial, Path(options.out or "."), further=further)
        for audit in result.audits:
            audit.write(partial)
        sections = [section for audit in result.audits for section in audit.sections]
        page = page_blocks.render_page(dataset_check_page(result.examination, result.facts, sections))
        (partial / "check.html").write_text(page, encoding="utf-8")
        _write_record(partial, options, result.as_record())


def _replaces(options: CheckOptions) -> bool:
    """Whether an older folder may be replaced: one of a check of the same path, all of whose files are as written.

    Raises UsageError for files of it that somebody has changed.
    """
    out, record = Path(options.out or "."), _record_of(options)
    if options.overwrite or not record or record["source"] != _source(options):
        return options.overwrite
    changed = [
        name
        for name, known in record["files"].items()
        if (file := out / name).is_file() and record_files.file_digest(file) != known
    ]
    if changed:
        remedy = "Choose another --out, or give --overwrite if the change may be lost"
        raise UsageError(f"{errors.list_phrase(changed)} was changed since the last check", str(out), remedy)
    return True


def _record_of(options: CheckOptions) -> CheckRecord | None:
    """What an older folder records; None where it is of no check."""
    try:
        return record_files.read_json(Path(options.out or ".") / MARKS[0], SCHEMA)
    except (IntegrityError, OSError):  # a file in place of the folder, or of one above it
        return None


def _source(options: CheckOptions) -> str | None:
    """Where the data lie from the results; None of data in memory, which nothing tells to be the same."""
    path = dataset_reading.path_of_data(options.data)
    return None if path is None else os.path.relpath(path.resolve(), Path(options.out or ".").resolve())


def _write_record(partial: Path, options: CheckOptions, record: CheckRecord) -> None:
    files = {
        file.relative_to(partial).as_posix(): record_files.file_digest(file)
        for file in partial.rglob("*")
        if file.is_file()
    }
    written: CheckRecord = {**record, "source": _source(options) or "", "files": files}
    record_files.write_json(partial / MARKS[0], SCHEMA, written)


@contextmanager
def _results(options: CheckOptions) -> Iterator[Path]:
    """A folder to write into, which takes the place of an older check's files; what else lies there is kept."""
    out = Path(options.out or ".")
    own = {MARKS[0], *(_record_of(options) or CheckRecord(passed=False)).get("files", ())}
    with verb_results.result_folder(out, _replaces(options), MARKS) as partial:
        yield partial
        for file in [one for one in out.rglob("*") if one.is_file()] if out.is_dir() else []:
            kept = partial / file.relative_to(out)
            if file.relative_to(out).as_posix() not in own:
                if kept.exists():
                    raise UsageError("was not written by check, and is kept", str(file), "Choose another --out")
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, kept)


def _write_images(options: CheckOptions, out: Path) -> Path | None:
    """Write `dataset.csv` of a folder that could not be understood, with its images, and return its path.

    None where no image is found.
    """
    for layout in (options.layout, "plain_images"):
        try:
            dataset = dataset_reading.open_dataset(
                options.data, replace(options.reading, layout=layout), references=False
            )
        except HilumError:
            continue
        with _results(options) as partial:
            dataset_table.write_dataset_table(dataset, partial, out)
            _write_record(partial, options, {"passed": False})
        return out / OWN_TABLE
    return None


def _audits(examination: Examination, options: CheckOptions) -> Iterator[AuditOutcome]:
    """The audits of groups of people that were asked for."""
    groups, population, shift, match = options.groups, options.population, options.shift, options.match
    if population is not None and groups is None:
        raise UsageError("says nothing without groups", "--population", "Add --groups sex,age:40:60")
    if match is not None and shift is None:
        raise UsageError("says nothing without groups whose images are compared", "--match", "Add --shift site")
    if groups is not None:
        audit = representation_audit.audit_representation(examination.dataset, groups, population)
        yield from [] if audit is None else [audit]
    if shift is not None:
        names = match.split(",") if isinstance(match, str) else match or ()
        yield between_groups.image_shift(examination, shift, [name.strip() for name in names if name.strip()])


def _open_data(
    data: Data, reading: ReadingOptions, needs: Collection[str], *, lesions: Sequence[str], with_references: bool
) -> Dataset:
    """The data set; images without any reference are checked too, and the lack becomes an error of the list."""
    try:
        dataset = dataset_reading.open_dataset(
            data, reading, references=with_references, needs=needs, paints=with_references
        )
        return replace(dataset, lesions=frozenset(lesions))
    except DatasetError as error:
        dataset = dataset_reading.open_dataset(data, reading, references=False)
        if dataset.kinds or not len(dataset):
            raise
        lack = Problem.error(error.problem, (), "nothing can be learnt from them, only predicted", error.remedy)
        return replace(dataset, problems=(lack, *dataset.problems))


def _facts(dataset: Dataset, examination: Examination) -> dict[str, JsonValue]:
    usable, fingerprint = examination.dataset, examination.fingerprint
    facts: dict[str, JsonValue] = {
        "data": dataset.name or str(dataset.root),
        "read as": dataset.layout,
        "cases": f"{len(usable)} of {len(dataset)} can be used",
        "patients": dataset.patients if dataset.patients_known else f"unknown ({dataset.patients})",
        "references": ", ".join(sorted(dataset.kinds)) or "none",
        "data hash": hashing.dataset_hash(usable),
    }
    if dataset.splits:
        parts = list(dataset.splits.values())
        facts["own split"] = ", ".join(f"{part} {parts.count(part)}" for part in SPLITS if part in parts)
    if fingerprint.cases:
        shapes = {case.shape for case in fingerprint.cases}
        facts["shapes"] = dataset_fingerprint.sizes_in_words(shapes)
        if all(case.physical for case in fingerprint.cases) and len({len(shape) for shape in shapes}) == 1:
            median = np.median(fingerprint.steps, axis=0)
            facts["spacing"] = f"median {' x '.join(f'{s:.4g}' for s in median)} {fingerprint.unit}"
        else:
            facts["spacing"] = (
                f"not known for every case: lengths are in {grid_geometry.pixels_or_voxels(fingerprint.axes)}"
            )
        modality = ", ".join(sorted({case.modality for case in fingerprint.cases}))
        unknown = modality == dataset.modality == UNKNOWN_MODALITY
        if unknown and (guess := modality_checks.guess_modality(usable, fingerprint)):
            modality += f"; guessed: {guess.modality}, because {guess.because}"
        facts["modality"] = modality
        channels = {case.channels for case in fingerprint.cases}  # a file that names none numbers them from 0
        named = ("one, without a name" if one == GREY else ", ".join(one) for one in channels)
        facts["channels"] = "; ".join(sorted(named))
    if any(mask_fit.mask_name(case) for case in usable):
        judged = mask_fit.judged_cases(Cohort(usable, fingerprint), examination.looks)
        facts["place of masks"] = (
            f"judged by one another in {errors.count_phrase(judged, 'case')}"
            if judged
            else f"not judged: that takes {outlier_limits.FEWEST} cases with a mask on images of one number of axes"
        )
    for kind in references.reference_kinds():
        facts |= kind.words.lines(Cohort(dataset, fingerprint))
    if examination.unmeasured:
        facts["shortcuts"] = "; ".join(examination.unmeasured)
    return facts


SHOWN_CASES, EACH, SHOWN_PAIRS = 12, 4, 12
BINS = 32


def dataset_check_page(
    examination: Examination, facts: Mapping[str, JsonValue], more: Sequence[Section] = ()
) -> ReportPage:
    """All that was found as one page, the worst first; more: sections on groups of people"""
    problems = dataset_cases.worst_first(examination.problems)
    unknown = "" if examination.dataset.patients_known else (
        " Patients are unknown: a split is by case, and leakage cannot be excluded."
    )  # fmt: skip
    return ReportPage(
        title=f"Check of {facts['data']}",
        lead=f"What the data hold, and what speaks against training on them.{unknown}",
        verdict=_verdict(examination),
        sections=[
            Section("What was found", [Problems(problems, none="Nothing was found that speaks against training.")]),
            Section("What the data hold", [Facts(facts), *_numbers(examination)]),
            *([Section("How it looks", shown)] if (shown := list(_pictures(examination))) else []),
            *_twins(examination),
            *_shortcuts(examination),
            *more,
        ],
    )


def _verdict(examination: Examination) -> str:
    """Whether these data are fit to learn from, in a sentence."""
    counts = {name: sum(one.severity == name for one in examination.problems) for name in ("error", "warning")}
    spoken = " and ".join(errors.count_phrase(count, name) for name, count in counts.items() if count)
    if examination.fatal:
        return f"Not fit for training as they are: {spoken or 'no case can be used'}."
    usable = errors.count_phrase(len(examination.dataset), "case")
    if not spoken:
        return f"{usable} to learn from; nothing speaks against it."
    return f"{usable} to learn from, with {spoken} to look at first."


def case_record(facts: CaseFacts, look: ImageLook) -> CheckedCase:
    """One case's part of the fingerprint, as `check.json` keeps it."""
    recorded = {
        kind.name: kind.facts.recorded(facts.references[kind.name])
        for kind in references.kinds_by_names(facts.references)
    }
    return {
        "shape": list(facts.shape),
        "spacing": list(facts.steps) if facts.physical else None,
        "modality": facts.modality,
        "channels": list(facts.channels),
        "content": facts.content,
        "intensity": [_short(one) for one in facts.intensity],
        "foreground": [_short(one) for one in facts.foreground],
        "references": {kind: record for kind, record in recorded.items() if record is not None},
        "thickness": {str(value): round(thickness, 3) for value, thickness in facts.thickness.items()},
        "elongation": {str(value): round(times, 3) for value, times in facts.elongation.items()},
        "components": {str(value): count for value, count in facts.components.items()},
        "quality": [_short(one) for one in look.quality],
    }


def _short(measures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: float(f"{value:.6g}") if np.isfinite(value) else None for name, value in measures.items()}


def _pictures(examination: Examination) -> Iterator[Figure]:
    """Contact sheets: the cases of the worst findings, and some of the others."""
    cases = {case.id: case for case in examination.dataset}
    ranked = dataset_cases.worst_first(examination.problems)
    ranked_cases = [[name for name in one.cases if name in cases] for one in ranked]
    # Some of each finding: one that hundreds of cases share must not hide the others.
    worst = list(dict.fromkeys(name for names in ranked_cases for name in names[:EACH]))[:SHOWN_CASES]
    if worst:
        yield _sheet(examination, [cases[name] for name in worst], "Cases with findings, the worst first", worst)
    odd = {name for names in ranked_cases for name in names}
    rest = [case for name, case in cases.items() if name not in odd]
    if even := rest[:: max(1, -(-len(rest) // SHOWN_CASES))]:
        yield _sheet(examination, even, "Cases without a finding, evenly chosen" if worst else "Cases, evenly chosen")


def _sheet(examination: Examination, cases: Sequence[Case], title: str, marked: Sequence[str] = ()) -> Figure:
    classes = {case.id: named for case in cases if (named := _class_of(case))}

    def draw() -> Figure:
        kind = next((kind for case in cases for kind, _ in _placed_references(case)), "")
        # Each is read when it is drawn, and not held: those of all cases are far more than memory may hold.
        return sheets.contact_sheet(
            LazyMapping({case.id: partial(_first, case) for case in cases}),
            title,
            caption="Outlines: the reference." if kind else "",
            references=LazyMapping({case.id: partial(_outlined, case) for case in cases}),
            labels=examination.dataset.classes.get(kind, ()),
            marked=marked,
            classes=classes,
        )

    made_from = [title, list(marked), classes, examination.dataset.classes]
    return known_cases.kept_figure([examination.keys.get(case.id, "") for case in cases], made_from, draw)


def _class_of(case: Case) -> str:
    """The class or the findings of a case, in a few words; empty where it has neither."""
    known = case.references
    if "class" in known:
        return str(known["class"])
    return ", ".join(name for name, present in known.get("findings", {}).items() if present)


def _placed_references(case: Case) -> Iterator[tuple[str, Image | BoundingBoxes]]:
    """The references that have a place in the image, by kind."""
    for kind in references.kinds_by_names(case.references):
        outlined = kind.words.outlined(case.references[kind.name])
        if outlined is not None:
            yield kind.name, outlined


def _outlined(case: Case) -> Image | BoundingBoxes | None:
    """The first reference that has a place in the image."""
    return next((reference for _, reference in _placed_references(case)), None)


def _first(case: Case) -> Image:
    return next(iter(case.images.values()))


def _numbers(examination: Examination) -> Iterator[Block]:
    """Each kind of reference, sizes, spacings and intensities, as far as they differ."""
    cases = examination.fingerprint.cases
    if not cases:
        return
    cohort = Cohort(examination.dataset, examination.fingerprint)
    of_references = (chart for kind in references.reference_kinds() for chart in kind.words.charts(cohort))
    yield Gallery([*of_references, *_grids(examination.fingerprint), *_intensities(examination)])


def _grids(fingerprint: Fingerprint) -> Iterator[Figure]:
    cases = fingerprint.cases
    if len({len(case.shape) for case in cases}) > 1:
        return
    shapes = np.array([case.shape for case in cases])
    if len(np.unique(shapes, axis=0)) > 1:
        yield _spread_figure(
            shapes, "Size", "samples" if fingerprint.axes == 1 else grid_geometry.pixels_or_voxels(fingerprint.axes)
        )
    steps = np.array([case.steps for case in cases if case.physical])
    if len(steps) and len(np.unique(steps, axis=0)) > 1:
        yield _spread_figure(steps, "Spacing", fingerprint.unit)


def _spread_figure(values: np.ndarray, title: str, unit: str) -> Figure:
    """(cases, axes): the first axis against the last, or of series the one that they have."""
    if values.shape[1] == 1:
        return charts.histogram_chart({"cases": values[:, 0]}, title, axis=f"{title.lower()} ({unit})")
    names = ("rows", "columns") if values.shape[1] == 2 else ("first axis", "last axis")
    axes = (f"{names[0]} ({unit})", f"{names[1]} ({unit})")
    return charts.scatter(values[:, 0], values[:, -1], title, axes=axes)


def _intensities(examination: Examination) -> Iterator[Figure]:
    """Each case's histogram over its own range, from the small image that the pass has kept."""
    cases = examination.fingerprint.cases
    edges = np.linspace(0, 1, BINS + 1)
    small = [examination.looks[case.id].small.ravel() for case in cases]
    shares = [np.histogram(values, edges)[0] / len(values) for values in small]
    odd = {
        name for one in examination.problems if one.what.startswith(("intensities", "clipped")) for name in one.cases
    }
    marked = [place for place, case in enumerate(cases) if case.id in odd]
    caption = "Thin: each image. Thick: the middle. 0 and 1 are the image's 0.5th and 99.5th percentile."
    yield cohort_figures.intensity_profiles(
        shares, edges, "Intensities within each image", axis="share of the range, first channel", caption=caption,
        marked=marked,
    )  # fmt: skip
    medians = np.array([case.intensity[0]["median"] for case in cases])
    if np.ptp(medians) > 0 and medians.min() > 0 and medians.max() > 100 * medians.min():
        axis = "logarithm (base 10) of the intensity, first channel"
        yield charts.histogram_chart({"median": np.log10(medians)}, "Median intensity of the cases", axis=axis)
    elif np.ptp(medians) > 0:
        yield charts.histogram_chart(
            {"median": medians}, "Median intensity of the cases", axis="intensity, first channel"
        )


def _twins(examination: Examination) -> Iterator[Section]:
    cases = {case.id: case for case in examination.dataset}
    if not examination.pairs:
        return
    parts = examination.dataset.splits

    def harm(pair: Twin) -> tuple[bool, bool]:
        """Across the parts of a split comes first; one patient's neighbouring frames are no leak and come last."""
        same_part = parts.get(pair.first) == parts.get(pair.second)
        return same_part, cases[pair.first].patient == cases[pair.second].patient

    pairs = sorted(examination.pairs, key=harm)

    def words(first: str, second: str, exact: bool, likeness: float) -> str:
        where = f", {parts[first]} and {parts[second]}" if first in parts and second in parts else ""
        return f"{'equal images' if exact else f'likeness {likeness:.3f}'}{where}"

    sheet = [(one.first, one.second, words(one.first, one.second, one.exact, one.likeness)) for one in pairs]
    sheet = sheet[:SHOWN_PAIRS]
    shown = (
        f"{len(sheet)} of {len(pairs)} pairs"
        if len(pairs) > len(sheet)
        else f"Shown: {errors.count_phrase(len(pairs), 'pair')}"
    )
    caption = f"{shown}. Likeness: correlation of what is not common to the whole set; above 0.97 it is one image."

    def draw() -> Figure:
        put = [(first, _first(cases[first]), second, _first(cases[second]), text) for first, second, text in sheet]
        return sheets.pair_sheet(put, "Cases with (nearly) the same image", caption=caption)

    keys = [examination.keys.get(name, "") for first, second, _ in sheet for name in (first, second)]
    yield Section("The same image twice", [known_cases.kept_figure(keys, [sheet, caption], draw)])


def _shortcuts(examination: Examination) -> Iterator[Section]:
    if not examination.shortcuts:
        return
    rows = [
        (one.what, one.source, one.auc, one.p_text.removeprefix("= "), _standing_words(one))
        for one in examination.shortcuts
    ]
    explanation = (
        "How well each of these alone predicts the answer, cross-validated by patient: the AUC, or of values and times "
        "the share of pairs in the right order; 0.5 is chance. p: that chance does as well, adjusted after Holm."
    )
    table = Table(["Question", "Predicted from", "AUC or c", "p", "Answer"], rows)
    yield Section("Shortcuts to the answer", [Paragraph(explanation), table])


def _standing_words(shortcut: Shortcut) -> str:
    if not shortcut.standing:
        return "a little" if shortcut.p < 0.05 else "no"
    return "yes; preprocessing may remove it" if shortcut.removable else "yes"
