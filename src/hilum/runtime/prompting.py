"""Prompts on their way to a network: on the grid that it sees, slice by slice, and masks of prompts as labels.

A copy of this file travels with a model; it needs NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hilum.errors import UsageError
from hilum.runtime.cascade import LabelledInput, LabelSource
from hilum.runtime.preprocessing.preprocessing import Preprocessing
from hilum.transforms import prompt_channels
from hilum.values import Array, Image, Prompts, Region
from hilum.values.covariate_values import CovariateValues
from hilum.values.prompts import PlacedPrompts

if TYPE_CHECKING:
    from hilum.runtime.inference import ModelRequest
    from hilum.runtime.model_assembly import Model
    from hilum.runtime.preprocessing.protocol import GridTrace, ImageSteps
    from hilum.runtime.windows.slide import Network
    from hilum.values import Prediction

# Kinds of a point, as families that take coordinates know them: of boxes the first and the last corner; what stands in
# place of a box; what only fills up a table.
FIRST, LAST, NO_POINT, NOTHING = 2, 3, -1, -2
# The output of a label that nothing points at.
ABSENT = -30.0


@dataclass(frozen=True, eq=False)
class ImagePrompts:
    """What is pointed at in one image.

    placed: one for each label of the result; None for those that are not pointed at here
    as_channels: whether the network sees them as channels, else it takes coordinates
    """

    placed: tuple[PlacedPrompts | None, ...]
    as_channels: bool = False

    @classmethod
    def on_image(
        cls, prompts: Sequence[Prompts], labels: Sequence[str], image: Image, where: str, *, as_channels: bool = False
    ) -> ImagePrompts:
        """The prompts in voxels of an image's grid; raises what `Prompts.on` raises."""
        by_label = {one.label: one.on(image.geometry, where) for one in prompts}
        placed = [by_label.get(label) for label in labels]
        return cls(tuple(placed if as_channels else [one and one.with_stroke_points for one in placed]), as_channels)

    def beside_image(self, steps: ImageSteps) -> ImageSteps:
        """The preprocessing of the image with channels of all prompts after its own, where the network sees them so."""
        if not self.as_channels:
            return steps
        assert isinstance(steps, Preprocessing)  # noqa: S101 - no other kind has such channels
        return LabelledInput(steps, partial(PromptSource, self.placed), len(self.placed) * prompt_channels.COUNT)

    def slices(self, where: str) -> list[int]:
        """The slices of a volume in which something is asked; UsageError for points and scribbles alone."""
        present = [one for one in self.placed if one is not None]
        if boxless := [one.label for one in present if not len(one.boxes)]:
            problem = f"{boxless[0]!r} has points or scribbles alone, and the model sees a volume slice by slice"
            raise UsageError(problem, where, "Give a box of three axes, which says through which slices it goes")
        return sorted(set().union(*(one.slices for one in present)))

    def in_slice(self, index: int) -> ImagePrompts:
        """The prompts of one slice, as of a picture."""
        return ImagePrompts(tuple(None if one is None else one.in_slice(index) for one in self.placed))

    def bind(self, network: Network, trace: GridTrace) -> Network:
        """The network as a function of images alone: (batch, 1 + labels, *spatial), the background's output is 0.

        Of images with their channels, where prompts are channels.
        """
        if self.as_channels:
            return partial(_answer_each, network, len(self.placed))
        asked = [(n, one) for n, one in enumerate(self.placed) if one is not None]
        queries = [(n, points) for n, one in asked for points in _queries(one, trace)]
        longest = max(len(points) for _, points in queries)
        table = np.full((len(queries), longest, 3), NOTHING, dtype=np.float32)
        for row, (_, points) in zip(table, queries, strict=True):
            row[: len(points)] = points
        owners, count = np.array([n for n, _ in queries]), len(self.placed)

        def pointed(batch: NDArray[np.float32]) -> Mapping[str, Array]:
            """Run the network with the prompts; of several prompts of a label the largest output counts."""
            outputs = network(batch, np.repeat(table[None], len(batch), axis=0))
            return {name: _labelled(np.asarray(one), owners, count) for name, one in outputs.items()}

        return pointed


def _answer_each(network: Network, labels: int, batch: NDArray[np.float32]) -> Mapping[str, Array]:
    """One label after the other through the network, in the windows in which something shows where it is."""
    channels, (count, _, *spatial) = prompt_channels.COUNT, batch.shape
    prompt_maps = batch[:, -labels * channels :].reshape(count, labels, channels, *spatial)
    image, joined = batch[:, : -labels * channels], dict[str, Array]()
    shows = np.asarray(prompt_maps.reshape(count, labels, -1).any(axis=2))
    asked = shows if shows.any() else np.eye(count, labels, dtype=bool) & (np.arange(labels) == 0)  # one for its shape
    for n in np.flatnonzero(asked.any(axis=0)):
        rows = asked[:, n]
        for name, one in network(np.concatenate([image[rows], prompt_maps[rows, n]], axis=1)).items():
            odds = np.asarray(one)[:, 1] - np.asarray(one)[:, 0]
            if name not in joined:
                joined[name] = np.full((count, 1 + labels, *odds.shape[1:]), ABSENT, dtype=odds.dtype)
                joined[name][:, 0] = 0
            joined[name][rows, 1 + n] = odds if shows.any() else ABSENT
    return joined


@dataclass(frozen=True, eq=False)
class PromptSource:
    """(labels * channels, *padded) prompts as channels on the network's grid, region by region.

    reached: {label: (*padded) bool} what earlier windows have found of a label
    """

    placed: Sequence[PlacedPrompts | None]
    trace: GridTrace
    reached: dict[int, Array] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """(labels * channels, *padded)."""
        return (len(self.placed) * prompt_channels.COUNT, *self.trace.padded_shape)

    def __getitem__(self, region: Region) -> NDArray[np.float32]:
        sides = [range(*part.indices(size)) for part, size in zip(region, self.trace.padded_shape, strict=True)]
        spatial, start = tuple(map(len, sides)), np.array([side.start for side in sides])
        channels = np.zeros((len(self.placed), prompt_channels.COUNT, *spatial), dtype=np.float32)
        for n, one in enumerate(self.placed):
            if one is None:
                continue
            for low, high in self._edges(one.boxes[:, 0], one.boxes[:, 1]):
                prompt_channels.render_box(channels[n], low - start, high - start)
            prompt_channels.render_points(channels[n], self._indices(one.points) - start, one.inside)
            prompt_channels.render_strokes(channels[n], self._indices(one.strokes) - start, one.within)
            channels[n, prompt_channels.PREVIOUS] = self.earlier_mask(n, region)
        return channels.reshape(-1, *spatial)

    def earlier_mask(self, label: int, region: Region) -> Array:
        """(*region) what earlier windows, or an earlier answer, marked of a label."""
        one, mask = self.placed[label], self.reached.get(label)
        if mask is not None:
            return np.asarray(mask[region])
        if one is None or one.previous is None:
            return np.zeros([part.stop - part.start for part in region], dtype=np.uint8)
        return LabelSource(one.previous.astype(np.uint8), self.trace)[region]

    def shows(self, region: Region) -> bool:
        """Whether somebody points into a region of the network's grid, or something was marked there."""
        start, stop = (np.array([getattr(part, end) for part in region]) for end in ("start", "stop"))
        low, high = np.swapaxes(self._extents, 0, 1)
        return any(mask[region].any() for mask in self.reached.values()) or bool(
            ((low < stop) & (high > start)).all(axis=1).any()
        )

    @cached_property
    def _extents(self) -> NDArray[np.float64]:
        """(n, 2, axes) the edges of each prompt, and of each earlier mask, on the network's grid."""
        extents = [np.zeros((0, 2, len(self.trace.shape)))]
        for one in (placed for placed in self.placed if placed is not None):
            points = self._indices(np.concatenate([one.points, one.strokes]))
            extents += [self._edges(one.boxes[:, 0], one.boxes[:, 1]), np.stack([points, points + 1], axis=1)]
            if one.previous is not None and one.previous.any():
                marked = np.argwhere(one.previous)
                extents.append(self._edges(marked.min(axis=0)[None], marked.max(axis=0)[None] + 1))
        return np.concatenate(extents)

    def _edges(self, low: Array, high: Array) -> NDArray[np.float64]:
        """(n, 2, axes) edges on the network's grid."""
        return self.trace.boxes(np.concatenate([low, high], axis=1)).reshape(len(low), 2, len(self.trace.shape))

    def _indices(self, points: Array) -> NDArray[np.float64]:
        """(n, axes) indices on the network's grid: an index is a voxel's centre, half a voxel beyond its edge."""
        return self._edges(points + 0.5, points + 0.5)[:, 0] - 0.5


def _labelled(masks: Array, owners: Array, count: int) -> Array:
    """(batch, prompts, *spatial) to (batch, 1 + labels, *spatial)."""
    labelled = np.full((len(masks), 1 + count, *masks.shape[2:]), ABSENT, dtype=masks.dtype)
    labelled[:, 0] = 0
    for n in np.unique(owners):
        labelled[:, 1 + n] = masks[:, owners == n].max(axis=1)
    return labelled


def _queries(placed: PlacedPrompts, trace: GridTrace) -> list[NDArray[np.float32]]:
    """(points, 3) x, y and kind on the network's grid: one for each box with the points in it or in none, else one.

    Coordinates are whole at the centres of pixels, and a box goes from its first to its last pixel, as those of SAM's
    training: segment_anything/utils/amg.py and transforms.py.
    """
    points = _on_grid(placed.points, trace)
    kinds = placed.inside.astype(np.float32)[:, None]
    rows = np.concatenate([points, kinds], axis=1)
    if not len(placed.boxes):
        return [np.vstack([rows, [[0, 0, NO_POINT]]]).astype(np.float32)]
    low, high = placed.boxes[:, 0], np.maximum(placed.boxes[:, 1] - 1, placed.boxes[:, 0])
    centres = placed.points[None] + 0.5
    within: Any = np.asarray((centres >= placed.boxes[:, None, 0]) & (centres <= placed.boxes[:, None, 1])).all(axis=2)
    asked: Array = within | ~within.any(axis=0)
    corners = np.stack([_on_grid(low, trace), _on_grid(high, trace)], axis=1)
    ends = np.array([[FIRST], [LAST]])
    pairs = zip(corners, asked, strict=True)
    return [np.vstack([rows[own], np.hstack([ends_of, ends])]).astype(np.float32) for ends_of, own in pairs]


def _on_grid(indices: Array, trace: GridTrace) -> Array:
    """(n, 2) row and column of the image to (n, 2) x and y of the network's grid."""
    return trace.boxes(np.concatenate([indices, indices], axis=1))[:, 1::-1]


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image of which the part that needs no prompt is computed once: with the first prompt that needs it.

    model: whose networks keep what they have encoded
    """

    model: Model
    image: Image
    covariates: CovariateValues | None = None

    def predict(self, prompts: Prompts | Sequence[Prompts], request: ModelRequest | None = None) -> Prediction:
        """The result for these prompts, as `Model.predict` gives it."""
        asked = replace(self.model.request if request is None else request, prompts=prompts)
        return self.model.predict(self.image, asked, covariates=self.covariates)
