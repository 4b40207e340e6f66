from __future__ import annotations

import re
import shutil
from functools import cache
from typing import Any

import numpy as np
import pytest

from hilum.errors import UsageError
from hilum.evaluation import Metrics
from hilum.report import Details, Figure, Paragraph, ReportPage, Section, Table, page_blocks
from hilum.report.display import DARK, LIGHT
from hilum.report.figures import charts, slice_figures
from hilum.report.page_blocks import ByLabel, Decisions, Estimates, Facts, Gallery, Link, Problems
from hilum.values import Decision, Estimate, Image, Plan, Problem, Row

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}&'$x$"
DICE = Row("dice", "all", Estimate(0.8821, 0.8741, 0.8899, n=40, patients=40, method="patient bootstrap"))
NSD = Row("nsd", "all", Estimate(0.97, n=1, patients=1, method="none: one patient"))


@cache
def drawn(volume: Image, box: Image) -> tuple[Figure, Figure]:
    """A chart and a picture of the page, for all its tests."""
    chart = charts.label_scores([DICE, Row("dice", HOSTILE, DICE.estimate)], HOSTILE, metrics=Metrics())
    return chart, slice_figures.contours(volume, box.data, None, box.labels, HOSTILE, caption=HOSTILE)


@pytest.fixture
def page(volume: Image, box: Image) -> ReportPage:
    """A page with every kind of block, and a hostile name wherever a name can stand."""
    chart, slices = drawn(volume, box)
    problems = (
        Problem("note", "a note", ("a",)),
        Problem("error", HOSTILE, (HOSTILE, *map(str, range(20))), HOSTILE, HOSTILE),
        Problem("warning", "a warning"),
    )
    plan = Plan({"training": {HOSTILE: Decision(HOSTILE, HOSTILE, HOSTILE)}})
    return ReportPage(
        title=HOSTILE,
        lead=HOSTILE,
        headline=[DICE, NSD, Row(HOSTILE, HOSTILE, DICE.estimate)],
        notes=["Patients unknown: leakage cannot be excluded.", HOSTILE],
        sections=[
            Section("Results", [Paragraph(HOSTILE), Estimates([DICE, NSD], HOSTILE), Gallery([chart, slices])]),
            Section(HOSTILE, [Table(["case", HOSTILE], [[HOSTILE, 0.5], [Link(HOSTILE, HOSTILE), None]]), slices]),
            Section(HOSTILE, [Problems(problems), Problems([]), Decisions(plan)]),
            Section("More", [Details(HOSTILE, [Facts({HOSTILE: HOSTILE}), Details("in it", [chart])])]),
        ],
        facts={"Data": HOSTILE, "Seed": 0},
    )


def test_every_tag_is_closed_in_its_order(page: ReportPage, outline: Any) -> None:
    assert outline(page_blocks.render_page(page)).faults == []


def test_nothing_is_asked_for_from_elsewhere(page: ReportPage, outline: Any) -> None:
    for address in outline(page_blocks.render_page(page)).addresses:
        assert address.startswith(("data:", "#")) or re.fullmatch(r"[A-Za-z0-9%._~/-]+", address)


def test_hostile_names_stay_text(page: ReportPage, outline: Any) -> None:
    html = page_blocks.render_page(page)
    seen = outline(html)
    assert seen.all("script") == []
    assert not [attributes for _, attributes in seen.tags if any(name.startswith("on") for name in attributes)]
    assert seen.text.count(HOSTILE) >= 20
    assert all(image["src"].startswith("data:image/png;base64,") for image in seen.all("img"))


def test_a_browser_runs_and_loads_nothing_and_does_not_complain(page: ReportPage, browser: Any) -> None:
    seen = browser.read(page_blocks.render_page(page))
    assert seen.complaints == []
    assert "alert(1)" in seen.dom and "<script>" not in seen.dom


@pytest.mark.parametrize("width", [1100, 390])
def test_no_page_is_wider_than_its_screen(page: ReportPage, browser: Any, width: int) -> None:
    # Chromium widens the layout of a page that overflows; the probe is laid out by the same rules as the page.
    probe = "<script>document.body.dataset.wide = document.documentElement.scrollWidth - innerWidth</script>"
    html = (
        page_blocks.render_page(page)
        .replace("</body>", f"{probe}</body>")
        .replace("default-src 'none'", "script-src 'unsafe-inline'")
    )
    assert float(browser.read(html, size=(width, 900)).state["wide"]) <= 0


@pytest.mark.whole
def test_the_words_above_a_wide_table_stay_within_a_narrow_screen(browser: Any) -> None:
    columns = [f"a column of many words {n}" for n in range(9)]
    wide = Table(columns, [["word " * 9] * 9], "By class, with the 95 % interval; patients as clusters. " * 3)
    right = "document.querySelector('caption span').getBoundingClientRect().right"
    probe = f"<script>document.body.dataset.beyond = {right} - innerWidth"
    probe += "; const box = document.querySelector('.scroll'); document.body.dataset.hidden = box.scrollWidth"
    probe += " - box.clientWidth</script>"
    html = page_blocks.render_page(ReportPage("Wide", [], [Section("Results", [wide])])).replace(
        "</body>", f"{probe}</body>"
    )
    html = html.replace("default-src 'none'", "script-src 'unsafe-inline'")
    seen = browser.read(html, size=(390, 900)).state
    assert float(seen["beyond"]) <= 0 and float(seen["hidden"]) > 0  # the table scrolls inside itself


@pytest.mark.whole
def test_the_page_is_dark_for_who_wants_it_dark(page: ReportPage, browser: Any) -> None:
    html = page_blocks.render_page(page)
    light, dark = (browser.look(html, dark=dark) for dark in (False, True))
    assert light[-1, 0].mean() > 230 and dark[-1, 0].mean() < 50
    assert light.std() > 10 and dark.std() > 10  # something is to be seen


def test_the_headline_says_the_interval_and_what_must_be_known_before(page: ReportPage, outline: Any) -> None:
    html = page_blocks.render_page(page)
    head = outline(html[: html.index("<main")]).text
    figures = ("0.882", "95 % interval 0.874 to 0.890", "40 cases of 40 patients", "no interval: one patient")
    for words in (*figures, "leakage cannot be excluded"):
        assert words in head
    assert 'content="Dice 0.882 (95 % interval 0.874 to 0.890, 40 cases of 40 patients)"' in html


def test_the_contents_lead_to_every_section_even_where_titles_are_alike(page: ReportPage, outline: Any) -> None:
    seen = outline(page_blocks.render_page(page))
    anchors = [attributes["id"] for attributes in seen.all("section")]
    leads = [attributes["href"] for attributes in seen.all("a") if (attributes["href"] or "").startswith("#s")]
    assert len(set(anchors)) == 4
    assert leads == [f"#{anchor}" for anchor in anchors]


def test_every_picture_has_words_and_every_table_its_heads(page: ReportPage, outline: Any) -> None:
    seen = outline(page_blocks.render_page(page))
    assert all(image["alt"] for image in seen.all("img"))
    heads = seen.all("th")
    assert heads and all(head["scope"] in {"col", "row"} for head in heads)
    assert seen.all("html")[0]["lang"] == "en"


def test_what_thousands_of_cases_have_in_common_is_one_problem_with_their_names() -> None:
    each = [Problem("warning", f"case{n}: refused: p {n / 9000:.5f} below 0.01", (f"case{n}",)) for n in range(5000)]
    html = page_blocks.render_page(
        ReportPage("Data", [], [Section("Data", [Problems([Problem("error", "a: other", ("a",)), *each])])])
    )
    assert html.count("<li class=") == 2
    assert "5000 cases, here the words of the first: refused: p 0.00000 below 0.01." in html
    assert "case4999" in html and len(html) < 200_000


def test_the_worst_problem_stands_first(page: ReportPage) -> None:
    html = page_blocks.render_page(page)
    found = re.findall(r'<li class="(error|warning|note)">', html)
    assert found == ["error", "warning", "note"]
    assert "Nothing was found." in html


def test_a_case_with_any_name_is_a_file_beside_the_page() -> None:
    assert Link("open", "viewers/a b#1?.html", "voxel=1,2,3").href == "viewers/a%20b%231%3F.html#voxel=1,2,3"
    assert Link("open", "javascript:alert(1)").href == "javascript%3Aalert%281%29"


@pytest.mark.parametrize("path", ["/etc/passwd", "//elsewhere/x", "\\\\elsewhere\\x", ""])
def test_a_link_that_is_not_relative_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="relative"):
        Link("open", path)


def test_a_row_that_does_not_fit_its_columns_is_refused() -> None:
    with pytest.raises(UsageError, match="2 columns"):
        Table(["a", "b"], [[1]])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground_by_the_ratio_that_accessibility_asks_for(scheme: str) -> None:
    colours = _colours(page_blocks.render_page(ReportPage("a")), scheme)
    grounds = {"error": "error-ground", "warning": "warning-ground", "note": "note-ground"}
    pairs = [(ink, "paper") for ink in ("text", "faint", "accent")] + list(grounds.items())
    for ink, ground in [*pairs, *[("faint", ground) for ground in grounds.values()]]:
        assert _contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)  # WCAG 2.2, 1.4.3
    chart = LIGHT if scheme == "light" else DARK
    assert min(_contrast(one, chart.paper) for one in chart.series) >= 3  # WCAG 2.2, 1.4.11


def _colours(html: str, scheme: str) -> dict[str, str]:
    roots = re.findall(r":root \{(.*?)\}", html, re.DOTALL)
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", roots[0 if scheme == "light" else 1]))


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2, relative luminance."""

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="there is no pdftotext to read what was printed")
def test_paper_has_every_cell_of_a_wide_table_and_what_is_folded_within_its_edges(browser: Any) -> None:
    columns = [f"average_precision_at_iou_{number}" for number in range(12)]
    cells = [f"0.{number}31 (0.{number}12 to 0.{number}47)" for number in range(12)]
    table, folded = Table(columns, [cells] * 60), Details("More", [Table(["folded"], [["unfolded"]])])
    words = browser.printed(page_blocks.render_page(ReportPage("Wide", sections=[Section("Table", [table, folded])])))
    assert all(0 <= left < right <= width for _, left, right, width in words)
    text = "".join(word for word, *_ in words)
    assert text.count("31") >= 60 * 12
    assert "unfolded" in text


def test_a_section_names_the_files_that_hold_its_figures(outline: Any) -> None:
    seen = outline(
        page_blocks.render_page(
            ReportPage("Files", sections=[Section("Groups", files=[Link("groups.csv", "eval/groups.csv")])])
        )
    )
    assert "eval/groups.csv" in seen.addresses and "Every figure: groups.csv" in seen.text


@pytest.mark.parametrize(
    ("labels", "metrics", "has_label_columns"), [(2, 7, True), (3, 7, True), (2, 6, False), (4, 7, False)]
)
def test_few_labels_with_many_metrics_are_columns_so_that_the_table_fits_the_page(labels, metrics, has_label_columns):
    rows = [Row(f"m{m}", f"l{n}", Estimate(n / 10 + m / 100)) for n in range(labels) for m in range(metrics)]
    table = (
        page_blocks.render_page(ReportPage("", sections=[Section("", [ByLabel(rows)])]))
        .split("<table")[1]
        .split("</table>")[0]
    )
    head, *lines = table.split("<tr>")[1:]
    named = [f"l{n}" for n in range(labels)] if has_label_columns else [f"M{m}" for m in range(metrics)]
    assert [head.index(name) for name in named] == sorted(head.index(name) for name in named)
    assert len(lines) == (metrics if has_label_columns else labels)
    cells = [(m, n) for m in range(metrics) for n in range(labels)]
    assert all(f"{n / 10 + m / 100:.2f}" in lines[m if has_label_columns else n] for m, n in cells)


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="there is no pdftotext to read what was printed")
def test_an_appendix_begins_a_page_of_its_own_and_is_set_in_two_columns(browser: Any) -> None:
    plan = Plan({"training": {f"s{n}": Decision(n, f"reason{n}") for n in range(60)}})
    appendix = Section("Plan", [Details("Decisions", [Decisions(plan)])], is_appendix=True)
    body, *further = browser.pages(
        page_blocks.render_page(ReportPage("Title", sections=[Section("Results", [Paragraph("Body.")]), appendix]))
    )
    assert [word for word, *_ in body] == ["Title", "Results", "Body."]
    assert len(further) == 1  # a screen needs more than three pages for them
    lefts = {word: left for word, left, *_ in further[0] if word.startswith("reason")}
    assert lefts["reason59."] > lefts["reason0."] + 200


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="there is no pdftotext to read what was printed")
@pytest.mark.whole
def test_short_words_are_whole_on_paper_beside_a_column_of_long_sentences(browser: Any) -> None:
    long = "deletion and insertion not shown to be better than those of random maps, nor than those of an edge filter"
    rows = [["integrated_gradients", "passed", long], ["smoothgrad", "failed", long]]
    page = ReportPage(
        "Tests", sections=[Section("What answers rest on", [Table(["Method", "Tests", "Because"], rows)])]
    )
    words = [word for word, *_ in browser.printed(page_blocks.render_page(page))]
    assert {"Tests", "passed", "failed", "integrated_gradients"} <= set(words)
