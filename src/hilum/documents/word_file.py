"""A page as a file of a word processor: the same sections, tables and pictures as in HTML."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docx import Document
from docx.document import Document as WordDocument
from docx.enum.section import WD_ORIENT
from docx.oxml import OxmlElement
from docx.shared import Cm, Emu, Pt

from hilum import errors
from hilum.report import Block, Figure, Paragraph, ReportPage, Table, wording


def write_word(page: ReportPage, path: Path) -> None:
    """Write the page as DOCX."""
    document = Document()
    sheet = document.sections[0]
    sheet.orientation = WD_ORIENT.LANDSCAPE
    sheet.page_width, sheet.page_height = Cm(29.7), Cm(21.0)
    sheet.left_margin = sheet.right_margin = sheet.top_margin = sheet.bottom_margin = Cm(1.8)
    document.styles["Normal"].font.size = Pt(9)
    document.add_heading(page.title, level=0)
    for text in (page.lead, page.verdict, *page.notes):
        if text:
            document.add_paragraph(errors.printable_text(text))
    width = int(sheet.page_width - sheet.left_margin - sheet.right_margin)
    for section in page.sections:
        document.add_heading(section.title, level=1)
        for block in section.blocks:
            _add_block(document, block, width)
    document.add_heading("Where this comes from", level=1)
    for name, value in page.facts.items():
        document.add_paragraph(errors.printable_text(f"{name}: {value}"))
    document.save(str(path))


def _add_block(document: WordDocument, block: Block, width: int) -> None:
    match block:
        case Paragraph():
            document.add_paragraph(errors.printable_text(block.text))
        case Table():
            _add_table(document, block, width)
        case Figure():
            wide = min(width, int(block.size[0] / 96 * 914400))  # 96 pixels an inch, in EMU
            document.add_picture(io.BytesIO(block.png), width=Emu(wide))
            document.add_paragraph(f"{block.title}. {block.caption}".strip())


def _add_table(document: WordDocument, block: Table, width: int) -> None:
    """A table whose first row stands again on each sheet."""
    table = document.add_table(rows=1, cols=len(block.columns), style="Table Grid")
    table.autofit = False
    shares = block.shares or (1 / len(block.columns),) * len(block.columns)
    for column, share in zip(table.columns, shares, strict=True):
        column.width = Emu(int(width * share))
    head = table.rows[0]
    head._tr.get_or_add_trPr().append(OxmlElement("w:tblHeader"))  # it stands again on each sheet
    _fill(head, block.columns, shares, width, bold=True)
    for row in block.rows:
        added = table.add_row()
        added._tr.get_or_add_trPr().append(OxmlElement("w:cantSplit"))
        _fill(added, row, shares, width)


def _fill(row: Any, texts: Sequence[Any], shares: Sequence[float], width: int, *, bold: bool = False) -> None:
    for cell, text, share in zip(row.cells, texts, shares, strict=True):
        cell.width = Emu(int(width * share))
        paragraph = cell.paragraphs[0]
        paragraph.paragraph_format.space_before = paragraph.paragraph_format.space_after = Pt(2)
        paragraph.add_run(errors.printable_text(wording.cell_text(text))).bold = bold
