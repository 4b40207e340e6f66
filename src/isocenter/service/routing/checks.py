"""Refusals of rules that could never take a series: they would be silent for ever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from isocenter.errors import UsageError
from isocenter.lazy import pydicom
from isocenter.service.routing.facts import GEOMETRY
from isocenter.service.routing.models import ModelFacts
from isocenter.service.settings import Rule


def check_rules(rules: Sequence[Rule], models: Mapping[str, ModelFacts]) -> None:
    """Refuse words that a series, a model or an answer does not have, and rules that wait for each other.

    Raises UsageError, with the words that there are.
    """
    answering = {rule.name: models[rule.model] for rule in rules}
    for rule in rules:
        _check_conditions(rule, answering[rule.name])
        _check_answers(rule, answering)
    _check_order(rules)


def _check_conditions(rule: Rule, model: ModelFacts) -> None:
    """Words of the rule that are neither in a series nor images of its model."""
    where = _place(rule.name)
    for key in [*rule.when, *rule.unless, *(key for wishes in rule.series.values() for key in wishes)]:
        if key not in (*GEOMETRY, "localizer") and pydicom.datadict.tag_for_keyword(key) is None:
            known = f"Give a DICOM keyword, or one of {', '.join(GEOMETRY)}, localizer"
            raise UsageError(f"{key!r} is neither a DICOM keyword nor a fact of geometry", where, known)
    if rule.series and set(rule.series) != set(model.roles):
        given, needed = (", ".join(sorted(names)) for names in (rule.series, model.roles))
        raise UsageError(f"series has {given}, and the model's images are {needed}", where, "Name each of them once")


def _check_answers(rule: Rule, answering: Mapping[str, ModelFacts]) -> None:
    """Labels and findings that the answers of the other rule never have. answering: {rule: its model}"""
    if (inside := rule.inside) is not None:
        labels = tuple(answering[inside.rule].labels)
        lacking = f"inside needs a label map, and the answers of {inside.rule!r} are none"
        remedy = "Name a rule whose model segments structures"
        _check_word(rule, ("inside.label", inside.label), ("labels", inside.rule, labels), lacking, remedy)
    if (asked := rule.only_if) is not None:
        findings = tuple(answering[asked.rule].findings)
        lacking = f"only_if needs a probability, and the answers of {asked.rule!r} state none"
        remedy = "Name a rule whose model states probabilities"
        _check_word(rule, ("only_if.finding", asked.finding), ("findings", asked.rule, findings), lacking, remedy)


def _check_word(
    rule: Rule, stated: tuple[str, str], known: tuple[str, str, Sequence[str]], lacking: str, remedy: str
) -> None:
    """stated: a key of the rule and its word; known: what the words are, of which rule, and they themselves."""
    (key, word), (what, other, words) = stated, known
    if word in words:
        return
    if not words:
        raise UsageError(lacking, _place(rule.name), remedy)
    problem = f"{key} is {word!r}, and the {what} of {other!r} are {', '.join(words)}"
    raise UsageError(problem, _place(rule.name), "Name one of them")


def _check_order(rules: Sequence[Rule]) -> None:
    """Rules that wait for each other, so that none of them is ever the first."""
    waits = {rule.name: [one.rule for one in (rule.inside, rule.only_if) if one is not None] for rule in rules}
    try:
        TopologicalSorter(waits).prepare()
    except CycleError as error:
        circle = [repr(name) for name in reversed(error.args[1])]
        remedy = "Let one of them wait for none of the others"
        raise UsageError(f"waits for itself: {' waits for '.join(circle)}", f"rule {circle[0]}", remedy) from error


def _place(rule: str) -> str:
    return f"rule {rule!r}"
