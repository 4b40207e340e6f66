"""Kinds of reference. A new kind is one file beside this one and its line in `REFERENCES`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from hilum import plugins
from hilum.values import Fingerprint, PlainValue, ReferenceKind

# In the order in which `check` speaks of them. Where two measure the same of a case, the later one is kept.
REFERENCES = {
    "class": "hilum.quality.references.classes:CLASS",
    "findings": "hilum.quality.references.findings:FINDINGS",
    "value": "hilum.quality.references.values:VALUE",
    "text": "hilum.quality.references.texts:TEXT",
    "event": "hilum.quality.references.events:EVENT",
    "instances": "hilum.quality.references.instances:INSTANCES",
    "boxes": "hilum.quality.references.boxes:BOXES",
    "field": "hilum.quality.references.fields:FIELD",
    "mask": "hilum.quality.references.masks:MASK",
    "target": "hilum.quality.references.targets:TARGET",
}


def reference_kinds() -> tuple[ReferenceKind, ...]:
    """Our kinds, then those that other packages add under the entry point `hilum.references`."""
    targets = plugins.targets_of(REFERENCES, "hilum.references")
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
