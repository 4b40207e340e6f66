"""What sites must have in common before one of them takes a step, and which of them differs in what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hilum import errors
from hilum.errors import DatasetError, IntegrityError
from hilum.federation.exchanges import Facts
from hilum.quality.dataset_examination import Examination

# Facts in which all sites must agree, and what to do where one does not.
ALIKE = {
    "version": "Install the same version of Hilum at all sites",
    "task": "Name the kind of problem by --task",
    "channels": "Give all sites the same images under the same names",
    "axes": "Give all sites images of as many axes",
    "unit": "Give all sites spacings in the same unit",
    "ranked": "State the order of the classes at all sites, or at none",
    "regions": "Declare the same structures at all sites",
    "classes": "Declare the same labels in the same order at all sites, in dataset.toml or by --labels",
}


@dataclass(frozen=True)
class Introduction:
    """What a site says of its data before anything else; no case, no count.

    classes:  {kind of reference: (value, name) of each label} that the data set declares, in their order
    found:    {kind of reference: names} of classes without an order, which are known by their names alone
    columns:  {role: column} of a table, such as "value:volume"
    unknown:  structures that none of its cases knows
    """

    version: str
    task: str
    channels: tuple[str, ...]
    axes: int
    unit: str
    modality: str
    ranked: bool
    patients_known: bool
    classes: Mapping[str, tuple[tuple[int, str], ...]] = field(default_factory=dict)
    found: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    @property
    def record(self) -> Facts:
        """What travels."""
        return asdict(self)


def introduce(examination: Examination, task: str) -> Introduction:
    """What the site of these cases says; task: the kind of problem that its references are of."""
    dataset = examination.dataset
    fingerprint = examination.fingerprint
    stated = {kind: tuple((one.value, one.name) for one in own) for kind, own in dataset.classes.items() if own}
    found = dict[str, tuple[str, ...]]()
    for kind in sorted(dataset.kinds):
        own = [*fingerprint.summaries(kind).values()]
        if not dataset.ranked and own and all(isinstance(one, str) for one in own):
            found[kind] = tuple(name for _, name in stated.pop(kind, ())) or tuple(fingerprint.counts(kind))
    kinds = {case.modality for case in fingerprint.cases}
    return Introduction(
        version("hilum"),
        task,
        tuple(sorted({name for case in fingerprint.cases for name in case.channels})),
        fingerprint.axes,
        fingerprint.unit,
        kinds.pop() if len(kinds) == 1 else dataset.modality,
        dataset.ranked,
        dataset.patients_known,
        stated,
        found,
        dict(dataset.regions),
        {role: column for role, column in dataset.columns.items() if role.startswith("value:")},
        tuple(name for name, count in dataset.knowing.items() if not count),
    )


_introduction = TypeAdapter(Introduction)


def read_introduction(record: Facts, site: str) -> Introduction:
    """What a site has sent; IntegrityError for anything else."""
    try:
        return _introduction.validate_python(record)
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"sent no introduction ({'.'.join(map(str, first['loc']))}: {first['msg']})"
        raise IntegrityError(problem, site, "Update Hilum there") from error


def agree(sites: Mapping[str, Introduction]) -> Introduction:
    """What all sites have in common; DatasetError names the site that differs, in what, and from whom.

    Labels with numbers or an order must be the same at all sites; names of other classes are joined, because a small
    site need not have all of them.
    """
    first, *others = sorted(sites)
    for site in others:
        for name, remedy in ALIKE.items():
            ours = getattr(sites[first], name)
            theirs = getattr(sites[site], name)
            if ours != theirs:
                problem = f"has {name} {_words(theirs)}, where {first} has {_words(ours)}"
                raise DatasetError(problem, site, remedy)
    if nowhere := set.intersection(*(set(one.unknown) for one in sites.values())):
        problem = f"no site knows {errors.list_phrase(sorted(nowhere))}"
        remedy = "Leave it out with --labels at all sites"
        raise DatasetError(problem, "federate", remedy)
    joined = {
        kind: _joined_names(kind, sites) for kind in sorted({name for one in sites.values() for name in one.found})
    }
    modalities = {one.modality for one in sites.values()}
    return replace(
        sites[first],
        classes={**sites[first].classes, **joined},
        patients_known=all(one.patients_known for one in sites.values()),
        modality=modalities.pop() if len(modalities) == 1 else "unknown",
        unknown=(),
    )


def _joined_names(kind: str, sites: Mapping[str, Introduction]) -> tuple[tuple[int, str], ...]:
    """The classes of all sites; DatasetError for a site that has none in common with the others."""
    names = {site: set(one.found.get(kind, ())) for site, one in sites.items()}
    for site, own in sorted(names.items()):
        rest = set[str]().union(*(one for other, one in names.items() if other != site))
        if rest and not own & rest:
            problem = f"has none of the classes that the others have: {_words(sorted(own))}, not {_words(sorted(rest))}"
            raise DatasetError(problem, site, "Give all sites the same names of classes")
    return tuple(enumerate(dict.fromkeys(name for site in sorted(sites) for name in sites[site].found.get(kind, ()))))


def _words(value: Any) -> str:
    """A value as a person reads it."""
    if isinstance(value, Mapping):
        return "; ".join(_words([name for _, name in own]) for own in value.values()) or "none"
    return (errors.list_phrase(value) if isinstance(value, tuple | list) else str(value)) or "none"
