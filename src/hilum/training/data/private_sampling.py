"""Who is in the batch of a private step: each unit by its own chance, and of each one image.

The accountant assumes batches of varying size in which each unit is, or is not, whatever the others do (Poisson
sampling: Mironov, Talwar and Zhang, arXiv:1908.10530).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hilum.transforms import random_draws

# Set the draws of units, of a sample and of noise apart from each other, and from those of other trainings.
UNIT_DRAW = 2**31 + 16
SAMPLE_DRAW = 2**31 + 17
NOISE_DRAW = 2**31 + 18


@dataclass(frozen=True)
class Chance:
    """Generators that nobody can make again: of each the state comes from the system's entropy.

    seed: makes them repeatable, for a deterministic training; whoever knows it can take the noise away
    """

    seed: int | None = None

    @property
    def source(self) -> str:
        """ "system", or "seed" where the draws can be repeated."""
        return "system" if self.seed is None else "seed"

    def generator(self, draw: int, step: int, number: int = 0) -> np.random.Generator:
        """The generator of one purpose in one step."""
        if self.seed is None:
            return np.random.Generator(np.random.Philox(np.random.SeedSequence(secrets.randbits(256))))
        return random_draws.sample_generator(self.seed, step, number, draw)


@dataclass(frozen=True, eq=False)
class PoissonSampling:
    """Batches of units that are sampled by chance alone.

    units: the numbers of the cases of each
    rate:  chance of each to be in a batch
    """

    units: Sequence[Sequence[int]]
    rate: float
    chance: Chance

    def of_step(self, step: int) -> list[tuple[int, np.random.Generator]]:
        """The case of each sample, and the generator of its patch and its augmentation; perhaps none."""
        draws = self.chance.generator(UNIT_DRAW, step)
        chosen_units = np.flatnonzero(draws.random(len(self.units)) < self.rate).tolist()
        chosen = [self.units[unit][int(draws.integers(len(self.units[unit])))] for unit in chosen_units]
        return [(case, self.chance.generator(SAMPLE_DRAW, step, case)) for case in chosen]
