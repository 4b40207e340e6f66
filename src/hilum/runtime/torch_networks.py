"""The networks of a model: as one function of arrays, in batches that fit into memory, and as torch modules.

Outputs may be kept, and gradients may run through the modules: the one place outside inference mode.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import MEMORY_ERRORS, MemoryShortageError, PlanError, UsageError
from hilum.lazy import torch
from hilum.networks import dropout, factory, network_parts, quick_convolutions
from hilum.networks.factory import BAYESIAN
from hilum.networks.network_family import FusionSettings
from hilum.runtime import bundle, hardware
from hilum.runtime.covariate_encoding import Context
from hilum.runtime.model_schema import NetworkArguments
from hilum.runtime.windows import averaging
from hilum.runtime.windows.averaging import ATTENTION, POOLED, AveragedNetwork
from hilum.runtime.windows.slide import BagNetwork, Network
from hilum.values import Array, Head, Vector
from hilum.work_state import log

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from hilum.networks.bag_pooling import TileBag
    from hilum.networks.network_parts import NetworkFeatures
    from hilum.runtime.bundle.network import VariationalLayer
    from hilum.tasks import Task
    from hilum.values import Decision


# Of a network whose numbers for the whole image become an answer, how many there are.
EMBEDDED: Final = "embedded"
# Adds outputs to those of a network, from what its module saw and its last layers took.
Further = Callable[["NetworkFeatures"], Mapping[str, "Tensor"]]
# Adds outputs to those of a module for a batch, of which it may make further passes.
Passes = Callable[["Module", Sequence["Tensor"]], Mapping[str, "Tensor"]]


@dataclass(frozen=True)
class TorchNetwork:
    """A torch module as a function of NumPy arrays: images, and a context beside them if it has one."""

    module: Module
    device: str = "cpu"

    def __call__(self, *batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        with torch.inference_mode():
            outputs = self.module(*self._tensors(batch))
        return _arrays(outputs)

    def encoded(self, tiles: NDArray[np.float32]) -> tuple[Array, ...]:
        """(n, features) of tiles (n, channels, rows, columns), of a network of bags."""
        with torch.inference_mode():
            return (self._encode(tiles).float().cpu().numpy(),)

    def pooled(self, features: Sequence[Array], places: NDArray[np.int64]) -> Mapping[str, Array]:
        """{head: (batch, numbers)} and the attention of each tile, of features (batch, tiles, features)."""
        bag = (*features, places)
        with torch.inference_mode():
            attention = cast("TileBag", self.module).attention(*self._tensors(bag))
            return _arrays({**self._answers(bag, self.module.pooled), ATTENTION: attention})

    def _encode(self, tiles: NDArray[np.float32]) -> Tensor:
        return cast("TileBag", self.module).encoded(*self._tensors([tiles]))

    def _answers(self, batch: Sequence[Array], run: Any) -> Mapping[str, Tensor]:
        """Outputs of the module, or of a part of it that answers."""
        outputs: Mapping[str, Tensor] = run(*self._tensors(batch))
        return outputs

    def _tensors(self, batch: Sequence[Array]) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(one).to(self.device) for one in batch)


def _arrays(outputs: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    return {name: output.float().cpu().numpy() for name, output in outputs.items()}


@dataclass(frozen=True)
class WatchedNetwork(TorchNetwork):
    """A torch module whose outputs come with its pooled features.

    at:     the part of the module whose output is its deepest map
    further: adds outputs
    passes: adds outputs of further passes
    kept:   outputs that it gave before; None where each batch is computed
    """

    at: str = ""
    further: Further | None = None
    passes: Passes | None = None
    kept: KeptOutputs | None = None

    def __call__(self, *batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        with torch.inference_mode():
            return _arrays(self._answers(batch, self.module))

    def _answers(self, batch: Sequence[Array], run: Any) -> Mapping[str, Tensor]:
        asks = self.further is not None
        if self.kept is None:
            features = self._compute(batch, run, last=asks)
        else:
            compute = partial(self._compute, batch, run, last=True)
            features = self.kept.outputs_for(self.module, self.device, batch, compute, inputs=asks)
        return {
            **features.outputs,
            POOLED: features.pooled,
            **({} if self.further is None else self.further(features)),
            **({} if self.passes is None else self.passes(run, self._tensors(batch))),
        }

    def _encode(self, tiles: NDArray[np.float32]) -> Tensor:
        if self.kept is None:
            return super()._encode(tiles)

        def compute() -> NetworkFeatures:
            """The features of the tiles as what a network says of them."""
            features = TorchNetwork._encode(self, tiles)
            return network_parts.NetworkFeatures({}, features, features, {})

        return self.kept.outputs_for(self.module, self.device, [tiles], compute, inputs=False).pooled

    def _compute(self, batch: Sequence[Array], run: Any, *, last: bool) -> NetworkFeatures:
        return network_parts.compute_features(run, *self._tensors(batch), at=self.at, last=last, within=self.module)


class PromptedModule(Protocol):
    """A module that encodes an image once, and then answers each prompt."""

    def encode(self, images: Tensor) -> Tensor:
        """What is the same for each prompt."""

    def answer(self, encoded: Tensor, context: Tensor) -> Mapping[str, Tensor]:
        """{head: output} for a prompt."""


@dataclass(frozen=True)
class EncodingNetwork(TorchNetwork):
    """A torch module that takes prompts; what it has encoded of images is kept for their next prompt.

    kept: {content of a batch of images: what the module's `encode` gives}
    """

    kept: dict[bytes, Any] = field(default_factory=dict)

    def __call__(self, *batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        images, *prompts = batch
        key, module = _digest([images]), cast("PromptedModule", self.module)
        with torch.inference_mode():
            if key not in self.kept:
                self.kept[key] = module.encode(torch.from_numpy(images).to(self.device))
            asked = [torch.from_numpy(one).to(self.device) for one in prompts]
            outputs = module.answer(self.kept[key], *asked)
        return {name: output.float().cpu().numpy() for name, output in outputs.items()}


@dataclass(frozen=True, eq=False)
class Networks:
    """One network, or several whose outputs are averaged.

    run:       all of them as one function of NumPy arrays
    architecture: the arguments of `factory.build` without the heads, which follow from the task
    unlike:    as `architecture`, for each of several that are not alike; else empty
    computing: device and backend, and the reason; None where there was no choice
    in_graph:  the method of uncertainty whose figures the networks compute themselves, as exported ones do
    packaged:  how many networks of a package `run` computes as one, without their torch modules; else 0
    """

    run: Network
    architecture: NetworkArguments
    unlike: tuple[NetworkArguments, ...] = ()
    computing: Decision | None = None
    in_graph: str = ""
    packaged: int = 0

    @property
    def average(self) -> AveragedNetwork | None:
        """The networks as one, where they are several; None for a single network."""
        return self.run if isinstance(self.run, AveragedNetwork) else None

    @property
    def members(self) -> tuple[Network, ...]:
        """The networks whose outputs are averaged, or the only network."""
        return averaging.member_networks(self.run)

    @property
    def count(self) -> int:
        """How many networks there are, whoever computes them."""
        return self.packaged or len(self.members)

    @property
    def architectures(self) -> tuple[NetworkArguments, ...]:
        """The arguments of `factory.build` for each of the members."""
        return self.unlike or (self.architecture,) * len(self.members)

    @property
    def shares(self) -> tuple[float, ...] | None:
        """The weight of each member; None where all members count alike."""
        return None if self.average is None else self.average.shares

    @property
    def families(self) -> str:
        """The names of the networks' families."""
        return ", ".join(dict.fromkeys(str(one["name"]) for one in self.architectures))

    @property
    def context(self) -> Context:
        """The covariates and channels that are entries of the networks' context; empty for networks without."""
        return Context.from_settings(self.architecture.get("context"))

    @property
    def deepest(self) -> str:
        """The part of the first network that gives the features; empty where nobody knows, as of another program's."""
        shown = _watch(self.members[0], self.architectures[0])
        return "" if shown is None else shown.at

    def watch(self, further: Further | None = None, passes: Passes | None = None) -> Networks:
        """The networks with their features, of several those of the first; unchanged where it gives none.

        further: adds outputs
        passes:  adds outputs of further passes
        """
        first, *others = self.members
        if (shown := _watch(first, self.architectures[0])) is None:
            return self
        return self._with_members([replace(shown, further=further, passes=passes), *others])

    def encoding(self) -> Networks:
        """The networks; those that take prompts by coordinates encode an image once, however many prompts follow."""
        pairs = zip(map(unwrap_smaller_batches, self.members), self.architectures, strict=True)
        return self._with_members([_encode_once(network, str(settings["name"])) for network, settings in pairs])

    def keeping(self, kept_outputs: KeptOutputs) -> Networks:
        """The networks, none of which computes a batch again that it has kept; those without features compute all."""
        pairs = zip(self.members, self.architectures, strict=True)
        shown = [(network, _watch(network, settings)) for network, settings in pairs]
        return self._with_members(
            [network if one is None else replace(one, kept=kept_outputs) for network, one in shown]
        )

    def _with_members(self, members: Sequence[Network]) -> Networks:
        """The same of other functions of arrays."""
        return replace(self, run=members[0] if self.average is None else replace(self.average, members=tuple(members)))


def _encode_once(network: Network, family: str) -> Network:
    if not isinstance(network, TorchNetwork) or factory.family_of(family).prompts != "coordinates":
        return network
    return EncodingNetwork(network.module, network.device)


def _watch(network: Network, settings: NetworkArguments) -> WatchedNetwork | None:
    """A network of a family that gives its features; None where it gives none, as one of another program."""
    # What computes without torch imports it for no family either.
    if not isinstance(network, TorchNetwork) or type(network) not in (TorchNetwork, WatchedNetwork):
        return None
    name = str(settings["name"])
    if name not in factory.family_names() or not (
        at := factory.family_of(name).features
    ):  # of a bundle its maker's own
        return None
    if isinstance(network, WatchedNetwork):
        return replace(network, at=at)
    return WatchedNetwork(network.module, network.device, at)


# Bytes that outputs may take: of answers about whole images those of 100,000 windows, of 4 channels of 512² those of
# 250 pictures. What does not fit is computed again.
MOST_BYTES, MEMORY_SHARE = 2**30, 0.125


class KeptOutputs:
    """Outputs of networks for batches of windows, each known by its content.

    What comes after a network, such as calibration, sets, draws of its last layer or a gate, may change between two
    predictions of a case; the outputs of the network stay the same to the bit.

    limit: bytes that they may take together; None for the usual
    """

    def __init__(self, limit: int | None = None) -> None:
        self._left = min(MOST_BYTES, int(MEMORY_SHARE * hardware.available_host_memory())) if limit is None else limit
        self._known: dict[tuple[Module, bytes], NetworkFeatures] = {}

    def close(self) -> None:
        """Keep nothing further: what passes from now on is asked for once."""
        self._left = 0

    def outputs_for(
        self,
        module: Module,
        device: str,
        batch: Sequence[NDArray[np.float32]],
        compute: Callable[[], NetworkFeatures],
        *,
        inputs: bool,
    ) -> NetworkFeatures:
        """Outputs of a module on a device for a batch, computed where they are not known.

        inputs: whether what its last layers take is asked for, which is kept of answers about whole images
        """
        key = module, _digest(batch)
        if (earlier := self._known.get(key)) is not None and (earlier.inputs or not inputs):
            return _copy(earlier, device)
        computed = compute()
        of_layers = computed.inputs if all(one.ndim == 2 for one in computed.inputs.values()) else {}
        # Who asks for outputs again has no use for the deepest map.
        features = network_parts.NetworkFeatures(computed.outputs, computed.pooled, computed.pooled, of_layers)
        size = sum(one.nbytes for one in (*features.outputs.values(), features.pooled, *features.inputs.values()))
        if size <= self._left and key not in self._known:
            self._left -= size
            self._known[key] = _copy(features, "cpu")
        return computed


def _digest(batch: Sequence[NDArray[np.float32]]) -> bytes:
    """A digest of what passes a network together."""
    digest = hashlib.blake2b(digest_size=16)
    for array in batch:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _copy(features: NetworkFeatures, device: str) -> NetworkFeatures:
    """The same in memory of its own: whoever gets it may write into it."""

    def copied(tensor: Tensor) -> Tensor:
        return tensor.to(device, copy=True)

    outputs, inputs = (
        {name: copied(one) for name, one in known.items()} for known in (features.outputs, features.inputs)
    )
    pooled = copied(features.pooled)
    return network_parts.NetworkFeatures(outputs, pooled, pooled, inputs)


@dataclass(eq=False)
class SmallerBatches:
    """A network that halves the number of windows at once until they fit, and keeps that number.

    most: windows that may pass together; None while no limit was met
    Raises MemoryShortageError where not even one window fits.
    """

    network: Network
    most: int | None = None

    def __call__(self, batch: NDArray[np.float32], *context: NDArray[np.float32]) -> Mapping[str, Array]:
        return self._in_parts(self.network, batch, *context)

    def encoded(self, tiles: NDArray[np.float32]) -> tuple[Array, ...]:
        """Features of tiles, of each network."""

        def encode(part: Array) -> Mapping[str, Array]:
            """The features of some tiles by the number of the network."""
            return {str(n): one for n, one in enumerate(cast("BagNetwork", self.network).encoded(part))}

        return tuple(self._in_parts(encode, tiles).values())

    def pooled(self, features: Sequence[Array], places: NDArray[np.int64]) -> Mapping[str, Array]:
        """The answer of a bag, whose features are few."""
        return cast("BagNetwork", self.network).pooled(features, places)

    def _in_parts(self, network: Network, batch: Array, *context: Array) -> Mapping[str, Array]:
        parts: list[Mapping[str, Array]] = []
        done = 0
        while done < len(batch):
            size = min(len(batch) - done, self.most or len(batch))
            outputs = self._try(network, *(array[done : done + size] for array in (batch, *context)))
            if outputs is None:
                self.most = size // 2
                log.warning(
                    "memory ran out with %s at once: from now on %d", errors.count_phrase(size, "window"), self.most
                )
                continue
            parts.append(outputs)
            done += size
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _try(self, network: Network, windows: Array, *context: Array) -> Mapping[str, Array] | None:
        """The outputs; None where memory ran out. The memory of the attempt is freed before the next one."""
        try:
            return network(windows, *context)
        except MEMORY_ERRORS as error:
            if not errors.is_out_of_memory(error):
                raise
            if len(windows) > 1:
                return None
            raise MemoryShortageError(
                f"not even one window of {windows.shape[1:]} fits into memory ({str(error).splitlines()[0]})",
                "network",
                "Close other programs, take another --device, or a machine with more memory",
            ) from error


def in_smaller_batches(network: Network) -> Network:
    """The network with that behaviour; one that has it already stays as it is."""
    return network if isinstance(network, SmallerBatches) else SmallerBatches(network)


def unwrap_smaller_batches(network: Network) -> Network:
    """The network itself, without what only makes its batches smaller."""
    while isinstance(network, SmallerBatches):
        network = network.network
    return network


def build_module(task: Task, network: NetworkArguments) -> Module:
    """The torch module that these settings name, with fresh weights.

    The entry "marked" is the number of labels of a first stage: their numbers are the last channel of the input, and
    each becomes a channel of the family's network. "first_entry" is where its covariates begin in a context of several
    networks. "dropout" is the share that dropout leaves out in training. "embedded" is how many numbers the family's
    network gives in place of its answer, which a layer makes of them.
    Raises PlanError for settings that the family cannot have.
    """
    context = len(Context.from_settings(network.get("context")))
    marked = network.get("marked", 0)
    channels = network["channels"]
    inputs = channels - 1 + marked if marked else channels
    fusion = cast("FusionSettings | None", network.get("fusion"))
    name, share, family = network["name"], network.get("dropout", 0.0), factory.family_of(network["name"])
    if not isinstance(network["size"].get(BAYESIAN, False), bool):
        raise PlanError(f"{BAYESIAN} {network['size'][BAYESIAN]!r}", "network.size", "Give true or false")
    size = dropout.settings_with_dropout(name, family, network["size"], share) if share else network["size"]
    module = factory.build(
        name, inputs, network["spatial_dims"], family_heads(task.heads, network), size, context, fusion
    )
    module = dropout.add_block_dropout(module, family, share) if share else module
    module = _with_variational_layers(module, name) if size.get(BAYESIAN) else module
    module = quick_convolutions.with_quick_single_volumes(module)
    if numbers := network.get(EMBEDDED):
        [(head, answer)] = task.heads.items()
        module = bundle.network.OnNormedFeatures(module, head, numbers, answer.count)
    moving = displacing_heads(task.heads)
    module = bundle.network.Displacing(module, moving) if moving else module
    added = added_inputs(task.heads)
    module = bundle.network.Correcting(module, added) if added else module
    module = bundle.network.AfterLabels(module, marked) if marked else module
    return bundle.network.OnItsEntries(module, network["first_entry"], context) if "first_entry" in network else module


def family_heads(heads: Mapping[str, Head], network: NetworkArguments) -> Mapping[str, Head]:
    """The heads of the family's own network, which gives so many numbers where a layer makes the answer of them."""
    return {name: Vector(network[EMBEDDED]) for name in heads} if network.get(EMBEDDED) else heads


def _with_variational_layers(module: Module, name: str) -> Module:
    """The module with distributions of weights as last layers; PlanError where these are not linear."""
    try:
        return bundle.network.with_variational_layers(module)
    except ValueError as error:
        remedy = f"Leave {BAYESIAN} out of network.size, or choose another --set network.name, such as vit or resnet"
        raise PlanError(f"{name}: {error}", "network.size", remedy) from error


def variational_layers(module: Module) -> list[VariationalLayer]:
    """The layers of a module whose weights are distributions."""
    return [part for part in module.modules() if isinstance(part, bundle.network.VariationalLayer)]


def displacing_heads(heads: Mapping[str, Head]) -> dict[str, int]:
    """{head: axes} of those that displace voxels, and so are velocities of the family's network."""
    return {name: head.count for name, head in heads.items() if head.moves}


def added_inputs(heads: Mapping[str, Head]) -> dict[str, list[int]]:
    """{head: channels of the input} of those that answer with an image on its scale, to which the input is added."""
    return {name: list(head.of_input) for name, head in heads.items() if head.of_input}


@dataclass(frozen=True, eq=False)
class Differentiable:
    """The networks of a model as modules whose outputs have gradients by their inputs.

    modules:  one a member; they share the model's weights, which get no gradients, and may be hooked and changed:
              nobody else has these modules
    families: the name of each one's family, for `networks.family_of`
    shares:   the weight of each member, in sum 1
    """

    modules: tuple[Module, ...]
    families: tuple[str, ...]
    shares: tuple[float, ...]
    device: str

    @classmethod
    def from_networks(cls, networks: Networks) -> Differentiable:
        """The networks of a model; UsageError for one that computes without torch."""
        run, computing = unwrap_smaller_batches(networks.run), networks.computing
        members = averaging.member_networks(run)
        if unlike := [one for one in members if not isinstance(one, TorchNetwork)]:
            what = computing.value if computing is not None else type(unlike[0]).__name__
            problem = f"the model computes without torch ({what}), which gives no gradients and shows no inner maps"
            raise UsageError(problem, "--method", "Choose occlusion or rise, or load it with --backend torch")
        torch_networks = [one for one in members if isinstance(one, TorchNetwork)]
        shares = (run.shares if isinstance(run, AveragedNetwork) else None) or (1 / len(torch_networks),) * len(
            torch_networks
        )
        names = tuple(str(one["name"]) for one in networks.architectures)
        device = torch_networks[0].device
        return cls(tuple(frozen_twin(one.module).to(device) for one in torch_networks), names, shares, device)

    def run_of(self, index: int) -> Callable[[Tensor, Tensor | None], Mapping[str, Tensor]]:
        """One member: (batch, channels, *window) images and (batch, entries) covariates to {head: tensor}."""
        module = self.modules[index]
        return lambda images, context: module(*(one for one in (images, context) if one is not None))


def frozen_twin(module: Module, *, shared: bool = True) -> Module:
    """The module once more, in evaluation mode, without gradients of its weights and without steps in place.

    shared: its weights lie in the same memory; else they are its own
    """
    tensors = [*module.parameters(), *module.buffers()]
    with torch.inference_mode(False):
        memo: dict[int, Any] = {id(one): _frozen(one, shared=shared) for one in tensors}
        copied = copy.deepcopy(module, memo)
    for part in copied.modules():
        if getattr(part, "inplace", False):  # what a step in place overwrites has no gradient any more
            vars(part)["inplace"] = False
    return copied.eval()


def _frozen(tensor: Tensor, *, shared: bool) -> Tensor:
    values = tensor.detach() if shared and not tensor.is_inference() else tensor.detach().clone()
    return torch.nn.Parameter(values, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else values
