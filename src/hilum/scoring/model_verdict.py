"""The verdict on a model: whether it does better than without the images, and what speaks against its figures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np

from hilum import errors
from hilum.belief import certainties
from hilum.belief.calibration_scores import LOG_LOSS_CHANGE
from hilum.evaluation import ALL, Metric, Metrics, Table, case_tables
from hilum.evaluation.mask_overlap import EXCHANGED
from hilum.evaluation.significance import paired_tests
from hilum.evaluation.significance.paired_tests import ComparedFigure
from hilum.lazy import pandas as pd
from hilum.report import wording
from hilum.scoring import case_scoring, model_comparison
from hilum.scoring.case_scoring import ScoredCases
from hilum.scoring.model_comparison import UNRELIABLE, Comparison
from hilum.tasks import Task, properties, task_settings
from hilum.values import Estimate, Row, plan_decisions
from hilum.values.record_schema import GainRecord, VerdictRecord

Outcome = Literal["better", "no difference shown", "worse"]
# Predictions whose spread is so small a share of that of the references hardly differ from one another.
HARDLY = 0.1
# A structure of whose voxels so small a share is found counts as missed.
RARELY = 0.01
# Between a task and its label, where there are several tasks.
OF_PART = ": "
EXCHANGE = "{} and {} look exchanged: {} would be {} with the names the other way round. Compare them with --labels."
NOTHING_ESTIMATED = "Nothing is estimated: no case was scored that the model had not seen."
SIMULATED = "SIMULATED patients: the figures say nothing about real ones."
NO_GUESS = "there is no baseline without the images to compare it with."


@dataclass(frozen=True)
class Gain:
    """The gain of a model over something simpler that was scored on the same cases.

    than:       the simpler thing, in words
    difference: the model's figure less the other's
    """

    metric: Metric
    label: str
    than: str
    difference: Estimate

    @property
    def outcome(self) -> Outcome:
        """The conclusion from the interval; a difference without an interval shows nothing."""
        low, high = self.difference.low, self.difference.high
        if low is None or high is None or low <= 0 <= high:
            return "no difference shown"
        return "better" if (low > 0) == (self.metric.better != "less") else "worse"

    @property
    def sentence(self) -> str:
        """The outcome with the paired difference."""
        return self._sentence("not shown to be better than")

    def _sentence(self, undecided: str) -> str:
        words = {"better": "better than", "no difference shown": undecided, "worse": "worse than"}
        label = wording.label_name(self.label)
        text = f"{f'{label}: ' * bool(label)}{words[self.outcome]} {self.than}"
        apart = f"{model_comparison.signed_number(self.difference)}, "
        apart += model_comparison.interval_of_difference(self.difference)
        return wording.as_sentence(f"{text} ({self.metric.words} {apart})")


@dataclass(frozen=True)
class Verdict:
    """The conclusion that the figures of a model support; prints it.

    gains:    over what is simpler, the main one of each task first
    training: whether it was trained long enough, in sentences
    against:  what speaks against the figures, in sentences
    without:  the main figures of tasks that nothing could be compared with, and why, in sentences
    simulated: whether every case is synthetic
    """

    gains: tuple[Gain, ...] = ()
    training: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    simulated: bool = False

    @property
    def answer(self) -> str:
        """A sentence on the first metric of each task, after one that the patients are simulated where they are."""
        of_tasks = [gain.sentence for gain in self._first]
        return " ".join([*([SIMULATED] if self.simulated else []), *of_tasks, *self.without])

    @property
    def others(self) -> tuple[str, ...]:
        """The sentences of all other gains."""
        return tuple(gain.sentence for gain in self.gains if gain not in self._first)

    @property
    def _first(self) -> tuple[Gain, ...]:
        """The first gain of each label over the first thing that the model was compared with."""
        firsts: dict[str, Gain] = {}
        for gain in self.gains:
            firsts.setdefault(_part(gain.label), gain)
        return tuple(gain for gain in self.gains if gain.metric == firsts[_part(gain.label)].metric
                     and gain.than == firsts[_part(gain.label)].than)  # fmt: skip

    def as_record(self) -> VerdictRecord:
        """The record for `run.json`, `summary.json` and `--json`."""
        gains = [
            GainRecord(
                metric=gain.metric.name,
                label=gain.label,
                than=gain.than,
                outcome=gain.outcome,
                difference=gain.difference.value if np.isfinite(gain.difference.value) else None,
                low=gain.difference.low,
                high=gain.difference.high,
            )
            for gain in self.gains
        ]
        return VerdictRecord(answer=self.answer, gains=gains, training=list(self.training), against=list(self.against))

    def __str__(self) -> str:
        return "\n".join(filter(None, [self.answer, " ".join(self.training)]))


def verdict_on_scores(
    scored: ScoredCases | None,
    *,
    seed: int,
    patients_known: bool,
    training: Sequence[str] = (),
    notes: Sequence[str] = (),
    covariates: Sequence[Gain] = (),
    unseen: str = "",
    simulated: bool = False,
) -> Verdict:
    """The verdict on what was measured.

    training:   whether the training was long enough, in sentences
    notes:      what else speaks against the figures
    covariates: gains over models that lack the images or the covariates
    unseen:     why nothing is estimated, in a sentence, where it is more than that every case was trained on
    simulated:  whether every case is synthetic
    """
    if scored is None:
        return Verdict((), tuple(training), tuple(notes), (unseen or NOTHING_ESTIMATED,), simulated)
    gains = [*gains_over_guess(scored, seed=seed, patients_known=patients_known), *covariates]
    against = [
        *_constant_parts(scored),
        *exchanged_labels(scored),
        *few_patients(scored.rows),
        *worse_by_calibration(scored.rows),
    ]
    against += [*beyond_tolerance(scored), *([] if scored.task is None else boundless_sentences(scored.task)), *notes]
    against = against if patients_known else [plan_decisions.patients_as_cases(one) for one in against]
    return Verdict(tuple(gains), tuple(training), tuple(against), tuple(_without(scored, gains)), simulated)


def _without(scored: ScoredCases, gains: Sequence[Gain]) -> Iterator[str]:
    """A sentence on each task that was compared with nothing: its main figure."""
    compared_parts = {_part(gain.label) for gain in gains}
    parts = properties.part_names(scored.task) if scored.task is not None else ()
    for part in parts or ("",):
        rows = [row for row in scored.rows if not part or _part(row.label) == part]
        if part not in compared_parts and rows and not (gains and not parts):
            value = f"{scored.metrics.metric_named(rows[0].metric).words} is {wording.value_text(rows[0].estimate)}"
            counts = wording.count_text(rows[0].estimate)
            text = f"{f'{part}: ' * bool(part)}{value}{f' in {counts}' * bool(counts)}; {NO_GUESS}"
            yield f"{text[0].upper()}{text[1:]}"


def headline_rows(rows: Sequence[Row], primary: str, task: Task | None) -> list[Row]:
    """The primary metric over all labels, then by label where it differs; of several tasks, of each the first figure.

    After it come the figures that always stand beside it.
    task: whose figures they are; a part of it stands before the label
    """
    parts = properties.part_names(task) if task is not None else ()
    if parts:
        firsts = [next((row for row in rows if row.label.startswith(f"{part}: ")), None) for part in parts]
        return [row for row in firsts if row is not None]
    chosen = [row for row in rows if row.metric == primary] or list(rows[:1])
    first = chosen[0].estimate
    metrics = Metrics() if task is None else task.metrics
    companions = [row for row in rows if row.label == ALL and metrics.metric_named(row.metric).joins_primary]
    return [*(row for row in chosen if row is chosen[0] or row.estimate.value != first.value), *companions]


def gains_over_guess(scored: ScoredCases, *, seed: int, patients_known: bool) -> list[Gain]:
    """The gains over a guess that looks at no image; none for a kind of problem without such a guess."""
    if scored.task is None or (guess := scored.task.guess(scored.table)) is None:
        return []
    keys = ["case", "label"]
    same = scored.table.merge(guess.table[keys], on=keys, how="inner")
    summary = scored.task.summary
    rows, _ = paired_tests.compare_figures({"guess": guess.table, "model": same}, [summary, summary], seed=seed)
    return [
        Gain(scored.metrics.metric_named(row.metric), row.label, words, _difference(row, patients_known))
        for part, words in guess.words.items()
        for metric in guess.metrics
        for row in _overall([row for row in rows if row.metric == metric and _part(row.label) == part])
    ]


def comparison_gains(comparison: Comparison, metric: str, than: str) -> list[Gain]:
    """The gain of a model, the second that is compared, over the first, in one metric over all labels."""
    rows = [row for row in comparison.rows if row.metric == metric]
    return [
        Gain(comparison.metrics.metric_named(metric), row.label, than, row.differences[0]) for row in _overall(rows)
    ]


def constant_predictions(table: Table) -> Iterator[str]:
    """Sentences on predictions that are the same whatever the image shows."""
    if "predicted" in table and "reference" in table:
        for label, rows in table.groupby("label", sort=False):
            answered = rows[rows["reference"].notna() & rows["predicted"].notna()]
            yield from _constant(str(label), answered)
    if {"voxels_both", "voxels_reference"} <= set(table):
        for label, rows in table.groupby("label", sort=False):
            if rows["voxels_both"].sum() < RARELY * rows["voxels_reference"].sum():
                yield f"{label} is missed nearly everywhere: less than {100 * RARELY:g} % of it is found."
    if {"objects_predicted", "objects_reference"} <= set(table) and not table["objects_predicted"].any():
        yield "No object is predicted in any case."
    if "found" in table and "false" in table and not table[["found", "false"]].to_numpy().any():
        yield "No box is called in any case."


def _constant_parts(scored: ScoredCases) -> Iterator[str]:
    """The sentences of `constant_predictions`, those of each of several tasks after its name."""
    for part, (_, table) in scored.parts.items():
        yield from (f"{part}: {_within(text)}" if part else text for text in constant_predictions(table))


def _within(text: str) -> str:
    """A sentence as it stands after a colon; a label at its start keeps its case."""
    return f"{text[0].lower()}{text[1:]}" if text.startswith(("Every", "No ", "Predictions")) else text


def few_patients(rows: Sequence[Row]) -> Iterator[str]:
    """A sentence where the main figure comes of too few patients."""
    if rows and UNRELIABLE in rows[0].estimate.method:
        reason = rows[0].estimate.method.partition(f"{UNRELIABLE}: ")[2].partition(";")[0]
        yield f"The test is small ({reason}): the intervals are unreliable."


def exchanged_labels(scored: ScoredCases) -> Iterator[str]:
    """A sentence on each two labels that look exchanged: the other's reference would fit far better."""
    for table in [table for _, table in scored.parts.values()] or [scored.table]:
        if "other_label" in table:
            yield from _exchanged_structures(table[table["dice"].notna()])
        elif case_tables.classes_with_probability(table) and {"predicted", "reference"} <= set(table):
            yield from _exchanged_classes(table)


def _exchanged_structures(table: Table) -> Iterator[str]:
    """Sentences on structures of which each fits the other one's reference, in most cases of both."""
    cases, fits = Counter(table["label"].astype(str)), defaultdict[tuple[str, str], list[tuple[float, float]]](list)
    better = table[table["other_label"].notna()]
    columns = (better[name].tolist() for name in ("label", "other_label", "dice", "dice_of_other_label"))
    for label, other, now, then in zip(*columns, strict=True):
        fits[label, other].append((now, then))
    usual = {pair for pair, figures in fits.items() if 2 * len(figures) > cases[pair[0]]}
    for one, other in sorted(pair for pair in usual if pair < pair[::-1] and pair[::-1] in usual):
        now, then = np.mean(fits[one, other], axis=0)
        yield EXCHANGE.format(one, other, f"Dice of {one} {now:.3f}", f"{then:.3f}")


def _exchanged_classes(table: Table) -> Iterator[str]:
    """Sentences on classes with whose names the other way round far more calls would be right."""
    names = case_tables.classes_with_probability(table)
    shares = pd.crosstab(table["reference"], table["predicted"], normalize=True)
    matrix = shares.reindex(index=names, columns=names, fill_value=0.0).to_numpy(float)
    for one, other in combinations(range(len(names)), 2):
        gain = matrix[one, other] + matrix[other, one] - matrix[one, one] - matrix[other, other]
        if gain >= EXCHANGED:
            right = float(np.trace(matrix))
            yield EXCHANGE.format(names[one], names[other], f"accuracy {right:.3f}", f"{right + gain:.3f}")


def beyond_tolerance(scored: ScoredCases) -> Iterator[str]:
    """A sentence for each metric that is worse than it tolerates: a systematic error, a poor agreement."""
    worse: dict[Metric, list[str]] = {}
    for row in scored.rows:
        if (metric := scored.metrics.metric_named(row.metric)).speaks_against(row.estimate):
            figure = f"{wording.value_text(row.estimate)}, {wording.interval_text(row.estimate)}"
            worse.setdefault(metric, []).append(f"{wording.label_name(row.label)} {figure}".strip())
    for metric, figures in worse.items():
        kind = "below" if metric.aim is None else "a systematic error of more than"
        limit = f"{metric.tolerated:g}{f' {metric.unit}' * bool(metric.unit)}"
        yield wording.as_sentence(f"{metric.words}: {errors.list_phrase(figures)}: {kind} {limit}")


def worse_by_calibration(rows: Sequence[Row]) -> Iterator[str]:
    """A sentence where calibration made the probabilities of these cases worse, by the interval of the change."""
    changed = [row for row in rows if row.metric == LOG_LOSS_CHANGE.name]
    worse = [row for row in changed if row.estimate.low is not None and row.estimate.low > 0]
    if worse:
        changes = [(wording.label_name(row.label), row.estimate) for row in worse]
        listed = ", ".join(
            f"{label}: {wording.value_text(one)}" if label else wording.value_text(one) for label, one in changes
        )
        yield (
            f"Calibration made the probabilities of these cases worse (change of the log loss: {listed}): they may "
            "differ from the cases that it was fitted on. Fit it anew by hilum calibrate, on cases of this source."
        )


def boundless_sentences(task: Task) -> Iterator[str]:
    """Sentences on sets, intervals and other results that exclude nothing, those of each task after its name."""
    for part, task_of_part in properties.leaf_tasks(task).items():
        for text in certainties.sets_excluding_nothing(task_settings.settings_of(task_of_part)):
            yield f"{part}: {text[0].lower()}{text[1:]}" if part else text


def _constant(label: str, table: Table) -> Iterator[str]:
    named = label != "all"
    if len(table) < 2 or table["reference"].nunique() < 2:
        return
    if not case_tables.classes_with_probability(table) and table["predicted"].dtype.kind == "f":
        spread, spread_of_references = float(table["predicted"].std()), float(table["reference"].std())
        if spread < HARDLY * spread_of_references:
            deviations = f"standard deviation {wording.number_text(spread)}, "
            deviations += f"of the references {wording.number_text(spread_of_references)}"
            yield f"Predictions{f' of {label}' * named} hardly differ from one another ({deviations})."
    elif table["predicted"].nunique() == 1:
        call = table["predicted"].iloc[0]
        yield f"{label} is called {call} in every case." if named else f"Every case is called {call}."


def _overall(rows: Sequence[ComparedFigure]) -> list[ComparedFigure]:
    """The row over all labels; all rows where there is none."""
    overall = [row for row in rows if row.label in ("all", f"{_part(row.label)}{OF_PART}all")]
    return overall or list(rows)


def _part(label: str) -> str:
    """The task before a label; empty where there is one task."""
    return label.rpartition(OF_PART)[0]


def _difference(row: ComparedFigure, patients_known: bool) -> Estimate:
    """The paired difference; from a guess that is the same in every draw, the model's own interval moved by it."""
    guess, model = row.estimates
    apart = row.differences[0]
    is_fixed = guess.draws is not None and np.ptp(guess.draws.figures) <= 1e-12
    if is_fixed and model.low is not None:  # else two intervals of one figure could disagree
        high = None if model.high is None else model.high - guess.value
        apart = replace(model, value=apart.value, low=model.low - guess.value, high=high, draws=None)
    return apart if patients_known else case_scoring.named_by_case(apart)
