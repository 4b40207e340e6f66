"""Reports as single HTML files that load nothing from elsewhere."""

from __future__ import annotations

import base64
import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from isocenter.report import words
from isocenter.report.blocks import Link, Page, Table

SEVERITIES = ("error", "warning", "note")  # the worst first


def render(page: Page) -> str:
    """The page as HTML: no request leaves it, every text is escaped."""
    return environment().get_template("page.html.jinja").render(page=page, anchors=_anchors(page))


@cache
def environment() -> Environment:
    """Jinja with escaping on for every template and a refusal of names that do not exist."""
    made = Environment(
        loader=PackageLoader("isocenter.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {"sort_keys": False}  # in the order given
    made.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    made.filters.update(cell=words.cell_text, setting=words.setting_text, sentence=words.sentence)
    made.globals.update(words=words, is_link=_is_link, numeric=_numeric, worst_first=_worst_first)
    return made


def _anchors(page: Page) -> list[str]:
    """One address a section, unlike all others."""
    plain = [re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") for section in page.sections]
    return [f"s{place + 1}-{name}".rstrip("-") for place, name in enumerate(plain)]


def _is_link(value: object) -> bool:
    return isinstance(value, Link)


def _numeric(table: Table) -> list[bool]:
    """Which columns hold numbers, so that their digits stand under one another."""
    columns = zip(*table.rows, strict=True) if table.rows else [()] * len(table.columns)
    return [bool(cells) and all(isinstance(c, int | float | None) for c in cells) for cells in columns]


def _worst_first(problems: list) -> list:
    return sorted(problems, key=lambda problem: SEVERITIES.index(problem.severity))
