"""The method by which a model states its uncertainty, and how much of it is disagreement between several views."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from isocenter import networks
from isocenter.errors import PlanError, UsageError
from isocenter.runtime import bundle
from isocenter.runtime.guard.watched import Watched, with_features
from isocenter.runtime.inference import (
    AUTO,
    EVIDENTIAL,
    LAPLACE,
    MEMBERS,
    METHODS,
    NONE,
    TTA,
    VARIATIONAL,
)
from isocenter.runtime.torch_network import TorchNetwork
from isocenter.runtime.uncertainty.disagreement import Disagreement
from isocenter.runtime.uncertainty.last_layers import Laplace, LastLayers, LearntWeights

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from isocenter.networks import Features
    from isocenter.runtime.bundle import NoisyLogits
    from isocenter.runtime.model import Model

WHERE = "--uncertainty"
# What gives several outputs of the last layers.
Drawing = Laplace | LearntWeights
# Of heads whose last layers may have a posterior.
KINDS = ("classes", "labels")


def with_uncertainty(model: Model, asked: str | None = None) -> Model:
    """The model that looks for its uncertainty by a method; what it predicts stays the same.

    asked: by a person, one of `METHODS`; None follows the plan, whose "auto" only compares members of dense results.
           Of a volume of 64³ voxels and a U-Net of 16 channels two members took 1.03 times the processor seconds (of
           104³ in several windows 0.98 times), 16 draws of the last layer 1.44 times (medians of 6 in turn)
    Raises UsageError for a method that this model does not have.
    """
    if asked not in (None, *METHODS):
        raise UsageError(f"there is no method {asked!r}", WHERE, f"Choose one of {', '.join(METHODS)}")
    by_name = asked not in (None, AUTO)
    method = asked if by_name and asked else model.inference.uncertainty
    if by_name and (lacking := _lacking(model, method)):
        raise UsageError(lacking, WHERE, f"Choose {AUTO} or {NONE}")
    if method == AUTO:
        is_dense = any(head.is_dense for head in model.task.heads.values())
        own = EVIDENTIAL if model.task.states_evidence else VARIATIONAL if _learnt(model) else LAPLACE
        best = MEMBERS if model.average is not None else own if model.in_graph == NONE else model.in_graph
        method = NONE if asked is None and is_dense and best != MEMBERS else best
    method = NONE if _lacking(model, method) else method
    run, differ = model.run, Disagreement.of(model.task)
    if model.average is not None:
        run = replace(model.average, differ=differ if method == MEMBERS else None)
    elif method in (LAPLACE, VARIATIONAL, EVIDENTIAL) and method != model.in_graph:
        assert differ is not None  # noqa: S101 - else the method would be lacking
        run = with_features(model, _further(model, method, differ))
    elif isinstance(run, Watched):
        run = replace(run, further=None)
    return replace(model, run=run, uncertainty=method)


def last_layers_of(model: Model) -> LastLayers | None:
    """The collector of the last layers' inputs while training cases pass; None where nothing comes of it."""
    differ, run = Disagreement.of(model.task), model.run
    if differ is None or not isinstance(run, TorchNetwork) or not (at := _deepest(model)) or _noise_of(run.module):
        return None
    return LastLayers.of(run.module, at, {head: kind for head, kind in differ.kinds.items() if kind in KINDS})


def _deepest(model: Model) -> str:
    """The part of its network that gives the features; empty where nobody knows, as of another program's.

    Of a torch network alone: the family's file imports torch, which a package may be without.
    """
    name = str(model.networks[0]["name"])
    return networks.family_of(name).features if name in networks.names() else ""


def _noise_of(module: Module) -> NoisyLogits | None:
    """The module after the last layers of a network that states the noise of its logits; no posterior knows of it."""
    return next((part for part in module.modules() if isinstance(part, bundle.NoisyLogits)), None)


def _further(model: Model, method: str, differ: Disagreement) -> Callable[[Features], Mapping[str, Tensor]]:
    """A function that adds the uncertainty to the outputs of a network."""
    if method == EVIDENTIAL:
        return partial(_by_evidence, replace(differ, kinds={head: differ.kinds[head] for head in differ.evidence}))
    drawing = model.laplace if method == LAPLACE else _learnt(model)
    assert drawing is not None  # noqa: S101 - else the method would be lacking
    return partial(_by_draws, drawing, differ, model.inference.draws)


def _learnt(model: Model) -> LearntWeights | None:
    """The distributions of last layers that training has learnt; None where it has learnt numbers."""
    if not isinstance(model.run, TorchNetwork) or not (at := _deepest(model)):
        return None
    layers = networks.last_layers(model.run.module, at)
    known = {head: layer for head, layer in layers.items() if isinstance(layer, networks.VariationalLinear)}
    return LearntWeights(known) if known and not _noise_of(model.run.module) else None


def _by_draws(drawing: Drawing, differ: Disagreement, count: int, seen: Features) -> Mapping[str, Tensor]:
    own = replace(differ, kinds={head: kind for head, kind in differ.kinds.items() if head in drawing.heads})
    return own(drawing.views(seen, count))


def _by_evidence(differ: Disagreement, seen: Features) -> Mapping[str, Tensor]:
    return differ.of_evidence(seen.outputs)


def _lacking(model: Model, method: str) -> str:
    """Why a model does not have a method; empty where it has it."""
    if method in (NONE, model.in_graph):
        return ""
    if Disagreement.of(model.task) is None:
        return f"a {model.task.name} states no uncertainty"
    if method == MEMBERS and model.average is None:
        return "the model is one network, without members that could differ"
    if method == LAPLACE and (model.laplace is None or not isinstance(model.run, TorchNetwork)):
        return "no posterior of a last layer was fitted, or the backend does not expose the inputs of that layer"
    if method == VARIATIONAL and _learnt(model) is None:
        return "the weights of its last layer are not distributions (network.name vit, bayesian in network.size)"
    if method == EVIDENTIAL and not model.task.states_evidence:
        return "its network was not trained to state evidence (task.loss or task.noise evidential)"
    if method == EVIDENTIAL and not (isinstance(model.run, TorchNetwork) and _deepest(model)):
        return "the backend does not run a single network of Isocenter, whose evidence could be read"
    if method == TTA:
        try:
            model.flips(True)
        except PlanError as error:
            return f"no mirrored view is true to anatomy ({error.problem})"
    return ""
