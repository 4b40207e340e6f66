"""Batches, made ahead in a thread of this process: there is no worker process that could die unseen.

Which case, which patch and which augmentation a batch holds is a function of the seed and the step alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isocenter.training.store import Prepared
from isocenter.transforms import generator, order
from isocenter.values import Array, Region

AHEAD = 3


@dataclass(frozen=True, eq=False)
class Batch:
    """images: (batch, channels, *patch); targets: (batch, *patch) or (batch,); one generator and one spacing each"""

    images: NDArray[np.float32]
    targets: Array
    generators: tuple[np.random.Generator, ...]
    steps: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Loader:
    """Batches of patches of these cases.

    foreground: share of patches that are centred on a structure; the others lie anywhere
    """

    cases: Sequence[Prepared]
    patch: tuple[int, ...]
    batch: int
    foreground: float
    seed: int

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of steps `first` to `last` (excluded), a few of them made ahead."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            waiting = [pool.submit(self.of_step, step) for step in range(first, min(first + AHEAD, last))]
            for step in range(first, last):
                batch = waiting.pop(0).result()
                if step + AHEAD < last:
                    waiting.append(pool.submit(self.of_step, step + AHEAD))
                yield batch

    def of_step(self, step: int) -> Batch:
        """The batch of a step, whatever was drawn before."""
        drawn = [self._sample(step * self.batch + n) for n in range(self.batch)]
        images, targets, generators, steps = zip(*drawn, strict=True)
        # One spacing for the batch: all cases lie on the network's grid, small differences come from rounding.
        return Batch(np.stack(images), np.stack(targets), generators, tuple(np.mean(steps, axis=0).tolist()))

    def _sample(self, number: int) -> tuple[NDArray[np.float32], Array, np.random.Generator, tuple[float, ...]]:
        epoch, place = divmod(number, len(self.cases))
        index = int(order(self.seed, epoch, len(self.cases))[place])
        case = self.cases[index]
        rng = generator(self.seed, epoch, index)
        image, target = case.cut(self._region(case, rng))
        return image, target, rng, case.steps

    def _region(self, case: Prepared, rng: np.random.Generator) -> Region:
        room = np.asarray(case.shape) - np.asarray(self.patch)
        start = rng.integers(0, room + 1)
        present = [positions for positions in case.positions if len(positions)]
        if present and rng.random() < self.foreground:
            positions = present[int(rng.integers(len(present)))]
            centre = positions[int(rng.integers(len(positions)))]
            start = np.clip(centre - np.asarray(self.patch) // 2, 0, room)
        return tuple(slice(int(s), int(s) + n) for s, n in zip(start, self.patch, strict=True))
