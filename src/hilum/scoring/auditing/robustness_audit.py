"""The fall of figures when images get worse, and when an input is lacking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import numpy as np

from hilum import errors
from hilum.errors import HilumError
from hilum.evaluation import Table, case_tables, intervals
from hilum.evaluation.significance import paired_tests
from hilum.lazy import pandas as pd
from hilum.planning.rules import image_profiles
from hilum.report import Block, Details, Paragraph, Section, progress_tracking, wording
from hilum.report import Table as PageTable
from hilum.report.figures import charts
from hilum.scoring import case_scoring, model_comparison, model_verdict
from hilum.scoring.case_scoring import AuditInput, AuditOutcome
from hilum.tasks import Task, properties
from hilum.transforms import corruptions
from hilum.transforms.corruptions import CORRUPTIONS
from hilum.values import Case, Estimate, Image, Row
from hilum.values.table_cells import PlainCell

ROBUSTNESS, TITLE = "robustness.csv", "When images get worse"
NONE, WITHOUT = "none", "without "
HOW = (
    "Images are degraded as read from the file, before any preprocessing; severity 0 is the original. An "
    "input that is left out is replaced by its mean, a covariate by a blank."
)


@dataclass(frozen=True)
class RobustnessCondition:
    """One way in which cases are changed: a corruption at a severity, or an input left out."""

    name: str
    severity: int | None

    def __call__(self, case: Case, seed: int) -> Case:
        """The case as it would then have come."""
        left_out = self.name.removeprefix(WITHOUT)
        if self.severity is None and left_out in case.covariates:
            return replace(case, covariates={**case.covariates, left_out: None})
        images = {name: self._change_image(image, case, name, seed) for name, image in case.images.items()}
        return replace(case, images=images)

    def _change_image(self, image: Image, case: Case, name: str, seed: int) -> Image:
        if self.severity is not None:
            return corruptions.corrupt_image(image, self.name, self.severity, seed=seed, case=f"{case.id}/{name}")
        gone = [self.name == WITHOUT + one for one in _channels_of(name, image, len(case.images))]
        if not any(gone):
            return image
        data = image.data.copy()
        for channel in np.flatnonzero(gone):
            data[channel] = data[channel][image.is_measured(data[channel])].mean()
        return image.with_pixels(data)


@dataclass(eq=False)
class _Tried:
    """The outcome of cases under one condition, and the number that could not be predicted."""

    rows: list[dict[str, PlainCell]] = field(default_factory=list)
    gated: list[bool | None] = field(default_factory=list)
    failed: int = 0


def audit_robustness(audit: AuditInput) -> AuditOutcome | None:
    """The cases scored anew with each corruption at each severity, and with each input left out."""
    if not audit.options.corruptions:
        return None
    cases = [case for case in audit.cases if case.id in set(audit.scored.table["case"])]
    with_images = [case for case in cases if case.images]
    if not with_images:
        return AuditOutcome(notes=("Robustness was not looked at: there is no image to make worse.",))
    conditions, notes = _conditions(audit, with_images)
    tried = {condition: _Tried() for condition in conditions}
    with progress_tracking.track_progress("scoring with worse images") as tracker:
        for case in tracker.over(with_images):
            in_memory = {name: image.with_pixels(image.data) for name, image in case.images.items()}
            _try(audit, replace(case, images=in_memory), tried)
    lines = _all_lines(audit, tried)
    failed = [f"{one.name} {one.severity or ''}".strip() for one, own in tried.items() if own.failed]
    if failed:
        notes += [
            f"Some cases could not be predicted under {errors.list_phrase(failed)}: robustness.csv lacks them there."
        ]
    table = pd.DataFrame([asdict(one) for one in lines]).astype({"severity": "Int64"})
    return AuditOutcome({ROBUSTNESS: table}, sections=[_section(audit, lines, tried)], notes=notes)


def _conditions(audit: AuditInput, cases: Sequence[Case]) -> tuple[list[RobustnessCondition], list[str]]:
    """The conditions that are tried, and a note on corruptions that such images cannot have."""
    image = next(iter(cases[0].images.values()))
    profile = image_profiles.profile_for(image.modality, image.geometry.ndim)
    chosen_corruptions = {name: CORRUPTIONS[name] for name in audit.options.corruption_names}
    few = [name for name, one in chosen_corruptions.items() if one.fewest > image.geometry.ndim]
    foreign = [name for name, one in chosen_corruptions.items() if one.befalls and not profile.changes.get(one.befalls)]
    notes = [f"Not tried, because it needs two axes: {errors.list_phrase(few)}."] * bool(few)
    signed = [name for name, one in chosen_corruptions.items() if one.from_zero and name not in foreign]
    signed = signed if signed and corruptions.falls_below_zero(image) else []
    notes += [f"Not tried, because intensities are below zero: {errors.list_phrase(signed)}."] * bool(signed)
    if foreign and not audit.options.all_corruptions:
        notes.append(f"Not tried, because it does not occur in {profile.name}: {errors.list_phrase(foreign)}.")
    names = [name for name in chosen_corruptions if name not in (*few, *foreign, *signed)]
    conditions = [RobustnessCondition(name, severity) for name in names for severity in audit.options.chosen_severities]
    covariates = audit.predictor.model_of(cases[0].id).networks.context.names
    inputs = dict.fromkeys([*_channels_of_all(cases), *covariates])
    return [*conditions, *(RobustnessCondition(WITHOUT + one, None) for one in inputs)], notes


def _channels_of_all(cases: Sequence[Case]) -> Iterator[str]:
    """The channels of all cases, some of which may lack an image; cases with the same images are opened once."""
    firsts = dict[tuple[str, ...], Case]()
    for case in cases:
        firsts.setdefault(tuple(case.images), case)
    for case in firsts.values():
        for name, image in case.images.items():
            yield from _channels_of(name, image, len(case.images))


def _channels_of(name: str, image: Image, images: int) -> list[str]:
    """The channels of an image of a case, with the image's name where there are several; one alone has that name."""
    return list(image.channels if images == 1 < len(image.channels) else image.with_image_name(name).channels)


def _try(audit: AuditInput, case: Case, tried: Mapping[RobustnessCondition, _Tried]) -> None:
    """Predict and score one case under each condition."""
    rows = audit.scored.table[audit.scored.table["case"] == case.id]
    for condition, results in tried.items():
        try:
            prediction = audit.predictor.predict(condition(case, audit.seed))
            split, fold = rows["split"].iloc[0], audit.folds.get(case.id)
            results.rows += case_scoring.case_table_rows(prediction, case, audit.predictor.task, split, fold)
        except HilumError:
            results.failed += 1
            continue
        results.gated.append(_is_refused(audit, case.id, prediction.confidence.gate_p))


@dataclass(frozen=True)
class RobustnessLine:
    """A line of `robustness.csv`: a figure under a condition, and beside it how far results can then be believed.

    calibration: the figure of its label that the task names for it
    abstention:  share of cases without an answer
    gate:        share of cases that the gate refuses; None of a model without one
    """

    corruption: str
    severity: int | None
    metric: str
    label: str
    value: float
    low: float | None
    high: float | None
    n: int
    patients: int
    calibration: float | None
    abstention: float
    gate: float | None

    @property
    def words(self) -> str:
        """The condition in words."""
        return (
            self.corruption.replace("_", " ").replace("jpeg", "JPEG") if self.severity is not None else self.corruption
        )

    @property
    def estimate(self) -> Estimate:
        """Its value with the interval."""
        return Estimate(self.value, self.low, self.high, n=self.n, patients=self.patients)

    @property
    def figures(self) -> tuple[float | None, ...]:
        """Its value, and what stands beside it."""
        return self.value, self.calibration, self.abstention, self.gate


def _all_lines(audit: AuditInput, tried: Mapping[RobustnessCondition, _Tried]) -> list[RobustnessLine]:
    """Every figure of the images as they are, and then under every condition."""
    task, scored = audit.predictor.task, audit.scored
    summed = partial(case_scoring.summarise_table, task, seed=audit.seed, patients_known=audit.patients_known)
    first = scored.table.drop_duplicates("case")
    gates = first["gate_p"] if "gate_p" in first else [None] * len(first)
    gated = [_is_refused(audit, str(case), p) for case, p in zip(first["case"], gates, strict=True)]
    lines = [*_lines(task, RobustnessCondition(NONE, 0), scored.rows, scored.table, gated)]
    for condition, rows in tried.items():
        if rows.rows:
            table = case_tables.case_table(rows.rows)
            lines += _lines(task, condition, summed(table), table, rows.gated)
    return lines


def _is_refused(audit: AuditInput, case: str, p: float | None) -> bool | None:
    """Whether the gate refuses a case with this p-value; None without a gate."""
    guard = audit.predictor.model_of(case).guard
    return None if guard is None or p is None else bool(p < guard.level)


def _lines(
    task: Task, condition: RobustnessCondition, rows: Sequence[Row], table: Table, gated: Sequence[bool | None]
) -> Iterator[RobustnessLine]:
    estimates = {
        row.label: row.estimate.value
        for row in rows
        if properties.part_or_whole(task, row.label.partition(": ")[0]).metrics.metric_named(row.metric).is_calibration
    }
    cases = table.drop_duplicates("case")
    abstained = float((cases["abstained"].fillna("") != "").mean()) if "abstained" in cases else 0.0
    judged = [one for one in gated if one is not None]
    for row in rows:
        estimate, part = row.estimate, row.label.rpartition(": ")[0]
        yield RobustnessLine(
            condition.name,
            condition.severity,
            row.metric,
            row.label,
            *(estimate.value, estimate.low, estimate.high, estimate.n, estimate.patients),
            estimates.get(row.label, estimates.get(f"{part}: all" if part else "all")),
            abstained,
            float(np.mean(judged)) if judged else None,
        )


def _section(
    audit: AuditInput, lines: Sequence[RobustnessLine], tried: Mapping[RobustnessCondition, _Tried]
) -> Section:
    """The verdict on the main figure of each task, its course over severities, and what the gate made of it."""
    scored, blocks = audit.scored, list[Block]()
    primary = str(audit.predictor.model_of(audit.cases[0].id).record.get("primary", scored.rows[0].metric))
    heads = model_verdict.headline_rows(scored.rows, primary, scored.task)
    for head in heads if scored.task is not None and properties.part_names(scored.task) else heads[:1]:
        of_head = [one for one in lines if (one.metric, one.label) == (head.metric, head.label)]
        sign = -1 if scored.metrics.metric_named(head.metric).better == "less" else 1
        blocks += _blocks(of_head, scored.metrics.metric_named(head.metric).words, sign, partial(_loss, audit, tried))
    return Section(TITLE, [*blocks, Paragraph(HOW)])


def _loss(audit: AuditInput, tried: Mapping[RobustnessCondition, _Tried], line: RobustnessLine) -> Estimate:
    """The paired difference of a figure: under the condition of a line, less with images as they are."""
    table = case_tables.case_table(tried[RobustnessCondition(line.corruption, line.severity)].rows)
    before = audit.scored.table
    before = before[before["case"].isin(set(table["case"]))].reset_index(drop=True)
    summary = audit.predictor.task.summary
    rows, _ = paired_tests.compare_figures({NONE: before, line.words: table}, [summary, summary], seed=audit.seed)
    [[apart]] = [one.differences for one in rows if (one.metric, one.label) == (line.metric, line.label)]
    return apart


def _blocks(
    lines: Sequence[RobustnessLine], metric: str, sign: int, loss: Callable[[RobustnessLine], Estimate]
) -> Iterator[Block]:
    """The blocks of one metric, whose first line is that of the images as they are.

    sign: -1 where less is better
    loss: a line to the difference from the images as they are
    """
    base, *others = lines
    left_out = [one for one in others if one.severity is None]
    steps: dict[str, dict[int, Estimate]] = {}
    for line in others:
        if line.severity is not None:
            steps.setdefault(line.words, {})[line.severity] = line.estimate
    for what, tried in (
        ("corruption", [one for one in others if one.severity is not None]),
        ("missing input", left_out if len(left_out) > 1 else []),  # without its only input no model does anything
    ):
        if finite := [one for one in tried if np.isfinite(one.value)]:
            worst = min(finite, key=lambda line: sign * line.value)
            yield Paragraph(harm_sentence(what, worst, metric, base.value, sign, loss, len(finite)))
    if steps:
        title, caption = f"{metric} when images get worse", "Dashed: images as they are. Lines: 95 % intervals."
        yield charts.estimate_courses(steps, title, axes=("severity", metric), base=base.value, caption=caption)
    last = {one.corruption: one for one in others if one.severity is not None}
    cells = [[one.words, one.severity, *map(_cell, one.figures)] for one in (base, *last.values(), *left_out)]
    columns = ["Corruption", "Severity", metric, "Calibration", "Without an answer", "Refused by the gate"]
    yield Details("At the highest severity, and without each input", [PageTable(columns, cells)])


def harm_sentence(
    what: str,
    worst: RobustnessLine,
    metric: str,
    base: float,
    sign: int,
    loss: Callable[[RobustnessLine], Estimate],
    tried: int = 1,
) -> str:
    """The condition that does most harm, in a sentence, and whether the interval of the loss shows any harm."""
    if sign * (base - worst.value) <= 0:
        return f"No {what} makes {metric} worse than {wording.number_text(base)}."
    named = worst.words.removeprefix(WITHOUT)
    named += "" if worst.severity is None else f" at severity {worst.severity}"
    gate = "" if worst.gate is None else f"; the gate refuses {wording.share_text(worst.gate)} of these cases"
    apart = intervals.bonferroni(loss(worst), tried)
    # Without an interval nothing speaks for the loss either: these patients cannot show that others have it too.
    shown = apart.low is not None and apart.high is not None and not apart.low <= 0 <= apart.high
    of_many = f", widened for the {tried} that were tried" if tried > 1 else ""
    lead = f"The {what} that does most harm is" if shown else f"No {what} is shown to do harm; the worst is"
    then = f"{metric} is {wording.number_text(worst.value)}, {wording.number_text(base)} with images as they are"
    return f"{lead} {named}: {then}, a paired difference of {model_comparison.signed_estimate(apart)}{of_many}{gate}."


def _cell(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else wording.number_text(value)
