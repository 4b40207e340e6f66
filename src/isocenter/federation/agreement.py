"""What sites must have in common before one of them takes a step, and which of them differs in what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter, ValidationError

from isocenter import errors
from isocenter.errors import DatasetError, IntegrityError
from isocenter.quality.dataset_examination import Examination
from isocenter.values import Dataset, Label

# Facts in which all sites must agree, and what to do where one does not.
ALIKE = {
    "version": "Install the same version of Isocenter at all sites",
    "task": "Name the kind of problem by --task",
    "channels": "Give all sites the same images under the same names",
    "axes": "Give all sites images of as many axes",
    "unit": "Give all sites spacings in the same unit",
    "ranked": "State the order of the classes at all sites, or at none",
    "regions": "Declare the same structures at all sites",
}


@dataclass(frozen=True)
class Introduction:
    """What a site says of its data before anything else; no case, no count.

    classes:  {kind of reference: (value, name) of each label}, in their order
    declared: kinds whose labels the data set itself declares
    columns:  {role: column} of a table, such as "value:volume"
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
    declared: tuple[str, ...] = ()
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def record(self) -> dict[str, Any]:
        """What travels."""
        return asdict(self)


def introduce(examination: Examination, task: str) -> Introduction:
    """What the site of these cases says; task: the kind of problem that its references are of."""
    dataset, fingerprint = examination.dataset, examination.fingerprint
    found = {
        kind: tuple((number, name) for number, name in enumerate(sorted(fingerprint.counts(kind))))
        for kind in sorted(dataset.kinds)
        if any(isinstance(one, str) for one in fingerprint.summaries(kind).values())
    }
    stated = {kind: _labels(own) for kind, own in dataset.classes.items() if own}
    return Introduction(
        version("isocenter"),
        task,
        tuple(sorted({name for case in fingerprint.cases for name in case.channels})),
        fingerprint.axes,
        fingerprint.unit,
        _modality(dataset, examination),
        dataset.ranked,
        dataset.patients_known,
        {**found, **stated},
        tuple(sorted(stated)),
        dict(dataset.regions),
        {role: column for role, column in dataset.columns.items() if role.startswith("value:")},
    )


def _labels(labels: tuple[Label, ...]) -> tuple[tuple[int, str], ...]:
    return tuple((one.value, one.name) for one in labels)


def _modality(dataset: Dataset, examination: Examination) -> str:
    kinds = {case.modality for case in examination.fingerprint.cases}
    return kinds.pop() if len(kinds) == 1 else dataset.modality


_introduction = TypeAdapter(Introduction)


def read_introduction(record: Mapping[str, Any], site: str) -> Introduction:
    """What a site has sent; IntegrityError for anything else."""
    try:
        return _introduction.validate_python(record)
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"sent no introduction ({'.'.join(map(str, first['loc']))}: {first['msg']})"
        raise IntegrityError(problem, site, "Update Isocenter there") from error


def agree(sites: Mapping[str, Introduction]) -> Introduction:
    """What all sites have in common; DatasetError names the site that differs, in what, and from whom.

    Labels that a data set declares must be the same in the same order; those that are only found in cases are joined,
    because a small site need not have all of them.
    """
    first, *others = sorted(sites)
    for site in others:
        for name, remedy in ALIKE.items():
            ours, theirs = getattr(sites[first], name), getattr(sites[site], name)
            if ours != theirs:
                problem = f"has {name} {_words(theirs)}, where {first} has {_words(ours)}"
                raise DatasetError(problem, site, remedy)
    kinds = sorted({kind for one in sites.values() for kind in one.classes})
    classes = {kind: _agreed_labels(kind, sites) for kind in kinds}
    joint = asdict(sites[first]) | {"patients_known": all(one.patients_known for one in sites.values())}
    modalities = {one.modality for one in sites.values()}
    modality = modalities.pop() if len(modalities) == 1 else "unknown"
    return Introduction(**{**joint, "classes": classes, "modality": modality})


def _agreed_labels(kind: str, sites: Mapping[str, Introduction]) -> tuple[tuple[int, str], ...]:
    """The labels of a kind of reference, declared or joined."""
    stated = {site: one.classes.get(kind, ()) for site, one in sites.items()}
    declaring = sorted(site for site, one in sites.items() if kind in one.declared)
    remedy = f"Declare the same labels in the same order at all sites, as {kind}s of dataset.toml or by --labels"
    if declaring:
        first = declaring[0]
        for site in sorted(sites):
            if stated[site] != stated[first] and (site in declaring or not _known(stated[site], stated[first])):
                problem = f"has the labels {_words(stated[site])}, where {first} has {_words(stated[first])}"
                raise DatasetError(problem, site, remedy)
        return stated[first]
    names = {site: {name for _, name in own} for site, own in stated.items()}
    for site, own in sorted(names.items()):
        rest = set[str]().union(*(one for other, one in names.items() if other != site))
        if rest and own and not own & rest:
            problem = f"has none of the classes that the others have: {_words(sorted(own))}, not {_words(sorted(rest))}"
            raise DatasetError(problem, site, "Give all sites the same names of classes")
    return tuple(enumerate(sorted(set[str]().union(*names.values()))))


def _known(found: tuple[tuple[int, str], ...], declared: tuple[tuple[int, str], ...]) -> bool:
    """Whether all found names are declared elsewhere."""
    return {name for _, name in found} <= {name for _, name in declared}


def _words(value: Any) -> str:
    """A value as a person reads it."""
    if isinstance(value, tuple | list):
        names = [one[-1] if isinstance(one, tuple | list) else one for one in value]
        return errors.list_phrase([str(one) for one in names]) if names else "none"
    return str(value) or "none"
