"""Ways through the voxels of tubes, such as vessels: a tree from end to end of each piece of a mask.

A way is the cheapest one from a far end of a piece to another, where a step costs the less the farther it is from the
surface (Antiga et al., IEEE Trans Med Imaging 2003, doi:10.1109/TMI.2003.812261). So neither a rough surface nor a
thick tube makes it turn, as both do with a line that thinning leaves. The branches follow from the same tree of ways
(Sato et al., Pacific Graphics 2000, doi:10.1109/PCCGA.2000.883951). Loops are opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hilum.lazy import csgraph, ndimage, sparse, spatial
from hilum.values import Floats

Numbers = NDArray[np.int64]
# A way is longer than so many radii of the tube that it leaves, or of its own where it leaves none.
SPUR = 3.0
# Two steps from a voxel: as far as the surface of a model of the tube may lie outside of the mask.
NEAR = 2


class Voxels:
    """The voxels of a mask as points: the empty box around them takes no memory."""

    def __init__(self, places: Numbers, steps: Floats) -> None:
        self.places = places
        self.steps = steps
        self.axes = len(steps)
        self.points = places @ steps.T
        self._low = places.min(axis=0) - NEAR
        self._shape = places.max(axis=0) + NEAR + 1 - self._low
        self._keys = self._keys_of(places)

    @property
    def volume(self) -> float:
        """Of one voxel; in 2D its area."""
        return abs(float(np.linalg.det(self.steps)))

    @property
    def shortest_side(self) -> float:
        return float(np.linalg.norm(self.steps, axis=0).min())

    @property
    def longest_side(self) -> float:
        return float(np.linalg.norm(self.steps, axis=0).max())

    def find(self, places: Numbers) -> Numbers:
        """(places,) the number of the voxel at each place, -1 outside of the mask."""
        numbers = np.full(len(places), -1)
        within = ((places >= self._low) & (places < self._low + self._shape)).all(axis=1)
        keys = self._keys_of(places[within])
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        numbers[within] = np.where(self._keys[at] == keys, at, -1)
        return numbers

    def find_points(self, points: Floats) -> Numbers:
        """(points,) the number of the voxel in which each of (points, axes) mm lies, -1 outside of the mask."""
        return self.find(np.rint(np.linalg.solve(self.steps, points.T).T).astype(np.int64))

    @cached_property
    def depths(self) -> Floats:
        """(voxels,) mm to the nearest voxel outside; a hole of one voxel in a rough surface does not count."""
        unit = np.eye(self.axes, dtype=np.int64)
        beyond = list[Numbers]()
        for step in (*unit, *-unit):
            neighbours = self.places + step
            beyond.append(neighbours[self.find(neighbours) < 0])
        outside = np.unique(np.concatenate(beyond), axis=0)
        around = [np.array(step) for step in product((-1, 0, 1), repeat=self.axes) if any(step)]
        marked = np.zeros(len(outside), dtype=np.int64)
        for step in around:
            marked += self.find(outside + step) >= 0
        surface = outside[marked <= len(around) // 2] @ self.steps.T
        return np.asarray(spatial.KDTree(surface).query(self.points)[0])

    def with_surroundings(self) -> Floats:
        """(points, axes) mm of the voxels, then of those outside that lie near."""
        unit = np.eye(self.axes, dtype=np.int64)
        at_surface = np.zeros(len(self.places), dtype=bool)
        for step in (*unit, *-unit):
            at_surface |= self.find(self.places + step) < 0
        steps = product(range(-NEAR, NEAR + 1), repeat=self.axes)
        around = np.array([step for step in steps if 0 < np.abs(step).sum() <= self.axes])
        near = (self.places[at_surface][:, None] + around).reshape(-1, self.axes)
        outside = np.unique(near[self.find(near) < 0], axis=0)
        return np.concatenate([self.points, outside @ self.steps.T])

    def pairs(self) -> tuple[Numbers, Numbers, Floats]:
        """(pairs,) the two voxels of each pair of neighbours, corners included, and the mm between them."""
        starts = list[Numbers]()
        ends = list[Numbers]()
        lengths = list[Floats]()
        for offset in product((-1, 0, 1), repeat=self.axes):
            if offset <= (0,) * self.axes:  # each pair once
                continue
            neighbours = self.find(self.places + np.array(offset))
            start = np.flatnonzero(neighbours >= 0)
            starts.append(start)
            ends.append(neighbours[start])
            lengths.append(np.full(len(start), np.linalg.norm(self.steps @ offset)))
        return np.concatenate(starts), np.concatenate(ends), np.concatenate(lengths)

    def _keys_of(self, places: Numbers) -> Numbers:
        return np.asarray(np.ravel_multi_index(tuple((places - self._low).T), tuple(self._shape)))


@dataclass(frozen=True, eq=False)
class Way:
    """A way from voxel to voxel.

    numbers: (steps,) of its voxels
    joins:   whether its first and its last voxel lead into another way
    """

    numbers: Numbers
    joins: tuple[bool, bool]


class _Tree:
    """The cheapest ways from all voxels to the roots, one root a piece.

    before:  (voxels,) the next voxel on the way to the root
    lengths: (voxels,) mm to that voxel
    reach:   (voxels,) mm to the farthest voxel whose way leads through this one
    """

    def __init__(self, voxels: Voxels) -> None:
        start, end, length = voxels.pairs()
        size = (len(voxels.places),) * 2
        plain = sparse.csr_matrix((length, (start, end)), size)
        costs = sparse.csr_matrix(
            (length * (voxels.depths[start] ** -2 + voxels.depths[end] ** -2), (start, end)), size
        )
        _, pieces = csgraph.connected_components(plain, directed=False)
        anywhere = np.unique(pieces, return_index=True)[1]
        far = csgraph.dijkstra(plain, directed=False, indices=anywhere, min_only=True)
        farthest_last = np.lexsort((far, pieces))
        self.roots = farthest_last[np.searchsorted(pieces[farthest_last], np.unique(pieces), side="right") - 1]
        found = csgraph.dijkstra(costs, directed=False, indices=self.roots, min_only=True, return_predecessors=True)
        self.before = found[1].astype(np.int64)
        self.before[self.roots] = self.roots
        self.lengths = np.linalg.norm(voxels.points - voxels.points[self.before], axis=1)
        self.reach = np.zeros(size[0])
        for level in reversed(self._levels()[1:]):
            np.maximum.at(self.reach, self.before[level], self.reach[level] + self.lengths[level])
        self._by_parent = np.argsort(self.before, kind="stable")
        self._first_child = np.searchsorted(self.before[self._by_parent], np.arange(size[0] + 1))

    def children(self, number: int) -> Numbers:
        """The voxels that come to the root through this one."""
        found = self._by_parent[self._first_child[number] : self._first_child[number + 1]]
        return np.asarray(found[found != number])

    def _levels(self) -> list[Numbers]:
        """The voxels by the number of steps to their root, counted by jumps of 1, 2, 4, ... steps."""
        counts = (self.lengths > 0).astype(np.int64)
        jumps = self.before
        while counts[jumps].any():
            counts = counts + counts[jumps]
            jumps = jumps[jumps]
        order = np.argsort(counts, kind="stable")
        return np.split(order, np.searchsorted(counts[order], np.arange(1, int(counts.max()) + 1)))


def find_ways(voxels: Voxels) -> Iterator[Way]:
    """The longest way through each piece of a mask that is longer than it is wide, and the branches that leave it."""
    tree = _Tree(voxels)
    for root in tree.roots:
        yield from _Piece(voxels, tree).ways_from(int(root))


class _Piece:
    """The ways of one piece, as they are found, the longest first."""

    def __init__(self, voxels: Voxels, tree: _Tree) -> None:
        self.voxels = voxels
        self.tree = tree
        self.ways: list[Way] = []
        self.radii: list[Floats] = []  # of each way

    def ways_from(self, root: int) -> Iterator[Way]:
        """The ways of the piece that has this root."""
        waiting = [(float(self.tree.reach[root]), root)]
        while waiting:
            waiting.sort()
            _, start = waiting.pop()
            numbers, branches = self._follow(start)
            waiting += branches
            if self.ways:
                self._add_branch(numbers)
            elif self.tree.reach[root] > SPUR * self.voxels.depths[numbers].max():
                self._keep(Way(numbers, (False, False)))
            else:
                return
        for number, path in enumerate(self.ways):
            outside = self._outside_of_others(number, path)
            if len(outside.numbers) > 1:
                yield outside

    def _follow(self, start: int) -> tuple[Numbers, list[tuple[float, int]]]:
        """The way from a voxel to the farthest end, and (mm, first voxel) of what leaves it and is long enough."""
        path = list[int]()
        branches = list[tuple[float, int]]()
        at = start
        while True:
            path.append(at)
            children = self.tree.children(at)
            if not len(children):
                return np.array(path), branches
            onward = self.tree.reach[children] + self.tree.lengths[children]
            farthest = int(onward.argmax())
            is_long = onward > SPUR * self.voxels.depths[at]
            is_long[farthest] = False
            branches += zip(onward[is_long].tolist(), children[is_long].tolist(), strict=True)
            at = int(children[farthest])

    def _keep(self, path: Way, number: int | None = None) -> None:
        """Add a path, or put it in the place of another; its radii are the largest near each voxel."""
        depths = self.voxels.depths[path.numbers]
        step = float(self.tree.lengths[path.numbers].mean())
        window = 2 * round(2 * float(np.median(depths)) / step) + 1
        radii = np.asarray(ndimage.maximum_filter1d(depths, window))
        if number is None:
            self.ways.append(path)
            self.radii.append(radii)
        else:
            self.ways[number] = path
            self.radii[number] = radii

    def _distances(self, numbers: Numbers, but: int | None = None) -> tuple[Floats, Numbers, Floats]:
        """(voxels,) mm to the nearest voxel of the ways, its number among all of theirs, and the radius there."""
        kept = [number for number in range(len(self.ways)) if number != but]
        known = np.concatenate([self.ways[number].numbers for number in kept])
        radii = np.concatenate([self.radii[number] for number in kept])
        apart, nearest = spatial.KDTree(self.voxels.points[known]).query(self.voxels.points[numbers])
        return np.asarray(apart), np.asarray(nearest), radii[nearest]

    def _add_branch(self, branch: Numbers) -> None:
        """Add a way that leaves another, unless it lies within that one's tube or is but a corner of its surface.

        Where it leaves, the two arms that are straightest become one path, and the third is the branch.
        """
        apart, nearest, radii = self._distances(branch)
        runs, count = ndimage.label(apart > radii + self.voxels.longest_side)
        if not count:
            return
        lengths = self.tree.lengths[branch]
        longest = 1 + int(np.argmax(ndimage.sum_labels(lengths, runs, np.arange(1, count + 1))))
        start, end = np.flatnonzero(runs == longest)[[0, -1]].tolist()
        leaving = max(start - 1, 0)
        radius = float(radii[leaving])
        if lengths[start : end + 1].sum() <= (SPUR - 1) * radius:
            return
        ends = np.cumsum([len(path.numbers) for path in self.ways])
        number = int(np.searchsorted(ends, nearest[leaving], side="right"))
        path = self.ways[number]
        joint = int(nearest[leaving] - ends[number]) + len(path.numbers)
        step = float(lengths.mean())
        far = max(2, round(SPUR * radius / step))
        earlier = self._direction(path.numbers, joint, max(0, joint - far))
        later = self._direction(path.numbers, joint, min(len(path.numbers) - 1, joint + far))
        aside = self._direction(branch, start, min(end, start + far))
        straightest = int(np.argmin([earlier @ later, earlier @ aside, later @ aside]))
        closes = end < len(branch) - 1  # it leads back into a path: a loop
        branch = branch[: end + 1]
        is_at_end = min(joint, len(path.numbers) - 1 - joint) * step < radius
        if is_at_end or straightest == 0:
            self._keep(Way(branch, (True, closes)))
        elif straightest == 1:
            self._keep(Way(np.concatenate([path.numbers[: joint + 1], branch]), (path.joins[0], closes)), number)
            self._keep(Way(path.numbers[joint:], (True, path.joins[1])))
        else:
            self._keep(Way(np.concatenate([branch[::-1], path.numbers[joint:]]), (closes, path.joins[1])), number)
            self._keep(Way(path.numbers[: joint + 1], (path.joins[0], True)))

    def _direction(self, numbers: Numbers, start: int, end: int) -> Floats:
        """(axes,) of length 1, from one voxel of a way to another; 0 where they are the same."""
        points = self.voxels.points[numbers]
        arm = points[end] - points[start]
        return np.asarray(arm / max(float(np.linalg.norm(arm)), 1e-9))

    def _outside_of_others(self, number: int, path: Way) -> Way:
        """The way without those ends that lie in the tube which it leaves."""
        if not any(path.joins):
            return path
        apart, _, radii = self._distances(path.numbers, but=number)
        outside = np.flatnonzero(apart > radii + self.voxels.longest_side)
        if len(outside) < 2:
            return path
        first = int(outside[0]) if path.joins[0] else 0
        last = int(outside[-1]) if path.joins[1] else len(path.numbers) - 1
        return Way(path.numbers[first : last + 1], path.joins)
