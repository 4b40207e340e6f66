"""The space of a search: for single decisions of a plan other values, around the planned one.

A knob is one thing that a search turns: a decision, or several that only make sense together, such as the strengths of
all augmentation. What a person has set by hand is no knob. A kind of problem adds the values of its own
settings (`Setting(search=...)`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from pydantic import TypeAdapter

from hilum.errors import PlanError, ResourceError
from hilum.networks import factory, network_family
from hilum.networks.network_family import NetworkSize
from hilum.planning import _fit_to_memory, plan_changes, plan_checks, typed_sections
from hilum.planning.rules import preprocessing_rules
from hilum.planning.training_memory import Machine
from hilum.tasks import task_catalogue, task_settings
from hilum.values import BY_HAND, Assignments, Decision, Fingerprint, PlainValue, Plan, StatedSettings

# The strengths that say how far images are varied; what befalls them rarely, and mirroring, is not of one kind.
STRENGTHS = (
    *("rotation", "scale", "shift", "elastic", "contrast", "brightness", "gamma", "noise", "blur", "low_resolution"),
    *("bias_field", "dose_noise", "cutout", "shear", "sharpen", "equalise"),
)
# Of a strength that is a share of something.
MOST_STRENGTH = {"scale": 0.9, "shear": 0.9, "shift": 1.0, "elastic": 1.0, "cutout": 1.0, "equalise": 1.0}
# What folds have in common stays as planned for each of them: the mean of the folds is one model.
OF_A_FOLD = ("training.learning_rate", "training.weight_decay", "training.batch", "training.foreground", "augmentation")
# Shares that dropout may leave out.
DROPOUT_TRIED = (0.0, 0.1, 0.2, 0.5)
# Frames before and after each frame of a clip.
AROUND_TRIED = (0, 2)
# The learning rate of SGD over that of AdamW: nnU-Net's 1e-2, where a plan has 4e-3 for dense outputs.
SGD_TIMES = 2.5
# Knobs by which decisions are multiplied.
FACTORS = ("augmentation", "network.width")
DIGITS = 4
TRIED = "a trial of the search"


@dataclass(frozen=True)
class Between:
    """Numbers from low to high, evenly, or evenly in their logarithm; own: what the plan has."""

    own: float
    low: float
    high: float
    log: bool = True

    def limit(self, is_possible: Callable[[Any], bool]) -> Between:
        """Itself: single numbers are not tried beforehand."""
        return self


@dataclass(frozen=True)
class OneOf:
    """Some values, what the plan has first."""

    values: tuple[Any, ...]

    @property
    def own(self) -> Any:
        """Value in the plan."""
        return self.values[0]

    def limit(self, is_possible: Callable[[Any], bool]) -> OneOf | None:
        """The possible values; None where there is no choice among them."""
        values = tuple(value for value in self.values if is_possible(value))
        return OneOf(values) if len(values) > 1 else None


Domain = Between | OneOf
DOMAINS: Mapping[str, type[Domain]] = {kind.__name__: kind for kind in (Between, OneOf)}
Space = Mapping[str, Domain]
# {knob: what a trial has there}
Choices = Mapping[str, Any]


@dataclass(frozen=True)
class Knob:
    """A decision that a search varies.

    domain:  of a plan; None where there is nothing to try
    assign:  {decision: value} of a plan in which a value is chosen
    changes: the decisions that it is about: where one was set by hand it is no knob
    """

    name: str
    domain: Callable[[Plan], Domain | None]
    assign: Callable[[Plan, Any], Assignments]
    changes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Room:
    """The training cases and the machine that a trial's plan must fit."""

    fingerprint: Fingerprint
    machine: Machine

    def fit_plan(self, plan: Plan) -> Plan:
        """The plan with its memory predicted anew. Raises PlanError, ResourceError where it cannot be followed."""
        plan_checks.checked_settings(plan)
        return plan_changes.with_predicted_memory(plan, self.fingerprint, self.machine)

    def size(self, plan: Plan, name: str) -> NetworkSize:
        """The size of another family for the images of this plan."""
        size: NetworkSize = _fit_to_memory.family_size(
            typed_sections.typed_plan(plan), name, self.fingerprint, self.machine
        ).value
        return size


def search_space(plan: Plan, room: Room, *, of_fold: bool = False) -> dict[str, Domain]:
    """The choices that a search may try for this plan on this machine; each value can be followed by itself."""
    domains: dict[str, Domain] = {}
    for knob in search_knobs(plan, room):
        if of_fold and knob.name not in OF_A_FOLD:
            continue
        if any(name not in plan or plan.decision(name).because == BY_HAND for name in knob.changes):
            continue
        domain = knob.domain(plan)
        if domain is not None:
            domain = domain.limit(partial(_is_possible, plan, knob, domain, room))
        if domain is not None:
            domains[knob.name] = domain
    return domains


def planned_choices(space: Space) -> Choices:
    """The plan as it stands."""
    return {name: domain.own for name, domain in space.items()}


def apply_choices(plan: Plan, choices: Choices, space: Space, room: Room) -> Plan:
    """The plan in which these values were chosen, with all that follows from them; what differs says so.

    Raises PlanError, ResourceError where they do not go together.
    """
    changed_plan = plan
    for knob in search_knobs(plan, room):
        if knob.name in choices and choices[knob.name] != space[knob.name].own:
            changed_plan = plan_changes.with_settings(changed_plan, knob.assign(changed_plan, choices[knob.name]))
    changed_plan = _unsign(changed_plan, plan)
    return changed_plan if changed_plan is plan else room.fit_plan(changed_plan)


def changed_values(plan: Plan, other: Plan) -> Assignments:
    """{"section.name": value} of what the other has in place of the plan's, but what only follows from the rest."""
    follows = ("training.memory", "preprocessing.smallest")
    return {name: one.value for name, one in other if one.value != plan[name] and name not in follows}


def space_record(space: Space) -> Mapping[str, Mapping[str, PlainValue]]:
    """Plain, as a study keeps it."""
    return {name: {"kind": type(domain).__name__, **asdict(domain)} for name, domain in space.items()}


def space_from_record(record: Mapping[str, StatedSettings]) -> dict[str, Domain]:
    """The space from the record of `space_record`."""
    return {name: TypeAdapter(DOMAINS[entry["kind"]]).validate_python(entry) for name, entry in record.items()}


def search_knobs(plan: Plan, room: Room) -> Iterator[Knob]:
    """Everything that may be turned, in the order in which it is applied: first what others build on."""

    def of_family(changed_plan: Plan, name: Any) -> Assignments:
        """The family with the size that suits the machine."""
        return {"network.name": name, "network.size": dict(room.size(changed_plan, name))}

    task = task_catalogue.build_task({key: decision.value for key, decision in plan.sections["task"].items()})
    yield Knob("network.name", _families, of_family, ("network.name", "network.size", "network.pretrained"))
    yield Knob("network.width", _widths, _wider, ("network.size",))
    yield _setting("network.dropout", DROPOUT_TRIED)
    for name, values in task_settings.search_values(task).items():
        yield _setting(f"task.{name}", values)
    if plan["preprocessing.frames"] is None and preprocessing_rules.are_frames(room.fingerprint):
        yield _setting("preprocessing.around", AROUND_TRIED)
    yield _number("training.learning_rate", 1 / 8, 4.0)
    yield _number("training.weight_decay", 1 / 10, 10.0)
    yield Knob("training.optimiser", _optimisers, _sgd, ("training.optimiser", "training.learning_rate"))
    yield Knob("training.batch", _batches, _same("training.batch"), ("training.batch",))
    yield Knob("training.patch", _patches, _same("training.patch"), ("training.patch",))
    yield Knob("training.foreground", _foreground, _same("training.foreground"), ("training.foreground",))
    yield Knob("augmentation", lambda plan: Between(1.0, 0.25, 2.0) if _stronger(plan, 1.0) else None, _stronger, ())


def _is_possible(plan: Plan, knob: Knob, domain: Domain, room: Room, value: Any) -> bool:
    """Whether a value can be followed, beside the plan's own of all else."""
    if value == domain.own:
        return True
    try:
        apply_choices(plan, {knob.name: value}, {knob.name: domain}, room)
    except (PlanError, ResourceError):
        return False
    return True


def _unsign(changed_plan: Plan, plan: Plan) -> Plan:
    """Nobody has set by hand what a search tries."""
    for name, decision in changed_plan:
        before = plan.decision(name)
        if decision.value == before.value:
            changed_plan = changed_plan if decision == before else changed_plan.with_decision(name, before)
        elif decision.because == BY_HAND:
            changed_plan = changed_plan.with_decision(name, Decision(decision.value, TRIED))
    return plan if all(decision.value == plan[name] for name, decision in changed_plan) else changed_plan


def _same(name: str) -> Callable[[Plan, Any], Assignments]:
    return lambda plan, value: {name: value}


def _number(name: str, low: float, high: float) -> Knob:
    """Around the plan's own number, which is above 0; nothing where it is 0."""

    def around(plan: Plan) -> Domain | None:
        """The bounds about the planned value; None where that is 0."""
        planned = float(plan[name])
        return Between(planned, planned * low, planned * high) if planned > 0 else None

    return Knob(name, around, _same(name), (name,))


def _setting(name: str, values: Sequence[Any]) -> Knob:
    """A setting, the plan's value among others."""

    def among(plan: Plan) -> Domain:
        """The planned value first, then the others."""
        return OneOf((plan[name], *(value for value in values if value != plan[name])))

    return Knob(name, among, _same(name), (name,))


def _optimisers(plan: Plan) -> Domain | None:
    return OneOf(("adamw", "sgd")) if plan["training.optimiser"] == "adamw" else None


def _sgd(plan: Plan, name: Any) -> Assignments:
    """SGD, at as many times its usual rate as the plan has AdamW's; what else goes with it follows."""
    return {"training.optimiser": name, "training.learning_rate": plan["training.learning_rate"] * SGD_TIMES}


def _families(plan: Plan) -> Domain | None:
    if plan["network.pretrained"] is not None:
        return None  # whose weights fit no other family
    planned = plan["network.name"]
    return OneOf((planned, *(name for name in factory.searched_families() if name != planned)))


def _widths(plan: Plan) -> Domain | None:
    if plan["network.pretrained"] is not None or not isinstance(plan["network.size"].get("width"), int):
        return None
    return OneOf((1.0, 0.5, 1.5))


def _wider(plan: Plan, factor: Any) -> Assignments:
    size = plan["network.size"]
    widths = [key for key in network_family.WIDTHS if isinstance(size.get(key), int)]
    scaled = {key: max(4, round(size[key] * factor / 4) * 4) for key in widths}
    return {"network.size": {**size, **scaled}}


def _batches(plan: Plan) -> Domain:
    planned = int(plan["training.batch"])
    return OneOf((planned, *(other for other in (planned // 2, planned * 2) if other >= 2)))


def _patches(plan: Plan) -> Domain | None:
    """Patches that are cut from larger images: two thirds, and half as much again, along each axis."""
    if not plan["training.foreground"] or plan["preprocessing.shape"] is not None:
        return None
    planned = [int(size) for size in plan["training.patch"]]
    others = [[max(16, round(size * factor / 16) * 16) for size in planned] for factor in (2 / 3, 3 / 2)]
    return OneOf((planned, *(other for other in others if other != planned)))


def _foreground(plan: Plan) -> Domain | None:
    planned = float(plan["training.foreground"])
    return Between(planned, min(planned, 0.1), max(planned, 0.8), log=False) if planned > 0 else None


def _stronger(plan: Plan, factor: Any) -> Assignments:
    """All strengths that are on and that nobody set by hand, multiplied."""
    strengths = {}
    for key in STRENGTHS:
        name = f"augmentation.{key}"
        if name in plan and plan[name] and plan.decision(name).because != BY_HAND:
            most = MOST_STRENGTH.get(key, float("inf"))
            strengths[name] = min(most, float(f"{plan[name] * float(factor):.{DIGITS}g}"))
    return strengths


def choice_words(choices: Choices, space: Space) -> str:
    """The choices in which a trial differs from the plan, in one line."""
    changes = []
    for name, value in choices.items():
        if value == space[name].own:
            continue
        number = f"{value:.3g}" if isinstance(value, float) else json.dumps(value).replace('"', "")
        changes.append(f"{name} x {number}" if name in FACTORS else f"{name} {number}")
    return ", ".join(changes) or "as planned"
