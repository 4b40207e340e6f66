"""`compare`: models that were scored on the same cases, with the interval of their difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hilum import errors, keywords
from hilum.errors import UsageError
from hilum.evaluation import case_tables
from hilum.evaluation.case_tables import SUMMARY_SCHEMA
from hilum.options.training import CompareOptions
from hilum.reading import verb_results
from hilum.report import Block, Details, Paragraph, ReportPage, Section, Table, page_blocks, wording
from hilum.report.page_blocks import Link
from hilum.runtime import record_files
from hilum.scoring import evaluation_notes, model_comparison
from hilum.scoring.case_scoring import CASES, PREREGISTERED_MARGIN, PRIMARY, SUMMARY
from hilum.scoring.model_comparison import COMPARISON_SCHEMA, MRMC, OF_MARGINS, Comparison, ModelTest, Standing
from hilum.values import Estimate
from hilum.verbs import comparison_tests
from hilum.verbs.comparison_tests import ComparisonOptions

MARKS = ("comparison.json", "report.html")


@keywords.takes(CompareOptions)
def compare(options: CompareOptions) -> Comparison:
    """Runs, or folders that `evaluate` wrote, of the same kind on the same cases; the first is what the others go by.

    The interval of a difference is that of its test, of the same patients for all models, and not of two figures that
    have nothing to do with each other. Where many are compared, one in twenty differs by chance alone.
    out: a folder for comparison.json and report.html
    Raises UsageError for one without readers, DatasetError where cases, patients or references are not the same.
    """
    wanted = ComparisonOptions(
        options.test,
        options.margin,
        options.correction,
        None if options.readers is None else Path(options.readers),
        options.groups,
    )
    folders = [model_comparison.evaluation_folder(Path(one)) for one in keywords.as_tuple(options.evaluations)]
    if len(folders) < (2 if wanted.readers is None else 1):
        remedy = "Give two runs or more, or one and its readers: --readers TABLE"
        raise UsageError(f"{errors.count_phrase(len(folders), 'evaluation')} given", "compare", remedy)
    if options.out is not None:
        verb_results.refuse_taken(Path(options.out), options.overwrite, MARKS)
    tasks = [model_comparison.read_task(folder) for folder in folders]
    kinds = {task.name for task in tasks}
    if len(kinds) > 1:
        problem = f"{' and '.join(sorted(kinds))} have no figures in common"
        raise UsageError(problem, "compare", "Give models that answer the same question")
    names = model_comparison.folder_names([Path(one) for one in keywords.as_tuple(options.evaluations)])
    tables = {name: case_tables.read_cases(folder / CASES) for name, folder in zip(names, folders, strict=True)}
    absent = evaluation_notes.absent_label_notes(tasks, list(tables.values()))
    summaries = [record_files.read_json(folder / SUMMARY, SUMMARY_SCHEMA) for folder in folders]
    known = all(any(row.estimate.patients for row in case_tables.rows_from_json(one)) for one in summaries)
    where = None if options.out is None else Path(options.out)
    stated = {name: one[PRIMARY] for name, one in zip(names, summaries, strict=True) if one.get(PRIMARY)}
    primary = next(iter(stated.values()), None)
    comparison = model_comparison.compare_tables(
        tables, tasks, primary, seed=options.seed, patients_known=known, out=where
    )
    others = {name: metric for name, metric in stated.items() if metric != comparison.primary}
    # A margin is in the unit of the metric that it was preregistered with.
    margins = {name: one.get(PREREGISTERED_MARGIN) for name, one in zip(names, summaries, strict=True)}
    preregistered = {name: margin for name, margin in margins.items() if name not in others}
    tested = comparison_tests.significance_tests(comparison, tables, tasks, preregistered, wanted, seed=options.seed)
    comparison = replace(comparison, rows=comparison_tests.rows_with_tests(comparison, tested.rows), tested=tested)
    comparison = replace(
        comparison, kinship=tuple(model_comparison.kinship_sentences(dict(zip(names, summaries, strict=True))))
    )
    if comparison.out is not None:
        with verb_results.result_folder(comparison.out, options.overwrite, MARKS) as folder:
            record_files.write_json(folder / MARKS[0], COMPARISON_SCHEMA, comparison.as_record())
            (folder / MARKS[1]).write_text(_report(comparison, others, absent), encoding="utf-8")
    return comparison


def _report(comparison: Comparison, primaries: Mapping[str, str], absent: Sequence[str]) -> str:
    """One page: the primary metric as a picture with its tests, then every figure and difference.

    primaries: {model: the metric that was to judge it}, where that is another one
    absent:    notes on labels that no reference holds
    """
    others = [row for row in comparison.rows if row.metric != comparison.primary]
    rows = comparison.tested.rows
    main, groups = [row for row in rows if row.is_primary], [row for row in rows if row.is_of_group]
    rest = [row for row in rows if not row.is_primary and not row.is_of_group]
    tests = Details("Tests of all other figures", [table_of_tests(comparison, rest)])
    primary = [*model_comparison.primary_blocks(comparison), table_of_tests(comparison, main), *rank_blocks(comparison)]
    files = [Link(MARKS[0], MARKS[0])]
    notes = [*absent, *_judged_otherwise(comparison, primaries)]
    notes += [
        *comparison.kinship,
        comparison.about,
        *model_comparison.comparison_caveats(comparison),
        *caveats_of_tests(comparison),
    ]
    effects = [Paragraph(wording.as_sentence(str(one))) for one in comparison.tested.readers]
    people = [Section("Readers", effects, files)] if effects else []
    by_group = [Section("Groups", [table_of_tests(comparison, groups)], files)] if groups else []
    return page_blocks.render_page(
        ReportPage(
            " and ".join(comparison.names),
            [],
            [
                Section("Primary", primary, files),
                *people,
                *by_group,
                Section("Exploratory", [model_comparison.comparison_table(comparison, others), tests], files),
            ],
            {"models": ", ".join(comparison.names)},
            lead=model_comparison.comparison_lead(comparison),
            verdict=" ".join(sentences_of_tests(comparison)),
            remarks={"Keep in mind": notes},
        )
    )


def _judged_otherwise(comparison: Comparison, primaries: Mapping[str, str]) -> Iterator[str]:
    """Notes on models with another primary metric, whose margin does not count here."""
    for name, metric in primaries.items():
        own, ours = (comparison.metrics.metric_named(one).words for one in (metric, comparison.primary))
        yield f"The primary metric of {name} is {own}: models are compared by {ours} here."


WORDS: Mapping[Standing, str] = {
    "superior": "superior to",
    "non-inferior": "not inferior to",
    "equivalent": "equivalent to",
    "inferior": "inferior to",
    "not shown": "not shown to differ from",
}
TESTS = {
    "delong": "DeLong",
    "permutation": "permutation",
    "bootstrap": "patient bootstrap",
    "mcnemar": "McNemar",
    "wilcoxon": "Wilcoxon",
    "mrmc": "Obuchowski-Rockette, of readers",
}
CORRECTIONS = {"holm": "by Holm", "bh": "by Benjamini and Hochberg", "none": "for nothing"}


def sentences_of_tests(comparison: Comparison) -> Iterator[str]:
    """A sentence a model: the result of its test against the first model in the primary metric."""
    primary = [row for row in comparison.tested.rows if row.is_primary]
    if comparison.tested.rows and not primary:
        fitting = {TESTS[row.name] for row in comparison.tested.rows if row.name != MRMC}
        metric = comparison.metrics.metric_named(comparison.primary).words
        yield f"{metric}, the primary metric, was not tested: {errors.list_phrase(sorted(fitting))} does not fit it."
    for sides in dict.fromkeys(row.sides for row in primary):
        row = next(one for one in primary if one.sides == sides)
        apart = f"{comparison.metrics.metric_named(row.metric).words} {_difference(row, comparison)}"
        margin = f" by a margin of {row.margin:g}" if row.margin is not None and row.verdict in OF_MARGINS else ""
        if row.margin and row.verdict == "not shown":
            margin = f", nor to be non-inferior by the margin of {row.margin:g}"
        because = f"; the margin was not tested: {row.reason_against_margin}" * bool(row.reason_against_margin)
        words = f"{sides[1]}: {WORDS[row.verdict]} {sides[0]}{margin}{because}"
        yield wording.as_sentence(f"{words} ({apart}; {TESTS[row.name]}, {row.name_of_p} {_p(row)})")


def table_of_tests(comparison: Comparison, rows: Sequence[ModelTest]) -> Block:
    """A row a test."""
    if not rows:
        return Paragraph("There are no others.")
    columns = ["Metric", "Label", "Model", "against", "Test", "Difference", "p", "adjusted", "Verdict"]
    cells = [
        [
            comparison.metrics.metric_named(row.metric).words,
            row.label,
            *reversed(row.sides),
            TESTS[row.name],
            _difference(row, comparison),
            wording.p_text(row.test.p),
            wording.p_text(row.p_adjusted),
            f"{row.verdict}{', unreliable' * row.is_unreliable}",
        ]
        for row in rows
    ]
    return Table(columns, cells)


def rank_blocks(comparison: Comparison) -> list[Block]:
    """The ranks of three models or more over bootstrap samples."""
    ranks = comparison.tested.ranks
    if len(ranks) < 3:
        return []
    words = [f"{one.rank:.1f} ({one.low:.0f} to {one.high:.0f})" for one in ranks]
    cells = [[one.model, text, wording.share_text(one.best)] for one, text in zip(ranks, words, strict=True)]
    what = comparison.metrics.metric_named(comparison.primary).words
    units = "patients" if comparison.patients_known else "cases, whose patients are unknown,"
    caption = f"Ranks by {what} over {units} resampled; in brackets the middle 95 %."
    return [Table(["Model", "Mean rank", "Best in"], cells, caption)]


def caveats_of_tests(comparison: Comparison) -> Iterator[str]:
    """Sentences on the adjustment of p-values, and on margins that nobody fixed beforehand."""
    tested = comparison.tested
    how = CORRECTIONS[tested.correction]
    yield (
        f"p-values are adjusted {how}: those of {comparison.metrics.metric_named(comparison.primary).words} over all "
        "labels among themselves, so are those of readers, of groups, and of all else, which is exploratory. A "
        "difference is shown where the adjusted p is below 5 % and the interval does not hold 0."
    )
    yield from (f"{row.sides[1]}: {row.margin_words}." for row in tested.rows if row.margin_words)
    for name, margin in tested.margins.items():
        stated = "was" if margin.is_preregistered else "is"
        yield f"The margin of {margin.value:g} for {name} {stated} {margin.because}."


def _difference(row: ModelTest, comparison: Comparison) -> str:
    test = row.test
    apart = Estimate(test.difference, test.low, test.high, unit=row.unit, method=test.method)
    return f"{model_comparison.signed_number(apart)}, {model_comparison.interval_of_difference(apart)}"


def _p(row: ModelTest) -> str:
    adjusted = wording.p_text(row.p_adjusted)
    return adjusted if adjusted.startswith("<") else f"= {adjusted}"
