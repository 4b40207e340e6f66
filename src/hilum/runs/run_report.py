"""The report of a run or of an evaluation: headline, pictures, plan, data, belief, environment on one page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import cast

import numpy as np

from hilum import errors
from hilum.belief.calibration_scores import DOUBT_METRICS, DoubtedAnswers
from hilum.evaluation import Metrics, uncertainty
from hilum.evaluation import Table as CaseTable
from hilum.evaluation.fairness.group_attributes import NONE
from hilum.evaluation.metric import BEFORE, BY_EPISTEMIC, OF_ANSWERED
from hilum.lazy import pandas as pd
from hilum.planning import plan_file, plan_text
from hilum.report import Block, Details, Figure, Paragraph, ReportPage, Section, Table, page_blocks, wording
from hilum.report.figures import charts, discrimination_figures
from hilum.report.page_blocks import ByLabel, Decisions, Estimates, Gallery, Link, Problems
from hilum.runs.search_trials import SearchResult
from hilum.runtime.hardware import MachineRecord
from hilum.scoring import case_scoring, evaluation_notes, model_verdict
from hilum.scoring.case_scoring import CASES, SUMMARY, WRONG, ScoredCases
from hilum.scoring.model_verdict import Verdict
from hilum.tasks import properties, task_catalogue, task_settings
from hilum.training.length.step_probe import NARROWER
from hilum.training.search_study import COMPLETE, FEWEST_TO_RANK
from hilum.values import ANSWERED, BY_HAND, Decision, PlainValue, Plan, Problem, Row

PREREGISTERED = "evaluation.preregistered"
# Decisions that are stated before the whole plan.
MOST_LINES = 10
# Decisions that follow from the data, those that a reader asks for first.
OF_THE_DATA = (
    "task.classes", "task.labels", "task.findings", "task.targets", "task.partial", "split.method",
    "preprocessing.spacing", "preprocessing.shape", "preprocessing.normalisation", "network.name", "network.context",
    "network.pretrained", "training.patch", "training.batch", "training.steps", "training.sampling", "task.loss",
    "augmentation.flips", "inference.overlap",
)  # fmt: skip
# Labels beside the row over all of them that stand in the headline.
MOST_LABELS = 4
# Metrics that stand side by side on a page.
MOST_COLUMNS = 7
BY_IMAGES = (
    "A case may lack images: the cases that have them were scored with these alone as well. A case that lacks one of "
    "them is not in that row, so rows may be of unlike cases."
)
KNOWN_SO = (
    "What nobody contoured in a case is unknown there, not absent: in the loss it is part of the background of such a "
    "case, and no figure is made of it."
)
KNOWN_COLUMNS = ("Structure", "Cases that know it")
METHODS, METHOD_COLUMNS = "How each figure was made", ("Figure", "Its interval", "How it was made")
MADE_ALIKE = "Figures from before a calibration, and those of answered cases alone, are made in the same way."
SEARCH_COLUMNS = ("Trial", "", "Steps", "s", "Tried")
JUDGED = (
    "Each trial is a short training, judged by the validation cases alone; the first is the plan as it stands. The "
    "best of many values is too good, so that none of them is an estimate."
)
IMPORTANCE = (
    "Importance of a decision: the share of the differences between whole trials that it explains by itself, of what "
    "all explain so (fANOVA, Hutter, Hoos and Leyton-Brown, ICML 2014). It is rough where trials are few."
)
TRAINING_VARIES = (
    "Intervals state how far a figure may lie from that of all such patients. They are for this training alone: "
    "they do not include the variation between trainings with other seeds."
)
# Behind the title of a report, and of its pictures.
SIMULATED = " (SIMULATED patients)"
# What metrics end with that state the mean difference beside limits of agreement.
BIAS = "bias"
ENOUGH, AGAINST, OTHERS = "Trained long enough?", "What speaks against it", "Also compared"


@dataclass(frozen=True, eq=False)
class RunReport:
    """The report of a run, an evaluation or an ensemble: verdict, figures, pictures, then how the model was made.

    primary:  the metric of the headline; if the plan preregistered it, all others are exploratory
    promised: decisions that state what was preregistered, where no plan is at hand: those of a package
    views:    folder of the viewers' pages, relative to the report
    log, logs: how it was trained, and the files that hold it, relative to the report; none where they lie elsewhere
    by:       which model scored which case, where that is not plain, in a sentence
    searches: sections about searches before the training
    members:  sections about other models on the same cases
    knowing:  {structure: cases that know it}, where some know some structures only
    verdict:  what the figures support; its remarks take in `notes`. Of simulated patients the title and the titles of
              pictures say so too
    """

    title: str
    lead: str
    primary: str
    scored: ScoredCases | None
    notes: Sequence[str]
    facts: Mapping[str, PlainValue]
    views: str
    plan: Plan | None = None
    promised: Plan | None = None
    log: pd.DataFrame | None = None
    logs: Sequence[str] = ()
    problems: Sequence[Problem] = ()
    environment: MachineRecord | None = None
    by: str = ""
    searches: Sequence[Section] = ()
    members: Sequence[Section] = ()
    knowing: Mapping[str, int] = field(default_factory=dict)
    verdict: Verdict | None = None

    @property
    def html(self) -> str:
        """The page."""
        headline = [] if self.scored is None else _headline(self.scored, self.primary)
        metrics = Metrics() if self.scored is None else self.scored.metrics
        notes = [*(self.notes if self.verdict is None else ()), *_preregistration_changes(self._registry)]
        page = ReportPage(self.title, headline, [*self._sections()], self._origin, notes, self.lead, metrics)
        if (verdict := self.verdict) is not None:
            remarks = {OTHERS: verdict.others, ENOUGH: verdict.training, AGAINST: verdict.against}
            page = replace(page, verdict=verdict.answer, remarks=remarks)
            if verdict.simulated:
                page = page_blocks.with_titles_ending(page, SIMULATED)
        return page_blocks.render_page(page)

    def _sections(self) -> Iterator[Section]:
        if self.scored is not None:
            results = _results(self.scored, self.primary, self._registry, self.by)
            for section in (results, *belief_section(self.scored, self.plan)):
                yield self._with_files(section, SUMMARY, CASES)
            yield from self._audit_sections(self.scored)
        yield from self.members
        if self.scored is not None and self.scored.shown:
            for section in _cases(self.scored, self.primary, self.views):
                yield self._with_files(section, CASES)
        if self.log is not None and len(self.log):
            yield Section("Training", [charts.training_curves(self.log)], [Link(name, name) for name in self.logs])
        yield from self.searches
        if self.plan is not None:
            yield decided_section(self.plan)
        blocks: list[Block] = []
        if self.knowing:
            blocks += [Paragraph(KNOWN_SO), Table(KNOWN_COLUMNS, [*self.knowing.items()])]
        if self.problems:
            blocks.append(Problems(self.problems))
        if blocks:
            yield Section("Data", blocks)
        if self.scored is not None:
            yield methods_section(self.scored)
        if self.plan is not None:
            yield plan_section(self.plan)

    @property
    def _registry(self) -> Plan | None:
        return self.plan or self.promised

    def _with_files(self, section: Section, *names: str) -> Section:
        """Add the files of which its figures and charts are made."""
        return replace(section, files=[Link(name, f"{self.views}{name}") for name in names])

    def _audit_sections(self, scored: ScoredCases) -> Iterator[Section]:
        """Sections of further looks, each with the files that hold all of it."""
        for audit in scored.audits:
            for section in audit.sections:
                yield self._with_files(section, *audit.tables, *audit.records)

    @property
    def _origin(self) -> dict[str, PlainValue]:
        """All that says where the model comes from, and the versions that made it."""
        if self.environment is None:
            return {**self.facts}
        plain = {key: value for key, value in self.environment.items() if not isinstance(value, Mapping)}
        return {**self.facts, **cast("dict[str, PlainValue]", plain), **self.environment["versions"]}


def decided_section(plan: Plan) -> Section:
    """Section of what a person set, then of what minutes and data decided, at most ten."""
    names = list(_chosen_decisions(plan))[:MOST_LINES]
    return Section("Decided for the training data", [Decisions((name, plan.decision(name)) for name in names)])


def plan_section(plan: Plan) -> Section:
    """Appendix with every decision, its reason and its source."""
    choices = _telling_decisions(plan)
    off = [name for name in plan.names if name not in choices]
    blocks: list[Block] = [Decisions(choices.items())]
    if off:
        blocks.append(Paragraph(f"Off or not set: {', '.join(off)}."))
    folded = Details(f"{len(choices)} decisions, each with its reason and source", blocks)
    return Section("The whole plan", [folded], is_appendix=True)


def _chosen_decisions(plan: Plan) -> Iterator[str]:
    """Decisions by hand; then by the clock, which no reader of the plan could have expected; then by the data."""
    choices = _telling_decisions(plan)
    for name, decision in choices.items():
        if decision.because.startswith(BY_HAND):
            yield name
    if (size := choices.get("network.size")) and size.because.endswith(NARROWER):
        yield "network.size"
    for name in OF_THE_DATA:
        if name in choices and not choices[name].because.startswith(BY_HAND):
            yield name


def _telling_decisions(plan: Plan) -> dict[str, Decision]:
    """The decisions that say more than none, off or no."""
    silent = plan_text.silent_decisions(plan)
    return {name: decision for name, decision in plan if name not in silent}


def _headline(scored: ScoredCases, primary: str) -> list[Row]:
    """The main figures: of each task, or of each label where they are few, and those that always stand beside them."""
    rows = model_verdict.headline_rows(scored.rows, primary, scored.task)
    count = sum(row.metric == rows[0].metric for row in rows)
    return rows if count <= MOST_LABELS + 1 else [rows[0], *rows[count:]]


def _tables(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows in tables of few metrics each."""
    metrics = list(dict.fromkeys(row.metric for row in rows))
    for part in np.array_split(np.array(metrics), -(-len(metrics) // MOST_COLUMNS)) if metrics else ():
        yield [row for row in rows if row.metric in part]


def _preregistration_changes(plan: Plan | None) -> Iterator[str]:
    """Preregistered facts that no longer hold."""
    if plan is not None and PREREGISTERED in plan and plan[PREREGISTERED] != plan_file.preregistration_digest(plan):
        yield "The plan's metric, rule or tolerances are not those preregistered: all is exploratory."


def _results(scored: ScoredCases, primary: str, plan: Plan | None, by: str) -> Section:
    """Each figure once, task by task: over all labels in one table, by label in another; then the charts."""
    blocks: list[Block] = [Paragraph(f"{_promise(scored.metrics.metric_named(primary).words, plan)} {by}".strip())]
    parts = properties.part_names(scored.task) if scored.task is not None else ()
    for part in parts or ("",):
        task = None if scored.task is None else properties.part_or_whole(scored.task, part)
        metrics = Metrics() if task is None else task.metrics
        rows_shown = [row for row in rows_of_part(scored.rows, part) if not row.metric.endswith(ANSWERED)]
        rows_shown = [row for row in rows_shown if not metrics.metric_named(row.metric).is_of_belief]
        overall = [row for row in rows_shown if row.label == "all" and _is_number(row)]
        by_label, what = _by_label(rows_shown), metrics.label_word
        blocks += [Paragraph(words) for words in (() if task is None else evaluation_notes.positive_words(task))]
        if len({row.label for row in by_label}) == 1:
            overall, by_label = [*overall, *(replace(row, label="all") for row in by_label)], []
        if overall:
            blocks.append(Estimates(overall, part.capitalize()))
        tables = [
            ByLabel(rows, f"{f'{part} by {what}'.strip().capitalize()}{_level_of(rows)}", what)
            for rows in _tables(by_label)
        ]
        blocks += [*tables[:1], *([Details(f"More figures by {what}", tables[1:])] if tables[1:] else [])]
    if scored.subsets:
        blocks += [Paragraph(BY_IMAGES), Estimates(_by_images(scored, primary), "By images")]
    blocks.append(Paragraph(" ".join([*_opening_sentences(scored), TRAINING_VARIES])))
    if scored.overview:
        blocks.append(Gallery(list(scored.overview)))
    return Section("Results", blocks)


def _by_label(rows: Sequence[Row]) -> list[Row]:
    """The rows by label, of metrics that tell more than the figure over all labels does."""
    overall = {row.metric: row.estimate.value for row in rows if row.label == "all"}
    others = [row for row in rows if row.label != "all" and _is_number(row)]
    metrics_of_rows = {row.metric for row in others if row.estimate.value != overall.get(row.metric)}
    metrics_of_rows -= {
        metric for metric in metrics_of_rows if metric.endswith(BIAS) and _stands_already(metric, others)
    }
    return [row for row in others if row.metric in metrics_of_rows]


def _stands_already(metric: str, rows: Sequence[Row]) -> bool:
    """Whether another metric has the same value for every label, as the mean error and the bias do."""
    values: dict[str, dict[str, float]] = {}
    for row in rows:
        values.setdefault(row.metric, {})[row.label] = round(row.estimate.value, 9)
    return [*values.values()].count(values[metric]) > 1


def _is_number(row: Row) -> bool:
    return bool(np.isfinite(row.estimate.value))


def methods_section(scored: ScoredCases) -> Section:
    """Appendix with a row for each figure: its interval, and how it was made."""
    figures: dict[str, dict[str, list[str]]] = {}
    for row in scored.rows:
        if not row.metric.endswith((BEFORE, OF_ANSWERED)):
            name = scored.metrics.metric_named(row.metric).words
            figures.setdefault(name, {})[row.label] = wording.method_text(row.estimate).split("; ")
    cells = [
        (
            figure,
            *(_by_labels({label: parts[part] for label, parts in own.items()}) for part in (slice(1), slice(1, None))),
        )
        for figure, own in figures.items()
    ]
    title = f"{errors.count_phrase(len(cells), 'figure')}, each with its interval"
    return Section(METHODS, [Details(title, [Paragraph(MADE_ALIKE), Table(METHOD_COLUMNS, cells)])], is_appendix=True)


def _by_labels(parts: Mapping[str, Sequence[str]]) -> str:
    """What all labels have in common, then what labels have of their own: "15 bins; liver: 40 cases"."""
    common = [one for one in next(iter(parts.values())) if all(one in others for others in parts.values())]
    labels: dict[str, list[str]] = {}
    for label, others in parts.items():
        if own := [one for one in others if one not in common]:
            labels.setdefault(", ".join(own), []).append(label)
    return "; ".join([*common, *(f"{', '.join(names)}: {own}" for own, names in labels.items())])


def _by_images(scored: ScoredCases, primary: str) -> list[Row]:
    """The primary metric over all labels, a row for each subset of the images."""
    return [
        replace(model_verdict.headline_rows(rows, primary, None)[0], label=" + ".join(images))
        for images, rows in scored.subsets
    ]


def _promise(primary: str, plan: Plan | None) -> str:
    """Whether the primary metric, given as papers spell it, was named before training."""
    if plan is None or PREREGISTERED not in plan:
        return f"{primary} is the model's primary metric; nothing shows that it was named beforehand."
    if plan[PREREGISTERED] != plan_file.preregistration_digest(plan):
        return "What was preregistered has been changed since: every figure is exploratory."
    named = f"{primary} was named primary before training{_preregistered_with(plan)}{_also_preregistered(plan)}"
    return f"{named}; all other figures are exploratory."


def _preregistered_with(plan: Plan) -> str:
    """Facts that were fixed with the primary metric, as the kind of problem says."""
    *others, last = ["", *task_settings.preregistered_settings(task_catalogue.task_class(plan["task.name"])).values()]
    named = [", ".join(name for name in others if name), last]
    return f", with its {' and '.join(name for name in named if name)}" if last else ""


def _also_preregistered(plan: Plan) -> str:
    """The margin and the groups that were fixed with it, in words."""
    margin, groups = plan_file.preregistered_margin(plan), plan_file.preregistered_groups(plan)
    named = [] if margin is None else [f"the margin of non-inferiority {margin:g}"]
    named += [] if groups in (None, NONE) else [f"the groups {', '.join(str(groups).split(','))}"]
    return f"; fixed with it: {' and '.join(named)}" if named else ""


def _opening_sentences(scored: ScoredCases) -> Iterator[str]:
    if scored.openings:
        times = "for the first time" if scored.openings == 1 else f"{scored.openings} times"
        yield f"These test cases have been opened {times} on this machine."
    if scored.openings > 1:
        yield "A model that was chosen by such results needs other cases to test it."


def _level_of(rows: Sequence[Row]) -> str:
    """Caption on the intervals under the values; empty where there is none."""
    level = next((row.estimate.level for row in rows if row.estimate.low is not None), None)
    return "" if level is None else f", with the {100 * level:.0f} % interval"


def _cases(scored: ScoredCases, primary: str, views: str) -> Iterator[Section]:
    """The best, median and worst cases, and the wrong calls; each picture opens its case in the slice viewer."""
    values = _of_cases(scored, primary)
    ranked, wrong = list[Figure](), list[Figure]()
    for index, (word, case, picture, _) in enumerate(scored.shown):
        address = Link(case, f"{views}{case_scoring.view_name(index)}").href
        pictures = [replace(_add_title(figure, word, case, values.get(case)), href=address) for figure in picture]
        (wrong if word == WRONG else ranked).extend(pictures)
    cases = errors.count_phrase(int(scored.table["case"].nunique()), "case")
    opens = "A picture opens its case in the slice viewer."
    if ranked:
        words = dict.fromkeys(word for word, *_ in scored.shown if word != WRONG)
        title = f"{' and '.join(filter(None, [', '.join([*words][:-1]), [*words][-1]])).capitalize()} cases"
        yield Section(title, [Paragraph(f"Ranked among {cases}. {opens}"), Gallery(ranked, small=True)])
    if wrong:
        every = case_scoring.wrong_calls(scored.task, scored.table) if scored.task is not None else ()
        of = f"{len({figure.title for figure in wrong})} of {len(every)}"
        yield Section("Wrong calls", [Paragraph(f"{of}, the worst first. {opens}"), Gallery(wrong, small=True)])


def _of_cases(scored: ScoredCases, primary: str) -> dict[str, str]:
    """{case: its score in words}, the mean over its labels; what is of a single case where the primary is not."""
    words = dict[str, list[str]]()
    for task, table in scored.parts.values():
        for metric in [name for name in (primary, task.metrics.of_case) if name and name in table][:1]:
            named = scored.metrics.metric_named(metric).words
            for case, value in table.groupby("case")[metric].mean().dropna().items():
                words.setdefault(str(case), []).append(f"{named}: {wording.number_text(float(value))}")
    return {case: ", ".join(own) for case, own in words.items()}


def _add_title(figure: Figure, word: str, case: str, score: str | None) -> Figure:
    parts = [part for part in (score, figure.caption) if part]
    return replace(figure, title=f"{word}: {case}", caption=". ".join(parts))


def selection_metric_namer(plan: Plan | None) -> Callable[[float], str]:
    """The name of a figure of the metric that selects checkpoints; "metric" without a plan that names one."""
    if plan is None or not {"training.selection", "task.name"} <= set(plan.names):
        return lambda figure: "metric"
    return wording.metric_namer(
        task_catalogue.task_class(plan["task.name"]).metrics.metric_named(str(plan["training.selection"]))
    )


def search_sections(results: Mapping[str, SearchResult], plan: Plan, tables: Sequence[str] = ()) -> list[Section]:
    """A section with every trial of each search, in a picture and a table; none without a search.

    results: {fold in words: result of its search}; "" where there are no folds
    tables:  the files of their trials, relative to the report
    """
    if not results:
        return []
    metric = selection_metric_namer(plan)(0.0)
    blocks: list[Block] = [Paragraph(JUDGED)]
    for where, result in results.items():
        named = f"{where}: {result.statement}" if where else result.statement
        blocks += [Paragraph(f"{named}."), _trials(result, metric, where), *_importances(result)]
        blocks.append(_trial_table(result, metric))
    return [Section("Search", blocks, [Link(name, name) for name in tables])]


def _trials(result: SearchResult, metric: str, where: str) -> Gallery:
    values = {row["trial"]: value for row in result.rows if (value := row["value"]) is not None}
    axes = ("trial", f"{metric} of the validation cases")
    title = f"Trials{f' of {where}' if where else ''}"
    return Gallery([charts.scatter([*values], [*values.values()], title, axes=axes)])


def _importances(result: SearchResult) -> Iterator[Block]:
    """How much each decision that was varied counted, or why nothing is said of it."""
    if not result.importances:
        whole = sum(row["state"] == COMPLETE or row["trial"] == 0 for row in result.rows)  # the plan's own is whole
        counted = errors.count_phrase(whole, "whole trial")
        yield Paragraph(f"Importance of decisions: not stated of {counted}; it takes {FEWEST_TO_RANK} that differ.")
        return
    yield Paragraph(IMPORTANCE)
    yield Table(("Decision", "Importance"), [[name, f"{share:.2f}"] for name, share in result.importances.items()])


def _trial_table(result: SearchResult, metric: str) -> Table:
    cells = [
        [
            row["trial"],
            row["state"],
            row["steps"],
            row["seconds"],
            f"{row['tried']}{': ' * bool(row['why'])}{row['why']}",
            "" if row["value"] is None else wording.number_text(float(row["value"])),
        ]
        for row in result.rows
    ]
    return Table([*SEARCH_COLUMNS, metric], cells)


TITLE = "Can it be believed?"
NOW, FORMER = "as stated", "before calibration"
# Of the cases, by their mistakes instead of by the model's doubt.
PERFECT = "perfect order"
# The columns of the first table; the rest is folded away.
MOST_FIRST_ROWS = 10
OF_CLASSES = "temperature"
OF_DOUBT = frozenset(one.name for one in DOUBT_METRICS)
HOW = (
    "A calibrated model has temperature and slope 1, intercept 0, and errors by bins (ECE) no larger than chance makes "
    f"them. The table {METHODS} states the errors that a perfect model would have with as many cases."
)
FOUND = ("calibration", "conformal")


def belief_section(scored: ScoredCases, plan: Plan | None) -> Iterator[Section]:
    """The section; none for a kind of problem without such figures."""
    if scored.task is None:
        return
    blocks = list[Block]()
    for part, own_task in properties.leaf_tasks(scored.task).items():
        belief = [
            one.name.removesuffix(BEFORE) for one in own_task.metrics if one.is_of_belief and one.name not in OF_DOUBT
        ]
        metrics = list(dict.fromkeys(belief))
        finite = [row for row in rows_of_part(scored.rows, part) if np.isfinite(row.estimate.value)]
        placed = [(_place(row, metrics), row) for row in finite]
        placed = sorted((pair for pair in placed if pair[0] < len(metrics)), key=itemgetter(0))
        own_rows, first = ([row for place, row in placed if place < most] for most in (len(metrics), MOST_FIRST_ROWS))
        if first:
            blocks += [Paragraph(f"{part.capitalize()}: {why}" if part else why) for why in _reasons(plan, part)]
            blocks += _belief_tables(first, [row for row in own_rows if row not in first])
        if part in scored.parts:  # else these cases say nothing of it
            doubts = [row for row in finite if row.metric.removesuffix(BY_EPISTEMIC) in OF_DOUBT]
            blocks += _doubts(doubts, scored.parts[part][1])
    blocks += _answer_blocks(scored.rows)
    if blocks:
        blocks += [] if scored.shift is None else [Paragraph(scored.shift.note)]
        has_classes = any(row.metric == OF_CLASSES for row in scored.rows)
        yield Section(TITLE, [*blocks, *([Paragraph(HOW)] if has_classes else [])])


def _answer_blocks(rows: Sequence[Row]) -> Iterator[Block]:
    """Share of cases that get an answer, and the error of the answers."""
    estimates = {row.metric: row.estimate for row in rows if row.label == "all"}
    share, error = estimates.get(ANSWERED), estimates.get(f"error_{ANSWERED}")
    if share is None:
        return
    sentence = f"{wording.share_text(share.value, 1)} of the cases get an answer"
    if error is not None:
        ends = "" if error.low is None else f" ({error.low:.3f} to {error.high:.3f})"
        sentence += f"; the mean error of these is {error.value:.3f}{ends}, and summary.json has their other figures"
    yield Paragraph(f"{sentence}.")


def _place(row: Row, metrics: Sequence[str]) -> int:
    """The place of a row's metric among these; their number where it is none of them."""
    name = row.metric.removesuffix(BEFORE)
    return metrics.index(name) if name in metrics else len(metrics)


def rows_of_part(rows: Sequence[Row], part: str) -> list[Row]:
    """The rows of a task, without its name; all rows where there is one task."""
    if not part:
        return list(rows)
    lead = f"{part}: "
    return [replace(row, label=row.label.removeprefix(lead)) for row in rows if row.label.startswith(lead)]


def _reasons(plan: Plan | None, part: str) -> list[str]:
    """Reasons for the calibration and for thresholds of sets and intervals, as the plan has them."""
    names = [f"task.{part}.{name}" if part else f"task.{name}" for name in FOUND]
    reasons = [plan.decision(name).because for name in names if name in plan and plan[name] is not None] if plan else []
    return [f"{because[0].upper()}{because[1:]}." for because in reasons]


def _belief_tables(first: Sequence[Row], others: Sequence[Row]) -> Iterator[Block]:
    """Over all labels now and before side by side; by label, and further figures, folded away."""
    overall = [_name_row(row) for row in first if row.label == "all"] or [_name_row(row) for row in first]
    yield ByLabel(overall, "", "probabilities")
    by_label = [row for row in first if row.label != "all" and not row.metric.endswith(BEFORE)]
    folded = list[Block]()
    if by_label and any(row.label == "all" for row in first):
        folded.append(ByLabel(by_label, "By label, as stated", "label"))
    if others:
        folded.append(ByLabel([row for row in others if not row.metric.endswith(BEFORE)], "Further figures", "label"))
    if folded:
        yield Details("More on the probabilities", folded)


def _doubts(rows: Sequence[Row], table: CaseTable) -> Iterator[Block]:
    """Whether doubt finds mistakes, and how risk falls with the share of cases that is answered."""
    if not rows:
        return
    named = [
        replace(row, metric=row.metric.removesuffix(BY_EPISTEMIC), label="epistemic" if by_epistemic else "total")
        for row in rows
        for by_epistemic in [row.metric.endswith(BY_EPISTEMIC)]
    ]
    yield ByLabel(named, "Do mistakes lie where the model doubts?", "by uncertainty")
    doubted = DoubtedAnswers.from_table(table)
    orders = {**doubted.doubts, PERFECT: doubted.loss}
    curves = {name: uncertainty.risk_coverage(doubt, doubted.loss) for name, doubt in orders.items()}
    title, caption = "What is answered, and how wrong that is", f"{PERFECT.capitalize()}: the worst mistakes last."
    yield Gallery([discrimination_figures.risk_coverage_plot(curves, title, caption=caption)])


def _name_row(row: Row) -> Row:
    """A row of the table of now and before, which has the metric's name without the end."""
    former = row.metric.endswith(BEFORE)
    label = FORMER if former else NOW
    where = label if row.label == "all" else f"{row.label}, {label}"
    return replace(row, metric=row.metric.removesuffix(BEFORE), label=where)
