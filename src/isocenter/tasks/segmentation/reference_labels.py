"""The labels of masks beside those of a model, before anything is scored: what either side lacks."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import partial

from isocenter.errors import DatasetError, IsocenterError, counted, listed
from isocenter.tasks.shared import label_values, own_values, plain_name, renumbered
from isocenter.values import Case, Image, Label, LazyMapping, label_voxels

MASK = "mask"
# The beginning of names for what the model was not taught.
OTHER = "other"


@dataclass(frozen=True)
class Held:
    """The values that the masks of a case hold.

    known:   {value: value of the model's label that means the same}
    named:   {value: name} of what the model does not know by this name
    strange: values without a meaning
    """

    where: str
    known: Mapping[int, int]
    named: Mapping[int, str]
    strange: AbstractSet[int]


def with_own_labels(
    cases: Sequence[Case], labels: Sequence[Label], structures: Mapping[str, tuple[int, ...]], silent: Collection[int]
) -> tuple[list[Case], list[str]]:
    """The cases with masks under the model's numbers, and sentences on what only one side names.

    labels, structures: of the model; {name: values} of what is scored
    silent: values that mean nothing in the model's masks: of the background, and of unknown voxels
    A mask that cannot be read, or contradicts the model, is left to whoever scores its case.
    Raises DatasetError where masks hold values that the model does not know, or nothing that it knows.
    """
    held = {case.id: own for case in cases if (own := _held(case, labels, silent)) is not None}
    used = {own for one in held.values() for own in one.known.values()}
    lacking = {name: values for name, values in structures.items() if not used & set(values)}
    _refuse_strange(held, labels, lacking)
    named = {value: name for one in held.values() for value, name in one.named.items()}
    if named and not used:
        names = [label.name for label in labels]
        problem = f"the references name {listed(sorted(set(named.values())))}, and the model knows {_table(labels)}"
        raise DatasetError(problem, next(iter(held.values())).where, _remedy(dict.fromkeys(named, ""), names))
    relabelled = [_with_own_labels(case, labels, structures) for case in cases]
    partial = [case for case in relabelled if case.known is not None and not case.known.issuperset(structures)]
    if partial and not any(case.known is None or case.known for case in relabelled):
        problem = f"no case knows any of {listed(structures)}"
        raise DatasetError(problem, relabelled[0].id, "Give cases in which one of them was drawn")
    return relabelled, [
        *_sentences(held, labels, lacking, named),
        *(_known_words(relabelled, structures) if partial else ()),
    ]


def _held(case: Case, labels: Sequence[Label], silent: Collection[int]) -> Held | None:
    values_known, named, strange, where = dict[int, int](), dict[int, str](), set[int](), case.id
    try:
        for kind in _kinds(case):
            mask: Image = case.references[kind]
            values_of = own_values(labels, mask.labels, case.id)
            values = {int(value) for value in label_voxels(label_values(mask.data, case.id))} - {0}
            declared = {one.value: one for one in mask.labels if not one.is_bare}
            unknown = values - values_of.keys() - declared.keys() - set(silent)
            values_known |= {value: values_of[value] for value in values & values_of.keys()}
            others = [declared[value] for value in values & declared.keys() - values_of.keys()]
            named |= {one.value: one.name for one in others if not (one.is_ignored or one.is_background)}
            where = mask.source.paths[0] if unknown and not strange and mask.source else where
            strange |= unknown
    except IsocenterError:
        return None
    return Held(where, values_known, named, strange)


def _refuse_strange(held: Mapping[str, Held], labels: Sequence[Label], lacking: Mapping[str, tuple[int, ...]]) -> None:
    odd = [one for one in held.values() if one.strange]
    if not odd:
        return
    strange = sorted(set().union(*(one.strange for one in odd)))
    known_values = {value: own for one in held.values() for value, own in one.known.items()}
    names = {label.value: label.name for label in labels}
    theirs = {**{value: names[own] for value, own in known_values.items()}, **dict.fromkeys(strange, "")}
    theirs |= {value: name for one in held.values() for value, name in one.named.items()}
    whose = f"the references of {len(odd)} of {counted(len(held), 'case')}"
    what = f"hold the {'value' if len(strange) == 1 else 'values'} {listed(strange)}, which the model does not know"
    none = f", and none holds {_listed(lacking)}" if lacking else ""
    problem = f"{whose} {what}{none}: the model has {_table(labels)}, the references {listed(sorted(theirs))}"
    free = [label.name for label in labels if label.value not in known_values.values()]
    raise DatasetError(problem, odd[0].where, _remedy(theirs, free))


def _remedy(theirs: Mapping[int, str], free: Iterable[str]) -> str:
    """Remedy that states what values mean, {value: name}, by an example: those without a name get one of `free`."""
    left = iter(free)
    names = {value: theirs[value] or next(left, f"{OTHER}{value}") for value in sorted(theirs)}
    text = shlex.quote(",".join(f"{value}={name}" for value, name in names.items()))
    return f"Say what the values mean, as in --labels {text} if that is so; what has another name is not scored"


def _sentences(
    held: Mapping[str, Held],
    labels: Sequence[Label],
    lacking: Mapping[str, tuple[int, ...]],
    named: Mapping[int, str],
) -> Sequence[str]:
    names = {label.value: label.name for label in labels}
    moved = {value: own for one in held.values() for value, own in one.known.items() if value != own}
    sentences = []
    if moved:
        pairs = [f"{value} is {names[own]} ({own} in the model)" for value, own in sorted(moved.items())]
        sentences.append(
            f"The references are numbered otherwise than the model, and matched by their names: {listed(pairs)}."
        )
    if named:
        others = listed(sorted(set(named.values())))
        sentences.append(f"Not scored, because the model was not taught them: {others}.")
    if lacking and held:
        sentences.append(
            f"No reference of {counted(len(held), 'case')} holds {_listed(lacking)}: figures of it only count what is "
            "marked wrongly. If the references have it under another number or name, say so with --labels."
        )
    return sentences


def _known_words(cases: Sequence[Case], structures: Iterable[str]) -> Iterator[str]:
    """The sentence on how many cases know each structure."""
    counts = {name: sum(case.knows(name) for case in cases) for name in structures}
    counted_names = ", ".join(f"{name} in {count}" for name, count in counts.items())
    yield f"A structure is scored only where it was drawn; of {counted(len(cases), 'case')} that is {counted_names}."


def _listed(structures: Mapping[str, tuple[int, ...]]) -> str:
    return listed(name if name == str(values[0]) else f"{values[0]} ({name})" for name, values in structures.items())


def _table(labels: Sequence[Label]) -> str:
    return listed(one.name if one.is_bare else f"{one.value} {one.name}" for one in labels)


def _with_own_labels(case: Case, labels: Sequence[Label], structures: Mapping[str, tuple[int, ...]]) -> Case:
    kinds = {kind: partial(_own, case, kind, tuple(labels)) for kind in _kinds(case)}
    others = {kind: partial(case.references.__getitem__, kind) for kind in case.references if kind not in kinds}
    structures_known = case.known if MASK not in case.references else _known(case, labels, structures)
    return replace(case, references=LazyMapping({**others, **kinds}), known=structures_known)


def _known(case: Case, labels: Sequence[Label], structures: Mapping[str, tuple[int, ...]]) -> frozenset[str] | None:
    """The structures of the model that a case knows, which calls them by its own names; None where it knows all."""
    if case.known is None:
        return None
    try:
        declared = case.references[MASK].labels
        values_of = own_values(labels, declared, case.id)
    except IsocenterError:  # whoever scores the case says what is wrong with it
        return case.known
    values = {label.name: values_of.get(label.value) for label in declared}
    values |= {name: values_of.get(int(name)) for name in case.known if name.isdecimal() and name not in values}
    called = {plain_name(name): name for name in structures}
    marks = {numbers[0]: name for name, numbers in structures.items()}
    names = (called.get(plain_name(name)) or marks.get(values.get(name) or 0) for name in case.known)
    return frozenset(name for name in names if name is not None)


def _own(case: Case, kind: str, labels: tuple[Label, ...]) -> Image:
    return renumbered(case.references[kind], labels, case.id)


def _kinds(case: Case) -> list[str]:
    """The masks of a case: its own, and those of further readers."""
    return [kind for kind in case.references if kind.partition(":")[0] == MASK]
