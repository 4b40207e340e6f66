"""Leakage: patients on both sides of a split, and cases that hold the same image, or nearly.

The same is known exactly by voxels, nearly by how an image looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from operator import itemgetter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.lazy import csgraph, fft, sparse
from hilum.quality import references
from hilum.quality.image_descriptors import ImageLook
from hilum.values import CaseFacts, Dataset, Fingerprint, Floats, Problem, ReferenceKind, grouping


def leakage_problems(dataset: Dataset, fingerprint: Fingerprint, pairs: Sequence[Twin]) -> Iterator[Problem]:
    """Findings on patients and on pairs of cases with (nearly) the same image."""
    yield from _split_patients(dataset)
    yield from _spelt_patients(dataset)
    if not dataset.patients_known and len(dataset) > 0:
        yield Problem.warning(
            f"patients are not known ({dataset.patients})",
            (),
            "one person may be in training and in test: leakage cannot be excluded",
            "Name the patient by --patient: a column, or a regular expression on case names",
        )
    for exact in (True, False):
        alike = [twin for twin in pairs if twin.exact == exact]
        yield from _twins(dataset, fingerprint, alike, "exactly" if exact else "nearly")


def _split_patients(dataset: Dataset) -> Iterator[Problem]:
    """A patient on both sides of the set's own split; a case of which it says nothing trains."""
    sides = grouping.distinct_by_key(
        (case.patient, dataset.splits.get(case.id, "train")) for case in (dataset if dataset.splits else ())
    )
    both = {patient for patient, own in sides.items() if len(own) > 1}
    if both and dataset.patients_known:
        shared_patients = errors.count_phrase(len(both), "patient is", "patients are")
        yield Problem.error(
            f"{shared_patients} in more than one part of the set's own split",
            tuple(case.id for case in dataset if case.patient in both),
            "a model that only recognises a person would pass the test",
            "Correct the split, so that all cases of a patient are in one part",
        )


def _spelt_patients(dataset: Dataset) -> Iterator[Problem]:
    """Patients whose names differ only in upper and lower case, who may be one."""
    spelt = grouping.distinct_by_key(
        (case.patient.casefold(), case.patient) for case in (dataset if dataset.patients_known else ())
    )
    doubtful = {name for own in spelt.values() if len(own) > 1 for name in own}
    if doubtful:
        yield Problem.warning(
            f"{len(doubtful)} patients differ from another only in upper and lower case",
            tuple(case.id for case in dataset if case.patient in doubtful),
            "if they are one person, that person may be in training and in test",
            "Write each patient in one way",
        )


def _twins(dataset: Dataset, fingerprint: Fingerprint, pairs: Sequence[Twin], how: str) -> Iterator[Problem]:
    """Across the parts of the set's own split, with contradictory classes, else of several patients, of one."""
    patients = {case.id: case.patient for case in dataset}
    parts = {case: dataset.splits.get(case, "train") for case in patients}  # of whom the split says nothing trains
    answers = {case.id: _answers(case) for case in fingerprint.cases}
    across = [t for t in pairs if parts[t.first] != parts[t.second]]
    contrary = {t: kinds for t in pairs if (kinds := _contradictions(answers[t.first], answers[t.second], t.exact))}
    named = {*across, *contrary}
    rest = [t for t in pairs if t not in named]
    of_one = {t for t in rest if dataset.patients_known and patients[t.first] == patients[t.second]}
    several, same_patient = [t for t in rest if t not in of_one], [t for t in rest if t in of_one]
    tested = [t for t in across if "test" in (parts[t.first], parts[t.second])]
    yield from _pairs(
        "warning",
        tested,
        f"{how} the same image in two parts of the set's own split",
        "a model that only remembers its training images would pass the test",
        "Nothing to do: the test part stays whole, and the plan leaves the others out of training",
    )
    yield from _pairs(
        "warning",
        [t for t in across if t not in set(tested)],
        f"{how} the same image in two parts of the set's own split, none of which is the test part",
        "weights that only remember their training images would be selected, or calibrated, by these",
        "Nothing to do: the plan brings both into training, or leaves one out",
    )
    yield from _pairs(
        "warning",
        list(contrary),
        f"{how} the same image with different {' and '.join(sorted(set().union(*contrary.values())))}",
        "one of them is wrong, and a model cannot be right about both",
        "Ask who labelled them; leave out what cannot be settled",
    )
    yield from _pairs(
        "warning",
        several,
        f"{how} the same image under different names",
        "one in training and one in test would be a leak, and each counts twice",
        "Nothing to do: the plan keeps each pair in one part; leave out those that are not intended",
    )
    yield from _pairs(
        "note",
        same_patient,
        f"{how} the same image of one patient",
        "each pair stays in one part, but adds little to one image",
        "Leave out those that are not intended",
    )


Answers = Mapping[tuple[str, str], tuple[ReferenceKind, object]]


def _answers(case: CaseFacts) -> Answers:
    """The answers of references on the case as a whole: its class, each finding and value, its time and event."""
    return {
        (kind.name, name): (kind, answer)
        for kind in references.reference_kinds()
        if kind.name in case.references
        for name, answer in kind.facts.answers(case.references[kind.name]).items()
    }


def _contradictions(first: Answers, second: Answers, exact: bool) -> set[str]:
    """The kinds, in the plural, of which the two have different answers."""
    different = [first[key] for key in first.keys() & second.keys() if first[key] != second[key]]
    # Nearly the same image may be the next moment, which has a value and a time of its own.
    return {kind.words.plural for kind, _ in different if exact or not kind.facts.is_measured}


def _pairs(
    severity: Literal["warning", "note"], pairs: Sequence[Twin], what: str, why: str, remedy: str
) -> Iterator[Problem]:
    if pairs:
        cases = tuple(dict.fromkeys(name for twin in pairs for name in (twin.first, twin.second)))
        yield Problem(severity, f"{errors.count_phrase(len(pairs), 'pair')} of cases with {what}", cases, why, remedy)


# Copies of one image (JPEG at quality 40, half the size, a fifth brighter, gamma 1.2, noise) agree to 0.97 and more
# where the image has 200 pixels a side, and of 28 pixels where little was lost (docs/how-to/check.md); different
# images of one set to 0.93 at most (adrenal shapes 0.91; hippocampi 0.68, ultrasound of other people 0.63), but eyes in
# one odd frame to 0.985, moments of one heartbeat to 0.999.
SAME = 0.97
# A picture that is moved by up to two of its 32 pixels agrees with its copy to 0.99 once both are laid on each other;
# different pictures of 28 pixels do to 0.98 at most (eyes in one frame; radiographs 0.96, ultrasound 0.90).
SAME_MOVED, FURTHEST = 0.99, 2.0
# Pairs that an image may be in before its further copies only join it: of thousands, as of one that says "no picture"
# or of the frames of a clip without movement, the pairs would be millions.
MOST_COPIES = 20
# Moves are tried in sets of so many pictures: each is one more comparison of all with all.
MOST_MOVED = 20_000
MOVES = tuple((down, right) for down in (-1, 0, 1) for right in (-1, 0, 1))
# Pixels at each edge that a moved copy may have made up.
EDGE = 2
INNER = (slice(None), slice(EDGE, -EDGE), slice(EDGE, -EDGE))
# Signs of the lowest frequencies that may differ: of 63 the same copies differ in 8 at most, such eyes in 10 and more.
MOST_BITS = 8
LOW_FREQUENCIES = {1: 64, 2: 8, 3: 4}
# A volume's small image is 16 kB in single precision: 8 MiB of them at once.
ROWS_AT_ONCE = 512
Places = NDArray[np.intp]


@dataclass(frozen=True)
class Twin:
    """Two cases with (nearly) one image. likeness: correlation of what is not common to the whole set; 1 if exact."""

    first: str
    second: str
    likeness: float
    exact: bool


def find_twins(looks: Mapping[str, ImageLook]) -> tuple[Twin, ...]:
    """Pairs that hold the same image, the most alike first.

    Candidates are found by a perceptual hash (signs of the low frequencies of the small image; Zauner 2010), pictures
    also after a step to each side, and proven by the correlation of the small images, laid on each other, after what
    all images of the set have in common is taken away. Of very many copies of one image the further ones make no more
    pairs than join them to the others.
    """
    names = list(looks)
    pairs: dict[tuple[int, int], Twin] = {}
    equal = list(_equal([look.digest for look in looks.values()]))
    further = {j for _, own in groupby(sorted(equal), itemgetter(0)) for _, j in islice(own, MOST_COPIES, None)}
    for axes in sorted({look.small.ndim for look in looks.values()}):
        chosen = [n for n, name in enumerate(names) if looks[name].small.ndim == axes and n not in further]
        images, joined = _Images([looks[names[n]].small for n in chosen]), _Joined(len(chosen))
        likenesses = {(i, j): likeness for i, j, likeness in _alike(images, joined)}
        if axes == 2 and len(chosen) <= MOST_MOVED:
            moved = {(i, j): likeness for i, j, likeness in _moved_twins(images, joined)}
            likenesses = {**moved, **likenesses}
        for (i, j), likeness in likenesses.items():
            first, second = names[chosen[i]], names[chosen[j]]
            exact = looks[first].digest == looks[second].digest
            pairs[chosen[i], chosen[j]] = Twin(first, second, 1.0 if exact else likeness, exact)
    for i, j in equal:
        pairs.setdefault((i, j), Twin(names[i], names[j], 1.0, exact=True))
    return tuple(sorted(pairs.values(), key=lambda twin: (not twin.exact, -twin.likeness, twin.first, twin.second)))


def joined_groups(pairs: tuple[Twin, ...]) -> tuple[frozenset[str], ...]:
    """Cases that are joined by pairs, directly or over others."""
    names = sorted({name for twin in pairs for name in (twin.first, twin.second)})
    if not names:
        return ()
    index_of = {name: n for n, name in enumerate(names)}
    rows, columns = zip(*((index_of[t.first], index_of[t.second]) for t in pairs), strict=True)
    joined = sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(names), len(names)))
    _, label = csgraph.connected_components(joined, directed=False)
    members = grouping.by_key((group, name) for name, group in zip(names, label.tolist(), strict=True))
    return tuple(map(frozenset, members.values()))


def duplicates_among(looks: Mapping[str, ImageLook], others: Mapping[str, ImageLook]) -> dict[str, frozenset[str]]:
    """{name among the others: own cases with (nearly) the same image}, joined by pairs directly or over others."""
    found = joined_groups(find_twins({**looks, **others}))
    return {name: group & looks.keys() for group in found for name in group & others.keys()}


class _Images:
    """Small images without the set's mean image, each of length 1: registered brains are no twins.

    Of few images the mean is no common anatomy but the images themselves. Rows are made when they are asked for: those
    of all cases together would be most of what a check holds.
    """

    def __init__(self, small: Sequence[Floats]) -> None:
        self.small, self.shape = small, small[0].shape
        self.mean = np.zeros(small[0].size, dtype=np.float32)
        if len(small) >= 8:
            sums = [_unit(self._flat(block)).sum(axis=0, dtype=np.float64) for block in self.blocks]
            self.mean = (np.sum(sums, axis=0) / len(small)).astype(np.float32)

    @property
    def blocks(self) -> Iterator[range]:
        """The numbers of the images, in blocks that fit into memory."""
        count = len(self.small)
        return (range(start, min(start + ROWS_AT_ONCE, count)) for start in range(0, count, ROWS_AT_ONCE))

    def pictures(self, chosen: Iterable[int]) -> Floats:
        """(chosen, rows, columns) as they are."""
        return self._flat(chosen).reshape(-1, *self.shape)

    def inner(self, pictures: Floats) -> Floats:
        """(pictures, pixels) without their edges and what all have in common there, each of length 1."""
        flat = _unit(pictures[INNER].reshape(len(pictures), -1).copy())
        return _unit(flat - self._common) if self.mean.any() else flat

    @cached_property
    def _common(self) -> Floats:
        sums = [_unit(self.pictures(block)[INNER].reshape(len(block), -1).copy()).sum(axis=0) for block in self.blocks]
        return np.asarray(np.sum(sums, axis=0) / len(self.small), dtype=np.float32)

    def rows(self, chosen: Iterable[int]) -> Floats:
        """(chosen, voxels)"""
        flat = _unit(self._flat(chosen))
        flat -= self.mean
        return _unit(flat) if self.mean.any() else flat

    def _flat(self, chosen: Iterable[int]) -> Floats:
        stacked = np.array([self.small[n] for n in chosen], dtype=np.float32)
        return stacked.reshape(len(stacked), -1)


def _unit(flat: Floats) -> Floats:
    """Each row of mean 0 and length 1, in place."""
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    np.divide(flat, length, out=flat, where=length > 1e-6)
    flat[length[:, 0] <= 1e-6] = 0
    return flat


class _Joined:
    """The groups of images that pairs join, directly or over others, and the number of pairs of each."""

    def __init__(self, count: int) -> None:
        self._group = np.arange(count)
        self._pairs = np.zeros(count, dtype=int)

    def join(self, i: int, j: int) -> None:
        self._group[self._group == self._group[j]] = self._group[i]
        self._pairs[[i, j]] += 1

    def is_new(self, pairs: Places) -> NDArray[np.bool_]:
        """(pairs,) whether the two of each of (pairs, 2) are not joined, or in few pairs."""
        apart = self._group[pairs[:, 0]] != self._group[pairs[:, 1]]
        return np.asarray(apart | (self._pairs[pairs] < MOST_COPIES).all(axis=1))

    def new(self, pairs: Places) -> Iterator[Places]:
        """(pairs, 2) in small blocks, without those that are joined by the time their block comes."""
        for start in range(0, len(pairs), ROWS_AT_ONCE):
            some = pairs[start : start + ROWS_AT_ONCE]
            if (is_new := self.is_new(some)).any():
                yield some[is_new]

    def take(self, pairs: Places, likenesses: Floats) -> Iterator[tuple[int, int, float]]:
        """The pairs that are still new once the ones before them are joined."""
        for pair, likeness in zip(pairs, likenesses.tolist(), strict=True):
            if self.is_new(pair[None])[0]:
                i, j = pair.tolist()
                self.join(i, j)
                yield i, j, likeness


def _alike(images: _Images, joined: _Joined) -> Iterator[tuple[int, int, float]]:
    """Pairs (i < j) and how alike they are; a block of cases against a block is one matrix product."""
    bits = _signs(images)
    for rows, blocks in groupby(_near(images, [bits], bits), key=itemgetter(0)):
        first = images.rows(rows)
        for _, columns, near in blocks:
            likeness, start = first @ images.rows(columns).T, np.array([rows.start, columns.start])
            for pairs in joined.new(np.argwhere(near & (likeness >= SAME)) + start):
                yield from joined.take(pairs, likeness[tuple((pairs - start).T)])


def _moved_twins(images: _Images, joined: _Joined) -> Iterator[tuple[int, int, float]]:
    """Pairs (i < j) of pictures of which one is moved a little, and how alike they are where they lie on each other."""
    stepped = [_signs(images, move) for move in MOVES]
    for rows, columns, near in _near(images, stepped, _signs(images, (0, 0))):
        for pairs in joined.new(np.argwhere(near) + np.array([rows.start, columns.start])):
            likeness = _laid_on_each_other(images, pairs)
            same = likeness >= SAME_MOVED
            yield from joined.take(pairs[same], likeness[same])


def _near(
    images: _Images, vectors: Sequence[Floats], others: Floats
) -> Iterator[tuple[range, range, NDArray[np.bool_]]]:
    """Blocks of images with a pair (i < j) that differs in few signs, and which pairs do.

    each, others: signs of all images; the first of a pair may have any of `each`
    """
    least = others.shape[1] - 2 * MOST_BITS
    for rows in images.blocks:
        for columns in (block for block in images.blocks if block.start >= rows.start):
            other = others[columns.start : columns.stop].T
            near = np.any([bits[rows.start : rows.stop] @ other >= least for bits in vectors], axis=0)
            if columns == rows:
                near = np.triu(near, k=1)
            if near.any():
                yield rows, columns, near


def _laid_on_each_other(images: _Images, pairs: Places) -> Floats:
    """(pairs,) how alike the pictures of each pair are after the move that makes them most alike.

    pairs: (pairs, 2). Lucas and Kanade, IJCAI 1981: the move is the least-squares one along the gradients, found in
    three steps; both pictures are moved by half of it, so that both are equally blurred.
    """
    first, second = (_even(images.pictures(pairs[:, side])) for side in (0, 1))
    move = np.zeros((len(pairs), 2), dtype=np.float32)
    for _ in range(3):
        laid, under = _shift(first, move / 2), _shift(second, -move / 2)
        slopes = np.stack([np.gradient((laid + under) / 2, axis=axis) for axis in (1, 2)], axis=-1)[INNER].reshape(
            len(pairs), -1, 2
        )
        apart = (laid - under)[INNER].reshape(len(pairs), -1, 1)
        across = slopes.transpose(0, 2, 1)
        flat = 1e-6 * np.eye(2, dtype=np.float32)
        move = (move + np.linalg.solve(across @ slopes + flat, across @ apart)[..., 0]).clip(-FURTHEST, FURTHEST)
    laid, under = (images.inner(one) for one in (_shift(first, move / 2), _shift(second, -move / 2)))
    return np.asarray((laid * under).sum(axis=1))


def _even(pictures: Floats) -> Floats:
    """Pictures of mean 0 and deviation 1 without their edges, so that two differ by a move alone."""
    inner = pictures[INNER]
    mean, deviation = (of(inner, axis=(1, 2), keepdims=True) for of in (np.mean, np.std))
    return np.asarray((pictures - mean) / np.maximum(deviation, 1e-6), dtype=np.float32)


def _shift(pictures: Floats, move: Floats) -> Floats:
    """(pictures, rows, columns) each moved by its own share of a pixel, at most one; edges go on."""
    for axis in (1, 2):
        share = move[:, axis - 1].reshape(-1, 1, 1)
        size = pictures.shape[axis]
        after, before = (np.take(pictures, np.arange(size) + step, axis, mode="clip") for step in (-1, 1))
        pictures = (1 - abs(share)) * pictures + share.clip(0) * after + (-share).clip(0) * before
    return pictures


def _signs(images: _Images, move: Sequence[int] = ()) -> Floats:
    """(cases, bits) of +1 and -1: low frequencies above and below their median, without the mean.

    move: of pictures, by so many pixels along each axis; then without their edges
    """
    axes = len(images.shape)
    count, every = LOW_FREQUENCIES[axes], tuple(range(1, axes + 1))
    lowest = (slice(None), *(slice(0, count),) * axes)
    if move:
        steps = np.array([move], dtype=np.float32)
        moved = (_shift(images.pictures(block), steps.repeat(len(block), axis=0)) for block in images.blocks)
        blocks = (images.inner(one).reshape(-1, *one[INNER].shape[1:]) for one in moved)
    else:
        blocks = (images.rows(block).reshape(-1, *images.shape) for block in images.blocks)
    low = np.concatenate([fft.dctn(block, axes=every)[lowest].reshape(len(block), -1)[:, 1:] for block in blocks])
    return np.where(low > np.median(low, axis=1, keepdims=True), 1.0, -1.0).astype(np.float32)


def _equal(digests: list[str]) -> Iterator[tuple[int, int]]:
    """Each case with the first that has the same voxels."""
    first: dict[str, int] = {}
    for n, digest in enumerate(digests):
        if (first_with_digest := first.setdefault(digest, n)) != n:
            yield first_with_digest, n
