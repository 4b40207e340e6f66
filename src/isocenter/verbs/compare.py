"""`compare`: models that were scored on the same cases, with the interval of their difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from isocenter.errors import UsageError, counted, listed
from isocenter.evaluation import SUMMARY_SCHEMA, read_cases, rows_from_json
from isocenter.keywords import several, takes
from isocenter.options import CompareOptions
from isocenter.reading import refuse_taken, result_folder
from isocenter.report import Block, Details, Link, Page, Paragraph, Section, Table, p_text, render, sentence, share_text
from isocenter.runtime import read_json, write_json
from isocenter.scoring import (
    CASES,
    MRMC,
    OF_MARGINS,
    PRIMARY,
    REGISTERED_MARGIN,
    SUMMARY,
    Comparison,
    ModelTest,
    Standing,
    compare_tables,
    comparison_caveats,
    comparison_lead,
    comparison_table,
    evaluation_folder,
    folder_names,
    interval_of_difference,
    kinship,
    primary_blocks,
    signed_number,
    task_of,
    undrawn_notes,
)
from isocenter.values import Estimate
from isocenter.verbs.comparison import ComparisonOptions, rows_with_tests, significance_of

MARKS = ("comparison.json", "report.html")


@takes(CompareOptions)
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
    folders = [evaluation_folder(Path(one)) for one in several(options.evaluations)]
    if len(folders) < (2 if wanted.readers is None else 1):
        remedy = "Give two runs or more, or one and its readers: --readers TABLE"
        raise UsageError(f"{counted(len(folders), 'evaluation')} given", "compare", remedy)
    if options.out is not None:
        refuse_taken(Path(options.out), options.overwrite, MARKS)
    tasks = [task_of(folder) for folder in folders]
    kinds = {task.name for task in tasks}
    if len(kinds) > 1:
        problem = f"{' and '.join(sorted(kinds))} have no figures in common"
        raise UsageError(problem, "compare", "Give models that answer the same question")
    names = folder_names([Path(one) for one in several(options.evaluations)])
    tables = {name: read_cases(folder / CASES) for name, folder in zip(names, folders, strict=True)}
    undrawn = undrawn_notes(tasks, list(tables.values()))
    summaries = [read_json(folder / SUMMARY, SUMMARY_SCHEMA) for folder in folders]
    known = all(any(row.estimate.patients for row in rows_from_json(one)) for one in summaries)
    where = None if options.out is None else Path(options.out)
    stated = {name: one[PRIMARY] for name, one in zip(names, summaries, strict=True) if one.get(PRIMARY)}
    primary = next(iter(stated.values()), None)
    comparison = compare_tables(tables, tasks, primary, seed=options.seed, patients_known=known, out=where)
    others = {name: metric for name, metric in stated.items() if metric != comparison.primary}
    # A margin is in the unit of the metric that it was registered with.
    margins = {name: one.get(REGISTERED_MARGIN) for name, one in zip(names, summaries, strict=True)}
    registered = {name: margin for name, margin in margins.items() if name not in others}
    tested = significance_of(comparison, tables, tasks, registered, wanted, seed=options.seed)
    comparison = replace(comparison, rows=rows_with_tests(comparison, tested.rows), tested=tested)
    comparison = replace(comparison, kinship=tuple(kinship(dict(zip(names, summaries, strict=True)))))
    if comparison.out is not None:
        with result_folder(comparison.out, options.overwrite, MARKS) as folder:
            write_json(folder / MARKS[0], "isocenter.comparison", comparison.as_record())
            (folder / MARKS[1]).write_text(_report(comparison, others, undrawn), encoding="utf-8")
    return comparison


def _report(comparison: Comparison, primaries: Mapping[str, str], undrawn: Sequence[str]) -> str:
    """One page: the primary metric as a picture with its tests, then every figure and difference.

    primaries: {model: the metric that was to judge it}, where that is another one
    undrawn:   notes on labels that no reference holds
    """
    others = [row for row in comparison.rows if row.metric != comparison.primary]
    rows = comparison.tested.rows
    main, groups = [row for row in rows if row.is_primary], [row for row in rows if row.is_of_group]
    rest = [row for row in rows if not row.is_primary and not row.is_of_group]
    tests = Details("Tests of all other figures", [table_of_tests(comparison, rest)])
    primary = [*primary_blocks(comparison), table_of_tests(comparison, main), *rank_blocks(comparison)]
    files = [Link(MARKS[0], MARKS[0])]
    notes = [*undrawn, *_judged_otherwise(comparison, primaries)]
    notes += [*comparison.kinship, comparison.about, *comparison_caveats(comparison), *caveats_of_tests(comparison)]
    effects = [Paragraph(sentence(str(one))) for one in comparison.tested.readers]
    people = [Section("Readers", effects, files)] if effects else []
    by_group = [Section("Groups", [table_of_tests(comparison, groups)], files)] if groups else []
    return render(
        Page(
            " and ".join(comparison.names),
            [],
            [
                Section("Primary", primary, files),
                *people,
                *by_group,
                Section("Exploratory", [comparison_table(comparison, others), tests], files),
            ],
            {"models": ", ".join(comparison.names)},
            lead=comparison_lead(comparison),
            verdict=" ".join(sentences_of_tests(comparison)),
            remarks={"Keep in mind": notes},
        )
    )


def _judged_otherwise(comparison: Comparison, primaries: Mapping[str, str]) -> Iterator[str]:
    """Notes on models with another primary metric, whose margin does not count here."""
    for name, metric in primaries.items():
        own, ours = (comparison.metrics.of(one).words for one in (metric, comparison.primary))
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
        metric = comparison.metrics.of(comparison.primary).words
        yield f"{metric}, the primary metric, was not tested: {listed(sorted(fitting))} does not fit it."
    for sides in dict.fromkeys(row.sides for row in primary):
        row = next(one for one in primary if one.sides == sides)
        apart = f"{comparison.metrics.of(row.metric).words} {_difference(row, comparison)}"
        margin = f" by a margin of {row.margin:g}" if row.margin is not None and row.verdict in OF_MARGINS else ""
        if row.margin and row.verdict == "not shown":
            margin = f", nor to be non-inferior by the margin of {row.margin:g}"
        because = f"; the margin was not tested: {row.reason_against_margin}" * bool(row.reason_against_margin)
        words = f"{sides[1]}: {WORDS[row.verdict]} {sides[0]}{margin}{because}"
        yield sentence(f"{words} ({apart}; {TESTS[row.name]}, {row.name_of_p} {_p(row)})")


def table_of_tests(comparison: Comparison, rows: Sequence[ModelTest]) -> Block:
    """A row a test."""
    if not rows:
        return Paragraph("There are no others.")
    columns = ["Metric", "Label", "Model", "against", "Test", "Difference", "p", "adjusted", "Verdict"]
    cells = [
        [
            comparison.metrics.of(row.metric).words,
            row.label,
            *reversed(row.sides),
            TESTS[row.name],
            _difference(row, comparison),
            p_text(row.test.p),
            p_text(row.p_adjusted),
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
    cells = [[one.model, text, share_text(one.best)] for one, text in zip(ranks, words, strict=True)]
    what = comparison.metrics.of(comparison.primary).words
    drawn = "patients" if comparison.patients_known else "cases, whose patients are unknown,"
    caption = f"Ranks by {what} over {drawn} drawn again; in brackets the middle 95 %."
    return [Table(["Model", "Mean rank", "Best in"], cells, caption)]


def caveats_of_tests(comparison: Comparison) -> Iterator[str]:
    """Sentences on the adjustment of p-values, and on margins that nobody fixed beforehand."""
    tested = comparison.tested
    how = CORRECTIONS[tested.correction]
    yield (
        f"p-values are adjusted {how}: those of {comparison.metrics.of(comparison.primary).words} over all "
        "labels among themselves, so are those of readers, of groups, and of all else, which is exploratory. A "
        "difference is shown where the adjusted p is below 5 % and the interval does not hold 0."
    )
    yield from (f"{row.sides[1]}: {row.margin_words}." for row in tested.rows if row.margin_words)
    for name, margin in tested.margins.items():
        stated = "was" if margin.is_registered else "is"
        yield f"The margin of {margin.value:g} for {name} {stated} {margin.because}."


def _difference(row: ModelTest, comparison: Comparison) -> str:
    test = row.test
    apart = Estimate(test.difference, test.low, test.high, unit=row.unit, method=test.method)
    return f"{signed_number(apart)}, {interval_of_difference(apart)}"


def _p(row: ModelTest) -> str:
    adjusted = p_text(row.p_adjusted)
    return adjusted if adjusted.startswith("<") else f"= {adjusted}"
