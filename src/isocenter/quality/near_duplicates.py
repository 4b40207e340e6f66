"""Cases that hold the same image, or nearly: exactly by its voxels, nearly by how it looks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isocenter.lazy import csgraph, fft, sparse
from isocenter.quality.thumbnail import Look
from isocenter.values import Floats

# Copies of one image (JPEG at quality 40, half the size, a fifth brighter, gamma 1.2, noise) agree to 0.97 and more
# where the image has 200 pixels a side, and of 28 pixels where little was lost (docs/how-to/check.md); different
# images of one set to 0.93 at most (adrenal shapes 0.91; hippocampi 0.68, ultrasound of other people 0.63), but eyes in
# one odd frame to 0.985, moments of one heartbeat to 0.999.
SAME = 0.97
# Signs of the lowest frequencies that may differ: of 63 the same copies differ in 8 at most, such eyes in 10 and more.
MOST_BITS = 8
LOW_FREQUENCIES = {1: 64, 2: 8, 3: 4}
# A volume's small image is 16 kB in single precision: 8 MiB of them at once.
ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Twin:
    """Two cases with (nearly) one image. likeness: correlation of what is not common to the whole set; 1 if exact."""

    first: str
    second: str
    likeness: float
    exact: bool


def twins(looks: Mapping[str, Look]) -> tuple[Twin, ...]:
    """Pairs that hold the same image, the most alike first.

    Candidates are found by a perceptual hash (signs of the low frequencies of the small image; Zauner 2010), and
    proven by the correlation of the small images after what all images of the set have in common is taken away.
    """
    names = list(looks)
    pairs: dict[tuple[int, int], Twin] = {}
    for axes in sorted({look.small.ndim for look in looks.values()}):
        chosen = [n for n, name in enumerate(names) if looks[name].small.ndim == axes]
        for i, j, likeness in _alike(_Images([looks[names[n]].small for n in chosen])):
            first, second = names[chosen[i]], names[chosen[j]]
            exact = looks[first].digest == looks[second].digest
            pairs[chosen[i], chosen[j]] = Twin(first, second, 1.0 if exact else likeness, exact)
    for i, j in _equal([look.digest for look in looks.values()]):
        pairs.setdefault((i, j), Twin(names[i], names[j], 1.0, exact=True))
    return tuple(sorted(pairs.values(), key=lambda twin: (not twin.exact, -twin.likeness, twin.first, twin.second)))


def groups(pairs: tuple[Twin, ...]) -> tuple[frozenset[str], ...]:
    """Cases that are joined by pairs, directly or over others."""
    names = sorted({name for twin in pairs for name in (twin.first, twin.second)})
    if not names:
        return ()
    place = {name: n for n, name in enumerate(names)}
    rows, columns = ([place[name] for name in side] for side in zip(*((t.first, t.second) for t in pairs), strict=True))
    joined = sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(names), len(names)))
    _, label = csgraph.connected_components(joined, directed=False)
    return tuple(frozenset(np.array(names)[label == one].tolist()) for one in np.unique(label))


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


def _alike(images: _Images) -> Iterator[tuple[int, int, float]]:
    """Pairs (i < j) and how alike they are; a block of cases against a block is one matrix product."""
    bits = _signs(images)
    least = bits.shape[1] - 2 * MOST_BITS
    for rows in images.blocks:
        first: Floats | None = None
        for columns in (block for block in images.blocks if block.start >= rows.start):
            near = bits[rows.start : rows.stop] @ bits[columns.start : columns.stop].T >= least
            if columns == rows:
                near = np.triu(near, k=1)
            if near.any():
                first = images.rows(rows) if first is None else first
                likeness = first @ images.rows(columns).T
                for i, j in np.argwhere(near & (likeness >= SAME)):
                    yield rows.start + int(i), columns.start + int(j), float(likeness[i, j])


def _signs(images: _Images) -> Floats:
    """(cases, bits) of +1 and -1: low frequencies above and below their median, without the mean."""
    axes = len(images.shape)
    count, every = LOW_FREQUENCIES[axes], tuple(range(1, axes + 1))
    lowest = (slice(None), *(slice(0, count),) * axes)
    blocks = (images.rows(block).reshape(-1, *images.shape) for block in images.blocks)
    low = np.concatenate([fft.dctn(block, axes=every)[lowest].reshape(len(block), -1)[:, 1:] for block in blocks])
    return np.where(low > np.median(low, axis=1, keepdims=True), 1.0, -1.0).astype(np.float32)


def _equal(digests: list[str]) -> Iterator[tuple[int, int]]:
    """Each case with the first that has the same voxels."""
    first: dict[str, int] = {}
    for n, digest in enumerate(digests):
        if (seen := first.setdefault(digest, n)) != n:
            yield seen, n
