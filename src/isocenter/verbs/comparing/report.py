"""The tests of a comparison on its page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from isocenter.errors import listed
from isocenter.report import Block, Paragraph, Table, p_text, sentence, share_text
from isocenter.scoring import MRMC, OF_MARGINS, Comparison, ModelTest, Standing, interval_of_difference, signed_number
from isocenter.values import Estimate

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
