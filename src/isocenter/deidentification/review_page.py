"""The page of what may be text: a picture of each file, for a person's eyes alone."""

from __future__ import annotations

from collections.abc import Mapping

from isocenter import errors
from isocenter.deidentification.burned_in_text import HiddenPlaces
from isocenter.report import Figure, ReportPage, Section, page_blocks

LEAD = (
    "These files are not handed on yet. In a yellow frame is what may be text; it becomes black, as what is black "
    "already. Where more than this says who somebody is, leave the file out. Else give the command again, with "
    "--accept-review."
)


def describe(hidden: HiddenPlaces) -> str:
    """Why a person has to look."""
    return f"{errors.count_phrase(len(hidden.unsure), 'place')} may be text"


def render(pictures: Mapping[str, bytes]) -> str:
    """The page. pictures: {file: PNG}"""
    shown = [Figure(source, png, f"{source} with what may be text", wide=True) for source, png in pictures.items()]
    page = ReportPage("To be looked at", sections=[Section("Files", shown)], lead=LEAD)
    return page_blocks.render_page(page)
