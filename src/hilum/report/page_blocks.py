"""The parts of a page, each shown by the template of its name, and the page as one HTML file that loads nothing."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from hilum import errors
from hilum.errors import UsageError
from hilum.evaluation import Metrics
from hilum.report import wording
from hilum.report.display import DARK, LIGHT
from hilum.values import Decision, Estimate, PlainValue, Problem, Row, dataset_cases, grouping

CHART_SIZE = re.compile(r'<svg width="(\d+)" height="(\d+)"')


@dataclass(frozen=True, eq=False)
class Figure:
    """A picture that explains itself.

    title, caption: what it shows, and how to read it
    alt:            the text for readers who cannot see it
    png:            the picture, small enough to stand in a page; empty where it is a chart for pages alone
    svg:            a chart, in the inks of the page
    wide:           wants the whole width of a page
    href:           the address that it opens, relative to the page
    """

    title: str
    png: bytes
    alt: str
    caption: str = ""
    svg: str = ""
    wide: bool = False
    href: str = ""
    template: ClassVar[str] = "figure"

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels of a plain screen."""
        if of_chart := CHART_SIZE.match(self.svg):
            return int(of_chart[1]), int(of_chart[2])
        width, height = struct.unpack(">II", self.png[16:24])  # the first chunk, PNG specification 11.2.2
        return width, height

    def _repr_png_(self) -> bytes | None:
        return None if self.svg else self.png

    def _repr_svg_(self) -> str | None:
        return self.svg.replace('style="', f'style="background: {LIGHT.paper}; font-family: sans-serif; ', 1) or None


# A table of so few labels and more metrics than these has the labels as columns.
FEW_LABELS, MOST_METRICS = 3, 6
# From so many on problems that cases have in common are one. What they differ in: whole and broken numbers.
MANY_ALIKE, NUMBERS = 4, re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")
# Cases of which a page states what accepts a finding on them.
MOST_ACCEPTING = 3


@dataclass(frozen=True)
class Link:
    """A cell that links to a file in the folder of the page.

    path:     relative to the page, with any characters
    fragment: the place in the file, such as the viewer's "voxel=12,30,18"
    Raises UsageError for a path that is not relative.
    """

    text: str
    path: str
    fragment: str = ""

    def __post_init__(self) -> None:
        if not self.path or self.path.startswith(("/", "\\")):
            raise UsageError(
                f"{self.path!r} is not a relative path", "Link", "Link to a file in the folder of the report"
            )

    @property
    def href(self) -> str:
        """The address, in which names with `:`, `#`, `?` or blanks stay names."""
        return quote(self.path, safe="/") + (f"#{quote(self.fragment, safe='=,&')}" if self.fragment else "")


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str
    template: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Table:
    """Rows of cells: text, numbers, an Estimate, a Link, None for a dash.

    shares: of the width that each column has, the same in several tables below each other; empty: what its cells need
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    shares: Sequence[float] = ()
    template: ClassVar[str] = "table"

    def __post_init__(self) -> None:
        uneven = [row for row in self.rows if len(row) != len(self.columns)]
        if uneven:
            raise UsageError(
                f"a row of {len(uneven[0])} under {len(self.columns)} columns", "Table", "Give one cell per column"
            )


@dataclass(frozen=True)
class Estimates:
    """Rows of a summary, each with its interval or the reason for none."""

    rows: Sequence[Row]
    caption: str = ""
    template: ClassVar[str] = "estimates"


@dataclass(frozen=True)
class ByLabel:
    """The same rows as a table: a label a row, a metric a column, each value over its interval.

    Few labels with many metrics are the columns instead, so that the table fits a page.

    what: the labels are: "structure", "class"
    """

    rows: Sequence[Row]
    caption: str = ""
    what: str = "label"
    template: ClassVar[str] = "by_label"

    @property
    def metrics(self) -> list[tuple[str, str]]:
        """(metric, unit) in the order of the rows; no unit where labels have several, which then stand in the cells."""
        units = grouping.distinct_by_key((row.metric, row.estimate.unit) for row in self.rows)
        return [(metric, own.pop() if len(own) == 1 else "") for metric, own in units.items()]

    @property
    def places(self) -> list[int]:
        """Decimals of each metric, the same for all labels."""
        return [
            wording.common_places([row.estimate for row in self.rows if row.metric == name]) for name, _ in self.metrics
        ]

    @property
    def labels(self) -> list[tuple[str, list[Estimate | None]]]:
        """(label, an estimate for each metric, None where there is none)"""
        estimates = {(row.label, row.metric): row.estimate for row in self.rows}
        names = dict.fromkeys(row.label for row in self.rows)
        return [(name, [estimates.get((name, metric)) for metric, _ in self.metrics]) for name in names]

    @property
    def has_label_columns(self) -> bool:
        """Whether a metric is a row and a label a column."""
        return len(self.labels) <= FEW_LABELS and len(self.metrics) > MOST_METRICS


@dataclass(frozen=True)
class Gallery:
    """Figures side by side where the page is wide enough; small: several in a row."""

    figures: Sequence[Figure]
    small: bool = False
    template: ClassVar[str] = "gallery"


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    facts: Mapping[str, PlainValue]
    template: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Decisions:
    """Decisions with their reasons and sources. items: (name, decision), as a Plan gives when it is iterated."""

    items: Iterable[tuple[str, Decision]]
    template: ClassVar[str] = "decisions"

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", tuple(self.items))


@dataclass(frozen=True)
class Problems:
    """Problems of data, the worst first; `none` is the text where there are none."""

    problems: Sequence[Problem]
    none: str = "Nothing was found."
    template: ClassVar[str] = "problems"

    @property
    def joined_problems(self) -> list[Problem]:
        """Join problems that many cases have into one: nobody reads a page of thousands.

        What they differ in is their numbers; those of the first are stated.
        """
        alike: dict[object, list[Problem]] = {}
        for problem in self.problems:
            case = problem.cases[0] if len(problem.cases) == 1 else ""
            text = problem.what.removeprefix(f"{case}: ") if case else problem.what
            kind_of_problem = (problem.severity, NUMBERS.sub("#", text), problem.why, problem.remedy)
            alike.setdefault(kind_of_problem if text != problem.what else problem, []).append(problem)
        return [one for group in alike.values() for one in (group if len(group) < MANY_ALIKE else [_as_one(group)])]


def accepting_words(problem: Problem) -> str:
    """Tell how a person accepts a warning: what the table says then of its first cases. Empty where nobody can."""
    if problem.severity != "warning" or not problem.accepts:
        return ""
    cells = [f"{cell} for {case}" for case, cell in zip(problem.cases, problem.accepts, strict=True)]
    further = ", and of the others what check.json states" if len(cells) > MOST_ACCEPTING else ""
    first = errors.list_phrase(cells[:MOST_ACCEPTING])
    return f"To accept it, write into column accepted of dataset.csv {first}{further}."


def _as_one(alike: Sequence[Problem]) -> Problem:
    first = alike[0]
    text = first.what.removeprefix(f"{first.cases[0]}: ").rstrip(".")
    what = f"{len(alike)} cases, here the words of the first: {text}"
    cases = tuple(case for one in alike for case in one.cases)
    accepts = tuple(cell for one in alike for cell in one.accepts)
    return replace(first, what=what, cases=cases, accepts=accepts)


@dataclass(frozen=True)
class Details:
    """Blocks that open on a click, for what only some readers need."""

    summary: str
    blocks: Sequence[Block]
    template: ClassVar[str] = "details"


Block = Paragraph | Table | Estimates | ByLabel | Figure | Gallery | Facts | Decisions | Problems | Details


@dataclass(frozen=True)
class Section:
    """A heading and the blocks under it.

    files: that hold every figure of it, relative to the page
    is_appendix: begins a page of small print on paper, with the sections after it; such sections are the last
    """

    title: str
    blocks: Sequence[Block] = ()
    files: Sequence[Link] = ()
    is_appendix: bool = False


@dataclass(frozen=True)
class ReportPage:
    """A report.

    headline: the primary metric first, in words and large; then a few others
    notes:    what a reader must know before believing the headline ("patients unknown: leakage cannot be excluded")
    facts:    where it comes from, folded at the foot: data, model, version, seed, machine
    lead:     one sentence under the title
    metrics:  of the kind of problem, by whose words figures are called
    verdict:  the answer to the reader's first question, in words
    remarks:  {question: answers to it}, under the verdict
    """

    title: str
    headline: Sequence[Row] = ()
    sections: Sequence[Section] = ()
    facts: Mapping[str, PlainValue] = field(default_factory=dict)
    notes: Sequence[str] = ()
    lead: str = ""
    metrics: Metrics = field(default_factory=Metrics)
    verdict: str = ""
    remarks: Mapping[str, Sequence[str]] = field(default_factory=dict)


def with_titles_ending(page: ReportPage, ending: str) -> ReportPage:
    """The page, with words behind its title and behind the title of each picture."""
    sections = [replace(section, blocks=_figures_ending(section.blocks, ending)) for section in page.sections]
    return replace(page, title=f"{page.title}{ending}", sections=sections)


def _figures_ending(blocks: Sequence[Block], ending: str) -> list[Block]:
    """The blocks, with words behind the title of each picture in them."""
    changed = list[Block]()
    for block in blocks:
        if isinstance(block, Figure):
            changed.append(replace(block, title=f"{block.title}{ending}"))
        elif isinstance(block, Gallery):
            figures = [replace(figure, title=f"{figure.title}{ending}") for figure in block.figures]
            changed.append(replace(block, figures=figures))
        elif isinstance(block, Details):
            changed.append(replace(block, blocks=_figures_ending(block.blocks, ending)))
        else:
            changed.append(block)
    return changed


def render_page(page: ReportPage) -> str:
    """The page as HTML: no request leaves it, every text is escaped."""
    return template_environment().get_template("page.html.jinja").render(page=page, anchors=_anchors(page))


@cache
def template_environment() -> Environment:
    """Jinja with escaping on for every template and a refusal of names that do not exist."""
    jinja = Environment(
        loader=PackageLoader("hilum.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.policies["json.dumps_kwargs"] = {"sort_keys": False}  # in the order given
    jinja.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    jinja.filters.update(cell=wording.cell_text, setting=wording.setting_text, sentence=wording.as_sentence)
    jinja.globals.update(
        light=LIGHT,
        dark=DARK,
        words=wording,
        is_link=_is_link,
        numeric=_numeric,
        worst_first=dataset_cases.worst_first,
        accepting=accepting_words,
    )
    return jinja


def _anchors(page: ReportPage) -> list[str]:
    """One address a section, unlike all others."""
    plain = [re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") for section in page.sections]
    return [f"s{place + 1}-{name}".rstrip("-") for place, name in enumerate(plain)]


def _is_link(value: object) -> bool:
    return isinstance(value, Link)


def _numeric(table: Table) -> list[bool]:
    """The columns that hold numbers, so that their digits stand under one another."""
    columns = zip(*table.rows, strict=True) if table.rows else [()] * len(table.columns)
    return [bool(cells) and all(isinstance(c, int | float | None) for c in cells) for cells in columns]
