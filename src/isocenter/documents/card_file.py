"""A document as XML of another schema: each item at the path of its `element`, in the order of the list."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from isocenter.documents.answers import Answer, Answered, Document
from isocenter.documents.pages import answer_text, is_figure
from isocenter.errors import printable
from isocenter.evaluation import Metrics

# The namespace and the root element of a list that has elements.
ROOTS: Mapping[str, tuple[str, str]] = {"chai": ("https://mc.chai.org/v0.2/schema.xsd", "AppliedModelCard")}


def card_xml(document: Document, metrics: Metrics) -> str:
    """The XML; an optional element that is missing is left out, a required one says that it is not stated."""
    namespace, name = ROOTS[document.guideline.name]
    root = Element(name, xmlns=namespace)
    for one in document.answered:
        *path, last = one.item.element.removesuffix("?").split("/")
        if one.state == "missing" and one.item.element.endswith("?"):
            continue
        parent = root
        for step in path:
            found = parent.find(step)
            parent = SubElement(parent, step) if found is None else found
        if last == "Results":
            _add_results(SubElement(parent, last), one)
            continue
        texts = [answer_text(answer, metrics) for answer in _known(one)]
        if texts and one.state == "missing":
            texts.append("The rest is not stated.")
        if last == "Keyword":
            texts = [str(answer.value) for answer in _known(one)]
        for text in texts if last == "Keyword" else [" ".join(texts) or "Not stated."]:
            SubElement(parent, last).text = printable(text)
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _known(answered: Answered) -> Sequence[Answer]:
    return [one for one in answered.answers if one.state in ("measured", "stated")]


def _add_results(parent: Element, answered: Answered) -> None:
    """A result for each answer; the schema asks for one at least."""
    results: list[tuple[str, Any]] = [(_label(one), one.value) for one in _known(answered)]
    for label, value in results or [("Not stated", None)]:
        result = SubElement(parent, "MetricResult")
        SubElement(result, "Label").text = printable(label)
        SubElement(result, "ValueJson").text = json.dumps(value, ensure_ascii=False)


def _label(answer: Answer) -> str:
    """ "auroc, PNEUMONIA"; of a row of another table its group, or its place."""
    if is_figure(answer.value):
        return ", ".join(str(answer.value[key]) for key in ("metric", "label"))
    if isinstance(answer.value, Mapping) and "group" in answer.value:
        return f"{answer.value.get('attribute', 'group')}: {answer.value['group']}"
    return answer.pointer
