"""The fingerprint of a data set: the numbers from which planning decides, with shortcuts to the outcome."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from hilum.values.estimate import Estimate
from hilum.values.grid_geometry import MM
from hilum.values.plain_values import PlainValue


def sizes_in_words(shapes: Collection[Sequence[int]]) -> str:
    """ "all 28 x 28", or from the least to the most along each axis, "32 to 43 x 41 to 56"; by the number of axes."""
    words = []
    for axes in sorted({len(shape) for shape in shapes}):
        ends = [(min(one), max(one)) for one in zip(*(s for s in shapes if len(s) == axes), strict=True)]
        words.append(" x ".join(f"{low} to {high}" if low != high else f"{low}" for low, high in ends))
    alike = len({tuple(shape) for shape in shapes}) == 1
    return f"all {words[0]}" if alike else " and ".join(words)


@dataclass(frozen=True)
class CaseFacts:
    """One case, measured once.

    shape, steps: of the image in canonical order of axes; `steps` in mm where `physical`
    channels:     names, in order
    intensity:    per channel, of valid voxels: min, low and high (0.5th and 99.5th percentile), median, max, mean,
                  deviation
    content_shape: voxels of the smallest box around what is not the lowest value; empty: that is the whole grid
    references:   {kind: summary}; of a mask {label value: voxels}, of instances {number: voxels}, of all else the value
                  itself
    foreground:   like `intensity`, of the voxels inside the mask; empty without a mask or where it is empty
    voxel_volume: mm³ (of two axes mm²) of a voxel; None where its size is not known
    thickness:    {label value: voxels} how thin its structure is, the mean run along the axis where runs are shortest
    elongation:   {label value: times} how many times its own width a piece of it is long, were it a straight rod
    components:   {label value: pieces} that do not touch, not even at a corner; without a mask {object: pieces}
    kinds:        {object: its class} where single objects have classes
    places:       {label value: (low, high)} where nine in ten of its voxels begin and end on the axis from left to
                  right, in shares of the image; empty where that axis is not known
    unit:         of `steps`: mm, of a series that of its axis
    frames:       in time; None without a frame axis
    lasts:        s from the first frame to the last; None where that is not known
    air:          share of the image that lies beside a body, with a margin; 0 where no body is told apart
    marks_air:    whether a mask marks something there
    tissue:       of a slide in levels, the share of it that is dyed, 1 where no colours tell; None of any other image
    """

    id: str
    shape: tuple[int, ...]
    steps: tuple[float, ...]
    physical: bool
    oriented: bool
    channels: tuple[str, ...]
    modality: str
    intensity: tuple[Mapping[str, float], ...]
    content_shape: tuple[int, ...] = ()
    references: Mapping[str, Any] = field(default_factory=dict)
    foreground: tuple[Mapping[str, float], ...] = ()
    voxel_volume: float | None = None
    thickness: Mapping[int, float] = field(default_factory=dict)
    elongation: Mapping[int, float] = field(default_factory=dict)
    components: Mapping[int, int] = field(default_factory=dict)
    kinds: Mapping[int, str] = field(default_factory=dict)
    places: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    unit: str = MM
    frames: int | None = None
    lasts: float | None = None
    air: float = 0.0
    marks_air: bool = False
    tissue: float | None = None

    @property
    def content(self) -> float:
        """Share of the grid inside the box around its content."""
        return math.prod(self.content_shape or self.shape) / math.prod(self.shape)


class AxisRanges(TypedDict):
    """The smallest, the median and the largest along each axis."""

    min: list[float]
    median: list[float]
    max: list[float]


class LargestImage(TypedDict):
    """The shape of the largest training image, and the steps of its voxels."""

    shape: list[float]
    steps: list[float]


class FingerprintRecord(TypedDict, total=False):
    """Statistics of the training images; references: counts by kind. They name no case."""

    cases: int
    modalities: list[str]
    channels: list[str]
    physical: bool
    shape: AxisRanges | None
    spacing: AxisRanges | None
    largest: LargestImage
    intensity: list[dict[str, float]]
    foreground: list[dict[str, float]]
    references: Mapping[str, Mapping[str, PlainValue]]


@dataclass(frozen=True)
class Fingerprint:
    """The facts of all readable cases."""

    cases: tuple[CaseFacts, ...]

    def __len__(self) -> int:
        return len(self.cases)

    def only(self, ids: set[str]) -> Fingerprint:
        """The facts of these cases: a statistic that enters a plan comes from training cases only."""
        return Fingerprint(tuple(case for case in self.cases if case.id in ids))

    @property
    def is_of_slides(self) -> bool:
        """Whether all cases are slides."""
        return bool(self.cases) and all(case.tissue is not None for case in self.cases)

    @property
    def unit(self) -> str:
        """The unit of the steps of all cases."""
        return next((case.unit for case in self.cases if case.physical), MM)

    @property
    def axes(self) -> int:
        """The number of axes of its images: the most, where they differ."""
        return max((len(case.shape) for case in self.cases), default=0)

    @property
    def shapes(self) -> np.ndarray:
        """(cases, axes) voxels."""
        return np.array([case.shape for case in self.cases])

    @property
    def steps(self) -> np.ndarray:
        """(cases, axes) in `unit` per voxel."""
        return np.array([case.steps for case in self.cases])

    def summaries(self, kind: str) -> dict[str, Any]:
        """{case id: summary of its reference of this kind}, of the cases that have one."""
        return {case.id: case.references[kind] for case in self.cases if kind in case.references}

    @property
    def crowd(self) -> float:
        """Single objects of the median case that has numbered ones; 0 where none has."""
        counts = [len(set(numbers) - {0}) for numbers in self.summaries("instances").values()]
        return float(np.median(counts)) if counts else 0.0

    def voxels(self, kind: str = "mask") -> dict[int, int]:
        """{label value: voxels} over all cases that have such a reference."""
        total: dict[int, int] = {}
        for case in self.cases:
            for value, count in case.references.get(kind, {}).items():
                total[int(value)] = total.get(int(value), 0) + count
        return dict(sorted(total.items()))

    def counts(self, kind: str = "class") -> dict[str, int]:
        """{class: cases}"""
        names = [case.references[kind] for case in self.cases if kind in case.references]
        return dict(sorted(Counter(names).items()))

    def values(self, kind: str = "value") -> dict[str, np.ndarray]:
        """{name: (cases,) numbers}, of the cases that have it."""
        measured = [case.references[kind] for case in self.cases if kind in case.references]
        names = dict.fromkeys(name for one in measured for name in one)
        return {name: np.array([one[name] for one in measured if name in one], dtype=np.float64) for name in names}

    @property
    def findings(self) -> dict[str, tuple[int, int]]:
        """{finding: (cases that have it, cases that lack it)}, of those in which it is known."""
        findings = [case.references["findings"] for case in self.cases if "findings" in case.references]
        names = dict.fromkeys(name for stated in findings for name in stated)
        return {
            name: (
                sum(bool(stated[name]) for stated in findings if name in stated),
                sum(not stated[name] for stated in findings if name in stated),
            )
            for name in names
        }

    def events(self) -> tuple[np.ndarray, np.ndarray]:
        """(cases,) time and whether the event happened then, of the cases that have such a reference."""
        events = [case.references["event"] for case in self.cases if "event" in case.references]
        return np.array([time for time, _ in events], dtype=float), np.array(
            [bool(had) for _, had in events], dtype=bool
        )

    @property
    def largest(self) -> LargestImage:
        """The grid of the largest image, by lengths where these are known of all: `shape` and `steps`."""
        physical = all(case.physical for case in self.cases)
        sizes = [math.prod(case.shape) * (math.prod(case.steps) if physical else 1) for case in self.cases]
        case = self.cases[int(np.argmax(sizes))]
        return {"shape": [float(size) for size in case.shape], "steps": list(case.steps)}

    @property
    def summary(self) -> FingerprintRecord:
        """Statistics of the images of all cases; they name no case, and may travel with a model."""
        if not self.cases:
            return {"cases": 0}
        # Cases of two and of three axes have no shape in common.
        alike = len({len(case.shape) for case in self.cases}) == 1
        return {
            "cases": len(self.cases),
            "modalities": sorted({case.modality for case in self.cases}),
            "channels": sorted({", ".join(case.channels) for case in self.cases}),
            "physical": all(case.physical for case in self.cases),
            "shape": _axis_ranges(self.shapes) if alike else None,
            "spacing": _axis_ranges(self.steps) if alike else None,
            "largest": self.largest,
            "intensity": _typical([case.intensity for case in self.cases]),
            "foreground": _typical([case.foreground for case in self.cases if case.foreground]),
        }


def _axis_ranges(values: np.ndarray) -> AxisRanges:
    """(cases, axes) to the smallest, the median and the largest of each axis."""
    low, middle, high = np.quantile(values, [0, 0.5, 1], axis=0).tolist()
    return {"min": low, "median": middle, "max": high}


def _typical(cases: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """The median over cases of each statistic of each channel; nothing where cases have not the same channels."""
    if len({len(channels) for channels in cases}) != 1:
        return []
    return [
        {name: float(np.median([one[name] for one in channel])) for name in channel[0]}
        for channel in zip(*cases, strict=True)
    ]


@dataclass(frozen=True)
class Shortcut:
    """A feature other than the disease, and how well it predicts what a model is to predict.

    name:      what it is: "image size", "aspect ratio", "spacing", "border pixels", "corner pixels", "small mark",
               "column NAME"
    auc:       cross-validated by patient, each class against the rest; of values and times the share of pairs in the
               right order. 0.5 is chance
    p:         that chance does as well, adjusted after Holm over all that was tried
    removable: whether preprocessing can remove it
    standing:  whether it still predicts it in what the network sees
    setting:   of the plan's preprocessing that removes it: "aspect" or "border"
    what:      the outcome, in words that end before "by ... alone"
    figure:    the name of `auc`: "AUC", or "c" of values and times
    where:     of a mark, where it lies; else empty
    kind:      of reference that states the outcome
    """

    name: str
    auc: Estimate
    p: float
    removable: bool
    standing: bool
    setting: str = ""
    what: str = "the classes can be told apart"
    figure: str = "AUC"
    where: str = ""
    kind: str = ""

    @property
    def p_text(self) -> str:
        """ "= 0.021", or "< 0.001" where more digits would claim too much."""
        return "< 0.001" if self.p < 0.001 else f"= {self.p:.2g}"

    @property
    def source(self) -> str:
        """Its name, of a mark with its place."""
        return f"{self.name} ({self.where})" if self.where else self.name

    @property
    def sentence(self) -> str:
        """A sentence that says what the feature alone predicts, without the figure."""
        return f"{self.what} by {self.source} alone"
