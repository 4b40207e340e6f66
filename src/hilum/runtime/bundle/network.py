"""Torch modules around networks, and last layers in place of theirs.

One tensor as MONAI wants it, labels as input, scales, a context, movement, distributions of weights.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

# Times that a small displacement is composed with itself: 2**6 steps of a path.
SQUARINGS = 6
# Voxels of an axis that is halved for that.
FEWEST_HALVED = 8
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
# Initial standard deviation of a weight, as a share of its prior's: small, to disturb the first steps little.
FIRST_DEVIATION = 0.1
# The first displacements and corrections, as a share of what fresh weights give: at first images stay as they are.
FIRST = 1e-2


class OneTensor(nn.Module):
    """(batch, channels, *patch) to the outputs of one head, (batch, outputs, *patch) or (batch, outputs).

    networks: of one model, or of the folds of one
    mean:     of several: "probabilities" gives the logarithm of their mean, which says the same as the mean does;
              "outputs" the mean of the outputs themselves
    shares:   how much each counts, together 1; None where all count alike
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        head: str,
        mean: str = "probabilities",
        shares: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.head = head
        self.mean = mean
        self.shares = shares

    def forward(self, images: Tensor, context: Tensor | None = None) -> Tensor:
        """(batch, channels, *patch) to (batch, outputs, *patch) or (batch, outputs)."""
        tensors = [outputs[self.head] for outputs in outputs_of_networks(self.networks, images, context)]
        return average_outputs(tensors, self.mean, self.shares)


class EveryHead(nn.Module):
    """(batch, channels, *patch) to one tensor for each of several heads, as `OneTensor` gives it for one.

    means:  {head: of several networks, as in `OneTensor`}
    shares: as there
    """

    def __init__(
        self, networks: Sequence[nn.Module], means: Mapping[str, str], shares: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.means = dict(means)
        self.shares = shares

    def forward(self, images: Tensor, context: Tensor | None = None) -> tuple[Tensor, ...]:
        """(batch, channels, *patch) to one tensor per head."""
        outputs = outputs_of_networks(self.networks, images, context)
        return tuple(
            average_outputs([one[head] for one in outputs], mean, self.shares) for head, mean in self.means.items()
        )


def outputs_of_networks(networks: nn.ModuleList, images: Tensor, context: Tensor | None) -> list[Mapping[str, Tensor]]:
    """The outputs of each network for images, with their context where it has one."""
    inputs = (images,) if context is None else (images, context)
    return [network(*inputs) for network in networks]


def average_outputs(outputs: Sequence[Tensor], mean: str, shares: Sequence[float] | None = None) -> Tensor:
    """The mean of several networks' outputs; the output of a single network."""
    if len(outputs) == 1:
        return outputs[0]
    counted = shares or [1 / len(outputs)] * len(outputs)
    if mean == "outputs":
        return torch.stack([one.float() * share for one, share in zip(outputs, counted, strict=True)]).sum(dim=0)
    pairs = zip(outputs, counted, strict=True)
    return torch.stack([one.float().log_softmax(dim=1) + math.log(share) for one, share in pairs]).logsumexp(dim=0)


class AfterLabels(nn.Module):
    """A network whose input has a channel for each label that a first stage marked.

    labels: how many; their numbers, from 1 on, are the last channel of the input, and each becomes a channel of 0 and 1
    """

    def __init__(self, network: nn.Module, labels: int) -> None:
        super().__init__()
        self.network = network
        self.labels = labels

    def forward(self, images: Tensor, context: Tensor | None = None) -> Mapping[str, Tensor]:
        """(batch, channels, *patch) to the network's outputs."""
        numbers = torch.arange(1, self.labels + 1, device=images.device, dtype=images.dtype)
        marked = images[:, -1:] == numbers.reshape(1, -1, *[1] * (images.ndim - 2))
        joined = torch.cat([images[:, :-1], marked.to(images.dtype)], dim=1)
        outputs: Mapping[str, Tensor] = self.network(joined) if context is None else self.network(joined, context)
        return outputs


class OnItsEntries(nn.Module):
    """A network that takes its own entries of a context that holds those of several networks.

    first: where they begin; count: how many they are, 0 for a network of images only
    """

    def __init__(self, network: nn.Module, first: int, count: int) -> None:
        super().__init__()
        self.network = network
        self.first = first
        self.count = count

    def forward(self, images: Tensor, context: Tensor | None = None) -> Mapping[str, Tensor]:
        """(batch, channels, *patch) and (batch, entries of all) to the network's outputs."""
        entries = () if context is None or not self.count else (context[:, self.first : self.first + self.count],)
        outputs: Mapping[str, Tensor] = self.network(images, *entries)
        return outputs


class OnItsScale(nn.Module):
    """A network that was trained on another scale of intensities than the images come in.

    The scale is part of its state. (channels,) each: images * scale + offset, held within low and high. A channel that
    is 0 throughout is not there, and stays so.
    """

    scale: Tensor
    offset: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__()
        self.network = network
        for name in ("scale", "offset", "low", "high"):
            self.register_buffer(name, torch.ones(channels))

    def forward(self, images: Tensor, context: Tensor | None = None) -> Mapping[str, Tensor]:
        """(batch, channels, *patch) to the network's outputs."""
        per_channel = (1, -1, *[1] * (images.ndim - 2))
        scaled = images * self.scale.reshape(per_channel) + self.offset.reshape(per_channel)
        is_present = images.abs().amax(dim=tuple(range(2, images.ndim)), keepdim=True) > 0
        clamped = scaled.clamp(self.low.reshape(per_channel), self.high.reshape(per_channel)) * is_present
        outputs: Mapping[str, Tensor] = self.network(clamped) if context is None else self.network(clamped, context)
        return outputs


class OnNormedFeatures(nn.Module):
    """A network whose answer is a linear layer on its numbers for the whole image, brought to the length 1.

    head: of the network; numbers: it gives; outputs: of the layer
    """

    def __init__(self, network: nn.Module, head: str, numbers: int, outputs: int) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self.last = nn.Linear(numbers, outputs)

    def forward(self, images: Tensor, context: Tensor | None = None) -> Mapping[str, Tensor]:
        """(batch, channels, *patch) to the outputs of one head, (batch, outputs)."""
        outputs = self.network(images) if context is None else self.network(images, context)
        return {self.head: self.last(nn.functional.normalize(outputs[self.head].float(), dim=1))}


class Displacing(nn.Module):
    """A network that answers with displacements, in voxels along each axis: the exponential of its velocities.

    Dalca et al., Med Image Anal 2019, arXiv:1903.03545. Packages, folds and means of networks so deal in displacements.
    Coarser outputs, which it may have in training, are left out.
    counts: {head: axes}, of the heads that displace voxels
    """

    def __init__(self, network: nn.Module, counts: Mapping[str, int]) -> None:
        super().__init__()
        self.network = network
        self.counts = dict(counts)
        _say_little(network, self.counts.values())

    def forward(self, images: Tensor, context: Tensor | None = None) -> Mapping[str, Tensor]:
        """(batch, channels, *patch) to outputs by head; those that displace are (batch, axes, *patch)."""
        outputs = self.network(images) if context is None else self.network(images, context)
        kept_outputs = {name: one for name, one in outputs.items() if name.partition("@")[0] not in self.counts}
        return {**kept_outputs, **{name: integrate_velocity(outputs[name].float()) for name in self.counts}}


def _say_little(network: nn.Module, counts: Collection[int]) -> None:
    """Make fresh weights of the last layers small, which are known by the numbers of their outputs."""
    for layer in network.modules():
        is_last = isinstance(layer, nn.modules.conv._ConvNd) and layer.out_channels in counts
        for weight in layer.parameters(recurse=False) if is_last else ():
            weight.data.mul_(FIRST)


class Correcting(nn.Module):
    """A network that answers with an image: channels of its input, to each of which it adds what it says.

    Zhang et al., IEEE Trans Image Process 2017, arXiv:1608.03981. Coarser outputs, which it may have in training, are
    left out. Fresh weights change little.
    added: {head: channels of the input that are added to its first outputs}
    """

    def __init__(self, network: nn.Module, added: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.network = network
        self.added = {name: list(channels) for name, channels in added.items()}
        _say_little(network, [times * len(channels) for channels in self.added.values() for times in (1, 2)])

    def forward(self, images: Tensor, context: Tensor | None = None) -> Mapping[str, Tensor]:
        """(batch, channels, *patch) to outputs by head."""
        outputs = self.network(images) if context is None else self.network(images, context)
        kept_outputs = {name: one for name, one in outputs.items() if name.partition("@")[0] not in self.added}
        for name, channels in self.added.items():
            answer, count = outputs[name], len(channels)
            # In all of float32: half the bits would round the image itself.
            corrected = answer[:, :count].float() + images[:, channels].float()
            kept_outputs[name] = torch.cat([corrected, answer[:, count:].float()], dim=1)
        return kept_outputs


class VariationalLayer(nn.Module):
    """(batch, inside, ...) to (batch, outside, ...) by normally distributed weights: samples in training, else means.

    Blundell et al., arXiv:1505.05424, with the local reparametrisation of Kingma et al., arXiv:1506.02557: not weights
    are sampled, but outputs, for each place anew. Each weight's prior is normal around 0 with a variance of 1 / inside,
    so that an output for normalised features has a variance of about 1. A bias is a number.
    layer:     linear, or a convolution of single voxels, whose weights are the first means
    log_ratio: logarithm of a weight's standard deviation over its prior's
    """

    def __init__(self, layer: nn.Linear | nn.modules.conv._ConvNd) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.prior = layer.weight.shape[1] ** -0.5
        self.log_ratio = nn.Parameter(torch.full_like(layer.weight, math.log(FIRST_DEVIATION)))

    def forward(self, features: Tensor) -> Tensor:
        """(batch, outside, ...), by sampled weights in training and by their means otherwise."""
        mean = _linear(features, self.weight, self.bias)
        return mean + self.deviations(features) * torch.randn_like(mean) if self.training else mean

    def deviations(self, features: Tensor) -> Tensor:
        """(batch, outside, ...) standard deviations of the outputs by sampled weights."""
        return _linear(features.square(), (self.prior * self.log_ratio.exp()).square()).sqrt()

    def divergence(self) -> Tensor:
        """Kullback-Leibler divergence of the weights' distributions from their prior, in nats."""
        each = (2 * self.log_ratio).exp() + (self.weight / self.prior).square() - 1 - 2 * self.log_ratio
        return cast("Tensor", each.sum() / 2)


def _linear(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return nn.functional.linear(features.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)


def with_variational_layers(network: nn.Module) -> nn.Module:
    """The network of a family with distributions in place of its last layers, which lie in `vectors` and `dense`.

    Raises ValueError where a last layer is none, or is more than a sum of the inputs of its own place.
    """
    groups = [one for name in ("vectors", "dense") if isinstance(one := getattr(network, name, None), nn.ModuleDict)]
    if not any(len(group) for group in groups):
        raise ValueError("it has no last layer whose weights could be distributions")
    for group in groups:
        for head, layer in group.items():
            if not is_linear(layer):
                raise ValueError(f"the last layer of {head} is not linear, so that its weights are no distributions")
            group[head] = VariationalLayer(layer)  # type: ignore[arg-type]  # torch takes any module that is linear
    return network


def is_linear(layer: nn.Module) -> bool:
    """Whether each output is a sum of the inputs of its own place, and a bias."""
    if getattr(layer, "bias", None) is None or getattr(layer, "groups", 1) != 1:
        return False
    ones = {*getattr(layer, "kernel_size", ()), *getattr(layer, "stride", ())} <= {1}
    return isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) and ones


def integrate_velocity(velocity: Tensor) -> Tensor:
    """(batch, axes, *spatial) displacement in voxels of one unit of time, by scaling and squaring on half the grid.

    Arsigny et al., MICCAI 2006, doi:10.1007/11866565_113; on half the grid as in arXiv:1903.03545: it is smooth
    """
    spatial = velocity.shape[2:]
    half = [-(-size // 2) if size >= FEWEST_HALVED else size for size in spatial]
    factors = [new / old for new, old in zip(half, spatial, strict=True)]
    ratio = torch.tensor(factors, dtype=velocity.dtype, device=velocity.device).reshape(1, -1, *[1] * len(spatial))
    mode = LINEAR[len(spatial)]
    shift = nn.functional.interpolate(velocity, half, mode=mode) * ratio / 2**SQUARINGS
    for _ in range(SQUARINGS):
        shift = shift + displace(shift, shift)
    return nn.functional.interpolate(shift, list(spatial), mode=mode) / ratio


def displace(images: Tensor, field: Tensor) -> Tensor:
    """(batch, channels, *spatial) read at the places to which a field, (batch, axes, *spatial) in voxels, leads.

    Between voxels linearly; beyond the edge the edge goes on.
    """
    spatial = field.shape[2:]
    lines = [torch.arange(size, dtype=field.dtype, device=field.device) for size in spatial]
    places = torch.stack(torch.meshgrid(*lines, indexing="ij")) + field
    last = torch.tensor([max(size - 1, 1) for size in spatial], dtype=field.dtype, device=field.device)
    at = (2 * places.movedim(1, -1) / last - 1).flip(-1)
    return nn.functional.grid_sample(images, at, mode="bilinear", padding_mode="border", align_corners=True)
