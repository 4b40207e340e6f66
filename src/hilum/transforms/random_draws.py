"""Random draws that depend on their purpose, never on earlier draws.

Each draw is a function of (seed, epoch, case, draw). So the number of workers, of ranks or of interruptions cannot
change a result, and a resumed run has the draws that the uninterrupted one would have had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hilum.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def sample_generator(seed: int, epoch: int, case: int, draw: int = 0) -> np.random.Generator:
    """The generator of one sample: the same for the same four numbers."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch, case, draw))))


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which an epoch goes through `count` cases."""
    return sample_generator(seed, epoch, count, 2**31).permutation(count)


def child_generator(key: int, kind: int) -> np.random.Generator:
    """A generator of its own for one kind of change, so that no kind takes numbers from another."""
    return np.random.default_rng((key, kind))


@dataclass(frozen=True, eq=False)
class BatchDraws:
    """The draws of a batch from its samples' generators: as many for every sample, whatever is then done with them.

    keys:    (batch,) of which each kind of change makes its own generator
    chances: (batch, kinds) in 0..1; a kind befalls a sample whose chance is below its probability
    """

    keys: tuple[int, ...]
    chances: NDArray[np.float64]

    @classmethod
    def from_generators(cls, generators: Sequence[np.random.Generator], kinds: int) -> BatchDraws:
        """A key and a chance for each of so many kinds of change, from each sample's generator."""
        keys = tuple(int(rng.integers(2**63)) for rng in generators)
        return cls(keys, np.stack([rng.random(kinds) for rng in generators]))

    def chosen_samples(self, kind: int, probability: float) -> NDArray[np.intp]:
        """The samples that it befalls."""
        return np.flatnonzero(self.chances[:, kind] < probability)

    def generators(self, kind: int, samples: Sequence[int] | NDArray[np.intp]) -> list[np.random.Generator]:
        """Generators of this kind of change for these samples."""
        return [child_generator(self.keys[n], kind) for n in samples]


def keep_some(is_there: NDArray[np.bool_], probability: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(images,) which of those that are there are kept: each is left out with this probability, never all of them."""
    chances = rng.random(len(is_there))
    is_kept = is_there & (chances >= probability)
    if not is_kept.any():  # the last that would have been left out stays
        is_kept[np.where(is_there, chances, -1.0).argmax()] = is_there.any()
    return is_kept


def uniform_numbers(generators: Sequence[np.random.Generator], low: float, high: float) -> NDArray[np.float64]:
    """(samples,) one number from each generator."""
    return np.array([rng.uniform(low, high) for rng in generators])


def two_sided_numbers(generators: Sequence[np.random.Generator], least: float) -> NDArray[np.float64]:
    """(samples,) one number from each generator, -1 to -least or least to 1."""
    values = uniform_numbers(generators, -1, 1)
    return np.copysign(least + (1 - least) * np.abs(values), values)


def spread_per_sample(values: NDArray[np.float64], images: Tensor) -> Tensor:
    """(samples,) numbers, shaped and placed so that each meets its own of the images (samples, channels, *spatial)."""
    tensor = torch.as_tensor(values, dtype=images.dtype, device=images.device)
    return tensor.reshape(-1, *[1] * (images.ndim - 1))


def uniform_per_sample(images: Tensor, generators: Sequence[np.random.Generator], low: float, high: float) -> Tensor:
    """A number from each generator, shaped and placed so that it meets its own of the images."""
    return spread_per_sample(uniform_numbers(generators, low, high), images)


def white_noise(images: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
    """Normal numbers in the images' shape, made on their device, each sample's by its own generator."""
    # Filled in the order of memory, which must not be that of an image that happens to lie otherwise.
    noise = torch.empty(images.shape, dtype=images.dtype, device=images.device)
    for n, rng in enumerate(generators):
        source = torch.Generator(device=images.device).manual_seed(int(rng.integers(2**63)))
        noise[n].normal_(generator=source)
    return noise
