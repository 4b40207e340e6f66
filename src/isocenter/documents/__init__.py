"""Documents from records: reporting guidelines, cards and technical files, each value with the place where it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.documents.answers import STATES, Answer, Answered, Document, document_of
    from isocenter.documents.card_file import ROOTS, card_xml
    from isocenter.documents.contradictions import refuse_contradictions, refuse_planned_changes
    from isocenter.documents.drafting import drafted
    from isocenter.documents.facts import FACTS, QUESTIONS, Fact, facts_text, read_facts
    from isocenter.documents.guidelines import Guideline, Item, guideline, guideline_names
    from isocenter.documents.node import DATABASE, KINDS, file_record, node_record
    from isocenter.documents.pages import metrics_of, page_of
    from isocenter.documents.printing import browser_path, print_pages
    from isocenter.documents.subject import Evidence, Subject
    from isocenter.documents.tracing import REQUIREMENTS, TRACE, TRACE_SCHEMA, Trace, hazards, traced
    from isocenter.documents.verification import RECORD, SCHEMA, Broken, broken_rows
    from isocenter.documents.word_file import write_word

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
