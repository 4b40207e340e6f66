"""Kinds of reference. A new kind is one file beside this one and its line in `REFERENCES`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from isocenter import plugins
from isocenter.values import Fingerprint, PlainValue, ReferenceKind

# In the order in which `check` speaks of them. Where two measure the same of a case, the later one is kept.
REFERENCES = {
    "class": "isocenter.quality.references.classes:CLASS",
    "findings": "isocenter.quality.references.findings:FINDINGS",
    "value": "isocenter.quality.references.values:VALUE",
    "text": "isocenter.quality.references.texts:TEXT",
    "event": "isocenter.quality.references.events:EVENT",
    "instances": "isocenter.quality.references.instances:INSTANCES",
    "boxes": "isocenter.quality.references.boxes:BOXES",
    "field": "isocenter.quality.references.fields:FIELD",
    "mask": "isocenter.quality.references.masks:MASK",
    "target": "isocenter.quality.references.targets:TARGET",
}


def reference_kinds() -> tuple[ReferenceKind, ...]:
    """Our kinds, then those that other packages add under the entry point `isocenter.references`."""
    targets = plugins.targets_of(REFERENCES, "isocenter.references")
    return tuple(_import_kind(target) for target in targets.values())


def kinds_by_names(names: Iterable[str]) -> list[ReferenceKind]:
    """The kinds of references with these names, in the index's order; then one with defaults for each other name."""
    names_wanted = list(names)
    kinds = [kind for kind in reference_kinds() if kind.name in names_wanted]
    others = set(names_wanted) - {kind.name for kind in kinds}
    return kinds + [ReferenceKind(name) for name in names_wanted if name in others]


def count_references(fingerprint: Fingerprint) -> dict[str, Mapping[str, PlainValue]]:
    """{kind: what a model's record keeps of its references}, of the kinds that these cases have; it names no case."""
    names = dict.fromkeys(name for case in fingerprint.cases for name in case.references)
    counted = {kind.name: kind.facts.counted(fingerprint) for kind in kinds_by_names(names)}
    return {name: own for name, own in counted.items() if own}


@cache  # a check asks for every kind several times a case
def _import_kind(target: str) -> ReferenceKind:
    kind: ReferenceKind = plugins.load_target(target)
    return kind
