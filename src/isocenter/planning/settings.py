"""A plan's sections as typed values. What does not fit is refused with the name of the decision."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import StringConstraints, TypeAdapter, ValidationError

from isocenter import networks, tasks
from isocenter.errors import PlanError
from isocenter.lazy import torch
from isocenter.runtime import Inference, Preprocessing, build_module
from isocenter.tasks import Task
from isocenter.transforms import Augmentation
from isocenter.values import BY_HAND, Plan

Count = Annotated[int, Gt(0)]
Share = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True)
class Training:
    """How the recipe trains.

    minutes:       from the command's start to the finished model; None where `steps` decides
    steps:         None until a probe has turned the minutes into a number
    warmup, ema:   shares of all steps: the rate rises over the first, weights are averaged over about the last
    patch:         what is cut from a prepared case, which is at least as large
    validations:   how often the validation cases are looked at, at the most
    foreground:    share of patches that are centred on a structure
    schedule:      how the rate falls after the warm-up: a half cosine, or a polynomial of degree 0.9
    early_stop:    ends after so many validations without improvement; None never
    sampling:      "balanced" draws cases class by class, whatever their number
    memory:        GiB that training is predicted to take at its peak, of the device that computes
    """

    minutes: Annotated[float, Gt(0), Lt(math.inf)] | None
    steps: Count | None
    batch: Count
    patch: tuple[Count, ...]
    learning_rate: Annotated[float, Gt(0), Lt(math.inf)]
    weight_decay: Annotated[float, Ge(0), Lt(math.inf)]
    warmup: Share
    ema: Annotated[float, Ge(0), Lt(1)]
    clip: Annotated[float, Gt(0)]
    precision: Literal["bf16", "float32"]
    validations: Count
    foreground: Share
    selection: str
    seed: Annotated[int, Ge(0)]
    deterministic: bool
    device: Annotated[str, StringConstraints(pattern=r"^(cpu|mps|cuda:\d+)$")]
    threads: Count
    optimiser: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["cosine", "poly"] = "cosine"
    early_stop: Count | None = None
    sampling: Literal["natural", "balanced"] = "natural"
    memory: Annotated[float, Ge(0), Lt(math.inf)] = 0.0


@dataclass(frozen=True)
class Network:
    """How the network is built.

    name:       of the family
    size:       the family's own settings
    pretrained: weights to begin from: None, "auto" for the family's published ones, or a file
    """

    name: str
    size: dict[str, Any]
    pretrained: str | None = None


@dataclass(frozen=True)
class Splitting:
    """method: how the cases were parted; folds: in how many parts each of which is the test of one model, 0 for none"""

    method: Literal["own", "drawn", "folds"]
    folds: Annotated[int, Ge(0)] = 0


@dataclass(frozen=True)
class Settings:
    """A whole plan, typed."""

    task: Task
    preprocessing: Preprocessing
    network: Network
    training: Training
    augmentation: Augmentation
    inference: Inference
    split: Splitting = Splitting("drawn")

    @property
    def architecture(self) -> dict[str, Any]:
        """The arguments of `networks.build` but the heads, for which the task asks; plain, as a model records them."""
        return {
            "name": self.network.name,
            "channels": len(self.preprocessing.channels),
            "spatial_dims": self.preprocessing.ndim,
            "size": self.network.size,
        }


TYPED: Mapping[str, Any] = {
    "split": Splitting,
    "preprocessing": Preprocessing,
    "network": Network,
    "training": Training,
    "augmentation": Augmentation,
    "inference": Inference,
}
FREE = ("task", "evaluation")


def settings(plan: Plan) -> Settings:
    """Every section checked; PlanError names the decision that cannot be."""
    unknown = sorted(set(plan.sections) - {*TYPED, *FREE})
    missing = sorted({*TYPED, *FREE} - set(plan.sections))
    if unknown or missing:
        said = [*(f"unknown section {name!r}" for name in unknown), *(f"no section {name!r}" for name in missing)]
        raise PlanError("; ".join(said), "plan", f"Sections are {', '.join((*FREE, *TYPED))}")
    typed = {name: _typed(name, kind, plan) for name, kind in TYPED.items()}
    task = tasks.build({key: decision.value for key, decision in plan.sections["task"].items()})
    if typed["network"].name not in networks.names():
        raise PlanError(
            f"there is no network {typed['network'].name!r}",
            "network.name",
            f"Choose one of {', '.join(networks.names())}",
        )
    ndim = typed["preprocessing"].ndim
    for name, sizes in (("inference.patch", typed["inference"].patch), ("training.patch", typed["training"].patch)):
        if len(sizes) != ndim:
            raise PlanError(f"{sizes} in {ndim} dimensions", name, "Give one size an axis")
    if typed["preprocessing"].smallest != typed["training"].patch:
        raise PlanError(
            f"{typed['preprocessing'].smallest} is not training.patch {typed['training'].patch}",
            "preprocessing.smallest",
            "Give both the same size",
        )
    _check_metric(task, "training.selection", typed["training"].selection, {task.selects_by})
    _check_metric(task, "evaluation.primary", plan["evaluation.primary"], task.metrics)
    if plan.decision("split.method").because == BY_HAND:
        raise PlanError("the split is drawn, not chosen by its name", "split.method", "Give another training.seed")
    _check_duration(typed["training"])
    made = Settings(task=task, **typed)
    _check_network(made)
    return made


def _check_metric(task: Task, name: str, metric: Any, known: Collection[str]) -> None:
    if metric not in known:
        raise PlanError(f"{task.name} has no {metric!r}", name, f"Choose one of {', '.join(sorted(known))}")


def _check_duration(training: Training) -> None:
    if training.steps is None and (training.minutes is None or training.deterministic):
        reason = "minutes make no two runs alike" if training.deterministic else "neither minutes nor steps"
        raise PlanError(f"no number, and {reason}", "training.steps", "Give it, as in --set training.steps=1000")


def _check_network(made: Settings) -> None:
    """Builds the network and leads it over both patches on torch's meta device: without memory or arithmetic."""
    with torch.device("meta"), torch.inference_mode():
        network = build_module(made.task, made.architecture).eval()
        for name, patch in (("training.patch", made.training.patch), ("inference.patch", made.inference.patch)):
            try:
                network(torch.empty(1, len(made.preprocessing.channels), *patch))
            except RuntimeError as error:
                remedy = "Give sizes that the network's strides divide"
                raise PlanError(f"{patch} does not fit the network ({error})", name, remedy) from error


def _typed(name: str, kind: Any, plan: Plan) -> Any:
    values = {key: decision.value for key, decision in plan.sections[name].items()}
    known = [field.name for field in fields(kind)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise PlanError("there is no such decision", f"{name}.{unknown[0]}", f"Names are {', '.join(known)}")
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in (name, *first["loc"][:1]))
        raise PlanError(f"{first.get('input')!r}: {first['msg']}", place, "Correct it, or plan anew") from error
