"""Links of README, documentation and findings end where something is, in the checkout and on the site."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FINDINGS = ROOT / "bench" / "findings"
FIGURES = DOCS / "benchmarks.md"
PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *FINDINGS.glob("*.md")]
# Pages that speak of the table of figures as a whole; every other link to it ends at the row that has the figure.
OF_ALL_FIGURES = {
    *(page for page in PAGES if page.parent == FINDINGS),
    ROOT / "README.md",
    DOCS / "index.md",
    DOCS / "how-to" / "bench.md",
}
CODE_BLOCK = re.compile(r"^( *)(```|~~~).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)")
HEADING = re.compile(r"^#+ +(.*?) *$", re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.])[-+]?(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.?\d+)")
# What has digits in a paragraph and is no figure: code, where links lead, and papers.
NO_FIGURES = re.compile(r"`[^`]*`|\]\([^)]*\)|(?:arXiv|doi):\S+")
STATED_ID = re.compile(r"<a id=\"([^\"]+)\">")


class Link(NamedTuple):
    page: Path
    # The page or file where it ends, and the anchor on it; "" for none.
    target: Path
    anchor: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.target.relative_to(ROOT)}#{self.anchor}"


def prose(page: Path) -> str:
    return CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))


def links_within(pages: list[Path]) -> list[Link]:
    """Every link of these pages that stays in the checkout."""
    links = []
    for page in pages:
        for written in LINK.findall(prose(page)):
            if written.startswith(("http:", "https:", "mailto:")):
                continue
            path, _, anchor = written.partition("#")
            target = (page.parent / path).resolve() if path else page
            links.append(Link(page, target, anchor))
    return links


LINKS = links_within(PAGES)


def github_slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def site_slug(heading: str) -> str:
    """As Python-Markdown has it, whose pages mkdocs makes."""
    ascii_only = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", ascii_only).strip().lower())


def anchors_of(page: Path, slug: Callable[[str], str]) -> set[str]:
    """The ids that a page states, and the slugs of its headings."""
    text = prose(page)
    titles = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in HEADING.findall(text)]
    # Of equal headings only the first can be linked to: GitHub and the site number the others differently.
    return {*(slug(re.sub(r"[`*]", "", title)) for title in titles), *STATED_ID.findall(text)}


def test_every_link_ends_at_a_page_or_a_file_that_exists() -> None:
    assert len(LINKS) > 700
    assert sum(link.page.parent == FINDINGS for link in LINKS) > 25
    assert [str(link) for link in LINKS if not link.target.exists()] == []


@pytest.mark.parametrize("slug", [github_slug, site_slug])
def test_every_anchor_of_a_link_exists_on_its_page(slug: Callable[[str], str]) -> None:
    anchored = [link for link in LINKS if link.anchor]
    assert len(anchored) > 250
    anchors = {target: anchors_of(target, slug) for target in {link.target for link in anchored}}
    assert [str(link) for link in anchored if link.anchor not in anchors[link.target]] == []


def test_every_link_to_the_figures_ends_at_the_row_that_has_the_figure() -> None:
    to_figures = [link for link in LINKS if link.target == FIGURES and link.page not in OF_ALL_FIGURES]
    assert len(to_figures) > 40
    rows = set(STATED_ID.findall(FIGURES.read_text(encoding="utf-8")))
    assert [str(link) for link in to_figures if link.anchor not in rows] == []


def test_every_page_of_findings_is_reached_from_a_row_of_the_figures() -> None:
    reached = {link.target for link in LINKS if link.page == FIGURES}
    assert [page.name for page in FINDINGS.glob("*.md") if page not in reached and page.name != "README.md"] == []


def test_every_page_of_documentation_and_findings_has_its_place_in_the_menu_of_the_site() -> None:
    named = set(
        re.findall(
            r"^ +- (?:[^\n]*: )?([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE
        )
    )
    documentation = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    findings = {f"findings/{page.name}" for page in FINDINGS.glob("*.md")}
    assert len(findings) > 30
    assert named == documentation | findings


def numbers_in(text: str) -> list[str]:
    return [number.replace(",", "") for number in NUMBER.findall(text)]


def missing_numbers(numbers: list[str], texts: list[str]) -> list[str]:
    """Those that no number of the texts is when it is rounded to their digits, as a share or in percent."""
    known = [float(number) for text in texts for number in numbers_in(text)]
    missing = []
    for number in numbers:
        half_a_digit = 0.5 * 10.0 ** -len(number.partition(".")[2]) + 1e-9
        distances = (abs(factor * value - float(number)) for value in known for factor in (1, 100, 0.01))
        if min(distances, default=1.0) > half_a_digit:
            missing.append(number)
    return missing


CLAIMS = {
    claim["id"]: claim
    for claim in tomllib.loads((ROOT / "bench" / "figures.toml").read_text(encoding="utf-8"))["claim"]
}


def findings_of(claim_id: str) -> list[str]:
    places = CLAIMS[claim_id]["findings"]
    return [(FINDINGS / place.partition("#")[0]).read_text(encoding="utf-8") for place in places]


def test_every_figure_of_a_row_stands_in_its_findings() -> None:
    reached = {claim_id: numbers_in(claim["reached"]) for claim_id, claim in CLAIMS.items() if claim["findings"]}
    assert sum(map(len, reached.values())) > 350
    missing = {claim_id: missing_numbers(numbers, findings_of(claim_id)) for claim_id, numbers in reached.items()}
    assert {claim_id: numbers for claim_id, numbers in missing.items() if numbers} == {}


def paragraphs_with_rows() -> list[tuple[Path, str, list[str]]]:
    """(page, text, ids of the rows to which it links) of each paragraph, item of a list and row of a table."""
    found = []
    for page in (page for page in PAGES if page != FIGURES):
        for paragraph in re.split(r"\n\s*\n|\n(?=\|)|\n(?=\s*[-*] )", prose(page)):
            rows = [row for row in re.findall(r"benchmarks\.md#([\w-]+)\)", paragraph) if row in CLAIMS]
            if rows:
                found.append((page, " ".join(paragraph.split()), rows))
    return found


def test_every_figure_beside_a_link_to_a_row_stands_in_the_row_or_in_its_findings() -> None:
    """Of figures with a point: counts, minutes and years of the paragraph may be its own."""
    checked, missing = 0, []
    for page, text, rows in paragraphs_with_rows():
        stated = [number for number in numbers_in(NO_FIGURES.sub(" ", text)) if "." in number]
        checked += len(stated)
        known = [said for row in rows for said in (CLAIMS[row]["reached"], *findings_of(row))]
        missing += [f"{page.relative_to(ROOT)}: {number} in: {text}" for number in missing_numbers(stated, known)]
    assert checked > 80
    assert missing == []
