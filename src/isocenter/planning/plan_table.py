"""A plan as a table for a terminal: name, value, reason; what is off is named in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import shorten, wrap

from isocenter.planning.plan_prose import in_words, is_silent, sentences_of, size_words
from isocenter.values import Decision, Plan, Sentence

# Columns of a terminal that is not wide.
WIDTH, VALUE = 118, 30
# Decisions whose value is a size of the grid.
SIZES = ("patch", "shape", "spacing", "smallest")


def overview(plan: Plan) -> str:
    """What would be trained in one line, then every section."""
    lines = [_headline(plan)]
    for section, decisions in plan.sections.items():
        lines += ["", section, *_rows(section, decisions, sentences_of(plan))]
    return "\n".join(lines)


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
            size_words(decision.value) if name in SIZES else in_words(decision.value), VALUE, placeholder=" ..."
        )
        yield from _wrapped(f"  {name:{width}}  {value:{VALUE}}  ", decision.because)
    if off:
        yield from _wrapped(f"  {'off':{width}}  ", ", ".join(off))


def _wrapped(lead: str, text: str) -> list[str]:
    """The text beside its lead, further lines under its beginning."""
    first, *rest = wrap(text, max(WIDTH - len(lead), 30)) or [""]
    return [f"{lead}{first}", *(" " * len(lead) + line for line in rest)]
