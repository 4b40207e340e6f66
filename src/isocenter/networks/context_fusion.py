"""How a network is told what is known of a patient beside the image; a part of many families, which travels with each.

Numbers beside the image join its features, scale and shift them (Perez et al., arXiv:1709.07871), or are asked by each
place of the image for what it needs (Vaswani et al., arXiv:1706.03762). Scaling and asking begin as if nothing had been
told. Thousands of numbers are first brought down to a few, and so is what was read along time. This file needs torch
alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

# "tokens" is the way of families whose images are tokens too: they do it themselves.
METHODS = ("concatenate", "film", "attention", "tokens")
HIDDEN = 32  # features between what is told and the factors that follow from it
COURSE_FEATURES = 16  # features of what was read along time
ALONG = 5  # stretches of time that a convolution sees at once
TOKEN, HEADS = 64, 4  # width of a token, and among how many heads it is shared
ADDED = "+"  # what a network in training adds to the loss of each sample


class Film(nn.Module):
    """Each map scaled by 1 + a factor and shifted, as what is told says; at first by nothing.

    Feature-wise linear modulation, arXiv:1709.07871, section 2.1, by one hidden layer
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
        return maps * (1 + scale.reshape(places)) + shift.reshape(places)


class Asking(nn.Module):
    """Each place of the image asks the entries, and adds what it takes from them; at first nothing.

    An entry is a token: a learnt direction, times its number, plus a learnt embedding of which one it is, as in
    Gorishniy et al., arXiv:2106.11959.
    """

    def __init__(self, entries: int, maps: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.empty(entries, TOKEN))
        self.of_entry = nn.Parameter(torch.empty(entries, TOKEN))
        for one in (self.directions, self.of_entry):
            nn.init.normal_(one, std=TOKEN**-0.5)
        self.norm, self.query = nn.LayerNorm(maps), nn.Linear(maps, TOKEN)
        self.key, self.value = nn.Linear(TOKEN, TOKEN), nn.Linear(TOKEN, TOKEN)
        self.taken = nn.Linear(TOKEN, maps)
        nn.init.zeros_(self.taken.weight)
        nn.init.zeros_(self.taken.bias)

    def forward(self, maps: Tensor, covariates: Tensor) -> Tensor:
        """Return maps of the same shape."""
        places = (maps if maps.ndim > 2 else maps.unsqueeze(2)).flatten(2).transpose(1, 2)
        tokens = covariates.unsqueeze(2) * self.directions + self.of_entry
        query, key, value = (
            by_head(self.query(self.norm(places))),
            by_head(self.key(tokens)),
            by_head(self.value(tokens)),
        )
        shares = torch.softmax(query @ key.transpose(2, 3) / math.sqrt(TOKEN / HEADS), dim=3)
        found = self.taken((shares @ value).transpose(1, 2).flatten(2))
        return maps + found.transpose(1, 2).reshape(maps.shape)


def by_head(tokens: Tensor) -> Tensor:
    """(batch, tokens, width) to (batch, heads, tokens, width of a head)"""
    return tokens.unflatten(2, (HEADS, TOKEN // HEADS)).transpose(1, 2)


class Narrow(nn.Module):
    """Many entries brought down to a few features, by weights that begin at 0 and cost something.

    sparsity: times the length of each entry's weights, summed over the entries, is what a sample's loss has beside it:
              an entry that tells nothing keeps none. The group lasso of Scardapane et al., arXiv:1607.00485.
    """

    def __init__(self, entries: int, features: int, sparsity: float) -> None:
        super().__init__()
        self.weigh, self.sparsity = nn.Linear(entries, features), sparsity
        nn.init.zeros_(self.weigh.weight)
        nn.init.zeros_(self.weigh.bias)

    def forward(self, context: Tensor) -> Tensor:
        """Return (batch, features)."""
        return torch.tanh(self.weigh(context))

    def cost(self) -> Tensor:
        """Of the weights; a length has no direction at 0, and takes none there."""
        return self.sparsity * self.weigh.weight.square().sum(dim=0).clamp_min(1e-12).sqrt().sum()


class Courses(nn.Module):
    """What was read along time, and when, become a few features: by convolutions along it, then all that is left.

    courses, stretches: how many are read, and in how many stretches of time; two entries each, the values first
    """

    def __init__(self, courses: int, stretches: int) -> None:
        super().__init__()
        self.courses, self.stretches = courses, stretches
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
        """How many entries of the context the courses fill."""
        return 2 * self.courses * self.stretches

    def forward(self, context: Tensor) -> Tensor:
        """(batch, features) of the first entries of (batch, entries)"""
        read = context[:, : self.entries].reshape(-1, 2 * self.courses, self.stretches)
        return torch.tanh(self.along(read))


class ContextFusion(nn.Module):
    """What a family does with a context, (batch, entries): calling it gives what is told, or None where nothing is.

    entries:  of the context; 0 where there is none
    courses:  how many of it are read along time, and in how many stretches: they are its first
    maps:     {place: feature maps} of the places in the network that can be told
    method:   "concatenate", "film", "attention", or "tokens" for a family that does it itself
    narrow:   features that the other entries are brought down to first; 0 for none
    sparsity: what the weights of that layer cost
    joining:  how many numbers join the image's features before the last layers
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
        self.hearing = Courses(*courses) if entries and courses[0] else None
        rest = entries - (0 if self.hearing is None else self.hearing.entries)
        self.narrow = Narrow(rest, narrow, sparsity) if rest and narrow else None
        self.features = (narrow if self.narrow is not None else rest) + (0 if self.hearing is None else COURSE_FEATURES)
        # One weight of a number is slow to learn: 200 steps do not make it large. Beside it stand products of two.
        self.aside = nn.Linear(self.features, HIDDEN) if method == "concatenate" and entries else None
        self.joining = self.features + HIDDEN if self.aside is not None else 0
        made = {"film": Film, "attention": Asking}.get(method) if entries else None
        at = {} if made is None else {str(place): made(self.features, count) for place, count in maps.items()}
        self.at = nn.ModuleDict(at)

    def forward(self, context: Tensor | None) -> Tensor | None:
        """Return (batch, features), or None without covariates; ValueError for another number of entries."""
        if (0 if context is None else int(context.shape[1])) != self.entries:
            raise ValueError(f"a context of {self.entries} numbers is needed beside each image")
        if context is None or self.hearing is None:
            return context if self.narrow is None else self.narrow(context)
        rest = context[:, self.hearing.entries :]
        return torch.cat([self.hearing(context), rest if self.narrow is None else self.narrow(rest)], dim=1)

    def shaped(self, maps: Tensor, covariates: Tensor | None, place: int = 0) -> Tensor:
        """The image's features, (batch, maps, *spatial) or (batch, maps), after they were told at this place."""
        return self.at[str(place)](maps, covariates) if str(place) in self.at else maps

    def joined(self, features: Tensor, covariates: Tensor | None) -> Tensor:
        """(batch, features + joining)"""
        if self.aside is None or covariates is None:
            return features
        return torch.cat([features, covariates, torch.relu(self.aside(covariates))], dim=1)

    def added(self, images: Tensor) -> dict[str, Tensor]:
        """What a network in training adds to the loss of each sample, by its name."""
        return {} if self.narrow is None or not self.training else {ADDED: self.narrow.cost().expand(images.shape[0])}

    def answers(self, layers: nn.ModuleDict, features: Tensor, covariates: Tensor | None) -> dict[str, Tensor]:
        """Those of the last layers by their names, for (batch, features) of the image."""
        seen = self.joined(features, covariates)
        return {**{name: layer(seen) for name, layer in layers.items()}, **self.added(seen)}
