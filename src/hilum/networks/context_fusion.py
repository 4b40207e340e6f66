"""Fusion of covariates with image features: by concatenation, feature-wise linear modulation or cross-attention.

Covariates are concatenated to the features, scale and shift them (FiLM, Perez et al., arXiv:1709.07871), or each voxel
of the feature maps attends to them (Vaswani et al., arXiv:1706.03762). The last two change nothing at first. Thousands
of covariates are first reduced to a few features, and so are readings along time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from hilum.networks.network_family import Family, SizeFor

if TYPE_CHECKING:
    from hilum.networks.network_family import FusionSettings

# "tokens" is for families that turn covariates into tokens themselves.
METHODS = ("concatenate", "film", "attention", "tokens")
HIDDEN = 32  # features of the hidden layer for covariates
COURSE_FEATURES = 16  # features of readings along time
ALONG = 5  # intervals of time that a convolution sees
# width of a token, and heads of the attention
TOKEN = 64
HEADS = 4
ADDED = "+"  # the output that a network in training adds to the loss of each sample


class Film(nn.Module):
    """Feature-wise linear modulation: covariates scale and shift each map, at first not at all.

    arXiv:1709.07871, section 2.1, with one hidden layer
    """

    def __init__(self, entries: int, maps: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(entries, HIDDEN)
        self.activation = nn.ReLU()
        self.affine = nn.Linear(HIDDEN, 2 * maps)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)

    def forward(self, maps: Tensor, covariates: Tensor) -> Tensor:
        """Return maps of the same shape."""
        scale, shift = self.affine(self.activation(self.hidden(covariates))).chunk(2, dim=1)
        places = (*scale.shape, *[1] * (maps.ndim - 2))
        return cast("Tensor", maps * (1 + scale.reshape(places)) + shift.reshape(places))


class CovariateAttention(nn.Module):
    """Cross-attention: each voxel of the maps attends to the covariates and adds the result, which is 0 at first.

    Each covariate is a token: a learnt direction, times its number, plus a learnt embedding of which covariate it is,
    as in Gorishniy et al., arXiv:2106.11959.
    """

    def __init__(self, entries: int, maps: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.empty(entries, TOKEN))
        self.of_entry = nn.Parameter(torch.empty(entries, TOKEN))
        for embedding in (self.directions, self.of_entry):
            nn.init.normal_(embedding, std=TOKEN**-0.5)
        self.norm = nn.LayerNorm(maps)
        self.query = nn.Linear(maps, TOKEN)
        self.key = nn.Linear(TOKEN, TOKEN)
        self.value = nn.Linear(TOKEN, TOKEN)
        self.taken = nn.Linear(TOKEN, maps)
        nn.init.zeros_(self.taken.weight)
        nn.init.zeros_(self.taken.bias)

    def forward(self, maps: Tensor, covariates: Tensor) -> Tensor:
        """Return maps of the same shape."""
        places = (maps if maps.ndim > 2 else maps.unsqueeze(2)).flatten(2).transpose(1, 2)
        tokens = covariates.unsqueeze(2) * self.directions + self.of_entry
        query, key, value = map(split_by_head, (self.query(self.norm(places)), self.key(tokens), self.value(tokens)))
        shares = torch.softmax(query @ key.transpose(2, 3) / math.sqrt(TOKEN / HEADS), dim=3)
        change = self.taken((shares @ value).transpose(1, 2).flatten(2))
        return cast("Tensor", maps + change.transpose(1, 2).reshape(maps.shape))


def split_by_head(tokens: Tensor) -> Tensor:
    """(batch, tokens, width) to (batch, heads, tokens, width of a head)"""
    return cast("Tensor", tokens.unflatten(2, (HEADS, TOKEN // HEADS)).transpose(1, 2))


class CovariateReduction(nn.Module):
    """Many covariates reduced to a few features by a sparse layer, whose weights are 0 at first.

    sparsity: factor of the group lasso that is added to a sample's loss, the sum of the norms of each covariate's
              weights: uninformative covariates keep none. Scardapane et al., arXiv:1607.00485.
    """

    def __init__(self, entries: int, features: int, sparsity: float) -> None:
        super().__init__()
        self.weigh = nn.Linear(entries, features)
        self.sparsity = sparsity
        nn.init.zeros_(self.weigh.weight)
        nn.init.zeros_(self.weigh.bias)

    def forward(self, context: Tensor) -> Tensor:
        """Return (batch, features)."""
        return torch.tanh(self.weigh(context))

    def cost(self) -> Tensor:
        """The penalty of the group lasso; a norm of 0 has no gradient."""
        return self.sparsity * self.weigh.weight.square().sum(dim=0).clamp_min(1e-12).sqrt().sum()


class CourseReduction(nn.Module):
    """Readings along time reduced to a few features, by convolutions along time and a linear layer.

    courses, stretches: number of readings, and of intervals of time; two entries each, the values first
    """

    def __init__(self, courses: int, stretches: int) -> None:
        super().__init__()
        self.courses = courses
        self.stretches = stretches
        left = (stretches + 3) // 4
        self.along = nn.Sequential(
            nn.Conv1d(2 * courses, HIDDEN, ALONG, 2, ALONG // 2),
            nn.ReLU(),
            nn.Conv1d(HIDDEN, HIDDEN, ALONG, 2, ALONG // 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(HIDDEN * left, COURSE_FEATURES),
        )

    @property
    def entries(self) -> int:
        """Number of entries of the context that hold readings along time."""
        return 2 * self.courses * self.stretches

    def forward(self, context: Tensor) -> Tensor:
        """Return (batch, features), of the first entries of (batch, entries)."""
        read = context[:, : self.entries].reshape(-1, 2 * self.courses, self.stretches)
        return torch.tanh(self.along(read))


class ContextFusion(nn.Module):
    """Covariates in a network: calling it turns a context, (batch, entries), into their features, or None without any.

    entries:  of the context; 0 for a network without covariates
    maps:     {place: feature maps} of the places in the network that covariates can modulate
    method:   "concatenate", "film", "attention", or "tokens" for a family that makes tokens of them itself
    narrow:   features that the entries, but those along time, are first reduced to; 0 for none
    sparsity: factor of the penalty for the weights of that layer
    courses:  number of readings along time, and of intervals of time; they are the first entries
    `joining` is the number of features that `concatenate` adds to the image's.
    """

    def __init__(
        self,
        entries: int,
        maps: Mapping[int, int],
        method: str = "concatenate",
        narrow: int = 0,
        sparsity: float = 0.0,
        courses: Sequence[int] = (0, 0),
    ) -> None:
        super().__init__()
        if method not in METHODS:
            raise ValueError(f"there is no method {method!r}, only {', '.join(METHODS)}")
        if narrow < 0 or sparsity < 0:
            raise ValueError(f"narrow {narrow} and sparsity {sparsity} are 0 or more")
        self.entries = entries
        self.hearing = CourseReduction(*courses) if entries and courses[0] else None
        rest = entries - (0 if self.hearing is None else self.hearing.entries)
        self.narrow = CovariateReduction(rest, narrow, sparsity) if rest and narrow else None
        self.features = (narrow if self.narrow is not None else rest) + (0 if self.hearing is None else COURSE_FEATURES)
        # A single weight learns slowly: 200 steps do not make it large. The hidden layer multiplies two.
        self.aside = nn.Linear(self.features, HIDDEN) if method == "concatenate" and entries else None
        self.joining = self.features + HIDDEN if self.aside is not None else 0
        modulation = {"film": Film, "attention": CovariateAttention}.get(method) if entries else None
        at = (
            {}
            if modulation is None
            else {str(place): modulation(self.features, count) for place, count in maps.items()}
        )
        self.at = nn.ModuleDict(at)

    def forward(self, context: Tensor | None) -> Tensor | None:
        """Return (batch, features), or None without covariates; ValueError for another number of entries."""
        if (0 if context is None else int(context.shape[1])) != self.entries:
            raise ValueError(f"each image needs {self.entries} covariates")
        if context is None or self.hearing is None:
            return context if self.narrow is None else self.narrow(context)
        rest = context[:, self.hearing.entries :]
        return torch.cat([self.hearing(context), rest if self.narrow is None else self.narrow(rest)], dim=1)

    def modulate(self, maps: Tensor, covariates: Tensor | None, place: int = 0) -> Tensor:
        """The image's features, (batch, maps, *spatial) or (batch, maps), modulated by covariates at this place."""
        return self.at[str(place)](maps, covariates) if str(place) in self.at else maps

    def modulate_levels(self, levels: Iterable[Tensor], covariates: Tensor | None) -> list[Tensor]:
        """The maps of each level of a pyramid, finest first, modulated by covariates; a level's number is its place."""
        return [self.modulate(maps, covariates, place) for place, maps in enumerate(levels)]

    def concatenate(self, features: Tensor, covariates: Tensor | None) -> Tensor:
        """The image's features with those of covariates concatenated: (batch, features + joining)."""
        if self.aside is None or covariates is None:
            return features
        return torch.cat([features, covariates, torch.relu(self.aside(covariates))], dim=1)

    def penalties(self, images: Tensor) -> dict[str, Tensor]:
        """The penalty that a network in training adds to the loss of each sample, by the output's name."""
        return {} if self.narrow is None or not self.training else {ADDED: self.narrow.cost().expand(images.shape[0])}

    def answers(self, layers: nn.ModuleDict, features: Tensor, covariates: Tensor | None) -> dict[str, Tensor]:
        """{head: (batch, size)}: the outputs of the last layers for (batch, features) of the image."""
        joined = self.concatenate(features, covariates)
        return {**{name: layer(joined) for name, layer in layers.items()}, **self.penalties(joined)}


def pyramid_fusion(levels: int, maps: int, context: int, fusion: FusionSettings | None) -> ContextFusion:
    """Covariates in a network of boxes or objects: they scale and shift the maps of each level of its pyramid.

    context: number of covariates; fusion: settings of `ContextFusion`
    """
    settings: FusionSettings = {"method": "film", **(fusion or {})}
    return ContextFusion(context, dict.fromkeys(range(levels), maps), **settings)


# The end of networks for whole-image outputs: pooled features, covariates and a linear layer for each head.


class PooledHead(nn.Module):
    """A network that ends in pooled features; its layers and its last ones are attributes of one module.

    A family's class has `make_layers`, which takes its settings, or makes its layers and then calls `end`. Where `body`
    is all of them, this `forward` does.
    context, fusion: as for `end`; size: the settings
    """

    body: nn.Module
    # (channels, spatial_dims, **size) to (number of pooled features, dropout before the heads)
    make_layers: Callable[..., tuple[int, float]]

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        vectors: Mapping[str, int],
        context: int = 0,
        fusion: FusionSettings | None = None,
        **size: Any,
    ) -> None:
        super().__init__()
        features, dropout = self.make_layers(channels, spatial_dims, **size)
        self.end(features, vectors, dropout, context, fusion)

    def end(
        self, features: int, vectors: Mapping[str, int], dropout: float, context: int, fusion: FusionSettings | None
    ) -> None:
        """Make the last layers, for so many features.

        context: number of covariates
        fusion:  settings of `ContextFusion`; without them covariates are concatenated before the last layer
        """
        self.dropout = nn.Dropout(dropout)
        self.telling = ContextFusion(context, {0: features}, **(fusion or {}))
        inputs = features + self.telling.joining
        self.vectors = nn.ModuleDict({name: nn.Linear(inputs, size) for name, size in vectors.items()})

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return {head: (batch, size)} of (batch, channels, *spatial) images and (batch, context) covariates."""
        return self.answers(self.body(images), context)

    def answers(self, maps: Tensor, context: Tensor | None) -> dict[str, Tensor]:
        """{head: (batch, size)} of (batch, maps, *spatial)."""
        covariates = self.telling(context)
        pooled = self.pool(self.telling.modulate(maps, covariates))
        return self.telling.answers(self.vectors, self.dropout(pooled), covariates)

    def answers_of(self, features: Tensor, context: Tensor | None) -> dict[str, Tensor]:
        """{head: (batch, size)} of (batch, features), pooled and after dropout; covariates then modulate them."""
        covariates = self.telling(context)
        return self.telling.answers(self.vectors, self.telling.modulate(features, covariates), covariates)

    def pool(self, maps: Tensor) -> Tensor:
        """(batch, maps) of (batch, maps, *spatial): their mean."""
        return maps.flatten(2).mean(dim=2)


def pooled_family(build: Callable[..., nn.Module], size_for: SizeFor, paper: str, **more: Any) -> Family:
    """A family of networks that end in a `PooledHead`; more: further fields of the family."""
    methods = ("concatenate", "film", "attention")
    more = {"features": "body", **more}
    return Family(build, size_for, paper, answers=frozenset({"vector"}), takes_context=methods, **more)
