"""Methods by which a model states its uncertainty: members, mirrored views, sampled last layers, sampled dropout."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
from safetensors.numpy import save

from hilum.errors import PlanError, UsageError
from hilum.lazy import torch
from hilum.networks import dropout, network_parts
from hilum.networks.factory import BAYESIAN
from hilum.runtime import bundle
from hilum.runtime.inference import AUTO, DROPOUT, LAPLACE, MEMBERS, METHODS, NONE, TTA, VARIATIONAL
from hilum.runtime.torch_networks import Networks, TorchNetwork, WatchedNetwork
from hilum.runtime.uncertainty import disagreement
from hilum.runtime.uncertainty.disagreement import Disagreement
from hilum.values import Floats

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from torch.nn.modules.dropout import _DropoutNd

    from hilum.networks.network_parts import NetworkFeatures
    from hilum.runtime.bundle.network import VariationalLayer
    from hilum.runtime.inference import Inference
    from hilum.runtime.part_settings import PartSettings
    from hilum.runtime.windows.pipeline import WindowSettings
    from hilum.tasks import Task


class PosteriorDraws(Protocol):
    """Posteriors of last layers."""

    @property
    def heads(self) -> Collection[str]:
        """The heads whose last layers have one."""

    def views(self, features: NetworkFeatures, count: int) -> list[dict[str, Tensor]]:
        """The outputs of so many draws, the same for every image."""


@dataclass(frozen=True)
class Lack:
    """Why a model does not have a method, and what a person can do."""

    reason: str
    remedy: str = f"Choose {AUTO} or {NONE}"


@dataclass(frozen=True, eq=False)
class MethodBasis:
    """Basis on which a method builds.

    flips:   axes along which windows may be mirrored; PlanError where no mirrored view is true to anatomy
    laplace: the posteriors of the last layers; None where none was fitted
    members: models that are averaged on the image's grid; 0 where networks are, window by window
    """

    task: Task
    networks: Networks
    inference: Inference
    flips: Callable[[], tuple[int, ...]]
    laplace: PosteriorDraws | None = None
    members: int = 0

    @property
    def differ(self) -> Disagreement | None:
        """The disagreement between views of the task's heads; None of a task that states no uncertainty."""
        return Disagreement.from_task(self.task)

    @property
    def silence(self) -> Lack | None:
        """The lack of a task that states no uncertainty; None where it states one."""
        return Lack(f"a {self.task.name} states no uncertainty") if self.differ is None else None

    @property
    def count(self) -> int:
        """How many networks give an answer together."""
        return self.members or self.networks.count

    def lack_of_samples(self, what: str) -> Lack | None:
        """Why nothing is sampled in the networks, whatever they have learnt; None where that is possible.

        what: the part of a network that would be sampled
        """
        if self.count > 1:
            return Lack(f"{what} is sampled in a single network, and the model has {self.count}")
        if not isinstance(self.networks.run, TorchNetwork):
            return self.lack_of_torch(f"{what} is sampled")
        if not self.networks.deepest:
            return Lack(f"{what} cannot be sampled, because the layers of this network are not known")
        return None

    def lack_of_torch(self, done: str) -> Lack:
        """The lack of what only torch does, which can compute the networks of a package."""
        computing = self.networks.computing
        instead = f", and the network is computed on {computing.value}" if computing is not None else ""
        reason = f"{done} by the backend torch alone{instead}"
        return Lack(reason, "Choose --backend torch") if self.networks.packaged else Lack(reason)

    @property
    def plain(self) -> Networks:
        """The networks without any method's outputs."""
        if self.networks.average is not None:
            return replace(self.networks, run=replace(self.networks.average, differ=None))
        if isinstance(self.networks.run, WatchedNetwork):
            return replace(self.networks, run=replace(self.networks.run, further=None, passes=None))
        return self.networks


class UncertaintyMethod(Protocol):
    """A way in which a model looks for its uncertainty; what it predicts stays the same."""

    @property
    def name(self) -> str:
        """The name, as a plan calls it."""

    def suits(self, basis: MethodBasis) -> bool:
        """Whether a model whose plan leaves the choice open takes it, where none before it suits."""

    def lacking(self, basis: MethodBasis) -> Lack | None:
        """Why a model does not have it; None where it does."""

    def networks(self, basis: MethodBasis) -> Networks:
        """The networks, which state their uncertainty beside their outputs."""

    def windows(self, basis: MethodBasis, planned: WindowSettings) -> WindowSettings:
        """The windows in which they see an image."""

    def between(self, basis: MethodBasis) -> Disagreement | None:
        """How members that are averaged on the image's grid differ; None where nobody asks."""


@dataclass(frozen=True)
class NoMethod:
    """No method, or that of an exported network, which computes its figures itself."""

    name: str

    def suits(self, basis: MethodBasis) -> bool:
        """Any model."""
        return True

    def lacking(self, basis: MethodBasis) -> Lack | None:
        """Every model has it."""
        return None

    def networks(self, basis: MethodBasis) -> Networks:
        """The networks as they are."""
        return basis.plain

    def windows(self, basis: MethodBasis, planned: WindowSettings) -> WindowSettings:
        """The windows as planned."""
        return planned

    def between(self, basis: MethodBasis) -> Disagreement | None:
        """Nothing."""
        return None


# Uncertainty by the posteriors of a network's last layers, after a training that has learnt numbers.
#
# By Laplace's approximation with the generalised Gauss-Newton matrix of each layer, factored by Kronecker into one of
# its inputs and one of its outputs; the prior's precision is that of the largest marginal likelihood (Ritter et al.,
# ICLR 2018; Daxberger et al., NeurIPS 2021, arXiv:2106.14806). A case counts once, however many windows and voxels it
# has.

# Precisions of the prior that are tried, and voxels of a window that are looked at.
PRECISIONS, OF_A_WINDOW = np.logspace(-4, 6, 101), 2**12
# By how much a head's output may differ from what its last layer makes of its inputs.
ROUNDING = 1e-3
# Of heads whose last layers may have a posterior.
KINDS = ("classes", "labels")


@dataclass(frozen=True, eq=False)
class Posterior:
    """The posterior of one layer's weights and bias: normal about those of training.

    inputs, outputs: (n, n) eigenvectors of both factors of the Gauss-Newton matrix, as columns
    input_values, output_values: (n,) their eigenvalues; the products of each pair are those of the whole matrix
    precision: of the prior
    """

    inputs: Floats
    input_values: Floats
    outputs: Floats
    output_values: Floats
    precision: Floats

    @classmethod
    def from_factors(cls, inputs: Floats, outputs: Floats, weights: Floats) -> Posterior:
        """Fit the factors, the first summed over all cases and the second a mean, and the layer's weights."""
        (input_values, u), (output_values, v) = np.linalg.eigh(inputs), np.linalg.eigh(outputs)
        pairs = np.multiply.outer(input_values.clip(0), output_values.clip(0)).reshape(1, -1)
        norm, tried = float((weights**2).sum()), PRECISIONS[:, None]
        evidence = weights.size * np.log(tried[:, 0]) - PRECISIONS * norm - np.log(pairs + tried).sum(axis=1)
        best = PRECISIONS[[int(evidence.argmax())]]
        return cls(u, input_values.clip(0), v, output_values.clip(0), best)

    def draws(self, inputs: Tensor, outputs: Tensor, noise: Tensor) -> list[Tensor]:
        """(batch, outputs, ...) as often as there are rows of (draws, outputs) standard normal noise."""

        def tensor(array: Floats) -> Tensor:
            return torch.as_tensor(array, dtype=outputs.dtype, device=outputs.device)

        joined = torch.cat([inputs.to(outputs.dtype), torch.ones_like(inputs[:, :1], dtype=outputs.dtype)], dim=1)
        variance = (joined.movedim(1, -1) @ tensor(self.inputs)) ** 2
        variances = 1 / (np.multiply.outer(self.input_values, self.output_values) + self.precision)
        deviations = (variance @ tensor(variances)).sqrt()
        turned = tensor(self.outputs).T
        at_once = 1 if outputs.shape[2:] else len(noise)  # all draws of a vector are small
        rows = noise.to(outputs).reshape(len(noise), *[1] * (outputs.ndim - 1), -1).split(at_once)
        return [one for some in rows for one in outputs + ((deviations * some) @ turned).movedim(-1, 2)]


@dataclass(frozen=True, eq=False)
class Laplace:
    """The posteriors of a network's last layers: {head: of its layer}."""

    heads: Mapping[str, Posterior]

    def views(self, features: NetworkFeatures, count: int) -> list[dict[str, Tensor]]:
        """The outputs of so many draws of the weights, the same for every image and every window."""
        size = max(len(one.output_values) for one in self.heads.values())
        noise = paired_noise(count, size)
        outputs = {
            head: one.draws(
                features.inputs[head], features.outputs[head], torch.from_numpy(noise[:, : len(one.output_values)])
            )
            for head, one in self.heads.items()
        }
        return [dict(zip(outputs, each, strict=True)) for each in zip(*outputs.values(), strict=True)]

    @property
    def settings(self) -> PartSettings:
        """Plain values for `model.json`: the SHA-256 of the file with its arrays."""
        return {"sha256": hashlib.sha256(self.content).hexdigest()}

    @cached_property
    def content(self) -> bytes:
        """The arrays as safetensors."""
        arrays = {f"{head}.{name}": array for head, one in self.heads.items() for name, array in vars(one).items()}
        return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})

    @classmethod
    def from_record(cls, settings: PartSettings, arrays: Mapping[str, Floats]) -> Laplace:
        """Read what `settings` and `content` gave; KeyError where they are not whole."""
        heads = dict.fromkeys(name.rpartition(".")[0] for name in arrays)
        names = Posterior.__dataclass_fields__
        return cls({head: Posterior(**{name: arrays[f"{head}.{name}"] for name in names}) for head in heads})


@dataclass(eq=False)
class LastLayers:
    """Gathers what the last layers of a network take and give while training cases pass.

    layers: {head: its last layer}; one that is not linear, or is not the last, is left out
    kinds:  {head: "classes" or "labels"}
    """

    layers: dict[str, Module]
    kinds: Mapping[str, str]
    inputs: dict[str, Floats] = field(default_factory=dict)
    outputs: dict[str, Floats] = field(default_factory=dict)
    windows: int = 0

    @classmethod
    def from_module(cls, module: Module, at: str, kinds: Mapping[str, str]) -> LastLayers:
        """The last layers of a module of which `at` is the deepest map."""
        layers = {head: layer for head, layer in network_parts.last_layers(module, at).items() if head in kinds}
        return cls({head: layer for head, layer in layers.items() if bundle.network.is_linear(layer)}, kinds)

    def __call__(self, features: NetworkFeatures) -> dict[str, Tensor]:
        """Look at a batch of windows; nothing is added to its outputs."""
        self.windows += len(features.pooled)
        for head, layer in list(self.layers.items()):
            inputs, outputs = features.inputs[head], features.outputs[head]
            if (layer(inputs) - outputs).abs().max() > ROUNDING * outputs.abs().max().clamp(min=1):
                del self.layers[head]
                continue
            for window, made in zip(inputs, outputs, strict=True):
                x, logits = (_rows(one) for one in (window, made))
                x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
                likely = disagreement.output_probabilities(logits, self.kinds[head])
                hessian = np.diag((likely if self.kinds[head] == "classes" else likely * (1 - likely)).mean(axis=0))
                if self.kinds[head] == "classes":
                    hessian = hessian - likely.T @ likely / len(likely)
                self.inputs[head] = self.inputs.get(head, 0.0) + x.T @ x / len(x)
                self.outputs[head] = self.outputs.get(head, 0.0) + hessian
        return {}

    def fit_posteriors(self, cases: int) -> Laplace | None:
        """The posteriors after training with so many cases; None where no layer can have one."""
        layers = {}
        for head, layer in self.layers.items():
            if self.windows:
                weights = np.concatenate([one.detach().cpu().double().numpy().ravel() for one in layer.parameters()])
                inputs, outputs = (each[head] / self.windows for each in (self.inputs, self.outputs))
                layers[head] = Posterior.from_factors(inputs * cases, outputs, weights)
        return Laplace(layers) if layers else None


def _rows(window: Tensor) -> Floats:
    """(voxels, channels) of (channels, ...), of many voxels some that are evenly spread."""
    flat = window.flatten(1) if window.ndim > 1 else window[:, None]
    return flat[:, :: max(1, flat.shape[1] // OF_A_WINDOW)].cpu().double().numpy().T


def last_layers_of(basis: MethodBasis) -> LastLayers | None:
    """The collector of the last layers' inputs while training cases pass; None where nothing comes of it."""
    differ, run, at = basis.differ, basis.networks.run, basis.networks.deepest
    if differ is None or not isinstance(run, TorchNetwork) or not at:
        return None
    return LastLayers.from_module(run.module, at, {head: kind for head, kind in differ.kinds.items() if kind in KINDS})


class LastLayerPosterior(NoMethod):
    """Samples from the posteriors of the last layers."""

    def lacking(self, basis: MethodBasis) -> Lack | None:
        """Why there are no posteriors to sample from; None where there are."""
        unfitted = Lack("no posterior of a last layer was fitted") if basis.laplace is None else None
        return basis.silence or unfitted or basis.lack_of_samples("a last layer")

    def networks(self, basis: MethodBasis) -> Networks:
        """The network, with how draws differ."""
        assert basis.laplace is not None  # noqa: S101 - else it would be lacking
        return _with_sampled_layers(basis, basis.laplace)


def _with_sampled_layers(basis: MethodBasis, posterior: PosteriorDraws) -> Networks:
    """The network, with how draws of its last layers differ beside its outputs."""
    differ = basis.differ
    assert differ is not None  # noqa: S101 - else the method would be lacking
    own = replace(differ, kinds={head: kind for head, kind in differ.kinds.items() if head in posterior.heads})
    return basis.networks.watch(partial(_by_draws, own, posterior, basis.inference.draws))


def _by_draws(
    differ: Disagreement, posterior: PosteriorDraws, count: int, features: NetworkFeatures
) -> Mapping[str, Tensor]:
    return differ(posterior.views(features, count))


def paired_noise(count: int, size: int) -> Floats:
    """(count, size) standard normal numbers, always the same, in pairs about the mean, which is what is stated."""
    half = np.random.default_rng(0).standard_normal((-(-count // 2), size))
    return np.concatenate([half, -half])[:count]


METHOD = LastLayerPosterior(LAPLACE)


@dataclass(frozen=True, eq=False)
class LearntWeights:
    """The distributions of a network's last layers, as training has learnt them: {head: its layer}.

    As in training not weights are sampled, but outputs: Kingma et al., arXiv:1506.02557.
    """

    heads: Mapping[str, VariationalLayer]

    def views(self, features: NetworkFeatures, count: int) -> list[dict[str, Tensor]]:
        """The outputs of so many draws, the same for every image and every window."""
        views: list[dict[str, Tensor]] = [{} for _ in range(count)]
        for head, layer in self.heads.items():
            outputs, deviations = features.outputs[head], layer.deviations(features.inputs[head])
            noise = torch.from_numpy(paired_noise(count, outputs.shape[1])).to(outputs)
            for view, rows in zip(views, noise, strict=True):
                view[head] = outputs + deviations * rows.reshape(1, -1, *[1] * (outputs.ndim - 2))
        return views


class VariationalWeights(NoMethod):
    """Samples from the distributions of the last layers (`bayesian` in network.size)."""

    def lacking(self, basis: MethodBasis) -> Lack | None:
        """Why there is nothing to sample from; None where there is."""
        has_distributions = _has_distributions(basis)
        plain = None if has_distributions else Lack("its last layers are no distributions (bayesian in network.size)")
        return basis.silence or plain or basis.lack_of_samples("a last layer")

    def networks(self, basis: MethodBasis) -> Networks:
        """The network, with how draws differ."""
        return _with_sampled_layers(basis, LearntWeights(_learnt_weights(basis)))


def _has_distributions(basis: MethodBasis) -> bool:
    """Whether last layers are distributions: as torch has them, else as the networks were built."""
    if isinstance(basis.networks.run, TorchNetwork):
        return bool(_learnt_weights(basis))
    return any(architecture["size"].get(BAYESIAN) for architecture in basis.networks.architectures)


def _learnt_weights(basis: MethodBasis) -> dict[str, VariationalLayer]:
    """{head: last layer} of those that are distributions, in torch."""
    run, at = basis.networks.run, basis.networks.deepest
    if not isinstance(run, TorchNetwork) or not at:
        return {}
    layers, kind = network_parts.last_layers(run.module, at), bundle.network.VariationalLayer
    return {head: layer for head, layer in layers.items() if isinstance(layer, kind)}


BY_WEIGHTS = VariationalWeights(VARIATIONAL)


class DropoutDraws(NoMethod):
    """Passes with dropout, whose masks are the same for every image and every window (Gal and Ghahramani 2016)."""

    def lacking(self, basis: MethodBasis) -> Lack | None:
        """Why nothing can be left out; None where it can."""
        run = basis.networks.run
        is_without = isinstance(run, TorchNetwork) and not dropout.dropout_layers(run.module)
        untrained = Lack("it was trained without dropout (network.dropout)") if is_without else None
        return basis.silence or untrained or basis.lack_of_samples("dropout")

    def networks(self, basis: MethodBasis) -> Networks:
        """The network, with how passes differ."""
        run, differ = basis.networks.run, basis.differ
        assert isinstance(run, TorchNetwork) and differ is not None  # noqa: S101 - else it would be lacking
        layers = dropout.dropout_layers(run.module)
        return basis.networks.watch(passes=partial(_by_masks, differ, layers, basis.inference.draws))


def _by_masks(
    differ: Disagreement, layers: Sequence[_DropoutNd], count: int, module: Module, batch: Sequence[Tensor]
) -> Mapping[str, Tensor]:
    views = []
    for draw in range(count):
        with dropout.masks_of_draw(layers, draw):
            outputs = module(*batch)
            views.append({head: outputs[head] for head in differ.heads})
    return differ(views)


BY_DROPOUT = DropoutDraws(DROPOUT)


class MemberDisagreement(NoMethod):
    """The disagreement between the networks of folds, of other seeds or of an ensemble."""

    def suits(self, basis: MethodBasis) -> bool:
        """Whether there are several networks."""
        return basis.members > 0 or basis.networks.average is not None

    def lacking(self, basis: MethodBasis) -> Lack | None:
        """Why they cannot differ; None where they can."""
        if basis.silence is not None or self.suits(basis):
            return basis.silence
        if basis.count > 1:
            return basis.lack_of_torch(f"its {basis.count} members are compared")
        return Lack("the model is one network, without members that could differ")

    def networks(self, basis: MethodBasis) -> Networks:
        """The networks, with how they differ beside their mean."""
        if basis.members:
            return basis.plain
        assert basis.networks.average is not None  # noqa: S101 - else it would be lacking
        return replace(basis.networks, run=replace(basis.networks.average, differ=basis.differ))

    def between(self, basis: MethodBasis) -> Disagreement | None:
        """How the members differ."""
        return basis.differ if basis.members else None


BY_MEMBERS = MemberDisagreement(MEMBERS)


class MirrorDisagreement(NoMethod):
    """The disagreement between mirrored views, which the network also sees for it where nothing else asks for them."""

    def lacking(self, basis: MethodBasis) -> Lack | None:
        """Why there are no mirrored views; None where there are."""
        if basis.silence is not None:
            return basis.silence
        if basis.members:
            return Lack("its members see images on grids of their own, and are compared with each other")
        if basis.inference.views:
            return None
        try:
            basis.flips()
        except PlanError as error:
            return Lack(f"no mirrored view is true to anatomy ({error.problem})")
        return None

    def windows(self, basis: MethodBasis, planned: WindowSettings) -> WindowSettings:
        """The windows, also mirrored."""
        flips = planned.flips or (() if planned.views.count else basis.flips())
        return replace(planned, flips=flips, differ=basis.differ)


BY_MIRRORS = MirrorDisagreement(TTA)


WHERE = "--uncertainty"
# No method: what a model states without one.
NOTHING = NoMethod(NONE)
# Where the choice is open, the first that suits a model. Mirrored views and dropout take several times as long, and
# neither dropout nor learnt distributions rank errors better than a plain network: they are asked for.
PREFERRED: tuple[UncertaintyMethod, ...] = (BY_MEMBERS, METHOD)
ASKED_FOR: tuple[UncertaintyMethod, ...] = (BY_WEIGHTS, BY_DROPOUT, BY_MIRRORS)


def choose_method(basis: MethodBasis, asked: str | None) -> tuple[Networks, UncertaintyMethod]:
    """The networks of a model as a method needs them, and the method.

    asked: by a person, one of `METHODS`; None follows the plan, whose "auto" only compares members of dense results.
           Of a volume of 64³ voxels and a U-Net of 16 channels two members took 1.03 times the processor seconds (of
           104³ in several windows 0.98 times), 16 draws of the last layer 1.44 times (medians of 6 in turn)
    Raises UsageError for a method that this model does not have.
    """
    if asked not in (None, *METHODS):
        raise UsageError(f"there is no method {asked!r}", WHERE, f"Choose one of {', '.join(METHODS)}")
    exported = [NoMethod(basis.networks.in_graph)] if basis.networks.in_graph else []
    named = {method.name: method for method in (*PREFERRED, *ASKED_FOR, NOTHING, *exported)}
    lack = named[asked].lacking(basis) if asked in named else None
    if lack is not None:
        raise UsageError(lack.reason, WHERE, lack.remedy)
    planned = asked if asked in named else basis.inference.uncertainty
    method = named[planned] if planned in named else _prefer(basis, exported)
    if planned == AUTO and asked is None and method is not BY_MEMBERS and _is_dense(basis):
        method = NOTHING
    method = NOTHING if method.lacking(basis) is not None else method
    return method.networks(basis), method


def _prefer(basis: MethodBasis, exported: Sequence[UncertaintyMethod]) -> UncertaintyMethod:
    """The first method that suits a model, where none is named; own: that of an exported network."""
    several, *others = PREFERRED
    return next(method for method in (several, *exported, *others) if method.suits(basis))


def _is_dense(basis: MethodBasis) -> bool:
    """Whether the task answers for every voxel."""
    return any(head.is_dense for head in basis.task.heads.values())
