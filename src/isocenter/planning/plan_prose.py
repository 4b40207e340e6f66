"""A plan for people: its reasons as prose, a paragraph a section, and its decisions as a table for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, singledispatch
from textwrap import shorten, wrap
from typing import Any, get_type_hints

from isocenter.objectives import objective_catalogue
from isocenter.planning import typed_sections
from isocenter.planning.typed_sections import TYPED
from isocenter.tasks import task_catalogue, task_settings
from isocenter.values import BY_HAND, MM, Decision, Plan, Sentence, plan_decisions

TITLES = {
    "task": "The task",
    "split": "Which cases train and which test",
    "preprocessing": "What the network sees",
    "tiles": "What a slide becomes",
    "network": "The network",
    "training": "How it learns",
    "objectives": "The objectives",
    "supervised": "The task's own loss",
    "augmentation": "How images are varied",
    "synthesis": "How images are drawn from label maps",
    "inference": "How it predicts",
    "evaluation": "How it is evaluated",
    "search": "What is searched before the training",
    "guard": "What it refuses",
    "transfer": "How it starts from other weights",
    "privacy": "How little it tells of a person",
    "federation": "How sites train together",
}

# Decisions whose value is a metric.
METRICS = ("training.selection", "evaluation.primary")
NAME = Sentence("The problem is {value}")
# Values that a sentence names one by one.
# A text of more letters is for programs, as weights are.
LONGEST_TEXT, LEGIBLE = 1000, 12
MOST_LISTED = 24
# Columns of a terminal that is not wide.
WIDTH, VALUE = 118, 30
# Decisions whose value is a size of the grid.
SIZES = ("patch", "shape", "spacing", "smallest")


def write_prose(plan: Plan) -> str:
    """Paragraphs of full sentences, one a section; decisions that are off are named at a section's end."""
    sentences = sentences_of(plan)
    return "\n\n".join(
        f"{_title(section)}. {_paragraph(section, plan.sections[section], sentences)}"
        for section in (*TITLES, *sorted(set(plan.sections) - set(TITLES)))
        if plan.sections.get(section)
    )


def section_paragraphs(plan: Plan, names: Collection[str]) -> dict[str, str]:
    """{title of a section: sentences on those of its decisions that are named}, without those that are off."""
    sentences, texts = sentences_of(plan), dict[str, str]()
    for section, decisions in plan.sections.items():
        named = {
            name: decision
            for name, decision in decisions.items()
            if f"{section}.{name}" in names and not is_silent(decision, sentences.get(f"{section}.{name}"))
        }
        if named:
            texts[_title(section)] = _paragraph(section, named, sentences)
    return texts


def _title(section: str) -> str:
    usual = f"The objective {_words(section)}" if section in objective_catalogue.objective_names() else section
    return TITLES.get(section, usual)


def sentences_of(plan: Plan) -> dict[str, Sentence]:
    """{"section.name": sentence}, those of the section "task" by the plan's kind of problem.

    `only_with` stays where none of those decisions is on, so that the sentence has no effect.
    """
    sentences = _sentences_of(plan)
    partners = {name: [other for other in one.only_with if other in plan] for name, one in sentences.items()}
    on = [
        name for name, others in partners.items() if any(not is_off(plan[other], sentences[other]) for other in others)
    ]
    # A task may lack the decision that would say so.
    on += [name for name, others in partners.items() if not others]
    return {**sentences, **{name: replace(sentences[name], only_with=()) for name in on}}


def _sentences_of(plan: Plan) -> dict[str, Sentence]:
    if "task.name" not in plan:
        return dict(_of_fields())
    task = task_catalogue.task_class(plan["task.name"])
    metrics = {name: task.metrics.metric_named(str(plan[name])).words for name in METRICS if name in plan}
    usual = _of_fields()
    named = {name: replace(usual[name], text=usual[name].text.format(value=metrics[name])) for name in metrics}
    spoken = {f"task.{name}": sentence for name, sentence in task_settings.setting_sentences(task).items()}
    sentences = {**usual, **named, **spoken}
    if not plan.is_of_pictures:
        return sentences
    return {
        name: replace(
            one, text=plan_decisions.voxels_as_pixels(one.text), without=plan_decisions.voxels_as_pixels(one.without)
        )
        for name, one in sentences.items()
    }


@cache
def _of_fields() -> Mapping[str, Sentence]:
    """The sentences that fields of the sections state, {"section.name": sentence}."""
    hints = {section: get_type_hints(one, include_extras=True) for section, one in TYPED.items()}
    sentences = {
        f"{section}.{name}": note
        for section, own in hints.items()
        for name, hint in own.items()
        for note in getattr(hint, "__metadata__", ())
        if isinstance(note, Sentence)
    }
    return {"task.name": NAME, **sentences}


def _paragraph(section: str, decisions: Mapping[str, Decision], sentences: Mapping[str, Sentence]) -> str:
    texts, off, idle = [], [], []
    unit = decisions["unit"].value if "unit" in decisions else MM
    for name, decision in decisions.items():
        part, _, setting = name.rpartition(".")
        sentence = sentences.get(f"{section}.{name}", Sentence(f"{_words(setting).capitalize()} is {{value}}"))
        if is_off(decision.value, sentence) and (is_silent(decision, sentence) or not sentence.without):
            off.append(_words(name))
        elif is_silent(decision, sentence):
            idle.append(_words(name))
        else:
            text = _state_decision(sentence, decision, unit)
            texts.append(f"{part.capitalize()}: {text[0].lower()}{text[1:]}" if part else text)
    if off:
        texts.append(f"Off or not set: {', '.join(off)}.")
    if idle:
        texts.append(f"Without effect here: {', '.join(idle)}.")
    return " ".join(texts)


def _state_decision(sentence: Sentence, decision: Decision, unit: str) -> str:
    value = decision.value
    text = sentence.without if is_off(value, sentence) else sentence.text
    text = sentence.open if value == "auto" and sentence.open else text
    lead = text.format(
        value=words_of_value(value),
        size=size_words(value),
        percent=_percent(value),
        each=_mapping_words(value),
        unit=unit,
    )
    source = f" ({decision.source})" if decision.source else ""
    return f"{lead[0].upper()}{lead[1:]}{_reason(decision.because)}{source}."


def _reason(because: str) -> str:
    because = because.strip().rstrip(".")
    if not because:
        return ""
    if because[0].isdigit():  # figures speak for themselves
        return f": {because}"
    return f", as {because}" if because.startswith((BY_HAND, "asked for")) else f", because {because}"


def is_silent(decision: Decision, sentence: Sentence | None) -> bool:
    """Whether a decision is off by the plan, or has no effect, and its reason is not worth reading."""
    if decision.because == BY_HAND:
        return False
    if sentence is not None and sentence.only_with:
        return True
    return is_off(decision.value, sentence) and not (sentence is not None and sentence.always)


def is_off(value: Any, sentence: Sentence | None) -> bool:
    """Whether a decision with this value, and this sentence where it has one, says none, off or no."""
    if value is None or (sentence is not None and sentence.zero_counts):
        return value is None
    return value is False or value in (0, [], ()) or value in ("none", "natural")


def _words(name: str) -> str:
    return name.replace("_", " ")


@singledispatch
def words_of_value(value: Any) -> str:
    """A value as a person would write it."""
    return str(value)


@words_of_value.register
def _(value: str) -> str:
    return value if len(value) <= LONGEST_TEXT else f"{value[:LEGIBLE]}..."


@words_of_value.register
def _(value: None) -> str:
    return "none"


@words_of_value.register
def _(value: bool) -> str:
    return "yes" if value else "no"


@words_of_value.register
def _(value: float) -> str:
    return f"{value:g}"


@words_of_value.register(Mapping)
def _(value: Mapping[str, Any]) -> str:
    named = value.get("name", value.get("method"))
    if len(value) > MOST_LISTED and all(isinstance(one, Mapping) for one in value.values()):
        return f"{len(value)} from {next(iter(value))} to {[*value][-1]}"
    return str(named) if named else ", ".join(f"{_words(key)} {words_of_value(one)}" for key, one in value.items())


@words_of_value.register(Sequence)
def _(value: Sequence[Any]) -> str:
    if not value:
        return "none"
    return ", ".join(dict.fromkeys(words_of_value(one) for one in value)) if _is_named(value) else _list_values(value)


def _is_named(values: Sequence[Any]) -> bool:
    return all(isinstance(one, Mapping | str) for one in values)


def _list_values(values: Sequence[Any]) -> str:
    if len(values) > MOST_LISTED:
        return f"{len(values)} from {words_of_value(values[0])} to {words_of_value(values[-1])}"
    return (
        f"({', '.join(words_of_value(one) for one in values)})"
        if len(values) > 1
        else words_of_value(values[0])
        if values
        else "none"
    )


def _mapping_words(value: Any) -> str:
    """ "2 for anterior, 2 for posterior": a name may be a number too, and then "1 2" says nothing."""
    if isinstance(value, Mapping) and value:
        return ", ".join(f"{words_of_value(one)} for {key}" for key, one in value.items())
    return words_of_value(value)


def size_words(value: Any) -> str:
    """Voxels or mm per axis: "40 x 56 x 40"."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return words_of_value(value)
    return " x ".join(words_of_value(one) for one in value)


def _percent(value: Any) -> str:
    return f"{100 * value:g} %" if isinstance(value, int | float) else words_of_value(value)


def plan_overview(plan: Plan, *, whole: bool = False) -> str:
    """The plan as text: what would be trained in one line, then its sections.

    whole: with the decisions that have their defaults and whose reasons say nothing of these data
    """
    lines, sentences = [_headline(plan)], sentences_of(plan)
    usual = {
        name
        for name, _ in plan
        if not whole and typed_sections.is_default(plan, name) and not _is_always(sentences.get(name))
    }
    for section, decisions in plan.sections.items():
        unusual = {name: one for name, one in decisions.items() if f"{section}.{name}" not in usual}
        lines += ["", section, *_rows(section, unusual, sentences)] if unusual else []
    if usual:
        lines += ["", f"{len(usual)} more decisions have their defaults: --all-decisions lists them."]
    return "\n".join(lines)


def _is_always(sentence: Sentence | None) -> bool:
    return sentence is not None and sentence.always


def _headline(plan: Plan) -> str:
    patch = size_words(plan["training.patch"])
    return (
        f"{plan['task.name']} with {plan['network.name']} in {plan['preprocessing.ndim']}D, patch {patch}, batch "
        f"{plan['training.batch']}, {plan['training.precision']} on {plan['training.device']}, "
        f"at most about {plan['training.memory']:.2f} GiB of memory"
    )


def _rows(section: str, decisions: Mapping[str, Decision], sentences: Mapping[str, Sentence]) -> Iterator[str]:
    off = [name for name, one in decisions.items() if is_silent(one, sentences.get(f"{section}.{name}"))]
    shown = {name: one for name, one in decisions.items() if name not in off}
    width = max((len(name) for name in (*shown, "off")), default=0)
    for name, decision in shown.items():
        value = shorten(
            size_words(decision.value) if name in SIZES else words_of_value(decision.value), VALUE, placeholder=" ..."
        )
        yield from _wrap(f"  {name:{width}}  {value:{VALUE}}  ", decision.because)
    if off:
        yield from _wrap(f"  {'off':{width}}  ", ", ".join(off))


def _wrap(lead: str, text: str) -> list[str]:
    """The text beside its lead, further lines under its beginning."""
    first, *rest = wrap(text, max(WIDTH - len(lead), 30)) or [""]
    return [f"{lead}{first}", *(" " * len(lead) + line for line in rest)]
