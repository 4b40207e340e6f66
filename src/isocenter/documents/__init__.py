"""Documents from records: reporting guidelines, cards and technical files, each value with the place where it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.documents.checks import (
        RECORD,
        SCHEMA,
        Broken,
        broken_rows,
        refuse_contradictions,
        refuse_planned_changes,
    )
    from isocenter.documents.facts import FACTS, QUESTIONS, Fact, facts_text, read_facts
    from isocenter.documents.guidelines import (
        STATES,
        Answer,
        Answered,
        Document,
        Guideline,
        Item,
        document_of,
        guideline,
        guideline_names,
    )
    from isocenter.documents.node import DATABASE, KINDS, file_record, node_record
    from isocenter.documents.pages import ROOTS, browser_path, card_xml, drafted, metrics_of, page_of, print_pages
    from isocenter.documents.subject import Evidence, Subject
    from isocenter.documents.tracing import REQUIREMENTS, TRACE, TRACE_SCHEMA, Trace, hazards, traced
    from isocenter.documents.word_file import write_word

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
