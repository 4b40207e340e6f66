"""Batches, made ahead in a thread of this process: there is no worker process that could die unseen.

Which case, which patch and which augmentation a batch holds is a function of the seed and the step alone.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.lazy import torch
from hilum.objectives.objective_terms import Positives
from hilum.runtime.preprocessing import slide_tiles
from hilum.training.data import target_kinds
from hilum.training.data.case_sampling import LastLosses, Sampling
from hilum.training.data.prepared_store import PreparedCase
from hilum.training.data.private_sampling import PoissonSampling
from hilum.training.data.target_kinds import TargetKind
from hilum.transforms import random_draws
from hilum.values import Array, Region, grouping

AHEAD = 3

# The kind of change that leaves images out, after those of the augmentation.
LEFT_OUT = 2**16
# Sets the draws of second views apart.
SECOND = 2**17
# Sets the draws of sentences apart.
SPOKEN = 2**18

Floats32 = NDArray[np.float32]
# Image, target, generator, covariates or places, which channels are there, and the answer of another model.
_Sample = tuple[Floats32, Array, np.random.Generator, Array | None, Floats32 | None, Floats32 | None]


@dataclass(frozen=True, eq=False)
class Batch:
    """images: (batch, channels, *patch); targets: as their kind has them; one generator each

    steps:   mean length of a voxel per axis, of the whole batch
    context: (batch, entries) of covariates, or (batch, tiles, 2) places of the tiles of bags, whose images have 8 bits;
             None for a network that gets images only
    cases:   which they are, of the whole batch, also where this is a part of it
    there:   (batch, channels) 1 for each that is to be seen, 0 for one that is not; None where all are
    marked:  whether the last channel of the images holds numbers of labels from a stage before
    unlabelled: the batch of unlabelled images of the same step; None without any
    second:     another part of each image, or another image of its patient; None where nobody needs one
    taught:     (batch, channels, ...) answers of another model; None where nobody teaches
    texts:      some sentences of each image's text, of the whole batch; empty where it has none
    places:     numbers of the places of the images, of the whole batch
    columns:    (batch, entries) covariates that an objective reads, of the whole batch; None where none does
    """

    images: Floats32
    targets: Any
    generators: tuple[np.random.Generator, ...]
    steps: tuple[float, ...]
    kind: TargetKind = field(default=None)  # type: ignore[assignment]  # each has one, whatever stands before it
    context: Floats32 | None = None
    cases: tuple[int, ...] = ()
    there: Floats32 | None = None
    marked: bool = False
    unlabelled: Batch | None = None
    second: Batch | None = None
    taught: Floats32 | None = None
    texts: tuple[str, ...] = ()
    places: tuple[int, ...] = ()
    columns: Floats32 | None = None

    def __post_init__(self) -> None:
        if self.kind is None:
            object.__setattr__(self, "kind", target_kinds.kind_for_axes(self.targets.ndim - 1, self.images.ndim - 2))


@dataclass(frozen=True, eq=False)
class Loader:
    """Batches of patches of these cases.

    foreground: share of patches that are centred on a structure; the others lie anywhere
    sampling:   how often a case is sampled, see `sampling`; all but "natural" and "by_loss" are for vector targets
    part:       the samples of each batch that are wanted; all without
    pinned:     in memory from which a GPU copies while the processor goes on
    images:     (channels,) which image of a case each is of, where a case may lack some
    left_out:   how often each image of a case is left out, never all of them
    strata:     numbers of the cases by which they are sampled in place of `sampling`, and how many of each an epoch has
    flags:      whether the last entries of the context state which channels are there
    unlabelled: makes the batch of unlabelled images of each step; None without any
    shows:      the image of which a second view is, where it is not the same part of the same image
    private:    samples who is in a batch, where nothing of a sample may depend on the others
    """

    cases: Sequence[PreparedCase]
    patch: tuple[int, ...]
    batch: int
    foreground: float
    seed: int
    sampling: str = "natural"
    part: range | None = None
    pinned: bool = False
    images: tuple[int, ...] = ()
    left_out: float = 0.0
    flags: bool = False
    strata: tuple[NDArray[np.intp], NDArray[np.intp] | None] | None = None
    unlabelled: Loader | None = None
    shows: Positives = "view"
    private: PoissonSampling | None = None

    @cached_property
    def costs(self) -> LastLosses:
        """The losses of cases, to be noted after each step where cases are sampled by them."""
        return LastLosses(len(self.cases), self.batch, AHEAD)

    def batches(self, first: int) -> Generator[Batch]:
        """The batches from step `first` on, without end, a few of them made ahead; close it when enough are taken."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            waiting = deque(pool.submit(self.of_step, step) for step in range(first, first + AHEAD))
            try:
                for step in count(first + AHEAD):
                    batch = waiting.popleft().result()
                    waiting.append(pool.submit(self.of_step, step))
                    yield batch
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def of_step(self, step: int) -> Batch:
        """The batch of a step, or the wanted part of it, whatever was sampled before."""
        if self.private is not None:
            return self._private_batch(step, self.private)
        batch = self._batch(step, self._sampling)
        second = None if self.shows == "view" else self._batch(step, self._partner)
        others = None if self.unlabelled is None else self.unlabelled.of_step(step)
        return replace(batch, unlabelled=others, second=second)

    def _batch(self, step: int, sample_of: Callable[[int], tuple[int, np.random.Generator]]) -> Batch:
        """The batch of a step, or the wanted part of it; sample_of: the case of a sample, and its generator."""
        numbers = range(self.batch) if self.part is None else self.part
        places = [step * self.batch + n for n in numbers]
        samples = [self._sample(*sample_of(number), centred=self._is_centred(number)) for number in places]
        cases = tuple(sample_of(step * self.batch + n)[0] for n in range(self.batch))
        # One spacing for the whole batch, also where this is a part of it: images that are brought to one shape differ.
        spacing = tuple(np.mean([self.cases[index].steps for index in cases], axis=0).tolist())
        has_texts = range(self.batch) if self._has_texts else ()
        texts = tuple(self._text(step * self.batch + n, sample_of) for n in has_texts)
        return replace(self._collate(samples, cases, spacing), texts=texts)

    def _private_batch(self, step: int, private: PoissonSampling) -> Batch:
        """The batch of a private step, perhaps without any sample; what all share is of all cases, always the same."""
        chosen = private.of_step(step)
        shown = chosen or [(0, np.random.default_rng(0))]
        samples = [self._sample(index, rng, centred=bool(rng.random() < self.foreground)) for index, rng in shown]
        batch = self._collate(samples, tuple(index for index, _ in shown), self._mean_steps)
        if chosen:
            return batch
        arrays = ("images", "targets", "context", "there")
        return replace(batch, cases=(), generators=(), **{name: _first(getattr(batch, name), 0) for name in arrays})

    @cached_property
    def _mean_steps(self) -> tuple[float, ...]:
        return tuple(np.mean([case.steps for case in self.cases], axis=0).tolist())

    def _collate(self, samples: Sequence[_Sample], cases: tuple[int, ...], spacing: tuple[float, ...]) -> Batch:
        """Samples as a batch; cases: of the whole batch, of which the samples may be a part."""
        images, targets, generators, contexts, present, answers = zip(*samples, strict=True)
        alike = self._kind.alike(targets, self._blank)
        whole = [self.cases[index] for index in cases]
        images, targets, contexts, present, answers = map(self._stack, (images, alike, contexts, present, answers))
        read = [one.columns for one in whole if one.columns is not None]
        batch = Batch(images, targets, generators, spacing, self._kind, contexts, cases, present, taught=answers)
        return replace(
            batch,
            marked=self.cases[0].marked is not None,
            places=tuple(one.place for one in whole),
            columns=np.stack(read) if read else None,
        )

    @cached_property
    def _has_texts(self) -> bool:
        return any(case.texts is not None for case in self.cases)

    def _text(self, number: int, sample_of: Callable[[int], tuple[int, np.random.Generator]]) -> str:
        """Some sentences of one of a case's texts, in any order; empty for a case without."""
        index, rng = sample_of(number)
        texts = self.cases[index].texts
        if texts is None:
            return ""
        choice = random_draws.child_generator(int(rng.integers(2**63)), SPOKEN)
        sentences = replace(texts, texts=(texts.texts[int(choice.integers(len(texts.texts)))],)).sentences
        count = int(choice.integers(1, len(sentences) + 1)) if sentences else 0
        return " ".join(sentences[place] for place in choice.permutation(len(sentences))[:count])

    def _stack(self, arrays: Sequence[Any]) -> Any:
        """Arrays of samples, stacked; None where there are none."""
        return None if arrays[0] is None else stack_arrays(arrays, _pin if self.pinned else np.stack)

    def _partner(self, number: int) -> tuple[int, np.random.Generator]:
        """The case of a sample's second view, and its generator: the same image, or any of the patient."""
        index, rng = self._sampling(number)
        rng_of_partner = random_draws.child_generator(int(rng.integers(2**63)), SECOND)
        if self.shows == "slice":
            return index, rng_of_partner
        same = self._of_patient[self.cases[index].patient]
        return same[int(rng_of_partner.integers(len(same)))], rng_of_partner

    @cached_property
    def _of_patient(self) -> Mapping[str, Sequence[int]]:
        """{patient: numbers of the cases}"""
        return grouping.by_key((case.patient, number) for number, case in enumerate(self.cases))

    def _sample(self, index: int, rng: np.random.Generator, *, centred: bool) -> _Sample:
        case = self.cases[index]
        if case.places is not None:
            tiles, places = slide_tiles.sample_tiles(case.image, case.places, self.patch[0], rng)
            return tiles, np.asarray(case.target), rng, places, None, case.teacher_answer(())
        region = self._region(case, rng, centred)
        image, target = case.cut_region(region)
        present = self._there(case, rng)
        return image, target, rng, self._context(case, present), present, case.teacher_answer(region)

    def _there(self, case: PreparedCase, rng: np.random.Generator) -> Floats32 | None:
        """(channels,) which are to be seen."""
        if case.there is None:
            return None
        present = case.there
        if self.left_out > 0:
            owners = np.asarray(self.images)
            images = np.array([case.there[owners == n].any() for n in range(owners.max() + 1)])
            draw = random_draws.child_generator(int(rng.integers(2**63)), LEFT_OUT)
            present = case.there & random_draws.keep_some(images, self.left_out, draw)[owners]
        return np.asarray(present, dtype=np.float32)

    def _context(self, case: PreparedCase, present: Floats32 | None) -> Floats32 | None:
        if case.context is None or present is None or not self.flags:
            return case.context
        return np.concatenate([case.context[: -len(present)], present])

    @cached_property
    def _sampling(self) -> Sampling:
        owners, per_case = self.strata or (None, None)
        return Sampling(self.sampling, self.seed, [case.target for case in self.cases], self.costs, owners, per_case)

    @cached_property
    def _kind(self) -> TargetKind:
        return target_kinds.common_kind([case.kind for case in self.cases])

    @cached_property
    def _blank(self) -> Any:
        """The empty target, by the targets of all cases, so that batches are alike in every process."""
        return self._kind.blank([case.target for case in self.cases], self.patch)

    @cached_property
    def _rarity(self) -> Mapping[str, float]:
        """{structure: one over the number of cases that hold it}"""
        structures = (zip(case.structures, case.positions, strict=True) for case in self.cases)
        holding = Counter(name for one in structures for name, positions in one if len(positions))
        return {name: 1 / count for name, count in holding.items()}

    def _is_centred(self, number: int) -> bool:
        """Whether a sample's patch is centred on a structure: the share of each batch, not of luck."""
        return int((number + 1) * self.foreground) > int(number * self.foreground)

    def _region(self, case: PreparedCase, rng: np.random.Generator, centred: bool) -> Region:
        room = np.asarray(case.shape) - np.asarray(self.patch)
        start = rng.integers(0, room + 1)
        present = [number for number, positions in enumerate(case.positions) if len(positions)]
        if present and centred:
            # What few cases hold is looked at more often where it is: rare structures get their share across cases.
            shares = [1.0 if self.private else self._rarity[case.structures[number]] for number in present]
            rarity = np.array(shares)
            positions = case.positions[int(rng.choice(present, p=rarity / rarity.sum()))]
            centre = positions[int(rng.integers(len(positions)))]
            start = np.clip(centre - np.asarray(self.patch) // 2, 0, room)
        return tuple(slice(int(s), int(s) + n) for s, n in zip(start, self.patch, strict=True))


def stack_arrays(arrays: Sequence[Any], stack: Callable[[Sequence[Array]], Array] = np.stack) -> Any:
    """A batch of arrays; by name, where each is a mapping of several."""
    if isinstance(arrays[0], Mapping):
        return {name: stack_arrays([one[name] for one in arrays], stack) for name in arrays[0]}
    return stack(arrays)


def _first(arrays: Any, count: int) -> Any:
    """The first of a batch of arrays, also by name; None where there are none."""
    if isinstance(arrays, Mapping):
        return {name: _first(one, count) for name, one in arrays.items()}
    return None if arrays is None else arrays[:count]


def _pin(arrays: Sequence[Array]) -> Array:
    """Stacked in memory from which a GPU copies while the processor goes on."""
    stacked = torch.empty((len(arrays), *arrays[0].shape), dtype=torch.from_numpy(arrays[0]).dtype, pin_memory=True)
    return np.stack(arrays, out=stacked.numpy())
