"""Cases that stand for those of a site in planning: groups of like cases, each with the median of their facts.

Microaggregation: Domingo-Ferrer and Mateo-Sanz, IEEE Trans Knowl Data Eng 2002, doi:10.1109/69.979982
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from hilum.errors import IntegrityError
from hilum.federation.agreement import Introduction
from hilum.federation.exchanges import Facts
from hilum.quality.dataset_examination import Examination
from hilum.values import Case, CaseFacts, Dataset, Fingerprint, Image, Label
from hilum.values.dataset_cases import LazyMapping

PAIRS = "pairs"
SERIES = "series"


@dataclass(frozen=True)
class StandIn:
    """A group of like cases. facts: their medians; size: how many; known: structures that somebody contoured."""

    facts: CaseFacts
    size: int
    known: tuple[str, ...] | None = None

    @property
    def record(self) -> Facts:
        """What travels: no name, no date."""
        facts = {one.name: _encode(getattr(self.facts, one.name)) for one in fields(CaseFacts) if one.name != "id"}
        return {"facts": facts, "size": self.size, "known": None if self.known is None else list(self.known)}


def stand_ins_of(
    cases: Sequence[CaseFacts], known: Mapping[str, frozenset[str] | None], kinds: Collection[str], least: int
) -> list[StandIn]:
    """The stand-ins of a site's training cases, each of at least so many; fewer alike cases send none.

    known: {case id: structures that somebody contoured in it}
    kinds: of reference that the model learns, all else stays
    """
    strata = defaultdict[tuple[Any, ...], list[CaseFacts]](list)
    for one in cases:
        asked = {kind: value for kind, value in one.references.items() if kind in kinds}
        strata[_stratum(one, asked, known.get(one.id))].append(replace(one, references=asked))
    groups = [(key[-1], group) for key, own in strata.items() for group in group_cases(own, least)]
    return [StandIn(_merge(group), len(group), contoured) for contoured, group in groups]


def _stratum(one: CaseFacts, asked: Mapping[str, Any], known: frozenset[str] | None) -> tuple[Any, ...]:
    """What a group has in common: never across classes, kinds of image or structures that are known."""
    classes = tuple(sorted((kind, value) for kind, value in asked.items() if isinstance(value, str)))
    contoured = None if known is None else tuple(sorted(known))
    grid = (one.modality, one.channels, len(one.shape), one.physical, one.oriented, one.unit)
    return (*grid, tuple(sorted(asked)), classes, contoured)


def group_cases(cases: Sequence[CaseFacts], least: int) -> list[list[CaseFacts]]:
    """Groups of at least so many: around the case that is farthest from the middle its nearest ones, and so on.

    Fewer than twice as many are one group, and fewer than `least` none.
    """
    rest = np.arange(len(cases))
    groups = list[list[CaseFacts]]()
    places = _places(cases)
    while len(rest) >= 2 * least:
        middle = places[rest].mean(axis=0)
        farthest = rest[np.argmax(np.square(places[rest] - middle).sum(axis=1))]
        nearest = rest[np.argsort(np.square(places[rest] - places[farthest]).sum(axis=1), kind="stable")[:least]]
        groups.append([cases[number] for number in sorted(nearest.tolist())])
        rest = np.setdiff1d(rest, nearest)
    return [*groups, [cases[number] for number in rest.tolist()]] if len(rest) >= least else groups


def _places(cases: Sequence[CaseFacts]) -> np.ndarray:
    """(cases, facts) sizes, spacings and greys, each with the spread 1."""
    rows = [
        [*np.log(one.shape), *np.log(one.steps), *(grey for each in one.intensity for _, grey in sorted(each.items()))]
        for one in cases
    ]
    table = np.nan_to_num(np.array(rows, dtype=np.float64).reshape(len(cases), -1))
    return (table - table.mean(axis=0)) / np.maximum(table.std(axis=0), 1e-9) if len(cases) else table


def _merge(group: Sequence[CaseFacts]) -> CaseFacts:
    """The facts of a group: the median of every number."""
    names = [one.name for one in fields(CaseFacts) if one.name != "id"]
    return CaseFacts("", **{name: _middle([getattr(one, name) for one in group]) for name in names})


def _middle(values: Sequence[Any]) -> Any:
    """The median of numbers, also of those in lists and by name; of all else what most have."""
    if len(values) == 1:
        return values[0]
    if all(isinstance(one, Mapping) for one in values):
        names = dict.fromkeys(name for one in values for name in one)
        is_counted = all(isinstance(one, int) for each in values for one in each.values())
        blank = dict.fromkeys(names, 0) if is_counted else {}
        with_all = [{**blank, **one} for one in values]
        return {name: _middle([one[name] for one in with_all if name in one]) for name in names}
    if all(isinstance(one, tuple | list) for one in values) and len({len(one) for one in values}) == 1:
        return type(values[0])(_middle(each) for each in zip(*values, strict=True))
    is_number = all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)
    if not is_number:
        return _most_common(values)
    middle = float(np.median(np.array(values, dtype=np.float64)))
    return round(middle) if all(isinstance(one, int) for one in values) else middle


def _most_common(values: Sequence[Any]) -> Any:
    counted = Counter(map(repr, values))
    return min(values, key=lambda one: (-counted[repr(one)], repr(one)))


def _encode(value: Any) -> Any:
    """Plain JSON that keeps numbers as names, and tuples."""
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, Mapping):
        return {PAIRS: [[_encode(name), _encode(one)] for name, one in value.items()]}
    return {SERIES: [_encode(one) for one in value]} if isinstance(value, tuple | list) else value


def _decode(value: Any) -> Any:
    if isinstance(value, dict) and PAIRS in value:
        return {_decode(name): _decode(one) for name, one in value[PAIRS]}
    return tuple(_decode(one) for one in value[SERIES]) if isinstance(value, dict) else value


_facts = TypeAdapter(CaseFacts)


def read_stand_ins(records: Sequence[Facts], site: str) -> list[StandIn]:
    """The stand-ins that a site has sent; IntegrityError for what are none."""
    try:
        found = list[StandIn]()
        for number, one in enumerate(records):
            facts = {name: _decode(value) for name, value in one["facts"].items()}
            known = None if one["known"] is None else tuple(map(str, one["known"]))
            stand_in = StandIn(_facts.validate_python({**facts, "id": f"{site}/{number}"}), int(one["size"]), known)
            found.append(stand_in)
        return found
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise IntegrityError(f"sent what are no facts of cases ({error})", site, "Update Hilum there") from error


def examination_of(sites: Mapping[str, Sequence[StandIn]], agreed: Introduction) -> Examination:
    """The examination that planning goes by: each stand-in as often as it has cases, all of which train."""
    cases = list[Case]()
    facts = list[CaseFacts]()
    for site in sorted(sites):
        for one in sites[site]:
            for _ in range(one.size):
                name = f"{site}/{len(cases)}"
                images = {channel: partial(_no_image, name) for channel in one.facts.channels}
                known = None if one.known is None else frozenset(one.known)
                cases.append(
                    Case(name, name, LazyMapping[Image](images), references=dict(one.facts.references), known=known)
                )
                facts.append(replace(one.facts, id=name))
    classes = {kind: tuple(Label(value, name) for value, name in own) for kind, own in agreed.classes.items()}
    dataset = Dataset(
        tuple(cases),
        name="sites",
        classes=classes,
        columns=dict(agreed.columns),
        regions={name: tuple(values) for name, values in agreed.regions.items()},
        modality=agreed.modality,
        patients_known=agreed.patients_known,
        ranked=agreed.ranked,
    )
    return Examination(dataset, Fingerprint(tuple(facts)), ())


def _no_image(name: str) -> Image:
    raise IntegrityError("stands for cases whose images stay where they are", name, "Plan by facts alone")
